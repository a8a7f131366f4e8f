//! Berkeley Function-Calling Leaderboard: questions by turn, answers in `possible_answer/` beside.

use super::super::draft::{Draft, Turn, call};
use super::super::{Context, Format, When};
use super::python;
use crate::diagnostic::{Code, Diagnostic};
use crate::json::{Fields, Json, Member, Node, string};

pub(super) const FORMAT: Format = Format { name: "bfcl", when: When::Is(recognises), import };

fn recognises(record: &Node<'_>) -> bool {
    let first = record.get("question").and_then(Node::as_array).and_then(<[_]>::first);
    let has_tools = record.get("function").is_some() || record.get("involved_classes").is_some();
    has_tools && first.is_some_and(|turn| turn.as_array().is_some())
}

/// Where the functions of a class are described, in `multi_turn_func_doc/`.
const CLASSES: [(&str, &str); 8] = [
    ("GorillaFileSystem", "gorilla_file_system"),
    ("MathAPI", "math_api"),
    ("MessageAPI", "message_api"),
    ("TwitterAPI", "posting_api"),
    ("TicketAPI", "ticket_api"),
    ("TradingBot", "trading_bot"),
    ("TravelAPI", "travel_booking"),
    ("VehicleControlAPI", "vehicle_control"),
];

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let range = record.range.clone();
    if let Some(missed) = record.get("missed_function") {
        return Err(Diagnostic::new(Code::ToolsChange, "some tools appear only in the middle of the dialogue")
            .at(&missed.range));
    }
    let functions = match record.list("function") {
        functions if functions.is_empty() => of_classes(&record, context, &range),
        functions => functions,
    };
    let functions: Vec<Node<'a>> = functions.into_iter().map(json_schema).collect();
    let id = record.take("id");
    let answers = context.beside.table(&format!("possible_answer/{}", context.beside.file()), "id");
    let truth = answers.as_ref().and_then(|answers| answers.find(id.as_ref()?.as_str()?)?.get("ground_truth"));
    let turns = record.list("question");
    let is_by_turn = turns.len() > 1 || truth.and_then(|truth| truth.as_array()?.first()?.as_array()).is_some();
    let truths: Vec<Node<'a>> = match truth.map(|truth| truth.clone().into_owned_at(&range).into_elements()) {
        None => Vec::new(),
        Some(by_turn) if is_by_turn => by_turn,
        Some(calls) => vec![Node::new(range.clone(), Json::Array(calls))],
    };
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.set_text("type", "tool");
    let mut truths = truths.into_iter();
    for turn in turns {
        dialogue.messages.extend(turn.into_elements());
        let calls: Vec<Node<'a>> = truths
            .next()
            .map_or_else(Vec::new, Node::into_elements)
            .into_iter()
            .filter_map(|asked| answer(asked, &functions))
            .collect();
        if !calls.is_empty() {
            dialogue.say(Turn::new(&range, "assistant").calls(calls).with("expect", Some(string(&range, "call"))));
        }
    }
    dialogue.set("tools", Some(Node::new(range, Json::Array(functions))));
    Ok(vec![dialogue.node()])
}

/// The functions of the classes that a dialogue of several turns has, less those that it says are left out.
fn of_classes<'a>(record: &Fields<'a>, context: &Context<'_>, range: &std::ops::Range<usize>) -> Vec<Node<'a>> {
    let names = |field: &str| -> Vec<String> {
        let listed = record.get(field).and_then(Node::as_array).unwrap_or_default();
        listed.iter().filter_map(Node::as_str).map(str::to_owned).collect()
    };
    let left_out = names("excluded_function");
    let mut functions = Vec::new();
    for class in names("involved_classes") {
        let Some((_, file)) = CLASSES.iter().find(|(name, _)| *name == class) else { continue };
        let Some(table) = context.beside.table(&format!("multi_turn_func_doc/{file}.json"), "name") else { continue };
        let is_in = |function: &&Node<'static>| {
            !function.get("name").and_then(Node::as_str).is_some_and(|name| left_out.iter().any(|out| out == name))
        };
        functions.extend(table.iter().filter(is_in).map(|function| function.clone().into_owned_at(range)));
    }
    functions
}

/// A call as the answers have it: Python text, or a function with lists of values that are right, of which the first
/// is taken; an empty one says that the argument may be left out, unless the function requires it.
fn answer<'a>(asked: Node<'a>, functions: &[Node<'_>]) -> Option<Node<'a>> {
    let range = asked.range.clone();
    if let Some(text) = asked.as_str() {
        let parsed = python::call(text, functions)?;
        return Some(call(&range, None, string(&range, parsed.0), parsed.1.into_owned_at(&range)));
    }
    let Json::Object(members) = asked.value else { return None };
    let Member { key, node, .. } = members.into_iter().next()?;
    let is_named = |function: &&Node<'_>| function.get("name").and_then(Node::as_str) == Some(&*key);
    let required = functions.iter().find(is_named).and_then(|function| function.get("parameters")?.get("required"));
    let arguments = first_allowed(node, required.and_then(Node::as_array).unwrap_or_default());
    Some(call(&range, None, string(&range, key), arguments))
}

fn first_allowed<'a>(allowed: Node<'a>, required: &[Node<'_>]) -> Node<'a> {
    let range = allowed.range.clone();
    let Json::Object(members) = allowed.value else { return allowed };
    let mut picked = Vec::new();
    for member in members {
        let Member { key, key_range, node } = member;
        let Json::Array(values) = node.value else { continue };
        let is_required = required.iter().any(|name| name.as_str() == Some(&*key));
        let is_value = |value: &Node<'_>| value.as_str() != Some("");
        let mut values = values.into_iter().skip_while(|value| is_required && !is_value(value));
        let Some(value) = values.next().filter(is_value) else { continue };
        let value = match value.value {
            Json::Object(_) => first_allowed(value, &[]),
            Json::Array(inner) => {
                let inner = inner
                    .into_iter()
                    .map(|inner| if inner.as_object().is_some() { first_allowed(inner, &[]) } else { inner });
                Node::new(value.range, Json::Array(inner.collect()))
            }
            _ => value,
        };
        picked.push(Member { key, key_range, node: value });
    }
    Node::new(range, Json::Object(picked))
}

/// The types of the leaderboard are Python's; schemas that templates print have JSON Schema's.
fn json_schema(schema: Node<'_>) -> Node<'_> {
    let range = schema.range.clone();
    let value = match schema.value {
        Json::Object(members) => {
            let renamed = members.into_iter().filter_map(|mut member| {
                let name = match (&*member.key, member.node.as_str()) {
                    ("type", Some("dict")) => Some("object"),
                    ("type", Some("float")) => Some("number"),
                    ("type", Some("tuple")) => Some("array"),
                    ("type", Some("any")) => return None,
                    _ => None,
                };
                member.node = match name {
                    Some(name) => string(&member.node.range, name),
                    None => json_schema(member.node),
                };
                Some(member)
            });
            Json::Object(renamed.collect())
        }
        Json::Array(elements) => Json::Array(elements.into_iter().map(json_schema).collect()),
        value => value,
    };
    Node::new(range, value)
}
