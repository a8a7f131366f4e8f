//! The messages as a template takes them: the right form of arguments, content and reasoning, nothing else changed.

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::probe::Abilities;
use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::{Dialogue, Message, Role, ToolCall};
use crate::json::{self, Json, Member, Node, object, string};

/// What becomes of `state`: intent and slots are supervision, not text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateMode {
    /// Left out; counted as `state-not-trained`.
    #[default]
    Ignore,
    /// A tagged JSON block before the assistant's content: trained.
    JsonBefore,
    /// A tagged JSON block after the assistant's content: trained.
    JsonAfter,
    /// The state so far, in a tagged JSON block before the next user message: shown, never trained.
    Context,
}

/// One message, ready for the template.
#[derive(Clone)]
pub(super) struct Prepared<'m> {
    /// As the template gets it.
    pub(super) node: Node<'m>,
    pub(super) role: Role,
    pub(super) train: bool,
    /// Index in the record, of the last message if several were merged.
    pub(super) source: usize,
    /// Where it stood in the record.
    pub(super) range: Range<usize>,
}

/// Brings the messages into the form that the template takes.
pub(super) fn prepare<'m>(
    dialogue: &'m Dialogue<'_>,
    abilities: &Abilities,
    state: StateMode,
    findings: &mut Vec<Diagnostic>,
) -> Result<Vec<Prepared<'m>>, Diagnostic> {
    let mut prepared: Vec<Prepared<'_>> = Vec::with_capacity(dialogue.messages.len());
    let mut running: Option<Node<'m>> = dialogue.running.as_ref().map(Node::lent);
    let mut pending: Vec<(usize, Message<'m>)> = Vec::with_capacity(dialogue.messages.len());
    for (index, message) in dialogue.messages.iter().enumerate() {
        let mut message = message.lent();
        apply_state(&mut message, state, &mut running, findings);
        let mergeable = pending.last().is_some_and(|(_, last)| {
            let plain = last.tool_calls.is_empty() && message.tool_calls.is_empty() && last.role != Role::Tool;
            // A message that is trained and one that is not cannot become one target.
            last.role == message.role && plain && last.train == message.train
        });
        if mergeable && !abilities.takes_repeated(message.role) {
            findings.push(
                Diagnostic::new(Code::MergedMessages, "merged with the message before it: the template refuses two")
                    .at(&message.range),
            );
            let (last_index, last) = pending.last_mut().expect("mergeable needs a last one");
            merge(last, message);
            *last_index = index;
        } else {
            pending.push((index, message));
        }
    }
    for (source, message) in pending {
        let (role, train, range) = (message.role, message.train, message.range.clone());
        prepared.push(Prepared { node: node(message, abilities)?, role, train, source, range });
    }
    Ok(prepared)
}

fn merge<'a>(last: &mut Message<'a>, next: Message<'a>) {
    let join = |left: Option<Cow<'a, str>>, right: Option<Cow<'a, str>>| match (left, right) {
        (Some(left), Some(right)) => Some(Cow::Owned(format!("{left}\n\n{right}"))),
        (left, right) => left.or(right),
    };
    last.content = join(last.content.take(), next.content);
    last.reasoning = join(last.reasoning.take(), next.reasoning);
    last.range = last.range.start..next.range.end;
}

fn apply_state<'a>(
    message: &mut Message<'a>,
    mode: StateMode,
    running: &mut Option<Node<'a>>,
    findings: &mut Vec<Diagnostic>,
) {
    let state = message.state.take();
    match (mode, &state) {
        (StateMode::Ignore, Some(state)) => {
            findings.push(state_left_out(state));
        }
        (StateMode::JsonBefore | StateMode::JsonAfter, Some(state)) if message.role == Role::Assistant => {
            let block = block(state);
            let content = message.content.take().unwrap_or_default();
            message.content = Some(
                match (mode, content.is_empty()) {
                    (_, true) => block,
                    (StateMode::JsonBefore, _) => format!("{block}\n{content}"),
                    _ => format!("{content}\n{block}"),
                }
                .into(),
            );
        }
        (StateMode::Context, _) if message.role == Role::User => {
            if let Some(state) = running.take() {
                let content = message.content.take().unwrap_or_default();
                message.content = Some(format!("{}\n{content}", block(&state)).into());
            }
        }
        _ => {}
    }
    if state.is_some() {
        *running = state;
    }
}

/// Says that a state is not shown.
pub(super) fn state_left_out(state: &Node<'_>) -> Diagnostic {
    Diagnostic::new(Code::StateNotTrained, "the state of this turn is left out").at(&state.range)
}

fn block(state: &Node<'_>) -> String {
    format!("<state>\n{}\n</state>", json::dumps(state))
}

/// A message in the form of OpenAI's, which is what chat templates read.
fn node<'m>(message: Message<'m>, abilities: &Abilities) -> Result<Node<'m>, Diagnostic> {
    let place = 0..0;
    let mut members = Vec::with_capacity(4);
    members.push(("role", string(&place, message.role.name())));
    let content = match message.content {
        None if message.role != Role::Assistant => Some(Cow::Borrowed("")),
        None if message.tool_calls.is_empty() && abilities.needs_content => Some(Cow::Borrowed("")),
        None if !message.tool_calls.is_empty() && abilities.needs_content_beside_calls => Some(Cow::Borrowed("")),
        content => content,
    };
    if let Some(content) = content {
        members.push((
            "content",
            if abilities.takes_parts_only {
                let part = object(&place, vec![("type", string(&place, "text")), ("text", string(&place, content))]);
                Node::new(place.clone(), Json::Array(vec![part]))
            } else {
                string(&place, content)
            },
        ));
    }
    if let Some(reasoning) = message.reasoning {
        members.push(("reasoning_content", string(&place, reasoning)));
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.into_iter().map(|call| self::call(call, abilities)).collect::<Result<_, _>>()?;
        members.push(("tool_calls", Node::new(place.clone(), Json::Array(calls))));
    }
    if let Some(name) = message.name {
        members.push(("name", string(&place, name)));
    }
    if let Some(id) = message.tool_call_id {
        members.push(("tool_call_id", string(&place, id)));
    }
    Ok(object(&place, members))
}

fn call<'m>(call: ToolCall<'m>, abilities: &Abilities) -> Result<Node<'m>, Diagnostic> {
    let place = 0..0;
    let arguments = match &call.arguments.value {
        Json::String(text) if !abilities.takes_string_arguments => {
            // Validation let only strings through that hold an object, so what fails here is a mark.
            let parsed = json::parse(text.as_bytes()).map_err(|_| {
                Diagnostic::new(Code::ControlToken, "the text of a control token in arguments that are a string")
                    .at(&call.arguments.range)
                    .help("give the arguments as an object, where it can be kept as text")
            })?;
            parsed.root.into_owned_at(&place)
        }
        Json::Object(_) if !abilities.takes_object_arguments => string(&place, json::dumps(&call.arguments)),
        _ => call.arguments,
    };
    let function = object(&place, vec![("name", string(&place, call.name)), ("arguments", arguments)]);
    let mut members = Vec::new();
    if let Some(id) = call.id {
        members.push(("id", string(&place, id)));
    }
    members.extend([("type", string(&place, "function")), ("function", function)]);
    Ok(object(&place, members))
}

/// A message as transformers hands it over: reasoning under its other name too, as gpt-oss templates read it.
pub(super) fn aliased<'n, 'm>(node: &'n Node<'m>) -> Cow<'n, Node<'m>> {
    let Some(reasoning) = node.get("reasoning_content") else { return Cow::Borrowed(node) };
    let mut aliased = node.clone();
    if let Json::Object(members) = &mut aliased.value {
        let alias = Member { key: "thinking".into(), key_range: 0..0, node: reasoning.clone() };
        members.insert(0, alias);
    }
    Cow::Owned(aliased)
}

/// The same of a message that nobody else needs.
pub(super) fn into_aliased(mut node: Node<'_>) -> Node<'_> {
    if let Cow::Owned(aliased) = aliased(&node) {
        node = aliased;
    }
    node
}

/// The mark at which templates cut reasoning out of a content.
pub(super) const END_OF_THOUGHTS: &str = "</think>";

/// What stands before the last end of thoughts in a content, if there is one, and what follows.
fn parted(content: &str) -> (Option<&str>, &str) {
    // Looking from the end is slow, and most contents have none.
    let parts = content.contains(END_OF_THOUGHTS).then(|| content.rsplit_once(END_OF_THOUGHTS)).flatten();
    parts.map_or((None, content), |(thoughts, answer)| (Some(thoughts), answer))
}

/// Warns where the reasoning of a message leaves no trace in `text`.
pub(super) fn reasoning_lost(message: &Prepared<'_>, text: &str) -> Option<Diagnostic> {
    let lost = || Diagnostic::new(Code::ReasoningLost, "the reasoning of this turn is not printed").at(&message.range);
    let content = message.node.get("content").map_or(Cow::Borrowed(""), text_of);
    let thoughts = match message.node.get("reasoning_content").and_then(Node::as_str) {
        Some(reasoning) => reasoning,
        None if message.role == Role::Assistant => {
            let (thoughts, _) = parted(&content);
            thoughts?.rsplit("<think>").next().unwrap_or_default()
        }
        None => return None,
    };
    (!Reader::new(text).shows(thoughts)).then(lost)
}

/// Refuses a dialogue of which a field leaves no trace in the text.
pub(super) fn nothing_lost(
    [tools, documents, _]: &[Option<Node<'_>>; 3],
    prepared: &[Prepared<'_>],
    text: &str,
) -> Result<(), Diagnostic> {
    let lost = |what: String| {
        Diagnostic::new(Code::FieldLost, format!("{what} leaves no trace in the rendered text"))
            .help("the template does not print it; choose one that does, or remove it from the data")
    };
    let mut reader = Reader::new(text);
    for message in prepared {
        let content = message.node.get("content").map_or(Cow::Borrowed(""), text_of);
        // Templates cut reasoning out of the assistant's content at this mark; what follows it is the answer.
        let answer = match message.role {
            Role::Assistant => parted(&content).1,
            _ => &content,
        };
        if !reader.shows(answer) {
            return Err(lost(format!("the content of this `{}` message", message.role.name())).at(&message.range));
        }
        for call in message.node.get("tool_calls").and_then(Node::as_array).unwrap_or_default() {
            let function = call.get("function").expect("prepared with a function");
            let name = function.get("name").and_then(Node::as_str).unwrap_or_default();
            if !reader.shows(name) {
                return Err(lost(format!("the call of `{name}`")).at(&message.range));
            }
        }
    }
    for tool in tools.as_ref().and_then(Node::as_array).unwrap_or_default() {
        let name = tool.get("function").unwrap_or(tool).get("name").and_then(Node::as_str).unwrap_or_default();
        if !reader.shows(name) {
            return Err(lost(format!("the tool `{name}`")).at(&tool.range));
        }
    }
    for document in documents.as_ref().and_then(Node::as_array).unwrap_or_default() {
        let body = document.get("text").or_else(|| document.get("content")).and_then(Node::as_str).unwrap_or_default();
        if !reader.shows(body) {
            return Err(lost("a document".to_owned()).at(&document.range));
        }
    }
    Ok(())
}

fn text_of<'n>(content: &'n Node<'_>) -> Cow<'n, str> {
    match &content.value {
        Json::String(text) => Cow::Borrowed(text),
        Json::Array(parts) => {
            parts.iter().filter_map(|part| part.get("text").and_then(Node::as_str)).collect::<String>().into()
        }
        _ => Cow::Borrowed(""),
    }
}

/// Looks for fields in a text, from where the last one was found: they mostly stand in order.
struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// Whether a field stands in the text, as it is or as a JSON string.
    fn shows(&mut self, field: &str) -> bool {
        let field = field.trim();
        if self.finds(field) {
            return true;
        }
        let mut quoted = String::new();
        json::write_string(&mut quoted, field, false);
        self.finds(&quoted[1..quoted.len() - 1])
    }

    fn finds(&mut self, field: &str) -> bool {
        let find =
            |from: usize| memchr::memmem::find(&self.text.as_bytes()[from..], field.as_bytes()).map(|at| from + at);
        let found = find(self.at).or_else(|| find(0));
        self.at = found.unwrap_or(self.at);
        found.is_some()
    }
}
