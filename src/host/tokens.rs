//! Address tokens that a client keeps for later connections.
//!
//! In: the continuations of ended connections, and the wall clock. Out: the token to send to a
//! service. A token proves the address it was sealed for, so the store keeps the newest token of each
//! pair of own address and service, and of all pairs the newest [`MAX_TOKENS`]. Does no I/O.

use std::net::{IpAddr, SocketAddr};

use crate::time::UnixMillis;
use crate::transport::client::AddressToken;
use crate::transport::continuation::{MAX_CLOCK_SKEW, MAX_TOKEN_AGE};

/// Most tokens in a store.
pub const MAX_TOKENS: usize = 256;

/// A token and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Own address that it proves.
    pub local: IpAddr,
    /// The service to send it to.
    pub service: SocketAddr,
    /// Time of receipt, by the local wall clock.
    pub received: UnixMillis,
    /// The token.
    pub token: AddressToken,
}

impl Remembered {
    /// Whether a server may accept it. After the local clock was set back a token can lie in the
    /// future: its age is unknown.
    fn is_fresh(&self, now: UnixMillis) -> bool {
        now.saturating_since(self.received) <= MAX_TOKEN_AGE
            && self.received.saturating_since(now) <= MAX_CLOCK_SKEW
    }

    fn is_for(&self, local: IpAddr, service: SocketAddr) -> bool {
        (self.local, self.service) == (local, service)
    }
}

/// The tokens of a client, in order of receipt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Remembered>);

impl Tokens {
    /// Adds a token in place of an older one for the same pair; evicts the oldest beyond the bound.
    pub fn remember(&mut self, token: Remembered) {
        let same = |known: &Remembered| known.is_for(token.local, token.service);
        if self
            .0
            .iter()
            .any(|known| same(known) && known.received > token.received)
        {
            return;
        }
        self.0.retain(|known| !same(known));
        let place = self
            .0
            .partition_point(|known| known.received <= token.received);
        self.0.insert(place, token);
        let excess = self.0.len().saturating_sub(MAX_TOKENS);
        self.0.drain(..excess);
    }

    /// Returns the token to send to `service` from `local`, unless it is expired.
    #[must_use]
    pub fn get(
        &self,
        now: UnixMillis,
        local: IpAddr,
        service: SocketAddr,
    ) -> Option<&AddressToken> {
        let mut known = self.0.iter();
        let found = known.find(|known| known.is_for(local, service) && known.is_fresh(now))?;
        Some(&found.token)
    }

    /// Removes expired tokens.
    pub fn expire(&mut self, now: UnixMillis) {
        self.0.retain(|known| known.is_fresh(now));
    }

    /// Iterates over all tokens, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Remembered> {
        self.0.iter()
    }

    /// Whether there are no tokens.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn token(service: u16, received: u64, connection: u64) -> Remembered {
        Remembered {
            local: "10.0.0.1".parse().unwrap(),
            service: SocketAddr::new("10.0.0.2".parse().unwrap(), service),
            received: UnixMillis::new(received),
            token: AddressToken {
                connection,
                sealed: vec![7; 40],
            },
        }
    }

    fn connections(tokens: &Tokens) -> Vec<u64> {
        tokens.iter().map(|known| known.token.connection).collect()
    }

    #[test]
    fn the_newest_of_each_pair_is_kept() {
        let mut tokens = Tokens::default();
        tokens.remember(token(1, NOW, 1));
        tokens.remember(token(2, NOW - 1, 2));
        assert_eq!(connections(&tokens), [2, 1], "the oldest first");
        tokens.remember(token(2, NOW - 2, 3));
        assert_eq!(connections(&tokens), [2, 1], "older than the one known");
        tokens.remember(token(2, NOW + 1, 4));
        assert_eq!(connections(&tokens), [1, 4]);
        let elsewhere = Remembered {
            local: "10.0.0.9".parse().unwrap(),
            ..token(2, NOW, 5)
        };
        tokens.remember(elsewhere.clone());
        let now = UnixMillis::new(NOW);
        let shown = |from: &Remembered, tokens: &Tokens| {
            let token = tokens.get(now, from.local, from.service);
            token.map(|token| token.connection)
        };
        assert_eq!(shown(&elsewhere, &tokens), Some(5), "by own address");
        assert_eq!(shown(&token(2, 0, 0), &tokens), Some(4), "and service");
        assert_eq!(shown(&token(3, 0, 0), &tokens), None);
    }

    #[test]
    fn the_oldest_of_too_many_goes() {
        let mut tokens = Tokens::default();
        for n in 0..=MAX_TOKENS as u64 {
            tokens.remember(token(n as u16, NOW + n, n));
        }
        let kept: Vec<u64> = (1..=MAX_TOKENS as u64).collect();
        assert_eq!(connections(&tokens), kept);
    }

    #[test]
    fn what_no_server_would_take_is_not_shown() {
        let age = MAX_TOKEN_AGE.as_millis() as u64;
        let skew = MAX_CLOCK_SKEW.as_millis() as u64;
        let cases = [
            (NOW - age, true),
            (NOW - age - 1, false),
            (NOW + skew, true),
            (NOW + skew + 1, false),
        ];
        for (received, want) in cases {
            let (now, one) = (UnixMillis::new(NOW), token(1, received, 1));
            let mut tokens = Tokens::default();
            tokens.remember(one.clone());
            let shown = tokens.get(now, one.local, one.service);
            assert_eq!(shown.is_some(), want, "received {received}");
            tokens.expire(now);
            assert_eq!(!tokens.is_empty(), want, "received {received}");
        }
    }
}
