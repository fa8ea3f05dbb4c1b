//! One direction of an emulated link, without I/O: packets and time in, packets out.
//!
//! Each packet passes, in this order: outages, loss (independent, then in bursts), damage, the
//! queue (drop tail, ECN marking, CoDel), serialization at the rate or by a trace, aggregation into bursts, and
//! the delay with jitter, reordering, duplication and replay. The same configuration, seed and calls give the same packets
//! at the same microseconds; nothing here reads a clock. `sim` and `runtime` drive it: call
//! `poll_timeout` after each `push`, and drain `pop` at that instant. A step costs O(1), and O(log
//! n) in the packets on the link if they overtake each other.

mod aggregate;
mod codel;
mod config;
mod counters;
mod damage;
pub mod path;
mod queue;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod trace;
mod trace_file;
mod transit;
pub mod units;

use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

pub use config::{
    Aggregation, BurstLoss, Chance, Codel, LinkConfig, LinkConfigError, MAX_AGGREGATION,
    MAX_BURST_PACKETS, MAX_DELAY, MAX_OUTAGES, MAX_QUEUE_BYTES, MAX_RATE, Outage,
};
pub use counters::LinkCounters;

pub use crate::histogram::{Histogram, Summary};

use crate::time::{Instant, micros};
use aggregate::{Aggregator, Burst};
use queue::{Departure, Queue, Waiting};
use transit::Transit;

/// Most packets on one link, queued or in flight: twice 1 Gb/s for 1 s in full packets. Further
/// packets are dropped as [`LinkCounters::overflow`].
pub const MAX_PACKETS: usize = 1 << 17;

/// Most bytes on one link, should packets be longer than usual: half a gigabyte.
pub const MAX_BYTES: usize = 1 << 29;

/// Packets kept for replay. A new packet sometimes replaces a random one, so replays are of all
/// ages.
pub const MAX_REMEMBERED: usize = 64;

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    rng: Xoshiro256PlusPlus,
    queue: Queue,
    in_burst: bool,
    aggregator: Aggregator,
    in_flight: Transit,
    last_arrival: Instant,
    remembered: Vec<Vec<u8>>,
    counters: LinkCounters,
    sojourn: Histogram,
}

/// The packets on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Occupancy {
    /// Packets in the queue.
    pub queued_packets: usize,
    /// Bytes in the queue.
    pub queued_bytes: usize,
    /// Packets being serialized, aggregated or delayed.
    pub in_flight_packets: usize,
}

impl Link {
    /// Creates an empty link; `seed` feeds its faults.
    ///
    /// # Errors
    /// [`LinkConfigError`] if the configuration exceeds a bound.
    pub fn new(config: LinkConfig, seed: u64) -> Result<Self, LinkConfigError> {
        config.validate()?;
        Ok(Self {
            config,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            queue: Queue::default(),
            in_burst: false,
            aggregator: Aggregator::default(),
            in_flight: Transit::default(),
            last_arrival: Instant::ZERO,
            remembered: Vec::new(),
            counters: LinkCounters::default(),
            sojourn: Histogram::default(),
        })
    }

    /// The running configuration.
    #[must_use]
    pub const fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Changes the configuration. Faults apply to later packets, rate and delay also to queued
    /// ones. Packets in flight arrive as scheduled, and are overtaken only where jitter may
    /// reorder; packets that wait for a burst leave with it, or before the next packet if
    /// aggregation ends.
    ///
    /// # Errors
    /// [`LinkConfigError`] if the configuration exceeds a bound; the link is then unchanged.
    pub fn reconfigure(&mut self, config: LinkConfig) -> Result<(), LinkConfigError> {
        config.validate()?;
        self.in_burst = false;
        self.queue.reconfigure(&self.config, &config);
        self.config = config;
        Ok(())
    }

    /// The counters since the start, or the last reset.
    #[must_use]
    pub const fn counters(&self) -> LinkCounters {
        self.counters
    }

    /// The sojourn times in the queue.
    #[must_use]
    pub const fn sojourn(&self) -> &Histogram {
        &self.sojourn
    }

    /// The packets on the link, as of the last call.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            queued_packets: self.queue.len(),
            queued_bytes: self.queue.bytes(),
            in_flight_packets: self.aggregator.len() + self.in_flight.len(),
        }
    }

    /// Resets the counters and the histogram of sojourn times. Packets stay on the link.
    pub fn reset(&mut self) {
        self.counters = LinkCounters::default();
        self.sojourn.clear();
    }

    /// Accepts one IP packet. `now` must not go backwards.
    pub fn push(&mut self, now: Instant, mut packet: Vec<u8>) {
        self.counters.pushed += 1;
        self.counters.pushed_bytes += length(&packet);
        self.depart(now);
        if !self.survives(now) {
            return;
        }
        self.replay(now);
        self.remember(&packet);
        if self.happens(self.config.corrupt) && damage::corrupt(&mut packet, &mut self.rng) {
            self.counters.corrupted += 1;
        }
        if self.is_full(packet.len()) {
            self.counters.overflow += 1;
        } else if self.admits(now, &mut packet) {
            let waiting = self.draw(now, packet);
            self.queue.push(waiting);
            self.depart(now);
        } else {
            self.counters.queue += 1;
        }
    }

    /// Returns the next packet that has arrived by `now`, if any.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.pop_early(now, Duration::ZERO)
    }

    /// Returns the next packet that arrives within `early` after `now`, if any, which saves the
    /// driver a wake-up.
    pub fn pop_early(&mut self, now: Instant, early: Duration) -> Option<Vec<u8>> {
        self.depart(now);
        if self.in_flight.next_arrival()? > now + early {
            return None;
        }
        let packet = self.in_flight.pop()?;
        self.counters.popped += 1;
        self.counters.popped_bytes += length(&packet);
        Some(packet)
    }

    /// The earliest arrival of a packet on the link, if any. Exact, except where packets overtake
    /// queued ones, one was popped early, the number of packets may complete a burst, or CoDel drops
    /// a packet that waits for a trace: then it may be too early, and `pop` returns `None`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let leaves = [self.aggregator.closes(), self.next_queued()];
        let arrivals = leaves.into_iter().flatten().map(|leaves| {
            let arrival = leaves + self.config.delay;
            if self.config.jitter_reorders || self.config.reorder != Chance::NEVER {
                return arrival;
            }
            arrival.max(self.last_arrival)
        });
        arrivals.chain(self.in_flight.next_arrival()).min()
    }

    /// The earliest instant at which a queued packet may begin its propagation.
    fn next_queued(&self) -> Option<Instant> {
        let sent = self.queue.next_end(&self.config)?;
        let may_wait = self.aggregator.len() + self.queue.len();
        let aggregation = self.config.aggregate;
        let aggregation = aggregation.filter(|aggregation| may_wait < aggregation.packets);
        Some(aggregation.map_or(sent, |aggregation| aggregation.end_of_interval(sent)))
    }

    fn happens(&mut self, chance: Chance) -> bool {
        // A disabled fault draws nothing, since most links disable most faults.
        chance != Chance::NEVER && self.rng.random_ratio(chance.ppm(), 1_000_000)
    }

    fn survives(&mut self, now: Instant) -> bool {
        let covers = |outage: &Outage| outage.from <= now && now < outage.until;
        if self.config.outages.iter().any(covers) {
            self.counters.outage += 1;
            return false;
        }
        if self.happens(self.config.loss) {
            self.counters.lost += 1;
            return false;
        }
        if let Some(burst) = self.config.burst {
            let turn = if self.in_burst {
                burst.leave
            } else {
                burst.enter
            };
            self.in_burst ^= self.happens(turn);
            if self.in_burst && self.happens(burst.loss) {
                self.counters.burst += 1;
                return false;
            }
        }
        true
    }

    fn is_full(&self, len: usize) -> bool {
        let sent = self.aggregator.len() + self.in_flight.len();
        let sent_bytes = self.aggregator.bytes() + self.in_flight.bytes();
        self.queue.len() + sent >= MAX_PACKETS || self.queue.bytes() + sent_bytes + len > MAX_BYTES
    }

    /// Whether the queue admits the packet, and may mark it.
    fn admits(&mut self, now: Instant, packet: &mut [u8]) -> bool {
        if !self.config.has_queue() {
            return true;
        }
        let backlog = self.queue.backlog(now);
        if backlog > 0 && backlog + packet.len() > self.config.queue_bytes {
            return false;
        }
        if self.config.mark_bytes.is_some_and(|limit| backlog >= limit) && damage::mark_ce(packet) {
            self.counters.marked += 1;
        }
        true
    }

    /// Draws the faults of a packet after the queue.
    fn draw(&mut self, since: Instant, packet: Vec<u8>) -> Waiting {
        let mut extra = self.up_to(self.config.jitter);
        let held = self.happens(self.config.reorder);
        if held {
            self.counters.reordered += 1;
            extra += self.up_to(self.config.reorder_delay);
        }
        Waiting {
            since,
            packet,
            extra,
            held,
            twice: self.happens(self.config.duplicate),
        }
    }

    /// Moves packets from the queue to the wire, up to `now`.
    fn depart(&mut self, now: Instant) {
        while let Some(departure) = self.queue.depart(now, &self.config) {
            let Departure::Sent {
                waiting,
                start,
                end,
                marked,
            } = departure
            else {
                self.counters.codel += 1;
                continue;
            };
            self.counters.marked += u64::from(marked);
            self.sojourn.record(start.saturating_since(waiting.since));
            self.aggregate(end, waiting);
        }
        let due = self.aggregator.take_due(now);
        self.release(due);
    }

    /// Has a packet that was sent at `end` wait for its burst, if packets leave in bursts.
    fn aggregate(&mut self, end: Instant, waiting: Waiting) {
        if let Some(aggregation) = self.config.aggregate {
            let due = self.aggregator.take_due(end);
            self.release(due);
            let complete = self.aggregator.add(end, waiting, aggregation);
            self.release(complete);
        } else {
            // Aggregation may have ended while packets waited.
            let earlier = self.aggregator.take_before(end);
            self.release(earlier);
            self.propagate(end, waiting);
        }
    }

    fn release(&mut self, burst: Option<Burst>) {
        let Some(Burst { leaves, packets }) = burst else {
            return;
        };
        let size = u64::try_from(packets.len()).unwrap_or(u64::MAX);
        self.counters.bursts += 1;
        self.counters.largest_burst = self.counters.largest_burst.max(size);
        for packet in packets {
            self.propagate(leaves, packet);
        }
    }

    /// Puts a packet on its way, and its duplicate.
    fn propagate(&mut self, leaves: Instant, waiting: Waiting) {
        let arrival = self.arrival(leaves, waiting.extra, waiting.held);
        let copy = waiting.twice.then(|| waiting.packet.clone());
        self.in_flight.push(arrival, waiting.packet);
        if let Some(copy) = copy {
            if self.is_full(copy.len()) {
                self.counters.overflow += 1;
            } else {
                self.counters.duplicated += 1;
                self.in_flight.push(arrival, copy);
            }
        }
    }

    fn arrival(&mut self, sent: Instant, extra: u32, held: bool) -> Instant {
        let arrival = sent + self.config.delay + Duration::from_micros(u64::from(extra));
        if held || self.config.jitter_reorders {
            return arrival;
        }
        self.last_arrival = self.last_arrival.max(arrival);
        self.last_arrival
    }

    /// Draws uniformly up to `longest`, in microseconds.
    fn up_to(&mut self, longest: Duration) -> u32 {
        if longest.is_zero() {
            return 0;
        }
        let drawn = self.rng.random_range(0..=micros(longest));
        // MAX_DELAY is far below 2^32 µs.
        u32::try_from(drawn).unwrap_or(u32::MAX)
    }

    fn replay(&mut self, now: Instant) {
        if self.remembered.is_empty() || !self.happens(self.config.replay) {
            return;
        }
        if self.is_full(0) {
            self.counters.overflow += 1;
            return;
        }
        let index = self.rng.random_range(0..self.remembered.len());
        if let Some(packet) = self.remembered.get(index) {
            self.counters.replayed += 1;
            self.in_flight.push(now + self.config.delay, packet.clone());
        }
    }

    fn remember(&mut self, packet: &[u8]) {
        if self.config.replay == Chance::NEVER {
            return;
        }
        if self.remembered.len() < MAX_REMEMBERED {
            self.remembered.push(packet.to_vec());
        } else if self.rng.random_ratio(1, 8) {
            let index = self.rng.random_range(0..MAX_REMEMBERED);
            if let Some(slot) = self.remembered.get_mut(index) {
                slot.clear();
                slot.extend_from_slice(packet);
            }
        }
    }
}

fn length(packet: &[u8]) -> u64 {
    u64::try_from(packet.len()).unwrap_or(u64::MAX)
}
