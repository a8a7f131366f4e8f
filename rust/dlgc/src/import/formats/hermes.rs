//! Hermes' function calling, which is Qwen's too: messages, ShareGPT's or with roles, whose text holds calls as
//! `<tool_call>{…}</tool_call>`, results as `<tool_response>…</tool_response>` and tools as `<tools>…</tools>`.
//!
//! Calls, results and tools take the places that they have in the native shape, whose templates write the tags. So the
//! instructions that say how to write them go too: the sentences of Hermes' and Qwen's prompts are cut out of the system
//! message with the list of tools, and what the system says beyond them stays. Where the record has another list of tools
//! beside, the message stays as it is. A record of which any call is not read, or is followed by text, is not of this format.

use super::super::draft::{Turn, call, unwrapped};
use super::super::{Context, Format, When};
use super::{messages, python, sharegpt, system};
use crate::diagnostic::Diagnostic;
use crate::json::{self, Fields, Json, Node, object, string};

pub(super) const FORMAT: Format = Format { name: "hermes", when: When::Is(recognises), import };

fn recognises(record: &Node<'_>) -> bool {
    let Some(list) = listed(record) else { return false };
    let offers = list.first().and_then(text).is_some_and(|text| text.contains("<tools>"));
    if !offers && record.get_some("tools").is_none() {
        return false;
    }
    let calls = list.iter().filter(|message| is_assistant(message)).filter_map(text).map(calls);
    let mut called = false;
    for read in calls {
        let Some((_, calls)) = read else { return false };
        called |= !calls.is_empty();
    }
    called || list.first().and_then(text).is_some_and(|text| offered(text).is_some())
}

/// The messages, under the names of ShareGPT or with roles.
fn listed<'n, 'a>(record: &'n Node<'a>) -> Option<&'n [Node<'a>]> {
    if sharegpt::recognises(record) { record.get("conversations")?.as_array() } else { messages::list(record) }
}

fn text<'n>(message: &'n Node<'_>) -> Option<&'n str> {
    message.get("value").or_else(|| message.get("content"))?.as_str()
}

fn is_assistant(message: &Node<'_>) -> bool {
    let speaker = message.get("from").or_else(|| message.get("role")).and_then(Node::as_str);
    matches!(speaker, Some("assistant" | "gpt" | "model" | "bot" | "chatgpt"))
}

fn import<'a>(mut record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    if sharegpt::recognises(&record) {
        record = sharegpt::import(record, context)?.remove(0);
    } else {
        system::put_first(&mut record);
        record = messages::legacy(record, context)?.remove(0);
    }
    let mut record = Fields::of(record);
    let given =
        record.get("tools").cloned().map(unwrapped).filter(|tools| tools.as_array().is_some_and(|t| !t.is_empty()));
    let given = given.map(|tools| json::dumps(&tools));
    let mut tools = None;
    for member in &mut record.members {
        if let ("messages" | "conversation", Json::Array(list)) = (&*member.key, &mut member.node.value) {
            *list =
                std::mem::take(list).into_iter().flat_map(|said| message(said, given.as_deref(), &mut tools)).collect();
        }
    }
    if given.is_none() && tools.is_some() {
        record.take("tools");
        record = Fields::of(record.with("tools", tools));
    }
    Ok(vec![record.into_node()])
}

fn message<'a>(message: Node<'a>, given: Option<&str>, tools: &mut Option<Node<'a>>) -> Vec<Node<'a>> {
    let range = message.range.clone();
    let Some(text) = message.get("content").and_then(Node::as_str).map(str::to_owned) else { return vec![message] };
    let role = message.get("role").and_then(Node::as_str).unwrap_or_default();
    match role {
        "system" | "developer" => {
            let Some((before, list, after)) = offered(&text) else { return vec![message] };
            let list = Node::new(range.clone(), Json::Array(list)).into_owned_at(&range);
            if given.is_some_and(|given| given != json::dumps(&list)) {
                return vec![message];
            }
            *tools = Some(list);
            let said = beyond_instructions(&before, &after);
            if said.is_empty() { Vec::new() } else { vec![saying(message, said, Vec::new())] }
        }
        "assistant" => match calls(&text) {
            Some((said, calls)) if !calls.is_empty() => {
                let calls = calls.into_iter().map(|call| call.into_owned_at(&range)).collect();
                vec![saying(message, said, calls)]
            }
            _ => vec![message],
        },
        "tool" | "user" => match tagged(&text, "<tool_response>", "</tool_response>") {
            Some((before, results)) if before.trim().is_empty() && !results.is_empty() => {
                let mut said: Vec<_> = results.into_iter().map(|result| result.trim().to_owned()).collect();
                let last = said.pop().map(|last| {
                    let mut fields = Fields::of(message);
                    fields.members.retain(|member| !matches!(&*member.key, "role" | "content"));
                    let mut node = Turn::new(&range, "tool").says(last).node();
                    if let Json::Object(members) = &mut node.value {
                        members.extend(fields.members);
                    }
                    node
                });
                let results = said.into_iter().map(|result| Turn::new(&range, "tool").says(result).node());
                results.chain(last).collect()
            }
            _ => vec![message],
        },
        _ => vec![message],
    }
}

/// The message with other text, and calls.
fn saying<'a>(message: Node<'a>, said: String, calls: Vec<Node<'a>>) -> Node<'a> {
    let range = message.range.clone();
    let mut fields = Fields::of(message);
    for member in &mut fields.members {
        if member.key == "content" {
            member.node = string(&member.node.range, said.clone());
        }
    }
    fields.members.retain(|member| member.key != "content" || !said.is_empty());
    let calls = (!calls.is_empty()).then(|| Node::new(range, Json::Array(calls)));
    fields.with("tool_calls", calls)
}

/// What stands before tags of a kind, and in each; `None` where text stands between or after them.
fn tagged<'t>(text: &'t str, open: &str, close: &str) -> Option<(&'t str, Vec<&'t str>)> {
    let Some(at) = text.find(open) else { return (!text.contains(close)).then(|| (text, Vec::new())) };
    let (before, mut rest) = text.split_at(at);
    let mut inside = Vec::new();
    while let Some(after) = rest.trim_start().strip_prefix(open) {
        let (held, after) = after.split_once(close)?;
        inside.push(held);
        rest = after;
    }
    rest.trim().is_empty().then_some((before, inside))
}

/// What the assistant says, and its calls.
fn calls(text: &str) -> Option<(String, Vec<Node<'static>>)> {
    let (before, inside) = tagged(text, "<tool_call>", "</tool_call>")?;
    let read = |held: &str| {
        let mut fields = Fields::of(value(held)?);
        let name = fields.take("name").filter(|name| name.as_str().is_some())?;
        let arguments = fields.take("arguments").unwrap_or_else(|| object(&(0..0), Vec::new()));
        let is_plain = fields.members.is_empty() && matches!(arguments.value, Json::Object(_) | Json::String(_));
        is_plain.then(|| call(&(0..0), None, name, arguments))
    };
    let calls: Vec<Node<'static>> = inside.into_iter().map(read).collect::<Option<_>>()?;
    Some((if calls.is_empty() { text.to_owned() } else { before.trim_end().to_owned() }, calls))
}

/// JSON, or a literal as Python writes it.
fn value(text: &str) -> Option<Node<'static>> {
    let text = text.trim();
    match json::parse(text.as_bytes()) {
        Ok(parsed) => Some(parsed.root.into_owned_at(&(0..0))),
        Err(_) => python::literal(text),
    }
}

/// What stands before the list of tools, the list, and what comes after it. The tags are named before they are used.
fn offered(text: &str) -> Option<(String, Vec<Node<'static>>, String)> {
    for (at, open) in text.match_indices("<tools>") {
        let Some((held, after)) = text[at + open.len()..].split_once("</tools>") else { continue };
        let list = match value(held) {
            Some(Node { value: Json::Array(list), .. }) => list,
            Some(one @ Node { value: Json::Object(_), .. }) if held.trim().lines().count() == 1 => vec![one],
            _ => held.trim().lines().map(value).collect::<Option<_>>().unwrap_or_default(),
        };
        if !list.is_empty() && list.iter().all(|tool| tool.as_object().is_some()) {
            return Some((text[..at].to_owned(), list, after.to_owned()));
        }
    }
    None
}

/// Sentences that say how tools are called and no more.
const INSTRUCTIONS: [&str; 20] = [
    "You are a function calling AI model.",
    "You are a function calling AI agent.",
    "You are provided with function signatures within <tools></tools> XML tags.",
    "You are provided with function signatures within <tools></tools> XML tags:",
    "You are provided with function signatures within <tools> </tools> XML tags.",
    "You may call one or more functions to assist with the user query.",
    "If available tools are not relevant in assisting with user query, just respond in natural conversational language.",
    "Don't make assumptions about what values to plug into functions.",
    "After calling & executing the functions, you will be provided with function results within <tool_response> </tool_response> XML tags.",
    "Here are the available tools:",
    "Use the following pydantic model json schema for each tool call you will make:",
    "For each function call return a json object with function name and arguments within <tool_call></tool_call> XML tags as follows:",
    "For each function call return a JSON object, with the following pydantic model json schema for each:",
    "For each function call return a JSON object, with the following pydantic model json schema:",
    "For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:",
    "Each function call should be enclosed within <tool_call> </tool_call> XML tags.",
    "<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>",
    "<tool_call>\n{'arguments': <args-dict>, 'name': <function-name>}\n</tool_call>",
    "<tool_call>\n{\"arguments\": <args-dict>, \"name\": <function-name>}\n</tool_call>",
    "<tool_call>\n{tool_call}\n</tool_call>",
];
/// How the schema of a call begins.
const SCHEMAS: [&str; 3] =
    ["{'title': 'FunctionCall'", "{\"title\": \"FunctionCall\"", "{\"properties\": {\"arguments\": {\"title\""];

/// What a system message says beyond how tools are called.
fn beyond_instructions(before: &str, after: &str) -> String {
    let mut said = format!("{}\n{}", before.trim(), after.trim());
    for sentence in INSTRUCTIONS {
        said = said.replace(sentence, "");
    }
    if let Some(at) = SCHEMAS.iter().find_map(|schema| said.find(schema)) {
        let mut depth = 0;
        let closes = |(_, letter): &(usize, char)| {
            depth += i32::from(*letter == '{') - i32::from(*letter == '}');
            depth == 0
        };
        if let Some((length, _)) = said[at..].char_indices().find(closes) {
            said.replace_range(at..=at + length, "");
        }
    }
    let lines: Vec<&str> = said.lines().map(str::trim_end).filter(|line| *line != "# Tools").collect();
    lines.join("\n").trim().to_owned()
}
