//! Messages said in blocks: text, reasoning, calls and results, each for the field of its own.
//!
//! A format has a table of the kinds of its blocks: how each is told, and under which names it says what it says. What is
//! left of a block becomes part of the annotations; a block of no kind is part of the content, for validation to refuse.

use std::ops::Range;

use super::super::draft::{Turn, call, plain, result_text};
use super::super::speakers;
use crate::json::{Fields, Json, Member, Node, object, string};

/// Names of a member, of which the first that is there counts.
type Names = &'static [&'static str];

/// A kind of block. What it is follows from what it has a name for: text, reasoning, a call (`arguments`), what came of it
/// (`result`), or both of these in one. A kind that has none of them says nothing, and is kept as it is.
pub(super) struct Kind {
    /// What its `type` may be; `tool-*` is any that begins so and ends with the name of the tool.
    pub(super) types: Names,
    /// Members that hold it, each inside the one before; any of them tells it too.
    pub(super) within: Names,
    /// Members that tell it together; one that is false is as good as absent.
    pub(super) has: Names,
    /// Text, or blocks in their turn; where it is missing, so is the kind.
    pub(super) text: Names,
    /// What was thought: text, or a list of parts with `text`.
    pub(super) reasoning: Names,
    /// What a call and its result are told by.
    pub(super) id: Names,
    /// The tool.
    pub(super) name: Names,
    /// What a tool is called with.
    pub(super) arguments: Names,
    /// What a tool returned.
    pub(super) result: Names,
    /// How a result becomes content.
    pub(super) read: for<'a> fn(Node<'a>) -> Node<'a>,
    /// Members that say nothing of the dialogue.
    pub(super) drops: Names,
}

impl Kind {
    /// Nothing; the rows of a table say what they have.
    pub(super) const NONE: Self = Self {
        types: &[],
        within: &[],
        has: &[],
        text: &[],
        reasoning: &[],
        id: &[],
        name: &[],
        arguments: &[],
        result: &[],
        read: result_text,
        drops: &[],
    };

    /// The first kind of a table that a block is of.
    pub(super) fn of<'k>(block: &Node<'_>, kinds: &'k [Self]) -> Option<&'k Self> {
        kinds.iter().find(|kind| kind.is_kind_of(block))
    }

    /// Whether a block is of this kind by its type.
    pub(super) fn is_type_of(&self, block: &Node<'_>) -> bool {
        let typed = block.get("type").and_then(Node::as_str);
        typed.is_some_and(|typed| self.types.contains(&typed) || self.tool_of(typed).is_some())
    }

    fn is_kind_of(&self, block: &Node<'_>) -> bool {
        let there = |name: &&str| block.get_some(name).is_some_and(|node| node.as_bool() != Some(false));
        let is_told = self.within.iter().any(there) || !self.has.is_empty() && self.has.iter().all(there);
        let is_text =
            |name: &&str| block.get(name).is_some_and(|said| said.as_str().is_some() || said.as_array().is_some());
        (self.is_type_of(block) || is_told) && (self.text.is_empty() || self.text.iter().any(is_text))
    }

    /// The name of a tool at the end of a type.
    fn tool_of<'t>(&self, typed: &'t str) -> Option<&'t str> {
        self.types.iter().find_map(|known| typed.strip_prefix(known.strip_suffix('*')?))
    }

    /// Whether there is anything to be said.
    fn says(&self) -> bool {
        [self.text, self.reasoning, self.arguments, self.result].iter().any(|names| !names.is_empty())
    }

    /// An element of a list of calls; what else it says is left out.
    pub(super) fn call<'a>(&self, asked: Node<'a>) -> Node<'a> {
        let mut fields = Fields::of(asked);
        let (id, name) = (fields.take_any(self.id).map(plain), fields.take_any(self.name));
        self.called(&mut fields, id.as_ref(), name)
    }

    fn called<'a>(&self, fields: &mut Fields<'a>, id: Option<&Node<'a>>, name: Option<Node<'a>>) -> Node<'a> {
        let range = &fields.range.clone();
        let id = id.and_then(Node::as_str).map(str::to_owned);
        let arguments = fields.take_any(self.arguments).unwrap_or_else(|| object(range, Vec::new()));
        call(range, id, name.unwrap_or_else(|| string(range, "")), arguments)
    }
}

/// Whether it is a list of blocks that say what they are.
pub(super) fn are_typed(list: &Node<'_>) -> bool {
    list.as_array().and_then(<[_]>::first).is_some_and(|block| block.get("type").is_some())
}

/// The messages of one who speaks in blocks; `more` are further native fields. What an assistant says after a result is
/// its next message.
pub(super) fn messages<'a>(
    range: &Range<usize>,
    role: &str,
    said: Vec<Node<'a>>,
    kinds: &[Kind],
    mut more: Fields<'a>,
) -> Vec<Node<'a>> {
    let (mut messages, mut blocks) = (Vec::new(), Blocks::default());
    for block in said {
        let brings_results = Kind::of(&block, kinds).is_some_and(|kind| !kind.result.is_empty());
        if role == "assistant" && !blocks.results.is_empty() && !brings_results {
            let more = std::mem::replace(&mut more, Fields::of(object(range, Vec::new())));
            messages.extend(std::mem::take(&mut blocks).messages(range, role, more));
        }
        blocks.add(block, kinds);
    }
    if messages.is_empty() || blocks.says() || !blocks.results.is_empty() {
        messages.extend(blocks.messages(range, role, more));
    }
    messages
}

/// The messages of one whose blocks stand in members of it, in a list or alone; one without is as it was. What else it says
/// becomes its annotations, but for members that say the same `again`.
pub(super) fn of_members<'a>(message: Node<'a>, names: &[&str], kinds: &[Kind], again: &[&str]) -> Vec<Node<'a>> {
    if names.iter().all(|name| message.get_some(name).is_none()) {
        return vec![message];
    }
    let (range, mut fields) = (message.range.clone(), Fields::of(message));
    let role = fields.text("role").unwrap_or_default();
    let role = speakers::role_of(&role).unwrap_or(&role);
    let said = names.iter().filter_map(|name| fields.take(name)).flat_map(|said| match said.value {
        Json::Array(blocks) => blocks,
        value => vec![Node::new(said.range, value)],
    });
    let said = said.collect();
    messages(&range, role, said, kinds, aside(without(fields, again)))
}

/// The messages of a list of items, each a block that says by its kind or in its `role` who speaks. What an assistant
/// thinks, says and calls one after the other is one message; what is said after calls is the next one.
pub(super) fn items<'a>(items: Vec<Node<'a>>, kinds: &[Kind]) -> Vec<Node<'a>> {
    let is_call = |item: &Node<'a>| Kind::of(item, kinds).is_some_and(|kind| !kind.arguments.is_empty());
    let is_one_reply = |one: &Node<'a>, next: &Node<'a>| {
        [one, next].iter().all(|item| speaker(item, kinds) == "assistant") && (is_call(next) || !is_call(one))
    };
    let message = |said: &[Node<'a>]| {
        let Some(first) = said.first() else { return Vec::new() };
        let (range, role) = (&first.range, speaker(first, kinds));
        if matches!(role, "assistant" | "tool") {
            return messages(range, role, said.to_vec(), kinds, Fields::of(object(range, Vec::new())));
        }
        let (kind, mut fields) = (Kind::of(first, kinds), Fields::of(first.clone()));
        let is_typed = kind.is_some_and(|kind| kind.is_type_of(first));
        fields.members.retain(|member| member.key != "role" && !(is_typed && member.key == "type"));
        let said = match fields.take_any(kind.map_or(&[], |kind| kind.text)) {
            Some(Node { value: Json::Array(blocks), .. }) => blocks,
            text => text.into_iter().collect(),
        };
        messages(range, role, said, kinds, aside(fields))
    };
    items.chunk_by(is_one_reply).flat_map(message).collect()
}

fn speaker<'n>(item: &'n Node<'_>, kinds: &[Kind]) -> &'n str {
    match Kind::of(item, kinds) {
        Some(kind) if !kind.arguments.is_empty() || !kind.reasoning.is_empty() => "assistant",
        Some(kind) if !kind.result.is_empty() => "tool",
        _ => item.get("role").and_then(Node::as_str).unwrap_or_default(),
    }
}

/// What is left of a message, as the only native field that may hold it.
pub(super) fn aside(rest: Fields<'_>) -> Fields<'_> {
    let none = Fields { range: rest.range.clone(), members: Vec::new() };
    Fields::of(none.with("annotations", (!rest.members.is_empty()).then(|| rest.into_node())))
}

/// What the blocks of a message say, by kind.
#[derive(Default)]
struct Blocks<'a> {
    /// Parts of its content, among them what validation refuses.
    parts: Vec<Node<'a>>,
    reasoning: Vec<Node<'a>>,
    calls: Vec<Node<'a>>,
    results: Vec<Node<'a>>,
    rest: Vec<Node<'a>>,
}

impl<'a> Blocks<'a> {
    fn add(&mut self, block: Node<'a>, kinds: &[Kind]) {
        let Some(kind) = Kind::of(&block, kinds) else { return self.parts.push(named(block)) };
        let range = block.range.clone();
        let mut fields = Fields::of(block);
        if !kind.says() {
            return self.keep(fields, kind);
        }
        let typed = fields.text("type");
        let mut around = Vec::new();
        for name in kind.within {
            if let Some(inner) = fields.take(name) {
                around.push(std::mem::replace(&mut fields, Fields::of(inner)));
                fields.take("type");
            }
        }
        match fields.take_any(kind.text) {
            Some(Node { value: Json::Array(inner), .. }) => inner.into_iter().for_each(|block| self.add(block, kinds)),
            said => self.parts.extend(said),
        }
        let mut thoughts = kind.reasoning.iter().map(|name| thoughts(&mut fields, name));
        self.reasoning.extend(thoughts.find(|found| !found.is_empty()).unwrap_or_default());
        let tool = typed.as_deref().and_then(|typed| kind.tool_of(typed)).map(|tool| string(&range, tool.to_owned()));
        let (id, name) = (fields.take_any(kind.id).map(plain), fields.take_any(kind.name).or(tool));
        let is_call = !kind.arguments.is_empty();
        if is_call {
            self.calls.push(kind.called(&mut fields, id.as_ref(), name.clone()));
        }
        match fields.take_any(kind.result) {
            None if is_call || kind.result.is_empty() => {}
            result => {
                let content = result.map_or_else(|| string(&range, ""), kind.read);
                let mut turn =
                    Turn::new(&range, "tool").with("name", name).with("tool_call_id", id).content(Some(content));
                if !is_call {
                    let rest = std::mem::replace(&mut fields, Fields::of(object(&range, Vec::new())));
                    turn = turn.annotations(without(rest, kind.drops));
                }
                self.results.push(turn.node());
            }
        }
        self.keep(fields, kind);
        around.into_iter().for_each(|fields| self.keep(fields, kind));
    }

    /// Keeps what is left of a block for the annotations.
    fn keep(&mut self, rest: Fields<'a>, kind: &Kind) {
        let rest = without(rest, kind.drops);
        if !rest.members.is_empty() {
            self.rest.push(rest.into_node());
        }
    }

    /// Whether anything is said, called or thought.
    fn says(&self) -> bool {
        !(self.parts.is_empty() && self.calls.is_empty() && self.reasoning.is_empty())
    }

    /// A message and the results that it brings, which come before what the user adds to them; `more` are further native
    /// fields.
    fn messages(self, range: &Range<usize>, role: &str, mut more: Fields<'a>) -> Vec<Node<'a>> {
        let is_assistant = role == "assistant";
        let says = self.says();
        let mut messages = self.results;
        if says || messages.is_empty() {
            let mut turn = Turn::new(range, role.to_owned());
            if let Some(first) = self.reasoning.first() {
                let said: Vec<&str> = self.reasoning.iter().filter_map(Node::as_str).collect();
                turn = turn.with("reasoning_content", Some(string(&first.range, said.join("\n\n"))));
            }
            if !self.parts.is_empty() || self.calls.is_empty() {
                turn = turn.content(Some(content(range, self.parts)));
            }
            let at = if is_assistant { 0 } else { messages.len() };
            messages.insert(at, turn.calls(self.calls).node());
        }
        if !self.rest.is_empty() {
            let blocks = Node::new(range.clone(), Json::Array(self.rest));
            let annotations = more.fields("annotations").with("blocks", Some(blocks));
            more = Fields::of(more.with("annotations", Some(annotations)));
        }
        let one = if is_assistant { messages.first_mut() } else { messages.last_mut() };
        if let Some(Json::Object(members)) = one.map(|message| &mut message.value) {
            more.members.retain(|member| !members.iter().any(|known| known.key == member.key));
            members.append(&mut more.members);
        }
        messages
    }
}

fn without<'a>(mut fields: Fields<'a>, names: &[&str]) -> Fields<'a> {
    fields.members.retain(|member| !names.contains(&&*member.key));
    fields
}

/// What is thought in a text, or in each part of a list.
fn thoughts<'a>(fields: &mut Fields<'a>, name: &str) -> Vec<Node<'a>> {
    match fields.get(name).map(|said| &said.value) {
        Some(Json::String(_)) => fields.take(name).into_iter().collect(),
        Some(Json::Array(_)) => {
            fields.list(name).into_iter().filter_map(|part| Fields::of(part).take("text")).collect()
        }
        _ => Vec::new(),
    }
}

/// A block without a type is what its first member is called; text needs no name.
fn named(block: Node<'_>) -> Node<'_> {
    match block.as_object() {
        Some([first, ..]) if block.get("type").or(block.get("text")).is_none() => {
            let kind = string(&block.range, first.key.clone());
            Fields::of(block).with("type", Some(kind))
        }
        _ => block,
    }
}

/// Parts as content: one text is what it is.
pub(super) fn content<'a>(range: &Range<usize>, mut parts: Vec<Node<'a>>) -> Node<'a> {
    for part in &mut parts {
        if part.as_str().is_some() {
            let text = std::mem::replace(part, Node::new(range.clone(), Json::Null));
            *part = object(&text.range.clone(), vec![("text", text)]);
        }
    }
    let is_plain = |part: &Node<'a>| {
        let only_text =
            |members: &[_]| members.iter().all(|member: &Member<'_>| matches!(&*member.key, "type" | "text"));
        let is_text = part.get("type").is_none_or(|kind| kind.as_str() == Some("text"));
        is_text && part.as_object().is_some_and(only_text)
    };
    match <[Node<'a>; 1]>::try_from(parts) {
        Ok([one]) if is_plain(&one) => Fields::of(one).take("text").unwrap_or_else(|| string(range, "")),
        Ok(one) => Node::new(range.clone(), Json::Array(one.into())),
        Err(parts) => Node::new(range.clone(), Json::Array(parts)),
    }
}
