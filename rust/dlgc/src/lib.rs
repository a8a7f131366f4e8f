//! dlgc, the dialogue compiler.
//!
//! Source language: multi-turn dialogues. Target: token rows that a trainer can trust without looking. The data meets
//! the passes in this order; each imports the type of the one before it, and only [`mod@compile`] knows them all:
//!
//! ```text
//! source → import → validate → filter, split → template → tokenize → pack → shard
//! paths    records  Dialogue   Dialogue        Rendered   Example    bins   Arrow files, manifest.json
//! ```
//!
//! What is wrong with the data is a [`diagnostic::Diagnostic`]; what goes wrong with the run is an [`error::Error`].

mod bytes;
pub mod compile;
pub mod diagnostic;
pub mod dialogue;
#[cfg(test)]
mod draw;
pub mod error;
pub mod filter;
pub mod import;
pub mod json;
pub mod pack;
mod panics;
pub mod shard;
pub mod source;
pub mod split;
pub mod template;
pub mod tokenize;
pub mod validate;
pub mod verify;
pub mod window;

/// This version of dlgc, as manifests record it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
