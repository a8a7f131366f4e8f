//! WildChat: messages in the native shape, with what is known of who sent them. Told by `conversation_hash`.

use super::super::draft::{Draft, Turn};
use super::super::{Context, Format, When};
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Node};

pub(super) const FORMAT: Format =
    Format { name: "wildchat", when: When::Has(&["conversation_hash", "conversation[].role"]), import };

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (id, messages) = (record.take("conversation_hash"), record.list("conversation"));
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    for message in messages {
        if message.as_object().is_none() {
            dialogue.messages.push(message);
            continue;
        }
        let mut message = Fields::of(message);
        let role = message.text("role").unwrap_or_default();
        let turn = Turn::new(&message.range.clone(), role).content(message.take("content"));
        dialogue.say(turn.annotations(message));
    }
    Ok(vec![dialogue.node()])
}
