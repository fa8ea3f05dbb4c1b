//! The machine of the load generator: very many connections that are opened, proven and then kept
//! without ever being closed; mutated packets on request; and a sample of the kept connections that
//! goes on at the end, to show that they still live.
//!
//! In: IP packets and time. Out: IP packets, flights and a [`LoadReport`]. At most [`MAX_IN_FLIGHT`]
//! connections are busy at a time, so that a test of the server's memory is no test of queues.
//! Never reads a clock. Every random choice comes from the seed.

mod config;
mod connections;
pub mod course;
pub mod downloads;
mod exchange;
mod hostile;
mod phases;
pub mod report;
pub mod requests;
mod rota;
pub mod schedule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use crate::host::{Machine, Transmit};
use crate::stack::{Demuxed, Stack, StackConfig};
use crate::time::{Instant, Now};
use crate::wire::flight::UdpPath;

pub use config::{Hold, LoadConfig, LoadError};

use config::{check_head, speaking_to};
use connections::Busy;
use exchange::{Kept, Terms};
use phases::LoadPhase;
use report::LoadReport;

/// Connections busy at a time: the answers to that many OPENs fit the queue of a TUN device (500
/// packets).
pub const MAX_IN_FLIGHT: usize = 128;

/// First own UDP port; those below are left to servers.
pub const FIRST_PORT: u16 = 1024;

/// Own ports of one address.
pub const PORTS: u32 = 1 + (u16::MAX - FIRST_PORT) as u32;

/// Times that an OPEN or a request is sent before its connection is given up.
const MAX_ATTEMPTS: u32 = 8;

/// How long the first answer is waited for; doubled each time (RFC 6298 §2) …
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);

/// … up to this.
const MAX_TIMEOUT: Duration = Duration::from_secs(8);

/// Beyond [`RESTART_GATE`], for clocks that count whole milliseconds.
const GATE_MARGIN: Duration = Duration::from_millis(50);

/// The machine of a load generator.
pub struct LoadHost {
    config: LoadConfig,
    /// Own addresses of the server's family.
    sources: Vec<IpAddr>,
    terms: Terms,
    stack: Stack,
    random: ChaCha8Rng,
    phase: LoadPhase,
    /// By number of the connection.
    kept: Vec<Option<Kept>>,
    busy: BTreeMap<u32, Busy>,
    outbox: VecDeque<Transmit>,
    corpus: Vec<(UdpPath, Vec<u8>)>,
    /// When the next connection may be begun.
    next_start: Instant,
    begun: Instant,
    last_kept: Instant,
    failures_in_a_row: usize,
    report: LoadReport,
}

impl LoadHost {
    /// A load generator that begins with the first `poll_transmit`.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn new(now: Now, config: LoadConfig) -> Result<Self, LoadError> {
        check_head(&config.head)?;
        let sources: Vec<IpAddr> = speaking_to(config.remote, &config.addresses).collect();
        let addresses = sources.len();
        let most = u32::try_from(addresses)
            .unwrap_or(u32::MAX)
            .saturating_mul(PORTS);
        if config.connections > most {
            return Err(LoadError::TooManyConnections {
                have: config.connections,
                addresses,
                most,
            });
        }
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        let settings = StackConfig {
            addresses: config.addresses.clone(),
            mtu: config.mtu,
            transport_ports: FIRST_PORT..=u16::MAX,
            seed: random.random(),
        };
        let count = usize::try_from(config.connections).unwrap_or(usize::MAX);
        let headers = if config.remote.is_ipv4() { 28 } else { 48 };
        Ok(Self {
            stack: Stack::new(now.instant, settings)?,
            terms: Terms {
                head: config.head.clone(),
                size: config.mtu.saturating_sub(headers),
            },
            report: LoadReport {
                connections: config.connections,
                ..LoadReport::default()
            },
            kept: vec![None; count],
            sources,
            random,
            phase: LoadPhase::Opening { next: 0 },
            busy: BTreeMap::new(),
            outbox: VecDeque::new(),
            corpus: Vec::new(),
            next_start: now.instant,
            begun: now.instant,
            last_kept: now.instant,
            failures_in_a_row: 0,
            config,
        })
    }

    // --- Commands ---

    /// Ends whatever is being done, but for the sample that goes on at the end; a second time, that
    /// too.
    pub fn release(&mut self, now: Now) {
        match &self.phase {
            LoadPhase::Resuming { .. } | LoadPhase::Live { .. } | LoadPhase::Done => {
                self.phase = LoadPhase::Done
            }
            LoadPhase::Opening { .. } | LoadPhase::Hostile(_) | LoadPhase::Holding(_) => {
                self.end_opening(now.instant);
                self.end_hostile();
                self.busy.clear();
                self.resume(now.instant);
            }
        }
    }

    // --- Getters ---

    /// Whether all is done.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.phase, LoadPhase::Done)
    }

    /// Whether the connections are open and kept, and nothing else happens.
    #[must_use]
    pub const fn is_holding(&self) -> bool {
        matches!(self.phase, LoadPhase::Holding(_))
    }

    /// The time whose requests on kept connections count, once it is known.
    #[must_use]
    pub const fn live_window(&self) -> Option<(Instant, Instant)> {
        let LoadPhase::Live { course, .. } = &self.phase else {
            return None;
        };
        Some(course.window())
    }

    /// What has happened since the start.
    #[must_use]
    pub fn report(&self) -> LoadReport {
        let state = self.kept.capacity() * size_of::<Option<Kept>>();
        let mut report = self.report.clone();
        report.state_bytes_per_connection =
            u64::try_from(state / self.kept.len().max(1)).unwrap_or(0);
        if let LoadPhase::Hostile(hostile) = &self.phase {
            report.hostile = Some(hostile.report().clone());
        }
        report
    }
}

impl Machine for LoadHost {
    fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>) {
        match self.stack.handle_packet(now.instant, packet, segment) {
            Demuxed::Transport(view) => {
                let size = segment.unwrap_or(view.payload.len()).max(1);
                for datagram in view.payload.chunks(size) {
                    self.handle_datagram(now.instant, view.path, datagram);
                }
            }
            Demuxed::Taken => {}
            Demuxed::Dropped(reason) => log::trace!("packet dropped reason={}", reason.label()),
        }
        self.advance(now.instant);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.stack.handle_timeout(now.instant);
        self.retry(now.instant);
        if let LoadPhase::Hostile(hostile) = &mut self.phase {
            hostile.handle_timeout(now.instant);
        }
        self.advance(now.instant);
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        if self.outbox.is_empty()
            && !self.start_next(now.instant)
            && let LoadPhase::Hostile(hostile) = &mut self.phase
        {
            self.outbox
                .extend(hostile.next(now.instant, &mut self.random));
        }
        if let Some(transmit) = self.outbox.pop_front() {
            self.report.packets_out += 1;
            self.report.bytes_out += match &transmit {
                Transmit::Flight(flight) => flight.payload.len() as u64,
                Transmit::Packet(packet) => packet.len() as u64,
            };
            return Some(transmit);
        }
        self.stack.poll_transmit(now.instant).map(Transmit::Packet)
    }

    fn poll_timeout(&mut self, now: Now) -> Option<(Instant, &'static str)> {
        let retry = self.busy.values().map(|busy| busy.retry_at).min();
        let room = self.busy.len() < MAX_IN_FLIGHT;
        let start = self.start_at(now.instant).filter(|_| room);
        let phase = match &self.phase {
            LoadPhase::Hostile(hostile) => hostile.deadline(),
            LoadPhase::Holding(until) => *until,
            LoadPhase::Live { course, .. } => course.next_at(now.instant),
            LoadPhase::Opening { .. } | LoadPhase::Resuming { .. } | LoadPhase::Done => None,
        };
        let own = [
            retry.map(|at| (at, "answer overdue")),
            start.map(|at| (at, "next connection")),
            phase.map(|at| (at, "next phase")),
            self.stack.poll_timeout(now.instant),
        ];
        own.into_iter().flatten().min()
    }
}
