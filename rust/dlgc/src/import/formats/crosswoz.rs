//! CrossWOZ: roles `usr` and `sys`. The state is what the user asked for, `sys_state_init`; `sys_state`, what the system then
//! looked up, may have given up constraints that nothing meets, and stays in the annotations.

use super::super::draft::{Draft, Turn};
use super::super::{Context, Format, When};
use super::multiwoz::slots;
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Node};

pub(super) const FORMAT: Format =
    Format { name: "crosswoz", when: When::Has(&["messages[].role", "messages[].dialog_act", "goal"]), import };

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (messages, goal) = (record.take("messages"), record.take("goal"));
    let mut dialogue = Draft::of(record);
    dialogue.set_text("type", "task");
    dialogue.set("goal", goal);
    for message in messages.map_or_else(Vec::new, Node::into_elements) {
        let mut message = Fields::of(message);
        let role = match message.text("role").as_deref() {
            Some("usr") => "user".into(),
            Some("sys") => "assistant".into(),
            other => other.unwrap_or_default().to_owned(),
        };
        let turn = Turn::new(&message.range.clone(), role).content(message.take("content"));
        let state = message.take_any(&["sys_state_init", "sys_state"]).map(|state| slots(state, &["selectedResults"]));
        let turn = match state {
            Some(slots) => turn.state(None, slots),
            None => turn,
        };
        dialogue.say(turn.annotations(message));
    }
    Ok(vec![dialogue.node()])
}
