//! ChatGPT's export, `conversations.json`: a tree of messages in `mapping`, of which the path to `current_node` was last
//! shown. That path is the dialogue, without messages that are hidden or say nothing; other branches stay in the metadata.
//!
//! Text alone is read. Pictures, code that runs, and what is said to tools are for validation to refuse.

use std::collections::HashMap;

use super::super::draft::{Draft, Turn};
use super::super::{Context, Format, When};
use super::blocks;
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Json, Member, Node, object, string};

pub(super) const FORMAT: Format = Format { name: "chatgpt-export", when: When::Is(recognises), import };

fn recognises(record: &Node<'_>) -> bool {
    let first = record.get("mapping").and_then(Node::as_object).and_then(<[_]>::first);
    record.get("current_node").is_some_and(|current| current.as_str().is_some())
        && first.is_some_and(|first| first.node.get("message").is_some() && first.node.get("children").is_some())
}

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (current, nodes) = (record.text("current_node"), record.fields("mapping"));
    let id = record.take_any(&["conversation_id", "id"]);
    record.members.retain(|member| member.key != "id" || Some(&member.node.value) != id.as_ref().map(|id| &id.value));
    let range = record.range.clone();
    let (path, others) = path(nodes.members, current.unwrap_or_default().into_owned());
    if !others.is_empty() {
        let others = Node::new(range.clone(), Json::Object(others));
        record = Fields::of(record.with("mapping", Some(others)));
    }
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.messages.extend(path.into_iter().filter_map(|node| message(Fields::of(node).take("message")?)));
    Ok(vec![dialogue.node()])
}

/// The nodes from the root to a node, and those beside them that have a message.
fn path<'a>(nodes: Vec<Member<'a>>, current: String) -> (Vec<Node<'a>>, Vec<Member<'a>>) {
    let mut places: HashMap<String, usize> = HashMap::new();
    for (at, member) in nodes.iter().enumerate() {
        places.insert(member.key.to_string(), at);
    }
    let mut nodes: Vec<Option<Member<'a>>> = nodes.into_iter().map(Some).collect();
    let mut path = Vec::new();
    let mut next = Some(current);
    // A node is taken once, so a loop ends.
    while let Some(node) = next.and_then(|id| nodes.get_mut(*places.get(&id)?)?.take()) {
        next = node.node.get("parent").and_then(Node::as_str).map(str::to_owned);
        path.push(node.node);
    }
    path.reverse();
    let speaks = |member: &Member<'_>| member.node.get_some("message").is_some();
    (path, nodes.into_iter().flatten().filter(speaks).collect())
}

/// A message, unless it is hidden or empty.
fn message(message: Node<'_>) -> Option<Node<'_>> {
    let range = message.range.clone();
    let mut message = Fields::of(message);
    let is_hidden = |key: &str| message.get("metadata")?.get(key)?.as_bool();
    if is_hidden("is_visually_hidden_from_conversation") == Some(true) {
        return None;
    }
    let mut author = message.fields("author");
    let role = author.text("role").unwrap_or_default().into_owned();
    let mut content = message.fields("content");
    let parts = content.list("parts");
    let kind = content.text("content_type").unwrap_or_default().into_owned();
    let recipient = message.text("recipient").filter(|recipient| recipient != "all").map(String::from);
    let unsupported = |kind: String| object(&range, vec![("type", string(&range, kind))]);
    let said = match (&*kind, recipient) {
        (_, Some(recipient)) => vec![unsupported(recipient)],
        ("text" | "multimodal_text", None) => parts.into_iter().filter_map(part).collect(),
        _ => vec![unsupported(kind)],
    };
    if said.is_empty() {
        return None;
    }
    for (key, rest) in [("author", author), ("content", content)] {
        if rest.members.iter().any(|member| says(&member.node)) {
            message = Fields::of(message.with(key, Some(rest.into_node())));
        }
    }
    message.members.retain(|member| says(&member.node));
    Some(Turn::new(&range, role).content(Some(blocks::content(&range, said))).annotations(message).node())
}

fn says(node: &Node<'_>) -> bool {
    !node.is_null() && !node.as_object().is_some_and(<[_]>::is_empty)
}

/// Text as it is; anything else under the name that validation knows it by.
fn part(part: Node<'_>) -> Option<Node<'_>> {
    if part.as_str() == Some("") {
        return None;
    }
    if part.get("type").is_some() || part.as_object().is_none() {
        return Some(part);
    }
    let mut fields = Fields::of(part);
    let kind = fields.take("content_type");
    Some(fields.with("type", kind))
}
