//! Tokenising: rendered text becomes ids, and each target the labels of its tokens.
//!
//! In: a [`Rendered`](crate::template::Rendered). Out: an [`Example`]. Ids are those of the reference, the pinned
//! `tokenizers` crate, on the rendered text without added special tokens, as transformers encodes it; tokenizers made of
//! known parts are encoded by code of our own, which is compared with the reference before it is first used and in every
//! run. What is guaranteed of a trained turn: the ids before its target are exactly the ids of its prompt, its tokens lie
//! wholly inside the target, and the last ones are its stop.

mod added;
mod control;
mod encode;
mod engine;
mod fast;
mod files;
mod gguf;
mod limited;
mod proof;
mod reference;
mod rows;
mod sections;
mod tested;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::diagnostic::Diagnostic;
use crate::dialogue::{Dialogue, Message};
use crate::error::Result;

pub use control::{ControlPolicy, OnControlToken};
pub use files::TokenizerFiles;
pub use proof::Difference;
pub use rows::Mask;

use control::ControlTokens;
use encode::{Encoded, Encoder};

pub use encode::Memory;

/// Tokens that most templates write around a message.
const AROUND_MESSAGE: usize = 5;

/// So far behind a message the next one is looked for by comparing, in bytes: less than a searcher takes to be made.
const NEAR: usize = 256;

/// The label of a token that is not trained.
pub const UNTRAINED: i32 = -100;

/// Text to ids, as by the reference.
pub struct Tokenizer {
    encoder: Encoder,
    control: ControlTokens,
    difference: Option<Difference>,
    /// Up to how many tokens rows go without their text, which takes twice the memory of their ids and labels.
    lean: Option<u64>,
}

/// One tokenised rendering.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Example {
    /// The text; empty where nobody will look at it.
    pub text: String,
    /// Each token's bytes in the text; empty where that is.
    pub offsets: Vec<(usize, usize)>,
    /// How it begins, where that is left out of what follows.
    pub before: Before,
    /// Token ids.
    pub input_ids: Vec<i32>,
    /// The id where it is trained, [`UNTRAINED`] elsewhere.
    pub labels: Vec<i32>,
    /// Indices of the messages that are trained, in order.
    pub trained_messages: Vec<usize>,
    /// How each of their targets ends, if targets are proved.
    pub endings: Vec<Ending>,
    /// Hash of the decoded ids.
    pub text_hash: u64,
    /// Hash of the decoded targets, each closed by a zero byte.
    pub target_hash: u64,
    /// Whether it is known that the ids decode to exactly the text, which is there then.
    pub(crate) is_said: bool,
}

/// Which way text becomes ids: the reference's own, or one that gives the same faster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodingPath {
    /// The kind of tokenizer that it was recognised as; `None` where the reference does all the work.
    pub fast: Option<String>,
    /// Why the reference does all the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The text that made the run begin again with the reference, and what both made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
}

/// How a row begins that begins as another one of its dialogue: ids of which none is trained, held once for both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Before {
    ids: Arc<[i32]>,
    count: usize,
}

impl Before {
    /// How many ids there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Puts them where they belong, before ids and labels of what follows; afterwards there are none.
    pub fn join(&mut self, input_ids: &mut Vec<i32>, labels: &mut Vec<i32>) {
        let Self { ids, count } = std::mem::take(self);
        if count > 0 {
            *input_ids = [&ids[..count], input_ids].concat();
            *labels = [&vec![UNTRAINED; count], labels.as_slice()].concat();
        }
    }
}

/// How a target ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ending {
    /// The text of its stop.
    pub text: String,
    /// The id of its stop; `None` where that is not one token.
    pub id: Option<u32>,
    /// Whether the template prints no stop, and the model's own was put there.
    pub appended: bool,
}

/// Lets go of the tokenizer that was loaded last, which is kept for whoever loads it again: some hundred megabytes, and
/// the words that it has met.
pub fn forget_tokenizer() {
    encode::forget();
}

impl Tokenizer {
    /// Loads a tokenizer; the one that was loaded last is shared.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference cannot read it.
    pub fn load(files: &TokenizerFiles) -> Result<Self> {
        let json = files.file("tokenizer.json").unwrap_or_default();
        let encoder = Encoder::load(json, &files.declared_tokens())
            .map_err(|error| error.context(format!("while loading the tokenizer `{}`", files.origin)))?;
        let mut tokenizer = Self { encoder, control: ControlTokens::default(), difference: None, lean: None };
        tokenizer.set_control(tokenizer.special_tokens(), ControlPolicy::default());
        Ok(tokenizer)
    }

    /// The SHA-256 of its `tokenizer.json`, in hexadecimal.
    pub fn digest(&self) -> &str {
        self.encoder.digest()
    }

    /// The same tokenizer with all of its work left to the reference.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn load_reference(files: &TokenizerFiles) -> Result<Self> {
        let mut tokenizer = Self::load(files)?;
        tokenizer.encoder.leave_to_reference("it was asked for");
        Ok(tokenizer)
    }

    /// Rows go without their text and offsets from now on: large ones, and those of at most so many tokens. Who cuts a row
    /// that is longer needs them.
    pub fn leave_out_texts(&mut self, longest: u64) {
        self.lean = Some(longest);
    }

    /// Whether they do.
    pub fn is_lean(&self) -> bool {
        self.lean.is_some()
    }

    /// Compares what had to wait until the reference was read, which is read beside the work where a tokenizer was tested
    /// before. What was encoded can be relied on after that.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where a text was not encoded as by the reference.
    pub fn settle(&self) -> Result<()> {
        self.encoder.settle()
    }

    /// Waits until the reference is read.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where it cannot be.
    pub fn ready(&self) -> Result<()> {
        self.encoder.ready()
    }

    /// Leaves all the work to the reference if a text was not encoded as by it; says whether that is so. Nothing that was
    /// encoded before can be trusted then.
    pub fn begin_again(&mut self) -> bool {
        let Some(difference) = self.encoder.difference().cloned() else { return false };
        self.encoder.leave_to_reference("a text was not encoded as by the reference");
        self.difference = Some(difference);
        true
    }

    /// Compares so many random texts, and with `is_whole` every character and every length that matters, with the
    /// reference: how many were the same, or the first that is not.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference fails.
    pub fn prove(&self, strings: usize, is_whole: bool) -> Result<std::result::Result<usize, Difference>> {
        self.encoder.prove(strings, is_whole)
    }

    #[cfg(test)]
    pub(crate) fn spoil(&mut self) {
        self.encoder.spoil();
    }

    /// Names further control tokens and what becomes of their text in content.
    pub fn set_control(&mut self, scaffold: Vec<String>, policy: ControlPolicy) {
        let mut tokens: Vec<String> = self.control.tokens().to_vec();
        tokens.extend(scaffold);
        tokens.sort();
        tokens.dedup();
        let normalised =
            |token: &String| self.encoder.all_added().any(|added| added.normalized && added.content == *token);
        let normalised = tokens.iter().filter(|token| normalised(token)).cloned().collect();
        self.control = ControlTokens::new(tokens, policy).with_normaliser(self.encoder.normalizer(), normalised);
    }

    /// Added tokens that are not flagged special: candidates for control tokens.
    pub fn plain_added_tokens(&self) -> Vec<String> {
        let mut tokens: Vec<String> = self
            .encoder
            .all_added()
            .filter(|token| !token.special && !token.content.trim().is_empty())
            .map(|token| token.content.clone())
            .collect();
        tokens.sort();
        tokens
    }

    /// Control tokens, by text.
    pub fn control_tokens(&self) -> &[String] {
        self.control.tokens()
    }

    /// Added tokens that are flagged special, by text.
    pub fn special_tokens(&self) -> Vec<String> {
        self.encoder.all_added().filter(|token| token.special).map(|token| token.content.clone()).collect()
    }

    /// Applies the policy for control tokens to the texts of a dialogue.
    pub fn guard(&self, dialogue: &mut Dialogue<'_>, findings: &mut Vec<Diagnostic>) {
        self.control.apply(dialogue, findings);
    }

    /// The text of an id.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.encoder.text_of(id)
    }

    /// One more than the largest id.
    pub fn vocabulary_size(&self) -> usize {
        self.encoder.vocabulary_size()
    }

    /// Ids that stop generation, by the files of the tokenizer.
    pub fn stop_ids(&self, files: &TokenizerFiles) -> Vec<u32> {
        files.stop_ids(|text| self.encoder.id_of(text))
    }

    /// The text of ids, special tokens kept.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference cannot decode them.
    pub fn decode(&self, ids: &[i32]) -> Result<String> {
        let ids: Vec<u32> = ids.iter().map(|&id| id.cast_unsigned()).collect();
        self.encoder.decode(&ids)
    }

    /// Whether ids end in the text of a stop. Where the tokenizer has `▁` for a space, it cannot say one.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference cannot decode them.
    pub fn ends_in(&self, ids: &[i32], stop: &str) -> Result<bool> {
        let said = self.decode(ids)?;
        Ok(said.ends_with(stop) || said.ends_with(&stop.replace('▁', " ")))
    }

    /// Ids of a text, without added special tokens.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference fails.
    pub fn ids(&self, text: &str) -> Result<Vec<i32>> {
        let mut ids = Vec::new();
        self.append_ids(text, &mut ids)?;
        Ok(ids.into_iter().map(u32::cast_signed).collect())
    }

    /// Appends the ids of a text, without added special tokens, to others: for who encodes many texts.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference fails.
    pub fn append_ids(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        self.encoder.append_ids(text, out)
    }

    /// Which way text becomes ids.
    pub fn path(&self) -> EncodingPath {
        match self.encoder.path() {
            Ok(name) => EncodingPath { fast: Some(name), ..EncodingPath::default() },
            Err(why) => EncodingPath { fast: None, why: Some(why), difference: self.difference.clone() },
        }
    }

    /// A text with its ids, none of them trained; before the places in `suppressed` no added token begins. Where much of
    /// it was encoded before, `memory` saves doing so again.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference fails.
    pub fn untrained(&self, text: &str, suppressed: &[usize], memory: Option<&Memory>) -> Result<Example> {
        Ok(Example::of(text, self.encode_with(text, suppressed, memory)?))
    }

    /// How many tokens a text has; before the places in `suppressed` no added token begins.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference fails.
    pub fn count(&self, text: &str, suppressed: &[usize], memory: &Memory) -> Result<usize> {
        if suppressed.is_empty() {
            return self.encoder.count(text, memory);
        }
        Ok(self.encode(text, suppressed)?.ids.len())
    }

    /// How many tokens a message has in a rendering, before that is measured: counted but for what the template writes
    /// around it where counting costs little, by its length where it does not.
    pub fn expected_of(&self, message: &Message<'_>) -> u64 {
        let is_cheap = self.encoder.path().is_ok();
        let counted = |text: &str| {
            let mut ids = Vec::new();
            let is_counted = is_cheap && self.encoder.append_ids(text.trim(), &mut ids).is_ok();
            if is_counted { ids.len() } else { text.len() / 4 }
        };
        let texts = [&message.content, &message.reasoning].into_iter().flatten().map(|text| counted(text));
        let calls = message.tool_calls.iter().map(|call| (call.name.len() + call.arguments.range.len()) / 4);
        (texts.chain(calls).sum::<usize>() + AROUND_MESSAGE) as u64
    }

    /// How many tokens the text has that a whole dialogue is rendered to, and those that each of its messages has, where that is
    /// known of all. What is rendered of the dialogue later is mostly made of what this was.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference fails.
    pub fn learn(&self, text: String, messages: &[Message<'_>], memory: &Memory) -> Result<(usize, Option<Vec<u64>>)> {
        let learnt = self.encoder.learn(text, memory)?;
        Ok((learnt.encoded.ids.len(), expected_in(&learnt.text, &learnt.encoded, messages)))
    }

    fn encode(&self, text: &str, suppressed: &[usize]) -> Result<Encoded> {
        self.encoder.encode(text, suppressed, self.control.tokens())
    }

    /// The same, with what was encoded before at hand.
    fn encode_with(&self, text: &str, suppressed: &[usize], memory: Option<&Memory>) -> Result<Encoded> {
        match memory.filter(|_| suppressed.is_empty()) {
            Some(memory) => self.encoder.encode_again(text, memory),
            None => self.encode(text, suppressed),
        }
    }

    /// Hashes a row anew: see [`Tokenizer::hashes`]. Where its ids are known to say its text, that is what is hashed.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference cannot decode them.
    pub fn hash(&self, example: &mut Example) -> Result<()> {
        let said = || {
            let mut whole = example.said(&(0..example.input_ids.len()))?;
            if !example.before.is_empty() {
                whole = &example.text[..example.offsets.last()?.1]; // also what it shares
            }
            let targets: Option<Vec<&str>> = example.runs().iter().map(|run| example.said(run)).collect();
            Some((xxh3_64(whole.as_bytes()), hash_of_targets(targets?.into_iter())))
        };
        (example.text_hash, example.target_hash) = match said() {
            Some(hashes) => hashes,
            None => {
                let (mut ids, mut labels) = (example.input_ids.clone(), example.labels.clone());
                example.before.clone().join(&mut ids, &mut labels);
                self.hashes(&ids, &labels)?
            }
        };
        Ok(())
    }

    /// Hashes of the decoded ids and of the decoded targets: runs of trained tokens, each closed by a zero byte.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference cannot decode them.
    pub fn hashes(&self, input_ids: &[i32], labels: &[i32]) -> Result<(u64, u64)> {
        let text_hash = xxh3_64(self.decode(input_ids)?.as_bytes());
        let mut targets = Vec::new();
        let mut start = 0;
        while start < labels.len() {
            if labels[start] == UNTRAINED {
                start += 1;
                continue;
            }
            let end = (start..labels.len()).find(|&index| labels[index] == UNTRAINED).unwrap_or(labels.len());
            targets.push(self.decode(&labels[start..end])?);
            start = end;
        }
        Ok((text_hash, hash_of_targets(targets.iter().map(String::as_str))))
    }
}

/// The first place of something in a text: near its beginning, most likely.
fn place_of(said: &[u8], text: &[u8]) -> Option<usize> {
    let Some(&first) = said.first() else { return Some(0) };
    let mut begins = memchr::memchr_iter(first, &text[..text.len().min(NEAR)]);
    begins.find(|&at| text[at..].starts_with(said)).or_else(|| memchr::memmem::find(text, said))
}

/// The hash of texts, each closed by a zero byte.
fn hash_of_targets<'t>(targets: impl Iterator<Item = &'t str>) -> u64 {
    let mut hash = Xxh3::new();
    for target in targets {
        hash.update(target.as_bytes());
        hash.update(&[0]);
    }
    hash.digest()
}

/// The tokens of messages in the text that they are rendered to, if each is found there after the one before: all from where
/// its content begins to where that of the next one does.
fn expected_in(text: &str, encoded: &Encoded, messages: &[Message<'_>]) -> Option<Vec<u64>> {
    let (mut at, mut begins) = (0, Vec::with_capacity(messages.len() + 1));
    for message in messages {
        let said = message.content.as_deref().unwrap_or_default().trim();
        let start = at + place_of(said.as_bytes(), &text.as_bytes()[at..])?;
        at = start + said.len();
        begins.push(encoded.offsets.partition_point(|&(token, _)| token < start));
    }
    begins.push(encoded.ids.len());
    Some(begins.windows(2).map(|pair| pair[1].saturating_sub(pair[0]) as u64).collect())
}
