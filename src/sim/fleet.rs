//! Worlds with redirectors: clients, one or two redirectors for the service's address, and a fleet
//! of servers behind them that answer the clients directly.
//!
//! In: a seed. Out: a [`FleetReport`], or a [`FleetFailure`] that names the violated law. Events:
//! servers are killed and restarted, drained, added and removed; redirectors are killed, miss a new
//! configuration, or lose the path to a server; half the fleet has newer keys; links are as bad as
//! in any world. The laws: every transfer ends, its bytes are the object's, and no client opens
//! another connection without a silence of [`LEAST_SILENCE`]. The machines are those that ship.

mod draw;
mod machines;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use self::machines::{RedirectorNode, server};
use super::Kit as _;
use super::check::LEAST_SILENCE;
use super::dice::Dice;
use super::machines::TransportKit;
use super::scenario::Scenario;
use super::world::{Action, ClientProgress, Clock, Livelock, Node, NodeId, Observer, World};
use crate::link::{Link, LinkConfigError};
use crate::redirect::capsule::MacKeys;
use crate::redirect::config::RedirectConfig;
use crate::redirect::health::Beat;
use crate::time::Instant;
use crate::wire::flight::UdpPath;

/// Most configuration changes in one world.
pub const MAX_CHANGES: u8 = 5;

/// Virtual time after which a transfer counts as stuck.
pub const MAX_TIME: Duration = Duration::from_secs(12 * 60);

/// A drawn fleet. Servers are the first nodes, redirectors and clients follow.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Clients, servers, links and the script of events.
    pub world: Scenario,
    /// The servers' own addresses.
    pub servers: Vec<IpAddr>,
    /// The configurations of each redirector, by stage.
    pub redirectors: Vec<Vec<RedirectConfig>>,
}

/// The report of a run without violations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetReport {
    /// Seed of the world.
    pub seed: u64,
    /// Virtual time at which the last client finished.
    pub ended: Instant,
    /// Stream bytes that clients received.
    pub bytes: u64,
    /// Connections opened after silences, beyond the first of each client.
    pub reopened: u64,
    /// Packets to dead nodes.
    pub to_dead: u64,
    /// A hash of every emitted packet and its time.
    pub fingerprint: u64,
}

/// A violated law.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FleetViolation {
    /// The world could not be built.
    #[error(transparent)]
    Link(#[from] LinkConfigError),
    /// Time does not advance.
    #[error(transparent)]
    Livelock(#[from] Livelock),
    /// A transfer never ended.
    #[error("node {} has {received} of {wanted} bytes and makes no progress", node.0)]
    Unfinished {
        /// The client.
        node: NodeId,
        /// Bytes received.
        received: u64,
        /// Bytes of its objects.
        wanted: u64,
    },
    /// A byte differs from the object's.
    #[error("node {} received a wrong byte at {offset}", node.0)]
    WrongBytes {
        /// The client.
        node: NodeId,
        /// Offset in its object.
        offset: u64,
    },
    /// A client opened more connections than its silences justify.
    #[error("node {} opened {count} connections with {silences} silences", node.0)]
    Handshakes {
        /// The client.
        node: NodeId,
        /// The number of connections.
        count: u64,
        /// Intervals without new bytes while it waited.
        silences: u64,
    },
}

/// A violated law. The seed reproduces it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fleet of seed {seed}: {violation}")]
pub struct FleetFailure {
    /// Seed of the world.
    pub seed: u64,
    /// The violated law.
    pub violation: FleetViolation,
}

/// Draws a fleet from `seed` and runs it until every client has finished.
///
/// # Errors
/// [`FleetFailure`] at the first violation.
pub fn run_seed(seed: u64) -> Result<FleetReport, FleetFailure> {
    let fleet = Fleet::draw(seed);
    run(&fleet).map_err(|violation| FleetFailure { seed, violation })
}

fn run(fleet: &Fleet) -> Result<FleetReport, FleetViolation> {
    let mut world = build(fleet)?;
    let count = fleet.world.clients.len();
    let first = fleet.servers.len() + fleet.redirectors.len();
    let mut watch = Watch {
        first,
        clients: vec![Watched::default(); count],
    };
    while !watch.clients.iter().all(|client| client.seen.done) {
        let going = world.step(&mut watch)?.is_some();
        if !going || world.now().saturating_since(Instant::ZERO) > MAX_TIME {
            break;
        }
    }
    let (mut bytes, mut reopened) = (0, 0);
    for ((index, client), plan) in (first..).zip(&watch.clients).zip(&fleet.world.clients) {
        let progress = client.seen;
        let (node, received, wanted) = (NodeId(index), progress.received, plan.wanted());
        if let Some(offset) = progress.wrong {
            return Err(FleetViolation::WrongBytes { node, offset });
        }
        if !progress.done || received != wanted {
            return Err(FleetViolation::Unfinished {
                node,
                received,
                wanted,
            });
        }
        if client.unexplained {
            let (count, silences) = (progress.handshakes, client.silences);
            return Err(FleetViolation::Handshakes {
                node,
                count,
                silences,
            });
        }
        bytes += received;
        reopened += progress.handshakes.saturating_sub(1);
    }
    Ok(FleetReport {
        seed: fleet.world.seed,
        ended: world.now(),
        bytes,
        reopened,
        to_dead: world.counters().to_dead,
        fingerprint: world.fingerprint(),
    })
}

/// Inspects clients after each of their turns.
struct Watch {
    first: usize,
    clients: Vec<Watched>,
}

/// The state of a client after its last turn.
#[derive(Clone, Copy, Default)]
struct Watched {
    seen: ClientProgress,
    /// The last instant with new bytes, or without waiting for any.
    content: Instant,
    silences: u64,
    /// It opened a connection without a silence before.
    unexplained: bool,
}

impl Watched {
    fn observe(&mut self, now: Instant, is: ClientProgress) {
        let was = core::mem::replace(&mut self.seen, is);
        let silent = was.waiting && now.saturating_since(self.content) >= LEAST_SILENCE;
        let explained = 1 + self.silences + u64::from(silent);
        self.unexplained |= is.handshakes > explained;
        if !was.waiting || !is.waiting || is.received > was.received {
            self.silences += u64::from(silent);
            self.content = now;
        }
    }
}

impl Observer for Watch {
    fn delivered(&mut self, _: Instant, _: NodeId, _: UdpPath, _: &[u8]) {}

    fn released(&mut self, _: Instant, _: NodeId, _: UdpPath, _: &[u8]) {}

    fn turned(&mut self, now: Instant, node: NodeId, machine: &dyn Node) {
        let index = node.0.checked_sub(self.first);
        let slot = index.and_then(|index| self.clients.get_mut(index));
        if let (Some(slot), Some(progress)) = (slot, machine.progress()) {
            slot.observe(now, progress);
        }
    }

    fn forgot(&mut self, _: Instant, _: NodeId) {}
}

fn build(fleet: &Fleet) -> Result<World, FleetViolation> {
    let scenario = &fleet.world;
    let mut dice = Dice::new(!scenario.seed);
    let mut world = World::new(dice.seed(), 0);
    let mut script = Vec::new();
    for (&plan, &address) in scenario.servers.iter().zip(&fleet.servers) {
        let scenario = scenario.clone();
        let factory =
            Box::new(move |boot| -> Box<dyn Node> { server(&scenario, plan, address, boot) });
        let node: Vec<NodeId> = world.add(plan.clock, factory, None).into_iter().collect();
        script.extend(node.iter().map(|&id| (Instant::ZERO, Action::Start(id))));
        world.route(address, node, scenario_spray(fleet));
    }
    let mut redirectors = Vec::new();
    for configs in &fleet.redirectors {
        let own = configs.iter().flat_map(|config| &config.addresses).next();
        let (configs, seed) = (configs.clone(), dice.seed());
        let factory = Box::new(move |boot| -> Box<dyn Node> {
            Box::new(RedirectorNode::new(configs.clone(), seed, boot))
        });
        let node = world.add(Clock::default(), factory, None);
        if let (Some(node), Some(own)) = (node, own) {
            script.push((Instant::ZERO, Action::Start(node)));
            world.route(*own, vec![node], scenario_spray(fleet));
            redirectors.push(node);
        }
    }
    world.route(scenario.service.ip(), redirectors, scenario_spray(fleet));
    for plan in &scenario.clients {
        let up = Link::new(plan.up.clone(), dice.seed())?;
        let down = Link::new(plan.down.clone(), dice.seed())?;
        let (all, own) = (scenario.clone(), plan.clone());
        let factory = Box::new(move |boot| TransportKit.client(&all, &own, boot));
        let node = world.add(plan.clock, factory, Some((up, down)));
        script.extend(node.map(|node| (plan.starts, Action::Start(node))));
        world.route(
            plan.local.ip(),
            node.into_iter().collect(),
            scenario_spray(fleet),
        );
    }
    script.extend(&scenario.script);
    world.script(script);
    Ok(world)
}

const fn scenario_spray(fleet: &Fleet) -> super::world::Spray {
    fleet.world.spray
}

fn shared_keys() -> MacKeys {
    MacKeys::new((1, [0x5a; 16]), &[])
}

fn own_address(v6: bool, net: u8, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    match v6 {
        false => Ipv4Addr::new(10, 128 + net, high, low).into(),
        true => Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, u16::from(net), number).into(),
    }
}

const MTU: u16 = 1500;

const BEAT: Beat = Beat {
    interval: Duration::from_millis(50),
    misses: 3,
    recovery: 5,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::config::BackendState;

    #[test]
    fn fleets_break_no_law() {
        let (mut bytes, mut to_dead, mut reopened) = (0, 0, 0);
        for seed in 0..100 {
            let report = run_seed(seed).unwrap_or_else(|failure| panic!("{failure}"));
            bytes += report.bytes;
            to_dead += report.to_dead;
            reopened += report.reopened;
        }
        assert_eq!(
            reopened, 0,
            "silences are rare, and these seeds have none that matters"
        );
        assert!(bytes > 10_000_000 && to_dead > 100, "{bytes} {to_dead}");
    }

    #[test]
    fn a_seed_repeats_to_the_microsecond() {
        for seed in 0..5 {
            assert_eq!(run_seed(seed), run_seed(seed));
        }
    }

    #[test]
    fn a_fleet_without_servers_is_found_out() {
        let mut fleet = Fleet::draw(3);
        for configs in &mut fleet.redirectors {
            for config in configs.iter_mut() {
                for backend in &mut config.backends {
                    backend.state = BackendState::Down;
                }
            }
        }
        let found = run(&fleet);
        assert!(
            matches!(found, Err(FleetViolation::Unfinished { .. })),
            "{found:?}"
        );
    }

    #[test]
    fn the_seeds_cover_what_they_should() {
        let fleets: Vec<_> = (0..300).map(Fleet::draw).collect();
        let any = |test: fn(&Fleet) -> bool| fleets.iter().filter(|fleet| test(fleet)).count() > 20;
        assert!(any(|f| f.redirectors.len() == 1) && any(|f| f.redirectors.len() == 2));
        assert!(any(|f| f.redirectors.iter().any(|c| c.len() > 3)));
        let stale = |f: &Fleet| {
            let lengths = f.redirectors.iter().map(Vec::len);
            lengths.clone().min() != lengths.max()
        };
        assert!(any(stale));
        let befalls = |test: fn(&Action) -> bool| {
            let count = fleets
                .iter()
                .filter(|f| f.world.script.iter().any(|(_, a)| test(a)));
            count.count() > 20
        };
        assert!(befalls(|a| matches!(a, Action::Kill(_))));
        assert!(befalls(|a| matches!(a, Action::Sever(..))));
        assert!(befalls(|a| matches!(a, Action::Stage(_, 2))));
        let drains = |f: &Fleet| {
            let mut backends = f.redirectors.iter().flatten().flat_map(|c| &c.backends);
            backends.any(|backend| backend.state == BackendState::Draining)
        };
        assert!(any(drains));
    }
}
