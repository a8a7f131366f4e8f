//! Methods of Python's strings, dicts and lists, as far as Jinja's sandbox lets templates call them.

use super::value::{Sequence, Text, Value};
use super::{Arguments, Done, Machine, refuse};

const OF_TEXT: [&str; 43] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "islower",
    "isnumeric",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];
const OF_DICT: [&str; 11] =
    ["clear", "copy", "fromkeys", "get", "items", "keys", "pop", "popitem", "setdefault", "update", "values"];
const OF_LIST: [&str; 11] =
    ["append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"];
/// Methods that change what they are called on, which the sandbox forbids.
const FORBIDDEN: [&str; 11] =
    ["append", "clear", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault", "sort", "update"];

/// Whether every dict has such a method, whatever its keys.
pub(super) fn of_dict(name: &str) -> bool {
    OF_DICT.contains(&name)
}

/// Whether a value has such a method.
pub(super) fn is_one(value: &Value<'_>, name: &str) -> bool {
    match value {
        Value::Text(_) => OF_TEXT.contains(&name),
        Value::Object(_) | Value::Dict(_) => OF_DICT.contains(&name),
        Value::Sequence(Sequence::List, _) | Value::Array(_) | Value::Messages(_) | Value::Reversed(_) => {
            OF_LIST.contains(&name)
        }
        Value::Sequence(Sequence::Tuple, _) => matches!(name, "count" | "index"),
        _ => false,
    }
}

/// White space to Python's strings.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

impl<'a> Arguments<'a> {
    /// The argument at a place, or of a name; `None` of Python counts as absent.
    pub(super) fn take(&self, place: usize, name: &str) -> Option<Value<'a>> {
        let named = || self.named.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        self.positional.get(place).cloned().or_else(named).filter(|value| !matches!(value, Value::None))
    }
}

impl<'a> Machine<'a> {
    /// `value.name(…)`.
    pub(super) fn call_attribute(
        &mut self,
        value: &Value<'a>,
        name: &'a str,
        arguments: Arguments<'a>,
    ) -> Done<Value<'a>> {
        if is_one(value, name) {
            return self.call_method(value, name, arguments);
        }
        match self.attribute(value, name)? {
            Value::Undefined => refuse(format!("'{}' object has no attribute '{name}'", value.kind())),
            found => self.call(found, arguments, None),
        }
    }

    pub(super) fn call_method(&mut self, value: &Value<'a>, name: &str, arguments: Arguments<'a>) -> Done<Value<'a>> {
        match value {
            Value::Text(text) => self.text_method(text, name, &arguments),
            Value::Loop(turn) if name == "cycle" => {
                if arguments.positional.is_empty() {
                    return refuse("no items for cycling given");
                }
                Ok(arguments.positional[turn.number % arguments.positional.len()].clone())
            }
            Value::Loop(_) => refuse("`loop.changed` is not supported"),
            _ if FORBIDDEN.contains(&name) => {
                refuse(format!("`{name}` would change what it is called on, which Jinja's sandbox forbids"))
            }
            Value::Object(_) | Value::Dict(_) => self.dict_method(value, name, &arguments),
            _ => self.list_method(value, name, &arguments),
        }
    }

    fn dict_method(&mut self, value: &Value<'a>, name: &str, arguments: &Arguments<'a>) -> Done<Value<'a>> {
        match name {
            "get" => {
                let Some(key) = arguments.positional.first() else { return refuse("`get` takes a key") };
                let default = arguments.positional.get(1).cloned().unwrap_or(Value::None);
                match (value, key) {
                    (Value::Object(members), Value::Text(key)) => {
                        let found = members.iter().find(|member| member.key == key.as_str());
                        Ok(found.map_or(default, |member| Value::of(&member.node)))
                    }
                    _ => {
                        for (known, found) in self.members(value)? {
                            if self.equal(&known, key)? {
                                return Ok(found);
                            }
                        }
                        Ok(default)
                    }
                }
            }
            "items" => {
                let pairs = self.members(value)?;
                Ok(Value::view(pairs.into_iter().map(|(key, value)| Value::tuple(vec![key, value])).collect()))
            }
            "keys" => Ok(Value::view(self.members(value)?.into_iter().map(|(key, _)| key).collect())),
            "values" => Ok(Value::view(self.members(value)?.into_iter().map(|(_, value)| value).collect())),
            "copy" => Ok(value.clone()),
            _ => refuse(format!("the method `{name}` of a dict is not supported")),
        }
    }

    fn list_method(&mut self, value: &Value<'a>, name: &str, arguments: &Arguments<'a>) -> Done<Value<'a>> {
        let Some(wanted) = arguments.positional.first() else {
            return if name == "copy" { Ok(value.clone()) } else { refuse(format!("`{name}` takes a value")) };
        };
        let mut count = 0;
        for (index, item) in self.iterate(value)?.iter().enumerate() {
            if self.equal(item, wanted)? {
                if name == "index" {
                    return Ok(Value::integer(index));
                }
                count += 1;
            }
        }
        match name {
            "count" => Ok(Value::integer(count)),
            "index" => refuse("the value is not in the list"),
            _ => refuse(format!("the method `{name}` of a list is not supported")),
        }
    }

    #[expect(clippy::too_many_lines, reason = "a table of methods, each a line or two")]
    fn text_method(&mut self, text: &Text<'a>, name: &str, arguments: &Arguments<'a>) -> Done<Value<'a>> {
        self.burn(text.unseen().len() / 64)?;
        if text.origin() != 0
            && let Some(found) = self.traced_method(text, name, arguments)
        {
            return Ok(found);
        }
        let held = text.as_str();
        let cut = |part: &str| Value::Text(text.cut(part));
        let made = |new: String| Value::Text(Text::from(new).marked(text.safe));
        let words = |argument: Option<Value<'a>>| -> Done<Option<String>> {
            match argument {
                None => Ok(None),
                Some(Value::Text(text)) => Ok(Some(text.as_str().to_owned())),
                Some(other) => refuse(format!("`{name}` takes a string, not {}", other.kind())),
            }
        };
        let required = |argument: Option<Value<'a>>| -> Done<String> {
            words(argument)?.map_or_else(|| refuse(format!("`{name}` takes a string")), Ok)
        };
        Ok(match name {
            "strip" | "lstrip" | "rstrip" => {
                let set = words(arguments.take(0, "chars"))?;
                let strips = |character: char| match &set {
                    None => is_space(character),
                    Some(set) => set.contains(character),
                };
                let mut part = held;
                if name != "rstrip" {
                    part = part.trim_start_matches(strips);
                }
                if name != "lstrip" {
                    part = part.trim_end_matches(strips);
                }
                cut(part)
            }
            "split" | "rsplit" => {
                let separator = words(arguments.take(0, "sep"))?;
                let most = match arguments.take(1, "maxsplit") {
                    None => -1,
                    Some(most) => self.integer(&most)?,
                };
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                let parts = match &separator {
                    Some(separator) if separator.is_empty() => return refuse("empty separator"),
                    Some(separator) if name == "split" => split(held, separator, most),
                    Some(separator) => split_from_end(held, separator, most),
                    None if name == "split" => split_at_space(held, most),
                    None => split_at_space_from_end(held, most),
                };
                self.burn(parts.len())?;
                Value::list(parts.into_iter().map(cut).collect())
            }
            "splitlines" => {
                let keep = arguments.take(0, "keepends").is_some_and(|keep| matches!(keep, Value::Bool(true)));
                Value::list(lines(held, keep).into_iter().map(cut).collect())
            }
            "startswith" | "endswith" => {
                let wanted = match arguments.positional.first() {
                    Some(Value::Sequence(Sequence::Tuple, items)) => items.to_vec(),
                    Some(one @ Value::Text(_)) => vec![one.clone()],
                    _ => return refuse(format!("`{name}` takes a string or a tuple of strings")),
                };
                let part = self.part_of(text, arguments, 1)?;
                let has = |one: &Value<'a>| {
                    one.as_str().is_some_and(|one| {
                        if name == "startswith" { part.as_str().starts_with(one) } else { part.as_str().ends_with(one) }
                    })
                };
                Value::Bool(wanted.iter().any(has))
            }
            "find" | "rfind" | "index" | "rindex" | "count" => {
                let wanted = required(arguments.take(0, "sub"))?;
                let part = self.part_of(text, arguments, 1)?;
                if name == "count" {
                    let count = match wanted.is_empty() {
                        true => part.as_str().chars().count() + 1,
                        false => part.as_str().matches(&wanted).count(),
                    };
                    return Ok(Value::integer(count));
                }
                let before = held.len() - held[part_offset(held, part.as_str())..].len();
                let found =
                    if name.starts_with('r') { part.as_str().rfind(&wanted) } else { part.as_str().find(&wanted) };
                match found {
                    Some(at) => Value::integer(held[..before + at].chars().count()),
                    None if name.ends_with("find") => Value::Int(-1),
                    None => return refuse("substring not found"),
                }
            }
            "replace" => {
                let (old, new) = (required(arguments.take(0, "old"))?, required(arguments.take(1, "new"))?);
                let most = match arguments.take(2, "count") {
                    None => usize::MAX,
                    Some(most) => usize::try_from(self.integer(&most)?).unwrap_or(usize::MAX),
                };
                let replaced =
                    if most == usize::MAX { held.replace(&old, &new) } else { held.replacen(&old, &new, most) };
                self.burn(replaced.len() / 64)?;
                made(replaced)
            }
            "join" => {
                let Some(items) = arguments.positional.first() else { return refuse("`join` takes a list") };
                let mut out = String::new();
                for (index, item) in self.iterate(items)?.iter().enumerate() {
                    let Some(item) = item.as_str() else {
                        return refuse(format!("`join`: item {index} is no string but {}", item.kind()));
                    };
                    out.push_str(if index > 0 { held } else { "" });
                    out.push_str(item);
                }
                self.burn(out.len() / 64)?;
                made(out)
            }
            "lower" => made(held.to_lowercase()),
            "casefold" => made(held.to_lowercase().replace('ß', "ss")),
            "upper" => made(held.to_uppercase()),
            "capitalize" => made(capitalize(held)),
            "swapcase" => made(swap_case(held)),
            "title" => made(title(held)),
            "removeprefix" => {
                let prefix = required(arguments.take(0, "prefix"))?;
                cut(held.strip_prefix(prefix.as_str()).unwrap_or(held))
            }
            "removesuffix" => {
                let suffix = required(arguments.take(0, "suffix"))?;
                cut(held.strip_suffix(suffix.as_str()).unwrap_or(held))
            }
            "partition" | "rpartition" => {
                let separator = required(arguments.take(0, "sep"))?;
                if separator.is_empty() {
                    return refuse("empty separator");
                }
                let at = if name == "partition" { held.find(&separator) } else { held.rfind(&separator) };
                let parts = match at {
                    Some(at) => [cut(&held[..at]), Value::from(separator.clone()), cut(&held[at + separator.len()..])],
                    None if name == "partition" => [cut(held), Value::from(""), Value::from("")],
                    None => [Value::from(""), Value::from(""), cut(held)],
                };
                Value::tuple(parts.to_vec())
            }
            "zfill" | "ljust" | "rjust" | "center" => {
                let Some(width) = arguments.take(0, "width") else { return refuse(format!("`{name}` takes a width")) };
                let width = usize::try_from(self.integer(&width)?).unwrap_or(0);
                if width > 1 << 16 {
                    return refuse("a width that is too large");
                }
                let fill = words(arguments.take(1, "fillchar"))?.unwrap_or_else(|| " ".to_owned());
                made(pad(held, name, width, &fill))
            }
            "expandtabs" => made(held.replace('\t', "        ")),
            "isalpha" => Value::Bool(all(held, char::is_alphabetic)),
            "isalnum" => Value::Bool(all(held, char::is_alphanumeric)),
            "isdigit" | "isdecimal" | "isnumeric" => Value::Bool(all(held, char::is_numeric)),
            "isspace" => Value::Bool(all(held, is_space)),
            "isascii" => Value::Bool(held.is_ascii()),
            "isupper" => Value::Bool(held.chars().any(char::is_uppercase) && !held.chars().any(char::is_lowercase)),
            "islower" => Value::Bool(held.chars().any(char::is_lowercase) && !held.chars().any(char::is_uppercase)),
            "istitle" => Value::Bool(held.chars().any(char::is_uppercase) && title(held) == held),
            "format" => {
                let format = held.to_owned();
                return self.format(&format, arguments);
            }
            _ => return refuse(format!("the method `{name}` of a string is not supported")),
        })
    }

    /// The piece that `start` and `end` arguments leave, from the given place on.
    fn part_of(&mut self, text: &Text<'a>, arguments: &Arguments<'a>, from: usize) -> Done<Text<'a>> {
        let mut bounds = [None, None];
        for (bound, argument) in bounds.iter_mut().zip(arguments.positional.iter().skip(from)) {
            if !matches!(argument, Value::None) {
                *bound = Some(self.integer(argument)?);
            }
        }
        if bounds == [None, None] {
            return Ok(text.clone());
        }
        let places: Vec<usize> = text.as_str().char_indices().map(|(at, _)| at).chain([text.as_str().len()]).collect();
        let length = (places.len() - 1) as i128;
        let place = |bound: Option<i128>, default: i128| {
            let bound = bound.unwrap_or(default);
            let bound = if bound < 0 { bound.saturating_add(length).max(0) } else { bound.min(length) };
            places[usize::try_from(bound).unwrap_or(0)]
        };
        let (start, end) = (place(bounds[0], 0), place(bounds[1], length));
        Ok(text.slice(start..end.max(start)))
    }

    /// `'…{}…{name}…'.format(…)`, without format specifications.
    fn format(&mut self, format: &str, arguments: &Arguments<'a>) -> Done<Value<'a>> {
        let mut out = String::new();
        let mut next = 0;
        let mut rest = format;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                out.push_str(brace);
                rest = after;
                continue;
            }
            let Some(end) = rest.find('}').filter(|_| brace == "{") else {
                return refuse("single '}' or '{' encountered in format string");
            };
            let field = &rest[..end];
            rest = &rest[end + 1..];
            let value = if field.is_empty() {
                next += 1;
                arguments.positional.get(next - 1).cloned()
            } else if let Ok(index) = field.parse::<usize>() {
                arguments.positional.get(index).cloned()
            } else {
                arguments.named.iter().find(|(name, _)| *name == field).map(|(_, value)| value.clone())
            };
            let Some(value) = value else { return refuse(format!("`format` has no value for `{field}`")) };
            out.push_str(self.text(&value)?.as_str());
        }
        out.push_str(rest);
        self.burn(out.len() / 64)?;
        Ok(Value::from(out))
    }
}

/// Where a piece that was cut out of a text begins.
fn part_offset(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize).min(text.len())
}

fn all(text: &str, is: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(is)
}

pub(super) fn capitalize(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + &characters.as_str().to_lowercase()
    })
}

fn swap_case(text: &str) -> String {
    let swap = |character: char| -> String {
        if character.is_uppercase() { character.to_lowercase().collect() } else { character.to_uppercase().collect() }
    };
    text.chars().map(swap).collect()
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        if inside {
            out.extend(character.to_lowercase());
        } else {
            out.extend(character.to_uppercase());
        }
        inside = character.is_alphabetic();
    }
    out
}

fn pad(text: &str, side: &str, width: usize, fill: &str) -> String {
    let missing = width.saturating_sub(text.chars().count());
    match side {
        "zfill" => {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            format!("{sign}{}{digits}", "0".repeat(missing))
        }
        "ljust" => format!("{text}{}", fill.repeat(missing)),
        "rjust" => format!("{}{text}", fill.repeat(missing)),
        _ => {
            let left = missing / 2 + (missing & width & 1);
            format!("{}{text}{}", fill.repeat(left), fill.repeat(missing - left))
        }
    }
}

fn split<'t>(text: &'t str, separator: &str, most: usize) -> Vec<&'t str> {
    text.splitn(most.saturating_add(1), separator).collect()
}

fn split_from_end<'t>(text: &'t str, separator: &str, most: usize) -> Vec<&'t str> {
    let mut parts: Vec<&str> = text.rsplitn(most.saturating_add(1), separator).collect();
    parts.reverse();
    parts
}

fn split_at_space(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    parts
}

fn split_at_space_from_end(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let start = rest.rfind(is_space).map_or(0, |at| at + rest[at..].chars().next().map_or(0, char::len_utf8));
        parts.push(&rest[start..]);
        rest = rest[..start].trim_end_matches(is_space);
    }
    parts.reverse();
    parts
}

/// `str.splitlines`.
pub(super) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    const BREAKS: [char; 10] =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(at) = rest.find(BREAKS) else {
            found.push(rest);
            break;
        };
        let width =
            if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(0, char::len_utf8) };
        found.push(&rest[..if keep_ends { at + width } else { at }]);
        rest = &rest[at + width..];
    }
    found
}
