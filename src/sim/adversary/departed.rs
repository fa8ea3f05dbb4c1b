//! An adversary that has left its address: it receives nothing any more, and sends on in the name of the
//! address, towards its present holder.
//!
//! In: continuations, proofs and tokens from before. Out: restarts, timeouts, acknowledgements that it withheld,
//! and OPENs with tokens. All of them are sound, and prove nothing of the present.

use std::time::Duration;

use super::{Adversary, OBJECT_BYTES, fold};
use crate::transport::continuation::RECENT;
use crate::transport::epoch::{Declaration, TransitionKind};
use crate::wire::segment::{Declared, Open, Request, Span, Token, Wanted};

/// How long it says nothing after it has left: until nothing that it holds is recent, by any clock.
pub(super) const SILENT_FOR: Duration = RECENT.saturating_add(Duration::from_secs(5));

/// How long it sends then.
pub(super) const SENDS_FOR: Duration = Duration::from_secs(2);

impl Adversary {
    /// A request in the name of the address that it has left.
    pub(super) fn request_from_afar(&mut self) -> Option<Vec<u8>> {
        match self.dice.between(0, 3) {
            0 => self.open_with_token(),
            1 => self.request(),
            2 => self.give_up(TransitionKind::Timeout),
            _ => self.give_up(TransitionKind::Move),
        }
    }

    fn open_with_token(&mut self) -> Option<Vec<u8>> {
        let index = self.dice.index(self.connections.len());
        let connection = self.connections.get(index)?;
        let held = connection
            .held
            .get(self.dice.index(connection.held.len()))?;
        let mut datagram = Vec::new();
        Open {
            echo: self.dice.seed(),
            size: self.size,
            stream: 1,
            token: Some(Token {
                connection: connection.id,
                sealed: &held.sealed,
            }),
            wanted: Wanted::Of(&connection.user),
            offset: 0,
        }
        .emit(&mut datagram);
        Some(datagram)
    }

    /// Declares a timeout or restart on any epoch that it holds, at any edge that it can prove.
    fn give_up(&mut self, kind: TransitionKind) -> Option<Vec<u8>> {
        let index = self.dice.index(self.connections.len());
        let connection = self.connections.get(index)?;
        let held = connection
            .held
            .get(self.dice.index(connection.held.len()))?;
        let base = held.epoch.base;
        let p = self.dice.between(base, held.edge.max(base));
        let transition = held
            .epoch
            .transition(Declaration::new(kind, p, 1000))
            .ok()?;
        let (proof, holes) = fold(&connection.proofs, base, p);
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
                rtt_us: 1000,
            }),
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
