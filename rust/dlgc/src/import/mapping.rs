//! Formats that only call things by other names: said in a few lines, by us here and by users in `dlgc.toml`.
//!
//! ```toml
//! [formats.support]
//! messages = "ticket.thread"                            # the list; `a.b[]` joins inner lists
//! role = "author.kind"                                  # who speaks; without it speakers alternate, the user first
//! roles = { customer = "user", agent = "assistant" }    # without it known names, else the order of speaking
//! content = "body.text"                                 # what is said; without it the elements are strings
//! message = { reasoning_content = "thoughts" }          # further native fields of a message
//! record = { id = "ticket.number", goal = "ticket.subject" }
//! type = "task"
//!
//! [formats.faq]
//! turns = [{ user = "question" }, { assistant = "answer" }]   # columns instead of a list
//!
//! [formats.booking]
//! messages = "dial"                                     # a list of exchanges, each with its columns
//! turns = [{ user = "usr.transcript" }, { assistant = "sys.sent" }]
//! record = { system = "instructions" }                  # the rules, as the first message
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::Context;
use super::draft::{Draft, Turn, plain, unwrapped};
use super::names;
use super::path::Path;
use super::speakers;
use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::MESSAGE_FIELDS;
use crate::json::{Fields, Json, Node, string};

/// A format as its author writes it; paths are texts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Written {
    /// Places that must be there for a record to be of this format; by default those of its messages.
    pub(super) when: Vec<String>,
    pub(super) messages: Option<String>,
    pub(super) role: Option<String>,
    pub(super) roles: BTreeMap<String, String>,
    pub(super) content: Option<String>,
    pub(super) message: BTreeMap<String, String>,
    pub(super) turns: Vec<BTreeMap<String, String>>,
    pub(super) record: BTreeMap<String, String>,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
}

/// A format that only calls things by other names, ready for records.
#[derive(Debug, Clone)]
pub(super) struct Mapping {
    when: Vec<Path>,
    shape: Shape,
    record: Vec<(&'static str, Path)>,
    kind: Option<String>,
}

#[derive(Debug, Clone)]
enum Shape {
    List(List),
    /// Roles and the columns that hold what they say; of the elements of a list, or of the record.
    Turns(Option<Path>, Vec<(&'static str, Path)>),
}

#[derive(Debug, Clone)]
struct List {
    messages: Path,
    role: Option<Path>,
    roles: BTreeMap<String, &'static str>,
    content: Option<Path>,
    message: Vec<(&'static str, Path)>,
    /// Who speaks where the speaker is told by a truth: `user` of `is_user`.
    yes: Option<String>,
}

const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];
const OF_RECORD: [&str; 12] = [
    "system",
    "id",
    "type",
    "tools",
    "documents",
    "chat_template_kwargs",
    "goal",
    "output_schema",
    "summaries",
    "metadata",
    "group",
    "split",
];

/// Who a truth speaks of: `user` for `is_user`, `isUser` or `author.is_user`.
fn who(role: &str) -> Option<String> {
    let key = names::plain(role.rsplit('.').next()?);
    key.strip_prefix("is").map(str::to_owned)
}

fn one_of(known: &[&'static str], found: &str, what: &str) -> Result<&'static str, String> {
    let listed = || known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    known
        .iter()
        .find(|name| **name == found)
        .copied()
        .ok_or_else(|| format!("`{found}` is no {what}; there are {}", listed()))
}

fn paths(
    known: &[&'static str],
    what: &str,
    written: &BTreeMap<String, String>,
) -> Result<Vec<(&'static str, Path)>, String> {
    written.iter().map(|(field, path)| Ok((one_of(known, field, what)?, Path::parse(path)?))).collect()
}

impl Mapping {
    /// Reads what its author wrote; the error says what is wrong with it.
    pub(super) fn of(written: &Written) -> Result<Self, String> {
        let shape = match (&written.messages, written.turns.is_empty()) {
            (Some(messages), true) => Shape::List(List {
                messages: Path::parse(messages)?,
                role: written.role.as_deref().map(Path::parse).transpose()?,
                roles: written
                    .roles
                    .iter()
                    .map(|(speaker, role)| Ok((speaker.clone(), one_of(&ROLES, role, "role")?)))
                    .collect::<Result<_, String>>()?,
                content: written.content.as_deref().map(Path::parse).transpose()?,
                message: paths(&MESSAGE_FIELDS, "field of a message", &written.message)?,
                yes: written.role.as_deref().and_then(who),
            }),
            (list, false) if written.role.is_none() && written.content.is_none() => {
                let turns =
                    written.turns.iter().map(|turn| paths(&ROLES, "role", turn)).collect::<Result<Vec<_>, _>>()?;
                let list = list.as_deref().map(Path::parse).transpose()?;
                Shape::Turns(list, turns.into_iter().flatten().collect())
            }
            _ => {
                return Err(
                    "a format has `messages`, a path to a list, or `turns`, a list of columns, or both, and then \
                            neither `role` nor `content`"
                        .to_owned(),
                );
            }
        };
        if !written.roles.is_empty() && written.role.is_none() {
            return Err("`roles` says what speakers are, so `role` must say where they stand".to_owned());
        }
        let mut when = written.when.iter().map(|path| Path::parse(path)).collect::<Result<Vec<_>, _>>()?;
        if when.is_empty() {
            when = shape.own_places(written)?;
        }
        Ok(Self {
            when,
            shape,
            record: paths(&OF_RECORD, "field of a record", &written.record)?,
            kind: written.kind.clone(),
        })
    }

    /// A list of objects with a speaker and a text, by keys that are there, and the key of its id.
    pub(super) fn of_keys(messages: &str, role: &str, content: &str, id: Option<&str>) -> Self {
        let list = List {
            messages: Path::of_key(messages),
            role: Some(Path::of_key(role)),
            roles: BTreeMap::new(),
            content: Some(Path::of_key(content)),
            message: Vec::new(),
            yes: who(role),
        };
        let record = id.map(|id| ("id", Path::of_key(id))).into_iter().collect();
        Self { when: Vec::new(), shape: Shape::List(list), record, kind: None }
    }

    /// Whether a record has this shape.
    pub(super) fn recognises(&self, record: &Node<'_>) -> bool {
        self.when.iter().all(|path| path.is_in(record))
    }

    /// The dialogues of a record.
    pub(super) fn import<'a>(&self, record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
        let mut fields = Fields::of(record);
        let (mut native, mut rules) = (Vec::new(), None);
        for (field, path) in &self.record {
            let found = fields.take_path(path);
            match *field {
                "system" => rules = found.filter(|rules| rules.as_str() != Some("")),
                field => native.push((field, found)),
            }
        }
        let mut dialogues = match &self.shape {
            Shape::Turns(None, turns) => vec![columns(turns, &mut fields).into_iter().map(Turn::node).collect()],
            Shape::Turns(Some(list), turns) => {
                let exchanges = fields.take_path(list).map_or_else(Vec::new, |list| unwrapped(list).into_elements());
                let messages = |exchange: Node<'a>| {
                    let mut rest = Fields::of(exchange);
                    let mut said = columns(turns, &mut rest);
                    let last = said.pop().map(|turn| turn.annotations(rest));
                    said.into_iter().chain(last).map(Turn::node)
                };
                vec![exchanges.into_iter().flat_map(messages).collect()]
            }
            Shape::List(list) => list.import(&mut fields, context)?,
        };
        if let Some(rules) = rules {
            let turn = Turn::new(&rules.range.clone(), "system").content(Some(rules)).node();
            dialogues.iter_mut().for_each(|messages| messages.insert(0, turn.clone()));
        }
        let several = dialogues.len() > 1;
        let others = std::iter::repeat_n((fields, native), dialogues.len());
        type Native<'a> = Vec<(&'static str, Option<Node<'a>>)>;
        let draft = |((index, messages), (fields, native)): ((usize, Vec<Node<'a>>), (Fields<'a>, Native<'a>))| {
            let mut draft = Draft::of(fields);
            draft.messages = messages;
            for (field, node) in native {
                // Numbers name dialogues too, and a group is text.
                let node = node.map(|node| if field == "id" || field == "group" { plain(node) } else { node });
                match node {
                    Some(Node { value: Json::String(id), range }) if field == "id" && several => {
                        draft.set("group", Some(string(&range, id.clone())));
                        draft.set("id", Some(string(&range, format!("{id}#{}", index + 1))));
                    }
                    node => draft.set(field, node),
                }
            }
            if let Some(kind) = &self.kind {
                draft.set_text("type", kind.clone());
            }
            draft.node()
        };
        Ok(dialogues.into_iter().enumerate().zip(others).map(draft).collect())
    }
}

/// What columns hold, in their order.
fn columns<'a>(turns: &[(&'static str, Path)], fields: &mut Fields<'a>) -> Vec<Turn<'a>> {
    let say = |(role, path): &(&'static str, Path)| {
        let said = fields.take_path(path)?;
        let silent = ["system", "tool"].contains(role) && said.as_str().is_some_and(str::is_empty);
        (!silent).then(|| Turn::new(&said.range.clone(), *role).content(Some(plain(said))))
    };
    turns.iter().filter_map(say).collect()
}

impl Shape {
    fn own_places(&self, written: &Written) -> Result<Vec<Path>, String> {
        let list = match self {
            Self::List(list) => list,
            Self::Turns(None, turns) => {
                let needed = turns.iter().filter(|(role, _)| ["user", "assistant"].contains(role));
                return Ok(needed.map(|(_, path)| path.clone()).collect());
            }
            // Of an exchange, one half may be missing.
            Self::Turns(Some(list), _) => return Ok(vec![list.clone()]),
        };
        let messages = written.messages.as_deref().unwrap_or_default();
        let each = if messages.ends_with("[]") { format!("{messages}[0]") } else { format!("{messages}[]") };
        let inner = |path: &Option<Path>, text: &Option<String>| {
            path.as_ref().and(text.as_deref()).map(|text| Path::parse(&format!("{each}.{text}"))).transpose()
        };
        let places =
            [Some(Path::parse(&each)?), inner(&list.role, &written.role)?, inner(&list.content, &written.content)?];
        Ok(places.into_iter().flatten().collect())
    }
}

impl List {
    fn import<'a>(&self, fields: &mut Fields<'a>, context: &mut Context<'_>) -> Result<Vec<Vec<Node<'a>>>, Diagnostic> {
        let Some(list) = fields.take_path(&self.messages) else { return Ok(vec![Vec::new()]) };
        let whole = Node::new(list.range.clone(), Json::Null);
        let mut said = Vec::new();
        let mut names: Vec<Cow<'_, str>> = Vec::new();
        for (index, element) in unwrapped(list).into_elements().into_iter().enumerate() {
            let range = element.range.clone();
            let (content, mut rest) = match &self.content {
                None => (Some(element), Fields::of(Node::new(range.clone(), Json::Null))),
                Some(path) => {
                    let mut rest = Fields::of(element);
                    (rest.take_path(path), rest)
                }
            };
            let speaker = self.role.as_ref().and_then(|path| rest.take_path(path));
            names.push(match speaker.map(|speaker| speaker.value) {
                Some(Json::String(name) | Json::Number(name)) => name,
                // `is_user: true` says who it is, where the format does not.
                Some(Json::Bool(value)) => match &self.yes {
                    Some(who) if self.roles.is_empty() => if value { who.clone() } else { format!("not {who}") }.into(),
                    _ => value.to_string().into(),
                },
                _ if self.role.is_none() => if index % 2 == 0 { "user" } else { "assistant" }.into(),
                _ => "?".into(),
            });
            let native: Vec<_> = self.message.iter().map(|(field, path)| (*field, rest.take_path(path))).collect();
            if let Some(content) = content.as_ref().filter(|content| content.as_array().is_some()) {
                let message = "what a message says is a list, where the format names a text";
                return Err(Diagnostic::new(Code::WrongType, message).at(&content.range));
            }
            said.push((range, content.map(plain), native, rest));
        }
        let roles = match self.roles.is_empty() {
            true => {
                let roles = speakers::roles(&names, context.assistant, &whole)?;
                let place = whole.range.start..(whole.range.start + 1).min(whole.range.end);
                context.notes.extend(
                    roles
                        .assumed
                        .filter(|_| self.role.is_some())
                        .map(|said| Diagnostic::new(Code::RolesAssumed, said).at(&place)),
                );
                roles.each
            }
            false => {
                let role = |name: &Cow<'_, str>| self.roles.get(&**name).copied();
                let unknown = names.iter().find(|name| role(name).is_none());
                if let Some(name) = unknown {
                    return Err(Diagnostic::new(
                        Code::UnknownRole,
                        format!("`{name}` is no speaker that the format maps"),
                    )
                    .at(&whole.range)
                    .help("add it to `roles` of the format"));
                }
                vec![names.iter().filter_map(role).collect()]
            }
        };
        let said = std::iter::repeat_n(said, roles.len());
        let dialogues = roles.into_iter().zip(said).map(|(roles, said)| {
            let turns = roles.into_iter().zip(said).map(|(role, (range, content, native, rest))| {
                let turn = Turn::new(&range, role).content(content);
                let turn = native.into_iter().fold(turn, |turn, (field, node)| turn.with(field, node));
                turn.annotations(rest).node()
            });
            turns.collect()
        });
        Ok(dialogues.collect())
    }
}
