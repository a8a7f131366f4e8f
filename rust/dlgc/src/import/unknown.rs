//! What is said of a record that no importer recognises: what it looks like, and how to map it.

use crate::diagnostic::{Code, Diagnostic};
use crate::json::{Json, Node};

/// The diagnostic of a record that has no known shape.
pub(super) fn diagnostic(record: &Node<'_>) -> Diagnostic {
    let looks_like = match &record.value {
        Json::Object(members) if members.is_empty() => "an empty object".to_owned(),
        Json::Object(members) => {
            let keys: Vec<String> = members.iter().take(8).map(|member| format!("`{}`", member.key)).collect();
            format!("an object with {}{}", keys.join(", "), if members.len() > 8 { ", …" } else { "" })
        }
        _ => record.kind().to_owned(),
    };
    Diagnostic::new(Code::UnknownFormat, format!("the record has no known shape: {looks_like}"))
        .at(&(record.range.start..record.range.start + 1))
        .help(suggestion(record))
}

/// A mapping to begin with, made of what the record holds.
fn suggestion(record: &Node<'_>) -> String {
    const GIVE: &str = "give `messages`, a list of objects with `role` and `content`";
    let Some(members) = record.as_object() else { return GIVE.to_owned() };
    let lists = members.iter().filter(|member| {
        member.node.as_array().is_some_and(|list| list.first().is_some_and(|first| first.as_object().is_some()))
    });
    if let Some(list) = lists.max_by_key(|member| member.node.as_array().map_or(0, <[_]>::len)) {
        let first = list.node.as_array().and_then(<[_]>::first).and_then(Node::as_object).unwrap_or_default();
        let texts: Vec<&str> =
            first.iter().filter(|member| member.node.as_str().is_some()).map(|member| &*member.key).collect();
        let content = texts.iter().max_by_key(|key| {
            list.node.as_array().map_or(0, |list| {
                list.iter().filter_map(|element| element.get(key)?.as_str()).map(str::len).sum::<usize>()
            })
        });
        let role = texts.iter().find(|key| Some(*key) != content);
        let content = content.map_or(String::new(), |key| format!(", content = \"{key}\""));
        let role = role.map_or(String::new(), |key| format!(", role = \"{key}\""));
        return format!(
            "map it in `dlgc.toml`: `[formats.NAME]` with messages = \"{}\"{role}{content}; or {GIVE}",
            list.key
        );
    }
    let texts: Vec<&str> =
        members.iter().filter(|member| member.node.as_str().is_some()).map(|member| &*member.key).collect();
    match texts.as_slice() {
        [first, .., last] => format!(
            "map its columns in `dlgc.toml`: `[formats.NAME]` with turns = [{{ user = \"{first}\" }}, {{ assistant = \"{last}\" }}]; or {GIVE}"
        ),
        _ => GIVE.to_owned(),
    }
}
