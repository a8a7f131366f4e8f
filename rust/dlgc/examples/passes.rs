//! Times the passes of a compilation, one by one: `cargo run --release --example passes -- OPTIONS [LAST]`.
//!
//! In: the options of a compilation as one JSON object, as `specs/options.schema.json` has them, and the last pass that
//! is of interest, if that is not all of them: so a profile shows what comes before tokenising. Out: one JSON object:
//! `seconds` by pass, the `load` of tokenizer and template, the `whole` of a real compilation with one worker, and what
//! it was of (`bytes`, `dialogues`, `rows`, `tokens`, `trained`). Chunks go through the passes one after the other, each
//! chunk through one pass at a time, so what a pass costs is what it costs in a run; what remains of the whole (split,
//! ledger, hand-over between threads, manifest) is no pass. Options under which a dialogue has several windows are
//! refused: their plan renders and counts inside itself.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dlgc::compile::{CompileOptions, Compiler, MaskOption, TargetOption, Unwatched, compile};
use dlgc::error::{Error, ErrorKind, Result};
use dlgc::json;
use dlgc::shard::{DatasetWriter, Provenance, Row, WritePlan};
use dlgc::source::{Chunk, Item, Reader, list};
use dlgc::template::{Mode, Rendered};
use dlgc::tokenize::{Example, Mask, forget_tokenizer};
use dlgc::validate::validate;
use dlgc::window::WindowMode;

/// As in the extension.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The passes, in the order of the data.
const NAMES: [&str; 7] =
    ["read", "parse", "import, validate", "render, prove", "tokenise", "decode, hash", "pack, write"];

/// Time by pass.
#[derive(Default)]
struct Passes {
    read: Duration,
    parse: Duration,
    import_and_validate: Duration,
    render_and_prove: Duration,
    tokenise: Duration,
    hash: Duration,
    pack_and_write: Duration,
}

/// What went through them.
#[derive(Default)]
struct Counts {
    bytes: u64,
    dialogues: u64,
    rows: u64,
    tokens: u64,
    trained: u64,
}

/// Takes a chunk through the passes; what is refused on the way is left out, as a compilation would.
fn take(
    chunk: &Chunk,
    options: &CompileOptions,
    last: &str,
    compiler: &Compiler,
    writer: &mut DatasetWriter,
    passes: &mut Passes,
    counts: &mut Counts,
) -> Result<()> {
    let ends_after = |pass: &str| last == pass;
    counts.bytes += chunk.bytes.len() as u64;
    if ends_after("read") {
        return Ok(());
    }
    let records: Vec<_> = chunk.iter().filter(|(_, fault)| fault.is_none()).map(|(record, _)| record).collect();

    let start = Instant::now();
    records.iter().for_each(|record| drop(json::parse(record.bytes)));
    let parse = start.elapsed();
    passes.parse += parse;
    if ends_after("parse") {
        return Ok(());
    }

    // Validation parses once more: there is one door.
    let start = Instant::now();
    let checked: Vec<_> = records
        .iter()
        .flat_map(|record| validate(record, &compiler.importers, &compiler.severities).dialogues)
        .collect();
    passes.import_and_validate += start.elapsed().saturating_sub(parse);
    if ends_after("import, validate") {
        return Ok(());
    }

    let mode = match (options.mask, options.target) {
        (MaskOption::Exact, TargetOption::Inference) => Mode::Prove,
        (MaskOption::Exact, TargetOption::Template) => Mode::Whole,
        _ => Mode::Blocks,
    };
    let start = Instant::now();
    let mut rendered: Vec<(String, Rendered)> = Vec::with_capacity(checked.len());
    for mut dialogue in checked.into_iter().filter_map(|checked| checked.dialogue) {
        compiler.tokenizer.guard(&mut dialogue, &mut Vec::new());
        if let Ok(found) = compiler.templates.of(&dialogue).render(&dialogue, mode) {
            rendered.push((dialogue.id.into_owned(), found));
        }
    }
    passes.render_and_prove += start.elapsed();
    if ends_after("render, prove") {
        return Ok(());
    }

    let mask = match options.mask {
        MaskOption::Exact if options.target == TargetOption::Template => Mask::Whole,
        MaskOption::Exact => Mask::Exact,
        MaskOption::Template => Mask::Template,
        MaskOption::HfCompat => Mask::HfCompat,
    };
    let start = Instant::now();
    let mut examples: Vec<(String, Example)> = Vec::with_capacity(rendered.len());
    for (id, mut rendered) in rendered {
        let found = compiler.tokenizer.examples(&mut rendered, mask, None)?;
        examples.extend(found.into_iter().map(|example| (id.clone(), example)));
    }
    let tokenise = start.elapsed();
    if ends_after("tokenise") {
        passes.tokenise += tokenise;
        return Ok(());
    }

    // Tokenising hashes what it made; done once more, to tell the one from the other.
    let start = Instant::now();
    for (_, example) in &mut examples {
        compiler.tokenizer.hash(example)?;
    }
    let hash = start.elapsed();
    passes.tokenise += tokenise.saturating_sub(hash);
    passes.hash += hash;

    let start = Instant::now();
    for (_, example) in &mut examples {
        if compiler.max_length.is_some_and(|budget| example.input_ids.len() as u64 > budget) {
            example.truncate(compiler.max_length.map_or(usize::MAX, |budget| budget as usize), false);
            compiler.tokenizer.hash(example)?;
        }
    }
    examples.retain(|(_, example)| example.labels.iter().any(|&label| label != dlgc::tokenize::UNTRAINED));
    passes.hash += start.elapsed();
    if ends_after("decode, hash") {
        return Ok(());
    }

    counts.dialogues += examples.len() as u64;
    let start = Instant::now();
    for (dialogue_id, example) in examples {
        counts.tokens += example.input_ids.len() as u64;
        counts.trained += example.labels.iter().filter(|&&label| label != dlgc::tokenize::UNTRAINED).count() as u64;
        let provenance = Provenance {
            dialogue_id,
            file: chunk.file.to_string(),
            trained_messages: example.trained_messages,
            text_hash: example.text_hash,
            target_hash: example.target_hash,
            ..Provenance::default()
        };
        let provenance = vec![provenance];
        let row = Row { input_ids: example.input_ids, labels: example.labels, provenance, ..Row::default() };
        writer.row("train", row)?;
    }
    writer.close_full_shards()?;
    passes.pack_and_write += start.elapsed();
    Ok(())
}

fn measure(options: &CompileOptions, last: &str) -> Result<String> {
    let refuse = |message: &str| Err(Error::new(ErrorKind::Options, message.to_owned()));
    let Some(output) = &options.output else { return refuse("`output` is missing: the folder that is written") };
    if !NAMES.contains(&last) {
        return refuse(&format!("`{last}` is no pass; there are {}", NAMES.join("; ")));
    }
    let mut whole = None;
    if last == NAMES[NAMES.len() - 1] {
        let whole_output = output.with_extension("whole");
        let whole_options = CompileOptions { threads: 1, output: Some(whole_output), ..options.clone() };
        let start = Instant::now();
        compile(&whole_options, &mut Unwatched)?;
        whole = Some(start.elapsed().as_secs_f64());
        forget_tokenizer(); // the passes begin cold too
    }

    let start = Instant::now();
    let compiler = Compiler::load(options)?;
    let load = start.elapsed();
    if options.window != WindowMode::Truncate && compiler.max_length.is_some() {
        return refuse("`window` must be `truncate`, or `max_length` `none`");
    }
    let plan = WritePlan {
        root: output.clone(),
        run: String::new(),
        shard_tokens: options.shard_tokens,
        overwrite: options.overwrite,
        rows: options.rows,
        packing: options.packing,
        max_length: compiler.max_length,
        tokenizer: &compiler.files.files,
    };
    let mut writer = DatasetWriter::create(&plan)?;
    let (mut passes, mut counts, mut failed) = (Passes::default(), Counts::default(), None);
    let reader = Reader::new(list(&options.inputs)?.files, options.max_record_bytes);
    let mut since = Instant::now();
    reader.read(&mut |item| {
        passes.read += since.elapsed();
        if let Item::Chunk(chunk) = item {
            failed = take(&chunk, options, last, &compiler, &mut writer, &mut passes, &mut counts).err();
        }
        since = Instant::now();
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    passes.read += since.elapsed();
    if let Some(error) = failed {
        return Err(error);
    }
    let start = Instant::now();
    let written = writer.finish()?;
    passes.pack_and_write += start.elapsed();
    counts.rows = written.splits.values().map(|size| size.rows).sum();

    let Passes { read, parse, import_and_validate, render_and_prove, tokenise, hash, pack_and_write } = passes;
    let times = [read, parse, import_and_validate, render_and_prove, tokenise, hash, pack_and_write];
    let seconds: serde_json::Map<_, _> =
        NAMES.iter().zip(times).map(|(pass, time)| ((*pass).to_owned(), time.as_secs_f64().into())).collect();
    let Counts { bytes, dialogues, rows, tokens, trained } = counts;
    let report = serde_json::json!({
        "seconds": seconds, "load": load.as_secs_f64(), "whole": whole, "bytes": bytes,
        "dialogues": dialogues, "rows": rows, "tokens": tokens, "trained": trained,
    });
    Ok(report.to_string())
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the report is what the example is for")]
fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let options = arguments.next().unwrap_or_default();
    let last = arguments.next().unwrap_or_else(|| NAMES[NAMES.len() - 1].to_owned());
    match CompileOptions::from_json(&options).and_then(|options| measure(&options, &last)) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
