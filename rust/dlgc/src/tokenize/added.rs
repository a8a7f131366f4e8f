//! Added tokens in a text, as the reference finds them: of those that begin leftmost the longest.

use aho_corasick::{AhoCorasick, Anchored, Input, MatchKind, StartKind};

/// Finds added tokens, of each of which something is known.
pub(super) struct Finder<T> {
    automaton: AhoCorasick,
    tokens: Vec<T>,
    /// Whether a token may begin with a byte, and with two.
    first: [bool; 256],
    pairs: Vec<u64>,
    /// The only byte with which tokens begin, if there is one.
    only: Option<u8>,
    /// All tokens by their first two bytes, where these are few.
    few: Option<Vec<(u16, Vec<Few>)>>,
}

/// One of few tokens that begin alike.
struct Few {
    text: Box<[u8]>,
    /// Its first eight bytes, or less; and where they are in those of a text.
    head: u64,
    mask: u64,
    index: usize,
}

/// Up to so many tokens that begin alike are compared with a text one by one, and of so many beginnings.
const FEW: usize = 24;
const BEGINNINGS: usize = 8;

/// All tokens by their first two bytes, the longest first; `None` where there are many, or shorter ones.
fn few<S: AsRef<str>, T>(tokens: &[(S, T)]) -> Option<Vec<(u16, Vec<Few>)>> {
    let mut found: Vec<(u16, Vec<Few>)> = Vec::new();
    for (index, (text, _)) in tokens.iter().enumerate() {
        let text = text.as_ref().as_bytes();
        let [first, second, ..] = *text else { return None };
        let mask = u64::MAX >> (64 - 8 * text.len().min(8));
        let few = Few { text: text.into(), head: head(text), mask, index };
        let pair = u16::from_le_bytes([first, second]);
        match found.iter_mut().find(|(known, _)| *known == pair) {
            Some((_, alike)) => alike.push(few),
            None => found.push((pair, vec![few])),
        }
    }
    found.iter_mut().for_each(|(_, alike)| alike.sort_by_key(|few| std::cmp::Reverse(few.text.len())));
    let are_few = found.len() <= BEGINNINGS && found.iter().all(|(_, alike)| alike.len() <= FEW);
    are_few.then_some(found)
}

/// The first eight bytes of a text, or less.
fn head(text: &[u8]) -> u64 {
    match text.first_chunk() {
        Some(head) => u64::from_le_bytes(*head),
        None => text.iter().rev().fold(0, |head, &byte| head << 8 | u64::from(byte)),
    }
}

impl<T: Copy> Finder<T> {
    /// `None` where there are no tokens.
    pub(super) fn of<S: AsRef<str>>(tokens: &[(S, T)]) -> Result<Option<Self>, String> {
        if tokens.is_empty() {
            return Ok(None);
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .start_kind(StartKind::Anchored)
            .build(tokens.iter().map(|(text, _)| text.as_ref()))
            .map_err(|error| error.to_string())?;
        let mut finder = Self {
            automaton,
            tokens: Vec::new(),
            first: [false; 256],
            pairs: vec![0; 1 << 10],
            only: None,
            few: few(tokens),
        };
        for (text, token) in tokens {
            finder.tokens.push(*token);
            let text = text.as_ref().as_bytes();
            let first = text[0];
            finder.first[usize::from(first)] = true;
            let seconds = match text.get(1) {
                Some(&second) => second..=second,
                None => 0..=255,
            };
            for second in seconds {
                let pair = usize::from(first) << 8 | usize::from(second);
                finder.pairs[pair / 64] |= 1 << (pair % 64);
            }
        }
        let mut firsts = (0..=255).filter(|&byte: &u8| finder.first[usize::from(byte)]);
        finder.only = firsts.next().filter(|_| firsts.next().is_none());
        Ok(Some(finder))
    }

    /// The first added token from a place on: where it begins and ends.
    pub(super) fn find(&self, text: &str, from: usize) -> Option<(usize, usize, T)> {
        let bytes = text.as_bytes();
        let mut at = from;
        loop {
            at = self.candidate(bytes, at)?;
            if let Some(few) = &self.few {
                if let Some((length, token)) = self.among(few, &bytes[at..]) {
                    return Some((at, at + length, token));
                }
                at += 1;
                continue;
            }
            let input = Input::new(text).span(at..bytes.len()).anchored(Anchored::Yes);
            if let Some(found) = self.automaton.find(input) {
                return Some((at, found.end(), self.tokens[found.pattern().as_usize()]));
            }
            at += 1;
        }
    }

    /// The longest of few tokens that a text begins with, and its length.
    fn among(&self, few: &[(u16, Vec<Few>)], text: &[u8]) -> Option<(usize, T)> {
        let pair = u16::from_le_bytes(*text.first_chunk()?);
        let (_, alike) = few.iter().find(|(known, _)| *known == pair)?;
        let begins = head(text);
        let is_it = |few: &&Few| few.head == begins & few.mask && text.starts_with(&few.text);
        alike.iter().find(is_it).map(|few| (few.text.len(), self.tokens[few.index]))
    }

    /// The next place where a token may begin.
    fn candidate(&self, bytes: &[u8], mut at: usize) -> Option<usize> {
        loop {
            if let Some(only) = self.only {
                at += memchr::memchr(only, bytes.get(at..)?)?;
            }
            let Some(&second) = bytes.get(at + 1) else {
                return bytes.get(at).filter(|first| self.first[usize::from(**first)]).map(|_| at);
            };
            let pair = usize::from(bytes[at]) << 8 | usize::from(second);
            if self.pairs[pair / 64] >> (pair % 64) & 1 != 0 {
                return Some(at);
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_tokens_are_found_as_many_are() {
        let tokens = ["<a>", "<a>b", "<abcdefgh>", "<abcdefgh", "</a>", "<abcdefghi", "é|"];
        let tokens: Vec<(&str, usize)> = tokens.into_iter().zip(0..).collect();
        let few = Finder::of(&tokens).expect("tokens").expect("some");
        assert!(few.few.is_some());
        let many = Finder { few: None, ..Finder::of(&tokens).expect("tokens").expect("some") };
        let pieces = ["<", "a", ">", "b", "<a>", "<abcdefgh", "i", "/a>", "é", "|", "", "<abcdefg", " "];
        let mut seed = 1_u64;
        let mut found = 0;
        for _ in 0..5_000 {
            let mut text = String::new();
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(seed >> 33) as usize % pieces.len()]);
            }
            let mut at = 0;
            while let Some(token) = few.find(&text, at) {
                assert_eq!(Some(token), many.find(&text, at), "{text} from {at}");
                (at, found) = (token.1, found + 1);
            }
            assert_eq!(many.find(&text, at), None, "{text} from {at}");
        }
        assert!(found > 1_000);
        assert!(few.find("a<", 0).is_none() && many.find("a<", 0).is_none());
    }

    #[test]
    fn many_tokens_and_single_bytes_are_left_to_the_automaton() {
        let many: Vec<(String, usize)> = (0..100).map(|number| (format!("<{number}>"), number)).collect();
        let finder = Finder::of(&many).expect("tokens").expect("some");
        assert!(finder.few.is_none());
        assert_eq!(finder.find("a <17> b", 0), Some((2, 6, 17)));
        let single = Finder::of(&[("<", 0)]).expect("tokens").expect("some");
        assert!(single.few.is_none());
        assert_eq!(single.find("a<", 0), Some((1, 2, 0)));
    }
}
