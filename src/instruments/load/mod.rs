//! The machine of the load generator: very many connections that are opened, proven and then kept
//! without ever being closed; mutated packets on request; and a sample of the kept connections that
//! goes on at the end, to show that they still live.
//!
//! In: IP packets and time. Out: IP packets, flights and a [`LoadReport`]. At most [`MAX_IN_FLIGHT`]
//! connections are busy at a time, so that a test of the server's memory is no test of queues.
//! Never reads a clock. Every random choice comes from the seed.

pub mod course;
pub mod downloads;
mod exchange;
mod hostile;
pub mod report;
pub mod requests;
mod rota;
pub mod schedule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use crate::host::{Machine, Transmit};
use crate::stack::{Demuxed, Stack, StackConfig, StackError};
use crate::time::{Instant, Now};
use crate::transport::application::MAX_REQUEST_BYTES;
use crate::transport::grant::RESTART_GATE;
use crate::wire::flight::{Ecn, Flight, UdpPath};
use crate::wire::segment::ToClient;

use course::{Course, Whole};
use exchange::{Exchange, Kept, Step, Terms, status_of};
use hostile::{Hostile, MAX_CORPUS};
use report::LoadReport;
use schedule::Plan;

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

/// How long the connections are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Not at all.
    No,
    /// So long after the last was opened.
    For(Duration),
    /// Until [`LoadHost::release`].
    UntilReleased,
}

/// What a load generator is set up with.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// Own addresses; those of the server's family have [`PORTS`] connections each.
    pub addresses: Vec<IpAddr>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Address and UDP port of the server.
    pub remote: SocketAddr,
    /// The application request, at most [`MAX_REQUEST_BYTES`].
    pub head: Vec<u8>,
    /// Connections to open.
    pub connections: u32,
    /// Most connections begun in a second.
    pub rate: Option<NonZeroU32>,
    /// How long to keep them.
    pub hold: Hold,
    /// Mutated packets to send once the connections are open.
    pub hostile: u64,
    /// Kept connections that go on at the end; all if there are fewer.
    pub resume_sample: u32,
    /// Instead, requests on kept connections chosen at random.
    pub live: Option<Plan>,
    /// Feeds every random choice.
    pub seed: u64,
}

/// Why a load generator cannot be made. The user is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The addresses cannot be used.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// More connections than own addresses and ports.
    #[error(
        "{have} connections, but {addresses} address(es) of the server's family have ports for {most}: give more --address"
    )]
    TooManyConnections {
        /// As wanted.
        have: u32,
        /// Own addresses of the server's family.
        addresses: usize,
        /// Most that are possible.
        most: u32,
    },
    /// More downloads at once than there may be.
    #[error(
        "{have} downloads at once, at most {} are possible: ask for fewer",
        downloads::MAX_DOWNLOADS
    )]
    TooManyDownloads {
        /// As wanted.
        have: u32,
    },
    /// No own address is of the server's family.
    #[error("no own address is of the server's family: give one as --address")]
    NoAddress,
    /// The request is longer than the transport carries.
    #[error("the request has {have} bytes, at most {MAX_REQUEST_BYTES} fit: shorten the URL")]
    RequestTooLong {
        /// Bytes of the request.
        have: usize,
    },
}

/// A connection that waits for an answer.
struct Busy {
    exchange: Exchange,
    attempts: u32,
    retry_at: Instant,
    /// When a request on a kept connection was meant to begin.
    meant: Option<Instant>,
}

/// What is being done.
enum LoadPhase {
    /// Connections are opened; those from `next` on are still to come.
    Opening { next: u32 },
    /// Mutated packets are sent.
    Hostile(Box<Hostile>),
    /// Nothing, until then if there is an end.
    Holding(Option<Instant>),
    /// The connections named go on, not before `from`.
    Resuming { waiting: Vec<u32>, from: Instant },
    /// Requests are made on the connections named.
    Live { open: Vec<u32>, course: Box<Course> },
    /// All is done.
    Done,
}

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

    // --- Phases ---

    /// Goes from one phase to the next when it is over.
    fn advance(&mut self, now: Instant) {
        match &self.phase {
            LoadPhase::Opening { next } => {
                if *next >= self.config.connections && self.busy.is_empty() {
                    self.end_opening(now);
                    self.begin_hostile(now);
                }
            }
            LoadPhase::Hostile(hostile) => {
                if hostile.is_done() {
                    self.end_hostile();
                    self.hold(now);
                }
            }
            LoadPhase::Holding(until) => {
                if until.is_some_and(|until| until <= now) {
                    self.resume(now);
                }
            }
            LoadPhase::Resuming { waiting, .. } => {
                if waiting.is_empty() && self.busy.is_empty() {
                    self.phase = LoadPhase::Done;
                }
            }
            LoadPhase::Live { course, .. } => {
                if course.is_over(now) {
                    self.end_live(now);
                }
            }
            LoadPhase::Done => {}
        }
    }

    fn begin_live(&mut self, now: Instant, plan: Plan) {
        let open = self.open();
        let room = u32::try_from(open.len().min(MAX_IN_FLIGHT)).unwrap_or(u32::MAX);
        let course = Box::new(Course::new(now, plan, room, self.random.random()));
        self.phase = LoadPhase::Live { open, course };
    }

    fn end_live(&mut self, now: Instant) {
        if let LoadPhase::Live { course, .. } = core::mem::replace(&mut self.phase, LoadPhase::Done)
        {
            self.report.live = Some(course.finish(now));
            self.busy.clear();
        }
    }

    fn begin_hostile(&mut self, now: Instant) {
        if self.config.hostile == 0 {
            self.hold(now);
            return;
        }
        // What a kept connection would send next is the most worth mutating.
        let mut corpus = core::mem::take(&mut self.corpus);
        for (index, kept) in (0..).zip(&self.kept) {
            if corpus.len() >= MAX_CORPUS {
                break;
            }
            let request = kept.and_then(|kept| kept.resume(&self.terms));
            let path = self.path(index);
            corpus.extend(path.zip(request.map(|(_, datagram)| datagram)));
        }
        let hostile = Hostile::new(self.config.hostile, corpus, self.terms.size);
        self.phase = LoadPhase::Hostile(Box::new(hostile));
    }

    fn end_opening(&mut self, now: Instant) {
        if let LoadPhase::Opening { .. } = &self.phase {
            let elapsed = now.saturating_since(self.begun);
            self.report.opening_seconds = elapsed.as_secs_f64();
        }
    }

    fn end_hostile(&mut self) {
        if let LoadPhase::Hostile(hostile) = &self.phase {
            self.report.hostile = Some(hostile.report().clone());
        }
    }

    fn hold(&mut self, now: Instant) {
        if let Some(plan) = self.config.live {
            self.begin_live(now, plan);
            return;
        }
        match self.config.hold {
            Hold::No => self.resume(now),
            Hold::For(time) => self.phase = LoadPhase::Holding(Some(now + time)),
            Hold::UntilReleased => self.phase = LoadPhase::Holding(None),
        }
    }

    /// Numbers of the connections that are kept.
    fn open(&self) -> Vec<u32> {
        let open = (0..).zip(&self.kept).filter(|(_, kept)| kept.is_some());
        open.map(|(index, _)| index).collect()
    }

    fn resume(&mut self, now: Instant) {
        let open = self.open();
        let wanted = usize::try_from(self.config.resume_sample).unwrap_or(usize::MAX);
        let sample = rand::seq::index::sample(&mut self.random, open.len(), wanted.min(open.len()));
        let waiting = sample.iter().filter_map(|at| open.get(at).copied());
        let waiting: Vec<u32> = waiting.collect();
        let from = (self.last_kept + RESTART_GATE + GATE_MARGIN).max(now);
        self.phase = match waiting.is_empty() {
            true => LoadPhase::Done,
            false => LoadPhase::Resuming { waiting, from },
        };
    }

    // --- Connections ---

    /// Own address and port of a connection, and the server's.
    fn path(&self, index: u32) -> Option<UdpPath> {
        let source = usize::try_from(index / PORTS).ok()?;
        let port = FIRST_PORT.checked_add(u16::try_from(index % PORTS).ok()?)?;
        Some(UdpPath {
            src: SocketAddr::new(*self.sources.get(source)?, port),
            dst: self.config.remote,
        })
    }

    /// Which connection has this own address and port.
    fn index(&self, own: SocketAddr) -> Option<u32> {
        let source = self.sources.iter().position(|source| *source == own.ip())?;
        let port = own.port().checked_sub(FIRST_PORT)?;
        u32::try_from(source)
            .ok()?
            .checked_mul(PORTS)?
            .checked_add(u32::from(port))
    }

    fn push(&mut self, index: u32, datagram: Vec<u8>) {
        let Some(path) = self.path(index) else {
            return;
        };
        if self.config.hostile > 0 && self.corpus.len() < MAX_CORPUS / 2 {
            self.corpus.push((path, datagram.clone()));
        }
        let flight = Flight::single(path, Ecn::NotEct, datagram);
        self.outbox.push_back(Transmit::Flight(flight));
    }

    /// Begins the next connection, or the next that goes on; `false` if none may be begun now.
    fn start_next(&mut self, now: Instant) -> bool {
        if self.busy.len() >= MAX_IN_FLIGHT || self.start_at(now).is_none_or(|at| at > now) {
            return false;
        }
        let mut meant = None;
        let index = match &mut self.phase {
            LoadPhase::Live { open, course } => {
                let busy = |index: &u32| self.busy.contains_key(index);
                let chosen = self.random.random_range(0..open.len().max(1));
                // The next that is not busy: there is one, since fewer than all may be.
                let mut all = open.iter().cycle().skip(chosen).take(open.len());
                let Some(&index) = all.find(|index| !busy(index)) else {
                    return false;
                };
                meant = course.take(now);
                index
            }
            LoadPhase::Opening { next } => {
                *next += 1;
                *next - 1
            }
            LoadPhase::Resuming { waiting, .. } => match waiting.pop() {
                Some(index) => index,
                None => return false,
            },
            LoadPhase::Hostile(_) | LoadPhase::Holding(_) | LoadPhase::Done => return false,
        };
        if let Some(rate) = self.config.rate {
            let gap = Duration::from_secs(1) / rate.get();
            // What was missed is not caught up with in a burst.
            self.next_start = self.next_start.max(now - gap) + gap;
        }
        self.attempt(now, index, 1, meant);
        true
    }

    /// When the next connection may be begun, if any is left.
    fn start_at(&self, now: Instant) -> Option<Instant> {
        match &self.phase {
            LoadPhase::Opening { next } => {
                (*next < self.config.connections).then_some(self.next_start)
            }
            LoadPhase::Resuming { waiting, from } => {
                (!waiting.is_empty()).then_some(self.next_start.max(*from))
            }
            LoadPhase::Live { course, .. } => course.next_at(now),
            LoadPhase::Hostile(_) | LoadPhase::Holding(_) | LoadPhase::Done => None,
        }
    }

    /// Sends the first datagram of what connection `index` is to do now.
    fn attempt(&mut self, now: Instant, index: u32, attempts: u32, meant: Option<Instant>) {
        let kept = usize::try_from(index)
            .ok()
            .and_then(|index| self.kept.get(index).copied().flatten());
        let begun = match (&self.phase, kept) {
            (LoadPhase::Resuming { .. }, Some(kept)) => kept.resume(&self.terms),
            // One whose answer was lost is not mended but opened anew.
            (LoadPhase::Live { .. }, Some(kept)) if attempts == 1 => kept.ask(&self.terms),
            _ => Some(Exchange::open(now, self.random.random(), &self.terms)),
        };
        let Some((exchange, datagram)) = begun else {
            self.give_up(now, meant);
            return;
        };
        match exchange {
            Exchange::Opening(_) => self.report.opens += 1,
            Exchange::Proving(_) | Exchange::Resuming(_) => self.report.requests += 1,
        }
        let retry_at = now + timeout(attempts);
        self.push(index, datagram);
        self.busy.insert(
            index,
            Busy {
                exchange,
                attempts,
                retry_at,
                meant,
            },
        );
    }

    /// Counts a connection that is given up. After many in a row the server is taken for dead, and
    /// the others are given up untried.
    fn give_up(&mut self, now: Instant, meant: Option<Instant>) {
        self.failures_in_a_row += 1;
        let dead = self.failures_in_a_row >= MAX_IN_FLIGHT;
        match &mut self.phase {
            LoadPhase::Resuming { waiting, .. } => {
                self.report.not_resumed += 1;
                if dead {
                    self.report.not_resumed += u32::try_from(waiting.len()).unwrap_or(u32::MAX);
                    waiting.clear();
                }
            }
            LoadPhase::Opening { next } => {
                self.report.failed += 1;
                if dead {
                    self.report.failed += self.config.connections - *next;
                    *next = self.config.connections;
                }
            }
            LoadPhase::Live { course, .. } => {
                if let Some(meant) = meant {
                    course.end(now, meant, Err("timed_out"));
                }
            }
            LoadPhase::Hostile(_) | LoadPhase::Holding(_) | LoadPhase::Done => {}
        }
    }

    /// Sends again what was not answered, or gives up.
    fn retry(&mut self, now: Instant) {
        let late = self.busy.iter().filter(|(_, busy)| busy.retry_at <= now);
        let late = late.map(|(&index, busy)| (index, busy.attempts, busy.meant));
        for (index, attempts, meant) in late.collect::<Vec<_>>() {
            self.busy.remove(&index);
            if attempts >= MAX_ATTEMPTS {
                self.give_up(now, meant);
            } else {
                self.report.retries += 1;
                self.attempt(now, index, attempts + 1, meant);
            }
        }
    }

    fn handle_datagram(&mut self, now: Instant, path: UdpPath, datagram: &[u8]) {
        self.report.packets_in += 1;
        self.report.bytes_in += datagram.len() as u64;
        if path.src != self.config.remote {
            self.report.strays += 1;
            return;
        }
        if let LoadPhase::Hostile(hostile) = &mut self.phase {
            hostile.handle(datagram);
            return;
        }
        let index = self.index(path.dst);
        let busy = index.and_then(|index| Some((index, self.busy.get_mut(&index)?)));
        let (Some((index, busy)), Ok(ToClient::Response(response))) =
            (busy, ToClient::parse(datagram))
        else {
            self.report.strays += 1;
            return;
        };
        let step = busy.exchange.handle(now, &response);
        let status = status_of(&response);
        if !matches!(step, Step::Stray)
            && let Some(status) = status
        {
            *self.report.statuses.entry(status).or_default() += 1;
        }
        match step {
            Step::Stray => self.report.strays += 1,
            Step::Wait => {}
            Step::Ask(datagram) => {
                busy.retry_at = now + timeout(busy.attempts);
                self.report.requests += 1;
                self.push(index, datagram);
            }
            Step::Keep(kept) => self.keep(now, index, kept, status.unwrap_or(0)),
        }
    }

    fn keep(&mut self, now: Instant, index: u32, kept: Kept, status: u16) {
        let meant = self.busy.remove(&index).and_then(|busy| busy.meant);
        if let (LoadPhase::Live { course, .. }, Some(meant)) = (&mut self.phase, meant) {
            let whole = Whole {
                status,
                body_bytes: 0,
            };
            course.end(now, meant, Ok(whole));
        }
        let slot = usize::try_from(index).ok();
        let Some(slot) = slot.and_then(|slot| self.kept.get_mut(slot)) else {
            return;
        };
        match slot.replace(kept) {
            None => self.report.opened += 1,
            Some(_) if meant.is_some() => {}
            Some(_) => self.report.resumed += 1,
        }
        self.last_kept = now;
        self.failures_in_a_row = 0;
    }
}

/// How long the answer to attempt `attempts` (from 1) is waited for.
fn timeout(attempts: u32) -> Duration {
    (FIRST_TIMEOUT * (1 << (attempts - 1))).min(MAX_TIMEOUT)
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

/// Refuses an application request that is too long for our transport.
fn check_head(head: &[u8]) -> Result<(), LoadError> {
    let have = head.len();
    match have > MAX_REQUEST_BYTES {
        true => Err(LoadError::RequestTooLong { have }),
        false => Ok(()),
    }
}

/// The own addresses that can speak to `remote`.
fn speaking_to(remote: SocketAddr, own: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    own.iter()
        .copied()
        .filter(move |own| own.is_ipv4() == remote.is_ipv4())
}
