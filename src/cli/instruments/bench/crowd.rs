//! `headwater bench crowd`: races for connections that all begin at the same moment, in one process, over one pair of sockets.
//!
//! In: a host with several addresses. Out: the number of races that ended with a connection, their times, and the descriptors and
//! the memory of the process. A machine holds one client machine for each race; answers find it by the echo of its OPENs. It
//! sends [`PACKETS_A_TURN`] packets between two readings of the sockets, whose buffers are small: a race begins when those
//! before it have sent theirs. Its time counts from the common start.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::ops::{ControlFlow, Range};
use std::time::Duration;

use serde::Serialize;

use crate::apps::fetch::TransferEvent;
use crate::apps::fetch::target::Target;
use crate::cli::connect::names::ResolverArg;
use crate::cli::connect::run::Until;
use crate::cli::connect::{ClientDevice, ConnectArgs, ConnectConfig, Memory, parse_target};
use crate::cli::exit::{Exit, Failed};
use crate::cli::local::device_failed;
use crate::cli::race::table::ms;
use crate::host::client::ClientHost;
use crate::host::{Machine, Transmit};
use crate::runtime::{Hooks, OsClock, Stopped};
use crate::time::{Instant, Now};
use crate::wire::flight::Flight;
use crate::wire::ip::UdpView;
use crate::wire::segment::{ToClient, ToServer};

/// Most races at once.
const MAX_RACES: u32 = 100_000;

/// Packets between two readings of the sockets.
const PACKETS_A_TURN: u32 = 32;

/// Arguments of `bench crowd`.
#[derive(Debug, clap::Args)]
pub(super) struct CrowdArgs {
    /// Host, with a port if it is not 80; its addresses are named by --resolve
    #[arg(value_name = "HOST")]
    host: String,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Races at once
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RACES)))]
    count: u32,
}

/// The result, as printed.
#[derive(Serialize)]
struct CrowdResult {
    races: usize,
    connected: usize,
    p50_ms: f64,
    longest_ms: f64,
    descriptors_before: usize,
    descriptors_during: usize,
    resident_kib: u64,
}

/// Runs the races.
///
/// # Errors
/// If the sockets cannot be opened or fail.
pub(super) fn execute(args: CrowdArgs) -> Result<Exit, Failed> {
    let target = parse_target(&args.host, "a host like files:8080")?;
    let mut config = ConnectConfig::resolve(args.connect)?;
    // Neither a resolver nor TCP: either has descriptors of its own in each machine.
    config.names.resolver = Some(ResolverArg::System);
    config.names.dns_servers = None;
    config.protocol = config.protocol.over_udp();
    let clock = OsClock::new();
    let descriptors_before = descriptors();
    let ClientDevice::Sockets(device) = config.open()? else {
        let message = "races of one process need sockets: leave --tun out";
        return Err(Failed::new(Exit::Usage, message));
    };
    let now = clock.now();
    let mut hosts = Vec::new();
    for _ in 0..args.count {
        hosts.push(Some(config.machine(now, Memory::default())?));
    }
    let mut endpoint = config.local.endpoint(clock, device, Crowd::new(hosts))?;
    let mut hooks = Start {
        target,
        began: None,
        descriptors: 0,
    };
    let stopped = endpoint.run_with(&mut hooks).map_err(device_failed)?;
    if let Stopped::BySignal(signal) = stopped {
        return Err(Failed::new(signal.into(), ""));
    }
    let crowd = endpoint.machine();
    let mut times = crowd.times.clone();
    times.sort_unstable();
    let result = CrowdResult {
        races: crowd.hosts.len(),
        connected: times.len(),
        p50_ms: times.get(times.len() / 2).map_or(0.0, |time| ms(*time)),
        longest_ms: times.last().map_or(0.0, |time| ms(*time)),
        descriptors_before,
        descriptors_during: hooks.descriptors,
        resident_kib: resident_kib(),
    };
    // Plain values always serialize; a reader that has gone away needs no line.
    let text = serde_json::to_string(&result).unwrap_or_default();
    let _ = writeln!(io::stdout(), "{text}");
    match result.connected == result.races {
        true => Ok(Exit::Success),
        false => Err(Failed::new(
            Exit::CannotConnect,
            "some races ended without a connection",
        )),
    }
}

/// The open descriptors of this process.
fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// The resident memory of this process.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let figure = line.and_then(|rest| rest.split_ascii_whitespace().next());
    figure.and_then(|figure| figure.parse().ok()).unwrap_or(0)
}

/// Starts all races in the first turn, and ends the loop with the last of them.
struct Start {
    target: Target,
    began: Option<Instant>,
    descriptors: usize,
}

impl Hooks<Crowd> for Start {
    fn turn(&mut self, now: Now, crowd: &mut Crowd) -> ControlFlow<()> {
        if self.began.is_none() {
            self.began = Some(now.instant);
            crowd.begin(now.instant, self.target.clone());
        }
        if crowd.unstarted.is_empty() && self.descriptors == 0 {
            self.descriptors = descriptors();
        }
        match crowd.running {
            0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// A machine of many client machines.
struct Crowd {
    /// Those whose races have not ended.
    hosts: Vec<Option<ClientHost>>,
    running: usize,
    /// Those that have not begun.
    unstarted: Range<usize>,
    target: Option<Target>,
    began: Instant,
    /// Packets that may leave in this turn.
    left: u32,
    times: Vec<Duration>,
    /// Clients by the echoes of their OPENs.
    echoes: HashMap<u64, usize>,
    /// Clients that may have packets to send.
    ready: VecDeque<usize>,
    /// Their deadlines, by time and by client.
    deadlines: BTreeSet<(Instant, usize)>,
    armed: Vec<Option<Instant>>,
}

impl Crowd {
    fn new(hosts: Vec<Option<ClientHost>>) -> Self {
        Self {
            running: hosts.len(),
            unstarted: 0..0,
            target: None,
            began: Instant::ZERO,
            left: PACKETS_A_TURN,
            armed: vec![None; hosts.len()],
            hosts,
            times: Vec::new(),
            echoes: HashMap::new(),
            ready: VecDeque::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Begins all races.
    fn begin(&mut self, now: Instant, target: Target) {
        self.unstarted = 0..self.hosts.len();
        self.target = Some(target);
        self.began = now;
    }

    /// Starts the next race, if there is one.
    fn start_next(&mut self, now: Now) -> bool {
        let (Some(index), Some(target)) = (self.unstarted.next(), &self.target) else {
            return false;
        };
        if let Some(Some(host)) = self.hosts.get_mut(index) {
            host.start(now, Until::Connected.transfer(target));
        }
        self.settle(now, index);
        true
    }

    /// Takes the outcome of a client, or queues it for its packets and its deadline.
    fn settle(&mut self, now: Now, index: usize) {
        let Some(place) = self.hosts.get_mut(index) else {
            return;
        };
        let Some(host) = place else { return };
        let failed = |event| matches!(event, TransferEvent::Failed(_));
        let won = host.race().winner.is_some();
        if won {
            self.times.push(now.instant.saturating_since(self.began));
        }
        if won || core::iter::from_fn(|| host.poll_event()).any(failed) {
            *place = None;
            self.running -= 1;
            self.arm(index, None);
            return;
        }
        let deadline = host.poll_timeout(now).map(|(at, _)| at);
        self.arm(index, deadline);
        self.ready.push_back(index);
    }

    fn arm(&mut self, index: usize, deadline: Option<Instant>) {
        let Some(armed) = self.armed.get_mut(index) else {
            return;
        };
        if let Some(before) = core::mem::replace(armed, deadline) {
            self.deadlines.remove(&(before, index));
        }
        self.deadlines.extend(deadline.map(|at| (at, index)));
    }

    /// Remembers whose OPENs a flight has.
    fn note(&mut self, flight: &Flight, index: usize) {
        for datagram in flight.datagrams() {
            if let Ok(ToServer::Open(open)) = ToServer::parse(&datagram) {
                self.echoes.insert(open.echo, index);
            }
        }
    }
}

impl Machine for Crowd {
    fn handle_packet(&mut self, _now: Now, _packet: &[u8], _segment: Option<usize>) {}

    fn handle_datagrams(&mut self, now: Now, view: &UdpView<'_>, segment: Option<usize>) {
        for payload in view.datagrams(segment) {
            let echo = ToClient::addressee(payload).and_then(|to| to.echo);
            let Some(&index) = echo.and_then(|echo| self.echoes.get(&echo)) else {
                continue;
            };
            if let Some(Some(host)) = self.hosts.get_mut(index) {
                host.handle_datagrams(now, &UdpView { payload, ..*view }, None);
                self.settle(now, index);
            }
        }
    }

    fn handle_unreachable(&mut self, now: Now, address: IpAddr) {
        for index in 0..self.hosts.len() {
            if let Some(Some(host)) = self.hosts.get_mut(index) {
                host.handle_unreachable(now, address);
                self.settle(now, index);
            }
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.left = PACKETS_A_TURN;
        while let Some(&(at, index)) = self.deadlines.first()
            && at <= now.instant
        {
            self.arm(index, None);
            if let Some(Some(host)) = self.hosts.get_mut(index) {
                host.handle_timeout(now);
                self.settle(now, index);
            }
        }
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        if self.left == 0 {
            return None;
        }
        while !self.ready.is_empty() || self.start_next(now) {
            let &index = self.ready.front()?;
            let host = self.hosts.get_mut(index).and_then(Option::as_mut);
            if let Some(transmit) = host.and_then(|host| host.poll_transmit(now)) {
                if let Transmit::Flight(flight) = &transmit {
                    self.note(flight, index);
                }
                self.left -= 1;
                return Some(transmit);
            }
            self.ready.pop_front();
            let host = self.hosts.get_mut(index).and_then(Option::as_mut);
            let deadline = host
                .and_then(|host| host.poll_timeout(now))
                .map(|(at, _)| at);
            self.arm(index, deadline);
        }
        None
    }

    fn poll_timeout(&mut self, now: Now) -> Option<(Instant, &'static str)> {
        if self.left == 0 && (!self.ready.is_empty() || !self.unstarted.is_empty()) {
            return Some((now.instant, "turn"));
        }
        self.deadlines.first().map(|(at, _)| (*at, "race"))
    }
}
