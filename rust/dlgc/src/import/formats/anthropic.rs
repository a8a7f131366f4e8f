//! Anthropic's messages, and those of Bedrock: content in blocks (`tool_use`, `tool_result`, `thinking`, or `toolUse` and its
//! like), tools with an `input_schema`, the rules in `system` beside the messages.
//!
//! Signatures and hidden reasoning stay in the annotations; `cache_control` says nothing of the dialogue and is left out.

use super::super::draft::{described, tools};
use super::super::{Context, Format, When};
use super::blocks::{self, Kind};
use super::{messages, system};
use crate::diagnostic::Diagnostic;
use crate::json::{self, Fields, Json, Node, string};

pub(super) const FORMAT: Format = Format { name: "anthropic", when: When::Is(recognises), import };

const DROPS: &[&str] = &["cache_control"];
const BLOCKS: [Kind; 4] = [
    Kind {
        types: &["tool_use"],
        within: &["toolUse"],
        id: &["id", "toolUseId"],
        name: &["name"],
        arguments: &["input"],
        drops: DROPS,
        ..Kind::NONE
    },
    Kind {
        types: &["tool_result"],
        within: &["toolResult"],
        id: &["tool_use_id", "toolUseId"],
        result: &["content"],
        read: result,
        drops: DROPS,
        ..Kind::NONE
    },
    Kind {
        types: &["thinking"],
        within: &["reasoningContent", "reasoningText"],
        reasoning: &["thinking", "text"],
        drops: DROPS,
        ..Kind::NONE
    },
    Kind { types: &["redacted_thinking"], has: &["cachePoint"], drops: DROPS, ..Kind::NONE },
];

fn recognises(record: &Node<'_>) -> bool {
    let tool = record.get("tools").and_then(Node::as_array).and_then(<[_]>::first);
    let has_schema = tool.is_some_and(|tool| tool.get("input_schema").is_some());
    messages::list(record).is_some() && (system::is_beside(record) || has_schema || messages::any(record, is_in_blocks))
}

fn is_in_blocks(message: &Node<'_>) -> bool {
    let parts = message.get("content").and_then(Node::as_array).unwrap_or_default();
    parts.iter().any(|part| Kind::of(part, &BLOCKS).is_some())
}

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(messages::each(record, message));
    if record.get("tools").is_none() && record.get("toolConfig").is_some_and(|config| config.get("tools").is_some()) {
        let mut config = record.fields("toolConfig");
        record = Fields::of(record.with("tools", config.take("tools")));
        record = Fields::of(record.with("toolConfig", (!config.members.is_empty()).then(|| config.into_node())));
    }
    record.change("tools", |list| tools(list, tool));
    let mut record = record.into_node();
    system::put_first(&mut record);
    messages::legacy(record, context)
}

fn message(message: Node<'_>) -> Vec<Node<'_>> {
    if !is_in_blocks(&message) {
        return vec![message];
    }
    let (range, mut fields) = (message.range.clone(), Fields::of(message));
    let (role, content) = (fields.text("role").unwrap_or_default(), fields.list("content"));
    blocks::messages(&range, &role, content, &BLOCKS, fields)
}

/// Bedrock's results may be JSON.
fn result<'a>(result: Node<'a>) -> Node<'a> {
    let text = |part: Node<'a>| match part.get("json").map(json::dumps) {
        Some(text) => string(&part.range, text),
        None => part,
    };
    match result.value {
        Json::Array(parts) => blocks::content(&result.range, parts.into_iter().map(text).collect()),
        value => Node::new(result.range, value),
    }
}

/// A tool with an `input_schema`, or with a `toolSpec` that has one; what else it says stays with it.
fn tool(tool: Node<'_>) -> Node<'_> {
    if tool.get("toolSpec").is_some() {
        let mut spec = Fields::of(tool).fields("toolSpec");
        let schema = spec.fields("inputSchema").take("json");
        return described(spec.with("parameters", schema), &["parameters"]);
    }
    if tool.get("input_schema").is_some() { described(tool, &["input_schema"]) } else { tool }
}
