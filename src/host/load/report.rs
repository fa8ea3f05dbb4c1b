//! What a load run has seen, as the figures that are printed.
//!
//! In: counts. Out: plain values that `cli` writes as JSON; names of fields are part of what scripts
//! rely on. Nothing is counted by connection.

use std::collections::BTreeMap;

use serde::Serialize;

/// Figures of a load run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LoadReport {
    /// Connections wanted.
    pub connections: u32,
    /// Connections that were opened, proven and kept.
    pub opened: u32,
    /// Connections given up.
    pub failed: u32,
    /// Seconds from the first OPEN to the last connection opened or given up.
    pub opening_seconds: f64,
    /// Bytes a connection takes here while it is idle.
    pub state_bytes_per_connection: u64,
    /// Responses begun, by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// OPENs sent.
    pub opens: u64,
    /// Requests sent.
    pub requests: u64,
    /// OPENs and requests that were sent because an answer did not come.
    pub retries: u64,
    /// Datagrams received.
    pub packets_in: u64,
    /// Datagrams sent.
    pub packets_out: u64,
    /// UDP payload received, in bytes.
    pub bytes_in: u64,
    /// UDP payload sent, in bytes.
    pub bytes_out: u64,
    /// Datagrams received that nobody waited for: late, repeated or not ours.
    pub strays: u64,
    /// Kept connections that went on after the pause.
    pub resumed: u32,
    /// Kept connections that did not.
    pub not_resumed: u32,
    /// What mutated packets led to, if any were sent.
    pub hostile: Option<HostileReport>,
}

/// Figures of the mutated packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostileReport {
    /// Mutated packets sent, by kind of mutation.
    pub sent: BTreeMap<&'static str, u64>,
    /// Their UDP payload in bytes.
    pub bytes_out: u64,
    /// Replies to them, by kind.
    pub replies: BTreeMap<&'static str, u64>,
    /// UDP payload of the replies in bytes.
    pub bytes_in: u64,
    /// Sound OPENs sent between the mutated packets to see whether the server answers.
    pub pulses: u64,
    /// Those that were not answered in time.
    pub pulses_missed: u64,
    /// The server answered no more, and the rest was not sent.
    pub silent: bool,
}

impl HostileReport {
    /// Mutated packets sent.
    #[must_use]
    pub fn sent_total(&self) -> u64 {
        self.sent.values().sum()
    }
}
