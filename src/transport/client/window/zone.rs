//! Passing the zone of an event: the next interval in it, how much of it a proof must show, and the
//! numbers to give away so that a request has room for the rest.

use crate::transport::client::window::interval::Interval;
use crate::transport::client::window::{Cell, Window, to_u64, to_usize};
use crate::transport::epoch::{Transition, TransitionKind};
use crate::transport::grant::MAX_PENDING_SPANS;
use crate::wire::segment::{MAX_HOLES, Span};

/// Spans of a zone that may be missing before received numbers between them are given away.
pub(super) const MAX_ZONE_SPANS: usize = MAX_HOLES - MAX_PENDING_SPANS;

impl Window {
    pub(super) fn zone_interval(&mut self, budget: u32) -> Option<Interval> {
        let event = self.event.as_ref()?;
        let (transition, after) = (event.transition, event.acknowledged);
        let newest = self
            .cells
            .iter()
            .rposition(|cell| matches!(cell, Cell::Received(_)));
        // Whether a number of the zone arrived or not, it passes once a later one has come.
        let last = newest.map_or(self.edge, |index| self.cells_after + to_u64(index) + 1);
        let last = last.min(transition.r);
        let upto = transition.max_ack(after, last, budget);
        let (from, to) = (transition.edge(after), transition.edge(upto));
        let ends = upto == transition.r && upto > after;
        if (to == from && !ends) || (upto > self.edge && !self.prove(&transition, upto, last)) {
            return None;
        }
        if let Some(event) = &mut self.event {
            event.acknowledged = upto;
        }
        Self::released(after, upto, from, to)
    }

    /// Moves the edge to `upto` or as far beyond it, up to `last`, as it takes to prove enough of the
    /// zone: the numbers that a pending request was to release are missing in one stretch. `false` if
    /// enough cannot be proven; nothing changes then.
    fn prove(&mut self, transition: &Transition, upto: u64, last: u64) -> bool {
        let Some(reach) = self.provable(transition, upto, last) else {
            return false;
        };
        // For want of room `forfeit` may give away too much.
        let before = self.crowded(transition, reach).then(|| self.clone());
        self.advance(reach);
        self.forfeit();
        if let Some(before) = before
            && !quarter_proven(transition, reach, self.missing_behind(transition))
        {
            *self = before;
            return false;
        }
        true
    }

    /// The nearest number from `upto` to `last` that a proof of enough of the zone may end at.
    fn provable(&self, transition: &Transition, upto: u64, last: u64) -> Option<u64> {
        let mut missing = self.missing_behind(transition);
        let ahead = (self.edge + 1..=last).zip(&self.cells);
        ahead
            .filter_map(|(number, cell)| {
                missing += u64::from(*cell == Cell::Missing);
                let ends = number >= upto && *cell != Cell::Joined;
                (ends && quarter_proven(transition, number, missing)).then_some(number)
            })
            .next()
    }

    /// Numbers of the zone that are behind the edge and not shown.
    fn missing_behind(&self, transition: &Transition) -> u64 {
        let behind = self.holes.iter().filter(|hole| hole.start > transition.p);
        behind.map(|hole| hole.len()).sum()
    }

    fn missing_ahead(&self, upto: u64) -> usize {
        let ahead = self.cells.iter().take(to_usize(upto - self.edge));
        ahead.filter(|cell| **cell == Cell::Missing).count()
    }

    /// Whether a zone may have more holes than a request has room for once the edge is at `upto`.
    fn crowded(&self, transition: &Transition, upto: u64) -> bool {
        let behind = self
            .holes
            .iter()
            .filter(|hole| hole.start > transition.p)
            .count();
        behind + self.missing_ahead(upto) > MAX_ZONE_SPANS
    }

    /// Joins the nearest holes of a zone, giving the numbers between them away, until a request has
    /// room for all.
    fn forfeit(&mut self) {
        let Some(event) = &mut self.event else { return };
        let p = event.transition.p;
        while self.holes.iter().filter(|hole| hole.start > p).count() > MAX_ZONE_SPANS {
            let zone: Vec<Span> = self.holes.iter().filter(|hole| hole.start > p).collect();
            let between = zone.windows(2).filter_map(|pair| match pair {
                [a, b] => Some(Span {
                    start: a.end,
                    end: b.start,
                }),
                _ => None,
            });
            let Some(nearest) = between.min_by_key(Span::len) else {
                return;
            };
            for n in nearest.start..nearest.end {
                if let Some(value) = event.passed.get_mut(to_usize(n - p - 1)) {
                    self.proof ^= core::mem::take(value);
                }
            }
            self.holes.insert(nearest);
        }
    }
}

/// Whether a quarter of the zone up to `upto` is proven if `missing` numbers of it are not.
fn quarter_proven(transition: &Transition, upto: u64, missing: u64) -> bool {
    let passed = upto - transition.p;
    transition.kind == TransitionKind::Opened
        || missing.saturating_mul(4) <= passed.saturating_mul(3)
}
