//! The metrics of a machine: counters and gauges, by name and label.
//!
//! In: the counters of a host's parts. Out: [`Metric`]s, which `runtime` serves. No label ever names
//! a client, so the code bounds the number of samples.

/// The Prometheus type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only increases, from 0 at the start of the process.
    Counter,
    /// May decrease.
    Gauge,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricSample {
    /// Label names and values; few, and never a client.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: u64,
}

/// The values of one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name by Prometheus conventions: unit last, `_total` for counters.
    pub name: &'static str,
    /// Help text: one sentence.
    pub help: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// At least one sample.
    pub samples: Vec<MetricSample>,
}

impl Metric {
    /// Creates a counter without labels.
    #[must_use]
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::single(name, help, MetricKind::Counter, value)
    }

    /// Creates a gauge without labels.
    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::single(name, help, MetricKind::Gauge, value)
    }

    /// Creates a counter by one label.
    #[must_use]
    pub fn by_label(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, u64)>,
    ) -> Self {
        let sample = |(text, value)| MetricSample {
            labels: vec![(label, text)],
            value,
        };
        Self {
            name,
            help,
            kind: MetricKind::Counter,
            samples: values.into_iter().map(sample).collect(),
        }
    }

    /// Converts it to a gauge.
    #[must_use]
    pub fn falling(self) -> Self {
        Self {
            kind: MetricKind::Gauge,
            ..self
        }
    }

    fn single(name: &'static str, help: &'static str, kind: MetricKind, value: u64) -> Self {
        let samples = vec![MetricSample {
            labels: Vec::new(),
            value,
        }];
        Self {
            name,
            help,
            kind,
            samples,
        }
    }
}
