//! Borders inside a piece that no merge ever crosses: what lies on both sides is merged each by itself.
//!
//! A merge of two symbols crosses the border between them. So where no symbol of the list that ends as the left side
//! does is ever merged with one that begins as the right side does, the border stays, whatever else is merged. Pieces of
//! Chinese, which are sentences, fall into words so, and words come again.

use std::ops::RangeInclusive;

use super::unicode::{is_lead_of_three, three};

/// Pairs of characters between which a merge may happen: all of those, and by chance some others.
pub(super) struct Joins {
    /// For each ASCII character the ones that may follow.
    ascii: Vec<u128>,
    /// All others by hash.
    bits: Vec<u64>,
    /// By hash, those of them that a merge may join whatever stands around them.
    alone: Vec<u64>,
    /// By hash, three characters in a row that a merge has around a border, two bits each: whether that border is
    /// between the last two, and between the first two.
    wide: Vec<u64>,
    /// By hash, last bytes and the characters after them, where a merge knows no more of the left one.
    endings: Vec<u64>,
    /// For each first byte of a character of three the last bytes of others before it, where a merge knows little more
    /// of either.
    leads: [u64; 16],
    /// By hash, other pairs that a merge may join before both are one symbol.
    partial: Vec<u64>,
}

const BITS: u32 = 20;
const WIDE_BITS: u32 = 20;
const ENDING_BITS: u32 = 15;
const PARTIAL_BITS: u32 = 20;

/// Characters of three bytes, the only ones between which pieces of bytes are cut.
pub(super) const THREE_BYTES: RangeInclusive<u32> = 0x800..=0xFFFF;

fn place<const BITS: u32>(left: u32, right: u32) -> usize {
    let pair = u64::from(left) << 32 | u64::from(right);
    (pair.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - BITS)) as usize
}

/// The bit at a place, in the lowest bit, and those after it.
#[inline]
fn bits_from(bits: &[u64], place: usize) -> u64 {
    bits[place / 64] >> (place % 64)
}

fn set(bits: &mut [u64], place: usize) {
    bits[place / 64] |= 1 << (place % 64);
}

impl Joins {
    pub(super) fn new() -> Self {
        let bits = |bits: u32| vec![0; 1 << (bits - 6)];
        let (endings, partial) = (bits(ENDING_BITS), bits(PARTIAL_BITS));
        let (alone, wide) = (bits(BITS), bits(WIDE_BITS));
        Self { ascii: vec![0; 128], bits: bits(BITS), alone, wide, endings, leads: [0; 16], partial }
    }

    /// Adds a pair of characters.
    pub(super) fn add(&mut self, left: u32, right: u32) {
        if left < 128 && right < 128 {
            self.ascii[left as usize] |= 1 << right;
            return;
        }
        set(&mut self.bits, place::<BITS>(left, right));
    }

    /// Whether a merge may happen between two characters, all pairs of which were added.
    #[inline]
    pub(super) fn may_join(&self, left: u32, right: u32) -> bool {
        if left < 128 && right < 128 {
            return self.ascii[left as usize] >> right & 1 != 0;
        }
        bits_from(&self.bits, place::<BITS>(left, right)) & 1 != 0
    }

    /// Whether a merge may happen between two characters of three bytes, by [`Joins::add_bytes`].
    #[inline]
    pub(super) fn may_join_bytes(&self, left: u32, right: u32) -> bool {
        (bits_from(&self.bits, place::<BITS>(left, right)) | self.parts(left, right)) & 1 != 0
    }

    /// Whether a merge may happen between two characters of three bytes, in the lowest bit, whatever stands around them.
    #[inline]
    pub(super) fn may_join_alone(&self, left: u32, right: u32) -> u64 {
        bits_from(&self.alone, place::<BITS>(left, right)) | self.parts(left, right)
    }

    /// Whether a merge may happen among three characters of three bytes because all three stand there: between the last
    /// two in the lowest bit, between the first two in the next.
    #[inline]
    pub(super) fn may_join_in(&self, first: u32, second: u32, third: u32) -> u64 {
        bits_from(&self.wide, wide(first, second, third))
    }

    /// Whether a merge may happen between two characters of three bytes before each of them is one symbol.
    pub(super) fn may_join_parts(&self, left: u32, right: u32) -> bool {
        (bits_from(&self.partial, place::<PARTIAL_BITS>(left, right)) | self.parts(left, right)) & 1 != 0
    }

    #[inline]
    fn parts(&self, left: u32, right: u32) -> u64 {
        bits_from(&self.endings, place::<ENDING_BITS>(left & 63, right))
            | self.leads[(right >> 12) as usize & 15] >> (left & 63)
    }

    /// Adds what a merge of two symbols, which are bytes, joins as far as both characters have three of them.
    pub(super) fn add_bytes(&mut self, left: &[u8], right: &[u8]) {
        let known = right.len().min(3);
        let Some(&lead @ 0xE0..0xF0) = right.first() else { return };
        if right[1..known].iter().any(|byte| byte & 0xC0 != 0x80) {
            return;
        }
        let Some(lefts) = Ending::of(left) else { return };
        if known == 1 || known == 2 && lefts.known == 6 {
            self.leads[usize::from(lead & 15)] |= 1 << (lefts.bits & 63);
            return;
        }
        let first = u32::from(lead & 15) << 12 | u32::from(right[1] & 63) << 6;
        let rights = match right.get(2) {
            Some(last) => first | u32::from(last & 63)..=first | u32::from(last & 63),
            None => first..=first | 63,
        };
        if lefts.known == 6 {
            set(&mut self.endings, place::<ENDING_BITS>(lefts.bits, *rights.start()));
            return;
        }
        let is_partial = known < 3 || lefts.known < 16;
        let wider = if is_partial { None } else { wider(left, right) };
        if let Some(place) = wider {
            set(&mut self.wide, place);
        }
        for left in lefts.characters() {
            for right in rights.clone() {
                self.add(left, right);
                if wider.is_none() {
                    set(&mut self.alone, place::<BITS>(left, right));
                }
                if is_partial {
                    set(&mut self.partial, place::<PARTIAL_BITS>(left, right));
                }
            }
        }
    }
}

/// The place of the two bits of three characters in a row.
#[inline]
fn wide(first: u32, second: u32, third: u32) -> usize {
    let three = u64::from(first) << 32 | u64::from(second) << 16 | u64::from(third);
    (three.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - WIDE_BITS + 1)) as usize * 2
}

/// The bit of three characters in a row that stand where two symbols are merged, the border between which is one between
/// characters of three bytes; `None` where the symbols do not say a third one of these.
fn wider(left: &[u8], right: &[u8]) -> Option<usize> {
    let is_whole = |bytes: &&[u8; 3]| is_lead_of_three(bytes[0]) && std::str::from_utf8(*bytes).is_ok();
    let (before, &last) = left.split_last_chunk::<3>()?;
    let (&first, after) = right.split_first_chunk::<3>()?;
    if let Some(&next) = after.first_chunk().filter(is_whole) {
        return Some(wide(three(last), three(first), three(next)) + 1);
    }
    let &before = before.last_chunk().filter(is_whole)?;
    Some(wide(three(before), three(last), three(first)))
}

/// The bits of the last bytes of a character of three, as far as a symbol has them.
struct Ending {
    bits: u32,
    known: u32,
}

impl Ending {
    /// `None` where no character of three bytes ends like this symbol.
    fn of(symbol: &[u8]) -> Option<Self> {
        if symbol.is_empty() {
            return None;
        }
        let inside = symbol.iter().rev().take_while(|byte| **byte & 0xC0 == 0x80).count();
        let begins = symbol.len() > inside;
        let lead = symbol[symbol.len() - inside - usize::from(begins)];
        match (inside, begins) {
            (1 | 2, false) | (2, true) => {}
            _ => return None,
        }
        if begins && !(0xE0..0xF0).contains(&lead) {
            return None;
        }
        let tail = &symbol[symbol.len() - inside..];
        let bits = tail.iter().fold(0, |bits, byte| bits << 6 | u32::from(byte & 63));
        let top = if begins { u32::from(lead & 15) << 12 } else { 0 };
        Some(Self { bits: top | bits, known: if begins { 16 } else { 6 * inside as u32 } })
    }

    /// All characters that end so.
    fn characters(&self) -> impl Iterator<Item = u32> {
        let (bits, known) = (self.bits, self.known);
        (0..1_u32 << (16 - known)).map(move |top| top << known | bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(left: &[u8], right: &[u8]) -> Joins {
        let mut joins = Joins::new();
        joins.add_bytes(left, right);
        joins
    }

    /// Whether characters of three bytes can lie on both sides of such a merge.
    fn can(left: &[u8], right: &[u8], a: char, b: char) -> bool {
        let (a, b) = (a.to_string().into_bytes(), b.to_string().into_bytes());
        let ends = a.ends_with(left) || left.ends_with(&a);
        ends && (b.starts_with(right) || right.starts_with(&b))
    }

    /// Whether a merge is found between two characters: by them alone, or by what has to stand around them.
    fn may_join_around(joins: &Joins, left: &[u8], right: &[u8], [a, b]: [char; 2]) -> bool {
        let character = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.chars().next());
        let is_three = |character: &char| THREE_BYTES.contains(&(*character as u32));
        let before = left.split_last_chunk::<3>().and_then(|(before, _)| before.last_chunk::<3>());
        let before = before.and_then(|bytes| character(bytes)).filter(is_three);
        let after = right.split_first_chunk::<3>().and_then(|(_, after)| after.first_chunk::<3>());
        let after = after.and_then(|bytes| character(bytes)).filter(is_three);
        let (a, b) = (a as u32, b as u32);
        joins.may_join_alone(a, b) & 1 == 1
            || before.is_some_and(|before| joins.may_join_in(before as u32, a, b) & 1 == 1)
            || after.is_some_and(|after| joins.may_join_in(a, b, after as u32) >> 1 & 1 == 1)
    }

    #[test]
    fn every_pair_that_a_merge_can_join_is_found() {
        let characters: Vec<char> = "一丁丂你我的好除数ᄀ가각힣あいうアイー。，ก็ะ₤€ऀ".chars().collect();
        let symbols: Vec<Vec<u8>> = characters
            .iter()
            .flat_map(|character| {
                let bytes = character.to_string().into_bytes();
                [bytes[..1].to_vec(), bytes[..2].to_vec(), bytes.clone(), bytes[1..].to_vec(), bytes[2..].to_vec()]
            })
            .chain([
                b"a".to_vec(),
                b" ".to_vec(),
                "é".into(),
                "a你".into(),
                "你a".into(),
                "我你".into(),
                "的我你".into(),
            ])
            .collect();
        let mut found = 0;
        for left in &symbols {
            for right in &symbols {
                let joins = joined(left, right);
                for &a in &characters {
                    for &b in &characters {
                        if can(left, right, a, b) {
                            found += 1;
                            assert!(joins.may_join_bytes(a as u32, b as u32), "{left:?} {right:?} {a} {b}");
                            assert!(may_join_around(&joins, left, right, [a, b]), "{left:?} {right:?} {a} {b}");
                            let whole = std::str::from_utf8(left).is_ok() && std::str::from_utf8(right).is_ok();
                            assert!(whole || joins.may_join_parts(a as u32, b as u32), "{left:?} {right:?} {a} {b}");
                        }
                    }
                }
            }
        }
        assert!(found > 10_000);
    }

    #[test]
    fn a_whole_merge_joins_one_pair() {
        let joins = joined("我你".as_bytes(), "好吗".as_bytes());
        assert!(joins.may_join_bytes('你' as u32, '好' as u32));
        assert!(!joins.may_join_parts('你' as u32, '好' as u32));
        assert!(!joins.may_join_bytes('我' as u32, '你' as u32));
        assert!(!joins.may_join_bytes('你' as u32, '吗' as u32));
        let [me, you, good, what] = ['我', '你', '好', '吗'].map(u32::from);
        assert_eq!(joins.may_join_alone(you, good) & 1, 0);
        assert_eq!((joins.may_join_in(you, good, what) & 3, joins.may_join_in(me, you, good) & 3), (2, 0));
        let joins = joined("我你".as_bytes(), "好".as_bytes());
        assert_eq!((joins.may_join_in(you, good, what) & 3, joins.may_join_in(me, you, good) & 3), (0, 1));
        assert_eq!(joined("你".as_bytes(), "好".as_bytes()).may_join_alone(you, good) & 1, 1);
    }
}
