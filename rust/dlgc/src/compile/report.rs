//! What a run says of itself: while it runs, and at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::CompileOptions;
use super::compiler::Compiler;
use super::lengths::AnswerCounts;
use super::outcome::{Compiled, Outcome, Verdict};
use crate::diagnostic::{Code, Diagnostic, Located, Severity, Tally, locate};
use crate::dialogue::{Location, Position};
use crate::shard::{AnswerLengths, Certificate, CertifiedStop, FileFault, Ledger, Manifest, Size, WindowCounts};
use crate::source::{Fault, Record, Skipped};
use crate::split::Strata;
use crate::tokenize::{EncodingPath, Ending};

/// How far a run is.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Progress {
    /// Stored bytes read so far.
    pub bytes_read: u64,
    /// Stored bytes of all inputs; `None` where standard input is among them.
    pub bytes_total: Option<u64>,
    /// Records so far.
    pub records: u64,
    /// Dialogues compiled so far.
    pub compiled: u64,
    /// Records rejected so far.
    pub rejected: u64,
}

impl Progress {
    pub(super) fn update(&mut self, bytes_read: u64, tallies: &Tallies) {
        self.bytes_read = bytes_read;
        self.records = tallies.ledger.records.read;
        self.compiled = tallies.ledger.dialogues.compiled;
        self.rejected = tallies.rejected();
    }
}

/// Counts that grow with the run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Tallies {
    pub(super) ledger: Ledger,
    pub(super) tally: Tally,
    pub(super) formats: BTreeMap<String, u64>,
    pub(super) tokens: u64,
    pub(super) source_tokens: u64,
    pub(super) trained_tokens: u64,
    pub(super) rows: u64,
    /// What windows cost and leave out.
    #[serde(default)]
    pub(super) windows: WindowCounts,
    /// Files that could not be read to their end.
    pub(super) faults: Vec<FileFault>,
    /// Targets by how they end.
    #[serde(with = "super::resume::pairs")]
    endings: BTreeMap<Ending, u64>,
    /// Compiled records that hold the text of a control token, encoded as text.
    control_texts: u64,
    /// Targets that are not what follows the prompt of a server.
    differing: u64,
    /// Targets that are cut before they end.
    #[serde(default)]
    cut: u64,
    /// How long answers are.
    #[serde(default)]
    pub(super) answers: AnswerCounts,
    /// Where the next dialogue of each stratum goes.
    #[serde(default)]
    pub(super) strata: Strata,
}

impl Tallies {
    pub(super) fn rejected(&self) -> u64 {
        self.ledger.records.rejected + self.ledger.dialogues.rejected
    }

    /// Enters a record in the ledger.
    pub(super) fn enter(&mut self, record: &Record<'_>, outcome: &Outcome) {
        let records = &mut self.ledger.records;
        records.read += 1;
        if let Some(format) = &outcome.format {
            *self.formats.entry(format.to_string()).or_default() += 1;
        }
        for found in outcome.findings() {
            self.tally.add(found, || locate(found, &record.location, record.bytes));
        }
        match outcome.verdict() {
            Verdict::Rejected => records.rejected += 1,
            Verdict::Excluded => records.excluded += 1,
            Verdict::Imported => {
                records.imported += 1;
                outcome.dialogues.iter().for_each(|compiled| self.enter_dialogue(compiled));
            }
        }
    }

    fn enter_dialogue(&mut self, compiled: &Compiled) {
        let ledger = &mut self.ledger;
        ledger.dialogues.imported += 1;
        if compiled.excluded {
            ledger.dialogues.excluded += 1;
        }
        ledger.turns.trained += compiled.trained;
        for (reason, count) in &compiled.untrained {
            *ledger.turns.untrained.entry((*reason).to_owned()).or_default() += count;
        }
        if let Some(dialogue) = &compiled.dialogue {
            ledger.turns.total += dialogue.counts[1] as u64;
            self.tokens += dialogue.counts[3] as u64;
            self.source_tokens += compiled.source_tokens;
            self.trained_tokens += dialogue.counts[4] as u64;
            self.rows += dialogue.counts[5] as u64;
        }
        for ending in &compiled.endings {
            *self.endings.entry(ending.clone()).or_default() += 1;
        }
        if compiled.is_rejected() {
            ledger.dialogues.rejected += 1;
            return;
        }
        if compiled.excluded {
            return;
        }
        ledger.dialogues.compiled += 1;
        compiled.rows.iter().for_each(|row| self.answers.enter(row));
        self.windows.add(&compiled.windows);
        let is_control_text = |found: &Diagnostic| found.code == Code::ControlTokenAsText;
        let count = |code: Code| compiled.diagnostics.iter().filter(|found| found.code == code).count() as u64;
        self.differing += count(Code::TargetDiffers);
        self.cut += count(Code::TurnCut);
        self.control_texts += u64::from(compiled.diagnostics.iter().any(is_control_text));
    }
}

/// A file-level finding has no record to point into.
fn locate_fault(diagnostic: &Diagnostic, location: &Location) -> Located {
    let mut located = locate(diagnostic, location, b"");
    located.location = location.file.to_string();
    let (severity, code) = (diagnostic.severity.name(), diagnostic.code.name());
    let help = diagnostic.help.as_ref().map_or_else(String::new, |help| format!("help: {help}\n"));
    located.rendered = format!("{severity}[{code}]: {}\n  --> {}\n{help}", located.message, location.file);
    located
}

impl Tallies {
    /// Enters something wrong with a file.
    pub(super) fn fault(&mut self, fault: &Fault) {
        let Fault { file, diagnostic } = fault;
        if diagnostic.severity == Severity::Error {
            self.ledger.faults += 1;
        }
        let message = diagnostic.message.clone();
        self.faults.push(FileFault { file: file.to_string(), code: diagnostic.code.name().to_owned(), message });
        let location = Location::new(Arc::clone(file), Position::Line(0));
        self.tally.add(diagnostic, || locate_fault(diagnostic, &location));
    }

    /// What the rows are, in counts.
    pub(super) fn certificate(&self, compiler: &Compiler) -> Certificate {
        let stop = |(ending, &targets): (&Ending, &u64)| CertifiedStop {
            text: ending.text.clone(),
            id: ending.id,
            ends_generation: ending.id.is_some_and(|id| compiler.stop_ids.contains(&id)),
            appended: ending.appended,
            targets,
        };
        Certificate {
            proof: compiler.proof(),
            targets: self.ledger.turns.trained,
            rows: self.rows,
            kind: compiler.rows,
            examples: 0,
            stops: self.endings.iter().map(stop).collect(),
            differing: self.differing,
            cut: self.cut,
            control_texts: self.control_texts,
        }
    }
}

/// The end of a run, for people and machines.
#[derive(Debug, Serialize)]
pub struct CompileReport {
    /// What became of everything.
    pub ledger: Ledger,
    /// Diagnostics by code, with the first few of each.
    pub diagnostics: Tally,
    /// Records by the format they had.
    pub formats: BTreeMap<String, u64>,
    /// Records of an interrupted run that were not compiled again.
    pub resumed: u64,
    /// Rows.
    pub rows: u64,
    /// Examples: as many as rows, unless these are packed.
    pub examples: u64,
    /// Share of the tokens for which the rows have room that they hold; `None` where they are not packed.
    pub utilisation: Option<f64>,
    /// Tokens of the rows.
    pub tokens: u64,
    /// Tokens of the compiled dialogues, each counted once: fewer where turns have rows of their own.
    pub source_tokens: u64,
    /// Tokens that are trained.
    pub trained_tokens: u64,
    /// What windows cost and leave out.
    pub windows: WindowCounts,
    /// How long answers are; `None` without preferences.
    pub answers: Option<AnswerLengths>,
    /// What the rows are, in counts; none where no rows are made.
    pub certificate: Option<Certificate>,
    /// The same in a sentence; none where nothing is trained.
    pub statement: Option<String>,
    /// Files of named folders that were not read, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Which way text became ids; none where no rows are made.
    pub encoding: Option<EncodingPath>,
    /// Why the run is a failure although it went through to its end.
    pub failure: Option<String>,
    /// The manifest, if a dataset was written.
    pub manifest: Option<Manifest>,
}

impl CompileReport {
    /// Of a run that makes no rows.
    pub(super) fn of(options: &CompileOptions, tallies: Tallies, skipped: Vec<Skipped>) -> Self {
        let failure = failure(options, &tallies);
        let answers = tallies.answers.lengths();
        let skipped =
            skipped.into_iter().map(|file| (file.path.to_string_lossy().into_owned(), file.reason.to_owned()));
        Self {
            ledger: tallies.ledger,
            diagnostics: tallies.tally,
            formats: tallies.formats,
            resumed: 0,
            rows: tallies.rows,
            examples: tallies.rows,
            utilisation: None,
            tokens: tallies.tokens,
            source_tokens: tallies.source_tokens,
            trained_tokens: tallies.trained_tokens,
            windows: tallies.windows,
            answers,
            statement: None,
            certificate: None,
            skipped: skipped.collect(),
            encoding: None,
            failure,
            manifest: None,
        }
    }
}

/// Warnings that `--strict` does not let pass.
const DOUBTFUL: [Code; 10] = [
    Code::RolesAssumed,
    Code::StopNotAToken,
    Code::TargetDiffers,
    Code::TargetCut,
    Code::ReasoningLost,
    Code::DuplicateKey,
    Code::UnknownField,
    Code::UnansweredToolCall,
    Code::UndeclaredCall,
    Code::ControlTokenAllowed,
];

impl CompileReport {
    pub(super) fn new(
        options: &CompileOptions,
        compiler: &Compiler,
        tallies: Tallies,
        skipped: Vec<Skipped>,
        manifest: Option<Manifest>,
    ) -> Self {
        let size = manifest.as_ref().map(|manifest| Size::sum(manifest.splits.values()));
        let mut certificate = tallies.certificate(compiler);
        if let Some(size) = size {
            certificate = certificate.in_rows(size);
        }
        let statement = certificate.statement();
        let other = Self::of(options, tallies, skipped);
        let path = compiler.tokenizer.path();
        let is_doubtful = options.strict && path.difference.is_some();
        let doubt = || "the fast tokeniser did not do as the reference does, and the run is strict".to_owned();
        Self {
            failure: other.failure.or_else(|| is_doubtful.then(doubt)),
            encoding: Some(path),
            rows: certificate.rows,
            utilisation: size.and_then(|size| size.utilisation(compiler.max_length)),
            statement,
            certificate: Some(certificate),
            manifest,
            ..other
        }
    }
}

fn failure(options: &CompileOptions, tallies: &Tallies) -> Option<String> {
    let (read, rejected) = (tallies.ledger.records.read, tallies.rejected());
    if tallies.ledger.dialogues.compiled == 0 {
        let excluded = tallies.ledger.records.excluded;
        return Some(match &options.condition {
            Some(condition) if excluded > 0 => {
                format!("nothing was compiled: {excluded} record(s) do not meet `{condition}`; are the names right?")
            }
            _ => "nothing was compiled".to_owned(),
        });
    }
    if tallies.ledger.faults > 0 {
        let files = tallies.ledger.faults;
        return Some(format!("{files} file(s) could not be read to their end: nobody can say how much is missing"));
    }
    let allowed = if options.strict { 0.0 } else { options.max_rejects };
    if rejected as f64 > allowed * read as f64 {
        let share = 100.0 * rejected as f64 / read as f64;
        return Some(format!(
            "{rejected} of {read} records were rejected ({share:.1} %); at most {:.1} % may be",
            100.0 * allowed
        ));
    }
    if !options.strict {
        return None;
    }
    let codes = tallies.tally.codes();
    let turn_errors = codes.values().any(|tally| tally.severity == Severity::Error);
    let doubtful = DOUBTFUL.iter().find(|code| codes.get(code).is_some_and(|tally| tally.severity > Severity::Note));
    match doubtful {
        Some(code) => Some(format!("`{}` was found, and the run is strict", code.name())),
        None if turn_errors => Some("a turn was left untrained, and the run is strict".to_owned()),
        None => None,
    }
}
