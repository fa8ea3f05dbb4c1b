//! A sliding replay window over the sequence numbers of one sender.
//!
//! In: authenticated sequence numbers. Out: whether each is new. The bits form a ring of words of
//! which one is always being refilled, so that the window moves without shifting.
//! Source: RFC 6479.

/// Words of the ring.
const WORDS: usize = 33;

/// Distance below the newest number from which an old one counts as seen.
pub const MAX_LATE: u64 = (WORDS as u64 - 1) * 64;

/// The sequence numbers seen of one sender.
#[derive(Clone, Debug)]
pub struct Window {
    newest: u64,
    seen: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self {
            newest: 0,
            seen: [0; WORDS],
        }
    }
}

impl Window {
    /// Whether `sequence` is new; marks it as seen. 0 is never new.
    pub fn admit(&mut self, sequence: u64) -> bool {
        if sequence == 0 {
            return false;
        }
        if sequence > self.newest {
            let stale = (sequence / 64 - self.newest / 64).min(WORDS as u64);
            for step in 0..stale {
                if let Some(word) = self.word(sequence / 64 - step) {
                    *word = 0;
                }
            }
            self.newest = sequence;
        } else if self.newest - sequence >= MAX_LATE {
            return false;
        }
        let bit = 1 << (sequence % 64);
        self.word(sequence / 64).is_some_and(|word| {
            let new = *word & bit == 0;
            *word |= bit;
            new
        })
    }

    fn word(&mut self, index: u64) -> Option<&mut u64> {
        self.seen
            .get_mut(usize::try_from(index % WORDS as u64).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_window_ends_where_it_should() {
        let newest = 1_000_000;
        for (late, admitted) in [(1, true), (MAX_LATE - 1, true), (MAX_LATE, false)] {
            let mut window = Window::default();
            assert!(window.admit(newest));
            assert_eq!(window.admit(newest - late), admitted, "{late}");
            assert!(!window.admit(newest - late), "seen or too old");
        }
        assert!(!Window::default().admit(0));
    }

    proptest! {
        #[test]
        fn nothing_is_admitted_twice_and_nothing_new_refused(
            start in 1..u64::MAX / 2,
            steps in prop::collection::vec((0..5000_u64, any::<bool>()), 1..400),
        ) {
            let (mut window, mut seen, mut newest) = (Window::default(), BTreeSet::new(), 0);
            let mut at = start;
            for (step, back) in steps {
                at = if back { at.saturating_sub(step).max(1) } else { at + step };
                let fresh = seen.insert(at) && (at > newest || newest - at < MAX_LATE);
                newest = newest.max(at);
                prop_assert_eq!(window.admit(at), fresh);
            }
        }
    }
}
