//! What stands before the answers of preferences: rules, earlier exchanges and what is asked, in columns of many names.

use super::super::draft::Turn;
use super::pairs::said;
use super::transcript;
use crate::diagnostic::Diagnostic;
use crate::json::{self, Fields, Json, Member, Node, string};

/// Names of what is asked, as text or as messages; the first two are native.
const ASKED: [&str; 10] = [
    "messages",
    "conversation",
    "conversations",
    "prompt",
    "question",
    "instruction",
    "query",
    "context",
    "input",
    "history",
];
const SYSTEM: [&str; 2] = ["system", "system_prompt"];

/// Fields of the native shape that a record has, by name.
pub(super) type Native<'a> = Vec<(&'static str, Node<'a>)>;

/// Takes out what a record in the words of the native shape says beside its messages. One that has other words for what is
/// asked may mean something else by these names, too.
pub(super) fn native<'a>(record: &mut Fields<'a>) -> Native<'a> {
    if ASKED[2..].iter().any(|field| record.get(field).is_some_and(is_said)) {
        return Vec::new();
    }
    let fields = ["type", "documents", "chat_template_kwargs", "goal", "output_schema", "summaries", "split"];
    let given = fields.into_iter().filter_map(|field| {
        record.get(field).filter(|value| is_native(field, value))?;
        Some((field, record.take(field)?))
    });
    given.collect()
}

/// Whether a value is one that a field of the native shape may have.
fn is_native(field: &str, value: &Node<'_>) -> bool {
    let is_one_of = |names: [&str; 3]| value.as_str().is_some_and(|name| names.contains(&name));
    match field {
        "type" => is_one_of(["chat", "task", "tool"]),
        "split" => is_one_of(["train", "validation", "test"]),
        "documents" | "summaries" => value.as_array().is_some(),
        _ => value.as_object().is_some(),
    }
}

/// Whether a column says what is asked.
pub(super) fn is_asked(record: &Fields<'_>) -> bool {
    ASKED.iter().any(|field| record.get(field).is_some_and(is_said))
}

/// Whether a text tells what is asked in a column, if anything is.
pub(super) fn is_told_by(record: &Fields<'_>, text: &Node<'_>) -> bool {
    let squeezed = |node: &Node<'_>| Some(node.as_str()?.split_whitespace().collect::<Vec<_>>().join(" "));
    let asked = ASKED.iter().find_map(|field| record.get(field).and_then(squeezed).filter(|text| !text.is_empty()));
    asked.is_none_or(|asked| squeezed(text).is_some_and(|text| text.contains(&asked)))
}

/// Takes what is asked, and the tools, out of where OpenAI, WebGPT and LLaMA-Factory have them, and drops columns that say
/// nothing.
pub(super) fn unfold(record: &mut Fields<'_>) {
    let is_empty = |node: &Node<'_>| node.as_str() == Some("") || node.as_array().is_some_and(<[_]>::is_empty);
    record.members.retain(|member| !ASKED.contains(&&*member.key) || !is_empty(&member.node));
    for (field, inner, name) in
        [("input", "messages", "messages"), ("input", "tools", "tools"), ("question", "full_text", "prompt")]
    {
        let Some(at) = record.members.iter().position(|member| member.key == field) else { continue };
        if record.get(name).is_some() {
            continue;
        }
        let Json::Object(members) = &mut record.members[at].node.value else { continue };
        let Some(found) = members.iter().position(|member| member.key == inner) else { continue };
        let member = members.remove(found);
        if members.is_empty() {
            record.members.remove(at);
        }
        record.members.push(Member { key: name.into(), ..member });
    }
    if record.get("tools").is_none()
        && let Some(tools) = tools_of(record).cloned()
    {
        record.members.push(Member { key: "tools".into(), key_range: tools.range.clone(), node: tools });
    }
}

/// Tools that are a part of a message.
fn tools_of<'r, 'a>(record: &'r Fields<'a>) -> Option<&'r Node<'a>> {
    let messages = record.members.iter().filter_map(|member| member.node.as_array()).flatten();
    let mut parts = messages.filter_map(|message| message.get("content")?.as_array()).flatten();
    parts.find(|part| part.get("type").and_then(Node::as_str) == Some("tools"))?.get("value")
}

/// Takes out what stands before answers that are answers alone.
pub(super) fn before<'a>(record: &mut Fields<'a>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut before = Vec::new();
    if let Some(system) = record.take_any(&SYSTEM).filter(|system| system.as_str() != Some("")) {
        before.push(Turn::new(&system.range.clone(), "system").content(Some(system)).node());
    }
    let history = record.list("history");
    if !history.is_empty() {
        before.extend(messages(Node::new(record.range.clone(), Json::Array(history)))?);
    }
    let Some(field) = ASKED.into_iter().find(|field| record.get(field).is_some_and(is_said)) else {
        return Ok(before);
    };
    let Some(asked) = record.take(field) else { return Ok(before) };
    let Some(text) = asked.as_str().filter(|_| !transcript::is_one(&asked)) else {
        before.extend(messages(asked)?);
        return Ok(before);
    };
    // As in sets of one answer.
    let context = record.text("input").or_else(|| record.text("context")).filter(|context| !context.is_empty());
    let asked = match context {
        Some(context) => string(&asked.range, format!("{text}\n{context}")),
        None => asked,
    };
    before.push(Turn::new(&asked.range.clone(), "user").content(Some(asked)).node());
    Ok(before)
}

/// Takes out what stands beside a whole dialogue and belongs before it. What the dialogue says itself is taken out too;
/// what it says otherwise stays.
pub(super) fn beside<'a>(record: &mut Fields<'a>, dialogue: &[Node<'a>]) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut before = Vec::new();
    let is_in = |message: &Node<'_>| dialogue.iter().any(|other| says_same(message, other));
    for field in SYSTEM {
        let Some(system) = record.get(field).filter(|system| system.as_str().is_some()) else { continue };
        let turn = Turn::new(&system.range, "system").content(Some(system.clone())).node();
        let is_ruled = dialogue.first().is_some_and(|first| role(first) == Some("system")) || !before.is_empty();
        if system.as_str() == Some("") || is_in(&turn) {
            record.take(field);
        } else if !is_ruled {
            record.take(field);
            before.push(turn);
        }
    }
    let opening = |list: &[Node<'a>]| list.iter().find(|message| role(message) != Some("system")).cloned();
    for field in ["history"].into_iter().chain(ASKED) {
        let Some(asked) = record.get(field).filter(|asked| is_said(asked)).cloned() else { continue };
        let is_list = asked.as_array().is_some();
        let asked = messages(asked)?;
        let is_opening = match (opening(&asked), opening(dialogue)) {
            (Some(left), Some(right)) => says_same(&left, &right),
            (left, _) => left.is_none() && asked.iter().all(is_in),
        };
        if asked.iter().all(is_in) && (is_opening || !is_list) {
            record.take(field);
        } else if is_list && !is_opening {
            record.take(field);
            before.extend(asked);
        }
    }
    Ok(before)
}

/// Whether two messages say the same; blanks do not count.
pub(super) fn says_same(left: &Node<'_>, right: &Node<'_>) -> bool {
    role(left) == role(right)
        && match (left.get("content"), right.get("content")) {
            (Some(left), Some(right)) => match (left.as_str(), right.as_str()) {
                (Some(left), Some(right)) => left.split_whitespace().eq(right.split_whitespace()),
                _ => json::dumps(left) == json::dumps(right),
            },
            (left, right) => left.is_none() && right.is_none(),
        }
}

pub(super) fn role<'n>(message: &'n Node<'_>) -> Option<&'n str> {
    message.get("role").and_then(Node::as_str)
}

/// Whether a column holds text, messages or exchanges.
fn is_said(column: &Node<'_>) -> bool {
    match &column.value {
        Json::String(text) => !text.is_empty(),
        Json::Array(list) => list.first().is_some_and(|first| is_message(first) || is_exchange(first)),
        _ => is_message(column),
    }
}

fn is_message(node: &Node<'_>) -> bool {
    node.get("role").is_some() || node.get("from").is_some()
}

/// Question and answer, as a pair or under their names.
fn is_exchange(node: &Node<'_>) -> bool {
    let is_pair = node.as_array().is_some_and(|pair| pair.iter().all(|said| said.as_str().is_some()));
    is_pair || node.get("input").is_some_and(|asked| asked.as_str().is_some())
}

/// The messages of a column.
fn messages(column: Node<'_>) -> Result<Vec<Node<'_>>, Diagnostic> {
    match column.value {
        Json::String(_) if transcript::is_one(&column) => {
            let mut messages = transcript::messages(&column)?;
            // `Assistant:` at the end says who is next.
            let is_open = |last: &Node<'_>| last.get("content").and_then(Node::as_str) == Some("");
            messages.pop_if(|last| role(last) == Some("assistant") && is_open(last));
            Ok(messages)
        }
        Json::String(_) => Ok(vec![Turn::new(&column.range.clone(), "user").content(Some(column)).node()]),
        Json::Array(list) if list.first().is_some_and(is_exchange) => Ok(list.into_iter().flat_map(exchange).collect()),
        _ => said(column),
    }
}

fn exchange(exchange: Node<'_>) -> Vec<Node<'_>> {
    let said = match exchange.value {
        Json::Array(pair) => pair.into_iter().map(Some).collect(),
        _ => {
            let mut fields = Fields::of(exchange);
            vec![fields.take("input"), fields.take("output")]
        }
    };
    let turns = said.into_iter().zip(["user", "assistant"].into_iter().cycle());
    let turns = turns.filter_map(|(said, role)| Some((said.filter(|said| said.as_str() != Some(""))?, role)));
    turns.map(|(said, role)| Turn::new(&said.range.clone(), role).content(Some(said)).node()).collect()
}
