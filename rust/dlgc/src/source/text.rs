//! What a file looks like that holds text and no JSON, and how its dialogues would have to be written.
//!
//! In: the beginning of a file, which the reader of JSON would otherwise cut into lines that are no records. Nothing is
//! parsed here: one line that may be JSON, and the file is left to those who say what is wrong with it.

use crate::diagnostic::{Code, Diagnostic};

/// Whether the beginning of a file may be that of JSON, or of what others refuse: no UTF-8, no text.
pub(super) fn may_be_json(head: &[u8]) -> bool {
    let first = head.first().copied();
    let is_number_next =
        |head: &[u8]| head.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(u8::is_ascii_digit);
    if matches!(first, None | Some(b'{' | b'"')) || first == Some(b'[') && !is_number_next(&head[1..]) {
        return true;
    }
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_some() => return true,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    let is_scalar = |line: &str| matches!(line, "true" | "false" | "null") || line.parse::<f64>().is_ok();
    let is_array = |line: &str| line.starts_with('[') && after_time(line).is_none() && !line.contains("](");
    let may_be = |line: &str| line.starts_with('{') || line.contains("{\"") || is_array(line) || is_scalar(line);
    // A byte-order mark may stand before any line, where files were put together.
    let is_space = |letter: char| letter.is_whitespace() || letter == '\u{feff}';
    text.contains('\0') || text.lines().any(|line| may_be(line.trim_matches(is_space)))
}

/// What is said of a file in which nothing is JSON.
pub(super) fn diagnostic(head: &[u8]) -> Diagnostic {
    let text = String::from_utf8_lossy(head);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(200).collect();
    let (looks, help) = looks_like(&lines);
    Diagnostic::new(Code::PlainText, format!("the file holds no JSON: it looks like {looks}")).help(help)
}

/// A dialogue as one line of JSON.
const RECORD: &str = r#"{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}"#;

/// What lines look like, and how to write them instead.
fn looks_like(lines: &[&str]) -> (&'static str, String) {
    let most = |is_one: &dyn Fn(&str) -> bool| 2 * lines.iter().filter(|line| is_one(line)).count() > lines.len();
    let starts = |line: &str, marks: &[&str]| marks.iter().any(|mark| line.starts_with(mark));
    let first = lines.first().copied().unwrap_or_default();
    let names: Vec<&str> = lines.iter().filter_map(|line| speaker(after_time(line).unwrap_or(line))).collect();
    let other = names.iter().find(|name| **name != names[0]).copied();
    if most(&|line| after_time(line).is_some()) && !names.is_empty() {
        return ("a chat that was exported as text, a time and a name before each message", named(&names, other));
    }
    let is_repeated = |name: &&str| names.iter().filter(|other| *other == name).count() > 1;
    if most(&|line| speaker(line).is_some()) && (names.iter().any(is_repeated) || names.len() == 2) {
        return ("a transcript, a name before what is said", named(&names, other));
    }
    let delimiters = |line: &str, of: char| line.matches(of).count();
    for (of, looks, ending) in [(',', "a table with commas", "csv"), ('\t', "a table with tabs", "tsv")] {
        let columns = delimiters(first, of);
        if columns > 0 && lines.len() > 1 && most(&|line| delimiters(line, of) == columns) {
            return (looks, format!("tables are told by their names: call it `….{ending}`"));
        }
    }
    let looks = if starts(first, &["<!", "<?", "<html"]) {
        "HTML or XML"
    } else if starts(first, &["#", "---", "```", "**"])
        || most(&|line| starts(line, &["#", "- ", "* ", "> ", "|", "**"]))
    {
        "Markdown"
    } else {
        "plain text"
    };
    (looks, format!("write each dialogue as one record, on a line of its own:\n{RECORD}"))
}

/// How to write what is said under names.
fn named(names: &[&str], other: Option<&str>) -> String {
    let (one, other) = (names.first().copied().unwrap_or("…"), other.unwrap_or("…"));
    format!(
        "write each dialogue as one record, on a line of its own, with a role for each name:\n{RECORD}\n\
         or with the names as they are, and `--assistant NAME` for who is trained:\n\
         {{\"messages\": [{{\"speaker\": \"{one}\", \"text\": \"…\"}}, {{\"speaker\": \"{other}\", \"text\": \"…\"}}]}}"
    )
}

/// What is behind the time at the beginning of a line: `12/31/23, 9:15 PM - `, `[31.12.23, 21:15:03] `.
fn after_time(line: &str) -> Option<&str> {
    let line = line.trim_start_matches(['\u{200e}', '\u{feff}']);
    let line = line.strip_prefix('[').unwrap_or(line);
    let is_part = |letter: char| letter.is_ascii_digit() || letter.is_whitespace() || "/.:,-".contains(letter);
    let rest = line.trim_start_matches(is_part);
    let time = &line[..line.len() - rest.len()];
    let ends = |rest: &&str| rest.starts_with(|letter: char| letter.is_whitespace() || "]-".contains(letter));
    let half = ["AM", "PM", "am", "pm", "a.m.", "p.m."].iter().find_map(|half| rest.strip_prefix(half).filter(ends));
    let digits = time.bytes().filter(u8::is_ascii_digit).count();
    let is_separator = |letter: char| letter.is_whitespace() || "]-:,".contains(letter);
    (time.contains(':') && digits >= 3).then(|| half.unwrap_or(rest).trim_start_matches(is_separator))
}

/// The name before what somebody says: `Ann: hello`.
fn speaker(line: &str) -> Option<&str> {
    let (name, said) = line.split_once(['：', ':'])?;
    let is_letter = |letter: char| letter.is_alphanumeric() || " ._-+'()&".contains(letter);
    let is_name = name.starts_with(|letter: char| letter.is_alphanumeric() || letter == '+')
        && name.chars().all(is_letter)
        && name.chars().count() <= 30;
    let is_apart = said.is_empty() || said.starts_with(char::is_whitespace) || line[name.len()..].starts_with('：');
    (is_name && is_apart).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::{after_time, diagnostic, may_be_json, speaker};

    #[test]
    fn what_may_be_json_is_left_to_those_who_read_it() {
        for text in
            ["", "{", "[", "[1, 2]", "[31, {}]", "\"a\"\n", "1\n2\n", "null", "# made by x\n{\"a\": 1}\n", "{'a': 1}"]
        {
            assert!(may_be_json(text.as_bytes()), "{text:?}");
        }
        assert!(may_be_json("\u{fb2c}\n\u{feff}{}\n".as_bytes()), "a mark before a line");
        assert!(may_be_json(b"caf\xe9 au lait\n"), "no UTF-8 is said to be none");
        assert!(may_be_json(b"a\0b"));
        for text in [
            "hello",
            "[31.12.23, 21:15:03] Ann: hello",
            "a,b\n1,2\n",
            "# Title\n\n[a](b)\n",
            "caf\u{e9}",
            "She said:\n\"Yes.\"\n",
        ] {
            assert!(!may_be_json(text.as_bytes()), "{text:?}");
        }
        assert!(!may_be_json(&"caf\u{e9}".as_bytes()[..4]), "a character may be cut");
    }

    #[test]
    fn times_and_names_are_told() {
        for line in [
            "12/31/23, 9:15 PM - Ann: hello",
            "12/31/23, 9:15\u{202f}PM - Ann: hello",
            "\u{200e}[31.12.23, 21:15:03] Ann: hello",
            "2023-12-31 21:15 Ann: hello",
            "[21:15] Ann: hello",
        ] {
            assert_eq!(after_time(line), Some("Ann: hello"), "{line}");
        }
        assert_eq!(after_time("21:15 amy: hello"), Some("amy: hello"));
        assert_eq!(after_time("3 of 4: yes"), None);
        assert_eq!(speaker("Ann B.: hello"), Some("Ann B."));
        assert_eq!(speaker("小明：你好"), Some("小明"));
        assert_eq!(speaker("see http://x"), None);
    }

    #[test]
    fn lines_look_like_what_they_are() {
        for (text, looks) in [
            ("Ann: hi\nBob: yes\nAnn: bye\n", "a transcript"),
            ("# Title\n\nText.\n", "Markdown"),
            ("a,b\n1,2\n3,4\n", "a table with commas"),
            ("<!DOCTYPE html>\n<p>x\n", "HTML or XML"),
            ("Once upon a time.\n", "plain text"),
        ] {
            let message = diagnostic(text.as_bytes()).message;
            assert!(message.contains(looks), "{text:?}: {message}");
        }
    }
}
