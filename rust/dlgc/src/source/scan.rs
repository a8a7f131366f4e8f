//! Where a JSON value ends: by its brackets and quotes alone. The grammar is left to the parser.

/// Goes over the bytes of one value, piece by piece.
#[derive(Debug, Default)]
pub(super) struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
    scalar: bool,
}

impl Scan {
    /// Whether the value so far is a bare word or a number, which ends where the file does.
    pub(super) fn is_scalar(&self) -> bool {
        self.scalar
    }

    /// Goes on over `bytes`; how many belong to the value, and whether it ends there.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (index, &byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return (index + 1, true);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => {
                    if self.scalar {
                        return (index, true);
                    }
                    self.in_string = true;
                }
                b'{' | b'[' if !self.scalar => self.depth += 1,
                b'}' | b']' => {
                    if self.depth == 0 {
                        return (index, true);
                    }
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (index + 1, true);
                    }
                }
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if self.depth == 0 => return (index, true),
                _ if self.depth == 0 => self.scalar = true,
                _ => {}
            }
        }
        (bytes.len(), false)
    }
}

/// The kinds of value that tell what a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Object,
    Array,
    Other,
}

/// One member of an object as far as it can be seen: its key, what its value is, and the keys of the value (of the first
/// element, if it is an array).
#[derive(Debug)]
struct Seen<'a> {
    key: &'a [u8],
    kind: Kind,
    keys: Vec<&'a [u8]>,
}

/// Names that formats use for a field; an object that has one of them at its top is a record.
const FIELDS: [&str; 16] = [
    "chosen",
    "completion",
    "conversation",
    "conversations",
    "dialog",
    "dialogue",
    "documents",
    "functions",
    "history",
    "log",
    "messages",
    "prompt",
    "rejected",
    "tools",
    "traj",
    "turns",
];
/// How many members of an object are looked at.
const LOOKED_AT: usize = 8;

/// Whether the object at the start of `bytes` holds records, each under its id: its members are objects alike, or lists
/// of objects alike, and none of them is called as a field of a record is. To be asked only of an object that is all that
/// the file holds, as far as one can see: lines of objects alike are records.
pub(super) fn is_keyed_by_id(bytes: &[u8]) -> bool {
    let members = members(bytes);
    let Some(first) = members.first() else { return false };
    if first.kind == Kind::Other || first.keys.is_empty() {
        return false;
    }
    let alike = |member: &Seen<'_>| {
        member.kind == first.kind && member.keys.iter().any(|key| first.keys.contains(key)) || member.is_cut_off()
    };
    let is_field = |member: &Seen<'_>| FIELDS.iter().any(|field| field.as_bytes() == member.key);
    let seen = members.iter().filter(|member| !member.is_cut_off()).count();
    members.iter().all(alike) && !members.iter().any(is_field) && (seen > 1 || first.kind == Kind::Object)
}

impl Seen<'_> {
    /// Whether nothing of its value could be seen yet.
    fn is_cut_off(&self) -> bool {
        self.kind != Kind::Other && self.keys.is_empty()
    }
}

fn members(bytes: &[u8]) -> Vec<Seen<'_>> {
    let mut cursor = Cursor { bytes, at: 1 };
    let mut seen = Vec::new();
    while seen.len() < LOOKED_AT {
        let Some(key) = cursor.key() else { break };
        let value = cursor.rest();
        let (kind, inner) = match value.first() {
            Some(b'{') => (Kind::Object, value),
            Some(b'[') => {
                let mut inside = Cursor { bytes: value, at: 1 };
                inside.space();
                (Kind::Array, inside.rest())
            }
            Some(_) => (Kind::Other, value),
            None => break,
        };
        let keys = if inner.first() == Some(&b'{') { keys(inner) } else { Vec::new() };
        // A list of something else than objects is no dialogue.
        let kind = if kind == Kind::Array && !matches!(inner.first(), Some(b'{') | None) { Kind::Other } else { kind };
        seen.push(Seen { key, kind, keys });
        if !cursor.skip_value() {
            break;
        }
    }
    seen
}

/// The keys of the object at the start of `bytes`, as far as they can be seen.
fn keys(bytes: &[u8]) -> Vec<&[u8]> {
    let mut cursor = Cursor { bytes, at: 1 };
    let mut keys = Vec::new();
    while let Some(key) = cursor.key() {
        keys.push(key);
        if keys.len() == 4 * LOOKED_AT || !cursor.skip_value() {
            break;
        }
    }
    keys
}

/// A place between the brackets of an object.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at.min(self.bytes.len())..]
    }

    fn space(&mut self) {
        self.at += self.rest().iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    }

    /// Goes over a key and its colon; `None` at the end of the object, or where this is none.
    fn key(&mut self) -> Option<&'a [u8]> {
        self.space();
        if self.rest().first() == Some(&b',') {
            self.at += 1;
            self.space();
        }
        if self.rest().first() != Some(&b'"') {
            return None;
        }
        let (length, ended) = Scan::default().advance(self.rest());
        let key = self.rest().get(1..length.checked_sub(1)?)?;
        self.at += length;
        self.space();
        if !ended || self.rest().first() != Some(&b':') {
            return None;
        }
        self.at += 1;
        self.space();
        Some(key)
    }

    /// Goes over a value; whether its end could be seen.
    fn skip_value(&mut self) -> bool {
        let (length, ended) = Scan::default().advance(self.rest());
        self.at += length;
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_keyed_by_id_are_told_from_records() {
        for (text, is_keyed) in [
            (r#"{"d1": {"log": []}, "d2": {"log": []}}"#, true),
            (r#"{"d1": [{"role": "user"}], "d2": [{"role": "user"}]}"#, true),
            (r#"{"d1": {"log": []}}"#, true),
            (r#"{"d1": {"log": [], "goal": {}}, "d2": {"goal": {}, "log""#, true),
            (r#"{"d1": [{"role": "user"}]}"#, false),
            (r#"{"messages": [{"role": "user"}], "tools": [{"type": "function"}]}"#, false),
            (r#"{"chosen": [{"role": "user"}], "rejected": [{"role": "user"}]}"#, false),
            (r#"{"goal": {"a": 1}, "metadata": {"b": 1}, "messages": []}"#, false),
            (r#"{"id": "x", "messages": []}"#, false),
            (r#"{"a": [1], "b": [2]}"#, false),
            ("{}", false),
            ("{", false),
            (r#"{"a"#, false),
        ] {
            assert_eq!(is_keyed_by_id(text.as_bytes()), is_keyed, "{text}");
        }
    }
}
