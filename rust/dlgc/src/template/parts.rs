//! Parts of a dialogue: what its windows show, of messages that are prepared and numbered once.
//!
//! In: a [`Dialogue`] whose strings can be numbered (`numbers`). Out: [`Part`]s: some of its messages, in order, ready to be
//! rendered. A message is prepared by itself, so it is the same in every part; only two that come to stand side by side
//! might be merged, and then there is no part.

use super::Template;
use super::machine::{Numbered, shape};
use super::messages;
use super::recipe::Subject;
use crate::dialogue::Dialogue;
use crate::json::Node;

/// How many strings can be numbered.
const MOST_STRINGS: usize = 1 << 15;

/// A dialogue of which parts are shown.
pub struct Whole<'d> {
    pub(super) subject: Subject<'d>,
    /// Its messages as the template gets them, their strings numbered.
    nodes: Vec<Node<'d>>,
    /// For each message, a hash of all of it but its strings.
    shapes: Vec<u128>,
    /// For each string, whether it is reasoning.
    pub(super) is_reasoning: Vec<bool>,
}

/// Messages of a dialogue that are shown, by their index.
pub struct Part<'w, 'd> {
    pub(super) whole: &'w Whole<'d>,
    pub(super) shown: Vec<usize>,
}

impl Template {
    /// Prepares a dialogue of which parts will be rendered; `None` where each has to be by itself.
    pub fn whole<'d>(&self, dialogue: &'d Dialogue<'_>) -> Option<Whole<'d>> {
        Whole::of(self, Subject::read(dialogue, self)?, dialogue)
    }
}

impl<'d> Whole<'d> {
    pub(super) fn of(template: &Template, subject: Subject<'d>, dialogue: &'d Dialogue<'_>) -> Option<Self> {
        if subject.strings.len() > MOST_STRINGS || !template.trust.is_worth() {
            return None;
        }
        let (prepared, strings) = template.with_numbers(&subject, dialogue)?;
        let nodes: Vec<Node<'d>> = prepared.into_iter().map(|message| messages::into_aliased(message.node)).collect();
        Some(Self {
            shapes: nodes.iter().map(shape).collect(),
            is_reasoning: strings.iter().map(|string| string.is_reasoning).collect(),
            nodes,
            subject,
        })
    }

    /// All of it.
    pub fn all(&self) -> Part<'_, 'd> {
        Part { whole: self, shown: (0..self.nodes.len()).collect() }
    }

    /// Some of its messages; `None` where they may not come to stand so.
    pub fn part(&self, template: &Template, shown: Vec<usize>) -> Option<Part<'_, 'd>> {
        let stand = |pair: &[usize]| pair[0] + 1 == pair[1] || self.subject.may_follow(pair[0], pair[1], template);
        shown.windows(2).all(stand).then_some(Part { whole: self, shown })
    }
}

impl<'d> Part<'_, 'd> {
    /// The messages as the template gets them.
    pub(super) fn nodes(&self) -> Vec<&Node<'d>> {
        self.shown.iter().map(|&message| &self.whole.nodes[message]).collect()
    }

    /// What is known of their strings.
    pub(super) fn numbered(&self) -> Numbered<'_> {
        let Whole { shapes, subject, .. } = self.whole;
        let shapes = self.shown.iter().map(|&message| shapes[message]).collect();
        let numbers = self.shown.iter().map(|&message| subject.numbers[message].clone()).collect();
        Numbered { shapes, numbers, strings: &subject.strings }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mode;
    use super::super::recipe::tests::{dialogues, load, real_templates, with_dialogue};
    use super::*;
    use crate::window::Layout;

    /// Shows every part of a dialogue that a window may, and what a dialogue of its messages by itself shows; how many.
    fn show(template: &Template, dialogue: &Dialogue<'_>) -> usize {
        let Some(whole) = template.whole(dialogue) else { return 0 };
        let layout = Layout::of(dialogue);
        let mut shown = 0;
        for (cut, turn) in (0..layout.cuts.len()).flat_map(|cut| (0..layout.turns.len()).map(move |turn| (cut, turn))) {
            let end = layout.turns[turn].end;
            if layout.last_cut(turn) < cut {
                continue;
            }
            let view = layout.view(dialogue, cut, end, &(turn..turn + 1)).dialogue;
            let Some(part) = whole.part(template, layout.shown(cut, end)) else { continue };
            for is_prompt in [false, true] {
                let found = template.text_of_part(&part, is_prompt, || view.clone());
                assert_eq!(found, template.unproved(&view, usize::from(is_prompt), is_prompt));
            }
            for mode in [Mode::Prove, Mode::Whole, Mode::Blocks] {
                let found = template.render_part(&part, &view, mode);
                match (found, template.render_anew(&view, mode)) {
                    (Ok(found), Ok(anew)) => assert_eq!(format!("{found:?}"), format!("{anew:?}")),
                    (found, anew) => assert_eq!(found.map(drop), anew.map(drop)),
                }
            }
            shown += 1;
        }
        shown
    }

    #[test]
    #[expect(clippy::print_stdout, reason = "says what was skipped, and how much was compared")]
    fn parts_render_as_dialogues_by_themselves() {
        let Some(templates) = real_templates() else {
            println!("skipped: no real templates at hand");
            return;
        };
        let mut shown = 0;
        for (_, template) in templates {
            for messages in
                ["suauaua", "uraurara", "uuauuaa"].iter().flat_map(|roles| dialogues(roles).into_iter().step_by(5))
            {
                with_dialogue(&messages, |dialogue| shown += show(&template, dialogue));
            }
        }
        println!("{shown} parts");
        assert!(shown > 2_000);
    }

    #[test]
    fn messages_that_would_be_merged_make_no_part() {
        let refuses = "{% for m in messages %}{% if m.role == 'user' and loop.index0 % 2 or m.role != 'user' and \
            not loop.index0 % 2 %}{{ raise_exception('by turns') }}{% endif %}<|{{ m.role }}|>{{ m.content }}<|end|>\
            {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
        let takes = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}\
            {% if add_generation_prompt %}<|assistant|>{% endif %}";
        for (source, is_part) in [(refuses, false), (takes, true)] {
            let template = load(source).expect("a template");
            with_dialogue(&dialogues("uaua")[0], |dialogue| {
                let whole = template.whole(dialogue).expect("strings that can be numbered");
                assert_eq!(whole.part(&template, vec![0, 2, 3]).is_some(), is_part);
                assert!(whole.part(&template, vec![2, 3]).is_some());
            });
        }
    }
}
