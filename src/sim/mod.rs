//! Simulation: worlds of many machines on virtual time, drawn from a seed, with every step checked
//! against the laws of the transport.
//!
//! In: a seed, [`Options`], and a [`Kit`] that creates the machines. Out: a [`SimReport`], or a
//! [`SimFailure`] that names the violated law and carries captures of the last packets. A seed
//! gives the same run on every machine: nothing here reads a clock, draws from the system, or
//! depends on the order of an unordered map.

pub mod adversary;
pub mod backbone;
pub mod check;
mod dice;
pub mod fleet;
pub mod judge;
pub mod late;
pub mod machines;
pub mod object;
pub mod path;
pub mod races;
pub mod scenario;
pub mod slow;
#[cfg(test)]
mod tests;
pub mod trace;
pub mod world;

use std::time::Duration;

use check::{Checker, Judge, Violation, Watched};
use dice::Dice;
use scenario::{ClientPlan, Scenario, ServerPlan};
use world::{Boot, Node, NodeId, World, WorldCounters};

use crate::link::{Link, LinkConfigError, LinkCounters};
use crate::time::Instant;

/// Most events of one run; a world of this kind needs some hundred thousand.
pub const MAX_EVENTS: u64 = 50_000_000;

/// The bounds of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Faults of links and servers; without them only queues drop packets.
    pub faults: bool,
    /// Cheating clients and datagrams of earlier streams that come late, in some worlds.
    pub adversaries: bool,
    /// Most clients.
    pub max_clients: u64,
    /// Most bytes of all clients together.
    pub max_bytes: u64,
    /// Packets kept for the captures of a failure, on each side.
    pub traced: usize,
}

impl Options {
    /// Begins a configuration with the defaults.
    pub fn builder() -> OptionsBuilder {
        OptionsBuilder(Self::default())
    }
}

/// Builds [`Options`]; every value is in range.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct OptionsBuilder(Options);

impl OptionsBuilder {
    /// Sets whether links and servers have faults. Default: `true`.
    pub const fn faults(mut self, faults: bool) -> Self {
        self.0.faults = faults;
        self
    }

    /// Sets whether some worlds have clients that cheat, or datagrams of earlier streams that come
    /// late. Default: `true`.
    pub const fn adversaries(mut self, adversaries: bool) -> Self {
        self.0.adversaries = adversaries;
        self
    }

    /// Sets the most clients of a world; 0 is taken as 1. Default: the most there can be.
    pub fn max_clients(mut self, count: u64) -> Self {
        self.0.max_clients = count.clamp(1, scenario::MAX_CLIENTS);
        self
    }

    /// Sets the most bytes that all clients of a world fetch together. Default: 20,000,000.
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.0.max_bytes = bytes;
        self
    }

    /// Returns the options.
    #[must_use]
    pub const fn build(self) -> Options {
        self.0
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            faults: true,
            adversaries: true,
            max_clients: scenario::MAX_CLIENTS,
            max_bytes: 20_000_000,
            traced: 2000,
        }
    }
}

/// Creates the machines of a world and knows their protocol.
pub trait Kit {
    /// The parser of the protocol for the checker.
    type Judge: Judge;

    /// Creates a judge with the keys of the scenario's cluster.
    fn judge(&self, scenario: &Scenario) -> Self::Judge;

    /// Creates a server.
    fn server(&self, scenario: &Scenario, plan: ServerPlan, boot: Boot) -> Box<dyn Node>;

    /// Creates a client.
    fn client(&self, scenario: &Scenario, plan: &ClientPlan, boot: Boot) -> Box<dyn Node>;

    /// The protocol's longest back-off.
    fn longest_backoff(&self) -> Duration;
}

/// The report of a run without violations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimReport {
    /// Seed of the world.
    pub seed: u64,
    /// Clients.
    pub clients: usize,
    /// Servers.
    pub servers: usize,
    /// Virtual time at which the last client finished.
    pub ended: Instant,
    /// Stream bytes that clients received.
    pub bytes: u64,
    /// Connections opened.
    pub handshakes: u64,
    /// Longest wait of any client for its next bytes.
    pub longest_stall: Duration,
    /// Counters of the world.
    pub world: WorldCounters,
    /// Sum of the counters of all links from clients.
    pub uplinks: LinkCounters,
    /// Sum of the counters of all links to clients.
    pub downlinks: LinkCounters,
    /// A hash of every emitted packet and its time; equal for equal runs.
    pub fingerprint: u64,
}

impl core::fmt::Display for SimReport {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "seed {}: {} clients, {} servers, {} bytes in {:.3} s, {} packets, {} dropped, \
             {} boots, {} handshakes, longest stall {:.3} s",
            self.seed,
            self.clients,
            self.servers,
            self.bytes,
            seconds(self.ended),
            self.world.released,
            self.uplinks.dropped() + self.downlinks.dropped() + self.world.to_dead,
            self.world.boots,
            self.handshakes,
            self.longest_stall.as_secs_f64(),
        )
    }
}

/// A violated law, with its context. The seed reproduces it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, at {:.6} s: {violation}", seconds(*at))]
pub struct SimFailure {
    /// Seed of the world.
    pub seed: u64,
    /// Virtual time.
    pub at: Instant,
    /// The violated law and its culprit. Servers are the first nodes, clients follow.
    pub violation: Violation,
    /// The last packets at the clients' interfaces; a pcap file.
    pub client_side: Vec<u8>,
    /// The last packets at the servers' interfaces; a pcap file.
    pub server_side: Vec<u8>,
}

/// Draws a world from `seed` and runs it until every client has finished.
///
/// # Errors
/// [`SimFailure`] at the first violation.
pub fn run_seed<K: Kit + Clone + 'static>(
    kit: &K,
    seed: u64,
    options: &Options,
) -> Result<SimReport, Box<SimFailure>> {
    run(kit, &Scenario::draw(seed, options), options)
}

/// Draws a world of our transport from `seed` and runs it until every client has finished.
///
/// # Errors
/// [`SimFailure`] at the first violation.
///
/// ```
/// let options = headwater::SimOptions::builder().max_clients(2).max_bytes(200_000).build();
/// let report = headwater::simulate(7, &options)?;
/// assert_eq!(report, headwater::simulate(7, &options)?);
/// # Ok::<(), Box<headwater::SimFailure>>(())
/// ```
pub fn simulate(seed: u64, options: &Options) -> Result<SimReport, Box<SimFailure>> {
    run_seed(&machines::TransportKit, seed, options)
}

/// Runs a world until every client has finished.
///
/// # Errors
/// [`SimFailure`] at the first violation.
pub fn run<K: Kit + Clone + 'static>(
    kit: &K,
    scenario: &Scenario,
    options: &Options,
) -> Result<SimReport, Box<SimFailure>> {
    let watched = (0..).zip(&scenario.clients).map(|(index, plan)| Watched {
        client: scenario.client_node(index),
        wanted: plan.wanted(),
        path: scenario.path(plan, kit.longest_backoff()),
    });
    let honest = !scenario.clients.iter().any(|plan| plan.cheats);
    let judge = kit.judge(scenario);
    let mut checker = Checker::new(judge, scenario.heals_at, honest, watched.collect());
    let mut world = match build(kit, scenario, options) {
        Ok(world) => world,
        Err(refused) => {
            let refused = (Instant::ZERO, refused.into());
            return Err(fail(&World::new(0, 0), scenario.seed, refused));
        }
    };
    while !checker.all_done() {
        match world.step(&mut checker) {
            Ok(Some(now)) => checker.passed(now),
            Ok(None) => checker.ended(world.now(), None),
            Err(livelock) => checker.ended(world.now(), Some(livelock)),
        }
        if world.counters().events > MAX_EVENTS {
            checker.ended(world.now(), None);
        }
        if let Some(violation) = checker.violation() {
            return Err(fail(&world, scenario.seed, violation));
        }
    }
    Ok(report(scenario, &world, &checker))
}

fn build<K: Kit + Clone + 'static>(
    kit: &K,
    scenario: &Scenario,
    options: &Options,
) -> Result<World, LinkConfigError> {
    let mut dice = Dice::new(!scenario.seed);
    let mut world = World::new(dice.seed(), options.traced);
    let mut script = Vec::new();
    let mut servers = Vec::new();
    for &plan in &scenario.servers {
        let (kit, cluster) = (kit.clone(), scenario.clone());
        let factory = Box::new(move |boot| kit.server(&cluster, plan, boot));
        servers.extend(world.add(plan.clock, factory, None));
    }
    script.extend(
        servers
            .iter()
            .map(|&node| (Instant::ZERO, world::Action::Start(node))),
    );
    world.route(scenario.service.ip(), servers, scenario.spray);
    for plan in &scenario.clients {
        let up = Link::new(plan.up.clone(), dice.seed())?;
        let down = Link::new(plan.down.clone(), dice.seed())?;
        let (kit, all, own) = (kit.clone(), scenario.clone(), plan.clone());
        let factory = Box::new(move |boot| kit.client(&all, &own, boot));
        let node: Vec<NodeId> = world
            .add(plan.clock, factory, Some((up, down)))
            .into_iter()
            .collect();
        if plan.late_streams {
            node.iter()
                .for_each(|&node| world.delay_streams(node, !plan.seed));
        }
        script.extend(
            node.iter()
                .map(|&node| (plan.starts, world::Action::Start(node))),
        );
        if plan.cheats {
            world.route(plan.second_address().ip(), node.clone(), scenario.spray);
        }
        world.route(plan.local.ip(), node, scenario.spray);
    }
    script.extend(&scenario.script);
    world.script(script);
    Ok(world)
}

fn fail(world: &World, seed: u64, (at, violation): (Instant, Violation)) -> Box<SimFailure> {
    let (client_side, server_side) = world.captures();
    Box::new(SimFailure {
        seed,
        at,
        violation,
        client_side,
        server_side,
    })
}

fn report<J: Judge>(scenario: &Scenario, world: &World, checker: &Checker<J>) -> SimReport {
    let (mut uplinks, mut downlinks) = (LinkCounters::default(), LinkCounters::default());
    let (mut bytes, mut handshakes) = (0, 0);
    for (node, progress) in checker.progress() {
        bytes += progress.received;
        handshakes += progress.handshakes;
        if let Some((up, down)) = world.link_counters(node) {
            uplinks += up;
            downlinks += down;
        }
    }
    SimReport {
        seed: scenario.seed,
        clients: scenario.clients.len(),
        servers: scenario.servers.len(),
        ended: world.now(),
        bytes,
        handshakes,
        longest_stall: checker.longest_stall(),
        world: world.counters(),
        uplinks,
        downlinks,
        fingerprint: world.fingerprint(),
    }
}

fn seconds(at: Instant) -> f64 {
    at.saturating_since(Instant::ZERO).as_secs_f64()
}
