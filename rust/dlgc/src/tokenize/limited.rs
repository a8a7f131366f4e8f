//! The reference with no more of its vocabulary than some texts need.
//!
//! In: the file of a tokenizer, its outline, and texts. Out: a reference that encodes these texts as the whole one does, in a
//! fraction of the time in which that is read: what a word is merged to is made of pieces of the word. What the
//! vocabulary holds is [`Listed`] once, beside the work, and what texts need of it is picked when they are known.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{ModelWrapper, OffsetReferential, OffsetType, PreTokenizer, Tokenizer as Reference};

use super::reference::{Merge, Text};
use super::sections::{Sections, put, put_numbers};

/// A vocabulary and its merges, by where their texts stand in the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    vocab: Vec<(Place, u32)>,
    merges: Vec<[Place; 2]>,
    /// Texts that stand there with escapes.
    odd: String,
}

/// Where a text begins, and how many bytes it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    start: u32,
    length: u32,
}

/// Set in the beginning of texts that do not stand in the file as they are.
const ODD: u32 = 1 << 31;

impl Listed {
    /// Reads what a file holds; `None` where it is too large, or none of a BPE.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        if json.len() >= ODD as usize {
            return None;
        }
        let mut listed = Self::default();
        let seed = Seed { json, listed: &mut listed, level: Level::File };
        seed.deserialize(&mut serde_json::Deserializer::from_slice(json)).ok()?;
        Some(listed)
    }

    /// Writes it down.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_numbers(&mut out, self.vocab.iter().flat_map(|&(Place { start, length }, id)| [start, length, id]));
        put_numbers(&mut out, self.merges.iter().flatten().flat_map(|&Place { start, length }| [start, length]));
        put(&mut out, self.odd.bytes());
        out
    }

    /// What was written down of the same file; `None` where it is not what [`Listed::write`] writes.
    pub(super) fn again(written: &[u8], json: &[u8]) -> Option<Self> {
        let mut written = Sections(written);
        let place = |start, length| Place { start, length };
        let vocab: Vec<_> = written.groups()?.map(|[start, length, id]| (place(start, length), id)).collect();
        let merges: Vec<_> = written.groups()?.map(|[a, b, c, d]| [place(a, b), place(c, d)]).collect();
        let listed = Self { vocab, merges, odd: std::str::from_utf8(written.bytes()?).ok()?.to_owned() };
        let mut places = listed.vocab.iter().map(|(place, _)| place).chain(listed.merges.iter().flatten());
        (places.all(|place| listed.holds(json, *place)) && written.rest().is_empty()).then_some(listed)
    }

    fn place(&mut self, json: &[u8], text: &str) -> Place {
        let length = text.len() as u32;
        let start = text.as_ptr().addr().wrapping_sub(json.as_ptr().addr());
        if start < json.len() {
            return Place { start: start as u32, length };
        }
        let start = self.odd.len() as u32 | ODD;
        self.odd.push_str(text);
        Place { start, length }
    }

    /// Where a text begins, and in what.
    fn around<'t>(&'t self, json: &'t [u8], place: Place) -> (usize, &'t [u8]) {
        let Place { start, .. } = place;
        if start & ODD == 0 { (start as usize, json) } else { ((start & !ODD) as usize, self.odd.as_bytes()) }
    }

    fn holds(&self, json: &[u8], place: Place) -> bool {
        let (from, all) = self.around(json, place);
        from + place.length as usize <= all.len()
    }

    fn text<'t>(&'t self, json: &'t [u8], place: Place) -> &'t [u8] {
        let (from, all) = self.around(json, place);
        &all[from..from + place.length as usize]
    }

    /// The reference of an outline with the part of this that may come into some texts. `None` where something is put
    /// around words that is no part of them.
    pub(super) fn limited(&self, outline: &Reference, json: &[u8], texts: &[&str]) -> Option<Reference> {
        let ModelWrapper::BPE(bpe) = outline.get_model() else { return None };
        let is_empty = |affix: &Option<String>| affix.as_ref().is_none_or(String::is_empty);
        if !is_empty(&bpe.continuing_subword_prefix) || !is_empty(&bpe.end_of_word_suffix) {
            return None;
        }
        let [pieces, others] = in_halves(texts, |text| text.len(), |texts| Pieces::of(outline, texts));
        let pieces = pieces?.with(&others?);
        let unknown = bpe.unk_token.as_ref().map(String::as_bytes);
        let is_byte = |text: &[u8]| text.len() == "<0x00>".len() && text.starts_with(b"<0x");
        let keeps = |text: &[u8]| pieces.may_hold(text) || is_byte(text) || unknown == Some(text);
        let said = |text: &[u8]| std::str::from_utf8(text).map(str::to_owned).ok();
        let mut vocab = Vocab::default();
        for &(place, id) in &self.vocab {
            let text = self.text(json, place);
            if keeps(text) {
                vocab.insert(said(text)?, id);
            }
        }
        let (mut merges, mut both) = (Merges::new(), Vec::new());
        for &sides in &self.merges {
            let [left, right] = sides.map(|side| self.text(json, side));
            if pieces.may_hold(left) && pieces.may_hold(right) {
                both.clear();
                both.extend_from_slice(left);
                both.extend_from_slice(right);
                if keeps(&both) {
                    merges.push((said(left)?, said(right)?));
                }
            }
        }
        let mut builder = BPE::builder()
            .vocab_and_merges(vocab, merges)
            .fuse_unk(bpe.fuse_unk)
            .byte_fallback(bpe.byte_fallback)
            .ignore_merges(bpe.ignore_merges);
        if let Some(text) = &bpe.unk_token {
            builder = builder.unk_token(text.clone());
        }
        let mut limited = outline.clone();
        limited.with_model(builder.build().ok()?);
        Some(limited)
    }
}

/// Runs something on both halves of a list by size, one of them beside.
pub(super) fn in_halves<T: Sync, R: Send>(
    list: &[T],
    size: impl Fn(&T) -> usize,
    run: impl Fn(&[T]) -> R + Sync,
) -> [R; 2] {
    let half = list.iter().map(&size).sum::<usize>() / 2;
    let mut sum = 0;
    let before = list.iter().map(|item| {
        sum += size(item);
        sum - size(item)
    });
    let (first, second) = list.split_at(before.take_while(|before| *before < half).count());
    std::thread::scope(|scope| {
        let beside = std::thread::Builder::new().spawn_scoped(scope, || run(second));
        let own = run(first);
        let other = match beside {
            Ok(beside) => beside.join().unwrap_or_else(|said| std::panic::resume_unwind(said)),
            Err(_) => run(second),
        };
        [own, other]
    })
}

/// Where in the file something stands.
#[derive(Clone, Copy)]
enum Level {
    File,
    Model,
    Vocab,
    Merges,
}

/// Lists a vocabulary.
struct Seed<'l, 'j> {
    json: &'j [u8],
    listed: &'l mut Listed,
    level: Level,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.level {
            Level::Merges => deserializer.deserialize_seq(self),
            _ => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a tokenizer")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Self { json, listed, level } = self;
        while let Some(Text(key)) = members.next_key()? {
            let level = match (level, &*key) {
                (Level::Vocab, text) => {
                    let place = listed.place(json, text);
                    listed.vocab.push((place, members.next_value()?));
                    continue;
                }
                (Level::File, "model") => Level::Model,
                (Level::Model, "vocab") => Level::Vocab,
                (Level::Model, "merges") => Level::Merges,
                _ => {
                    members.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            members.next_value_seed(Seed { json, listed, level })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut merges: A) -> Result<(), A::Error> {
        let Self { json, listed, .. } = self;
        while let Some(merge) = merges.next_element::<Merge<'de>>()? {
            let (left, right) = merge.sides().ok_or_else(|| de::Error::custom("a merge has two sides"))?;
            let sides = [listed.place(json, left), listed.place(json, right)];
            listed.merges.push(sides);
        }
        Ok(())
    }
}

/// What stands in some words: all runs of four bytes, by a hash.
struct Pieces(Vec<u64>);

/// How many bits tell of them.
const BITS: u32 = 20;

impl Pieces {
    /// Of the words that the reference makes of texts, as its model gets them.
    fn of(outline: &Reference, texts: &[&str]) -> Option<Self> {
        let mut pieces = Self(vec![0; 1 << (BITS - u64::BITS.ilog2())]);
        for text in texts {
            let mut words = outline.get_added_vocabulary().extract_and_normalize(outline.get_normalizer(), text);
            if let Some(pre_tokenizer) = outline.get_pre_tokenizer() {
                pre_tokenizer.pre_tokenize(&mut words).ok()?;
            }
            for (word, ..) in words.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
                for run in word.as_bytes().windows(4) {
                    let (at, bit) = Self::place(run);
                    pieces.0[at] |= bit;
                }
            }
        }
        Some(pieces)
    }

    /// Of these words, and of others.
    fn with(mut self, others: &Self) -> Self {
        self.0.iter_mut().zip(&others.0).for_each(|(bits, others)| *bits |= others);
        self
    }

    fn place(run: &[u8]) -> (usize, u64) {
        let number = u32::from_le_bytes(*run.first_chunk().expect("four bytes"));
        let hash = number.wrapping_mul(0x9E37_79B1) >> (u32::BITS - BITS);
        (hash as usize / 64, 1 << (hash % 64))
    }

    /// Whether a text may stand in one of the words; if not, it certainly does not.
    fn may_hold(&self, text: &[u8]) -> bool {
        text.windows(4).all(|run| {
            let (at, bit) = Self::place(run);
            self.0[at] & bit != 0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_again_and_nothing_else_is() {
        let json = br#"{"model": {"vocab": {"a": 0, "b": 1, "\u00e9": 2, "ab": 3}, "merges": [["a", "b"]]}}"#;
        let listed = Listed::read(json).expect("a vocabulary");
        let said = |place| std::str::from_utf8(listed.text(json, place)).expect("text");
        let vocab: Vec<_> = listed.vocab.iter().map(|&(place, id)| (said(place), id)).collect();
        assert_eq!(vocab, [("a", 0), ("b", 1), ("é", 2), ("ab", 3)]);
        assert_eq!(listed.merges.iter().map(|sides| sides.map(said)).collect::<Vec<_>>(), [["a", "b"]]);
        let written = listed.write();
        assert_eq!(Listed::again(&written, json).as_ref(), Some(&listed));
        for length in 0..written.len() {
            assert_eq!(Listed::again(&written[..length], json), None);
        }
        assert_eq!(Listed::again(&written, &json[..40]), None, "places that the file does not have");
    }

    #[test]
    fn halves_are_halves_by_size() {
        let halves = |list: &[usize]| in_halves(list, |size| *size, <[usize]>::to_vec);
        assert_eq!(halves(&[1, 1, 1, 1, 4]), [vec![1, 1, 1, 1], vec![4]]);
        assert_eq!(halves(&[9, 1]), [vec![9], vec![1]]);
        assert_eq!(halves(&[]), [const { Vec::<usize>::new() }; 2]);
    }
}
