//! How long the windows of a dialogue would be: what they are planned by.
//!
//! In: a [`Dialogue`] with its [`Layout`]. Out: [`Lengths`]. A length is that of a rendering, in tokens, each measured once.
//! Which side of a limit one is on is mostly told without a rendering, from one that was measured and from what the whole
//! dialogue has for the messages in which they differ ([`Gauge`]): where it is far from the limit, beside what such sums
//! were wrong by. The window that is planned so is then encoded, so its own length is known; if it is not what was told,
//! the plan is made again, with more doubt.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use foldhash::fast::RandomState;

use super::compiler::Compiler;
use super::windows::{Lowered, Shot};
use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::{Dialogue, Message, Role};
use crate::error::{Error, Result};
use crate::template::{Part, Template, Turn, Whole};
use crate::tokenize::{Example, Memory};
use crate::window::{Layout, Lengths, Limits, Summaries, View, Window, plan};

/// How far from a limit a length must be to be told, in tokens: ends of messages may be tokens with what is beside them.
const DOUBT: u64 = 8;
/// The same once the first window was exactly as long as was told, as where all messages stand between added tokens.
const DOUBT_LEFT: u64 = 2;
/// How far it must be where there are calls: what templates write around these and their results depends on where they stand.
const DOUBT_OF_CALLS: u64 = 64;

/// Tells lengths from one that was measured.
struct Gauge {
    /// Tokens of a rendering, and those that its messages are expected to have by themselves.
    measured: Option<(u64, u64)>,
    /// The same of the last one, where that may hold more than messages: a summary. Guesses are made by it.
    last: Option<(u64, u64)>,
    /// How far from a limit a length must be to be told: twice as far as one was from what was told of it.
    doubt: u64,
    /// Whether a window was measured, and not only the whole dialogue: before that nothing is told.
    is_tried: bool,
}

impl Gauge {
    fn of(measured: Option<(u64, u64)>, doubt: u64) -> Self {
        Self { measured, last: measured, doubt, is_tried: false }
    }

    /// The length of a rendering of whose messages so many tokens are expected.
    fn tell(&self, expected: u64) -> Option<u64> {
        self.measured.map(|(tokens, of)| (tokens + expected).saturating_sub(of))
    }

    /// The same, if it is certain on which side of a limit it is.
    fn tell_beside(&self, limit: u64, expected: u64) -> Option<u64> {
        self.tell(expected).filter(|told| self.is_tried && told.abs_diff(limit) > self.doubt)
    }

    /// The sum of expected tokens at which a rendering has so many.
    fn expected_at(&self, tokens: u64) -> u64 {
        self.last.map_or(tokens, |(known, of)| tokens.saturating_add(of).saturating_sub(known))
    }

    /// Takes what was measured, [`u64::MAX`] where the template refuses it; whether it is about what would have been told.
    fn take(&mut self, tokens: u64, expected: u64, is_unsummed: bool) -> bool {
        if tokens == u64::MAX {
            return true;
        }
        self.last = Some((tokens, expected));
        if !is_unsummed {
            return true;
        }
        let error = self.tell(expected).map_or(0, |told| told.abs_diff(tokens));
        let is_expected = error <= self.doubt;
        if !self.is_tried && self.doubt == DOUBT && self.tell(expected) == Some(tokens) {
            self.doubt = DOUBT_LEFT;
        }
        self.doubt = self.doubt.max(error.saturating_mul(2));
        self.is_tried = true;
        self.measured = self.last;
        is_expected
    }
}

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
    /// Whether lengths may be told: see [`Rows::tell`].
    may_tell: bool,
    rows: HashMap<(usize, usize), u64, RandomState>,
    prompts: HashMap<(usize, usize), u64, RandomState>,
    /// How much longer the row of a turn is than the rendering that ends with it.
    longer: BTreeMap<usize, u64>,
    /// Tokens that the messages before each one are expected to have, by themselves.
    expected: Vec<u64>,
    /// What tells rows and prompts.
    of_rows: Gauge,
    of_prompts: Gauge,
    pub(super) refused: Option<Diagnostic>,
    error: Option<Error>,
}

impl<'r, 'a> Rows<'r, 'a> {
    pub(super) fn new(
        compiler: &'r Compiler,
        dialogue: &'r Dialogue<'a>,
        whole: Option<&'r Whole<'r>>,
        known: Option<(u64, Vec<u64>)>,
        memory: &'r Memory,
        budget: u64,
    ) -> Self {
        let layout = Layout::of(dialogue);
        let options = &compiler.windows;
        let context = (options.min_context * budget as f64).ceil() as u64;
        let whole_has = known.as_ref().map(|(tokens, expected)| (*tokens, expected.iter().sum()));
        let counted = || dialogue.messages.iter().map(|message| compiler.tokenizer.expected_of(message)).collect();
        let of_each: Vec<u64> = known.map_or_else(counted, |(_, expected)| expected);
        let has_calls =
            dialogue.messages.iter().any(|message| !message.tool_calls.is_empty() || message.role == Role::Tool);
        let doubt = if has_calls { DOUBT_OF_CALLS } else { DOUBT };
        let mut expected = vec![0];
        expected.extend(of_each.iter().scan(0, |before, tokens| {
            *before += tokens;
            Some(*before)
        }));
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
            may_tell: false,
            rows: HashMap::default(),
            prompts: HashMap::default(),
            longer: BTreeMap::new(),
            expected,
            of_rows: Gauge::of(whole_has, doubt),
            of_prompts: Gauge::of(whole_has, doubt),
            refused: None,
            error: None,
        }
    }

    /// Lets lengths be told, where they are only compared with the limits, and where all that messages say is shown, whatever
    /// follows: most templates show only the newest thoughts, and some, of what is said beside calls, nothing or more.
    pub(super) fn tell(&mut self) {
        let shows_beside_calls = self.template.abilities().shows_content_beside_calls;
        let is_shown = |message: &Message<'_>| {
            let is_silent = message.content.as_ref().is_none_or(|text| text.trim().is_empty());
            message.reasoning.is_none() && (message.tool_calls.is_empty() || is_silent || shows_beside_calls)
        };
        self.may_tell = self.dialogue.messages.iter().all(is_shown);
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
    fn measure(&mut self, text: std::result::Result<(String, Vec<usize>), Diagnostic>) -> u64 {
        let counted = text.map(|(text, suppressed)| self.compiler.tokenizer.count(&text, &suppressed, self.memory));
        match counted {
            Ok(Ok(tokens)) => tokens as u64,
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
        let text = self.text(cut, self.layout.turns[turn].end, false);
        let tokens = self.measure(text).saturating_add(self.reserve(cut));
        self.enter_row(cut, turn, tokens);
        tokens
    }

    fn measured_prompt(&mut self, cut: usize, turn: usize) -> u64 {
        let start = self.layout.turns[turn].start;
        let text = self.text(cut, start + 1, true);
        let tokens = self.measure(text).saturating_add(self.reserve(cut));
        self.prompts.insert((cut, turn), tokens);
        let is_unsummed = self.is_unsummed(cut);
        self.of_prompts.take(tokens, self.expected(cut, start), is_unsummed);
        tokens
    }

    /// Takes how long a rendering is, which was not known; whether it is about what would have been told.
    fn enter_row(&mut self, cut: usize, turn: usize, tokens: u64) -> bool {
        self.rows.insert((cut, turn), tokens);
        let expected = self.expected(cut, self.layout.turns[turn].end);
        let is_unsummed = self.is_unsummed(cut);
        self.of_rows.take(tokens, expected, is_unsummed)
    }

    /// Tokens that the messages of a window are expected to have, by themselves.
    fn expected(&self, cut: usize, end: usize) -> u64 {
        let question = &self.layout.cuts[cut].question;
        let between = |range: Range<usize>| self.expected[range.end] - self.expected[range.start.min(range.end)];
        between(0..self.layout.head) + between(question.clone()) + between(self.layout.cuts[cut].at..end)
    }

    /// How long a row is, as far as the budget is concerned, where that can be told.
    fn told_row(&mut self, cut: usize, turn: usize) -> Option<u64> {
        if !self.may_tell || self.longer.range(self.first..=turn).next().is_some() {
            return None;
        }
        let expected = self.expected(cut, self.layout.turns[turn].end);
        let told = self.of_rows.tell_beside(self.limits.budget, expected)?;
        self.is_unsummed(cut).then_some(told)
    }

    /// How long a prompt is, as far as the wanted context is concerned, where that can be told.
    fn told_prompt(&mut self, cut: usize, turn: usize) -> Option<u64> {
        let expected = || self.expected(cut, self.layout.turns[turn].start);
        let told = self.of_prompts.tell_beside(self.limits.context, self.may_tell.then(expected)?)?;
        self.is_unsummed(cut).then_some(told)
    }

    /// Whether a window that was encoded is as long as it was told to be, and its first turn has the context that was
    /// told; if not, what is told of others is doubted more.
    pub(super) fn is_as_told(&mut self, window: &Window, shot: &Shot) -> bool {
        self.has_told_length(window, shot) && self.has_told_context(window, shot)
    }

    fn has_told_length(&mut self, window: &Window, shot: &Shot) -> bool {
        let (turn, tokens) = (window.turns.end - 1, shot.rendered.tokens as u64);
        if let Some(&known) = self.rows.get(&(window.cut, turn)) {
            debug_assert!(shot.examples.is_empty() || !self.is_unsummed(window.cut) || known == tokens);
            return true;
        }
        if shot.examples.is_empty() {
            // It may be one that the template refuses.
            self.of_rows.doubt = u64::MAX;
            return false;
        }
        self.enter_row(window.cut, turn, tokens)
    }

    fn has_told_context(&mut self, window: &Window, shot: &Shot) -> bool {
        let (cut, turn) = (window.cut, window.turns.start);
        let is_certain = cut == 0 || !self.may_tell || self.of_prompts.doubt == u64::MAX || !self.is_unsummed(cut);
        if is_certain || self.is_short(window, shot).is_none_or(|is_short| is_short == window.is_short) {
            return true;
        }
        if self.prompts.contains_key(&(cut, turn)) {
            self.of_prompts.doubt = u64::MAX; // others were told wrong
        } else {
            self.measured_prompt(cut, turn);
        }
        false
    }

    /// Whether a window that was encoded has less context than is wanted, if that can be seen: the prompt of its first turn
    /// is the least.
    fn is_short(&self, window: &Window, shot: &Shot) -> Option<bool> {
        let start = self.layout.turns[window.turns.start].start;
        let first = shot.examples.iter().find(|example| example.trained_messages.first() == Some(&start))?;
        Some((first.first_trained()? as u64) < self.limits.context)
    }

    /// Whether a turn that was told to be too long by itself is; if not, what is told of others is doubted more.
    pub(super) fn is_too_long(&mut self, turn: usize) -> bool {
        let cut = self.layout.last_cut(turn);
        self.rows.contains_key(&(cut, turn)) || self.rendering(cut, turn) > self.limits.budget
    }

    /// The cut after which the messages before one are expected to have so many tokens.
    fn guess(&self, turn: usize, end: usize, wanted: u64) -> usize {
        plan::partition(0..self.layout.cuts.len(), turn, |cut| self.expected(cut, end) > wanted)
    }

    /// Whether nothing is said of what a cut leaves out: what is said may be longer the less is shown.
    fn is_unsummed(&mut self, cut: usize) -> bool {
        let at = self.layout.cuts[cut].at;
        self.reserve(cut) == 0 && self.counting(|summaries, count| summaries.before(at, count)).is_none()
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
            // Where its measure alone is too long it is enough that the plan looks at it.
            let is_news = known.saturating_add(*longer) > budget;
            *longer = length.saturating_sub(known).max(*longer + u64::from(!is_news));
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
        // What the plan says of it may rest on sums that were wrong; then more fits.
        counts.short += u64::from(window.is_short && window.cut > 0 && self.is_short(window, shot) != Some(false));
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
        if !self.rows.contains_key(&(cut, turn))
            && let Some(told) = self.told_row(cut, turn)
        {
            return told;
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
        self.told_prompt(cut, turn).unwrap_or_else(|| self.measured_prompt(cut, turn))
    }

    fn last_cut(&self, turn: usize) -> usize {
        self.layout.last_cut(turn)
    }

    fn guess_cut(&self, turn: usize, tokens: u64) -> usize {
        self.guess(turn, self.layout.turns[turn].end, self.of_rows.expected_at(tokens))
    }

    fn guess_cut_of_prompt(&self, turn: usize, tokens: u64) -> usize {
        self.guess(turn, self.layout.turns[turn].start, self.of_prompts.expected_at(tokens))
    }

    fn guess_turn(&self, cut: usize, tokens: u64) -> usize {
        let wanted = self.of_rows.expected_at(tokens);
        self.layout.turns.partition_point(|turn| self.expected(cut, turn.end) <= wanted)
    }
}
