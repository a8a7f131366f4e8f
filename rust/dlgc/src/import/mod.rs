//! Other formats become the native one: a parsed record goes in, a record of the native shape comes out.
//!
//! Formats are recognised by shape, record by record. An importer rewrites the tree and leaves every byte range as it
//! is, so diagnostics of later passes point into the record as the user wrote it. It checks nothing that
//! [`crate::validate`] checks.

mod messages;
mod sharegpt;

use crate::diagnostic::{Code, Diagnostic};
use crate::json::{Json, JsonError, JsonErrorKind, Node};

/// One format: how it is recognised and how it becomes native.
struct Importer {
    /// The format's name, as reports and the manifest have it.
    name: &'static str,
    /// Whether a record has its shape.
    recognises: fn(&Node<'_>) -> bool,
    /// The record in native shape.
    import: for<'a> fn(Node<'a>) -> Result<Node<'a>, Diagnostic>,
}

const IMPORTERS: &[Importer] = &[
    Importer { name: "messages", recognises: messages::recognises, import: messages::import },
    Importer { name: "sharegpt", recognises: sharegpt::recognises, import: sharegpt::import },
];

/// Brings a record into the native shape; says which format it had.
///
/// # Errors
/// [`Code::UnknownFormat`] where no importer recognises it, [`Code::PreferenceRecord`] for preference data.
pub fn import(record: Node<'_>) -> Result<(&'static str, Node<'_>), Diagnostic> {
    if let Some(diagnostic) = preference(&record) {
        return Err(diagnostic);
    }
    let Some(importer) = IMPORTERS.iter().find(|importer| (importer.recognises)(&record)) else {
        return Err(unknown(&record));
    };
    Ok((importer.name, (importer.import)(record)?))
}

/// A record that holds answers which must not be trained as they are.
fn preference(record: &Node<'_>) -> Option<Diagnostic> {
    let pair = record.get_some("chosen").is_some() && record.get_some("rejected").is_some();
    let label = record.get("label").and_then(Node::as_bool).is_some();
    let field = if pair {
        "rejected"
    } else if label {
        "label"
    } else {
        return None;
    };
    let node = record.get(field).unwrap_or(record);
    Some(
        Diagnostic::new(Code::PreferenceRecord, "preference data in a compilation for supervised fine-tuning")
            .at(&node.range)
            .help("compile preference sets apart; here their rejected answers would be trained"),
    )
}

fn unknown(record: &Node<'_>) -> Diagnostic {
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
        .help(
            "give `conversation` or `messages` (a list of role and content), or ShareGPT's `conversations` \
             (a list of from and value)",
        )
}

/// Reads JSON that stands inside a JSON string; its parts are placed where the string stands. `None` where there is no
/// string, or it holds something else.
///
/// # Errors
/// [`Code::ReservedCharacter`], which must not come in by this door either.
pub(crate) fn embedded<'a>(node: &Node<'a>) -> Result<Option<Node<'a>>, Diagnostic> {
    let Some(text) = node.as_str() else { return Ok(None) };
    match crate::json::parse(text.as_bytes()) {
        Ok(parsed) => Ok(Some(parsed.root.into_owned_at(&node.range))),
        Err(JsonError { kind: JsonErrorKind::Reserved, .. }) => {
            let message = "the text holds a noncharacter that dlgc reserves";
            Err(Diagnostic::new(Code::ReservedCharacter, message).at(&node.range))
        }
        Err(_) => Ok(None),
    }
}
