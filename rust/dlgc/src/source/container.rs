//! What is inside a file: told by its first bytes, unwrapped layer by layer.
//!
//! In: bytes and what they are called. Out: the records of every layer, through a [`Sink`]. What is guaranteed: no layer
//! is held in memory; whatever cannot be read is a fault of its own, after what could be read before it.

use std::io::{self, BufReader, Read, Seek};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cut::too_large;
use super::files::{ending_of, is_hidden};
use super::{Chunk, Fault, Item, Skipped, Take, csv_rows, cut};
use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::Position;

/// Whether to go on reading.
pub(super) type Flow = ControlFlow<()>;

/// Where records go.
pub(super) struct Sink<'t, 'f> {
    pub(super) take: &'t mut Take<'f>,
    /// Largest record, in bytes.
    pub(super) max_record_bytes: usize,
    /// Records handed over of the stored file.
    pub(super) records: u64,
    /// Whether the system failed to read the stored file, and not a decoder to understand it.
    pub(super) failed: Arc<AtomicBool>,
    /// Tells from its first record whether a file is one record in pieces.
    pub(super) is_piece: fn(&[u8]) -> bool,
    pub(super) joining: Joining,
}

/// Whether the records of the file at hand are pieces of one.
#[derive(Debug)]
pub(super) enum Joining {
    /// No record of it has been seen.
    Unknown,
    /// They are records of their own.
    Apart,
    /// They are pieces: what they make together, as far as it may grow.
    Together(Vec<u8>),
}

impl Sink<'_, '_> {
    pub(super) fn chunk(&mut self, chunk: Chunk) -> Flow {
        let Some(first) = chunk.records.first() else { return Flow::Continue(()) };
        if matches!(self.joining, Joining::Unknown) {
            let is_piece = first.fault.is_none() && (self.is_piece)(&chunk.bytes[first.range.clone()]);
            self.joining = if is_piece { Joining::Together(Vec::new()) } else { Joining::Apart };
        }
        if let Joining::Together(pieces) = &mut self.joining {
            for slot in chunk.records {
                if pieces.len() <= self.max_record_bytes {
                    pieces.extend_from_slice(if pieces.is_empty() { PIECES } else { b",\n" });
                    pieces.extend_from_slice(&chunk.bytes[slot.range]);
                }
            }
            return Flow::Continue(());
        }
        self.records += chunk.records.len() as u64;
        (self.take)(Item::Chunk(chunk))
    }

    /// Reads one file, or one member of an archive; if it turns out to be one record in pieces, it is handed over whole.
    pub(super) fn whole(&mut self, file: &Arc<str>, read: impl FnOnce(&mut Self) -> Flow) -> Flow {
        self.joining = Joining::Unknown;
        read(self)?;
        let Joining::Together(mut pieces) = std::mem::replace(&mut self.joining, Joining::Apart) else {
            return Flow::Continue(());
        };
        pieces.extend_from_slice(b"]}");
        let fault = too_large(pieces.len(), self.max_record_bytes);
        pieces.truncate(self.max_record_bytes);
        let mut chunk = Chunk::of(file);
        chunk.push(&pieces, Position::Element(1), fault);
        self.chunk(chunk)
    }

    pub(super) fn fault(&mut self, file: &Arc<str>, diagnostic: Diagnostic) -> Flow {
        (self.take)(Item::Fault(Fault { file: Arc::clone(file), diagnostic }))
    }

    fn skipped(&mut self, name: &str, reason: &'static str) -> Flow {
        (self.take)(Item::Skipped(Skipped { path: name.into(), reason }))
    }
}

/// How a record begins that is made of the pieces of a file.
const PIECES: &[u8] = b"{\"pieces\": [";

/// What bytes are called and what they came out of.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// The file as diagnostics name it: `archive!member` for a member.
    pub(super) file: Arc<str>,
    /// Its name without the endings of the layers that are off.
    name: String,
    /// The layers that are off, outermost first.
    layers: Vec<Layer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Gzip,
    Zstd,
    Tar,
    Zip,
}

/// Deepest nesting of containers that is read: archives can be made to hold themselves.
const MAX_LAYERS: usize = 6;

impl Origin {
    pub(super) fn of(file: &Arc<str>) -> Self {
        Self { file: Arc::clone(file), name: file.to_string(), layers: Vec::new() }
    }

    fn inside(&self, layer: Layer) -> Self {
        let mut inner = self.clone();
        for ending in [".gz", ".zst", ".zstd"] {
            if let Some(name) = inner.name.strip_suffix(ending) {
                inner.name = name.to_owned();
                break;
            }
        }
        inner.layers.push(layer);
        inner
    }

    fn member(&self, layer: Layer, member: &str) -> Self {
        let mut inner = self.inside(layer);
        inner.file = format!("{}!{member}", self.file).into();
        inner.name = member.to_owned();
        inner
    }

    /// What a failure to read says: of the system, or of the layer that broke.
    pub(super) fn unreadable(&self, error: &io::Error, records: u64, sink: &Sink<'_, '_>) -> Diagnostic {
        let said = error.to_string();
        let said = said.split(" (os error").next().unwrap_or_default();
        let message = format!("reading stopped after {records} record(s): {said}");
        if sink.failed.load(Ordering::Relaxed) {
            return Diagnostic::new(Code::UnreadableFile, message).help("the records before it are compiled");
        }
        let help = "fetch or write the file again; the records before the break are compiled";
        let code = match self.layers.iter().rev().find(|layer| matches!(layer, Layer::Gzip | Layer::Zstd)) {
            Some(Layer::Gzip) => Code::TruncatedGzip,
            _ if self.layers.is_empty() => Code::UnreadableFile,
            _ => Code::BrokenContainer,
        };
        Diagnostic::new(code, message).help(help)
    }
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gzip,
    Zstd,
    Tar,
    Zip,
    Parquet,
    /// Something that is not read: what it is, and what to do.
    Foreign(&'static str, &'static str),
    Utf16,
    Text,
}

/// How many bytes tell what a file is: the mark of a tar stands behind the first name.
pub(super) const HEAD: usize = 512;

impl Kind {
    pub(super) fn of(head: &[u8]) -> Self {
        const UNPACK: &str = "unpack it and name what comes out";
        const MARKS: [(&[u8], Kind); 17] = [
            (&[0x1f, 0x8b], Kind::Gzip),
            (&[0x28, 0xb5, 0x2f, 0xfd], Kind::Zstd),
            (b"PK\x03\x04", Kind::Zip),
            (b"PK\x05\x06", Kind::Zip), // without a member
            (b"PAR1", Kind::Parquet),
            (&[0xff, 0xfe], Kind::Utf16),
            (&[0xfe, 0xff], Kind::Utf16),
            (b"BZh", Kind::Foreign("bzip2", UNPACK)),
            (b"\xfd7zXZ\0", Kind::Foreign("xz", UNPACK)),
            (b"7z\xbc\xaf\x27\x1c", Kind::Foreign("a 7z archive", UNPACK)),
            (b"Rar!", Kind::Foreign("a rar archive", UNPACK)),
            (b"\x04\x22\x4d\x18", Kind::Foreign("lz4", UNPACK)),
            (b"ARROW1", Kind::Foreign("an Arrow file", "write it as Parquet or JSON lines")),
            (&[0xff, 0xff, 0xff, 0xff], Kind::Foreign("an Arrow stream", "write it as Parquet or JSON lines")),
            (b"SQLite format 3", Kind::Foreign("an SQLite database", "write its rows as JSON lines")),
            (b"%PDF", Kind::Foreign("a PDF", "give the dialogues as JSON lines")),
            (b"Obj\x01", Kind::Foreign("an Avro file", "write it as Parquet or JSON lines")),
        ];
        if let Some((_, kind)) = MARKS.iter().find(|(mark, _)| head.starts_with(mark)) {
            return *kind;
        }
        if head.get(257..262) == Some(b"ustar") { Self::Tar } else { Self::Text }
    }

    /// Whether reading it needs a file.
    pub(super) fn is_read_from_its_end(self) -> bool {
        matches!(self, Self::Zip | Self::Parquet)
    }
}

/// Reads what a stream holds, whatever it is.
pub(super) fn read(input: &mut dyn Read, origin: &Origin, sink: &mut Sink<'_, '_>) -> Flow {
    let mut head = Vec::with_capacity(HEAD);
    if let Err(error) = (&mut *input).take(HEAD as u64).read_to_end(&mut head) {
        let diagnostic = origin.unreadable(&error, 0, sink);
        return sink.fault(&origin.file, diagnostic);
    }
    let kind = Kind::of(&head);
    if origin.layers.len() == MAX_LAYERS && !matches!(kind, Kind::Text) {
        let message = format!("containers are nested more than {MAX_LAYERS} deep");
        let help = "unpack the file and name what comes out";
        return sink.fault(&origin.file, Diagnostic::new(Code::UnsupportedContainer, message).help(help));
    }
    let mut whole = io::Cursor::new(head).chain(input);
    match kind {
        Kind::Gzip => {
            let mut inner = flate2::read::MultiGzDecoder::new(whole);
            read(&mut inner, &origin.inside(Layer::Gzip), sink)
        }
        Kind::Zstd => match zstd::Decoder::new(whole) {
            Ok(mut inner) => read(&mut inner, &origin.inside(Layer::Zstd), sink),
            Err(error) => {
                let diagnostic = origin.inside(Layer::Zstd).unreadable(&error, 0, sink);
                sink.fault(&origin.file, diagnostic)
            }
        },
        Kind::Tar => tar(&mut whole, origin, sink),
        Kind::Zip | Kind::Parquet => {
            let what = if kind == Kind::Zip { "a zip" } else { "a Parquet file" };
            let message = format!("{what} inside another container, or from standard input");
            let help = "it is read from its end, so it must be a file: unpack or save it first";
            sink.fault(&origin.file, Diagnostic::new(Code::UnsupportedContainer, message).help(help))
        }
        Kind::Foreign(what, help) => {
            let message = format!("the file is {what}, which dlgc does not read");
            sink.fault(&origin.file, Diagnostic::new(Code::UnsupportedContainer, message).help(help))
        }
        Kind::Utf16 => {
            let help = "convert it, as with `iconv -f UTF-16 -t UTF-8`";
            sink.fault(&origin.file, Diagnostic::new(Code::InvalidUtf8, "the file is UTF-16, not UTF-8").help(help))
        }
        Kind::Text => sink.whole(&origin.file, |sink| match ending_of(&origin.name) {
            Some(".csv") => csv_rows::read(&mut whole, b',', origin, sink),
            Some(".tsv") => csv_rows::read(&mut whole, b'\t', origin, sink),
            _ => cut::read(&mut whole, origin, sink),
        }),
    }
}

/// Whether a member of an archive is read; it is told from the rest as files of a folder are.
fn is_wanted(origin: &Origin, member: &str, sink: &mut Sink<'_, '_>) -> (bool, Flow) {
    if member.split('/').any(is_hidden) || member.starts_with("__MACOSX/") {
        return (false, Flow::Continue(()));
    }
    if ending_of(member).is_some() {
        return (true, Flow::Continue(()));
    }
    (false, sink.skipped(&format!("{}!{member}", origin.file), "unknown ending"))
}

fn tar(input: &mut dyn Read, origin: &Origin, sink: &mut Sink<'_, '_>) -> Flow {
    let before = sink.records;
    let mut archive = tar::Archive::new(input);
    let inside = origin.inside(Layer::Tar);
    let entries = match archive.entries() {
        Ok(entries) => entries,
        Err(error) => {
            let diagnostic = inside.unreadable(&error, 0, sink);
            return sink.fault(&origin.file, diagnostic);
        }
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let diagnostic = inside.unreadable(&error, sink.records - before, sink);
                return sink.fault(&origin.file, diagnostic);
            }
        };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.trim_start_matches("./");
        let (wanted, flow) = is_wanted(origin, name, sink);
        flow?;
        if !wanted {
            continue;
        }
        let size = entry.size();
        let mut counted = Counted { inner: entry, bytes: 0, failed: false };
        read(&mut counted, &origin.member(Layer::Tar, name), sink)?;
        // The crate takes the end of the archive for the end of the member.
        let _ = io::copy(&mut counted, &mut io::sink());
        if counted.failed {
            return Flow::Continue(()); // it has been said of the member
        }
        if counted.bytes < size {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of a member");
            let diagnostic = inside.unreadable(&error, sink.records - before, sink);
            return sink.fault(&origin.file, diagnostic);
        }
    }
    Flow::Continue(())
}

struct Counted<R> {
    inner: R,
    bytes: u64,
    failed: bool,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer).inspect_err(|_| self.failed = true)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Reads the members of a zip, in the order of its directory.
pub(super) fn zip(file: impl Read + Seek, origin: &Origin, sink: &mut Sink<'_, '_>) -> Flow {
    let inside = origin.inside(Layer::Zip);
    let broken = |error: zip::result::ZipError, records: u64, sink: &Sink<'_, '_>| {
        let error = match error {
            zip::result::ZipError::Io(error) => error,
            other => io::Error::other(other.to_string()),
        };
        inside.unreadable(&error, records, sink)
    };
    let before = sink.records;
    let mut archive = match zip::ZipArchive::new(BufReader::new(file)) {
        Ok(archive) => archive,
        Err(error) => {
            let diagnostic = broken(error, 0, sink);
            return sink.fault(&origin.file, diagnostic);
        }
    };
    for index in 0..archive.len() {
        let (name, is_file) = match archive.by_index_raw(index) {
            Ok(entry) => (String::from_utf8_lossy(entry.name_raw()).into_owned(), entry.is_file()),
            Err(error) => {
                let diagnostic = broken(error, sink.records - before, sink);
                sink.fault(&origin.file, diagnostic)?;
                continue;
            }
        };
        if !is_file {
            continue;
        }
        let (wanted, flow) = is_wanted(origin, &name, sink);
        flow?;
        if !wanted {
            continue;
        }
        let member = origin.member(Layer::Zip, &name);
        match archive.by_index(index) {
            Ok(mut entry) => read(&mut entry, &member, sink)?,
            Err(zip::result::ZipError::UnsupportedArchive(what)) => {
                let message = format!("the member cannot be read: {what}");
                let help = "unpack the archive and name what comes out";
                sink.fault(&member.file, Diagnostic::new(Code::UnsupportedContainer, message).help(help))?;
            }
            Err(error) => {
                let diagnostic = broken(error, 0, sink);
                sink.fault(&member.file, diagnostic)?;
            }
        }
    }
    Flow::Continue(())
}
