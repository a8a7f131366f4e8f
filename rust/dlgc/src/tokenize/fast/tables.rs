//! What a model knows, as numbers and bytes: its vocabulary and its merges.
//!
//! In: the [`Model`] of a `tokenizer.json`, of which merges are looked up by their texts. Out: [`Tables`], or why the
//! reference has to do the work. They can be written down: what is read again is the same, in a small part of the time.

use super::super::reference::{Ids, Model, Text};
use super::super::sections::{Sections, put, put_numbers};
use super::NO_ID;
use super::parts::{Kind, SPACE_SIGN, Why};

/// Tables by id have no more places, and merges no more bits.
pub(super) const LARGEST_ID: u32 = super::merge::LARGEST_SYMBOL;

/// A vocabulary and its merges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tokenize) struct Tables {
    /// The ids of tokens, in order.
    ids: Vec<u32>,
    /// Where what each of them says ends.
    ends: Vec<u32>,
    /// What they say, bytes of text, one after the other.
    said: Vec<u8>,
    /// Where each id stands among the ids; 0 for an id that no token has.
    places: Vec<u32>,
    /// The ids of tokens that say no bytes, in order, and their texts.
    others: Vec<(u32, String)>,
    /// Left, right and merged symbol, in the order of the list.
    pub(super) merges: Vec<[u32; 3]>,
    /// The symbol of each byte; [`NO_ID`] for a byte that has none.
    pub(super) bytes: Vec<u32>,
    /// The ids of tokens that merging what they say does not give, in order; `None` before that was found out.
    pub(super) unmerged: Option<Vec<u32>>,
}

impl Tables {
    /// # Errors
    /// Why the tokenizer is left to the reference.
    pub(super) fn of(model: &Model<'_>, kind: Kind) -> Result<Self, Why> {
        let is_bytes = matches!(kind, Kind::Bytes(_));
        let ids = &model.vocab;
        let letters = letters();
        let byte_name =
            |byte: u8| if is_bytes { letters[usize::from(byte)].to_string() } else { format!("<0x{byte:02X}>") };
        let bytes: Vec<Option<u32>> = (0..=255).map(|byte| ids.get(&Text(byte_name(byte).into())).copied()).collect();
        if !is_bytes && bytes.contains(&None) {
            return Err("it has no token for some byte".to_owned());
        }
        let mut vocabulary: Vec<(u32, &str)> = ids.iter().map(|(Text(text), &id)| (id, &**text)).collect();
        vocabulary.sort_unstable_by_key(|(id, _)| *id);
        if vocabulary.windows(2).any(|two| two[0].0 == two[1].0) {
            return Err("two of its tokens have one id".to_owned());
        }
        if vocabulary.last().is_some_and(|(id, _)| *id > LARGEST_ID) {
            return Err("its ids are too large".to_owned());
        }
        let mut tables = Self {
            ids: vocabulary.iter().map(|(id, _)| *id).collect(),
            ends: Vec::with_capacity(vocabulary.len()),
            said: Vec::with_capacity(vocabulary.iter().map(|(_, text)| text.len()).sum()),
            places: Vec::new(),
            others: Vec::new(),
            merges: Vec::new(),
            bytes: bytes.iter().map(|symbol| symbol.unwrap_or(NO_ID)).collect(),
            unmerged: None,
        };
        let values = values();
        let byte_of = |id: u32| (0..=255).zip(&tables.bytes).find(|(_, symbol)| **symbol == id).map(|(byte, _)| byte);
        let mut said = Vec::new();
        for &(id, text) in &vocabulary {
            let start = tables.said.len();
            said.clear();
            if is_bytes {
                // What has other letters is no result of merges.
                let value = |letter: char| values.get(letter as usize).copied().flatten();
                for letter in text.chars() {
                    match value(letter) {
                        Some(byte) => said.push(byte),
                        None => {
                            said.clear();
                            break;
                        }
                    }
                }
            } else if let Some(byte) = text.starts_with("<0x").then(|| byte_of(id)).flatten() {
                said.push(byte);
            } else if !text.contains(' ') {
                // No text has spaces after the normaliser.
                said.extend(text.replace(SPACE_SIGN, " ").bytes());
            }
            tables.said.extend_from_slice(&said);
            tables.ends.push(u32::try_from(tables.said.len()).map_err(|_| "its tokens are too long")?);
            if tables.said.len() == start {
                tables.others.push((id, text.to_owned()));
            }
        }
        tables.places = places(&tables.ids);
        tables.merges = tables.merges_of(model)?;
        Ok(tables)
    }

    fn merges_of(&self, model: &Model<'_>) -> Result<Vec<[u32; 3]>, Why> {
        let ids: &Ids<'_> = &model.vocab;
        let id =
            |text: &str| ids.get(&Text(text.into())).copied().ok_or_else(|| format!("a merge has no token `{text}`"));
        let mut both = String::new();
        let mut merges = Vec::with_capacity(model.merges.len());
        for listed in &model.merges {
            let (left, right) = listed.sides().ok_or("a line among its merges is none")?;
            if left.is_empty() || right.is_empty() {
                return Err("it merges nothing with something".to_owned());
            }
            both.clear();
            both.extend([left, right]);
            merges.push([id(left)?, id(right)?, id(&both)?]);
        }
        // What is merged must be made of what its sides say, or lengths say nothing of places.
        let holds = |merge: &[u32; 3]| {
            let [left, right, symbol] = merge.map(|id| self.said(id));
            left.is_empty() || right.is_empty() || symbol.strip_prefix(left) == Some(right)
        };
        if merges.iter().all(holds) {
            Ok(merges)
        } else {
            Err("its merges are not those of its tokens' texts".to_owned())
        }
    }

    /// Each token, in the order of ids, and what it says.
    pub(super) fn tokens(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let mut start = 0;
        self.ids.iter().zip(&self.ends).map(move |(&id, &end)| {
            let start = std::mem::replace(&mut start, end as usize);
            (id, &self.said[start..end as usize])
        })
    }

    /// What a token says.
    pub(super) fn said(&self, id: u32) -> &[u8] {
        let place = self.places[id as usize] as usize;
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.said[start as usize..self.ends[place] as usize]
    }

    /// The text of a token that says no bytes.
    pub(super) fn other(&self, id: u32) -> Option<&str> {
        let at = self.others.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(&self.others[at].1)
    }

    pub(super) fn largest(&self) -> u32 {
        self.ids.last().copied().unwrap_or_default()
    }

    /// Writes them down.
    pub(in crate::tokenize) fn write(&self, out: &mut Vec<u8>) {
        put_numbers(out, self.ids.iter().copied());
        put_numbers(out, self.ends.iter().copied());
        put_numbers(out, self.merges.iter().flatten().copied());
        put_numbers(out, self.bytes.iter().copied());
        put_numbers(out, self.unmerged.iter().flatten().copied());
        put_numbers(out, self.others.iter().map(|(id, _)| *id));
        put_numbers(out, self.others.iter().map(|(_, text)| text.len() as u32));
        put(out, self.said.iter().copied());
        put(out, self.others.iter().flat_map(|(_, text)| text.bytes()));
    }

    /// What was written down; `None` where it is not what [`Tables::write`] writes.
    pub(in crate::tokenize) fn read(written: &[u8]) -> Option<Self> {
        let mut written = Sections(written);
        let (ids, ends) = (written.numbers()?, written.numbers()?);
        let merges: Vec<[u32; 3]> = written.groups()?.collect();
        let (bytes, unmerged) = (written.numbers()?, written.numbers()?);
        let (other_ids, other_lengths) = (written.numbers()?, written.numbers()?);
        let (said, mut texts) = (written.bytes()?.to_vec(), std::str::from_utf8(written.bytes()?).ok()?);
        let mut others = Vec::with_capacity(other_ids.len());
        for (id, length) in other_ids.into_iter().zip(other_lengths) {
            let (text, rest) = texts.split_at_checked(length as usize)?;
            others.push((id, text.to_owned()));
            texts = rest;
        }
        let largest = *ids.last()?;
        let is_known = |id: &u32| *id <= largest;
        let is_sound = ids.is_sorted_by(|one, next| one < next)
            && largest <= LARGEST_ID
            && ids.len() == ends.len()
            && ends.is_sorted()
            && ends.last().is_some_and(|end| *end as usize == said.len())
            && merges.iter().flatten().all(is_known)
            && bytes.len() == 256
            && bytes.iter().all(|id| *id == NO_ID || is_known(id))
            && written.rest().is_empty();
        let places = places(&ids);
        let unmerged = Some(unmerged);
        is_sound.then_some(Self { ids, ends, said, places, others, merges, bytes, unmerged })
    }
}

/// Where each id stands among ids in order.
fn places(ids: &[u32]) -> Vec<u32> {
    let mut places = vec![0; ids.last().map_or(0, |id| *id as usize + 1)];
    for (&id, place) in ids.iter().zip(0..) {
        places[id as usize] = place;
    }
    places
}

/// The letters by which byte-level vocabularies write bytes.
fn letters() -> Vec<char> {
    let mut others = 256..;
    let letter = |byte: u8| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        _ => others.next().and_then(char::from_u32).expect("there are letters enough"),
    };
    (0..=255).map(letter).collect()
}

/// The byte that each of these letters stands for, by its scalar value.
pub(super) fn values() -> Vec<Option<u8>> {
    let letters = letters();
    let mut values = vec![None; letters.iter().map(|letter| *letter as usize + 1).max().unwrap_or(0)];
    for (letter, byte) in letters.into_iter().zip(0..=255) {
        values[letter as usize] = Some(byte);
    }
    values
}

#[cfg(test)]
mod tests {
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    #[test]
    fn bytes_are_written_with_the_references_letters() {
        let mut letters = letters();
        letters.sort_unstable();
        let mut expected: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        expected.sort_unstable();
        assert_eq!(letters, expected);
    }

    #[test]
    fn what_is_written_down_is_read_again_and_nothing_else_is() {
        let ids = vec![0, 2, 3, 7];
        let tables = Tables {
            places: places(&ids),
            ids,
            ends: vec![1, 2, 4, 4],
            said: b"abab".to_vec(),
            others: vec![(7, "<其他>".to_owned())],
            merges: vec![[0, 2, 3]],
            bytes: (0..256).map(|byte| if byte == 97 { 0 } else { NO_ID }).collect(),
            unmerged: Some(vec![3]),
        };
        assert_eq!((tables.said(2), tables.said(3), tables.said(7)), (&b"b"[..], &b"ab"[..], &b""[..]));
        assert_eq!((tables.other(7), tables.other(3)), (Some("<其他>"), None));
        let said: Vec<(u32, &[u8])> = tables.tokens().collect();
        assert_eq!(said, [(0, &b"a"[..]), (2, b"b"), (3, b"ab"), (7, b"")]);
        let mut written = Vec::new();
        tables.write(&mut written);
        assert_eq!(Tables::read(&written).as_ref(), Some(&tables));
        for length in 0..written.len() {
            assert_eq!(Tables::read(&written[..length]), None);
        }
        let (mut unsorted, longer) = (written.clone(), [written.as_slice(), b"x"].concat());
        unsorted[8] = 5; // the first id
        assert_eq!((Tables::read(&unsorted), Tables::read(&longer)), (None, None));
    }
}
