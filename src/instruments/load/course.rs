//! The course of a benchmark: the start of requests, the measured interval, the results.
//!
//! In: time, and the outcome of each request. Out: start times and a [`RequestReport`]. The same rules
//! measure all carriers: our transport, TCP of the stack, the kernel's sockets.

use std::time::Duration;

use crate::apps::fetch::End;
use crate::histogram::Histogram;
use crate::http::reader::{ReadError, ReaderEvent, ResponseReader};
use crate::http::request::Method;
use crate::instruments::load::report::{Latency, RequestReport};
use crate::instruments::load::schedule::{Plan, Schedule};
use crate::time::{Instant, micros};

/// Time after the measured interval in which its requests may still complete.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Most single latencies in a report, in order of completion; the histogram has all.
pub const MAX_SAMPLES: usize = 1000;

/// The start and the end of requests.
#[derive(Debug)]
pub struct Course {
    schedule: Schedule,
    from: Instant,
    until: Instant,
    latency: Histogram,
    report: RequestReport,
    last_end: Instant,
}

impl Course {
    /// Creates a course from `now` on, with at most `room` requests in progress.
    #[must_use]
    pub fn new(now: Instant, plan: Plan, room: u32, seed: u64) -> Self {
        let from = now + plan.warm_up;
        Self {
            schedule: Schedule::new(now, plan, room, seed),
            from,
            until: from + plan.window,
            latency: Histogram::default(),
            report: RequestReport::default(),
            last_end: from,
        }
    }

    /// Starts the next request if it is due; returns its scheduled start.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        let meant = self.schedule.take(now)?;
        self.report.began += u64::from(self.counts(meant));
        Some(meant)
    }

    /// Records the outcome of a request scheduled for `meant`.
    pub fn end(&mut self, now: Instant, meant: Instant, ended: Result<Whole, &'static str>) {
        self.schedule.end();
        self.last_end = now;
        if (self.from..self.until).contains(&now) && ended.is_ok() {
            self.report.completed += 1;
        }
        if !self.counts(meant) {
            return;
        }
        match ended {
            Ok(whole) => {
                let took = now.saturating_since(meant);
                self.latency.record(took);
                self.report.body_bytes += whole.body_bytes;
                *self.report.statuses.entry(whole.status).or_default() += 1;
                if self.report.samples_us.len() < MAX_SAMPLES {
                    self.report.samples_us.push(micros(took));
                }
            }
            Err(why) => *self.report.failed.entry(why).or_default() += 1,
        }
    }

    /// The time of the next action without a packet; `None` if there is none.
    #[must_use]
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        let end = self.until + DRAIN;
        let next = self.schedule.next_at(now);
        Some(next.map_or(end, |at| at.min(end))).filter(|_| !self.is_over(now))
    }

    /// Whether all requests have ended, or the time for the rest is over.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        let ended = self.schedule.is_over(now) && self.schedule.under_way() == 0;
        ended || now >= self.until + DRAIN
    }

    /// The measured interval.
    #[must_use]
    pub const fn window(&self) -> (Instant, Instant) {
        (self.from, self.until)
    }

    /// Ends the course and returns the report.
    #[must_use]
    pub fn finish(mut self, now: Instant) -> RequestReport {
        let missed = self.schedule.abandon(now);
        let until = self.last_end.min(self.until);
        let cut_off = u64::from(self.schedule.under_way());
        let window = until.saturating_since(self.from).as_secs_f64();
        RequestReport {
            unfinished: missed + cut_off,
            window_seconds: window,
            per_second: rate(self.report.completed, window),
            latency: Latency::of(&self.latency),
            ..self.report
        }
    }

    fn counts(&self, meant: Instant) -> bool {
        (self.from..self.until).contains(&meant)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

/// A complete response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Its HTTP status.
    pub status: u16,
    /// Bytes of its body.
    pub body_bytes: u64,
}

/// A response in progress; its body is counted and discarded.
#[derive(Debug)]
pub struct Answer {
    reader: ResponseReader,
    seen: Whole,
}

impl Default for Answer {
    fn default() -> Self {
        Self {
            reader: ResponseReader::new(Method::Get),
            seen: Whole::default(),
        }
    }
}

impl Answer {
    /// The part received so far.
    #[must_use]
    pub const fn seen(&self) -> Whole {
        self.seen
    }

    /// Handles the next bytes of the stream; returns whether the response is complete.
    ///
    /// # Errors
    /// If it is not HTTP.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<bool, &'static str> {
        loop {
            let (used, progress) = self.reader.read(bytes).map_err(|_| "not_http")?;
            match progress {
                ReaderEvent::NeedMore => return Ok(false),
                ReaderEvent::Done => return Ok(true),
                ReaderEvent::Head(head) => self.seen.status = head.status.0,
                ReaderEvent::Body(body) => self.seen.body_bytes += body.len() as u64,
            }
            bytes = bytes.get(used..).unwrap_or_default();
        }
    }

    /// Handles the end of the stream.
    ///
    /// # Errors
    /// The reason why the response is incomplete.
    pub fn end(&mut self, end: End) -> Result<(), &'static str> {
        match end {
            End::Closed { .. } => self.closed(),
            End::Reset { .. } => Err("reset"),
            End::CannotConnect => Err("not_connected"),
            End::TimedOut => Err("timed_out"),
            End::Changed => Err("changed"),
        }
    }

    /// Handles an orderly end of the stream.
    ///
    /// # Errors
    /// The reason why the response is incomplete.
    pub fn closed(&mut self) -> Result<(), &'static str> {
        self.reader.end().map_err(|error| match error {
            ReadError::Truncated => "closed_early",
            ReadError::Head(_) | ReadError::Chunk(_) | ReadError::TooManyInterim => "not_http",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruments::load::schedule::Pace;
    use core::num::NonZeroU32;

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    fn course(pace: fn(NonZeroU32) -> Pace, rate: u32) -> Course {
        let plan = Plan {
            pace: pace(NonZeroU32::new(rate).unwrap()),
            warm_up: Duration::from_secs(1),
            window: Duration::from_secs(2),
            most: u64::MAX,
        };
        Course::new(at(0), plan, 10, 1)
    }

    fn whole() -> Whole {
        let mut answer = Answer::default();
        assert_eq!(answer.take(&OK[..30]), Ok(false));
        assert_eq!(answer.take(&OK[30..]), Ok(true));
        answer.seen()
    }

    #[test]
    fn only_the_window_counts() {
        let mut course = course(Pace::Closed, 1);
        for begin in (0..3000).step_by(100) {
            assert_eq!(course.take(at(begin)), Some(at(begin)));
            let ended = if begin == 2000 {
                Err("reset")
            } else {
                Ok(whole())
            };
            course.end(at(begin + 50), at(begin), ended);
        }
        assert!(course.is_over(at(3000)));
        let report = course.finish(at(3000));
        assert_eq!(
            (report.began, report.completed, report.latency.count),
            (20, 19, 19)
        );
        assert_eq!((report.latency.p50_us, report.body_bytes), (50_000, 57));
        assert_eq!(report.failed, [("reset", 1)].into());
        assert_eq!(report.statuses, [(200, 19)].into());
        assert_eq!(report.samples_us.len(), 19);
    }

    /// A server that pauses for a second affects the latency of every request scheduled for that
    /// second.
    #[test]
    fn a_pause_of_the_server_shows_in_an_open_loop() {
        let mut course = course(Pace::Even, 100);
        for now in 0..4000 {
            let stands_still = (1500..2500).contains(&now);
            while !stands_still && let Some(meant) = course.take(at(now)) {
                course.end(at(now), meant, Ok(whole()));
            }
        }
        let report = course.finish(at(4000));
        assert_eq!(report.latency.count, 200);
        assert!(report.latency.p90_us > 700_000, "{:?}", report.latency);
    }

    #[test]
    fn what_never_ends_is_told() {
        let mut course = course(Pace::Even, 10);
        while course.take(at(2000)).is_some() {}
        assert!(!course.is_over(at(7999)) && course.is_over(at(8000)));
        assert_eq!(course.next_at(at(7999)), Some(at(8000)));
        // Ten in progress, nineteen never started.
        assert_eq!(course.finish(at(8000)).unfinished, 29);
    }

    #[test]
    fn no_more_samples_than_may_be() {
        let mut course = course(Pace::Closed, 1);
        for _ in 0..=MAX_SAMPLES {
            let meant = course.take(at(1500)).unwrap();
            course.end(at(1500), meant, Ok(whole()));
        }
        let report = course.finish(at(3000));
        assert_eq!(report.samples_us.len(), MAX_SAMPLES);
        assert_eq!(report.latency.count, 1 + MAX_SAMPLES as u64);
    }

    #[test]
    fn ends_of_streams() {
        let reused = false;
        let cases = [
            (OK, End::Closed { reused }, Ok(())),
            (&OK[..40], End::Closed { reused }, Err("closed_early")),
            (&OK[..40], End::Reset { reused }, Err("reset")),
            (&OK[..0], End::TimedOut, Err("timed_out")),
        ];
        for (bytes, end, want) in cases {
            let mut answer = Answer::default();
            answer.take(bytes).unwrap();
            assert_eq!(answer.end(end), want);
        }
        assert_eq!(
            Answer::default().take(b"SSH-2.0-x\r\n\r\n"),
            Err("not_http")
        );
    }
}
