//! Which tokenizers passed their test before, so that neither the test nor the tables need be made again at every start.
//!
//! In: a `tokenizer.json`, and the added tokens that are declared beside it. Out: what was kept when this build of dlgc, on
//! this kind of machine, found them encoded as by the reference, and where its vocabulary stands in the file. A note is
//! a file, named by what it is about: a line of JSON, then what is kept, a few megabytes. It lies in `DLGC_CACHE_DIR`, or `dlgc` in the user's cache folder. Notes may
//! be deleted at any time, and one that is damaged counts for nothing: nothing but the time of the next start depends on
//! them, and every run of some size compares texts of its own with the reference. `DLGC_CACHE_DIR` without a value keeps
//! none.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokenizers::AddedToken;
use xxhash_rust::xxh3::xxh3_128;

/// Hash of all that says how a text is encoded: the sources of this module, and the versions of what it uses. Notes of
/// other builds count for nothing, and are written over.
const BUILD: &str = concat!(env!("DLGC_TOKENIZE_BUILD"), " ", env!("CARGO_PKG_VERSION"));

/// What a note keeps.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kept {
    /// What makes the tokenizer again.
    Tokenizer,
    /// Where its vocabulary stands in its file.
    Listed,
}

/// The name of the notes on a tokenizer.
pub(super) fn key(json: &[u8], declared: &[(u32, AddedToken)]) -> String {
    let mut hash = blake3::Hasher::new();
    for part in [format!("{declared:?}").as_bytes(), json] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().to_hex().to_string()
}

/// The first line of a note.
#[derive(Serialize, Deserialize)]
struct Head {
    /// What it is about.
    tokenizer: String,
    /// What tested it, and where.
    build: String,
    architecture: String,
    /// How many texts were compared.
    texts: usize,
    /// XXH3 of what follows, 128 bits.
    hash: String,
}

/// What was kept of a tokenizer that passed before.
pub(super) fn recall(key: &str, what: Kept) -> Option<Vec<u8>> {
    let mut note = std::fs::read(folder()?.join(file_name(key, what))).ok()?;
    let end = memchr::memchr(b'\n', &note)?;
    let head: Head = serde_json::from_slice(&note[..end]).ok()?;
    note.drain(..=end);
    let is_ours = head.build == BUILD && head.architecture == std::env::consts::ARCH;
    (head.tokenizer == key && is_ours && head.hash == hash(&note)).then_some(note)
}

/// Notes that a tokenizer passed with so many texts. Where that cannot be written, it will be tested again.
pub(super) fn remember(key: &str, what: Kept, texts: usize, kept: &[u8]) {
    let Some(folder) = folder() else { return };
    let (build, architecture) = (BUILD.to_owned(), std::env::consts::ARCH.to_owned());
    let head = Head { tokenizer: key.to_owned(), build, architecture, texts, hash: hash(kept) };
    let Ok(mut note) = serde_json::to_vec(&head) else { return };
    note.push(b'\n');
    note.extend_from_slice(kept);
    let _ = std::fs::create_dir_all(&folder).and_then(|()| write(&folder, &file_name(key, what), &note));
}

fn hash(kept: &[u8]) -> String {
    format!("{:032x}", xxh3_128(kept))
}

fn write(folder: &Path, name: &str, note: &[u8]) -> std::io::Result<()> {
    let half = folder.join(format!(".{name}.{}", std::process::id()));
    std::fs::write(&half, note)?;
    std::fs::rename(&half, folder.join(name))
}

fn file_name(key: &str, what: Kept) -> String {
    let ending = match what {
        Kept::Tokenizer => "note",
        Kept::Listed => "list",
    };
    format!("{}.{ending}", &key[..32])
}

fn folder() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name);
    let some = |value: OsString| (!value.is_empty()).then(|| PathBuf::from(value));
    let cache = match named("DLGC_CACHE_DIR") {
        Some(folder) => some(folder)?,
        None if cfg!(windows) => some(named("LOCALAPPDATA")?)?.join("dlgc"),
        None if cfg!(target_os = "macos") => some(named("HOME")?)?.join("Library").join("Caches").join("dlgc"),
        None => match named("XDG_CACHE_HOME").and_then(some) {
            Some(folder) => folder.join("dlgc"),
            None => some(named("HOME")?)?.join(".cache").join("dlgc"),
        },
    };
    std::path::absolute(cache).ok().map(|cache| cache.join("tested"))
}
