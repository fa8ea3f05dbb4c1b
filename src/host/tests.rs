//! Two machines back to back, with a virtual clock and a wire with delay and optional loss.

mod closing;
mod connections;
mod fallback;
mod names;
mod racing;
mod sockets;
mod waiting;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::client::{ClientHost, STAGE_BYTES};
use super::config::{ClientHostConfig, Protocol, ServerHostConfig};
use super::metrics::Metric;
use super::server::{MAX_FLIGHTS, ServerHost};
use super::tokens::Tokens;
use super::*;
use crate::apps::fetch::config::TransferConfig;
use crate::apps::fetch::output::{Output, OutputError};
use crate::apps::fetch::target::Target;
use crate::apps::fetch::{MAX_KEPT_BYTES, Transfer, TransferEvent};
use crate::connect::{History, Pace};
use crate::host::config::Finish;
use crate::http::digest;
use crate::http::request::RequestHead;
use crate::time::UnixMillis;
use crate::transport::application::{
    Application, Begun, RequestContext, StreamPart, Ticket, Unavailable,
};
use crate::transport::keys::KeyRing;
use crate::wire::flight::{Ecn, UdpPath};
use crate::wire::ip::emit_udp;
use crate::wire::segment::{Open, Wanted};

/// The wall clock at the start of the other one, in milliseconds.
const START_MS: u64 = 1_700_000_000_000;

const ONE_WAY: Duration = Duration::from_millis(5);

/// Serves `/SIZE`: a body of SIZE bytes, with head and digest; `/moved` redirects to `/1000`.
struct Sizes {
    version: Rc<RefCell<u8>>,
    unready: u32,
    /// The stream read last: its version, size and bytes.
    cached: (u8, u64, Vec<u8>),
}

fn body(version: u8, size: u64) -> Vec<u8> {
    (0..size)
        .map(|index| (index % 251) as u8 ^ version)
        .collect()
}

fn stream(version: u8, size: u64) -> Vec<u8> {
    let body = body(version, size);
    let sum = ring::digest::digest(&ring::digest::SHA256, &body);
    let sum = digest::ReprDigest(sum.as_ref().try_into().unwrap()).to_string();
    let status = if version == BUSY {
        "503 Busy"
    } else {
        "200 OK"
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {size}\r\nRepr-Digest: {sum}\r\n\r\n");
    [head.as_bytes(), &body].concat()
}

/// The version of which a server responds with an error.
const BUSY: u8 = 0xff;

const MOVED: &str = "HTTP/1.1 301 Moved\r\nLocation: /1000\r\nContent-Length: 2\r\n\r\nno";
const BAD: &str = "HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad";

impl Application for Sizes {
    fn begin(&mut self, _context: RequestContext, request: &[u8]) -> Result<Begun, Unavailable> {
        if self.unready > 0 {
            self.unready -= 1;
            return Err(Unavailable::NotReady(Ticket(1)));
        }
        let size = match RequestHead::parse(request) {
            Ok((head, _)) => head
                .target
                .trim_start_matches('/')
                .parse()
                .unwrap_or(u64::MAX),
            Err(_) => u64::MAX - 1,
        };
        let version = *self.version.borrow();
        let length = match size {
            u64::MAX => MOVED.len(),
            size if size == u64::MAX - 1 => BAD.len(),
            size => stream(version, size).len(),
        };
        let user = [&[version], size.to_be_bytes().as_slice()].concat();
        Ok(Begun {
            user,
            length: Some(length as u64),
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let StreamPart { user, offset, .. } = part;
        if user[0] != *self.version.borrow() {
            return Err(Unavailable::Changed);
        }
        let bytes = match u64::from_be_bytes(user[1..].try_into().unwrap()) {
            u64::MAX => MOVED.as_bytes(),
            size if size == u64::MAX - 1 => BAD.as_bytes(),
            size => {
                if (self.cached.0, self.cached.1) != (user[0], size) {
                    self.cached = (user[0], size, stream(user[0], size));
                }
                &self.cached.2
            }
        };
        let rest = &bytes[usize::try_from(offset).unwrap()..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

#[derive(Clone, Default)]
struct Memory(Rc<RefCell<(Vec<u8>, bool)>>);

impl Output for Memory {
    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        self.0.borrow_mut().0.extend_from_slice(bytes);
        Ok(())
    }
    fn rewind(&mut self) -> Result<(), OutputError> {
        self.0.borrow_mut().0.clear();
        Ok(())
    }
    fn finish(&mut self) -> Result<(), OutputError> {
        self.0.borrow_mut().1 = true;
        Ok(())
    }
}

/// A client, a server and the packets between them.
struct World {
    now: Now,
    client: ClientHost,
    server: ServerHost<Sizes>,
    /// Servers at the addresses from 3 on, of the hosts `other3` and so on.
    others: Vec<ServerHost<Sizes>>,
    version: Rc<RefCell<u8>>,
    /// Time, whether it goes to the server, and the packet; in sending order.
    wire: VecDeque<(Instant, bool, Vec<u8>)>,
    /// The last byte of the address of a server that has died.
    dead: Option<u8>,
    /// A DNS server at the address 53.
    dns: Option<names::DnsServer>,
    /// The protocol number of packets that a middlebox drops, if any: 17 is UDP, 6 TCP.
    filter: Option<u8>,
    /// Loses every Nth packet; 0: none.
    lose_every: u64,
    sent: u64,
}

fn server(version: &Rc<RefCell<u8>>, own: IpAddr, now: Now, unready: u32) -> ServerHost<Sizes> {
    let config = ServerHostConfig::builder([own], 5).build().unwrap();
    let cached = (u8::MAX, 0, Vec::new());
    let app = Sizes {
        version: Rc::clone(version),
        unready,
        cached,
    };
    ServerHost::new(now, config, KeyRing::with_secret([3; 32]), app).unwrap()
}

fn address(v6: bool, last: u8) -> IpAddr {
    match v6 {
        true => [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into(),
        false => [10, 9, 0, last].into(),
    }
}

fn client_config(protocol: Protocol, v6: bool) -> ClientHostConfig {
    ClientHostConfig {
        addresses: vec![address(v6, 1)],
        mtu: 1500,
        protocol,
        family: None,
        pinned: Vec::new(),
        pace: Pace::default(),
        buffer: 1 << 20,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(60),
        max_time: None,
        finish: Finish::default(),
        tokens: Tokens::default(),
        history: History::default(),
        source: Box::new(|_| None),
        seed: 9,
        resolve: Box::new(move |host| {
            let other = host.strip_prefix("other");
            let last = other.map_or((host == "files").then_some(2), |last| last.parse().ok());
            last.map(|last| address(v6, last)).into_iter().collect()
        }),
        connect_to: Vec::new(),
        dns: None,
        query_sockets: None,
        interface_index: Box::new(|_| None),
        sockets: false,
        streams: None,
    }
}

impl World {
    fn new(protocol: Protocol, v6: bool) -> Self {
        Self::limited(protocol, v6, None)
    }

    fn limited(protocol: Protocol, v6: bool, max_time: Option<Duration>) -> Self {
        let now = Now {
            instant: Instant::from_micros(1_000_000),
            unix: UnixMillis::new(START_MS + 1000),
        };
        let config = ClientHostConfig {
            max_time,
            ..client_config(protocol, v6)
        };
        let version = Rc::new(RefCell::new(0));
        Self {
            now,
            client: ClientHost::new(now, config).unwrap(),
            server: server(&version, address(v6, 2), now, 2),
            others: Vec::new(),
            version,
            wire: VecDeque::new(),
            dead: None,
            dns: None,
            filter: None,
            lose_every: 0,
            sent: 0,
        }
    }

    fn start(&mut self, url: &str, follow: bool) -> Memory {
        let memory = Memory::default();
        self.start_into(url, follow, Box::new(memory.clone()));
        memory
    }

    fn start_into(&mut self, url: &str, follow: bool, output: Box<dyn Output>) {
        let config = TransferConfig {
            follow,
            ..TransferConfig::default()
        };
        let transfer = Transfer::new(config, Target::parse(url).unwrap(), output);
        self.client.start(self.now, transfer);
    }

    fn put(&mut self, to_server: bool, transmit: Transmit) {
        for packet in transmit.into_packets().unwrap() {
            assert!(packet.len() <= 1500);
            self.sent += 1;
            if self.filter == Some(packet[9]) {
                continue;
            }
            if self.lose_every == 0 || !self.sent.is_multiple_of(self.lose_every) {
                self.wire
                    .push_back((self.now.instant + ONE_WAY, to_server, packet));
            }
        }
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.client.poll_transmit(self.now) {
            self.put(true, transmit);
        }
        while let Some(transmit) = self.server.poll_transmit(self.now) {
            self.put(false, transmit);
        }
        while let Some(packet) = self
            .dns
            .as_mut()
            .and_then(|dns| dns.poll_transmit(self.now))
        {
            self.put(false, Transmit::Packet(packet));
        }
        for index in 0..self.others.len() {
            while let Some(transmit) = self.others[index].poll_transmit(self.now) {
                self.put(false, transmit);
            }
        }
    }

    /// Advances to the next event; `false` if there is none.
    fn step(&mut self) -> bool {
        self.step_until(Instant::from_micros(u64::MAX))
    }

    /// Advances to the next event before `end`; `false` if there is none.
    fn step_until(&mut self, end: Instant) -> bool {
        self.drain();
        let arrival = self.wire.front().map(|(at, ..)| *at);
        let client = self.client.poll_timeout(self.now).map(|(at, _)| at);
        let server = self.server.poll_timeout(self.now).map(|(at, _)| at);
        let others = self.others.iter_mut();
        let others = others
            .filter_map(|other| other.poll_timeout(self.now))
            .map(|(at, _)| at)
            .min();
        let dns = self.dns.as_mut().and_then(|dns| dns.poll_timeout(self.now));
        let next = [arrival, client, server, others, dns]
            .into_iter()
            .flatten()
            .min();
        let Some(next) = next.filter(|next| *next < end) else {
            return false;
        };
        self.now.instant = self.now.instant.max(next);
        let passed = self.now.instant.as_micros() / 1000;
        self.now.unix = UnixMillis::new(START_MS + passed);
        while self
            .wire
            .front()
            .is_some_and(|(at, ..)| *at <= self.now.instant)
        {
            let (_, to_server, packet) = self.wire.pop_front().unwrap();
            // The last byte of an IPv4 destination.
            let other = usize::from(packet[19]).checked_sub(3);
            if to_server && self.dead == Some(packet[19]) {
                continue;
            }
            if let Some(dns) = self.dns.as_mut()
                && to_server
                && packet[19] == names::DNS
            {
                dns.handle_packet(self.now, &packet);
                continue;
            }
            if let Some(other) = other.and_then(|other| self.others.get_mut(other))
                && to_server
            {
                other.handle_packet(self.now, &packet, None);
            } else if to_server {
                self.server.handle_packet(self.now, &packet, None);
            } else {
                self.client.handle_packet(self.now, &packet, None);
            }
        }
        if client.is_some_and(|at| at <= self.now.instant) {
            self.client.handle_timeout(self.now);
        }
        if server.is_some_and(|at| at <= self.now.instant) {
            self.server.handle_timeout(self.now);
        }
        if others.is_some_and(|at| at <= self.now.instant) {
            for other in &mut self.others {
                other.handle_timeout(self.now);
            }
        }
        true
    }

    /// Runs until the transfer ends; returns its last event.
    fn finish(&mut self) -> String {
        for _ in 0..200_000 {
            while let Some(event) = self.client.poll_event() {
                if matches!(event, TransferEvent::Done { .. } | TransferEvent::Failed(_)) {
                    self.drain();
                    return format!("{event:?}");
                }
            }
            assert!(self.step(), "nothing more will happen");
        }
        panic!("no end");
    }
}

/// An output whose reader takes a limited number of bytes at a time.
#[derive(Clone, Default)]
struct Slow(Rc<RefCell<Reader>>);

#[derive(Default)]
struct Reader {
    kept: VecDeque<u8>,
    taken: Vec<u8>,
    takes: usize,
    finished: bool,
}

impl Output for Slow {
    fn replay(&mut self, _sink: &mut dyn FnMut(&[u8])) -> Result<bool, OutputError> {
        Ok(false)
    }
    fn begin(&mut self, _offset: u64, _etag: Option<&str>) -> Result<(), OutputError> {
        Ok(())
    }
    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        self.0.borrow_mut().kept.extend(bytes);
        Ok(())
    }
    fn kept(&self) -> usize {
        self.0.borrow().kept.len()
    }
    fn flush(&mut self) -> Result<(), OutputError> {
        let Reader {
            kept, taken, takes, ..
        } = &mut *self.0.borrow_mut();
        let count = kept.len().min(*takes);
        taken.extend(kept.drain(..count));
        *takes -= count;
        Ok(())
    }
    fn rewind(&mut self) -> Result<(), OutputError> {
        Err(OutputError::CannotRewind)
    }
    fn finish(&mut self) -> Result<(), OutputError> {
        let mut reader = self.0.borrow_mut();
        assert!(reader.kept.is_empty(), "presented before it is written");
        reader.finished = true;
        Ok(())
    }
}

const TRICKLES: Protocol = Protocol::Trickles {
    udp_port: 7600,
    local_port: None,
};
const VERIFIED: &str = "Done { digest: Verified }";

#[test]
fn objects_pass_whole_over_both_protocols_and_families() {
    for protocol in [TRICKLES, Protocol::Tcp] {
        for v6 in [false, true] {
            for lose_every in [0, 50] {
                let mut world = World::new(protocol, v6);
                world.lose_every = lose_every;
                for size in [0, 1, 3_000, 3_000_000] {
                    let memory = world.start(&format!("http://files/{size}"), false);
                    let context = format!("{protocol:?} v6={v6} lose={lose_every} size={size}");
                    assert_eq!(world.finish(), VERIFIED, "{context}");
                    let got = memory.0.borrow();
                    assert!(got.1 && got.0 == body(0, size), "{context}");
                }
                assert_eq!(
                    world.client.report().connections,
                    1,
                    "one connection for all"
                );
            }
        }
    }
}

#[test]
fn redirects_stay_on_the_connection() {
    for protocol in [TRICKLES, Protocol::Tcp] {
        let mut world = World::new(protocol, false);
        let memory = world.start("http://files/moved", true);
        assert_eq!(world.finish(), VERIFIED);
        assert_eq!(memory.0.borrow().0, body(0, 1000));
        assert_eq!(world.client.report().connections, 1);
    }
}

/// 10 kB exceed the response to an OPEN, unless a token proves the address.
#[test]
fn what_one_client_remembers_saves_the_next_a_round_trip() {
    let mut world = World::new(TRICKLES, true);
    let mut tokens = Tokens::default();
    for (name, round_trips) in [("nothing known", 2), ("remembered", 1), ("again", 2)] {
        let config = ClientHostConfig {
            tokens: tokens.clone(),
            ..client_config(TRICKLES, true)
        };
        world.client = ClientHost::new(world.now, config).unwrap();
        let begun = world.now.instant;
        let memory = world.start("http://files:1/10000", false);
        if name == "nothing known" {
            // A server that is not ready is silent, which costs more than one round trip.
            world.server = server(&world.version, address(true, 2), world.now, 0);
        }
        assert_eq!(world.finish(), VERIFIED, "{name}");
        assert_eq!(memory.0.borrow().0, body(0, 10_000), "{name}");
        let took = world.now.instant.saturating_since(begun);
        let report = world.client.report().transport;
        let took = took.as_micros() / (2 * ONE_WAY).as_micros();
        assert_eq!(took, round_trips, "{name}: {report:?}");
        assert_eq!(report.opens, 1, "{name}");
        if name == "nothing known" {
            tokens = world.client.tokens(world.now);
        }
    }
}

/// Four seconds at 1 Mb/s, then unlimited: nothing is lost, requests never exceed the buffer, and
/// the pause does not affect the pace afterwards.
#[test]
fn a_reader_may_be_slow_and_then_fast() {
    const TICK: Duration = Duration::from_millis(100);
    const SIZE: usize = 4_000_000;
    for protocol in [TRICKLES, Protocol::Tcp] {
        let mut world = World::new(protocol, false);
        world.server = server(&world.version, address(false, 2), world.now, 0);
        let (port, slow) = (
            if protocol == Protocol::Tcp { 80 } else { 1 },
            Slow::default(),
        );
        let url = format!("http://files:{port}/{SIZE}");
        world.start_into(&url, false, Box::new(slow.clone()));
        for tick in 1..=40 {
            let end = world.now.instant + TICK;
            while world.step_until(end) {}
            world.now.unix = UnixMillis::new(world.now.unix.as_millis() + 100);
            world.now.instant = end;
            slow.0.borrow_mut().takes = 12_500;
            world.client.turn(world.now);
            let ahead = world.client.progress().received as usize - slow.0.borrow().taken.len();
            assert!(ahead < MAX_KEPT_BYTES + STAGE_BYTES, "{ahead} at {tick}");
        }
        let report = world.client.report();
        let read = slow.0.borrow().taken.len();
        assert!((480_000..=500_000).contains(&read), "{protocol:?}: {read}");
        let asked = report.transport.stream_bytes as usize;
        let most = read + (1 << 20) + MAX_KEPT_BYTES + STAGE_BYTES;
        assert!(asked <= most, "{asked}, expected at most {most}");

        let fast_from = world.now.instant;
        slow.0.borrow_mut().takes = usize::MAX;
        world.client.turn(world.now);
        let mut last = world.now.instant;
        while !slow.0.borrow().finished {
            let before = slow.0.borrow().taken.len();
            assert!(world.step(), "nothing more will happen");
            world.client.turn(world.now);
            if slow.0.borrow().taken.len() > before {
                let pause = world.now.instant.saturating_since(last);
                assert!(pause <= 4 * ONE_WAY, "{protocol:?}: no byte for {pause:?}");
                last = world.now.instant;
            }
        }
        assert_eq!(world.finish(), VERIFIED);
        assert_eq!(slow.0.borrow().taken, body(0, SIZE as u64));
        let report = world.client.report();
        let took = world.now.instant.saturating_since(fast_from);
        assert!(
            took < Duration::from_secs(1),
            "{protocol:?}: {took:?} {report:?}"
        );
        assert!(
            report.longest_stall <= 4 * ONE_WAY,
            "{protocol:?}: {report:?}"
        );
        let lost = (report.transport.lost, report.transport.timeouts);
        assert_eq!(lost, (0, 0), "{report:?}");
    }
}

/// The reader pauses for ten minutes and the server is replaced meanwhile: one request returns the
/// next bytes.
#[test]
fn a_paused_download_goes_on_in_one_round_trip_with_another_server() {
    let mut world = World::new(TRICKLES, false);
    world.server = server(&world.version, address(false, 2), world.now, 0);
    let slow = Slow::default();
    slow.0.borrow_mut().takes = 100_000;
    world.start_into("http://files:1/4000000", false, Box::new(slow.clone()));
    let end = world.now.instant + Duration::from_secs(600);
    while world.step_until(end) {
        world.client.turn(world.now);
    }
    let idle = end.saturating_since(world.now.instant);
    assert!(idle > Duration::from_secs(598), "{idle:?}");
    world.now.unix = UnixMillis::new(world.now.unix.as_millis() + idle.as_millis() as u64);
    world.now.instant = end;
    world.server = server(&world.version, address(false, 2), world.now, 0);

    let before = world.client.report().transport;
    slow.0.borrow_mut().takes = usize::MAX;
    world.client.turn(world.now);
    world.drain();
    while world.client.report().transport.stream_bytes == before.stream_bytes {
        let sent = world.client.report().transport.packets_out;
        assert_eq!(sent, before.packets_out + 1);
        assert!(world.step(), "nothing more will happen");
    }
    let took = world.now.instant.saturating_since(end);
    assert_eq!(took, 2 * ONE_WAY);
    while !slow.0.borrow().finished {
        assert!(world.step(), "nothing more will happen");
        world.client.turn(world.now);
    }
    assert_eq!(slow.0.borrow().taken, body(0, 4_000_000));
    let after = world.client.report().transport;
    let trouble = (after.lost, after.timeouts, after.probes);
    assert_eq!((trouble, after.handshakes), ((0, 0, 0), 1), "{after:?}");
}

/// A world in which a quarter of an object of 400,000 bytes arrived.
fn midway() -> (World, Memory) {
    let mut world = World::new(TRICKLES, false);
    let memory = world.start("http://files/400000", false);
    while memory.0.borrow().0.len() < 100_000 {
        assert!(world.step());
    }
    (world, memory)
}

#[test]
fn an_object_that_changes_midway_is_fetched_anew() {
    let (mut world, memory) = midway();
    *world.version.borrow_mut() = 1;
    assert_eq!(world.finish(), VERIFIED);
    assert!(memory.0.borrow().0 == body(1, 400_000));

    let mut world = World::new(Protocol::Tcp, false);
    world.start("http://files/4000000", false);
    while world.client.progress().received < 100_000 {
        assert!(world.step());
    }
    *world.version.borrow_mut() = 1;
    let end = world.finish();
    assert!(
        end.starts_with("Failed(Broken"),
        "over TCP a reset, not a change: {end}"
    );
}

#[test]
fn a_server_may_be_replaced_midway() {
    let (mut world, _) = midway();
    let own = "10.9.0.2".parse().unwrap();
    world.server = server(&world.version, own, world.now, 0);
    assert_eq!(world.finish(), VERIFIED);
    let report = world.client.report();
    assert_eq!(report.transport.handshakes, 1);
    assert!(report.first_byte.is_some());
}

#[test]
fn nobody_answers() {
    for (protocol, lose_every, want) in [
        (TRICKLES, 1, "10.9.0.2:7600, failed_after: None"),
        (Protocol::Tcp, 1, "10.9.0.2:80, failed_after: None"),
    ] {
        let mut world = World::new(protocol, false);
        world.lose_every = lose_every;
        world.start("http://files/1", false);
        let end = world.finish();
        assert!(
            end.starts_with("Failed(ConnectTimedOut") && end.contains(want),
            "{end}"
        );
    }
    let mut world = World::limited(TRICKLES, false, Some(Duration::from_millis(50)));
    world.start("http://files/100000000", false);
    assert_eq!(world.finish(), "Failed(TimedOut)", "max time");
    let mut world = World::new(Protocol::Tcp, false);
    world.start("http://files:81/1", false);
    let end = world.finish();
    assert!(end.starts_with("Failed(CannotConnect"), "refused: {end}");
    let mut world = World::new(TRICKLES, false);
    world.start("http://nobody/1", false);
    assert!(world.finish().starts_with("Failed(CannotResolve"));
}

/// A raw TCP peer of the server, made of another stack.
struct Peer {
    stack: crate::stack::Stack,
    id: crate::stack::TcpId,
    received: Vec<u8>,
    closed: bool,
}

/// Sends one of `pieces` per second, then waits; returns the bytes received, whether the server
/// closed, and the server.
fn converse(pieces: &[&[u8]], wait: Duration) -> (Vec<u8>, bool, ServerHost<Sizes>) {
    use crate::stack::{Stack, StackConfig, TcpEvent};
    let mut now = Now::default();
    let mut server = server(&Rc::default(), "10.9.0.2".parse().unwrap(), now, 0);
    let config = StackConfig {
        addresses: vec!["10.9.0.1".parse().unwrap()],
        mtu: 1500,
        transport_ports: 1..=1,
        seed: 1,
    };
    let mut stack = Stack::new(now.instant, config).unwrap();
    let id = stack
        .connect(now.instant, "10.9.0.2:80".parse().unwrap())
        .unwrap();
    let mut peer = Peer {
        stack,
        id,
        received: Vec::new(),
        closed: false,
    };
    let mut pieces = pieces.iter();
    let end = Duration::from_secs(pieces.len() as u64) + wait;
    let step = Duration::from_millis(10);
    while now.instant < Instant::ZERO + end {
        now.instant += step;
        peer.stack.handle_timeout(now.instant);
        server.handle_timeout(now);
        for _ in 0..1000 {
            let (up, down) = (
                peer.stack.poll_transmit(now.instant),
                server.poll_transmit(now),
            );
            if let Some(packet) = &up {
                server.handle_packet(now, &packet.bytes, None);
            }
            let sent = down.is_some();
            for packet in down
                .into_iter()
                .flat_map(|down| down.into_packets().unwrap())
            {
                peer.stack.handle_packet(now.instant, &packet, None);
            }
            if up.is_none() && !sent {
                break;
            }
            let mut buffer = [0; 4096];
            match peer.stack.receive(peer.id, &mut buffer) {
                Ok(count) => peer.received.extend_from_slice(&buffer[..count]),
                Err(crate::stack::TcpError::Finished) => peer.closed = true,
                Err(_) => {}
            }
        }
        while let Some(event) = peer.stack.poll_event() {
            peer.closed |= matches!(event, TcpEvent::Closed(..));
        }
        if now.instant.as_micros().is_multiple_of(1_000_000)
            && let Some(piece) = pieces.next()
        {
            let _ = peer.stack.send(peer.id, piece);
        }
    }
    (peer.received, peer.closed, server)
}

#[test]
fn http_over_tcp_is_answered_request_by_request() {
    let second = Duration::from_secs(2);
    let request = b"GET /10 HTTP/1.1\r\nHost: x\r\n\r\n".as_slice();
    let answer = stream(0, 10);
    let twice = [answer.clone(), answer.clone()].concat();
    let last = b"GET /10 HTTP/1.1\r\nConnection: close\r\n\r\n".as_slice();
    let old = b"GET /10 HTTP/1.0\r\n\r\n".as_slice();
    let posted = b"POST /10 HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi".as_slice();
    let pipelined = [request, request].concat();
    type Row<'a> = (&'a str, Vec<&'a [u8]>, &'a [u8], bool);
    let rows: [Row<'_>; 8] = [
        ("kept", vec![request, request], &twice, false),
        ("pipelined", vec![&pipelined], &twice, false),
        (
            "in pieces",
            vec![&request[..9], &request[9..]],
            &answer,
            false,
        ),
        ("closed on demand", vec![last], &answer, true),
        ("closed for 1.0", vec![old], &answer, true),
        ("closed behind a body", vec![posted], &answer, true),
        ("malformed", vec![b"hello\r\n\r\n"], BAD.as_bytes(), true),
        ("silent", vec![], b"", false),
    ];
    for (name, pieces, want, closed) in rows {
        let (got, was_closed, _) = converse(&pieces, second);
        assert_eq!(
            String::from_utf8_lossy(&got),
            String::from_utf8_lossy(want),
            "{name}"
        );
        assert_eq!(was_closed, closed, "{name}");
    }
}

#[test]
fn who_is_slow_over_tcp_is_cut_off() {
    let slow: Vec<&[u8]> = b"GET /10 HTTP/1.1\r\n".chunks(1).collect();
    let request = b"GET /10 HTTP/1.1\r\nHost: x\r\n\r\n".as_slice();
    for (name, pieces, answered) in [
        ("a byte a second", slow, false),
        ("idle after a request", vec![request], true),
    ] {
        let (got, closed, server) = converse(&pieces, web::IDLE_TIMEOUT + Duration::from_secs(2));
        assert!(got.is_empty() != answered && closed, "{name}");
        let metrics = server.metrics();
        let timeouts = metrics
            .iter()
            .find(|metric| metric.name == "headwater_tcp_timeouts_total");
        assert_eq!(timeouts.unwrap().samples[0].value, 1, "{name}");
    }
}

#[test]
fn a_head_without_an_end_is_refused_at_the_bound() {
    let head = vec![b'a'; crate::http::MAX_HEAD_BYTES];
    for (length, want) in [(head.len() - 1, ""), (head.len(), BAD)] {
        let piece: &[u8] = &head[..length];
        let (got, _, _) = converse(&[piece], Duration::from_secs(2));
        assert_eq!(String::from_utf8_lossy(&got), want, "{length}");
    }
}

#[test]
fn metrics_are_named_after_the_conventions() {
    let world = World::new(TRICKLES, false);
    let metrics = world.server.metrics();
    for metric in &metrics {
        let counter = metric.kind == metrics::MetricKind::Counter;
        assert_eq!(metric.name.ends_with("_total"), counter, "{}", metric.name);
        assert!(metric.help.ends_with('.'), "{}", metric.name);
    }
    let mut names: Vec<_> = metrics.iter().map(|metric| metric.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), metrics.len());
}

#[test]
fn flights_that_wait_are_bounded() {
    let version = Rc::new(RefCell::new(1));
    let now = Now {
        instant: Instant::from_micros(1_000_000),
        unix: UnixMillis::new(1_700_000_000_000),
    };
    let mut server = server(&version, [10, 9, 0, 2].into(), now, 0);
    let path = UdpPath {
        src: "10.9.0.1:5000".parse().unwrap(),
        dst: "10.9.0.2:7600".parse().unwrap(),
    };
    let mut open = Vec::new();
    let wanted = Wanted::New(&[]);
    Open {
        echo: 1,
        size: 1472,
        stream: 0,
        token: None,
        wanted,
        offset: 0,
    }
    .emit(&mut open);
    let mut packet = vec![0; 1500];
    let length = emit_udp(path, Ecn::NotEct, &open, 0, &mut packet).unwrap();
    for _ in 0..=MAX_FLIGHTS {
        server.handle_packet(now, &packet[..length], None);
    }
    let flights = core::iter::from_fn(|| server.poll_transmit(now)).count();
    assert_eq!(flights, MAX_FLIGHTS);
    let overflow = server
        .metrics()
        .into_iter()
        .find(|m| m.name == "headwater_flight_overflow_total")
        .unwrap();
    assert_eq!(overflow.samples, Metric::counter("", "", 1).samples);
}
