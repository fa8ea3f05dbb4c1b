//! Which of many numbered connections have something to send, and when the others must be looked
//! at: so that a packet costs the same however many there are.
//!
//! In: numbers that something has happened to, and their deadlines. Out: the next to be asked.

use std::collections::{BTreeMap, VecDeque};

use crate::time::Instant;

/// What is known of one number.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// It stands in the queue of those that may have something to send.
    ready: bool,
    /// Under which it stands among the deadlines.
    wake: Option<Instant>,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Rota {
    entries: Vec<Entry>,
    ready: VecDeque<usize>,
    deadlines: BTreeMap<(Instant, usize), &'static str>,
}

impl Rota {
    /// Something has happened to `number`: it may have something to send.
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

    /// The first that may have something to send.
    pub(super) fn first(&self) -> Option<usize> {
        self.ready.front().copied()
    }

    /// The first has nothing more to send before `deadline`.
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

    /// The next whose deadline has come.
    pub(super) fn due(&mut self, now: Instant) -> Option<usize> {
        let first = self.deadlines.first_entry();
        let ((_, number), _) = first.filter(|first| first.key().0 <= now)?.remove_entry();
        if let Some(entry) = self.entries.get_mut(number) {
            entry.wake = None;
        }
        Some(number)
    }

    /// The first deadline.
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
