//! The driver: wires the passes, owns the threads, keeps the order, writes the report.
//!
//! A reader cuts files into chunks; workers take chunks through all passes; the calling thread puts the results back
//! into input order and writes them. The number of chunks on the way is bounded, so memory is; the order of results
//! is that of the input, so one thread and many give the same bytes. Whenever a shard is whole, how far the run has come is
//! written down beside it (`resume`), and the same compilation goes on from there if it was interrupted.

mod answers;
mod canaries;
mod compiler;
mod convert;
mod lengths;
mod measures;
mod options;
mod outcome;
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use sha2::{Digest, Sha256};

use crate::diagnostic::{Code, Diagnostic, Located, Severities, locate};
use crate::dialogue::Location;
use crate::error::{Error, ErrorKind, Result};
use crate::import::{Importers, is_piece};
use crate::pack::Packing;
use crate::panics::caught;
use crate::shard::{self, Certificate, DatasetWriter, FORMAT, FORMAT_VERSION, Ledger, Manifest, Size, WritePlan};
use crate::source::{self, Chunk, Fault, InputDigest, Item, Reader, Record, Skipped};
use crate::split::Splits;
use crate::window::Request;
use repack::{Source, utilisation};
use resume::{Skip, Skipping, Start};

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
    compiler.tokenizer.leave_out_texts();
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
    compiler.tokenizer.leave_out_texts();
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

/// How long a thread waits before it looks whether the run was given up.
const TICK: Duration = Duration::from_millis(100);
/// Chunks on the way beside two for each worker: rows are packed and written many at once, and workers shall not wait for
/// that.
const AHEAD: usize = 6;
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

/// What is done with each record, on any thread.
trait Pass: Sync {
    /// What becomes of a record.
    fn record(&self, record: &Record<'_>) -> Result<Outcome>;

    /// How bad findings are.
    fn severities(&self) -> &Severities;

    /// Shares of the splits; `None` where nothing is split.
    fn splits(&self) -> Option<&Splits> {
        None
    }

    /// Called before anything that came of the records is to last: what there was no time to check is checked now.
    fn settle(&self) -> Result<()> {
        Ok(())
    }
}

impl Pass for Compiler {
    fn record(&self, record: &Record<'_>) -> Result<Outcome> {
        self.compile(record)
    }

    fn severities(&self) -> &Severities {
        &self.severities
    }

    fn splits(&self) -> Option<&Splits> {
        Some(&self.splits)
    }

    fn settle(&self) -> Result<()> {
        self.tokenizer.settle()
    }
}

/// Where results go, in input order.
trait Destination {
    /// Takes what became of a record, with the errors that it was rejected for.
    fn take(&mut self, record: &Record<'_>, outcome: Outcome, rejected: &[Located]) -> Result<()>;

    /// Called when all of a record has been taken and entered in the report.
    fn settle(&mut self, _: &Place<'_>) -> Result<()> {
        Ok(())
    }
}

impl<F: FnMut(&Record<'_>, Outcome, &[Located]) -> Result<()>> Destination for F {
    fn take(&mut self, record: &Record<'_>, outcome: Outcome, rejected: &[Located]) -> Result<()> {
        self(record, outcome, rejected)
    }
}

/// For runs that only look.
struct Nowhere;

impl Destination for Nowhere {
    fn take(&mut self, _: &Record<'_>, _: Outcome, _: &[Located]) -> Result<()> {
        Ok(())
    }
}

/// How far a run has come, at the end of a record.
struct Place<'p> {
    tallies: &'p report::Tallies,
    hash: u64,
    pass: &'p dyn Pass,
}

/// Writes results into a dataset; what was written lasts whenever a shard is whole.
struct Writing<'i> {
    writer: DatasetWriter,
    importers: &'i Importers,
}

impl Destination for Writing<'_> {
    fn take(&mut self, record: &Record<'_>, outcome: Outcome, rejected: &[Located]) -> Result<()> {
        if outcome.has_rejects() {
            self.writer.reject(&record.location, record.bytes, rejected)?;
        }
        for compiled in outcome.dialogues {
            let split = compiled.split().to_owned();
            if let Some(dialogue) = compiled.dialogue {
                self.writer.dialogue(dialogue)?;
            }
            compiled.rows.into_iter().try_for_each(|row| self.writer.row(&split, row))?;
        }
        Ok(())
    }

    fn settle(&mut self, place: &Place<'_>) -> Result<()> {
        if !self.writer.close_full_shards()? {
            return Ok(());
        }
        place.pass.settle()?;
        self.writer.checkpoint(resume::state(place.tallies, place.hash, &self.importers.siblings()))
    }
}

/// Enters results in the report and hands them on.
struct Sink<'t> {
    destination: &'t mut dyn Destination,
    tallies: report::Tallies,
    skipped: Vec<Skipped>,
    /// Chained over the bytes of all records: tells whether an interrupted run had the same inputs.
    hash: u64,
    pass: &'t dyn Pass,
}

/// A chunk and what became of its records.
struct Processed {
    chunk: Chunk,
    outcomes: Vec<(Outcome, Vec<Located>)>,
}

enum Done {
    Chunk(Processed),
    Fault(Fault),
    Skipped(Skipped),
}

impl Sink<'_> {
    fn take(&mut self, done: Done) -> Result<()> {
        match done {
            Done::Skipped(skipped) => self.skipped.push(skipped),
            Done::Fault(fault) => self.tallies.fault(&fault),
            Done::Chunk(Processed { chunk, outcomes }) => {
                for ((record, _), (mut outcome, rejected)) in chunk.iter().zip(outcomes) {
                    for compiled in outcome.dialogues.iter_mut().filter(|compiled| !compiled.is_rejected()) {
                        if let (Some(stratum), Some(splits)) = (compiled.stratum, self.pass.splits()) {
                            compiled.move_to(self.tallies.strata.next(splits, stratum));
                        }
                    }
                    self.tallies.enter(&record, &outcome);
                    self.destination.take(&record, outcome, &rejected)?;
                    self.hash = resume::chain(self.hash, record.bytes);
                    let place = Place { tallies: &self.tallies, hash: self.hash, pass: self.pass };
                    self.destination.settle(&place)?;
                }
            }
        }
        Ok(())
    }
}

/// What a run came to.
struct Ran {
    tallies: report::Tallies,
    inputs: Vec<InputDigest>,
    skipped: Vec<Skipped>,
}

/// Takes everything through the passes; `None` if the inputs are not those of the run that is to be continued.
fn run(
    threads: usize,
    pass: &dyn Pass,
    reader: Reader,
    total: Option<u64>,
    start: Start,
    destination: &mut dyn Destination,
    monitor: &mut dyn Monitor,
) -> Result<Option<Ran>> {
    let threads = match threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads.min(1024),
    };
    let in_flight = 2 * threads + AHEAD;
    let (permit_sender, permits) = bounded::<()>(in_flight);
    for _ in 0..in_flight {
        permit_sender.send(()).expect("the channel has room for every permit");
    }
    let (work_sender, work) = bounded::<(u64, Item)>(in_flight);
    let (result_sender, results) = bounded::<(u64, Result<Done>)>(in_flight);
    let stop = AtomicBool::new(false);
    let bytes_read = reader.bytes_read();
    let (tallies, skip) = start.split();
    let mut sink = Sink { destination, hash: skip.hash_after(), tallies, skipped: Vec::new(), pass };
    let ending = read_apart(reader, skip, permits, work_sender);

    thread::scope(|scope| {
        for _ in 0..threads {
            let (work, result_sender, stop) = (work.clone(), result_sender.clone(), &stop);
            let worker = thread::Builder::new().name("dlgc-worker".to_owned());
            let spawned = worker.spawn_scoped(scope, move || {
                // The sender may wait for standard input for ever, so its end is not what ends the wait.
                while !stop.load(Ordering::Relaxed) {
                    let (sequence, item) = match work.recv_timeout(TICK) {
                        Ok(work) => work,
                        Err(RecvTimeoutError::Timeout) => continue,
                        Err(RecvTimeoutError::Disconnected) => break,
                    };
                    let done = match item {
                        Item::Chunk(chunk) => process(pass, chunk, stop).map(Done::Chunk),
                        Item::Fault(mut fault) => {
                            fault.diagnostic.severity = pass.severities().of(fault.diagnostic.code);
                            Ok(Done::Fault(fault))
                        }
                        Item::Skipped(skipped) => Ok(Done::Skipped(skipped)),
                    };
                    if result_sender.send((sequence, done)).is_err() {
                        break;
                    }
                }
            });
            spawned.expect("a thread can be spawned");
        }
        drop((work, result_sender));
        let mut progress = Progress { bytes_total: total, ..Progress::default() };
        let done = drain(&results, &mut sink, |tallies, write_back| {
            if write_back {
                let _ = permit_sender.send(()); // fails only when the reader is gone
            }
            progress.update(bytes_read.load(Ordering::Relaxed), tallies);
            monitor.tick(&progress)
        });
        if done.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        drop((results, permit_sender)); // lets everybody who waits go on to the end
        done
    })?;
    pass.settle()?;
    let failed = |_| Error::new(ErrorKind::Io, "dlgc failed while it read the inputs; this is a bug: please report it");
    let Ending { digests, changed } = ending.recv().map_err(failed)?;
    if changed {
        return Ok(None);
    }
    Ok(Some(Ran { tallies: sink.tallies, inputs: digests, skipped: sink.skipped }))
}

/// What the reader says when it is done.
struct Ending {
    digests: Vec<InputDigest>,
    changed: bool,
}

/// Reads in a thread that nobody has to wait for: reading standard input may never end.
fn read_apart(
    reader: Reader,
    mut skip: Skip,
    permits: Receiver<()>,
    work_sender: Sender<(u64, Item)>,
) -> Receiver<Ending> {
    let (ending_sender, ending) = bounded(1);
    thread::spawn(move || {
        let mut sequence = 0;
        let mut changed = false;
        let digests = reader.read(&mut |item| {
            let item = match skip.over(item) {
                Skipping::Over => return ControlFlow::Continue(()),
                Skipping::Changed => {
                    changed = true;
                    return ControlFlow::Break(());
                }
                Skipping::Done(item) => item,
            };
            if permits.recv().is_err() || work_sender.send((sequence, item)).is_err() {
                return ControlFlow::Break(());
            }
            sequence += 1;
            ControlFlow::Continue(())
        });
        drop(work_sender); // ends the workers
        let changed = changed || !skip.is_done();
        let _ = ending_sender.send(Ending { digests, changed }); // fails only when the run was given up
    });
    ending
}

/// Takes results in input order; stops at the first error, or when the monitor says so.
fn drain(
    results: &Receiver<(u64, Result<Done>)>,
    sink: &mut Sink<'_>,
    mut tick: impl FnMut(&report::Tallies, bool) -> ControlFlow<()>,
) -> Result<()> {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    loop {
        match results.recv_timeout(TICK) {
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

/// What ends a run that the monitor gives up.
fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "interrupted; nothing was committed")
}

fn process(pass: &dyn Pass, chunk: Chunk, stop: &AtomicBool) -> Result<Processed> {
    let mut outcomes = Vec::with_capacity(chunk.records.len());
    for (record, fault) in chunk.iter() {
        if stop.load(Ordering::Relaxed) {
            break; // nobody waits for the results
        }
        let outcome = match fault {
            Some(fault) => Outcome::rejected(fault.clone()),
            None => caught_record(pass, &record)?,
        };
        let located = outcome.errors().map(|found| locate(found, &record.location, record.bytes)).collect();
        outcomes.push((outcome, located));
    }
    Ok(Processed { chunk, outcomes })
}

/// A panic of a library on one record rejects that record; it neither ends the run nor loses anything.
fn caught_record(pass: &dyn Pass, record: &Record<'_>) -> Result<Outcome> {
    caught(|| pass.record(record)).unwrap_or_else(|said| {
        let diagnostic = Diagnostic::new(Code::InternalError, format!("dlgc failed on this record: {said}"))
            .help("this is a bug in dlgc: please report the record, which is in rejects/");
        Ok(Outcome::rejected(diagnostic))
    })
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
