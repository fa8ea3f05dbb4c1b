//! The metrics of an emulated path, one sample per direction.
//!
//! In: a [`LinkReport`]. Out: its counters, packets on the links, and the queueing delay. A `reset` on
//! the control socket restarts the counters, which Prometheus handles like a restart of the process.

use crate::host::metrics::{Metric, MetricKind, MetricSample};
use crate::link::path::{DirectionReport, LinkReport};

/// Collects all metrics of a path.
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

const COUNTERS: [Row; 10] = [
    (
        "headwater_link_received_packets_total",
        "Packets received.",
        |of| of.counters.pushed,
    ),
    (
        "headwater_link_received_bytes_total",
        "Bytes received.",
        |of| of.counters.pushed_bytes,
    ),
    (
        "headwater_link_delivered_packets_total",
        "Packets delivered.",
        |of| of.counters.popped,
    ),
    (
        "headwater_link_delivered_bytes_total",
        "Bytes delivered.",
        |of| of.counters.popped_bytes,
    ),
    (
        "headwater_link_marked_packets_total",
        "Packets marked CE.",
        |of| of.counters.marked,
    ),
    (
        "headwater_link_corrupted_packets_total",
        "Packets corrupted.",
        |of| of.counters.corrupted,
    ),
    (
        "headwater_link_reordered_packets_total",
        "Packets held back for reordering.",
        |of| of.counters.reordered,
    ),
    (
        "headwater_link_duplicated_packets_total",
        "Duplicates created.",
        |of| of.counters.duplicated,
    ),
    (
        "headwater_link_replayed_packets_total",
        "Earlier packets delivered again.",
        |of| of.counters.replayed,
    ),
    (
        "headwater_link_bursts_total",
        "Bursts released by aggregation.",
        |of| of.counters.bursts,
    ),
];

const GAUGES: [Row; 4] = [
    (
        "headwater_link_queued_packets",
        "Packets in the queue.",
        |of| count(of.now.queued_packets),
    ),
    ("headwater_link_queued_bytes", "Bytes in the queue.", |of| {
        count(of.now.queued_bytes)
    }),
    (
        "headwater_link_in_flight_packets",
        "Packets in transmission, aggregation or propagation.",
        |of| count(of.now.in_flight_packets),
    ),
    (
        "headwater_link_largest_burst_packets",
        "Packets of the largest burst, since the start or the last reset.",
        |of| of.counters.largest_burst,
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
        help: "Packets dropped, by cause; unsent: the device was full or down.",
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
        help: "Time in the queue, since the start or the last reset.",
        kind: MetricKind::Gauge,
        samples: samples.collect(),
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
