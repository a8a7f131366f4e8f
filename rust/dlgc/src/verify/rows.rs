//! Rows as they lie in a dataset.
//!
//! In: the shards of a split. Out: their rows, in order, a batch in memory at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Int32Type, UInt8Type, UInt64Type};
use arrow_array::{Array, ListArray, RecordBatch};
use arrow_ipc::reader::StreamReader;

use crate::error::{Error, ErrorKind, Result};
use crate::shard::{Provenance, Row, Shard};

/// The columns of a batch.
pub(super) struct Columns<'b> {
    pub(super) input_ids: &'b ListArray,
    pub(super) labels: &'b ListArray,
    pub(super) masks: &'b ListArray,
    dialogue_id: &'b ListArray,
    file: &'b ListArray,
    line: &'b ListArray,
    window: &'b ListArray,
    fold: &'b ListArray,
    pub(super) trained_messages: &'b ListArray,
    pub(super) text_hash: &'b ListArray,
    pub(super) target_hash: &'b ListArray,
}

impl<'b> Columns<'b> {
    /// `None` where they are not those of `specs/shard.md`.
    pub(super) fn of(batch: &'b RecordBatch) -> Option<Self> {
        let list = |name: &str| batch.column_by_name(name)?.as_list_opt::<i32>();
        let of_int32 = |list: &&ListArray| list.values().as_primitive_opt::<Int32Type>().is_some();
        let of_uint64 = |list: &&ListArray| list.values().as_primitive_opt::<UInt64Type>().is_some();
        let of_text = |list: &&ListArray| list.values().as_string_opt::<i32>().is_some();
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
        })
    }

    /// The first element of a list of numbers; 0 where it has none.
    pub(super) fn first<T: ArrowPrimitiveType>(list: &ListArray, index: usize) -> T::Native
    where
        T::Native: Default,
    {
        list.value(index).as_primitive::<T>().values().first().copied().unwrap_or_default()
    }

    fn text(list: &ListArray, index: usize) -> String {
        let values = list.value(index);
        let texts = values.as_string::<i32>();
        if texts.is_empty() { String::new() } else { texts.value(0).to_owned() }
    }

    /// Indices of the messages that are trained in a row.
    pub(super) fn messages(&self, index: usize) -> Vec<i32> {
        let lists = self.trained_messages.value(index);
        let lists = lists.as_list::<i32>();
        if lists.is_empty() { Vec::new() } else { lists.value(0).as_primitive::<Int32Type>().values().to_vec() }
    }

    fn row(&self, index: usize) -> Row {
        let numbers = |list: &ListArray| list.value(index).as_primitive::<Int32Type>().values().to_vec();
        let provenance = Provenance {
            dialogue_id: Self::text(self.dialogue_id, index),
            file: Self::text(self.file, index),
            line: u64::try_from(Self::first::<Int32Type>(self.line, index)).unwrap_or_default(),
            window: Self::first::<Int32Type>(self.window, index),
            fold: Self::first::<Int32Type>(self.fold, index),
            trained_messages: self.messages(index).into_iter().filter_map(|at| usize::try_from(at).ok()).collect(),
            text_hash: Self::first::<UInt64Type>(self.text_hash, index),
            target_hash: Self::first::<UInt64Type>(self.target_hash, index),
        };
        Row { input_ids: numbers(self.input_ids), labels: numbers(self.labels), provenance: vec![provenance] }
    }
}

/// A shard, opened.
pub(super) fn open(path: &Path) -> Result<StreamReader<BufReader<File>>> {
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    StreamReader::try_new(BufReader::new(file), None).map_err(|error| unreadable(&error))
}

/// What is wrong with a shard that is no Arrow stream, or a broken one.
pub(super) fn unreadable(error: &arrow_schema::ArrowError) -> Error {
    Error::new(ErrorKind::Shard, format!("cannot be read as an Arrow stream: {error}"))
}

/// The rows of a split, one after the other.
pub(super) struct Rows {
    folder: PathBuf,
    waiting: VecDeque<String>,
    reader: Option<StreamReader<BufReader<File>>>,
    batch: Option<RecordBatch>,
    next: usize,
    /// The shard that is being read, and how many of its rows came before the batch.
    place: (String, usize),
    row: Option<(String, Row)>,
}

impl Rows {
    pub(super) fn of<'s>(folder: &Path, shards: impl Iterator<Item = &'s Shard>) -> Self {
        Self {
            folder: folder.to_owned(),
            waiting: shards.map(|shard| shard.file.path.clone()).collect(),
            reader: None,
            batch: None,
            next: 0,
            place: (String::new(), 0),
            row: None,
        }
    }

    /// The next row with its place, without taking it.
    pub(super) fn peek(&mut self) -> Result<Option<&(String, Row)>> {
        if self.row.is_none() {
            self.row = self.read()?;
        }
        Ok(self.row.as_ref())
    }

    /// Takes the next row.
    pub(super) fn take(&mut self) -> Result<Option<(String, Row)>> {
        self.peek()?;
        Ok(self.row.take())
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
