//! `headwater bench throughput`: one large object at a time.
//!
//! In: arguments. Out: goodput of each peer: body bytes over the time from the first packet to the
//! last byte, including connection establishment.

use core::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;

use crate::cli::exit::{Exit, Failed};
use crate::cli::instruments::bench::contest::{Contest, ContestArgs, Round, Standing, table};
use crate::cli::instruments::bench::table::{Spread, figure, spread};
use crate::instruments::load::schedule::{Pace, Plan};

/// Default receive buffer of a connection, in bytes: that of `get`.
const BUFFER_BYTES: u32 = 4 << 20;

/// Longest time of a download.
const MAX_DOWNLOAD: Duration = Duration::from_secs(300);

/// A peer's requests in a round.
const ONE_DOWNLOAD: Plan = Plan {
    pace: Pace::Closed(NonZeroU32::MIN),
    warm_up: Duration::ZERO,
    window: MAX_DOWNLOAD,
    most: 1,
};

/// Arguments of `headwater bench throughput`.
#[derive(Debug, clap::Args)]
pub(super) struct ThroughputArgs {
    #[command(flatten)]
    contest: ContestArgs,
    /// Downloads per peer, in turns, after one warm-up download
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
}

/// The settings, for the results.
#[derive(Serialize)]
struct ThroughputSettings {
    runs: u32,
}

/// Runs the benchmark.
pub(super) fn run(args: &ThroughputArgs) -> Result<Exit, Failed> {
    let contest = Contest::new(&args.contest, ONE_DOWNLOAD, BUFFER_BYTES)?;
    let mut standings = contest.run(1 + args.runs)?;
    for standing in &mut standings {
        standing.rounds.remove(0);
    }
    let settings = ThroughputSettings { runs: args.runs };
    contest.conclude("throughput", settings, &standings, &rows(&standings))
}

const HEADS: [&str; 6] = [
    "peer",
    "Mbit/s",
    "of the first",
    "MB",
    "server CPU ns/kB",
    "client CPU ns/kB",
];

fn rows(standings: &[Standing]) -> Vec<Vec<String>> {
    table(&HEADS, standings, |rounds, first| {
        let pairs = first.iter().zip(rounds);
        let ratios = pairs.map(|(first, round)| mbits(round) / mbits(first));
        let megabytes = rounds.iter().map(|round| bytes(round) * 1e-6);
        let servers = rounds
            .iter()
            .filter_map(|round| Some((round.cpu.server_ns?, round)));
        let own = rounds.iter().map(|round| each(round.cpu.own_ns, round));
        vec![
            spread(Spread::of(rounds.iter().map(mbits))),
            spread(Spread::of(ratios)),
            Spread::of(megabytes).map_or_else(String::new, |size| figure(size.median)),
            spread(Spread::of(servers.map(|(nanos, round)| each(nanos, round)))),
            spread(Spread::of(own)),
        ]
    })
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn bytes(round: &Round) -> f64 {
    round.report.body_bytes as f64
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn mbits(round: &Round) -> f64 {
    // Bits per microsecond are megabits per second.
    bytes(round) * 8.0 / round.report.latency.max_us.max(1) as f64
}

/// Returns nanoseconds per thousand bytes.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn each(nanos: u64, round: &Round) -> f64 {
    nanos as f64 * 1000.0 / bytes(round).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::instruments::bench::cpu::CpuUse;
    use crate::cli::instruments::bench::peers::PeerKind;
    use crate::instruments::load::course::{Course, DRAIN};
    use crate::instruments::load::report::{Latency, RequestReport};
    use crate::time::Instant;

    #[test]
    fn a_download_without_an_end_is_cut_off() {
        let start = Instant::from_micros(1);
        let mut course = Course::new(start, ONE_DOWNLOAD, 1, 1);
        assert_eq!(course.take(start), Some(start));
        let end = start + MAX_DOWNLOAD + DRAIN;
        assert_eq!(course.next_at(start), Some(end));
        assert!(!course.is_over(start + MAX_DOWNLOAD) && course.is_over(end));
        let report = course.finish(end);
        assert_eq!((report.unfinished, report.completed), (1, 0));
    }

    #[test]
    fn goodput_is_bytes_over_time() {
        let round = |max_us| Round {
            report: RequestReport {
                body_bytes: 1_000_000,
                latency: Latency {
                    max_us,
                    ..Latency::default()
                },
                ..RequestReport::default()
            },
            cpu: CpuUse {
                server_ns: None,
                own_ns: 2_000_000,
            },
        };
        let rows = rows(&[Standing {
            peer: PeerKind::Transport,
            url: "h".to_owned(),
            rounds: vec![round(8000), round(4000), round(2000)],
        }]);
        let want = ["transport", "2000 [1000-4000]", "1.00", "1.00", "-", "2000"];
        assert_eq!(rows[1], want);
    }
}
