//! Text to ids and back, as by the reference.
//!
//! In: text, and where in it texts of control tokens begin that are to stay text. Out: [`Encoded`]: the ids that the
//! pinned `tokenizers` crate gives without added special tokens, with the bytes that each stands for; or the text of
//! ids. What the tokenizer loses on the way (a character without a token, a normaliser's work) is told by
//! [`Encoder::says`].

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, Encoding, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, PostProcessor,
    Tokenizer as Reference,
};

use super::added::Finder;
use super::engine::{Engine, Known};
use super::fast::Fast;
use super::proof::Difference;
use crate::error::{Error, ErrorKind, Result};
use crate::template::common_prefix;

/// Stands for "an added token" before a piece of text that follows one. No record holds it.
const MARK: char = '\u{FDD0}';

/// Ids with the bytes of the text that each stands for.
#[derive(Debug, Clone, Default)]
pub(super) struct Encoded {
    pub(super) ids: Vec<u32>,
    pub(super) offsets: Vec<(usize, usize)>,
    /// Whether it is known that the ids decode to exactly the text.
    pub(super) is_said: bool,
}

/// What is known of their text is no part of them.
impl PartialEq for Encoded {
    fn eq(&self, other: &Self) -> bool {
        self.ids == other.ids && self.offsets == other.offsets
    }
}

/// Longer texts are encoded piece by piece, so that some of them are compared with the reference.
const MOST_AT_ONCE: usize = 1 << 19;

/// Pieces of text that were encoded before. Windows of one dialogue say most things several times.
#[derive(Debug, Default)]
pub struct Memory {
    pieces: RefCell<HashTable<Piece>>,
    hasher: RandomState,
}

/// A text that was encoded.
#[derive(Debug)]
pub(super) struct Learnt {
    pub(super) text: String,
    pub(super) encoded: Encoded,
}

/// A piece of it.
#[derive(Debug, Clone)]
struct Piece {
    of: Rc<Learnt>,
    /// Where it is there, in bytes, and its tokens.
    bytes: Range<usize>,
    tokens: Range<usize>,
    /// The hash of its text.
    hash: u64,
}

impl Memory {
    fn hash(&self, piece: &str) -> u64 {
        self.hasher.hash_one(piece)
    }

    fn get(&self, hash: u64, piece: &str) -> Option<Piece> {
        self.pieces.borrow().find(hash, |known| known.text() == piece).cloned()
    }

    /// Keeps a piece, unless another one says the same.
    fn keep(&self, piece: Piece) {
        let (mut pieces, hash) = (self.pieces.borrow_mut(), piece.hash);
        if let Entry::Vacant(place) = pieces.entry(hash, |known| known.text() == piece.text(), |known| known.hash) {
            place.insert(piece);
        }
    }
}

/// Finds the added tokens behind which text is encoded by itself.
struct Borders {
    /// All added tokens that are looked for in text as it is, and whether they leave what is around them alone.
    finder: Finder<bool>,
    /// The ids of those, and the length of the longest of all, in bytes.
    ids: HashSet<u32, RandomState>,
    longest: usize,
}

/// A tokenizer, and what must be known about it. It is the same for every run.
struct Loaded {
    known: Arc<Known>,
    /// The added tokens that were declared beside its file.
    declared: String,
    added: HashMap<u32, AddedToken>,
    borders: Option<Borders>,
    /// Whether every text comes back from its ids, but for composed characters.
    lossless: bool,
    /// The same, but the texts of some control tokens are text to it; made when a text must not become one.
    bare: Mutex<Option<(Vec<String>, Arc<Known>)>>,
}

/// The tokenizer that was loaded last: who compiles again, or asks for a window, mostly wants the same.
static LAST: Mutex<Option<Arc<Loaded>>> = Mutex::new(None);

/// A tokenizer in a run.
pub(super) struct Encoder {
    loaded: Arc<Loaded>,
    engine: Engine,
    bare: OnceLock<Engine>,
}

/// Lets go of the tokenizer that is kept for whoever loads it again.
pub(super) fn forget() {
    if let Ok(mut last) = LAST.lock() {
        *last = None;
    }
}

/// A text without white space and the sign for it that some tokenizers put in its place.
fn bare(text: &str) -> String {
    text.chars().filter(|&letter| !letter.is_whitespace() && letter != '▁').collect()
}

pub(super) fn fail(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Tokenizer, format!("the tokenizer failed: {error}"))
}

impl Loaded {
    /// Reads a `tokenizer.json`; `declared` are added tokens by id as `tokenizer_config.json` has them, whose flags
    /// win, as in transformers.
    fn read(json: &[u8], declared: &[(u32, AddedToken)], key: String) -> Result<Self> {
        let json: Arc<[u8]> = json.into();
        let known = Known::read(&json, declared)?;
        let reference = known.source.parts()?;
        let added = reference.get_added_tokens_decoder().into_iter().collect();
        let lossless = is_lossless(reference);
        let borders = Borders::of(&added);
        Ok(Self { known: Arc::new(known), declared: key, added, borders, lossless, bare: Mutex::new(None) })
    }

    /// The same, from memory if it was the last one.
    fn get(json: &[u8], declared: &[(u32, AddedToken)]) -> Result<Arc<Self>> {
        let key = format!("{declared:?}");
        let last = LAST.lock().ok().and_then(|last| last.clone());
        if let Some(last) = last.filter(|last| last.known.source.json() == json && last.declared == key) {
            return Ok(last);
        }
        let loaded = Arc::new(Self::read(json, declared, key)?);
        if let Ok(mut last) = LAST.lock() {
            *last = Some(Arc::clone(&loaded));
        }
        Ok(loaded)
    }

    /// The tokenizer with nothing found in text before it is split, and with names for control tokens that no text
    /// has: some models know their vocabulary by name.
    fn bare(&self, control: &[String]) -> Result<Arc<Known>> {
        let last = self.bare.lock().ok().and_then(|last| last.clone());
        if let Some((_, bare)) = last.filter(|(names, _)| names == control) {
            return Ok(bare);
        }
        let json = without_control(self.known.source.json(), control)?.into();
        let bare = Arc::new(match self.known.path() {
            Ok(_) => Known::read(&json, &[])?,
            Err(why) => Known::slow(&json, why)?,
        });
        if let Ok(mut last) = self.bare.lock() {
            *last = Some((control.to_vec(), Arc::clone(&bare)));
        }
        Ok(bare)
    }
}

impl Encoder {
    /// Reads a `tokenizer.json`, unless it was the last one that was read; `declared` are added tokens by id as
    /// `tokenizer_config.json` has them, whose flags win, as in transformers.
    pub(super) fn load(json: &[u8], declared: &[(u32, AddedToken)]) -> Result<Self> {
        let loaded = Loaded::get(json, declared)?;
        let engine = Engine::new(Arc::clone(&loaded.known), None);
        Ok(Self { loaded, engine, bare: OnceLock::new() })
    }

    /// Leaves all the work to the reference.
    pub(super) fn leave_to_reference(&mut self, why: &str) {
        self.engine = Engine::new(Arc::clone(&self.loaded.known), Some(why.to_owned()));
        self.bare = OnceLock::new();
    }

    /// A text of this run that was not encoded as by the reference.
    pub(super) fn difference(&self) -> Option<&Difference> {
        self.engine.difference().or_else(|| self.bare.get()?.difference())
    }

    /// Compares texts of all kinds with the reference: how many were the same, or the first that is not.
    pub(super) fn prove(&self, strings: usize, is_whole: bool) -> Result<std::result::Result<usize, Difference>> {
        self.engine.known().prove(strings, is_whole)
    }

    #[cfg(test)]
    pub(super) fn spoil(&mut self) {
        let mut known = Known::read(&self.loaded.known.source.json().into(), &[]).expect("it was read before");
        known.spoil();
        self.engine = Engine::new(Arc::new(known), None);
        self.engine.compare_always();
    }

    /// The SHA-256 of its file.
    pub(super) fn digest(&self) -> &str {
        self.loaded.known.source.digest()
    }

    /// The name of the fast path, or why there is none.
    pub(super) fn path(&self) -> std::result::Result<String, String> {
        self.engine.fast().map(Fast::name).map_err(Clone::clone)
    }

    /// Compares what had to wait for the reference to be read; to be done before anything that was encoded is relied on.
    pub(super) fn settle(&self) -> Result<()> {
        self.engine.settle()?;
        self.bare.get().map_or(Ok(()), Engine::settle)
    }

    /// Waits until the reference is read.
    pub(super) fn ready(&self) -> Result<()> {
        self.loaded.known.source.whole().map(drop)
    }

    /// The text of an id.
    pub(super) fn text_of(&self, id: u32) -> Option<String> {
        let source = &self.loaded.known.source;
        source.parts().ok()?.id_to_token(id).or_else(|| source.whole().ok()?.id_to_token(id))
    }

    /// The id of a token.
    pub(super) fn id_of(&self, text: &str) -> Option<u32> {
        let source = &self.loaded.known.source;
        source.parts().ok()?.token_to_id(text).or_else(|| source.whole().ok()?.token_to_id(text))
    }

    /// One more than the largest id.
    pub(super) fn vocabulary_size(&self) -> usize {
        if let Some(largest) = self.loaded.known.largest() {
            return largest + 1;
        }
        let ids = self.loaded.known.source.whole().map(|whole| whole.get_vocab(true)).unwrap_or_default();
        ids.values().max().map_or(0, |&id| id as usize + 1)
    }

    /// The added token of an id.
    pub(super) fn added(&self, id: u32) -> Option<&AddedToken> {
        self.loaded.added.get(&id)
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
        self.loaded.added.values()
    }

    /// What changes the text before it is split, unless nothing does.
    pub(super) fn normalizer(&self) -> Option<&NormalizerWrapper> {
        let empty = |normalizer: &NormalizerWrapper| match normalizer {
            NormalizerWrapper::Sequence(steps) => steps.as_ref().is_empty(),
            _ => false,
        };
        self.loaded.known.source.parts().ok()?.get_normalizer().filter(|normalizer| !empty(normalizer))
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

    /// Appends the ids of a text in which nothing is suppressed, without their offsets.
    pub(super) fn append_ids(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        self.engine.append_ids(text, out)
    }

    /// Ids of a text in which nothing is suppressed, each piece of which is encoded once.
    ///
    /// A piece begins with an added token and ends before the next one, so it is encoded as in the whole text: see
    /// [`Encoder::is_border`].
    pub(super) fn encode_again(&self, text: &str, memory: &Memory) -> Result<Encoded> {
        self.encode_from(text, 0, memory)
    }

    /// Up to which token a text that begins as another does, which was encoded, certainly has the ids of that one: a
    /// border that ends before a place.
    pub(super) fn border_in(&self, text: &str, known: (&str, &Encoded), place: usize) -> Option<usize> {
        let ((known_text, known), borders) = (known, self.loaded.borders.as_ref()?);
        let common = common_prefix(text.as_bytes(), known_text.as_bytes());
        // What a token is that stands in both texts is decided by so many bytes from its beginning on.
        let is_certain = |&(start, end): &(usize, usize)| start + borders.longest <= common && end <= place;
        let inside = known.offsets.partition_point(is_certain);
        let is_border = |&index: &usize| {
            borders.ids.contains(&known.ids[index]) && self.added_at(known, index, known_text).is_some()
        };
        (0..inside).rev().find(is_border)
    }

    /// What comes from a border on that stands at a place of a text.
    pub(super) fn encode_from(&self, text: &str, mut at: usize, memory: &Memory) -> Result<Encoded> {
        let mut out = Encoded { is_said: true, ..Encoded::default() };
        for piece in self.pieces(&text[at..]) {
            out.append_piece(&self.remembered(piece, memory)?, at);
            at += piece.len();
        }
        Ok(out)
    }

    /// How many ids a text has in which nothing is suppressed.
    pub(super) fn count(&self, text: &str, memory: &Memory) -> Result<usize> {
        self.pieces(text).map(|piece| Ok(self.remembered(piece, memory)?.tokens.len())).sum()
    }

    fn remembered(&self, piece: &str, memory: &Memory) -> Result<Piece> {
        let hash = memory.hash(piece);
        if let Some(known) = memory.get(hash, piece) {
            return Ok(known);
        }
        let of = Rc::new(Learnt { text: piece.to_owned(), encoded: self.engine.encode(piece)? });
        let found = Piece { bytes: 0..piece.len(), tokens: 0..of.encoded.ids.len(), of, hash };
        memory.keep(found.clone());
        Ok(found)
    }

    /// Encodes a text in which nothing is suppressed as one, which takes less than piece by piece, and remembers its pieces.
    pub(super) fn learn(&self, text: String, memory: &Memory) -> Result<Rc<Learnt>> {
        if self.engine.fast().is_err() || text.len() > MOST_AT_ONCE {
            let encoded = self.encode_again(&text, memory)?;
            return Ok(Rc::new(Learnt { text, encoded }));
        }
        let encoded = self.engine.encode(&text)?;
        let of = Rc::new(Learnt { text, encoded });
        let offsets = &of.encoded.offsets;
        if !offsets.is_sorted_by_key(|&(start, _)| start) {
            return Ok(of); // a normaliser moves characters
        }
        let (mut start, mut first) = (0, 0);
        for piece in self.pieces(&of.text) {
            let end = start + piece.len();
            let last = first + offsets[first..].iter().take_while(|&&(token, _)| token < end).count();
            let begins = |token: usize, at: usize| offsets.get(token).map_or(of.text.len(), |&(start, _)| start) == at;
            if begins(first, start) && begins(last, end) {
                let (of, hash) = (Rc::clone(&of), memory.hash(piece));
                let found = Piece { of, bytes: start..end, tokens: first..last, hash };
                debug_assert_eq!(found.cut(), self.engine.encode(piece)?, "a piece of a text is encoded as by itself");
                memory.keep(found);
            }
            (start, first) = (end, last);
        }
        Ok(of)
    }

    /// A text in pieces that are encoded each by itself.
    fn pieces<'t>(&'t self, text: &'t str) -> impl Iterator<Item = &'t str> + 't {
        let (mut start, mut from) = (0, 0);
        let mut border = move || loop {
            let (at, end, is_border) = self.loaded.borders.as_ref()?.finder.find(text, from)?;
            from = end;
            if is_border && at > 0 {
                return Some(at);
            }
        };
        let mut is_done = false;
        std::iter::from_fn(move || {
            if is_done {
                return None;
            }
            let end = border();
            is_done = end.is_none();
            let piece = &text[start..end.unwrap_or(text.len())];
            start += piece.len();
            Some(piece)
        })
    }

    /// Ids of a text with the offsets that transformers sees, where these are others.
    pub(super) fn encode_as_transformers(&self, text: &str) -> Result<Option<Encoded>> {
        let Some(post_processor) = self.loaded.known.source.post_processor() else { return Ok(None) };
        let encoding = self.loaded.known.source.whole()?.encode(text, false).map_err(fail)?;
        Ok(Some(Encoded::of(&post_processor.process(encoding, None, false).map_err(fail)?)))
    }

    /// The text of ids, special tokens kept.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String> {
        self.engine.decode(ids)
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
        if self.loaded.lossless {
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

    fn bare(&self, control: &[String]) -> Result<&Engine> {
        if let Some(bare) = self.bare.get() {
            return Ok(bare);
        }
        let bare = self.loaded.bare(control)?;
        let refused = self.engine.fast().err().cloned();
        Ok(self.bare.get_or_init(|| Engine::new(bare, refused)))
    }
}

/// A `tokenizer.json` that finds nothing in text before it is split but [`MARK`], and gives control tokens names that no
/// text has.
fn without_control(json: &[u8], control: &[String]) -> Result<Vec<u8>> {
    let mut json: Value = serde_json::from_slice(json).map_err(fail)?;
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
    serde_json::to_vec(&json).map_err(fail)
}

impl Borders {
    /// `None` where there are none.
    fn of(added: &HashMap<u32, AddedToken>) -> Option<Self> {
        let found = added.iter().filter(|(_, token)| !token.normalized && !token.content.is_empty());
        let mut tokens: Vec<(&u32, &AddedToken)> = found.collect();
        tokens.sort_by_key(|(_, token)| &token.content);
        let (numbers, tokens): (Vec<u32>, Vec<&AddedToken>) = tokens.into_iter().unzip();
        // A token that takes white space with it may reach into one that is made of white space.
        let takes = |token: &AddedToken| token.lstrip || token.rstrip;
        let is_taken = tokens.iter().any(|token| takes(token));
        let is_blank = |token: &AddedToken| token.content.chars().any(char::is_whitespace);
        let is_border = |token: &&AddedToken| !(takes(token) || token.single_word || is_taken && is_blank(token));
        let is_border: Vec<bool> = tokens.iter().map(is_border).collect();
        let contents = tokens.iter().map(|token| token.content.as_str());
        let longest = contents.clone().map(str::len).max()?;
        let finder = Finder::of(&contents.zip(is_border.iter().copied()).collect::<Vec<_>>()).ok()??;
        let ids = numbers.into_iter().zip(&is_border).filter(|(_, is_border)| **is_border).map(|(id, _)| id).collect();
        is_border.contains(&true).then_some(Self { finder, ids, longest })
    }
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

impl Piece {
    fn text(&self) -> &str {
        &self.of.text[self.bytes.clone()]
    }

    /// The same by itself.
    fn cut(&self) -> Encoded {
        let mut cut = Encoded { is_said: true, ..Encoded::default() };
        cut.append_piece(self, 0);
        cut
    }
}

impl Encoded {
    pub(super) fn of(encoding: &Encoding) -> Self {
        Self { ids: encoding.get_ids().to_vec(), offsets: encoding.get_offsets().to_vec(), is_said: false }
    }

    #[inline]
    pub(super) fn push(&mut self, id: u32, offsets: (usize, usize)) {
        self.ids.push(id);
        self.offsets.push(offsets);
    }

    /// Adds what was encoded of a text that begins at a place.
    pub(super) fn append(&mut self, other: &Self, at: usize) {
        self.is_said &= other.is_said;
        self.ids.extend_from_slice(&other.ids);
        self.offsets.extend(other.offsets.iter().map(|&(start, end)| (start + at, end + at)));
    }

    /// These tokens of it, before others.
    pub(super) fn before(&self, count: usize, rest: &Self) -> Self {
        Self {
            ids: [&self.ids[..count], &rest.ids].concat(),
            offsets: [&self.offsets[..count], &rest.offsets].concat(),
            is_said: self.is_said && rest.is_said,
        }
    }

    /// Adds a piece that begins at a place.
    fn append_piece(&mut self, Piece { of, bytes, tokens, .. }: &Piece, at: usize) {
        let (Self { ids, offsets, is_said }, start) = (&of.encoded, bytes.start);
        self.is_said &= is_said;
        self.ids.extend_from_slice(&ids[tokens.clone()]);
        self.offsets.extend(offsets[tokens.clone()].iter().map(|&(from, to)| (from + at - start, to + at - start)));
    }
}
