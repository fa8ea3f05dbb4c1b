//! One bottleneck on virtual time, shared by our flows and by models of TCP: to study a cell of the
//! comparison with the kernel before changing code.
//!
//! In: a [`Bottleneck`]: both directions, the flows, the duration, a seed. Out: a [`PathOutcome`]
//! with the bytes of every flow. Our flows are `transport::client` and `transport::server` as they
//! ship; TCP is the idealised model of [`tcp`]. Equal paths give equal outcomes.

mod ours;
pub mod tcp;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::dice::Dice;
use super::world::Clock;
use crate::link::{Link, LinkConfig, LinkConfigError, LinkCounters, Summary};
use crate::time::{Instant, Now};
use crate::transport::client::ClientStats;
use crate::wire::flight::{Flight, UdpPath};
use crate::wire::ip::UdpTemplate;

use ours::Ours;
use tcp::{Growth, Tcp};

/// Most flows of a path.
pub const MAX_FLOWS: usize = 64;

/// MTU of every host on the path, in bytes.
const MTU: u16 = 1500;

/// The transport of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Our transport.
    Ours,
    /// Our transport, with an address token from before.
    OursRemembered,
    /// The model of TCP.
    Tcp(Growth),
}

/// One download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowPlan {
    /// Its transport.
    pub carrier: Carrier,
    /// Its start.
    pub starts: Duration,
    /// Delay of its own links, each way, in addition to the path's.
    pub access: Duration,
    /// Bytes of its object.
    pub bytes: u64,
}

/// A bottleneck and its flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bottleneck {
    /// Link from the servers to the clients.
    pub down: LinkConfig,
    /// Link from the clients to the servers.
    pub up: LinkConfig,
    /// At most [`MAX_FLOWS`].
    pub flows: Vec<FlowPlan>,
    /// Virtual time after which incomplete flows are cut off.
    pub lasts: Duration,
    /// Seed of faults and of the clients' random choices.
    pub seed: u64,
}

/// The outcome of one flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowOutcome {
    /// Stream bytes received in order.
    pub received: u64,
    /// Time from its start to its last byte, if complete.
    pub completed: Option<Duration>,
    /// Bytes received by the end of each second.
    pub by_second: Vec<u64>,
    /// Statistics of our client; `None` for TCP.
    pub stats: Option<ClientStats>,
    /// Requests that our server rejected, including repeats.
    pub refused: u64,
}

/// The outcome of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathOutcome {
    /// In the order of the plans.
    pub flows: Vec<FlowOutcome>,
    /// The end of the last flow, or of the run.
    pub ended: Duration,
    /// Counters of the bottleneck towards the clients.
    pub down: LinkCounters,
    /// Sojourn times in that queue.
    pub waited: Summary,
    /// Counters of the bottleneck towards the servers.
    pub up: LinkCounters,
}

/// Both ends of one flow.
trait Ends {
    fn at_client(&mut self, now: Now, packet: &[u8]);
    fn at_server(&mut self, now: Now, packet: &[u8]);
    fn handle_timeout(&mut self, now: Now);
    /// Returns the next flight of the client, if any.
    fn next_of_client(&mut self, now: Now) -> Option<Flight>;
    /// Returns the next flight of the server, if any.
    fn next_of_server(&mut self, now: Now) -> Option<Flight>;
    fn poll_timeout(&self) -> Option<Instant>;
    /// The stream bytes received in order.
    fn received(&self) -> u64;
    fn stats(&self) -> Option<ClientStats>;
    /// The number of requests that the server rejected.
    fn refused(&self) -> u64;
}

struct Flow {
    plan: FlowPlan,
    ends: Box<dyn Ends>,
    begun: bool,
    up: Link,
    down: Link,
    outcome: FlowOutcome,
}

/// The source of the next event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Up,
    Down,
    AccessUp(usize),
    AccessDown(usize),
    Timer(usize),
}

/// Runs every flow until it is complete or the time is over.
///
/// # Errors
/// [`LinkConfigError`] if a link's configuration breaks a bound. Flows beyond [`MAX_FLOWS`] are left out.
pub fn run(path: &Bottleneck) -> Result<PathOutcome, LinkConfigError> {
    let mut run = Run::new(path)?;
    while let Some((at, source)) = run.next_event() {
        if at > Instant::ZERO + path.lasts {
            break;
        }
        run.step(at, source);
        if run
            .flows
            .iter()
            .all(|flow| flow.outcome.completed.is_some())
        {
            break;
        }
    }
    Ok(run.outcome(path.lasts))
}

struct Run {
    now: Instant,
    flows: Vec<Flow>,
    up: Link,
    down: Link,
}

impl Run {
    fn new(path: &Bottleneck) -> Result<Self, LinkConfigError> {
        let mut dice = Dice::new(path.seed);
        let (up, down) = (
            Link::new(path.up.clone(), dice.seed())?,
            Link::new(path.down.clone(), dice.seed())?,
        );
        let flows = path.flows.iter().take(MAX_FLOWS).enumerate();
        let flows = flows.map(|(index, &plan)| {
            let access = LinkConfig {
                delay: plan.access,
                ..LinkConfig::default()
            };
            let seed = dice.seed();
            let ends: Box<dyn Ends> = match plan.carrier {
                Carrier::Ours => Box::new(Ours::new(address_pair(index), plan.bytes, seed)),
                Carrier::OursRemembered => {
                    let ours = Ours::new(address_pair(index), plan.bytes, seed);
                    Box::new(ours.with_token(clocks(Instant::ZERO)))
                }
                Carrier::Tcp(growth) => Box::new(Tcp::new(address_pair(index), plan.bytes, growth)),
            };
            Ok(Flow {
                plan,
                ends,
                begun: false,
                up: Link::new(access.clone(), seed)?,
                down: Link::new(access, seed)?,
                outcome: FlowOutcome::default(),
            })
        });
        Ok(Self {
            now: Instant::ZERO,
            flows: flows.collect::<Result<_, LinkConfigError>>()?,
            up,
            down,
        })
    }

    fn next_event(&self) -> Option<(Instant, Source)> {
        let shared = [
            self.up.poll_timeout().map(|at| (at, Source::Up)),
            self.down.poll_timeout().map(|at| (at, Source::Down)),
        ];
        let own = self.flows.iter().enumerate().flat_map(|(index, flow)| {
            let timer = match flow.begun {
                true => flow.ends.poll_timeout(),
                false => Some(Instant::ZERO + flow.plan.starts),
            };
            let finished = flow.outcome.completed.is_some();
            [
                flow.up
                    .poll_timeout()
                    .map(|at| (at, Source::AccessUp(index))),
                flow.down
                    .poll_timeout()
                    .map(|at| (at, Source::AccessDown(index))),
                timer
                    .filter(|_| !finished)
                    .map(|at| (at, Source::Timer(index))),
            ]
        });
        let next = own.chain(shared).flatten().min();
        next.map(|(at, source)| (at.max(self.now), source))
    }

    fn step(&mut self, at: Instant, source: Source) {
        self.now = at;
        let now = clocks(at);
        match source {
            Source::Up => {
                let packet = self.up.pop(at);
                self.with_flow(packet, SOURCE, |flow, packet| {
                    flow.ends.at_server(now, packet);
                });
            }
            Source::Down => {
                if let Some(packet) = self.down.pop(at)
                    && let Some(flow) = self.flows.get_mut(index_at(&packet, DESTINATION))
                {
                    flow.down.push(at, packet);
                }
            }
            Source::AccessUp(index) => {
                if let Some(packet) = self.flows.get_mut(index).and_then(|flow| flow.up.pop(at)) {
                    self.up.push(at, packet);
                }
            }
            Source::AccessDown(index) => {
                let packet = self.flows.get_mut(index).and_then(|flow| flow.down.pop(at));
                self.with_flow(packet, DESTINATION, |flow, packet| {
                    flow.ends.at_client(now, packet);
                });
            }
            Source::Timer(index) => {
                if let Some(flow) = self.flows.get_mut(index) {
                    flow.begun = true;
                    flow.ends.handle_timeout(now);
                }
                self.turn(index);
            }
        }
    }

    /// Delivers a packet to the flow whose client address is at offset `field`.
    fn with_flow(
        &mut self,
        packet: Option<Vec<u8>>,
        field: usize,
        take: impl FnOnce(&mut Flow, &[u8]),
    ) {
        let Some(packet) = packet else { return };
        let index = index_at(&packet, field);
        if let Some(flow) = self.flows.get_mut(index) {
            take(flow, &packet);
            self.turn(index);
        }
    }

    /// Sends the output of a flow, and records its progress.
    fn turn(&mut self, index: usize) {
        let at = self.now;
        let Some(flow) = self.flows.get_mut(index) else {
            return;
        };
        while let Some(flight) = flow.ends.next_of_client(clocks(at)) {
            emit(&flight, |packet| flow.up.push(at, packet));
        }
        while let Some(flight) = flow.ends.next_of_server(clocks(at)) {
            emit(&flight, |packet| self.down.push(at, packet));
        }
        flow.note(at);
    }

    fn outcome(self, lasts: Duration) -> PathOutcome {
        let done = self
            .flows
            .iter()
            .all(|flow| flow.outcome.completed.is_some());
        let now = self.now;
        let flows = self.flows.into_iter().map(|mut flow| {
            flow.outcome.stats = flow.ends.stats();
            flow.outcome.refused = flow.ends.refused();
            flow.outcome
        });
        PathOutcome {
            flows: flows.collect(),
            ended: if done {
                now.saturating_since(Instant::ZERO)
            } else {
                lasts
            },
            up: self.up.counters(),
            down: self.down.counters(),
            waited: self.down.sojourn().summary(),
        }
    }
}

impl Flow {
    fn note(&mut self, at: Instant) {
        let second = usize::try_from(at.as_micros() / 1_000_000).unwrap_or(usize::MAX);
        let before = self.outcome.received;
        let outcome = &mut self.outcome;
        outcome
            .by_second
            .resize(outcome.by_second.len().max(second + 1), before);
        outcome.received = self.ends.received();
        if let Some(last) = outcome.by_second.last_mut() {
            *last = outcome.received;
        }
        if outcome.received >= self.plan.bytes {
            let took = at.saturating_since(Instant::ZERO + self.plan.starts);
            outcome.completed.get_or_insert(took);
        }
    }
}

/// Offsets of the source and the destination address in an IPv4 header (RFC 791 §3.1).
const SOURCE: usize = 12;
const DESTINATION: usize = 16;

/// The servers' address and port.
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)), 7600);

/// The addresses of client and server of a flow.
fn address_pair(index: usize) -> UdpPath {
    let last = u8::try_from(index % MAX_FLOWS).unwrap_or(0);
    UdpPath {
        src: SocketAddr::new(Ipv4Addr::new(10, 0, 0, last).into(), 40_000),
        dst: SERVER,
    }
}

fn index_at(packet: &[u8], field: usize) -> usize {
    packet
        .get(field + 3)
        .map_or(usize::MAX, |&last| last.into())
}

fn clocks(at: Instant) -> Now {
    Clock::default().at(at)
}

fn emit(flight: &Flight, mut push: impl FnMut(Vec<u8>)) {
    let Ok(template) = UdpTemplate::new(flight.path, flight.ecn) else {
        return;
    };
    for payload in flight.datagrams() {
        if let Ok(packet) = template.packet(&payload) {
            push(packet);
        }
    }
}
