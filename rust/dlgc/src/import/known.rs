//! Formats that only call things by other names, as a user would write them.

use super::mapping::Written;

/// A list of messages.
fn list(messages: &str, role: Option<&str>, content: Option<&str>) -> Written {
    Written {
        messages: Some(messages.to_owned()),
        role: role.map(str::to_owned),
        content: content.map(str::to_owned),
        ..Written::default()
    }
}

impl Written {
    fn when(mut self, places: &[&str]) -> Self {
        self.when = places.iter().map(|place| (*place).to_owned()).collect();
        self
    }
}

/// Their names and how they are written, in the order in which they are tried.
pub(super) fn formats() -> Vec<(&'static str, Written)> {
    vec![
        ("kdconv", list("messages", None, Some("message")).when(&["messages[].message"])),
        ("topical-chat", list("content", Some("agent"), Some("message"))),
        ("byu-chitchat", list("messages[]", Some("sender"), Some("text"))),
        ("parlai-chat", list("dialog[]", Some("id"), Some("text")).when(&["dialog[][0].id", "dialog[][0].text"])),
    ]
}
