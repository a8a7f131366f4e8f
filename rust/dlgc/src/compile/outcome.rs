//! What became of a record and of its dialogues, and where that is entered in the ledger.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::windows::Unlowered;
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::shard::{DialogueRow, Row, WindowCounts};
use crate::split::Stratum;
use crate::template::Turn;
use crate::tokenize::{Ending, Example};
use crate::window::Request;

/// What became of a record.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The format it had.
    pub(crate) format: Option<Arc<str>>,
    /// Its dialogues, in order.
    pub(crate) dialogues: Vec<Compiled>,
    /// Everything found about the record as a whole.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// What became of a dialogue.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    /// The rows; none if it was rejected.
    pub(crate) rows: Vec<Row>,
    /// How the targets of the rows end, if they are proved.
    pub(crate) endings: Vec<Ending>,
    /// Tokens of the whole dialogue, each counted once.
    pub(crate) source_tokens: u64,
    /// What its windows cost and leave out.
    pub(crate) windows: WindowCounts,
    /// About the dialogue, if it is a valid one.
    pub(crate) dialogue: Option<DialogueRow>,
    /// Turns that are trained.
    pub(crate) trained: u64,
    /// Turns that are not, by reason.
    pub(crate) untrained: BTreeMap<&'static str, u64>,
    /// Everything found.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Whether the filter left it out.
    pub(crate) excluded: bool,
    /// What its split is stratified by, where it has no other.
    pub(crate) stratum: Option<Stratum>,
    /// The dialogue in another format, where that is wanted, with its line break.
    pub(crate) line: Option<String>,
    /// Summaries that somebody else is to write.
    pub(crate) requests: Vec<Request>,
}

/// Where a record belongs in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It holds at least one valid dialogue.
    Imported,
    /// It is not meant to be compiled.
    Excluded,
    /// Nothing of it is valid.
    Rejected,
}

impl Outcome {
    /// A record of which nothing came.
    pub(crate) fn rejected(diagnostic: Diagnostic) -> Self {
        Self { diagnostics: vec![diagnostic], ..Self::default() }
    }

    /// Where the record belongs in the ledger.
    pub(crate) fn verdict(&self) -> Verdict {
        let failed = self.diagnostics.iter().any(|found| found.severity == Severity::Error);
        if self.dialogues.iter().any(|compiled| compiled.dialogue.is_some() || compiled.line.is_some()) {
            Verdict::Imported
        } else if self.format.is_some() && !failed && self.dialogues.iter().all(|compiled| compiled.excluded) {
            Verdict::Excluded
        } else {
            Verdict::Rejected
        }
    }

    /// Everything found, about the record and about its dialogues.
    pub(crate) fn findings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().chain(self.dialogues.iter().flat_map(|compiled| &compiled.diagnostics))
    }

    /// Whether something of it is to be kept among the rejects.
    pub(crate) fn has_rejects(&self) -> bool {
        self.verdict() == Verdict::Rejected || self.dialogues.iter().any(Compiled::is_rejected)
    }

    /// The errors for which it, or some of its dialogues, are rejected.
    pub(crate) fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        let failed = self.dialogues.iter().filter(|compiled| compiled.is_rejected());
        let found = self.diagnostics.iter().chain(failed.flat_map(|compiled| &compiled.diagnostics));
        found.filter(|found| found.severity == Severity::Error)
    }
}

impl Compiled {
    /// Whether nothing came of it.
    pub(crate) fn is_rejected(&self) -> bool {
        self.rows.is_empty() && self.line.is_none() && !self.excluded
    }

    /// Gives it another split and fold.
    pub(crate) fn move_to(&mut self, (split, fold): (&'static str, Option<u32>)) {
        let fold = fold.map_or(-1, |fold| fold as i32);
        if let Some(dialogue) = &mut self.dialogue {
            split.clone_into(&mut dialogue.split);
            dialogue.fold = fold;
        }
        self.rows.iter_mut().flat_map(|row| &mut row.provenance).for_each(|origin| origin.fold = fold);
    }

    /// Enters its trainable turns in the ledger with the reason for which nothing came of it.
    pub(super) fn leave_out(&mut self, unlowered: &Unlowered, trainable: u64) {
        let code = match unlowered {
            Unlowered::Rejected(code) => *code,
            Unlowered::Dropped => {
                self.excluded = true;
                let message = "the dialogue is longer than `max_length`";
                self.diagnostics.push(Diagnostic::new(Code::DialogueDropped, message));
                Code::DialogueDropped
            }
        };
        *self.untrained.entry(code.name()).or_default() += trainable;
    }

    /// Enters each trainable turn in the ledger, as trained or with its code.
    pub(super) fn account<'e>(
        &mut self,
        turns: impl Iterator<Item = &'e Turn>,
        examples: impl Iterator<Item = &'e Example>,
        trainable: u64,
    ) {
        let trained: HashSet<usize> = examples.flat_map(|example| example.trained_messages.iter().copied()).collect();
        let mut entered = 0;
        for turn in turns {
            match &turn.target {
                Ok(_) if trained.contains(&turn.message) => self.trained += 1,
                Ok(_) => *self.untrained.entry(Code::NothingToTrain.name()).or_default() += 1,
                Err(diagnostic) => *self.untrained.entry(diagnostic.code.name()).or_default() += 1,
            }
            entered += 1;
        }
        // Merged messages are one turn for the template; each further one of them is entered as merged.
        if trainable > entered {
            *self.untrained.entry(Code::MergedMessages.name()).or_default() += trainable - entered;
        }
    }

    /// The split of its rows.
    pub(crate) fn split(&self) -> &str {
        self.dialogue.as_ref().map_or("", |dialogue| &dialogue.split)
    }
}

/// A finding that is no error in the catalogue, and one by the user's wish.
pub(super) fn raised(diagnostics: &[Diagnostic]) -> Option<Code> {
    let is_raised = |found: &&Diagnostic| found.severity == Severity::Error && found.code.severity() != Severity::Error;
    diagnostics.iter().find(is_raised).map(|found| found.code)
}
