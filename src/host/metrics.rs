//! What a machine tells of itself: counters and gauges, by name and label.
//!
//! In: the numbers that the parts of a host count. Out: [`Metric`]s, which `runtime` shows to whom
//! may see them. No label ever names a client, so the number of samples is bounded by the code.

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows, and starts at 0 with the process.
    Counter,
    /// It may fall.
    Gauge,
}

/// One number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricSample {
    /// Label names and values; few, and never a client.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: u64,
}

/// Numbers of one meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name after the conventions of Prometheus: unit last, `_total` for counters.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: MetricKind,
    /// At least one.
    pub samples: Vec<MetricSample>,
}

impl Metric {
    /// A counter without labels.
    #[must_use]
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::single(name, help, MetricKind::Counter, value)
    }

    /// A gauge without labels.
    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self::single(name, help, MetricKind::Gauge, value)
    }

    /// A counter by one label.
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

    /// The same, but its values may fall.
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
