//! Verifying: a dataset is checked from itself, without its sources.
//!
//! In: the folder of a dataset. Out: every [`Problem`] found: files that are missing or changed, rows that are not
//! what the manifest promises, a ledger that does not close. Ids are decoded by the tokenizer that lies beside the
//! shards, and compared with the hashes of the time of compilation. Whether another tokenizer or template would show a
//! model the same is in `drift`; whether the sources still give the same rows, in `source`; whether a tokenizer's fast
//! path does as the reference does, in `tokenizer`.

mod drift;
mod source;
mod tokenizer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::shard::{
    self, Certificate, Columns, FileEntry, Judgement, Manifest, Preference, Proof, Row, RowKind, Shard, Size,
    first_difference,
};
use crate::source::digest;
use crate::tokenize::{Tokenizer, TokenizerFiles, UNTRAINED};

pub use drift::{CanaryDrift, Change, Difference, Drift, Kind, Token, drift};
pub use source::{Confirmation, confirm};
pub use tokenizer::{TokenizerVerdict, tokenizer};

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
/// What the answers of a pair are called.
const SIDES: [&str; 2] = ["chosen", "rejected"];

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
    let (ends, numbers) = (Ends::of(&manifest), BTreeMap::new());
    let mut measure = Measure { manifest: &manifest, tokenizer: &tokenizer, ends, numbers };
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
    verdict.numbers(&manifest, &measure.numbers);
    verdict.certificate(&manifest, &measure.ends);
    Ok(verdict)
}

/// What rows are measured by.
struct Measure<'m> {
    manifest: &'m Manifest,
    tokenizer: &'m Tokenizer,
    ends: Ends,
    /// Of each split whose rows are packed, which examples have been seen.
    numbers: BTreeMap<String, Vec<bool>>,
}

/// What targets may end in, and how many ended in each.
struct Ends {
    ids: BTreeMap<i32, u64>,
    texts: BTreeSet<String>,
    in_text: u64,
    /// Whether the certificate has targets that are cut with their row.
    may_be_cut: bool,
    /// How many were.
    cut: u64,
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
                may_be_cut: false,
                cut: 0,
                merged: false,
            };
        };
        let (tokens, texts): (Vec<_>, Vec<_>) = certificate.stops.iter().partition(|stop| stop.id.is_some());
        Self {
            ids: tokens.into_iter().filter_map(|stop| stop.id).map(|id| (id.cast_signed(), 0)).collect(),
            texts: texts.into_iter().map(|stop| stop.text.clone()).collect(),
            in_text: 0,
            may_be_cut: certificate.cut > 0,
            cut: 0,
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
            Ok((_, blake3)) if blake3 != entry.blake3 => {
                self.problem(&entry.path, format!("expected BLAKE3 {}, found {blake3}", entry.blake3));
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
        let examples: u64 = manifest.splits.values().map(|size| size.examples).sum();
        if (certificate.rows, certificate.examples) != (self.rows, examples)
            || certificate.targets != manifest.ledger.turns.trained
            || certificate.kind != manifest.rows()
        {
            self.problem("manifest.json", "the certificate has other counts than the rows and the ledger");
        }
        // What is cut may end in a stop that is text, by chance.
        let others = (in_text + certificate.cut, ends.in_text + ends.cut);
        if is_proved && !ends.merged && (ids != ends.ids || others.0 != others.1) {
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
        for batch in shard::open(&folder.join(&shard.file.path))? {
            let batch = batch.map_err(|error| shard::unreadable(&error))?;
            let (kind, is_packed) = (measure.manifest.rows(), measure.manifest.is_packed());
            let is_right = |columns: &Columns<'_>| columns.kind() == kind && columns.is_packed() == is_packed;
            let Some(columns) = Columns::of(&batch).filter(is_right) else {
                self.problem(&shard.file.path, "the columns are not those of `specs/shard.md`");
                return Ok(turns);
            };
            for index in 0..batch.num_rows() {
                let place = format!("{} row {}", shard.file.path, size.rows);
                let row = columns.row(index);
                size.add(row.size(is_packed));
                self.rows += 1;
                if self.row(&place, &columns, index, &row, measure) {
                    turns += self.examples(&place, &row, measure)?;
                }
                if is_packed {
                    self.note(&place, &shard.split, &row, measure);
                }
            }
        }
        if size != shard.size {
            let message = format!("expected {:?}, found {size:?}", shard.size);
            self.problem(&shard.file.path, message);
        }
        Ok(turns)
    }

    /// Checks what a row is as a whole; whether its examples can be told apart and decoded.
    fn row(&mut self, place: &str, columns: &Columns<'_>, index: usize, row: &Row, measure: &Measure<'_>) -> bool {
        let manifest = measure.manifest;
        if let Some(misfit) = columns.misfit(index, row) {
            self.problem(place, misfit);
            return false;
        }
        let longest = row.longest();
        if manifest.max_length.is_some_and(|max_length| longest as u64 > max_length) {
            self.problem(place, format!("{longest} tokens, `max_length` is {:?}", manifest.max_length));
        }
        if let Some(mislabelled) = columns.mislabelled(index, row) {
            self.problem(place, mislabelled);
        }
        let is_known = |id: i32| u64::try_from(id).is_ok_and(|id| id < manifest.vocabulary_size);
        let are_known = row.input_ids.iter().all(|&id| is_known(id));
        if !are_known {
            self.problem(place, format!("an id lies outside the vocabulary of {} entries", manifest.vocabulary_size));
        }
        are_known
    }

    /// Checks each example of a row by itself; how many turns they train.
    fn examples(&mut self, place: &str, row: &Row, measure: &mut Measure<'_>) -> Result<u64> {
        let mut turns = 0;
        if let Some(preference) = &row.preference {
            self.preference(place, row, preference, measure)?;
        }
        for (number, (ids, labels, origin)) in row.parts().enumerate() {
            let place = match (row.kind(), row.provenance.len()) {
                (RowKind::Preference, _) => format!("{place} {}", SIDES[number]),
                (_, 1) => place.to_owned(),
                _ => format!("{place} example {number}"),
            };
            if labels.iter().all(|&label| label == UNTRAINED) {
                self.problem(&place, "no token is trained");
            }
            let hashes = measure.tokenizer.hashes(ids, labels)?;
            if origin.text_hash != hashes.0 {
                self.problem(&place, "the decoded ids do not have the text hash of the compilation");
            }
            if origin.target_hash != hashes.1 {
                self.problem(&place, "the decoded targets do not have the target hash of the compilation");
            }
            let trained = origin.trained_messages.len() as u64;
            if measure.manifest.options["mask"] == "exact" {
                self.stops(&place, labels, trained, measure)?;
            }
            turns += trained;
        }
        Ok(turns)
    }

    /// Checks what answers are to their prompt and to each other.
    fn preference(&mut self, place: &str, row: &Row, preference: &Preference, measure: &Measure<'_>) -> Result<()> {
        let prompt = row.prompt_ids();
        if measure.tokenizer.hashes(prompt, &[])?.0 != preference.prompt_hash {
            self.problem(place, "the decoded prompt does not have the hash of the compilation");
        }
        if row.parts().any(|(_, labels, _)| labels.last() == Some(&UNTRAINED)) {
            self.problem(place, "an answer goes on after its last target");
        }
        let Judgement::Pair { divergence } = preference.judgement else { return Ok(()) };
        let answers: Vec<&[i32]> = row.parts().map(|(ids, ..)| ids).collect();
        match first_difference(answers[0], answers[1]) {
            None => self.problem(place, "both sides are the same"),
            Some(found) if found as u64 != divergence => {
                self.problem(place, format!("both sides differ first in token {found}, `divergence` is {divergence}"));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Notes which examples a packed row holds: each may be in one row only.
    fn note(&mut self, place: &str, split: &str, row: &Row, measure: &mut Measure<'_>) {
        let expected = measure.manifest.splits.get(split).map_or(0, |size| size.examples);
        let seen = measure.numbers.entry(split.to_owned()).or_insert_with(|| vec![false; expected as usize]);
        for origin in &row.provenance {
            match seen.get_mut(origin.example as usize) {
                Some(seen) if !*seen => *seen = true,
                Some(_) => self.problem(place, format!("example {} is in another row too", origin.example)),
                None => self.problem(place, format!("example {} of {expected} in the split", origin.example)),
            }
        }
    }

    /// Each example of a packed split is somewhere, and the rows are as full as it says.
    fn numbers(&mut self, manifest: &Manifest, numbers: &BTreeMap<String, Vec<bool>>) {
        for (split, seen) in numbers {
            let missing = seen.iter().filter(|seen| !**seen).count();
            if missing > 0 {
                self.problem("manifest.json", format!("{missing} examples of the split `{split}` are in no row"));
            }
        }
        for (split, size) in &manifest.splits {
            let (said, found) = (manifest.utilisation.get(split).copied(), size.utilisation(manifest.max_length));
            if said != found {
                let message = format!("the utilisation of `{split}` is said to be {said:?}, and is {found:?}");
                self.problem("manifest.json", message);
            }
        }
    }

    /// Each run of trained tokens is a target, and ends in a stop.
    fn stops(&mut self, place: &str, labels: &[i32], turns: u64, measure: &mut Measure<'_>) -> Result<()> {
        let mut runs = 0;
        let room = measure.manifest.max_length.unwrap_or(u64::MAX);
        let is_at_end = |run: &[i32]| std::ptr::eq(run.as_ptr_range().end, labels.as_ptr_range().end);
        for run in labels.split(|&label| label == UNTRAINED).filter(|run| !run.is_empty()) {
            runs += 1;
            if measure.ends.count(run, measure.tokenizer)? {
                self.targets += 1;
            } else if measure.ends.may_be_cut && labels.len() as u64 == room && is_at_end(run) {
                measure.ends.cut += 1;
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
