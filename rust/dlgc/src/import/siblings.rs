//! Files that lie beside a record's file and say more about it: schemas, answers, questions.
//!
//! Read once, by whatever reads inputs, and kept; one that is missing, broken or too large is as if it were not there.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::dialogue::Location;
use crate::json::{self, Json, Node};
use crate::source::{Item, Reader};

/// Largest file that is read for what it says of others, in bytes of its records.
const LARGEST: usize = 64 << 20;

/// Records of a file beside, found by a field that names them.
#[derive(Debug, Default)]
pub(super) struct Table {
    records: Vec<Node<'static>>,
    index: HashMap<String, usize>,
}

impl Table {
    /// The record with this name.
    pub(super) fn find(&self, name: &str) -> Option<&Node<'static>> {
        self.index.get(name).map(|&at| &self.records[at])
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Node<'static>> {
        self.records.iter()
    }
}

/// A file, and the field that names its records.
type Wanted = (PathBuf, &'static str);

/// What has been read so far, for all workers.
#[derive(Debug, Default)]
pub(super) struct Siblings {
    tables: Mutex<HashMap<Wanted, Option<Arc<Table>>>>,
}

/// The folder of one record's file.
pub(super) struct Beside<'s> {
    siblings: &'s Siblings,
    folder: Option<PathBuf>,
    /// The file's own name, without the ending of its compression.
    pub(super) file: String,
}

impl Siblings {
    pub(super) fn of(&self, location: &Location) -> Beside<'_> {
        // Of a member of an archive, what lies beside the archive.
        let file = location.file.split('!').next().unwrap_or_default();
        let path = Path::new(file);
        let is_file = file != "-" && !file.starts_with('<');
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let bare = [".gz", ".zst", ".zstd"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
        Beside {
            siblings: self,
            folder: is_file.then(|| path.parent().unwrap_or(Path::new("")).to_owned()),
            file: bare.to_owned(),
        }
    }
}

impl Beside<'_> {
    /// The records of a file beside by their field `key`; `name` may lead into a folder, compression is found.
    pub(super) fn table(&self, name: &str, key: &'static str) -> Option<Arc<Table>> {
        let folder = self.folder.as_ref()?;
        let path = folder.join(name);
        let mut tables = self.siblings.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tables.entry((path, key)).or_insert_with_key(|(path, key)| {
            let forms = ["", ".gz", ".zst"].map(|ending| PathBuf::from(format!("{}{ending}", path.display())));
            forms.iter().find(|form| form.is_file()).and_then(|form| read(form, key)).map(Arc::new)
        });
        known.clone()
    }

    /// Names of files beside that the test wants, without the endings of compression, in order.
    pub(super) fn names(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let Some(folder) = &self.folder else { return Vec::new() };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .map(|name| name.strip_suffix(".gz").or(name.strip_suffix(".zst")).map_or(name.clone(), str::to_owned))
            .filter(|name| wanted(name))
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

fn read(path: &Path, key: &str) -> Option<Table> {
    let mut table = Table::default();
    let mut bytes = 0;
    let mut is_whole = true;
    Reader::new(vec![path.to_owned()], LARGEST).read(&mut |item| {
        match item {
            Item::Chunk(chunk) => {
                bytes += chunk.bytes.len();
                for (record, fault) in chunk.iter() {
                    let parsed = json::parse(record.bytes).ok().filter(|_| fault.is_none());
                    let Some(parsed) = parsed else {
                        is_whole = false;
                        return ControlFlow::Break(());
                    };
                    let node = parsed.root.into_owned_at(&(0..0));
                    if let Some(Json::String(name) | Json::Number(name)) = node.get(key).map(|name| &name.value) {
                        table.index.entry(name.to_string()).or_insert(table.records.len());
                    }
                    table.records.push(node);
                }
            }
            Item::Fault(_) => is_whole = false,
            Item::Skipped(_) => {}
        }
        if bytes > LARGEST {
            is_whole = false;
        }
        if is_whole { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    is_whole.then_some(table)
}
