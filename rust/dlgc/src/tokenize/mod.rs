//! Tokenising: rendered text becomes ids, and each target the labels of its tokens.
//!
//! In: a [`Rendered`]. Out: an [`Example`]. Ids are those of the reference, the pinned `tokenizers` crate, on the
//! rendered text without added special tokens, as transformers encodes it. What is guaranteed of a trained turn:
//! the ids before its target are exactly the ids of its prompt, its tokens lie wholly inside the target, and the last
//! ones are its stop.

mod control;
mod encode;
mod files;
mod gguf;

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::Dialogue;
use crate::error::Result;
use crate::template::{Rendered, Target};

pub use control::{ControlPolicy, OnControlToken};
pub use files::TokenizerFiles;

use control::ControlTokens;
use encode::{Encoded, Encoder};

/// The label of a token that is not trained.
pub const UNTRAINED: i32 = -100;

/// Text to ids, by the reference.
pub struct Tokenizer {
    encoder: Encoder,
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
    /// Loads a tokenizer.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference cannot read it.
    pub fn load(files: &TokenizerFiles) -> Result<Self> {
        let json = files.file("tokenizer.json").unwrap_or_default();
        let encoder = Encoder::load(json, files.declared_tokens())
            .map_err(|error| error.context(format!("while loading the tokenizer `{}`", files.origin)))?;
        let mut tokenizer = Self { encoder, control: ControlTokens::default() };
        tokenizer.set_control(tokenizer.special_tokens(), ControlPolicy::default());
        Ok(tokenizer)
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
        self.encoder.reference().id_to_token(id)
    }

    /// One more than the largest id.
    pub fn vocabulary_size(&self) -> usize {
        let largest = self.encoder.reference().get_vocab(true).values().copied().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// Ids that stop generation, by the files of the tokenizer.
    pub fn stop_ids(&self, files: &TokenizerFiles) -> Vec<u32> {
        files.stop_ids(self.encoder.reference())
    }

    /// The text of ids, special tokens kept.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference cannot decode them.
    pub fn decode(&self, ids: &[i32]) -> Result<String> {
        let ids: Vec<u32> = ids.iter().map(|&id| id.cast_unsigned()).collect();
        self.encoder.decode(&ids)
    }

    /// Ids of a text, without added special tokens.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference fails.
    pub fn ids(&self, text: &str) -> Result<Vec<i32>> {
        Ok(self.encode(text, &[])?.ids.into_iter().map(u32::cast_signed).collect())
    }

    /// A text with its ids, none of them trained; before the places in `suppressed` no added token begins.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference fails.
    pub fn untrained(&self, text: &str, suppressed: &[usize]) -> Result<Example> {
        Ok(Example::of(text, &self.encode(text, suppressed)?))
    }

    fn encode(&self, text: &str, suppressed: &[usize]) -> Result<Encoded> {
        self.encoder.encode(text, suppressed, self.control.tokens())
    }

    /// Turns a rendering into rows: one for all turns whose prompts nest in it, one for each of the others.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference fails.
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
                    let own = match tokens {
                        Some(_) => None,
                        None => self.own_row(rendered, target)?,
                    };
                    let placed = match (&own, tokens) {
                        (Some(row), _) => {
                            Some((&row.encoded, row.tokens.clone(), row.text.as_str(), row.target.clone()))
                        }
                        (None, Some(tokens)) => {
                            target.range().map(|range| (&encoded, tokens, rendered.text.as_str(), range))
                        }
                        (None, None) => None,
                    };
                    let Some((encoded, tokens, text, range)) = placed else {
                        let message = "encoded after its prompt the turn does not decode to what it says";
                        turn.target = Err(Diagnostic::new(Code::TargetUnproved, message));
                        continue;
                    };
                    let stop = &target.text[target.text.len() - target.stop..];
                    let whole_stop = self.is_added(encoded.ids[tokens.end - 1], stop);
                    if let Some(why) = self.unsaid(encoded, &tokens, text, &range, (!whole_stop).then_some(stop))? {
                        turn.target = Err(Diagnostic::new(Code::TargetUnproved, why));
                        continue;
                    }
                    let last = encoded.ids[tokens.end - 1];
                    let (text, appended) = (stop.to_owned(), target.appended_stop);
                    let ending = Ending { text, id: whole_stop.then_some(last), appended };
                    let found = &mut rendered.diagnostics;
                    if !whole_stop {
                        let message = format!("the stop `{stop}` is not one token of this tokenizer");
                        found.push(Diagnostic::new(Code::StopNotAToken, message));
                    }
                    if target.appended_stop {
                        found.push(Diagnostic::new(Code::StopAppended, "the model's own stop was put at its end"));
                    }
                    if let Ok(target) = &mut turn.target {
                        target.own_row = own.is_some();
                    }
                    match &own {
                        None => shared.train(turn.message, &tokens, ending),
                        Some(row) => {
                            found.push(Diagnostic::new(Code::OwnRow, "the turn has a row of its own"));
                            let mut example = Example::of(&row.text, &row.encoded);
                            example.train(turn.message, &tokens, ending);
                            apart.push(example);
                        }
                    }
                }
                rendered.turns = turns;
            }
            Mask::Template | Mask::HfCompat => {
                let seen = match mask {
                    Mask::HfCompat if rendered.suppressed.is_empty() => {
                        &self.encoder.encode_as_transformers(&rendered.text)?
                    }
                    _ => &encoded,
                };
                for block in &rendered.blocks {
                    let tokens = match mask {
                        Mask::HfCompat => hf_compat(seen, &rendered.text, block),
                        _ => inside(seen, block),
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

    /// A row of its own: the prompt and what has to be generated after it.
    ///
    /// Where the ids of both together begin with those of the prompt, it is they. Where not, it is the ids of the
    /// prompt, then those of the target, encoded alone; `None` if these do not decode to what both say.
    fn own_row(&self, rendered: &Rendered, target: &Target) -> Result<Option<OwnRow>> {
        let (prompt, mut suppressed) = match (&target.prompt, target.shared) {
            (Some((prompt, suppressed)), _) => (prompt.as_str(), suppressed.clone()),
            (None, start) => {
                let start = start.expect("a target without a prompt is shared");
                let suppressed = rendered.suppressed.iter().copied().filter(|&at| at < start).collect();
                (&rendered.text[..start], suppressed)
            }
        };
        let before = suppressed.len();
        suppressed.extend(target.suppressed.iter().map(|at| at + prompt.len()));
        let text = format!("{prompt}{}", target.text);
        let range = prompt.len()..text.len();
        let whole = self.encode(&text, &suppressed)?;
        if let Some(tokens) = self.trained_tokens(&whole, &text, &suppressed, &range)? {
            return Ok(Some(OwnRow { text, target: range, encoded: whole, tokens }));
        }
        let prompt_ids = self.encode(prompt, &suppressed[..before])?;
        let generated = self.encode(&target.text, &target.suppressed)?;
        // Where the tokenizer puts a space before every text, it may be a token of its own, which is left out.
        let invented = matches!(generated.offsets[..], [(0, _), (0, _), ..]);
        for skip in 0..=usize::from(invented) {
            let mut encoded = Encoded { ids: prompt_ids.ids.clone(), offsets: prompt_ids.offsets.clone() };
            let tokens = encoded.ids.len()..encoded.ids.len() + generated.ids.len() - skip;
            for (&id, &(start, end)) in generated.ids.iter().zip(&generated.offsets).skip(skip) {
                encoded.push(id, (start + prompt.len(), end + prompt.len()));
            }
            let prompt_text = self.encoder.decode(&prompt_ids.ids)?;
            let decoded = self.encoder.decode(&encoded.ids)?;
            let said = decoded.strip_prefix(&prompt_text);
            let says = said == Some(&target.text)
                || said == Some(&self.encoder.normalised(&encoded, &tokens, &text, &range))
                || skip == 0 && decoded == self.encoder.decode(&whole.ids)?;
            if says && !tokens.is_empty() {
                return Ok(Some(OwnRow { text, target: range, encoded, tokens }));
            }
        }
        Ok(None)
    }

    /// Why tokens do not say what their text says; `stop` is what they must end in where that is no token.
    fn unsaid(
        &self,
        encoded: &Encoded,
        tokens: &Range<usize>,
        text: &str,
        target: &Range<usize>,
        stop: Option<&str>,
    ) -> Result<Option<String>> {
        if !self.encoder.says(encoded, tokens, text, target)? {
            let said = self.encoder.decode(&encoded.ids[tokens.clone()])?;
            return Ok(Some(format!("the tokenizer cannot say the turn: its ids decode to `{}`", start_of(&said))));
        }
        if let Some(stop) = stop
            && !self.encoder.decode(&encoded.ids[tokens.clone()])?.ends_with(stop)
        {
            return Ok(Some(format!("the tokenizer cannot say the stop `{stop}`")));
        }
        Ok(None)
    }

    /// Whether an id is the added token of a text.
    fn is_added(&self, id: u32, text: &str) -> bool {
        self.encoder.added(id).is_some_and(|token| token.content == text)
    }

    /// Hashes of the decoded ids and of the decoded targets: runs of trained tokens, each closed by a zero byte.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference cannot decode them.
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
        let prompt = self.encode(&text[from_byte..target.start], &shifted)?;
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

/// A row of its own, and where in it the target is.
struct OwnRow {
    text: String,
    target: Range<usize>,
    encoded: Encoded,
    tokens: Range<usize>,
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
