//! `headwater bench bare`: the throughput of the devices without any protocol.
//!
//! In: arguments; one process listens, another connects to it. Out: the goodput of each run, in the
//! format of `bench throughput`.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use serde::Serialize;

use crate::cli::exit::{Exit, Failed};
use crate::cli::instruments::bench::table::{Spread, spread};
use crate::cli::instruments::bench::{Figures, Forever, SCHEMA, conclude};
use crate::cli::local::{LocalArgs, Opened, device_failed};
use crate::device::Device;
use crate::instruments::bare::{BareClient, BareServer, settings};
use crate::runtime::{Hooks, OsClock, Runtime, Stopped};
use crate::time::{Instant, Now, micros};
use crate::wire::flight::UdpPath;

/// Local port of the client.
const CLIENT_PORT: u16 = 7601;

/// Longest time of a run, in seconds.
const MAX_RUN_SECONDS: u64 = 60;

/// Arguments of `headwater bench bare`.
#[derive(Debug, clap::Args)]
pub(super) struct BareArgs {
    #[command(flatten)]
    local: LocalArgs,
    /// Answer requests to this UDP port, from any address: for testbeds only
    #[arg(long, value_name = "PORT", conflicts_with = "connect",
          required_unless_present = "connect",
          value_parser = clap::value_parser!(u16).range(1..))]
    listen: Option<u16>,
    /// Measure against a listening process at this address
    #[arg(long, value_name = "ADDR:PORT")]
    connect: Option<SocketAddr>,
    /// Window: flights of 44 datagrams each
    #[arg(long, value_name = "FLIGHTS", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=64))]
    window: u32,
    /// Bytes per run
    #[arg(long, value_name = "BYTES", default_value_t = 400_000_000)]
    bytes: u64,
    /// Number of runs, after one warm-up run
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Write all results to FILE as JSON
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
}

/// The settings, for the results.
#[derive(Serialize)]
struct BareSettings {
    runs: u32,
    window: u32,
}

/// One peer, in the format of `bench throughput`.
#[derive(Serialize)]
struct Standing {
    peer: &'static str,
    rounds: Vec<Round>,
}

#[derive(Clone, Copy, Serialize)]
struct Round {
    body_bytes: u64,
    latency: Latency,
}

#[derive(Clone, Copy, Serialize)]
struct Latency {
    max_us: u64,
}

/// Listens, or measures.
pub(super) fn run(args: &BareArgs) -> Result<Exit, Failed> {
    args.local.check()?;
    match args.local.open()? {
        Opened::Plain(device) => on_device(args, device),
        Opened::Tapped(device) => on_device(args, device),
    }
}

fn on_device<D: Device + AsRawFd>(args: &BareArgs, device: D) -> Result<Exit, Failed> {
    let clock = OsClock::new();
    let runtime = args.local.runtime(clock, device)?;
    let mut bare = Bare {
        args,
        clock,
        runtime,
    };
    match (args.listen, args.connect) {
        (Some(port), _) => bare.listen(port),
        (None, Some(remote)) => bare.connect(remote),
        (None, None) => Err(Failed::new(Exit::Usage, "set --listen or --connect")),
    }
}

/// Returns the own address for `remote`, or the first one.
fn own(args: &BareArgs, remote: Option<SocketAddr>, port: u16) -> Result<SocketAddr, Failed> {
    let own = match remote {
        Some(remote) => args.local.own_for(remote.ip()),
        None => args.local.addresses.first().copied(),
    };
    let advice = "no --address is of the family of --connect: add one";
    let own = own.ok_or_else(|| Failed::new(Exit::Usage, advice))?;
    Ok(SocketAddr::new(own, port))
}

/// The arguments, and the loop over the device.
struct Bare<'a, D> {
    args: &'a BareArgs,
    clock: OsClock,
    runtime: Runtime<D>,
}

impl<D: Device + AsRawFd> Bare<'_, D> {
    fn listen(&mut self, port: u16) -> Result<Exit, Failed> {
        let args = self.args;
        let settings = settings(own(args, None, port)?, args.local.mtu);
        let server = BareServer::new(self.clock.now(), settings);
        let mut server = server.map_err(|error| Failed::new(Exit::Usage, error))?;
        let mut out = io::stdout();
        let written = writeln!(out, "ready").and_then(|()| out.flush());
        written.map_err(|_| Failed::new(Exit::WriteError, ""))?;
        match self.runtime.run(&mut server, &mut Forever) {
            Ok(Stopped::ByHook | Stopped::BySignal(_)) => Ok(Exit::Success),
            Err(error) => Err(device_failed(error)),
        }
    }

    fn connect(&mut self, remote: SocketAddr) -> Result<Exit, Failed> {
        let args = self.args;
        let mut rounds = Vec::new();
        for run in 0..=args.runs {
            let path = UdpPath {
                // A port of its own: late packets of the run before go to another.
                src: own(
                    args,
                    Some(remote),
                    CLIENT_PORT + u16::try_from(run).unwrap_or(0),
                )?,
                dst: remote,
            };
            let settings = settings(path.src, args.local.mtu);
            let client = BareClient::new(self.clock.now(), settings, path, args.window, args.bytes);
            let mut client = client.map_err(|error| Failed::new(Exit::Usage, error))?;
            let mut patience = Patience::from(self.clock.instant());
            match self.runtime.run(&mut client, &mut patience) {
                Ok(Stopped::ByHook) if client.is_done() => {}
                Ok(Stopped::ByHook) => {
                    let advice =
                        format!("{remote} is too slow or does not answer: check that it listens");
                    return Err(Failed::new(Exit::CannotConnect, advice));
                }
                Ok(Stopped::BySignal(signal)) => return Err(Failed::new(signal.into(), "")),
                Err(error) => return Err(device_failed(error)),
            }
            let (body_bytes, took) = client.received();
            let latency = Latency {
                max_us: micros(took),
            };
            rounds.push(Round {
                body_bytes,
                latency,
            });
        }
        rounds.remove(0);
        let rows = rows(&rounds);
        let figures = Figures {
            schema: SCHEMA,
            bench: "throughput",
            seed: 0,
            settings: BareSettings {
                runs: args.runs,
                window: args.window,
            },
            peers: &[Standing {
                peer: "bare",
                rounds,
            }],
        };
        conclude(&figures, args.stats.as_deref(), &rows)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn rows(rounds: &[Round]) -> Vec<Vec<String>> {
    // Bits per microsecond are megabits per second.
    let mbits = rounds
        .iter()
        .map(|round| round.body_bytes as f64 * 8.0 / round.latency.max_us.max(1) as f64);
    let heads = ["peer", "Mbit/s"].map(str::to_owned).to_vec();
    vec![heads, vec!["bare".to_owned(), spread(Spread::of(mbits))]]
}

/// Ends a run when its bytes have arrived, or at its time limit.
struct Patience {
    until: Instant,
}

impl From<Instant> for Patience {
    fn from(now: Instant) -> Self {
        let until = now + std::time::Duration::from_secs(MAX_RUN_SECONDS);
        Self { until }
    }
}

impl Hooks<BareClient> for Patience {
    fn turn(&mut self, now: Now, machine: &mut BareClient) -> ControlFlow<()> {
        match machine.is_done() || now.instant >= self.until {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::instruments::bench::assert_options;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        args: BareArgs,
    }

    #[test]
    fn options() {
        let cases = [
            ("--listen 7601", true),
            ("--connect 10.0.0.2:7601 --window 64", true),
            ("--connect 10.0.0.2:7601 --window 65", false),
            ("", false),
            ("--listen 7601 --connect 10.0.0.2:7601", false),
        ];
        assert_options::<Typed>("x --tun hw0 --address 10.0.0.1", &cases);
        let words = "x --tun hw0 --address 10.0.0.1 --connect [fd00::1]:1".split_whitespace();
        let args = Typed::try_parse_from(words).unwrap().args;
        assert!(own(&args, args.connect, 1).is_err() && own(&args, None, 1).is_ok());
    }

    #[test]
    fn a_run_has_its_time_and_no_more() {
        let (now, end) = (
            Instant::ZERO,
            Instant::from_micros(MAX_RUN_SECONDS * 1_000_000),
        );
        assert_eq!(Patience::from(now).deadline(), Some(end));
    }

    #[test]
    fn goodput_is_bytes_over_time() {
        let round = |max_us| Round {
            body_bytes: 1_000_000,
            latency: Latency { max_us },
        };
        let rows = rows(&[round(8000), round(4000), round(2000)]);
        assert_eq!(rows[1], ["bare", "2000 [1000-4000]"]);
    }
}
