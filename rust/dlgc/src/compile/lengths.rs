//! How long answers are: what a run counts of the rows of preferences, and what it says of that at its end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::shard::{AnswerLengths, Judgement, Row, SideLengths};
use crate::tokenize::UNTRAINED;

/// Answers by how many trained tokens they have.
type Lengths = BTreeMap<u64, u64>;

/// What is counted of answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct AnswerCounts {
    chosen: Lengths,
    rejected: Lengths,
    pairs: u64,
    longer: u64,
    shorter: u64,
}

impl AnswerCounts {
    /// Counts the answers of a row; a sequence has none.
    pub(super) fn enter(&mut self, row: &Row) {
        let Some(preference) = &row.preference else { return };
        let trained = |labels: &[i32]| labels.iter().filter(|&&label| label != UNTRAINED).count() as u64;
        let lengths: Vec<u64> = row.parts().map(|(_, labels, _)| trained(labels)).collect();
        let mut count = |is_good: bool, length: u64| {
            let side = if is_good { &mut self.chosen } else { &mut self.rejected };
            *side.entry(length).or_default() += 1;
        };
        match (preference.judgement, &lengths[..]) {
            (Judgement::Label(is_good), lengths) => lengths.iter().for_each(|&length| count(is_good, length)),
            (Judgement::Pair { .. }, lengths) => {
                lengths.iter().zip([true, false]).for_each(|(&length, is_good)| count(is_good, length));
                self.pairs += 1;
                self.longer += u64::from(lengths[0] > lengths[1]);
                self.shorter += u64::from(lengths[0] < lengths[1]);
            }
        }
    }

    /// What the counts say; `None` without answers.
    pub(super) fn lengths(&self) -> Option<AnswerLengths> {
        if self.chosen.is_empty() && self.rejected.is_empty() {
            return None;
        }
        let share = |count: u64| (self.pairs > 0).then(|| (1e6 * count as f64 / self.pairs as f64).round() / 1e6);
        Some(AnswerLengths {
            chosen: side(&self.chosen),
            rejected: side(&self.rejected),
            chosen_longer: share(self.longer),
            chosen_shorter: share(self.shorter),
        })
    }
}

fn side(lengths: &Lengths) -> SideLengths {
    let answers: u64 = lengths.values().sum();
    let tokens: u64 = lengths.iter().map(|(length, count)| length * count).sum();
    let mean = (10.0 * tokens as f64 / answers.max(1) as f64).round() / 10.0;
    let median = (nth(lengths, answers.saturating_sub(1) / 2) + nth(lengths, answers / 2)) as f64 / 2.0;
    SideLengths { answers, mean, median }
}

/// The length of an answer, by its number from the shortest on.
fn nth(lengths: &Lengths, number: u64) -> u64 {
    let mut before = 0;
    let is_it = |(_, count): &(&u64, &u64)| {
        before += **count;
        before > number
    };
    lengths.iter().find(is_it).map_or(0, |(length, _)| *length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        let of = |lengths: &[u64]| {
            let mut counted = Lengths::new();
            lengths.iter().for_each(|&length| *counted.entry(length).or_default() += 1);
            side(&counted)
        };
        assert_eq!(of(&[]), SideLengths { answers: 0, mean: 0.0, median: 0.0 });
        assert_eq!(of(&[7]), SideLengths { answers: 1, mean: 7.0, median: 7.0 });
        assert_eq!(of(&[9, 1, 1]), SideLengths { answers: 3, mean: 3.7, median: 1.0 });
        assert_eq!(of(&[4, 1, 9, 1]), SideLengths { answers: 4, mean: 3.8, median: 2.5 });
    }
}
