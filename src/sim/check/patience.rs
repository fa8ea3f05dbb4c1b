//! The longest allowed stall, and the longest transfer after the end of all faults.
//!
//! In: the path of one client, its impairments, its losses, and the longest back-off of the protocol. Out:
//! deadlines for progress. The rule (law 7): no stall outlasts the path's outage by more than the
//! current back-off; a back-off doubles, so it never exceeds the outage so far plus one timeout. On
//! paths with random loss each further loss may double it again.

use std::time::Duration;

use crate::time::{Instant, micros};

/// The inputs to a client's patience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Longest round trip without faults but with full queues.
    pub round_trip: Duration,
    /// Bottleneck towards the client, in bit/s.
    pub rate: u64,
    /// Whether packets are lost or corrupted at random: each may double the back-off once more.
    pub lossy: bool,
    /// Outages of the path, or of any server; ascending by start, may overlap.
    pub impaired: Vec<(Instant, Instant)>,
    /// Longest back-off of the protocol.
    pub longest_backoff: Duration,
    /// Time added by the client's own plan: pauses, and a slow reader.
    pub leisure: Duration,
    /// Longest stall that the application causes.
    pub thinks: Duration,
    /// Greatest difference between the clocks of two servers: one whose clock is behind refuses a timeout
    /// until it is due by that clock.
    pub skew: Duration,
}

impl Path {
    /// The deadline for progress of a client that waits since `since` and whose path has lost `lost`
    /// transmissions in a row, if no further fault occurs.
    #[must_use]
    pub fn stall_ends(&self, since: Instant, lost: u32) -> Instant {
        let mut clear = since;
        for &(from, until) in &self.impaired {
            // A fault that begins within the back-off of the previous one extends the delay.
            if from <= clear + self.backoff(clear.saturating_since(since), lost) && until > clear {
                clear = until;
            }
        }
        clear + self.backoff(clear.saturating_since(since), lost)
    }

    /// The deadline of a client with `bytes` outstanding at `healed`, the end of all faults, which
    /// may have waited since `since`, with `lost` transmissions lost.
    #[must_use]
    pub fn finishes(&self, healed: Instant, since: Instant, bytes: u64, lost: u32) -> Instant {
        let stalled = self.stall_ends(since, lost).max(healed);
        let wire = u128::from(bytes) * 8 * 1_000_000 / u128::from(self.rate.max(1));
        let wire = Duration::from_micros(u64::try_from(wire).unwrap_or(u64::MAX));
        // A window that starts at two and grows by half a packet a round trip (the slowest of
        // RFC 9438 §4.3) has carried n²/4 packets after n of them; four times the time on the wire
        // allows for a sawtooth under it.
        let trips = 2 * (bytes / LEAST_PAYLOAD).isqrt() + SPARE_ROUND_TRIPS;
        let trips = u32::try_from(trips).unwrap_or(u32::MAX);
        let trips = self.round_trip.saturating_mul(trips);
        stalled + trips + wire.saturating_mul(4) + self.timeout() * 8 + self.leisure
    }

    /// The current back-off after `stalled` without a reply.
    fn backoff(&self, stalled: Duration, lost: u32) -> Duration {
        let doublings = match self.lossy {
            true => lost.max(LOSSY_DOUBLINGS),
            false => 1,
        };
        let backoff = (stalled + self.skew + self.timeout()).saturating_mul(1 << doublings.min(16));
        let most = self.longest_backoff.saturating_mul(1 + doublings);
        backoff.min(most.max(self.timeout())) + self.round_trip * 2 + self.thinks
    }

    /// A retransmission timeout without back-off: that of RFC 6298 before the first sample, or the
    /// smoothed round trip plus four deviations.
    fn timeout(&self) -> Duration {
        let measured = Duration::from_micros(micros(self.round_trip).saturating_mul(3));
        INITIAL_TIMEOUT.max(measured + LEAST_TIMEOUT)
    }
}

/// RFC 6298 §2.1.
const INITIAL_TIMEOUT: Duration = Duration::from_secs(1);

/// The customary minimum instead of RFC 6298 §2.4.
const LEAST_TIMEOUT: Duration = Duration::from_millis(200);

/// Least stream bytes per packet.
const LEAST_PAYLOAD: u64 = 1000;

/// Round trips allowed for an empty transfer.
const SPARE_ROUND_TRIPS: u64 = 64;

/// Consecutive losses of one retransmission presumed possible, seen or not. A burst (Gilbert-Elliott) that
/// lasts may cause more; those are counted.
const LOSSY_DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Path {
        Path {
            round_trip: Duration::from_millis(100),
            rate: 1_000_000,
            lossy: false,
            impaired: Vec::new(),
            longest_backoff: Duration::from_secs(60),
            leisure: Duration::ZERO,
            thinks: Duration::ZERO,
            skew: Duration::ZERO,
        }
    }

    fn secs(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    #[test]
    fn an_outage_excuses_its_own_length_and_one_backoff() {
        let mut path = path();
        let quiet = path.stall_ends(secs(10), 0).saturating_since(secs(10));
        assert_eq!(quiet, Duration::from_millis(2200));
        path.skew = Duration::from_secs(1);
        let skewed = path.stall_ends(secs(10), 0).saturating_since(secs(10));
        assert_eq!(skewed, quiet + 2 * path.skew);
        path.skew = Duration::ZERO;
        path.impaired = vec![
            (secs(1), secs(2)),
            (secs(11), secs(15)),
            (secs(100), secs(200)),
        ];
        let end = path.stall_ends(secs(10), 0).saturating_since(secs(10));
        // Five seconds until the end of the outage, twice (five plus a timeout), two round trips.
        assert_eq!(end, Duration::from_millis(5000 + 12_000 + 200));
    }

    #[test]
    fn outages_in_close_order_add_up() {
        let mut path = path();
        path.impaired = vec![(secs(1), secs(5)), (secs(6), secs(9))];
        assert!(path.stall_ends(secs(1), 0) > secs(9));
        path.longest_backoff = Duration::from_millis(100);
        assert_eq!(
            path.stall_ends(secs(1), 0),
            secs(9) + Duration::from_millis(1200)
        );
    }

    #[test]
    fn what_is_left_takes_time_in_proportion() {
        let path = path();
        let none = path.finishes(secs(5), secs(5), 0, 0);
        let some = path.finishes(secs(5), secs(5), 1_000_000, 0);
        assert!(
            some > none + Duration::from_secs(8),
            "8 s on the wire alone"
        );
        let mut lossy = path.clone();
        lossy.lossy = true;
        assert!(lossy.stall_ends(secs(5), 0) > path.stall_ends(secs(5), 0));
        assert!(lossy.stall_ends(secs(5), 7) > lossy.stall_ends(secs(5), 6));
        assert_eq!(path.stall_ends(secs(5), 7), path.stall_ends(secs(5), 0));
    }
}
