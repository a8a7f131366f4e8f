//! What is wrong with the data: values with a stable code, a severity, a place and help.
//!
//! A pass makes a [`Diagnostic`] with the byte range that it is about; the JSON path and the excerpt are found when
//! it is shown, so a good record pays nothing for them. The catalogue of codes is [`Code`].

mod catalogue;
mod render;
mod severities;

use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use catalogue::{Code, Entry, Severity};
pub(crate) use render::columns;
pub use render::{Located, locate};
pub use severities::Severities;

/// One finding about one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    /// Which rule.
    pub code: Code,
    /// How bad it is: as the catalogue has it, unless the user wants it otherwise.
    pub severity: Severity,
    /// What is wrong, in one phrase.
    pub message: String,
    /// The bytes of the record that it is about.
    pub range: Option<Range<usize>>,
    /// What stands beside the caret.
    pub label: Option<String>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A finding without a place.
    #[cold]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, severity: code.severity(), message: message.into(), range: None, label: None, help: None }
    }

    /// Points at bytes of the record.
    #[must_use]
    pub fn at(mut self, range: &Range<usize>) -> Self {
        self.range = Some(range.clone());
        self
    }

    /// Says something beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// How often each code was met, and the first few of each.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Tally {
    codes: std::collections::BTreeMap<Code, CodeTally>,
}

/// One code's count and examples.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CodeTally {
    /// How bad it is.
    pub severity: Severity,
    /// How often it was met.
    pub count: u64,
    /// The first few, in input order.
    pub examples: Vec<Located>,
}

/// How many examples of each code are kept.
pub const EXAMPLES: usize = 3;

impl Tally {
    /// Counts a finding; `located` is called only while examples of its code are wanted.
    pub fn add(&mut self, diagnostic: &Diagnostic, located: impl FnOnce() -> Located) {
        let severity = diagnostic.severity;
        let entry =
            self.codes.entry(diagnostic.code).or_insert_with(|| CodeTally { severity, count: 0, examples: Vec::new() });
        entry.count += 1;
        if entry.examples.len() < EXAMPLES {
            entry.examples.push(located());
        }
    }

    /// Codes and their counts, by name.
    pub fn counts(&self) -> std::collections::BTreeMap<&'static str, u64> {
        self.codes.iter().map(|(code, tally)| (code.name(), tally.count)).collect()
    }

    /// The whole tally, by code.
    pub fn codes(&self) -> &std::collections::BTreeMap<Code, CodeTally> {
        &self.codes
    }
}
