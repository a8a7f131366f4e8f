//! Messages of the AI SDK's user interfaces: `role`, and `parts` of text, reasoning and tools beside it.
//!
//! A tool's part holds the call and, once there is one, its result; what is said after a result is the next message.

use super::super::draft::{Turn, call, result_text};
use super::super::{Context, Format, When};
use super::blocks::Blocks;
use super::messages;
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Json, Node, object, string};

pub(super) const FORMAT: Format = Format { name: "ui-parts", when: When::Is(recognises), import };

fn recognises(record: &Node<'_>) -> bool {
    let typed = |message: &Node<'_>| message.get("parts")?.as_array()?.first()?.get("type").map(|_| ());
    messages::list(record).is_some_and(|list| list.iter().any(|message| typed(message).is_some()))
}

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    for member in record.members.iter_mut().filter(|member| messages::LISTS.contains(&&*member.key)) {
        if let Json::Array(list) = &mut member.node.value {
            *list = std::mem::take(list).into_iter().flat_map(message).collect();
        }
    }
    Ok(vec![record.into_node()])
}

fn message(message: Node<'_>) -> Vec<Node<'_>> {
    if message.get("parts").and_then(Node::as_array).is_none() {
        return vec![message];
    }
    let range = message.range.clone();
    let mut fields = Fields::of(message);
    let (role, parts) = (fields.text("role").unwrap_or_default().into_owned(), fields.list("parts"));
    // What older versions repeat of the parts: the text, the calls and the reasoning.
    ["content", "toolInvocations", "reasoning"].iter().for_each(|repeated| drop(fields.take(repeated)));
    let first = Fields::of(Turn::new(&range, "").annotations(fields).node()).take("annotations");
    let mut more = Fields::of(object(&range, first.map(|first| ("annotations", first)).into_iter().collect()));
    let (mut messages, mut blocks) = (Vec::new(), Blocks::default());
    for part in parts {
        let kind = part.get("type").and_then(Node::as_str).unwrap_or_default();
        if !blocks.results.is_empty() && !is_tool(kind) {
            let nothing = Fields::of(object(&range, Vec::new()));
            let more = std::mem::replace(&mut more, nothing);
            messages.extend(std::mem::take(&mut blocks).messages(&range, role.clone(), more));
        }
        add(part, &mut blocks);
    }
    if messages.is_empty() || blocks.says() {
        messages.extend(blocks.messages(&range, role, more));
    }
    messages
}

fn is_tool(kind: &str) -> bool {
    kind.starts_with("tool-") || kind == "dynamic-tool"
}

fn add<'a>(part: Node<'a>, blocks: &mut Blocks<'a>) {
    let range = part.range.clone();
    let kind = part.get("type").and_then(Node::as_str).unwrap_or_default().to_owned();
    let mut fields = Fields::of(part);
    match &*kind {
        "text" => blocks.parts.extend(fields.take("text")),
        "reasoning" => blocks.reasoning.extend(fields.take_any(&["text", "reasoning"])),
        "step-start" => {}
        _ if is_tool(&kind) => {
            let mut tool = match fields.get("toolInvocation") {
                Some(_) => fields.fields("toolInvocation"),
                None => fields,
            };
            let named = kind.strip_prefix("tool-").map(|name| string(&range, name.to_owned()));
            let name = tool.take("toolName").or(named).unwrap_or_else(|| string(&range, ""));
            let arguments = tool.take_any(&["input", "args"]).unwrap_or_else(|| object(&range, Vec::new()));
            let id = tool.take("toolCallId");
            let text = id.as_ref().and_then(Node::as_str).map(str::to_owned);
            blocks.calls.push(call(&range, text, name.clone(), arguments));
            if let Some(result) = tool.take_any(&["output", "result", "errorText"]) {
                let turn = Turn::new(&range, "tool").with("name", Some(name)).with("tool_call_id", id);
                blocks.results.push(turn.content(Some(result_text(result))).node());
            }
            tool.take("type");
            return blocks.keep(tool);
        }
        // A file, a source, data: validation says that it is not supported.
        _ => return blocks.parts.push(fields.into_node()),
    }
    ["type", "state"].iter().for_each(|of| drop(fields.take(of)));
    blocks.keep(fields);
}
