//! Preferences: a better and a worse answer to the same beginning, several answers of which one is best, or one answer with
//! a verdict.
//!
//! What both sides begin with is the dialogue; `chosen` and `rejected`, or `completion`, hold the messages that follow.
//! How sets say which is better is in `verdicts`, what stands before the answers in `asked`.

use std::ops::Range;

use super::super::draft::{Draft, Turn, plain};
use super::super::{Context, Format, Wanted, When, preference_record};
use super::asked::{self, Native, role, says_same};
use super::verdicts::{self, Ranked, Verdict};
use super::{messages, sharegpt, transcript};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::{self, Fields, Json, Member, Node, string};

pub(super) const FORMAT: Format =
    Format { name: "preferences", when: When::Is(|record| verdicts::of(record).is_some()), import };

/// The messages of an answer, or of a whole dialogue that ends with it.
type Answer<'a> = Vec<Node<'a>>;

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let verdict = verdicts::of(&record).expect("recognised by it");
    let place = record.get(verdict.field()).unwrap_or(&record).range.clone();
    if context.wanted == Wanted::Dialogues {
        return Err(preference_record().at(&place));
    }
    let compared = match &verdict {
        Verdict::Compared(compared) => compared.sides(&record),
        _ => None,
    };
    let mut record = Fields::of(record);
    asked::unfold(&mut record);
    let native = asked::native(&mut record);
    let pairs = match verdict {
        Verdict::Sides(better, worse) => two(&mut record, better, worse)?,
        Verdict::Worse(worse) => {
            let whole = if worse == "rejected_messages" { record.take("messages") } else { None };
            let better = whole.map_or_else(|| given(&mut record), said)?;
            let worse = record.take(worse).map_or_else(|| Ok(Vec::new()), several)?;
            worse.into_iter().map(|worse| [better.clone(), worse]).collect()
        }
        Verdict::Compared(_) => {
            // Where neither is better there is no pair.
            let Some((better, worse)) = compared else { return Ok(Vec::new()) };
            two(&mut record, better, worse)?
        }
        Verdict::Ranked(ranked) => best_and_worse(&mut record, ranked),
        Verdict::Judged(field) => return Ok(vec![judged(record, native, field)?]),
        Verdict::Unpaired(_) => {
            let message = "preference data of a kind of which no pairs are made";
            return Err(Diagnostic::new(Code::PreferenceRecord, message).at(&place));
        }
    };
    let count = pairs.len();
    let dialogue = |(index, mut answers): (usize, [Answer<'a>; 2])| {
        let mut record = record.clone();
        let messages = parted(&mut record, &mut answers)?;
        let [chosen, rejected] = answers;
        let mut draft = draft(record, native.clone(), messages, (count > 1).then_some(index + 1));
        say(&mut draft, "chosen", chosen, &place);
        say(&mut draft, "rejected", rejected, &place);
        Ok(draft.node())
    };
    pairs.into_iter().enumerate().map(dialogue).collect()
}

fn say<'a>(draft: &mut Draft<'a>, field: &'static str, answer: Answer<'a>, place: &Range<usize>) {
    draft.set(field, Some(Node::new(place.clone(), Json::Array(answer))));
}

/// One answer that is good or bad.
fn judged<'a>(mut record: Fields<'a>, native: Native<'a>, field: &str) -> Result<Node<'a>, Diagnostic> {
    let label = record.take(field).expect("recognised by it");
    let place = label.range.clone();
    let Some(is_good) = verdicts::truth(&label) else {
        return Err(Diagnostic::new(Code::WrongType, format!("`{field}` must be true or false")).at(&place));
    };
    let answer = given(&mut record)?;
    let messages = asked::before(&mut record)?;
    let mut draft = draft(record, native, messages, None);
    say(&mut draft, "completion", answer, &place);
    draft.set("label", Some(Node::new(place, Json::Bool(is_good))));
    Ok(draft.node())
}

/// A dialogue of which the answers are still to be said; `number` is its number where several come of a record.
fn draft<'a>(mut record: Fields<'a>, native: Native<'a>, messages: Vec<Node<'a>>, number: Option<usize>) -> Draft<'a> {
    let (id, group, tools) = (record.take("id").map(plain), record.take("group"), record.take("tools"));
    let mut draft = Draft::of(record);
    draft.messages = messages;
    match (&id, number) {
        (Some(Node { value: Json::String(name), range }), Some(number)) => {
            draft.set("id", Some(string(range, format!("{name}#{number}"))));
            draft.set("group", group.or_else(|| id.clone()));
        }
        _ => {
            draft.set("id", id);
            draft.set("group", group);
        }
    }
    draft.set("tools", tools);
    native.into_iter().for_each(|(field, node)| draft.set(field, Some(node)));
    draft
}

/// Takes a better and a worse answer, or several worse ones, out of their columns.
fn two<'a>(record: &mut Fields<'a>, better: &str, worse: &str) -> Result<Vec<[Answer<'a>; 2]>, Diagnostic> {
    let (Some(better), Some(worse)) = (record.take(better), record.take(worse)) else { return Ok(Vec::new()) };
    // Transcripts begin with what was asked; an answer that looks like one does not.
    let is_transcript = |side: &Node<'_>| transcript::is_one(side) && asked::is_told_by(record, side);
    let better = if is_transcript(&better) { transcript::messages(&better)? } else { answer(better)? };
    let worse = if is_transcript(&worse) { vec![transcript::messages(&worse)?] } else { several(worse)? };
    Ok(worse.into_iter().map(|worse| [better.clone(), worse]).collect())
}

/// Answers that stand in a list, or one.
fn several(worse: Node<'_>) -> Result<Vec<Answer<'_>>, Diagnostic> {
    let is_text = |answer: &Node<'_>| answer.as_str().is_some();
    match worse.value {
        Json::Array(list) if !list.is_empty() && list.iter().all(is_text) => list.into_iter().map(answer).collect(),
        value => Ok(vec![answer(Node::new(worse.range, value))?]),
    }
}

fn answer(answer: Node<'_>) -> Result<Answer<'_>, Diagnostic> {
    match answer.value {
        Json::String(_) => Ok(vec![Turn::new(&answer.range.clone(), "assistant").content(Some(answer)).node()]),
        _ => said(answer),
    }
}

/// Pairs of the best answer of a list and each that is worse.
fn best_and_worse<'a>(record: &mut Fields<'a>, ranked: &Ranked) -> Vec<[Answer<'a>; 2]> {
    let mut answers: Vec<(f64, Node<'a>)> =
        record.list(ranked.list).into_iter().map(|answer| (ranked.worth(&answer), answer)).collect();
    answers.retain(|(worth, _)| !worth.is_nan());
    answers.sort_by(|left, right| right.0.total_cmp(&left.0));
    let message = |answer: &Node<'a>| {
        let mut fields = Fields::of(answer.clone());
        let text = fields.take(ranked.text);
        vec![Turn::new(&answer.range, "assistant").content(text).annotations(fields).node()]
    };
    let Some(((most, best), others)) = answers.split_first() else { return Vec::new() };
    let worse = others.iter().filter(|(worth, _)| worth < most);
    worse.map(|(_, worse)| [message(best), message(worse)]).collect()
}

/// Takes the one answer out of a record: from its column, or from the end of its messages.
fn given<'a>(record: &mut Fields<'a>) -> Result<Answer<'a>, Diagnostic> {
    let is_list = |field: &&str| record.get(field).is_some_and(|list| list.as_array().is_some());
    let listed = ["messages", "conversation", "conversations"].into_iter().find(is_list);
    let columns = ["completion", "response", "output", "answer"];
    if let Some(column) = record.take_any(if listed.is_some() { &columns[..1] } else { &columns }) {
        return answer(column);
    }
    let Some((field, list)) = listed.and_then(|field| Some((field, record.take(field)?))) else {
        return Ok(Vec::new());
    };
    let range = list.range.clone();
    let mut asked = said(list)?;
    let answer = asked.split_off(end_of_asked(&asked));
    record.members.push(Member {
        key: field.into(),
        key_range: range.clone(),
        node: Node::new(range, Json::Array(asked)),
    });
    Ok(answer)
}

/// Takes what both answers begin with, and what stands before it.
fn parted<'a>(record: &mut Fields<'a>, answers: &mut [Answer<'a>; 2]) -> Result<Vec<Node<'a>>, Diagnostic> {
    let [better, worse] = &*answers;
    let is_whole = |answer: &Answer<'_>| answer.first().and_then(role).is_some_and(|role| role != "assistant");
    let (whole, shared) = match (is_whole(better), is_whole(worse)) {
        (true, false) => (0..1, end_of_asked(better)),
        (false, true) => (1..2, end_of_asked(worse)),
        // Answers to a question may well be the same at first.
        (false, false) if asked::is_asked(record) => {
            let mut messages = asked::before(record)?;
            let asked = messages.len().saturating_sub(better.len());
            if asked > 0 && messages[asked..].iter().zip(better).all(|both| is_same(&both)) {
                messages.truncate(asked);
            }
            return Ok(messages);
        }
        _ => {
            // Both must be left with something to say.
            let longest = better.len().min(worse.len()).saturating_sub(1);
            (0..2, better.iter().zip(worse).take(longest).take_while(is_same).count())
        }
    };
    let mut messages = asked::beside(record, &answers[whole.start])?;
    messages.extend_from_slice(&answers[whole.start][..shared]);
    for answer in &mut answers[whole] {
        answer.drain(..shared);
    }
    Ok(messages)
}

/// Whether two messages are the same but for blanks in what they say.
fn is_same((left, right): &(&Node<'_>, &Node<'_>)) -> bool {
    let rest = |message: &Node<'_>| {
        let mut fields = Fields::of(message.clone());
        fields.members.retain(|member| member.key != "content");
        json::dumps(&fields.into_node())
    };
    says_same(left, right) && rest(left) == rest(right)
}

/// Where the answer begins: behind the last message that is not the assistant's.
fn end_of_asked(dialogue: &[Node<'_>]) -> usize {
    dialogue.iter().rposition(|message| role(message) != Some("assistant")).map_or(0, |last| last + 1)
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
