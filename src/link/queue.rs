//! What waits for the wire of a link, first in first out, and when the wire is free.
//!
//! In: packets with the time of their coming. Out: each with the instants between which it is on
//! the wire. What becomes of a packet is decided when the wire takes it, not when it comes: a
//! change of the rate holds for everything that waits. Serialization times are exact: what a
//! microsecond cannot hold is carried to the next packet.

use std::collections::VecDeque;
use std::time::Duration;

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

/// A packet that the wire took.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) waiting: Waiting,
    /// First bit on the wire.
    pub(super) start: Instant,
    /// Last bit on the wire.
    pub(super) end: Instant,
}

/// The queue and the near end of the wire.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    /// Bytes in `waiting`.
    bytes: usize,
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
        self.waiting.push_back(waiting);
    }

    /// When the wire can take the next packet, if one waits.
    pub(super) fn next_start(&self) -> Option<Instant> {
        self.waiting
            .front()
            .map(|first| first.since.max(self.free_at))
    }

    /// The next packet that the wire takes by `now`, if any. Without a rate the wire is always
    /// free.
    pub(super) fn depart(&mut self, now: Instant, rate: Option<u64>) -> Option<Departure> {
        let start = self.next_start().filter(|start| *start <= now)?;
        let waiting = self.waiting.pop_front()?;
        self.bytes -= waiting.packet.len();
        if self.free_at < start {
            self.free_at = start;
            self.remainder = 0;
        }
        self.serialize(waiting.packet.len(), rate);
        Some(Departure {
            waiting,
            start,
            end: self.free_at,
        })
    }

    /// Forgets the part of a microsecond, whose unit a change of the rate takes away.
    pub(super) const fn change_rate(&mut self) {
        self.remainder = 0;
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
