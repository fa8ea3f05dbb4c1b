//! When to leave slow start: the delay of a round rises over that of the one before (HyStart++,
//! RFC 9406 §4.2). The window being a function of the packet number, there is no conservative slow
//! start: the exit is declared at once and CUBIC goes on from the same window.

use std::time::Duration;

/// Samples that a round must have before it is judged (N_RTT_SAMPLE).
const MIN_SAMPLES: u32 = 8;
/// Bounds of the rise that counts (MIN_RTT_THRESH, MAX_RTT_THRESH).
const MIN_RISE: Duration = Duration::from_millis(4);
const MAX_RISE: Duration = Duration::from_millis(16);

/// Smallest round trips of the present round and of the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HyStart {
    /// The round ends when this number arrives.
    round_end: u64,
    last_min: Option<Duration>,
    min: Option<Duration>,
    samples: u32,
}

impl HyStart {
    /// Takes the round trip of packet `number`, `highest` being the last number asked for; whether
    /// slow start should end.
    pub(super) fn sample(&mut self, number: u64, highest: u64, rtt: Duration) -> bool {
        if number > self.round_end {
            self.last_min = self.min;
            self.min = None;
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
