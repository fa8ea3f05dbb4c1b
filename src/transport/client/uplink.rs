//! Whether requests wait on their way to the servers, and how much larger flights are for it.
//!
//! In: when a request was sent, when a server issued the continuation in its answer, and how long both
//! waited in queues altogether. Out: the factor by which flights grow. The time from the one to the other,
//! by two clocks, is the distance to the server, an unknown difference of clocks, and the wait in
//! front of the server: in an uplink full of requests, which queues on the way back never lengthen.
//! Issue times are whole milliseconds.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::{Instant, UnixMillis, micros};
use crate::transport::client::rtt::Rtt;
use crate::transport::client::stats::MAX_SERVERS;

/// Bounds of the wait that indicates a queue of requests, and the part of a round trip in between.
const MIN_WAIT: Duration = Duration::from_millis(4);
const MAX_WAIT: Duration = Duration::from_millis(16);
const WAIT_PART: u32 = 8;

/// Error of the difference of two clocks of which one shows whole milliseconds, in µs.
const ROUNDING_US: i64 = 1000;

/// The factor of flights that need not be larger.
const ONE: u32 = 16;

/// The greatest factor: from the smallest flight to the largest.
const MAX_FACTOR: u32 = 22 * ONE;

/// Part of the factor that a request without a wait takes away.
const DECAY_PART: u32 = 16;

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Uplink {
    /// Smallest time from a request to the issue of its answer, by server and two clocks, in µs.
    least: BTreeMap<u16, i64>,
    /// The wait of the request before.
    before: Duration,
    /// In parts of [`ONE`].
    factor: u32,
}

impl Default for Uplink {
    fn default() -> Self {
        Self {
            least: BTreeMap::new(),
            before: Duration::ZERO,
            factor: ONE,
        }
    }
}

impl Uplink {
    /// Takes the times of a request that was sent once. `waited`: how long it and its answer
    /// waited in queues; `least`: the smallest round trip.
    pub(super) fn sample(
        &mut self,
        server: u16,
        sent: Instant,
        issued: UnixMillis,
        waited: Duration,
        least: Duration,
    ) {
        let wait = self.wait(server, sent, issued, waited);
        let full = full(least);
        // One request may have been held up alone.
        self.factor = match wait.min(self.before) >= full {
            true => (self.factor * 2).min(MAX_FACTOR),
            false if wait < full => (self.factor - self.factor / DECAY_PART).max(ONE),
            false => self.factor,
        };
        self.before = wait;
    }

    /// Whether packets wait long enough for a part of it to be a queue of requests.
    pub(super) fn may_be_full(rtt: &Rtt) -> bool {
        rtt.min().is_some_and(|least| rtt.wait() >= full(least))
    }

    /// How long the request waited in front of the server.
    fn wait(
        &mut self,
        server: u16,
        sent: Instant,
        issued: UnixMillis,
        waited: Duration,
    ) -> Duration {
        let clock = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        let took =
            clock(issued.as_millis().saturating_mul(1000)).saturating_sub(clock(sent.as_micros()));
        let waited = clock(micros(waited));
        let known = self.least.get(&server).copied();
        // It waited no longer than both did: clocks drift, and are set.
        let least = known
            .unwrap_or(took)
            .clamp(took.saturating_sub(waited + ROUNDING_US), took);
        if known.is_some() || self.least.len() < MAX_SERVERS {
            self.least.insert(server, least);
        }
        Duration::from_micros(u64::try_from(took.saturating_sub(least)).unwrap_or(0))
    }

    /// Whether flights are larger for a wait of requests.
    pub(super) const fn is_full(&self) -> bool {
        self.factor > ONE
    }

    /// The size of a flight of `packets` without a wait.
    pub(super) const fn enlarge(&self, packets: u32) -> u32 {
        packets.saturating_mul(self.factor) / ONE
    }
}

/// The wait that indicates a queue where the smallest round trip is `least`.
fn full(least: Duration) -> Duration {
    (least / WAIT_PART).clamp(MIN_WAIT, MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(40);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Takes a request sent at 1 s that the server answered `wait` later than at once, by a clock that
    /// shows `clock`; the round trip was `waited` longer than the smallest.
    fn sample(uplink: &mut Uplink, clock: u64, wait: u64, waited: u64) {
        let issued = UnixMillis::new(clock + wait);
        let sent = Instant::from_micros(1_000_000);
        uplink.sample(1, sent, issued, ms(waited), LEAST);
    }

    /// The factor after these waits of requests and of round trips, in ms.
    fn factor(waits: &[(u64, u64)]) -> u32 {
        let mut uplink = Uplink::default();
        for &(wait, waited) in waits {
            sample(&mut uplink, 5000, wait, waited);
        }
        uplink.factor
    }

    #[test]
    fn only_requests_that_wait_make_flights_larger() {
        for (name, waits, want) in [
            ("no wait", [(0, 0); 4], ONE),
            (
                "a queue on the way back",
                [(0, 0), (0, 40), (0, 40), (0, 40)],
                ONE,
            ),
            (
                "a full uplink",
                [(0, 0), (40, 40), (40, 40), (40, 40)],
                ONE * 4,
            ),
            ("less than an eighth", [(0, 0), (4, 4), (4, 4), (4, 4)], ONE),
            (
                "one request alone",
                [(0, 0), (40, 40), (0, 0), (40, 40)],
                ONE,
            ),
            (
                "it drains",
                [(0, 0), (40, 40), (40, 40), (0, 0)],
                ONE * 2 - 2,
            ),
        ] {
            assert_eq!(factor(&waits), want, "{name}");
        }
    }

    #[test]
    fn the_factor_is_bounded() {
        let mut waits = vec![(0, 0)];
        waits.resize(50, (40, 40));
        assert_eq!(factor(&waits), MAX_FACTOR);
        waits.resize(200, (0, 0));
        assert_eq!(factor(&waits), ONE);
    }

    #[test]
    fn clocks_that_are_set_or_drift_count_no_longer_than_packets_wait() {
        let mut uplink = Uplink::default();
        for clock in [5000, 9000, 9000, 9000, 20_000, 100, 100] {
            sample(&mut uplink, clock, 0, 0);
            assert_eq!(uplink.factor, ONE);
        }
        for _ in 0..3 {
            sample(&mut uplink, 100, 40, 40);
        }
        assert!(uplink.is_full());
    }

    #[test]
    fn each_server_has_a_clock_and_many_have_none() {
        let mut uplink = Uplink::default();
        for server in 0..=300 {
            let issued = UnixMillis::new(u64::from(server) * 1000);
            uplink.sample(server, Instant::ZERO, issued, ms(0), LEAST);
        }
        assert_eq!(uplink.least.len(), MAX_SERVERS);
        for server in [0, 299, 1, 299] {
            let issued = UnixMillis::new(u64::from(server) * 1000 + 3);
            uplink.sample(server, Instant::ZERO, issued, ms(300), LEAST);
            assert!(!uplink.is_full(), "{server}");
        }
    }
}
