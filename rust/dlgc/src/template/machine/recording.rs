//! Recordings: a run over all messages, and the runs over fewer that branch off from it; see [`super`].

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use super::trace::{Print, Trace, Tracer};
use super::value::{Course, Frame, Items, Value};
use super::{Done, Failure, Machine, Stage};
use crate::template::program::{Comparison, Expression, Program};

/// A run of which prompts can be had; see the module.
#[derive(Debug)]
pub(in crate::template) struct Recording<'a> {
    program: &'a Program,
    stage: Stage<'a>,
    tape: Rc<Tape<'a>>,
    /// What is traced, where the strings are numbered, and the strings that were printed.
    trace: RefCell<Option<Trace>>,
    prints: Vec<Print>,
}

/// What was recorded.
#[derive(Debug)]
pub(super) struct Tape<'a> {
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
pub(in crate::template) struct Branch {
    /// How much of the recorded text it begins with, in bytes with marks.
    pub(in crate::template) shared: usize,
    /// What comes after it, with marks.
    pub(in crate::template) rest: String,
    /// The strings in that, where they are numbered; places count from its beginning.
    pub(in crate::template) prints: Vec<Print>,
}

/// Where a run can be taken up again.
#[derive(Debug)]
pub(super) struct Point<'a> {
    /// The way there, and its last step.
    around: Rc<[Step<'a>]>,
    step: Option<Step<'a>>,
    /// One for all points between which nothing was set.
    state: Rc<State<'a>>,
    /// Length of the text.
    text: usize,
    /// How many messages there must be for the run to come to the next point the same way.
    needs: usize,
    /// Whether the generation prompt was asked about before the next point.
    asked: bool,
    /// Attributes of namespaces that were read or set before the next point.
    touched: Vec<Touched>,
}

/// What variables hold.
#[derive(Debug, Clone)]
pub(super) struct State<'a> {
    frames: Vec<Frame<'a>>,
    frame: usize,
    namespaces: Vec<Namespace<'a>>,
    generators: Vec<Option<Rc<Vec<Value<'a>>>>>,
}

/// Attributes by their names, in the order in which they were set first.
pub(super) type Namespace<'a> = Vec<(Cow<'a, str>, Value<'a>)>;

/// What the way to the next point depends on.
#[derive(Debug, Clone, Copy)]
struct Touched {
    namespace: usize,
    /// Its place in the namespace, or the one after the last where it is not there yet.
    attribute: usize,
    /// The values from one to another with which it is the same way: the attribute was only compared with numbers.
    /// `None` where it was read or set.
    between: Option<(i128, i128)>,
}

impl<'a> Point<'a> {
    fn path(&self) -> Vec<Step<'a>> {
        self.around.iter().chain(&self.step).cloned().collect()
    }
}

/// Adds to what a way depends on.
fn narrow(touched: &mut Vec<Touched>, more: Touched) {
    let is_it = |known: &&mut Touched| (known.namespace, known.attribute) == (more.namespace, more.attribute);
    match touched.iter_mut().find(is_it) {
        Some(known) => {
            let both = known.between.zip(more.between);
            known.between =
                both.map(|((low, high), (other_low, other_high))| (low.max(other_low), high.min(other_high)));
        }
        None => touched.push(more),
    }
}

/// Attributes in which a branch differs from the recording, by namespace and place, with the branch's values.
pub(super) type Differences<'a> = Vec<(usize, usize, Value<'a>)>;

/// Where a branch came back to the recording, and how far it then went with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Hint {
    start: usize,
    count: usize,
    /// What the way there depends on.
    touched: Vec<Touched>,
    end: usize,
}

/// A step from the template's beginning to where it stands.
#[derive(Debug, Clone)]
pub(super) enum Step<'a> {
    /// The statement of a block.
    At(usize),
    /// The way that an `if` went.
    Then(bool),
    /// Inside a `with`.
    Inside,
    /// Before a turn of a loop: which turn, the item to look at, the item of the turn before.
    Turn(Rc<Course<'a>>, usize, usize, Option<usize>),
}

#[derive(Default)]
pub(super) struct Recorder<'a> {
    path: Vec<Step<'a>>,
    /// The same, if a point was taken since it was another.
    around: Option<Rc<[Step<'a>]>>,
    points: Vec<Point<'a>>,
}

impl<'a> Recorder<'a> {
    fn around(&mut self) -> Rc<[Step<'a>]> {
        Rc::clone(self.around.get_or_insert_with(|| self.path.as_slice().into()))
    }
}

impl<'a> Recording<'a> {
    /// Runs a template over all messages, without a generation prompt.
    pub(in crate::template) fn new(program: &'a Program, stage: Stage<'a>) -> Result<Self, Failure> {
        Self::traced(program, stage, None)
    }

    /// The same over numbered strings, if it is traced.
    pub(in crate::template) fn traced(
        program: &'a Program,
        stage: Stage<'a>,
        trace: Option<Trace>,
    ) -> Result<Self, Failure> {
        let mut machine = Machine::new(program, stage, stage.messages.len(), false);
        machine.out.reserve(stage.room());
        machine.recorder = Some(Recorder::default());
        machine.tracer = trace.map(Tracer::new);
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
        let prints = machine.printed();
        let trace = RefCell::new(machine.tracer.take().map(Tracer::into_trace));
        let tape = Tape { text: machine.out, points, upto, hints: RefCell::default() };
        Ok(Self { program, stage, tape: Rc::new(tape), trace, prints })
    }

    /// The text, with its marks.
    pub(in crate::template) fn text(&self) -> &str {
        &self.tape.text
    }

    /// The strings in the text, where they are numbered.
    pub(in crate::template) fn prints(&self) -> &[Print] {
        &self.prints
    }

    /// The run over the first `count` messages.
    pub(in crate::template) fn first(&self, count: usize, add_generation_prompt: bool) -> Result<Branch, Failure> {
        if count == self.stage.messages.len() && !add_generation_prompt {
            return Ok(Branch { shared: self.tape.text.len(), rest: String::new(), prints: Vec::new() });
        }
        let same = |&(needs, asked): &(usize, bool)| needs <= count && !(add_generation_prompt && asked);
        let index = self.tape.upto.partition_point(same).min(self.tape.points.len() - 1);
        let mut machine = self.take_up(index, count, add_generation_prompt);
        machine.tape = Some(Rc::clone(&self.tape));
        machine.tracer = self.trace.take().map(Tracer::new);
        let mut ran = machine.block(&self.program.body, &self.tape.points[index].path());
        let mut shared = self.tape.points[index].text;
        if let (Err(Failure::Rejoined), Some((index, differences))) = (&ran, machine.rejoined.take()) {
            let trace = machine.tracer.take().map(Tracer::into_trace);
            machine = self.take_up(index, count, add_generation_prompt);
            machine.tracer = trace.map(Tracer::new);
            for (namespace, attribute, value) in differences {
                machine.namespaces[namespace][attribute].1 = value;
            }
            shared = self.tape.points[index].text;
            ran = machine.block(&self.program.body, &self.tape.points[index].path());
        }
        let prints = machine.printed();
        self.trace.replace(machine.tracer.take().map(Tracer::into_trace));
        machine.located(ran)?;
        Ok(Branch { shared, rest: machine.out, prints })
    }

    /// A machine that stands at a point of the recording.
    pub(super) fn take_up(&self, index: usize, count: usize, add_generation_prompt: bool) -> Machine<'a> {
        let point = &self.tape.points[index];
        let mut machine = Machine::new(self.program, self.stage, count, add_generation_prompt);
        let State { frames, frame, namespaces, generators } = &*point.state;
        machine.frames.clone_from(frames);
        machine.frame = *frame;
        machine.namespaces.clone_from(namespaces);
        machine.generators.clone_from(generators);
        machine.begun = point.text;
        machine
    }
}

impl<'a> Machine<'a> {
    /// Everything read since the last point holds for as many messages and more.
    pub(super) fn need(&mut self, count: usize) {
        if let Some(point) = self.recorder.as_mut().and_then(|recorder| recorder.points.last_mut()) {
            point.needs = point.needs.max(count);
        }
    }

    /// Something was read that another number of messages changes.
    pub(super) fn need_all(&mut self) {
        self.forget();
        self.need(self.count);
    }

    /// The generation prompt was asked about.
    pub(super) fn asks(&mut self) {
        if let Some(point) = self.recorder.as_mut().and_then(|recorder| recorder.points.last_mut()) {
            point.asked = true;
        }
    }

    /// The strings that were printed, where they are numbered.
    fn printed(&self) -> Vec<Print> {
        let (Some(tracer), Some(numbered)) = (&self.tracer, self.stage.numbered) else { return Vec::new() };
        tracer.printed(&self.out, |number| numbered.length(number, &tracer.ways(number)))
    }

    /// An attribute of a namespace was read or set.
    pub(super) fn touches(&mut self, namespace: usize, attribute: &str) {
        self.touches_between(namespace, attribute, None);
    }

    /// An attribute was compared, and every value between two has the same outcome; or it was read or set.
    fn touches_between(&mut self, namespace: usize, attribute: &str, between: Option<(i128, i128)>) {
        if let Some(point) = self.recorder.as_mut().and_then(|recorder| recorder.points.last_mut()) {
            let held = &self.namespaces[namespace];
            let attribute = held.iter().position(|(known, _)| known == attribute).unwrap_or(held.len());
            narrow(&mut point.touched, Touched { namespace, attribute, between });
        }
    }

    /// The outcome where an attribute of a namespace is compared with a number. Many templates remember where the last
    /// question stood and ask at every answer whether it comes after that: whatever the number is, the outcome is the
    /// same for all on one side. `None` where something else is compared, or nothing is recorded.
    pub(super) fn remembered(
        &mut self,
        left: &'a Expression,
        comparison: Comparison,
        right: &'a Expression,
    ) -> Done<Option<bool>> {
        let is_asked = self.recorder.is_some() || self.lesson.is_some();
        if !is_asked || matches!(comparison, Comparison::In | Comparison::NotIn) {
            return Ok(None);
        }
        let attribute = |machine: &mut Self, expression: &'a Expression| {
            let Expression::Attribute(namespace, name) = expression else { return None };
            let Expression::Name(namespace) = &**namespace else { return None };
            let Value::Namespace(number) = machine.lookup(*namespace) else { return None };
            let (_, value) = machine.namespaces[number].iter().find(|(known, _)| known == name)?;
            matches!(value, Value::Int(_) | Value::Count(_)).then(|| (number, name.as_str(), value.clone()))
        };
        let (own, other, comparison) = match (attribute(self, left), attribute(self, right)) {
            (Some(own), None) => (own, right, comparison),
            (None, Some(own)) => (own, left, comparison.turned()),
            _ => return Ok(None),
        };
        if !other.only_looks() {
            return Ok(None);
        }
        let (namespace, name, value) = own;
        let from_turn = self.turn_plus(other).is_some();
        let Value::Int(with) = self.noting(from_turn, |machine| machine.deep(other))? else { return Ok(None) };
        let holds = self.compare_held(namespace, name, &value, comparison, with);
        self.compares(namespace, name, comparison, with, from_turn, holds);
        Ok(Some(holds))
    }

    /// Compares a number that a namespace holds, and notes with which others the outcome would be the same.
    pub(super) fn compare_held(
        &mut self,
        namespace: usize,
        name: &str,
        value: &Value<'a>,
        comparison: Comparison,
        with: i128,
    ) -> bool {
        let holds = match value {
            Value::Count(offset) => self.compare_count_unnoted(comparison, *offset, with),
            _ => comparison.of_numbers(self.number_now(value).unwrap_or_default(), with),
        };
        let known = self.number_now(value).expect("it is a number");
        let below = (i128::MIN, with.saturating_sub(1));
        let above = (with.saturating_add(1), i128::MAX);
        let between = match (comparison, holds) {
            (Comparison::Less, true) | (Comparison::GreaterOrEqual, false) => below,
            (Comparison::Less, false) | (Comparison::GreaterOrEqual, true) => (with, i128::MAX),
            (Comparison::Greater, true) | (Comparison::LessOrEqual, false) => above,
            (Comparison::Greater, false) | (Comparison::LessOrEqual, true) => (i128::MIN, with),
            (Comparison::Equal, true) | (Comparison::Unequal, false) => (with, with),
            _ if known < with => below,
            _ => above,
        };
        self.touches_between(namespace, name, Some(between));
        holds
    }

    /// What a number is with as many messages as are shown; nothing is noted.
    pub(super) fn number_now(&self, value: &Value<'a>) -> Option<i128> {
        match value {
            Value::Int(value) => Some(*value),
            Value::Count(offset) => Some((self.count as i128).saturating_add(*offset)),
            _ => None,
        }
    }

    pub(super) fn point(&mut self, step: Option<Step<'a>>) {
        let Some(recorder) = &self.recorder else { return };
        let last = recorder.points.last().map(|point| &point.state);
        let is_unchanged = |state: &&Rc<State<'a>>| self.differences(state).is_some_and(|found| found.is_empty());
        let state = match last.filter(is_unchanged) {
            Some(state) => Rc::clone(state),
            None => Rc::new(State {
                frames: self.frames.clone(),
                frame: self.frame,
                namespaces: self.namespaces.clone(),
                generators: self.generators.clone(),
            }),
        };
        let text = self.out.len();
        let Some(recorder) = &mut self.recorder else { return };
        let around = recorder.around();
        recorder.points.push(Point { around, step, state, text, needs: 0, asked: false, touched: Vec::new() });
    }

    /// Whether a point can be taken here.
    pub(super) fn is_outermost(&self) -> bool {
        self.inner == 0 && self.recorder.is_some()
    }

    pub(super) fn enter(&mut self, step: Step<'a>) {
        if let Some(recorder) = self.recorder.as_mut().filter(|_| self.inner == 0) {
            recorder.path.push(step);
            recorder.around = None;
        }
    }

    pub(super) fn leave(&mut self) {
        if let Some(recorder) = self.recorder.as_mut().filter(|_| self.inner == 0) {
            recorder.path.pop();
            recorder.around = None;
        }
    }

    /// Whether a branch that differed early stands before a loop where the recording stood, text and variables alike,
    /// but for attributes that the loop's first turns do not touch: then it goes on with the recording after those.
    pub(super) fn rejoin(&mut self, course: &Rc<Course<'a>>) -> bool {
        let Some(tape) = self.tape.clone() else { return false };
        let is_start = |point: &Point<'a>| {
            let Some(Step::Turn(recorded, 0, 0, None)) = &point.step else { return false };
            std::ptr::eq(recorded.statement, course.statement)
                && matches!((&recorded.items, &course.items), (Items::Messages(one), Items::Messages(other)) if one == other)
        };
        let hint = std::mem::take(&mut tape.hints.borrow_mut()[usize::from(self.add_generation_prompt)]);
        let known = tape.points.get(hint.start).is_some_and(is_start).then_some(hint.start);
        let Some(start) = known.or_else(|| tape.points.iter().position(is_start)) else { return false };
        let point = &tape.points[start];
        if tape.text.get(self.begun..point.text) != Some(self.out.as_str()) {
            return false;
        }
        let Some(differences) = self.differences(&point.state) else { return false };
        // A value that differs goes the same way where it was compared with the same outcome.
        let is_same_way = |touched: &[Touched]| {
            touched.iter().all(|touched| {
                let is_it = |(namespace, attribute, _): &&(usize, usize, Value<'a>)| {
                    (*namespace, *attribute) == (touched.namespace, touched.attribute)
                };
                let Some((_, _, value)) = differences.iter().find(is_it) else { return true };
                let within = |(low, high): (i128, i128)| self.number_now(value).map(|now| (low..=high).contains(&now));
                touched.between.and_then(within).unwrap_or(false)
            })
        };
        let goes_on = |point: &Point<'a>| {
            point.needs <= self.count && !(self.add_generation_prompt && point.asked) && is_same_way(&point.touched)
        };
        // What went well for fewer messages goes well for more.
        let known = hint.start == start && hint.count <= self.count && is_same_way(&hint.touched);
        let (from, mut touched) = if known { (hint.end, hint.touched) } else { (start, Vec::new()) };
        let end = from + tape.points[from..].iter().take_while(|point| goes_on(point)).count();
        let end = end.min(tape.points.len() - 1);
        for more in tape.points[from..end.max(from)].iter().flat_map(|point| &point.touched) {
            narrow(&mut touched, *more);
        }
        let (count, add_generation_prompt) = (self.count, self.add_generation_prompt);
        tape.hints.borrow_mut()[usize::from(add_generation_prompt)] = Hint { start, count, touched, end };
        if end <= start {
            return false;
        }
        self.rejoined = Some((end, differences));
        true
    }

    /// In which attributes the variables differ from those of a point; `None` if in anything else.
    fn differences(&self, point: &State<'a>) -> Option<Differences<'a>> {
        let same_frame = |(one, other): (&Frame<'a>, &Frame<'a>)| {
            one.parent == other.parent
                && one.variables.len() == other.variables.len()
                && one
                    .variables
                    .iter()
                    .zip(&other.variables)
                    .all(|(one, other)| one.0 == other.0 && one.1.is_same(&other.1))
        };
        let same = self.frame == point.frame
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
            for (attribute, ((name, value), (other, recorded))) in own.iter().zip(recorded).enumerate() {
                if name != other {
                    return None;
                }
                if !value.is_same(recorded) {
                    differences.push((number, attribute, value.clone()));
                }
            }
        }
        Some(differences)
    }
}

#[cfg(test)]
mod tests {
    use super::super::run;
    use super::super::tests::{node, stage};
    use super::*;
    use crate::json::Node;

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
            // Where the last question stands is another place in every branch; only what comes after it is another text.
            (
                "{% set n = namespace(last=messages|length - 1, open=true) %}{% for m in messages[::-1] %}\
              {% set i = (messages|length - 1) - loop.index0 %}{% if n.open and m.role == 'user' %}\
              {% set n.open = false %}{% set n.last = i %}{% endif %}{% endfor %}{% for m in messages %}\
              {% if loop.index0 > n.last %}[{{ m.content }}]{% elif n.last == loop.index0 %}?{% endif %}\
              {{ m.content }}{% if n.last <= loop.index0 + 1 %}!{% endif %}{% endfor %}",
                4,
            ),
            (
                "{% set n = namespace(k=0) %}{% for m in messages[::-1] %}{% if m.role == 'user' %}{% set n.k = n.k + 1 %}\
              {% endif %}{% endfor %}{% for m in messages %}{{ m.content }}{% if n.k < 3 %}!{% endif %}\
              {% if 2 != n.k %}?{% endif %}{% if n.k == 'x' or n.k > 1.5 %}-{% endif %}{% endfor %}",
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
