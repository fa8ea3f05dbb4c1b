//! The queue before a link's wire, first in first out, and the wire's next idle instant.
//!
//! In: packets with their arrival times. Out: each with the instants of its serialization. The fate
//! of a packet is decided when the wire takes it, not on arrival: a change of rate applies to all
//! queued packets, and CoDel, if configured, sees how long each has waited. Serialization times are
//! exact: fractions of a microsecond carry over to the next packet.

use std::collections::VecDeque;
use std::time::Duration;

use super::codel;
use super::config::LinkConfig;
use super::damage;
use super::trace::Opportunities;
use crate::time::Instant;

/// A queued packet with the faults drawn on its arrival.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) since: Instant,
    pub(super) packet: Vec<u8>,
    /// Delay in addition to the link's, in microseconds: at most twice `MAX_DELAY`.
    pub(super) extra: u32,
    /// Other packets may overtake it.
    pub(super) held: bool,
    /// It arrives twice.
    pub(super) twice: bool,
}

/// The fate of the packet at the head of the queue.
#[derive(Debug)]
pub(super) enum Departure {
    /// The wire has taken it.
    Sent {
        waiting: Waiting,
        /// First bit on the wire.
        start: Instant,
        /// Last bit on the wire.
        end: Instant,
        /// It was marked CE here.
        marked: bool,
    },
    /// CoDel dropped it.
    Dropped,
}

/// The queue and the sending end of the wire.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    /// Bytes in the queue.
    bytes: usize,
    /// Bytes of the longest packet ever queued.
    longest: usize,
    codel: codel::CodelState,
    /// Bytes of the packet last taken by the wire.
    on_wire: usize,
    free_at: Instant,
    /// Fraction of a microsecond after `free_at`, in units of 1/rate.
    remainder: u64,
    /// Those of the trace, if the rate follows one.
    opportunities: Opportunities,
}

impl Queue {
    /// The number of queued packets.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The number of queued bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes queued or being serialized.
    pub(super) fn backlog(&self, now: Instant) -> usize {
        let on_wire = if self.free_at > now { self.on_wire } else { 0 };
        self.bytes + on_wire
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.packet.len();
        self.longest = self.longest.max(waiting.packet.len());
        self.waiting.push_back(waiting);
    }

    /// The instant at which the wire can take the next queued packet, if any.
    pub(super) fn next_start(&self, config: &LinkConfig) -> Option<Instant> {
        let idle = self.waiting.front()?.since.max(self.free_at);
        Some(match &config.trace {
            Some(trace) => self.opportunities.start(trace, idle),
            None => idle,
        })
    }

    /// The instant from which the next queued packet may have left the wire, if any: exact for a
    /// trace, unless CoDel drops the packet. At a rate, its predecessor leaves at that instant.
    pub(super) fn next_end(&self, config: &LinkConfig) -> Option<Instant> {
        let start = self.next_start(config)?;
        let Some(trace) = &config.trace else {
            return Some(start);
        };
        let len = self.waiting.front()?.packet.len();
        let mut opportunities = self.opportunities;
        Some(opportunities.send(trace, start, len))
    }

    /// Decides the fate of the next packet that the wire can take by `now`, if any. Without a rate
    /// the wire is always free. Decisions must not be late: call it before each `push`.
    pub(super) fn depart(&mut self, now: Instant, config: &LinkConfig) -> Option<Departure> {
        let start = self.next_start(config).filter(|start| *start <= now)?;
        let mut waiting = self.waiting.pop_front()?;
        self.bytes -= waiting.packet.len();
        let sojourn = start.saturating_since(waiting.since);
        let room = (self.bytes, self.longest);
        let managed = config.codel.filter(|_| config.has_queue());
        let mut marked = false;
        if managed.is_some_and(|codel| self.codel.signals(codel, start, sojourn, room)) {
            marked = damage::mark_ce(&mut waiting.packet);
            if !marked && !damage::is_ce(&waiting.packet) {
                return Some(Departure::Dropped);
            }
        }
        if self.free_at < start {
            self.free_at = start;
            self.remainder = 0;
        }
        self.serialize(waiting.packet.len(), config);
        Some(Departure::Sent {
            waiting,
            start,
            end: self.free_at,
            marked,
        })
    }

    /// Drops the fraction of a microsecond, whose unit changes with the rate, and the states of
    /// CoDel and of the trace if these change.
    pub(super) fn reconfigure(&mut self, from: &LinkConfig, to: &LinkConfig) {
        self.remainder = 0;
        if from.codel != to.codel {
            self.codel = codel::CodelState::default();
        }
        if from.trace != to.trace {
            self.opportunities = Opportunities::default();
        }
    }

    fn serialize(&mut self, len: usize, config: &LinkConfig) {
        self.on_wire = len;
        if let Some(trace) = &config.trace {
            self.free_at = self.opportunities.send(trace, self.free_at, len);
        }
        let Some(rate) = config.rate else { return };
        // IP packets are below 2^17 bytes, and `remainder` is below MAX_RATE: no saturation.
        let bits = u64::try_from(len)
            .unwrap_or(u64::from(u32::MAX))
            .saturating_mul(8);
        let total = bits
            .saturating_mul(1_000_000)
            .saturating_add(self.remainder);
        self.free_at += Duration::from_micros(total / rate);
        self.remainder = total % rate;
    }
}
