//! Whether every field of a dialogue leaves a trace in the text.
//!
//! Looking for a content in the text is not enough: the word "ok", dropped, stands elsewhere too. So the dialogue is
//! rendered once more with a word of its own for every content, argument, tool, call and document (a [`Skeleton`] with
//! names), and the words are looked for. Dialogues of the same structure share that rendering.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::messages::{self, Prepared};
use super::skeleton::Skeleton;
use super::{Mode, Template, hash_of};
use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::Role;
use crate::json::{Json, Node};

/// What leaves no trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    Content(usize),
    Call(usize, usize),
    Tool(usize),
    Document(usize),
}

/// What came of looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Everything,
    AllBut(Lost),
    /// The template refuses words where it takes the real ones: its text is then all there is to look at.
    Nothing,
}

/// Verdicts by structure.
#[derive(Debug, Default)]
pub(super) struct Traces(Mutex<HashMap<u128, Found>>);

/// How many verdicts are kept; the cache is emptied when it is full.
const KEPT: usize = 1 << 16;

impl Template {
    /// Refuses a dialogue of which a field leaves no trace.
    pub(super) fn nothing_lost(
        &self,
        prepared: &[Prepared],
        around: &[Option<Node<'_>>; 3],
        skeleton: &Skeleton,
        text: &str,
        mode: Mode,
    ) -> Result<(), Diagnostic> {
        let Some(last) = prepared.len().checked_sub(1) else { return Ok(()) };
        let key = skeleton.key(last, hash_of(around)) ^ u128::from(mode == Mode::Prove);
        let lock = || self.traces.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&key).copied();
        let lost = if let Some(known) = known {
            known
        } else {
            let found = self.find_lost(prepared, around, skeleton, mode);
            let mut traces = lock();
            if traces.len() >= KEPT {
                traces.clear();
            }
            traces.insert(key, found);
            found
        };
        let lost = match lost {
            Found::Everything => return Ok(()),
            Found::Nothing => return messages::nothing_lost(around, prepared, text),
            Found::AllBut(lost) => lost,
        };
        let (what, place) = match lost {
            Lost::Content(index) => {
                let message = &prepared[index];
                (format!("the content of this `{}` message", message.role.name()), message.range.clone())
            }
            Lost::Call(index, number) => {
                let message = &prepared[index];
                let name = calls(&message.node).get(number).map_or("", |call| name_of(call));
                (format!("the call of `{name}`, or what it is called with,"), message.range.clone())
            }
            Lost::Tool(index) => {
                let tool = around[0].as_ref().and_then(Node::as_array).map(|tools| &tools[index]);
                (format!("the tool `{}`", tool.map_or("", name_of)), tool.map_or(0..0, |tool| tool.range.clone()))
            }
            Lost::Document(index) => {
                let document = around[1].as_ref().and_then(Node::as_array).map(|documents| &documents[index]);
                ("a document".to_owned(), document.map_or(0..0, |document| document.range.clone()))
            }
        };
        let message = format!("{what} leaves no trace in the rendered text");
        let help = "the template does not print it; choose one that does, or remove it from the data";
        Err(Diagnostic::new(Code::FieldLost, message).at(&place).help(help))
    }

    fn find_lost(
        &self,
        prepared: &[Prepared],
        around: &[Option<Node<'_>>; 3],
        skeleton: &Skeleton,
        mode: Mode,
    ) -> Found {
        let mut names = Names::default();
        let mut renamed: Vec<Node<'static>> = skeleton.messages.clone();
        for node in &mut renamed {
            names.in_message(node);
        }
        let mut renamed_around = around.clone();
        let tools = renamed_around[0].as_mut().map_or(&mut [][..], elements);
        tools.iter_mut().for_each(|tool| names.in_function(tool));
        let documents = renamed_around[1].as_mut().map_or(&mut [][..], elements);
        for (index, document) in documents.iter_mut().enumerate() {
            in_document(document, index);
        }
        let aliased: Vec<_> = renamed.iter().map(messages::aliased).collect();
        let shown: Vec<&Node<'_>> = aliased.iter().map(|node| &**node).collect();
        let stage = self.stage(&shown, &renamed_around);
        let Ok(whole) = self.run(stage, shown.len(), false) else { return Found::Nothing };
        let text = whole.text;
        // Where targets are proved, what counts is what is shown in a turn's own rendering: history may be shortened.
        let shows_elsewhere = |index: usize, word: &str| {
            let is_assistant = prepared[index].role == Role::Assistant;
            let last = prepared.iter().rposition(|message| message.train).unwrap_or(0);
            let seen = if is_assistant { self.run(stage, index + 1, false) } else { self.run(stage, last, true) };
            mode == Mode::Prove && seen.is_ok_and(|seen| seen.text.contains(word))
        };
        let mut needed: HashMap<&str, usize> = HashMap::new();
        for (index, (message, node)) in prepared.iter().zip(&renamed).enumerate() {
            if skeleton.said(index).any(|word| !text.contains(word) && !shows_elsewhere(index, word)) {
                return Found::AllBut(Lost::Content(index));
            }
            for (number, call) in calls(node).iter().enumerate() {
                let count = needed.entry(name_of(call)).or_default();
                *count += 1;
                if text.matches(name_of(call)).count() < *count {
                    return Found::AllBut(Lost::Call(index, number));
                }
            }
            if let Some((number, _)) = skeleton.arguments(index).find(|(_, word)| !text.contains(*word)) {
                return Found::AllBut(Lost::Call(index, number.min(calls(&message.node).len().saturating_sub(1))));
            }
        }
        let tools = renamed_around[0].as_ref().and_then(Node::as_array).unwrap_or_default();
        for (index, tool) in tools.iter().enumerate() {
            let count = needed.get(name_of(tool)).copied().unwrap_or(0) + 1;
            if !name_of(tool).is_empty() && text.matches(name_of(tool)).count() < count {
                return Found::AllBut(Lost::Tool(index));
            }
        }
        let documents = renamed_around[1].as_ref().and_then(Node::as_array).unwrap_or_default();
        let lost = (0..documents.len()).find(|&index| !text.contains(&document_word(index)));
        lost.map_or(Found::Everything, |index| Found::AllBut(Lost::Document(index)))
    }
}

/// A word for each name of a function, the same wherever it stands.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn word(&mut self, name: &str) -> String {
        let number = self.0.len();
        self.0.entry(name.to_owned()).or_insert_with(|| format!("Qz7f{number}Zq")).clone()
    }

    fn in_message(&mut self, node: &mut Node<'static>) {
        let is_tool = node.get("role").and_then(Node::as_str) == Some("tool");
        let Json::Object(members) = &mut node.value else { return };
        for member in members {
            match (&*member.key, &mut member.node) {
                ("name", node) if is_tool => self.rename(node),
                ("tool_calls", node) => elements(node).iter_mut().for_each(|call| self.in_function(call)),
                _ => {}
            }
        }
    }

    /// A call or a tool: the name stands in it, or in its `function`.
    fn in_function(&mut self, node: &mut Node<'_>) {
        let Json::Object(members) = &mut node.value else { return };
        for member in members {
            match &*member.key {
                "function" => self.in_function(&mut member.node),
                "name" => self.rename(&mut member.node),
                _ => {}
            }
        }
    }

    fn rename(&mut self, node: &mut Node<'_>) {
        if let Json::String(name) = &mut node.value
            && !name.is_empty()
        {
            *name = self.word(name).into();
        }
    }
}

fn elements<'n, 'a>(node: &'n mut Node<'a>) -> &'n mut [Node<'a>] {
    match &mut node.value {
        Json::Array(elements) => elements,
        _ => &mut [],
    }
}

fn calls<'n>(node: &'n Node<'static>) -> &'n [Node<'static>] {
    node.get("tool_calls").and_then(Node::as_array).unwrap_or_default()
}

fn name_of<'n>(node: &'n Node<'_>) -> &'n str {
    node.get("function").unwrap_or(node).get("name").and_then(Node::as_str).unwrap_or_default()
}

fn document_word(index: usize) -> String {
    format!("Qz7d{index}Zq")
}

fn in_document(node: &mut Node<'_>, index: usize) {
    let Json::Object(members) = &mut node.value else { return };
    for member in members {
        if let ("text" | "content", Json::String(text)) = (&*member.key, &mut member.node.value) {
            *text = document_word(index).into();
        }
    }
}
