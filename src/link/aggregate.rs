//! Aggregation behind the wire: packets leave in bursts, as Wi-Fi and LTE deliver them.
//!
//! In: packets in the order in which the wire has sent them, each with the end of its transmission.
//! Out: bursts with their instants. Intervals follow one another from the start of the clock; a burst
//! leaves at the end of the interval in which its first packet was sent, or with the packet that
//! completes it.

use std::time::Duration;

use super::config::Aggregation;
use super::queue::Waiting;
use crate::time::{Instant, micros};

/// Packets that leave the wire together.
#[derive(Debug)]
pub(super) struct Burst {
    pub(super) leaves: Instant,
    pub(super) packets: Vec<Waiting>,
}

/// The burst that packets wait for.
#[derive(Debug, Default)]
pub(super) struct Aggregator {
    held: Vec<Waiting>,
    bytes: usize,
    closes: Instant,
}

impl Aggregator {
    /// The number of packets that wait.
    pub(super) const fn len(&self) -> usize {
        self.held.len()
    }

    /// The bytes of the packets that wait.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The instant at which the waiting packets leave, unless their number sends them earlier.
    pub(super) fn closes(&self) -> Option<Instant> {
        (!self.held.is_empty()).then_some(self.closes)
    }

    /// Adds a packet sent at `end`; returns the burst that it completes, if any. Call `take_due`
    /// with `end` before.
    pub(super) fn add(
        &mut self,
        end: Instant,
        packet: Waiting,
        aggregation: Aggregation,
    ) -> Option<Burst> {
        if self.held.is_empty() {
            self.closes = aggregation.end_of_interval(end);
        }
        self.bytes += packet.packet.len();
        self.held.push(packet);
        (self.held.len() >= aggregation.packets).then(|| self.take(end))
    }

    /// Returns the burst that leaves by `now`, if any.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Burst> {
        let closes = self.closes().filter(|closes| *closes <= now)?;
        Some(self.take(closes))
    }

    /// Returns the burst that leaves by `now`, or with a packet at `now` which does not wait.
    pub(super) fn take_before(&mut self, now: Instant) -> Option<Burst> {
        let closes = self.closes()?;
        Some(self.take(closes.min(now)))
    }

    fn take(&mut self, leaves: Instant) -> Burst {
        self.bytes = 0;
        Burst {
            leaves,
            packets: core::mem::take(&mut self.held),
        }
    }
}

impl Aggregation {
    /// Returns the end of the interval that contains `at`; an instant between two intervals belongs
    /// to the later one.
    pub(super) fn end_of_interval(self, at: Instant) -> Instant {
        // Not zero: see LinkConfig::validate.
        let interval = micros(self.interval).max(1);
        at + Duration::from_micros(interval - at.as_micros() % interval)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::link::config::{LinkConfig, MAX_AGGREGATION, MAX_BURST_PACKETS};
    use crate::link::{Chance, Link, MAX_PACKETS};

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn link(interval_us: u64, packets: usize) -> LinkConfig {
        LinkConfig {
            delay: Duration::from_micros(500),
            aggregate: Some(Aggregation {
                interval: Duration::from_micros(interval_us),
                packets,
            }),
            ..LinkConfig::default()
        }
    }

    /// Pushes packets of 100 bytes at the given times; returns the times of their arrivals, in order
    /// of the pushes.
    fn arrivals(link: &mut Link, pushes: &[u64]) -> Vec<u64> {
        let mut times = Vec::new();
        let mut until = |link: &mut Link, end: Instant| {
            while let Some(next) = link.poll_timeout().filter(|next| *next <= end) {
                while let Some(packet) = link.pop(next) {
                    assert_eq!(usize::from(packet[0]), times.len(), "packets stay in order");
                    times.push(next.as_micros());
                }
            }
        };
        for (number, push) in (0..).zip(pushes) {
            until(link, at(*push));
            link.push(at(*push), vec![number; 100]);
        }
        until(link, at(u64::MAX));
        times
    }

    #[test]
    fn packets_wait_for_the_end_of_the_interval() {
        let mut link = Link::new(link(1000, 64), 1).unwrap();
        let got = arrivals(&mut link, &[0, 400, 999, 1000, 1700, 5300]);
        assert_eq!(got, [1500, 1500, 1500, 2500, 2500, 6500]);
        let counters = link.counters();
        assert_eq!((counters.bursts, counters.largest_burst), (3, 3));
    }

    #[test]
    fn a_full_burst_leaves_with_its_last_packet() {
        let mut link = Link::new(link(1000, 3), 1).unwrap();
        let got = arrivals(&mut link, &[0, 100, 200, 300, 400]);
        assert_eq!(got, [700, 700, 700, 1500, 1500]);
        assert_eq!(link.counters().largest_burst, 3);
    }

    #[test]
    fn packets_wait_behind_the_rate() {
        // Each packet takes 400 µs; the fourth is sent at 1600.
        let config = LinkConfig {
            rate: Some(2_000_000),
            queue_bytes: 400,
            ..link(1000, 64)
        };
        let mut link = Link::new(config, 1).unwrap();
        let got = arrivals(&mut link, &[0, 0, 0, 0, 0]);
        assert_eq!(got, [1500, 1500, 2500, 2500]);
        assert_eq!(
            link.counters().queue,
            1,
            "the queue drops as without bursts"
        );
        assert_eq!(link.sojourn().summary().max_us, 1200);
    }

    #[test]
    fn the_largest_burst_and_the_longest_interval() {
        let longest = micros(MAX_AGGREGATION);
        let mut link = Link::new(link(longest, MAX_BURST_PACKETS), 1).unwrap();
        for _ in 1..MAX_BURST_PACKETS {
            link.push(at(0), vec![0; 1]);
        }
        assert_eq!(link.poll_timeout(), Some(at(longest + 500)));
        assert_eq!(link.occupancy().in_flight_packets, MAX_BURST_PACKETS - 1);
        link.push(at(7), vec![0; 1]);
        assert_eq!(link.poll_timeout(), Some(at(507)));
        assert_eq!(link.counters().bursts, 1);
    }

    #[test]
    fn waiting_packets_count_towards_the_bound_of_the_link() {
        let config = LinkConfig {
            delay: Duration::from_secs(10),
            ..link(1_000_000, MAX_BURST_PACKETS)
        };
        let mut link = Link::new(config, 1).unwrap();
        for _ in 0..MAX_PACKETS - 1 {
            link.push(at(0), vec![0; 1]);
        }
        assert_eq!(link.counters().overflow, 0);
        assert_eq!(link.aggregator.len(), MAX_BURST_PACKETS - 1);
        link.push(at(1_000_000), vec![0; 1]);
        link.push(at(1_000_000), vec![0; 1]);
        assert_eq!(link.counters().overflow, 1);
        assert_eq!(link.occupancy().in_flight_packets, MAX_PACKETS);
    }

    #[test]
    fn a_change_neither_loses_nor_reorders_packets_that_wait() {
        for later in [None, Some(10), Some(5000)] {
            let mut link = Link::new(link(1000, 64), 1).unwrap();
            link.push(at(0), vec![0; 100]);
            let config = LinkConfig {
                aggregate: later.map(|micros| Aggregation {
                    interval: Duration::from_micros(micros),
                    packets: 64,
                }),
                ..link.config().clone()
            };
            link.reconfigure(config).unwrap();
            link.push(at(200), vec![1; 100]);
            let last = if later.is_none() { 700 } else { 1500 };
            let mut got = Vec::new();
            while let Some(next) = link.poll_timeout() {
                let packets = core::iter::from_fn(|| link.pop(next));
                got.extend(packets.map(|packet| (packet[0], next.as_micros())));
            }
            assert_eq!(got, [(0, last), (1, last)], "{later:?}");
        }
    }

    proptest! {
        /// A packet leaves no earlier than without aggregation, and less than an interval later.
        #[test]
        fn no_packet_waits_longer_than_an_interval(
            pauses in prop::collection::vec(0u64..900, 1..60),
            interval in 1u64..5000,
            packets in 1usize..20,
            rate in prop::option::of(500_000u64..50_000_000),
        ) {
            let mut pushes = pauses;
            pushes.iter_mut().fold(0, |sum, push| { *push += sum; *push });
            let config = LinkConfig { rate, queue_bytes: 1 << 20, ..link(interval, packets) };
            let plain = LinkConfig { aggregate: None, ..config.clone() };
            let sent = arrivals(&mut Link::new(plain, 1).unwrap(), &pushes);
            let mut link = Link::new(config, 1).unwrap();
            let got = arrivals(&mut link, &pushes);
            prop_assert_eq!(got.len(), sent.len());
            for (got, sent) in got.iter().zip(&sent) {
                prop_assert!((*sent..=sent + interval).contains(got), "{} of {}", got, sent);
            }
            let largest = got.chunk_by(|one, other| one == other).map(<[u64]>::len).max();
            prop_assert!(link.counters().largest_burst <= u64::try_from(packets).unwrap());
            prop_assert!(largest >= usize::try_from(link.counters().largest_burst).ok());
        }

        #[test]
        fn each_packet_is_delivered_or_counted(seed: u64, packets in 1usize..9) {
            let third = Chance::from_percent(30);
            let config = LinkConfig {
                rate: Some(5_000_000),
                queue_bytes: 900,
                jitter: Duration::from_micros(700),
                jitter_reorders: seed % 2 == 0,
                duplicate: third,
                replay: third,
                loss: third,
                ..link(1300, packets)
            };
            let mut link = Link::new(config, seed).unwrap();
            for n in 0..200 {
                link.push(at(n * 70), vec![0; 100]);
            }
            let held = link.occupancy();
            let held = u64::try_from(held.queued_packets + held.in_flight_packets).unwrap();
            let made = |counters: crate::link::LinkCounters| {
                counters.pushed + counters.duplicated + counters.replayed - counters.dropped()
            };
            prop_assert_eq!(made(link.counters()), held);
            while let Some(next) = link.poll_timeout() {
                while link.pop(next).is_some() {}
            }
            prop_assert_eq!(link.counters().popped, made(link.counters()));
        }
    }
}
