//! The driver: wires the passes, owns the threads, keeps the order, writes the report.
//!
//! A reader cuts files into chunks; workers take chunks through all passes; the calling thread puts the results back
//! into input order and writes them. The number of chunks on the way is bounded, so memory is; the order of results
//! is that of the input, so one thread and many give the same bytes.

mod canaries;
mod compiler;
mod options;
mod report;
mod templates;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use sha2::{Digest, Sha256};

use crate::diagnostic::{Code, Diagnostic, Located, Severity, locate};
use crate::dialogue::{Location, Position};
use crate::error::{Error, ErrorKind, Result};
use crate::shard::{self, Certificate, DatasetWriter, FORMAT, FORMAT_VERSION, Input, Ledger, Manifest};
use crate::source::{self, Chunk, Fault, Reader, Record};

pub(crate) use canaries::Sighting;
pub(crate) use compiler::Outcome;

pub use compiler::{Compiler, Shown};
pub use options::{CompileOptions, MaskOption, MaxLength, MaxLengthName, TargetOption, TrainOn};
pub use report::{CompileReport, Progress};
pub use templates::Templates;

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

/// Compiles inputs into a dataset.
///
/// # Errors
/// Anything of [`ErrorKind`]; then nothing was committed. Rejected records are no error: see
/// [`CompileReport::failure`].
pub fn compile(options: &CompileOptions, monitor: &mut dyn Monitor) -> Result<CompileReport> {
    let Some(output) = &options.output else {
        return Err(Error::new(ErrorKind::Options, "no output folder is given"));
    };
    let listing = source::list(&options.inputs)?;
    refuse_output_among_inputs(output, &listing.files)?;
    let compiler = Compiler::load(options)?;
    let total = total_bytes(&listing.files);
    if options.tokenizer.is_none() && total.is_some_and(|total| total > DEMO_BYTES) {
        return Err(Error::new(ErrorKind::Options, "more than 100 MB of input, and no tokenizer is named")
            .hint("`--tokenizer DIR` names your model's; `--tokenizer builtin` insists on the built-in one"));
    }
    let mut writer = DatasetWriter::create(output, options.overwrite, &compiler.files.files)?;
    let mut take = |record: &Record<'_>, outcome: Outcome, rejected: &[Located]| {
        let split = outcome.split().to_owned();
        if let Some(dialogue) = outcome.dialogue {
            writer.dialogue(dialogue)?;
        }
        if outcome.rows.is_empty() {
            return writer.reject(&record.location, record.bytes, rejected);
        }
        outcome.rows.into_iter().try_for_each(|row| writer.row(&split, row))
    };
    let reader = Reader::new(listing.files, options.max_record_bytes);
    let (tallies, inputs) = run(options.threads, &compiler, reader, total, &mut take, monitor)?;
    let manifest = manifest(options, &compiler, &tallies, &writer.finish()?, inputs)?;
    shard::commit(output, &manifest)?;
    Ok(CompileReport::new(options, &compiler, tallies, listing.skipped, Some(manifest)))
}

/// Takes inputs through all passes without writing anything.
///
/// # Errors
/// Anything of [`ErrorKind`] but those of the disk.
pub fn check(options: &CompileOptions, monitor: &mut dyn Monitor) -> Result<CompileReport> {
    let listing = source::list(&options.inputs)?;
    let compiler = Compiler::load(options)?;
    let total = total_bytes(&listing.files);
    let reader = Reader::new(listing.files, options.max_record_bytes);
    let (tallies, _) = run(options.threads, &compiler, reader, total, &mut |_, _, _| Ok(()), monitor)?;
    Ok(CompileReport::new(options, &compiler, tallies, listing.skipped, None))
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
    let (tallies, _) = run(0, compiler, reader, total, &mut |record, outcome, _| each(record, &outcome), monitor)?;
    let certificate = tallies.certificate(compiler);
    Ok((tallies.ledger, certificate))
}

/// Finds one record of a file: its line, or its element in an array.
///
/// # Errors
/// [`ErrorKind::Io`] where the file cannot be read, [`ErrorKind::Options`] where it has no such record.
pub fn find_record(options: &CompileOptions, path: &Path, number: u64) -> Result<(Location, Vec<u8>)> {
    let mut seen = 0;
    for item in Reader::new(vec![path.to_owned()], options.max_record_bytes) {
        match item {
            Ok(chunk) => {
                for (record, _) in chunk.iter() {
                    seen += 1;
                    if record.location.position.number() == number {
                        return Ok((record.location.clone(), record.bytes.to_vec()));
                    }
                }
            }
            Err(fault) => return Err(Error::new(ErrorKind::Shard, fault.diagnostic.message)),
        }
    }
    let message = format!("`{}` has no record {number}; it has {seen}", path.display());
    Err(Error::new(ErrorKind::Options, message))
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

fn total_bytes(files: &[PathBuf]) -> Option<u64> {
    files
        .iter()
        .map(|file| if file.as_os_str() == "-" { None } else { Some(file.metadata().map_or(0, |m| m.len())) })
        .sum()
}

/// Takes what became of a record, with the errors that it was rejected for.
type Take<'t> = dyn FnMut(&Record<'_>, Outcome, &[Located]) -> Result<()> + 't;

/// Enters results in the report and hands them on.
struct Sink<'t, 'f> {
    take: &'t mut Take<'f>,
    tallies: report::Tallies,
}

/// A chunk and what became of its records.
struct Processed {
    chunk: Chunk,
    outcomes: Vec<(Outcome, Vec<Located>)>,
}

enum Item {
    Chunk(Processed),
    Fault(Fault),
}

impl Sink<'_, '_> {
    fn take(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Fault(fault) => {
                self.tallies.ledger.faults += 1;
                let location = Location { file: fault.file, position: Position::Line(0) };
                self.tallies.tally.add(fault.diagnostic.code, || locate_fault(&fault.diagnostic, &location));
                Ok(())
            }
            Item::Chunk(Processed { chunk, outcomes }) => {
                for ((record, _), (outcome, rejected)) in chunk.iter().zip(outcomes) {
                    self.tallies.enter(&record, &outcome);
                    (self.take)(&record, outcome, &rejected)?;
                }
                Ok(())
            }
        }
    }
}

/// A file-level finding has no record to point into.
fn locate_fault(diagnostic: &Diagnostic, location: &Location) -> Located {
    let mut located = locate(diagnostic, location, b"");
    located.location = location.file.to_string();
    let severity = diagnostic.severity().name();
    let help = diagnostic.help.as_ref().map_or_else(String::new, |help| format!("help: {help}\n"));
    located.rendered = format!("{severity}[{}]: {}\n  --> {}\n{help}", located.code, located.message, location.file);
    located
}

fn run(
    threads: usize,
    compiler: &Compiler,
    mut reader: Reader,
    total: Option<u64>,
    take: &mut Take<'_>,
    monitor: &mut dyn Monitor,
) -> Result<(report::Tallies, Vec<Input>)> {
    let mut sink = Sink { take, tallies: report::Tallies::default() };
    let threads = match threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads.min(1024),
    };
    let in_flight = 2 * threads + 2;
    let (permit_sender, permits) = bounded::<()>(in_flight);
    for _ in 0..in_flight {
        permit_sender.send(()).expect("the channel has room for every permit");
    }
    let (work_sender, work) = bounded::<(u64, std::result::Result<Chunk, Fault>)>(in_flight);
    let (result_sender, results) = bounded::<(u64, Result<Item>)>(in_flight);
    let stop = AtomicBool::new(false);
    let bytes_read = AtomicU64::new(0);

    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut sequence = 0;
            let work_sender = work_sender; // dropped when the reader is done, which ends the workers
            while !stop.load(Ordering::Relaxed) && permits.recv().is_ok() {
                let Some(item) = reader.next() else { break };
                bytes_read.store(reader.bytes_read(), Ordering::Relaxed);
                if work_sender.send((sequence, item)).is_err() {
                    break;
                }
                sequence += 1;
            }
            inputs(&reader)
        });
        for _ in 0..threads {
            let (work, result_sender, stop) = (work.clone(), result_sender.clone(), &stop);
            scope.spawn(move || {
                for (sequence, item) in work {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let item = match item {
                        Ok(chunk) => process(compiler, chunk).map(Item::Chunk),
                        Err(fault) => Ok(Item::Fault(fault)),
                    };
                    if result_sender.send((sequence, item)).is_err() {
                        break;
                    }
                }
            });
        }
        drop((work, result_sender));
        let mut progress = Progress { bytes_total: total, ..Progress::default() };
        let done = drain(&results, &mut sink, |report, write_back| {
            if write_back {
                let _ = permit_sender.send(()); // fails only when the reader is gone
            }
            progress.update(bytes_read.load(Ordering::Relaxed), report);
            monitor.tick(&progress)
        });
        if done.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        drop((results, permit_sender)); // lets everybody who waits go on to the end
        let inputs = reading.join().expect("the reader does not panic");
        done.map(|()| (sink.tallies, inputs))
    })
}

/// Takes results in input order; stops at the first error, or when the monitor says so.
fn drain(
    results: &Receiver<(u64, Result<Item>)>,
    sink: &mut Sink<'_, '_>,
    mut tick: impl FnMut(&report::Tallies, bool) -> ControlFlow<()>,
) -> Result<()> {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    let interrupted = || Error::new(ErrorKind::Interrupted, "interrupted; nothing was committed");
    loop {
        match results.recv_timeout(Duration::from_millis(100)) {
            Ok((sequence, item)) => {
                waiting.insert(sequence, item);
                while let Some(item) = waiting.remove(&next) {
                    sink.take(item?)?;
                    next += 1;
                    if tick(&sink.tallies, true).is_break() {
                        return Err(interrupted());
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if tick(&sink.tallies, false).is_break() {
                    return Err(interrupted());
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn process(compiler: &Compiler, chunk: Chunk) -> Result<Processed> {
    let mut outcomes = Vec::with_capacity(chunk.records.len());
    for (record, fault) in chunk.iter() {
        let outcome = match fault {
            Some(fault) => Outcome { diagnostics: vec![fault.clone()], ..Outcome::default() },
            None => compile_caught(compiler, &record)?,
        };
        let located = if outcome.rows.is_empty() {
            let worst = outcome.diagnostics.iter().filter(|found| found.severity() == Severity::Error);
            worst.map(|diagnostic| locate(diagnostic, &record.location, record.bytes)).collect()
        } else {
            Vec::new()
        };
        outcomes.push((outcome, located));
    }
    Ok(Processed { chunk, outcomes })
}

/// A panic of a library on one record rejects that record; it neither ends the run nor loses anything.
fn compile_caught(compiler: &Compiler, record: &Record<'_>) -> Result<Outcome> {
    catch_unwind(AssertUnwindSafe(|| compiler.compile(record))).unwrap_or_else(|_| {
        let diagnostic = Diagnostic::new(Code::InternalError, "dlgc failed on this record")
            .help("this is a bug in dlgc: please report the record, which is in rejects/");
        Ok(Outcome { diagnostics: vec![diagnostic], ..Outcome::default() })
    })
}

fn inputs(reader: &Reader) -> Vec<Input> {
    let input = |digest: &source::InputDigest| Input {
        file: digest.file.to_string(),
        bytes: digest.bytes,
        sha256: digest.sha256.clone(),
        records: digest.records,
    };
    reader.digests().iter().map(input).collect()
}

fn manifest(
    options: &CompileOptions,
    compiler: &Compiler,
    tallies: &report::Tallies,
    written: &shard::Written,
    inputs: Vec<Input>,
) -> Result<Manifest> {
    let digest = |bytes: &[u8]| crate::hex(&Sha256::digest(bytes));
    let semantic = options.semantic(compiler.max_length);
    let mut digests: BTreeMap<String, String> = [
        ("tokenizer".to_owned(), digest(compiler.files.file("tokenizer.json").unwrap_or_default())),
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
        stops: compiler.stops(),
        stop_ids: compiler.stop_ids.clone(),
        inputs,
        shards: written.shards.clone(),
        files: written.files.clone(),
        splits: written.splits.clone(),
        formats: tallies.formats.clone(),
        ledger: tallies.ledger.clone(),
        certificate: Some(tallies.certificate(compiler)),
        diagnostics: tallies.tally.counts().into_iter().map(|(code, count)| (code.to_owned(), count)).collect(),
        canaries: compiler.canaries()?,
    })
}
