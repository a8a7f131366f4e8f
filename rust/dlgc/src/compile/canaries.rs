//! Canaries: small fixed dialogues, and what becomes of them.
//!
//! In: a [`Compiler`]. Out: for each canary its rows, and the prompt that a server would send for its last turn. The
//! manifest keeps their ids; `verify` compiles the same records with another tokenizer or template and compares.

use std::collections::BTreeMap;

use super::compiler::Compiler;
use super::windows::Unlowered;
use crate::diagnostic::{Diagnostic, Severities, Severity};
use crate::dialogue::{Location, Position};
use crate::error::Result;
use crate::import::Importers;
use crate::shard::Canary;
use crate::source::Record;
use crate::tokenize::Example;
use crate::validate::validate;

/// What a compiler makes of a record.
#[derive(Debug)]
pub(crate) struct Sighting {
    /// What a server would send for the last turn, or why the template refuses that.
    pub(crate) prompt: std::result::Result<Example, Diagnostic>,
    /// The rows; none where the record was refused.
    pub(crate) rows: Vec<Example>,
    /// The code of the refusal.
    pub(crate) refused: Option<&'static str>,
}

impl Compiler {
    /// Compiles the canaries.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Tokenizer`] where the reference fails.
    pub(super) fn canaries(&self) -> Result<Vec<Canary>> {
        let canary = |(name, record): &(&str, &str)| {
            let Sighting { prompt, rows, refused } = self.sight(record)?;
            Ok(Canary {
                name: (*name).to_owned(),
                record: (*record).to_owned(),
                refused: refused.map(ToOwned::to_owned),
                text_hash: rows.first().map(|row| row.text_hash),
                ids: rows.into_iter().flat_map(|row| row.input_ids).collect(),
                prompt_ids: prompt.map(|prompt| prompt.input_ids).unwrap_or_default(),
            })
        };
        CANARIES.iter().map(canary).collect()
    }

    /// Compiles one record, however long it is.
    ///
    /// # Errors
    /// [`crate::error::ErrorKind::Tokenizer`] where the reference fails.
    pub(crate) fn sight(&self, record: &str) -> Result<Sighting> {
        let location = Location::new("canary", Position::Line(1));
        let record = Record { location, bytes: record.as_bytes() };
        let mut validated = validate(&record, &Importers::default(), &Severities::default());
        let checked = validated.dialogues.pop().expect("a canary is a record of the native shape");
        let mut diagnostics = checked.diagnostics;
        let Some(mut dialogue) = checked.dialogue else {
            let found = diagnostics.into_iter().find(|found| found.severity == Severity::Error);
            let found = found.expect("a record without a dialogue has an error");
            return Ok(Sighting { refused: Some(found.code.name()), prompt: Err(found), rows: Vec::new() });
        };
        self.select_turns(&mut dialogue.messages, &mut BTreeMap::new());
        let (rows, refused) = match self.lower(&mut dialogue, None, &mut diagnostics)? {
            Ok(lowered) => (lowered.rows().map(|(_, example)| example.whole()).collect(), None),
            Err(Unlowered::Rejected(code)) => (Vec::new(), Some(code.name())),
            Err(Unlowered::Dropped) => unreachable!("a dialogue without a budget is not too long"),
        };
        let prompt = match self.templates.of(&dialogue).prompt(&dialogue) {
            Ok((text, suppressed)) => Ok(self.tokenizer.untrained(&text, &suppressed, None)?),
            Err(diagnostic) => Err(diagnostic),
        };
        Ok(Sighting { prompt, rows, refused })
    }
}

/// One for each thing that templates and tokenizers change between versions. What cannot be seen is written as JSON
/// escapes.
const CANARIES: [(&str, &str); 14] = [
    (
        "plain",
        r#"{"messages": [{"role": "user", "content": "Hello, world! 1234"}, {"role": "assistant", "content": "Hi there."}]}"#,
    ),
    (
        "system",
        r#"{"messages": [{"role": "system", "content": "你是客服机器人。"}, {"role": "user", "content": "订票，下午3:45。"}, {"role": "assistant", "content": "好的，naïve café 👩‍👩‍👧。"}]}"#,
    ),
    (
        "turns",
        r#"{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"}, {"role": "assistant", "content": "  four\n\n"}]}"#,
    ),
    (
        "digits",
        r#"{"messages": [{"role": "user", "content": "7 42 365 2025 12345 1234567890 3.14159 1,000,000 ٣٤٥ ४५६ ½ x²"}, {"role": "assistant", "content": "2025-10-20, 15:45: 0x1F = 31."}]}"#,
    ),
    (
        "spaces",
        r#"{"messages": [{"role": "user", "content": "a  b   c\td\u00a0e\u3000f \r\n\n\n g \n"}, {"role": "assistant", "content": "def f(x):\n    if x:\n\treturn [ 1 , 2 ]\n\n\n    return None"}]}"#,
    ),
    (
        "emoji",
        r#"{"messages": [{"role": "user", "content": "👍🏽 🇪🇺 1️⃣ ☺️ 👩‍🚀🏳️‍🌈"}, {"role": "assistant", "content": "😀😃 👨‍👩‍👧‍👦!"}]}"#,
    ),
    (
        "scripts",
        r#"{"messages": [{"role": "user", "content": "cafe\u0301 \u00e9 ﬁ Å ＡＢＣ １２ straße İstanbul"}, {"role": "assistant", "content": "שלום, مرحبا, नमस्ते, สวัสดี, 안녕하세요, こんにちは, Привет.\u200b"}]}"#,
    ),
    (
        "reasoning",
        r#"{"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "reasoning_content": "2+2=4", "content": "4"}]}"#,
    ),
    (
        "reasoning-in-history",
        r#"{"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "reasoning_content": "2+2=4", "content": "4"}, {"role": "user", "content": "And 3+3?"}, {"role": "assistant", "reasoning_content": "3+3=6", "content": "6"}]}"#,
    ),
    (
        "reasoning-off",
        r#"{"chat_template_kwargs": {"enable_thinking": false, "thinking": false}, "messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]}"#,
    ),
    (
        "tags-in-content",
        r#"{"messages": [{"role": "user", "content": "<b>2+2?</b>"}, {"role": "assistant", "content": "<think>\n2+2=4\n</think>\n\n4"}, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]}"#,
    ),
    (
        "tool",
        r#"{"tools": [{"type": "function", "function": {"name": "get_fare", "description": "Fare.", "parameters": {"type": "object", "properties": {"from": {"type": "string", "description": "From."}}, "required": ["from"]}}}], "messages": [{"role": "user", "content": "票价？"}, {"role": "assistant", "tool_calls": [{"id": "call00000", "type": "function", "function": {"name": "get_fare", "arguments": {"from": "重庆"}}}]}, {"role": "tool", "tool_call_id": "call00000", "name": "get_fare", "content": "{\"lowest\": 128}"}, {"role": "assistant", "content": "128元。"}]}"#,
    ),
    (
        "tools",
        r#"{"tools": [{"type": "function", "function": {"name": "get_fare", "description": "Fare \"there\" & back <one way>.", "parameters": {"type": "object", "properties": {"from": {"type": "string", "description": "From."}, "seats": {"type": "integer", "enum": [1, 2]}}, "required": ["from"]}}}, {"type": "function", "function": {"name": "now", "description": "Time.", "parameters": {"type": "object", "properties": {}}}}], "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Fare for two, and the time?"}, {"role": "assistant", "content": "Let me see.", "tool_calls": [{"id": "call00000", "type": "function", "function": {"name": "get_fare", "arguments": {"from": "Zürich \"HB\"\n", "seats": 2, "via": [1.50, null, true]}}}, {"id": "call00001", "type": "function", "function": {"name": "now", "arguments": {}}}]}, {"role": "tool", "tool_call_id": "call00000", "name": "get_fare", "content": "128"}, {"role": "tool", "tool_call_id": "call00001", "name": "now", "content": "15:45"}, {"role": "assistant", "content": "128, 15:45."}, {"role": "user", "content": "Thanks."}, {"role": "assistant", "content": "Welcome."}]}"#,
    ),
    (
        "documents",
        r#"{"documents": [{"title": "Fares", "text": "Chongqing to Chengdu: 128."}], "messages": [{"role": "user", "content": "Fare?"}, {"role": "assistant", "content": "128."}]}"#,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{CompileOptions, Compiler};
    use crate::shard::Row;

    /// Shows reasoning of the newest turn only: all other turns have rows of their own.
    const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}\
        <think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}\
        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

    fn load(folder: &std::path::Path) -> Compiler {
        let path = folder.join("template.jinja");
        std::fs::write(&path, TEMPLATE).expect("written");
        let chat_template = Some(path.to_string_lossy().into_owned());
        Compiler::load(&CompileOptions { chat_template, ..CompileOptions::default() }).expect("loads")
    }

    fn rows(compiler: &Compiler) -> Vec<Row> {
        let turn = r#"{"role": "user", "content": "What is the fare to Chongqing, and when does the train leave?"},
            {"role": "assistant", "content": "128, at 15:45, from platform seven."}"#;
        let record = format!(r#"{{"messages": [{}]}}"#, [turn; 6].join(","));
        let location = Location::new("a.jsonl", Position::Line(1));
        let outcome = compiler.compile(&Record { location, bytes: record.as_bytes() }).expect("compiled");
        outcome.dialogues.into_iter().flat_map(|dialogue| dialogue.rows).collect()
    }

    #[test]
    fn rows_that_leave_out_how_they_begin_are_the_same_rows() {
        let folder = tempfile::tempdir().expect("a folder");
        let (plain, mut lean) = (load(folder.path()), load(folder.path()));
        lean.leave_out_texts();
        let (plain_rows, lean_rows) = (rows(&plain), rows(&lean));
        assert!(plain_rows.len() == 6 && plain_rows.iter().all(|row| row.before.is_empty()));
        assert!(lean_rows.iter().filter(|row| !row.before.is_empty()).count() >= 4);
        for (row, lean) in plain_rows.into_iter().zip(lean_rows) {
            assert_eq!(row.length(), lean.length());
            let lean = lean.whole();
            assert_eq!((row.input_ids, row.labels), (lean.input_ids, lean.labels));
            assert_eq!(row.provenance[0].text_hash, lean.provenance[0].text_hash);
        }
        let ids = |compiler: &Compiler| -> Vec<Vec<i32>> {
            compiler.canaries().expect("seen").into_iter().map(|canary| canary.ids).collect()
        };
        assert_eq!(ids(&plain), ids(&lean));
    }
}
