//! What waits for the wire of a link, first in first out, and when the wire is free.
//!
//! In: packets with the time of their coming. Out: each with the instants between which it is on
//! the wire. What becomes of a packet is decided when the wire takes it, not when it comes: a
//! change of the rate holds for everything that waits, and CoDel, where it is asked for, sees how
//! long each has waited. Serialization times are exact: what a microsecond cannot hold is carried
//! to the next packet.

use std::collections::VecDeque;
use std::time::Duration;

use super::codel;
use super::config::LinkConfig;
use super::damage;
use crate::time::Instant;

/// A packet in the queue, and what was drawn for it when it came.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) since: Instant,
    pub(super) packet: Vec<u8>,
    /// Delay beyond that of the link, in microseconds: twice `MAX_DELAY` at the most.
    pub(super) extra: u32,
    /// It may be overtaken.
    pub(super) held: bool,
    /// It arrives twice.
    pub(super) twice: bool,
}

/// What became of a packet at the head of the queue.
#[derive(Debug)]
pub(super) enum Departure {
    /// The wire took it.
    Sent {
        waiting: Waiting,
        /// First bit on the wire.
        start: Instant,
        /// Last bit on the wire.
        end: Instant,
        /// It got the mark CE here.
        marked: bool,
    },
    /// CoDel dropped it.
    Dropped,
}

/// The queue and the near end of the wire.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    /// Bytes in `waiting`.
    bytes: usize,
    /// Bytes of the longest packet that ever waited.
    longest: usize,
    codel: codel::CodelState,
    /// Bytes of the last packet that the wire took.
    on_wire: usize,
    free_at: Instant,
    /// Part of a microsecond after `free_at`, in units of 1/rate.
    remainder: u64,
}

impl Queue {
    /// Packets that the wire has not taken.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes that the wire has not taken.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes not yet on the far side of the wire.
    pub(super) fn backlog(&self, now: Instant) -> usize {
        let on_wire = if self.free_at > now { self.on_wire } else { 0 };
        self.bytes + on_wire
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.packet.len();
        self.longest = self.longest.max(waiting.packet.len());
        self.waiting.push_back(waiting);
    }

    /// When the wire can take the next packet, if one waits.
    pub(super) fn next_start(&self) -> Option<Instant> {
        self.waiting
            .front()
            .map(|first| first.since.max(self.free_at))
    }

    /// What becomes of the next packet that the wire could take by `now`, if any. Without a rate
    /// the wire is always free. Decisions must not be late: ask before each `push`.
    pub(super) fn depart(&mut self, now: Instant, config: &LinkConfig) -> Option<Departure> {
        let start = self.next_start().filter(|start| *start <= now)?;
        let mut waiting = self.waiting.pop_front()?;
        self.bytes -= waiting.packet.len();
        let sojourn = start.saturating_since(waiting.since);
        let room = (self.bytes, self.longest);
        let managed = config.codel.filter(|_| config.rate.is_some());
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
        self.serialize(waiting.packet.len(), config.rate);
        Some(Departure::Sent {
            waiting,
            start,
            end: self.free_at,
            marked,
        })
    }

    /// Forgets the part of a microsecond, whose unit a change of the rate takes away, and what
    /// CoDel had seen, if that changes.
    pub(super) fn reconfigure(&mut self, from: &LinkConfig, to: &LinkConfig) {
        self.remainder = 0;
        if from.codel != to.codel {
            self.codel = codel::CodelState::default();
        }
    }

    fn serialize(&mut self, len: usize, rate: Option<u64>) {
        self.on_wire = len;
        let Some(rate) = rate else { return };
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
