//! A question, and nothing that answers it under a name that says so.

use super::super::{Context, Format, When, unknown};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::Node;

pub(super) const FORMAT: Format = Format { name: "prompts", when: When::Is(|r| asked(r).is_some()), import: prompt };

const ASKED: [&str; 5] = ["prompt", "question", "query", "instruction", "input"];

fn asked(record: &Node<'_>) -> Option<&'static str> {
    ASKED.into_iter().find(|key| record.get(key).is_some_and(|value| value.as_str().is_some()))
}

fn prompt<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let asked = asked(&record).expect("recognised by it");
    let message = format!("`{asked}` asks something, and no name says what answers it");
    let place = record.range.start..record.range.start + 1;
    Err(Diagnostic::new(Code::NoAssistant, message).at(&place).help(unknown::columns(&record, Some(asked))))
}
