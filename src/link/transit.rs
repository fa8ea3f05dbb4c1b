//! Packets in flight behind the wire, in order of arrival.
//!
//! Most links keep the order, so most packets are appended to a queue, in constant time; packets
//! that overtake or are overtaken go to a heap. Together they yield the order of arrival, then of
//! age.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::time::Instant;

/// A packet in flight; ordered by arrival, then by age.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    arrival: Instant,
    sequence: u64,
    packet: Vec<u8>,
}

impl InFlight {
    const fn key(&self) -> (Instant, u64) {
        (self.arrival, self.sequence)
    }
}

/// The packets in flight.
#[derive(Debug, Default)]
pub(super) struct Transit {
    /// In order of arrival, then of age.
    line: VecDeque<InFlight>,
    strays: BinaryHeap<Reverse<InFlight>>,
    sequence: u64,
    bytes: usize,
}

impl Transit {
    pub(super) fn len(&self) -> usize {
        self.line.len() + self.strays.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, arrival: Instant, packet: Vec<u8>) {
        self.bytes += packet.len();
        let in_flight = InFlight {
            arrival,
            sequence: self.sequence,
            packet,
        };
        self.sequence += 1;
        if self.line.back().is_none_or(|last| last.arrival <= arrival) {
            self.line.push_back(in_flight);
        } else {
            self.strays.push(Reverse(in_flight));
        }
    }

    /// The arrival of the first packet.
    pub(super) fn next_arrival(&self) -> Option<Instant> {
        let stray = self
            .strays
            .peek()
            .map(|Reverse(in_flight)| in_flight.arrival);
        let first = self.line.front().map(|in_flight| in_flight.arrival);
        stray.into_iter().chain(first).min()
    }

    /// Removes the packet that arrives first.
    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        let stray = self.strays.peek().map(|Reverse(in_flight)| in_flight.key());
        let first = self.line.front().map(InFlight::key);
        let strays_first = stray.is_some_and(|stray| first.is_none_or(|first| stray < first));
        let in_flight = if strays_first {
            self.strays.pop().map(|Reverse(in_flight)| in_flight)
        } else {
            self.line.pop_front()
        };
        let packet = in_flight?.packet;
        self.bytes -= packet.len();
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn order_is_by_arrival_then_by_age(
            steps in prop::collection::vec(prop::option::weighted(0.6, 0u64..20), 0..200),
        ) {
            let (mut transit, mut model) = (Transit::default(), Vec::new());
            for (age, step) in (0..).zip(steps) {
                if let Some(arrival) = step {
                    let packet = vec![age; usize::from(age)];
                    transit.push(Instant::from_micros(arrival), packet.clone());
                    model.push((arrival, age, packet));
                } else {
                    model.sort();
                    let want = (!model.is_empty()).then(|| model.remove(0));
                    let next = transit.next_arrival().map(Instant::as_micros);
                    prop_assert_eq!(next, want.as_ref().map(|want| want.0));
                    prop_assert_eq!(transit.pop(), want.map(|want| want.2));
                }
                prop_assert_eq!(transit.len(), model.len());
                let bytes: usize = model.iter().map(|(_, _, packet)| packet.len()).sum();
                prop_assert_eq!(transit.bytes(), bytes);
            }
        }
    }
}
