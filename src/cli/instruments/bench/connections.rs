//! `headwater bench connections`: the cost of a request as the number of open connections grows.
//!
//! In: arguments. Out: for each number of connections the memory of client and server, and the latency
//! and processor time of requests on random connections.

use core::num::NonZeroU32;
use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::cli::asked::ask;
use crate::cli::exit::{Exit, Failed};
use crate::cli::instruments::bench::cpu::{CpuUse, Meter, used_ns};
use crate::cli::instruments::bench::table::figure;
use crate::cli::instruments::bench::{Figures, SCHEMA, conclude};
use crate::cli::instruments::load::{refused, seed};
use crate::cli::local::{LocalArgs, Opened, device_failed};
use crate::device::Device;
use crate::instruments::load::report::{LoadReport, RequestReport};
use crate::instruments::load::schedule::{Pace, Plan};
use crate::instruments::load::{Hold, LoadConfig, LoadHost, LoadTarget};
use crate::runtime::{Hooks, OsClock, Stopped};
use crate::time::{Instant, Now};

/// Arguments of `headwater bench connections`.
#[derive(Debug, clap::Args)]
pub(super) struct ConnectionsArgs {
    /// URL that each connection fetches; `http://` may be omitted. Use a small object
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    local: LocalArgs,
    /// UDP port of the service (the port in a URL is the TCP port)
    #[arg(long, value_name = "PORT", default_value_t = 7600,
          value_parser = clap::value_parser!(u16).range(1..))]
    udp_port: u16,
    /// Numbers of connections, one after the other; each --address has ports for 64512
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "10,100,1000,10000"
    )]
    counts: Vec<NonZeroU32>,
    /// Requests per second, at random times, each on a random connection
    #[arg(long, value_name = "PER_SECOND", default_value = "1000")]
    rate: NonZeroU32,
    /// Duration of each measurement in seconds, without the warm-up
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Warm-up in seconds after the first request
    #[arg(long, value_name = "SECONDS", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(..=60))]
    warm_up: u64,
    /// Process id of the server, to report its processor time and memory
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Seed of the random choices [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write all results to FILE as JSON
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
}

/// The results for one number of connections.
#[derive(Debug, Serialize)]
struct Step {
    connections: u32,
    opening_seconds: f64,
    state_bytes_per_connection: u64,
    /// Resident memory of this process and of the server while the connections are open.
    own_rss_kib: u64,
    server_rss_kib: Option<u64>,
    #[serde(flatten)]
    cpu: CpuUse,
    live: RequestReport,
}

/// The settings, for the results.
#[derive(Serialize)]
struct ConnectionsSettings {
    rate: u32,
    seconds: u64,
    warm_up: u64,
}

/// Runs the benchmark.
pub(super) fn run(args: &ConnectionsArgs) -> Result<Exit, Failed> {
    args.local.check()?;
    if let Some(pid) = args.server_pid
        && used_ns(&pid.to_string()).is_err()
    {
        let advice = format!("no process {pid}: set --server-pid to a running process");
        return Err(Failed::new(Exit::Usage, advice));
    }
    let seed = seed(args.seed)?;
    let steps = match args.local.open()? {
        Opened::Plain(device) => steps(args, seed, device)?,
        Opened::Tapped(device) => steps(args, seed, device)?,
    };
    let figures = Figures {
        schema: SCHEMA,
        bench: "connections",
        seed,
        settings: ConnectionsSettings {
            rate: args.rate.get(),
            seconds: args.seconds,
            warm_up: args.warm_up,
        },
        peers: &steps,
    };
    conclude(&figures, args.stats.as_deref(), &rows(&steps))
}

fn config(args: &ConnectionsArgs, seed: u64, connections: u32) -> Result<LoadConfig, Failed> {
    let asked = ask(&args.url, |remote| args.local.own_for(remote).is_some())?;
    Ok(LoadConfig {
        target: LoadTarget {
            addresses: args.local.addresses.clone(),
            mtu: args.local.mtu,
            remote: SocketAddr::new(asked.address, args.udp_port),
            head: asked.head,
            seed,
        },
        connections,
        rate: None,
        hold: Hold::No,
        hostile: 0,
        resume_sample: 0,
        live: Some(Plan {
            pace: Pace::Poisson(args.rate),
            warm_up: Duration::from_secs(args.warm_up),
            window: Duration::from_secs(args.seconds),
            most: u64::MAX,
        }),
    })
}

fn steps<D: Device + AsRawFd>(
    args: &ConnectionsArgs,
    seed: u64,
    device: D,
) -> Result<Vec<Step>, Failed> {
    let clock = OsClock::new();
    let mut runtime = args.local.runtime(clock, device)?;
    let mut steps = Vec::new();
    for count in &args.counts {
        let config = config(args, seed, count.get())?;
        let machine = LoadHost::new(clock.now(), config);
        let mut machine = machine.map_err(|error| Failed::new(Exit::Usage, error))?;
        let mut watching = Watching {
            server: args.server_pid,
            live: None,
        };
        match runtime.run(&mut machine, &mut watching) {
            Ok(Stopped::ByHook) => {}
            Ok(Stopped::BySignal(signal)) => return Err(Failed::new(signal.into(), "")),
            Err(error) => return Err(device_failed(error)),
        }
        steps.push(step(machine.report(), watching)?);
        // A closed standard error leaves no place to report to.
        let _ = writeln!(io::stderr(), "{count} connections measured");
    }
    Ok(steps)
}

/// The measurement in progress.
struct Live {
    meter: Meter,
    own_rss_kib: u64,
    server_rss_kib: Option<u64>,
}

struct Watching {
    server: Option<u32>,
    live: Option<Live>,
}

impl Hooks<LoadHost> for Watching {
    fn turn(&mut self, now: Now, machine: &mut LoadHost) -> ControlFlow<()> {
        if let (None, Some(window)) = (&self.live, machine.live_window()) {
            self.live = Some(Live {
                meter: Meter::new(window, self.server),
                own_rss_kib: rss_kib("self").unwrap_or(0),
                server_rss_kib: self.server.and_then(|pid| rss_kib(&pid.to_string())),
            });
        }
        if let Some(live) = &mut self.live {
            live.meter.note(now.instant);
        }
        match machine.is_done() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.live.as_ref()?.meter.deadline()
    }
}

/// Returns the resident memory of a process (proc(5), `VmRSS`).
fn rss_kib(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let rest = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// Combines the results, or returns the failure.
fn step(report: LoadReport, watching: Watching) -> Result<Step, Failed> {
    let (connections, opened) = (report.connections, report.opened);
    if opened < connections {
        let advice = format!(
            "{opened} of {connections} connections opened: check the address, the routes and the server"
        );
        return Err(Failed::new(Exit::CannotConnect, advice));
    }
    if let Some(failed) = refused(&report.statuses) {
        return Err(failed);
    }
    let (Some(request), Some(live)) = (report.live, watching.live) else {
        return Err(Failed::new(
            Exit::Timeout,
            "no request was sent: increase --seconds",
        ));
    };
    Ok(Step {
        connections,
        opening_seconds: report.opening_seconds,
        state_bytes_per_connection: report.state_bytes_per_connection,
        own_rss_kib: live.own_rss_kib,
        server_rss_kib: live.server_rss_kib,
        cpu: live.meter.finish(),
        live: request,
    })
}

const HEADS: [&str; 11] = [
    "connections",
    "opened/s",
    "server RSS MiB",
    "own RSS MiB",
    "own bytes each",
    "requests/s",
    "p50 us",
    "p99 us",
    "p99.9 us",
    "failed",
    "server CPU us",
];

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn rows(steps: &[Step]) -> Vec<Vec<String>> {
    let mut rows = vec![HEADS.map(str::to_owned).to_vec()];
    for step in steps {
        let mib = |kib: u64| figure(kib as f64 / 1024.0);
        let live = &step.live;
        let each = step.cpu.server_ns.filter(|_| live.completed > 0);
        let each = each.map(|nanos| figure(nanos as f64 / live.completed as f64 / 1000.0));
        let missing = || "-".to_owned();
        rows.push(vec![
            step.connections.to_string(),
            figure(f64::from(step.connections) / step.opening_seconds.max(1e-6)),
            step.server_rss_kib.map_or_else(missing, mib),
            mib(step.own_rss_kib),
            step.state_bytes_per_connection.to_string(),
            figure(live.per_second),
            live.latency.p50_us.to_string(),
            live.latency.p99_us.to_string(),
            live.latency.p999_us.to_string(),
            (live.unfinished + live.failed.values().sum::<u64>()).to_string(),
            each.unwrap_or_else(missing),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watching() -> Watching {
        let (server, window) = (None, (Instant::ZERO, Instant::ZERO));
        let live = Live {
            meter: Meter::new(window, server),
            own_rss_kib: rss_kib("self").unwrap(),
            server_rss_kib: rss_kib("0"),
        };
        let live = Some(live);
        Watching { server, live }
    }

    #[test]
    fn verdicts() {
        let good = LoadReport {
            connections: 10,
            opened: 10,
            live: Some(RequestReport::default()),
            ..LoadReport::default()
        };
        let cases = [
            (good.clone(), Exit::Success),
            (
                LoadReport {
                    opened: 9,
                    ..good.clone()
                },
                Exit::CannotConnect,
            ),
            (
                LoadReport {
                    live: None,
                    ..good.clone()
                },
                Exit::Timeout,
            ),
            (
                LoadReport {
                    statuses: [(404, 1)].into(),
                    ..good
                },
                Exit::HttpError,
            ),
        ];
        for (report, want) in cases {
            let got = step(report, watching()).err();
            assert_eq!(got.map_or(Exit::Success, |failed| failed.exit), want);
        }
    }

    #[test]
    fn tables() {
        let report = LoadReport {
            connections: 10,
            opened: 10,
            opening_seconds: 0.5,
            live: Some(RequestReport {
                unfinished: 3,
                ..RequestReport::default()
            }),
            ..LoadReport::default()
        };
        let rows = rows(&[step(report, watching()).unwrap()]);
        assert_eq!(
            (&*rows[1][0], &*rows[1][1], &*rows[1][2]),
            ("10", "20.0", "-")
        );
        assert_eq!((&*rows[1][9], &*rows[1][10]), ("3", "-"));
    }
}
