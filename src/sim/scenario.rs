//! Draws a world from a seed: the clients and servers, the path and objects of each client, and the
//! script of events.
//!
//! In: a seed and [`Options`]. Out: a [`Scenario`], plain values from which the runner builds the
//! world. Parameters are drawn by magnitude, so that slow and fast, small and large are equally
//! likely; sizes are weighted so that a world takes some ten milliseconds to run. Every fault stops
//! at `heals_at`: links heal, servers are up, and the key rotation is over.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Options;
use super::adversary::LASTS;
use super::check::Path;
use super::dice::Dice;
use super::object::Object;
use super::slow::BLOCK_BYTES;
use super::world::{Action, Clock, NodeId, Spray};
use crate::link::{Aggregation, BurstLoss, Chance, LinkConfig, Outage};
use crate::time::{Instant, micros};
use crate::transport::server::WAIT;

/// Most clients of a world.
pub const MAX_CLIENTS: u64 = 16;

/// Most servers behind the service's address.
pub const MAX_SERVERS: u64 = 4;

/// Last stage of a key rotation: 0 the first generation alone, 1 the second staged, 2 the second
/// active and the first retiring.
pub const LAST_STAGE: u8 = 2;

/// The application's reads from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Reads at once.
    Greedy,
    /// Reads at intervals: the buffer fills, and the client must stop requesting.
    Slow {
        /// Most bytes per read.
        bytes: usize,
        /// Time between two reads.
        every: Duration,
    },
}

/// The properties and plan of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPlan {
    /// It cheats, and fetches nothing; see `sim::adversary`.
    pub cheats: bool,
    /// Datagrams of its earlier streams come late; see `sim::late`.
    pub late_streams: bool,
    /// Its address and port.
    pub local: SocketAddr,
    /// The service.
    pub remote: SocketAddr,
    /// MTU of its device, in bytes.
    pub mtu: u16,
    /// Its reassembly buffer, in bytes.
    pub buffer: usize,
    /// Its objects, in order.
    pub objects: Vec<Object>,
    /// Start of its first request.
    pub starts: Instant,
    /// Pause between two objects.
    pub pause: Duration,
    /// Its reader.
    pub reader: Reader,
    /// Seed of its random choices.
    pub seed: u64,
    /// Its clocks.
    pub clock: Clock,
    /// Link from it to the servers.
    pub up: LinkConfig,
    /// Link from the servers to it.
    pub down: LinkConfig,
}

/// The properties of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerPlan {
    /// Its id in responses.
    pub id: u16,
    /// Its clocks.
    pub clock: Clock,
}

/// A drawn world. Servers are the first nodes, clients follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Seed of the world.
    pub seed: u64,
    /// Address and port of all servers.
    pub service: SocketAddr,
    /// The distribution of packets over them.
    pub spray: Spray,
    /// The servers.
    pub servers: Vec<ServerPlan>,
    /// The clients.
    pub clients: Vec<ClientPlan>,
    /// Kills, restarts and key rotations, by time.
    pub script: Vec<(Instant, Action)>,
    /// The end of all faults.
    pub heals_at: Instant,
    /// Seed of the cluster's secrets.
    pub secret: u64,
    /// Longest time for which the application of a server makes a request wait; zero if it never does.
    pub thinks: Duration,
}

impl Scenario {
    /// Draws a world.
    #[must_use]
    pub fn draw(seed: u64, options: &Options) -> Self {
        let mut dice = Dice::new(seed);
        let dice = &mut dice;
        let v6 = dice.chance(50);
        let spray = match dice.chance(50) {
            true => Spray::Random,
            false => Spray::RoundRobin,
        };
        let faults = options.faults;
        let servers: Vec<ServerPlan> = (1..=dice.between(1, MAX_SERVERS))
            .filter_map(|id| u16::try_from(id).ok())
            .map(|id| ServerPlan {
                id,
                clock: draw_clock(dice),
            })
            .collect();
        let heals = dice.duration(Duration::from_millis(500), Duration::from_secs(30));
        let heals_at = Instant::ZERO + if faults { heals } else { Duration::ZERO };
        let count = dice
            .magnitude(1, MAX_CLIENTS)
            .min(options.max_clients.max(1));
        let mut budget = draw_budget(dice).min(options.max_bytes);
        let mut clients: Vec<ClientPlan> = (1..=count)
            .filter_map(|index| u8::try_from(index).ok())
            .map(|index| {
                let share = budget / 2;
                let plan = draw_client(dice, v6, index, share, faults, heals_at);
                budget -= plan.wanted().min(budget);
                plan
            })
            .collect();
        if options.adversaries && dice.chance(ADVERSE_PERCENT) {
            let count = dice.between(1, 2);
            for plan in clients.iter_mut().zip(0..count).map(|(plan, _)| plan) {
                plan.cheats = true;
                plan.objects.clear();
            }
        }
        let script = match faults {
            true => draw_script(dice, servers.len(), heals_at),
            false => Vec::new(),
        };
        let mut scenario = Self {
            seed,
            service: address_of_service(v6),
            spray,
            servers,
            clients,
            script,
            heals_at,
            secret: dice.seed(),
            thinks: Duration::ZERO,
        };
        if options.adversaries && dice.chance(LATE_PERCENT) {
            scenario.draw_late_streams(dice, options.max_bytes);
        }
        if options.adversaries && dice.chance(SLOW_PERCENT) {
            scenario.thinks = dice.duration(Duration::from_millis(1), Duration::from_secs(3));
        }
        if faults && dice.chance(UPLINK_PERCENT) {
            let clients = scenario.clients.iter_mut();
            clients.for_each(|plan| draw_uplink(dice, plan));
        }
        scenario
    }

    /// Lets the first honest client fetch enough small objects for the labels of its streams to repeat,
    /// and delivers datagrams of its earlier streams late.
    fn draw_late_streams(&mut self, dice: &mut Dice, max_bytes: u64) {
        let Some(index) = self.clients.iter().position(|plan| !plan.cheats) else {
            return;
        };
        let others = self.clients.iter().enumerate();
        let others = others.filter(|(other, _)| *other != index);
        let taken: u64 = others.map(|(_, plan)| plan.wanted()).sum();
        if let Some(plan) = self.clients.get_mut(index) {
            let count = dice.between(MIN_LATE_OBJECTS, MAX_LATE_OBJECTS);
            let longest = (max_bytes.saturating_sub(taken) / count).clamp(1, MAX_LATE_BYTES);
            let object = |_| Object {
                seed: dice.seed(),
                length: dice.magnitude(1, longest),
            };
            plan.late_streams = true;
            plan.objects = (0..count).map(object).collect();
            plan.pause = Duration::from_millis(1);
            plan.reader = Reader::Greedy;
        }
    }

    /// The node of a server, by its index.
    #[must_use]
    pub const fn server_node(&self, index: usize) -> NodeId {
        NodeId(index)
    }

    /// The node of a client, by its index.
    #[must_use]
    pub const fn client_node(&self, index: usize) -> NodeId {
        NodeId(self.servers.len() + index)
    }

    /// The path of a client, for its patience.
    #[must_use]
    pub fn path(&self, client: &ClientPlan, longest_backoff: Duration) -> Path {
        let outages = |config: &LinkConfig| config.outages.clone();
        let mut impaired: Vec<(Instant, Instant)> = [&client.up, &client.down]
            .into_iter()
            .flat_map(outages)
            .map(|outage| (outage.from, outage.until))
            .chain(self.server_outages())
            .collect();
        impaired.sort_unstable();
        let transit =
            |config: &LinkConfig| config.transit(config.queue_bytes) + config.reorder_delay;
        let rate = client.down.rate.unwrap_or(u64::MAX);
        Path {
            round_trip: transit(&client.up) + transit(&client.down),
            // Requests are some hundred bytes for two packets at the least.
            rate: rate.min(client.up.rate.unwrap_or(u64::MAX).saturating_mul(4)),
            lossy: is_lossy(&client.up) || is_lossy(&client.down),
            impaired,
            longest_backoff,
            leisure: client.leisure() + self.thinking(client),
            thinks: self.stall_of_thinking(),
            skew: self.skew(),
        }
    }

    /// Greatest difference between the clocks of two servers.
    fn skew(&self) -> Duration {
        let ahead = || self.servers.iter().map(|server| server.clock.ahead_ms);
        let (least, most) = (ahead().min(), ahead().max());
        Duration::from_millis(most.unwrap_or(0) - least.unwrap_or(0))
    }

    /// Longest stall that the application causes: each server thinks by itself, and a request that is lost
    /// there is sent again.
    fn stall_of_thinking(&self) -> Duration {
        let servers = u32::try_from(self.servers.len()).unwrap_or(u32::MAX);
        match self.thinks.is_zero() {
            true => Duration::ZERO,
            false => (self.thinks + WAIT).saturating_mul(servers + 1),
        }
    }

    /// Longest time that the application takes for all that a client fetches.
    fn thinking(&self, client: &ClientPlan) -> Duration {
        let blocks = client
            .objects
            .iter()
            .map(|object| 2 + object.length / BLOCK_BYTES);
        let blocks = u32::try_from(blocks.sum::<u64>()).unwrap_or(u32::MAX);
        self.stall_of_thinking().saturating_mul(blocks)
    }

    /// The intervals in which any server was down or booting.
    fn server_outages(&self) -> Vec<(Instant, Instant)> {
        let mut outages = Vec::new();
        for index in 0..self.servers.len() {
            let id = self.server_node(index);
            let mut down_since = None;
            for &(at, action) in &self.script {
                match action {
                    // A dead server may be killed again.
                    Action::Kill(node) if node == id => down_since = down_since.or(Some(at)),
                    Action::Start(node) if node == id => {
                        outages.extend(down_since.take().map(|since| (since, at)));
                    }
                    Action::Stage(node, _) if node == id => outages.push((at, at)),
                    Action::Kill(_)
                    | Action::Start(_)
                    | Action::Stage(..)
                    | Action::Sever(..)
                    | Action::Join(..)
                    | Action::Heal => {}
                }
            }
        }
        outages
    }
}

impl ClientPlan {
    /// The bytes of all its objects.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.objects.iter().map(|object| object.length).sum()
    }

    /// The second address of a client that cheats; in another network.
    #[must_use]
    pub fn second_address(&self) -> SocketAddr {
        let ip = match self.local.ip() {
            IpAddr::V4(ip) => {
                let [a, b, _, d] = ip.octets();
                IpAddr::from([a, b, 1, d])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, _, rest @ ..] = ip.segments();
                let [e, f, g, h] = rest;
                IpAddr::from([a, b, c, 1, e, f, g, h])
            }
        };
        SocketAddr::new(ip, self.local.port())
    }

    /// The time taken by its own plan: its start, its pauses, and its reader.
    fn leisure(&self) -> Duration {
        let count = u32::try_from(self.objects.len()).unwrap_or(u32::MAX);
        let reading = match self.reader {
            Reader::Greedy => Duration::ZERO,
            Reader::Slow { bytes, every } => {
                let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).max(1);
                let reads = self.wanted() / bytes + u64::from(count);
                every.saturating_mul(u32::try_from(reads).unwrap_or(u32::MAX))
            }
        };
        let starts = Duration::from_micros(self.starts.as_micros());
        let cheating = if self.cheats { LASTS } else { Duration::ZERO };
        // A round trip or a timeout may fall between two objects.
        starts + cheating + reading + (self.pause + Duration::from_secs(5)) * count
    }
}

fn is_lossy(config: &LinkConfig) -> bool {
    let loses = [config.loss, config.corrupt, config.reorder]
        .iter()
        .any(|chance| *chance > Chance::NEVER);
    loses || config.burst.is_some() || config.jitter_reorders
}

/// Draws the bytes of all clients of a world together: some worlds are ten times as large.
fn draw_budget(dice: &mut Dice) -> u64 {
    match dice.chance(8) {
        true => dice.between(5_000_000, 20_000_000),
        false => dice.between(500_000, 5_000_000),
    }
}

fn draw_clock(dice: &mut Dice) -> Clock {
    Clock {
        monotonic: Duration::from_micros(dice.between(0, 1_000_000_000)),
        ahead_ms: dice.between(0, MOST_SKEW_MS),
    }
}

fn draw_client(
    dice: &mut Dice,
    v6: bool,
    index: u8,
    share: u64,
    faults: bool,
    heals_at: Instant,
) -> ClientPlan {
    let delay = Duration::from_micros(dice.between(0, 150_000)) * u32::from(dice.chance(80));
    let severity = match faults {
        true => dice.between(0, 3),
        false => 0,
    };
    let [up, down] = [(); 2].map(|()| draw_link(dice, delay, severity, heals_at));
    let objects = 1 + dice.between(0, 2) * u64::from(dice.chance(30));
    let objects: Vec<Object> = (0..objects)
        .map(|_| Object {
            seed: dice.seed(),
            length: draw_length(dice, share / objects),
        })
        .collect();
    let longest: u64 = objects.iter().map(|object| object.length).sum();
    ClientPlan {
        cheats: false,
        late_streams: false,
        local: address_of_client(v6, index),
        remote: address_of_service(v6),
        mtu: u16::try_from(dice.between(1280, 1500)).unwrap_or(1500),
        buffer: usize::try_from(dice.magnitude(1 << 16, 1 << 22)).unwrap_or(1 << 16),
        objects,
        starts: Instant::ZERO + dice.duration(Duration::from_micros(1), Duration::from_secs(2)),
        pause: dice.duration(Duration::from_micros(1), Duration::from_secs(8)),
        reader: draw_reader(dice, longest),
        seed: dice.seed(),
        clock: draw_clock(dice),
        up,
        down,
    }
}

fn draw_length(dice: &mut Dice, share: u64) -> u64 {
    match dice.between(0, 9) {
        0 => 0,
        1 | 2 => dice.between(1, 3000),
        3..=6 => dice.magnitude(3000, 300_000).min(share),
        _ => share,
    }
}

fn draw_reader(dice: &mut Dice, bytes: u64) -> Reader {
    if !dice.chance(20) {
        return Reader::Greedy;
    }
    // At most a hundred reads, or reads dominate the world.
    let least = bytes.div_ceil(100).max(1000);
    Reader::Slow {
        bytes: usize::try_from(dice.magnitude(least, least * 16)).unwrap_or(usize::MAX),
        every: dice.duration(Duration::from_millis(1), Duration::from_millis(300)),
    }
}

/// Draws a link of one direction. Severity 0 has only drops of the queue; 1 adds outages; above,
/// each fault is on or off.
fn draw_link(dice: &mut Dice, delay: Duration, severity: u64, heals_at: Instant) -> LinkConfig {
    let rate = dice.magnitude(200_000, 1_000_000_000);
    let product = u128::from(rate) * u128::from(micros(delay) * 2) / 8_000_000;
    let product = u64::try_from(product).unwrap_or(u64::MAX).max(LEAST_QUEUE);
    let queue = dice.between(product / 4, product.saturating_mul(4));
    let queue = usize::try_from(queue.max(LEAST_QUEUE)).unwrap_or(usize::MAX);
    let mut link = LinkConfig {
        delay,
        rate: Some(rate),
        queue_bytes: queue.min(MOST_QUEUE),
        ..LinkConfig::default()
    };
    if dice.chance(25) {
        link.mark_bytes = Some(link.queue_bytes / 4);
    }
    if severity >= 1 {
        link.outages = draw_outages(dice, heals_at);
    }
    if severity >= 2 {
        draw_faults(dice, &mut link, severity);
    }
    link
}

/// Enables about half of the faults; at severity 2 each is a tenth as likely to strike.
fn draw_faults(dice: &mut Dice, link: &mut LinkConfig, severity: u64) {
    let scale = if severity == 2 { 10 } else { 1 };
    let mut fault = |ppm: u32| match dice.chance(50) {
        true => dice.up_to_ppm(ppm / scale),
        false => Chance::NEVER,
    };
    link.loss = fault(50_000);
    link.duplicate = fault(50_000);
    link.corrupt = fault(20_000);
    link.reorder = fault(50_000);
    link.replay = fault(20_000);
    if dice.chance(30) {
        link.burst = Some(BurstLoss {
            enter: dice.up_to_ppm(5000 / scale),
            leave: Chance::from_percent(10 + u32::try_from(dice.between(0, 40)).unwrap_or(0)),
            loss: Chance::from_percent(80),
        });
    }
    if link.reorder > Chance::NEVER {
        link.reorder_delay = dice.duration(Duration::from_micros(100), Duration::from_millis(50));
    }
    if dice.chance(40) {
        link.jitter = dice.duration(Duration::from_micros(100), Duration::from_millis(20));
        link.jitter_reorders = dice.chance(30);
    }
}

/// Makes the uplink of a client as those of homes and phones are: slow behind a short queue, jittery, or
/// with packets in bursts.
fn draw_uplink(dice: &mut Dice, plan: &mut ClientPlan) {
    if dice.chance(50) {
        plan.up.rate = Some(dice.magnitude(SLOWEST_UPLINK, 5_000_000));
        let queue = dice.between(LEAST_QUEUE, 60_000);
        plan.up.queue_bytes = usize::try_from(queue).unwrap_or(MOST_QUEUE);
        plan.up.mark_bytes = None;
    }
    if dice.chance(50) {
        plan.up.jitter = dice.duration(Duration::from_millis(1), Duration::from_millis(20));
        plan.up.jitter_reorders = dice.chance(50);
    }
    if dice.chance(25) {
        plan.up.aggregate = Some(Aggregation {
            interval: dice.duration(Duration::from_millis(2), Duration::from_millis(20)),
            packets: 64,
        });
    }
}

fn draw_outages(dice: &mut Dice, heals_at: Instant) -> Vec<Outage> {
    let count = dice.between(0, 2);
    (0..count)
        .map(|_| {
            let latest = dice.magnitude(1, heals_at.as_micros());
            let from = Instant::from_micros(dice.between(0, latest));
            let length = dice.duration(Duration::from_millis(10), Duration::from_secs(8));
            Outage {
                from,
                until: (from + length).min(heals_at),
            }
        })
        .collect()
}

/// Draws kills and restarts, and in some worlds a key rotation, of the first nodes.
pub(super) fn draw_script(
    dice: &mut Dice,
    servers: usize,
    heals_at: Instant,
) -> Vec<(Instant, Action)> {
    let mut script = Vec::new();
    // Most transfers end soon, so most events are early.
    let instant = |dice: &mut Dice| {
        let latest = dice.magnitude(1, heals_at.as_micros());
        Instant::from_micros(dice.between(0, latest))
    };
    let kills = dice.between(0, 6) * u64::from(dice.chance(60));
    for _ in 0..kills {
        let (node, at) = (NodeId(dice.index(servers)), instant(dice));
        let down = dice.duration(Duration::from_millis(1), Duration::from_secs(5));
        script.push((at, Action::Kill(node)));
        script.push(((at + down).min(heals_at), Action::Start(node)));
    }
    if dice.chance(40) {
        // Every server knows the new generation before any uses it; between the first use and the
        // last, the fleet is split.
        let (first, second) = (instant(dice), instant(dice));
        let (known, used) = (first.min(second), first.max(second));
        for index in 0..servers {
            let before = dice.between(0, known.as_micros());
            let after = dice.between(used.as_micros(), heals_at.as_micros());
            let node = NodeId(index);
            script.push((Instant::from_micros(before), Action::Stage(node, 1)));
            script.push((Instant::from_micros(after), Action::Stage(node, LAST_STAGE)));
        }
    }
    script.sort_by_key(|(at, _)| *at);
    // Two kills may overlap; in the end every server is up.
    script.extend((0..servers).map(|index| (heals_at, Action::Start(NodeId(index)))));
    script.push((heals_at, Action::Heal));
    script
}

fn address_of_service(v6: bool) -> SocketAddr {
    match v6 {
        false => SocketAddr::from(([10, 0, 0, 1], SERVICE_PORT)),
        true => SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, 1], SERVICE_PORT)),
    }
}

fn address_of_client(v6: bool, index: u8) -> SocketAddr {
    match v6 {
        false => SocketAddr::from(([10, 1, 0, index], CLIENT_PORT)),
        true => {
            let last = u16::from(index);
            SocketAddr::from(([0xfd01, 0, 0, 0, 0, 0, 0, last], CLIENT_PORT))
        }
    }
}

const SERVICE_PORT: u16 = 4433;
const CLIENT_PORT: u16 = 50_000;

/// Worlds in a hundred with cheating clients.
const ADVERSE_PERCENT: u32 = 20;

/// Worlds in a hundred in which datagrams of earlier streams come late.
const LATE_PERCENT: u32 = 10;

/// Worlds in a hundred with slow and jittery uplinks.
const UPLINK_PERCENT: u32 = 20;

/// Slowest of them, in bits per second.
const SLOWEST_UPLINK: u64 = 200_000;

/// Worlds in a hundred in which the application is slow.
const SLOW_PERCENT: u32 = 20;

/// Fewest and most objects of a client to which they come: labels come again after 256 streams, and an
/// object may take two.
const MIN_LATE_OBJECTS: u64 = 260;
const MAX_LATE_OBJECTS: u64 = 300;

/// Longest of these objects, in bytes: several datagrams.
const MAX_LATE_BYTES: u64 = 20_000;

/// Smallest queue of a link, in bytes: ten full packets.
const LEAST_QUEUE: u64 = 15_000;

/// Largest queue of a link, in bytes; objects of this size never fill more.
const MOST_QUEUE: usize = 16_000_000;

/// Largest difference of two wall clocks, in milliseconds: the transport's allowed skew.
const MOST_SKEW_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_can_be_built_and_heals() {
        let options = Options::default();
        for seed in 0..500 {
            let scenario = Scenario::draw(seed, &options);
            assert_eq!(scenario, Scenario::draw(seed, &options), "seed {seed}");
            assert!((1..=16).contains(&scenario.clients.len()));
            assert!((1..=4).contains(&scenario.servers.len()));
            for client in &scenario.clients {
                for link in [&client.up, &client.down] {
                    assert_eq!(link.validate(), Ok(()), "seed {seed}");
                    let late = |outage: &Outage| outage.until > scenario.heals_at;
                    assert!(!link.outages.iter().any(late), "seed {seed}");
                }
            }
            assert!(
                scenario
                    .script
                    .iter()
                    .all(|(at, _)| *at <= scenario.heals_at)
            );
            assert_generations_overlap(&scenario);
        }
    }

    /// No server seals with a generation that another does not know.
    fn assert_generations_overlap(scenario: &Scenario) {
        let mut stages = vec![0; scenario.servers.len()];
        for (_, action) in &scenario.script {
            if let Action::Stage(node, stage) = *action {
                stages[node.0] = stage;
                let (low, high) = (stages.iter().min(), stages.iter().max());
                assert!(high.unwrap() - low.unwrap() <= 1, "seed {}", scenario.seed);
            }
        }
    }

    #[test]
    fn the_seeds_cover_what_they_should() {
        let scenarios: Vec<_> = (0..300)
            .map(|seed| Scenario::draw(seed, &Options::default()))
            .collect();
        let any = |test: fn(&Scenario) -> bool| scenarios.iter().filter(|s| test(s)).count() > 5;
        assert!(any(|s| s.service.is_ipv6()) && any(|s| s.service.is_ipv4()));
        assert!(any(|s| s.clients.len() == 1) && any(|s| s.clients.len() > 8));
        assert!(any(|s| s.servers.len() == 1) && any(|s| s.servers.len() == 4));
        assert!(any(|s| s
            .script
            .iter()
            .any(|(_, a)| matches!(a, Action::Kill(_)))));
        assert!(any(|s| s
            .script
            .iter()
            .any(|(_, a)| matches!(a, Action::Stage(..)))));
        assert!(any(|s| s.clients.iter().any(|c| c.wanted() == 0)));
        assert!(any(|s| s.clients.iter().any(|c| c.wanted() > 1_000_000)));
        assert!(any(|s| s
            .clients
            .iter()
            .any(|c| c.reader != Reader::Greedy)));
        assert!(any(|s| s
            .clients
            .iter()
            .all(|c| !is_lossy(&c.up) && !is_lossy(&c.down))));
        assert!(any(|s| s.clients.iter().any(|c| c.down.burst.is_some())));
        assert!(any(|s| s.clients.iter().any(|c| c.late_streams)));
        assert!(any(|s| s.clients.iter().any(|c| c.up.aggregate.is_some())));
        let has_slow_uplinks = |s: &Scenario| {
            let rates = s.clients.iter().filter_map(|c| c.up.rate);
            rates.filter(|&rate| rate < 1_000_000).count() > 4
        };
        assert!(any(has_slow_uplinks));
    }

    #[test]
    fn a_calm_scenario_has_no_faults() {
        let options = Options {
            faults: false,
            ..Options::default()
        };
        for seed in 0..50 {
            let scenario = Scenario::draw(seed, &options);
            assert!(scenario.script.is_empty());
            for client in &scenario.clients {
                assert_eq!(client.down, client.down.healed());
            }
        }
    }

    #[test]
    fn a_servers_outage_runs_from_kill_to_start() {
        let mut scenario = Scenario::draw(
            1,
            &Options {
                faults: false,
                ..Options::default()
            },
        );
        let at = Instant::from_micros;
        scenario.script = vec![
            (at(1), Action::Kill(NodeId(0))),
            (at(2), Action::Kill(NodeId(0))),
            (at(4), Action::Start(NodeId(0))),
            (at(6), Action::Stage(NodeId(0), 1)),
        ];
        let path = scenario.path(&scenario.clients[0], Duration::from_secs(1));
        assert_eq!(path.impaired, [(at(1), at(4)), (at(6), at(6))]);
    }
}
