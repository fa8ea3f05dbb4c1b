//! A histogram of durations of fixed size, with buckets of equal relative width.
//!
//! In: durations, counted in microseconds. Out: quantiles, at most 1/32 too large, and the exact
//! mean and maximum. Below 32 µs each microsecond has a bucket; above, each power of two has 32.

use std::time::Duration;

use crate::time::micros;

/// Base-2 logarithm of the buckets per power of two.
const PRECISION: u32 = 5;

/// Longest duration with a bucket of its own, in microseconds: more than an hour. Longer ones share
/// the last bucket.
const MAX_VALUE: u64 = (1 << 32) - 1;

const BUCKETS: usize = (33 - PRECISION as usize) << PRECISION;

/// Durations, counted per bucket.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    sum: u64,
    max: u64,
}

/// Quantiles, mean and maximum of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Number of durations.
    pub count: u64,
    /// Mean.
    pub mean_us: u64,
    /// Median.
    pub p50_us: u64,
    /// 95th percentile.
    pub p95_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Longest.
    pub max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS].into_boxed_slice(),
            count: 0,
            sum: 0,
            max: 0,
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let value = micros(duration);
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
        self.max = self.max.max(value);
        if let Some(bucket) = self.buckets.get_mut(bucket_of(value.min(MAX_VALUE))) {
            *bucket += 1;
        }
    }

    /// Resets to empty.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The smallest duration that `permille` of 1000 do not exceed, in microseconds; 0 if empty.
    #[must_use]
    pub fn quantile(&self, permille: u64) -> u64 {
        let rank = self.count.saturating_mul(permille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return largest_of(index).min(self.max);
            }
        }
        self.max
    }

    /// The quantiles, mean and maximum so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            count: self.count,
            mean_us: self.sum.checked_div(self.count).unwrap_or(0),
            p50_us: self.quantile(500),
            p95_us: self.quantile(950),
            p99_us: self.quantile(990),
            max_us: self.max,
        }
    }
}

fn bucket_of(value: u64) -> usize {
    let shift = value.max(1).ilog2().saturating_sub(PRECISION);
    let index = (u64::from(shift) << PRECISION) + (value >> shift);
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The largest value of a bucket.
fn largest_of(index: usize) -> u64 {
    let index = u64::try_from(index).unwrap_or(u64::MAX);
    let shift = (index >> PRECISION).saturating_sub(1);
    ((index - (shift << PRECISION) + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        for value in values {
            histogram.record(Duration::from_micros(value));
        }
        histogram
    }

    #[test]
    fn summaries_of_known_sets() {
        assert_eq!(of([]).summary(), Summary::default());
        let ten = of([0, 1, 2, 3, 4, 5, 6, 7, 8, 31]).summary();
        assert_eq!((ten.p50_us, ten.p95_us, ten.max_us), (4, 31, 31));
        assert_eq!((ten.count, ten.mean_us), (10, 6));
        let many = of(1..=100_000).summary();
        for (have, want) in [
            (many.p50_us, 50_000),
            (many.p95_us, 95_000),
            (many.p99_us, 99_000),
        ] {
            assert!(
                (want..=want + want / 32).contains(&have),
                "{have}, not {want}"
            );
        }
        assert_eq!((many.max_us, many.mean_us), (100_000, 50_000));
    }

    #[test]
    fn what_is_longer_than_the_last_bucket_counts() {
        let mut histogram = of([MAX_VALUE, MAX_VALUE + 1, u64::MAX / 2]);
        assert_eq!(histogram.buckets.last(), Some(&3));
        assert_eq!(histogram.summary().max_us, u64::MAX / 2);
        histogram.clear();
        assert_eq!(histogram.summary(), Summary::default());
    }

    proptest! {
        #[test]
        fn a_bucket_is_at_most_a_thirty_second_wide(value in 0..=MAX_VALUE) {
            let largest = largest_of(bucket_of(value));
            prop_assert!(largest >= value && largest - value <= value / 32);
            prop_assert_eq!(bucket_of(largest), bucket_of(value));
            prop_assert!(largest == MAX_VALUE || bucket_of(largest + 1) == bucket_of(value) + 1);
        }
    }
}
