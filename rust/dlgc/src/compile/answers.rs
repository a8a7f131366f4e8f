//! Preferences: what is asked once, and each answer to it.
//!
//! In: a record of preferences, as the dialogues that its answers end. Out: [`Answered`], of which come rows of
//! `specs/shard.md`. Each answer goes through the passes of every other dialogue, so that each of its turns is proved
//! against its own prompt; beyond that the ids of the answer's row begin with those of the prompt that a server sends for
//! what is asked, hold each turn after its own prompt, and end in a stop. What does not nest so is refused, since there is
//! only one row for it.
//!
//! A window is made of what is asked, for both answers of a pair at once: it begins at the earliest cut with which the
//! longer one fits, so neither is lost alone, and both follow the same prompt.

use std::collections::BTreeMap;

use super::compiler::Compiler;
use super::measures::Rows;
use super::windows::{BYTES_A_TOKEN, Shot, Unlowered, spoken, too_long};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::dialogue::{Dialogue, Judged, Message, Role, Verdict};
use crate::error::Result;
use crate::shard::{Judgement, Preference, Provenance, Row, RowKind, WindowCounts, first_difference};
use crate::template::Turn;
use crate::tokenize::{Example, Memory, UNTRAINED};
use crate::window::{Lengths, Request, Window, WindowMode, plan};

/// Why an assistant message of what is asked is not trained.
const PART_OF_PROMPT: &str = "part-of-prompt";

/// A record of preferences: dialogues that begin with the same messages and end in an answer each.
pub(super) struct Sides<'a> {
    /// First the better one.
    pub(super) dialogues: Vec<Dialogue<'a>>,
    /// How many messages come before each answer.
    pub(super) asked: usize,
    /// Whether the only answer is good; `None` of a pair.
    pub(super) label: Option<bool>,
    /// The kind of negative that the worse answer is, where the record tells.
    negative: String,
}

/// The answers of a record, rendered and tokenised.
#[derive(Debug)]
pub(super) struct Answered {
    /// What is shown with each answer; its only row begins with the prompt and ends with the answer's last target.
    pub(super) shots: Vec<Shot>,
    /// Tokens of the prompt.
    pub(super) prompt: usize,
    /// Tokens of what is asked, whole, and of the answers.
    pub(super) tokens: u64,
    /// What the window leaves out; all zero where everything fits.
    pub(super) counts: WindowCounts,
    /// Summaries that somebody else is to write.
    pub(super) requests: Vec<Request>,
}

type Found<T> = std::result::Result<T, Diagnostic>;

impl<'a> Sides<'a> {
    /// The sides of a record; only their answers are to be trained.
    pub(super) fn of(dialogue: Dialogue<'a>, judged: Judged<'a>) -> Self {
        let negative = dialogue.metadata.as_ref().and_then(|metadata| metadata.get("negative")?.as_str());
        let negative = negative.unwrap_or_default().to_owned();
        let mut dialogues = vec![dialogue];
        let label = match judged.verdict {
            Verdict::BetterThan(worse) => {
                dialogues.push(*worse);
                None
            }
            Verdict::Label(label) => Some(label),
        };
        let asked = judged.asked;
        for dialogue in &mut dialogues {
            dialogue.messages.iter_mut().take(asked).for_each(|message| message.train = false);
        }
        Self { dialogues, asked, label, negative }
    }

    /// The messages of each answer.
    fn answers(&self) -> impl Iterator<Item = &[Message<'a>]> {
        self.dialogues.iter().map(|dialogue| dialogue.messages.get(self.asked..).unwrap_or_default())
    }

    /// Messages, and those of the assistant: of what is asked once, and of each answer.
    pub(super) fn counts(&self) -> (usize, usize) {
        let asked = self.dialogues[0].messages.iter().take(self.asked);
        let messages = asked.chain(self.answers().flatten());
        messages.fold((0, 0), |(all, turns), message| (all + 1, turns + usize::from(message.role == Role::Assistant)))
    }

    /// How many messages of each answer are to be trained.
    pub(super) fn trainable(&self) -> impl Iterator<Item = u64> {
        self.answers().map(|answer| answer.iter().filter(|message| message.train).count() as u64)
    }

    /// What the answers are called.
    pub(super) fn names(&self) -> &'static [&'static str] {
        if self.label.is_some() { &["completion"] } else { &["chosen", "rejected"] }
    }

    /// Why an answer is no answer to what is asked.
    fn misplaced(&self) -> Option<Diagnostic> {
        let Some(last) = self.asked.checked_sub(1) else {
            let message = "no message comes before the answers: no server would ask for them";
            return Some(Diagnostic::new(Code::PromptDiffers, message));
        };
        let last = self.dialogues[0].messages.get(last);
        self.answers().zip(self.names()).find_map(|(answer, name)| {
            let found =
                |code: Code, message: String, at: &Message<'_>| Some(Diagnostic::new(code, message).at(&at.range));
            let Some(first) = answer.iter().find(|message| message.role == Role::Assistant) else {
                return Some(Diagnostic::new(Code::NoAssistant, format!("`{name}` has no assistant message")));
            };
            if answer.iter().all(|message| !message.train) {
                let message = format!("every assistant message of `{name}` is excluded from training");
                return found(Code::NothingToTrain, message, first);
            }
            if answer[0].role != Role::Assistant {
                let message =
                    format!("`{name}` begins with a `{}` message, which nobody asks for", answer[0].role.name());
                return found(Code::AnswerNotNested, message, &answer[0]);
            }
            if last.is_some_and(|last| last.role == Role::Assistant) {
                let message = format!("`{name}` follows a message of the assistant, and no prompt stands between them");
                return found(Code::AnswerNotNested, message, first);
            }
            None
        })
    }
}

impl Answered {
    /// The row of each answer.
    pub(super) fn examples(&self) -> impl Iterator<Item = &Example> {
        self.shots.iter().map(|shot| &shot.examples[0])
    }

    /// The prompt.
    pub(super) fn prompt_ids(&self) -> &[i32] {
        &self.shots[0].examples[0].input_ids[..self.prompt]
    }

    /// Ids of each answer, and which of them are trained.
    pub(super) fn answers(&self) -> impl Iterator<Item = (&[i32], &[i32])> {
        self.examples().map(|example| (&example.input_ids[self.prompt..], &example.labels[self.prompt..]))
    }

    /// The first token in which both answers of a pair differ.
    pub(super) fn divergence(&self) -> Option<usize> {
        let ids: Vec<&[i32]> = self.answers().map(|(ids, _)| ids).collect();
        let [chosen, rejected] = ids[..] else { return None };
        first_difference(chosen, rejected)
    }

    fn longest(&self) -> u64 {
        self.examples().map(|example| example.length() as u64).max().unwrap_or_default()
    }

    /// Why a pair prefers nothing.
    fn indifferent(&self) -> Option<Diagnostic> {
        let targets: Vec<Vec<i32>> = self
            .answers()
            .map(|(_, labels)| labels.iter().copied().filter(|&label| label != UNTRAINED).collect())
            .collect();
        let [chosen, rejected] = &targets[..] else { return None };
        let message = match (self.divergence(), chosen == rejected) {
            (None, _) => "both answers are the same",
            (_, true) => "both answers train the same tokens, and differ in others only",
            _ => return None,
        };
        Some(Diagnostic::new(Code::IdenticalAnswers, message))
    }
}

impl Compiler {
    /// Leaves `train` set on the messages of the answers that are to be trained, and counts the others.
    pub(super) fn select_answers(&self, sides: &mut Sides<'_>, untrained: &mut BTreeMap<&'static str, u64>) {
        let asked = sides.dialogues[0].messages.iter().take(sides.asked);
        let turns = asked.filter(|message| message.role == Role::Assistant).count() as u64;
        if turns > 0 {
            *untrained.entry(PART_OF_PROMPT).or_default() += turns;
        }
        for dialogue in &mut sides.dialogues {
            let from = sides.asked.min(dialogue.messages.len());
            self.select_turns(&mut dialogue.messages[from..], untrained);
        }
    }

    /// Renders and tokenises the answers of a record, in a window if they are too long.
    pub(super) fn answer(
        &self,
        sides: &mut Sides<'_>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<std::result::Result<Answered, Unlowered>> {
        let mut found = Vec::new();
        let answered = self.answer_each(sides, &mut found)?;
        // What is found of what is asked is found with each answer.
        for found in found {
            if !diagnostics.contains(&found) {
                diagnostics.push(found);
            }
        }
        let refused = match answered {
            Ok(answered) => match answered.indifferent() {
                None => return Ok(Ok(answered)),
                Some(indifferent) => {
                    Refused::Diagnostic(indifferent.at(&sides.dialogues[1].messages[sides.asked].range))
                }
            },
            Err(refused) => refused,
        };
        Ok(Err(match refused {
            Refused::Dropped => Unlowered::Dropped,
            Refused::Found(code) => Unlowered::Rejected(code),
            Refused::Diagnostic(refused) => {
                let code = refused.code;
                diagnostics.push(refused);
                Unlowered::Rejected(code)
            }
        }))
    }

    fn answer_each(
        &self,
        sides: &mut Sides<'_>,
        found: &mut Vec<Diagnostic>,
    ) -> Result<std::result::Result<Answered, Refused>> {
        if let Some(misplaced) = sides.misplaced() {
            return Ok(Err(misplaced.into()));
        }
        for dialogue in &mut sides.dialogues {
            self.tokenizer.guard(dialogue, found);
            // What follows the last target would be part of an answer, and never be trained.
            let last = dialogue.messages.iter().rposition(|message| message.train).expect("an answer trains something");
            dialogue.messages.truncate(last + 1);
        }
        if let Some(error) = found.iter().find(|found| found.severity == Severity::Error) {
            return Ok(Err(Refused::Found(error.code)));
        }
        let (memory, budget) = (Memory::default(), self.max_length.unwrap_or(u64::MAX));
        let mut rows = SideRows::new(self, sides, &memory, budget);
        let is_windowed = matches!(self.windows.mode, WindowMode::Cover | WindowMode::Last);
        // Who says so much can hardly fit; rendering it whole, with all proofs, would be for nothing.
        let is_long = sides.dialogues.iter().any(|dialogue| spoken(dialogue) / BYTES_A_TOKEN > budget);
        if !(is_windowed && is_long) {
            let mut said = Vec::new();
            let whole = match self.after_prompt(&mut rows, 0, u64::MAX, &mut said)? {
                Ok(whole) => whole,
                Err(refused) => {
                    found.append(&mut said);
                    return Ok(Err(refused.into()));
                }
            };
            if whole.longest() <= budget {
                found.append(&mut said);
                return Ok(Ok(whole));
            }
            match self.windows.mode {
                WindowMode::Drop => return Ok(Err(Refused::Dropped)),
                WindowMode::Reject => {
                    found.append(&mut said);
                    let examples: Vec<Example> = whole.examples().cloned().collect();
                    return Ok(Err(too_long(&examples, budget).into()));
                }
                _ => {}
            }
        }
        self.answer_in_window(&mut rows, found)
    }

    fn answer_in_window(
        &self,
        rows: &mut SideRows<'_, '_>,
        found: &mut Vec<Diagnostic>,
    ) -> Result<std::result::Result<Answered, Refused>> {
        if let Some(refused) = rows.sides[0].head_too_long()? {
            return Ok(Err(refused.into()));
        }
        let limits = rows.sides[0].limits;
        loop {
            let planned = plan::next(0, 1, rows, limits);
            rows.failed()?;
            let Some(window) = planned else { return Ok(Err(rows.too_long()?.into())) };
            let mut written = u64::MAX;
            let mut said = Vec::new();
            let mut answered = loop {
                said.clear();
                let answered = match self.after_prompt(rows, window.cut, written, &mut said)? {
                    Ok(answered) => answered,
                    Err(refused) => {
                        found.append(&mut said);
                        return Ok(Err(refused.into()));
                    }
                };
                let first = rows.window(window.cut, 0);
                match self.less_written(&mut rows.sides[0], &first, &answered.shots, written) {
                    Some(less) => written = less,
                    None => break answered,
                }
            };
            if !rows.all_fit(window.cut, &answered.shots) {
                continue; // an answer is longer than it measured; now its measure is right
            }
            found.append(&mut said);
            answered.requests = std::mem::take(&mut rows.sides[0].summaries.requests);
            // The first cut leaves nothing out: it fits after all.
            if window.cut > 0 {
                answered.tokens = rows.whole_length().unwrap_or(answered.tokens);
                answered.counts = self.window_counts(&window, &answered.shots)?;
            }
            return Ok(Ok(answered));
        }
    }

    /// The prompt and each answer after it, as a window that begins at a cut shows them, however long they are.
    fn after_prompt(
        &self,
        rows: &mut SideRows<'_, '_>,
        cut: usize,
        written: u64,
        found: &mut Vec<Diagnostic>,
    ) -> Result<Found<Answered>> {
        let asked = rows.asked;
        let place = rows.cuts[cut][0];
        let (view, _) = rows.sides[0].shown(place, asked + 1, 0..0, written)?;
        let (text, suppressed) = match rows.sides[0].template.prompt(&view.dialogue) {
            Ok(prompt) => prompt,
            Err(refused) => return Ok(Err(refused)),
        };
        let prompt = self.tokenizer.untrained(&text, &suppressed, Some(rows.sides[0].memory))?.input_ids;
        let mut shots = Vec::with_capacity(rows.sides.len());
        for side in 0..rows.sides.len() {
            let window = rows.window(cut, side);
            let side = &mut rows.sides[side];
            let (mut shot, mut said) = self.shown_at(side, &window, written)?;
            said.retain(|found| found.code != Code::OwnRow); // it has none here
            found.append(&mut said);
            if let Some(unproved) = shot.rendered.turns.iter().find_map(|turn: &Turn| turn.target.as_ref().err()) {
                return Ok(Err(unproved.clone()));
            }
            let not_nested = |message: usize, why: &str| {
                Diagnostic::new(Code::AnswerNotNested, why).at(&side.dialogue.messages[message].range)
            };
            let example = match Example::nested(std::mem::take(&mut shot.examples)) {
                Ok(example) => example,
                Err(message) => {
                    let why = "the template shows this turn otherwise once the answer goes on";
                    return Ok(Err(not_nested(message, why)));
                }
            };
            let is_after = example.labels.iter().take(prompt.len()).all(|&label| label == UNTRAINED);
            if !example.input_ids.starts_with(&prompt) || !is_after {
                let why = "the answer as a whole does not begin with the prompt for its first turn";
                return Ok(Err(not_nested(asked, why)));
            }
            shot.examples = vec![example];
            shots.push(shot);
        }
        let mut answered =
            Answered { shots, prompt: prompt.len(), tokens: 0, counts: WindowCounts::default(), requests: Vec::new() };
        let said: usize = answered.answers().map(|(ids, _)| ids.len()).sum();
        answered.tokens = (prompt.len() + said) as u64;
        Ok(Ok(answered))
    }

    /// What a window leaves out, before the turns of all answers.
    fn window_counts(&self, window: &Window, shots: &[Shot]) -> Result<WindowCounts> {
        let mut counts = WindowCounts { dialogues: 1, windows: 1, ..WindowCounts::default() };
        counts.short = u64::from(window.is_short);
        if let Some(summary) = &shots[0].summary {
            counts.summaries = 1;
            counts.summary_tokens = self.tokenizer.count(summary, &[], &Memory::default())? as u64;
        }
        shots.iter().for_each(|shot| shot.count_history(&mut counts));
        Ok(counts)
    }

    /// The rows of a record: a pair, or one for each answer that is good or bad.
    pub(super) fn preference_rows(
        &self,
        kind: RowKind,
        sides: &Sides<'_>,
        answered: &Answered,
        origin: &Provenance,
    ) -> Result<Vec<Row>> {
        let prompt = answered.prompt_ids();
        let prompt_hash = self.tokenizer.hashes(prompt, &[])?.0;
        let row = |judgement: Judgement| {
            let is_good = judgement == Judgement::Label(true);
            let negative = if is_good { String::new() } else { sides.negative.clone() };
            Row {
                input_ids: prompt.to_vec(),
                labels: vec![UNTRAINED; prompt.len()],
                provenance: Vec::new(),
                preference: Some(Preference { prompt: prompt.len() as u64, prompt_hash, judgement, negative }),
                ..Row::default()
            }
        };
        let say = |row: &mut Row, (ids, labels): (&[i32], &[i32]), example: &Example| -> Result<()> {
            let (text_hash, target_hash) = self.tokenizer.hashes(ids, labels)?;
            row.input_ids.extend_from_slice(ids);
            row.labels.extend_from_slice(labels);
            let (trained_messages, length) = (example.trained_messages.clone(), ids.len() as u64);
            row.provenance.push(Provenance { trained_messages, text_hash, target_hash, length, ..origin.clone() });
            Ok(())
        };
        let mut answers = answered.answers().zip(answered.examples());
        if kind == RowKind::Preference {
            let divergence = answered.divergence().expect("a pair whose answers are the same is refused") as u64;
            let mut pair = row(Judgement::Pair { divergence });
            answers.try_for_each(|(answer, example)| say(&mut pair, answer, example))?;
            return Ok(vec![pair]);
        }
        let labels = [sides.label.unwrap_or(true), false];
        let judged = answers.zip(labels).map(|((answer, example), label)| {
            let mut row = row(Judgement::Label(label));
            say(&mut row, answer, example)?;
            Ok(row)
        });
        judged.collect()
    }
}

/// Why nothing came of a record of preferences.
enum Refused {
    /// It is left out on purpose.
    Dropped,
    /// For an error that was found before.
    Found(Code),
    /// For this error.
    Diagnostic(Diagnostic),
}

impl From<Diagnostic> for Refused {
    fn from(refused: Diagnostic) -> Self {
        Self::Diagnostic(refused)
    }
}

/// What windows would measure with each answer; for the plan all answers are one turn.
struct SideRows<'r, 'a> {
    sides: Vec<Rows<'r, 'a>>,
    asked: usize,
    /// The cuts before the answers, by their index in each side.
    cuts: Vec<Vec<usize>>,
}

impl<'r, 'a> SideRows<'r, 'a> {
    fn new(compiler: &'r Compiler, sides: &'r Sides<'a>, memory: &'r Memory, budget: u64) -> Self {
        let asked = sides.asked;
        let sides: Vec<Rows<'r, 'a>> =
            sides.dialogues.iter().map(|dialogue| Rows::new(compiler, dialogue, None, None, memory, budget)).collect();
        // An answer may hold the result of a call that was made before a cut, which is none then.
        let index = |rows: &Rows<'_, '_>, at: usize| rows.layout.cuts.iter().position(|cut| cut.at == at);
        let first = sides[0].layout.cuts.iter().enumerate();
        let before = first.filter(|(index, cut)| *index == 0 || cut.at < asked);
        let cuts = before.filter_map(|(_, cut)| sides.iter().map(|rows| index(rows, cut.at)).collect()).collect();
        Self { sides, asked, cuts }
    }

    /// The window of a side that begins at a cut.
    fn window(&self, cut: usize, side: usize) -> Window {
        Window { cut: self.cuts[cut][side], turns: 0..self.sides[side].layout.turns.len(), is_short: false }
    }

    fn failed(&mut self) -> Result<()> {
        self.sides.iter_mut().try_for_each(Rows::failed)
    }

    /// Whether every answer fits; learns how long those are that do not.
    fn all_fit(&mut self, cut: usize, shots: &[Shot]) -> bool {
        let windows: Vec<Window> = (0..self.sides.len()).map(|side| self.window(cut, side)).collect();
        let each = self.sides.iter_mut().zip(&windows).zip(shots);
        let fit: Vec<bool> = each.map(|((rows, window), shot)| rows.all_fit(window, &shot.examples)).collect();
        fit.into_iter().all(|fits| fits)
    }

    /// Tokens of what is asked, whole, and of the answers; none where the template refuses that.
    fn whole_length(&mut self) -> Option<u64> {
        let prompt = self.prompt(0, 0);
        let rows = self.sides.iter_mut().map(|rows| rows.rendering(0, rows.layout.turns.len() - 1));
        let answers = rows.map(|row| (row != u64::MAX).then(|| row.saturating_sub(prompt))).sum::<Option<u64>>()?;
        (prompt != u64::MAX).then(|| prompt + answers)
    }

    /// Why no window shows the answers.
    fn too_long(&mut self) -> Result<Diagnostic> {
        let tokens = self.row(self.cuts.len() - 1, 0);
        self.failed()?;
        let refused = self.sides.iter_mut().find_map(|rows| rows.refused.take());
        if let Some(refused) = refused.filter(|_| tokens == u64::MAX) {
            return Ok(refused);
        }
        let budget = self.sides[0].limits.budget;
        let what = if self.sides.len() > 1 { "the longer answer" } else { "the answer" };
        let message = format!("{what} with what it answers has {tokens} tokens, `max_length` is {budget}");
        Ok(Diagnostic::new(Code::TurnTooLong, message).help("raise `--max-length`, or cut the messages"))
    }
}

impl Lengths for SideRows<'_, '_> {
    fn row(&mut self, cut: usize, _: usize) -> u64 {
        let rows = self.sides.iter_mut().zip(&self.cuts[cut]);
        rows.map(|(rows, &cut)| rows.row(cut, rows.layout.turns.len() - 1)).max().unwrap_or_default()
    }

    fn prompt(&mut self, cut: usize, _: usize) -> u64 {
        self.sides[0].prompt(self.cuts[cut][0], 0)
    }

    fn last_cut(&self, _: usize) -> usize {
        self.cuts.len() - 1
    }

    fn guess_cut(&self, _: usize, tokens: u64) -> usize {
        self.sides[0].guess_cut(self.sides[0].layout.turns.len() - 1, tokens)
    }

    fn guess_cut_of_prompt(&self, _: usize, tokens: u64) -> usize {
        self.sides[0].guess_cut_of_prompt(0, tokens)
    }

    fn guess_turn(&self, _: usize, _: u64) -> usize {
        0
    }
}
