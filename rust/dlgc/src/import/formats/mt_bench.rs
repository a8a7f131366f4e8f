//! MT-Bench: questions of two turns; answers name their question, which lies beside in `question.jsonl`.

use super::super::draft::Draft;
use super::super::{Context, Format, When};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::{Fields, Json, Node, string};

pub(super) const FORMAT: Format = Format { name: "mt-bench", when: When::Is(recognises), import };

fn recognises(record: &Node<'_>) -> bool {
    let turns = |node: &Node<'_>| {
        node.get("turns").and_then(Node::as_array).is_some_and(|turns| turns.iter().all(|turn| turn.as_str().is_some()))
    };
    let first = record.get("choices").and_then(Node::as_array).and_then(<[_]>::first);
    record.get("question_id").is_some() && (turns(record) || first.is_some_and(turns))
}

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let range = record.range.clone();
    let id = match record.get("question_id").map(|id| &id.value) {
        Some(Json::Number(id) | Json::String(id)) => id.to_string(),
        _ => String::new(),
    };
    let choice = record.list("choices").into_iter().next();
    let (questions, answers, about) = match choice {
        None => (record.list("turns"), Vec::new(), None),
        Some(choice) => {
            let table = context.beside.table("question.jsonl", "question_id");
            let question = table.as_ref().and_then(|table| table.find(&id)).cloned();
            let Some(question) = question else {
                let message = format!("the answers to question {id} lie here, the question does not");
                return Err(Diagnostic::new(Code::UnknownFormat, message)
                    .at(&range)
                    .help("put `question.jsonl` beside the file"));
            };
            let mut question = Fields::of(question.into_owned_at(&range));
            let _ = question.take("question_id");
            (question.list("turns"), Fields::of(choice).list("turns"), Some(question.into_node()))
        }
    };
    let mut dialogue = Draft::of(record);
    dialogue.set("id", Some(string(&range, id)));
    dialogue.set("metadata", about);
    let mut answers = answers.into_iter();
    for question in questions {
        dialogue.says("user", Some(question));
        dialogue.says("assistant", answers.next());
    }
    Ok(vec![dialogue.node()])
}
