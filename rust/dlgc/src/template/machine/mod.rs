//! Running a template, as Jinja under transformers runs it.
//!
//! In: a [`Program`] and a [`Stage`]: messages and what stands around them. Out: text, or why there is none. Values
//! and operations are Python's (`operations`, `filters`, `methods`); `generation` blocks are bracketed by marks.
//!
//! **Prompts.** For every assistant turn its prompt is wanted: the rendering of the messages before it. One after the
//! other that costs the square of the number of messages. A [`Recording`] costs their number: it runs the template
//! once over all messages and notes, at every turn of an outermost loop, where the text stands, what the variables
//! are, and how many messages there must at least be for everything that was read so far to come out the same. A run
//! over fewer messages goes the same way up to the first point for which there are too few; there it is taken up again
//! and run to its end. What a template reads of the future (`loop.last`, the next message, how many there are) decides
//! how far back that point is; nothing is assumed about what it does with it.

mod filters;
mod methods;
mod operations;
mod value;

use std::cell::RefCell;
use std::rc::Rc;

use super::date::Date;
use super::marks;
use super::program::{Argument, Arithmetic, Expression, For, Kind, Macro, Name, Program, Statement, Target};
use crate::json::{Member, Node};

use value::{Course, Frame, Function, Items, Turn, Value};

/// Work that one rendering may take: about as many steps, or 64 bytes of text each.
const FUEL: u64 = 20_000_000;
/// How deeply calls, blocks and expressions of a template may nest.
const DEPTH: usize = 400;
/// Stack that must be left for one more level, and how much is added where it is not, in bytes.
const STACK_LEFT: usize = 128 << 10;
const STACK_STEP: usize = 2 << 20;

/// What a template is run on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage<'a> {
    pub(super) messages: &'a [&'a Node<'a>],
    pub(super) tools: Option<&'a Node<'a>>,
    pub(super) documents: Option<&'a Node<'a>>,
    /// Special tokens; later ones win, here and among the arguments.
    pub(super) tokens: &'a [(String, String)],
    /// Template arguments of the run.
    pub(super) defaults: &'a [Member<'a>],
    /// Template arguments of the record.
    pub(super) arguments: &'a [Member<'a>],
    pub(super) date: Option<Date>,
}

/// Why there is no text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It takes more work than a template may have.
    Limit,
    /// What went wrong, and where; or what the template says.
    Refused(String),
    /// A branch came back to the recording; never leaves this module.
    Rejoined,
}

/// A run of which prompts can be had; see the module.
#[derive(Debug)]
pub(super) struct Recording<'a> {
    program: &'a Program,
    stage: Stage<'a>,
    tape: Rc<Tape<'a>>,
}

/// What was recorded.
#[derive(Debug)]
struct Tape<'a> {
    /// The text, with its marks.
    text: String,
    points: Vec<Point<'a>>,
    /// The most that a point and those before it need, and whether one of them asked.
    upto: Vec<(usize, bool)>,
    /// Where branches came back, without and with a generation prompt.
    hints: RefCell<[Hint; 2]>,
}

/// A run over fewer messages: it begins like the recorded one and goes on by itself.
#[derive(Debug)]
pub(super) struct Branch {
    /// How much of the recorded text it begins with, in bytes with marks.
    pub(super) shared: usize,
    /// What comes after it, with marks.
    pub(super) rest: String,
}

/// Where a run can be taken up again.
#[derive(Debug)]
struct Point<'a> {
    path: Vec<Step<'a>>,
    frames: Vec<Frame<'a>>,
    frame: usize,
    namespaces: Vec<Vec<(String, Value<'a>)>>,
    generators: Vec<Option<Rc<Vec<Value<'a>>>>>,
    /// Length of the text.
    text: usize,
    /// How many messages there must be for the run to come to the next point the same way.
    needs: usize,
    /// Whether the generation prompt was asked about before the next point.
    asked: bool,
    /// Attributes of namespaces that were read or set before the next point.
    touched: Vec<(usize, String)>,
}

impl Point<'_> {
    fn note(&mut self, namespace: usize, attribute: &str) {
        if !self.touched.iter().any(|(number, name)| *number == namespace && name == attribute) {
            self.touched.push((namespace, attribute.to_owned()));
        }
    }
}

/// Attributes in which a branch differs from the recording, with the branch's values.
type Differences<'a> = Vec<(usize, String, Value<'a>)>;

/// Where a branch came back to the recording, and how far it then went with it.
#[derive(Debug, Clone, Default)]
struct Hint {
    start: usize,
    count: usize,
    differs: Vec<(usize, String)>,
    end: usize,
}

/// A step from the template's beginning to where it stands.
#[derive(Debug, Clone)]
enum Step<'a> {
    /// The statement of a block.
    At(usize),
    /// The way that an `if` went.
    Then(bool),
    /// Inside a `with`.
    Inside,
    /// Before a turn of a loop: which turn, the item to look at, the item of the turn before.
    Turn(Rc<Course<'a>>, usize, usize, Option<usize>),
}

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

type Done<T> = Result<T, Failure>;

fn refuse<T>(message: impl Into<String>) -> Done<T> {
    Err(Failure::Refused(message.into()))
}

/// A running template.
struct Machine<'a> {
    program: &'a Program,
    stage: Stage<'a>,
    /// How many messages are shown.
    count: usize,
    add_generation_prompt: bool,
    out: String,
    frames: Vec<Frame<'a>>,
    frame: usize,
    namespaces: Vec<Vec<(String, Value<'a>)>>,
    generators: Vec<Option<Rc<Vec<Value<'a>>>>>,
    /// The macro that a `call` block hands over, for each call that is running.
    callers: Vec<Option<(usize, usize)>>,
    fuel: u64,
    depth: usize,
    line: u32,
    /// How many captures, macros and loops are open: points are only taken at the outermost.
    inner: usize,
    recorder: Option<Recorder<'a>>,
    watch: Option<Watch>,
    /// The recording to which a branch goes back where it can.
    tape: Option<Rc<Tape<'a>>>,
    /// How much of the recorded text a branch begins with.
    begun: usize,
    /// The point at which a branch goes on with the recording, and in what it differs from it.
    rejoined: Option<(usize, Differences<'a>)>,
}

/// What a turn of a quiet loop does.
struct Watch {
    /// The frame of the turn.
    frame: usize,
    /// Whether it looked at anything of the turn's own.
    looked: bool,
    /// Whether it changed anything that outlives the turn.
    remembered: bool,
}

impl Watch {
    fn of(frame: usize) -> Self {
        Self { frame, looked: false, remembered: false }
    }
}

#[derive(Default)]
struct Recorder<'a> {
    path: Vec<Step<'a>>,
    points: Vec<Point<'a>>,
}

/// Positional and named arguments of a call.
#[derive(Default)]
struct Arguments<'a> {
    positional: Vec<Value<'a>>,
    named: Vec<(&'a str, Value<'a>)>,
}

impl<'a> Recording<'a> {
    /// Runs a template over all messages, without a generation prompt.
    pub(super) fn new(program: &'a Program, stage: Stage<'a>) -> Result<Self, Failure> {
        let mut machine = Machine::new(program, stage, stage.messages.len(), false);
        machine.recorder = Some(Recorder::default());
        machine.point(None);
        let ran = machine.block(&program.body, &[]);
        machine.located(ran)?;
        let points = machine.recorder.take().expect("set above").points;
        let mut sum = (0, false);
        let upto = points.iter().map(|point| {
            sum = (sum.0.max(point.needs), sum.1 | point.asked);
            sum
        });
        let upto = upto.collect();
        let tape = Tape { text: machine.out, points, upto, hints: RefCell::default() };
        Ok(Self { program, stage, tape: Rc::new(tape) })
    }

    /// The text, with its marks.
    pub(super) fn text(&self) -> &str {
        &self.tape.text
    }

    /// The run over the first `count` messages.
    pub(super) fn first(&self, count: usize, add_generation_prompt: bool) -> Result<Branch, Failure> {
        if count == self.stage.messages.len() && !add_generation_prompt {
            return Ok(Branch { shared: self.tape.text.len(), rest: String::new() });
        }
        let same = |&(needs, asked): &(usize, bool)| needs <= count && !(add_generation_prompt && asked);
        let index = self.tape.upto.partition_point(same).min(self.tape.points.len() - 1);
        let mut machine = self.take_up(index, count, add_generation_prompt);
        machine.tape = Some(Rc::clone(&self.tape));
        let mut ran = machine.block(&self.program.body, &self.tape.points[index].path);
        let mut shared = self.tape.points[index].text;
        if let (Err(Failure::Rejoined), Some((index, differences))) = (&ran, machine.rejoined.take()) {
            machine = self.take_up(index, count, add_generation_prompt);
            for (namespace, name, value) in differences {
                machine.set_in_namespace(namespace, &name, value)?;
            }
            shared = self.tape.points[index].text;
            ran = machine.block(&self.program.body, &self.tape.points[index].path);
        }
        machine.located(ran)?;
        Ok(Branch { shared, rest: machine.out })
    }

    /// A machine that stands at a point of the recording.
    fn take_up(&self, index: usize, count: usize, add_generation_prompt: bool) -> Machine<'a> {
        let point = &self.tape.points[index];
        let mut machine = Machine::new(self.program, self.stage, count, add_generation_prompt);
        machine.frames.clone_from(&point.frames);
        machine.frame = point.frame;
        machine.namespaces.clone_from(&point.namespaces);
        machine.generators.clone_from(&point.generators);
        machine.begun = point.text;
        machine
    }
}

/// Runs a template over the first `count` messages.
pub(super) fn run(
    program: &Program,
    stage: Stage<'_>,
    count: usize,
    add_generation_prompt: bool,
) -> Result<String, Failure> {
    let mut machine = Machine::new(program, stage, count, add_generation_prompt);
    let ran = machine.block(&program.body, &[]);
    machine.located(ran)?;
    Ok(machine.out)
}

impl<'a> Machine<'a> {
    fn new(program: &'a Program, stage: Stage<'a>, count: usize, add_generation_prompt: bool) -> Self {
        Self {
            program,
            stage,
            count,
            add_generation_prompt,
            out: String::new(),
            frames: vec![Frame::default()],
            frame: 0,
            namespaces: Vec::new(),
            generators: Vec::new(),
            callers: Vec::new(),
            fuel: FUEL,
            depth: 0,
            line: 1,
            inner: 0,
            recorder: None,
            watch: None,
            tape: None,
            begun: 0,
            rejoined: None,
        }
    }

    /// Says in which line something went wrong.
    fn located(&self, ran: Done<Flow>) -> Done<()> {
        match ran {
            Ok(_) => Ok(()),
            Err(Failure::Refused(message)) if !message.starts_with(super::SAYS) => {
                refuse(format!("{message} (line {} of the chat template)", self.line))
            }
            Err(failure) => Err(failure),
        }
    }

    fn burn(&mut self, steps: usize) -> Done<()> {
        self.fuel = self.fuel.checked_sub(steps as u64 + 1).ok_or(Failure::Limit)?;
        Ok(())
    }

    fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Done<T>) -> Done<T> {
        if self.depth >= DEPTH {
            return refuse("nested too deeply");
        }
        self.depth += 1;
        let result = stacker::maybe_grow(STACK_LEFT, STACK_STEP, || run(self));
        self.depth -= 1;
        result
    }

    // ---- what a recording notes

    /// Everything read since the last point holds for as many messages and more.
    fn need(&mut self, count: usize) {
        if let Some(point) = self.recorder.as_mut().and_then(|recorder| recorder.points.last_mut()) {
            point.needs = point.needs.max(count);
        }
    }

    /// Something was read that another number of messages changes.
    fn need_all(&mut self) {
        self.need(self.count);
    }

    /// An attribute of a namespace was read.
    fn reads(&mut self, namespace: usize, attribute: &str) {
        if let Some(point) = self.recorder.as_mut().and_then(|recorder| recorder.points.last_mut()) {
            point.note(namespace, attribute);
        }
    }

    fn point(&mut self, step: Option<Step<'a>>) {
        let Some(recorder) = &mut self.recorder else { return };
        let mut path = recorder.path.clone();
        path.extend(step);
        recorder.points.push(Point {
            path,
            frames: self.frames.clone(),
            frame: self.frame,
            namespaces: self.namespaces.clone(),
            generators: self.generators.clone(),
            text: self.out.len(),
            needs: 0,
            asked: false,
            touched: Vec::new(),
        });
    }

    /// Whether a point can be taken here.
    fn is_outermost(&self) -> bool {
        self.inner == 0 && self.recorder.is_some()
    }

    fn enter(&mut self, step: Step<'a>) {
        if let Some(recorder) = self.recorder.as_mut().filter(|_| self.inner == 0) {
            recorder.path.push(step);
        }
    }

    fn leave(&mut self) {
        if let Some(recorder) = self.recorder.as_mut().filter(|_| self.inner == 0) {
            recorder.path.pop();
        }
    }

    // ---- statements

    /// Runs statements; a path leads to where they are taken up again.
    fn block(&mut self, statements: &'a [Statement], path: &[Step<'a>]) -> Done<Flow> {
        let (first, rest) = match path.split_first() {
            Some((Step::At(first), rest)) => (*first, rest),
            _ => (0, path),
        };
        let mut rest = rest;
        for (index, statement) in statements.iter().enumerate().skip(first) {
            self.enter(Step::At(index));
            let flow = self.statement(statement, rest)?;
            self.leave();
            rest = &[];
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &'a Statement, path: &[Step<'a>]) -> Done<Flow> {
        self.burn(0)?;
        self.line = statement.line;
        match &statement.kind {
            Kind::Raw(text) => {
                self.burn(text.len() / 64)?;
                self.out.push_str(text);
            }
            Kind::Print(expression) => {
                let value = self.evaluate(expression)?;
                self.print(&value)?;
            }
            Kind::If { test, then, otherwise } => {
                let (holds, rest) = match path.split_first() {
                    Some((Step::Then(holds), rest)) => (*holds, rest),
                    _ => {
                        let value = self.evaluate(test)?;
                        (self.is_true(&value), &[][..])
                    }
                };
                self.enter(Step::Then(holds));
                let flow = self.deeper(|machine| machine.block(if holds { then } else { otherwise }, rest))?;
                self.leave();
                return Ok(flow);
            }
            Kind::For(statement) => return self.begin_loop(statement, path),
            Kind::Set { target, value } => {
                let looked = self.watch.as_ref().map(|watch| watch.looked);
                let names = ["loop", "messages"].map(|name| self.program.number_of(name));
                let counts = looked.is_some() && value.only_counts(names);
                let value = self.evaluate(value)?;
                if let Some(watch) = self.watch.as_mut().filter(|_| counts && matches!(target, Target::Name(_))) {
                    // A name of the turn's own: whoever reads it looks.
                    watch.looked = looked.unwrap_or(false);
                }
                self.assign(target, value)?;
            }
            Kind::Capture { target, filter, body } => {
                let text = self.capture(body)?;
                let value = match filter {
                    None => Value::from(text),
                    Some(filter) => self.filter_captured(filter, text)?,
                };
                self.assign(target, value)?;
            }
            Kind::With { assignments, body } => {
                let rest = match path.split_first() {
                    Some((Step::Inside, rest)) => rest,
                    _ => {
                        let values =
                            assignments.iter().map(|(_, value)| self.evaluate(value)).collect::<Done<Vec<_>>>()?;
                        self.push();
                        for ((target, _), value) in assignments.iter().zip(values) {
                            self.assign(target, value)?;
                        }
                        &[]
                    }
                };
                self.enter(Step::Inside);
                let flow = self.deeper(|machine| machine.block(body, rest))?;
                self.leave();
                self.pop();
                return Ok(flow);
            }
            Kind::Filter { filter, body } => {
                let text = self.capture(body)?;
                let value = self.filter_captured(filter, text)?;
                self.print(&value)?;
            }
            Kind::Generation(body) => {
                self.out.push(marks::BEGIN);
                self.push();
                self.inner += 1;
                self.deeper(|machine| machine.block(body, &[]))?;
                self.inner -= 1;
                self.pop();
                self.out.push(marks::END);
            }
            Kind::Macro(number) => {
                let name = self.program.macros[*number].name;
                let frame = self.frame;
                self.frames[frame].set(name, Value::Macro(*number, frame));
            }
            Kind::CallBlock { call, caller } => {
                let Expression::Call(callee, arguments) = call else { return refuse("a `call` block calls nothing") };
                let callee = self.evaluate(callee)?;
                let arguments = self.arguments(arguments)?;
                let caller = Some((*caller, self.frame));
                let value = self.call(callee, arguments, caller)?;
                self.print(&value)?;
            }
            Kind::Break => return Ok(Flow::Break),
            Kind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn print(&mut self, value: &Value<'a>) -> Done<()> {
        if let Value::Text(text) = value {
            self.burn(text.as_str().len() / 64)?;
            self.out.push_str(text.as_str());
            return Ok(());
        }
        let text = self.text(value)?;
        self.burn(text.as_str().len() / 64)?;
        self.out.push_str(text.as_str());
        Ok(())
    }

    fn push(&mut self) {
        self.frames.push(Frame::inside(self.frame));
        self.frame = self.frames.len() - 1;
    }

    fn pop(&mut self) {
        let popped = self.frames.pop().expect("a frame was pushed");
        self.frame = popped.parent;
    }

    /// What a body prints.
    fn capture(&mut self, body: &'a [Statement]) -> Done<String> {
        let outer = std::mem::take(&mut self.out);
        self.inner += 1;
        self.push();
        let ran = self.deeper(|machine| machine.block(body, &[]));
        self.pop();
        self.inner -= 1;
        let text = std::mem::replace(&mut self.out, outer);
        ran.map(|_| text)
    }

    fn assign(&mut self, target: &'a Target, value: Value<'a>) -> Done<()> {
        match target {
            Target::Name(name) => {
                let frame = self.frame;
                self.frames[frame].set(*name, value);
            }
            Target::Attribute(name, attribute) => {
                let Value::Namespace(number) = self.lookup(*name) else {
                    return refuse("cannot assign attribute on non-namespace object");
                };
                self.set_in_namespace(number, attribute, value)?;
            }
            Target::Tuple(targets) => {
                let values = self.iterate(&value)?;
                if values.len() != targets.len() {
                    return refuse(format!("{} values for {} names", values.len(), targets.len()));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value)?;
                }
            }
        }
        Ok(())
    }

    fn set_in_namespace(&mut self, number: usize, attribute: &str, value: Value<'a>) -> Done<()> {
        if attribute.starts_with('_') {
            return refuse(format!("`{attribute}` cannot be stored on a namespace: it begins with an underscore"));
        }
        if let Some(watch) = &mut self.watch {
            watch.remembered = true;
        }
        if let Some(point) = self.recorder.as_mut().and_then(|recorder| recorder.points.last_mut()) {
            point.note(number, attribute);
        }
        let namespace = &mut self.namespaces[number];
        match namespace.iter_mut().find(|(known, _)| known == attribute) {
            Some((_, old)) => *old = value,
            None => namespace.push((attribute.to_owned(), value)),
        }
        Ok(())
    }

    // ---- loops

    fn begin_loop(&mut self, statement: &'a For, path: &[Step<'a>]) -> Done<Flow> {
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

    /// Whether a branch that differed early stands before a loop where the recording stood, text and variables alike,
    /// but for attributes that the loop's first turns do not touch: then it goes on with the recording after those.
    fn rejoin(&mut self, course: &Rc<Course<'a>>) -> bool {
        let Some(tape) = self.tape.clone() else { return false };
        let is_start = |point: &Point<'a>| {
            let Some(Step::Turn(recorded, 0, 0, None)) = point.path.last() else { return false };
            std::ptr::eq(recorded.statement, course.statement)
                && matches!((&recorded.items, &course.items), (Items::Messages(one), Items::Messages(other)) if one == other)
        };
        let hint = tape.hints.borrow()[usize::from(self.add_generation_prompt)].clone();
        let known = tape.points.get(hint.start).is_some_and(is_start).then_some(hint.start);
        let Some(start) = known.or_else(|| tape.points.iter().position(is_start)) else { return false };
        let point = &tape.points[start];
        let Some(differences) = self.differences(point, &tape.text) else { return false };
        let differs: Vec<(usize, String)> =
            differences.iter().map(|(namespace, name, _)| (*namespace, name.clone())).collect();
        let goes_on = |point: &Point<'a>| {
            point.needs <= self.count
                && !(self.add_generation_prompt && point.asked)
                && !point.touched.iter().any(|touched| differs.contains(touched))
        };
        // What went well for fewer messages goes well for more.
        let from =
            if hint.start == start && hint.count <= self.count && hint.differs == differs { hint.end } else { start };
        let end = from + tape.points[from..].iter().take_while(|point| goes_on(point)).count();
        let end = end.min(tape.points.len() - 1);
        let (count, add_generation_prompt) = (self.count, self.add_generation_prompt);
        tape.hints.borrow_mut()[usize::from(add_generation_prompt)] = Hint { start, count, differs, end };
        if end <= start {
            return false;
        }
        self.rejoined = Some((end, differences));
        true
    }

    /// In which attributes a branch differs from a point of the recording; `None` if in anything else.
    fn differences(&self, point: &Point<'a>, recorded: &str) -> Option<Differences<'a>> {
        let same_text = recorded.get(self.begun..point.text) == Some(self.out.as_str());
        let same_frame = |(one, other): (&Frame<'a>, &Frame<'a>)| {
            one.parent == other.parent
                && one.variables.len() == other.variables.len()
                && one
                    .variables
                    .iter()
                    .zip(&other.variables)
                    .all(|(one, other)| one.0 == other.0 && one.1.is_same(&other.1))
        };
        let same = same_text
            && self.frame == point.frame
            && self.frames.len() == point.frames.len()
            && self.frames.iter().zip(&point.frames).all(same_frame)
            && self.generators.is_empty()
            && point.generators.is_empty()
            && self.namespaces.len() == point.namespaces.len();
        if !same {
            return None;
        }
        let mut differences = Vec::new();
        for (number, (own, recorded)) in self.namespaces.iter().zip(&point.namespaces).enumerate() {
            if own.len() != recorded.len() {
                return None;
            }
            for ((name, value), (other, recorded)) in own.iter().zip(recorded) {
                if name != other {
                    return None;
                }
                if !value.is_same(recorded) {
                    differences.push((number, name.clone(), value.clone()));
                }
            }
        }
        Some(differences)
    }

    fn course(&mut self, statement: &'a For, items: Value<'a>, depth: usize) -> Done<Rc<Course<'a>>> {
        let items = match items {
            Value::Messages(start) => Items::Messages(start),
            Value::Reversed(start) => Items::Reversed(start),
            Value::Array(nodes) => Items::Array(nodes),
            Value::Sequence(_, items) => Items::List(items),
            other => Items::List(Rc::new(self.iterate(&other)?)),
        };
        Ok(Rc::new(Course { statement, items, depth, frame: self.frame }))
    }

    fn turns(
        &mut self,
        course: Rc<Course<'a>>,
        mut number: usize,
        mut at: usize,
        mut previous: Option<usize>,
    ) -> Done<Flow> {
        let statement = course.statement;
        loop {
            if self.is_outermost() {
                self.point(Some(Step::Turn(Rc::clone(&course), number, at, previous)));
            }
            let Some((found, item)) = self.advance(&course, at)? else { break };
            self.push();
            self.inner += 1;
            self.assign(&statement.target, item)?;
            let turn = Rc::new(Turn { course: Rc::clone(&course), number, at: found, previous });
            if let Some(name) = self.program.number_of("loop") {
                let frame = self.frame;
                self.frames[frame].set(name, Value::Loop(turn));
            }
            let outer = statement.is_quiet.then(|| self.watch.replace(Watch::of(self.frame)));
            let flow = self.deeper(|machine| machine.block(&statement.body, &[]))?;
            self.inner -= 1;
            self.pop();
            let idle = self.watch.as_ref().is_some_and(|watch| !watch.looked && !watch.remembered);
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
    fn advance(&mut self, course: &Course<'a>, from: usize) -> Done<Option<(usize, Value<'a>)>> {
        let mut at = from;
        loop {
            self.burn(0)?;
            let Some(item) = self.item_of(course, at) else { return Ok(None) };
            let Some(condition) = &course.statement.condition else { return Ok(Some((at, item))) };
            let outer = std::mem::replace(&mut self.frame, course.frame);
            self.push();
            self.inner += 1;
            self.assign(&course.statement.target, item.clone())?;
            let holds = self.evaluate(condition)?;
            let holds = self.is_true(&holds);
            self.inner -= 1;
            self.pop();
            self.frame = outer;
            if holds {
                return Ok(Some((at, item)));
            }
            at += 1;
        }
    }

    fn item_of(&mut self, course: &Course<'a>, at: usize) -> Option<Value<'a>> {
        match &course.items {
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
    fn message(&mut self, number: usize) -> Option<Value<'a>> {
        if number < self.count {
            self.need(number + 1);
            return Some(Value::of(self.stage.messages[number]));
        }
        // Nothing to note: with fewer messages it is not there either.
        None
    }

    fn loop_attribute(&mut self, turn: &Rc<Turn<'a>>, name: &str) -> Done<Value<'a>> {
        let course = Rc::clone(&turn.course);
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

    fn loop_length(&mut self, course: &Course<'a>) -> Done<Value<'a>> {
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

    fn shift(&self, value: &Value<'a>, by: i128) -> Value<'a> {
        match value {
            Value::Count(offset) => Value::Count(offset + by),
            Value::Int(value) => Value::Int(value + by),
            _ => Value::Undefined,
        }
    }

    /// `loop(items)`: the loop's body again, over other items.
    fn loop_again(&mut self, turn: &Turn<'a>, items: Value<'a>) -> Done<Value<'a>> {
        if !turn.course.statement.recursive {
            return refuse("the loop must have the `recursive` marker to be called recursively");
        }
        let outer_text = std::mem::take(&mut self.out);
        let outer_frame = std::mem::replace(&mut self.frame, turn.course.frame);
        self.inner += 1;
        let course = self.course(turn.course.statement, items, turn.course.depth + 1)?;
        let ran = self.deeper(|machine| machine.turns(course, 0, 0, None));
        self.inner -= 1;
        self.frame = outer_frame;
        let text = std::mem::replace(&mut self.out, outer_text);
        ran.map(|_| Value::from(text))
    }

    // ---- names and calls

    fn lookup(&mut self, name: Name) -> Value<'a> {
        let mut frame = self.frame;
        loop {
            let found = &self.frames[frame];
            if let Some((_, value)) = found.variables.iter().find(|(known, _)| *known == name) {
                if let Some(watch) = self.watch.as_mut().filter(|watch| frame >= watch.frame) {
                    watch.looked = true;
                }
                return value.clone();
            }
            if frame == 0 {
                break;
            }
            frame = found.parent;
        }
        self.global(name)
    }

    fn global(&mut self, name: Name) -> Value<'a> {
        let stage = self.stage;
        let text = self.program.names[name as usize].as_str();
        match text {
            "messages" => return Value::Messages(0),
            "tools" => return stage.tools.map_or(Value::None, Value::of),
            "documents" => return stage.documents.map_or(Value::None, Value::of),
            "add_generation_prompt" => {
                if let Some(point) = self.recorder.as_mut().and_then(|recorder| recorder.points.last_mut()) {
                    point.asked = true;
                }
                return Value::Bool(self.add_generation_prompt);
            }
            _ => {}
        }
        let member = |members: &'a [Member<'a>]| members.iter().find(|member| member.key == text);
        if let Some(found) = member(stage.arguments).or_else(|| member(stage.defaults)) {
            return Value::of(&found.node);
        }
        if let Some((_, found)) = stage.tokens.iter().find(|(known, _)| known == text) {
            return Value::from(found.as_str());
        }
        match text {
            "raise_exception" => Value::Function(Function::Raise),
            "strftime_now" => Value::Function(Function::Now),
            "namespace" => Value::Function(Function::Namespace),
            "range" => Value::Function(Function::Range),
            "dict" => Value::Function(Function::Dict),
            _ => Value::Undefined,
        }
    }

    fn arguments(&mut self, arguments: &'a [Argument]) -> Done<Arguments<'a>> {
        let mut found = Arguments::default();
        for argument in arguments {
            match argument {
                Argument::Positional(value) => {
                    let value = self.evaluate(value)?;
                    found.positional.push(value);
                }
                Argument::Named(name, value) => {
                    let value = self.evaluate(value)?;
                    found.named.push((name, value));
                }
                Argument::Spread(value) => {
                    let value = self.evaluate(value)?;
                    found.positional.extend(self.iterate(&value)?);
                }
                Argument::SpreadNamed(value) => {
                    let Value::Object(members) = self.evaluate(value)? else {
                        return refuse("`**` takes an object of the record");
                    };
                    found.named.extend(members.iter().map(|member| (&*member.key, Value::of(&member.node))));
                }
            }
        }
        Ok(found)
    }

    fn call(&mut self, callee: Value<'a>, arguments: Arguments<'a>, caller: Option<(usize, usize)>) -> Done<Value<'a>> {
        match callee {
            Value::Macro(number, frame) => self.call_macro(number, frame, arguments, caller),
            Value::Method(method) => self.call_method(&method.0, method.1, arguments),
            Value::Function(function) => self.call_function(function, arguments),
            Value::Loop(turn) => {
                let items = arguments.positional.into_iter().next().unwrap_or(Value::Undefined);
                self.loop_again(&turn, items)
            }
            Value::Undefined => refuse("something undefined is called"),
            other => refuse(format!("'{}' object is not callable", other.kind())),
        }
    }

    fn call_macro(
        &mut self,
        number: usize,
        frame: usize,
        arguments: Arguments<'a>,
        caller: Option<(usize, usize)>,
    ) -> Done<Value<'a>> {
        let program = self.program;
        let called: &'a Macro = &program.macros[number];
        let outer_frame = std::mem::replace(&mut self.frame, frame.min(self.frames.len() - 1));
        let outer_text = std::mem::take(&mut self.out);
        self.push();
        self.inner += 1;
        self.callers.push(caller);
        let ran = self.deeper(|machine| {
            machine.bind(called, arguments)?;
            machine.block(&called.body, &[])
        });
        self.callers.pop();
        self.inner -= 1;
        self.pop();
        self.frame = outer_frame;
        let text = std::mem::replace(&mut self.out, outer_text);
        ran.map(|_| Value::from(text))
    }

    fn bind(&mut self, called: &'a Macro, arguments: Arguments<'a>) -> Done<()> {
        let name = &self.program.names[called.name as usize];
        let Arguments { positional, named } = arguments;
        let frame = self.frame;
        let given = positional.len();
        let mut positional = positional.into_iter();
        let mut named = named;
        let without_default = called.parameters.len() - called.defaults.len();
        for (index, &parameter) in called.parameters.iter().enumerate() {
            let text = self.program.names[parameter as usize].as_str();
            let by_name = named.iter().position(|(known, _)| *known == text).map(|at| named.remove(at).1);
            let value = match (positional.next(), by_name) {
                (Some(_), Some(_)) => {
                    return refuse(format!("macro '{name}' got multiple values for argument '{text}'"));
                }
                (Some(value), None) | (None, Some(value)) => value,
                (None, None) => match index.checked_sub(without_default) {
                    Some(default) => self.evaluate(&called.defaults[default])?,
                    None => Value::Undefined,
                },
            };
            self.frames[frame].set(parameter, value);
        }
        let rest: Vec<Value<'a>> = positional.collect();
        if let Some(varargs) = self.program.number_of("varargs") {
            self.frames[frame].set(varargs, Value::tuple(rest));
        } else if !rest.is_empty() {
            let takes = called.parameters.len();
            return refuse(format!("macro '{name}' takes not more than {takes} argument(s), {given} were given"));
        }
        if let Some(kwargs) = self.program.number_of("kwargs") {
            let pairs = named.into_iter().map(|(name, value)| (Value::from(name), value)).collect();
            self.frames[frame].set(kwargs, Value::Dict(Rc::new(pairs)));
        } else if let Some((unknown, _)) = named.first() {
            return refuse(format!("macro '{name}' takes no keyword argument '{unknown}'"));
        }
        if let (Some(Some((number, frame_of_caller))), Some(name)) =
            (self.callers.last().copied(), self.program.number_of("caller"))
        {
            self.frames[frame].set(name, Value::Macro(number, frame_of_caller));
        }
        Ok(())
    }

    fn call_function(&mut self, function: Function, arguments: Arguments<'a>) -> Done<Value<'a>> {
        let Arguments { positional, named } = arguments;
        match function {
            Function::Raise => {
                let message = positional.first().cloned().or_else(|| named.first().map(|(_, value)| value.clone()));
                let said = self.text(&message.unwrap_or(Value::Undefined))?;
                refuse(format!("{}{}", super::SAYS, said.as_str()))
            }
            Function::Now => {
                let Some(format) = positional.first().and_then(Value::as_str) else {
                    return refuse("`strftime_now` takes a format");
                };
                match self.stage.date {
                    Some(date) => Ok(Value::from(date.strftime(format))),
                    None => refuse("the template prints the date; give the date with `--date YYYY-MM-DD`"),
                }
            }
            Function::Namespace => {
                self.namespaces.push(Vec::new());
                let number = self.namespaces.len() - 1;
                for (key, value) in self.pairs_of(positional)? {
                    self.set_in_namespace(number, &key, value)?;
                }
                for (name, value) in named {
                    self.set_in_namespace(number, name, value)?;
                }
                Ok(Value::Namespace(number))
            }
            Function::Range => self.range(&positional),
            Function::Dict => {
                let mut pairs: Vec<(Value<'a>, Value<'a>)> =
                    self.pairs_of(positional)?.into_iter().map(|(key, value)| (Value::from(key), value)).collect();
                for (name, value) in named {
                    pairs.retain(|(known, _)| known.as_str() != Some(name));
                    pairs.push((Value::from(name), value));
                }
                Ok(Value::Dict(Rc::new(pairs)))
            }
        }
    }

    /// What `dict(mapping)` takes.
    fn pairs_of(&mut self, positional: Vec<Value<'a>>) -> Done<Vec<(String, Value<'a>)>> {
        let mut pairs = Vec::new();
        for value in positional {
            for (key, value) in self.members(&value)? {
                let Some(key) = key.as_str() else { return refuse("a key that is no string") };
                pairs.push((key.to_owned(), value));
            }
        }
        Ok(pairs)
    }

    fn range(&mut self, bounds: &[Value<'a>]) -> Done<Value<'a>> {
        let bounds: Vec<i128> = bounds.iter().map(|bound| self.integer(bound)).collect::<Done<_>>()?;
        let (start, stop, step) = match bounds[..] {
            [stop] => (0, stop, 1),
            [start, stop] => (start, stop, 1),
            [start, stop, step] if step != 0 => (start, stop, step),
            _ => return refuse("`range` takes one to three numbers, the last one not 0"),
        };
        let mut items = Vec::new();
        let mut at = start;
        while if step > 0 { at < stop } else { at > stop } {
            // Jinja's sandbox has the same limit.
            if items.len() >= 100_000 {
                return refuse("a range of more than 100,000 numbers");
            }
            self.burn(0)?;
            items.push(Value::Int(at));
            at = at.saturating_add(step);
        }
        Ok(Value::view(items))
    }

    // ---- expressions

    fn evaluate(&mut self, expression: &'a Expression) -> Done<Value<'a>> {
        self.burn(0)?;
        Ok(match expression {
            Expression::None => Value::None,
            Expression::Bool(value) => Value::Bool(*value),
            Expression::Int(value) => Value::Int(*value),
            Expression::Float(value) => Value::Float(*value),
            Expression::Text(text) => Value::from(text.as_str()),
            Expression::Name(name) => self.lookup(*name),
            Expression::Attribute(inner, name) => {
                let value = self.deep(inner)?;
                if matches!(value, Value::Undefined) {
                    return refuse(format!("{} is undefined", self.spelt(inner)));
                }
                self.attribute(&value, name)?
            }
            Expression::Item(pair) => {
                let value = self.deep(&pair[0])?;
                let key = self.deep(&pair[1])?;
                self.item(&value, &key)?
            }
            Expression::Compare(first, chain) => {
                let mut left = self.deep(first)?;
                for (comparison, right) in chain {
                    let right = self.deep(right)?;
                    if !self.compare(*comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Value::Bool(true)
            }
            Expression::And(pair) => {
                let left = self.deep(&pair[0])?;
                if self.is_true(&left) { self.deep(&pair[1])? } else { left }
            }
            Expression::Or(pair) => {
                let left = self.deep(&pair[0])?;
                if self.is_true(&left) { left } else { self.deep(&pair[1])? }
            }
            Expression::Not(value) => {
                let value = self.deep(value)?;
                Value::Bool(!self.is_true(&value))
            }
            Expression::Negative(value) => {
                let value = self.deep(value)?;
                self.negate(&value)?
            }
            Expression::Arithmetic(operation, pair) => {
                let left = self.deep(&pair[0])?;
                let right = self.deep(&pair[1])?;
                for (value, expression) in [(&left, &pair[0]), (&right, &pair[1])] {
                    if matches!(value, Value::Undefined) && *operation != Arithmetic::Join {
                        return refuse(format!("{} is undefined", self.spelt(expression)));
                    }
                }
                self.arithmetic(*operation, &left, &right)?
            }
            Expression::Choose(parts) => {
                let test = self.deep(&parts.0)?;
                match (self.is_true(&test), &parts.2) {
                    (true, _) => self.deep(&parts.1)?,
                    (false, Some(otherwise)) => self.deep(otherwise)?,
                    (false, None) => Value::Undefined,
                }
            }
            Expression::Filter { name, value, arguments } => {
                let Some(value) = value else { return refuse("a filter of nothing") };
                let value = self.deep(value)?;
                let arguments = self.arguments(arguments)?;
                self.filter(name, value, arguments)?
            }
            Expression::Test { name, value, arguments } => {
                let value = self.deep(value)?;
                let arguments = self.arguments(arguments)?;
                Value::Bool(self.test(name, &value, &arguments)?)
            }
            Expression::Call(callee, arguments) => {
                if let Expression::Attribute(value, name) = &**callee {
                    let value = self.deep(value)?;
                    let arguments = self.arguments(arguments)?;
                    return self.deeper(|machine| machine.call_attribute(&value, name, arguments));
                }
                let callee = self.deep(callee)?;
                let arguments = self.arguments(arguments)?;
                self.call(callee, arguments, None)?
            }
            Expression::Slice(parts) => self.slice(parts)?,
            Expression::List(items) => Value::list(items.iter().map(|item| self.deep(item)).collect::<Done<Vec<_>>>()?),
            Expression::Tuple(items) => {
                Value::tuple(items.iter().map(|item| self.deep(item)).collect::<Done<Vec<_>>>()?)
            }
            Expression::Dict(pairs) => {
                let mut found: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(pairs.len());
                for (key, value) in pairs {
                    let key = self.deep(key)?;
                    let value = self.deep(value)?;
                    let mut known = None;
                    for (index, (other, _)) in found.iter().enumerate() {
                        if self.equal(other, &key)? {
                            known = Some(index);
                        }
                    }
                    match known {
                        Some(index) => found[index].1 = value,
                        None => found.push((key, value)),
                    }
                }
                Value::Dict(Rc::new(found))
            }
        })
    }

    /// An expression as the template spells it, roughly.
    fn spelt(&self, expression: &Expression) -> String {
        match expression {
            Expression::Name(name) => format!("'{}'", self.program.names[*name as usize]),
            Expression::Attribute(_, name) => format!("the attribute '{name}'"),
            Expression::Item(pair) => match &pair[1] {
                Expression::Text(name) => format!("the item '{name}'"),
                _ => "an item".to_owned(),
            },
            _ => "a value".to_owned(),
        }
    }

    fn deep(&mut self, expression: &'a Expression) -> Done<Value<'a>> {
        self.deeper(|machine| machine.evaluate(expression))
    }

    /// A chain of filters over what a block printed.
    fn filter_captured(&mut self, filter: &'a Expression, text: String) -> Done<Value<'a>> {
        let Expression::Filter { name, value, arguments } = filter else {
            return refuse("a block passes through filters only");
        };
        let value = match value {
            None => Value::from(text),
            Some(inner) => self.filter_captured(inner, text)?,
        };
        let arguments = self.arguments(arguments)?;
        self.filter(name, value, arguments)
    }

    fn generator(&mut self, items: Vec<Value<'a>>) -> Value<'a> {
        self.generators.push(Some(Rc::new(items)));
        Value::Generator(self.generators.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn node(source: &str) -> Node<'static> {
        json::parse(source.as_bytes()).expect("JSON").root.into_owned_at(&(0..0))
    }

    fn stage<'a>(messages: &'a [&'a Node<'a>]) -> Stage<'a> {
        Stage { messages, tools: None, documents: None, tokens: &[], defaults: &[], arguments: &[], date: None }
    }

    fn show(source: &str) -> Result<String, Failure> {
        let program = Program::read(source).expect("a template");
        let messages = [
            node(r#"{"role": "user", "content": " q\n", "n": [1, 2.50, null, true], "d": {"items": 1, "b": "x'y"}}"#),
            node(r#"{"role": "assistant", "content": "a"}"#),
        ];
        run(&program, stage(&messages.iter().collect::<Vec<_>>()), 2, false)
    }

    #[test]
    fn values_print_as_python_prints_them() {
        for (source, printed) in [
            ("{{ messages[0].n }}", "[1, 2.5, None, True]"),
            ("{{ messages[0].d }}", "{'items': 1, 'b': \"x'y\"}"),
            ("{{ messages[0].d['items'] }}{{ messages[0].d.b }}{{ messages[0].nothing }}", "1x'y"),
            ("{{ (1, 'a') }}{{ (1,) }}{{ 1e16 }} {{ 7 // 2 }} {{ -7 % 3 }} {{ 1 / 2 }}", "(1, 'a')(1,)1e+16 3 2 0.5"),
            ("{{ 'a' ~ 1 ~ none ~ nothing ~ 1.0 }}", "a1None1.0"),
            ("{{ 'x' if false }}|{{ 'abc'[::-1] }}|{{ 'abc'[-2:] }}", "|cba|bc"),
            ("{{ messages | map(attribute='role') | join(', ') }}", "user, assistant"),
            ("{% set n = namespace(a=1) %}{% for m in messages %}{% set n.a = n.a + 1 %}{% endfor %}{{ n.a }}", "3"),
            ("{% set a = 1 %}{% for m in messages %}{% set a = a + 1 %}{% endfor %}{{ a }}", "1"),
            ("{% macro f(x, y=2) %}{{ x }}-{{ y }}-{{ caller() if caller }}{% endmacro %}{{ f(1) }}", "1-2-"),
            ("{% macro f(x) %}<{{ caller() }}>{% endmacro %}{% call f(1) %}b{% endcall %}", "<b>"),
            ("{% for m in messages if m.role == 'user' %}{{ loop.last }}{{ loop.length }}{% endfor %}", "True1"),
            ("{% for x in [1, [2]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}", "12"),
            ("{{ messages[0].d | tojson }} {{ [1] | tojson(indent=1) }}", "{\"items\": 1, \"b\": \"x'y\"} [\n 1\n]"),
            ("{{ messages[0].content | trim }}.{{ ' a'.lstrip() }}", "q.a"),
            ("{{ '<' | safe + '<' }}", "<&lt;"),
        ] {
            assert_eq!(show(source), Ok(printed.to_owned()), "{source}");
        }
    }

    #[test]
    fn what_python_refuses_is_refused() {
        for source in [
            "{% for x in none %}{% endfor %}",
            "{{ messages | map(attribute='role') | tojson }}",
            "{{ messages | map(attribute='role') | length }}",
            "{{ nothing.more }}",
            "{{ 1 + 'a' }}",
            "{{ 'a' in none }}",
            "{{ messages.append(1) }}",
            "{{ nothing | tojson }}",
            "{{ 1 < 'a' }}",
            "{{ 'a' | from_json }}",
            "{{ nothing() }}",
        ] {
            assert!(matches!(show(source), Err(Failure::Refused(_))), "{source}: {:?}", show(source));
        }
        let endless = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
        assert!(matches!(show(endless), Err(Failure::Refused(_))));
        let long = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
        let program = Program::read(long).expect("a template");
        let mut machine = Machine::new(&program, stage(&[]), 0, false);
        machine.fuel = 10_000;
        assert!(matches!(machine.block(&program.body, &[]), Err(Failure::Limit)));
    }

    #[test]
    fn a_branch_is_what_a_run_over_fewer_messages_gives() {
        let messages: Vec<Node<'static>> = (0..9)
            .map(|index| {
                let role = ["user", "assistant", "tool"][index % 3];
                node(&format!(r#"{{"role": "{role}", "content": "c{index}"}}"#))
            })
            .collect();
        for (source, far) in [
            (
                "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}",
                1,
            ),
            ("{% set s = messages[1:] %}{% for m in s %}{{ m.content }}{{ ',' if not loop.last }}{% endfor %}", 2),
            (
                "{% if messages|length > 2 %}{% for m in messages %}{{ m.content }}{% if loop.nextitem is defined and \
              loop.nextitem.role == 'tool' %}!{% endif %}{% endfor %}{% endif %}",
                9,
            ),
            ("{% for m in messages[::-1] %}{{ m.content }}{% endfor %}", 9),
            (
                "{% set n = namespace(k=0) %}{% for m in messages %}{% set n.k = n.k + 1 %}{{ n.k }}{{ m.content }}\
              {% if loop.index0 == messages|length - 1 %}END{% endif %}{% endfor %}{{ n.k }}",
                2,
            ),
            ("{% for m in messages if m.role != 'tool' %}{{ m.content }}{{ loop.length }}{% endfor %}", 9),
            (
                "{% with x = 1 %}{% for m in messages %}{{ m.content }}{{ x }}{{ add_generation_prompt }}{% endfor %}{% endwith %}",
                9,
            ),
            (
                "{{ messages[-1].content }}{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}{{ m.content }}{% endfor %}",
                9,
            ),
        ] {
            let program = Program::read(source).expect("a template");
            let messages: Vec<&Node<'_>> = messages.iter().collect();
            let recording = Recording::new(&program, stage(&messages)).expect("a text");
            for count in 0..=messages.len() {
                for add_generation_prompt in [false, true] {
                    let branch = recording.first(count, add_generation_prompt);
                    let alone = run(&program, stage(&messages), count, add_generation_prompt);
                    let whole = |branch: &Branch| format!("{}{}", &recording.text()[..branch.shared], branch.rest);
                    assert_eq!(
                        branch.as_ref().map(whole).map_err(Clone::clone),
                        alone,
                        "{source} {count} {add_generation_prompt}"
                    );
                    let Ok(branch) = branch else { continue };
                    if count > 2 && far < 9 && !add_generation_prompt {
                        // Only the last messages are run again.
                        assert!(branch.rest.len() <= far * 12, "{source} {count}: {}", branch.rest);
                    }
                }
            }
        }
    }
}
