//! The engine against real servers over a small network on virtual time.

use super::*;
use crate::time::UnixMillis;
use crate::transport::application::{Application, Begun, Unavailable};
use crate::transport::epoch::INITIAL_WINDOW;
use crate::transport::keys::KeyRing;
use crate::transport::server::{Server, ServerConfig};
use crate::wire::flight::{Ecn, UdpPath};
use rand::RngExt as _;
use std::collections::BTreeMap;

const START_UNIX: u64 = 1_800_000_000_000;

fn byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Streams of deterministic bytes; the request is the length in decimal.
struct Bytes;

impl Application for Bytes {
    fn begin(&mut self, _: UnixMillis, request: &[u8]) -> Result<Begun, Unavailable> {
        let length = std::str::from_utf8(request).unwrap().parse().unwrap();
        Ok(Begun {
            user: vec![7; 60],
            length,
        })
    }

    fn read(&mut self, user: &[u8], offset: u64, out: &mut [u8]) -> Result<usize, Unavailable> {
        assert_eq!(user, [7; 60]);
        for (index, to) in out.iter_mut().enumerate() {
            *to = byte(offset + index as u64);
        }
        Ok(out.len())
    }
}

/// What the network does.
#[derive(Clone, Copy)]
struct Path {
    delay_us: u64,
    jitter_us: u64,
    loss_percent: f64,
    /// µs per datagram towards the client, and the most that may queue.
    service_us: u64,
    queue: usize,
    servers: usize,
}

const LAN: Path = Path {
    delay_us: 500,
    jitter_us: 0,
    loss_percent: 0.0,
    service_us: 10,
    queue: 100_000,
    servers: 1,
};

struct Network {
    path: Path,
    random: ChaCha8Rng,
    now_us: u64,
    /// Arrival time and a tie breaker → to the client?, datagram.
    queue: BTreeMap<(u64, u64), (bool, Vec<u8>)>,
    sent: u64,
    free_at: u64,
    servers: Vec<Server>,
    client: Client,
    received: u64,
    outage: Option<(u64, u64)>,
}

impl Network {
    fn new(path: Path, seed: u64) -> Self {
        let config = ClientConfig {
            local: "10.0.0.1:5000".parse().unwrap(),
            remote: "10.0.0.2:7600".parse().unwrap(),
            mtu: 1500,
            buffer: 4 << 20,
            idle_timeout: Duration::from_secs(60),
            token: None,
        };
        let server = |id| {
            let config = ServerConfig {
                server_id: id,
                site_id: 0,
                mtu: 1500,
            };
            Server::new(config, KeyRing::with_secret([1; 32]))
        };
        Self {
            path,
            random: ChaCha8Rng::seed_from_u64(seed),
            now_us: 1_000_000,
            queue: BTreeMap::new(),
            sent: 0,
            free_at: 0,
            servers: (1..=path.servers as u16).map(server).collect(),
            client: Client::new(config, seed),
            received: 0,
            outage: None,
        }
    }

    fn now(&self) -> Now {
        Now {
            instant: Instant::from_micros(self.now_us),
            unix: UnixMillis::new(START_UNIX + self.now_us / 1000),
        }
    }

    fn send(&mut self, to_client: bool, datagram: Vec<u8>) {
        let out = self
            .outage
            .is_some_and(|(from, to)| (from..to).contains(&self.now_us));
        if out || self.random.random_bool(self.path.loss_percent / 100.0) {
            return;
        }
        let mut at = self.now_us;
        if to_client {
            let waiting = self.free_at.saturating_sub(self.now_us) / self.path.service_us.max(1);
            if waiting as usize > self.path.queue {
                return;
            }
            self.free_at = self.free_at.max(at) + self.path.service_us;
            at = self.free_at;
        }
        at += self.path.delay_us + self.random.random_range(0..=self.path.jitter_us);
        self.sent += 1;
        self.queue.insert((at, self.sent), (to_client, datagram));
    }

    fn deliver(&mut self, to_client: bool, datagram: &[u8]) {
        let now = self.now();
        let to_server = UdpPath {
            src: self.client.config.local,
            dst: self.client.config.remote,
        };
        if to_client {
            self.client
                .handle_datagram(now, to_server.reversed(), Ecn::Ect0, datagram);
            return;
        }
        let chosen = self.random.random_range(0..self.servers.len());
        let mut out = Vec::new();
        self.servers[chosen].respond(now, to_server, datagram, &mut Bytes, &mut out);
        for flight in out {
            for datagram in flight.datagrams() {
                self.send(true, datagram.to_vec());
            }
        }
    }

    /// Runs until the stream is finished or has failed; the virtual time that took, in µs.
    fn fetch(&mut self, length: u64) -> (ClientEvent, u64) {
        let start = self.now_us;
        self.received = 0;
        self.client
            .request(self.now(), length.to_string().as_bytes());
        loop {
            let now = self.now();
            while let Some(flight) = self.client.poll_transmit(now) {
                self.send(false, flight.payload);
            }
            let mut buffer = [0; 65536];
            loop {
                let count = self.client.read(now, &mut buffer);
                for got in &buffer[..count] {
                    assert_eq!(*got, byte(self.received), "byte {}", self.received);
                    self.received += 1;
                }
                if count == 0 {
                    break;
                }
            }
            while let Some(flight) = self.client.poll_transmit(now) {
                self.send(false, flight.payload);
            }
            while let Some(event) = self.client.poll_event() {
                match event {
                    ClientEvent::Finished => {
                        assert_eq!(self.received, length);
                        return (event, self.now_us - start);
                    }
                    ClientEvent::TimedOut | ClientEvent::Changed => {
                        return (event, self.now_us - start);
                    }
                    ClientEvent::Connected | ClientEvent::Began { .. } | ClientEvent::Readable => {}
                }
            }
            let timer = self
                .client
                .poll_timeout()
                .map(|(at, why)| (at.as_micros(), why));
            let packet = self.queue.keys().next().map(|(at, _)| *at);
            if packet.is_some_and(|packet| timer.is_none_or(|(timer, _)| packet <= timer)) {
                let ((at, _), (to_client, datagram)) = self.queue.pop_first().unwrap();
                self.now_us = self.now_us.max(at);
                self.deliver(to_client, &datagram);
            } else {
                let (at, why) = timer.expect("a timer while the stream is not finished");
                assert!(at < self.now_us + 100_000_000, "a timer far ahead: {why}");
                self.now_us = self.now_us.max(at);
                self.client.handle_timeout(self.now());
            }
            assert!(
                self.now_us < start + 3_600_000_000,
                "never ends: {:?}",
                self.client.stats()
            );
        }
    }
}

#[test]
fn a_small_object_takes_one_round_trip() {
    let mut network = Network::new(LAN, 1);
    let (event, took) = network.fetch(3000);
    assert_eq!(event, ClientEvent::Finished);
    assert!(took < 2 * 1000, "{took} µs");
    let stats = network.client.stats();
    assert_eq!((stats.opens, stats.requests, stats.packets_in), (1, 0, 3));
}

#[test]
fn a_large_object_arrives_whole_and_without_loss() {
    let mut network = Network::new(LAN, 1);
    assert_eq!(network.fetch(20_000_000).0, ClientEvent::Finished);
    let stats = network.client.stats();
    assert_eq!(
        (stats.lost, stats.timeouts, stats.handshakes),
        (0, 0, 1),
        "{stats:?} {:?}",
        network.servers[0].counters()
    );
    assert!(stats.bytes_out * 100 <= stats.bytes_in, "{stats:?}");
    assert!(
        network.servers[0].counters().drops().is_empty(),
        "{:?}",
        network.servers[0].counters()
    );
}

#[test]
fn losses_are_made_good() {
    for seed in 0..40 {
        let path = Path {
            loss_percent: 2.0,
            delay_us: 10_000,
            servers: 1 + seed as usize % 3,
            jitter_us: 100 * (seed % 4),
            ..LAN
        };
        let mut network = Network::new(path, seed);
        let (event, took) = network.fetch(1_000_000);
        assert_eq!(event, ClientEvent::Finished, "seed {seed}");
        assert!(
            took < 60_000_000,
            "seed {seed}: {took} µs {:?} {:?}",
            network.client.stats(),
            network.servers[0].counters()
        );
        assert_eq!(network.client.stats().handshakes, 1);
    }
}

#[test]
fn several_streams_follow_each_other() {
    let mut network = Network::new(LAN, 1);
    for length in [10, 100_000, 0, 1, 5_000_000, 3] {
        assert_eq!(network.fetch(length).0, ClientEvent::Finished, "{length}");
    }
    network.now_us += 5_000_000;
    assert_eq!(network.fetch(1_000_000).0, ClientEvent::Finished);
    let stats = network.client.stats();
    assert_eq!(stats.handshakes, 1);
    assert_eq!(stats.transitions.get("restart"), Some(&1), "{stats:?}");
}

#[test]
fn a_bottleneck_is_filled() {
    // 100 Mb/s, 40 ms, a queue of one bandwidth-delay product.
    let path = Path {
        delay_us: 20_000,
        service_us: 120,
        queue: 340,
        ..LAN
    };
    let mut network = Network::new(path, 3);
    let (_, took) = network.fetch(50_000_000);
    let rate = 50_000_000.0 * 8.0 / took as f64;
    let stats = network.client.stats();
    assert!(
        rate > 85.0,
        "{rate} Mb/s {stats:?} {:?}",
        network.servers[0].counters()
    );
}

#[test]
fn an_outage_is_survived() {
    let mut network = Network::new(
        Path {
            delay_us: 5_000,
            service_us: 100,
            ..LAN
        },
        3,
    );
    network.outage = Some((1_300_000, 4_300_000));
    let (event, took) = network.fetch(20_000_000);
    assert_eq!(event, ClientEvent::Finished);
    assert_eq!(network.client.stats().handshakes, 1);
    assert!(took < 11_000_000, "{took} {:?}", network.client.stats());
}

/// An answer can claim any number of packets; no server sends more than an initial window.
#[test]
fn an_answer_that_claims_too_many_packets_does_no_harm() {
    let mut network = Network::new(LAN, 1);
    let now = network.now();
    network.client.request(now, b"3000");
    let open = network.client.poll_transmit(now).unwrap();
    let mut out = Vec::new();
    network.servers[0].respond(now, open.path, &open.payload, &mut Bytes, &mut out);
    let mut datagram = out[0].datagrams().next().unwrap().to_vec();
    let count = crate::wire::segment::DATA_HEADER_BYTES + 10;
    assert_eq!(datagram[count], 3, "the number of packets stands here");
    for claimed in [0, 10, 64, 65, 255] {
        datagram[count] = claimed;
        let mut network = Network::new(LAN, 1);
        network.client.request(now, b"3000");
        network.deliver(true, &datagram);
        let flight = network.client.flights.get_mut(1);
        let count = flight.map_or(1, |record| record.interval.count);
        assert!(count <= INITIAL_WINDOW, "{count} of {claimed}");
    }
}
