//! Examples in another order, however many there are.
//!
//! In: examples, and for each its place in the new order. Out: the same in that order. As many as memory is set aside for
//! are sorted there and written to a file of their own; the files are then merged. So tokens are in memory only up to a
//! bound, whatever the order: 2²³, or a 200th of all where that is more, since files are open together.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use arrow_ipc::writer::StreamWriter;

use super::columns::{self, Layout};
use super::rows::Rows;
use super::{Row, RowKind, arrow_error};
use crate::error::{Error, Result};

/// Tokens that are sorted in memory.
const RUN_TOKENS: u64 = 1 << 23;
/// Files that are merged, at most.
const RUNS: u64 = 200;
/// Rows of a batch of such a file: one batch of each file is in memory.
const BATCH: usize = 64;

/// Sorts examples by `place` of their number; what does not fit into memory is written into `scratch`, which the caller
/// removes. `tokens` is how many there are in all.
///
/// # Errors
/// Those of the examples, and [`crate::error::ErrorKind::Io`].
pub(crate) fn sorted<'p>(
    examples: impl Iterator<Item = Result<Row>>,
    tokens: u64,
    place: impl Fn(u64) -> u64 + 'p,
    scratch: &Path,
) -> Result<impl Iterator<Item = Result<Row>> + 'p> {
    sorted_in_runs(examples, RUN_TOKENS.max(tokens / RUNS), place, scratch)
}

fn sorted_in_runs<'p>(
    examples: impl Iterator<Item = Result<Row>>,
    run_tokens: u64,
    place: impl Fn(u64) -> u64 + 'p,
    scratch: &Path,
) -> Result<impl Iterator<Item = Result<Row>> + 'p> {
    let key = move |row: &Row| place(row.provenance[0].example);
    let (mut run, mut tokens) = (Vec::new(), 0);
    let mut sources: Vec<Box<dyn Iterator<Item = Result<Row>>>> = Vec::new();
    for row in examples {
        let row = row?;
        if tokens >= run_tokens {
            let name = format!("run-{:05}.arrow", sources.len());
            write(scratch, &name, std::mem::take(&mut run), &key)?;
            sources.push(Box::new(Rows::of(scratch, std::iter::once(name)).map(|row| row.map(|(_, row)| row))));
            tokens = 0;
        }
        tokens += row.input_ids.len() as u64;
        run.push(row);
    }
    run.sort_by_key(&key);
    sources.push(Box::new(run.into_iter().map(Ok)));
    Ok(Merged { heads: sources.iter().map(|_| None).collect(), sources, waiting: BinaryHeap::new(), key, begun: false })
}

fn write(scratch: &Path, name: &str, mut rows: Vec<Row>, key: &impl Fn(&Row) -> u64) -> Result<()> {
    rows.sort_by_key(key);
    fs::create_dir_all(scratch).map_err(|error| Error::io(scratch, error))?;
    let path: PathBuf = scratch.join(name);
    let fail = |error| arrow_error(scratch, name, error);
    let file = BufWriter::new(File::create(&path).map_err(|error| Error::io(&path, error))?);
    let layout = Layout { rows: RowKind::Sft, is_packed: true };
    let schema = columns::schema(layout);
    let mut writer = StreamWriter::try_new(file, &schema).map_err(fail)?;
    for rows in rows.chunks(BATCH) {
        let batch = columns::batch(&schema, rows, layout).map_err(fail)?;
        writer.write(&batch).map_err(fail)?;
    }
    writer.finish().map_err(fail)
}

/// Sorted sources as one.
struct Merged<K> {
    sources: Vec<Box<dyn Iterator<Item = Result<Row>>>>,
    /// The next row of each source.
    heads: Vec<Option<Row>>,
    /// Keys of the heads, each with its source.
    waiting: BinaryHeap<Reverse<(u64, usize)>>,
    key: K,
    begun: bool,
}

impl<K: Fn(&Row) -> u64> Merged<K> {
    fn advance(&mut self, source: usize) -> Result<()> {
        self.heads[source] = self.sources[source].next().transpose()?;
        if let Some(row) = &self.heads[source] {
            self.waiting.push(Reverse(((self.key)(row), source)));
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<Row>> {
        if !self.begun {
            self.begun = true;
            (0..self.sources.len()).try_for_each(|source| self.advance(source))?;
        }
        let Some(Reverse((_, source))) = self.waiting.pop() else { return Ok(None) };
        let row = self.heads[source].take();
        self.advance(source)?;
        Ok(row)
    }
}

impl<K: Fn(&Row) -> u64> Iterator for Merged<K> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Provenance;
    use super::*;

    #[test]
    fn rows_come_in_the_order_of_their_places_from_files_and_from_memory() {
        let example = |example: u64| Row {
            input_ids: vec![example as i32; 1 + example as usize % 5],
            labels: vec![-100; 1 + example as usize % 5],
            provenance: vec![Provenance { example, length: 1 + example % 5, ..Provenance::default() }],
            ..Row::default()
        };
        let place = |example: u64| example * 389 % 1000; // 389 and 1,000 have no common divisor
        let scratch = tempfile::tempdir().expect("a temporary folder can be made");
        for run_tokens in [1 << 20, 700] {
            let rows = (0..1000).map(|number| Ok(example(number)));
            let found: Vec<Row> = sorted_in_runs(rows, run_tokens, place, scratch.path())
                .expect("rows can be sorted")
                .collect::<Result<_>>()
                .expect("rows can be read again");
            let places: Vec<u64> = found.iter().map(|row| place(row.provenance[0].example)).collect();
            assert_eq!(places, (0..1000).collect::<Vec<_>>());
            assert!(found.iter().all(|row| row.input_ids[0] as u64 == row.provenance[0].example));
        }
        assert!(scratch.path().join("run-00003.arrow").exists());
    }
}
