//! Every invalid fixture reads as its snapshot says: the diagnostic's code, place, caret and help.

use std::path::Path;

use dlgc::compile::{CompileOptions, Unwatched, check};
use dlgc::shard::RowKind;

#[test]
fn diagnostics_read_as_their_snapshots() {
    insta::glob!("../../../tests/fixtures/dialogues/invalid", "*.jsonl", |path| {
        insta::assert_snapshot!(rendered(path, RowKind::Sft));
    });
}

#[test]
fn diagnostics_of_preferences_read_as_their_snapshots() {
    insta::glob!("../../../tests/fixtures/preferences/invalid", "*.jsonl", |path| {
        insta::assert_snapshot!(rendered(path, RowKind::Preference));
    });
}

#[test]
fn texts_without_json_read_as_their_snapshots() {
    insta::glob!("../../../tests/fixtures/texts", "*.txt", |path| {
        insta::assert_snapshot!(rendered(path, RowKind::Sft));
    });
}

/// What is said of a file.
fn rendered(path: &Path, rows: RowKind) -> String {
    let options = CompileOptions {
        inputs: vec![path.to_string_lossy().into_owned()],
        rows,
        // Small limits, so that the fixtures for them are small.
        max_record_bytes: 64 << 10,
        threads: 1,
        ..CompileOptions::default()
    };
    let report = check(&options, &mut Unwatched).expect("the run itself is sound");
    let folder = path.parent().map(|folder| folder.to_string_lossy()).unwrap_or_default().into_owned();
    let examples = report.diagnostics.codes().values().flat_map(|tally| &tally.examples);
    let rendered: Vec<String> = examples.map(|located| located.rendered.replace(&format!("{folder}/"), "")).collect();
    rendered.join("\n")
}
