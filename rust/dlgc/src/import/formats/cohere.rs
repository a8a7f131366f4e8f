//! Cohere's chats: what was said before in `chat_history`, what is asked in `message`, the rules in `preamble`; the answer in
//! `response` or `text`, which without `message` repeats the end of the history.

use super::super::draft::{Draft, Turn};
use super::super::{Context, Format, When};
use super::blocks::{self, Kind};
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Node};

pub(super) const FORMAT: Format = Format { name: "cohere", when: When::Is(recognises), import };

const ROLES: [(&str, &str); 4] = [("user", "user"), ("chatbot", "assistant"), ("system", "system"), ("tool", "tool")];
const BLOCKS: [Kind; 2] = [
    Kind { has: &["parameters"], name: &["name"], arguments: &["parameters"], ..Kind::NONE },
    Kind { has: &["outputs"], result: &["outputs"], ..Kind::NONE },
];

fn recognises(record: &Node<'_>) -> bool {
    let history = record.get("chat_history").and_then(Node::as_array);
    let is_asked = record.get("message").is_some_and(|asked| asked.as_str().is_some());
    history.is_some_and(|said| (is_asked || !said.is_empty()) && said.iter().all(|turn| role(turn).is_some()))
}

fn role(turn: &Node<'_>) -> Option<&'static str> {
    let role = turn.get("role")?.as_str()?.to_lowercase();
    ROLES.iter().find(|(theirs, _)| *theirs == role).map(|(_, ours)| *ours)
}

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (rules, history, asked) = (record.take("preamble"), record.list("chat_history"), record.take("message"));
    let answer = asked.as_ref().and_then(|_| record.take_any(&["response", "text"]));
    let native = ["id", "documents"].map(|name| (name, record.take(name)));
    let mut dialogue = Draft::of(record);
    native.into_iter().for_each(|(name, node)| dialogue.set(name, node));
    let turn = |role, said: Node<'a>| Turn::new(&said.range.clone(), role).content(Some(said)).node();
    dialogue.messages.extend(rules.map(|rules| turn("system", rules)));
    dialogue.messages.extend(history.into_iter().flat_map(message));
    dialogue.messages.extend(asked.map(|asked| turn("user", asked)));
    dialogue.messages.extend(answer.map(|answer| turn("assistant", answer)));
    Ok(vec![dialogue.node()])
}

fn message(turn: Node<'_>) -> Vec<Node<'_>> {
    let (range, role, mut turn) = (turn.range.clone(), role(&turn).unwrap_or_default(), Fields::of(turn));
    turn.take("role");
    let said = turn.take("message").into_iter().chain(turn.list("tool_calls")).chain(turn.list("tool_results"));
    blocks::messages(&range, role, said.collect(), &BLOCKS, blocks::aside(turn))
}
