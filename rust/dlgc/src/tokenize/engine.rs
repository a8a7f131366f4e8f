//! A tokenizer at work: the reference, what encodes as it does, and whether they agreed in this run.
//!
//! In: text. Out: [`Encoded`]. A [`Known`] is read and tested once, and every run of the process that needs the same one
//! shares it; an [`Engine`] is what one run knows of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokenizers::{AddedToken, ModelWrapper, PostProcessorWrapper, Tokenizer as Reference};
use xxhash_rust::xxh3::xxh3_64;

use super::encode::{Encoded, fail};
use super::fast::Fast;
use super::proof::{Difference, Texts, compare, lengths, scalars};
use crate::error::{Error, ErrorKind, Result};
use crate::panics::caught;

/// So many texts of a run are compared with the reference first, and of the others one in so many, by their hash.
const FIRST: usize = 64;
const ONE_IN: u64 = 1000;
/// Longer texts are not: the reference takes a hundred bytes of memory for each of theirs.
const LONGEST: usize = 1 << 20;
/// So many random texts are compared when a tokenizer is loaded.
const AT_LOAD: usize = 400;

/// The reference, and what encodes as it does where that is known.
pub(super) struct Known {
    pub(super) reference: Reference,
    /// Or why the reference does all the work.
    fast: std::result::Result<Fast, String>,
}

/// What a run does with it, and what it found out.
pub(super) struct Engine {
    known: Arc<Known>,
    /// Why the reference does all the work of this run, though there is a fast path.
    refused: Option<String>,
    /// How many texts were encoded, as far as that matters: the first ones are compared.
    encoded: AtomicUsize,
    /// A text that was not encoded as by the reference.
    difference: OnceLock<Difference>,
}

impl Known {
    /// With a fast path, if there is one for the tokenizer and it passes its test.
    pub(super) fn new(mut reference: Reference, json: &[u8]) -> Result<Self> {
        reference.with_post_processor(None::<PostProcessorWrapper>);
        let fast = caught(|| Fast::of(json, &reference)).unwrap_or_else(|said| Err(format!("it failed: {said}")));
        let mut known = Self { reference, fast };
        if let Err(difference) = known.prove(AT_LOAD, false)? {
            known.fast = Err(format!("it failed its test: {difference}"));
        }
        Ok(known)
    }

    /// Without one.
    pub(super) fn slow(mut reference: Reference, why: String) -> Self {
        reference.with_post_processor(None::<PostProcessorWrapper>);
        Self { reference, fast: Err(why) }
    }

    /// The name of the fast path, or why there is none.
    pub(super) fn path(&self) -> std::result::Result<String, String> {
        self.fast.as_ref().map(Fast::name).map_err(Clone::clone)
    }

    #[cfg(test)]
    pub(super) fn spoil(&mut self) {
        self.fast.as_mut().expect("a fast path").spoil();
    }

    fn by_reference(&self, text: &str) -> Result<Encoded> {
        Ok(Encoded::of(&self.reference.encode(text, false).map_err(fail)?))
    }

    fn compare(&self, fast: &Fast, text: &str) -> Result<Option<Difference>> {
        let anew = |text: &str| match caught(|| fast.encode(text, &|text| self.by_reference(text))) {
            Ok(Ok(encoded)) => Ok(encoded),
            Ok(Err(error)) => Err(error.to_string()),
            Err(said) => Err(said),
        };
        compare(text, &anew, &|text| self.by_reference(text))
    }

    /// Whether ids are decoded as by the reference, also where they begin and end inside characters.
    fn compare_decoded(&self, fast: &Fast, text: &str) -> Result<Option<Difference>> {
        let ids = self.by_reference(text)?.ids;
        for ids in [ids.as_slice(), ids.get(1..).unwrap_or_default()] {
            let Some(found) = fast.decode(ids) else { return Ok(None) };
            let expected = self.reference.decode(ids, false).map_err(fail)?;
            if found != expected {
                return Ok(Some(Difference { text: format!("{ids:?}"), fast: found, reference: expected }));
            }
        }
        Ok(None)
    }

    /// Compares texts of all kinds with the reference: how many were the same, or the first that is not.
    pub(super) fn prove(&self, strings: usize, is_whole: bool) -> Result<std::result::Result<usize, Difference>> {
        let Ok(fast) = &self.fast else { return Ok(Ok(0)) };
        let mut added: Vec<(u32, AddedToken)> = self.reference.get_added_tokens_decoder().into_iter().collect();
        added.sort_by_key(|(id, _)| *id);
        let added: Vec<String> = added.into_iter().map(|(_, token)| token.content).collect();
        let said = fast.said(if is_whole { 1 } else { 97 });
        let edges = is_whole.then(lengths).into_iter().flatten();
        let texts = Texts::new(1, &said, &added).take(strings).chain(edges);
        let mut same = 0;
        for text in texts.chain(is_whole.then(scalars).into_iter().flatten()) {
            if let Some(difference) = self.compare(fast, &text)?.or(self.compare_decoded(fast, &text)?) {
                return Ok(Err(difference));
            }
            same += 1;
        }
        Ok(Ok(same))
    }
}

impl Engine {
    /// `refused` says why the reference shall do all the work.
    pub(super) fn new(known: Arc<Known>, refused: Option<String>) -> Self {
        Self { known, refused, encoded: AtomicUsize::new(0), difference: OnceLock::new() }
    }

    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    /// What does the work in this run, or why the reference does.
    pub(super) fn fast(&self) -> std::result::Result<&Fast, &String> {
        match &self.refused {
            Some(why) => Err(why),
            None => self.known.fast.as_ref(),
        }
    }

    /// A text of this run that was not encoded as by the reference.
    pub(super) fn difference(&self) -> Option<&Difference> {
        self.difference.get()
    }

    /// Ids and offsets of a text.
    pub(super) fn encode(&self, text: &str) -> Result<Encoded> {
        let known = &self.known;
        let Ok(fast) = self.fast() else { return known.by_reference(text) };
        let found = caught(|| fast.encode(text, &|text| known.by_reference(text)));
        let found = match found {
            Ok(encoded) => {
                let encoded = encoded?;
                if !self.is_compared(text) || encoded == known.by_reference(text)? {
                    return Ok(encoded);
                }
                known.compare(fast, text)?
            }
            Err(_) => known.compare(fast, text)?,
        };
        let difference = found.unwrap_or_else(|| Difference {
            text: String::new(),
            fast: "something else than before".to_owned(),
            reference: "what it made before".to_owned(),
        });
        let message = format!("the fast tokeniser does not do as the reference does: {difference}");
        let _ = self.difference.set(difference); // another thread may have been first
        Err(Error::new(ErrorKind::Tokenizer, message).hint("this is a bug in dlgc: please report it"))
    }

    /// The text of ids, special tokens kept.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String> {
        match self.fast().ok().and_then(|fast| fast.decode(ids)) {
            Some(text) => Ok(text),
            None => self.known.reference.decode(ids, false).map_err(fail),
        }
    }

    /// Whether a text of a run is encoded by the reference too.
    fn is_compared(&self, text: &str) -> bool {
        text.len() <= LONGEST
            && (self.encoded.load(Ordering::Relaxed) < FIRST && self.encoded.fetch_add(1, Ordering::Relaxed) < FIRST
                || xxh3_64(text.as_bytes()).is_multiple_of(ONE_IN))
    }
}

/// Reads a `tokenizer.json`, without what somebody's training script left in it: padding, truncation and dropout are
/// not part of a text's ids.
pub(super) fn read(json: &[u8]) -> Result<Reference> {
    let mut reference = Reference::from_bytes(json)
        .map_err(|error| Error::new(ErrorKind::Tokenizer, format!("`tokenizer.json` cannot be read: {error}")))?;
    reference.with_padding(None);
    reference.with_truncation(None).map_err(fail)?;
    if let ModelWrapper::BPE(bpe) = reference.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        reference.with_model(bpe);
    }
    Ok(reference)
}
