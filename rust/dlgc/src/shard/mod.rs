//! Rows become Arrow files, and at the very end `manifest.json` makes them a dataset.
//!
//! In: [`Row`]s, [`DialogueRow`]s and rejects, in input order. Out: the folder that DESIGN.md section 8 describes.
//! What is guaranteed: every file appears whole or not at all; without the manifest there is no dataset; a folder
//! that holds somebody else's files is never touched. Arrow IPC streams, uncompressed, so that readers can map them.

mod columns;
mod dialogues;
mod files;
mod journal;
mod manifest;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, Schema};
use serde_json::json;

use crate::diagnostic::Located;
use crate::dialogue::Location;
use crate::error::{Error, ErrorKind, Result};
use crate::tokenize::UNTRAINED;
use journal::{Checkpoint, Journal, SplitState, sweep};

pub use dialogues::DialogueRow;
pub(crate) use files::AtomicFile;
pub use manifest::{
    Canary, Certificate, CertifiedStop, DialogueLine, FORMAT, FORMAT_VERSION, FileEntry, FileFault, Ledger, MANIFEST,
    Manifest, Proof, RecordLine, Shard, Size, TurnLine, WindowCounts,
};

/// Rows of a batch: `datasets` reads single rows quickest from batches of about this size.
const BATCH_ROWS: usize = 1000;
/// Tokens after which a batch is closed early.
const BATCH_TOKENS: usize = 1 << 22;
/// Tokens after which a shard is closed unless told otherwise: about half a gigabyte.
pub const SHARD_TOKENS: u64 = 1 << 26;
/// Stands in a folder while a dataset is being made in it; holds the [`Journal`].
const MARKER: &str = ".dlgc-incomplete";
/// Names of the splits.
const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// One row of a shard.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Token ids.
    pub input_ids: Vec<i32>,
    /// The id where it is trained, −100 elsewhere.
    pub labels: Vec<i32>,
    /// One entry for each example.
    pub provenance: Vec<Provenance>,
}

/// Where an example came from, and what it must decode to.
#[derive(Debug, Clone, Default)]
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
}

impl Row {
    fn size(&self) -> Size {
        let trained = self.labels.iter().filter(|&&label| label != UNTRAINED).count();
        Size { rows: 1, tokens: self.input_ids.len() as u64, trained_tokens: trained as u64 }
    }
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
    /// The tokenizer's files by name.
    pub tokenizer: &'p [(String, Vec<u8>)],
}

/// Writes a dataset.
pub struct DatasetWriter {
    root: PathBuf,
    run: String,
    shard_tokens: u64,
    schema: Arc<Schema>,
    splits: BTreeMap<String, SplitWriter>,
    dialogues: dialogues::DialoguesWriter,
    rejects: dialogues::RejectsWriter,
    files: Vec<FileEntry>,
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
        let mut files = Vec::new();
        for (name, bytes) in plan.tokenizer {
            files.push(files::write(root, &format!("tokenizer/{name}"), bytes)?);
        }
        let schema = columns::schema();
        let mut splits: BTreeMap<_, _> = [("train".to_owned(), SplitWriter::create(root, "train", &schema))].into();
        for (name, split) in checkpoint.iter().flat_map(|checkpoint| &checkpoint.splits) {
            splits.insert(name.clone(), SplitWriter::resume(root, name, &schema, split)?);
        }
        Ok(Self {
            root: root.clone(),
            run: plan.run.clone(),
            shard_tokens: plan.shard_tokens,
            schema,
            splits,
            dialogues: dialogues::DialoguesWriter::create(root, checkpoint.map(|checkpoint| checkpoint.dialogues))?,
            rejects: dialogues::RejectsWriter::create(root, checkpoint.map(|checkpoint| checkpoint.rejects))?,
            files,
        })
    }

    /// Appends a row to a split.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the disk fails.
    pub fn row(&mut self, split: &str, row: Row) -> Result<()> {
        if !self.splits.contains_key(split) {
            self.splits.insert(split.to_owned(), SplitWriter::create(&self.root, split, &self.schema));
        }
        self.splits.get_mut(split).expect("inserted above").push(row)
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

    /// Closes the shards that have their size; whether there were any. To be asked at the end of a record only, so
    /// that the rows of a record are never on both sides of a checkpoint.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the disk fails.
    pub fn close_full_shards(&mut self) -> Result<bool> {
        let mut closed = false;
        for writer in self.splits.values_mut() {
            if writer.tokens() >= self.shard_tokens {
                writer.flush()?;
                writer.close()?;
                closed = true;
            }
        }
        Ok(closed)
    }

    /// Makes everything so far durable, and notes that this compilation may go on from here; `state` is handed back
    /// then.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the disk fails.
    pub fn checkpoint(&mut self, state: serde_json::Value) -> Result<()> {
        let mut splits = BTreeMap::new();
        for (name, writer) in &mut self.splits {
            splits.insert(name.clone(), writer.settle()?);
        }
        let (dialogues, rejects) = (self.dialogues.settle()?, self.rejects.settle()?);
        let checkpoint = Some(Checkpoint { splits, dialogues, rejects, state });
        Journal { run: self.run.clone(), checkpoint, committing: false }.save(&self.root)
    }

    /// Closes all files; the manifest is still missing.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the disk fails.
    pub fn finish(mut self) -> Result<Written> {
        let mut shards = Vec::new();
        let mut sizes = BTreeMap::new();
        for (split, writer) in self.splits {
            let mut size = Size::default();
            let (written, files) = writer.finish()?;
            written.iter().for_each(|shard| size.add(shard.size));
            sizes.insert(split, size);
            shards.extend(written);
            self.files.extend(files);
        }
        self.files.push(self.dialogues.finish()?);
        self.files.extend(self.rejects.finish()?);
        Ok(Written { shards, files: self.files, splits: sizes })
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
        for name in SPLITS.into_iter().chain(["rejects", "tokenizer"]) {
            let folder = root.join(name);
            if folder.is_dir() {
                fs::remove_dir_all(&folder).map_err(|error| io(&folder, error))?;
            }
        }
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

/// A stream of batches into a file: a new one, or one that goes on behind so many bytes.
fn stream(root: &Path, name: &str, schema: &Schema, resumed: Option<u64>) -> Result<StreamWriter<AtomicFile>> {
    let file = match resumed {
        None => AtomicFile::create(root, name)?,
        Some(bytes) => AtomicFile::resume(root, name, bytes)?,
    };
    let mut writer = StreamWriter::try_new(file, schema).map_err(|error| arrow_error(root, name, error))?; // writes the schema, unless it is there
    writer.get_mut().unmute();
    Ok(writer)
}

/// Writes the shards of one split.
struct SplitWriter {
    root: PathBuf,
    split: String,
    schema: Arc<Schema>,
    open: Option<StreamWriter<AtomicFile>>,
    open_size: Size,
    pending: Vec<Row>,
    pending_tokens: usize,
    shards: Vec<Shard>,
}

fn shard_name(split: &str, number: usize) -> String {
    format!("{split}/data-{number:05}.arrow")
}

impl SplitWriter {
    fn create(root: &Path, split: &str, schema: &Arc<Schema>) -> Self {
        Self {
            root: root.to_owned(),
            split: split.to_owned(),
            schema: Arc::clone(schema),
            open: None,
            open_size: Size::default(),
            pending: Vec::new(),
            pending_tokens: 0,
            shards: Vec::new(),
        }
    }

    /// Goes on where an interrupted run was.
    fn resume(root: &Path, split: &str, schema: &Arc<Schema>, state: &SplitState) -> Result<Self> {
        let mut writer = Self::create(root, split, schema);
        writer.shards.clone_from(&state.shards);
        if let Some((bytes, size)) = state.open {
            writer.open = Some(stream(root, &shard_name(split, state.shards.len()), schema, Some(bytes))?);
            writer.open_size = size;
        }
        Ok(writer)
    }

    /// Tokens of the shard that is open.
    fn tokens(&self) -> u64 {
        self.open_size.tokens + self.pending_tokens as u64
    }

    /// Makes the rows so far durable.
    fn settle(&mut self) -> Result<SplitState> {
        if !self.pending.is_empty() {
            self.flush()?;
        }
        let open = match &mut self.open {
            Some(writer) => Some((writer.get_mut().settle()?, self.open_size)),
            None => None,
        };
        Ok(SplitState { shards: self.shards.clone(), open })
    }

    fn push(&mut self, row: Row) -> Result<()> {
        self.pending_tokens += row.input_ids.len();
        self.pending.push(row);
        if self.pending.len() >= BATCH_ROWS || self.pending_tokens >= BATCH_TOKENS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.open.is_none() {
            let name = shard_name(&self.split, self.shards.len());
            self.open = Some(stream(&self.root, &name, &self.schema, None)?);
        }
        let rows = std::mem::take(&mut self.pending);
        self.pending_tokens = 0;
        if rows.is_empty() {
            return Ok(());
        }
        let name = shard_name(&self.split, self.shards.len());
        let batch = columns::batch(&self.schema, &rows).map_err(|error| arrow_error(&self.root, &name, error))?;
        rows.iter().for_each(|row| self.open_size.add(row.size()));
        let open = self.open.as_mut().expect("opened above");
        open.write(&batch).map_err(|error| arrow_error(&self.root, &name, error))
    }

    fn close(&mut self) -> Result<()> {
        if let Some(writer) = self.open.take() {
            let name = shard_name(&self.split, self.shards.len());
            let file = writer.into_inner().map_err(|error| arrow_error(&self.root, &name, error))?.commit()?;
            self.shards.push(Shard { file, split: self.split.clone(), size: std::mem::take(&mut self.open_size) });
        }
        Ok(())
    }

    /// Closes the last shard and writes what `datasets.load_from_disk` needs.
    fn finish(mut self) -> Result<(Vec<Shard>, [FileEntry; 2])> {
        if !self.pending.is_empty() || self.shards.is_empty() {
            self.flush()?; // an empty split still has one shard, with the schema
        }
        self.close()?;
        let names: Vec<_> = self
            .shards
            .iter()
            .map(|shard| json!({"filename": shard.file.path.rsplit('/').next().unwrap_or_default()}))
            .collect();
        // `datasets` only compares fingerprints; the digests of the shards make one that tells content.
        let digests: String = self.shards.iter().map(|shard| shard.file.sha256.as_str()).collect();
        let fingerprint = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(digests.as_bytes()));
        let state = json!({
            "_data_files": names, "_fingerprint": fingerprint, "_format_columns": null, "_format_kwargs": {},
            "_format_type": null, "_output_all_columns": false, "_split": self.split,
        });
        let info =
            json!({"citation": "", "description": "", "features": columns::features(), "homepage": "", "license": ""});
        let write = |name: &str, value: &serde_json::Value| {
            let mut bytes = serde_json::to_vec_pretty(value).expect("a JSON value is JSON");
            bytes.push(b'\n');
            files::write(&self.root, &format!("{}/{name}", self.split), &bytes)
        };
        let files = [write("state.json", &state)?, write("dataset_info.json", &info)?];
        Ok((self.shards, files))
    }
}
