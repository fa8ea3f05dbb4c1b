//! The deadlines of many things, in the order of time.
//!
//! In: keys and the times at which they must be looked at. Out: the keys that are due. A key may be
//! due too early but never too late: a deadline that moves away costs nothing, and its owner asks
//! again for the rest of the time.

use std::collections::BTreeSet;

use super::Instant;

/// Deadlines by key. Each owner holds the slot of its key, which is `None` while it has no deadline.
#[derive(Debug)]
pub struct Deadlines<K>(BTreeSet<(Instant, K)>);

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    /// Makes `key` due at `at` or earlier.
    pub fn at_latest(&mut self, slot: &mut Option<Instant>, key: K, at: Instant) {
        if slot.is_some_and(|due| due <= at) {
            return;
        }
        self.cancel(slot, key);
        self.0.insert((at, key));
        *slot = Some(at);
    }

    /// Removes the deadline of `key`.
    pub fn cancel(&mut self, slot: &mut Option<Instant>, key: K) {
        if let Some(due) = slot.take() {
            self.0.remove(&(due, key));
        }
    }

    /// The earliest deadline.
    #[must_use]
    pub fn earliest(&self) -> Option<Instant> {
        self.0.first().map(|&(due, _)| due)
    }

    /// Removes and returns a key that is due; its owner must clear the slot.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let &(due, _) = self.0.first()?;
        if due > now {
            return None;
        }
        self.0.pop_first().map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_due_too_late() {
        let at = Instant::from_micros;
        let mut deadlines = Deadlines::default();
        let (mut a, mut b) = (None, None);
        deadlines.at_latest(&mut a, 'a', at(50));
        deadlines.at_latest(&mut b, 'b', at(40));
        deadlines.at_latest(&mut a, 'a', at(90));
        assert_eq!((a, deadlines.earliest()), (Some(at(50)), Some(at(40))));
        deadlines.at_latest(&mut a, 'a', at(10));
        assert_eq!(deadlines.pop_due(at(9)), None);
        assert_eq!(deadlines.pop_due(at(10)), Some('a'));
        deadlines.cancel(&mut b, 'b');
        assert_eq!((b, deadlines.earliest()), (None, None));
    }
}
