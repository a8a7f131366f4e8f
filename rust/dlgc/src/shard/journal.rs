//! The journal: what an unfinished dataset is, and from where its compilation may go on.
//!
//! It stands in `.dlgc-incomplete`, is replaced whole at each checkpoint, and is removed when the dataset is committed.
//! Files that were written after a checkpoint are cut back to it, or removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::{self, PARTIAL};
use super::manifest::{Shard, Size};
use super::splits::shard_name;
use super::{MARKER, Row, SPLITS};
use crate::error::{Error, Result};
use crate::pack::Packer;

/// What stands in the marker file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Journal {
    /// The compilation's digest.
    pub(super) run: String,
    /// The last place to go on from.
    pub(super) checkpoint: Option<Checkpoint>,
    /// Whether all files were closed, so that a manifest beside it is this dataset's.
    pub(super) committing: bool,
}

/// How much of each file is durable, at the end of a record.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub(super) splits: BTreeMap<String, SplitState>,
    /// Bytes of `dialogues.arrow`.
    pub(super) dialogues: u64,
    /// Bytes of the two files of `rejects/`.
    pub(super) rejects: [u64; 2],
    /// What the compilation wants to know again.
    pub(super) state: serde_json::Value,
}

/// The shards of a split.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SplitState {
    /// Those that are whole.
    pub(super) shards: Vec<Shard>,
    /// Bytes and rows of the one that is open.
    pub(super) open: Option<(u64, Size)>,
    /// Examples that wait for company.
    #[serde(default)]
    pub(super) packer: Option<Packer<Row>>,
    /// Examples so far.
    #[serde(default)]
    pub(super) examples: u64,
}

impl Journal {
    /// The journal of an unfinished dataset; `None` where there is none that can be read.
    pub(super) fn load(root: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(root.join(MARKER)).ok()?).ok()
    }

    pub(super) fn save(&self, root: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self).expect("a journal is JSON");
        files::write(root, MARKER, &bytes).map(|_| ())
    }
}

impl Checkpoint {
    /// The shards that are whole.
    pub(super) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.splits.values().flat_map(|split| &split.shards)
    }
}

/// Removes what was written into the splits after a checkpoint.
pub(super) fn sweep(root: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let mut kept: BTreeSet<String> = checkpoint.shards().map(|shard| shard.file.path.clone()).collect();
    for (name, split) in &checkpoint.splits {
        if split.open.is_some() {
            kept.insert(format!("{}{PARTIAL}", shard_name(name, split.shards.len())));
        }
    }
    for split in SPLITS {
        let folder = root.join(split);
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.map_err(|error| Error::io(&folder, error))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !kept.contains(&format!("{split}/{name}")) {
                fs::remove_file(&path).map_err(|error| Error::io(&path, error))?;
            }
        }
    }
    Ok(())
}
