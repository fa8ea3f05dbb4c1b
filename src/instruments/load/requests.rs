//! The machine of short connections: each opens, requests one object, and closes when the object is
//! complete; over our transport, or TCP of the stack.
//!
//! In: IP packets and time. Out: IP packets, flights and a [`RequestReport`]. Every connection has a
//! port of its own; a closed one leaves nothing but, on request, an address token for a later one.
//! Never reads a clock. The seed determines every random choice.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use crate::host::connection::ClientConnection;
use crate::host::{Machine, Transmit};
use crate::instruments::load::config::LoadTarget;
use crate::instruments::load::course::{Answer, Course};
use crate::instruments::load::report::{RequestReport, TransportReport};
use crate::instruments::load::rota::Rota;
use crate::instruments::load::schedule::{MAX_UNDER_WAY, Plan};
use crate::instruments::load::{FIRST_PORT, LoadError, all_ports};
use crate::stack::{Demuxed, Stack};
use crate::time::{Instant, Now};
use crate::transport::client::{AddressToken, Client, ClientConfig};
use crate::wire::flight::UdpPath;
use crate::wire::ip::UdpView;

/// Most TCP connections in progress; each has a receive buffer of 4 MiB.
pub const MAX_TCP_UNDER_WAY: u32 = 32;

/// Most unused address tokens; the oldest are dropped.
pub const MAX_TOKENS: usize = 256;

/// Bytes read from a connection at a time.
const STAGE_BYTES: usize = 256 * 1024;

/// Time without an answer after which a connection fails.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The connection of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// Our transport.
    Transport {
        /// Whether connections send the address tokens of earlier ones.
        tokens: bool,
    },
    /// TCP of the stack, reset when the object is complete.
    Tcp,
}

/// The configuration of short connections.
#[derive(Clone, Debug)]
pub struct RequestConfig {
    /// The server, from the first own address of its family.
    pub target: LoadTarget,
    /// The connection of the requests.
    pub bearer: Bearer,
    /// Receive buffer of a connection of our transport, in bytes.
    pub buffer: usize,
    /// The times of requests.
    pub plan: Plan,
}

/// A request in progress.
struct Running {
    meant: Instant,
    connection: ClientConnection,
    /// Local port of our transport.
    port: Option<u16>,
    answer: Answer,
}

/// The machine of short connections.
pub struct RequestHost {
    config: RequestConfig,
    own: IpAddr,
    stack: Stack,
    random: ChaCha8Rng,
    course: Course,
    running: Vec<Option<Running>>,
    free: Vec<usize>,
    /// Index of the request in progress, by local port of our transport.
    by_port: BTreeMap<u16, usize>,
    next_port: u16,
    rota: Rota,
    tokens: VecDeque<AddressToken>,
    stage: Vec<u8>,
    transport: TransportReport,
}

impl RequestHost {
    /// Creates requests that start with the first `poll_transmit`; time counts from `now`.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn new(now: Now, config: RequestConfig) -> Result<Self, LoadError> {
        let target = &config.target;
        target.check()?;
        let own = target.sources().next();
        let own = own.ok_or(LoadError::NoAddress)?;
        let room = match config.bearer {
            Bearer::Transport { .. } => MAX_UNDER_WAY,
            Bearer::Tcp => MAX_TCP_UNDER_WAY,
        };
        let mut random = ChaCha8Rng::seed_from_u64(target.seed);
        let settings = all_ports(&target.addresses, target.mtu, random.random());
        Ok(Self {
            own,
            stack: Stack::new(now.instant, settings)?,
            course: Course::new(now.instant, config.plan, room, random.random()),
            running: Vec::new(),
            free: Vec::new(),
            by_port: BTreeMap::new(),
            next_port: random.random_range(FIRST_PORT..=u16::MAX),
            random,
            rota: Rota::default(),
            tokens: VecDeque::new(),
            stage: vec![0; STAGE_BYTES],
            transport: TransportReport::default(),
            config,
        })
    }

    // --- Getters ---

    /// Whether all requests have ended, or the time for the rest is over.
    #[must_use]
    pub fn is_done(&self, now: Now) -> bool {
        self.course.is_over(now.instant)
    }

    /// The measured interval.
    #[must_use]
    pub const fn window(&self) -> (Instant, Instant) {
        self.course.window()
    }

    /// The number of requests in progress.
    #[must_use]
    pub fn under_way(&self) -> u32 {
        u32::try_from(self.running.iter().flatten().count()).unwrap_or(u32::MAX)
    }

    /// The number of unused address tokens.
    #[must_use]
    pub fn tokens_kept(&self) -> usize {
        self.tokens.len()
    }

    /// Ends the run and returns the report.
    #[must_use]
    pub fn finish(self, now: Now) -> RequestReport {
        let ours = matches!(self.config.bearer, Bearer::Transport { .. });
        RequestReport {
            transport: ours.then_some(self.transport),
            ..self.course.finish(now.instant)
        }
    }

    // --- Connections ---

    /// Starts due requests.
    fn begin(&mut self, now: Now) {
        while let Some(meant) = self.course.take(now.instant) {
            let connected = match self.config.bearer {
                Bearer::Transport { tokens } => Some(self.open(tokens)),
                Bearer::Tcp => {
                    ClientConnection::connect(now, &mut self.stack, self.config.target.remote)
                        .ok()
                        .map(|connection| (connection, None))
                }
            };
            let answer = Answer::default();
            let Some((mut connection, port)) = connected else {
                let failed = Err("not_connected");
                self.course.end(now.instant, meant, failed);
                return;
            };
            connection.request(now, &mut self.stack, self.config.target.head.clone());
            let number = self.free.pop().unwrap_or(self.running.len());
            if number == self.running.len() {
                self.running.push(None);
            }
            if let Some(port) = port {
                self.by_port.insert(port, number);
            }
            if let Some(slot) = self.running.get_mut(number) {
                *slot = Some(Running {
                    meant,
                    connection,
                    port,
                    answer,
                });
            }
            self.rota.note(number);
        }
    }

    /// Opens a connection of our transport on an unused port.
    fn open(&mut self, tokens: bool) -> (ClientConnection, Option<u16>) {
        // Terminates: there are fewer connections than ports.
        while self.by_port.contains_key(&self.next_port) {
            self.next_port = following(self.next_port);
        }
        let port = self.next_port;
        self.next_port = following(port);
        let settings = ClientConfig {
            local: SocketAddr::new(self.own, port),
            remote: self.config.target.remote,
            mtu: self.config.target.mtu,
            buffer: self.config.buffer,
            idle_timeout: IDLE_TIMEOUT,
            token: self.tokens.pop_front().filter(|_| tokens),
        };
        let client = Client::new(settings, self.random.random());
        (ClientConnection::Trickles(Box::new(client)), Some(port))
    }

    /// Reads received bytes, and ends a complete or broken connection.
    fn advance(&mut self, now: Now, number: usize) {
        let Some(Some(running)) = self.running.get_mut(number) else {
            return;
        };
        let ended = loop {
            let connection = &mut running.connection;
            let bytes = connection.ready(&mut self.stack, &mut self.stage);
            let count = bytes.len();
            if count == 0 {
                break connection.poll_end().map(|end| running.answer.end(end));
            }
            let taken = running.answer.take(bytes);
            connection.consume(now, count);
            match taken {
                Ok(true) => break Some(Ok(())),
                Ok(false) => {}
                Err(why) => break Some(Err(why)),
            }
        };
        match ended {
            Some(ended) => self.end(now, number, ended),
            None => self.rota.note(number),
        }
    }

    fn end(&mut self, now: Now, number: usize, ended: Result<(), &'static str>) {
        let Some(running) = self.running.get_mut(number).and_then(Option::take) else {
            return;
        };
        self.free.push(number);
        let ended = ended.map(|()| running.answer.seen());
        self.course.end(now.instant, running.meant, ended);
        if let Some(port) = running.port {
            self.by_port.remove(&port);
        }
        match running.connection {
            ClientConnection::Trickles(client) => {
                if self.tokens.len() >= MAX_TOKENS {
                    self.tokens.pop_front();
                }
                let token = client.address_token().map(|(token, _)| token);
                self.tokens.extend(token);
                self.transport.add(&client.into_stats());
            }
            mut tcp @ ClientConnection::Tcp(_) => tcp.abandon(&mut self.stack),
        }
    }

    fn handle_datagrams(&mut self, now: Now, view: UdpView<'_>, segment: Option<usize>) {
        let UdpPath { src, dst } = view.path;
        let number = self.by_port.get(&dst.port()).copied();
        let number = number.filter(|_| src == self.config.target.remote);
        let running = number.and_then(|number| self.running.get_mut(number)?.as_mut());
        let Some((ClientConnection::Trickles(client), number)) =
            running.map(|running| &mut running.connection).zip(number)
        else {
            self.transport.strays += view.datagrams(segment).count() as u64;
            return;
        };
        client.handle_datagrams(now, view.path, view.ecn, view.datagrams(segment));
        self.advance(now, number);
    }

    /// Dispatches the stack's TCP events.
    fn handle_tcp(&mut self, now: Now) {
        let mut any = false;
        while let Some(event) = self.stack.poll_event() {
            any = true;
            for running in self.running.iter_mut().flatten() {
                running.connection.handle_tcp(&mut self.stack, event);
            }
        }
        if any {
            (0..self.running.len()).for_each(|number| self.advance(now, number));
        }
    }
}

/// Returns the next port.
const fn following(port: u16) -> u16 {
    match port.checked_add(1) {
        Some(port) => port,
        None => FIRST_PORT,
    }
}

impl Machine for RequestHost {
    fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>) {
        match self.stack.handle_packet(now.instant, packet, segment) {
            Demuxed::Transport(view) => self.handle_datagrams(now, view, segment),
            Demuxed::Taken => self.handle_tcp(now),
            Demuxed::Dropped(reason) => log::trace!("packet dropped reason={}", reason.label()),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.stack.handle_timeout(now.instant);
        self.handle_tcp(now);
        while let Some(number) = self.rota.due(now.instant) {
            if let Some(Some(running)) = self.running.get_mut(number)
                && let ClientConnection::Trickles(client) = &mut running.connection
            {
                client.handle_timeout(now);
            }
            self.advance(now, number);
        }
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        self.begin(now);
        while let Some(number) = self.rota.first() {
            let running = self.running.get_mut(number).and_then(Option::as_mut);
            let deadline = match running.map(|running| &mut running.connection) {
                Some(ClientConnection::Trickles(client)) => match client.poll_transmit(now) {
                    Some(flight) => return Some(Transmit::Flight(flight)),
                    None => client.poll_timeout(),
                },
                Some(ClientConnection::Tcp(_)) | None => None,
            };
            self.rota.settle(deadline);
        }
        self.stack.poll_transmit(now.instant).map(Transmit::from)
    }

    fn poll_timeout(&mut self, now: Now) -> Option<(Instant, &'static str)> {
        let next = self.course.next_at(now.instant)?;
        let own = [
            Some((next, "next request")),
            self.rota.next_at(),
            self.stack.poll_timeout(now.instant),
        ];
        own.into_iter().flatten().min()
    }
}
