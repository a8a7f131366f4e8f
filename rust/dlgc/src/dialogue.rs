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
    /// What its beginning said, for windows that leave it out.
    pub summaries: Vec<Summary<'a>>,
    /// The state before its first message, where it is a window of a longer one.
    pub running: Option<Node<'a>>,
}

/// What a record of preferences says of an answer, with which its dialogue ends.
#[derive(Debug, Clone)]
pub struct Judged<'a> {
    /// How many messages of the dialogue come before the answer.
    pub asked: usize,
    /// What it says.
    pub verdict: Verdict<'a>,
}

/// What is said of an answer.
#[derive(Debug, Clone)]
pub enum Verdict<'a> {
    /// It is better than the one with which this dialogue ends; what comes before both is the same.
    BetterThan(Box<Dialogue<'a>>),
    /// Whether it is good.
    Label(bool),
}

/// What the messages from the first one on said.
#[derive(Debug, Clone)]
pub struct Summary<'a> {
    /// Index of the last message that it covers.
    pub upto: usize,
    /// What they said.
    pub text: Cow<'a, str>,
    /// Where it stood in the record.
    pub range: Range<usize>,
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

impl Message<'_> {
    /// The same message with strings that are this one's.
    pub(crate) fn lent(&self) -> Message<'_> {
        Message {
            role: self.role,
            content: lent(&self.content),
            reasoning: lent(&self.reasoning),
            tool_calls: self.tool_calls.iter().map(ToolCall::lent).collect(),
            name: lent(&self.name),
            tool_call_id: lent(&self.tool_call_id),
            state: self.state.as_ref().map(Node::lent),
            train: self.train,
            range: self.range.clone(),
            content_range: self.content_range.clone(),
            call_id_range: self.call_id_range.clone(),
        }
    }
}

fn lent<'m>(text: &'m Option<Cow<'_, str>>) -> Option<Cow<'m, str>> {
    text.as_deref().map(Cow::Borrowed)
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

impl ToolCall<'_> {
    fn lent(&self) -> ToolCall<'_> {
        ToolCall { id: lent(&self.id), name: Cow::Borrowed(&self.name), arguments: self.arguments.lent() }
    }
}

impl Dialogue<'_> {
    /// Messages and nothing around them.
    pub(crate) fn of(messages: Vec<Message<'static>>) -> Dialogue<'static> {
        Dialogue {
            id: "".into(),
            kind: DialogueType::Chat,
            messages,
            tools: None,
            documents: None,
            template_kwargs: None,
            goal: None,
            metadata: None,
            group: None,
            split: None,
            summaries: Vec::new(),
            running: None,
        }
    }

    /// Indices of the assistant's messages.
    pub fn assistant_turns(&self) -> impl Iterator<Item = usize> + '_ {
        self.messages.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant).map(|(index, _)| index)
    }

    /// For each message the one whose call it answers; itself for all but tool results, and for those without a call.
    pub fn answered_calls(&self) -> Vec<usize> {
        let mut calls = Calls::default();
        let answered = |(index, message): (usize, &Message<'_>)| match message.role {
            Role::Tool => calls.answer(message).map_or(index, |call| call.message),
            _ => {
                calls.make(index, message);
                index
            }
        };
        self.messages.iter().enumerate().map(answered).collect()
    }
}

impl Message<'_> {
    /// A message that no record has.
    pub(crate) fn said(role: Role, content: &str) -> Self {
        Self {
            role,
            content: Some(Cow::Owned(content.to_owned())),
            reasoning: None,
            tool_calls: Vec::new(),
            name: None,
            tool_call_id: None,
            state: None,
            train: false,
            range: 0..0,
            content_range: 0..0,
            call_id_range: 0..0,
        }
    }
}

/// The calls that were made, while messages are looked at in order.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    made: Vec<MadeCall>,
    /// The first one of the last message that made any.
    newest: usize,
}

/// A call that was made.
#[derive(Debug)]
pub(crate) struct MadeCall {
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    /// The message that made it.
    pub(crate) message: usize,
    answered: bool,
}

impl Calls {
    /// Enters the calls of a message.
    pub(crate) fn make(&mut self, index: usize, message: &Message<'_>) {
        self.newest = self.made.len();
        self.made.extend(message.tool_calls.iter().map(|call| MadeCall {
            id: call.id.as_deref().map(str::to_owned),
            name: call.name.clone().into_owned(),
            message: index,
            answered: false,
        }));
    }

    /// The call that a tool message answers: by id where both have one, else the first open call, by name if it is named.
    pub(crate) fn answer(&mut self, message: &Message<'_>) -> Option<&MadeCall> {
        let id = message.tool_call_id.as_deref();
        let open = |call: &MadeCall| !call.answered && (id.is_none() || call.id.is_none());
        let named = |call: &MadeCall| message.name.as_deref() == Some(&*call.name);
        let by_id = self.made.iter().rposition(|call| id.is_some() && call.id.as_deref() == id);
        let by_name = || self.made.iter().position(|call| open(call) && named(call));
        let found = by_id.or_else(by_name).or_else(|| self.made.iter().position(open))?;
        self.made[found].answered = true;
        Some(&self.made[found])
    }

    /// Whether a call of the last message that made any has no result yet.
    pub(crate) fn is_open(&self) -> bool {
        self.made[self.newest..].iter().any(|call| !call.answered)
    }

    /// All calls, in order.
    pub(crate) fn all(&self) -> &[MadeCall] {
        &self.made
    }
}
