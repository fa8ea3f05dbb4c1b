//! A set of numbers or byte offsets, kept as disjoint spans in ascending order.

use std::collections::BTreeMap;

use crate::wire::segment::Span;

/// Disjoint, non-adjacent spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SpanSet {
    /// Start of each span to its end (excluded).
    spans: BTreeMap<u64, u64>,
    total: u64,
}

impl SpanSet {
    /// How many numbers the set holds.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// How many spans it is made of.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = Span> {
        self.spans.iter().map(|(&start, &end)| Span { start, end })
    }

    pub(super) fn first(&self) -> Option<Span> {
        self.iter().next()
    }

    pub(super) fn clear(&mut self) {
        self.spans.clear();
        self.total = 0;
    }

    /// The span that holds `at`, if any.
    pub(super) fn span_at(&self, at: u64) -> Option<Span> {
        let (&start, &end) = self.spans.range(..=at).next_back()?;
        (at < end).then_some(Span { start, end })
    }

    /// Adds a span, and returns how many numbers of it were new.
    pub(super) fn insert(&mut self, span: Span) -> u64 {
        if span.is_empty() {
            return 0;
        }
        if let Some(mut last) = self.spans.last_entry()
            && *last.get() == span.start
        {
            // Bytes in order make the last span longer.
            *last.get_mut() = span.end;
            self.total += span.len();
            return span.len();
        }
        let before = self.total;
        let Span { mut start, mut end } = span;
        if let Some((&left, &left_end)) = self.spans.range(..=start).next_back()
            && left_end >= start
        {
            if left_end >= end {
                return 0;
            }
            start = left;
        }
        while let Some((&next, &next_end)) = self.spans.range(start..).next()
            && next <= end
        {
            end = end.max(next_end);
            self.total -= next_end - next;
            self.spans.remove(&next);
        }
        self.spans.insert(start, end);
        self.total += end - start;
        self.total - before
    }

    /// Takes a span away.
    pub(super) fn remove(&mut self, span: Span) {
        if span.is_empty() || self.spans.is_empty() {
            return;
        }
        let mut at = self
            .span_at(span.start)
            .map_or(span.start, |first| first.start);
        while at < span.end
            && let Some((&start, &end)) = self.spans.range(at..span.end).next()
        {
            at = end;
            self.spans.remove(&start);
            self.total -= end - start;
            for rest in [
                Span {
                    start,
                    end: span.start,
                },
                Span {
                    start: span.end,
                    end,
                },
            ] {
                if !rest.is_empty() {
                    self.spans.insert(rest.start, rest.end);
                    self.total += rest.len();
                }
            }
        }
    }

    /// The parts of `span` that the set does not hold.
    pub(super) fn gaps(&self, span: Span) -> Vec<Span> {
        let mut gaps = Vec::new();
        let mut at = span.start;
        while at < span.end {
            if let Some(held) = self.span_at(at) {
                at = held.end;
                continue;
            }
            let next = self
                .spans
                .range(at..)
                .next()
                .map_or(span.end, |(&start, _)| start);
            let end = next.min(span.end);
            gaps.push(Span { start: at, end });
            at = end;
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(steps in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 0..60)) {
            let mut spans = SpanSet::default();
            let mut model = BTreeSet::new();
            for (add, start, length) in steps {
                let span = Span { start, end: start + length };
                if add {
                    let before = model.len();
                    model.extend(start..span.end);
                    prop_assert_eq!(spans.insert(span), (model.len() - before) as u64);
                } else {
                    spans.remove(span);
                    model.retain(|n| !(start..span.end).contains(n));
                }
                let flat: Vec<u64> = spans.iter().flat_map(|span| span.start..span.end).collect();
                prop_assert_eq!(&flat, &model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(spans.total(), model.len() as u64);
                let pairs: Vec<Span> = spans.iter().collect();
                prop_assert!(pairs.is_sorted_by(|a, b| a.end < b.start), "{:?}", pairs);
                let gaps: Vec<u64> = spans.gaps(Span { start: 5, end: 70 }).iter().flat_map(|gap| gap.start..gap.end).collect();
                prop_assert_eq!(gaps, (5..70).filter(|n| !model.contains(n)).collect::<Vec<_>>());
            }
        }
    }
}
