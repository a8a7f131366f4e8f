//! The law of the prompt, on text: what a model has to generate, after exactly the prompt that it will see.
//!
//! For an assistant message, the prompt is what the template renders for the messages before it, with the generation
//! prompt; the target is what it renders when the message is the newest, from the end of the prompt to the end of the
//! stop. That is a definition, and needs no tag. It is proved on a [`Skeleton`]: the same messages with a word for
//! every string. There the target is scaffold and the message's own words, each once; put back, the words must give
//! the target of the real messages, letter by letter.
//!
//! Where the newest turn does not begin with the whole prompt (a template that opens a think block in the generation
//! prompt and drops it from the rendering), the target begins at the last border that both share. Where not even the
//! history is the same (a template that drops reasoning from it once an answer is there), the target begins after the
//! header that the generation prompt supplies, and reaches, word by word, to the end.
//!
//! Who asks for whole dialogues ([`Mode::Whole`]) gets for a turn that does not nest what the rendering of all
//! messages shows of it (`shown`).
//!
//! Renderings of the first messages are branches of one recorded run (`machine`), and are compared with each other
//! only where they part: the cost of a dialogue grows with its length, where the template lets it.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::machine::{Branch, Recording, Stage};
use super::marks::{self, Unmarked};
use super::messages::{self, Prepared};
use super::program::Program;
use super::skeleton::{Placed, Skeleton, Unproved};
use super::{Mode, Prompt, Target, Template, Turn, excerpt, hash_of, refused, tail};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::Node;

/// A turn on its skeleton: scaffold and words.
#[derive(Debug)]
pub(super) struct Outline {
    start: Start,
    /// Scaffold and words of the target, up to the end of its stop.
    target: String,
    /// Length of the stop; 0 where the template prints none.
    stop: usize,
    /// What the template prints after the target.
    after: String,
}

/// Where a target begins in the rendering in which its turn is the newest.
#[derive(Debug)]
enum Start {
    /// Where the prompt ends.
    Prompt,
    /// After what precedes the turn, less so many bytes that are printed where nothing follows, and this piece of the
    /// header.
    History(usize, String),
    /// After this header, wherever that is.
    Header(String),
}

pub(super) type Found<T> = Result<T, Diagnostic>;

/// Outlines by the key of their skeleton: dialogues of the same structure have the same outline.
#[derive(Debug, Default)]
pub(super) struct Outlines(Mutex<HashMap<u128, Found<Arc<Outline>>>>);

/// How many outlines are kept; the cache is emptied when it is full.
const OUTLINES: usize = 1 << 14;

impl Outlines {
    fn get_or(&self, key: u128, make: impl FnOnce() -> Found<Outline>) -> Found<Arc<Outline>> {
        // A panic elsewhere cannot have left an outline half made.
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&key) {
            return found.clone();
        }
        let made = make().map(Arc::new);
        let mut outlines = lock();
        if outlines.len() >= OUTLINES {
            outlines.clear();
        }
        outlines.insert(key, made.clone());
        made
    }
}

/// A rendering of all messages, from which those of the first ones can be had.
pub(super) struct History<'a> {
    recording: Recording<'a>,
    /// The rendering of all messages.
    pub(super) row: Unmarked,
}

/// A rendering of the first messages: it begins like the row and goes on by itself.
pub(super) struct Opening<'h> {
    row: &'h Unmarked,
    shared: usize,
    rest: Unmarked,
}

impl<'a> History<'a> {
    pub(super) fn new(program: &'a Program, stage: Stage<'a>) -> Found<Self> {
        Ok(Self::of(Recording::new(program, stage).map_err(refused)?))
    }

    pub(super) fn of(recording: Recording<'a>) -> Self {
        let row = marks::strip(recording.text());
        Self { recording, row }
    }

    pub(super) fn into_row(self) -> Unmarked {
        self.row
    }

    /// The rendering of the first `count` messages.
    pub(super) fn first(&self, count: usize, add_generation_prompt: bool) -> Found<Opening<'_>> {
        let branch = self.branch(count, add_generation_prompt)?;
        Ok(self.opening(branch.shared, &branch.rest))
    }

    /// The same with its marks.
    pub(super) fn branch(&self, count: usize, add_generation_prompt: bool) -> Found<Branch> {
        self.recording.first(count, add_generation_prompt).map_err(refused)
    }

    /// What begins with so much of the recorded text and goes on by itself, without marks.
    pub(super) fn opening(&self, shared: usize, rest: &str) -> Opening<'_> {
        Opening { row: &self.row, shared: self.row.place_of(shared), rest: marks::strip(rest) }
    }
}

impl Opening<'_> {
    pub(super) fn len(&self) -> usize {
        self.shared + self.rest.text.len()
    }

    /// How much of it is how the row begins.
    pub(super) fn shared(&self) -> usize {
        self.shared
    }

    /// Where a place lies that is one of its own text, with marks.
    pub(super) fn place_in_rest(&self, marked: usize) -> usize {
        self.shared + self.rest.place_of(marked)
    }

    /// Its text from a place on.
    pub(super) fn from(&self, start: usize) -> Cow<'_, str> {
        if start >= self.shared {
            return Cow::Borrowed(&self.rest.text[start - self.shared..]);
        }
        let shared = &self.row.text[start..self.shared];
        if self.rest.text.is_empty() {
            Cow::Borrowed(shared)
        } else {
            Cow::Owned(format!("{shared}{}", self.rest.text))
        }
    }

    /// The same as a prompt.
    pub(super) fn as_prompt(&self) -> Prompt {
        Prompt::of(&self.row.text, self.shared, &self.rest.text, self.suppressed(0, self.len()))
    }

    /// Its text from a place on, if that is a place between characters.
    fn text_at(&self, start: usize) -> Option<Cow<'_, str>> {
        if start >= self.shared {
            return self.rest.text.get(start - self.shared..).map(Cow::Borrowed);
        }
        self.row.text.is_char_boundary(start).then(|| self.from(start))
    }

    /// How many bytes it and another one agree in, from the beginning.
    pub(super) fn common(&self, other: &Self) -> usize {
        let start = self.shared.min(other.shared);
        let (left, right) = (self.from(start), other.from(start));
        start + left.bytes().zip(right.bytes()).take_while(|(left, right)| left == right).count()
    }

    /// Whether the row begins with it.
    pub(super) fn begins_row(&self) -> bool {
        self.row.text[self.shared..].starts_with(&self.rest.text)
    }

    /// Where texts of control tokens begin in a piece of it, from the piece's beginning.
    fn suppressed(&self, start: usize, end: usize) -> Vec<usize> {
        let known = &self.row.suppressed;
        let from = known.partition_point(|&at| at < start);
        let to = known.partition_point(|&at| at < end.min(self.shared));
        let in_rest = self.rest.suppressed.iter().map(|at| at + self.shared).filter(|at| (start..end).contains(at));
        known[from..to.max(from)].iter().copied().chain(in_rest).map(|at| at - start).collect()
    }
}

pub(super) fn differs(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Code::PromptDiffers, message)
}

/// A turn and all that it is proved with.
pub(super) struct Case<'c, 'a> {
    pub(super) history: &'c History<'a>,
    pub(super) skeleton: &'c Skeleton<'c>,
    /// The renderings of the skeleton; made for the first outline that is not known yet.
    pub(super) words: &'c dyn Fn() -> Found<&'c History<'c>>,
    /// A hash of what stands around the messages.
    around: u128,
    pub(super) position: usize,
}

impl Template {
    /// A verdict for each message that is to be trained.
    pub(super) fn prove(
        &self,
        history: &History<'_>,
        prepared: &[Prepared<'_>],
        skeleton: &Skeleton<'_>,
        around: &[Option<Node<'_>>; 3],
        mode: Mode,
    ) -> Vec<Turn> {
        let aliased: Vec<Cow<'_, Node<'_>>> = skeleton.messages.iter().map(messages::aliased).collect();
        let words: Vec<&Node<'_>> = aliased.iter().map(|node| &**node).collect();
        let made: OnceCell<Found<History<'_>>> = OnceCell::new();
        let words = || {
            let made = made.get_or_init(|| History::new(&self.program, self.stage(&words, around)));
            made.as_ref().map_err(Clone::clone)
        };
        let placed = OnceCell::new();
        let placed = || -> Found<&Vec<Placed>> {
            let words = words()?;
            Ok(placed.get_or_init(|| skeleton.align(&words.row.text, &history.row.text)))
        };
        let around = hash_of(around);
        let turns = prepared.iter().enumerate().filter(|(_, message)| message.train);
        let verdict = |(position, message): (usize, &Prepared<'_>)| {
            let case = Case { history, skeleton, words: &words, around, position };
            let mut target = self.prove_turn(&case);
            if mode == Mode::Whole && target.as_ref().map_or(true, |target| target.shared.is_none()) {
                target = placed().and_then(|placed| self.as_shown(&case, placed));
            }
            let target = target.map_err(|found| found.at(&message.range));
            Turn { message: message.source, target }
        };
        turns.map(verdict).collect()
    }

    fn prove_turn(&self, case: &Case<'_, '_>) -> Found<Target> {
        let Case { history, skeleton, position, .. } = *case;
        if position == 0 {
            return Err(differs("no message comes before this turn: no server would ask for it"));
        }
        let key = skeleton.key(position, case.around);
        let outline = self.outlines.get_or(key, || self.outline(case))?;
        let prompt = history.first(position, true)?;
        let newest = history.first(position + 1, false)?;
        let start = match &outline.start {
            Start::Prompt => Some(prompt.len()).filter(|&start| prompt.common(&newest) == start),
            Start::History(back, header) => {
                let before = history.first(position, false)?;
                let base = before.len().saturating_sub(*back);
                let start = base + header.len();
                let begins = before.common(&newest) >= base
                    && newest.text_at(base).is_some_and(|text| text.starts_with(header))
                    && prompt.common(&newest) >= start;
                begins.then_some(start)
            }
            Start::Header(header) => self.after_header(case, &outline, header, &prompt, &newest),
        };
        let Some(start) = start else {
            return Err(differs("the prompt for this turn is not how its rendering as the newest turn begins"));
        };
        let turn = newest.from(start);
        let length = skeleton.matches(position, &outline.target, &turn)?;
        let text = &turn[..length];
        let suppressed = newest.suppressed(start, start + length);
        let whole_prompt = || Some(prompt.as_prompt());
        if outline.stop == 0 {
            let Some(stop) = self.declared_stops.first() else {
                let message = format!("the turn ends in `{}`, and the model declares no stop token", tail(text));
                return Err(Diagnostic::new(Code::NoStopToken, message));
            };
            return Ok(Target {
                text: format!("{text}{stop}"),
                stop: stop.len(),
                shared: None,
                appended_stop: true,
                own_row: true,
                suppressed,
                prompt: whole_prompt(),
                ..Target::default()
            });
        }
        let shared = matches!(outline.start, Start::Prompt)
            && prompt.begins_row()
            && history.row.text[prompt.len()..].starts_with(text);
        Ok(Target {
            text: text.to_owned(),
            stop: outline.stop,
            shared: shared.then_some(start),
            appended_stop: false,
            own_row: !shared,
            suppressed,
            prompt: if shared { None } else { whole_prompt() },
            ..Target::default()
        })
    }

    fn outline(&self, case: &Case<'_, '_>) -> Found<Outline> {
        let Case { skeleton, position, .. } = *case;
        let words = (case.words)()?;
        let prompt = words.first(position, true)?;
        let newest = words.first(position + 1, false)?;
        let common = prompt.common(&newest);
        let (start, at) = if common == prompt.len() {
            (Start::Prompt, prompt.len())
        } else {
            let before = words.first(position, false)?;
            let base = if before.common(&prompt) == before.len() {
                before.len()
            } else {
                // What is printed only where nothing follows, such as an end of text, is no part of the history.
                let shared = border(&before.from(0), &prompt.from(0));
                if Skeleton::holds_word(&before.from(shared)) { before.len() } else { shared }
            };
            let nested = base <= common && before.common(&newest) >= base;
            let border = if nested { border(&prompt.from(base), &newest.from(base)) } else { 0 };
            let back = before.len() - base;
            if border > 0 {
                (Start::History(back, newest.from(base)[..border].to_owned()), base + border)
            } else if nested && skeleton.begins_with_word(position, &newest.from(base)) {
                // The newest turn shows no header at all; what was said stands right after the history.
                (Start::History(back, String::new()), base)
            } else {
                self.header(case, &prompt, &before, &newest)?
            }
        };
        let turn = newest.from(at);
        let said = skeleton.end_of_words(position, &turn);
        let after = &turn[said..];
        let first = self
            .stops
            .iter()
            .filter_map(|stop| after.find(stop.as_str()).map(|at| (at, std::cmp::Reverse(stop.len()))))
            .min();
        let Some((at, length)) = first else {
            if self.prints_stop {
                return Err(Diagnostic::new(Code::NoStopToken, "the turn ends without a stop token"));
            }
            // What the template prints after every turn is not the turn's; white space that was said is.
            let target = turn.strip_suffix(self.after_stop.as_str()).unwrap_or(&turn);
            return Ok(Outline { start, target: target.to_owned(), stop: 0, after: turn[target.len()..].to_owned() });
        };
        let end = said + at + length.0;
        let rest = &turn[end..];
        if !rest.trim().is_empty() && rest.trim() != self.after_stop.trim() {
            let message = format!("after its stop the turn goes on: `{}`", excerpt(rest.trim_start(), 0));
            return Err(Diagnostic::new(Code::TargetUnproved, message));
        }
        Ok(Outline { start, target: turn[..end].to_owned(), stop: length.0, after: rest.to_owned() })
    }

    /// The header that the generation prompt supplies, and where the turn begins after it on the skeleton: the last
    /// place before the turn's own words, with no word of another message after it.
    fn header(
        &self,
        case: &Case<'_, '_>,
        prompt: &Opening<'_>,
        before: &Opening<'_>,
        newest: &Opening<'_>,
    ) -> Found<(Start, usize)> {
        let none = || differs("the prompt and the turn as the newest have no header in common");
        if before.common(prompt) < before.len() {
            return Err(none());
        }
        let header = prompt.from(before.len());
        let text = newest.from(0);
        let first = case.skeleton.start_of_words(case.position, &text).ok_or_else(none)?;
        let place = if header.trim().is_empty() { None } else { text[..first].rfind(&*header) };
        let start = place.ok_or_else(none)? + header.len();
        if Skeleton::holds_word(&text[start..first]) || self.stops.iter().any(|stop| text[start..first].contains(stop))
        {
            return Err(none());
        }
        Ok((Start::Header(header.into_owned()), start))
    }

    /// Where the turn begins in the real rendering: after the last header from which it reaches, word by word, to the
    /// end. The header must be the one that the real prompt ends in.
    fn after_header(
        &self,
        case: &Case<'_, '_>,
        outline: &Outline,
        header: &str,
        prompt: &Opening<'_>,
        newest: &Opening<'_>,
    ) -> Option<usize> {
        if !prompt.from(0).ends_with(header) {
            return None;
        }
        let text = newest.from(0);
        let reaches = |start: &usize| {
            let turn = &text[*start..];
            let length = case.skeleton.matches(case.position, &outline.target, turn);
            length.is_ok_and(|length| turn[length..] == outline.after)
        };
        text.rmatch_indices(header).map(|(at, _)| at + header.len()).find(reaches)
    }
}

impl From<Unproved> for Diagnostic {
    fn from(why: Unproved) -> Self {
        let message = match why {
            Unproved::Differs => "the turn is not made of its own strings and the template's scaffold".to_owned(),
            Unproved::Foreign => "a string of another message stands in the turn".to_owned(),
            Unproved::Leaf(text) => format!("`{text}` does not stand exactly once in the turn"),
            Unproved::Name(name) => format!("the call of `{name}` does not stand in the turn"),
        };
        Self::new(Code::TargetUnproved, message)
    }
}

/// How far two texts agree, back to a border between pieces: not inside a tag, not inside a word.
pub(super) fn border(left: &str, right: &str) -> usize {
    let mut common = left.bytes().zip(right.bytes()).take_while(|(left, right)| left == right).count();
    while !left.is_char_boundary(common) || !right.is_char_boundary(common) {
        common -= 1;
    }
    let shared = &left[..common];
    if let Some(open) = shared.rfind('<').filter(|&open| !shared[open..].contains('>')) {
        return open;
    }
    let goes_on = |text: &str| text[common..].chars().next().is_some_and(char::is_alphanumeric);
    if goes_on(left) || goes_on(right) {
        return shared.trim_end_matches(char::is_alphanumeric).len();
    }
    common
}

#[cfg(test)]
mod tests {
    use super::border;

    #[test]
    fn texts_part_between_pieces() {
        assert_eq!(border("a<x><think>\n", "a<x></think>"), 4);
        assert_eq!(border("a<x><think>\n", "a<x>answer"), 4);
        assert_eq!(border("user: yes", "user: yet"), 6);
        assert_eq!(border("é", "è"), 0);
    }
}
