//! Peers that take turns: in every round each sends its requests, so that other load on the machine
//! affects all of them.
//!
//! In: peers as typed, and a plan. Out: the results of each peer in each round.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use serde::Serialize;

use crate::cli::asked::ask;
use crate::cli::exit::{Exit, Failed};
use crate::cli::instruments::bench::cpu::{CpuUse, Meter, used_ns};
use crate::cli::instruments::bench::peers::{MAX_PEERS, Peer, PeerKind, ServerPid};
use crate::cli::instruments::bench::{Figures, conclude};
use crate::cli::instruments::load::{refused, seed};
use crate::cli::local::{LocalArgs, Opened, device_failed};
use crate::device::Device;
use crate::instruments::load::LoadTarget;
use crate::instruments::load::report::RequestReport;
use crate::instruments::load::requests::{Bearer, RequestConfig, RequestHost};
use crate::instruments::load::schedule::Plan;
use crate::instruments::sockets::{Close, SocketConfig, Sockets};
use crate::runtime::{Hooks, OsClock, Runtime, Stopped};
use crate::time::{Instant, Now};

/// Arguments of all benchmarks with peers.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("tun", |arg| arg.required(false).requires("addresses")),
    mut_arg("addresses", |arg| arg.required(false).requires("tun"))
)]
pub(super) struct ContestArgs {
    /// Peer to measure, and its URL: transport=URL, smoltcp=URL (both from our stack) or kernel=URL
    /// (sockets); repeat it, and the peers take turns
    #[arg(long = "peer", value_name = "KIND=URL", required = true)]
    pub(super) peers: Vec<Peer>,
    /// Required by peers from our stack
    #[command(flatten)]
    pub(super) local: Option<LocalArgs>,
    /// UDP port of the transport's service (the port in a URL is the TCP port)
    #[arg(long, value_name = "PORT", default_value_t = 7600,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) udp_port: u16,
    /// How to close connections of the kernel
    #[arg(long, value_enum, default_value_t = CloseArg::Reset)]
    pub(super) close: CloseArg,
    /// Send the address tokens of earlier connections on new ones of the transport
    #[arg(long)]
    pub(super) tokens: bool,
    /// Receive buffer of a connection of the transport
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(4096..=1 << 30))]
    pub(super) buffer: Option<u32>,
    /// Process id of a peer's server, to report its processor time
    #[arg(long = "server-pid", value_name = "KIND=PID")]
    pub(super) server_pids: Vec<ServerPid>,
    /// Seed of the random choices [default: random]
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// Write all results to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) stats: Option<PathBuf>,
}

/// The value of `--close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CloseArg {
    /// Reset: leaves no state
    Reset,
    /// Orderly; the client's ports stay in TIME-WAIT
    Fin,
}

/// The settings of all benchmarks with peers, for the results.
#[derive(Clone, Copy, Debug, Serialize)]
struct ContestSettings<S> {
    #[serde(flatten)]
    own: S,
    close: CloseArg,
    tokens: bool,
}

/// The results of a peer.
#[derive(Debug, Serialize)]
pub(super) struct Standing {
    pub(super) peer: PeerKind,
    pub(super) url: String,
    pub(super) rounds: Vec<Round>,
}

/// The results of a peer in one round.
#[derive(Debug, Serialize)]
pub(super) struct Round {
    #[serde(flatten)]
    pub(super) report: RequestReport,
    #[serde(flatten)]
    pub(super) cpu: CpuUse,
}

/// Builds a table: the heads, and a row for each peer. `cells` formats its rounds; it also gets those of
/// the first peer.
pub(super) fn table(
    heads: &[&str],
    standings: &[Standing],
    cells: impl Fn(&[Round], &[Round]) -> Vec<String>,
) -> Vec<Vec<String>> {
    let first = standings.first().map(|first| first.rounds.as_slice());
    let rows = standings.iter().map(|standing| {
        let mut row = vec![standing.peer.to_string()];
        row.extend(cells(&standing.rounds, first.unwrap_or_default()));
        row
    });
    let heads = heads.iter().copied().map(str::to_owned).collect();
    std::iter::once(heads).chain(rows).collect()
}

/// A peer, ready to send requests.
struct Ready {
    kind: PeerKind,
    remote: SocketAddr,
    head: Vec<u8>,
    server: Option<u32>,
}

/// Peers, device and clock.
pub(super) struct Contest<'a> {
    args: &'a ContestArgs,
    seed: u64,
    plan: Plan,
    buffer: usize,
    clock: OsClock,
    ready: Vec<Ready>,
}

impl<'a> Contest<'a> {
    /// Validates all arguments; `buffer`: default receive buffer of our transport.
    pub(super) fn new(args: &'a ContestArgs, plan: Plan, buffer: u32) -> Result<Self, Failed> {
        if let Some(local) = &args.local {
            local.check()?;
        }
        let count = args.peers.len();
        if count > MAX_PEERS {
            let advice = format!("{count} peers: at most {MAX_PEERS} are allowed");
            return Err(Failed::new(Exit::Usage, advice));
        }
        let ready = args.peers.iter().map(|peer| get_ready(args, peer));
        let buffer = args.buffer.unwrap_or(buffer);
        Ok(Self {
            args,
            seed: seed(args.seed)?,
            plan,
            buffer: usize::try_from(buffer).unwrap_or(usize::MAX),
            clock: OsClock::new(),
            ready: ready.collect::<Result<_, _>>()?,
        })
    }

    /// Runs all rounds.
    pub(super) fn run(&self, rounds: u32) -> Result<Vec<Standing>, Failed> {
        if self
            .ready
            .iter()
            .all(|ready| ready.kind == PeerKind::Kernel)
        {
            return self.rounds(rounds, |ready, seed| self.by_sockets(ready, seed));
        }
        let local = self.args.local.as_ref().ok_or_else(no_device)?;
        match local.open()? {
            Opened::Plain(device) => self.on_device(rounds, local, device),
            Opened::Tapped(device) => self.on_device(rounds, local, device),
        }
    }

    /// Prints the table and writes the results of `bench`, which has settings of its own.
    pub(super) fn conclude<S: Serialize>(
        &self,
        bench: &'static str,
        own: S,
        standings: &[Standing],
        rows: &[Vec<String>],
    ) -> Result<Exit, Failed> {
        let (close, tokens) = (self.args.close, self.args.tokens);
        let settings = ContestSettings { own, close, tokens };
        let figures = Figures::new(bench, self.seed, settings, standings);
        conclude(&figures, self.args.stats.as_deref(), rows)
    }

    fn on_device<D: Device + AsRawFd>(
        &self,
        rounds: u32,
        local: &LocalArgs,
        device: D,
    ) -> Result<Vec<Standing>, Failed> {
        let mut runtime = local.runtime(self.clock, device)?;
        self.rounds(rounds, |ready, seed| match ready.kind {
            PeerKind::Kernel => self.by_sockets(ready, seed),
            PeerKind::Transport | PeerKind::Smoltcp => {
                self.by_stack(&mut runtime, local, ready, seed)
            }
        })
    }

    fn rounds(
        &self,
        rounds: u32,
        mut run: impl FnMut(&Ready, u64) -> Result<Round, Failed>,
    ) -> Result<Vec<Standing>, Failed> {
        let standing = |peer: &Peer| Standing {
            peer: peer.kind,
            url: peer.url.clone(),
            rounds: Vec::new(),
        };
        let mut standings: Vec<Standing> = self.args.peers.iter().map(standing).collect();
        for round in 0..rounds {
            for (ready, standing) in self.ready.iter().zip(&mut standings) {
                let round = run(ready, self.seed.wrapping_add(u64::from(round)))?;
                check(ready.kind, &round.report)?;
                standing.rounds.push(round);
            }
        }
        Ok(standings)
    }

    fn by_stack<D: Device + AsRawFd>(
        &self,
        runtime: &mut Runtime<D>,
        local: &LocalArgs,
        ready: &Ready,
        seed: u64,
    ) -> Result<Round, Failed> {
        let config = RequestConfig {
            target: LoadTarget {
                addresses: local.addresses.clone(),
                mtu: local.mtu,
                remote: ready.remote,
                head: ready.head.clone(),
                seed,
            },
            bearer: match ready.kind {
                PeerKind::Transport => Bearer::Transport {
                    tokens: self.args.tokens,
                },
                PeerKind::Smoltcp | PeerKind::Kernel => Bearer::Tcp,
            },
            buffer: self.buffer,
            plan: self.plan,
        };
        let machine = RequestHost::new(self.clock.now(), config);
        let mut machine = machine.map_err(|error| Failed::new(Exit::Usage, error))?;
        let mut measured = Measured(Meter::new(machine.window(), ready.server));
        let stopped = runtime.run(&mut machine, &mut measured);
        match stopped.map_err(device_failed)? {
            Stopped::ByHook => Ok(Round {
                report: machine.finish(self.clock.now()),
                cpu: measured.0.finish(),
            }),
            Stopped::BySignal(signal) => Err(Failed::new(signal.into(), "")),
        }
    }

    fn by_sockets(&self, ready: &Ready, seed: u64) -> Result<Round, Failed> {
        let system = |error| {
            let advice = format!("cannot open sockets ({error}): raise `ulimit -n`");
            Failed::new(Exit::CannotConnect, advice)
        };
        let config = SocketConfig {
            remote: ready.remote,
            head: ready.head.clone(),
            close: match self.args.close {
                CloseArg::Reset => Close::Reset,
                CloseArg::Fin => Close::Finish,
            },
            plan: self.plan,
            seed,
        };
        let sockets = Sockets::new(self.clock, config).map_err(system)?;
        let mut meter = Meter::new(sockets.window(), ready.server);
        let (report, signal) = sockets.run(|now| meter.note(now.instant)).map_err(system)?;
        match signal {
            None => Ok(Round {
                report,
                cpu: meter.finish(),
            }),
            Some(signal) => Err(Failed::new(signal.into(), "")),
        }
    }
}

/// Samples processor time, and ends the loop when the requests have finished.
struct Measured(Meter);

impl Hooks<RequestHost> for Measured {
    fn turn(&mut self, now: Now, machine: &mut RequestHost) -> ControlFlow<()> {
        self.0.note(now.instant);
        match machine.is_done(now) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.0.deadline()
    }
}

fn get_ready(args: &ContestArgs, peer: &Peer) -> Result<Ready, Failed> {
    let local = args.local.as_ref();
    if local.is_none() && peer.kind != PeerKind::Kernel {
        return Err(no_device());
    }
    let asked = ask(&peer.url, |remote| {
        peer.kind == PeerKind::Kernel || local.is_some_and(|local| local.own_for(remote).is_some())
    })?;
    let port = match peer.kind {
        PeerKind::Transport => args.udp_port,
        PeerKind::Smoltcp | PeerKind::Kernel => asked.port,
    };
    let mut servers = args.server_pids.iter();
    let server = servers.find(|server| server.kind == peer.kind);
    if let Some(ServerPid { kind, pid }) = server
        && used_ns(&pid.to_string()).is_err()
    {
        let advice = format!("no process {pid}: set --server-pid {kind}= to a running process");
        return Err(Failed::new(Exit::Usage, advice));
    }
    Ok(Ready {
        kind: peer.kind,
        remote: SocketAddr::new(asked.address, port),
        head: asked.head,
        server: server.map(|server| server.pid),
    })
}

fn no_device() -> Failed {
    let advice = "peers from our stack require a device: set --tun and --address";
    Failed::new(Exit::Usage, advice)
}

/// Fails on a round without a response.
fn check(kind: PeerKind, report: &RequestReport) -> Result<(), Failed> {
    if report.latency.count == 0 {
        let reasons: Vec<&str> = report.failed.keys().copied().collect();
        let advice = format!(
            "no response over {kind} ({}): check the address, the routes and the server",
            match reasons.is_empty() {
                true => "no answer".to_owned(),
                false => reasons.join(", "),
            }
        );
        return Err(Failed::new(Exit::CannotConnect, advice));
    }
    refused(&report.statuses).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU32;
    use std::time::Duration;

    use clap::Parser as _;

    use super::*;
    use crate::instruments::load::report::Latency;
    use crate::instruments::load::schedule::Pace;

    #[derive(Debug, clap::Parser)]
    struct Typed {
        #[command(flatten)]
        args: ContestArgs,
    }

    #[test]
    fn so_many_peers_and_no_more() {
        let plan = Plan {
            pace: Pace::Closed(NonZeroU32::MIN),
            warm_up: Duration::ZERO,
            window: Duration::ZERO,
            most: 0,
        };
        for (count, good) in [(MAX_PEERS, true), (MAX_PEERS + 1, false)] {
            let words = ["x", "--tun", "hw0", "--address", "10.0.0.1", "--seed", "1"];
            let peers = ["--peer", "kernel=10.0.0.2"].repeat(count);
            let typed = Typed::try_parse_from(words.into_iter().chain(peers)).unwrap();
            assert_eq!(
                Contest::new(&typed.args, plan, 4096).is_ok(),
                good,
                "{count}"
            );
        }
    }

    #[test]
    fn only_peers_from_our_stack_need_a_device() {
        let plan = Plan {
            pace: Pace::Closed(NonZeroU32::MIN),
            warm_up: Duration::ZERO,
            window: Duration::ZERO,
            most: 0,
        };
        let cases = [
            ("--peer kernel=10.0.0.2", true),
            ("--peer transport=10.0.0.2", false),
            ("--peer kernel=10.0.0.2 --peer smoltcp=10.0.0.2", false),
            (
                "--peer transport=10.0.0.2 --tun hw0 --address 10.0.0.1",
                true,
            ),
        ];
        for (typed, good) in cases {
            let words = ["x", "--seed", "1"].into_iter();
            let typed = Typed::try_parse_from(words.chain(typed.split(' '))).unwrap();
            let got = Contest::new(&typed.args, plan, 4096).map(|_| ());
            assert_eq!(got.is_ok(), good, "{got:?}");
        }
        let half = "x --peer kernel=10.0.0.2 --tun hw0".split(' ');
        assert!(Typed::try_parse_from(half).is_err());
    }

    #[test]
    fn verdicts() {
        let good = RequestReport {
            latency: Latency {
                count: 1,
                ..Latency::default()
            },
            statuses: [(200, 1)].into(),
            ..RequestReport::default()
        };
        let cases = [
            ("good", good.clone(), Exit::Success),
            ("silence", RequestReport::default(), Exit::CannotConnect),
            (
                "missing",
                RequestReport {
                    statuses: [(404, 1)].into(),
                    ..good
                },
                Exit::HttpError,
            ),
        ];
        for (name, report, want) in cases {
            let got = check(PeerKind::Kernel, &report).err();
            assert_eq!(
                got.map_or(Exit::Success, |failed| failed.exit),
                want,
                "{name}"
            );
        }
    }
}
