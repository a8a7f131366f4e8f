//! A tokenizer taken apart: is it made of parts that are known?
//!
//! In: what the reference made of its file, but for the vocabulary. Out: [`Parts`], or why the reference has to do the
//! work.

use serde_json::{Value, json};
use tokenizers::{AddedToken, ModelWrapper, NormalizedString, Normalizer, Tokenizer as Reference};

use super::Token;
use super::split::Splitter;
use crate::tokenize::added::Finder;

/// The sign for a space in vocabularies of SentencePiece.
pub(super) const SPACE_SIGN: char = '▁';

/// How text becomes the symbols that are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes, in pieces.
    Bytes(Splitter),
    /// Characters, spaces written `▁`; in all of a text between added tokens, before which a `▁` may be put.
    Characters { prepend: bool },
}

/// What a tokenizer is made of, beside what its model knows.
pub(super) struct Parts {
    pub(super) kind: Kind,
    /// Whether text is composed (NFC) first.
    pub(super) nfc: bool,
    /// Whether a piece that is a token is taken whole, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Added tokens that are looked for in the text, and those that are in what the normaliser leaves of it.
    pub(super) added: Option<Finder<Token>>,
    pub(super) normalized: Option<Finder<Token>>,
}

/// Why a tokenizer is not encoded here.
pub(super) type Why = String;

impl Parts {
    pub(super) fn of(reference: &Reference) -> Result<Self, Why> {
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
        let [added, normalized] = finders(reference)?;
        if normalized.is_some() && matches!(kind, Kind::Characters { .. }) {
            return Err("it looks for added tokens in normalised text".to_owned());
        }
        Ok(Self { kind, nfc, ignore_merges: bpe.ignore_merges, added, normalized })
    }
}

pub(super) fn as_json(part: Option<&impl serde::Serialize>) -> Result<Value, Why> {
    serde_json::to_value(part).map_err(|error| error.to_string())
}

/// The decoder that gives the text again where spaces are written `▁` and no `▁` is put before the text.
pub(super) fn decoder_of_characters() -> Value {
    let spaces = json!({"type": "Replace", "pattern": {"String": SPACE_SIGN.to_string()}, "content": " "});
    json!({"type": "Sequence", "decoders": [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}]})
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
fn finders(reference: &Reference) -> Result<[Option<Finder<Token>>; 2], Why> {
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
    Ok([Finder::of(&raw)?, Finder::of(&normalized)?])
}
