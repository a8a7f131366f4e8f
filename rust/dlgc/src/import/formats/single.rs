//! One question and one answer in columns, with what may stand around them: rules, context, earlier exchanges.

use super::super::draft::{Draft, Turn, unwrapped};
use super::super::names;
use super::super::{Context, Format, When};
use super::pairs::said;
use super::transcript;
use crate::diagnostic::{Code, Diagnostic};
use crate::json::{Fields, Json, Node, string};

pub(super) const ALPACA: Format = of("alpaca", |r| has(r, "instruction", "output"));
pub(super) const DOLLY: Format = of("dolly", |r| has(r, "instruction", "response"));
pub(super) const COMPLETION: Format = of("prompt-completion", |r| has(r, "prompt", "completion"));
pub(super) const RESPONSE: Format = of("prompt-response", |r| has(r, "prompt", "response"));
pub(super) const ORCA: Format = of("orca", |r| has(r, "question", "response"));
pub(super) const QUERY: Format = of("query-response", |r| has(r, "query", "response"));
pub(super) const QUESTION: Format = of("question-answer", |r| has(r, "question", "answer"));
pub(super) const FIREFLY: Format = of("firefly", |r| has(r, "input", "target"));
/// Other pairs of names; those that were taken are said.
pub(super) const COLUMNS: Format =
    Format { name: "columns", when: When::Is(|r| columns(r).is_some()), import: guessed };
/// A query, tools, and the calls that answer it.
pub(super) const XLAM: Format = Format { name: "xlam", when: When::Has(&["query", "tools", "answers"]), import: calls };

/// Names of what is asked and of what answers it, in the order in which they are looked for.
const ASKED: [&str; 14] = [
    "instruction",
    "prompt",
    "question",
    "query",
    "inputs",
    "inputtext",
    "problem",
    "request",
    "input",
    "user",
    "human",
    "q",
    "问题",
    "context",
];
const ANSWER: [&str; 17] = [
    "output",
    "completion",
    "response",
    "solution", // where there is an `answer` too, that is its last line
    "answer",
    "targets",
    "target",
    "outputtext",
    "reply",
    "assistant",
    "generation",
    "bot",
    "gpt",
    "a",
    "回答",
    "答案",
    "回复",
];

const fn of(name: &'static str, is: fn(&Node<'_>) -> bool) -> Format {
    Format { name, when: When::Is(is), import }
}

/// Whether question and answer are there, as text or as messages.
fn has(record: &Node<'_>, asked: &str, answer: &str) -> bool {
    says(record, asked) && says(record, answer)
}

fn says(record: &Node<'_>, key: &str) -> bool {
    record.get(key).is_some_and(|value| {
        let messages = value.as_array().and_then(<[_]>::first);
        value.as_str().is_some() || messages.is_some_and(|first| first.get("role").is_some())
    })
}

/// The columns of a question and its answer, by their own names.
fn columns<'n>(record: &'n Node<'_>) -> Option<(&'n str, &'n str)> {
    let find = |known: &[&str]| names::named(record, known).into_iter().find(|key| says(record, key));
    Some((find(&ASKED)?, find(&ANSWER)?))
}

fn guessed<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let (asked, answer) = columns(&record).expect("recognised by it");
    let message = format!("read `{asked}` as what is asked and `{answer}` as the answer, by their names");
    context.notes.push(
        Diagnostic::new(Code::RolesAssumed, message)
            .at(&(record.range.start..record.range.start + 1))
            .help("say so in `dlgc.toml`: `[formats.NAME]` with `turns`"),
    );
    import(record, context)
}

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let (asked, answer) =
        columns(&record).map(|(asked, answer)| (asked.to_owned(), answer.to_owned())).unwrap_or_default();
    let mut record = Fields::of(record);
    let (id, tools, history) = (record.take("id"), record.take("tools"), record.list("history"));
    let system = record
        .take_any(&["system", "system_prompt", "system_message"])
        .filter(|system| system.as_str().is_some_and(|text| !text.is_empty()));
    let (asked, answer) = (record.take(&asked), record.take(&answer));
    let reasoning = record
        .take_any(&["reasoning_content", "reasoning", "thinking"])
        .filter(|reasoning| reasoning.as_str().is_some_and(|text| !text.is_empty()));
    let context = record.text("input").or_else(|| record.text("context")).filter(|text| !text.is_empty());
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.set("tools", tools);
    dialogue.says("system", system);
    for exchange in history {
        if exchange.as_object().is_some() {
            dialogue.messages.extend(said(exchange)?);
            continue;
        }
        for (index, said) in exchange.into_elements().into_iter().enumerate() {
            let role = if index % 2 == 0 { "user" } else { "assistant" };
            dialogue.says(role, Some(said));
        }
    }
    if let Some(asked) = asked {
        let range = asked.range.clone();
        match (asked.value, context) {
            // A dialogue in a string, up to where it is to be answered.
            (Json::String(asked), context) if transcript::is_question(&asked) => {
                dialogue.messages.extend(transcript::messages(&string(&range, asked))?);
                let open =
                    dialogue.messages.last().is_some_and(|last| last.get("content").and_then(Node::as_str) == Some(""));
                dialogue.messages.truncate(dialogue.messages.len() - usize::from(open));
                dialogue.messages.extend(context.map(|context| Turn::new(&range, "user").says(context).node()));
            }
            (Json::String(asked), None) => dialogue.say(Turn::new(&range, "user").says(asked)),
            (Json::String(asked), Some(context)) if asked.is_empty() => {
                dialogue.say(Turn::new(&range, "user").says(context));
            }
            (Json::String(asked), Some(context)) => {
                dialogue.say(Turn::new(&range, "user").says(format!("{asked}\n{context}")));
            }
            (messages, _) => dialogue.messages.extend(said(Node::new(range, messages))?),
        }
    }
    match (answer, reasoning) {
        (Some(answer), Some(reasoning)) if answer.as_str().is_some() => {
            let turn = Turn::new(&answer.range.clone(), "assistant").with("reasoning_content", Some(reasoning));
            dialogue.say(turn.content(Some(answer)));
        }
        (Some(answer), _) => dialogue.messages.extend(said(answer)?),
        (None, _) => {}
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
    dialogue.says("user", query);
    if let Some(answers) = answers {
        let range = answers.range.clone();
        let expected = string(&range, "call");
        dialogue.say(
            Turn::new(&range, "assistant").calls(unwrapped(answers).into_elements()).with("expect", Some(expected)),
        );
    }
    Ok(vec![dialogue.node()])
}
