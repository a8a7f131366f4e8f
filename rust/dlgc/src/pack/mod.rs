//! Packing: examples share rows of at most `max_length` tokens.
//!
//! In: lengths of examples, in tokens, in order. Out: bins, each a list of examples that fit into one row. What is
//! guaranteed: every example is in exactly one bin and in one piece, no bin is longer than `max_length`, and the bins
//! follow from lengths and order alone. All methods rest on *best fit decreasing*: of the examples at hand the longest
//! comes first, and goes where the least room would be left; only where it fits nowhere, a bin is begun.
//!
//! | method | examples at hand | memory |
//! |---|---|---|
//! | `bfd` | a buffer of [`BUFFER_ROWS`] or [`BUFFER_TOKENS`]; the [`OPEN_BINS`] emptiest bins stay open for the next | the buffer |
//! | `bfd-global` | all: [`fewest_rows`] | their lengths |
//! | `trl-bfd` | the next [`TRL_ROWS`], as in TRL | these |
//!
//! A [`Packer`] takes examples one by one for the methods that need not know all; what waits in it can be written
//! down and taken up again.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Examples that `bfd` looks at together, at most.
pub const BUFFER_ROWS: usize = 4096;
/// Tokens after which `bfd` looks at what it has.
pub const BUFFER_TOKENS: u64 = 1 << 21;
/// Bins that `bfd` leaves open from one buffer to the next.
pub const OPEN_BINS: usize = 64;
/// Examples that TRL packs together: it packs inside `Dataset.map(batched=True)`, which hands over this many at a time.
pub const TRL_ROWS: usize = 1000;

/// How examples share rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// A row is an example.
    #[default]
    None,
    /// Best fit decreasing in a bounded buffer, in one pass.
    Bfd,
    /// Best fit decreasing over all examples of a split, in two passes.
    BfdGlobal,
    /// What TRL's `packing_strategy="bfd"` makes of the same rows, row for row.
    TrlBfd,
}

impl Packing {
    /// The method of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Options`] where there is none.
    pub fn parse(name: &str) -> Result<Self> {
        serde_json::from_value(name.into()).map_err(|_| {
            Error::new(ErrorKind::Options, format!("`{name}` is no method of packing"))
                .hint("there are `none`, `bfd`, `bfd-global` and `trl-bfd`")
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bfd => "bfd",
            Self::BfdGlobal => "bfd-global",
            Self::TrlBfd => "trl-bfd",
        }
    }

    /// The room in a row; `None` where nothing is packed.
    ///
    /// # Errors
    /// [`ErrorKind::Options`] where rows are to be packed and may be of any length.
    pub fn room(self, max_length: Option<u64>) -> Result<Option<u64>> {
        match (self, max_length) {
            (Self::None, _) => Ok(None),
            (_, Some(max_length)) => Ok(Some(max_length)),
            (_, None) => {
                let message = format!("`{}` packs rows up to `max_length`, and that is `none`", self.name());
                Err(Error::new(ErrorKind::Options, message).hint("give `max_length` as a number of tokens"))
            }
        }
    }
}

/// Bins by the room in them; of those with the same room the one that came to it first is the first to be taken.
#[derive(Default)]
struct Rooms(BTreeMap<u64, VecDeque<usize>>);

impl Rooms {
    fn add(&mut self, room: u64, bin: usize) {
        if room > 0 {
            self.0.entry(room).or_default().push_back(bin);
        }
    }

    /// Takes a bin with the least room that is enough.
    fn take(&mut self, length: u64) -> Option<(u64, usize)> {
        let entry = self.0.range_mut(length..).next()?;
        let (room, bin) = (*entry.0, entry.1.pop_front().expect("rooms without bins are removed"));
        if entry.1.is_empty() {
            self.0.remove(&room);
        }
        Some((room, bin))
    }
}

/// Where each of some examples goes, the longest first, of equals the earlier: into one of the bins that are open, by
/// the room in each, or into a new one. Yields `(example, bin)`; a new bin has the next number.
fn placed(lengths: &[u64], open: &[u64], max_length: u64) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&example| std::cmp::Reverse(lengths[example])); // a stable sort, as TRL's is
    let mut rooms = Rooms::default();
    open.iter().enumerate().for_each(|(bin, &room)| rooms.add(room, bin));
    let mut bins = open.len();
    let place = |example: usize| {
        let length = lengths[example];
        let (room, bin) = rooms.take(length).unwrap_or_else(|| {
            bins += 1;
            (max_length, bins - 1)
        });
        rooms.add(room - length, bin);
        (example, bin)
    };
    order.into_iter().map(place).collect()
}

/// Packs examples, all of them known: each bin as indices into `lengths`. O(n log n).
///
/// No length may be 0 or more than `max_length`. This is what `trl/data_utils.py` (TRL 1.16, `_pack_bfd`) does with one
/// batch, order and ties included: bins stand in the order in which they were begun, examples in that in which they
/// were put there.
///
/// ```
/// assert_eq!(dlgc::pack::best_fit_decreasing(&[3, 5, 2, 2], 6), [vec![1], vec![0, 2], vec![3]]);
/// ```
pub fn best_fit_decreasing(lengths: &[u64], max_length: u64) -> Vec<Vec<usize>> {
    let mut bins: Vec<Vec<usize>> = Vec::new();
    for (example, bin) in placed(lengths, &[], max_length) {
        if bin == bins.len() {
            bins.push(Vec::new());
        }
        bins[bin].push(example);
    }
    bins
}

/// Packs examples, all of them known, in no more rows than [`Packing::TrlBfd`] would take.
///
/// Best fit decreasing over all is not always better than over batches: of some lists (few lengths, a row or two to
/// spare) the batches make fewer rows. Then those are taken.
pub fn fewest_rows(lengths: &[u64], max_length: u64) -> Vec<Vec<usize>> {
    let whole = best_fit_decreasing(lengths, max_length);
    let batches = lengths.chunks(TRL_ROWS).zip((0..).step_by(TRL_ROWS)).flat_map(|(batch, first)| {
        let mut bins = best_fit_decreasing(batch, max_length);
        bins.iter_mut().flatten().for_each(|example| *example += first);
        bins
    });
    let batches: Vec<_> = batches.collect();
    if batches.len() < whole.len() { batches } else { whole }
}

/// A bin on its way.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Bin<T> {
    room: u64,
    examples: Vec<T>,
}

/// Packs examples as they come, for `bfd` and `trl-bfd`. `T` is whatever goes with a length.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Packer<T> {
    packing: Packing,
    max_length: u64,
    waiting: Vec<(u64, T)>,
    tokens: u64,
    open: Vec<Bin<T>>,
}

impl<T> Packer<T> {
    /// Nothing waits in it.
    pub fn new(packing: Packing, max_length: u64) -> Self {
        Self { packing, max_length, waiting: Vec::new(), tokens: 0, open: Vec::new() }
    }

    /// Takes an example of so many tokens; hands over the bins that are complete now, in their order.
    pub fn push(&mut self, length: u64, example: T) -> Vec<Vec<T>> {
        self.tokens += length;
        self.waiting.push((length, example));
        match self.packing {
            Packing::TrlBfd if self.waiting.len() == TRL_ROWS => self.pack(0),
            Packing::Bfd if self.waiting.len() == BUFFER_ROWS || self.tokens >= BUFFER_TOKENS => self.pack(OPEN_BINS),
            _ => Vec::new(),
        }
    }

    /// Hands over all that is left.
    pub fn finish(&mut self) -> Vec<Vec<T>> {
        self.pack(0)
    }

    /// Puts what waits into bins, and hands over all of these but the emptiest so many.
    fn pack(&mut self, keep: usize) -> Vec<Vec<T>> {
        self.tokens = 0;
        let (lengths, examples): (Vec<u64>, Vec<T>) = std::mem::take(&mut self.waiting).into_iter().unzip();
        let mut examples: Vec<Option<T>> = examples.into_iter().map(Some).collect();
        let open: Vec<u64> = self.open.iter().map(|bin| bin.room).collect();
        let mut bins = std::mem::take(&mut self.open);
        for (example, bin) in placed(&lengths, &open, self.max_length) {
            if bin == bins.len() {
                bins.push(Bin { room: self.max_length, examples: Vec::new() });
            }
            bins[bin].room -= lengths[example];
            bins[bin].examples.push(examples[example].take().expect("an example is placed once"));
        }
        let mut fullest: Vec<usize> = (0..bins.len()).collect();
        fullest.sort_by_key(|&bin| bins[bin].room);
        let mut closed = vec![false; bins.len()];
        fullest[..bins.len().saturating_sub(keep)].iter().for_each(|&bin| closed[bin] = true);
        let mut done = Vec::new();
        for (bin, closed) in bins.into_iter().zip(closed) {
            if closed || bin.room == 0 {
                done.push(bin.examples);
            } else {
                self.open.push(bin);
            }
        }
        done
    }
}

/// The bins that a method makes of a list of lengths, as indices into it; for tests and benchmarks.
///
/// # Errors
/// [`ErrorKind::Options`] where a length is 0 or more than `max_length`.
pub fn pack_lengths(packing: Packing, lengths: &[u64], max_length: u64) -> Result<Vec<Vec<usize>>> {
    if let Some(length) = lengths.iter().find(|&&length| length == 0 || length > max_length) {
        let message = format!("an example of {length} tokens; expected 1 to {max_length}");
        return Err(Error::new(ErrorKind::Options, message));
    }
    let mut packer = Packer::new(packing, max_length);
    Ok(match packing {
        Packing::None => (0..lengths.len()).map(|example| vec![example]).collect(),
        Packing::BfdGlobal => fewest_rows(lengths, max_length),
        Packing::Bfd | Packing::TrlBfd => {
            let mut bins = Vec::new();
            for (example, &length) in lengths.iter().enumerate() {
                bins.extend(packer.push(length, example));
            }
            bins.extend(packer.finish());
            bins
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Draw;

    /// A few thousand lengths from 1 to `max_length`, most of them short, the same for the same seed.
    fn lengths(seed: u64, count: usize, max_length: u64) -> Vec<u64> {
        let mut draw = Draw(seed);
        (0..count).map(|_| 1 + draw.below(max_length).min(draw.below(max_length))).collect()
    }

    #[test]
    fn every_example_is_in_one_bin_and_no_bin_is_too_long() {
        for packing in [Packing::None, Packing::Bfd, Packing::BfdGlobal, Packing::TrlBfd] {
            for (count, max_length) in [(0, 7), (1, 1), (999, 50), (5000, 300), (9001, 1000)] {
                let lengths = lengths(count as u64, count, max_length);
                let bins = pack_lengths(packing, &lengths, max_length).expect("the lengths are in range");
                let mut seen: Vec<usize> = bins.iter().flatten().copied().collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..count).collect::<Vec<_>>(), "{packing:?}");
                let longest = bins.iter().map(|bin| bin.iter().map(|&at| lengths[at]).sum::<u64>()).max();
                assert!(longest.unwrap_or_default() <= max_length, "{packing:?}");
            }
        }
    }

    #[test]
    fn an_example_goes_where_the_least_room_is_left_and_to_the_earlier_of_equals() {
        assert_eq!(best_fit_decreasing(&[6, 7, 7, 3, 3, 4], 10), [vec![1, 3], vec![2, 4], vec![0, 5]]);
    }

    #[test]
    fn a_packer_that_was_written_down_goes_on_as_if_it_had_not_been() {
        let lengths = lengths(3, 9000, 100);
        for packing in [Packing::Bfd, Packing::TrlBfd] {
            let whole = pack_lengths(packing, &lengths, 100).expect("the lengths are in range");
            let mut packer = Packer::new(packing, 100);
            let mut bins = Vec::new();
            for (example, &length) in lengths.iter().enumerate() {
                if example % 1700 == 1699 {
                    let text = serde_json::to_string(&packer).expect("a packer is JSON");
                    packer = serde_json::from_str(&text).expect("it was written by a packer");
                }
                bins.extend(packer.push(length, example));
            }
            bins.extend(packer.finish());
            assert_eq!(bins, whole);
        }
    }

    #[test]
    fn open_bins_are_few_and_the_emptiest() {
        let mut packer = Packer::new(Packing::Bfd, 100);
        let mut closed = Vec::new();
        for example in 0..BUFFER_ROWS as u64 {
            closed.extend(packer.push(51 + example % 40, 51 + example % 40)); // no two fit into one row
        }
        assert_eq!((packer.open.len(), closed.len()), (OPEN_BINS, BUFFER_ROWS - OPEN_BINS));
        let fullest_open = packer.open.iter().map(|bin| 100 - bin.room).max();
        assert!(fullest_open <= closed.iter().map(|bin| bin.iter().sum::<u64>()).min());
    }

    #[test]
    fn looking_at_all_examples_takes_no_more_rows_than_looking_at_batches() {
        let (mut draw, mut worse) = (Draw(4), 0);
        for count in 1001..1400 {
            let pool = lengths(count as u64, 5, 64);
            let some: Vec<u64> = (0..count).map(|_| pool[draw.below(pool.len() as u64) as usize]).collect();
            let rows = |packing| pack_lengths(packing, &some, 64).expect("the lengths are in range").len();
            assert!(rows(Packing::BfdGlobal) <= rows(Packing::TrlBfd));
            worse += usize::from(best_fit_decreasing(&some, 64).len() > rows(Packing::TrlBfd));
        }
        assert!(worse > 0, "there must be lists of which the batches make fewer rows");
    }

    #[test]
    fn rows_of_any_length_cannot_be_packed() {
        assert!(Packing::Bfd.room(None).is_err());
        assert_eq!(Packing::None.room(None).expect("nothing is packed"), None);
        assert!(pack_lengths(Packing::TrlBfd, &[0], 10).is_err());
        assert!(pack_lengths(Packing::Bfd, &[11], 10).is_err());
    }
}
