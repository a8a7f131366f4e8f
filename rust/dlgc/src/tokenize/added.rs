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
        let mut finder =
            Self { automaton, tokens: Vec::new(), first: [false; 256], pairs: vec![0; 1 << 10], only: None };
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
            let input = Input::new(text).span(at..bytes.len()).anchored(Anchored::Yes);
            if let Some(found) = self.automaton.find(input) {
                return Some((at, found.end(), self.tokens[found.pattern().as_usize()]));
            }
            at += 1;
        }
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
