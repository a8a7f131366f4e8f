//! Which of 64 bytes are of which class, as bits: so where pieces begin is computed for all of them at once, without
//! looking at letters one by one and without guessing how many there are.
//!
//! In: a text and a place in it. Out: [`Block`], and of it where pieces begin. Only ASCII is told apart; all that is not,
//! and what lies behind the end of the text, is `other`.

/// How many bytes a block has.
const BYTES: usize = 64;

/// The classes of the bytes from a place on, the first one in the lowest bit. They are those of
/// [`Unicode`](super::unicode::Unicode), and each byte is of one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    letters: u64,
    digits: u64,
    /// The space character itself.
    spaces: u64,
    /// Carriage returns and line feeds.
    lines: u64,
    /// White space that is neither.
    blanks: u64,
    /// Punctuation, symbols, control characters.
    rest: u64,
    /// No ASCII, or nothing.
    other: u64,
}

impl Block {
    /// The block at a place.
    #[inline]
    pub(super) fn of(text: &[u8], at: usize) -> Self {
        match text[at..].first_chunk::<BYTES>() {
            Some(bytes) => Self::of_bytes(bytes),
            None => {
                let mut bytes = [0x80; BYTES];
                bytes[..text.len() - at].copy_from_slice(&text[at..]);
                Self::of_bytes(&bytes)
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[allow(unsafe_code, reason = "the language does not know that every such processor has SSE2")]
    fn of_bytes(bytes: &[u8; BYTES]) -> Self {
        // SAFETY: SSE2 is part of x86-64. The function itself does nothing that is unsafe.
        unsafe { Self::with_sse2(bytes) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "sse2")]
    #[inline]
    fn with_sse2(bytes: &[u8; BYTES]) -> Self {
        use std::arch::x86_64::{
            __m128i, _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
            _mm_sub_epi8,
        };
        #[target_feature(enable = "sse2")]
        #[inline]
        fn mask(found: __m128i) -> u64 {
            u64::from(_mm_movemask_epi8(found) as u16)
        }
        #[target_feature(enable = "sse2")]
        #[inline]
        fn among(bytes: __m128i, first: u8, last: u8) -> u64 {
            let from_first = _mm_sub_epi8(bytes, _mm_set1_epi8(first.cast_signed()));
            let at_most = _mm_min_epu8(from_first, _mm_set1_epi8((last - first).cast_signed()));
            mask(_mm_cmpeq_epi8(at_most, from_first))
        }
        let mut block = Self::default();
        for (chunk, place) in bytes.chunks_exact(16).zip([0, 16, 32, 48]) {
            let half = |half: &[u8]| i64::from_le_bytes(half.try_into().expect("eight bytes"));
            let found = _mm_set_epi64x(half(&chunk[8..]), half(&chunk[..8]));
            let lower = _mm_or_si128(found, _mm_set1_epi8(0x20));
            block.letters |= among(lower, b'a', b'z') << place;
            block.digits |= among(found, b'0', b'9') << place;
            block.spaces |= among(found, b' ', b' ') << place;
            block.lines |= (among(found, b'\n', b'\n') | among(found, b'\r', b'\r')) << place;
            block.blanks |= (among(found, b'\t', b'\t') | among(found, 0x0B, 0x0C)) << place;
            block.other |= mask(found) << place;
        }
        block.with_rest()
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    fn of_bytes(bytes: &[u8; BYTES]) -> Self {
        Self::one_by_one(bytes)
    }

    /// The same, plainly.
    #[cfg(any(test, not(target_arch = "x86_64")))]
    fn one_by_one(bytes: &[u8; BYTES]) -> Self {
        let mut block = Self::default();
        for (index, byte) in bytes.iter().enumerate() {
            let class = match byte {
                b'a'..=b'z' | b'A'..=b'Z' => &mut block.letters,
                b'0'..=b'9' => &mut block.digits,
                b' ' => &mut block.spaces,
                b'\n' | b'\r' => &mut block.lines,
                b'\t' | 0x0B | 0x0C => &mut block.blanks,
                0x80.. => &mut block.other,
                _ => continue,
            };
            *class |= 1 << index;
        }
        block.with_rest()
    }

    #[inline]
    fn with_rest(mut self) -> Self {
        self.rest = !(self.letters | self.digits | self.spaces | self.lines | self.blanks | self.other);
        self
    }

    /// Where pieces of cl100k and its relatives begin behind the first byte, at which one does: as far as the ASCII in
    /// the block tells. The expressions are those of [`Splitter`](super::split::Splitter), numbers have up to `DIGITS`
    /// digits.
    #[inline]
    pub(super) fn cl100k<const DIGITS: usize>(&self, text: &[u8], at: usize) -> u64 {
        // So many characters are known; what begins a piece may depend on the next one.
        let mut known = self.other.trailing_zeros();
        // Line breaks behind a sign belong to it: adding to the first of them carries over all.
        let taken = self.lines & !self.lines.wrapping_add((self.rest << 1) & self.lines);
        let white = self.spaces | self.lines | self.blanks;
        let free = white & !taken;
        let (breaks, inner) = (free & self.lines, free & !self.lines);
        // Signs, but for those that belong to the space or the sign before them.
        let signs = self.rest & !((self.rest | self.spaces) << 1);
        // One sign or blank before a word belongs to it.
        let words = self.letters & !((self.letters | inner | signs) << 1);
        let mut starts = signs | words | free & !(free << 1) | self.numbers::<DIGITS>();
        // The last blank of several begins a piece, if no line ends there.
        starts |= inner & !(white >> 1) & (bits_below(known) >> 1);
        for first in ones(inner & !(inner << 1) & (breaks << 1)) {
            let end = first + (inner >> first).trailing_ones();
            if end >= known {
                known = known.min(first);
            } else if self.lines >> end & 1 == 0 {
                starts |= 1 << first;
            }
        }
        for quote in ones(signs & (self.letters >> 1)) {
            let here = at + quote as usize;
            if text[here] != b'\'' {
                continue;
            }
            let letter = |index: usize| text.get(here + index).map(u8::to_ascii_lowercase);
            let length = match (letter(1), letter(2)) {
                (Some(b's' | b't' | b'm' | b'd'), _) => 2,
                (Some(b'r' | b'v'), Some(b'e')) | (Some(b'l'), Some(b'l')) => 3,
                _ => continue,
            };
            if quote + length < known {
                starts |= 1 << (quote + length);
            }
        }
        starts & bits_below(known) & !1
    }

    /// Where numbers of up to so many digits begin.
    #[inline]
    fn numbers<const DIGITS: usize>(&self) -> u64 {
        if DIGITS == 1 {
            return self.digits;
        }
        let mut found = self.digits & !(self.digits << 1);
        let whole = (0..DIGITS).fold(u64::MAX, |whole, digit| whole & self.digits << digit);
        let mut next = found << DIGITS & whole;
        while next != 0 {
            found |= next;
            next = next << DIGITS & whole;
        }
        found
    }
}

/// So many of the lowest bits.
#[inline]
fn bits_below(count: u32) -> u64 {
    1_u64.checked_shl(count).unwrap_or_default().wrapping_sub(1)
}

/// The places of the bits that are set, from the lowest on.
#[inline]
pub(super) fn ones(mut bits: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let place = (bits != 0).then(|| bits.trailing_zeros())?;
        bits &= bits - 1;
        Some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::super::unicode::{LOWER, NUMBER, SPACE, UNICODE, UPPER};
    use super::*;

    #[test]
    fn every_byte_at_every_place_is_of_its_class() {
        for byte in 0..=u8::MAX {
            for place in 0..BYTES {
                let mut bytes = [b' '; BYTES];
                bytes[place] = byte;
                let block = Block::of(&bytes, 0);
                assert_eq!(block, Block::one_by_one(&bytes));
                let is = |class: u64| class >> place & 1 == 1;
                let expected = match (byte, UNICODE.ascii(byte)) {
                    (0x80.., _) => block.other,
                    (b' ', _) => block.spaces,
                    (b'\n' | b'\r', _) => block.lines,
                    (_, SPACE) => block.blanks,
                    (_, UPPER | LOWER) => block.letters,
                    (_, NUMBER) => block.digits,
                    _ => block.rest,
                };
                assert!(is(expected), "{byte} at {place}");
                let blanks = block.lines | block.blanks;
                let classes = [block.letters, block.digits, block.spaces, blanks, block.rest, block.other].map(is);
                assert_eq!(classes.iter().filter(|is| **is).count(), 1);
            }
        }
    }

    #[test]
    fn behind_the_end_there_is_nothing() {
        let text = b"word";
        let block = Block::of(text, 1);
        assert_eq!((block.letters, block.other), (0b111, !0b111));
        assert_eq!(Block::of(text, 4).other, u64::MAX);
    }
}
