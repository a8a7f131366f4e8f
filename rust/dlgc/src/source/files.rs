//! Which files an input names: folders are walked in name order, globs expanded, unknown endings listed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use blake3::Hasher;

use crate::error::{Error, ErrorKind, Result};

/// The files to read, and those that were left out.
#[derive(Debug, Default)]
pub struct Listing {
    /// Files to read, each with the name that diagnostics use; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// Files of named folders that were not taken.
    pub skipped: Vec<Skipped>,
}

/// A file that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why, in one phrase.
    pub reason: &'static str,
}

/// Size and BLAKE3 hash of a file.
pub(crate) fn digest(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((bytes, hash.finalize().to_hex().to_string()));
        }
        bytes += count as u64;
        hash.update(&buffer[..count]);
    }
}

/// Lists the files that `inputs` name, in the order given, folders in name order.
///
/// # Errors
/// [`ErrorKind::Io`] where an input does not exist, [`ErrorKind::Options`] where nothing is left to read.
pub fn list(inputs: &[String]) -> Result<Listing> {
    let mut listing = Listing::default();
    for input in inputs {
        let path = Path::new(input);
        if input == "-" {
            listing.files.push(path.to_owned());
        } else if path.is_dir() {
            walk(path, &mut listing)?;
        } else if path.exists() {
            listing.files.push(path.to_owned());
        } else if input.contains(['*', '?', '[']) {
            expand(input, &mut listing)?;
        } else {
            return Err(Error::io(path, no_such_file()));
        }
    }
    if listing.files.is_empty() {
        let mut error = Error::new(ErrorKind::Options, format!("no input file in {}", quoted(inputs)));
        if let Some(skipped) = listing.skipped.first() {
            error = error.hint(format!(
                "{} file(s) were skipped, the first is `{}`: {}; name a file itself to read it whatever its ending",
                listing.skipped.len(),
                skipped.path.display(),
                skipped.reason
            ));
        }
        return Err(error);
    }
    Ok(listing)
}

/// The system's own word for a missing file.
pub(crate) fn no_such_file() -> std::io::Error {
    const ENOENT: i32 = 2; // on every system that dlgc runs on
    std::io::Error::from_raw_os_error(ENOENT)
}

fn quoted(inputs: &[String]) -> String {
    inputs.iter().map(|input| format!("`{input}`")).collect::<Vec<_>>().join(", ")
}

fn expand(pattern: &str, listing: &mut Listing) -> Result<()> {
    let paths = glob::glob(pattern)
        .map_err(|error| Error::new(ErrorKind::Options, format!("`{pattern}` is no valid pattern: {error}")))?;
    let mut found = false;
    for path in paths {
        let path = path.map_err(|error| {
            let path = error.path().to_owned();
            Error::io(path, error.into())
        })?;
        found = true;
        if path.is_dir() {
            walk(&path, listing)?;
        } else {
            listing.files.push(path);
        }
    }
    if found {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Options, format!("`{pattern}` matches no file")))
}

fn walk(folder: &Path, listing: &mut Listing) -> Result<()> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        paths.push(entry.map_err(|error| Error::io(folder, error))?.path());
    }
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if is_hidden(&name) {
            continue;
        }
        // A link to a folder could lead back here; a link to a file is fine.
        if path.is_dir() {
            if !path.is_symlink() {
                walk(&path, listing)?;
            }
        } else if ending_of(&name).is_some() {
            listing.files.push(path);
        } else {
            listing.skipped.push(Skipped { path, reason: "unknown ending" });
        }
    }
    Ok(())
}

/// Whether a name of a folder or an archive is passed over in silence.
pub(super) fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// Endings that are read when a folder is named, and in archives.
const ENDINGS: [&str; 8] = [".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".tar", ".zip"];

/// The known ending of a name, without that of its compression.
pub(super) fn ending_of(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    if [".tgz", ".tzst"].iter().any(|ending| name.ends_with(ending)) {
        return Some(".tar");
    }
    let bare = [".gz", ".zst", ".zstd"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
    ENDINGS.into_iter().find(|ending| bare.ends_with(ending))
}
