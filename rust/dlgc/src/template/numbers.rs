//! Dialogues whose structure is met for the first time, or seldom: rendered and proved on numbered strings.
//!
//! A recipe pays for structures that many records have. Where people speak in turns of their own making, most records
//! have one of their own. Such a record is run once over numbered strings, recorded and traced: of all that is printed,
//! there and in the branches that give prompts, it is known which string it is. That a prompt is how the newest turn
//! begins, and that a target holds the strings of its own message and none of another, is read off the numbers; no run over
//! words is needed (`law`), and most turns of the template's loop are known already (`machine::lessons`).
//!
//! What is not proved this way is rendered anew, and so is what a template looks into. The first records of a template,
//! and then one in many, are rendered both ways; one difference, and the template is never rendered this way again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::law::{History, Opening};
use super::machine::{self, Branch, Numbered, Print, Recording, Trace, looked, root};
use super::parts::Part;
use super::{Mode, Rendered, Target, Template, Turn, assistants, by_block, messages};
use crate::diagnostic::Diagnostic;
use crate::dialogue::Dialogue;

/// How far a template is trusted with numbered strings.
#[derive(Debug, Default)]
pub(super) struct Trust {
    tried: AtomicU64,
    worked: AtomicU64,
    is_lost: AtomicBool,
}

/// So many renderings are compared with those made anew, and then one in so many.
const COMPARED: u64 = 64;
const ONE_IN: u64 = 1 << 10;
/// After so many it is given up where less than one in so many can be rendered.
const TRIED: u64 = 64;
const LEAST: u64 = 4;

impl Trust {
    /// Whether it is worth trying.
    pub(super) fn is_worth(&self) -> bool {
        let (tried, worked) = (self.tried.load(Ordering::Relaxed), self.worked.load(Ordering::Relaxed));
        !self.is_lost.load(Ordering::Relaxed) && (tried < TRIED || worked >= tried / LEAST)
    }

    /// What came of trying, if it is what `anew` gives where that is looked at.
    fn check<T>(&self, found: Option<T>, is_same: impl FnOnce(&T) -> bool) -> Option<T> {
        self.tried.fetch_add(1, Ordering::Relaxed);
        let found = found?;
        let worked = self.worked.fetch_add(1, Ordering::Relaxed);
        if (worked < COMPARED || worked.is_multiple_of(ONE_IN) || cfg!(debug_assertions)) && !is_same(&found) {
            debug_assert!(false, "numbered strings give what comes of rendering");
            self.is_lost.store(true, Ordering::Relaxed);
            return None;
        }
        Some(found)
    }
}

impl Template {
    /// What is shown, rendered on numbered strings, if all of it can be proved so; `dialogue` is that by itself.
    pub(super) fn by_numbers(&self, part: &Part<'_, '_>, dialogue: &Dialogue<'_>, mode: Mode) -> Option<Rendered> {
        if !self.trust.is_worth() {
            return None;
        }
        let found = self.on_stage(part, |stage, numbered| {
            let case = Case::new(self, stage, numbered, &part.whole.is_reasoning)?;
            case.render(dialogue, mode)
        });
        let is_same = |found: &Rendered| self.render_anew(dialogue, mode).is_ok_and(|anew| found.is_same(&anew));
        self.trust.check(found, is_same)
    }

    /// The text of what is shown without its last messages; `anew` gives the same in another way.
    pub(super) fn text_by_numbers(
        &self,
        part: &Part<'_, '_>,
        without: usize,
        add_generation_prompt: bool,
        anew: impl Fn() -> Result<(String, Vec<usize>), Diagnostic>,
    ) -> Option<String> {
        if !self.trust.is_worth() {
            return None;
        }
        let found = self.on_stage(part, |stage, _| {
            let count = stage.messages.len().saturating_sub(without);
            looked();
            let trace = Trace::new(self.recipes.ways.clone());
            let text = machine::run_traced(&self.program, stage, count, add_generation_prompt, Some(trace)).ok()?;
            (!looked()).then(|| super::marks::strip(&text).text)
        });
        let is_same = |found: &String| anew().is_ok_and(|(anew, suppressed)| anew == *found && suppressed.is_empty());
        self.trust.check(found, is_same)
    }

    /// Runs something on what is shown, its strings numbered.
    fn on_stage<T>(
        &self,
        part: &Part<'_, '_>,
        run: impl FnOnce(machine::Stage<'_>, &Numbered<'_>) -> Option<T>,
    ) -> Option<T> {
        let (nodes, numbered, around) = (part.nodes(), part.numbered(), [None, None, None]);
        run(machine::Stage { numbered: Some(&numbered), ..self.stage(&nodes, &around) }, &numbered)
    }
}

/// A record that is run over its numbered strings.
struct Case<'c> {
    template: &'c Template,
    history: History<'c>,
    numbered: &'c Numbered<'c>,
    is_reasoning: &'c [bool],
    /// The strings in the row, as they lie without marks.
    prints: Vec<Print>,
}

/// A rendering of the first messages, with the strings in it that are not the row's.
struct Numbers<'h> {
    opening: Opening<'h>,
    prints: Vec<Print>,
}

impl<'c> Case<'c> {
    fn new(
        template: &'c Template,
        stage: machine::Stage<'c>,
        numbered: &'c Numbered<'c>,
        is_reasoning: &'c [bool],
    ) -> Option<Self> {
        looked();
        let trace = Trace::new(template.recipes.ways.clone());
        let recording = Recording::traced(&template.program, stage, Some(trace)).ok()?;
        if looked() {
            return None;
        }
        let printed = recording.prints().to_vec();
        let history = History::of(recording);
        let prints = printed.into_iter().map(|print| Print { start: history.row.place_of(print.start), ..print });
        Some(Self { template, prints: prints.collect(), history, numbered, is_reasoning })
    }

    /// `None` where something is not proved.
    fn render(self, dialogue: &Dialogue<'_>, mode: Mode) -> Option<Rendered> {
        let mut is_shown = match mode {
            Mode::Prove | Mode::Whole => self.is_reasoning.to_vec(), // which may be left out of what is history
            Mode::Blocks => vec![false; self.is_reasoning.len()],
        };
        self.prints.iter().for_each(|print| is_shown[root(print.of) as usize - 1] = true);
        if self.numbered.numbers.iter().cloned().flatten().any(|number| !is_shown[number as usize - 1]) {
            return None;
        }
        let states = dialogue.messages.iter().filter_map(|message| message.state.as_ref());
        let diagnostics = states.map(messages::state_left_out).collect();
        if mode == Mode::Blocks {
            let row = self.history.into_row();
            let (blocks, turns) = by_block(&assistants(dialogue), row.blocks, &row.text).ok()?;
            return Some(Rendered { text: row.text, blocks, turns, diagnostics, ..Rendered::default() });
        }
        let trained = dialogue.messages.iter().enumerate().filter(|(_, message)| message.train);
        let mut before = None;
        let turns = trained.map(|(message, _)| {
            // Where whole dialogues are wanted, what does not nest is trained as it shows.
            let target = self.target(message, &mut before);
            let target = target.filter(|target| mode != Mode::Whole || target.shared.is_some())?;
            Some(Turn { message, target: Ok(target) })
        });
        let turns = turns.collect::<Option<Vec<_>>>()?;
        let row = self.history.into_row();
        Some(Rendered { text: row.text, blocks: row.blocks, turns, diagnostics, ..Rendered::default() })
    }

    /// The target of a message; `before` is the last rendering of a newest turn, which may be the history of this one.
    fn target<'n>(&'n self, position: usize, before: &mut Option<(usize, Numbers<'n>)>) -> Option<Target> {
        if position == 0 {
            return None;
        }
        let prompt = self.first(position, true)?;
        let newest = self.first(position + 1, false)?;
        let nests = self.begins(&prompt, &newest);
        let start = if nests {
            prompt.opening.len()
        } else {
            let known = before.take().filter(|(count, _)| *count == position).map(|(_, known)| known);
            let history = known.map_or_else(|| self.first(position, false), Some)?;
            self.after_header(&history, &prompt, &newest, position)?
        };
        let own: Vec<Print> = self.prints_of(&newest, start, usize::MAX).collect();
        let mut numbers: Vec<u32> = own.iter().map(|print| root(print.of)).collect();
        numbers.sort_unstable();
        if !numbers.into_iter().eq(self.numbered.numbers[position].clone()) {
            return None;
        }
        let last = own.last()?;
        let turn = newest.opening.from(start);
        let end = last.start + last.length - start;
        let (at, stop) = self.template.stop_in(&turn[end..])?;
        let text = turn[..end + at + stop].to_owned();
        let is_shared = nests && prompt.opening.begins_row() && self.history.row.text[start..].starts_with(&text);
        let prompt = (!is_shared).then(|| prompt.opening.as_prompt());
        let shared = is_shared.then_some(start);
        drop(turn);
        *before = Some((position + 1, newest));
        Some(Target { text, stop, shared, own_row: !is_shared, prompt, ..Target::default() })
    }

    /// Where the turn begins where not even the history is the same once it is there: after the last header, which the
    /// generation prompt supplies, before the first string of the turn.
    fn after_header(
        &self,
        history: &Numbers<'_>,
        prompt: &Numbers<'_>,
        newest: &Numbers<'_>,
        position: usize,
    ) -> Option<usize> {
        if !self.begins(history, prompt) || self.begins(history, newest) {
            return None;
        }
        let header = prompt.opening.from(history.opening.len());
        let is_own = |print: &Print| self.numbered.numbers[position].contains(&root(print.of));
        let (mut scaffold, mut first) = (0, None);
        for print in self.prints_of(newest, 0, usize::MAX) {
            if is_own(&print) {
                first = Some(print.start);
                break;
            }
            scaffold = print.start + print.length;
        }
        let first = first?;
        let text = newest.opening.from(scaffold);
        let between = &text[..first - scaffold];
        let start = if header.trim().is_empty() { None } else { between.rfind(&*header) }? + header.len();
        let stops = &self.template.stops;
        (!stops.iter().any(|stop| between[start..].contains(stop.as_str()))).then_some(scaffold + start)
    }

    /// Whether one rendering is how another begins, string for string.
    fn begins(&self, one: &Numbers<'_>, other: &Numbers<'_>) -> bool {
        let from = one.opening.shared().min(other.opening.shared());
        let to = one.opening.len();
        // The text before is the same, and so are the strings that it is made of.
        let other_text = other.opening.from(from);
        other_text.starts_with(&*one.opening.from(from))
            && self.prints_of(one, from, to).eq(self.prints_of(other, from, to))
    }

    fn first(&self, count: usize, add_generation_prompt: bool) -> Option<Numbers<'_>> {
        let Branch { shared, rest, mut prints } = self.history.branch(count, add_generation_prompt).ok()?;
        if looked() {
            return None;
        }
        let opening = self.history.opening(shared, &rest);
        prints.iter_mut().for_each(|print| print.start = opening.place_in_rest(print.start));
        Some(Numbers { opening, prints })
    }

    /// The strings in a rendering that begin between two places.
    fn prints_of<'p>(
        &'p self,
        numbers: &'p Numbers<'_>,
        from: usize,
        to: usize,
    ) -> impl Iterator<Item = Print> + use<'p, 'c> {
        let first = self.prints.partition_point(|print| print.start < from);
        let last = self.prints.partition_point(|print| print.start < numbers.opening.shared().min(to));
        let between = move |print: &&Print| (from..to).contains(&print.start);
        self.prints[first..last.max(first)].iter().chain(numbers.prints.iter().filter(between)).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::super::recipe::tests::{dialogues, load, real_templates, with_dialogue};
    use super::*;
    use crate::draw::Draw;

    /// Structures that hardly two records share: who speaks how often is left to chance, or two take turns.
    fn structures() -> Vec<String> {
        let mut draw = Draw(11);
        let mut random = |most: u64| draw.below(most);
        let mut structure = |number: u64| {
            let mut roles = String::from(if random(3) == 0 { "su" } else { "u" });
            for index in 0..1 + random(12) {
                let answers = if number.is_multiple_of(2) { index % 2 == 0 } else { random(5) < 3 };
                roles.push(match (answers, random(6)) {
                    (false, _) => 'u',
                    (true, 0) => 'r',
                    (true, _) => 'a',
                });
            }
            if roles.ends_with('u') {
                roles.push('a');
            }
            roles
        };
        (0..24).map(&mut structure).collect()
    }

    /// How many of several dialogues are rendered on numbered strings. What comes of it is compared in [`Trust::check`].
    fn count(template: &Template, structures: &[String]) -> (usize, usize) {
        let (mut rendered, mut all) = (0, 0);
        for messages in structures.iter().flat_map(|roles| dialogues(roles).into_iter().step_by(7)) {
            with_dialogue(&messages, |dialogue| {
                for mode in [Mode::Prove, Mode::Whole, Mode::Blocks] {
                    template.trust.tried.store(0, Ordering::Relaxed);
                    let Some(whole) = template.whole(dialogue) else { return };
                    all += 1;
                    rendered += usize::from(template.by_numbers(&whole.all(), dialogue, mode).is_some());
                    for (without, prompt) in [(0, false), (1, true), (0, true), (2, false)] {
                        let anew = || template.unproved(dialogue, without, prompt);
                        template.text_by_numbers(&whole.all(), without, prompt, anew);
                    }
                }
            });
        }
        assert!(!template.trust.is_lost.load(Ordering::Relaxed));
        (rendered, all)
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "says what was skipped, and how much was compared")]
    fn real_templates_render_on_numbered_strings_what_they_render_anew() {
        let Some(templates) = real_templates() else {
            println!("skipped: no real templates at hand");
            return;
        };
        let (structures, mut told, mut sum) = (structures(), String::new(), 0);
        for (name, template) in templates {
            let (rendered, all) = count(&template, &structures);
            sum += rendered;
            writeln!(told, "{name}: {rendered} of {all}").expect("written");
        }
        println!("{told}{sum} in all");
        assert!(sum > 1000, "{told}");
    }

    #[test]
    fn turns_that_ask_for_more_than_guards_can_say_are_not_repeated() {
        let structures = structures();
        for look in [
            "{{ loop.index }}{{ m.content }}",
            "{{ m.content }}{{ loop.revindex0 }}",
            "{{ m.content }}{% if loop.index0 % 3 == 1 %}!{% endif %}{% if loop.index >= 4 %}?{% endif %}",
            "{% if messages[loop.index0 - 1].role == 'user' %}>{% endif %}{{ m.content }}",
            "{% if not loop.last and messages[loop.index0 + 1].role == 'user' %}>{% endif %}{{ m.content }}",
            "{{ m.content }}{% if messages|length == loop.index + 2 %}!{% endif %}",
            "{{ m.content }}{% if loop.previtem and loop.previtem.role == m.role %}={% endif %}",
            "{{ m.content }}{{ '' if loop.nextitem is defined else 'END' }}",
            "{% if loop.first %}{{ messages[0].content }}|{% endif %}{{ m.content }}",
            "{{ messages[0].content }}{{ m.content }}",
            "{% if 'end' in m.content %}!{% endif %}{{ m.content }}",
            "{% if m.content.strip().startswith('[INST]') %}!{% endif %}{{ m.content }}",
            "{% set ns.k = ns.k + 1 %}{{ m.content }}{% if ns.k > 2 %}!{% endif %}",
            "{% if m.role == 'user' %}{% set ns.k = loop.index0 %}{% endif %}{{ m.content }}{% if ns.k == loop.index0 %}!{% endif %}",
            "{% if lm[loop.index0 - 1].role == 'user' %}>{% endif %}{{ m.content }}",
            "{% set ns.n = messages|length %}{% if ns.n > 4 %}!{% endif %}{{ m.content }}",
            "{% with x = 1 %}{% set i = messages|length - loop.index0 %}{% endwith %}{% set x = f(3) %}{{ m.content }}\
             {% if ns.last > loop.index0 %}!{% endif %}",
            "{{ m.content }}{% if loop.index0 - 2 > ns.last %}!{% endif %}{% if ns.last == loop.index %}?{% endif %}",
            "{{ m.content }}{% if add_generation_prompt and loop.last %}!{% endif %}",
            "{% for n in messages %}{% if n.role == 'assistant' and loop.index0 == 1 %}+{% endif %}{% endfor %}{{ m.content }}",
            "{{ loop.cycle('x', 'y') }}{{ m.content }}",
            "{{ loop.changed(m.role) if false }}{{ m.content }}{{ loop.length }}{{ loop.depth }}",
            "{% set c %}({{ m.content }}{% endset %}{{ c }}{% set ns.held = c %}{{ '' if ns.held }}",
        ] {
            assert_repeated("", look, &structures);
        }
        let look = "{{ m.content }}{% if loop.index0 > ns.last %}!{% endif %}{% if ns.k %}{{ ns.k }}{% endif %}";
        for back in [
            "{% if m.role == 'user' and not ns.held %}{% set ns.held = '1' %}{% set ns.last = i %}{% endif %}",
            "{% if m.role == 'user' %}{% set ns.k = ns.k ~ i %}{% endif %}",
            "{% if i == 2 %}{% set ns.k = 9 %}{% endif %}",
            "{% set ns.last = i %}{% if ns.last > 3 %}{% set ns.k = 1 %}{% endif %}",
            "{% set ns.last = i %}{% set ns.k = ns.last %}",
            "{% set ns.last = i %}{% set ns.last = 2 %}",
            "{% if loop.last %}{% set ns.k = 7 %}{% endif %}",
            "{% if loop.first and m.role == 'assistant' %}{% set ns.k = 7 %}{% endif %}",
            "{% if loop.nextitem is defined and loop.nextitem.role == m.role %}{% set ns.k = 5 %}{% endif %}",
            "{% if messages[loop.index0].role == m.role %}{% set ns.k = 5 %}{% endif %}",
            "{% if messages[i].role == 'user' %}{% set ns.k = i %}{% endif %}",
            "{% set j = i %}{% if m.role == 'user' %}{% set ns.last = j %}{% endif %}",
            "{% set i = 1 %}{% set ns.last = i %}",
            "{% set i = messages|length - 2 %}{% set ns.last = i %}",
            "{% for i in [1] %}{% set ns.last = i %}{% endfor %}",
            "{% for j in [1] %}{% set i = j %}{% endfor %}{% set ns.last = i %}",
            "{% with i = 2 %}{% set ns.last = i %}{% endwith %}",
            "{% macro f(i) %}{% set ns.last = i %}{% endmacro %}{% set x = f(2) %}",
            "{% if loop.index0 % 2 %}{% set ns.k = 3 %}{% set ns.last = i %}{% endif %}",
        ] {
            assert_repeated(back, look, &structures);
        }
    }

    /// Asserts that what is learnt of a template's loops is repeated where it may be: one runs back and remembers, one
    /// prints.
    fn assert_repeated(back: &str, look: &str, structures: &[String]) {
        let source = format!(
            "{{% set ns = namespace(k=0, last=messages|length - 3, held='') %}}{{% set lm = messages[1:] %}}\
             {{% macro f(i) %}}{{% set ns.last = i %}}{{% endmacro %}}{{% for m in messages[::-1] %}}\
             {{% set i = (messages|length - 1) - loop.index0 %}}{back}{{% endfor %}}{{% for m in messages %}}\
             <|{{{{ m.role }}}}|>{look}<|end|>\n{{% endfor %}}{{% if add_generation_prompt %}}<|assistant|>{{% endif %}}"
        );
        let template = load(&source).expect("a template");
        // Twice: first it is learnt, then repeated.
        let found = count(&template, structures);
        assert_eq!(count(&template, structures), found, "{back} {look}");
    }
}
