//! The pipeline: threads that take records through a pass, and what takes the results, in the order of the input.
//!
//! In: a [`Reader`] and a [`Pass`]. Out: what became of each record, handed to a [`Destination`] on the calling thread. A
//! reader cuts files into chunks, workers take them through the pass; the number of chunks on the way is bounded, so
//! memory is.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::Monitor;
use super::compiler::Compiler;
use super::outcome::Outcome;
use super::report::{Progress, Tallies};
use super::resume::{self, Skip, Skipping, Start};
use crate::diagnostic::{Code, Diagnostic, Located, Severities, locate};
use crate::error::{Error, ErrorKind, Result};
use crate::import::Importers;
use crate::panics::caught;
use crate::shard::DatasetWriter;
use crate::source::{Chunk, Fault, InputDigest, Item, Reader, Record, Skipped};
use crate::split::Splits;

/// How long a thread waits before it looks whether the run was given up.
const TICK: Duration = Duration::from_millis(100);
/// Chunks on the way beside two for each worker: rows are packed and written many at once, and workers shall not wait for
/// that.
const AHEAD: usize = 6;

/// How many items there are, as long as that is not known.
const UNKNOWN: u64 = u64::MAX;

/// What is done with each record, on any thread.
pub(super) trait Pass: Sync {
    /// What becomes of a record.
    fn record(&self, record: &Record<'_>) -> Result<Outcome>;

    /// How bad findings are.
    fn severities(&self) -> &Severities;

    /// Shares of the splits; `None` where nothing is split.
    fn splits(&self) -> Option<&Splits> {
        None
    }

    /// Called before anything that came of the records is to last, and when there is time: what there was none to check is
    /// checked now.
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
pub(super) trait Destination {
    /// Takes what became of a record, with the errors that it was rejected for.
    fn take(&mut self, record: &Record<'_>, outcome: Outcome, rejected: &[Located]) -> Result<()>;

    /// Called when all of a record has been taken and entered in the report.
    fn settle(&mut self, _: &Place<'_>) -> Result<()> {
        Ok(())
    }

    /// Called when all has been taken, while the last of it is checked on other threads.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<F: FnMut(&Record<'_>, Outcome, &[Located]) -> Result<()>> Destination for F {
    fn take(&mut self, record: &Record<'_>, outcome: Outcome, rejected: &[Located]) -> Result<()> {
        self(record, outcome, rejected)
    }
}

/// For runs that only look.
pub(super) struct Nowhere;

impl Destination for Nowhere {
    fn take(&mut self, _: &Record<'_>, _: Outcome, _: &[Located]) -> Result<()> {
        Ok(())
    }
}

/// How far a run has come, at the end of a record.
pub(super) struct Place<'p> {
    tallies: &'p Tallies,
    hash: u64,
    pass: &'p dyn Pass,
}

/// Writes results into a dataset; what was written lasts whenever a shard is whole.
pub(super) struct Writing<'i> {
    pub(super) writer: DatasetWriter,
    pub(super) importers: &'i Importers,
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
            compiled.rows.into_iter().try_for_each(|row| self.writer.row(&split, row.whole()))?;
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

    fn end(&mut self) -> Result<()> {
        self.writer.write_rest()
    }
}

/// Enters results in the report and hands them on.
struct Sink<'t> {
    destination: &'t mut dyn Destination,
    tallies: Tallies,
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
pub(super) struct Ran {
    pub(super) tallies: Tallies,
    pub(super) inputs: Vec<InputDigest>,
    pub(super) skipped: Vec<Skipped>,
}

/// Takes everything through the passes; `None` if the inputs are not those of the run that is to be continued.
pub(super) fn run(
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
    let (stop, working) = (AtomicBool::new(false), AtomicUsize::new(threads));
    let bytes_read = reader.bytes_read();
    let (tallies, skip) = start.split();
    let mut sink = Sink { destination, hash: skip.hash_after(), tallies, skipped: Vec::new(), pass };
    let (items, is_settled) = (Arc::new(AtomicU64::new(UNKNOWN)), AtomicBool::new(false));
    let ending = read_apart(reader, skip, permits, work_sender, Arc::clone(&items));

    thread::scope(|scope| {
        let mut workers = Vec::with_capacity(threads);
        for _ in 0..threads {
            let (work, result_sender, stop, working) = (work.clone(), result_sender.clone(), &stop, &working);
            let (items, is_settled) = (&items, &is_settled);
            let worker = thread::Builder::new().name("dlgc-worker".to_owned());
            let spawned = worker.spawn_scoped(scope, move || {
                // The sender may wait for standard input for ever, so its end is not what ends the wait.
                while !stop.load(Ordering::Relaxed) {
                    // What waits is mostly there when the last chunks are: one checks while the others take these.
                    let has_ended = items.load(Ordering::Relaxed) != UNKNOWN;
                    if has_ended && !is_settled.swap(true, Ordering::Relaxed) {
                        pass.settle()?;
                    }
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
                drop(result_sender);
                // The last one checks while what is left is written.
                let is_last = working.fetch_sub(1, Ordering::Relaxed) == 1;
                if is_last && !stop.load(Ordering::Relaxed) { pass.settle() } else { Ok(()) }
            });
            workers.push(spawned.expect("a thread can be spawned"));
        }
        drop((work, result_sender));
        let mut progress = Progress { bytes_total: total, ..Progress::default() };
        let done = drain(&results, &items, &mut sink, |tallies, write_back| {
            if write_back {
                let _ = permit_sender.send(()); // fails only when the reader is gone
            }
            progress.update(bytes_read.load(Ordering::Relaxed), tallies);
            monitor.tick(&progress)
        });
        let done = done.and_then(|()| sink.destination.end());
        if done.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        drop((results, permit_sender)); // lets everybody who waits go on to the end
        let settled = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|said| resume_unwind(said)));
        let settled = settled.collect::<Result<()>>();
        done.and(settled)
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
    items: Arc<AtomicU64>,
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
        items.store(sequence, Ordering::Relaxed);
        drop(work_sender); // ends the workers
        let changed = changed || !skip.is_done();
        let _ = ending_sender.send(Ending { digests, changed }); // fails only when the run was given up
    });
    ending
}

/// Takes results in input order, up to the last one; stops at the first error, or when the monitor says so.
fn drain(
    results: &Receiver<(u64, Result<Done>)>,
    items: &AtomicU64,
    sink: &mut Sink<'_>,
    mut tick: impl FnMut(&Tallies, bool) -> ControlFlow<()>,
) -> Result<()> {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    // Who checks something keeps the channel open, so its end is not waited for.
    while items.load(Ordering::Relaxed) != next {
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
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(())
}

/// What ends a run that the monitor gives up.
pub(super) fn interrupted() -> Error {
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
