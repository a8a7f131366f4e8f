//! Whether every field of a dialogue leaves a trace in the text.
//!
//! Looking for a content in the text is not enough: the word "ok", dropped, stands elsewhere too. So the dialogue is
//! rendered once more with a word of its own for every content, argument, tool, call and document (a [`Skeleton`] with
//! names), and the words are looked for. Dialogues of the same structure share that rendering.
//!
//! Where a template takes it, two calls of one function have two words, and neither is that of the tool or of who answers;
//! the names of arguments have words too. A second call without any text, dropped, is then missed.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use super::messages::{self, Prepared};
use super::skeleton::{Skeleton, key_of_plain};
use super::{Mode, Template, hash_of};
use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::Role;
use crate::json::{self, Json, Node};

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
    pub(super) fn nothing_lost<'m, F: FnOnce() -> Skeleton<'m>>(
        &self,
        prepared: &[Prepared<'_>],
        around: &[Option<Node<'_>>; 3],
        skeleton: &LazyCell<Skeleton<'m>, F>,
        text: &str,
        mode: Mode,
    ) -> Result<(), Diagnostic> {
        let Some(last) = prepared.len().checked_sub(1) else { return Ok(()) };
        // Who proves targets needs the skeleton anyway.
        let is_plain = mode == Mode::Blocks && around.iter().all(Option::is_none);
        let plain = is_plain.then(|| key_of_plain(prepared.iter().map(|message| &message.node))).flatten();
        let key = plain.unwrap_or_else(|| skeleton.key(last, hash_of(around)) ^ u128::from(mode == Mode::Prove));
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
        prepared: &[Prepared<'_>],
        around: &[Option<Node<'_>>; 3],
        skeleton: &Skeleton<'_>,
        mode: Mode,
    ) -> Found {
        let words = [Words::Calls, Words::Tools, Words::Names];
        let found = words
            .into_iter()
            .find_map(|words| self.look(&Scene::new(skeleton, around, words), prepared, skeleton, mode));
        found.unwrap_or(Found::Nothing)
    }

    /// What a rendering of the words shows; `None` where there is none.
    fn look(&self, scene: &Scene<'_>, prepared: &[Prepared<'_>], skeleton: &Skeleton<'_>, mode: Mode) -> Option<Found> {
        let Scene { messages: renamed, around: renamed_around, keys, words } = scene;
        let aliased: Vec<_> = renamed.iter().map(messages::aliased).collect();
        let shown: Vec<&Node<'_>> = aliased.iter().map(|node| &**node).collect();
        let stage = self.stage(&shown, renamed_around);
        let text = self.run(stage, shown.len(), false).ok()?.text;
        // Where targets are proved, what counts is what is shown in a turn's own rendering: history may be shortened.
        let own = |index: usize| {
            let is_assistant = prepared[index].role == Role::Assistant;
            let last = prepared.iter().rposition(|message| message.train).unwrap_or(0);
            let seen = if is_assistant { self.run(stage, index + 1, false) } else { self.run(stage, last, true) };
            seen.map(|seen| seen.text).unwrap_or_default()
        };
        let shows_elsewhere = |index: usize, word: &str| mode == Mode::Prove && own(index).contains(word);
        let shown_times = |word: &str| text.matches(word).count();
        let mut called: HashMap<&str, usize> = HashMap::new();
        for (index, (message, node)) in prepared.iter().zip(renamed).enumerate() {
            if skeleton.said(index).any(|word| !text.contains(word) && !shows_elsewhere(index, word)) {
                return Some(Found::AllBut(Lost::Content(index)));
            }
            // Of several calls some may stand in the history only.
            let own = (mode == Mode::Prove && *words == Words::Calls && calls(node).len() > 1).then(|| own(index));
            let is_shown = |word: &str| text.contains(word) && own.as_ref().is_none_or(|own| own.contains(word));
            for (number, call) in calls(node).iter().enumerate() {
                let id = call.get("id").and_then(Node::as_str).filter(|id| id.contains(ID));
                if id.is_some_and(is_shown) {
                    continue;
                }
                let count = called.entry(name_of(call)).or_default();
                *count += 1;
                if shown_times(name_of(call)) < *count || !is_shown(name_of(call)) {
                    return Some(Found::AllBut(Lost::Call(index, number)));
                }
            }
            let names = keys[index].iter().map(|(number, word)| (*number, word.as_str()));
            if let Some((number, _)) = skeleton.arguments(index).chain(names).find(|(_, word)| !is_shown(word)) {
                let number = number.min(calls(&message.node).len().saturating_sub(1));
                return Some(Found::AllBut(Lost::Call(index, number)));
            }
        }
        let tools = renamed_around[0].as_ref().and_then(Node::as_array).unwrap_or_default();
        for (index, tool) in tools.iter().enumerate() {
            let calls = if *words != Words::Names { 0 } else { called.get(name_of(tool)).copied().unwrap_or(0) };
            if !name_of(tool).is_empty() && shown_times(name_of(tool)) <= calls {
                return Some(Found::AllBut(Lost::Tool(index)));
            }
        }
        let documents = renamed_around[1].as_ref().and_then(Node::as_array).unwrap_or_default();
        let lost = (0..documents.len()).find(|&index| !text.contains(&document_word(index)));
        Some(lost.map_or(Found::Everything, |index| Found::AllBut(Lost::Document(index))))
    }
}

/// What has words of its own, beside what is said. A template may look one thing up by the name of another, and refuses
/// the dialogue where they differ; the first that it takes is what counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    /// Each call, each argument's name, each tool, each function that answers.
    Calls,
    /// Each function that is called, each tool.
    Tools,
    /// Each name.
    Names,
}

/// A dialogue with a word for each name, tool and document too.
struct Scene<'a> {
    messages: Vec<Node<'a>>,
    around: [Option<Node<'a>>; 3],
    /// For each message, the words for names of arguments, with the number of the call.
    keys: Vec<Vec<(usize, String)>>,
    words: Words,
}

impl<'a> Scene<'a> {
    fn new(skeleton: &Skeleton<'a>, around: &[Option<Node<'a>>; 3], words: Words) -> Self {
        let mut names = Names { words, known: BTreeMap::new(), ids: HashMap::new(), keys: Vec::new(), counted: 0 };
        let mut messages = skeleton.messages.clone();
        let mut keys = Vec::with_capacity(messages.len());
        for message in &mut messages {
            names.in_message(message);
            keys.push(std::mem::take(&mut names.keys));
        }
        let mut around = around.clone();
        for tool in around[0].as_mut().map_or(&mut [][..], elements) {
            names.in_function(tool, if words == Words::Names { Of::Call } else { Of::Tool });
        }
        let documents = around[1].as_mut().map_or(&mut [][..], elements);
        documents.iter_mut().enumerate().for_each(|(index, document)| in_document(document, index));
        Self { messages, around, keys, words }
    }
}

/// What the word begins with that stands for a name inside an id.
const ID: &str = "Qz7i";

/// Whose name it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Call,
    /// What a tool's message says that answers.
    Answer,
    Tool,
}

/// A word for each name of a function.
struct Names {
    words: Words,
    known: BTreeMap<(Of, String), String>,
    /// What has become of the ids of calls.
    ids: HashMap<String, String>,
    /// The words for names of arguments of the message at hand, with the number of the call.
    keys: Vec<(usize, String)>,
    /// Names of arguments so far.
    counted: usize,
}

impl Names {
    fn word(&mut self, name: &str, of: Of) -> String {
        let number = self.known.len();
        let word = || format!("Qz7f{number}Zq");
        if of == Of::Call && self.words == Words::Calls {
            // No name holds a line break; so every call is another.
            return self.known.entry((of, format!("{name}\n{number}"))).or_insert_with(word).clone();
        }
        self.known.entry((of, name.to_owned())).or_insert_with(word).clone()
    }

    fn in_message(&mut self, node: &mut Node<'_>) {
        let is_tool = node.get("role").and_then(Node::as_str) == Some("tool");
        let answers = if self.words == Words::Calls { Of::Answer } else { Of::Call };
        let Json::Object(members) = &mut node.value else { return };
        for member in members {
            match (&*member.key, &mut member.node) {
                ("name", node) if is_tool => {
                    self.rename(node, answers);
                }
                ("tool_call_id", Node { value: Json::String(id), .. }) if is_tool => {
                    if let Some(renamed) = self.ids.get(&**id) {
                        *id = renamed.clone().into();
                    }
                }
                ("tool_calls", node) => {
                    elements(node).iter_mut().enumerate().for_each(|(number, call)| self.in_call(call, number));
                }
                _ => {}
            }
        }
    }

    fn in_call(&mut self, call: &mut Node<'_>, number: usize) {
        let renamed = self.in_function(call, Of::Call);
        if self.words == Words::Calls
            && let Some(arguments) = member_of(call, "function").and_then(|function| member_of(function, "arguments"))
        {
            self.in_arguments(arguments, number);
        }
        if let (Some((name, word)), Some(Node { value: Json::String(id), .. })) = (renamed, member_of(call, "id")) {
            let was = id.clone().into_owned();
            in_id(id, &name, &word);
            self.ids.insert(was, id.clone().into_owned());
        }
    }

    /// A call or a tool: the name stands in it, or in its `function`; which it was, and the word.
    fn in_function(&mut self, node: &mut Node<'_>, of: Of) -> Option<(String, String)> {
        let Json::Object(members) = &mut node.value else { return None };
        let mut renamed = None;
        for member in members {
            match &*member.key {
                "function" => renamed = self.in_function(&mut member.node, of).or(renamed),
                "name" => renamed = self.rename(&mut member.node, of).or(renamed),
                _ => {}
            }
        }
        renamed
    }

    fn rename(&mut self, node: &mut Node<'_>, of: Of) -> Option<(String, String)> {
        let Json::String(name) = &mut node.value else { return None };
        let was = name.clone().into_owned();
        if was.is_empty() {
            return None;
        }
        let word = self.word(&was, of);
        *name = word.clone().into();
        Some((was, word))
    }

    /// A word for each name of an argument, in an object or in the text of one.
    fn in_arguments(&mut self, node: &mut Node<'_>, call: usize) {
        match &mut node.value {
            Json::String(text) => {
                if let Ok(parsed) = json::parse(text.as_bytes()) {
                    let mut parsed = parsed.root;
                    self.keys_of(&mut parsed, call);
                    *text = json::dumps(&parsed).into();
                }
            }
            _ => self.keys_of(node, call),
        }
    }

    fn keys_of(&mut self, node: &mut Node<'_>, call: usize) {
        match &mut node.value {
            Json::Object(members) => {
                for member in members {
                    let word = format!("Qz7k{}Zq", self.counted);
                    self.counted += 1;
                    member.key = word.clone().into();
                    self.keys.push((call, word));
                    self.keys_of(&mut member.node, call);
                }
            }
            Json::Array(elements) => elements.iter_mut().for_each(|element| self.keys_of(element, call)),
            _ => {}
        }
    }
}

/// An id may hold the name, and be all that a template prints of it: `functions.get_fare:0`.
fn in_id(id: &mut Cow<'_, str>, name: &str, word: &str) {
    let is_part = |character: char| character.is_alphanumeric() || character == '_' || character == '-';
    let stands = id.find(name).map(|at| at..at + name.len());
    if let Some(range) =
        stands.filter(|range| !id[..range.start].ends_with(is_part) && !id[range.end..].starts_with(is_part))
    {
        id.to_mut().replace_range(range, &word.replacen("Qz7f", ID, 1));
    }
}

fn member_of<'n, 'a>(node: &'n mut Node<'a>, name: &str) -> Option<&'n mut Node<'a>> {
    let Json::Object(members) = &mut node.value else { return None };
    members.iter_mut().find(|member| member.key == name).map(|member| &mut member.node)
}

fn elements<'n, 'a>(node: &'n mut Node<'a>) -> &'n mut [Node<'a>] {
    match &mut node.value {
        Json::Array(elements) => elements,
        _ => &mut [],
    }
}

fn calls<'n, 'm>(node: &'n Node<'m>) -> &'n [Node<'m>] {
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
