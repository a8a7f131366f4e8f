//! Confirming: the sources are compiled once more, and every row of a dataset must come out of them again.
//!
//! In: a dataset and the files that it was made from. Out: whether each row is what the tokenizer, the template and
//! the options of the dataset make of its record today, and the first places where it is not. The inputs are told by
//! their digests, whatever they are called now. What is guaranteed: bounded memory, whatever the size; a confirmed
//! target was proved anew against its prompt.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::Problems;
use crate::compile::{self, CompileOptions, Compiler, Monitor, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::import::is_piece;
use crate::shard::{self, Manifest, Provenance, Row, Rows, Size, first_difference};
use crate::source::{self, InputDigest, Reader, Record, digest};

/// What was compared with the sources, and what is not the same.
#[derive(Debug, Serialize)]
pub struct Confirmation {
    /// Whether every row came out of the sources again.
    pub confirmed: bool,
    /// Inputs that are what they were.
    pub files: u64,
    /// Rows that are the same.
    pub rows: u64,
    /// Turns that are trained in them.
    pub targets: u64,
    /// What is confirmed, in a sentence; null where not all of it is, or nothing is trained.
    pub statement: Option<String>,
    /// Everything that is not the same; empty where all is confirmed.
    #[serde(flatten)]
    pub found: Problems,
    /// What is worth knowing and no problem.
    pub notes: Vec<String>,
}

/// Compiles the sources of a dataset again and compares, row by row; where rows are packed, example by example. Those
/// are first put back into the order of the sources; what does not fit into memory is written into `scratch`.
///
/// # Errors
/// [`ErrorKind::Shard`] where the folder holds no dataset, [`ErrorKind::Io`] and [`ErrorKind::Options`] where the
/// sources cannot be read, and what the passes say of the dataset's own tokenizer and template.
pub fn confirm(folder: &Path, sources: &[String], scratch: &Path, monitor: &mut dyn Monitor) -> Result<Confirmation> {
    let manifest = Manifest::load(folder)?;
    let options = CompileOptions::of_dataset(folder, &manifest)?;
    let mut compiler = Compiler::load(&options)?;
    compiler.leave_out_texts();
    let mut problems = Problems::default();
    let mut notes = Vec::new();
    let (inputs, files) = inputs(sources, &manifest, &mut problems, &mut notes)?;
    let unchanged = problems.is_empty();
    let mut comparison = Comparison {
        names: inputs.iter().map(|(_, name)| Arc::clone(name)).collect(),
        missing: missing(&inputs, &manifest),
        splits: splits(folder, &manifest, scratch)?,
        at: 0,
        file: Arc::from(""),
        passed: BTreeSet::new(),
        last: 0,
        rows: 0,
        targets: 0,
        problems,
    };
    compiler.importers.place_inputs(inputs.iter().map(|(path, name)| (Arc::clone(name), path.clone())));
    let total = inputs.iter().map(|(path, _)| path.metadata().map_or(0, |data| data.len())).sum();
    let reader = Reader::named(inputs, options.max_record_bytes).joining(is_piece);
    let mut each = |record: &Record<'_>, outcome: &Outcome| comparison.record(record, outcome);
    let (ledger, certificate) = compile::again(&compiler, reader, Some(total), &mut each, monitor)?;
    comparison.rest();
    let Comparison { rows, targets, mut problems, .. } = comparison;
    siblings(&compiler.importers.siblings(), &manifest, &mut problems);
    if unchanged && manifest.certificate.as_ref().is_some_and(|certified| certified.unpacked() != certificate) {
        problems.add("manifest.json", "the certificate is another than that of the sources");
    }
    if unchanged && (&ledger.records, &ledger.dialogues, &ledger.turns) != of_ledger(&manifest) {
        problems.add("manifest.json", "the ledger is another than that of the sources");
    }
    let version = manifest.versions.get("dlgc").map_or("", String::as_str);
    if version != crate::VERSION {
        notes.push(format!("the dataset was compiled by dlgc {version}, and compared by {}", crate::VERSION));
    }
    let confirmed = problems.is_empty();
    let certified = manifest.certificate.as_ref().unwrap_or(&certificate);
    let statement = confirmed.then(|| certified.statement()).flatten();
    Ok(Confirmation { confirmed, files, rows, targets, statement, found: problems, notes })
}

/// Compares files that were read because they lie beside the inputs.
fn siblings(read: &[InputDigest], manifest: &Manifest, problems: &mut Problems) {
    for sibling in &manifest.siblings {
        match read.iter().find(|other| other.file == sibling.file) {
            None => problems.add(&sibling.file, "is not beside the sources, or cannot be read"),
            Some(other) if other.blake3 != sibling.blake3 => {
                let message = format!("has changed: expected BLAKE3 {}, found {}", sibling.blake3, other.blake3);
                problems.add(&sibling.file, message);
            }
            Some(_) => {}
        }
    }
}

fn of_ledger(manifest: &Manifest) -> (&crate::shard::RecordLine, &crate::shard::DialogueLine, &crate::shard::TurnLine) {
    let ledger = &manifest.ledger;
    (&ledger.records, &ledger.dialogues, &ledger.turns)
}

/// Files with the names that the manifest has for them.
type NamedFiles = Vec<(PathBuf, Arc<str>)>;

/// The files to read with the names that the manifest has for them, in its order, told by content, else by name; and
/// how many are what they were.
fn inputs(
    sources: &[String],
    manifest: &Manifest,
    problems: &mut Problems,
    notes: &mut Vec<String>,
) -> Result<(NamedFiles, u64)> {
    let listing = source::list(sources)?;
    let mut files = Vec::new();
    for path in listing.files {
        if path.as_os_str() == "-" {
            let message = "standard input can be read only once, and it has to be hashed first";
            return Err(Error::new(ErrorKind::Options, message).hint("name the file itself"));
        }
        let (_, blake3) = digest(&path).map_err(|error| Error::io(&path, error))?;
        files.push((path, blake3, false));
    }
    let (mut found, mut same) = (Vec::new(), 0);
    for input in &manifest.inputs {
        match find(&files, input) {
            Some(index) => {
                let (path, blake3, used) = &mut files[index];
                *used = true;
                if *blake3 == input.blake3 {
                    same += 1;
                } else {
                    let message = format!("has changed: expected BLAKE3 {}, found {blake3}", input.blake3);
                    problems.add(&path.to_string_lossy(), message);
                }
                found.push((path.clone(), Arc::from(input.file.as_str())));
            }
            None => problems.add(&input.file, "is not among the sources"),
        }
    }
    let unused = files.iter().filter(|(_, _, used)| !used);
    notes.extend(unused.map(|(path, ..)| format!("{} was no input of the dataset, and is not read", path.display())));
    Ok((found, same))
}

/// A file with the content of an input, or else with its name.
fn find(files: &[(PathBuf, String, bool)], input: &InputDigest) -> Option<usize> {
    let whole = |path: &Path| path.to_string_lossy() == input.file;
    let name = |path: &Path| path.file_name() == Path::new(&input.file).file_name();
    let pick = |test: &dyn Fn(&(PathBuf, String, bool)) -> bool| files.iter().position(test);
    let same = |file: &(PathBuf, String, bool)| file.1 == input.blake3;
    pick(&|file| same(file) && !file.2 && whole(&file.0))
        .or_else(|| pick(&|file| same(file) && !file.2 && name(&file.0)))
        .or_else(|| pick(&|file| same(file) && !file.2))
        .or_else(|| pick(&same)) // an input that was named twice
        .or_else(|| pick(&|file| !file.2 && whole(&file.0)))
        .or_else(|| pick(&|file| !file.2 && name(&file.0)))
}

/// Inputs of the manifest that are not read at all: their rows cannot be compared.
fn missing(read: &[(PathBuf, Arc<str>)], manifest: &Manifest) -> Vec<String> {
    let is_read = |input: &&InputDigest| read.iter().any(|(_, name)| **name == *input.file);
    manifest.inputs.iter().filter(|input| !is_read(input)).map(|input| input.file.clone()).collect()
}

fn splits(folder: &Path, manifest: &Manifest, scratch: &Path) -> Result<BTreeMap<String, Stored>> {
    let stored = |(split, size): (&String, &Size)| {
        let of_split = manifest.shards.iter().filter(|shard| shard.split == *split);
        let rows = Rows::of(folder, of_split.map(|shard| shard.file.path.clone()));
        if !manifest.is_packed() {
            return Ok((split.clone(), boxed(rows)));
        }
        let examples = shard::sorted(shard::examples(rows), size.tokens, |example| example, &scratch.join(split))?;
        let name = split.clone();
        let placed = examples.map(move |row| {
            let row = row?;
            Ok((format!("{name} example {}", row.provenance[0].example), row))
        });
        Ok((split.clone(), boxed(placed)))
    };
    manifest.splits.iter().map(stored).collect()
}

fn boxed(rows: impl Iterator<Item = Result<(String, Row)>> + 'static) -> Stored {
    let rows: Box<dyn Iterator<Item = Result<(String, Row)>>> = Box::new(rows);
    rows.peekable()
}

/// What a dataset has in a split, in the order of the sources, each example with its place.
type Stored = Peekable<Box<dyn Iterator<Item = Result<(String, Row)>>>>;

/// Whether a record of `file` came out of the stored file `name`: the same, or a member of it.
fn is_of(name: &str, file: &str) -> bool {
    file.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('!'))
}

/// The rows of the dataset beside those that come out of the sources: both in the order of the input.
struct Comparison {
    /// Names of the files that are read, in order.
    names: Vec<Arc<str>>,
    missing: Vec<String>,
    splits: BTreeMap<String, Stored>,
    /// Which file the sources have come to.
    at: usize,
    /// What it is called there: the file, or a member of it; and which members have been passed.
    file: Arc<str>,
    passed: BTreeSet<Arc<str>>,
    /// Which record of it.
    last: u64,
    rows: u64,
    targets: u64,
    problems: Problems,
}

impl Comparison {
    fn record(&mut self, record: &Record<'_>, outcome: &Outcome) -> Result<()> {
        let (file, number) = (&record.location.file, record.location.position.number());
        if !is_of(&self.names[self.at], file) || *file == self.file && number <= self.last {
            let from = self.at + usize::from(is_of(&self.names[self.at], file));
            let later = self.names[from..].iter().position(|name| is_of(name, file));
            self.at = from + later.expect("records come from the files that are read, in their order");
            self.passed.clear();
        }
        if *file != self.file {
            self.passed.insert(std::mem::replace(&mut self.file, Arc::clone(file)));
        }
        self.last = number;
        let place = record.location.to_string();
        let rows =
            outcome.dialogues.iter().flat_map(|compiled| compiled.rows.iter().map(|row| (compiled.split(), row)));
        for (index, (split, row)) in rows.enumerate() {
            self.row(&place, number, split, index, row);
        }
        Ok(())
    }

    /// Finds the row of the dataset that a row of the sources must be.
    fn row(&mut self, place: &str, number: u64, split: &str, index: usize, row: &Row) {
        loop {
            let order = match self.peek(split) {
                Some((_, stored)) => {
                    let (file, line) = (stored.provenance[0].file.clone(), stored.provenance[0].line);
                    self.order(&file, line, number)
                }
                None => Ordering::Greater,
            };
            if order == Ordering::Greater {
                let message = format!("row {} of the record is not in the shards", index + 1);
                return self.problems.add(place, message);
            }
            let (stored_at, stored) = self.take(split).expect("peeked above");
            if order == Ordering::Less {
                self.surplus(&stored_at, &stored);
                continue;
            }
            match difference(&stored, &row.clone().whole()) {
                None => {
                    self.rows += 1;
                    self.targets +=
                        row.provenance.iter().map(|origin| origin.trained_messages.len() as u64).sum::<u64>();
                }
                Some(message) => self.problems.add(place, format!("{stored_at}: {message}")),
            }
            return;
        }
    }

    /// Whether a row of the dataset comes before, is of, or comes after the record that the sources have come to.
    fn order(&self, file: &str, line: u64, number: u64) -> Ordering {
        if *self.file == *file {
            return line.cmp(&number.min(i32::MAX as u64));
        }
        let from = self.at + usize::from(self.passed.contains(file));
        let is_later = self.names[from..].iter().any(|name| is_of(name, file));
        if is_later { Ordering::Greater } else { Ordering::Less }
    }

    /// What the dataset still has when the sources have come to their end.
    fn rest(&mut self) {
        let splits: Vec<String> = self.splits.keys().cloned().collect();
        for split in splits {
            while let Some((place, row)) = self.take(&split) {
                self.surplus(&place, &row);
            }
        }
    }

    /// A row that does not come out of the sources; of a file that is not there it has been said already.
    fn surplus(&mut self, place: &str, row: &Row) {
        let Row { provenance, .. } = row;
        if !self.missing.iter().any(|name| is_of(name, &provenance[0].file)) {
            let origin = format!("{}:{}", provenance[0].file, provenance[0].line);
            self.problems.add(&origin, format!("{place} does not come out of the sources"));
        }
    }

    fn peek(&mut self, split: &str) -> Option<&(String, Row)> {
        if let Err(error) = self.splits.get_mut(split)?.peek()? {
            let said = error.to_string();
            self.close(split, said);
        }
        self.splits.get_mut(split)?.peek()?.as_ref().ok()
    }

    fn take(&mut self, split: &str) -> Option<(String, Row)> {
        match self.splits.get_mut(split)?.next()? {
            Ok(row) => Some(row),
            Err(error) => {
                self.close(split, error.to_string());
                None
            }
        }
    }

    /// A split that cannot be read has no further rows.
    fn close(&mut self, split: &str, said: String) {
        self.problems.add(split, said);
        self.splits.remove(split);
    }
}

/// How a row of the dataset differs from the one that came out of the sources.
fn difference(stored: &Row, again: &Row) -> Option<String> {
    let said = |values: &[i32], at: usize| values.get(at).map_or_else(|| "the end".to_owned(), ToString::to_string);
    if let Some(at) = first_difference(&stored.input_ids, &again.input_ids) {
        let (was, now) = (said(&stored.input_ids, at), said(&again.input_ids, at));
        return Some(format!("token {at} is {was}, the source gives {now}"));
    }
    if let Some(at) = first_difference(&stored.labels, &again.labels) {
        let (was, now) = (said(&stored.labels, at), said(&again.labels, at));
        return Some(format!("the label of token {at} is {was}, the source gives {now}"));
    }
    if stored.preference != again.preference || stored.provenance.len() != again.provenance.len() {
        return Some("what is said of the answers is another than the source gives".to_owned());
    }
    let differs = |(stored, again): (&Provenance, &Provenance)| {
        let columns = [
            ("dialogue_id", stored.dialogue_id != again.dialogue_id),
            ("window", stored.window != again.window),
            ("fold", stored.fold != again.fold),
            ("trained_messages", stored.trained_messages != again.trained_messages),
            ("text_hash", stored.text_hash != again.text_hash),
            ("target_hash", stored.target_hash != again.target_hash),
            // Of a sequence it is filled in where it is written.
            ("length", again.length != 0 && stored.length != again.length),
        ];
        columns.iter().find(|(_, differs)| *differs).map(|(name, _)| *name)
    };
    let name = stored.provenance.iter().zip(&again.provenance).find_map(differs)?;
    Some(format!("`{name}` is another than the source gives"))
}
