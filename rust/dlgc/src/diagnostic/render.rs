//! A diagnostic with its place found: for people as an excerpt with a caret, for machines as JSON.

use std::fmt::Write as _;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{Code, Diagnostic, Severity};
use crate::dialogue::Location;
use crate::json;

/// A diagnostic, where it is, and the piece of the record around it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Located {
    /// The code, by its name.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one phrase.
    pub message: String,
    /// `file:line` or `file[element]`.
    pub location: String,
    /// JSONPath of the value it is about; `$` where the record cannot be parsed.
    pub path: String,
    /// Byte range in the record.
    pub range: Option<Range<usize>>,
    /// What stands beside the caret.
    pub label: Option<String>,
    /// What to do.
    pub help: Option<String>,
    /// The finding as people read it, without colour.
    pub rendered: String,
}

/// Widest piece of a record that is shown on each side of the place.
const MARGIN: usize = 44;
/// Widest underlined piece.
const WIDEST: usize = 48;

/// Finds the place of a diagnostic in its record.
pub fn locate(diagnostic: &Diagnostic, location: &Location, record: &[u8]) -> Located {
    let place = |range| json::parse(record).ok().map(|parsed| json::path_of(&parsed.root, range));
    let path = diagnostic.range.as_ref().and_then(place).unwrap_or_else(|| "$".to_owned());
    let mut located = Located {
        code: diagnostic.code,
        severity: diagnostic.severity,
        message: diagnostic.message.clone(),
        location: location.to_string(),
        path,
        range: diagnostic.range.clone(),
        label: diagnostic.label.clone(),
        help: diagnostic.help.clone(),
        rendered: String::new(),
    };
    located.rendered = render(&located, location, record);
    located
}

fn render(located: &Located, location: &Location, record: &[u8]) -> String {
    let Located { severity, message, path, .. } = located;
    let code = located.code.name();
    let mut out = format!("{}[{code}]: {message}\n  --> {location}  {path}\n", severity.name());
    let number = location.position.number().to_string();
    let gutter = " ".repeat(number.len());
    if let Some(range) = &located.range {
        let excerpt = excerpt(record, range);
        let label = located.label.as_deref().unwrap_or_default();
        let _ = writeln!(out, "{gutter} |");
        let _ = writeln!(out, "{number} | {}", excerpt.text);
        let underline = format!("{}{} {label}", " ".repeat(excerpt.column), "^".repeat(excerpt.width));
        let _ = writeln!(out, "{gutter} | {}", underline.trim_end());
    }
    if let Some(help) = &located.help {
        let _ = writeln!(out, "help: {help}");
    }
    out
}

struct Excerpt {
    text: String,
    column: usize,
    width: usize,
}

/// One line of the record around `range`, with columns counted as terminals show them.
fn excerpt(record: &[u8], range: &Range<usize>) -> Excerpt {
    let text = String::from_utf8_lossy(record);
    // Lossy decoding moves offsets only in records that are not UTF-8; there the place is approximate.
    let border = |at: usize| (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let (start, end) = (border(range.start), border(range.end.max(range.start)));
    let before: Vec<char> = text[..start].chars().rev().take_while(|c| *c != '\n').take(MARGIN + 1).collect();
    let marked: Vec<char> = text[start..end].chars().take_while(|c| *c != '\n').collect();
    let after: Vec<char> = text[end..].chars().take_while(|c| *c != '\n').take(MARGIN + 1).collect();

    let mut line = String::new();
    if before.len() > MARGIN {
        line.push_str("… ");
    }
    line.extend(before.iter().take(MARGIN).rev());
    let column = columns(&line);
    let cut = marked.len() > WIDEST || text[start..end].contains('\n');
    let shown: String = marked.iter().take(WIDEST).collect();
    line.push_str(&shown);
    if cut {
        line.push_str(" …");
    } else {
        line.extend(after.iter().take(MARGIN));
        if after.len() > MARGIN {
            line.push_str(" …");
        }
    }
    let line = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Excerpt { text: line, column, width: columns(&shown).max(1) }
}

/// Width on a terminal: East Asian wide characters and emoji take two columns.
pub(crate) fn columns(text: &str) -> usize {
    text.chars()
        .map(|character| match character as u32 {
            0x0300..=0x036F | 0x200B..=0x200F | 0xFE00..=0xFE0F => 0,
            0x1100..=0x115F
            | 0x2E80..=0xA4CF
            | 0xAC00..=0xD7A3
            | 0xF900..=0xFAFF
            | 0xFE30..=0xFE6F
            | 0xFF00..=0xFF60
            | 0xFFE0..=0xFFE6
            | 0x1F300..=0x1FAFF
            | 0x20000..=0x3FFFD => 2,
            _ => 1,
        })
        .sum()
}
