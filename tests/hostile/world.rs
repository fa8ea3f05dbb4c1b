//! The machine under attack and the clients that go on using it, on virtual time.
//!
//! In: hostile packets, one by one. Out: the outcome of each. Checks the laws of the test's head at
//! every packet. Clients fetch one computed object after the other over one connection each.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use headwater::internals::apps::fetch::config::TransferConfig;
use headwater::internals::apps::fetch::output::{Output, OutputError};
use headwater::internals::apps::fetch::target::Target;
use headwater::internals::apps::fetch::{Transfer, TransferEvent};
use headwater::internals::apps::origin::work::InlineWorkers;
use headwater::internals::apps::origin::{Origin, dynamic};
use headwater::internals::host::client::ClientHost;
use headwater::internals::host::config::{ClientHostConfig, ServerHostConfig};
use headwater::internals::host::server::ServerHost;
use headwater::internals::host::{Machine, Transmit};
use headwater::internals::time::{Instant, Now, UnixMillis};
use headwater::internals::transport::keys::KeyRing;
use headwater::internals::wire::ip::UdpTemplate;

use crate::generator::Generator;
use crate::packets::{payload_of, repair};

/// Where the transport listens.
pub const SERVICES: [&str; 2] = ["10.0.0.2:7600", "[fd00::2]:7600"];

const CLIENTS: [&str; 2] = ["10.0.0.1", "fd00::1"];

/// Hostile packets come this often: 200,000 a second.
const INTERVAL: Duration = Duration::from_micros(5);

const ONE_WAY: Duration = Duration::from_millis(5);

/// Bytes of each object that the clients fetch.
const OBJECT_BYTES: u64 = 2_000_000;

/// Reassembly buffer of a client: keeps its rate low, so that a download outlasts many packets.
const BUFFER_BYTES: usize = 64 * 1024;

/// Every so many-th answer is shown to the generator.
const ANSWERS_SHOWN: u64 = 16;

/// Amplification of TCP towards addresses that never answer: a SYN is answered and the answer
/// retransmitted, as RFC 9293 §3.8.1 requires.
const MAX_TCP_FACTOR: u64 = 10;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;

/// The outcome of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The stack counted it as dropped.
    DroppedByStack,
    /// The transport's server counted it as dropped.
    DroppedByServer,
    /// The transport's server answered.
    Answered,
    /// TCP or ICMP has it.
    Taken,
}

/// Compares the bytes of an object with those that it must have.
#[derive(Default)]
struct Compare {
    seed: u64,
    at: u64,
    whole: bool,
}

struct Sink(Rc<RefCell<Compare>>);

impl Output for Sink {
    fn begin(&mut self, offset: u64, _etag: Option<&str>) -> Result<(), OutputError> {
        assert_eq!(offset, 0);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        let mut compare = self.0.borrow_mut();
        let mut want = vec![0; bytes.len()];
        dynamic::fill(compare.seed, compare.at, &mut want);
        assert!(want == bytes, "bytes differ behind {}", compare.at);
        compare.at += bytes.len() as u64;
        Ok(())
    }

    fn rewind(&mut self) -> Result<(), OutputError> {
        panic!("the object changed, says the server")
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        self.0.borrow_mut().whole = true;
        Ok(())
    }
}

struct Downloader {
    host: ClientHost,
    address: IpAddr,
    compare: Rc<RefCell<Compare>>,
    objects: u64,
    /// Begins no other object.
    stopping: bool,
    done: bool,
}

/// Bytes each way between the machine and hostile addresses.
#[derive(Default)]
struct Volume {
    received: u64,
    sent: u64,
}

/// See the head of this file.
pub struct World {
    now: Now,
    server: ServerHost<Origin>,
    clients: Vec<Downloader>,
    /// When, for which client (`None`: the server), and the packet; in the order of sending.
    wire: VecDeque<(Instant, Option<usize>, Vec<u8>)>,
    passed: u64,
    tcp: Volume,
    other: Volume,
    /// Packets sent by kind: their first byte for the transport, else their protocol.
    replies: BTreeMap<String, u64>,
    _root: tempfile::TempDir,
}

impl World {
    /// A world in which both clients have begun.
    pub fn begun() -> Self {
        let now = Now {
            instant: Instant::from_micros(1_000_000),
            unix: UnixMillis::new(1_800_000_000_000),
        };
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("index.html"), "<p>hello").unwrap();
        std::fs::create_dir(root.path().join("folder")).unwrap();
        std::fs::write(root.path().join("folder/file"), vec![7; 10_000]).unwrap();
        let origin = Origin::new(root.path(), Box::<InlineWorkers>::default()).unwrap();
        let addresses = SERVICES.map(|text| text.parse::<SocketAddr>().unwrap().ip());
        let config = ServerHostConfig::builder(addresses, 5).build().unwrap();
        let server = ServerHost::new(now, config, KeyRing::with_secret([3; 32]), origin).unwrap();
        let clients = (0..CLIENTS.len())
            .map(|index| Downloader::new(now, index))
            .collect();
        let mut world = Self {
            now,
            server,
            clients,
            wire: VecDeque::new(),
            passed: 0,
            tcp: Volume::default(),
            other: Volume::default(),
            replies: BTreeMap::new(),
            _root: root,
        };
        for index in 0..world.clients.len() {
            world.clients[index].start(now);
        }
        world
    }

    /// Bytes of the server's soft state.
    pub fn soft_state_bytes(&self) -> usize {
        self.server.server().soft_state_bytes()
    }

    /// Time goes by until the next hostile packet.
    pub fn pass(&mut self) {
        self.now.instant += INTERVAL;
        self.now.unix = UnixMillis::new(1_800_000_000_000 + self.now.instant.as_micros() / 1000);
    }

    /// One hostile packet.
    pub fn attack(&mut self, packet: &[u8]) -> Outcome {
        let before = self.counts();
        self.server.handle_packet(self.now, packet, None);
        let outcome = self.outcome(before, packet);
        let tcp = payload_of(packet).is_some_and(|(_, protocol)| protocol == TCP);
        let elicited = self.take_replies();
        let volume = if tcp { &mut self.tcp } else { &mut self.other };
        volume.received += packet.len() as u64;
        assert!(
            elicited <= 3 * packet.len(),
            "{elicited} bytes for {}",
            packet.len()
        );
        outcome
    }

    /// IP drops, transport drops, transport answers.
    fn counts(&self) -> (u64, u64, u64) {
        let counters = self.server.server().counters();
        (
            self.server.stack_counters().drops.total(),
            counters.drops().iter().map(|(_, count)| count).sum(),
            counters.opens + counters.requests + counters.challenges,
        )
    }

    fn outcome(&self, before: (u64, u64, u64), packet: &[u8]) -> Outcome {
        let after = self.counts();
        let grown = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
        match grown {
            (1, 0, 0) => Outcome::DroppedByStack,
            (0, 1, 0) => Outcome::DroppedByServer,
            (0, 0, 1) => Outcome::Answered,
            (0, 0, 0) => {
                let protocol = payload_of(packet).map(|(_, protocol)| protocol);
                assert!(
                    matches!(protocol, Some(TCP | ICMP | ICMPV6)),
                    "lost without a count"
                );
                Outcome::Taken
            }
            _ => panic!("counted more than once: {grown:?}"),
        }
    }

    /// Drains the server's output. A client's packets go to it; of the rest, the bytes other than
    /// TCP are counted for the packet that elicited them. TCP repeats itself by its
    /// timers, so its bytes are only counted in all.
    fn take_replies(&mut self) -> usize {
        let mut elicited = 0;
        while let Some(transmit) = self.server.poll_transmit(self.now) {
            for packet in Self::packets(transmit) {
                let (payload, protocol) = payload_of(&packet).unwrap();
                let kind = match protocol {
                    TCP => "TCP".into(),
                    ICMP | ICMPV6 => "echo reply".into(),
                    _ => transport_kind(packet[payload + 8]),
                };
                *self.replies.entry(kind).or_default() += 1;
                match self.client_of(&packet) {
                    Some(client) => self.send(Some(client), packet),
                    None if protocol == TCP => self.tcp.sent += packet.len() as u64,
                    None => {
                        self.other.sent += packet.len() as u64;
                        elicited += packet.len();
                    }
                }
            }
        }
        elicited
    }

    fn packets(transmit: Transmit) -> Vec<Vec<u8>> {
        let packets = transmit.into_packets().unwrap();
        assert!(packets.iter().all(|packet| packet.len() <= 1500));
        packets
    }

    /// The client that a packet of the server is for.
    fn client_of(&self, packet: &[u8]) -> Option<usize> {
        let dst = headwater::internals::wire::ip::IpView::parse(packet)
            .unwrap()
            .dst;
        self.clients.iter().position(|client| client.address == dst)
    }

    fn send(&mut self, to: Option<usize>, packet: Vec<u8>) {
        self.wire
            .push_back((self.now.instant + ONE_WAY, to, packet));
    }

    /// Runs the clients and timers that are due.
    pub fn run(&mut self, generator: &mut Generator) {
        self.take_replies();
        for index in 0..self.clients.len() {
            self.clients[index].turn(self.now);
            while let Some(transmit) = self.clients[index].host.poll_transmit(self.now) {
                for packet in Self::packets(transmit) {
                    self.send(None, packet);
                }
            }
        }
        while self
            .wire
            .front()
            .is_some_and(|(at, ..)| *at <= self.now.instant)
        {
            let (_, to, packet) = self.wire.pop_front().unwrap();
            // A few of the answers too; there are many more of them than of requests.
            self.passed += 1;
            if to.is_none() || self.passed.is_multiple_of(ANSWERS_SHOWN) {
                generator.learn(&packet);
            }
            match to {
                Some(client) => self.clients[client]
                    .host
                    .handle_packet(self.now, &packet, None),
                None => self.server.handle_packet(self.now, &packet, None),
            }
        }
        if self
            .server
            .poll_timeout(self.now)
            .is_some_and(|(at, _)| at <= self.now.instant)
        {
            self.server.handle_timeout(self.now);
        }
        self.learn_handshakes(generator);
        self.take_replies();
    }

    /// No host here speaks TCP or pings: teaches both to the generator.
    fn learn_handshakes(&mut self, generator: &mut Generator) {
        let number = (self.now.instant.as_micros() / 500) as u16;
        if !number.is_multiple_of(16) {
            return;
        }
        for service in SERVICES {
            let dst: SocketAddr = service.parse().unwrap();
            let src: IpAddr = match dst {
                SocketAddr::V4(_) => [198, 18, 99, 1].into(),
                SocketAddr::V6(_) => [0xfd99, 0, 0, 0, 0, 0, 99, 1].into(),
            };
            generator.learn(&syn(
                SocketAddr::new(src, number),
                SocketAddr::new(dst.ip(), 80),
            ));
            generator.learn(&echo(SocketAddr::new(src, number), dst));
        }
    }

    /// Lets the downloads that are under way come to their end, and judges them.
    pub fn finish(&mut self, generator: &mut Generator) {
        self.clients
            .iter_mut()
            .for_each(|client| client.stopping = true);
        for _ in 0..1_000_000 {
            self.run(generator);
            if self.clients.iter().all(|client| client.done) {
                break;
            }
            self.now.instant += Duration::from_micros(500);
        }
        for client in &self.clients {
            assert!(client.done, "a download hangs");
            let report = client.host.report();
            let (connections, handshakes) = (report.connections, report.transport.handshakes);
            assert_eq!((connections, handshakes), (1, 1), "{report:?}");
        }
        let tcp = &self.tcp;
        assert!(
            tcp.sent <= MAX_TCP_FACTOR * tcp.received,
            "{} for {}",
            tcp.sent,
            tcp.received
        );
        assert!(self.other.sent <= 3 * self.other.received);
    }

    /// The outcome of each client: the same in war and peace.
    pub fn deeds(&self) -> Vec<[u64; 5]> {
        let deeds = |client: &Downloader| {
            let done = client.host.report().transport;
            [
                done.requests,
                done.lost,
                done.timeouts,
                done.probes,
                done.stream_bytes,
            ]
        };
        self.clients.iter().map(deeds).collect()
    }

    /// The figures.
    pub fn report(&self) -> String {
        let mut lines = Vec::new();
        for client in &self.clients {
            let report = client.host.report();
            let transport = report.transport;
            lines.push(format!(
                "client {}: {} objects, 1 handshake, {} packets in, {} lost, {} timeouts, dropped {:?}",
                client.address,
                client.objects,
                transport.packets_in,
                transport.lost,
                transport.timeouts,
                transport.drops,
            ));
        }
        lines.push(format!("replies: {:?}", self.replies));
        let drops = self
            .server
            .stack_counters()
            .drops
            .iter()
            .filter(|(_, count)| *count > 0);
        let drops: Vec<_> = drops
            .map(|(reason, count)| (reason.label(), count))
            .collect();
        lines.push(format!("dropped by the stack: {drops:?}"));
        lines.push(format!(
            "dropped by the server: {:?}",
            self.server.server().counters().drops()
        ));
        let factor = |volume: &Volume| volume.sent as f64 / volume.received.max(1) as f64;
        lines.push(format!(
            "bytes to strangers for each of theirs: {:.4}; over TCP {:.4}",
            factor(&self.other),
            factor(&self.tcp)
        ));
        lines.join("\n")
    }
}

impl Downloader {
    fn new(now: Now, index: usize) -> Self {
        let address: IpAddr = CLIENTS[index].parse().unwrap();
        let service: SocketAddr = SERVICES[index].parse().unwrap();
        let config = ClientHostConfig::builder([address], 9 + index as u64)
            .buffer(BUFFER_BYTES)
            .connect_timeout(Duration::from_secs(5))
            .idle_timeout(Duration::from_secs(60))
            .resolve(move |_| vec![service.ip()])
            .build()
            .unwrap();
        let host = ClientHost::new(now, config).unwrap();
        let compare = Rc::default();
        Self {
            host,
            address,
            compare,
            objects: 0,
            stopping: false,
            done: false,
        }
    }

    fn start(&mut self, now: Now) {
        let seed = self.objects;
        *self.compare.borrow_mut() = Compare {
            seed,
            at: 0,
            whole: false,
        };
        let url = format!("http://service/.dynamic/{seed}/{OBJECT_BYTES}");
        let (config, target) = (TransferConfig::default(), Target::parse(&url).unwrap());
        let sink = Sink(Rc::clone(&self.compare));
        self.host
            .start(now, Transfer::new(config, target, Box::new(sink)));
    }

    /// Timers and events.
    fn turn(&mut self, now: Now) {
        if self
            .host
            .poll_timeout(now)
            .is_some_and(|(at, _)| at <= now.instant)
        {
            self.host.handle_timeout(now);
        }
        while let Some(event) = self.host.poll_event() {
            match event {
                TransferEvent::Head { status, .. } => assert_eq!(status, 200),
                TransferEvent::Done { .. } => {
                    let compare = self.compare.borrow();
                    assert!(compare.whole && compare.at == OBJECT_BYTES);
                    drop(compare);
                    self.objects += 1;
                    self.done = self.stopping;
                    if !self.done {
                        self.start(now);
                    }
                }
                TransferEvent::Redirected { .. }
                | TransferEvent::Restarted
                | TransferEvent::Failed(_) => {
                    panic!("{event:?}")
                }
            }
        }
    }
}

fn transport_kind(first: u8) -> String {
    match first & 0xe0 {
        0x80 => "data",
        0xa0 => "opened",
        0xc0 => "challenge",
        _ => "probed",
    }
    .into()
}

/// An IP packet of one protocol with the ports' places filled.
fn packet(src: SocketAddr, dst: SocketAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let path = headwater::internals::wire::flight::UdpPath { src, dst };
    let template = UdpTemplate::new(path, headwater::internals::wire::flight::Ecn::NotEct).unwrap();
    let mut packet = template.packet(payload).unwrap();
    let start = template.headers_len() - 8;
    packet.drain(start..start + 8);
    packet[if src.is_ipv6() { 6 } else { 9 }] = protocol;
    repair(&mut packet);
    packet
}

fn syn(src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(src.port().to_be_bytes());
    segment.extend(dst.port().to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 2, 0xff, 0xff, 0, 0, 0, 0]);
    packet(src, dst, TCP, &segment)
}

fn echo(src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    let (protocol, kind) = if src.is_ipv6() {
        (ICMPV6, 128)
    } else {
        (ICMP, 8)
    };
    packet(
        src,
        dst,
        protocol,
        &[&[kind, 0, 0, 0, 0, 1, 0, 1][..], &[9; 56]].concat(),
    )
}
