//! Tokenising: rendered text becomes ids, and each target the labels of its tokens.
//!
//! In: a [`Rendered`]. Out: an [`Example`]. Ids are those of the reference, the pinned `tokenizers` crate, on the
//! rendered text without added special tokens, as transformers encodes it. What is guaranteed of a trained turn:
//! the ids before its target are exactly the ids of its prompt, its tokens lie wholly inside the target, and the last
//! ones are its stop.

mod control;
mod files;

use std::collections::HashSet;
use std::ops::Range;

use tokenizers::Tokenizer as Reference;
use xxhash_rust::xxh3::xxh3_64;

use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::Dialogue;
use crate::error::{Error, ErrorKind, Result};
use crate::template::{Rendered, Target};

pub use control::{ControlPolicy, OnControlToken};
pub use files::TokenizerFiles;

use control::ControlTokens;

/// The label of a token that is not trained.
pub const UNTRAINED: i32 = -100;

/// Text to ids, by the reference.
pub struct Tokenizer {
    reference: Reference,
    /// The same without any added token; made when a text must not become one.
    bare: std::sync::OnceLock<Reference>,
    json: Vec<u8>,
    added: HashSet<u32>,
    /// Whether the ids of two texts, one after the other, may decode to something else than the texts do: tokenizers
    /// that put a space before every text.
    joins: bool,
    /// Added tokens before which and after which the text is encoded independently.
    borders: HashSet<u32>,
    control: ControlTokens,
}

/// One tokenised rendering.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Example {
    /// The text.
    pub text: String,
    /// Each token's bytes in the text.
    pub offsets: Vec<(usize, usize)>,
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
}

/// How a target ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ending {
    /// The text of its stop.
    pub text: String,
    /// The id of its stop; `None` where that is not one token.
    pub id: Option<u32>,
    /// Whether the template prints no stop, and the model's own was put there.
    pub appended: bool,
}

/// Ids with the bytes of the text that each stands for.
#[derive(Debug, Default)]
struct Encoded {
    ids: Vec<u32>,
    offsets: Vec<(usize, usize)>,
}

/// Where trained tokens are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// The proved targets.
    Exact,
    /// What the template's `{% generation %}` blocks mark: tokens wholly inside a block.
    Template,
    /// The bits that transformers' `return_assistant_tokens_mask` gives, its bugs included.
    HfCompat,
}

impl Tokenizer {
    /// Loads a tokenizer; `scaffold` are added tokens that the template uses, beyond those flagged special.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`] where the reference cannot read it.
    pub fn load(files: &TokenizerFiles) -> Result<Self> {
        let json = files.file("tokenizer.json").unwrap_or_default().to_vec();
        let reference = Self::reference(&json)
            .map_err(|error| error.context(format!("while loading the tokenizer `{}`", files.origin)))?;
        let decoder = reference.get_added_tokens_decoder();
        let added = decoder.keys().copied().collect();
        let borders = decoder.iter().filter(|(_, token)| !token.normalized).map(|(id, _)| *id).collect();
        let mut special: Vec<String> =
            decoder.values().filter(|token| token.special).map(|token| token.content.clone()).collect();
        special.sort();
        let control = ControlTokens::new(special, ControlPolicy::default());
        let joins = !matches!(reference.get_decoder(), Some(tokenizers::DecoderWrapper::ByteLevel(_)));
        Ok(Self { reference, joins, bare: std::sync::OnceLock::new(), json, added, borders, control })
    }

    fn reference(json: &[u8]) -> Result<Reference> {
        let mut reference = Reference::from_bytes(json)
            .map_err(|error| Error::new(ErrorKind::Tokenizer, format!("`tokenizer.json` cannot be read: {error}")))?;
        // Padding and truncation saved by somebody's training script are not part of the text's ids.
        reference.with_padding(None);
        reference.with_truncation(None).map_err(|error| Error::new(ErrorKind::Tokenizer, error.to_string()))?;
        Ok(reference)
    }

    /// Names further control tokens and what becomes of their text in content.
    pub fn set_control(&mut self, scaffold: Vec<String>, policy: ControlPolicy) {
        let mut tokens: Vec<String> = self.control.tokens().to_vec();
        tokens.extend(scaffold);
        tokens.sort();
        tokens.dedup();
        self.control = ControlTokens::new(tokens, policy);
    }

    /// Added tokens that are not flagged special: candidates for control tokens.
    pub fn plain_added_tokens(&self) -> Vec<String> {
        let decoder = self.reference.get_added_tokens_decoder();
        let mut tokens: Vec<String> = decoder
            .values()
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
        let decoder = self.reference.get_added_tokens_decoder();
        decoder.into_values().filter(|token| token.special).map(|token| token.content).collect()
    }

    /// Applies the policy for control tokens to the texts of a dialogue.
    pub fn guard(&self, dialogue: &mut Dialogue<'_>, findings: &mut Vec<Diagnostic>) {
        self.control.apply(dialogue, findings);
    }

    /// The text of an id.
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.reference.id_to_token(id)
    }

    /// One more than the largest id.
    pub fn vocabulary_size(&self) -> usize {
        let largest = self.reference.get_vocab(true).values().copied().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// Ids that stop generation, by the files of the tokenizer.
    pub fn stop_ids(&self, files: &TokenizerFiles) -> Vec<u32> {
        files.stop_ids(&self.reference)
    }

    /// The text of ids, special tokens kept.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`] where the reference cannot decode them.
    pub fn decode(&self, ids: &[i32]) -> Result<String> {
        let ids: Vec<u32> = ids.iter().map(|&id| id.cast_unsigned()).collect();
        self.reference.decode(&ids, false).map_err(|error| Error::new(ErrorKind::Tokenizer, error.to_string()))
    }

    /// Ids of a text, without added special tokens.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`] where the reference fails.
    pub fn ids(&self, text: &str) -> Result<Vec<i32>> {
        Ok(self.encode(text, &[])?.ids.into_iter().map(u32::cast_signed).collect())
    }

    /// A text with its ids, none of them trained; before the places in `suppressed` no added token begins.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`] where the reference fails.
    pub fn untrained(&self, text: &str, suppressed: &[usize]) -> Result<Example> {
        Ok(Example::of(text, &self.encode(text, suppressed)?))
    }

    fn encode(&self, text: &str, suppressed: &[usize]) -> Result<Encoded> {
        let whole = encode_with(&self.reference, text)?;
        let hit = |index: usize| self.added.contains(&whole.ids[index]) && suppressed.contains(&whole.offsets[index].0);
        if suppressed.is_empty() || !(0..whole.ids.len()).any(hit) {
            return Ok(whole);
        }
        // Between two added tokens the text is encoded by itself. Where a suppressed one stands in such a piece, the
        // piece is encoded again by a tokenizer that knows no added tokens.
        let bare = self.bare()?;
        let mut out = Encoded::default();
        let mut index = 0;
        while index < whole.ids.len() {
            if self.added.contains(&whole.ids[index]) && !hit(index) {
                out.push(whole.ids[index], whole.offsets[index]);
                index += 1;
                continue;
            }
            let real = |index: &usize| self.added.contains(&whole.ids[*index]) && !hit(*index);
            let next = (index..whole.ids.len()).find(real).unwrap_or(whole.ids.len());
            let start = if index == 0 { 0 } else { whole.offsets[index - 1].1 };
            let end = if next < whole.ids.len() { whole.offsets[next].0 } else { text.len() };
            if (index..next).any(hit) {
                let piece = encode_with(bare, &text[start..end])?;
                for (id, (from, to)) in piece.ids.into_iter().zip(piece.offsets) {
                    out.push(id, (from + start, to + start));
                }
            } else {
                for inside in index..next {
                    out.push(whole.ids[inside], whole.offsets[inside]);
                }
            }
            index = next;
        }
        Ok(out)
    }

    fn bare(&self) -> Result<&Reference> {
        if let Some(bare) = self.bare.get() {
            return Ok(bare);
        }
        let fail = |error: serde_json::Error| Error::new(ErrorKind::Tokenizer, error.to_string());
        let mut json: serde_json::Value = serde_json::from_slice(&self.json).map_err(fail)?;
        json["added_tokens"] = serde_json::Value::Array(Vec::new());
        let bare = Self::reference(&serde_json::to_vec(&json).map_err(fail)?)?;
        Ok(self.bare.get_or_init(|| bare))
    }

    /// Turns a rendering into rows: one for all turns whose prompts nest in it, one for each of the others.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`] where the reference fails.
    pub fn examples(&self, rendered: &mut Rendered, mask: Mask) -> Result<Vec<Example>> {
        let encoded = self.encode(&rendered.text, &rendered.suppressed)?;
        rendered.tokens = encoded.ids.len();
        let mut shared = Example::of(&rendered.text, &encoded);
        let mut apart = Vec::new();
        match mask {
            Mask::Exact => {
                let mut turns = std::mem::take(&mut rendered.turns);
                for turn in &mut turns {
                    let Ok(target) = &turn.target else { continue };
                    let tokens = match target.range() {
                        Some(range) => self.trained_tokens(&encoded, &rendered.text, &rendered.suppressed, &range)?,
                        None => None,
                    };
                    let own_row = tokens.is_none();
                    let example = if let Some(tokens) = tokens {
                        shared.train(turn.message, &tokens, self.ending(&encoded, &tokens, target));
                        &shared
                    } else if let Some(example) = self.own_row(rendered, turn.message, target)? {
                        apart.push(example);
                        apart.last().expect("pushed above")
                    } else {
                        let message = "encoded after its prompt the turn does not decode to what it says";
                        turn.target = Err(Diagnostic::new(Code::TargetUnproved, message));
                        continue;
                    };
                    if let Ok(target) = &mut turn.target {
                        target.own_row = own_row;
                    }
                    let ending = example.endings.last().expect("trained above");
                    let found = &mut rendered.diagnostics;
                    if ending.id.is_none() {
                        let message = format!("the stop `{}` is not one token of this tokenizer", ending.text);
                        found.push(Diagnostic::new(Code::StopNotAToken, message));
                    }
                    if own_row {
                        found.push(Diagnostic::new(Code::OwnRow, "the turn has a row of its own"));
                    }
                    if ending.appended {
                        found.push(Diagnostic::new(Code::StopAppended, "the model's own stop was put at its end"));
                    }
                }
                rendered.turns = turns;
            }
            Mask::Template | Mask::HfCompat => {
                for block in &rendered.blocks {
                    let tokens = match mask {
                        Mask::HfCompat => hf_compat(&encoded, &rendered.text, block),
                        _ => inside(&encoded, block),
                    };
                    shared.label(&tokens);
                }
                shared.trained_messages.extend(rendered.turns.iter().map(|turn| turn.message));
            }
        }
        let mut examples = Vec::with_capacity(1 + apart.len());
        if shared.labels.iter().any(|&label| label != UNTRAINED) {
            examples.push(shared);
        }
        examples.append(&mut apart);
        for example in &mut examples {
            (example.text_hash, example.target_hash) = self.hashes(&example.input_ids, &example.labels)?;
        }
        Ok(examples)
    }

    /// A row of its own: the ids of the prompt, then those of the target, encoded alone as a server would see them.
    ///
    /// `None` if the ids decode to another text.
    fn own_row(&self, rendered: &Rendered, message: usize, target: &Target) -> Result<Option<Example>> {
        let (prompt, suppressed) = match (&target.prompt, target.shared) {
            (Some((prompt, suppressed)), _) => (prompt.as_str(), suppressed.clone()),
            (None, start) => {
                let start = start.expect("a target without a prompt is shared");
                let suppressed = rendered.suppressed.iter().copied().filter(|&at| at < start).collect();
                (&rendered.text[..start], suppressed)
            }
        };
        let mut encoded = self.encode(prompt, &suppressed)?;
        let first = encoded.ids.len();
        let generated = self.encode(&target.text, &target.suppressed)?;
        for (id, (start, end)) in generated.ids.into_iter().zip(generated.offsets) {
            encoded.push(id, (start + prompt.len(), end + prompt.len()));
        }
        let mut example = Example::of(&format!("{prompt}{}", target.text), &encoded);
        let tokens = first..encoded.ids.len();
        example.train(message, &tokens, self.ending(&encoded, &tokens, target));
        if self.joins {
            let whole = encode_with(&self.reference, &example.text)?;
            let whole: Vec<i32> = whole.ids.into_iter().map(u32::cast_signed).collect();
            if self.decode(&whole)? != self.decode(&example.input_ids)? {
                return Ok(None);
            }
        }
        Ok(Some(example))
    }

    /// How a target with these tokens ends: its stop has an id where it is one added token.
    fn ending(&self, encoded: &Encoded, tokens: &Range<usize>, target: &Target) -> Ending {
        let last = tokens.clone().next_back().filter(|&last| {
            let (start, end) = encoded.offsets[last];
            self.added.contains(&encoded.ids[last]) && end - start == target.stop
        });
        Ending {
            text: target.text[target.text.len() - target.stop..].to_owned(),
            id: last.map(|last| encoded.ids[last]),
            appended: target.appended_stop,
        }
    }

    /// Hashes of the decoded ids and of the decoded targets: runs of trained tokens, each closed by a zero byte.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`] where the reference cannot decode them.
    pub fn hashes(&self, input_ids: &[i32], labels: &[i32]) -> Result<(u64, u64)> {
        let text_hash = xxh3_64(self.decode(input_ids)?.as_bytes());
        let mut targets = String::new();
        let mut start = 0;
        while start < labels.len() {
            if labels[start] == UNTRAINED {
                start += 1;
                continue;
            }
            let end = (start..labels.len()).find(|&index| labels[index] == UNTRAINED).unwrap_or(labels.len());
            targets.push_str(&self.decode(&labels[start..end])?);
            targets.push('\0');
            start = end;
        }
        Ok((text_hash, xxh3_64(targets.as_bytes())))
    }

    /// The tokens of a target in a row; `None` unless they lie wholly inside it, and the ids before them are exactly
    /// those of its prompt.
    fn trained_tokens(
        &self,
        encoded: &Encoded,
        text: &str,
        suppressed: &[usize],
        target: &Range<usize>,
    ) -> Result<Option<Range<usize>>> {
        let first = encoded.offsets.partition_point(|&(_, end)| end <= target.start);
        let last = encoded.offsets.partition_point(|&(_, end)| end <= target.end);
        let starts_inside = encoded.offsets.get(first).is_none_or(|&(start, _)| start < target.start);
        let ends_inside = encoded.offsets.get(last).is_some_and(|&(start, _)| start < target.end);
        if starts_inside || ends_inside || first >= last {
            return Ok(None);
        }
        // An added token stands in the prompt as in the row, and what comes after it is encoded by itself: it is
        // enough to encode the prompt from the last such token on.
        let border = (0..first).rev().find(|&index| self.borders.contains(&encoded.ids[index]));
        let (from, from_byte) = border.map_or((0, 0), |index| (index, encoded.offsets[index].0));
        let shifted: Vec<usize> = suppressed.iter().filter(|&&at| at >= from_byte).map(|at| at - from_byte).collect();
        let prompt = self.encode(&text[from_byte..target.start], &shifted)?;
        Ok((prompt.ids == encoded.ids[from..first]).then_some(first..last))
    }
}

impl Example {
    fn of(text: &str, encoded: &Encoded) -> Self {
        Self {
            text: text.to_owned(),
            input_ids: encoded.ids.iter().map(|&id| id.cast_signed()).collect(),
            labels: vec![UNTRAINED; encoded.ids.len()],
            offsets: encoded.offsets.clone(),
            ..Self::default()
        }
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

impl Encoded {
    fn push(&mut self, id: u32, offsets: (usize, usize)) {
        self.ids.push(id);
        self.offsets.push(offsets);
    }
}

fn encode_with(reference: &Reference, text: &str) -> Result<Encoded> {
    let encoding = reference
        .encode(text, false)
        .map_err(|error| Error::new(ErrorKind::Tokenizer, format!("the tokenizer failed: {error}")))?;
    Ok(Encoded { ids: encoding.get_ids().to_vec(), offsets: encoding.get_offsets().to_vec() })
}

/// Tokens that lie wholly inside a block.
fn inside(encoded: &Encoded, block: &Range<usize>) -> Range<usize> {
    let first = encoded.offsets.partition_point(|&(start, _)| start < block.start);
    let last = encoded.offsets.partition_point(|&(_, end)| end <= block.end);
    first..last.max(first)
}

/// The bits of transformers: from the token of the first character to the token of the last one, and to the end of
/// the row where the last one has no token or is token 0 (transformers issue 47325).
fn hf_compat(encoded: &Encoded, text: &str, block: &Range<usize>) -> Range<usize> {
    let token_at = |byte: usize| encoded.offsets.iter().position(|&(start, end)| start <= byte && byte < end);
    let Some(first) = token_at(block.start) else {
        return 0..0;
    };
    let last_character = text[..block.end].char_indices().next_back().map_or(0, |(at, _)| at);
    match token_at(last_character) {
        None | Some(0) => first..encoded.ids.len(),
        Some(last) => first..(last + 1).max(first),
    }
}
