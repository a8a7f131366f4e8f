//! The native shape and its relatives: a list of messages with `role` and `content`.
//!
//! OpenAI's `messages` is the native shape under its other name, and sets that put roles into `conversations` differ in
//! that name only. Trajectories (tau-bench) call the list `traj`. OpenAI's older `function_call` and role `function`, and
//! LLaMA-Factory's parts with a `value`, become calls, results and text.

use super::super::draft::{Turn, call, unwrapped};
use super::super::{Context, Format, When, embedded, speakers};
use crate::diagnostic::Diagnostic;
use crate::dialogue::Role;
use crate::json::{Fields, Json, Member, Node, string};

pub(super) const FORMAT: Format =
    Format { name: "messages", when: When::Is(|record| list_name(record).is_some()), import };
pub(super) const TRAJECTORY: Format = Format { name: "trajectory", when: When::Is(is_trajectory), import: trajectory };
pub(super) const LEGACY: Format = Format { name: "messages-legacy", when: When::Is(is_legacy), import: legacy };

/// Roles under the names that other sets have for them: `human`, `bot`, `User`.
pub(super) const ROLES: Format = Format { name: "messages-roles", when: When::Is(has_other_roles), import: roles };
/// A list that ends with what is asked, and the answer beside it.
pub(super) const ANSWER: Format = Format { name: "messages-answer", when: When::Is(has_answer), import: answer };

/// Names of the list, the native one first.
pub(super) const LISTS: [&str; 3] = ["conversation", "messages", "conversations"];

pub(super) fn list_name(record: &Node<'_>) -> Option<&'static str> {
    LISTS.into_iter().find(|name| match record.get(name).map(|list| &list.value) {
        Some(Json::Array(messages)) => match messages.first() {
            Some(first) => first.get("role").is_some(),
            None => true,
        },
        Some(Json::Null) => false,
        // A list that stands in text is opened first.
        Some(Json::String(text)) if text.trim_start().starts_with("[{") => false,
        // A list of the wrong type is the native shape with a mistake, which validation explains.
        Some(_) => matches!(*name, "conversation" | "messages"),
        None => false,
    })
}

/// The messages, where they are a list.
pub(super) fn list<'n, 'a>(record: &'n Node<'a>) -> Option<&'n [Node<'a>]> {
    record.get(list_name(record)?)?.as_array()
}

/// Whether a message of a record is of a kind.
pub(super) fn any(record: &Node<'_>, is_one: fn(&Node<'_>) -> bool) -> bool {
    list(record).is_some_and(|list| list.iter().any(is_one))
}

/// A record whose messages are, each, what `change` makes of them.
pub(super) fn each<'a>(record: Node<'a>, change: fn(Node<'a>) -> Vec<Node<'a>>) -> Node<'a> {
    let mut record = Fields::of(record);
    for member in record.members.iter_mut().filter(|member| LISTS.contains(&&*member.key)) {
        if let Json::Array(list) = &mut member.node.value {
            *list = std::mem::take(list).into_iter().flat_map(change).collect();
        }
    }
    record.into_node()
}

fn import<'a>(mut record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    rename(&mut record, "conversations");
    Ok(vec![record])
}

fn is_trajectory(record: &Node<'_>) -> bool {
    let steps = record.get("traj").and_then(Node::as_array);
    steps.is_some_and(|steps| steps.first().is_none_or(|first| first.get("role").is_some()))
}

fn rename(record: &mut Node<'_>, from: &str) {
    let Json::Object(members) = &mut record.value else { return };
    if !members.iter().any(|member| LISTS[..2].contains(&&*member.key) && !member.node.is_null()) {
        members.iter_mut().filter(|member| member.key == from).for_each(|member| member.key = "messages".into());
    }
}

fn list_mut<'n, 'a>(record: &'n mut Node<'a>) -> Option<&'n mut Vec<Node<'a>>> {
    let Json::Object(members) = &mut record.value else { return None };
    let member = members.iter_mut().find(|member| LISTS.contains(&&*member.key) && !member.node.is_null())?;
    match &mut member.node.value {
        Json::Array(messages) => Some(messages),
        _ => None,
    }
}

fn has_other_roles(record: &Node<'_>) -> bool {
    let roles = || list(record).unwrap_or_default().iter().map(|message| message.get("role").and_then(Node::as_str));
    let is_native = |name: &str| Role::ALL.iter().any(|role| role.name() == name);
    let is_common = |name: &str| [Role::User, Role::Assistant].iter().any(|role| role.name() == name);
    // Beside a native `user` or `assistant` another name is a mistake.
    !roles().flatten().any(is_common)
        && roles().flatten().any(|role| !is_native(role) && role != "function")
        && roles().all(|role| role.is_some_and(|role| speakers::role_of(role).is_some()))
}

fn roles<'a>(mut record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    rename(&mut record, "conversations");
    for message in list_mut(&mut record).into_iter().flatten() {
        modernise(message, &mut None)?;
        let Json::Object(members) = &mut message.value else { continue };
        for member in members.iter_mut().filter(|member| member.key == "role") {
            let role = member.node.as_str().and_then(speakers::role_of).unwrap_or_default();
            member.node = string(&member.node.range, role);
        }
    }
    Ok(vec![record])
}

const ANSWERS: [&str; 3] = ["response", "answer", "completion"];

fn has_answer(record: &Node<'_>) -> bool {
    let last = list(record).and_then(<[_]>::last).and_then(|last| last.get("role")?.as_str());
    last == Some("user")
        && record.get("label").is_none()
        && ANSWERS.iter().any(|key| record.get(key).is_some_and(|answer| answer.as_str().is_some()))
}

fn answer<'a>(mut record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let Json::Object(members) = &mut record.value else { unreachable!("recognised by a member") };
    let at = members.iter().position(|member| ANSWERS.contains(&&*member.key) && member.node.as_str().is_some());
    let said = at.map(|at| members.remove(at).node);
    if let (Some(said), Some(messages)) = (said, list_mut(&mut record)) {
        messages.push(Turn::new(&said.range.clone(), "assistant").content(Some(said)).node());
    }
    legacy(record, context)
}

fn is_legacy(record: &Node<'_>) -> bool {
    any(record, is_old)
}

/// Whether a message is said in an older way, or another.
fn is_old(message: &Node<'_>) -> bool {
    message.get_some("function_call").is_some()
        || message.get("role").and_then(Node::as_str) == Some("function")
        || message.get("content").is_none() && message.get("value").is_some_and(|said| said.as_str().is_some())
        || message.get("content").and_then(Node::as_array).is_some_and(|parts| parts.iter().any(is_foreign_part))
}

pub(super) fn legacy<'a>(mut record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    rename(&mut record, "conversations");
    let mut tools = None;
    let Json::Object(members) = &mut record.value else { unreachable!("recognised by a member") };
    for member in members.iter_mut().filter(|member| LISTS.contains(&&*member.key)) {
        if let Json::Array(messages) = &mut member.node.value {
            messages.iter_mut().try_for_each(|message| modernise(message, &mut tools))?;
            *messages = std::mem::take(messages).into_iter().flat_map(results).collect();
        }
    }
    if let Some(tools) = tools.filter(|_| !members.iter().any(|member| member.key == "tools")) {
        members.push(Member { key: "tools".into(), key_range: tools.range.clone(), node: tools });
    }
    Ok(vec![record])
}

/// tau-bench: the task is what the user is after, the reward travels with the metadata.
fn trajectory<'a>(mut record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    rename(&mut record, "traj");
    let task = record.get("info").and_then(|info| info.get("task")).cloned();
    if let (Some(task), Json::Object(members)) = (task, &mut record.value) {
        members.push(Member { key: "goal".into(), key_range: task.range.clone(), node: task });
    }
    // What holds of `messages` holds of steps.
    if has_other_roles(&record) {
        roles(record, context)
    } else if is_legacy(&record) {
        legacy(record, context)
    } else {
        Ok(vec![record])
    }
}

/// Brings older and other ways to say a message into today's.
pub(super) fn modernise<'a>(message: &mut Node<'a>, tools: &mut Option<Node<'a>>) -> Result<(), Diagnostic> {
    let range = message.range.clone();
    let is_old = is_old(message);
    let Json::Object(members) = &mut message.value else { return Ok(()) };
    if !is_old {
        // Before there were calls, the field was null.
        members.retain(|member| member.key != "function_call");
        return Ok(());
    }
    let mut found = Vec::new();
    let has_content = members.iter().any(|member| member.key == "content");
    for mut member in std::mem::take(members) {
        let place = member.node.range.clone();
        match &*member.key {
            "value" if member.node.as_str().is_some() && !has_content => member.key = "content".into(),
            "role" if member.node.as_str() == Some("function") => member.node = string(&place, "tool"),
            "function_call" => {
                let mut old = Fields::of(member.node);
                let empty = Node::new(place.clone(), Json::Object(Vec::new()));
                let (name, arguments) = (old.take("name"), old.take("arguments").unwrap_or(empty));
                let calls = name.map(|name| call(&place, None, name, arguments));
                member.key = "tool_calls".into();
                member.node = Node::new(place, Json::Array(calls.into_iter().collect()));
            }
            "content" if member.node.as_array().is_some_and(|parts| parts.iter().any(is_foreign_part)) => {
                found.extend(parts(member, tools)?);
                continue;
            }
            _ => {}
        }
        found.push(member);
    }
    message.value = Json::Object(found);
    message.range = range;
    Ok(())
}

/// A tool message whose text is a JSON list of results, each of a call of its own, as one message for each.
fn results(message: Node<'_>) -> Vec<Node<'_>> {
    let is_result = |result: &Node<'_>| {
        result.get("content").is_some_and(|content| content.as_str().is_some())
            && result.get("tool_call_id").is_some_and(|id| id.as_str().is_some())
    };
    let is_tool = message.get("role").and_then(Node::as_str) == Some("tool");
    let listed = message.get("content").filter(|_| is_tool).and_then(|content| embedded(content).ok()?);
    let Some(Json::Array(results)) = listed.map(|listed| listed.value) else { return vec![message] };
    if results.is_empty() || !results.iter().all(is_result) {
        return vec![message];
    }
    let role = |result: Node<'_>| {
        let mut fields = Fields::of(result.into_owned_at(&message.range));
        let turn = Turn::new(&message.range, "tool").with("tool_call_id", fields.take("tool_call_id"));
        turn.with("name", fields.take("name")).content(fields.take("content")).annotations(fields).node()
    };
    results.into_iter().map(role).collect()
}

/// Parts that keep what they say under `value` are LLaMA-Factory's.
fn is_foreign_part(part: &Node<'_>) -> bool {
    part.get("value").is_some() && part.get("text").is_none()
}

/// Text, reasoning, calls and tools, each in the field of its own.
fn parts<'a>(content: Member<'a>, tools: &mut Option<Node<'a>>) -> Result<Vec<Member<'a>>, Diagnostic> {
    let (range, key_range) = (content.node.range.clone(), content.key_range.clone());
    let Json::Array(list) = content.node.value else { unreachable!("seen to be a list") };
    let (mut texts, mut reasoning, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for part in list {
        let mut fields = Fields::of(part.clone());
        match (fields.text("type").as_deref(), fields.take("value")) {
            (Some("text"), Some(value)) => texts.push(value),
            (Some("reasoning"), Some(value)) => reasoning.push(value),
            (Some("tools"), Some(value)) => *tools = Some(value),
            (Some("tool_call" | "tool_calls"), Some(value)) => match embedded(&value)?.unwrap_or(value).value {
                Json::Array(several) => calls.extend(several),
                one => calls.push(Node::new(part.range, one)),
            },
            // Anything else is for validation to refuse.
            _ => texts.push(part),
        }
    }
    let member = |key: &'static str, node| Member { key: key.into(), key_range: key_range.clone(), node };
    let joined = |parts: Vec<Node<'a>>| {
        let as_part = |part: Node<'a>| match part.value {
            Json::String(_) => crate::json::object(&part.range.clone(), vec![("text", part)]),
            _ => part,
        };
        match <[Node<'a>; 1]>::try_from(parts) {
            Ok([one]) if one.as_str().is_some() => one,
            Ok([one]) => Node::new(range.clone(), Json::Array(vec![one])),
            Err(parts) => Node::new(range.clone(), Json::Array(parts.into_iter().map(as_part).collect())),
        }
    };
    let mut found = Vec::new();
    if !reasoning.is_empty() {
        let text: String = reasoning.iter().filter_map(Node::as_str).collect();
        found.push(member("reasoning_content", string(&reasoning[0].range, text)));
    }
    if !texts.is_empty() || calls.is_empty() {
        found.push(member("content", joined(texts)));
    }
    if !calls.is_empty() {
        found.push(member(
            "tool_calls",
            Node::new(range.clone(), Json::Array(calls.into_iter().map(unwrapped).collect())),
        ));
    }
    Ok(found)
}
