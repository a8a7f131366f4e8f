//! Does a tokenizer get a fast path, and does that do as the reference does?
//!
//! In: a tokenizer. Out: the way its texts go, why not a faster one, and what was compared.

use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::tokenize::{Difference, Tokenizer, TokenizerFiles};

/// What is known of a tokenizer's way from text to ids.
#[derive(Debug, Serialize)]
pub struct TokenizerVerdict {
    /// The kind of tokenizer that it was recognised as; `None` where the reference does all the work.
    pub fast: Option<String>,
    /// Why the reference does all the work.
    pub why: Option<String>,
    /// How many texts came out as by the reference: ids, their places, and their text.
    pub same: usize,
    /// The first that did not.
    pub difference: Option<Difference>,
}

/// Compares so many random texts with the reference; with `is_whole` also every character in every kind of place, and
/// pieces of every length that matters.
///
/// # Errors
/// What [`TokenizerFiles::load`] and [`Tokenizer::load`] say, and
/// [`ErrorKind::Tokenizer`](crate::error::ErrorKind::Tokenizer) where the reference fails.
pub fn tokenizer(path: &str, strings: usize, is_whole: bool) -> Result<TokenizerVerdict> {
    let files = if path == "builtin" { TokenizerFiles::builtin() } else { TokenizerFiles::load(Path::new(path))? };
    let tokenizer = Tokenizer::load(&files)?;
    let (same, difference) = match tokenizer.prove(strings, is_whole)? {
        Ok(same) => (same, None),
        Err(difference) => (0, Some(difference)),
    };
    let path = tokenizer.path();
    Ok(TokenizerVerdict { fast: path.fast, why: path.why, same, difference })
}
