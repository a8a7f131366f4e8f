//! How long the windows of a dialogue would be: what they are planned by.
//!
//! In: a [`Dialogue`] with its [`Layout`]. Out: [`Lengths`]. A length is that of a rendering, in tokens, each measured once;
//! whether one is above a limit is often told from others that were measured, without a rendering.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::compiler::Compiler;
use super::windows::{Lowered, Shot};
use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::{Dialogue, Message, Role};
use crate::error::{Error, Result};
use crate::template::{Part, Template, Turn, Whole};
use crate::tokenize::{Example, Expected, Memory};
use crate::window::{Layout, Lengths, Limits, Summaries, View, Window, plan};

/// So many measures are at hand for telling others.
const MEASURED: usize = 8;

/// What the windows of a dialogue would measure, each measured once.
pub(super) struct Rows<'r, 'a> {
    compiler: &'r Compiler,
    pub(super) template: &'r Template,
    pub(super) dialogue: &'r Dialogue<'a>,
    /// The same, prepared to be shown in parts.
    whole: Option<&'r Whole<'r>>,
    pub(super) memory: &'r Memory,
    pub(super) layout: Layout,
    pub(super) limits: Limits,
    pub(super) summaries: Summaries<'r, 'a>,
    /// The first turn that the next window trains.
    pub(super) first: usize,
    /// Whether rows are only asked for being above the budget, and prompts for being below the wanted context.
    pub(super) only_compares: bool,
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
    pub(super) fn new(
        compiler: &'r Compiler,
        dialogue: &'r Dialogue<'a>,
        whole: Option<&'r Whole<'r>>,
        known: Option<Vec<Expected>>,
        memory: &'r Memory,
        budget: u64,
    ) -> Self {
        let layout = Layout::of(dialogue);
        let options = &compiler.windows;
        let context = (options.min_context * budget as f64).ceil() as u64;
        let (mut expected, mut least) = (vec![0], vec![0]);
        let counted = || dialogue.messages.iter().map(|message| compiler.tokenizer.expected_of(message)).collect();
        for found in known.unwrap_or_else(counted) {
            expected.push(expected[expected.len() - 1] + found.about);
            least.push(least[least.len() - 1] + found.least);
        }
        Self {
            compiler,
            template: compiler.templates.of(dialogue),
            dialogue,
            whole,
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

    /// The messages that are shown, where nothing is said of what is left out and they can be rendered as a part.
    pub(super) fn part(&mut self, cut: usize, end: usize) -> Option<Part<'r, 'r>> {
        let whole = self.whole?;
        let at = self.layout.cuts[cut].at;
        let is_unsummed = self.counting(|summaries, count| summaries.before(at, count)).is_none();
        is_unsummed.then(|| whole.part(self.template, self.layout.shown(cut, end)))?
    }

    /// The text of what is shown, or the prompt of its last message.
    fn text(
        &mut self,
        cut: usize,
        end: usize,
        is_prompt: bool,
    ) -> std::result::Result<(String, Vec<usize>), Diagnostic> {
        if let Some(part) = self.part(cut, end) {
            let shown = || self.layout.view(self.dialogue, cut, end, &(0..0)).dialogue;
            return self.template.text_of_part(&part, is_prompt, shown);
        }
        let (view, _) = self.view(cut, end, 0..0);
        if is_prompt { self.template.prompt(&view.dialogue) } else { self.template.text(&view.dialogue) }
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
    fn measure(&mut self, text: std::result::Result<(String, Vec<usize>), Diagnostic>, expected: u64) -> u64 {
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
        let expected = self.expected(cut, end);
        let text = self.text(cut, end, false);
        let tokens = self.measure(text, expected).saturating_add(self.reserve(cut));
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

    /// How long a prompt is at least, where that is the wanted context: its messages alone have so many tokens.
    fn surely_enough(&self, cut: usize, turn: usize) -> Option<u64> {
        let least = || self.sum(&self.least, cut, self.layout.turns[turn].start);
        Some(self.only_compares.then(least)?).filter(|least| *least >= self.limits.context)
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
        for example in examples.iter().filter(|example| example.length() as u64 > budget) {
            let message = *example.trained_messages.last().expect("a row trains something");
            let turn = self.layout.turns.partition_point(|turn| turn.end <= message);
            let length = example.length() as u64;
            let known = self.rendering(window.cut, turn);
            let longer = self.longer.entry(turn).or_default();
            *longer = length.saturating_sub(known).max(*longer + 1);
            fit = false;
        }
        fit
    }

    /// Enters a turn that no window can train.
    pub(super) fn leave_out(&mut self, turn: usize, lowered: &mut Lowered) -> Result<()> {
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

    pub(super) fn enter(&self, turn: usize, found: &Diagnostic, lowered: &mut Lowered) {
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
        if let Some(tokens) = self.surely_enough(cut, turn).or_else(|| self.surely_too_short(cut, turn)) {
            return tokens;
        }
        let end = self.layout.turns[turn].start + 1;
        let expected = self.expected(cut, end - 1);
        let text = self.text(cut, end, true);
        let tokens = self.measure(text, expected).saturating_add(self.reserve(cut));
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
