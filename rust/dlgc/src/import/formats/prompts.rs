//! A question, and nothing that answers it.

use super::super::draft::{Draft, Turn};
use super::super::{Context, Format, When};
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Node};

pub(super) const FORMAT: Format = Format { name: "prompts", when: When::Is(is_prompt), import: prompt };

const ASKED: [&str; 5] = ["prompt", "question", "query", "instruction", "input"];

fn is_prompt(record: &Node<'_>) -> bool {
    ASKED.iter().any(|key| record.get(key).is_some_and(|value| value.as_str().is_some()))
}

/// A dialogue that nobody answers, which validation refuses for that.
fn prompt<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (asked, id) = (record.take_any(&ASKED), record.take("id"));
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    if let Some(asked) = asked {
        dialogue.say(Turn::new(&asked.range.clone(), "user").content(Some(asked)));
    }
    Ok(vec![dialogue.node()])
}
