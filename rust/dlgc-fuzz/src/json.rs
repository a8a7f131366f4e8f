//! Any bytes as a record: the parser takes what `serde_json` takes, and reads the same of it.

#![no_main]

use dlgc::json::{self, Json, JsonErrorKind, Node};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// How deep brackets nest, at most; `serde_json` stops at 128.
fn depth(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count()
}

fn same(node: &Node<'_>, value: &Value) {
    match (&node.value, value) {
        (Json::Null, Value::Null) => {}
        (Json::Bool(ours), Value::Bool(theirs)) => assert_eq!(ours, theirs),
        (Json::Number(ours), Value::Number(theirs)) => {
            assert_eq!(
                ours.replace("E", "e").replace("e+", "e"),
                theirs.to_string().replace("E", "e").replace("e+", "e")
            );
        }
        (Json::String(ours), Value::String(theirs)) => assert_eq!(ours, theirs),
        (Json::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len());
            ours.iter().zip(theirs).for_each(|(ours, theirs)| same(ours, theirs));
        }
        (Json::Object(ours), Value::Object(theirs)) => {
            assert_eq!(ours.len(), theirs.len());
            for (ours, (key, theirs)) in ours.iter().zip(theirs) {
                assert_eq!(ours.key, *key);
                same(&ours.node, theirs);
            }
        }
        (ours, theirs) => panic!("{ours:?} beside {theirs:?}"),
    }
}

fn ranges(node: &Node<'_>, bytes: &[u8]) {
    let again = json::parse(&bytes[node.range.clone()]).expect("a value is JSON by itself");
    assert_eq!(json::dumps(&again.root), json::dumps(node));
}

fuzz_target!(|bytes: &[u8]| {
    let ours = json::parse(bytes);
    if depth(bytes) > 120 {
        return;
    }
    let theirs = serde_json::from_slice::<Value>(bytes);
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            same(&ours.root, &theirs);
            // What is written is read again as the same.
            let text = json::dumps(&ours.root);
            if !text.contains("Infinity") {
                let again = json::parse(text.as_bytes()).expect("dumps writes JSON");
                assert_eq!(json::dumps(&again.root), text);
            }
            match &ours.root.value {
                Json::Array(elements) => elements.iter().for_each(|element| ranges(element, bytes)),
                Json::Object(members) => members.iter().for_each(|member| ranges(&member.node, bytes)),
                _ => {}
            }
        }
        (Err(error), theirs) => {
            assert!(error.offset <= bytes.len());
            let ours_alone = matches!(error.kind, JsonErrorKind::Reserved | JsonErrorKind::TooDeep);
            assert!(theirs.is_err() || ours_alone, "refused by dlgc alone: {error:?}");
        }
        (Ok(_), Err(error)) => panic!("taken by dlgc alone: {error}"),
    }
});
