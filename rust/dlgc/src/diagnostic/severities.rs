//! How bad findings are, where a user wants it otherwise than the catalogue.

use std::collections::BTreeMap;

use super::{Code, Diagnostic, Severity};
use crate::error::{Error, ErrorKind, Result};

/// The severities that differ from the catalogue's.
#[derive(Debug, Clone, Default)]
pub struct Severities {
    changed: BTreeMap<Code, Severity>,
}

/// Errors after which there still is something to compile.
const MAY_BE_LOWERED: [Code; 8] = [
    Code::UnreadableFile,
    Code::TruncatedGzip,
    Code::BrokenContainer,
    Code::UnsupportedContainer,
    Code::PlainText,
    Code::FileChanged,
    Code::BrokenArray,
    Code::OrphanToolResult,
];

impl Severities {
    /// Takes severities by the names of codes.
    ///
    /// # Errors
    /// [`ErrorKind::Options`] for a code that does not exist, and for an error that cannot be less than one.
    pub fn new(asked: &BTreeMap<String, Severity>) -> Result<Self> {
        let mut changed = BTreeMap::new();
        for (name, &severity) in asked {
            let Some(entry) = Code::explain(name) else {
                let message = format!("`severity.{name}`: there is no such diagnostic");
                return Err(Error::new(ErrorKind::Options, message).hint("`specs/diagnostics.md` lists them"));
            };
            let is_lower = severity < entry.severity;
            if entry.severity == Severity::Error && is_lower && !MAY_BE_LOWERED.contains(&entry.code) {
                let message =
                    format!("`severity.{name}`: it is always an error, because nothing would be left to compile");
                let may = MAY_BE_LOWERED.map(|code| format!("`{}`", code.name())).join(", ");
                return Err(Error::new(ErrorKind::Options, message).hint(format!("errors that may be less: {may}")));
            }
            changed.insert(entry.code, severity);
        }
        Ok(Self { changed })
    }

    /// How bad a finding of this code is.
    pub fn of(&self, code: Code) -> Severity {
        self.changed.get(&code).copied().unwrap_or(code.severity())
    }

    /// Gives findings their severity.
    pub fn apply(&self, diagnostics: &mut [Diagnostic]) {
        for diagnostic in diagnostics {
            diagnostic.severity = self.of(diagnostic.code);
        }
    }
}
