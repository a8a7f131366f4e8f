//! Marks that travel through a rendering and are taken out of its text again.
//!
//! Noncharacters, which Unicode keeps for such use and validation keeps out of records. Unlike offsets they survive
//! captured text: macros, set blocks, filters.

use std::borrow::Cow;
use std::ops::Range;

use crate::json::{Json, Node};

/// Stands before the text of a `{% generation %}` block.
pub(super) const BEGIN: char = '\u{FDD0}';
/// Stands after the text of a block.
pub(super) const END: char = '\u{FDD1}';
/// Stands before a text in a content that must not become a control token.
pub const SUPPRESS: char = '\u{FDD2}';

/// A rendering without its marks, and where they stood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unmarked {
    pub(super) text: String,
    /// Texts of blocks, in order of their ends.
    pub(super) blocks: Vec<Range<usize>>,
    /// Offsets before which [`SUPPRESS`] stood.
    pub(super) suppressed: Vec<usize>,
    /// Where marks of any kind stood in the text that had them.
    pub(super) places: Vec<usize>,
}

impl Unmarked {
    /// The place in the text that was this place before the marks were taken out.
    pub(super) fn place_of(&self, marked: usize) -> usize {
        marked - BEGIN.len_utf8() * self.places.partition_point(|&place| place < marked)
    }
}

/// Takes the marks out.
pub(super) fn strip(marked: &str) -> Unmarked {
    let mut out = Unmarked { text: String::with_capacity(marked.len()), ..Unmarked::default() };
    let mut open = Vec::new();
    let mut copied = 0;
    // All marks begin with these two bytes, which are sought faster than characters are.
    for at in memchr::memmem::find_iter(marked.as_bytes(), b"\xef\xb7") {
        let mark = marked[at..].chars().next().expect("a character begins with a lead byte");
        if ![BEGIN, END, SUPPRESS].contains(&mark) {
            continue;
        }
        out.text.push_str(&marked[copied..at]);
        out.places.push(at);
        match mark {
            BEGIN => open.push(out.text.len()),
            END => out.blocks.extend(open.pop().map(|start| start..out.text.len())),
            _ => out.suppressed.push(out.text.len()),
        }
        copied = at + mark.len_utf8();
    }
    out.text.push_str(&marked[copied..]);
    out
}

/// Takes [`SUPPRESS`] out of every string of a value.
pub(super) fn unmark(node: &mut Node<'_>) {
    let clean = |text: &mut Cow<'_, str>| {
        if text.contains(SUPPRESS) {
            *text = text.replace(SUPPRESS, "").into();
        }
    };
    match &mut node.value {
        Json::String(text) => clean(text),
        Json::Array(elements) => elements.iter_mut().for_each(unmark),
        Json::Object(members) => {
            for member in members {
                clean(&mut member.key);
                unmark(&mut member.node);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_places() {
        let out = strip("a\u{FDD0}bc\u{FDD1}d\u{FDD0}\u{FDD1}\u{FDD2}e");
        let places = vec![1, 6, 10, 13, 16];
        assert_eq!(out, Unmarked { text: "abcde".into(), blocks: vec![1..3, 4..4], suppressed: vec![4], places });
        assert_eq!([0, 1, 5, 10, 19].map(|place| out.place_of(place)), [0, 1, 2, 4, 4]);
    }

    #[test]
    fn characters_that_begin_like_marks_are_text() {
        let text = "\u{FDCF}\u{FDD3}\u{FDFA}\u{FDC0}";
        assert_eq!(strip(text), Unmarked { text: text.into(), ..Unmarked::default() });
        assert_eq!(strip("\u{FDFA}\u{FDD2}\u{FDFA}").text, "\u{FDFA}\u{FDFA}");
    }
}
