//! A dialogue that is longer than its budget: measured, cut into windows, each taken through the passes.
//!
//! In: a [`Dialogue`]. Out: [`Lowered`]. A window is planned by what its rows would measure, then rendered, proved and
//! encoded like any dialogue; a row that turns out longer than it measured corrects the plan. What was encoded once is
//! remembered, so the windows of a dialogue cost little more than the dialogue.

use std::collections::HashSet;
use std::ops::Range;

use serde_json::{Value, json};

use super::compiler::Compiler;
use super::measures::Rows;
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::dialogue::{Dialogue, Message};
use crate::error::Result;
use crate::json::{self, Node};
use crate::shard::WindowCounts;
use crate::source::Record;
use crate::template::{Part, Rendered, Template, Turn, Whole};
use crate::tokenize::{Example, Memory, UNTRAINED};
use crate::validate::validate;
use crate::window::{Lengths, Request, SummaryOptions, Window, WindowMode, plan};

/// How windows are made.
pub(super) struct WindowOptions {
    pub(super) mode: WindowMode,
    pub(super) cuts_long_turns: bool,
    pub(super) min_context: f64,
    pub(super) summary: SummaryOptions,
}

/// A dialogue after rendering and tokenising.
pub(super) struct Lowered {
    /// Its windows; one for a dialogue that fits.
    pub(super) windows: Vec<Shot>,
    /// Verdicts of messages that no window trains, by their index in the record.
    pub(super) left_out: Vec<Turn>,
    /// Tokens of the whole dialogue.
    pub(super) tokens: u64,
    /// What the windows cost and leave out; all zero for a dialogue that fits.
    pub(super) counts: WindowCounts,
    /// Summaries that somebody else is to write.
    pub(super) requests: Vec<Request>,
    /// What was said of messages that several windows show.
    seen: HashSet<(Code, Range<usize>, String)>,
}

/// A window with its rows.
#[derive(Debug)]
pub struct Shot {
    /// What it shows, rendered.
    pub rendered: Rendered,
    /// Its rows; messages have the indices that they have in the record.
    pub examples: Vec<Example>,
    /// The messages that it shows, by their index in the record; none for a summary.
    pub sources: Vec<Option<usize>>,
    /// What it says of those that it leaves out.
    pub summary: Option<String>,
}

impl Shot {
    /// Counts the messages before the trained turns, and how many of them it shows.
    pub(super) fn count_history(&self, counts: &mut WindowCounts) {
        for &message in self.examples.iter().flat_map(|example| &example.trained_messages) {
            counts.history += message as u64;
            counts.shown += self.sources.iter().flatten().filter(|&&source| source < message).count() as u64;
        }
    }
}

/// Why nothing came of a dialogue.
pub(super) enum Unlowered {
    /// It is rejected, for the error with this code.
    Rejected(Code),
    /// It is left out on purpose.
    Dropped,
}

/// What a server shows of a history.
#[derive(Debug)]
pub struct Served {
    /// The messages as the template gets them, each with its index in the history; none for a summary.
    pub messages: Vec<(Option<usize>, Node<'static>)>,
    /// The prompt, with its ids.
    pub prompt: Example,
    /// What is said of what is left out.
    pub summary: Option<String>,
    /// Summaries that somebody else is to write.
    pub requests: Vec<Request>,
}

impl Served {
    /// As `dlgc.window` gives it.
    pub fn to_json(&self) -> Value {
        let messages: Vec<String> = self.messages.iter().map(|(_, node)| json::dumps(node)).collect();
        let sources: Vec<Option<usize>> = self.messages.iter().map(|(source, _)| *source).collect();
        json!({
            "messages": format!("[{}]", messages.join(", ")),
            "sources": sources,
            "text": self.prompt.text,
            "input_ids": self.prompt.input_ids,
            "summary": self.summary,
            "requests": asked(&self.requests),
        })
    }
}

/// Bytes from which a dialogue is encoded in pieces, between the tokens that mark its messages.
const LARGE: u64 = 1 << 18;

/// Most texts, English and Chinese among them, have more bytes than this for a token.
pub(super) const BYTES_A_TOKEN: u64 = 4;

type Found<T> = std::result::Result<T, Diagnostic>;

/// Tokens of a dialogue, and of each of its messages where that is known.
type Length = (u64, Option<Vec<u64>>);

impl Compiler {
    /// Renders and tokenises a dialogue, in windows if it is longer than `max_length`.
    pub(super) fn lower(
        &self,
        dialogue: &mut Dialogue<'_>,
        max_length: Option<u64>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<std::result::Result<Lowered, Unlowered>> {
        let before = diagnostics.len();
        self.tokenizer.guard(dialogue, diagnostics);
        if let Some(error) = diagnostics[before..].iter().find(|found| found.severity == Severity::Error) {
            return Ok(Err(Unlowered::Rejected(error.code)));
        }
        let memory = Memory::default();
        let budget = max_length.unwrap_or(u64::MAX);
        let template = self.templates.of(dialogue);
        // Whoever says so much can hardly fit; rendering it whole, with all proofs, would be for nothing.
        let is_long = spoken(dialogue) / BYTES_A_TOKEN > budget;
        let planned = matches!(self.windows.mode, WindowMode::Cover | WindowMode::Last) && is_long;
        let dialogue = &*dialogue;
        let whole = if planned { template.whole(dialogue) } else { None };
        let length = if planned { self.whole_length(template, whole.as_ref(), dialogue, &memory)? } else { None };
        let lowered = match length.filter(|&(tokens, _)| tokens > budget) {
            Some(length) => self.in_windows(dialogue, whole.as_ref(), budget, length, &memory, diagnostics)?,
            None => {
                let mut found = Vec::new();
                // In pieces, the reference has less to keep in mind at once.
                let remembered = (planned || spoken(dialogue) > LARGE).then_some(&memory);
                let (rendered, examples) = match self.lower_one(dialogue, None, remembered, &mut found)? {
                    Ok(done) => done,
                    Err(refused) => {
                        diagnostics.append(&mut found);
                        let code = refused.code;
                        diagnostics.push(refused);
                        return Ok(Err(Unlowered::Rejected(code)));
                    }
                };
                let tokens = rendered.tokens as u64;
                let fits = examples.iter().all(|example| example.length() as u64 <= budget);
                if fits || matches!(self.windows.mode, WindowMode::Truncate) {
                    diagnostics.append(&mut found);
                    let mut lowered = Lowered::of(rendered, examples, dialogue.messages.len(), tokens);
                    if !fits {
                        self.truncate(&mut lowered, budget as usize)?;
                    }
                    lowered
                } else {
                    match self.windows.mode {
                        WindowMode::Drop => return Ok(Err(Unlowered::Dropped)),
                        WindowMode::Reject => {
                            diagnostics.append(&mut found);
                            diagnostics.push(too_long(&examples, budget));
                            return Ok(Err(Unlowered::Rejected(Code::DialogueTooLong)));
                        }
                        _ => {
                            let whole = whole.or_else(|| template.whole(dialogue));
                            let length = self.whole_length(template, whole.as_ref(), dialogue, &memory)?;
                            let length = length.unwrap_or((tokens, None));
                            self.in_windows(dialogue, whole.as_ref(), budget, length, &memory, diagnostics)?
                        }
                    }
                }
            }
        };
        diagnostics.extend(lowered.turns().filter_map(|turn| turn.target.as_ref().err().cloned()));
        let is_empty = lowered.windows.iter().all(|window| window.examples.is_empty());
        if !is_empty {
            return Ok(Ok(lowered));
        }
        let failed = lowered.turns().filter_map(|turn| turn.target.as_ref().err()).last();
        // A dialogue of which nothing remains is rejected for what befell its last turn.
        let code = match failed {
            Some(failed) => failed.code,
            None => {
                let message = "the template's marks hold no token that could be trained";
                diagnostics.push(Diagnostic::new(Code::NothingToTrain, message));
                Code::NothingToTrain
            }
        };
        Ok(Err(Unlowered::Rejected(code)))
    }

    /// What a server shows before the last message of a record, so that the answer may have `room` tokens: the window
    /// that a compilation makes for a turn of that length.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference fails.
    pub fn serve(&self, record: &Record<'_>, room: u64) -> Result<std::result::Result<Served, Vec<Diagnostic>>> {
        let validated = validate(record, &self.importers, &self.severities);
        let mut diagnostics = validated.diagnostics;
        let Some(checked) = validated.dialogues.into_iter().next() else { return Ok(Err(diagnostics)) };
        diagnostics.extend(checked.diagnostics);
        let Some(mut dialogue) = checked.dialogue else { return Ok(Err(diagnostics)) };
        self.tokenizer.guard(&mut dialogue, &mut diagnostics);
        if diagnostics.iter().any(|found| found.severity == Severity::Error) {
            return Ok(Err(diagnostics));
        }
        let last = dialogue.messages.len() - 1;
        dialogue.messages.iter_mut().enumerate().for_each(|(index, message)| message.train = index == last);
        let memory = Memory::default();
        let budget = self.max_length.unwrap_or(u64::MAX);
        let whole = self.templates.of(&dialogue).whole(&dialogue);
        let mut rows = Rows::new(self, &dialogue, whole.as_ref(), None, &memory, budget);
        let cut = plan::earliest(0, &mut rows, budget, room);
        rows.failed()?;
        let Some(cut) = cut else {
            let cut = rows.layout.last_cut(0);
            let message = match rows.prompt(cut, 0) {
                u64::MAX => "the template refuses the messages".to_owned(),
                tokens => format!("the prompt has {tokens} tokens, the answer {room}; `max_length` is {budget}"),
            };
            diagnostics.push(rows.refused.take().unwrap_or_else(|| Diagnostic::new(Code::TurnTooLong, message)));
            return Ok(Err(diagnostics));
        };
        let mut written = u64::MAX;
        loop {
            let (view, summary) = rows.shown(cut, last + 1, 0..0, written)?;
            let template = self.templates.of(&view.dialogue);
            let shown =
                template.messages(&view.dialogue).and_then(|shown| Ok((shown, template.prompt(&view.dialogue)?)));
            let (mut shown, (text, suppressed)) = match shown {
                Ok(shown) => shown,
                Err(refused) => {
                    diagnostics.push(refused);
                    return Ok(Err(diagnostics));
                }
            };
            let prompt = self.tokenizer.untrained(&text, &suppressed, None)?;
            let over = (prompt.input_ids.len() as u64 + room).saturating_sub(budget);
            if over > 0 && rows.is_written(cut) && written > 0 {
                written = written.min(self.windows.summary.budget).saturating_sub(over);
                continue;
            }
            shown.pop(); // stands for the answer
            let messages = shown.into_iter().map(|(index, node)| (view.sources[index], node)).collect();
            return Ok(Ok(Served { messages, prompt, summary, requests: rows.summaries.requests }));
        }
    }

    /// Renders and tokenises what is shown, however long it is; `part` is the same as a part of a dialogue.
    fn lower_one(
        &self,
        dialogue: &Dialogue<'_>,
        part: Option<&Part<'_, '_>>,
        memory: Option<&Memory>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<Found<(Rendered, Vec<Example>)>> {
        let template = self.templates.of(dialogue);
        let rendered = match part {
            Some(part) => template.render_part(part, dialogue, self.mode()),
            None => template.render(dialogue, self.mode()),
        };
        let mut rendered = match rendered {
            Ok(rendered) => rendered,
            Err(refused) => return Ok(Err(refused)),
        };
        if !self.tokenizer.is_lean() {
            let messages = self.templates.of(dialogue).messages(dialogue);
            rendered.messages = messages.unwrap_or_default().into_iter().map(|(_, message)| message).collect();
        }
        let examples = self.tokenizer.examples(&mut rendered, self.token_mask(), memory)?;
        diagnostics.append(&mut rendered.diagnostics);
        Ok(Ok((rendered, examples)))
    }

    /// Tokens of a dialogue as a whole, and of each of its messages there; none where the template refuses it.
    fn whole_length(
        &self,
        template: &Template,
        whole: Option<&Whole<'_>>,
        dialogue: &Dialogue<'_>,
        memory: &Memory,
    ) -> Result<Option<Length>> {
        let text = match whole {
            Some(whole) => template.text_of_part(&whole.all(), false, || dialogue.clone()),
            None => template.text(dialogue),
        };
        let Ok((text, suppressed)) = text else { return Ok(None) };
        if !suppressed.is_empty() {
            return Ok(Some((self.tokenizer.count(&text, &suppressed, memory)? as u64, None)));
        }
        let (tokens, expected) = self.tokenizer.learn(text, &dialogue.messages, memory)?;
        Ok(Some((tokens as u64, expected)))
    }

    fn in_windows(
        &self,
        dialogue: &Dialogue<'_>,
        whole: Option<&Whole<'_>>,
        budget: u64,
        (tokens, expected): Length,
        memory: &Memory,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<Lowered> {
        let mut rows = Rows::new(self, dialogue, whole, expected.map(|expected| (tokens, expected)), memory, budget);
        let mut lowered = Lowered::to_cut(tokens);
        if self.windows.mode == WindowMode::Last {
            self.last(&mut rows, &mut lowered, diagnostics)?;
        } else {
            rows.tell();
            self.cover(&mut rows, &mut lowered, diagnostics)?;
        }
        lowered.requests = rows.summaries.requests;
        Ok(lowered)
    }

    /// The fewest windows that train every turn.
    fn cover(&self, rows: &mut Rows<'_, '_>, lowered: &mut Lowered, diagnostics: &mut Vec<Diagnostic>) -> Result<()> {
        let turns = rows.layout.turns.len();
        let limits = rows.limits;
        let mut first = 0;
        while first < turns {
            rows.first = first;
            let planned = plan::next(first, turns, rows, limits);
            rows.failed()?;
            let Some(window) = planned else {
                if first == 0
                    && let Some(found) = rows.head_too_long()?
                {
                    (0..turns).for_each(|turn| rows.enter(turn, &found, lowered));
                    return Ok(());
                }
                if !rows.is_too_long(first) {
                    continue;
                }
                if !self.cut_turn(rows, first, lowered, diagnostics)? {
                    rows.leave_out(first, lowered)?;
                }
                first += 1;
                continue;
            };
            let mut found = Vec::new();
            let Some(shot) = self.shoot(rows, &window, &mut found)? else {
                continue; // a row is longer than it measured; now its measure is right
            };
            if !rows.is_as_told(&window, &shot) {
                continue; // the plan was made of lengths that are not so certain
            }
            first = window.turns.end;
            rows.count(&window, &shot, lowered)?;
            lowered.take(shot, found, diagnostics);
        }
        Ok(())
    }

    /// Trains as much of a turn as fits after what it answers, without its stop; whether it does.
    fn cut_turn(
        &self,
        rows: &mut Rows<'_, '_>,
        turn: usize,
        lowered: &mut Lowered,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<bool> {
        if !self.windows.cuts_long_turns {
            return Ok(false);
        }
        let window = Window { cut: rows.layout.last_cut(turn), turns: turn..turn + 1, is_short: false };
        let mut found = Vec::new();
        let mut shot = self.take_shot(rows, &window, &mut found)?;
        let budget = rows.limits.budget as usize;
        let is_long = |example: &Example| example.length() > budget;
        if shot.examples.iter().any(|example| is_long(example) && !example.ends_in_target_at(budget)) {
            return Ok(false);
        }
        for example in shot.examples.iter_mut().filter(|example| is_long(example)) {
            example.cut(budget);
            self.tokenizer.hash(example)?;
            let &message = example.trained_messages.last().expect("a row trains something");
            let cut = format!("the turn is cut at {budget} tokens; neither the rest nor its stop is trained");
            found.push(Diagnostic::new(Code::TurnCut, cut).at(&rows.dialogue.messages[message].range));
        }
        rows.count(&window, &shot, lowered)?;
        lowered.take(shot, found, diagnostics);
        Ok(true)
    }

    /// The most recent messages that fit.
    fn last(&self, rows: &mut Rows<'_, '_>, lowered: &mut Lowered, diagnostics: &mut Vec<Diagnostic>) -> Result<()> {
        let turns = rows.layout.turns.len();
        let shot = loop {
            let limits = rows.limits;
            let planned = plan::last(turns, rows, limits);
            rows.failed()?;
            let Some((cut, turn)) = planned else {
                if let Some(found) = rows.head_too_long()? {
                    (0..turns).for_each(|turn| rows.enter(turn, &found, lowered));
                    return Ok(());
                }
                break None;
            };
            let at = rows.layout.cuts[cut].at;
            let first = rows.layout.turns.partition_point(|turn| turn.start < at).min(turn);
            let window = Window { cut, turns: first..turn + 1, is_short: false };
            let mut found = Vec::new();
            if let Some(shot) = self.shoot(rows, &window, &mut found)? {
                break Some((window, shot, found));
            }
        };
        let trained = shot.as_ref().map_or(0..0, |(window, ..)| window.turns.clone());
        for turn in (0..turns).filter(|turn| !trained.contains(turn)) {
            if turn < trained.start {
                let message = "the turn lies before the window of the most recent messages";
                rows.enter(turn, &Diagnostic::new(Code::OutsideWindow, message), lowered);
            } else {
                rows.leave_out(turn, lowered)?;
            }
        }
        if let Some((window, shot, found)) = shot {
            rows.count(&window, &shot, lowered)?;
            lowered.take(shot, found, diagnostics);
        }
        Ok(())
    }

    /// Renders and tokenises a window; `None` if one of its rows does not fit.
    fn shoot(
        &self,
        rows: &mut Rows<'_, '_>,
        window: &Window,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<Option<Shot>> {
        let shot = self.take_shot(rows, window, diagnostics)?;
        Ok(rows.all_fit(window, &shot.examples).then_some(shot))
    }

    /// Renders and tokenises a window, however long its rows are.
    fn take_shot(&self, rows: &mut Rows<'_, '_>, window: &Window, diagnostics: &mut Vec<Diagnostic>) -> Result<Shot> {
        let mut written = u64::MAX;
        loop {
            let (shot, mut found) = self.shown_at(rows, window, written)?;
            match self.less_written(rows, window, std::slice::from_ref(&shot), written) {
                Some(less) => written = less,
                None => {
                    diagnostics.append(&mut found);
                    return Ok(shot);
                }
            }
        }
    }

    /// Renders and tokenises a window with so many tokens of what somebody else wrote of what it leaves out.
    pub(super) fn shown_at(
        &self,
        rows: &mut Rows<'_, '_>,
        window: &Window,
        written: u64,
    ) -> Result<(Shot, Vec<Diagnostic>)> {
        let end = rows.layout.turns[window.turns.end - 1].end;
        let (view, summary) = rows.shown(window.cut, end, window.turns.clone(), written)?;
        let mut found = Vec::new();
        let part = if summary.is_none() { rows.part(window.cut, end) } else { None };
        let lowered = self.lower_one(&view.dialogue, part.as_ref(), Some(rows.memory), &mut found)?;
        let (mut rendered, mut examples) = match lowered {
            Ok(done) => done,
            Err(refused) => (untrained(&view.dialogue, &refused), Vec::new()),
        };
        let record = |message: usize| view.sources[message].expect("a summary is never trained");
        rendered.turns.iter_mut().for_each(|turn| turn.message = record(turn.message));
        for example in &mut examples {
            example.trained_messages.iter_mut().for_each(|message| *message = record(*message));
        }
        Ok((Shot { rendered, examples, sources: view.sources, summary }, found))
    }

    /// How many tokens of a written summary are left to a window whose rows are too long with it: who wrote it cannot
    /// know how it joins what stands around it. `None` where the rows fit, or nothing was written.
    pub(super) fn less_written(
        &self,
        rows: &mut Rows<'_, '_>,
        window: &Window,
        shots: &[Shot],
        written: u64,
    ) -> Option<u64> {
        let examples = shots.iter().flat_map(|shot| &shot.examples);
        let longest = examples.map(|example| example.length() as u64).max().unwrap_or_default();
        let over = longest.saturating_sub(rows.limits.budget);
        let has_summary = shots.iter().any(|shot| shot.summary.is_some());
        (over > 0 && has_summary && rows.is_written(window.cut))
            .then(|| written.min(self.windows.summary.budget).saturating_sub(over))
    }

    /// Cuts rows at the budget, as trainers do.
    fn truncate(&self, lowered: &mut Lowered, budget: usize) -> Result<()> {
        for Shot { rendered, examples, .. } in &mut lowered.windows {
            for example in examples.iter_mut().filter(|example| example.length() > budget) {
                for message in example.truncate(budget, self.is_exact()) {
                    let found = Diagnostic::new(Code::TurnTruncated, "the row is cut before the turn ends");
                    let turns = rendered.turns.iter_mut().filter(|turn| turn.message == message);
                    turns.for_each(|turn| turn.target = Err(found.clone()));
                }
                self.tokenizer.hash(example)?;
            }
            examples.retain(|example| example.labels.iter().any(|&label| label != UNTRAINED));
        }
        lowered.counts = WindowCounts { dialogues: 1, windows: 1, ..WindowCounts::default() };
        Ok(())
    }
}

impl Lowered {
    /// Of a dialogue that is shown whole.
    fn of(rendered: Rendered, examples: Vec<Example>, messages: usize, tokens: u64) -> Self {
        let sources = (0..messages).map(Some).collect();
        let whole = Shot { rendered, examples, sources, summary: None };
        Self {
            windows: vec![whole],
            left_out: Vec::new(),
            tokens,
            counts: WindowCounts::default(),
            requests: Vec::new(),
            seen: HashSet::new(),
        }
    }

    /// Of a dialogue that is to be cut into windows.
    fn to_cut(tokens: u64) -> Self {
        Self {
            windows: Vec::new(),
            left_out: Vec::new(),
            tokens,
            counts: WindowCounts { dialogues: 1, ..WindowCounts::default() },
            requests: Vec::new(),
            seen: HashSet::new(),
        }
    }

    /// Every verdict, in the order of the record.
    pub(super) fn turns(&self) -> impl Iterator<Item = &Turn> {
        let mut turns: Vec<&Turn> =
            self.windows.iter().flat_map(|window| &window.rendered.turns).chain(&self.left_out).collect();
        turns.sort_by_key(|turn| turn.message);
        turns.into_iter()
    }

    /// Every row, with the number of its window.
    pub(super) fn rows(self) -> impl Iterator<Item = (usize, Example)> {
        let examples =
            |(number, window): (usize, Shot)| window.examples.into_iter().map(move |example| (number, example));
        self.windows.into_iter().enumerate().flat_map(examples)
    }

    /// Takes a window; what was found of a message that several windows show is said once.
    fn take(&mut self, window: Shot, found: Vec<Diagnostic>, diagnostics: &mut Vec<Diagnostic>) {
        for found in found {
            let key = found.range.clone().map(|range| (found.code, range, found.message.clone()));
            if key.is_none_or(|key| self.seen.insert(key)) {
                diagnostics.push(found);
            }
        }
        self.windows.push(window);
    }
}

/// Requests as they go to whoever writes summaries: key and text of each.
pub fn asked(requests: &[Request]) -> Vec<(&str, &str)> {
    requests.iter().map(|request| (request.key.as_str(), request.text.as_str())).collect()
}

/// Bytes that a message says.
fn said(message: &Message<'_>) -> u64 {
    let texts = [&message.content, &message.reasoning].into_iter().flatten().map(|text| text.len());
    let calls = message.tool_calls.iter().map(|call| call.name.len() + call.arguments.range.len());
    (texts.chain(calls).sum::<usize>() + 16) as u64
}

/// Bytes that a dialogue says.
pub(super) fn spoken(dialogue: &Dialogue<'_>) -> u64 {
    dialogue.messages.iter().map(said).sum()
}

pub(super) fn too_long(examples: &[Example], budget: u64) -> Diagnostic {
    let length = examples.iter().map(Example::length).max().unwrap_or_default();
    let message = format!("the dialogue has {length} tokens, `max_length` is {budget}");
    Diagnostic::new(Code::DialogueTooLong, message).help("raise `--max-length`, or leave `--window` at `cover`")
}

/// Of a window that the template refuses: none of its turns is trained.
fn untrained(dialogue: &Dialogue<'_>, refused: &Diagnostic) -> Rendered {
    let messages = dialogue.messages.iter().enumerate().filter(|(_, message)| message.train);
    let turns = messages.map(|(message, _)| Turn { message, target: Err(refused.clone()) }).collect();
    Rendered { turns, ..Rendered::default() }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::compile::CompileOptions;
    use crate::compile::options::MaxLength;
    use crate::dialogue::{Location, Position};
    use crate::draw::Draw;

    impl Draw {
        fn said(&mut self, most: u64) -> String {
            const WORDS: [&str; 6] = ["night", "trains", "to", "Chongqing", "重庆的夜车", "🙂?"];
            let words: Vec<&str> = (0..=self.below(most)).map(|_| WORDS[self.below(6) as usize]).collect();
            words.join(" ")
        }

        /// A long dialogue: thoughts, calls and results in some of its turns, all so many times as long as the shortest.
        fn record(&mut self, times: u64) -> Vec<u8> {
            let (thinks, calls) = (self.below(4) == 0, self.below(3) == 0);
            let mut messages = Vec::new();
            if self.below(2) == 0 {
                messages.push(json!({"role": "system", "content": self.said(8 * times)}));
            }
            for _ in 0..3 + self.below(10) {
                messages.push(json!({"role": "user", "content": self.said(20 * times)}));
                if calls && self.below(2) == 0 {
                    let function = json!({"name": "look_up", "arguments": {"word": self.said(3 * times)}});
                    let call = json!({"id": "call00000", "type": "function", "function": function});
                    let beside = if self.below(2) == 0 { self.said(4 * times) } else { String::new() };
                    messages.push(json!({"role": "assistant", "content": beside, "tool_calls": [call]}));
                    messages
                        .push(json!({"role": "tool", "tool_call_id": "call00000", "content": self.said(9 * times)}));
                }
                let mut answer = json!({"role": "assistant", "content": self.said(20 * times)});
                if thinks && self.below(2) == 0 {
                    answer["reasoning_content"] = self.said(12 * times).into();
                }
                messages.push(answer);
            }
            json!({"messages": messages}).to_string().into_bytes()
        }
    }

    /// The built-in template, and the real ones that are at hand.
    fn templates() -> Vec<Option<PathBuf>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/templates");
        let files = ["trl", "llama.cpp"].into_iter().filter_map(|name| std::fs::read_dir(folder.join(name)).ok());
        let paths = files.flatten().map(|entry| entry.expect("a file").path());
        let real = paths.filter(|path| path.extension().is_some_and(|extension| extension == "jinja"));
        std::iter::once(None).chain(real.map(Some)).collect()
    }

    /// A dialogue in windows; lengths told or each measured. `None` where the template refuses it.
    fn covered(compiler: &Compiler, dialogue: &Dialogue<'_>, tells: bool) -> Option<Lowered> {
        let (memory, mut found) = (Memory::default(), Vec::new());
        let template = compiler.templates.of(dialogue);
        let whole = template.whole(dialogue);
        let (tokens, expected) =
            compiler.whole_length(template, whole.as_ref(), dialogue, &memory).expect("it is encoded")?;
        let known = expected.map(|expected| (tokens, expected));
        let budget = compiler.max_length.expect("a budget");
        let mut rows = Rows::new(compiler, dialogue, whole.as_ref(), known, &memory, budget);
        if tells {
            rows.tell();
        }
        let mut lowered = Lowered::to_cut(tokens);
        compiler.cover(&mut rows, &mut lowered, &mut found).expect("it is cut");
        Some(lowered)
    }

    /// Which turns windows train, and what becomes of the others.
    fn cut(compiler: &Compiler, dialogue: &Dialogue<'_>, tells: bool) -> Option<Vec<String>> {
        let lowered = covered(compiler, dialogue, tells)?;
        let trained = |shot: &Shot| {
            let trained: Vec<&Vec<usize>> = shot.examples.iter().map(|example| &example.trained_messages).collect();
            format!("{:?} of {:?}", trained, shot.sources)
        };
        let left_out = lowered.left_out.iter().map(|turn| format!("{} {:?}", turn.message, turn.target));
        Some(lowered.windows.iter().map(trained).chain(left_out).collect())
    }

    /// Runs something on a record that was drawn, if it is valid.
    fn with_dialogue(compiler: &Compiler, bytes: &[u8], run: impl FnOnce(&Dialogue<'_>)) {
        let record = Record { location: Location::new("a.jsonl", Position::Line(1)), bytes };
        let checked = validate(&record, &compiler.importers, &compiler.severities).dialogues.into_iter().next();
        if let Some(dialogue) = checked.and_then(|checked| checked.dialogue) {
            run(&dialogue);
        }
    }

    #[test]
    fn windows_have_the_context_that_is_wanted_though_sums_are_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("chat_template.jinja");
        // Some questions are much longer than what they say.
        let source = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
                      {{ 'pad ' * 30 if m.role == 'user' and 'night' in m.content }}\
                      {{ m.content }}<|im_end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
        std::fs::write(&path, source).expect("written");
        let (mut draw, mut wanted) = (Draw(3), 0);
        for _ in 0..400 {
            let options = CompileOptions {
                chat_template: Some(path.to_string_lossy().into_owned()),
                max_length: MaxLength::Tokens(300 + draw.below(300)),
                min_context: [0.3, 0.5][draw.below(2) as usize],
                ..CompileOptions::default()
            };
            let compiler = Compiler::load(&options).expect("a compiler");
            let context = (options.min_context * compiler.max_length.expect("a budget") as f64).ceil() as usize;
            with_dialogue(&compiler, &draw.record(1), |dialogue| {
                let Some(lowered) = covered(&compiler, dialogue, true) else { return };
                let has_less = |shot: &&Shot| {
                    let (shown, first) = (shot.sources.iter().flatten().count(), shot.examples.first());
                    let is_whole =
                        shot.sources.first() == Some(&Some(0)) && shot.sources.last() == Some(&Some(shown - 1));
                    !is_whole && first.and_then(Example::first_trained).is_some_and(|tokens| tokens < context)
                };
                let less = lowered.windows.iter().filter(has_less).count();
                assert!(
                    less as u64 <= lowered.counts.short,
                    "{less} windows have less than {context} tokens of context"
                );
                wanted += lowered.windows.len().saturating_sub(less + 1);
            });
        }
        assert!(wanted > 300, "{wanted}");
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "says how much was compared")]
    fn windows_of_told_lengths_are_those_of_measured_ones() {
        let mut draw = Draw(5);
        let (mut several, mut templates_cut, mut differ) = (0, 0, String::new());
        for chat_template in templates() {
            let before = several;
            let path = chat_template.as_ref().map(|path| path.to_string_lossy().into_owned());
            for _ in 0..8 {
                let times = [1, 8][draw.below(2) as usize];
                let options = CompileOptions {
                    chat_template: path.clone(),
                    max_length: MaxLength::Tokens(times * (100 + draw.below(200))),
                    min_context: [0.0, 0.3, 0.5, 1.0][draw.below(4) as usize],
                    ..CompileOptions::default()
                };
                let Ok(compiler) = Compiler::load(&options) else { continue };
                with_dialogue(&compiler, &draw.record(times), |dialogue| {
                    let (told, measured) = (cut(&compiler, dialogue, true), cut(&compiler, dialogue, false));
                    if told != measured {
                        writeln!(differ, "{path:?}: {told:?}\n{measured:?}").expect("written");
                    }
                    several += usize::from(told.is_some_and(|told| told.len() > 1));
                });
            }
            templates_cut += usize::from(several > before);
        }
        println!("{several} dialogues were cut, under {templates_cut} templates");
        assert!(differ.is_empty(), "{differ}");
        assert!(several >= 3);
    }
}
