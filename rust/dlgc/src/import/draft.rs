//! The words in which importers are written: members taken out of objects, paths, and dialogues in the making.
//!
//! An importer takes what it understands out of a record and says it again in the native shape. Whatever is left of a
//! message becomes its `annotations`, whatever is left of the record its `metadata`: nothing of the source is lost, and no
//! field of another format is taken for a native one that happens to have its name.

use std::borrow::Cow;
use std::ops::Range;

use super::embedded;
use crate::json::{self, Fields, Json, Member, Node, object, string};

/// A message in the making.
pub(super) struct Turn<'a> {
    range: Range<usize>,
    members: Vec<(&'static str, Node<'a>)>,
}

impl<'a> Turn<'a> {
    /// A message of a role that stands, or stood, at `range`.
    pub(super) fn new(range: &Range<usize>, role: impl Into<Cow<'a, str>>) -> Self {
        Self { range: range.clone(), members: vec![("role", string(range, role))] }
    }

    pub(super) fn with(mut self, field: &'static str, node: Option<Node<'a>>) -> Self {
        self.members.extend(node.map(|node| (field, node)));
        self
    }

    pub(super) fn content(self, node: Option<Node<'a>>) -> Self {
        self.with("content", node)
    }

    /// Text that does not stand in the record by itself.
    pub(super) fn says(self, text: impl Into<Cow<'a, str>>) -> Self {
        let node = string(&self.range, text);
        self.content(Some(node))
    }

    pub(super) fn calls(self, calls: Vec<Node<'a>>) -> Self {
        let range = self.range.clone();
        self.with("tool_calls", (!calls.is_empty()).then(|| Node::new(range, Json::Array(calls))))
    }

    /// What is known after this turn; nothing where nothing is.
    pub(super) fn state(self, intent: Option<Node<'a>>, slots: Vec<(String, Node<'a>)>) -> Self {
        let range = self.range.clone();
        let mut state: Vec<(&'static str, Node<'a>)> = Vec::new();
        state.extend(intent.map(|intent| ("intent", intent)));
        state.push(("slots", named(&range, slots)));
        self.with("state", Some(object(&range, state)))
    }

    /// Keeps what the source says of the message beside it.
    pub(super) fn annotations(self, rest: Fields<'a>) -> Self {
        let left = !rest.members.is_empty();
        self.with("annotations", left.then(|| rest.into_node()))
    }

    pub(super) fn node(self) -> Node<'a> {
        object(&self.range, self.members)
    }
}

/// An object with keys that are made as it is.
pub(super) fn named<'a>(range: &Range<usize>, members: Vec<(String, Node<'a>)>) -> Node<'a> {
    let member = |(key, node): (String, Node<'a>)| Member { key: key.into(), key_range: range.clone(), node };
    Node::new(range.clone(), Json::Object(members.into_iter().map(member).collect()))
}

/// A call of a tool; `arguments` is an object, or a string that holds one.
pub(super) fn call<'a>(range: &Range<usize>, id: Option<String>, name: Node<'a>, arguments: Node<'a>) -> Node<'a> {
    let function = object(range, vec![("name", name), ("arguments", arguments)]);
    let mut members = Vec::new();
    members.extend(id.map(|id| ("id", string(range, id))));
    members.extend([("type", string(range, "function")), ("function", function)]);
    object(range, members)
}

/// A function that the assistant may call.
pub(super) fn tool<'a>(
    range: &Range<usize>,
    name: Node<'a>,
    description: Option<Node<'a>>,
    parameters: Node<'a>,
) -> Node<'a> {
    let mut function = vec![("name", name)];
    function.extend(description.map(|description| ("description", description)));
    function.push(("parameters", parameters));
    object(range, vec![("type", string(range, "function")), ("function", object(range, function))])
}

/// A list of functions as they are described elsewhere, each as `change` has it; anything but a list as it is.
pub(super) fn tools<'a>(list: Node<'a>, change: fn(Node<'a>) -> Node<'a>) -> Node<'a> {
    match list.value {
        Json::Array(tools) => Node::new(list.range, Json::Array(tools.into_iter().map(change).collect())),
        value => Node::new(list.range, value),
    }
}

/// A function whose members stand beside each other, the schema of its arguments under one of these names.
pub(super) fn described<'a>(function: Node<'a>, schema: &[&str]) -> Node<'a> {
    let range = function.range.clone();
    let mut function = Fields::of(function);
    let schema = function.take_any(schema);
    function.members.retain(|member| !matches!(&*member.key, "type" | "cache_control"));
    object(&range, vec![("type", string(&range, "function")), ("function", function.with("parameters", schema))])
}

/// The JSON Schema of a function's arguments.
pub(super) fn parameters<'a>(
    range: &Range<usize>,
    properties: Vec<(String, Node<'a>)>,
    required: Vec<Node<'a>>,
) -> Node<'a> {
    let required = Node::new(range.clone(), Json::Array(required));
    let properties = named(range, properties);
    object(range, vec![("type", string(range, "object")), ("properties", properties), ("required", required)])
}

/// What a tool returned, as text: strings as they are, anything else as JSON.
pub(super) fn result_text(result: Node<'_>) -> Node<'_> {
    match result.value {
        Json::String(_) => result,
        _ => string(&result.range.clone(), json::dumps(&result)),
    }
}

/// A number or a truth as text; anything else as it is.
pub(super) fn plain(node: Node<'_>) -> Node<'_> {
    match node.value {
        Json::Number(text) => string(&node.range, text),
        Json::Bool(value) => string(&node.range, value.to_string()),
        value => Node::new(node.range, value),
    }
}

/// JSON that may stand in a string.
pub(super) fn unwrapped(node: Node<'_>) -> Node<'_> {
    match embedded(&node) {
        Ok(Some(inner)) => inner,
        _ => node,
    }
}

/// A dialogue in the making.
pub(super) struct Draft<'a> {
    record: Fields<'a>,
    native: Vec<(&'static str, Node<'a>)>,
    pub(super) messages: Vec<Node<'a>>,
}

impl<'a> Draft<'a> {
    /// Begins with what is left of a record.
    pub(super) fn of(record: Fields<'a>) -> Self {
        Self { record, native: Vec::new(), messages: Vec::new() }
    }

    /// Gives a native field a value.
    pub(super) fn set(&mut self, field: &'static str, node: Option<Node<'a>>) {
        self.native.extend(node.map(|node| (field, node)));
    }

    /// Gives a native field text.
    pub(super) fn set_text(&mut self, field: &'static str, text: impl Into<Cow<'a, str>>) {
        let node = string(&self.record.range, text);
        self.set(field, Some(node));
    }

    /// Adds a message.
    pub(super) fn say(&mut self, turn: Turn<'a>) {
        self.messages.push(turn.node());
    }

    /// Adds a message of a role, where there is anything that it says.
    pub(super) fn says(&mut self, role: &'static str, said: Option<Node<'a>>) {
        if let Some(said) = said {
            self.say(Turn::new(&said.range.clone(), role).content(Some(said)));
        }
    }

    /// The dialogue in native shape.
    pub(super) fn node(mut self) -> Node<'a> {
        let range = self.record.range.clone();
        let given = self.native.iter().position(|(name, _)| *name == "metadata");
        let mut rest = match given {
            Some(at) => Fields::of(self.native.remove(at).1),
            None if self.record.get("metadata").is_some_and(|given| given.as_object().is_some()) => {
                self.record.fields("metadata")
            }
            None => Fields::of(Node::new(range.clone(), Json::Null)),
        };
        let known: Vec<Cow<'a, str>> = rest.members.iter().map(|member| member.key.clone()).collect();
        rest.members.extend(self.record.members.drain(..).filter(|member| !known.contains(&member.key)));
        let mut members = Vec::new();
        for field in ["id", "type"] {
            let at = self.native.iter().position(|(name, _)| *name == field);
            members.extend(at.map(|at| self.native.remove(at)));
        }
        members.push(("messages", Node::new(range.clone(), Json::Array(self.messages))));
        members.append(&mut self.native);
        if !rest.members.is_empty() {
            members.push(("metadata", Node::new(range.clone(), Json::Object(rest.members))));
        }
        object(&range, members)
    }
}
