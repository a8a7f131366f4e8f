//! Paths become records, whatever the container.
//!
//! In: files, folders, globs or `-`. Out: [`Item`]s in a stable order: [`Chunk`]s of whole records with their places,
//! [`Fault`]s of files, and what was left out of an archive. What a file is, is told by its first bytes:
//!
//! | container | what its records are |
//! |---|---|
//! | text | lines, the elements of an array, the values of one object keyed by id, or JSON values one after the other |
//! | CSV, TSV (by name) | rows, as objects of their columns; an empty cell is an absent field |
//! | Parquet | rows, as objects of their columns; a null is an absent field, in structs too |
//! | gzip, zstd | those of what is inside |
//! | tar, zip | those of the members, in the archive's order; a member is called `archive!member` |
//!
//! A file whose first record says that it is a piece of a larger one (`Reader::joining`) is one record,
//! `{"pieces": [...]}`, as large as a record may be.
//!
//! Containers nest: `.tar.gz`, `.jsonl.zst` in a zip. Parquet and zip are read from their end, so not inside others.
//!
//! What is guaranteed: every byte of every input belongs to exactly one record, to the space between records, or to a
//! file-level [`Fault`]; memory is bounded by the chunk size plus one record, whatever the size of a file, an array or
//! an archive (of Parquet, by a page of each column); a broken file does not stop the files after it.

mod container;
mod csv_rows;
mod cut;
mod files;
mod parquet_rows;
mod read;
mod scan;
mod text;

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::dialogue::{Location, Position};

pub use files::{Listing, Skipped, list};
pub(crate) use files::{digest, no_such_file};
pub use read::Reader;

/// What reading hands over.
#[derive(Debug)]
pub enum Item {
    /// Records.
    Chunk(Chunk),
    /// Something wrong with a file.
    Fault(Fault),
    /// A member of an archive that is not read.
    Skipped(Skipped),
}

/// Takes what is read; a break ends the reading.
pub type Take<'t> = dyn FnMut(Item) -> ControlFlow<()> + 't;

/// Records of one file, cut between records.
#[derive(Debug)]
pub struct Chunk {
    /// The file they came from.
    pub file: Arc<str>,
    /// Their bytes, one after the other.
    pub bytes: Vec<u8>,
    /// Where each stands in `bytes`.
    pub records: Vec<Slot>,
}

/// One record of a chunk.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Its bytes in the chunk.
    pub range: Range<usize>,
    /// Which record of the file.
    pub position: Position,
    /// Its key, where the file is one object keyed by id.
    pub key: Option<Arc<str>>,
    /// Why it cannot be a record at all, such as its size; its bytes are then what was read of it.
    pub fault: Option<Diagnostic>,
}

/// A record: where it stood and what it says.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// Where it stood.
    pub location: Location,
    /// What it says: the bytes of the file where it is JSON, else the JSON that its row is.
    pub bytes: &'a [u8],
}

/// What is wrong with a file as a whole, or with what is left of it.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The file.
    pub file: Arc<str>,
    /// What is wrong.
    pub diagnostic: Diagnostic,
}

/// What the manifest says about an input file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputDigest {
    /// The file as the user would name it.
    pub file: String,
    /// Its size as stored, in bytes.
    pub bytes: u64,
    /// BLAKE3 hash of its stored bytes, in hexadecimal.
    pub blake3: String,
    /// Records that it held.
    pub records: u64,
}

impl Chunk {
    fn of(file: &Arc<str>) -> Self {
        let bytes = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
        Self { file: Arc::clone(file), bytes, records: Vec::new() }
    }

    /// Whether it is worth handing over.
    fn is_full(&self) -> bool {
        self.bytes.len() >= CHUNK_BYTES || self.records.len() >= CHUNK_RECORDS
    }

    fn push(&mut self, bytes: &[u8], position: Position, fault: Option<Diagnostic>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.records.push(Slot { range: start..self.bytes.len(), position, key: None, fault });
    }

    /// The records with their places.
    pub fn iter(&self) -> impl Iterator<Item = (Record<'_>, Option<&Diagnostic>)> {
        self.records.iter().map(|slot| {
            let location = Location { file: Arc::clone(&self.file), position: slot.position, key: slot.key.clone() };
            (Record { location, bytes: &self.bytes[slot.range.clone()] }, slot.fault.as_ref())
        })
    }
}

/// How many bytes of records make a chunk: large enough to amortise the hand-over, small enough for a core's cache.
const CHUNK_BYTES: usize = 512 * 1024;
/// How many records at most.
const CHUNK_RECORDS: usize = 4096;
