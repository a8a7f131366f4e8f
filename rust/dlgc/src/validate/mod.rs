//! Checking is conversion: a record of the native shape becomes a [`Dialogue`], or diagnostics say why not.
//!
//! In: the bytes of a record (parsed and imported here, so that there is one door). Out: [`Validated`]. The shape is
//! the one of `specs/dialogue.schema.json`; the rules beyond it (calls and their results, something to train) are in
//! `rules`. All findings of a record are collected; the record is refused if one of them is an error.

mod rules;
mod shape;

pub(crate) use shape::RESERVED_ARGUMENTS;

use crate::diagnostic::{Code, Diagnostic, Severities, Severity};
use crate::dialogue::Dialogue;
use crate::import;
use crate::json::{self, JsonError, JsonErrorKind};
use crate::source::Record;

/// What became of a record.
#[derive(Debug)]
pub struct Validated<'a> {
    /// The dialogue; `None` if a diagnostic is an error.
    pub dialogue: Option<Dialogue<'a>>,
    /// The format that the record had; `None` if none was recognised.
    pub format: Option<&'static str>,
    /// Everything found.
    pub diagnostics: Vec<Diagnostic>,
}

/// Turns a record into a dialogue that cannot be wrong.
///
/// ```
/// use dlgc::diagnostic::Severities;
/// use dlgc::dialogue::{Location, Position};
/// use dlgc::source::Record;
/// use dlgc::validate::validate;
/// let bytes = br#"{"messages": [{"role": "user", "content": "hi"}, {"role": "bot", "content": "hello"}]}"#;
/// let location = Location::new("raw.jsonl", Position::Line(1));
/// let validated = validate(&Record { location, bytes }, &Severities::default());
/// assert_eq!(validated.diagnostics[0].code.name(), "unknown-role");
/// ```
pub fn validate<'a>(record: &Record<'a>, severities: &Severities) -> Validated<'a> {
    let mut diagnostics = Vec::new();
    let mut format = None;
    let dialogue = convert(record, &mut format, &mut diagnostics);
    if let Err(diagnostic) = dialogue {
        diagnostics.push(diagnostic);
        severities.apply(&mut diagnostics);
        return Validated { dialogue: None, format, diagnostics };
    }
    severities.apply(&mut diagnostics);
    let refused = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    Validated { dialogue: dialogue.ok().filter(|_| !refused), format, diagnostics }
}

fn convert<'a>(
    record: &Record<'a>,
    format: &mut Option<&'static str>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Dialogue<'a>, Diagnostic> {
    let parsed = json::parse(record.bytes).map_err(|error| syntax(error, record.bytes))?;
    for range in &parsed.duplicate_keys {
        diagnostics.push(
            Diagnostic::new(Code::DuplicateKey, "the key stands twice in its object; the last value wins").at(range),
        );
    }
    let (name, native) = import::import(parsed.root)?;
    *format = Some(name);
    let mut dialogue = shape::dialogue(native, &record.location, diagnostics)?;
    rules::check(&mut dialogue, diagnostics);
    Ok(dialogue)
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
