//! A dialogue that is longer than its budget: measured, cut into windows, each taken through the passes.
//!
//! In: a [`Dialogue`]. Out: [`Lowered`]. A window is planned by what its rows would measure, then rendered, proved and
//! encoded like any dialogue; a row that turns out longer than it measured corrects the plan. What was encoded once is
//! remembered, so the windows of a dialogue cost little more than the dialogue.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

use serde_json::{Value, json};

use super::compiler::Compiler;
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::dialogue::{Dialogue, Message, Role};
use crate::error::{Error, Result};
use crate::json::{self, Node};
use crate::shard::WindowCounts;
use crate::source::Record;
use crate::template::{Rendered, Template, Turn};
use crate::tokenize::{Example, Memory, Tokenizer, UNTRAINED};
use crate::validate::validate;
use crate::window::{Layout, Lengths, Limits, Request, Summaries, SummaryOptions, View, Window, WindowMode, plan};

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
    left_out: Vec<Turn>,
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

/// So many measures are at hand for telling others.
const MEASURED: usize = 8;

/// Bytes from which a dialogue is encoded in pieces, between the tokens that mark its messages.
const LARGE: u64 = 1 << 16;

type Found<T> = std::result::Result<T, Diagnostic>;

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
        let is_long = spoken(dialogue) / 2 > budget;
        let planned = matches!(self.windows.mode, WindowMode::Cover | WindowMode::Last) && is_long;
        let whole = if planned { whole_length(template, &self.tokenizer, dialogue, &memory)? } else { None };
        let lowered = match whole.filter(|&tokens| tokens > budget) {
            Some(tokens) => self.in_windows(dialogue, budget, tokens, &memory, diagnostics)?,
            None => {
                let mut found = Vec::new();
                // In pieces, the reference has less to keep in mind at once.
                let remembered = (planned || spoken(dialogue) > LARGE).then_some(&memory);
                let (rendered, examples) = match self.lower_one(dialogue, remembered, &mut found)? {
                    Ok(done) => done,
                    Err(refused) => {
                        diagnostics.append(&mut found);
                        let code = refused.code;
                        diagnostics.push(refused);
                        return Ok(Err(Unlowered::Rejected(code)));
                    }
                };
                let tokens = rendered.tokens as u64;
                let fits = examples.iter().all(|example| example.input_ids.len() as u64 <= budget);
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
                        _ => self.in_windows(dialogue, budget, tokens, &memory, diagnostics)?,
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
        let mut rows = Rows::new(self, &dialogue, &memory, budget);
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

    /// Renders and tokenises what is shown, however long it is.
    fn lower_one(
        &self,
        dialogue: &Dialogue<'_>,
        memory: Option<&Memory>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<Found<(Rendered, Vec<Example>)>> {
        let mut rendered = match self.templates.of(dialogue).render(dialogue, self.mode()) {
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

    fn in_windows(
        &self,
        dialogue: &Dialogue<'_>,
        budget: u64,
        tokens: u64,
        memory: &Memory,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<Lowered> {
        let mut rows = Rows::new(self, dialogue, memory, budget);
        let mut lowered = Lowered {
            windows: Vec::new(),
            left_out: Vec::new(),
            tokens,
            counts: WindowCounts { dialogues: 1, ..WindowCounts::default() },
            requests: Vec::new(),
            seen: HashSet::new(),
        };
        match (rows.head_too_long()?, self.windows.mode) {
            (Some(found), _) => {
                (0..rows.layout.turns.len()).for_each(|turn| rows.enter(turn, &found, &mut lowered));
            }
            (None, WindowMode::Last) => self.last(&mut rows, &mut lowered, diagnostics)?,
            (None, _) => self.cover(&mut rows, &mut lowered, diagnostics)?,
        }
        lowered.requests = rows.summaries.requests;
        Ok(lowered)
    }

    /// The fewest windows that train every turn.
    fn cover(&self, rows: &mut Rows<'_, '_>, lowered: &mut Lowered, diagnostics: &mut Vec<Diagnostic>) -> Result<()> {
        let turns = rows.layout.turns.len();
        let limits = rows.limits;
        rows.only_compares = true;
        let mut first = 0;
        while first < turns {
            rows.first = first;
            let planned = plan::next(first, turns, rows, limits);
            rows.failed()?;
            let Some(window) = planned else {
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
        let is_long = |example: &Example| example.input_ids.len() > budget;
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
            let Some((cut, turn)) = planned else { break None };
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
        let (mut rendered, mut examples) = match self.lower_one(&view.dialogue, Some(rows.memory), &mut found)? {
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
        let longest = examples.map(|example| example.input_ids.len() as u64).max().unwrap_or_default();
        let over = longest.saturating_sub(rows.limits.budget);
        let has_summary = shots.iter().any(|shot| shot.summary.is_some());
        (over > 0 && has_summary && rows.is_written(window.cut))
            .then(|| written.min(self.windows.summary.budget).saturating_sub(over))
    }

    /// Cuts rows at the budget, as trainers do.
    fn truncate(&self, lowered: &mut Lowered, budget: usize) -> Result<()> {
        for Shot { rendered, examples, .. } in &mut lowered.windows {
            for example in examples.iter_mut().filter(|example| example.input_ids.len() > budget) {
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

/// What the windows of a dialogue would measure, each measured once.
pub(super) struct Rows<'r, 'a> {
    compiler: &'r Compiler,
    pub(super) template: &'r Template,
    pub(super) dialogue: &'r Dialogue<'a>,
    pub(super) memory: &'r Memory,
    pub(super) layout: Layout,
    pub(super) limits: Limits,
    pub(super) summaries: Summaries<'r, 'a>,
    /// The first turn that the next window trains.
    first: usize,
    /// Whether rows are only asked for being above the budget, and prompts for being below the wanted context.
    only_compares: bool,
    rows: HashMap<(usize, usize), u64>,
    prompts: HashMap<(usize, usize), u64>,
    /// How much longer the row of a turn is than the rendering that ends with it.
    longer: BTreeMap<usize, u64>,
    /// Tokens that the messages before each one are expected to have, by themselves, and those they have at least.
    expected: Vec<u64>,
    least: Vec<u64>,
    /// Renderings that were measured last: cut, turn and tokens; prompts by themselves.
    measured: Vec<(usize, usize, u64)>,
    prompted: Vec<(usize, usize, u64)>,
    /// Tokens of the last rendering that was measured, and those that were expected of its messages: for guesses.
    seen: (u64, u64),
    pub(super) refused: Option<Diagnostic>,
    error: Option<Error>,
}

impl<'r, 'a> Rows<'r, 'a> {
    pub(super) fn new(compiler: &'r Compiler, dialogue: &'r Dialogue<'a>, memory: &'r Memory, budget: u64) -> Self {
        let layout = Layout::of(dialogue);
        let options = &compiler.windows;
        let context = (options.min_context * budget as f64).ceil() as u64;
        let (mut expected, mut least) = (vec![0], vec![0]);
        for message in &dialogue.messages {
            let found = compiler.tokenizer.expected_of(message);
            expected.push(expected[expected.len() - 1] + found.about);
            least.push(least[least.len() - 1] + found.least);
        }
        Self {
            compiler,
            template: compiler.templates.of(dialogue),
            dialogue,
            memory,
            summaries: Summaries::new(dialogue, &layout, &options.summary),
            layout,
            limits: Limits { budget, context },
            first: 0,
            only_compares: false,
            rows: HashMap::new(),
            prompts: HashMap::new(),
            longer: BTreeMap::new(),
            expected,
            least,
            measured: Vec::new(),
            prompted: Vec::new(),
            seen: (1, 1),
            refused: None,
            error: None,
        }
    }

    /// The first failure of the tokenizer.
    pub(super) fn failed(&mut self) -> Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// What is shown as it is measured: what somebody else writes of what is left out is not in it.
    fn view(&mut self, cut: usize, end: usize, turns: Range<usize>) -> (View<'r>, Option<String>) {
        let mut view = self.layout.view(self.dialogue, cut, end, &turns);
        let at = self.layout.cuts[cut].at;
        let summary = self.counting(|summaries, count| summaries.before(at, count));
        if let Some(summary) = &summary {
            view.put(summary, self.layout.head, self.compiler.windows.summary.place);
        }
        (view, summary)
    }

    /// What is shown, with what somebody else wrote, in so many tokens, of what is left out.
    pub(super) fn shown(
        &mut self,
        cut: usize,
        end: usize,
        turns: Range<usize>,
        written: u64,
    ) -> Result<(View<'r>, Option<String>)> {
        let (mut view, summary) = self.view(cut, end, turns);
        let at = self.layout.cuts[cut].at;
        let written = self.counting(|summaries, count| summaries.written(at, written, count))?;
        self.failed()?;
        if let Some(written) = &written {
            view.put(written, self.layout.head, self.compiler.windows.summary.place);
        }
        Ok((view, summary.or(written)))
    }

    /// Whether somebody else writes what is said of what this cut leaves out.
    pub(super) fn is_written(&mut self, cut: usize) -> bool {
        self.reserve(cut) > 0
    }

    fn reserve(&mut self, cut: usize) -> u64 {
        let at = self.layout.cuts[cut].at;
        self.counting(|summaries, count| summaries.reserve(at, count))
    }

    /// Runs what counts tokens of summaries; a failure is kept for [`Rows::failed`].
    fn counting<T>(&mut self, run: impl FnOnce(&mut Summaries<'r, 'a>, &mut dyn FnMut(&str) -> u64) -> T) -> T {
        let (tokenizer, memory, error) = (&self.compiler.tokenizer, self.memory, &mut self.error);
        let mut count = |text: &str| match tokenizer.count(text, &[], memory) {
            Ok(tokens) => tokens as u64,
            Err(failed) => {
                error.get_or_insert(failed);
                0
            }
        };
        run(&mut self.summaries, &mut count)
    }

    /// Tokens of a rendering; [`u64::MAX`] where the template refuses it.
    fn measure(&mut self, text: Found<(String, Vec<usize>)>, expected: u64) -> u64 {
        let counted = text.map(|(text, suppressed)| self.compiler.tokenizer.count(&text, &suppressed, self.memory));
        match counted {
            Ok(Ok(tokens)) => {
                self.seen = ((tokens as u64).max(1), expected.max(1));
                tokens as u64
            }
            Ok(Err(failed)) => {
                self.error.get_or_insert(failed);
                0
            }
            Err(refused) => {
                self.refused = Some(refused);
                u64::MAX
            }
        }
    }

    pub(super) fn rendering(&mut self, cut: usize, turn: usize) -> u64 {
        if let Some(&known) = self.rows.get(&(cut, turn)) {
            return known;
        }
        let end = self.layout.turns[turn].end;
        let (view, _) = self.view(cut, end, 0..0);
        let expected = self.expected(cut, end);
        let tokens = self.measure(self.template.text(&view.dialogue), expected).saturating_add(self.reserve(cut));
        self.rows.insert((cut, turn), tokens);
        note(&mut self.measured, (cut, turn, tokens));
        tokens
    }

    /// Tokens that the messages of a window are expected to have, by themselves.
    fn expected(&self, cut: usize, end: usize) -> u64 {
        self.sum(&self.expected, cut, end)
    }

    /// The sum over the messages of a window of what is known of those before each one.
    fn sum(&self, before: &[u64], cut: usize, end: usize) -> u64 {
        let question = &self.layout.cuts[cut].question;
        let between = |range: Range<usize>| before[range.end] - before[range.start.min(range.end)];
        between(0..self.layout.head) + between(question.clone()) + between(self.layout.cuts[cut].at..end)
    }

    /// How long a row is at least, where that is above the budget: it says what a shorter one says that was measured, and
    /// more. Only a rendering tells how long one is that fits.
    fn surely_too_long(&mut self, cut: usize, turn: usize) -> Option<u64> {
        if !self.only_compares
            || self.rows.contains_key(&(cut, turn))
            || self.longer.range(self.first..=turn).next().is_some()
        {
            return None;
        }
        let least = |cut: usize, turn: usize| self.sum(&self.least, cut, self.layout.turns[turn].end);
        let asked = least(cut, turn);
        let inside = self.measured.iter().rev().filter(|(other, until, _)| *other >= cut && *until <= turn);
        let mut longer =
            inside.map(|&(other, until, tokens)| (other, tokens + asked.saturating_sub(least(other, until))));
        let (other, tokens) = longer.find(|(_, tokens)| *tokens > self.limits.budget)?;
        (self.is_unsummed(cut) && self.is_unsummed(other)).then_some(tokens)
    }

    /// How long a prompt is at most, where that is below the wanted context.
    fn surely_too_short(&mut self, cut: usize, turn: usize) -> Option<u64> {
        if !self.only_compares || self.prompts.contains_key(&(cut, turn)) {
            return None;
        }
        let start = self.layout.turns[turn].start;
        let least = |cut: usize| self.sum(&self.least, cut, start);
        let around = self.prompted.iter().rev().filter(|(other, of, _)| *other <= cut && *of == turn);
        let mut shorter =
            around.map(|&(other, _, tokens)| (other, tokens.saturating_sub(least(other).saturating_sub(least(cut)))));
        let (other, tokens) = shorter.find(|(_, tokens)| *tokens < self.limits.context)?;
        (self.is_unsummed(cut) && self.is_unsummed(other)).then_some(tokens)
    }

    /// Whether nothing is said of what a cut leaves out: what is said may be longer the less is shown.
    fn is_unsummed(&mut self, cut: usize) -> bool {
        let at = self.layout.cuts[cut].at;
        self.reserve(cut) == 0 && self.counting(|summaries, count| summaries.before(at, count)).is_none()
    }

    /// The sum of such tokens at which a rendering is expected to have so many.
    fn expected_at(&self, tokens: u64) -> u64 {
        let (known, expected) = self.seen;
        (tokens as f64 * expected as f64 / known as f64) as u64
    }

    /// Whether every row fits; learns how long those are that do not.
    pub(super) fn all_fit(&mut self, window: &Window, examples: &[Example]) -> bool {
        let budget = self.limits.budget;
        let mut fit = true;
        for example in examples.iter().filter(|example| example.input_ids.len() as u64 > budget) {
            let message = *example.trained_messages.last().expect("a row trains something");
            let turn = self.layout.turns.partition_point(|turn| turn.end <= message);
            let length = example.input_ids.len() as u64;
            let known = self.rendering(window.cut, turn);
            let longer = self.longer.entry(turn).or_default();
            *longer = length.saturating_sub(known).max(*longer + 1);
            fit = false;
        }
        fit
    }

    /// Enters a turn that no window can train.
    fn leave_out(&mut self, turn: usize, lowered: &mut Lowered) -> Result<()> {
        let cut = self.layout.last_cut(turn);
        let tokens = self.rendering(cut, turn).saturating_add(self.longer.get(&turn).copied().unwrap_or_default());
        self.failed()?;
        let found = match self.refused.take().filter(|_| tokens == u64::MAX) {
            Some(refused) => refused,
            None => {
                let budget = self.limits.budget;
                let message = format!("the turn with what it answers has {tokens} tokens, `max_length` is {budget}");
                Diagnostic::new(Code::TurnTooLong, message).help("raise `--max-length`, or cut the messages")
            }
        };
        self.enter(turn, &found, lowered);
        Ok(())
    }

    fn enter(&self, turn: usize, found: &Diagnostic, lowered: &mut Lowered) {
        for message in self.layout.turns[turn].clone() {
            let target = Err(found.clone().at(&self.dialogue.messages[message].range));
            lowered.left_out.push(Turn { message, target });
        }
    }

    /// What every window shows, where even the shortest exchange does not fit after it.
    pub(super) fn head_too_long(&self) -> Result<Option<Diagnostic>> {
        let head = self.layout.head;
        if head == 0 && self.dialogue.tools.is_none() && self.dialogue.documents.is_none() {
            return Ok(None);
        }
        let mut view = self.layout.view(self.dialogue, 0, head, &(0..0));
        view.dialogue.messages.extend([Message::said(Role::User, "?"), Message::said(Role::Assistant, "!")]);
        let Ok((text, suppressed)) = self.template.prompt(&view.dialogue) else { return Ok(None) };
        let tokens = self.compiler.tokenizer.count(&text, &suppressed, self.memory)? as u64;
        let budget = self.limits.budget;
        if tokens <= budget {
            return Ok(None);
        }
        let message = format!("system messages, tools and documents have {tokens} tokens, `max_length` is {budget}");
        Ok(Some(Diagnostic::new(Code::HeadTooLong, message).help("raise `--max-length`, or shorten them")))
    }

    /// Counts what a window shows and leaves out.
    pub(super) fn count(&self, window: &Window, shot: &Shot, lowered: &mut Lowered) -> Result<()> {
        let counts = &mut lowered.counts;
        counts.windows += 1;
        counts.short += u64::from(window.is_short);
        if let Some(summary) = &shot.summary {
            counts.summaries += 1;
            counts.summary_tokens += self.compiler.tokenizer.count(summary, &[], self.memory)? as u64;
        }
        shot.count_history(counts);
        Ok(())
    }
}

impl Lengths for Rows<'_, '_> {
    fn row(&mut self, cut: usize, turn: usize) -> u64 {
        if let Some(tokens) = self.surely_too_long(cut, turn) {
            return tokens;
        }
        let longer: Vec<(usize, u64)> =
            self.longer.range(self.first..=turn).map(|(&turn, &longer)| (turn, longer)).collect();
        let others = longer.into_iter().map(|(turn, longer)| self.rendering(cut, turn).saturating_add(longer)).max();
        self.rendering(cut, turn).max(others.unwrap_or_default())
    }

    fn prompt(&mut self, cut: usize, turn: usize) -> u64 {
        if let Some(&known) = self.prompts.get(&(cut, turn)) {
            return known;
        }
        if let Some(tokens) = self.surely_too_short(cut, turn) {
            return tokens;
        }
        let end = self.layout.turns[turn].start + 1;
        let (view, _) = self.view(cut, end, 0..0);
        let expected = self.expected(cut, end - 1);
        let tokens = self.measure(self.template.prompt(&view.dialogue), expected).saturating_add(self.reserve(cut));
        self.prompts.insert((cut, turn), tokens);
        note(&mut self.prompted, (cut, turn, tokens));
        tokens
    }

    fn last_cut(&self, turn: usize) -> usize {
        self.layout.last_cut(turn)
    }

    fn guess_cut(&self, turn: usize, tokens: u64) -> usize {
        let end = self.layout.turns[turn].end;
        let wanted = self.expected_at(tokens);
        let cuts = 0..self.layout.cuts.len();
        plan::partition(cuts, turn, |cut| self.expected(cut, end) > wanted)
    }

    fn guess_turn(&self, cut: usize, tokens: u64) -> usize {
        let wanted = self.expected_at(tokens);
        self.layout.turns.partition_point(|turn| self.expected(cut, turn.end) <= wanted)
    }
}

/// Keeps what was measured last.
fn note(measured: &mut Vec<(usize, usize, u64)>, found: (usize, usize, u64)) {
    if found.2 == u64::MAX {
        return; // the template refuses it
    }
    if measured.len() == MEASURED {
        measured.remove(0);
    }
    measured.push(found);
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

/// Tokens of a dialogue as a whole; none where the template refuses it.
fn whole_length(
    template: &Template,
    tokenizer: &Tokenizer,
    dialogue: &Dialogue<'_>,
    memory: &Memory,
) -> Result<Option<u64>> {
    match template.text(dialogue) {
        Ok((text, suppressed)) => Ok(Some(tokenizer.count(&text, &suppressed, memory)? as u64)),
        Err(_) => Ok(None),
    }
}

pub(super) fn too_long(examples: &[Example], budget: u64) -> Diagnostic {
    let length = examples.iter().map(|example| example.input_ids.len()).max().unwrap_or_default();
    let message = format!("the dialogue has {length} tokens, `max_length` is {budget}");
    Diagnostic::new(Code::DialogueTooLong, message).help("raise `--max-length`, or leave `--window` at `cover`")
}

/// Of a window that the template refuses: none of its turns is trained.
fn untrained(dialogue: &Dialogue<'_>, refused: &Diagnostic) -> Rendered {
    let messages = dialogue.messages.iter().enumerate().filter(|(_, message)| message.train);
    let turns = messages.map(|(message, _)| Turn { message, target: Err(refused.clone()) }).collect();
    Rendered { turns, ..Rendered::default() }
}
