//! What a user can ask of a compilation. One JSON object crosses the boundary to Python.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::repack::NOT_PACKED;
use crate::diagnostic::Severity;
use crate::error::{Error, ErrorKind, Result};
use crate::pack::Packing;
use crate::shard::{Manifest, RowKind, SHARD_TOKENS};
use crate::template::StateMode;
use crate::window::{LongTurns, SLOT, SummaryPlace, SummarySource, WindowMode};

/// Options of a compilation; `specs/options.schema.json` is their schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompileOptions {
    /// Files, folders, globs, or `-` for standard input.
    pub inputs: Vec<String>,
    /// The dataset's folder.
    pub output: Option<PathBuf>,
    /// A folder with a `tokenizer.json`, a GGUF file, or `builtin`; without it the built-in one, and the dataset is
    /// marked `demo`.
    pub tokenizer: Option<String>,
    /// A file, or the name of one of the tokenizer's templates or of a file in `template_path`.
    pub chat_template: Option<String>,
    /// Folder in which templates are found by name.
    pub template_path: Option<PathBuf>,
    /// Template arguments for every record; those of a record win.
    pub template_kwargs: Option<Value>,
    /// The day that templates print, `YYYY-MM-DD`.
    pub date: Option<String>,
    /// Token budget of a row.
    pub max_length: MaxLength,
    /// What becomes of a dialogue that is longer.
    pub window: WindowMode,
    /// What becomes of a turn that fits no window.
    pub long_turns: LongTurns,
    /// Share of the budget that each target keeps as context, if there is as much.
    pub min_context: f64,
    /// Where the summaries of windows come from.
    pub summary: SummarySource,
    /// Where they stand.
    pub summary_place: SummaryPlace,
    /// What is written around them: a text with `{summary}` in it.
    pub summary_wording: Option<String>,
    /// Most of the budget that one may take.
    pub summary_share: f64,
    /// Folder of those that somebody else writes; see [`Cache`](crate::window::Cache).
    pub summary_cache: Option<PathBuf>,
    /// What the rows are.
    pub rows: RowKind,
    /// How examples share rows.
    pub packing: Packing,
    /// What a proved target is measured against.
    pub target: TargetOption,
    /// Where trained tokens are taken from.
    pub mask: MaskOption,
    /// Which assistant messages are trained.
    pub train_on: TrainOn,
    /// What becomes of `state`.
    pub state: StateMode,
    /// What becomes of the text of control tokens in content: `reject`, `text`, `allow`, per role `user=text,…`.
    pub control_tokens: String,
    /// Worker threads; 0 for one a core.
    pub threads: usize,
    /// Largest share of rejected records with which the run still succeeds.
    pub max_rejects: f64,
    /// No rejects, and no warnings that put the result in doubt.
    pub strict: bool,
    /// Replace a dataset that is already there.
    pub overwrite: bool,
    /// Largest record that is read, in bytes.
    pub max_record_bytes: usize,
    /// Tokens after which a shard is closed and the next one begun.
    pub shard_tokens: u64,
    /// Severities by code, where they are to differ from the catalogue's.
    pub severity: BTreeMap<String, Severity>,
    /// Formats of the user's own, by name; see the module `import::mapping`.
    pub formats: BTreeMap<String, Value>,
    /// Shares of the splits, such as `{"validation": 0.05}`; without it everything is `train` that asks for nothing else.
    pub split: BTreeMap<String, f64>,
    /// Folds for cross-validation; 0 for none.
    pub folds: u32,
    /// What splits and folds are stratified by: an SQL expression such as `intent` or `domain`.
    pub stratify: Option<String>,
    /// Which dialogues are taken: an SQL condition over their fields and metadata.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Who is trained where a set names speakers and not roles: a name, or `both`; without it the second speaker.
    pub assistant: Option<String>,
}

/// Token budget of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MaxLength {
    /// 4096, or the tokenizer's `model_max_length` if that is smaller.
    Named(MaxLengthName),
    /// As many tokens.
    Tokens(u64),
}

/// Budgets with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaxLengthName {
    /// 4096, or the tokenizer's `model_max_length` if that is smaller.
    Auto,
    /// No limit.
    None,
}

/// What a proved target is measured against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetOption {
    /// The prompt that a server sends: a turn whose prompt does not nest has a row of its own.
    #[default]
    Inference,
    /// The rendering of the whole dialogue: one row, in which each turn is trained as it is shown.
    Template,
}

/// Where trained tokens are taken from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskOption {
    /// Proved targets, which obey the law of the prompt.
    #[default]
    Exact,
    /// What the template's `{% generation %}` blocks mark.
    Template,
    /// The bits of transformers, its bugs included.
    HfCompat,
}

/// Which assistant messages are trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainOn {
    /// Every one that its record does not exclude.
    #[default]
    AllAssistant,
    /// The last one that its record does not exclude.
    LastTurn,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self {
            inputs: Vec::new(),
            output: None,
            tokenizer: None,
            chat_template: None,
            template_path: None,
            template_kwargs: None,
            date: None,
            max_length: MaxLength::Named(MaxLengthName::Auto),
            window: WindowMode::default(),
            long_turns: LongTurns::default(),
            min_context: 0.5,
            summary: SummarySource::default(),
            summary_place: SummaryPlace::default(),
            summary_wording: None,
            summary_share: 0.25,
            summary_cache: None,
            rows: RowKind::default(),
            packing: Packing::default(),
            target: TargetOption::default(),
            mask: MaskOption::default(),
            train_on: TrainOn::default(),
            state: StateMode::default(),
            control_tokens: "reject".to_owned(),
            threads: 0,
            max_rejects: 0.01,
            strict: false,
            overwrite: false,
            max_record_bytes: 64 << 20,
            shard_tokens: SHARD_TOKENS,
            severity: BTreeMap::new(),
            formats: BTreeMap::new(),
            split: BTreeMap::new(),
            folds: 0,
            stratify: None,
            condition: None,
            assistant: None,
        }
    }
}

/// The name of an option's value.
fn name_of(value: impl Serialize) -> String {
    let name = serde_json::to_value(value).expect("the values of options are JSON");
    name.as_str().unwrap_or_default().to_owned()
}

/// Names the option that is wrong; the place in the JSON is of no use to who never saw it.
fn wrong(text: &str, error: &serde_json::Error) -> Error {
    let plain = |error: &serde_json::Error| error.to_string().split(" at line ").next().unwrap_or_default().to_owned();
    let whole: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    for (name, value) in whole {
        let alone = Value::Object([(name.clone(), value)].into_iter().collect());
        if let Err(error) = serde_json::from_value::<CompileOptions>(alone) {
            return Error::new(ErrorKind::Options, format!("the option `{name}` is wrong: {}", plain(&error)));
        }
    }
    Error::new(ErrorKind::Options, format!("the options are wrong: {}", plain(error)))
}

impl CompileOptions {
    /// Reads options from JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Options`] naming the field that is unknown or has a wrong value.
    pub fn from_json(text: &str) -> Result<Self> {
        let options: Self = serde_json::from_str(text).map_err(|error| wrong(text, &error))?;
        if !(0.0..=1.0).contains(&options.max_rejects) {
            let message = format!("`max_rejects` must be a share from 0 to 1, found {}", options.max_rejects);
            return Err(Error::new(ErrorKind::Options, message));
        }
        for (name, share) in [("min_context", options.min_context), ("summary_share", options.summary_share)] {
            if !(0.0..=1.0).contains(&share) {
                let message = format!("`{name}` must be a share from 0 to 1, found {share}");
                return Err(Error::new(ErrorKind::Options, message));
            }
        }
        if let Some(wording) = options.summary_wording.as_ref().filter(|wording| !wording.contains(SLOT)) {
            let message = format!("`summary_wording` must have `{SLOT}` in it, found `{wording}`");
            return Err(Error::new(ErrorKind::Options, message));
        }
        if options.summary == SummarySource::Cache && options.summary_cache.is_none() {
            let message = "`summary` is `cache`, and `summary_cache` names no folder";
            return Err(Error::new(ErrorKind::Options, message));
        }
        if options.max_length == MaxLength::Tokens(0) {
            return Err(Error::new(ErrorKind::Options, "`max_length` must be at least 1, or `none`"));
        }
        if options.max_length == MaxLength::Named(MaxLengthName::None) {
            options.packing.room(None)?;
        }
        options.refuse_for_preferences()?;
        if options.max_record_bytes < 1024 {
            return Err(Error::new(ErrorKind::Options, "`max_record_bytes` must be at least 1024"));
        }
        if options.shard_tokens < 1024 {
            return Err(Error::new(ErrorKind::Options, "`shard_tokens` must be at least 1024"));
        }
        Ok(options)
    }

    /// Refuses what makes no sense for rows of preferences.
    fn refuse_for_preferences(&self) -> Result<()> {
        const PROVED: &str = "both answers follow one proved prompt: leave it at `exact` and `inference`";
        const WHOLE: &str = "an answer without its end cannot be compared with a whole one";
        if self.rows.is_sft() {
            return Ok(());
        }
        let refused = [
            ("packing", self.packing.name().to_owned(), self.packing != Packing::None, NOT_PACKED),
            ("mask", name_of(self.mask), self.mask != MaskOption::Exact, PROVED),
            ("target", name_of(self.target), self.target != TargetOption::Inference, PROVED),
            ("window", name_of(self.window), self.window == WindowMode::Truncate, WHOLE),
            ("long_turns", name_of(self.long_turns), self.long_turns == LongTurns::Cut, WHOLE),
        ];
        let Some((option, value, _, why)) = refused.into_iter().find(|(.., is_refused, _)| *is_refused) else {
            return Ok(());
        };
        let message = format!("`{option}` is `{value}`, which rows of `{}` cannot have", self.rows.name());
        Err(Error::new(ErrorKind::Options, message).hint(why))
    }

    /// The options with which a dataset was made; tokenizer and template are those that lie beside its shards.
    ///
    /// # Errors
    /// [`ErrorKind::Options`] where the manifest has options that this version does not know.
    pub fn of_dataset(folder: &Path, manifest: &Manifest) -> Result<Self> {
        let mut options = manifest.options.clone();
        if options["max_length"].is_null() {
            options["max_length"] = "none".into();
        }
        options["tokenizer"] = folder.join("tokenizer").to_string_lossy().into();
        Self::from_json(&options.to_string()).map_err(|error| error.context(format!("`{}`", folder.display())))
    }

    /// The options that decide what rows hold, for the manifest: not where they lie or how fast they are made.
    pub(super) fn semantic(&self, max_length: Option<u64>) -> Value {
        serde_json::json!({
            "target": self.target, "mask": self.mask, "train_on": self.train_on, "state": self.state, "control_tokens": self.control_tokens,
            "template_kwargs": self.template_kwargs, "date": self.date, "max_length": max_length,
            "window": self.window, "long_turns": self.long_turns, "min_context": self.min_context, "summary": self.summary,
            "summary_place": self.summary_place, "summary_wording": self.summary_wording,
            "summary_share": self.summary_share, "summary_cache": self.summary_cache,
            "rows": self.rows, "packing": self.packing, "max_record_bytes": self.max_record_bytes, "severity": self.severity,
            "formats": self.formats, "assistant": self.assistant,
            "split": self.split, "folds": self.folds, "stratify": self.stratify,
            "where": self.condition,
        })
    }
}
