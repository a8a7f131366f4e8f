//! Turns as the rendering of a whole dialogue shows them, for who asks for one row a dialogue.
//!
//! A template may show a turn in history otherwise than as the newest one: without its reasoning, or after a header
//! that the generation prompt goes on from. What is trained then begins after as much of that header as is shown and
//! ends in the stop, and is made of the turn's own strings and scaffold; whether a server would ever ask for it after
//! such a prompt is another matter.

use std::cmp::Reverse;

use super::law::{Case, Found, border, differs};
use super::skeleton::Placed;
use super::{Target, Template};
use crate::diagnostic::{Code, Diagnostic};

impl Template {
    /// The target of a turn in the rendering of all messages; `placed` are the words of that rendering.
    pub(super) fn as_shown(&self, case: &Case<'_, '_>, placed: &[Placed]) -> Found<Target> {
        let Case { history, skeleton, position, .. } = *case;
        let words = (case.words)()?;
        let (text, real) = (words.row.text.as_str(), history.row.text.as_str());
        let none = || differs("the whole rendering does not show where this turn begins");
        let (prompt, before) = (words.first(position, true)?, words.first(position, false)?);
        if before.common(&prompt) < before.len() {
            return Err(none());
        }
        let header = prompt.from(before.len());
        let own = placed.iter().position(|word| word.message == position).ok_or_else(none)?;
        let first = placed[own].words.start;
        let (from, real_from) = placed[..own].last().map_or((0, 0), |word| (word.words.end, word.real.end));
        // As much of the header as is shown, as near to what is said as it stands.
        let places = text[from..first].char_indices().map(|(at, _)| from + at);
        let longest = places.map(|at| (border(&header, &text[at..first]), at)).max();
        let (length, at) = longest.filter(|(length, _)| *length > 0).ok_or_else(none)?;
        let start = at + length;
        if self.stops.iter().any(|stop| text[start..first].contains(stop.as_str())) {
            return Err(none());
        }
        let next = placed[own..].iter().find(|word| word.message != position);
        let next = next.map_or(text.len(), |word| word.words.start);
        let said = start + skeleton.end_of_words(position, &text[start..next]);
        let stops = self.stops.iter().filter_map(|stop| Some((text[said..next].find(stop)?, Reverse(stop.len()))));
        let Some((at, Reverse(stop))) = stops.min() else {
            return Err(Diagnostic::new(Code::NoStopToken, "the whole rendering shows no stop token after this turn"));
        };
        let real_start = real_from + (start - from);
        let length = skeleton.matches(position, &text[start..said + at + stop], &real[real_start..])?;
        let range = real_start..real_start + length;
        let suppressed = history.row.suppressed.iter().filter(|at| range.contains(at)).map(|at| at - range.start);
        Ok(Target {
            text: real[range.clone()].to_owned(),
            stop,
            shared: Some(range.start),
            suppressed: suppressed.collect(),
            differs: true,
            ..Target::default()
        })
    }
}
