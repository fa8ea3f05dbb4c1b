//! The flights that wait until a socket is writable again.
//!
//! In: flights with the number of bytes already sent. Out: the same, in order, for another write. At
//! most [`MAX_WAITING_FLIGHTS`] wait.

use std::collections::VecDeque;

use crate::wire::flight::Flight;

/// Most flights that wait for one socket: 4 MiB if all are of the largest size.
pub(super) const MAX_WAITING_FLIGHTS: usize = 64;

/// A flight with the number of its bytes that are sent.
#[derive(Debug)]
struct Waiting {
    flight: Flight,
    sent: usize,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct SendQueue(VecDeque<Waiting>);

impl SendQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends a flight of which `sent` bytes are sent; returns whether there was room.
    pub(super) fn push(&mut self, flight: &Flight, sent: usize) -> bool {
        let room = self.0.len() < MAX_WAITING_FLIGHTS;
        if room {
            let flight = flight.clone();
            self.0.push_back(Waiting { flight, sent });
        }
        room
    }

    /// Passes flights to `write` until it returns the number of bytes that the socket has taken, because
    /// the socket is full again.
    pub(super) fn flush(&mut self, mut write: impl FnMut(&Flight, usize) -> Option<usize>) {
        while let Some(first) = self.0.front_mut() {
            match write(&first.flight, first.sent) {
                Some(sent) => {
                    first.sent = sent;
                    return;
                }
                None => drop(self.0.pop_front()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::flight::{Ecn, sample_path};

    #[test]
    fn flights_leave_in_order_from_their_first_unsent_byte() {
        let mut queue = SendQueue::default();
        for n in 0..MAX_WAITING_FLIGHTS {
            let flight = Flight::single(sample_path(false), Ecn::Ect0, vec![0; n + 1]);
            assert!(queue.push(&flight, 0), "{n}");
        }
        let further = Flight::single(sample_path(false), Ecn::Ect0, vec![0; 1]);
        assert!(!queue.push(&further, 0), "beyond the bound");
        let mut written = Vec::new();
        queue.flush(|flight, sent| {
            written.push((flight.payload.len(), sent));
            (flight.payload.len() == 2).then_some(1)
        });
        assert_eq!(written, [(1, 0), (2, 0)]);
        assert!(queue.push(&further, 0), "one has left");
        written.clear();
        queue.flush(|flight, sent| {
            written.push((flight.payload.len(), sent));
            None
        });
        let mut want: Vec<_> = (2..=MAX_WAITING_FLIGHTS).map(|len| (len, 0)).collect();
        want[0].1 = 1;
        want.push((1, 0));
        assert_eq!(written, want);
        assert!(queue.is_empty());
    }
}
