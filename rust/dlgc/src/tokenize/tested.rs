//! Which tokenizers passed their test before, so that it need not be made again at every start.
//!
//! In: a `tokenizer.json`, and the added tokens that are declared beside it. Out: whether this build of dlgc, on this kind
//! of machine, found them encoded as by the reference. A note is a small file, named by what it is about, in
//! `DLGC_CACHE_DIR`, or `dlgc` in the user's cache folder. All of them may be deleted at any time; nothing but the time of
//! the next start depends on them, since every run compares texts of its own with the reference. `DLGC_CACHE_DIR` without
//! a value keeps none.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokenizers::AddedToken;

/// Hash of all that says how a text is encoded: the sources of this module, and the versions of what it uses.
const BUILD: &str = env!("DLGC_TOKENIZE_BUILD");

/// The name of the note on a tokenizer.
pub(super) fn key(json: &[u8], declared: &[(u32, AddedToken)]) -> String {
    let mut hash = Sha256::new();
    for part in [BUILD.as_bytes(), std::env::consts::ARCH.as_bytes(), format!("{declared:?}").as_bytes(), json] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a tokenizer passed before.
pub(super) fn is_known(key: &str) -> bool {
    folder().is_some_and(|folder| folder.join(file_name(key)).is_file())
}

/// Notes that a tokenizer passed. Where that cannot be written, it will be tested again.
pub(super) fn remember(key: &str, texts: usize) {
    let Some(folder) = folder() else { return };
    let note = serde_json::json!({ "tokenizer": key, "texts": texts, "dlgc": env!("CARGO_PKG_VERSION") });
    let _ = std::fs::create_dir_all(&folder).and_then(|()| write(&folder, &file_name(key), &format!("{note}\n")));
}

fn write(folder: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let half = folder.join(format!(".{name}.{}", std::process::id()));
    std::fs::write(&half, text)?;
    std::fs::rename(&half, folder.join(name))
}

fn file_name(key: &str) -> String {
    format!("{}.json", &key[..32])
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
    cache.is_absolute().then(|| cache.join("tested"))
}
