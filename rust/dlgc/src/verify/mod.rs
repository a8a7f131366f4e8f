//! Verifying: a dataset is checked from itself, without its sources.
//!
//! In: the folder of a dataset. Out: every [`Problem`] found: files that are missing or changed, rows that are not
//! what the manifest promises, a ledger that does not close. Ids are decoded by the tokenizer that lies beside the
//! shards, and compared with the hashes of the time of compilation. Whether another tokenizer or template would show a
//! model the same is in `drift`; whether the sources still give the same rows, in `source`.

mod drift;
mod rows;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, UInt8Type, UInt64Type};
use serde::Serialize;

use crate::error::Result;
use crate::shard::{Certificate, FileEntry, Manifest, Proof, Shard, Size};
use crate::source::digest;
use crate::tokenize::{Tokenizer, TokenizerFiles, UNTRAINED};

use rows::Columns;

pub use drift::{CanaryDrift, Change, Difference, Drift, Kind, Token, drift};
pub use source::{Confirmation, confirm};

/// Something that is not as the manifest says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, and the row where it is about one.
    pub place: String,
    /// What was expected and what was found.
    pub message: String,
}

/// What was checked and what was found.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Files whose digest was compared.
    pub files: u64,
    /// Rows that were decoded.
    pub rows: u64,
    /// Targets whose stop was found, by id where it is one token.
    pub targets: u64,
    /// What the manifest certifies, in a sentence; null where it certifies nothing.
    pub statement: Option<String>,
    /// Everything that is wrong; empty for a sound dataset.
    #[serde(flatten)]
    pub found: Problems,
}

/// Problems, as many as anybody reads.
#[derive(Debug, Default, Serialize)]
pub struct Problems {
    /// The first hundred.
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub unlisted: u64,
}

const LISTED: usize = 100;

impl Problems {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, place: &str, message: impl Into<String>) {
        if self.problems.len() < LISTED {
            self.problems.push(Problem { place: place.to_owned(), message: message.into() });
        } else {
            self.unlisted += 1;
        }
    }
}

/// Checks a dataset.
///
/// # Errors
/// [`crate::error::ErrorKind::Shard`] where the folder holds no dataset, [`crate::error::ErrorKind::Tokenizer`] where
/// its tokenizer cannot be loaded. What is wrong with the dataset is a [`Problem`].
pub fn verify(folder: &Path) -> Result<Verdict> {
    let manifest = Manifest::load(folder)?;
    let statement = manifest.certificate.as_ref().and_then(Certificate::statement);
    let mut verdict = Verdict { files: 0, rows: 0, targets: 0, statement, found: Problems::default() };
    let mut whole = true;
    let shards = manifest.shards.iter().map(|shard| &shard.file);
    for entry in shards.chain(&manifest.files) {
        whole &= verdict.file(folder, entry);
    }
    verdict.ledger(&manifest);
    let tokenizer_folder = folder.join("tokenizer");
    if !whole && !tokenizer_folder.join("tokenizer.json").exists() {
        return Ok(verdict);
    }
    let tokenizer = Tokenizer::load(&TokenizerFiles::load(&tokenizer_folder)?)?;
    let mut measure = Measure { manifest: &manifest, tokenizer: &tokenizer, ends: Ends::of(&manifest) };
    let mut turns = 0;
    for shard in &manifest.shards {
        match verdict.shard(folder, shard, &mut measure) {
            Ok(trained) => turns += trained,
            Err(error) => verdict.problem(&shard.file.path, error.to_string()),
        }
    }
    if turns != manifest.ledger.turns.trained {
        let message = format!("the ledger has {} trained turns, the rows have {turns}", manifest.ledger.turns.trained);
        verdict.problem("manifest.json", message);
    }
    verdict.certificate(&manifest, &measure.ends);
    Ok(verdict)
}

/// What rows are measured by.
struct Measure<'m> {
    manifest: &'m Manifest,
    tokenizer: &'m Tokenizer,
    ends: Ends,
}

/// What targets may end in, and how many ended in each.
struct Ends {
    ids: BTreeMap<i32, u64>,
    texts: BTreeSet<String>,
    in_text: u64,
    /// Whether targets of one row stand side by side, so that they cannot be counted by their ends; only in rows of
    /// whole dialogues.
    merged: bool,
}

impl Ends {
    /// By the certificate; a manifest without one knows stops by their texts only.
    fn of(manifest: &Manifest) -> Self {
        let Some(certificate) = &manifest.certificate else {
            return Self {
                ids: BTreeMap::new(),
                texts: manifest.stops.iter().cloned().collect(),
                in_text: 0,
                merged: false,
            };
        };
        let (tokens, texts): (Vec<_>, Vec<_>) = certificate.stops.iter().partition(|stop| stop.id.is_some());
        Self {
            ids: tokens.into_iter().filter_map(|stop| stop.id).map(|id| (id.cast_signed(), 0)).collect(),
            texts: texts.into_iter().map(|stop| stop.text.clone()).collect(),
            in_text: 0,
            merged: false,
        }
    }

    /// Whether a target ends in a stop.
    fn count(&mut self, target: &[i32], tokenizer: &Tokenizer) -> Result<bool> {
        if let Some(count) = target.last().and_then(|id| self.ids.get_mut(id)) {
            *count += 1;
            return Ok(true);
        }
        for stop in &self.texts {
            if tokenizer.ends_in(target, stop)? {
                self.in_text += 1;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Verdict {
    fn problem(&mut self, place: &str, message: impl Into<String>) {
        self.found.add(place, message);
    }

    /// Compares size and digest of a file.
    fn file(&mut self, folder: &Path, entry: &FileEntry) -> bool {
        self.files += 1;
        match digest(&folder.join(&entry.path)) {
            Ok((bytes, _)) if bytes != entry.bytes => {
                self.problem(&entry.path, format!("expected {} bytes, found {bytes}", entry.bytes));
                false
            }
            Ok((_, sha256)) if sha256 != entry.sha256 => {
                self.problem(&entry.path, format!("expected SHA-256 {}, found {sha256}", entry.sha256));
                false
            }
            Ok(_) => true,
            Err(error) => {
                self.problem(&entry.path, format!("cannot be read: {error}"));
                false
            }
        }
    }

    fn ledger(&mut self, manifest: &Manifest) {
        if !manifest.ledger.closes() {
            self.problem("manifest.json", "the ledger does not close");
        }
        let mut total = Size::default();
        manifest.shards.iter().for_each(|shard| total.add(shard.size));
        let mut splits = Size::default();
        manifest.splits.values().for_each(|size| splits.add(*size));
        if total != splits {
            self.problem("manifest.json", "the sizes of the splits are not the sums of their shards");
        }
    }

    /// The certificate says what the rows and the ledger say.
    fn certificate(&mut self, manifest: &Manifest, ends: &Ends) {
        let Some(certificate) = &manifest.certificate else { return };
        let mut ids: BTreeMap<i32, u64> = BTreeMap::new();
        let mut in_text = 0;
        for stop in &certificate.stops {
            match stop.id {
                Some(id) => *ids.entry(id.cast_signed()).or_default() += stop.targets,
                None => in_text += stop.targets,
            }
        }
        let is_proved = certificate.proof != Proof::None;
        let expected = match (manifest.options["mask"].as_str(), manifest.options["target"].as_str()) {
            (Some("exact"), Some("template")) => Proof::Rendering,
            (Some("exact"), _) => Proof::Prompt,
            _ => Proof::None,
        };
        if certificate.proof != expected {
            self.problem("manifest.json", "the certificate says something else of the targets than the options");
        }
        if certificate.rows != self.rows || certificate.targets != manifest.ledger.turns.trained {
            self.problem("manifest.json", "the certificate has other counts than the rows and the ledger");
        }
        if is_proved && !ends.merged && (&ids, in_text) != (&ends.ids, ends.in_text) {
            let message = format!("the certificate has stops by id {ids:?}, the rows have {:?}", ends.ids);
            self.problem("manifest.json", message);
        }
        for stop in &certificate.stops {
            if stop.id.is_some_and(|id| stop.ends_generation != manifest.stop_ids.contains(&id)) {
                let message =
                    format!("the certificate and `stop_ids` disagree on whether `{}` ends generation", stop.text);
                self.problem("manifest.json", message);
            }
        }
    }

    /// Checks every row of a shard; how many turns it trains.
    fn shard(&mut self, folder: &Path, shard: &Shard, measure: &mut Measure<'_>) -> Result<u64> {
        let mut size = Size::default();
        let mut turns = 0;
        for batch in rows::open(&folder.join(&shard.file.path))? {
            let batch = batch.map_err(|error| rows::unreadable(&error))?;
            let Some(columns) = Columns::of(&batch) else {
                self.problem(&shard.file.path, "the columns are not those of `specs/shard.md`");
                return Ok(turns);
            };
            for index in 0..batch.num_rows() {
                let place = format!("{} row {}", shard.file.path, size.rows);
                turns += self.row(&place, &columns, index, measure, &mut size)?;
            }
        }
        if size != shard.size {
            let message = format!("expected {:?}, found {size:?}", shard.size);
            self.problem(&shard.file.path, message);
        }
        Ok(turns)
    }

    fn row(
        &mut self,
        place: &str,
        columns: &Columns<'_>,
        index: usize,
        measure: &mut Measure<'_>,
        size: &mut Size,
    ) -> Result<u64> {
        let (manifest, tokenizer) = (measure.manifest, measure.tokenizer);
        self.rows += 1;
        let ids_array = columns.input_ids.value(index);
        let labels_array = columns.labels.value(index);
        let masks_array = columns.masks.value(index);
        let (ids, labels) =
            (ids_array.as_primitive::<Int32Type>().values(), labels_array.as_primitive::<Int32Type>().values());
        let masks = masks_array.as_primitive::<UInt8Type>().values();
        size.rows += 1;
        size.tokens += ids.len() as u64;
        let trained = labels.iter().filter(|&&label| label != UNTRAINED).count();
        size.trained_tokens += trained as u64;
        if ids.len() != labels.len() || ids.len() != masks.len() {
            self.problem(place, format!("{} ids, {} labels, {} masks", ids.len(), labels.len(), masks.len()));
            return Ok(0);
        }
        if trained == 0 {
            self.problem(place, "no token is trained");
        }
        if manifest.max_length.is_some_and(|max_length| ids.len() as u64 > max_length) {
            self.problem(place, format!("{} tokens, `max_length` is {:?}", ids.len(), manifest.max_length));
        }
        for (at, ((id, label), mask)) in ids.iter().zip(labels).zip(masks).enumerate() {
            if *label != UNTRAINED && label != id || u8::from(*label != UNTRAINED) != *mask {
                self.problem(place, format!("token {at}: id {id}, label {label}, mask {mask}"));
                break;
            }
        }
        if ids.iter().any(|&id| id < 0 || id as u64 >= manifest.vocabulary_size) {
            self.problem(place, format!("an id lies outside the vocabulary of {} entries", manifest.vocabulary_size));
            return Ok(0);
        }
        let hashes = tokenizer.hashes(ids, labels)?;
        if Columns::first::<UInt64Type>(columns.text_hash, index) != hashes.0 {
            self.problem(place, "the decoded ids do not have the text hash of the compilation");
        }
        if Columns::first::<UInt64Type>(columns.target_hash, index) != hashes.1 {
            self.problem(place, "the decoded targets do not have the target hash of the compilation");
        }
        let turns = columns.messages(index).len() as u64;
        if manifest.options["mask"] == "exact" {
            self.stops(place, labels, turns, measure)?;
        }
        Ok(turns)
    }

    /// Each run of trained tokens is a target, and ends in a stop.
    fn stops(&mut self, place: &str, labels: &[i32], turns: u64, measure: &mut Measure<'_>) -> Result<()> {
        let mut runs = 0;
        for run in labels.split(|&label| label == UNTRAINED).filter(|run| !run.is_empty()) {
            runs += 1;
            if measure.ends.count(run, measure.tokenizer)? {
                self.targets += 1;
            } else {
                let text = measure.tokenizer.decode(run)?;
                let end: String = text.chars().rev().take(20).collect::<Vec<_>>().into_iter().rev().collect();
                let (end, id) = (end.replace('\n', "\\n"), run.last().copied().unwrap_or_default());
                self.problem(place, format!("a target ends in `{end}`, and its last id, {id}, is no stop"));
            }
        }
        if runs < turns && measure.manifest.options["target"] == "template" {
            measure.ends.merged = true;
        } else if runs != turns {
            self.problem(place, format!("{turns} trained messages, {runs} runs of trained tokens"));
        }
        Ok(())
    }
}
