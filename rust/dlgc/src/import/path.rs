//! Places in a record, as authors of formats write them: `ticket.thread`, `turns[]`, `messages[-1].text`.

use crate::json::{Fields, Json, Node};

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

impl<'a> Fields<'a> {
    /// Takes what stands at a path out, with the elements of inner lists one after the other where it says so.
    pub(in crate::import) fn take_path(&mut self, path: &Path) -> Option<Node<'a>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

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
