//! LangChain's messages: who speaks is their `type` (`human`, `ai`, `system`, `tool`), and what they are may stand in `data`.

use super::super::draft::{Draft, Turn, call};
use super::super::{Context, Format, When};
use super::messages;
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Node, object, string};

pub(super) const FORMAT: Format = Format { name: "langchain", when: When::Is(recognises), import };

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
    let list = messages::LISTS.iter().find_map(|list| record.get(list)?.as_array());
    let kind =
        |message: &Node<'_>| Some(role(message.get("type")?.as_str()?).is_some() && message.get("role").is_none());
    list.is_some_and(|list| !list.is_empty() && list.iter().all(|message| kind(message) == Some(true)))
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
    let range = message.range.clone();
    let mut fields = Fields::of(message);
    let kind = fields.text("type").unwrap_or_default();
    if fields.get("data").is_some() {
        fields = fields.fields("data");
        fields.take("type");
    }
    let mut turn = Turn::new(&range, role(&kind).unwrap_or_default()).content(fields.take("content"));
    let calls = fields.list("tool_calls");
    // The provider's own message stands beside; what of it says the same is not said twice.
    let mut provider = fields.fields("additional_kwargs");
    let (theirs, reasoning) = (provider.list("tool_calls"), provider.take("reasoning_content"));
    let older = provider.take("function_call");
    turn = if calls.is_empty() { turn.calls(theirs) } else { turn.calls(calls.into_iter().map(called).collect()) };
    turn = turn.with("function_call", older).with("reasoning_content", reasoning);
    turn = turn.with("tool_call_id", fields.take("tool_call_id")).with("name", fields.take("name"));
    let rest = (!provider.members.is_empty()).then(|| provider.into_node());
    turn.annotations(Fields::of(fields.with("additional_kwargs", rest))).node()
}

fn called(node: Node<'_>) -> Node<'_> {
    let range = node.range.clone();
    let mut fields = Fields::of(node);
    let name = fields.take("name").unwrap_or_else(|| string(&range, ""));
    let arguments = fields.take("args").unwrap_or_else(|| object(&range, Vec::new()));
    call(&range, fields.text("id").map(String::from), name, arguments)
}
