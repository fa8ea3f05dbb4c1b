//! Mutated packets: input from a broken or hostile sender, made of valid requests.
//!
//! In: a corpus of valid requests and a seeded random source. Out: packets, and counts of the answers.
//! After every [`BURST`] packets it sends a valid OPEN and awaits the answer, which proves that the
//! server is alive and keeps queues from dropping the burst before.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;

use crate::host::Transmit;
use crate::instruments::load::exchange::open_datagram;
use crate::instruments::load::report::HostileReport;
use crate::time::Instant;
use crate::wire::flight::{Ecn, Flight, UdpPath};
use crate::wire::ip::{MAX_PACKET, emit_udp};
use crate::wire::segment::{ResponseKind, ToClient, Wanted};

/// Most valid requests in the corpus.
pub(super) const MAX_CORPUS: usize = 128;

/// Mutated packets between two pulses; with three datagrams in answer to each they fit the queue of a
/// TUN device (500 packets).
const BURST: u32 = 64;

/// Time to wait for the answer to a pulse.
const PULSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Consecutive unanswered pulses after which the server counts as dead.
const MAX_PULSES_MISSED: u32 = 10;

/// Most bits flipped in one packet.
const MAX_FLIPS: u32 = 8;

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

const MUTATIONS: [Mutation; 5] = [
    Mutation::Flip,
    Mutation::Truncate,
    Mutation::Random,
    Mutation::Splice,
    Mutation::Header,
];

/// A mutation of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    /// Flips bits of the UDP payload.
    Flip,
    /// Truncates the payload.
    Truncate,
    /// Replaces the payload by random bytes.
    Random,
    /// Joins the start of one request and the end of another.
    Splice,
    /// Flips bits of the UDP header.
    Header,
}

impl Mutation {
    const fn label(self) -> &'static str {
        match self {
            Self::Flip => "flip",
            Self::Truncate => "truncate",
            Self::Random => "random",
            Self::Splice => "splice",
            Self::Header => "header",
        }
    }
}

/// A valid OPEN in progress.
#[derive(Clone, Copy, Debug)]
struct Pulse {
    echo: u64,
    sent: Instant,
}

/// Mutated packets to send, and counts of the answers.
pub(super) struct Hostile {
    /// Valid requests and their paths; not empty.
    corpus: Vec<(UdpPath, Vec<u8>)>,
    left: u64,
    in_burst: u32,
    pulse: Option<Pulse>,
    missed_in_a_row: u32,
    datagram_max: usize,
    report: HostileReport,
}

impl Hostile {
    /// Plans `count` packets. `corpus` must not be empty.
    pub(super) fn new(count: u64, corpus: Vec<(UdpPath, Vec<u8>)>, datagram_max: u16) -> Self {
        Self {
            left: if corpus.is_empty() { 0 } else { count },
            corpus,
            in_burst: 0,
            pulse: None,
            missed_in_a_row: 0,
            datagram_max: usize::from(datagram_max),
            report: HostileReport::default(),
        }
    }

    /// Whether all packets are sent and the last answer has arrived or timed out.
    pub(super) const fn is_done(&self) -> bool {
        self.report.silent || (self.left == 0 && self.in_burst == 0 && self.pulse.is_none())
    }

    pub(super) const fn report(&self) -> &HostileReport {
        &self.report
    }

    /// Returns the next packet, unless an answer is awaited.
    pub(super) fn next(&mut self, now: Instant, random: &mut ChaCha8Rng) -> Option<Transmit> {
        if self.pulse.is_some() || self.report.silent {
            return None;
        }
        if self.left == 0 || self.in_burst == BURST {
            return (self.in_burst > 0)
                .then(|| self.send_pulse(now, random))
                .flatten();
        }
        self.left -= 1;
        self.in_burst += 1;
        let kind = *MUTATIONS.get(random.random_range(0..MUTATIONS.len()))?;
        *self.report.sent.entry(kind.label()).or_default() += 1;
        let transmit = self.mutate(kind, random)?;
        self.report.bytes_out += match &transmit {
            Transmit::Flight(flight) => flight.payload.len() as u64,
            Transmit::Packet(packet) | Transmit::Segments { packet, .. } => packet.len() as u64,
        };
        Some(transmit)
    }

    fn pick(&self, random: &mut ChaCha8Rng) -> Option<&(UdpPath, Vec<u8>)> {
        self.corpus.get(random.random_range(0..self.corpus.len()))
    }

    fn mutate(&self, kind: Mutation, random: &mut ChaCha8Rng) -> Option<Transmit> {
        let (path, sound) = self.pick(random)?;
        let mut payload = sound.clone();
        match kind {
            Mutation::Flip => flip(&mut payload, random),
            Mutation::Truncate => payload.truncate(random.random_range(0..payload.len().max(1))),
            Mutation::Random => {
                payload.resize(random.random_range(0..=self.datagram_max), 0);
                random.fill(payload.as_mut_slice());
            }
            Mutation::Splice => {
                let (_, other) = self.pick(random)?;
                payload.truncate(random.random_range(0..=payload.len()));
                let from = random.random_range(0..=other.len());
                payload.extend(other.get(from..).unwrap_or_default());
                payload.truncate(self.datagram_max);
            }
            Mutation::Header => {
                let mut packet = vec![0; MAX_PACKET];
                let length = emit_udp(*path, Ecn::NotEct, &payload, 0, &mut packet).ok()?;
                packet.truncate(length);
                let start = length - payload.len() - UDP_HEADER;
                flip(packet.get_mut(start..start + UDP_HEADER)?, random);
                return Some(Transmit::Packet(packet));
            }
        }
        Some(Transmit::Flight(Flight::single(
            *path,
            Ecn::NotEct,
            payload,
        )))
    }

    fn send_pulse(&mut self, now: Instant, random: &mut ChaCha8Rng) -> Option<Transmit> {
        let (path, _) = self.corpus.first()?;
        let echo = random.random();
        self.pulse = Some(Pulse { echo, sent: now });
        self.report.pulses += 1;
        let size = u16::try_from(self.datagram_max).unwrap_or(u16::MAX);
        let datagram = open_datagram(echo, size, Wanted::Of(&[]));
        Some(Transmit::Flight(Flight::single(
            *path,
            Ecn::NotEct,
            datagram,
        )))
    }

    /// Counts an answer.
    pub(super) fn handle(&mut self, datagram: &[u8]) {
        let kind = match ToClient::parse(datagram) {
            Ok(ToClient::Response(response)) => match response.header.kind {
                ResponseKind::Opened { echo, .. } => {
                    if self.pulse.is_some_and(|pulse| pulse.echo == echo) {
                        self.pulse = None;
                        self.in_burst = 0;
                        self.missed_in_a_row = 0;
                        return;
                    }
                    "opened"
                }
                ResponseKind::Data => "data",
            },
            Ok(ToClient::Challenge(_)) => "challenge",
            Ok(ToClient::Probed(_)) => "probed",
            Ok(ToClient::Wait(_)) => "wait",
            Err(_) => "malformed",
        };
        *self.report.replies.entry(kind).or_default() += 1;
        self.report.bytes_in += datagram.len() as u64;
    }

    /// The time at which the awaited answer is overdue.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pulse.map(|pulse| pulse.sent + PULSE_TIMEOUT)
    }

    /// Records an overdue answer; the next pulse follows.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.pulse = None;
            self.report.pulses_missed += 1;
            self.missed_in_a_row += 1;
            self.report.silent = self.missed_in_a_row >= MAX_PULSES_MISSED;
            // Counts the burst as sent, so that another pulse follows.
            self.in_burst = BURST;
        }
    }
}

fn flip(bytes: &mut [u8], random: &mut ChaCha8Rng) {
    for _ in 0..random.random_range(1..=MAX_FLIPS) {
        let at = random.random_range(0..bytes.len().max(1));
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << random.random_range(0..8);
        }
    }
}
