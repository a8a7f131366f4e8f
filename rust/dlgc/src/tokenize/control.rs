//! Control tokens in content: text such as `<|im_end|>` in a message is data.
//!
//! Control tokens are the added tokens flagged special, and those that the template's scaffold uses for roles, turns
//! and tools. What happens to their text in content is decided per role.

use aho_corasick::{AhoCorasick, MatchKind};
use serde::{Deserialize, Serialize};
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper};

use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::{Dialogue, Message, Role};
use crate::error::{Error, ErrorKind, Result};
use crate::json::{Json, Node};
use crate::template::SUPPRESS;

/// What becomes of the text of a control token in a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnControlToken {
    /// The record is rejected.
    #[default]
    Reject,
    /// It is encoded as ordinary text.
    Text,
    /// It becomes the token, as in transformers.
    Allow,
}

/// The policy, per role; tools and documents count as the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ControlPolicy {
    by_role: [OnControlToken; Role::ALL.len()],
}

impl ControlPolicy {
    /// Reads `reject`, or a list such as `text,assistant=reject`.
    ///
    /// # Errors
    /// [`ErrorKind::Options`] naming what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |part: &str| {
            let message = format!("`{part}` is no policy for control tokens");
            Error::new(ErrorKind::Options, message)
                .hint("expected `reject`, `text` or `allow`, for one role as in `text,assistant=reject`")
        };
        let action = |name: &str| match name {
            "reject" => Some(OnControlToken::Reject),
            "text" => Some(OnControlToken::Text),
            "allow" => Some(OnControlToken::Allow),
            _ => None,
        };
        let mut policy = Self::default();
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                None => policy.by_role = [action(part).ok_or_else(|| bad(part))?; Role::ALL.len()],
                Some((role, name)) => {
                    let index = Role::ALL.iter().position(|known| known.name() == role).ok_or_else(|| bad(part))?;
                    policy.by_role[index] = action(name).ok_or_else(|| bad(part))?;
                }
            }
        }
        Ok(policy)
    }

    fn of(&self, role: Role) -> OnControlToken {
        let index = Role::ALL.iter().position(|known| *known == role).expect("all roles are listed");
        self.by_role[index]
    }
}

/// Finds the texts of control tokens.
#[derive(Default)]
pub(super) struct ControlTokens {
    finder: Option<AhoCorasick>,
    tokens: Vec<String>,
    policy: ControlPolicy,
    normalised: Option<Normalised>,
}

/// Finds texts that become control tokens when the tokenizer normalises them: `<|IM_END|>` where it lowercases.
struct Normalised {
    normalizer: NormalizerWrapper,
    finder: AhoCorasick,
    tokens: Vec<String>,
}

impl ControlTokens {
    pub(super) fn new(tokens: Vec<String>, policy: ControlPolicy) -> Self {
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&tokens).ok();
        Self { finder: finder.filter(|_| !tokens.is_empty()), tokens, policy, normalised: None }
    }

    /// Looks for `tokens`, which the tokenizer finds in normalised text, there too.
    pub(super) fn with_normaliser(mut self, normalizer: Option<&NormalizerWrapper>, tokens: Vec<String>) -> Self {
        let normalised: Vec<String> = tokens.iter().map(|token| normalise(normalizer, token)).collect();
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(normalised).ok();
        let normalizer = normalizer.filter(|_| !tokens.is_empty()).cloned();
        self.normalised = normalizer.zip(finder).map(|(normalizer, finder)| Normalised { normalizer, finder, tokens });
        self
    }

    pub(super) fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// Applies the policy to every text of a dialogue: finds are reported, and marked where they are to be text.
    pub(super) fn apply(&self, dialogue: &mut Dialogue<'_>, findings: &mut Vec<Diagnostic>) {
        let Some(finder) = &self.finder else { return };
        let normalised = self.normalised.as_ref();
        let action = OnControlToken::Reject;
        let mut pass = Pass { finder, tokens: &self.tokens, normalised, action, findings };
        pass.action = self.policy.of(Role::System);
        for node in [&mut dialogue.tools, &mut dialogue.documents, &mut dialogue.template_kwargs].into_iter().flatten()
        {
            pass.node(node);
        }
        for summary in &mut dialogue.summaries {
            pass.text(&mut summary.text, &summary.range);
        }
        for message in &mut dialogue.messages {
            pass.action = self.policy.of(message.role);
            pass.message(message);
        }
    }
}

struct Pass<'p> {
    finder: &'p AhoCorasick,
    tokens: &'p [String],
    normalised: Option<&'p Normalised>,
    action: OnControlToken,
    findings: &'p mut Vec<Diagnostic>,
}

impl Pass<'_> {
    fn message(&mut self, message: &mut Message<'_>) {
        let (range, content_range) = (message.range.clone(), message.content_range.clone());
        if let Some(text) = &mut message.content {
            self.text(text, &content_range);
        }
        for text in [&mut message.reasoning, &mut message.name, &mut message.tool_call_id].into_iter().flatten() {
            self.text(text, &range);
        }
        for call in &mut message.tool_calls {
            self.text(&mut call.name, &range);
            self.node(&mut call.arguments);
        }
        if let Some(state) = &mut message.state {
            self.node(state);
        }
    }

    fn node(&mut self, node: &mut Node<'_>) {
        let range = node.range.clone();
        match &mut node.value {
            Json::String(text) => self.text(text, &range),
            Json::Array(elements) => elements.iter_mut().for_each(|element| self.node(element)),
            Json::Object(members) => {
                for member in members {
                    self.text(&mut member.key, &range);
                    self.node(&mut member.node);
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &mut std::borrow::Cow<'_, str>, range: &std::ops::Range<usize>) {
        if let Some(token) = self.normalised.and_then(|normalised| normalised.hidden(text)) {
            let allow = self.action == OnControlToken::Allow;
            let code = if allow { Code::ControlTokenAllowed } else { Code::ControlToken };
            let message = format!("normalised by the tokenizer, the text holds `{token}`, which is a control token");
            self.findings.push(Diagnostic::new(code, message).at(range));
        }
        if !self.finder.is_match(&**text) {
            return;
        }
        let mut marked = String::with_capacity(text.len() + 16);
        let mut copied = 0;
        for found in self.finder.find_iter(&**text) {
            let token = &self.tokens[found.pattern().as_usize()];
            let (code, message) = match self.action {
                OnControlToken::Reject => {
                    (Code::ControlToken, format!("the text holds `{token}`, which is a control token"))
                }
                OnControlToken::Text => (Code::ControlTokenAsText, format!("`{token}` was encoded as ordinary text")),
                OnControlToken::Allow => (Code::ControlTokenAllowed, format!("`{token}` became the token itself")),
            };
            let mut diagnostic = Diagnostic::new(code, message).at(range);
            if self.action == OnControlToken::Reject {
                diagnostic = diagnostic.help("`--control-tokens text` encodes it as ordinary text");
            }
            self.findings.push(diagnostic);
            marked.push_str(&text[copied..found.start()]);
            marked.push(SUPPRESS);
            copied = found.start();
        }
        if self.action == OnControlToken::Text {
            marked.push_str(&text[copied..]);
            *text = marked.into();
        }
    }
}

impl Normalised {
    /// A control token that the text only holds when it is normalised.
    fn hidden(&self, text: &str) -> Option<&str> {
        let normalised = normalise(Some(&self.normalizer), text);
        let mut seen = vec![0_usize; self.tokens.len()];
        self.finder.find_iter(&normalised).for_each(|found| seen[found.pattern().as_usize()] += 1);
        let mut counted = self.tokens.iter().zip(seen);
        counted.find(|(token, seen)| *seen > text.matches(token.as_str()).count()).map(|(token, _)| token.as_str())
    }
}

fn normalise(normalizer: Option<&NormalizerWrapper>, text: &str) -> String {
    let mut normalised = NormalizedString::from(text);
    match normalizer.map(|normalizer| normalizer.normalize(&mut normalised)) {
        Some(Ok(())) => normalised.get().to_owned(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_and_refused() {
        let policy = ControlPolicy::parse("text,assistant=reject").expect("a policy");
        assert_eq!(policy.of(Role::User), OnControlToken::Text);
        assert_eq!(policy.of(Role::Assistant), OnControlToken::Reject);
        assert!(ControlPolicy::parse("nobody=text").is_err());
        assert!(ControlPolicy::parse("maybe").is_err());
    }
}
