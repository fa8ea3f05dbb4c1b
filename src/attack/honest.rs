//! The honest downloader: the client engine as it ships.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::path::{Downloader, MTU, Sent};
use crate::time::{Instant, Now};
use crate::transport::client::{Client, ClientConfig};
use crate::wire::flight::{Flight, UdpPath};

/// Larger than every window of the laboratory.
const BUFFER: usize = 64 << 20;

/// Longer than any run.
const IDLE_TIMEOUT: Duration = Duration::from_secs(100_000);

/// The addresses of a downloader, of which it has several, and of the service.
#[must_use]
pub const fn addresses(own: u8) -> UdpPath {
    UdpPath {
        src: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, own)), 40_000),
        dst: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)), 7600),
    }
}

/// A download by the client engine.
pub struct Honest {
    client: Client,
}

impl Honest {
    /// Creates the client and requests the object.
    #[must_use]
    pub fn new(now: Now, seed: u64) -> Self {
        let UdpPath { src, dst } = addresses(1);
        let config = ClientConfig {
            local: src,
            remote: dst,
            mtu: MTU,
            buffer: BUFFER,
            idle_timeout: IDLE_TIMEOUT,
            token: None,
        };
        let mut client = Client::new(config, seed);
        client.request(now, b"endless");
        Self { client }
    }
}

impl Downloader for Honest {
    fn receive(&mut self, now: Now, flight: &Flight, arrived: &[bool]) {
        let datagrams: Vec<_> = flight
            .datagrams()
            .zip(arrived)
            .filter_map(|(datagram, &arrived)| arrived.then_some(datagram))
            .collect();
        let datagrams = datagrams.iter().map(|datagram| &**datagram);
        self.client
            .handle_datagrams(now, flight.path, flight.ecn, datagrams);
        let mut bytes = [0; 65_536];
        while self.client.read(now, &mut bytes) > 0 {}
        while self.client.poll_event().is_some() {}
    }

    fn handle_timeout(&mut self, now: Now) {
        self.client.handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Sent> {
        let flight = self.client.poll_transmit(now)?;
        Some(Sent { flight, copies: 1 })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.client.poll_timeout().map(|(at, _)| at)
    }
}
