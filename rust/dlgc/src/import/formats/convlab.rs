//! ConvLab-3's unified format: the user's turns hold the state that the system answers with.

use super::super::draft::{Draft, Turn};
use super::super::{Context, Format, When};
use super::multiwoz::slots;
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Node};

pub(super) const FORMAT: Format =
    Format { name: "convlab", when: When::Has(&["turns[].speaker", "turns[].utterance", "data_split"]), import };

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (turns, goal, id) = (record.list("turns"), record.take("goal"), record.take("dialogue_id"));
    let split = record
        .get("data_split")
        .cloned()
        .filter(|split| split.as_str().is_some_and(|split| ["train", "validation", "test"].contains(&split)));
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.set_text("type", "task");
    dialogue.set("goal", goal);
    dialogue.set("split", split);
    let mut state = None;
    for turn in turns {
        let mut turn = Fields::of(turn);
        let role = match turn.text("speaker").as_deref() {
            Some("system") => "assistant".to_owned(),
            other => other.unwrap_or_default().to_owned(),
        };
        let mut message = Turn::new(&turn.range.clone(), role.clone()).content(turn.take("utterance"));
        state = turn.take("state").or(state);
        if let Some(state) = state.clone().filter(|_| role == "assistant") {
            message = message.state(None, slots(state, &[]));
        }
        dialogue.say(message.annotations(turn));
    }
    Ok(vec![dialogue.node()])
}
