//! Cutting text into records: lines, the elements of an array, the values of an object keyed by id, or JSON values one
//! after the other.
//!
//! The layout is told from the beginning of the file. Where an array or an object is broken, what can be told apart is
//! still read; the rest is a fault of the file.

use std::io::{self, Read};
use std::sync::Arc;

use super::container::{Flow, Origin, Sink};
use super::scan::{Scan, is_keyed_by_id};
use super::{Chunk, text};
use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::Position;

/// How much is read from a file at a time.
const READ_BYTES: usize = 256 * 1024;
/// How much of a file is looked at to tell its layout.
const LOOK_AHEAD: usize = 1 << 20;
/// A byte-order mark, which says nothing in UTF-8; files that were joined have some in the middle.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads the records of a text.
pub(super) fn read(input: &mut dyn Read, origin: &Origin, sink: &mut Sink<'_, '_>) -> Flow {
    let mut cutter = Cutter::new(input, &origin.file, sink.max_record_bytes);
    if let Some(diagnostic) = cutter.other_text() {
        return sink.fault(&origin.file, diagnostic);
    }
    loop {
        let chunk = cutter.next_chunk();
        let is_last = chunk.records.is_empty();
        sink.chunk(chunk)?;
        for fault in cutter.faults.drain(..) {
            sink.fault(&origin.file, fault)?;
        }
        if is_last {
            break;
        }
    }
    if let Some(error) = &cutter.error {
        let diagnostic = origin.unreadable(error, cutter.records, sink);
        return sink.fault(&origin.file, diagnostic);
    }
    if cutter.records == 0 && !cutter.was_broken {
        return sink.fault(&origin.file, empty());
    }
    Flow::Continue(())
}

/// What is said of a file that holds nothing.
pub(super) fn empty() -> Diagnostic {
    Diagnostic::new(Code::EmptyFile, "the file holds no record").help("leave it out if that is meant")
}

/// What is said of a record that is larger than the limit.
pub(super) fn too_large(bytes: usize, limit: usize) -> Option<Diagnostic> {
    (bytes > limit).then(|| {
        let message = format!("the record is larger than {limit} bytes");
        Diagnostic::new(Code::RecordTooLarge, message).help("raise `--max-record-bytes` if this is one dialogue")
    })
}

/// How the records of a file are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// One a line.
    Lines,
    /// The elements of one array.
    Array,
    /// The values of one object, each under its id.
    Object,
    /// JSON values one after the other, over any number of lines.
    Values,
}

struct Cutter<'r> {
    input: &'r mut dyn Read,
    file: Arc<str>,
    buffer: Vec<u8>,
    at: usize,
    ended: bool,
    error: Option<io::Error>,
    layout: Option<Layout>,
    /// Whether the bracket of the array or object has been read.
    is_open: bool,
    line: u64,
    records: u64,
    max_record_bytes: usize,
    faults: Vec<Diagnostic>,
    was_broken: bool,
    lacks_comma: bool,
    finished: bool,
}

impl<'r> Cutter<'r> {
    fn new(input: &'r mut dyn Read, file: &Arc<str>, max_record_bytes: usize) -> Self {
        Self {
            input,
            file: Arc::clone(file),
            buffer: Vec::new(),
            at: 0,
            ended: false,
            error: None,
            layout: None,
            is_open: false,
            line: 1,
            records: 0,
            max_record_bytes,
            faults: Vec::new(),
            was_broken: false,
            lacks_comma: false,
            finished: false,
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
                    self.error = Some(error);
                    return;
                }
            }
        }
    }

    fn next_chunk(&mut self) -> Chunk {
        let mut chunk = Chunk::of(&self.file);
        while !self.finished && !chunk.is_full() {
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
                Layout::Array | Layout::Object => self.next_member(&mut chunk, layout == Layout::Object),
                Layout::Values => self.next_value(&mut chunk),
            };
            self.finished = !more;
        }
        chunk
    }

    fn peek(&self) -> Option<u8> {
        self.buffer.get(self.at).copied()
    }

    /// What is said of a text in which nothing may be JSON, as far as is looked ahead.
    fn other_text(&mut self) -> Option<Diagnostic> {
        self.skip_space();
        while !text::may_be_json(&self.buffer[self.at..]) {
            let head = &self.buffer[self.at..];
            if self.ended || head.len() > READ_BYTES {
                // A line without an end is too large, whatever it holds.
                let is_text = self.error.is_none() && (self.ended || memchr::memchr(b'\n', head).is_some());
                return is_text.then(|| text::diagnostic(head));
            }
            self.fill();
        }
        None
    }

    /// Tells the layout from the first value: lines unless it runs over the end of its line.
    fn detect(&mut self) -> Layout {
        self.skip_space();
        let Some(first) = self.peek() else {
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
            let seen = &self.buffer[self.at..self.at + length];
            // As far as it is there, the first object may be seen to hold records under their ids.
            let is_visible = done || length >= READ_BYTES || self.ended;
            if first == b'{' && is_visible && is_keyed_by_id(seen) && !(done && self.is_followed(length)) {
                return Layout::Object;
            }
            let seen = &self.buffer[self.at..self.at + length];
            if let Some(newline) = memchr::memchr(b'\n', seen)
                && (done || length >= READ_BYTES || self.ended || first == b'[')
            {
                return if first == b'[' { Layout::Array } else { self.detect_after(newline + 1) };
            }
            if !done && length > LOOK_AHEAD {
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
        if self.is_followed(length) { Layout::Lines } else { Layout::Array }
    }

    /// Whether anything but white space follows `length` bytes from here.
    fn is_followed(&mut self, length: usize) -> bool {
        loop {
            if self.buffer[self.at + length..].iter().any(|byte| !byte.is_ascii_whitespace()) {
                return true;
            }
            if self.ended {
                return false;
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
            while let Some(byte) = self.peek() {
                match byte {
                    b'\n' => self.line += 1,
                    b' ' | b'\t' | b'\r' => {}
                    0xef if self.buffer[self.at..].starts_with(MARK) => self.at += 2,
                    0xef if self.buffer.len() - self.at < MARK.len() && !self.ended => break,
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
        chunk.push(&self.buffer[self.at..self.at + length], position, fault);
        self.at += length;
        self.records += 1;
    }

    fn broken(&mut self, message: String, help: &str) {
        self.was_broken = true;
        self.faults.push(Diagnostic::new(Code::BrokenArray, message).help(help));
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
            let mark = marks(&unread[..length]);
            let blank = unread[mark..length].iter().all(u8::is_ascii_whitespace);
            let position = Position::Line(self.line);
            // The tail before a read error is no record: the file-level fault covers it.
            if blank || self.error.is_some() && !newline {
                self.at += length;
            } else {
                self.at += mark;
                let length = length - mark;
                // Of what is too large the head is kept, however much of it happens to be there.
                let kept = length.min(self.max_record_bytes);
                self.push(chunk, kept, position, too_large(length, self.max_record_bytes));
                self.at += length - kept;
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
        let fault = too_large(self.buffer.len() - self.at, self.max_record_bytes);
        self.push(chunk, self.max_record_bytes, Position::Line(self.line), fault);
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

    /// An element of the array, or a value of the object; whether there may be more.
    fn next_member(&mut self, chunk: &mut Chunk, keyed: bool) -> bool {
        let (open, close) = if keyed { (b'{', b'}') } else { (b'[', b']') };
        self.skip_space();
        if !self.is_open {
            match self.peek() {
                None => return false,
                Some(byte) if byte == open => {
                    self.at += 1;
                    self.is_open = true;
                    self.skip_space();
                }
                Some(_) => {
                    let message = format!("something follows the {} on line {}", what(keyed), self.line);
                    self.broken(message, "the rest of the file is not read: store one record a line (JSONL)");
                    return false;
                }
            }
        } else if self.peek() == Some(b',') {
            self.at += 1;
            self.skip_space();
        } else if self.records > 0 && !matches!(self.peek(), None | Some(b']' | b'}')) && !self.lacks_comma {
            self.lacks_comma = true;
            let message = format!("a comma is missing between records on line {}", self.line);
            self.broken(message, "the records on both sides are read; repair what wrote the file");
        }
        match self.peek() {
            None => return self.unclosed(keyed),
            Some(byte) if byte == close => {
                self.at += 1;
                // One more object of the same kind may follow on the next line.
                self.is_open = false;
                return true;
            }
            Some(b']' | b'}' | b',' | b':') => return self.broken_tail(keyed),
            Some(_) => {}
        }
        let key = if keyed {
            match self.key() {
                Some(key) => Some(key),
                None => return self.broken_tail(keyed),
            }
        } else {
            None
        };
        let more = self.value(chunk);
        if let (Some(slot), Some(key)) = (chunk.records.last_mut(), key)
            && slot.position == Position::Element(self.records)
        {
            slot.key = Some(key);
        }
        if !more && !self.was_broken {
            self.unclosed(keyed);
        }
        more
    }

    /// Goes over a key and its colon.
    fn key(&mut self) -> Option<Arc<str>> {
        if self.peek() != Some(b'"') {
            return None;
        }
        let (length, ended) = self.scan();
        let key = crate::json::parse(&self.buffer[self.at..self.at + length]).ok()?.root.as_str().map(Arc::from)?;
        self.at += length;
        self.skip_space();
        if !ended || self.peek() != Some(b':') {
            return None;
        }
        self.at += 1;
        self.skip_space();
        Some(key)
    }

    /// Finds the end of the value that begins here; `false` if it is not there, or beyond the limit.
    fn scan(&mut self) -> (usize, bool) {
        let mut scan = Scan::default();
        let mut length = 0;
        loop {
            let (step, ended) = scan.advance(&self.buffer[self.at + length..]);
            length += step;
            if ended || length > self.max_record_bytes {
                return (length, ended);
            }
            if self.ended {
                return (length, scan.is_scalar());
            }
            self.fill();
        }
    }

    fn next_value(&mut self, chunk: &mut Chunk) -> bool {
        self.skip_space();
        if self.peek().is_none() {
            return false;
        }
        self.value(chunk)
    }

    /// The value that begins here is a record; whether there may be more.
    fn value(&mut self, chunk: &mut Chunk) -> bool {
        let position = Position::Element(self.records + 1);
        let (length, ended) = self.scan();
        if length > self.max_record_bytes {
            self.skip_large_value(chunk, position);
            return true;
        }
        if !ended {
            if self.error.is_none() && length > 0 {
                self.push(chunk, length, position, None); // parsing it gives the better message
            }
            self.at = self.buffer.len();
            return false;
        }
        if length == 0 {
            return self.broken_tail(false);
        }
        let lines = memchr::memchr_iter(b'\n', &self.buffer[self.at..self.at + length]).count();
        self.push(chunk, length, position, None);
        self.line += lines as u64;
        true
    }

    /// Keeps the head of a value that is too large as its reject, and drops the rest without holding it.
    fn skip_large_value(&mut self, chunk: &mut Chunk, position: Position) {
        let fault = too_large(self.buffer.len() - self.at, self.max_record_bytes);
        chunk.push(&self.buffer[self.at..self.at + self.max_record_bytes], position, fault);
        self.records += 1;
        let mut scan = Scan::default();
        loop {
            let (step, ended) = scan.advance(&self.buffer[self.at..]);
            self.line += memchr::memchr_iter(b'\n', &self.buffer[self.at..self.at + step]).count() as u64;
            self.at += step;
            if ended || self.ended {
                return;
            }
            self.fill();
        }
    }

    fn unclosed(&mut self, keyed: bool) -> bool {
        if self.error.is_none() {
            let message = format!("the {} is not closed; {} record(s) were read", what(keyed), self.records);
            self.broken(message, "the end of the file may be lost: fetch or write it again");
        }
        false
    }

    fn broken_tail(&mut self, keyed: bool) -> bool {
        if self.error.is_none() {
            let expected = if keyed { "a key and a value" } else { "a value" };
            let message =
                format!("expected {expected} in the {} on line {}; the rest is not read", what(keyed), self.line);
            self.broken(message, "repair the file, or store one record a line (JSONL)");
        }
        self.at = self.buffer.len();
        false
    }
}

/// How many bytes of byte-order marks a line begins with.
fn marks(line: &[u8]) -> usize {
    line.chunks(MARK.len()).take_while(|chunk| *chunk == MARK).count() * MARK.len()
}

fn what(keyed: bool) -> &'static str {
    if keyed { "object of records" } else { "array" }
}

#[cfg(test)]
mod tests {
    use crate::source::{Item, Reader};
    use std::ops::ControlFlow;

    fn read(content: &[u8]) -> (Vec<String>, Vec<&'static str>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("input");
        std::fs::write(&path, content).expect("written");
        let mut records = Vec::new();
        let mut faults = Vec::new();
        Reader::new(vec![path], 64).read(&mut |item| {
            match item {
                Item::Chunk(chunk) => records.extend(chunk.iter().map(|(record, fault)| {
                    let name = record.location.to_string();
                    let place = name.trim_start_matches(&*record.location.file);
                    let code = fault.map_or("", |fault| fault.code.name());
                    format!("{place} {}{code}", String::from_utf8_lossy(record.bytes))
                })),
                Item::Fault(fault) => faults.push(fault.diagnostic.code.name()),
                Item::Skipped(_) => {}
            }
            ControlFlow::Continue(())
        });
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
    fn byte_order_marks_of_joined_files_are_no_part_of_a_record() {
        assert_eq!(records("\u{feff}{\"a\":1}\n\u{feff}{\"b\":2}\n\u{feff}\n"), [":1 {\"a\":1}", ":2 {\"b\":2}"]);
    }

    #[test]
    fn arrays_are_cut_into_elements_however_they_are_laid_out() {
        let expected = ["[1] {\"a\":\"]\"}", "[2] 3", "[3] [4]"];
        assert_eq!(records("[{\"a\":\"]\"},3,[4]]"), expected);
        assert_eq!(records("[\n {\"a\":\"]\"} ,\n 3\n ,[4]\n]\n"), expected);
    }

    #[test]
    fn an_object_keyed_by_id_is_cut_into_its_values() {
        let expected = ["[1] \"d\\\"1\" {\"log\":[1]}", "[2] \"d2\" {\"log\":[2]}"];
        assert_eq!(records("{\"d\\\"1\":{\"log\":[1]},\"d2\":{\"log\":[2]}}"), expected);
        assert_eq!(records("{\n \"d\\\"1\" : {\"log\":[1]}\n,\n \"d2\":{\"log\":[2]}\n}\n"), expected);
    }

    #[test]
    fn a_file_without_records_says_so() {
        for content in ["", "[]", " \n", "[\n]", "\u{feff}"] {
            assert_eq!(read(content.as_bytes()), (vec![], vec!["empty-file"]), "{content:?}");
        }
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
    fn around_a_break_in_an_array_everything_that_can_be_told_apart_is_read() {
        assert_eq!(read(b"[1 2]"), (vec!["[1] 1".to_owned(), "[2] 2".to_owned()], vec!["broken-array"]));
        assert_eq!(read(b"[1 2 3,4 5]").1, ["broken-array"], "said once");
        assert_eq!(read(b"[1,\n2").1, ["broken-array"]);
        assert_eq!(read(b"[\n1] x\n").1, ["broken-array"]);
        assert_eq!(read(b"[1,:]").1, ["broken-array"]);
        assert_eq!(read(b"{\"a\":{\"b\":1},\"c\":{\"b\":1} \"d\":{\"b\":1},7}").1, ["broken-array", "broken-array"]);
    }

    #[test]
    fn a_record_above_the_limit_is_a_reject_and_the_next_one_is_read() {
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(300));
        for (content, next) in [
            (format!("{large}\n{{}}\n"), ":2 {}"),
            (format!("[{large},{{}}]"), "[2] {}"),
            (format!("{{\n\"b\": {{\"a\": 1}}, \"c\": {large}, \"e\": {{\"a\": {{}}}}}}"), "[3] \"e\" {\"a\": {}}"),
        ] {
            let (records, faults) = read(content.as_bytes());
            let large = &records[records.len() - 2];
            assert!(large.ends_with("record-too-large"), "{records:?}");
            assert_eq!(records.last().map(String::as_str), Some(next));
            assert!(faults.is_empty(), "{faults:?}");
        }
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
