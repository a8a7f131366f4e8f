//! The members of an object, taken out one by one, so that what nobody took is known at the end.

use std::borrow::Cow;
use std::ops::Range;

use super::{Json, Member, Node};

/// The members of an object, taken out one by one.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    /// Where the object stands.
    pub(crate) range: Range<usize>,
    /// Those that nobody has taken.
    pub(crate) members: Vec<Member<'a>>,
}

impl<'a> Fields<'a> {
    /// The members of an object; of anything else there are none.
    pub(crate) fn of(node: Node<'a>) -> Self {
        let members = match node.value {
            Json::Object(members) => members,
            _ => Vec::new(),
        };
        Self { range: node.range, members }
    }

    /// Takes a member out; null counts as absent.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node<'a>> {
        let index = self.members.iter().position(|member| member.key == key)?;
        Some(self.members.remove(index).node).filter(|node| !node.is_null())
    }

    /// Takes the first of several members that is there.
    pub(crate) fn take_any(&mut self, keys: &[&str]) -> Option<Node<'a>> {
        keys.iter().find_map(|key| self.take(key))
    }

    /// Takes a string out; anything else stays.
    pub(crate) fn text(&mut self, key: &str) -> Option<Cow<'a, str>> {
        self.get(key)?.as_str()?;
        match self.take(key)?.value {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// Takes the elements of a list out; none where there is no list.
    pub(crate) fn list(&mut self, key: &str) -> Vec<Node<'a>> {
        match self.get(key).map(|node| &node.value) {
            Some(Json::Array(_)) => self.take(key).map_or_else(Vec::new, Node::into_elements),
            _ => Vec::new(),
        }
    }

    /// Takes the members of an object out; none where there is no object.
    pub(crate) fn fields(&mut self, key: &str) -> Fields<'a> {
        self.take(key).map_or_else(|| Fields { range: self.range.clone(), members: Vec::new() }, Fields::of)
    }

    /// Puts what is made of a member in its place.
    pub(crate) fn change(&mut self, key: &str, change: impl FnOnce(Node<'a>) -> Node<'a>) {
        if let Some(member) = self.members.iter_mut().find(|member| member.key == key) {
            let nothing = Node::new(member.node.range.clone(), Json::Null);
            member.node = change(std::mem::replace(&mut member.node, nothing));
        }
    }

    /// A member that stays.
    pub(crate) fn get(&self, key: &str) -> Option<&Node<'a>> {
        self.members.iter().find(|member| member.key == key).map(|member| &member.node)
    }

    /// The object that is left, with one more member.
    pub(crate) fn with(mut self, key: &'static str, node: Option<Node<'a>>) -> Node<'a> {
        let key_range = self.range.clone();
        self.members.extend(node.map(|node| Member { key: key.into(), key_range, node }));
        self.into_node()
    }

    /// The object that is left.
    pub(crate) fn into_node(self) -> Node<'a> {
        Node::new(self.range, Json::Object(self.members))
    }
}
