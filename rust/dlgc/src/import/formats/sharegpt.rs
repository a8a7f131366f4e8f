//! ShareGPT: `conversations`, a list of `from` and `value`, with LLaMA-Factory's names for tool use.
//!
//! `function_call` holds a call as a JSON string, `observation` a result; `system` and `tools` may stand beside the
//! list, `tools` as a JSON string.

use std::borrow::Cow;

use super::super::{Context, Format, When, embedded, speakers};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::{Json, Member, Node, object, string};

pub(super) const FORMAT: Format = Format { name: "sharegpt", when: When::Is(recognises), import };

pub(super) fn recognises(record: &Node<'_>) -> bool {
    let Some(messages) = record.get("conversations").and_then(Node::as_array) else {
        return false;
    };
    messages.first().is_none_or(|first| first.get("from").is_some() && first.get("value").is_some())
}

pub(super) fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let range = record.range.clone();
    let Json::Object(members) = record.value else { unreachable!("recognised by a member") };
    let mut system = None;
    let mut native: Vec<Member<'_>> = Vec::new();
    for mut member in members {
        match &*member.key {
            "conversations" => {
                member.key = "messages".into();
                member.node = messages(member.node)?;
                native.push(member);
            }
            "system" | "system_prompt" | "system_message" if member.node.as_str().is_some() => {
                system = system.or(Some(member.node)).filter(|node| node.as_str() != Some(""));
            }
            _ => native.push(member),
        }
    }
    // Rules that stand in the list too are said once.
    let begins = native
        .iter()
        .find(|member| member.key == "messages")
        .and_then(|list| list.node.as_array()?.first()?.get("role")?.as_str());
    if let Some(content) = system.filter(|_| begins != Some("system")) {
        let place = content.range.clone();
        let message = object(&place, vec![("role", string(&place, "system")), ("content", content)]);
        if let Some(Json::Array(messages)) =
            native.iter_mut().find(|member| member.key == "messages").map(|member| &mut member.node.value)
        {
            messages.insert(0, message);
        }
    }
    Ok(vec![Node::new(range, Json::Object(native))])
}

pub(super) fn messages(list: Node<'_>) -> Result<Node<'_>, Diagnostic> {
    let Json::Array(elements) = list.value else { unreachable!("recognised as a list") };
    let messages = elements.into_iter().map(message).collect::<Result<_, _>>()?;
    Ok(Node::new(list.range, Json::Array(messages)))
}

fn message(message: Node<'_>) -> Result<Node<'_>, Diagnostic> {
    let range = message.range.clone();
    let Json::Object(mut members) = message.value else {
        return Err(Diagnostic::new(Code::WrongType, "a message must be an object").at(&range));
    };
    let from = take(&mut members, "from");
    let value = take(&mut members, "value").unwrap_or(Node::new(range.clone(), Json::Null));
    if let Some(content) = members.iter().find(|member| member.key == "content") {
        let message = "the message has both `value` and `content`";
        return Err(Diagnostic::new(Code::WrongType, message).at(&content.key_range));
    }
    let Some(from) = from else {
        return Err(Diagnostic::new(Code::WrongType, "the message has no `from`").at(&range));
    };
    let role: Cow<'_, str> = match from.as_str() {
        Some("function_call" | "function-call" | "tool_call") => "assistant".into(),
        Some("function_response" | "function-response" | "tool_response") => "tool".into(),
        // An unknown speaker goes on as it is: validation names the roles there are.
        Some(other) => speakers::role_of(other).map_or_else(|| other.to_owned().into(), Cow::Borrowed),
        None => {
            return Err(Diagnostic::new(Code::WrongType, "`from` must be a string").at(&from.range));
        }
    };
    let is_call = matches!(from.as_str(), Some("function_call" | "function-call" | "tool_call"));
    let mut native = vec![("role", string(&from.range, role))];
    if is_call {
        native.push(("tool_calls", calls(&value)?));
    } else {
        native.push(("content", value));
    }
    let mut message = object(&range, native);
    if let Json::Object(native) = &mut message.value {
        native.extend(members);
    }
    Ok(message)
}

fn calls<'a>(value: &Node<'a>) -> Result<Node<'a>, Diagnostic> {
    let calls = match embedded(value)? {
        Some(Node { value: Json::Array(calls), .. }) => calls,
        Some(call @ Node { value: Json::Object(_), .. }) => vec![call],
        _ => {
            return Err(Diagnostic::new(Code::InvalidToolCall, "`function_call` must hold a call as JSON text")
                .at(&value.range)
                .help("expected `{\"name\": …, \"arguments\": {…}}` or a list of such"));
        }
    };
    Ok(Node::new(value.range.clone(), Json::Array(calls)))
}

fn take<'a>(members: &mut Vec<Member<'a>>, key: &str) -> Option<Node<'a>> {
    let index = members.iter().position(|member| member.key == key)?;
    Some(members.remove(index).node)
}
