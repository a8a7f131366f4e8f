//! Windows: what is shown of a dialogue that is longer than its budget.
//!
//! In: a [`Dialogue`], and how many tokens its windows would have. Out: [`Window`]s. Each shows the pinned head (system
//! messages, tools, documents), a summary of what is left out, and the most recent messages that fit; together they
//! train every assistant turn exactly once. A window may begin where an exchange begins, and inside one between the
//! results of calls and the next assistant turn; then the question of that exchange is shown too. No tool result is
//! shown without its call.
//!
//! Which windows there are is decided in [`plan`] by lengths alone. What they show is a [`Dialogue`] again
//! ([`Layout::view`]), which goes through the same passes as every other: a window's prompts are inference prompts.

mod cache;
mod extract;
pub mod plan;
mod summary;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::dialogue::{Dialogue, Message, Role};
use crate::json::Node;

pub use cache::{Cache, Request};
pub use plan::{Lengths, Limits, Plan, Window};
pub use summary::{SLOT, Summaries, SummaryOptions, SummaryPlace, SummarySource};

/// What becomes of a dialogue that is longer than the budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowMode {
    /// The fewest windows that train every assistant turn exactly once, each with enough context.
    #[default]
    Cover,
    /// One window: the most recent messages that fit.
    Last,
    /// It is left out, and counted.
    Drop,
    /// Its rows are cut at the budget; what is lost is counted. What trainers do.
    Truncate,
    /// It is rejected.
    Reject,
}

/// What becomes of a turn that fits no window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LongTurns {
    /// It stays untrained.
    #[default]
    Leave,
    /// As much of it is trained as fits, without its stop.
    Cut,
}

/// A place where a window may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The first message that is shown for being recent.
    pub at: usize,
    /// The question of the exchange that is cut into, which is shown before it; empty between exchanges.
    pub question: Range<usize>,
}

/// The parts of a dialogue that windows are made of.
#[derive(Debug)]
pub struct Layout {
    /// The first so many messages are shown in every window.
    pub head: usize,
    /// Where windows may begin, in order; the first one shows everything.
    pub cuts: Vec<Cut>,
    /// What is to be trained, in order: a turn is one message, or several that follow each other.
    pub turns: Vec<Range<usize>>,
}

/// What a window shows, as a dialogue of its own.
#[derive(Debug)]
pub struct View<'a> {
    /// The messages, with the summary among them.
    pub dialogue: Dialogue<'a>,
    /// The index that each message has in the whole dialogue; none for a summary that is a message of its own.
    pub sources: Vec<Option<usize>>,
}

impl Layout {
    /// Finds the parts of a dialogue.
    pub fn of(dialogue: &Dialogue<'_>) -> Self {
        let messages = &dialogue.messages;
        let answers = |role: Role| matches!(role, Role::Assistant | Role::Tool);
        let head = messages.iter().take_while(|message| matches!(message.role, Role::System | Role::Developer)).count();
        let needed = earliest_calls(dialogue);
        let mut cuts = vec![Cut { at: head, question: head..head }];
        let mut question = head..question_end(messages, head);
        for at in head + 1..messages.len() {
            let (before, role) = (messages[at - 1].role, messages[at].role);
            let begins = answers(before) && !answers(role);
            if begins {
                question = at..question_end(messages, at);
            }
            let goes_on = before == Role::Tool && role == Role::Assistant;
            if (begins || goes_on) && needed[at] >= at {
                let question = if begins { at..at } else { question.clone() };
                cuts.push(Cut { at, question });
            }
        }
        let mut turns: Vec<Range<usize>> = Vec::new();
        for (index, _) in messages.iter().enumerate().filter(|(_, message)| message.train) {
            // Some templates refuse two in a row and get them as one, so one window must have both.
            match turns.last_mut().filter(|last| last.end == index) {
                Some(last) => last.end = index + 1,
                None => turns.push(index..index + 1),
            }
        }
        Self { head, cuts, turns }
    }

    /// The last cut from which a turn can be shown: with the question, or the call and the results, that it answers.
    pub fn last_cut(&self, turn: usize) -> usize {
        let turn = self.turns[turn].start;
        self.cuts.partition_point(|cut| cut.at < turn).max(1) - 1
    }

    /// The messages that a window shows which begins at a cut and ends before message `end`.
    pub fn shown(&self, cut: usize, end: usize) -> Vec<usize> {
        let Cut { at, question } = &self.cuts[cut];
        (0..self.head).chain(question.clone()).chain(*at..end).collect()
    }

    /// What such a window shows; it trains the turns among `turns`.
    pub fn view<'a>(&self, whole: &'a Dialogue<'_>, cut: usize, end: usize, turns: &Range<usize>) -> View<'a> {
        let at = self.cuts[cut].at;
        let trained: &[Range<usize>] = self.turns.get(turns.clone()).unwrap_or_default();
        let is_trained = |index: &usize| trained.iter().any(|turn| turn.contains(index));
        let sources: Vec<Option<usize>> = self.shown(cut, end).into_iter().map(Some).collect();
        let message = |&source: &Option<usize>| {
            let source = source.expect("no summary is there yet");
            let message = &whole.messages[source];
            Message { train: message.train && is_trained(&source), ..message.lent() }
        };
        let messages = sources.iter().map(message).collect();
        let running = whole.messages[self.head..at].iter().rev().find_map(|message| message.state.as_ref());
        let dialogue = Dialogue {
            messages,
            running: running.map(Node::lent),
            id: (&*whole.id).into(),
            kind: whole.kind,
            tools: whole.tools.as_ref().map(Node::lent),
            documents: whole.documents.as_ref().map(Node::lent),
            template_kwargs: whole.template_kwargs.as_ref().map(Node::lent),
            ..Dialogue::of(Vec::new())
        };
        View { dialogue, sources }
    }
}

/// Where the messages end that an exchange begins with, before anybody answers.
fn question_end(messages: &[Message<'_>], start: usize) -> usize {
    let answered = |message: &Message<'_>| matches!(message.role, Role::Assistant | Role::Tool);
    messages[start..].iter().position(answered).map_or(messages.len(), |length| start + length)
}

/// For each message, the earliest one whose calls are answered from there on.
fn earliest_calls(dialogue: &Dialogue<'_>) -> Vec<usize> {
    let mut earliest = dialogue.answered_calls();
    for at in (0..earliest.len().saturating_sub(1)).rev() {
        earliest[at] = earliest[at].min(earliest[at + 1]);
    }
    earliest
}
