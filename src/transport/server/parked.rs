//! Requests that wait until the application can answer them.
//!
//! In: requests that were judged and found genuine, each with the ticket of the work that it waits for.
//! Out: the same requests, once the work is done. The queue has a fixed size and may be lost: the client
//! of a lost request asks again. It holds only requests from proven addresses, one for each flight.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::transport::application::Ticket;
use crate::wire::flight::UdpPath;

/// Most requests that wait; the oldest gives way.
pub const MAX_PARKED: usize = 65_536;

/// Most bytes of requests that wait; the oldest give way.
pub const MAX_PARKED_BYTES: usize = 32 << 20;

/// Largest request that may wait, in bytes; the client of a larger one asks again.
pub const MAX_PARKED_REQUEST_BYTES: usize = 2048;

/// Most finished tickets whose requests are still to be answered; the clients of further ones ask
/// again.
const MAX_READY: usize = 1024;

/// The flight that a request releases: the connection, by its proof key, and the first number.
pub(super) type FlightKey = (u64, u64);

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) path: UdpPath,
    pub(super) datagram: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    parked: Parked,
    flight: FlightKey,
    ticket: Ticket,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct ParkedRequests {
    /// In the order of their coming.
    entries: BTreeMap<u64, Entry>,
    by_flight: BTreeMap<FlightKey, u64>,
    by_ticket: BTreeSet<(Ticket, u64)>,
    bytes: usize,
    next: u64,
    /// Tickets that are done, and the requests that came before.
    ready: VecDeque<(Ticket, u64)>,
}

impl ParkedRequests {
    /// The number of requests that wait.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The bytes of the requests that wait.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Parks a request until `ticket` is done, in place of an earlier one for the same flight. Returns
    /// whether it is short enough to be parked.
    pub(super) fn park(&mut self, flight: FlightKey, ticket: Ticket, parked: Parked) -> bool {
        let bytes = parked.datagram.len();
        if bytes > MAX_PARKED_REQUEST_BYTES {
            return false;
        }
        if let Some(&old) = self.by_flight.get(&flight) {
            self.remove(old);
        }
        while self.entries.len() >= MAX_PARKED || self.bytes + bytes > MAX_PARKED_BYTES {
            let Some((&oldest, _)) = self.entries.first_key_value() else {
                break;
            };
            self.remove(oldest);
        }
        let place = self.next;
        self.next += 1;
        self.bytes += bytes;
        self.by_flight.insert(flight, place);
        self.by_ticket.insert((ticket, place));
        self.entries.insert(
            place,
            Entry {
                parked,
                flight,
                ticket,
            },
        );
        true
    }

    /// Takes note that the work of a ticket is done.
    pub(super) fn wake(&mut self, ticket: Ticket) {
        let waits = self.by_ticket.range((ticket, 0)..=(ticket, u64::MAX));
        if waits.clone().next().is_some() && self.ready.len() < MAX_READY {
            self.ready.push_back((ticket, self.next));
        }
    }

    /// Takes out the next request that can be answered. One that is parked again under its ticket comes
    /// with the next `wake` only.
    pub(super) fn pop_ready(&mut self) -> Option<Parked> {
        while let Some(&(ticket, end)) = self.ready.front() {
            let mut waits = self.by_ticket.range((ticket, 0)..(ticket, end));
            if let Some(&(_, place)) = waits.next() {
                return self.remove(place).map(|entry| entry.parked);
            }
            self.ready.pop_front();
        }
        None
    }

    fn remove(&mut self, place: u64) -> Option<Entry> {
        let entry = self.entries.remove(&place)?;
        self.by_flight.remove(&entry.flight);
        self.by_ticket.remove(&(entry.ticket, place));
        self.bytes -= entry.parked.datagram.len();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    fn request(bytes: usize) -> Parked {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        Parked {
            path: UdpPath {
                src: address,
                dst: address,
            },
            datagram: vec![7; bytes],
        }
    }

    #[test]
    fn requests_come_back_in_order_once_their_work_is_done() {
        let mut parked = ParkedRequests::default();
        for (flight, ticket, bytes) in [(1, 5, 10), (2, 6, 20), (3, 5, 30)] {
            assert!(parked.park((9, flight), Ticket(ticket), request(bytes)));
        }
        assert_eq!(parked.pop_ready(), None);
        parked.wake(Ticket(7));
        assert_eq!(parked.pop_ready(), None, "nobody waits for it");
        parked.wake(Ticket(5));
        assert_eq!(parked.pop_ready(), Some(request(10)));
        assert!(parked.park((9, 1), Ticket(5), request(10)), "again");
        assert_eq!(parked.pop_ready(), Some(request(30)));
        assert_eq!(parked.pop_ready(), None, "parked after its ticket was done");
        assert_eq!((parked.len(), parked.bytes()), (2, 30));
    }

    #[test]
    fn a_flight_waits_once() {
        let mut parked = ParkedRequests::default();
        assert!(parked.park((9, 1), Ticket(5), request(10)));
        assert!(parked.park((9, 1), Ticket(6), request(20)));
        assert_eq!((parked.len(), parked.bytes()), (1, 20));
        parked.wake(Ticket(5));
        assert_eq!(parked.pop_ready(), None);
        parked.wake(Ticket(6));
        assert_eq!(parked.pop_ready(), Some(request(20)));
        assert_eq!(parked.bytes(), 0);
    }

    #[test]
    fn the_oldest_gives_way_at_the_bounds() {
        let mut parked = ParkedRequests::default();
        let most = MAX_PARKED as u64;
        for flight in 0..most {
            parked.park((9, flight), Ticket(flight), request(1));
        }
        assert_eq!(parked.len(), MAX_PARKED);
        parked.park((9, most), Ticket(most), request(1));
        assert_eq!(parked.len(), MAX_PARKED);
        parked.wake(Ticket(0));
        assert_eq!(parked.pop_ready(), None, "the oldest is gone");
        parked.wake(Ticket(1));
        assert!(parked.pop_ready().is_some());

        let mut parked = ParkedRequests::default();
        let most = MAX_PARKED_BYTES / MAX_PARKED_REQUEST_BYTES;
        for flight in 0..=most as u64 {
            assert!(parked.park((9, flight), Ticket(0), request(MAX_PARKED_REQUEST_BYTES)));
        }
        assert_eq!((parked.len(), parked.bytes()), (most, MAX_PARKED_BYTES));
        let larger = request(MAX_PARKED_REQUEST_BYTES + 1);
        assert!(!parked.park((8, 1), Ticket(0), larger));
    }

    #[test]
    fn finished_tickets_are_bounded() {
        let mut parked = ParkedRequests::default();
        for ticket in 0..=MAX_READY as u64 {
            parked.park((9, ticket), Ticket(ticket), request(1));
            parked.wake(Ticket(ticket));
        }
        assert_eq!(parked.ready.len(), MAX_READY);
        let answered = std::iter::from_fn(|| parked.pop_ready()).count();
        assert_eq!((answered, parked.len()), (MAX_READY, 1));
    }
}
