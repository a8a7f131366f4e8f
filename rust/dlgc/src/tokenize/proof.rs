//! Texts that tell a fast tokeniser from the reference, if anything does.
//!
//! In: a seed, and what a vocabulary says. Out: texts, always the same ones. Most are short and end anywhere, biased to
//! where rules meet: classes of characters beside each other, runs, contractions, spaces before everything, added tokens,
//! characters that are composed.

use serde::{Deserialize, Serialize};

use super::encode::Encoded;
use crate::error::Result;

/// Characters that rules tell apart, by what they have in common.
const KINDS: [&str; 13] = [
    "abcdefgXYZ stmdrevl",
    "'sStTmMdDrReEvVlLſK’`",
    "0123456789٠१²½Ⅷ〇",
    " \t\n\r\u{b}\u{c}\u{85}\u{a0}\u{2003}\u{3000}\u{2028}\u{180e}\u{200b}\u{feff}",
    " \n  ",
    ".,;:!?-_/\\|()[]{}<>@#$%^&*+=~\"",
    "我你的是了在有好除数取建加回们这那一丁丂龥龦，。？！",
    "あいうえおアイウー゠・゛゜んン",
    "éèêëñçøßÆŒǅǈʰˈªº",
    "\u{301}\u{308}\u{300}\u{323}\u{93f}\u{94d}\u{e31}\u{fe0f}\u{20e3}\u{200d}",
    "😀👍🏽🇩🇪🧑‍💻€™©°§▁",
    "кодЖпаябвАБВГעבריתالعربيةहिन्दीไทยកាន់한국어가각",
    "\0\u{1}\u{7f}\u{ad}\u{378}\u{e000}\u{fdd1}\u{ffff}\u{10ffff}\u{1f9ff}𐐀𝟘𠀀",
];

/// How two ways of encoding a text compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The shortest text found of which they make different ids or offsets.
    pub text: String,
    /// What the fast path makes of it: ids and offsets, or how it failed.
    pub fast: String,
    /// What the reference makes of it.
    pub reference: String,
}

/// A stream of texts.
pub(super) struct Texts<'v> {
    state: u64,
    kinds: Vec<Vec<char>>,
    /// What tokens say, and the texts of added tokens.
    said: &'v [String],
    added: &'v [String],
}

impl<'v> Texts<'v> {
    pub(super) fn new(seed: u64, said: &'v [String], added: &'v [String]) -> Self {
        let kinds = KINDS.iter().map(|kind| kind.chars().collect()).collect();
        Self { state: seed ^ 0x9E37_79B9_7F4A_7C15, kinds, said, added }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) % limit as u64) as usize
    }

    fn of<'t>(&mut self, texts: &'t [String]) -> &'t str {
        // The first ones are the common ones, and the added tokens that matter.
        let few = if self.below(2) == 0 { texts.len().min(40) } else { texts.len() };
        if few == 0 { "" } else { &texts[self.below(few)] }
    }

    fn scalar(&mut self, first: usize, last: usize) -> char {
        loop {
            let value = first + self.below(last - first);
            if let Some(character) = u32::try_from(value).ok().and_then(char::from_u32) {
                return character;
            }
        }
    }

    fn part(&mut self, text: &mut String) {
        let kind = self.below(self.kinds.len());
        let other = self.below(self.kinds.len());
        let times = 1 + self.below(12);
        match self.below(13) {
            0 | 1 => (0..1 + times / 3).for_each(|_| text.push_str(self.of(self.said))),
            2 => {
                let character = self.kinds[kind][times % self.kinds[kind].len()];
                let length = 1 + self.below(if times == 1 { 400 } else { 40 });
                text.extend(std::iter::repeat_n(character, length));
            }
            3 => text.push_str(self.of(self.added)),
            4 => text.push(self.scalar(0, 0x11_0000)),
            5 => (0..times).for_each(|_| text.push(self.scalar(0, 0x3100))),
            6 => (0..times).for_each(|_| text.push(self.scalar(0x4E00, 0xA000))),
            _ => {
                for _ in 0..times {
                    let kind = if self.below(3) > 0 { kind } else { other };
                    let index = self.below(self.kinds[kind].len());
                    text.push(self.kinds[kind][index]);
                }
            }
        }
    }
}

impl Iterator for Texts<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut text = String::new();
        for _ in 0..=self.below(6) {
            self.part(&mut text);
        }
        Some(text)
    }
}

/// Every character, between others of every kind.
pub(super) fn scalars() -> impl Iterator<Item = String> {
    let all: Vec<char> = (0..0x11_0000).filter_map(char::from_u32).collect();
    let contexts = ["a{}b", " {}", "{} ", "1{}", "'{}", "{}'s", "我{}好", ".{}\n", "\n{}{}", "{}A", "e{}"];
    contexts.into_iter().flat_map(move |context| {
        let texts = all.chunks(64).map(|part| {
            part.iter().fold(String::new(), |text, character| text + &context.replace("{}", &character.to_string()))
        });
        texts.collect::<Vec<_>>()
    })
}

/// Pieces of lengths at which something changes: caches, blocks, ways of merging.
pub(super) fn lengths() -> impl Iterator<Item = String> {
    let lengths = (1..70).chain(100..104).chain(254..260).chain([511, 512, 513, 4095, 4096, 65_535, 65_536]);
    lengths.flat_map(|length| {
        let runs = ["a", "ab", "-", " ", "\n", "我", "我你好", "é", "1", "=-", "aA"];
        runs.map(move |run| run.chars().cycle().take(length).collect::<String>())
    })
}

/// The first difference between two ways of encoding, on the shortest text that shows it.
pub(super) fn compare(
    text: &str,
    fast: &dyn Fn(&str) -> std::result::Result<Encoded, String>,
    reference: &dyn Fn(&str) -> Result<Encoded>,
) -> Result<Option<Difference>> {
    let differs = |text: &str| Ok::<_, crate::error::Error>(fast(text).ok() != Some(reference(text)?));
    if !differs(text)? {
        return Ok(None);
    }
    // Parts are left out as long as what remains shows it.
    let mut shown = text.to_owned();
    let mut size = shown.chars().count().div_ceil(2);
    while size > 0 {
        let characters: Vec<char> = shown.chars().collect();
        let without = |start: usize| -> String {
            let end = (start + size).min(characters.len());
            characters[..start].iter().chain(&characters[end..]).collect()
        };
        let mut shorter = None;
        for start in (0..characters.len()).step_by(size).take(64) {
            let text = without(start);
            if !text.is_empty() && differs(&text)? {
                shorter = Some(text);
                break;
            }
        }
        match shorter {
            Some(text) => {
                shown = text;
                size = size.min(shown.chars().count());
            }
            None => size /= 2,
        }
    }
    let fast = fast(&shown).map_or_else(|said| format!("it failed: {said}"), |encoded| describe(&encoded));
    let reference = describe(&reference(&shown)?);
    Ok(Some(Difference { text: shown, fast, reference }))
}

fn describe(encoded: &Encoded) -> String {
    let tokens: Vec<String> = encoded
        .ids
        .iter()
        .zip(&encoded.offsets)
        .take(32)
        .map(|(id, (start, end))| format!("{id} at {start}..{end}"))
        .collect();
    tokens.join(", ")
}

impl std::fmt::Display for Difference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { text, fast, reference } = self;
        write!(formatter, "of {text:?} the fast path makes {fast}; the reference makes {reference}")
    }
}
