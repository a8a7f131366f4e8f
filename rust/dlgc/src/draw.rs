//! Numbers for tests that look random, and are the same each time.

/// A linear congruential generator; of its numbers the upper bits are used. The constants are those of Knuth's MMIX.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    /// A number below a limit.
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    /// One of some things.
    pub(crate) fn of<'t, T: ?Sized>(&mut self, things: &[&'t T]) -> &'t T {
        things[self.below(things.len() as u64) as usize]
    }
}
