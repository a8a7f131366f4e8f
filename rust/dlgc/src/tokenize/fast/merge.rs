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
/// Stands in few symbols where there is none, or none any more.
const NO_SYMBOL: u32 = LARGEST_SYMBOL + 1;
/// Up to so many symbols the pair with the least rank is found by looking at all of them.
const FEW: usize = 40;
/// Symbols of a piece that is merged together with others.
pub(super) const SOME: usize = 16;
/// So many pieces are merged together: enough for memory to be asked for all the time, and few to look through.
pub(super) const TOGETHER: usize = 32;
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
    /// By rank.
    merged: Vec<u32>,
    /// Bits by hash: most pairs are in no list, and this is smaller.
    filter: Vec<u64>,
    filter_shift: u32,
}

/// Up to `N` symbols on their way to tokens. One that was merged into the symbol on its left is
/// passed over.
pub(super) struct Few<const N: usize> {
    symbols: [u32; N],
    /// The rank of a symbol and the one after it, and its place.
    ranks: [i32; N],
    next: [u8; N],
    previous: [u8; N],
    count: usize,
}

/// Pairs of several pieces, to be looked up together.
struct Asked {
    pairs: [u64; Self::ROOM],
    /// Which piece a pair is of, and where in it.
    places: [(u8, u8); Self::ROOM],
    count: usize,
}

impl Asked {
    const ROOM: usize = 2 * TOGETHER;
    const NONE: Self = Self { pairs: [0; Self::ROOM], places: [(0, 0); Self::ROOM], count: 0 };

    #[inline]
    fn ask(&mut self, piece: usize, (place, pair): (usize, u64)) {
        self.pairs[self.count % Self::ROOM] = pair;
        self.places[self.count % Self::ROOM] = (piece as u8, place as u8);
        self.count += 1;
    }
}

impl<const N: usize> Few<N> {
    /// Symbols before the first merge, without ranks.
    #[inline]
    pub(super) fn of(symbols: &[u32]) -> Self {
        let mut few = Self {
            symbols: [NO_SYMBOL; N],
            ranks: [NO_PAIR; N],
            next: std::array::from_fn(|at| at as u8 + 1),
            previous: std::array::from_fn(|at| (at as u8).saturating_sub(1)),
            count: symbols.len(),
        };
        few.symbols[..symbols.len()].copy_from_slice(symbols);
        few
    }

    /// The pairs before the first merge, each with its place.
    fn pairs(&self) -> impl Iterator<Item = (usize, u64)> {
        self.symbols[..self.count].windows(2).map(|sides| pair(sides[0], sides[1])).enumerate()
    }

    /// Merges the pair that comes first; the pairs of which the new symbol is the left and the right one are to be looked
    /// up then. A side that is not there is [`NO_SYMBOL`], the place that of the symbol that has gone.
    #[inline]
    fn merge(&mut self, merged: &[u32]) -> Option<[(usize, u64); 2]> {
        let Self { symbols, ranks, next, previous, count } = self;
        let first = ranks.iter().fold(NO_PAIR, |first, &rank| first.min(rank));
        if first == NO_PAIR {
            return None;
        }
        let at = first as usize % (1 << PLACE);
        let right = usize::from(next[at]);
        let after = usize::from(next[right]);
        let symbol = merged[(first >> PLACE) as usize];
        (symbols[at], symbols[right]) = (symbol, NO_SYMBOL);
        (ranks[at], ranks[right]) = (NO_PAIR, NO_PAIR);
        next[at] = after as u8;
        let after = if after < *count { after } else { right };
        let before = if at > 0 { usize::from(previous[at]) } else { right };
        previous[after] = at as u8;
        ranks[before] = NO_PAIR;
        Some([(at, pair(symbol, symbols[after])), (before, pair(symbols[before], symbol))])
    }

    #[inline]
    fn rank(&mut self, place: usize, rank: u32) {
        self.ranks[place] = (rank << PLACE | place as u32).cast_signed();
    }

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
            merged: Vec::with_capacity(list.len()),
            filter: vec![0; bits / 64],
            filter_shift: 64 - bits.trailing_zeros(),
        };
        for (rank, [left, right, symbol]) in list.enumerate() {
            if left.max(right).max(symbol) > LARGEST_SYMBOL {
                return None;
            }
            let pair = pair(left, right);
            let at = merges.slot(pair);
            let bit = hash(pair) >> merges.filter_shift;
            merges.filter[bit as usize / 64] |= 1 << (bit % 64);
            merges.slots[at] = pair << RANK | rank as u64;
            merges.merged.push(symbol);
        }
        Some(merges)
    }

    #[inline]
    fn first_slot(&self, pair: u64) -> usize {
        (hash(pair) >> self.shift) as usize
    }

    #[inline]
    fn slot(&self, pair: u64) -> usize {
        let mut at = self.first_slot(pair);
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
        self.rank(pair(left, right)).unwrap_or(NONE)
    }

    #[inline]
    fn rank(&self, pair: u64) -> Option<u32> {
        if !self.may_be_listed(pair) {
            return None;
        }
        let found = self.slots[self.slot(pair)];
        (found != EMPTY).then_some(found as u32 & ((1 << RANK) - 1))
    }

    #[inline]
    fn may_be_listed(&self, pair: u64) -> bool {
        let bit = hash(pair) >> self.filter_shift;
        self.filter[bit as usize / 64] >> (bit % 64) & 1 == 1
    }

    /// Looks up what was asked for. Each table by itself: a short loop asks memory for more at once than a long one.
    fn answer<const N: usize>(&self, asked: &mut Asked, pieces: &mut [Few<N>]) {
        let mut kept = 0;
        for at in 0..asked.count.min(Asked::ROOM) {
            let (pair, place) = (asked.pairs[at], asked.places[at]);
            (asked.pairs[kept], asked.places[kept]) = (pair, place);
            kept += usize::from(self.may_be_listed(pair));
        }
        asked.count = 0;
        let mut found = [EMPTY; Asked::ROOM];
        for (found, &pair) in found.iter_mut().zip(&asked.pairs[..kept]) {
            *found = self.slots[self.first_slot(pair)];
        }
        for at in 0..kept {
            let pair = asked.pairs[at];
            let found = if found[at] >> RANK == pair { found[at] } else { self.slots[self.slot(pair)] };
            if found != EMPTY {
                let (piece, place) = asked.places[at];
                pieces[usize::from(piece)].rank(usize::from(place), found as u32 & ((1 << RANK) - 1));
            }
        }
    }

    /// The rank at which the last merge of these symbols happens, where they become one.
    pub(super) fn rank_of_one(&self, symbols: &mut Vec<u32>) -> Option<u32> {
        let mut last = 0;
        while symbols.len() > 1 {
            let ranks = symbols.windows(2).map(|sides| self.of(sides[0], sides[1]));
            let (rank, at) = ranks.zip(0..).min().filter(|(rank, _)| *rank != NONE)?;
            last = last.max(rank);
            symbols[at] = self.merged[rank as usize];
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
        let mut few = Few::<N>::of(symbols);
        for (place, sides) in symbols.windows(2).enumerate() {
            if let Some(rank) = self.rank(pair(sides[0], sides[1])) {
                few.rank(place, rank);
            }
        }
        while let Some(pairs) = few.merge(&self.merged) {
            for (place, pair) in pairs {
                if let Some(rank) = self.rank(pair) {
                    few.rank(place, rank);
                }
            }
        }
        symbols.clear();
        few.append_to(symbols);
    }

    /// Merges the symbols of several pieces, a step of each by turns: what is looked up for one is looked up for all, so
    /// that memory is waited for once.
    pub(super) fn apply_to_all<const N: usize>(&self, pieces: &mut [Few<N>]) {
        for pieces in pieces.chunks_mut(TOGETHER) {
            let mut asked = Asked::NONE;
            for index in 0..pieces.len() {
                for (place, pair) in pieces[index].pairs() {
                    asked.ask(index, (place, pair));
                }
                if asked.count + N > Asked::ROOM || index + 1 == pieces.len() {
                    self.answer(&mut asked, pieces);
                }
            }
            let mut unmerged: [u8; TOGETHER] = std::array::from_fn(|index| index as u8);
            let mut count = pieces.len();
            while count > 0 {
                let mut left = 0;
                for at in 0..count {
                    let index = usize::from(unmerged[at]);
                    if let Some(pairs) = pieces[index].merge(&self.merged) {
                        pairs.into_iter().for_each(|pair| asked.ask(index, pair));
                        unmerged[left] = index as u8;
                        left += 1;
                    }
                }
                count = left;
                self.answer(&mut asked, pieces);
            }
        }
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
            symbols[place] = self.merged[rank as usize];
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
            symbols[at] = merges.merged[rank as usize];
            symbols.remove(at + 1);
        }
    }

    #[test]
    fn few_and_many_symbols_merge_as_the_definition_says() {
        let merges = merges();
        let mut scratch = Scratch::default();
        let mut seed = 1_u64;
        for length in (0..200).chain([1000]) {
            let symbols: Vec<u32> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 60) as u32 % 3
                })
                .collect();
            let expected = slowly(&merges, &symbols);
            let mut many = symbols.clone();
            if length > 1 {
                merges.apply_to_many(&mut many, &mut scratch);
                assert_eq!(many, expected);
            }
            let mut several: Vec<Few<FEW>> = (0..=length.min(2 * TOGETHER))
                .filter_map(|from| symbols.get(from..).filter(|rest| rest.len() <= FEW))
                .map(Few::of)
                .collect();
            merges.apply_to_all(&mut several);
            for (from, few) in several.iter().enumerate().filter(|_| length <= FEW) {
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
