//! Summaries that somebody else writes: a model, a person, a script.
//!
//! What is wanted is a [`Request`]: the messages that a window leaves out, and how many tokens there are for the summary.
//! Its key is the SHA-256 of that text, so the same messages are asked for once, in whatever file or run they are. The
//! answer lies in a folder, in a file with that name: `ab/cdef…`, UTF-8, nothing around it.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::dialogue::Message;
use crate::error::{Error, ErrorKind, Result};
use crate::hex;
use crate::json;

/// A summary that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The name of its answer.
    pub key: String,
    /// `{"messages": [{"role", "content", …}], "max_tokens": n}` as JSON.
    pub text: String,
}

/// Where the answers lie.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    /// Whether a missing answer is asked for; else it is an error.
    pub asks: bool,
}

impl Request {
    /// For a summary of messages in at most so many tokens.
    pub fn of(messages: &[Message<'_>], max_tokens: u64) -> Self {
        let messages: Vec<Value> = messages.iter().map(asked).collect();
        let text = json!({"messages": messages, "max_tokens": max_tokens}).to_string();
        Self { key: hex(&Sha256::digest(&text)), text }
    }
}

impl Cache {
    /// In a folder, which need not be there yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), asks: false }
    }

    /// The answer to a request, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it cannot be read; where it is missing, unless it is to be asked for.
    pub fn find(&self, request: &Request) -> Result<Option<String>> {
        let (front, rest) = request.key.split_at(2);
        let path = self.folder.join(front).join(rest);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.asks => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let message = format!("the summary cache has no `{}`", path.display());
                let hint = "hand the callable over once more: only what is missing is asked for";
                Err(Error::new(ErrorKind::Io, message).hint(hint))
            }
            Err(error) => Err(Error::io(&path, error)),
        }
    }
}

/// A message as it is asked about.
fn asked(message: &Message<'_>) -> Value {
    let mut found = json!({"role": message.role.name(), "content": message.content});
    if let Some(reasoning) = &message.reasoning {
        found["reasoning"] = json!(reasoning);
    }
    if let Some(name) = &message.name {
        found["name"] = json!(name);
    }
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter();
        found["tool_calls"] =
            calls.map(|call| json!({"name": call.name, "arguments": json::dumps(&call.arguments)})).collect();
    }
    found
}
