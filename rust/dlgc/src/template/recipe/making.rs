//! How recipes are made: of traces of runs over numbered strings.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

use super::{Asked, MOST_STEPS, Proved, Recipe, Slice, Step, Subject, proves};
use crate::dialogue::{Dialogue, Role};
use crate::json::{Json, Node};
use crate::template::machine::{Condition, Part, Stage, Trace, root, traced};
use crate::template::marks::{BEGIN, END};
use crate::template::messages::Prepared;
use crate::template::{Mode, Template, messages};

/// What a run prints: bytes of scaffold, and strings by their numbers from [`STRINGS`] on.
pub(super) type Printed = Vec<u32>;

const STRINGS: u32 = 1 << 8;

/// Whose a string is.
pub(in crate::template) struct Origin {
    pub(in crate::template) message: usize,
    pub(in crate::template) is_reasoning: bool,
}

impl Template {
    /// What is true of a turn in every record whose structure begins as one's does.
    fn proved(&self, subject: &Subject<'_>, tracing: &Tracing<'_>, position: usize) -> Option<Arc<Proved>> {
        let key = subject.key_upto(position);
        let lock = || self.recipes.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().found.get(&key) {
            return known.clone();
        }
        let proved = tracing.prove(position)?.map(Arc::new);
        let size = proved.as_ref().map_or(1, |proved| proved.prompt.len() + proved.target.len());
        lock().insert(key, proved.clone(), size);
        proved
    }

    /// Where the stop of a turn begins in what is printed after its last string, and how long it is; `None` where nothing
    /// is proved of that.
    pub(in crate::template) fn stop_in(&self, after: &str) -> Option<(usize, usize)> {
        let Self { stops, after_stop, .. } = self;
        // White space at the end of what is said must not be the beginning of a stop.
        if stops.iter().any(|stop| stop.is_empty() || stop.starts_with(char::is_whitespace)) {
            return None;
        }
        let found = stops.iter().filter_map(|stop| after.find(stop.as_str()).map(|at| (at, Reverse(stop.len()))));
        let (at, Reverse(stop)) = found.min()?;
        let rest = after[at + stop..].trim();
        (rest.is_empty() || rest == after_stop.trim()).then_some((at, stop))
    }

    /// The messages with their strings numbered, and whose those are.
    pub(in crate::template) fn with_numbers<'d>(
        &self,
        subject: &Subject<'_>,
        dialogue: &'d Dialogue<'_>,
    ) -> Option<(Vec<Prepared<'d>>, Vec<Origin>)> {
        let mut prepared = messages::prepare(dialogue, &self.abilities, self.state, &mut Vec::new()).ok()?;
        let mut strings = Vec::with_capacity(subject.strings.len());
        for (index, (message, said)) in prepared.iter_mut().zip(&dialogue.messages).enumerate() {
            for (text, is_reasoning) in [(&said.content, false), (&said.reasoning, true)] {
                let Some(text) = text else { continue };
                strings.push(Origin { message: index, is_reasoning });
                if number(&mut message.node, text, &traced(strings.len() as u32)) != 1 {
                    return None;
                }
            }
        }
        (strings.len() == subject.strings.len()).then_some((prepared, strings))
    }

    /// The recipe that a record gives to its structure, if what it gives is what comes of rendering.
    pub(super) fn make_recipe(&self, subject: &Subject<'_>, dialogue: &Dialogue<'_>, asked: Asked) -> Option<Recipe> {
        let (prepared, strings) = self.with_numbers(subject, dialogue)?;
        let aliased: Vec<Cow<'_, Node<'_>>> = prepared.iter().map(|message| messages::aliased(&message.node)).collect();
        let shown: Vec<&Node<'_>> = aliased.iter().map(|node| &**node).collect();
        let around = [None, None, None];
        let stage = self.stage(&shown, &around);
        let tracing = Tracing { template: self, stage, strings };
        let mut trace = Trace::new(self.recipes.ways.clone());
        let (row, blocks) = tracing.run(&mut trace, shown.len(), false)?;
        let mut conditions = trace.into_conditions();
        // Reasoning may be left out of what is history.
        let is_shown = |(index, origin): (usize, &Origin)| {
            origin.is_reasoning && proves(asked) || strings_of(&row).any(|shown| shown == index)
        };
        if asked.is_some() && !tracing.strings.iter().enumerate().all(is_shown) {
            return None;
        }
        let mut numbers = Numbers::default();
        let mut size = 0;
        let mut cuts: Vec<usize> = Vec::new();
        let mut cut = |range: [usize; 2]| {
            cuts.extend(range);
            [cuts.len() - 2, cuts.len() - 1]
        };
        let blocks = blocks.into_iter().map(&mut cut).collect();
        let mut targets = Vec::with_capacity(prepared.len());
        for (position, message) in prepared.iter().enumerate() {
            let is_asked = proves(asked) && message.role == Role::Assistant && position > 0;
            let proved = if is_asked { self.proved(subject, &tracing, position) } else { None };
            let slice = proved.as_deref().and_then(|Proved { prompt, target, stop, .. }| {
                let rest = row.strip_prefix(prompt.as_slice());
                if rest.is_some_and(|rest| rest.starts_with(target)) {
                    let places = cut([prompt.len(), prompt.len() + target.len()]);
                    return Some(Slice::Shared { places, stop: *stop });
                }
                let (prompt, target) = (numbers.steps(prompt, &[]), numbers.steps(target, &[]));
                size += prompt.len() + target.len();
                (asked == Some(Mode::Prove)).then_some(Slice::Own { prompt, target, stop: *stop })
            });
            conditions.extend(proved.iter().flat_map(|proved| proved.conditions.iter().cloned()));
            targets.push(slice);
        }
        let row = numbers.steps(&row, &cuts);
        size += row.len();
        if size > MOST_STEPS {
            return None;
        }
        let mut kept: Vec<(usize, Condition)> = Vec::new();
        for condition in conditions {
            let condition = (numbers.index(condition.of), condition);
            if !kept.contains(&condition) {
                kept.push(condition);
            }
        }
        let ways = |&number: &u32| (root(number) as usize - 1, self.recipes.ways.of(number));
        let strings = numbers.0.iter().map(ways).collect();
        let recipe = Recipe { strings, conditions: kept, row, places: cuts.len(), blocks, targets, size };
        let is_same = if let Some(mode) = asked {
            let anew = self.render_anew(dialogue, mode).ok()?;
            recipe.render(subject, dialogue, mode).is_some_and(|rendered| rendered.is_same(&anew))
        } else {
            let (anew, _) = self.unproved(dialogue, 0, false).ok()?;
            recipe.text(subject).is_some_and(|text| text == anew)
        };
        is_same.then_some(recipe)
    }
}

/// The strings of the messages that are printed, stripped or not.
fn strings_of(printed: &[u32]) -> impl Iterator<Item = usize> {
    printed.iter().filter_map(|symbol| Some(root(symbol.checked_sub(STRINGS)?) as usize - 1))
}

/// Runs over the messages of a record.
struct Tracing<'t> {
    template: &'t Template,
    stage: Stage<'t>,
    strings: Vec<Origin>,
}

impl Tracing<'_> {
    /// What the run over the first messages prints, and where the template's blocks lie in it.
    fn run(&self, trace: &mut Trace, count: usize, add_generation_prompt: bool) -> Option<(Printed, Vec<[usize; 2]>)> {
        let parts = trace.run(&self.template.program, self.stage, count, add_generation_prompt).ok()??;
        let (mut printed, mut open, mut blocks) = (Printed::new(), Vec::new(), Vec::new());
        for part in parts {
            match part {
                Part::String(number) => printed.push(STRINGS + number),
                Part::Scaffold(text) => {
                    for character in text.chars() {
                        match character {
                            BEGIN => open.push(printed.len()),
                            END => blocks.extend(open.pop().map(|start| [start, printed.len()])),
                            _ => {
                                let mut bytes = [0; 4];
                                printed.extend(character.encode_utf8(&mut bytes).bytes().map(u32::from));
                            }
                        }
                    }
                }
            }
        }
        Some((printed, blocks))
    }

    /// What is true of a turn in every record whose structure begins so, if anything is; `None` where this one does not tell.
    fn prove(&self, position: usize) -> Option<Option<Proved>> {
        let mut trace = Trace::new(self.template.recipes.ways.clone());
        let (prompt, _) = self.run(&mut trace, position, true)?;
        let (newest, _) = self.run(&mut trace, position + 1, false)?;
        Some(self.target(prompt, &newest, position, trace))
    }

    fn target(&self, prompt: Printed, newest: &[u32], position: usize, trace: Trace) -> Option<Proved> {
        let turn = newest.strip_prefix(prompt.as_slice())?;
        let mut own: Vec<usize> = strings_of(turn).collect();
        own.sort_unstable();
        if !own.into_iter().eq((0..self.strings.len()).filter(|&index| self.strings[index].message == position)) {
            return None;
        }
        let end = turn.iter().rposition(|&symbol| symbol >= STRINGS)? + 1;
        let after: Vec<u8> = turn[end..].iter().map(|&byte| byte as u8).collect();
        let (at, stop) = self.template.stop_in(&String::from_utf8(after).ok()?)?;
        let target = turn[..end + at + stop].to_vec();
        Some(Proved { prompt, target, stop, conditions: trace.into_conditions() })
    }
}

/// Numbers the strings of a message that are a text of the record; how many are.
fn number(node: &mut Node<'_>, text: &str, range: &Range<usize>) -> usize {
    match &mut node.value {
        Json::String(Cow::Borrowed(said)) if std::ptr::eq(*said, text) => {
            node.range = range.clone();
            1
        }
        Json::Array(elements) => elements.iter_mut().map(|node| number(node, text, range)).sum(),
        Json::Object(members) => members.iter_mut().map(|member| number(&mut member.node, text, range)).sum(),
        _ => 0,
    }
}

/// The numbers of strings that a recipe uses, in its own order.
#[derive(Default)]
struct Numbers(Vec<u32>);

impl Numbers {
    fn index(&mut self, number: u32) -> usize {
        self.0.iter().position(|known| *known == number).unwrap_or_else(|| {
            self.0.push(number);
            self.0.len() - 1
        })
    }

    /// How to print something, and to note places in it.
    fn steps(&mut self, printed: &[u32], places: &[usize]) -> Vec<Step> {
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by_key(|&place| places[place]);
        let mut order = order.into_iter().peekable();
        let (mut steps, mut scaffold) = (Vec::new(), Vec::new());
        for at in 0..=printed.len() {
            let symbol = printed.get(at).copied();
            let is_place = order.peek().is_some_and(|&place| places[place] == at);
            if (is_place || symbol.is_none_or(|symbol| symbol >= STRINGS)) && !scaffold.is_empty() {
                let text = String::from_utf8(std::mem::take(&mut scaffold)).expect("cut between characters");
                steps.push(Step::Scaffold(text.into()));
            }
            while let Some(place) = order.next_if(|&place| places[place] == at) {
                steps.push(Step::Place(place));
            }
            match symbol {
                Some(symbol) if symbol >= STRINGS => steps.push(Step::String(self.index(symbol - STRINGS))),
                Some(byte) => scaffold.push(byte as u8),
                None => {}
            }
        }
        steps
    }
}
