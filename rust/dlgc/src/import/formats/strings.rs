//! Dialogues whose messages are plain strings, in turns: the user, then the assistant.

use super::super::draft::{Draft, Turn};
use super::super::names::{LISTS, id_of};
use super::super::{Context, Format, When};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::{Fields, Json, Node};

pub(super) const FORMAT: Format = Format { name: "strings", when: When::Is(recognises), import };

fn recognises(record: &Node<'_>) -> bool {
    is_list(record) || list(record).is_some()
}

fn is_list(node: &Node<'_>) -> bool {
    node.as_array().is_some_and(|list| list.len() > 1 && list.iter().all(|said| said.as_str().is_some()))
}

fn list(record: &Node<'_>) -> Option<&'static str> {
    LISTS.into_iter().find(|name| record.get(name).is_some_and(is_list))
}

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let range = record.range.clone();
    let (said, mut record) = match list(&record) {
        // A record that is nothing but the list.
        None => (record.into_elements(), Fields::of(Node::new(range.clone(), Json::Null))),
        Some(name) => {
            let mut record = Fields::of(record);
            (record.list(name), record)
        }
    };
    let id = id_of(&mut record);
    let message = "the messages name no speakers; the first is taken for the user";
    context.notes.push(Diagnostic::new(Code::RolesAssumed, message).at(&(range.start..range.start + 1)));
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    for (index, said) in said.into_iter().enumerate() {
        let role = if index % 2 == 0 { "user" } else { "assistant" };
        dialogue.say(Turn::new(&said.range.clone(), role).content(Some(said)));
    }
    Ok(vec![dialogue.node()])
}
