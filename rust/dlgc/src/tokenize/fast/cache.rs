//! Pieces that were merged before, with their tokens. Each worker has its own; it is bounded, and what comes out of it
//! was put there by the merge.

use super::longer::Longer;
use super::{ADDED, PART, end_of};

/// So many pieces are looked up together.
pub(super) const GROUP: usize = 256;
/// Pieces of up to so many bytes are kept by value.
pub(super) const SHORT: usize = 15;
/// Slots for short pieces, at first and at most; three quarters of them are used.
const FIRST_SLOTS: usize = 1 << 13;
const MOST_SLOTS: usize = 1 << 18;
/// Up to so many slots there are four times as many the next time, then twice as many: memory that was never used before
/// costs more than moving what there is.
const FEW_SLOTS: usize = 1 << 15;
/// Places for pieces that are one token, the last one for each place: what a text says most, near to the processor.
const HOT: usize = 1 << 14;
/// They have up to so many bytes, so that a token fits into their key.
const SHORT_HOT: u32 = 11;
const TOKEN_AT: u32 = 8 * SHORT_HOT;
const TOKEN: Key = 0xFFFF_FFFF << TOKEN_AT;

/// No key; in no bits of a piece like one.
const NO_KEY: Key = Key::MAX;

/// Whether a key with a token in it is that of a piece.
#[inline]
fn is_of(with_token: Key, key: Key) -> bool {
    (with_token ^ key) & !TOKEN == 0
}

#[inline]
fn token_in(with_token: Key) -> u32 {
    (with_token >> TOKEN_AT) as u32
}

/// Tokens that are pieces: what all workers know from the beginning.
///
/// Open addressing; keys with the token in the bytes that the piece does not have. It is never written after it was made,
/// so workers share it, and none has to make room for them.
pub(super) struct Beginning {
    slots: Vec<Key>,
}

impl Default for Beginning {
    fn default() -> Self {
        Self { slots: vec![NO_KEY] }
    }
}

impl Beginning {
    /// Of pieces with their token, without those that are too long for it. What comes first is found first.
    pub(super) fn of(pieces: &[(&[u8], u32)]) -> Self {
        let mut beginning = Self { slots: vec![NO_KEY; (pieces.len() * 3 / 2 + 1).next_power_of_two()] };
        for &(piece, token) in pieces.iter().filter(|(piece, _)| piece.len() <= SHORT_HOT as usize) {
            let key = key(piece, 0, piece.len());
            let at = beginning.slot(key);
            beginning.slots[at] = key | Key::from(token) << TOKEN_AT;
        }
        beginning
    }

    #[inline]
    fn first_slot(&self, key: Key) -> Key {
        self.slots[hash(key) as usize & (self.slots.len() - 1)]
    }

    fn slot(&self, key: Key) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash(key) as usize & mask;
        while self.slots[at] != NO_KEY && !is_of(self.slots[at], key) {
            at = (at + 1) & mask;
        }
        at
    }

    /// The token that a short piece is.
    pub(super) fn find(&self, key: Key) -> Option<u32> {
        let found = self.slots[self.slot(key)];
        (found != NO_KEY).then_some(token_in(found))
    }
}

/// A short piece and its tokens: up to three here, more of them in the arena.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    key: u128,
    tokens: [u32; 3],
    count: u8,
    /// How many bytes each of up to three tokens stands for; zero where a token ends inside a character.
    lengths: [u8; 3],
}

/// A piece by value: its bytes, and its length in the last one. Never zero.
pub(super) type Key = u128;

const LENGTH_AT: u32 = 120;

/// Pieces that are looked up together.
pub(super) struct Group {
    /// Zero for pieces that are not short, and for added tokens.
    pub(super) keys: [Key; GROUP],
    /// The tokens of those that were met lately, or are known from the beginning.
    pub(super) tokens: [u32; GROUP],
    /// The places of the others, and how many they are.
    pub(super) unmet: [u8; GROUP],
    pub(super) unmet_count: usize,
    /// The places of those that may never have been met.
    pub(super) unknown: [u8; GROUP],
    pub(super) unknown_count: usize,
}

impl Default for Group {
    fn default() -> Self {
        let none = [0; GROUP];
        Self { keys: [0; GROUP], tokens: [0; GROUP], unmet: none, unmet_count: 0, unknown: none, unknown_count: 0 }
    }
}

impl Group {
    /// Takes the keys of words that lie side by side; `part` and `first` are set in those of parts and of the first.
    #[inline(never)]
    pub(super) fn set(&mut self, text: &[u8], mut start: usize, words: &[u32], part: Key, first: Key) {
        for (&word, place) in words.iter().zip(&mut self.keys) {
            let end = end_of(word);
            let key = if end - start > SHORT || word & ADDED != 0 { 0 } else { key(text, start, end) };
            *place = if word & PART == 0 || key == 0 { key } else { key | part };
            start = end;
        }
        self.keys[0] |= if self.keys[0] == 0 { 0 } else { first };
    }
}

/// The key of a short piece of a text.
#[inline]
fn key(text: &[u8], start: usize, end: usize) -> Key {
    let length = end - start;
    let bytes = match text.get(start..start + 16) {
        Some(bytes) => u128::from_le_bytes(bytes.try_into().expect("sixteen bytes")),
        None => {
            let mut bytes = [0; 16];
            bytes[..length].copy_from_slice(&text[start..end]);
            u128::from_le_bytes(bytes)
        }
    };
    bytes & MASKS[length & SHORT] | (length as u128) << LENGTH_AT
}

/// The first bytes of a key, by their number.
const MASKS: [Key; SHORT + 1] = {
    let mut masks = [0; SHORT + 1];
    let mut length = 0;
    while length <= SHORT {
        masks[length] = (1 << (8 * length)) - 1;
        length += 1;
    }
    masks
};

/// Whether a place in the piece of a key is inside a character.
fn is_inside(key: Key, at: u32) -> bool {
    key.checked_shr(8 * at).is_some_and(|from| from as u8 & 0xC0 == 0x80)
}

#[inline]
fn hash(key: Key) -> u64 {
    let low = key as u64 ^ 0x9E37_79B9_7F4A_7C15;
    let high = (key >> 64) as u64 ^ 0xD6E8_FEB8_6659_FD93;
    let product = u128::from(low) * u128::from(high);
    (product >> 64) as u64 ^ product as u64
}

/// The cache of one worker.
pub(super) struct Cache {
    /// Keys with the token in the bytes that the piece does not have.
    hot: Box<[Key; HOT]>,
    short: Vec<Entry>,
    used: usize,
    /// Tokens of pieces that have more of them than an entry holds.
    arena: Vec<u32>,
    pub(super) longer: Longer,
}

const EMPTY: Entry = Entry { key: 0, tokens: [0; 3], count: 0, lengths: [0; 3] };

impl Default for Cache {
    fn default() -> Self {
        let hot = vec![NO_KEY; HOT].into_boxed_slice().try_into().expect("as many as that");
        Self { hot, short: vec![EMPTY; FIRST_SLOTS], used: 0, arena: Vec::new(), longer: Longer::default() }
    }
}

impl Cache {
    #[inline]
    fn slot(&self, key: Key) -> usize {
        let mask = self.short.len() - 1;
        let mut at = hash(key) as usize & mask;
        loop {
            let found = self.short[at].key;
            if found == key || found == 0 {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    /// Finds the tokens of the first pieces of a group, and which of them are neither known from the beginning nor were
    /// met lately.
    #[inline(never)]
    pub(super) fn meet(&mut self, beginning: &Beginning, group: &mut Group, count: usize) {
        let Group { keys, tokens, unmet, unmet_count, unknown, unknown_count } = group;
        let mut size = 0;
        for index in 0..count.min(GROUP) {
            let key = keys[index];
            let entry = self.hot[hash(key) as usize % HOT];
            // Nothing is guessed here: every tenth guess would be wrong.
            let is_met = u8::from(is_of(entry, key));
            tokens[index] = token_in(entry);
            unmet[size % GROUP] = index as u8;
            size += usize::from(1 - is_met);
        }
        // What is looked up next comes from memory, all at once: a short loop asks for more than a long one.
        let mut found = [NO_KEY; GROUP];
        for (entry, &index) in found.iter_mut().zip(&unmet[..size.min(GROUP)]) {
            *entry = beginning.first_slot(keys[usize::from(index)]);
        }
        let mut kept = 0;
        for at in 0..size.min(GROUP) {
            let (index, entry) = (unmet[at], found[at]);
            let key = keys[usize::from(index)];
            let is_known = is_of(entry, key);
            let hot = &mut self.hot[hash(key) as usize % HOT];
            *hot = if is_known { entry } else { *hot };
            tokens[usize::from(index)] = token_in(entry);
            unmet[kept] = index;
            kept += usize::from(!is_known);
        }
        *unmet_count = kept;
        let mask = self.short.len() - 1;
        let mut count = 0;
        for &index in &unmet[..kept.min(GROUP)] {
            let key = keys[usize::from(index)];
            unknown[count % GROUP] = index;
            count += usize::from(self.short[hash(key) as usize & mask].key != key);
        }
        *unknown_count = count;
    }

    /// Whether a short piece is here.
    pub(super) fn has(&self, key: Key) -> bool {
        self.short[self.slot(key)].key == key
    }

    fn heat(&mut self, key: Key, tokens: &[u32]) {
        // Flags lie above the length in its byte. That byte tells the keys of longer pieces from all that is kept here.
        if let [token] = *tokens
            && (key >> LENGTH_AT) as u32 & SHORT as u32 <= SHORT_HOT
        {
            self.hot[hash(key) as usize % HOT] = key | Key::from(token) << TOKEN_AT;
        }
    }

    /// The entry of a short piece.
    #[inline]
    pub(super) fn find(&mut self, key: Key) -> Option<Entry> {
        let entry = self.short[self.slot(key)];
        if entry.key != key {
            return None;
        }
        if entry.count == 1 {
            self.heat(key, &entry.tokens[..1]);
        }
        Some(entry)
    }

    /// Tokens of an entry that has up to three of them, all of whole characters, each with how many bytes it stands for.
    #[inline]
    pub(super) fn few(entry: &Entry) -> Option<impl Iterator<Item = (u32, u8)>> {
        let count = usize::from(entry.count);
        (count <= entry.tokens.len() && entry.lengths[0] > 0)
            .then(|| entry.tokens.into_iter().zip(entry.lengths).take(count))
    }

    /// The tokens of an entry.
    #[inline]
    pub(super) fn tokens<'c>(&'c self, entry: &'c Entry) -> &'c [u32] {
        let count = usize::from(entry.count);
        if count <= entry.tokens.len() {
            return &entry.tokens[..count];
        }
        let start = entry.tokens[0] as usize;
        &self.arena[start..start + count]
    }

    /// Keeps the tokens of a short piece; `lengths` says of every token how many bytes it stands for.
    pub(super) fn insert(&mut self, key: Key, tokens: &[u32], lengths: &[u32]) {
        self.heat(key, tokens);
        if self.used * 4 >= self.short.len() * 3 {
            self.grow();
        }
        let mut entry = Entry { key, count: tokens.len() as u8, ..EMPTY };
        if let Some(places) = entry.tokens.get_mut(..tokens.len()) {
            places.copy_from_slice(tokens);
            let mut end = 0;
            for (length, &token) in entry.lengths.iter_mut().zip(tokens) {
                *length = lengths[token as usize] as u8;
                end += u32::from(*length);
                if is_inside(key, end) {
                    entry.lengths = EMPTY.lengths;
                    break;
                }
            }
        } else {
            entry.tokens[0] = self.arena.len() as u32;
            self.arena.extend_from_slice(tokens);
        }
        let at = self.slot(key);
        self.used += usize::from(self.short[at].key == 0);
        self.short[at] = entry;
    }

    /// More room, or none of what was there.
    fn grow(&mut self) {
        if self.short.len() == MOST_SLOTS {
            self.short.fill(EMPTY);
            self.arena.clear();
            self.used = 0;
            return;
        }
        let times = if self.short.len() <= FEW_SLOTS { 4 } else { 2 };
        let larger = vec![EMPTY; (self.short.len() * times).min(MOST_SLOTS)];
        for entry in std::mem::replace(&mut self.short, larger).into_iter().filter(|entry| entry.key != 0) {
            let at = self.slot(entry.key);
            self.short[at] = entry;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_from_the_beginning_is_found_and_nothing_else() {
        let texts: Vec<String> =
            (0..5000_u32).map(|number| format!("{}", number.wrapping_mul(2_654_435_761))).collect();
        let pieces: Vec<(&[u8], u32)> = texts.iter().zip(7..).map(|(text, token)| (text.as_bytes(), token)).collect();
        let long: (&[u8], u32) = (b"twelve bytes", 6);
        let beginning = Beginning::of(&[pieces.as_slice(), &[long]].concat());
        for (piece, token) in &pieces {
            assert_eq!(beginning.find(key(piece, 0, piece.len())), Some(*token));
        }
        let others: [&[u8]; 5] = [b"", b"x", b"12345x", long.0, b"eleven byte"];
        assert!(others.iter().all(|other| beginning.find(key(other, 0, other.len())).is_none()));
        let flagged = key(pieces[0].0, 0, pieces[0].0.len()) | super::super::PART_KEY;
        assert_eq!(beginning.find(flagged), None, "a part of a piece is none");
        assert_eq!(Beginning::default().find(key(b"x", 0, 1)), None);

        let mut cache = Cache::default();
        let mut group = Group::default();
        let text = texts[..200].concat() + "neither this nor that is a token";
        let mut ends: Vec<u32> = texts[..200]
            .iter()
            .scan(0, |end, text| {
                *end += text.len() as u32;
                Some(*end)
            })
            .collect();
        ends.push(text.len() as u32);
        for _ in 0..2 {
            group.set(text.as_bytes(), 0, &ends, 0, 0);
            cache.meet(&beginning, &mut group, ends.len());
            let unmet = &group.unmet[..group.unmet_count];
            assert!(unmet.contains(&200));
            for at in (0..200).filter(|at| !unmet.contains(&(*at as u8))) {
                assert_eq!(group.tokens[at], 7 + at as u32);
            }
            // Those that do not lie where they are looked for first are found when they are learnt.
            assert!(unmet.len() < 100);
        }
    }
}
