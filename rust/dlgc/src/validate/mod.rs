//! Checking is conversion: a record of the native shape becomes a [`Dialogue`], or diagnostics say why not.
//!
//! In: the bytes of a record (parsed and imported here, so that there is one door). Out: [`Validated`]. The shape is
//! the one of `specs/dialogue.schema.json`; the rules beyond it (calls and their results, something to train) are in
//! `rules`. All findings of a record are collected; the record is refused if one of them is an error.

mod rules;
mod shape;

pub(crate) use shape::RESERVED_ARGUMENTS;

use std::borrow::Cow;
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic, Severities, Severity};
use crate::dialogue::{Dialogue, Judged, Verdict};
use crate::import::Importers;
use crate::json::{self, Json, JsonError, JsonErrorKind, Node};
use crate::source::Record;

/// What became of a record.
#[derive(Debug, Default)]
pub struct Validated<'a> {
    /// The format that it had; `None` if none was recognised.
    pub format: Option<Arc<str>>,
    /// What it became, in order; nothing if it is no JSON, of no known format, or no dialogue.
    pub dialogues: Vec<Checked<'a>>,
    /// Everything found about the record as a whole.
    pub diagnostics: Vec<Diagnostic>,
}

/// One dialogue of a record.
#[derive(Debug)]
pub struct Checked<'a> {
    /// The dialogue, of preferences with the better answer; `None` if a diagnostic is an error.
    pub dialogue: Option<Dialogue<'a>>,
    /// What is said of its answer, if it is one of preferences.
    pub judged: Option<Judged<'a>>,
    /// Everything found about it.
    pub diagnostics: Vec<Diagnostic>,
    /// Whether it has an id of its own, and not its place for one.
    pub is_named: bool,
}

/// Turns a record into dialogues that cannot be wrong.
///
/// ```
/// use dlgc::diagnostic::Severities;
/// use dlgc::dialogue::{Location, Position};
/// use dlgc::import::Importers;
/// use dlgc::source::Record;
/// use dlgc::validate::validate;
/// let bytes = br#"{"messages": [{"role": "user", "content": "hi"}, {"role": "bot", "content": "hello"}]}"#;
/// let location = Location::new("raw.jsonl", Position::Line(1));
/// let validated = validate(&Record { location, bytes }, &Importers::default(), &Severities::default());
/// assert_eq!(validated.dialogues[0].diagnostics[0].code.name(), "unknown-role");
/// ```
pub fn validate<'a>(record: &Record<'a>, importers: &Importers, severities: &Severities) -> Validated<'a> {
    validate_each(record, importers, severities, |_| {})
}

/// Like [`validate`]; with each dialogue the record as its importer gave it, which costs a copy.
pub(crate) fn validate_with_natives<'a>(
    record: &Record<'a>,
    importers: &Importers,
    severities: &Severities,
) -> (Validated<'a>, Vec<Node<'a>>) {
    let mut natives = Vec::new();
    let validated = validate_each(record, importers, severities, |native| natives.push(native.clone()));
    (validated, natives)
}

fn validate_each<'a>(
    record: &Record<'a>,
    importers: &Importers,
    severities: &Severities,
    mut see: impl FnMut(&Node<'a>),
) -> Validated<'a> {
    let mut validated = Validated::default();
    match import(record, importers, &mut validated) {
        Err(diagnostic) => validated.diagnostics.push(diagnostic),
        Ok(natives) => {
            let several = natives.len() > 1;
            for (index, native) in natives.into_iter().enumerate() {
                let place = record.location.key.as_deref().map_or_else(|| record.location.to_string(), str::to_owned);
                let id = if several { format!("{place}#{}", index + 1) } else { place };
                see(&native);
                validated.dialogues.push(check(native, id.into(), severities));
            }
        }
    }
    severities.apply(&mut validated.diagnostics);
    // What is wrong with the record is wrong with all of its dialogues.
    if validated.diagnostics.iter().any(|found| found.severity == Severity::Error) {
        validated.dialogues.iter_mut().for_each(|checked| checked.dialogue = None);
    }
    validated
}

/// The record in native shape, as often as it holds a dialogue.
fn import<'a>(
    record: &Record<'a>,
    importers: &Importers,
    validated: &mut Validated<'a>,
) -> Result<Vec<Node<'a>>, Diagnostic> {
    let parsed = json::parse(record.bytes).map_err(|error| syntax(error, record.bytes))?;
    for range in &parsed.duplicate_keys {
        validated.diagnostics.push(
            Diagnostic::new(Code::DuplicateKey, "the key stands twice in its object; the last value wins").at(range),
        );
    }
    let imported = importers.import(parsed.root, &record.location, &mut validated.format)?;
    validated.diagnostics.extend(imported.notes);
    Ok(imported.dialogues)
}

/// Checks preferences: what was said before, with each of the answers, must be a dialogue.
fn check_preference<'a>(native: &Node<'a>, id: &Cow<'a, str>, severities: &Severities) -> Option<Checked<'a>> {
    let answer = |field: &str| native.get(field).and_then(Node::as_array);
    let whole = |answer: &[Node<'a>]| {
        let mut whole = native.clone();
        if let Json::Object(members) = &mut whole.value {
            members.retain(|member| !["chosen", "rejected", "completion", "label"].contains(&&*member.key));
            for member in members.iter_mut().filter(|member| member.key == "messages") {
                if let Json::Array(messages) = &mut member.node.value {
                    messages.extend(answer.iter().cloned());
                }
            }
        }
        check(whole, id.clone(), severities)
    };
    let asked = answer("messages").map_or(0, <[_]>::len);
    if let (Some(chosen), Some(rejected)) = (answer("chosen"), answer("rejected")) {
        let (mut checked, other) = (whole(chosen), whole(rejected));
        // What is found of the messages before the answers is found twice.
        let further: Vec<_> =
            other.diagnostics.into_iter().filter(|found| !checked.diagnostics.contains(found)).collect();
        checked.diagnostics.extend(further);
        checked.dialogue = checked.dialogue.filter(|_| other.dialogue.is_some());
        checked.judged = other.dialogue.map(|worse| Judged { asked, verdict: Verdict::BetterThan(Box::new(worse)) });
        return Some(checked);
    }
    let label = native.get("label").and_then(Node::as_bool)?;
    let checked = whole(answer("completion")?);
    Some(Checked { judged: Some(Judged { asked, verdict: Verdict::Label(label) }), ..checked })
}

fn check<'a>(native: Node<'a>, id: Cow<'a, str>, severities: &Severities) -> Checked<'a> {
    if let Some(checked) = check_preference(&native, &id, severities) {
        return checked;
    }
    let mut diagnostics = Vec::new();
    let is_named = native.get_some("id").is_some();
    let mut dialogue = match shape::dialogue(native, id, &mut diagnostics) {
        Ok(dialogue) => Some(dialogue),
        Err(diagnostic) => {
            diagnostics.push(diagnostic);
            None
        }
    };
    if let Some(dialogue) = &mut dialogue {
        rules::check(dialogue, &mut diagnostics);
    }
    severities.apply(&mut diagnostics);
    let refused = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    Checked { dialogue: dialogue.filter(|_| !refused), judged: None, diagnostics, is_named }
}

fn syntax(error: JsonError, bytes: &[u8]) -> Diagnostic {
    let place = error.offset..(error.offset + 1).min(bytes.len()).max(error.offset);
    let (code, message, label) = match error.kind {
        JsonErrorKind::Syntax(expected) => {
            (Code::InvalidJson, "the record is not JSON", Some(format!("expected {expected}")))
        }
        JsonErrorKind::Utf8 => (Code::InvalidUtf8, "the record is not UTF-8", Some("first bad byte".to_owned())),
        JsonErrorKind::LoneSurrogate => (Code::LoneSurrogate, "a string holds half of a surrogate pair", None),
        JsonErrorKind::NonFinite => (Code::NonFiniteNumber, "JSON has no such number", None),
        JsonErrorKind::Reserved => {
            (Code::ReservedCharacter, "the record holds a noncharacter that dlgc reserves", None)
        }
        JsonErrorKind::TooDeep => (Code::JsonTooDeep, "the record is nested too deeply", None),
    };
    let mut diagnostic = Diagnostic::new(code, message).at(&place);
    diagnostic.label = label;
    diagnostic
}
