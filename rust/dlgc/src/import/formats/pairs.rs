//! Preferences: a better and a worse answer to the same beginning (hh-rlhf's transcripts, prompts with two answers,
//! two lists of messages), or one answer with a verdict.
//!
//! What both sides begin with is the dialogue; `chosen` and `rejected`, or `completion`, hold the messages that follow.

use super::super::draft::{Draft, Turn};
use super::super::{Context, Format, Wanted, When};
use super::{messages, sharegpt, transcript};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::{self, Fields, Json, Node};

pub(super) const FORMAT: Format = Format { name: "preferences", when: When::Is(recognises), import };

fn recognises(record: &Node<'_>) -> bool {
    verdict(record).is_some()
}

/// The field that makes a record one of preferences.
fn verdict(record: &Node<'_>) -> Option<&'static str> {
    let is_pair = record.get_some("chosen").is_some() && record.get_some("rejected").is_some();
    let is_judged = record.get("label").and_then(Node::as_bool).is_some();
    if is_pair { Some("rejected") } else { is_judged.then_some("label") }
}

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let field = verdict(&record).expect("recognised by it");
    if context.wanted == Wanted::Dialogues {
        let node = record.get(field).unwrap_or(&record);
        let message = "preference data in a compilation for supervised fine-tuning";
        return Err(Diagnostic::new(Code::PreferenceRecord, message)
            .at(&node.range)
            .help("compile preference sets apart; here their rejected answers would be trained"));
    }
    let mut record = Fields::of(record);
    let mut beginning = beginning(&mut record)?;
    let mut answers = Vec::new();
    if field == "label" {
        let answer = match record.take("completion") {
            Some(answer) => said(answer)?,
            None => beginning.pop().into_iter().collect(),
        };
        let label = record.take("label");
        answers.push(("completion", answer));
        return Ok(vec![dialogue(record, beginning, answers, label)]);
    }
    let chosen = record.take("chosen").map_or_else(|| Ok(Vec::new()), said)?;
    let rejected = record.take("rejected").map_or_else(|| Ok(Vec::new()), said)?;
    let same = |(left, right): &(&Node<'a>, &Node<'a>)| json::dumps(left) == json::dumps(right);
    let shared = chosen.iter().zip(&rejected).take_while(same).count();
    // Both must be left with something to say.
    let shared = shared.min(chosen.len().saturating_sub(1)).min(rejected.len().saturating_sub(1));
    // Whole transcripts begin with what was asked; answers to a prompt may well be the same at first.
    let shared = if beginning.is_empty() || chosen.first().is_some_and(is_asked) { shared } else { 0 };
    if beginning.is_empty() {
        beginning.extend(chosen[..shared].iter().cloned());
    }
    answers.push(("chosen", chosen[shared..].to_vec()));
    answers.push(("rejected", rejected[shared..].to_vec()));
    Ok(vec![dialogue(record, beginning, answers, None)])
}

fn is_asked(message: &Node<'_>) -> bool {
    message.get("role").and_then(Node::as_str).is_some_and(|role| role != "assistant")
}

fn dialogue<'a>(
    record: Fields<'a>,
    beginning: Vec<Node<'a>>,
    answers: Vec<(&'static str, Vec<Node<'a>>)>,
    label: Option<Node<'a>>,
) -> Node<'a> {
    let mut record = record;
    let place = record.range.clone();
    let (id, group, tools) = (record.take("id"), record.take("group"), record.take("tools"));
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.set("group", group);
    dialogue.set("tools", tools);
    dialogue.messages = beginning;
    for (field, messages) in answers {
        dialogue.set(field, Some(Node::new(place.clone(), Json::Array(messages))));
    }
    dialogue.set("label", label);
    dialogue.node()
}

/// What stands before the answers.
fn beginning<'a>(record: &mut Fields<'a>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut beginning = Vec::new();
    if let Some(system) = record.take_any(&["system", "system_prompt"]).filter(|system| system.as_str() != Some("")) {
        beginning.push(Turn::new(&system.range.clone(), "system").content(Some(system)).node());
    }
    let asked = record.take_any(&["messages", "conversation", "conversations", "prompt", "question", "instruction"]);
    if let Some(asked) = asked {
        let asked = match asked.value {
            Json::String(_) if transcript::is_one(&asked) => transcript::messages(&asked)?,
            Json::String(_) => vec![Turn::new(&asked.range.clone(), "user").content(Some(asked)).node()],
            _ => said(asked)?,
        };
        beginning.extend(asked);
    }
    Ok(beginning)
}

/// Messages, however they are written: a list, one, a transcript, or the text of an answer.
pub(super) fn said(answer: Node<'_>) -> Result<Vec<Node<'_>>, Diagnostic> {
    let list = match answer.value {
        Json::String(_) if transcript::is_one(&answer) => return transcript::messages(&answer),
        Json::String(_) => return Ok(vec![Turn::new(&answer.range.clone(), "assistant").content(Some(answer)).node()]),
        Json::Object(_) => Node::new(answer.range.clone(), Json::Array(vec![answer])),
        _ => answer,
    };
    let is_sharegpt = list.as_array().and_then(<[_]>::first).is_some_and(|first| first.get("from").is_some());
    let mut messages = if is_sharegpt { sharegpt::messages(list)? } else { list }.into_elements();
    for message in &mut messages {
        messages::modernise(message, &mut None)?;
    }
    Ok(messages)
}
