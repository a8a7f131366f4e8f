//! Rows become Arrow files, and at the very end `manifest.json` makes them a dataset.
//!
//! In: [`Row`]s, [`DialogueRow`]s and rejects, in input order. Out: the folder that DESIGN.md section 8 describes.
//! What is guaranteed: every file appears whole or not at all; without the manifest there is no dataset; a folder
//! that holds somebody else's files is never touched. Arrow IPC streams, uncompressed, so that readers can map them.

mod columns;
mod dialogues;
mod files;
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
use files::AtomicFile;

pub use dialogues::DialogueRow;
pub use manifest::{
    Canary, Certificate, CertifiedStop, DialogueLine, FORMAT, FORMAT_VERSION, FileEntry, Input, Ledger, MANIFEST,
    Manifest, Proof, RecordLine, Shard, Size, TurnLine,
};

/// Rows of a batch: `datasets` reads single rows quickest from batches of about this size.
const BATCH_ROWS: usize = 1000;
/// Tokens after which a batch is closed early.
const BATCH_TOKENS: usize = 1 << 22;
/// Tokens after which a shard is closed: about half a gigabyte.
const SHARD_TOKENS: u64 = 1 << 26;
/// Stands in a folder while a dataset is being made in it.
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

fn arrow_error(error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, source) => Error::io("the dataset", source),
        other => Error::new(ErrorKind::Shard, other.to_string()),
    }
}

/// Writes a dataset.
pub struct DatasetWriter {
    root: PathBuf,
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
    /// Begins a dataset in `root`; clears what an interrupted run left there.
    ///
    /// # Errors
    /// [`ErrorKind::Shard`] where the folder holds a dataset and `overwrite` is not set, or other files.
    pub fn create(root: &Path, overwrite: bool, tokenizer: &[(String, Vec<u8>)]) -> Result<Self> {
        prepare(root, overwrite)?;
        let mut files = Vec::new();
        for (name, bytes) in tokenizer {
            files.push(files::write(root, &format!("tokenizer/{name}"), bytes)?);
        }
        let schema = columns::schema();
        let splits = [("train".to_owned(), SplitWriter::create(root, "train", &schema))].into();
        Ok(Self {
            root: root.to_owned(),
            schema,
            splits,
            dialogues: dialogues::DialoguesWriter::create(root)?,
            rejects: dialogues::RejectsWriter::create(root)?,
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
pub fn commit(root: &Path, manifest: &Manifest) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(manifest).expect("a manifest is JSON");
    bytes.push(b'\n');
    files::sync_folder(root)?;
    files::write(root, MANIFEST, &bytes)?;
    let marker = root.join(MARKER);
    fs::remove_file(&marker).map_err(|error| Error::io(&marker, error))?;
    files::sync_folder(root)
}

fn prepare(root: &Path, overwrite: bool) -> Result<()> {
    let io = |path: &Path, error| Error::io(path, error);
    let marker = root.join(MARKER);
    if root.exists() {
        if !root.is_dir() {
            return Err(Error::new(ErrorKind::Shard, format!("`{}` is a file, not a folder", root.display())));
        }
        let manifest = root.join(MANIFEST);
        if manifest.exists() && !overwrite {
            let message = format!("`{}` already holds a dataset", root.display());
            return Err(Error::new(ErrorKind::Shard, message).hint("`--overwrite` replaces it"));
        }
        let empty = fs::read_dir(root).map_err(|error| io(root, error))?.next().is_none();
        if !manifest.exists() && !marker.exists() && !empty {
            let message = format!("`{}` is not empty, and what is in it is no dataset", root.display());
            return Err(Error::new(ErrorKind::Shard, message).hint("name an empty or a new folder"));
        }
        // First the marker, then the manifest goes: at no moment does the folder look like a dataset that it is not.
        fs::write(&marker, b"").map_err(|error| io(&marker, error))?;
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
        for name in [
            "dialogues.arrow".to_owned(),
            format!("dialogues.arrow{}", files::PARTIAL),
            format!("{MANIFEST}{}", files::PARTIAL),
        ] {
            let path = root.join(name);
            if path.exists() {
                fs::remove_file(&path).map_err(|error| io(&path, error))?;
            }
        }
    } else {
        fs::create_dir_all(root).map_err(|error| io(root, error))?;
        fs::write(&marker, b"").map_err(|error| io(&marker, error))?;
    }
    files::sync_folder(root)
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

    fn push(&mut self, row: Row) -> Result<()> {
        self.pending_tokens += row.input_ids.len();
        self.pending.push(row);
        if self.pending.len() >= BATCH_ROWS || self.pending_tokens >= BATCH_TOKENS {
            self.flush()?;
            if self.open_size.tokens >= SHARD_TOKENS {
                self.close()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.open.is_none() {
            let name = format!("{}/data-{:05}.arrow", self.split, self.shards.len());
            let file = AtomicFile::create(&self.root, &name)?;
            self.open = Some(StreamWriter::try_new(file, &self.schema).map_err(arrow_error)?);
        }
        let rows = std::mem::take(&mut self.pending);
        self.pending_tokens = 0;
        if rows.is_empty() {
            return Ok(());
        }
        let batch = columns::batch(&self.schema, &rows).map_err(arrow_error)?;
        rows.iter().for_each(|row| self.open_size.add(row.size()));
        self.open.as_mut().expect("opened above").write(&batch).map_err(arrow_error)
    }

    fn close(&mut self) -> Result<()> {
        if let Some(writer) = self.open.take() {
            let file = writer.into_inner().map_err(arrow_error)?.commit()?;
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
