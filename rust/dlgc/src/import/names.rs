//! Names under which sets of all kinds have their lists, speakers, texts and ids; and files whose records are pieces of one
//! dialogue, which are told by them.

use super::formats::is_transcript;
use crate::json::{self, Fields, Json, Node};

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
pub(super) const SPEAKER: [&str; 13] = [
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
pub(super) const TEXT: [&str; 11] =
    ["text", "utterance", "content", "value", "message", "sentence", "body", "transcript", "utt", "say", "response"];
