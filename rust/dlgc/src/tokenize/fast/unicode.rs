//! What the reference's regular expressions and normaliser know of characters.
//!
//! In: a character. Out: its class, as Oniguruma has it, and whether NFC may change a text that holds it. The table
//! `assets/unicode.txt` is made from the pinned reference, and a test makes it again: versions of Unicode differ.

use std::sync::LazyLock;

/// Classes of characters. They are disjoint, but [`SPACE`] wins: it is what `\s` matches.
pub(super) type Class = u8;
pub(super) const OTHER: Class = 0;
pub(super) const UPPER: Class = 1;
pub(super) const LOWER: Class = 2;
pub(super) const TITLE: Class = 3;
pub(super) const MODIFIER: Class = 4;
pub(super) const LETTER: Class = 5;
pub(super) const MARK: Class = 6;
pub(super) const NUMBER: Class = 7;
pub(super) const PUNCTUATION: Class = 8;
pub(super) const SYMBOL: Class = 9;
pub(super) const SPACE: Class = 10;

/// Set where a text with the character may not be in NFC: the character changes, joins another one, or moves.
const UNSTABLE: u8 = 0x80;

const BLOCK: usize = 256;
const BLOCKS: usize = 0x11_0000 / BLOCK;

/// Lines of `first last value`, in hexadecimal.
const TABLE: &str = include_str!("../../../assets/unicode.txt");

/// A table of two levels: equal blocks are kept once.
pub(super) struct Unicode {
    ascii: [u8; 128],
    blocks: Vec<u16>,
    values: Vec<u8>,
}

/// The table of the pinned reference.
pub(super) static UNICODE: LazyLock<Unicode> = LazyLock::new(Unicode::read);

impl Unicode {
    fn read() -> Self {
        let mut flat = vec![OTHER; 0x11_0000];
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let mut fields =
                line.split(' ').map(|field| usize::from_str_radix(field, 16).expect("a hexadecimal number"));
            let mut field = || fields.next().expect("three numbers in a line");
            let (first, last, value) = (field(), field(), field());
            flat[first..=last].fill(u8::try_from(value).expect("a class and a flag"));
        }
        let (mut blocks, mut values): (Vec<u16>, Vec<u8>) = (Vec::with_capacity(BLOCKS), Vec::new());
        for block in flat.chunks(BLOCK) {
            let known = values.chunks(BLOCK).position(|known| known == block);
            let index = known.unwrap_or(values.len() / BLOCK);
            if known.is_none() {
                values.extend_from_slice(block);
            }
            blocks.push(u16::try_from(index).expect("there are fewer blocks than that"));
        }
        let ascii = flat[..128].try_into().expect("128 values");
        Self { ascii, blocks, values }
    }

    fn value(&self, character: u32) -> u8 {
        let block = usize::from(self.blocks[character as usize / BLOCK]);
        self.values[block * BLOCK + character as usize % BLOCK]
    }

    /// The class of an ASCII byte.
    #[inline]
    pub(super) fn ascii(&self, byte: u8) -> Class {
        self.ascii[usize::from(byte & 0x7F)]
    }

    /// The class of the character at a place, and where the next one begins.
    #[inline]
    pub(super) fn at(&self, text: &[u8], at: usize) -> (Class, usize) {
        let byte = text[at];
        if byte < 0x80 {
            return (self.ascii(byte), at + 1);
        }
        let (character, next) = decode(text, at);
        (self.value(character) & !UNSTABLE, next)
    }

    /// Whether NFC surely leaves a text as it is.
    pub(super) fn is_stable(&self, text: &str) -> bool {
        const BLOCK: usize = 64;
        if text.is_ascii() {
            return true;
        }
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let end = at + BLOCK;
            // By blocks of bytes, as long as they hold nothing but what is written most.
            if let Some(block) = bytes[at..].first_chunk::<{ BLOCK + 2 }>() {
                let rare = |place: usize| is_rare(block[place], block[place + 1], block[place + 2]);
                if (0..BLOCK).fold(0, |found, place| found | u8::from(rare(place))) == 0 {
                    at = end;
                    continue;
                }
            }
            while at < end.min(bytes.len()) {
                // The rest of a character that began in the block before.
                if bytes[at] & 0xC0 == 0x80 {
                    at += 1;
                    continue;
                }
                let (character, next) = decode(bytes, at);
                if self.value(character) & UNSTABLE != 0 {
                    return false;
                }
                at = next;
            }
        }
        true
    }
}

/// Whether NFC may change a character that begins with a byte, by the two bytes after it as far as they are of the
/// character: it does not change ASCII, U+3000 to U+3029 and U+3030 to U+303F, U+4000 to U+9FFF, U+FF00 to U+FF3F.
#[inline]
fn is_rare(first: u8, second: u8, third: u8) -> bool {
    let is_sign = (first == 0xE3) & (second == 0x80) & (third.wrapping_sub(0xAA) >= 6);
    let is_full_width = (first == 0xEF) & (second == 0xBC);
    (first >= 0xC0) & !((0xE4..=0xE9).contains(&first) | is_sign | is_full_width)
}

/// The character at a place of a text in UTF-8, and where the next one begins.
#[inline]
pub(super) fn decode(text: &[u8], at: usize) -> (u32, usize) {
    let first = u32::from(text[at]);
    let more = |index: usize| u32::from(text[at + index] & 0x3F);
    match first {
        0..0x80 => (first, at + 1),
        0x80..0xE0 => ((first & 0x1F) << 6 | more(1), at + 2),
        0xE0..0xF0 => (three([text[at], text[at + 1], text[at + 2]]), at + 3),
        _ => ((first & 0x07) << 18 | more(1) << 12 | more(2) << 6 | more(3), at + 4),
    }
}

/// Whether a byte begins a character of three bytes.
#[inline]
pub(super) fn is_lead_of_three(byte: u8) -> bool {
    byte & 0xF0 == 0xE0
}

/// A character of three bytes.
#[inline]
pub(super) fn three([first, second, third]: [u8; 3]) -> u32 {
    u32::from(first & 0x0F) << 12 | u32::from(second & 0x3F) << 6 | u32::from(third & 0x3F)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use tokenizers::normalizers::{NFC, NFD};
    use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
    use tokenizers::{
        NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
        SplitDelimiterBehavior,
    };

    use super::*;

    /// Later ones win.
    const PATTERNS: [(Class, &str); 10] = [
        (UPPER, r"\p{Lu}"),
        (LOWER, r"\p{Ll}"),
        (TITLE, r"\p{Lt}"),
        (MODIFIER, r"\p{Lm}"),
        (LETTER, r"\p{Lo}"),
        (MARK, r"\p{M}"),
        (NUMBER, r"\p{N}"),
        (PUNCTUATION, r"\p{P}"),
        (SYMBOL, r"\p{S}"),
        (SPACE, r"\s"),
    ];

    fn scalars() -> impl Iterator<Item = char> {
        (0..0x11_0000).filter_map(char::from_u32)
    }

    /// Which characters a pattern of the reference matches.
    fn matched(pattern: &str) -> Vec<bool> {
        let pattern = SplitPattern::Regex(pattern.to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Removed, false).expect("a regular expression");
        let mut found = vec![true; 0x11_0000];
        let all: Vec<char> = scalars().collect();
        for part in all.chunks(4096) {
            let mut pieces = PreTokenizedString::from(part.iter().collect::<String>());
            split.pre_tokenize(&mut pieces).expect("pieces");
            for (piece, _, _) in pieces.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                piece.chars().for_each(|left| found[left as usize] = false);
            }
        }
        found
    }

    fn normal(normalizer: &impl Normalizer, text: &str) -> String {
        let mut normalized = NormalizedString::from(text);
        normalizer.normalize(&mut normalized).expect("normalised");
        normalized.get().to_owned()
    }

    fn unstable() -> Vec<bool> {
        let mut found = vec![false; 0x11_0000];
        for character in scalars() {
            let alone = character.to_string();
            // A character of a class other than zero moves before one of a higher class.
            let moves = |text: String| normal(&NFD, &text) != text;
            let decomposed = normal(&NFD, &alone);
            let is_moved = decomposed == alone
                && (moves(format!("\u{0315}{alone}")) || moves(format!("{alone}\u{0334}")))
                || moves(format!("\u{0315}{decomposed}"));
            found[character as usize] |= is_moved || normal(&NFC, &alone) != alone;
            // What can join the character before it is in some decomposition behind the first place.
            decomposed.chars().skip(1).for_each(|joining| found[joining as usize] = true);
        }
        found
    }

    #[test]
    fn the_table_is_the_references_over_all_characters() {
        let mut values = vec![OTHER; 0x11_0000];
        for (class, pattern) in PATTERNS {
            for (value, _) in values.iter_mut().zip(matched(pattern)).filter(|(_, matched)| *matched) {
                *value = class;
            }
        }
        for (value, _) in values.iter_mut().zip(unstable()).filter(|(_, unstable)| *unstable) {
            *value |= UNSTABLE;
        }
        values[0xD800..0xE000].fill(OTHER);
        let mut table =
            "# Classes of characters, and 80 where NFC may change a text: see tokenize/fast/unicode.rs.\n".to_owned();
        let mut first = 0;
        while first < values.len() {
            let value = values[first];
            let last = (first..values.len()).find(|&next| values[next] != value).unwrap_or(values.len()) - 1;
            if value != OTHER {
                writeln!(table, "{first:x} {last:x} {value:x}").expect("written");
            }
            first = last + 1;
        }
        if table != TABLE {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/unicode.txt.new");
            std::fs::write(path, table).expect("written");
            panic!("`assets/unicode.txt` is not what the reference says: see `{path}`");
        }
    }

    #[test]
    fn what_is_not_rare_is_stable() {
        let mut common = 0;
        for character in scalars() {
            let mut bytes = [b'a'; 4];
            character.encode_utf8(&mut bytes);
            if !is_rare(bytes[0], bytes[1], bytes[2]) {
                common += 1;
                assert_eq!(UNICODE.value(character as u32) & UNSTABLE, 0, "{character:?}");
            }
        }
        assert!(common > 20_000);
        // By blocks as one by one, wherever characters begin and end in them.
        for length in 0..200 {
            for (said, is_stable) in [("中", true), ("é", true), ("\u{3099}", false), ("。", true), ("\u{302a}", false)]
            {
                let text = "a".repeat(length % 3) + &"字，".repeat(length / 6) + said + &"好".repeat(length % 40);
                assert_eq!(UNICODE.is_stable(&text), is_stable, "{text}");
            }
        }
    }

    #[test]
    fn the_table_is_read_as_it_is_written() {
        for character in scalars() {
            let mut buffer = [0; 4];
            let text = character.encode_utf8(&mut buffer).as_bytes();
            assert_eq!(decode(text, 0), (character as u32, text.len()));
        }
        assert_eq!(UNICODE.at("中".as_bytes(), 0), (LETTER, 3));
        assert_eq!(UNICODE.at(b" ", 0), (SPACE, 1));
        assert!(UNICODE.is_stable("naïve 中文 한국어 👍🏽 \u{fe0f}"));
        assert!(!UNICODE.is_stable("nai\u{308}ve"));
        assert!(!UNICODE.is_stable("\u{1100}\u{1161}"));
    }
}
