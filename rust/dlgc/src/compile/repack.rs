//! Packing rows that are there already: those of a whole dataset, or those that a compilation has made for it.
//!
//! In: the shards of a dataset, packed or not. Out: the same examples in rows of another composition, without tokenising
//! anything. What is guaranteed: a dataset that is packed again has, row for row, what would have been compiled so at
//! once, whatever its rows were before; memory is bounded by tokens, but for a few words for each example.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::pipeline::interrupted;
use super::{Monitor, Progress};
use crate::error::{Error, ErrorKind, Result};
use crate::pack::{Packing, fewest_rows};
use crate::shard::{
    self, FileEntry, Manifest, Row, RowKind, Rows, SHARD_TOKENS, Shard, Size, SplitsWriter, WritePlan, Written,
};

/// Why rows of preferences are not packed.
pub(super) const NOT_PACKED: &str =
    "a trainer compares both answers of a prompt, each after it: nothing else may stand in their row";

/// What a user can ask of packing again.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepackOptions {
    /// The dataset's folder.
    pub shards: PathBuf,
    /// The new one's.
    pub output: PathBuf,
    /// How examples share rows.
    pub packing: Packing,
    /// Replace a dataset that is already there.
    #[serde(default)]
    pub overwrite: bool,
    /// Tokens after which a shard is closed and the next one begun.
    #[serde(default = "shard_tokens")]
    pub shard_tokens: u64,
}

fn shard_tokens() -> u64 {
    SHARD_TOKENS
}

impl RepackOptions {
    /// Reads options from JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Options`] where one is wrong.
    pub fn from_json(text: &str) -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorKind::Options, message);
        let options: Self = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if options.shard_tokens < 1024 {
            return Err(wrong("`shard_tokens` must be at least 1024".to_owned()));
        }
        Ok(options)
    }
}

/// Makes a dataset of the examples of another one, in rows of another composition.
///
/// # Errors
/// [`ErrorKind::Shard`] where the folder holds no dataset or a damaged one, or the output folder one that may not be
/// replaced; [`ErrorKind::Options`] where both are the same, or rows have no limit; [`ErrorKind::Io`].
pub fn repack(options: &RepackOptions, monitor: &mut dyn Monitor) -> Result<Manifest> {
    let mut manifest = Manifest::load(&options.shards)?;
    if !manifest.rows().is_sft() {
        let message =
            format!("`{}` holds rows of `{}`, which are not packed", options.shards.display(), manifest.rows().name());
        return Err(Error::new(ErrorKind::Options, message).hint(NOT_PACKED));
    }
    options.packing.room(manifest.max_length)?;
    refuse_overlap(&options.shards, &options.output)?;
    let mut run = Sha256::new();
    manifest.shards.iter().for_each(|shard| run.update(shard.file.blake3.as_bytes()));
    run.update(options.packing.name().as_bytes());
    let plan = WritePlan {
        root: options.output.clone(),
        run: crate::hex(&run.finalize()),
        shard_tokens: options.shard_tokens,
        overwrite: options.overwrite,
        rows: RowKind::Sft,
        packing: options.packing,
        max_length: manifest.max_length,
        tokenizer: &[],
    };
    shard::claim(&plan)?;
    let source = Source {
        folder: &options.shards,
        shards: &manifest.shards,
        files: &manifest.files,
        is_packed: manifest.is_packed(),
    };
    let written = pack(&plan, &source, &mut || monitor.tick(&Progress::default()))?;
    manifest.options["packing"] = options.packing.name().into();
    let digest = crate::hex(&Sha256::digest(manifest.options.to_string().as_bytes()));
    manifest.digests.insert("options".to_owned(), digest);
    manifest.certificate = manifest.certificate.map(|found| found.in_rows(Size::sum(written.splits.values())));
    manifest.utilisation = utilisation(&written, manifest.max_length);
    (manifest.shards, manifest.files, manifest.splits) = (written.shards, written.files, written.splits);
    shard::commit(&plan, &manifest)?;
    Ok(manifest)
}

/// Reading the dataset that is being written would never end, and replacing the one that is read would lose it.
fn refuse_overlap(shards: &Path, output: &Path) -> Result<()> {
    let (Ok(from), Ok(to)) = (shards.canonicalize(), std::path::absolute(output)) else { return Ok(()) };
    let to = to.canonicalize().unwrap_or(to);
    if from.starts_with(&to) || to.starts_with(&from) {
        let message =
            format!("`{}` and `{}` are not two folders beside each other", shards.display(), output.display());
        return Err(Error::new(ErrorKind::Options, message).hint("name another output folder"));
    }
    Ok(())
}

/// The share of their room that the rows of each split take.
pub(super) fn utilisation(written: &Written, max_length: Option<u64>) -> BTreeMap<String, f64> {
    let of = |(split, size): (&String, &Size)| Some((split.clone(), size.utilisation(max_length)?));
    written.splits.iter().filter_map(of).collect()
}

/// Examples that are to be packed.
pub(super) struct Source<'s> {
    /// Where they lie.
    pub(super) folder: &'s Path,
    /// Their shards.
    pub(super) shards: &'s [Shard],
    /// The other files of the dataset.
    pub(super) files: &'s [FileEntry],
    /// Whether they are packed in another way.
    pub(super) is_packed: bool,
}

impl Source<'_> {
    fn rows(&self, split: &str) -> Rows {
        let of_split = self.shards.iter().filter(|shard| shard.split == split);
        Rows::of(self.folder, of_split.map(|shard| shard.file.path.clone()))
    }

    /// The examples of a split, numbered, as they lie there.
    fn examples(&self, split: &str) -> impl Iterator<Item = Result<Row>> + use<> {
        let is_packed = self.is_packed;
        shard::examples(self.rows(split)).zip(0..).map(move |(example, number)| {
            let mut example = example?;
            if !is_packed {
                example.provenance[0].example = number;
            }
            Ok(example)
        })
    }

    /// How long each example of a split is, by its number; and whether they lie in the order of their numbers.
    ///
    /// # Errors
    /// [`ErrorKind::Shard`] where the numbers are not those from 0 up, each once.
    fn lengths(&self, split: &str) -> Result<(Vec<u64>, bool)> {
        let (mut found, mut last) = (BTreeMap::new(), None);
        let (mut lengths, mut is_ordered) = (Vec::new(), true);
        for example in self.examples(split) {
            let origin = &example?.provenance[0];
            is_ordered &= Some(origin.example) > last;
            last = Some(origin.example);
            // Numbers that are due go where they belong at once, so that few have to be looked for.
            if found.insert(origin.example, origin.length).is_some() || origin.example < lengths.len() as u64 {
                let message = format!("example {} of the split `{split}` is there twice", origin.example);
                return Err(Error::new(ErrorKind::Shard, message));
            }
            while let Some(length) = found.remove(&(lengths.len() as u64)) {
                lengths.push(length);
            }
        }
        match found.first_key_value() {
            None => Ok((lengths, is_ordered)),
            Some(_) => {
                let message = format!("example {} of the split `{split}` is missing", lengths.len());
                Err(Error::new(ErrorKind::Shard, message))
            }
        }
    }
}

/// Writes shards in a claimed folder, and beside them the other files of the dataset that the examples are of.
pub(super) fn pack(
    plan: &WritePlan<'_>,
    source: &Source<'_>,
    tick: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Written> {
    let mut writer = shard::packed(plan);
    let mut splits: Vec<&str> = source.shards.iter().map(|shard| shard.split.as_str()).collect();
    splits.dedup();
    for split in splits {
        writer.begin(split);
        pack_split(plan, source, split, &mut writer, tick)?;
    }
    shard::complete(plan, writer, source.folder, source.files)
}

fn pack_split(
    plan: &WritePlan<'_>,
    source: &Source<'_>,
    split: &str,
    writer: &mut SplitsWriter,
    tick: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<()> {
    let scratch = shard::scratch(plan);
    let examples = source.examples(split);
    if let (Packing::BfdGlobal, Some(max_length)) = (plan.packing, plan.max_length) {
        let (lengths, _) = source.lengths(split)?;
        let bins = fewest_rows(&lengths, max_length);
        let mut places = vec![0; lengths.len()];
        bins.iter().flatten().zip(0..).for_each(|(&example, place)| places[example] = place);
        let sizes: Vec<usize> = bins.into_iter().map(|bin| bin.len()).collect();
        let place = move |example: u64| places[example as usize];
        let mut sorted = shard::sorted(examples, lengths.iter().sum(), place, &scratch)?;
        for size in sizes {
            look(tick)?;
            let bin = sorted.by_ref().take(size).collect::<Result<_>>()?;
            writer.row(split, Row::join(bin))?;
        }
        return Ok(());
    }
    let (lengths, is_ordered) = if source.is_packed { source.lengths(split)? } else { (Vec::new(), true) };
    let ordered: Box<dyn Iterator<Item = Result<Row>>> = if is_ordered {
        Box::new(examples)
    } else {
        Box::new(shard::sorted(examples, lengths.iter().sum(), |example| example, &scratch)?)
    };
    for (example, number) in ordered.zip(0_usize..) {
        if number.is_multiple_of(LOOK) {
            look(tick)?;
        }
        writer.example(split, example?)?;
        writer.close_full_shards()?;
    }
    Ok(())
}

/// Examples after which it is asked whether the run is given up.
const LOOK: usize = 1000;

fn look(tick: &mut dyn FnMut() -> ControlFlow<()>) -> Result<()> {
    if tick().is_break() { Err(interrupted()) } else { Ok(()) }
}
