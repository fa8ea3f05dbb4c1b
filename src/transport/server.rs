//! The server: one datagram in, at most one flight out, no state in between.
//!
//! [`Server::respond`] is a pure function of its arguments and the keys, except for the soft state of
//! `replay`, which has a fixed size and can only suppress packets. It keeps no per-client state, draws
//! no random numbers, and silently drops and counts whatever it cannot verify.

use std::net::SocketAddr;
use std::time::Duration;

use crate::time::Now;
use crate::transport::application::{Application, MAX_STREAM_BYTES, RequestContext, Ticket};
use crate::transport::continuation::{Continuation, MAX_AGE};
use crate::transport::epoch::{Epoch, TransitionKind};
use crate::transport::grant::{Grant, GrantError, Times, grant};
use crate::transport::keys::KeyRing;
use crate::transport::layout::Layout;
use crate::transport::proof::ProofKey;
use crate::transport::replay::{AddressCredit, ReplayFilter, TokenBuckets};
use crate::wire::flight::{Ecn, Flight, UdpPath};
use crate::wire::ip::{max_datagram, udp_headers};
use crate::wire::payload::{Gathered, Pool};
use crate::wire::segment::{
    CHUNK_BYTES, CONTINUATION_FIELD_BYTES, DATA_HEADER_BYTES, OPENED_BYTES, Open, Probed, Request,
    ResponseHeader, ResponseKind, Span, ToServer, Wait,
};

mod address;
mod bound;
mod content;
mod counters;
mod emit;
mod parked;
#[cfg(test)]
mod tests;

use address::Known;
use bound::{Extent, Opening, is_recent};
use content::{Content, Unproduced, clamp, user_field_bytes};
pub use counters::{ServerCounters, ServerDrop};

use emit::{Numbered, Seals, low_bits, small};
use parked::{FlightKey, Parked, ParkedRequests};
pub use parked::{MAX_PARKED, MAX_PARKED_BYTES, MAX_PARKED_REQUEST_BYTES};

/// Most bytes in answer to each byte from an address that has not proven lately that it receives
/// (RFC 9000 §8).
pub const AMPLIFICATION: usize = 3;

/// Most datagrams in answer to an OPEN from such an address, each as long as an OPEN.
pub const MAX_UNPROVEN_PACKETS: u32 = 3;

/// Longest age at which a challenge may be answered.
pub const MAX_CHALLENGE_AGE: Duration = Duration::from_secs(10);

/// When the client of a request that waits asks again: its request may have been lost meanwhile.
pub const WAIT: Duration = Duration::from_secs(1);

/// The same, if the request could not be parked.
pub const UNPARKED_WAIT: Duration = Duration::from_millis(250);

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// This server's id, included in every response.
    pub server_id: u16,
    /// Id of this server's site.
    pub site_id: u16,
    /// MTU: largest IP packet to a client, in bytes (576 to 65,535).
    pub mtu: u16,
}

/// A server without per-client state, with soft state of fixed size.
pub struct Server {
    config: ServerConfig,
    keys: KeyRing,
    filter: ReplayFilter,
    buckets: TokenBuckets,
    credit: AddressCredit,
    parked: ParkedRequests,
    counters: ServerCounters,
    layout: Layout,
    /// The flight in progress; its body is the stream bytes, staged at once.
    gathered: Gathered,
    /// The parts of the stream that are staged in it.
    staged: Vec<Span>,
    pool: Pool,
}

impl Server {
    /// Creates a server with empty soft state.
    #[must_use]
    pub fn new(config: ServerConfig, keys: KeyRing) -> Self {
        Self {
            config,
            keys,
            filter: ReplayFilter::new(),
            buckets: TokenBuckets::new(),
            credit: AddressCredit::new(),
            parked: ParkedRequests::default(),
            counters: ServerCounters::default(),
            layout: Layout::default(),
            gathered: Gathered::default(),
            staged: Vec::new(),
            pool: Pool::default(),
        }
    }

    /// Handles one datagram. `None` if it was dropped; the counters have the reason.
    ///
    /// A round trip between a client and a server, without a network:
    ///
    /// ```
    /// use headwater::*;
    ///
    /// # struct Hello;
    /// # impl Application for Hello {
    /// #     fn begin(&mut self, _: RequestContext, _: &[u8]) -> Result<Begun, Unavailable> {
    /// #         Ok(Begun { user: Vec::new(), length: Some(5) })
    /// #     }
    /// #     fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
    /// #         Ok(copy_at(b"hello", part.offset, out))
    /// #     }
    /// # }
    /// let now = Now::default();
    /// let (local, remote) = ("192.0.2.7:50000".parse()?, "192.0.2.1:7600".parse()?);
    /// let mut client = Client::new(ClientConfig::builder(local, remote).build()?, 1);
    /// let config = ServerConfig { server_id: 1, site_id: 0, mtu: 1500 };
    /// let mut server = Server::new(config, KeyRing::with_secret([7; SECRET_BYTES]));
    ///
    /// client.request(now, b"anything");
    /// let open = client.poll_transmit(now).expect("an OPEN");
    /// for datagram in open.datagrams() {
    ///     let answer = server.respond(now, open.path, &datagram, &mut Hello).expect("an answer");
    ///     for datagram in answer.datagrams() {
    ///         let datagram = std::iter::once(&*datagram);
    ///         client.handle_datagrams(now, answer.path, answer.ecn, datagram);
    ///     }
    /// }
    /// let mut body = [0; 16];
    /// let count = client.read(now, &mut body);
    /// assert_eq!(&body[..count], b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn respond(
        &mut self,
        now: Now,
        path: UdpPath,
        datagram: &[u8],
        app: &mut dyn Application,
    ) -> Option<Flight> {
        match self.answer(now, path, datagram, false, app) {
            Ok(flight) => Some(flight),
            Err(Unanswered::Waits(waiting)) => Some(self.wait(path, datagram, &waiting)),
            Err(Unanswered::Dropped(drop)) => {
                self.counters.drop(drop);
                None
            }
        }
    }

    /// Takes note that the application has done the work of a ticket: the requests that wait for it are
    /// the next that [`poll_parked`](Self::poll_parked) answers.
    pub fn wake(&mut self, ticket: Ticket) {
        self.parked.wake(ticket);
    }

    /// Returns the answer to the next request that waited, if one can be answered now.
    pub fn poll_parked(&mut self, now: Now, app: &mut dyn Application) -> Option<Flight> {
        while let Some(parked) = self.parked.pop_ready() {
            match self.answer(now, parked.path, &parked.datagram, true, app) {
                Ok(flight) => return Some(flight),
                Err(Unanswered::Waits(Waiting { key, ticket, .. })) => {
                    self.parked.park(key, ticket, parked);
                }
                Err(Unanswered::Dropped(drop)) => self.counters.drop(drop),
            }
        }
        None
    }

    /// The number of requests that wait for the application, at most [`MAX_PARKED`].
    #[must_use]
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// The bytes of the requests that wait, at most [`MAX_PARKED_BYTES`].
    #[must_use]
    pub const fn parked_bytes(&self) -> usize {
        self.parked.bytes()
    }

    /// Answers one datagram; `parked`: it has waited.
    fn answer(
        &mut self,
        now: Now,
        path: UdpPath,
        datagram: &[u8],
        parked: bool,
        app: &mut dyn Application,
    ) -> Result<Flight, Unanswered> {
        let flight = match ToServer::parse(datagram).map_err(ServerDrop::from)? {
            ToServer::Open(open) => self.open(now, path, &open, datagram.len(), app)?,
            ToServer::Request(request) => {
                let received = Received {
                    bytes: datagram.len(),
                    parked,
                };
                self.request(now, path, &request, received, app)?
            }
        };
        self.counters.packets += flight.count() as u64;
        Ok(flight)
    }

    /// Parks a request, and asks its client to wait.
    fn wait(&mut self, path: UdpPath, datagram: &[u8], waiting: &Waiting) -> Flight {
        let datagram = datagram.to_vec();
        let parked = Parked { path, datagram };
        let delay = match self.parked.park(waiting.key, waiting.ticket, parked) {
            true => WAIT,
            false => UNPARKED_WAIT,
        };
        let mut payload = Vec::new();
        Wait {
            connection: waiting.connection,
            server: self.config.server_id,
            number: low_bits(waiting.key.1),
            stream: waiting.stream,
            delay_ms: u16::try_from(delay.as_millis()).unwrap_or(u16::MAX),
        }
        .emit(&mut payload);
        self.counters.waits += 1;
        self.counters.packets += 1;
        Flight::single(path.reversed(), Ecn::NotEct, payload)
    }

    /// The counters since the start.
    #[must_use]
    pub const fn counters(&self) -> &ServerCounters {
        &self.counters
    }

    /// The memory of the soft state in bytes; constant.
    #[must_use]
    pub const fn soft_state_bytes(&self) -> usize {
        self.filter.bytes() + self.buckets.bytes() + self.credit.bytes()
    }

    /// Replaces the key ring.
    pub fn set_keys(&mut self, keys: KeyRing) {
        self.keys = keys;
    }

    /// Largest UDP payload to an address of the family of `client`, in bytes.
    fn datagram_max(&self, client: SocketAddr) -> u16 {
        max_datagram(self.config.mtu, client.ip())
    }

    fn open(
        &mut self,
        now: Now,
        path: UdpPath,
        open: &Open<'_>,
        bytes: usize,
        app: &mut dyn Application,
    ) -> Result<Flight, ServerDrop> {
        let known = match open.token {
            Some(token) => self.token_proves(now, path, token),
            None => Known::Not,
        };
        let datagram_max = open.size.min(self.datagram_max(path.src));
        let context = context(now, path, known != Known::Not);
        // Without bytes in memory the answer has none: the client asks again by a request, which proves
        // its address, before any work is done for it.
        let mut content = match self.content(context, open.wanted, app) {
            Ok(content) => content,
            Err(Unproduced::Waits(_)) => Content::default(),
            Err(Unproduced::Dropped(drop)) => return Err(drop),
        };
        let (connection, identity) = self.new_identity(now, path, open.echo);
        let mut continuation = self.first_continuation(now, path, identity, datagram_max);
        continuation.proven = matches!(known, Known::Lately { .. });
        // The window of the opening epoch is the number of packets sent, so the layout comes first;
        // the length of the continuation does not depend on it: both are below 64.
        let each = OPENED_BYTES + 1 + continuation.sealed_bytes(now.unix);
        let first = content
            .sealed
            .as_ref()
            .map_or(0, |sealed| user_field_bytes(sealed));
        let wanted = clamp(
            &content,
            &[Span {
                start: open.offset,
                end: MAX_STREAM_BYTES,
            }],
        );
        let opening = Opening {
            known,
            bytes,
            size: usize::from(datagram_max),
            each,
            first,
        };
        let Extent { size, count, .. } = self.lay_out_opening(now, path, &opening, &wanted)?;
        let fit = |layout: &mut Layout, have: &[Span]| layout.fill(size - each, count, first, have);
        if self.stage(context, &mut content, app, fit).is_err() {
            self.clear_stage();
        }
        let count = u32::try_from(self.layout.len()).unwrap_or(count).max(1);
        continuation.epoch = Epoch::opening(count);
        let sealed = continuation.seal(&self.keys, connection, now.unix);
        let kind = ResponseKind::Opened {
            echo: open.echo,
            size: datagram_max,
            count: small(count),
        };
        let header = self.header(kind, connection, open.stream, content.changed);
        let send = (1 << count) - 1;
        let numbered = Numbered::new(header, identity, (1, count), send, size);
        self.counters.opens += 1;
        let (flight, _) = self.flight(path, &numbered, &content.seals(&sealed, true));
        Ok(flight)
    }

    const fn first_continuation(
        &self,
        now: Now,
        path: UdpPath,
        identity: ProofKey,
        datagram_max: u16,
    ) -> Continuation {
        Continuation {
            identity,
            epoch: Epoch::opening(1),
            epoch_start: now.unix,
            curve_start: now.unix,
            proof_base: 0,
            proven: false,
            address: path.src,
            datagram_max,
            server: self.config.server_id,
            site: self.config.site_id,
        }
    }

    /// The continuation after a request that was found genuine.
    fn next_continuation(
        &self,
        now: Now,
        path: UdpPath,
        shown: &Continuation,
        granted: &Grant,
    ) -> Continuation {
        Continuation {
            proven: true,
            address: path.src,
            server: self.config.server_id,
            site: self.config.site_id,
            ..granted.follow(*shown, now.unix)
        }
    }

    fn request(
        &mut self,
        now: Now,
        path: UdpPath,
        request: &Request<'_>,
        received: Received,
        app: &mut dyn Application,
    ) -> Result<Flight, Unanswered> {
        let (continuation, issued) = Continuation::open(
            &self.keys,
            request.connection,
            now.unix,
            MAX_AGE,
            request.continuation,
        )
        .map_err(ServerDrop::from)?;
        if usize::from(request.size) > usize::from(self.datagram_max(path.src)) {
            return Err(ServerDrop::Oversized.into());
        }
        // The zone of a link-local address is an interface of this server, and not sealed.
        let known = continuation.address;
        let same = (known.ip(), known.port()) == (path.src.ip(), path.src.port());
        if !same && !self.cookie_verifies(now, path, request) {
            return Ok(self.challenge(now, path, request, continuation.address.ip())?);
        }
        let moved = !same && continuation.address.ip() != path.src.ip();
        let declared = request
            .declared
            .and_then(|declared| TransitionKind::from_code(declared.kind));
        let restarts = matches!(
            declared,
            Some(TransitionKind::Restart | TransitionKind::Move)
        );
        if moved && !restarts {
            return Err(ServerDrop::MovedWithoutRestart.into());
        }
        let granted = grant(
            &continuation,
            Times {
                now: now.unix,
                issued,
                moved,
            },
            request,
        )
        .map_err(ServerDrop::from)?;
        let next = self.next_continuation(now, path, &continuation, &granted);
        let bucketed = request.probe.is_some()
            || granted
                .transition
                .is_some_and(|transition| !transition.kind.has_zone());
        // The answer to a timeout may be lost like any other. Other events are declared anew by a timeout.
        let unfiltered = granted
            .transition
            .is_some_and(|transition| transition.kind == TransitionKind::Timeout);
        // A request that has waited took its token when it came.
        let takes = bucketed && !received.parked;
        if takes && !self.buckets.take(now.instant, continuation.identity.hash()) {
            return Err(ServerDrop::TooOften.into());
        }
        let judged = Judged {
            next,
            granted,
            unfiltered,
            // A challenge that was answered is younger still.
            recent: !same || is_recent(now.unix, issued),
            bytes: received.bytes,
        };
        match request.probe {
            Some(probe) => Ok(self.probed(now, path, request, probe, &judged)?),
            None => self.data(now, path, request, &judged, app),
        }
    }

    fn probed(
        &mut self,
        now: Now,
        path: UdpPath,
        request: &Request<'_>,
        probe: u32,
        judged: &Judged,
    ) -> Result<Flight, ServerDrop> {
        if judged.granted.count > 0 {
            return Err(ServerDrop::Grant(GrantError::Interval));
        }
        let sealed = judged.next.seal(&self.keys, request.connection, now.unix);
        let mut payload = Vec::with_capacity(DATA_HEADER_BYTES + CONTINUATION_FIELD_BYTES);
        let (connection, server) = (request.connection, self.config.server_id);
        Probed {
            connection,
            server,
            probe,
            continuation: &sealed,
        }
        .emit(&mut payload);
        self.counters.requests += 1;
        Ok(Flight::single(path.reversed(), Ecn::NotEct, payload))
    }

    fn data(
        &mut self,
        now: Now,
        path: UdpPath,
        request: &Request<'_>,
        judged: &Judged,
        app: &mut dyn Application,
    ) -> Result<Flight, Unanswered> {
        let (next, granted) = (&judged.next, &judged.granted);
        let connection = next.identity.hash();
        let send = match judged.unfiltered {
            true => (1 << granted.count) - 1,
            false => self.filter.unsent(connection, granted.first, granted.count),
        };
        if send == 0 {
            return Err(match granted.count {
                0 => ServerDrop::Nothing.into(),
                _ => ServerDrop::Replayed.into(),
            });
        }
        let context = context(now, path, true);
        let waiting = |ticket| Waiting {
            connection: request.connection,
            key: (connection, granted.first),
            stream: request.stream,
            ticket,
        };
        let mut content = match self.content(context, request.wanted, app) {
            Ok(content) => content,
            Err(Unproduced::Waits(ticket)) => return Err(Unanswered::Waits(waiting(ticket))),
            Err(Unproduced::Dropped(drop)) => return Err(drop.into()),
        };
        let extent = self.lay_out(now, path, request, judged, &mut content)?;
        let taken = taken_by(request, &content);
        let fit = |layout: &mut Layout, have: &[Span]| {
            layout.fill(extent.room, extent.count, taken, have);
        };
        self.stage(context, &mut content, app, fit)
            .map_err(|ticket| Unanswered::Waits(waiting(ticket)))?;
        let sealed = match request.wants_continuation {
            true => next.seal(&self.keys, request.connection, now.unix),
            false => Vec::new(),
        };
        let header = self.header(
            ResponseKind::Data,
            request.connection,
            request.stream,
            content.changed,
        );
        let numbers = (granted.first, granted.count);
        let numbered = Numbered::new(header, next.identity, numbers, send, extent.size);
        self.counters.requests += 1;
        let (flight, sent) = self.flight(path, &numbered, &content.seals(&sealed, false));
        self.filter.mark(connection, granted.first, sent);
        Ok(flight)
    }

    /// Lays out the bytes of an answer: those that the numbers granted have room for, or fewer for an address
    /// that has not proven lately that it receives. Leaves out a stream that does not fit then.
    fn lay_out(
        &mut self,
        now: Now,
        path: UdpPath,
        request: &Request<'_>,
        judged: &Judged,
        content: &mut Content,
    ) -> Result<Extent, ServerDrop> {
        let size = usize::from(request.size);
        let mut extent = Extent::new(size, judged.granted.count);
        let taken = taken_by(request, content);
        check_room(size, taken)?;
        let ranges = clamp(content, &request.ranges);
        self.layout.fill(size, extent.count, taken, &ranges);
        let headers = udp_headers(path.src.ip());
        let answer = self.layout.len() * (size + headers);
        let earned = AMPLIFICATION * judged.bytes;
        let bounded =
            !judged.recent || judged.unfiltered && !self.affords(now, path, answer, earned);
        if bounded {
            extent = extent.bounded(judged.bytes, headers);
            if !extent.has_room(taken) {
                *content = Content::default();
            }
            let (taken, ranges) = (taken_by(request, content), clamp(content, &ranges));
            self.layout.fill(extent.room, extent.count, taken, &ranges);
        }
        Ok(extent)
    }

    /// Emits the flight after its layout and staging; returns its numbers as well.
    fn flight(&mut self, path: UdpPath, numbered: &Numbered, seals: &Seals<'_>) -> (Flight, u64) {
        self.counters.bytes += self.gathered.staged() as u64;
        let sent = numbered.emit(&self.layout, seals, &mut self.gathered);
        let flight = Flight {
            path: path.reversed(),
            ecn: Ecn::Ect0,
            segment: numbered.size,
            payload: self.pool.lend(&mut self.gathered),
        };
        (flight, sent)
    }

    const fn header(
        &self,
        kind: ResponseKind,
        connection: u64,
        stream: u8,
        changed: bool,
    ) -> ResponseHeader {
        ResponseHeader {
            kind,
            connection,
            number: 0,
            x: 0,
            server: self.config.server_id,
            stream,
            void: 0,
            changed,
            multi: false,
        }
    }
}

/// How a datagram came.
#[derive(Clone, Copy)]
struct Received {
    bytes: usize,
    /// It has waited for the application.
    parked: bool,
}

/// A request found genuine, and its entitlement.
struct Judged {
    next: Continuation,
    granted: Grant,
    /// It bypasses the replay filter.
    unfiltered: bool,
    /// Its address has proven lately that it receives.
    recent: bool,
    bytes: usize,
}

/// The circumstances of a request.
const fn context(now: Now, path: UdpPath, proven: bool) -> RequestContext {
    RequestContext {
        now: now.unix,
        proven,
        source: path.src.ip(),
    }
}

/// Bytes of the first datagram of an answer that its sealed parts take.
fn taken_by(request: &Request<'_>, content: &Content) -> usize {
    let sealed = content.sealed.as_ref();
    let user = sealed.map_or(0, |sealed| user_field_bytes(sealed));
    match request.wants_continuation {
        true => CONTINUATION_FIELD_BYTES + user,
        false => user,
    }
}

/// Why a datagram has no answer yet, or none at all.
enum Unanswered {
    Dropped(ServerDrop),
    Waits(Waiting),
}

impl From<ServerDrop> for Unanswered {
    fn from(drop: ServerDrop) -> Self {
        Self::Dropped(drop)
    }
}

/// A genuine request whose bytes are not there yet.
struct Waiting {
    connection: u64,
    key: FlightKey,
    stream: u8,
    ticket: Ticket,
}

/// Checks that the first datagram of an answer has room for its fixed part and a chunk.
fn check_room(size: usize, taken: usize) -> Result<(), ServerDrop> {
    match size > DATA_HEADER_BYTES + taken + CHUNK_BYTES {
        true => Ok(()),
        false => Err(ServerDrop::Undersized),
    }
}
