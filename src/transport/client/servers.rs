//! The servers that answer, and the distance to each.
//!
//! Where several servers answer by turns, an answer may be late only because it comes from farther
//! away. Where one has taken over from another, at another site perhaps, the other's distance does
//! not count any more. In: the server's id in each answer, round trips. Out: whether there are
//! several, and the time that packets waited in queues. At most [`MAX_SERVERS`] are distinguished.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Instant;
use crate::transport::client::stats::MAX_SERVERS;

/// Round trips for which an answer from another server is remembered.
const SEVERAL_ROUND_TRIPS: u32 = 16;

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers {
    last: Option<u16>,
    /// When two answers after one another came from different servers; forgotten once one of them
    /// has taken over.
    changed: Option<Instant>,
    /// Smallest round trip by server.
    least: BTreeMap<u16, Duration>,
}

impl Servers {
    /// Takes note of the server that answered.
    pub(super) fn note(&mut self, now: Instant, server: u16) {
        if self.last.replace(server).is_some_and(|last| last != server) {
            self.changed = Some(now);
        }
    }

    /// Whether several answer, by turns.
    pub(super) fn are_several(&self, now: Instant, round_trip: Duration) -> bool {
        let recently = round_trip * SEVERAL_ROUND_TRIPS;
        self.changed
            .is_some_and(|at| now.saturating_since(at) < recently)
    }

    /// If one server has answered alone long enough to have taken over from those before: its own
    /// smallest round trip, the only one that counts from then on; once.
    pub(super) fn settle(&mut self, now: Instant, round_trip: Duration) -> Option<Duration> {
        if self.changed.is_none() || self.are_several(now, round_trip) {
            return None;
        }
        self.changed = None;
        let last = self.last;
        self.least.retain(|server, _| Some(*server) == last);
        self.least.values().next().copied()
    }

    /// Takes a round trip to `server`; returns the part of it that is waiting rather than distance.
    pub(super) fn sample(&mut self, server: u16, round_trip: Duration) -> Duration {
        if self.least.len() < MAX_SERVERS || self.least.contains_key(&server) {
            let least = self.least.entry(server).or_insert(round_trip);
            *least = round_trip.min(*least);
        }
        let own = self.least.get(&server).copied().unwrap_or(round_trip);
        round_trip.saturating_sub(own)
    }

    /// The smallest round trip to the farthest.
    pub(super) fn farthest(&self) -> Duration {
        self.least.values().max().copied().unwrap_or_default()
    }

    /// How much farther away the farthest is than the nearest.
    pub(super) fn spread(&self) -> Duration {
        let nearest = self.least.values().min().copied().unwrap_or_default();
        self.farthest() - nearest
    }

    /// Forgets the distances: they are of another path.
    pub(super) fn forget_path(&mut self) {
        self.least.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_distance_is_no_queue() {
        let mut servers = Servers::default();
        assert_eq!((servers.spread(), servers.farthest()), (ms(0), ms(0)));
        assert_eq!(servers.sample(1, ms(10)), ms(0));
        assert_eq!(servers.sample(1, ms(12)), ms(2));
        assert_eq!(servers.sample(2, ms(50)), ms(0));
        assert_eq!(servers.sample(2, ms(52)), ms(2));
        assert_eq!(servers.sample(1, ms(8)), ms(0), "nearer still");
        assert_eq!((servers.spread(), servers.farthest()), (ms(42), ms(50)));
        servers.forget_path();
        assert_eq!((servers.spread(), servers.farthest()), (ms(0), ms(0)));
    }

    #[test]
    fn who_has_taken_over_is_alone() {
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        let mut servers = Servers::default();
        servers.note(at(0), 1);
        servers.sample(1, ms(10));
        assert_eq!(servers.settle(at(1000), ms(10)), None, "nothing changed");
        servers.note(at(1000), 2);
        servers.sample(2, ms(50));
        assert_eq!(servers.settle(at(1799), ms(50)), None, "not yet");
        assert_eq!(servers.settle(at(1800), ms(50)), Some(ms(50)));
        assert_eq!(servers.spread(), ms(0));
        assert_eq!(servers.sample(2, ms(52)), ms(2));
        assert_eq!(servers.settle(at(1801), ms(50)), None, "once");
    }

    #[test]
    fn no_more_than_so_many_are_told_apart() {
        let mut servers = Servers::default();
        for server in 0..=300 {
            servers.sample(server, ms(10));
        }
        assert_eq!(servers.least.len(), MAX_SERVERS);
        assert_eq!(servers.sample(299, ms(30)), ms(0), "not known");
    }
}
