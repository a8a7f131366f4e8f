//! Which windows there are: decided by lengths alone.
//!
//! A window that begins at cut *c* may train turn *k* if its row fits the budget, and if turn *k* has enough context
//! there: at least so many tokens, or everything before it, or as much as fits. A later cut shortens the row and the
//! context, so for each turn the cuts that will do are an interval, and a window that trains several turns begins in
//! the intersection of theirs. Taking turns in order, each window as many as it can, gives the fewest windows
//! (intervals that are hit by the fewest points). Of the cuts that will do, a window begins at the earliest one.

use std::ops::Range;

/// How long rows and prompts would be, in tokens. Both shrink with a later cut and grow with a later turn. Of a row that is
/// too long any number above the budget will do.
pub trait Lengths {
    /// The longest row of a window that begins at a cut and ends with a turn; [`u64::MAX`] where there can be none.
    fn row(&mut self, cut: usize, turn: usize) -> u64;
    /// The prompt of a turn in a window that begins at a cut.
    fn prompt(&mut self, cut: usize, turn: usize) -> u64;
    /// The last cut from which a turn can be shown.
    fn last_cut(&self, turn: usize) -> usize;
    /// Cut after which a window that ends with a turn is expected to have so many tokens: where to look first.
    fn guess_cut(&self, turn: usize, tokens: u64) -> usize;
    /// Cut after which the prompt of a turn is expected to have so many tokens.
    fn guess_cut_of_prompt(&self, turn: usize, tokens: u64) -> usize;
    /// Turn with which a window that begins at a cut is expected to have so many tokens.
    fn guess_turn(&self, cut: usize, tokens: u64) -> usize;
}

/// A window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The cut that it begins at.
    pub cut: usize,
    /// The turns that it trains; it ends with the last of them.
    pub turns: Range<usize>,
    /// Whether its first turn has less context than was asked for, because no more fits.
    pub is_short: bool,
}

/// What a dialogue is cut into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The windows, in order.
    pub windows: Vec<Window>,
    /// Turns that fit in no window.
    pub too_long: Vec<usize>,
}

/// The limits of a window.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most tokens of a row.
    pub budget: u64,
    /// Tokens of context that a turn is to have.
    pub context: u64,
}

/// The fewest windows that train every turn.
pub fn cover(turns: usize, lengths: &mut dyn Lengths, limits: Limits) -> Plan {
    let mut plan = Plan::default();
    let mut first = 0;
    while first < turns {
        match next(first, turns, lengths, limits) {
            Some(window) => {
                first = window.turns.end;
                plan.windows.push(window);
            }
            None => {
                plan.too_long.push(first);
                first += 1;
            }
        }
    }
    plan
}

/// The window that trains a turn and as many after it as it can; `None` if the turn fits in none.
pub fn next(first: usize, turns: usize, lengths: &mut dyn Lengths, limits: Limits) -> Option<Window> {
    let Limits { budget, context } = limits;
    let last_cut = lengths.last_cut(first);
    let guess = lengths.guess_cut_of_prompt(first, context);
    // The latest cut that leaves the turn enough context, or the first one if none does.
    // What is guessed to fit is asked for first: it is nearest to the border.
    let fits = guess.saturating_sub(1);
    let too_little = partition(0..last_cut + 1, fits, |cut| lengths.prompt(cut, first) >= context);
    let mut latest = too_little.saturating_sub(1);
    let mut is_short = false;
    // As many turns as fit; that the first one does is known where a later one does.
    let reach = |lengths: &mut dyn Lengths, latest: usize| {
        let guess = lengths.guess_turn(latest, budget).saturating_sub(1);
        partition(first..turns, guess, |turn| lengths.row(latest, turn) <= budget)
    };
    let mut end = reach(lengths, latest);
    if end == first {
        let guess = lengths.guess_cut(first, budget);
        latest = partition(latest..last_cut + 1, guess, |cut| lengths.row(cut, first) > budget);
        if latest > last_cut {
            return None;
        }
        is_short = lengths.prompt(latest, first) < context;
        end = reach(lengths, latest).max(first + 1);
    }
    let guess = lengths.guess_cut(end - 1, budget);
    let cut = partition(0..latest, guess, |cut| lengths.row(cut, end - 1) > budget);
    Some(Window { cut, turns: first..end, is_short })
}

/// The earliest cut from which the prompt of a turn leaves room for so many tokens; `None` if no cut does.
pub fn earliest(turn: usize, lengths: &mut dyn Lengths, budget: u64, room: u64) -> Option<usize> {
    let last_cut = lengths.last_cut(turn);
    let guess = lengths.guess_cut_of_prompt(turn, budget.saturating_sub(room));
    let cut = partition(0..last_cut + 1, guess, |cut| lengths.prompt(cut, turn).saturating_add(room) > budget);
    (cut <= last_cut).then_some(cut)
}

/// The one window that ends with the last turn that fits: as much as fits before it.
pub fn last(turns: usize, lengths: &mut dyn Lengths, limits: Limits) -> Option<(usize, usize)> {
    (0..turns).rev().find_map(|turn| {
        let last_cut = lengths.last_cut(turn);
        let guess = lengths.guess_cut(turn, limits.budget);
        let cut = partition(0..last_cut + 1, guess, |cut| lengths.row(cut, turn) > limits.budget);
        (cut <= last_cut).then_some((cut, turn))
    })
}

/// The first index for which the test fails, if it holds for all before and for none after; looked for around a guess.
pub fn partition(range: Range<usize>, guess: usize, mut holds: impl FnMut(usize) -> bool) -> usize {
    let Range { start: mut low, end: mut high } = range;
    if low >= high {
        return low;
    }
    let mut at = guess.clamp(low, high - 1);
    let mut step = 1;
    // Gallop away from the guess until the border is passed, then halve what is left.
    if holds(at) {
        low = at + 1;
        while low < high {
            at = (low + step - 1).min(high - 1);
            if !holds(at) {
                high = at;
                break;
            }
            low = at + 1;
            step *= 2;
        }
    } else {
        high = at;
        while low < high {
            at = high.saturating_sub(step).max(low);
            if holds(at) {
                low = at + 1;
                break;
            }
            high = at;
            step *= 2;
        }
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::Draw;

    /// Messages of so many tokens: a head, then exchanges of a question and an answer.
    struct Additive {
        head: u64,
        exchanges: Vec<(u64, u64)>,
        guess: usize,
    }

    impl Additive {
        fn between(&self, cut: usize, turn: usize) -> u64 {
            self.exchanges[cut.min(turn + 1)..=turn].iter().map(|(question, answer)| question + answer).sum()
        }
    }

    impl Lengths for Additive {
        fn row(&mut self, cut: usize, turn: usize) -> u64 {
            self.head + self.between(cut, turn)
        }
        fn prompt(&mut self, cut: usize, turn: usize) -> u64 {
            self.head + self.between(cut, turn) - self.exchanges[turn].1
        }
        fn last_cut(&self, turn: usize) -> usize {
            turn
        }
        fn guess_cut(&self, _: usize, _: u64) -> usize {
            self.guess
        }
        fn guess_cut_of_prompt(&self, _: usize, _: u64) -> usize {
            self.guess
        }
        fn guess_turn(&self, _: usize, _: u64) -> usize {
            self.guess
        }
    }

    /// Whether a window may train its turns, by the definition.
    fn will_do(window: &Window, lengths: &mut Additive, limits: Limits) -> bool {
        let Window { cut, turns, .. } = window;
        turns.clone().all(|turn| {
            let fits = lengths.row(*cut, turn) <= limits.budget;
            let context = lengths.prompt(*cut, turn) >= limits.context;
            let whole = *cut == 0;
            let as_much_as_fits = *cut > 0 && lengths.row(cut - 1, turn) > limits.budget;
            fits && *cut <= turn && (context || whole || as_much_as_fits)
        })
    }

    /// The fewest windows of all ways to part the turns; `None` for turns that no window can train.
    fn fewest(lengths: &mut Additive, limits: Limits) -> usize {
        let turns = lengths.exchanges.len();
        let mut best = vec![0; turns + 1];
        for end in 1..=turns {
            let alone = (0..end).any(|cut| lengths.row(cut, end - 1) <= limits.budget);
            let mut fewest = if alone { usize::MAX } else { best[end - 1] };
            for (first, before) in best[..end].iter().enumerate() {
                let window = |cut| Window { cut, turns: first..end, is_short: false };
                if (0..=first).any(|cut| will_do(&window(cut), lengths, limits)) {
                    fewest = fewest.min(before + 1);
                }
            }
            best[end] = fewest;
        }
        best[turns]
    }

    #[test]
    fn no_other_way_has_fewer_windows() {
        let mut draw = Draw(7);
        let mut random = |most: u64| draw.below(most);
        let mut cut = 0;
        for _ in 0..20_000 {
            let count = 1 + random(8) as usize;
            let head = random(12);
            let exchanges = (0..count).map(|_| (1 + random(20), 1 + random(30))).collect();
            let mut lengths = Additive { head, exchanges, guess: random(9) as usize };
            let budget = 20 + random(60);
            let limits = Limits { budget, context: budget * random(5) / 4 };
            let plan = cover(count, &mut lengths, limits);
            let trained: Vec<usize> = plan.windows.iter().flat_map(|window| window.turns.clone()).collect();
            let mut all = [trained.clone(), plan.too_long.clone()].concat();
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
            for window in &plan.windows {
                assert!(will_do(window, &mut lengths, limits), "{window:?} {:?} {limits:?}", lengths.exchanges);
            }
            for &turn in &plan.too_long {
                assert!(lengths.row(turn, turn) > budget);
            }
            assert_eq!(plan.windows.len(), fewest(&mut lengths, limits), "{:?} {limits:?}", lengths.exchanges);
            cut += usize::from(plan.windows.len() > 1);
        }
        assert!(cut > 5_000);
    }

    #[test]
    fn borders_are_found_from_any_guess() {
        for border in 0..=9 {
            for guess in 0..12 {
                assert_eq!(partition(0..9, guess, |index| index < border), border.min(9));
            }
        }
    }
}
