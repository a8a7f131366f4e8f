//! The columns of a row, once: from them come the Arrow schema, the features that `datasets` reads, and the batches.
//!
//! `specs/shard.md` says what each means.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, UInt8Array, UInt64Array};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use serde_json::{Value, json};

use super::{Row, RowKind, preferences};
use crate::tokenize::UNTRAINED;

/// What decides the columns of a dataset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// What its rows are.
    pub(super) rows: RowKind,
    /// Whether a row may hold several examples.
    pub(super) is_packed: bool,
}

/// Type of a column.
#[derive(Clone, Copy)]
pub(super) enum Type {
    Bool,
    Int32,
    Int64,
    UInt8,
    UInt64,
    String,
    List(&'static Type),
}

/// A column's name and type.
pub(super) type Column = (&'static str, Type);

impl Type {
    /// A list of token ids, labels or indices.
    pub(super) const NUMBERS: Self = Self::List(&Self::Int32);

    fn arrow(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::UInt8 => DataType::UInt8,
            Self::UInt64 => DataType::UInt64,
            Self::String => DataType::Utf8,
            Self::List(element) => DataType::List(item(element.arrow())),
        }
    }

    fn feature(self) -> Value {
        let value = |name: &str| json!({"dtype": name, "_type": "Value"});
        match self {
            Self::Bool => value("bool"),
            Self::Int32 => value("int32"),
            Self::Int64 => value("int64"),
            Self::UInt8 => value("uint8"),
            Self::UInt64 => value("uint64"),
            Self::String => value("string"),
            Self::List(element) => json!({"feature": element.feature(), "_type": "List"}),
        }
    }
}

/// Of a sequence every column is a list: of tokens, or of examples.
const SEQUENCES: [Column; 11] = [
    ("input_ids", Type::NUMBERS),
    ("labels", Type::NUMBERS),
    ("assistant_masks", Type::List(&Type::UInt8)),
    ("dialogue_id", Type::List(&Type::String)),
    ("file", Type::List(&Type::String)),
    ("line", Type::NUMBERS),
    ("window", Type::NUMBERS),
    ("fold", Type::NUMBERS),
    ("trained_messages", Type::List(&Type::NUMBERS)),
    ("text_hash", Type::List(&Type::UInt64)),
    ("target_hash", Type::List(&Type::UInt64)),
];

/// Those that only packed rows have.
const PACKED: [Column; 2] = [("seq_lengths", Type::NUMBERS), ("example", Type::List(&Type::Int64))];

fn columns(layout: Layout) -> impl Iterator<Item = &'static Column> {
    let columns = match layout.rows {
        RowKind::Sft => &SEQUENCES[..],
        RowKind::Preference => &preferences::PAIRS,
        RowKind::Kto => &preferences::JUDGED,
    };
    columns.iter().chain(PACKED.iter().filter(move |_| layout.is_packed))
}

fn item(kind: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", kind, true))
}

/// What `datasets` calls the features of the columns.
pub(super) fn features(layout: Layout) -> Value {
    columns(layout).map(|(name, kind)| ((*name).to_owned(), kind.feature())).collect::<serde_json::Map<_, _>>().into()
}

/// The Arrow schema, with the features where `datasets` looks for them.
pub(super) fn schema(layout: Layout) -> Arc<Schema> {
    let fields: Vec<Field> = columns(layout).map(|(name, kind)| Field::new(*name, kind.arrow(), true)).collect();
    let info = json!({"info": {"features": features(layout)}}).to_string();
    let metadata: std::collections::HashMap<String, String> = [("huggingface".to_owned(), info)].into();
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// Rows as one batch.
pub(super) fn batch(schema: &Arc<Schema>, rows: &[Row], layout: Layout) -> Result<RecordBatch, ArrowError> {
    let columns = match layout.rows {
        RowKind::Sft => sequences(rows, layout.is_packed)?,
        RowKind::Preference => preferences::pairs(rows)?,
        RowKind::Kto => preferences::judged(rows)?,
    };
    RecordBatch::try_new(Arc::clone(schema), columns)
}

fn sequences(rows: &[Row], is_packed: bool) -> Result<Vec<ArrayRef>, ArrowError> {
    let tokens = || rows.iter().map(|row| row.input_ids.len());
    let examples = || rows.iter().map(|row| row.provenance.len());
    let origins = || rows.iter().flat_map(|row| &row.provenance);

    let total = tokens().sum();
    let (mut ids, mut labels) = (Vec::with_capacity(total), Vec::with_capacity(total));
    let mut masks: Vec<u8> = Vec::with_capacity(total);
    for row in rows {
        ids.extend_from_slice(&row.input_ids);
        labels.extend_from_slice(&row.labels);
        masks.extend(row.labels.iter().map(|&label| u8::from(label != UNTRAINED)));
    }
    let messages = origins().flat_map(|origin| indices(&origin.trained_messages)).collect();
    let trained = list(origins().map(|origin| origin.trained_messages.len()), int32(messages))?;
    let mut columns = vec![
        list(tokens(), int32(ids))?,
        list(tokens(), int32(labels))?,
        list(tokens(), Arc::new(UInt8Array::from(masks)))?,
        list(examples(), Arc::new(StringArray::from_iter_values(origins().map(|origin| &origin.dialogue_id))))?,
        list(examples(), Arc::new(StringArray::from_iter_values(origins().map(|origin| &origin.file))))?,
        list(examples(), int32(origins().map(|origin| line(origin.line)).collect()))?,
        list(examples(), int32(origins().map(|origin| origin.window).collect()))?,
        list(examples(), int32(origins().map(|origin| origin.fold).collect()))?,
        list(examples(), trained)?,
        list(examples(), Arc::new(UInt64Array::from_iter_values(origins().map(|origin| origin.text_hash))))?,
        list(examples(), Arc::new(UInt64Array::from_iter_values(origins().map(|origin| origin.target_hash))))?,
    ];
    if is_packed {
        columns.push(list(examples(), int32(origins().map(|origin| origin.length as i32).collect()))?);
        let numbers = Int64Array::from_iter_values(origins().map(|origin| origin.example.cast_signed()));
        columns.push(list(examples(), Arc::new(numbers))?);
    }
    Ok(columns)
}

/// Indices of messages, as columns have them.
pub(super) fn indices(messages: &[usize]) -> impl Iterator<Item = i32> {
    messages.iter().map(|&index| index as i32)
}

/// A place in a file, as columns have it.
pub(super) fn line(line: u64) -> i32 {
    i32::try_from(line).unwrap_or(i32::MAX)
}

pub(super) fn int32(values: Vec<i32>) -> ArrayRef {
    Arc::new(Int32Array::from(values))
}

pub(super) fn list(lengths: impl Iterator<Item = usize>, values: ArrayRef) -> Result<ArrayRef, ArrowError> {
    let mut offsets = vec![0_i32];
    let mut total = 0_usize;
    for length in lengths {
        total += length;
        let offset = i32::try_from(total)
            .map_err(|_| ArrowError::InvalidArgumentError("a batch holds more than 2^31 elements".to_owned()))?;
        offsets.push(offset);
    }
    let field = item(values.data_type().clone());
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Ok(Arc::new(ListArray::try_new(field, offsets, values, None)?))
}
