//! Choosing dialogues by what is known of them: an SQL expression over the record's fields and metadata.
//!
//! In: a dialogue and its format. Out: whether it is kept. Names are those of `dialogues.arrow` (`id`, `type`,
//! `language`, `file`, `line`, `format`, `split`, `group`, `messages`, `turns`) and `intent`, the first one; any other name is
//! a field of the metadata, `info.source` one inside another. As in SQL, what is not there is NULL, and what is not true is left out.

use std::borrow::Cow;

use sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, InTarget, UnaryOperator, Value,
};
use sqlparser::dialect::DuckDbDialect;
use sqlparser::parser::Parser;

use crate::dialogue::{Dialogue, Location};
use crate::error::{Error, ErrorKind, Result};
use crate::json::{Json, Node};

/// A condition that dialogues must meet.
#[derive(Debug)]
pub struct Filter {
    condition: Expr,
}

/// What a condition may ask about.
pub struct Known<'d> {
    /// The dialogue.
    pub dialogue: &'d Dialogue<'d>,
    /// Where its record stood.
    pub location: &'d Location,
    /// The format that it had.
    pub format: &'d str,
}

/// A value while a condition is worked out.
#[derive(Debug, Clone, PartialEq)]
enum Cell<'d> {
    Null,
    Bool(bool),
    Number(f64),
    Text(Cow<'d, str>),
}

impl Filter {
    /// Reads a condition.
    ///
    /// # Errors
    /// [`ErrorKind::Options`] where it is no SQL expression, or uses what is not offered.
    pub fn parse(text: &str) -> Result<Self> {
        let fail = |said: String| {
            Error::new(ErrorKind::Options, format!("the filter `{text}`: {said}"))
                .hint("an SQL condition over metadata, such as `reward = 1 AND domain IN ('taxi', 'train')`")
        };
        let mut parser = Parser::new(&DuckDbDialect {}).try_with_sql(text).map_err(|error| fail(error.to_string()))?;
        let condition = parser.parse_expr().map_err(|error| fail(error.to_string()))?;
        let rest = parser.peek_token();
        if rest.token != sqlparser::tokenizer::Token::EOF {
            return Err(fail(format!("`{rest}` follows the condition")));
        }
        // Whatever cannot be worked out is said now, and not of the millionth record.
        supported(&condition).map_err(|part| fail(format!("`{part}` is not supported")))?;
        Ok(Self { condition })
    }

    /// Whether a dialogue meets the condition.
    pub fn keeps(&self, known: &Known<'_>) -> bool {
        evaluate(&self.condition, known) == Cell::Bool(true)
    }

    /// What the expression comes to, as text; `None` for NULL.
    pub fn text(&self, known: &Known<'_>) -> Option<String> {
        text(evaluate(&self.condition, known)).map(Cow::into_owned)
    }
}

/// Functions that conditions may use.
const FUNCTIONS: [&str; 3] = ["lower", "upper", "length"];

fn supported(part: &Expr) -> std::result::Result<(), String> {
    let both = |left: &Expr, right: &Expr| supported(left).and_then(|()| supported(right));
    match part {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Ok(()),
        Expr::Value(value) => literal(&value.value).map(drop).ok_or_else(|| part.to_string()),
        Expr::Nested(inner)
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNotFalse(inner)
        | Expr::UnaryOp { op: UnaryOperator::Not | UnaryOperator::Minus | UnaryOperator::Plus, expr: inner } => {
            supported(inner)
        }
        Expr::BinaryOp { left, op, right } if compared(op).is_some() || computed(op).is_some() => both(left, right),
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => both(left, right),
        Expr::Between { expr, low, high, .. } => supported(expr).and_then(|()| both(low, high)),
        Expr::In { expr, target: InTarget::List(list), .. } => {
            supported(expr).and_then(|()| list.iter().try_for_each(supported))
        }
        Expr::Like { expr, pattern, any: false, escape_char: None, .. }
        | Expr::ILike { expr, pattern, any: false, escape_char: None, .. } => both(expr, pattern),
        Expr::Function(_) => argument(part).ok_or_else(|| part.to_string()).and_then(|(_, inner)| supported(inner)),
        _ => Err(part.to_string()),
    }
}

/// Name and argument of a function that is offered.
fn argument(part: &Expr) -> Option<(&'static str, &Expr)> {
    let Expr::Function(function) = part else { return None };
    let called = function.name.to_string().to_lowercase();
    let name = FUNCTIONS.into_iter().find(|name| *name == called)?;
    let FunctionArguments::List(list) = &function.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))] => Some((name, inner)),
        _ => None,
    }
}

fn literal(value: &Value) -> Option<Cell<'_>> {
    match value {
        Value::Number(text, _) => text.parse().ok().map(Cell::Number),
        Value::SingleQuotedString(text) | Value::DoubleQuotedString(text) => Some(Cell::Text(text.as_str().into())),
        Value::Boolean(value) => Some(Cell::Bool(*value)),
        Value::Null => Some(Cell::Null),
        _ => None,
    }
}

fn compared(operator: &BinaryOperator) -> Option<fn(std::cmp::Ordering) -> bool> {
    Some(match operator {
        BinaryOperator::Eq => std::cmp::Ordering::is_eq,
        BinaryOperator::NotEq => std::cmp::Ordering::is_ne,
        BinaryOperator::Lt => std::cmp::Ordering::is_lt,
        BinaryOperator::LtEq => std::cmp::Ordering::is_le,
        BinaryOperator::Gt => std::cmp::Ordering::is_gt,
        BinaryOperator::GtEq => std::cmp::Ordering::is_ge,
        _ => return None,
    })
}

fn computed(operator: &BinaryOperator) -> Option<fn(f64, f64) -> f64> {
    Some(match operator {
        BinaryOperator::Plus => |left, right| left + right,
        BinaryOperator::Minus => |left, right| left - right,
        BinaryOperator::Multiply => |left, right| left * right,
        BinaryOperator::Divide => |left, right| left / right,
        BinaryOperator::Modulo => |left, right| left % right,
        _ => return None,
    })
}

fn evaluate<'d>(part: &'d Expr, known: &Known<'d>) -> Cell<'d> {
    let truth = |value: Option<bool>| value.map_or(Cell::Null, Cell::Bool);
    match part {
        Expr::Identifier(name) => field(known, std::slice::from_ref(&name.value.as_str())),
        Expr::CompoundIdentifier(names) => {
            field(known, &names.iter().map(|name| name.value.as_str()).collect::<Vec<_>>())
        }
        Expr::Value(value) => literal(&value.value).unwrap_or(Cell::Null),
        Expr::Nested(inner) | Expr::UnaryOp { op: UnaryOperator::Plus, expr: inner } => evaluate(inner, known),
        Expr::IsNull(inner) => Cell::Bool(evaluate(inner, known) == Cell::Null),
        Expr::IsNotNull(inner) => Cell::Bool(evaluate(inner, known) != Cell::Null),
        Expr::IsTrue(inner) => Cell::Bool(evaluate(inner, known) == Cell::Bool(true)),
        Expr::IsNotTrue(inner) => Cell::Bool(evaluate(inner, known) != Cell::Bool(true)),
        Expr::IsFalse(inner) => Cell::Bool(evaluate(inner, known) == Cell::Bool(false)),
        Expr::IsNotFalse(inner) => Cell::Bool(evaluate(inner, known) != Cell::Bool(false)),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => truth(boolean(&evaluate(expr, known)).map(|value| !value)),
        Expr::UnaryOp { expr, .. } => number(&evaluate(expr, known)).map_or(Cell::Null, |value| Cell::Number(-value)),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            match (boolean(&evaluate(left, known)), boolean(&evaluate(right, known))) {
                (Some(false), _) | (_, Some(false)) => Cell::Bool(false),
                (Some(true), Some(true)) => Cell::Bool(true),
                _ => Cell::Null,
            }
        }
        Expr::BinaryOp { left, op: BinaryOperator::Or, right } => {
            match (boolean(&evaluate(left, known)), boolean(&evaluate(right, known))) {
                (Some(true), _) | (_, Some(true)) => Cell::Bool(true),
                (Some(false), Some(false)) => Cell::Bool(false),
                _ => Cell::Null,
            }
        }
        Expr::BinaryOp { left, op, right } => {
            let (left, right) = (evaluate(left, known), evaluate(right, known));
            if let Some(holds) = compared(op) {
                return truth(order(&left, &right).map(holds));
            }
            let both = number(&left).zip(number(&right));
            both.zip(computed(op)).map_or(Cell::Null, |((left, right), compute)| Cell::Number(compute(left, right)))
        }
        Expr::Between { expr, negated, low, high } => {
            let value = evaluate(expr, known);
            let above = order(&value, &evaluate(low, known)).map(std::cmp::Ordering::is_ge);
            let below = order(&value, &evaluate(high, known)).map(std::cmp::Ordering::is_le);
            truth(above.zip(below).map(|(above, below)| (above && below) != *negated))
        }
        Expr::In { expr, target: InTarget::List(list), negated, .. } => {
            let value = evaluate(expr, known);
            if value == Cell::Null {
                return Cell::Null;
            }
            let is_in =
                list.iter().any(|one| order(&value, &evaluate(one, known)).is_some_and(std::cmp::Ordering::is_eq));
            Cell::Bool(is_in != *negated)
        }
        Expr::Like { negated, expr, pattern, .. } => {
            let (text, pattern) = (text(evaluate(expr, known)), text(evaluate(pattern, known)));
            truth(text.zip(pattern).map(|(text, pattern)| like(&text, &pattern) != *negated))
        }
        Expr::ILike { negated, expr, pattern, .. } => {
            let (text, pattern) = (text(evaluate(expr, known)), text(evaluate(pattern, known)));
            let both = text.zip(pattern);
            truth(both.map(|(text, pattern)| like(&text.to_lowercase(), &pattern.to_lowercase()) != *negated))
        }
        Expr::Function(_) => match argument(part).map(|(name, inner)| (name, text(evaluate(inner, known)))) {
            Some(("lower", Some(text))) => Cell::Text(text.to_lowercase().into()),
            Some(("upper", Some(text))) => Cell::Text(text.to_uppercase().into()),
            Some(("length", Some(text))) => Cell::Number(text.chars().count() as f64),
            _ => Cell::Null,
        },
        _ => Cell::Null, // refused when it was read
    }
}

/// What a name stands for.
fn field<'d>(known: &Known<'d>, names: &[&str]) -> Cell<'d> {
    let Known { dialogue, location, format } = known;
    let optional = |text: Option<&'d str>| text.map_or(Cell::Null, |text| Cell::Text(text.into()));
    if let [name] = names {
        match *name {
            "id" => return Cell::Text(dialogue.id.as_ref().into()),
            "type" => return Cell::Text(dialogue.kind.name().into()),
            "file" => return Cell::Text(location.file.as_ref().into()),
            "line" => return Cell::Number(location.position.number() as f64),
            "format" => return Cell::Text((*format).into()),
            "split" => return optional(dialogue.split.as_deref()),
            "group" => return optional(dialogue.group.as_deref()),
            "intent" => return optional(intent(dialogue)),
            "messages" => return Cell::Number(dialogue.messages.len() as f64),
            "turns" => return Cell::Number(dialogue.assistant_turns().count() as f64),
            _ => {}
        }
    }
    let names = names.strip_prefix(&["metadata"]).filter(|rest| !rest.is_empty()).unwrap_or(names);
    let mut node: Option<&Node<'_>> = dialogue.metadata.as_ref();
    for name in names {
        node = node.and_then(|node| node.get(name));
    }
    match node.map(|node| &node.value) {
        None | Some(Json::Null) => Cell::Null,
        Some(Json::Bool(value)) => Cell::Bool(*value),
        Some(Json::Number(text)) => text.parse().map_or(Cell::Null, Cell::Number),
        Some(Json::String(text)) => Cell::Text(text.as_ref().into()),
        Some(_) => node.map_or(Cell::Null, |node| Cell::Text(crate::json::dumps(node).into())),
    }
}

/// The first intent of a dialogue's states.
fn intent<'d>(dialogue: &'d Dialogue<'_>) -> Option<&'d str> {
    dialogue.messages.iter().find_map(|message| message.state.as_ref()?.get("intent")?.as_str())
}

/// How two values compare; numbers with numbers that are text, too, since tables hold nothing else.
fn order(left: &Cell<'_>, right: &Cell<'_>) -> Option<std::cmp::Ordering> {
    match (left, right) {
        (Cell::Null, _) | (_, Cell::Null) => None,
        (Cell::Text(left), Cell::Text(right)) => Some(left.cmp(right)),
        (Cell::Bool(left), Cell::Bool(right)) => Some(left.cmp(right)),
        _ => number(left)?.partial_cmp(&number(right)?),
    }
}

fn number(cell: &Cell<'_>) -> Option<f64> {
    match cell {
        Cell::Number(value) => Some(*value),
        Cell::Text(text) => text.trim().parse().ok(),
        Cell::Bool(value) => Some(f64::from(u8::from(*value))),
        Cell::Null => None,
    }
}

fn boolean(cell: &Cell<'_>) -> Option<bool> {
    match cell {
        Cell::Bool(value) => Some(*value),
        Cell::Number(value) => Some(*value != 0.0),
        Cell::Text(_) | Cell::Null => None,
    }
}

fn text<'d>(cell: Cell<'d>) -> Option<Cow<'d, str>> {
    match cell {
        Cell::Text(text) => Some(text),
        Cell::Number(value) => Some(value.to_string().into()),
        Cell::Bool(value) => Some(value.to_string().into()),
        Cell::Null => None,
    }
}

/// SQL's LIKE: `%` for anything, `_` for one character. In the time of the product of both lengths at most.
fn like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut at, mut wanted) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(wanted) {
            Some('%') => {
                again = Some((at, wanted + 1));
                wanted += 1;
            }
            Some(&letter) if letter == '_' || letter == text[at] => (at, wanted) = (at + 1, wanted + 1),
            _ => {
                let Some((start, after)) = again else { return false };
                again = Some((start + 1, after));
                (at, wanted) = (start + 1, after);
            }
        }
    }
    pattern[wanted..].iter().all(|letter| *letter == '%')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Severities;
    use crate::dialogue::Position;
    use crate::import::Importers;
    use crate::source::Record;
    use crate::validate::validate;

    fn keeps(condition: &str) -> bool {
        let bytes = r#"{"id": "d1", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}],
            "metadata": {"reward": 1.0, "n": "12", "domain": "taxi", "ok": true, "none": null, "info": {"cost": 0.5}}}"#;
        let location = Location::new("raw.jsonl", Position::Line(7));
        let record = Record { location: location.clone(), bytes: bytes.as_bytes() };
        let validated = validate(&record, &Importers::default(), &Severities::default());
        let dialogue = validated.dialogues[0].dialogue.as_ref().expect("valid");
        Filter::parse(condition).expect("a condition").keeps(&Known {
            dialogue,
            location: &location,
            format: "messages",
        })
    }

    #[test]
    fn conditions_are_as_in_sql() {
        for condition in [
            "reward = 1",
            "reward >= 0.5 AND domain IN ('taxi', 'train')",
            "NOT (reward = 0)",
            "n > 2",
            "domain LIKE 't_x%' AND domain NOT LIKE 'x%'",
            "domain ILIKE 'TAXI'",
            "missing IS NULL AND none IS NULL AND domain IS NOT NULL",
            "ok",
            "ok = true OR missing = 1",
            "info.cost + 0.5 = reward",
            "metadata.info.cost BETWEEN 0 AND 1",
            "length(domain) = 4 AND lower('A') = 'a'",
            "id = 'd1' AND type = 'chat' AND format = 'messages' AND line = 7 AND messages = 2 AND turns = 1",
        ] {
            assert!(keeps(condition), "{condition}");
        }
        for condition in ["reward = 0", "missing = 1", "NOT (missing = 1)", "missing <> 1", "domain = 'TAXI'", "not ok"]
        {
            assert!(!keeps(condition), "{condition}");
        }
    }

    #[test]
    fn what_cannot_be_worked_out_is_refused_at_once() {
        for condition in
            ["reward =", "reward = 1; DROP TABLE x", "exists (select 1)", "regexp(domain)", "reward == 1 1"]
        {
            let said = Filter::parse(condition).expect_err("refused").to_string();
            assert!(said.contains("the filter"), "{said}");
        }
    }
}
