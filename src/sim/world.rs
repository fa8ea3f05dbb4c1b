//! A network of machines on virtual time: an event loop that jumps from deadline to deadline.
//!
//! In: nodes (each a factory that boots a [`Node`]), their addresses, links for some of them, and a
//! script of events. Out: steps, one event each, reported to an [`Observer`] between machines and
//! links. A node with links (a client) reaches the others through them; packets to an address of
//! several nodes (servers) are sprayed over these. Nodes without links reach each other over a
//! [`Backbone`].
//! The world never reads a clock: the same nodes, seeds and script give the same packets at the
//! same microseconds.

use core::hash::Hasher as _;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::backbone::Backbone;
use super::dice::Dice;
use super::late::LateStreams;
use super::trace::Trace;
use crate::host::{Machine, Transmit};
use crate::link::{Link, LinkCounters};
use crate::time::{Instant, Now, UnixMillis, micros};
use crate::wire::flight::{Flight, UdpPath};
use crate::wire::ip::{UdpTemplate, parse_udp};

/// Most events in one microsecond: with more, some machine requests past deadlines, and time does
/// not advance.
pub const MAX_EVENTS_AT_ONCE: u32 = 200_000;

/// Most transmissions of one machine per turn; a flight counts once.
pub const MAX_TRANSMITS_A_TURN: u32 = 10_000;

/// Most nodes of a world.
pub const MAX_NODES: usize = 256;

/// The virtual wall clock at the start of a world; arbitrary.
pub const START: UnixMillis = UnixMillis::new(1_800_000_000_000);

/// Index of a node in its world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// The progress of a client's transfers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientProgress {
    /// Stream bytes received, over all objects.
    pub received: u64,
    /// Bytes of all objects in its plan.
    pub wanted: u64,
    /// Whether every object is complete.
    pub done: bool,
    /// Whether the client has given up.
    pub gave_up: bool,
    /// Whether the client waits for the network, rather than for its reader or its plan.
    pub waiting: bool,
    /// Offset of the first wrong byte, in its object.
    pub wrong: Option<u64>,
    /// Connections opened.
    pub handshakes: u64,
}

/// A machine that can be observed.
pub trait Node: Machine {
    /// The progress of a client; `None` for other nodes.
    fn progress(&self) -> Option<ClientProgress> {
        None
    }

    /// Whether the node takes the packets that reach its address: not one that has left it.
    fn receives(&self) -> bool {
        true
    }

    /// Bytes of memory held on behalf of clients, if it is a server that knows.
    fn soft_state_bytes(&self) -> Option<usize> {
        None
    }

    /// The reason for rejecting a request that no honest client sends, if it is a server and did.
    fn refused(&self) -> Option<&'static str> {
        None
    }

    /// Adopts the next stage while running; returns false if it must reboot for that.
    fn adopt(&mut self, _now: Now, _stage: u8) -> bool {
        false
    }
}

/// The parameters of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// 0 for the first boot of the node.
    pub incarnation: u32,
    /// The node's stage of the key rotation, or of the configuration.
    pub stage: u8,
}

/// Creates the machine of a node, again after each crash.
pub type Factory = Box<dyn FnMut(Boot) -> Box<dyn Node>>;

/// An event of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The node loses its machine and everything in memory.
    Kill(NodeId),
    /// A dead node boots; a live one is unaffected.
    Start(NodeId),
    /// The node's keys or configuration reach this stage; a live node adopts them or reboots.
    Stage(NodeId, u8),
    /// The backbone drops all packets between the two.
    Sever(NodeId, NodeId),
    /// The backbone reconnects the two.
    Join(NodeId, NodeId),
    /// All links lose their faults for good, and the backbone reconnects all nodes.
    Heal,
}

/// The distribution of packets to an address of several nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spray {
    /// Each packet to a node drawn at random.
    Random,
    /// Each packet to the next node.
    RoundRobin,
}

/// The offsets of a node's clocks from the world's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// The monotonic clock at the start of the world.
    pub monotonic: Duration,
    /// Lead of the wall clock over [`START`] at the start of the world, in ms.
    pub ahead_ms: u64,
}

/// Observes every datagram that a machine emits, and every intact one delivered to it.
pub trait Observer {
    /// Called before a datagram is delivered to `node`.
    fn delivered(&mut self, now: Instant, node: NodeId, path: UdpPath, payload: &[u8]);
    /// Called after `node` emitted a datagram; those after `delivered` answer it.
    fn released(&mut self, now: Instant, node: NodeId, path: UdpPath, payload: &[u8]);
    /// Called after a turn of `node`.
    fn turned(&mut self, now: Instant, node: NodeId, machine: &dyn Node);
    /// Called after `node` was killed or booted: its memory is empty.
    fn forgot(&mut self, now: Instant, node: NodeId);
}

/// A livelock of the world. The named machine is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Livelock {
    /// More than [`MAX_EVENTS_AT_ONCE`] events without progress of time; the reason is that of the
    /// last deadline.
    #[error("node {} keeps requesting a past deadline ({why})", node.0)]
    Standstill {
        /// The node of the last deadline.
        node: NodeId,
        /// Its reason.
        why: &'static str,
    },
    /// More than [`MAX_TRANSMITS_A_TURN`] transmissions in one turn.
    #[error("node {} does not stop sending", node.0)]
    Flood {
        /// The sender.
        node: NodeId,
    },
}

/// Packets not dropped by links that still did not arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorldCounters {
    /// Packets emitted by machines.
    pub released: u64,
    /// Packets delivered to machines, including corrupted ones.
    pub delivered: u64,
    /// Events.
    pub events: u64,
    /// Packets to a dead node.
    pub to_dead: u64,
    /// Packets to an unassigned address, or not IP.
    pub unroutable: u64,
    /// Machines booted.
    pub boots: u64,
    /// Datagrams of earlier streams that came late, and those of them with the label of the present
    /// stream.
    pub late: u64,
    /// See `late`.
    pub namesakes: u64,
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

/// The links of a node, named from its side.
struct Access {
    up: Link,
    down: Link,
    late: Option<LateStreams>,
}

struct Route {
    nodes: Vec<NodeId>,
    spray: Spray,
    next: usize,
}

/// Bytes of each packet in the fingerprint: both headers of IPv6 and UDP, and more.
const FINGERPRINTED: usize = 64;

/// The outcome of a turn.
type Turn = Result<(), Livelock>;

/// The source of the next event.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Script,
    Up(NodeId),
    Down(NodeId),
    Backbone,
    Timer(NodeId),
}

impl World {
    /// Creates an empty world at time zero. `seed` feeds the spraying; captures keep `traced`
    /// packets of each side.
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

    /// Adds a node, dead until started, and its links (up, then down), if any. `None` beyond
    /// [`MAX_NODES`].
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
                access: links.map(|(up, down)| Access {
                    up,
                    down,
                    late: None,
                }),
            });
            id
        })
    }

    /// Delivers datagrams of earlier streams late to a node with links.
    pub fn delay_streams(&mut self, node: NodeId, seed: u64) {
        if let Some(access) = self.access(node) {
            access.late = Some(LateStreams::new(seed));
        }
    }

    /// Assigns `address` to `nodes`; a later call replaces an earlier one.
    pub fn route(&mut self, address: IpAddr, nodes: Vec<NodeId>, spray: Spray) {
        let next = 0;
        self.routes.insert(address, Route { nodes, spray, next });
    }

    /// Replaces the script; actions at one instant run in the given order.
    pub fn script(&mut self, mut actions: Vec<(Instant, Action)>) {
        actions.sort_by_key(|(at, _)| *at);
        self.script = actions.into();
    }

    /// Virtual time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// The counters since the start.
    #[must_use]
    pub const fn counters(&self) -> WorldCounters {
        self.counters
    }

    /// A hash of every emitted packet and its time; equal for equal worlds. It covers the first
    /// bytes of each packet, which hold the addresses and the checksums of the rest.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint.finish()
    }

    /// The counters of a node's links, up and down.
    #[must_use]
    pub fn link_counters(&self, node: NodeId) -> Option<(LinkCounters, LinkCounters)> {
        let access = self.slots.get(node.0)?.access.as_ref()?;
        Some((access.up.counters(), access.down.counters()))
    }

    /// The last packets at the interfaces of nodes with links (the clients), and of those without
    /// (the servers), as pcap files.
    #[must_use]
    pub fn captures(&self) -> (Vec<u8>, Vec<u8>) {
        (self.client_side.pcap(), self.server_side.pcap())
    }

    /// Advances to the next event and handles it. Returns its time, or `None` if no event remains.
    ///
    /// # Errors
    /// [`Livelock`]; the world is then unusable.
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
                // A valid configuration without its faults is valid.
                let _ = link.reconfigure(healed);
            }
        }
    }

    /// Handles a packet at the end of a client's uplink.
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

    /// Handles a packet at the end of a client's downlink.
    fn arrive(&mut self, id: NodeId, observer: &mut dyn Observer) -> Turn {
        let now = self.now;
        match self.access(id).and_then(|access| access.down.pop(now)) {
            Some(packet) => {
                let access = self.access(id);
                if let Some(late) = access.and_then(|access| access.late.as_mut()) {
                    late.arrived(&packet);
                }
                self.deliver(id, &packet, observer)
            }
            None => Ok(()),
        }
    }

    /// Handles a packet at the end of the backbone.
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

    /// Drains a machine's output, updates its deadline, and calls the observer.
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
                segments @ Transmit::Segments { .. } => {
                    for packet in segments.into_packets().unwrap_or_default() {
                        self.release(id, packet);
                    }
                }
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
                let late = access.late.as_mut().and_then(|late| late.sent(&packet));
                access.up.push(now, packet);
                if let Some(late) = late {
                    access.down.push(now, late.packet);
                    self.counters.late += 1;
                    self.counters.namesakes += u64::from(late.is_namesake);
                }
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

    /// Returns the destination node of an unverified packet.
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
    /// Returns both clocks of the node at a time of the world.
    #[must_use]
    pub fn at(self, world: Instant) -> Now {
        let unix = START.as_millis() + self.ahead_ms + world.as_micros() / 1000;
        Now {
            instant: world + self.monotonic,
            unix: UnixMillis::new(unix),
        }
    }

    /// Returns the time of the world at which the node's monotonic clock is `local`.
    #[must_use]
    pub fn in_world(self, local: Instant) -> Instant {
        Instant::from_micros(local.as_micros().saturating_sub(micros(self.monotonic)))
    }
}
