//! Files with a message a row: each names its dialogue, who speaks, and what is said.

use std::borrow::Cow;

use super::super::draft::{Draft, Turn, plain};
use super::super::names::{dialogue as id, spoken};
use super::super::{Context, Format, When, speakers};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::{Fields, Json, Node};

pub(super) const FORMAT: Format = Format { name: "message-rows", when: When::Is(recognises), import };

/// Names of the place of a message in its dialogue.
const PLACES: [&str; 9] =
    ["turn", "turn_id", "turn_idx", "turn_index", "utterance_idx", "utterance_id", "index", "position", "seq"];

fn recognises(record: &Node<'_>) -> bool {
    let first = record.get("pieces").and_then(Node::as_array).and_then(<[_]>::first);
    first.is_some_and(|first| id(first).is_some() && spoken(first).is_some())
}

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (rows, whole) = (record.list("pieces"), record.range.clone());
    let first = rows.first().cloned().expect("recognised by it");
    let (id, (speaker, text)) = (id(&first).expect("recognised by it"), spoken(&first).expect("recognised by it"));
    let place = PLACES.into_iter().find(|key| rows.iter().all(|row| number(row.get(key)).is_some()));
    let message = format!("rows of one `{id}` are read as one dialogue, of `{speaker}` and `{text}`");
    context.notes.push(Diagnostic::new(Code::RolesAssumed, message).at(&(whole.start..whole.start + 1)));
    // In the order in which each is met first.
    let mut dialogues: Vec<(Option<Node<'a>>, Vec<Node<'a>>)> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for row in rows {
        let name = row.get(id).cloned().map(plain);
        let key = name.as_ref().and_then(Node::as_str).map(str::to_owned);
        let at = *known.entry(key).or_insert(dialogues.len());
        if at == dialogues.len() {
            dialogues.push((name, Vec::new()));
        }
        dialogues[at].1.push(row);
    }
    let dialogue = |(name, mut rows): (Option<Node<'a>>, Vec<Node<'a>>)| {
        if let Some(place) = place {
            rows.sort_by(|left, right| {
                number(left.get(place)).partial_cmp(&number(right.get(place))).expect("numbers")
            });
        }
        let said = |row: &Node<'a>| row.get(speaker).cloned().map(plain);
        let names: Vec<Cow<'_, str>> = rows
            .iter()
            .map(|row| said(row).and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default().into())
            .collect();
        // Where the roles cannot be told, the names stand for them, and validation refuses this dialogue alone.
        let roles: Vec<String> = match speakers::roles(&names, context.assistant, &rows[0]) {
            Ok(roles) => roles.each[0].iter().map(|role| (*role).to_owned()).collect(),
            Err(_) => names.iter().map(ToString::to_string).collect(),
        };
        let mut draft = Draft::of(Fields::of(Node::new(rows[0].range.clone(), Json::Null)));
        draft.set("id", name);
        for (row, role) in rows.into_iter().zip(roles) {
            let mut row = Fields::of(row);
            let (_, _) = (row.take(id), row.take(speaker));
            draft.say(Turn::new(&row.range.clone(), role).content(row.take(text)).annotations(row));
        }
        draft.node()
    };
    Ok(dialogues.into_iter().map(dialogue).collect())
}

/// A number, or text that is one: tables hold nothing else.
fn number(node: Option<&Node<'_>>) -> Option<f64> {
    match &node?.value {
        Json::Number(text) | Json::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}
