//! Rows as they lie in a dataset.
//!
//! In: the shards of a split. Out: their rows, in order, or their examples one by one, a batch in memory at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Int32Type, Int64Type, UInt8Type, UInt64Type};
use arrow_array::{Array, ListArray, RecordBatch};
use arrow_ipc::reader::StreamReader;

use super::preferences::Preferences;
use super::{Provenance, Row, RowKind};
use crate::error::{Error, ErrorKind, Result};
use crate::tokenize::UNTRAINED;

/// The columns of a batch.
pub(crate) enum Columns<'b> {
    Sequences(Sequences<'b>),
    Preferences(Preferences<'b>),
}

impl<'b> Columns<'b> {
    /// `None` where they are not those of `specs/shard.md`.
    pub(crate) fn of(batch: &'b RecordBatch) -> Option<Self> {
        match batch.column_by_name("prompt_ids") {
            None => Sequences::of(batch).map(Self::Sequences),
            Some(_) => Preferences::of(batch).map(Self::Preferences),
        }
    }

    /// What its rows are.
    pub(crate) fn kind(&self) -> RowKind {
        match self {
            Self::Sequences(_) => RowKind::Sft,
            Self::Preferences(columns) => columns.kind(),
        }
    }

    /// Whether rows are packed.
    pub(crate) fn is_packed(&self) -> bool {
        matches!(self, Self::Sequences(Sequences { packed: Some(_), .. }))
    }

    /// A row; where columns do not fit together, what can be had of it.
    pub(crate) fn row(&self, index: usize) -> Row {
        match self {
            Self::Sequences(columns) => columns.row(index),
            Self::Preferences(columns) => columns.row(index),
        }
    }

    /// Why the parts of a row cannot be told apart.
    pub(crate) fn misfit(&self, index: usize, row: &Row) -> Option<String> {
        match self {
            Self::Sequences(columns) => columns.misfit(index, row),
            Self::Preferences(columns) => columns.misfit(index),
        }
    }

    /// A token that is trained as another, or whose mask says something else than its label.
    pub(crate) fn mislabelled(&self, index: usize, row: &Row) -> Option<String> {
        let masks = match self {
            Self::Sequences(columns) => Some(numbers::<UInt8Type>(columns.masks, index)),
            Self::Preferences(_) => None,
        };
        let mask = |at: usize| masks.as_ref().map(|masks| masks[at]);
        let is_wrong = |at: &usize| {
            let (id, label) = (row.input_ids[*at], row.labels[*at]);
            let is_trained = label != UNTRAINED;
            is_trained && label != id || mask(*at).is_some_and(|mask| u8::from(is_trained) != mask)
        };
        let at = (0..row.input_ids.len()).find(is_wrong)?;
        let mask = mask(at).map_or_else(String::new, |mask| format!(", mask {mask}"));
        Some(format!("token {at}: id {}, label {}{mask}", row.input_ids[at], row.labels[at]))
    }
}

/// The columns of sequences.
pub(crate) struct Sequences<'b> {
    input_ids: &'b ListArray,
    labels: &'b ListArray,
    masks: &'b ListArray,
    dialogue_id: &'b ListArray,
    file: &'b ListArray,
    line: &'b ListArray,
    window: &'b ListArray,
    fold: &'b ListArray,
    trained_messages: &'b ListArray,
    text_hash: &'b ListArray,
    target_hash: &'b ListArray,
    /// `seq_lengths` and `example`, where rows are packed.
    packed: Option<(&'b ListArray, &'b ListArray)>,
}

impl<'b> Sequences<'b> {
    fn of(batch: &'b RecordBatch) -> Option<Self> {
        let list = |name: &str| batch.column_by_name(name)?.as_list_opt::<i32>();
        let of_int32 = |list: &&ListArray| list.values().as_primitive_opt::<Int32Type>().is_some();
        let of_int64 = |list: &&ListArray| list.values().as_primitive_opt::<Int64Type>().is_some();
        let of_uint64 = |list: &&ListArray| list.values().as_primitive_opt::<UInt64Type>().is_some();
        let of_text = |list: &&ListArray| list.values().as_string_opt::<i32>().is_some();
        let packed = match batch.column_by_name("seq_lengths") {
            None => None,
            Some(_) => Some((list("seq_lengths").filter(of_int32)?, list("example").filter(of_int64)?)),
        };
        Some(Self {
            input_ids: list("input_ids").filter(of_int32)?,
            labels: list("labels").filter(of_int32)?,
            masks: list("assistant_masks").filter(|list| list.values().as_primitive_opt::<UInt8Type>().is_some())?,
            dialogue_id: list("dialogue_id").filter(of_text)?,
            file: list("file").filter(of_text)?,
            line: list("line").filter(of_int32)?,
            window: list("window").filter(of_int32)?,
            fold: list("fold").filter(of_int32)?,
            trained_messages: list("trained_messages")
                .filter(|list| list.values().as_list_opt::<i32>().is_some_and(|inner| of_int32(&inner)))?,
            text_hash: list("text_hash").filter(of_uint64)?,
            target_hash: list("target_hash").filter(of_uint64)?,
            packed,
        })
    }

    fn misfit(&self, index: usize, row: &Row) -> Option<String> {
        let [ids, labels, masks] = [self.input_ids, self.labels, self.masks].map(|list| list.value(index).len());
        if ids != labels || ids != masks {
            return Some(format!("{ids} ids, {labels} labels, {masks} masks"));
        }
        let counts = self.counts(index);
        if counts.iter().any(|&count| count != row.provenance.len() || count == 0) {
            return Some(format!("the columns of its examples have {counts:?} elements"));
        }
        let lengths: u64 = row.provenance.iter().map(|origin| origin.length).sum();
        let is_empty = row.provenance.iter().any(|origin| origin.length == 0);
        (lengths != ids as u64 || is_empty).then(|| format!("{ids} tokens, but `seq_lengths` of {lengths}"))
    }

    /// How many examples each column says that a row holds; one where they agree and rows are not packed.
    fn counts(&self, index: usize) -> Vec<usize> {
        let packed = self.packed.iter().flat_map(|(lengths, examples)| [*lengths, *examples]);
        [
            self.dialogue_id,
            self.file,
            self.line,
            self.window,
            self.fold,
            self.trained_messages,
            self.text_hash,
            self.target_hash,
        ]
        .into_iter()
        .chain(packed)
        .map(|list| list.value(index).len())
        .collect()
    }

    /// A row; where a column has too few elements, theirs is 0 or empty. In rows that are not packed `example` is 0.
    fn row(&self, index: usize) -> Row {
        let input_ids = numbers::<Int32Type>(self.input_ids, index);
        let (texts, files) = (self.dialogue_id.value(index), self.file.value(index));
        let text = |values: &dyn Array, at: usize| {
            let texts = values.as_string::<i32>();
            if at < texts.len() { texts.value(at).to_owned() } else { String::new() }
        };
        let (lines, windows) = (numbers::<Int32Type>(self.line, index), numbers::<Int32Type>(self.window, index));
        let folds = numbers::<Int32Type>(self.fold, index);
        let hashes = numbers::<UInt64Type>(self.text_hash, index);
        let targets = numbers::<UInt64Type>(self.target_hash, index);
        let (lengths, examples) = match self.packed {
            None => (vec![input_ids.len() as i32], vec![0]),
            Some((lengths, examples)) => (numbers::<Int32Type>(lengths, index), numbers::<Int64Type>(examples, index)),
        };
        let provenance = |at: usize| Provenance {
            dialogue_id: text(&texts, at),
            file: text(&files, at),
            line: lines.get(at).and_then(|&line| u64::try_from(line).ok()).unwrap_or_default(),
            window: windows.get(at).copied().unwrap_or_default(),
            fold: folds.get(at).copied().unwrap_or_default(),
            trained_messages: self.messages(index, at),
            text_hash: hashes.get(at).copied().unwrap_or_default(),
            target_hash: targets.get(at).copied().unwrap_or_default(),
            length: u64::try_from(lengths[at]).unwrap_or_default(),
            example: examples.get(at).and_then(|&example| u64::try_from(example).ok()).unwrap_or_default(),
        };
        let labels = numbers::<Int32Type>(self.labels, index);
        Row { input_ids, labels, provenance: (0..lengths.len()).map(provenance).collect(), ..Row::default() }
    }

    /// Indices of the messages that are trained in an example of a row.
    fn messages(&self, index: usize, at: usize) -> Vec<usize> {
        let lists = self.trained_messages.value(index);
        let lists = lists.as_list::<i32>();
        if at >= lists.len() {
            return Vec::new();
        }
        let messages = lists.value(at);
        messages.as_primitive::<Int32Type>().values().iter().filter_map(|&at| usize::try_from(at).ok()).collect()
    }
}

/// The numbers of a list.
pub(super) fn numbers<T: ArrowPrimitiveType>(list: &ListArray, index: usize) -> Vec<T::Native> {
    list.value(index).as_primitive::<T>().values().to_vec()
}

/// A shard, opened.
pub(crate) fn open(path: &Path) -> Result<StreamReader<BufReader<File>>> {
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    StreamReader::try_new(BufReader::new(file), None).map_err(|error| unreadable(&error))
}

/// What is wrong with a shard that is no Arrow stream, or a broken one.
pub(crate) fn unreadable(error: &arrow_schema::ArrowError) -> Error {
    Error::new(ErrorKind::Shard, format!("cannot be read as an Arrow stream: {error}"))
}

/// The rows of a split, one after the other, each with its place.
pub(crate) struct Rows {
    folder: PathBuf,
    waiting: VecDeque<String>,
    reader: Option<StreamReader<BufReader<File>>>,
    batch: Option<RecordBatch>,
    next: usize,
    /// The shard that is being read, and how many of its rows came before the batch.
    place: (String, usize),
}

impl Rows {
    /// Those of some files below a folder.
    pub(crate) fn of(folder: &Path, files: impl Iterator<Item = String>) -> Self {
        Self {
            folder: folder.to_owned(),
            waiting: files.collect(),
            reader: None,
            batch: None,
            next: 0,
            place: (String::new(), 0),
        }
    }

    fn read(&mut self) -> Result<Option<(String, Row)>> {
        loop {
            if let Some(batch) = self.batch.as_ref().filter(|batch| self.next < batch.num_rows()) {
                let columns = Columns::of(batch).ok_or_else(|| {
                    Error::new(ErrorKind::Shard, "the columns are not those of `specs/shard.md`")
                        .context(self.place.0.clone())
                })?;
                let place = format!("{} row {}", self.place.0, self.place.1 + self.next);
                self.next += 1;
                return Ok(Some((place, columns.row(self.next - 1))));
            }
            self.place.1 += self.batch.take().map_or(0, |batch| batch.num_rows());
            self.next = 0;
            if let Some(reader) = &mut self.reader {
                match reader.next() {
                    Some(batch) => {
                        let fail = |error| unreadable(&error).context(self.place.0.clone());
                        self.batch = Some(batch.map_err(fail)?);
                        continue;
                    }
                    None => self.reader = None,
                }
            }
            let Some(path) = self.waiting.pop_front() else { return Ok(None) };
            self.reader = Some(open(&self.folder.join(&path)).map_err(|error| error.context(path.clone()))?);
            self.place = (path, 0);
        }
    }
}

impl Iterator for Rows {
    type Item = Result<(String, Row)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// The examples of rows, one after the other.
pub(crate) fn examples(rows: Rows) -> impl Iterator<Item = Result<Row>> {
    rows.flat_map(|row| match row {
        Ok((_, row)) => row.split().into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    })
}
