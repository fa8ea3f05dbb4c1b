//! `headwater bench requests`: objects, each on a connection of its own.
//!
//! In: arguments. Out: for each peer the responses per second, latency percentiles, and processor time
//! per request.

use core::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;

use crate::cli::exit::{Exit, Failed};
use crate::cli::instruments::bench::contest::{Contest, ContestArgs, Round, Standing, table};
use crate::cli::instruments::bench::table::{Spread, figure, spread};
use crate::instruments::load::schedule::{MAX_UNDER_WAY, Pace, Plan};

/// Default receive buffer of a connection, in bytes: objects are small.
const BUFFER_BYTES: u32 = 128 << 10;

/// Longest time of a round, in seconds.
const MAX_SECONDS: u64 = 3600;

/// Arguments of `headwater bench requests`.
#[derive(Debug, clap::Args)]
pub(super) struct RequestsArgs {
    #[command(flatten)]
    contest: ContestArgs,
    /// Closed loop with N requests in progress at all times (smoltcp: at most 32)
    #[arg(long, value_name = "N", default_value = "1", value_parser = clients)]
    clients: NonZeroU32,
    /// Open loop instead, with N requests per second at random times, regardless of earlier ones.
    /// Latency counts from the scheduled start of a request
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "clients")]
    rate: Option<NonZeroU32>,
    /// Open loop at equal intervals
    #[arg(long, requires = "rate")]
    even: bool,
    /// Duration of a round in seconds, without the warm-up
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    seconds: u64,
    /// Warm-up in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(..=MAX_SECONDS))]
    warm_up: u64,
    /// Number of rounds; the peers take turns
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

fn clients(text: &str) -> Result<NonZeroU32, String> {
    let clients = text
        .parse()
        .ok()
        .filter(|clients| *clients <= MAX_UNDER_WAY);
    let clients = clients.and_then(NonZeroU32::new);
    clients.ok_or_else(|| format!("not a number from 1 to {MAX_UNDER_WAY}"))
}

/// The settings, for the results.
#[derive(Serialize)]
struct RequestsSettings {
    pace: String,
    seconds: u64,
    warm_up: u64,
}

/// Runs the benchmark.
pub(super) fn run(args: &RequestsArgs) -> Result<Exit, Failed> {
    let pace = match (args.rate, args.even) {
        (None, _) => Pace::Closed(args.clients),
        (Some(rate), true) => Pace::Even(rate),
        (Some(rate), false) => Pace::Poisson(rate),
    };
    let plan = Plan {
        pace,
        warm_up: Duration::from_secs(args.warm_up),
        window: Duration::from_secs(args.seconds),
        most: u64::MAX,
    };
    let contest = Contest::new(&args.contest, plan, BUFFER_BYTES)?;
    let standings = contest.run(args.rounds)?;
    let settings = RequestsSettings {
        pace: match pace {
            Pace::Closed(clients) => format!("{clients} at a time"),
            Pace::Even(rate) => format!("{rate}/s evenly"),
            Pace::Poisson(rate) => format!("{rate}/s at random"),
        },
        seconds: args.seconds,
        warm_up: args.warm_up,
    };
    contest.conclude("requests", settings, &standings, &rows(&standings))
}

const HEADS: [&str; 11] = [
    "peer",
    "requests/s",
    "of the first",
    "p50 us",
    "p90 us",
    "p99 us",
    "p99.9 us",
    "max us",
    "failed",
    "server CPU us",
    "client CPU us",
];

/// Formats the table: medians over the rounds, with the range for the rate.
fn rows(standings: &[Standing]) -> Vec<Vec<String>> {
    table(&HEADS, standings, |rounds, first| {
        let middle = |of: fn(&Round) -> Option<f64>| {
            let spread = Spread::of(rounds.iter().filter_map(of));
            spread.map_or_else(|| "-".to_owned(), |spread| figure(spread.median))
        };
        let rates = rounds.iter().map(|round| round.report.per_second);
        let pairs = first.iter().zip(rounds);
        let ratios = pairs.map(|(first, round)| round.report.per_second / first.report.per_second);
        vec![
            spread(Spread::of(rates)),
            spread(Spread::of(ratios)),
            middle(|round| whole(round.report.latency.p50_us)),
            middle(|round| whole(round.report.latency.p90_us)),
            middle(|round| whole(round.report.latency.p99_us)),
            middle(|round| whole(round.report.latency.p999_us)),
            middle(|round| whole(round.report.latency.max_us)),
            rounds.iter().map(lost).sum::<u64>().to_string(),
            middle(|round| each(round.cpu.server_ns?, round)),
            middle(|round| each(round.cpu.own_ns, round)),
        ]
    })
}

fn lost(round: &Round) -> u64 {
    round.report.unfinished + round.report.failed.values().sum::<u64>()
}

#[expect(
    clippy::cast_precision_loss,
    clippy::unnecessary_wraps,
    reason = "a figure for people"
)]
const fn whole(value: u64) -> Option<f64> {
    Some(value as f64)
}

/// Returns microseconds per request.
fn each(nanos: u64, round: &Round) -> Option<f64> {
    let completed = round.report.completed;
    Some(whole(nanos)? / whole(completed)? / 1000.0).filter(|_| completed > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::instruments::bench::assert_options;
    use crate::cli::instruments::bench::cpu::CpuUse;
    use crate::cli::instruments::bench::peers::PeerKind;
    use crate::instruments::load::report::RequestReport;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        args: RequestsArgs,
    }

    #[test]
    fn options() {
        let cases = [
            ("", true),
            ("--clients 4096", true),
            ("--clients 4097", false),
            ("--clients 0", false),
            ("--rate 100 --even", true),
            ("--even", false),
            ("--rate 100 --clients 2", false),
            ("--seconds 0", false),
            ("--seconds 3600 --warm-up 3600", true),
            ("--seconds 3601", false),
            ("--warm-up 3601", false),
            ("--close fin --tokens", true),
            ("--peer tcp=h", false),
            ("--server-pid kernel=1", true),
        ];
        assert_options::<Typed>("x --tun hw0 --address 10.0.0.1 --peer kernel=h", &cases);
    }

    #[test]
    fn tables() {
        let round = |per_second, server_ns| Round {
            report: RequestReport {
                per_second,
                completed: 1000,
                failed: [("reset", 1)].into(),
                unfinished: 2,
                ..RequestReport::default()
            },
            cpu: CpuUse {
                server_ns,
                own_ns: 5_000_000,
            },
        };
        let standing = |peer, rounds| Standing {
            peer,
            url: "h".to_owned(),
            rounds,
        };
        let rows = rows(&[
            standing(
                PeerKind::Transport,
                vec![round(200.0, Some(3_000_000)), round(300.0, None)],
            ),
            standing(
                PeerKind::Kernel,
                vec![round(100.0, None), round(300.0, None)],
            ),
        ]);
        assert_eq!(rows[1][1..3], ["250 [200-300]", "1.00"]);
        assert_eq!(rows[1][8..], ["6", "3.00", "5.00"]);
        assert_eq!(rows[2][1..3], ["200 [100-300]", "0.75 [0.50-1.00]"]);
        assert_eq!(rows[2][9], "-");
    }
}
