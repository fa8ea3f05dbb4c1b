//! The bytes that servers send towards addresses whose holders have received nothing lately.
//!
//! In: what servers and clients are delivered, and what servers send. Out: the bytes
//! that came in the name of an address since its holder received anything, and those sent to it. The rule is
//! implemented here from the packets that really arrived, not from the claim of a request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::time::Instant;
use crate::transport::continuation::{MAX_CLOCK_SKEW, RECENT};

/// Time after its last packet for which an address may be sent more. Clocks of two servers differ.
const LATELY: Duration = RECENT
    .saturating_add(MAX_CLOCK_SKEW)
    .saturating_add(MAX_CLOCK_SKEW);

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Towards(BTreeMap<SocketAddr, Address>);

#[derive(Debug, Default)]
struct Address {
    /// When its holder last received something.
    received: Option<Instant>,
    /// Bytes that came in its name since, and bytes that were sent to it since it counts as silent.
    came: usize,
    sent: usize,
}

impl Towards {
    /// Takes note that the holder of an address has received a datagram.
    pub(super) fn received(&mut self, now: Instant, holder: SocketAddr) {
        let address = self.0.entry(holder).or_default();
        *address = Address {
            received: Some(now),
            ..Address::default()
        };
    }

    /// Takes note that a server was delivered `bytes` in the name of an address.
    pub(super) fn came(&mut self, from: SocketAddr, bytes: usize) {
        self.0.entry(from).or_default().came += bytes;
    }

    /// Takes note that a server sends `bytes` to an address. Returns the bytes that came in its name, and those
    /// that were sent, since it counts as silent; none were sent if it has received something lately.
    pub(super) fn sent(&mut self, now: Instant, to: SocketAddr, bytes: usize) -> (usize, usize) {
        let address = self.0.entry(to).or_default();
        let lately = |at: Instant| now.saturating_since(at) <= LATELY;
        if !address.received.is_some_and(lately) {
            address.sent += bytes;
        }
        (address.came, address.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_unless_the_holder_has_received_lately() {
        let (mut towards, to) = (Towards::default(), SocketAddr::from(([10, 0, 0, 1], 1)));
        let at = |secs: u64| Instant::from_micros(secs * 1_000_000);
        assert_eq!(towards.sent(at(0), to, 1), (0, 1), "unasked");
        towards.came(to, 100);
        assert_eq!(towards.sent(at(0), to, 300), (100, 301));
        towards.received(at(1), to);
        assert_eq!(towards.sent(at(33), to, 1_000_000), (0, 0), "lately");
        assert_eq!(towards.sent(at(34), to, 1), (0, 1));
        towards.came(to, 1);
        assert_eq!(towards.sent(at(35), to, 2), (1, 3));
    }
}
