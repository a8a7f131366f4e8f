//! Rules that stand beside the messages, in `system`: a text, or blocks of text.

use super::super::draft::Turn;
use super::{blocks, messages};
use crate::json::{Json, Node};

/// Whether rules stand beside the messages, and none among them.
pub(super) fn is_beside(record: &Node<'_>) -> bool {
    let says = match record.get("system").map(|system| &system.value) {
        Some(Json::String(text)) => !text.is_empty(),
        Some(Json::Array(parts)) => !parts.is_empty(),
        _ => false,
    };
    let role = || messages::list(record)?.first()?.get("role")?.as_str();
    says && role().is_some_and(|role| !matches!(role, "system" | "developer"))
}

/// Puts rules that stand beside the messages before them.
pub(super) fn put_first(record: &mut Node<'_>) {
    let Some(list) = messages::list_name(record).filter(|_| is_beside(record)) else { return };
    let Json::Object(members) = &mut record.value else { return };
    let Some(at) = members.iter().position(|member| member.key == "system") else { return };
    let mut system = members.remove(at).node;
    if let Json::Array(parts) = system.value {
        let parts = parts.into_iter().map(|mut part| {
            if let Json::Object(members) = &mut part.value {
                members.retain(|member| member.key != "cache_control");
            }
            part
        });
        system = blocks::content(&system.range, parts.collect());
    }
    let list = members.iter_mut().find(|member| member.key == list).map(|member| &mut member.node.value);
    if let Some(Json::Array(messages)) = list {
        messages.insert(0, Turn::new(&system.range.clone(), "system").content(Some(system)).node());
    }
}
