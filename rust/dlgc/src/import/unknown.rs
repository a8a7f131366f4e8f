//! What is said of a record that no importer recognises: what it looks like, and how to map it.

use super::names;
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

const GIVE: &str = "give `messages`, a list of objects with `role` and `content`";

/// A mapping to begin with, made of what the record holds; nothing is guessed that is not likely.
fn suggestion(record: &Node<'_>) -> String {
    if record.as_object().is_none() {
        return GIVE.to_owned();
    }
    let found = lists(record);
    let likely = found.iter().find_map(|(path, list)| Some((path, mapping(list)?)));
    match (likely, found.is_empty()) {
        (Some((path, mapping)), _) => {
            format!(
                "map it in `dlgc.toml`; does this name the right fields?\n[formats.NAME]\nmessages = {}\n{mapping}",
                quoted(path)
            )
        }
        (None, true) => columns(record, None),
        (None, false) => {
            let (path, list) = &found[0];
            let fields = list[0].as_object().unwrap_or_default().iter().take(8);
            let fields: Vec<String> = fields.map(|member| format!("`{}`", member.key)).collect();
            format!(
                "`{path}` is a list of objects with {}: say in `dlgc.toml` who speaks and what is said\n[formats.NAME]\nmessages = {}\nrole = \"SPEAKER\"\ncontent = \"TEXT\"",
                fields.join(", "),
                quoted(path)
            )
        }
    }
}

/// Lists of objects in a record, and in the objects that it holds, with their paths; those first whose names are known.
fn lists<'n, 'a>(record: &'n Node<'a>) -> Vec<(String, &'n [Node<'a>])> {
    let mut found = Vec::new();
    let mut look = |prefix: &str, node: &'n Node<'a>| {
        let known = names::lists(node);
        let members = node.as_object().unwrap_or_default();
        let rank = |key: &str| known.iter().position(|name| *name == key).unwrap_or(known.len());
        let mut inside: Vec<_> = members.iter().collect();
        inside.sort_by_key(|member| rank(&member.key));
        for member in inside {
            let Some(list) = member.node.as_array() else { continue };
            if list.first().is_some_and(|first| first.as_object().is_some()) {
                found.push((format!("{prefix}{}", step(&member.key)), list));
            } else if list
                .first()
                .and_then(Node::as_array)
                .and_then(<[_]>::first)
                .is_some_and(|first| first.as_object().is_some())
            {
                found.push((format!("{prefix}{}[]", step(&member.key)), list[0].as_array().unwrap_or_default()));
            }
        }
    };
    look("", record);
    for member in record.as_object().unwrap_or_default() {
        look(&format!("{}.", step(&member.key)), &member.node);
    }
    found
}

/// Who speaks and what is said, by the likeliest paths in the elements of a list.
fn mapping(list: &[Node<'_>]) -> Option<String> {
    let mut values: Vec<(String, &str, Vec<&Node<'_>>)> = Vec::new();
    let first = list.first()?;
    for member in first.as_object()? {
        values.push((
            step(&member.key),
            &member.key,
            list.iter().filter_map(|element| element.get(&member.key)).collect(),
        ));
        for inner in member.node.as_object().unwrap_or_default() {
            let path = format!("{}.{}", step(&member.key), step(&inner.key));
            let all = list.iter().filter_map(|element| element.get(&member.key)?.get(&inner.key)).collect();
            values.push((path, &inner.key, all));
        }
    }
    let texts = |values: &[&Node<'_>]| values.iter().filter_map(|value| value.as_str()).map(str::len).sum::<usize>();
    let says = |(_, key, values): &&(String, &str, Vec<&Node<'_>>)| texts(values) > 0 && !is_about(key);
    let content = values
        .iter()
        .filter(says)
        .max_by_key(|(_, key, values)| (names::is_text(key), texts(values)))
        .filter(|(_, key, values)| names::is_text(key) || is_prose(values))?;
    let speaks = |(path, key, values): &&(String, &str, Vec<&Node<'_>>)| {
        let name = |value: &&&Node<'_>| {
            matches!(&value.value, Json::Bool(_) | Json::Number(_))
                || value.as_str().is_some_and(|text| !text.is_empty() && text.len() < 40)
        };
        let mut kinds: Vec<String> = values.iter().map(|value| crate::json::dumps(value)).collect();
        kinds.sort();
        kinds.dedup();
        let few = kinds.len() == 2 || kinds.len() < 4 && kinds.len() < values.len();
        *path != content.0
            && few
            && values.len() == list.len()
            && values.iter().all(|value| name(&value))
            && (names::is_speaker(key) || !is_about(key))
    };
    let role = values
        .iter()
        .filter(speaks)
        .max_by_key(|(_, key, values)| (names::is_speaker(key), values.iter().all(|value| value.as_str().is_some())));
    let content = format!("content = {}", quoted(&content.0));
    Some(match role {
        Some((path, ..)) => format!("role = {}\n{content}", quoted(path)),
        None => format!("{content}  # without `role` speakers alternate, the user first"),
    })
}

/// Whether values are sentences: longer than names, with spaces, or in a script without them.
fn is_prose(values: &[&Node<'_>]) -> bool {
    let prose =
        |text: &str| text.len() > 12 && (text.contains(' ') || !text.is_ascii()) && !text.starts_with(['{', '[']);
    let texts: Vec<&str> = values.iter().filter_map(|value| value.as_str()).collect();
    2 * texts.iter().filter(|text| prose(text)).count() > texts.len()
}

/// Whether a name is of what describes a message, and is nothing that is said.
fn is_about(key: &str) -> bool {
    let plain = names::plain(key);
    [
        "id",
        "idx",
        "time",
        "timestamp",
        "date",
        "url",
        "uuid",
        "hash",
        "type",
        "label",
        "source",
        "category",
        "index",
        "rating",
    ]
    .iter()
    .any(|end| plain.ends_with(end))
}

/// How columns are mapped, with the names of those that hold text.
pub(super) fn columns(record: &Node<'_>, asked: Option<&str>) -> String {
    let members = record.as_object().unwrap_or_default();
    let is_column = |key: &&str| {
        record.get(key).and_then(Node::as_str).is_some_and(|text| !text.is_empty())
            && !is_about(key)
            && Some(*key) != asked
    };
    let others: Vec<&str> = members.iter().map(|member| &*member.key).filter(is_column).take(8).collect();
    let transcript = others.iter().find(|key| {
        let lines: Vec<&str> = record
            .get(key)
            .and_then(Node::as_str)
            .unwrap_or_default()
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        lines.len() > 1 && lines.iter().all(|line| line.split_once(':').is_some_and(|(name, _)| name.len() < 30))
    });
    if let Some(key) = transcript {
        return format!("`{key}` looks like a whole dialogue in one text: split it, and {GIVE}");
    }
    let listed = others.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    let is_asked = asked.is_some();
    let asked = asked.map_or("QUESTION".to_owned(), step);
    if others.len() + usize::from(is_asked) < 2 {
        return GIVE.to_owned();
    }
    format!(
        "if one of {listed} is the answer, map it in `dlgc.toml`:\n[formats.NAME]\nturns = [{{ user = {} }}, {{ assistant = \"ANSWER\" }}]",
        quoted(&asked)
    )
}

/// A key as a step of a path.
fn step(key: &str) -> String {
    if key.contains(['.', '[', ']', '"', ' ']) { format!("\"{key}\"") } else { key.to_owned() }
}

/// A path as TOML writes it.
fn quoted(path: &str) -> String {
    if path.contains('"') { format!("'{path}'") } else { format!("\"{path}\"") }
}
