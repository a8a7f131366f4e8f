//! Names under which sets of all kinds have their lists, speakers, texts and ids; and files whose records are pieces of one
//! dialogue, which are told by them.
//!
//! Letters alone count: `Dialogue_ID`, `dialogueId` and `dialogue.id` are one name.

use super::embedded;
use super::formats::is_transcript;
use crate::diagnostic::Diagnostic;
use crate::json::{self, Fields, Json, Node};

/// Names of what names a dialogue; `id` may name anything.
const IDS: [&str; 12] = [
    "id",
    "dialogueid",
    "conversationid",
    "dialogid",
    "dialid",
    "convid",
    "sessionid",
    "threadid",
    "chatid",
    "ticketid",
    "conversationhash",
    "callid",
];
/// Names of lists of messages.
const LISTS: [&str; 19] = [
    "messages",
    "conversations",
    "conversation",
    "dialogue",
    "dialog",
    "dialogs",
    "dial",
    "utterances",
    "turns",
    "log",
    "content",
    "data",
    "items",
    "chat",
    "thread",
    "context",
    "history",
    "chathistory",
    "info",
];
/// Names of who speaks.
const SPEAKER: [&str; 28] = [
    "authorrole",
    "speaker",
    "role",
    "from",
    "sender",
    "agent",
    "author",
    "who",
    "speakerid",
    "speakeridx",
    "speakername",
    "senderid",
    "senderworkerid",
    "interlocutor",
    "interlocutorid",
    "messagefrom",
    "usertype",
    "participant",
    "party",
    "isuser",
    "ishuman",
    "isbot",
    "isagent",
    "isassistant",
    "iscustomer",
    "name",
    "username",
    "user",
];
/// Names of what is said.
const TEXT: [&str; 16] = [
    "text",
    "utterance",
    "content",
    "value",
    "message",
    "sentence",
    "body",
    "transcript",
    "utt",
    "say",
    "sent",
    "response",
    "msg",
    "mes",
    "messagetext",
    "line",
];

/// The letters of a name, in small.
pub(super) fn plain(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Whether these are the letters of a name.
fn is(key: &str, name: &str) -> bool {
    if key.is_ascii() {
        let letters = key.bytes().filter(u8::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase());
        letters.eq(name.bytes())
    } else {
        plain(key) == name
    }
}

/// The members of an object that have one of these names, in the order of the names, by their own.
pub(super) fn named<'n>(record: &'n Node<'_>, names: &[&str]) -> Vec<&'n str> {
    let members = record.as_object().unwrap_or_default();
    let own = |name: &&str| members.iter().find(|member| is(&member.key, name)).map(|member| &*member.key);
    names.iter().filter_map(own).collect()
}

/// The lists of messages of a record, by their own names.
pub(super) fn lists<'n>(record: &'n Node<'_>) -> Vec<&'n str> {
    named(record, &LISTS)
}

fn is_scalar(node: &Node<'_>) -> bool {
    matches!(node.value, Json::String(_) | Json::Number(_))
}

/// The member that names a dialogue.
pub(super) fn id<'n>(record: &'n Node<'_>) -> Option<&'n str> {
    named(record, &IDS).into_iter().find(|key| record.get(key).is_some_and(is_scalar))
}

/// The member of a message that names its dialogue.
pub(super) fn dialogue<'n>(message: &'n Node<'_>) -> Option<&'n str> {
    named(message, &IDS[1..]).into_iter().find(|key| message.get(key).is_some_and(is_scalar))
}

/// Takes the name of a dialogue out.
pub(super) fn take_id<'a>(record: &mut Fields<'a>) -> Option<Node<'a>> {
    let place = |key: &str| IDS.iter().position(|id| is(key, id));
    let members = record.members.iter().filter(|member| is_scalar(&member.node));
    let (_, first) =
        members.filter_map(|member| Some((place(&member.key)?, member))).min_by_key(|(place, _)| *place)?;
    let key = first.key.clone();
    record.take(&key).map(super::draft::plain)
}

/// Who speaks and what is said, by their own names, where an object is one message.
pub(super) fn spoken<'n>(message: &'n Node<'_>) -> Option<(&'n str, &'n str)> {
    let is_text = |key: &&str| message.get(key).is_some_and(|value| value.as_str().is_some());
    let text = named(message, &TEXT).into_iter().find(is_text)?;
    let is_name = |key: &&str| {
        matches!(message.get(key).map(|value| &value.value), Some(Json::String(_) | Json::Number(_) | Json::Bool(_)))
    };
    let speaker = named(message, &SPEAKER).into_iter().filter(|key| *key != text).find(is_name)?;
    Some((speaker, text))
}

/// Whether a name is one of what is said.
pub(super) fn is_text(key: &str) -> bool {
    TEXT.iter().any(|name| is(key, name))
}

/// Whether a name is one of who speaks.
pub(super) fn is_speaker(key: &str) -> bool {
    SPEAKER.iter().any(|name| is(key, name))
}

/// What an object says, under whatever name.
pub(super) fn text<'n>(message: &'n Node<'_>) -> Option<&'n str> {
    named(message, &TEXT).into_iter().find(|key| message.get(key).is_some_and(|value| value.as_str().is_some()))
}

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
    is_bare || row.get("role").is_some() && has_parent || dialogue(row).is_some() && !is_transcript(row)
}

fn is_list_of_objects(node: &Node<'_>) -> bool {
    node.as_array().is_some_and(|list| list.iter().any(|element| element.as_object().is_some()))
}

/// A record whose messages are wrapped, unwrapped: a bare list of objects becomes a record's `messages`, and text that is a
/// JSON list of objects, as tables hold it, the list. `None` where nothing is wrapped.
///
/// # Errors
/// A reserved character in such text.
pub(super) fn opened<'a>(record: &Node<'a>) -> Result<Option<Node<'a>>, Diagnostic> {
    let range = record.range.clone();
    if is_list_of_objects(record) {
        return Ok(Some(json::object(&range, vec![("messages", record.clone())])));
    }
    let is_list = |node: &Node<'_>| {
        node.as_str()
            .map(str::trim)
            .is_some_and(|text| text.starts_with('[') && text.contains('{') && text.ends_with(']'))
    };
    let mut fields = Fields::of(record.clone());
    let mut is_wrapped = false;
    for member in fields.members.iter_mut().filter(|member| member.key != "tools" && is_list(&member.node)) {
        if let Some(list) = embedded(&member.node)?.filter(is_list_of_objects) {
            member.node = list;
            is_wrapped = true;
        }
    }
    Ok(is_wrapped.then(|| fields.into_node()))
}
