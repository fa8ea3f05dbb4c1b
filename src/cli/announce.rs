//! Announcements: host routes to the service addresses, which a routing daemon redistributes, exist
//! only while a server can answer.
//!
//! In: whether the service is available, time. Out: routes added and deleted, and runs of the
//! operator's command as `COMMAND up` and `COMMAND down`, both on a thread. A withdrawal is immediate;
//! an announcement waits for a stable period, so that a flapping service stays withdrawn. The routes
//! point to the program's own device, which the kernel removes with the process: a crash withdraws
//! them, too.

mod worker;

use core::net::IpAddr;
use core::time::Duration;

use crate::cli::exit::{Exit, Failed};
use crate::device::tun::TunRoutes;
use crate::time::Instant;

use worker::{Change, Means, Worker};

/// Stable period: time for which a service must have been available before it is announced again.
const SETTLE: Duration = Duration::from_secs(1);

/// Arguments for announcements.
#[derive(Debug, Clone, clap::Args)]
pub struct AnnounceArgs {
    /// Keep host routes to the service addresses only while they can be served, so that a routing
    /// daemon that redistributes kernel routes announces and withdraws them
    #[arg(long)]
    pub announce: bool,
    /// For other daemons: run COMMAND in a shell at each change, with `up` or `down` as `$1`; killed
    /// after 5 seconds, or 2 at the end of the program, and run again until it succeeds
    #[arg(long, value_name = "COMMAND")]
    pub announce_command: Option<String>,
}

/// Announces and withdraws the service addresses as their availability changes.
#[derive(Debug)]
pub(super) struct Announcer {
    /// `None` without routes and command of its own.
    worker: Option<Worker>,
    announced: bool,
    /// Start of the current stable period; none while the addresses are announced.
    able_since: Option<Instant>,
}

impl Announcer {
    /// Creates an announcer of addresses that are announced: the device was opened with their routes.
    ///
    /// # Errors
    /// [`Exit::Device`] if the operating system has no thread left.
    pub(super) fn new(
        args: &AnnounceArgs,
        routes: Option<TunRoutes>,
        services: &[IpAddr],
    ) -> Result<Self, Failed> {
        let means = Means {
            routes: routes.filter(|_| args.announce),
            services: services.to_vec(),
            command: args.announce_command.clone(),
        };
        let idle = means.routes.is_none() && means.command.is_none();
        let worker = (!idle).then(|| Worker::start(means)).transpose();
        let worker = worker.map_err(|error| {
            let advice = format!("cannot start a thread ({error}): raise the limit of processes");
            Failed::new(Exit::Device, advice)
        })?;
        Ok(Self {
            worker,
            announced: true,
            able_since: None,
        })
    }

    /// Reports whether the service is available now.
    pub(super) fn update(&mut self, now: Instant, able: bool) {
        if able == self.announced {
            self.able_since = None;
            return;
        }
        if able {
            let since = *self.able_since.get_or_insert(now);
            if now.saturating_since(since) < SETTLE {
                return;
            }
        }
        self.announced = able;
        self.able_since = None;
        if let Some(worker) = &self.worker {
            worker.want(if able { Change::Up } else { Change::Down });
        }
    }

    /// The time of the next call of [`update`](Self::update), at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.able_since.map(|since| since + SETTLE)
    }

    /// Withdraws the addresses, and waits for that as long as a command may take at the end.
    pub(super) fn end(self) {
        if let Some(worker) = self.worker {
            worker.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::runtime::OsClock;

    fn ms(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    fn announcer(command: String) -> Announcer {
        let args = AnnounceArgs {
            announce: false,
            announce_command: Some(command),
        };
        Announcer::new(&args, None, &[]).unwrap()
    }

    fn settle(announcer: &Announcer) {
        announcer.worker.as_ref().unwrap().settle();
    }

    /// Runs (time, able) steps; returns the arguments of the command, in order.
    fn runs(steps: &[(u64, bool)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut announcer = announcer(format!("echo $1 >>{}", log.display()));
        for &(at, able) in steps {
            settle(&announcer);
            announcer.update(ms(at), able);
        }
        settle(&announcer);
        announcer.end();
        fs::read_to_string(log).unwrap().replace('\n', " ")
    }

    #[test]
    fn withdrawals_are_immediate_and_announcements_wait() {
        assert_eq!(runs(&[(0, true), (1, true)]), "up down ");
        assert_eq!(runs(&[(0, false), (1, false)]), "up down ");
        assert_eq!(runs(&[(0, false), (10, true), (1009, true)]), "up down ");
        assert_eq!(
            runs(&[(0, false), (10, true), (1010, true)]),
            "up down up down "
        );
        let flapping: Vec<_> = (0..50).map(|n| (n * 200, n % 2 == 0)).collect();
        assert_eq!(runs(&flapping), "up down ");
    }

    #[test]
    fn a_withdrawal_kills_an_announcement_that_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let log = log.display();
        let mut announcer = announcer(format!(
            "echo $1 >>{log}; [ $1 = down ] || {{ sleep 1000; echo late >>{log}; }}"
        ));
        let begun = || fs::read_to_string(log.to_string()).is_ok_and(|text| text == "up\n");
        while !begun() {
            std::thread::yield_now();
        }
        announcer.update(ms(0), false);
        settle(&announcer);
        announcer.end();
        assert_eq!(fs::read_to_string(log.to_string()).unwrap(), "up\ndown\n");
    }

    #[test]
    fn a_withdrawal_that_fails_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let log = log.display();
        let mut announcer = announcer(format!(
            "echo $1 >>{log}; [ $1 = up ] || [ $(wc -l <{log}) -gt 2 ]"
        ));
        settle(&announcer);
        announcer.update(ms(0), false);
        settle(&announcer);
        announcer.end();
        let runs = fs::read_to_string(log.to_string()).unwrap();
        assert_eq!(runs, "up\ndown\ndown\n");
    }

    #[test]
    fn a_command_that_hangs_delays_neither_the_loop_nor_the_end() {
        let clock = OsClock::new();
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let log = log.display();
        let mut announcer = announcer(format!(
            "[ $1 = up ] || {{ echo $$ >>{log}; exec sleep 1000; }}"
        ));
        settle(&announcer);
        for n in 0..1000 {
            announcer.update(ms(n * 5000), false);
            announcer.update(ms(n * 5000 + 1), true);
            announcer.update(ms(n * 5000 + 2000), true);
        }
        announcer.update(ms(10_000_000), false);
        while !fs::exists(log.to_string()).unwrap() {
            std::thread::yield_now();
        }
        announcer.end();
        for process in fs::read_to_string(log.to_string()).unwrap().lines() {
            assert!(!fs::exists(format!("/proc/{process}")).unwrap(), "left");
        }
        // The command sleeps for much longer.
        assert!(clock.instant() < ms(500_000));
    }

    #[test]
    fn without_options_there_is_no_thread() {
        let args = AnnounceArgs {
            announce: false,
            announce_command: None,
        };
        assert!(Announcer::new(&args, None, &[]).unwrap().worker.is_none());
    }
}
