//! OpenAssistant: trees of replies, nested or as messages that name their parent. Each path to an answer that nothing
//! else answers is a dialogue; what paths share is trained in the first of them. Ranks of siblings are preferences.

use std::collections::BTreeMap;

use super::super::draft::{Draft, Turn, named};
use super::super::{Context, Format, Wanted, When};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::{Fields, Json, Node, string};

/// One tree a record.
pub(super) const NESTED: Format =
    Format { name: "oasst-tree", when: When::Has(&["prompt.text", "prompt.role", "prompt.replies"]), import: nested };
/// A file of messages, in any order.
pub(super) const FLAT: Format = Format { name: "oasst-messages", when: When::Is(is_flat), import: flat };

/// A message and the replies to it.
struct Reply<'a> {
    fields: Fields<'a>,
    id: String,
    is_assistant: bool,
    replies: Vec<Reply<'a>>,
}

fn nested<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    let root = record.take("prompt").map(reply);
    let id = record.text("message_tree_id").map(std::borrow::Cow::into_owned);
    let group = id.or_else(|| root.as_ref().map(|root| root.id.clone())).unwrap_or_default();
    let dialogues = root.map_or_else(Vec::new, |root| Walk::over(&record, &group, &root, context));
    answered(dialogues, &record, context)
}

fn is_flat(record: &Node<'_>) -> bool {
    let first = record.get("pieces").and_then(Node::as_array).and_then(<[_]>::first);
    first.is_some_and(|first| PARENTS.iter().any(|key| first.get(key).is_some()) && first.get("text").is_some())
}

/// Replies by the message that they answer.
type Children<'a> = BTreeMap<Option<String>, Vec<Reply<'a>>>;

/// Longest path of a tree of messages that name their parent; nested ones are bounded by the nesting of JSON.
const DEEPEST: usize = 500;
const PARENTS: [&str; 2] = ["parent_message_id", "parent_id"];
const IDS: [&str; 2] = ["user_message_id", "message_id"];

fn flat<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let mut record = Fields::of(record);
    // Children are gathered under their parent's id; what nobody claims is an orphan, and a loop has no root.
    let mut children = Children::new();
    let mut count = 0;
    for mut piece in record.list("pieces").into_iter().map(Fields::of) {
        let parent = piece.take_any(&PARENTS).and_then(|parent| parent.as_str().map(str::to_owned));
        let message = reply(piece.into_node());
        children.entry(parent).or_default().push(message);
        count += 1;
    }
    let roots = children.remove(&None).unwrap_or_default();
    let mut dialogues = Vec::new();
    let mut placed = 0;
    for mut root in roots {
        placed += gather(&mut root, &mut children, DEEPEST);
        let group = root.id.clone();
        dialogues.extend(Walk::over(&record, &group, &root, context));
    }
    if placed < count {
        let message = format!("{} message(s) answer none that leads to a root of the file", count - placed);
        context.notes.push(Diagnostic::new(Code::OrphanReply, message).at(&record.range));
    }
    answered(dialogues, &record, context)
}

/// A tree without an answer is no dialogue; one without ranks has no preferences, and that is nothing wrong.
fn answered<'a>(
    dialogues: Vec<Node<'a>>,
    record: &Fields<'a>,
    context: &Context<'_>,
) -> Result<Vec<Node<'a>>, Diagnostic> {
    if dialogues.is_empty() && context.wanted == Wanted::Dialogues {
        return Err(Diagnostic::new(Code::NoAssistant, "the tree has no answer").at(&record.range));
    }
    Ok(dialogues)
}

fn gather<'a>(root: &mut Reply<'a>, children: &mut Children<'a>, depth: usize) -> usize {
    if depth > 0 {
        root.replies = children.remove(&Some(root.id.clone())).unwrap_or_default();
    }
    1 + root.replies.iter_mut().map(|reply| gather(reply, children, depth - 1)).sum::<usize>()
}

fn reply(node: Node<'_>) -> Reply<'_> {
    let mut fields = Fields::of(node);
    let replies = fields.list("replies").into_iter().map(reply).collect();
    let id = fields.take_any(&IDS).and_then(|id| id.as_str().map(str::to_owned)).unwrap_or_default();
    let is_assistant = fields.get("role").and_then(Node::as_str) == Some("assistant");
    Reply { fields, id, is_assistant, replies }
}

/// A walk over a tree: the messages down to here, and what came of it.
struct Walk<'t, 'a> {
    record: &'t Fields<'a>,
    group: &'t str,
    path: Vec<&'t Reply<'a>>,
    /// How many messages of the path have been trained in an earlier dialogue.
    trained: usize,
    dialogues: Vec<Node<'a>>,
    unanswered: usize,
}

impl<'t, 'a> Walk<'t, 'a> {
    fn over(record: &Fields<'a>, group: &str, root: &Reply<'a>, context: &mut Context<'_>) -> Vec<Node<'a>> {
        let mut walk = Walk { record, group, path: Vec::new(), trained: 0, dialogues: Vec::new(), unanswered: 0 };
        match context.wanted {
            Wanted::Dialogues => walk.dialogues(root),
            Wanted::Pairs => walk.pairs(root),
        }
        if walk.unanswered > 0 && context.wanted == Wanted::Dialogues {
            let message = format!("{} message(s) that nobody answers were cut", walk.unanswered);
            context.notes.push(Diagnostic::new(Code::TrailingContext, message).at(&record.range));
        }
        walk.dialogues
    }

    /// A dialogue for each assistant message below which there is no other.
    fn dialogues(&mut self, reply: &'t Reply<'a>) {
        self.path.push(reply);
        let before = self.dialogues.len();
        for next in &reply.replies {
            self.dialogues(next);
        }
        if self.dialogues.len() == before {
            if reply.is_assistant {
                let mut draft = self.draft(&reply.id);
                let trained = self.trained;
                for (place, said) in self.path.iter().enumerate() {
                    let turn = message(said);
                    let again = place < trained && said.is_assistant;
                    let no = Node::new(said.fields.range.clone(), Json::Bool(false));
                    draft.say(turn.with("train", again.then_some(no)));
                }
                self.dialogues.push(draft.node());
                self.trained = self.path.len();
            } else {
                self.unanswered += 1;
            }
        }
        self.path.pop();
        self.trained = self.trained.min(self.path.len());
    }

    /// A pair for each answer that is ranked below the best one of its siblings.
    fn pairs(&mut self, reply: &'t Reply<'a>) {
        self.path.push(reply);
        let rank = |reply: &Reply<'a>| match reply.fields.get("rank").map(|rank| &rank.value) {
            Some(Json::Number(rank)) => rank.parse::<f64>().ok(),
            _ => None,
        };
        let mut ranked: Vec<_> = reply
            .replies
            .iter()
            .filter(|next| next.is_assistant)
            .filter_map(|next| Some((rank(next)?, next)))
            .collect();
        ranked.sort_by(|left, right| left.0.total_cmp(&right.0));
        if let Some(((best, chosen), rest)) = ranked.split_first() {
            for (_, rejected) in rest.iter().filter(|(rank, _)| rank > best) {
                let mut draft = self.draft(&format!("{}>{}", chosen.id, rejected.id));
                self.path.iter().for_each(|said| draft.say(message(said)));
                for (field, answer) in [("chosen", *chosen), ("rejected", *rejected)] {
                    let place = answer.fields.range.clone();
                    draft.set(field, Some(Node::new(place, Json::Array(vec![message(answer).node()]))));
                }
                self.dialogues.push(draft.node());
            }
        }
        reply.replies.iter().for_each(|next| self.pairs(next));
        self.path.pop();
    }

    fn draft(&self, id: &str) -> Draft<'a> {
        let mut draft = Draft::of(self.record.clone());
        let place = self.record.range.clone();
        draft.set_text("id", id.to_owned());
        draft.set_text("group", self.group.to_owned());
        let mut said = vec![("tree".to_owned(), string(&place, self.group.to_owned()))];
        let language = self.path.first().and_then(|root| root.fields.get("lang")).cloned();
        said.extend(language.map(|language| ("language".to_owned(), language)));
        for name in ["deleted", "synthetic"]
            .into_iter()
            .filter(|name| self.path.iter().any(|said| said.fields.get(name).is_some()))
        {
            let holds = self.path.iter().any(|said| said.fields.get(name).and_then(Node::as_bool) == Some(true));
            said.push((name.to_owned(), Node::new(place.clone(), Json::Bool(holds))));
        }
        draft.set("metadata", Some(named(&place, said)));
        draft
    }
}

fn message<'a>(reply: &Reply<'a>) -> Turn<'a> {
    let mut fields = reply.fields.clone();
    let role = match fields.text("role").as_deref() {
        Some("prompter") => "user".to_owned(),
        other => other.unwrap_or_default().to_owned(),
    };
    let turn = Turn::new(&fields.range.clone(), role).content(fields.take("text"));
    turn.annotations(fields)
}
