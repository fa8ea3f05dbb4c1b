//! The order in which connections give way when the table is full.
//!
//! In: connections with their sources, and for each a [`Standing`] when asked. Out: the connection
//! to evict. A connection without anything to send is idle; of the idle ones the one whose last
//! progress is longest ago gives way, then a busy one that has stalled. Where one source holds more
//! than its share, only its connections compete, and being busy does not protect them.
//! Standings are looked up late: a connection that moves on costs nothing until it comes to the
//! front of the order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{MAX_TCP_CONNECTIONS, TcpId};
use crate::time::Instant;
use crate::wire::address::Source;

/// Connections of one source above which it makes room for others in a full table.
pub const SOURCE_SHARE: usize = MAX_TCP_CONNECTIONS / 8;

/// Time without progress after which a busy connection may be evicted.
const STALLED: Duration = Duration::from_secs(5);

/// The claim of a connection to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The last progress.
    pub(super) progress: Instant,
    /// Whether bytes wait for the peer's acknowledgement.
    pub(super) busy: bool,
}

impl Standing {
    /// That of a connection that has ended.
    pub(super) const OVER: Self = Self {
        progress: Instant::ZERO,
        busy: false,
    };
}

#[derive(Debug, Default)]
struct Order {
    idle: BTreeSet<(Instant, TcpId)>,
    busy: BTreeSet<(Instant, TcpId)>,
}

impl Order {
    fn len(&self) -> usize {
        self.idle.len() + self.busy.len()
    }

    const fn of(&mut self, standing: Standing) -> &mut BTreeSet<(Instant, TcpId)> {
        if standing.busy {
            &mut self.busy
        } else {
            &mut self.idle
        }
    }
}

/// The connections that may be evicted.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    members: BTreeMap<TcpId, (Source, Standing)>,
    all: Order,
    sources: BTreeMap<Source, Order>,
    /// Sources by their number of connections.
    sizes: BTreeSet<(usize, Source)>,
}

impl Crowd {
    /// Adds a connection, or changes its standing.
    pub(super) fn place(&mut self, id: TcpId, source: Source, standing: Standing) {
        let had = self.members.insert(id, (source, standing));
        if had == Some((source, standing)) {
            return;
        }
        if let Some((source, before)) = had {
            self.all.of(before).remove(&(before.progress, id));
            let order = self.sources.entry(source).or_default();
            order.of(before).remove(&(before.progress, id));
        }
        self.all.of(standing).insert((standing.progress, id));
        let order = self.sources.entry(source).or_default();
        order.of(standing).insert((standing.progress, id));
        if had.is_none() {
            let size = order.len();
            self.sizes.remove(&(size - 1, source));
            self.sizes.insert((size, source));
        }
    }

    pub(super) fn remove(&mut self, id: TcpId) {
        let Some((source, standing)) = self.members.remove(&id) else {
            return;
        };
        self.all.of(standing).remove(&(standing.progress, id));
        let Some(order) = self.sources.get_mut(&source) else {
            return;
        };
        order.of(standing).remove(&(standing.progress, id));
        let size = order.len();
        self.sizes.remove(&(size + 1, source));
        if size == 0 {
            self.sources.remove(&source);
        } else {
            self.sizes.insert((size, source));
        }
    }

    /// Whether some members are known to be busy, so that one that no longer is must be placed anew.
    pub(super) fn has_busy(&self) -> bool {
        !self.all.busy.is_empty()
    }

    /// Returns the connection that gives way first, if any should.
    pub(super) fn victim(
        &mut self,
        now: Instant,
        standing: impl Fn(TcpId) -> Standing,
    ) -> Option<TcpId> {
        let largest = self.sizes.last().copied();
        if let Some((size, source)) = largest
            && size > SOURCE_SHARE
            && let Some((id, _)) = self.first(Some(source), &standing)
        {
            return Some(id);
        }
        let (id, found) = self.first(None, &standing)?;
        let stalled = now.saturating_since(found.progress) >= STALLED;
        (!found.busy || stalled).then_some(id)
    }

    /// Returns the first connection in the order, idle ones before busy ones, with its standing. Each
    /// step moves one connection to its right place, so it ends.
    fn first(
        &mut self,
        source: Option<Source>,
        standing: &impl Fn(TcpId) -> Standing,
    ) -> Option<(TcpId, Standing)> {
        loop {
            let order = match source {
                Some(source) => self.sources.get(&source)?,
                None => &self.all,
            };
            let (listed, busy) = match order.idle.first() {
                Some(&first) => (first, false),
                None => (*order.busy.first()?, true),
            };
            let (progress, id) = listed;
            let now = standing(id);
            if now == (Standing { progress, busy }) {
                return Some((id, now));
            }
            let &(source, _) = self.members.get(&id)?;
            self.place(id, source, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn source(number: u32) -> Source {
        Source::of(std::net::IpAddr::from(number.to_be_bytes()))
    }

    const fn standing(seconds: u64, busy: bool) -> Standing {
        let progress = Instant::from_micros(seconds * 1_000_000);
        Standing { progress, busy }
    }

    #[test]
    fn the_longest_idle_gives_way_before_the_stalled() {
        let mut crowd = Crowd::default();
        let mut real = BTreeMap::new();
        for (id, listed, now) in [
            (0, standing(1, false), standing(9, false)),
            (1, standing(2, false), standing(2, true)),
            (2, standing(3, false), standing(3, false)),
            (3, standing(4, false), standing(8, true)),
        ] {
            crowd.place(TcpId(id), source(7), listed);
            real.insert(TcpId(id), now);
        }
        let mut order = Vec::new();
        while let Some(id) = crowd.victim(at(10), |id| real[&id]) {
            order.push(id.0);
            crowd.remove(id);
        }
        assert_eq!(order, [2, 0, 1], "the last has made progress recently");
        assert!(crowd.has_busy());
        assert_eq!(crowd.victim(at(13), |id| real[&id]), Some(TcpId(3)));
        crowd.remove(TcpId(3));
        assert!(crowd.sources.is_empty() && crowd.sizes.is_empty() && crowd.members.is_empty());
    }

    #[test]
    fn a_source_above_its_share_makes_room_itself() {
        let mut crowd = Crowd::default();
        let busy = standing(100, true);
        for id in 0..=SOURCE_SHARE as u64 {
            crowd.place(TcpId(id), source(1), busy);
        }
        let (lonely, idle) = (TcpId(u64::MAX), standing(1, false));
        crowd.place(lonely, source(2), idle);
        let look = |id| if id == lonely { idle } else { busy };
        assert_eq!(crowd.victim(at(100), look), Some(TcpId(0)));
        crowd.remove(TcpId(0));
        assert_eq!(crowd.victim(at(100), look), Some(lonely), "at its share");
    }
}
