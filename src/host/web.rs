//! HTTP/1.1 over the stack's TCP connections, for clients that do not speak our transport.
//!
//! In: TCP events and bytes. Out: the response streams of the same [`Application`] that the
//! transport serves, copied into send buffers as they drain. Serves the requests of a connection one
//! after the other (RFC 9112 §9.3.2). Keeps one head and one position per connection, never a body;
//! slow clients and slow readers time out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::http::request::RequestHead;
use crate::http::{HeadError, MAX_HEAD_BYTES, Version};
use crate::stack::{Stack, TcpError, TcpEvent, TcpId};
use crate::time::{Instant, Now};
use crate::transport::application::{Application, Unavailable};

/// Longest time for a request head, from its first byte.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time for a connection without a request.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest time in which a reader accepts nothing.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time for which a connection lingers after our last byte.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Responses aborted because their object changed.
    pub changed: u64,
}

/// A response in progress.
struct Streaming {
    user: Vec<u8>,
    length: u64,
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
    inbox: Vec<u8>,
    phase: WebPhase,
    /// The next time to act: to time out, or to poll the application.
    deadline: Instant,
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

/// All HTTP connections of an endpoint; the stack bounds their number.
pub struct Web {
    connections: BTreeMap<TcpId, WebConnection>,
    stage: Vec<u8>,
    counters: WebCounters,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            connections: BTreeMap::new(),
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
    pub fn handle_events(&mut self, now: Now, stack: &mut Stack, app: &mut dyn Application) {
        while let Some(event) = stack.poll_event() {
            match event {
                TcpEvent::Accepted { id, .. } => {
                    self.counters.accepted += 1;
                    let connection = WebConnection {
                        inbox: Vec::new(),
                        phase: WebPhase::Head,
                        deadline: now.instant + IDLE_TIMEOUT,
                    };
                    self.connections.insert(id, connection);
                    self.serve(now, id, stack, app);
                }
                TcpEvent::Readable(id) | TcpEvent::Writable(id) | TcpEvent::Connected(id) => {
                    self.serve(now, id, stack, app);
                }
                TcpEvent::Closed(id, _) => {
                    self.connections.remove(&id);
                }
            }
        }
    }

    /// Aborts connections that timed out, and polls the application again where it was not ready.
    pub fn handle_timeout(&mut self, now: Now, stack: &mut Stack, app: &mut dyn Application) {
        let due: Vec<TcpId> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.deadline <= now.instant)
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            let Some(connection) = self.connections.get(&id) else {
                continue;
            };
            let until = match connection.phase {
                WebPhase::Beginning { until, .. } => Some(until),
                WebPhase::Streaming { until, .. } => until,
                WebPhase::Head | WebPhase::Closing => None,
            };
            if until.is_some_and(|until| now.instant < until) {
                self.serve(now, id, stack, app);
            } else {
                self.counters.timeouts += 1;
                self.connections.remove(&id);
                stack.abort(id);
            }
        }
    }

    /// The time of the next `handle_timeout`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.connections.values().map(|each| each.deadline).min()
    }

    fn serve(&mut self, now: Now, id: TcpId, stack: &mut Stack, app: &mut dyn Application) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let counters = &mut self.counters;
        loop {
            let next = match connection.phase {
                WebPhase::Head => receive_head(now, id, connection, stack),
                WebPhase::Beginning { .. } => begin(now, connection, app, counters),
                WebPhase::Streaming { .. } => {
                    stream(now, id, connection, stack, app, &mut self.stage, counters)
                }
                WebPhase::Closing => discard(id, stack, &mut self.stage),
            };
            match next {
                Next::Again => {}
                Next::Wait => return,
                Next::Abort => {
                    self.connections.remove(&id);
                    return stack.abort(id);
                }
            }
        }
    }
}

/// Collects a request head; pipelined bytes stay in the inbox.
fn receive_head(now: Now, id: TcpId, connection: &mut WebConnection, stack: &mut Stack) -> Next {
    // First the inbox: a pipelined request may be there already.
    loop {
        if !connection.inbox.is_empty() {
            match RequestHead::parse(&connection.inbox) {
                Ok((head, length)) => {
                    let request = connection.inbox.drain(..length).collect();
                    // RFC 9112 §9.3: bodies are not read, so no request can follow one. An HTTP/1.0
                    // connection could persist only with a field that our streams lack.
                    let persistent =
                        head.version == Version::Http11 && head.is_persistent() && !head.has_body();
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
    match app.begin(now.unix, request) {
        Ok(begun) => {
            counters.requests += 1;
            let stream = Streaming {
                user: begun.user,
                length: begun.length,
                offset: 0,
                persistent: *persistent,
            };
            connection.phase = WebPhase::Streaming {
                stream,
                until: None,
            };
            connection.deadline = now.instant + SEND_TIMEOUT;
            Next::Again
        }
        Err(Unavailable::NotReady) => {
            connection.deadline = now.instant + READY_INTERVAL;
            Next::Wait
        }
        Err(Unavailable::Changed) => Next::Abort,
    }
}

/// Copies as much of the response as the send buffer accepts.
fn stream(
    now: Now,
    id: TcpId,
    connection: &mut WebConnection,
    stack: &mut Stack,
    app: &mut dyn Application,
    stage: &mut [u8],
    counters: &mut WebCounters,
) -> Next {
    let WebPhase::Streaming { stream, until } = &mut connection.phase else {
        return Next::Wait;
    };
    while stream.offset < stream.length {
        let left = usize::try_from(stream.length - stream.offset).unwrap_or(usize::MAX);
        // Without room asks for one byte more, which requests an event when there is room.
        let want = stack.send_room(id).max(1).min(stage.len()).min(left);
        let piece = stage.get_mut(..want).unwrap_or_default();
        let read = match app.read(&stream.user, stream.offset, piece) {
            Ok(0) => return Next::Abort,
            Ok(count) => count,
            Err(Unavailable::NotReady) => {
                until.get_or_insert(now.instant + READY_TIMEOUT);
                connection.deadline = now.instant + READY_INTERVAL;
                return Next::Wait;
            }
            Err(Unavailable::Changed) => {
                counters.changed += 1;
                return Next::Abort;
            }
        };
        *until = None;
        let Ok(sent) = stack.send(id, piece.get(..read).unwrap_or_default()) else {
            return Next::Abort;
        };
        if sent == 0 {
            return Next::Wait;
        }
        let sent = u64::try_from(sent).unwrap_or(0);
        counters.bytes += sent;
        stream.offset += sent;
        connection.deadline = now.instant + SEND_TIMEOUT;
    }
    if stream.persistent {
        connection.phase = WebPhase::Head;
        connection.deadline = now.instant + IDLE_TIMEOUT;
        Next::Again
    } else {
        close(now, id, connection, stack);
        Next::Again
    }
}

fn close(now: Now, id: TcpId, connection: &mut WebConnection, stack: &mut Stack) {
    stack.close(now.instant, id);
    connection.phase = WebPhase::Closing;
    connection.deadline = now.instant + CLOSE_TIMEOUT;
}

/// Discards further input, so that the close is orderly (RFC 9112 §9.6).
fn discard(id: TcpId, stack: &mut Stack, stage: &mut [u8]) -> Next {
    match stack.receive(id, stage) {
        Ok(0) | Err(_) => Next::Wait,
        Ok(_) => Next::Again,
    }
}
