//! The transmissions of a client in a row that its path really lost.
//!
//! In: the datagrams that the client and the servers send, and those delivered to them. Out: how often the
//! client's back-off has doubled through losses alone. The silence of a server to which a datagram was
//! delivered is not counted.

use std::net::SocketAddr;
use std::time::Duration;

use crate::time::Instant;

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    count: u32,
    last: Option<Transmission>,
}

/// The datagrams that a client sent within [`TOGETHER`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Transmission {
    at: Instant,
    from: SocketAddr,
    /// Whether any of them was delivered to a server, and whether a server has sent something since.
    came: bool,
    answered: bool,
}

/// Least time between two transmissions of a client that backs off: a retransmission timeout.
const TOGETHER: Duration = Duration::from_millis(200);

impl Lost {
    /// The transmissions lost since the last progress.
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// Takes note of progress.
    pub(super) fn progressed(&mut self) {
        self.count = 0;
    }

    /// Takes note that the client sends a datagram.
    pub(super) fn sent(&mut self, now: Instant, from: SocketAddr) {
        let last = self.last.take();
        self.last = match last {
            Some(last) if now.saturating_since(last.at) < TOGETHER => {
                Some(Transmission { from, ..last })
            }
            last => {
                let lost = |last: &Transmission| !last.came || last.answered;
                self.count += u32::from(last.as_ref().is_some_and(lost));
                Some(Transmission {
                    at: now,
                    from,
                    came: false,
                    answered: false,
                })
            }
        };
    }

    /// Takes note that a server is delivered a datagram from an address.
    pub(super) fn came(&mut self, from: SocketAddr) {
        if let Some(last) = self.last.as_mut().filter(|last| last.from == from) {
            last.came = true;
        }
    }

    /// Takes note that a server sends a datagram to an address.
    pub(super) fn answered(&mut self, to: SocketAddr) {
        if let Some(last) = self.last.as_mut().filter(|last| last.from == to) {
            last.answered = true;
        }
    }

    /// Takes note that the client is delivered a datagram.
    pub(super) fn received(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_count_and_a_silent_server_does_not() {
        let mut lost = Lost::default();
        let client = SocketAddr::from(([10, 0, 0, 1], 1));
        let other = SocketAddr::from(([10, 0, 0, 2], 1));
        let at = |ms: u64| Instant::from_micros(ms * 1000);
        lost.sent(at(0), client);
        lost.sent(at(100), client);
        lost.came(other);
        assert_eq!(
            lost.count(),
            0,
            "one transmission, and no time for an answer"
        );
        lost.sent(at(300), client);
        assert_eq!(lost.count(), 1, "no server was delivered it");
        lost.came(client);
        lost.sent(at(600), client);
        assert_eq!(lost.count(), 1, "the server was silent");
        lost.came(client);
        lost.answered(client);
        lost.sent(at(1200), client);
        assert_eq!(lost.count(), 2, "the answer was lost");
        lost.received();
        lost.sent(at(2400), client);
        assert_eq!(lost.count(), 2);
        lost.progressed();
        assert_eq!(lost.count(), 0);
    }
}
