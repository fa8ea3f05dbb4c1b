//! The event that closes an epoch: its declaration, the continuation of the next epoch, and the step
//! into that epoch.

use crate::time::Instant;
use crate::transport::client::window::{Cell, Held, Window, to_usize};
use crate::transport::epoch::{Declaration, Epoch, Transition, TransitionKind};
use crate::transport::grant::{CURVE_LEAD, curve_credit, follow_curve};
use crate::transport::server::MAX_UNPROVEN_PACKETS;

/// The event that closes the epoch.
#[derive(Clone, Debug)]
pub(in crate::transport::client) struct Event {
    pub(in crate::transport::client) declaration: Declaration,
    pub(in crate::transport::client) transition: Transition,
    /// The continuation of the next epoch; the earliest copy, whose epoch start is the oldest.
    pub(super) next: Option<Held>,
    /// The zone's intervals up to here have been acknowledged; the proof may reach further.
    pub(super) acknowledged: u64,
    /// Proof values of the numbers `p + 1 ..= edge`, 0 for those that carry none.
    pub(super) passed: Vec<u64>,
    /// The proof of the numbers up to `R` at a restart, which are not acknowledged one by one.
    pub(super) beyond: u64,
}

impl Window {
    /// Whether a lost or marked number belongs to an event that is declared already.
    pub(in crate::transport::client) fn belongs_to_event(&self, number: u64) -> bool {
        number <= self.epoch.base
            || self
                .event
                .as_ref()
                .is_some_and(|event| number <= event.transition.r)
    }

    /// Whether a continuation of the releasing epoch is still to come.
    pub(in crate::transport::client) fn wants_continuation(&self) -> bool {
        self.event
            .as_ref()
            .is_some_and(|event| event.next.is_none())
    }

    /// The edge at the event; beyond all numbers if there is none.
    pub(super) fn event_edge(&self) -> u64 {
        self.event
            .as_ref()
            .map_or(u64::MAX, |event| event.transition.p)
    }

    /// Whether the event abandons its range, which is then not acknowledged piece by piece.
    pub(in crate::transport::client) fn gives_up(&self) -> bool {
        self.event
            .as_ref()
            .is_some_and(|event| !event.transition.kind.has_zone())
    }

    /// Takes a continuation that speaks for `epoch`, from the answer to a request that acknowledged up to
    /// `upto`. `opens`: it came with the event that opened the epoch, rather than as a fresher copy of
    /// one that is held.
    pub(in crate::transport::client) fn hold(
        &mut self,
        epoch: Epoch,
        upto: u64,
        sealed: &[u8],
        opens: bool,
        now: Instant,
    ) {
        let held = Held::new(sealed, now);
        if epoch == self.epoch {
            // Of the copies that open an epoch the first counts: the gates reckon from its start.
            if !opens {
                self.renew(held, upto);
            }
        } else if let Some(event) = &mut self.event
            && epoch == event.transition.next
        {
            event.next.get_or_insert(held);
        }
        self.switch(now);
    }

    /// The newest continuation held, if servers accept it as an address token: one that proves nothing but
    /// an OPEN they do not.
    pub(in crate::transport::client) fn token(&self) -> Option<&Held> {
        let next = self.event.as_ref().and_then(|event| event.next.as_ref());
        // Only a token draws a longer first answer, and it proves the address.
        let proven = self.epoch.base > 0 || self.epoch.c > MAX_UNPROVEN_PACKETS;
        next.or_else(|| proven.then_some(&self.held))
    }

    /// Takes a fresher continuation of the epoch, unless its credit is below the edge: it may answer a request from
    /// long before.
    fn renew(&mut self, held: Held, upto: u64) {
        let start = follow_curve(self.curve_start, false, self.curve_time(upto), held.issued);
        let credit = curve_credit(&self.epoch, start, held.issued);
        if credit >= self.credit() || credit >= self.curve_time(self.edge) + CURVE_LEAD / 2 {
            self.curve_start = start;
            self.held = held;
            self.refreshed = None;
        }
    }

    /// Goes over to the next epoch once its continuation is there and the zone is passed.
    pub(super) fn switch(&mut self, now: Instant) {
        let ready = |event: &Event| event.next.is_some() && event.is_passed();
        if !self.event.as_ref().is_some_and(ready) {
            return;
        }
        self.past.keep(self.evidence());
        let Some(event) = self.event.take() else {
            return;
        };
        let Some(next) = event.next else { return };
        let time = self.curve_time(event.transition.p);
        self.curve_start = follow_curve(self.curve_start, true, time, next.issued);
        self.epoch = event.transition.next;
        self.started = next.since;
        self.held = next;
        self.refreshed = None;
        self.edge = self.epoch.base;
        self.at_edge = self.epoch.window(self.edge);
        self.proof_base = event.transition.proof_base();
        if self.proof_base == self.edge {
            self.zone_proof = 0;
            self.holes.clear();
        } else {
            // There was no hole before the zone.
            self.zone_proof = event.passed.iter().fold(0, |proof, x| proof ^ x);
        }
        self.proof = self.zone_proof;
        self.late.clear();
        self.waiting.clear();
        debug_assert!(
            self.cells_after == self.edge && self.started <= now,
            "cells follow the edge"
        );
    }

    /// Declares an event at the present edge. `false` if the epoch cannot have it.
    pub(in crate::transport::client) fn declare(
        &mut self,
        kind: TransitionKind,
        rtt_us: u64,
    ) -> bool {
        let p = match kind {
            TransitionKind::Restart => self.acknowledged_edge().unwrap_or(self.edge),
            TransitionKind::Opened
            | TransitionKind::Loss
            | TransitionKind::Ce
            | TransitionKind::Exit
            | TransitionKind::Timeout
            | TransitionKind::Move => self.edge,
        };
        let declaration = Declaration::new(kind, p, rtt_us);
        let repeated = self
            .event
            .as_ref()
            .is_some_and(|event| event.declaration.kind == kind && event.declaration.p == p);
        let Ok(transition) = self.epoch.transition(declaration) else {
            return false;
        };
        if repeated || !self.may_declare(kind) {
            return false;
        }
        let beyond = match kind {
            TransitionKind::Restart => self.proof_up_to(transition.r).unwrap_or(0),
            TransitionKind::Opened
            | TransitionKind::Loss
            | TransitionKind::Ce
            | TransitionKind::Exit
            | TransitionKind::Timeout
            | TransitionKind::Move => 0,
        };
        match kind.has_zone() {
            true => self.past.keep(self.evidence()),
            false => self.past.clear(),
        }
        self.late.clear();
        if transition.kind.forgives() {
            let forgiven = self.zone_before();
            self.holes.remove(forgiven);
            // A number that waits to fill a forgiven hole is of no more use.
            self.waiting.retain(|(span, _)| span.start >= forgiven.end);
            self.proof ^= core::mem::take(&mut self.zone_proof);
            self.proof_base = self.epoch.base;
        }
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
            beyond,
        });
        true
    }

    /// Whether a server would grant the event at the edge, as far as the holes decide it.
    fn may_declare(&self, kind: TransitionKind) -> bool {
        match kind {
            TransitionKind::Opened => self.pending_allowed(self.edge, None),
            TransitionKind::Loss => self.lost_allowed(),
            TransitionKind::Ce | TransitionKind::Exit => self.holes.is_empty(),
            TransitionKind::Timeout => true,
            // The address is not proven yet at the opening epoch, so no server would grant it.
            TransitionKind::Restart => {
                self.epoch.base > 0 && self.restart_kind() == TransitionKind::Restart
            }
            TransitionKind::Move => self.epoch.base > 0,
        }
    }

    /// The kind of restart that a server would grant: one for which all arrived, or else a move.
    pub(in crate::transport::client) fn restart_kind(&self) -> TransitionKind {
        let edge = self
            .acknowledged_edge()
            .filter(|_| self.event.is_none() && self.holes.is_empty());
        let whole = |p: u64| self.proof_up_to(self.epoch.edge(p)).is_some();
        match edge.is_some_and(whole) {
            true => TransitionKind::Restart,
            false => TransitionKind::Move,
        }
    }

    /// The edge up to which numbers are acknowledged: within a void range that has not released all that it may.
    fn acknowledged_edge(&self) -> Option<u64> {
        match self.late.first() {
            None => Some(self.edge),
            Some(rest) => (rest.end == self.edge + 1).then_some(rest.start - 1),
        }
    }

    /// The proof of the numbers `(edge, r]`, if all arrived.
    fn proof_up_to(&self, r: u64) -> Option<u64> {
        let count = to_usize(r.checked_sub(self.edge)?);
        let cells = self.cells.range(..count.min(self.cells.len()));
        let whole =
            cells.len() == count && !matches!(cells.clone().next_back(), Some(Cell::Joined));
        let fold = |proof: u64, cell: &Cell| match cell {
            Cell::Missing => None,
            Cell::Joined => Some(proof),
            Cell::Received(x) => Some(proof ^ x),
        };
        cells.clone().try_fold(0, fold).filter(|_| whole)
    }
}

impl Event {
    /// Whether everything that the zone releases has been requested.
    pub(in crate::transport::client) fn is_passed(&self) -> bool {
        self.acknowledged == self.transition.r || !self.transition.kind.has_zone()
    }
}
