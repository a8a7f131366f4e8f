//! Parquet: each row becomes an object of its columns.
//!
//! Parquet stores the members of a struct column for all rows alike, and whoever wrote the file from JSON put nulls
//! where a row had no such member: `{"city": "x"}` beside `{"day": 1}` is stored as `{"city": "x", "day": null}`. Which
//! nulls were meant cannot be told any more. Here **a null is an absent field**, in columns and in structs: tool schemas
//! and arguments come out as they went in, unless they had nulls of their own. Nulls in lists stay. A set that needs
//! its nulls has to keep JSON in a string column, or be JSON lines.
//!
//! Not-a-number is a null too, as pandas has it. Times, dates and decimals are strings; binary columns hold no text and
//! are left out.

use std::fs::File;
use std::ops::ControlFlow;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Chunk;
use super::container::{Flow, Origin, Sink};
use super::csv_rows::write_cell;
use super::read::Again;
use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::Position;
use crate::json::{python_float, write_bytes_as_string};

/// About how many bytes of rows are decoded at a time.
const BATCH_BYTES: u64 = 4 << 20;

pub(super) fn read(mut file: Again, origin: &Origin, sink: &mut Sink<'_, '_>) -> Flow {
    match rows(&mut file, origin, sink) {
        Ok(flow) => flow,
        Err(diagnostic) => sink.fault(&origin.file, diagnostic),
    }
}

fn rows(file: &mut Again, origin: &Origin, sink: &mut Sink<'_, '_>) -> Result<Flow, Diagnostic> {
    let before = sink.records;
    let broken = |error: &dyn std::fmt::Display, records: u64| {
        let message = format!("reading stopped after {records} record(s): {error}");
        Diagnostic::new(Code::BrokenContainer, message).help("fetch or write the file again")
    };
    let open = |file: &Again| file.file.try_clone().map_err(|error| broken(&error, 0));
    let builder = ParquetRecordBatchReaderBuilder::try_new(open(file)?).map_err(|error| broken(&error, 0))?;
    let size = |number: i64| u64::try_from(number).unwrap_or_default();
    let groups: Vec<[u64; 3]> = builder
        .metadata()
        .row_groups()
        .iter()
        .map(|group| [size(group.num_rows()), size(group.total_byte_size()), size(group.compressed_size())])
        .collect();
    let (mut element, mut row) = (0, Vec::new());
    let mut chunk = Chunk::of(&origin.file);
    for (index, [rows, bytes, compressed]) in groups.into_iter().enumerate() {
        let mean = (bytes / rows.max(1)).max(1);
        let batch_rows = usize::try_from((BATCH_BYTES / mean).clamp(1, 4096)).expect("clamped");
        let batches = ParquetRecordBatchReaderBuilder::<File>::try_new(open(file)?)
            .and_then(|builder| builder.with_row_groups(vec![index]).with_batch_size(batch_rows).build())
            .map_err(|error| broken(&error, sink.records - before))?;
        for batch in batches {
            let batch = batch.map_err(|error| broken(&error, sink.records - before))?;
            for number in 0..batch.num_rows() {
                row.clear();
                write_row(&mut row, &batch, number)?;
                element += 1;
                let fault = super::cut::too_large(row.len(), sink.max_record_bytes);
                chunk.push(&row[..row.len().min(sink.max_record_bytes)], Position::Element(element), fault);
                if chunk.is_full() {
                    let full = std::mem::replace(&mut chunk, Chunk::of(&origin.file));
                    if sink.chunk(full).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
        }
        file.count(compressed);
    }
    if element == 0 {
        return Err(super::cut::empty());
    }
    Ok(sink.chunk(chunk))
}

fn write_row(out: &mut Vec<u8>, batch: &RecordBatch, row: usize) -> Result<(), Diagnostic> {
    let schema = batch.schema_ref();
    let columns = schema.fields().iter().zip(batch.columns());
    write_object(out, columns.map(|(field, column)| (field.name().as_str(), &**column)), row, write_column)
}

/// Writes a member's value: output, its name, the column, the row.
type WriteMember = fn(&mut Vec<u8>, &str, &dyn Array, usize) -> Result<bool, Diagnostic>;

fn write_object<'a>(
    out: &mut Vec<u8>,
    members: impl Iterator<Item = (&'a str, &'a dyn Array)>,
    row: usize,
    write: WriteMember,
) -> Result<(), Diagnostic> {
    out.push(b'{');
    let start = out.len();
    for (name, array) in members {
        let before = out.len();
        if before > start {
            out.extend_from_slice(b", ");
        }
        write_bytes_as_string(out, name.as_bytes());
        out.extend_from_slice(b": ");
        if !write(out, name, array, row)? {
            out.truncate(before);
        }
    }
    out.push(b'}');
    Ok(())
}

/// A value of a column: text may be a list of messages, as in CSV.
fn write_column(out: &mut Vec<u8>, name: &str, array: &dyn Array, row: usize) -> Result<bool, Diagnostic> {
    let text = match array.data_type() {
        _ if array.is_null(row) => return Ok(false),
        DataType::Utf8 => array.as_string::<i32>().value(row),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row),
        DataType::Utf8View => array.as_string_view().value(row),
        _ => return write_value(out, array, row),
    };
    write_cell(out, name.as_bytes(), text.as_bytes());
    Ok(true)
}

fn write_list(out: &mut Vec<u8>, elements: &dyn Array) -> Result<bool, Diagnostic> {
    out.push(b'[');
    for index in 0..elements.len() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        if !write_value(out, elements, index)? {
            out.extend_from_slice(b"null");
        }
    }
    out.push(b']');
    Ok(true)
}

fn write_text(out: &mut Vec<u8>, text: &str) -> bool {
    write_bytes_as_string(out, text.as_bytes());
    true
}

fn write_number<T: ArrowPrimitiveType>(out: &mut Vec<u8>, array: &dyn Array, row: usize) -> bool
where
    T::Native: std::fmt::Display,
{
    out.extend_from_slice(array.as_primitive::<T>().value(row).to_string().as_bytes());
    true
}

fn write_float(out: &mut Vec<u8>, value: f64) -> bool {
    if value.is_finite() {
        out.extend_from_slice(python_float(value).as_bytes());
    }
    value.is_finite()
}

fn write_decimal<T: DecimalType + ArrowPrimitiveType>(out: &mut Vec<u8>, array: &dyn Array, row: usize) -> bool {
    write_text(out, &array.as_primitive::<T>().value_as_string(row))
}

/// Writes one value; `false`, and nothing is written, where there is none.
fn write_value(out: &mut Vec<u8>, array: &dyn Array, row: usize) -> Result<bool, Diagnostic> {
    if array.is_null(row) {
        return Ok(false);
    }
    let time = |moment: Option<String>, out: &mut Vec<u8>| moment.is_some_and(|moment| write_text(out, &moment));
    Ok(match array.data_type() {
        DataType::Null | DataType::Binary | DataType::LargeBinary | DataType::BinaryView => false,
        DataType::FixedSizeBinary(_) => false,
        DataType::Boolean => {
            out.extend_from_slice(if array.as_boolean().value(row) { b"true" } else { b"false" });
            true
        }
        DataType::Int8 => write_number::<Int8Type>(out, array, row),
        DataType::Int16 => write_number::<Int16Type>(out, array, row),
        DataType::Int32 => write_number::<Int32Type>(out, array, row),
        DataType::Int64 => write_number::<Int64Type>(out, array, row),
        DataType::UInt8 => write_number::<UInt8Type>(out, array, row),
        DataType::UInt16 => write_number::<UInt16Type>(out, array, row),
        DataType::UInt32 => write_number::<UInt32Type>(out, array, row),
        DataType::UInt64 => write_number::<UInt64Type>(out, array, row),
        DataType::Float16 => write_float(out, array.as_primitive::<Float16Type>().value(row).to_f64()),
        // The shortest digits of the narrow type are those that were meant.
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            write_float(out, value.to_string().parse().unwrap_or(f64::from(value)))
        }
        DataType::Float64 => write_float(out, array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => write_text(out, array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => write_text(out, array.as_string::<i64>().value(row)),
        DataType::Utf8View => write_text(out, array.as_string_view().value(row)),
        DataType::List(_) => write_list(out, &array.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => write_list(out, &array.as_list::<i64>().value(row))?,
        DataType::FixedSizeList(..) => write_list(out, &array.as_fixed_size_list().value(row))?,
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            write_object(
                out,
                fields.iter().zip(columns).map(|(field, column)| (field.name().as_str(), &**column)),
                row,
                |out, _, array, row| write_value(out, array, row),
            )?;
            true
        }
        DataType::Map(..) => write_map(out, &array.as_map().value(row))?,
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let mut key = Vec::new();
            write_value(&mut key, dictionary.keys(), row)?;
            let key = std::str::from_utf8(&key).ok().and_then(|key| key.parse().ok());
            write_value(out, dictionary.values(), key.expect("the keys of a dictionary are numbers"))?
        }
        DataType::Date32 => time(array.as_primitive::<Date32Type>().value_as_date(row).map(|day| day.to_string()), out),
        DataType::Date64 => time(array.as_primitive::<Date64Type>().value_as_date(row).map(|day| day.to_string()), out),
        DataType::Timestamp(unit, _) => {
            let moment = match unit {
                TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value_as_datetime(row),
                TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value_as_datetime(row),
                TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value_as_datetime(row),
                TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value_as_datetime(row),
            };
            time(moment.map(|moment| moment.format("%Y-%m-%dT%H:%M:%S%.f").to_string()), out)
        }
        DataType::Decimal32(..) => write_decimal::<Decimal32Type>(out, array, row),
        DataType::Decimal64(..) => write_decimal::<Decimal64Type>(out, array, row),
        DataType::Decimal128(..) => write_decimal::<Decimal128Type>(out, array, row),
        DataType::Decimal256(..) => write_decimal::<Decimal256Type>(out, array, row),
        other => {
            let message = format!("a column has the type {other}, which has no form in JSON here");
            let help = "write the set without that column, or as JSON lines";
            return Err(Diagnostic::new(Code::UnsupportedContainer, message).help(help));
        }
    })
}

/// A map as an object; keys that are no strings are written as they print.
fn write_map(out: &mut Vec<u8>, entries: &dyn Array) -> Result<bool, Diagnostic> {
    let entries = entries.as_struct();
    let (keys, values) = (entries.column(0), entries.column(1));
    out.push(b'{');
    let start = out.len();
    for index in 0..entries.len() {
        let before = out.len();
        if before > start {
            out.extend_from_slice(b", ");
        }
        let mut key = Vec::new();
        write_value(&mut key, keys, index)?;
        if key.first() == Some(&b'"') {
            out.extend_from_slice(&key);
        } else {
            write_bytes_as_string(out, &key);
        }
        out.extend_from_slice(b": ");
        if !write_value(out, values, index)? {
            out.truncate(before);
        }
    }
    out.push(b'}');
    Ok(true)
}
