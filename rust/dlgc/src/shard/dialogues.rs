//! `dialogues.arrow`: one row for each imported dialogue, compiled or rejected; and `rejects/`.

use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{Int32Builder, Int64Builder, ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use serde::Serialize;

use super::arrow_error;
use super::files::AtomicFile;
use super::manifest::FileEntry;
use super::splits::stream;
use crate::diagnostic::{Code, Located, Severity};
use crate::dialogue::{Location, Position};
use crate::error::{Error, Result};

/// What `dialogues.arrow` says about one dialogue.
#[derive(Debug, Clone, Default)]
pub struct DialogueRow {
    /// Its id.
    pub id: String,
    /// `chat`, `task` or `tool`.
    pub kind: &'static str,
    /// `metadata.language`, if it has one.
    pub language: Option<String>,
    /// The script that most of it is written in, as ISO 15924 names it.
    pub script: Option<&'static str>,
    /// Its file.
    pub file: String,
    /// Its place in the file.
    pub line: u64,
    /// The format it had.
    pub format: Arc<str>,
    /// Its split.
    pub split: String,
    /// Its fold for cross-validation, from 0; -1 where there are none.
    pub fold: i32,
    /// Its paraphrase group.
    pub group: Option<String>,
    /// Its metadata, as JSON text.
    pub metadata: Option<String>,
    /// Its goal, as JSON text.
    pub goal: Option<String>,
    /// Intents of its states.
    pub intents: Vec<String>,
    /// Names of the slots of its states.
    pub slots: Vec<String>,
    /// Tools that it calls.
    pub tools: Vec<String>,
    /// Codes of its diagnostics.
    pub codes: Vec<String>,
    /// Messages, assistant turns, trained turns, tokens, trained tokens, rows.
    pub counts: [i64; 6],
}

const TEXTS: [&str; 10] = ["id", "type", "language", "script", "file", "format", "split", "group", "metadata", "goal"];
const LISTS: [&str; 4] = ["intents", "slots", "tools", "codes"];
const COUNTS: [&str; 6] = ["messages", "assistant_turns", "trained_turns", "tokens", "trained_tokens", "rows"];
const BATCH: usize = 4096;
/// Name of the file.
const DIALOGUES: &str = "dialogues.arrow";

/// Writes `dialogues.arrow`.
pub(super) struct DialoguesWriter {
    root: PathBuf,
    schema: Arc<Schema>,
    writer: StreamWriter<AtomicFile>,
    pending: Vec<DialogueRow>,
}

impl DialoguesWriter {
    /// Begins the file, or goes on behind so many bytes of it.
    pub(super) fn create(root: &Path, resumed: Option<u64>) -> Result<Self> {
        let item = || Arc::new(Field::new("item", DataType::Utf8, true));
        let mut fields: Vec<Field> = TEXTS.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
        fields.push(Field::new("line", DataType::Int32, false));
        fields.push(Field::new("fold", DataType::Int32, false));
        fields.extend(LISTS.iter().map(|name| Field::new(*name, DataType::List(item()), false)));
        fields.extend(COUNTS.iter().map(|name| Field::new(*name, DataType::Int64, false)));
        let schema = Arc::new(Schema::new(fields));
        let writer = stream(root, DIALOGUES, &schema, AtomicFile::open(root, DIALOGUES, resumed)?)?;
        Ok(Self { root: root.to_owned(), schema, writer, pending: Vec::new() })
    }

    /// Makes the rows so far durable; how many bytes they are.
    pub(super) fn settle(&mut self) -> Result<u64> {
        self.flush()?;
        self.writer.get_mut().settle()
    }

    pub(super) fn push(&mut self, row: DialogueRow) -> Result<()> {
        self.pending.push(row);
        if self.pending.len() == BATCH { self.flush() } else { Ok(()) }
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> Result<()> {
        let rows = std::mem::take(&mut self.pending);
        if rows.is_empty() {
            return Ok(());
        }
        let text = |pick: fn(&DialogueRow) -> Option<&str>| -> ArrayRef {
            let mut builder = StringBuilder::new();
            rows.iter().for_each(|row| builder.append_option(pick(row)));
            Arc::new(builder.finish())
        };
        let list = |pick: fn(&DialogueRow) -> &[String]| -> ArrayRef {
            let mut builder = ListBuilder::new(StringBuilder::new());
            for row in &rows {
                pick(row).iter().for_each(|value| builder.values().append_value(value));
                builder.append(true);
            }
            Arc::new(builder.finish())
        };
        let mut columns = vec![
            text(|row| Some(&row.id)),
            text(|row| Some(row.kind)),
            text(|row| row.language.as_deref()),
            text(|row| row.script),
            text(|row| Some(&row.file)),
            text(|row| Some(&row.format)),
            text(|row| Some(&row.split)),
            text(|row| row.group.as_deref()),
            text(|row| row.metadata.as_deref()),
            text(|row| row.goal.as_deref()),
        ];
        let mut lines = Int32Builder::new();
        rows.iter().for_each(|row| lines.append_value(i32::try_from(row.line).unwrap_or(i32::MAX)));
        columns.push(Arc::new(lines.finish()));
        let mut folds = Int32Builder::new();
        rows.iter().for_each(|row| folds.append_value(row.fold));
        columns.push(Arc::new(folds.finish()));
        columns.extend([
            list(|row| &row.intents),
            list(|row| &row.slots),
            list(|row| &row.tools),
            list(|row| &row.codes),
        ]);
        for index in 0..COUNTS.len() {
            let mut builder = Int64Builder::new();
            rows.iter().for_each(|row| builder.append_value(row.counts[index]));
            columns.push(Arc::new(builder.finish()));
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|error| self.error(error))?;
        let written = self.writer.write(&batch);
        written.map_err(|error| self.error(error))
    }

    pub(super) fn finish(mut self) -> Result<FileEntry> {
        self.flush()?;
        let fail = |error| arrow_error(&self.root, DIALOGUES, error);
        self.writer.into_inner().map_err(fail)?.commit()
    }

    fn error(&self, error: ArrowError) -> Error {
        arrow_error(&self.root, DIALOGUES, error)
    }
}

/// Writes `rejects/data.bin` and `rejects/index.jsonl`.
pub(super) struct RejectsWriter {
    data: AtomicFile,
    index: AtomicFile,
}

#[derive(Serialize)]
struct Reject<'r> {
    file: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    element: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'r str>,
    offset: u64,
    length: u64,
    diagnostics: Vec<Brief<'r>>,
}

/// A finding without what can be told from the record beside it.
#[derive(Serialize)]
struct Brief<'r> {
    code: Code,
    severity: Severity,
    message: &'r str,
    path: &'r str,
    range: Option<&'r Range<usize>>,
    label: Option<&'r str>,
    help: Option<&'r str>,
}

impl<'r> Brief<'r> {
    fn of(found: &'r Located) -> Self {
        Self {
            code: found.code,
            severity: found.severity,
            message: &found.message,
            path: &found.path,
            range: found.range.as_ref(),
            label: found.label.as_deref(),
            help: found.help.as_deref(),
        }
    }
}

impl RejectsWriter {
    /// Begins the files, or goes on behind so many bytes of them.
    pub(super) fn create(root: &Path, resumed: Option<[u64; 2]>) -> Result<Self> {
        let open = |name: &str, bytes: Option<u64>| -> Result<AtomicFile> {
            let mut file = AtomicFile::open(root, name, bytes)?;
            file.unmute();
            Ok(file)
        };
        Ok(Self {
            data: open("rejects/data.bin", resumed.map(|bytes| bytes[0]))?,
            index: open("rejects/index.jsonl", resumed.map(|bytes| bytes[1]))?,
        })
    }

    /// Makes the rejects so far durable; how many bytes they are.
    pub(super) fn settle(&mut self) -> Result<[u64; 2]> {
        Ok([self.data.settle()?, self.index.settle()?])
    }

    pub(super) fn push(&mut self, location: &Location, record: &[u8], diagnostics: &[Located]) -> Result<()> {
        let (line, element) = match location.position {
            Position::Line(line) => (Some(line), None),
            Position::Element(element) => (None, Some(element)),
        };
        let reject = Reject {
            file: &location.file,
            line,
            element,
            key: location.key.as_deref(),
            offset: self.data.bytes(),
            length: record.len() as u64,
            diagnostics: diagnostics.iter().map(Brief::of).collect(),
        };
        let mut entry = serde_json::to_vec(&reject).expect("a reject is JSON");
        entry.push(b'\n');
        self.data.write_all(record).map_err(|error| self.data.error(error))?;
        self.index.write_all(&entry).map_err(|error| self.index.error(error))
    }

    pub(super) fn finish(self) -> Result<[FileEntry; 2]> {
        Ok([self.data.commit()?, self.index.commit()?])
    }
}
