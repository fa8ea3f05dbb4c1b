//! The rate of events, measured over windows of a fixed length.
//!
//! In: events with their times. Out: events per second over the last full window.

use core::time::Duration;

use crate::time::{Instant, micros};

/// Two heartbeats: short enough to follow, long enough for thousands of packets under load.
const METERED: Duration = Duration::from_millis(100);

/// The rate of events per second, over the last full window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    since: Instant,
    count: u64,
    rate: u32,
}

impl Meter {
    /// Counts events.
    pub(super) fn count(&mut self, now: Instant, events: u64) {
        let passed = now.saturating_since(self.since);
        if passed >= METERED {
            let rate = self.count.saturating_mul(1_000_000) / micros(passed).max(1);
            self.rate = u32::try_from(rate).unwrap_or(u32::MAX);
            *self = Self {
                since: now,
                count: 0,
                ..*self
            };
        }
        self.count += events;
    }

    /// Returns the rate.
    pub(super) fn rate(&mut self, now: Instant) -> u32 {
        self.count(now, 0);
        self.rate
    }
}
