//! Messages whose roles are the kinds of what they say: `tool_call` (or `function_call`) and `tool_response` (or
//! `observation`) of ms-swift; ChatGLM's `tool` with `parameters` and `observation`; GLM-4's assistant with the name of a
//! tool in `metadata`, and tools in the system message.
//!
//! A call belongs to the assistant message that it follows.

use super::super::draft::{Turn, call, result_text, unwrapped};
use super::super::{Context, Format, When, embedded};
use super::{loss, messages, system};
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Json, Node, object, string};

pub(super) const FORMAT: Format = Format { name: "tool-roles", when: When::Is(recognises), import };

fn recognises(record: &Node<'_>) -> bool {
    messages::list(record).is_some_and(|list| list.iter().any(|message| kind(message).is_some()))
}

/// What a message is that is not of a native role.
enum Kind {
    Call,
    Result,
    Observed,
    Named,
    Tools,
}

fn kind(message: &Node<'_>) -> Option<Kind> {
    match message.get("role").and_then(Node::as_str)? {
        "tool_call" | "function_call" => Some(Kind::Call),
        "tool_response" | "function_response" | "observation" => Some(Kind::Result),
        "tool" if message.get("observation").is_some() && message.get("name").is_some() => Some(Kind::Observed),
        "assistant" if is_named(message) == Some(true) => Some(Kind::Named),
        "system" if message.get("tools").is_some_and(|tools| tools.as_array().is_some()) => Some(Kind::Tools),
        _ => None,
    }
}

/// Whether an assistant message names a tool, and holds the arguments for it; or names none.
fn is_named(message: &Node<'_>) -> Option<bool> {
    let name = message.get("metadata")?.as_str()?;
    let holds_arguments = || embedded(message.get("content")?).ok()??.as_object().map(|_| true);
    if name.is_empty() { Some(true) } else { holds_arguments() }
}

fn import<'a>(mut record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    system::put_first(&mut record);
    let mut record = Fields::of(record);
    let has_tools = record.get("tools").is_some_and(|tools| !tools.is_null());
    let mut tools = None;
    for member in &mut record.members {
        if let (true, Json::Array(list)) = (messages::LISTS.contains(&&*member.key), &mut member.node.value) {
            let mut said = Vec::with_capacity(list.len());
            for mut message in std::mem::take(list) {
                loss::trained(&mut message);
                match kind(&message) {
                    Some(Kind::Tools) if has_tools => said.push(message),
                    Some(kind) => say(message, &kind, &mut said, &mut tools),
                    None => said.push(message),
                }
            }
            *list = said;
        }
    }
    if tools.is_some() {
        record.take("tools");
        record = Fields::of(record.with("tools", tools));
    }
    messages::legacy(record.into_node(), context)
}

fn say<'a>(message: Node<'a>, kind: &Kind, said: &mut Vec<Node<'a>>, tools: &mut Option<Node<'a>>) {
    let range = message.range.clone();
    let mut fields = Fields::of(message);
    match kind {
        Kind::Call => {
            fields.take("role");
            let asked = fields.take("content").map(unwrapped);
            let calls = match asked {
                Some(Node { value: Json::Array(calls), .. }) => calls,
                Some(one) => vec![one],
                None => vec![object(&range, Vec::new())],
            };
            calls.into_iter().for_each(|asked| add(asked, &range, said, &mut fields));
        }
        Kind::Result => {
            fields.take("role");
            let mut turn = Turn::new(&range, "tool").node();
            if let Json::Object(members) = &mut turn.value {
                members.append(&mut fields.members);
            }
            said.push(turn);
        }
        Kind::Observed => {
            let name = fields.take("name");
            let arguments = fields.take("parameters").unwrap_or_else(|| object(&range, Vec::new()));
            let observed = fields.take("observation").map_or_else(|| string(&range, ""), result_text);
            fields.take("role");
            let asked = call(&range, None, name.clone().unwrap_or_else(|| string(&range, "")), arguments);
            let mut none = Fields { range: range.clone(), members: Vec::new() };
            add(asked, &range, said, &mut none);
            said.push(Turn::new(&range, "tool").with("name", name).content(Some(observed)).annotations(fields).node());
        }
        Kind::Named => match fields.take("metadata") {
            Some(name) if name.as_str() != Some("") => {
                fields.take("role");
                let arguments = fields.take("content").unwrap_or_else(|| object(&range, Vec::new()));
                add(call(&range, None, name, arguments), &range, said, &mut fields);
            }
            _ => said.push(fields.into_node()),
        },
        Kind::Tools => {
            let listed = fields.take("tools");
            if fields.get("content").is_some_and(|content| content.as_str() != Some("")) {
                said.push(fields.into_node());
            }
            *tools = listed;
        }
    }
}

/// Adds a call to the assistant message before it, or as one of its own where either says more of itself, as that it is
/// not trained.
fn add<'a>(asked: Node<'a>, range: &std::ops::Range<usize>, said: &mut Vec<Node<'a>>, more: &mut Fields<'a>) {
    let takes_calls = |last: &&mut Node<'a>| {
        last.get("role").and_then(Node::as_str) == Some("assistant") && last.get("train").is_none()
    };
    let last = said.last_mut().filter(takes_calls).filter(|_| more.members.is_empty());
    if let Some(Json::Object(members)) = last.map(|last| &mut last.value) {
        match members.iter_mut().find(|member| member.key == "tool_calls").map(|member| &mut member.node.value) {
            Some(Json::Array(calls)) => calls.push(asked),
            _ => {
                let calls = Turn::new(range, "assistant").calls(vec![asked]).node();
                members.extend(Fields::of(calls).members.into_iter().skip(1));
            }
        }
        return;
    }
    let mut turn = Turn::new(range, "assistant").calls(vec![asked]).node();
    if let Json::Object(members) = &mut turn.value {
        members.append(&mut more.members);
    }
    said.push(turn);
}
