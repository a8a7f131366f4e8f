//! Paths become records, whatever the container.
//!
//! In: files, folders, globs or `-`; JSON lines, JSON arrays or a single JSON value; plain or gzipped, told by their
//! first bytes. Out: [`Chunk`]s of whole records with their places, in a stable order.
//!
//! What is guaranteed: every byte of every input belongs to exactly one record, to the white space between records,
//! or to a file-level [`Fault`]; memory is bounded by the chunk size plus one record; a broken file does not stop the
//! files after it.

mod files;
mod read;

use std::ops::Range;
use std::sync::Arc;

use crate::diagnostic::Diagnostic;
use crate::dialogue::{Location, Position};

pub(crate) use files::no_such_file;
pub use files::{Listing, Skipped, list};
pub use read::Reader;

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
    /// Why it cannot be a record at all, such as its size; its bytes are then what was read of it.
    pub fault: Option<Diagnostic>,
}

/// A record: where it stood and what it says.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// Where it stood.
    pub location: Location,
    /// What it says.
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
#[derive(Debug, Clone)]
pub struct InputDigest {
    /// The file as the user would name it.
    pub file: Arc<str>,
    /// Its size as stored, in bytes.
    pub bytes: u64,
    /// SHA-256 of its stored bytes, in hexadecimal.
    pub sha256: String,
    /// Records that it held.
    pub records: u64,
}

impl Chunk {
    /// The records with their places.
    pub fn iter(&self) -> impl Iterator<Item = (Record<'_>, Option<&Diagnostic>)> {
        self.records.iter().map(|slot| {
            let location = Location { file: Arc::clone(&self.file), position: slot.position };
            (Record { location, bytes: &self.bytes[slot.range.clone()] }, slot.fault.as_ref())
        })
    }
}
