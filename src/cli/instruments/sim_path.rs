//! `headwater sim-path`: downloads over our transport and over a model of TCP that share one emulated
//! bottleneck, in virtual time.
//!
//! In: settings of the bottleneck as for `headwater link`, flows, a seed. Out: one line per flow and
//! one for the queue on standard output, or one line of JSON. Equal arguments produce equal output, so
//! that a cell of a comparison with the kernel can be studied.

use core::str::FromStr;
use std::io::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use crate::cli::exit::{Exit, Failed};
use crate::link::settings::{LinkSettings, LinkSpec};
use crate::link::{LinkConfig, LinkCounters, Summary, units};
use crate::sim::path::tcp::Growth;
use crate::sim::path::{
    Bottleneck, Carrier, FlowOutcome, FlowPlan, MAX_FLOWS, PathOutcome, run as simulate,
};

/// Arguments of `headwater sim-path`.
#[derive(Debug, clap::Args)]
pub struct SimPathArgs {
    /// Settings of both directions, as delay=20ms,rate=100mbit,queue=1bdp
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub both: Option<LinkSettings>,
    /// Settings of the direction from clients to servers; they override those of both
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub ab: Option<LinkSettings>,
    /// Settings of the direction from servers to clients, which the downloads use
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub ba: Option<LinkSettings>,
    /// A download; repeat it for more: ours, remembered (ours with an address token), cubic or reno;
    /// optionally with the one-way delay of its access link, as cubic/30ms [default: ours]
    #[arg(long = "flow", value_name = "CARRIER[/DELAY]")]
    pub flows: Vec<FlowArg>,
    /// Interval between the starts of two downloads
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = units::duration)]
    pub stagger: Duration,
    /// Bytes of each download [default: unlimited]
    #[arg(long, value_name = "N", default_value_t = 1 << 40,
          value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub bytes: u64,
    /// Virtual time after which unfinished downloads are stopped
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration)]
    pub lasts: Duration,
    /// Seed of the faults and of the clients
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Print one line of JSON, with the bytes of every second
    #[arg(long)]
    pub json: bool,
}

/// A download as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowArg {
    carrier: Carrier,
    access: Duration,
}

impl FromStr for FlowArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (carrier, access) = match text.split_once('/') {
            Some((carrier, delay)) => {
                let delay = units::duration(delay).map_err(|error| error.to_string())?;
                (carrier, delay)
            }
            None => (text, Duration::ZERO),
        };
        let carrier = CARRIERS.iter().find(|(name, _)| *name == carrier);
        match carrier {
            Some(&(_, carrier)) => Ok(Self { carrier, access }),
            None => Err("not a flow: use ours, remembered, cubic or reno".to_owned()),
        }
    }
}

const CARRIERS: [(&str, Carrier); 4] = [
    ("ours", Carrier::Ours),
    ("remembered", Carrier::OursRemembered),
    ("cubic", Carrier::Tcp(Growth::Cubic)),
    ("reno", Carrier::Tcp(Growth::Reno)),
];

/// The results of a run.
#[derive(Debug, Serialize)]
struct PathReport {
    seed: u64,
    seconds: f64,
    flows: Vec<FlowReport>,
    ab: LinkCounters,
    ba: LinkCounters,
    waited: Summary,
}

#[derive(Debug, Serialize)]
struct FlowReport {
    carrier: &'static str,
    received: u64,
    goodput_mbit: f64,
    /// Time from its start to its last byte.
    seconds: Option<f64>,
    by_second: Vec<u64>,
    lost: Option<u64>,
    repeated: Option<u64>,
    timeouts: Option<u64>,
    refused: u64,
}

/// Simulates the path and prints the results.
///
/// # Errors
/// [`Exit::Usage`] for settings of an impossible link, [`Exit::WriteError`] if standard output is
/// closed.
pub fn run(args: &SimPathArgs) -> Result<Exit, Failed> {
    if args.flows.len() > MAX_FLOWS {
        let message = format!("more than {MAX_FLOWS} downloads: remove some --flow");
        return Err(Failed::new(Exit::Usage, message));
    }
    let path = path(args)?;
    let outcome = simulate(&path).map_err(|error| Failed::new(Exit::Usage, error))?;
    let report = report(&path, outcome);
    let text = match args.json {
        true => serde_json::to_string(&report).unwrap_or_default() + "\n",
        false => table(&report),
    };
    // A closed standard output needs no message.
    let closed = |_: io::Error| Failed::new(Exit::WriteError, "");
    io::stdout().write_all(text.as_bytes()).map_err(closed)?;
    Ok(Exit::Success)
}

fn path(args: &SimPathArgs) -> Result<Bottleneck, Failed> {
    let spec = |own: &Option<LinkSettings>| LinkSpec::of(args.both.iter().chain(own));
    let (ab, ba) = (spec(&args.ab), spec(&args.ba));
    let resolve = |own: &LinkSpec, other: &LinkSpec| -> Result<LinkConfig, Failed> {
        let resolved = own.resolve(other);
        resolved.map_err(|error| Failed::new(Exit::Usage, error))
    };
    let ours = [FlowArg {
        carrier: Carrier::Ours,
        access: Duration::ZERO,
    }];
    let flows: &[FlowArg] = match args.flows.is_empty() {
        true => &ours,
        false => &args.flows,
    };
    let flows = (0..).zip(flows).map(|(index, flow)| FlowPlan {
        carrier: flow.carrier,
        starts: args.stagger * index,
        access: flow.access,
        bytes: args.bytes,
    });
    Ok(Bottleneck {
        up: resolve(&ab, &ba)?,
        down: resolve(&ba, &ab)?,
        flows: flows.collect(),
        lasts: args.lasts,
        seed: args.seed,
    })
}

fn report(path: &Bottleneck, outcome: PathOutcome) -> PathReport {
    let plans = path.flows.iter().zip(outcome.flows);
    PathReport {
        seed: path.seed,
        seconds: outcome.ended.as_secs_f64(),
        flows: plans
            .map(|(plan, flow)| flow_report(plan, flow, outcome.ended))
            .collect(),
        ab: outcome.up,
        ba: outcome.down,
        waited: outcome.waited,
    }
}

fn flow_report(plan: &FlowPlan, flow: FlowOutcome, ended: Duration) -> FlowReport {
    let lasted = flow.completed.unwrap_or(ended.saturating_sub(plan.starts));
    let named = CARRIERS
        .iter()
        .find(|(_, carrier)| *carrier == plan.carrier);
    let stats = flow.stats.as_ref();
    FlowReport {
        carrier: named.map_or("", |(name, _)| name),
        received: flow.received,
        goodput_mbit: megabits(flow.received) / lasted.as_secs_f64().max(1e-6),
        seconds: flow.completed.map(|time| time.as_secs_f64()),
        by_second: flow.by_second,
        lost: stats.map(|stats| stats.lost),
        repeated: stats.map(|stats| stats.repeated),
        timeouts: stats.map(|stats| stats.timeouts),
        refused: flow.refused,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn megabits(bytes: u64) -> f64 {
    bytes as f64 * 8e-6
}

fn table(report: &PathReport) -> String {
    let mut text = format!(
        "{:<11} {:>13} {:>8} {:>9} {:>7} {:>7} {:>7}\n",
        "flow", "bytes", "Mbit/s", "seconds", "lost", "asked+", "timeout"
    );
    let count = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
    for flow in &report.flows {
        let seconds = flow
            .seconds
            .map_or("-".to_owned(), |time| format!("{time:.4}"));
        text += &format!(
            "{:<11} {:>13} {:>8.2} {seconds:>9} {:>7} {:>7} {:>7}\n",
            flow.carrier,
            flow.received,
            flow.goodput_mbit,
            count(flow.lost),
            count(flow.repeated),
            count(flow.timeouts),
        );
    }
    let milliseconds = |us: u64| Duration::from_micros(us).as_secs_f64() * 1e3;
    text += &format!(
        "queue: {} dropped, waited {:.2} ms at the median, {:.2} ms at the 95th percentile\n",
        report.ba.queue,
        milliseconds(report.waited.p50_us),
        milliseconds(report.waited.p95_us),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_read_as_they_are_named() {
        for (text, want) in [
            ("ours", Some((Carrier::Ours, 0))),
            ("cubic/30ms", Some((Carrier::Tcp(Growth::Cubic), 30))),
            ("reno", Some((Carrier::Tcp(Growth::Reno), 0))),
            ("vegas", None),
            ("ours/30", None),
            ("", None),
        ] {
            let flow = text.parse::<FlowArg>().ok();
            let want = want.map(|(carrier, ms)| FlowArg {
                carrier,
                access: Duration::from_millis(ms),
            });
            assert_eq!(flow, want, "{text}");
        }
    }
}
