//! `headwater load`: tests a server with many connections that never close, with mutated packets, or
//! with many concurrent downloads.
//!
//! In: arguments. Out: progress on standard error, a line of JSON when the connections are held, results
//! as JSON, and an exit code that fails unless every connection opened, the server responded to the end
//! and the sample resumed.

mod downloads;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::cli::asked::ask;
use crate::cli::exit::{Exit, Failed};
use crate::cli::get::stats::write_json;
use crate::cli::local::{LocalArgs, Opened, device_failed};
use crate::device::Device;
use crate::instruments::load::report::LoadReport;
use crate::instruments::load::{Hold, LoadConfig, LoadHost, LoadTarget};
use crate::runtime::{Hooks, OsClock, Signal, os_seed};
use crate::time::{Instant, Now};

/// Version of the results' schema.
pub const SCHEMA: u32 = 1;

/// Longest time to hold connections, in seconds: continuations are valid for 15 minutes.
pub const MAX_DURATION_SECONDS: u64 = 14 * 60;

/// Interval of the progress lines.
const PROGRESS: Duration = Duration::from_secs(1);

/// Arguments of `headwater load`.
#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    /// URL that each connection fetches; `http://` may be omitted. Use a small object
    #[arg(value_name = "URL")]
    pub url: String,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the flattened group has its own")]
    pub local: LocalArgs,
    /// UDP port of the service (the port in a URL is the TCP port)
    #[arg(long, value_name = "PORT", default_value_t = 7600,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub udp_port: u16,
    /// Number of connections; each --address has ports for 64512
    #[arg(long, value_name = "N")]
    pub connections: NonZeroU32,
    /// Open at most N connections per second
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<NonZeroU32>,
    /// Hold the connections until SIGINT or SIGTERM, or for --duration; the line
    /// {"event":"holding","connections":N} on standard output says when N are open
    #[arg(long)]
    pub keep: bool,
    /// Hold the connections for this many seconds
    #[arg(long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=MAX_DURATION_SECONDS))]
    pub duration: Option<u64>,
    /// Send this many mutated packets once the connections are open
    #[arg(long, value_name = "M", default_value_t = 0)]
    pub hostile: u64,
    /// Resume this many random ones of the held connections at the end
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub resume_sample: u32,
    /// Instead, download the object on all connections concurrently, repeatedly, for this many
    /// seconds after the warm-up
    #[arg(long, value_name = "SECONDS",
          conflicts_with_all = ["rate", "keep", "duration", "hostile", "resume_sample"],
          value_parser = clap::value_parser!(u64).range(1..=MAX_DURATION_SECONDS))]
    pub download: Option<u64>,
    /// Warm-up of --download in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0, requires = "download",
          value_parser = clap::value_parser!(u64).range(..=MAX_DURATION_SECONDS))]
    pub warm: u64,
    /// Seed of the random choices [default: random]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Write the results to FILE instead of standard output
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,
}

/// The results as written.
#[derive(Serialize)]
struct Figures<'a, R> {
    schema: u32,
    exit: u8,
    seed: u64,
    seconds: f64,
    #[serde(flatten)]
    report: &'a R,
}

/// Runs the test.
///
/// # Errors
/// The reason why it cannot run, or the test's failure; results are written all the same.
pub fn run(args: &LoadArgs) -> Result<Exit, Failed> {
    args.local.check()?;
    let seed = seed(args.seed)?;
    let target = resolve(args, seed)?;
    let clock = OsClock::new();
    if let Some(seconds) = args.download {
        let config = downloads::config(args, target, seconds);
        return match args.local.open()? {
            Opened::Plain(device) => downloads::drive(args, config, clock, device),
            Opened::Tapped(device) => downloads::drive(args, config, clock, device),
        };
    }
    let config = keeping(args, target);
    let machine = LoadHost::new(clock.now(), config);
    let machine = machine.map_err(|error| Failed::new(Exit::Usage, error))?;
    match args.local.open()? {
        Opened::Plain(device) => drive(args, seed, machine, clock, device),
        Opened::Tapped(device) => drive(args, seed, machine, clock, device),
    }
}

/// Returns the given seed, or draws one that fits the option.
pub(super) fn seed(named: Option<u64>) -> Result<u64, Failed> {
    // JSON numbers are exact up to 2⁵³.
    let drawn = || os_seed().map(|seed| seed >> 11);
    named.map_or_else(drawn, Ok).map_err(|error| {
        let advice = format!("cannot read random numbers ({error}): set a --seed");
        Failed::new(Exit::Device, advice)
    })
}

fn resolve(args: &LoadArgs, seed: u64) -> Result<LoadTarget, Failed> {
    let asked = ask(&args.url, |remote| args.local.own_for(remote).is_some())?;
    Ok(LoadTarget {
        addresses: args.local.addresses.clone(),
        mtu: args.local.mtu,
        remote: SocketAddr::new(asked.address, args.udp_port),
        head: asked.head,
        seed,
    })
}

/// The configuration of a test that holds connections.
fn keeping(args: &LoadArgs, target: LoadTarget) -> LoadConfig {
    LoadConfig {
        target,
        connections: args.connections.get(),
        rate: args.rate,
        hold: match (args.duration, args.keep) {
            (Some(seconds), _) => Hold::For(Duration::from_secs(seconds)),
            (None, true) => Hold::UntilReleased,
            (None, false) => Hold::No,
        },
        hostile: args.hostile,
        resume_sample: args.resume_sample,
        live: None,
    }
}

/// Prints progress.
struct Watching {
    next: Instant,
    told_holding: bool,
    /// The exit of a signal that ended the test early.
    cut_short: Option<Exit>,
}

impl Watching {
    fn tell(&mut self, now: Instant, machine: &LoadHost) {
        self.next = now + PROGRESS;
        let report = machine.report();
        let LoadReport {
            connections,
            opened,
            failed,
            ..
        } = report;
        let mut line = format!("opened {opened} of {connections}, {failed} failed");
        if let Some(hostile) = &report.hostile {
            line += &format!(", {} mutated packets", hostile.sent_total());
        }
        if report.resumed > 0 {
            line += &format!(", {} resumed", report.resumed);
        }
        // A closed standard error leaves no place to report to.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

impl Hooks<LoadHost> for Watching {
    fn turn(&mut self, now: Now, machine: &mut LoadHost) -> ControlFlow<()> {
        if machine.is_done() {
            self.tell(now.instant, machine);
            return ControlFlow::Break(());
        }
        if machine.is_holding() {
            if !self.told_holding {
                self.told_holding = true;
                self.tell(now.instant, machine);
                say_holding(machine.report().opened);
            }
        } else if now.instant >= self.next {
            self.told_holding = false;
            self.tell(now.instant, machine);
        }
        ControlFlow::Continue(())
    }

    fn deadline(&self) -> Option<Instant> {
        (!self.told_holding).then_some(self.next)
    }

    fn signal(&mut self, now: Now, signal: Signal, machine: &mut LoadHost) -> ControlFlow<()> {
        // A signal ends the holding phase in order, and any other phase early.
        if !machine.is_holding() {
            self.cut_short = Some(signal.into());
        }
        machine.release(now);
        ControlFlow::Continue(())
    }
}

/// Prints the event that this many connections are open and held. A closed standard output is not an
/// error.
fn say_holding(connections: u32) {
    let mut out = io::stdout();
    let line = format!("{{\"event\":\"holding\",\"connections\":{connections}}}");
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn drive<D: Device + AsRawFd>(
    args: &LoadArgs,
    seed: u64,
    mut machine: LoadHost,
    clock: OsClock,
    device: D,
) -> Result<Exit, Failed> {
    let begun = clock.now().instant;
    let mut runtime = args.local.runtime(clock, device)?;
    let mut watching = Watching {
        next: begun + PROGRESS,
        told_holding: false,
        cut_short: None,
    };
    runtime
        .run(&mut machine, &mut watching)
        .map_err(device_failed)?;
    let report = machine.report();
    let cut_short = watching.cut_short.map(|exit| Failed::new(exit, ""));
    let failed = cut_short.or_else(|| verdict(&report));
    let seconds = clock.now().instant.saturating_since(begun).as_secs_f64();
    conclude(args, seed, seconds, &report, failed)
}

/// Writes the results, and returns the failure if there is one.
fn conclude<R: Serialize>(
    args: &LoadArgs,
    seed: u64,
    seconds: f64,
    report: &R,
    failed: Option<Failed>,
) -> Result<Exit, Failed> {
    let exit = failed.as_ref().map_or(Exit::Success, |failed| failed.exit);
    let figures = Figures {
        schema: SCHEMA,
        exit: exit.code(),
        seed,
        seconds,
        report,
    };
    write(args.stats.as_deref(), &figures)?;
    failed.map_or(Ok(exit), Err)
}

/// Returns the test's failure, if any.
fn verdict(report: &LoadReport) -> Option<Failed> {
    if report
        .hostile
        .as_ref()
        .is_some_and(|hostile| hostile.silent)
    {
        let advice = "the server stopped responding during the mutated packets: see its log";
        return Some(Failed::new(Exit::Timeout, advice));
    }
    let (connections, opened) = (report.connections, report.opened);
    if opened < connections {
        let advice = format!(
            "{opened} of {connections} connections opened: check the address, the routes and the server"
        );
        return Some(Failed::new(Exit::CannotConnect, advice));
    }
    if report.not_resumed > 0 {
        let (bad, all) = (report.not_resumed, report.not_resumed + report.resumed);
        let advice = format!("{bad} of {all} held connections did not resume: check the server");
        return Some(Failed::new(Exit::ReceiveFailure, advice));
    }
    refused(&report.statuses)
}

/// Returns the failure for an HTTP error status, if there was one.
pub(super) fn refused(statuses: &BTreeMap<u16, u64>) -> Option<Failed> {
    let refused = statuses.keys().find(|status| **status >= 400)?;
    let advice =
        format!("the server responded with status {refused}: use the URL of an existing object");
    Some(Failed::new(Exit::HttpError, advice))
}

fn write<R: Serialize>(path: Option<&Path>, figures: &Figures<'_, R>) -> Result<(), Failed> {
    let (written, name) = match path {
        Some(path) => (write_json(figures, path, None), path.display().to_string()),
        None => {
            let text = serde_json::to_string_pretty(figures).map_err(io::Error::other);
            let written = text.and_then(|text| writeln!(io::stdout(), "{text}"));
            (written, "standard output".to_owned())
        }
    };
    written.map_err(|error| {
        let advice = format!("cannot write {name} ({error}): choose another file for --stats");
        Failed::new(Exit::WriteError, advice)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruments::load::report::HostileReport;

    #[test]
    fn verdicts() {
        let good = LoadReport {
            connections: 10,
            opened: 10,
            resumed: 2,
            statuses: [(200, 12)].into(),
            ..LoadReport::default()
        };
        let silent = HostileReport {
            silent: true,
            ..HostileReport::default()
        };
        let cases: [(&str, LoadReport, Exit); 5] = [
            ("good", good.clone(), Exit::Success),
            (
                "one failed",
                LoadReport {
                    opened: 9,
                    ..good.clone()
                },
                Exit::CannotConnect,
            ),
            (
                "not resumed",
                LoadReport {
                    not_resumed: 1,
                    ..good.clone()
                },
                Exit::ReceiveFailure,
            ),
            (
                "missing",
                LoadReport {
                    statuses: [(404, 10)].into(),
                    ..good.clone()
                },
                Exit::HttpError,
            ),
            (
                "dead",
                LoadReport {
                    hostile: Some(silent),
                    ..good
                },
                Exit::Timeout,
            ),
        ];
        for (name, report, want) in cases {
            let got = verdict(&report).map_or(Exit::Success, |failed| failed.exit);
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn figures_are_flat() {
        let report = LoadReport::default();
        let figures = Figures {
            schema: SCHEMA,
            exit: 0,
            seed: 1,
            seconds: 0.5,
            report: &report,
        };
        let json = serde_json::to_value(&figures).unwrap();
        assert_eq!(
            (&json["schema"], &json["opened"]),
            (&SCHEMA.into(), &0.into())
        );
    }
}
