//! Whether every field of a dialogue leaves a trace in the text.
//!
//! Looking for a content in the text is not enough: the word "ok", dropped, stands elsewhere too. So the dialogue is
//! rendered once more with a word of its own for every content, argument, tool, call and document (a [`Skeleton`] with
//! names), and the words are looked for. Dialogues of the same structure share that rendering.

use std::collections::{BTreeMap, HashMap};
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
        // With words of their own a tool is not taken for its call, unless the template looks one up by the other.
        let apart = self.look(&Scene::new(skeleton, around, true), prepared, skeleton, mode);
        apart
            .or_else(|| self.look(&Scene::new(skeleton, around, false), prepared, skeleton, mode))
            .unwrap_or(Found::Nothing)
    }

    /// What a rendering of the words shows; `None` where there is none.
    fn look(&self, scene: &Scene<'_>, prepared: &[Prepared], skeleton: &Skeleton, mode: Mode) -> Option<Found> {
        let Scene { messages: renamed, around: renamed_around, apart } = scene;
        let aliased: Vec<_> = renamed.iter().map(messages::aliased).collect();
        let shown: Vec<&Node<'_>> = aliased.iter().map(|node| &**node).collect();
        let stage = self.stage(&shown, renamed_around);
        let text = self.run(stage, shown.len(), false).ok()?.text;
        // Where targets are proved, what counts is what is shown in a turn's own rendering: history may be shortened.
        let shows_elsewhere = |index: usize, word: &str| {
            let is_assistant = prepared[index].role == Role::Assistant;
            let last = prepared.iter().rposition(|message| message.train).unwrap_or(0);
            let seen = if is_assistant { self.run(stage, index + 1, false) } else { self.run(stage, last, true) };
            mode == Mode::Prove && seen.is_ok_and(|seen| seen.text.contains(word))
        };
        let shown_times = |word: &str| text.matches(word).count();
        let mut called: HashMap<&str, usize> = HashMap::new();
        for (index, (message, node)) in prepared.iter().zip(renamed).enumerate() {
            if skeleton.said(index).any(|word| !text.contains(word) && !shows_elsewhere(index, word)) {
                return Some(Found::AllBut(Lost::Content(index)));
            }
            for (number, call) in calls(node).iter().enumerate() {
                let id = call.get("id").and_then(Node::as_str).filter(|id| id.contains(ID));
                if id.is_some_and(|id| text.contains(id)) {
                    continue;
                }
                let count = called.entry(name_of(call)).or_default();
                *count += 1;
                if shown_times(name_of(call)) < *count {
                    return Some(Found::AllBut(Lost::Call(index, number)));
                }
            }
            if let Some((number, _)) = skeleton.arguments(index).find(|(_, word)| !text.contains(*word)) {
                let number = number.min(calls(&message.node).len().saturating_sub(1));
                return Some(Found::AllBut(Lost::Call(index, number)));
            }
        }
        let tools = renamed_around[0].as_ref().and_then(Node::as_array).unwrap_or_default();
        for (index, tool) in tools.iter().enumerate() {
            let calls = if *apart { 0 } else { called.get(name_of(tool)).copied().unwrap_or(0) };
            if !name_of(tool).is_empty() && shown_times(name_of(tool)) <= calls {
                return Some(Found::AllBut(Lost::Tool(index)));
            }
        }
        let documents = renamed_around[1].as_ref().and_then(Node::as_array).unwrap_or_default();
        let lost = (0..documents.len()).find(|&index| !text.contains(&document_word(index)));
        Some(lost.map_or(Found::Everything, |index| Found::AllBut(Lost::Document(index))))
    }
}

/// A dialogue with a word for each name, tool and document too.
struct Scene<'a> {
    messages: Vec<Node<'static>>,
    around: [Option<Node<'a>>; 3],
    /// Whether a tool has another word than its calls.
    apart: bool,
}

impl<'a> Scene<'a> {
    fn new(skeleton: &Skeleton, around: &[Option<Node<'a>>; 3], apart: bool) -> Self {
        let mut names = Names::default();
        let mut messages = skeleton.messages.clone();
        messages.iter_mut().for_each(|message| names.in_message(message));
        let mut around = around.clone();
        names.of_tools = apart;
        around[0].as_mut().map_or(&mut [][..], elements).iter_mut().for_each(|tool| names.in_function(tool));
        let documents = around[1].as_mut().map_or(&mut [][..], elements);
        documents.iter_mut().enumerate().for_each(|(index, document)| in_document(document, index));
        Self { messages, around, apart }
    }
}

/// What the word begins with that stands for a name inside an id.
const ID: &str = "Qz7i";

/// A word for each name of a function, the same wherever it is called or answers.
#[derive(Default)]
struct Names {
    words: BTreeMap<(bool, String), String>,
    of_tools: bool,
}

impl Names {
    fn word(&mut self, name: &str) -> String {
        let number = self.words.len();
        self.words.entry((self.of_tools, name.to_owned())).or_insert_with(|| format!("Qz7f{number}Zq")).clone()
    }

    fn in_message(&mut self, node: &mut Node<'static>) {
        let is_tool = node.get("role").and_then(Node::as_str) == Some("tool");
        let Json::Object(members) = &mut node.value else { return };
        for member in members {
            match (&*member.key, &mut member.node) {
                ("name", node) if is_tool => self.rename(node),
                ("tool_call_id", node) if is_tool => self.in_id(node),
                ("tool_calls", node) => {
                    for call in elements(node) {
                        self.in_function(call);
                        let Json::Object(members) = &mut call.value else { continue };
                        let ids = members.iter_mut().filter(|member| member.key == "id");
                        ids.for_each(|member| self.in_id(&mut member.node));
                    }
                }
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

    /// An id may hold the name, and be all that a template prints of it: `functions.get_fare:0`.
    fn in_id(&self, node: &mut Node<'_>) {
        let Json::String(id) = &mut node.value else { return };
        let is_part = |character: char| character.is_alphanumeric() || character == '_' || character == '-';
        let stands = |name: &str| {
            id.find(name)
                .map(|at| at..at + name.len())
                .filter(|range| !id[..range.start].ends_with(is_part) && !id[range.end..].starts_with(is_part))
        };
        let names = self.words.iter().filter(|((_, name), _)| !name.is_empty());
        let found =
            names.filter_map(|((_, name), word)| Some((stands(name)?, word))).max_by_key(|(range, _)| range.len());
        if let Some((range, word)) = found {
            let word = word.replacen("Qz7f", ID, 1);
            id.to_mut().replace_range(range, &word);
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
