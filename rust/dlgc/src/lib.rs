//! dlgc, the dialogue compiler.
//!
//! Source language: multi-turn dialogues. Target: token rows that a trainer can trust without looking. The data meets
//! the passes in this order; each imports the type of the one before it, and only `compile` knows them all:
//!
//! ```text
//! source → import → validate → template → tokenize → shard
//! paths    records  Dialogue   Rendered   Example    Arrow files, manifest.json
//! ```
//!
//! What is wrong with the data is a [`diagnostic::Diagnostic`]; what goes wrong with the run is an [`error::Error`].

pub mod dialogue;
pub mod diagnostic;
pub mod error;
pub mod json;

