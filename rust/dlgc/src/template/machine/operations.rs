//! Python's operations: truth, comparison, arithmetic, subscripts, `str` and `repr`.

use std::rc::Rc;

use super::trace::Question;
use super::value::{Sequence, Text, Value};
use super::{Done, Machine, refuse};
use crate::json::python_float;
use crate::template::program::{Arithmetic, Comparison, Expression};

/// Longest text or list that a multiplication makes.
const LARGEST_PRODUCT: usize = 1 << 20;

impl<'a> Machine<'a> {
    pub(super) fn is_true(&mut self, value: &Value<'a>) -> bool {
        match value {
            Value::Undefined | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(text) => !self.is(text, Question::Empty, &[]),
            Value::Sequence(_, items) => !items.is_empty(),
            Value::Array(nodes) => !nodes.is_empty(),
            Value::Object(members) => !members.is_empty(),
            Value::Dict(pairs) => !pairs.is_empty(),
            Value::Messages(start) | Value::Reversed(start) => self.message(*start).is_some(),
            Value::Count(offset) => !self.compare_count(Comparison::Equal, *offset, 0),
            _ => true,
        }
    }

    /// Compares the number of messages, plus an offset, with a number, and notes how far that holds.
    fn compare_count(&mut self, comparison: Comparison, offset: i128, with: i128) -> bool {
        self.forget();
        self.compare_count_unnoted(comparison, offset, with)
    }

    /// The same, where what a lesson learns is noted already.
    pub(super) fn compare_count_unnoted(&mut self, comparison: Comparison, offset: i128, with: i128) -> bool {
        let length = (self.count as i128).saturating_add(offset);
        let (holds, least) = match comparison {
            // With fewer messages it stays less; it is greater down to a certain number.
            Comparison::Less => (length < with, (length >= with).then_some(with)),
            Comparison::LessOrEqual => (length <= with, (length > with).then(|| with.saturating_add(1))),
            Comparison::Greater => (length > with, (length > with).then(|| with.saturating_add(1))),
            Comparison::GreaterOrEqual => (length >= with, (length >= with).then_some(with)),
            Comparison::Equal | Comparison::Unequal => {
                let least = if length == with { Some(length) } else { (length > with).then(|| with.saturating_add(1)) };
                ((length == with) == (comparison == Comparison::Equal), least)
            }
            Comparison::In | Comparison::NotIn => (false, Some(length)),
        };
        if let Some(least) = least {
            self.need(usize::try_from(least.saturating_sub(offset)).unwrap_or(0));
        }
        holds
    }

    /// The number as it is now; another number of messages changes it.
    fn counted(&mut self, offset: i128) -> i128 {
        self.need_all();
        (self.count as i128).saturating_add(offset)
    }

    /// A value without anything that depends on how many messages are shown.
    pub(super) fn settled(&mut self, value: &Value<'a>) -> Value<'a> {
        match value {
            Value::Count(offset) => Value::Int(self.counted(*offset)),
            Value::Messages(start) => {
                self.need_all();
                Value::list((*start..self.count).filter_map(|number| self.message(number)).collect())
            }
            Value::Reversed(start) => {
                self.need_all();
                Value::list((*start..self.count).rev().filter_map(|number| self.message(number)).collect())
            }
            other => other.clone(),
        }
    }

    pub(super) fn compare(&mut self, comparison: Comparison, left: &Value<'a>, right: &Value<'a>) -> Done<bool> {
        match (left, right) {
            (Value::Count(offset), Value::Int(with)) if !is_membership(comparison) => {
                return Ok(self.compare_count(comparison, *offset, *with));
            }
            (Value::Int(with), Value::Count(offset)) if !is_membership(comparison) => {
                return Ok(self.compare_count(comparison.turned(), *offset, *with));
            }
            _ => {}
        }
        Ok(match comparison {
            Comparison::Equal => self.equal(left, right)?,
            Comparison::Unequal => !self.equal(left, right)?,
            Comparison::In => self.contains(right, left)?,
            Comparison::NotIn => !self.contains(right, left)?,
            Comparison::Less => self.order(left, right, "<")?.is_some_and(std::cmp::Ordering::is_lt),
            Comparison::LessOrEqual => self.order(left, right, "<=")?.is_some_and(std::cmp::Ordering::is_le),
            Comparison::Greater => self.order(left, right, ">")?.is_some_and(std::cmp::Ordering::is_gt),
            Comparison::GreaterOrEqual => self.order(left, right, ">=")?.is_some_and(std::cmp::Ordering::is_ge),
        })
    }

    /// Python's `==`.
    pub(super) fn equal(&mut self, left: &Value<'a>, right: &Value<'a>) -> Done<bool> {
        self.burn(0)?;
        Ok(match (left, right) {
            (Value::Text(left), Value::Text(right)) => {
                let (asked, with) = if left.origin() == 0 { (right, left) } else { (left, right) };
                self.is(asked, Question::Equal, &[with.as_str()])
            }
            (Value::Undefined, Value::Undefined) | (Value::None, Value::None) => true,
            (Value::Huge(left), Value::Huge(right)) => left == right,
            (Value::Namespace(left), Value::Namespace(right)) | (Value::Generator(left), Value::Generator(right)) => {
                left == right
            }
            (Value::Count(_) | Value::Messages(_) | Value::Reversed(_), _)
            | (_, Value::Count(_) | Value::Messages(_) | Value::Reversed(_)) => {
                let (left, right) = (self.settled(left), self.settled(right));
                self.equal(&left, &right)?
            }
            (Value::Object(_) | Value::Dict(_), Value::Object(_) | Value::Dict(_)) => {
                let (left, right) = (self.members(left)?, self.members(right)?);
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (key, value) in &left {
                    let mut found = None;
                    for (other, other_value) in &right {
                        if self.equal(key, other)? {
                            found = Some(other_value);
                        }
                    }
                    let Some(other_value) = found else { return Ok(false) };
                    if !self.deeper(|machine| machine.equal(value, other_value))? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => {
                if let (Some(left), Some(right)) = (float(left), float(right)) {
                    return Ok(match (integer(left.1), integer(right.1)) {
                        (Some(left), Some(right)) => left == right,
                        #[expect(clippy::float_cmp, reason = "Python compares exactly too")]
                        _ => left.0 == right.0,
                    });
                }
                let (Some(left), Some(right)) = (list(left), list(right)) else { return Ok(false) };
                if left.0 != right.0 || left.1.len() != right.1.len() {
                    return Ok(false);
                }
                for (left, right) in left.1.iter().zip(&right.1) {
                    if !self.deeper(|machine| machine.equal(left, right))? {
                        return Ok(false);
                    }
                }
                true
            }
        })
    }

    /// Python's `<` and its kin; `None` where a number is none.
    pub(super) fn order(
        &mut self,
        left: &Value<'a>,
        right: &Value<'a>,
        operator: &str,
    ) -> Done<Option<std::cmp::Ordering>> {
        let (left, right) = (self.settled(left), self.settled(right));
        if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
            return Ok(Some(left.cmp(right)));
        }
        if let (Some(left), Some(right)) = (float(&left), float(&right)) {
            return Ok(match (integer(left.1), integer(right.1)) {
                (Some(left), Some(right)) => Some(left.cmp(&right)),
                _ => left.0.partial_cmp(&right.0),
            });
        }
        if let (Some(one), Some(other)) = (list(&left), list(&right))
            && one.0 == other.0
        {
            for (left, right) in one.1.iter().zip(&other.1) {
                if !self.equal(left, right)? {
                    return self.deeper(|machine| machine.order(left, right, operator));
                }
            }
            return Ok(Some(one.1.len().cmp(&other.1.len())));
        }
        let (left, right) = (left.kind(), right.kind());
        refuse(format!("'{operator}' not supported between instances of '{left}' and '{right}'"))
    }

    /// Python's `in`.
    pub(super) fn contains(&mut self, container: &Value<'a>, value: &Value<'a>) -> Done<bool> {
        match container {
            Value::Text(text) => match value.as_str() {
                Some(part) => {
                    self.burn(text.unseen().len() / 64)?;
                    Ok(self.is(text, Question::Holds, &[part]))
                }
                None => refuse(format!("'in <string>' requires string as left operand, not {}", value.kind())),
            },
            Value::Object(members) => Ok(value.as_str().is_some_and(|key| members.iter().any(|it| it.key == key))),
            _ => {
                for item in self.iterate(container)? {
                    if self.equal(&item, value)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }

    pub(super) fn negate(&mut self, value: &Value<'a>) -> Done<Value<'a>> {
        match self.settled(value) {
            Value::Int(value) => Ok(Value::Int(value.saturating_neg())),
            Value::Bool(value) => Ok(Value::Int(-i128::from(value))),
            Value::Float(value) => Ok(Value::Float(-value)),
            other => refuse(format!("bad operand type for unary -: '{}'", other.kind())),
        }
    }

    pub(super) fn arithmetic(&mut self, operation: Arithmetic, left: &Value<'a>, right: &Value<'a>) -> Done<Value<'a>> {
        match (operation, left, right) {
            (Arithmetic::Join, ..) => {
                let (left, right) = (self.text(left)?, self.text(right)?);
                return self.joined(&left, &right, false);
            }
            (Arithmetic::Add, Value::Text(left), Value::Text(right)) => {
                if left.safe != right.safe {
                    let escaped =
                        |text: &Text<'a>| if text.safe { text.as_str().to_owned() } else { escape(text.as_str()) };
                    let (left, right) = (Text::from(escaped(left)), Text::from(escaped(right)));
                    return self.joined(&left, &right, true);
                }
                return self.joined(left, right, left.safe);
            }
            (Arithmetic::Add, Value::Count(offset), Value::Int(by))
            | (Arithmetic::Add, Value::Int(by), Value::Count(offset)) => {
                return Ok(Value::Count(offset.saturating_add(*by)));
            }
            (Arithmetic::Subtract, Value::Count(offset), Value::Int(by)) => {
                return Ok(Value::Count(offset.saturating_sub(*by)));
            }
            (Arithmetic::Subtract, Value::Count(left), Value::Count(right)) => {
                return Ok(Value::Int(left.saturating_sub(*right)));
            }
            (Arithmetic::Remainder, Value::Text(format), _) => {
                let format = format.clone();
                return self.percent(format.as_str(), right);
            }
            _ => {}
        }
        let (left, right) = (self.settled(left), self.settled(right));
        if let (Some(one), Some(other)) = (float(&left), float(&right)) {
            return numbers(operation, one, other);
        }
        match (operation, &left, &right) {
            (Arithmetic::Add, _, _) => {
                if let (Some(one), Some(other)) = (list(&left), list(&right))
                    && one.0 == other.0
                {
                    self.burn(one.1.len() + other.1.len())?;
                    let items = one.1.into_iter().chain(other.1).collect();
                    return Ok(Value::Sequence(one.0, Rc::new(items)));
                }
            }
            (Arithmetic::Multiply, Value::Text(text), Value::Int(times))
            | (Arithmetic::Multiply, Value::Int(times), Value::Text(text)) => {
                let times = usize::try_from(*times).unwrap_or(0);
                if text.as_str().len().saturating_mul(times) > LARGEST_PRODUCT {
                    return refuse("a repeated text that is too long");
                }
                self.burn(text.as_str().len() * times / 64)?;
                return Ok(Value::from(text.as_str().repeat(times)));
            }
            (Arithmetic::Multiply, Value::Sequence(kind, items), Value::Int(times)) => {
                let times = usize::try_from(*times).unwrap_or(0);
                if items.len().saturating_mul(times) > LARGEST_PRODUCT / 16 {
                    return refuse("a repeated list that is too long");
                }
                self.burn(items.len() * times)?;
                let repeated = std::iter::repeat_n(&**items, times).flatten().cloned().collect();
                return Ok(Value::Sequence(*kind, Rc::new(repeated)));
            }
            _ => {}
        }
        let (left, right) = (left.kind(), right.kind());
        refuse(format!("unsupported operand types for {operation:?}: '{left}' and '{right}'"))
    }

    fn joined(&mut self, left: &Text<'a>, right: &Text<'a>, safe: bool) -> Done<Value<'a>> {
        let origin = self.origin_of_both(left, right);
        let (left, right) = (left.unseen(), right.unseen());
        self.burn((left.len() + right.len()) / 64)?;
        let mut joined = String::with_capacity(left.len() + right.len());
        joined.push_str(left);
        joined.push_str(right);
        Ok(Value::Text(Text::from(joined).marked(safe).made_of(origin)))
    }

    /// `format % values`.
    pub(super) fn percent(&mut self, format: &str, values: &Value<'a>) -> Done<Value<'a>> {
        let mut values = match values {
            Value::Sequence(Sequence::Tuple, items) => items.to_vec(),
            other => vec![other.clone()],
        }
        .into_iter();
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let kind = rest.chars().next();
            rest = &rest[kind.map_or(0, char::len_utf8)..];
            if kind == Some('%') {
                out.push('%');
                continue;
            }
            let Some(value) = values.next() else { return refuse("not enough arguments for format string") };
            match kind {
                Some('s') => out.push_str(self.text(&value)?.as_str()),
                Some('r') => out.push_str(&self.repr(&value)?),
                Some('d' | 'i') => out.push_str(&self.integer(&value)?.to_string()),
                _ => return refuse("of the formats of `%` only %s, %r, %d and %% are known"),
            }
        }
        if values.next().is_some() {
            return refuse("not all arguments converted during string formatting");
        }
        out.push_str(rest);
        Ok(Value::from(out))
    }

    // ---- parts of values

    /// `value.name`: what Jinja looks for as an attribute first.
    pub(super) fn attribute(&mut self, value: &Value<'a>, name: &'a str) -> Done<Value<'a>> {
        if name.starts_with("__") {
            return Ok(Value::Undefined);
        }
        match value {
            Value::Object(members) if !super::methods::of_dict(name) => {
                Ok(members.iter().find(|member| member.key == name).map_or(Value::Undefined, |it| Value::of(&it.node)))
            }
            Value::Dict(pairs) if !super::methods::of_dict(name) => {
                Ok(pairs.iter().find(|(key, _)| key.as_str() == Some(name)).map_or(Value::Undefined, |it| it.1.clone()))
            }
            Value::Namespace(number) => {
                self.reads(*number, name);
                let found = self.namespaces[*number].iter().find(|(known, _)| known == name);
                Ok(found.map_or(Value::Undefined, |(_, value)| value.clone()))
            }
            Value::Loop(turn) => match name {
                "cycle" | "changed" => {
                    self.forget();
                    Ok(Value::Method(Rc::new((value.clone(), name))))
                }
                _ => self.loop_attribute(&turn.clone(), name),
            },
            Value::Macro(number, _) if name == "name" => {
                let program = self.program;
                Ok(Value::from(program.names[program.macros[*number].name as usize].as_str()))
            }
            Value::Undefined => refuse(format!("something undefined has no attribute '{name}'")),
            _ if super::methods::is_one(value, name) => Ok(Value::Method(Rc::new((value.clone(), name)))),
            _ => Ok(Value::Undefined),
        }
    }

    /// `value[key]`.
    pub(super) fn item(&mut self, value: &Value<'a>, key: &Value<'a>) -> Done<Value<'a>> {
        match (value, key) {
            (Value::Undefined, _) => refuse("something undefined has no items"),
            (Value::Object(members), Value::Text(name)) => {
                match members.iter().find(|member| member.key == name.as_str()) {
                    Some(found) => Ok(Value::of(&found.node)),
                    None => self.method_by_item(value, name),
                }
            }
            (Value::Dict(pairs), _) => {
                for (known, found) in pairs.iter() {
                    if self.equal(known, key)? {
                        return Ok(found.clone());
                    }
                }
                match key {
                    Value::Text(name) => self.method_by_item(value, name),
                    _ => Ok(Value::Undefined),
                }
            }
            (Value::Namespace(number), Value::Text(name)) => {
                self.reads(*number, name.as_str());
                let found = self.namespaces[*number].iter().find(|(known, _)| known == name.as_str());
                Ok(found.map_or(Value::Undefined, |(_, value)| value.clone()))
            }
            (Value::Messages(start), Value::Int(index)) if *index >= 0 => {
                let number = usize::try_from(*index).unwrap_or(usize::MAX).saturating_add(*start);
                Ok(self.message(number).unwrap_or(Value::Undefined))
            }
            (
                Value::Text(_) | Value::Sequence(..) | Value::Array(_) | Value::Messages(_) | Value::Reversed(_),
                Value::Int(_) | Value::Bool(_) | Value::Count(_),
            ) => {
                let index = self.integer(key)?;
                let value = self.settled(value);
                self.at(&value, index)
            }
            (_, Value::Text(name)) => self.method_by_item(value, name),
            _ => Ok(Value::Undefined),
        }
    }

    /// `value['name']` falls back to the attribute.
    fn method_by_item(&mut self, value: &Value<'a>, name: &Text<'a>) -> Done<Value<'a>> {
        if super::methods::is_one(value, name.as_str()) {
            return refuse(format!("`{}` of a {} is a method", name.as_str(), value.kind()));
        }
        Ok(Value::Undefined)
    }

    fn at(&mut self, value: &Value<'a>, index: i128) -> Done<Value<'a>> {
        if let Value::Text(text) = value {
            let length = text.as_str().chars().count() as i128;
            let index = if index < 0 { index.saturating_add(length) } else { index };
            let character = usize::try_from(index).ok().and_then(|index| text.as_str().char_indices().nth(index));
            return Ok(character
                .map_or(Value::Undefined, |(at, character)| Value::Text(text.slice(at..at + character.len_utf8()))));
        }
        if let Value::Sequence(Sequence::View, _) = value {
            return Ok(Value::Undefined);
        }
        let length = match value {
            Value::Sequence(_, items) => items.len(),
            Value::Array(nodes) => nodes.len(),
            _ => 0,
        };
        let index = if index < 0 { index.saturating_add(length as i128) } else { index };
        let Some(index) = usize::try_from(index).ok().filter(|index| *index < length) else {
            return Ok(Value::Undefined);
        };
        Ok(match value {
            Value::Sequence(_, items) => items[index].clone(),
            Value::Array(nodes) => Value::of(&nodes[index]),
            _ => Value::Undefined,
        })
    }

    /// `value[start:stop:step]`.
    pub(super) fn slice(&mut self, parts: &'a [Option<Expression>; 4]) -> Done<Value<'a>> {
        let mut values = Vec::with_capacity(4);
        for part in parts {
            values.push(match part {
                None => None,
                Some(part) => Some(self.deep(part)?).filter(|value| !matches!(value, Value::None)),
            });
        }
        let (value, bounds) = (values[0].clone().unwrap_or(Value::None), &values[1..]);
        if let (Value::Messages(start), [Some(Value::Int(from)), None, None]) = (&value, bounds)
            && let Ok(from) = usize::try_from(*from)
            && start.saturating_add(from) <= self.count
        {
            self.need(start + from);
            self.forget();
            return Ok(Value::Messages(start + from));
        }
        if let (Value::Messages(start), [None, None, step @ (None | Some(Value::Int(-1)))]) = (&value, bounds) {
            return Ok(if step.is_some() { Value::Reversed(*start) } else { Value::Messages(*start) });
        }
        let mut numbers = [None; 3];
        for (number, bound) in numbers.iter_mut().zip(bounds) {
            if let Some(bound) = bound {
                *number = Some(self.integer(bound)?);
            }
        }
        let value = self.settled(&value);
        if let Value::Text(text) = &value {
            let places: Vec<usize> =
                text.as_str().char_indices().map(|(at, _)| at).chain([text.as_str().len()]).collect();
            self.burn(places.len() / 64)?;
            let chosen = indices(places.len() - 1, numbers)?;
            if numbers[2].unwrap_or(1) == 1 {
                let (first, last) = (chosen.first().copied().unwrap_or(0), chosen.last().map_or(0, |last| last + 1));
                let (start, end) = if chosen.is_empty() { (0, 0) } else { (places[first], places[last]) };
                return Ok(Value::Text(text.slice(start..end)));
            }
            let picked: String = chosen.iter().map(|&index| &text.as_str()[places[index]..places[index + 1]]).collect();
            return Ok(Value::Text(Text::from(picked).marked(text.safe)));
        }
        let (kind, items) = match &value {
            Value::Undefined => return refuse("something undefined has no items"),
            Value::Sequence(Sequence::View, _) => return Ok(Value::Undefined),
            Value::Sequence(kind, items) => (*kind, items.to_vec()),
            Value::Array(nodes) => (Sequence::List, nodes.iter().map(Value::of).collect()),
            _ => return Ok(Value::Undefined),
        };
        self.burn(items.len())?;
        let chosen = indices(items.len(), numbers)?.into_iter().map(|index| items[index].clone()).collect();
        Ok(Value::Sequence(kind, Rc::new(chosen)))
    }

    /// What a loop over a value goes through.
    pub(super) fn iterate(&mut self, value: &Value<'a>) -> Done<Vec<Value<'a>>> {
        let items = match value {
            Value::Undefined => Vec::new(),
            Value::Text(text) => {
                let pieces = text.as_str().char_indices();
                pieces.map(|(at, it)| Value::Text(text.slice(at..at + it.len_utf8()))).collect()
            }
            Value::Sequence(_, items) => items.to_vec(),
            Value::Array(nodes) => nodes.iter().map(Value::of).collect(),
            Value::Object(members) => members.iter().map(|member| Value::from(&*member.key)).collect(),
            Value::Dict(pairs) => pairs.iter().map(|(key, _)| key.clone()).collect(),
            Value::Messages(_) | Value::Reversed(_) => match self.settled(value) {
                Value::Sequence(_, items) => items.to_vec(),
                _ => Vec::new(),
            },
            Value::Generator(number) => self.generators[*number].take().map(|items| items.to_vec()).unwrap_or_default(),
            other => return refuse(format!("'{}' object is not iterable", other.kind())),
        };
        self.burn(items.len())?;
        Ok(items)
    }

    /// Keys and values of a dict.
    pub(super) fn members(&mut self, value: &Value<'a>) -> Done<Vec<(Value<'a>, Value<'a>)>> {
        let pairs: Vec<_> = match value {
            Value::Object(members) => {
                members.iter().map(|member| (Value::from(&*member.key), Value::of(&member.node))).collect()
            }
            Value::Dict(pairs) => pairs.to_vec(),
            other => return refuse(format!("a '{}' object has no items()", other.kind())),
        };
        self.burn(pairs.len())?;
        Ok(pairs)
    }

    /// A whole number.
    pub(super) fn integer(&mut self, value: &Value<'a>) -> Done<i128> {
        match self.settled(value) {
            Value::Int(value) => Ok(value),
            Value::Bool(value) => Ok(value.into()),
            other => refuse(format!("expected a whole number, found '{}'", other.kind())),
        }
    }

    // ---- text

    /// `str(value)`, as `{{ value }}` prints it.
    pub(super) fn text(&mut self, value: &Value<'a>) -> Done<Text<'a>> {
        Ok(match value {
            Value::Text(text) => text.clone(),
            Value::Undefined => Text::from(""),
            _ => self.repr(value)?.into(),
        })
    }

    /// `repr(value)`.
    pub(super) fn repr(&mut self, value: &Value<'a>) -> Done<String> {
        let mut out = String::new();
        self.write_repr(&mut out, value)?;
        self.burn(out.len() / 64)?;
        Ok(out)
    }

    fn write_repr(&mut self, out: &mut String, value: &Value<'a>) -> Done<()> {
        self.burn(0)?;
        match value {
            Value::Undefined => out.push_str("Undefined"),
            Value::None => out.push_str("None"),
            Value::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
            Value::Int(value) => out.push_str(&value.to_string()),
            Value::Huge(value) => out.push_str(value),
            Value::Float(value) => out.push_str(&python_float(*value)),
            Value::Text(text) if text.safe => {
                out.push_str("Markup(");
                quote(out, text.as_str());
                out.push(')');
            }
            Value::Text(text) => quote(out, text.as_str()),
            Value::Count(_) | Value::Messages(_) | Value::Reversed(_) => {
                let settled = self.settled(value);
                self.write_repr(out, &settled)?;
            }
            Value::Sequence(..) | Value::Array(_) => {
                let (kind, items) = list(value).expect("a list");
                let (open, close) = match kind {
                    Sequence::List => ("[", "]"),
                    Sequence::Tuple => ("(", ")"),
                    Sequence::View => return refuse("a view of a dict or a range is printed"),
                };
                out.push_str(open);
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { ", " } else { "" });
                    self.deeper(|machine| machine.write_repr(out, item))?;
                }
                if kind == Sequence::Tuple && items.len() == 1 {
                    out.push(',');
                }
                out.push_str(close);
            }
            Value::Object(_) | Value::Dict(_) => {
                out.push('{');
                for (index, (key, value)) in self.members(value)?.iter().enumerate() {
                    out.push_str(if index > 0 { ", " } else { "" });
                    self.write_repr(out, key)?;
                    out.push_str(": ");
                    self.deeper(|machine| machine.write_repr(out, value))?;
                }
                out.push('}');
            }
            other => return refuse(format!("a {} is printed, which has no text of its own", other.kind())),
        }
        Ok(())
    }
}

fn is_membership(comparison: Comparison) -> bool {
    matches!(comparison, Comparison::In | Comparison::NotIn)
}

/// A number as a float, with the number itself.
pub(super) fn float<'v, 'a>(value: &'v Value<'a>) -> Option<(f64, &'v Value<'a>)> {
    match value {
        Value::Int(number) => Some((*number as f64, value)),
        Value::Bool(truth) => Some((f64::from(*truth), value)),
        Value::Float(number) => Some((*number, value)),
        _ => None,
    }
}

fn integer(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(number) => Some(*number),
        Value::Bool(truth) => Some((*truth).into()),
        _ => None,
    }
}

/// A list or tuple, item by item.
fn list<'a>(value: &Value<'a>) -> Option<(Sequence, Vec<Value<'a>>)> {
    match value {
        Value::Sequence(kind, items) => Some((*kind, items.to_vec())),
        Value::Array(nodes) => Some((Sequence::List, nodes.iter().map(Value::of).collect())),
        _ => None,
    }
}

fn numbers<'a>(operation: Arithmetic, left: (f64, &Value<'a>), right: (f64, &Value<'a>)) -> Done<Value<'a>> {
    let too_large = || refuse("a number that is too large");
    if let (Some(one), Some(other)) = (integer(left.1), integer(right.1))
        && operation != Arithmetic::Divide
    {
        if one == i128::MIN || other == i128::MIN {
            return too_large();
        }
        let result = match operation {
            Arithmetic::Add => one.checked_add(other),
            Arithmetic::Subtract => one.checked_sub(other),
            Arithmetic::Multiply => one.checked_mul(other),
            Arithmetic::FloorDivide | Arithmetic::Remainder if other == 0 => {
                return refuse("integer division or modulo by zero");
            }
            Arithmetic::FloorDivide => {
                Some(one.div_euclid(other) - i128::from(other < 0 && one.rem_euclid(other) != 0))
            }
            Arithmetic::Remainder => {
                let rest = one.rem_euclid(other);
                Some(if rest != 0 && other < 0 { rest + other } else { rest })
            }
            Arithmetic::Power if other < 0 => return Ok(Value::Float((one as f64).powf(other as f64))),
            Arithmetic::Power => u32::try_from(other).ok().and_then(|other| one.checked_pow(other)),
            Arithmetic::Divide | Arithmetic::Join => None,
        };
        return result.map_or_else(too_large, |value| Ok(Value::Int(value)));
    }
    let (one, other) = (left.0, right.0);
    let result = match operation {
        Arithmetic::Add => one + other,
        Arithmetic::Subtract => one - other,
        Arithmetic::Multiply => one * other,
        Arithmetic::Divide | Arithmetic::FloorDivide | Arithmetic::Remainder if other == 0.0 => {
            return refuse("division by zero");
        }
        Arithmetic::Divide => one / other,
        Arithmetic::FloorDivide => (one / other).floor(),
        Arithmetic::Remainder => one - other * (one / other).floor(),
        Arithmetic::Power => one.powf(other),
        Arithmetic::Join => return too_large(),
    };
    Ok(Value::Float(result))
}

/// Which items of `length` a slice takes, as `slice.indices` of Python has them.
fn indices(length: usize, [start, stop, step]: [Option<i128>; 3]) -> Done<Vec<usize>> {
    let length = length as i128;
    let step = step.unwrap_or(1);
    if step == 0 {
        return refuse("slice step cannot be zero");
    }
    let (lowest, highest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let bound = |given: Option<i128>, default: i128| match given {
        None => default,
        Some(given) if given < 0 => given.saturating_add(length).max(lowest),
        Some(given) => given.min(highest),
    };
    let (start, stop) = if step > 0 {
        (bound(start, lowest), bound(stop, highest))
    } else {
        (bound(start, highest), bound(stop, lowest))
    };
    let mut found = Vec::new();
    let mut at = start;
    while if step > 0 { at < stop } else { at > stop } {
        found.push(usize::try_from(at).expect("bounds lie inside"));
        at = at.saturating_add(step);
    }
    Ok(found)
}

/// `markupsafe.escape`.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// `repr` of a string.
fn quote(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character == quote => out.extend(['\\', character]),
            _ if is_printable(character) => out.push(character),
            _ => {
                let code = u32::from(character);
                match code {
                    0..=0xff => out.push_str(&format!("\\x{code:02x}")),
                    0x100..=0xffff => out.push_str(&format!("\\u{code:04x}")),
                    _ => out.push_str(&format!("\\U{code:08x}")),
                }
            }
        }
    }
    out.push(quote);
}

/// `str.isprintable` of Python: no control, format, private, unassigned character and no separator but the space.
fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return (' '..='~').contains(&character);
    }
    let is_separator = character.is_whitespace();
    // `escape_debug` escapes what is not printable, and marks that join what stands before them, which are.
    let escaped = character.escape_debug().next() == Some('\\');
    !is_separator && (!escaped || is_mark(character))
}

/// Combining marks, roughly: what is not printable by itself in a terminal but is to Python.
fn is_mark(character: char) -> bool {
    const JOINERS: [char; 3] = ['\u{200b}', '\u{200c}', '\u{200d}'];
    !JOINERS.contains(&character) && !character.is_control() && format!("a{character}").escape_debug().count() == 2
}
