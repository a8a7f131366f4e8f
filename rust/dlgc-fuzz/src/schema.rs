//! Any record: the verdict of the validator is that of `specs/dialogue.schema.json`, as far as the shape goes.

#![no_main]

use std::sync::LazyLock;

use dlgc::diagnostic::{Code, Severities};
use dlgc::dialogue::{Location, Position};
use dlgc::source::Record;
use dlgc::validate::validate;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Codes of the shape: a record has one of them if and only if the schema refuses it.
const SHAPE: [Code; 7] = [
    Code::EmptyDialogue,
    Code::InvalidToolCall,
    Code::UnknownFormat,
    Code::UnknownRole,
    Code::UnsupportedContent,
    Code::UnsupportedWeight,
    Code::WrongType,
];

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../specs/dialogue.schema.json")).expect("the schema is JSON")
});
static VALIDATOR: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::options().build(&SCHEMA).expect("a schema"));

/// JSON in a string is for the application to check, which this one leaves out.
fn has_json_in_a_string(value: &Value) -> bool {
    match value {
        Value::Array(elements) => elements.iter().any(has_json_in_a_string),
        Value::Object(members) => members.iter().any(|(key, value)| {
            value.is_string() && matches!(key.as_str(), "arguments" | "tools") || has_json_in_a_string(value)
        }),
        _ => false,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let location = Location::new("fuzz", Position::Line(1));
    let validated = validate(&Record { location, bytes }, &Severities::default());
    assert_eq!(
        validated.dialogue.is_none(),
        validated.diagnostics.iter().any(|found| found.severity.name() == "error")
    );
    if let Some(dialogue) = &validated.dialogue {
        assert!(dialogue.assistant_turns().next().is_some());
    }
    for diagnostic in &validated.diagnostics {
        assert!(diagnostic.range.as_ref().is_none_or(|range| range.start <= range.end && range.end <= bytes.len()));
    }
    let record = match serde_json::from_slice::<Value>(bytes) {
        Ok(record @ Value::Object(_)) => record,
        _ => return,
    };
    let has = |codes: &[Code]| validated.diagnostics.iter().any(|found| codes.contains(&found.code));
    let is_foreign = record.get("conversations").is_some() || record.get("traj").is_some();
    if is_foreign || has(&[Code::PreferenceRecord, Code::ReservedCharacter]) || has_json_in_a_string(&record) {
        return;
    }
    assert_eq!(!has(&SHAPE), VALIDATOR.is_valid(&record), "{:?}", validated.diagnostics);
});
