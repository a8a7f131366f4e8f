//! The vocabulary of the passes: a dialogue that cannot be wrong.
//!
//! A [`Dialogue`] is made by [`crate::validate::validate`] and nowhere else; there is no such thing as an unvalidated
//! one. It borrows from the bytes of its record wherever nothing had to change.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::json::Node;

/// Fields of a message of the native shape; others are ignored with a warning.
pub(crate) const MESSAGE_FIELDS: [&str; 18] = [
    "role",
    "content",
    "reasoning_content",
    "reasoning",
    "thinking",
    "tool_call",
    "tool_calls",
    "state",
    "train",
    "weight",
    "loss_weight",
    "expect",
    "citations",
    "name",
    "tool_call_id",
    "result",
    "annotations",
    "id",
];

/// Where a record stood.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The file as the user would name it; `-` is standard input.
    pub file: Arc<str>,
    /// Which record of the file.
    pub position: Position,
    /// Its key, where the file is one object keyed by id.
    pub key: Option<Arc<str>>,
}

impl Location {
    /// A record without a key.
    pub fn new(file: impl Into<Arc<str>>, position: Position) -> Self {
        Self { file: file.into(), position, key: None }
    }
}

/// Which record of a file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Position {
    /// The record is this line.
    Line(u64),
    /// The record is this element of an array, value of an object, row of a table, or value of the file.
    Element(u64),
}

impl Position {
    /// The number itself, as the shards' `line` column has it.
    pub fn number(self) -> u64 {
        match self {
            Self::Line(number) | Self::Element(number) => number,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Position::Line(line) => write!(formatter, "{}:{line}", self.file)?,
            Position::Element(element) => write!(formatter, "{}[{element}]", self.file)?,
        }
        match &self.key {
            Some(key) => {
                let mut quoted = String::new();
                crate::json::write_string(&mut quoted, key, false);
                write!(formatter, " {quoted}")
            }
            None => Ok(()),
        }
    }
}

/// What kind of dialogue this is; decides metrics, never what is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialogueType {
    /// Open-domain chat.
    Chat,
    /// Task-oriented: intent, slots, state.
    Task,
    /// Tool calls.
    Tool,
}

impl DialogueType {
    /// As it is spelt in records and shards.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Task => "task",
            Self::Tool => "tool",
        }
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sets the rules.
    System,
    /// Sets the rules, in newer templates.
    Developer,
    /// Asks.
    User,
    /// Answers: the only one who is ever trained.
    Assistant,
    /// Reports what a call returned.
    Tool,
}

impl Role {
    /// All roles, in the order in which help texts list them.
    pub const ALL: [Self; 5] = [Self::System, Self::Developer, Self::User, Self::Assistant, Self::Tool];

    /// As it is spelt in records and templates.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One record: an ordered list of messages with at least one assistant turn.
#[derive(Debug, Clone)]
pub struct Dialogue<'a> {
    /// The record's own id, else one made from its place.
    pub id: Cow<'a, str>,
    /// Chat, task or tool.
    pub kind: DialogueType,
    /// The utterances; the last one is the assistant's.
    pub messages: Vec<Message<'a>>,
    /// Tool schemas, as the template gets them; `None` where the record has none.
    pub tools: Option<Node<'a>>,
    /// Retrieved context, as the template gets it.
    pub documents: Option<Node<'a>>,
    /// Template arguments of this record.
    pub template_kwargs: Option<Node<'a>>,
    /// What the user is after, for evaluation.
    pub goal: Option<Node<'a>>,
    /// Anything else that came with the record.
    pub metadata: Option<Node<'a>>,
    /// Paraphrase group: its members never straddle a split.
    pub group: Option<Cow<'a, str>>,
    /// The split that the record asks for.
    pub split: Option<Cow<'a, str>>,
}

/// One utterance by one role.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// Who speaks.
    pub role: Role,
    /// What is said; `None` where the record has null or nothing.
    pub content: Option<Cow<'a, str>>,
    /// The assistant's reasoning.
    pub reasoning: Option<Cow<'a, str>>,
    /// The assistant's calls, in order.
    pub tool_calls: Vec<ToolCall<'a>>,
    /// Name of the tool that answers, or of the speaker.
    pub name: Option<Cow<'a, str>>,
    /// The call that a tool message answers.
    pub tool_call_id: Option<Cow<'a, str>>,
    /// Intent and slots after this turn.
    pub state: Option<Node<'a>>,
    /// Whether this assistant message is trained; always false for other roles.
    pub train: bool,
    /// Where the message stood in its record.
    pub range: Range<usize>,
    /// Where its content stood.
    pub content_range: Range<usize>,
    /// Where its `tool_call_id` stood, else the message.
    pub call_id_range: Range<usize>,
}

/// The assistant's request to a tool.
#[derive(Debug, Clone)]
pub struct ToolCall<'a> {
    /// The call's id, which its result repeats.
    pub id: Option<Cow<'a, str>>,
    /// The tool.
    pub name: Cow<'a, str>,
    /// An object, or a string as some sources have it: the form decides what a template prints.
    pub arguments: Node<'a>,
}

impl Dialogue<'_> {
    /// Indices of the assistant's messages.
    pub fn assistant_turns(&self) -> impl Iterator<Item = usize> + '_ {
        self.messages.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant).map(|(index, _)| index)
    }
}
