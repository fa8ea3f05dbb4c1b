//! A set of packet numbers, stored as disjoint ranges.
//!
//! In: spans, in any order and overlapping. Out: whether a whole span is in the set, and if not,
//! the first missing number. Memory grows with the number of gaps only.

use std::collections::BTreeMap;

use crate::wire::segment::Span;

/// A set of packet numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Start and exclusive end; disjoint and not adjacent.
    stretches: BTreeMap<u64, u64>,
}

impl Numbers {
    /// Adds every number of the span; returns whether any was new.
    pub(super) fn insert(&mut self, span: Span) -> bool {
        if span.is_empty() || self.first_missing(span).is_none() {
            return false;
        }
        let (mut start, mut end) = (span.start, span.end);
        while let Some((&from, &upto)) = self.stretches.range(..=end).next_back() {
            if upto < start {
                break;
            }
            self.stretches.remove(&from);
            start = start.min(from);
            end = end.max(upto);
        }
        self.stretches.insert(start, end);
        true
    }

    /// Returns the first number of the span that is not in the set.
    pub(super) fn first_missing(&self, span: Span) -> Option<u64> {
        if span.is_empty() {
            return None;
        }
        match self.stretches.range(..=span.start).next_back() {
            Some((_, &upto)) if upto >= span.end => None,
            Some((_, &upto)) if upto > span.start => Some(upto),
            Some(_) | None => Some(span.start),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(
            spans in prop::collection::vec((0u64..60, 0u64..12), 0..40),
            ask in (0u64..60, 0u64..30),
        ) {
            let (mut numbers, mut plain) = (Numbers::default(), BTreeSet::new());
            for (start, length) in spans {
                let before = plain.len();
                plain.extend(start..start + length);
                let grew = numbers.insert(Span { start, end: start + length });
                prop_assert_eq!(grew, plain.len() > before);
            }
            let span = Span { start: ask.0, end: ask.0 + ask.1 };
            let want = (span.start..span.end).find(|number| !plain.contains(number));
            prop_assert_eq!(numbers.first_missing(span), want);
            let stretches: Vec<_> = numbers.stretches.into_iter().collect();
            prop_assert!(stretches.is_sorted_by(|a, b| a.1 < b.0));
        }
    }
}
