//! Every invalid fixture reads as its snapshot says: the diagnostic's code, place, caret and help.

use dlgc::compile::{CompileOptions, Unwatched, check};

#[test]
fn diagnostics_read_as_their_snapshots() {
    insta::glob!("../../../tests/fixtures/dialogues/invalid", "*.jsonl", |path| {
        let options = CompileOptions {
            inputs: vec![path.to_string_lossy().into_owned()],
            // Small limits, so that the fixtures for them are small.
            max_record_bytes: 64 << 10,
            threads: 1,
            ..CompileOptions::default()
        };
        let report = check(&options, &mut Unwatched).expect("the run itself is sound");
        let folder = path.parent().map(|folder| folder.to_string_lossy()).unwrap_or_default().into_owned();
        let rendered: Vec<String> = report
            .diagnostics
            .codes()
            .values()
            .flat_map(|tally| &tally.examples)
            .map(|located| located.rendered.replace(&format!("{folder}/"), ""))
            .collect();
        insta::assert_snapshot!(rendered.join("\n"));
    });
}
