//! Reading stored files one after the other: opening, hashing, noticing what changed meanwhile.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use blake3::Hasher;

use super::container::{self, Flow, HEAD, Joining, Kind, Origin, Sink};
use super::{InputDigest, Take, parquet_rows};
use crate::diagnostic::{Code, Diagnostic};
use crate::panics::caught;

/// Reads files one after the other and hands out their records in chunks.
pub struct Reader {
    /// Files with the names that locations and digests give them.
    files: Vec<(PathBuf, Arc<str>)>,
    max_record_bytes: usize,
    is_piece: fn(&[u8]) -> bool,
    bytes_read: Arc<AtomicU64>,
}

impl Reader {
    /// A reader of `files`, in order; records above `max_record_bytes` become faults of their own.
    pub fn new(files: Vec<PathBuf>, max_record_bytes: usize) -> Self {
        let name = |path: PathBuf| {
            let name: Arc<str> = path.to_string_lossy().into();
            (path, name)
        };
        Self::named(files.into_iter().map(name).collect(), max_record_bytes)
    }

    /// The same of files that have moved: the name is what they were called.
    pub fn named(files: Vec<(PathBuf, Arc<str>)>, max_record_bytes: usize) -> Self {
        Self { files, max_record_bytes, is_piece: |_| false, bytes_read: Arc::default() }
    }

    /// Hands over a file as one record, `{"pieces": [...]}`, where its first record says that all are pieces of one.
    #[must_use]
    pub fn joining(mut self, is_piece: fn(&[u8]) -> bool) -> Self {
        self.is_piece = is_piece;
        self
    }

    /// Stored bytes read so far; grows while [`Reader::read`] is at work.
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes_read)
    }

    /// Reads everything, in order; what has been read to its end is told at the end.
    pub fn read(&self, take: &mut Take<'_>) -> Vec<InputDigest> {
        let mut digests = Vec::new();
        for (path, name) in &self.files {
            let before = self.bytes_read.load(Ordering::Relaxed);
            let (digest, flow) = self.read_file(path, name, take);
            if let Some(digest) = digest {
                self.bytes_read.store(before + digest.bytes, Ordering::Relaxed);
                digests.push(digest);
            }
            if flow.is_break() {
                break;
            }
        }
        digests
    }

    fn read_file(&self, path: &Path, name: &Arc<str>, take: &mut Take<'_>) -> (Option<InputDigest>, Flow) {
        let failed = Arc::new(AtomicBool::new(false));
        let max_record_bytes = self.max_record_bytes;
        let (is_piece, joining) = (self.is_piece, Joining::Unknown);
        let mut sink = Sink { take, max_record_bytes, records: 0, failed: Arc::clone(&failed), is_piece, joining };
        let mut stored = match Stored::open(path, Arc::clone(&self.bytes_read), failed) {
            Ok(stored) => stored,
            Err(error) => {
                let said = error.to_string();
                let said = said.split(" (os error").next().unwrap_or_default();
                let diagnostic = Diagnostic::new(Code::UnreadableFile, format!("the file cannot be read: {said}"));
                return (None, sink.fault(name, diagnostic.help("the other files are read all the same")));
            }
        };
        let origin = Origin::of(name);
        // Readers of other people's formats panic on some hostile files.
        let read = caught(|| match (stored.kind, stored.again.take()) {
            (Kind::Zip, Some(file)) => container::zip(file, &origin, &mut sink),
            (Kind::Parquet, Some(file)) => sink.whole(name, |sink| parquet_rows::read(file, &origin, sink)),
            _ => container::read(&mut stored, &origin, &mut sink),
        });
        let mut flow = read.unwrap_or_else(|said| {
            let message = format!("reading stopped after {} record(s): the reader failed: {said}", sink.records);
            let help = "the file is damaged, or made to do harm; fetch or write it again";
            sink.fault(name, Diagnostic::new(Code::BrokenContainer, message).help(help))
        });
        if flow.is_continue() && !stored.kind.is_read_from_its_end() {
            // What follows a fault is not read as records, but the digest is that of the whole file.
            let _ = io::copy(&mut stored, &mut io::sink());
        }
        if flow.is_continue() && stored.has_changed() {
            let diagnostic = Diagnostic::new(Code::FileChanged, "the file changed while it was read")
                .help("nobody can say which version the rows are of: compile again when it is no longer written to");
            flow = sink.fault(name, diagnostic);
        }
        let digest = InputDigest {
            file: name.to_string(),
            bytes: stored.bytes,
            blake3: stored.hash.finalize().to_hex().to_string(),
            records: sink.records,
        };
        (Some(digest), flow)
    }
}

/// A stored file, or standard input: counts and hashes what is read of it.
struct Stored {
    input: Box<dyn Read + Send>,
    /// The file, where it is one, and what the system said of it when it was opened.
    file: Option<(File, Metadata)>,
    /// The file once more, for what is read here and there.
    again: Option<Again>,
    kind: Kind,
    bytes: u64,
    hash: Hasher,
    bytes_read: Arc<AtomicU64>,
    failed: Arc<AtomicBool>,
}

impl Stored {
    fn open(path: &Path, bytes_read: Arc<AtomicU64>, failed: Arc<AtomicBool>) -> io::Result<Self> {
        let (bytes, hash) = (0, Hasher::new());
        if path.as_os_str() == "-" {
            let input = Box::new(io::stdin());
            return Ok(Self { input, file: None, again: None, kind: Kind::Text, bytes, hash, bytes_read, failed });
        }
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            let input = Box::new(file);
            return Ok(Self { input, file: None, again: None, kind: Kind::Text, bytes, hash, bytes_read, failed });
        }
        let mut head = Vec::with_capacity(HEAD);
        Read::by_ref(&mut file).take(HEAD as u64).read_to_end(&mut head)?;
        file.rewind()?;
        let kind = Kind::of(&head);
        let limit = metadata.len();
        let (watched, again) = (Some((file.try_clone()?, metadata)), file.try_clone()?);
        let input = Box::new(file);
        let mut stored = Self { input, file: watched, again: None, kind, bytes, hash, bytes_read, failed };
        if kind.is_read_from_its_end() {
            // These are read here and there, so they are hashed first; reading them is what counts as progress.
            let progress = std::mem::take(&mut stored.bytes_read);
            io::copy(&mut stored, &mut io::sink())?;
            stored.again = Some(Again { file: again, read: 0, limit, bytes_read: Arc::clone(&progress) });
            stored.bytes_read = progress;
        }
        Ok(stored)
    }

    fn has_changed(&self) -> bool {
        let Some((file, before)) = &self.file else { return false };
        let now = file.metadata();
        now.is_ok_and(|now| now.len() != before.len() || now.modified().ok() != before.modified().ok())
    }
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.input.read(buffer) {
            Ok(count) => count,
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    self.failed.store(true, Ordering::Relaxed);
                }
                return Err(error);
            }
        };
        self.bytes += count as u64;
        self.hash.update(&buffer[..count]);
        self.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// A file that is read here and there: counts what is read, up to the size of the file.
pub(super) struct Again {
    pub(super) file: File,
    read: u64,
    limit: u64,
    bytes_read: Arc<AtomicU64>,
}

impl Again {
    /// Counts bytes that somebody else read.
    pub(super) fn count(&mut self, bytes: u64) {
        let bytes = bytes.min(self.limit - self.read);
        self.read += bytes;
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Read for Again {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.count(count as u64);
        Ok(count)
    }
}

impl Seek for Again {
    fn seek(&mut self, place: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(place)
    }
}
