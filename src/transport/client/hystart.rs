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

/// Least rise of the round trip that tells of a queue.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// Smallest window in packets that the rate may end slow start at.
const MIN_FULL: u32 = 32;

/// Smallest round trips and best rates of the present round and of the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HyStart {
    train: Option<Train>,
    rate: f64,
    last_rate: f64,
    /// The round ends when this number arrives.
    round_end: u64,
    last_min: Option<Duration>,
    min: Option<Duration>,
    samples: u32,
}

/// Packets that came one after the other.
#[derive(Clone, Copy, Debug)]
struct Train {
    began: Instant,
    packets: u32,
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

    /// Whether a window of `window` packets holds what the path holds and an eighth more, and a round
    /// trip `rtt` shows that packets wait there.
    pub(super) fn is_full(&self, window: u32, rtt: Duration, min: Duration) -> bool {
        let waits = rtt >= min + (min / 16).max(MIN_WAIT);
        let holds = self.rate.max(self.last_rate) * min.as_secs_f64();
        let measured = self.last_rate > 0.0;
        measured && waits && window >= MIN_FULL && f64::from(window) >= holds * 1.125
    }

    /// Takes the round trip of packet `number`, `highest` being the last number asked for; whether
    /// slow start should end.
    pub(super) fn sample(&mut self, number: u64, highest: u64, rtt: Duration) -> bool {
        if number > self.round_end {
            self.last_min = self.min;
            self.min = None;
            self.last_rate = self.rate;
            self.rate = 0.0;
            self.train = None;
            self.samples = 0;
            self.round_end = highest;
        }
        let min = self.min.map_or(rtt, |min| min.min(rtt));
        self.min = Some(min);
        self.samples += 1;
        let Some(last) = self.last_min else {
            return false;
        };
        let rise = (last / 8).clamp(MIN_RISE, MAX_RISE);
        self.samples >= MIN_SAMPLES && min >= last + rise
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exits(round_trips_ms: [u64; 3]) -> bool {
        let mut hystart = HyStart::default();
        let mut exit = false;
        let mut number = 0;
        for rtt in round_trips_ms {
            for _ in 0..20 {
                number += 1;
                exit |= hystart.sample(number, (number / 20 + 1) * 20, Duration::from_millis(rtt));
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
