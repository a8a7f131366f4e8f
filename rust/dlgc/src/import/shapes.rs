//! What is left when no format is: speakers and text under whatever names, prompts without answers, material that is no
//! dialogue, files whose records are pieces of one; and what is said of anything else.

use super::draft::{Draft, Fields, Turn};
use super::formats::is_transcript;
use super::mapping::Mapping;
use super::{Context, Format, When};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::{self, Json, Node};

/// Schemas, ontologies, answers and tool descriptions: read by the importers of the sets that they belong to.
pub(super) const MATERIAL: Format = Format { name: "material", when: When::Is(is_material), import: no_dialogue };
/// A list of objects that say who speaks and what.
pub(super) const SPEAKERS: Format = Format { name: "speakers", when: When::Is(has_speakers), import: speakers };
/// A question, and nothing that answers it.
pub(super) const PROMPTS: Format = Format { name: "prompts", when: When::Is(is_prompt), import: prompt };

/// Whether a file whose first record this is holds dialogues in pieces, a message a record: it has who speaks and what is
/// said, and either nothing else, or a parent, or the name of a dialogue.
pub(crate) fn is_piece(record: &[u8]) -> bool {
    if record.len() > 1 << 16 {
        return false;
    }
    let Ok(parsed) = json::parse(record) else { return false };
    let row = &parsed.root;
    let Some(members) = row.as_object() else { return false };
    if spoken(row).is_none() || members.iter().any(|member| is_list_of_objects(&member.node)) {
        return false;
    }
    let is_bare = members.len() == 2 && row.get("role").is_some() && row.get("text").is_some();
    let has_parent = ["parent_message_id", "parent_id"].iter().any(|key| row.get(key).is_some());
    let has_dialogue = IDS[1..].iter().any(|key| row.get_some(key).is_some());
    is_bare || row.get("role").is_some() && has_parent || has_dialogue && !is_transcript(row)
}

fn is_list_of_objects(node: &Node<'_>) -> bool {
    node.as_array().is_some_and(|list| list.iter().any(|element| element.as_object().is_some()))
}

/// Who speaks and what is said, by their names, where an object is one message.
pub(super) fn spoken(row: &Node<'_>) -> Option<(&'static str, &'static str)> {
    let text = TEXT.into_iter().find(|key| row.get(key).is_some_and(|value| value.as_str().is_some()))?;
    let names = SPEAKER.into_iter().filter(|key| *key != text);
    let is_name = |key: &&str| {
        matches!(row.get(key).map(|value| &value.value), Some(Json::String(_) | Json::Number(_) | Json::Bool(_)))
    };
    let mut names = names.filter(is_name);
    Some((names.next()?, text))
}

/// Names of what names a dialogue; `id` may name anything.
pub(super) const IDS: [&str; 11] = [
    "id",
    "dialogue_id",
    "conversation_id",
    "dialog_id",
    "conv_id",
    "session_id",
    "thread_id",
    "chat_id",
    "ticket_id",
    "conversationId",
    "dialogueId",
];

/// Takes the name of a dialogue out.
pub(super) fn id_of<'a>(record: &mut Fields<'a>) -> Option<Node<'a>> {
    record.take_any(&IDS).map(super::draft::plain)
}

fn is_material(record: &Node<'_>) -> bool {
    let has = |keys: &[&str]| keys.iter().all(|key| record.get(key).is_some());
    let all = |test: fn(&Node<'_>) -> bool| {
        record.as_object().is_some_and(|members| members.len() > 1 && members.iter().all(|member| test(&member.node)))
    };
    has(&["service_name", "slots", "intents"]) // the schemas of SGD and MultiWOZ 2.2
        || has(&["id", "ground_truth"]) // the answers of BFCL
        || has(&["name", "description", "parameters"]) // functions
        || has(&["类名", "input_parameters"]) // the functions of API-Bank
        || has(&["api_list", "query"]) // the questions of ToolBench
        || ["file_name", "hf_hub_url", "ms_hub_url", "script_url"].iter().any(|key| record.get_some(key).is_some()) // LLaMA-Factory's list of sets
        || all(|values| values.as_array().is_some_and(|values| values.iter().all(|value| value.as_str().is_some()))) // values by slot
}

fn no_dialogue<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    context.notes.push(
        Diagnostic::new(Code::NotADialogue, "the record is no dialogue, but says something about others")
            .at(&(record.range.start..record.range.start + 1)),
    );
    Ok(Vec::new())
}

/// Names of lists of messages, of who speaks, and of what is said, as sets of all kinds have them.
pub(super) const LISTS: [&str; 14] = [
    "messages",
    "conversations",
    "conversation",
    "dialogue",
    "dialog",
    "dialogs",
    "utterances",
    "turns",
    "log",
    "content",
    "data",
    "items",
    "chat",
    "thread",
];
const SPEAKER: [&str; 13] = [
    "speaker",
    "role",
    "from",
    "sender",
    "agent",
    "author",
    "who",
    "speaker_id",
    "speaker_idx",
    "sender_id",
    "party",
    "name",
    "user",
];
const TEXT: [&str; 11] =
    ["text", "utterance", "content", "value", "message", "sentence", "body", "transcript", "utt", "say", "response"];

/// The list, the speaker and the text of a record, by the names that they have.
fn names(record: &Node<'_>) -> Option<(String, &'static str, &'static str)> {
    let members = record.as_object()?;
    let named = LISTS.iter().filter_map(|name| members.iter().find(|member| member.key == *name));
    // Else the only list of objects that the record has.
    let lists = || {
        members.iter().filter(|member| {
            member
                .node
                .as_array()
                .is_some_and(|list| list.iter().all(|element| element.as_object().is_some()) && !list.is_empty())
        })
    };
    let only = lists().next().filter(|_| lists().count() == 1);
    named.chain(only).find_map(|member| {
        let list = member.node.as_array()?;
        let has =
            |key: &&&str| list.iter().all(|element| element.get(key).is_some_and(|value| value.as_str().is_some()));
        let speaks = |key: &&&str| {
            let name = |element: &Node<'_>| {
                matches!(
                    element.get(key).map(|value| &value.value),
                    Some(Json::String(_) | Json::Number(_) | Json::Bool(_))
                )
            };
            list.iter().all(name)
        };
        let (speaker, text) = (SPEAKER.iter().find(speaks)?, TEXT.iter().find(has)?);
        (!list.is_empty() && speaker != text).then(|| (member.key.to_string(), *speaker, *text))
    })
}

fn has_speakers(record: &Node<'_>) -> bool {
    names(record).is_some()
}

fn speakers<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let (list, speaker, text) = names(&record).expect("recognised by it");
    let id = IDS.iter().find(|key| record.get_some(key).is_some());
    let message = format!("read as `{list}` of `{speaker}` and `{text}`, by their names");
    context.notes.push(
        Diagnostic::new(Code::RolesAssumed, message)
            .at(&(record.range.start..record.range.start + 1))
            .help("say so in `dlgc.toml`, and with it who is the assistant: `[formats.NAME]`"),
    );
    Mapping::of_keys(&list, speaker, text, id.copied()).import(record, context.assistant)
}

const ASKED: [&str; 5] = ["prompt", "question", "query", "instruction", "input"];

fn is_prompt(record: &Node<'_>) -> bool {
    ASKED.iter().any(|key| record.get(key).is_some_and(|value| value.as_str().is_some()))
}

/// A dialogue that nobody answers, which validation refuses for that.
fn prompt<'a>(record: Node<'a>, _: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let (asked, id) = (record.take_any(&ASKED), record.take("id"));
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    if let Some(asked) = asked {
        dialogue.say(Turn::new(&asked.range.clone(), "user").content(Some(asked)));
    }
    Ok(vec![dialogue.node()])
}

/// What is said of a record that has no known shape: what it looks like, and how to map it.
pub(super) fn unknown(record: &Node<'_>) -> Diagnostic {
    let looks_like = match &record.value {
        Json::Object(members) if members.is_empty() => "an empty object".to_owned(),
        Json::Object(members) => {
            let keys: Vec<String> = members.iter().take(8).map(|member| format!("`{}`", member.key)).collect();
            format!("an object with {}{}", keys.join(", "), if members.len() > 8 { ", …" } else { "" })
        }
        _ => record.kind().to_owned(),
    };
    Diagnostic::new(Code::UnknownFormat, format!("the record has no known shape: {looks_like}"))
        .at(&(record.range.start..record.range.start + 1))
        .help(suggestion(record))
}

/// A mapping to begin with, made of what the record holds.
fn suggestion(record: &Node<'_>) -> String {
    const GIVE: &str = "give `messages`, a list of objects with `role` and `content`";
    let Some(members) = record.as_object() else { return GIVE.to_owned() };
    let lists = members.iter().filter(|member| {
        member.node.as_array().is_some_and(|list| list.first().is_some_and(|first| first.as_object().is_some()))
    });
    if let Some(list) = lists.max_by_key(|member| member.node.as_array().map_or(0, <[_]>::len)) {
        let first = list.node.as_array().and_then(<[_]>::first).and_then(Node::as_object).unwrap_or_default();
        let texts: Vec<&str> =
            first.iter().filter(|member| member.node.as_str().is_some()).map(|member| &*member.key).collect();
        let content = texts.iter().max_by_key(|key| {
            list.node.as_array().map_or(0, |list| {
                list.iter().filter_map(|element| element.get(key)?.as_str()).map(str::len).sum::<usize>()
            })
        });
        let role = texts.iter().find(|key| Some(*key) != content);
        let content = content.map_or(String::new(), |key| format!(", content = \"{key}\""));
        let role = role.map_or(String::new(), |key| format!(", role = \"{key}\""));
        return format!(
            "map it in `dlgc.toml`: `[formats.NAME]` with messages = \"{}\"{role}{content}; or {GIVE}",
            list.key
        );
    }
    let texts: Vec<&str> =
        members.iter().filter(|member| member.node.as_str().is_some()).map(|member| &*member.key).collect();
    match texts.as_slice() {
        [first, .., last] => format!(
            "map its columns in `dlgc.toml`: `[formats.NAME]` with turns = [{{ user = \"{first}\" }}, {{ assistant = \"{last}\" }}]; or {GIVE}"
        ),
        _ => GIVE.to_owned(),
    }
}

/// Reads a call as Python writes it, `f(1, b='x')`, into its name and arguments; those without a name have the names of
/// the function's parameters, in order. `None` for anything but plain values.
pub(super) fn python_call(text: &str, functions: &[Node<'_>]) -> Option<(String, Node<'static>)> {
    let (name, rest) = text.trim().split_once('(')?;
    let name = name.trim();
    let mut reader = Python { rest: rest.strip_suffix(')')? };
    let is_named = |function: &&Node<'_>| function.get("name").and_then(Node::as_str) == Some(name);
    let declared =
        functions.iter().find(is_named).and_then(|function| function.get("parameters")?.get("properties")?.as_object());
    let mut arguments = Vec::new();
    while !reader.rest.trim_start().is_empty() {
        let key = reader.keyword();
        let value = reader.value()?;
        let key = match key {
            Some(key) => key,
            None => declared?.get(arguments.len())?.key.to_string(),
        };
        arguments.push((key, value));
        if !reader.take(",") && !reader.rest.trim_start().is_empty() {
            return None;
        }
    }
    Some((name.to_owned(), super::draft::named(&(0..0), arguments)))
}

/// Literals of Python.
struct Python<'t> {
    rest: &'t str,
}

impl Python<'_> {
    fn take(&mut self, what: &str) -> bool {
        let found = self.rest.trim_start().strip_prefix(what);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    /// `name=`, if that is what comes.
    fn keyword(&mut self) -> Option<String> {
        let text = self.rest.trim_start();
        let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_')?;
        let after = text[end..].trim_start().strip_prefix('=')?;
        if end == 0 || after.starts_with('=') {
            return None;
        }
        self.rest = after;
        Some(text[..end].to_owned())
    }

    fn value(&mut self) -> Option<Node<'static>> {
        let node = |value| Some(Node::new(0..0, value));
        for (word, value) in [("None", Json::Null), ("True", Json::Bool(true)), ("False", Json::Bool(false))] {
            if self.take(word) {
                return node(value);
            }
        }
        for quote in ['\'', '"'] {
            if self.take(&quote.to_string()) {
                return self.string(quote);
            }
        }
        for (open, close) in [("[", "]"), ("(", ")")] {
            if self.take(open) {
                let mut elements = Vec::new();
                while !self.take(close) {
                    elements.push(self.value()?);
                    if !self.take(",") && !self.rest.trim_start().starts_with(close) {
                        return None;
                    }
                }
                return node(Json::Array(elements));
            }
        }
        if self.take("{") {
            let mut members = Vec::new();
            while !self.take("}") {
                let key = self.value()?;
                if !self.take(":") {
                    return None;
                }
                members.push((key.as_str()?.to_owned(), self.value()?));
                if !self.take(",") && !self.rest.trim_start().starts_with('}') {
                    return None;
                }
            }
            return Some(super::draft::named(&(0..0), members));
        }
        let text = self.rest.trim_start();
        let end =
            text.find(|letter: char| !letter.is_ascii_alphanumeric() && !"+-._".contains(letter)).unwrap_or(text.len());
        let parsed = json::parse(&text.as_bytes()[..end]).ok()?.root.into_owned_at(&(0..0));
        self.rest = &text[end..];
        matches!(parsed.value, Json::Number(_)).then_some(parsed)
    }

    fn string(&mut self, quote: char) -> Option<Node<'static>> {
        let mut said = String::new();
        let mut letters = self.rest.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => said.push(match letters.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other @ ('\\' | '\'' | '"') => other,
                    _ => return None,
                }),
                letter if letter == quote => {
                    self.rest = &self.rest[at + quote.len_utf8()..];
                    return Some(Node::new(0..0, Json::String(said.into())));
                }
                letter => said.push(letter),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_as_python_writes_them() {
        let function = br#"{"name": "sort", "parameters": {"properties": {"file_name": {}, "by": {}}}}"#;
        let functions = [json::parse(function).expect("JSON").root];
        let read = |text: &str| python_call(text, &functions).map(|(name, arguments)| (name, json::dumps(&arguments)));
        let expected = |arguments: &str| Some(("sort".to_owned(), arguments.to_owned()));
        assert_eq!(
            read("sort('a.pdf', by=[1, -2.5, True])"),
            expected(r#"{"file_name": "a.pdf", "by": [1, -2.5, true]}"#)
        );
        assert_eq!(
            read("sort(x = {'a': None, 'b': \"it's\"}, y='\\'q\\'\\n')"),
            expected(r#"{"x": {"a": null, "b": "it's"}, "y": "'q'\n"}"#)
        );
        assert_eq!(read("sort()"), expected("{}"));
        assert_eq!(read("sort(f(1))"), None);
        assert_eq!(read("sort('open)"), None);
        assert_eq!(read("unknown('positional')"), None);
    }
}
