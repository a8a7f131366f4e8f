//! Which split a dialogue belongs to: told by a hash of its group, or of its id.
//!
//! In: a name. Out: a split, and a fold for cross-validation. The hash depends on nothing else, so a dialogue stays where
//! it is when data is added, and a group never straddles a border. A record that asks for a split gets it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, ErrorKind, Result};

/// Shares of the splits.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Splits {
    validation: f64,
    test: f64,
    folds: u32,
}

impl Splits {
    /// Takes shares by split; `train` is what is left.
    ///
    /// # Errors
    /// [`ErrorKind::Options`] for an unknown split, or shares that are none.
    pub fn new(shares: &BTreeMap<String, f64>, folds: u32) -> Result<Self> {
        let fail =
            |message: String| Err(Error::new(ErrorKind::Options, message).hint("such as `validation=0.05,test=0.05`"));
        let mut splits = Self { folds, ..Self::default() };
        for (name, &share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return fail(format!("the share of `{name}` must be from 0 to 1, found {share}"));
            }
            match name.as_str() {
                "validation" => splits.validation = share,
                "test" => splits.test = share,
                "train" => {}
                _ => return fail(format!("there is no split `{name}`; there are train, validation and test")),
            }
        }
        let rest = 1.0 - splits.validation - splits.test;
        let given = shares.get("train");
        if rest < -1e-9 || given.is_some_and(|given| (given - rest).abs() > 1e-9) {
            return fail("the shares of the splits must add up to 1".to_owned());
        }
        if folds == 1 {
            return fail("one fold is no cross-validation; name at least two".to_owned());
        }
        Ok(splits)
    }

    /// The split of a group, or of a dialogue without one.
    pub fn split(&self, name: &str) -> &'static str {
        self.split_at(place(name))
    }

    /// Its fold, from 0; `None` where no folds are asked for.
    pub fn fold(&self, name: &str) -> Option<u32> {
        self.fold_at(place(name))
    }

    fn split_at(&self, place: f64) -> &'static str {
        if place < self.test {
            "test"
        } else if place >= 1.0 - self.validation {
            "validation"
        } else {
            "train"
        }
    }

    /// Folds are of equal size among what is to be trained.
    fn fold_at(&self, place: f64) -> Option<u32> {
        let train = 1.0 - self.test - self.validation;
        let inside = ((place - self.test) / train).clamp(0.0, 1.0);
        (self.folds > 0).then(|| ((inside * f64::from(self.folds)) as u32).min(self.folds - 1))
    }
}

/// Which stratum a dialogue is of, and which group, by their hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stratum {
    stratum: u64,
    group: Option<u64>,
}

impl Stratum {
    /// Of a value, and of the group that must not be torn.
    pub fn of(value: Option<&str>, group: Option<&str>) -> Self {
        let hash = |text: &str| xxh3_64(text.as_bytes());
        Self { stratum: value.map_or(0, hash), group: group.map(hash) }
    }
}

/// How many dialogues of each stratum there have been, in the order of the input.
///
/// The n-th of a stratum lies where n steps of the golden ratio lead from the stratum's own beginning: of any number of
/// them, each split has its share, give or take one or two. What came before is not moved by what is added behind it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Strata {
    counts: BTreeMap<u64, u64>,
    /// Where groups lie, which stay together whatever the strata of their dialogues are.
    groups: BTreeMap<u64, f64>,
}

impl Strata {
    /// Split and fold of the next dialogue.
    pub fn next(&mut self, splits: &Splits, of: Stratum) -> (&'static str, Option<u32>) {
        let known = of.group.and_then(|group| self.groups.get(&group).copied());
        let place = known.unwrap_or_else(|| {
            let count = self.counts.entry(of.stratum).or_default();
            let place = (between(of.stratum) + *count as f64 * GOLDEN).fract();
            *count += 1;
            place
        });
        if let Some(group) = of.group {
            self.groups.insert(group, place);
        }
        (splits.split_at(place), splits.fold_at(place))
    }
}

/// The golden ratio less one: steps of this length leave the smallest gaps on a circle.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// Where a name lies between 0 and 1.
fn place(name: &str) -> f64 {
    between(xxh3_64(name.as_bytes()))
}

fn between(hash: u64) -> f64 {
    // The upper 53 bits: as many as a float holds.
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splits(text: &str, folds: u32) -> Result<Splits> {
        let pair =
            |pair: &str| pair.split_once('=').map(|(name, share)| (name.to_owned(), share.parse().expect("a number")));
        Splits::new(&text.split(',').filter_map(pair).collect(), folds)
    }

    #[test]
    fn shares_are_kept_and_borders_do_not_move() {
        let (small, large) = (
            splits("validation=0.1,test=0.1", 5).expect("shares"),
            splits("validation=0.2,test=0.1", 0).expect("shares"),
        );
        let mut counts = BTreeMap::new();
        for number in 0..20_000 {
            let name = format!("dialogue {number}");
            *counts.entry(small.split(&name)).or_insert(0) += 1;
            if small.split(&name) != "train" {
                assert_eq!(small.split(&name), large.split(&name), "a larger share takes more and gives nothing back");
            }
            if small.split(&name) == "train" {
                *counts
                    .entry(["f0", "f1", "f2", "f3", "f4"][small.fold(&name).expect("folds") as usize])
                    .or_insert(0) += 1;
            }
        }
        assert!(
            (1_800..2_200).contains(&counts["validation"]) && (1_800..2_200).contains(&counts["test"]),
            "{counts:?}"
        );
        assert!(["f0", "f1", "f2", "f3", "f4"].iter().all(|fold| (2_950..3_450).contains(&counts[fold])), "{counts:?}");
        assert_eq!(large.fold("any"), None);
    }

    #[test]
    fn every_stratum_has_its_share() {
        let splits = splits("validation=0.1,test=0.1", 0).expect("shares");
        let mut strata = Strata::default();
        for (stratum, size) in [("large", 1000_usize), ("small", 20), ("tiny", 10)] {
            let of = Stratum::of(Some(stratum), None);
            let found: Vec<&str> = (0..size).map(|_| strata.next(&splits, of).0).collect();
            for (split, share) in [("train", 0.8), ("validation", 0.1), ("test", 0.1)] {
                let count = found.iter().filter(|name| **name == split).count() as f64;
                assert!((count - share * size as f64).abs() <= 2.0, "{stratum}: {count} of {size} in {split}");
            }
        }
        let group = Stratum::of(Some("large"), Some("g"));
        let first = strata.next(&splits, group);
        assert!((0..50).all(|_| strata.next(&splits, group) == first));
    }

    #[test]
    fn wrong_shares_are_refused() {
        for (text, said) in [
            ("validation=1.5", "from 0 to 1"),
            ("dev=0.1", "no split `dev`"),
            ("validation=0.6,test=0.6", "add up"),
            ("train=0.5,test=0.1", "add up"),
        ] {
            assert!(splits(text, 0).expect_err("refused").to_string().contains(said));
        }
        assert!(splits("test=0.1", 1).is_err());
    }
}
