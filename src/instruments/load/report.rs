//! The results of a load run, as printed.
//!
//! In: counts. Out: plain values that `cli` writes as JSON; scripts rely on the names of fields. Only
//! the bytes of downloads are counted per connection.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::histogram::Histogram;
use crate::transport::client::ClientStats;

/// Results of a load run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LoadReport {
    /// Connections requested.
    pub connections: u32,
    /// Connections opened, proven and held.
    pub opened: u32,
    /// Connections that failed.
    pub failed: u32,
    /// Seconds from the first OPEN until the last connection opened or failed.
    pub opening_seconds: f64,
    /// Client memory of an idle connection, in bytes.
    pub state_bytes_per_connection: u64,
    /// Responses started, by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// OPENs sent.
    pub opens: u64,
    /// Requests sent.
    pub requests: u64,
    /// OPENs and requests retransmitted for lack of an answer.
    pub retries: u64,
    /// Datagrams received.
    pub packets_in: u64,
    /// Datagrams sent.
    pub packets_out: u64,
    /// UDP payload received, in bytes.
    pub bytes_in: u64,
    /// UDP payload sent, in bytes.
    pub bytes_out: u64,
    /// Unexpected datagrams received: late, duplicate or foreign.
    pub strays: u64,
    /// Held connections that resumed after the pause.
    pub resumed: u32,
    /// Held connections that did not.
    pub not_resumed: u32,
    /// Results of mutated packets, if any were sent.
    pub hostile: Option<HostileReport>,
    /// Results of requests on held connections, if any were sent.
    pub live: Option<RequestReport>,
}

/// Results of mutated packets.
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
    /// Valid OPENs sent between mutated packets to probe the server.
    pub pulses: u64,
    /// Probes not answered in time.
    pub pulses_missed: u64,
    /// Whether the server stopped responding; the remaining packets were not sent.
    pub silent: bool,
}

impl HostileReport {
    /// Returns the number of mutated packets sent.
    #[must_use]
    pub fn sent_total(&self) -> u64 {
        self.sent.values().sum()
    }
}

/// Results of concurrent downloads.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DownloadReport {
    /// Downloads requested.
    pub connections: u32,
    /// Downloads with at least one byte received.
    pub began: u32,
    /// Stream bytes of all downloads since the start.
    pub bytes: u64,
    /// Stream bytes of all downloads in the measured interval.
    pub window_bytes: u64,
    /// The measured interval in seconds.
    pub window_seconds: f64,
    /// Interval between two samples, in seconds.
    pub tick_seconds: f64,
    /// Bytes of all downloads since the start, one sample per tick.
    pub samples: Vec<u64>,
    /// Stream bytes of each download in the measured interval.
    pub window_bytes_each: Vec<u64>,
    /// Responses started, by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Responses completed; each download then started over.
    pub finished: u64,
    /// Responses aborted because the object had changed.
    pub changed: u64,
    /// Responses aborted for lack of any answer.
    pub timed_out: u64,
    /// OPENs sent.
    pub opens: u64,
    /// Requests sent.
    pub requests: u64,
    /// Packet numbers declared lost.
    pub lost: u64,
    /// Requests retransmitted because their whole flight was lost.
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
    /// Datagrams received for no download.
    pub strays: u64,
}

/// Results of requests on connections of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RequestReport {
    /// Requests started whose scheduled start was in the measured interval.
    pub began: u64,
    /// Requests completed in the measured interval.
    pub completed: u64,
    /// The measured interval in seconds.
    pub window_seconds: f64,
    /// Requests completed per second.
    pub per_second: f64,
    /// Requests that failed, by reason.
    pub failed: BTreeMap<&'static str, u64>,
    /// Requests in progress at the end of the run, or scheduled but never started.
    pub unfinished: u64,
    /// Body bytes.
    pub body_bytes: u64,
    /// Responses, by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Time from the scheduled start of a request to the end of its response.
    pub latency: Latency,
    /// The first single latencies, in microseconds.
    pub samples_us: Vec<u64>,
    /// Counters of our transport's connections, if there were any.
    pub transport: Option<TransportReport>,
}

/// Percentiles of latencies, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Number of latencies.
    pub count: u64,
    /// Mean.
    pub mean_us: u64,
    /// Median.
    pub p50_us: u64,
    /// 90th percentile.
    pub p90_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// 99.9th percentile.
    pub p999_us: u64,
    /// Maximum.
    pub max_us: u64,
}

impl Latency {
    /// Computes the percentiles of a histogram.
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

/// Counters of our transport's connections that carried requests, including the warm-up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TransportReport {
    /// OPENs sent.
    pub opens: u64,
    /// Requests sent.
    pub requests: u64,
    /// Packet numbers declared lost.
    pub lost: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Datagrams received.
    pub packets_in: u64,
    /// Datagrams sent.
    pub packets_out: u64,
    /// Datagrams received of closed connections.
    pub strays: u64,
}

impl TransportReport {
    /// Adds the counters of a closed connection.
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
    /// Adds the counters of a download.
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
