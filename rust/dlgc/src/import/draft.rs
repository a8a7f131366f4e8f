//! The words in which importers are written: members taken out of objects, paths, and dialogues in the making.
//!
//! An importer takes what it understands out of a record and says it again in the native shape. Whatever is left of a
//! message becomes its `annotations`, whatever is left of the record its `metadata`: nothing of the source is lost, and no
//! field of another format is taken for a native one that happens to have its name.

use std::borrow::Cow;
use std::ops::Range;

use super::embedded;
use crate::json::{self, Json, Member, Node, object, string};

/// The members of an object, taken out one by one.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    /// Where the object stands.
    pub(super) range: Range<usize>,
    members: Vec<Member<'a>>,
}

impl<'a> Fields<'a> {
    /// The members of an object; of anything else there are none.
    pub(super) fn of(node: Node<'a>) -> Self {
        let members = match node.value {
            Json::Object(members) => members,
            _ => Vec::new(),
        };
        Self { range: node.range, members }
    }

    /// Takes a member out; null counts as absent.
    pub(super) fn take(&mut self, key: &str) -> Option<Node<'a>> {
        let index = self.members.iter().position(|member| member.key == key)?;
        Some(self.members.remove(index).node).filter(|node| !node.is_null())
    }

    /// Takes the first of several members that is there.
    pub(super) fn take_any(&mut self, keys: &[&str]) -> Option<Node<'a>> {
        keys.iter().find_map(|key| self.take(key))
    }

    /// Takes a string out; anything else stays.
    pub(super) fn text(&mut self, key: &str) -> Option<Cow<'a, str>> {
        self.get(key)?.as_str()?;
        match self.take(key)?.value {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// Takes the elements of a list out; none where there is no list.
    pub(super) fn list(&mut self, key: &str) -> Vec<Node<'a>> {
        match self.get(key).map(|node| &node.value) {
            Some(Json::Array(_)) => self.take(key).map_or_else(Vec::new, elements),
            _ => Vec::new(),
        }
    }

    /// Takes the members of an object out; none where there is no object.
    pub(super) fn fields(&mut self, key: &str) -> Fields<'a> {
        self.take(key).map_or_else(|| Fields { range: self.range.clone(), members: Vec::new() }, Fields::of)
    }

    /// A member that stays.
    pub(super) fn get(&self, key: &str) -> Option<&Node<'a>> {
        self.members.iter().find(|member| member.key == key).map(|member| &member.node)
    }

    /// Takes what stands at a path out, with the elements of inner lists one after the other where it says so.
    pub(super) fn take_path(&mut self, path: &Path) -> Option<Node<'a>> {
        let mut steps = path.0.iter();
        let Step::Key(key) = steps.next()? else { return None };
        let index = self.members.iter().position(|member| member.key == *key)?;
        if path.0.len() == 1 {
            return self.take(key);
        }
        let mut node = &mut self.members[index].node;
        for step in steps.clone().take(path.0.len() - 2) {
            node = step.inside(node)?;
        }
        let found = match path.0.last()? {
            Step::Each => flat(std::mem::replace(node, Node::new(node.range.clone(), Json::Null)))?,
            Step::At(at) => {
                let Json::Array(elements) = &mut node.value else { return None };
                let index = resolve(*at, elements.len())?;
                elements.swap_remove(index)
            }
            Step::Key(key) => {
                let Json::Object(members) = &mut node.value else { return None };
                let index = members.iter().position(|member| member.key == *key)?;
                members.remove(index).node
            }
        };
        // What nothing is left of is no metadata.
        if matches!(&self.members[index].node.value, Json::Null)
            || self.members[index].node.as_object().is_some_and(<[_]>::is_empty)
        {
            self.members.remove(index);
        }
        Some(found).filter(|node| !node.is_null())
    }

    /// The object that is left, with one more member.
    pub(super) fn with(mut self, key: &'static str, node: Option<Node<'a>>) -> Node<'a> {
        let key_range = self.range.clone();
        self.members.extend(node.map(|node| Member { key: key.into(), key_range, node }));
        self.into_node()
    }

    /// The object that is left.
    pub(super) fn into_node(self) -> Node<'a> {
        Node::new(self.range, Json::Object(self.members))
    }

    fn drain(&mut self) -> std::vec::Drain<'_, Member<'a>> {
        self.members.drain(..)
    }
}

/// The elements of a list; of anything else there are none.
pub(super) fn elements(node: Node<'_>) -> Vec<Node<'_>> {
    match node.value {
        Json::Array(elements) => elements,
        _ => Vec::new(),
    }
}

/// A list of lists as one list.
fn flat(node: Node<'_>) -> Option<Node<'_>> {
    let range = node.range.clone();
    let Json::Array(lists) = node.value else { return None };
    let mut flat = Vec::new();
    for list in lists {
        match list.value {
            Json::Array(elements) => flat.extend(elements),
            _ => flat.push(list),
        }
    }
    Some(Node::new(range, Json::Array(flat)))
}

fn resolve(at: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let index = if at < 0 { at + length } else { at };
    (0..length).contains(&index).then_some(index as usize)
}

/// A place in a record: `ticket.thread`, `answer.messages[-1]`, `turns[]` (the elements of its lists, one after the
/// other), `"a.b".c` (a key with a dot).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    At(i64),
    Each,
}

impl Step {
    fn inside<'n, 'a>(&self, node: &'n mut Node<'a>) -> Option<&'n mut Node<'a>> {
        match (self, &mut node.value) {
            (Self::Key(key), Json::Object(members)) => {
                members.iter_mut().find(|member| member.key == *key).map(|member| &mut member.node)
            }
            (Self::At(at), Json::Array(elements)) => {
                let index = resolve(*at, elements.len())?;
                elements.get_mut(index)
            }
            _ => None,
        }
    }
}

impl Path {
    /// Reads a path; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            let (key, after) = match rest.strip_prefix('"') {
                Some(quoted) => {
                    quoted.split_once('"').ok_or_else(|| format!("a quote is open in the path `{text}`"))?
                }
                None => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
            };
            if key.is_empty() {
                return Err(format!("a key is missing in the path `{text}`"));
            }
            steps.push(Step::Key(key.to_owned()));
            rest = after;
            while let Some(inner) = rest.strip_prefix('[') {
                let (index, after) =
                    inner.split_once(']').ok_or_else(|| format!("a bracket is open in the path `{text}`"))?;
                steps.push(match index {
                    "" => Step::Each,
                    _ => Step::At(index.parse().map_err(|_| format!("`{index}` is no index in the path `{text}`"))?),
                });
                rest = after;
            }
            match rest.strip_prefix('.') {
                Some(after) => rest = after,
                None if rest.is_empty() => return Ok(Self(steps)),
                None => return Err(format!("`{rest}` follows a bracket in the path `{text}`")),
            }
        }
    }

    /// The member of a record with this key, whatever letters it has.
    pub(super) fn of_key(key: &str) -> Self {
        Self(vec![Step::Key(key.to_owned())])
    }

    /// Whether something stands there; of lists, in their first element.
    pub(super) fn is_in(&self, node: &Node<'_>) -> bool {
        let mut node = node;
        for step in &self.0 {
            let next = match step {
                Step::Key(key) => node.get_some(key),
                Step::At(at) => node.as_array().and_then(|list| list.get(resolve(*at, list.len())?)),
                Step::Each => node.as_array().and_then(|list| list.first()),
            };
            let Some(next) = next else { return false };
            node = next;
        }
        true
    }
}

/// A message in the making.
pub(super) struct Turn<'a> {
    range: Range<usize>,
    members: Vec<(&'static str, Node<'a>)>,
}

impl<'a> Turn<'a> {
    /// A message of a role that stands, or stood, at `range`.
    pub(super) fn new(range: &Range<usize>, role: impl Into<Cow<'a, str>>) -> Self {
        Self { range: range.clone(), members: vec![("role", string(range, role))] }
    }

    pub(super) fn with(mut self, field: &'static str, node: Option<Node<'a>>) -> Self {
        self.members.extend(node.map(|node| (field, node)));
        self
    }

    pub(super) fn content(self, node: Option<Node<'a>>) -> Self {
        self.with("content", node)
    }

    /// Text that does not stand in the record by itself.
    pub(super) fn says(self, text: impl Into<Cow<'a, str>>) -> Self {
        let node = string(&self.range, text);
        self.content(Some(node))
    }

    pub(super) fn calls(self, calls: Vec<Node<'a>>) -> Self {
        let range = self.range.clone();
        self.with("tool_calls", (!calls.is_empty()).then(|| Node::new(range, Json::Array(calls))))
    }

    /// What is known after this turn; nothing where nothing is.
    pub(super) fn state(self, intent: Option<Node<'a>>, slots: Vec<(String, Node<'a>)>) -> Self {
        let range = self.range.clone();
        let mut state: Vec<(&'static str, Node<'a>)> = Vec::new();
        state.extend(intent.map(|intent| ("intent", intent)));
        state.push(("slots", named(&range, slots)));
        self.with("state", Some(object(&range, state)))
    }

    /// Keeps what the source says of the message beside it.
    pub(super) fn annotations(self, rest: Fields<'a>) -> Self {
        let left = !rest.members.is_empty();
        self.with("annotations", left.then(|| rest.into_node()))
    }

    pub(super) fn node(self) -> Node<'a> {
        object(&self.range, self.members)
    }
}

/// An object with keys that are made as it is.
pub(super) fn named<'a>(range: &Range<usize>, members: Vec<(String, Node<'a>)>) -> Node<'a> {
    let member = |(key, node): (String, Node<'a>)| Member { key: key.into(), key_range: range.clone(), node };
    Node::new(range.clone(), Json::Object(members.into_iter().map(member).collect()))
}

/// A call of a tool; `arguments` is an object, or a string that holds one.
pub(super) fn call<'a>(range: &Range<usize>, id: Option<String>, name: Node<'a>, arguments: Node<'a>) -> Node<'a> {
    let function = object(range, vec![("name", name), ("arguments", arguments)]);
    let mut members = Vec::new();
    members.extend(id.map(|id| ("id", string(range, id))));
    members.extend([("type", string(range, "function")), ("function", function)]);
    object(range, members)
}

/// A function that the assistant may call.
pub(super) fn tool<'a>(
    range: &Range<usize>,
    name: Node<'a>,
    description: Option<Node<'a>>,
    parameters: Node<'a>,
) -> Node<'a> {
    let mut function = vec![("name", name)];
    function.extend(description.map(|description| ("description", description)));
    function.push(("parameters", parameters));
    object(range, vec![("type", string(range, "function")), ("function", object(range, function))])
}

/// The JSON Schema of a function's arguments.
pub(super) fn parameters<'a>(
    range: &Range<usize>,
    properties: Vec<(String, Node<'a>)>,
    required: Vec<Node<'a>>,
) -> Node<'a> {
    let required = Node::new(range.clone(), Json::Array(required));
    let properties = named(range, properties);
    object(range, vec![("type", string(range, "object")), ("properties", properties), ("required", required)])
}

/// What a tool returned, as text: strings as they are, anything else as JSON.
pub(super) fn result_text(result: Node<'_>) -> Node<'_> {
    match result.value {
        Json::String(_) => result,
        _ => string(&result.range.clone(), json::dumps(&result)),
    }
}

/// A number or a truth as text; anything else as it is.
pub(super) fn plain(node: Node<'_>) -> Node<'_> {
    match node.value {
        Json::Number(text) => string(&node.range, text),
        Json::Bool(value) => string(&node.range, value.to_string()),
        value => Node::new(node.range, value),
    }
}

/// JSON that may stand in a string.
pub(super) fn unwrapped(node: Node<'_>) -> Node<'_> {
    match embedded(&node) {
        Ok(Some(inner)) => inner,
        _ => node,
    }
}

/// A dialogue in the making.
pub(super) struct Draft<'a> {
    record: Fields<'a>,
    native: Vec<(&'static str, Node<'a>)>,
    pub(super) messages: Vec<Node<'a>>,
}

impl<'a> Draft<'a> {
    /// Begins with what is left of a record.
    pub(super) fn of(record: Fields<'a>) -> Self {
        Self { record, native: Vec::new(), messages: Vec::new() }
    }

    /// Gives a native field a value.
    pub(super) fn set(&mut self, field: &'static str, node: Option<Node<'a>>) {
        self.native.extend(node.map(|node| (field, node)));
    }

    /// Gives a native field text.
    pub(super) fn set_text(&mut self, field: &'static str, text: impl Into<Cow<'a, str>>) {
        let node = string(&self.record.range, text);
        self.set(field, Some(node));
    }

    /// Adds a message.
    pub(super) fn say(&mut self, turn: Turn<'a>) {
        self.messages.push(turn.node());
    }

    /// The dialogue in native shape.
    pub(super) fn node(mut self) -> Node<'a> {
        let range = self.record.range.clone();
        let given = self.native.iter().position(|(name, _)| *name == "metadata");
        let mut rest = match given {
            Some(at) => Fields::of(self.native.remove(at).1),
            None => self.record.fields("metadata"),
        };
        let known: Vec<Cow<'a, str>> = rest.members.iter().map(|member| member.key.clone()).collect();
        rest.members.extend(self.record.drain().filter(|member| !known.contains(&member.key)));
        let mut members = Vec::new();
        for field in ["id", "type"] {
            let at = self.native.iter().position(|(name, _)| *name == field);
            members.extend(at.map(|at| self.native.remove(at)));
        }
        members.push(("messages", Node::new(range.clone(), Json::Array(self.messages))));
        members.append(&mut self.native);
        if !rest.members.is_empty() {
            members.push(("metadata", Node::new(range.clone(), Json::Object(rest.members))));
        }
        object(&range, members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(record: &str, path: &str) -> (Option<String>, String) {
        let mut fields = Fields::of(json::parse(record.as_bytes()).expect("JSON").root);
        let found = fields.take_path(&Path::parse(path).expect("a path"));
        (found.map(|node| json::dumps(&node)), json::dumps(&fields.into_node()))
    }

    #[test]
    fn a_path_takes_out_what_stands_there() {
        let record = r#"{"a": {"b": [1, 2, 3], "c.d": 4}, "e": [[5], [6, 7]]}"#;
        assert_eq!(taken(record, "a.b[-1]").0.as_deref(), Some("3"));
        assert_eq!(taken(record, "a.\"c.d\"").1, r#"{"a": {"b": [1, 2, 3]}, "e": [[5], [6, 7]]}"#);
        let whole = taken(record, "e[]");
        assert_eq!((whole.0.as_deref(), &*whole.1), (Some("[5, 6, 7]"), r#"{"a": {"b": [1, 2, 3], "c.d": 4}}"#));
        assert_eq!(taken(record, "a.x").0, None);
        for (path, said) in [("", "a key is missing"), ("a..b", "a key is missing"), ("a[x]", "`x` is no index")] {
            assert!(Path::parse(path).expect_err("no path").contains(said));
        }
    }
}
