//! Of many numbered connections, those that may have something to send, and the deadlines of the
//! others: the cost of a packet does not depend on their number.
//!
//! In: numbers with an event, and their deadlines. Out: the next one to poll.

use std::collections::{BTreeMap, VecDeque};

use crate::time::Instant;

/// The state of a number.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Whether it is in the queue of ready numbers.
    ready: bool,
    /// Its key among the deadlines.
    wake: Option<Instant>,
}

/// The queue and the deadlines; see the head of this file.
#[derive(Debug, Default)]
pub(super) struct Rota {
    entries: Vec<Entry>,
    ready: VecDeque<usize>,
    deadlines: BTreeMap<(Instant, usize), &'static str>,
}

impl Rota {
    /// Records an event of `number`: it may have something to send.
    pub(super) fn note(&mut self, number: usize) {
        if number >= self.entries.len() {
            self.entries.resize(number + 1, Entry::default());
        }
        if let Some(entry) = self.entries.get_mut(number)
            && !core::mem::replace(&mut entry.ready, true)
        {
            self.ready.push_back(number);
        }
    }

    /// The first number that may have something to send.
    pub(super) fn first(&self) -> Option<usize> {
        self.ready.front().copied()
    }

    /// Records that the first number has nothing to send before `deadline`.
    pub(super) fn settle(&mut self, deadline: Option<(Instant, &'static str)>) {
        let Some(number) = self.ready.pop_front() else {
            return;
        };
        let Some(entry) = self.entries.get_mut(number) else {
            return;
        };
        entry.ready = false;
        if let Some(at) = entry.wake.take() {
            self.deadlines.remove(&(at, number));
        }
        if let Some((at, reason)) = deadline {
            entry.wake = Some(at);
            self.deadlines.insert((at, number), reason);
        }
    }

    /// Takes the next number whose deadline has passed.
    pub(super) fn due(&mut self, now: Instant) -> Option<usize> {
        let first = self.deadlines.first_entry();
        let ((_, number), _) = first.filter(|first| first.key().0 <= now)?.remove_entry();
        if let Some(entry) = self.entries.get_mut(number) {
            entry.wake = None;
        }
        Some(number)
    }

    /// The earliest deadline.
    pub(super) fn next_at(&self) -> Option<(Instant, &'static str)> {
        let first = self.deadlines.first_key_value();
        first.map(|(&(at, _), reason)| (at, *reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_once_in_the_queue_and_once_among_the_deadlines() {
        let at = Instant::from_micros;
        let mut rota = Rota::default();
        for number in [3, 1, 3] {
            rota.note(number);
        }
        assert_eq!(rota.first(), Some(3));
        rota.settle(Some((at(20), "late")));
        assert_eq!(rota.first(), Some(1));
        rota.settle(Some((at(30), "later")));
        assert_eq!(
            (rota.first(), rota.next_at()),
            (None, Some((at(20), "late")))
        );
        rota.note(3);
        rota.settle(Some((at(40), "latest")));
        assert_eq!((rota.due(at(29)), rota.due(at(30))), (None, Some(1)));
        assert_eq!(rota.next_at(), Some((at(40), "latest")));
        rota.note(3);
        rota.settle(None);
        assert_eq!((rota.due(at(100)), rota.next_at()), (None, None));
    }
}
