//! A load generator and a server back to back, on virtual time.

mod downloads;
mod requests;

use super::*;
use crate::host::config::ServerHostConfig;
use crate::host::server::ServerHost;
use crate::instruments::load::schedule::Plan;
use crate::time::UnixMillis;
use crate::transport::application::MAX_REQUEST_BYTES;
use crate::transport::application::{Application, Begun, RequestContext, StreamPart, Unavailable};
use crate::transport::keys::KeyRing;
use proptest::prelude::*;
use std::net::SocketAddr;
use std::num::NonZeroU32;

const ONE_WAY: Duration = Duration::from_millis(5);

/// Serves one stream of this length.
struct One(usize);

impl Application for One {
    fn begin(&mut self, _context: RequestContext, _request: &[u8]) -> Result<Begun, Unavailable> {
        Ok(Begun {
            user: b"one".to_vec(),
            length: Some(self.0 as u64),
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let StreamPart { offset, .. } = part;
        let mut stream = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        stream.resize(self.0, b'.');
        let rest = &stream[usize::try_from(offset).unwrap()..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

struct World<M> {
    now: Now,
    load: M,
    server: ServerHost<One>,
    /// Time, whether it goes to the server, and the packet.
    wire: VecDeque<(Instant, bool, Vec<u8>)>,
    sent: u64,
    /// Loses every Nth packet; 0: none.
    lose_every: u64,
    /// The server receives no packets from then on.
    dead_from: Option<Instant>,
    most_busy: usize,
}

const START: Now = Now {
    instant: Instant::from_micros(1_000_000),
    unix: UnixMillis::new(1_700_000_000_000),
};

fn address(v6: bool, last: u8) -> IpAddr {
    match v6 {
        true => [0xfd00, 0, 0, 0, 0, 0, 0, last.into()].into(),
        false => [10, 9, 0, last].into(),
    }
}

fn target(port: u16) -> LoadTarget {
    LoadTarget {
        addresses: vec![address(false, 1), address(true, 1)],
        mtu: 1500,
        remote: SocketAddr::new(address(false, 2), port),
        head: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        seed: 7,
    }
}

fn config(connections: u32) -> LoadConfig {
    LoadConfig {
        target: target(7600),
        connections,
        rate: None,
        hold: Hold::No,
        hostile: 0,
        resume_sample: 0,
        live: None,
    }
}

impl<M: Machine> World<M> {
    fn of(load: M, object: usize) -> Self {
        let now = START;
        let own = [address(false, 2), address(true, 2)];
        let settings = ServerHostConfig::builder(own, 5).build().unwrap();
        let keys = KeyRing::with_secret([3; 32]);
        Self {
            now,
            load,
            server: ServerHost::new(now, settings, keys, One(object)).unwrap(),
            wire: VecDeque::new(),
            sent: 0,
            lose_every: 0,
            dead_from: None,
            most_busy: 0,
        }
    }

    fn put(&mut self, to_server: bool, transmit: Transmit) {
        for packet in transmit.into_packets().unwrap() {
            assert!(packet.len() <= 1500);
            self.sent += 1;
            let lost = self.lose_every > 0 && self.sent.is_multiple_of(self.lose_every);
            let dead = to_server && self.dead_from.is_some_and(|at| at <= self.now.instant);
            if !lost && !dead {
                let at = self.now.instant + ONE_WAY;
                self.wire.push_back((at, to_server, packet));
            }
        }
    }

    /// Advances to the next event; `false` if there is none.
    fn step(&mut self) -> bool {
        while let Some(transmit) = self.load.poll_transmit(self.now) {
            self.put(true, transmit);
        }
        while let Some(transmit) = self.server.poll_transmit(self.now) {
            self.put(false, transmit);
        }
        let arrival = self.wire.front().map(|(at, ..)| *at);
        let due = self.load.poll_timeout(self.now).map(|(at, _)| at);
        let Some(next) = [arrival, due].into_iter().flatten().min() else {
            return false;
        };
        let elapsed = next.saturating_since(self.now.instant);
        self.now.instant += elapsed;
        let since_start = self.now.instant.as_micros() / 1000;
        self.now.unix = UnixMillis::new(1_700_000_000_000 + since_start);
        while self.wire.front().is_some_and(|(at, ..)| *at <= next) {
            let (_, to_server, packet) = self.wire.pop_front().unwrap();
            if to_server {
                self.server.handle_packet(self.now, &packet, None);
            } else {
                self.load.handle_packet(self.now, &packet, None);
            }
        }
        if due.is_some_and(|at| at <= next) {
            self.load.handle_timeout(self.now);
        }
        true
    }
}

impl World<LoadHost> {
    fn new(config: LoadConfig, object: usize) -> Self {
        Self::of(LoadHost::new(START, config).unwrap(), object)
    }

    fn run(mut self) -> (LoadReport, Self) {
        for _ in 0..1_000_000 {
            if self.load.is_done() {
                return (self.load.report(), self);
            }
            assert!(self.step(), "stuck: {:?}", self.load.report());
            self.most_busy = self.most_busy.max(self.load.busy.len());
        }
        panic!("no end: {:?}", self.load.report());
    }
}

#[test]
fn every_connection_is_opened_proven_and_kept() {
    // Bytes of the object, and datagrams of the answer to an OPEN.
    let cases = [
        ("empty head only", false, 19, 1),
        ("two datagrams", false, 2000, 2),
        ("more than an answer holds", false, 1 << 20, 3),
        ("over IPv6", true, 1 << 20, 3),
    ];
    for (name, v6, object, answer) in cases {
        let mut settings = config(300);
        settings.target.remote.set_ip(address(v6, 2));
        settings.resume_sample = 1000;
        let (report, world) = World::new(settings, object).run();
        let counted = (report.opened, report.failed, report.resumed, report.strays);
        assert_eq!(counted, (300, 0, 300, 0), "{name}");
        assert_eq!((report.opens, report.requests), (300, 600), "{name}");
        assert_eq!(report.statuses, [(200, 600)].into(), "{name}");
        assert_eq!(report.packets_in, 300 * answer + 600, "{name}");
        let counters = world.server.server().counters();
        assert_eq!((counters.opens, counters.requests), (300, 600), "{name}");
        assert!(report.state_bytes_per_connection <= 192, "{name}");
        assert_eq!(world.most_busy, MAX_IN_FLIGHT, "{name}");
    }
}

#[test]
fn losses_are_made_good() {
    let settings = LoadConfig {
        resume_sample: 50,
        ..config(200)
    };
    let mut world = World::new(settings, 5000);
    world.lose_every = 23;
    let (report, world) = world.run();
    assert_eq!((report.opened, report.resumed), (200, 50));
    assert!(report.retries > 20);
    assert!(world.most_busy <= MAX_IN_FLIGHT);
}

#[test]
fn a_dead_server_ends_the_run() {
    let mut world = World::new(config(10_000), 100);
    world.dead_from = Some(Instant::ZERO);
    let (report, world) = world.run();
    assert_eq!((report.opened, report.failed), (0, 10_000));
    let most = u64::try_from(2 * MAX_IN_FLIGHT).unwrap() * u64::from(MAX_ATTEMPTS);
    assert!(report.packets_out <= most, "{}", report.packets_out);
    assert!(world.now.instant.as_micros() < 200_000_000);
}

#[test]
fn a_server_that_dies_while_connections_are_held_is_noticed() {
    let settings = LoadConfig {
        hold: Hold::For(Duration::from_secs(30)),
        resume_sample: 1000,
        ..config(1000)
    };
    let mut world = World::new(settings, 100);
    world.dead_from = Some(Instant::from_micros(20_000_000));
    let (report, _) = world.run();
    assert_eq!(
        (report.opened, report.resumed, report.not_resumed),
        (1000, 0, 1000)
    );
}

/// Each connection continues from the state after its last request.
#[test]
fn requests_are_made_on_kept_connections() {
    let plan = Plan {
        pace: schedule::Pace::Even(NonZeroU32::new(500).unwrap()),
        warm_up: Duration::from_secs(1),
        window: Duration::from_secs(4),
        most: u64::MAX,
    };
    for (connections, lose_every) in [(20, 0), (300, 0), (20, 97)] {
        let settings = LoadConfig {
            live: Some(plan),
            ..config(connections)
        };
        let mut world = World::new(settings, 5000);
        world.lose_every = lose_every;
        let (report, world) = world.run();
        let live = report.live.unwrap();
        assert_eq!(
            (live.unfinished, live.failed.len()),
            (0, 0),
            "{connections}"
        );
        // The answer that reopens a lost connection has no status.
        assert_eq!(live.statuses.values().sum::<u64>(), live.began);
        if lose_every == 0 {
            assert_eq!(live.statuses, [(200, 2000)].into(), "{connections}");
            assert_eq!((report.opens, report.resumed), (u64::from(connections), 0));
            assert_eq!((live.began, live.latency.max_us), (2000, 10_000));
            let requests = u64::from(connections) + 2500 - 1;
            assert_eq!(world.server.server().counters().requests, requests);
        } else {
            assert!(report.retries > 10 && live.latency.max_us > 1_000_000);
        }
    }
}

#[test]
fn the_rate_is_kept() {
    let settings = LoadConfig {
        rate: NonZeroU32::new(100),
        ..config(50)
    };
    let (report, _) = World::new(settings, 100).run();
    assert!((0.49..0.55).contains(&report.opening_seconds), "{report:?}");
}

#[test]
fn connections_are_held_until_released() {
    let settings = LoadConfig {
        hold: Hold::UntilReleased,
        resume_sample: 3,
        ..config(20)
    };
    let mut world = World::new(settings, 100);
    while world.step() {}
    assert!(world.load.is_holding());
    world.load.release(world.now);
    assert!(!world.load.is_done(), "the sample comes first");
    let (report, _) = world.run();
    assert_eq!((report.opened, report.resumed), (20, 3));
}

#[test]
fn a_second_release_ends_at_once() {
    let settings = LoadConfig {
        resume_sample: 3,
        ..config(200)
    };
    let mut world = World::new(settings, 100);
    for _ in 0..3 {
        world.step();
    }
    world.load.release(world.now);
    world.load.release(world.now);
    assert!(world.load.is_done());
    let report = world.load.report();
    assert!(report.opened < 200 && report.opening_seconds > 0.0);
}

#[test]
fn mutated_packets_break_no_connection() {
    let settings = LoadConfig {
        hostile: 30_000,
        resume_sample: 1000,
        ..config(100)
    };
    let (report, world) = World::new(settings, 5000).run();
    let hostile = report.hostile.clone().unwrap();
    assert_eq!(hostile.sent_total(), 30_000);
    assert_eq!(hostile.sent.len(), 5, "{hostile:?}");
    assert_eq!((hostile.pulses, hostile.pulses_missed), (469, 0));
    assert!(!hostile.silent);
    // An OPEN with changed padding stays valid, so the server answers some.
    assert!(hostile.replies.contains_key("opened"), "{hostile:?}");
    assert_eq!((report.resumed, report.not_resumed), (100, 0));
    let drops = world.server.server().counters().drops();
    let kinds = drops.iter().filter(|(_, count)| *count > 0).count();
    assert!(kinds >= 5, "too tame: {drops:?}");
}

#[test]
fn a_server_that_dies_among_mutated_packets_is_noticed() {
    let settings = LoadConfig {
        hostile: 1_000_000,
        ..config(10)
    };
    let mut world = World::new(settings, 100);
    world.dead_from = Some(Instant::from_micros(1_500_000));
    let (report, _) = world.run();
    let hostile = report.hostile.unwrap();
    assert!(hostile.silent && hostile.sent_total() < 1_000_000);
    assert_eq!(hostile.pulses_missed, 10);
}

#[test]
fn equal_seeds_make_equal_runs() {
    let settings = || LoadConfig {
        hostile: 2000,
        resume_sample: 10,
        ..config(50)
    };
    let (first, _) = World::new(settings(), 3000).run();
    let (second, _) = World::new(settings(), 3000).run();
    assert_eq!(first, second);
}

#[test]
fn limits() {
    let now = Now::default();
    let cases = [
        ("all ports of the one address", PORTS, 100, true),
        ("one more", PORTS + 1, 100, false),
        ("longest request", 1, MAX_REQUEST_BYTES, true),
        ("one byte more", 1, MAX_REQUEST_BYTES + 1, false),
    ];
    for (name, connections, head, good) in cases {
        let mut settings = config(connections);
        settings.target.head = vec![b'x'; head];
        assert_eq!(LoadHost::new(now, settings).is_ok(), good, "{name}");
    }
}

proptest! {
    #[test]
    fn ports_and_numbers_agree(index in 0..2 * PORTS) {
        let addresses = vec![address(false, 1), address(true, 1), address(false, 3)];
        let mut settings = config(1);
        settings.target.addresses = addresses;
        let load = LoadHost::new(Now::default(), settings).unwrap();
        let path = load.path(index).unwrap();
        prop_assert!(path.src.port() >= FIRST_PORT && path.src.is_ipv4());
        prop_assert_eq!(load.index(path.src), Some(index));
        prop_assert!(load.path(2 * PORTS + index).is_none());
    }
}
