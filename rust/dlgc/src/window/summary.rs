//! What a window says of the messages that it leaves out.
//!
//! In: a dialogue and a cut. Out: a text, never trained. From the data (`summaries`), else from the state so far; or
//! made of sentences that were said (`extract`). Only what comes before the cut decides it, so a server that has only
//! that comes to the same text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::extract::{Sentence, Words, select};
use super::{Cache, Layout, Request, View};
use crate::dialogue::{Dialogue, Message, Role};
use crate::error::Result;
use crate::json::{self, Json, Member, Node};

/// Where summaries come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SummarySource {
    /// From the data, else from the state, else there is none.
    #[default]
    Auto,
    /// From the data, else there is none.
    Data,
    /// From the state, else there is none.
    State,
    /// From the data, else sentences that were said.
    Extract,
    /// From the data, else written by somebody else, who was asked; see [`Cache`].
    Cache,
    /// There is none.
    None,
}

/// Where a summary stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SummaryPlace {
    /// At the end of the system message, which is made if there is none; as a user message where the template takes no
    /// system message.
    #[default]
    System,
    /// A user message of its own, before the recent messages.
    User,
}

/// How summaries are made and shown.
#[derive(Debug, Clone, Default)]
pub struct SummaryOptions {
    /// Where they come from.
    pub source: SummarySource,
    /// Where they stand.
    pub place: SummaryPlace,
    /// What is written around them: a text with `{summary}` in it; by default one in English or Chinese.
    pub wording: Option<String>,
    /// Most tokens of one.
    pub budget: u64,
    /// Where those lie that somebody else writes.
    pub cache: Option<Cache>,
}

/// Stands for the summary in its wording.
pub const SLOT: &str = "{summary}";
const ENGLISH: &str = "Summary of the conversation so far:\n{summary}";
const CHINESE: &str = "此前对话的摘要：\n{summary}";
/// Tokens that a summary may have in its place beyond what its parts have.
const SLACK: u64 = 16;
/// Messages of a block: the summary of what came before is made once for each.
const BLOCK: usize = 32;

/// The summaries of a dialogue, each made once.
pub struct Summaries<'d, 'a> {
    dialogue: &'d Dialogue<'a>,
    head: usize,
    options: &'d SummaryOptions,
    words: Words,
    /// The sentences that are left of the messages before the end of each block.
    blocks: Vec<Vec<Sentence>>,
    made: BTreeMap<usize, Option<String>>,
    /// The state before a message, for the messages that were asked for.
    states: BTreeMap<usize, State>,
    /// Those that somebody else is to write, and has not yet.
    pub requests: Vec<Request>,
}

/// Intent and slots, as far as they were ever said.
#[derive(Debug, Clone, Default)]
struct State {
    intent: Option<Node<'static>>,
    slots: Vec<Member<'static>>,
}

impl<'d, 'a> Summaries<'d, 'a> {
    /// Of a dialogue.
    pub fn new(dialogue: &'d Dialogue<'a>, layout: &Layout, options: &'d SummaryOptions) -> Self {
        Self {
            dialogue,
            head: layout.head,
            options,
            words: Words::default(),
            blocks: Vec::new(),
            made: BTreeMap::new(),
            states: BTreeMap::new(),
            requests: Vec::new(),
        }
    }

    /// What is said of the messages before `at`, in its wording; `count` tells tokens of a text.
    pub fn before(&mut self, at: usize, count: &mut dyn FnMut(&str) -> u64) -> Option<String> {
        if at <= self.head {
            return None;
        }
        if let Some(made) = self.made.get(&at) {
            return made.clone();
        }
        let text = match self.options.source {
            SummarySource::None => None,
            SummarySource::Data | SummarySource::Cache => self.given(at),
            SummarySource::State => self.state(at),
            SummarySource::Auto => self.given(at).or_else(|| self.state(at)),
            SummarySource::Extract => self.given(at).or_else(|| self.extracted(at, count)),
        };
        let text = text.and_then(|text| shortened(&text, self.options.budget, count)).map(|text| self.worded(&text));
        self.made.insert(at, text.clone());
        text
    }

    /// Tokens that are kept for a summary that somebody else writes: which windows there are must not depend on what it
    /// says, or somebody would have to be asked about windows that come to nothing.
    pub fn reserve(&self, at: usize, count: &mut dyn FnMut(&str) -> u64) -> u64 {
        if !self.is_asked(at) {
            return 0;
        }
        let wording = self.options.wording.as_deref().unwrap_or(ENGLISH).replace(SLOT, "");
        self.options.budget + count(&wording).max(count(&CHINESE.replace(SLOT, ""))) + SLACK
    }

    /// What somebody else wrote of the messages before `at`, in its wording and in at most `room` tokens; what is not
    /// there yet is put among the requests.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::error::ErrorKind::Io) where it cannot be read, or is missing in a run that does not ask.
    pub fn written(&mut self, at: usize, room: u64, count: &mut dyn FnMut(&str) -> u64) -> Result<Option<String>> {
        let Some(cache) = self.options.cache.as_ref().filter(|_| self.is_asked(at)) else { return Ok(None) };
        let request = Request::of(&self.dialogue.messages[self.head..at], self.options.budget);
        let Some(text) = cache.find(&request)? else {
            self.requests.push(request);
            return Ok(None);
        };
        let text = shortened(text.trim(), room.min(self.options.budget), count);
        Ok(text.filter(|text| !text.is_empty()).map(|text| self.worded(&text)))
    }

    fn is_asked(&self, at: usize) -> bool {
        self.options.source == SummarySource::Cache && at > self.head && self.given(at).is_none()
    }

    /// The one of the data that says most of what came before.
    fn given(&self, at: usize) -> Option<String> {
        let known = self.dialogue.summaries.iter().filter(|summary| summary.upto < at && summary.upto >= self.head);
        known.max_by_key(|summary| summary.upto).map(|summary| summary.text.clone().into_owned())
    }

    fn state(&mut self, at: usize) -> Option<String> {
        let (from, mut state) = match self.states.range(..=at).next_back() {
            Some((&from, state)) => (from, state.clone()),
            None => (self.head, State::default()),
        };
        self.dialogue.messages[from..at]
            .iter()
            .filter_map(|message| message.state.as_ref())
            .for_each(|found| state.learn(found));
        let text = state.text();
        self.states.insert(at, state);
        text
    }

    fn extracted(&mut self, at: usize, count: &mut dyn FnMut(&str) -> u64) -> Option<String> {
        let whole_blocks = (at - self.head) / BLOCK;
        while self.blocks.len() < whole_blocks {
            let end = self.head + (self.blocks.len() + 1) * BLOCK;
            let kept = self.kept(self.blocks.len(), end, count);
            self.blocks.push(kept);
        }
        let kept = self.kept(whole_blocks, at, count);
        let said = |sentence: &Sentence| {
            format!("{}: {}", self.dialogue.messages[sentence.message].role.name(), sentence.text)
        };
        let lines: Vec<String> = kept.iter().map(said).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// What is kept of so many blocks and the messages after them up to `end`.
    fn kept(&mut self, blocks: usize, end: usize, count: &mut dyn FnMut(&str) -> u64) -> Vec<Sentence> {
        let mut sentences = blocks.checked_sub(1).map(|last| self.blocks[last].clone()).unwrap_or_default();
        for index in self.head + blocks * BLOCK..end {
            let message = &self.dialogue.messages[index];
            if matches!(message.role, Role::User | Role::Assistant) {
                sentences.extend(self.words.sentences(index, message.content.as_deref().unwrap_or_default()));
            }
        }
        // A name and a line break stand beside each.
        select(&sentences, self.options.budget, |sentence| count(&sentence.text) + 4)
    }

    fn worded(&self, text: &str) -> String {
        let is_chinese = || {
            let letters = text.chars().filter(|letter| letter.is_alphabetic());
            let (all, chinese) = letters.fold((0, 0), |(all, chinese), letter| {
                (all + 1, chinese + usize::from(matches!(letter, '\u{3400}'..='\u{9fff}')))
            });
            chinese * 5 > all // names of roles stand among them
        };
        match &self.options.wording {
            Some(wording) => wording.replace(SLOT, text),
            None if is_chinese() => CHINESE.replace(SLOT, text),
            None => ENGLISH.replace(SLOT, text),
        }
    }
}

impl State {
    fn learn(&mut self, found: &Node<'_>) {
        if let Some(intent) = found.get_some("intent") {
            self.intent = Some(intent.clone().into_owned_at(&(0..0)));
        }
        for slot in found.get("slots").and_then(Node::as_object).unwrap_or_default() {
            let node = slot.node.clone().into_owned_at(&(0..0));
            match self.slots.iter_mut().find(|known| known.key == slot.key) {
                Some(known) => known.node = node,
                None => {
                    let key = Cow::Owned(slot.key.clone().into_owned());
                    self.slots.push(Member { key, key_range: 0..0, node });
                }
            }
        }
    }

    fn text(&self) -> Option<String> {
        let slots = (!self.slots.is_empty()).then(|| Node::new(0..0, Json::Object(self.slots.clone())));
        let members = [("intent", self.intent.clone()), ("slots", slots)];
        let known: Vec<_> = members.into_iter().filter_map(|(name, node)| Some((name, node?))).collect();
        (!known.is_empty()).then(|| json::dumps(&json::object(&(0..0), known)))
    }
}

/// A text of at most so many tokens: cut between lines, else between words or letters.
fn shortened(text: &str, budget: u64, count: &mut dyn FnMut(&str) -> u64) -> Option<String> {
    if count(text) <= budget {
        return Some(text.to_owned());
    }
    let fits =
        |ends: &[usize], count: &mut dyn FnMut(&str) -> u64| ends.partition_point(|&end| count(&text[..end]) <= budget);
    let lines: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let letters = || text.char_indices().map(|(at, _)| at).collect::<Vec<_>>();
    let mut end = fits(&lines, count).checked_sub(1).map_or(0, |last| lines[last]);
    if end == 0 {
        let letters = letters();
        end = fits(&letters, count).checked_sub(1).map_or(0, |last| letters[last]);
    }
    let kept = text[..end].trim_end();
    (!kept.is_empty()).then(|| format!("{kept} …"))
}

impl<'a> View<'a> {
    /// Puts a summary where it belongs.
    pub fn put(&mut self, summary: &str, head: usize, place: SummaryPlace) {
        let messages = &mut self.dialogue.messages;
        match (place, head.checked_sub(1)) {
            (SummaryPlace::System, Some(last)) => {
                let content = messages[last].content.take().unwrap_or_default();
                messages[last].content = Some(match &*content {
                    "" => Cow::Owned(summary.to_owned()),
                    content => Cow::Owned(format!("{content}\n\n{summary}")),
                });
            }
            (SummaryPlace::System, None) => self.insert(0, Role::System, summary),
            (SummaryPlace::User, _) => self.insert(head, Role::User, summary),
        }
    }

    fn insert(&mut self, at: usize, role: Role, content: &str) {
        self.dialogue.messages.insert(at, Message::said(role, content));
        self.sources.insert(at, None);
    }
}
