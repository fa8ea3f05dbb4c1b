//! A flood of the queue of work: a client that requests cold files as fast as it may, beside one that
//! requests a file now and then.
//!
//! In: a seed and an effort. Out: the jobs that the threads do until that of the other client is done,
//! on the desk of the file server with threads that do one job at a time. A client whose order is
//! refused tries again after each job, up to 300 times.

use core::num::NonZeroU32;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Effort, Finding};
use crate::apps::origin::desk::{Desk, POLLED};
use crate::apps::origin::work::{InlineWorkers, Job, JobKey, MAX_JOBS, Outcome, Workers};
use crate::time::UnixMillis;
use crate::transport::application::RequestContext;

/// Jobs that are measured.
const MEASURED: u32 = 10;

/// Longest delay measured, in jobs: that of a client that is always refused.
const GIVEN_UP: u32 = 300;

/// Jobs done between two requests of the other client.
const BETWEEN: u32 = 20;

/// Threads that do a job when the course of the attack reaches it.
#[derive(Clone, Default)]
struct Threads(Arc<Mutex<(VecDeque<Job>, InlineWorkers)>>);

impl Threads {
    /// Does the next job.
    fn work(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(job) = state.0.pop_front() {
            state.1.start(job);
        }
    }
}

impl Workers for Threads {
    fn start(&mut self, job: Job) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = state.0.len() < MAX_JOBS;
        if free {
            state.0.push_back(job);
        }
        free
    }

    fn finished(&mut self) -> Option<(JobKey, Outcome)> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.finished()
    }
}

const fn client(last: u8) -> RequestContext {
    RequestContext {
        now: UnixMillis::new(0),
        proven: true,
        source: IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)),
    }
}

/// Orders from the flood until it is refused.
fn flood(desk: &mut Desk, sources: u8, next: &mut u64) {
    for source in 1..=sources {
        for _ in 0..2 * MAX_JOBS {
            *next += 1;
            if desk.order(client(source), Job::Block(*next, NonZeroU32::MIN)) == POLLED {
                break;
            }
        }
    }
}

/// Returns the mean number of jobs done until one of the client at `honest` is, beside a flood from
/// `sources` addresses.
fn delay(honest: u8, sources: u8, seed: u64) -> f64 {
    let threads = Threads::default();
    let mut desk = Desk::new(Box::new(threads.clone()));
    let mut next = seed << 32;
    let mut done = 0;
    for n in 0..u64::from(MEASURED) {
        for _ in 0..BETWEEN {
            flood(&mut desk, sources, &mut next);
            threads.work();
            desk.finished();
        }
        let wanted = Job::Block(u64::MAX - n, NonZeroU32::MIN);
        let key = wanted.key();
        for _ in 0..GIVEN_UP {
            desk.order(client(honest), wanted.clone());
            flood(&mut desk, sources, &mut next);
            threads.work();
            done += 1;
            let finished = desk.finished();
            if finished.is_some_and(|(finished, _, _)| finished == key) {
                break;
            }
        }
    }
    f64::from(done) / f64::from(MEASURED)
}

/// Plays floods from one address and from eight, and for comparison one from the address of the other
/// client, which shares its place with the flood.
pub fn cold_files(effort: &Effort) -> Vec<Finding> {
    [
        ("from one address", 100, 1),
        ("from 8 addresses", 100, 8),
        ("from the client's own address", 1, 1),
    ]
    .into_iter()
    .map(|(case, honest, sources)| Finding {
        case: case.to_owned(),
        gain: delay(honest, sources, effort.seed),
        unit: "jobs until a cold file",
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::origin::desk::MAX_STARTED;

    #[test]
    fn a_flood_of_cold_files_delays_others_by_few_jobs() {
        let effort = Effort {
            seed: 1,
            seconds: 1,
            runs: 1,
            rounds: 0,
        };
        let delays: Vec<f64> = cold_files(&effort).iter().map(|found| found.gain).collect();
        let few = MAX_STARTED as f64 + 2.0;
        assert!(delays[0] <= few && delays[1] <= few, "{delays:?}");
        assert!(delays[2] > 50.0, "there is a flood: {delays:?}");
    }
}
