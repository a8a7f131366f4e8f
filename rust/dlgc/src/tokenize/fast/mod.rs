//! The fast tokeniser: exactly the reference's ids and offsets, for tokenizers made of parts that are known.
//!
//! In: a text. Out: its [`Encoded`]. Added tokens are split off (`added`), what is between them is cut into pieces
//! (`split`), and those into words where no merge crosses (`joins`); words that came before are looked up (`cache`),
//! the others merged (`merge`). What is not known for certain (a text that its normaliser changes, a token that looks
//! at its neighbours, any tokenizer with an unknown part) is left to the reference.

mod added;
mod cache;
mod joins;
mod merge;
mod parts;
mod split;
mod unicode;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;

use tokenizers::normalizers::NFC;
use tokenizers::{NormalizedString, Normalizer, Tokenizer as Reference};

use super::encode::Encoded;
use crate::error::Result;

use added::{Finder, Token};
use cache::{Cache, Key, SHORT, key};
use joins::{Joins, THREE_BYTES};
use merge::{Merges, Scratch};
use parts::{Kind, Parts, SPACE_SIGN};
use unicode::{UNICODE, decode};

/// How many pieces are cut before they are looked up.
const BATCH: usize = 1024;
/// Set in the end of a word that is only a part of its piece.
const PART: u32 = 1 << 31;
/// Set in the length of a key: a part of a piece, and the first word of a text before which a `▁` is put.
const PART_KEY: Key = 0x40 << 120;
const FIRST_KEY: Key = 0x80 << 120;
/// An id that no token has.
const NO_ID: u32 = u32::MAX;

/// A tokenizer that is known.
pub(super) struct Fast {
    kind: Kind,
    nfc: bool,
    added: Option<Finder>,
    normalized: Option<Finder>,
    merges: Merges,
    joins: Joins,
    /// The symbol of each byte.
    bytes: Vec<u32>,
    /// The symbols of characters of up to three bytes, and of others.
    characters: Vec<u32>,
    others: HashMap<u32, u32>,
    /// How many bytes of text each token stands for.
    lengths: Vec<u32>,
    /// Pieces that are tokens, though merging does not give them.
    whole: HashMap<Vec<u8>, u32>,
    workers: Mutex<Vec<Box<Worker>>>,
}

/// What one thread needs for itself.
#[derive(Default)]
struct Worker {
    cache: Cache,
    ends: Vec<u32>,
    words: Vec<u32>,
    symbols: Vec<u32>,
    scratch: Scratch,
}

/// The reference, for a text by itself.
type Slow<'s> = &'s dyn Fn(&str) -> Result<Encoded>;

/// Whether a text could be encoded here.
#[derive(PartialEq, Eq)]
enum Done {
    Yes,
    /// A token in it looks at its neighbours.
    No,
}

impl Fast {
    /// # Errors
    /// Why the tokenizer is left to the reference.
    pub(super) fn of(json: &[u8], reference: &Reference) -> std::result::Result<Self, String> {
        let parts = Parts::of(json, reference)?;
        let largest = parts.vocabulary.last().map_or(0, |(id, _)| *id as usize);
        if largest > 1 << 24 {
            return Err("its ids are too large".to_owned());
        }
        let mut lengths = vec![0; largest + 1];
        for (id, said) in &parts.vocabulary {
            lengths[*id as usize] = u32::try_from(said.len()).map_err(|_| "a token is too long")?;
        }
        let mut fast = Self {
            kind: parts.kind,
            nfc: parts.nfc,
            added: parts.added,
            normalized: parts.normalized,
            merges: Merges::new(parts.merges.iter().copied()),
            joins: Joins::new(),
            bytes: parts.bytes,
            characters: Vec::new(),
            others: HashMap::new(),
            lengths,
            whole: HashMap::new(),
            workers: Mutex::default(),
        };
        let places: HashMap<u32, usize> = parts.vocabulary.iter().zip(0..).map(|((id, _), place)| (*id, place)).collect();
        let said = |id: u32| parts.vocabulary[places[&id]].1.as_slice();
        for &(left, right, _) in &parts.merges {
            let (left, right) = (said(left), said(right));
            if left.is_empty() || right.is_empty() {
                continue;
            }
            match fast.kind {
                Kind::Bytes(_) => fast.joins.add_bytes(left, right),
                Kind::Characters { .. } => {
                    let text = |said| std::str::from_utf8(said).map_err(|_| "it merges single bytes");
                    let (left, right) = (text(left)?, text(right)?);
                    let (left, right) = (left.chars().next_back(), right.chars().next());
                    let (left, right) = left.zip(right).expect("neither side is empty");
                    fast.joins.add(left as u32, right as u32);
                }
            }
        }
        match fast.kind {
            Kind::Bytes(_) if parts.ignore_merges => {
                let mut worker = Worker::default();
                for (id, said) in parts.vocabulary.iter().filter(|(_, said)| !said.is_empty()) {
                    fast.merge(said, false, &mut worker);
                    if worker.symbols != [*id] {
                        fast.whole.insert(said.clone(), *id);
                    }
                }
            }
            Kind::Bytes(_) => {}
            Kind::Characters { .. } => {
                fast.characters = vec![NO_ID; 1 << 16];
                for (id, said) in &parts.vocabulary {
                    let Ok(text) = std::str::from_utf8(said) else { continue };
                    let mut characters = text.chars();
                    let (Some(character), None) = (characters.next(), characters.next()) else { continue };
                    if fast.bytes.contains(id) {
                        continue;
                    }
                    match fast.characters.get_mut(character as usize) {
                        Some(place) => *place = *id,
                        None => drop(fast.others.insert(character as u32, *id)),
                    }
                }
            }
        }
        Ok(fast)
    }

    /// What it is called.
    pub(super) fn name(&self) -> String {
        match self.kind {
            Kind::Bytes(splitter) => format!("byte-level BPE, {}", splitter.name()),
            Kind::Characters { .. } => "SentencePiece BPE".to_owned(),
        }
    }

    /// Appends ids and offsets of a text.
    pub(super) fn encode(&self, text: &str, slow: Slow<'_>, out: &mut Encoded) -> Result<()> {
        let mut worker = self.workers.lock().map_or_else(|_| None, |mut workers| workers.pop()).unwrap_or_default();
        let known = out.ids.len();
        let done = if text.len() < PART as usize { self.segments(text, slow, &mut worker, out) } else { Ok(Done::No) };
        if let Ok(mut workers) = self.workers.lock() {
            workers.push(worker);
        }
        if done? == Done::No {
            out.ids.truncate(known);
            out.offsets.truncate(known);
            out.append(&slow(text)?, 0);
        }
        Ok(())
    }

    /// What is between the added tokens, and they.
    fn segments(&self, text: &str, slow: Slow<'_>, worker: &mut Worker, out: &mut Encoded) -> Result<Done> {
        each(self.added.as_ref(), text, 0..text.len(), out, |segment, out| {
            let inside = &text[segment.clone()];
            if self.nfc && !UNICODE.is_stable(inside) && !is_composed(inside) {
                out.append(&slow(inside)?, segment.start);
                return Ok(Done::Yes);
            }
            each(self.normalized.as_ref(), text, segment, out, |segment, out| {
                match self.kind {
                    Kind::Bytes(splitter) => self.bytes(splitter, text.as_bytes(), segment, worker, out),
                    Kind::Characters { .. } if text[segment.clone()].contains(SPACE_SIGN) => {
                        out.append(&slow(&text[segment.clone()])?, segment.start);
                    }
                    Kind::Characters { prepend } => self.characters(prepend, text.as_bytes(), segment, worker, out),
                }
                Ok(Done::Yes)
            })
        })
    }

    /// A text of bytes in pieces.
    fn bytes(&self, splitter: split::Splitter, text: &[u8], segment: Range<usize>, worker: &mut Worker, out: &mut Encoded) {
        let inside = &text[..segment.end];
        let is_ascii = text[segment.clone()].is_ascii();
        let mut at = segment.start;
        while at < segment.end {
            let start = at;
            worker.ends.clear();
            at = splitter.ends(inside, at, BATCH, &mut worker.ends);
            if is_ascii {
                std::mem::swap(&mut worker.ends, &mut worker.words);
            } else {
                worker.words.clear();
                let mut piece = start;
                for &end in &worker.ends {
                    let end = end as usize;
                    if end - piece > 5 && text[end - 1] >= 0x80 {
                        self.cut(text, piece..end, &mut worker.words);
                    } else {
                        worker.words.push(end as u32);
                    }
                    piece = end;
                }
            }
            self.look_up(text, start, false, worker, out);
        }
    }

    /// Cuts a piece where no merge crosses.
    fn cut(&self, text: &[u8], piece: Range<usize>, words: &mut Vec<u32>) {
        let (mut left, mut at) = decode(text, piece.start);
        let mut parted = 0;
        while at < piece.end {
            let (right, next) = decode(text, at);
            if THREE_BYTES.contains(&right) && THREE_BYTES.contains(&left) && !self.joins.may_join_bytes(left, right) {
                words.push(at as u32 | PART);
                parted = PART;
            }
            (left, at) = (right, next);
        }
        words.push(piece.end as u32 | parted);
    }

    /// A text of characters, in words between which no merge happens.
    fn characters(&self, prepend: bool, text: &[u8], segment: Range<usize>, worker: &mut Worker, out: &mut Encoded) {
        let (mut start, mut first) = (segment.start, prepend);
        let (mut left, mut at) = decode(text, start);
        loop {
            worker.words.clear();
            while at < segment.end && worker.words.len() < BATCH {
                let (right, next) = decode(text, at);
                if !self.joins.may_join(left, right) {
                    worker.words.push(at as u32);
                }
                (left, at) = (right, next);
            }
            if at == segment.end {
                worker.words.push(at as u32);
            }
            let end = worker.words.last().map_or(start, |&end| end as usize);
            self.look_up(text, start, first, worker, out);
            if at == segment.end {
                break;
            }
            (start, first) = (end, false);
        }
    }

    /// Appends the tokens of words that lie side by side.
    fn look_up(&self, text: &[u8], mut start: usize, mut first: bool, worker: &mut Worker, out: &mut Encoded) {
        let words = std::mem::take(&mut worker.words);
        let part = if self.whole.is_empty() { 0 } else { PART_KEY };
        for &word in &words {
            let end = (word & !PART) as usize;
            let is_part = word & PART != 0;
            if end - start > SHORT {
                self.long(text, start..end, is_part, first, worker, out);
            } else {
                let mut key = key(text, start, end);
                if is_part {
                    key |= part;
                }
                if first {
                    key |= FIRST_KEY;
                }
                match worker.cache.find(key) {
                    Some(entry) => match entry.only() {
                        Some(token) => out.push(token, (start, end)),
                        None => self.push(text, start, first, worker.cache.tokens(entry), out),
                    },
                    None => {
                        self.tokens(&text[start..end], is_part, first, worker);
                        worker.cache.insert(key, &worker.symbols);
                        self.push(text, start, first, &worker.symbols, out);
                    }
                }
            }
            (start, first) = (end, false);
        }
        worker.words = words;
    }

    #[inline(never)]
    fn long(&self, text: &[u8], word: Range<usize>, is_part: bool, first: bool, worker: &mut Worker, out: &mut Encoded) {
        let said = &text[word.clone()];
        let is_kept = !first && (!is_part || self.whole.is_empty());
        if is_kept && let Some(tokens) = worker.cache.find_long(said) {
            return self.push(text, word.start, first, tokens, out);
        }
        self.tokens(said, is_part, first, worker);
        if is_kept {
            worker.cache.insert_long(said, &worker.symbols);
        }
        self.push(text, word.start, first, &worker.symbols, out);
    }

    /// Appends the tokens of one word with their offsets: as the reference says them, in whole characters.
    fn push(&self, text: &[u8], start: usize, first: bool, tokens: &[u32], out: &mut Encoded) {
        let is_inside = |at: usize| text.get(at).is_some_and(|byte| byte & 0xC0 == 0x80);
        let mut invented = usize::from(first);
        let mut at = start;
        for &token in tokens {
            let next = at + self.lengths[token as usize] as usize - invented;
            let (mut from, mut to) = (at, next);
            while is_inside(from) {
                from -= 1;
            }
            // What is put before a text counts as its first character.
            to += usize::from(to == from);
            while is_inside(to) {
                to += 1;
            }
            out.push(token, (from, to));
            (at, invented) = (next, 0);
        }
    }

    /// Leaves the tokens of a word in the worker's symbols.
    fn tokens(&self, word: &[u8], is_part: bool, first: bool, worker: &mut Worker) {
        if !is_part && let Some(&token) = self.whole.get(word) {
            worker.symbols.clear();
            worker.symbols.push(token);
            return;
        }
        self.merge(word, first, worker);
    }

    fn merge(&self, word: &[u8], first: bool, worker: &mut Worker) {
        let symbols = &mut worker.symbols;
        symbols.clear();
        match self.kind {
            Kind::Bytes(_) => symbols.extend(word.iter().map(|&byte| self.bytes[usize::from(byte)])),
            Kind::Characters { .. } => {
                if first {
                    symbols.push(self.characters[usize::from(b' ')]);
                }
                let mut at = 0;
                while at < word.len() {
                    let (character, next) = decode(word, at);
                    let known = match self.characters.get(character as usize) {
                        Some(&symbol) => symbol,
                        None => self.others.get(&character).copied().unwrap_or(NO_ID),
                    };
                    if known == NO_ID {
                        symbols.extend(word[at..next].iter().map(|&byte| self.bytes[usize::from(byte)]));
                    } else {
                        symbols.push(known);
                    }
                    at = next;
                }
            }
        }
        self.merges.apply(symbols, &mut worker.scratch);
    }
}

/// Appends the added tokens of a range, and what `between` makes of the text around them.
fn each(
    finder: Option<&Finder>,
    text: &str,
    range: Range<usize>,
    out: &mut Encoded,
    mut between: impl FnMut(Range<usize>, &mut Encoded) -> Result<Done>,
) -> Result<Done> {
    let inside = &text[..range.end];
    let mut at = range.start;
    while at < range.end {
        let found = finder.and_then(|finder| finder.find(inside, at));
        let start = found.map_or(range.end, |(start, _, _)| start);
        if at < start && between(at..start, out)? == Done::No {
            return Ok(Done::No);
        }
        let Some((_, end, Token { id, is_plain })) = found else { break };
        if !is_plain {
            return Ok(Done::No);
        }
        out.push(id, (start, end));
        at = end;
    }
    Ok(Done::Yes)
}

fn is_composed(text: &str) -> bool {
    let mut normalized = NormalizedString::from(text);
    NFC.normalize(&mut normalized).is_ok() && normalized.get() == text
}
