//! When to leave slow start: the window reaches the capacity of the path, or the delay of a round
//! rises over that of the one before (HyStart++, RFC 9406 §4.2). The window being a function of the packet
//! number, there is no conservative slow start: the exit is declared at once and CUBIC goes on from
//! 17/20 of the window.
//!
//! The capacity of the path is the product of its smallest round trip and of the rate at which packets
//! come at best. As long as the path is faster than we ask, that rate grows with the window and the
//! product stays ahead of it, since requests are paced at twice the window per round trip.

use std::time::Duration;

use crate::time::Instant;

/// Samples that a round must have before it is judged (N_RTT_SAMPLE).
const MIN_SAMPLES: u32 = 8;
/// Bounds of the rise that counts (MIN_RTT_THRESH, MAX_RTT_THRESH).
const MIN_RISE: Duration = Duration::from_millis(4);
const MAX_RISE: Duration = Duration::from_millis(16);

/// Least packets and time over which a rate is measured, and the part of the least round trip: a single
/// burst says little, and the best of many short trains says too much. Packets that were requested at
/// once of servers near and far arrive apart by the difference of the distances.
const MIN_TRAIN: u32 = 16;
const MIN_TRAIN_TIME: Duration = Duration::from_millis(2);
const TRAIN_PART: u32 = 16;

/// Least duration of a rise, or the part of a round trip: a machine that is busy with something else
/// delays packets for a few milliseconds, a queue for longer.
const MIN_LAST: Duration = Duration::from_millis(4);
const LAST_PART: u32 = 8;

/// Bounds of the wait that indicates a queue when the rate does, and the part of a round trip in
/// between. A process that competes for a processor waits a millisecond or two at every step.
const MIN_WAIT: Duration = Duration::from_millis(2);
const MAX_WAIT: Duration = Duration::from_millis(16);
const WAIT_PART: u32 = 8;

/// Smallest window in packets that the rate may end slow start at.
const MIN_FULL: u32 = 32;

/// The measurements that come with a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) number: u64,
    /// The last number requested.
    pub(super) highest: u64,
    /// The window in packets.
    pub(super) window: u32,
    /// Round trip, less the smallest to this server.
    pub(super) waited: Duration,
    /// Smallest round trip to the farthest server.
    pub(super) least: Duration,
    /// How much farther away that is than the nearest.
    pub(super) spread: Duration,
}

/// Shortest waits and best rates of the present round and of the one before.
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
    train_time: Duration,
    lately: Lately,
    noise: Noise,
}

/// Packets that came one after the other.
#[derive(Clone, Copy, Debug)]
struct Train {
    began: Instant,
    packets: u32,
}

/// By how much the wait rises from one flight to the next. In a queue it rises by the flight between them.
/// Jitter and aggregation hold packets back together: the first of them waits for longest, and much
/// longer than the last of those before.
#[derive(Clone, Copy, Debug, Default)]
struct Noise {
    /// The wait of the flight before.
    before: Option<Duration>,
    /// The greatest rises of the round. The second of two rounds counts: one may be an accident.
    rises: [Duration; 2],
    /// The same of the round before.
    last: [Duration; 2],
}

impl Noise {
    fn sample(&mut self, waited: Duration) {
        let rise = self
            .before
            .replace(waited)
            .map(|before| waited.saturating_sub(before));
        let [first, second] = self.rises;
        self.rises = match rise.unwrap_or_default() {
            rise if rise > first => [rise, first],
            rise => [first, second.max(rise)],
        };
    }

    fn begin_round(&mut self) {
        self.last = core::mem::take(&mut self.rises);
    }

    /// The wait that says nothing of a queue: that of both directions.
    fn wait(&self) -> Duration {
        // A round of a small window may be a single burst.
        let ([first, second], [other, another]) = (self.rises, self.last);
        first.min(other).max(second).max(another) * 2
    }
}

/// The shortest wait of the last while, in two parts.
#[derive(Clone, Copy, Debug, Default)]
struct Lately {
    began: Instant,
    before: Option<Duration>,
    now: Option<Duration>,
}

impl Lately {
    fn sample(&mut self, now: Instant, waited: Duration, part: Duration) {
        if now.saturating_since(self.began) >= part {
            *self = Self {
                began: now,
                before: self.now,
                now: None,
            };
        }
        self.now = Some(self.now.map_or(waited, |least| least.min(waited)));
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
        if train.packets >= MIN_TRAIN && lasted >= self.train_time.max(MIN_TRAIN_TIME) {
            let rate = f64::from(train.packets) / lasted.as_secs_f64();
            self.rate = self.rate.max(rate);
            *train = Train {
                began: now,
                packets: 0,
            };
        }
        train.packets += 1;
    }

    /// Takes the sample of a packet that was requested once and came first of its flight. Returns
    /// whether slow start should end.
    pub(super) fn sample(&mut self, now: Instant, sample: &Sample) -> bool {
        let Sample { waited, least, .. } = *sample;
        if sample.number > self.round_end {
            self.begin_round(now, sample.highest);
        }
        self.min = Some(self.min.map_or(waited, |min| min.min(waited)));
        self.samples += 1;
        self.train_time = (least / TRAIN_PART).max(sample.spread);
        let part = (least / LAST_PART).max(MIN_LAST);
        self.lately.sample(now, waited, part);
        self.noise.sample(waited);
        let lasted = now.saturating_since(self.began) >= part * 2;
        (lasted && self.rises(least)) || self.is_full(sample.window, least)
    }

    fn begin_round(&mut self, now: Instant, highest: u64) {
        self.noise.begin_round();
        *self = Self {
            round_end: highest,
            last_min: self.min,
            began: now,
            last_rate: self.rate,
            train_time: self.train_time,
            lately: self.lately,
            noise: self.noise,
            ..Self::default()
        };
    }

    /// RFC 9406 §4.2.
    fn rises(&self, least: Duration) -> bool {
        let rises = |(last, min): (Duration, Duration)| {
            let rise = ((least + last) / 8).clamp(MIN_RISE, MAX_RISE);
            min >= last + rise.max(self.noise.wait())
        };
        self.samples >= MIN_SAMPLES && self.last_min.zip(self.min).is_some_and(rises)
    }

    /// Whether the window is larger than the path's product by an eighth, and packets wait there.
    fn is_full(&self, window: u32, least: Duration) -> bool {
        let wait = (least / WAIT_PART).clamp(MIN_WAIT, MAX_WAIT);
        let wait = wait.max(self.noise.wait());
        let waits = self.lately.min().is_some_and(|waited| waited >= wait);
        let holds = self.rate.max(self.last_rate) * least.as_secs_f64();
        let measured = self.last_rate > 0.0;
        measured && waits && window >= MIN_FULL && f64::from(window) >= holds * 1.125
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What packet `number` says of the only server, at a window of `window` packets.
    const fn sample(number: u64, highest: u64, window: u32, waits: [Duration; 2]) -> Sample {
        let [waited, least] = waits;
        Sample {
            number,
            highest,
            window,
            waited,
            least,
            spread: Duration::ZERO,
        }
    }

    /// Rounds of 50 packets, two milliseconds apart, and the round trips of each, of `least` at the
    /// least, on a path of which no rate is known.
    fn exits(least: u64, round_trips_ms: [u64; 3]) -> bool {
        let mut hystart = HyStart::default();
        let mut exit = false;
        let mut number = 0;
        let mut now = Instant::ZERO;
        for rtt in round_trips_ms {
            for _ in 0..50 {
                number += 1;
                now += ms(2);
                let highest = (number / 50 + 1) * 50;
                exit |= hystart.sample(
                    now,
                    &sample(number, highest, 50, [ms(rtt - least), ms(least)]),
                );
            }
        }
        exit
    }

    #[test]
    fn a_rise_between_rounds_ends_slow_start() {
        for (name, least, round_trips, want) in [
            ("flat", 40, [40, 40, 40], false),
            ("small rise", 40, [40, 43, 46], false),
            ("rise of an eighth", 40, [40, 40, 45], true),
            ("short path, below 4 ms", 1, [1, 3, 4], false),
            ("short path", 1, [1, 1, 5], true),
            ("long path, 16 ms are enough", 300, [300, 300, 316], true),
            ("long path, not quite", 300, [300, 300, 315], false),
            ("fall", 40, [60, 50, 40], false),
        ] {
            assert_eq!(exits(least, round_trips), want, "{name}");
        }
    }

    /// A round without a wait, then one of 10 ms each: when that ends slow start.
    fn judged_after(least: Duration, spacing: Duration) -> Option<Duration> {
        let mut hystart = HyStart::default();
        let mut now = Instant::ZERO;
        for number in 1..=20 {
            now += spacing;
            assert!(!hystart.sample(now, &sample(number, 20, 20, [ms(0), least])));
        }
        let began = now + spacing;
        (21..=1000).find_map(|number| {
            now += spacing;
            let ends = hystart.sample(now, &sample(number, 1000, 20, [ms(10), least]));
            ends.then(|| now.saturating_since(began))
        })
    }

    #[test]
    fn a_rise_must_last_a_quarter_of_a_round_trip() {
        for (name, least, spacing, want) in [
            (
                "8 ms at the least",
                ms(1),
                Duration::from_micros(100),
                ms(8),
            ),
            ("a quarter", ms(40), Duration::from_micros(100), ms(10)),
            ("eight samples", ms(40), ms(5), ms(35)),
        ] {
            assert_eq!(judged_after(least, spacing), Some(want), "{name}");
        }
    }

    /// Packets that come one every `apart`, all with the same wait, at one window; whether they end
    /// slow start. The least round trip is 40 ms.
    fn fills(apart: Duration, waited: Duration, window: u32, packets: u64) -> bool {
        let mut hystart = HyStart::default();
        let mut now = Instant::ZERO;
        (1..=packets).any(|number| {
            now += apart;
            hystart.arrived(now);
            // One round of half the packets: the rate of the one before counts too.
            let highest = if number <= packets / 2 {
                packets / 2
            } else {
                packets
            };
            hystart.sample(now, &sample(number, highest, window, [waited, ms(40)]))
        })
    }

    #[test]
    fn packets_held_back_together_are_no_queue() {
        // Bursts each 10 ms: the first packet of each has waited for longest. The wait of the last, the
        // least of the round, grows with the size of the window.
        let judged = |grows: u64, apart: u64| {
            let mut hystart = HyStart::default();
            let mut now = Instant::ZERO;
            (1..=200).any(|number| {
                now += ms(2);
                let standing = if number > 100 { grows } else { 0 };
                let waited = ms(standing + apart - number * 2 % apart);
                hystart.sample(
                    now,
                    &sample(number, number.div_ceil(100) * 100, 20, [waited, ms(40)]),
                )
            })
        };
        assert!(!judged(15, 10), "twice the jitter of one direction");
        assert!(judged(21, 10), "more than both directions add");
        assert!(judged(15, 2), "a queue");
    }

    #[test]
    fn one_rise_of_the_wait_is_an_accident() {
        let mut noise = Noise::default();
        for (waited, want) in [(0, 0), (9, 0), (1, 0), (6, 10), (6, 10), (1, 10), (8, 14)] {
            noise.sample(ms(waited));
            assert_eq!(noise.wait(), ms(want));
        }
        noise.begin_round();
        assert_eq!(noise.wait(), ms(14), "the round before counts");
        noise.sample(ms(20));
        assert_eq!(noise.wait(), ms(18), "the second of both rounds");
        noise.begin_round();
        noise.sample(ms(9));
        noise.sample(ms(20));
        assert_eq!(noise.wait(), ms(22), "one in each of them");
        noise.begin_round();
        noise.begin_round();
        assert_eq!(noise.wait(), ms(0));
    }

    #[test]
    fn a_window_that_the_path_holds_ends_slow_start() {
        // One packet each 0.1 ms: 400 in 40 ms, 450 with an eighth more.
        let apart = Duration::from_micros(100);
        let waits = ms(40) / WAIT_PART;
        for (name, apart, waited, window, packets, want) in [
            ("an eighth more", apart, waits, 450, 1000, true),
            ("not quite", apart, waits, 449, 1000, false),
            (
                "nothing waits",
                apart,
                waits - Duration::from_micros(1),
                1000,
                1000,
                false,
            ),
            ("no rate known", apart, waits, 450, 20, false),
            ("a slow path", ms(10), waits, MIN_FULL, 100, true),
            (
                "too small a window",
                ms(10),
                waits,
                MIN_FULL - 1,
                100,
                false,
            ),
        ] {
            assert_eq!(fills(apart, waited, window, packets), want, "{name}");
        }
    }

    #[test]
    fn a_rate_takes_many_packets_and_some_time() {
        let mut hystart = HyStart::default();
        let mut now = Instant::from_micros(1_000_000);
        // A burst: many packets, no time.
        for _ in 0..100 {
            hystart.arrived(now);
        }
        assert!(hystart.rate.abs() < 1e-9);
        // The burst and the pause count together.
        now += ms(2);
        hystart.arrived(now);
        assert!((hystart.rate - 50_000.0).abs() < 1.0, "{}", hystart.rate);
        // Time, but few packets.
        let mut hystart = HyStart::default();
        for _ in 0..MIN_TRAIN {
            now += ms(1);
            hystart.arrived(now);
        }
        assert!(hystart.rate.abs() < 1e-9);
        now += ms(1);
        hystart.arrived(now);
        assert!((hystart.rate - 1000.0).abs() < 1.0, "{}", hystart.rate);
        // The best rate stays.
        for _ in 0..100 {
            now += ms(2);
            hystart.arrived(now);
        }
        assert!((hystart.rate - 1000.0).abs() < 1.0, "{}", hystart.rate);
    }

    #[test]
    fn the_last_while_is_two_parts_long() {
        let mut lately = Lately::default();
        let part = ms(5);
        let at = |us: u64| Instant::from_micros(1_000_000 + us);
        lately.sample(at(0), ms(40), part);
        assert_eq!(lately.min(), None, "one part says nothing");
        lately.sample(at(4999), ms(45), part);
        lately.sample(at(5000), ms(50), part);
        assert_eq!(lately.min(), Some(ms(40)), "both parts count");
        lately.sample(at(9999), ms(49), part);
        lately.sample(at(10_000), ms(60), part);
        assert_eq!(lately.min(), Some(ms(49)), "the first is forgotten");
        lately.sample(at(10_001), ms(41), part);
        assert_eq!(lately.min(), Some(ms(41)));
    }
}
