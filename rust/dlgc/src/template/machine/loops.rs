//! Loops: what they go through, what `loop` says, and when a loop that only looks may end early.

use std::rc::Rc;

use super::recording::Step;
use super::value::{Course, Items, Turn, Value};
use super::{Done, Failure, Flow, Machine, refuse};
use crate::template::program::For;

/// What a turn of a quiet loop does.
pub(super) struct Watch {
    /// The frame of the turn.
    pub(super) frame: usize,
    /// Whether it looked at anything of the turn's own.
    pub(super) looked: bool,
    /// Whether it changed anything that outlives the turn.
    pub(super) remembered: bool,
}

impl Watch {
    pub(super) fn of(frame: usize) -> Self {
        Self { frame, looked: false, remembered: false }
    }
}

impl<'a> Machine<'a> {
    pub(super) fn begin_loop(&mut self, statement: &'a For, path: &[Step<'a>]) -> Done<Flow> {
        if let Some((Step::Turn(course, number, at, previous), _)) = path.split_first() {
            return self.turns(Rc::clone(course), *number, *at, *previous);
        }
        let items = self.evaluate(&statement.items)?;
        let course = self.course(statement, items, 1)?;
        if self.inner == 0 && self.rejoin(&course) {
            return Err(Failure::Rejoined);
        }
        self.turns(course, 0, 0, None)
    }

    pub(super) fn course(&mut self, statement: &'a For, items: Value<'a>, depth: usize) -> Done<Rc<Course<'a>>> {
        let items = match items {
            Value::Messages(start) => Items::Messages(start),
            Value::Reversed(start) => Items::Reversed(start),
            Value::Array(nodes) => Items::Array(nodes),
            Value::Sequence(_, items) => Items::List(items),
            other => Items::List(Rc::new(self.iterate(&other)?)),
        };
        Ok(Rc::new(Course { statement, items, depth, frame: self.frame }))
    }

    pub(super) fn turns(
        &mut self,
        course: Rc<Course<'a>>,
        mut number: usize,
        mut at: usize,
        mut previous: Option<usize>,
    ) -> Done<Flow> {
        let statement = course.statement;
        let known = self.known_turns(&course);
        loop {
            if self.is_outermost() {
                self.point(Some(Step::Turn(Rc::clone(&course), number, at, previous)));
            }
            let repeated = known.as_ref().map(|known| self.repeat(known, &course, number));
            if let Some((flow, is_idle)) = repeated.transpose()?.flatten() {
                previous = Some(at);
                number += 1;
                at += 1;
                if flow == Flow::Break || is_idle {
                    return Ok(Flow::Next);
                }
                continue;
            }
            let Some((found, item)) = self.advance(&course, at)? else { break };
            if let Some(known) = &known {
                self.begin_lesson(known, &course, number);
            }
            self.push();
            self.inner += 1;
            self.assign(&statement.target, item)?;
            let turn = Rc::new(Turn { course: Rc::clone(&course), number, at: found, previous });
            if let Some(name) = self.program.loop_name {
                let frame = self.frame;
                self.frames[frame].set(name, Value::Loop(turn));
            }
            let outer = statement.is_quiet.then(|| self.watch.replace(Watch::of(self.frame)));
            let flow = self.deeper(|machine| machine.block(&statement.body, &[]))?;
            self.inner -= 1;
            self.pop();
            let idle = self.watch.as_ref().is_some_and(|watch| !watch.looked && !watch.remembered);
            if let Some(known) = &known {
                self.end_lesson(known, flow, outer.is_some() && idle && flow == Flow::Next);
            }
            if let Some(outer) = outer {
                self.watch = outer;
                if idle && flow == Flow::Next {
                    // It looked at nothing that is another at the next turn, and changed nothing: so will all others.
                    return Ok(Flow::Next);
                }
            }
            number += 1;
            at = found + 1;
            previous = Some(found);
            if flow == Flow::Break {
                return Ok(Flow::Next);
            }
        }
        if number == 0 && !statement.otherwise.is_empty() {
            self.push();
            self.inner += 1;
            let flow = self.deeper(|machine| machine.block(&statement.otherwise, &[]))?;
            self.inner -= 1;
            self.pop();
            return Ok(flow);
        }
        Ok(Flow::Next)
    }

    /// The next item from this one on that the loop's condition lets through.
    pub(super) fn advance(&mut self, course: &Course<'a>, from: usize) -> Done<Option<(usize, Value<'a>)>> {
        let mut at = from;
        loop {
            self.burn(0)?;
            let Some(item) = self.item_of(course, at) else { return Ok(None) };
            let Some(condition) = &course.statement.condition else { return Ok(Some((at, item))) };
            let outer = std::mem::replace(&mut self.frame, course.frame);
            self.push();
            self.inner += 1;
            self.assign(&course.statement.target, item.clone())?;
            let holds = self.decide(condition)?;
            self.inner -= 1;
            self.pop();
            self.frame = outer;
            if holds {
                return Ok(Some((at, item)));
            }
            at += 1;
        }
    }

    pub(super) fn item_of(&mut self, course: &Course<'a>, at: usize) -> Option<Value<'a>> {
        match &course.items {
            Items::Messages(start) if self.is_lesson(course) => self.message_near(start + at),
            Items::Messages(start) => self.message(start + at),
            Items::Reversed(start) => {
                self.need_all();
                let number = self.count.checked_sub(at + 1).filter(|number| number >= start)?;
                self.message(number)
            }
            Items::List(items) => items.get(at).cloned(),
            Items::Array(nodes) => nodes.get(at).map(Value::of),
        }
    }

    /// A message by number, if as many are shown.
    pub(super) fn message(&mut self, number: usize) -> Option<Value<'a>> {
        self.reads_message(number);
        self.message_unnoted(number)
    }

    /// A message by number; what a lesson learns of it is noted already.
    pub(super) fn message_unnoted(&mut self, number: usize) -> Option<Value<'a>> {
        if number < self.count {
            self.need(number + 1);
            return Some(Value::of(self.stage.messages[number]));
        }
        // Nothing to note: with fewer messages it is not there either.
        None
    }

    pub(super) fn loop_attribute(&mut self, turn: &Rc<Turn<'a>>, name: &str) -> Done<Value<'a>> {
        let course = Rc::clone(&turn.course);
        if self.is_lesson(&course) && !self.asks_place(turn.number, name) {
            self.forget();
        }
        if name == "last" && self.is_lesson(&course) && matches!(course.items, Items::Messages(_)) {
            return Ok(Value::Bool(!self.is_there(1)));
        }
        Ok(match name {
            "index" => Value::integer(turn.number + 1),
            "index0" => Value::integer(turn.number),
            "first" => Value::Bool(turn.number == 0),
            "last" => Value::Bool(self.advance(&course, turn.at + 1)?.is_none()),
            "length" => self.loop_length(&course)?,
            "revindex" => {
                let length = self.loop_length(&course)?;
                self.shift(&length, -(turn.number as i128))
            }
            "revindex0" => {
                let length = self.loop_length(&course)?;
                self.shift(&length, -(turn.number as i128) - 1)
            }
            "previtem" => turn.previous.and_then(|at| self.item_of(&course, at)).unwrap_or(Value::Undefined),
            "nextitem" => self.advance(&course, turn.at + 1)?.map_or(Value::Undefined, |(_, item)| item),
            "depth" => Value::integer(course.depth),
            "depth0" => Value::integer(course.depth - 1),
            _ => Value::Undefined,
        })
    }

    pub(super) fn loop_length(&mut self, course: &Course<'a>) -> Done<Value<'a>> {
        if course.statement.condition.is_none() {
            return Ok(match &course.items {
                Items::Messages(start) | Items::Reversed(start) => Value::Count(-(*start as i128)),
                Items::List(items) => Value::integer(items.len()),
                Items::Array(nodes) => Value::integer(nodes.len()),
            });
        }
        let (mut length, mut at) = (0, 0);
        while let Some((found, _)) = self.advance(course, at)? {
            length += 1;
            at = found + 1;
        }
        Ok(Value::integer(length))
    }

    pub(super) fn shift(&self, value: &Value<'a>, by: i128) -> Value<'a> {
        match value {
            Value::Count(offset) => Value::Count(offset + by),
            Value::Int(value) => Value::Int(value + by),
            _ => Value::Undefined,
        }
    }

    /// `loop(items)`: the loop's body again, over other items.
    pub(super) fn loop_again(&mut self, turn: &Turn<'a>, items: Value<'a>) -> Done<Value<'a>> {
        if !turn.course.statement.recursive {
            return refuse("the loop must have the `recursive` marker to be called recursively");
        }
        let outer_text = std::mem::take(&mut self.out);
        let printed = self.prints_apart();
        let outer_frame = std::mem::replace(&mut self.frame, turn.course.frame);
        self.inner += 1;
        let course = self.course(turn.course.statement, items, turn.course.depth + 1)?;
        let ran = self.deeper(|machine| machine.turns(course, 0, 0, None));
        self.inner -= 1;
        self.frame = outer_frame;
        let text = std::mem::replace(&mut self.out, outer_text);
        let text = self.captured(text, printed);
        ran.map(|_| Value::Text(text))
    }
}
