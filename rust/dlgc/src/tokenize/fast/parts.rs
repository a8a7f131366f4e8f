//! A `tokenizer.json` taken apart: is it made of parts that are known?
//!
//! In: the file, and what the reference made of it but for the vocabulary. Out: [`Parts`], or why the reference has to do
//! the work.

use serde_json::Value;
use tokenizers::{AddedToken, ModelWrapper, NormalizedString, Normalizer, Tokenizer as Reference};

use super::super::reference::{File, Ids, Merge, Model, Text};
use super::added::{Finder, Token};
use super::split::Splitter;

/// The sign for a space in vocabularies of SentencePiece.
pub(super) const SPACE_SIGN: char = '▁';

/// Tables by id have no more places, and merges no more bits.
pub(super) const LARGEST_ID: u32 = super::merge::LARGEST_SYMBOL;

/// How text becomes the symbols that are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes, in pieces.
    Bytes(Splitter),
    /// Characters, spaces written `▁`; in all of a text between added tokens, before which a `▁` may be put.
    Characters { prepend: bool },
}

/// What a tokenizer is made of.
pub(super) struct Parts {
    pub(super) kind: Kind,
    /// Whether text is composed (NFC) first.
    pub(super) nfc: bool,
    /// Whether a piece that is a token is taken whole, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Added tokens that are looked for in the text, and those that are in what the normaliser leaves of it.
    pub(super) added: Option<Finder>,
    pub(super) normalized: Option<Finder>,
    /// Each token's id, and what it says: bytes of text.
    pub(super) vocabulary: Vec<(u32, Vec<u8>)>,
    /// The texts of tokens that say no bytes.
    pub(super) others: Vec<(u32, String)>,
    /// Where each id stands in it; 0 for an id that no token has.
    places: Vec<u32>,
    /// Left, right and merged symbol, in the order of the list.
    pub(super) merges: Vec<(u32, u32, u32)>,
    /// The symbol of each byte that has one.
    pub(super) bytes: Vec<Option<u32>>,
}

/// Why a tokenizer is not encoded here.
type Why = String;

impl Parts {
    pub(super) fn of(file: Option<&File<'_>>, reference: &Reference) -> Result<Self, Why> {
        let ModelWrapper::BPE(bpe) = reference.get_model() else {
            return Err("its model is no BPE".to_owned());
        };
        let plain = |affix: &Option<String>| affix.as_deref().unwrap_or_default().is_empty();
        if !plain(&bpe.continuing_subword_prefix) || !plain(&bpe.end_of_word_suffix) {
            return Err("its symbols depend on where in a word they stand".to_owned());
        }
        let normalizer = steps(reference.get_normalizer(), "normalizers")?;
        let pre_tokenizer = as_json(reference.get_pre_tokenizer())?;
        let (kind, nfc) = match Splitter::of(&pre_tokenizer) {
            Some(splitter) => match normalizer.as_slice() {
                [] => (Kind::Bytes(splitter), false),
                [nfc] if nfc["type"] == "NFC" => (Kind::Bytes(splitter), true),
                _ => return Err("its normaliser is not known".to_owned()),
            },
            None => (characters(&normalizer, &pre_tokenizer).ok_or("its pre-tokenizer is not known")?, false),
        };
        if matches!(kind, Kind::Characters { .. }) && (bpe.ignore_merges || !bpe.byte_fallback) {
            return Err("characters that it does not know do not become bytes".to_owned());
        }
        let (added, normalized) = finders(reference)?;
        if normalized.is_some() && matches!(kind, Kind::Characters { .. }) {
            return Err("it looks for added tokens in normalised text".to_owned());
        }
        let model = &file.ok_or("its file has an unknown form")?.model;
        let symbols = Symbols::of(&model.vocab, kind)?;
        let merges = merges(model, &symbols)?;
        let others = symbols.others();
        let Symbols { vocabulary, places, bytes, .. } = symbols;
        let ignore_merges = bpe.ignore_merges;
        Ok(Self { kind, nfc, ignore_merges, added, normalized, vocabulary, others, places, merges, bytes })
    }
}

impl Parts {
    /// What a token says.
    pub(super) fn said(&self, id: u32) -> &[u8] {
        &self.vocabulary[self.places[id as usize] as usize].1
    }
}

pub(super) fn as_json(part: Option<&impl serde::Serialize>) -> Result<Value, Why> {
    serde_json::to_value(part).map_err(|error| error.to_string())
}

/// The steps of a normaliser.
fn steps(part: Option<&impl serde::Serialize>, list: &str) -> Result<Vec<Value>, Why> {
    let part = as_json(part)?;
    Ok(match part["type"].as_str() {
        None => Vec::new(),
        Some("Sequence") => part[list].as_array().cloned().unwrap_or_default(),
        Some(_) => vec![part],
    })
}

/// Normalisers and pre-tokenizers that only write spaces as `▁`.
fn characters(normalizer: &[Value], pre_tokenizer: &Value) -> Option<Kind> {
    let sign = SPACE_SIGN.to_string();
    let replaces = |step: &Value| {
        step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == sign.as_str()
    };
    // A pattern that the normaliser leaves none of.
    let splits_nothing = || {
        pre_tokenizer["type"] == "Split"
            && pre_tokenizer["pattern"]["String"] == " "
            && pre_tokenizer["invert"] == false
    };
    if !pre_tokenizer.is_null() && !splits_nothing() {
        return None;
    }
    match normalizer {
        [replace] if replaces(replace) => Some(Kind::Characters { prepend: false }),
        [prepend, replace] if replaces(replace) => (prepend["type"] == "Prepend"
            && prepend["prepend"] == sign.as_str())
        .then_some(Kind::Characters { prepend: true }),
        _ => None,
    }
}

/// Finders of added tokens: in text, and in normalised text.
fn finders(reference: &Reference) -> Result<(Option<Finder>, Option<Finder>), Why> {
    let mut added: Vec<(u32, AddedToken)> = reference.get_added_tokens_decoder().into_iter().collect();
    added.sort_by_key(|(id, _)| *id);
    let (mut raw, mut normalized) = (Vec::new(), Vec::new());
    for (id, token) in added.into_iter().filter(|(_, token)| !token.content.is_empty()) {
        let is_plain = !(token.lstrip || token.rstrip || token.single_word);
        let found = Token { id, is_plain };
        if !token.normalized {
            raw.push((token.content, found));
            continue;
        }
        let mut content = NormalizedString::from(token.content);
        if let Some(normalizer) = reference.get_normalizer() {
            normalizer.normalize(&mut content).map_err(|error| error.to_string())?;
        }
        normalized.push((content.get().to_owned(), found));
    }
    for tokens in [&raw, &normalized] {
        let mut contents: Vec<&str> = tokens.iter().map(|(content, _)| content.as_str()).collect();
        contents.sort_unstable();
        if contents.windows(2).any(|pair| pair[0] == pair[1]) || contents.first() == Some(&"") {
            return Err("two of its added tokens have one text".to_owned());
        }
    }
    Ok((Finder::of(&raw)?, Finder::of(&normalized)?))
}

/// The vocabulary as bytes of text.
struct Symbols<'v, 'j> {
    ids: &'v Ids<'j>,
    vocabulary: Vec<(u32, Vec<u8>)>,
    /// Index in the vocabulary of each id.
    places: Vec<u32>,
    bytes: Vec<Option<u32>>,
}

impl<'v, 'j> Symbols<'v, 'j> {
    fn of(ids: &'v Ids<'j>, kind: Kind) -> Result<Self, Why> {
        let is_bytes = matches!(kind, Kind::Bytes(_));
        let letters = letters();
        let byte_name =
            |byte: u8| if is_bytes { letters[usize::from(byte)].to_string() } else { format!("<0x{byte:02X}>") };
        let bytes: Vec<Option<u32>> = (0..=255).map(|byte| ids.get(&Text(byte_name(byte).into())).copied()).collect();
        if !is_bytes && bytes.contains(&None) {
            return Err("it has no token for some byte".to_owned());
        }
        let values = values();
        let value = |letter: char| values.get(letter as usize).copied().flatten();
        let mut vocabulary: Vec<(u32, Vec<u8>)> = Vec::with_capacity(ids.len());
        for (Text(text), &id) in ids {
            let said = if is_bytes {
                // What has other letters is no result of merges.
                text.chars().map(value).collect::<Option<Vec<u8>>>().unwrap_or_default()
            } else if text.contains(' ') {
                Vec::new() // no text has spaces after the normaliser
            } else {
                text.replace(SPACE_SIGN, " ").into_bytes()
            };
            vocabulary.push((id, said));
        }
        vocabulary.sort_unstable_by_key(|(id, _)| *id);
        if vocabulary.windows(2).any(|two| two[0].0 == two[1].0) {
            return Err("two of its tokens have one id".to_owned());
        }
        let largest = vocabulary.last().map_or(0, |(id, _)| *id);
        if largest > LARGEST_ID {
            return Err("its ids are too large".to_owned());
        }
        let mut places = vec![0; largest as usize + 1];
        for ((id, _), place) in vocabulary.iter().zip(0..) {
            places[*id as usize] = place;
        }
        if !is_bytes {
            for (id, byte) in bytes.iter().flatten().zip(0..=255) {
                vocabulary[places[*id as usize] as usize].1 = vec![byte];
            }
        }
        Ok(Self { ids, vocabulary, places, bytes })
    }

    /// The texts of tokens that say nothing.
    fn others(&self) -> Vec<(u32, String)> {
        let is_other = |&(_, id): &(&Text<'_>, &u32)| self.said(*id).is_empty();
        let mut others: Vec<_> =
            self.ids.iter().filter(is_other).map(|(Text(text), id)| (*id, text.to_string())).collect();
        others.sort_unstable();
        others
    }

    fn said(&self, id: u32) -> &[u8] {
        &self.vocabulary[self.places[id as usize] as usize].1
    }

    fn id(&self, text: &str) -> Result<u32, Why> {
        self.ids.get(&Text(text.into())).copied().ok_or_else(|| format!("a merge has no token `{text}`"))
    }
}

/// The letters by which byte-level vocabularies write bytes.
pub(super) fn letters() -> Vec<char> {
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

fn merges(model: &Model<'_>, symbols: &Symbols<'_, '_>) -> Result<Vec<(u32, u32, u32)>, Why> {
    let mut both = String::new();
    let mut merge = |left: &str, right: &str| -> Result<(u32, u32, u32), Why> {
        if left.is_empty() || right.is_empty() {
            return Err("it merges nothing with something".to_owned());
        }
        both.clear();
        both.extend([left, right]);
        Ok((symbols.id(left)?, symbols.id(right)?, symbols.id(&both)?))
    };
    let each = |listed: &Merge<'_>| match listed {
        Merge::Pair(Text(left), Text(right)) => merge(left, right),
        Merge::Line(Text(line)) => match line.split_once(' ') {
            Some((left, right)) if !line.starts_with("#version") && !right.contains(' ') => merge(left, right),
            _ => Err(format!("`{line}` is no merge")),
        },
    };
    let merges: Result<Vec<_>, Why> = model.merges.iter().map(each).collect();
    let merges = merges?;
    // What is merged must be made of what its sides say, or lengths say nothing of places.
    let said = |id: &u32| symbols.said(*id);
    let holds = |(left, right, symbol): &(u32, u32, u32)| {
        let (left, right, symbol) = (said(left), said(right), said(symbol));
        left.is_empty() || right.is_empty() || symbol.strip_prefix(left) == Some(right)
    };
    if merges.iter().all(holds) { Ok(merges) } else { Err("its merges are not those of its tokens' texts".to_owned()) }
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
}
