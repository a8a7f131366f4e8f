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

mod calls;
mod expressions;
mod filters;
mod lessons;
mod loops;
mod methods;
mod operations;
mod recording;
mod trace;
mod value;

use std::borrow::Cow;
use std::rc::Rc;

use super::date::Date;
use super::marks;
use super::program::{Arithmetic, Expression, Kind, Program, Statement, Target};
use crate::json::{Member, Node};

use lessons::Lesson;
use loops::Watch;
use recording::{Differences, Namespace, Recorder, Step, Tape};
use trace::Tracer;
use value::{Frame, Text, Value};

pub(super) use lessons::{Numbered, shape};
pub(super) use recording::{Branch, Recording};
pub(super) use trace::{Condition, Part, Print, Trace, Way, Ways, root};
pub(super) use value::{looked, traced};

/// Work that one rendering may take: about as many steps, or 64 bytes of text each.
const FUEL: u64 = 20_000_000;
/// How deeply calls, blocks and expressions of a template may nest.
const DEPTH: usize = 400;
/// Stack that must be left for so many more levels, and how much is added where it is not, in bytes.
const LEVELS: usize = 8;
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
    /// What is known of the messages where their strings are numbered.
    pub(super) numbered: Option<&'a Numbered<'a>>,
}

impl Stage<'_> {
    /// About how long the text will be, in bytes.
    fn room(&self) -> usize {
        let content = |message: &&Node<'_>| message.get("content").and_then(Node::as_str).map_or(0, str::len);
        self.messages.iter().map(|message| content(message) + 64).sum::<usize>() + 256
    }
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
    namespaces: Vec<Namespace<'a>>,
    generators: Vec<Option<Rc<Vec<Value<'a>>>>>,
    /// The macro that a `call` block hands over, for each call that is running.
    callers: Vec<Option<(usize, usize)>>,
    fuel: u64,
    depth: usize,
    line: u32,
    /// How many captures, macros and loops are open: points are only taken at the outermost.
    inner: usize,
    recorder: Option<Recorder<'a>>,
    tracer: Option<Tracer>,
    lesson: Option<Lesson>,
    watch: Option<Watch>,
    /// The recording to which a branch goes back where it can.
    tape: Option<Rc<Tape<'a>>>,
    /// How much of the recorded text a branch begins with.
    begun: usize,
    /// The point at which a branch goes on with the recording, and in what it differs from it.
    rejoined: Option<(usize, Differences<'a>)>,
}

/// Positional and named arguments of a call.
#[derive(Default)]
struct Arguments<'a> {
    positional: Vec<Value<'a>>,
    named: Vec<(&'a str, Value<'a>)>,
}

/// Runs a template over the first `count` messages.
pub(super) fn run(
    program: &Program,
    stage: Stage<'_>,
    count: usize,
    add_generation_prompt: bool,
) -> Result<String, Failure> {
    run_traced(program, stage, count, add_generation_prompt, None)
}

/// The same over numbered strings, if it is traced.
pub(super) fn run_traced(
    program: &Program,
    stage: Stage<'_>,
    count: usize,
    add_generation_prompt: bool,
    trace: Option<Trace>,
) -> Result<String, Failure> {
    let mut machine = Machine::new(program, stage, count, add_generation_prompt);
    machine.out.reserve(stage.room());
    machine.tracer = trace.map(Tracer::new);
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
            tracer: None,
            lesson: None,
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
        let result = if self.depth.is_multiple_of(LEVELS) {
            stacker::maybe_grow(STACK_LEFT, STACK_STEP, || run(self))
        } else {
            run(self)
        };
        self.depth -= 1;
        result
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
                let start = self.out.len();
                if let Some(value) = self.print_parts(expression, start)? {
                    self.print(&value)?;
                }
            }
            Kind::If { test, then, otherwise } => {
                let (holds, rest) = match path.split_first() {
                    Some((Step::Then(holds), rest)) => (*holds, rest),
                    _ => (self.decide(test)?, &[][..]),
                };
                self.enter(Step::Then(holds));
                let flow = self.deeper(|machine| machine.block(if holds { then } else { otherwise }, rest))?;
                self.leave();
                return Ok(flow);
            }
            Kind::For(statement) => return self.begin_loop(statement, path),
            Kind::Set { target, value } => {
                if self.sets_back(target, value)? {
                    return Ok(Flow::Next);
                }
                let looked = self.watch.as_ref().map(|watch| watch.looked);
                let names = [self.program.loop_name, self.program.messages_name];
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
                    None => Value::Text(text),
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

    /// Prints the parts of a sum of texts one by one, without making the sum. Where it is no such sum, what was printed
    /// since `start` is taken back, and its value is returned.
    fn print_parts(&mut self, expression: &'a Expression, start: usize) -> Done<Option<Value<'a>>> {
        let Expression::Arithmetic(Arithmetic::Add, pair) = expression else {
            return Ok(match self.evaluate(expression)? {
                Value::Text(text) if !text.safe => {
                    self.put(&text)?;
                    None
                }
                value => Some(value),
            });
        };
        let left = self.deeper(|machine| machine.print_parts(&pair[0], start))?;
        match (left, self.deep(&pair[1])?) {
            (None, Value::Text(text)) if !text.safe => {
                self.put(&text)?;
                Ok(None)
            }
            (left, right) => {
                let left = left.unwrap_or_else(|| self.taken_back(start));
                self.sum(Arithmetic::Add, pair, &left, &right).map(Some)
            }
        }
    }

    fn print(&mut self, value: &Value<'a>) -> Done<()> {
        if let Value::Text(text) = value {
            return self.put(text);
        }
        let text = self.text(value)?;
        self.put(&text)
    }

    fn put(&mut self, text: &Text<'a>) -> Done<()> {
        self.burn(text.unseen().len() / 64)?;
        if text.origin() != 0 {
            self.prints(text);
        }
        self.out.push_str(text.unseen());
        Ok(())
    }

    fn push(&mut self) {
        self.frames.push(Frame::inside(self.frame));
        self.frame = self.frames.len() - 1;
    }

    fn pop(&mut self) {
        let popped = self.frames.pop().expect("a frame was pushed");
        if let Some(lesson) = &mut self.lesson {
            lesson.leaves(self.frames.len());
        }
        self.frame = popped.parent;
    }

    /// What a body prints.
    fn capture(&mut self, body: &'a [Statement]) -> Done<Text<'a>> {
        let outer = std::mem::take(&mut self.out);
        let printed = self.prints_apart();
        self.inner += 1;
        self.push();
        let ran = self.deeper(|machine| machine.block(body, &[]));
        self.pop();
        self.inner -= 1;
        let text = std::mem::replace(&mut self.out, outer);
        let text = self.captured(text, printed);
        ran.map(|_| text)
    }

    fn assign(&mut self, target: &'a Target, value: Value<'a>) -> Done<()> {
        match target {
            Target::Name(name) => {
                if let Some(lesson) = &mut self.lesson {
                    lesson.reads_name(*name);
                }
                let frame = self.frame;
                self.frames[frame].set(*name, value);
            }
            Target::Attribute(name, attribute) => {
                let Value::Namespace(number) = self.lookup(*name) else {
                    return refuse("cannot assign attribute on non-namespace object");
                };
                self.set_in_namespace(number, Cow::Borrowed(attribute), value)?;
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

    fn set_in_namespace(&mut self, number: usize, attribute: Cow<'a, str>, value: Value<'a>) -> Done<()> {
        if attribute.starts_with('_') {
            return refuse(format!("`{attribute}` cannot be stored on a namespace: it begins with an underscore"));
        }
        if let Some(watch) = &mut self.watch {
            watch.remembered = true;
        }
        self.touches(number, &attribute);
        self.sets(number, &attribute);
        let namespace = &mut self.namespaces[number];
        match namespace.iter_mut().find(|(known, _)| *known == attribute) {
            Some((_, old)) => *old = value,
            None => namespace.push((attribute, value)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    pub(super) fn node(source: &str) -> Node<'static> {
        json::parse(source.as_bytes()).expect("JSON").root.into_owned_at(&(0..0))
    }

    pub(super) fn stage<'a>(messages: &'a [&'a Node<'a>]) -> Stage<'a> {
        Stage {
            messages,
            tools: None,
            documents: None,
            tokens: &[],
            defaults: &[],
            arguments: &[],
            date: None,
            numbered: None,
        }
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
            ("{{ 'a' + 'b' + 'c' }}{{ 1 + 2 + 3 }}{{ [1] + [2] }}", "abc6[1, 2]"),
            ("x{{ 'a<' + 'b' + ('<c>'|safe) + 'd&' }}", "xa&lt;b<c>d&amp;"),
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
}
