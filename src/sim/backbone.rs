//! The network between nodes without links: short, wide and faultless, except between severed pairs
//! of nodes.
//!
//! In: packets with sender and receiver. Out: the same, [`DELAY`] later and in order. A packet
//! never arrives within the turn of its sender.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::world::NodeId;
use crate::time::Instant;

/// Delay of a packet; that of a network within a site.
pub const DELAY: Duration = Duration::from_micros(100);

/// Most packets in flight; further ones are lost.
pub const MAX_CROSSING: usize = 100_000;

/// The network between nodes without links.
#[derive(Debug, Default)]
pub struct Backbone {
    crossing: VecDeque<(Instant, NodeId, Vec<u8>)>,
    severed: BTreeSet<(NodeId, NodeId)>,
}

impl Backbone {
    /// Sends a packet.
    pub fn push(&mut self, now: Instant, from: NodeId, to: NodeId, packet: Vec<u8>) {
        if !self.severed.contains(&pair(from, to)) && self.crossing.len() < MAX_CROSSING {
            self.crossing.push_back((now + DELAY, to, packet));
        }
    }

    /// Returns the next packet to arrive, with its receiver.
    pub fn pop(&mut self) -> Option<(NodeId, Vec<u8>)> {
        self.crossing
            .pop_front()
            .map(|(_, to, packet)| (to, packet))
    }

    /// The arrival of the next packet.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.crossing.front().map(|(at, ..)| *at)
    }

    /// Drops all packets between two nodes.
    pub fn sever(&mut self, one: NodeId, other: NodeId) {
        self.severed.insert(pair(one, other));
    }

    /// Reconnects two nodes.
    pub fn join(&mut self, one: NodeId, other: NodeId) {
        self.severed.remove(&pair(one, other));
    }

    /// Reconnects all nodes.
    pub fn heal(&mut self) {
        self.severed.clear();
    }
}

fn pair(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
    (one.min(other), one.max(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId(0), NodeId(1), NodeId(2)];

    #[test]
    fn packets_arrive_in_order_but_not_where_it_is_severed() {
        let [a, b, c] = NODES;
        let mut backbone = Backbone::default();
        backbone.sever(b, a);
        for (number, (from, to)) in [(a, b), (a, c), (b, a), (c, a)].into_iter().enumerate() {
            backbone.push(Instant::ZERO, from, to, vec![number as u8]);
        }
        assert_eq!(backbone.poll_timeout(), Some(Instant::ZERO + DELAY));
        assert_eq!(backbone.pop(), Some((c, vec![1])));
        assert_eq!(backbone.pop(), Some((a, vec![3])));
        assert_eq!(backbone.pop(), None);
        backbone.join(a, b);
        backbone.push(Instant::ZERO, a, b, vec![4]);
        assert_eq!(backbone.pop(), Some((b, vec![4])));
    }

    #[test]
    fn the_backbone_is_bounded() {
        let mut backbone = Backbone::default();
        for _ in 0..=MAX_CROSSING {
            backbone.push(Instant::ZERO, NODES[0], NODES[1], Vec::new());
        }
        assert_eq!(backbone.crossing.len(), MAX_CROSSING);
    }
}
