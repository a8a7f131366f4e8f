//! CSV and TSV: each row becomes an object of its columns, all of them strings.
//!
//! The first row names the columns; records are counted from the one after it, because a cell may hold several lines. An
//! empty cell is an absent field: CSV cannot tell them apart. A cell stays a string, but in columns whose name says that
//! they hold messages, where a JSON array is that array.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use super::Chunk;
use super::container::{Flow, Origin, Sink};
use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::Position;
use crate::json::write_bytes_as_string;

/// Reads the rows; a comma may turn out to be a semicolon.
pub(super) fn read(input: &mut dyn Read, delimiter: u8, origin: &Origin, sink: &mut Sink<'_, '_>) -> Flow {
    let used = Rc::new(Cell::new(0));
    let mut head = vec![0; 64 * 1024];
    let length = match fill(input, &mut head) {
        Ok(length) => length,
        Err(error) => {
            let diagnostic = origin.unreadable(&error, 0, sink);
            return sink.fault(&origin.file, diagnostic);
        }
    };
    head.truncate(length);
    let start = if head.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let first_line = head[start..].split(|&byte| byte == b'\n').next().unwrap_or_default();
    let count = |wanted: u8| first_line.iter().filter(|&&byte| byte == wanted).count();
    let delimiter = if delimiter == b',' && count(b';') > count(b',') { b';' } else { delimiter };
    let whole = io::Cursor::new(head.split_off(start)).chain(input);
    let bounded = Bounded { inner: whole, used: Rc::clone(&used), limit: sink.max_record_bytes.max(1 << 20) };
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(bounded);
    let names = match reader.byte_headers() {
        Ok(names) => names.clone(),
        Err(error) => return stop(error, origin, 0, sink),
    };
    let mut chunk = Chunk::of(&origin.file);
    let (mut row, mut text, mut records) = (csv::ByteRecord::new(), Vec::new(), 0);
    loop {
        used.set(0);
        match reader.read_byte_record(&mut row) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                sink.chunk(chunk)?;
                return stop(error, origin, records, sink);
            }
        }
        records += 1;
        let fault = (row.len() != names.len()).then(|| {
            let message = format!("the row has {} cells, the first row names {} columns", row.len(), names.len());
            Diagnostic::new(Code::WrongColumns, message).help("quote cells that hold the delimiter, a quote or a line")
        });
        to_json(&names, &row, &mut text);
        let fault = fault.or_else(|| super::cut::too_large(text.len(), sink.max_record_bytes));
        chunk.push(&text[..text.len().min(sink.max_record_bytes)], Position::Element(records), fault);
        if chunk.is_full() {
            sink.chunk(std::mem::replace(&mut chunk, Chunk::of(&origin.file)))?;
        }
    }
    if records == 0 {
        return sink.fault(&origin.file, super::cut::empty());
    }
    sink.chunk(chunk)
}

fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if length > 0 => break, // the reader meets the error again
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn stop(error: csv::Error, origin: &Origin, records: u64, sink: &mut Sink<'_, '_>) -> Flow {
    let diagnostic = match error.into_kind() {
        csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            let message = format!(
                "a row after {records} record(s) is larger than {} bytes; the rest of the file is not read",
                sink.max_record_bytes
            );
            Diagnostic::new(Code::RecordTooLarge, message).help("a quote that is not closed swallows what follows it")
        }
        csv::ErrorKind::Io(error) => origin.unreadable(&error, records, sink),
        other => Diagnostic::new(Code::UnreadableFile, format!("reading stopped after {records} record(s): {other:?}")),
    };
    sink.fault(&origin.file, diagnostic)
}

fn to_json(names: &csv::ByteRecord, row: &csv::ByteRecord, text: &mut Vec<u8>) {
    text.clear();
    text.push(b'{');
    for (index, cell) in row.iter().enumerate() {
        if cell.is_empty() {
            continue;
        }
        if text.len() > 1 {
            text.extend_from_slice(b", ");
        }
        let unnamed = format!("column {}", index + 1);
        let name = names.get(index).unwrap_or(unnamed.as_bytes());
        write_bytes_as_string(text, name);
        text.extend_from_slice(b": ");
        write_cell(text, name, cell);
    }
    text.push(b'}');
}

/// Columns that hold lists of messages.
const LISTS: [&str; 7] = ["conversation", "messages", "conversations", "chosen", "rejected", "prompt", "completion"];

/// Writes a cell of text: a string, or the JSON array that a column of messages holds.
pub(super) fn write_cell(out: &mut Vec<u8>, column: &[u8], cell: &[u8]) {
    let holds_messages =
        LISTS.iter().any(|name| name.as_bytes() == column) && cell.trim_ascii_start().starts_with(b"[");
    if holds_messages && crate::json::parse(cell).is_ok() {
        out.extend_from_slice(cell);
    } else {
        write_bytes_as_string(out, cell);
    }
}

/// Fails where one row takes more than the limit: a quote that is never closed would be read into memory whole.
struct Bounded<R> {
    inner: R,
    used: Rc<Cell<usize>>,
    limit: usize,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used.get() > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let count = self.inner.read(buffer)?;
        self.used.set(self.used.get() + count);
        Ok(count)
    }
}
