//! Processor time of a process between two instants.
//!
//! In: the id of a process. Out: nanoseconds in which its threads ran, including their system calls.
//! Excludes work of the kernel on its behalf elsewhere (interrupts, the other end's calls).
//! Source: /proc/PID/task/TID/schedstat (sched-stats of the kernel's documentation).

use std::fs;
use std::io;

use serde::Serialize;

use crate::time::Instant;

/// Most threads of a process that are sampled.
const MAX_THREADS: usize = 1024;

/// Processor time of the server and of this process in the measured interval, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct CpuUse {
    pub(super) server_ns: Option<u64>,
    pub(super) own_ns: u64,
}

/// Samples at the start and at the end of the measured interval.
#[derive(Debug)]
pub(super) struct Meter {
    window: (Instant, Instant),
    server: Option<u32>,
    first: Option<CpuUse>,
    last: Option<CpuUse>,
}

impl Meter {
    pub(super) const fn new(window: (Instant, Instant), server: Option<u32>) -> Self {
        Self {
            window,
            server,
            first: None,
            last: None,
        }
    }

    /// Samples if an end has passed; call it often, and soon after both ends.
    pub(super) fn note(&mut self, now: Instant) {
        let (from, until) = self.window;
        if self.first.is_none() && now >= from {
            self.first = Some(sample(self.server));
        }
        if self.last.is_none() && now >= until {
            self.last = Some(sample(self.server));
        }
    }

    /// The time of the next call of `note`, at the latest.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match (self.first, self.last) {
            (None, _) => Some(self.window.0),
            (_, None) => Some(self.window.1),
            _ => None,
        }
    }

    /// Returns the processor time between the ends, or until now.
    pub(super) fn finish(self) -> CpuUse {
        let last = self.last.unwrap_or_else(|| sample(self.server));
        let first = self.first.unwrap_or(last);
        let server = last.server_ns.zip(first.server_ns);
        CpuUse {
            server_ns: server.map(|(last, first)| last.saturating_sub(first)),
            own_ns: last.own_ns.saturating_sub(first.own_ns),
        }
    }
}

fn sample(server: Option<u32>) -> CpuUse {
    CpuUse {
        server_ns: server.and_then(|pid| used_ns(&pid.to_string()).ok()),
        own_ns: used_ns("self").unwrap_or(0),
    }
}

/// Returns the processor time of a process so far.
pub(super) fn used_ns(process: &str) -> io::Result<u64> {
    let threads = fs::read_dir(format!("/proc/{process}/task"))?;
    // Skips threads that end meanwhile.
    let texts = threads.map(|thread| {
        let text = thread.map(|thread| fs::read_to_string(thread.path().join("schedstat")));
        text.map(Result::unwrap_or_default)
    });
    sum(texts)
}

/// Sums the first figures of the threads' files.
fn sum(texts: impl Iterator<Item = io::Result<String>>) -> io::Result<u64> {
    texts.take(MAX_THREADS).try_fold(0, |sum: u64, text| {
        let text = text?;
        let ran = text.split_ascii_whitespace().next().map(str::parse::<u64>);
        Ok(sum.saturating_add(ran.and_then(Result::ok).unwrap_or(0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Measures 5 ms of work; returns whether they show. The time of a thread that ends meanwhile is lost, and
    /// other tests end theirs.
    fn work_shows_once() -> bool {
        let at = Instant::from_micros;
        let mut meter = Meter::new((at(10), at(20)), Some(std::process::id()));
        meter.note(at(9));
        assert_eq!(meter.deadline(), Some(at(10)));
        meter.note(at(10));
        let before = used_ns("self").unwrap();
        while used_ns("self").unwrap() < before + 5_000_000 {}
        assert_eq!(meter.deadline(), Some(at(20)));
        meter.note(at(20));
        assert_eq!(meter.deadline(), None);
        let used = meter.finish();
        used.own_ns >= 5_000_000 && used.server_ns >= Some(5_000_000)
    }

    #[test]
    fn work_shows() {
        assert!((0..100).any(|_| work_shows_once()));
        assert!(used_ns("0").is_err());
    }

    #[test]
    fn so_many_threads_and_no_more() {
        for (threads, counted) in [(MAX_THREADS, MAX_THREADS), (MAX_THREADS + 1, MAX_THREADS)] {
            let texts = (0..threads).map(|_| Ok("3 1 2\n".to_owned()));
            assert_eq!(sum(texts).unwrap(), 3 * counted as u64, "{threads}");
        }
        assert_eq!(sum([Ok(String::new())].into_iter()).unwrap(), 0);
    }
}
