//! The start times of a benchmark's requests: in a closed loop each starts when an earlier one ends;
//! in an open loop they start at given times, whether or not the server keeps up.
//!
//! In: time, and ends of requests. Out: the *scheduled* start of a request. A latency from the
//! scheduled start includes the time for which a slow server delayed later requests; a latency from
//! the actual start omits it ("coordinated omission").

use std::num::NonZeroU32;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use crate::time::Instant;

/// Most requests in progress; beyond, those of an open loop start late.
pub const MAX_UNDER_WAY: u32 = 4096;

/// The pace of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Closed loop: this many in progress at all times, at most [`MAX_UNDER_WAY`].
    Closed(NonZeroU32),
    /// Open loop: this many per second, evenly spaced.
    Even(NonZeroU32),
    /// Open loop: this many per second on average, at independent times.
    Poisson(NonZeroU32),
}

/// The pace and the duration of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The pace.
    pub pace: Pace,
    /// Warm-up, whose requests do not count.
    pub warm_up: Duration,
    /// The measured interval after the warm-up.
    pub window: Duration,
    /// Most requests in total.
    pub most: u64,
}

/// The start times of requests.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    random: ChaCha8Rng,
    begun: Instant,
    until: Instant,
    /// Time from `begun` to the next start of an open loop, in microseconds.
    next_us: f64,
    left: u64,
    under_way: u32,
    room: u32,
}

impl Schedule {
    /// Creates a schedule from `now` on, with at most `room` requests in progress.
    #[must_use]
    pub fn new(now: Instant, plan: Plan, room: u32, seed: u64) -> Self {
        let room = match plan.pace {
            Pace::Closed(clients) => clients.get().min(room),
            Pace::Even(_) | Pace::Poisson(_) => room,
        };
        let mut schedule = Self {
            pace: plan.pace,
            random: ChaCha8Rng::seed_from_u64(seed),
            begun: now,
            until: now + plan.warm_up + plan.window,
            next_us: 0.0,
            left: plan.most,
            under_way: 0,
            room: room.min(MAX_UNDER_WAY),
        };
        schedule.next_us = schedule.gap_us();
        schedule
    }

    /// Starts the next request if it is due; returns its scheduled start.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        let at = self.next_at(now).filter(|at| *at <= now)?;
        self.under_way += 1;
        self.left -= 1;
        self.next_us += self.gap_us();
        Some(at)
    }

    /// Records the end of a request.
    pub const fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// The next scheduled start, possibly in the past; `None` if a request in progress must end
    /// first, or if there are no further ones.
    #[must_use]
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        let room = self.under_way < self.room;
        self.planned(now).filter(|_| room)
    }

    /// The number of requests in progress.
    #[must_use]
    pub const fn under_way(&self) -> u32 {
        self.under_way
    }

    /// Whether there are no further requests.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.planned(now).is_none()
    }

    /// Abandons the rest of an open loop; returns how many requests were scheduled to have started.
    pub fn abandon(&mut self, now: Instant) -> u64 {
        let mut missed = 0;
        while self.planned(now).is_some_and(|at| at <= now) {
            if matches!(self.pace, Pace::Closed(_)) {
                break;
            }
            missed += 1;
            self.left -= 1;
            self.next_us += self.gap_us();
        }
        self.left = 0;
        missed
    }

    fn planned(&self, now: Instant) -> Option<Instant> {
        let at = match self.pace {
            Pace::Closed(_) => now,
            Pace::Even(_) | Pace::Poisson(_) => {
                self.begun + Duration::from_secs_f64(self.next_us.max(0.0) * 1e-6)
            }
        };
        Some(at).filter(|at| self.left > 0 && *at < self.until)
    }

    fn gap_us(&mut self) -> f64 {
        match self.pace {
            Pace::Closed(_) => 0.0,
            Pace::Even(rate) => 1e6 / f64::from(rate.get()),
            Pace::Poisson(rate) => {
                let share: f64 = self.random.random();
                -(1.0 - share).ln() * 1e6 / f64::from(rate.get())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pace: Pace) -> Plan {
        Plan {
            pace,
            warm_up: Duration::from_secs(1),
            window: Duration::from_secs(9),
            most: u64::MAX,
        }
    }

    fn count(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    const START: Instant = Instant::from_micros(5_000_000);

    #[test]
    fn a_closed_loop_keeps_so_many_under_way_until_the_time_is_over() {
        let mut schedule = Schedule::new(START, plan(Pace::Closed(count(3))), 100, 1);
        let begun = core::iter::from_fn(|| schedule.take(START)).count();
        assert_eq!((begun, schedule.under_way()), (3, 3));
        let later = START + Duration::from_secs(3);
        schedule.end();
        assert_eq!(
            (schedule.take(later), schedule.take(later)),
            (Some(later), None)
        );
        let end = START + Duration::from_secs(10);
        schedule.end();
        assert!(!schedule.is_over(end - Duration::from_micros(1)));
        assert!(schedule.is_over(end) && schedule.take(end).is_none());
    }

    #[test]
    fn no_more_than_the_room_and_the_bound_are_under_way() {
        for (clients, room, want) in [
            (10, 5, 5),
            (MAX_UNDER_WAY, MAX_UNDER_WAY, MAX_UNDER_WAY),
            (MAX_UNDER_WAY + 1, MAX_UNDER_WAY + 1, MAX_UNDER_WAY),
        ] {
            let mut schedule = Schedule::new(START, plan(Pace::Closed(count(clients))), room, 1);
            while schedule.take(START).is_some() {}
            assert_eq!(schedule.under_way(), want);
        }
    }

    #[test]
    fn open_loops_keep_their_rate() {
        for (pace, off) in [
            (Pace::Even(count(1000)), 1),
            (Pace::Poisson(count(1000)), 400),
        ] {
            let mut schedule = Schedule::new(START, plan(pace), 100, 1);
            let end = START + Duration::from_secs(20);
            let (mut begun, mut last) = (0_u32, START);
            while let Some(at) = schedule.take(end) {
                assert!(at >= last, "{pace:?}");
                (begun, last) = (begun + 1, at);
                schedule.end();
            }
            assert!(begun.abs_diff(10_000) <= off, "{pace:?}: {begun}");
            assert!(schedule.is_over(end));
        }
    }

    #[test]
    fn what_begins_late_was_meant_to_begin_earlier() {
        let mut schedule = Schedule::new(START, plan(Pace::Even(count(10))), 1, 1);
        let late = START + Duration::from_millis(1050);
        let first = START + Duration::from_millis(100);
        assert_eq!(
            (schedule.take(late), schedule.take(late)),
            (Some(first), None)
        );
        schedule.end();
        assert_eq!(
            schedule.take(late),
            Some(START + Duration::from_millis(200))
        );
        assert_eq!(schedule.abandon(late), 8);
        assert!(schedule.is_over(late));
    }

    #[test]
    fn a_number_of_requests_ends_it() {
        let few = Plan {
            most: 2,
            ..plan(Pace::Closed(count(1)))
        };
        let mut schedule = Schedule::new(START, few, 1, 1);
        for _ in 0..2 {
            assert!(schedule.take(START).is_some());
            schedule.end();
        }
        assert!(schedule.is_over(START) && schedule.take(START).is_none());
    }
}
