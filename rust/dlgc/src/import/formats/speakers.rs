//! A list of objects that say who speaks and what, under whatever names.

use super::super::mapping::Mapping;
use super::super::names::{self, spoken};
use super::super::{Context, Format, When};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::Node;

pub(super) const FORMAT: Format = Format { name: "speakers", when: When::Is(has_speakers), import: speakers };

/// The list, the speaker and the text of a record, by the names that they have.
fn names<'n>(record: &'n Node<'_>) -> Option<(&'n str, &'n str, &'n str)> {
    let members = record.as_object()?;
    let objects = |key: &&str| {
        let list = record.get(key).and_then(Node::as_array).unwrap_or_default();
        !list.is_empty() && list.iter().all(|element| element.as_object().is_some())
    };
    let known = names::lists(record).into_iter().filter(objects);
    // Else the only list of objects that the record has.
    let all: Vec<&str> = members.iter().map(|member| &*member.key).filter(objects).collect();
    let only = all.first().copied().filter(|_| all.len() == 1);
    known.chain(only).find_map(|key| {
        let list = record.get(key)?.as_array()?;
        let (speaker, text) = spoken(list.first()?)?;
        list.iter().all(|message| spoken(message) == Some((speaker, text))).then_some((key, speaker, text))
    })
}

fn has_speakers(record: &Node<'_>) -> bool {
    names(record).is_some()
}

fn speakers<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let (list, speaker, text) = names(&record).expect("recognised by it");
    let message = format!("read as `{list}` of `{speaker}` and `{text}`, by their names");
    let mapping = Mapping::of_keys(list, speaker, text, names::id(&record));
    context.notes.push(
        Diagnostic::new(Code::RolesAssumed, message)
            .at(&(record.range.start..record.range.start + 1))
            .help("say so in `dlgc.toml`, and with it who is the assistant: `[formats.NAME]`"),
    );
    mapping.import(record, context)
}
