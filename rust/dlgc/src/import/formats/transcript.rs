//! A whole dialogue in one string, each turn behind the name of who speaks: hh-rlhf's `Human:` and `Assistant:`, Guanaco's
//! `### Human:`, glaive's `USER:` and `FUNCTION RESPONSE:`, tau-bench's `user:` and `tool:`.
//!
//! A name counts only where a turn may begin: at the start, or on a line of its own after a line break (after a blank
//! line, where the text has blank lines before its turns). So `Human:` inside a line stays what it is.

use super::super::draft::{Draft, Turn, call, unwrapped};
use super::super::{Context, Format, When};
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Json, Node, string};

pub(super) const FORMAT: Format = Format { name: "transcript", when: When::Is(recognises), import };

/// Fields that hold such text.
const FIELDS: [&str; 6] = ["text", "chat", "messages_display", "conversation", "dialogue", "transcript"];
/// Who speaks, and the role. Longer names first.
const NAMES: [(&str, &str); 14] = [
    ("### Human:", "user"),
    ("### Assistant:", "assistant"),
    ("### System:", "system"),
    ("FUNCTION RESPONSE:", "tool"),
    ("Human:", "user"),
    ("Assistant:", "assistant"),
    ("USER:", "user"),
    ("ASSISTANT:", "assistant"),
    ("User:", "user"),
    ("user:", "user"),
    ("assistant:", "assistant"),
    ("tool:", "tool"),
    ("system:", "system"),
    ("SYSTEM:", "system"),
];

/// Whether a record holds a whole dialogue in a string.
pub(in super::super) fn recognises(record: &Node<'_>) -> bool {
    field(record).is_some()
}

fn field(record: &Node<'_>) -> Option<&'static str> {
    FIELDS.into_iter().find(|field| record.get(field).is_some_and(is_one))
}

/// Whether a string is a transcript: it begins with a name, and has an answer.
pub(super) fn is_one(node: &Node<'_>) -> bool {
    let Some(text) = node.as_str() else { return false };
    name_at(text.trim_start()).is_some() && {
        let turns = turns(text);
        turns.len() > 1 || turns.first().is_some_and(|(role, _)| *role == "assistant")
    }
}

/// Whether a prompt is a dialogue up to its next answer.
pub(super) fn is_question(text: &str) -> bool {
    let turns = turns(text);
    turns.len() > 1 && turns[0].0 != "assistant" && turns.iter().any(|(role, _)| *role == "assistant")
}

fn import<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let field = field(&record).expect("recognised by it");
    let mut record = Fields::of(record);
    let (text, id) = (record.take(field).expect("recognised by it"), record.take("id"));
    let system = record.text("system").map(std::borrow::Cow::into_owned);
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    if let Some(system) = system.filter(|system| !system.is_empty()) {
        let said = system.strip_prefix("SYSTEM:").unwrap_or(&system).trim();
        dialogue.say(Turn::new(&text.range, "system").says(said.to_owned()));
    }
    dialogue.messages.extend(messages(&text)?);
    Ok(vec![dialogue.node()])
}

/// The messages of a transcript.
pub(super) fn messages<'a>(text: &Node<'a>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let turn = |(role, said): (&'static str, String)| {
        let turn = Turn::new(&text.range, role);
        if role == "assistant" && said == "None" {
            return turn.node(); // a turn of calls alone, which the text does not show
        }
        match said.split_once("<functioncall>").filter(|_| role == "assistant") {
            Some((before, asked)) => {
                let turn = if before.trim().is_empty() { turn } else { turn.says(before.trim().to_owned()) };
                turn.calls(vec![function_call(asked.trim(), text)]).node()
            }
            None => turn.says(said).node(),
        }
    };
    Ok(turns(text.as_str().unwrap_or_default()).into_iter().map(turn).collect())
}

/// glaive's calls: JSON, but for arguments in single quotes.
fn function_call<'a>(asked: &str, at: &Node<'a>) -> Node<'a> {
    let quoted = asked.replace("'{", "{").replace("}'", "}");
    let parsed = unwrapped(string(&at.range, quoted));
    match parsed.value {
        Json::Object(_) => {
            let mut fields = Fields::of(parsed);
            let empty = Node::new(at.range.clone(), Json::Object(Vec::new()));
            let name = fields.take("name").unwrap_or_else(|| string(&at.range, ""));
            call(&at.range, None, name, fields.take("arguments").unwrap_or(empty))
        }
        // Validation says what is wrong with it.
        _ => string(&at.range, asked.to_owned()),
    }
}

fn name_at(text: &str) -> Option<(&'static str, &'static str)> {
    NAMES.into_iter().find(|(name, _)| text.starts_with(name))
}

/// Names of one kind: by what stands before them, and by their capitals.
fn kind(name: &str) -> (bool, bool, bool) {
    let capital = |letter: Option<char>| letter.is_some_and(char::is_uppercase);
    let word = name.trim_start_matches("### ").trim_end_matches(':');
    (name.starts_with('#'), capital(word.chars().next()), capital(word.chars().last()))
}

/// Roles and what they say.
fn turns(text: &str) -> Vec<(&'static str, String)> {
    let text = text.trim_start();
    let Some((first, _)) = name_at(text) else { return Vec::new() };
    // The names of a transcript are of one kind: that of the first.
    let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).filter(|name| kind(name) == kind(first)).collect();
    let starts_after = |before: &str| -> Vec<usize> {
        let ends = text.match_indices(before).map(|(at, _)| at + before.len());
        let starts = ends.map(|end| end + text[end..].len() - text[end..].trim_start_matches('\n').len());
        starts.filter(|&start| names.iter().any(|name| text[start..].starts_with(name))).collect()
    };
    let after_blank_lines = starts_after("\n\n");
    let later = if after_blank_lines.is_empty() { starts_after("\n") } else { after_blank_lines };
    let mut starts = vec![0];
    starts.extend(later);
    starts.dedup();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let turn = |(start, end): (&usize, usize)| {
        let said = &text[*start..end];
        let (name, role) = name_at(said)?;
        let said = said[name.len()..].trim();
        Some((role, said.strip_suffix("<|endoftext|>").map_or(said, str::trim_end).to_owned()))
    };
    starts.iter().zip(ends).filter_map(turn).collect()
}

#[cfg(test)]
mod tests {
    use super::turns;

    #[test]
    fn a_name_inside_a_line_is_no_turn() {
        let text = "\n\nHuman: they said Human: hi\nHuman: again\n\nAssistant: a\n\nb\n\nHuman: c\n\nAssistant:";
        let expected =
            [("user", "they said Human: hi\nHuman: again"), ("assistant", "a\n\nb"), ("user", "c"), ("assistant", "")];
        assert_eq!(turns(text), expected.map(|(role, said)| (role, said.to_owned())));
    }

    #[test]
    fn names_of_another_kind_are_text() {
        assert_eq!(turns("user: a\nAssistant: b\nassistant: c\ntool: d").len(), 3);
        assert_eq!(turns("### Human: a### b\n### Assistant: c").len(), 2);
    }
}
