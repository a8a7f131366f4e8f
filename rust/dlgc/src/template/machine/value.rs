//! The values of a running template: Python's, as `json.loads` and Jinja make them.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use crate::json::{Json, Member, Node};
use crate::template::program::{For, Name};

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    /// Jinja's undefined, which prints nothing and may be asked for nothing.
    Undefined,
    None,
    Bool(bool),
    Int(i128),
    /// An integer of a record that is larger than any that templates compute with, as it was spelt.
    Huge(Rc<str>),
    Float(f64),
    Text(Text<'a>),
    Sequence(Sequence, Rc<Vec<Value<'a>>>),
    /// A list of the record.
    Array(&'a [Node<'a>]),
    /// An object of the record.
    Object(&'a [Member<'a>]),
    Dict(Rc<Vec<(Value<'a>, Value<'a>)>>),
    /// The messages from this one on, however many are shown.
    Messages(usize),
    /// The same in reverse.
    Reversed(usize),
    /// The number of messages that are shown, plus this.
    Count(i128),
    /// What filters such as `map` give: can be gone through once.
    Generator(usize),
    Namespace(usize),
    /// A macro, and the frame in which it was defined.
    Macro(usize, usize),
    Loop(Rc<Turn<'a>>),
    /// A method that was not called yet.
    Method(Rc<(Value<'a>, &'a str)>),
    /// A function of the environment.
    Function(Function),
}

/// What kind of sequence it is to Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sequence {
    List,
    Tuple,
    /// Keys, values or items of a dict; also a range: has a length, but is no JSON.
    View,
}

/// Functions of the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Raise,
    Now,
    Namespace,
    Range,
    Dict,
}

/// A string, `safe` where Jinja has it as markup.
#[derive(Debug, Clone)]
pub(super) struct Text<'a> {
    held: Held<'a>,
    pub(super) safe: bool,
    /// What it is made of, where a run is traced; 0 is what does not change with the strings of the messages.
    origin: u32,
}

thread_local! {
    /// Whether somebody looked into a text that changes with the strings of the messages.
    static LOOKED: Cell<bool> = const { Cell::new(false) };
}

/// Whether somebody has looked into such a text since this was last asked.
pub(in crate::template) fn looked() -> bool {
    LOOKED.take()
}

/// The same, without forgetting it.
pub(super) fn has_looked() -> bool {
    LOOKED.get()
}

/// Notes that somebody looks into such a text.
pub(super) fn look() {
    LOOKED.set(true);
}

/// The end of a range that is no place in a record: it begins with the number of a traced string.
const TRACED: usize = usize::MAX;

/// The range by which a node says that it is the traced string of a number.
pub(in crate::template) fn traced(number: u32) -> Range<usize> {
    number as usize..TRACED
}

/// The number of the traced string that a node says it is.
pub(super) fn numbered(node: &Node<'_>) -> Option<u32> {
    (node.range.end == TRACED).then_some(node.range.start as u32)
}

#[derive(Debug, Clone)]
enum Held<'a> {
    Borrowed(&'a str),
    Shared(Rc<str>),
}

/// One turn of a loop, as `loop` shows it.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) course: Rc<Course<'a>>,
    /// Which turn it is, from 0.
    pub(super) number: usize,
    /// Which item it is, those that the condition leaves out counted.
    pub(super) at: usize,
    /// The item of the turn before.
    pub(super) previous: Option<usize>,
}

/// What a loop goes through.
#[derive(Debug)]
pub(super) struct Course<'a> {
    pub(super) statement: &'a For,
    pub(super) items: Items<'a>,
    /// How many loops of the same statement it is inside of.
    pub(super) depth: usize,
    /// The frame around the loop.
    pub(super) frame: usize,
}

#[derive(Debug)]
pub(super) enum Items<'a> {
    /// The messages from this one on.
    Messages(usize),
    /// The same in reverse.
    Reversed(usize),
    List(Rc<Vec<Value<'a>>>),
    Array(&'a [Node<'a>]),
}

/// Variables of a scope.
#[derive(Debug, Clone, Default)]
pub(super) struct Frame<'a> {
    pub(super) variables: Vec<(Name, Value<'a>)>,
    /// The frame around it; the outermost one is its own.
    pub(super) parent: usize,
}

impl Frame<'_> {
    pub(super) fn inside(parent: usize) -> Self {
        Self { variables: Vec::new(), parent }
    }
}

impl<'a> Frame<'a> {
    pub(super) fn set(&mut self, name: Name, value: Value<'a>) {
        match self.variables.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.variables.push((name, value)),
        }
    }
}

impl<'a> Text<'a> {
    pub(super) fn as_str(&self) -> &str {
        if self.origin != 0 {
            look();
        }
        self.unseen()
    }

    /// The text, for who notes himself what he learns from it.
    pub(super) fn unseen(&self) -> &str {
        match &self.held {
            Held::Borrowed(text) => text,
            Held::Shared(text) => text,
        }
    }

    pub(super) fn origin(&self) -> u32 {
        self.origin
    }

    pub(super) fn made_of(mut self, origin: u32) -> Self {
        self.origin = origin;
        self
    }

    /// A piece of it.
    pub(super) fn slice(&self, range: Range<usize>) -> Self {
        if self.origin != 0 {
            look();
        }
        let held = match &self.held {
            Held::Borrowed(text) => Held::Borrowed(&text[range]),
            Held::Shared(text) if range == (0..text.len()) => Held::Shared(Rc::clone(text)),
            Held::Shared(text) => Held::Shared(text[range].into()),
        };
        Self { held, safe: self.safe, origin: 0 }
    }

    /// The piece that `part`, which was cut out of it, is.
    pub(super) fn cut(&self, part: &str) -> Self {
        let start = part.as_ptr() as usize - self.unseen().as_ptr() as usize;
        self.slice(start..start + part.len())
    }

    /// The text, where it is the record's or the template's own.
    pub(super) fn borrowed(&self) -> Option<&'a str> {
        if self.origin != 0 {
            look();
        }
        match &self.held {
            Held::Borrowed(text) => Some(text),
            Held::Shared(_) => None,
        }
    }

    pub(super) fn marked(mut self, safe: bool) -> Self {
        self.safe = safe;
        self
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self { held: Held::Borrowed(text), safe: false, origin: 0 }
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self { held: Held::Shared(text.into()), safe: false, origin: 0 }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl<'a> Value<'a> {
    /// A JSON value as `json.loads` gives it.
    pub(super) fn of(node: &'a Node<'a>) -> Self {
        match &node.value {
            Json::Null => Self::None,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(lexeme) => number(lexeme),
            Json::String(text) => Self::Text(Text::from(&**text).made_of(numbered(node).unwrap_or_default())),
            Json::Array(elements) => Self::Array(elements),
            Json::Object(members) => Self::Object(members),
        }
    }

    pub(super) fn list(items: Vec<Self>) -> Self {
        Self::Sequence(Sequence::List, Rc::new(items))
    }

    pub(super) fn tuple(items: Vec<Self>) -> Self {
        Self::Sequence(Sequence::Tuple, Rc::new(items))
    }

    pub(super) fn view(items: Vec<Self>) -> Self {
        Self::Sequence(Sequence::View, Rc::new(items))
    }

    pub(super) fn integer(value: usize) -> Self {
        Self::Int(value as i128)
    }

    pub(super) fn as_text(&self) -> Option<&Text<'a>> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        self.as_text().map(Text::as_str)
    }

    /// Whether it is certainly the same value.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Undefined, Self::Undefined) | (Self::None, Self::None) => true,
            (Self::Bool(one), Self::Bool(other)) => one == other,
            (Self::Int(one), Self::Int(other)) | (Self::Count(one), Self::Count(other)) => one == other,
            (Self::Text(one), Self::Text(other)) => {
                one.safe == other.safe && one.origin == other.origin && one.unseen() == other.unseen()
            }
            (Self::Messages(one), Self::Messages(other))
            | (Self::Reversed(one), Self::Reversed(other))
            | (Self::Namespace(one), Self::Namespace(other)) => one == other,
            (Self::Macro(one, frame), Self::Macro(other, other_frame)) => one == other && frame == other_frame,
            (Self::Array(one), Self::Array(other)) => std::ptr::eq(*one, *other),
            (Self::Object(one), Self::Object(other)) => std::ptr::eq(*one, *other),
            (Self::Sequence(kind, one), Self::Sequence(other_kind, other)) => {
                kind == other_kind
                    && one.len() == other.len()
                    && one.iter().zip(&**other).all(|(one, other)| one.is_same(other))
            }
            _ => false,
        }
    }

    /// What Python calls its type.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Undefined => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::Huge(_) | Self::Count(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::Sequence(Sequence::List, _) | Self::Array(_) | Self::Messages(_) | Self::Reversed(_) => "list",
            Self::Sequence(Sequence::Tuple, _) => "tuple",
            Self::Sequence(Sequence::View, _) => "view",
            Self::Object(_) | Self::Dict(_) => "dict",
            Self::Generator(_) => "generator",
            Self::Namespace(_) => "Namespace",
            Self::Macro(..) => "Macro",
            Self::Loop(_) => "LoopContext",
            Self::Method(_) => "method",
            Self::Function(_) => "function",
        }
    }
}

fn number<'a>(lexeme: &str) -> Value<'a> {
    if lexeme.contains(['.', 'e', 'E']) {
        return Value::Float(lexeme.parse().expect("the parser let only numbers through"));
    }
    lexeme
        .parse::<i128>()
        .map_or_else(|_| Value::Huge(crate::json::python_number(lexeme).into_owned().into()), Value::Int)
}
