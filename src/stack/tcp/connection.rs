//! One TCP connection: a smoltcp socket, and the table's notes on it.
//!
//! In: the state that smoltcp left after a packet. Out: the events of the connection, one at a time,
//! its end and its progress.

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, RecvError, Socket, SocketBuffer, State};

use super::cookie::Offer;
use super::crowd::Standing;
use super::replay::Isns;
use super::{CloseReason, Pair, TcpError, TcpEvent, TcpId, TcpProgress, Timeouts};
use crate::stack::queue::Lane;
use crate::time::Instant;
use crate::wire::address::Source;

/// Acknowledged bytes that count as progress, unless they are all that was sent: a reader of 4 kB/s
/// makes some every second, one that takes a byte at a time makes none.
pub(super) const PROGRESS_BYTES: u64 = 4096;

/// The half of smoltcp's poll after which a connection is inspected: one that ended on ingress was
/// reset by the peer, one that ended on egress timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Ingress,
    Egress,
}

/// The role of this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The peer opened the connection; its SYN had these numbers and this offer.
    Server {
        isns: Isns,
        offer: Offer,
    },
    Client,
}

#[derive(Debug)]
pub(super) struct TcpConnection {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    pub(super) side: Side,
    pub(super) lane: Lane,
    pub(super) pair: Pair,
    /// Whether the host closed its direction.
    pub(super) closing: bool,
    /// The state at the last inspection.
    state: State,
    open_reported: bool,
    readable_reported: bool,
    wants_room: bool,
    pub(super) ended: Option<CloseReason>,
    /// The end was reported to the host.
    end_reported: bool,
    /// The window field of the last segment.
    pub(super) window: u16,
    /// Bytes accepted from the host and given to it, since the numbers of `side`.
    sent: u64,
    received: u64,
    /// The last progress, and the bytes acknowledged by then.
    progress: Instant,
    progressed: u64,
    /// The send buffer that the host could use.
    pub(super) wanted: usize,
    pub(super) timer: Option<Instant>,
    /// Listed among those that may have something to send, or an event.
    pub(super) is_ready: bool,
    pub(super) is_changed: bool,
}

impl TcpConnection {
    pub(super) fn new(
        now: Instant,
        sockets: SocketSet<'static>,
        side: Side,
        lane: Lane,
        pair: Pair,
    ) -> Option<Self> {
        let (handle, state) = only(&sockets)?;
        Some(Self {
            sockets,
            handle,
            side,
            lane,
            pair,
            closing: false,
            state,
            open_reported: false,
            readable_reported: false,
            wants_room: false,
            ended: None,
            end_reported: false,
            window: 0,
            sent: 0,
            received: 0,
            progress: now,
            progressed: 0,
            wanted: 0,
            timer: None,
            is_ready: false,
            is_changed: false,
        })
    }

    pub(super) const fn sockets(&mut self) -> &mut SocketSet<'static> {
        &mut self.sockets
    }

    pub(super) fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    pub(super) fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Replaces the socket by one that goes on with these sequence numbers.
    pub(super) fn replace(&mut self, sockets: SocketSet<'static>, isns: Isns, offer: Offer) {
        if let Some((handle, _)) = only(&sockets) {
            (self.sockets, self.handle) = (sockets, handle);
            self.side = Side::Server { isns, offer };
            (self.sent, self.received, self.progressed) = (0, 0, 0);
        }
    }

    /// Bytes that the peer has acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        let queued = u64::try_from(self.socket().send_queue()).unwrap_or(u64::MAX);
        self.sent.saturating_sub(queued)
    }

    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn source(&self) -> Source {
        Source::of(self.pair.remote.ip())
    }

    pub(super) fn standing(&self) -> Standing {
        if self.ended.is_some() {
            return Standing::OVER;
        }
        let progress = self.progress;
        let busy = self.socket().send_queue() > 0;
        Standing { progress, busy }
    }

    pub(super) fn progress(&self) -> TcpProgress {
        TcpProgress {
            queued: self.socket().send_queue(),
            since: self.progress,
        }
    }

    /// Whether the connection is in TIME-WAIT, which a new one between the same ends may end early
    /// (RFC 6191).
    pub(super) fn is_waiting(&self) -> bool {
        self.state == State::TimeWait && self.end_reported
    }

    /// Whether smoltcp's part and the host's are over.
    pub(super) fn is_over(&self) -> bool {
        // A closed socket that still has a remote endpoint has a reset to send.
        let socket = self.socket();
        let over = socket.state() == State::Closed && socket.remote_endpoint().is_none();
        over && self.end_reported
    }

    /// Whether the host has an event to expect at the end.
    pub(super) const fn is_known(&self) -> bool {
        self.open_reported && !self.end_reported
    }

    /// Notes the changes that smoltcp made.
    pub(super) fn observe(&mut self, now: Instant, cause: Cause) {
        let state = self.socket().state();
        let before = std::mem::replace(&mut self.state, state);
        if self.ended.is_none() {
            self.ended = match (before, state, cause) {
                (_, State::TimeWait, _) | (State::LastAck, State::Closed, _) => {
                    Some(CloseReason::Finished)
                }
                (_, State::Closed, Cause::Ingress) => Some(CloseReason::Reset),
                (_, State::Closed, Cause::Egress) => Some(CloseReason::TimedOut),
                _ => None,
            };
        }
        let acknowledged = self.acknowledged();
        let gained = acknowledged.saturating_sub(self.progressed);
        if gained >= PROGRESS_BYTES || (gained > 0 && acknowledged == self.sent) {
            (self.progress, self.progressed) = (now, acknowledged);
        }
    }

    /// Accepts bytes from the host; `None` without room, and [`TcpEvent::Writable`] follows.
    pub(super) fn send_with<R>(
        &mut self,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Result<Option<R>, TcpError> {
        let socket = self.socket_mut();
        if !socket.may_send() {
            return Err(TcpError::NotOpen);
        }
        if !socket.can_send() {
            self.wants_room = true;
            return Ok(None);
        }
        let mut count = 0;
        let filled = socket.send(|room| {
            let most = most.min(room.len());
            let (used, result) = fill(room.get_mut(..most).unwrap_or_default());
            count = used.min(most);
            (count, result)
        });
        self.sent += u64::try_from(count).unwrap_or(0);
        filled.map(Some).map_err(|_| TcpError::NotOpen)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<usize, TcpError> {
        let sent = self
            .socket_mut()
            .send_slice(bytes)
            .map_err(|_| TcpError::NotOpen)?;
        self.sent += u64::try_from(sent).unwrap_or(0);
        self.wants_room |= sent < bytes.len();
        Ok(sent)
    }

    pub(super) fn send_room(&self) -> usize {
        let socket = self.socket();
        if socket.may_send() {
            socket.send_capacity() - socket.send_queue()
        } else {
            0
        }
    }

    pub(super) fn receive(&mut self, out: &mut [u8]) -> Result<usize, TcpError> {
        let got = self.socket_mut().recv_slice(out);
        if got != Ok(out.len()) {
            self.readable_reported = got.is_err();
        }
        self.received += u64::try_from(got.unwrap_or(0)).unwrap_or(0);
        got.map_err(|error| match error {
            RecvError::Finished => TcpError::Finished,
            RecvError::InvalidState => TcpError::NotOpen,
        })
    }

    pub(super) fn close(&mut self) {
        self.closing = true;
        self.socket_mut().close();
        if self.socket().state() == State::Closed {
            // The handshake was not complete: the peer was never reported.
            self.end_reported = true;
        }
    }

    pub(super) fn abort(&mut self) {
        self.socket_mut().abort();
        self.state = State::Closed;
        self.ended = Some(CloseReason::Reset);
        self.end_reported = true;
        self.open_reported = true;
    }

    /// Returns the first unreported event.
    pub(super) fn next_event(&mut self, id: TcpId) -> Option<TcpEvent> {
        if self.end_reported {
            return None;
        }
        let opening = matches!(
            self.state,
            State::Listen | State::SynReceived | State::SynSent
        );
        let never_opened = self.ended.is_some() && self.side == Side::Client;
        if !self.open_reported && !opening && !never_opened {
            self.open_reported = true;
            let Pair { local, remote } = self.pair;
            return Some(match self.side {
                Side::Server { .. } => TcpEvent::Accepted { id, local, remote },
                Side::Client => TcpEvent::Connected(id),
            });
        }
        let socket = self.socket();
        let peer_finished = self.open_reported && !opening && !socket.may_recv();
        if !self.readable_reported && (socket.can_recv() || peer_finished) {
            self.readable_reported = true;
            return Some(TcpEvent::Readable(id));
        }
        if self.wants_room && self.has_room() {
            self.wants_room = false;
            if self.socket().may_send() {
                return Some(TcpEvent::Writable(id));
            }
        }
        // Received bytes are read before the end is reported, unless the host has closed.
        let reason = self.ended?;
        if self.socket().can_recv() && !self.closing {
            return None;
        }
        self.end_reported = true;
        Some(TcpEvent::Closed(id, reason))
    }

    /// Whether there is enough room to report it. A buffer that should grow must drain first.
    fn has_room(&self) -> bool {
        let socket = self.socket();
        let grows = self.wanted > socket.send_capacity();
        let most = if grows { 0 } else { socket.send_capacity() / 2 };
        socket.send_queue() <= most
    }
}

/// Returns the handle and the state of the only socket of a set.
fn only(sockets: &SocketSet<'static>) -> Option<(SocketHandle, State)> {
    let (handle, _) = sockets.iter().next()?;
    Some((handle, sockets.get::<Socket<'_>>(handle).state()))
}

/// Creates a socket with buffers of these sizes.
pub(super) fn new_socket(receive: usize, send: usize, timeouts: Timeouts) -> Socket<'static> {
    let mut socket = Socket::new(
        SocketBuffer::new(vec![0; receive]),
        SocketBuffer::new(vec![0; send]),
    );
    // Responses are written whole, so Nagle's algorithm would only delay the last segment.
    socket.set_nagle_enabled(false);
    socket.set_congestion_control(CongestionControl::Cubic);
    socket.set_timeout(Some(timeouts.silence.into()));
    socket.set_keep_alive(Some(timeouts.keep_alive.into()));
    socket
}
