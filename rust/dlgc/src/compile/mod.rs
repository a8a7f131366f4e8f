//! The driver: wires the passes, writes the dataset and the report.
//!
//! Records go through the passes on many threads and come back in the order of the input (`pipeline`), so one thread and
//! many give the same bytes. Whenever a shard is whole, how far the run has come is written down beside it (`resume`), and
//! the same compilation goes on from there if it was interrupted.

mod answers;
mod canaries;
mod compiler;
mod convert;
mod lengths;
mod measures;
mod options;
mod outcome;
mod pipeline;
mod repack;
mod report;
mod resume;
mod script;
mod shown;
mod templates;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::diagnostic::Located;
use crate::dialogue::Location;
use crate::error::{Error, ErrorKind, Result};
use crate::import::is_piece;
use crate::pack::Packing;
use crate::shard::{self, Certificate, DatasetWriter, FORMAT, FORMAT_VERSION, Ledger, Manifest, Size, WritePlan};
use crate::source::{self, InputDigest, Item, Reader, Record};
use crate::window::Request;
use pipeline::{Nowhere, Ran, Writing, run};
use repack::{Source, utilisation};
use resume::Start;

pub(crate) use canaries::Sighting;
pub(crate) use outcome::Outcome;

pub use compiler::Compiler;
pub use convert::{Target, convert};
pub use options::{CompileOptions, MaskOption, MaxLength, MaxLengthName, TargetOption, TrainOn};
pub use repack::{RepackOptions, repack};
pub use report::{CompileReport, Progress};
pub use shown::{Shown, ShownAnswers};
pub use templates::Templates;
pub use windows::{Served, Shot, asked};

/// Watches a long run: shows progress, and may stop it.
pub trait Monitor {
    /// Called about ten times a second and once at the end.
    fn tick(&mut self, progress: &Progress) -> ControlFlow<()>;
}

/// A monitor that does nothing.
#[derive(Debug, Clone, Copy)]
pub struct Unwatched;

impl Monitor for Unwatched {
    fn tick(&mut self, _: &Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Compiles inputs into a dataset; goes on where an interrupted run of the same compilation has left whole shards.
///
/// # Errors
/// Anything of [`ErrorKind`]; then nothing was committed. Rejected records are no error: see
/// [`CompileReport::failure`].
pub fn compile(options: &CompileOptions, monitor: &mut dyn Monitor) -> Result<CompileReport> {
    compile_with(options, || Compiler::load(options), monitor)
}

fn compile_with(
    options: &CompileOptions,
    load: impl FnOnce() -> Result<Compiler>,
    monitor: &mut dyn Monitor,
) -> Result<CompileReport> {
    let Some(output) = &options.output else {
        return Err(Error::new(ErrorKind::Options, "no output folder is given"));
    };
    let listing = source::list(&options.inputs)?;
    refuse_output_among_inputs(output, &listing.files)?;
    let mut compiler = load()?;
    compiler.leave_out_texts();
    let total = total_bytes(&listing.files);
    if options.tokenizer.is_none() && total.is_some_and(|total| total > DEMO_BYTES) {
        return Err(Error::new(ErrorKind::Options, "more than 100 MB of input, and no tokenizer is named")
            .hint("`--tokenizer DIR` names your model's; `--tokenizer builtin` insists on the built-in one"));
    }
    let plan = WritePlan {
        root: output.clone(),
        run: resume::digest(options, &compiler, &listing.files),
        shard_tokens: options.shard_tokens,
        overwrite: options.overwrite,
        rows: options.rows,
        packing: options.packing,
        max_length: compiler.max_length,
        tokenizer: &compiler.files.files,
    };
    // Who packs with an eye on all rows of a split must first have them.
    let first = (options.packing == Packing::BfdGlobal).then(|| shard::unpacked(&plan));
    if first.is_some() {
        shard::claim(&plan)?;
    }
    let rows_plan = first.as_ref().unwrap_or(&plan);
    let mut interrupted = DatasetWriter::resume(rows_plan)?;
    loop {
        let (writer, start) = match interrupted.take().map(|(writer, state)| (writer, Start::of(state))) {
            Some((writer, Some(start))) if start.siblings_are_the_same() => (writer, start),
            _ => {
                if first.is_some() {
                    shard::discard(&plan)?;
                }
                (DatasetWriter::create(rows_plan)?, Start::default())
            }
        };
        let resumed = start.records();
        let reader = Reader::new(listing.files.clone(), options.max_record_bytes).joining(is_piece);
        compiler.importers.remember_siblings(start.siblings());
        let mut sink = Writing { writer, importers: &compiler.importers };
        let ran = match run(options.threads, &compiler, reader, total, start, &mut sink, monitor) {
            // With the reference: from the start.
            Err(_) if is_readable_again(&listing.files) && compiler.tokenizer.begin_again() => continue,
            ran => ran?,
        };
        let Some(Ran { tallies, inputs, skipped }) = ran else {
            continue; // the inputs are others than those of the interrupted run: from the start
        };
        let mut written = sink.writer.finish()?;
        if let Some(rows_plan) = &first {
            let mut progress = Progress { bytes_total: total, ..Progress::default() };
            progress.update(total.unwrap_or_default(), &tallies);
            let (folder, is_packed) = (rows_plan.root.as_path(), false);
            let source = Source { folder, shards: &written.shards, files: &written.files, is_packed };
            written = repack::pack(&plan, &source, &mut || monitor.tick(&progress))?;
        }
        let manifest = manifest(options, &compiler, &tallies, &written, inputs)?;
        shard::commit(&plan, &manifest)?;
        let skipped = listing.skipped.into_iter().chain(skipped).collect();
        let mut report = CompileReport::new(options, &compiler, tallies, skipped, Some(manifest));
        report.resumed = resumed;
        return Ok(report);
    }
}

/// Takes inputs through all passes without writing anything.
///
/// # Errors
/// Anything of [`ErrorKind`] but those of the disk.
pub fn check(options: &CompileOptions, monitor: &mut dyn Monitor) -> Result<CompileReport> {
    let listing = source::list(&options.inputs)?;
    let mut compiler = Compiler::load(options)?;
    compiler.leave_out_texts();
    let total = total_bytes(&listing.files);
    let ran = loop {
        let reader = Reader::new(listing.files.clone(), options.max_record_bytes).joining(is_piece);
        match run(options.threads, &compiler, reader, total, Start::default(), &mut Nowhere, monitor) {
            Err(_) if is_readable_again(&listing.files) && compiler.tokenizer.begin_again() => {}
            ran => break ran?,
        }
    };
    let Ran { tallies, skipped, .. } = ran.expect("only an interrupted run can find other inputs");
    let skipped = listing.skipped.into_iter().chain(skipped).collect();
    Ok(CompileReport::new(options, &compiler, tallies, skipped, None))
}

/// Takes inputs through all passes for the summaries that are wanted and not in the cache, in order; one that several
/// windows want may come several times.
///
/// # Errors
/// Anything of [`ErrorKind`] but those of the disk, and those of `each`.
pub fn wanted_summaries(
    options: &CompileOptions,
    each: &mut dyn FnMut(Request) -> Result<()>,
    monitor: &mut dyn Monitor,
) -> Result<()> {
    let listing = source::list(&options.inputs)?;
    let mut compiler = Compiler::load(options)?;
    compiler.ask();
    let total = total_bytes(&listing.files);
    let reader = Reader::new(listing.files, options.max_record_bytes).joining(is_piece);
    let mut take = |_: &Record<'_>, outcome: Outcome, _: &[Located]| {
        outcome.dialogues.into_iter().flat_map(|compiled| compiled.requests).try_for_each(&mut *each)
    };
    run(options.threads, &compiler, reader, total, Start::default(), &mut take, monitor)?;
    Ok(())
}

/// Takes files through all passes once more, and hands over what becomes of each record, in order.
///
/// # Errors
/// Those of the passes, and those of `each`.
pub(crate) fn again(
    compiler: &Compiler,
    reader: Reader,
    total: Option<u64>,
    each: &mut dyn FnMut(&Record<'_>, &Outcome) -> Result<()>,
    monitor: &mut dyn Monitor,
) -> Result<(Ledger, Certificate)> {
    let mut take = |record: &Record<'_>, outcome: Outcome, _: &[Located]| each(record, &outcome);
    let ran = run(0, compiler, reader, total, Start::default(), &mut take, monitor)?;
    let tallies = ran.expect("only an interrupted run can find other inputs").tallies;
    let certificate = tallies.certificate(compiler);
    Ok((tallies.ledger, certificate))
}

/// Finds one record of a file: its line, or its element in an array, an object or a table. A member of an archive is
/// named `archive!member`.
///
/// # Errors
/// [`ErrorKind::Io`] where the file cannot be read, [`ErrorKind::Options`] where it has no such record.
pub fn find_record(options: &CompileOptions, path: &str, number: u64) -> Result<(Location, Vec<u8>)> {
    let stored = stored_file(path);
    if !stored.exists() {
        return Err(Error::io(stored, source::no_such_file()));
    }
    let (mut found, mut fault, mut seen, mut members) = (None, None, 0, BTreeSet::new());
    Reader::new(vec![stored.to_owned()], options.max_record_bytes).joining(is_piece).read(&mut |item| {
        match item {
            Item::Chunk(chunk) if *chunk.file == *path => {
                for (record, _) in chunk.iter() {
                    seen += 1;
                    if record.location.position.number() == number {
                        found = Some((record.location.clone(), record.bytes.to_vec()));
                        return ControlFlow::Break(());
                    }
                }
            }
            Item::Chunk(chunk) => {
                members.insert(chunk.file.to_string());
            }
            Item::Fault(found) => fault = fault.take().or(Some(found.diagnostic)),
            Item::Skipped(_) => {}
        }
        ControlFlow::Continue(())
    });
    if let Some(found) = found {
        return Ok(found);
    }
    if let Some(member) = members.first().filter(|_| seen == 0) {
        let message = format!("`{path}` has {} member(s) with records, and names none of them", members.len());
        return Err(Error::new(ErrorKind::Options, message).hint(format!("the first one is `{member}`")));
    }
    if let Some(fault) = fault {
        return Err(Error::new(ErrorKind::Shard, format!("`{path}`: {}", fault.message)));
    }
    Err(Error::new(ErrorKind::Options, format!("`{path}` has no record {number}; it has {seen}")))
}

/// The file on the disk of `archive!member`, or the path itself.
fn stored_file(path: &str) -> &Path {
    let archives = path.match_indices('!').map(|(at, _)| Path::new(&path[..at]));
    if Path::new(path).exists() {
        return Path::new(path);
    }
    archives.into_iter().find(|archive| archive.is_file()).unwrap_or(Path::new(path))
}

/// How much the built-in tokenizer compiles without being asked for by name.
const DEMO_BYTES: u64 = 100_000_000;

/// Reading the dataset that is being written would never end.
fn refuse_output_among_inputs(output: &Path, files: &[PathBuf]) -> Result<()> {
    let Ok(output) = output.canonicalize() else {
        return Ok(());
    };
    let inside = files.iter().find(|file| file.canonicalize().is_ok_and(|file| file.starts_with(&output)));
    match inside {
        Some(file) => {
            let message = format!("the input `{}` lies in the output folder", file.display());
            Err(Error::new(ErrorKind::Options, message).hint("name another output folder"))
        }
        None => Ok(()),
    }
}

/// Whether a run can begin again: what a pipe gave is gone.
fn is_readable_again(files: &[PathBuf]) -> bool {
    files.iter().all(|file| file.is_file())
}

fn total_bytes(files: &[PathBuf]) -> Option<u64> {
    files
        .iter()
        .map(|file| if file.as_os_str() == "-" { None } else { Some(file.metadata().map_or(0, |m| m.len())) })
        .sum()
}

fn manifest(
    options: &CompileOptions,
    compiler: &Compiler,
    tallies: &report::Tallies,
    written: &shard::Written,
    inputs: Vec<InputDigest>,
) -> Result<Manifest> {
    let digest = |bytes: &[u8]| crate::hex(&Sha256::digest(bytes));
    let semantic = options.semantic(compiler.max_length);
    let mut digests: BTreeMap<String, String> = [
        ("tokenizer".to_owned(), compiler.tokenizer.digest().to_owned()),
        ("options".to_owned(), digest(semantic.to_string().as_bytes())),
    ]
    .into();
    for (name, template) in compiler.templates.iter() {
        digests.insert(name.to_owned(), digest(template.source().as_bytes()));
    }
    let versions =
        [("dlgc", crate::VERSION), ("tokenizers", "0.23.2"), ("minijinja", "3.1.0"), ("semantics", "hf-0.23")];
    Ok(Manifest {
        format: FORMAT.to_owned(),
        format_version: FORMAT_VERSION,
        demo: options.tokenizer.is_none(),
        versions: versions.map(|(name, version)| (name.to_owned(), version.to_owned())).into(),
        digests,
        options: semantic,
        max_length: compiler.max_length,
        vocabulary_size: compiler.tokenizer.vocabulary_size() as u64,
        encoding: Some(compiler.tokenizer.path()),
        stops: compiler.stops(),
        stop_ids: compiler.stop_ids.clone(),
        inputs,
        siblings: compiler.importers.siblings(),
        shards: written.shards.clone(),
        files: written.files.clone(),
        splits: written.splits.clone(),
        formats: tallies.formats.clone(),
        ledger: tallies.ledger.clone(),
        windows: tallies.windows,
        faults: tallies.faults.clone(),
        certificate: Some(tallies.certificate(compiler).in_rows(Size::sum(written.splits.values()))),
        utilisation: utilisation(written, compiler.max_length),
        answers: tallies.answers.lengths(),
        diagnostics: tallies.tally.counts().into_iter().map(|(code, count)| (code.to_owned(), count)).collect(),
        canaries: compiler.canaries()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(folder: &Path, name: &str, is_spoiled: bool, strict: bool) -> CompileReport {
        let input = folder.join("chats.jsonl");
        let answers = ["quiz", "jazz and quartz", "plain"];
        let line = |answer: &&str| {
            let messages =
                serde_json::json!([{"role": "user", "content": "say it"}, {"role": "assistant", "content": answer}]);
            serde_json::json!({"messages": messages}).to_string() + "\n"
        };
        std::fs::write(&input, answers.iter().map(line).collect::<String>()).expect("written");
        let tokenizer = folder.join("tokenizer");
        std::fs::create_dir_all(&tokenizer).expect("a folder");
        for (name, mut bytes) in crate::tokenize::TokenizerFiles::builtin().files {
            if name == "tokenizer.json" {
                // The built-in one, with a pre-tokenizer that is known.
                let mut json: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
                json["pre_tokenizer"] = serde_json::json!({
                    "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true
                });
                bytes = json.to_string().into_bytes();
            }
            std::fs::write(tokenizer.join(name), bytes).expect("written");
        }
        let options = CompileOptions {
            inputs: vec![input.to_string_lossy().into_owned()],
            output: Some(folder.join(name)),
            tokenizer: Some(tokenizer.to_string_lossy().into_owned()),
            strict,
            ..CompileOptions::default()
        };
        let load = || {
            let mut compiler = Compiler::load(&options)?;
            if is_spoiled {
                compiler.tokenizer.spoil();
            }
            Ok(compiler)
        };
        compile_with(&options, load, &mut Unwatched).expect("compiled")
    }

    #[test]
    fn a_run_whose_fast_path_errs_begins_again_with_the_reference_and_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let whole = compiled(folder.path(), "whole", false, false);
        let spoiled = compiled(folder.path(), "spoiled", true, false);
        let encoding = |report: &CompileReport| {
            let manifest = report.manifest.as_ref().expect("a manifest");
            manifest.encoding.clone().expect("a path")
        };
        let shards = |report: &CompileReport| {
            let shards = report.manifest.iter().flat_map(|manifest| &manifest.shards);
            shards.map(|shard| shard.file.blake3.clone()).collect::<Vec<_>>()
        };
        assert!(encoding(&whole).fast.is_some());
        assert_eq!(shards(&whole), shards(&spoiled), "the rows are the reference's");
        let found = encoding(&spoiled);
        let difference = found.difference.expect("a difference");
        assert_eq!(found.fast, None);
        assert!(["q", "z"].contains(&difference.text.as_str()), "the shortest text that shows it: {difference}");
        assert_eq!(spoiled.failure, None);
        let strict = compiled(folder.path(), "strict", true, true);
        assert!(strict.failure.is_some_and(|why| why.contains("the fast tokeniser")));
    }
}
