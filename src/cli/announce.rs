//! Announcements: the host routes to the service addresses, which a routing daemon learns and tells
//! its neighbours, exist only while somebody behind them can answer.
//!
//! In: whether it can, time. Out: routes made and removed by `ip`, or a command of the operator's run
//! as `COMMAND up` and `COMMAND down`. A withdrawal is immediate; an announcement waits until things
//! have been well for a while, so that what flaps is away rather than on and off. The routes lie on
//! the program's own device, which goes with the process: a crash withdraws them, too.

use core::net::IpAddr;
use core::time::Duration;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use crate::time::Instant;

/// How long things must have been well before an address is announced again.
const SETTLE: Duration = Duration::from_secs(1);

/// Commands that may still run; further changes wait for the oldest to end.
pub const MAX_RUNNING: usize = 4;

/// Arguments about announcements.
#[derive(Debug, Clone, clap::Args)]
pub struct AnnounceArgs {
    /// Keep the routes to the service addresses only while they can be answered for, so that a
    /// routing daemon that learns them from the kernel announces and withdraws them
    #[arg(long)]
    pub announce: bool,
    /// The same for other daemons: run this in a shell, with `up` or `down` as `$1`
    #[arg(long, value_name = "COMMAND")]
    pub announce_command: Option<String>,
}

/// Keeps what is announced in step with what can be answered.
#[derive(Debug)]
pub(super) struct Announcer {
    args: AnnounceArgs,
    tun: String,
    services: Vec<IpAddr>,
    announced: bool,
    /// Since when it could, while it is not announced.
    able_since: Option<Instant>,
    running: Vec<Child>,
}

impl Announcer {
    /// What is announced at first is what the device was opened with: the routes, if there are any.
    pub(super) fn new(args: &AnnounceArgs, tun: &str, services: &[IpAddr]) -> Self {
        let mut announcer = Self {
            args: args.clone(),
            tun: tun.to_owned(),
            services: services.to_vec(),
            announced: true,
            able_since: None,
            running: Vec::new(),
        };
        announcer.tell();
        announcer
    }

    /// Tells whether the service can be answered for now.
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
        self.tell();
        let word = if able { "announced" } else { "withdrawn" };
        log::info!("service addresses {word}");
    }

    /// When to call [`update`](Self::update) again at the latest.
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
    fn tell(&mut self) {
        let Some(command) = &self.args.announce_command else {
            return;
        };
        self.running
            .retain_mut(|child| child.try_wait().is_ok_and(|status| status.is_none()));
        if self.running.len() >= MAX_RUNNING {
            // In order: what is told last must be done last.
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

    /// Withdraws for good, and waits for the command to end.
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

    /// Runs (time, able) steps; what the command was told, in order.
    fn told(steps: &[(u64, bool)]) -> String {
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
        assert_eq!(told(&[(0, true), (1, true)]), "up down ");
        assert_eq!(told(&[(0, false), (1, false)]), "up down ");
        assert_eq!(told(&[(0, false), (10, true), (1009, true)]), "up down ");
        assert_eq!(
            told(&[(0, false), (10, true), (1010, true)]),
            "up down up down "
        );
        let flapping: Vec<_> = (0..50).map(|n| (n * 200, n % 2 == 0)).collect();
        assert_eq!(told(&flapping), "up down ");
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
