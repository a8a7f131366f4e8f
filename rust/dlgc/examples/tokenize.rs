//! Times a tokenizer alone on real text, and compares it with the reference.
//!
//! ```text
//! cargo run --release --example tokenize -- TOKENIZER TEXTS [--threads N] [--megabytes N] [--passes N] [--reference] [--check]
//! ```
//!
//! `TEXTS` is JSONL, of each line of which all texts below `messages` or `conversations` are one text, or a file whose
//! lines are texts. Each pass makes the ids of all of them; the first one has a cold cache. With `--check` ids and offsets
//! of each text are compared with the reference's, and the first difference is printed. One line of JSON a pass goes to
//! stdout.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dlgc::tokenize::{Tokenizer, TokenizerFiles};
use serde_json::{Value, json};

/// As in the extension.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Texts whose ids come into one list.
const BATCH: usize = 100;

struct Options {
    tokenizer: String,
    texts: String,
    threads: usize,
    bytes: usize,
    passes: usize,
    reference: bool,
    check: bool,
}

fn options() -> Option<Options> {
    let mut paths = Vec::new();
    let mut options = Options {
        tokenizer: String::new(),
        texts: String::new(),
        threads: 1,
        bytes: usize::MAX,
        passes: 1,
        reference: false,
        check: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next()?.parse::<usize>().ok();
        match argument.as_str() {
            "--threads" => options.threads = number()?,
            "--megabytes" => options.bytes = number()? * 1_000_000,
            "--passes" => options.passes = number()?,
            "--reference" => options.reference = true,
            "--check" => options.check = true,
            _ => paths.push(argument),
        }
    }
    [options.tokenizer, options.texts] = paths.try_into().ok()?;
    Some(options)
}

/// All texts of a record, each on lines of its own.
fn said(value: &Value, out: &mut String) {
    match value {
        Value::Array(elements) => elements.iter().for_each(|element| said(element, out)),
        Value::Object(members) => {
            for name in ["content", "value"] {
                if let Some(Value::String(text)) = members.get(name) {
                    out.push_str(text);
                    out.push('\n');
                }
            }
        }
        _ => {}
    }
}

fn read(options: &Options) -> std::io::Result<Vec<String>> {
    let bytes = std::fs::read(&options.texts)?;
    let text = String::from_utf8_lossy(&bytes);
    let is_json = Path::new(&options.texts).extension().is_some_and(|extension| extension == "jsonl");
    let mut texts = Vec::new();
    let mut total = 0;
    for line in text.lines() {
        let text = match serde_json::from_str::<Value>(line) {
            Ok(record) if is_json => {
                let mut text = String::new();
                for name in ["messages", "conversations"] {
                    said(&record[name], &mut text);
                }
                text
            }
            _ => line.to_owned(),
        };
        total += text.len();
        if total > options.bytes {
            break;
        }
        texts.push(text);
    }
    Ok(texts)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("usage: tokenize TOKENIZER TEXTS [--threads N] [--megabytes N] [--passes N] [--reference] [--check]");
        return ExitCode::from(2);
    };
    let files = TokenizerFiles::load(Path::new(&options.tokenizer)).expect("a tokenizer");
    let start = Instant::now();
    let load = if options.reference { Tokenizer::load_reference } else { Tokenizer::load };
    let tokenizer = load(&files).expect("a tokenizer that can be read");
    let loaded = start.elapsed().as_secs_f64();
    // The reference is read beside the work where a tokenizer was tested before; here it would be in the way.
    tokenizer.ready().expect("the reference");
    let texts = read(&options).expect("texts");
    let bytes: usize = texts.iter().map(String::len).sum();
    if options.check {
        return check(&files, &tokenizer, &texts);
    }
    for pass in 0..options.passes {
        let (next, tokens) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..options.threads {
                scope.spawn(|| {
                    while let Some(batch) = texts.chunks(BATCH).nth(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut ids = Vec::new();
                        batch.iter().for_each(|text| tokenizer.append_ids(text, &mut ids).expect("encoded"));
                        tokens.fetch_add(std::hint::black_box(ids).len(), Ordering::Relaxed);
                    }
                });
            }
        });
        let seconds = start.elapsed().as_secs_f64();
        let line = json!({
            "pass": pass, "load_seconds": loaded, "texts": texts.len(), "bytes": bytes, "tokens": tokens.load(Ordering::Relaxed),
            "threads": options.threads, "seconds": seconds, "mb_per_s": bytes as f64 / seconds / 1e6,
            "path": tokenizer.path(),
        });
        println!("{line}");
    }
    ExitCode::SUCCESS
}

/// Compares every text's ids and offsets with those of the reference.
fn check(files: &TokenizerFiles, tokenizer: &Tokenizer, texts: &[String]) -> ExitCode {
    let reference = Tokenizer::load_reference(files).expect("a tokenizer that can be read");
    let mut different = 0;
    for text in texts {
        let (found, expected) = (tokenizer.untrained(text, &[], None), reference.untrained(text, &[], None));
        let (found, expected) = (found.expect("encoded"), expected.expect("encoded"));
        if found != expected {
            different += 1;
            let pairs = |example: &dlgc::tokenize::Example| -> Vec<(i32, (usize, usize))> {
                example.input_ids.iter().copied().zip(example.offsets.iter().copied()).collect()
            };
            let (found, expected) = (pairs(&found), pairs(&expected));
            let at = found.iter().zip(&expected).take_while(|(found, expected)| found == expected).count();
            if different == 1 {
                let (found, expected) = (found.get(at..), expected.get(at..));
                let few = |pairs: Option<&[(i32, (usize, usize))]>| {
                    pairs.unwrap_or_default().iter().take(4).copied().collect::<Vec<_>>()
                };
                eprintln!("token {at} of {text:.200?}: {:?}, the reference has {:?}", few(found), few(expected));
            }
        }
    }
    println!("{}", json!({"texts": texts.len(), "different": different, "path": tokenizer.path()}));
    if different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
