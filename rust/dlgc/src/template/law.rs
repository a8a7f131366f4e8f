//! The law of the prompt, on text: what a model has to generate, after exactly the prompt that it will see.
//!
//! For an assistant message, the prompt is what the template renders for the messages before it, with the generation
//! prompt; the target is what it renders when the message is the newest, from the end of the prompt to the end of the
//! stop. That is a definition, and needs no tag. It is proved on a [`Skeleton`]: the same messages with a word for
//! every string. There the target is scaffold and the message's own words, each once; put back, the words must give
//! the target of the real messages, letter by letter.
//!
//! Where the newest turn does not begin with the whole prompt (a template that opens a think block in the generation
//! prompt and drops it from the rendering), the target begins at the last border that both share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::skeleton::{Skeleton, Unproved};
use super::{Scene, Target, Template, Unmarked, excerpt, tail};
use crate::diagnostic::{Code, Diagnostic};

/// A turn on its skeleton: scaffold and words.
#[derive(Debug)]
pub(super) struct Outline {
    /// How the text before the prompt's header relates to it: what the header is, up to the target.
    header: String,
    /// Whether the newest turn begins with the whole prompt.
    whole_prompt: bool,
    /// Scaffold and words of the target, up to the end of its stop.
    target: String,
    /// Length of the stop; 0 where the template prints none.
    stop: usize,
}

type Found<T> = Result<T, Diagnostic>;

/// Outlines by the key of their skeleton: dialogues of the same structure have the same outline.
#[derive(Debug, Default)]
pub(super) struct Outlines(Mutex<HashMap<u128, Found<Arc<Outline>>>>);

/// How many outlines are kept; the cache is emptied when it is full.
const OUTLINES: usize = 1 << 14;

impl Outlines {
    fn get_or(&self, key: u128, make: impl FnOnce() -> Found<Outline>) -> Found<Arc<Outline>> {
        // A panic elsewhere cannot have left an outline half made.
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&key) {
            return found.clone();
        }
        let made = make().map(Arc::new);
        let mut outlines = lock();
        if outlines.len() >= OUTLINES {
            outlines.clear();
        }
        outlines.insert(key, made.clone());
        made
    }
}

fn differs(message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Code::PromptDiffers, message)
}

impl Template {
    /// The target of the message at `position`, proved; `row` is the rendering of all messages.
    pub(super) fn prove(&self, scene: &Scene, skeleton: &Skeleton, position: usize, row: &Unmarked) -> Found<Target> {
        if position == 0 {
            return Err(differs("no message comes before this turn: no server would ask for it"));
        }
        let key = skeleton.key(position, scene.around);
        let outline = self.outlines.get_or(key, || self.outline(scene, skeleton, position))?;
        let prompt = self.run(scene, position, true)?;
        let newest = if position + 1 == scene.messages.len() {
            std::borrow::Cow::Borrowed(row)
        } else {
            std::borrow::Cow::Owned(self.run(scene, position + 1, false)?)
        };
        let start = if outline.whole_prompt {
            prompt.text.len()
        } else {
            let before = self.run(scene, position, false)?.text;
            before.len() + outline.header.len()
        };
        let begins = if outline.whole_prompt {
            newest.text.starts_with(&prompt.text)
        } else {
            newest
                .text
                .get(..start)
                .is_some_and(|text| text.ends_with(&outline.header) && prompt.text.starts_with(text))
        };
        if !begins {
            return Err(differs("the prompt for this turn is not how its rendering as the newest turn begins"));
        }
        let length = skeleton.matches(position, &outline.target, &newest.text[start..]).map_err(|why| match why {
            Unproved::Differs => {
                let message = "the turn is not made of its own strings and the template's scaffold";
                Diagnostic::new(Code::TargetUnproved, message)
            }
            Unproved::Foreign => {
                Diagnostic::new(Code::TargetUnproved, "a string of another message stands in the turn")
            }
            Unproved::Leaf(text) => {
                let message = format!("`{text}` does not stand exactly once in the turn");
                Diagnostic::new(Code::TargetUnproved, message)
            }
        })?;
        let text = &newest.text[start..start + length];
        if outline.stop == 0 {
            let Some(stop) = self.declared_stops.first() else {
                let message = format!("the turn ends in `{}`, and the model declares no stop token", tail(text));
                return Err(Diagnostic::new(Code::NoStopToken, message));
            };
            let suppressed = within(&newest, start, length);
            return Ok(Target {
                text: format!("{text}{stop}"),
                stop: stop.len(),
                shared: None,
                appended_stop: true,
                suppressed,
                prompt: Some((prompt.text, prompt.suppressed)),
            });
        }
        let shared = outline.whole_prompt && row.text.starts_with(&prompt.text) && row.text[start..].starts_with(text);
        Ok(Target {
            text: text.to_owned(),
            stop: outline.stop,
            shared: shared.then_some(start),
            appended_stop: false,
            suppressed: within(&newest, start, length),
            prompt: (!shared).then_some((prompt.text, prompt.suppressed)),
        })
    }

    fn outline(&self, scene: &Scene, skeleton: &Skeleton, position: usize) -> Found<Outline> {
        let words = scene.with_messages(&skeleton.messages);
        let prompt = self.run(&words, position, true)?.text;
        let newest = self.run(&words, position + 1, false)?.text;
        let (header, whole_prompt, start) = if newest.starts_with(&prompt) {
            (String::new(), true, prompt.len())
        } else {
            let before = self.run(&words, position, false)?.text;
            let common = border(&prompt, &newest);
            if common <= before.len() || !newest.starts_with(&before) {
                return Err(differs("the prompt and the turn as the newest have no header in common"));
            }
            (newest[before.len()..common].to_owned(), false, common)
        };
        let turn = &newest[start..];
        let said = skeleton.end_of_words(position, turn);
        let after = &turn[said..];
        let first = self
            .stops
            .iter()
            .filter_map(|stop| after.find(stop.as_str()).map(|at| (at, std::cmp::Reverse(stop.len()))))
            .min();
        let Some((at, length)) = first else {
            if self.prints_stop {
                return Err(Diagnostic::new(Code::NoStopToken, "the turn ends without a stop token"));
            }
            return Ok(Outline { header, whole_prompt, target: turn.trim_end().to_owned(), stop: 0 });
        };
        let end = said + at + length.0;
        let rest = &turn[end..];
        if !rest.trim().is_empty() && rest.trim() != self.after_stop.trim() {
            let message = format!("after its stop the turn goes on: `{}`", excerpt(rest.trim_start(), 0));
            return Err(Diagnostic::new(Code::TargetUnproved, message));
        }
        Ok(Outline { header, whole_prompt, target: turn[..end].to_owned(), stop: length.0 })
    }
}

/// Marks of a rendering that stand in a piece of it, from the piece's beginning.
fn within(rendering: &Unmarked, start: usize, length: usize) -> Vec<usize> {
    let inside = rendering.suppressed.iter().filter(|&&at| (start..start + length).contains(&at));
    inside.map(|at| at - start).collect()
}

/// How far two texts agree, back to a border between pieces: not inside a tag, not inside a word.
fn border(left: &str, right: &str) -> usize {
    let mut common = left.bytes().zip(right.bytes()).take_while(|(left, right)| left == right).count();
    while !left.is_char_boundary(common) || !right.is_char_boundary(common) {
        common -= 1;
    }
    let shared = &left[..common];
    if let Some(open) = shared.rfind('<').filter(|&open| !shared[open..].contains('>')) {
        return open;
    }
    let goes_on = |text: &str| text[common..].chars().next().is_some_and(char::is_alphanumeric);
    if goes_on(left) || goes_on(right) {
        return shared.trim_end_matches(char::is_alphanumeric).len();
    }
    common
}

#[cfg(test)]
mod tests {
    use super::border;

    #[test]
    fn texts_part_between_pieces() {
        assert_eq!(border("a<x><think>\n", "a<x></think>"), 4);
        assert_eq!(border("a<x><think>\n", "a<x>answer"), 4);
        assert_eq!(border("user: yes", "user: yet"), 6);
        assert_eq!(border("é", "è"), 0);
    }
}
