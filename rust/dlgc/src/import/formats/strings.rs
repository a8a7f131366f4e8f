//! Dialogues whose messages are plain strings, in turns: the user, then the assistant.

use super::super::draft::{Draft, Fields, Turn};
use super::super::{Context, Format, When};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::Node;

pub(super) const FORMAT: Format = Format { name: "strings", when: When::Is(recognises), import };

const LISTS: [&str; 8] = ["conversations", "dialog", "dialogue", "dialogs", "utterances", "turns", "data", "messages"];

fn recognises(record: &Node<'_>) -> bool {
    list(record).is_some()
}

fn list(record: &Node<'_>) -> Option<&'static str> {
    let is_list = |name: &&str| {
        let list = record.get(name).and_then(Node::as_array);
        list.is_some_and(|list| list.len() > 1 && list.iter().all(|said| said.as_str().is_some()))
    };
    LISTS.into_iter().find(|name| is_list(name))
}

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let name = list(&record).expect("recognised by it");
    let mut record = Fields::of(record);
    let (said, id) = (record.list(name), record.take("id"));
    let note =
        Diagnostic::new(Code::RolesAssumed, format!("`{name}` names no speakers; the first is taken for the user"));
    context.notes.push(note.at(&record.range));
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    for (index, said) in said.into_iter().enumerate() {
        let role = if index % 2 == 0 { "user" } else { "assistant" };
        dialogue.say(Turn::new(&said.range.clone(), role).content(Some(said)));
    }
    Ok(vec![dialogue.node()])
}
