//! Calls and literals as Python writes them.

use super::super::draft::named;
use crate::json::{self, Json, Node};

/// Reads a call as Python writes it, `f(1, b='x')`, into its name and arguments; those without a name have the names of
/// the function's parameters, in order. `None` for anything but plain values.
pub(super) fn call(text: &str, functions: &[Node<'_>]) -> Option<(String, Node<'static>)> {
    let (name, rest) = text.trim().split_once('(')?;
    let name = name.trim();
    let mut reader = Python { rest: rest.strip_suffix(')')? };
    let is_named = |function: &&Node<'_>| function.get("name").and_then(Node::as_str) == Some(name);
    let declared =
        functions.iter().find(is_named).and_then(|function| function.get("parameters")?.get("properties")?.as_object());
    let mut arguments = Vec::new();
    while !reader.rest.trim_start().is_empty() {
        let key = reader.keyword();
        let value = reader.value()?;
        let key = match key {
            Some(key) => key,
            None => declared?.get(arguments.len())?.key.to_string(),
        };
        arguments.push((key, value));
        if !reader.take(",") && !reader.rest.trim_start().is_empty() {
            return None;
        }
    }
    Some((name.to_owned(), named(&(0..0), arguments)))
}

/// Reads the literal that a text begins with. `None` for anything but plain values.
pub(super) fn literal(text: &str) -> Option<Node<'static>> {
    Python { rest: text }.value()
}

/// Literals of Python.
struct Python<'t> {
    rest: &'t str,
}

impl Python<'_> {
    fn take(&mut self, what: &str) -> bool {
        let found = self.rest.trim_start().strip_prefix(what);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    /// `name=`, if that is what comes.
    fn keyword(&mut self) -> Option<String> {
        let text = self.rest.trim_start();
        let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_')?;
        let after = text[end..].trim_start().strip_prefix('=')?;
        if end == 0 || after.starts_with('=') {
            return None;
        }
        self.rest = after;
        Some(text[..end].to_owned())
    }

    fn value(&mut self) -> Option<Node<'static>> {
        let node = |value| Some(Node::new(0..0, value));
        for (word, value) in [("None", Json::Null), ("True", Json::Bool(true)), ("False", Json::Bool(false))] {
            if self.take(word) {
                return node(value);
            }
        }
        for quote in ['\'', '"'] {
            if self.take(&quote.to_string()) {
                return self.string(quote);
            }
        }
        for (open, close) in [("[", "]"), ("(", ")")] {
            if self.take(open) {
                let mut elements = Vec::new();
                while !self.take(close) {
                    elements.push(self.value()?);
                    if !self.take(",") && !self.rest.trim_start().starts_with(close) {
                        return None;
                    }
                }
                return node(Json::Array(elements));
            }
        }
        if self.take("{") {
            let mut members = Vec::new();
            while !self.take("}") {
                let key = self.value()?;
                if !self.take(":") {
                    return None;
                }
                members.push((key.as_str()?.to_owned(), self.value()?));
                if !self.take(",") && !self.rest.trim_start().starts_with('}') {
                    return None;
                }
            }
            return Some(named(&(0..0), members));
        }
        let text = self.rest.trim_start();
        let end =
            text.find(|letter: char| !letter.is_ascii_alphanumeric() && !"+-._".contains(letter)).unwrap_or(text.len());
        let parsed = json::parse(&text.as_bytes()[..end]).ok()?.root.into_owned_at(&(0..0));
        self.rest = &text[end..];
        matches!(parsed.value, Json::Number(_)).then_some(parsed)
    }

    fn string(&mut self, quote: char) -> Option<Node<'static>> {
        let mut said = String::new();
        let mut letters = self.rest.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => said.push(match letters.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other @ ('\\' | '\'' | '"') => other,
                    _ => return None,
                }),
                letter if letter == quote => {
                    self.rest = &self.rest[at + quote.len_utf8()..];
                    return Some(Node::new(0..0, Json::String(said.into())));
                }
                letter => said.push(letter),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_as_python_writes_them() {
        let function = br#"{"name": "sort", "parameters": {"properties": {"file_name": {}, "by": {}}}}"#;
        let functions = [json::parse(function).expect("JSON").root];
        let read = |text: &str| call(text, &functions).map(|(name, arguments)| (name, json::dumps(&arguments)));
        let expected = |arguments: &str| Some(("sort".to_owned(), arguments.to_owned()));
        assert_eq!(
            read("sort('a.pdf', by=[1, -2.5, True])"),
            expected(r#"{"file_name": "a.pdf", "by": [1, -2.5, true]}"#)
        );
        assert_eq!(
            read("sort(x = {'a': None, 'b': \"it's\"}, y='\\'q\\'\\n')"),
            expected(r#"{"x": {"a": null, "b": "it's"}, "y": "'q'\n"}"#)
        );
        assert_eq!(read("sort()"), expected("{}"));
        assert_eq!(read("sort(f(1))"), None);
        assert_eq!(read("sort('open)"), None);
        assert_eq!(read("unknown('positional')"), None);
    }
}
