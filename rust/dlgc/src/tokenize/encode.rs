//! Text to ids and back, as by the reference.
//!
//! In: text, and where in it texts of control tokens begin that are to stay text. Out: [`Encoded`]: the ids that the
//! pinned `tokenizers` crate gives without added special tokens, with the bytes that each stands for; or the text of
//! ids. Where [`Fast`] knows the tokenizer it does the work, and the reference is asked about some texts of a run. What the reference loses on the way (a character without a token, a normaliser's work) is told by
//! [`Encoder::says`].

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use aho_corasick::{AhoCorasick, MatchKind};
use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, Encoding, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, PostProcessor,
    PostProcessorWrapper, Tokenizer as Reference,
};
use xxhash_rust::xxh3::xxh3_64;

use super::fast::Fast;
use super::proof::{Difference, Texts, compare, lengths, scalars};
use crate::error::{Error, ErrorKind, Result};
use crate::panics::caught;

/// Stands for "an added token" before a piece of text that follows one. No record holds it.
const MARK: char = '\u{FDD0}';

/// Ids with the bytes of the text that each stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Encoded {
    pub(super) ids: Vec<u32>,
    pub(super) offsets: Vec<(usize, usize)>,
}

/// Pieces of text that were encoded before. Windows of one dialogue say most things several times.
#[derive(Debug, Default)]
pub struct Memory(RefCell<HashMap<Box<str>, Rc<Encoded>>>);

/// Finds the added tokens behind which text is encoded by itself.
struct Borders {
    /// All added tokens that are looked for in text as it is, in the reference's own way.
    finder: AhoCorasick,
    /// Which of them leave what is around them alone.
    is_border: Vec<bool>,
}

/// The reference, and what encodes as it does where that is known.
struct Engine {
    reference: Reference,
    /// Or why the reference does all the work.
    fast: std::result::Result<Fast, String>,
    /// How many texts were encoded, as far as that matters: the first ones are compared.
    encoded: AtomicUsize,
    /// A text that was not encoded as by the reference.
    difference: OnceLock<Difference>,
}

/// So many texts of a run are compared with the reference first, and of the others one in so many, by their hash.
const FIRST: usize = 64;
const ONE_IN: u64 = 1000;
/// Longer texts are not: the reference takes a hundred bytes of memory for each of theirs.
const LONGEST: usize = 1 << 20;
/// So many random texts are compared when a tokenizer is loaded.
const AT_LOAD: usize = 400;

/// The reference, and what must be known about it.
pub(super) struct Encoder {
    engine: Engine,
    /// The same, but the texts of control tokens are text to it; made when a text must not become one.
    bare: OnceLock<Engine>,
    json: Vec<u8>,
    added: HashMap<u32, AddedToken>,
    borders: Option<Borders>,
    /// Trims offsets in some tokenizers, which only what equals transformers' bits may see.
    post_processor: Option<PostProcessorWrapper>,
    /// Whether every text comes back from its ids, but for composed characters.
    lossless: bool,
}

/// A text without white space and the sign for it that some tokenizers put in its place.
fn bare(text: &str) -> String {
    text.chars().filter(|&letter| !letter.is_whitespace() && letter != '▁').collect()
}

fn fail(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Tokenizer, format!("the tokenizer failed: {error}"))
}

impl Encoder {
    /// Reads a `tokenizer.json`; `declared` are added tokens by id as `tokenizer_config.json` has them, whose flags
    /// win, as in transformers.
    pub(super) fn load(json: &[u8], declared: Vec<(u32, AddedToken)>) -> Result<Self> {
        let mut reference = read(json)?;
        let known = reference.get_added_tokens_decoder();
        let mut changed = Vec::new();
        for (id, token) in declared {
            if reference.token_to_id(&token.content) != Some(id) {
                let message = format!(
                    "`tokenizer_config.json` gives the added token `{}` the id {id}, `tokenizer.json` does not",
                    token.content
                );
                return Err(Error::new(ErrorKind::Tokenizer, message)
                    .hint("`AutoTokenizer.from_pretrained(DIR).save_pretrained(NEW_DIR)` writes files that agree"));
            }
            if known.get(&id) != Some(&token) {
                changed.push(token);
            }
        }
        reference.add_tokens(changed).map_err(fail)?;
        let post_processor = reference.get_post_processor().cloned();
        reference.with_post_processor(None::<PostProcessorWrapper>);
        let added = reference.get_added_tokens_decoder().into_iter().collect();
        let lossless = is_lossless(&reference);
        let borders = Borders::of(&added);
        let engine = Engine::new(reference, json)?;
        Ok(Self { engine, bare: OnceLock::new(), json: json.to_vec(), added, borders, post_processor, lossless })
    }

    /// Leaves all the work to the reference.
    pub(super) fn leave_to_reference(&mut self, why: &str) {
        self.engine.fast = Err(why.to_owned());
        self.engine.difference = OnceLock::new();
        self.bare = OnceLock::new();
    }

    /// A text of this run that was not encoded as by the reference.
    pub(super) fn difference(&self) -> Option<&Difference> {
        self.engine.difference.get().or_else(|| self.bare.get()?.difference.get())
    }

    /// Compares texts of all kinds with the reference: how many were the same, or the first that is not.
    pub(super) fn prove(&self, strings: usize, is_whole: bool) -> Result<std::result::Result<usize, Difference>> {
        self.engine.prove(strings, is_whole)
    }

    #[cfg(test)]
    pub(super) fn spoil(&mut self) {
        self.engine.fast.as_mut().expect("a fast path").spoil();
    }

    /// The name of the fast path, or why there is none.
    pub(super) fn path(&self) -> std::result::Result<String, String> {
        self.engine.fast.as_ref().map(Fast::name).map_err(Clone::clone)
    }

    /// The reference itself.
    pub(super) fn reference(&self) -> &Reference {
        &self.engine.reference
    }

    /// The added token of an id.
    pub(super) fn added(&self, id: u32) -> Option<&AddedToken> {
        self.added.get(&id)
    }

    /// The added token at an index, where the text really holds it: an unknown token may stand for anything.
    pub(super) fn added_at(&self, encoded: &Encoded, index: usize, text: &str) -> Option<&AddedToken> {
        let token = self.added(encoded.ids[index])?;
        let (start, end) = encoded.offsets[index];
        let slice = text.get(start..end)?;
        let stands = slice.contains(&token.content)
            || token.normalized && self.normalise(slice).contains(&self.normalise(&token.content));
        stands.then_some(token)
    }

    /// Whether the text before a token and the text after it are encoded each by itself, wherever they stand.
    pub(super) fn is_border(&self, encoded: &Encoded, index: usize, text: &str) -> bool {
        self.added_at(encoded, index, text).is_some_and(|token| !token.normalized && !token.single_word)
    }

    fn normalise(&self, text: &str) -> String {
        let mut normalised = NormalizedString::from(text);
        match self.normalizer().map(|normalizer| normalizer.normalize(&mut normalised)) {
            Some(Ok(())) => normalised.get().to_owned(),
            _ => text.to_owned(),
        }
    }

    /// All added tokens.
    pub(super) fn all_added(&self) -> impl Iterator<Item = &AddedToken> {
        self.added.values()
    }

    /// What changes the text before it is split, unless nothing does.
    pub(super) fn normalizer(&self) -> Option<&NormalizerWrapper> {
        let empty = |normalizer: &NormalizerWrapper| match normalizer {
            NormalizerWrapper::Sequence(steps) => steps.as_ref().is_empty(),
            _ => false,
        };
        self.engine.reference.get_normalizer().filter(|normalizer| !empty(normalizer))
    }

    /// Ids of a text. Texts of `control` tokens that begin at `suppressed` places stay text.
    pub(super) fn encode(&self, text: &str, suppressed: &[usize], control: &[String]) -> Result<Encoded> {
        let whole = self.engine.encode(text)?;
        let is_added = |index: usize| self.added_at(&whole, index, text).is_some();
        // A token may have swallowed white space before its text.
        let is_hit = |index: usize| {
            let (start, end) = whole.offsets[index];
            is_added(index) && suppressed.iter().any(|at| (start..end).contains(at))
        };
        if suppressed.is_empty() || !(0..whole.ids.len()).any(is_hit) {
            return Ok(whole);
        }
        // Between two added tokens the text is encoded by itself. Where a suppressed one stands in such a piece, the
        // piece is encoded again, as what follows an added token, by a tokenizer to which it is no token.
        let bare = self.bare(control)?;
        let mut out = Encoded::default();
        let mut index = 0;
        while index < whole.ids.len() {
            let is_real = |index: &usize| is_added(*index) && !is_hit(*index);
            if is_real(&index) {
                out.push(whole.ids[index], whole.offsets[index]);
                index += 1;
                continue;
            }
            let next = (index..whole.ids.len()).find(is_real).unwrap_or(whole.ids.len());
            let start = if index == 0 { 0 } else { whole.offsets[index - 1].1 };
            let end = if next < whole.ids.len() { whole.offsets[next].0 } else { text.len() };
            if (index..next).any(is_hit) {
                let mark = if index == 0 { String::new() } else { MARK.to_string() };
                let piece = bare.encode(&format!("{mark}{}", &text[start..end]))?;
                let skip = usize::from(!mark.is_empty());
                for (&id, &(from, to)) in piece.ids.iter().zip(&piece.offsets).skip(skip) {
                    out.push(id, (from + start - mark.len(), to + start - mark.len()));
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

    /// Ids of a text in which nothing is suppressed, each piece of which is encoded once.
    ///
    /// A piece begins with an added token and ends before the next one, so it is encoded as in the whole text: see
    /// [`Encoder::is_border`].
    pub(super) fn encode_again(&self, text: &str, memory: &Memory) -> Result<Encoded> {
        let mut out = Encoded::default();
        let mut at = 0;
        for piece in self.pieces(text) {
            let encoded = self.remembered(piece, memory)?;
            out.append(&encoded, at);
            at += piece.len();
        }
        Ok(out)
    }

    /// How many ids a text has in which nothing is suppressed.
    pub(super) fn count(&self, text: &str, memory: &Memory) -> Result<usize> {
        self.pieces(text).map(|piece| Ok(self.remembered(piece, memory)?.ids.len())).sum()
    }

    fn remembered(&self, piece: &str, memory: &Memory) -> Result<Rc<Encoded>> {
        if let Some(known) = memory.0.borrow().get(piece) {
            return Ok(Rc::clone(known));
        }
        let encoded = Rc::new(self.engine.encode(piece)?);
        memory.0.borrow_mut().insert(piece.into(), Rc::clone(&encoded));
        Ok(encoded)
    }

    /// A text in pieces that are encoded each by itself.
    fn pieces<'t>(&'t self, text: &'t str) -> impl Iterator<Item = &'t str> + 't {
        let found = self.borders.iter().flat_map(move |borders| {
            let is_border = |found: &aho_corasick::Match| borders.is_border[found.pattern().as_usize()];
            borders.finder.find_iter(text).filter(is_border).map(|found| found.start())
        });
        let mut ends = found.filter(|&at| at > 0).chain(std::iter::once(text.len()));
        let mut start = 0;
        std::iter::from_fn(move || {
            let end = ends.next()?;
            let piece = &text[start..end];
            start = end;
            Some(piece)
        })
    }

    /// Ids of a text, with the offsets that transformers sees.
    pub(super) fn encode_as_transformers(&self, text: &str) -> Result<Encoded> {
        let Some(post_processor) = &self.post_processor else { return self.engine.encode(text) };
        let encoding = self.engine.reference.encode(text, false).map_err(fail)?;
        Ok(Encoded::of(&post_processor.process(encoding, None, false).map_err(fail)?))
    }

    /// The text of ids, special tokens kept.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(text) = self.engine.fast.as_ref().ok().and_then(|fast| fast.decode(ids)) {
            return Ok(text);
        }
        self.engine.reference.decode(ids, false).map_err(fail)
    }

    /// Whether ids say what the text says, as far as the tokenizer can: white space and what its normaliser changes
    /// are no difference, a lost character is.
    pub(super) fn says(
        &self,
        encoded: &Encoded,
        tokens: &Range<usize>,
        text: &str,
        whole: &Range<usize>,
    ) -> Result<bool> {
        if self.lossless {
            return Ok(true);
        }
        let decoded = self.decode(&encoded.ids[tokens.clone()])?;
        let said = &text[whole.clone()];
        if decoded == said {
            return Ok(true);
        }
        Ok(bare(&decoded) == bare(&self.normalised(encoded, tokens, text, whole)))
    }

    /// The text of a range as the normaliser leaves it; added tokens stand as they are.
    pub(super) fn normalised(
        &self,
        encoded: &Encoded,
        tokens: &Range<usize>,
        text: &str,
        whole: &Range<usize>,
    ) -> String {
        let mut out = String::new();
        let mut at = whole.start;
        for index in tokens.clone() {
            let (start, end) = encoded.offsets[index];
            if let Some(token) = self.added_at(encoded, index, text).filter(|_| start >= at) {
                out.push_str(&self.normalise(&text[at..start]));
                out.push_str(&token.content);
                at = end.min(whole.end);
            }
        }
        out.push_str(&self.normalise(&text[at..whole.end]));
        out
    }

    /// The reference with nothing found in text before it is split, and with names for control tokens that no text
    /// has: some models know their vocabulary by name.
    fn bare(&self, control: &[String]) -> Result<&Engine> {
        if let Some(bare) = self.bare.get() {
            return Ok(bare);
        }
        let mut json: Value = serde_json::from_slice(&self.json).map_err(fail)?;
        json["added_tokens"] = json!([{"id": u32::MAX, "content": MARK.to_string(), "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false, "special": true}]);
        let mut control: HashSet<&str> = control.iter().map(String::as_str).collect();
        let unknown = json["model"]["unk_token"].as_str().map(ToOwned::to_owned);
        control.remove(unknown.as_deref().unwrap_or_default());
        let is_control = |name: &str| control.contains(name);
        let renamed = |name: &str| format!("{MARK}{name}");
        match &mut json["model"]["vocab"] {
            Value::Object(vocab) => {
                *vocab = std::mem::take(vocab)
                    .into_iter()
                    .map(|(name, id)| if is_control(&name) { (renamed(&name), id) } else { (name, id) })
                    .collect();
            }
            Value::Array(pieces) => {
                for name in pieces.iter_mut().filter_map(|piece| piece.get_mut(0)) {
                    if let Some(control) = name.as_str().filter(|name| is_control(name)) {
                        *name = renamed(control).into();
                    }
                }
            }
            _ => {}
        }
        if let Some(merges) = json["model"]["merges"].as_array_mut() {
            merges.retain(|merge| {
                let pair = match merge {
                    Value::String(text) => text.split_once(' '),
                    _ => merge.get(0).and_then(Value::as_str).zip(merge.get(1).and_then(Value::as_str)),
                };
                pair.is_none_or(|(left, right)| {
                    !is_control(left) && !is_control(right) && !is_control(&format!("{left}{right}"))
                })
            });
        }
        let json = serde_json::to_vec(&json).map_err(fail)?;
        let mut bare = read(&json)?;
        bare.with_post_processor(None::<PostProcessorWrapper>);
        let bare = match &self.engine.fast {
            Ok(_) => Engine::new(bare, &json)?,
            Err(why) => Engine::of(bare, Err(why.clone())),
        };
        Ok(self.bare.get_or_init(|| bare))
    }
}

impl Engine {
    fn of(reference: Reference, fast: std::result::Result<Fast, String>) -> Self {
        Self { reference, fast, encoded: AtomicUsize::new(0), difference: OnceLock::new() }
    }

    /// With a fast path, if there is one for the tokenizer and it passes its test.
    fn new(reference: Reference, json: &[u8]) -> Result<Self> {
        let fast = caught(|| Fast::of(json, &reference)).unwrap_or_else(|said| Err(format!("it failed: {said}")));
        let mut engine = Self::of(reference, fast);
        if let Err(difference) = engine.prove(AT_LOAD, false)? {
            engine.fast = Err(format!("it failed its test: {difference}"));
        }
        Ok(engine)
    }

    fn by_reference(&self, text: &str) -> Result<Encoded> {
        Ok(Encoded::of(&self.reference.encode(text, false).map_err(fail)?))
    }

    fn encode(&self, text: &str) -> Result<Encoded> {
        let Ok(fast) = &self.fast else { return self.by_reference(text) };
        let found = caught(|| fast.encode(text, &|text| self.by_reference(text)));
        let found = match found {
            Ok(encoded) => {
                let encoded = encoded?;
                if !self.is_compared(text) || encoded == self.by_reference(text)? {
                    return Ok(encoded);
                }
                self.compare(fast, text)?
            }
            Err(_) => self.compare(fast, text)?,
        };
        let difference = found.unwrap_or_else(|| Difference {
            text: String::new(),
            fast: "something else than before".to_owned(),
            reference: "what it made before".to_owned(),
        });
        let message = format!("the fast tokeniser does not do as the reference does: {difference}");
        let _ = self.difference.set(difference); // another thread may have been first
        Err(Error::new(ErrorKind::Tokenizer, message).hint("this is a bug in dlgc: please report it"))
    }

    fn compare(&self, fast: &Fast, text: &str) -> Result<Option<Difference>> {
        let anew = |text: &str| match caught(|| fast.encode(text, &|text| self.by_reference(text))) {
            Ok(Ok(encoded)) => Ok(encoded),
            Ok(Err(error)) => Err(error.to_string()),
            Err(said) => Err(said),
        };
        compare(text, &anew, &|text| self.by_reference(text))
    }

    /// Whether ids are decoded as by the reference, also where they begin and end inside characters.
    fn compare_decoded(&self, fast: &Fast, text: &str) -> Result<Option<Difference>> {
        let ids = self.by_reference(text)?.ids;
        for ids in [ids.as_slice(), ids.get(1..).unwrap_or_default()] {
            let Some(found) = fast.decode(ids) else { return Ok(None) };
            let expected = self.reference.decode(ids, false).map_err(fail)?;
            if found != expected {
                return Ok(Some(Difference { text: format!("{ids:?}"), fast: found, reference: expected }));
            }
        }
        Ok(None)
    }

    /// Whether a text of a run is encoded by the reference too.
    fn is_compared(&self, text: &str) -> bool {
        text.len() <= LONGEST
            && (self.encoded.load(Ordering::Relaxed) < FIRST && self.encoded.fetch_add(1, Ordering::Relaxed) < FIRST
                || xxh3_64(text.as_bytes()).is_multiple_of(ONE_IN))
    }

    fn prove(&self, strings: usize, is_whole: bool) -> Result<std::result::Result<usize, Difference>> {
        let Ok(fast) = &self.fast else { return Ok(Ok(0)) };
        let mut added: Vec<(u32, AddedToken)> = self.reference.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        let added: Vec<String> = added.into_iter().map(|(_, token)| token.content).collect();
        let said = fast.said(if is_whole { 1 } else { 97 });
        let edges = is_whole.then(lengths).into_iter().flatten();
        let texts = Texts::new(1, &said, &added).take(strings).chain(edges);
        let mut same = 0;
        for text in texts.chain(is_whole.then(scalars).into_iter().flatten()) {
            if let Some(difference) = self.compare(fast, &text)?.or(self.compare_decoded(fast, &text)?) {
                return Ok(Err(difference));
            }
            same += 1;
        }
        Ok(Ok(same))
    }
}

impl Borders {
    /// `None` where there are none.
    fn of(added: &HashMap<u32, AddedToken>) -> Option<Self> {
        let mut tokens: Vec<&AddedToken> =
            added.values().filter(|token| !token.normalized && !token.content.is_empty()).collect();
        tokens.sort_by_key(|token| &token.content);
        // A token that takes white space with it may reach into one that is made of white space.
        let takes = |token: &AddedToken| token.lstrip || token.rstrip;
        let is_taken = tokens.iter().any(|token| takes(token));
        let is_blank = |token: &AddedToken| token.content.chars().any(char::is_whitespace);
        let is_border = |token: &&AddedToken| !(takes(token) || token.single_word || is_taken && is_blank(token));
        let is_border: Vec<bool> = tokens.iter().map(is_border).collect();
        let contents = tokens.iter().map(|token| token.content.as_bytes());
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(contents).ok()?;
        is_border.contains(&true).then_some(Self { finder, is_border })
    }
}

/// Reads a `tokenizer.json`, without what somebody's training script left in it: padding, truncation and dropout are
/// not part of a text's ids.
fn read(json: &[u8]) -> Result<Reference> {
    let mut reference = Reference::from_bytes(json)
        .map_err(|error| Error::new(ErrorKind::Tokenizer, format!("`tokenizer.json` cannot be read: {error}")))?;
    reference.with_padding(None);
    reference.with_truncation(None).map_err(fail)?;
    if let ModelWrapper::BPE(bpe) = reference.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        reference.with_model(bpe);
    }
    Ok(reference)
}

/// Whether a tokenizer is made of parts that are known to lose nothing, and has a token for every byte.
fn is_lossless(reference: &Reference) -> bool {
    let ModelWrapper::BPE(bpe) = reference.get_model() else { return false };
    let part = |part: Option<Value>| part.unwrap_or(Value::Null);
    let decoder = part(serde_json::to_value(reference.get_decoder()).ok());
    let normalizer = part(serde_json::to_value(reference.get_normalizer()).ok());
    let pre_tokenizer = part(serde_json::to_value(reference.get_pre_tokenizer()).ok());
    let steps = |part: &Value, list: &str| match part["type"].as_str() {
        Some("Sequence") => part[list].as_array().cloned().unwrap_or_default(),
        Some(_) => vec![part.clone()],
        None => Vec::new(),
    };
    let plain = |affix: &Option<String>| affix.as_deref().unwrap_or_default().is_empty();
    let splits = steps(&pre_tokenizer, "pretokenizers");
    plain(&bpe.continuing_subword_prefix)
        && plain(&bpe.end_of_word_suffix)
        && decoder["type"] == "ByteLevel"
        && steps(&normalizer, "normalizers").iter().all(|step| step["type"] == "NFC")
        && splits.iter().any(|step| step["type"] == "ByteLevel")
        && splits.iter().all(|step| match step["type"].as_str() {
            Some("ByteLevel") => step["add_prefix_space"] == false,
            Some("Digits") => true,
            Some("Split") => step["behavior"] != "Removed",
            _ => false,
        })
        && ByteLevel::alphabet().into_iter().all(|byte| reference.token_to_id(&byte.to_string()).is_some())
}

impl Encoded {
    fn of(encoding: &Encoding) -> Self {
        Self { ids: encoding.get_ids().to_vec(), offsets: encoding.get_offsets().to_vec() }
    }

    pub(super) fn push(&mut self, id: u32, offsets: (usize, usize)) {
        self.ids.push(id);
        self.offsets.push(offsets);
    }

    /// Adds what was encoded of a text that begins at a place.
    pub(super) fn append(&mut self, other: &Self, at: usize) {
        self.ids.extend_from_slice(&other.ids);
        self.offsets.extend(other.offsets.iter().map(|&(start, end)| (start + at, end + at)));
    }
}
