//! Going on after an interruption: what a run must know of itself, and how the next one finds its place again.
//!
//! Whenever a shard is whole, the counts so far and a hash over the bytes of all records so far are kept with the
//! state of the output files (`shard::Checkpoint`). The next run of the same compilation reads its inputs from the start,
//! because their digests are of the whole, but compiles nothing up to that place, and compares the hash there. What was
//! counted is taken up; whether the result is the same is therefore no question of trust: the bytes are those of a run
//! that was never interrupted.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::report::Tallies;
use super::{CompileOptions, Compiler};
use crate::source::{self, InputDigest, Item};

/// Where a run begins.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Start {
    tallies: Tallies,
    hash: u64,
    /// Files beside the inputs that were read.
    siblings: Vec<InputDigest>,
}

impl Start {
    /// The place that an interrupted run had come to.
    pub(super) fn of(state: serde_json::Value) -> Option<Self> {
        serde_json::from_value(state).ok()
    }

    /// Records that were compiled before it.
    pub(super) fn records(&self) -> u64 {
        self.tallies.ledger.records.read
    }

    /// Files beside the inputs that were read before it.
    pub(super) fn siblings(&self) -> Vec<InputDigest> {
        self.siblings.clone()
    }

    /// Whether they still hold what they held.
    pub(super) fn siblings_are_the_same(&self) -> bool {
        let is_same = |sibling: &InputDigest| {
            source::digest(Path::new(&*sibling.file)).is_ok_and(|(_, blake3)| blake3 == sibling.blake3)
        };
        self.siblings.iter().all(is_same)
    }

    pub(super) fn split(self) -> (Tallies, Skip) {
        let skip = Skip {
            records: self.tallies.ledger.records.read,
            faults: self.tallies.faults.len(),
            expected: self.hash,
            hash: 0,
        };
        (self.tallies, skip)
    }
}

/// What to keep of a run at the end of a record.
pub(super) fn state(tallies: &Tallies, hash: u64, siblings: &[InputDigest]) -> serde_json::Value {
    serde_json::json!({"tallies": tallies, "hash": hash, "siblings": siblings})
}

/// Goes on with the hash over all records.
pub(super) fn chain(hash: u64, record: &[u8]) -> u64 {
    xxh3_64_with_seed(record, hash)
}

/// What makes two runs the same compilation: versions, options, tokenizer, templates, and the names of the inputs.
pub(super) fn digest(options: &CompileOptions, compiler: &Compiler, files: &[PathBuf]) -> String {
    let mut hash = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(crate::VERSION.as_bytes());
    add(options.semantic(compiler.max_length).to_string().as_bytes());
    add(&options.shard_tokens.to_le_bytes());
    add(&[u8::from(options.tokenizer.is_none())]);
    for (name, bytes) in &compiler.files.files {
        add(name.as_bytes());
        add(bytes);
    }
    for (name, template) in compiler.templates.iter() {
        add(name.as_bytes());
        add(template.source().as_bytes());
    }
    for file in files {
        add(file.as_os_str().as_encoded_bytes());
    }
    hash.finalize().to_hex().to_string()
}

/// Passes over what was compiled before.
#[derive(Debug, Default)]
pub(super) struct Skip {
    records: u64,
    faults: usize,
    expected: u64,
    hash: u64,
}

/// What becomes of an item.
pub(super) enum Skipping {
    /// It was compiled before.
    Over,
    /// The inputs are others than before.
    Changed,
    /// It is to be compiled.
    Done(Item),
}

impl Skip {
    /// The hash over what was compiled before.
    pub(super) fn hash_after(&self) -> u64 {
        self.expected
    }

    /// Whether everything has been found that was compiled before.
    pub(super) fn is_done(&self) -> bool {
        self.records == 0
    }

    /// Passes over an item, or over the part of it that was compiled before.
    pub(super) fn over(&mut self, item: Item) -> Skipping {
        if self.records == 0 {
            return Skipping::Done(item);
        }
        match item {
            Item::Chunk(mut chunk) => {
                let count = chunk.records.len().min(usize::try_from(self.records).unwrap_or(usize::MAX));
                for slot in &chunk.records[..count] {
                    self.hash = chain(self.hash, &chunk.bytes[slot.range.clone()]);
                }
                self.records -= count as u64;
                if self.records == 0 && (self.hash != self.expected || self.faults != 0) {
                    return Skipping::Changed;
                }
                if count == chunk.records.len() {
                    return Skipping::Over;
                }
                chunk.records.drain(..count);
                Skipping::Done(Item::Chunk(chunk))
            }
            Item::Fault(_) => match self.faults.checked_sub(1) {
                Some(left) => {
                    self.faults = left;
                    Skipping::Over
                }
                None => Skipping::Changed,
            },
            skipped => Skipping::Done(skipped),
        }
    }
}

/// A map whose keys are no strings, as a list of pairs.
pub(super) mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer, K: Serialize, V: Serialize>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(crate) fn deserialize<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        D: Deserializer<'de>,
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}
