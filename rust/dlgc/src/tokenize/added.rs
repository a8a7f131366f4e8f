//! Added tokens in a text, as the reference finds them: of those that begin leftmost the longest.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, Anchored, Input, MatchKind, StartKind};

use crate::bytes::first_among;

/// Finds added tokens, of each of which something is known.
pub(super) struct Finder<T> {
    tokens: Vec<T>,
    /// The bytes with which tokens begin, in order, and for each of them the tokens.
    firsts: Vec<u8>,
    beginnings: Vec<Beginning>,
    /// With which two bytes a token may begin, where the first ones are many.
    pairs: Option<Vec<u64>>,
    /// Of all tokens, where too many begin alike.
    automaton: Option<AhoCorasick>,
}

/// Tokens with one first byte, by their first eight bytes, or as many as all of them have.
struct Beginning {
    /// Where these bytes are in the first eight of a text.
    mask: u64,
    /// These bytes, in order, and the tokens with them.
    alike: Vec<(u64, Alike)>,
}

enum Alike {
    /// The longest first.
    Few(Vec<Few>),
    /// Left to the automaton.
    Many,
}

/// One of few tokens that begin alike.
struct Few {
    text: Box<[u8]>,
    index: usize,
}

/// Up to so many tokens that begin alike are compared with a text one by one.
const FEW: usize = 32;
/// Up to so many bytes are looked for by blocks: where tokens begin as words do, most bytes of a text are among them.
const FIRSTS: usize = 8;

/// The place of two bytes among all pairs of them.
#[inline]
fn pair(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

/// The first eight bytes of a text, or less.
#[inline]
fn head(text: &[u8]) -> u64 {
    match text.first_chunk() {
        Some(head) => u64::from_le_bytes(*head),
        None => text.iter().rev().fold(0, |head, &byte| head << 8 | u64::from(byte)),
    }
}

impl Beginning {
    /// Of the tokens that begin with a byte; up to `few` are compared one by one.
    fn of<'t>(tokens: impl Iterator<Item = (usize, &'t [u8])> + Clone, few: usize) -> Self {
        let shortest = tokens.clone().map(|(_, text)| text.len()).min().unwrap_or_default();
        let mask = u64::MAX >> (64 - 8 * shortest.clamp(1, 8));
        let mut alike: BTreeMap<u64, Vec<Few>> = BTreeMap::new();
        for (index, text) in tokens {
            alike.entry(head(text) & mask).or_default().push(Few { text: text.into(), index });
        }
        let alike = alike.into_iter().map(|(head, mut tokens)| {
            tokens.sort_by_key(|token| Reverse(token.text.len()));
            (head, if tokens.len() <= few { Alike::Few(tokens) } else { Alike::Many })
        });
        Self { mask, alike: alike.collect() }
    }

    /// What a text may begin with.
    #[inline]
    fn alike(&self, text: &[u8]) -> Option<&Alike> {
        let head = head(text) & self.mask;
        match self.alike.as_slice() {
            [(only, alike)] => (*only == head).then_some(alike),
            several => several.binary_search_by_key(&head, |(head, _)| *head).ok().map(|found| &several[found].1),
        }
    }
}

impl<T: Copy> Finder<T> {
    /// `None` where there are no tokens.
    pub(super) fn of<S: AsRef<str>>(tokens: &[(S, T)]) -> Result<Option<Self>, String> {
        if tokens.is_empty() { Ok(None) } else { Self::with(tokens, FEW).map(Some) }
    }

    fn with<S: AsRef<str>>(tokens: &[(S, T)], few: usize) -> Result<Self, String> {
        let texts = || tokens.iter().map(|(text, _)| text.as_ref().as_bytes()).enumerate();
        let mut firsts: Vec<u8> = texts().filter_map(|(_, text)| text.first().copied()).collect();
        firsts.sort_unstable();
        firsts.dedup();
        let with = |first: u8| texts().filter(move |(_, text)| text.first() == Some(&first));
        let beginnings: Vec<Beginning> = firsts.iter().map(|&first| Beginning::of(with(first), few)).collect();
        let are_many = |beginning: &Beginning| beginning.alike.iter().any(|(_, alike)| matches!(alike, Alike::Many));
        let mut automaton = None;
        if beginnings.iter().any(are_many) {
            let builder = AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .start_kind(StartKind::Anchored)
                .build(tokens.iter().map(|(text, _)| text.as_ref()));
            automaton = Some(builder.map_err(|error| error.to_string())?);
        }
        let pairs = (firsts.len() > FIRSTS).then(|| {
            let mut pairs = vec![0; (1 << 16) / 64];
            for (_, text) in texts() {
                let seconds = text.get(1).map_or(0..=255, |&second| second..=second);
                for pair in seconds.map(|second| pair(text[0], second)) {
                    pairs[pair / 64] |= 1 << (pair % 64);
                }
            }
            pairs
        });
        Ok(Self { tokens: tokens.iter().map(|(_, token)| *token).collect(), firsts, beginnings, pairs, automaton })
    }

    /// The first added token from a place on: where it begins and ends.
    pub(super) fn find(&self, text: &str, from: usize) -> Option<(usize, usize, T)> {
        let bytes = text.as_bytes();
        let mut at = from;
        loop {
            at += self.candidate(bytes.get(at..)?)?;
            if let Some((length, index)) = self.longest(&bytes[at..]) {
                return Some((at, at + length, self.tokens[index]));
            }
            at += 1;
        }
    }

    /// The next place where a token may begin.
    #[inline]
    fn candidate(&self, bytes: &[u8]) -> Option<usize> {
        if let Some(pairs) = &self.pairs {
            // Any byte may follow a token of one, also the 0 that stands for the end.
            let may_begin = |at: &usize| {
                let pair = pair(bytes[*at], bytes.get(at + 1).copied().unwrap_or_default());
                pairs[pair / 64] >> (pair % 64) & 1 == 1
            };
            return (0..bytes.len()).find(may_begin);
        }
        match *self.firsts {
            [only] => memchr::memchr(only, bytes),
            [first, second] => memchr::memchr2(first, second, bytes),
            _ => first_among(bytes, &self.firsts, 0),
        }
    }

    /// The longest token that a text begins with: its length, and which it is.
    fn longest(&self, text: &[u8]) -> Option<(usize, usize)> {
        let beginning = self.firsts.binary_search(&text[0]).ok()?;
        match self.beginnings[beginning].alike(text)? {
            Alike::Few(few) => {
                few.iter().find(|few| text.starts_with(&few.text)).map(|few| (few.text.len(), few.index))
            }
            Alike::Many => {
                let found = self.automaton.as_ref()?.find(Input::new(text).anchored(Anchored::Yes))?;
                Some((found.end(), found.pattern().as_usize()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Draw;

    #[test]
    fn few_tokens_are_found_as_many_are() {
        let lists: [&[&str]; 4] = [
            &["<a>", "<a>b", "<abcdefgh>", "<abcdefgh", "</a>", "<abcdefghi", "é|"],
            &["<a>", "\n", "\n\n", "\n\n\n", "[b", "é", "éé", "</a>", "|a"],
            &["<abcdefgh>", "<abcdefgh|", "<abcdefgi", "<abcdefgh"],
            &["a", "b>", "c", "def", "é", "|", "i\n", "<a", "h<", "x", "y", "z"],
        ];
        let pieces = ["<", "a", ">", "b", "<a>", "<abcdefgh", "i", "/a>", "é", "|", "", "<abcdefg", " ", "\n", "["];
        let mut draw = Draw(1);
        for tokens in lists {
            let tokens: Vec<(&str, usize)> = tokens.iter().copied().zip(0..).collect();
            let few = Finder::of(&tokens).expect("tokens").expect("some");
            assert!(few.automaton.is_none());
            let many = Finder::with(&tokens, 0).expect("tokens");
            let mut found = 0;
            for _ in 0..5_000 {
                let mut text = String::new();
                for _ in 0..24 {
                    text.push_str(draw.of(&pieces));
                }
                let mut at = 0;
                while let Some(token) = few.find(&text, at) {
                    assert_eq!(Some(token), many.find(&text, at), "{text} from {at}");
                    assert_eq!(&text[token.0..token.1], tokens[token.2].0);
                    (at, found) = (token.1, found + 1);
                }
                assert_eq!(many.find(&text, at), None, "{text} from {at}");
            }
            assert!(found > 1_000);
            assert!(few.find("(<", 0).is_none() && many.find("(<", 0).is_none());
        }
    }

    #[test]
    fn tokens_that_begin_alike_are_left_to_the_automaton_where_they_are_many() {
        let many: Vec<(String, usize)> = (0..100).map(|number| (format!("<{number:03}>"), number)).collect();
        let alike: Vec<(String, usize)> = (0..100).map(|number| (format!("<reserved {number}>"), number)).collect();
        let finder = Finder::of(&many).expect("tokens").expect("some");
        assert!(finder.automaton.is_none());
        assert_eq!(finder.find("a <017> b", 0), Some((2, 7, 17)));
        let finder = Finder::of(&alike).expect("tokens").expect("some");
        assert!(finder.automaton.is_some());
        assert_eq!(finder.find("a <reserved 1> b", 0), Some((2, 14, 1)));
        assert_eq!(finder.find("a <reserved x> b", 0), None);
        let single = Finder::of(&[("<", 0)]).expect("tokens").expect("some");
        assert_eq!(single.find("a<", 0), Some((1, 2, 0)));
        assert!(Finder::of::<&str>(&[] as &[(&str, usize)]).expect("tokens").is_none());
    }
}
