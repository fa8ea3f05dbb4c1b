//! An adversary that gives numbers up: by timeouts, and by moving between its two addresses.
//!
//! In: continuations and proofs, and challenges of the address that it has moved to. Out: timeouts, restarts and
//! moves on any epoch that it holds, at any edge that it can prove, as often as it likes.

use super::{Adversary, OBJECT_BYTES, fold};
use crate::transport::epoch::{Declaration, TransitionKind};
use crate::wire::segment::{Challenge, Cookie, Declared, Request, Span, Wanted};

impl Adversary {
    /// Gives up on any epoch that it holds.
    pub(super) fn give_up(&mut self, kind: TransitionKind) -> Option<Vec<u8>> {
        let index = self.dice.index(self.connections.len());
        let held = self.dice.index(self.connections.get(index)?.held.len());
        self.give_up_on(index, held, kind, None)
    }

    /// Answers a challenge, which is bound to one continuation, with the latest two.
    pub(super) fn answer(&mut self, challenge: &Challenge) {
        let mut known = self.connections.iter();
        let Some(index) = known.position(|known| known.id == challenge.connection) else {
            return;
        };
        let held = self
            .connections
            .get(index)
            .map_or(0, |known| known.held.len());
        for held in held.saturating_sub(2)..held {
            let kind = match (challenge.moved, self.dice.chance(50)) {
                (true, true) => TransitionKind::Move,
                (true, false) => TransitionKind::Restart,
                (false, _) => TransitionKind::Timeout,
            };
            if let Some(datagram) = self.give_up_on(index, held, kind, Some(challenge.cookie)) {
                self.send(datagram);
            }
        }
    }

    fn give_up_on(
        &mut self,
        connection: usize,
        held: usize,
        kind: TransitionKind,
        cookie: Option<Cookie>,
    ) -> Option<Vec<u8>> {
        let connection = self.connections.get(connection)?;
        let held = connection.held.get(held)?;
        let edge = held.edge.max(held.epoch.base);
        let p = match self.dice.chance(50) {
            true => edge,
            false => self.dice.between(held.epoch.base, edge),
        };
        let transition = held
            .epoch
            .transition(Declaration::new(kind, p, RTT_US.into()))
            .ok()?;
        let (base, proven) = match kind == TransitionKind::Restart {
            true => (held.proof_base, transition.r),
            false => (held.epoch.base, p),
        };
        let (proof, holes) = fold(&connection.proofs, base, proven);
        let mut datagram = Vec::new();
        Request {
            wants_continuation: self.dice.chance(50),
            continuation: &held.sealed,
            after: p,
            upto: transition.r,
            reach: transition.r,
            proof,
            holes,
            declared: Some(Declared {
                kind: kind.code(),
                edge: p,
                rtt_us: RTT_US,
            }),
            cookie,
            ranges: vec![Span {
                start: 0,
                end: OBJECT_BYTES,
            }],
            wanted: Wanted::Of(&connection.user),
            ..Request::empty(connection.id, self.size, 1)
        }
        .emit(&mut datagram);
        Some(datagram)
    }
}

/// The round trip of its declarations, in microseconds.
const RTT_US: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::super::{Held, ObservedConnection};
    use super::*;
    use crate::sim::Options;
    use crate::sim::machines::ring;
    use crate::sim::scenario::{LAST_STAGE, Scenario};
    use crate::transport::epoch::Epoch;
    use crate::wire::flight::Flight;
    use crate::wire::segment::ToServer;

    #[test]
    fn a_challenge_is_answered_with_the_latest_two_continuations() {
        let scenario = Scenario::draw(1, &Options::default());
        let plan = scenario.clients.first().unwrap();
        assert_ne!(plan.local.ip(), plan.second_address().ip());
        let mut adversary = Adversary::new(plan, ring(scenario.secret, LAST_STAGE));
        let mut known = ObservedConnection::new(7);
        known.held.extend((1..=3_u8).map(|n| Held {
            sealed: vec![n; 63],
            epoch: Epoch::opening(3),
            proof_base: 0,
            edge: 0,
            event: None,
        }));
        adversary.connections.push(known);
        let cookie = Cookie {
            time: 5,
            mac: [9; 16],
        };
        let mut challenge = Challenge {
            connection: 8,
            server: 1,
            moved: true,
            cookie,
        };
        adversary.answer(&challenge);
        assert!(adversary.out.is_empty(), "of another connection");
        challenge.connection = 7;
        adversary.answer(&challenge);
        let shown: Vec<u8> = adversary
            .out
            .iter()
            .flat_map(Flight::datagrams)
            .filter_map(|datagram| match ToServer::parse(&datagram) {
                Ok(ToServer::Request(request)) if request.cookie == Some(cookie) => {
                    request.continuation.first().copied()
                }
                _ => None,
            })
            .collect();
        assert_eq!(shown, [2, 3]);
    }
}
