//! OpenAI's Responses: a list of items in `input`, what came of it in `output`, the rules in `instructions`.
//!
//! Reasoning, text and calls that follow each other are one assistant message, as they are one reply. Of reasoning only
//! what was thought is taken (`content`); a summary of it, and what is encrypted, stay in the annotations.

use super::super::draft::{Draft, Turn, call, result_text};
use super::super::{Context, Format, When};
use super::blocks::Blocks;
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Json, Node, object, string};

pub(super) const FORMAT: Format = Format { name: "responses", when: When::Is(recognises), import };

fn recognises(record: &Node<'_>) -> bool {
    let is_list = |key: &str| record.get(key).and_then(Node::as_array).is_some_and(|items| items.iter().any(is_item));
    is_list("input") || is_list("output")
}

fn is_item(item: &Node<'_>) -> bool {
    let kind = |node: &Node<'_>, known: &[&str]| {
        node.get("type").and_then(Node::as_str).is_some_and(|kind| known.contains(&kind))
    };
    let parts = item.get("content").and_then(Node::as_array).unwrap_or_default();
    kind(item, &["message", "function_call", "function_call_output"])
        || item.get("role").is_some() && parts.iter().any(|part| kind(part, &["input_text", "output_text"]))
}

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (id, mut tools, rules) = (record.take("id"), record.take("tools"), record.take("instructions"));
    if let Some(Json::Array(tools)) = tools.as_mut().map(|tools| &mut tools.value) {
        *tools = std::mem::take(tools).into_iter().map(tool).collect();
    }
    let asked = record.take("input").map(|asked| match asked.value {
        Json::String(_) => vec![Turn::new(&asked.range.clone(), "user").content(Some(asked)).node()],
        _ => asked.into_elements(),
    });
    let items = asked.into_iter().flatten().chain(record.list("output"));
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.set("tools", tools);
    if let Some(rules) = rules {
        dialogue.say(Turn::new(&rules.range.clone(), "system").content(Some(rules)));
    }
    let mut reply: Option<(Node<'a>, Blocks<'a>)> = None;
    for item in items {
        if !is_reply(&item) {
            dialogue.messages.extend(reply.take().into_iter().flat_map(said));
            dialogue.messages.push(message(item));
            continue;
        }
        // Text after calls is said after them, not with them.
        if item.get("type").and_then(Node::as_str) != Some("function_call")
            && reply.as_ref().is_some_and(|(_, blocks)| !blocks.calls.is_empty())
        {
            dialogue.messages.extend(reply.take().into_iter().flat_map(said));
        }
        let (_, blocks) = reply.get_or_insert_with(|| (item.clone(), Blocks::default()));
        add(item, blocks);
    }
    dialogue.messages.extend(reply.into_iter().flat_map(said));
    Ok(vec![dialogue.node()])
}

fn is_reply(item: &Node<'_>) -> bool {
    let kind = item.get("type").and_then(Node::as_str);
    matches!(kind, Some("function_call" | "reasoning")) || item.get("role").and_then(Node::as_str) == Some("assistant")
}

fn said<'a>((first, blocks): (Node<'a>, Blocks<'a>)) -> Vec<Node<'a>> {
    let nothing = Fields::of(object(&first.range, Vec::new()));
    blocks.messages(&first.range, "assistant".to_owned(), nothing)
}

fn add<'a>(item: Node<'a>, blocks: &mut Blocks<'a>) {
    let range = item.range.clone();
    let mut fields = Fields::of(item);
    match fields.text("type").as_deref() {
        Some("function_call") => {
            let name = fields.take("name").unwrap_or_else(|| string(&range, ""));
            let arguments = fields.take("arguments").unwrap_or_else(|| object(&range, Vec::new()));
            blocks.calls.push(call(&range, fields.text("call_id").map(String::from), name, arguments));
        }
        Some("reasoning") => {
            let thought = fields.list("content").into_iter().filter_map(|part| Fields::of(part).take("text"));
            blocks.reasoning.extend(thought);
        }
        _ => {
            fields.take("role");
            blocks.parts.extend(parts(&mut fields));
        }
    }
    fields.members.retain(|member| !matches!(&*member.key, "id" | "status"));
    blocks.keep(fields);
}

/// A function, which Responses describes beside its `type`.
fn tool(tool: Node<'_>) -> Node<'_> {
    if tool.get("type").and_then(Node::as_str) != Some("function") || tool.get("name").is_none() {
        return tool;
    }
    let range = tool.range.clone();
    let mut function = Fields::of(tool);
    let kind = function.take("type").unwrap_or_else(|| string(&range, "function"));
    object(&range, vec![("type", kind), ("function", function.into_node())])
}

/// What somebody else says, or what a tool returned.
fn message(item: Node<'_>) -> Node<'_> {
    let range = item.range.clone();
    let mut fields = Fields::of(item);
    if fields.get("type").and_then(Node::as_str) == Some("function_call_output") {
        let turn = Turn::new(&range, "tool").with("tool_call_id", fields.take("call_id"));
        let result = fields.take("output").map_or_else(|| string(&range, ""), result_text);
        fields.take("type");
        return turn.content(Some(result)).annotations(fields).node();
    }
    let role = fields.text("role").unwrap_or_default();
    if fields.get("type").and_then(Node::as_str) == Some("message") {
        fields.take("type");
    }
    let turn = Turn::new(&range, role);
    let content = super::blocks::content(&range, parts(&mut fields));
    turn.content(Some(content)).annotations(fields).node()
}

/// The parts of a content, text under its usual name; a refusal is said as text is.
fn parts<'a>(fields: &mut Fields<'a>) -> Vec<Node<'a>> {
    let Some(content) = fields.take("content") else { return Vec::new() };
    if content.as_str().is_some() {
        return vec![content];
    }
    let part = |part: Node<'a>| match part.get("type").and_then(Node::as_str) {
        Some("input_text" | "output_text") => Fields::of(part.clone()).take("text").unwrap_or(part),
        Some("refusal") => Fields::of(part.clone()).take("refusal").unwrap_or(part),
        _ => part,
    };
    content.into_elements().into_iter().map(part).collect()
}
