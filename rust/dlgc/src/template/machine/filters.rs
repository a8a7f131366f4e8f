//! Jinja's filters and tests, with `tojson` as transformers has it.

use std::rc::Rc;

use super::methods::{capitalize, is_space, lines};
use super::operations::{escape, float};
use super::value::{Sequence, Text, Value};
use super::{Arguments, Done, Machine, refuse};
use crate::json::{python_float, write_string};

impl<'a> Machine<'a> {
    #[expect(clippy::too_many_lines, reason = "a table of filters, each a few lines")]
    pub(super) fn filter(&mut self, name: &'a str, value: Value<'a>, arguments: Arguments<'a>) -> Done<Value<'a>> {
        Ok(match name {
            "tojson" => return self.tojson(&value, &arguments),
            "trim" => {
                let text = self.text(&value)?;
                let set = arguments.take(0, "chars");
                if text.origin() != 0 {
                    return Ok(Value::Text(self.traced_strip(&text, set.as_ref(), [true, true])));
                }
                let strips = |character: char| match set.as_ref().and_then(Value::as_str) {
                    None => is_space(character),
                    Some(set) => set.contains(character),
                };
                Value::Text(text.cut(text.as_str().trim_matches(strips)))
            }
            "string" => Value::Text(self.text(&value)?),
            "safe" => Value::Text(self.text(&value)?.marked(true)),
            "escape" | "e" => {
                let text = self.text(&value)?;
                let escaped = if text.safe { text.as_str().to_owned() } else { escape(text.as_str()) };
                Value::Text(Text::from(escaped).marked(true))
            }
            "length" | "count" => self.length(&value)?,
            "default" | "d" => {
                let boolean = arguments.take(1, "boolean").unwrap_or(Value::Bool(false));
                let missing = matches!(value, Value::Undefined) || self.is_true(&boolean) && !self.is_true(&value);
                if missing {
                    let named = arguments.named.iter().find(|(name, _)| *name == "default_value");
                    let given = arguments.positional.first().or(named.map(|(_, value)| value));
                    given.cloned().unwrap_or_else(|| Value::from(""))
                } else {
                    value
                }
            }
            "upper" => self.made(&value, str::to_uppercase)?,
            "lower" => self.made(&value, str::to_lowercase)?,
            "capitalize" => self.made(&value, capitalize)?,
            "title" => self.made(&value, title)?,
            "replace" => {
                let text = self.text(&value)?;
                let mut words = [String::new(), String::new()];
                for (index, (word, name)) in words.iter_mut().zip(["old", "new"]).enumerate() {
                    let Some(given) = arguments.take(index, name) else {
                        return refuse("`replace` takes two strings");
                    };
                    *word = self.text(&given)?.as_str().to_owned();
                }
                let most = match arguments.take(2, "count") {
                    None => usize::MAX,
                    Some(most) => usize::try_from(self.integer(&most)?).unwrap_or(usize::MAX),
                };
                let replaced = match most {
                    usize::MAX => text.as_str().replace(&words[0], &words[1]),
                    most => text.as_str().replacen(&words[0], &words[1], most),
                };
                self.burn((text.as_str().len() + replaced.len()) / 64)?;
                Value::Text(Text::from(replaced).marked(text.safe))
            }
            "join" => {
                let separator = match arguments.take(0, "d") {
                    None => String::new(),
                    Some(separator) => self.text(&separator)?.as_str().to_owned(),
                };
                let attribute = arguments.take(1, "attribute");
                let mut out = String::new();
                for (index, item) in self.iterate(&value)?.into_iter().enumerate() {
                    let item = match &attribute {
                        None => item,
                        Some(attribute) => self.by_path(&item, attribute)?,
                    };
                    out.push_str(if index > 0 { &separator } else { "" });
                    out.push_str(self.text(&item)?.as_str());
                }
                self.burn(out.len() / 64)?;
                Value::from(out)
            }
            "list" => Value::list(self.iterate(&value)?),
            "items" => match value {
                Value::Undefined => self.generator(Vec::new()),
                value => {
                    let pairs = self.members(&value)?;
                    self.generator(pairs.into_iter().map(|(key, value)| Value::tuple(vec![key, value])).collect())
                }
            },
            "dictsort" => {
                let pairs = self.members(&value)?;
                let by_value = arguments.take(1, "by").is_some_and(|by| by.as_str() == Some("value"));
                let case = arguments.take(0, "case_sensitive").unwrap_or(Value::Bool(false));
                let case = self.is_true(&case);
                let keyed = pairs.into_iter().map(|(key, value)| {
                    let by = if by_value { value.clone() } else { key.clone() };
                    (by, Value::tuple(vec![key, value]))
                });
                let keyed = keyed.collect();
                let reverse = arguments.take(2, "reverse").unwrap_or(Value::Bool(false));
                Value::list(self.sorted(keyed, case, &reverse)?)
            }
            "sort" => {
                let attribute = arguments.take(2, "attribute");
                let case = arguments.take(1, "case_sensitive").unwrap_or(Value::Bool(false));
                let case = self.is_true(&case);
                let mut keyed = Vec::new();
                for item in self.iterate(&value)? {
                    let by = match &attribute {
                        None => item.clone(),
                        Some(attribute) => self.by_path(&item, attribute)?,
                    };
                    keyed.push((by, item));
                }
                let reverse = arguments.take(0, "reverse").unwrap_or(Value::Bool(false));
                Value::list(self.sorted(keyed, case, &reverse)?)
            }
            "unique" => {
                let attribute = arguments.take(1, "attribute");
                let case = arguments.take(0, "case_sensitive").unwrap_or(Value::Bool(false));
                let case = self.is_true(&case);
                let (mut seen, mut kept): (Vec<Value<'a>>, Vec<Value<'a>>) = (Vec::new(), Vec::new());
                for item in self.iterate(&value)? {
                    let by = match &attribute {
                        None => item.clone(),
                        Some(attribute) => self.by_path(&item, attribute)?,
                    };
                    let by = folded(by, case);
                    let mut known = false;
                    for other in &seen {
                        known |= self.equal(other, &by)?;
                    }
                    if !known {
                        seen.push(by);
                        kept.push(item);
                    }
                }
                self.generator(kept)
            }
            "first" => match value {
                Value::Messages(start) => self.message(start).unwrap_or(Value::Undefined),
                value => self.iterate(&value)?.into_iter().next().unwrap_or(Value::Undefined),
            },
            "last" => match value {
                Value::Generator(_) => return refuse("'generator' object is not reversible"),
                value => self.iterate(&value)?.pop().unwrap_or(Value::Undefined),
            },
            "reverse" => match value {
                Value::Text(text) => {
                    Value::Text(Text::from(text.as_str().chars().rev().collect::<String>()).marked(text.safe))
                }
                Value::Generator(_) => return refuse("'generator' object is not reversible"),
                value => {
                    let mut items = self.iterate(&value)?;
                    items.reverse();
                    self.generator(items)
                }
            },
            // Jinja asks whether there is anything before it looks at what: none is nothing here.
            "map" | "select" | "reject" | "selectattr" | "rejectattr" if !self.is_true(&value) => {
                self.generator(Vec::new())
            }
            "map" => {
                let mut kept = Vec::new();
                let attribute = arguments.take(usize::MAX, "attribute");
                let default = arguments.take(usize::MAX, "default");
                let by = arguments.positional.first().cloned();
                for item in self.iterate(&value)? {
                    kept.push(match (&attribute, &by) {
                        (Some(attribute), _) => match (self.by_path(&item, attribute)?, &default) {
                            (Value::Undefined, Some(default)) => default.clone(),
                            (found, _) => found,
                        },
                        (None, Some(Value::Text(_))) => {
                            let name = self.borrowed_name(&by)?;
                            let rest = Arguments {
                                positional: arguments.positional[1..].to_vec(),
                                named: arguments.named.clone(),
                            };
                            self.deeper(|machine| machine.filter(name, item, rest))?
                        }
                        _ => return refuse("`map` takes a filter or `attribute=…`"),
                    });
                }
                self.generator(kept)
            }
            "select" | "reject" | "selectattr" | "rejectattr" => {
                let mut rest = arguments.positional.clone().into_iter();
                let attribute = if name.ends_with("attr") { rest.next() } else { None };
                if name.ends_with("attr") && attribute.is_none() {
                    return refuse("missing parameter for attribute name");
                }
                let test = rest.next();
                let test = if test.is_some() { Some(self.borrowed_name(&test)?) } else { None };
                let rest = Arguments { positional: rest.collect(), named: Vec::new() };
                let keeps = name.starts_with("select");
                let mut kept = Vec::new();
                for item in self.iterate(&value)? {
                    let by = match &attribute {
                        None => item.clone(),
                        Some(attribute) => self.by_path(&item, attribute)?,
                    };
                    let holds = match test {
                        None => self.is_true(&by),
                        Some(test) => self.test(test, &by, &rest)?,
                    };
                    if holds == keeps {
                        kept.push(item);
                    }
                }
                self.generator(kept)
            }
            "batch" => {
                let Some(size) = arguments.take(0, "linecount") else { return refuse("`batch` takes a number") };
                let size = usize::try_from(self.integer(&size)?).unwrap_or(0).max(1);
                let fill = arguments.take(1, "fill_with");
                let items = self.iterate(&value)?;
                let mut rows: Vec<Vec<Value<'a>>> = items.chunks(size).map(<[_]>::to_vec).collect();
                if let (Some(fill), Some(last)) = (fill, rows.last_mut()) {
                    last.resize(size.min(1 << 12).max(last.len()), fill);
                }
                self.generator(rows.into_iter().map(Value::list).collect())
            }
            "indent" => self.indent(&value, &arguments)?,
            "int" => {
                let default = arguments.take(0, "default").unwrap_or(Value::Int(0));
                match self.settled_number(&value) {
                    Some(number) => number,
                    None => default,
                }
            }
            "float" => {
                let default = arguments.take(0, "default").unwrap_or(Value::Float(0.0));
                match (float(&value), value.as_str().map(|text| text.trim_matches(is_space).parse::<f64>())) {
                    (Some((number, _)), _) | (None, Some(Ok(number))) => Value::Float(number),
                    _ => default,
                }
            }
            "abs" => match value {
                Value::Int(value) => Value::Int(value.saturating_abs()),
                Value::Float(value) => Value::Float(value.abs()),
                other => return refuse(format!("bad operand type for abs(): '{}'", other.kind())),
            },
            "round" => {
                let Some((number, _)) = float(&value) else { return refuse("`round` takes a number") };
                let digits = match arguments.take(0, "precision") {
                    None => 0,
                    Some(digits) => i32::try_from(self.integer(&digits)?).unwrap_or(0).clamp(-300, 300),
                };
                let scale = 10_f64.powi(digits);
                Value::Float(match arguments.take(1, "method").as_ref().and_then(Value::as_str) {
                    None | Some("common") if digits >= 0 => {
                        // Python rounds the decimal expansion, as printing does.
                        format!("{number:.*}", digits.unsigned_abs() as usize).parse().unwrap_or(number)
                    }
                    None | Some("common") => (number * scale).round_ties_even() / scale,
                    Some("ceil") => (number * scale).ceil() / scale,
                    Some("floor") => (number * scale).floor() / scale,
                    Some(_) => return refuse("method must be common, ceil or floor"),
                })
            }
            "sum" => {
                let attribute = arguments.take(0, "attribute");
                let mut total = arguments.take(1, "start").unwrap_or(Value::Int(0));
                for item in self.iterate(&value)? {
                    let item = match &attribute {
                        None => item,
                        Some(attribute) => self.by_path(&item, attribute)?,
                    };
                    total = self.arithmetic(crate::template::program::Arithmetic::Add, &total, &item)?;
                }
                total
            }
            "min" | "max" => {
                let items = self.iterate(&value)?;
                let keyed = items.into_iter().map(|item| (item.clone(), item)).collect();
                let mut sorted = self.sorted(keyed, false, &Value::Bool(name == "max"))?;
                if sorted.is_empty() { Value::Undefined } else { sorted.swap_remove(0) }
            }
            "attr" => {
                let by = arguments.positional.first().cloned();
                let name = self.borrowed_name(&by)?;
                match &value {
                    Value::Object(_) | Value::Dict(_) => Value::Undefined,
                    value => self.attribute(value, name)?,
                }
            }
            "format" => {
                let text = self.text(&value)?;
                self.percent(text.as_str(), &Value::tuple(arguments.positional))?
            }
            "wordcount" => {
                let text = self.text(&value)?;
                let is_word = |character: char| character.is_alphanumeric() || character == '_';
                let words = text.as_str().split(|character: char| !is_word(character)).filter(|word| !word.is_empty());
                Value::integer(words.count())
            }
            _ => return refuse(format!("No filter named '{name}'")),
        })
    }

    fn made(&mut self, value: &Value<'a>, make: impl Fn(&str) -> String) -> Done<Value<'a>> {
        let text = self.text(value)?;
        self.burn(text.as_str().len() / 64)?;
        Ok(Value::Text(Text::from(make(text.as_str())).marked(text.safe)))
    }

    /// A name of a filter or test that is given as a value: one that the template spells out.
    fn borrowed_name(&mut self, value: &Option<Value<'a>>) -> Done<&'a str> {
        let Some(Value::Text(text)) = value else { return refuse("expected the name of a filter or test") };
        text.borrowed().map_or_else(|| refuse("a filter or test whose name is put together is not supported"), Ok)
    }

    /// `len(value)`.
    pub(super) fn length(&mut self, value: &Value<'a>) -> Done<Value<'a>> {
        Ok(match value {
            Value::Undefined => Value::Int(0),
            Value::Text(text) => {
                self.burn(text.as_str().len() / 64)?;
                Value::integer(text.as_str().chars().count())
            }
            Value::Sequence(_, items) => Value::integer(items.len()),
            Value::Array(nodes) => Value::integer(nodes.len()),
            Value::Object(members) => Value::integer(members.len()),
            Value::Dict(pairs) => Value::integer(pairs.len()),
            Value::Messages(start) | Value::Reversed(start) if *start <= self.count => {
                self.need(*start);
                if *start > 0 {
                    self.forget();
                }
                Value::Count(-(*start as i128))
            }
            Value::Messages(_) | Value::Reversed(_) => {
                self.forget();
                Value::Int(0)
            }
            other => return refuse(format!("object of type '{}' has no len()", other.kind())),
        })
    }

    /// An attribute by a path such as `a.b.0`, as `map(attribute=…)` takes it.
    fn by_path(&mut self, value: &Value<'a>, path: &Value<'a>) -> Done<Value<'a>> {
        let Value::Text(path) = path else { return self.item(value, path) };
        let mut value = value.clone();
        for part in path.as_str().split('.') {
            let key = part.parse::<i128>().map_or_else(|_| Value::Text(path.cut(part)), Value::Int);
            value = match &value {
                // `environment.getitem`, which falls back to the attribute.
                Value::Namespace(_) | Value::Object(_) | Value::Dict(_) => self.item(&value, &key)?,
                Value::Undefined => return refuse("something undefined has no items"),
                other => self.item(other, &key)?,
            };
        }
        Ok(value)
    }

    fn sorted(
        &mut self,
        keyed: Vec<(Value<'a>, Value<'a>)>,
        case_sensitive: bool,
        reverse: &Value<'a>,
    ) -> Done<Vec<Value<'a>>> {
        let reverse = self.is_true(reverse);
        let mut sorted: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(keyed.len());
        for (key, item) in keyed {
            let key = folded(key, case_sensitive);
            // A stable insertion: lists in templates are short, and comparing may fail.
            let mut at = sorted.len();
            while at > 0 {
                self.burn(0)?;
                let before = self.order(&sorted[at - 1].0, &key, "<")?;
                let stays = if reverse {
                    before.is_none_or(std::cmp::Ordering::is_ge)
                } else {
                    before.is_none_or(std::cmp::Ordering::is_le)
                };
                if stays {
                    break;
                }
                at -= 1;
            }
            sorted.insert(at, (key, item));
        }
        Ok(sorted.into_iter().map(|(_, item)| item).collect())
    }

    fn indent(&mut self, value: &Value<'a>, arguments: &Arguments<'a>) -> Done<Value<'a>> {
        let text = self.text(value)?;
        let indention = match arguments.take(0, "width") {
            None => "    ".to_owned(),
            Some(Value::Text(text)) => text.as_str().to_owned(),
            Some(width) => " ".repeat(usize::try_from(self.integer(&width)?).unwrap_or(0).min(256)),
        };
        let mut flag = |place: usize, name: &str| {
            let given = arguments.take(place, name).unwrap_or(Value::Bool(false));
            self.is_true(&given)
        };
        let (first, blank) = (flag(1, "first"), flag(2, "blank"));
        let whole = format!("{}\n", text.as_str());
        let mut out = String::new();
        for (index, line) in lines(&whole, false).into_iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            if index > 0 && (blank || !line.is_empty()) || index == 0 && first {
                out.push_str(&indention);
            }
            out.push_str(line);
        }
        self.burn(out.len() / 64)?;
        Ok(Value::Text(Text::from(out).marked(text.safe)))
    }

    fn settled_number(&mut self, value: &Value<'a>) -> Option<Value<'a>> {
        match value {
            Value::Int(_) => Some(value.clone()),
            Value::Count(_) => self.integer(value).ok().map(Value::Int),
            Value::Bool(truth) => Some(Value::Int((*truth).into())),
            Value::Float(number) if number.is_finite() => Some(Value::Int(number.trunc() as i128)),
            Value::Text(text) => {
                let text = text.as_str().trim_matches(is_space);
                let whole = text.parse::<i128>().ok();
                let float = || text.parse::<f64>().ok().filter(|it| it.is_finite()).map(|it| it.trunc() as i128);
                whole.or_else(float).map(Value::Int)
            }
            _ => None,
        }
    }

    /// Jinja's tests.
    pub(super) fn test(&mut self, name: &str, value: &Value<'a>, arguments: &Arguments<'a>) -> Done<bool> {
        use crate::template::program::Comparison;
        let with = |machine: &mut Self, comparison: Comparison| match arguments.positional.first() {
            Some(other) => machine.compare(comparison, value, other),
            None => refuse(format!("the test `{name}` takes a value")),
        };
        Ok(match name {
            "defined" => !matches!(value, Value::Undefined),
            "undefined" => matches!(value, Value::Undefined),
            "none" => matches!(value, Value::None),
            "true" => matches!(value, Value::Bool(true)),
            "false" => matches!(value, Value::Bool(false)),
            "boolean" => matches!(value, Value::Bool(_)),
            "string" => matches!(value, Value::Text(_)),
            "integer" => matches!(value, Value::Int(_) | Value::Huge(_) | Value::Count(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => {
                matches!(value, Value::Int(_) | Value::Huge(_) | Value::Count(_) | Value::Float(_) | Value::Bool(_))
            }
            "mapping" => matches!(value, Value::Object(_) | Value::Dict(_)),
            "sequence" => matches!(
                value,
                Value::Text(_)
                    | Value::Object(_)
                    | Value::Dict(_)
                    | Value::Sequence(Sequence::List | Sequence::Tuple, _)
                    | Value::Array(_)
                    | Value::Messages(_)
                    | Value::Reversed(_)
                    | Value::Undefined
            ),
            "iterable" => !matches!(
                value,
                Value::None
                    | Value::Bool(_)
                    | Value::Int(_)
                    | Value::Huge(_)
                    | Value::Count(_)
                    | Value::Float(_)
                    | Value::Namespace(_)
                    | Value::Macro(..)
                    | Value::Method(_)
                    | Value::Function(_)
            ),
            "callable" => matches!(
                value,
                Value::Macro(..) | Value::Method(_) | Value::Function(_) | Value::Loop(_) | Value::Undefined
            ),
            "lower" => {
                let text = self.text(value)?;
                text.as_str().chars().any(char::is_lowercase) && !text.as_str().chars().any(char::is_uppercase)
            }
            "upper" => {
                let text = self.text(value)?;
                text.as_str().chars().any(char::is_uppercase) && !text.as_str().chars().any(char::is_lowercase)
            }
            "odd" => self.integer(value)?.rem_euclid(2) == 1,
            "even" => self.integer(value)?.rem_euclid(2) == 0,
            "divisibleby" => {
                let by = arguments.positional.first().cloned().unwrap_or(Value::Int(0));
                match self.integer(&by)? {
                    0 => return refuse("integer modulo by zero"),
                    by => self.integer(value)?.rem_euclid(by) == 0,
                }
            }
            "escaped" => matches!(value, Value::Text(text) if text.safe),
            "sameas" => match (value, arguments.positional.first()) {
                (Value::None, Some(Value::None)) => true,
                (Value::Bool(one), Some(Value::Bool(other))) => one == other,
                (_, Some(Value::None | Value::Bool(_))) | (Value::None | Value::Bool(_), Some(_)) => false,
                _ => return refuse("`sameas` is only known for none, true and false"),
            },
            "in" => with(self, Comparison::In)?,
            "eq" | "equalto" | "==" => with(self, Comparison::Equal)?,
            "ne" | "!=" => with(self, Comparison::Unequal)?,
            "lt" | "lessthan" | "<" => with(self, Comparison::Less)?,
            "le" | "<=" => with(self, Comparison::LessOrEqual)?,
            "gt" | "greaterthan" | ">" => with(self, Comparison::Greater)?,
            "ge" | ">=" => with(self, Comparison::GreaterOrEqual)?,
            _ => return refuse(format!("No test named '{name}'")),
        })
    }

    /// transformers' `tojson`: `json.dumps(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
    fn tojson(&mut self, value: &Value<'a>, arguments: &Arguments<'a>) -> Done<Value<'a>> {
        if let Some((unknown, _)) = arguments
            .named
            .iter()
            .find(|(name, _)| !matches!(*name, "ensure_ascii" | "indent" | "separators" | "sort_keys"))
        {
            return refuse(format!("tojson() got an unexpected keyword argument '{unknown}'"));
        }
        let mut flag = |place: usize, name: &str| {
            let given = arguments.take(place, name).unwrap_or(Value::Bool(false));
            self.is_true(&given)
        };
        let (ensure_ascii, sort_keys) = (flag(0, "ensure_ascii"), flag(3, "sort_keys"));
        let indent = match arguments.take(1, "indent") {
            None => None,
            Some(Value::Text(text)) => Some(text.as_str().to_owned()),
            Some(width) => Some(" ".repeat(usize::try_from(self.integer(&width)?).unwrap_or(0).min(256))),
        };
        let separators = match arguments.take(2, "separators") {
            None => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
            Some(pair) => {
                let pair = self.iterate(&pair)?;
                let [Some(item), Some(key)] =
                    [pair.first().and_then(Value::as_str), pair.get(1).and_then(Value::as_str)]
                else {
                    return refuse("`separators` takes two strings");
                };
                [item.to_owned(), key.to_owned()]
            }
        };
        let dump = Dump { ensure_ascii, indent, separators, sort_keys };
        let mut out = String::new();
        self.dump(&dump, &mut out, value, 0)?;
        self.burn(out.len() / 64)?;
        Ok(Value::from(out))
    }

    fn dump(&mut self, dump: &Dump, out: &mut String, value: &Value<'a>, depth: usize) -> Done<()> {
        self.burn(0)?;
        match value {
            Value::None => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Int(value) => out.push_str(&value.to_string()),
            Value::Huge(value) => out.push_str(value),
            Value::Float(value) => out.push_str(&match *value {
                float if float.is_nan() => "NaN".to_owned(),
                f64::INFINITY => "Infinity".to_owned(),
                f64::NEG_INFINITY => "-Infinity".to_owned(),
                float => python_float(float),
            }),
            Value::Text(text) => write_string(out, text.as_str(), dump.ensure_ascii),
            Value::Count(_) | Value::Messages(_) | Value::Reversed(_) => {
                let settled = self.settled(value);
                self.dump(dump, out, &settled, depth)?;
            }
            Value::Sequence(Sequence::List | Sequence::Tuple, _) | Value::Array(_) => {
                let items = self.iterate(value)?;
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    dump.begin(out, index, depth);
                    self.deeper(|machine| machine.dump(dump, out, item, depth + 1))?;
                }
                dump.end(out, ']', items.is_empty(), depth);
            }
            Value::Object(_) | Value::Dict(_) => {
                let mut pairs = self.members(value)?;
                if dump.sort_keys {
                    let keyed = pairs.into_iter().map(|(key, value)| (key.clone(), Value::tuple(vec![key, value])));
                    let keyed = keyed.collect();
                    let sorted = self.sorted(keyed, true, &Value::Bool(false))?;
                    pairs = Vec::with_capacity(sorted.len());
                    for pair in sorted {
                        let Value::Sequence(_, pair) = pair else { continue };
                        pairs.push((pair[0].clone(), pair[1].clone()));
                    }
                }
                out.push('{');
                for (index, (key, value)) in pairs.iter().enumerate() {
                    dump.begin(out, index, depth);
                    let key = match key {
                        Value::Text(text) => text.clone(),
                        Value::Bool(truth) => Text::from(if *truth { "true" } else { "false" }),
                        Value::None => Text::from("null"),
                        Value::Int(_) | Value::Float(_) => self.text(key)?,
                        other => return refuse(format!("keys must be strings or numbers, not {}", other.kind())),
                    };
                    write_string(out, key.as_str(), dump.ensure_ascii);
                    out.push_str(&dump.separators[1]);
                    self.deeper(|machine| machine.dump(dump, out, value, depth + 1))?;
                }
                dump.end(out, '}', pairs.is_empty(), depth);
            }
            other => return refuse(format!("Object of type {} is not JSON serializable", other.kind())),
        }
        Ok(())
    }
}

struct Dump {
    ensure_ascii: bool,
    indent: Option<String>,
    separators: [String; 2],
    sort_keys: bool,
}

impl Dump {
    fn begin(&self, out: &mut String, index: usize, depth: usize) {
        if index > 0 {
            out.push_str(&self.separators[0]);
        }
        self.new_line(out, depth + 1);
    }

    fn end(&self, out: &mut String, closer: char, empty: bool, depth: usize) {
        if !empty {
            self.new_line(out, depth);
        }
        out.push(closer);
    }

    fn new_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            for _ in 0..depth {
                out.push_str(indent);
            }
        }
    }
}

/// A key as sorting without regard to case sees it.
fn folded<'a>(key: Value<'a>, case_sensitive: bool) -> Value<'a> {
    match &key {
        Value::Text(text) if !case_sensitive => Value::from(text.as_str().to_lowercase()),
        Value::Sequence(kind, items) if !case_sensitive => {
            Value::Sequence(*kind, Rc::new(items.iter().map(|item| folded(item.clone(), false)).collect()))
        }
        _ => key,
    }
}

/// Jinja's `title`: each word's first letter in upper case, the rest in lower case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for character in text.chars() {
        if begins {
            out.extend(character.to_uppercase());
        } else {
            out.extend(character.to_lowercase());
        }
        begins = is_space(character) || matches!(character, '-' | '(' | '{' | '[' | '<');
    }
    out
}
