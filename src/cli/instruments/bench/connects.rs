//! `headwater bench connect` and `bench fetch`: times to connect to services with several addresses, and to fetch an object.
//!
//! In: hosts or URLs. Out: a row for each way to connect over each transport, which take turns: each sample draws one of
//! the hosts. A failure counts as a sample of its own kind, never as a reason to draw again. Names are looked up once, before.
//! The ways `race`, `random` and `plain` are those of the experiment of Connie (2012); its deviation is divided by n - 1 here.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::apps::fetch::target::Target;
use crate::cli::connect::names::NameArgs;
use crate::cli::connect::run::{Run, Until, run};
use crate::cli::connect::{ConnectArgs, ConnectConfig, Memory, parse_target};
use crate::cli::exit::{Exit, Failed};
use crate::cli::instruments::bench::{Figures, conclude};
use crate::cli::instruments::load::seed;
use crate::cli::race::table::ms;
use crate::connect::{Outcome, Pace};
use crate::host::config::Protocol;
use crate::host::names::Pinned;

/// Most samples of each way.
const MAX_SAMPLES: u32 = 100_000;

/// Arguments of `bench connect` and `bench fetch`.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("transport", |arg| arg.hide(true)),
    mut_arg("race", |arg| arg.hide(true)),
    mut_arg("connect_timeout", |arg| arg.default_value("1"))
)]
pub(super) struct ConnectsArgs {
    /// Host, with a port if it is not 80, or URL; each sample draws one of them
    #[arg(required = true, value_name = "HOST|URL")]
    hosts: Vec<String>,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Transport; repeat it for several
    #[arg(long, value_enum, value_name = "TRANSPORT", default_values = ["trickles", "tcp"])]
    over: Vec<OverArg>,
    /// Way to connect; repeat it for several
    #[arg(long = "way", value_enum, value_name = "WAY",
          default_values = ["race", "random", "plain", "he", "paced"])]
    ways: Vec<WayArg>,
    /// Samples of each way over each transport
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_SAMPLES)))]
    samples: u32,
    /// Seed of the random choices [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write all results to FILE as JSON
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
}

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum OverArg {
    /// Headwater's transport.
    Trickles,
    /// TCP: of the kernel, or of our own stack with --tun.
    Tcp,
}

/// A way to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum WayArg {
    /// To all addresses at once
    Race,
    /// To one of the addresses at random
    Random,
    /// To the first address
    Plain,
    /// One after the other: the next address after 2 s
    Seq,
    /// Happy Eyeballs: the next address after 250 ms (RFC 8305)
    He,
    /// The next address after 10 ms
    Paced,
}

impl WayArg {
    const fn pace(self) -> Pace {
        match self {
            Self::Race => Pace::All,
            Self::Random | Self::Plain | Self::Seq => Pace::Sequential,
            Self::He => Pace::HappyEyeballs,
            Self::Paced => Pace::Paced,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Race => "race",
            Self::Random => "random",
            Self::Plain => "plain",
            Self::Seq => "seq",
            Self::He => "he",
            Self::Paced => "paced",
        }
    }
}

/// A host with its addresses.
struct Service {
    target: Target,
    addresses: Vec<IpAddr>,
}

/// The results of a way over a transport; times in milliseconds, of the samples that did not fail.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Standing {
    way: &'static str,
    over: Option<OverArg>,
    samples: usize,
    failures: usize,
    total_ms: f64,
    mean_ms: f64,
    deviation_ms: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
    /// Packets of our transport that the client sent and received; none over TCP, where they are the kernel's.
    packets: Option<f64>,
    /// Losers that had answered: over TCP, connections that a server accepted for nothing.
    losers_answered: f64,
    /// Processor time of a sample in this process.
    cpu_ms: f64,
    /// Times of the samples, in their order; none for a failure.
    times_ms: Vec<Option<f64>>,
    /// The addresses that won, in the same order.
    winners: Vec<Option<String>>,
}

#[derive(Serialize)]
struct Settings<'a> {
    hosts: &'a [String],
    samples: u32,
    timeout_s: f64,
}

/// Runs a benchmark.
///
/// # Errors
/// If a host has no addresses, or the device fails.
pub(super) fn execute(args: &ConnectsArgs, until: Until) -> Result<Exit, Failed> {
    let seed = seed(args.seed)?;
    let mut config = ConnectConfig::resolve(args.connect.clone())?;
    // Each sample is to be like the first.
    config.history = None;
    let services: Vec<Service> = args
        .hosts
        .iter()
        .map(|host| Service::find(host, &config))
        .collect::<Result<_, _>>()?;
    let mut plan: Vec<(WayArg, OverArg, Samples)> = Vec::new();
    for &over in &args.over {
        plan.extend(args.ways.iter().map(|&way| (way, over, Samples::default())));
    }
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..args.samples {
        for (way, over, samples) in &mut plan {
            let Some(service) = services.choose(&mut dice) else {
                continue;
            };
            let config = sample(&config, service, *way, *over, dice.random());
            let before = thread_cpu_time();
            samples
                .runs
                .push(run(&config, &service.target, until, Memory::default())?);
            samples.cpu += thread_cpu_time().saturating_sub(before);
        }
    }
    let standings: Vec<Standing> = plan
        .iter()
        .map(|(way, over, samples)| Standing::of(*way, *over, samples))
        .collect();
    let settings = Settings {
        hosts: &args.hosts,
        samples: args.samples,
        timeout_s: config.connect_timeout.as_secs_f64(),
    };
    let name = match until {
        Until::Connected => "connect",
        Until::Fetched => "fetch",
    };
    let figures = Figures::new(name, seed, settings, &standings);
    conclude(&figures, args.stats.as_deref(), &rows(&standings))
}

impl Service {
    fn find(host: &str, config: &ConnectConfig) -> Result<Self, Failed> {
        let target = parse_target(host, "a host like files:8080")?;
        let pinned = config.names.resolve.iter();
        let pinned = pinned.filter(|pinned| pinned.is_for(target.host(), target.port()));
        let mut addresses: Vec<IpAddr> = pinned.flat_map(Pinned::addresses).copied().collect();
        if addresses.is_empty() {
            let name = target.host().trim_matches(['[', ']']);
            let found = (name, target.port()).to_socket_addrs().map_err(|error| {
                let message = format!("could not resolve host {host} ({error}): use --resolve");
                Failed::new(Exit::CannotResolve, message)
            })?;
            addresses.extend(found.map(|address: SocketAddr| address.ip()));
        }
        if let Some(family) = config.family {
            addresses.retain(|address| family.has(*address));
        }
        match addresses.is_empty() {
            true => {
                let message = format!("{host} has no address of this family");
                Err(Failed::new(Exit::CannotResolve, message))
            }
            false => Ok(Self { target, addresses }),
        }
    }
}

/// The configuration of a sample.
fn sample(
    config: &ConnectConfig,
    service: &Service,
    way: WayArg,
    over: OverArg,
    drawn: u64,
) -> ConnectConfig {
    let addresses = match way {
        WayArg::Random => {
            let mut dice = ChaCha8Rng::seed_from_u64(drawn);
            service
                .addresses
                .choose(&mut dice)
                .into_iter()
                .copied()
                .collect()
        }
        WayArg::Plain => service.addresses.iter().take(1).copied().collect(),
        WayArg::Race | WayArg::Seq | WayArg::He | WayArg::Paced => service.addresses.clone(),
    };
    let target = &service.target;
    ConnectConfig {
        pace: way.pace(),
        protocol: match over {
            OverArg::Trickles => config.protocol.over_udp(),
            OverArg::Tcp => Protocol::Tcp,
        },
        names: NameArgs {
            resolve: vec![Pinned::new(target.host(), target.port(), addresses)],
            ..config.names.clone()
        },
        ..config.clone()
    }
}

/// The samples of a way over a transport.
#[derive(Default)]
struct Samples {
    runs: Vec<Run>,
    /// Processor time of all.
    cpu: Duration,
}

/// The processor time that the present thread has used.
fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

impl Standing {
    fn of(way: WayArg, over: OverArg, samples: &Samples) -> Self {
        let runs = &samples.runs;
        let times_ms: Vec<Option<f64>> = runs
            .iter()
            .map(|run| run.failure.is_none().then(|| ms(run.took)))
            .collect();
        let mut times: Vec<f64> = times_ms.iter().copied().flatten().collect();
        times.sort_by(f64::total_cmp);
        let (all, good) = (count(runs.len()), count(times.len()));
        let total_ms: f64 = times.iter().sum();
        let mean_ms = total_ms / good.max(1.0);
        let squares: f64 = times.iter().map(|time| (time - mean_ms).powi(2)).sum();
        let packets =
            |run: &Run| run.report.transport.packets_in + run.report.transport.packets_out;
        let packets: u64 = runs.iter().map(packets).sum();
        let losers: usize = runs.iter().map(answered_losers).sum();
        Self {
            way: way.label(),
            over: Some(over),
            samples: runs.len(),
            failures: runs.len() - times.len(),
            total_ms,
            mean_ms,
            deviation_ms: (squares / (good - 1.0).max(1.0)).sqrt(),
            p50_ms: quantile(&times, 50),
            p90_ms: quantile(&times, 90),
            p99_ms: quantile(&times, 99),
            longest_ms: quantile(&times, 100),
            packets: (over == OverArg::Trickles)
                .then(|| count(usize::try_from(packets).unwrap_or(usize::MAX)) / all.max(1.0)),
            losers_answered: count(losers) / all.max(1.0),
            cpu_ms: ms(samples.cpu) / all.max(1.0),
            times_ms,
            winners: runs.iter().map(winner).collect(),
        }
    }
}

/// The address that won.
fn winner(run: &Run) -> Option<String> {
    let winner = run.race.attempts.get(run.race.winner?)?;
    Some(winner.remote.ip().to_string())
}

/// A count as a number of the table.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
const fn count(count: usize) -> f64 {
    count as f64
}

/// The attempts of a run that were answered and did not win.
fn answered_losers(run: &Run) -> usize {
    let attempts = run.race.attempts.iter().enumerate();
    let losers = attempts.filter(|(index, _)| run.race.winner != Some(*index));
    losers
        .filter(|(_, attempt)| matches!(attempt.outcome, Some(Outcome::Answered(_))))
        .count()
}

/// The nearest rank; 0 without figures.
fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn rows(standings: &[Standing]) -> Vec<Vec<String>> {
    let heads = [
        "way",
        "over",
        "samples",
        "failed",
        "total ms",
        "mean",
        "deviation",
        "p50",
        "p90",
        "p99",
        "longest",
        "cpu",
        "packets",
        "losers answered",
    ];
    let row = |standing: &Standing| {
        let number = |value: f64| format!("{value:.1}");
        let over = match standing.over {
            Some(OverArg::Trickles) => "trickles",
            Some(OverArg::Tcp) => "tcp",
            None => "-",
        };
        let mut row = vec![standing.way.to_owned(), over.to_owned()];
        row.extend([standing.samples, standing.failures].map(|count| count.to_string()));
        row.extend(
            [
                standing.total_ms,
                standing.mean_ms,
                standing.deviation_ms,
                standing.p50_ms,
                standing.p90_ms,
                standing.p99_ms,
                standing.longest_ms,
                standing.cpu_ms,
            ]
            .map(number),
        );
        row.push(standing.packets.map_or("-".to_owned(), number));
        row.push(number(standing.losers_answered));
        row
    };
    let heads = heads.map(str::to_owned).to_vec();
    std::iter::once(heads)
        .chain(standings.iter().map(row))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::fetch::{Attempts, TransferFailure};
    use crate::host::report::{AttemptReport, ClientReport, RaceReport};

    fn sampled(took: Option<u64>, answered: usize) -> Run {
        let attempt = |n: usize| AttemptReport {
            remote: ([192, 0, 2, u8::try_from(n).unwrap()], 80).into(),
            tcp: true,
            started: Some(Duration::ZERO),
            ended: Some(Duration::ZERO),
            outcome: Some(match n < answered {
                true => Outcome::Answered(Duration::ZERO),
                false => Outcome::Lost,
            }),
        };
        let attempts = Attempts::default();
        Run {
            race: RaceReport {
                attempts: (0..3).map(attempt).collect(),
                winner: took.map(|_| 0),
                ..RaceReport::default()
            },
            report: ClientReport::default(),
            took: Duration::from_millis(took.unwrap_or(1000)),
            bytes: 0,
            failure: took
                .is_none()
                .then_some(TransferFailure::ConnectTimedOut { attempts }),
        }
    }

    #[test]
    fn failures_are_counted_and_the_deviation_is_that_of_a_sample() {
        let runs = [
            sampled(Some(10), 3),
            sampled(None, 0),
            sampled(Some(20), 1),
            sampled(Some(60), 1),
        ];
        let samples = |runs: Vec<Run>| Samples {
            cpu: Duration::from_millis(2) * u32::try_from(runs.len()).unwrap(),
            runs,
        };
        let standing = Standing::of(WayArg::Race, OverArg::Tcp, &samples(runs.into()));
        assert_eq!((standing.samples, standing.failures), (4, 1));
        assert_eq!((standing.total_ms, standing.mean_ms), (90.0, 30.0));
        // (400 + 100 + 900) / 2
        assert!((standing.deviation_ms - 700f64.sqrt()).abs() < 1e-9);
        assert_eq!((standing.p50_ms, standing.p99_ms), (20.0, 60.0));
        assert_eq!((standing.packets, standing.cpu_ms), (None, 2.0));
        assert_eq!(standing.winners[..2], [Some("192.0.2.0".to_owned()), None]);
        assert_eq!(standing.losers_answered, 0.5, "two of four");
        assert_eq!(
            standing.times_ms,
            [Some(10.0), None, Some(20.0), Some(60.0)]
        );
        let none = Standing::of(
            WayArg::Plain,
            OverArg::Trickles,
            &samples(vec![sampled(None, 0)]),
        );
        assert_eq!(
            (none.failures, none.mean_ms, none.deviation_ms),
            (1, 0.0, 0.0)
        );
        assert_eq!(rows(&[standing, none]).len(), 3);
    }
}
