//! The configuration of one direction of an emulated link: delay, rate, queue, and faults.
//!
//! In: plain values. Out: a [`LinkConfig`] that [`LinkConfig::validate`] has checked. Rates are
//! bit/s of whole IP packets, sizes are bytes of IP packets, probabilities are parts per million.
//! Nothing here reads a clock or draws a random number.

use std::sync::Arc;
use std::time::Duration;

use crate::link::trace::RateTrace;
use crate::time::Instant;

/// Fastest rate, in bit/s; keeps the exact serialization arithmetic inside 64 bits.
pub const MAX_RATE: u64 = 1_000_000_000_000;

/// Longest delay, jitter or extra delay; a packet older than this is a replay.
pub const MAX_DELAY: Duration = Duration::from_secs(60);

/// Largest queue limit, in bytes: 4 s at 1 Gb/s.
pub const MAX_QUEUE_BYTES: usize = 500_000_000;

/// Most scheduled outages of one link.
pub const MAX_OUTAGES: usize = 256;

/// Longest interval of aggregation.
pub const MAX_AGGREGATION: Duration = Duration::from_secs(1);

/// Most packets of one burst; the default of [`Aggregation::packets`].
pub const MAX_BURST_PACKETS: usize = 4096;

/// A probability, in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chance(u32);

impl Chance {
    /// Impossible.
    pub const NEVER: Self = Self(0);

    /// Converts `ppm` parts per million; `None` above one million.
    #[must_use]
    pub const fn from_ppm(ppm: u32) -> Option<Self> {
        if ppm > 1_000_000 {
            None
        } else {
            Some(Self(ppm))
        }
    }

    /// Converts a percentage; 100 and above are certain.
    #[must_use]
    pub const fn from_percent(percent: u32) -> Self {
        Self(if percent >= 100 {
            1_000_000
        } else {
            percent * 10_000
        })
    }

    /// The probability in parts per million, at most one million.
    #[must_use]
    pub const fn ppm(self) -> u32 {
        self.0
    }
}

/// Burst loss by the Gilbert–Elliott model: a Markov chain of a good and a bad state that takes one
/// step per packet; the bad state loses with a probability of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BurstLoss {
    /// Probability to enter the bad state, per packet.
    pub enter: Chance,
    /// Probability to leave the bad state, per packet; not zero.
    pub leave: Chance,
    /// Probability of loss in the bad state.
    pub loss: Chance,
}

/// An interval in which no packet enters the link: from `from` until just before `until`. Packets
/// already on the link arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// First instant of the outage.
    pub from: Instant,
    /// First instant after it.
    pub until: Instant,
}

/// Aggregation: packets that the wire has sent wait for one another and leave in one burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aggregation {
    /// Length of an interval, at whose end the waiting packets leave; not zero, and at most
    /// [`MAX_AGGREGATION`]. Intervals follow one another from the start of the link's clock.
    pub interval: Duration,
    /// Number of waiting packets that leave earlier; 1 to [`MAX_BURST_PACKETS`].
    pub packets: usize,
}

/// CoDel in addition to drop tail (RFC 8289). ECN-capable packets are marked CE, others dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codel {
    /// Acceptable sojourn time in the queue.
    pub target: Duration,
    /// Time for which packets must exceed the target; not zero. About a long round trip.
    pub interval: Duration,
}

impl Default for Codel {
    /// The values that RFC 8289 §4.2 and §4.3 recommend for internet paths.
    fn default() -> Self {
        Self {
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
        }
    }
}

/// One direction of a link. The default is an ideal wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkConfig {
    /// Propagation delay.
    pub delay: Duration,
    /// Largest extra delay per packet, drawn uniformly.
    pub jitter: Duration,
    /// Whether jitter may reorder packets.
    pub jitter_reorders: bool,
    /// Serialization rate in bit/s; `None` is infinitely fast, without a queue, unless there is a
    /// trace.
    pub rate: Option<u64>,
    /// Opportunities of serialization instead of a rate; its times count from the start of the
    /// link's clock.
    pub trace: Option<Arc<RateTrace>>,
    /// Queue limit in bytes (drop tail), including the packet being serialized. An empty queue
    /// takes any packet. Has no effect without a rate or a trace.
    pub queue_bytes: usize,
    /// Queue length in bytes from which ECN-capable packets are marked CE.
    pub mark_bytes: Option<usize>,
    /// Active queue management before the queue is full. Has no effect without a rate or
    /// a trace.
    pub codel: Option<Codel>,
    /// Aggregation behind the rate.
    pub aggregate: Option<Aggregation>,
    /// Independent loss.
    pub loss: Chance,
    /// Burst loss, in addition to the independent one.
    pub burst: Option<BurstLoss>,
    /// Probability of duplication.
    pub duplicate: Chance,
    /// Probability of corruption; see `link::damage`.
    pub corrupt: Chance,
    /// Probability of holding a packet back by at most `reorder_delay`, so that others overtake it.
    pub reorder: Chance,
    /// Longest extra delay of a reordered packet.
    pub reorder_delay: Duration,
    /// Probability, per packet, of replaying an earlier one.
    pub replay: Chance,
    /// Scheduled outages, in any order; they may overlap.
    pub outages: Vec<Outage>,
}

/// The reason for rejecting a configuration. The caller is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkConfigError {
    /// The rate is zero or above [`MAX_RATE`].
    #[error("rate of {have} bit/s: must be 1 to {MAX_RATE}")]
    Rate {
        /// The rate, in bit/s.
        have: u64,
    },
    /// Both a rate and a trace.
    #[error("both a rate and a rate-trace: use one of them")]
    TwoRates,
    /// A delay, jitter, reordering delay or time of CoDel above [`MAX_DELAY`].
    #[error("delay of {have:?}: at most {MAX_DELAY:?}")]
    Delay {
        /// The delay.
        have: Duration,
    },
    /// A queue limit above [`MAX_QUEUE_BYTES`].
    #[error("queue of {have} bytes: at most {MAX_QUEUE_BYTES}")]
    Queue {
        /// The limit, in bytes.
        have: usize,
    },
    /// The interval of CoDel is zero.
    #[error("the interval of CoDel is zero: use a round trip, such as 100ms")]
    NoInterval,
    /// The interval of aggregation is zero or above [`MAX_AGGREGATION`].
    #[error("interval of aggregation of {have:?}: must be 1us to {MAX_AGGREGATION:?}")]
    Aggregation {
        /// The interval.
        have: Duration,
    },
    /// The bursts of aggregation have no packet or more than [`MAX_BURST_PACKETS`].
    #[error("bursts of {have} packets: must be 1 to {MAX_BURST_PACKETS}")]
    BurstPackets {
        /// The number of packets.
        have: usize,
    },
    /// A burst that never ends.
    #[error("burst loss never ends: its probability to leave the bad state is zero")]
    EndlessBurst,
    /// More outages than [`MAX_OUTAGES`].
    #[error("{have} outages: at most {MAX_OUTAGES}")]
    TooManyOutages {
        /// The number of outages.
        have: usize,
    },
    /// An outage that ends before it begins.
    #[error("an outage ends before it begins")]
    BackwardOutage,
}

impl LinkConfig {
    /// Checks every bound.
    ///
    /// # Errors
    /// The first bound that is exceeded.
    pub fn validate(&self) -> Result<(), LinkConfigError> {
        if let Some(have) = self.rate
            && (have == 0 || have > MAX_RATE)
        {
            return Err(LinkConfigError::Rate { have });
        }
        if self.rate.is_some() && self.trace.is_some() {
            return Err(LinkConfigError::TwoRates);
        }
        let codel = self.codel.unwrap_or_default();
        let times = [self.delay, self.jitter, self.reorder_delay];
        for have in times.into_iter().chain([codel.target, codel.interval]) {
            if have > MAX_DELAY {
                return Err(LinkConfigError::Delay { have });
            }
        }
        if self.queue_bytes > MAX_QUEUE_BYTES {
            return Err(LinkConfigError::Queue {
                have: self.queue_bytes,
            });
        }
        if codel.interval.is_zero() {
            return Err(LinkConfigError::NoInterval);
        }
        if let Some(Aggregation { interval, packets }) = self.aggregate {
            if interval.is_zero() || interval > MAX_AGGREGATION {
                return Err(LinkConfigError::Aggregation { have: interval });
            }
            if packets == 0 || packets > MAX_BURST_PACKETS {
                return Err(LinkConfigError::BurstPackets { have: packets });
            }
        }
        if self.burst.is_some_and(|burst| burst.leave == Chance::NEVER) {
            return Err(LinkConfigError::EndlessBurst);
        }
        if self.outages.len() > MAX_OUTAGES {
            return Err(LinkConfigError::TooManyOutages {
                have: self.outages.len(),
            });
        }
        if self.outages.iter().any(|outage| outage.until < outage.from) {
            return Err(LinkConfigError::BackwardOutage);
        }
        Ok(())
    }

    /// Returns the same link without its faults: delay, rate, queue and aggregation stay.
    #[must_use]
    pub fn healed(&self) -> Self {
        Self {
            delay: self.delay,
            rate: self.rate,
            trace: self.trace.clone(),
            queue_bytes: self.queue_bytes,
            mark_bytes: self.mark_bytes,
            codel: self.codel,
            aggregate: self.aggregate,
            ..Self::default()
        }
    }

    /// Whether packets wait for the wire.
    #[must_use]
    pub const fn has_queue(&self) -> bool {
        self.rate.is_some() || self.trace.is_some()
    }

    /// Returns the longest time on the link behind `bytes` of queue, of a packet neither held back
    /// nor replayed.
    #[must_use]
    pub fn transit(&self, bytes: usize) -> Duration {
        let bits = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(8);
        let wire = self.rate.map_or(0, |rate| {
            let micros = u128::from(bits) * 1_000_000 / u128::from(rate.max(1));
            u64::try_from(micros).unwrap_or(u64::MAX)
        });
        let burst = self
            .aggregate
            .map_or(Duration::ZERO, |aggregate| aggregate.interval);
        let traced = self
            .trace
            .as_ref()
            .map_or(0, |trace| trace.longest_ms(bytes));
        let wire = Duration::from_micros(wire) + Duration::from_millis(traced);
        self.delay + self.jitter + burst + wire
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::micros;

    type Case = (&'static str, fn(&mut LinkConfig), Option<LinkConfigError>);

    #[test]
    fn every_bound_is_checked_at_its_edge() {
        let longer = MAX_DELAY + Duration::from_micros(1);
        let fast = LinkConfigError::Rate { have: MAX_RATE + 1 };
        let large = MAX_QUEUE_BYTES + 1;
        let many = MAX_OUTAGES + 1;
        let queue = LinkConfigError::Queue { have: large };
        let outages = LinkConfigError::TooManyOutages { have: many };
        let cases: [Case; 17] = [
            ("default", |_| (), None),
            ("slow", |c| c.rate = Some(1), None),
            (
                "stopped",
                |c| c.rate = Some(0),
                Some(LinkConfigError::Rate { have: 0 }),
            ),
            ("fastest", |c| c.rate = Some(MAX_RATE), None),
            ("too fast", |c| c.rate = Some(MAX_RATE + 1), Some(fast)),
            ("longest", |c| c.delay = MAX_DELAY, None),
            (
                "too long",
                |c| c.jitter = MAX_DELAY + Duration::from_micros(1),
                Some(LinkConfigError::Delay { have: longer }),
            ),
            ("largest", |c| c.queue_bytes = MAX_QUEUE_BYTES, None),
            (
                "too large",
                |c| c.queue_bytes = MAX_QUEUE_BYTES + 1,
                Some(queue),
            ),
            ("slow CoDel", |c| c.codel = Some(codel(MAX_DELAY)), None),
            (
                "too slow CoDel",
                |c| c.codel = Some(codel(MAX_DELAY + Duration::from_micros(1))),
                Some(LinkConfigError::Delay { have: longer }),
            ),
            (
                "CoDel without an interval",
                |c| c.codel = Some(codel(Duration::ZERO)),
                Some(LinkConfigError::NoInterval),
            ),
            (
                "endless",
                |c| c.burst = Some(ENDLESS),
                Some(LinkConfigError::EndlessBurst),
            ),
            (
                "most",
                |c| c.outages = vec![outage(0, 1); MAX_OUTAGES],
                None,
            ),
            (
                "too many",
                |c| c.outages = vec![outage(0, 1); MAX_OUTAGES + 1],
                Some(outages),
            ),
            ("empty outage", |c| c.outages = vec![outage(0, 0)], None),
            (
                "backward outage",
                |c| c.outages = vec![outage(1, 0)],
                Some(LinkConfigError::BackwardOutage),
            ),
        ];
        for (name, change, want) in cases {
            let mut config = LinkConfig::default();
            change(&mut config);
            assert_eq!(config.validate().err(), want, "{name}");
        }
    }

    #[test]
    fn aggregation_is_checked_at_its_edges() {
        let interval = |have| {
            let have = Duration::from_micros(have);
            Some(LinkConfigError::Aggregation { have })
        };
        let packets = |have| Some(LinkConfigError::BurstPackets { have });
        let longest = micros(MAX_AGGREGATION);
        for (micros, count, want) in [
            (1, 1, None),
            (longest, MAX_BURST_PACKETS, None),
            (0, 1, interval(0)),
            (longest + 1, 1, interval(longest + 1)),
            (1, 0, packets(0)),
            (1, MAX_BURST_PACKETS + 1, packets(MAX_BURST_PACKETS + 1)),
        ] {
            let config = LinkConfig {
                aggregate: Some(Aggregation {
                    interval: Duration::from_micros(micros),
                    packets: count,
                }),
                ..LinkConfig::default()
            };
            assert_eq!(
                config.validate().err(),
                want,
                "{micros} us, {count} packets"
            );
        }
    }

    fn codel(interval: Duration) -> Codel {
        Codel {
            interval,
            ..Codel::default()
        }
    }

    const ENDLESS: BurstLoss = BurstLoss {
        enter: Chance::from_percent(1),
        leave: Chance::NEVER,
        loss: Chance::from_percent(50),
    };

    fn outage(from: u64, until: u64) -> Outage {
        Outage {
            from: Instant::from_micros(from),
            until: Instant::from_micros(until),
        }
    }

    #[test]
    fn chances_stay_below_one() {
        assert_eq!(
            Chance::from_ppm(1_000_000).map(Chance::ppm),
            Some(1_000_000)
        );
        assert_eq!(Chance::from_ppm(1_000_001), None);
        assert_eq!(Chance::from_percent(2).ppm(), 20_000);
        assert_eq!(Chance::from_percent(1000).ppm(), 1_000_000);
    }
}
