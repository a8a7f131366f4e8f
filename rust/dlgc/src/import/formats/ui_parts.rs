//! Messages of the AI SDK's user interfaces: `role`, and `parts` of text, reasoning and tools beside it.
//!
//! A tool's part holds the call and, once there is one, its result; what is said after a result is the next message.

use super::super::{Context, Format, When};
use super::blocks::{self, Kind};
use super::messages;
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Node};

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

fn recognises(record: &Node<'_>) -> bool {
    let typed = |message: &Node<'_>| message.get("parts")?.as_array()?.first()?.get("type").map(|_| ());
    messages::list(record).is_some_and(|list| list.iter().any(|message| typed(message).is_some()))
}

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    Ok(vec![messages::each(record, message)])
}

fn message(message: Node<'_>) -> Vec<Node<'_>> {
    if message.get("parts").and_then(Node::as_array).is_none() {
        return vec![message];
    }
    let range = message.range.clone();
    let mut fields = Fields::of(message);
    let (role, parts) = (fields.text("role").unwrap_or_default(), fields.list("parts"));
    // What older versions repeat of the parts: the text, the calls and the reasoning.
    fields.members.retain(|member| !["content", "toolInvocations", "reasoning"].contains(&&*member.key));
    blocks::messages(&range, &role, parts, &PARTS, blocks::aside(fields))
}
