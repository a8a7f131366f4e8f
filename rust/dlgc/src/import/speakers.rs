//! Who is the assistant, where a set names speakers and not roles.

use std::borrow::Cow;

use crate::diagnostic::{Code, Diagnostic};
use crate::json::Node;

/// Which speaker is trained, where a set does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Assistant {
    /// The second one who speaks.
    #[default]
    Second,
    /// The one of this name.
    Named(String),
    /// Each of the two, in a dialogue of its own.
    Both,
}

impl Assistant {
    pub(super) fn parse(text: Option<&str>) -> Self {
        match text {
            None => Self::Second,
            Some("both") => Self::Both,
            Some(name) => Self::Named(name.to_owned()),
        }
    }
}

/// Names that say who is who, in small letters.
const USERS: [&str; 18] = [
    "user",
    "human",
    "prompter",
    "usr",
    "customer",
    "client",
    "caller",
    "用户",
    "客户",
    "顾客",
    "ユーザー",
    "사용자",
    "usuario",
    "utilisateur",
    "nutzer",
    "kunde",
    "пользователь",
    "المستخدم",
];
const ASSISTANTS: [&str; 20] = [
    "assistant",
    "gpt",
    "chatgpt",
    "bot",
    "chatbot",
    "ai",
    "model",
    "sys",
    "agent",
    "wizard",
    "助手",
    "机器人",
    "客服",
    "系统",
    "アシスタント",
    "어시스턴트",
    "asistente",
    "assistent",
    "ассистент",
    "المساعد",
];
/// Says the rules in chats, and answers in task-oriented sets.
const SYSTEM: &str = "system";

/// The role of each message: one list, or two where both speakers are to be the assistant.
///
/// # Errors
/// [`Code::TooManySpeakers`] where there are more than two.
pub(super) fn roles(
    names: &[Cow<'_, str>],
    assistant: &Assistant,
    at: &Node<'_>,
) -> Result<Vec<Vec<&'static str>>, Diagnostic> {
    let mut speakers: Vec<&str> = Vec::new();
    for name in names {
        if !speakers.contains(&&**name) {
            speakers.push(name);
        }
    }
    if let Assistant::Named(name) = assistant
        && speakers.contains(&&**name)
        && speakers.len() <= 2
    {
        return Ok(vec![names.iter().map(|found| if found == name { "assistant" } else { "user" }).collect()]);
    }
    if let Some(roles) = known(&speakers) {
        let role =
            |name: &Cow<'_, str>| roles[speakers.iter().position(|known| *known == &**name).expect("listed above")];
        return Ok(vec![names.iter().map(role).collect()]);
    }
    if speakers.len() > 2 {
        let listed: Vec<String> = speakers.iter().take(5).map(|name| format!("`{name}`")).collect();
        let message = format!("{} speakers, where a dialogue has two", speakers.len());
        return Err(Diagnostic::new(Code::TooManySpeakers, message)
            .at(&at.range)
            .label(format!("{}{}", listed.join(", "), if speakers.len() > 5 { ", …" } else { "" }))
            .help("map them to roles in `dlgc.toml`: `[formats.NAME]` with `roles = { … }`"));
    }
    let by = |assistant: usize| -> Vec<&'static str> {
        let role = |name: &Cow<'_, str>| if speakers.get(assistant) == Some(&&**name) { "assistant" } else { "user" };
        names.iter().map(role).collect()
    };
    Ok(if *assistant == Assistant::Both && speakers.len() == 2 { vec![by(1), by(0)] } else { vec![by(1)] })
}

/// Roles of speakers whose names say them; `None` if one of them is not known.
fn known(speakers: &[&str]) -> Option<Vec<&'static str>> {
    let lower: Vec<String> = speakers.iter().map(|name| name.to_lowercase()).collect();
    // Where nobody else answers, "system" is who answers, and no rules.
    let system = if lower.iter().any(|name| ASSISTANTS.contains(&&**name)) { SYSTEM } else { "assistant" };
    let role = |name: &String| match &**name {
        name if USERS.contains(&name) => Some("user"),
        name if ASSISTANTS.contains(&name) => Some("assistant"),
        SYSTEM => Some(system),
        "developer" => Some("developer"),
        "tool" | "function" | "observation" => Some("tool"),
        _ => None,
    };
    lower.iter().map(role).collect()
}
