//! The event that closes an epoch: its declaration, the continuation of the next epoch, and the step
//! into that epoch.

use crate::time::Instant;
use crate::transport::client::window::{Held, Window};
use crate::transport::epoch::{Declaration, Epoch, Transition, TransitionKind};
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

    /// Takes a continuation that speaks for `epoch`. `opens`: it came with the event that opened the
    /// epoch, rather than as a fresher copy of one that is held.
    pub(in crate::transport::client) fn hold(
        &mut self,
        epoch: Epoch,
        sealed: &[u8],
        opens: bool,
        now: Instant,
    ) {
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

    /// The newest continuation held, if servers accept it as an address token: one that proves nothing but
    /// an OPEN they do not.
    pub(in crate::transport::client) fn token(&self) -> Option<&Held> {
        let next = self.event.as_ref().and_then(|event| event.next.as_ref());
        // Only a token draws a longer first answer, and it proves the address.
        let proven = self.epoch.base > 0 || self.epoch.c > MAX_UNPROVEN_PACKETS;
        next.or_else(|| proven.then_some(&self.held))
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
    pub(in crate::transport::client) fn declare(
        &mut self,
        kind: TransitionKind,
        rtt_us: u64,
    ) -> bool {
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
}

impl Event {
    /// Whether everything that the zone releases has been requested.
    pub(in crate::transport::client) fn is_passed(&self) -> bool {
        self.acknowledged == self.transition.r || !self.transition.kind.has_zone()
    }
}
