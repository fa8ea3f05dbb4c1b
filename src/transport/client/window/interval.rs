//! The interval to acknowledge next: from the edge on, behind a gap that may be pending, or in a
//! stretch that filled late. Zones of events have a file of their own.

use std::time::Duration;

use crate::time::Instant;
use crate::transport::client::spans::SpanSet;
use crate::transport::client::window::{Cell, Event, Window, to_u64, to_usize};
use crate::transport::curve::MAX_FLIGHT;
use crate::transport::epoch::Transition;
use crate::transport::grant::{CURVE_LEAD, MAX_PENDING_SPANS, curve_credit, is_old, max_pending};
use crate::wire::segment::Span;

/// An interval to acknowledge: it releases `first .. first + count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport::client) struct Interval {
    pub(in crate::transport::client) after: u64,
    pub(in crate::transport::client) upto: u64,
    pub(in crate::transport::client) first: u64,
    pub(in crate::transport::client) count: u32,
}

impl Window {
    /// The next interval that can be acknowledged and releases 1 to about `budget` numbers.
    pub(in crate::transport::client) fn next_interval(
        &mut self,
        now: Instant,
        budget: u32,
    ) -> Option<Interval> {
        loop {
            // Not before: the request that passes the end of a zone still shows the old continuation.
            self.switch(now);
            let Some(event) = &self.event else {
                return self.late_interval(budget).or_else(|| self.interval(budget));
            };
            let Transition {
                p, r, next, kind, ..
            } = event.transition;
            if !kind.has_zone() {
                return Some(Interval {
                    after: p,
                    upto: r,
                    first: r + 1,
                    count: next.c,
                });
            }
            let before = event.acknowledged;
            let interval = self.zone_interval(budget);
            let stands = |event: &Event| event.acknowledged == before;
            if interval.is_some() || self.event.as_ref().is_none_or(stands) {
                return interval;
            }
        }
    }

    fn late_interval(&mut self, budget: u32) -> Option<Interval> {
        let span = self.late.first()?;
        let after = span.start - 1;
        let upto = self.epoch.max_ack(after, span.end - 1, budget.max(2));
        self.late.remove(Span {
            start: span.start,
            end: upto + 1,
        });
        Self::released(after, upto, self.epoch.edge(after), self.epoch.edge(upto))
    }

    pub(super) fn released(after: u64, upto: u64, from: u64, to: u64) -> Option<Interval> {
        let count = u32::try_from(to.checked_sub(from)?).ok()?;
        let usable = count > 0 && count <= MAX_FLIGHT;
        usable.then_some(Interval {
            after,
            upto,
            first: from + 1,
            count,
        })
    }

    /// The interval from the edge on, or from the end of the first gap on if the gap may be pending.
    fn interval(&mut self, budget: u32) -> Option<Interval> {
        let gap = self
            .cells
            .iter()
            .take_while(|cell| **cell == Cell::Missing)
            .count();
        if gap == self.cells.len() {
            return None;
        }
        // No interval ends farther away, however much a reader that is slow has left unacknowledged.
        let most = to_usize(u64::from(budget.max(1)) + u64::from(MAX_FLIGHT));
        let run = self
            .cells
            .range(gap..)
            .take(most)
            .take_while(|cell| **cell != Cell::Missing)
            .count();
        let after = self.edge + to_u64(gap);
        let most = self.epoch.max_ack(after, after + to_u64(run), budget);
        let end = self.end_at(most, after, after + to_u64(run))?;
        let upto = most.min(end);
        let interval = Self::released(after, upto, self.epoch.edge(after), self.epoch.edge(upto))?;
        let hole = Span {
            start: self.edge + 1,
            end: after + 1,
        };
        if self.curve_time(end) > self.credit()
            || !self.pending_allowed(end, (gap > 0).then_some(hole))
        {
            return None;
        }
        self.advance(end);
        // A stretch that one packet proves may release more than a flight: the rest of it follows.
        self.late.insert(Span {
            start: upto + 1,
            end: end + 1,
        });
        Some(interval)
    }

    /// The nearest number to `upto` in `(after, end]` where an interval may end: before it, or else
    /// after it.
    fn end_at(&self, upto: u64, after: u64, end: u64) -> Option<u64> {
        let ends = |n: &u64| matches!(self.cell(*n), Some(Cell::Received(_)));
        let before = (after + 1..=upto)
            .rev()
            .take(to_usize(u64::from(MAX_FLIGHT)))
            .find(ends);
        before.or_else(|| {
            (upto + 1..=end)
                .take(to_usize(u64::from(MAX_FLIGHT)))
                .find(ends)
        })
    }

    fn cell(&self, n: u64) -> Option<Cell> {
        self.cells
            .get(to_usize(n.checked_sub(self.cells_after + 1)?))
            .copied()
    }

    /// The time on the curve at `edge`.
    pub(super) fn curve_time(&self, edge: u64) -> Duration {
        Duration::from_micros(self.epoch.elapsed_us(edge))
    }

    /// The time on the curve that the continuation held is good for.
    pub(super) fn credit(&self) -> Duration {
        curve_credit(&self.epoch, self.curve_start, self.held.issued)
    }

    /// Whether the time on the curve runs out before a fresher continuation may arrive.
    fn runs_out(&self) -> bool {
        let left = self.credit().saturating_sub(self.curve_time(self.edge));
        let lead = CURVE_LEAD + Duration::from_micros(self.epoch.curve.rtt_us().into());
        self.event.is_none() && left < lead * 3 / 4
    }

    /// Whether to ask for a fresher continuation with the request that leaves now: once a round trip, if
    /// the one held is older than `age` or its time on the curve runs out.
    pub(in crate::transport::client) fn refresh(
        &mut self,
        now: Instant,
        rtt: Duration,
        age: Duration,
    ) -> bool {
        let asked = self
            .refreshed
            .is_some_and(|asked| now < asked + rtt * 5 / 4);
        let old = now.saturating_since(self.held.since) > age;
        let wants = self.event.is_none() && !asked && (old || self.runs_out());
        if wants {
            self.refreshed = Some(now);
        }
        wants
    }

    /// Whether the next number received lies beyond the time on the curve that is paid for.
    pub(in crate::transport::client) fn is_ahead(&self) -> bool {
        let next = self
            .cells
            .iter()
            .position(|cell| matches!(cell, Cell::Received(_)));
        next.is_some_and(|index| {
            self.event.is_none() && self.curve_time(self.edge + to_u64(index) + 1) > self.credit()
        })
    }

    /// Whether holes up to `edge`, with one `more`, may be pending.
    pub(super) fn pending_allowed(&self, edge: u64, more: Option<Span>) -> bool {
        self.allows(edge, &self.holes, more)
    }

    /// Whether the holes allow to declare a loss at the edge. It forgives those of a zone before.
    pub(super) fn lost_allowed(&self) -> bool {
        let mut holes = self.holes.clone();
        holes.remove(self.zone_before());
        self.allows(self.edge, &holes, None)
    }

    fn allows(&self, edge: u64, holes: &SpanSet, more: Option<Span>) -> bool {
        let w = self.epoch.window(edge);
        let old = |hole: Span| is_old(&self.epoch, hole, edge);
        let total = holes.total() + more.map_or(0, |hole| hole.len());
        let joins = more.is_some_and(|hole| holes.span_at(hole.start.saturating_sub(1)).is_some());
        let spans = holes.len() + usize::from(more.is_some() && !joins);
        !holes.first().or(more).is_some_and(old)
            && total <= max_pending(w)
            && spans <= MAX_PENDING_SPANS
    }

    /// The numbers of a zone before the epoch that are still to be proven.
    pub(super) const fn zone_before(&self) -> Span {
        Span {
            start: self.proof_base + 1,
            end: self.epoch.base + 1,
        }
    }
}
