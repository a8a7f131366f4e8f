//! A list of objects that say who speaks and what, under whatever names.

use super::super::mapping::Mapping;
use super::super::names::{IDS, LISTS, SPEAKER, TEXT};
use super::super::{Context, Format, When};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::{Json, Node};

pub(super) const FORMAT: Format = Format { name: "speakers", when: When::Is(has_speakers), import: speakers };

/// The list, the speaker and the text of a record, by the names that they have.
fn names(record: &Node<'_>) -> Option<(String, &'static str, &'static str)> {
    let members = record.as_object()?;
    let named = LISTS.iter().filter_map(|name| members.iter().find(|member| member.key == *name));
    // Else the only list of objects that the record has.
    let lists = || {
        members.iter().filter(|member| {
            member
                .node
                .as_array()
                .is_some_and(|list| list.iter().all(|element| element.as_object().is_some()) && !list.is_empty())
        })
    };
    let only = lists().next().filter(|_| lists().count() == 1);
    named.chain(only).find_map(|member| {
        let list = member.node.as_array()?;
        let has =
            |key: &&&str| list.iter().all(|element| element.get(key).is_some_and(|value| value.as_str().is_some()));
        let speaks = |key: &&&str| {
            let name = |element: &Node<'_>| {
                matches!(
                    element.get(key).map(|value| &value.value),
                    Some(Json::String(_) | Json::Number(_) | Json::Bool(_))
                )
            };
            list.iter().all(name)
        };
        let (speaker, text) = (SPEAKER.iter().find(speaks)?, TEXT.iter().find(has)?);
        (!list.is_empty() && speaker != text).then(|| (member.key.to_string(), *speaker, *text))
    })
}

fn has_speakers(record: &Node<'_>) -> bool {
    names(record).is_some()
}

fn speakers<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let (list, speaker, text) = names(&record).expect("recognised by it");
    let id = IDS.iter().find(|key| record.get_some(key).is_some());
    let message = format!("read as `{list}` of `{speaker}` and `{text}`, by their names");
    context.notes.push(
        Diagnostic::new(Code::RolesAssumed, message)
            .at(&(record.range.start..record.range.start + 1))
            .help("say so in `dlgc.toml`, and with it who is the assistant: `[formats.NAME]`"),
    );
    Mapping::of_keys(&list, speaker, text, id.copied()).import(record, context.assistant)
}
