//! What a path shows of itself, as metrics: one sample a direction.
//!
//! In: a [`LinkReport`]. Out: its counters, what is on the links, and the queueing delay. A `reset` at
//! the control socket starts the counters anew, which Prometheus takes for a restart.

use crate::host::metrics::{Metric, MetricKind, MetricSample};
use crate::link::path::{DirectionReport, LinkReport};

/// All metrics of a path.
pub(super) fn metrics(report: &LinkReport) -> Vec<Metric> {
    let metric = |name, help, kind, value: fn(&DirectionReport) -> u64| {
        let sample = |(direction, of): (&str, &DirectionReport)| MetricSample {
            labels: vec![("direction", direction.to_owned())],
            value: value(of),
        };
        let samples = directions(report).map(sample).to_vec();
        Metric {
            name,
            help,
            kind,
            samples,
        }
    };
    let counters = COUNTERS
        .into_iter()
        .map(|(name, help, value)| metric(name, help, MetricKind::Counter, value));
    let gauges = GAUGES
        .into_iter()
        .map(|(name, help, value)| metric(name, help, MetricKind::Gauge, value));
    let mut metrics: Vec<Metric> = counters.chain(gauges).collect();
    metrics.push(drops(report));
    metrics.push(sojourn(report));
    metrics
}

type Row = (&'static str, &'static str, fn(&DirectionReport) -> u64);

const COUNTERS: [Row; 9] = [
    (
        "headwater_link_received_packets_total",
        "Packets that came in.",
        |of| of.counters.pushed,
    ),
    (
        "headwater_link_received_bytes_total",
        "Bytes that came in.",
        |of| of.counters.pushed_bytes,
    ),
    (
        "headwater_link_delivered_packets_total",
        "Packets that came out.",
        |of| of.counters.popped,
    ),
    (
        "headwater_link_delivered_bytes_total",
        "Bytes that came out.",
        |of| of.counters.popped_bytes,
    ),
    (
        "headwater_link_marked_packets_total",
        "Packets marked CE.",
        |of| of.counters.marked,
    ),
    (
        "headwater_link_corrupted_packets_total",
        "Packets damaged.",
        |of| of.counters.corrupted,
    ),
    (
        "headwater_link_reordered_packets_total",
        "Packets held back.",
        |of| of.counters.reordered,
    ),
    (
        "headwater_link_duplicated_packets_total",
        "Second copies made.",
        |of| of.counters.duplicated,
    ),
    (
        "headwater_link_replayed_packets_total",
        "Old packets sent once more.",
        |of| of.counters.replayed,
    ),
];

const GAUGES: [Row; 3] = [
    (
        "headwater_link_waiting_packets",
        "Packets that the wire has not taken.",
        |of| count(of.now.waiting_packets),
    ),
    (
        "headwater_link_waiting_bytes",
        "Bytes that the wire has not taken.",
        |of| count(of.now.waiting_bytes),
    ),
    (
        "headwater_link_flying_packets",
        "Packets on the wire or delayed.",
        |of| count(of.now.flying_packets),
    ),
];

fn directions(report: &LinkReport) -> [(&'static str, &DirectionReport); 2] {
    [("ab", &report.ab), ("ba", &report.ba)]
}

fn drops(report: &LinkReport) -> Metric {
    let samples = directions(report).into_iter().flat_map(|(direction, of)| {
        let causes = [
            ("outage", of.counters.outage),
            ("loss", of.counters.lost),
            ("burst", of.counters.burst),
            ("queue", of.counters.queue),
            ("codel", of.counters.codel),
            ("overflow", of.counters.overflow),
            ("unsent", of.unsent),
        ];
        causes.map(|(cause, value)| MetricSample {
            labels: vec![
                ("direction", direction.to_owned()),
                ("cause", cause.to_owned()),
            ],
            value,
        })
    });
    Metric {
        name: "headwater_link_dropped_packets_total",
        help: "Packets dropped; unsent are those that found the device full or down.",
        kind: MetricKind::Counter,
        samples: samples.collect(),
    }
}

fn sojourn(report: &LinkReport) -> Metric {
    let samples = directions(report).into_iter().flat_map(|(direction, of)| {
        let quantiles = [
            ("0.5", of.sojourn.p50_us),
            ("0.95", of.sojourn.p95_us),
            ("0.99", of.sojourn.p99_us),
            ("1", of.sojourn.max_us),
        ];
        quantiles.map(|(quantile, value)| MetricSample {
            labels: vec![
                ("direction", direction.to_owned()),
                ("quantile", quantile.to_owned()),
            ],
            value,
        })
    });
    Metric {
        name: "headwater_link_sojourn_microseconds",
        help: "Time that packets waited for the wire, since the start or the last reset.",
        kind: MetricKind::Gauge,
        samples: samples.collect(),
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
