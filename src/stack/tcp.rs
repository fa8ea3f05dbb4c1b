//! TCP connections of the stack: a bounded table of smoltcp sockets behind ids and events.
//!
//! In: segments, commands by [`TcpId`]; out: [`TcpEvent`]s and packets. A segment finds its
//! connection by a keyed hash of addresses and ports, and smoltcp looks at that connection only;
//! timers are ordered by time. So a packet costs the same with ten connections as with thousands.
//! Unlike the transport this keeps state per connection, from the peer's first bytes on: it serves
//! comparisons and plain clients, never the transport's path.
//! Sources: RFC 9293, RFC 6191 (reuse of TIME-WAIT), RFC 9438 (congestion control: CUBIC).

mod accept;
mod buffers;
mod connection;
mod cookie;
mod crowd;
mod replay;

use core::hash::{BuildHasher, Hash, Hasher};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use smoltcp::iface::{SocketSet, SocketStorage};
use smoltcp::wire::{IpAddress, IpEndpoint, IpListenEndpoint};

use super::StackError;
use super::queue::{Carrier, Lane};
use crate::time::{Deadlines, Instant};

pub use buffers::{FLOOR_SEND_BYTES, MAX_GROWN_BYTES, SMALLEST_SEND_BYTES};
pub use crowd::SOURCE_SHARE;

use connection::{Cause, Side, TcpConnection, new_socket};
use cookie::Cookies;
use crowd::{Crowd, Standing};

/// Most concurrent connections, including closing ones. One takes 22 KiB while its responses are
/// small, then 34 KiB; [`MAX_GROWN_BYTES`] bounds larger buffers.
pub const MAX_TCP_CONNECTIONS: usize = 12_288;

/// Most listening TCP ports.
pub const MAX_LISTEN_PORTS: usize = 4;

/// Largest send buffer of an accepted connection, in bytes; bounds the data in flight.
pub const SERVER_SEND_BYTES: usize = 1 << 20;

/// Receive buffer of an accepted connection, in bytes: the longest request head passes in one round
/// trip. Small requests touch its first page only.
pub const SERVER_RECEIVE_BYTES: usize = 16 << 10;

/// Send buffer of an outgoing connection, in bytes.
pub const CLIENT_SEND_BYTES: usize = 64 << 10;

/// Receive buffer of an outgoing connection, in bytes; the window of a download.
pub const CLIENT_RECEIVE_BYTES: usize = 4 << 20;

/// The silence after which a connection ends, and after which it sends a keep-alive.
#[derive(Clone, Copy)]
struct Timeouts {
    silence: Duration,
    keep_alive: Duration,
}

/// Of outgoing connections.
const CLIENT: Timeouts = Timeouts {
    silence: Duration::from_secs(30),
    keep_alive: Duration::from_secs(10),
};

/// Of accepted connections. The host closes idle ones before they send a keep-alive.
const SERVER: Timeouts = Timeouts {
    silence: Duration::from_secs(60),
    keep_alive: Duration::from_secs(25),
};

/// Least time between two attempts of a timer that smoltcp leaves in the past.
const RETRY: Duration = Duration::from_millis(1);

/// First ephemeral port for outgoing connections (RFC 6335 §6).
const FIRST_EPHEMERAL_PORT: u16 = 49_152;

/// Identifies a connection; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpId(u64);

impl TcpId {
    /// Creates the id of a connection that the stack does not have: its owner never reuses one.
    pub(crate) const fn of_another(id: u64) -> Self {
        Self(id)
    }
}

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
    /// It made room for another one in a full table, and was reset.
    Evicted,
}

/// How far the peer is with the bytes sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpProgress {
    /// Bytes that it has not acknowledged.
    pub queued: usize,
    /// The time at which it last acknowledged a notable number of bytes, or all.
    pub since: Instant,
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

/// The ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    local: SocketAddr,
    remote: SocketAddr,
}

impl Hash for Pair {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        cookie::write_address(hasher, self.local);
        cookie::write_address(hasher, self.remote);
    }
}

/// Creates hashers with a key, so that a peer cannot construct collisions.
#[derive(Clone, Copy)]
struct KeyedHash(SipHasher13);

impl BuildHasher for KeyedHash {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        self.0
    }
}

/// The connection table.
pub(super) struct Connections {
    table: BTreeMap<TcpId, Box<TcpConnection>>,
    by_pair: HashMap<Pair, TcpId, KeyedHash>,
    /// Connections that may have something to send, in turn.
    ready: VecDeque<TcpId>,
    /// Connections that may have an event.
    changed: VecDeque<TcpId>,
    /// Ends of evicted connections that are not reported yet.
    farewells: VecDeque<TcpEvent>,
    timers: Deadlines<TcpId>,
    crowd: Crowd,
    cookies: Cookies,
    /// Idle connections with a large send buffer.
    spare: BTreeSet<TcpId>,
    /// Bytes of all send buffers beyond the floor.
    grown: usize,
    listen_ports: Vec<u16>,
    next_id: u64,
    next_port: u16,
    evictions: u64,
}

impl Connections {
    pub(super) fn new(seed: u64) -> Self {
        let span = u64::from(u16::MAX - FIRST_EPHEMERAL_PORT);
        let offset = u16::try_from(seed % span).unwrap_or(0);
        let hash = SipHasher13::new_with_keys(seed, 0x6865_6164_7061_6972);
        Self {
            table: BTreeMap::new(),
            by_pair: HashMap::with_hasher(KeyedHash(hash)),
            ready: VecDeque::new(),
            changed: VecDeque::new(),
            farewells: VecDeque::new(),
            timers: Deadlines::default(),
            crowd: Crowd::default(),
            cookies: Cookies::new(seed),
            spare: BTreeSet::new(),
            grown: 0,
            listen_ports: Vec::new(),
            next_id: 0,
            next_port: FIRST_EPHEMERAL_PORT + offset,
            evictions: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) const fn evictions(&self) -> u64 {
        self.evictions
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

    pub(super) fn stop_listening(&mut self) {
        self.listen_ports.clear();
    }

    fn listens(&self, local: SocketAddr) -> bool {
        self.listen_ports.contains(&local.port())
    }

    fn find(&self, pair: Pair) -> Option<TcpId> {
        self.by_pair.get(&pair).copied()
    }

    fn is_waiting(&self, id: TcpId) -> bool {
        self.table.get(&id).is_some_and(|each| each.is_waiting())
    }

    /// Lets a connection send, report and be timed anew.
    fn wake(&mut self, id: TcpId) {
        let Some(connection) = self.table.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut connection.is_ready, true) {
            self.ready.push_back(id);
        }
        if !std::mem::replace(&mut connection.is_changed, true) {
            self.changed.push_back(id);
        }
    }

    /// Notes the changes that smoltcp made to a connection, and removes it if it is over.
    fn observe(&mut self, now: Instant, id: TcpId, cause: Cause) {
        let Some(connection) = self.table.get_mut(&id) else {
            return;
        };
        let ended = connection.ended.is_some();
        connection.observe(now, cause);
        let standing = connection.standing();
        let is_over = standing == Standing::OVER;
        if (is_over && !ended) || (!standing.busy && self.crowd.has_busy()) {
            let source = connection.source();
            // An open outgoing connection is never evicted.
            if is_over || connection.side != Side::Client {
                self.crowd.place(id, source, standing);
            }
        }
        self.settle(id);
    }

    /// Removes a connection that is over.
    fn settle(&mut self, id: TcpId) {
        if self.table.get(&id).is_some_and(|each| each.is_over()) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: TcpId) {
        if let Some(mut connection) = self.table.remove(&id) {
            self.by_pair.remove(&connection.pair);
            self.timers.cancel(&mut connection.timer, id);
            self.crowd.remove(id);
            self.spare.remove(&id);
            self.grown -= buffers::beyond_floor(&connection);
        }
    }

    fn insert(&mut self, connection: TcpConnection) -> TcpId {
        let id = TcpId(self.next_id);
        self.next_id += 1;
        if connection.side != Side::Client {
            let (source, standing) = (connection.source(), connection.standing());
            self.crowd.place(id, source, standing);
        }
        self.by_pair.insert(connection.pair, id);
        self.table.insert(id, Box::new(connection));
        id
    }

    /// Ensures a free place in the table, if need be by an eviction.
    fn make_room(&mut self, now: Instant, carrier: &mut Carrier) -> bool {
        if self.table.len() < MAX_TCP_CONNECTIONS {
            return true;
        }
        let Some(id) = self.victim(now) else {
            return false;
        };
        if let Some(connection) = self.table.get_mut(&id) {
            let (lane, known) = (connection.lane, connection.is_known());
            connection.socket_mut().abort();
            // The reset, unless the queue is full.
            carrier.egress(now, lane, connection.sockets());
            if known {
                let end = TcpEvent::Closed(id, CloseReason::Evicted);
                self.farewells.push_back(end);
            }
        }
        self.forget(id);
        self.evictions += 1;
        true
    }

    fn victim(&mut self, now: Instant) -> Option<TcpId> {
        let table = &self.table;
        let standing = |id: TcpId| {
            table
                .get(&id)
                .map_or(Standing::OVER, |each| each.standing())
        };
        self.crowd.victim(now, standing)
    }

    pub(super) fn connect(
        &mut self,
        now: Instant,
        carrier: &mut Carrier,
        local: std::net::IpAddr,
        remote: SocketAddr,
    ) -> Result<TcpId, TcpError> {
        if self.table.len() >= MAX_TCP_CONNECTIONS {
            // Only an ended connection makes room for an outgoing one.
            let first = self.victim(now).ok_or(TcpError::TooManyConnections)?;
            if self
                .table
                .get(&first)
                .is_some_and(|each| each.ended.is_none())
            {
                return Err(TcpError::TooManyConnections);
            }
            self.forget(first);
        }
        let pair = self.free_pair(local, remote);
        let mut socket = new_socket(CLIENT_RECEIVE_BYTES, CLIENT_SEND_BYTES, CLIENT);
        socket
            .connect(
                carrier.context(),
                endpoint(remote),
                listen_endpoint(pair.local),
            )
            .map_err(|_| TcpError::NoAddress)?;
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        sockets.add(socket);
        let connection = TcpConnection::new(now, sockets, Side::Client, Lane::Plain, pair);
        let id = self.insert(connection.ok_or(TcpError::NoAddress)?);
        self.wake(id);
        Ok(id)
    }

    /// Returns ends that no connection uses; ports far outnumber connections.
    fn free_pair(&mut self, local: std::net::IpAddr, remote: SocketAddr) -> Pair {
        loop {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT);
            let local = SocketAddr::new(local, port);
            let pair = Pair { local, remote };
            if !self.by_pair.contains_key(&pair) && !self.listen_ports.contains(&port) {
                return pair;
            }
        }
    }

    fn get(&mut self, id: TcpId) -> Result<&mut TcpConnection, TcpError> {
        self.table
            .get_mut(&id)
            .map(|each| &mut **each)
            .ok_or(TcpError::Unknown)
    }

    pub(super) fn send(&mut self, id: TcpId, bytes: &[u8]) -> Result<usize, TcpError> {
        let sent = self.get(id)?.send(bytes);
        self.wake(id);
        sent
    }

    pub(super) fn send_with<R>(
        &mut self,
        now: Instant,
        id: TcpId,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Result<Option<R>, TcpError> {
        self.grow(now, id);
        let filled = self.get(id)?.send_with(most, fill);
        self.wake(id);
        filled
    }

    pub(super) fn send_room(&self, id: TcpId) -> usize {
        self.table.get(&id).map_or(0, |each| each.send_room())
    }

    pub(super) fn progress(&self, id: TcpId) -> Option<TcpProgress> {
        self.table.get(&id).map(|each| each.progress())
    }

    pub(super) fn receive(&mut self, id: TcpId, out: &mut [u8]) -> Result<usize, TcpError> {
        let got = self.get(id)?.receive(out);
        // An end that waited for the last byte to be read is now due.
        self.wake(id);
        got
    }

    pub(super) fn close(&mut self, id: TcpId) {
        if let Ok(connection) = self.get(id) {
            connection.close();
            self.wake(id);
            self.settle(id);
        }
    }

    pub(super) fn abort(&mut self, id: TcpId) {
        if let Ok(connection) = self.get(id) {
            connection.abort();
            self.wake(id);
            self.settle(id);
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<TcpEvent> {
        if let Some(end) = self.farewells.pop_front() {
            return Some(end);
        }
        while let Some(&id) = self.changed.front() {
            if let Some(connection) = self.table.get_mut(&id) {
                if let Some(event) = connection.next_event(id) {
                    self.settle(id);
                    return Some(event);
                }
                connection.is_changed = false;
            }
            self.changed.pop_front();
        }
        None
    }

    /// Queues the next packets of a connection; false if none has any.
    pub(super) fn transmit(&mut self, now: Instant, carrier: &mut Carrier) -> bool {
        while let Some(id) = self.ready.pop_front() {
            let Some(connection) = self.table.get_mut(&id) else {
                continue;
            };
            connection.is_ready = false;
            let (lane, before) = (connection.lane, connection.ended);
            let sent = carrier.egress(now, lane, connection.sockets());
            self.observe(now, id, Cause::Egress);
            let after = self.table.get(&id).and_then(|each| each.ended);
            // Each has its turn: one coalesced packet, then the next connection.
            if sent || before != after {
                self.wake(id);
            }
            if sent {
                return true;
            }
            self.schedule(now, carrier, id);
        }
        false
    }

    fn schedule(&mut self, now: Instant, carrier: &mut Carrier, id: TcpId) {
        let Some(connection) = self.table.get_mut(&id) else {
            return;
        };
        let lane = connection.lane;
        if let Some(at) = carrier.poll_at(now, lane, connection.sockets()) {
            let at = if at > now { at } else { now + RETRY };
            self.timers.at_latest(&mut connection.timer, id, at);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.timers.pop_due(now) {
            if let Some(connection) = self.table.get_mut(&id) {
                connection.timer = None;
            }
            self.wake(id);
        }
    }

    /// The time of the next `handle_timeout`, or of the next `transmit`.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.ready.is_empty() {
            self.timers.earliest()
        } else {
            Some(now)
        }
    }
}

fn endpoint(address: SocketAddr) -> IpEndpoint {
    IpEndpoint::new(IpAddress::from(address.ip()), address.port())
}

fn listen_endpoint(address: SocketAddr) -> IpListenEndpoint {
    endpoint(address).into()
}
