//! Dialogues whose list holds exchanges: what the user says and what answers it, in one object.

use super::super::draft::{Draft, Turn};
use super::super::names::{LISTS, id_of};
use super::super::{Context, Format, When};
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Node, string};

pub(super) const FORMAT: Format =
    Format { name: "exchanges", when: When::Is(|record| names(record).is_some()), import };

/// Names of what is said by each, in pairs that go together.
const PAIRS: [(&str, &str); 12] = [
    ("human", "assistant"),
    ("user", "assistant"),
    ("human", "bot"),
    ("user", "bot"),
    ("user", "system"),
    ("Human", "MOSS"),
    ("question", "answer"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("input", "output"),
    ("user_utterance", "system_utterance"),
    ("q", "a"),
];

/// The list, and what its elements call the two.
fn names(record: &Node<'_>) -> Option<(&'static str, &'static str, &'static str)> {
    LISTS.into_iter().find_map(|list| {
        let first = record.get(list)?.as_array()?.first()?;
        let says = |key: &str| first.get(key).is_some_and(|said| said.as_str().is_some());
        PAIRS
            .into_iter()
            .find(|(asked, answer)| says(asked) && says(answer))
            .map(|(asked, answer)| (list, asked, answer))
    })
}

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let (list, asked, answer) = names(&record).expect("recognised by it");
    let mut record = Fields::of(record);
    let (exchanges, id, system) = (record.list(list), id_of(&mut record), record.text("system"));
    let range = record.range.clone();
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    if let Some(system) = system.filter(|system| !system.is_empty()) {
        dialogue.say(Turn::new(&range, "system").content(Some(string(&range, system))));
    }
    for mut exchange in exchanges.into_iter().map(Fields::of) {
        let range = exchange.range.clone();
        dialogue.say(Turn::new(&range, "user").content(exchange.take(asked)));
        let turn = Turn::new(&range, "assistant").content(exchange.take(answer));
        dialogue.say(turn.annotations(exchange));
    }
    Ok(vec![dialogue.node()])
}
