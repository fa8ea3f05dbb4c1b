//! The course of a cheat: its acknowledgements and its events.

use std::time::Duration;

use super::{Cheat, Event, Show};
use crate::attack::honest::addresses;
use crate::time::{Now, UnixMillis};
use crate::transport::curve::MAX_FLIGHT;
use crate::transport::epoch::TransitionKind;
use crate::transport::grant::GrantError;

/// Interval of repeats of an old event.
const REPEAT_INTERVAL: Duration = Duration::from_millis(100);

impl Cheat {
    /// Sends all that is granted now.
    pub(super) fn act(&mut self, now: Now) {
        while self.held.is_some() && !self.rests && self.step(now) {}
    }

    fn step(&mut self, now: Now) -> bool {
        if core::mem::take(&mut self.due) {
            return self.repeat_event(now);
        }
        match self.event {
            Some(event) if event.transition.kind.has_zone() => self.pass(now, event),
            Some(_) => self.next.is_some() && self.switch(),
            None => {
                self.keep_repeat(now);
                self.move_away(now) || self.acknowledge(now)
            }
        }
    }

    /// Acknowledges in the epoch, or declares an event if losses are to be hidden no longer.
    fn acknowledge(&mut self, now: Now) -> bool {
        let Some(held) = &self.held else { return false };
        let epoch = held.content.epoch;
        if epoch.base == 0 {
            return self.declare(now, &[TransitionKind::Opened], 0);
        }
        let Some((after, end)) = self.received.run(self.edge) else {
            return false;
        };
        let hidden = self
            .received
            .missing(held.content.proof_base, u64::MAX, after);
        let window = u64::from(epoch.window(after));
        let oldest = hidden.first().map_or(after, |hole| hole.start);
        let old = 8 * (after - oldest.min(after)) >= u64::from(self.moves.hides) * window;
        let many = hidden.len() > usize::from(self.moves.spans);
        if hidden.is_empty() || !(old || many) {
            let upto = epoch.max_ack(after, end, MAX_FLIGHT);
            let show = Show {
                after,
                upto,
                reach: upto,
                event: None,
            };
            match self.build(now, &show) {
                Ok(datagram) => {
                    self.send(datagram);
                    self.edge = upto;
                    return true;
                }
                Err(GrantError::AheadOfTime) => {
                    self.retry = Some(now.instant + self.rtt / 4);
                    return false;
                }
                Err(_) => {}
            }
        }
        let p = match self.moves.early {
            true => self.edge.min(oldest.saturating_sub(1)),
            false => self.edge,
        };
        self.declare(now, &self.moves.declares.clone(), p)
    }

    /// Declares the first event that is granted; a restart from the other address.
    fn declare(&mut self, now: Now, kinds: &[TransitionKind], p: u64) -> bool {
        for &kind in kinds {
            let home = self.path;
            if matches!(kind, TransitionKind::Restart | TransitionKind::Move) {
                self.path = match home == addresses(1) {
                    true => addresses(2),
                    false => addresses(1),
                };
                self.cookie = None;
            }
            if self.declare_here(now, kind, p) {
                return true;
            }
            self.path = home;
        }
        false
    }

    fn declare_here(&mut self, now: Now, kind: TransitionKind, p: u64) -> bool {
        let Some(held) = &self.held else { return false };
        let epoch = held.content.epoch;
        let declaration = self.declaration(kind, p);
        let Ok(transition) = epoch.transition(declaration) else {
            return false;
        };
        let before = self.event.replace(Event {
            declaration,
            transition,
            acknowledged: p,
        });
        let next = self.next.take();
        let sent = match (kind.has_zone(), self.event) {
            (true, Some(event)) => self.pass(now, event),
            _ => self.repeat_event(now),
        };
        if !sent {
            self.event = before;
            self.next = next;
        }
        sent
    }

    /// Passes a zone as far as it is granted.
    fn pass(&mut self, now: Now, event: Event) -> bool {
        let (transition, after) = (event.transition, event.acknowledged);
        if after == transition.r {
            return self.next.is_some() && self.switch();
        }
        let here = self.received.top().min(transition.r);
        let hasty = [transition.r, here];
        for available in hasty.into_iter().skip(usize::from(!self.moves.hasty)) {
            let upto = transition.max_ack(after, available, MAX_FLIGHT);
            if upto <= after {
                continue;
            }
            if transition.edge(upto) == transition.edge(after) {
                if upto == transition.r {
                    self.acknowledged(upto);
                    return true;
                }
                continue;
            }
            let show = Show {
                after,
                upto,
                reach: here.max(upto),
                event: Some(event.declaration),
            };
            if let Ok(datagram) = self.build(now, &show) {
                self.send(datagram);
                self.acknowledged(upto);
                return true;
            }
        }
        false
    }

    fn acknowledged(&mut self, upto: u64) {
        if let Some(event) = &mut self.event {
            event.acknowledged = upto;
        }
    }

    /// Goes over to the next epoch.
    fn switch(&mut self) -> bool {
        let (Some(next), Some(event)) = (self.next.take(), self.event.take()) else {
            return false;
        };
        self.edge = event.transition.r;
        self.received.forget(next.content.proof_base);
        self.held = Some(next);
        true
    }

    /// Sends the request of an event that gives up its range, again if need be.
    fn repeat_event(&mut self, now: Now) -> bool {
        let Some(event) = self.event else {
            return false;
        };
        let transition = event.transition;
        if transition.kind.has_zone() {
            return false;
        }
        let show = Show {
            after: transition.p,
            upto: transition.r,
            reach: transition.r,
            event: Some(event.declaration),
        };
        match self.build(now, &show) {
            Ok(datagram) => {
                self.send(datagram);
                true
            }
            Err(_) => false,
        }
    }

    /// Restarts from the other address, if it is time and would be granted.
    fn move_away(&mut self, now: Now) -> bool {
        let every = self.rtt * u32::from(self.moves.moves);
        if every.is_zero() || now.instant < self.moved + every {
            return false;
        }
        if self
            .held
            .as_ref()
            .is_none_or(|held| held.content.epoch.base == 0)
        {
            return false;
        }
        let restarts = self.declare(now, &[TransitionKind::Move], self.edge);
        if restarts {
            self.moved = now.instant;
        }
        restarts
    }

    /// Keeps the request of an event for later.
    fn keep_repeat(&mut self, now: Now) {
        let Some(kind) = self.moves.repeats else {
            return;
        };
        let Some(held) = &self.held else { return };
        let epoch = held.content.epoch;
        if self.repeat.is_some() || epoch.base == 0 || epoch.window(self.edge) < 10 {
            return;
        }
        let declaration = self.declaration(kind, self.edge);
        let Ok(transition) = epoch.transition(declaration) else {
            return;
        };
        let show = Show {
            after: self.edge,
            upto: transition.r,
            reach: transition.r,
            event: Some(declaration),
        };
        // It would be granted later, if not now.
        let later = Now {
            unix: UnixMillis::new(now.unix.as_millis() + 2000),
            ..now
        };
        if let Ok(datagram) = self.build(later, &show) {
            self.repeat = Some((now.instant + Duration::from_secs(2), datagram));
        }
    }

    pub(super) fn send_repeat(&mut self, now: Now) {
        if let Some((at, datagram)) = &mut self.repeat {
            *at = now.instant + REPEAT_INTERVAL;
            let datagram = datagram.clone();
            self.send(datagram);
        }
    }

    /// Nothing came for long: repeats the unanswered request, declares timeout, or repeats the OPEN.
    pub(super) fn stalled(&mut self, now: Now) {
        self.stalls += 1;
        self.heard = now.instant;
        if self.id.is_none() {
            self.path = addresses(1);
            self.open(now);
            return;
        }
        if self
            .event
            .is_some_and(|event| !event.transition.kind.has_zone())
            && self.stalls < 3
        {
            self.repeat_event(now);
            return;
        }
        // A timeout is granted at the bound address only.
        if let Some(held) = &self.held {
            self.path.src = held.content.address;
        }
        let p = self.event.map_or(self.edge, |event| event.acknowledged);
        let base = self.held.as_ref().map_or(0, |held| held.content.epoch.base);
        for p in [p, self.edge, base] {
            if self.declare(now, &[TransitionKind::Timeout], p) {
                return;
            }
        }
    }
}
