//! When the requests of a benchmark begin: in a closed loop, each when one before it has ended, or
//! in an open loop, at instants that do not ask how the server keeps up.
//!
//! In: time, and ends of requests. Out: the instant at which a request was *meant* to begin. A
//! latency that counts from it holds the time for which a slow server kept later requests from
//! beginning, which a latency from the real beginning leaves out ("coordinated omission").

use std::num::NonZeroU32;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use crate::time::Instant;

/// Most requests under way at a time; in an open loop later ones begin late.
pub const MAX_UNDER_WAY: u32 = 4096;

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So many are under way all the time, at most [`MAX_UNDER_WAY`].
    Closed(NonZeroU32),
    /// So many begin a second, evenly.
    Even(NonZeroU32),
    /// So many begin a second on average, independently of each other.
    Poisson(NonZeroU32),
}

/// How long requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How they follow each other.
    pub pace: Pace,
    /// The time from the start whose requests do not count.
    pub warm_up: Duration,
    /// The time after it, whose requests do.
    pub window: Duration,
    /// Most requests of all.
    pub most: u64,
}

/// The beginnings of requests.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    random: ChaCha8Rng,
    begun: Instant,
    until: Instant,
    /// Microseconds from `begun` to the next beginning of an open loop.
    next_us: f64,
    left: u64,
    under_way: u32,
    room: u32,
}

impl Schedule {
    /// A schedule from `now` on, with at most `room` requests under way at a time.
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

    /// Begins the next request if one is to begin now: the instant at which it was meant to.
    pub fn take(&mut self, now: Instant) -> Option<Instant> {
        let at = self.next_at(now).filter(|at| *at <= now)?;
        self.under_way += 1;
        self.left -= 1;
        self.next_us += self.gap_us();
        Some(at)
    }

    /// A request has ended.
    pub const fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// When the next request is to begin, which may be past; `None` if one under way must end
    /// first, or if no further one is to begin.
    #[must_use]
    pub fn next_at(&self, now: Instant) -> Option<Instant> {
        let room = self.under_way < self.room;
        self.planned(now).filter(|_| room)
    }

    /// Requests under way.
    #[must_use]
    pub const fn under_way(&self) -> u32 {
        self.under_way
    }

    /// Whether no further request is to begin.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.planned(now).is_none()
    }

    /// Gives up what is left of an open loop; how many requests were meant to have begun.
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
