//! `{% generation %}` for an engine without custom tags.
//!
//! transformers marks what the assistant says with a tag of its own. minijinja has no custom tags, so the pair is
//! rewritten at load: `{% with %}{% filter __generation %}…{% endfilter %}{% endwith %}`. The filter brackets the
//! block's text with U+FDD0 and U+FDD1, which are taken out of the rendered text again; where they stood is the
//! block. transformers builds the tag from a call block, in which assignments stay inside; `with` keeps them inside
//! here. (A call block would not do: the engine gives it no access to namespaces that it only assigns to.)

/// Name of the filter.
pub(super) const FILTER: &str = "__generation";

/// Rewrites the tags of a template; `None` if it has none.
pub(super) fn rewrite(source: &str) -> Option<String> {
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
            return found.then_some(out);
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
            _ => out.push_str(tag),
        }
        at = close;
    }
    out.push_str(&source[at..]);
    found.then_some(out)
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
        assert_eq!(
            rewrite(source).as_deref(),
            Some(
                "{# {% generation %} #}{{ '{% generation %}' }}{%- with %}{% filter __generation -%}\
                  x{% endfilter %}{% endwith %}"
            )
        );
        assert_eq!(rewrite("{% raw %}{% generation %}{% endraw %}"), None);
        assert_eq!(rewrite("{% if generation %}{% endif %}"), None);
    }
}
