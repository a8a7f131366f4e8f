//! Cohere's chats: what was said before in `chat_history`, what is asked in `message`, the rules in `preamble`; the answer in
//! `response` or `text`, which without `message` repeats the end of the history.

use super::super::draft::Draft;
use super::super::{Context, Format, When, speakers};
use super::blocks::{self, Kind};
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Node};

pub(super) const FORMAT: Format = Format { name: "cohere", when: When::Is(recognises), import };

const BLOCKS: [Kind; 2] = [
    Kind { has: &["parameters"], name: &["name"], arguments: &["parameters"], ..Kind::NONE },
    Kind { has: &["outputs"], result: &["outputs"], ..Kind::NONE },
];

fn recognises(record: &Node<'_>) -> bool {
    let is_asked = record.get("message").is_some_and(|asked| asked.as_str().is_some());
    let history = record.get("chat_history").and_then(Node::as_array);
    history.is_some_and(|said| (is_asked || !said.is_empty()) && said.iter().all(|turn| speakers::role(turn).is_some()))
}

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (rules, history, asked) = (record.take("preamble"), record.list("chat_history"), record.take("message"));
    let answer = asked.as_ref().and_then(|_| record.take_any(&["response", "text"]));
    let native = ["id", "documents"].map(|name| (name, record.take(name)));
    let mut dialogue = Draft::of(record);
    native.into_iter().for_each(|(name, node)| dialogue.set(name, node));
    dialogue.says("system", rules);
    dialogue.messages.extend(history.into_iter().flat_map(turn));
    dialogue.says("user", asked);
    dialogue.says("assistant", answer);
    Ok(vec![dialogue.node()])
}

fn turn(turn: Node<'_>) -> Vec<Node<'_>> {
    blocks::of_members(turn, &["message", "tool_calls", "tool_results"], &BLOCKS, &[])
}
