//! All that the engine hands to its user: datagrams to send, events, and counters.
//!
//! In: the products of the connection. Out: `poll_transmit`, `poll_event` and the statistics of
//! [`Client`](super::Client). Nothing here decides anything.

use std::collections::VecDeque;

use crate::time::Instant;
use crate::transport::client::path::Path;
use crate::transport::client::{ClientEvent, ClientStats};
use crate::wire::flight::{Ecn, Flight, UdpPath};

/// Most datagrams that wait to be polled.
const MAX_OUTBOX: usize = 64;

/// Most events that wait to be polled; `Readable` is not queued twice.
const MAX_EVENTS: usize = 64;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    datagrams: VecDeque<Flight>,
    events: VecDeque<ClientEvent>,
    pub(super) stats: ClientStats,
    /// When nothing was left that could be sent; `None` if something may be.
    pub(super) filled_at: Option<Instant>,
    /// When to look again for something to send (pacing, delayed acknowledgement, gates).
    pub(super) send_timer: Option<(Instant, &'static str)>,
}

impl Outbox {
    /// Takes a datagram to be sent on `path`, and to a spare address of the service if it does not answer.
    pub(super) fn send(&mut self, now: Instant, path: &mut Path, datagram: Vec<u8>) {
        path.sent(now);
        self.stats.packets_out += 1;
        self.stats.bytes_out += u64::try_from(datagram.len()).unwrap_or(0);
        if let Some(spare) = path.beside() {
            self.stats.packets_out += 1;
            self.stats.bytes_out += u64::try_from(datagram.len()).unwrap_or(0);
            let copy = Flight::single(spare, Ecn::NotEct, datagram.clone());
            self.datagrams.push_back(copy);
        }
        let flight = Flight::single(path.addresses(), Ecn::NotEct, datagram);
        self.datagrams.push_back(flight);
    }

    /// Takes a copy of a request for a spare address.
    pub(super) fn send_copy(&mut self, spare: UdpPath, datagram: Vec<u8>) {
        self.stats.copies += 1;
        self.stats.packets_out += 1;
        self.stats.bytes_out += u64::try_from(datagram.len()).unwrap_or(0);
        let flight = Flight::single(spare, Ecn::NotEct, datagram);
        self.datagrams.push_back(flight);
    }

    /// Whether further datagrams must wait until some are polled.
    pub(super) fn is_full(&self) -> bool {
        self.datagrams.len() >= MAX_OUTBOX
    }

    /// Whether no datagram waits to be polled.
    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// The next datagram.
    pub(super) fn poll_transmit(&mut self) -> Option<Flight> {
        self.datagrams.pop_front()
    }

    /// Takes an event for the user.
    pub(super) fn event(&mut self, event: ClientEvent) {
        let repeated = event == ClientEvent::Readable && self.events.contains(&event);
        if !repeated && self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }

    /// The next event.
    pub(super) fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }
}
