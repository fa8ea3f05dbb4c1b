//! The report of a client, over all its transfers and connections.
//!
//! In: counters of the parts, arrival times of bytes. Out: sums, and the times that a user perceives.

use std::net::SocketAddr;
use std::time::Duration;

use crate::connect::Outcome;
use crate::stack::StackCounters;
use crate::time::Instant;
use crate::transport::client::ClientStats;

/// Sums over all transfers and connections of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientReport {
    /// Connections started.
    pub connections: u64,
    /// Those of them over TCP.
    pub tcp_connections: u64,
    /// Sums of the transport's counters; RTTs are those of the last connection.
    pub transport: ClientStats,
    /// IP packets received, and those sent by the stack itself.
    pub stack: StackCounters,
    /// Time from the start of the first transfer to its first byte.
    pub first_byte: Option<Duration>,
    /// Longest interval without a byte after a transfer's first one, while the output accepted bytes.
    pub longest_stall: Duration,
    /// Arrival of the last byte.
    last_byte: Option<Instant>,
}

/// The course of the last race for a connection; all times are since the start of its transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaceReport {
    /// Answers to look-ups, in the order of their arrival.
    pub lookups: Vec<LookupReport>,
    /// The attempts, in the order of the addresses.
    pub attempts: Vec<AttemptReport>,
    /// The attempt that won, by its index; `None` if none did.
    pub winner: Option<usize>,
    /// The end of the race.
    pub ended: Duration,
    /// Addresses that may replace the winner's, the likeliest to be answered first.
    pub spares: Vec<SocketAddr>,
}

/// An answer to a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupReport {
    /// When it arrived.
    pub at: Duration,
    /// Addresses of the host that are known since, of either family.
    pub addresses: usize,
    /// Whether it was the last one.
    pub complete: bool,
}

/// An attempt to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptReport {
    /// Address and port of the service.
    pub remote: SocketAddr,
    /// Whether it was over TCP.
    pub tcp: bool,
    /// Its start; `None` if the race ended before.
    pub started: Option<Duration>,
    /// Its end: the answer, the failure, or the end of the race.
    pub ended: Option<Duration>,
    /// Its outcome; `None` if it was not started, or dropped with its transfer.
    pub outcome: Option<Outcome>,
}

impl ClientReport {
    /// Records the start of a transfer.
    pub(super) fn begin(&mut self, _now: Instant) {
        self.last_byte = None;
    }

    /// Records that the output accepts bytes again; its pause does not count as a stall.
    pub(super) fn resume(&mut self, now: Instant) {
        self.last_byte = self.last_byte.map(|_| now);
    }

    /// Records received bytes of a stream. `begun`: start of the transfer.
    pub(super) fn received(&mut self, now: Instant, begun: Instant, count: usize) {
        if count == 0 {
            return;
        }
        if let Some(last) = self.last_byte.replace(now) {
            self.longest_stall = self.longest_stall.max(now.saturating_since(last));
        }
        self.first_byte.get_or_insert(now.saturating_since(begun));
    }

    /// Counts a datagram that is of no connection.
    pub(super) fn stray(&mut self, reason: &'static str) {
        *self.transport.drops.entry(reason).or_default() += 1;
    }

    pub(super) fn add_stack(&mut self, counters: &StackCounters) {
        self.stack = counters.clone();
    }

    pub(super) fn add_connection(&mut self, stats: &ClientStats) {
        let sum = &mut self.transport;
        sum.packets_in += stats.packets_in;
        sum.packets_out += stats.packets_out;
        sum.bytes_in += stats.bytes_in;
        sum.bytes_out += stats.bytes_out;
        sum.stream_bytes += stats.stream_bytes;
        sum.handshakes += stats.handshakes;
        sum.opens += stats.opens;
        sum.requests += stats.requests;
        sum.lost += stats.lost;
        sum.repeated += stats.repeated;
        sum.waits += stats.waits;
        sum.asked_again += stats.asked_again;
        sum.probes += stats.probes;
        sum.timeouts += stats.timeouts;
        sum.switches += stats.switches;
        sum.copies += stats.copies;
        sum.rtt_min = [sum.rtt_min, stats.rtt_min].into_iter().flatten().min();
        sum.rtt_smoothed = stats.rtt_smoothed.or(sum.rtt_smoothed);
        sum.window = stats.window;
        sum.longest_stall = sum.longest_stall.max(stats.longest_stall);
        for (kind, count) in &stats.transitions {
            *sum.transitions.entry(kind).or_default() += count;
        }
        for (server, count) in &stats.by_server {
            *sum.by_server.entry(*server).or_default() += count;
        }
        for (server, least) in &stats.rtt_min_by_server {
            let known = sum.rtt_min_by_server.entry(*server).or_insert(*least);
            *known = (*least).min(*known);
        }
        for (reason, count) in &stats.drops {
            *sum.drops.entry(reason).or_default() += count;
        }
    }
}
