//! Round-trip estimation (RFC 6298) and the timeouts that follow from it.

use std::time::Duration;

use crate::time::micros;

/// Retransmission timeout before the first sample (RFC 6298 §2).
pub(super) const INITIAL_RTO: Duration = Duration::from_secs(1);

/// Least retransmission timeout; the server's gate on timeouts is as long.
pub(super) const MIN_RTO: Duration = Duration::from_millis(200);

/// Greatest back-off of the retransmission timeout: no stall outlasts an outage by more. Far less
/// than TCP's, since a timeout sends only one small request.
pub(super) const MAX_RTO: Duration = Duration::from_secs(3);

/// Bytes a microsecond that no path carries: 100 Gbit/s.
const FASTEST: u64 = 12_500;

/// Bytes that may be under way or unread where the server is near.
const MAX_NEAR_BYTES: u64 = 4 << 20;

/// Round trips from here on are those of slow or long paths.
const LONG: Duration = Duration::from_millis(10);

/// Granularity of the clock: bounds the variance from below.
const GRANULARITY: Duration = Duration::from_millis(1);

/// Smoothed round trip, its variation, and the smallest seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rtt {
    state: Option<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    smoothed: Duration,
    variation: Duration,
    min: Duration,
}

impl Rtt {
    /// Takes a sample of a request that was sent once (Karn).
    pub(super) fn sample(&mut self, rtt: Duration) {
        let rtt = rtt.max(Duration::from_micros(1));
        self.state = Some(match self.state {
            None => State {
                smoothed: rtt,
                variation: rtt / 2,
                min: rtt,
            },
            Some(old) => {
                let difference = old.smoothed.abs_diff(rtt);
                State {
                    smoothed: (old.smoothed * 7 + rtt) / 8,
                    variation: (old.variation * 3 + difference) / 4,
                    min: old.min.min(rtt),
                }
            }
        });
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.state.map(|state| state.smoothed)
    }

    pub(super) fn min(&self) -> Option<Duration> {
        self.state.map(|state| state.min)
    }

    /// The part of the expected round trip that packets wait in queues, either way.
    pub(super) fn wait(&self) -> Duration {
        self.state.map_or(Duration::ZERO, |state| {
            state.smoothed.saturating_sub(state.min)
        })
    }

    /// The expected round trip: smoothed, or a guess before the first sample.
    pub(super) fn expected(&self) -> Duration {
        self.smoothed().unwrap_or(INITIAL_RTO / 3)
    }

    /// The expected average round trip of an epoch that begins now, with a smaller window. The present
    /// one would be too long, since the queue is longest at a loss: the curve would run ahead of TCP's.
    pub(super) fn of_next_epoch(&self) -> Duration {
        let expected = self.expected();
        (expected * 17 / 20).max(self.min().unwrap_or(expected))
    }

    /// The most bytes that should be under way or unread. Between neighbours, bytes beyond those that
    /// the path holds only wait in a queue and evict each other from the processor's caches. Where round
    /// trips are long, if only for a queue, competing flows fill the path as well.
    pub(super) fn most_under_way(&self) -> u64 {
        match self.state {
            Some(state) if state.smoothed < LONG => {
                (micros(state.min) * FASTEST).max(MAX_NEAR_BYTES)
            }
            Some(_) | None => u64::MAX,
        }
    }

    /// Retransmission timeout after `backoff` unanswered ones.
    pub(super) fn rto(&self, backoff: u32) -> Duration {
        let base = self.state.map_or(INITIAL_RTO, |state| {
            (state.smoothed + (state.variation * 4).max(GRANULARITY)).max(MIN_RTO)
        });
        base.saturating_mul(1 << backoff.min(10))
            .min(MAX_RTO.max(base))
    }

    /// The silence after which a probe is sent (RFC 8985 §7.2).
    pub(super) fn pto(&self) -> Duration {
        self.state.map_or(INITIAL_RTO, |state| {
            state.smoothed * 2 + (state.variation * 2).max(GRANULARITY * 2)
        })
    }

    /// Replaces the smallest round trip: one server has taken over from another.
    pub(super) const fn set_min(&mut self, min: Duration) {
        if let Some(state) = &mut self.state {
            state.min = min;
        }
    }

    /// Forgets the path: its addresses or servers changed.
    pub(super) const fn reset(&mut self) {
        self.state = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn follows_rfc_6298() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.rto(0), INITIAL_RTO);
        rtt.sample(ms(100));
        assert_eq!(rtt.rto(0), ms(300));
        rtt.sample(ms(180));
        assert_eq!((rtt.smoothed(), rtt.min()), (Some(ms(110)), Some(ms(100))));
        assert_eq!(rtt.rto(0), ms(110) + 4 * Duration::from_micros(57_500));
    }

    #[test]
    fn an_epoch_reckons_with_a_shorter_queue_but_not_with_less_than_none() {
        let mut rtt = Rtt::default();
        rtt.sample(ms(100));
        assert_eq!(rtt.of_next_epoch(), ms(100));
        for _ in 0..100 {
            rtt.sample(ms(200));
        }
        let of_next = rtt.of_next_epoch();
        assert!(of_next > ms(169) && of_next < ms(171), "{of_next:?}");
    }

    #[test]
    fn the_distance_of_another_server_replaces_the_smallest_round_trip() {
        let mut rtt = Rtt::default();
        rtt.set_min(ms(40));
        assert_eq!(rtt.min(), None, "nothing to replace");
        rtt.sample(ms(10));
        rtt.set_min(ms(40));
        assert_eq!((rtt.smoothed(), rtt.min()), (Some(ms(10)), Some(ms(40))));
        rtt.sample(ms(30));
        assert_eq!(rtt.min(), Some(ms(30)));
    }

    #[test]
    fn little_is_under_way_between_neighbours_only() {
        let of = |us: &[u64]| {
            let mut rtt = Rtt::default();
            us.iter()
                .for_each(|&us| rtt.sample(Duration::from_micros(us)));
            rtt.most_under_way()
        };
        assert_eq!(of(&[]), u64::MAX);
        assert_eq!(of(&[60]), MAX_NEAR_BYTES);
        assert_eq!(of(&[60, 9_000]), MAX_NEAR_BYTES, "a queue");
        assert_eq!(of(&[400]), 5_000_000);
        assert_eq!(of(&[9_999]), 124_987_500);
        assert_eq!(of(&[10_000]), u64::MAX);
        assert_eq!(of(&[60, 90_000]), u64::MAX, "a slow path");
    }

    #[test]
    fn backs_off_within_bounds() {
        let mut rtt = Rtt::default();
        rtt.sample(ms(1));
        assert_eq!(rtt.rto(0), MIN_RTO);
        assert_eq!(rtt.rto(2), MIN_RTO * 4);
        assert_eq!(rtt.rto(40), MAX_RTO);
    }
}
