//! One question and one answer in columns, with what may stand around them: rules, context, earlier exchanges.

use super::super::draft::{Draft, Turn, unwrapped};
use super::super::{Context, Format, When};
use super::pairs::said;
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Json, Node, string};

pub(super) const ALPACA: Format =
    Format { name: "alpaca", when: When::Is(|r| has(r, "instruction", "output")), import };
pub(super) const DOLLY: Format =
    Format { name: "dolly", when: When::Is(|r| has(r, "instruction", "response")), import };
pub(super) const COMPLETION: Format =
    Format { name: "prompt-completion", when: When::Is(|r| has(r, "prompt", "completion")), import };
pub(super) const RESPONSE: Format =
    Format { name: "prompt-response", when: When::Is(|r| has(r, "prompt", "response")), import };
pub(super) const ORCA: Format = Format { name: "orca", when: When::Is(|r| has(r, "question", "response")), import };
pub(super) const QUESTION: Format =
    Format { name: "question-answer", when: When::Is(|r| has(r, "question", "answer")), import };
pub(super) const FIREFLY: Format = Format { name: "firefly", when: When::Is(|r| has(r, "input", "target")), import };
/// A query, tools, and the calls that answer it.
pub(super) const XLAM: Format = Format { name: "xlam", when: When::Has(&["query", "tools", "answers"]), import: calls };

/// Whether question and answer are there, as text or as messages.
fn has(record: &Node<'_>, asked: &str, answer: &str) -> bool {
    let says = |key: &str| {
        record.get(key).is_some_and(|value| {
            let messages = value.as_array().and_then(<[_]>::first);
            value.as_str().is_some() || messages.is_some_and(|first| first.get("role").is_some())
        })
    };
    says(asked) && says(answer)
}

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (id, tools, history) = (record.take("id"), record.take("tools"), record.list("history"));
    let system = record
        .take_any(&["system", "system_prompt"])
        .filter(|system| system.as_str().is_some_and(|text| !text.is_empty()));
    let answer = record.take_any(&["output", "completion", "response", "answer", "target"]);
    let asked = record.take_any(&["instruction", "prompt", "question", "input"]);
    let context = record.text("input").or_else(|| record.text("context")).filter(|text| !text.is_empty());
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.set("tools", tools);
    if let Some(system) = system {
        dialogue.say(Turn::new(&system.range.clone(), "system").content(Some(system)));
    }
    for exchange in history {
        for (index, said) in exchange.into_elements().into_iter().enumerate() {
            let role = if index % 2 == 0 { "user" } else { "assistant" };
            dialogue.say(Turn::new(&said.range.clone(), role).content(Some(said)));
        }
    }
    if let Some(asked) = asked {
        let range = asked.range.clone();
        match (asked.value, context) {
            (Json::String(asked), None) => dialogue.say(Turn::new(&range, "user").says(asked)),
            (Json::String(asked), Some(context)) => {
                dialogue.say(Turn::new(&range, "user").says(format!("{asked}\n{context}")));
            }
            (messages, _) => dialogue.messages.extend(said(Node::new(range, messages))?),
        }
    }
    if let Some(answer) = answer {
        dialogue.messages.extend(said(answer)?);
    }
    Ok(vec![dialogue.node()])
}

fn calls<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (id, tools, query, answers) =
        (record.take("id"), record.take("tools"), record.take("query"), record.take("answers"));
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.set("tools", tools);
    if let Some(query) = query {
        dialogue.say(Turn::new(&query.range.clone(), "user").content(Some(query)));
    }
    if let Some(answers) = answers {
        let range = answers.range.clone();
        let expected = string(&range, "call");
        dialogue.say(
            Turn::new(&range, "assistant").calls(unwrapped(answers).into_elements()).with("expect", Some(expected)),
        );
    }
    Ok(vec![dialogue.node()])
}
