//! Recordings: a run over all messages, and the runs over fewer that branch off from it; see [`super`].

use std::cell::RefCell;
use std::rc::Rc;

use super::value::{Course, Frame, Items, Value};
use super::{Failure, Machine, Stage};
use crate::template::program::Program;

/// A run of which prompts can be had; see the module.
#[derive(Debug)]
pub(in crate::template) struct Recording<'a> {
    program: &'a Program,
    stage: Stage<'a>,
    tape: Rc<Tape<'a>>,
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
}

/// Where a run can be taken up again.
#[derive(Debug)]
pub(super) struct Point<'a> {
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
    pub(super) fn note(&mut self, namespace: usize, attribute: &str) {
        if !self.touched.iter().any(|(number, name)| *number == namespace && name == attribute) {
            self.touched.push((namespace, attribute.to_owned()));
        }
    }
}

/// Attributes in which a branch differs from the recording, with the branch's values.
pub(super) type Differences<'a> = Vec<(usize, String, Value<'a>)>;

/// Where a branch came back to the recording, and how far it then went with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Hint {
    start: usize,
    count: usize,
    differs: Vec<(usize, String)>,
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
    points: Vec<Point<'a>>,
}

impl<'a> Recording<'a> {
    /// Runs a template over all messages, without a generation prompt.
    pub(in crate::template) fn new(program: &'a Program, stage: Stage<'a>) -> Result<Self, Failure> {
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
    pub(in crate::template) fn text(&self) -> &str {
        &self.tape.text
    }

    /// The run over the first `count` messages.
    pub(in crate::template) fn first(&self, count: usize, add_generation_prompt: bool) -> Result<Branch, Failure> {
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
    pub(super) fn take_up(&self, index: usize, count: usize, add_generation_prompt: bool) -> Machine<'a> {
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

impl<'a> Machine<'a> {
    /// Everything read since the last point holds for as many messages and more.
    pub(super) fn need(&mut self, count: usize) {
        if let Some(point) = self.recorder.as_mut().and_then(|recorder| recorder.points.last_mut()) {
            point.needs = point.needs.max(count);
        }
    }

    /// Something was read that another number of messages changes.
    pub(super) fn need_all(&mut self) {
        self.need(self.count);
    }

    /// The generation prompt was asked about.
    pub(super) fn asks(&mut self) {
        if let Some(point) = self.recorder.as_mut().and_then(|recorder| recorder.points.last_mut()) {
            point.asked = true;
        }
    }

    /// An attribute of a namespace was read or set.
    pub(super) fn reads(&mut self, namespace: usize, attribute: &str) {
        if let Some(point) = self.recorder.as_mut().and_then(|recorder| recorder.points.last_mut()) {
            point.note(namespace, attribute);
        }
    }

    pub(super) fn point(&mut self, step: Option<Step<'a>>) {
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
    pub(super) fn is_outermost(&self) -> bool {
        self.inner == 0 && self.recorder.is_some()
    }

    pub(super) fn enter(&mut self, step: Step<'a>) {
        if let Some(recorder) = self.recorder.as_mut().filter(|_| self.inner == 0) {
            recorder.path.push(step);
        }
    }

    pub(super) fn leave(&mut self) {
        if let Some(recorder) = self.recorder.as_mut().filter(|_| self.inner == 0) {
            recorder.path.pop();
        }
    }

    /// Whether a branch that differed early stands before a loop where the recording stood, text and variables alike,
    /// but for attributes that the loop's first turns do not touch: then it goes on with the recording after those.
    pub(super) fn rejoin(&mut self, course: &Rc<Course<'a>>) -> bool {
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
    pub(super) fn differences(&self, point: &Point<'a>, recorded: &str) -> Option<Differences<'a>> {
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
