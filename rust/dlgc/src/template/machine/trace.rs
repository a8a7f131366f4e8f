//! Traces: what a run prints, as pieces of scaffold and of the messages' strings, and what it asked of those.
//!
//! In: messages in which every string that may be another in another record is numbered ([`super::traced`]). Out: a
//! [`Trace`] that holds for every record of the same structure whose strings give the same answers, or `None`.
//!
//! A numbered string may be printed, joined to others, stripped of white space, and asked whether it is, holds, begins or
//! ends with a text that does not change; each answer becomes a condition. Whatever else a template does with it goes
//! through [`Text::as_str`], which notes that somebody looked: then there is no trace. Nothing is assumed about what
//! templates do.

use super::methods::is_space;
use super::value::{Sequence, Text, Value, look, looked};
use super::{Arguments, Failure, Machine, Stage};
use crate::template::program::Program;

/// What the runs of a template over the messages of one structure print and ask.
#[derive(Debug, Default)]
pub(in crate::template) struct Trace {
    /// How many strings the messages have; they are numbered from 1.
    strings: u32,
    /// What is made of them, numbered on.
    made: Vec<Made>,
    /// What no string may answer with yes.
    conditions: Vec<Condition>,
}

/// Something that is made of strings.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Made {
    /// One of them without the white space at its ends.
    Stripped(Stripped),
    Joined(Vec<Part>),
}

/// A string without white space at its ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::template) struct Stripped {
    /// The number of the string.
    pub(in crate::template) of: u32,
    /// Whether at its beginning and at its end.
    sides: [bool; 2],
    /// The characters that go; `None` for all that are white space.
    set: Option<String>,
}

/// A piece of what a run prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::template) enum Part {
    /// What is the same in every record.
    Scaffold(String),
    /// A string of the messages, or one that is stripped.
    String(u32),
}

/// What was asked of a string, and answered with no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::template) struct Condition {
    pub(in crate::template) of: u32,
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

impl Stripped {
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
    /// For messages with so many strings.
    pub(in crate::template) fn new(strings: u32) -> Self {
        Self { strings, ..Self::default() }
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
        machine.tracer = Some(Tracer { trace: std::mem::take(self), prints: Vec::new() });
        looked();
        let ran = machine.block(&program.body, &[]);
        let is_looked_into = looked();
        let ran = machine.located(ran);
        let tracer = machine.tracer.take().expect("set above");
        let parts = tracer.parts(&machine.out, 0);
        *self = tracer.trace;
        ran.map(|()| (!is_looked_into).then_some(parts))
    }

    /// What a string is without its white space, where it is made of another.
    pub(in crate::template) fn stripped(&self) -> impl Iterator<Item = Option<&Stripped>> {
        self.made.iter().map(|made| match made {
            Made::Stripped(stripped) => Some(stripped),
            Made::Joined(_) => None,
        })
    }

    pub(in crate::template) fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// The number of the string of the messages that a number goes back to.
    pub(in crate::template) fn root(&self, mut number: u32) -> u32 {
        while let Some(Made::Stripped(stripped)) = self.made(number) {
            number = stripped.of;
        }
        number
    }

    fn made(&self, number: u32) -> Option<&Made> {
        self.made.get(number.checked_sub(self.strings + 1)? as usize)
    }

    fn number(&mut self, made: Made) -> u32 {
        let known = self.made.iter().position(|known| *known == made);
        let index = known.unwrap_or_else(|| {
            self.made.push(made);
            self.made.len() - 1
        });
        self.strings + 1 + index as u32
    }

    /// Appends what a text is made of.
    fn append(&self, parts: &mut Vec<Part>, origin: u32, text: &str) {
        match (origin, self.made(origin)) {
            (0, _) => scaffold(parts, text),
            (_, Some(Made::Joined(joined))) => {
                for part in joined {
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
    /// Where what was printed is made of strings: its place, its length, and of what.
    prints: Vec<(usize, usize, u32)>,
}

impl Tracer {
    /// What was printed from a place on.
    fn parts(&self, text: &str, from: usize) -> Vec<Part> {
        let (mut parts, mut at) = (Vec::new(), from);
        for &(start, length, origin) in self.prints.iter().filter(|(start, ..)| *start >= from) {
            scaffold(&mut parts, &text[at..start]);
            self.trace.append(&mut parts, origin, &text[start..start + length]);
            at = start + length;
        }
        scaffold(&mut parts, &text[at..]);
        parts
    }

    /// What a text is made of that was printed from a place on; it counts as printed no more.
    fn take(&mut self, text: &str, from: usize) -> u32 {
        let first = self.prints.partition_point(|(start, ..)| *start < from);
        if first == self.prints.len() {
            return 0;
        }
        let parts = self.parts(text, from);
        self.prints.truncate(first);
        self.trace.number(Made::Joined(parts))
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
        if answer || matches!(trace.made(of), Some(Made::Joined(_))) {
            return look();
        }
        for &with in with {
            let condition = Condition { of, question, with: with.to_owned() };
            if !trace.conditions.contains(&condition) {
                trace.conditions.push(condition);
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
        let number = match &mut self.tracer {
            Some(Tracer { trace, .. }) if is_white && !matches!(trace.made(text.origin()), Some(Made::Joined(_))) => {
                trace.number(Made::Stripped(Stripped { of: text.origin(), sides, set }))
            }
            _ => {
                look();
                0
            }
        };
        text.clone().made_of(0).cut(part).made_of(number)
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
        trace.number(Made::Joined(parts))
    }

    /// Notes that a text made of strings is printed.
    #[cold]
    pub(super) fn prints(&mut self, text: &Text<'a>) {
        let at = self.out.len();
        match &mut self.tracer {
            Some(tracer) => tracer.prints.push((at, text.unseen().len(), text.origin())),
            None => look(),
        }
    }

    /// What was printed since a place, taken back.
    pub(super) fn taken_back(&mut self, start: usize) -> Value<'a> {
        let origin = self.tracer.as_mut().map_or(0, |tracer| tracer.take(&self.out, start));
        Value::Text(Text::from(self.out.split_off(start)).made_of(origin))
    }

    /// Begins to print into a text of its own; what was printed so far.
    pub(super) fn prints_apart(&mut self) -> Vec<(usize, usize, u32)> {
        self.tracer.as_mut().map(|tracer| std::mem::take(&mut tracer.prints)).unwrap_or_default()
    }

    /// A text that was printed apart, and goes on with what was printed before.
    pub(super) fn captured(&mut self, text: String, printed: Vec<(usize, usize, u32)>) -> Text<'a> {
        let mut origin = 0;
        if let Some(tracer) = &mut self.tracer {
            origin = tracer.take(&text, 0);
            tracer.prints = printed;
        }
        Text::from(text).made_of(origin)
    }
}
