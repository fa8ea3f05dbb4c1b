//! CoDel: signals congestion by the sojourn time of packets.
//!
//! In: each packet that leaves the queue for the wire, with its time in the queue. Out: whether to
//! drop it, or mark it if it is ECN-capable. A queue is standing if packets exceed the target
//! throughout an interval; signals then follow at ever shorter intervals while it stands. Source:
//! RFC 8289, pseudo-code of section 5, here as one step per packet: the successor of a dropped
//! packet is another step at the same instant. Times are in whole microseconds, also where the RFC
//! divides by a square root.

use std::time::Duration;

use super::config::Codel;
use crate::time::{Instant, micros};

/// Intervals after the last signal within which a new standing queue resumes the previous signal
/// rate (RFC 8289 §5.3).
const MEMORY_INTERVALS: u32 = 16;

/// The state of one queue; names follow the RFC.
#[derive(Debug, Default)]
pub(super) struct CodelState {
    first_above: Option<Instant>,
    dropping: bool,
    drop_next: Instant,
    count: u64,
    last_count: u64,
    /// The last packet was dropped in the dropping state: `drop_next` advances if this one exceeds
    /// the target too.
    dropped: bool,
}

impl CodelState {
    /// Whether to signal on a packet that leaves at `now` after `sojourn`. `behind` bytes of
    /// packets of at most `longest` bytes stay in the queue.
    pub(super) fn signals(
        &mut self,
        codel: Codel,
        now: Instant,
        sojourn: Duration,
        (behind, longest): (usize, usize),
    ) -> bool {
        let stands = self.stands(codel, now, sojourn, behind <= longest);
        let dropped = core::mem::take(&mut self.dropped);
        if !self.dropping {
            if stands {
                self.enter(codel, now);
            }
            return stands;
        }
        if !stands {
            self.dropping = false;
            return false;
        }
        if dropped {
            self.drop_next = control_law(self.drop_next, codel.interval, self.count);
        }
        if now < self.drop_next {
            return false;
        }
        self.count += 1;
        self.dropped = true;
        true
    }

    /// Whether packets have exceeded the target for an interval (`dodequeue` of the RFC). Less than
    /// a full packet in the queue only keeps the wire busy.
    fn stands(&mut self, codel: Codel, now: Instant, sojourn: Duration, short: bool) -> bool {
        if sojourn < codel.target || short {
            self.first_above = None;
            return false;
        }
        let first_above = *self.first_above.get_or_insert(now + codel.interval);
        // False in the step that sets it.
        now >= first_above
    }

    fn enter(&mut self, codel: Codel, now: Instant) {
        let delta = self.count.saturating_sub(self.last_count);
        let memory = codel.interval * MEMORY_INTERVALS;
        let recent = now.saturating_since(self.drop_next) < memory;
        self.count = if delta > 1 && recent { delta } else { 1 };
        self.last_count = self.count;
        self.dropping = true;
        self.drop_next = control_law(now, codel.interval, self.count);
    }
}

/// Returns `from` plus `interval` over the square root of `count`.
fn control_law(from: Instant, interval: Duration, count: u64) -> Instant {
    // An interval of at most MAX_DELAY squared stays below 2^52.
    let interval = micros(interval);
    let square = interval.saturating_mul(interval) / count.max(1);
    from + Duration::from_micros(square.isqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CODEL: Codel = Codel {
        target: Duration::from_millis(5),
        interval: Duration::from_millis(100),
    };

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    /// Sends a packet each 10 ms with `sojourn_ms` and a long queue behind it; returns the instants
    /// of signals.
    fn signalled(
        state: &mut CodelState,
        milliseconds: std::ops::Range<u64>,
        sojourn_ms: u64,
    ) -> Vec<u64> {
        let sojourn = Duration::from_millis(sojourn_ms);
        milliseconds
            .step_by(10)
            .filter(|now| state.signals(CODEL, at(now * 1000), sojourn, (9000, 1500)))
            .collect()
    }

    #[test]
    fn an_interval_of_waiting_brings_signals_closer_and_closer() {
        let mut state = CodelState::default();
        assert_eq!(
            signalled(&mut state, 0..100, 6),
            [0; 0],
            "not within the first interval"
        );
        // 100 ms after the first long wait; then after 100, 100/√2 = 70.7, 57.7, 50, 44.7, 40.8.
        let want = [100, 200, 280, 330, 380, 430, 470];
        assert_eq!(signalled(&mut state, 100..480, 6), want);
        assert_eq!(
            signalled(&mut state, 480..1500, 4),
            [0; 0],
            "no signal below the target"
        );
        // Within 16 intervals a new standing queue resumes the previous rate.
        let again = signalled(&mut state, 1500..1730, 6);
        assert_eq!(again, [1600, 1650, 1680, 1720]);
        signalled(&mut state, 1730..5000, 4);
        assert_eq!(
            signalled(&mut state, 5000..5210, 6),
            [5100, 5200],
            "and after that from the start"
        );
    }

    #[test]
    fn a_short_queue_or_wait_never_signals() {
        for (sojourn, behind) in [(4999, 9000), (60_000, 1500), (60_000, 0)] {
            let mut state = CodelState::default();
            let sojourn = Duration::from_micros(sojourn);
            let any =
                (0..1000).any(|n| state.signals(CODEL, at(n * 1000), sojourn, (behind, 1500)));
            assert!(!any, "{sojourn:?}, {behind} bytes");
        }
    }

    /// The pseudo-code of RFC 8289 §5, over a queue of arrival times, of packets of one byte.
    #[derive(Default)]
    struct Rfc {
        queue: std::collections::VecDeque<u64>,
        first_above_time: u64,
        drop_next: u64,
        count: u64,
        lastcount: u64,
        dropping: bool,
        drops: Vec<u64>,
    }

    impl Rfc {
        fn dodequeue(&mut self, now: u64) -> (Option<u64>, bool) {
            let Some(entered) = self.queue.pop_front() else {
                self.first_above_time = 0;
                return (None, false);
            };
            let mut ok_to_drop = false;
            if now - entered < micros(CODEL.target) || self.queue.len() <= 1 {
                self.first_above_time = 0;
            } else if self.first_above_time == 0 {
                self.first_above_time = now + micros(CODEL.interval);
            } else if now >= self.first_above_time {
                ok_to_drop = true;
            }
            (Some(entered), ok_to_drop)
        }

        fn law(from: u64, count: u64) -> u64 {
            (from as f64 + micros(CODEL.interval) as f64 / (count as f64).sqrt()) as u64
        }

        fn deque(&mut self, now: u64) -> Option<u64> {
            let (mut packet, mut ok_to_drop) = self.dodequeue(now);
            if self.dropping {
                if !ok_to_drop {
                    self.dropping = false;
                }
                while self.dropping && now >= self.drop_next {
                    self.drops.extend(packet);
                    self.count += 1;
                    (packet, ok_to_drop) = self.dodequeue(now);
                    if ok_to_drop {
                        self.drop_next = Self::law(self.drop_next, self.count);
                    } else {
                        self.dropping = false;
                    }
                }
            } else if ok_to_drop {
                self.drops.extend(packet);
                packet = self.dodequeue(now).0;
                self.dropping = true;
                let delta = self.count - self.lastcount;
                self.count = 1;
                if delta > 1 && now.saturating_sub(self.drop_next) < 16 * micros(CODEL.interval) {
                    self.count = delta;
                }
                self.drop_next = Self::law(now, self.count);
                self.lastcount = self.count;
            }
            packet
        }
    }

    proptest! {
        /// Bursts of packets, served at intervals: both drop the same packets.
        #[test]
        fn the_same_packets_are_dropped_as_by_the_rfc(
            steps in prop::collection::vec((0usize..12, 1u64..9000, 0u64..400_000), 1..120),
        ) {
            let (mut rfc, mut state) = (Rfc::default(), CodelState::default());
            let mut queue = std::collections::VecDeque::new();
            let (mut now, mut drops) = (1_000_000, Vec::new());
            for (number, (packets, pause, idle)) in steps.into_iter().enumerate() {
                for n in 0..packets {
                    rfc.queue.push_back(now + n as u64);
                    queue.push_back(now + n as u64);
                }
                now += 12;
                for _ in 0..packets.min(6) {
                    let want = rfc.deque(now);
                    let got = loop {
                        let Some(entered) = queue.pop_front() else { break None };
                        let sojourn = Duration::from_micros(now - entered);
                        if !state.signals(CODEL, at(now), sojourn, (queue.len(), 1)) {
                            break Some(entered);
                        }
                        drops.push(entered);
                    };
                    prop_assert_eq!(got, want);
                    now += pause;
                }
                now += if number % 20 == 19 { idle * 10 } else { 0 };
            }
            prop_assert_eq!(drops, rfc.drops);
        }
    }
}
