//! MOSS-003 with plugins: turns of what the user says, inner thoughts, commands, their results, and the answer.
//!
//! Commands that are plain calls, `Search("x")`, become calls with their results, after the thoughts that led to them; the
//! plugins that `meta_instruction` enables become tools, whose parameters name the arguments. Where a command is more than
//! that, or its results cannot be told apart, thoughts and answer are one message, and the command and the results stand in
//! its annotations: what it would take to say them as calls is guessing.

use std::borrow::Cow;
use std::ops::Range;

use super::super::draft::{Draft, Turn, call, parameters, plain, tool};
use super::super::{Context, Format, When};
use super::python;
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Json, Node, object, string};

pub(super) const FORMAT: Format =
    Format { name: "moss", when: When::Has(&["chat.turn_1.Human", "chat.turn_1.MOSS"]), import };

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (id, mut turns) = (record.take("conversation_id").map(plain), record.fields("chat").members);
    let rules = record.take("meta_instruction");
    let place = record.range.clone();
    let functions: Vec<Node<'a>> = rules
        .as_ref()
        .and_then(Node::as_str)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| plugin(line, &place))
        .collect();
    let tools = functions
        .iter()
        .map(|function| object(&place, vec![("type", string(&place, "function")), ("function", function.clone())]));
    let tools: Vec<Node<'a>> = tools.collect();
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.set("tools", (!tools.is_empty()).then(|| Node::new(place, Json::Array(tools))));
    dialogue.says("system", rules);
    turns.sort_by_key(|turn| turn.key.rsplit('_').next().and_then(|number| number.parse::<u32>().ok()));
    for turn in turns {
        exchange(Fields::of(turn.node), &functions, &mut dialogue);
    }
    Ok(vec![dialogue.node()])
}

fn exchange<'a>(mut turn: Fields<'a>, functions: &[Node<'a>], dialogue: &mut Draft<'a>) {
    let range = turn.range.clone();
    let mut said = |key: &str| turn.text(key).map(|text| bare(&text).to_owned());
    let (asked, thoughts) = (said("Human"), said("Inner Thoughts").filter(|text| text != "None"));
    let (commands, results) = (said("Commands").filter(|text| text != "None"), said("Tool Responses"));
    let answer = said("MOSS");
    let results = results.filter(|text| text != "None");
    dialogue.say(Turn::new(&range, "user").says(asked.unwrap_or_default()));
    let thinks = |turn: Turn<'a>| turn.with("reasoning_content", thoughts.clone().map(|text| string(&range, text)));
    let answered = Turn::new(&range, "assistant").says(answer.unwrap_or_default());
    let called = commands.as_deref().and_then(|commands| calls(commands, results.as_deref()?, functions, &range));
    match called {
        Some(called) => {
            let (calls, results): (Vec<_>, Vec<_>) = called.into_iter().unzip();
            dialogue.say(thinks(Turn::new(&range, "assistant")).calls(calls));
            results.into_iter().for_each(|result| dialogue.say(Turn::new(&range, "tool").says(result)));
            dialogue.say(answered.annotations(turn));
        }
        None => {
            for (key, text) in [("Commands", commands), ("Tool Responses", results)] {
                turn = Fields::of(turn.with(key, text.map(|text| string(&range, text))));
            }
            dialogue.say(thinks(answered).annotations(turn));
        }
    }
}

/// What stands between `<|Name|>:` and `<eo?>`.
fn bare(text: &str) -> &str {
    let text = text.trim();
    let text = text.strip_prefix("<|").and_then(|rest| rest.split_once("|>:")).map_or(text, |(_, said)| said);
    let end = text.rfind("<eo").filter(|at| text.len() == at + "<eoh>".len());
    text[..end.unwrap_or(text.len())].trim()
}

/// Calls and their results; `None` where they are not plain.
fn calls<'a>(
    commands: &str,
    mut results: &str,
    functions: &[Node<'a>],
    range: &Range<usize>,
) -> Option<Vec<(Node<'a>, String)>> {
    let read = |command: &str| python::call(command, functions);
    let commands: Vec<Cow<'_, str>> = match read(commands) {
        Some(_) => vec![commands.into()],
        None => {
            let several: Vec<&str> = commands.split("), ").collect();
            let last = several.len() - 1;
            several
                .iter()
                .enumerate()
                .map(|(at, &one)| if at < last { format!("{one})").into() } else { one.into() })
                .collect()
        }
    };
    let mut called = Vec::new();
    for (at, command) in commands.iter().enumerate() {
        let (name, arguments) = read(command)?;
        let arrow = |command: &str| format!("{command} =>");
        results = results.trim_start().strip_prefix(&*arrow(command))?;
        let end = match commands.get(at + 1) {
            Some(next) => results.find(&format!("\n{}", arrow(next)))?,
            None => results.len(),
        };
        let result = results[..end].trim().to_owned();
        results = &results[end..];
        called.push((call(range, None, string(range, name), arguments.into_owned_at(range)), result));
    }
    Some(called)
}

/// `- Web search: enabled. API: Search(query)`
fn plugin<'a>(line: &str, range: &Range<usize>) -> Option<Node<'a>> {
    let (said, declared) = line.trim().strip_prefix("- ")?.split_once(": enabled. API: ")?;
    let (name, names) = declared.trim().strip_suffix(')')?.split_once('(')?;
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    let property = |name: &str| (name.to_owned(), object(range, vec![("type", string(range, "string"))]));
    let schema = parameters(
        range,
        names.clone().map(property).collect(),
        names.map(|name| string(range, name.to_owned())).collect(),
    );
    let declared = tool(range, string(range, name.to_owned()), Some(string(range, said.to_owned())), schema);
    Fields::of(declared).take("function")
}
