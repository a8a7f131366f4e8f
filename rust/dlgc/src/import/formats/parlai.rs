//! ParlAI's task-oriented JSON: rounds of four utterances whose role stands before the text, calls as `key = value ;`.

use super::super::draft::{Draft, Turn, call, named, parameters, tool};
use super::super::{Context, Format, When};
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Json, Node, string};

pub(super) const FORMAT: Format = Format { name: "parlai", when: When::Is(recognises), import };

/// The role stands before the text in capitals; ParlAI's other dialogues have it in `id` alone.
fn recognises(record: &Node<'_>) -> bool {
    let first = record.get("dialog").and_then(Node::as_array).and_then(|rounds| rounds.first()?.as_array()?.first());
    let text = first.and_then(|first| first.get("text")?.as_str()).unwrap_or_default();
    ["APIS: ", "USER: ", "GOAL: ", "SYSTEM: "].iter().any(|role| text.starts_with(role))
}

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let rounds = record.list("dialog");
    let mut dialogue = Draft::of(record);
    let mut tools: Vec<Node<'a>> = Vec::new();
    let mut called = false;
    for mut utterance in rounds.into_iter().flat_map(Node::into_elements).map(Fields::of) {
        let range = utterance.range.clone();
        let Some(text) = utterance.text("text").map(std::borrow::Cow::into_owned) else { continue };
        let (role, said) = text.split_once(": ").unwrap_or((&text, ""));
        let is_result = role == "APIRESP" && std::mem::take(&mut called);
        if said == "[DONE]" || said.trim().is_empty() && !is_result {
            continue; // a round without a call has its places for one all the same
        }
        match role {
            "USER" => dialogue.say(Turn::new(&range, "user").says(said.to_owned())),
            "SYSTEM" => dialogue.say(Turn::new(&range, "assistant").says(said.to_owned())),
            "APIRESP" => dialogue.say(Turn::new(&range, "tool").says(said.to_owned())),
            "GOAL" => dialogue.set_text("goal", said.to_owned()),
            "APIS" => tools.extend(said.split(" | ").filter_map(|said| function(said, &range))),
            "APICALL" => {
                called = true;
                let mut arguments = settings(said);
                let name = arguments.iter().position(|(key, _)| key == "api_name").map(|at| arguments.remove(at).1);
                let name = string(&range, name.unwrap_or_default());
                let arguments = arguments.into_iter().map(|(key, value)| (key, string(&range, value))).collect();
                let asked = call(&range, None, name, named(&range, arguments));
                dialogue.say(Turn::new(&range, "assistant").calls(vec![asked]));
            }
            _ => dialogue.say(Turn::new(&range, role.to_lowercase()).says(said.to_owned())),
        }
    }
    dialogue.set_text("type", "task");
    let place = dialogue.messages.first().map_or(0..0, |message| message.range.clone());
    dialogue.set("tools", (!tools.is_empty()).then(|| Node::new(place, Json::Array(tools))));
    Ok(vec![dialogue.node()])
}

/// `key = value ; key = value`
fn settings(text: &str) -> Vec<(String, String)> {
    let pair = |part: &str| part.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    text.split(" ; ").filter_map(pair).collect()
}

/// `api_name = X ; optArg = a ; reqArg = b, c`
fn function<'a>(said: &str, range: &std::ops::Range<usize>) -> Option<Node<'a>> {
    let settings = settings(said);
    let of = |key: &str| settings.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value);
    let list = |key: &str| -> Vec<String> {
        of(key).split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
    };
    let property = |name: String| (name, crate::json::object(range, vec![("type", string(range, "string"))]));
    let required = list("reqArg").into_iter().map(|name| string(range, name)).collect();
    let properties = list("reqArg").into_iter().chain(list("optArg")).map(property).collect();
    let name = of("api_name");
    (!name.is_empty())
        .then(|| tool(range, string(range, name.to_owned()), None, parameters(range, properties, required)))
}
