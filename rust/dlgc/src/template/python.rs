//! What Python and transformers give a template beyond Jinja itself: `tojson`, `strftime_now`, methods of strings.
//!
//! Source of the environment: `transformers/utils/chat_template_utils.py`, `_cached_compile_jinja_template`.

use std::sync::Arc;

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State};

use super::{generation, marks};
use crate::json::{Json, Node, python_float, python_number, write_string};

/// Prefix of the message of `raise_exception`, to tell a template's refusal from its mistakes.
pub(super) const RAISED: &str = "the template says: ";

/// An integer too large for the engine: prints as it was spelt.
#[derive(Debug)]
struct BigInteger(String);

impl Object for BigInteger {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }

    fn render(self: &Arc<Self>, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A JSON value as Python's `json.loads` would hand it to a template.
pub(super) fn value(node: &Node<'_>) -> Value {
    match &node.value {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(lexeme) => number(lexeme),
        Json::String(text) => Value::from(&**text),
        Json::Array(elements) => elements.iter().map(value).collect(),
        Json::Object(members) => {
            Value::from_pairs(members.iter().map(|member| (Value::from(&*member.key), value(&member.node))))
        }
    }
}

fn number(lexeme: &str) -> Value {
    if lexeme.contains(['.', 'e', 'E']) {
        return Value::from(lexeme.parse::<f64>().expect("the parser let only numbers through"));
    }
    if let Ok(small) = lexeme.parse::<i64>() {
        return Value::from(small);
    }
    match lexeme.parse::<i128>() {
        Ok(large) => Value::from(large),
        Err(_) => Value::from_object(BigInteger(python_number(lexeme).into_owned())),
    }
}

/// Installs everything into an engine.
pub(super) fn install(environment: &mut Environment<'static>, date: Option<Date>) {
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |value: &Value| Value::from(to_string(value)));
    // In Python None is no iterable; templates ask this of `tools`.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
    });
    environment.add_function("strftime_now", move |format: &str| match date {
        Some(date) => Ok(date.strftime(format)),
        None => Err(Error::new(
            ErrorKind::InvalidOperation,
            "the template prints the date; give the date with `--date YYYY-MM-DD`",
        )),
    });
    environment.add_filter(generation::FILTER, |body: &str| format!("{}{body}{}", marks::BEGIN, marks::END));
    environment.add_filter(generation::ITERABLE, |value: Value| {
        if value.is_none() {
            return Err(Error::new(ErrorKind::InvalidOperation, "none is not iterable"));
        }
        Ok(value)
    });
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, _, value| match value.kind() {
        ValueKind::Number if !value.is_integer() => {
            Ok(write!(out, "{}", to_string(value)).map_err(|_| Error::from(ErrorKind::WriteFailure))?)
        }
        _ => Ok(write!(out, "{value}").map_err(|_| Error::from(ErrorKind::WriteFailure))?),
    });
}

/// `str(value)`.
fn to_string(value: &Value) -> String {
    match (value.kind(), f64::try_from(value.clone())) {
        (ValueKind::Number, Ok(float)) if !value.is_integer() => python_float(float),
        _ => value.to_string(),
    }
}

/// transformers' `tojson`: `json.dumps(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
fn tojson(value: &Value, arguments: minijinja::value::Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let pick = |index: usize, name: &str| -> Result<Option<Value>, Error> {
        Ok(arguments.get(index).cloned().or(kwargs.get::<Option<Value>>(name)?).filter(|value| !value.is_none()))
    };
    let ensure_ascii = pick(0, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = match pick(1, "indent")? {
        None => None,
        Some(value) => match (value.as_str(), usize::try_from(value.clone())) {
            (Some(text), _) => Some(text.to_owned()),
            (None, Ok(width)) => Some(" ".repeat(width.min(64))),
            _ => {
                return Err(Error::new(ErrorKind::InvalidOperation, "`indent` must be a number or a string"));
            }
        },
    };
    let separators = match pick(2, "separators")? {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(pair) => (pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string()),
    };
    let sort_keys = pick(3, "sort_keys")?.is_some_and(|value| value.is_true());
    kwargs.assert_all_used()?;
    let mut writer = Dump { out: String::new(), ensure_ascii, indent, separators, sort_keys };
    writer.write(value, 0)?;
    Ok(Value::from(writer.out))
}

struct Dump {
    out: String,
    ensure_ascii: bool,
    indent: Option<String>,
    separators: (String, String),
    sort_keys: bool,
}

impl Dump {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > 2 * crate::json::MAX_DEPTH {
            return Err(Error::new(ErrorKind::BadSerialization, "nested too deeply for JSON"));
        }
        match value.kind() {
            ValueKind::Undefined => {
                return Err(Error::new(ErrorKind::BadSerialization, "undefined is not JSON serializable"));
            }
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.out.push_str(&value.to_string()),
            ValueKind::Number => {
                let float = f64::try_from(value.clone())?;
                self.out.push_str(&match float {
                    float if float.is_nan() => "NaN".to_owned(),
                    f64::INFINITY => "Infinity".to_owned(),
                    f64::NEG_INFINITY => "-Infinity".to_owned(),
                    float => python_float(float),
                });
            }
            ValueKind::String => write_string(&mut self.out, value.as_str().unwrap_or_default(), self.ensure_ascii),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.begin(index, depth);
                    self.write(item, depth + 1)?;
                }
                self.end(']', items.is_empty(), depth);
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort_by_key(Value::to_string);
                }
                self.out.push('{');
                for (index, key) in keys.iter().enumerate() {
                    self.begin(index, depth);
                    write_string(&mut self.out, &key.to_string(), self.ensure_ascii);
                    self.out.push_str(&self.separators.1);
                    self.write(&value.get_item(key)?, depth + 1)?;
                }
                self.end('}', keys.is_empty(), depth);
            }
            _ if value.downcast_object_ref::<BigInteger>().is_some() => self.out.push_str(&value.to_string()),
            other => {
                return Err(Error::new(ErrorKind::BadSerialization, format!("{other} is not JSON serializable")));
            }
        }
        Ok(())
    }

    fn begin(&mut self, index: usize, depth: usize) {
        if index > 0 {
            self.out.push_str(&self.separators.0);
        }
        self.new_line(depth + 1);
    }

    fn end(&mut self, closer: char, empty: bool, depth: usize) {
        if !empty {
            self.new_line(depth);
        }
        self.out.push(closer);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }
}

/// Methods that Python's types have and minijinja-contrib's `pycompat` lacks.
fn method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(result) = string_method(text, method, args)?
    {
        return Ok(result);
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            match text.split_once(separator) {
                Some((before, after)) => three(before, separator, after),
                None => three(text, "", ""),
            }
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            match text.rsplit_once(separator) {
                Some((before, after)) => three(before, separator, after),
                None => three("", "", text),
            }
        }
        _ => return Ok(None),
    }))
}

fn three(before: &str, separator: &str, after: &str) -> Value {
    [before, separator, after].into_iter().map(Value::from).collect()
}

/// A calendar day, for templates that print one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    year: i32,
    month: u32,
    day: u32,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Date {
    /// Reads `YYYY-MM-DD`.
    pub fn parse(text: &str) -> Option<Self> {
        let shape =
            |(index, byte): (usize, u8)| if matches!(index, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
        if text.len() != 10 || !text.bytes().enumerate().all(shape) {
            return None;
        }
        let mut parts = text.splitn(3, '-').map(str::parse::<u32>);
        let (Some(Ok(year)), Some(Ok(month)), Some(Ok(day))) = (parts.next(), parts.next(), parts.next()) else {
            return None;
        };
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        ((1..=9999).contains(&year) && (1..=days).contains(&day)).then_some(Self { year: year as i32, month, day })
    }

    fn weekday(self) -> usize {
        // Sakamoto's method.
        const SHIFT: [i32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = self.year - i32::from(self.month < 3);
        let sum = year + year / 4 - year / 100 + year / 400 + SHIFT[self.month as usize - 1] + self.day as i32;
        sum.rem_euclid(7) as usize
    }

    /// `datetime.strftime` at midnight, in the C locale; codes it does not know stay as they are.
    fn strftime(self, format: &str) -> String {
        let mut out = String::new();
        let mut characters = format.chars();
        while let Some(character) = characters.next() {
            if character != '%' {
                out.push(character);
                continue;
            }
            let month = MONTHS[self.month as usize - 1];
            let weekday = WEEKDAYS[self.weekday()];
            match characters.next() {
                Some('Y') => out += &format!("{:04}", self.year),
                Some('y') => out += &format!("{:02}", self.year % 100),
                Some('m') => out += &format!("{:02}", self.month),
                Some('d') => out += &format!("{:02}", self.day),
                Some('B') => out += month,
                Some('b' | 'h') => out += &month[..3],
                Some('A') => out += weekday,
                Some('a') => out += &weekday[..3],
                Some('F') => out += &format!("{:04}-{:02}-{:02}", self.year, self.month, self.day),
                Some('H' | 'M' | 'S') => out += "00",
                Some('I') => out += "12",
                Some('p') => out += "AM",
                Some('-') => match characters.next() {
                    Some('d') => out += &self.day.to_string(),
                    Some('m') => out += &self.month.to_string(),
                    Some(other) => out.extend(['%', '-', other]),
                    None => out += "%-",
                },
                Some('%') => out.push('%'),
                Some(other) => out.extend(['%', other]),
                None => out.push('%'),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_print_as_python_prints_them() {
        let date = Date::parse("2024-07-26").expect("a date");
        assert_eq!(date.strftime("%d %b %Y, %A %-m %y%%"), "26 Jul 2024, Friday 7 24%");
        assert_eq!(Date::parse("2023-02-29"), None);
        for wrong in ["2024-13-01", "2026-2-8", "+026-01-01", "2026/01/01", "0000-01-01"] {
            assert_eq!(Date::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tojson_is_json_dumps() {
        let mut environment = Environment::new();
        install(&mut environment, None);
        let parsed = crate::json::parse(
            r#"{"b": [1.0, 1e-7, 123456789012345678901234567890123456789012345], "a<": "é'\"&", "n": null, "e": {}}"#
                .as_bytes(),
        )
        .expect("JSON");
        let context = Value::from_pairs([("x", value(&parsed.root))]);
        let render = |source: &str| environment.render_str(source, context.clone()).expect("rendered");
        assert_eq!(
            render("{{ x|tojson }}"),
            r#"{"b": [1.0, 1e-07, 123456789012345678901234567890123456789012345], "a<": "é'\"&", "n": null, "e": {}}"#
        );
        assert_eq!(render("{{ x.e|tojson(indent=2) }} {{ [1,[]]|tojson(indent=2) }}"), "{} [\n  1,\n  []\n]");
        assert_eq!(
            render("{{ {'b': 'é', 'a': 1}|tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}"),
            r#"{"a":1,"b":"\u00e9"}"#
        );
        assert_eq!(render("{{ x.b[0] }} {{ 1e-7 }} {{ 1e22|string }}"), "1.0 1e-07 1e+22");
    }
}
