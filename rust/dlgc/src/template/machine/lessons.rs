//! Turns of loops that are known: what one printed and remembered is repeated for every turn like it.
//!
//! In: a run over numbered strings (see [`super::trace`]). While a turn of an outermost loop over the messages, from the
//! first one on or from the last one back, runs for the first time, all that it asks is noted as a [`Guard`]: which messages it read and of what shape they are, whether the
//! turn is the first one, what a namespace held, how a number that it remembers compares with the place of the turn, what
//! its strings answer. What it printed and set is its [`Known`] outcome. A turn for which all guards hold prints and sets
//! the same, so it need not run.
//!
//! Nothing is assumed about what templates do: a turn that asks for something that no guard can say (a number as such, how
//! many messages there are) is not learnt, and runs as always.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use foldhash::fast::RandomState;
use xxhash_rust::xxh3::xxh3_128;

use super::trace::{Condition, Part, Print, Way, root, way};
use super::value::{Course, Frame, Items, Text, Value};
use super::{Done, Flow, Machine};
use crate::json::{Json, Node};
use crate::template::program::{Arithmetic, Comparison, Expression, Name, Target};

/// The messages of a run whose strings are numbered, from 1.
#[derive(Debug)]
pub(in crate::template) struct Numbered<'a> {
    /// For each message, a hash of all of it but its numbered strings.
    pub(in crate::template) shapes: Vec<u128>,
    /// For each message, the numbers of its strings. Numbers between those of two messages may be of none.
    pub(in crate::template) numbers: Vec<Range<u32>>,
    /// The strings by their numbers.
    pub(in crate::template) strings: &'a [&'a str],
}

/// Turns by the loop: the program, the statement, and the variables around it.
type Loops = HashMap<(u64, usize, u128), Rc<Turns>, RandomState>;

/// Turns of a loop by the shape of their message.
type Turns = RefCell<HashMap<u128, OfShape, RandomState>>;

thread_local! {
    /// What this thread has learnt.
    static LOOPS: RefCell<Loops> = RefCell::default();
    /// How many turns that is, learnt or not.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// How many turns and loops are kept; all is forgotten when there are more.
const KEPT: usize = 1 << 14;
/// How many turns are kept of a loop for messages of one shape, and how often it is tried to learn one that cannot be.
const TURNS_KEPT: usize = 32;
const TRIED: u32 = 16;

#[derive(Debug, Default)]
pub(super) struct OfShape {
    known: Vec<Rc<Known>>,
    /// How many turns could not be learnt.
    failed: u32,
}

/// A turn that is known.
#[derive(Debug)]
struct Known {
    guards: Vec<Guard>,
    printed: Vec<Printed>,
    set: Vec<(usize, String, Set)>,
    flow: Flow,
    /// Whether all turns after it do nothing either: see [`super::loops::Watch`].
    is_idle: bool,
    fuel: u64,
}

/// A message, seen from a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// So many messages after the turn's own.
    Near(isize),
    At(usize),
}

/// What must be so for a turn to be like another.
#[derive(Debug, PartialEq)]
enum Guard {
    /// A message is there and has this shape.
    Shape(Place, u128),
    /// Whether there is a message so many after the turn's own.
    There(isize, bool),
    First(bool),
    /// How the place of the turn, from 0, compares with a number.
    Turn(Comparison, i128, bool),
    /// What is left of that place, plus a number, where it is divided by another.
    Remains(i128, i128, i128),
    /// Whether a generation prompt is asked for.
    Asked(bool),
    /// What a namespace holds.
    Holds(usize, String, Kept),
    Compares(Compares),
    /// A string answers with no.
    Answers(Place, u32, Vec<Way>, Condition),
}

/// How a number that a namespace holds compares.
#[derive(Debug, PartialEq)]
struct Compares {
    namespace: usize,
    attribute: String,
    comparison: Comparison,
    with: i128,
    /// Whether the place of the turn, from 0, is to be added.
    from_turn: bool,
    holds: bool,
}

/// A piece of what a turn prints.
#[derive(Debug)]
enum Printed {
    Scaffold(Box<str>),
    /// A string of a message, by its place among those of the message, and how it is stripped.
    String(Place, u32, u32, Vec<Way>),
}

/// A value that is the same in every record.
#[derive(Debug, Clone, PartialEq)]
enum Kept {
    Undefined,
    None,
    Bool(bool),
    Int(i128),
    Count(i128),
    Text(Box<str>, bool),
}

impl Kept {
    fn of(value: &Value<'_>) -> Option<Self> {
        Some(match value {
            Value::Undefined => Self::Undefined,
            Value::None => Self::None,
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Count(offset) => Self::Count(*offset),
            Value::Text(text) if text.origin() == 0 => Self::Text(text.unseen().into(), text.safe),
            _ => return None,
        })
    }

    fn is(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Undefined, Value::Undefined) | (Self::None, Value::None) => true,
            (Self::Bool(one), Value::Bool(other)) => one == other,
            (Self::Int(one), Value::Int(other)) | (Self::Count(one), Value::Count(other)) => one == other,
            (Self::Text(one, safe), Value::Text(other)) => {
                other.origin() == 0 && *safe == other.safe && **one == *other.unseen()
            }
            _ => false,
        }
    }

    fn value<'a>(&self) -> Value<'a> {
        match self {
            Self::Undefined => Value::Undefined,
            Self::None => Value::None,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Count(offset) => Value::Count(*offset),
            Self::Text(text, safe) => Value::Text(Text::from(text.to_string()).marked(*safe)),
        }
    }
}

/// What an attribute is set to.
#[derive(Debug)]
enum Set {
    Kept(Kept),
    /// The number of messages, plus this, less the place of the turn.
    Back(i128),
}

/// A turn that is being learnt.
#[derive(Debug)]
pub(super) struct Lesson {
    /// The address of the course of its loop.
    course: usize,
    /// The number of its message, and of the turn.
    message: usize,
    number: usize,
    guards: Vec<Guard>,
    conditions: Vec<Condition>,
    set: Vec<(usize, String)>,
    /// Names that say how far the turn is from the end, in which frame, and attributes that were set to such a name.
    names: Vec<(Name, usize, i128)>,
    back: Vec<(usize, String, i128)>,
    is_reversed: bool,
    /// Whether it asked for what no guard can say.
    is_lost: bool,
    /// Whether the place of the turn is asked for by who notes himself what he makes of it.
    is_noted: bool,
    printed_from: usize,
    prints_from: usize,
    fuel: u64,
    namespaces: usize,
}

impl<'a> Numbered<'a> {
    /// The message of a string, and its place among those of the message.
    fn of(&self, number: u32) -> (usize, u32) {
        let message = self.numbers.partition_point(|numbers| numbers.start <= root(number)) - 1;
        (message, root(number) - self.numbers[message].start)
    }

    /// How long a string is, stripped as its number says.
    pub(super) fn length(&self, number: u32, ways: &[Way]) -> usize {
        let text = self.strings[root(number) as usize - 1];
        ways.iter().fold(text, |text, way| way.apply(text)).len()
    }

    fn string(&self, message: usize, index: u32) -> (u32, &'a str) {
        let number = self.numbers[message].start + index;
        (number, self.strings[number as usize - 1])
    }
}

/// A hash of all of a message but its numbered strings.
pub(in crate::template) fn shape(message: &Node<'_>) -> u128 {
    let mut out = Vec::with_capacity(256);
    write_shape(message, &mut out);
    xxh3_128(&out)
}

/// All of a node but its numbered strings, so that no two nodes say the same.
fn write_shape(node: &Node<'_>, out: &mut Vec<u8>) {
    let text = |text: &str, out: &mut Vec<u8>| {
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    };
    match &node.value {
        Json::Null => out.push(0),
        Json::Bool(value) => out.extend([1, u8::from(*value)]),
        Json::Number(lexeme) => {
            out.push(2);
            text(lexeme, out);
        }
        Json::String(_) if super::value::numbered(node).is_some() => out.push(3),
        Json::String(said) => {
            out.push(4);
            text(said, out);
        }
        Json::Array(elements) => {
            out.push(5);
            out.extend((elements.len() as u32).to_le_bytes());
            elements.iter().for_each(|element| write_shape(element, out));
        }
        Json::Object(members) => {
            out.push(6);
            out.extend((members.len() as u32).to_le_bytes());
            for member in members {
                text(&member.key, out);
                write_shape(&member.node, out);
            }
        }
    }
}

/// A hash of the variables around a loop; `None` where one is not the same in every record of a structure.
fn fingerprint(frames: &[Frame<'_>], frame: usize) -> Option<u128> {
    let mut out = Vec::with_capacity(512);
    out.extend(frame.to_le_bytes());
    for frame in frames {
        out.extend(frame.parent.to_le_bytes());
        out.extend(frame.variables.len().to_le_bytes());
        for (name, value) in &frame.variables {
            out.extend(name.to_le_bytes());
            write_value(value, &mut out)?;
        }
    }
    Some(xxh3_128(&out))
}

/// A value, so that no two values say the same.
fn write_value(value: &Value<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut write = |kind: u8, number: i128| {
        out.push(kind);
        out.extend(number.to_le_bytes());
    };
    match value {
        Value::Undefined => write(0, 0),
        Value::None => write(1, 0),
        Value::Bool(value) => write(2, i128::from(*value)),
        Value::Int(value) => write(3, *value),
        Value::Count(offset) => write(4, *offset),
        Value::Messages(start) => write(5, *start as i128),
        Value::Reversed(start) => write(6, *start as i128),
        Value::Namespace(number) => write(7, *number as i128),
        Value::Macro(number, frame) => write(8, (*number as i128) << 64 | *frame as i128),
        Value::Function(function) => write(9, *function as i128),
        Value::Text(text) if text.origin() == 0 => {
            write(10, text.unseen().len() as i128 * 2 + i128::from(text.safe));
            out.extend(text.unseen().as_bytes());
        }
        Value::Sequence(kind, items) => {
            write(11, (items.len() * 4) as i128 + *kind as i128);
            for item in items.iter() {
                write_value(item, out)?;
            }
        }
        _ => return None,
    }
    Some(())
}

// ---- what a lesson notes

impl<'a> Machine<'a> {
    fn learns(&mut self, guard: impl FnOnce(&Lesson) -> Guard) {
        if let Some(lesson) = &mut self.lesson {
            let guard = guard(lesson);
            if !lesson.guards.contains(&guard) {
                lesson.guards.push(guard);
            }
        }
    }

    /// Something was asked that no guard can say.
    #[inline]
    pub(super) fn forget(&mut self) {
        if let Some(lesson) = &mut self.lesson {
            lesson.is_lost = true;
        }
    }

    /// Whether a turn of this loop is being learnt.
    pub(super) fn is_lesson(&self, course: &Course<'a>) -> bool {
        self.lesson.as_ref().is_some_and(|lesson| lesson.course == address(course))
    }

    /// A message was read by its number, which does not depend on the turn.
    #[inline]
    pub(super) fn reads_message(&mut self, number: usize) {
        if self.lesson.is_some() {
            match self.shape_of(number) {
                Some(shape) => self.learns(|_| Guard::Shape(Place::At(number), shape)),
                None => self.forget(),
            }
        }
    }

    /// A message that is read for standing so far from the turn's own.
    pub(super) fn message_near(&mut self, number: usize) -> Option<Value<'a>> {
        match self.shape_of(number) {
            Some(shape) => self.learns(|lesson| Guard::Shape(Place::Near(lesson.to(number)), shape)),
            None => self.learns(|lesson| Guard::There(lesson.to(number), false)),
        }
        self.message_unnoted(number)
    }

    /// The shape of a message, if it is shown.
    fn shape_of(&self, number: usize) -> Option<u128> {
        let numbered = self.stage.numbered?;
        (number < self.count).then(|| numbered.shapes[number])
    }

    /// Whether there is a message so many after that of the turn which is learnt.
    pub(super) fn is_there(&mut self, after: usize) -> bool {
        let number = self.lesson.as_ref().map_or(0, |lesson| lesson.message) + after;
        let is_there = number < self.count;
        self.learns(|_| Guard::There(after.cast_signed(), is_there));
        if is_there {
            self.need(number + 1);
        }
        is_there
    }

    /// Whether a guard can say what `loop` is asked for.
    pub(super) fn asks_place(&mut self, number: usize, name: &str) -> bool {
        match name {
            "last" | "nextitem" | "previtem" if self.lesson.as_ref().is_some_and(|lesson| lesson.is_reversed) => false,
            "first" | "previtem" => {
                self.learns(|_| Guard::First(number == 0));
                true
            }
            "last" | "nextitem" | "length" | "depth" | "depth0" => true,
            "index" | "index0" => self.lesson.as_ref().is_some_and(|lesson| lesson.is_noted),
            _ => false,
        }
    }

    /// It was asked whether there is a generation prompt.
    pub(super) fn asked(&mut self) {
        let asked = self.add_generation_prompt;
        self.learns(|_| Guard::Asked(asked));
    }

    /// A namespace was read.
    pub(super) fn reads(&mut self, namespace: usize, attribute: &str) {
        self.touches(namespace, attribute);
        let Some(lesson) = &self.lesson else { return };
        if lesson.has_set(namespace, attribute) {
            if lesson.has_set_back(namespace, attribute) {
                self.forget();
            }
            return;
        }
        match Kept::of(self.held(namespace, attribute)) {
            Some(kept) => self.learns(|_| Guard::Holds(namespace, attribute.to_owned(), kept)),
            None => self.forget(),
        }
    }

    fn held(&self, namespace: usize, attribute: &str) -> &Value<'a> {
        let found = self.namespaces.get(namespace).and_then(|held| held.iter().find(|(known, _)| known == attribute));
        found.map_or(&Value::Undefined, |(_, value)| value)
    }

    /// An attribute of a namespace is set.
    pub(super) fn sets(&mut self, namespace: usize, attribute: &str) {
        let Some(lesson) = &mut self.lesson else { return };
        if !lesson.has_set(namespace, attribute) {
            lesson.set.push((namespace, attribute.to_owned()));
        }
        lesson.back.retain(|(number, known, _)| *number != namespace || known != attribute);
    }

    /// `{% set index = messages|length - 1 - loop.index0 %}`, and `{% set ns.last = index %}`: how far the turn which is
    /// learnt is from the end. Whether it is such a thing, and was set.
    pub(super) fn sets_back(&mut self, target: &'a Target, value: &'a Expression) -> Done<bool> {
        if self.lesson.as_ref().is_none_or(|lesson| lesson.is_lost) {
            return Ok(false); // a name may be another by now
        }
        let looked = self.watch.as_ref().is_some_and(|watch| watch.looked);
        let is_set = self.sets_back_unwatched(target, value);
        // A name of the turn's own: whoever reads it looks.
        self.watch.iter_mut().for_each(|watch| watch.looked = looked);
        is_set
    }

    fn sets_back_unwatched(&mut self, target: &'a Target, value: &'a Expression) -> Done<bool> {
        let names = [None, self.program.messages_name];
        let back = match (target, value) {
            (Target::Name(_), Expression::Arithmetic(Arithmetic::Subtract, pair)) if pair[0].only_counts(names) => {
                let Some(by) = self.turn_plus(&pair[1]) else { return Ok(false) };
                let Value::Count(offset) = self.deep(&pair[0])? else { return Ok(false) };
                offset.saturating_sub(by)
            }
            (Target::Attribute(..), Expression::Name(name)) => {
                // In the same frame nothing else goes by the name.
                let is_it = |(known, frame, _): &&(Name, usize, i128)| known == name && *frame == self.frame;
                let known = self.lesson.as_ref().and_then(|lesson| lesson.names.iter().find(is_it));
                let Some((.., back)) = known else { return Ok(false) };
                *back
            }
            _ => return Ok(false),
        };
        let Some(number) = self.lesson.as_ref().map(|lesson| lesson.number) else { return Ok(false) };
        let value = Value::Count(back.saturating_sub(number as i128));
        match target {
            Target::Name(name) => {
                self.assign(target, value)?;
                let frame = self.frame;
                self.lesson.iter_mut().for_each(|lesson| lesson.names.push((*name, frame, back)));
            }
            Target::Attribute(name, attribute) => {
                let Value::Namespace(namespace) = self.lookup(*name) else { return Ok(false) };
                self.set_in_namespace(namespace, Cow::Borrowed(attribute), value)?;
                self.lesson.iter_mut().for_each(|lesson| lesson.back.push((namespace, attribute.clone(), back)));
            }
            Target::Tuple(_) => return Ok(false),
        }
        Ok(true)
    }

    /// An attribute of a namespace is compared with a number.
    pub(super) fn compares(
        &mut self,
        namespace: usize,
        attribute: &str,
        comparison: Comparison,
        with: i128,
        from_turn: bool,
        holds: bool,
    ) {
        let Some(lesson) = &self.lesson else { return };
        if lesson.has_set(namespace, attribute) {
            // What was set in this turn is the same in every turn like it; its place is not.
            let counts = matches!(self.held(namespace, attribute), Value::Count(_));
            if from_turn || counts || lesson.has_set_back(namespace, attribute) {
                self.forget();
            }
            return;
        }
        let with = if from_turn { with.saturating_sub(lesson.number as i128) } else { with };
        let attribute = attribute.to_owned();
        self.learns(|_| Guard::Compares(Compares { namespace, attribute, comparison, with, from_turn, holds }));
    }

    /// Runs something that asks for the place of the turn, if who runs it notes what he makes of that.
    pub(super) fn noting<T>(&mut self, is_noted: bool, run: impl FnOnce(&mut Self) -> T) -> T {
        let set = |machine: &mut Self, is_noted: bool| {
            machine.lesson.as_mut().is_some_and(|lesson| std::mem::replace(&mut lesson.is_noted, is_noted))
        };
        if !is_noted || self.lesson.is_none() {
            return run(self);
        }
        let before = set(self, true);
        let found = run(self);
        set(self, before);
        found
    }

    /// How far from the place of the turn which is learnt, from 0, a number is that an expression gives; `None` where it
    /// gives anything else.
    pub(super) fn turn_plus(&mut self, expression: &'a Expression) -> Option<i128> {
        self.lesson.as_ref()?;
        match expression {
            Expression::Attribute(value, name) => {
                let Expression::Name(number) = &**value else { return None };
                if Some(*number) != self.program.loop_name {
                    return None;
                }
                let Value::Loop(turn) = self.lookup(*number) else { return None };
                match name.as_str() {
                    _ if !self.is_lesson(&turn.course) => None,
                    "index0" => Some(0),
                    "index" => Some(1),
                    _ => None,
                }
            }
            Expression::Arithmetic(operation, pair) => match (operation, &pair[0], &pair[1]) {
                (Arithmetic::Add, Expression::Int(by), turn) | (Arithmetic::Add, turn, Expression::Int(by)) => {
                    self.turn_plus(turn)?.checked_add(*by)
                }
                (Arithmetic::Subtract, turn, Expression::Int(by)) => self.turn_plus(turn)?.checked_sub(*by),
                _ => None,
            },
            _ => None,
        }
    }

    /// `loop.index0 == 1`: the place of the turn is compared with a number. `None` where it is no such thing.
    pub(super) fn place_compared(
        &mut self,
        left: &'a Expression,
        comparison: Comparison,
        right: &'a Expression,
    ) -> Option<bool> {
        let (Expression::Int(with), false) = (right, matches!(comparison, Comparison::In | Comparison::NotIn)) else {
            return None;
        };
        let with = with.checked_sub(self.turn_plus(left)?)?;
        let holds = comparison.of_numbers(self.lesson.as_ref()?.number as i128, with);
        self.learns(|_| Guard::Turn(comparison, with, holds));
        Some(holds)
    }

    /// `loop.index0 % 2`: what is left of the place of the turn. `None` where it is no such thing.
    pub(super) fn place_divided(&mut self, operation: Arithmetic, pair: &'a [Expression; 2]) -> Option<i128> {
        let (Arithmetic::Remainder, Expression::Int(of @ 1..)) = (operation, &pair[1]) else { return None };
        let by = self.turn_plus(&pair[0])?;
        let remains = (self.lesson.as_ref()?.number as i128).checked_add(by)?.rem_euclid(*of);
        self.learns(|_| Guard::Remains(by, *of, remains));
        Some(remains)
    }

    /// `messages[loop.index0 + 1]`: a message that stands so far from the turn's own. `None` where it is no such thing.
    pub(super) fn neighbour(&mut self, list: &'a Expression, index: &'a Expression) -> Done<Option<Value<'a>>> {
        let Some(by) = self.turn_plus(index) else { return Ok(None) };
        let Value::Messages(start) = self.deep(list)? else { return Ok(None) };
        let lesson = self.lesson.as_ref().expect("it says how far from its turn");
        if lesson.is_reversed {
            return Ok(None);
        }
        let number = start as i128 + lesson.number as i128 + by;
        // Before the first one, Python counts from the end.
        match usize::try_from(number) {
            Ok(number) if number >= start => {
                self.learns(|_| Guard::Turn(Comparison::GreaterOrEqual, by.saturating_neg(), true));
                Ok(Some(self.message_near(number).unwrap_or(Value::Undefined)))
            }
            _ => Ok(None),
        }
    }
}

impl Lesson {
    /// A string answered with no.
    pub(super) fn answers(&mut self, condition: Condition) {
        if !self.conditions.contains(&condition) {
            self.conditions.push(condition);
        }
    }

    /// A frame is gone, with its names.
    pub(super) fn leaves(&mut self, frame: usize) {
        self.names.retain(|(_, known, _)| *known < frame);
    }

    /// A name is read, or set to something else.
    pub(super) fn reads_name(&mut self, name: Name) {
        self.is_lost |= self.names.iter().any(|(known, ..)| *known == name);
    }

    fn to(&self, message: usize) -> isize {
        message.cast_signed() - self.message.cast_signed()
    }

    fn has_set(&self, namespace: usize, attribute: &str) -> bool {
        self.set.iter().any(|(number, known)| *number == namespace && known == attribute)
    }

    fn has_set_back(&self, namespace: usize, attribute: &str) -> bool {
        self.back.iter().any(|(number, known, _)| *number == namespace && known == attribute)
    }

    /// Where a string's message stands; `None` where it may have been had in two ways.
    fn place(&self, message: usize) -> Option<Place> {
        let (near, at) = (Place::Near(self.to(message)), Place::At(message));
        let is_read =
            |place: Place| self.guards.iter().any(|guard| matches!(guard, Guard::Shape(known, _) if *known == place));
        match (message == self.message || is_read(near), is_read(at)) {
            (true, false) => Some(near),
            (false, true) => Some(at),
            _ => None,
        }
    }
}

fn address(course: &Course<'_>) -> usize {
    std::ptr::from_ref(course) as usize
}

// ---- learning and repeating

impl<'a> Machine<'a> {
    /// What is known of the turns of a loop, if they can be learnt.
    pub(super) fn known_turns(&self, course: &Course<'a>) -> Option<Rc<Turns>> {
        let (statement, Items::Messages(_) | Items::Reversed(_)) = (course.statement, &course.items) else {
            return None;
        };
        let can_be = self.stage.numbered.is_some()
            && self.tracer.is_some()
            && self.inner == 0
            && !statement.recursive
            && statement.condition.is_none()
            && self.generators.is_empty();
        if !can_be {
            return None;
        }
        let key = (self.program.id, std::ptr::from_ref(statement) as usize, fingerprint(&self.frames, self.frame)?);
        LOOPS.with_borrow_mut(|loops| {
            if COUNT.get() >= KEPT {
                COUNT.set(0);
                loops.clear();
            }
            if let Some(known) = loops.get(&key) {
                return Some(Rc::clone(known));
            }
            COUNT.set(COUNT.get() + 1);
            Some(Rc::clone(loops.entry(key).or_default()))
        })
    }

    pub(super) fn begin_lesson(&mut self, known: &Turns, course: &Course<'a>, number: usize) {
        let (Some(message), Some(numbered), Some(tracer)) =
            (self.message_of(course, number), self.stage.numbered, &self.tracer)
        else {
            return;
        };
        let shape = numbered.shapes[message];
        let is_worth = |of: &OfShape| of.failed < TRIED && of.known.len() < TURNS_KEPT;
        if known.borrow().get(&shape).is_none_or(is_worth) {
            self.lesson = Some(Lesson {
                course: address(course),
                message,
                number,
                guards: vec![Guard::Shape(Place::Near(0), shape)],
                conditions: Vec::new(),
                set: Vec::new(),
                names: Vec::new(),
                back: Vec::new(),
                is_reversed: matches!(course.items, Items::Reversed(_)),
                is_lost: false,
                is_noted: false,
                printed_from: self.out.len(),
                prints_from: tracer.count(),
                fuel: self.fuel,
                namespaces: self.namespaces.len(),
            });
        }
    }

    /// The message of a turn, if there is one.
    fn message_of(&self, course: &Course<'a>, number: usize) -> Option<usize> {
        match course.items {
            Items::Messages(start) => Some(start + number).filter(|message| *message < self.count),
            Items::Reversed(start) => self.count.checked_sub(number + 1).filter(|message| *message >= start),
            _ => None,
        }
    }

    pub(super) fn end_lesson(&mut self, known: &Turns, flow: Flow, is_idle: bool) {
        let Some(lesson) = self.lesson.take() else { return };
        let numbered = self.stage.numbered.expect("a lesson is on numbered strings");
        let shape = numbered.shapes[lesson.message];
        let learnt = self.learnt(lesson, flow, is_idle, numbered);
        COUNT.set(COUNT.get() + 1);
        let mut known = known.borrow_mut();
        let of = known.entry(shape).or_default();
        match learnt {
            Some(learnt) => of.known.push(Rc::new(learnt)),
            None => of.failed += 1,
        }
    }

    fn learnt(&self, mut lesson: Lesson, flow: Flow, is_idle: bool, numbered: &Numbered<'_>) -> Option<Known> {
        let is_lost = lesson.is_lost
            || super::value::has_looked()
            || !self.generators.is_empty()
            || self.namespaces.len() != lesson.namespaces;
        if is_lost {
            return None;
        }
        let tracer = self.tracer.as_ref()?;
        let mut printed = Vec::new();
        for part in tracer.parts_from(&self.out, lesson.printed_from, lesson.prints_from) {
            printed.push(match part {
                Part::Scaffold(text) => Printed::Scaffold(text.into()),
                Part::String(number) => {
                    let (message, index) = numbered.of(number);
                    Printed::String(lesson.place(message)?, index, way(number), tracer.ways(number))
                }
            });
        }
        for condition in std::mem::take(&mut lesson.conditions) {
            let (message, index) = numbered.of(condition.of);
            let ways = tracer.ways(condition.of);
            let guard = Guard::Answers(lesson.place(message)?, index, ways, condition);
            lesson.guards.push(guard);
        }
        let mut set = Vec::with_capacity(lesson.set.len());
        for (namespace, attribute) in lesson.set {
            let is_it = |(number, known, _): &&(usize, String, i128)| *number == namespace && *known == attribute;
            let to = match lesson.back.iter().find(is_it) {
                Some((_, _, back)) => Set::Back(*back),
                None => Set::Kept(Kept::of(self.held(namespace, &attribute))?),
            };
            set.push((namespace, attribute, to));
        }
        let fuel = lesson.fuel.saturating_sub(self.fuel);
        Some(Known { guards: lesson.guards, printed, set, flow, is_idle, fuel })
    }

    /// Repeats a turn that is known: how it ends, and whether those after it do nothing. `None` where none is known.
    pub(super) fn repeat(&mut self, known: &Turns, course: &Course<'a>, number: usize) -> Done<Option<(Flow, bool)>> {
        let (Some(message), Some(numbered)) = (self.message_of(course, number), self.stage.numbered) else {
            return Ok(None);
        };
        let found = {
            let known = known.borrow();
            let Some(of) = known.get(&numbered.shapes[message]) else { return Ok(None) };
            let fits =
                |known: &&Rc<Known>| known.guards.iter().all(|guard| self.holds(guard, message, number, numbered));
            of.known.iter().find(fits).cloned()
        };
        let Some(known) = found else { return Ok(None) };
        self.burn(usize::try_from(known.fuel).unwrap_or(usize::MAX))?;
        if self.recorder.is_some() {
            if matches!(course.items, Items::Reversed(_)) {
                self.need(self.count);
            }
            for guard in &known.guards {
                self.note_again(guard, message, number);
            }
        }
        for piece in &known.printed {
            match piece {
                Printed::Scaffold(text) => self.out.push_str(text),
                Printed::String(place, index, way, ways) => {
                    let message = place.seen_from(message).expect("its message is there");
                    let (root, text) = numbered.string(message, *index);
                    let text = ways.iter().fold(text, |text, way| way.apply(text));
                    let print = Print { start: self.out.len(), length: text.len(), of: root | super::trace::by(*way) };
                    self.out.push_str(text);
                    if let Some(tracer) = &mut self.tracer {
                        tracer.print(print);
                    }
                }
            }
        }
        for (namespace, attribute, to) in &known.set {
            let value = match to {
                Set::Kept(kept) => kept.value(),
                Set::Back(back) => Value::Count(back.saturating_sub(number as i128)),
            };
            let known = self.namespaces[*namespace].iter().find(|(known, _)| known == attribute);
            let name = known.map_or_else(|| Cow::Owned(attribute.clone()), |(name, _)| name.clone());
            self.set_in_namespace(*namespace, name, value)?;
        }
        Ok(Some((known.flow, known.is_idle)))
    }

    fn holds(&self, guard: &Guard, message: usize, number: usize, numbered: &Numbered<'_>) -> bool {
        match guard {
            Guard::Shape(place, shape) => {
                place.seen_from(message).is_some_and(|at| at < self.count && numbered.shapes[at] == *shape)
            }
            Guard::There(by, is_there) => {
                message.checked_add_signed(*by).is_some_and(|at| at < self.count) == *is_there
            }
            Guard::First(is_first) => (number == 0) == *is_first,
            Guard::Turn(comparison, with, holds) => comparison.of_numbers(number as i128, *with) == *holds,
            Guard::Remains(by, of, is) => (number as i128 + by).rem_euclid(*of) == *is,
            Guard::Asked(asked) => self.add_generation_prompt == *asked,
            Guard::Holds(namespace, attribute, kept) => {
                *namespace < self.namespaces.len() && kept.is(self.held(*namespace, attribute))
            }
            Guard::Compares(compares) => {
                let held = self.number_now(self.held(compares.namespace, &compares.attribute));
                let with = compares.with(number);
                held.is_some_and(|held| compares.comparison.of_numbers(held, with) == compares.holds)
            }
            Guard::Answers(place, index, ways, condition) => place.seen_from(message).is_some_and(|at| {
                let (_, text) = numbered.string(at, *index);
                condition.holds(ways.iter().fold(text, |text, way| way.apply(text)))
            }),
        }
    }

    /// Notes for the recording what a turn that is repeated asks.
    fn note_again(&mut self, guard: &Guard, message: usize, number: usize) {
        match guard {
            Guard::Shape(place, _) => self.need(place.seen_from(message).map_or(0, |at| at + 1)),
            Guard::There(by, true) => self.need(message.checked_add_signed(*by).map_or(0, |at| at + 1)),
            Guard::Asked(_) => self.asks(),
            Guard::Holds(namespace, attribute, _) => self.touches(*namespace, attribute),
            Guard::Compares(compares) => {
                let value = self.held(compares.namespace, &compares.attribute).clone();
                let (comparison, with) = (compares.comparison, compares.with(number));
                self.compare_held(compares.namespace, &compares.attribute, &value, comparison, with);
            }
            Guard::There(_, false) | Guard::First(_) | Guard::Turn(..) | Guard::Remains(..) | Guard::Answers(..) => {}
        }
    }
}

impl Compares {
    fn with(&self, number: usize) -> i128 {
        if self.from_turn { self.with.saturating_add(number as i128) } else { self.with }
    }
}

impl Place {
    fn seen_from(self, message: usize) -> Option<usize> {
        match self {
            Self::Near(by) => message.checked_add_signed(by),
            Self::At(number) => Some(number),
        }
    }
}
