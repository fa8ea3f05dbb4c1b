//! When to leave slow start: the window holds what the path holds, or the delay of a round rises over
//! that of the one before (HyStart++, RFC 9406 §4.2). The window being a function of the packet
//! number, there is no conservative slow start: the exit is declared at once and CUBIC goes on from
//! the same window.
//!
//! What the path holds is the product of its smallest round trip and of the rate at which packets
//! come at best. As long as the path is faster than we ask, that rate grows with the window and the
//! product stays ahead of it, since requests are paced at twice the window per round trip.

use std::time::Duration;

use crate::time::Instant;

/// Samples that a round must have before it is judged (N_RTT_SAMPLE).
const MIN_SAMPLES: u32 = 8;
/// Bounds of the rise that counts (MIN_RTT_THRESH, MAX_RTT_THRESH).
const MIN_RISE: Duration = Duration::from_millis(4);
const MAX_RISE: Duration = Duration::from_millis(16);

/// A rate is measured over so many packets and so long at the least: what comes in one go says little.
const MIN_TRAIN: u32 = 16;
const MIN_TRAIN_TIME: Duration = Duration::from_millis(2);

/// A rise must last so long, or this part of a round trip: a machine that is busy with something else
/// delays what comes in a few milliseconds, a queue what comes for longer.
const MIN_LAST: Duration = Duration::from_millis(4);
const LAST_PART: u32 = 8;

/// Least rise of the round trip that tells of a queue, when the rate says that there is one.
const MIN_WAIT: Duration = Duration::from_millis(1);
const WAIT_PART: u32 = 16;

/// Smallest window in packets that the rate may end slow start at.
const MIN_FULL: u32 = 32;

/// Smallest round trips and best rates of the present round and of the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HyStart {
    /// The round ends when this number arrives.
    round_end: u64,
    last_min: Option<Duration>,
    min: Option<Duration>,
    samples: u32,
    began: Instant,
    last_rate: f64,
    rate: f64,
    train: Option<Train>,
    lately: Lately,
}

/// Packets that came one after the other.
#[derive(Clone, Copy, Debug)]
struct Train {
    began: Instant,
    packets: u32,
}

/// The smallest round trip of the last while, in two parts.
#[derive(Clone, Copy, Debug, Default)]
struct Lately {
    began: Instant,
    before: Option<Duration>,
    now: Option<Duration>,
}

impl Lately {
    fn sample(&mut self, now: Instant, rtt: Duration, part: Duration) {
        if now.saturating_since(self.began) >= part {
            *self = Self {
                began: now,
                before: self.now,
                now: None,
            };
        }
        self.now = Some(self.now.map_or(rtt, |least| least.min(rtt)));
    }

    fn min(&self) -> Option<Duration> {
        self.before
            .zip(self.now)
            .map(|(before, now)| before.min(now))
    }
}

impl HyStart {
    /// Takes note of an arrival.
    pub(super) fn arrived(&mut self, now: Instant) {
        let train = self.train.get_or_insert(Train {
            began: now,
            packets: 0,
        });
        let lasted = now.saturating_since(train.began);
        if train.packets >= MIN_TRAIN && lasted >= MIN_TRAIN_TIME {
            let rate = f64::from(train.packets) / lasted.as_secs_f64();
            self.rate = self.rate.max(rate);
            *train = Train {
                began: now,
                packets: 0,
            };
        }
        train.packets += 1;
    }

    /// Takes the round trip of packet `number`, `highest` being the last number asked for; `least` is
    /// the smallest of the connection, `window` the present window in packets. Whether slow start
    /// should end.
    pub(super) fn sample(
        &mut self,
        now: Instant,
        number: u64,
        highest: u64,
        (rtt, least): (Duration, Duration),
        window: u32,
    ) -> bool {
        if number > self.round_end {
            self.begin_round(now, highest);
        }
        self.min = Some(self.min.map_or(rtt, |min| min.min(rtt)));
        self.samples += 1;
        let part = (least / LAST_PART).max(MIN_LAST);
        self.lately.sample(now, rtt, part);
        let lasted = now.saturating_since(self.began) >= part * 2;
        (lasted && self.rises()) || self.is_full(window, least)
    }

    fn begin_round(&mut self, now: Instant, highest: u64) {
        *self = Self {
            round_end: highest,
            last_min: self.min,
            began: now,
            last_rate: self.rate,
            lately: self.lately,
            ..Self::default()
        };
    }

    /// RFC 9406 §4.2.
    fn rises(&self) -> bool {
        let rises =
            |(last, min): (Duration, Duration)| min >= last + (last / 8).clamp(MIN_RISE, MAX_RISE);
        self.samples >= MIN_SAMPLES && self.last_min.zip(self.min).is_some_and(rises)
    }

    /// Whether the window holds what the path holds and an eighth more, and packets wait there.
    fn is_full(&self, window: u32, least: Duration) -> bool {
        let wait = (least / WAIT_PART).max(MIN_WAIT);
        let waits = self.lately.min().is_some_and(|rtt| rtt >= least + wait);
        let holds = self.rate.max(self.last_rate) * least.as_secs_f64();
        let measured = self.last_rate > 0.0;
        measured && waits && window >= MIN_FULL && f64::from(window) >= holds * 1.125
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exits(round_trips_ms: [u64; 3]) -> bool {
        let mut hystart = HyStart::default();
        let mut exit = false;
        let mut number = 0;
        let mut now = Instant::ZERO;
        for rtt in round_trips_ms {
            for _ in 0..20 {
                number += 1;
                now += Duration::from_millis(2);
                let rtt = Duration::from_millis(rtt);
                let highest = (number / 20 + 1) * 20;
                exit |= hystart.sample(now, number, highest, (rtt, rtt), 20);
            }
        }
        exit
    }

    #[test]
    fn a_rise_between_rounds_ends_slow_start() {
        for (name, round_trips, want) in [
            ("flat", [40, 40, 40], false),
            ("small rise", [40, 43, 46], false),
            ("rise of an eighth", [40, 40, 45], true),
            ("short path, below 4 ms", [1, 3, 4], false),
            ("short path", [1, 1, 5], true),
            ("long path, 16 ms are enough", [300, 300, 316], true),
            ("fall", [60, 50, 40], false),
        ] {
            assert_eq!(exits(round_trips), want, "{name}");
        }
    }
}
