//! A message said in blocks: text, reasoning, calls and results, each for the field of its own.

use std::ops::Range;

use super::super::draft::Turn;
use crate::json::{Fields, Json, Member, Node, object, string};

/// What the blocks of a message say, by kind.
#[derive(Default)]
pub(super) struct Blocks<'a> {
    /// Parts of its content, among them what validation refuses.
    pub(super) parts: Vec<Node<'a>>,
    pub(super) reasoning: Vec<Node<'a>>,
    pub(super) calls: Vec<Node<'a>>,
    pub(super) results: Vec<Node<'a>>,
    rest: Vec<Node<'a>>,
}

impl<'a> Blocks<'a> {
    /// Keeps what is left of a block for the annotations.
    pub(super) fn keep(&mut self, rest: Fields<'a>) {
        if !rest.members.is_empty() {
            self.rest.push(rest.into_node());
        }
    }

    /// Whether anything is said, called or thought.
    pub(super) fn says(&self) -> bool {
        !(self.parts.is_empty() && self.calls.is_empty() && self.reasoning.is_empty())
    }

    /// A message and the results that it brings, which come before what the user adds to them; `more` are further native
    /// fields.
    pub(super) fn messages(self, range: &Range<usize>, role: String, mut more: Fields<'a>) -> Vec<Node<'a>> {
        let is_assistant = role == "assistant";
        let says = self.says();
        let mut messages = self.results;
        if says || messages.is_empty() {
            let mut turn = Turn::new(range, role);
            if let Some(first) = self.reasoning.first() {
                let said: Vec<&str> = self.reasoning.iter().filter_map(Node::as_str).collect();
                turn = turn.with("reasoning_content", Some(string(&first.range, said.join("\n\n"))));
            }
            if !self.parts.is_empty() || self.calls.is_empty() {
                turn = turn.content(Some(content(range, self.parts)));
            }
            let at = if is_assistant { 0 } else { messages.len() };
            messages.insert(at, turn.calls(self.calls).node());
        }
        if !self.rest.is_empty() {
            let blocks = Node::new(range.clone(), Json::Array(self.rest));
            let annotations = more.fields("annotations").with("blocks", Some(blocks));
            more = Fields::of(more.with("annotations", Some(annotations)));
        }
        let one = if is_assistant { messages.first_mut() } else { messages.last_mut() };
        if let Some(Json::Object(members)) = one.map(|message| &mut message.value) {
            more.members.retain(|member| !members.iter().any(|known| known.key == member.key));
            members.append(&mut more.members);
        }
        messages
    }
}

/// Parts as content: one text is what it is.
pub(super) fn content<'a>(range: &Range<usize>, mut parts: Vec<Node<'a>>) -> Node<'a> {
    for part in &mut parts {
        if part.as_str().is_some() {
            let text = std::mem::replace(part, Node::new(range.clone(), Json::Null));
            *part = object(&text.range.clone(), vec![("text", text)]);
        }
    }
    let is_plain = |part: &Node<'a>| {
        let only_text =
            |members: &[_]| members.iter().all(|member: &Member<'_>| matches!(&*member.key, "type" | "text"));
        let is_text = part.get("type").is_none_or(|kind| kind.as_str() == Some("text"));
        is_text && part.as_object().is_some_and(only_text)
    };
    match <[Node<'a>; 1]>::try_from(parts) {
        Ok([one]) if is_plain(&one) => Fields::of(one).take("text").unwrap_or_else(|| string(range, "")),
        Ok(one) => Node::new(range.clone(), Json::Array(one.into())),
        Err(parts) => Node::new(range.clone(), Json::Array(parts)),
    }
}
