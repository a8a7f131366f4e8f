//! Gemini's `contents`: roles `user` and `model`, `parts` of text, thoughts, calls and results; `systemInstruction` and the
//! tools' `functionDeclarations` beside them. Names are read in both spellings, types of schemas are put in small letters.

use super::super::draft::{Draft, Turn, described};
use super::super::{Context, Format, When};
use super::blocks::{self, Kind};
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Json, Node};

pub(super) const FORMAT: Format = Format { name: "gemini", when: When::Has(&["contents[].parts"]), import };

const PARTS: [Kind; 4] = [
    Kind {
        within: &["functionCall", "function_call"],
        id: &["id"],
        name: &["name"],
        arguments: &["args"],
        ..Kind::NONE
    },
    Kind {
        within: &["functionResponse", "function_response"],
        id: &["id"],
        name: &["name"],
        result: &["response"],
        ..Kind::NONE
    },
    Kind { has: &["thought", "text"], reasoning: &["text"], drops: &["thought"], ..Kind::NONE },
    Kind { has: &["text"], text: &["text"], drops: &["thought"], ..Kind::NONE },
];

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (contents, id, groups) = (record.list("contents"), record.take("id"), record.list("tools"));
    let system = record.take_any(&["systemInstruction", "system_instruction"]);
    let (mut functions, mut others) = (Vec::new(), Vec::new());
    for mut group in groups.into_iter().map(Fields::of) {
        let declared = group.take_any(&["functionDeclarations", "function_declarations"]);
        functions.extend(declared.map_or_else(Vec::new, Node::into_elements).into_iter().map(tool));
        others.extend((!group.members.is_empty()).then(|| group.into_node()));
    }
    let list = |of: Vec<Node<'a>>| (!of.is_empty()).then(|| Node::new(record.range.clone(), Json::Array(of)));
    let (functions, others) = (list(functions), list(others));
    let mut dialogue = Draft::of(Fields::of(record.with("tools", others)));
    dialogue.set("id", id);
    dialogue.set("tools", functions);
    if let Some(system) = system {
        let range = system.range.clone();
        let said = match system.value {
            Json::Object(_) => blocks::content(&range, Fields::of(system).list("parts")),
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
    let (range, mut fields) = (content.range.clone(), Fields::of(content));
    let (role, parts) = (fields.text("role"), fields.list("parts"));
    let role = match role.as_deref() {
        Some("model") => "assistant",
        Some("function") => "tool",
        other => other.unwrap_or("user"),
    };
    blocks::messages(&range, role, parts, &PARTS, blocks::aside(fields))
}

fn tool(mut declared: Node<'_>) -> Node<'_> {
    lower(&mut declared);
    described(declared, &["parameters", "parametersJsonSchema", "parameters_json_schema"])
}

/// Types as JSON Schema writes them.
fn lower(schema: &mut Node<'_>) {
    const TYPES: [&str; 6] = ["OBJECT", "STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY"];
    match &mut schema.value {
        Json::Object(members) => members.iter_mut().for_each(|member| match (&*member.key, &mut member.node.value) {
            ("type", Json::String(kind)) if TYPES.contains(&&**kind) => *kind = kind.to_lowercase().into(),
            _ => lower(&mut member.node),
        }),
        Json::Array(elements) => elements.iter_mut().for_each(lower),
        _ => {}
    }
}
