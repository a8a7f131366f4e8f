//! Messages that say whether they are trained as `loss`, in lists of ms-swift, AgentInstruct and others: `false` becomes
//! `train: false`, and what says no more than usual goes.

use super::super::{Context, Format, When};
use super::{messages, sharegpt, system};
use crate::diagnostic::Diagnostic;
use crate::json::{Json, Member, Node};

pub(super) const FORMAT: Format = Format { name: "message-loss", when: When::Is(recognises), import };

fn recognises(record: &Node<'_>) -> bool {
    let list = match sharegpt::recognises(record) {
        true => record.get("conversations").and_then(Node::as_array),
        false => messages::list(record),
    };
    list.is_some_and(|list| list.iter().any(|message| says(message).is_some()))
}

/// Whether a message is trained, where it says so.
fn says(message: &Node<'_>) -> Option<bool> {
    match &message.get("loss")?.value {
        Json::Bool(trained) => Some(*trained),
        Json::Number(weight) => match weight.parse::<f64>() {
            Ok(0.0) => Some(false),
            Ok(1.0) => Some(true),
            _ => None,
        },
        _ => None,
    }
}

/// Brings `loss` into the native `train`.
pub(super) fn trained(message: &mut Node<'_>) {
    let trained = says(message);
    let Json::Object(members) = &mut message.value else { return };
    let Some(at) = members.iter().position(|member| member.key == "loss") else { return };
    if members[at].node.is_null() || trained == Some(true) {
        members.remove(at);
    } else if trained == Some(false) && !members.iter().any(|member| member.key == "train") {
        let Member { key_range, node, .. } = members.remove(at);
        members.push(Member { key: "train".into(), key_range, node: Node::new(node.range, Json::Bool(false)) });
    }
}

fn import<'a>(mut record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let is_sharegpt = sharegpt::recognises(&record);
    if let Json::Object(members) = &mut record.value {
        for member in members {
            if let (true, Json::Array(list)) = (messages::LISTS.contains(&&*member.key), &mut member.node.value) {
                list.iter_mut().for_each(trained);
            }
        }
    }
    if is_sharegpt {
        return sharegpt::import(record, context);
    }
    system::put_first(&mut record);
    messages::legacy(record, context)
}
