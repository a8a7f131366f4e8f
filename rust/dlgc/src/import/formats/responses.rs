//! OpenAI's Responses: a list of items in `input`, what came of it in `output`, the rules in `instructions`.
//!
//! Reasoning, text and calls that follow each other are one assistant message, as they are one reply; text after calls is
//! said after them. Of reasoning only what was thought is taken (`content`): a summary, and what is encrypted, are kept.

use super::super::draft::{Draft, Turn, described, tools};
use super::super::{Context, Format, When};
use super::blocks::{self, Kind};
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Json, Node};

pub(super) const FORMAT: Format = Format { name: "responses", when: When::Is(recognises), import };

const MARKS: &[&str] = &["id", "status", "role"];
const ITEMS: [Kind; 6] = [
    Kind {
        types: &["function_call"],
        id: &["call_id"],
        name: &["name"],
        arguments: &["arguments"],
        drops: MARKS,
        ..Kind::NONE
    },
    Kind { types: &["function_call_output"], id: &["call_id"], result: &["output"], ..Kind::NONE },
    Kind { types: &["reasoning"], reasoning: &["content"], drops: MARKS, ..Kind::NONE },
    Kind { types: &["message"], has: &["role"], text: &["content"], drops: MARKS, ..Kind::NONE },
    Kind { types: &["input_text", "output_text"], text: &["text"], drops: &["annotations", "logprobs"], ..Kind::NONE },
    Kind { types: &["refusal"], text: &["refusal"], ..Kind::NONE },
];

fn recognises(record: &Node<'_>) -> bool {
    let is_known = |node: &Node<'_>| ITEMS.iter().any(|kind| kind.is_type_of(node));
    let has_parts = |item: &Node<'_>| item.get("role").is_some() && list(item, "content").iter().any(is_known);
    ["input", "output"].iter().any(|key| list(record, key).iter().any(|item| is_known(item) || has_parts(item)))
}

fn list<'n, 'a>(node: &'n Node<'a>, key: &str) -> &'n [Node<'a>] {
    node.get(key).and_then(Node::as_array).unwrap_or_default()
}

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (id, functions, rules) = (record.take("id"), record.take("tools"), record.take("instructions"));
    let asked = record.take("input").map_or_else(Vec::new, |asked| match asked.value {
        Json::Array(items) => items,
        _ => vec![Turn::new(&asked.range.clone(), "user").content(Some(asked)).node()],
    });
    let items = asked.into_iter().chain(record.list("output")).collect();
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.set("tools", functions.map(|list| tools(list, tool)));
    dialogue.says("system", rules);
    dialogue.messages.extend(blocks::items(items, &ITEMS));
    Ok(vec![dialogue.node()])
}

fn tool(tool: Node<'_>) -> Node<'_> {
    let is_function = tool.get("type").and_then(Node::as_str) == Some("function") && tool.get("name").is_some();
    if is_function { described(tool, &[]) } else { tool }
}
