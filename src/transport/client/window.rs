//! The client's mirror of the congestion state: which numbers of the epoch arrived, how far they are
//! acknowledged, the folded proof, and the event that closes the epoch. It says which interval may be
//! acknowledged next and builds the evidence for it, by the same pure functions as the server.
//!
//! Numbers up to `edge` are acknowledged, but for `holes`; numbers beyond it stand in `cells`.

use std::collections::VecDeque;

use crate::time::Instant;
use crate::time::micros;
use crate::transport::client::evidence::{Evidence, Past};
use crate::transport::client::spans::SpanSet;
use crate::transport::curve::MAX_FLIGHT;
use crate::transport::epoch::{Declaration, Epoch, Transition, TransitionKind};
use crate::transport::grant::{CURVE_LEAD, MAX_PENDING_SPANS, max_pending};
use crate::wire::segment::{MAX_HOLES, Span};

/// Spans of a zone that may be missing before received numbers between them are given away.
const MAX_ZONE_SPANS: usize = MAX_HOLES - MAX_PENDING_SPANS;

/// Numbers that wait to be filled in; further ones count as missing.
const MAX_WAITING: usize = 64;

/// A number beyond the acknowledgement edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Missing,
    /// Received, but its proof comes with a later number: no interval may end here.
    Joined,
    Received(u64),
}

/// A sealed continuation and when it came.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) sealed: Vec<u8>,
    pub(super) since: Instant,
}

/// The event that closes the epoch.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) declaration: Declaration,
    pub(super) transition: Transition,
    /// The continuation of the next epoch; the earliest copy, whose epoch start is the oldest.
    next: Option<Held>,
    /// Up to here the zone's intervals have been asked for; what is proven may reach further.
    acknowledged: u64,
    /// Proof values of the numbers `p + 1 ..= edge`, 0 for those that carry none.
    passed: Vec<u64>,
}

/// An interval to acknowledge: it releases `first .. first + count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) after: u64,
    pub(super) upto: u64,
    pub(super) first: u64,
    pub(super) count: u32,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Window {
    epoch: Epoch,
    held: Held,
    /// When the first continuation of this epoch came: real time for the gates.
    started: Instant,
    edge: u64,
    /// The epoch's window at the edge: asked for with every packet, and dear to compute.
    at_edge: u32,
    /// Folded over the received numbers of `(base, edge]`.
    proof: u64,
    holes: SpanSet,
    /// Numbers from `cells_after + 1` on.
    cells: VecDeque<Cell>,
    cells_after: u64,
    /// Numbers behind the edge that are received and not acknowledged yet: of holes that filled late,
    /// and the rest of void stretches.
    late: SpanSet,
    /// Numbers that came late and would split a hole when there are as many as may be: filled in
    /// when there are fewer.
    waiting: Vec<(Span, u64)>,
    event: Option<Event>,
    past: Past,
    /// Highest number ever asked for: none beyond it is believed.
    highest: u64,
}

impl Window {
    /// The window of a connection that was just opened with `count` packets.
    pub(super) fn new(count: u32, sealed: &[u8], now: Instant) -> Self {
        let epoch = Epoch::opening(count);
        Self {
            epoch,
            held: Held {
                sealed: sealed.to_vec(),
                since: now,
            },
            started: now,
            edge: 0,
            at_edge: epoch.window(0),
            proof: 0,
            holes: SpanSet::default(),
            cells: VecDeque::new(),
            cells_after: 0,
            late: SpanSet::default(),
            waiting: Vec::new(),
            event: None,
            past: Past::default(),
            highest: u64::from(count),
        }
    }

    pub(super) const fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    pub(super) const fn event(&self) -> Option<&Event> {
        self.event.as_ref()
    }

    pub(super) const fn edge(&self) -> u64 {
        self.edge
    }

    pub(super) const fn highest(&self) -> u64 {
        self.highest
    }

    pub(super) const fn held(&self) -> &Held {
        &self.held
    }

    /// What a request of now shows.
    pub(super) fn evidence(&self) -> Evidence {
        Evidence {
            declared: self.event.as_ref().map(|event| event.declaration),
            releases: self.releasing(),
            sealed: self.held.sealed.clone(),
            proof: self.proof,
            holes: self.holes(),
            reach: self.edge,
        }
    }

    /// What a request shows that declares that event and releases into that epoch, if it can still be
    /// sent.
    pub(super) fn evidence_for(
        &self,
        declared: Option<Declaration>,
        releases: &Epoch,
    ) -> Option<Evidence> {
        match self.is_present(declared, releases) {
            true => Some(self.evidence()),
            false => self.past.find(declared, releases).cloned(),
        }
    }

    /// Whether a request that declares that event and releases into that epoch can still be sent.
    pub(super) fn has_evidence_for(&self, declared: Option<Declaration>, releases: &Epoch) -> bool {
        self.is_present(declared, releases) || self.past.find(declared, releases).is_some()
    }

    fn is_present(&self, declared: Option<Declaration>, releases: &Epoch) -> bool {
        self.event.as_ref().map(|event| event.declaration) == declared
            && self.releasing() == *releases
    }

    pub(super) const fn started(&self) -> Instant {
        self.started
    }

    /// The congestion window in force, in packets.
    pub(super) fn packets(&self) -> u32 {
        match &self.event {
            Some(event) => event.transition.next.c,
            None => self.at_edge,
        }
    }

    /// The epoch that packets released now belong to.
    pub(super) fn releasing(&self) -> Epoch {
        self.event
            .as_ref()
            .map_or(self.epoch, |event| event.transition.next)
    }

    /// Whether slow start still grows the window.
    pub(super) fn in_slow_start(&self) -> bool {
        self.event.is_none() && self.epoch.in_slow_start(self.edge)
    }

    /// Whether the connection has just been opened.
    pub(super) fn is_opening(&self) -> bool {
        let opened = |event: &Event| event.transition.kind == TransitionKind::Opened;
        self.event.as_ref().is_some_and(opened)
    }

    /// Whether a lost or marked number belongs to an event that is declared already.
    pub(super) fn belongs_to_event(&self, number: u64) -> bool {
        number <= self.epoch.base
            || self
                .event
                .as_ref()
                .is_some_and(|event| number <= event.transition.r)
    }

    /// Whether a continuation of the releasing epoch is still to come.
    pub(super) fn wants_continuation(&self) -> bool {
        self.event
            .as_ref()
            .is_some_and(|event| event.next.is_none())
    }

    /// Takes note of the numbers `n ..= n + void`, whose proof is `x`. `false` if they were known,
    /// or are of no more use.
    pub(super) fn receive(&mut self, n: u64, void: u64, x: u64) -> bool {
        let last = n.saturating_add(void);
        if last > self.highest || n <= self.epoch.base {
            return false;
        }
        if last <= self.edge {
            return self.receive_late(n, last, x);
        }
        let Some(start) = n.checked_sub(self.cells_after + 1) else {
            return false;
        };
        let (start, end) = (to_usize(start), to_usize(last - self.cells_after));
        while self.cells.len() < end {
            self.cells.push_back(Cell::Missing);
        }
        if self
            .cells
            .range(start..end)
            .any(|cell| *cell != Cell::Missing)
        {
            return false;
        }
        for cell in self.cells.range_mut(start..end) {
            *cell = Cell::Joined;
        }
        if let Some(last) = self.cells.get_mut(end - 1) {
            *last = Cell::Received(x);
        }
        true
    }

    fn receive_late(&mut self, n: u64, last: u64, x: u64) -> bool {
        let span = Span {
            start: n,
            end: last + 1,
        };
        let inside = self.holes.span_at(n).is_some_and(|hole| last < hole.end);
        let waits = |early: &(Span, u64)| early.0.start <= last && n < early.0.end;
        if !inside || self.gives_up() || self.waiting.iter().any(waits) {
            return false;
        }
        if !self.fill(span, x) {
            let room = self.waiting.len() < MAX_WAITING;
            if room {
                self.waiting.push((span, x));
            }
            return room;
        }
        let mut waiting = core::mem::take(&mut self.waiting);
        waiting.retain(|&(span, x)| !self.fill(span, x));
        self.waiting = waiting;
        true
    }

    /// Fills a hole, or a part of it; `false` if the rest of it would be one hole too many.
    fn fill(&mut self, span: Span, x: u64) -> bool {
        self.holes.remove(span);
        let (p, last) = (self.event_edge(), span.end - 1);
        let (pending, zone): (Vec<Span>, Vec<Span>) =
            self.holes().into_iter().partition(|hole| hole.start <= p);
        if pending.len() > MAX_PENDING_SPANS || zone.len() > MAX_ZONE_SPANS {
            self.holes.insert(span);
            return false;
        }
        self.proof ^= x;
        match &mut self.event {
            None => {
                self.late.insert(span);
            }
            Some(event) => {
                let place = last.checked_sub(event.transition.p + 1).map(to_usize);
                if let Some(value) = place.and_then(|place| event.passed.get_mut(place)) {
                    *value = x;
                }
            }
        }
        true
    }

    /// The edge at the event; beyond all numbers if there is none.
    fn event_edge(&self) -> u64 {
        self.event
            .as_ref()
            .map_or(u64::MAX, |event| event.transition.p)
    }

    fn gives_up(&self) -> bool {
        self.event
            .as_ref()
            .is_some_and(|event| !event.transition.kind.has_zone())
    }

    /// Takes a continuation that speaks for `epoch`. `opens`: it came with the event that opened the
    /// epoch, rather than as a fresher copy of one that is held.
    pub(super) fn hold(&mut self, epoch: Epoch, sealed: &[u8], opens: bool, now: Instant) {
        let held = Held {
            sealed: sealed.to_vec(),
            since: now,
        };
        if epoch == self.epoch {
            // Of the copies that open an epoch the first counts: the gates reckon from its start.
            if !opens {
                self.held = held;
            }
        } else if let Some(event) = &mut self.event
            && epoch == event.transition.next
        {
            event.next.get_or_insert(held);
        }
        self.switch(now);
    }

    /// Goes over to the next epoch once its continuation is there and the zone is passed.
    fn switch(&mut self, now: Instant) {
        let ready = |event: &Event| event.next.is_some() && event.is_passed();
        if !self.event.as_ref().is_some_and(ready) {
            return;
        }
        self.past.keep(self.evidence());
        let Some(event) = self.event.take() else {
            return;
        };
        let Some(next) = event.next else { return };
        self.epoch = event.transition.next;
        self.started = next.since;
        self.held = next;
        self.edge = self.epoch.base;
        self.at_edge = self.epoch.window(self.edge);
        self.proof = 0;
        self.holes.clear();
        self.late.clear();
        self.waiting.clear();
        debug_assert!(
            self.cells_after == self.edge && self.started <= now,
            "cells follow the edge"
        );
    }

    /// Declares an event at the present edge. `false` if the epoch cannot have it.
    pub(super) fn declare(&mut self, kind: TransitionKind, rtt_us: u64) -> bool {
        let declaration = Declaration::new(kind, self.edge, rtt_us);
        let repeated = self.event.as_ref().is_some_and(|event| {
            event.declaration.kind == kind && event.declaration.p == self.edge
        });
        let Ok(transition) = self.epoch.transition(declaration) else {
            return false;
        };
        // The address is not proven yet, so no server would grant it.
        let unproven = kind == TransitionKind::Restart && self.epoch.base == 0;
        if repeated || unproven || (kind.has_zone() && !self.pending_allowed(self.edge, None)) {
            return false;
        }
        match kind.has_zone() {
            true => self.past.keep(self.evidence()),
            false => self.past.clear(),
        }
        self.late.clear();
        if !kind.has_zone() {
            self.waiting.clear();
            self.cells.clear();
            self.cells_after = transition.r;
        }
        self.event = Some(Event {
            declaration,
            transition,
            next: None,
            acknowledged: transition.p,
            passed: Vec::new(),
        });
        true
    }

    /// Whether holes up to `edge`, with one `more`, may be pending.
    fn pending_allowed(&self, edge: u64, more: Option<Span>) -> bool {
        let w = self.epoch.window(edge);
        let first = self
            .holes
            .first()
            .or(more)
            .map_or(u64::MAX, |hole| hole.start);
        let total = self.holes.total() + more.map_or(0, |hole| hole.len());
        let joins =
            more.is_some_and(|hole| self.holes.span_at(hole.start.saturating_sub(1)).is_some());
        let spans = self.holes.len() + usize::from(more.is_some() && !joins);
        first > edge.saturating_sub(4 * u64::from(w))
            && total <= max_pending(w)
            && spans <= MAX_PENDING_SPANS
    }

    /// The next interval that can be acknowledged and releases 1 to about `budget` numbers.
    pub(super) fn next_interval(&mut self, now: Instant, budget: u32) -> Option<Interval> {
        loop {
            // Not before: the request that passes the end of a zone still shows the old continuation.
            self.switch(now);
            let Some(event) = &self.event else {
                return self
                    .late_interval(budget)
                    .or_else(|| self.interval(now, budget));
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

    fn released(after: u64, upto: u64, from: u64, to: u64) -> Option<Interval> {
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
    fn interval(&mut self, now: Instant, budget: u32) -> Option<Interval> {
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
        let ahead = self.epoch.elapsed_us(end);
        let real = micros(now.saturating_since(self.started) + CURVE_LEAD);
        if ahead > real || !self.pending_allowed(end, (gap > 0).then_some(hole)) {
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

    fn zone_interval(&mut self, budget: u32) -> Option<Interval> {
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

    /// Moves the edge to `upto` or as far beyond it, up to `last`, as it takes to show enough of the
    /// zone: what a pending request was to release is missing in one stretch. `false` if it cannot be
    /// shown; nothing changes then.
    fn prove(&mut self, transition: &Transition, upto: u64, last: u64) -> bool {
        let Some(reach) = self.provable(transition, upto, last) else {
            return false;
        };
        // What must be given away for want of room may be too much.
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

    /// Moves the edge, folding what arrived and noting what did not.
    fn advance(&mut self, upto: u64) {
        while self.edge < upto {
            self.edge += 1;
            self.cells_after = self.edge;
            let value = match self.cells.pop_front() {
                Some(Cell::Received(x)) => x,
                Some(Cell::Joined) => 0,
                Some(Cell::Missing) | None => {
                    self.holes.insert(Span {
                        start: self.edge,
                        end: self.edge + 1,
                    });
                    0
                }
            };
            self.proof ^= value;
            if let Some(event) = &mut self.event {
                event.passed.push(value);
            }
        }
        self.at_edge = self.epoch.window(self.edge);
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

    /// Notes that numbers up to `last` were asked for.
    pub(super) fn asked(&mut self, last: u64) {
        self.highest = self.highest.max(last);
    }

    /// The holes of the proof, none of which crosses the edge of an event.
    pub(super) fn holes(&self) -> Vec<Span> {
        let p = self.event_edge();
        let split = |hole: Span| {
            let cut = hole.end.min(p.saturating_add(1)).max(hole.start);
            [Span { end: cut, ..hole }, Span { start: cut, ..hole }]
        };
        self.holes
            .iter()
            .flat_map(split)
            .filter(|hole| !hole.is_empty())
            .collect()
    }

    /// About how many numbers could be released now.
    pub(super) fn releasable(&self) -> u64 {
        if let Some(late) = self.late.first() {
            return self.epoch.edge(late.end - 1) - self.epoch.edge(late.start - 1);
        }
        let end = self.cells_after + to_u64(self.cells.len());
        match &self.event {
            None => self.epoch.edge(end) - self.edge - u64::from(self.at_edge),
            Some(event) => {
                let transition = &event.transition;
                transition.edge(end.max(self.edge)) - transition.edge(event.acknowledged)
            }
        }
    }
}

impl Event {
    /// Whether everything that the zone releases has been asked for.
    pub(super) fn is_passed(&self) -> bool {
        self.acknowledged == self.transition.r || !self.transition.kind.has_zone()
    }
}

/// Whether a quarter of the zone up to `upto` is proven if `missing` numbers of it are not.
fn quarter_proven(transition: &Transition, upto: u64, missing: u64) -> bool {
    let passed = upto - transition.p;
    transition.kind == TransitionKind::Opened
        || missing.saturating_mul(4) <= passed.saturating_mul(3)
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
