//! Announcements: host routes to the service addresses, which a routing daemon redistributes, exist
//! only while a server can answer.
//!
//! In: whether the service is available, time. Out: routes added and deleted with `ip`, or runs of
//! the operator's command as `COMMAND up` and `COMMAND down`. A withdrawal is immediate; an
//! announcement waits for a stable period, so that a flapping service stays withdrawn. The routes
//! point to the program's own device, which the kernel removes with the process: a crash withdraws
//! them, too.

use core::net::IpAddr;
use core::time::Duration;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use crate::time::Instant;

/// Stable period: time for which a service must have been available before it is announced again.
const SETTLE: Duration = Duration::from_secs(1);

/// Most commands that run at once; a further change waits for the oldest to end.
pub const MAX_RUNNING: usize = 4;

/// Arguments for announcements.
#[derive(Debug, Clone, clap::Args)]
pub struct AnnounceArgs {
    /// Keep host routes to the service addresses only while they can be served, so that a routing
    /// daemon that redistributes kernel routes announces and withdraws them
    #[arg(long)]
    pub announce: bool,
    /// For other daemons: run COMMAND in a shell at each change, with `up` or `down` as `$1`
    #[arg(long, value_name = "COMMAND")]
    pub announce_command: Option<String>,
}

/// Announces and withdraws the service addresses as their availability changes.
#[derive(Debug)]
pub(super) struct Announcer {
    args: AnnounceArgs,
    tun: String,
    services: Vec<IpAddr>,
    announced: bool,
    /// Start of the current stable period; none while the addresses are announced.
    able_since: Option<Instant>,
    running: Vec<Child>,
}

impl Announcer {
    /// Creates an announcer of addresses that are announced: the device was opened with their routes.
    pub(super) fn new(args: &AnnounceArgs, tun: &str, services: &[IpAddr]) -> Self {
        let mut announcer = Self {
            args: args.clone(),
            tun: tun.to_owned(),
            services: services.to_vec(),
            announced: true,
            able_since: None,
            running: Vec::new(),
        };
        announcer.run_command();
        announcer
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
        if self.args.announce {
            self.route();
        }
        self.run_command();
        if self.args.announce || self.args.announce_command.is_some() {
            let word = if able { "announced" } else { "withdrawn" };
            log::info!("service addresses {word}");
        }
    }

    /// The time of the next call of [`update`](Self::update), at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.able_since.map(|since| since + SETTLE)
    }

    fn route(&self) {
        let verb = if self.announced { "replace" } else { "del" };
        let mut batch = String::new();
        for service in &self.services {
            let bits = if service.is_ipv4() { 32 } else { 128 };
            // Writing to a String cannot fail.
            let _ = writeln!(batch, "route {verb} {service}/{bits} dev {}", self.tun);
        }
        let run = || {
            let mut child = Command::new("ip")
                .args(["-force", "-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(batch.as_bytes())?;
            }
            child.wait()
        };
        if !run().is_ok_and(|status| status.success()) {
            log::error!("cannot {verb} the routes to the service: run `ip route` to see them");
        }
    }

    /// Runs the operator's command.
    fn run_command(&mut self) {
        let Some(command) = &self.args.announce_command else {
            return;
        };
        self.running
            .retain_mut(|child| child.try_wait().is_ok_and(|status| status.is_none()));
        if self.running.len() >= MAX_RUNNING {
            // Commands end in order: the last change must win.
            let mut oldest = self.running.remove(0);
            let _ = oldest.wait();
        }
        let word = if self.announced { "up" } else { "down" };
        let child = Command::new("sh")
            .args(["-c", command, "announce", word])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        match child {
            Ok(child) => self.running.push(child),
            Err(error) => log::error!("cannot run the announce command ({error})"),
        }
    }

    /// Withdraws the addresses and waits for the commands to end.
    pub(super) fn end(mut self, now: Instant) {
        self.update(now, false);
        for mut child in self.running {
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn ms(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    /// Runs (time, able) steps; returns the arguments of the command, in order.
    fn runs(steps: &[(u64, bool)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let args = AnnounceArgs {
            announce: false,
            announce_command: Some(format!("echo $1 >>{}", log.display())),
        };
        let mut announcer = Announcer::new(&args, "none", &[]);
        let settle = |announcer: &mut Announcer| {
            for child in &mut announcer.running {
                child.wait().unwrap();
            }
        };
        for &(at, able) in steps {
            settle(&mut announcer);
            announcer.update(ms(at), able);
            assert!(announcer.running.len() <= MAX_RUNNING);
        }
        settle(&mut announcer);
        announcer.end(ms(100_000));
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
    fn commands_that_hang_are_bounded() {
        let args = AnnounceArgs {
            announce: false,
            announce_command: Some("sleep 0.2".to_owned()),
        };
        let mut announcer = Announcer::new(&args, "none", &[]);
        for n in 0..=2 * MAX_RUNNING as u64 {
            announcer.update(ms(n * 5000), false);
            announcer.update(ms(n * 5000 + 1), true);
            announcer.update(ms(n * 5000 + 2000), true);
            assert!(announcer.running.len() <= MAX_RUNNING);
        }
        announcer.end(ms(1_000_000));
    }
}
