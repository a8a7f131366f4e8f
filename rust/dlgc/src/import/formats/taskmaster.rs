//! Taskmaster: utterances of a user and an assistant. The third set has the calls that the assistant made before it answered
//! beside what was said, `apis`, with their responses.

use super::super::draft::{Draft, Turn, call, result_text};
use super::super::{Context, Format, When, speakers};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::{Fields, Json, Node, string};

pub(super) const FORMAT: Format = Format {
    name: "taskmaster",
    when: When::Has(&["conversation_id", "utterances[].speaker", "utterances[].text"]),
    import,
};

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (id, utterances) = (record.take("conversation_id"), record.list("utterances"));
    let names: Vec<_> =
        utterances.iter().map(|said| said.get("speaker").and_then(Node::as_str).unwrap_or("?").into()).collect();
    let roles = speakers::roles(&names, context.assistant, &Node::new(record.range.clone(), Json::Null))?;
    let place = record.range.start..record.range.start + 1;
    context.notes.extend(roles.assumed.map(|said| Diagnostic::new(Code::RolesAssumed, said).at(&place)));
    let mut dialogues = Vec::new();
    for roles in roles.each {
        let mut dialogue = Draft::of(record.clone());
        dialogue.set("id", id.clone());
        for (role, mut said) in roles.into_iter().zip(utterances.iter().cloned().map(Fields::of)) {
            let (range, apis) = (said.range.clone(), said.list("apis"));
            let _ = said.take("speaker");
            let text = Turn::new(&range, role).content(said.take("text")).annotations(said);
            let (before, after) = if role == "user" { (Some(text), None) } else { (None, Some(text)) };
            before.into_iter().for_each(|turn| dialogue.say(turn));
            let number = dialogue.messages.len();
            let (mut calls, mut results) = (Vec::new(), Vec::new());
            for mut api in apis.into_iter().map(Fields::of) {
                let id = format!("call_{number}_{}", calls.len());
                let name = api.take("name").unwrap_or_else(|| string(&range, ""));
                let arguments = api.take("args").unwrap_or_else(|| Node::new(range.clone(), Json::Object(Vec::new())));
                let response =
                    result_text(api.take("response").unwrap_or_else(|| Node::new(range.clone(), Json::Null)));
                let answer = Turn::new(&range, "tool").with("tool_call_id", Some(string(&range, id.clone())));
                results.push(answer.with("name", Some(name.clone())).content(Some(response)));
                calls.push(call(&range, Some(id), name, arguments));
            }
            if !calls.is_empty() {
                dialogue.say(Turn::new(&range, "assistant").calls(calls));
            }
            results.into_iter().chain(after).for_each(|turn| dialogue.say(turn));
        }
        dialogues.push(dialogue.node());
    }
    Ok(dialogues)
}
