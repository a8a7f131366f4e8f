//! Merging: the symbols of a piece become its tokens, by rank.
//!
//! In: symbols, and the list of merges. Out: the tokens that the reference gives: of all pairs that stand side by side
//! the one that comes first in the list is merged, the leftmost of several, until there is none.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What [`Merges::of`] says of a pair that is not in the list.
const NONE: u32 = u32::MAX;
/// Bits of a symbol, and of a rank: two symbols and a rank lie in a slot.
const SYMBOL: u32 = 21;
const RANK: u32 = 64 - 2 * SYMBOL;
const EMPTY: u64 = u64::MAX;
/// No larger one may be asked for; the one after it, and a symbol that there is not, are in no pair.
pub(super) const LARGEST_SYMBOL: u32 = (1 << SYMBOL) - 2;
/// Up to so many symbols the pair with the least rank is found by looking at all of them.
const FEW: usize = 40;
/// Symbols of a piece that is merged together with others.
pub(super) const SOME: usize = 16;
/// Bits of a place among few, below the rank of the pair that begins there: the least of such numbers is the pair that
/// is merged, found without asking where it stands.
const PLACE: u32 = 6;
/// Where no pair begins.
const NO_PAIR: i32 = i32::MAX;

/// Pairs of symbols, with their rank and the symbol that they become.
pub(super) struct Merges {
    /// Pair and rank in one number, since what is small is near; open addressing, at most two thirds full.
    slots: Vec<u64>,
    shift: u32,
    /// What pairs become, by rank.
    merged: Merged,
    /// Bits by hash: most pairs are in no list, and this is smaller.
    filter: Vec<u64>,
    filter_shift: u32,
}

/// What pairs become, by rank.
enum Merged {
    /// The symbol that so much above the rank is.
    Above(u32),
    Each(Vec<u32>),
}

impl Merged {
    fn of(symbols: Vec<u32>) -> Self {
        let above = symbols.first().copied().unwrap_or_default();
        if (above..).zip(&symbols).all(|(expected, symbol)| expected == *symbol) {
            Self::Above(above)
        } else {
            Self::Each(symbols)
        }
    }

    #[inline]
    fn symbol(&self, rank: u32) -> u32 {
        match self {
            Self::Above(above) => above + rank,
            Self::Each(symbols) => symbols[rank as usize],
        }
    }
}

/// Up to `N` symbols on their way to tokens. A symbol that was merged into the one on its left stays where it was, and is
/// passed over.
pub(super) struct Few<const N: usize> {
    symbols: [u32; N],
    /// The rank of a symbol and the one after it, and its place.
    ranks: [i32; N],
    next: [u8; N],
    previous: [u8; N],
    count: usize,
    is_done: bool,
}

impl<const N: usize> Few<N> {
    /// Appends the symbols that are left.
    pub(super) fn append_to(&self, symbols: &mut Vec<u32>) {
        let mut at = 0;
        while at < self.count {
            symbols.push(self.symbols[at]);
            at = usize::from(self.next[at]);
        }
    }
}

/// Buffers for pieces of many symbols.
#[derive(Default)]
pub(super) struct Scratch {
    /// Rank and place.
    heap: BinaryHeap<Reverse<u64>>,
    next: Vec<u32>,
    previous: Vec<u32>,
}

/// A place that is not there.
const NOWHERE: u32 = u32::MAX;
/// A symbol that was merged into the one on its left.
const GONE: u32 = u32::MAX;

impl Merges {
    /// Merges in the order of their ranks; where a pair is listed twice, the last one counts. `None` where they are too
    /// many, or symbols too large.
    pub(super) fn new(list: impl ExactSizeIterator<Item = [u32; 3]>) -> Option<Self> {
        if list.len() >= 1 << RANK {
            return None;
        }
        let size = (list.len() * 3 / 2).next_power_of_two().max(16);
        let bits = (list.len() * 4).next_power_of_two().max(64);
        let mut merges = Self {
            slots: vec![EMPTY; size],
            shift: 64 - size.trailing_zeros(),
            merged: Merged::Above(0),
            filter: vec![0; bits / 64],
            filter_shift: 64 - bits.trailing_zeros(),
        };
        let mut merged = Vec::with_capacity(list.len());
        for (rank, [left, right, symbol]) in list.enumerate() {
            if left.max(right).max(symbol) > LARGEST_SYMBOL {
                return None;
            }
            let at = merges.slot(left, right);
            let bit = hash(pair(left, right)) >> merges.filter_shift;
            merges.filter[bit as usize / 64] |= 1 << (bit % 64);
            merges.slots[at] = pair(left, right) << RANK | rank as u64;
            merged.push(symbol);
        }
        merges.merged = Merged::of(merged);
        Some(merges)
    }

    #[inline]
    fn slot(&self, left: u32, right: u32) -> usize {
        let pair = pair(left, right);
        let mut at = (hash(pair) >> self.shift) as usize;
        loop {
            let found = self.slots[at];
            if found >> RANK == pair || found == EMPTY {
                return at;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// The rank of a pair: less comes first.
    #[inline]
    fn of(&self, left: u32, right: u32) -> u32 {
        let bit = hash(pair(left, right)) >> self.filter_shift;
        if self.filter[bit as usize / 64] >> (bit % 64) & 1 == 0 {
            return NONE;
        }
        let found = self.slots[self.slot(left, right)];
        if found == EMPTY { NONE } else { found as u32 & ((1 << RANK) - 1) }
    }

    /// The rank at which the last merge of these symbols happens, where they become one.
    pub(super) fn rank_of_one(&self, symbols: &mut Vec<u32>) -> Option<u32> {
        let mut last = 0;
        while symbols.len() > 1 {
            let ranks = symbols.windows(2).map(|sides| self.of(sides[0], sides[1]));
            let (rank, at) = ranks.zip(0..).min().filter(|(rank, _)| *rank != NONE)?;
            last = last.max(rank);
            symbols[at] = self.merged.symbol(rank);
            symbols.remove(at + 1);
        }
        Some(last)
    }

    /// Merges symbols in place.
    pub(super) fn apply(&self, symbols: &mut Vec<u32>, scratch: &mut Scratch) {
        match symbols.len() {
            count if count <= SOME => self.apply_to_few::<SOME>(symbols),
            count if count <= FEW => self.apply_to_few::<FEW>(symbols),
            _ => self.apply_to_many(symbols, scratch),
        }
    }

    fn apply_to_few<const N: usize>(&self, symbols: &mut Vec<u32>) {
        let mut few = self.begin::<N>(symbols);
        while self.step(&mut few) {}
        symbols.clear();
        few.append_to(symbols);
    }

    /// Merges the symbols of several pieces, a step of each by turns: while memory is waited for on behalf of one, the
    /// others go on.
    pub(super) fn apply_to_all<K, const N: usize>(&self, pieces: &mut [(K, Few<N>)]) {
        while pieces.iter_mut().fold(false, |any, (_, piece)| self.step(piece) || any) {}
    }

    /// Up to `N` symbols before the first merge.
    #[inline]
    pub(super) fn begin<const N: usize>(&self, symbols: &[u32]) -> Few<N> {
        let mut few = Few {
            symbols: [0; N],
            ranks: [NO_PAIR; N],
            next: std::array::from_fn(|at| at as u8 + 1),
            previous: std::array::from_fn(|at| (at as u8).saturating_sub(1)),
            count: symbols.len(),
            is_done: false,
        };
        few.symbols[..symbols.len()].copy_from_slice(symbols);
        for (at, sides) in symbols.windows(2).enumerate() {
            few.ranks[at] = self.at(at, sides[0], sides[1]);
        }
        few
    }

    /// The rank of a pair that begins at a place among few, and the place.
    #[inline]
    fn at(&self, place: usize, left: u32, right: u32) -> i32 {
        match self.of(left, right) {
            NONE => NO_PAIR,
            rank => (rank << PLACE | place as u32).cast_signed(),
        }
    }

    /// Merges the pair that comes first, and says whether there was one.
    #[inline]
    fn step<const N: usize>(&self, few: &mut Few<N>) -> bool {
        if few.is_done {
            return false;
        }
        let Few { symbols, ranks, next, previous, count, is_done } = few;
        let first = ranks.iter().fold(NO_PAIR, |first, &rank| first.min(rank));
        if first == NO_PAIR {
            *is_done = true;
            return false;
        }
        let at = first as usize % (1 << PLACE);
        let right = usize::from(next[at]);
        let after = usize::from(next[right]);
        symbols[at] = self.merged.symbol(first.cast_unsigned() >> PLACE);
        (ranks[at], ranks[right]) = (NO_PAIR, NO_PAIR);
        next[at] = after as u8;
        if after < *count {
            previous[after] = at as u8;
            ranks[at] = self.at(at, symbols[at], symbols[after]);
        }
        if at > 0 {
            let before = usize::from(previous[at]);
            ranks[before] = self.at(before, symbols[before], symbols[at]);
        }
        true
    }

    /// With a heap: a run of one character must not take the square of its length.
    fn apply_to_many(&self, symbols: &mut Vec<u32>, scratch: &mut Scratch) {
        let Scratch { heap, next, previous } = scratch;
        let count = symbols.len() as u32;
        heap.clear();
        next.clear();
        next.extend(1..count);
        next.push(NOWHERE);
        previous.clear();
        previous.push(NOWHERE);
        previous.extend(0..count - 1);
        // The rank in the upper half is all that the order depends on: a pair is looked up again when its turn comes.
        let entry = |rank: u32, at: u32| Reverse(u64::from(rank) << 32 | u64::from(at));
        for (sides, at) in symbols.windows(2).zip(0..) {
            let rank = self.of(sides[0], sides[1]);
            if rank != NONE {
                heap.push(entry(rank, at));
            }
        }
        while let Some(Reverse(first)) = heap.pop() {
            let (at, place) = (first as u32, first as u32 as usize);
            let right = next[place];
            if symbols[place] == GONE || right == NOWHERE {
                continue;
            }
            // One side may have been merged with another symbol since.
            let rank = self.of(symbols[place], symbols[right as usize]);
            if u64::from(rank) != first >> 32 {
                continue;
            }
            symbols[place] = self.merged.symbol(rank);
            symbols[right as usize] = GONE;
            let after = next[right as usize];
            next[place] = after;
            if after != NOWHERE {
                previous[after as usize] = at;
                let rank = self.of(symbols[place], symbols[after as usize]);
                if rank != NONE {
                    heap.push(entry(rank, at));
                }
            }
            let before = previous[place];
            if before != NOWHERE {
                let rank = self.of(symbols[before as usize], symbols[place]);
                if rank != NONE {
                    heap.push(entry(rank, before));
                }
            }
        }
        symbols.retain(|&symbol| symbol != GONE);
    }
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << SYMBOL | u64::from(right)
}

fn hash(pair: u64) -> u64 {
    pair.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Draw;

    /// `a`s merge in pairs, then pairs in pairs; `ab` comes before both of a later rank.
    fn merges() -> Merges {
        Merges::new([[0, 0, 10], [10, 10, 11], [0, 1, 12], [1, 2, 13], [12, 2, 14]].into_iter()).expect("few and small")
    }

    /// By the definition, without any cleverness.
    fn slowly(merges: &Merges, symbols: &[u32]) -> Vec<u32> {
        let mut symbols = symbols.to_vec();
        loop {
            let ranks = symbols.windows(2).map(|sides| merges.of(sides[0], sides[1]));
            let Some((rank, at)) = ranks.zip(0..).min().filter(|(rank, _)| *rank != NONE) else { return symbols };
            symbols[at] = merges.merged.symbol(rank);
            symbols.remove(at + 1);
        }
    }

    #[test]
    fn few_and_many_symbols_merge_as_the_definition_says() {
        let merges = merges();
        let mut scratch = Scratch::default();
        let mut draw = Draw(1);
        for length in (0..200).chain([1000]) {
            let symbols: Vec<u32> = (0..length).map(|_| draw.below(3) as u32).collect();
            let expected = slowly(&merges, &symbols);
            let mut many = symbols.clone();
            if length > 1 {
                merges.apply_to_many(&mut many, &mut scratch);
                assert_eq!(many, expected);
            }
            let mut several: Vec<((), Few<FEW>)> = (0..=length.min(3))
                .filter_map(|from| symbols.get(from..).filter(|rest| rest.len() <= FEW))
                .map(|rest| ((), merges.begin(rest)))
                .collect();
            merges.apply_to_all(&mut several);
            for (from, (_, few)) in several.iter().enumerate().filter(|_| length <= FEW) {
                let mut found = Vec::new();
                few.append_to(&mut found);
                assert_eq!(found, slowly(&merges, &symbols[from..]));
            }
            let mut any = symbols;
            merges.apply(&mut any, &mut scratch);
            assert_eq!(any, expected);
        }
    }

    #[test]
    fn a_symbol_that_is_in_no_pair_is_not_taken_for_another() {
        let merges = Merges::new([[1, LARGEST_SYMBOL, 2], [3, 5, 4]].into_iter()).expect("small enough");
        assert_eq!(merges.of(1, LARGEST_SYMBOL), 0);
        for (left, right) in [(u32::MAX, 5), (1, u32::MAX), (u32::MAX, u32::MAX), (3, LARGEST_SYMBOL)] {
            assert_eq!(merges.of(left, right), NONE, "{left} {right}");
        }
        for too_large in [[LARGEST_SYMBOL + 1, 0, 1], [0, LARGEST_SYMBOL + 1, 1], [0, 1, LARGEST_SYMBOL + 1]] {
            assert!(Merges::new([too_large].into_iter()).is_none());
        }
    }

    #[test]
    fn a_long_run_of_one_character_takes_no_square_of_its_length() {
        let mut run = vec![0; 1 << 20];
        merges().apply(&mut run, &mut Scratch::default());
        assert_eq!(run.len(), 1 << 18);
    }
}
