//! What a template's source needs before the engine reads it: `{% generation %}`, and loops that are as strict as
//! Python's.
//!
//! transformers marks what the assistant says with a tag of its own. minijinja has no custom tags, so the pair is
//! rewritten at load: `{% with %}{% filter __generation %}…{% endfilter %}{% endwith %}`. The filter brackets the
//! block's text with U+FDD0 and U+FDD1, which are taken out of the rendered text again; where they stood is the
//! block. transformers builds the tag from a call block, in which assignments stay inside; `with` keeps them inside
//! here. (A call block would not do: the engine gives it no access to namespaces that it only assigns to.)

/// Name of the filter that brackets a block.
pub(super) const FILTER: &str = "__generation";
/// Name of the filter that lets everything through but none, over which Python does not loop.
pub(super) const ITERABLE: &str = "__iterable";

/// A source that the engine can read.
pub(super) struct Rewritten {
    pub(super) source: String,
    /// Whether it has `{% generation %}` blocks.
    pub(super) tagged: bool,
}

/// Rewrites `generation` and `for` tags, and nothing else.
pub(super) fn rewrite(source: &str) -> Rewritten {
    let mut out = String::with_capacity(source.len() + 64);
    let mut at = 0;
    let mut found = false;
    while let Some(step) = ["{%", "{#", "{{"].iter().filter_map(|open| source[at..].find(open)).min() {
        let open = at + step;
        out.push_str(&source[at..open]);
        let kind = &source[open..open + 2];
        let close = match kind {
            "{#" => source[open..].find("#}").map(|end| open + end + 2),
            "{{" => end_of_code(source, open + 2, "}}"),
            _ => end_of_code(source, open + 2, "%}"),
        };
        // An unclosed tag is a syntax error, which the engine reports better.
        let Some(close) = close else {
            out.push_str(&source[open..]);
            return Rewritten { source: out, tagged: found };
        };
        let tag = &source[open..close];
        let body = tag[2..tag.len() - 2].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        match (kind, body) {
            ("{%", "generation") => {
                found = true;
                out.push_str(&tag.replacen("generation", &format!("with %}}{{% filter {FILTER}"), 1));
            }
            ("{%", "endgeneration") => out.push_str(&tag.replacen("endgeneration", "endfilter %}{% endwith", 1)),
            ("{%", "raw") => {
                let end = source[close..].find("endraw").map_or(source.len(), |end| close + end);
                out.push_str(&source[open..end]);
                at = end;
                continue;
            }
            ("{%", _) => out.push_str(&strict_loop(tag).unwrap_or_else(|| tag.to_owned())),
            _ => out.push_str(tag),
        }
        at = close;
    }
    out.push_str(&source[at..]);
    Rewritten { source: out, tagged: found }
}

/// A `for` tag whose iterable passes through [`ITERABLE`]; other tags stay.
fn strict_loop(tag: &str) -> Option<String> {
    let inside = &tag[2..tag.len() - 2];
    let lead = inside.len() - inside.trim_start_matches(['-', '+']).trim_start().len();
    let body = &inside[lead..];
    if !body.starts_with("for") || !body[3..].starts_with(char::is_whitespace) {
        return None;
    }
    let found = words(body);
    let start = found.iter().find(|(_, word)| *word == "in").map(|(at, word)| at + word.len())?;
    let end = found.iter().filter(|(at, _)| *at > start).find(|(_, word)| matches!(*word, "if" | "recursive"));
    let end = end.map_or(body.trim_end_matches(['-', '+']).len(), |(at, _)| *at);
    let expression = body[start..end].trim();
    let (before, after) = (&tag[..2 + lead + start], &tag[2 + lead + end..]);
    Some(format!("{before} ({expression})|{ITERABLE} {after}"))
}

/// Words outside strings and brackets, with their places.
fn words(code: &str) -> Vec<(usize, &str)> {
    let (mut found, mut depth, mut quote, mut start) = (Vec::new(), 0_usize, None, None);
    let bytes = code.as_bytes();
    for (at, &byte) in bytes.iter().enumerate().chain([(code.len(), &b' ')]) {
        let is_word = quote.is_none() && depth == 0 && (byte.is_ascii_alphanumeric() || byte == b'_');
        if let (Some(begin), false) = (start, is_word) {
            found.push((begin, &code[begin..at]));
            start = None;
        } else if start.is_none() && is_word {
            start = Some(at);
        }
        match (quote, byte) {
            (Some(open), byte) if byte == open && bytes[at - 1] != b'\\' => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    found
}

/// The end of a tag or an expression, strings inside it passed over.
fn end_of_code(source: &str, from: usize, closer: &str) -> Option<usize> {
    let bytes = source.as_bytes();
    let mut quote = None;
    let mut at = from;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'"' | b'\'')) => quote = Some(byte),
            (None, _) if source.as_bytes()[at..].starts_with(closer.as_bytes()) => {
                return Some(at + 2);
            }
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tags_are_rewritten() {
        let source = "{# {% generation %} #}{{ '{% generation %}' }}{%- generation -%}x{% endgeneration %}";
        let found = rewrite(source);
        assert!(found.tagged);
        assert_eq!(
            found.source,
            "{# {% generation %} #}{{ '{% generation %}' }}{%- with %}{% filter __generation -%}\
             x{% endfilter %}{% endwith %}"
        );
        assert!(!rewrite("{% raw %}{% generation %}{% endraw %}").tagged);
        assert!(!rewrite("{% if generation %}{% endif %}").tagged);
    }

    #[test]
    fn loops_pass_through_the_filter_whatever_stands_in_them() {
        for (tag, strict) in [
            ("{%- for m in messages[::-1] -%}", "{%- for m in (messages[::-1])|__iterable -%}"),
            (
                "{% for k, v in x.items() if k in 'a if b' %}",
                "{% for k, v in (x.items())|__iterable if k in 'a if b' %}",
            ),
            ("{% for x in (a if b else c) recursive %}", "{% for x in ((a if b else c))|__iterable recursive %}"),
            ("{%for x in y['in if']%}", "{%for x in (y['in if'])|__iterable %}"),
        ] {
            assert_eq!(rewrite(tag).source, strict);
        }
        assert_eq!(rewrite("{% format in x %}").source, "{% format in x %}");
    }
}
