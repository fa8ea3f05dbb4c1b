//! A network of machines on virtual time: an event loop that jumps from deadline to deadline.
//!
//! In: nodes (each a factory that boots a [`Node`]), the addresses they answer to, the links of
//! those that have some, and a script of what befalls them. Out: steps, one event each, told to an
//! [`Observer`] that stands between machines and links. A node with links (a client) reaches the
//! others through them; an address with several nodes (servers) has its packets sprayed over them.
//! Nodes without links reach each other over a [`Backbone`].
//! The world never reads a clock: the same nodes, seeds and script give the same packets at the same
//! microseconds.

use core::hash::Hasher as _;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::backbone::Backbone;
use super::dice::Dice;
use super::trace::Trace;
use crate::host::{Machine, Transmit};
use crate::link::{Link, LinkCounters};
use crate::time::{Instant, Now, UnixMillis, micros};
use crate::wire::flight::{Flight, UdpPath};
use crate::wire::ip::{UdpTemplate, parse_udp};

/// Most events at one microsecond: more mean that some machine asks for a time that has passed, and
/// the world stands still.
pub const MAX_EVENTS_AT_ONCE: u32 = 200_000;

/// Most transmissions of one machine in one turn; a flight counts once.
pub const MAX_TRANSMITS_A_TURN: u32 = 10_000;

/// Most nodes of a world.
pub const MAX_NODES: usize = 256;

/// The virtual wall clock at the start of a world; arbitrary.
pub const START: UnixMillis = UnixMillis::new(1_800_000_000_000);

/// Index of a node in its world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// How far the transfers of a client have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientProgress {
    /// Stream bytes received, over all objects.
    pub received: u64,
    /// Bytes of all objects the client is to fetch.
    pub wanted: u64,
    /// Every object is complete.
    pub done: bool,
    /// The client itself says that it cannot go on.
    pub gave_up: bool,
    /// The client waits for the network, rather than for its reader or its plan.
    pub waiting: bool,
    /// Offset of the first byte, in its object, that was not as it should be.
    pub wrong: Option<u64>,
    /// Connections opened.
    pub handshakes: u64,
}

/// A machine that can be watched.
pub trait Node: Machine {
    /// How far it has come, if it is a client.
    fn progress(&self) -> Option<ClientProgress>;

    /// Bytes of memory that it holds on behalf of its clients, if it is a server and knows.
    fn soft_state_bytes(&self) -> Option<usize>;

    /// Why it refused a request that no honest client sends, if it is a server and did.
    fn refused(&self) -> Option<&'static str>;

    /// Takes the next stage while it runs; false if it has to boot for that.
    fn adopt(&mut self, _now: Now, _stage: u8) -> bool {
        false
    }
}

/// What a machine is booted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// 0 for the first boot of the node.
    pub incarnation: u32,
    /// How far the rotation of keys, or the change of a configuration, has come at this node.
    pub stage: u8,
}

/// Makes the machine of a node, again after each crash.
pub type Factory = Box<dyn FnMut(Boot) -> Box<dyn Node>>;

/// What befalls a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The node loses its machine and with it everything in memory.
    Kill(NodeId),
    /// A dead node boots; a live one is not touched.
    Start(NodeId),
    /// The node's keys or configuration reach this stage; if it lives, it adopts them or boots anew.
    Stage(NodeId, u8),
    /// Nothing passes the backbone between the two, either way.
    Sever(NodeId, NodeId),
    /// Packets pass between the two again.
    Join(NodeId, NodeId),
    /// Every link loses its faults, for good, and everybody reaches everybody over the backbone.
    Heal,
}

/// How the packets of an address with several nodes are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spray {
    /// Each packet to a node drawn at random.
    Random,
    /// Each packet to the next node.
    RoundRobin,
}

/// How a node's clocks differ from the world's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// What the monotonic clock shows at the start of the world.
    pub monotonic: Duration,
    /// By how much the wall clock is ahead of [`START`] at the start of the world, in ms.
    pub ahead_ms: u64,
}

/// Sees every datagram that a machine releases, and every intact one that it is handed.
pub trait Observer {
    /// `node` is about to be handed a datagram.
    fn delivered(&mut self, now: Instant, node: NodeId, path: UdpPath, payload: &[u8]);
    /// `node` has released a datagram; whatever it releases after `delivered` answers that.
    fn released(&mut self, now: Instant, node: NodeId, path: UdpPath, payload: &[u8]);
    /// The turn of `node` is over.
    fn turned(&mut self, now: Instant, node: NodeId, machine: &dyn Node);
    /// `node` has been killed or has booted: its memory is empty.
    fn forgot(&mut self, now: Instant, node: NodeId);
}

/// Why a world cannot go on. The machine named is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Livelock {
    /// More than [`MAX_EVENTS_AT_ONCE`] events without time going on; the reason is that of the
    /// deadline met last.
    #[error("node {} keeps asking for a time that has passed ({why})", node.0)]
    Standstill {
        /// Whose deadline was met last.
        node: NodeId,
        /// What it was for.
        why: &'static str,
    },
    /// More than [`MAX_TRANSMITS_A_TURN`] transmissions in one turn.
    #[error("node {} does not stop sending", node.0)]
    Flood {
        /// Who sends.
        node: NodeId,
    },
}

/// Packets that no link dropped and that still did not arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorldCounters {
    /// Packets released by machines.
    pub released: u64,
    /// Packets handed to machines, damaged ones included.
    pub delivered: u64,
    /// Events.
    pub events: u64,
    /// For a node that was dead.
    pub to_dead: u64,
    /// For an address that nobody has, or not IP.
    pub unroutable: u64,
    /// Machines booted.
    pub boots: u64,
}

/// A network of machines.
pub struct World {
    now: Instant,
    slots: Vec<Slot>,
    routes: BTreeMap<IpAddr, Route>,
    script: VecDeque<(Instant, Action)>,
    backbone: Backbone,
    dice: Dice,
    at_once: u32,
    counters: WorldCounters,
    fingerprint: SipHasher13,
    client_side: Trace,
    server_side: Trace,
}

struct Slot {
    machine: Option<Box<dyn Node>>,
    factory: Factory,
    boot: Boot,
    clock: Clock,
    deadline: Option<(Instant, &'static str)>,
    access: Option<Access>,
}

/// The links of a node, named as seen from it.
struct Access {
    up: Link,
    down: Link,
}

struct Route {
    nodes: Vec<NodeId>,
    spray: Spray,
    next: usize,
}

/// Bytes of each packet that the fingerprint covers: both headers of IPv6 and UDP, and more.
const FINGERPRINTED: usize = 64;

/// How a turn ends.
type Turn = Result<(), Livelock>;

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Script,
    Up(NodeId),
    Down(NodeId),
    Backbone,
    Timer(NodeId),
}

impl World {
    /// An empty world at time zero. `seed` feeds the spraying, `traced` packets are kept of each
    /// side for a capture.
    #[must_use]
    pub fn new(seed: u64, traced: usize) -> Self {
        Self {
            now: Instant::ZERO,
            slots: Vec::new(),
            routes: BTreeMap::new(),
            script: VecDeque::new(),
            backbone: Backbone::default(),
            dice: Dice::new(seed),
            at_once: 0,
            counters: WorldCounters::default(),
            fingerprint: SipHasher13::new(),
            client_side: Trace::new(traced),
            server_side: Trace::new(traced),
        }
    }

    /// Adds a node, dead until it is started, and its links (up, then down), if it has some. `None`
    /// beyond [`MAX_NODES`].
    pub fn add(
        &mut self,
        clock: Clock,
        factory: Factory,
        links: Option<(Link, Link)>,
    ) -> Option<NodeId> {
        let id = NodeId(self.slots.len());
        let room = id.0 < MAX_NODES;
        room.then(|| {
            self.slots.push(Slot {
                machine: None,
                factory,
                boot: Boot {
                    incarnation: 0,
                    stage: 0,
                },
                clock,
                deadline: None,
                access: links.map(|(up, down)| Access { up, down }),
            });
            id
        })
    }

    /// Lets `nodes` answer to `address`; a later call replaces an earlier one.
    pub fn route(&mut self, address: IpAddr, nodes: Vec<NodeId>, spray: Spray) {
        let next = 0;
        self.routes.insert(address, Route { nodes, spray, next });
    }

    /// Replaces the script; actions of one instant happen in the order given.
    pub fn script(&mut self, mut actions: Vec<(Instant, Action)>) {
        actions.sort_by_key(|(at, _)| *at);
        self.script = actions.into();
    }

    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// What has happened since the start.
    #[must_use]
    pub const fn counters(&self) -> WorldCounters {
        self.counters
    }

    /// A hash of every packet released and of when it was: equal worlds have equal ones. Of each
    /// packet the first bytes count, which hold the addresses and the checksums of the rest.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint.finish()
    }

    /// Counters of the links of a node, up and down.
    #[must_use]
    pub fn link_counters(&self, node: NodeId) -> Option<(LinkCounters, LinkCounters)> {
        let access = self.slots.get(node.0)?.access.as_ref()?;
        Some((access.up.counters(), access.down.counters()))
    }

    /// The last packets as seen at the interfaces of nodes with links (the clients), and of those
    /// without (the servers); pcap files.
    #[must_use]
    pub fn captures(&self) -> (Vec<u8>, Vec<u8>) {
        (self.client_side.pcap(), self.server_side.pcap())
    }

    /// Jumps to the next event and lets it happen. Returns its time, or `None` if nothing will ever
    /// happen again.
    ///
    /// # Errors
    /// [`Livelock`]; the world is of no more use then.
    pub fn step(&mut self, observer: &mut dyn Observer) -> Result<Option<Instant>, Livelock> {
        let Some((at, source)) = self.next_event() else {
            return Ok(None);
        };
        if at > self.now {
            self.now = at;
            self.at_once = 0;
        }
        self.at_once += 1;
        self.counters.events += 1;
        if self.at_once > MAX_EVENTS_AT_ONCE {
            return Err(self.standstill(source));
        }
        match source {
            Source::Script => self.act(observer)?,
            Source::Up(id) => self.leave(id, observer)?,
            Source::Down(id) => self.arrive(id, observer)?,
            Source::Backbone => self.cross(observer)?,
            Source::Timer(id) => self.expire(id, observer)?,
        }
        Ok(Some(self.now))
    }

    fn next_event(&self) -> Option<(Instant, Source)> {
        let script = self.script.front().map(|(at, _)| (*at, Source::Script));
        let nodes = self.slots.iter().enumerate().flat_map(|(index, slot)| {
            let id = NodeId(index);
            let link = |link: &Link| link.poll_timeout();
            let access = slot.access.as_ref();
            let up = access.and_then(|access| link(&access.up));
            let down = access.and_then(|access| link(&access.down));
            [
                up.map(|at| (at, Source::Up(id))),
                down.map(|at| (at, Source::Down(id))),
                slot.deadline.map(|(at, _)| (at, Source::Timer(id))),
            ]
        });
        let backbone = self.backbone.poll_timeout();
        let backbone = backbone.map(|at| (at, Source::Backbone));
        nodes.flatten().chain(script).chain(backbone).min()
    }

    fn standstill(&self, source: Source) -> Livelock {
        let (node, why) = match source {
            Source::Script => (NodeId(0), "script"),
            Source::Backbone => (NodeId(0), "backbone"),
            Source::Up(id) | Source::Down(id) => (id, "packets"),
            Source::Timer(id) => {
                let slot = self.slots.get(id.0);
                let why = slot.and_then(|slot| slot.deadline).map(|(_, why)| why);
                (id, why.unwrap_or("no deadline"))
            }
        };
        Livelock::Standstill { node, why }
    }

    fn act(&mut self, observer: &mut dyn Observer) -> Turn {
        let Some((_, action)) = self.script.pop_front() else {
            return Ok(());
        };
        match action {
            Action::Kill(id) => {
                if let Some(slot) = self.slots.get_mut(id.0) {
                    slot.machine = None;
                    slot.deadline = None;
                }
                observer.forgot(self.now, id);
                Ok(())
            }
            Action::Start(id) => match self.is_alive(id) {
                true => Ok(()),
                false => self.boot(id, observer),
            },
            Action::Stage(id, stage) => {
                let Some(slot) = self.slots.get_mut(id.0) else {
                    return Ok(());
                };
                slot.boot.stage = stage;
                let now = slot.clock.at(self.now);
                match slot.machine.as_mut().map(|node| node.adopt(now, stage)) {
                    Some(true) => self.turn(id, observer),
                    Some(false) => self.boot(id, observer),
                    None => Ok(()),
                }
            }
            Action::Sever(one, other) => {
                self.backbone.sever(one, other);
                Ok(())
            }
            Action::Join(one, other) => {
                self.backbone.join(one, other);
                Ok(())
            }
            Action::Heal => {
                self.heal();
                Ok(())
            }
        }
    }

    fn is_alive(&self, id: NodeId) -> bool {
        let slot = self.slots.get(id.0);
        slot.is_some_and(|slot| slot.machine.is_some())
    }

    fn boot(&mut self, id: NodeId, observer: &mut dyn Observer) -> Turn {
        let Some(slot) = self.slots.get_mut(id.0) else {
            return Ok(());
        };
        observer.forgot(self.now, id);
        slot.machine = Some((slot.factory)(slot.boot));
        slot.boot.incarnation += 1;
        self.counters.boots += 1;
        self.turn(id, observer)
    }

    fn heal(&mut self) {
        self.backbone.heal();
        for access in self
            .slots
            .iter_mut()
            .filter_map(|slot| slot.access.as_mut())
        {
            for link in [&mut access.up, &mut access.down] {
                let healed = link.config().healed();
                // What is left of a valid configuration is valid.
                let _ = link.reconfigure(healed);
            }
        }
    }

    /// A packet comes out of a client's uplink.
    fn leave(&mut self, id: NodeId, observer: &mut dyn Observer) -> Turn {
        let now = self.now;
        let packet = self.access(id).and_then(|access| access.up.pop(now));
        let Some(packet) = packet else {
            return Ok(());
        };
        let Some(to) = self.destination(&packet) else {
            self.counters.unroutable += 1;
            return Ok(());
        };
        match self.access(to) {
            Some(access) => {
                access.down.push(now, packet);
                Ok(())
            }
            None => self.deliver(to, &packet, observer),
        }
    }

    /// A packet comes out of a client's downlink.
    fn arrive(&mut self, id: NodeId, observer: &mut dyn Observer) -> Turn {
        let now = self.now;
        match self.access(id).and_then(|access| access.down.pop(now)) {
            Some(packet) => self.deliver(id, &packet, observer),
            None => Ok(()),
        }
    }

    /// A packet comes out of the backbone.
    fn cross(&mut self, observer: &mut dyn Observer) -> Turn {
        match self.backbone.pop() {
            Some((to, packet)) => self.deliver(to, &packet, observer),
            None => Ok(()),
        }
    }

    fn expire(&mut self, id: NodeId, observer: &mut dyn Observer) -> Turn {
        let Some(slot) = self.slots.get_mut(id.0) else {
            return Ok(());
        };
        let now = slot.clock.at(self.now);
        if let Some(machine) = slot.machine.as_mut() {
            machine.handle_timeout(now);
        }
        self.turn(id, observer)
    }

    fn deliver(&mut self, id: NodeId, packet: &[u8], observer: &mut dyn Observer) -> Turn {
        let Some(slot) = self.slots.get_mut(id.0) else {
            return Ok(());
        };
        let Some(machine) = slot.machine.as_mut() else {
            self.counters.to_dead += 1;
            return Ok(());
        };
        self.counters.delivered += 1;
        match slot.access {
            Some(_) => self.client_side.record(self.now, packet),
            None => self.server_side.record(self.now, packet),
        }
        if let Ok(Some(datagram)) = parse_udp(packet) {
            observer.delivered(self.now, id, datagram.path, datagram.payload);
        }
        machine.handle_packet(slot.clock.at(self.now), packet, None);
        self.turn(id, observer)
    }

    /// Drains what a machine wants to send, asks for its deadline, and lets the observer look.
    fn turn(&mut self, id: NodeId, observer: &mut dyn Observer) -> Turn {
        let mut transmits = 0;
        while let Some(transmit) = self.poll_transmit(id) {
            transmits += 1;
            if transmits > MAX_TRANSMITS_A_TURN {
                return Err(Livelock::Flood { node: id });
            }
            match transmit {
                Transmit::Packet(packet) => {
                    if let Ok(Some(datagram)) = parse_udp(&packet) {
                        observer.released(self.now, id, datagram.path, datagram.payload);
                    }
                    self.release(id, packet);
                }
                Transmit::Flight(flight) => self.release_flight(id, &flight, observer),
            }
        }
        if let Some(slot) = self.slots.get_mut(id.0)
            && let Some(machine) = slot.machine.as_mut()
        {
            let deadline = machine.poll_timeout(slot.clock.at(self.now));
            slot.deadline = deadline.map(|(at, why)| (slot.clock.in_world(at), why));
            observer.turned(self.now, id, machine.as_ref());
        }
        Ok(())
    }

    fn poll_transmit(&mut self, id: NodeId) -> Option<Transmit> {
        let slot = self.slots.get_mut(id.0)?;
        slot.machine
            .as_mut()?
            .poll_transmit(slot.clock.at(self.now))
    }

    fn release_flight(&mut self, id: NodeId, flight: &Flight, observer: &mut dyn Observer) {
        let Ok(template) = UdpTemplate::new(flight.path, flight.ecn) else {
            self.counters.unroutable += 1;
            return;
        };
        for payload in flight.datagrams() {
            observer.released(self.now, id, flight.path, &payload);
            match template.packet(&payload) {
                Ok(packet) => self.release(id, packet),
                Err(_) => self.counters.unroutable += 1,
            }
        }
    }

    fn release(&mut self, id: NodeId, packet: Vec<u8>) {
        self.counters.released += 1;
        let now = self.now;
        self.fingerprint.write(&now.as_micros().to_be_bytes());
        let (start, _) = packet.split_at(packet.len().min(FINGERPRINTED));
        self.fingerprint.write(start);
        let client = self.access(id).is_some();
        match client {
            true => &mut self.client_side,
            false => &mut self.server_side,
        }
        .record(now, &packet);
        match self.access(id) {
            Some(access) => {
                access.up.push(now, packet);
            }
            None => {
                let Some(to) = self.destination(&packet) else {
                    self.counters.unroutable += 1;
                    return;
                };
                match self.access(to) {
                    Some(access) => access.down.push(now, packet),
                    None => self.backbone.push(now, id, to, packet),
                }
            }
        }
    }

    fn access(&mut self, id: NodeId) -> Option<&mut Access> {
        self.slots.get_mut(id.0)?.access.as_mut()
    }

    /// The node that a packet goes to; nothing of the packet has been verified.
    fn destination(&mut self, packet: &[u8]) -> Option<NodeId> {
        let address: IpAddr = match packet.first()? >> 4 {
            4 => (*packet.get(16..)?.first_chunk::<4>()?).into(),
            6 => (*packet.get(24..)?.first_chunk::<16>()?).into(),
            _ => return None,
        };
        self.routes.get_mut(&address)?.pick(&mut self.dice)
    }
}

impl Route {
    fn pick(&mut self, dice: &mut Dice) -> Option<NodeId> {
        let count = self.nodes.len();
        let index = match self.spray {
            _ if count < 2 => 0,
            Spray::Random => dice.index(count),
            Spray::RoundRobin => {
                self.next = (self.next + 1) % count;
                self.next
            }
        };
        self.nodes.get(index).copied()
    }
}

impl Clock {
    /// Both clocks of the node at a time of the world.
    #[must_use]
    pub fn at(self, world: Instant) -> Now {
        let unix = START.as_millis() + self.ahead_ms + world.as_micros() / 1000;
        Now {
            instant: world + self.monotonic,
            unix: UnixMillis::new(unix),
        }
    }

    /// The time of the world at which the node's monotonic clock shows `local`.
    #[must_use]
    pub fn in_world(self, local: Instant) -> Instant {
        Instant::from_micros(local.as_micros().saturating_sub(micros(self.monotonic)))
    }
}
