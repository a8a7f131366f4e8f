//! ToolBench: the last of the winning search's message lists. The others are its beginnings, but for hints to the search
//! that it leaves out.

use super::super::draft::Draft;
use super::super::{Context, Format, When};
use super::messages::modernise;
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Node, object};

pub(super) const FORMAT: Format = Format { name: "toolbench", when: When::Has(&["answer_generation", "tree"]), import };

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let mut answer = record.fields("answer_generation");
    // The search itself is no part of the dialogue that it found.
    let (_, _) = (record.take("tree"), record.take("compare_candidates"));
    let (messages, tools, _) = (answer.list("train_messages").pop(), answer.take("function"), answer.take("chain"));
    let mut dialogue = Draft::of(record);
    for mut message in messages.map_or_else(Vec::new, Node::into_elements) {
        modernise(&mut message, &mut None)?;
        // The set's own verdict on a step of the search.
        let mut fields = Fields::of(message);
        let valid = fields.take("valid").map(|valid| object(&fields.range, vec![("valid", valid)]));
        message = fields.with("annotations", valid);
        dialogue.messages.push(message);
    }
    dialogue.set_text("type", "tool");
    dialogue.set("tools", tools);
    dialogue.set("goal", answer.take("query"));
    Ok(vec![dialogue.node()])
}
