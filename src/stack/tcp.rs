//! TCP connections of the stack: a bounded table of smoltcp sockets behind ids and events.
//!
//! In: SYN segments announced before smoltcp sees them, commands by [`TcpId`]; out: [`TcpEvent`]s.
//! A SYN creates a socket, which the end of its connection removes, so any burst of up to
//! [`MAX_TCP_CONNECTIONS`] SYNs is served; further SYNs are dropped, and the peers retransmit.
//! Unlike the transport this keeps state per connection: it serves comparisons and plain clients,
//! never the transport's path.
//! Sources: RFC 9293, RFC 6191 (reuse of TIME-WAIT), RFC 9438 (congestion control: CUBIC).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use smoltcp::iface::{Context, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, RecvError, Socket, SocketBuffer, State};
use smoltcp::wire::{IpAddress, IpEndpoint, IpListenEndpoint};

use super::{DropReason, StackError};
use crate::time::Instant;

/// Most concurrent connections, including half-open and closing ones. Their buffers take at most 64
/// × (1 MiB + 16 KiB) on a server.
pub const MAX_TCP_CONNECTIONS: usize = 64;

/// Most listening TCP ports.
pub const MAX_LISTEN_PORTS: usize = 4;

/// Send buffer of an accepted connection, in bytes; bounds the data in flight.
pub const SERVER_SEND_BYTES: usize = 1 << 20;

/// Receive buffer of an accepted connection, in bytes; requests are small.
pub const SERVER_RECEIVE_BYTES: usize = 16 << 10;

/// Send buffer of an outgoing connection, in bytes.
pub const CLIENT_SEND_BYTES: usize = 64 << 10;

/// Receive buffer of an outgoing connection, in bytes; the window of a download.
pub const CLIENT_RECEIVE_BYTES: usize = 4 << 20;

/// Silence of the peer after which a connection is reset.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Interval of keep-alives to an idle peer.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Age from which a half-open connection may be evicted for a new one.
const HALF_OPEN_GRACE: Duration = Duration::from_secs(3);

/// Time after our close from which a connection may be evicted for a new one.
const CLOSING_GRACE: Duration = Duration::from_secs(5);

/// First ephemeral port for outgoing connections (RFC 6335 §6).
const FIRST_EPHEMERAL_PORT: u16 = 49_152;

/// Identifies a connection; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpId(u64);

/// An event of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpEvent {
    /// A peer has connected.
    Accepted {
        /// The new connection.
        id: TcpId,
        /// The local address.
        local: SocketAddr,
        /// The peer's address.
        remote: SocketAddr,
    },
    /// An outgoing connection is established.
    Connected(TcpId),
    /// Received bytes are available, or the peer has sent FIN. Reported once until a
    /// [`receive`](super::Stack::receive) returns less than it had room for.
    Readable(TcpId),
    /// Room is available again after a `send` that queued less than given.
    Writable(TcpId),
    /// The connection has ended, without unread bytes; its id is invalid.
    Closed(TcpId, CloseReason),
}

/// The way in which a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Both ends have sent FIN.
    Finished,
    /// The peer has reset or refused it.
    Reset,
    /// The peer was silent for too long.
    TimedOut,
}

/// The reason why a command to a connection fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TcpError {
    /// The connection has ended, or never existed.
    #[error("no such connection")]
    Unknown,
    /// Not yet open, or closed in this direction.
    #[error("connection is not open")]
    NotOpen,
    /// All bytes before the peer's FIN are read.
    #[error("the peer has closed the connection")]
    Finished,
    /// [`MAX_TCP_CONNECTIONS`] are in use.
    #[error("too many connections")]
    TooManyConnections,
    /// The stack has no address of the peer's family, or the peer's address is not valid.
    #[error("no address to connect from or to")]
    NoAddress,
}

/// The role of this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

/// The half of smoltcp's poll after which connections are inspected: one that ended on ingress was
/// reset by the peer, one that ended on egress timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Ingress,
    Egress,
}

#[derive(Debug)]
struct TcpConnection {
    handle: SocketHandle,
    side: Side,
    local: SocketAddr,
    remote: SocketAddr,
    began: Instant,
    /// The time at which the host closed its direction.
    closing_since: Option<Instant>,
    /// The state at the last inspection.
    state: State,
    open_reported: bool,
    readable_reported: bool,
    wants_room: bool,
    ended: Option<CloseReason>,
    /// The end was reported to the host.
    end_reported: bool,
}

/// The connection table.
pub(super) struct Connections {
    sockets: SocketSet<'static>,
    table: BTreeMap<TcpId, TcpConnection>,
    listen_ports: Vec<u16>,
    next_id: u64,
    next_port: u16,
    /// An event may be pending.
    changed: bool,
}

impl Connections {
    pub(super) fn new(seed: u64) -> Self {
        let span = u64::from(u16::MAX - FIRST_EPHEMERAL_PORT);
        let offset = u16::try_from(seed % span).unwrap_or(0);
        Self {
            sockets: SocketSet::new(Vec::new()),
            table: BTreeMap::new(),
            listen_ports: Vec::new(),
            next_id: 0,
            next_port: FIRST_EPHEMERAL_PORT + offset,
            changed: false,
        }
    }

    pub(super) const fn sockets(&mut self) -> &mut SocketSet<'static> {
        &mut self.sockets
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn listen(&mut self, port: u16) -> Result<(), StackError> {
        if self.listen_ports.contains(&port) {
            return Ok(());
        }
        if port == 0 || self.listen_ports.len() >= MAX_LISTEN_PORTS {
            return Err(StackError::CannotListen { port });
        }
        self.listen_ports.push(port);
        Ok(())
    }

    /// Creates a listening socket for the SYN that smoltcp is about to see, unless nothing listens
    /// on the port (smoltcp then refuses) or the SYN is a retransmission.
    pub(super) fn prepare_to_accept(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<TcpId>, DropReason> {
        if !self.listen_ports.contains(&local.port()) {
            return Ok(None);
        }
        let same = self
            .table
            .iter()
            .find(|(_, c)| c.local == local && c.remote == remote);
        if let Some((&id, connection)) = same {
            if !(connection.state == State::TimeWait && connection.end_reported) {
                return Ok(None);
            }
            self.forget(id);
        }
        if !self.make_room(now) {
            return Err(DropReason::ConnectionsFull);
        }
        let mut socket = new_socket(Side::Server);
        if socket.listen(listen_endpoint(local)).is_err() {
            return Ok(None);
        }
        Ok(Some(self.insert(now, socket, Side::Server, local, remote)))
    }

    /// Removes the socket of [`prepare_to_accept`](Self::prepare_to_accept) if smoltcp did not
    /// accept the segment.
    pub(super) fn discard_unused(&mut self, listener: Option<TcpId>) {
        let Some(id) = listener else { return };
        let unused = self
            .table
            .get(&id)
            .is_some_and(|c| self.sockets.get::<Socket<'_>>(c.handle).state() == State::Listen);
        if unused {
            self.forget(id);
        }
    }

    /// Records the changes that smoltcp made, and removes ended connections.
    pub(super) fn observe(&mut self, cause: Cause) {
        let broken = match cause {
            Cause::Ingress => CloseReason::Reset,
            Cause::Egress => CloseReason::TimedOut,
        };
        for connection in self.table.values_mut() {
            let state = self.sockets.get::<Socket<'_>>(connection.handle).state();
            let before = std::mem::replace(&mut connection.state, state);
            if connection.ended.is_none() {
                connection.ended = match (before, state) {
                    (_, State::TimeWait) | (State::LastAck, State::Closed) => {
                        Some(CloseReason::Finished)
                    }
                    (_, State::Closed) => Some(broken),
                    _ => None,
                };
            }
            // A peer that ended before the handshake was complete was never reported.
            if connection.ended.is_some() && connection.side == Side::Server {
                connection.end_reported |=
                    !connection.open_reported && before == State::SynReceived;
            }
        }
        self.changed = true;
        self.sweep();
    }

    fn sweep(&mut self) {
        let sockets = &mut self.sockets;
        self.table.retain(|_, connection| {
            let socket = sockets.get::<Socket<'_>>(connection.handle);
            // A closed socket that still has a remote endpoint has a reset to send.
            let over = socket.state() == State::Closed && socket.remote_endpoint().is_none();
            // RFC 9293 §3.10.7.4: a reset turns a half-open connection back into a listener, which
            // is of no use here.
            let keep = !(over && connection.end_reported) && socket.state() != State::Listen;
            if !keep {
                sockets.remove(connection.handle);
            }
            keep
        });
    }

    /// Ensures a free slot in the table: evicts, in this order, connections in TIME-WAIT, long
    /// half-open ones, and those that the host closed long ago.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.table.len() < MAX_TCP_CONNECTIONS {
            return true;
        }
        let waits = |c: &TcpConnection| c.state == State::TimeWait && c.end_reported;
        let half_open = |c: &TcpConnection| {
            c.state == State::SynReceived && now.saturating_since(c.began) >= HALF_OPEN_GRACE
        };
        let closing = |c: &TcpConnection| {
            c.closing_since
                .is_some_and(|since| now.saturating_since(since) >= CLOSING_GRACE)
        };
        let rules: [&dyn Fn(&TcpConnection) -> bool; 3] = [&waits, &half_open, &closing];
        let find = |rule: &&dyn Fn(&TcpConnection) -> bool| {
            self.table
                .iter()
                .find(|(_, connection)| rule(connection))
                .map(|(&id, _)| id)
        };
        let Some(id) = rules.iter().find_map(find) else {
            return false;
        };
        self.forget(id);
        true
    }

    fn insert(
        &mut self,
        now: Instant,
        socket: Socket<'static>,
        side: Side,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> TcpId {
        let id = TcpId(self.next_id);
        self.next_id += 1;
        let state = socket.state();
        let connection = TcpConnection {
            handle: self.sockets.add(socket),
            side,
            local,
            remote,
            began: now,
            closing_since: None,
            state,
            open_reported: false,
            readable_reported: false,
            wants_room: false,
            ended: None,
            end_reported: false,
        };
        self.table.insert(id, connection);
        id
    }

    fn forget(&mut self, id: TcpId) {
        if let Some(connection) = self.table.remove(&id) {
            self.sockets.remove(connection.handle);
        }
    }

    pub(super) fn connect(
        &mut self,
        now: Instant,
        context: &mut Context,
        local: std::net::IpAddr,
        remote: SocketAddr,
    ) -> Result<TcpId, TcpError> {
        if !self.make_room(now) {
            return Err(TcpError::TooManyConnections);
        }
        let local = SocketAddr::new(local, self.free_port());
        let mut socket = new_socket(Side::Client);
        socket
            .connect(context, endpoint(remote), listen_endpoint(local))
            .map_err(|_| TcpError::NoAddress)?;
        Ok(self.insert(now, socket, Side::Client, local, remote))
    }

    /// Returns the next port that no connection uses; ports far outnumber connections.
    fn free_port(&mut self) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT);
            let used = self
                .table
                .values()
                .any(|connection| connection.local.port() == port);
            if !used && !self.listen_ports.contains(&port) {
                return port;
            }
        }
    }

    fn get(&mut self, id: TcpId) -> Result<(&mut TcpConnection, &mut Socket<'static>), TcpError> {
        let connection = self.table.get_mut(&id).ok_or(TcpError::Unknown)?;
        let socket = self.sockets.get_mut::<Socket<'_>>(connection.handle);
        Ok((connection, socket))
    }

    pub(super) fn send(&mut self, id: TcpId, bytes: &[u8]) -> Result<usize, TcpError> {
        let (connection, socket) = self.get(id)?;
        let sent = socket.send_slice(bytes).map_err(|_| TcpError::NotOpen)?;
        connection.wants_room |= sent < bytes.len();
        Ok(sent)
    }

    pub(super) fn send_room(&self, id: TcpId) -> usize {
        let Some(connection) = self.table.get(&id) else {
            return 0;
        };
        let socket = self.sockets.get::<Socket<'_>>(connection.handle);
        if socket.may_send() {
            socket.send_capacity() - socket.send_queue()
        } else {
            0
        }
    }

    pub(super) fn receive(&mut self, id: TcpId, out: &mut [u8]) -> Result<usize, TcpError> {
        let (connection, socket) = self.get(id)?;
        let got = socket.recv_slice(out);
        if got != Ok(out.len()) {
            connection.readable_reported = got.is_err();
        }
        // An end that waited for the last byte to be read is now due.
        self.changed = true;
        got.map_err(|error| match error {
            RecvError::Finished => TcpError::Finished,
            RecvError::InvalidState => TcpError::NotOpen,
        })
    }

    pub(super) fn close(&mut self, now: Instant, id: TcpId) {
        let Ok((connection, socket)) = self.get(id) else {
            return;
        };
        connection.closing_since.get_or_insert(now);
        socket.close();
        if socket.state() == State::Closed {
            // The handshake was not complete: the peer was never reported.
            connection.end_reported = true;
        }
        self.sweep();
    }

    pub(super) fn abort(&mut self, id: TcpId) {
        let Ok((connection, socket)) = self.get(id) else {
            return;
        };
        socket.abort();
        connection.state = State::Closed;
        connection.ended = Some(CloseReason::Reset);
        connection.end_reported = true;
        connection.open_reported = true;
        self.sweep();
    }

    pub(super) fn poll_event(&mut self) -> Option<TcpEvent> {
        if !self.changed {
            return None;
        }
        let sockets = &self.sockets;
        let next = self.table.iter_mut().find_map(|(&id, connection)| {
            next_event(id, connection, sockets.get::<Socket<'_>>(connection.handle))
        });
        match next {
            None => self.changed = false,
            Some(TcpEvent::Closed(..)) => self.sweep(),
            Some(_) => {}
        }
        next
    }
}

/// Returns the first unreported event of a connection.
fn next_event(id: TcpId, connection: &mut TcpConnection, socket: &Socket<'_>) -> Option<TcpEvent> {
    if connection.end_reported {
        return None;
    }
    let opening = matches!(
        connection.state,
        State::Listen | State::SynReceived | State::SynSent
    );
    let never_opened = connection.ended.is_some() && connection.side == Side::Client;
    if !connection.open_reported && !opening && !never_opened {
        connection.open_reported = true;
        let TcpConnection {
            local,
            remote,
            side,
            ..
        } = *connection;
        return Some(match side {
            Side::Server => TcpEvent::Accepted { id, local, remote },
            Side::Client => TcpEvent::Connected(id),
        });
    }
    let peer_finished = connection.open_reported && !opening && !socket.may_recv();
    if !connection.readable_reported && (socket.can_recv() || peer_finished) {
        connection.readable_reported = true;
        return Some(TcpEvent::Readable(id));
    }
    if connection.wants_room && socket.send_queue() <= socket.send_capacity() / 2 {
        connection.wants_room = false;
        if socket.may_send() {
            return Some(TcpEvent::Writable(id));
        }
    }
    // Received bytes are read before the end is reported, unless the host has closed.
    let reason = connection.ended?;
    if socket.can_recv() && connection.closing_since.is_none() {
        return None;
    }
    connection.end_reported = true;
    Some(TcpEvent::Closed(id, reason))
}

fn new_socket(side: Side) -> Socket<'static> {
    let (receive, send) = match side {
        Side::Server => (SERVER_RECEIVE_BYTES, SERVER_SEND_BYTES),
        Side::Client => (CLIENT_RECEIVE_BYTES, CLIENT_SEND_BYTES),
    };
    let mut socket = Socket::new(
        SocketBuffer::new(vec![0; receive]),
        SocketBuffer::new(vec![0; send]),
    );
    // Responses are written whole, so Nagle's algorithm would only delay the last segment.
    socket.set_nagle_enabled(false);
    socket.set_congestion_control(CongestionControl::Cubic);
    socket.set_timeout(Some(IDLE_TIMEOUT.into()));
    socket.set_keep_alive(Some(KEEP_ALIVE.into()));
    socket
}

fn endpoint(address: SocketAddr) -> IpEndpoint {
    IpEndpoint::new(IpAddress::from(address.ip()), address.port())
}

fn listen_endpoint(address: SocketAddr) -> IpListenEndpoint {
    endpoint(address).into()
}
