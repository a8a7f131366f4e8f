//! The fast tokeniser: exactly the reference's ids and offsets, for tokenizers made of parts that are known.
//!
//! In: a text. Out: its [`Encoded`]. Added tokens are split off (`added`), what is between them is cut into pieces
//! (`split`), and those into words where no merge crosses (`joins`); words that came before are looked up (`cache`),
//! the others merged (`merge`). What NFC changes is encoded as it comes out of that, its places are those of what went in.
//! What is not known for certain (a token that looks at its neighbours, any tokenizer with an unknown part) is left to the
//! reference.

mod blocks;
mod build;
mod cache;
mod joins;
mod longer;
mod merge;
mod parts;
mod split;
mod tables;
mod unicode;

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::RandomState;
use thread_local::ThreadLocal;
use tokenizers::normalizers::NFC;
use tokenizers::tokenizer::normalizer::Range::Normalized;
use tokenizers::{NormalizedString, Normalizer};

use super::added::Finder;
use super::encode::{Encoded, fail};
use crate::error::Result;

use cache::{Beginning, Cache, GROUP, Group, Key};
use joins::{Joins, THREE_BYTES};
use longer::Place;
use merge::{Few, Merges, SOME, Scratch};
use parts::{Kind, SPACE_SIGN};
use unicode::{UNICODE, decode, is_lead_of_three, three};

pub(super) use tables::Tables;

/// How many pieces are cut before they are looked up.
const BATCH: usize = 4096;
/// Up to so many are merged together: enough for memory to be asked for all the time, and few to look through.
const TOGETHER: usize = 32;
/// Set in the end of a word that is only a part of its piece, and of one that is an added token.
const PART: u32 = 1 << 31;
const ADDED: u32 = 1 << 30;
/// Set in the length of a key: a part of a piece, and the first word of a text before which a `▁` is put.
const PART_KEY: Key = 0x40 << 120;
const FIRST_KEY: Key = 0x80 << 120;
/// An id that no token has.
const NO_ID: u32 = u32::MAX;

/// What is to be known of an added token.
#[derive(Debug, Clone, Copy)]
struct Token {
    id: u32,
    /// Whether it is found without a look at its neighbours, and takes nothing of them.
    is_plain: bool,
}

/// A tokenizer that is known.
pub(super) struct Fast {
    kind: Kind,
    nfc: bool,
    added: Option<Finder<Token>>,
    normalized: Option<Finder<Token>>,
    merges: Merges,
    joins: Joins,
    /// The symbol of each byte, and whether some have none.
    bytes: Vec<u32>,
    lacks_bytes: bool,
    /// The symbols of characters of up to three bytes, and of others. Of bytes only those are here whose own bytes are
    /// merged before they are merged with anything else.
    characters: Vec<u32>,
    others: HashMap<u32, u32>,
    /// How many bytes of text each token stands for.
    lengths: Vec<u32>,
    /// What each id is decoded to, if bytes are what tokens are decoded to; where each begins.
    decodes: bool,
    /// Whether the ids of every text that it encodes itself decode to that text, if it holds no `▁`.
    says: bool,
    starts: Vec<u32>,
    said: Vec<u8>,
    /// Pieces that are tokens, though merging does not give them.
    whole: HashMap<Vec<u8>, u32, RandomState>,
    /// The tokens that are pieces.
    beginning: Beginning,
    /// One for each thread, which finds what it has learnt near to its processor. None while it is used.
    workers: ThreadLocal<Cell<Option<Box<Worker>>>>,
}

/// What one thread needs for itself.
#[derive(Default)]
struct Worker {
    cache: Cache,
    ends: Vec<u32>,
    /// The ends of words that wait to be looked up, side by side, and the ids of those that are added tokens.
    words: Vec<u32>,
    added: Vec<u32>,
    /// As many as the words that wait fill; none while they are used.
    groups: Vec<Group>,
    /// Where the words among them stand that are too long for a key.
    places: Vec<Place>,
    symbols: Vec<u32>,
    learnt: Vec<(Key, Few<SOME>)>,
    learnt_longer: Vec<(Unmet, Few<SOME>)>,
    scratch: Scratch,
}

/// A word that is too long for a key and was not met: where it stands in the text, and which of those places is its.
struct Unmet {
    word: Range<usize>,
    index: usize,
}

/// Where tokens go.
trait Sink {
    /// Whether it keeps offsets.
    const HAS_OFFSETS: bool;

    fn push(&mut self, id: u32, offsets: (usize, usize));

    /// Adds the tokens of words of one token each, which lie side by side from a place on.
    fn push_all(&mut self, tokens: &[u32], start: usize, words: &[u32]);

    /// Adds what the reference made of the text at a place.
    fn append(&mut self, other: &Encoded, at: usize);
}

impl Sink for Encoded {
    const HAS_OFFSETS: bool = true;

    #[inline]
    fn push(&mut self, id: u32, offsets: (usize, usize)) {
        Self::push(self, id, offsets);
    }

    #[inline]
    fn push_all(&mut self, tokens: &[u32], mut start: usize, words: &[u32]) {
        self.ids.extend_from_slice(tokens);
        self.offsets.extend(words.iter().map(|&word| (std::mem::replace(&mut start, end_of(word)), end_of(word))));
    }

    fn append(&mut self, other: &Encoded, at: usize) {
        Self::append(self, other, at);
    }
}

impl Sink for Vec<u32> {
    const HAS_OFFSETS: bool = false;

    #[inline]
    fn push(&mut self, id: u32, _offsets: (usize, usize)) {
        Self::push(self, id);
    }

    #[inline]
    fn push_all(&mut self, tokens: &[u32], _start: usize, _words: &[u32]) {
        self.extend_from_slice(tokens);
    }

    fn append(&mut self, other: &Encoded, _at: usize) {
        self.extend_from_slice(&other.ids);
    }
}

/// A text on its way to tokens.
///
/// Words of many segments wait for each other, so that memory is asked for many of them at once.
struct Writer<'w, S> {
    worker: &'w mut Worker,
    out: &'w mut S,
    /// Where the words that wait begin.
    start: usize,
}

impl<S: Sink> Writer<'_, S> {
    /// Appends an added token, behind the words that wait.
    fn token(&mut self, id: u32, (start, end): (usize, usize)) {
        if self.worker.words.is_empty() {
            self.out.push(id, (start, end));
        } else {
            self.worker.words.push(end as u32 | ADDED);
            self.worker.added.push(id);
        }
    }
}

/// Places where words may end, on their way to where ends are kept.
///
/// Each is written down, and written over by the next one unless a word ends there: of guesses whether one does, every
/// third would be wrong.
struct Borders {
    ends: [u32; Self::ROOM],
    count: usize,
}

impl Default for Borders {
    fn default() -> Self {
        Self { ends: [0; Self::ROOM], count: 0 }
    }
}

impl Borders {
    const ROOM: usize = 64;

    #[inline]
    fn note(&mut self, end: u32, is_end: bool, words: &mut Vec<u32>) {
        self.ends[self.count % Self::ROOM] = end;
        self.count += usize::from(is_end);
        if self.count == Self::ROOM {
            self.append_to(words);
        }
    }

    fn append_to(&mut self, words: &mut Vec<u32>) {
        words.extend_from_slice(&self.ends[..self.count]);
        self.count = 0;
    }
}

/// Where a word ends.
#[inline]
fn end_of(word: u32) -> usize {
    (word & !(PART | ADDED)) as usize
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
    /// The largest id.
    pub(super) fn largest(&self) -> usize {
        self.starts.len().saturating_sub(2)
    }

    /// The text of ids, if it is known how they are decoded. Ids that there are not say nothing.
    pub(super) fn decode(&self, ids: &[u32]) -> Option<String> {
        if !self.decodes {
            return None;
        }
        let mut bytes = Vec::with_capacity(ids.len() * 5);
        for &id in ids {
            bytes.extend_from_slice(self.text(id as usize));
        }
        Some(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    fn text(&self, id: usize) -> &[u8] {
        match (self.starts.get(id), self.starts.get(id + 1)) {
            (Some(&start), Some(&end)) => &self.said[start as usize..end as usize],
            _ => &[],
        }
    }

    /// What it is called.
    pub(super) fn name(&self) -> String {
        match self.kind {
            Kind::Bytes(splitter) => format!("byte-level BPE, {}", splitter.name()),
            Kind::Characters { .. } => "SentencePiece BPE".to_owned(),
        }
    }

    /// What some of its tokens say, one of so many, the earliest first.
    pub(super) fn said(&self, one_of: usize) -> Vec<String> {
        let texts = (0..self.starts.len()).step_by(one_of).filter_map(|id| std::str::from_utf8(self.text(id)).ok());
        texts.filter(|text| !text.is_empty()).map(ToOwned::to_owned).collect()
    }

    /// Takes one letter for another.
    #[cfg(test)]
    pub(super) fn spoil(&mut self) {
        self.bytes.swap(usize::from(b'q'), usize::from(b'z'));
        self.beginning = Beginning::default();
    }

    /// Ids and offsets of a text.
    pub(super) fn encode(&self, text: &str, slow: Slow<'_>) -> Result<Encoded> {
        let room = text.len() / 4 + 16;
        let (ids, offsets) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let is_lost = matches!(self.kind, Kind::Characters { .. }) && text.contains(SPACE_SIGN);
        let mut out = Encoded { ids, offsets, is_said: self.says && !is_lost };
        if self.write(text, slow, &mut out)? == Done::Yes { Ok(out) } else { slow(text) }
    }

    /// Appends the ids of a text.
    pub(super) fn append_ids(&self, text: &str, slow: Slow<'_>, out: &mut Vec<u32>) -> Result<()> {
        let before = out.len();
        out.reserve(text.len() / 4 + 16);
        if self.write(text, slow, out)? == Done::No {
            out.truncate(before);
            out.extend(slow(text)?.ids);
        }
        Ok(())
    }

    fn write<S: Sink>(&self, text: &str, slow: Slow<'_>, out: &mut S) -> Result<Done> {
        if text.len() >= ADDED as usize {
            return Ok(Done::No);
        }
        let place = self.workers.get_or_default();
        let mut worker = place.take().unwrap_or_default();
        worker.words.clear();
        worker.added.clear();
        let mut writer = Writer { worker: &mut worker, out, start: 0 };
        let done = self.segments(text, slow, &mut writer);
        if matches!(done, Ok(Done::Yes)) {
            self.flush(text.as_bytes(), &mut writer);
        }
        place.set(Some(worker));
        done
    }

    /// What is between the added tokens, and they.
    fn segments<S: Sink>(&self, text: &str, slow: Slow<'_>, writer: &mut Writer<'_, S>) -> Result<Done> {
        each(self.added.as_ref(), text, 0..text.len(), writer, |segment, writer| {
            let inside = &text[segment.clone()];
            if self.nfc && !UNICODE.is_stable(inside) {
                let mut normalized = NormalizedString::from(inside);
                NFC.normalize(&mut normalized).map_err(fail)?;
                if normalized.get() != inside {
                    self.flush(text.as_bytes(), writer);
                    return self.normalized(&normalized, segment.start, slow, writer);
                }
            }
            self.pieces(text, segment, slow, writer)
        })
    }

    /// What NFC made of the text at a place.
    fn normalized<S: Sink>(
        &self,
        normalized: &NormalizedString,
        at: usize,
        slow: Slow<'_>,
        writer: &mut Writer<'_, S>,
    ) -> Result<Done> {
        let (text, mut found) = (normalized.get(), Encoded::default());
        let mut inner = Writer { worker: &mut *writer.worker, out: &mut found, start: 0 };
        let done = self.pieces(text, 0..text.len(), slow, &mut inner)?;
        self.flush(text.as_bytes(), &mut inner);
        for offsets in &mut found.offsets {
            let range = normalized.convert_offsets(Normalized(offsets.0..offsets.1));
            *offsets = range.map_or(*offsets, |range| (range.start, range.end));
        }
        writer.out.append(&found, at);
        Ok(done)
    }

    /// A text that is normalised.
    fn pieces<S: Sink>(
        &self,
        text: &str,
        segment: Range<usize>,
        slow: Slow<'_>,
        writer: &mut Writer<'_, S>,
    ) -> Result<Done> {
        each(self.normalized.as_ref(), text, segment, writer, |segment, writer| {
            let inside = &text[segment.clone()];
            let is_left = match self.kind {
                Kind::Bytes(_) => self.lacks_bytes && inside.bytes().any(|byte| self.bytes[usize::from(byte)] == NO_ID),
                Kind::Characters { .. } => inside.contains(SPACE_SIGN),
            };
            if is_left {
                self.flush(text.as_bytes(), writer);
                writer.out.append(&slow(inside)?, segment.start);
                return Ok(Done::Yes);
            }
            match self.kind {
                Kind::Bytes(splitter) => self.bytes(splitter, text.as_bytes(), segment, writer),
                Kind::Characters { prepend } => {
                    self.characters(prepend, text.as_bytes(), segment, writer.worker, writer.out);
                }
            }
            Ok(Done::Yes)
        })
    }

    /// A text of bytes in pieces, which wait.
    fn bytes<S: Sink>(
        &self,
        splitter: split::Splitter,
        text: &[u8],
        segment: Range<usize>,
        writer: &mut Writer<'_, S>,
    ) {
        let inside = &text[..segment.end];
        let is_ascii = text[segment.clone()].is_ascii();
        let mut borders = Borders::default();
        let mut at = segment.start;
        while at < segment.end {
            if writer.worker.words.len() >= BATCH {
                self.flush(text, writer);
            }
            let Worker { words, ends, .. } = &mut *writer.worker;
            if words.is_empty() {
                writer.start = at;
            }
            if is_ascii {
                at = splitter.ends(inside, at, words.len() + BATCH, words);
                continue;
            }
            ends.clear();
            let mut piece = at;
            at = splitter.ends(inside, at, BATCH, ends);
            for &end in &*ends {
                let end = end as usize;
                if end - piece > 5 && text[end - 1] >= 0x80 {
                    self.cut(text, piece..end, &mut borders, words);
                } else {
                    words.push(end as u32);
                }
                piece = end;
            }
        }
    }

    /// Looks up the words that wait.
    fn flush<S: Sink>(&self, text: &[u8], writer: &mut Writer<'_, S>) {
        if !writer.worker.words.is_empty() {
            self.look_up(text, writer.start, false, writer.worker, writer.out);
        }
    }

    /// Cuts a piece where no merge crosses.
    fn cut(&self, text: &[u8], piece: Range<usize>, borders: &mut Borders, words: &mut Vec<u32>) {
        let before = words.len();
        if let (threes, []) = text[piece.clone()].as_chunks::<3>()
            && threes.iter().all(|three| is_lead_of_three(three[0]))
        {
            self.cut_threes(threes, piece.start, borders, words);
        } else {
            let (mut left, mut at) = decode(text, piece.start);
            while at < piece.end {
                let (right, next) = decode(text, at);
                if THREE_BYTES.contains(&right)
                    && THREE_BYTES.contains(&left)
                    && !self.joins.may_join_bytes(left, right)
                {
                    words.push(at as u32 | PART);
                }
                (left, at) = (right, next);
            }
        }
        let parted = if words.len() > before { PART } else { 0 };
        words.push(piece.end as u32 | parted);
    }

    /// The same for characters of three bytes each, which is how Chinese comes.
    fn cut_threes(&self, threes: &[[u8; 3]], start: usize, borders: &mut Borders, words: &mut Vec<u32>) {
        let mut note = |index: usize, may_join: u64| {
            borders.note((start + 3 * index) as u32 | PART, may_join & 1 == 0, words);
        };
        let mut characters = threes.iter().map(|&character| three(character));
        let (Some(mut before), Some(mut left)) = (characters.next(), characters.next()) else { return };
        // Of the border before the left one all is known but what follows.
        let mut may_join = self.joins.may_join_alone(before, left);
        for (right, index) in characters.zip(1..) {
            let around = self.joins.may_join_in(before, left, right);
            note(index, may_join | around >> 1);
            may_join = self.joins.may_join_alone(left, right) | around;
            (before, left) = (left, right);
        }
        note(threes.len() - 1, may_join);
        borders.append_to(words);
    }

    /// A text of characters, in words between which no merge happens.
    fn characters(&self, prepend: bool, text: &[u8], segment: Range<usize>, worker: &mut Worker, out: &mut impl Sink) {
        let (mut start, mut first) = (segment.start, prepend);
        let (mut left, mut at) = decode(text, start);
        loop {
            let mut borders = Borders::default();
            while at < segment.end && worker.words.len() < BATCH {
                let (right, next) = decode(text, at);
                borders.note(at as u32, !self.joins.may_join(left, right), &mut worker.words);
                (left, at) = (right, next);
            }
            borders.append_to(&mut worker.words);
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

    /// Appends the tokens of the words that wait, which begin at a place.
    ///
    /// They are looked up by groups, so that the processor asks memory for several of them at once; what was never met is
    /// merged for all groups together, since in a text without much that is new there are few in each.
    fn look_up<S: Sink>(&self, text: &[u8], mut start: usize, mut first: bool, worker: &mut Worker, out: &mut S) {
        let (mut words, mut added) = (std::mem::take(&mut worker.words), std::mem::take(&mut worker.added));
        let mut ids = added.iter().copied();
        let mut groups = std::mem::take(&mut worker.groups);
        groups.resize_with(groups.len().max(words.len().div_ceil(GROUP)), Group::default);
        let part = if self.whole.is_empty() { 0 } else { PART_KEY };
        let mut places = std::mem::take(&mut worker.places);
        let (mut from, mut is_first) = (start, first);
        let epoch = worker.cache.longer.epoch();
        for (words, group) in words.chunks(GROUP).zip(&mut groups) {
            group.set(text, from, words, part, if is_first { FIRST_KEY } else { 0 });
            worker.cache.meet(&self.beginning, group, words.len());
            self.find_longer(text, from, words, is_first, group, worker, &mut places);
            self.gather(text, from, words, is_first, group, worker);
            (from, is_first) = (words.last().map_or(from, |&end| end_of(end)), false);
        }
        self.learn(worker);
        self.learn_longer(text, worker, &mut places);
        let mut known = places.iter().copied();
        for (words, group) in words.chunks(GROUP).zip(&groups) {
            let mut done = 0;
            for &index in group.unmet.iter().take(group.unmet_count) {
                let index = usize::from(index);
                let before = &words[done..index];
                out.push_all(&group.tokens[done..index], start, before);
                start = before.last().map_or(start, |&end| end_of(end));
                let end = end_of(words[index]);
                if words[index] & ADDED != 0 {
                    out.push(ids.next().expect("each has an id"), (start, end));
                } else {
                    let (is_part, is_first) = (words[index] & PART != 0, first && index == 0);
                    match group.keys[index] {
                        0 => {
                            let place = known.next().filter(|_| !is_first && worker.cache.longer.epoch() == epoch);
                            self.long(text, start..end, place, is_part, is_first, worker, out);
                        }
                        key => self.not_one(text, start..end, key, is_part, is_first, worker, out),
                    }
                }
                (start, done) = (end, index + 1);
            }
            out.push_all(&group.tokens[done..words.len()], start, &words[done..]);
            (start, first) = (words.last().map_or(start, |&end| end_of(end)), false);
        }
        words.clear();
        added.clear();
        places.clear();
        (worker.groups, worker.words, worker.added, worker.places) = (groups, words, added, places);
    }

    /// Looks up the words of a group that are too long for a key, one after the other, so that memory is asked for
    /// several of them at once; gathers those that were never met.
    #[expect(clippy::too_many_arguments, reason = "all of what is known of a group")]
    fn find_longer(
        &self,
        text: &[u8],
        start: usize,
        words: &[u32],
        first: bool,
        group: &Group,
        worker: &mut Worker,
        places: &mut Vec<Place>,
    ) {
        for index in group.unmet.iter().take(group.unmet_count).map(|&index| usize::from(index)) {
            if group.keys[index] != 0 || words[index] & ADDED != 0 {
                continue;
            }
            let from = index.checked_sub(1).map_or(start, |before| end_of(words[before]));
            let word = from..end_of(words[index]);
            let said = &text[word.clone()];
            let place = worker.cache.longer.find(said);
            let is_first = first && index == 0;
            if place == Place::NONE
                && self.is_kept(words[index] & PART != 0, is_first)
                && !self.whole.contains_key(said)
            {
                self.symbols(said, false, &mut worker.symbols);
                if worker.symbols.len() <= SOME {
                    let unmet = Unmet { word, index: places.len() };
                    worker.learnt_longer.push((unmet, self.merges.begin(&worker.symbols)));
                }
            }
            places.push(place);
            if worker.learnt_longer.len() == TOGETHER {
                self.learn_longer(text, worker, places);
            }
        }
    }

    /// Whether the tokens of a word that is too long for a key are kept.
    fn is_kept(&self, is_part: bool, first: bool) -> bool {
        !first && (!is_part || self.whole.is_empty())
    }

    /// Gathers the words of a group that were never met.
    fn gather(&self, text: &[u8], start: usize, words: &[u32], first: bool, group: &Group, worker: &mut Worker) {
        for &index in group.unknown.iter().take(group.unknown_count) {
            let index = usize::from(index);
            let key = group.keys[index];
            if first && index == 0 || worker.cache.has(key) || worker.learnt.iter().any(|(learnt, _)| *learnt == key) {
                continue;
            }
            if let Some(token) = self.beginning.find(key) {
                worker.cache.insert(key, &[token], &self.lengths);
                continue;
            }
            let from = index.checked_sub(1).map_or(start, |before| end_of(words[before]));
            let word = &text[from..end_of(words[index])];
            if words[index] & PART == 0 && self.whole.contains_key(word) {
                continue;
            }
            self.symbols(word, false, &mut worker.symbols);
            worker.learnt.push((key, self.merges.begin(&worker.symbols)));
            if worker.learnt.len() == TOGETHER {
                self.learn(worker);
            }
        }
    }

    /// Merges the words that were gathered.
    fn learn(&self, worker: &mut Worker) {
        self.merges.apply_to_all(&mut worker.learnt);
        for (key, piece) in worker.learnt.drain(..) {
            worker.symbols.clear();
            piece.append_to(&mut worker.symbols);
            worker.cache.insert(key, &worker.symbols, &self.lengths);
        }
    }

    /// Merges those that are too long for a key, and notes where they stand then.
    fn learn_longer(&self, text: &[u8], worker: &mut Worker, places: &mut [Place]) {
        self.merges.apply_to_all(&mut worker.learnt_longer);
        for (Unmet { word, index }, piece) in worker.learnt_longer.drain(..) {
            worker.symbols.clear();
            piece.append_to(&mut worker.symbols);
            places[index] = worker.cache.longer.insert(&text[word], &worker.symbols);
        }
    }

    /// Appends the tokens of a word that is not one token, or was not met lately.
    #[inline(never)]
    #[expect(clippy::too_many_arguments, reason = "all of what is known of a word")]
    fn not_one<S: Sink>(
        &self,
        text: &[u8],
        word: Range<usize>,
        key: Key,
        is_part: bool,
        first: bool,
        worker: &mut Worker,
        out: &mut S,
    ) {
        if let Some(entry) = worker.cache.find(key) {
            if S::HAS_OFFSETS
                && !first
                && let Some(few) = Cache::few(&entry)
            {
                let mut start = word.start;
                few.for_each(|(token, length)| {
                    let end = start + usize::from(length);
                    out.push(token, (std::mem::replace(&mut start, end), end));
                });
                return;
            }
            return self.push(text, word.start, first, worker.cache.tokens(&entry), out);
        }
        self.tokens(&text[word.clone()], is_part, first, worker);
        worker.cache.insert(key, &worker.symbols, &self.lengths);
        self.push(text, word.start, first, &worker.symbols, out);
    }

    /// Appends the tokens of a word that is too long for a key, and stands at a place if it was met before this batch.
    #[expect(clippy::too_many_arguments, reason = "all of what is known of a word")]
    fn long(
        &self,
        text: &[u8],
        word: Range<usize>,
        place: Option<Place>,
        is_part: bool,
        first: bool,
        worker: &mut Worker,
        out: &mut impl Sink,
    ) {
        let said = &text[word.clone()];
        let is_kept = self.is_kept(is_part, first);
        if is_kept {
            let longer = &worker.cache.longer;
            let tokens = place.and_then(|place| longer.tokens(place));
            if let Some(tokens) = tokens.or_else(|| longer.tokens(longer.find(said))) {
                return self.push(text, word.start, first, tokens, out);
            }
        }
        self.tokens(said, is_part, first, worker);
        if is_kept {
            worker.cache.longer.insert(said, &worker.symbols);
        }
        self.push(text, word.start, first, &worker.symbols, out);
    }

    /// Appends the tokens of one word with their offsets: as the reference says them, in whole characters.
    fn push<S: Sink>(&self, text: &[u8], start: usize, first: bool, tokens: &[u32], out: &mut S) {
        if !S::HAS_OFFSETS {
            tokens.iter().for_each(|&token| out.push(token, (0, 0)));
            return;
        }
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
        self.symbols(word, first, &mut worker.symbols);
        self.merges.apply(&mut worker.symbols, &mut worker.scratch);
    }

    /// The symbols of a word before they are merged.
    fn symbols(&self, word: &[u8], first: bool, symbols: &mut Vec<u32>) {
        symbols.clear();
        match self.kind {
            Kind::Bytes(_) if word[0] >= 0xE0 && self.in_characters(word, symbols) => {}
            Kind::Bytes(_) => {
                symbols.clear();
                symbols.extend(word.iter().map(|&byte| self.bytes[usize::from(byte)]));
            }
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
    }

    /// Whether the symbols of a word may be those of its characters.
    fn in_characters(&self, word: &[u8], symbols: &mut Vec<u32>) -> bool {
        let (mut at, mut left) = (0, None);
        while at < word.len() {
            let (character, next) = decode(word, at);
            let symbol = self.characters.get(character as usize).filter(|symbol| **symbol != NO_ID);
            let Some(&symbol) = symbol.filter(|_| THREE_BYTES.contains(&character)) else { return false };
            if left.is_some_and(|left| self.joins.may_join_parts(left, character)) {
                return false;
            }
            symbols.push(symbol);
            (left, at) = (Some(character), next);
        }
        true
    }
}

/// Appends the added tokens of a range, and what `between` makes of the text around them.
fn each<S: Sink>(
    finder: Option<&Finder<Token>>,
    text: &str,
    range: Range<usize>,
    writer: &mut Writer<'_, S>,
    mut between: impl FnMut(Range<usize>, &mut Writer<'_, S>) -> Result<Done>,
) -> Result<Done> {
    let inside = &text[..range.end];
    let mut at = range.start;
    while at < range.end {
        let found = finder.and_then(|finder| finder.find(inside, at));
        let start = found.map_or(range.end, |(start, _, _)| start);
        if at < start && between(at..start, writer)? == Done::No {
            return Ok(Done::No);
        }
        let Some((_, end, Token { id, is_plain })) = found else { break };
        if !is_plain {
            return Ok(Done::No);
        }
        writer.token(id, (start, end));
        at = end;
    }
    Ok(Done::Yes)
}
