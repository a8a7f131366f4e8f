//! The rules beyond the shape: calls and their results and tools, something to train, nothing after the last answer.

use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::{Calls, Dialogue, MadeCall, Message, Role};
use crate::import::embedded;
use crate::json::Node;

/// Checks a dialogue whose shape is right, and cuts what follows its last assistant message.
pub(super) fn check(dialogue: &mut Dialogue<'_>, findings: &mut Vec<Diagnostic>) {
    cut_trailing_context(dialogue, findings);
    tool_results_answer_calls(&dialogue.messages, findings);
    calls_fit_tools(dialogue, findings);
    for message in &dialogue.messages {
        let silent = message.content.as_deref().unwrap_or_default().trim().is_empty();
        let says_nothing = silent && message.tool_calls.is_empty() && message.reasoning.is_none();
        if message.role == Role::Assistant && says_nothing && message.train {
            findings.push(Diagnostic::new(Code::EmptyTurn, "the assistant message says nothing").at(&message.range));
        }
    }
    // Where a role is unknown, nobody can say that there is no assistant.
    if findings.iter().any(|found| found.code == Code::UnknownRole) {
        return;
    }
    if dialogue.assistant_turns().next().is_none() {
        findings.push(Diagnostic::new(Code::NoAssistant, "the dialogue has no assistant message"));
    } else if !dialogue.messages.iter().any(|message| message.train) {
        findings.push(Diagnostic::new(Code::NothingToTrain, "every assistant message is excluded from training"));
    }
}

fn cut_trailing_context(dialogue: &mut Dialogue<'_>, findings: &mut Vec<Diagnostic>) {
    let Some(last) = dialogue.assistant_turns().last() else {
        return;
    };
    if let Some(first_cut) = dialogue.messages.get(last + 1) {
        let count = dialogue.messages.len() - last - 1;
        let message = format!("{count} message(s) after the last assistant message were cut");
        findings.push(Diagnostic::new(Code::TrailingContext, message).at(&first_cut.range));
        dialogue.messages.truncate(last + 1);
    }
}

/// A function as a dialogue declares it, by its name.
fn declared<'d, 'a>(tools: &'d [Node<'a>], name: &str) -> Option<&'d Node<'a>> {
    let functions = tools.iter().map(|tool| tool.get("function").unwrap_or(tool));
    functions.into_iter().find(|function| function.get("name").and_then(Node::as_str) == Some(name))
}

fn calls_fit_tools(dialogue: &Dialogue<'_>, findings: &mut Vec<Diagnostic>) {
    let Some(tools) = dialogue.tools.as_ref().and_then(Node::as_array) else { return };
    for call in dialogue.messages.iter().flat_map(|message| &message.tool_calls) {
        let found = |what: String| Diagnostic::new(Code::UndeclaredCall, what).at(&call.arguments.range);
        let Some(function) = declared(tools, &call.name) else {
            findings.push(found(format!("`{}` is called, and no tool has this name", call.name)));
            continue;
        };
        // Only a schema with properties says what there is.
        let Some(schema) = function.get("parameters").filter(|schema| schema.get("properties").is_some()) else {
            continue;
        };
        let properties = schema.get("properties").and_then(Node::as_object).unwrap_or_default();
        let given = match embedded(&call.arguments) {
            Ok(Some(given)) => given,
            _ => call.arguments.clone(),
        };
        let given = given.as_object().unwrap_or_default();
        let is_open = schema.get("additionalProperties").is_some_and(|open| open.as_bool() != Some(false));
        let unknown = given.iter().find(|member| !is_open && !properties.iter().any(|known| known.key == member.key));
        let required = schema.get("required").and_then(Node::as_array).unwrap_or_default();
        let missing =
            required.iter().filter_map(Node::as_str).find(|name| !given.iter().any(|member| member.key == *name));
        if let Some(member) = unknown {
            findings.push(found(format!("`{}` has no parameter `{}`", call.name, member.key)));
        } else if let Some(name) = missing {
            findings.push(found(format!("`{}` requires `{name}`, which the call leaves out", call.name)));
        }
    }
}

fn tool_results_answer_calls(messages: &[Message<'_>], findings: &mut Vec<Diagnostic>) {
    let mut calls = Calls::default();
    for (index, message) in messages.iter().enumerate() {
        if message.role == Role::Tool {
            if calls.answer(message).is_none() {
                findings.push(orphan(&calls, message));
            }
            continue;
        }
        if calls.is_open() {
            findings.push(
                Diagnostic::new(Code::UnansweredToolCall, "a tool call before this message has no result")
                    .at(&message.range),
            );
        }
        calls.make(index, message);
    }
}

fn orphan(calls: &Calls, message: &Message<'_>) -> Diagnostic {
    let diagnostic = Diagnostic::new(Code::OrphanToolResult, "the tool result answers no tool call")
        .at(&message.call_id_range)
        .label("no earlier assistant message makes this call");
    let calls = calls.all();
    if calls.is_empty() {
        return diagnostic.help("no tool call comes before it");
    }
    let name = |call: &MadeCall| format!("`{}`", call.id.as_deref().unwrap_or(&call.name));
    let names: Vec<String> = calls.iter().rev().take(8).map(name).collect();
    diagnostic.help(format!("the calls made so far are {}", names.join(", ")))
}
