//! Rows become Arrow files, and at the very end `manifest.json` makes them a dataset.
//!
//! In: [`Row`]s of examples, [`DialogueRow`]s and rejects, in input order. Out: the folder that DESIGN.md section 8 describes.
//! What is guaranteed: every file appears whole or not at all; without the manifest there is no dataset; a folder
//! that holds somebody else's files is never touched. Arrow IPC streams, uncompressed, so that readers can map them.

mod blocks;
mod columns;
mod dialogues;
mod files;
mod journal;
mod manifest;
mod preferences;
mod rows;
mod sorted;
mod splits;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use arrow_schema::ArrowError;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Located;
use crate::dialogue::Location;
use crate::error::{Error, ErrorKind, Result};
use crate::pack::Packing;
use crate::tokenize::{Before, UNTRAINED};
use journal::{Checkpoint, Journal, sweep};

pub use dialogues::DialogueRow;
pub(crate) use files::AtomicFile;
pub use manifest::{
    AnswerLengths, Canary, Certificate, CertifiedStop, DialogueLine, FORMAT, FORMAT_VERSION, FileEntry, FileFault,
    Ledger, MANIFEST, Manifest, Proof, RecordLine, Shard, SideLengths, Size, TurnLine, WindowCounts,
};
pub(crate) use rows::{Columns, Rows, examples, open, unreadable};
pub(crate) use sorted::sorted;
pub use splits::SplitsWriter;

/// Rows of a batch: `datasets` reads single rows quickest from batches of about this size.
const BATCH_ROWS: usize = 1000;
/// Tokens after which a batch is closed early: a few megabytes stay near the processor, and are the same each time.
const BATCH_TOKENS: usize = 1 << 19;
/// Tokens after which a shard is closed unless told otherwise: about half a gigabyte.
pub const SHARD_TOKENS: u64 = 1 << 26;
/// Stands in a folder while a dataset is being made in it; holds the [`Journal`].
const MARKER: &str = ".dlgc-incomplete";
/// Folder in which rows lie that are yet to be packed.
const UNPACKED: &str = ".unpacked";
/// Folder for what does not fit into memory.
const SCRATCH: &str = ".scratch";
/// Names of the splits.
const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// What the rows of a dataset are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowKind {
    /// Sequences, for supervised fine-tuning.
    #[default]
    Sft,
    /// Prompts, each with a better and a worse answer.
    Preference,
    /// Prompts, each with an answer that is good or bad.
    Kto,
}

impl RowKind {
    /// Its name, as options and manifest have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Preference => "preference",
            Self::Kto => "kto",
        }
    }

    /// Whether they are sequences.
    pub fn is_sft(&self) -> bool {
        *self == Self::Sft
    }
}

/// One row of a shard, or one example.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Row {
    /// How it begins, where that is left out of what follows; never so of one that is stored.
    #[serde(skip)]
    pub before: Before,
    /// Token ids; of preferences those of the prompt, then those of each answer.
    pub input_ids: Vec<i32>,
    /// The id where it is trained, −100 elsewhere.
    pub labels: Vec<i32>,
    /// One entry for each example, or for each answer.
    pub provenance: Vec<Provenance>,
    /// What answers are to each other; `None` where the row is a sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<Preference>,
}

/// What makes a row one of preferences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preference {
    /// Tokens of the prompt, with which the row begins.
    pub prompt: u64,
    /// Hash of the decoded prompt.
    pub prompt_hash: u64,
    /// What is said of the answers.
    pub judgement: Judgement,
    /// The kind of negative that the worse answer is; empty where nobody says so.
    pub negative: String,
}

/// What is said of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Judgement {
    /// The first one is better than the second.
    Pair {
        /// The first token in which they differ.
        divergence: u64,
    },
    /// Whether the only one is good.
    Label(bool),
}

/// Where an example came from, and what it must decode to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Provenance {
    /// The dialogue's id.
    pub dialogue_id: String,
    /// Its file.
    pub file: String,
    /// Its place in the file.
    pub line: u64,
    /// Which window of the dialogue, from 0.
    pub window: i32,
    /// Its fold for cross-validation, from 0; -1 where there are none.
    pub fold: i32,
    /// Indices of the messages that are trained.
    pub trained_messages: Vec<usize>,
    /// Hash of the decoded ids.
    pub text_hash: u64,
    /// Hash of the decoded targets.
    pub target_hash: u64,
    /// How many tokens it has; of a sequence filled in where it is written.
    pub length: u64,
    /// Its number in its split, from 0; filled in where it is written.
    pub example: u64,
}

impl Row {
    /// How many tokens it has.
    pub(crate) fn length(&self) -> usize {
        self.before.len() + self.input_ids.len()
    }

    /// The same with nothing left out.
    pub(crate) fn whole(mut self) -> Self {
        self.before.join(&mut self.input_ids, &mut self.labels);
        self
    }

    /// What it adds to a shard.
    pub(crate) fn size(&self, is_packed: bool) -> Size {
        let trained: u32 = self.labels.iter().map(|&label| u32::from(label != UNTRAINED)).sum();
        let examples = if is_packed { self.provenance.len() as u64 } else { 0 };
        Size { rows: 1, tokens: self.input_ids.len() as u64, trained_tokens: trained.into(), examples }
    }

    /// Examples as one row.
    pub(crate) fn join(examples: Vec<Self>) -> Self {
        let more = examples.iter().skip(1).map(|example| example.input_ids.len()).sum();
        let mut examples = examples.into_iter();
        let mut row = examples.next().unwrap_or_default();
        row.input_ids.reserve(more);
        row.labels.reserve(more); // as many as ids
        for example in examples {
            row.input_ids.extend(example.input_ids);
            row.labels.extend(example.labels);
            row.provenance.extend(example.provenance);
        }
        row
    }

    /// What its kind of dataset is called.
    pub(crate) fn kind(&self) -> RowKind {
        match &self.preference {
            None => RowKind::Sft,
            Some(Preference { judgement: Judgement::Pair { .. }, .. }) => RowKind::Preference,
            Some(Preference { judgement: Judgement::Label(_), .. }) => RowKind::Kto,
        }
    }

    /// Tokens before its first answer; none in a sequence.
    pub(crate) fn prompt_ids(&self) -> &[i32] {
        let length = self.preference.as_ref().map_or(0, |preference| preference.prompt);
        &self.input_ids[..usize::try_from(length).unwrap_or(usize::MAX).min(self.input_ids.len())]
    }

    /// Tokens that a model sees at once: all of a sequence, of preferences the prompt and the longest answer.
    pub(crate) fn longest(&self) -> usize {
        match &self.preference {
            None => self.input_ids.len(),
            Some(_) => self.prompt_ids().len() + self.parts().map(|(ids, ..)| ids.len()).max().unwrap_or_default(),
        }
    }

    /// Ids and labels of each example, or answer; where the lengths are those of another row, as far as there are any.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&[i32], &[i32], &Provenance)> {
        let mut end = self.prompt_ids().len();
        self.provenance.iter().map(move |origin| {
            let start = end;
            end = start.saturating_add(usize::try_from(origin.length).unwrap_or(usize::MAX));
            let of = |tokens: &'_ [i32]| start.min(tokens.len())..end.min(tokens.len());
            (&self.input_ids[of(&self.input_ids)], &self.labels[of(&self.labels)], origin)
        })
    }

    /// Its examples, each a row.
    pub(crate) fn split(self) -> Vec<Self> {
        if self.provenance.len() == 1 {
            return vec![self];
        }
        let part = |(ids, labels, origin): (&[i32], &[i32], &Provenance)| Self {
            input_ids: ids.to_vec(),
            labels: labels.to_vec(),
            provenance: vec![origin.clone()],
            ..Self::default()
        };
        self.parts().map(part).collect()
    }
}

/// The first place in which two lists of tokens differ, the end of the shorter one included; `None` if they are the same.
pub(crate) fn first_difference(left: &[i32], right: &[i32]) -> Option<usize> {
    let at = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    (at < left.len().max(right.len())).then_some(at)
}

/// An error of the writer of a file below `root`.
fn arrow_error(root: &Path, name: &str, error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, source) => Error::io(root.join(name), source),
        other => Error::new(ErrorKind::Shard, other.to_string()),
    }
}

/// Where a dataset goes, and what tells one compilation from another.
#[derive(Debug)]
pub struct WritePlan<'p> {
    /// The folder.
    pub root: PathBuf,
    /// Digest of everything that decides the dataset but the content of its inputs.
    pub run: String,
    /// Tokens after which a shard is closed.
    pub shard_tokens: u64,
    /// Whether a dataset that is there may be replaced.
    pub overwrite: bool,
    /// What the rows are.
    pub rows: RowKind,
    /// How examples share rows; with `bfd-global` rows come packed.
    pub packing: Packing,
    /// Token budget of a row.
    pub max_length: Option<u64>,
    /// The tokenizer's files by name.
    pub tokenizer: &'p [(String, Vec<u8>)],
}

/// Writes a dataset.
pub struct DatasetWriter {
    root: PathBuf,
    run: String,
    splits: SplitsWriter,
    dialogues: dialogues::DialoguesWriter,
    rejects: dialogues::RejectsWriter,
    tokenizer: Vec<AtomicFile>,
}

/// What the writer knows when all rows are written.
#[derive(Debug)]
pub struct Written {
    /// The shards.
    pub shards: Vec<Shard>,
    /// Every other file.
    pub files: Vec<FileEntry>,
    /// Sizes of the splits.
    pub splits: BTreeMap<String, Size>,
}

impl DatasetWriter {
    /// Begins a dataset; clears what an interrupted run left there.
    ///
    /// # Errors
    /// [`ErrorKind::Shard`] where the folder holds a dataset and `overwrite` is not set, or other files.
    pub fn create(plan: &WritePlan<'_>) -> Result<Self> {
        prepare(plan)?;
        Self::open(plan, None)
    }

    /// Goes on with a dataset whose compilation was interrupted, behind its last checkpoint, and hands back what the
    /// checkpoint was made with; `None` where there is nothing to go on with.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the disk fails.
    pub fn resume(plan: &WritePlan<'_>) -> Result<Option<(Self, serde_json::Value)>> {
        let Some(journal) = Journal::load(&plan.root) else { return Ok(None) };
        let manifest = plan.root.join(MANIFEST);
        let (true, Some(checkpoint)) = (journal.run == plan.run, journal.checkpoint) else { return Ok(None) };
        if manifest.exists() && !journal.committing {
            return Ok(None); // an older dataset, which `create` may or may not replace
        }
        if manifest.exists() {
            fs::remove_file(&manifest).map_err(|error| Error::io(&manifest, error))?;
        }
        let state = checkpoint.state.clone();
        let whole = checkpoint.shards().all(|shard| {
            let size = plan.root.join(&shard.file.path).metadata().map(|metadata| metadata.len());
            size.is_ok_and(|size| size == shard.file.bytes)
        });
        // A folder that somebody has changed since is begun anew.
        match Self::open(plan, Some(&checkpoint)) {
            Ok(writer) if whole => {
                sweep(&plan.root, &checkpoint)?;
                Ok(Some((writer, state)))
            }
            _ => Ok(None),
        }
    }

    fn open(plan: &WritePlan<'_>, checkpoint: Option<&Checkpoint>) -> Result<Self> {
        let root = &plan.root;
        let begun = plan.tokenizer.iter().map(|(name, bytes)| files::begin(root, &format!("tokenizer/{name}"), bytes));
        let tokenizer = begun.collect::<Result<_>>()?;
        let mut splits = SplitsWriter::create(plan);
        if let Some(checkpoint) = checkpoint {
            splits.resume(&checkpoint.splits)?;
        }
        Ok(Self {
            root: root.clone(),
            run: plan.run.clone(),
            splits,
            dialogues: dialogues::DialoguesWriter::create(root, checkpoint.map(|checkpoint| checkpoint.dialogues))?,
            rejects: dialogues::RejectsWriter::create(root, checkpoint.map(|checkpoint| checkpoint.rejects))?,
            tokenizer,
        })
    }

    /// Appends an example to a split.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the disk fails.
    pub fn row(&mut self, split: &str, row: Row) -> Result<()> {
        self.splits.example(split, row)
    }

    /// Appends a row about a dialogue.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the disk fails.
    pub fn dialogue(&mut self, row: DialogueRow) -> Result<()> {
        self.dialogues.push(row)
    }

    /// Keeps a rejected record byte for byte.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the disk fails.
    pub fn reject(&mut self, location: &Location, record: &[u8], diagnostics: &[Located]) -> Result<()> {
        self.rejects.push(location, record, diagnostics)
    }

    /// Closes the shards that have their size; whether it is time for a checkpoint. To be asked at the end of a record
    /// only, so that the rows of a record are never on both sides of a checkpoint.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the disk fails.
    pub fn close_full_shards(&mut self) -> Result<bool> {
        self.splits.close_full_shards()
    }

    /// Makes everything so far durable, and notes that this compilation may go on from here; `state` is handed back
    /// then.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the disk fails.
    pub fn checkpoint(&mut self, state: serde_json::Value) -> Result<()> {
        let splits = self.splits.settle()?;
        let (dialogues, rejects) = (self.dialogues.settle()?, self.rejects.settle()?);
        let checkpoint = Some(Checkpoint { splits, dialogues, rejects, state });
        Journal { run: self.run.clone(), checkpoint, committing: false }.save(&self.root)
    }

    /// Packs and writes what waits: nothing will be appended any more.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the disk fails.
    pub fn write_rest(&mut self) -> Result<()> {
        self.splits.write_rest()?;
        self.dialogues.flush()
    }

    /// Closes all files; the manifest is still missing.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the disk fails.
    pub fn finish(self) -> Result<Written> {
        let mut written = self.splits.finish()?;
        let mut files = self.tokenizer.into_iter().map(AtomicFile::commit).collect::<Result<Vec<_>>>()?;
        files.append(&mut written.files);
        files.push(self.dialogues.finish()?);
        files.extend(self.rejects.finish()?);
        Ok(Written { files, ..written })
    }
}

/// Writes the manifest: from here on the folder is a dataset.
///
/// # Errors
/// [`ErrorKind::Io`] where the disk fails.
pub fn commit(plan: &WritePlan<'_>, manifest: &Manifest) -> Result<()> {
    let root = &plan.root;
    let mut bytes = serde_json::to_vec_pretty(manifest).expect("a manifest is JSON");
    bytes.push(b'\n');
    files::sync_folder(root)?;
    if let Some(journal) = Journal::load(root) {
        Journal { committing: true, ..journal }.save(root)?;
    }
    files::write(root, MANIFEST, &bytes)?;
    let marker = root.join(MARKER);
    fs::remove_file(&marker).map_err(|error| Error::io(&marker, error))?;
    files::sync_folder(root)
}

/// Takes the folder of a dataset whose rows are packed from those of another one.
///
/// # Errors
/// As [`DatasetWriter::create`].
pub(crate) fn claim(plan: &WritePlan<'_>) -> Result<()> {
    let manifest = plan.root.join(MANIFEST);
    match Journal::load(&plan.root) {
        // It was interrupted. What it had packed is begun anew; the rows that it packs may be there.
        Some(journal) if journal.run == plan.run && (journal.committing || !manifest.exists()) => {
            if manifest.exists() {
                fs::remove_file(&manifest).map_err(|error| Error::io(&manifest, error))?;
            }
            remove_folders(&plan.root, &[&SPLITS[..], &["rejects", "tokenizer", SCRATCH]].concat())
        }
        _ => prepare(plan),
    }
}

/// The rows below a claimed folder that are yet to be packed.
pub(crate) fn unpacked<'p>(plan: &WritePlan<'p>) -> WritePlan<'p> {
    let root = plan.root.join(UNPACKED);
    WritePlan { root, run: plan.run.clone(), packing: Packing::None, overwrite: true, ..*plan }
}

/// Removes the rows below a claimed folder.
pub(crate) fn discard(plan: &WritePlan<'_>) -> Result<()> {
    remove_folders(&plan.root, &[UNPACKED])
}

/// Where a claimed folder has room for what does not fit into memory.
pub(crate) fn scratch(plan: &WritePlan<'_>) -> PathBuf {
    plan.root.join(SCRATCH)
}

/// Begins the shards of a claimed folder.
pub(crate) fn packed(plan: &WritePlan<'_>) -> SplitsWriter {
    SplitsWriter::create(plan)
}

/// Closes the shards of a claimed folder and puts beside them the files of the dataset whose rows were packed.
///
/// # Errors
/// [`ErrorKind::Shard`] where one of those is not what it was, [`ErrorKind::Io`] where the disk fails.
pub(crate) fn complete(
    plan: &WritePlan<'_>,
    writer: SplitsWriter,
    from: &Path,
    files: &[FileEntry],
) -> Result<Written> {
    let mut written = writer.finish()?;
    let of_splits = std::mem::take(&mut written.files);
    let mut others = Vec::new();
    let is_of_split = |entry: &&FileEntry| SPLITS.iter().any(|split| entry.path.starts_with(&format!("{split}/")));
    for entry in files.iter().filter(|entry| !is_of_split(entry)) {
        let copy = files::copy(from, &plan.root, &entry.path)?;
        if copy.blake3 != entry.blake3 {
            let message = format!("`{}` is not what was written with the dataset", from.join(&entry.path).display());
            return Err(Error::new(ErrorKind::Shard, message).hint("`dlgc verify` lists what changed"));
        }
        others.push(copy);
    }
    // In the order of a dataset that is packed at once: first the tokenizer.
    let tokenizer = others.iter().take_while(|entry| entry.path.starts_with("tokenizer/")).count();
    let rest = others.split_off(tokenizer);
    written.files = others.into_iter().chain(of_splits).chain(rest).collect();
    remove_folders(&plan.root, &[UNPACKED, SCRATCH])?;
    Ok(written)
}

fn remove_folders(root: &Path, names: &[&str]) -> Result<()> {
    for folder in names.iter().map(|name| root.join(name)).filter(|folder| folder.is_dir()) {
        fs::remove_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
    }
    Ok(())
}

fn prepare(plan: &WritePlan<'_>) -> Result<()> {
    let WritePlan { root, run, overwrite, .. } = plan;
    let io = |path: &Path, error| Error::io(path, error);
    let marker = root.join(MARKER);
    let journal = Journal { run: run.clone(), checkpoint: None, committing: false };
    if root.exists() {
        if !root.is_dir() {
            return Err(Error::new(ErrorKind::Shard, format!("`{}` is a file, not a folder", root.display())));
        }
        let manifest = root.join(MANIFEST);
        let was_committing = Journal::load(root).is_some_and(|journal| journal.committing && journal.run == *run);
        if manifest.exists() && !overwrite && !was_committing {
            let message = format!("`{}` already holds a dataset", root.display());
            return Err(Error::new(ErrorKind::Shard, message).hint("`--overwrite` replaces it"));
        }
        let empty = fs::read_dir(root).map_err(|error| io(root, error))?.next().is_none();
        if !manifest.exists() && !marker.exists() && !empty {
            let message = format!("`{}` is not empty, and what is in it is no dataset", root.display());
            return Err(Error::new(ErrorKind::Shard, message).hint("name an empty or a new folder"));
        }
        // First the marker, then the manifest goes: at no moment does the folder look like a dataset that it is not.
        if !marker.exists() {
            fs::write(&marker, b"").map_err(|error| io(&marker, error))?;
        }
        journal.save(root)?;
        if manifest.exists() {
            fs::remove_file(&manifest).map_err(|error| io(&manifest, error))?;
        }
        files::sync_folder(root)?;
        remove_folders(root, &[&SPLITS[..], &["rejects", "tokenizer", UNPACKED, SCRATCH]].concat())?;
        for name in ["dialogues.arrow", MANIFEST] {
            for path in [root.join(name), root.join(format!("{name}{}", files::PARTIAL))] {
                if path.exists() {
                    fs::remove_file(&path).map_err(|error| io(&path, error))?;
                }
            }
        }
    } else {
        fs::create_dir_all(root).map_err(|error| io(root, error))?;
        fs::write(&marker, b"").map_err(|error| io(&marker, error))?;
        journal.save(root)?;
    }
    files::sync_folder(root)
}
