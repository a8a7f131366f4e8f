//! Files that lie beside a record's file and say more about it: schemas, answers, questions.
//!
//! Read once, by whatever reads inputs, and kept; one that is missing, broken or too large is as if it were not there.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::dialogue::Location;
use crate::json::{self, Json, Node};
use crate::source::{InputDigest, Item, Reader};

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
    /// Those that were read, by name.
    read: Mutex<BTreeMap<String, InputDigest>>,
    /// Where inputs lie that are called otherwise than their path.
    places: HashMap<Arc<str>, PathBuf>,
}

/// What lies beside one record's file.
pub(super) struct Beside<'s> {
    siblings: &'s Siblings,
    location: &'s Location,
}

impl Siblings {
    pub(super) fn of<'s>(&'s self, location: &'s Location) -> Beside<'s> {
        Beside { siblings: self, location }
    }

    /// Says where inputs lie that are called otherwise than their path.
    pub(super) fn place(&mut self, places: impl Iterator<Item = (Arc<str>, PathBuf)>) {
        self.places.extend(places);
    }

    /// The files that were read, by name.
    pub(super) fn digests(&self) -> Vec<InputDigest> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Takes those for read that an earlier part of the run has read.
    pub(super) fn remember(&self, digests: Vec<InputDigest>) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.extend(digests.into_iter().map(|digest| (digest.file.clone(), digest)));
    }
}

impl Beside<'_> {
    /// The record's file; of a member of an archive, the archive.
    fn path(&self) -> &str {
        self.location.file.split('!').next().unwrap_or_default()
    }

    /// The folder in which it lies, and what that is called.
    fn folder(&self) -> Option<(PathBuf, PathBuf)> {
        let path = self.path();
        let lies = self.siblings.places.get(path).map_or(Path::new(path), PathBuf::as_path);
        let folder = |path: &Path| path.parent().unwrap_or(Path::new("")).to_owned();
        let is_file = path != "-" && !path.starts_with('<');
        is_file.then(|| (folder(lies), folder(Path::new(path))))
    }

    /// The file's own name, without the ending of its compression.
    pub(super) fn file(&self) -> String {
        let name = Path::new(self.path()).file_name().unwrap_or_default().to_string_lossy();
        [".gz", ".zst", ".zstd"].iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name).to_owned()
    }

    /// The records of a file beside by their field `key`; `name` may lead into a folder, compression is found.
    pub(super) fn table(&self, name: &str, key: &'static str) -> Option<Arc<Table>> {
        let (folder, called) = self.folder()?;
        let mut tables = self.siblings.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tables.entry((folder.join(name), key)).or_insert_with(|| {
            let forms = ["", ".gz", ".zst"].map(|ending| format!("{name}{ending}"));
            let form = forms.iter().find(|form| folder.join(form).is_file())?;
            let (table, digest) = read(&folder.join(form), &called.join(form).to_string_lossy(), key)?;
            self.siblings.remember(vec![digest]);
            Some(Arc::new(table))
        });
        known.clone()
    }

    /// Names of files beside that the test wants, without the endings of compression, in order.
    pub(super) fn names(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let Some((folder, _)) = self.folder() else { return Vec::new() };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
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

/// Reads the file at a path, and calls it by a name.
fn read(path: &Path, name: &str, key: &str) -> Option<(Table, InputDigest)> {
    let mut table = Table::default();
    let mut bytes = 0;
    let mut is_whole = true;
    let digests = Reader::named(vec![(path.to_owned(), Arc::from(name))], LARGEST).read(&mut |item| {
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
    let digest = digests.into_iter().next().filter(|_| is_whole)?;
    Some((table, digest))
}
