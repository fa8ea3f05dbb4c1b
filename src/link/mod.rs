//! One direction of an emulated link, without I/O: packets and time in, packets out.
//!
//! Each packet passes, in this order: outages, loss (independent, then in bursts), damage, the
//! queue (drop tail, ECN marking), serialization at the rate, and the delay with jitter,
//! reordering, duplication and replay. The same configuration, seed and calls give the same
//! packets at the same microseconds; nothing here reads a clock. `sim` and emulating loops drive
//! it: after each `push`, ask `poll_timeout`; when that instant has come, drain `pop`. A step costs
//! O(log n) in the packets on the link.

mod config;
mod damage;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

pub use config::{
    BurstLoss, Chance, ConfigError, LinkConfig, MAX_DELAY, MAX_OUTAGES, MAX_QUEUE_BYTES, MAX_RATE,
    Outage,
};

use crate::time::{Instant, micros};

/// Most packets on one link, queued or in flight: twice 1 Gb/s for 1 s in full packets. Beyond it
/// packets are dropped as [`LinkCounters::overflow`].
pub const MAX_PACKETS: usize = 1 << 17;

/// Packets remembered for replay. Each new packet takes the place of a random one now and then, so
/// that replays are of all ages.
pub const MAX_REMEMBERED: usize = 64;

/// What a link has done; all monotonic. What was pushed, duplicated and replayed has been dropped,
/// popped, or is still on the link; only refused copies count in `overflow` alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Packets that came in.
    pub pushed: u64,
    /// Packets that came out.
    pub popped: u64,
    /// Dropped in an outage.
    pub outage: u64,
    /// Dropped by independent loss.
    pub lost: u64,
    /// Dropped in a burst of losses.
    pub burst: u64,
    /// Dropped because the queue was full.
    pub queue: u64,
    /// Dropped because [`MAX_PACKETS`] were on the link; copies that were not made count too.
    pub overflow: u64,
    /// Marked CE.
    pub marked: u64,
    /// Damaged.
    pub corrupted: u64,
    /// Held back.
    pub reordered: u64,
    /// Second copies made.
    pub duplicated: u64,
    /// Old packets sent once more.
    pub replayed: u64,
}

impl LinkCounters {
    /// Packets dropped, for whatever cause.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.outage + self.lost + self.burst + self.queue + self.overflow
    }
}

impl core::ops::AddAssign for LinkCounters {
    fn add_assign(&mut self, other: Self) {
        self.pushed += other.pushed;
        self.popped += other.popped;
        self.outage += other.outage;
        self.lost += other.lost;
        self.burst += other.burst;
        self.queue += other.queue;
        self.overflow += other.overflow;
        self.marked += other.marked;
        self.corrupted += other.corrupted;
        self.reordered += other.reordered;
        self.duplicated += other.duplicated;
        self.replayed += other.replayed;
    }
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    rng: Xoshiro256PlusPlus,
    queue: Queue,
    in_burst: bool,
    flying: BinaryHeap<Reverse<Flying>>,
    sequence: u64,
    last_arrival: Instant,
    remembered: Vec<Vec<u8>>,
    counters: LinkCounters,
}

impl Link {
    /// An empty link; `seed` feeds its faults.
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration breaks a bound.
    pub fn new(config: LinkConfig, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            config,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            queue: Queue::default(),
            in_burst: false,
            flying: BinaryHeap::new(),
            sequence: 0,
            last_arrival: Instant::ZERO,
            remembered: Vec::new(),
            counters: LinkCounters::default(),
        })
    }

    /// The configuration in force.
    #[must_use]
    pub const fn config(&self) -> &LinkConfig {
        &self.config
    }

    /// Changes the link for packets still to come; those on it arrive as they would have.
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration breaks a bound; nothing changes then.
    pub fn reconfigure(&mut self, config: LinkConfig) -> Result<(), ConfigError> {
        config.validate()?;
        self.in_burst = false;
        self.queue.remainder = 0;
        self.config = config;
        Ok(())
    }

    /// What has happened since the start.
    #[must_use]
    pub const fn counters(&self) -> LinkCounters {
        self.counters
    }

    /// Takes one IP packet. `now` must not go backwards.
    pub fn push(&mut self, now: Instant, mut packet: Vec<u8>) {
        self.counters.pushed += 1;
        if !self.survives(now) {
            return;
        }
        self.replay(now);
        self.remember(&packet);
        if self.happens(self.config.corrupt) && damage::corrupt(&mut packet, &mut self.rng) {
            self.counters.corrupted += 1;
        }
        if self.flying.len() >= MAX_PACKETS {
            self.counters.overflow += 1;
            return;
        }
        let Some(sent) = self.enqueue(now, &mut packet) else {
            self.counters.queue += 1;
            return;
        };
        let arrival = self.arrival(sent);
        let copy = self.happens(self.config.duplicate).then(|| packet.clone());
        self.fly(arrival, packet);
        if let Some(copy) = copy {
            if self.flying.len() >= MAX_PACKETS {
                self.counters.overflow += 1;
            } else {
                self.counters.duplicated += 1;
                self.fly(arrival, copy);
            }
        }
    }

    /// The next packet that has arrived by `now`, if any.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.poll_timeout()? > now {
            return None;
        }
        self.counters.popped += 1;
        self.flying.pop().map(|Reverse(flying)| flying.packet)
    }

    /// When the next packet arrives, if one is on the link.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.flying.peek().map(|Reverse(flying)| flying.arrival)
    }

    fn happens(&mut self, chance: Chance) -> bool {
        // A fault that is off draws nothing, since most links have most faults off.
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

    /// When the packet will have left the queue, or `None` if the queue is full.
    fn enqueue(&mut self, now: Instant, packet: &mut [u8]) -> Option<Instant> {
        let Some(rate) = self.config.rate else {
            return Some(now);
        };
        let waiting = self.queue.bytes(now);
        if waiting > 0 && waiting + packet.len() > self.config.queue_bytes {
            return None;
        }
        if self.config.mark_bytes.is_some_and(|limit| waiting >= limit) && damage::mark_ce(packet) {
            self.counters.marked += 1;
        }
        Some(self.queue.send(now, packet.len(), rate))
    }

    fn arrival(&mut self, sent: Instant) -> Instant {
        let jitter = self.up_to(self.config.jitter);
        let arrival = sent + self.config.delay + jitter;
        if self.happens(self.config.reorder) {
            self.counters.reordered += 1;
            return arrival + self.up_to(self.config.reorder_delay);
        }
        if self.config.jitter_reorders {
            return arrival;
        }
        self.last_arrival = self.last_arrival.max(arrival);
        self.last_arrival
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        if longest.is_zero() {
            return Duration::ZERO;
        }
        Duration::from_micros(self.rng.random_range(0..=micros(longest)))
    }

    fn fly(&mut self, arrival: Instant, packet: Vec<u8>) {
        self.flying.push(Reverse(Flying {
            arrival,
            sequence: self.sequence,
            packet,
        }));
        self.sequence += 1;
    }

    fn replay(&mut self, now: Instant) {
        if self.remembered.is_empty() || !self.happens(self.config.replay) {
            return;
        }
        if self.flying.len() >= MAX_PACKETS {
            self.counters.overflow += 1;
            return;
        }
        let index = self.rng.random_range(0..self.remembered.len());
        if let Some(packet) = self.remembered.get(index) {
            let packet = packet.clone();
            self.counters.replayed += 1;
            self.fly(now + self.config.delay, packet);
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

/// A packet on its way; ordered by arrival, then by age.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    arrival: Instant,
    sequence: u64,
    packet: Vec<u8>,
}

/// What waits for the wire: the end of serialization and the length of each packet. Serialization
/// times are exact: what a microsecond cannot hold is carried to the next packet.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Instant, usize)>,
    bytes: usize,
    free_at: Instant,
    /// Part of a microsecond after `free_at`, in units of 1/rate.
    remainder: u64,
}

impl Queue {
    /// Bytes not yet on the far side of the wire.
    fn bytes(&mut self, now: Instant) -> usize {
        while let Some(&(done, len)) = self.waiting.front() {
            if done > now {
                break;
            }
            self.bytes -= len;
            self.waiting.pop_front();
        }
        self.bytes
    }

    fn send(&mut self, now: Instant, len: usize, rate: u64) -> Instant {
        if self.free_at < now {
            self.free_at = now;
            self.remainder = 0;
        }
        // IP packets are below 2^17 bytes, and `remainder` is below MAX_RATE: no saturation.
        let bits = u64::try_from(len)
            .unwrap_or(u64::from(u32::MAX))
            .saturating_mul(8);
        let total = bits
            .saturating_mul(1_000_000)
            .saturating_add(self.remainder);
        self.free_at += Duration::from_micros(total / rate);
        self.remainder = total % rate;
        self.waiting.push_back((self.free_at, len));
        self.bytes += len;
        self.free_at
    }
}
