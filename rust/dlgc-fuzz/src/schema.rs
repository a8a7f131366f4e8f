//! Any record: the verdict of the validator is that of `specs/dialogue.schema.json`, as far as the shape goes.

#![no_main]

use std::sync::LazyLock;

use dlgc::diagnostic::{Code, Severities};
use dlgc::dialogue::{Location, Position};
use dlgc::import::Importers;
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
static IMPORTERS: LazyLock<Importers> = LazyLock::new(Importers::default);
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
    let validated = validate(&Record { location, bytes }, &IMPORTERS, &Severities::default());
    for checked in &validated.dialogues {
        let failed = checked.diagnostics.iter().any(|found| found.severity.name() == "error");
        assert_eq!(checked.dialogue.is_none(), failed);
        assert!(checked.dialogue.as_ref().is_none_or(|dialogue| dialogue.assistant_turns().next().is_some()));
    }
    let findings = || validated.diagnostics.iter().chain(validated.dialogues.iter().flat_map(|checked| &checked.diagnostics));
    for diagnostic in findings() {
        assert!(diagnostic.range.as_ref().is_none_or(|range| range.start <= range.end && range.end <= bytes.len()));
    }
    let record = match serde_json::from_slice::<Value>(bytes) {
        Ok(record @ Value::Object(_)) => record,
        _ => return,
    };
    let has = |codes: &[Code]| findings().any(|found| codes.contains(&found.code));
    // Of other formats the schema says nothing, but that they are not the native one.
    let is_foreign = validated.format.as_deref().is_some_and(|format| format != "messages")
        || record.get("conversations").is_some();
    if is_foreign || has(&[Code::PreferenceRecord, Code::ReservedCharacter]) || has_json_in_a_string(&record) {
        return;
    }
    assert_eq!(!has(&SHAPE), VALIDATOR.is_valid(&record), "{:?}", findings().collect::<Vec<_>>());
});
