//! Dialogues whose messages are plain strings, in turns: the user, then the assistant. Who speaks may stand before what is
//! said (`agent: Hello`, `["agent", "Hello"]`), or in a list of the same length beside (SODA's `speakers`).

use std::borrow::Cow;

use super::super::draft::{Draft, Turn};
use super::super::names::{self, take_id};
use super::super::speakers;
use super::super::{Context, Format, When};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::{Fields, Json, Node, string};

pub(super) const FORMAT: Format = Format { name: "strings", when: When::Is(recognises), import };

fn recognises(record: &Node<'_>) -> bool {
    is_list(record) || list(record).is_some()
}

fn is_list(node: &Node<'_>) -> bool {
    let list = node.as_array().unwrap_or_default();
    list.len() > 1 && list.iter().all(|said| said.as_str().is_some()) || !list.is_empty() && list.iter().all(is_pair)
}

fn is_pair(node: &Node<'_>) -> bool {
    node.as_array().is_some_and(|pair| pair.len() == 2 && pair.iter().all(|said| said.as_str().is_some()))
}

fn list<'n>(record: &'n Node<'_>) -> Option<&'n str> {
    names::lists(record).into_iter().find(|name| record.get(name).is_some_and(is_list))
}

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let range = record.range.clone();
    let (mut said, mut record) = match list(&record).map(str::to_owned) {
        // A record that is nothing but the list.
        None => (record.into_elements(), Fields::of(Node::new(range.clone(), Json::Null))),
        Some(name) => {
            let mut record = Fields::of(record);
            (record.list(&name), record)
        }
    };
    // Pairs are speakers and what they say (ABCD), or exchanges (XPersona).
    let speaks = |pair: &Node<'a>| pair.as_array()?.first()?.as_str().and_then(speakers::role_of);
    if said.iter().all(is_pair) {
        let by_name = said.iter().all(|pair| speaks(pair).is_some());
        let text = |pair: Node<'a>| match <[Node<'a>; 2]>::try_from(pair.into_elements()) {
            Ok([name, text]) if by_name => {
                vec![string(
                    &text.range.clone(),
                    format!("{}: {}", name.as_str().unwrap_or_default(), text.as_str().unwrap_or_default()),
                )]
            }
            Ok(exchange) => exchange.into(),
            Err(other) => other,
        };
        said = said.into_iter().flat_map(text).collect();
    }
    // What answers the last of them may stand beside the list.
    let answer = record.take_any(&["response", "reply", "answer"]).filter(|answer| answer.as_str().is_some());
    let is_answered = answer.is_some();
    said.extend(answer);
    let (id, mut note) = (take_id(&mut record), |message: String| {
        context.notes.push(Diagnostic::new(Code::RolesAssumed, message).at(&(range.start..range.start + 1)));
    });
    let beside = record.get("speakers").and_then(Node::as_array).filter(|names| names.len() == said.len());
    let before: Option<Vec<(&str, &str)>> = said.iter().map(|said| said.as_str()?.split_once(": ")).collect();
    let named: Option<Vec<Cow<'_, str>>> = match (beside, &before) {
        (Some(names), _) => names.iter().map(|name| Some(Cow::Owned(name.as_str()?.to_owned()))).collect(),
        (None, Some(turns)) => Some(turns.iter().map(|(name, _)| Cow::Owned((*name).to_owned())).collect()),
        (None, None) => None,
    };
    let roles = named.and_then(|names| Some((speakers::roles(&names, context.assistant, &said[0]).ok()?, names)));
    // Text that stands before a colon by chance is of many kinds, or of one.
    let roles = roles.filter(|(roles, _)| roles.each[0].contains(&"user") && roles.each[0].contains(&"assistant"));
    let is_before = beside.is_none() && roles.is_some();
    let said: Vec<Node<'a>> = match before.filter(|_| is_before) {
        Some(turns) => {
            let text = |(node, (_, text)): (&Node<'a>, &(&str, &str))| string(&node.range, (*text).to_owned());
            said.iter().zip(&turns).map(text).collect()
        }
        None => said,
    };
    let each = match roles {
        Some((roles, _)) => {
            note(
                roles.assumed.unwrap_or_else(|| "who speaks is told by the names in the text, or beside it".to_owned()),
            );
            roles.each
        }
        None => {
            // MetaLWOZ's bot always begins.
            let assistant = match is_answered {
                true => (said.len() - 1) % 2,
                false => usize::from(record.get("bot_id").is_none()),
            };
            let first = if assistant == 0 { "assistant" } else { "user" };
            note(format!("the messages name no speakers; the first is taken for the {first}"));
            vec![(0..said.len()).map(|index| if index % 2 == assistant { "assistant" } else { "user" }).collect()]
        }
    };
    let dialogue = |roles: &Vec<&'static str>| {
        let mut dialogue = Draft::of(record.clone());
        dialogue.set("id", id.clone());
        for (role, said) in roles.iter().zip(&said) {
            dialogue.say(Turn::new(&said.range.clone(), *role).content(Some(said.clone())));
        }
        dialogue.node()
    };
    Ok(each.iter().map(dialogue).collect())
}
