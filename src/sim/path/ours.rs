//! A flow of our transport: the client engine and a server, as they ship.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Ends, MTU};
use crate::sim::machines::ring;
use crate::sim::object::{Object, Objects};
use crate::time::{Instant, Now};
use crate::transport::client::{Client, ClientConfig, ClientStats};
use crate::transport::server::{Server, ServerConfig};
use crate::wire::flight::{Flight, UdpPath};
use crate::wire::ip::parse_udp;

/// Reassembly buffer of the client in bytes: larger than every bandwidth-delay product, so that the
/// reader never limits a flow.
const BUFFER: usize = 256 << 20;

/// Longer than any path runs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(100_000);

pub(super) struct Ours {
    client: Client,
    config: ClientConfig,
    server: Server,
    object: Object,
    answers: VecDeque<Flight>,
    begun: bool,
    received: u64,
    seed: u64,
}

impl Ours {
    pub(super) fn new(path: UdpPath, length: u64, seed: u64) -> Self {
        let config = ClientConfig {
            local: path.src,
            remote: path.dst,
            mtu: MTU,
            buffer: BUFFER,
            idle_timeout: IDLE_TIMEOUT,
            token: None,
        };
        let server = ServerConfig {
            server_id: 1,
            site_id: 1,
            mtu: MTU,
        };
        Self {
            client: Client::new(config.clone(), seed),
            config,
            server: Server::new(server, ring(seed, 0)),
            object: Object { seed, length },
            answers: VecDeque::new(),
            begun: false,
            received: 0,
            seed,
        }
    }

    /// Fetches an object without a network, long enough to prove the address, and keeps the token.
    pub(super) fn with_token(mut self, now: Now) -> Self {
        let first = Object {
            length: 10_000,
            ..self.object
        };
        self.client.request(now, &first.request());
        while let Some(request) = self.client.poll_transmit(now) {
            self.answer(now, request.path, &request.payload.to_vec());
            for flight in core::mem::take(&mut self.answers) {
                for datagram in flight.datagrams() {
                    self.client
                        .handle_datagram(now, flight.path, flight.ecn, &datagram);
                }
            }
        }
        self.config.token = self.client.address_token().map(|(token, _)| token);
        self.client = Client::new(self.config.clone(), self.seed);
        self
    }

    fn answer(&mut self, now: Now, path: UdpPath, datagram: &[u8]) {
        let answer = self.server.respond(now, path, datagram, &mut Objects);
        self.answers.extend(answer);
    }

    fn read(&mut self, now: Now) {
        let mut buffer = [0; 65_536];
        loop {
            let count = self.client.read(now, &mut buffer);
            if count == 0 {
                break;
            }
            self.received += u64::try_from(count).unwrap_or(0);
        }
        while self.client.poll_event().is_some() {}
    }
}

impl Ends for Ours {
    fn at_client(&mut self, now: Now, packet: &[u8]) {
        if let Ok(Some(datagram)) = parse_udp(packet) {
            self.client
                .handle_datagram(now, datagram.path, datagram.ecn, datagram.payload);
            self.read(now);
        }
    }

    fn at_server(&mut self, now: Now, packet: &[u8]) {
        if let Ok(Some(datagram)) = parse_udp(packet) {
            self.answer(now, datagram.path, datagram.payload);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        if self.begun {
            self.client.handle_timeout(now);
        } else {
            self.begun = true;
            self.client.request(now, &self.object.request());
        }
    }

    fn next_of_client(&mut self, now: Now) -> Option<Flight> {
        self.client.poll_transmit(now)
    }

    fn next_of_server(&mut self, _now: Now) -> Option<Flight> {
        self.answers.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.client.poll_timeout().map(|(at, _)| at)
    }

    fn received(&self) -> u64 {
        self.received
    }

    fn stats(&self) -> Option<ClientStats> {
        Some(self.client.stats())
    }

    fn refused(&self) -> u64 {
        let drops = self.server.counters().drops();
        drops.iter().map(|(_, count)| count).sum()
    }
}
