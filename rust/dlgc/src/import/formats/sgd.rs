//! Schema-Guided Dialogue, and MultiWOZ 2.2, which has its shape: frames by service, calls inside the turn that reports
//! their results. The schema that lies beside says what can be called.

use super::super::draft::{Draft, Turn, call, parameters, tool};
use super::super::{Context, Format, When};
use crate::diagnostic::Diagnostic;
use crate::json::{self, Fields, Json, Node, object, string};

pub(super) const FORMAT: Format =
    Format { name: "sgd", when: When::Has(&["turns[].speaker", "turns[].utterance", "turns[].frames"]), import };

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (turns, id) = (record.list("turns"), record.take("dialogue_id"));
    let tools = tools(record.get("services"), context);
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.set_text("type", "task");
    dialogue.set("tools", tools);
    let (mut intent, mut slots) = (None, Vec::new());
    for turn in turns {
        let mut turn = Fields::of(turn);
        let range = turn.range.clone();
        if turn.text("speaker").as_deref() == Some("USER") {
            know(turn.get("frames"), &mut intent, &mut slots);
            dialogue.say(Turn::new(&range, "user").content(turn.take("utterance")).annotations(turn));
            continue;
        }
        let (mut calls, mut results) = (Vec::new(), Vec::new());
        for frame in turn.get("frames").and_then(Node::as_array).unwrap_or_default() {
            let (Some(asked), result) = (frame.get_some("service_call"), frame.get_some("service_results")) else {
                continue;
            };
            let id = format!("call_{}", dialogue.messages.len() + calls.len());
            let mut asked = Fields::of(asked.clone());
            let name = asked.take("method").unwrap_or_else(|| string(&range, ""));
            let empty = Node::new(range.clone(), Json::Object(Vec::new()));
            let arguments = asked.take("parameters").unwrap_or(empty);
            let said = result.map_or_else(|| "[]".to_owned(), json::dumps);
            let place = result.map_or(&range, |result| &result.range);
            let answer = Turn::new(place, "tool").with("name", Some(name.clone())).says(said);
            results.push(answer.with("tool_call_id", Some(string(place, id.clone()))));
            calls.push(call(&range, Some(id), name, arguments));
        }
        if !calls.is_empty() {
            dialogue.say(Turn::new(&range, "assistant").calls(calls).state(intent.clone(), slots.clone()));
            results.into_iter().for_each(|result| dialogue.say(result));
        }
        let message = Turn::new(&range, "assistant").content(turn.take("utterance"));
        dialogue.say(message.state(intent.clone(), slots.clone()).annotations(turn));
    }
    Ok(vec![dialogue.node()])
}

/// Takes up what a user's turn says is known: the intent, and of each slot the first way to say its value (all of them
/// stay in the annotations). Of several services the intent is that of the one whose intent the turn tells. A slot is
/// named `service-slot`, as MultiWOZ 2.2 does it itself.
fn know<'a>(frames: Option<&Node<'a>>, intent: &mut Option<Node<'a>>, slots: &mut Vec<(String, Node<'a>)>) {
    let frames = frames.and_then(Node::as_array).unwrap_or_default();
    let active = |frame: &Node<'a>| {
        let active = frame.get("state")?.get("active_intent")?;
        active.as_str().is_some_and(|name| name != "NONE").then(|| active.clone())
    };
    let tells = |frame: &&Node<'a>| {
        let acts = frame.get("actions").and_then(Node::as_array).unwrap_or_default();
        acts.iter().any(|act| act.get("act").and_then(Node::as_str) == Some("INFORM_INTENT"))
    };
    if frames.iter().any(|frame| frame.get("state").is_some()) {
        let told = frames.iter().filter(tells).find_map(active);
        *intent = told.or_else(|| frames.iter().rev().find_map(active));
    }
    for frame in frames {
        let service = frame.get("service").and_then(Node::as_str).unwrap_or_default();
        let Some(state) = frame.get("state") else { continue };
        let prefix = format!("{service}-");
        slots.retain(|(name, _)| !name.starts_with(&prefix));
        for member in state.get("slot_values").and_then(Node::as_object).unwrap_or_default() {
            let name = if member.key.starts_with(&prefix) {
                member.key.to_string()
            } else {
                format!("{prefix}{}", member.key)
            };
            let value = member.node.clone().into_elements().into_iter().next();
            slots.extend(value.map(|value| (name, value)));
        }
    }
}

/// The intents of the services, as functions.
fn tools<'a>(services: Option<&Node<'a>>, context: &Context<'_>) -> Option<Node<'a>> {
    let services = services?;
    let range = &services.range;
    let mut tools = Vec::new();
    for name in context.beside.names(|name| name.contains("schema") && name.ends_with(".json")) {
        let Some(schema) = context.beside.table(&name, "service_name") else { continue };
        for service in services.as_array()?.iter().filter_map(|service| schema.find(service.as_str()?)) {
            tools.extend(service.get("intents")?.as_array()?.iter().filter_map(|intent| function(intent, service)));
        }
    }
    (!tools.is_empty()).then(|| Node::new(range.clone(), Json::Array(tools)).into_owned_at(range))
}

fn function(intent: &Node<'static>, service: &Node<'static>) -> Option<Node<'static>> {
    let place = 0..0;
    let mut properties = Vec::new();
    let required = intent.get("required_slots")?.as_array()?;
    let optional = intent.get("optional_slots").and_then(Node::as_object).unwrap_or_default();
    let names = required.iter().filter_map(Node::as_str).chain(optional.iter().map(|member| &*member.key));
    for name in names {
        let named = |slot: &&Node<'static>| slot.get("name").and_then(Node::as_str) == Some(name);
        let slot = service.get("slots")?.as_array()?.iter().find(named)?;
        let mut property = vec![("type", string(&place, "string"))];
        property.extend(slot.get("description").map(|text| ("description", text.clone())));
        if slot.get("is_categorical").and_then(Node::as_bool) == Some(true) {
            property.extend(slot.get("possible_values").map(|values| ("enum", values.clone())));
        }
        properties.push((name.to_owned(), object(&place, property)));
    }
    let schema = parameters(&place, properties, required.to_vec());
    Some(tool(&place, intent.get("name")?.clone(), intent.get("description").cloned(), schema))
}
