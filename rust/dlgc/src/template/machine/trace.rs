//! Traces: what a run prints, as pieces of scaffold and of the messages' strings, and what it asked of those.
//!
//! In: messages in which every string that may be another in another record is numbered ([`super::traced`]). Out: a
//! [`Trace`] that holds for every record of the same structure whose strings give the same answers, or `None`.
//!
//! A numbered string may be printed, joined to others, stripped of white space, and asked whether it is, holds, begins or
//! ends with a text that does not change; each answer becomes a condition. Whatever else a template does with it goes
//! through [`Text::as_str`], which notes that somebody looked: then there is no trace. Nothing is assumed about what
//! templates do.

use std::sync::{Arc, Mutex, PoisonError};

use super::methods::is_space;
use super::value::{Sequence, Text, Value, look, looked};
use super::{Arguments, Failure, Machine, Stage};
use crate::template::program::Program;

/// What runs of a template over the messages of one structure print and ask.
#[derive(Debug, Default)]
pub(in crate::template) struct Trace {
    ways: Ways,
    /// What is made of several strings.
    joined: Vec<Vec<Part>>,
    /// What no string may answer with yes.
    conditions: Vec<Condition>,
}

/// A string of the messages, by its number from 1; above that, in which way it is stripped.
pub(in crate::template) type Number = u32;

/// The way in which a string is stripped, and what it adds to the string's number.
pub(super) fn way(number: Number) -> u32 {
    number >> WAY
}

pub(super) fn by(way: u32) -> Number {
    way << WAY
}

/// A string that was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::template) struct Print {
    /// Where it begins, in bytes.
    pub(in crate::template) start: usize,
    pub(in crate::template) length: usize,
    /// Its number, or that of what several were joined to.
    pub(in crate::template) of: Number,
}

/// Where the way begins in a number, and the number of what is made of several strings.
const WAY: u32 = 16;
const JOINED: u32 = 1 << 31;

/// The number of the string of the messages that a number goes back to.
pub(in crate::template) fn root(number: Number) -> u32 {
    number & ((1 << WAY) - 1)
}

/// The ways in which a template strips strings, from 1: the same for all its traces.
#[derive(Debug, Clone, Default)]
pub(in crate::template) struct Ways(Arc<Mutex<Vec<Way>>>);

/// What goes from the ends of a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::template) struct Way {
    /// The way in which it was stripped before; 0 where it was not.
    before: u32,
    /// Whether from its beginning and from its end.
    sides: [bool; 2],
    /// The characters that go; `None` for all that are white space.
    set: Option<String>,
}

impl Ways {
    fn number(&self, way: Way) -> Option<u32> {
        // A panic elsewhere cannot have left a way half made.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().position(|known| *known == way);
        let index = found.unwrap_or_else(|| {
            known.push(way);
            known.len() - 1
        });
        u32::try_from(index + 1).ok().filter(|number| *number < JOINED >> WAY)
    }

    /// What is done to the string that a number goes back to, in order.
    pub(in crate::template) fn of(&self, number: Number) -> Vec<Way> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut ways, mut at) = (Vec::new(), number >> WAY);
        while let Some(way) = at.checked_sub(1).and_then(|index| known.get(index as usize)) {
            ways.push(way.clone());
            at = way.before;
        }
        ways.reverse();
        ways
    }
}

/// A piece of what a run prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::template) enum Part {
    /// What is the same in every record.
    Scaffold(String),
    String(Number),
}

/// What was asked of a string, and answered with no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::template) struct Condition {
    pub(in crate::template) of: Number,
    question: Question,
    with: String,
}

/// What can be asked of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    Empty,
    Equal,
    Holds,
    Begins,
    Ends,
}

impl Question {
    fn answer(self, text: &str, with: &[&str]) -> bool {
        match self {
            Self::Empty => text.is_empty(),
            Self::Equal => with.contains(&text),
            Self::Holds => with.iter().any(|with| text.contains(with)),
            Self::Begins => with.iter().any(|with| text.starts_with(with)),
            Self::Ends => with.iter().any(|with| text.ends_with(with)),
        }
    }
}

impl Condition {
    /// Whether every string without a `<` may be in its place.
    pub(in crate::template) fn is_on_brackets(&self) -> bool {
        self.with.contains('<')
    }

    /// Whether a string may be in its place.
    pub(in crate::template) fn holds(&self, text: &str) -> bool {
        !self.question.answer(text, &[&self.with])
    }
}

impl Way {
    /// What is left of a string.
    pub(in crate::template) fn apply<'t>(&self, text: &'t str) -> &'t str {
        strip(text, self.set.as_deref(), self.sides)
    }
}

fn strip<'t>(text: &'t str, set: Option<&str>, [start, end]: [bool; 2]) -> &'t str {
    let strips = |character: char| set.map_or_else(|| is_space(character), |set| set.contains(character));
    let text = if start { text.trim_start_matches(strips) } else { text };
    if end { text.trim_end_matches(strips) } else { text }
}

impl Trace {
    pub(in crate::template) fn new(ways: Ways) -> Self {
        Self { ways, ..Self::default() }
    }

    /// Runs a template over the first `count` messages: what it prints, without two pieces of scaffold side by side. `None`
    /// where that depends on more than the trace can say.
    pub(in crate::template) fn run(
        &mut self,
        program: &Program,
        stage: Stage<'_>,
        count: usize,
        add_generation_prompt: bool,
    ) -> Result<Option<Vec<Part>>, Failure> {
        let mut machine = Machine::new(program, stage, count, add_generation_prompt);
        machine.tracer = Some(Tracer::new(std::mem::take(self)));
        looked();
        let ran = machine.block(&program.body, &[]);
        let is_looked_into = looked();
        let ran = machine.located(ran);
        let tracer = machine.tracer.take().expect("set above");
        let parts = tracer.parts(&machine.out, 0);
        *self = tracer.trace;
        ran.map(|()| (!is_looked_into).then_some(parts))
    }

    /// What all runs so far asked.
    pub(in crate::template) fn into_conditions(self) -> Vec<Condition> {
        self.conditions
    }

    fn join(&mut self, parts: Vec<Part>) -> u32 {
        self.joined.push(parts);
        JOINED | (self.joined.len() - 1) as u32
    }

    /// Appends what a text is made of.
    fn append(&self, parts: &mut Vec<Part>, origin: u32, text: &str) {
        match origin {
            0 => scaffold(parts, text),
            JOINED.. => {
                for part in &self.joined[(origin ^ JOINED) as usize] {
                    match part {
                        Part::Scaffold(text) => scaffold(parts, text),
                        part => parts.push(part.clone()),
                    }
                }
            }
            _ => parts.push(Part::String(origin)),
        }
    }
}

/// Appends scaffold, to what is there already if there is.
fn scaffold(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Scaffold(before)) => before.push_str(text),
        _ => parts.push(Part::Scaffold(text.to_owned())),
    }
}

/// A trace in the making.
#[derive(Debug, Default)]
pub(super) struct Tracer {
    trace: Trace,
    /// Where what was printed is made of strings.
    prints: Vec<Print>,
}

impl Tracer {
    pub(super) fn new(trace: Trace) -> Self {
        Self { trace, prints: Vec::new() }
    }

    pub(super) fn into_trace(self) -> Trace {
        self.trace
    }

    /// How many strings were printed so far, as far as they are text by now.
    pub(super) fn count(&self) -> usize {
        self.prints.len()
    }

    pub(super) fn print(&mut self, print: Print) {
        self.prints.push(print);
    }

    pub(super) fn ways(&self, number: Number) -> Vec<Way> {
        if way(number) == 0 { Vec::new() } else { self.trace.ways.of(number) }
    }

    /// What was printed from a place on.
    fn parts(&self, text: &str, from: usize) -> Vec<Part> {
        self.parts_from(text, from, self.prints.partition_point(|print| print.start < from))
    }

    /// What was printed from a place on, and from the string on that was printed first after it.
    pub(super) fn parts_from(&self, text: &str, from: usize, first: usize) -> Vec<Part> {
        let (mut parts, mut at) = (Vec::new(), from);
        for &Print { start, length, of } in &self.prints[first..] {
            scaffold(&mut parts, &text[at..start]);
            self.trace.append(&mut parts, of, &text[start..start + length]);
            at = start + length;
        }
        scaffold(&mut parts, &text[at..]);
        parts
    }

    /// All strings that were printed, none of them joined.
    pub(super) fn printed(&self, text: &str, length: impl Fn(Number) -> usize) -> Vec<Print> {
        let mut printed = Vec::with_capacity(self.prints.len());
        for print in &self.prints {
            if print.of < JOINED {
                printed.push(*print);
                continue;
            }
            let mut parts = Vec::new();
            self.trace.append(&mut parts, print.of, &text[print.start..print.start + print.length]);
            let mut start = print.start;
            for part in parts {
                let length = match part {
                    Part::Scaffold(text) => text.len(),
                    Part::String(of) => {
                        let length = length(of);
                        printed.push(Print { start, length, of });
                        length
                    }
                };
                start += length;
            }
        }
        printed
    }

    /// What a text is made of that was printed from a place on; it counts as printed no more.
    fn take(&mut self, text: &str, from: usize) -> u32 {
        let first = self.prints.partition_point(|print| print.start < from);
        if first == self.prints.len() {
            return 0;
        }
        let parts = self.parts(text, from);
        self.prints.truncate(first);
        self.trace.join(parts)
    }
}

impl<'a> Machine<'a> {
    /// Answers what is asked of a text, with any of several others.
    pub(super) fn is(&mut self, text: &Text<'a>, question: Question, with: &[&str]) -> bool {
        let answer = question.answer(text.unseen(), with);
        if text.origin() != 0 {
            self.answered(text.origin(), question, with, answer);
        }
        answer
    }

    #[cold]
    fn answered(&mut self, of: u32, question: Question, with: &[&str], answer: bool) {
        let Some(Tracer { trace, .. }) = &mut self.tracer else { return look() };
        // No string of a record that a trace is used for is white space, and each answers like a word of its own.
        if question == Question::Empty && !answer {
            return;
        }
        if answer || of >= JOINED {
            return look();
        }
        for &with in with {
            let condition = Condition { of, question, with: with.to_owned() };
            if !trace.conditions.contains(&condition) {
                trace.conditions.push(condition.clone());
            }
            if let Some(lesson) = &mut self.lesson {
                lesson.answers(condition);
            }
        }
    }

    /// What a method of a numbered string gives, if it is one that a trace knows.
    #[cold]
    pub(super) fn traced_method(
        &mut self,
        text: &Text<'a>,
        name: &str,
        arguments: &Arguments<'a>,
    ) -> Option<Value<'a>> {
        match name {
            "strip" | "lstrip" | "rstrip" => {
                let sides = [name != "rstrip", name != "lstrip"];
                let set = arguments.take(0, "chars");
                let is_known = set.as_ref().is_none_or(|set| matches!(set, Value::Text(_)));
                is_known.then(|| Value::Text(self.traced_strip(text, set.as_ref(), sides)))
            }
            "startswith" | "endswith" => {
                let wanted = match arguments.positional.as_slice() {
                    [Value::Sequence(Sequence::Tuple, items)] => items.to_vec(),
                    [one @ Value::Text(_)] => vec![one.clone()],
                    _ => return None,
                };
                let wanted: Vec<&str> = wanted.iter().map(Value::as_str).collect::<Option<_>>()?;
                let question = if name == "startswith" { Question::Begins } else { Question::Ends };
                Some(Value::Bool(self.is(text, question, &wanted)))
            }
            _ => None,
        }
    }

    /// A numbered string without characters at its ends.
    #[cold]
    pub(super) fn traced_strip(&mut self, text: &Text<'a>, set: Option<&Value<'a>>, sides: [bool; 2]) -> Text<'a> {
        let set = set.and_then(Value::as_str).map(ToOwned::to_owned);
        let part = strip(text.unseen(), set.as_deref(), sides);
        let is_white = set.as_deref().is_none_or(|set| set.chars().all(char::is_whitespace));
        let origin = text.origin();
        let way = match &mut self.tracer {
            Some(Tracer { trace, .. }) if is_white && origin < JOINED => {
                trace.ways.number(Way { before: origin >> WAY, sides, set })
            }
            _ => None,
        };
        let number = way.map(|way| root(origin) | way << WAY);
        if number.is_none() {
            look();
        }
        text.clone().made_of(0).cut(part).made_of(number.unwrap_or_default())
    }

    /// What two texts joined are made of.
    pub(super) fn origin_of_both(&mut self, left: &Text<'a>, right: &Text<'a>) -> u32 {
        if left.origin() == 0 && right.origin() == 0 {
            return 0;
        }
        let Some(Tracer { trace, .. }) = &mut self.tracer else {
            look();
            return 0;
        };
        let mut parts = Vec::new();
        trace.append(&mut parts, left.origin(), left.unseen());
        trace.append(&mut parts, right.origin(), right.unseen());
        trace.join(parts)
    }

    /// Notes that a text made of strings is printed.
    #[cold]
    pub(super) fn prints(&mut self, text: &Text<'a>) {
        let at = self.out.len();
        match &mut self.tracer {
            Some(tracer) => tracer.print(Print { start: at, length: text.unseen().len(), of: text.origin() }),
            None => look(),
        }
    }

    /// What was printed since a place, taken back.
    pub(super) fn taken_back(&mut self, start: usize) -> Value<'a> {
        let origin = self.tracer.as_mut().map_or(0, |tracer| tracer.take(&self.out, start));
        Value::Text(Text::from(self.out.split_off(start)).made_of(origin))
    }

    /// Begins to print into a text of its own; what was printed so far.
    pub(super) fn prints_apart(&mut self) -> Vec<Print> {
        self.tracer.as_mut().map(|tracer| std::mem::take(&mut tracer.prints)).unwrap_or_default()
    }

    /// A text that was printed apart, and goes on with what was printed before.
    pub(super) fn captured(&mut self, text: String, printed: Vec<Print>) -> Text<'a> {
        let mut origin = 0;
        if let Some(tracer) = &mut self.tracer {
            origin = tracer.take(&text, 0);
            tracer.prints = printed;
        }
        Text::from(text).made_of(origin)
    }
}
