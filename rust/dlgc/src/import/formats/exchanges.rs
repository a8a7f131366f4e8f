//! Dialogues whose list holds exchanges: what the user says and what the system says, in one object. Where the names do not
//! say who answers whom, the one that stands first speaks first, and this is said.

use super::super::draft::{Draft, Turn};
use super::super::names::{self, plain, take_id};
use super::super::{Context, Format, When};
use crate::diagnostic::{Code, Diagnostic};
use crate::json::{Fields, Json, Member, Node};

pub(super) const FORMAT: Format = Format { name: "exchanges", when: When::Is(|record| pair(record).is_some()), import };

/// Names of what is said by each, in pairs that go together, and whether they say who answers whom.
const PAIRS: [(&str, &str, bool); 20] = [
    ("human", "assistant", true),
    ("user", "assistant", true),
    ("human", "bot", true),
    ("user", "bot", true),
    ("human", "moss", true),
    ("question", "answer", true),
    ("query", "response", true),
    ("prompt", "response", true),
    ("instruction", "output", true),
    ("input", "output", true),
    ("q", "a", true),
    ("user", "system", false),
    ("usr", "sys", false),
    ("user", "sys", false),
    ("userutterance", "systemutterance", false),
    ("userutterance", "systemresponse", false),
    ("usermessage", "systemmessage", false),
    ("usertranscript", "systemtranscript", false),
    ("transcript", "systemtranscript", false),
    ("usr", "agent", false),
];

/// A list of exchanges, and what its elements call the two.
struct Pair<'n> {
    list: &'n str,
    asked: &'n str,
    answer: &'n str,
    /// Whether the system speaks before the user.
    is_turned: bool,
    /// Whether the names say who answers whom.
    is_sure: bool,
}

/// What is said, as text or in an object that holds it.
fn said<'n, 'a>(node: &'n Node<'a>) -> Option<&'n Node<'a>> {
    match node.value {
        Json::String(_) => Some(node),
        _ => node.get(names::text(node)?),
    }
}

/// What a half of an exchange says, and what else it holds.
fn parted(half: Node<'_>) -> (Option<Node<'_>>, Option<Node<'_>>) {
    let Some(key) = names::text(&half).map(str::to_owned) else { return (Some(half), None) };
    let mut fields = Fields::of(half);
    let text = fields.take(&key);
    (text, (!fields.members.is_empty()).then(|| fields.into_node()))
}

fn pair<'n>(record: &'n Node<'_>) -> Option<Pair<'n>> {
    names::lists(record).into_iter().find_map(|list| {
        let exchanges = record.get(list)?.as_array()?;
        // The first may have one half only.
        let of_both = |exchange: &'n Node<'_>| {
            let members = exchange.as_object()?;
            let at = |name: &str| {
                members.iter().position(|member| plain(&member.key) == name && said(&member.node).is_some())
            };
            PAIRS.into_iter().find_map(|(asked, answer, is_sure)| Some((at(asked)?, at(answer)?, is_sure, members)))
        };
        let (asked, answer, is_sure, members) = exchanges.iter().take(2).find_map(of_both)?;
        let (asked, answer, before) = (&*members[asked].key, &*members[answer].key, answer < asked);
        let first = exchanges.first()?;
        let silent = |key: &str| first.get(key).and_then(said).and_then(Node::as_str).is_none_or(str::is_empty);
        // Who is silent at first would have spoken first.
        let is_turned = !is_sure && if silent(answer) { true } else { before && !silent(asked) };
        Some(Pair { list, asked, answer, is_turned, is_sure })
    })
}

fn import<'a>(record: Node<'a>, context: &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic> {
    let Pair { list, asked, answer, is_turned, is_sure } = pair(&record).expect("recognised by it");
    let (list, asked, answer) = (list.to_owned(), asked.to_owned(), answer.to_owned());
    if !is_sure {
        let (first, second) = if is_turned { (&answer, &asked) } else { (&asked, &answer) };
        let message = format!("of each exchange in `{list}`, `{first}` is taken to be said before `{second}`");
        context.notes.push(
            Diagnostic::new(Code::RolesAssumed, message)
                .at(&(record.range.start..record.range.start + 1))
                .help("say so in `dlgc.toml`: `[formats.NAME]` with `messages` and `turns`, in the order of speaking"),
        );
    }
    let mut record = Fields::of(record);
    let (exchanges, id, tools) = (record.list(&list), take_id(&mut record), record.take("tools"));
    let mut system = record.take_any(&["system", "system_prompt", "system_message", "meta_instruction"]);
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    dialogue.set("tools", tools);
    for mut exchange in exchanges.into_iter().map(Fields::of) {
        system = exchange.take("system").filter(|_| asked != "system" && answer != "system").or(system);
        dialogue.says("system", system.take().filter(|rules| rules.as_str() != Some("")));
        // XTuner's way to leave an answer untrained.
        let train = exchange.take("output_with_loss").filter(|loss| loss.as_bool().is_some());
        let order = if is_turned { [&answer, &asked] } else { [&asked, &answer] };
        let mut turns = Vec::new();
        let mut about = Vec::new();
        for key in order {
            let Some(half) = exchange.take(key) else { continue };
            let range = half.range.clone();
            let (text, rest) = parted(half);
            about.extend(rest.map(|rest| Member { key: key.clone().into(), key_range: range.clone(), node: rest }));
            if is_turned && dialogue.messages.is_empty() && text.as_ref().and_then(Node::as_str) == Some("") {
                continue; // nobody spoke before the user
            }
            let role = if *key == asked { "user" } else { "assistant" };
            let turn = Turn::new(&range, role).content(text);
            turns.push(if role == "assistant" { turn.with("train", train.clone()) } else { turn });
        }
        // What else is known of an exchange stays with its last message.
        exchange.members.extend(about);
        let last = turns.pop().map(|turn| turn.annotations(exchange));
        turns.into_iter().chain(last).for_each(|turn| dialogue.say(turn));
    }
    Ok(vec![dialogue.node()])
}
