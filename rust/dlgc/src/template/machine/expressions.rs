//! Expressions: each gives a value.

use std::rc::Rc;

use super::value::{Text, Value};
use super::{Done, Machine, refuse};
use crate::template::program::{Argument, Arithmetic, Comparison, Expression};

impl<'a> Machine<'a> {
    pub(super) fn evaluate(&mut self, expression: &'a Expression) -> Done<Value<'a>> {
        self.burn(0)?;
        Ok(match expression {
            Expression::None => Value::None,
            Expression::Bool(value) => Value::Bool(*value),
            Expression::Int(value) => Value::Int(*value),
            Expression::Float(value) => Value::Float(*value),
            Expression::Text(text) => Value::from(text.as_str()),
            Expression::Name(name) => self.lookup(*name),
            Expression::Attribute(inner, name) => {
                let value = self.deep(inner)?;
                if matches!(value, Value::Undefined) {
                    return refuse(format!("{} is undefined", self.spelt(inner)));
                }
                self.attribute(&value, name)?
            }
            Expression::Item(pair) => {
                if self.lesson.is_some()
                    && let Some(found) = self.neighbour(&pair[0], &pair[1])?
                {
                    return Ok(found);
                }
                let value = self.deep(&pair[0])?;
                let key = self.deep(&pair[1])?;
                self.item(&value, &key)?
            }
            Expression::Compare(first, chain) => Value::Bool(self.compared(first, chain)?),
            Expression::And(pair) => {
                let left = self.deep(&pair[0])?;
                if self.is_true(&left) { self.deep(&pair[1])? } else { left }
            }
            Expression::Or(pair) => {
                let left = self.deep(&pair[0])?;
                if self.is_true(&left) { left } else { self.deep(&pair[1])? }
            }
            Expression::Not(value) => Value::Bool(!self.deeper(|machine| machine.decide(value))?),
            Expression::Negative(value) => {
                let value = self.deep(value)?;
                self.negate(&value)?
            }
            Expression::Arithmetic(operation, pair) => {
                if self.lesson.is_some()
                    && let Some(remains) = self.place_divided(*operation, pair)
                {
                    return Ok(Value::Int(remains));
                }
                let left = self.deep(&pair[0])?;
                let right = self.deep(&pair[1])?;
                self.sum(*operation, pair, &left, &right)?
            }
            Expression::Choose(parts) => match (self.deeper(|machine| machine.decide(&parts.0))?, &parts.2) {
                (true, _) => self.deep(&parts.1)?,
                (false, Some(otherwise)) => self.deep(otherwise)?,
                (false, None) => Value::Undefined,
            },
            Expression::Filter { name, value, arguments } => {
                let Some(value) = value else { return refuse("a filter of nothing") };
                let value = self.deep(value)?;
                let arguments = self.arguments(arguments)?;
                self.filter(name, value, arguments)?
            }
            Expression::Test { name, value, arguments } => Value::Bool(self.tested(name, value, arguments)?),
            Expression::Call(callee, arguments) => {
                if let Expression::Attribute(value, name) = &**callee {
                    let value = self.deep(value)?;
                    let arguments = self.arguments(arguments)?;
                    return self.deeper(|machine| machine.call_attribute(&value, name, arguments));
                }
                let callee = self.deep(callee)?;
                let arguments = self.arguments(arguments)?;
                self.call(callee, arguments, None)?
            }
            Expression::Slice(parts) => self.slice(parts)?,
            Expression::List(items) => Value::list(items.iter().map(|item| self.deep(item)).collect::<Done<Vec<_>>>()?),
            Expression::Tuple(items) => {
                Value::tuple(items.iter().map(|item| self.deep(item)).collect::<Done<Vec<_>>>()?)
            }
            Expression::Dict(pairs) => {
                let mut found: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(pairs.len());
                for (key, value) in pairs {
                    let key = self.deep(key)?;
                    let value = self.deep(value)?;
                    let mut known = None;
                    for (index, (other, _)) in found.iter().enumerate() {
                        if self.equal(other, &key)? {
                            known = Some(index);
                        }
                    }
                    match known {
                        Some(index) => found[index].1 = value,
                        None => found.push((key, value)),
                    }
                }
                Value::Dict(Rc::new(found))
            }
        })
    }

    /// Whether the value of an expression counts as true, without making it where that is all it says.
    pub(super) fn decide(&mut self, expression: &'a Expression) -> Done<bool> {
        match expression {
            Expression::Not(value) => {
                self.burn(0)?;
                Ok(!self.deeper(|machine| machine.decide(value))?)
            }
            Expression::And(pair) => {
                self.burn(0)?;
                Ok(self.deeper(|machine| machine.decide(&pair[0]))?
                    && self.deeper(|machine| machine.decide(&pair[1]))?)
            }
            Expression::Or(pair) => {
                self.burn(0)?;
                Ok(self.deeper(|machine| machine.decide(&pair[0]))?
                    || self.deeper(|machine| machine.decide(&pair[1]))?)
            }
            Expression::Compare(first, chain) => {
                self.burn(0)?;
                self.compared(first, chain)
            }
            Expression::Test { name, value, arguments } => {
                self.burn(0)?;
                self.tested(name, value, arguments)
            }
            _ => {
                let value = self.evaluate(expression)?;
                Ok(self.is_true(&value))
            }
        }
    }

    fn compared(&mut self, first: &'a Expression, chain: &'a [(Comparison, Expression)]) -> Done<bool> {
        if let [(comparison, second)] = chain {
            if let Some(holds) = self.remembered(first, *comparison, second)? {
                return Ok(holds);
            }
            if self.lesson.is_some()
                && let Some(holds) = self.place_compared(first, *comparison, second)
            {
                return Ok(holds);
            }
            let left = self.deep(first)?;
            let right = self.deep(second)?;
            return self.compare(*comparison, &left, &right);
        }
        let mut left = self.deep(first)?;
        for (comparison, right) in chain {
            let right = self.deep(right)?;
            if !self.compare(*comparison, &left, &right)? {
                return Ok(false);
            }
            left = right;
        }
        Ok(true)
    }

    fn tested(&mut self, name: &'a str, value: &'a Expression, arguments: &'a [Argument]) -> Done<bool> {
        let value = self.deep(value)?;
        let arguments = self.arguments(arguments)?;
        self.test(name, &value, &arguments)
    }

    /// An operation on what two expressions gave.
    pub(super) fn sum(
        &mut self,
        operation: Arithmetic,
        pair: &'a [Expression; 2],
        left: &Value<'a>,
        right: &Value<'a>,
    ) -> Done<Value<'a>> {
        for (value, expression) in [(left, &pair[0]), (right, &pair[1])] {
            if matches!(value, Value::Undefined) && operation != Arithmetic::Join {
                return refuse(format!("{} is undefined", self.spelt(expression)));
            }
        }
        self.arithmetic(operation, left, right)
    }

    /// An expression as the template spells it, roughly.
    pub(super) fn spelt(&self, expression: &Expression) -> String {
        match expression {
            Expression::Name(name) => format!("'{}'", self.program.names[*name as usize]),
            Expression::Attribute(_, name) => format!("the attribute '{name}'"),
            Expression::Item(pair) => match &pair[1] {
                Expression::Text(name) => format!("the item '{name}'"),
                _ => "an item".to_owned(),
            },
            _ => "a value".to_owned(),
        }
    }

    #[inline]
    pub(super) fn deep(&mut self, expression: &'a Expression) -> Done<Value<'a>> {
        match expression {
            // What has nothing inside goes no deeper.
            Expression::Text(text) => {
                self.burn(0)?;
                Ok(Value::from(text.as_str()))
            }
            Expression::Name(name) => {
                self.burn(0)?;
                Ok(self.lookup(*name))
            }
            _ => self.deeper(|machine| machine.evaluate(expression)),
        }
    }

    /// A chain of filters over what a block printed.
    pub(super) fn filter_captured(&mut self, filter: &'a Expression, text: Text<'a>) -> Done<Value<'a>> {
        let Expression::Filter { name, value, arguments } = filter else {
            return refuse("a block passes through filters only");
        };
        let value = match value {
            None => Value::Text(text),
            Some(inner) => self.filter_captured(inner, text)?,
        };
        let arguments = self.arguments(arguments)?;
        self.filter(name, value, arguments)
    }

    pub(super) fn generator(&mut self, items: Vec<Value<'a>>) -> Value<'a> {
        self.generators.push(Some(Rc::new(items)));
        Value::Generator(self.generators.len() - 1)
    }
}
