//! What a template's source needs before the parser reads it: `{% generation %}`.
//!
//! transformers marks what the assistant says with a tag of its own. minijinja's parser has no custom tags, so the
//! pair is rewritten at load: `{% with %}{% filter __generation %}…{% endfilter %}{% endwith %}`. That pair becomes one
//! statement again when the program is made. transformers builds the tag from a call block, in which assignments stay
//! inside; they stay inside here.

/// Name of the filter that brackets a block.
pub(super) const FILTER: &str = "__generation";

/// A source that the engine can read.
pub(super) struct Rewritten {
    pub(super) source: String,
    /// Whether it has `{% generation %}` blocks.
    pub(super) tagged: bool,
}

/// Rewrites `generation` tags, and nothing else.
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
            _ => out.push_str(tag),
        }
        at = close;
    }
    out.push_str(&source[at..]);
    Rewritten { source: out, tagged: found }
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
}
