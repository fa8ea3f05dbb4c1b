//! The machine of the load generator: opens, proves and holds many connections without closing them;
//! sends mutated packets on request; and finally resumes a sample of the held connections, to show
//! that they are alive.
//!
//! In: IP packets and time. Out: IP packets, flights and a [`LoadReport`]. At most [`MAX_IN_FLIGHT`]
//! connections are busy at a time, so that a test of the server's memory does not test queues.
//! Never reads a clock. The seed determines every random choice.

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
use crate::wire::ip::max_datagram;

pub use config::{Hold, LoadConfig, LoadError, LoadTarget};

use connections::Busy;
use exchange::{Kept, Terms};
use phases::LoadPhase;
use report::LoadReport;

/// Most busy connections: the answers to as many OPENs fit the queue of a TUN device (500 packets).
pub const MAX_IN_FLIGHT: usize = 128;

/// First local UDP port; lower ones are left to servers.
pub const FIRST_PORT: u16 = 1024;

/// Local ports of one address.
pub const PORTS: u32 = 1 + (u16::MAX - FIRST_PORT) as u32;

/// Most transmissions of an OPEN or a request before its connection fails.
const MAX_ATTEMPTS: u32 = 8;

/// First retransmission timeout; doubles each time (RFC 6298 §2).
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);

/// Largest retransmission timeout.
const MAX_TIMEOUT: Duration = Duration::from_secs(8);

/// Margin added to [`RESTART_GATE`](crate::transport::grant::RESTART_GATE), for clocks of whole
/// milliseconds.
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
    /// Held connections by index.
    kept: Vec<Option<Kept>>,
    busy: BTreeMap<u32, Busy>,
    outbox: VecDeque<Transmit>,
    corpus: Vec<(UdpPath, Vec<u8>)>,
    /// Earliest start of the next connection.
    next_start: Instant,
    begun: Instant,
    last_kept: Instant,
    failures_in_a_row: usize,
    report: LoadReport,
}

/// Returns the configuration of a stack with all local ports for the transport.
fn all_ports(addresses: &[IpAddr], mtu: u16, seed: u64) -> StackConfig {
    StackConfig {
        addresses: addresses.to_vec(),
        mtu,
        transport_ports: FIRST_PORT..=u16::MAX,
        seed,
    }
}

impl LoadHost {
    /// Creates a load generator that starts with the first `poll_transmit`.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn new(now: Now, config: LoadConfig) -> Result<Self, LoadError> {
        let target = &config.target;
        target.check()?;
        let sources: Vec<IpAddr> = target.sources().collect();
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
        let mut random = ChaCha8Rng::seed_from_u64(target.seed);
        let settings = all_ports(&target.addresses, target.mtu, random.random());
        let count = usize::try_from(config.connections).unwrap_or(usize::MAX);
        Ok(Self {
            stack: Stack::new(now.instant, settings)?,
            terms: Terms {
                head: target.head.clone(),
                size: max_datagram(target.mtu, target.remote.ip()),
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

    /// Ends the present phase, except for the final resuming of the sample; a second call ends that,
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

    /// Whether the test is complete.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.phase, LoadPhase::Done)
    }

    /// Whether the connections are open and held, and no other phase is active.
    #[must_use]
    pub const fn is_holding(&self) -> bool {
        matches!(self.phase, LoadPhase::Holding(_))
    }

    /// The measured interval of requests on held connections, once known.
    #[must_use]
    pub const fn live_window(&self) -> Option<(Instant, Instant)> {
        let LoadPhase::Live { course, .. } = &self.phase else {
            return None;
        };
        Some(course.window())
    }

    /// The results since the start.
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
                Transmit::Packet(packet) | Transmit::Segments { packet, .. } => packet.len() as u64,
            };
            return Some(transmit);
        }
        self.stack.poll_transmit(now.instant).map(Transmit::from)
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
