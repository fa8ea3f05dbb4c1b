//! An adversary that has left its address: it receives nothing any more, and sends on in the name of the
//! address, towards its present holder.
//!
//! In: continuations, proofs and tokens from before. Out: restarts, timeouts, acknowledgements that it withheld,
//! and OPENs with tokens. All of them are sound, and prove nothing of the present.

use std::time::Duration;

use super::Adversary;
use crate::transport::continuation::RECENT;
use crate::transport::epoch::TransitionKind;
use crate::wire::segment::{Open, Token, Wanted};

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
}
