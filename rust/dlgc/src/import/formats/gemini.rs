//! Gemini's `contents`: roles `user` and `model`, `parts` of text, thoughts, calls and results; `systemInstruction` and the
//! tools' `functionDeclarations` beside them. Names are read in both spellings, types of schemas are put in small letters.

use super::super::draft::{Draft, Turn, call, result_text};
use super::super::{Context, Format, When};
use super::blocks::{Blocks, content};
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Json, Node, object, string};

pub(super) const FORMAT: Format = Format { name: "gemini", when: When::Has(&["contents[].parts"]), import };

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (contents, id) = (record.list("contents"), record.take("id"));
    let system = record.take_any(&["systemInstruction", "system_instruction"]);
    let mut tools = Vec::new();
    if let Some(Json::Array(groups)) =
        record.members.iter_mut().find(|member| member.key == "tools").map(|member| &mut member.node.value)
    {
        for group in std::mem::take(groups) {
            let mut fields = Fields::of(group);
            let declared = fields.take_any(&["functionDeclarations", "function_declarations"]);
            tools.extend(declared.map_or_else(Vec::new, Node::into_elements).into_iter().map(tool));
            if !fields.members.is_empty() {
                groups.push(fields.into_node());
            }
        }
        if groups.is_empty() {
            record.take("tools");
        }
    }
    let place = record.range.clone();
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.set("tools", (!tools.is_empty()).then(|| Node::new(place, Json::Array(tools))));
    if let Some(system) = system {
        let range = system.range.clone();
        let said = match system.value {
            Json::Object(_) => content(&range, Fields::of(system).list("parts")),
            _ => system,
        };
        dialogue.say(Turn::new(&range, "system").content(Some(said)));
    }
    dialogue.messages.extend(contents.into_iter().flat_map(message));
    Ok(vec![dialogue.node()])
}

fn message(content: Node<'_>) -> Vec<Node<'_>> {
    if content.as_object().is_none() {
        return vec![content];
    }
    let range = content.range.clone();
    let mut fields = Fields::of(content);
    let role = match fields.text("role").as_deref() {
        Some("model") => "assistant".to_owned(),
        Some("function") => "tool".to_owned(),
        other => other.unwrap_or("user").to_owned(),
    };
    let mut blocks = Blocks::default();
    fields.list("parts").into_iter().for_each(|said| part(said, &mut blocks));
    let rest = (!fields.members.is_empty()).then(|| fields.into_node());
    let more = Node::new(range.clone(), Json::Object(Vec::new()));
    blocks.messages(&range, role, Fields::of(Fields::of(more).with("annotations", rest)))
}

fn part<'a>(part: Node<'a>, blocks: &mut Blocks<'a>) {
    if part.as_object().is_none() {
        return blocks.parts.push(part);
    }
    let range = part.range.clone();
    let mut fields = Fields::of(part);
    if let Some(called) = fields.take_any(&["functionCall", "function_call"]) {
        let mut called = Fields::of(called);
        let name = called.take("name").unwrap_or_else(|| string(&range, ""));
        let arguments = called.take("args").unwrap_or_else(|| object(&range, Vec::new()));
        blocks.calls.push(call(&range, called.text("id").map(String::from), name, arguments));
        blocks.keep(called);
    } else if let Some(result) = fields.take_any(&["functionResponse", "function_response"]) {
        let mut result = Fields::of(result);
        let turn = Turn::new(&range, "tool").with("name", result.take("name")).with("tool_call_id", result.take("id"));
        let content = result.take("response").map_or_else(|| string(&range, ""), result_text);
        blocks.results.push(turn.content(Some(content)).annotations(result).node());
    } else if let Some(text) = fields.text("text") {
        let said = string(&range, text);
        if fields.take("thought").and_then(|thought| thought.as_bool()) == Some(true) {
            blocks.reasoning.push(said);
        } else {
            blocks.parts.push(said);
        }
    } else {
        // A picture, a file, code: validation says that it is not supported.
        let kind = fields.members.first().map(|member| string(&range, member.key.clone()));
        return blocks.parts.push(fields.with("type", kind));
    }
    blocks.keep(fields);
}

fn tool(declared: Node<'_>) -> Node<'_> {
    let range = declared.range.clone();
    let mut fields = Fields::of(declared);
    let schema = fields.take_any(&["parameters", "parametersJsonSchema", "parameters_json_schema"]);
    let function = fields.with("parameters", schema.map(schema_of));
    object(&range, vec![("type", string(&range, "function")), ("function", function)])
}

/// JSON Schema as everybody else writes it.
fn schema_of(mut schema: Node<'_>) -> Node<'_> {
    lower(&mut schema);
    schema
}

fn lower(schema: &mut Node<'_>) {
    match &mut schema.value {
        Json::Object(members) => {
            for member in members {
                match (&*member.key, &mut member.node.value) {
                    ("type", Json::String(kind)) if TYPES.contains(&&**kind) => *kind = kind.to_lowercase().into(),
                    _ => lower(&mut member.node),
                }
            }
        }
        Json::Array(elements) => elements.iter_mut().for_each(lower),
        _ => {}
    }
}

const TYPES: [&str; 6] = ["OBJECT", "STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY"];
