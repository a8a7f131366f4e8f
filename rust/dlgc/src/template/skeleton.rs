//! Skeletons: the messages with every string of theirs replaced by a word of its own.
//!
//! A template treats a skeleton as it treats the messages, unless it looks into what was replaced. What it prints is
//! then scaffold and words, and each word says whose string stood there. Tags such as `<think>` that the template names
//! and the white space around what is said stay as they are, because templates do look at them; but the text of a stop
//! is never scaffold where somebody said it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_128;

use super::messages::END_OF_THOUGHTS;
use crate::json::{self, Json, Node};

/// The messages with words for strings.
pub(super) struct Skeleton<'m> {
    /// As they are handed to the template.
    pub(super) messages: Vec<Node<'m>>,
    /// For each message, what its words stand for, in order.
    pub(super) leaves: Vec<Vec<Leaf<'m>>>,
    /// For each message, the names of the functions that it calls.
    names: Vec<Vec<String>>,
    /// For each message, a hash of the skeleton up to it.
    keys: Vec<u128>,
}

/// A word in a rendering of the skeleton, and what it stands for in the real one.
pub(super) struct Placed {
    pub(super) message: usize,
    pub(super) words: Range<usize>,
    pub(super) real: Range<usize>,
}

/// A string of a message, or a piece of one.
pub(super) struct Leaf<'m> {
    /// The word that stands for it.
    word: String,
    text: Cow<'m, str>,
    /// Reasoning may be dropped by a template; what is said to others may not.
    is_reasoning: bool,
    /// The call in whose arguments it stands.
    call: Option<usize>,
}

/// Why a target is not its own leaves and scaffold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unproved {
    /// The texts differ, other than by what the words stand for.
    Differs,
    /// A string of another message stands in it.
    Foreign,
    /// A string of the message is missing, or stands there twice.
    Leaf(String),
    /// The name of a function that it calls is missing.
    Name(String),
}

impl<'m> Skeleton<'m> {
    /// `stops` are the texts that may end a turn, `tags` the names of the template's.
    pub(super) fn of(messages: &[&'m Node<'_>], stops: &[String], tags: &Names) -> Self {
        let mut skeleton = Self {
            messages: Vec::with_capacity(messages.len()),
            leaves: Vec::new(),
            names: Vec::new(),
            keys: Vec::new(),
        };
        let mut key = 0_u128;
        for (index, message) in messages.iter().enumerate() {
            let mut words = Words {
                message: index,
                leaves: Vec::new(),
                names: Vec::new(),
                in_reasoning: false,
                call: None,
                stops,
                tags,
            };
            let mut message = message.lent();
            words.message(&mut message);
            let mut hashed = json::dumps(&message).into_bytes();
            hashed.extend(key.to_le_bytes());
            key = xxh3_128(&hashed);
            skeleton.keys.push(key);
            skeleton.messages.push(message);
            skeleton.leaves.push(words.leaves);
            skeleton.names.push(words.names);
        }
        skeleton
    }

    /// What a rendering up to a message depends on: the skeleton so far, and what stands around it.
    pub(super) fn key(&self, message: usize, around: u128) -> u128 {
        self.keys[message] ^ around.rotate_left(1)
    }

    /// Where the last word of a message ends in a text; 0 where none stands in it. Numbers count as words.
    pub(super) fn end_of_words(&self, message: usize, text: &str) -> usize {
        let ends = self.leaves[message].iter().filter_map(|leaf| text.rfind(&leaf.word).map(|at| at + leaf.word.len()));
        // The names of its calls stand as they are, one after the other.
        let mut named = 0;
        for name in &self.names[message] {
            named = text[named..].find(name.as_str()).map_or(named, |at| named + at + name.len());
        }
        ends.max().unwrap_or(0).max(named)
    }

    /// Words for what a message says to others: its content, without what stands before the end of its thoughts.
    pub(super) fn said(&self, message: usize) -> impl Iterator<Item = &str> {
        let said = self.leaves[message].iter().filter(|leaf| !leaf.is_reasoning && leaf.call.is_none());
        said.map(|leaf| leaf.word.as_str())
    }

    /// Words for what a message calls functions with, each with the number of the call.
    pub(super) fn arguments(&self, message: usize) -> impl Iterator<Item = (usize, &str)> {
        self.leaves[message].iter().filter_map(|leaf| Some((leaf.call?, leaf.word.as_str())))
    }

    /// Whether a text begins with a word of a message, white space aside.
    pub(super) fn begins_with_word(&self, message: usize, text: &str) -> bool {
        self.leaves[message].iter().any(|leaf| text.trim_start().starts_with(leaf.word.as_str()))
    }

    /// Where the first word of a message begins in a text.
    pub(super) fn start_of_words(&self, message: usize, text: &str) -> Option<usize> {
        self.leaves[message].iter().filter_map(|leaf| text.find(&leaf.word)).min()
    }

    /// The words of a rendering of the skeleton, in order, with what each stands for in the real one; up to the first
    /// place where the two are other than by what the words stand for.
    pub(super) fn align(&self, words: &str, real: &str) -> Vec<Placed> {
        let mut known: HashMap<&str, (usize, &Leaf<'_>)> = HashMap::new();
        for (message, leaves) in self.leaves.iter().enumerate() {
            known.extend(leaves.iter().map(|leaf| (leaf.word.as_str(), (message, leaf))));
        }
        let mut placed = Vec::new();
        let (mut at, mut real_at) = (0, 0);
        loop {
            let next = next_word(&words[at..]);
            if !real[real_at..].starts_with(&words[at..at + next]) || at + next == words.len() {
                return placed;
            }
            (at, real_at) = (at + next, real_at + next);
            let length = length_of_word(&words[at..]);
            let word = &words[at..at + length];
            let Some(&(message, leaf)) = known.get(word) else {
                // What looks like a word and is none.
                if !real[real_at..].starts_with(word) {
                    return placed;
                }
                (at, real_at) = (at + length, real_at + length);
                continue;
            };
            let Some(printed) = leaf.printed(&real[real_at..]) else { return placed };
            placed.push(Placed { message, words: at..at + length, real: real_at..real_at + printed });
            (at, real_at) = (at + length, real_at + printed);
        }
    }

    /// Whether a word of any message stands in a text.
    pub(super) fn holds_word(text: &str) -> bool {
        text.contains(MARK)
    }

    /// Puts the strings of a message back into a text made from its words, and compares it with the beginning of the
    /// real text; how much of that it is.
    pub(super) fn matches(&self, message: usize, words: &str, real: &str) -> Result<usize, Unproved> {
        let mut seen = vec![0; self.leaves[message].len()];
        let (mut at, mut rest) = (0, words);
        // Names stay as they are, since templates look at them; each call's must stand in the turn.
        for name in &self.names[message] {
            let calls = self.names[message].iter().filter(|other| *other == name).count();
            if words.matches(name.as_str()).count() < calls {
                return Err(Unproved::Name(name.clone()));
            }
        }
        while !rest.is_empty() {
            let next = next_word(rest);
            if !real.get(at..).is_some_and(|real| real.starts_with(&rest[..next])) {
                return Err(Unproved::Differs);
            }
            at += next;
            rest = &rest[next..];
            if rest.is_empty() {
                break;
            }
            let own = self.leaves[message].iter().position(|leaf| rest.starts_with(leaf.word.as_str()));
            let Some(index) = own else {
                if rest.starts_with(MARK) {
                    return Err(Unproved::Foreign);
                }
                // Digits that look like a word and are none.
                if !real[at..].starts_with(NUMBER) {
                    return Err(Unproved::Differs);
                }
                at += NUMBER.len();
                rest = &rest[NUMBER.len()..];
                continue;
            };
            let leaf = &self.leaves[message][index];
            at += leaf.printed(&real[at..]).ok_or(Unproved::Differs)?;
            seen[index] += 1;
            rest = &rest[leaf.word.len()..];
        }
        for (leaf, seen) in self.leaves[message].iter().zip(seen) {
            if seen != 1 && !(leaf.is_reasoning && seen == 0) {
                return Err(Unproved::Leaf(leaf.text.chars().take(24).collect()));
            }
        }
        Ok(at)
    }
}

/// What every word begins with; no scaffold holds it.
const MARK: &str = "Qz7";

/// What the number begins with that stands for a number.
const NUMBER: &str = "70915";

/// What it ends in where it stands for a number with a fraction.
const FRACTION: &str = ".5";

impl Leaf<'_> {
    /// How much of the real text it is, as it stands or as a JSON string.
    fn printed(&self, real: &str) -> Option<usize> {
        let as_it_stands = real.starts_with(&*self.text).then_some(self.text.len());
        // Text that ends in a backslash is how its JSON string begins.
        if as_it_stands.is_some() && !self.text.ends_with('\\') {
            return as_it_stands;
        }
        let escaped = escaped(&self.text);
        real.starts_with(&escaped).then_some(escaped.len()).or(as_it_stands)
    }
}

/// How long the word is that a text begins with, or what looks like one; 0 for an empty text.
fn length_of_word(text: &str) -> usize {
    if text.starts_with(MARK) {
        return text.find("Zq").map_or(MARK.len(), |at| at + "Zq".len());
    }
    let digits = text.len() - text.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    digits + if text[digits..].starts_with(FRACTION) { FRACTION.len() } else { 0 }
}

/// Where the next word begins, or what looks like one.
fn next_word(text: &str) -> usize {
    let ends = [text.find(MARK), text.find(NUMBER)];
    ends.into_iter().flatten().min().unwrap_or(text.len())
}

fn escaped(text: &str) -> String {
    let mut quoted = String::new();
    json::write_string(&mut quoted, text, false);
    quoted[1..quoted.len() - 1].to_owned()
}

struct Words<'s, 'm> {
    message: usize,
    leaves: Vec<Leaf<'m>>,
    names: Vec<String>,
    in_reasoning: bool,
    call: Option<usize>,
    stops: &'s [String],
    tags: &'s Names,
}

impl<'m> Words<'_, 'm> {
    fn message(&mut self, message: &mut Node<'m>) {
        let is_assistant = message.get("role").and_then(Node::as_str) == Some("assistant");
        let Json::Object(members) = &mut message.value else { return };
        for member in members {
            self.in_reasoning = member.key == "reasoning_content";
            match &*member.key {
                "content" => {
                    let first = self.leaves.len();
                    self.strings(&mut member.node, true);
                    self.thoughts(first, &member.node, is_assistant);
                }
                "reasoning_content" => self.strings(&mut member.node, true),
                "tool_calls" => {
                    let Json::Array(calls) = &mut member.node.value else { continue };
                    for (number, call) in calls.iter_mut().enumerate() {
                        self.call = Some(number);
                        self.arguments(call);
                    }
                    self.call = None;
                }
                _ => {}
            }
        }
    }

    /// What stands before the last end of thoughts in a content is reasoning: templates cut it out.
    fn thoughts(&mut self, first: usize, content: &Node<'_>, is_assistant: bool) {
        if !is_assistant || content.as_str().is_some_and(|content| !content.contains(END_OF_THOUGHTS)) {
            return;
        }
        let text = json::dumps(content);
        let Some(end) = text.rfind(END_OF_THOUGHTS) else { return };
        for leaf in &mut self.leaves[first..] {
            leaf.is_reasoning |= text.find(&leaf.word).is_some_and(|at| at < end);
        }
    }

    /// Strings and numbers inside arguments, and the name of the function.
    fn arguments(&mut self, call: &mut Node<'m>) {
        let Json::Object(members) = &mut call.value else { return };
        for member in members {
            match (&*member.key, &mut member.node.value) {
                ("function", _) => self.arguments(&mut member.node),
                ("name", Json::String(name)) => self.names.push(name.clone().into_owned()),
                ("arguments", Json::Object(_)) => {
                    self.strings(&mut member.node, true);
                    self.numbers(&mut member.node);
                }
                ("arguments", Json::String(text)) => {
                    if let Ok(parsed) = json::parse(text.as_bytes()) {
                        let mut places = Vec::new();
                        self.inside(&parsed.root, text, &mut places);
                        for (range, word) in places.into_iter().rev() {
                            text.to_mut().replace_range(range, &word);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// A word for a piece of text that is neither split nor trimmed.
    fn word(&mut self, text: Cow<'m, str>, word: String) -> String {
        self.leaves.push(Leaf { word: word.clone(), text, is_reasoning: false, call: self.call });
        word
    }

    /// Numbers, each by one that no other string or number is: as many digits as it takes.
    fn numbers(&mut self, node: &mut Node<'m>) {
        match &mut node.value {
            Json::Number(lexeme) => {
                let (printed, word) = self.number(lexeme);
                *lexeme = self.word(printed.into(), word).into();
            }
            Json::Array(elements) => elements.iter_mut().for_each(|element| self.numbers(element)),
            Json::Object(members) => members.iter_mut().for_each(|member| self.numbers(&mut member.node)),
            _ => {}
        }
    }

    /// How Python prints a number, and the number that stands for it: a float for a float.
    fn number(&self, lexeme: &str) -> (String, String) {
        let fraction = if lexeme.contains(['.', 'e', 'E']) { FRACTION } else { "" };
        let word = format!("{NUMBER}{:03}{:03}9{fraction}", self.message, self.leaves.len());
        (json::python_number(lexeme).into_owned(), word)
    }

    /// Words for the strings and numbers of arguments that are JSON in a string, in their places in it.
    fn inside(&mut self, node: &Node<'_>, source: &str, places: &mut Vec<(std::ops::Range<usize>, String)>) {
        match &node.value {
            Json::String(_) => {
                let range = node.range.start + 1..node.range.end - 1;
                let text = &source[range.clone()];
                let core = text.trim();
                if !core.is_empty() {
                    let start = range.start + (text.len() - text.trim_start().len());
                    let word = word(self.message, self.leaves.len());
                    places.push((start..start + core.len(), self.word(core.to_owned().into(), word)));
                }
            }
            Json::Number(_) => {
                let text = &source[node.range.clone()];
                let (_, word) = self.number(text);
                places.push((node.range.clone(), self.word(text.to_owned().into(), word)));
            }
            Json::Array(elements) => elements.iter().for_each(|element| self.inside(element, source, places)),
            Json::Object(members) => members.iter().for_each(|member| self.inside(&member.node, source, places)),
            _ => {}
        }
    }

    fn strings(&mut self, node: &mut Node<'m>, is_leaf: bool) {
        match &mut node.value {
            Json::String(Cow::Borrowed(text)) if is_leaf => {
                let text: &'m str = text;
                node.value = Json::String(self.words(text, Cow::Borrowed).into());
            }
            Json::String(text) if is_leaf => *text = self.words(text, |said| said.to_owned().into()).into(),
            Json::Array(elements) => elements.iter_mut().for_each(|element| self.strings(element, is_leaf)),
            Json::Object(members) => {
                for member in members {
                    self.strings(&mut member.node, member.key != "type");
                }
            }
            _ => {}
        }
    }

    /// A text with words in place of what it says; `keep` keeps what they stand for.
    fn words<'t>(&mut self, text: &'t str, keep: impl Fn(&'t str) -> Cow<'m, str>) -> String {
        let mut out = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (said, tag) = until_tag(rest, self.stops, self.tags);
            let core = said.trim();
            if core.is_empty() {
                out.push_str(said);
            } else {
                let lead = said.len() - said.trim_start().len();
                let word = word(self.message, self.leaves.len());
                [&said[..lead], &word, &said[lead + core.len()..]].into_iter().for_each(|part| out.push_str(part));
                let (is_reasoning, call) = (self.in_reasoning, self.call);
                self.leaves.push(Leaf { word, text: keep(core), is_reasoning, call });
            }
            out.push_str(tag);
            rest = &rest[said.len() + tag.len()..];
        }
        out
    }
}

/// A key for messages of which each string that is said is one word: where it is the same, the skeleton is. `None` where
/// there may be tags, or more than strings.
pub(super) fn key_of_plain<'n, 'm: 'n>(messages: impl Iterator<Item = &'n Node<'m>>) -> Option<u128> {
    let mut kept = b"plain".to_vec();
    let mut keep = |text: &str| {
        kept.extend_from_slice(&(text.len() as u64).to_le_bytes());
        kept.extend_from_slice(text.as_bytes());
    };
    for message in messages {
        let Json::Object(members) = &message.value else { return None };
        keep("message");
        for member in members {
            let text = member.node.as_str()?;
            keep(&member.key);
            match &*member.key {
                "content" | "reasoning_content" => {
                    if memchr::memchr(b'<', text.as_bytes()).is_some() {
                        return None;
                    }
                    let core = text.trim_start();
                    keep(&text[..text.len() - core.len()]);
                    keep(if core.is_empty() { "" } else { "word" });
                    keep(&core[core.trim_end().len()..]);
                }
                _ => keep(text),
            }
        }
    }
    Some(xxh3_128(&kept))
}

/// The word for a leaf of a message.
fn word(message: usize, leaf: usize) -> String {
    [MARK, "m", &message.to_string(), "n", &leaf.to_string(), "Zq"].concat()
}

/// A tag has up to so many bytes between `<` and `>`.
const LONGEST_TAG: usize = 64;

/// What a template writes behind each `<`, or behind `</`, as far as a tag may go; in order.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn of(source: &str) -> Self {
        let behind = source.match_indices('<').map(|(open, _)| &source[open + 1..]);
        let both = behind.flat_map(|behind| [Some(behind), behind.strip_prefix('/')]).flatten();
        let mut names: Vec<String> = both.map(|behind| behind.chars().take(LONGEST_TAG).collect()).collect();
        names.sort_unstable();
        Self(names)
    }

    /// Whether the template writes a tag, or begins one so.
    fn has(&self, tag: &str) -> bool {
        let name = tag.trim_start_matches(['<', '/']).trim_end_matches('>');
        let at = self.0.partition_point(|behind| behind.as_str() < name);
        self.0.get(at).is_some_and(|behind| behind.starts_with(name))
    }
}

/// Text up to the next tag, and the tag: `<`, no white space or bracket, `>`, no stop, and the template names it.
pub(super) fn until_tag<'t>(text: &'t str, stops: &[String], names: &Names) -> (&'t str, &'t str) {
    for (open, _) in text.match_indices('<') {
        let after = &text[open + 1..];
        let close = after.find(|character: char| character == '>' || character == '<' || character.is_whitespace());
        if let Some(close) = close.filter(|&close| close > 0 && close <= LONGEST_TAG && after[close..].starts_with('>'))
        {
            let tag = &text[open..open + close + 2];
            if !tag.contains(MARK)
                && names.has(tag)
                && !stops.iter().any(|stop| tag.contains(stop.as_str()) || stop.contains(tag))
            {
                return (&text[..open], tag);
            }
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skeleton(messages: &[&str]) -> Skeleton<'static> {
        // Tests may leak.
        let nodes: &'static [Node<'static>] = messages
            .iter()
            .map(|text| json::parse(text.as_bytes()).expect("JSON").root.into_owned_at(&(0..0)))
            .collect::<Vec<_>>()
            .leak();
        Skeleton::of(&nodes.iter().collect::<Vec<_>>(), &["<|end|>".to_owned()], &Names::of("<think></think><br>"))
    }

    #[test]
    fn tags_and_white_space_stay_and_strings_become_words() {
        let found = skeleton(&[r#"{"role": "assistant", "content": "<think>\nhm, 1 < 2\n</think>\n\n yes ",
                "tool_calls": [{"function": {"name": "f", "arguments": {"a": ["x", 1, ""]}}}]}"#]);
        assert_eq!(
            json::dumps(&found.messages[0]),
            r#"{"role": "assistant", "content": "<think>\nQz7m0n0Zq\n</think>\n\n Qz7m0n1Zq ", "tool_calls": "#
                .to_owned()
                + r#"[{"function": {"name": "f", "arguments": {"a": ["Qz7m0n2Zq", 709150000039, ""]}}}]}"#
        );
        let texts: Vec<&str> = found.leaves[0].iter().map(|leaf| &*leaf.text).collect();
        assert_eq!(texts, ["hm, 1 < 2", "yes", "x", "1"]);
    }

    #[test]
    fn messages_have_the_same_plain_key_where_they_have_the_same_skeleton() {
        let contents = ["a", "b", " a", "a ", "", "  ", "\u{3000}", " a b ", "c\n", "\n"];
        let message = |role: &str, content: &str| {
            let json = format!("{{\"role\": \"{role}\", \"content\": {}}}", serde_json::json!(content));
            json::parse(json.as_bytes()).expect("JSON").root.into_owned_at(&(0..0))
        };
        let mut keys = HashMap::new();
        for (first, second) in contents.iter().flat_map(|first| contents.iter().map(move |second| (first, second))) {
            for role in ["user", "tool"] {
                let messages = [message(role, first), message("assistant", second)];
                let plain = key_of_plain(messages.iter()).expect("strings without tags");
                let whole = Skeleton::of(&messages.iter().collect::<Vec<_>>(), &[], &Names::default()).key(1, 0);
                assert_eq!(*keys.entry(plain).or_insert(whole), whole, "{first:?} {second:?}");
            }
        }
        assert_eq!(keys.len(), keys.values().collect::<std::collections::HashSet<_>>().len());
        for odd in [r#"{"content": "a <b>"}"#, r#"{"content": ["a"]}"#, r#"{"tool_calls": []}"#, "[]"] {
            let odd = json::parse(odd.as_bytes()).expect("JSON").root.into_owned_at(&(0..0));
            assert_eq!(key_of_plain(std::iter::once(&odd)), None);
        }
    }

    #[test]
    fn arguments_that_are_a_string_have_words_too() {
        let found = skeleton(&[r#"{"role": "assistant", "tool_calls": [{"function": {"name": "f",
                "arguments": "{\"a\":\" x \\\"y \", \"n\": [1.50]}"}}]}"#]);
        let texts: Vec<&str> = found.leaves[0].iter().map(|leaf| &*leaf.text).collect();
        assert_eq!(texts, [r#"x \"y"#.replace("\\\\", "\\").as_str(), "1.50"]);
        assert_eq!(found.matches(0, "f", "f"), Err(Unproved::Leaf(texts[0].into())));
        assert_eq!(found.matches(0, "[]", "[]"), Err(Unproved::Name("f".into())));
        assert_eq!(found.matches(0, "f Qz7m0n0Zq 709150000019.5!", r#"f x \"y 1.50!"#), Ok(13));
    }

    #[test]
    fn a_stop_that_was_said_is_part_of_the_word() {
        let found = skeleton(&[r#"{"role": "assistant", "content": "<think>say <|end|>"}"#]);
        assert_eq!(json::dumps(&found.messages[0]), r#"{"role": "assistant", "content": "<think>Qz7m0n0Zq"}"#);
    }

    #[test]
    fn a_tag_that_the_template_does_not_name_is_part_of_the_word() {
        let found = skeleton(&[r#"{"role": "assistant", "content": "<i>say</i> </think><x>"}"#]);
        assert_eq!(
            json::dumps(&found.messages[0]),
            r#"{"role": "assistant", "content": "Qz7m0n0Zq </think>Qz7m0n1Zq"}"#
        );
    }

    #[test]
    fn a_backslash_at_the_end_is_escaped_or_not() {
        let found = skeleton(&[r#"{"role": "assistant", "content": "c:\\"}"#]);
        assert_eq!(found.matches(0, "[Qz7m0n0Zq]", r"[c:\]"), Ok(5));
        assert_eq!(found.matches(0, "[\"Qz7m0n0Zq\"]", r#"["c:\\"]"#), Ok(8));
    }

    #[test]
    fn a_target_is_its_own_leaves_each_once_and_scaffold() {
        let found = skeleton(&[r#"{"role": "user", "content": "q"}"#, r#"{"role": "assistant", "content": "a\"b"}"#]);
        assert_eq!(found.matches(1, "[Qz7m1n0Zq]", "[a\"b]rest"), Ok(5));
        assert_eq!(found.matches(1, "[\"Qz7m1n0Zq\"]", "[\"a\\\"b\"]"), Ok(8));
        assert_eq!(found.matches(1, "[Qz7m1n0Zq]", "[ab]"), Err(Unproved::Differs));
        assert_eq!(found.matches(1, "[Qz7m0n0Zq]", "[q]"), Err(Unproved::Foreign));
        assert_eq!(found.matches(1, "[]", "[]"), Err(Unproved::Leaf("a\"b".into())));
        assert_eq!(found.matches(1, "Qz7m1n0Zq Qz7m1n0Zq", "a\"b a\"b"), Err(Unproved::Leaf("a\"b".into())));
    }
}
