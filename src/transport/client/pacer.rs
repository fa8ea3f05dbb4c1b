//! Pacing of requests: each stands for the flight it releases, and flights leave at the rate of the
//! window per round trip (RFC 9002 §7.7), with some headroom and small bursts.

use std::time::Duration;

use crate::time::Instant;

/// Unused time that may be made up for, so that a coarse timer costs no rate.
const MAX_CREDIT: Duration = Duration::from_micros(500);

/// Greatest window in packets that slow start does not pace: what a short object needs. At 64, queues
/// of a quarter of the path's product overflow too early; at 20, 100 kB take longer than by TCP.
const MAX_UNPACED: u32 = 48;

/// When the next request may leave.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pacer {
    next: Instant,
}

impl Pacer {
    /// When the next request may leave.
    pub(super) const fn ready_at(&self) -> Instant {
        self.next
    }

    /// A request for `count` packets left at a window of `window` packets and a round trip of `rtt`.
    /// The rate is 5/4 of the window per round trip, in slow start twice the window.
    pub(super) fn sent(
        &mut self,
        now: Instant,
        count: u32,
        window: u32,
        rtt: Duration,
        slow_start: bool,
    ) {
        if slow_start && window <= MAX_UNPACED {
            return;
        }
        let (up, down) = if slow_start { (1, 2) } else { (10, 11) };
        let interval = rtt * count * up / (window.max(1) * down);
        self.next = self.next.max(now - MAX_CREDIT) + interval;
    }

    /// Forgets a debt: the path was idle.
    pub(super) const fn reset(&mut self, now: Instant) {
        self.next = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_takes_its_share_of_a_round_trip() {
        for (slow_start, want_ms) in [(false, 80), (true, 50)] {
            let mut pacer = Pacer::default();
            let start = Instant::from_micros(10_000_000);
            pacer.reset(start);
            for _ in 0..10 {
                pacer.sent(
                    pacer.ready_at(),
                    10,
                    100,
                    Duration::from_millis(100),
                    slow_start,
                );
            }
            assert_eq!(pacer.ready_at(), start + Duration::from_millis(want_ms));
        }
    }

    #[test]
    fn little_credit_is_saved_up() {
        let mut pacer = Pacer::default();
        let now = Instant::from_micros(10_000_000);
        pacer.sent(now, 10, 100, Duration::from_millis(100), false);
        assert_eq!(
            pacer.ready_at(),
            now - MAX_CREDIT + Duration::from_millis(8)
        );
    }
}
