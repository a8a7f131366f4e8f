//! Other formats become the native one: a parsed record goes in, dialogues of the native shape come out.
//!
//! Formats are recognised by shape, record by record, whatever a file is called. An importer rewrites the tree and leaves
//! every byte range as it is, so diagnostics of later passes point into the record as the user wrote it. It checks
//! nothing that [`crate::validate`] checks.
//!
//! Three kinds of importers, tried in this order:
//! - formats of the user's own, from `[formats.NAME]` in `dlgc.toml` (`mapping`);
//! - formats that build things differently, one file each in `formats` (a tree of replies, a call inside a turn);
//! - formats that only call things by other names, a few lines each in `known`, in the words of `mapping`.
//!
//! What is left is guessed by names of fields (`names`, `speakers`), and said to be. Messages that stand in no object, or in
//! text as tables have them, are unwrapped first.

mod draft;
mod formats;
mod known;
mod mapping;
mod names;
mod path;
mod siblings;
mod speakers;
mod unknown;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::diagnostic::{Code, Diagnostic};
use crate::dialogue::Location;
use crate::error::{Error, ErrorKind, Result as RunResult};
use crate::json::{JsonError, JsonErrorKind, Node, dumps};
use crate::source::InputDigest;
use mapping::{Mapping, Written};
use path::Path;
use siblings::{Beside, Siblings};
use speakers::Assistant;

pub(crate) use names::is_piece;

/// What is wanted of records that hold several answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Dialogues to be trained.
    #[default]
    Dialogues,
    /// Pairs of a better and a worse answer.
    Pairs,
}

/// What a record became.
#[derive(Debug)]
pub struct Imported<'a> {
    /// Dialogues of the native shape; none where it holds something else, such as a schema.
    pub dialogues: Vec<Node<'a>>,
    /// What is worth knowing of it.
    pub notes: Vec<Diagnostic>,
}

/// What an importer may ask about its surroundings.
struct Context<'c> {
    beside: Beside<'c>,
    assistant: &'c Assistant,
    wanted: Wanted,
    notes: Vec<Diagnostic>,
}

/// A format that is more than other names.
struct Format {
    /// Its name, as reports and the manifest have it.
    name: &'static str,
    /// How its records are told from others.
    when: When,
    /// The dialogues of a record.
    import: for<'a> fn(Node<'a>, &mut Context<'_>) -> Result<Vec<Node<'a>>, Diagnostic>,
}

/// How records of a format are told from others.
enum When {
    /// Places that must be there; of lists in their first element.
    Has(&'static [&'static str]),
    /// A test.
    Is(fn(&Node<'_>) -> bool),
}

enum Importer {
    Format(&'static Format, Vec<Path>),
    Mapping(Arc<str>, Mapping),
}

/// All formats that are known, ready for records. Shared by all workers.
pub struct Importers {
    importers: Vec<Importer>,
    siblings: Siblings,
    assistant: Assistant,
    wanted: Wanted,
}

impl Importers {
    /// The known formats and those of the user, which come first. `assistant` names the speaker who is to be trained, or
    /// says `both`; by default it is the second one.
    ///
    /// # Errors
    /// [`ErrorKind::Options`] where a format is not well written.
    pub fn new(
        formats: &BTreeMap<String, serde_json::Value>,
        assistant: Option<&str>,
        wanted: Wanted,
    ) -> RunResult<Self> {
        let mut importers = Vec::new();
        for (name, written) in formats {
            let fail = |said: String| Error::new(ErrorKind::Options, format!("the format `{name}`: {said}"));
            let written: Written = serde_json::from_value(written.clone()).map_err(|error| fail(error.to_string()))?;
            importers.push(Importer::Mapping(name.as_str().into(), Mapping::of(&written).map_err(fail)?));
        }
        let format = |format: &'static Format| {
            let When::Has(places) = format.when else { return Importer::Format(format, Vec::new()) };
            let parse = |path: &&str| Path::parse(path).expect("the paths of formats are well written");
            Importer::Format(format, places.iter().map(parse).collect())
        };
        importers.extend(formats::FIRST.iter().map(format));
        let mapping = |(name, written): (&str, Written)| {
            Importer::Mapping(name.into(), Mapping::of(&written).expect("known formats are well written"))
        };
        importers.extend(known::formats().into_iter().map(mapping));
        importers.extend(formats::LAST.iter().map(format));
        Ok(Self { importers, siblings: Siblings::default(), assistant: Assistant::parse(assistant), wanted })
    }

    /// Names of the formats, in the order in which they are tried.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.importers.iter().map(|importer| match importer {
            Importer::Format(format, _) => format.name,
            Importer::Mapping(name, _) => name,
        })
    }

    /// Files beside the inputs that were read for what they say of their records, by name.
    pub(crate) fn siblings(&self) -> Vec<InputDigest> {
        self.siblings.digests()
    }

    /// Counts files among the siblings that an earlier part of the run has read.
    pub(crate) fn remember_siblings(&self, digests: Vec<InputDigest>) {
        self.siblings.remember(digests);
    }

    /// Says where inputs lie that are called otherwise than their path, so that what is beside them is found.
    pub(crate) fn place_inputs(&mut self, places: impl Iterator<Item = (Arc<str>, PathBuf)>) {
        self.siblings.place(places);
    }

    /// Brings a record into the native shape; first of all says which format it has.
    ///
    /// # Errors
    /// [`Code::UnknownFormat`] where no importer recognises it, or what its importer says.
    pub fn import<'a>(
        &self,
        record: Node<'a>,
        location: &Location,
        format: &mut Option<Arc<str>>,
    ) -> Result<Imported<'a>, Diagnostic> {
        let (record, importer, is_opened) = self.importer_of(record)?;
        let (name, beside) = (importer.name(), self.siblings.of(location));
        *format = Some(if is_opened { format!("{name} (unwrapped)").into() } else { name });
        let mut context = Context { beside, assistant: &self.assistant, wanted: self.wanted, notes: Vec::new() };
        let is_native = matches!(importer, Importer::Format(Format { name: "messages", .. }, _));
        if let Some((name, media)) = media(&record, is_native) {
            let message = format!("the record has `{name}`, and only text is compiled");
            return Err(Diagnostic::new(Code::UnsupportedContent, message).at(&media.range));
        }
        let dialogues = match importer {
            Importer::Mapping(_, mapping) => mapping.import(record, &mut context)?,
            Importer::Format(known, _) => (known.import)(record, &mut context)?,
        };
        Ok(Imported { dialogues, notes: context.notes })
    }
}

impl Importers {
    /// Who brings a record in, and whether it had to be unwrapped. What nobody knows but by guessing may be wrapped: messages that stand in no object, or lists
    /// that stand in text, as tables have them.
    fn importer_of<'a>(&self, record: Node<'a>) -> Result<(Node<'a>, &Importer, bool), Diagnostic> {
        let find = |record: &Node<'_>| self.importers.iter().find(|importer| importer.recognises(record));
        let found = find(&record);
        if let Some(importer) = found.filter(|importer| !importer.is_guess()) {
            return Ok((record, importer, false));
        }
        if let Some(opened) = names::opened(&record)?
            && let Some(importer) = find(&opened)
        {
            return Ok((opened, importer, true));
        }
        match found {
            Some(importer) => Ok((record, importer, false)),
            None => Err(unknown::diagnostic(&record)),
        }
    }
}

impl Default for Importers {
    fn default() -> Self {
        Self::new(&BTreeMap::new(), None, Wanted::Dialogues).expect("there are no formats to be wrong")
    }
}

impl Importer {
    fn name(&self) -> Arc<str> {
        match self {
            Self::Format(format, _) => format.name.into(),
            Self::Mapping(name, _) => Arc::clone(name),
        }
    }

    /// Whether it takes what it knows by no more than names and kinds of values.
    fn is_guess(&self) -> bool {
        matches!(self, Self::Format(format, _) if formats::LAST.iter().any(|last| last.name == format.name))
    }

    fn recognises(&self, record: &Node<'_>) -> bool {
        match self {
            Self::Format(Format { when: When::Is(test), .. }, _) => test(record),
            Self::Format(_, when) => when.iter().all(|path| path.is_in(record)),
            Self::Mapping(_, mapping) => mapping.recognises(record),
        }
    }
}

/// Why a record of preferences becomes no dialogue that is trained.
pub(crate) fn preference_record() -> Diagnostic {
    let message = "preference data in a compilation for supervised fine-tuning";
    Diagnostic::new(Code::PreferenceRecord, message).help(
        "its rejected answers would be trained: `--rows preference` compiles pairs, `--rows kto` single answers with a \
         verdict too; `dlgc convert --preferences` writes them in the native format",
    )
}

/// Pictures, sounds or films that a record has: lists of them, or one that a mark in the text stands for (LLaVA), which in
/// the native shape is any text.
fn media<'n, 'a>(record: &'n Node<'a>, is_native: bool) -> Option<(&'static str, &'n Node<'a>)> {
    let one = |name: &'static str| {
        let path = record.get(name).filter(|path| path.as_str().is_some_and(|path| !path.is_empty()))?;
        (!is_native && dumps(record).contains(&format!("<{name}>"))).then_some((name, path))
    };
    let several = |name: &'static str| {
        let list = record.get(name).filter(|list| list.as_array().is_some_and(|list| !list.is_empty()))?;
        Some((name, list))
    };
    ["image", "audio", "video"]
        .into_iter()
        .find_map(one)
        .or_else(|| ["images", "audios", "videos"].into_iter().find_map(several))
}

/// Reads JSON that stands inside a JSON string; its parts are placed where the string stands. `None` where there is no
/// string, or it holds something else.
///
/// # Errors
/// [`Code::ReservedCharacter`], which must not come in by this door either.
pub(crate) fn embedded<'a>(node: &Node<'a>) -> Result<Option<Node<'a>>, Diagnostic> {
    let Some(text) = node.as_str() else { return Ok(None) };
    match crate::json::parse(text.as_bytes()) {
        Ok(parsed) => Ok(Some(parsed.root.into_owned_at(&node.range))),
        Err(JsonError { kind: JsonErrorKind::Reserved, .. }) => {
            let message = "the text holds a noncharacter that dlgc reserves";
            Err(Diagnostic::new(Code::ReservedCharacter, message).at(&node.range))
        }
        Err(_) => Ok(None),
    }
}
