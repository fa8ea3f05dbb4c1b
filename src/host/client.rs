//! The machine of a client: a stack, connections (our transport or TCP) and one transfer at a time.
//!
//! In: IP packets, time, and transfers to carry out. Out: IP packets, flights, and the events of
//! the transfers. Keeps a connection for each service that it used lately. Never reads a clock; names
//! are resolved by a function that is given.

mod connecting;
mod finish;
pub(super) mod lookups;
mod machine;
pub(crate) mod racing;

use std::os::fd::BorrowedFd;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use crate::apps::fetch::{
    Transfer, TransferEvent, TransferFailure, TransferProgress, TransferRequest,
};
use crate::connect::{History, Outcome, Transport};
use crate::host::config::ClientHostConfig;
use crate::host::connections::{Connections, Service};
use crate::host::metrics::Metric;
use crate::host::names::Names;
use crate::host::report::{ClientReport, RaceReport};
use crate::host::server::stack_metrics;
use crate::host::streams::ClientStreams;
use crate::host::tokens::Tokens;
use crate::stack::{Stack, StackConfig, StackError};
use crate::time::{Instant, Now};
use crate::transport::client::Client;
use crate::wire::flight::Flight;
use crate::wire::ip::UdpView;
use crate::wire::segment::ToClient;

use lookups::{Dns, Exchanges, Lookup};
use racing::{Racing, Way};

/// First of the ports that are drawn when none is named (RFC 6335 §6).
const FIRST_EPHEMERAL_PORT: u16 = 49_152;

/// Bytes read from a connection at a time.
pub(super) const STAGE_BYTES: usize = 256 * 1024;

/// A transfer under way.
struct Running {
    transfer: Transfer,
    begun: Instant,
    /// When a connection must have come about; `None` once it has.
    connect_by: Option<Instant>,
    finish_by: Option<Instant>,
    /// When a TCP connection has been silent for too long; our transport watches its own.
    idle_by: Option<Instant>,
    /// When the output wants to be flushed in any case.
    flush_at: Option<Instant>,
    lookup: Option<Lookup>,
    /// Attempts to connect; without them there is a connection, or a look-up.
    race: Option<Racing>,
    /// The transport of its last connection.
    transport: Option<Transport>,
    failed: bool,
}

impl Running {
    /// Whether bytes of its response may be unread.
    const fn leaves_bytes(&self) -> bool {
        self.failed || self.transfer.is_reading()
    }
}

/// The machine of a client.
pub struct ClientHost {
    config: ClientHostConfig,
    tcp: ClientStreams,
    random: ChaCha8Rng,
    local_port: u16,
    connections: Connections,
    /// The service whose connection carries the transfer, or carried the last one.
    current: Option<Service>,
    running: Option<Running>,
    report: ClientReport,
    /// The course of the last race.
    race: RaceReport,
    names: Names,
    dns: Option<Dns>,
    stage: Vec<u8>,
}

impl ClientHost {
    /// A client without anything to do.
    ///
    /// # Errors
    /// [`StackError`] if the addresses cannot be used.
    pub fn new(now: Now, mut config: ClientHostConfig) -> Result<Self, StackError> {
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        let kernel = config.streams.take();
        let local_port = match config.protocol.udp_ports() {
            // The kernel chooses it.
            _ if config.sockets => 0,
            Some((_, Some(port))) => port,
            Some((_, None)) | None => random.random_range(FIRST_EPHEMERAL_PORT..=u16::MAX),
        };
        let settings = StackConfig {
            addresses: config.addresses.clone(),
            mtu: config.mtu,
            transport_ports: local_port..=local_port,
            seed: random.random(),
        };
        let dns = Dns::new(&mut config, random.random());
        Ok(Self {
            tcp: ClientStreams::new(Stack::new(now.instant, settings)?, kernel),
            config,
            random,
            local_port,
            connections: Connections::default(),
            current: None,
            running: None,
            report: ClientReport::default(),
            race: RaceReport::default(),
            names: Names::default(),
            dns,
            stage: vec![0; STAGE_BYTES],
        })
    }

    // --- Commands ---

    /// Begins a transfer; one that is under way is dropped.
    pub fn start(&mut self, now: Now, transfer: Transfer) {
        if self.running.as_ref().is_some_and(Running::leaves_bytes) {
            self.leave(now, false);
        }
        let retry = transfer.retry_interval();
        let flush_at = retry.map(|pause| now.instant + pause);
        self.running = Some(Running {
            transfer,
            begun: now.instant,
            connect_by: None,
            finish_by: self.config.max_time.map(|limit| now.instant + limit),
            idle_by: None,
            flush_at,
            lookup: None,
            race: None,
            transport: None,
            failed: false,
        });
        self.report.begin(now.instant);
        self.race = RaceReport::default();
        self.pump(now);
    }

    /// Collects the events of TCP connections of the kernel, lets the output of the transfer write its
    /// buffered bytes, and goes on if that has made room. To be called once per turn.
    pub fn turn(&mut self, now: Now) {
        self.tcp.streams().collect(now.instant);
        self.handle_tcp_events();
        self.flush(now);
    }

    fn flush(&mut self, now: Now) {
        while let Some(running) = &mut self.running {
            let held_up = !running.transfer.has_room();
            running.transfer.flush();
            let retry = running.transfer.retry_interval();
            running.flush_at = retry.map(|pause| now.instant + pause);
            if held_up && running.transfer.has_room() {
                self.report.resume(now.instant);
                let limit = now.instant + self.config.idle_timeout;
                running.idle_by = running.idle_by.and(Some(limit));
            }
            let waits = running.transfer.waits_for().is_some();
            if !self.pump(now) || waits {
                return;
            }
        }
    }

    // --- Output ---

    /// The descriptor whose writability makes `flush` worth a call; none if the output buffers nothing.
    #[must_use]
    pub fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref()?.transfer.waits_for()
    }

    /// The next event of the transfer. After the last one (`Done`, `Failed`) the next transfer can
    /// be started.
    pub fn poll_event(&mut self) -> Option<TransferEvent> {
        let running = self.running.as_mut()?;
        let event = running.transfer.poll_event()?;
        running.failed |= matches!(event, TransferEvent::Failed(_));
        Some(event)
    }

    // --- Getters ---

    /// How far the transfer is.
    #[must_use]
    pub fn progress(&self) -> TransferProgress {
        self.running
            .as_ref()
            .map(|running| running.transfer.progress())
            .unwrap_or_default()
    }

    /// The transport that carries the transfer, or carried it; `None` before its first connection.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        self.running.as_ref()?.transport
    }

    /// The counters since the start, over all transfers and connections.
    #[must_use]
    pub fn report(&self) -> ClientReport {
        let mut report = self.report.clone();
        for (_, connection) in self.connections.iter() {
            if let Some(client) = connection.transport() {
                report.add_connection(&client.stats());
            }
        }
        report.add_stack(self.tcp.stack.counters());
        report
    }

    /// The tokens it was given, and those that its connections left behind.
    #[must_use]
    pub fn tokens(&self, now: Now) -> Tokens {
        let mut tokens = self.config.tokens.clone();
        for (service, connection) in self.connections.iter() {
            if let Some(token) = self.token_of(now, *service, connection) {
                tokens.remember(token);
            }
        }
        tokens
    }

    /// The outcomes of attempts to connect: those that it was given, and its own. An address that fell silent
    /// has failed, too.
    #[must_use]
    pub fn history(&self, now: Now) -> History {
        let mut history = self.config.history.clone();
        for (service, connection) in self.connections.iter() {
            let stats = connection.transport().map(Client::stats);
            if stats.is_some_and(|stats| stats.switches > 0)
                && let Some(route) = self.route_to(*service)
            {
                history.note(now.unix, route, Outcome::TimedOut);
            }
        }
        history
    }

    /// Whether attempts to connect are under way.
    pub(crate) fn is_racing(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.race.is_some())
    }

    /// The course of the last race for a connection.
    #[must_use]
    pub const fn race(&self) -> &RaceReport {
        &self.race
    }

    /// Counters, none by peer.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        stack_metrics(&self.tcp.stack).to_vec()
    }

    // --- Parts of more than one of these ---

    /// Moves requests down and bytes up until neither is possible; whether any was.
    fn pump(&mut self, now: Now) -> bool {
        let mut any = false;
        loop {
            self.issue(now);
            if !self.run_dns(now) && !self.run_race(now) && !self.deliver(now) && !self.end_stream()
            {
                return any;
            }
            any = true;
        }
    }

    /// Sends the requests of the transfer.
    fn issue(&mut self, now: Now) {
        while let Some(running) = &mut self.running {
            let Some(request) = running.transfer.poll_request() else {
                return;
            };
            if let Err(failure) = self.send(now, request) {
                if let Some(running) = &mut self.running {
                    running.transfer.fail(failure);
                }
                return;
            }
        }
    }

    /// The next flight of a connection of our transport; none while a race has used up its packets.
    fn poll_flight(&mut self, now: Now) -> Option<Flight> {
        let running = self.running.as_mut();
        let mut race = running.and_then(|running| running.race.as_mut());
        if race.as_ref().is_some_and(|race| race.is_spent()) {
            return None;
        }
        let ready = |client: &mut Client| client.poll_transmit(now);
        let flight = self.connections.transports_mut().find_map(ready)?;
        if let Some(race) = &mut race {
            race.sent();
        }
        Some(flight)
    }

    /// Sends a request over a connection to any address of its service, or races for one.
    fn send_to(&mut self, now: Now, request: TransferRequest, ways: Vec<Way>) {
        let services = self.services(&request.target, &ways);
        let serves = |service: &Service| services.contains(service);
        if request.abandon || !self.current.as_ref().is_some_and(serves) {
            self.leave(now, !request.abandon);
        }
        let Some((service, mut connection)) = self.connections.take_latest(serves) else {
            return self.start_race(now, request, ways);
        };
        if !connection.is_reusable(self.tcp.streams()) {
            self.give_up(now, service, connection);
            return self.start_race(now, request, ways);
        }
        if let Some(client) = connection.transport_mut() {
            let ports = self.ports(&request.target);
            let ours = |ip| ports.service(Transport::Trickles, ip);
            client.add_spares(self.spares_among(now, &ways, ours));
        }
        connection.request(now, self.tcp.streams(), request.head);
        self.await_bytes(now, connection.is_tcp());
        self.current = Some(service);
        if let Some(running) = &mut self.running {
            (running.connect_by, running.lookup) = (None, None);
            running.transport = Some(service.transport);
        }
        if let Some((service, oldest)) = self.connections.keep(service, connection) {
            self.give_up(now, service, oldest);
        }
    }

    /// Ends the stream of the current connection, which has been read if it is `whole`, and gives the
    /// connection up if it cannot carry another.
    fn leave(&mut self, now: Now, whole: bool) {
        self.drop_race(now);
        let current = self
            .current
            .and_then(|service| self.connections.get(service));
        if current.is_some_and(|connection| !connection.leave(whole)) {
            self.drop_current(now);
        }
    }

    /// Gives the current connection up.
    fn drop_current(&mut self, now: Now) {
        if let Some(service) = self.current.take()
            && let Some(connection) = self.connections.take(service)
        {
            self.give_up(now, service, connection);
        }
    }

    /// Ends the transfer with a failure, and its connection.
    fn fail(&mut self, now: Now, failure: TransferFailure) {
        self.drop_race(now);
        if let Some(running) = &mut self.running {
            running.transfer.fail(failure);
            (running.connect_by, running.finish_by) = (None, None);
            (running.idle_by, running.flush_at) = (None, None);
            running.lookup = None;
        }
        self.drop_current(now);
    }

    /// Sets the time by which bytes must come, if no transport of ours watches for them.
    fn await_bytes(&mut self, now: Now, tcp: bool) {
        if let Some(running) = &mut self.running {
            running.idle_by = tcp.then(|| now.instant + self.config.idle_timeout);
        }
    }

    /// Gives the transfer the received bytes; returns whether there were any.
    fn deliver(&mut self, now: Now) -> bool {
        let current = self
            .current
            .and_then(|service| self.connections.get(service));
        let (Some(running), Some(connection)) = (&mut self.running, current) else {
            return false;
        };
        let mut any = false;
        while running.transfer.is_reading() && running.transfer.has_room() {
            let bytes = connection.ready(self.tcp.streams(), &mut self.stage);
            let count = bytes.len();
            if count == 0 {
                break;
            }
            any = true;
            self.report.received(now.instant, running.begun, count);
            let used = running.transfer.handle_bytes(bytes);
            connection.consume(now, count);
            if used < count {
                connection.handle_excess();
            }
        }
        if any {
            let limit = now.instant + self.config.idle_timeout;
            running.idle_by = running.idle_by.and(Some(limit));
        }
        if any && !running.transfer.is_reading() {
            connection.handle_whole();
        }
        any
    }

    /// Gives the transfer the end of its stream, if it has ended; returns whether it has.
    fn end_stream(&mut self) -> bool {
        let current = self
            .current
            .and_then(|service| self.connections.get(service));
        let (Some(running), Some(connection)) = (&mut self.running, current) else {
            return false;
        };
        if !running.transfer.is_reading() || !running.transfer.has_room() {
            return false;
        }
        match connection.poll_end() {
            Some(end) => {
                running.transfer.handle_end(end);
                true
            }
            None => false,
        }
    }

    /// Passes datagrams to the connections that they are for.
    fn pass_datagrams(&mut self, now: Now, view: &UdpView<'_>, segment: Option<usize>) {
        let mut datagrams = view.datagrams(segment).peekable();
        while let Some(first) = datagrams.peek() {
            let Some(addressee) = ToClient::addressee(first) else {
                self.report.stray("malformed");
                datagrams.next();
                continue;
            };
            let Some(client) = self.connections.addressed(addressee) else {
                self.report.stray("unknown_connection");
                datagrams.next();
                continue;
            };
            // Datagrams that came together mostly are of one connection.
            let is_same = |next: &&[u8]| {
                let next = ToClient::addressee(next);
                next.is_some_and(|next| next.connection == addressee.connection)
            };
            let together = core::iter::from_fn(|| datagrams.next_if(is_same));
            client.handle_datagrams(now, view.path, view.ecn, together);
        }
    }

    fn handle_tcp_events(&mut self) {
        while let Some(event) = self.tcp.streams().poll_event() {
            for connection in self.connections.iter_mut() {
                connection.handle_tcp(self.tcp.streams(), event);
            }
            if let Some(Dns {
                exchanges: Exchanges::Stack(exchanges),
                ..
            }) = &mut self.dns
            {
                exchanges.handle_tcp(event, &mut self.tcp.stack);
            }
        }
    }
}
