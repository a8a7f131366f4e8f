//! LangChain's messages: who speaks is their `type` (`human`, `ai`, `system`, `tool`), and what they are may stand in `data`.

use super::super::draft::{Draft, Turn};
use super::super::{Context, Format, When};
use super::blocks::Kind;
use super::messages;
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Node};

pub(super) const FORMAT: Format = Format { name: "langchain", when: When::Is(recognises), import };

const CALL: Kind = Kind { id: &["id"], name: &["name"], arguments: &["args"], ..Kind::NONE };

fn role(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "human" | "HumanMessage" => "user",
        "ai" | "AIMessage" | "AIMessageChunk" => "assistant",
        "system" | "SystemMessage" => "system",
        "tool" | "ToolMessage" | "function" | "FunctionMessage" => "tool",
        _ => return None,
    })
}

fn recognises(record: &Node<'_>) -> bool {
    let list = messages::LISTS.iter().find_map(|list| record.get(list)?.as_array()).unwrap_or_default();
    let is_one = |message: &Node<'_>| {
        message.get("role").is_none() && message.get("type").and_then(Node::as_str).and_then(role).is_some()
    };
    !list.is_empty() && list.iter().all(is_one)
}

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let said = messages::LISTS.iter().map(|list| record.list(list)).find(|said| !said.is_empty());
    let (id, tools) = (record.take("id"), record.take("tools"));
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.set("tools", tools);
    dialogue.messages.extend(said.unwrap_or_default().into_iter().map(message));
    // Its content may be in Anthropic's blocks, its older calls are OpenAI's.
    messages::legacy(dialogue.node(), context)
}

fn message(message: Node<'_>) -> Node<'_> {
    let (range, mut fields) = (message.range.clone(), Fields::of(message));
    let kind = fields.text("type").unwrap_or_default();
    if fields.get("data").is_some() {
        fields = fields.fields("data");
        fields.take("type");
    }
    // The provider's own message stands beside; what of it says the same is not said twice.
    let mut provider = fields.fields("additional_kwargs");
    let (calls, theirs) = (fields.list("tool_calls"), provider.list("tool_calls"));
    let calls = if calls.is_empty() { theirs } else { calls.into_iter().map(|asked| CALL.call(asked)).collect() };
    let mut turn = Turn::new(&range, role(&kind).unwrap_or_default()).content(fields.take("content")).calls(calls);
    for name in ["function_call", "reasoning_content"] {
        turn = turn.with(name, provider.take(name));
    }
    for name in ["tool_call_id", "name"] {
        turn = turn.with(name, fields.take(name));
    }
    let rest = (!provider.members.is_empty()).then(|| provider.into_node());
    turn.annotations(Fields::of(fields.with("additional_kwargs", rest))).node()
}
