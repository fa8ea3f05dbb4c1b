//! Proof of a client's address: tokens, challenges and cookies; and the identity of a connection.
//!
//! In: datagrams with their addresses. Out: whether an address is proven, or a challenge. Keeps no
//! state but the soft state of fixed size.

use std::net::{IpAddr, SocketAddr};

use super::bound::is_recent;
use super::{MAX_CHALLENGE_AGE, Server, ServerDrop};
use crate::time::{Now, UnixMillis};
use crate::transport::continuation::{Continuation, MAX_CLOCK_SKEW, MAX_TOKEN_AGE, OpenError};
use crate::transport::epoch::KNOWN_WINDOW;
use crate::transport::proof::ProofKey;
use crate::wire::flight::{Ecn, Flight, UdpPath};
use crate::wire::ip::udp_headers;
use crate::wire::segment::{Challenge, Cookie, Request, Token};

/// The meaning of a token for the address that shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: there is none, or it is not accepted.
    Not,
    /// Its client received there within the hour: work may begin for it.
    Once,
    /// Its client received there lately: a whole window may be sent. Bytes as many as the answer had that the
    /// token came with are earned by it.
    Lately { earned: usize },
}

impl Server {
    /// Judges an address token. Genuine ones are accepted once; one from a connection
    /// whose client never proved its address says nothing.
    pub(super) fn token_proves(&mut self, now: Now, path: UdpPath, token: Token<'_>) -> Known {
        let opened = Continuation::open(
            &self.keys,
            token.connection,
            now.unix,
            MAX_TOKEN_AGE,
            token.sealed,
        );
        let Ok((continuation, issued)) = opened else {
            return Known::Not;
        };
        if !continuation.proven || continuation.address.ip() != path.src.ip() {
            return Known::Not;
        }
        // No packet has numbers this high (epoch::MAX_NUMBER), so they can represent times of tokens.
        let shown = u64::MAX - (issued.as_millis() % (1 << 60));
        let connection = continuation.identity.hash();
        let fresh = self.filter.unsent(connection, shown, 1) != 0;
        self.filter.mark(connection, shown, 1);
        let opening = continuation.epoch.base == 0;
        let packets = if opening { continuation.epoch.c } else { 0 };
        let packets = usize::try_from(packets.min(KNOWN_WINDOW)).unwrap_or(0);
        match (fresh, is_recent(now.unix, issued)) {
            (false, _) => Known::Not,
            (true, false) => Known::Once,
            (true, true) => Known::Lately {
                earned: packets
                    * (usize::from(continuation.datagram_max) + udp_headers(path.src.ip())),
            },
        }
    }

    /// Derives a new connection id and proof key: unpredictable without the cluster key, and different
    /// for the same OPEN a millisecond later or on another server.
    pub(super) fn new_identity(&self, now: Now, path: UdpPath, echo: u64) -> (u64, ProofKey) {
        let mut room = [0; ADDRESS_BYTES];
        let (connection, key) = self.keys.active().identity(&[
            &echo.to_be_bytes(),
            &now.unix.as_millis().to_be_bytes(),
            &self.config.server_id.to_be_bytes(),
            address_bytes(path.src, &mut room),
        ]);
        (connection, ProofKey::new(key))
    }

    /// Whether the request echoes a challenge of its own address.
    pub(super) fn cookie_verifies(&self, now: Now, path: UdpPath, request: &Request<'_>) -> bool {
        let Some(cookie) = request.cookie else {
            return false;
        };
        let time = UnixMillis::new(cookie.time);
        let fresh = now.unix.saturating_since(time) <= MAX_CHALLENGE_AGE
            && time.saturating_since(now.unix) <= MAX_CLOCK_SKEW;
        let mac = self.cookie_mac(request, path, cookie.time);
        fresh && mac.is_some_and(|mac| constant_time_equal(&mac, &cookie.mac))
    }

    /// The MAC of a challenge, under the generation that sealed its continuation.
    pub(super) fn cookie_mac(
        &self,
        request: &Request<'_>,
        path: UdpPath,
        time: u64,
    ) -> Option<[u8; 16]> {
        let generation = *request.continuation.get(1)?;
        let mut room = [0; ADDRESS_BYTES];
        Some(self.keys.generation(generation)?.challenge(&[
            &request.connection.to_be_bytes(),
            &time.to_be_bytes(),
            address_bytes(path.src, &mut room),
            request.continuation,
        ]))
    }

    /// Builds a path challenge to the new address; smaller than any request.
    pub(super) fn challenge(
        &mut self,
        now: Now,
        path: UdpPath,
        request: &Request<'_>,
        bound: IpAddr,
    ) -> Result<Flight, ServerDrop> {
        let time = now.unix.as_millis();
        let mac = self
            .cookie_mac(request, path, time)
            .ok_or(ServerDrop::Open(OpenError::Generation))?;
        let mut payload = Vec::new();
        Challenge {
            connection: request.connection,
            server: self.config.server_id,
            moved: bound != path.src.ip(),
            cookie: Cookie { time, mac },
        }
        .emit(&mut payload);
        self.counters.challenges += 1;
        Ok(Flight::single(path.reversed(), Ecn::NotEct, payload))
    }
}

/// Compares in constant time.
fn constant_time_equal(a: &[u8; 16], b: &[u8; 16]) -> bool {
    a.iter()
        .zip(b)
        .fold(0, |difference, (a, b)| difference | (a ^ b))
        == 0
}

/// Bytes of an IPv6 address and a port.
const ADDRESS_BYTES: usize = 18;

/// Writes address and port at the end of `room`: a mapped IPv4 address ends with its own four bytes.
fn address_bytes(address: SocketAddr, room: &mut [u8; ADDRESS_BYTES]) -> &[u8] {
    let (ip, unused) = match address.ip() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped(), 12),
        IpAddr::V6(ip) => (ip, 0),
    };
    let bytes = ip.octets().into_iter().chain(address.port().to_be_bytes());
    for (to, byte) in room.iter_mut().zip(bytes) {
        *to = byte;
    }
    room.get(unused..).unwrap_or_default()
}
