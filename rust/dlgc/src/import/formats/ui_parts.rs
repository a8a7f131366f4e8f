//! Messages of the AI SDK's user interfaces: `role`, and `parts` of text, reasoning and tools beside it.
//!
//! A tool's part holds the call and, once there is one, its result; what is said after a result is the next message.

use super::super::{Context, Format, When};
use super::blocks::{self, Kind};
use super::messages;
use crate::diagnostic::Diagnostic;
use crate::json::Node;

pub(super) const FORMAT: Format = Format { name: "ui-parts", when: When::Is(recognises), import };

// Any other part (a file, a source, data) is for validation to refuse.
const PARTS: [Kind; 4] = [
    Kind { types: &["text"], text: &["text"], drops: &["state"], ..Kind::NONE },
    Kind { types: &["reasoning"], reasoning: &["text", "reasoning"], drops: &["state"], ..Kind::NONE },
    Kind { types: &["step-start"], drops: &["type", "state"], ..Kind::NONE },
    Kind {
        types: &["tool-*", "dynamic-tool"],
        within: &["toolInvocation"],
        id: &["toolCallId"],
        name: &["toolName"],
        arguments: &["input", "args"],
        result: &["output", "result", "errorText"],
        ..Kind::NONE
    },
];

// What older versions repeat of the parts.
const AGAIN: [&str; 3] = ["content", "toolInvocations", "reasoning"];

fn recognises(record: &Node<'_>) -> bool {
    messages::any(record, |message| message.get("parts").is_some_and(blocks::are_typed))
}

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    Ok(vec![messages::each(record, |message| blocks::of_members(message, &["parts"], &PARTS, &AGAIN))])
}
