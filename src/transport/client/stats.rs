//! The counters of a connection; see [`ClientStats`].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::transport::epoch::TransitionKind;

/// Servers distinguished in the statistics; packets of further ones are counted under id 65,535.
pub const MAX_SERVERS: usize = 256;

/// Counters of a connection; all only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Datagrams received.
    pub packets_in: u64,
    /// Datagrams sent.
    pub packets_out: u64,
    /// UDP payload bytes received.
    pub bytes_in: u64,
    /// UDP payload bytes sent.
    pub bytes_out: u64,
    /// Stream bytes received (each counted once).
    pub stream_bytes: u64,
    /// Connections established: 1 unless the service forgot the first.
    pub handshakes: u64,
    /// OPEN datagrams sent.
    pub opens: u64,
    /// Requests sent (OPENs and probes not counted).
    pub requests: u64,
    /// Numbers given up as lost.
    pub lost: u64,
    /// Requests sent again because their whole flight was missing.
    pub repeated: u64,
    /// Requests of servers to wait for bytes that are not there yet.
    pub waits: u64,
    /// Requests sent again after such a wait.
    pub asked_again: u64,
    /// Probes sent.
    pub probes: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Copies of overdue requests to a spare address.
    pub copies: u64,
    /// Times that the connection went on at a spare address.
    pub switches: u64,
    /// Transitions declared, by kind.
    pub transitions: BTreeMap<&'static str, u64>,
    /// Smallest round trip to the server that answers now, or to the nearest if several do by turns.
    pub rtt_min: Option<Duration>,
    /// Smoothed round trip, if any.
    pub rtt_smoothed: Option<Duration>,
    /// Present congestion window in packets; 0 before the first answer.
    pub window: u32,
    /// Numbered packets received, by server id.
    pub by_server: BTreeMap<u16, u64>,
    /// Smallest round trip seen, by server id, of those in `by_server`.
    pub rtt_min_by_server: BTreeMap<u16, Duration>,
    /// Datagrams dropped, by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// Longest time without a new stream byte while one was wanted.
    pub longest_stall: Duration,
}

impl ClientStats {
    pub(super) fn dropped(&mut self, reason: &'static str) {
        *self.drops.entry(reason).or_default() += 1;
    }

    pub(super) fn declared(&mut self, kind: TransitionKind) {
        *self.transitions.entry(kind.label()).or_default() += 1;
    }

    pub(super) fn round_trip(&mut self, server: u16, round_trip: Duration) {
        if self.by_server.contains_key(&server) {
            let least = self.rtt_min_by_server.entry(server).or_insert(round_trip);
            *least = round_trip.min(*least);
        }
    }

    pub(super) fn answered_by(&mut self, server: u16) {
        if let Some(count) = self.by_server.get_mut(&server) {
            *count += 1;
            return;
        }
        let room = self.by_server.len() < MAX_SERVERS;
        let name = if room { server } else { u16::MAX };
        *self.by_server.entry(name).or_default() += 1;
    }
}
