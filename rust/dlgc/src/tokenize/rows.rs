//! Rows: where the targets of a rendering come to lie, and which of their tokens are trained.

use std::ops::Range;
use std::sync::Arc;

use super::encode::Encoded;
use super::{Before, Ending, Example, Memory, Tokenizer, UNTRAINED};
use crate::diagnostic::{Code, Diagnostic};
use crate::error::Result as Run;
use crate::template::{Rendered, Target, common_prefix};

/// Longer texts are not kept beside their ids where nobody will look at them.
const LARGE: usize = 1 << 20;

/// A row leaves out how it begins if that is at least so many tokens.
const LEAST_SHARED: usize = 64;

/// Where trained tokens are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// The proved targets, each after the ids of its own prompt.
    Exact,
    /// The proved targets, all in one row, as far as their tokens lie inside them.
    Whole,
    /// What the template's `{% generation %}` blocks mark: tokens wholly inside a block.
    Template,
    /// The bits that transformers' `return_assistant_tokens_mask` gives, its bugs included.
    HfCompat,
}

impl Tokenizer {
    /// Turns a rendering into rows: one for all turns whose prompts nest in it, one for each of the others. Where much
    /// of it was encoded before, `memory` saves doing so again.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference fails.
    pub fn examples(&self, rendered: &mut Rendered, mask: Mask, memory: Option<&Memory>) -> Run<Vec<Example>> {
        let mut encoded = self.encode_with(&rendered.text, &rendered.suppressed, memory)?;
        rendered.tokens = encoded.ids.len();
        let mut shared = match mask {
            Mask::Exact | Mask::Whole => Example::bare(encoded.ids.clone()),
            // Marks of the template are places in the text: the ids are not looked at again.
            Mask::Template | Mask::HfCompat => Example::bare(std::mem::take(&mut encoded.ids)),
        };
        let (mut apart, mut begun) = (Vec::new(), None);
        let mut turns = std::mem::take(&mut rendered.turns);
        match mask {
            Mask::Exact | Mask::Whole => {
                for turn in &mut turns {
                    let Ok(target) = &mut turn.target else { continue };
                    let placed = match mask {
                        Mask::Exact => self.place(rendered, &encoded, target, &shared, memory)?,
                        _ => self.place_as_shown(rendered, &encoded, target)?,
                    };
                    match placed {
                        Ok(Placed { own: None, tokens, ending }) => shared.train(turn.message, &tokens, ending),
                        Ok(Placed { own: Some(OwnRow { text, mut encoded, shares, .. }), tokens, ending }) => {
                            target.own_row = true;
                            let mut example = Example::bare(std::mem::take(&mut encoded.ids));
                            example.train(turn.message, &tokens, ending);
                            let of_all = || Arc::from(shared.input_ids.as_slice());
                            if shares > 0 {
                                let ids = Arc::clone(begun.get_or_insert_with(of_all));
                                example.before = Before { ids, count: shares };
                                apart.push(self.finished(example, text, encoded)?);
                                continue;
                            }
                            let mut example = self.finished(example, text, encoded)?;
                            if self.is_final(&example) {
                                example.begin_as(begun.get_or_insert_with(of_all));
                            }
                            apart.push(example);
                        }
                        Err(why) => turn.target = Err(why),
                    }
                }
            }
            Mask::Template | Mask::HfCompat => {
                let trimmed = match mask {
                    Mask::HfCompat if rendered.suppressed.is_empty() => {
                        self.encoder.encode_as_transformers(&rendered.text)?
                    }
                    _ => None,
                };
                let seen = trimmed.as_ref().unwrap_or(&encoded);
                // A normaliser that moves characters moves their offsets; then ids do not say the text.
                let is_sorted =
                    mask == Mask::HfCompat && (seen.is_said || seen.offsets.is_sorted_by_key(|&(_, end)| end));
                for block in &rendered.blocks {
                    let tokens = match mask {
                        Mask::HfCompat => hf_compat(seen, is_sorted, &rendered.text, block),
                        _ => inside(seen, block),
                    };
                    shared.label(&tokens);
                }
                shared.trained_messages.extend(turns.iter().map(|turn| turn.message));
            }
        }
        rendered.turns = turns;
        let mut examples = Vec::with_capacity(1 + apart.len());
        if shared.labels.iter().any(|&label| label != UNTRAINED) {
            let text = if self.is_lean() { std::mem::take(&mut rendered.text) } else { rendered.text.clone() };
            examples.push(self.finished(shared, text, encoded)?);
        }
        examples.append(&mut apart);
        if self.is_lean() {
            rendered.text = String::new();
        }
        Ok(examples)
    }

    /// Whether nobody will look at the text of a row, nor cut it.
    fn is_final(&self, example: &Example) -> bool {
        self.is_final_at(example.length())
    }

    fn is_final_at(&self, length: usize) -> bool {
        self.lean.is_some_and(|longest| length as u64 <= longest)
    }

    /// A row with its hashes, and with its text where somebody may look at it.
    fn finished(&self, mut example: Example, text: String, encoded: Encoded) -> Run<Example> {
        (example.is_said, example.text, example.offsets) = (encoded.is_said, text, encoded.offsets);
        self.hash(&mut example)?;
        if self.is_lean() && (example.text.len() > LARGE || self.is_final(&example)) {
            (example.is_said, example.text, example.offsets) = Default::default();
        }
        Ok(example)
    }

    /// The tokens of a target after exactly the ids of its prompt, in the shared row or in one of its own.
    fn place(
        &self,
        rendered: &mut Rendered,
        encoded: &Encoded,
        target: &Target,
        taken: &Example,
        memory: Option<&Memory>,
    ) -> Run<Result<Placed, Diagnostic>> {
        let shared = match target.range() {
            Some(range) => self
                .trained_tokens(encoded, &rendered.text, &rendered.suppressed, &range, memory)?
                .map(|tokens| (tokens, range)),
            None => None,
        };
        // Two targets side by side would be one run of trained tokens, and nobody could tell them apart again.
        let is_apart =
            |(tokens, _): &(Range<usize>, _)| tokens.start == 0 || taken.labels[tokens.start - 1] == UNTRAINED;
        let (own, tokens, range) = match shared.filter(is_apart) {
            Some((tokens, range)) => (None, tokens, range),
            None => {
                let Some(row) = self.own_row(rendered, encoded, target, memory)? else {
                    return Ok(Err(unproved("encoded after its prompt the turn does not decode to what it says")));
                };
                let (tokens, range) = (row.tokens.clone(), row.target.clone());
                (Some(row), tokens, range)
            }
        };
        let (encoded, text) = match &own {
            Some(row) => (&row.encoded, row.text.as_str()),
            None => (encoded, rendered.text.as_str()),
        };
        let ending = match self.ending(encoded, &tokens, text, &range, target)? {
            Ok(ending) => ending,
            Err(why) => return Ok(Err(why)),
        };
        let found = &mut rendered.diagnostics;
        if own.is_some() {
            found.push(Diagnostic::new(Code::OwnRow, "the turn has a row of its own"));
        }
        Ok(Ok(Placed { own, tokens, ending: noted(ending, found) }))
    }

    /// The tokens of a target in the row of the whole dialogue, as far as they lie inside it.
    fn place_as_shown(
        &self,
        rendered: &mut Rendered,
        encoded: &Encoded,
        target: &Target,
    ) -> Run<Result<Placed, Diagnostic>> {
        let text = rendered.text.as_str();
        let mut range = target.range().expect("what a rendering shows lies in it");
        let nested = self.trained_tokens(encoded, text, &rendered.suppressed, &range, None)?;
        let follows = nested.is_some() && !target.differs;
        let tokens = nested.unwrap_or_else(|| {
            let mut tokens = inside(encoded, &range);
            let is_next = |&index: &usize| encoded.offsets[index].0 < range.end;
            if let Some(next) = Some(tokens.end).filter(|end| *end < encoded.ids.len()).filter(is_next)
                && self.is_last(encoded.ids[next], encoded.offsets[next], text, range.end)
            {
                tokens.end += 1;
            }
            tokens
        });
        let ends = |index: usize| encoded.offsets[index].1 >= range.end;
        if tokens.is_empty() || !ends(tokens.end - 1) {
            let message = "the stop and what follows it are one token of this tokenizer";
            return Ok(Err(Diagnostic::new(Code::NoStopToken, message)));
        }
        let cut = encoded.offsets[tokens.start].0 > range.start;
        range.start = range.start.max(encoded.offsets[tokens.start].0);
        let ending = match self.ending(encoded, &tokens, text, &range, target)? {
            Ok(ending) => ending,
            Err(why) => return Ok(Err(why)),
        };
        let found = &mut rendered.diagnostics;
        if !follows {
            let message = "the turn is trained as the whole dialogue shows it, not as it follows its prompt";
            found.push(Diagnostic::new(Code::TargetDiffers, message));
        }
        if cut {
            let message = "the turn begins inside a token, which is not trained";
            found.push(Diagnostic::new(Code::TargetCut, message));
        }
        Ok(Ok(Placed { own: None, tokens, ending: noted(ending, found) }))
    }

    /// How a target ends in a row, if its tokens say what it says.
    fn ending(
        &self,
        encoded: &Encoded,
        tokens: &Range<usize>,
        text: &str,
        range: &Range<usize>,
        target: &Target,
    ) -> Run<Result<Ending, Diagnostic>> {
        let stop = &target.text[target.text.len() - target.stop..];
        let last = encoded.ids[tokens.end - 1];
        let whole_stop = self.is_added(last, stop);
        if let Some(why) = self.unsaid(encoded, tokens, text, range, (!whole_stop).then_some(stop))? {
            return Ok(Err(unproved(&why)));
        }
        let (text, appended) = (stop.to_owned(), target.appended_stop);
        Ok(Ok(Ending { text, id: whole_stop.then_some(last), appended }))
    }

    /// A row of its own: the prompt and what has to be generated after it.
    ///
    /// Where the ids of both together begin with those of the prompt, it is they. Where not, it is the ids of the
    /// prompt, then those of the target, encoded alone; where the tokenizer puts a space before every text, as they
    /// are without it, or after a line break. `None` if these do not decode to what both say.
    fn own_row(
        &self,
        rendered: &Rendered,
        encoded: &Encoded,
        target: &Target,
        memory: Option<&Memory>,
    ) -> Run<Option<OwnRow>> {
        let (mut text, mut suppressed) = match &target.prompt {
            Some(prompt) => (prompt.text(&rendered.text, target.text.len()), prompt.suppressed.clone()),
            None => {
                let start = target.shared.expect("a target without a prompt is shared");
                let suppressed = rendered.suppressed.iter().copied().filter(|&at| at < start).collect();
                (rendered.text[..start].to_owned(), suppressed)
            }
        };
        let (before, start) = (suppressed.len(), text.len());
        suppressed.extend(target.suppressed.iter().map(|at| at + start));
        text.push_str(&target.text);
        let range = start..text.len();
        let prompt = &text[..start];
        let is_plain = suppressed.is_empty() && rendered.suppressed.is_empty();
        let known = (rendered.text.as_str(), encoded);
        let like = memory.filter(|_| is_plain).map(|memory| (memory, self.encoder.border_in(&text, known, start)));
        let whole = match like {
            Some((memory, Some(border))) => {
                let rest = self.encoder.encode_from(&text, encoded.offsets[border].0, memory)?;
                let whole = || encoded.before(border, &rest);
                debug_assert_eq!(whole(), self.encoder.encode_again(&text, memory)?, "ids of a text that begins alike");
                let is_said =
                    encoded.is_said && rest.is_said && encoded.offsets.first().is_some_and(|first| first.0 == 0);
                if is_said
                    && border >= LEAST_SHARED
                    && self.is_final_at(border + rest.ids.len())
                    && let Some(tokens) = self.trained_tokens(&rest, &text, &suppressed, &range, Some(memory))?
                {
                    return Ok(Some(OwnRow { text, target: range, encoded: rest, shares: border, tokens }));
                }
                whole()
            }
            Some((memory, None)) => self.encoder.encode_again(&text, memory)?,
            None => self.encode_with(&text, &suppressed, memory)?,
        };
        if let Some(tokens) = self.trained_tokens(&whole, &text, &suppressed, &range, memory)? {
            return Ok(Some(OwnRow { text, target: range, encoded: whole, shares: 0, tokens }));
        }
        let prompt_ids = self.encode_with(prompt, &suppressed[..before], memory)?;
        let alone = || self.encode(&target.text, &target.suppressed);
        for attempt in 0..3 {
            let generated = match attempt {
                0 => Some(alone()?),
                1 => without_space(&alone()?),
                _ => self.after_anchor(target)?,
            };
            let Some(generated) = generated else { continue };
            let mut encoded = Encoded { is_said: false, ..prompt_ids.clone() };
            let tokens = encoded.ids.len()..encoded.ids.len() + generated.ids.len();
            for (&id, &(start, end)) in generated.ids.iter().zip(&generated.offsets) {
                encoded.push(id, (start + prompt.len(), end + prompt.len()));
            }
            let prompt_text = self.encoder.decode(&prompt_ids.ids)?;
            let decoded = self.encoder.decode(&encoded.ids)?;
            let said = decoded.strip_prefix(&prompt_text);
            let says = said == Some(&target.text)
                || said == Some(&self.encoder.normalised(&encoded, &tokens, &text, &range))
                || decoded == self.encoder.decode(&whole.ids)?;
            if says && !tokens.is_empty() {
                return Ok(Some(OwnRow { text, target: range, encoded, shares: 0, tokens }));
            }
        }
        Ok(None)
    }

    /// The tokens of a target after the anchor; `None` if they are not the last ones of both.
    fn after_anchor(&self, target: &Target) -> Run<Option<Encoded>> {
        let before = self.encode(ANCHOR, &[])?;
        let suppressed: Vec<usize> = target.suppressed.iter().map(|at| at + ANCHOR.len()).collect();
        let both = self.encode(&format!("{ANCHOR}{}", target.text), &suppressed)?;
        if !both.ids.starts_with(&before.ids) {
            return Ok(None);
        }
        let mut encoded = Encoded::default();
        for (&id, &(start, end)) in both.ids.iter().zip(&both.offsets).skip(before.ids.len()) {
            encoded.push(id, (start.saturating_sub(ANCHOR.len()), end.saturating_sub(ANCHOR.len())));
        }
        Ok(Some(encoded))
    }

    /// Why tokens do not say what their text says; `stop` is what they must end in where that is no token.
    fn unsaid(
        &self,
        encoded: &Encoded,
        tokens: &Range<usize>,
        text: &str,
        target: &Range<usize>,
        stop: Option<&str>,
    ) -> Run<Option<String>> {
        if !self.encoder.says(encoded, tokens, text, target)? {
            let said = self.encoder.decode(&encoded.ids[tokens.clone()])?;
            return Ok(Some(format!("the tokenizer cannot say the turn: its ids decode to `{}`", start_of(&said))));
        }
        if let Some(stop) = stop
            && !self
                .ends_in(&encoded.ids[tokens.clone()].iter().map(|id| id.cast_signed()).collect::<Vec<_>>(), stop)?
        {
            return Ok(Some(format!("the tokenizer cannot say the stop `{stop}`")));
        }
        Ok(None)
    }

    /// Whether an id is the added token of a text.
    fn is_added(&self, id: u32, text: &str) -> bool {
        self.encoder.added(id).is_some_and(|token| token.content == text)
    }

    /// The tokens of a target in a row; `None` unless they lie wholly inside it, and the ids before them are exactly
    /// those of its prompt.
    fn trained_tokens(
        &self,
        encoded: &Encoded,
        text: &str,
        suppressed: &[usize],
        target: &Range<usize>,
        memory: Option<&Memory>,
    ) -> Run<Option<Range<usize>>> {
        let first = encoded.offsets.partition_point(|&(_, end)| end <= target.start);
        let mut last = encoded.offsets.partition_point(|&(start, end)| end <= target.end && start < target.end);
        let starts_inside = encoded.offsets.get(first).is_none_or(|&(start, _)| start < target.start);
        if encoded.offsets.get(last).is_some_and(|&(start, _)| start < target.end) {
            if !self.is_last(encoded.ids[last], encoded.offsets[last], text, target.end) {
                return Ok(None);
            }
            last += 1;
        }
        if starts_inside || first >= last {
            return Ok(None);
        }
        // An added token stands in the prompt as in the row, and what comes after it is encoded by itself: it is
        // enough to encode the prompt from the last such token on.
        let is_border = |index: &usize| self.encoder.is_border(encoded, *index, text);
        let border = (0..first).rev().find(is_border);
        let (from, from_byte) = border.map_or((0, 0), |index| (index, encoded.offsets[index].0));
        let shifted: Vec<usize> = suppressed.iter().filter(|&&at| at >= from_byte).map(|at| at - from_byte).collect();
        let prompt = self.encode_with(&text[from_byte..target.start], &shifted, memory)?;
        Ok((prompt.ids == encoded.ids[from..first]).then_some(first..last))
    }

    /// Whether a token's own text ends at `target_end`, and only white space that it swallowed lies behind.
    fn is_last(&self, id: u32, (start, end): (usize, usize), text: &str, target_end: usize) -> bool {
        let Some(token) = self.encoder.added(id) else { return false };
        let own_end = target_end.checked_sub(token.content.len());
        token.rstrip
            && own_end.is_some_and(|own| own >= start && text.get(own..target_end) == Some(&token.content))
            && text.get(target_end..end).is_some_and(|swallowed| swallowed.trim().is_empty())
    }
}

/// A text after which a target is encoded where alone it would get a space that nobody said.
const ANCHOR: &str = "\n";

/// The tokens of a text without the first one, where that is a space which the tokenizer puts before every text.
fn without_space(alone: &Encoded) -> Option<Encoded> {
    let is_invented = matches!(alone.offsets[..], [(0, _), (0, _), ..]);
    let rest = || Encoded { ids: alone.ids[1..].to_vec(), offsets: alone.offsets[1..].to_vec(), is_said: false };
    is_invented.then(rest)
}

/// Where a target came to lie.
struct Placed {
    /// The row of its own, if it has one.
    own: Option<OwnRow>,
    tokens: Range<usize>,
    ending: Ending,
}

fn unproved(why: &str) -> Diagnostic {
    Diagnostic::new(Code::TargetUnproved, why)
}

/// Says what is doubtful about how a target ends.
fn noted(ending: Ending, found: &mut Vec<Diagnostic>) -> Ending {
    if ending.id.is_none() {
        let message = format!("the stop `{}` is not one token of this tokenizer", ending.text);
        found.push(Diagnostic::new(Code::StopNotAToken, message));
    }
    if ending.appended {
        found.push(Diagnostic::new(Code::StopAppended, "the model's own stop was put at its end"));
    }
    ending
}

/// A row of its own, and where in it the target is.
struct OwnRow {
    text: String,
    target: Range<usize>,
    /// Its tokens, without so many with which it begins as the rendering does.
    encoded: Encoded,
    shares: usize,
    tokens: Range<usize>,
}

impl Example {
    /// Ids of which none is trained yet, without their text.
    fn bare(ids: Vec<u32>) -> Self {
        let labels = vec![UNTRAINED; ids.len()];
        Self { input_ids: ids.into_iter().map(u32::cast_signed).collect(), labels, ..Self::default() }
    }

    pub(super) fn of(text: &str, encoded: Encoded) -> Self {
        Self { text: text.to_owned(), offsets: encoded.offsets, ..Self::bare(encoded.ids) }
    }

    /// How many tokens it has.
    pub fn length(&self) -> usize {
        self.before.len() + self.input_ids.len()
    }

    /// Leaves out how it begins, as far as that is how another one begins.
    fn begin_as(&mut self, other: &Arc<[i32]>) {
        let first = self.runs().first().map_or(0, |run| run.start);
        let count = common_prefix(&self.input_ids[..first], other);
        if count >= LEAST_SHARED {
            self.before = Before { ids: Arc::clone(other), count };
            self.input_ids = self.input_ids[count..].to_vec();
            self.labels = self.labels[count..].to_vec();
        }
    }

    /// The same with nothing left out.
    pub(crate) fn whole(mut self) -> Self {
        self.before.join(&mut self.input_ids, &mut self.labels);
        self
    }

    /// Cuts the row after so many tokens. Messages of which that leaves nothing to train are given back; where only
    /// `whole` targets may be trained, also those of which it leaves a part.
    pub fn truncate(&mut self, length: usize, whole: bool) -> Vec<usize> {
        let runs = self.runs();
        self.shorten(length);
        if runs.len() != self.trained_messages.len() {
            return Vec::new(); // the marks of a template are not one for each message
        }
        let mut lost = Vec::new();
        for (index, run) in runs.into_iter().enumerate().rev() {
            if run.end <= length || !whole && run.start < length {
                break;
            }
            self.labels[run.start.min(length)..].fill(UNTRAINED);
            lost.push(self.trained_messages.remove(index));
            if index < self.endings.len() {
                self.endings.remove(index);
            }
        }
        lost
    }

    /// One row for what several rows of a dialogue train: the one that reaches furthest, if it begins, on ids, as each of
    /// the others does up to the end of its targets. It ends with its last target.
    ///
    /// # Errors
    /// The message of a target that it does not show so.
    pub fn nested(examples: Vec<Self>) -> Result<Self, usize> {
        let mut examples: Vec<Self> = examples.into_iter().map(Self::whole).collect();
        let reach = |example: &Self| example.trained_messages.last().copied().unwrap_or_default();
        let furthest = (0..examples.len()).max_by_key(|&index| reach(&examples[index])).ok_or(0_usize)?;
        let mut whole = examples.swap_remove(furthest);
        for other in examples {
            let runs = other.runs();
            let end = runs.last().map_or(0, |run| run.end);
            if whole.input_ids.get(..end) != Some(&other.input_ids[..end]) {
                return Err(reach(&other));
            }
            for (run, (&message, ending)) in runs.iter().zip(other.trained_messages.iter().zip(other.endings)) {
                let is_trained = |at: usize| whole.labels.get(at).is_some_and(|&label| label != UNTRAINED);
                // Two targets side by side would be one run of trained tokens.
                if run.start > 0 && is_trained(run.start - 1) || is_trained(run.end) {
                    return Err(message);
                }
                whole.train(message, run, ending);
            }
        }
        let targets = whole.trained_messages.into_iter().zip(whole.endings);
        let mut targets: Vec<(usize, Ending)> = targets.collect();
        targets.sort_by_key(|(message, _)| *message);
        (whole.trained_messages, whole.endings) = targets.into_iter().unzip();
        let end = whole.runs().last().map_or(0, |run| run.end);
        whole.truncate(end, true);
        Ok(whole)
    }

    /// Whether its last target begins before so many tokens and ends after them, and no other one is touched.
    pub fn ends_in_target_at(&self, length: usize) -> bool {
        let runs = self.runs();
        let is_last = |run: &Range<usize>| run.start < length && run.end > length;
        runs.len() == self.trained_messages.len() && runs.last().is_some_and(is_last)
    }

    /// Cuts the row, and its last target with it, after so many tokens: the target has no stop then.
    pub fn cut(&mut self, length: usize) {
        self.endings.truncate(self.trained_messages.len().saturating_sub(1));
        self.shorten(length);
    }

    fn shorten(&mut self, length: usize) {
        self.is_said &= self.is_between(length);
        self.input_ids.truncate(length);
        self.labels.truncate(length);
        self.offsets.truncate(length);
        self.text.truncate(self.offsets.last().map_or(0, |&(_, end)| end));
    }

    /// Whether no character has tokens on both sides of an index.
    fn is_between(&self, index: usize) -> bool {
        index == 0 || self.offsets.get(index).is_none_or(|&(start, _)| self.offsets[index - 1].1 <= start)
    }

    /// What a range of tokens decodes to, as far as that is known.
    pub(super) fn said(&self, tokens: &Range<usize>) -> Option<&str> {
        if !self.is_said || !self.is_between(tokens.start) || !self.is_between(tokens.end) {
            return None;
        }
        let (first, last) = (self.offsets.get(tokens.start)?, self.offsets.get(tokens.end.checked_sub(1)?)?);
        self.text.get(first.0..last.1)
    }

    /// How many tokens it has before the first one that is trained.
    pub(crate) fn first_trained(&self) -> Option<usize> {
        self.labels.iter().position(|&label| label != UNTRAINED).map(|at| self.before.len() + at)
    }

    /// Runs of trained tokens.
    pub(super) fn runs(&self) -> Vec<Range<usize>> {
        const BLOCK: usize = 32;
        let (labels, mut runs, mut at) = (&self.labels, Vec::new(), 0);
        // The next place from here on that is trained, or not; by blocks, of which most are wholly either.
        let next = |at: usize, is_trained: bool| {
            let is_other = |label: &i32| (*label != UNTRAINED) != is_trained;
            let is_passed = |block: &&[i32; BLOCK]| block.iter().fold(true, |all, label| all & is_other(label));
            let at = at + BLOCK * labels[at..].as_chunks().0.iter().take_while(is_passed).count();
            labels[at..].iter().position(|label| !is_other(label)).map(|more| at + more)
        };
        while let Some(start) = next(at, true) {
            at = next(start, false).unwrap_or(labels.len());
            runs.push(start..at);
        }
        runs
    }

    fn label(&mut self, tokens: &Range<usize>) {
        self.labels[tokens.clone()].copy_from_slice(&self.input_ids[tokens.clone()]);
    }

    fn train(&mut self, message: usize, tokens: &Range<usize>, ending: Ending) {
        self.label(tokens);
        self.trained_messages.push(message);
        self.endings.push(ending);
    }
}

/// The first characters of a text, line breaks made visible.
fn start_of(text: &str) -> String {
    let start: String = text.chars().take(40).collect();
    let more = if start.len() < text.len() { " …" } else { "" };
    start.replace('\n', "\\n") + more
}

/// Tokens that lie wholly inside a block.
fn inside(encoded: &Encoded, block: &Range<usize>) -> Range<usize> {
    let first = encoded.offsets.partition_point(|&(start, _)| start < block.start);
    let last = encoded.offsets.partition_point(|&(_, end)| end <= block.end);
    first..last.max(first)
}

/// The bits of transformers: from the token of the first character to the token of the last one, and to the end of
/// the row where the last one has no token or is token 0 (transformers issue 47325).
fn hf_compat(encoded: &Encoded, is_sorted: bool, text: &str, block: &Range<usize>) -> Range<usize> {
    let token_at = |byte: usize| {
        let holds = |&(start, end): &(usize, usize)| start <= byte && byte < end;
        if !is_sorted {
            return encoded.offsets.iter().position(holds);
        }
        let first = encoded.offsets.partition_point(|&(_, end)| end <= byte);
        encoded.offsets.get(first).filter(|found| holds(found)).map(|_| first)
    };
    let Some(first) = token_at(block.start) else {
        return 0..0;
    };
    let last_character = text[..block.end].char_indices().next_back().map_or(0, |(at, _)| at);
    match token_at(last_character) {
        None | Some(0) => first..encoded.offsets.len(),
        Some(last) => first..(last + 1).max(first),
    }
}
