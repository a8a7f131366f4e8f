//! `manifest.json`: what a dataset is, how it was made, and that nothing was lost. Written last; without it there is
//! no dataset. `specs/manifest.schema.json` is its schema.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::RowKind;
use crate::error::{Error, ErrorKind, Result};
use crate::source::InputDigest;
use crate::tokenize::EncodingPath;

/// Name of the file.
pub const MANIFEST: &str = "manifest.json";
/// What `format` says.
pub const FORMAT: &str = "dlgc-shards";
/// The version that this build writes and reads.
pub const FORMAT_VERSION: u32 = 2;

/// The whole manifest.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Whether the built-in tokenizer was used for want of another: such shards train no real model.
    pub demo: bool,
    /// Versions of what decides ids and text.
    pub versions: BTreeMap<String, String>,
    /// SHA-256 of tokenizer, template and options.
    pub digests: BTreeMap<String, String>,
    /// The options that decide the content of the rows.
    pub options: serde_json::Value,
    /// Token budget of a row; null for none.
    pub max_length: Option<u64>,
    /// One more than the largest id of the tokenizer.
    pub vocabulary_size: u64,
    /// Which way text became ids; absent in datasets of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<EncodingPath>,
    /// Texts that may end an assistant turn.
    pub stops: Vec<String>,
    /// Ids that stop generation.
    pub stop_ids: Vec<u32>,
    /// Input files.
    pub inputs: Vec<InputDigest>,
    /// Files beside them that were read for what they say of the records; absent in datasets of earlier builds.
    #[serde(default)]
    pub siblings: Vec<InputDigest>,
    /// The shards, in order.
    pub shards: Vec<Shard>,
    /// Every other file.
    pub files: Vec<FileEntry>,
    /// Sizes of the splits.
    pub splits: BTreeMap<String, Size>,
    /// Records by the format they had.
    pub formats: BTreeMap<String, u64>,
    /// What became of everything.
    pub ledger: Ledger,
    /// What windows cost and leave out; absent in datasets of earlier builds.
    #[serde(default)]
    pub windows: WindowCounts,
    /// What is wrong with input files as a whole; absent in datasets of earlier builds.
    #[serde(default)]
    pub faults: Vec<FileFault>,
    /// What the rows are, in counts; absent in datasets of earlier builds.
    #[serde(default)]
    pub certificate: Option<Certificate>,
    /// Share of the tokens for which the rows of each split have room that they hold; only of packed rows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub utilisation: BTreeMap<String, f64>,
    /// How long answers are; only of rows of preferences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<AnswerLengths>,
    /// How often each diagnostic was made.
    pub diagnostics: BTreeMap<String, u64>,
    /// Small fixed dialogues and what they become, so that drift can be told.
    pub canaries: Vec<Canary>,
}

/// What is wrong with an input file as a whole, or with what is left of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileFault {
    /// As the user named it; `archive!member` for a member.
    pub file: String,
    /// The diagnostic's code.
    pub code: String,
    /// What it said.
    pub message: String,
}

/// A file of the dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path below the dataset's folder, with `/`.
    pub path: String,
    /// Size.
    pub bytes: u64,
    /// BLAKE3 hash, in hexadecimal.
    pub blake3: String,
}

/// A shard: one Arrow file of rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shard {
    /// The file.
    #[serde(flatten)]
    pub file: FileEntry,
    /// Its split.
    pub split: String,
    /// What it holds.
    #[serde(flatten)]
    pub size: Size,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Rows.
    pub rows: u64,
    /// Tokens.
    pub tokens: u64,
    /// Tokens that are trained.
    pub trained_tokens: u64,
    /// Examples, where rows are packed; else 0, and absent: a row is an example.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub examples: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Size {
    /// Adds another size to this one.
    pub fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.tokens += other.tokens;
        self.trained_tokens += other.trained_tokens;
        self.examples += other.examples;
    }

    /// All of some sizes.
    pub fn sum<'s>(sizes: impl IntoIterator<Item = &'s Self>) -> Self {
        let mut sum = Self::default();
        sizes.into_iter().for_each(|size| sum.add(*size));
        sum
    }

    /// Which share of the room in its rows is taken, to six digits; `None` where there are no packed rows.
    pub fn utilisation(&self, max_length: Option<u64>) -> Option<f64> {
        let room = self.rows * max_length?;
        (self.examples > 0).then(|| (1e6 * self.tokens as f64 / room as f64).round() / 1e6)
    }
}

/// Three lines that must close, and the files that could not be read to their end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Elements of the sources: read = imported + excluded + rejected.
    pub records: RecordLine,
    /// Imported dialogues: imported = compiled + rejected.
    pub dialogues: DialogueLine,
    /// Assistant turns of imported dialogues: total = trained + untrained.
    pub turns: TurnLine,
    /// Files, or tails of files, that could not be read.
    pub faults: u64,
}

/// What became of the records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordLine {
    /// Elements of the sources.
    pub read: u64,
    /// Became dialogues.
    pub imported: u64,
    /// Left out by a filter.
    pub excluded: u64,
    /// Are in `rejects/` without having become dialogues.
    pub rejected: u64,
}

/// What became of the dialogues.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialogueLine {
    /// Dialogues of the imported records.
    pub imported: u64,
    /// Left out by a filter, of records of which it left something.
    #[serde(default)]
    pub excluded: u64,
    /// Are in the shards.
    pub compiled: u64,
    /// Are in `rejects/`.
    pub rejected: u64,
}

/// What became of the assistant turns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnLine {
    /// All of them.
    pub total: u64,
    /// Are trained, each once.
    pub trained: u64,
    /// Are not trained, by the reason.
    pub untrained: BTreeMap<String, u64>,
}

/// What windows cost and leave out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WindowCounts {
    /// Dialogues that were longer than the budget.
    pub dialogues: u64,
    /// Windows that they were cut into.
    pub windows: u64,
    /// Windows with a summary.
    pub summaries: u64,
    /// Tokens of the summaries.
    pub summary_tokens: u64,
    /// Messages that come before a trained turn, summed over the turns.
    pub history: u64,
    /// How many of them are shown.
    pub shown: u64,
    /// Trained turns that have less context than was asked for.
    pub short: u64,
}

impl WindowCounts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.dialogues += other.dialogues;
        self.windows += other.windows;
        self.summaries += other.summaries;
        self.summary_tokens += other.summary_tokens;
        self.history += other.history;
        self.shown += other.shown;
        self.short += other.short;
    }
}

/// How long answers are, in trained tokens: a model learns from preferences to write longer where the better answer mostly
/// is the longer one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerLengths {
    /// The better ones, or those that are good.
    pub chosen: SideLengths,
    /// The worse ones, or those that are bad.
    pub rejected: SideLengths,
    /// Share of the pairs whose better answer is longer; `None` without pairs.
    pub chosen_longer: Option<f64>,
    /// Share of the pairs whose better answer is shorter; `None` without pairs.
    pub chosen_shorter: Option<f64>,
}

/// How long the answers of one side are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideLengths {
    /// How many there are.
    pub answers: u64,
    /// Trained tokens on average, to a tenth; 0 where there are none.
    pub mean: f64,
    /// As many as half of them have at most; 0 where there are none.
    pub median: f64,
}

impl Ledger {
    /// Whether the three lines close.
    pub fn closes(&self) -> bool {
        let (records, dialogues, turns) = (&self.records, &self.dialogues, &self.turns);
        records.read == records.imported + records.excluded + records.rejected
            && records.imported <= dialogues.imported
            && dialogues.imported == dialogues.excluded + dialogues.compiled + dialogues.rejected
            && turns.total == turns.trained + turns.untrained.values().sum::<u64>()
    }
}

/// What the rows are, in counts that make one true sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// What is proved of each target.
    pub proof: Proof,
    /// Trained assistant turns.
    pub targets: u64,
    /// Rows.
    pub rows: u64,
    /// What the rows are.
    #[serde(default, skip_serializing_if = "RowKind::is_sft")]
    pub kind: RowKind,
    /// Examples, where rows are packed; else 0, and absent: a row is an example.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub examples: u64,
    /// What the targets end in; empty where nothing is proved.
    pub stops: Vec<CertifiedStop>,
    /// Targets that are not what follows the prompt of a server.
    #[serde(default)]
    pub differing: u64,
    /// Targets that are cut before they end, and train no stop.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cut: u64,
    /// Records in which the text of control tokens is encoded as ordinary text, as a server must do then.
    pub control_texts: u64,
}

/// What is proved of each target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// The ids before it are those of its inference prompt, and it goes on from there to the end of its stop.
    Prompt,
    /// It is what the rendering of its whole dialogue shows of the turn, to the end of its stop.
    Rendering,
    /// Nothing: it is what the template's own marks say.
    None,
}

/// A stop that targets end in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertifiedStop {
    /// Its text.
    pub text: String,
    /// Its id; null where it is not one token.
    pub id: Option<u32>,
    /// Whether the model's own configuration stops generation at this id.
    pub ends_generation: bool,
    /// Whether the template prints no stop, and the model's own was put there.
    pub appended: bool,
    /// How many targets end in it.
    pub targets: u64,
}

impl Certificate {
    /// What the counts say; `None` where nothing is trained.
    ///
    /// ```
    /// use dlgc::shard::{Certificate, CertifiedStop, Proof, RowKind};
    /// let stop = CertifiedStop {
    ///     text: "<|im_end|>".into(), id: Some(1), ends_generation: true, appended: false, targets: 5,
    /// };
    /// let certificate = Certificate {
    ///     proof: Proof::Prompt, targets: 5, rows: 3, kind: RowKind::Sft, examples: 0, stops: vec![stop], differing: 0,
    ///     control_texts: 0, cut: 0,
    /// };
    /// assert_eq!(
    ///     certificate.statement().expect("something is trained"),
    ///     "5 targets in 3 rows, each the exact continuation of its inference prompt, ending in its stop token"
    /// );
    /// let packed = Certificate { rows: 2, examples: 3, ..certificate };
    /// let statement = packed.statement().expect("something is trained");
    /// assert!(statement.starts_with("5 targets in 3 examples, packed in 2 rows, each the exact continuation"));
    /// ```
    pub fn statement(&self) -> Option<String> {
        if self.targets == 0 {
            return None;
        }
        let counts = |name: &str| {
            let counted =
                |count: u64, name: &str| format!("{} {name}{}", grouped(count), if count == 1 { "" } else { "s" });
            let (targets, rows) = (counted(self.targets, name), counted(self.rows, "row"));
            match (self.kind, self.examples) {
                (RowKind::Sft, 0) => format!("{targets} in {rows}"),
                (RowKind::Sft, examples) => format!("{targets} in {}, packed in {rows}", counted(examples, "example")),
                (RowKind::Preference, _) => {
                    format!("{} with {targets}, both sides after the same prompt", counted(self.rows, "pair"))
                }
                (RowKind::Kto, _) => format!("{} with {targets}", counted(self.rows, "judged answer")),
            }
        };
        let mut statement = match self.proof {
            Proof::Prompt => {
                let endings = self.endings();
                counts("target") + ", each the exact continuation of its inference prompt, ending in its " + &endings
            }
            Proof::Rendering => {
                let endings = self.endings();
                counts("target") + ", each as its whole dialogue is rendered, ending in its " + &endings
            }
            Proof::None => {
                counts("turn") + ", trained where the template's own marks say so: no prompt and no stop is proved"
            }
        };
        let of = |test: &dyn Fn(&CertifiedStop) -> bool| -> u64 {
            self.stops.iter().filter(|stop| test(stop)).map(|stop| stop.targets).sum()
        };
        let exceptions = [
            ("targets that are not what follows the prompt of a server", self.differing),
            ("targets that are cut at `max_length` and train no stop", self.cut),
            ("stops that are not the template's but the model's own", of(&|stop| stop.appended)),
            (
                "stops that are none of the ids that end generation",
                of(&|stop| stop.id.is_some() && !stop.ends_generation),
            ),
            ("records with the text of control tokens, which must stay text at inference too", self.control_texts),
        ];
        for (what, count) in exceptions.into_iter().filter(|(_, count)| *count > 0) {
            statement += &format!("; {what}: {}", grouped(count));
        }
        Some(statement)
    }

    /// The same of rows that hold so much.
    #[must_use]
    pub fn in_rows(self, size: Size) -> Self {
        Self { rows: size.rows, examples: size.examples, ..self }
    }

    /// The same of rows that hold one example each.
    #[must_use]
    pub fn unpacked(&self) -> Self {
        let rows = if self.examples == 0 { self.rows } else { self.examples };
        Self { rows, examples: 0, ..self.clone() }
    }

    fn endings(&self) -> String {
        let in_text: u64 = self.stops.iter().filter(|stop| stop.id.is_none()).map(|stop| stop.targets).sum();
        match in_text {
            0 => "stop token".to_owned(),
            all if all == self.targets => "stop, which is no token of this tokenizer".to_owned(),
            some => format!("stop token, or, {} of them, in a stop that is no token of this tokenizer", grouped(some)),
        }
    }
}

/// A number with a comma before every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A fixed dialogue and what it became.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Canary {
    /// Its name.
    pub name: String,
    /// The record, as JSON text.
    pub record: String,
    /// Hash of the decoded ids; null where it was refused.
    pub text_hash: Option<u64>,
    /// Its ids, those of its rows one after the other; empty where it was refused.
    pub ids: Vec<i32>,
    /// Ids of what a server would send for its last turn; empty where the template refuses that.
    #[serde(default)]
    pub prompt_ids: Vec<i32>,
    /// The code of the refusal.
    pub refused: Option<String>,
}

impl Manifest {
    /// What the rows are; sequences in datasets of earlier builds.
    pub fn rows(&self) -> RowKind {
        RowKind::deserialize(&self.options["rows"]).unwrap_or_default()
    }

    /// Whether a row holds several examples.
    pub fn is_packed(&self) -> bool {
        self.options["packing"].as_str().is_some_and(|packing| packing != "none")
    }

    /// Reads the manifest of a dataset.
    ///
    /// # Errors
    /// [`ErrorKind::Shard`] where the folder holds none, or one of another version.
    pub fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let message = format!("`{}` is no dataset: it has no `{MANIFEST}`", folder.display());
                return Err(Error::new(ErrorKind::Shard, message)
                    .hint("the manifest is written last; an interrupted compilation has none: run it again"));
            }
            Err(error) => return Err(Error::io(path, error)),
        };
        let fail = |message: String| Error::new(ErrorKind::Shard, format!("`{}`: {message}", path.display()));
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| fail(error.to_string()))?;
        if value["format"] != FORMAT || value["format_version"] != FORMAT_VERSION {
            return Err(fail(format!(
                "expected format `{FORMAT}` version {FORMAT_VERSION}, found {} version {}",
                value["format"], value["format_version"]
            ))
            .hint("compile again, or read it with the dlgc that wrote it"));
        }
        serde_json::from_value(value).map_err(|error| fail(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(proof: Proof, stops: &[(Option<u32>, bool, bool, u64)], control_texts: u64) -> Certificate {
        let stop = |&(id, ends_generation, appended, targets): &(Option<u32>, bool, bool, u64)| CertifiedStop {
            text: "<end>".to_owned(),
            id,
            ends_generation,
            appended,
            targets,
        };
        let targets = stops.iter().map(|stop| stop.3).sum();
        let stops = stops.iter().map(stop).collect();
        let kind = RowKind::Sft;
        Certificate { proof, targets, rows: 1, kind, examples: 0, stops, differing: 0, cut: 0, control_texts }
    }

    #[test]
    fn the_statement_hides_no_exception() {
        let said = |stops: &[_]| certificate(Proof::Prompt, stops, 0).statement().expect("something is trained");
        let prompt = "each the exact continuation of its inference prompt, ending in its";
        assert_eq!(said(&[(Some(1), true, false, 1)]), format!("1 target in 1 row, {prompt} stop token"));
        assert_eq!(
            said(&[(None, false, false, 1234)]),
            format!("1,234 targets in 1 row, {prompt} stop, which is no token of this tokenizer")
        );
        assert_eq!(
            said(&[(Some(1), true, false, 2), (None, false, false, 3)]),
            format!(
                "5 targets in 1 row, {prompt} stop token, or, 3 of them, in a stop that is no token of this tokenizer"
            )
        );
        assert_eq!(
            said(&[(Some(1), true, true, 2), (Some(2), false, false, 3)]),
            format!(
                "5 targets in 1 row, {prompt} stop token; stops that are not the template's but the model's own: 2; \
                 stops that are none of the ids that end generation: 3"
            )
        );
        let said =
            certificate(Proof::Prompt, &[(Some(1), true, false, 1)], 7).statement().expect("something is trained");
        assert!(said.ends_with("; records with the text of control tokens, which must stay text at inference too: 7"));
        assert_eq!(certificate(Proof::Prompt, &[], 0).statement(), None);
        let shown = Certificate { differing: 1, ..certificate(Proof::Rendering, &[(Some(1), true, false, 2)], 0) };
        assert_eq!(
            shown.statement().expect("something is trained"),
            "2 targets in 1 row, each as its whole dialogue is rendered, ending in its stop token; targets that are \
             not what follows the prompt of a server: 1"
        );
        let of_kind = |kind: RowKind, rows: u64| {
            let stops = [(Some(1), true, false, 4)];
            Certificate { kind, rows, ..certificate(Proof::Prompt, &stops, 0) }.statement()
        };
        assert_eq!(
            of_kind(RowKind::Preference, 2).as_deref(),
            Some(
                "2 pairs with 4 targets, both sides after the same prompt, each the exact continuation of its \
                 inference prompt, ending in its stop token"
            )
        );
        assert_eq!(of_kind(RowKind::Kto, 1), Some(format!("1 judged answer with 4 targets, {prompt} stop token")));
        let marks = Certificate { targets: 2, ..certificate(Proof::None, &[], 0) };
        let said = "2 turns in 1 row, trained where the template's own marks say so: no prompt and no stop is proved";
        assert_eq!(marks.statement().as_deref(), Some(said));
    }

    #[test]
    fn numbers_have_commas() {
        assert_eq!([7, 12, 123, 1234, 1_234_567].map(grouped), ["7", "12", "123", "1,234", "1,234,567"]);
    }
}
