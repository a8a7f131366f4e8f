//! A record, seen from inside: everything that a compilation makes of one of its dialogues, for people to look at.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::answers::{Answered, Sides};
use super::compiler::Compiler;
use super::outcome::raised;
use super::windows::{Lowered, Shot, asked};
use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind, Result};
use crate::json;
use crate::source::Record;
use crate::template::Turn;
use crate::validate::validate;
use crate::window::Request;

/// A record, seen from inside: for `dlgc show` and `dlgc.render`.
#[derive(Debug)]
pub struct Shown {
    /// Its windows with their rows; one for a dialogue that fits, or for each answer of preferences.
    pub windows: Vec<Shot>,
    /// A verdict for each message that is to be trained.
    pub turns: Vec<Turn>,
    /// Everything found.
    pub diagnostics: Vec<Diagnostic>,
    /// How many dialogues its record has.
    pub of: usize,
    /// Summaries that somebody else is to write.
    pub requests: Vec<Request>,
    /// What its windows are to each other, if it is one of preferences.
    pub answers: Option<ShownAnswers>,
}

/// Answers to one prompt, seen from inside.
#[derive(Debug)]
pub struct ShownAnswers {
    /// What they are called.
    pub names: &'static [&'static str],
    /// Tokens of the prompt, with which each of their rows begins.
    pub prompt: usize,
    /// The first token of the answers in which both differ; none of one with a verdict.
    pub divergence: Option<usize>,
    /// Whether the only one is good; none of a pair.
    pub label: Option<bool>,
}

impl Shown {
    fn of(lowered: Lowered) -> Self {
        let turns = lowered.turns().cloned().collect();
        let (windows, requests) = (lowered.windows, lowered.requests);
        Self { windows, turns, diagnostics: Vec::new(), of: 1, requests, answers: None }
    }

    fn of_answers(sides: &Sides<'_>, answered: Answered) -> Self {
        let (prompt, divergence) = (answered.prompt, answered.divergence());
        let turns = answered.shots.iter().flat_map(|shot| &shot.rendered.turns).cloned().collect();
        let answers = Some(ShownAnswers { names: sides.names(), prompt, divergence, label: sides.label });
        let (windows, requests) = (answered.shots, answered.requests);
        Self { windows, turns, diagnostics: Vec::new(), of: 1, requests, answers }
    }
}

impl Compiler {
    /// One dialogue of a record, counted from 1, with everything that became of it; `None` if no example came of it.
    ///
    /// # Errors
    /// [`ErrorKind::Tokenizer`] where the reference fails, [`ErrorKind::Options`] where the record has fewer dialogues.
    pub fn show(&self, record: &Record<'_>, number: usize) -> Result<std::result::Result<Shown, Vec<Diagnostic>>> {
        let validated = validate(record, &self.importers, &self.severities);
        let mut diagnostics = validated.diagnostics;
        let of = validated.dialogues.len();
        let Some(checked) = validated.dialogues.into_iter().nth(number.saturating_sub(1)) else {
            if of > 0 {
                let message = format!("`{}` has {of} dialogue(s), not {number}", record.location);
                return Err(Error::new(ErrorKind::Options, message));
            }
            return Ok(Err(diagnostics));
        };
        diagnostics.extend(checked.diagnostics);
        let Some(mut dialogue) = checked.dialogue else {
            return Ok(Err(diagnostics));
        };
        let judged = match self.judged(&dialogue, checked.judged) {
            Ok(judged) => judged,
            Err(refused) => {
                diagnostics.push(refused);
                return Ok(Err(diagnostics));
            }
        };
        let shown = match judged {
            None => {
                self.select_turns(&mut dialogue.messages, &mut BTreeMap::new());
                let lowered = self.lower(&mut dialogue, self.max_length, &mut diagnostics)?;
                lowered.map(Shown::of)
            }
            Some(judged) => {
                let mut sides = Sides::of(dialogue, judged);
                self.select_answers(&mut sides, &mut BTreeMap::new());
                let answered = self.answer(&mut sides, &mut diagnostics)?;
                answered.map(|answered| Shown::of_answers(&sides, answered))
            }
        };
        self.severities.apply(&mut diagnostics);
        match shown {
            Ok(shown) if raised(&diagnostics).is_none() => Ok(Ok(Shown { diagnostics, of, ..shown })),
            _ => Ok(Err(diagnostics)),
        }
    }
}

/// What `dlgc.render` gives, as JSON.
impl Shown {
    /// The text, ids, labels, spans, messages and verdicts; of a dialogue in windows the text and messages of the first.
    pub fn to_json(&self) -> Value {
        let turns: Vec<Value> = self.turns.iter().map(turn).collect();
        let rows: Vec<Value> = self
            .windows
            .iter()
            .enumerate()
            .flat_map(|(window, shot)| shot.examples.iter().map(move |example| (window, example)))
            .map(|(window, example)| {
                json!({"text": example.text, "input_ids": example.input_ids, "labels": example.labels,
                    "offsets": example.offsets, "trained_messages": example.trained_messages, "window": window})
            })
            .collect();
        let windows: Vec<Value> = self.windows.iter().map(Shot::to_json).collect();
        let first = &windows[0];
        json!({
            "text": first["text"],
            "rows": rows,
            "spans": first["spans"],
            "turns": turns,
            "messages": first["messages"],
            "dialogues": self.of,
            "windows": windows,
            "requests": asked(&self.requests),
            "answers": self.answers.as_ref().map(ShownAnswers::to_json),
        })
    }
}

impl ShownAnswers {
    fn to_json(&self) -> Value {
        json!({"names": self.names, "prompt": self.prompt, "divergence": self.divergence, "label": self.label})
    }
}

impl Shot {
    fn to_json(&self) -> Value {
        let rendered = &self.rendered;
        let spans: Vec<Value> = rendered
            .spans()
            .into_iter()
            .map(|span| json!({"start": span.range.start, "end": span.range.end, "trained": span.trained}))
            .collect();
        let messages: Vec<String> = rendered.messages.iter().map(json::dumps).collect();
        json!({
            "text": rendered.text,
            "spans": spans,
            "messages": format!("[{}]", messages.join(", ")),
            "sources": self.sources,
            "summary": self.summary,
        })
    }
}

fn turn(turn: &Turn) -> Value {
    match &turn.target {
        Ok(target) => json!({"message": turn.message, "target": target.text,
            "stop": target.text[target.text.len() - target.stop..], "own_row": target.own_row}),
        Err(found) => json!({"message": turn.message, "code": found.code.name(), "reason": found.message}),
    }
}
