//! JSON with places: bytes become a tree in which every value knows where it stood.
//!
//! In: the bytes of one record. Out: a [`Node`], or a [`JsonError`] with the offset where reading failed.
//!
//! What is guaranteed, and what ordinary JSON libraries do not give together:
//! - key order is kept, absent differs from null, integers have any size and floats their own spelling;
//! - strings borrow from the input where they hold no escape;
//! - every value has its byte range, so that a diagnostic can point at it;
//! - [`dumps`] writes what Python's `json.dumps(json.loads(source), ensure_ascii=False)` writes, byte for byte;
//! - nesting is bounded by [`MAX_DEPTH`], so hostile input cannot exhaust the stack.

mod fields;

pub(crate) use fields::Fields;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use crate::bytes;

/// Deepest nesting of arrays and objects that is read.
pub const MAX_DEPTH: usize = 256;

/// A JSON value and the bytes it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Node<'a> {
    /// Byte range in the record; for a value made by an importer, the range of what it was made from.
    pub range: Range<usize>,
    /// The value.
    pub value: Json<'a>,
}

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it was spelt.
    Number(Cow<'a, str>),
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Node<'a>>),
    /// An object, in source order; of a repeated key the last value, at the place of the first.
    Object(Vec<Member<'a>>),
}

/// One key and value of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Member<'a> {
    /// The key, unescaped.
    pub key: Cow<'a, str>,
    /// Byte range of the key with its quotes.
    pub key_range: Range<usize>,
    /// The value.
    pub node: Node<'a>,
}

/// A document and what is odd about it without being wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed<'a> {
    /// The value.
    pub root: Node<'a>,
    /// Ranges of keys that repeat an earlier key of their object.
    pub duplicate_keys: Vec<Range<usize>>,
}

/// Why bytes are not JSON that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonErrorKind {
    /// Not the grammar of JSON; what was expected instead.
    Syntax(&'static str),
    /// Bytes that are not UTF-8.
    Utf8,
    /// An escape such as `\ud800` without its other half.
    LoneSurrogate,
    /// `NaN`, `Infinity` or `-Infinity`, which JSON does not have.
    NonFinite,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// A noncharacter that the compiler keeps for its own marks: U+FDD0, U+FDD1 or U+FDD2.
    Reserved,
}

/// Noncharacters that mark places inside the compiler, so no text that is read may hold them.
pub const RESERVED: std::ops::RangeInclusive<char> = '\u{FDD0}'..='\u{FDD2}';

/// Where and why reading failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    /// Why.
    pub kind: JsonErrorKind,
    /// Byte offset in the record.
    pub offset: usize,
}

impl<'a> Node<'a> {
    /// A value made from what stood at `range`.
    pub fn new(range: Range<usize>, value: Json<'a>) -> Self {
        Self { range, value }
    }

    /// The member `key` of an object; `None` for other values and where it is absent.
    pub fn get(&self, key: &str) -> Option<&Node<'a>> {
        let Json::Object(members) = &self.value else {
            return None;
        };
        members.iter().find(|member| member.key == key).map(|member| &member.node)
    }

    /// The elements of a list; of anything else there are none.
    pub fn into_elements(self) -> Vec<Node<'a>> {
        match self.value {
            Json::Array(elements) => elements,
            _ => Vec::new(),
        }
    }

    /// Like [`Node::get`], with null taken for absent.
    pub fn get_some(&self, key: &str) -> Option<&Node<'a>> {
        self.get(key).filter(|node| !node.is_null())
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        self.value == Json::Null
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of an array.
    pub fn as_array(&self) -> Option<&[Node<'a>]> {
        match &self.value {
            Json::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The members of an object.
    pub fn as_object(&self) -> Option<&[Member<'a>]> {
        match &self.value {
            Json::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The value of a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self.value {
            Json::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// What kind of value this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::String(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        }
    }

    /// The same value with strings that are this one's.
    pub fn lent(&self) -> Node<'_> {
        let value = match &self.value {
            Json::Null => Json::Null,
            Json::Bool(value) => Json::Bool(*value),
            Json::Number(lexeme) => Json::Number(Cow::Borrowed(lexeme)),
            Json::String(text) => Json::String(Cow::Borrowed(text)),
            Json::Array(elements) => Json::Array(elements.iter().map(Node::lent).collect()),
            Json::Object(members) => Json::Object(
                members
                    .iter()
                    .map(|member| Member {
                        key: Cow::Borrowed(&member.key),
                        key_range: member.key_range.clone(),
                        node: member.node.lent(),
                    })
                    .collect(),
            ),
        };
        Node { range: self.range.clone(), value }
    }

    /// The same value without its ties to the input, every part placed at `range`: what an importer
    /// gets from JSON that stood inside a JSON string.
    pub fn into_owned_at(self, range: &Range<usize>) -> Node<'static> {
        let value = match self.value {
            Json::Null => Json::Null,
            Json::Bool(value) => Json::Bool(value),
            Json::Number(lexeme) => Json::Number(Cow::Owned(lexeme.into_owned())),
            Json::String(text) => Json::String(Cow::Owned(text.into_owned())),
            Json::Array(elements) => Json::Array(elements.into_iter().map(|node| node.into_owned_at(range)).collect()),
            Json::Object(members) => Json::Object(
                members
                    .into_iter()
                    .map(|member| Member {
                        key: Cow::Owned(member.key.into_owned()),
                        key_range: range.clone(),
                        node: member.node.into_owned_at(range),
                    })
                    .collect(),
            ),
        };
        Node { range: range.clone(), value }
    }
}

/// A string value at `range`.
pub fn string<'a>(range: &Range<usize>, text: impl Into<Cow<'a, str>>) -> Node<'a> {
    Node::new(range.clone(), Json::String(text.into()))
}

/// An object at `range` from keys and values.
pub fn object<'a>(range: &Range<usize>, members: Vec<(&'static str, Node<'a>)>) -> Node<'a> {
    let members = members
        .into_iter()
        .map(|(key, node)| Member { key: Cow::Borrowed(key), key_range: range.clone(), node })
        .collect();
    Node::new(range.clone(), Json::Object(members))
}

/// Reads one JSON document; white space around it is allowed, anything else is not.
///
/// ```
/// use dlgc::json::{parse, dumps};
/// let parsed = parse(br#"{"b": 1e5, "a": [128, null]}"#).unwrap();
/// assert_eq!(parsed.root.get("a").unwrap().range, 16..27);
/// assert_eq!(dumps(&parsed.root), r#"{"b": 100000.0, "a": [128, null]}"#);
/// ```
///
/// # Errors
/// [`JsonError`] with the offset of the first byte that does not fit.
pub fn parse(bytes: &[u8]) -> Result<Parsed<'_>, JsonError> {
    let text = simdutf8::compat::from_utf8(bytes)
        .map_err(|error| JsonError { kind: JsonErrorKind::Utf8, offset: error.valid_up_to() })?;
    let reserved = memchr::memmem::find_iter(bytes, b"\xef\xb7")
        .find(|&at| bytes.get(at + 2).is_some_and(|byte| (0x90..=0x92).contains(byte)));
    if let Some(offset) = reserved {
        return Err(JsonError { kind: JsonErrorKind::Reserved, offset });
    }
    let mut parser = Parser { text, bytes, at: 0, duplicate_keys: Vec::new() };
    parser.skip_space();
    let root = parser.value(0)?;
    parser.skip_space();
    if parser.at < bytes.len() {
        return Err(parser.syntax("the end of the record"));
    }
    Ok(Parsed { root, duplicate_keys: parser.duplicate_keys })
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    duplicate_keys: Vec<Range<usize>>,
}

/// About how far it is to the end of a string that goes on here with an escape.
fn until_quote(bytes: &[u8]) -> usize {
    let mut quotes = memchr::memchr_iter(b'"', bytes).filter(|&at| at > 0 && bytes[at - 1] != b'\\');
    quotes.next().unwrap_or_default()
}

/// Where a string stops being its own text: at a quote, a backslash or a control character.
#[inline]
fn end_of_plain(bytes: &[u8]) -> Option<usize> {
    bytes::first_among(bytes, b"\"\\", 0x20)
}

impl<'a> Parser<'a> {
    fn syntax(&self, expected: &'static str) -> JsonError {
        JsonError { kind: JsonErrorKind::Syntax(expected), offset: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>, JsonError> {
        let start = self.at;
        let value = match self.peek() {
            Some(b'"') => Json::String(self.string()?),
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'-' | b'0'..=b'9') => Json::Number(Cow::Borrowed(self.number()?)),
            Some(b't') => self.word("true", Json::Bool(true))?,
            Some(b'f') => self.word("false", Json::Bool(false))?,
            Some(b'n') => self.word("null", Json::Null)?,
            Some(b'N' | b'I') => return Err(self.non_finite()),
            _ => return Err(self.syntax("a JSON value")),
        };
        Ok(Node { range: start..self.at, value })
    }

    fn non_finite(&self) -> JsonError {
        let rest = &self.text[self.at..];
        if ["NaN", "Infinity", "-Infinity"].iter().any(|word| rest.starts_with(word)) {
            return JsonError { kind: JsonErrorKind::NonFinite, offset: self.at };
        }
        self.syntax("a JSON value")
    }

    fn word(&mut self, word: &str, value: Json<'a>) -> Result<Json<'a>, JsonError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.syntax("a JSON value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn number(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            if self.bytes.get(self.at + 1) == Some(&b'I') {
                return Err(self.non_finite());
            }
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.syntax("a digit")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.digits();
        if self.at == start { Err(self.syntax("a digit")) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let start = self.at;
        let mut unescaped = String::new();
        let mut copied = start;
        loop {
            let rest = &self.bytes[self.at..];
            let Some(step) = end_of_plain(rest) else {
                self.at = self.bytes.len();
                return Err(self.syntax("the closing quote of a string"));
            };
            self.at += step;
            match self.bytes[self.at] {
                b'"' => {
                    let last = &self.text[copied..self.at];
                    self.at += 1;
                    if copied == start {
                        return Ok(Cow::Borrowed(last));
                    }
                    unescaped.push_str(last);
                    return Ok(Cow::Owned(unescaped));
                }
                b'\\' => {
                    if copied == start {
                        unescaped.reserve(self.at - start + until_quote(&self.bytes[self.at..]));
                    }
                    unescaped.push_str(&self.text[copied..self.at]);
                    unescaped.push(self.escape()?);
                    copied = self.at;
                }
                _ => return Err(self.syntax("a control character to be escaped")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        self.at += 2;
        Ok(match self.bytes.get(start + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let lone = JsonError { kind: JsonErrorKind::LoneSurrogate, offset: start };
                let first = self.hex4()?;
                let code = match first {
                    0xD800..=0xDBFF => {
                        if !self.bytes[self.at..].starts_with(b"\\u") {
                            return Err(lone);
                        }
                        self.at += 2;
                        let second = self.hex4()?;
                        if !(0xDC00..=0xDFFF).contains(&second) {
                            return Err(lone);
                        }
                        0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)
                    }
                    _ => first,
                };
                let character = char::from_u32(code).ok_or(lone)?;
                if RESERVED.contains(&character) {
                    return Err(JsonError { kind: JsonErrorKind::Reserved, offset: start });
                }
                return Ok(character);
            }
            _ => {
                self.at = start;
                return Err(self.syntax("a valid escape"));
            }
        })
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self.bytes.get(self.at..self.at + 4).unwrap_or_default();
        let mut code = 0;
        if digits.is_empty() {
            return Err(self.syntax("four hexadecimal digits"));
        }
        for &digit in digits {
            let Some(value) = char::from(digit).to_digit(16) else {
                return Err(self.syntax("four hexadecimal digits"));
            };
            code = code * 16 + value;
        }
        self.at += 4;
        Ok(code)
    }

    fn enter(&mut self, depth: usize) -> Result<(), JsonError> {
        if depth >= MAX_DEPTH {
            return Err(JsonError { kind: JsonErrorKind::TooDeep, offset: self.at });
        }
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<Json<'a>, JsonError> {
        self.enter(depth)?;
        let mut elements = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(elements));
        }
        loop {
            self.skip_space();
            elements.push(self.value(depth + 1)?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.syntax("`,` or `]`")),
            }
        }
        self.at += 1;
        Ok(Json::Array(elements))
    }

    fn object(&mut self, depth: usize) -> Result<Json<'a>, JsonError> {
        self.enter(depth)?;
        let mut members: Vec<Member<'a>> = Vec::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(members));
        }
        // Small objects are searched; large ones, which an attacker can make quadratic, are hashed.
        let mut seen: Option<std::collections::HashMap<Cow<'a, str>, usize>> = None;
        loop {
            self.skip_space();
            let key_start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.syntax("a key in double quotes"));
            }
            let key = self.string()?;
            let key_range = key_start..self.at;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.syntax("`:` after a key"));
            }
            self.at += 1;
            self.skip_space();
            let node = self.value(depth + 1)?;
            if members.len() == 16 {
                seen = Some(members.iter().enumerate().map(|(i, m)| (m.key.clone(), i)).collect());
            }
            let earlier = match &seen {
                Some(seen) => seen.get(&key).copied(),
                None => members.iter().position(|member| member.key == key),
            };
            if let Some(index) = earlier {
                self.duplicate_keys.push(key_range);
                members[index].node = node;
            } else {
                if let Some(seen) = &mut seen {
                    seen.insert(key.clone(), members.len());
                }
                members.push(Member { key, key_range, node });
            }
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.syntax("`,` or `}`")),
            }
        }
        self.at += 1;
        Ok(Json::Object(members))
    }
}

/// The JSONPath of the innermost value of `root` that holds `range`, such as `$.messages[4].content`.
pub fn path_of(root: &Node<'_>, range: &Range<usize>) -> String {
    let mut path = String::from("$");
    let mut node = root;
    loop {
        let holds = |inner: &Range<usize>| inner.start <= range.start && range.end <= inner.end;
        let next = match &node.value {
            Json::Array(elements) => {
                elements.iter().enumerate().find(|(_, element)| holds(&element.range)).map(|(index, element)| {
                    let _ = write!(path, "[{index}]");
                    element
                })
            }
            Json::Object(members) => {
                members.iter().find(|member| holds(&member.node.range) || holds(&member.key_range)).map(|member| {
                    push_key(&mut path, &member.key);
                    &member.node
                })
            }
            _ => None,
        };
        match next {
            Some(inner) => node = inner,
            None => return path,
        }
    }
}

fn push_key(path: &mut String, key: &str) {
    let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if plain && !key.is_empty() && !key.as_bytes()[0].is_ascii_digit() {
        path.push('.');
        path.push_str(key);
    } else {
        path.push('[');
        write_string(path, key, false);
        path.push(']');
    }
}

/// Writes a value as Python's `json.dumps(value, ensure_ascii=False)` would.
pub fn dumps(node: &Node<'_>) -> String {
    let mut out = String::new();
    write_value(&mut out, node);
    out
}

fn write_value(out: &mut String, node: &Node<'_>) {
    match &node.value {
        Json::Null => out.push_str("null"),
        Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Json::Number(lexeme) => out.push_str(&python_number(lexeme)),
        Json::String(text) => write_string(out, text, false),
        Json::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_value(out, element);
            }
            out.push(']');
        }
        Json::Object(members) => {
            out.push('{');
            for (index, member) in members.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_string(out, &member.key, false);
                out.push_str(": ");
                write_value(out, &member.node);
            }
            out.push('}');
        }
    }
}

/// Writes a string as Python's `json.dumps` does, quotes included.
pub(crate) fn write_string(out: &mut String, text: &str, ensure_ascii: bool) {
    // DEL is ASCII and printable to Python's encoder, so it stays as it is.
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..0x20) && (!ensure_ascii || byte.is_ascii());
    out.push('"');
    let mut rest = text;
    loop {
        let plain = rest.bytes().position(|byte| !is_plain(&byte)).unwrap_or(rest.len());
        out.push_str(&rest[..plain]);
        let Some(character) = rest[plain..].chars().next() else { break };
        rest = &rest[plain + character.len_utf8()..];
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

/// Writes bytes that may not be UTF-8 as a string, quotes included; the parser says what is wrong with them.
pub(crate) fn write_bytes_as_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// A JSON number as Python prints it after `json.loads`: integers of any size as they are, floats as `repr`.
pub(crate) fn python_number(lexeme: &str) -> Cow<'_, str> {
    if lexeme == "-0" {
        return Cow::Borrowed("0");
    }
    if !lexeme.contains(['.', 'e', 'E']) {
        return Cow::Borrowed(lexeme);
    }
    let value: f64 = lexeme.parse().expect("the parser let only floats through");
    let text = python_float(value);
    Cow::Owned(match text.as_str() {
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        _ => text,
    })
}

/// A float as Python's `repr` prints it: shortest digits that round-trip, an exponent below 1e-4 and from 1e16.
pub(crate) fn python_float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".to_owned() } else { "-inf".to_owned() };
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("`{:e}` prints an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` prints an integer exponent");
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> JsonErrorKind {
        parse(text.as_bytes()).expect_err("not JSON").kind
    }

    #[test]
    fn numbers_print_as_python_prints_them() {
        for (source, python) in [
            ("1e5", "100000.0"),
            ("1E-7", "1e-07"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1e16", "1e+16"),
            ("123456789012345680.0", "1.2345678901234568e+17"),
            ("1e400", "Infinity"),
            ("-0", "0"),
            ("-0.0", "-0.0"),
            ("128", "128"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("2.50", "2.5"),
        ] {
            assert_eq!(python_number(source), python, "{source}");
        }
    }

    #[test]
    fn a_repeated_key_keeps_its_first_place_and_its_last_value() {
        let parsed = parse(br#"{"a": 1, "b": 2, "a": 3}"#).expect("JSON");
        assert_eq!(dumps(&parsed.root), r#"{"a": 3, "b": 2}"#);
        assert_eq!(parsed.duplicate_keys, vec![17..20]);
    }

    #[test]
    fn what_json_does_not_have_is_named() {
        assert_eq!(kind(r#""\ud800""#), JsonErrorKind::LoneSurrogate);
        assert_eq!(kind(r#""\ud800\u0041""#), JsonErrorKind::LoneSurrogate);
        assert_eq!(kind(r#""\udc00""#), JsonErrorKind::LoneSurrogate);
        assert_eq!(kind("[NaN]"), JsonErrorKind::NonFinite);
        assert_eq!(kind("[-Infinity]"), JsonErrorKind::NonFinite);
        assert_eq!(kind(&"[".repeat(10_000)), JsonErrorKind::TooDeep);
        assert_eq!(kind("{} x"), JsonErrorKind::Syntax("the end of the record"));
        assert_eq!(kind("[01]"), JsonErrorKind::Syntax("`,` or `]`"));
        assert_eq!(kind("\"a\nb\""), JsonErrorKind::Syntax("a control character to be escaped"));
        assert_eq!(kind(r#""\u12"#), JsonErrorKind::Syntax("four hexadecimal digits"));
        assert_eq!(kind("\"\u{fdd1}\""), JsonErrorKind::Reserved);
        assert_eq!(kind(r#""\ufdd2""#), JsonErrorKind::Reserved);
        assert!(parse(br#""\\ufdd2""#).is_ok(), "an escaped backslash and four letters");
        assert_eq!(parse(b"\"\xff\"").expect_err("not UTF-8").kind, JsonErrorKind::Utf8);
    }

    #[test]
    fn escapes_are_read_and_written_as_python_does() {
        let parsed = parse(r#""\u00e9\ud83d\ude00\n\/\u007f\u2028\u0001""#.as_bytes()).expect("JSON");
        assert_eq!(dumps(&parsed.root), "\"é😀\\n/\u{7f}\u{2028}\\u0001\"");
    }

    #[test]
    fn a_path_leads_to_the_innermost_value() {
        let source = br#"{"messages": [{"role": "user"}, {"a b": [1, 2]}]}"#;
        let parsed = parse(source).expect("JSON");
        let at = source.iter().position(|&byte| byte == b'2').expect("there is a 2");
        assert_eq!(path_of(&parsed.root, &(at..at + 1)), "$.messages[1][\"a b\"][1]");
    }
}
