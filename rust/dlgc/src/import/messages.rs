//! The native shape and its relatives: a list of messages with `role` and `content`.
//!
//! OpenAI's `messages` is the native shape under its other name; trajectories that call the list `traj` (tau-bench)
//! and sets that put roles into `conversations` differ in that name only.

use crate::diagnostic::Diagnostic;
use crate::json::{Json, Node};

/// Names of the list, the native one first.
const LISTS: [&str; 4] = ["conversation", "messages", "conversations", "traj"];

pub(super) fn recognises(record: &Node<'_>) -> bool {
    list_name(record).is_some()
}

fn list_name(record: &Node<'_>) -> Option<&'static str> {
    LISTS.into_iter().find(|name| match record.get(name).map(|list| &list.value) {
        Some(Json::Array(messages)) => match messages.first() {
            Some(first) => first.get("role").is_some() && !has_foreign_parts(first),
            None => true,
        },
        Some(Json::Null) => false,
        // A list of the wrong type is the native shape with a mistake, which validation explains.
        Some(_) => matches!(*name, "conversation" | "messages"),
        None => false,
    })
}

/// Content parts that keep their text under `value` are another format.
fn has_foreign_parts(message: &Node<'_>) -> bool {
    let first = message.get("content").and_then(Node::as_array).and_then(<[_]>::first);
    first.is_some_and(|part| part.get("value").is_some() && part.get("text").is_none())
}

pub(super) fn import(mut record: Node<'_>) -> Result<Node<'_>, Diagnostic> {
    let name = list_name(&record);
    if let (Some("conversations" | "traj"), Json::Object(members)) = (name, &mut record.value) {
        for member in members {
            if Some(&*member.key) == name {
                member.key = "messages".into();
            }
        }
    }
    Ok(record)
}
