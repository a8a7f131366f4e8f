//! Drift: does another tokenizer or chat template make of a dialogue what the dataset's own made of it?
//!
//! In: a dataset, and the tokenizer or the template that is to serve. Out: for each canary of the manifest the first
//! token at which they part, and the special tokens and stops that are others. The canaries are compiled on both
//! sides with the manifest's own options; what counts is their ids, for that is what a model sees. No row is read.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::compile::{CompileOptions, Compiler, MaskOption, Sighting};
use crate::diagnostic::columns;
use crate::error::{Error, ErrorKind, Result};
use crate::shard::{Canary, Manifest};
use crate::source::digest;
use crate::tokenize::Example;

/// What has changed between a dataset and what is to serve.
#[derive(Debug, Serialize)]
pub struct Drift {
    /// Whether anything did that a model would see.
    pub drifted: bool,
    /// The canaries, in the order of the manifest.
    pub canaries: Vec<CanaryDrift>,
    /// Special tokens and stops that are others.
    pub changes: Vec<Change>,
    /// What is not the same file or version any more, without that making a difference by itself.
    pub notes: Vec<String>,
}

/// A canary on both sides.
#[derive(Debug, Serialize)]
pub struct CanaryDrift {
    /// Its name.
    pub name: String,
    /// Where the sides part first; null where they are the same.
    pub difference: Option<Difference>,
}

/// Where two sides part.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// What drifted.
    pub kind: Kind,
    /// `prompt`, or `row 1` and so on.
    pub place: String,
    /// Index of the first token that is another, if it is about tokens.
    pub token: Option<usize>,
    /// That token in the dataset; null after the end.
    pub was: Option<Token>,
    /// That token now; null after the end.
    pub now: Option<Token>,
    /// The finding as people read it, without colour.
    pub rendered: String,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Token {
    /// Its id.
    pub id: i32,
    /// Its text.
    pub text: String,
}

/// What drifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The template: the text is another.
    Template,
    /// The tokenizer: the text is the same, its ids are not.
    Tokenizer,
    /// The decoder: the ids are the same, their text is not.
    Decoder,
    /// The targets: text and ids are the same, what is trained is not.
    Target,
    /// One side refuses what the other takes.
    Refusal,
    /// This version of dlgc: the same files give other ids than at the time of compilation.
    Version,
}

/// Special tokens or stops that are others.
#[derive(Debug, Serialize)]
pub struct Change {
    /// Which.
    pub name: String,
    /// Only in the dataset.
    pub gone: Vec<String>,
    /// Only in what is to serve.
    pub new: Vec<String>,
}

/// Compares a dataset with a tokenizer, a template, or both; what is not named is the dataset's own.
///
/// A tokenizer brings its own template, unless one is named.
///
/// # Errors
/// [`ErrorKind::Shard`] where the folder holds no dataset or its tokenizer was changed, and what
/// [`Compiler::load`] says of the tokenizer and the template.
pub fn drift(folder: &Path, tokenizer: Option<&str>, chat_template: Option<&str>) -> Result<Drift> {
    let manifest = Manifest::load(folder)?;
    untouched(folder, &manifest)?;
    let own = CompileOptions { mask: MaskOption::Exact, ..CompileOptions::of_dataset(folder, &manifest)? };
    let other = CompileOptions {
        tokenizer: tokenizer.map_or_else(|| own.tokenizer.clone(), |path| Some(path.to_owned())),
        chat_template: chat_template.map(ToOwned::to_owned),
        ..own.clone()
    };
    let (was, now) = (Compiler::load(&own)?, Compiler::load(&other)?);
    let is_exact = manifest.options["mask"] == "exact";
    let compare = |canary: &Canary| {
        let sides = Sides { was: &was, now: &now, name: &canary.name };
        let difference = sides.compare(canary, is_exact, &manifest)?;
        Ok(CanaryDrift { name: canary.name.clone(), difference })
    };
    let canaries: Vec<CanaryDrift> = manifest.canaries.iter().map(compare).collect::<Result<_>>()?;
    let changes = changes(&was, &now, &manifest);
    let drifted = !changes.is_empty() || canaries.iter().any(|canary| canary.difference.is_some());
    Ok(Drift { drifted, canaries, changes, notes: notes(&was, &now, &manifest) })
}

/// What lies beside the shards must be what was written there.
fn untouched(folder: &Path, manifest: &Manifest) -> Result<()> {
    for entry in manifest.files.iter().filter(|entry| entry.path.starts_with("tokenizer/")) {
        let path = folder.join(&entry.path);
        let (_, blake3) = digest(&path).map_err(|error| Error::io(&path, error))?;
        if blake3 != entry.blake3 {
            let message = format!("`{}` is not what was written with the dataset", path.display());
            return Err(Error::new(ErrorKind::Shard, message).hint("`dlgc verify` without options lists what changed"));
        }
    }
    Ok(())
}

fn changes(was: &Compiler, now: &Compiler, manifest: &Manifest) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut compare = |name: &str, was: BTreeSet<String>, now: BTreeSet<String>| {
        let only = |these: &BTreeSet<String>, those: &BTreeSet<String>| these.difference(those).cloned().collect();
        let (gone, new): (Vec<_>, Vec<_>) = (only(&was, &now), only(&now, &was));
        if !gone.is_empty() || !new.is_empty() {
            changes.push(Change { name: name.to_owned(), gone, new });
        }
    };
    let ids = |ids: &[u32]| ids.iter().map(ToString::to_string).collect();
    compare("stop_ids", ids(&manifest.stop_ids), ids(&now.stop_ids));
    compare("stops", manifest.stops.iter().cloned().collect(), now.stops().into_iter().collect());
    let (named_was, named_now) = (was.files.special_tokens(), now.files.special_tokens());
    let names: BTreeSet<&String> = named_was.iter().chain(&named_now).map(|(name, _)| name).collect();
    for name in names {
        let of = |named: &[(String, String)]| {
            named.iter().filter(|(known, _)| known == name).map(|(_, text)| text.clone()).collect()
        };
        compare(name, of(&named_was), of(&named_now));
    }
    let special = |compiler: &Compiler| compiler.tokenizer.special_tokens().into_iter().collect();
    compare("special tokens", special(was), special(now));
    changes
}

fn notes(was: &Compiler, now: &Compiler, manifest: &Manifest) -> Vec<String> {
    let mut notes = Vec::new();
    let json = |compiler: &Compiler| compiler.files.file("tokenizer.json").map(<[u8]>::to_vec);
    if json(was) != json(now) {
        notes.push("tokenizer.json is another file".to_owned());
    }
    let sources = |compiler: &Compiler| -> Vec<String> {
        compiler.templates.iter().map(|(_, template)| template.source().to_owned()).collect()
    };
    if sources(was) != sources(now) {
        notes.push("the chat template has another source".to_owned());
    }
    let (before, after) = (manifest.vocabulary_size, now.tokenizer.vocabulary_size() as u64);
    if before != after {
        notes.push(format!("the vocabulary had {before} entries, now it has {after}"));
    }
    match manifest.versions.get("dlgc") {
        Some(version) if version != crate::VERSION => {
            notes.push(format!("the dataset was compiled by dlgc {version}, this is {}", crate::VERSION));
        }
        _ => {}
    }
    notes
}

/// Both sides of a canary.
struct Sides<'s> {
    was: &'s Compiler,
    now: &'s Compiler,
    name: &'s str,
}

impl Sides<'_> {
    fn compare(&self, canary: &Canary, is_exact: bool, manifest: &Manifest) -> Result<Option<Difference>> {
        let (was, now) = (self.was.sight(&canary.record)?, self.now.sight(&canary.record)?);
        if let Some(found) = self.version(canary, &was, is_exact, manifest) {
            return Ok(Some(found));
        }
        match (&was.prompt, &now.prompt) {
            (Ok(was), Ok(now)) => {
                if let Some(found) = self.part("prompt", was, now)? {
                    return Ok(Some(found));
                }
            }
            (Ok(_), Err(why)) => return Ok(Some(self.refusal("prompt", &format!("is refused now: {}", why.message)))),
            (Err(why), Ok(_)) => return Ok(Some(self.refusal("prompt", &format!("was refused: {}", why.message)))),
            (Err(_), Err(_)) => {}
        }
        if was.refused != now.refused {
            let said = |code: Option<&str>| code.map_or("compiled".to_owned(), |code| format!("refused as `{code}`"));
            let message = format!("was {}, now it is {}", said(was.refused), said(now.refused));
            return Ok(Some(self.refusal("rows", &message)));
        }
        let nothing = Example::default();
        for index in 0..was.rows.len().max(now.rows.len()) {
            let row = |rows: &[Example]| rows.get(index).cloned().unwrap_or_else(|| nothing.clone());
            if let Some(found) = self.part(&format!("row {}", index + 1), &row(&was.rows), &row(&now.rows))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The dataset's own files must still give the ids that the manifest has.
    fn version(&self, canary: &Canary, was: &Sighting, is_exact: bool, manifest: &Manifest) -> Option<Difference> {
        let ids: Vec<i32> = was.rows.iter().flat_map(|row| row.input_ids.iter().copied()).collect();
        let prompt_ids: &[i32] = was.prompt.as_ref().map_or(&[], |prompt| &prompt.input_ids);
        if (!is_exact || ids == canary.ids) && (canary.prompt_ids.is_empty() || prompt_ids == canary.prompt_ids) {
            return None;
        }
        let version = manifest.versions.get("dlgc").map_or("", String::as_str);
        let rendered = format!(
            "drift[version]: canary `{}`: dlgc {} gives other ids than dlgc {version} did, with the dataset's own \
             tokenizer and template\n",
            self.name,
            crate::VERSION
        );
        Some(Difference { kind: Kind::Version, place: "rows".into(), token: None, was: None, now: None, rendered })
    }

    fn refusal(&self, place: &str, message: &str) -> Difference {
        let rendered = format!("drift[refusal]: canary `{}`, {place}: {message}\n", self.name);
        Difference { kind: Kind::Refusal, place: place.to_owned(), token: None, was: None, now: None, rendered }
    }

    /// Where two texts part first, if they do.
    fn part(&self, place: &str, was: &Example, now: &Example) -> Result<Option<Difference>> {
        let first = |was: &[i32], now: &[i32]| {
            let at = was.iter().zip(now).take_while(|(was, now)| was == now).count();
            (at < was.len().max(now.len())).then_some(at)
        };
        let (kind, at, lines) = match first(&was.input_ids, &now.input_ids) {
            Some(at) if was.text == now.text => (Kind::Tokenizer, Some(at), Beside::tokens(was, now, at)),
            Some(at) => (Kind::Template, Some(at), Beside::texts(&was.text, &now.text)),
            None => match first(&was.labels, &now.labels) {
                Some(at) => (Kind::Target, Some(at), Beside::tokens(was, now, at)),
                None => {
                    let decoded =
                        [self.was.tokenizer.decode(&was.input_ids)?, self.now.tokenizer.decode(&now.input_ids)?];
                    if decoded[0] == decoded[1] {
                        return Ok(None);
                    }
                    (Kind::Decoder, None, Beside::texts(&decoded[0], &decoded[1]))
                }
            },
        };
        let (name, what) = match kind {
            Kind::Template => ("template", "the text is another"),
            Kind::Tokenizer => ("tokenizer", "the text is the same, its tokens are not"),
            Kind::Target => ("target", "the tokens are the same, what is trained is not"),
            _ => ("decoder", "the tokens are the same, what they decode to is not"),
        };
        let (old, new) = (at.and_then(|at| token(was, at)), at.and_then(|at| token(now, at)));
        let said = |token: &Option<Token>| match token {
            Some(Token { id, text }) => format!("`{}` ({id})", visible(text)),
            None => "the end".to_owned(),
        };
        let place_of_token = at.map_or_else(String::new, |at| format!(", token {at}"));
        let label = match kind {
            Kind::Template | Kind::Tokenizer => format!("was {}, now {}", said(&old), said(&new)),
            _ => String::new(),
        };
        let mut rendered = format!("drift[{name}]: canary `{}`, {place}{place_of_token}: {what}\n", self.name);
        let caret = format!("{}^ {label}", " ".repeat(lines.column));
        let _ = write!(rendered, "    |\nwas | {}\nnow | {}\n    | {}\n", lines.was, lines.now, caret.trim_end());
        Ok(Some(Difference { kind, place: place.to_owned(), token: at, was: old, now: new, rendered }))
    }
}

fn token(example: &Example, at: usize) -> Option<Token> {
    let (&id, &(start, end)) = (example.input_ids.get(at)?, example.offsets.get(at)?);
    Some(Token { id, text: example.text.get(start..end).unwrap_or_default().to_owned() })
}

/// Two lines that are the same up to a column, and part there.
struct Beside {
    was: String,
    now: String,
    column: usize,
}

/// Columns that are shown before the place, and after it.
const MARGIN: usize = 36;

impl Beside {
    fn texts(was: &str, now: &str) -> Self {
        let mut at = was.bytes().zip(now.bytes()).take_while(|(was, now)| was == now).count();
        while !was.is_char_boundary(at) || !now.is_char_boundary(at) {
            at -= 1;
        }
        let characters =
            |text: &str| text.chars().map(|character| visible(character.encode_utf8(&mut [0; 4]))).collect();
        Self::of(characters(&was[..at]), characters(&was[at..]), characters(&now[at..]))
    }

    fn tokens(was: &Example, now: &Example, at: usize) -> Self {
        let ((mut was, from), (mut now, _)) = (pieces(was, at), pieces(now, at));
        let (old, new) = (was.split_off(from), now.split_off(from.min(now.len())));
        Self::of(was, old, new)
    }

    /// As much of the pieces as there is room for.
    fn of(before: Vec<String>, was: Vec<String>, now: Vec<String>) -> Self {
        let mut lead: Vec<String> = taken(before.iter().rev());
        lead.reverse();
        let cut = if lead.len() < before.len() { "… " } else { "" };
        let lead = format!("{cut}{}", lead.concat());
        let line = |rest: &[String]| {
            let shown = taken(rest.iter());
            format!("{lead}{}{}", shown.concat(), if shown.len() < rest.len() { " …" } else { "" })
        };
        Self { was: line(&was), now: line(&now), column: columns(&lead) }
    }
}

/// Tokens as text, each closed by a bar, and which piece token `at` is in. Tokens that share a character are one piece,
/// followed by their number.
fn pieces(example: &Example, at: usize) -> (Vec<String>, usize) {
    let (mut pieces, mut from, mut index) = (Vec::new(), None, 0);
    while index < example.offsets.len() {
        let (start, mut end) = example.offsets[index];
        let mut next = index + 1;
        while let Some(&(_, further)) = example.offsets.get(next).filter(|offsets| offsets.0 < end) {
            (end, next) = (end.max(further), next + 1);
        }
        if at < next {
            from.get_or_insert(pieces.len());
        }
        let number = if next - index > 1 { format!("×{}", next - index) } else { String::new() };
        pieces.push(format!("{}{number}|", visible(example.text.get(start..end).unwrap_or_default())));
        index = next;
    }
    let from = from.unwrap_or(pieces.len());
    (pieces, from)
}

/// The first pieces, as many as fit.
fn taken<'p>(pieces: impl Iterator<Item = &'p String>) -> Vec<String> {
    let mut room = MARGIN;
    let fits = |piece: &&String| {
        let fits = columns(piece) <= room;
        room = room.saturating_sub(columns(piece));
        fits
    };
    pieces.take_while(fits).cloned().collect()
}

/// A text on one line: white space that moves the cursor has a sign.
fn visible(text: &str) -> String {
    let sign = |character: char| match character {
        '\n' => '⏎',
        '\r' => '␍',
        '\t' => '⇥',
        _ if character.is_control() => '�',
        _ => character,
    };
    text.chars().map(sign).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_share_a_character_are_one_piece() {
        let offsets = vec![(0, 1), (1, 5), (1, 5), (5, 6)];
        let example = Example { text: "a👍b".to_owned(), input_ids: vec![1, 2, 3, 4], offsets, ..Example::default() };
        let of = |at| pieces(&example, at);
        assert_eq!(of(2), (["a|", "👍×2|", "b|"].map(ToOwned::to_owned).to_vec(), 1));
        assert_eq!((of(0).1, of(3).1, of(4).1), (0, 2, 3));
    }

    #[test]
    fn texts_stand_beside_each_other_with_the_column_where_they_part() {
        let found = Beside::texts("<|user|>\n票价？<|end|>", "<|user|>\n票价!<|end|>");
        assert_eq!((found.was.as_str(), found.now.as_str()), ("<|user|>⏎票价？<|end|>", "<|user|>⏎票价!<|end|>"));
        assert_eq!(found.column, 13); // wide characters take two columns
        let long = "x".repeat(100);
        let found = Beside::texts(&format!("{long}a{long}"), &format!("{long}b"));
        assert_eq!(found.column, 2 + MARGIN);
        assert_eq!(found.now, format!("… {}b", "x".repeat(MARGIN)));
        assert!(found.was.ends_with("x …"));
    }
}
