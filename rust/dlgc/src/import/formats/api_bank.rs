//! API-Bank: a file is one dialogue, a line one turn; a call and its result are one line. What can be called is described
//! in `all_apis.csv` beside.

use super::super::draft::{Draft, Turn, call, parameters, result_text, tool};
use super::super::{Context, Format, When};
use super::python;
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Json, Node, object, string};

pub(super) const FORMAT: Format =
    Format { name: "api-bank", when: When::Has(&["pieces[].role", "pieces[].text"]), import };

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let turns = record.list("pieces");
    let mut dialogue = Draft::of(record);
    let mut called: Vec<String> = Vec::new();
    for mut turn in turns.into_iter().map(Fields::of) {
        let range = turn.range.clone();
        let role = turn.text("role").unwrap_or_default().into_owned();
        if role != "API" {
            let role = match &*role {
                "User" => "user".to_owned(),
                "AI" => "assistant".to_owned(),
                _ => role,
            };
            dialogue.say(Turn::new(&range, role).content(turn.take("text")).annotations(turn));
            continue;
        }
        let name = turn.take("api_name").unwrap_or_else(|| string(&range, ""));
        called.extend(name.as_str().filter(|name| !called.iter().any(|known| known == name)).map(str::to_owned));
        let empty = Node::new(range.clone(), Json::Object(Vec::new()));
        let arguments = turn.take("param_dict").unwrap_or(empty);
        let mut result = turn.fields("result");
        let output = result.take("exception").or_else(|| result.take("output"));
        let said = output.map_or_else(|| string(&range, "null"), result_text);
        dialogue.say(Turn::new(&range, "assistant").calls(vec![call(&range, None, name.clone(), arguments)]));
        dialogue.say(Turn::new(&range, "tool").with("name", Some(name)).content(Some(said)));
    }
    dialogue.set_text("type", "tool");
    if let Some(apis) = context.beside.table("all_apis.csv", "类名") {
        let place = dialogue.messages.first().map_or(0..0, |message| message.range.clone());
        let tools: Vec<Node<'a>> = called.iter().filter_map(|name| function(name, apis.find(name)?)).collect();
        let tools = Node::new(place.clone(), Json::Array(tools)).into_owned_at(&place);
        dialogue.set("tools", tools.as_array().is_some_and(|tools| !tools.is_empty()).then_some(tools));
    }
    Ok(vec![dialogue.node()])
}

/// A function from its signature in Python, `(username: str, days: int = 1)`, with what `api_info` says of it and of its
/// parameters: `description = "..."` and `input_parameters = {"username": {"description": "..."}}`.
fn function<'a>(name: &str, api: &Node<'static>) -> Option<Node<'a>> {
    let place = 0..0;
    let said = |what: &str| {
        let (_, said) = api.get("api_info")?.as_str()?.split_once(&format!("{what} = "))?;
        python::literal(said)
    };
    let (description, described) = (said("description"), said("input_parameters"));
    let signature = api.get("input_parameters")?.as_str()?.trim().trim_start_matches('(').trim_end_matches(')');
    let signature = if signature == "None" { "" } else { signature };
    let (mut properties, mut required) = (Vec::new(), Vec::new());
    for parameter in signature.split(',').filter(|parameter| !parameter.trim().is_empty()) {
        let (name, rest) = parameter.split_once(':').unwrap_or((parameter, "str"));
        let (kind, default) = rest.split_once('=').map_or((rest, None), |(kind, default)| (kind, Some(default)));
        let kind = match kind.trim() {
            "int" => "integer",
            "float" => "number",
            "bool" => "boolean",
            kind if kind.to_lowercase().starts_with("list") => "array",
            "object" | "dict" => "object",
            _ => "string",
        };
        let name = name.trim().to_owned();
        required.extend(default.is_none().then(|| string(&place, name.clone())));
        let mut property = vec![("type", string(&place, kind))];
        let description = described.as_ref().and_then(|described| described.get(&name)?.get("description"));
        property.extend(description.map(|said| ("description", said.clone())));
        properties.push((name, object(&place, property)));
    }
    Some(tool(&place, string(&place, name.to_owned()), description, parameters(&place, properties, required)))
}
