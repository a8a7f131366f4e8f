//! The columns of a row, once: from them come the Arrow schema, the features that `datasets` reads, and the batches.
//!
//! `specs/shard.md` says what each means.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, UInt8Array, UInt64Array};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use serde_json::{Value, json};

use super::Row;
use crate::tokenize::UNTRAINED;

/// Type of a list's elements.
#[derive(Clone, Copy)]
enum Element {
    Int32,
    Int64,
    UInt8,
    UInt64,
    String,
    ListOfInt32,
}

impl Element {
    fn arrow(self) -> DataType {
        match self {
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::UInt8 => DataType::UInt8,
            Self::UInt64 => DataType::UInt64,
            Self::String => DataType::Utf8,
            Self::ListOfInt32 => DataType::List(item(DataType::Int32)),
        }
    }

    fn feature(self) -> Value {
        match self {
            Self::Int32 => json!({"dtype": "int32", "_type": "Value"}),
            Self::Int64 => json!({"dtype": "int64", "_type": "Value"}),
            Self::UInt8 => json!({"dtype": "uint8", "_type": "Value"}),
            Self::UInt64 => json!({"dtype": "uint64", "_type": "Value"}),
            Self::String => json!({"dtype": "string", "_type": "Value"}),
            Self::ListOfInt32 => json!({"feature": Self::Int32.feature(), "_type": "List"}),
        }
    }
}

/// Every column is a list: of tokens, or of examples.
const COLUMNS: [(&str, Element); 11] = [
    ("input_ids", Element::Int32),
    ("labels", Element::Int32),
    ("assistant_masks", Element::UInt8),
    ("dialogue_id", Element::String),
    ("file", Element::String),
    ("line", Element::Int32),
    ("window", Element::Int32),
    ("fold", Element::Int32),
    ("trained_messages", Element::ListOfInt32),
    ("text_hash", Element::UInt64),
    ("target_hash", Element::UInt64),
];

/// Those that only packed rows have.
const PACKED: [(&str, Element); 2] = [("seq_lengths", Element::Int32), ("example", Element::Int64)];

fn columns(is_packed: bool) -> impl Iterator<Item = &'static (&'static str, Element)> {
    COLUMNS.iter().chain(PACKED.iter().filter(move |_| is_packed))
}

fn item(kind: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", kind, true))
}

/// What `datasets` calls the features of the columns.
pub(super) fn features(is_packed: bool) -> Value {
    columns(is_packed)
        .map(|(name, element)| ((*name).to_owned(), json!({"feature": element.feature(), "_type": "List"})))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The Arrow schema, with the features where `datasets` looks for them.
pub(super) fn schema(is_packed: bool) -> Arc<Schema> {
    let field = |(name, element): &(&str, Element)| Field::new(*name, DataType::List(item(element.arrow())), true);
    let fields: Vec<Field> = columns(is_packed).map(field).collect();
    let info = json!({"info": {"features": features(is_packed)}}).to_string();
    let metadata: std::collections::HashMap<String, String> = [("huggingface".to_owned(), info)].into();
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// Rows as one batch.
pub(super) fn batch(schema: &Arc<Schema>, rows: &[Row], is_packed: bool) -> Result<RecordBatch, ArrowError> {
    let tokens = || rows.iter().map(|row| row.input_ids.len());
    let examples = || rows.iter().map(|row| row.provenance.len());
    let origins = || rows.iter().flat_map(|row| &row.provenance);
    let int32 = |values: Vec<i32>| -> ArrayRef { Arc::new(Int32Array::from(values)) };

    let ids = rows.iter().flat_map(|row| row.input_ids.iter().copied()).collect();
    let labels = rows.iter().flat_map(|row| row.labels.iter().copied()).collect();
    let masks: Vec<u8> =
        rows.iter().flat_map(|row| row.labels.iter().map(|&label| u8::from(label != UNTRAINED))).collect();
    let messages = origins().flat_map(|origin| origin.trained_messages.iter().map(|&index| index as i32)).collect();
    let trained = list(origins().map(|origin| origin.trained_messages.len()), int32(messages))?;
    let mut columns = vec![
        list(tokens(), int32(ids))?,
        list(tokens(), int32(labels))?,
        list(tokens(), Arc::new(UInt8Array::from(masks)))?,
        list(examples(), Arc::new(StringArray::from_iter_values(origins().map(|origin| &origin.dialogue_id))))?,
        list(examples(), Arc::new(StringArray::from_iter_values(origins().map(|origin| &origin.file))))?,
        list(examples(), int32(origins().map(|origin| i32::try_from(origin.line).unwrap_or(i32::MAX)).collect()))?,
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
    RecordBatch::try_new(Arc::clone(schema), columns)
}

fn list(lengths: impl Iterator<Item = usize>, values: ArrayRef) -> Result<ArrayRef, ArrowError> {
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
