//! Splitters: where the regular expressions of known families cut a text into the pieces that are merged each by
//! itself.
//!
//! In: a text and a place where a piece begins. Out: where it ends. A splitter stands for one exact spelling of a
//! pre-tokenizer, and cuts every text as the reference does with that one: its tests compare them.

use serde_json::Value;

use super::blocks::{self, Block};
use super::unicode::{
    Class, LETTER, LOWER, MARK, MODIFIER, NUMBER, OTHER, PUNCTUATION, SPACE, SYMBOL, TITLE, UNICODE, UPPER, Unicode,
    decode,
};

/// A pre-tokenizer that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Splitter {
    /// Words as GPT-2 has them.
    Gpt2,
    /// Each numeric character alone, then as GPT-2.
    Digits,
    /// Words with what stands before them, numbers of one digit.
    Qwen2,
    /// The same; marks belong to words.
    Qwen35,
    /// The same as Qwen2 with numbers of up to three digits.
    Llama3,
    /// Words begin with their capital letters and end with their contraction.
    O200k,
    /// Numbers, then Chinese and Japanese, then words.
    DeepSeekV3,
}

const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK_V3: [&str; 3] = [
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
];

impl Splitter {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt-2",
            Self::Digits => "smollm",
            Self::Qwen2 => "qwen-2",
            Self::Qwen35 => "qwen-3.5",
            Self::Llama3 => "llama-3",
            Self::O200k => "o200k",
            Self::DeepSeekV3 => "deepseek-v3",
        }
    }

    /// The splitter of a pre-tokenizer's JSON, if it is one that is known letter by letter.
    pub(super) fn of(pre_tokenizer: &Value) -> Option<Self> {
        let steps = match pre_tokenizer["type"].as_str()? {
            "Sequence" => pre_tokenizer["pretokenizers"].as_array()?.as_slice(),
            _ => std::slice::from_ref(pre_tokenizer),
        };
        let (last, before) = steps.split_last()?;
        if last["type"] != "ByteLevel" || last["add_prefix_space"] != false {
            return None;
        }
        let words = last["use_regex"].as_bool()?;
        // With and without what lies between the matches: all of these expressions match every character.
        let one = |split: &Value| {
            let whole = split["behavior"] == "Isolated" && split["invert"] == false
                || split["behavior"] == "Removed" && split["invert"] == true;
            split["pattern"]["Regex"].as_str().filter(|_| split["type"] == "Split" && whole).map(ToOwned::to_owned)
        };
        let isolated = |split: &Value| one(split).filter(|_| split["behavior"] == "Isolated");
        match before {
            [] if words => Some(Self::Gpt2),
            [digits] if words => {
                (digits["type"] == "Digits" && digits["individual_digits"] == true).then_some(Self::Digits)
            }
            [split] if !words => match one(split)?.as_str() {
                QWEN2 => Some(Self::Qwen2),
                QWEN35 => Some(Self::Qwen35),
                LLAMA3 => Some(Self::Llama3),
                O200K => Some(Self::O200k),
                _ => None,
            },
            [_, _, _] if !words => {
                let splits: Option<Vec<String>> = before.iter().map(isolated).collect();
                (splits? == DEEPSEEK_V3).then_some(Self::DeepSeekV3)
            }
            _ => None,
        }
    }

    /// Appends the ends of pieces of `text` from `at` on, at most about `limit` of them, and returns the last one.
    ///
    /// `at` has to be where a piece begins; pieces lie between the ends.
    pub(super) fn ends(self, text: &[u8], at: usize, limit: usize, ends: &mut Vec<u32>) -> usize {
        let unicode = &*UNICODE;
        match self {
            Self::Gpt2 => whole(text, at, limit, ends, |text, at| Scan { unicode, text }.gpt2(at)),
            Self::Qwen2 => Scan { unicode, text }.all_cl100k::<1, false>(at, limit, ends),
            Self::Qwen35 => Scan { unicode, text }.all_cl100k::<1, true>(at, limit, ends),
            Self::Llama3 => Scan { unicode, text }.all_cl100k::<3, false>(at, limit, ends),
            Self::O200k => whole(text, at, limit, ends, |text, at| Scan { unicode, text }.o200k(at)),
            Self::Digits => {
                let mut at = at;
                while at < text.len() && ends.len() < limit {
                    let inside = &text[..digit_part(text, at)];
                    at = whole(inside, at, limit, ends, |text, at| Scan { unicode, text }.gpt2(at));
                }
                at
            }
            Self::DeepSeekV3 => {
                let scan = Scan { unicode, text };
                let mut at = at;
                while at < text.len() && ends.len() < limit {
                    at = scan.deepseek_chinese(at, limit, ends);
                    if at < text.len() {
                        let inside = &text[..scan.deepseek_part(at)];
                        at = whole(inside, at, limit, ends, |text, at| Scan { unicode, text }.deepseek(at));
                    }
                }
                at
            }
        }
    }
}

/// Pieces that depend on all that follows.
#[inline(always)]
fn whole(
    text: &[u8],
    mut at: usize,
    limit: usize,
    ends: &mut Vec<u32>,
    piece: impl Fn(&[u8], usize) -> usize,
) -> usize {
    while at < text.len() && ends.len() < limit {
        at = piece(text, at);
        ends.push(at as u32);
    }
    at
}

/// The end of a numeric character, or of what comes before the next one.
fn digit_part(text: &[u8], start: usize) -> usize {
    let is_numeric = |at: usize| {
        let (character, next) = decode(text, at);
        (char::from_u32(character).is_some_and(char::is_numeric), next)
    };
    let (numeric, mut at) = is_numeric(start);
    if numeric {
        return at;
    }
    while at < text.len() {
        let (numeric, next) = is_numeric(at);
        if numeric {
            break;
        }
        at = next;
    }
    at
}

const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGHS: u64 = ONES << 7;

/// The high bit of each byte that is no ASCII letter.
#[inline]
fn not_letters(word: u64) -> u64 {
    let lower = (word | (ONES * 0x20)) & !HIGHS;
    let from_a = lower + ONES * (0x80 - b'a' as u64);
    let after_z = lower + ONES * (0x7F - b'z' as u64);
    !(from_a & !after_z & !word) & HIGHS
}

#[inline]
fn is_letter(class: Class) -> bool {
    matches!(class, UPPER | LOWER | TITLE | MODIFIER | LETTER)
}

fn is_line_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// A text that is split; everything behind its end does not exist.
struct Scan<'t> {
    unicode: &'t Unicode,
    text: &'t [u8],
}

impl Scan<'_> {
    #[inline]
    fn class(&self, at: usize) -> Option<Class> {
        (at < self.text.len()).then(|| self.unicode.at(self.text, at).0)
    }

    /// The end of a run of characters.
    #[inline]
    fn run(&self, mut at: usize, is_in: impl Fn(Class) -> bool) -> usize {
        while at < self.text.len() {
            let (class, next) = self.unicode.at(self.text, at);
            if !is_in(class) {
                break;
            }
            at = next;
        }
        at
    }

    /// The end of a run of letters, most of which are ASCII or Chinese; with `MARKS` also of marks.
    #[inline]
    fn letters<const MARKS: bool>(&self, mut at: usize) -> usize {
        while let Some(&[first, second, _]) = self.text[at..].first_chunk::<3>() {
            // U+4E00 to U+9FFF, letters all of them.
            if !(0xE4B8..=0xE9BF).contains(&u16::from_be_bytes([first, second])) {
                break;
            }
            at += 3;
        }
        while let Some(bytes) = self.text.get(at..at + 8) {
            let word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            let others = not_letters(word);
            if others == 0 {
                at += 8;
                continue;
            }
            at += others.trailing_zeros() as usize / 8;
            if self.text[at] < 0x80 {
                return at;
            }
            break;
        }
        self.run(at, |class| is_letter(class) || MARKS && class == MARK)
    }

    /// The end of a run of line breaks, and with `SLASHES` of slashes.
    #[inline]
    fn line_breaks<const SLASHES: bool>(&self, mut at: usize) -> usize {
        while at < self.text.len() && (is_line_break(self.text[at]) || SLASHES && self.text[at] == b'/') {
            at += 1;
        }
        at
    }

    /// `\s+(?!\S)|\s+`, after `\s*[\r\n]+` if `LINES`.
    fn spaces<const LINES: bool>(&self, start: usize) -> usize {
        let (mut end, mut last, mut after_break) = (start, start, start);
        while end < self.text.len() {
            let (class, next) = self.unicode.at(self.text, end);
            if class != SPACE {
                break;
            }
            if LINES && is_line_break(self.text[end]) {
                after_break = next;
            }
            last = end;
            end = next;
        }
        if after_break > start {
            after_break
        } else if end == self.text.len() || last == start {
            end
        } else {
            last
        }
    }

    /// The end of `'s|'t|'re|'ve|'m|'ll|'d`, if it stands here.
    #[inline]
    fn contraction<const ANY_CASE: bool>(&self, at: usize) -> Option<usize> {
        if self.text.get(at) != Some(&b'\'') {
            return None;
        }
        let letter = |index: usize| {
            let byte = *self.text.get(at + index)?;
            Some(if ANY_CASE { byte.to_ascii_lowercase() } else { byte })
        };
        match (letter(1)?, letter(2)) {
            (b's' | b't' | b'm' | b'd', _) => Some(at + 2),
            (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => Some(at + 3),
            // The long s is an s in another case.
            (0xC5, Some(0xBF)) if ANY_CASE => Some(at + 3),
            _ => None,
        }
    }

    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    #[inline]
    fn gpt2(&self, start: usize) -> usize {
        if let Some(end) = self.contraction::<false>(start) {
            return end;
        }
        let at = start + usize::from(self.text[start] == b' ');
        match self.class(at) {
            None | Some(SPACE) => self.spaces::<false>(start),
            Some(NUMBER) => self.run(at, |class| class == NUMBER),
            Some(class) if is_letter(class) => self.letters::<false>(at),
            Some(_) => self.run(at, |class| !(is_letter(class) || class == NUMBER || class == SPACE)),
        }
    }

    /// Pieces of cl100k and its relatives: those of ASCII by blocks, the others one by one.
    fn all_cl100k<const DIGITS: usize, const MARKS: bool>(
        &self,
        mut at: usize,
        limit: usize,
        ends: &mut Vec<u32>,
    ) -> usize {
        while at < self.text.len() && ends.len() < limit {
            let base = at;
            // A block tells nothing of what begins with another character than ASCII.
            if self.text[base] >= 0x80 {
                at = self.cl100k::<DIGITS, MARKS>(base);
                ends.push(at as u32);
                continue;
            }
            for start in blocks::ones(Block::of(self.text, base).cl100k::<DIGITS>(self.text, base)) {
                at = base + start as usize;
                ends.push(at as u32);
            }
            if at == base {
                at = self.cl100k::<DIGITS, MARKS>(at);
                ends.push(at as u32);
            }
        }
        at
    }

    /// The expressions of cl100k and its relatives.
    #[inline]
    fn cl100k<const DIGITS: usize, const MARKS: bool>(&self, start: usize) -> usize {
        let is_word = |class: Class| is_letter(class) || MARKS && class == MARK;
        let (class, next) = self.unicode.at(self.text, start);
        if is_word(class) {
            return self.letters::<MARKS>(next);
        }
        if class == NUMBER {
            return self.digits::<DIGITS>(next);
        }
        let first = self.text[start];
        let following = self.class(next);
        if first == b'\''
            && let Some(end) = self.contraction::<true>(start)
        {
            return end;
        }
        if following.is_some_and(is_word) && !is_line_break(first) {
            return self.letters::<MARKS>(next);
        }
        let is_rest = |class: Class| !(is_word(class) || class == NUMBER || class == SPACE);
        if is_rest(class) || first == b' ' && following.is_some_and(is_rest) {
            return self.line_breaks::<false>(self.run(next, is_rest));
        }
        self.spaces::<true>(start)
    }

    /// The end of a number of which one digit was seen.
    #[inline]
    fn digits<const DIGITS: usize>(&self, mut at: usize) -> usize {
        for _ in 1..DIGITS {
            if self.class(at) != Some(NUMBER) {
                break;
            }
            at = self.unicode.at(self.text, at).1;
        }
        at
    }

    fn o200k(&self, start: usize) -> usize {
        let (class, next) = self.unicode.at(self.text, start);
        if class == NUMBER {
            return self.digits::<3>(next);
        }
        let first = self.text[start];
        let word = if is_letter(class) {
            self.o200k_lower(start).or_else(|| self.o200k_upper(start))
        } else if is_line_break(first) {
            None
        } else {
            let bare = || self.o200k_lower(start).filter(|_| class == MARK);
            self.o200k_lower(next).or_else(bare).or_else(|| self.o200k_upper(next))
        };
        if let Some(end) = word {
            return self.contraction::<true>(end).unwrap_or(end);
        }
        let is_rest = |class: Class| !(is_letter(class) || class == NUMBER || class == SPACE);
        if is_rest(class) || first == b' ' && self.class(next).is_some_and(is_rest) {
            return self.line_breaks::<true>(self.run(next, is_rest));
        }
        self.spaces::<true>(start)
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`
    #[inline]
    fn o200k_lower(&self, start: usize) -> Option<usize> {
        let is_lower = |class: Class| matches!(class, LOWER | MODIFIER | LETTER | MARK);
        let mut at = start;
        // What both classes hold can be given back; then it is one character.
        let mut given_back = None;
        while at < self.text.len() {
            let (class, next) = self.unicode.at(self.text, at);
            match class {
                LOWER => return Some(self.o200k_tail(next)),
                UPPER | TITLE => {}
                _ if is_lower(class) => given_back = Some(next),
                _ => break,
            }
            at = next;
        }
        given_back
    }

    /// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`
    #[inline]
    fn o200k_tail(&self, mut at: usize) -> usize {
        while let Some(bytes) = self.text.get(at..at + 8) {
            let word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            // Capital letters have no bit for lower case.
            let others = not_letters(word) | !(word << 2) & HIGHS;
            if others == 0 {
                at += 8;
                continue;
            }
            at += others.trailing_zeros() as usize / 8;
            if self.text[at] < 0x80 {
                return at;
            }
            break;
        }
        self.run(at, |class| matches!(class, LOWER | MODIFIER | LETTER | MARK))
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+`, after which no other letter comes.
    fn o200k_upper(&self, start: usize) -> Option<usize> {
        let end = self.run(start, |class| matches!(class, UPPER | TITLE | MODIFIER | LETTER | MARK));
        (end > start).then_some(end)
    }

    /// Appends the ends of pieces as Chinese has them: runs of its characters, and single signs between those.
    fn deepseek_chinese(&self, mut at: usize, limit: usize, ends: &mut Vec<u32>) -> usize {
        let next = |at: usize| self.text[at..].first_chunk::<3>().map(|&[a, b, c]| u32::from_be_bytes([0, a, b, c]));
        // U+4E00 to U+9FA5, letters all of them.
        let is_chinese = |three: &u32| (0xE4_B880..=0xE9_BEA5).contains(three);
        while ends.len() < limit {
            let start = at;
            while next(at).is_some_and(|three| is_chinese(&three)) {
                at += 3;
            }
            match next(at) {
                // U+3040 to U+30FF, which belong to such runs.
                Some(0xE3_8180..=0xE3_83BF) => return start,
                _ if at > start => ends.push(at as u32),
                Some(0xE2_8080..=0xEF_BFBF) if next(at + 3).is_some_and(|three| is_chinese(&three)) => {
                    at += 3;
                    ends.push(at as u32);
                }
                _ => return at,
            }
        }
        at
    }

    /// The end of up to three digits, of Chinese and Japanese, or of what comes before either.
    fn deepseek_part(&self, start: usize) -> usize {
        let is_east = |at: usize| {
            let (character, _) = decode(self.text, at);
            matches!(character, 0x4E00..=0x9FA5 | 0x3040..=0x30FF)
        };
        let (class, mut at) = self.unicode.at(self.text, start);
        if class == NUMBER {
            return self.digits::<3>(at);
        }
        let east = is_east(start);
        while at < self.text.len() {
            // U+4E00 to U+9FA5, of which none is numeric.
            if east
                && let Some(&[first, second, third]) = self.text[at..].first_chunk::<3>()
                && (0xE4_B880..=0xE9_BEA5).contains(&u32::from_be_bytes([0, first, second, third]))
            {
                at += 3;
                continue;
            }
            if !east && let Some(bytes) = self.text.get(at..at + 8) {
                let word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
                let from = |byte: u8| word.wrapping_add(ONES * u64::from(0x80 - byte));
                let digits = from(b'0') & !from(b'9' + 1);
                if (digits | word) & HIGHS == 0 {
                    at += 8;
                    continue;
                }
            }
            let (class, next) = self.unicode.at(self.text, at);
            if class == NUMBER || is_east(at) != east {
                break;
            }
            at = next;
        }
        at
    }

    /// Where a match of the third expression ends, or what comes before one.
    fn deepseek(&self, start: usize) -> usize {
        let mut at = start;
        loop {
            if let Some(end) = self.deepseek_word(at) {
                return if at == start { end } else { at };
            }
            at = self.unicode.at(self.text, at).1;
            if at == self.text.len() {
                return at;
            }
        }
    }

    #[inline]
    fn deepseek_word(&self, start: usize) -> Option<usize> {
        let is_word = |class: Class| is_letter(class) || class == MARK;
        let is_sign = |class: Class| matches!(class, PUNCTUATION | SYMBOL);
        let (class, next) = self.unicode.at(self.text, start);
        if is_word(class) {
            return Some(self.letters::<true>(next));
        }
        let first = self.text[start];
        if first.is_ascii_punctuation() && self.text.get(next).is_some_and(u8::is_ascii_alphabetic) {
            let mut at = next;
            while self.text.get(at).is_some_and(u8::is_ascii_alphabetic) {
                at += 1;
            }
            return Some(at);
        }
        let following = self.class(next);
        if matches!(class, SPACE | NUMBER | OTHER) && !is_line_break(first) && following.is_some_and(is_word) {
            return Some(self.letters::<true>(next));
        }
        if is_sign(class) || first == b' ' && following.is_some_and(is_sign) {
            return Some(self.line_breaks::<false>(self.run(next, is_sign)));
        }
        (class == SPACE).then(|| self.spaces::<true>(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Draw;

    /// The pieces of a text, each from where the one before it ends; by blocks as far as they tell, and without them.
    fn both<const DIGITS: usize, const MARKS: bool>(text: &[u8]) -> [Vec<u32>; 2] {
        let scan = Scan { unicode: &UNICODE, text };
        let (mut by_blocks, mut one_by_one) = (Vec::new(), Vec::new());
        assert_eq!(scan.all_cl100k::<DIGITS, MARKS>(0, usize::MAX, &mut by_blocks), text.len());
        whole(text, 0, usize::MAX, &mut one_by_one, |_, at| scan.cl100k::<DIGITS, MARKS>(at));
        [by_blocks, one_by_one]
    }

    /// Texts of some parts at random.
    fn texts(parts: &'static [&'static str], count: usize) -> impl Iterator<Item = String> {
        let mut draw = Draw(7);
        (0..count).map(move |_| (0..draw.below(40)).map(|_| draw.of(parts)).collect())
    }

    #[test]
    fn runs_of_chinese_are_cut_as_deepseeks_expressions_do_one_by_one() {
        let parts = &[
            "你", "好的", "一", "龥", "\u{9fa6}", "\u{4dff}", "の", "カ", "・", "ー", "\u{3099}", "゛", "\u{303f}",
            "\u{3100}", "，", "。", "“", "…", "\u{2028}", "\u{3000}", "〇", "㈠", "０", "7", "12", " ", "\n", "\r\n",
            "a", "Word", "é", ".", "#x", "\u{200b}", "\u{20dd}", "\u{e000}", "한", "👍🏽", "𠀀", "\u{ffff}", "\u{800}",
        ];
        let mut cut = 0;
        for text in texts(parts, 60_000) {
            let bytes = text.as_bytes();
            let (mut found, mut one_by_one) = (Vec::new(), Vec::new());
            assert_eq!(Splitter::DeepSeekV3.ends(bytes, 0, usize::MAX, &mut found), bytes.len());
            let scan = Scan { unicode: &UNICODE, text: bytes };
            let mut at = 0;
            while at < bytes.len() {
                let inside = &bytes[..scan.deepseek_part(at)];
                let piece = |text: &[u8], at: usize| Scan { unicode: &UNICODE, text }.deepseek(at);
                at = whole(inside, at, usize::MAX, &mut one_by_one, piece);
            }
            assert_eq!(found, one_by_one, "{text:?}");
            // Wherever it is broken off, it goes on as it would have.
            let (mut parts, mut at) = (Vec::new(), 0);
            while at < bytes.len() {
                let limit = parts.len() + 1 + text.len() % 3;
                at = Splitter::DeepSeekV3.ends(bytes, at, limit, &mut parts);
            }
            assert_eq!(parts, one_by_one, "{text:?}");
            let mut chinese = Vec::new();
            scan.deepseek_chinese(0, usize::MAX, &mut chinese);
            cut += chinese.len();
        }
        assert!(cut > 10_000);
    }

    #[test]
    fn blocks_cut_as_the_expressions_do_one_by_one() {
        let parts = [
            " ",
            "  ",
            "a",
            "Word",
            "s",
            "'",
            "'s",
            "'LL",
            ".",
            "...",
            "(",
            "!?\n",
            "\n",
            "\r\n",
            "\t",
            "\u{b}",
            "0",
            "42",
            "2024",
            "é",
            "中文",
            "\u{301}",
            "ſ",
            "\u{a0}",
            "\u{660}",
            "_",
            "\u{1f}",
            "averyveryverylongword",
            "👍🏽",
            "/",
        ];
        let mut draw = Draw(7);
        let mut random = |below: usize| draw.below(below as u64) as usize;
        for round in 0..60_000 {
            // Words of up to any length, so that runs begin and end at every place of a block.
            let mut text = "x".repeat(if round % 3 == 0 { random(80) } else { 0 });
            for _ in 0..random(40) {
                text += parts[random(parts.len())];
            }
            let bytes = text.as_bytes();
            for [by_blocks, one_by_one] in [both::<1, false>(bytes), both::<1, true>(bytes), both::<3, false>(bytes)] {
                assert_eq!(by_blocks, one_by_one, "{text:?}");
            }
        }
    }
}
