//! The backend's side: decapsulates packets, and answers heartbeats.
//!
//! In: UDP payloads to the backend's own address. Out: the inner packet, or a reply. Forged,
//! replayed and unknown payloads are dropped and counted. A payload of an older configuration is
//! accepted, since any backend can answer it, and counted.
//! Keeps a replay window per redirector and nothing per client.

use etherparse::IpNumber;

use super::capsule::{self, CapsuleError, CapsuleHeader, CapsuleKind, MacKeys, Reply};
use super::counters::ByLabel;
use super::meter::Meter;
use super::service::Work;
use super::window::Window;
use super::{BackendId, Generation, RedirectorId};
use crate::time::Instant;

/// Most redirectors of a backend.
pub const MAX_REDIRECTORS: usize = 16;

/// The configuration of a backend.
#[derive(Clone, Debug)]
pub struct BackendConfig {
    /// Its number in the redirectors' file.
    pub id: BackendId,
    /// Redirectors to accept, at most [`MAX_REDIRECTORS`].
    pub redirectors: Vec<RedirectorId>,
    /// The keys shared with them.
    pub keys: MacKeys,
}

/// The counters of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendCounters {
    /// Packets decapsulated.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Heartbeats answered.
    pub queries: u64,
    /// Both kinds from an older configuration than another redirector's.
    pub stale: u64,
    /// Payloads dropped, by reason.
    pub refused: ByLabel,
}

/// The outcome of an accepted payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken<'a> {
    /// A client's packet.
    Packet(&'a [u8]),
    /// A heartbeat; the reply in the buffer goes to the source of the query.
    Reply,
}

/// The backend's side.
#[derive(Debug)]
pub struct Backend {
    id: BackendId,
    keys: MacKeys,
    peers: Vec<Peer>,
    newest: Generation,
    draining: bool,
    meter: Meter,
    /// Packets of the transport, from anywhere.
    arrived: u32,
    /// Answers to them.
    answered: u32,
    counters: BackendCounters,
}

/// A redirector, as its backend knows it.
#[derive(Debug)]
struct Peer {
    id: RedirectorId,
    window: Window,
    /// Packets of the transport that it sent; wraps around.
    received: u32,
}

impl Backend {
    /// Creates a backend that has seen nothing.
    #[must_use]
    pub fn new(config: BackendConfig) -> Self {
        let known = config.redirectors.into_iter().take(MAX_REDIRECTORS);
        Self {
            id: config.id,
            keys: config.keys,
            peers: known.map(Peer::new).collect(),
            newest: Generation::default(),
            draining: false,
            meter: Meter::default(),
            arrived: 0,
            answered: 0,
            counters: BackendCounters::default(),
        }
    }

    /// Announces to redirectors that this backend drains, or no longer does; it answers every
    /// packet in either case.
    pub const fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// The counters since the start.
    #[must_use]
    pub const fn counters(&self) -> &BackendCounters {
        &self.counters
    }

    /// The newest generation seen of any redirector.
    #[must_use]
    pub const fn newest(&self) -> Generation {
        self.newest
    }

    /// Meters a packet, however delivered, as load.
    pub fn meter(&mut self, now: Instant) {
        self.meter.count(now, 1);
    }

    /// Counts a packet of the transport, however delivered, and whether it was answered: a request to
    /// wait is no answer.
    pub const fn count_packet(&mut self, answered: bool) {
        self.arrived = self.arrived.wrapping_add(1);
        self.answered = self.answered.wrapping_add(answered as u32);
    }

    /// Counts the answer to a packet that has waited.
    pub const fn count_answer(&mut self) {
        self.answered = self.answered.wrapping_add(1);
    }

    /// Handles a payload; `None` if it is dropped. A reply is written to `reply`.
    pub fn handle<'a>(
        &mut self,
        now: Instant,
        payload: &'a [u8],
        reply: &mut Vec<u8>,
    ) -> Option<Taken<'a>> {
        match self.admit(payload) {
            Ok((header, packet)) if header.kind == CapsuleKind::Packet => {
                self.counters.packets += 1;
                self.counters.bytes += packet.len() as u64;
                Some(Taken::Packet(packet))
            }
            Ok((header, _)) => {
                self.counters.queries += 1;
                self.reply(now, header, reply);
                Some(Taken::Reply)
            }
            Err(refused) => {
                self.counters.refused.count(refused.label());
                None
            }
        }
    }

    fn admit<'a>(&mut self, payload: &'a [u8]) -> Result<(CapsuleHeader, &'a [u8]), CapsuleError> {
        let (header, body) = self.keys.open(payload)?;
        // A reply is never larger than its query.
        match header.kind {
            CapsuleKind::Packet => {}
            CapsuleKind::Query if body.len() >= capsule::BEAT_BYTES => {}
            CapsuleKind::Query => return Err(CapsuleError::Truncated),
            CapsuleKind::Reply => return Err(CapsuleError::UnknownKind),
        }
        if header.backend != self.id {
            return Err(CapsuleError::Misdirected);
        }
        let peer = self
            .peers
            .iter_mut()
            .find(|peer| peer.id == header.redirector)
            .ok_or(CapsuleError::UnknownRedirector)?;
        if !peer.window.admit(header.sequence) {
            return Err(CapsuleError::Replayed);
        }
        if header.kind == CapsuleKind::Packet && is_udp(body) {
            peer.received = peer.received.wrapping_add(1);
        }
        if header.generation < self.newest {
            self.counters.stale += 1;
        }
        self.newest = self.newest.max(header.generation);
        Ok((header, body))
    }

    fn reply(&mut self, now: Instant, query: CapsuleHeader, out: &mut Vec<u8>) {
        let header = CapsuleHeader {
            kind: CapsuleKind::Reply,
            generation: self.newest,
            ..query
        };
        let peer = self.peers.iter().find(|peer| peer.id == query.redirector);
        let body = Reply {
            draining: self.draining,
            load: self.meter.rate(now),
            work: Work {
                received: peer.map_or(0, |peer| peer.received),
                arrived: self.arrived,
                answered: self.answered,
            },
        };
        out.clear();
        self.keys.seal(&header, &body.to_bytes(), out);
    }
}

impl Peer {
    fn new(id: RedirectorId) -> Self {
        Self {
            id,
            window: Window::default(),
            received: 0,
        }
    }
}

/// Whether an IP packet carries UDP: redirectors forward no other UDP than the transport's.
fn is_udp(packet: &[u8]) -> bool {
    let at = match packet.first().map(|first| first >> 4) {
        Some(4) => 9,
        _ => 6,
    };
    packet.get(at) == Some(&IpNumber::UDP.0)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    const BODY: &[u8] = b"twenty bytes or more";

    fn keys() -> MacKeys {
        MacKeys::new((1, [1; 16]), &[])
    }

    fn backend(redirectors: impl IntoIterator<Item = u16>) -> Backend {
        Backend::new(BackendConfig {
            id: BackendId(3),
            redirectors: redirectors.into_iter().map(RedirectorId).collect(),
            keys: keys(),
        })
    }

    fn sealed(
        kind: CapsuleKind,
        redirector: u16,
        backend: u16,
        generation: u32,
        sequence: u64,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let header = CapsuleHeader::sample(kind, redirector, backend, generation, sequence);
        keys().seal(&header, BODY, &mut out);
        out
    }

    #[test]
    fn what_is_not_to_be_taken_is_told_apart() {
        use CapsuleKind::{Packet, Query, Reply};
        let short = {
            let header = capsule::peek(&sealed(Query, 1, 3, 1, 9)).unwrap();
            let mut out = Vec::new();
            keys().seal(&header, b"1234", &mut out);
            out
        };
        let cases = [
            (sealed(Packet, 1, 3, 1, 1), None),
            (sealed(Packet, 1, 3, 1, 1), Some("replayed")),
            (sealed(Packet, 2, 3, 1, 1), None),
            (sealed(Query, 1, 3, 1, 2), None),
            (sealed(Query, 1, 3, 1, 2), Some("replayed")),
            (sealed(Packet, 9, 3, 1, 1), Some("unknown_redirector")),
            (sealed(Packet, 1, 4, 1, 3), Some("misdirected")),
            (sealed(Reply, 1, 3, 1, 4), Some("unknown_kind")),
            (short, Some("truncated")),
            (vec![0; 60], Some("unknown_kind")),
            (Vec::new(), Some("truncated")),
        ];
        let mut backend = backend([1, 2]);
        for (index, (payload, refused)) in cases.iter().enumerate() {
            let before = backend.counters.clone();
            let taken = backend.handle(Instant::ZERO, payload, &mut Vec::new());
            assert_eq!(taken.is_none(), refused.is_some(), "{index}");
            if let Some(label) = refused {
                let grown = backend.counters.refused.of(label);
                assert_eq!(grown, before.refused.of(label) + 1, "{index}");
            }
        }
    }

    #[test]
    fn redirectors_are_bounded() {
        let most = u16::try_from(MAX_REDIRECTORS).unwrap();
        let mut backend = backend(1..=most + 1);
        let mut taken = |from| {
            let payload = sealed(CapsuleKind::Packet, from, 3, 1, 1);
            backend
                .handle(Instant::ZERO, &payload, &mut Vec::new())
                .is_some()
        };
        assert!(taken(most));
        assert!(!taken(most + 1));
    }

    #[test]
    fn an_older_configuration_is_served_and_noticed() {
        let mut backend = backend([1, 2]);
        let mut reply = Vec::new();
        for (redirector, generation, stale) in [(1, 5, 0), (2, 4, 1), (1, 6, 1), (2, 6, 1)] {
            let payload = sealed(
                CapsuleKind::Packet,
                redirector,
                3,
                generation,
                u64::from(generation),
            );
            let taken = backend.handle(Instant::ZERO, &payload, &mut reply);
            assert_eq!(taken, Some(Taken::Packet(BODY)));
            assert_eq!(backend.counters.stale, stale);
        }
        let query = sealed(CapsuleKind::Query, 2, 3, 1, 90);
        backend.handle(Instant::ZERO, &query, &mut reply);
        assert_eq!(keys().open(&reply).unwrap().0.generation, Generation(6));
    }

    #[test]
    fn a_reply_tells_load_and_drain() {
        let mut backend = backend([1]);
        for millis in 0..1000 {
            backend.meter(Instant::from_micros(millis * 1000));
        }
        backend.set_draining(true);
        let (mut reply, query) = (Vec::new(), sealed(CapsuleKind::Query, 1, 3, 1, 77));
        let now = Instant::from_micros(1_000_000);
        assert_eq!(backend.handle(now, &query, &mut reply), Some(Taken::Reply));
        assert!(reply.len() <= query.len());
        let (header, body) = keys().open(&reply).unwrap();
        assert_eq!((header.kind, header.sequence), (CapsuleKind::Reply, 77));
        let told = Reply::parse(body).unwrap();
        assert_eq!((told.draining, told.load), (true, 1000));
        let idle = now + Duration::from_secs(1);
        backend.handle(idle, &sealed(CapsuleKind::Query, 1, 3, 1, 78), &mut reply);
        let told = Reply::parse(keys().open(&reply).unwrap().1).unwrap();
        assert!(told.load < 10, "{}", told.load);
    }
}
