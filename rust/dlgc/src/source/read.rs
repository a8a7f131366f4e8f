//! Reading one file: decompression, and cutting its bytes into records.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::{Chunk, Fault, InputDigest, Slot};
use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::Position;

/// How many bytes of records make a chunk: large enough to amortise the hand-over, small enough for a core's cache.
const CHUNK_BYTES: usize = 512 * 1024;
/// How much is read from a file at a time.
const READ_BYTES: usize = 256 * 1024;

/// Reads files one after the other and hands out their records in chunks.
///
/// An iterator: `Ok` is a chunk, `Err` a file-level fault, after which the next file follows.
pub struct Reader {
    /// Files with the names that locations and digests give them.
    waiting: VecDeque<(PathBuf, Arc<str>)>,
    current: Option<OpenFile>,
    max_record_bytes: usize,
    digests: Vec<InputDigest>,
    bytes_read: u64,
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
        Self { waiting: files.into(), current: None, max_record_bytes, digests: Vec::new(), bytes_read: 0 }
    }

    /// What has been read to its end so far.
    pub fn digests(&self) -> &[InputDigest] {
        &self.digests
    }

    /// Stored bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read + self.current.as_ref().map_or(0, OpenFile::stored_bytes)
    }

    fn close(&mut self, file: &OpenFile) {
        let digest = file.digest();
        self.bytes_read += digest.bytes;
        self.digests.push(digest);
    }
}

impl Iterator for Reader {
    type Item = Result<Chunk, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut file = match self.current.take() {
                Some(file) => file,
                None => {
                    let (path, name) = self.waiting.pop_front()?;
                    match OpenFile::open(&path, Arc::clone(&name), self.max_record_bytes) {
                        Ok(file) => file,
                        Err(error) => {
                            let message = format!("the file cannot be read: {error}");
                            let diagnostic = Diagnostic::new(Code::UnreadableFile, message);
                            return Some(Err(Fault { file: name, diagnostic }));
                        }
                    }
                }
            };
            match file.next_chunk() {
                Ok(Some(chunk)) => {
                    self.current = Some(file);
                    return Some(Ok(chunk));
                }
                Ok(None) => {
                    self.close(&file);
                    if let Some(diagnostic) = file.fault.take() {
                        return Some(Err(Fault { file: file.name, diagnostic }));
                    }
                }
                Err(error) => {
                    // What was read before the error has been handed out; the tail is a fault of the file.
                    self.close(&file);
                    let code = if file.gzipped { Code::TruncatedGzip } else { Code::UnreadableFile };
                    let message = format!("reading stopped after {} record(s): {error}", file.records);
                    return Some(Err(Fault { file: file.name, diagnostic: Diagnostic::new(code, message) }));
                }
            }
        }
    }
}

/// Counts and hashes what passes through it. Shared, because a decoder owns its reader.
struct Tap<R> {
    inner: R,
    seen: Arc<Mutex<(u64, Sha256)>>,
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let mut seen = self.seen.lock().expect("nobody panics while holding the tap");
        seen.0 += count as u64;
        seen.1.update(&buffer[..count]);
        Ok(count)
    }
}

/// How the records of a file are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// One a line.
    Lines,
    /// The elements of one array.
    Array,
    /// JSON values one after the other, over any number of lines.
    Values,
}

struct OpenFile {
    name: Arc<str>,
    input: Box<dyn Read + Send>,
    seen: Arc<Mutex<(u64, Sha256)>>,
    gzipped: bool,
    buffer: Vec<u8>,
    at: usize,
    ended: bool,
    pending_error: Option<io::Error>,
    layout: Option<Layout>,
    line: u64,
    records: u64,
    max_record_bytes: usize,
    fault: Option<Diagnostic>,
    finished: bool,
}

impl OpenFile {
    fn open(path: &Path, name: Arc<str>, max_record_bytes: usize) -> io::Result<Self> {
        let file: Box<dyn Read + Send> =
            if path.as_os_str() == "-" { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
        let seen = Arc::new(Mutex::new((0, Sha256::new())));
        let mut tap = Tap { inner: file, seen: Arc::clone(&seen) };
        let mut head = Vec::new();
        (&mut tap).take(3).read_to_end(&mut head)?;
        let gzipped = head.starts_with(&[0x1f, 0x8b]);
        let head_and_rest = io::Cursor::new(head).chain(tap);
        let mut input: Box<dyn Read + Send> =
            if gzipped { Box::new(MultiGzDecoder::new(head_and_rest)) } else { Box::new(head_and_rest) };
        let mut buffer = Vec::new();
        (&mut input).take(3).read_to_end(&mut buffer)?;
        if buffer == [0xef, 0xbb, 0xbf] {
            buffer.clear(); // a byte-order mark says nothing in UTF-8
        }
        Ok(Self {
            name,
            input,
            seen,
            gzipped,
            buffer,
            at: 0,
            ended: false,
            pending_error: None,
            layout: None,
            line: 1,
            records: 0,
            max_record_bytes,
            fault: None,
            finished: false,
        })
    }

    fn stored_bytes(&self) -> u64 {
        self.seen.lock().expect("nobody panics while holding the tap").0
    }

    fn digest(&self) -> InputDigest {
        let seen = self.seen.lock().expect("nobody panics while holding the tap");
        InputDigest {
            file: Arc::clone(&self.name),
            bytes: seen.0,
            sha256: crate::hex(&seen.1.clone().finalize()),
            records: self.records,
        }
    }

    /// Reads more; an error is kept until everything before it has been handed out.
    fn fill(&mut self) {
        if self.ended {
            return;
        }
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        let length = self.buffer.len();
        self.buffer.resize(length + READ_BYTES, 0);
        loop {
            match self.input.read(&mut self.buffer[length..]) {
                Ok(count) => {
                    self.buffer.truncate(length + count);
                    self.ended = count == 0;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.truncate(length);
                    self.ended = true;
                    self.pending_error = Some(error);
                    return;
                }
            }
        }
    }

    fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        let mut chunk = Chunk { file: Arc::clone(&self.name), bytes: Vec::new(), records: Vec::new() };
        while !self.finished && chunk.bytes.len() < CHUNK_BYTES && chunk.records.len() < 4096 {
            let layout = match self.layout {
                Some(layout) => layout,
                None => {
                    let layout = self.detect();
                    self.layout = Some(layout);
                    layout
                }
            };
            let more = match layout {
                Layout::Lines => self.next_line(&mut chunk),
                Layout::Array | Layout::Values => self.next_value(&mut chunk, layout),
            };
            if !more {
                self.finished = true;
            }
        }
        if !chunk.records.is_empty() {
            return Ok(Some(chunk));
        }
        match self.pending_error.take() {
            Some(error) => Err(error),
            None => Ok(None),
        }
    }

    /// Tells the layout from the first value: lines unless it runs over the end of its line.
    fn detect(&mut self) -> Layout {
        self.skip_space();
        let Some(&first) = self.buffer.get(self.at) else {
            return Layout::Lines;
        };
        if first != b'[' && first != b'{' {
            return Layout::Lines;
        }
        let mut scan = Scan::default();
        let mut length = 0;
        loop {
            let (step, done) = scan.advance(&self.buffer[self.at + length..]);
            length += step;
            if let Some(newline) = memchr::memchr(b'\n', &self.buffer[self.at..self.at + length]) {
                return if first == b'[' { Layout::Array } else { self.detect_after(newline + 1) };
            }
            if !done && length > self.max_record_bytes {
                return if first == b'[' { Layout::Array } else { Layout::Lines };
            }
            if done {
                break;
            }
            if self.ended {
                return if first == b'[' { Layout::Array } else { Layout::Lines };
            }
            self.fill();
        }
        if first == b'{' {
            return Layout::Lines;
        }
        // A whole array on the first line: the file's only value, or the first of many lines?
        loop {
            let rest = &self.buffer[self.at + length..];
            if rest.iter().any(|byte| !byte.is_ascii_whitespace()) {
                return Layout::Lines;
            }
            if self.ended {
                return Layout::Array;
            }
            self.fill();
        }
    }

    /// An object runs over the end of its line: a file laid out for reading goes on with a key or a bracket,
    /// a file of lines whose first one is broken goes on with the next record.
    fn detect_after(&mut self, mut length: usize) -> Layout {
        loop {
            match self.buffer[self.at + length..].iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(b'"' | b'}') => return Layout::Values,
                Some(_) => return Layout::Lines,
                None if self.ended => return Layout::Lines,
                None => {
                    length = self.buffer.len() - self.at;
                    self.fill();
                }
            }
        }
    }

    fn skip_space(&mut self) {
        loop {
            while let Some(byte) = self.buffer.get(self.at) {
                match byte {
                    b'\n' => self.line += 1,
                    b' ' | b'\t' | b'\r' => {}
                    _ => return,
                }
                self.at += 1;
            }
            if self.ended {
                return;
            }
            self.fill();
        }
    }

    fn push(&mut self, chunk: &mut Chunk, length: usize, position: Position, fault: Option<Diagnostic>) {
        let start = chunk.bytes.len();
        chunk.bytes.extend_from_slice(&self.buffer[self.at..self.at + length]);
        chunk.records.push(Slot { range: start..chunk.bytes.len(), position, fault });
        self.at += length;
        self.records += 1;
    }

    fn too_large(&self, read: usize) -> Diagnostic {
        let message = format!("the record is larger than {} bytes (at least {read})", self.max_record_bytes);
        Diagnostic::new(Code::RecordTooLarge, message).help("raise `--max-record-bytes` if this is one dialogue")
    }

    fn next_line(&mut self, chunk: &mut Chunk) -> bool {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.at..];
            let (length, newline) = match memchr::memchr(b'\n', &unread[searched..]) {
                Some(step) => (searched + step, true),
                None if self.ended => (unread.len(), false),
                None if unread.len() > self.max_record_bytes => return self.skip_large_line(chunk),
                None => {
                    searched = unread.len();
                    self.fill();
                    continue;
                }
            };
            if length == 0 && !newline {
                return false;
            }
            let blank = unread[..length].iter().all(u8::is_ascii_whitespace);
            let position = Position::Line(self.line);
            if blank {
                self.at += length;
            } else if self.pending_error.is_some() && !newline {
                // The tail before a read error is no record: the file-level fault covers it.
                self.at += length;
            } else if length > self.max_record_bytes {
                let fault = self.too_large(length);
                self.push(chunk, length, position, Some(fault));
            } else {
                self.push(chunk, length, position, None);
            }
            if newline {
                self.at += 1;
                self.line += 1;
            }
            return true;
        }
    }

    /// Keeps the head of a line that is too large as its reject, and drops the rest without holding it.
    fn skip_large_line(&mut self, chunk: &mut Chunk) -> bool {
        let fault = self.too_large(self.buffer.len() - self.at);
        let length = self.max_record_bytes;
        self.push(chunk, length, Position::Line(self.line), Some(fault));
        loop {
            if let Some(step) = memchr::memchr(b'\n', &self.buffer[self.at..]) {
                self.at += step + 1;
                self.line += 1;
                return true;
            }
            self.at = self.buffer.len();
            if self.ended {
                return false;
            }
            self.fill();
        }
    }

    fn next_value(&mut self, chunk: &mut Chunk, layout: Layout) -> bool {
        self.skip_space();
        if layout == Layout::Array {
            match self.buffer.get(self.at) {
                Some(b'[') if self.records == 0 => {
                    self.at += 1;
                    self.skip_space();
                }
                Some(b',') if self.records > 0 => {
                    self.at += 1;
                    self.skip_space();
                }
                Some(b']') => {
                    self.at += 1;
                    return self.end_of_array();
                }
                None => return self.unclosed_array(),
                _ => return self.broken_tail("`,` or `]` between the elements of the array"),
            }
            if self.buffer.get(self.at) == Some(&b']') && self.records == 0 {
                self.at += 1;
                return self.end_of_array();
            }
        }
        if self.at >= self.buffer.len() {
            return if layout == Layout::Array { self.unclosed_array() } else { false };
        }
        let mut scan = Scan::default();
        let mut length = 0;
        loop {
            let (step, done) = scan.advance(&self.buffer[self.at + length..]);
            length += step;
            if length > self.max_record_bytes {
                let fault = self.too_large(length);
                self.push(chunk, self.max_record_bytes, Position::Element(self.records + 1), Some(fault));
                return self.broken_tail("records below the limit; what follows a larger one in an array is not read");
            }
            if done || (self.ended && length > 0 && scan.is_scalar()) {
                break;
            }
            if self.ended {
                if self.pending_error.is_none() {
                    let fault = None; // parsing it gives the better message
                    self.push(chunk, length, Position::Element(self.records + 1), fault);
                }
                self.at = self.buffer.len();
                return false;
            }
            self.fill();
        }
        if length == 0 {
            return self.broken_tail("a value between the elements of the array");
        }
        let lines = memchr::memchr_iter(b'\n', &self.buffer[self.at..self.at + length]).count();
        self.push(chunk, length, Position::Element(self.records + 1), None);
        self.line += lines as u64;
        true
    }

    fn end_of_array(&mut self) -> bool {
        self.skip_space();
        if self.at < self.buffer.len() {
            return self.broken_tail("the end of the file after the array");
        }
        false
    }

    fn unclosed_array(&mut self) -> bool {
        if self.pending_error.is_none() {
            let message = format!("the array is not closed; {} element(s) before the end were read", self.records);
            self.fault = Some(Diagnostic::new(Code::BrokenArray, message));
        }
        false
    }

    fn broken_tail(&mut self, expected: &str) -> bool {
        let message = format!("expected {expected} on line {}; the rest of the file is not read", self.line);
        self.fault = Some(
            Diagnostic::new(Code::BrokenArray, message).help("repair the file, or store one record a line (JSONL)"),
        );
        // Read on without keeping anything, so that the digest covers the whole file.
        while !self.ended {
            self.at = self.buffer.len();
            self.fill();
        }
        self.at = self.buffer.len();
        false
    }
}

/// Finds the end of a JSON value by its brackets and quotes; leaves the grammar to the parser.
#[derive(Debug, Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
    scalar: bool,
}

impl Scan {
    fn is_scalar(&self) -> bool {
        self.scalar
    }

    /// Goes on over `bytes`; how many belong to the value, and whether it ends there.
    fn advance(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (index, &byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return (index + 1, true);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => {
                    if self.scalar {
                        return (index, true);
                    }
                    self.in_string = true;
                }
                b'{' | b'[' if !self.scalar => self.depth += 1,
                b'}' | b']' => {
                    if self.depth == 0 {
                        return (index, true);
                    }
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (index + 1, true);
                    }
                }
                b',' | b' ' | b'\t' | b'\n' | b'\r' if self.depth == 0 => return (index, true),
                _ if self.depth == 0 => self.scalar = true,
                _ => {}
            }
        }
        (bytes.len(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> (Vec<String>, Vec<&'static str>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("input");
        std::fs::write(&path, content).expect("written");
        let mut records = Vec::new();
        let mut faults = Vec::new();
        for item in Reader::new(vec![path], 64) {
            match item {
                Ok(chunk) => records.extend(chunk.iter().map(|(record, fault)| {
                    let name = record.location.to_string();
                    let place = name.trim_start_matches(&*record.location.file);
                    let code = fault.map_or("", |fault| fault.code.name());
                    format!("{place} {}{code}", String::from_utf8_lossy(record.bytes))
                })),
                Err(fault) => faults.push(fault.diagnostic.code.name()),
            }
        }
        (records, faults)
    }

    fn records(content: &str) -> Vec<String> {
        let (records, faults) = read(content.as_bytes());
        assert!(faults.is_empty(), "{faults:?}");
        records
    }

    #[test]
    fn lines_keep_their_numbers_over_blank_ones() {
        assert_eq!(records("\u{feff}{\"a\":1}\r\n\n  \n{\"b\":2}"), [":1 {\"a\":1}\r", ":4 {\"b\":2}"]);
    }

    #[test]
    fn arrays_are_cut_into_elements_however_they_are_laid_out() {
        let expected = ["[1] {\"a\":\"]\"}", "[2] 3", "[3] [4]"];
        assert_eq!(records("[{\"a\":\"]\"},3,[4]]"), expected);
        assert_eq!(records("[\n {\"a\":\"]\"} ,\n 3\n ,[4]\n]\n"), expected);
        assert!(records("[]").is_empty());
        assert!(records("").is_empty());
    }

    #[test]
    fn arrays_on_lines_of_their_own_are_lines() {
        assert_eq!(records("[1]\n[2]\n"), [":1 [1]", ":2 [2]"]);
    }

    #[test]
    fn values_over_several_lines_are_values() {
        assert_eq!(records("{\n\"a\":1\n}\n{\"b\":2}\n"), ["[1] {\n\"a\":1\n}", "[2] {\"b\":2}"]);
    }

    #[test]
    fn a_broken_first_line_does_not_swallow_the_file() {
        assert_eq!(records("{\"a\":[1\n{\"b\":2}\n"), [":1 {\"a\":[1", ":2 {\"b\":2}"]);
    }

    #[test]
    fn what_follows_a_broken_array_is_a_fault_of_the_file() {
        assert_eq!(read(b"[1 2]").1, ["broken-array"]);
        assert_eq!(read(b"[1,\n2").1, ["broken-array"]);
        assert_eq!(read(b"[1] x\n").0.len(), 1);
        assert_eq!(read(b"[\n1] x\n").1, ["broken-array"]);
    }

    #[test]
    fn a_record_above_the_limit_is_a_reject_and_the_next_line_is_read() {
        let content = format!("{{\"a\":\"{}\"}}\n{{}}\n", "x".repeat(300));
        let (records, faults) = read(content.as_bytes());
        assert!(records[0].ends_with("record-too-large"), "{records:?}");
        assert_eq!(records[1], ":2 {}");
        assert!(faults.is_empty());
    }

    #[test]
    fn a_cut_gzip_gives_what_came_before_the_cut() {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        for index in 0..20_000 {
            writeln!(encoder, "{{\"a\":{}}}", index * 7919 % 100_003).expect("written");
        }
        let whole = encoder.finish().expect("finished");
        let (cut, faults) = read(&whole[..whole.len() / 2]);
        assert!(!cut.is_empty() && cut.len() < 20_000);
        assert!(cut.iter().all(|record| record.ends_with('}')));
        assert_eq!(faults, ["truncated-gzip"]);
        assert_eq!(read(&whole).0.len(), 20_000);
    }
}
