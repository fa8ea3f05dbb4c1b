//! A rate that varies as a trace says, in the format of mahimahi.
//!
//! In: the lines of a trace, each a time in whole milliseconds at which the wire can send 1500 bytes;
//! times do not decrease, and the trace repeats at its last one. Out: for each packet the instants at
//! which its first and its last byte leave. As in mahimahi, a packet may take several opportunities,
//! and the rest of one goes to the packets that wait at that time and is lost if there are none. Source:
//! link_queue.cc of mahimahi; its opportunities have 1504 bytes, with a header of TUN.

use crate::link::units::excerpt;
use crate::time::Instant;

/// Bytes of IP packets that leave at one opportunity.
pub const OPPORTUNITY_BYTES: usize = 1500;

/// Most opportunities of a trace.
pub const MAX_OPPORTUNITIES: usize = 1 << 20;

/// Latest time in a trace, in milliseconds: a day.
pub const MAX_TRACE_MS: u32 = 86_400_000;

/// A trace of at least one opportunity and one millisecond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateTrace {
    /// In milliseconds, in order.
    times: Vec<u32>,
    /// The last of them, at which the trace begins again; not zero.
    period: u32,
}

/// The reason for rejecting a trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// A line is not a time.
    #[error(
        "line {line}: '{text}' is not a time: write whole milliseconds, at most {MAX_TRACE_MS}"
    )]
    Malformed {
        /// Number of the line, from one.
        line: usize,
        /// The line.
        text: String,
    },
    /// A time precedes its predecessor.
    #[error("line {line}: {have} follows {last}: sort the times")]
    Backward {
        /// Number of the line, from one.
        line: usize,
        /// Its time.
        have: u32,
        /// The time before it.
        last: u32,
    },
    /// No line.
    #[error("no times: write one line of milliseconds for each {OPPORTUNITY_BYTES} bytes")]
    Empty,
    /// The trace would repeat at once.
    #[error("the last time is 0: the trace repeats after its last time, which must be 1 or later")]
    NoPeriod,
    /// More than [`MAX_OPPORTUNITIES`].
    #[error("more than {MAX_OPPORTUNITIES} times: use a shorter trace")]
    TooMany,
}

impl RateTrace {
    /// Parses a trace.
    ///
    /// # Errors
    /// [`TraceError`], of the first line at fault.
    pub fn parse(text: &[u8]) -> Result<Self, TraceError> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        if text.is_empty() {
            return Err(TraceError::Empty);
        }
        let (mut times, mut last) = (Vec::new(), 0);
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            if number > MAX_OPPORTUNITIES {
                return Err(TraceError::TooMany);
            }
            let line = line.trim_ascii();
            let have = time(line).ok_or_else(|| TraceError::Malformed {
                line: number,
                text: excerpt(&String::from_utf8_lossy(line)),
            })?;
            if have < last {
                let line = number;
                return Err(TraceError::Backward { line, have, last });
            }
            times.push(have);
            last = have;
        }
        match last {
            0 => Err(TraceError::NoPeriod),
            period => Ok(Self { times, period }),
        }
    }

    /// The number of opportunities in a period.
    #[must_use]
    pub fn opportunities(&self) -> u64 {
        u64::try_from(self.times.len()).unwrap_or(u64::MAX)
    }

    /// The time in milliseconds after which the trace repeats.
    #[must_use]
    pub const fn period_ms(&self) -> u32 {
        self.period
    }

    /// The mean rate in bit/s, at least one.
    #[must_use]
    pub fn mean_rate(&self) -> u64 {
        let bits = self.opportunities().saturating_mul(8000 * 1500);
        (bits / u64::from(self.period)).max(1)
    }

    /// The longest time in milliseconds that `bytes` may take.
    pub(super) fn longest_ms(&self, bytes: usize) -> u64 {
        let opportunities = u64::try_from(bytes / OPPORTUNITY_BYTES + 1).unwrap_or(u64::MAX);
        let periods = opportunities / self.opportunities().max(1) + 2;
        periods.saturating_mul(self.period.into())
    }

    /// Returns the first opportunity at `from` or later.
    fn first(&self, from: Instant) -> Position {
        let ms = from.as_micros().div_ceil(1000);
        let period = u64::from(self.period);
        // The last time of a round is the first instant of the next one, and precedes its times.
        let round = ms.saturating_sub(1) / period;
        let within = ms - round * period;
        let index = self.times.partition_point(|time| u64::from(*time) < within);
        Position { round, index }
    }

    fn at(&self, position: Position) -> Instant {
        let time = self
            .times
            .get(position.index)
            .copied()
            .unwrap_or(self.period);
        let ms = position.round.saturating_mul(self.period.into());
        Instant::from_micros(ms.saturating_add(time.into()).saturating_mul(1000))
    }

    fn after(&self, position: Position) -> Position {
        if position.index + 1 < self.times.len() {
            let index = position.index + 1;
            Position { index, ..position }
        } else {
            let round = position.round + 1;
            Position { round, index: 0 }
        }
    }
}

/// Parses a line, of digits only.
fn time(line: &[u8]) -> Option<u32> {
    if line.is_empty() || !line.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let time = core::str::from_utf8(line).ok()?.parse().ok()?;
    (time <= MAX_TRACE_MS).then_some(time)
}

/// An opportunity: how often the trace has repeated, and the index of its line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    round: u64,
    index: usize,
}

/// The opportunities that a wire has used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opportunities {
    /// The first unused one.
    next: Position,
    /// The time of the last used one.
    last: Instant,
    /// The bytes that it can still send.
    left: usize,
}

impl Opportunities {
    /// The instant at which a packet that waits since `from` begins to leave.
    pub(super) fn start(&self, trace: &RateTrace, from: Instant) -> Instant {
        if self.left > 0 && from == self.last {
            return from;
        }
        trace.at(self.next.max(trace.first(from)))
    }

    /// Sends `len` bytes that begin to leave at `start`; returns the instant at which the last one
    /// leaves.
    pub(super) fn send(&mut self, trace: &RateTrace, start: Instant, len: usize) -> Instant {
        if start != self.last {
            self.left = 0;
        }
        if self.left == 0 {
            self.next = self.next.max(trace.first(start));
        }
        let mut rest = len;
        loop {
            if self.left == 0 {
                self.last = trace.at(self.next);
                self.next = trace.after(self.next);
                self.left = OPPORTUNITY_BYTES;
            }
            let sent = rest.min(self.left);
            self.left -= sent;
            rest -= sent;
            if rest == 0 {
                return self.last;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::link::{Codel, Link, LinkConfig};

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    fn trace(text: &str) -> Arc<RateTrace> {
        Arc::new(RateTrace::parse(text.as_bytes()).unwrap())
    }

    fn link(text: &str, queue_bytes: usize) -> Link {
        let config = LinkConfig {
            trace: Some(trace(text)),
            queue_bytes,
            ..LinkConfig::default()
        };
        Link::new(config, 1).unwrap()
    }

    /// Pushes packets of some length at some time; returns their arrivals in milliseconds.
    fn arrivals(link: &mut Link, pushes: &[(u64, usize)]) -> Vec<u64> {
        let mut times = Vec::new();
        let mut until = |link: &mut Link, end: Instant| {
            while let Some(next) = link.poll_timeout().filter(|next| *next <= end) {
                assert!(link.pop(next).is_some(), "a deadline is exact");
                times.push(next.as_micros() / 1000);
            }
        };
        for (push, len) in pushes {
            until(link, at(*push));
            link.push(at(*push), vec![0; *len]);
        }
        until(link, at(u64::MAX));
        times
    }

    #[test]
    fn each_line_is_an_opportunity_and_the_last_one_repeats_the_trace() {
        let mut link = link("2\n2\n5\n", 1 << 20);
        let got = arrivals(&mut link, &[(0, 1500); 9]);
        assert_eq!(got, [2, 2, 5, 7, 7, 10, 12, 12, 15]);
        // Unused opportunities are lost.
        let got = arrivals(&mut link, &[(26_001, 1500), (27_001, 1500), (27_002, 1500)]);
        assert_eq!(got, [27, 30, 32]);
    }

    #[test]
    fn a_trace_may_begin_at_zero_and_at_its_end_again() {
        let got = arrivals(&mut link("0\n3\n", 1 << 20), &[(0, 1500); 6]);
        assert_eq!(got, [0, 3, 3, 6, 6, 9]);
        let got = arrivals(&mut link("0\n3\n", 1 << 20), &[(3000, 1500); 3]);
        assert_eq!(got, [3, 3, 6]);
    }

    #[test]
    fn the_rest_of_an_opportunity_is_for_packets_that_wait() {
        let mut link = link("2\n3\n5\n", 1 << 20);
        let pushes = [(0, 700), (0, 700), (0, 400), (2000, 1200), (2001, 100)];
        // The third packet begins at 2 ms and ends at 3 ms; the fourth takes the rest of that.
        assert_eq!(arrivals(&mut link, &pushes), [2, 2, 3, 3, 5]);
        let mut link = self::link("2\n3\n5\n", 1 << 20);
        let pushes = [(0, 700), (2001, 700), (2002, 900)];
        assert_eq!(arrivals(&mut link, &pushes), [2, 3, 5]);
    }

    #[test]
    fn the_queue_holds_packets_until_their_opportunity() {
        let mut link = link("10\n", 3000);
        let got = arrivals(&mut link, &[(0, 1500), (0, 1500), (0, 1), (10_000, 1500)]);
        assert_eq!(got, [10, 20, 30]);
        assert_eq!(link.counters().queue, 1);
        assert_eq!(link.sojourn().summary().max_us, 20_000);
    }

    #[test]
    fn codel_sees_the_time_until_the_opportunity() {
        let mut link = link("10\n", 1 << 20);
        let codel = LinkConfig {
            codel: Some(Codel::default()),
            ..link.config().clone()
        };
        link.reconfigure(codel).unwrap();
        let got = arrivals(&mut link, &[(0, 1500); 40]);
        assert_eq!(got.first(), Some(&10));
        assert!(link.counters().codel > 0);
    }

    #[test]
    fn a_new_trace_takes_the_place_of_the_old_one() {
        let mut link = link("1000\n", 1 << 20);
        link.push(at(0), vec![0; 1500]);
        assert_eq!(link.poll_timeout(), Some(at(1_000_000)));
        let change = |link: &mut Link, trace, rate| {
            let mut config = link.config().clone();
            (config.trace, config.rate) = (trace, rate);
            link.reconfigure(config)
        };
        change(&mut link, Some(trace("7\n")), None).unwrap();
        assert_eq!(arrivals(&mut link, &[(0, 1500)]), [7, 14]);
        change(&mut link, None, Some(12_000_000)).unwrap();
        assert_eq!(arrivals(&mut link, &[(20_000, 1500)]), [21]);
        let both = change(&mut link, Some(trace("7\n")), Some(1));
        assert_eq!(both, Err(crate::link::LinkConfigError::TwoRates));
    }

    #[test]
    fn traces_are_read_to_their_bounds() {
        let lines = |count: usize| "7\n".repeat(count);
        let many = lines(MAX_OPPORTUNITIES);
        for (text, want) in [
            ("1", Ok((1, 1))),
            ("0\n\t1\r\n", Ok((2, 1))),
            ("00\n86400000\n", Ok((2, MAX_TRACE_MS))),
            (&many, Ok((1 << 20, 7))),
            (
                &lines(MAX_OPPORTUNITIES + 1),
                Err("more than 1048576 times"),
            ),
            ("86400001", Err("line 1: '86400001' is not a time")),
            ("", Err("no times")),
            ("\n", Err("no times")),
            ("0\n0\n", Err("must be 1 or later")),
            ("1\n\n2\n", Err("line 2: '' is not a time")),
            ("1\n-2\n", Err("line 2: '-2' is not")),
            ("1\n+2\n", Err("line 2: '+2' is not")),
            ("1\n2.5\n", Err("line 2: '2.5' is not")),
            ("5\n7\n6\n", Err("line 3: 6 follows 7")),
        ] {
            let have = RateTrace::parse(text.as_bytes());
            match (have, want) {
                (Ok(have), Ok(want)) => {
                    assert_eq!((have.opportunities(), have.period_ms()), want);
                }
                (Err(have), Err(want)) => assert!(have.to_string().contains(want), "{have}"),
                (have, want) => panic!("{have:?}, expected {want:?}"),
            }
        }
        let fastest =
            RateTrace::parse(&[b"0\n".repeat(MAX_OPPORTUNITIES - 1), b"1".into()].concat());
        assert_eq!(fastest.unwrap().mean_rate(), 12_000_000 << 20);
        assert_eq!(trace("86400000").mean_rate(), 1);
    }

    #[test]
    fn the_longest_time_is_that_of_any_packet() {
        let config = link("0\n400\n", 9000).config().clone();
        assert!(config.transit(9000) >= Duration::from_millis(6 / 2 * 400));
        assert!(config.transit(9000) <= Duration::from_millis(6 * 400));
        assert_eq!(config.healed().trace, config.trace);
    }

    /// What mahimahi does: goes through the opportunities and gives each to the packets that wait.
    fn model(times: &[u32], pushes: &[(u64, usize)]) -> Vec<u64> {
        let period = u64::from(*times.last().unwrap());
        let (mut got, mut pushes) = (Vec::new(), pushes.iter().copied().peekable());
        let mut rest = None;
        for round in 0.. {
            for time in times {
                let now = round * period + u64::from(*time);
                let mut left = OPPORTUNITY_BYTES;
                while left > 0 {
                    let mut waits = || pushes.next_if(|(since, _)| *since <= now * 1000);
                    let Some(len) = rest.take().or_else(|| waits().map(|(_, len)| len)) else {
                        break;
                    };
                    if len > left {
                        rest = Some(len - left);
                        break;
                    }
                    left -= len;
                    got.push(now);
                }
                if rest.is_none() && pushes.peek().is_none() {
                    return got;
                }
            }
        }
        got
    }

    proptest! {
        #[test]
        fn packets_leave_as_through_mahimahi(
            steps in prop::collection::vec(prop_oneof![Just(0u32), 0u32..20], 1..30),
            pauses in prop::collection::vec((prop_oneof![Just(0u64), 0u64..9000], 20usize..3500), 1..60),
        ) {
            let mut times = steps;
            times.iter_mut().fold(0, |sum, time| { *time += sum; *time });
            times.push(times.last().unwrap() + 1);
            let mut pushes = pauses;
            pushes.iter_mut().fold(0, |sum, (push, _)| { *push += sum; *push });
            let text: String = times.iter().map(|time| format!("{time}\n")).collect();
            let got = arrivals(&mut link(&text, 1 << 30 >> 3), &pushes);
            prop_assert_eq!(got, model(&times, &pushes));
        }

        #[test]
        fn any_bytes_are_a_trace_or_an_error_in_one_line(
            text in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..80),
                "([0-9]{1,9}[ \r]?\n){0,6}[-+x0-9.]{0,3}".prop_map(String::into_bytes),
            ],
        ) {
            match RateTrace::parse(&text) {
                Err(error) => prop_assert_eq!(error.to_string().lines().count(), 1),
                Ok(trace) => {
                    prop_assert!(trace.times.is_sorted());
                    prop_assert!((1..=MAX_TRACE_MS).contains(&trace.period));
                    prop_assert_eq!(trace.times.last(), Some(&trace.period));
                    let far = at(u64::MAX);
                    let mut used = Opportunities::default();
                    let start = used.start(&trace, far);
                    used.send(&trace, start, 4000);
                }
            }
        }
    }
}
