//! Anthropic's messages, and those of Bedrock: content in blocks (`tool_use`, `tool_result`, `thinking`, or `toolUse` and its
//! like), tools with an `input_schema`, the rules in `system` beside the messages.
//!
//! Signatures and hidden reasoning stay in the annotations; `cache_control` says nothing of the dialogue and is left out.

use super::super::draft::{Turn, call};
use super::super::{Context, Format, When};
use super::blocks::{Blocks, content};
use super::{messages, system};
use crate::diagnostic::Diagnostic;
use crate::json::{self, Fields, Json, Node, object, string};

pub(super) const FORMAT: Format = Format { name: "anthropic", when: When::Is(recognises), import };

enum Kind {
    Call,
    Result,
    Thinking,
    Hidden,
}

fn recognises(record: &Node<'_>) -> bool {
    let Some(list) = messages::list(record) else { return false };
    let has_block = |message: &Node<'_>| is_in_blocks(message.get("content"));
    let tool = record.get("tools").and_then(Node::as_array).and_then(<[_]>::first);
    system::is_beside(record)
        || tool.is_some_and(|tool| tool.get("input_schema").is_some())
        || list.iter().any(has_block)
}

fn is_in_blocks(content: Option<&Node<'_>>) -> bool {
    content.and_then(Node::as_array).is_some_and(|parts| parts.iter().any(|part| kind(part).is_some()))
}

/// What a block is, and the member that Bedrock has it in.
fn kind(part: &Node<'_>) -> Option<(Kind, &'static str)> {
    Some(match part.get("type").and_then(Node::as_str) {
        Some("tool_use") => (Kind::Call, ""),
        Some("tool_result") => (Kind::Result, ""),
        Some("thinking") => (Kind::Thinking, ""),
        Some("redacted_thinking") => (Kind::Hidden, ""),
        Some(_) => return None,
        None if part.get_some("toolUse").is_some() => (Kind::Call, "toolUse"),
        None if part.get_some("toolResult").is_some() => (Kind::Result, "toolResult"),
        None if part.get_some("reasoningContent").is_some() => (Kind::Thinking, "reasoningContent"),
        None if part.get_some("cachePoint").is_some() => (Kind::Hidden, ""),
        None => return None,
    })
}

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    if record.get("toolConfig").is_some_and(|config| config.get("tools").is_some()) && record.get("tools").is_none() {
        let mut config = record.fields("toolConfig");
        let tools = config.take("tools");
        record = Fields::of(record.with("tools", tools));
        if !config.members.is_empty() {
            record = Fields::of(record.with("toolConfig", Some(config.into_node())));
        }
    }
    for member in &mut record.members {
        let Json::Array(list) = &mut member.node.value else { continue };
        if messages::LISTS.contains(&&*member.key) {
            *list = std::mem::take(list).into_iter().flat_map(message).collect();
        } else if member.key == "tools" {
            *list = std::mem::take(list).into_iter().map(tool).collect();
        }
    }
    let mut record = record.into_node();
    system::put_first(&mut record);
    messages::legacy(record, context)
}

fn message(message: Node<'_>) -> Vec<Node<'_>> {
    if !is_in_blocks(message.get("content")) {
        return vec![message];
    }
    let range = message.range.clone();
    let mut fields = Fields::of(message);
    let role = fields.text("role").unwrap_or_default().into_owned();
    let mut blocks = Blocks::default();
    fields.list("content").into_iter().for_each(|part| block(part, &mut blocks));
    blocks.messages(&range, role, fields)
}

fn block<'a>(part: Node<'a>, blocks: &mut Blocks<'a>) {
    let Some((kind, bedrock)) = kind(&part) else { return blocks.parts.push(part) };
    let range = part.range.clone();
    let mut fields = Fields::of(part);
    if let Some(inner) = fields.take(bedrock) {
        blocks.keep(std::mem::replace(&mut fields, Fields::of(inner)));
    }
    fields.take("cache_control");
    match kind {
        Kind::Hidden => return blocks.keep(fields),
        Kind::Call => {
            let id = fields.text("id").or_else(|| fields.text("toolUseId")).map(String::from);
            let name = fields.take("name").unwrap_or_else(|| string(&range, ""));
            let input = fields.take("input").unwrap_or_else(|| object(&range, Vec::new()));
            blocks.calls.push(call(&range, id, name, input));
            fields.take("type");
        }
        Kind::Result => {
            let turn = Turn::new(&range, "tool").with("tool_call_id", fields.take_any(&["tool_use_id", "toolUseId"]));
            let content = fields.take("content").map_or_else(|| string(&range, ""), result);
            fields.take("type");
            return blocks.results.push(turn.content(Some(content)).annotations(fields).node());
        }
        Kind::Thinking => {
            fields.take("type");
            if fields.get("reasoningText").is_some() {
                fields = fields.fields("reasoningText");
            }
            let key = if fields.get("thinking").is_some() { "thinking" } else { "text" };
            let said = fields.text(key).map(|said| string(&range, said));
            blocks.reasoning.extend(said);
        }
    }
    blocks.keep(fields);
}

/// Bedrock's results may be JSON.
fn result<'a>(result: Node<'a>) -> Node<'a> {
    let text = |part: Node<'a>| match part.get("json").map(json::dumps) {
        Some(text) => string(&part.range, text),
        None => part,
    };
    match result.as_array() {
        Some(_) => content(&result.range.clone(), result.into_elements().into_iter().map(text).collect()),
        None => result,
    }
}

/// A tool with an `input_schema`, or with a `toolSpec` that has one; what else it says stays with it.
fn tool(tool: Node<'_>) -> Node<'_> {
    let range = tool.range.clone();
    let is_bedrock = tool.get("toolSpec").is_some();
    if !is_bedrock && tool.get("input_schema").is_none() {
        return tool;
    }
    let mut fields = Fields::of(tool);
    let schema = if is_bedrock {
        fields = fields.fields("toolSpec");
        fields.fields("inputSchema").take("json")
    } else {
        fields.take("input_schema")
    };
    fields.members.retain(|member| !matches!(&*member.key, "type" | "cache_control"));
    object(&range, vec![("type", string(&range, "function")), ("function", fields.with("parameters", schema))])
}
