//! Flights that leave in pieces: one request for many packets is small beside them, but a queue that is
//! nearly full drops a burst of them.
//!
//! In: flights, each with the time over which its client wants it to leave. Out: the same datagrams, in
//! pieces, when they are due. Holds datagrams, not connections, for [`MAX_SPREAD`] at the longest; a flight that
//! does not fit [`MAX_SPREAD_BYTES`] leaves at once, and datagrams lost with a process were on their way.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Instant;
use crate::wire::flight::{Flight, departure, piece};

/// Longest time over which a flight is spread; longer requests are taken for this.
pub const MAX_SPREAD: Duration = Duration::from_millis(20);

/// Most bytes of datagrams that wait for their time.
pub const MAX_SPREAD_BYTES: usize = 16 << 20;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct SpreadQueue {
    /// By the time at which they leave, in the order of their coming.
    pieces: BTreeMap<(Instant, u64), Flight>,
    bytes: usize,
    next: u64,
}

impl SpreadQueue {
    /// Takes a flight; returns the part of it that leaves at once.
    pub fn push(&mut self, now: Instant, mut flight: Flight) -> Flight {
        let spread = core::mem::take(&mut flight.spread).min(MAX_SPREAD);
        let count = u32::try_from(flight.count()).unwrap_or(u32::MAX);
        let size = piece(count, spread);
        let fits = self.bytes + flight.payload.len() <= MAX_SPREAD_BYTES;
        if spread.is_zero() || count <= size || !fits {
            return flight;
        }
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        for (index, datagram) in (0..count).zip(flight.datagrams()) {
            match pieces.last_mut() {
                Some(last) if index % size != 0 => last.extend_from_slice(&datagram),
                Some(_) | None => pieces.push(datagram.into_owned()),
            }
        }
        let mut indices = (0..count).step_by(usize::try_from(size).unwrap_or(usize::MAX));
        let mut pieces = pieces.into_iter();
        let first = pieces.next().unwrap_or_default();
        indices.next();
        for (index, payload) in indices.zip(pieces) {
            self.bytes += payload.len();
            let piece = Flight {
                payload: payload.into(),
                ..flight
            };
            let leaves = now + departure(index, count, spread);
            self.pieces.insert((leaves, self.next), piece);
            self.next += 1;
        }
        Flight {
            payload: first.into(),
            ..flight
        }
    }

    /// The next piece that is due.
    pub fn pop(&mut self, now: Instant) -> Option<Flight> {
        let entry = self
            .pieces
            .first_entry()
            .filter(|entry| entry.key().0 <= now)?;
        let piece = entry.remove();
        self.bytes -= piece.payload.len();
        Some(piece)
    }

    /// When the next piece leaves.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pieces.first_key_value().map(|(&(at, _), _)| at)
    }

    /// The bytes that wait, at most [`MAX_SPREAD_BYTES`].
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::flight::{Ecn, sample_path};

    /// A flight of `count` datagrams of 100 bytes, each filled with its index, and a last of 50.
    fn flight(count: u8, spread_us: u64) -> Flight {
        let mut payload: Vec<u8> = (0..count).flat_map(|index| [index; 100]).collect();
        payload.truncate(usize::from(count) * 100 - 50);
        Flight {
            path: sample_path(false),
            ecn: Ecn::Ect0,
            segment: 100,
            spread: Duration::from_micros(spread_us),
            payload: payload.into(),
        }
    }

    fn datagrams(flight: &Flight) -> Vec<Vec<u8>> {
        flight
            .datagrams()
            .map(|datagram| datagram.to_vec())
            .collect()
    }

    const START: Instant = Instant::from_micros(1_000_000);

    /// Counts of datagrams, and when they leave, in microseconds.
    fn leaves(count: u8, spread_us: u64) -> Vec<(u64, usize)> {
        let mut queue = SpreadQueue::default();
        let whole = flight(count, spread_us);
        let first = queue.push(START, whole.clone());
        let (mut leaves, mut sent) = (vec![(0, first.count())], datagrams(&first));
        while let Some(at) = queue.poll_timeout() {
            assert_eq!(queue.pop(at.max(START) - Duration::from_micros(1)), None);
            let piece = queue.pop(at).unwrap();
            leaves.push((
                (at.saturating_since(START)).as_micros() as u64,
                piece.count(),
            ));
            sent.extend(datagrams(&piece));
        }
        assert_eq!((sent, queue.bytes()), (datagrams(&whole), 0));
        leaves
    }

    #[test]
    fn pieces_take_half_a_millisecond_or_are_single_datagrams() {
        for (name, count, spread_us, want) in [
            ("at once", 8, 0, vec![(0, 8)]),
            ("one piece", 8, 500, vec![(0, 8)]),
            ("two", 8, 1000, vec![(0, 4), (500, 4)]),
            ("a shorter last", 5, 1250, vec![(0, 2), (500, 2), (1000, 1)]),
            ("single ones", 3, 6000, vec![(0, 1), (2000, 1), (4000, 1)]),
            ("the longest", 2, 1_000_000, vec![(0, 1), (10_000, 1)]),
        ] {
            assert_eq!(leaves(count, spread_us), want, "{name}");
        }
    }

    #[test]
    fn flights_take_turns() {
        let mut queue = SpreadQueue::default();
        queue.push(START, flight(4, 1000));
        queue.push(START + Duration::from_micros(250), flight(6, 750));
        let mut order = Vec::new();
        while let Some(at) = queue.poll_timeout() {
            let piece = queue.pop(at).unwrap();
            order.push((
                at.saturating_since(START).as_micros(),
                datagrams(&piece)[0][0],
            ));
        }
        assert_eq!(order, [(500, 2), (750, 4)]);
    }

    #[test]
    fn what_does_not_fit_leaves_at_once() {
        let mut queue = SpreadQueue::default();
        let large = |bytes: usize| Flight {
            segment: bytes / 4,
            payload: vec![0; bytes].into(),
            ..flight(4, 1000)
        };
        assert_eq!(queue.push(START, large(MAX_SPREAD_BYTES)).count(), 2);
        assert_eq!(queue.bytes(), MAX_SPREAD_BYTES / 2);
        assert_eq!(
            queue.push(START, large(MAX_SPREAD_BYTES / 2)).count(),
            2,
            "at the bound"
        );
        let left = MAX_SPREAD_BYTES - queue.bytes();
        assert_eq!(queue.push(START, large(left + 4)).count(), 4, "past it");
        assert!(queue.bytes() <= MAX_SPREAD_BYTES);
    }
}
