//! The client's mirror of the congestion state: which numbers of the epoch arrived, how far they are
//! acknowledged, the folded proof, and the event that closes the epoch. It says which interval may be
//! acknowledged next and builds the evidence for it, by the same pure functions as the server.
//!
//! Numbers up to `edge` are acknowledged, but for `holes`; numbers beyond it stand in `cells`.

mod event;
mod evidence;
mod interval;
#[cfg(test)]
mod tests;
mod zone;

use std::collections::VecDeque;

use crate::time::{Instant, UnixMillis};
use crate::transport::client::spans::SpanSet;
use crate::transport::client::window::evidence::Past;
use crate::transport::client::window::zone::MAX_ZONE_SPANS;
use crate::transport::continuation::issue_time;
use crate::transport::epoch::{Epoch, TransitionKind};
use crate::transport::grant::MAX_PENDING_SPANS;
use crate::wire::segment::Span;

pub(super) use event::Event;
pub(super) use interval::Interval;

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
    /// When it was issued, by the clock of its server.
    issued: UnixMillis,
}

impl Held {
    pub(super) fn new(sealed: &[u8], since: Instant) -> Self {
        Self {
            sealed: sealed.to_vec(),
            since,
            issued: issue_time(sealed).unwrap_or_default(),
        }
    }
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Window {
    epoch: Epoch,
    held: Held,
    /// When the first continuation of this epoch came: real time for the gates.
    started: Instant,
    edge: u64,
    /// The epoch's window at the edge: needed with every packet, and dear to compute.
    at_edge: u32,
    /// The number behind which the proof begins: the base of the epoch, or before.
    proof_base: u64,
    /// The part of the proof up to the base of the epoch.
    zone_proof: u64,
    /// From when on real time pays for the curve's time, as in the continuation held.
    curve_start: UnixMillis,
    /// When a fresher continuation was last requested.
    refreshed: Option<Instant>,
    /// Folded over the received numbers of `(proof_base, edge]`.
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
    /// Highest number ever requested: none beyond it is believed.
    highest: u64,
}

impl Window {
    /// The window of a connection that was just opened with `count` packets.
    pub(super) fn new(count: u32, sealed: &[u8], now: Instant) -> Self {
        let epoch = Epoch::opening(count);
        let held = Held::new(sealed, now);
        Self {
            epoch,
            proof_base: 0,
            zone_proof: 0,
            curve_start: held.issued,
            refreshed: None,
            held,
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

    pub(super) const fn started(&self) -> Instant {
        self.started
    }

    /// Whether half of the holes that may be pending are: with one more than all, an interval has to wait.
    pub(super) fn is_crowded(&self) -> bool {
        self.holes.len() >= MAX_PENDING_SPANS / 2
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

    /// Takes note of the numbers `n ..= n + void`, whose proof is `x`. `false` if they were known,
    /// or are of no more use.
    pub(super) fn receive(&mut self, n: u64, void: u64, x: u64) -> bool {
        let last = n.saturating_add(void);
        if last > self.highest || n <= self.proof_base {
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
            // The numbers of a zone are acknowledged already.
            None if last <= self.epoch.base => self.zone_proof ^= x,
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

    /// Moves the edge; folds the numbers that arrived and notes those that did not as holes.
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

    /// Notes that numbers up to `last` were requested.
    pub(super) fn asked(&mut self, last: u64) {
        self.highest = self.highest.max(last);
    }

    /// About the count of numbers that could be released now.
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

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
