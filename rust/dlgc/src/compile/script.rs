//! The script that a dialogue is written in.

use crate::dialogue::{Dialogue, Role};

/// So many bytes of what is said tell it.
const LOOK: usize = 4096;
/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// Their names, and where their letters are.
const SCRIPTS: [(&str, &[(char, char)]); 11] = [
    ("Jpan", &[('\u{3040}', '\u{30ff}')]), // before Hani: Japanese has both
    ("Hani", &[('\u{3400}', '\u{9fff}'), ('\u{20000}', '\u{3ffff}')]),
    ("Kore", &[('\u{ac00}', '\u{d7af}'), ('\u{1100}', '\u{11ff}')]),
    ("Latn", &[('A', 'Z'), ('a', 'z'), ('\u{c0}', '\u{24f}')]),
    ("Cyrl", &[('\u{400}', '\u{52f}')]),
    ("Arab", &[('\u{600}', '\u{6ff}'), ('\u{750}', '\u{77f}')]),
    ("Grek", &[('\u{370}', '\u{3ff}')]),
    ("Hebr", &[('\u{590}', '\u{5ff}')]),
    ("Deva", &[('\u{900}', '\u{97f}')]),
    ("Beng", &[('\u{980}', '\u{9ff}')]),
    ("Thai", &[('\u{e00}', '\u{e7f}')]),
];
const HAN: usize = 1;
const LATIN: usize = 3;

/// The script that most letters of a dialogue are of, as far as its first few thousand bytes tell; `None` without letters.
/// Names are those of ISO 15924: a language is not told by its script, but what is missing often is.
pub(super) fn of(dialogue: &Dialogue<'_>) -> Option<&'static str> {
    let mut counts = [0; SCRIPTS.len()];
    let said = dialogue.messages.iter().filter(|message| message.role != Role::System);
    let mut left = LOOK;
    for text in said.filter_map(|message| message.content.as_deref()) {
        let text = &text[..border(text, left)];
        add(text, &mut counts);
        left = left.saturating_sub(text.len());
        if left == 0 {
            break;
        }
    }
    if counts[0] * 20 > counts[1] {
        counts[0] += counts[1]; // a little kana is enough
        counts[1] = 0;
    }
    let (index, count) = counts.iter().enumerate().max_by_key(|(index, count)| (**count, std::cmp::Reverse(*index)))?;
    (*count > 0).then_some(SCRIPTS[index].0)
}

/// Counts the letters of a text, by script.
fn add(text: &str, counts: &mut [usize; SCRIPTS.len()]) {
    let mut at = 0;
    while at < text.len() {
        let end = at + BLOCK;
        // By blocks of bytes, as long as they hold nothing but what is written most.
        if let Some(block) = text.as_bytes()[at..].first_chunk::<{ BLOCK + 1 }>() {
            let pair = |place: usize| (block[place], block[place + 1]);
            if block.is_ascii() {
                let latin = (0..BLOCK).fold(0, |sum, place| sum + u8::from(block[place].is_ascii_alphabetic()));
                counts[LATIN] += usize::from(latin);
                at = end;
                continue;
            }
            if (0..BLOCK).fold(0, |found, place| found | u8::from(is_rare(pair(place)))) == 0 {
                let latin = (0..BLOCK).fold(0, |sum, place| sum + u8::from(block[place].is_ascii_alphabetic()));
                let han = (0..BLOCK).fold(0, |sum, place| sum + u8::from(is_han(pair(place))));
                counts[LATIN] += usize::from(latin);
                counts[HAN] += usize::from(han);
                at = end;
                continue;
            }
        }
        add_each(&text[border(text, at)..border(text, end)], counts);
        at = end;
    }
}

/// The same, character by character.
fn add_each(text: &str, counts: &mut [usize; SCRIPTS.len()]) {
    for letter in text.chars().filter(|letter| is_letter(*letter)) {
        let is_of = |ranges: &[(char, char)]| ranges.iter().any(|&(first, last)| (first..=last).contains(&letter));
        if let Some(index) = SCRIPTS.iter().position(|(_, ranges)| is_of(ranges)) {
            counts[index] += 1;
        }
    }
}

/// Where the first character begins at a place or after it.
fn border(text: &str, at: usize) -> usize {
    (at..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}

/// Whether a byte and the next one begin what Chinese is written with most, U+4E00 to U+9FFF.
#[inline]
fn is_han((first, second): (u8, u8)) -> bool {
    (0xE5..=0xE9).contains(&first) | (first == 0xE4) & (second >= 0xB8)
}

/// Whether a byte and the next one begin a character that may be counted, and is neither ASCII nor [`is_han`]: none is from
/// U+2000 to U+203F, U+3000 to U+303F and U+FF00 to U+FF3F.
#[inline]
fn is_rare((first, second): (u8, u8)) -> bool {
    let is_sign =
        (first == 0xE2) & (second == 0x80) | (first == 0xE3) & (second == 0x80) | (first == 0xEF) & (second == 0xBC);
    (first >= 0xC0) & !(is_sign | is_han((first, second)))
}

/// The same as `is_alphabetic`, which takes longer than all the rest where it must look for what Chinese is written with.
fn is_letter(letter: char) -> bool {
    match letter {
        '\u{4e00}'..='\u{9fff}' => true,
        '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{3004}' | '\u{3008}'..='\u{3020}' | '\u{ff00}'..='\u{ff20}' => false,
        _ => letter.is_alphabetic(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_what_is_alphabetic() {
        assert!(('\0'..=char::MAX).all(|letter| is_letter(letter) == letter.is_alphabetic()));
        assert_eq!((SCRIPTS[HAN].0, SCRIPTS[LATIN].0), ("Hani", "Latn"));
    }

    #[test]
    fn blocks_count_what_characters_do() {
        let mut bytes = [0; 4];
        for character in '\0'..=char::MAX {
            let said: &str = character.encode_utf8(&mut bytes);
            for text in [format!("好，a{}", said.repeat(70)), format!("{}—b好。Ａ1", said.repeat(20))] {
                let (mut blocks, mut each) = ([0; SCRIPTS.len()], [0; SCRIPTS.len()]);
                add(&text, &mut blocks);
                add_each(&text, &mut each);
                assert_eq!(blocks, each, "{text}");
            }
        }
    }
}
