//! The bare exchange: the packets of a bulk transfer without any protocol, as an upper bound for our
//! transport on the same devices.
//!
//! In: IP packets and time. Out: IP packets and flights. A client keeps a window of requested flights;
//! the server answers each small request with a full flight of [`MAX_FLIGHT`] datagrams, with headers
//! of our size and bytes of an object, and the client copies received bytes once more, as for a
//! reader. Nothing is authenticated, acknowledged, paced or retransmitted; a client that receives
//! nothing repeats its requests. For testbeds only: the server amplifies requests from any address.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::host::server::MAX_FLIGHTS;
use crate::host::{Machine, Transmit};
use crate::stack::{Demuxed, Stack, StackConfig, StackError};
use crate::time::{Instant, Now};
use crate::transport::curve::MAX_FLIGHT;
use crate::wire::flight::{Ecn, Flight, UdpPath};
use crate::wire::ip::{UDP4_HEADERS, UDP6_HEADERS, UdpView};
use crate::wire::payload::{Gathered, Pool};
use crate::wire::segment::DATA_HEADER_BYTES;

/// Bytes of a request: about one of our transport with an acknowledgement.
pub const REQUEST_BYTES: usize = 180;

/// Bytes of the object, sent repeatedly: fits into a processor cache.
const OBJECT_BYTES: usize = 1 << 20;

/// Time without an answer after which outstanding requests count as lost.
const SILENCE: Duration = Duration::from_millis(200);

/// Answers every request with a flight.
pub struct BareServer {
    stack: Stack,
    segment: usize,
    object: Vec<u8>,
    at: usize,
    gathered: Gathered,
    pool: Pool,
    flights: VecDeque<Flight>,
}

impl BareServer {
    /// Creates a server on the first of `settings`' ports; its datagrams fill the MTU.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn new(now: Now, settings: StackConfig) -> Result<Self, StackError> {
        let v6 = settings.addresses.iter().any(std::net::IpAddr::is_ipv6);
        let headers = if v6 { UDP6_HEADERS } else { UDP4_HEADERS };
        Ok(Self {
            segment: usize::from(settings.mtu).saturating_sub(headers),
            stack: Stack::new(now.instant, settings)?,
            object: (0..=u8::MAX).cycle().take(OBJECT_BYTES).collect(),
            at: 0,
            gathered: Gathered::default(),
            pool: Pool::default(),
            flights: VecDeque::new(),
        })
    }

    /// Builds a full flight: copies its body out of the object, between the headers.
    fn answer(&mut self, path: UdpPath) -> Flight {
        let body = self.segment.saturating_sub(DATA_HEADER_BYTES);
        let (count, length) = (MAX_FLIGHT as usize, MAX_FLIGHT as usize * body);
        self.gathered.clear();
        if self.at + length > self.object.len() {
            self.at = 0;
        }
        let bytes = self.object.get(self.at..self.at + length);
        self.gathered
            .room(length)
            .copy_from_slice(bytes.unwrap_or_default());
        self.at += length;
        for index in 0..count {
            let heads = self.gathered.heads();
            heads.resize(heads.len() + DATA_HEADER_BYTES, 0);
            self.gathered.refer(index * body, body);
        }
        Flight {
            path: path.reversed(),
            ecn: Ecn::NotEct,
            segment: self.segment,
            payload: self.pool.lend(&mut self.gathered),
        }
    }
}

impl Machine for BareServer {
    fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>) {
        if let Demuxed::Transport(view) = self.stack.handle_packet(now.instant, packet, segment) {
            let asked = view.datagrams(segment);
            let asked = asked.filter(|datagram| datagram.len() == REQUEST_BYTES);
            for _ in 0..asked.count().min(MAX_FLIGHTS - self.flights.len()) {
                let flight = self.answer(view.path);
                self.flights.push_back(flight);
            }
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.stack.handle_timeout(now.instant);
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        let flight = self.flights.pop_front().map(Transmit::Flight);
        flight.or_else(|| self.stack.poll_transmit(now.instant).map(Transmit::from))
    }

    fn poll_timeout(&mut self, now: Now) -> Option<(Instant, &'static str)> {
        self.stack.poll_timeout(now.instant)
    }
}

/// Requests a number of bytes.
pub struct BareClient {
    stack: Stack,
    path: UdpPath,
    window: u32,
    wanted: u64,
    /// Requests to send now.
    due: u32,
    /// Datagrams received of the present flight.
    arrived: u32,
    received: u64,
    began: Instant,
    heard: Instant,
    /// Buffer for the reader's bytes.
    sink: Vec<u8>,
    at: usize,
}

impl BareClient {
    /// Creates a client that keeps `window` flights in flight until `wanted` bytes have arrived.
    ///
    /// # Errors
    /// [`StackError`].
    pub fn new(
        now: Now,
        settings: StackConfig,
        path: UdpPath,
        window: u32,
        wanted: u64,
    ) -> Result<Self, StackError> {
        Ok(Self {
            stack: Stack::new(now.instant, settings)?,
            path,
            window,
            wanted,
            due: window,
            arrived: 0,
            received: 0,
            began: now.instant,
            heard: now.instant,
            sink: vec![0; OBJECT_BYTES],
            at: 0,
        })
    }

    /// Whether all bytes have arrived.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.received >= self.wanted
    }

    /// The bytes received, and the time from the start to the last of them.
    #[must_use]
    pub fn received(&self) -> (u64, Duration) {
        (self.received, self.heard.saturating_since(self.began))
    }

    fn take(&mut self, now: Now, view: UdpView<'_>, segment: Option<usize>) {
        for datagram in view.datagrams(segment) {
            let body = datagram.get(DATA_HEADER_BYTES..).unwrap_or_default();
            if self.at + body.len() > self.sink.len() {
                self.at = 0;
            }
            if let Some(room) = self.sink.get_mut(self.at..self.at + body.len()) {
                room.copy_from_slice(body);
            }
            self.at += body.len();
            self.received += body.len() as u64;
            self.arrived += 1;
        }
        self.heard = now.instant;
        while self.arrived >= MAX_FLIGHT {
            self.arrived -= MAX_FLIGHT;
            self.due += 1;
        }
    }
}

impl Machine for BareClient {
    fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>) {
        match self.stack.handle_packet(now.instant, packet, segment) {
            Demuxed::Transport(view) if view.path.src == self.path.dst && !self.is_done() => {
                self.take(now, view, segment);
            }
            Demuxed::Transport(_) | Demuxed::Taken | Demuxed::Dropped(_) => {}
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.stack.handle_timeout(now.instant);
        if now.instant >= self.heard + SILENCE && !self.is_done() {
            (self.due, self.arrived, self.heard) = (self.window, 0, now.instant);
        }
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        if self.due > 0 && !self.is_done() {
            self.due -= 1;
            let request = vec![0; REQUEST_BYTES];
            let flight = Flight::single(self.path, Ecn::NotEct, request);
            return Some(Transmit::Flight(flight));
        }
        self.stack.poll_transmit(now.instant).map(Transmit::from)
    }

    fn poll_timeout(&mut self, now: Now) -> Option<(Instant, &'static str)> {
        let silence = (self.heard + SILENCE, "silence");
        let silence = Some(silence).filter(|_| !self.is_done());
        let stack = self.stack.poll_timeout(now.instant);
        [silence, stack].into_iter().flatten().min()
    }
}

/// Returns the configuration of a stack with this transport port.
#[must_use]
pub fn settings(local: SocketAddr, mtu: u16) -> StackConfig {
    StackConfig {
        addresses: vec![local.ip()],
        mtu,
        transport_ports: local.port()..=local.port(),
        seed: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixMillis;
    use crate::wire::ip::UdpTemplate;

    const NOW: Now = Now {
        instant: Instant::from_micros(1),
        unix: UnixMillis::new(1_800_000_000_000),
    };

    fn ends(window: u32, wanted: u64) -> (BareClient, BareServer) {
        let path = UdpPath {
            src: "10.0.0.1:9000".parse().unwrap(),
            dst: "10.0.0.2:7601".parse().unwrap(),
        };
        let client = BareClient::new(NOW, settings(path.src, 1500), path, window, wanted);
        let server = BareServer::new(NOW, settings(path.dst, 1500));
        (client.unwrap(), server.unwrap())
    }

    /// Moves all pending packets, one at a time, except those that `lost` picks.
    fn pass(from: &mut dyn Machine, to: &mut dyn Machine, lost: &mut dyn FnMut() -> bool) -> usize {
        let mut count = 0;
        while let Some(transmit) = from.poll_transmit(NOW) {
            let Transmit::Flight(flight) = transmit else {
                continue;
            };
            let template = UdpTemplate::new(flight.path, flight.ecn).unwrap();
            for datagram in flight.datagrams() {
                count += 1;
                if !lost() {
                    to.handle_packet(NOW, &template.packet(&datagram).unwrap(), None);
                }
            }
        }
        count
    }

    #[test]
    fn a_window_of_flights_is_kept_under_way() {
        let (mut client, mut server) = ends(3, 1_000_000);
        let mut asked = 0;
        while !client.is_done() {
            let requests = pass(&mut client, &mut server, &mut || false);
            assert_eq!(requests, 3);
            asked += requests;
            assert_eq!(pass(&mut server, &mut client, &mut || false), 3 * 44);
        }
        let each = 44 * (1472 - DATA_HEADER_BYTES) as u64;
        assert!(client.received().0 >= 1_000_000 && asked as u64 <= 3 + 1_000_000 / each + 3);
        assert_eq!(pass(&mut client, &mut server, &mut || false), 0);
    }

    #[test]
    fn silence_is_broken() {
        let (mut client, mut server) = ends(2, 100_000);
        pass(&mut client, &mut server, &mut || true);
        assert_eq!(pass(&mut client, &mut server, &mut || false), 0);
        let (at, _) = client.poll_timeout(NOW).unwrap();
        client.handle_timeout(Now { instant: at, ..NOW });
        assert_eq!(pass(&mut client, &mut server, &mut || false), 2);
    }

    #[test]
    fn so_many_flights_wait_and_no_more() {
        let (mut client, mut server) = ends(MAX_FLIGHTS as u32 + 1, u64::MAX);
        assert_eq!(
            pass(&mut client, &mut server, &mut || false),
            MAX_FLIGHTS + 1
        );
        assert_eq!(server.flights.len(), MAX_FLIGHTS);
    }
}
