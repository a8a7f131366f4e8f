//! Files that appear whole or not at all: written beside their name, hashed on the way, flushed, renamed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::manifest::FileEntry;
use crate::error::{Error, Result};

/// Ending of a file that is being written.
pub(super) const PARTIAL: &str = ".partial";

/// A file on its way.
pub(super) struct AtomicFile {
    root: PathBuf,
    name: String,
    writer: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl AtomicFile {
    /// Begins the file `name`, a path with `/` below `root`.
    pub(super) fn create(root: &Path, name: &str) -> Result<Self> {
        let partial = root.join(format!("{name}{PARTIAL}"));
        if let Some(folder) = partial.parent() {
            fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        }
        let file = File::create(&partial).map_err(|error| Error::io(&partial, error))?;
        let writer = BufWriter::with_capacity(1 << 18, file);
        Ok(Self { root: root.to_owned(), name: name.to_owned(), writer, hash: Sha256::new(), bytes: 0 })
    }

    fn partial(&self) -> PathBuf {
        self.root.join(format!("{}{PARTIAL}", self.name))
    }

    /// Bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Names the file in an error of its writer.
    pub(super) fn error(&self, error: io::Error) -> Error {
        Error::io(self.partial(), error)
    }

    /// Flushes the file to the disk and gives it its name.
    pub(super) fn commit(mut self) -> Result<FileEntry> {
        let partial = self.partial();
        let fail = |error| Error::io(&partial, error);
        self.writer.flush().map_err(fail)?;
        self.writer.get_ref().sync_all().map_err(fail)?;
        let path = self.root.join(&self.name);
        fs::rename(&partial, &path).map_err(fail)?;
        sync_folder(path.parent().unwrap_or(&self.root))?;
        Ok(FileEntry { path: self.name, bytes: self.bytes, sha256: crate::hex(&self.hash.finalize()) })
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.writer.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Writes a small file whole.
pub(super) fn write(root: &Path, name: &str, bytes: &[u8]) -> Result<FileEntry> {
    let mut file = AtomicFile::create(root, name)?;
    file.write_all(bytes).map_err(|error| file.error(error))?;
    file.commit()
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(|error| Error::io(folder, error))
}
