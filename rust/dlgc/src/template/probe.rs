//! Probing: small dialogues show at load what a template takes and where its turns end.
//!
//! What templates do with odd input differs widely: some want arguments as an object, some as a string; some refuse
//! null content, some print `None`; some take content as a list of parts only. Nothing here knows a template by name.

use super::Template;
use crate::dialogue::Role;
use crate::error::{Error, ErrorKind, Result};
use crate::json::{self, Node};

/// What a template takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// Content must be a list of parts; a string is refused or misprinted.
    pub takes_parts_only: bool,
    /// An assistant message without calls needs a content, be it empty.
    pub needs_content: bool,
    /// An assistant message with calls needs a content, be it empty.
    pub needs_content_beside_calls: bool,
    /// What an assistant message says beside calls is shown once, before them, whatever comes before or follows.
    pub shows_content_beside_calls: bool,
    /// Arguments of calls may be an object.
    pub takes_object_arguments: bool,
    /// Arguments of calls may be a string that holds JSON.
    pub takes_string_arguments: bool,
    /// Two user messages may follow each other.
    pub takes_repeated_user: bool,
    /// Two assistant messages may follow each other.
    pub takes_repeated_assistant: bool,
    /// Nothing is rendered without tools.
    pub needs_tools: bool,
}

impl Default for Abilities {
    fn default() -> Self {
        Self {
            takes_parts_only: false,
            needs_content: false,
            needs_content_beside_calls: false,
            shows_content_beside_calls: false,
            takes_object_arguments: true,
            takes_string_arguments: true,
            takes_repeated_user: true,
            takes_repeated_assistant: true,
            needs_tools: false,
        }
    }
}

impl Abilities {
    pub(super) fn takes_repeated(&self, role: Role) -> bool {
        match role {
            Role::User => self.takes_repeated_user,
            Role::Assistant => self.takes_repeated_assistant,
            _ => true,
        }
    }
}

/// Longest text that is taken for a stop, in bytes.
const LONGEST_STOP: usize = 64;

const ASK: &str = r#"{"role": "user", "content": "Qa1 question"}"#;
const ASK_PARTS: &str = r#"{"role": "user", "content": [{"type": "text", "text": "Qa1 question"}]}"#;
const ANSWER: &str = r#"{"role": "assistant", "content": "Ab2 answer"}"#;
const ANSWER_PARTS: &str = r#"{"role": "assistant", "content": [{"type": "text", "text": "Ab2 answer"}]}"#;
const TOOLS: &str = r#"[{"type": "function", "function": {"name": "find_it", "description": "Finds.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "Where."}},
    "required": ["city"]}}}]"#;

fn asking_call(content: &str, arguments: &str, calls: usize) -> String {
    let call = |index: usize| {
        format!(
            r#"{{"id": "call0000{index}", "type": "function", "function": {{"name": "find_it", "arguments": {arguments}}}}}"#
        )
    };
    let calls: Vec<String> = (0..calls).map(call).collect();
    format!(r#"{{"role": "assistant", {content} "tool_calls": [{}]}}"#, calls.join(", "))
}

const RESULT: &str = r#"{"role": "tool", "name": "find_it", "tool_call_id": "call00000", "content": "Rc3 result"}"#;

impl Template {
    /// Learns the abilities and the stops.
    pub(super) fn probe(&mut self) -> Result<()> {
        let plain = |template: &Self| template.show(&[ASK, ANSWER], None);
        self.abilities.needs_tools = plain(self).is_err() && self.show(&[ASK, ANSWER], Some(TOOLS)).is_ok();
        let plain = match plain(self) {
            Ok(text) if printed_plainly(&text) => text,
            first => match self.show(&[ASK_PARTS, ANSWER_PARTS], None) {
                Ok(text) if printed_plainly(&text) => {
                    self.abilities.takes_parts_only = true;
                    text
                }
                _ => {
                    let said = first.err().unwrap_or_else(|| "it does not print what they say".to_owned());
                    let message = format!("the chat template cannot render a user and an assistant message: {said}");
                    return Err(Error::new(ErrorKind::Template, message));
                }
            },
        };
        self.learn_stop(&plain, "Ab2 answer");
        let (ask, answer) = if self.abilities.takes_parts_only { (ASK_PARTS, ANSWER_PARTS) } else { (ASK, ANSWER) };
        self.abilities.takes_repeated_user = self.shows(&[ask, ask, answer], "Ab2 answer");
        self.abilities.takes_repeated_assistant = self.shows(&[ask, answer, answer], "Ab2 answer");
        let silent = self.show(&[ask, r#"{"role": "assistant"}"#], None);
        self.abilities.needs_content = silent.is_err() || silent.is_ok_and(|text| text.contains("None"));
        // A template that knows no calls is asked like for plain turns.
        self.abilities.needs_content_beside_calls = self.abilities.needs_content;
        self.probe_calls(ask, answer);
        Ok(())
    }

    /// Which of `candidates` the scaffold uses for roles, turns and tools. Marks that the template parses out of what
    /// the assistant says, such as those of reasoning, are not among them.
    pub fn scaffold(&self, candidates: &[String]) -> Vec<String> {
        let parts = self.abilities.takes_parts_only;
        let (ask, answer) = if parts { (ASK_PARTS, ANSWER_PARTS) } else { (ASK, ANSWER) };
        let content = if self.abilities.needs_content_beside_calls { r#""content": "","# } else { "" };
        let arguments =
            if self.abilities.takes_object_arguments { r#"{"city": "Xd4"}"# } else { r#""{\"city\": \"Xd4\"}""# };
        let call = asking_call(content, arguments, 1);
        let scenes: [(&[&str], Option<&str>); 3] = [
            (&[ask, answer], None),
            (&[ask, &call, RESULT, answer], Some(TOOLS)),
            (&[ask, answer, ask, answer], Some(TOOLS)),
        ];
        let scaffold: String = scenes.iter().filter_map(|(messages, tools)| self.show(messages, *tools).ok()).collect();
        let used: Vec<&String> = candidates.iter().filter(|token| scaffold.contains(token.as_str())).collect();
        let parsed = self.parsed_out(&used);
        let looked_for = |token: &str| {
            let closer = token.strip_prefix('<').map(|name| format!("</{}", name.trim_start_matches('/')));
            closer.is_some_and(|closer| self.program.looked_for.contains(&closer))
        };
        used.into_iter().filter(|token| !parsed.contains(token) && !looked_for(token)).cloned().collect()
    }

    /// Tokens that the template takes apart when they stand in what the assistant says, alone or as the opener of one.
    fn parsed_out<'t>(&self, tokens: &[&'t String]) -> Vec<&'t String> {
        let say = |content: &str| {
            let mut quoted = String::new();
            json::write_string(&mut quoted, content, false);
            let content = if self.abilities.takes_parts_only {
                format!(r#"[{{"type": "text", "text": {quoted}}}]"#)
            } else {
                quoted
            };
            let ask = if self.abilities.takes_parts_only { ASK_PARTS } else { ASK };
            self.show(&[ask, &format!(r#"{{"role": "assistant", "content": {content}}}"#)], None).unwrap_or_default()
        };
        let closers: Vec<&String> = tokens
            .iter()
            .copied()
            .filter(|token| !say(&format!("Ze5{token}Zf6")).contains(&format!("Ze5{token}Zf6")))
            .collect();
        let opens = |token: &str| {
            closers.iter().any(|closer| {
                let neutral = say(&format!("Ze5 neutral Zf6{closer}Zg7"));
                neutral.contains("Ze5") && !say(&format!("Ze5{token}Zf6{closer}Zg7")).contains("Ze5")
            })
        };
        tokens.iter().copied().filter(|token| closers.contains(token) || opens(token)).collect()
    }

    fn probe_calls(&mut self, ask: &str, answer: &str) {
        // A name that stands nowhere else: templates print the tools in many ways.
        let object = r#"{"zq5": "Xd4"}"#;
        let text = r#""{\"zq5\": \"Xd4\"}""#;
        let empty = if self.abilities.takes_parts_only {
            r#""content": [{"type": "text", "text": ""}],"#
        } else {
            r#""content": "","#
        };
        // Some templates cannot list tools, and yet know calls.
        let form = |arguments: &str, content: &str| -> Option<String> {
            let call = asking_call(content, arguments, 1);
            let shown =
                |tools| self.show(&[ask, &call, RESULT, answer], tools).ok().filter(|text| text.contains("Xd4"));
            shown(Some(TOOLS)).or_else(|| shown(None))
        };
        let absent_works = form(object, "").is_some_and(|shown| !shown.contains("None"))
            || form(text, "").is_some_and(|shown| !shown.contains("None"));
        let content = if absent_works { "" } else { empty };
        // An object printed raw is Python's repr; a string printed by `tojson` is encoded twice.
        let takes_object = form(object, content).is_some_and(|shown| !shown.contains("'zq5'"));
        let takes_string = form(text, content).is_some_and(|shown| !shown.contains(r#"\"zq5\""#));
        if !takes_object && !takes_string {
            return; // the template knows no calls; records with calls are found out one by one
        }
        self.abilities.needs_content_beside_calls = !absent_works;
        self.abilities.takes_object_arguments = takes_object;
        self.abilities.takes_string_arguments = takes_string;
        let arguments = if takes_object { object } else { text };
        self.abilities.shows_content_beside_calls = self.shows_content_beside_calls(ask, answer, arguments);
        let calling = |count: usize| {
            let call = asking_call(content, arguments, count);
            self.show(&[ask, &call], Some(TOOLS)).or_else(|_| self.show(&[ask, &call], None)).ok()
        };
        if let Some(one) = calling(1) {
            let two = calling(2);
            self.learn_stop_of_calls(&one, two.as_deref());
        }
    }

    /// Whether messages with calls show their content once, the first one before its call: the newest and earlier ones, and
    /// those after results. Some templates show only the first one's.
    fn shows_content_beside_calls(&self, ask: &str, answer: &str, arguments: &str) -> bool {
        const SAID: [&str; 3] = ["Ef6 first", "Ef7 second", "Ef8 third"];
        let calls = SAID.map(|said| {
            let content = if self.abilities.takes_parts_only {
                format!(r#""content": [{{"type": "text", "text": "{said}"}}],"#)
            } else {
                format!(r#""content": "{said}","#)
            };
            asking_call(&content, arguments, 1)
        });
        let [first, second, third] = calls.each_ref().map(String::as_str);
        let scene = [ask, first, RESULT, second, RESULT, answer, ask, third, RESULT, answer];
        let is_shown = |length: usize| {
            let scene = &scene[..length];
            let said = SAID.iter().zip([first, second, third]).filter(|(_, call)| scene.contains(call));
            let shown = self.show(scene, Some(TOOLS)).or_else(|_| self.show(scene, None));
            shown.is_ok_and(|text| {
                let is_before = text.find("Xd4").is_some_and(|call| text.find(SAID[0]).is_some_and(|said| said < call));
                is_before && said.into_iter().all(|(said, _)| text.matches(said).count() == 1)
            })
        };
        [2, 4, 6, 8, 10].into_iter().all(is_shown)
    }

    /// The stop of plain turns: one that the model declares, else the first tag after the content.
    fn learn_stop(&mut self, text: &str, content: &str) {
        let Some(at) = text.rfind(content) else { return };
        let after = &text[at + content.len()..];
        let declared =
            self.declared_stops.iter().filter_map(|stop| after.find(stop.as_str()).map(|at| at + stop.len()));
        if let Some(end) = declared.min() {
            self.after_stop = after[end..].to_owned();
            return;
        }
        let open = after.find('<');
        let close = open.and_then(|open| after[open..].find('>').map(|close| open + close + 1));
        let (Some(open), Some(close)) = (open, close) else {
            // A stop need not look like a tag: `[|endofturn|]`.
            let stop = after.trim().lines().next().unwrap_or_default().trim_end().to_owned();
            let at = after.find(&stop).filter(|_| !stop.is_empty() && stop.len() <= LONGEST_STOP);
            self.prints_stop = at.is_some();
            self.after_stop = after[at.map_or(0, |at| at + stop.len())..].to_owned();
            if self.prints_stop {
                self.add_stop(&stop);
            }
            return;
        };
        self.after_stop = after[close..].to_owned();
        let stop = after[open..close].to_owned();
        self.add_stop(&stop);
    }

    /// The stop of calling turns, where it is another: it must end the turn, and stand there once however many
    /// calls there are.
    fn learn_stop_of_calls(&mut self, one: &str, two: Option<&str>) {
        let one = one.trim_end();
        if self.stops.iter().any(|stop| one.ends_with(stop.as_str())) {
            return;
        }
        let Some(start) = one.rfind('<').filter(|_| one.ends_with('>')) else {
            return;
        };
        let stop = &one[start..];
        let after_call = |text: &str| text.rfind("Xd4").map_or(0, |_| text.matches(stop).count());
        let per_call = two.is_some_and(|two| after_call(two) > after_call(one));
        if !per_call && !stop.starts_with("</") {
            let stop = stop.to_owned();
            self.add_stop(&stop);
        }
    }

    fn add_stop(&mut self, stop: &str) {
        if !stop.is_empty() && stop.len() <= LONGEST_STOP && !self.stops.iter().any(|known| known == stop) {
            self.stops.push(stop.to_owned());
        }
    }

    fn shows(&self, messages: &[&str], needle: &str) -> bool {
        self.show(messages, None).is_ok_and(|text| text.contains(needle))
    }

    fn show(&self, messages: &[&str], tools: Option<&str>) -> std::result::Result<String, String> {
        let node = |source: &str| json::parse(source.as_bytes()).expect("probes are JSON").root.into_owned_at(&(0..0));
        let nodes: Vec<Node<'_>> = messages.iter().map(|message| node(message)).collect();
        let shown: Vec<&Node<'_>> = nodes.iter().collect();
        let around = [tools.or(self.abilities.needs_tools.then_some(TOOLS)).map(node), None, None];
        let rendered = self.run(self.stage(&shown, &around), shown.len(), false);
        rendered.map(|unmarked| unmarked.text).map_err(|diagnostic| diagnostic.message)
    }
}

/// Both sides are printed, and neither as the repr of a list.
fn printed_plainly(text: &str) -> bool {
    text.contains("Qa1 question") && text.contains("Ab2 answer") && !text.contains("'text'")
}

#[cfg(test)]
mod tests {
    use super::super::recipe::tests::load;

    #[test]
    fn what_is_said_beside_calls_must_be_shown_before_each() {
        let shown = |said: &str, after: &str| {
            let source = format!(
                "{{% set ns = namespace(called=false) %}}{{% for m in messages %}}<|{{{{ m.role }}}}|>\
                {{% if m.tool_calls %}}{said}{{% for call in m.tool_calls %}}{{{{ call.function | tojson }}}}{{% endfor %}}\
                {after}{{% set ns.called = true %}}{{% else %}}{{{{ m.content }}}}{{% endif %}}<|end|>{{% endfor %}}"
            );
            load(&source).expect("a template").abilities().shows_content_beside_calls
        };
        assert!(shown("{{ m.content }}", ""));
        assert!(!shown("", ""));
        assert!(!shown("", "{{ m.content }}"));
        assert!(!shown("{{ m.content }}", "{{ m.content }}"));
        assert!(!shown("{% if not ns.called %}{{ m.content }}{% endif %}", ""));
        assert!(!shown("{% if loop.last %}{{ m.content }}{% endif %}", ""));
    }
}
