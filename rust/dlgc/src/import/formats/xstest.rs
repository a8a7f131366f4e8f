//! XSTest: answers to prompts that look unsafe; whether one should refuse follows from the kind of prompt.

use super::super::draft::{Draft, Turn};
use super::super::{Context, Format, When};
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Node, string};

pub(super) const FORMAT: Format =
    Format { name: "xstest", when: When::Has(&["prompt", "completion", "type", "final_label"]), import };

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let range = record.range.clone();
    let is_unsafe = record.get("type").and_then(Node::as_str).is_some_and(|kind| kind.starts_with("contrast_"));
    let (id, prompt, answer) = (record.take("id"), record.take("prompt"), record.take("completion"));
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.say(Turn::new(&range, "user").content(prompt));
    let expected = string(&range, if is_unsafe { "refuse" } else { "answer" });
    dialogue.say(Turn::new(&range, "assistant").content(answer).with("expect", Some(expected)));
    Ok(vec![dialogue.node()])
}
