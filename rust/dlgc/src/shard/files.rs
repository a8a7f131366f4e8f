//! Files that appear whole or not at all: written beside their name, hashed on the way, flushed, renamed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use blake3::Hasher;

use super::blocks::Blocks;
use super::manifest::FileEntry;
use crate::error::{Error, Result};

/// Ending of a file that is being written.
pub(super) const PARTIAL: &str = ".partial";

/// After so many bytes the system is asked to bring them to the disk, beside the work: at the end of a file nobody waits
/// for all of it.
const AHEAD: u64 = 1 << 24;

/// A file on its way.
pub(crate) struct AtomicFile {
    root: PathBuf,
    name: String,
    writer: Blocks,
    hash: Hasher,
    bytes: u64,
    /// How much of it a thread was asked to bring to the disk, and the last one that was.
    ahead: u64,
    syncing: Option<JoinHandle<io::Result<()>>>,
    /// Whether what is written is thrown away: a format's header that is there already.
    muted: bool,
}

impl AtomicFile {
    /// Begins the file `name`, a path with `/` below `root`.
    pub(crate) fn create(root: &Path, name: &str) -> Result<Self> {
        Self::begin(root, name, false)
    }

    /// The same of one that is large.
    pub(super) fn create_large(root: &Path, name: &str) -> Result<Self> {
        Self::begin(root, name, true)
    }

    fn begin(root: &Path, name: &str, is_large: bool) -> Result<Self> {
        let partial = root.join(format!("{name}{PARTIAL}"));
        if let Some(folder) = partial.parent() {
            fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        }
        let writer = Blocks::create(&partial, is_large).map_err(|error| Error::io(&partial, error))?;
        Ok(Self::of(root, name, writer, Hasher::new(), 0))
    }

    /// Begins a file, or goes on with one.
    pub(super) fn open(root: &Path, name: &str, resumed: Option<u64>) -> Result<Self> {
        resumed.map_or_else(|| Self::create(root, name), |bytes| Self::resume(root, name, bytes))
    }

    /// Goes on with a file that an interrupted run left, behind its first `bytes`; muted, until [`AtomicFile::unmute`].
    pub(super) fn resume(root: &Path, name: &str, bytes: u64) -> Result<Self> {
        let partial = root.join(format!("{name}{PARTIAL}"));
        let fail = |error| Error::io(&partial, error);
        if !partial.exists() {
            // It was finished after the place to go on from.
            fs::rename(root.join(name), &partial).map_err(fail)?;
        }
        let mut file = File::options().read(true).write(true).open(&partial).map_err(fail)?;
        file.set_len(bytes.min(file.metadata().map_err(fail)?.len())).map_err(fail)?;
        let mut hash = Hasher::new();
        let mut buffer = vec![0; 1 << 18];
        let mut length = 0;
        loop {
            let count = file.read(&mut buffer).map_err(fail)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            length += count as u64;
        }
        if length < bytes {
            return Err(fail(io::ErrorKind::UnexpectedEof.into()));
        }
        file.seek(io::SeekFrom::End(0)).map_err(fail)?;
        let writer = Blocks::of(file, &partial, bytes);
        Ok(Self { muted: true, ..Self::of(root, name, writer, hash, bytes) })
    }

    fn of(root: &Path, name: &str, writer: Blocks, hash: Hasher, bytes: u64) -> Self {
        let (root, name) = (root.to_owned(), name.to_owned());
        Self { root, name, writer, hash, bytes, ahead: bytes, syncing: None, muted: false }
    }

    /// From here on, what is written is kept.
    pub(super) fn unmute(&mut self) {
        self.muted = false;
    }

    /// Makes what was written so far durable; how much that is.
    pub(super) fn settle(&mut self) -> Result<u64> {
        let result = self.writer.flush().and_then(|()| self.synced()).and_then(|()| self.writer.file().sync_data());
        result.map_err(|error| self.error(error))?;
        Ok(self.bytes)
    }

    /// Has what was written so far brought to the disk by a thread, if the last one is done.
    fn sync_ahead(&mut self) -> io::Result<()> {
        if self.syncing.as_ref().is_some_and(|syncing| !syncing.is_finished()) {
            return Ok(());
        }
        self.synced()?;
        self.ahead = self.bytes;
        let file = self.writer.file().try_clone()?;
        // Without a thread it is done at the end.
        self.syncing = thread::Builder::new().name("dlgc-sync".to_owned()).spawn(move || file.sync_data()).ok();
        Ok(())
    }

    /// Waits for the last thread. The system tells an error to one of those who ask, so each has to pass it on.
    fn synced(&mut self) -> io::Result<()> {
        let Some(syncing) = self.syncing.take() else { return Ok(()) };
        syncing.join().unwrap_or_else(|_| Err(io::Error::other("the thread that writes to the disk failed")))
    }

    fn partial(&self) -> PathBuf {
        self.root.join(format!("{}{PARTIAL}", self.name))
    }

    /// Bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Names the file in an error of its writer.
    pub(crate) fn error(&self, error: io::Error) -> Error {
        Error::io(self.partial(), error)
    }

    /// Flushes the file to the disk and gives it its name.
    pub(crate) fn commit(mut self) -> Result<FileEntry> {
        let partial = self.partial();
        let fail = |error| Error::io(&partial, error);
        self.writer.flush().map_err(fail)?;
        self.synced().map_err(fail)?;
        self.writer.file().sync_all().map_err(fail)?;
        let path = self.root.join(&self.name);
        fs::rename(&partial, &path).map_err(fail)?;
        sync_folder(path.parent().unwrap_or(&self.root))?;
        Ok(FileEntry { path: self.name, bytes: self.bytes, blake3: self.hash.finalize().to_hex().to_string() })
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.muted {
            return Ok(buffer.len());
        }
        let count = self.writer.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        if self.bytes - self.ahead >= AHEAD && !self.writer.is_direct() {
            self.sync_ahead()?;
        }
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

/// Begins a file with all that it will hold, which comes to the disk beside the work; it has its name once it is
/// committed.
pub(super) fn begin(root: &Path, name: &str, bytes: &[u8]) -> Result<AtomicFile> {
    let mut file = AtomicFile::create(root, name)?;
    let mut put = || {
        file.write_all(bytes)?;
        file.flush()?;
        file.sync_ahead()
    };
    put().map_err(|error| file.error(error))?;
    Ok(file)
}

/// Copies a file from one dataset into another.
pub(super) fn copy(from: &Path, root: &Path, name: &str) -> Result<FileEntry> {
    let path = from.join(name);
    let mut source = File::open(&path).map_err(|error| Error::io(&path, error))?;
    let mut file = AtomicFile::create(root, name)?;
    io::copy(&mut source, &mut file).map_err(|error| file.error(error))?;
    file.commit()
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(|error| Error::io(folder, error))
}
