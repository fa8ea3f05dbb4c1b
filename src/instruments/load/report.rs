//! What a load run has seen, as the figures that are printed.
//!
//! In: counts. Out: plain values that `cli` writes as JSON; names of fields are part of what scripts
//! rely on. Nothing is counted by connection but the bytes of downloads.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::histogram::Histogram;
use crate::transport::client::ClientStats;

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
    /// What requests on kept connections took, if any were made.
    pub live: Option<RequestReport>,
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

/// Figures of many downloads at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DownloadReport {
    /// Downloads wanted.
    pub connections: u32,
    /// Downloads of which any byte came.
    pub began: u32,
    /// Stream bytes of all since the start.
    pub bytes: u64,
    /// Stream bytes of all in the time that counts.
    pub window_bytes: u64,
    /// The time that counts, in seconds.
    pub window_seconds: f64,
    /// Time between two samples, in seconds.
    pub tick_seconds: f64,
    /// Bytes of all since the start, a sample a tick.
    pub samples: Vec<u64>,
    /// Stream bytes of each in the time that counts.
    pub window_bytes_each: Vec<u64>,
    /// Responses begun, by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Responses that were whole, and asked for again.
    pub finished: u64,
    /// Responses given up because the object had changed.
    pub changed: u64,
    /// Responses given up for want of any answer.
    pub timed_out: u64,
    /// OPENs sent.
    pub opens: u64,
    /// Requests sent.
    pub requests: u64,
    /// Numbers given up as lost.
    pub lost: u64,
    /// Requests repeated because their whole flight was missing.
    pub repeated: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Datagrams received.
    pub packets_in: u64,
    /// Datagrams sent.
    pub packets_out: u64,
    /// UDP payload received, in bytes.
    pub bytes_in: u64,
    /// UDP payload sent, in bytes.
    pub bytes_out: u64,
    /// Datagrams received that belong to no download.
    pub strays: u64,
}

/// Figures of requests on connections of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RequestReport {
    /// Requests that were begun and meant to begin in the time that counts.
    pub began: u64,
    /// Requests that were answered in the time that counts.
    pub completed: u64,
    /// The time that counts, in seconds.
    pub window_seconds: f64,
    /// Requests answered a second.
    pub per_second: f64,
    /// Requests that failed, by reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// Requests that had not ended when the run did, or never began although they were meant to.
    pub unfinished: u64,
    /// Bytes of the bodies.
    pub body_bytes: u64,
    /// Responses, by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// From the instant at which a request was meant to begin to the end of its answer.
    pub latency: Latency,
    /// The first latencies one by one, in microseconds.
    pub samples_us: Vec<u64>,
    /// What connections of our transport did, if there were any.
    pub transport: Option<TransportReport>,
}

/// Quantiles of latencies, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Latencies counted.
    pub count: u64,
    /// Mean.
    pub mean_us: u64,
    /// Median.
    pub p50_us: u64,
    /// 90 of 100 are no longer.
    pub p90_us: u64,
    /// 99 of 100 are no longer.
    pub p99_us: u64,
    /// 999 of 1000 are no longer.
    pub p999_us: u64,
    /// Longest.
    pub max_us: u64,
}

impl Latency {
    /// What a histogram says.
    #[must_use]
    pub fn of(histogram: &Histogram) -> Self {
        let summary = histogram.summary();
        Self {
            count: summary.count,
            mean_us: summary.mean_us,
            p50_us: summary.p50_us,
            p90_us: histogram.quantile(900),
            p99_us: summary.p99_us,
            p999_us: histogram.quantile(999),
            max_us: summary.max_us,
        }
    }
}

/// Figures of the connections of our transport that carried requests, the warm-up included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TransportReport {
    /// OPENs sent.
    pub opens: u64,
    /// Requests sent.
    pub requests: u64,
    /// Numbers given up as lost.
    pub lost: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Datagrams received.
    pub packets_in: u64,
    /// Datagrams sent.
    pub packets_out: u64,
    /// Datagrams received of connections that were over.
    pub strays: u64,
}

impl TransportReport {
    /// Adds the counters of a connection that is over.
    pub(super) const fn add(&mut self, stats: &ClientStats) {
        self.opens += stats.opens;
        self.requests += stats.requests;
        self.lost += stats.lost;
        self.timeouts += stats.timeouts;
        self.packets_in += stats.packets_in;
        self.packets_out += stats.packets_out;
    }
}

impl DownloadReport {
    /// Adds the counters of one of the downloads.
    pub(super) fn add(&mut self, bytes: u64, window_bytes: u64, stats: &ClientStats) {
        self.began += u32::from(bytes > 0);
        self.window_bytes += window_bytes;
        self.window_bytes_each.push(window_bytes);
        self.opens += stats.opens;
        self.requests += stats.requests;
        self.lost += stats.lost;
        self.repeated += stats.repeated;
        self.timeouts += stats.timeouts;
        self.packets_in += stats.packets_in;
        self.packets_out += stats.packets_out;
        self.bytes_in += stats.bytes_in;
        self.bytes_out += stats.bytes_out;
    }
}
