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

/// Names that say who is who, in small letters and without a number.
const USERS: [&str; 41] = [
    "u",
    "user",
    "human",
    "prompter",
    "usr",
    "me",
    "customer",
    "client",
    "caller",
    "guest",
    "visitor",
    "buyer",
    "passenger",
    "driver",
    "patient",
    "student",
    "learner",
    "seeker",
    "help-seeker",
    "apprentice",
    "speaker",
    "用户",
    "客户",
    "顾客",
    "买家",
    "患者",
    "学生",
    "来访者",
    "求助者",
    "ユーザー",
    "ユーザ",
    "お客様",
    "顧客",
    "사용자",
    "고객",
    "usuario",
    "utilisateur",
    "nutzer",
    "kunde",
    "пользователь",
    "المستخدم",
];
const ASSISTANTS: [&str; 53] = [
    "s",
    "assistant",
    "gpt",
    "chatgpt",
    "claude",
    "bard",
    "bing",
    "gemini",
    "bot",
    "chatbot",
    "ai",
    "llm",
    "model",
    "sys",
    "agent",
    "wizard",
    "operator",
    "representative",
    "support",
    "supporter",
    "helper",
    "staff",
    "clerk",
    "seller",
    "salesperson",
    "recommender",
    "advisor",
    "expert",
    "doctor",
    "counselor",
    "counsellor",
    "therapist",
    "teacher",
    "tutor",
    "listener",
    "助手",
    "机器人",
    "客服",
    "系统",
    "商家",
    "医生",
    "老师",
    "咨询师",
    "アシスタント",
    "オペレーター",
    "スタッフ",
    "店員",
    "어시스턴트",
    "상담원",
    "asistente",
    "assistent",
    "ассистент",
    "المساعد",
];
/// Says the rules in chats, and answers in task-oriented sets.
const SYSTEM: &str = "system";

/// The roles of the messages of a dialogue.
#[derive(Debug)]
pub(super) struct Roles {
    /// One list, or two where both speakers are to be the assistant.
    pub(super) each: Vec<Vec<&'static str>>,
    /// What was assumed, where no name says who is the assistant.
    pub(super) assumed: Option<String>,
}

/// The role of each message, by who says it.
///
/// # Errors
/// [`Code::TooManySpeakers`] where there are more than two, and their names say nothing.
pub(super) fn roles(names: &[Cow<'_, str>], assistant: &Assistant, at: &Node<'_>) -> Result<Roles, Diagnostic> {
    let mut speakers: Vec<&str> = Vec::new();
    for name in names {
        if !speakers.contains(&&**name) {
            speakers.push(name);
        }
    }
    let place = |name: &str| speakers.iter().position(|speaker| *speaker == name).expect("listed above");
    let listed = || {
        let listed: Vec<String> = speakers.iter().take(5).map(|name| format!("`{name}`")).collect();
        format!("{}{}", listed.join(", "), if speakers.len() > 5 { ", …" } else { "" })
    };
    let by = |assistant: usize| -> Vec<&'static str> {
        names.iter().map(|name| if place(name) == assistant { "assistant" } else { "user" }).collect()
    };
    let mut assumed = None;
    if let Assistant::Named(name) = assistant
        && speakers.len() <= 2
    {
        let wanted = name.to_lowercase();
        if let Some(found) = speakers.iter().position(|speaker| speaker.to_lowercase() == wanted) {
            return Ok(Roles { each: vec![by(found)], assumed: None });
        }
        assumed = Some(format!("no speaker is called `{name}`; there are {}", listed()));
    }
    if let Some(roles) = known(&speakers, names) {
        return Ok(Roles { each: vec![names.iter().map(|name| roles[place(name)]).collect()], assumed });
    }
    if speakers.len() > 2 {
        let message = format!("{} speakers, where a dialogue has two", speakers.len());
        return Err(Diagnostic::new(Code::TooManySpeakers, message).at(&at.range).label(listed()).help(
            "map them in `dlgc.toml`: `[formats.NAME]` with `messages`, `role`, `content` and `roles = { NAME = \"user\", … }`",
        ));
    }
    if let Some(second) = speakers.get(1).filter(|_| *assistant != Assistant::Both) {
        assumed = assumed.or_else(|| Some(format!("`{second}`, who speaks second, is taken for the assistant")));
    }
    let each = if *assistant == Assistant::Both && speakers.len() == 2 { vec![by(1), by(0)] } else { vec![by(1)] };
    Ok(Roles { each, assumed })
}

/// Roles of speakers whose names say them, be it of one of two only; `None` where they do not.
fn known(speakers: &[&str], names: &[Cow<'_, str>]) -> Option<Vec<&'static str>> {
    let plain: Vec<String> = speakers.iter().map(|name| without_number(name)).collect();
    // Where nobody else answers, a "system" that speaks after others answers, and says no rules.
    let is_system = |name: &Cow<'_, str>| without_number(name) == SYSTEM;
    let answers = names.iter().skip_while(|name| is_system(name)).any(is_system);
    let is_alone = !plain.iter().any(|name| ASSISTANTS.contains(&&**name));
    let role = |name: &String| match role_of(name) {
        Some(SYSTEM) if answers && is_alone => Some("assistant"),
        role => role,
    };
    let mut roles: Vec<Option<&'static str>> = plain.iter().map(role).collect();
    let talks = |role: &Option<&str>| matches!(role, None | Some("user" | "assistant"));
    if let [one, other] =
        *roles.iter().enumerate().filter(|(_, role)| talks(role)).map(|(at, _)| at).collect::<Vec<_>>()
    {
        let opposite = |role| if role == "user" { "assistant" } else { "user" };
        match (roles[one], roles[other]) {
            (Some(role), None) => roles[other] = Some(opposite(role)),
            (None, Some(role)) => roles[one] = Some(opposite(role)),
            (Some(role), Some(same)) if role == same => return None,
            _ => {}
        }
    }
    roles.into_iter().collect()
}

/// The role that a name says; `None` where it says none.
pub(super) fn role_of(name: &str) -> Option<&'static str> {
    match &*without_number(name) {
        name if USERS.contains(&name) => Some("user"),
        name if ASSISTANTS.contains(&name) => Some("assistant"),
        SYSTEM => Some(SYSTEM),
        "developer" => Some("developer"),
        "tool" | "function" | "observation" | "ipython" => Some("tool"),
        _ => None,
    }
}

/// The role of a message, by whatever name.
pub(super) fn role(message: &Node<'_>) -> Option<&'static str> {
    role_of(message.get("role")?.as_str()?)
}

/// A name in small letters, without the number that tells speakers of one kind apart: `Operator_1`, `0_Wizard`.
fn without_number(name: &str) -> String {
    let is_number = |letter: char| letter.is_ascii_digit() || matches!(letter, '_' | '-' | ' ' | '#');
    name.trim_matches(is_number).trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str], assistant: &Assistant) -> (Vec<&'static str>, bool) {
        let names: Vec<Cow<'_, str>> = names.iter().map(|name| (*name).into()).collect();
        let at = Node::new(0..0, crate::json::Json::Null);
        let mut roles = roles(&names, assistant, &at).expect("two speakers");
        (roles.each.remove(0), roles.assumed.is_some())
    }

    #[test]
    fn names_say_who_is_who_wherever_they_stand() {
        let order = |names: &[&str]| of(names, &Assistant::Second);
        assert_eq!(order(&["operator_1", "customer_1"]), (vec!["assistant", "user"], false));
        assert_eq!(order(&["0_Wizard", "1_Apprentice"]), (vec!["assistant", "user"], false));
        assert_eq!(order(&["agent", "Maria"]), (vec!["assistant", "user"], false));
        assert_eq!(order(&["Mia", "bot"]), (vec!["user", "assistant"], false));
        assert_eq!(order(&["SYSTEM", "USER", "SYSTEM"]), (vec!["assistant", "user", "assistant"], false));
        assert_eq!(order(&["system", "user"]), (vec!["system", "user"], false));
        assert_eq!(order(&["Mia", "Leo", "Mia"]), (vec!["user", "assistant", "user"], true));
    }

    #[test]
    fn a_name_that_nobody_has_is_said() {
        assert_eq!(of(&["Mia", "Leo"], &Assistant::Named("mia".to_owned())), (vec!["assistant", "user"], false));
        assert_eq!(of(&["Mia", "Leo"], &Assistant::Named("Eva".to_owned())), (vec!["user", "assistant"], true));
    }
}
