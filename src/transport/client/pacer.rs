//! Pacing of requests: each stands for the flight it releases, and flights leave at the rate of the
//! window per round trip (RFC 9002 §7.7), with some headroom and small bursts.

use std::time::Duration;

use crate::time::Instant;

/// Unused time that may be made up for, so that a coarse timer does not cost rate.
const MAX_CREDIT: Duration = Duration::from_micros(500);

/// Packets that may leave at once beyond slow start (RFC 9002 §7.7). A cluster of packets is then
/// answered by a cluster, as in TCP: a flow that sends later than the departures that clock it finds
/// more room in a full queue than others, and takes more than its share.
const MAX_BURST: u32 = 10;

/// Greatest window in packets that slow start does not pace: enough for a short object. At 64, queues
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
    /// The rate is 11/10 of the window per round trip, in slow start twice the window, but without
    /// limit up to [`MAX_UNPACED`].
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
        let time_of = |count: u32| rtt * count * up / (window.max(1) * down);
        let credit = match slow_start {
            true => MAX_CREDIT,
            false => MAX_CREDIT.max(time_of(MAX_BURST)),
        };
        self.next = self.next.max(now - credit) + time_of(count);
    }

    /// Forgets a debt: the path was idle.
    pub(super) const fn reset(&mut self, now: Instant) {
        self.next = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_micros(10_000_000);

    /// How long ten requests for ten packets each take at a round trip of 110 ms.
    fn takes(window: u32, slow_start: bool) -> Duration {
        let mut pacer = Pacer::default();
        pacer.reset(START);
        for _ in 0..10 {
            let now = pacer.ready_at();
            pacer.sent(now, 10, window, Duration::from_millis(110), slow_start);
        }
        pacer.ready_at().saturating_since(START)
    }

    #[test]
    fn a_window_takes_its_share_of_a_round_trip() {
        for (name, window, slow_start, want_ms) in [
            ("eleven tenths", 100, false, 100),
            ("of a small window too", 10, false, 1000),
            ("slow start", 100, true, 55),
            ("just paced", 50, true, 110),
            ("what a short object needs", MAX_UNPACED, true, 0),
        ] {
            let took = takes(window, slow_start);
            assert_eq!(took.as_millis(), want_ms, "{name}: {took:?}");
        }
        assert!(!takes(MAX_UNPACED + 1, true).is_zero());
    }

    #[test]
    fn little_credit_is_saved_up() {
        let rtt = Duration::from_millis(110);
        for (name, slow_start, want) in [
            ("a burst", false, START),
            (
                "slow start",
                true,
                START - MAX_CREDIT + Duration::from_micros(5_500),
            ),
        ] {
            let mut pacer = Pacer::default();
            pacer.sent(START, MAX_BURST, 100, rtt, slow_start);
            assert_eq!(pacer.ready_at(), want, "{name}");
        }
        let mut pacer = Pacer::default();
        pacer.sent(START, 20, 100, rtt, false);
        assert_eq!(pacer.ready_at(), START + Duration::from_millis(10));
    }
}
