//! HTTP/1.1 over TCP connections, of the stack or of the kernel, for clients that do not speak our transport.
//!
//! In: TCP events and bytes. Out: the response streams of the same [`Application`] that the
//! transport serves, read into send buffers as they drain. Serves the requests of a connection one
//! after the other (RFC 9112 §9.3.2). Keeps one head and one position per connection, never a body;
//! clients that are slow with a head, and readers that take nothing, time out. A reader that takes
//! 4 kB every now and then is served to the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::host::streams::{CloseReason, TcpError, TcpEvent, TcpId, TcpProgress, TcpStreams};
use crate::http::request::RequestHead;
use crate::http::{HeadError, MAX_HEAD_BYTES, Version};
use crate::time::{Deadlines, Instant, Now};
use crate::transport::application::{Application, RequestContext, StreamPart, Ticket, Unavailable};

/// Longest time for a request head, from its first byte.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time for a connection without a request.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest time in which a reader takes neither all nor 4 kB of the bytes sent to it.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time for which a connection lingers after the peer has our last byte.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time for responses in progress once the server shuts down.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time for the application to become ready.
pub const READY_TIMEOUT: Duration = Duration::from_secs(300);

/// Interval between polls of an application that is not ready.
pub const READY_INTERVAL: Duration = Duration::from_millis(50);

/// Most bytes read from the application at a time.
const STAGE_BYTES: usize = 64 * 1024;

/// Counters since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Requests answered.
    pub requests: u64,
    /// Response bytes written to TCP.
    pub bytes: u64,
    /// Connections aborted by a timeout.
    pub timeouts: u64,
    /// Connections reset to make room for others.
    pub evictions: u64,
    /// Responses aborted because their object changed.
    pub changed: u64,
}

impl WebCounters {
    /// The sums with other counters.
    pub(super) const fn plus(&self, other: &Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            requests: self.requests + other.requests,
            bytes: self.bytes + other.bytes,
            timeouts: self.timeouts + other.timeouts,
            evictions: self.evictions + other.evictions,
            changed: self.changed + other.changed,
        }
    }
}

/// A response in progress.
struct Streaming {
    user: Vec<u8>,
    length: Option<u64>,
    offset: u64,
    persistent: bool,
}

enum WebPhase {
    /// Awaits a head; `inbox` holds the bytes received so far.
    Head,
    /// The application is not ready to begin; holds its request and the deadline.
    Beginning {
        request: Vec<u8>,
        persistent: bool,
        until: Instant,
    },
    /// Sends the response; `until`: deadline while the application is not ready to continue.
    Streaming {
        stream: Streaming,
        until: Option<Instant>,
    },
    /// Our side is closed.
    Closing,
}

struct WebConnection {
    /// The client's address.
    source: IpAddr,
    inbox: Vec<u8>,
    phase: WebPhase,
    /// The work that it waits for.
    ticket: Option<Ticket>,
    /// The next time to act: to time out, or to poll the application.
    deadline: Instant,
    /// The time at which the deadline is looked at.
    due: Option<Instant>,
}

impl WebConnection {
    /// The deadline, as far as the peer's progress moves it.
    fn patience(&self, progress: TcpProgress) -> Instant {
        let TcpProgress { queued, since } = progress;
        let grace = match self.phase {
            WebPhase::Head | WebPhase::Closing if queued > 0 => SEND_TIMEOUT,
            WebPhase::Head if self.inbox.is_empty() => IDLE_TIMEOUT,
            WebPhase::Streaming { until: None, .. } => SEND_TIMEOUT,
            WebPhase::Closing => CLOSE_TIMEOUT,
            WebPhase::Head | WebPhase::Beginning { .. } | WebPhase::Streaming { .. } => {
                return self.deadline;
            }
        };
        self.deadline.max(since + grace)
    }
}

/// The next step of a connection.
enum Next {
    /// Continue in its new phase.
    Again,
    /// Wait for an event or the deadline.
    Wait,
    /// Reset it.
    Abort,
}

/// All HTTP connections of an endpoint; those whose connections they are bound their number.
pub struct Web {
    connections: BTreeMap<TcpId, WebConnection>,
    /// The connections that wait for the application, by the work.
    waiting: BTreeMap<Ticket, BTreeSet<TcpId>>,
    deadlines: Deadlines<TcpId>,
    shuts_down: bool,
    /// While the server shuts down: the time at which all connections are reset.
    reset_at: Option<Instant>,
    stage: Vec<u8>,
    counters: WebCounters,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            connections: BTreeMap::new(),
            waiting: BTreeMap::new(),
            deadlines: Deadlines::default(),
            shuts_down: false,
            reset_at: None,
            stage: vec![0; STAGE_BYTES],
            counters: WebCounters::default(),
        }
    }
}

impl Web {
    /// The counters since the start.
    #[must_use]
    pub const fn counters(&self) -> &WebCounters {
        &self.counters
    }

    /// The number of open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Serves all pending TCP events; call it after the stack handled a packet.
    pub fn handle_events(
        &mut self,
        now: Now,
        stack: &mut impl TcpStreams,
        app: &mut dyn Application,
    ) {
        while let Some(event) = stack.poll_event() {
            match event {
                TcpEvent::Accepted { id, remote, .. } => {
                    self.counters.accepted += 1;
                    let connection = WebConnection {
                        source: remote.ip(),
                        inbox: Vec::new(),
                        phase: WebPhase::Head,
                        ticket: None,
                        deadline: now.instant + IDLE_TIMEOUT,
                        due: None,
                    };
                    self.connections.insert(id, connection);
                    self.serve(now, id, stack, app);
                }
                TcpEvent::Readable(id) | TcpEvent::Writable(id) | TcpEvent::Connected(id) => {
                    self.serve(now, id, stack, app);
                }
                TcpEvent::Closed(id, reason) => {
                    self.counters.evictions += u64::from(reason == CloseReason::Evicted);
                    self.remove(id);
                }
            }
        }
    }

    /// Aborts connections that timed out, and polls the application again where it was not ready.
    pub fn handle_timeout(
        &mut self,
        now: Now,
        stack: &mut impl TcpStreams,
        app: &mut dyn Application,
    ) {
        if self.reset_at.is_some_and(|at| at <= now.instant) {
            return self.reset_all(stack);
        }
        while let Some(id) = self.deadlines.pop_due(now.instant) {
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            connection.due = None;
            let until = match connection.phase {
                WebPhase::Beginning { until, .. } => Some(until),
                WebPhase::Streaming { until, .. } => until,
                WebPhase::Head | WebPhase::Closing => None,
            };
            if connection.deadline > now.instant {
                self.schedule(id);
            } else if until.is_some_and(|until| now.instant < until) {
                connection.deadline = now.instant + READY_INTERVAL;
                self.serve(now, id, stack, app);
            } else {
                let progress = stack.progress(id);
                let later = progress.map(|progress| connection.patience(progress));
                if let Some(later) = later.filter(|later| *later > now.instant) {
                    connection.deadline = later;
                    self.schedule(id);
                } else if matches!(connection.phase, WebPhase::Head) && connection.inbox.is_empty()
                {
                    self.counters.timeouts += 1;
                    close(now, id, connection, stack);
                    self.schedule(id);
                } else {
                    self.counters.timeouts += 1;
                    self.remove(id);
                    stack.abort(id);
                }
            }
        }
    }

    /// Serves the connections that wait for the work of a ticket, which is done.
    pub fn wake(
        &mut self,
        now: Now,
        ticket: Ticket,
        stack: &mut impl TcpStreams,
        app: &mut dyn Application,
    ) {
        for id in self.waiting.remove(&ticket).unwrap_or_default() {
            self.serve(now, id, stack, app);
        }
    }

    /// Whether connections wait for the work of a ticket.
    pub(super) fn waits_for(&self, ticket: Ticket) -> bool {
        self.waiting.contains_key(&ticket)
    }

    /// Takes note that a connection waits for the application no more.
    fn end_wait(&mut self, id: TcpId) {
        let connection = self.connections.get_mut(&id);
        let Some(ticket) = connection.and_then(|connection| connection.ticket.take()) else {
            return;
        };
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.remove(&id);
            if waiting.is_empty() {
                self.waiting.remove(&ticket);
            }
        }
    }

    /// The time of the next `handle_timeout`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [self.deadlines.earliest(), self.reset_at];
        deadlines.into_iter().flatten().min()
    }

    /// Ends all connections: idle ones at once, the others after the response in progress, or with a
    /// reset after [`SHUTDOWN_TIMEOUT`]. New ones are refused.
    pub fn shut_down(&mut self, now: Now, stack: &mut impl TcpStreams) {
        stack.stop_listening();
        if !std::mem::replace(&mut self.shuts_down, true) {
            self.reset_at = Some(now.instant + SHUTDOWN_TIMEOUT);
        }
        for (&id, connection) in &mut self.connections {
            match &mut connection.phase {
                WebPhase::Head if connection.inbox.is_empty() => {
                    close(now, id, connection, stack);
                }
                WebPhase::Beginning { persistent, .. } => *persistent = false,
                WebPhase::Streaming { stream, .. } => stream.persistent = false,
                WebPhase::Head | WebPhase::Closing => {}
            }
        }
    }

    /// Whether the server shuts down and all connections have ended.
    #[must_use]
    pub fn is_shut_down(&self) -> bool {
        self.shuts_down && self.connections.is_empty()
    }

    fn reset_all(&mut self, stack: &mut impl TcpStreams) {
        self.reset_at = None;
        self.deadlines = Deadlines::default();
        self.waiting.clear();
        for id in std::mem::take(&mut self.connections).into_keys() {
            stack.abort(id);
        }
    }

    /// Forgets a connection.
    fn remove(&mut self, id: TcpId) {
        self.end_wait(id);
        if let Some(mut connection) = self.connections.remove(&id) {
            self.deadlines.cancel(&mut connection.due, id);
        }
    }

    /// Looks at the deadline of a connection in time.
    fn schedule(&mut self, id: TcpId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let at = connection.deadline;
            self.deadlines.at_latest(&mut connection.due, id, at);
        }
    }

    fn serve(
        &mut self,
        now: Now,
        id: TcpId,
        stack: &mut impl TcpStreams,
        app: &mut dyn Application,
    ) {
        self.end_wait(id);
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let counters = &mut self.counters;
        loop {
            let next = match connection.phase {
                WebPhase::Head => receive_head(now, id, connection, stack, self.shuts_down),
                WebPhase::Beginning { .. } => begin(now, connection, app, counters),
                WebPhase::Streaming { .. } => stream(now, id, connection, stack, app, counters),
                WebPhase::Closing => discard(id, stack, &mut self.stage),
            };
            match next {
                Next::Again => {}
                Next::Wait => {
                    if let Some(ticket) = connection.ticket {
                        self.waiting.entry(ticket).or_default().insert(id);
                    }
                    return self.schedule(id);
                }
                Next::Abort => {
                    self.remove(id);
                    return stack.abort(id);
                }
            }
        }
    }
}

/// Collects a request head; pipelined bytes stay in the inbox. `last`: no other may follow.
fn receive_head(
    now: Now,
    id: TcpId,
    connection: &mut WebConnection,
    stack: &mut impl TcpStreams,
    last: bool,
) -> Next {
    // First the inbox: a pipelined request may be there already.
    loop {
        if !connection.inbox.is_empty() {
            match RequestHead::parse(&connection.inbox) {
                Ok((head, length)) => {
                    let request = connection.inbox.drain(..length).collect();
                    // RFC 9112 §9.3: bodies are not read, so no request can follow one. An HTTP/1.0
                    // connection could persist only with a field that our streams lack.
                    let kept = head.version == Version::Http11 && head.is_persistent();
                    let persistent = kept && !head.has_body() && !last;
                    return begin_phase(now, connection, request, persistent);
                }
                Err(HeadError::Incomplete) if connection.inbox.len() < MAX_HEAD_BYTES => {}
                Err(_) => {
                    // The application also answers malformed heads.
                    let request = core::mem::take(&mut connection.inbox);
                    return begin_phase(now, connection, request, false);
                }
            }
        }
        let mut piece = [0; 2048];
        let room = (MAX_HEAD_BYTES - connection.inbox.len()).min(piece.len());
        match stack.receive(id, piece.get_mut(..room).unwrap_or_default()) {
            Ok(0) => return Next::Wait,
            Ok(count) => {
                if connection.inbox.is_empty() {
                    connection.deadline = now.instant + HEAD_TIMEOUT;
                }
                connection
                    .inbox
                    .extend_from_slice(piece.get(..count).unwrap_or_default());
            }
            Err(TcpError::Finished) => {
                close(now, id, connection, stack);
                return Next::Wait;
            }
            Err(_) => return Next::Wait,
        }
    }
}

fn begin_phase(
    now: Now,
    connection: &mut WebConnection,
    request: Vec<u8>,
    persistent: bool,
) -> Next {
    connection.phase = WebPhase::Beginning {
        request,
        persistent,
        until: now.instant + READY_TIMEOUT,
    };
    Next::Again
}

fn begin(
    now: Now,
    connection: &mut WebConnection,
    app: &mut dyn Application,
    counters: &mut WebCounters,
) -> Next {
    let WebPhase::Beginning {
        request,
        persistent,
        ..
    } = &connection.phase
    else {
        return Next::Wait;
    };
    match app.begin(proven(now, connection.source), request) {
        Ok(begun) => {
            counters.requests += 1;
            let stream = Streaming {
                user: begun.user,
                length: begun.length,
                offset: 0,
                // RFC 9112 §6.3: a response of unknown length ends with its connection.
                persistent: *persistent && begun.length.is_some(),
            };
            connection.phase = WebPhase::Streaming {
                stream,
                until: None,
            };
            connection.deadline = now.instant + SEND_TIMEOUT;
            Next::Again
        }
        Err(Unavailable::NotReady(ticket)) => {
            connection.ticket = Some(ticket);
            connection.deadline = now.instant + READY_INTERVAL;
            Next::Wait
        }
        Err(Unavailable::Changed) => Next::Abort,
    }
}

/// Reads as much of the response as the send buffer accepts.
fn stream(
    now: Now,
    id: TcpId,
    connection: &mut WebConnection,
    stack: &mut impl TcpStreams,
    app: &mut dyn Application,
    counters: &mut WebCounters,
) -> Next {
    let WebPhase::Streaming { stream, until } = &mut connection.phase else {
        return Next::Wait;
    };
    let context = proven(now, connection.source);
    if stream.offset == 0 {
        stack.expect_to_send(now.instant, id, stream.length.unwrap_or(u64::MAX));
    }
    loop {
        stream.length = stream.length.or_else(|| app.length(context, &stream.user));
        let end = stream.length.unwrap_or(u64::MAX);
        let left = usize::try_from(end.saturating_sub(stream.offset)).unwrap_or(usize::MAX);
        if left == 0 {
            break;
        }
        let sent = stack.send_with(now.instant, id, left.min(STAGE_BYTES), |room| {
            app.read(StreamPart::new(context, &stream.user, stream.offset), room)
        });
        let sent = match sent {
            // An event follows when there is room.
            Ok(None) => return Next::Wait,
            Ok(Some(Ok(0))) | Err(_) => return Next::Abort,
            Ok(Some(Ok(sent))) => u64::try_from(sent).unwrap_or(0),
            Ok(Some(Err(Unavailable::NotReady(ticket)))) => {
                connection.ticket = Some(ticket);
                until.get_or_insert(now.instant + READY_TIMEOUT);
                connection.deadline = now.instant + READY_INTERVAL;
                return Next::Wait;
            }
            Ok(Some(Err(Unavailable::Changed))) => {
                counters.changed += 1;
                return Next::Abort;
            }
        };
        *until = None;
        counters.bytes += sent;
        stream.offset += sent;
        connection.deadline = now.instant + SEND_TIMEOUT;
    }
    if stream.persistent {
        stack.expect_to_send(now.instant, id, 0);
        connection.phase = WebPhase::Head;
        connection.deadline = now.instant + IDLE_TIMEOUT;
        Next::Again
    } else {
        close(now, id, connection, stack);
        Next::Again
    }
}

/// The circumstances of a request over TCP, whose handshake has proven the client's address.
const fn proven(now: Now, source: IpAddr) -> RequestContext {
    RequestContext {
        now: now.unix,
        proven: true,
        source,
    }
}

fn close(now: Now, id: TcpId, connection: &mut WebConnection, stack: &mut impl TcpStreams) {
    stack.close(id);
    connection.phase = WebPhase::Closing;
    connection.deadline = now.instant + CLOSE_TIMEOUT;
}

/// Discards further input, so that the close is orderly (RFC 9112 §9.6).
fn discard(id: TcpId, stack: &mut impl TcpStreams, stage: &mut [u8]) -> Next {
    match stack.receive(id, stage) {
        Ok(0) | Err(_) => Next::Wait,
        Ok(_) => Next::Again,
    }
}
