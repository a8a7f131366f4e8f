//! One record through all passes: what a worker does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::answers::Sides;
use super::options::{CompileOptions, MaskOption, MaxLength, MaxLengthName, TargetOption, TrainOn};
use super::outcome::{Compiled, Outcome, raised};
use super::script;
use super::templates::Templates;
use super::windows::WindowOptions;
use crate::diagnostic::{Code, Diagnostic, Severities};
use crate::dialogue::{Dialogue, Judged, Location, Message, Role, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::filter::{Filter, Known};
use crate::import::{Importers, Wanted, preference_record};
use crate::json::{self, Json, Node};
use crate::shard::{DialogueRow, Proof, Provenance, Row, RowKind};
use crate::source::Record;
use crate::split::{Splits, Stratum};
use crate::template::{Date, Mode, Template, TemplateOptions};
use crate::tokenize::{ControlPolicy, Example, Mask, Tokenizer, TokenizerFiles, UNTRAINED};
use crate::validate::{Checked, validate};
use crate::window::{Cache, LongTurns, SummaryOptions, SummaryPlace};

/// The budget where neither option nor tokenizer says less.
const DEFAULT_MAX_LENGTH: u64 = 4096;

/// Template, tokenizer and options, ready for records. Shared by all workers.
pub struct Compiler {
    /// The tokenizer's files, as they are copied beside the shards.
    pub files: TokenizerFiles,
    /// The chat templates.
    pub templates: Templates,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Token budget of a row.
    pub max_length: Option<u64>,
    /// Ids that stop generation.
    pub stop_ids: Vec<u32>,
    /// How bad findings are.
    pub severities: Severities,
    /// The formats that are read.
    pub importers: Importers,
    filter: Option<Filter>,
    pub(super) splits: Splits,
    stratify: Option<Filter>,
    pub(super) rows: RowKind,
    target: TargetOption,
    mask: MaskOption,
    train_on: TrainOn,
    pub(super) windows: WindowOptions,
}

impl Compiler {
    /// Rows go without their text, which only takes memory, but where they may be cut.
    pub(crate) fn leave_out_texts(&mut self) {
        self.tokenizer.leave_out_texts(self.max_length.unwrap_or(u64::MAX));
    }

    /// Loads what the options name.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`], [`ErrorKind::Template`], [`ErrorKind::Options`] or [`ErrorKind::Io`].
    pub fn load(options: &CompileOptions) -> Result<Self> {
        let mut files = match options.tokenizer.as_deref() {
            None | Some("builtin") => TokenizerFiles::builtin(),
            Some(path) => TokenizerFiles::load(Path::new(path))?,
        };
        let mut tokenizer = Tokenizer::load(&files)?;
        let stop_ids = tokenizer.stop_ids(&files);
        let date =
            match options.date.as_deref() {
                None => None,
                Some(text) => Some(Date::parse(text).ok_or_else(|| {
                    Error::new(ErrorKind::Options, format!("`{text}` is no date; expected YYYY-MM-DD"))
                })?),
            };
        let template_options = TemplateOptions {
            special_tokens: files.special_tokens(),
            kwargs: options.template_kwargs.as_ref().map(kwargs).transpose()?,
            date,
            stops: stop_ids.iter().filter_map(|&id| tokenizer.token_text(id)).collect(),
            state: options.state,
        };
        let templates = Templates::load(options, &mut files, &template_options)?;
        if options.mask != MaskOption::Exact && !templates.iter().all(|(_, template)| template.is_tagged()) {
            let message = "the chat template has no `{% generation %}` blocks, which this mask asks for";
            return Err(Error::new(ErrorKind::Template, message).hint("`--mask exact` needs none"));
        }
        let candidates = tokenizer.plain_added_tokens();
        let scaffold = templates.iter().flat_map(|(_, template)| template.scaffold(&candidates)).collect();
        tokenizer.set_control(scaffold, ControlPolicy::parse(&options.control_tokens)?);
        let max_length = match options.max_length {
            MaxLength::Tokens(tokens) => Some(tokens),
            MaxLength::Named(MaxLengthName::None) => None,
            MaxLength::Named(MaxLengthName::Auto) => {
                Some(files.model_max_length().map_or(DEFAULT_MAX_LENGTH, |length| length.min(DEFAULT_MAX_LENGTH)))
            }
        };
        let severities = Severities::new(&options.severity)?;
        let wanted = if options.rows.is_sft() { Wanted::Dialogues } else { Wanted::Pairs };
        let importers = Importers::new(&options.formats, options.assistant.as_deref(), wanted)?;
        let filter = options.condition.as_deref().map(Filter::parse).transpose()?;
        let splits = Splits::new(&options.split, options.folds)?;
        let stratify = options.stratify.as_deref().map(Filter::parse).transpose()?;
        let CompileOptions { rows, target, mask, train_on, .. } = *options;
        let takes_system = templates.iter().all(|(_, template)| takes_system(template));
        let windows = WindowOptions {
            mode: options.window,
            cuts_long_turns: options.long_turns == LongTurns::Cut,
            min_context: options.min_context,
            summary: SummaryOptions {
                source: options.summary,
                place: if takes_system { options.summary_place } else { SummaryPlace::User },
                wording: options.summary_wording.clone(),
                budget: max_length.map_or(u64::MAX, |length| (options.summary_share * length as f64) as u64),
                cache: options.summary_cache.as_deref().map(Cache::new),
            },
        };
        Ok(Self {
            files,
            templates,
            tokenizer,
            max_length,
            stop_ids,
            severities,
            importers,
            filter,
            splits,
            stratify,
            rows,
            target,
            mask,
            train_on,
            windows,
        })
    }

    /// Lets summaries that somebody else writes be missing: they are asked for.
    pub fn ask(&mut self) {
        if let Some(cache) = &mut self.windows.summary.cache {
            cache.asks = true;
        }
    }

    /// What is proved of the targets.
    pub fn proof(&self) -> Proof {
        match (self.mask, self.target) {
            (MaskOption::Exact, TargetOption::Inference) => Proof::Prompt,
            (MaskOption::Exact, TargetOption::Template) => Proof::Rendering,
            _ => Proof::None,
        }
    }

    /// Texts that may end an assistant turn.
    pub fn stops(&self) -> Vec<String> {
        self.templates.stops()
    }

    /// Takes a record through all passes.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`] where the reference fails, which no input should bring about.
    pub(super) fn compile(&self, record: &Record<'_>) -> Result<Outcome> {
        let validated = validate(record, &self.importers, &self.severities);
        let format = validated.format.clone().unwrap_or_default();
        let compiled = |(index, checked)| self.compile_dialogue(checked, record, index, &format);
        let dialogues = validated.dialogues.into_iter().enumerate().map(compiled).collect::<Result<_>>()?;
        Ok(Outcome { format: validated.format, dialogues, diagnostics: validated.diagnostics })
    }

    fn compile_dialogue(
        &self,
        checked: Checked<'_>,
        record: &Record<'_>,
        index: usize,
        format: &Arc<str>,
    ) -> Result<Compiled> {
        let mut outcome = Compiled { diagnostics: checked.diagnostics, ..Compiled::default() };
        let Some(mut dialogue) = checked.dialogue else {
            return Ok(outcome);
        };
        let location = &record.location;
        if let Some(filter) = &self.filter
            && !filter.keeps(&Known { dialogue: &dialogue, location, format })
        {
            return Ok(Compiled { excluded: true, ..Compiled::default() });
        }
        let judged = match self.judged(&dialogue, checked.judged) {
            Ok(judged) => judged,
            Err(refused) => {
                outcome.diagnostics.push(refused);
                return Ok(outcome);
            }
        };
        if let Some(stratify) = self.stratify.as_ref().filter(|_| dialogue.split.is_none()) {
            let value = stratify.text(&Known { dialogue: &dialogue, location, format });
            outcome.stratum = Some(Stratum::of(value.as_deref(), dialogue.group.as_deref()));
        }
        let fold = self.place(&mut dialogue, checked.is_named, record, index);
        let origin = Provenance {
            dialogue_id: dialogue.id.clone().into_owned(),
            file: location.file.to_string(),
            line: location.position.number(),
            fold,
            ..Provenance::default()
        };
        let mut about = about(&dialogue, location, format, fold);
        match judged {
            None => self.sequences(dialogue, &origin, &mut outcome)?,
            Some(judged) => {
                let sides = Sides::of(dialogue, judged);
                let (messages, turns) = sides.counts();
                (about.counts[0], about.counts[1]) = (messages as i64, turns as i64);
                self.preferences(sides, &origin, &mut outcome)?;
            }
        }
        outcome.dialogue = Some(about);
        self.reject_what_was_raised(&mut outcome);
        let codes: std::collections::BTreeSet<_> =
            outcome.diagnostics.iter().map(|diagnostic| diagnostic.code.name().to_owned()).collect();
        if let Some(about) = &mut outcome.dialogue {
            about.codes = codes.into_iter().collect();
            about.counts[2] = outcome.trained as i64;
            for row in &outcome.rows {
                about.counts[3] += row.length() as i64;
                about.counts[4] += row.labels.iter().filter(|&&label| label != UNTRAINED).count() as i64;
                about.counts[5] += 1;
            }
        }
        Ok(outcome)
    }

    /// Makes sequences of a dialogue.
    fn sequences(&self, mut dialogue: Dialogue<'_>, origin: &Provenance, outcome: &mut Compiled) -> Result<()> {
        self.select_turns(&mut dialogue.messages, &mut outcome.untrained);
        let trainable = dialogue.messages.iter().filter(|message| message.train).count() as u64;
        match self.lower(&mut dialogue, self.max_length, &mut outcome.diagnostics)? {
            Err(unlowered) => outcome.leave_out(&unlowered, trainable),
            Ok(mut lowered) => {
                outcome.requests = std::mem::take(&mut lowered.requests);
                let examples = lowered.windows.iter().flat_map(|window| &window.examples);
                outcome.account(lowered.turns(), examples, trainable);
                outcome.source_tokens = lowered.tokens;
                outcome.windows = lowered.counts;
                let rows = lowered.rows().map(|(window, mut example)| {
                    outcome.endings.append(&mut example.endings);
                    row(origin, window, example)
                });
                outcome.rows = rows.collect();
            }
        }
        Ok(())
    }

    /// Makes rows of preferences of the answers of a record.
    fn preferences(&self, mut sides: Sides<'_>, origin: &Provenance, outcome: &mut Compiled) -> Result<()> {
        self.select_answers(&mut sides, &mut outcome.untrained);
        let trainable: Vec<u64> = sides.trainable().collect();
        match self.answer(&mut sides, &mut outcome.diagnostics)? {
            Err(unlowered) => outcome.leave_out(&unlowered, trainable.iter().sum()),
            Ok(mut answered) => {
                outcome.requests = std::mem::take(&mut answered.requests);
                for (shot, trainable) in answered.shots.iter().zip(trainable) {
                    outcome.account(shot.rendered.turns.iter(), shot.examples.iter(), trainable);
                }
                outcome.source_tokens = answered.tokens;
                outcome.windows = answered.counts;
                outcome.rows = self.preference_rows(self.rows, &sides, &answered, origin)?;
                outcome.endings = answered.examples().flat_map(|example| example.endings.iter().cloned()).collect();
            }
        }
        Ok(())
    }

    /// What is said of the answer of a record, where it holds what the rows are made of.
    pub(super) fn judged<'a>(
        &self,
        dialogue: &Dialogue<'_>,
        judged: Option<Judged<'a>>,
    ) -> std::result::Result<Option<Judged<'a>>, Diagnostic> {
        let (message, help) = match (self.rows, judged) {
            (RowKind::Sft, None) => return Ok(None),
            (RowKind::Sft, Some(_)) => return Err(preference_record()),
            (_, None) => {
                let message = "a dialogue in a compilation of preferences: it has neither two answers nor a verdict";
                (message, "`--rows sft` compiles dialogues")
            }
            (RowKind::Preference, Some(Judged { verdict: Verdict::Label(_), .. })) => {
                ("one answer with a verdict in a compilation of pairs", "`--rows kto` compiles both")
            }
            (_, Some(judged)) => return Ok(Some(judged)),
        };
        let last = dialogue.messages.last().expect("a dialogue has messages");
        Err(Diagnostic::new(Code::NoPreference, message).at(&last.range).help(help))
    }

    /// Gives a dialogue its split, unless it asks for one, and tells its fold; -1 where there are none.
    fn place(&self, dialogue: &mut Dialogue<'_>, is_named: bool, record: &Record<'_>, index: usize) -> i32 {
        // A place in a file changes when data is added; what stands there does not.
        let content = || format!("{:016x}#{index}", xxh3_64(record.bytes));
        let name = match &dialogue.group {
            Some(group) => group.to_string(),
            None if is_named || record.location.key.is_some() => dialogue.id.to_string(),
            None => content(),
        };
        if dialogue.split.is_none() {
            dialogue.split = Some(self.splits.split(&name).into());
        }
        self.splits.fold(&name).map_or(-1, |fold| fold as i32)
    }

    /// The format that a record has; `None` where it has none.
    pub fn format(&self, record: &Record<'_>) -> Option<Arc<str>> {
        validate(record, &self.importers, &self.severities).format
    }

    /// Gives all findings their severity; a dialogue with one that the user made an error has no rows.
    fn reject_what_was_raised(&self, outcome: &mut Compiled) {
        self.severities.apply(&mut outcome.diagnostics);
        let Some(code) = raised(&outcome.diagnostics).filter(|_| !outcome.rows.is_empty()) else {
            return;
        };
        outcome.rows.clear();
        outcome.endings.clear();
        outcome.source_tokens = 0;
        *outcome.untrained.entry(code.name()).or_default() += std::mem::take(&mut outcome.trained);
    }

    /// Leaves `train` set on the messages that are to be trained, and counts the others.
    pub(super) fn select_turns(&self, messages: &mut [Message<'_>], untrained: &mut BTreeMap<&'static str, u64>) {
        let last = messages.iter().rposition(|message| message.train);
        for (index, message) in messages.iter_mut().enumerate() {
            if message.role != Role::Assistant {
                continue;
            }
            if !message.train {
                *untrained.entry("excluded-by-record").or_default() += 1;
            } else if self.train_on == TrainOn::LastTurn && Some(index) != last {
                message.train = false;
                *untrained.entry("excluded-by-train-on").or_default() += 1;
            }
        }
    }

    /// How targets are found.
    pub(super) fn mode(&self) -> Mode {
        match self.proof() {
            Proof::Prompt => Mode::Prove,
            Proof::Rendering => Mode::Whole,
            Proof::None => Mode::Blocks,
        }
    }

    /// Where trained tokens are taken from.
    pub(super) fn token_mask(&self) -> Mask {
        match self.mask {
            MaskOption::Exact if self.target == TargetOption::Template => Mask::Whole,
            MaskOption::Exact => Mask::Exact,
            MaskOption::Template => Mask::Template,
            MaskOption::HfCompat => Mask::HfCompat,
        }
    }

    /// Whether only whole targets are trained.
    pub(super) fn is_exact(&self) -> bool {
        self.mask == MaskOption::Exact
    }
}

/// Whether a template shows a system message.
fn takes_system(template: &Template) -> bool {
    const RULE: &str = "speak softly";
    let said = [(Role::System, RULE), (Role::User, "hi"), (Role::Assistant, "hello")];
    let messages = said.into_iter().map(|(role, content)| Message::said(role, content)).collect();
    let probe = Dialogue::of(messages);
    template.text(&probe).is_ok_and(|(text, _)| text.contains(RULE))
}

fn kwargs(value: &Value) -> Result<Node<'static>> {
    let text = value.to_string();
    let parsed =
        json::parse(text.as_bytes()).map_err(|_| Error::new(ErrorKind::Options, "`template_kwargs` is no JSON"))?;
    if parsed.root.as_object().is_none() {
        return Err(Error::new(ErrorKind::Options, "`template_kwargs` must be a JSON object"));
    }
    for name in crate::validate::RESERVED_ARGUMENTS {
        if parsed.root.get(name).is_some() {
            let message = format!("`{name}` cannot be a template argument: it comes from the dialogue");
            return Err(Error::new(ErrorKind::Options, message));
        }
    }
    Ok(parsed.root.into_owned_at(&(0..0)))
}

fn row(origin: &Provenance, window: usize, example: Example) -> Row {
    let provenance = Provenance {
        window: window as i32,
        trained_messages: example.trained_messages,
        text_hash: example.text_hash,
        target_hash: example.target_hash,
        ..origin.clone()
    };
    let Example { before, input_ids, labels, .. } = example;
    Row { before, input_ids, labels, provenance: vec![provenance], preference: None }
}

fn about(dialogue: &Dialogue<'_>, location: &Location, format: &Arc<str>, fold: i32) -> DialogueRow {
    let mut intents: Vec<String> = Vec::new();
    let mut slots: Vec<String> = Vec::new();
    let mut tools: Vec<String> = Vec::new();
    let add = |list: &mut Vec<String>, value: &str| {
        if !list.iter().any(|known| known == value) {
            list.push(value.to_owned());
        }
    };
    for message in &dialogue.messages {
        if let Some(state) = &message.state {
            if let Some(intent) = state.get("intent").and_then(Node::as_str) {
                add(&mut intents, intent);
            }
            for slot in state.get("slots").and_then(Node::as_object).unwrap_or_default() {
                add(&mut slots, &slot.key);
            }
        }
        message.tool_calls.iter().for_each(|call| add(&mut tools, &call.name));
    }
    let text = |node: &Option<Node<'_>>| node.as_ref().map(json::dumps);
    let language = dialogue.metadata.as_ref().and_then(|metadata| metadata.get("language")).and_then(|language| {
        match &language.value {
            Json::String(language) => Some(language.clone().into_owned()),
            _ => None,
        }
    });
    let turns = dialogue.assistant_turns().count() as i64;
    DialogueRow {
        id: dialogue.id.clone().into_owned(),
        kind: dialogue.kind.name(),
        language,
        script: script::of(dialogue),
        file: location.file.to_string(),
        line: location.position.number(),
        format: Arc::clone(format),
        split: dialogue.split.clone().map_or_else(|| "train".to_owned(), std::borrow::Cow::into_owned),
        fold,
        group: dialogue.group.clone().map(std::borrow::Cow::into_owned),
        metadata: text(&dialogue.metadata),
        goal: text(&dialogue.goal),
        intents,
        slots,
        tools,
        codes: Vec::new(),
        counts: [dialogue.messages.len() as i64, turns, 0, 0, 0, 0],
    }
}
