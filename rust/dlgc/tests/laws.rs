//! Laws that hold for every dialogue, on the project's own examples.

use std::path::PathBuf;

use dlgc::compile::{CompileOptions, Compiler};
use dlgc::dialogue::{Location, Position};
use dlgc::source::Record;
use dlgc::template::StateMode;
use dlgc::tokenize::UNTRAINED;

fn records() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/dialogues");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("examples").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    paths
        .iter()
        .flat_map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            let text = std::fs::read_to_string(path).expect("readable");
            text.lines().map(|line| (name.clone(), line.as_bytes().to_vec())).collect::<Vec<_>>()
        })
        .collect()
}

fn for_each_shown(state: StateMode, mut check: impl FnMut(&str, &dlgc::compile::Shown, &Compiler)) {
    let compiler = Compiler::load(&CompileOptions { state, ..CompileOptions::default() }).expect("loads");
    for (name, bytes) in records() {
        let location = Location::new(name.as_str(), Position::Line(1));
        let shown = compiler.show(&Record { location, bytes: &bytes }, 1).expect("the run is sound");
        let shown = shown.unwrap_or_else(|found| panic!("{name}: {found:?}"));
        check(&name, &shown, &compiler);
    }
}

const STATES: [StateMode; 4] = [StateMode::Ignore, StateMode::JsonBefore, StateMode::JsonAfter, StateMode::Context];

#[test]
fn spans_tile_the_text() {
    for state in STATES {
        for_each_shown(state, |name, shown, _| {
            let mut at = 0;
            for span in shown.windows[0].rendered.spans() {
                assert_eq!(span.range.start, at, "{name}");
                assert!(span.range.end > at, "{name}");
                at = span.range.end;
            }
            assert_eq!(at, shown.windows[0].rendered.text.len(), "{name}");
        });
    }
}

#[test]
fn tokens_decode_to_the_text_and_trained_ones_to_the_targets() {
    for_each_shown(StateMode::JsonAfter, |name, shown, compiler| {
        let [example] = shown.windows[0].examples.as_slice() else { panic!("{name}: the template's prompts nest") };
        assert_eq!(
            compiler.tokenizer.decode(&example.input_ids).expect("decodes"),
            shown.windows[0].rendered.text,
            "{name}"
        );
        let targets: String =
            shown.turns.iter().map(|turn| turn.target.as_ref().expect("proved").text.as_str()).collect();
        let trained: Vec<i32> = example.labels.iter().copied().filter(|&label| label != UNTRAINED).collect();
        assert_eq!(compiler.tokenizer.decode(&trained).expect("decodes"), targets, "{name}");
    });
}

#[test]
fn every_trained_turn_follows_exactly_its_prompt() {
    for_each_shown(StateMode::Context, |name, shown, compiler| {
        for turn in &shown.turns {
            let range = turn.target.as_ref().expect("proved").range().expect("shared");
            let prompt = compiler.tokenizer.ids(&shown.windows[0].rendered.text[..range.start]).expect("encodes");
            let example = &shown.windows[0].examples[0];
            assert_eq!(example.input_ids[..prompt.len()], prompt, "{name}");
            assert_ne!(example.labels[prompt.len()], UNTRAINED, "{name}");
            assert!(shown.windows[0].rendered.text[range].ends_with("<|im_end|>"), "{name}");
        }
    });
}

#[test]
fn state_as_json_is_part_of_what_the_assistant_says() {
    let mut states = 0;
    for_each_shown(StateMode::JsonBefore, |_, shown, _| {
        for turn in &shown.turns {
            let target = &turn.target.as_ref().expect("proved").text;
            states += usize::from(target.contains("<state>\n{\"intent\":"));
        }
    });
    assert!(states > 100, "{states}");
}

#[test]
fn state_as_context_is_shown_and_never_trained() {
    let mut shown_states = 0;
    for_each_shown(StateMode::Context, |_, shown, _| {
        for span in shown.windows[0].rendered.spans() {
            let text = &shown.windows[0].rendered.text[span.range];
            assert!(span.trained.is_none() || !text.contains("<state>"));
            shown_states += text.matches("<state>\n{\"intent\":").count();
        }
    });
    assert!(shown_states > 80, "{shown_states}");
}
