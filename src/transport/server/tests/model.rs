//! A client for the tests of the server: holds every proof value received, and builds any request,
//! honest or not. Has no timers and no policy.

use std::collections::BTreeMap;

use crate::time::{Instant, Now, UnixMillis};
use crate::transport::application::{
    Application, Begun, RequestContext, StreamPart, Ticket, Unavailable,
};
use crate::transport::continuation::{Continuation, MAX_AGE};
use crate::transport::epoch::{Declaration, Epoch, Transition, TransitionKind};
use crate::transport::keys::KeyRing;
use crate::transport::server::{Server, ServerConfig};
use crate::wire::flight::{Flight, UdpPath};
use crate::wire::segment::{Declared, OPEN_BYTES, Open, Request, Span, ToClient, Token, Wanted};

pub(super) const RTT_US: u32 = 40_000;
const START_UNIX: u64 = 1_800_000_000_000;

/// `ms` milliseconds after the start of the test.
pub(super) fn at(ms: u64) -> Now {
    Now {
        instant: Instant::from_micros((ms + 5_000) * 1000),
        unix: UnixMillis::new(START_UNIX + ms),
    }
}

pub(super) fn keys() -> KeyRing {
    KeyRing::with_secret([1; 32])
}

pub(super) fn server(id: u16) -> Server {
    server_with(id, 1500)
}

pub(super) fn server_with(id: u16, mtu: u16) -> Server {
    let config = ServerConfig {
        server_id: id,
        site_id: 7,
        mtu,
    };
    Server::new(config, keys())
}

pub(super) fn path() -> UdpPath {
    path_from("192.0.2.1:4000")
}

pub(super) fn path_from(client: &str) -> UdpPath {
    let src: std::net::SocketAddr = client.parse().unwrap();
    let service = if src.is_ipv6() {
        "[2001:db8::2]:7600"
    } else {
        "192.0.2.2:7600"
    };
    UdpPath {
        src,
        dst: service.parse().unwrap(),
    }
}

pub(super) fn byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Streams of deterministic bytes. The request is their length in decimal, or `not ready`, or
/// `refuse`.
pub(super) struct Bytes {
    /// Length of the user continuations.
    pub(super) user: usize,
    /// The error of `read`.
    pub(super) refuses: Option<Unavailable>,
}

pub(super) const fn bytes() -> Bytes {
    Bytes {
        user: 60,
        refuses: None,
    }
}

impl Bytes {
    /// The same application, which refuses every call for this reason.
    pub(super) const fn refusing(self, why: Unavailable) -> Self {
        Self {
            refuses: Some(why),
            ..self
        }
    }
}

impl Application for Bytes {
    fn begin(&mut self, _: RequestContext, request: &[u8]) -> Result<Begun, Unavailable> {
        if request == b"not ready" {
            return Err(Unavailable::NotReady(Ticket(1)));
        }
        if request == b"refuse" {
            return Err(Unavailable::Changed);
        }
        // Noise may look like a request.
        let length = std::str::from_utf8(request)
            .ok()
            .and_then(|text| text.parse().ok());
        Ok(Begun {
            user: vec![7; self.user],
            length: Some(length.unwrap_or(0)),
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let StreamPart { offset, .. } = part;
        for (index, to) in out.iter_mut().enumerate() {
            *to = byte(offset + index as u64);
        }
        self.refuses.map_or(Ok(out.len()), Err)
    }
}

/// A response, parsed for the tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) connection: u64,
    pub(super) number: u64,
    pub(super) void: u64,
    pub(super) x: u64,
    pub(super) changed: bool,
    pub(super) continuation: Vec<u8>,
    /// The user continuation and the length of the stream.
    pub(super) user: Option<(Vec<u8>, u64)>,
    pub(super) spans: Vec<Span>,
    /// Length of the datagram.
    pub(super) length: usize,
}

impl Packet {
    fn read(datagram: &[u8]) -> Self {
        let ToClient::Response(response) = ToClient::parse(datagram).unwrap() else {
            panic!("not a response");
        };
        let header = response.header;
        let spans = response.chunks().map(|(start, bytes)| {
            let end = start + bytes.len() as u64;
            assert!(
                (start..end).map(byte).eq(bytes.iter().copied()),
                "bytes from {start}"
            );
            Span { start, end }
        });
        Self {
            connection: header.connection,
            number: header.number.into(),
            void: header.void.into(),
            x: header.x,
            changed: header.changed,
            continuation: response.continuation.to_vec(),
            user: response
                .user
                .map(|user| (user.sealed.to_vec(), user.length.unwrap())),
            spans: spans.collect(),
            length: datagram.len(),
        }
    }
}

/// Passes a datagram to a server; returns the flight, or the reason counted.
pub(super) fn send(
    server: &mut Server,
    now: Now,
    path: UdpPath,
    datagram: &[u8],
    app: &mut Bytes,
) -> Result<Flight, &'static str> {
    let before = server.counters().clone();
    match server.respond(now, path, datagram, app) {
        Some(flight) => {
            assert_eq!(
                before.drops(),
                server.counters().drops(),
                "answered and dropped"
            );
            assert_eq!(flight.path, path.reversed());
            let sent = server.counters().packets - before.packets;
            assert_eq!(sent, flight.count() as u64);
            assert!(sent > 0, "an answer without a datagram");
            Ok(flight)
        }
        None => {
            let count = |label: &str| {
                before
                    .drops()
                    .iter()
                    .find(|(known, _)| *known == label)
                    .map_or(0, |(_, n)| *n)
            };
            let mut grown = server
                .counters()
                .drops()
                .iter()
                .filter(|(label, n)| *n == count(label) + 1);
            let (label, _) = grown.next().expect("silence is counted");
            assert!(grown.next().is_none(), "one reason");
            Err(label)
        }
    }
}

/// Parses the numbered responses of a flight.
pub(super) fn packets(flight: &Flight) -> Vec<Packet> {
    flight
        .datagrams()
        .map(|datagram| Packet::read(&datagram))
        .collect()
}

pub(super) fn to_bytes(request: &Request<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    request.emit(&mut out);
    out
}

/// Builds an OPEN that requests a stream of `length` bytes.
pub(super) fn open_bytes(length: &str, size: u16, token: Option<(u64, &[u8])>) -> Vec<u8> {
    let token = token.map(|(connection, sealed)| Token { connection, sealed });
    let wanted = Wanted::New(length.as_bytes());
    let mut out = Vec::new();
    Open {
        echo: 5,
        size,
        stream: 3,
        token,
        wanted,
        offset: 0,
    }
    .emit(&mut out);
    assert_eq!(out.len(), OPEN_BYTES);
    out
}

/// A client's view of its connection.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) connection: u64,
    pub(super) path: UdpPath,
    pub(super) size: u16,
    /// The sealed user continuation.
    pub(super) user: Vec<u8>,
    /// The present continuation, and its epoch.
    pub(super) continuation: Vec<u8>,
    pub(super) epoch: Epoch,
    /// The number behind which its proofs begin.
    pub(super) proof_base: u64,
    /// Proof values by number.
    pub(super) x: BTreeMap<u64, u64>,
}

impl Peer {
    /// Opens a connection for an endless stream; its address is not proven yet.
    pub(super) fn open(server: &mut Server, now: Now, path: UdpPath) -> Self {
        let size = if path.src.is_ipv6() { 1452 } else { 1472 };
        Self::open_with(server, now, path, size)
    }

    /// The same with datagrams of `size`.
    pub(super) fn open_with(server: &mut Server, now: Now, path: UdpPath, size: u16) -> Self {
        let datagram = open_bytes("140737488355328", size, None);
        let flight = send(server, now, path, &datagram, &mut bytes()).unwrap();
        let answer = packets(&flight);
        let first = &answer[0];
        let mut peer = Self {
            connection: first.connection,
            path,
            size,
            user: first.user.clone().unwrap().0,
            continuation: first.continuation.clone(),
            epoch: Epoch::opening(answer.len() as u32),
            proof_base: 0,
            x: BTreeMap::new(),
        };
        peer.learn(&answer);
        peer
    }

    /// Opens a connection and proves its address: the epoch after `Opened` has begun, and the numbers
    /// released by its zone have arrived.
    pub(super) fn opened(server: &mut Server, now: Now, path: UdpPath) -> Self {
        let peer = Self::open(server, now, path);
        peer.proven(server, now)
    }

    /// Proves the address of a connection that was opened.
    pub(super) fn proven(self, server: &mut Server, now: Now) -> Self {
        let mut peer = self;
        let opened = peer.transition(TransitionKind::Opened, 0);
        let answer = peer
            .ask(server, now, &peer.declaring(&opened, 0, opened.r))
            .unwrap();
        peer.go_over(&opened, &answer);
        peer
    }

    /// Moves to the epoch after `transition` with a continuation from `answer`.
    pub(super) fn go_over(&mut self, transition: &Transition, answer: &[Packet]) {
        self.continuation.clone_from(&answer[0].continuation);
        assert!(!self.continuation.is_empty());
        self.epoch = transition.next;
        self.proof_base = transition.proof_base();
        self.learn(answer);
    }

    pub(super) fn learn(&mut self, answer: &[Packet]) {
        for packet in answer {
            assert_eq!(packet.void, 0, "a stretch has no proof values of its own");
            self.x.insert(packet.number, packet.x);
        }
    }

    /// The proof of a request without a declaration up to `reach`, except the holes.
    pub(super) fn proof(&self, reach: u64, holes: &[Span]) -> u64 {
        self.proof_from(self.proof_base, reach, holes)
    }

    /// The number behind which the proof of an event begins.
    pub(super) const fn proof_base_at(&self, kind: TransitionKind) -> u64 {
        match kind.forgives() {
            true => self.epoch.base,
            false => self.proof_base,
        }
    }

    /// The proof over the numbers in `(base, reach]`, except the holes.
    pub(super) fn proof_from(&self, base: u64, reach: u64, holes: &[Span]) -> u64 {
        let inside = |n: u64| holes.iter().any(|hole| (hole.start..hole.end).contains(&n));
        let proven = self.x.range(base + 1..reach.max(base) + 1);
        proven
            .filter(|(n, _)| !inside(**n))
            .fold(0, |proof, (_, x)| proof ^ x)
    }

    /// Acknowledges `(after, upto]` in the epoch and requests unlimited bytes.
    pub(super) fn acknowledging(&self, after: u64, upto: u64) -> Request<'_> {
        Request {
            continuation: &self.continuation,
            after,
            upto,
            reach: upto,
            proof: self.proof(upto, &[]),
            ranges: vec![Span {
                start: 100,
                end: 1 << 40,
            }],
            wanted: Wanted::Of(&self.user),
            ..Request::empty(self.connection, self.size, 3)
        }
    }

    /// The transition of an event at `p`.
    pub(super) fn transition(&self, kind: TransitionKind, p: u64) -> Transition {
        self.epoch
            .transition(Declaration {
                kind,
                p,
                rtt_us: RTT_US,
            })
            .unwrap()
    }

    /// Acknowledges `(after, upto]` of the numbers closed by an event; requests a continuation.
    pub(super) fn declaring(&self, event: &Transition, after: u64, upto: u64) -> Request<'_> {
        let reach = match event.kind {
            TransitionKind::Timeout | TransitionKind::Move => event.p,
            TransitionKind::Opened
            | TransitionKind::Loss
            | TransitionKind::Ce
            | TransitionKind::Exit
            | TransitionKind::Restart => upto,
        };
        Request {
            declared: Some(Declared {
                kind: event.kind.code(),
                edge: event.p,
                rtt_us: RTT_US,
            }),
            wants_continuation: true,
            proof: self.proof_from(self.proof_base_at(event.kind), reach, &[]),
            ..self.acknowledging(after, upto)
        }
    }

    /// A probe at `edge`.
    pub(super) fn probing(&self, edge: u64) -> Request<'_> {
        Request {
            probe: Some(77),
            ranges: Vec::new(),
            wanted: Wanted::Of(&[]),
            ..self.acknowledging(edge, edge)
        }
    }

    /// Sends a request from the client's address.
    pub(super) fn ask(
        &self,
        server: &mut Server,
        now: Now,
        request: &Request<'_>,
    ) -> Result<Vec<Packet>, &'static str> {
        let flight = send(server, now, self.path, &to_bytes(request), &mut bytes())?;
        Ok(packets(&flight))
    }

    /// Opens the present continuation, as only a server can.
    pub(super) fn look_inside(&self, keys: &KeyRing, now: Now) -> Continuation {
        Continuation::open(keys, self.connection, now.unix, MAX_AGE, &self.continuation)
            .unwrap()
            .0
    }
}
