//! The numbers that a cheat has received, as those that it has not.

use crate::wire::segment::Span;

/// The numbers received so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    missing: Vec<Span>,
    top: u64,
}

impl Received {
    /// The highest number received.
    pub(super) const fn top(&self) -> u64 {
        self.top
    }

    /// Takes note of the numbers `first ..= last`.
    pub(super) fn note(&mut self, first: u64, last: u64) {
        if first > self.top {
            if first > self.top + 1 {
                self.missing.push(Span {
                    start: self.top + 1,
                    end: first,
                });
            }
            self.top = last;
            return;
        }
        let covered = |hole: &Span| hole.start <= last && first < hole.end;
        let Some(index) = self.missing.iter().position(covered) else {
            self.top = self.top.max(last);
            return;
        };
        if let Some(hole) = self.missing.get(index).copied() {
            let rest = [
                Span {
                    start: hole.start,
                    end: first.max(hole.start),
                },
                Span {
                    start: (last + 1).min(hole.end),
                    end: hole.end,
                },
            ];
            let rest = rest.into_iter().filter(|span| !span.is_empty());
            self.missing.splice(index..=index, rest);
        }
    }

    /// Forgets holes up to `base`.
    pub(super) fn forget(&mut self, base: u64) {
        self.missing.retain(|hole| hole.end > base + 1);
    }

    /// The holes in `(base, end]`, none across `p`; numbers above all that arrived are missing.
    pub(super) fn missing(&self, base: u64, p: u64, end: u64) -> Vec<Span> {
        let above = Span {
            start: self.top + 1,
            end: end.max(self.top) + 1,
        };
        let within = self.missing.iter().chain([&above]).map(|hole| Span {
            start: hole.start.max(base + 1),
            end: hole.end.min(end + 1),
        });
        let split = |hole: Span| {
            let cut = hole.end.min(p.saturating_add(1)).max(hole.start);
            [Span { end: cut, ..hole }, Span { start: cut, ..hole }]
        };
        within
            .filter(|hole| !hole.is_empty())
            .flat_map(split)
            .filter(|hole| !hole.is_empty())
            .collect()
    }

    /// The next run of numbers received after `edge`: the number before it, and its last.
    pub(super) fn run(&self, edge: u64) -> Option<(u64, u64)> {
        let mut after = edge;
        for hole in self.missing.iter().filter(|hole| hole.end > edge + 1) {
            match hole.start <= after + 1 {
                true => after = hole.end - 1,
                false => return Some((after, hole.start - 1)),
            }
        }
        (after < self.top).then_some((after, self.top))
    }
}
