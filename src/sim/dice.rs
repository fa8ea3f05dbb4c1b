//! Random draws for scenarios: one seed in, a stream of integers out.
//!
//! The generator is a named, portable one, so that a seed means the same world on every machine.

use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

use crate::link::Chance;
use crate::time::micros;

/// A seeded source of draws.
#[derive(Clone, Debug)]
pub(super) struct Dice(Xoshiro256PlusPlus);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// Draws any 64-bit value.
    pub(super) fn seed(&mut self) -> u64 {
        self.0.random()
    }

    /// Draws uniformly from `low..=high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high.max(low))
    }

    /// Draws a uniform index below `count`, which must not be zero.
    pub(super) fn index(&mut self, count: usize) -> usize {
        self.0.random_range(0..count.max(1))
    }

    /// Like `between`, but each power of two is equally likely; `low` must not be zero.
    pub(super) fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let power = self.between(low.max(1).ilog2().into(), high.max(1).ilog2().into());
        let floor = 1u64 << power.min(63);
        let top = floor.saturating_mul(2) - 1;
        self.between(floor.max(low), top.min(high))
    }

    /// Returns true in `percent` of 100 draws.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.0.random_ratio(percent.min(100), 100)
    }

    /// Draws a probability of at most `ppm` parts per million.
    pub(super) fn up_to_ppm(&mut self, ppm: u32) -> Chance {
        let drawn = self.0.random_range(0..=ppm);
        Chance::from_ppm(drawn).unwrap_or(Chance::NEVER)
    }

    /// Draws a duration in whole microseconds, each power of two equally likely.
    pub(super) fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_micros(self.magnitude(micros(low), micros(high)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_range_and_reach_its_ends() {
        let mut dice = Dice::new(1);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            let drawn = usize::try_from(dice.magnitude(3, 7)).unwrap();
            seen[drawn - 3] = true;
            assert!(dice.index(4) < 4);
            assert!(dice.up_to_ppm(10).ppm() <= 10);
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(dice.between(9, 9), 9);
        let mut again = Dice::new(1);
        assert_eq!(again.seed(), Dice::new(1).seed());
    }
}
