//! MultiWOZ 2.1, in any language: speakers alternate, the state stands in the system's `metadata`.

use super::super::draft::{Draft, Turn, named};
use super::super::{Context, Format, When};
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Json, Member, Node};

pub(super) const FORMAT: Format =
    Format { name: "multiwoz", when: When::Has(&["log[].text", "log[].metadata"]), import };

/// What stands for nothing in the sets of this family.
const NOTHING: [&str; 4] = ["", "not mentioned", "未提及", "none"];

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (log, goal) = (record.list("log"), record.take("goal"));
    let mut dialogue = Draft::of(record);
    dialogue.set_text("type", "task");
    dialogue.set("goal", goal);
    for (index, turn) in log.into_iter().enumerate() {
        let mut turn = Fields::of(turn);
        let role = if index % 2 == 0 { "user" } else { "assistant" };
        let mut message = Turn::new(&turn.range.clone(), role).content(turn.take("text"));
        let mut booked = None;
        if let Some(state) = turn.take("metadata").filter(|_| role == "assistant") {
            booked = bookings(&state);
            message = message.state(None, slots(state, &["booked"]));
        }
        turn = Fields::of(turn.with("booked", booked));
        dialogue.say(message.annotations(turn));
    }
    Ok(vec![dialogue.node()])
}

/// What has been booked, by domain.
fn bookings<'a>(state: &Node<'a>) -> Option<Node<'a>> {
    let booked = |member: &Member<'a>| {
        let booked = member.node.get("book")?.get("booked").filter(|booked| has_value(booked))?;
        Some((member.key.to_string(), booked.clone()))
    };
    let booked: Vec<_> = state.as_object()?.iter().filter_map(booked).collect();
    (!booked.is_empty()).then(|| named(&state.range, booked))
}

/// The slots of a state by domain that have a value, named `domain-slot`; `semi` and `book` are no names of their own,
/// but a booking's slots are told apart: `hotel-book-day`.
pub(super) fn slots<'a>(state: Node<'a>, left_out: &[&str]) -> Vec<(String, Node<'a>)> {
    let mut slots = Vec::new();
    for (domain, state) in pairs(state) {
        for (slot, value) in pairs(state) {
            match (&*slot, &value.value) {
                ("semi", Json::Object(_)) => {
                    slots.extend(pairs(value).map(|(slot, value)| (format!("{domain}-{slot}"), value)));
                }
                ("book", Json::Object(_)) => slots.extend(
                    pairs(value)
                        .filter(|(slot, _)| !left_out.contains(&&**slot))
                        .map(|(slot, value)| (format!("{domain}-book-{slot}"), value)),
                ),
                (slot, _) if left_out.contains(&slot) => {}
                _ => slots.push((format!("{domain}-{slot}"), value)),
            }
        }
    }
    slots.retain(|(_, value)| has_value(value));
    slots
}

fn has_value(value: &Node<'_>) -> bool {
    match &value.value {
        Json::Null => false,
        Json::String(text) => !NOTHING.contains(&&**text),
        Json::Array(elements) => elements.iter().any(has_value),
        Json::Object(members) => !members.is_empty(),
        _ => true,
    }
}

fn pairs(node: Node<'_>) -> impl Iterator<Item = (String, Node<'_>)> {
    let members = match node.value {
        Json::Object(members) => members,
        _ => Vec::new(),
    };
    members.into_iter().map(|member| (member.key.into_owned(), member.node))
}
