//! Pieces that are too long for a key, with their tokens.
//!
//! In: the bytes of a piece. Out: its tokens, if it was met and is still known. All that is known of a piece lies side by
//! side, so that two looks into memory find it; when there is no more room, all is forgotten.

/// Longer pieces than this are not kept.
const LONGEST: usize = 4096;
/// So many words of four bytes are kept.
const MOST: usize = 1 << 21;
const FIRST_SLOTS: usize = 1 << 10;

/// Longer pieces and their tokens.
pub(super) struct Longer {
    /// The hash of a piece, and where it stands; open addressing, at most half full.
    slots: Vec<(u32, Place)>,
    used: usize,
    /// One after the other: how many bytes a piece has and how many tokens, its bytes by fours, its tokens.
    kept: Vec<u32>,
    /// How often all was forgotten.
    epoch: u32,
}

/// Where a piece stands, until all is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// Nothing stands here.
    pub(super) const NONE: Self = Self(u32::MAX);
}

const EMPTY: (u32, Place) = (0, Place::NONE);

impl Default for Longer {
    fn default() -> Self {
        Self { slots: vec![EMPTY; FIRST_SLOTS], used: 0, kept: Vec::new(), epoch: 0 }
    }
}

fn hash(piece: &[u8]) -> u32 {
    xxhash_rust::xxh3::xxh3_64(piece) as u32
}

/// The last bytes of a piece, less than four.
fn rest(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |rest, &byte| rest << 8 | u32::from(byte))
}

impl Longer {
    /// What places are good for: another number, other places.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Where a piece stands.
    #[inline]
    pub(super) fn find(&self, piece: &[u8]) -> Place {
        self.slots[self.slot(hash(piece), piece)].1
    }

    /// The tokens of the piece at a place.
    #[inline]
    pub(super) fn tokens(&self, Place(at): Place) -> Option<&[u32]> {
        let (&head, after) = self.kept.get(at as usize..)?.split_first()?;
        let start = (head >> 16).div_ceil(4) as usize;
        after.get(start..start + (head & 0xFFFF) as usize)
    }

    /// Where a hash is looked for first.
    #[inline]
    fn first(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.slots.len() as u64) >> 32) as usize
    }

    /// The slot of a piece, or the empty one where it belongs.
    #[inline]
    fn slot(&self, hash: u32, piece: &[u8]) -> usize {
        let mut at = self.first(hash);
        loop {
            let (known, place) = self.slots[at];
            if place == Place::NONE || known == hash && self.says(place, piece) {
                return at;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    #[inline]
    fn says(&self, Place(at): Place, piece: &[u8]) -> bool {
        let (head, after) = (self.kept[at as usize], &self.kept[at as usize + 1..]);
        let (fours, last) = piece.as_chunks::<4>();
        if (head >> 16) as usize != piece.len() || after.len() <= fours.len() {
            return false;
        }
        let others = fours.iter().zip(after).fold(0, |others, (four, said)| others | u32::from_le_bytes(*four) ^ said);
        others == 0 && (last.is_empty() || after[fours.len()] == rest(last))
    }

    /// Keeps the tokens of a piece; where it stands then.
    pub(super) fn insert(&mut self, piece: &[u8], tokens: &[u32]) -> Place {
        let hash = hash(piece);
        let known = self.slots[self.slot(hash, piece)].1;
        if piece.len() > LONGEST || known != Place::NONE {
            return known;
        }
        if self.kept.len() + 1 + piece.len().div_ceil(4) + tokens.len() > MOST {
            self.slots.fill(EMPTY);
            self.kept.clear();
            self.used = 0;
            self.epoch += 1;
        }
        if self.used * 2 >= self.slots.len() {
            self.grow();
        }
        let slot = self.slot(hash, piece);
        self.used += 1;
        let place = Place(self.kept.len() as u32);
        self.slots[slot] = (hash, place);
        self.kept.push((piece.len() << 16 | tokens.len()) as u32);
        let (fours, last) = piece.as_chunks::<4>();
        self.kept.extend(fours.iter().map(|four| u32::from_le_bytes(*four)));
        if !last.is_empty() {
            self.kept.push(rest(last));
        }
        self.kept.extend_from_slice(tokens);
        place
    }

    fn grow(&mut self) {
        let larger = vec![EMPTY; self.slots.len() * 4];
        for (hash, place) in std::mem::replace(&mut self.slots, larger) {
            if place == Place::NONE {
                continue;
            }
            let mut at = self.first(hash);
            while self.slots[at].1 != Place::NONE {
                at = (at + 1) & (self.slots.len() - 1);
            }
            self.slots[at] = (hash, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_until_all_is_forgotten() {
        let mut longer = Longer::default();
        let piece = |number: usize| "piece".repeat(4 + number % 7) + &number.to_string();
        let tokens = |number: usize| -> Vec<u32> { (0..number as u32 % 5).collect() };
        let mut first = 0;
        for number in 0..300_000 {
            assert_eq!(longer.find(piece(number).as_bytes()), Place::NONE);
            let epoch = longer.epoch();
            longer.insert(piece(number).as_bytes(), &tokens(number));
            longer.insert(piece(number).as_bytes(), &[7]);
            if longer.epoch() != epoch {
                first = number;
            }
            for known in [first, first + (number - first) / 2, number] {
                let place = longer.find(piece(known).as_bytes());
                assert_eq!(longer.tokens(place), Some(tokens(known).as_slice()), "{known} of {number}");
            }
        }
        assert!(longer.epoch() > 0 && first < 299_999 && longer.kept.len() <= MOST);
        assert_eq!(longer.find(piece(0).as_bytes()), Place::NONE);
        assert_eq!(longer.tokens(Place::NONE), None);
    }

    #[test]
    fn what_begins_or_ends_alike_is_another_piece() {
        let mut longer = Longer::default();
        let piece = vec![b'x'; LONGEST + 1];
        for length in (16..200).chain([LONGEST, LONGEST + 1]) {
            longer.insert(&piece[..length], &[length as u32]);
        }
        for length in 16..200 {
            assert_eq!(longer.tokens(longer.find(&piece[..length])), Some([length as u32].as_slice()));
            let mut other = piece[..length].to_vec();
            other[length - 1] = b'y';
            assert_eq!(longer.find(&other), Place::NONE);
        }
        assert_ne!(longer.find(&piece[..LONGEST]), Place::NONE);
        assert_eq!(longer.find(&piece), Place::NONE);
    }
}
