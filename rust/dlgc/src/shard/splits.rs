//! The rows of the splits, on their way into shards.
//!
//! In: examples, in the order of the input, or rows that are packed already. Out: for each split its Arrow files, and
//! what `datasets.load_from_disk` needs beside them. Examples are packed here where packing goes in one pass; what waits
//! for company is part of what a checkpoint keeps, so composition does not depend on where shards end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_ipc::writer::StreamWriter;
use arrow_schema::Schema;
use serde_json::json;

use super::columns::{self, Layout};
use super::files::{self, AtomicFile};
use super::journal::SplitState;
use super::{BATCH_ROWS, BATCH_TOKENS, FileEntry, Row, Shard, Size, WritePlan, Written, arrow_error};
use crate::error::Result;
use crate::pack::{Packer, Packing};

/// What all splits of a dataset have in common.
struct Common {
    root: PathBuf,
    shard_tokens: u64,
    packing: Packing,
    max_length: Option<u64>,
    layout: Layout,
    schema: Arc<Schema>,
}

/// Writes the splits of a dataset.
pub struct SplitsWriter {
    common: Arc<Common>,
    splits: BTreeMap<String, SplitWriter>,
}

impl SplitsWriter {
    /// Begins the splits; `train` is always there.
    pub(super) fn create(plan: &WritePlan<'_>) -> Self {
        let layout = Layout { rows: plan.rows, is_packed: plan.packing != Packing::None };
        let common = Arc::new(Common {
            root: plan.root.clone(),
            shard_tokens: plan.shard_tokens,
            packing: plan.packing,
            max_length: plan.max_length,
            layout,
            schema: columns::schema(layout),
        });
        let train = SplitWriter::create(&common, "train");
        Self { common, splits: [("train".to_owned(), train)].into() }
    }

    /// Goes on where an interrupted run was.
    pub(super) fn resume(&mut self, states: &BTreeMap<String, SplitState>) -> Result<()> {
        for (name, state) in states {
            self.splits.insert(name.clone(), SplitWriter::resume(&self.common, name, state)?);
        }
        Ok(())
    }

    /// A split, which is begun where it is new.
    fn split(&mut self, split: &str) -> &mut SplitWriter {
        if !self.splits.contains_key(split) {
            self.splits.insert(split.to_owned(), SplitWriter::create(&self.common, split));
        }
        self.splits.get_mut(split).expect("inserted above")
    }

    /// Begins a split, which may stay without rows.
    pub(crate) fn begin(&mut self, split: &str) {
        self.split(split);
    }

    /// Takes a split's next example; it is written at once, or when it is packed.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Io`] where the disk fails.
    pub fn example(&mut self, split: &str, row: Row) -> Result<()> {
        self.split(split).push(row)
    }

    /// Takes a split's next row, packed already.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Io`] where the disk fails.
    pub(crate) fn row(&mut self, split: &str, row: Row) -> Result<()> {
        self.split(split).write(row)
    }

    /// Closes the shards that have their size, which packed ones do by themselves. Whether it is time for a checkpoint:
    /// a shard was closed, or a split has taken as much as one holds.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Io`] where the disk fails.
    pub(crate) fn close_full_shards(&mut self) -> Result<bool> {
        let mut is_time = false;
        for writer in self.splits.values_mut() {
            is_time |= writer.close_if_full()? || writer.taken >= self.common.shard_tokens;
        }
        Ok(is_time)
    }

    /// Makes everything so far durable.
    pub(super) fn settle(&mut self) -> Result<BTreeMap<String, SplitState>> {
        self.splits.iter_mut().map(|(name, writer)| Ok((name.clone(), writer.settle()?))).collect()
    }

    /// Packs and writes what waits: nothing will be taken any more.
    pub(super) fn write_rest(&mut self) -> Result<()> {
        self.splits.values_mut().try_for_each(SplitWriter::write_rest)
    }

    /// Packs and writes what waits, and closes all files.
    pub(crate) fn finish(self) -> Result<Written> {
        let (mut shards, mut files, mut splits) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (split, writer) in self.splits {
            let mut size = Size::default();
            let (written, beside) = writer.finish()?;
            written.iter().for_each(|shard| size.add(shard.size));
            splits.insert(split, size);
            shards.extend(written);
            files.extend(beside);
        }
        Ok(Written { shards, files, splits })
    }
}

/// A stream of batches into a file that was begun, or goes on.
pub(super) fn stream(root: &Path, name: &str, schema: &Schema, file: AtomicFile) -> Result<StreamWriter<AtomicFile>> {
    let mut writer = StreamWriter::try_new(file, schema).map_err(|error| arrow_error(root, name, error))?; // writes the schema, unless it is there
    writer.get_mut().unmute();
    Ok(writer)
}

/// Writes the shards of one split.
struct SplitWriter {
    common: Arc<Common>,
    split: String,
    open: Option<StreamWriter<AtomicFile>>,
    open_size: Size,
    pending: Vec<Row>,
    pending_tokens: usize,
    shards: Vec<Shard>,
    /// Where examples wait for company, if they are packed on the way.
    packer: Option<Packer<Row>>,
    /// Examples so far.
    examples: u64,
    /// Their tokens since the last checkpoint.
    taken: u64,
}

pub(super) fn shard_name(split: &str, number: usize) -> String {
    format!("{split}/data-{number:05}.arrow")
}

impl SplitWriter {
    fn create(common: &Arc<Common>, split: &str) -> Self {
        let packer = match (common.packing, common.max_length) {
            (Packing::Bfd | Packing::TrlBfd, Some(max_length)) => Some(Packer::new(common.packing, max_length)),
            _ => None,
        };
        Self {
            common: Arc::clone(common),
            split: split.to_owned(),
            open: None,
            open_size: Size::default(),
            pending: Vec::new(),
            pending_tokens: 0,
            shards: Vec::new(),
            packer,
            examples: 0,
            taken: 0,
        }
    }

    /// Goes on where an interrupted run was.
    fn resume(common: &Arc<Common>, split: &str, state: &SplitState) -> Result<Self> {
        let mut writer = Self::create(common, split);
        writer.shards.clone_from(&state.shards);
        writer.packer.clone_from(&state.packer);
        writer.examples = state.examples;
        if let Some((bytes, size)) = state.open {
            let name = shard_name(split, state.shards.len());
            let file = AtomicFile::resume(&common.root, &name, bytes)?;
            writer.open = Some(stream(&common.root, &name, &common.schema, file)?);
            writer.open_size = size;
        }
        Ok(writer)
    }

    /// Closes the shard that is open if it has its size; whether it did.
    fn close_if_full(&mut self) -> Result<bool> {
        let tokens = self.open_size.tokens + self.pending_tokens as u64;
        if tokens < self.common.shard_tokens {
            return Ok(false);
        }
        self.flush()?;
        self.close()?;
        Ok(true)
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
        self.taken = 0;
        Ok(SplitState { shards: self.shards.clone(), open, packer: self.packer.clone(), examples: self.examples })
    }

    /// Takes the next example.
    fn push(&mut self, mut row: Row) -> Result<()> {
        let length = row.input_ids.len() as u64;
        if row.preference.is_none() {
            row.provenance.iter_mut().for_each(|origin| (origin.length, origin.example) = (length, self.examples));
        }
        self.examples += 1;
        self.taken += length;
        match &mut self.packer {
            None => self.write(row),
            Some(packer) => {
                let bins = packer.push(length, row);
                bins.into_iter().try_for_each(|bin| self.write(Row::join(bin)))
            }
        }
    }

    /// Takes the next row.
    fn write(&mut self, row: Row) -> Result<()> {
        self.pending_tokens += row.input_ids.len();
        self.pending.push(row);
        if self.pending.len() >= BATCH_ROWS || self.pending_tokens >= BATCH_TOKENS {
            self.flush()?;
        }
        // Rows that are packed come many at once, and are of no single record.
        if self.common.layout.is_packed {
            self.close_if_full()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let (root, schema) = (&self.common.root, &self.common.schema);
        let name = shard_name(&self.split, self.shards.len());
        if self.open.is_none() {
            self.open = Some(stream(root, &name, schema, AtomicFile::create_large(root, &name)?)?);
        }
        let rows = std::mem::take(&mut self.pending);
        self.pending_tokens = 0;
        if rows.is_empty() {
            return Ok(());
        }
        let layout = self.common.layout;
        let batch = columns::batch(schema, &rows, layout).map_err(|error| arrow_error(root, &name, error))?;
        rows.iter().for_each(|row| self.open_size.add(row.size(layout.is_packed)));
        let open = self.open.as_mut().expect("opened above");
        open.write(&batch).map_err(|error| arrow_error(root, &name, error))
    }

    fn close(&mut self) -> Result<()> {
        if let Some(writer) = self.open.take() {
            let (root, name) = (&self.common.root, shard_name(&self.split, self.shards.len()));
            let file = writer.into_inner().map_err(|error| arrow_error(root, &name, error))?.commit()?;
            self.shards.push(Shard { file, split: self.split.clone(), size: std::mem::take(&mut self.open_size) });
        }
        Ok(())
    }

    /// Packs and writes what waits.
    fn write_rest(&mut self) -> Result<()> {
        let bins = self.packer.as_mut().map(Packer::finish).unwrap_or_default();
        bins.into_iter().try_for_each(|bin| self.write(Row::join(bin)))?;
        // An empty split still has one shard, with the schema.
        if self.pending.is_empty() && !self.shards.is_empty() { Ok(()) } else { self.flush() }
    }

    /// Closes the last shard and writes what `datasets.load_from_disk` needs.
    fn finish(mut self) -> Result<(Vec<Shard>, [FileEntry; 2])> {
        self.write_rest()?;
        self.close()?;
        let names: Vec<_> = self
            .shards
            .iter()
            .map(|shard| json!({"filename": shard.file.path.rsplit('/').next().unwrap_or_default()}))
            .collect();
        // `datasets` only compares fingerprints; the digests of the shards make one that tells content.
        let digests: String = self.shards.iter().map(|shard| shard.file.blake3.as_str()).collect();
        let fingerprint = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(digests.as_bytes()));
        let state = json!({
            "_data_files": names, "_fingerprint": fingerprint, "_format_columns": null, "_format_kwargs": {},
            "_format_type": null, "_output_all_columns": false, "_split": self.split,
        });
        let features = columns::features(self.common.layout);
        let info = json!({"citation": "", "description": "", "features": features, "homepage": "", "license": ""});
        let write = |name: &str, value: &serde_json::Value| {
            let mut bytes = serde_json::to_vec_pretty(value).expect("a JSON value is JSON");
            bytes.push(b'\n');
            files::write(&self.common.root, &format!("{}/{name}", self.split), &bytes)
        };
        let files = [write("state.json", &state)?, write("dataset_info.json", &info)?];
        Ok((self.shards, files))
    }
}
