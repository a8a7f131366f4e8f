//! A dialogue in one string that a template has rendered: ChatML, Llama 2 (and Mistral), Llama 3, Alpaca, Guanaco without
//! line breaks, RefGPT.
//!
//! The string must be of the template from its first letter to its last; then its turns are what stands between the marks,
//! without the blanks that the template adds. A prompt for an answer that is not there adds no turn.

use super::super::draft::{Draft, Turn};
use super::super::names::{self, take_id};
use super::super::{Format, When};
use crate::diagnostic::Diagnostic;
use crate::json::{Fields, Node};

pub(super) const CHATML: Format =
    Format { name: "chatml-text", when: When::Is(|r| is(r, chatml)), import: |r, _| import(r, chatml) };
pub(super) const LLAMA3: Format =
    Format { name: "llama3-text", when: When::Is(|r| is(r, llama3)), import: |r, _| import(r, llama3) };
pub(super) const LLAMA2: Format =
    Format { name: "llama2-text", when: When::Is(|r| is(r, llama2)), import: |r, _| import(r, llama2) };
pub(super) const ALPACA: Format =
    Format { name: "alpaca-text", when: When::Is(|r| is(r, alpaca)), import: |r, _| import(r, alpaca) };
pub(super) const GUANACO: Format =
    Format { name: "guanaco-text", when: When::Is(|r| is(r, guanaco)), import: |r, _| import(r, guanaco) };
pub(super) const REFGPT: Format =
    Format { name: "refgpt", when: When::Is(|r| is(r, refgpt)), import: |r, _| import(r, refgpt) };

/// Roles and what they say; `None` where a text is not of the template.
type Turns<'t> = Option<Vec<(&'t str, String)>>;
type Template = for<'t> fn(&'t str) -> Turns<'t>;

/// Fields that hold such text.
const FIELDS: [&str; 8] = ["text", "prompt", "conversation", "dialogue", "chat", "content", "messages", "formatted"];
/// What completes a text that is only a prompt, and columns that say the same as the text.
const ANSWERS: [&str; 8] = ["output", "completion", "response", "answer", "answers", "target", "chosen", "rejected"];

/// The field that holds the text: one of those, or the only text of the record.
fn field<'n>(record: &'n Node<'_>, template: Template) -> Option<&'n str> {
    let members = record.as_object()?;
    let mut texts = members.iter().filter(|member| member.node.as_str().is_some());
    let only = texts.next().filter(|_| texts.next().is_none()).map(|member| &*member.key);
    let turns = |key: &str| template(record.get(key)?.as_str()?.trim_start());
    let holds = |key: &&str| turns(key).is_some_and(|turns| !turns.is_empty());
    let found = FIELDS.into_iter().find(holds).or(only.filter(holds))?;
    let is_list = |key: &&str| record.get(key).is_some_and(|list| list.as_array().is_some());
    let has_other =
        names::lists(record).iter().any(is_list) || ANSWERS.iter().any(|key| record.get_some(key).is_some());
    (!has_other).then_some(found)
}

fn is(record: &Node<'_>, template: Template) -> bool {
    field(record, template).is_some()
}

fn import<'a>(record: Node<'a>, template: Template) -> Result<Vec<Node<'a>>, Diagnostic> {
    let key = field(&record, template).map(str::to_owned);
    let mut record = Fields::of(record);
    let text = key.and_then(|key| record.take(&key));
    let id = take_id(&mut record);
    let mut dialogue = Draft::of(record);
    dialogue.set("id", id);
    if let Some(text) = text {
        for (role, said) in template(text.as_str().unwrap_or_default().trim_start()).unwrap_or_default() {
            dialogue.say(Turn::new(&text.range, role.to_owned()).says(said));
        }
    }
    Ok(vec![dialogue.node()])
}

/// What a tokenizer is told where a text begins and ends.
fn without_ends(mut text: &str) -> &str {
    const ENDS: [&str; 6] = ["<s>", "</s>", "<|begin_of_text|>", "<|end_of_text|>", "<|endoftext|>", "<bos>"];
    for end in ENDS {
        text = text.strip_prefix(end).unwrap_or(text).trim();
        text = text.strip_suffix(end).unwrap_or(text).trim_end();
    }
    text
}

/// Turns with a header and an end; only the last may lack its end, where it is cut short or yet to be said.
fn headed<'t>(text: &'t str, open: &str, close: &str, gap: &str, ends: &[&str]) -> Turns<'t> {
    let mut rest = without_ends(text);
    let mut turns = Vec::new();
    while !rest.is_empty() {
        let header = rest.strip_prefix(open)?;
        let Some((role, after)) = header.split_once(close) else {
            return (!header.contains(char::is_whitespace) && !turns.is_empty()).then_some(turns);
        };
        let role = if role == "ipython" { "tool" } else { role };
        if role.is_empty() || role.contains(char::is_whitespace) {
            return None;
        }
        let after = after.strip_prefix(gap).unwrap_or(after);
        let end = ends.iter().filter_map(|end| Some((after.find(end)?, end.len()))).min();
        match end {
            Some((at, length)) => {
                turns.push((role, after[..at].to_owned()));
                rest = after[at + length..].trim_start();
            }
            None => {
                turns.extend((!after.trim().is_empty()).then(|| (role, after.to_owned())));
                break;
            }
        }
    }
    Some(turns)
}

fn chatml(text: &str) -> Turns<'_> {
    headed(text, "<|im_start|>", "\n", "", &["<|im_end|>"])
}

fn llama3(text: &str) -> Turns<'_> {
    headed(text, "<|start_header_id|>", "<|end_header_id|>", "\n\n", &["<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"])
}

fn llama2(text: &str) -> Turns<'_> {
    let mut rest = text.strip_prefix("<s>").unwrap_or(text).trim_start();
    let mut turns = Vec::new();
    while !rest.is_empty() {
        let (asked, after) = rest.strip_prefix("[INST]")?.split_once("[/INST]")?;
        let mut asked = asked.trim();
        if let Some((system, first)) = asked.strip_prefix("<<SYS>>").and_then(|rest| rest.split_once("<</SYS>>")) {
            turns.push(("system", system.trim().to_owned()));
            asked = first.trim();
        }
        turns.push(("user", asked.to_owned()));
        let end = ["</s>", "<s>", "[INST]"].iter().filter_map(|end| after.find(end)).min().unwrap_or(after.len());
        let answer = after[..end].trim();
        rest = after[end..].trim_start();
        for mark in ["</s>", "<s>"] {
            rest = rest.strip_prefix(mark).unwrap_or(rest).trim_start();
        }
        if !(rest.is_empty() && answer.is_empty()) {
            turns.push(("assistant", answer.to_owned()));
        }
    }
    turns.retain(|(role, said)| *role != "system" || !said.is_empty());
    Some(turns)
}

/// What stands before the first mark, and behind each.
fn marked<'t>(text: &'t str, marks: &[&'static str], at_lines: bool) -> (&'t str, Vec<(&'static str, &'t str)>) {
    let mut starts: Vec<(usize, &'static str)> = Vec::new();
    for mark in marks {
        starts.extend(text.match_indices(mark).map(|(at, _)| (at, *mark)));
    }
    starts.retain(|(at, _)| !at_lines || *at == 0 || text[..*at].ends_with('\n'));
    starts.sort_unstable();
    let ends = starts.iter().skip(1).map(|(at, _)| *at).chain([text.len()]);
    let bare = |said: &'t str| said.strip_prefix(' ').unwrap_or(said).trim_start_matches(['\r', '\n']).trim_end();
    let said = starts.iter().zip(ends).map(|((at, mark), end)| (*mark, bare(&text[at + mark.len()..end]))).collect();
    (text[..starts.first().map_or(text.len(), |(at, _)| *at)].trim(), said)
}

fn alpaca(text: &str) -> Turns<'_> {
    let text = without_ends(text);
    let text = text.strip_suffix("### End").unwrap_or(text);
    let (preamble, sections) = marked(text, &["### Instruction:", "### Input:", "### Response:"], true);
    if sections.first()?.0 != "### Instruction:" || sections.iter().all(|(mark, _)| *mark != "### Response:") {
        return None;
    }
    let mut turns: Vec<(&str, String)> = Vec::new();
    turns.extend((!preamble.is_empty()).then(|| ("system", preamble.to_owned())));
    let last = sections.len() - 1;
    for (at, (mark, said)) in sections.into_iter().enumerate() {
        match (mark, turns.last_mut()) {
            ("### Response:", _) if at == last && said.is_empty() => {}
            ("### Response:", _) => turns.push(("assistant", said.to_owned())),
            ("### Input:", Some(("user", asked))) if !said.is_empty() => *asked = format!("{asked}\n{said}"),
            ("### Input:", _) if said.is_empty() => {}
            _ => turns.push(("user", said.to_owned())),
        }
    }
    Some(turns)
}

fn guanaco(text: &str) -> Turns<'_> {
    let marks = ["### Human:", "### Assistant:", "### System:"];
    // With line breaks it is a transcript, in which a name inside a line is text.
    let answer = text.find(marks[1])?;
    if text[..answer].ends_with('\n') {
        return None;
    }
    let roles = [(marks[0], "user"), (marks[1], "assistant"), (marks[2], "system")];
    by_marks(without_ends(text), &roles)
}

fn refgpt(text: &str) -> Turns<'_> {
    if !text.contains("<assistant>") {
        return None;
    }
    let turns = by_marks(text, &[("<user>", "user"), ("<assistant>", "assistant")])?;
    let bare =
        |said: String| said.strip_suffix("<chat>").map_or_else(|| said.clone(), |said| said.trim_end().to_owned());
    Some(turns.into_iter().map(|(role, said)| (role, bare(said))).collect())
}

/// Turns behind marks with which the text begins.
fn by_marks<'t>(text: &'t str, roles: &[(&'static str, &'static str)]) -> Turns<'t> {
    let marks: Vec<&'static str> = roles.iter().map(|(mark, _)| *mark).collect();
    let (before, said) = marked(text, &marks, false);
    if !before.is_empty() || said.is_empty() {
        return None;
    }
    let last = said.len() - 1;
    let role = |mark: &str| roles.iter().find(|(known, _)| *known == mark).map_or("", |(_, role)| *role);
    let turn = |(at, (mark, said)): (usize, (&'static str, &str))| {
        let is_open = at == last && said.is_empty() && role(mark) == "assistant";
        (!is_open).then(|| (role(mark), said.to_owned()))
    };
    Some(said.into_iter().enumerate().filter_map(turn).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(turns: Turns<'_>) -> String {
        let turn = |(role, said): (&str, String)| format!("{role}: {said:?}");
        turns.map_or_else(|| "-".to_owned(), |turns| turns.into_iter().map(turn).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn turns_stand_between_the_marks() {
        assert_eq!(said(chatml("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant")), r#"user: "a""#);
        let open = "<|im_start|>user\n a\n<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(said(chatml(open)), r#"user: " a\n""#);
        assert_eq!(said(chatml(&format!("{open}b"))), r#"user: " a\n" assistant: "b""#);
        assert_eq!(said(chatml("<|im_start|>user\na<|im_end|>b")), "-");
        assert_eq!(said(chatml("<|im_start|>")), "-");
        assert_eq!(said(llama2("[INST] a [/INST] b </s><s>[INST] c [/INST]")), r#"user: "a" assistant: "b" user: "c""#);
        assert_eq!(said(llama2("[INST] a [/INST] b </s> c")), "-");
        assert_eq!(said(guanaco("### Human: a\n### Assistant: b")), "-");
        assert_eq!(said(guanaco("### Human: a### Assistant: b### Human:c")), r#"user: "a" assistant: "b" user: "c""#);
        assert_eq!(said(alpaca("### Response:\nb\n### Instruction:\na")), "-");
        assert_eq!(said(refgpt("<user>你好，<chat>\n<assistant>你好<chat>\n")), r#"user: "你好，" assistant: "你好""#);
    }
}
