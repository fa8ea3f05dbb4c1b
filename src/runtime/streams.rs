//! TCP connections of the kernel, for a machine that serves HTTP over them, or fetches.
//!
//! In: events of sockets, collected once per turn. Out: the connections as [`TcpStreams`] or
//! [`OutgoingStreams`](crate::host::streams::OutgoingStreams). Sockets are non-blocking and have an epoll instance of their own, which the loop watches. The bytes of a response
//! are read again if the kernel takes fewer of them: no connection has a buffer here. A connection
//! sends a bounded number of bytes per turn, so that a fast reader delays no other. When all places
//! are taken, or all descriptors of the process, the source with most connections makes room.
//! Sources: epoll(7) on edge-triggered mode and nested descriptors, accept(2), tcp(7), socket(7) on
//! `SO_LINGER`.

mod outgoing;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt::{
    set_ipv6_v6only, set_socket_linger, set_socket_reuseaddr, set_socket_reuseport,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

use crate::device::binding::SocketBinding;
use crate::host::streams::{CloseReason, TcpError, TcpEvent, TcpId, TcpProgress, TcpStreams};
use crate::runtime::MAX_EVENTS;
use crate::time::Instant;
use crate::wire::address::Source;

pub(crate) use outgoing::connected;

/// Most TCP connections of the kernel: they leave descriptors for files.
pub const MAX_KERNEL_CONNECTIONS: usize = 768;

/// Most addresses to listen on.
pub const MAX_KERNEL_LISTENERS: usize = 16;

/// Most connections accepted in one turn.
pub const MAX_ACCEPTS_PER_TURN: usize = 64;

/// Most bytes that one connection sends in one turn.
pub const MAX_SENT_PER_TURN: usize = 256 * 1024;

/// Most bytes that an outgoing connection receives in one turn, and one read more.
pub const MAX_RECEIVED_PER_TURN: usize = 1 << 20;

/// Most bytes that all of them send in one turn, and one write more.
pub const MAX_SENT_TOGETHER: usize = 2 << 20;

/// Most polls of the sockets in one turn; the next turn collects the other events.
const MAX_POLLS_PER_TURN: usize = 4;

/// Descriptors to leave to files when the process has run out of them.
const SPARE_DESCRIPTORS: usize = 32;

/// Time without accepting if the process has run out of descriptors, and not by connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that wait to be accepted, in the kernel.
const BACKLOG: i32 = 1024;

/// Bytes read from the application at a time.
const STAGE_BYTES: usize = 64 * 1024;

/// Listeners and the connections that they accepted.
#[derive(Debug)]
pub struct KernelStreams {
    poll: Poll,
    events: Events,
    listeners: Vec<TcpListener>,
    /// Edge-triggered: whether a listener may have pending connections.
    acceptable: bool,
    /// The time until which none are accepted.
    paused_until: Option<Instant>,
    open: BTreeMap<TcpId, KernelStream>,
    /// Most connections.
    most: usize,
    next_id: usize,
    ready: VecDeque<TcpEvent>,
    /// Outcomes of attempts to connect that are not reported yet.
    settled: Vec<(TcpId, outgoing::Settled)>,
    /// Connections that may send more in the next turn.
    later: Vec<TcpId>,
    /// There may be more events without another wake-up.
    more: bool,
    now: Instant,
    turn: u64,
    /// Bytes sent in this turn.
    sent: usize,
    stage: Vec<u8>,
    /// The interface or the own address of outgoing connections.
    binding: SocketBinding,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opened {
    /// A peer.
    Accepted,
    /// We did, and the peer has not answered yet.
    Connecting,
    /// We did.
    Connected,
}

#[derive(Debug)]
struct KernelStream {
    stream: TcpStream,
    opened: Opened,
    source: Source,
    /// The last time at which it was accepted, or took bytes.
    since: Instant,
    /// The peer has sent FIN, and we have.
    finished: bool,
    closed: bool,
    /// The turn in which it last sent or received, and the bytes.
    turn: u64,
    sent: usize,
    received: usize,
}

impl KernelStream {
    fn new(stream: TcpStream, opened: Opened, remote: SocketAddr, now: Instant) -> Self {
        // Requests and responses leave in large pieces; the last one should not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            opened,
            source: Source::of(remote.ip().to_canonical()),
            since: now,
            finished: false,
            closed: false,
            turn: 0,
            sent: 0,
            received: 0,
        }
    }

    /// Resets the byte counts at the first use in a turn.
    const fn begin(&mut self, turn: u64) {
        if self.turn != turn {
            (self.turn, self.sent, self.received) = (turn, 0, 0);
        }
    }
}

impl KernelStreams {
    /// Listens on addresses, at most [`MAX_KERNEL_LISTENERS`]. `shared`: other processes of this user may
    /// listen on the same ones.
    ///
    /// # Errors
    /// The operating system's error, with the address that cannot be bound.
    pub fn listen(addresses: &[SocketAddr], shared: bool) -> Result<Self, (SocketAddr, io::Error)> {
        let poll = Poll::new();
        let mut listeners = Vec::new();
        for (n, &address) in addresses.iter().enumerate() {
            let failed = |error| (address, error);
            if n >= MAX_KERNEL_LISTENERS {
                let message = format!("more than {MAX_KERNEL_LISTENERS} addresses");
                return Err(failed(io::Error::other(message)));
            }
            let mut listener = bind_listener(address, shared).map_err(failed)?;
            let registered = poll.as_ref().map(|poll| {
                let registry = poll.registry();
                registry.register(&mut listener, Token(n), Interest::READABLE)
            });
            match registered {
                Ok(Ok(())) => listeners.push(listener),
                Ok(Err(error)) => return Err(failed(error)),
                Err(error) => return Err(failed(io::Error::from(error.kind()))),
            }
        }
        let nowhere = SocketAddr::new([0, 0, 0, 0].into(), 0);
        Ok(Self {
            poll: poll.map_err(|error| (nowhere, error))?,
            events: Events::with_capacity(MAX_EVENTS),
            listeners,
            acceptable: true,
            paused_until: None,
            open: BTreeMap::new(),
            most: MAX_KERNEL_CONNECTIONS,
            next_id: MAX_KERNEL_LISTENERS,
            ready: VecDeque::new(),
            settled: Vec::new(),
            later: Vec::new(),
            more: true,
            now: Instant::ZERO,
            turn: 0,
            sent: 0,
            stage: vec![0; STAGE_BYTES],
            binding: SocketBinding::default(),
        })
    }

    /// The addresses of the listeners.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
    }

    /// The number of open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.len()
    }

    /// Collects the events of a turn.
    ///
    /// # Errors
    /// That of the poll.
    pub fn turn(&mut self, now: Instant) -> io::Result<()> {
        (self.now, self.turn, self.sent) = (now, self.turn + 1, 0);
        for id in std::mem::take(&mut self.later) {
            self.ready.push_back(TcpEvent::Writable(id));
        }
        self.more = false;
        for polled in 1.. {
            match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                polled => polled?,
            }
            let mut count = 0;
            for event in &self.events {
                count += 1;
                let token = event.token().0;
                if token < MAX_KERNEL_LISTENERS {
                    self.acceptable = true;
                    continue;
                }
                let id = id_of(token);
                if let Some(settled) = self.open.get_mut(&id).and_then(outgoing::settle) {
                    self.settled.push((id, settled));
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.ready.push_back(TcpEvent::Readable(id));
                }
                if event.is_writable() {
                    self.ready.push_back(TcpEvent::Writable(id));
                }
            }
            self.report_settled();
            if count < MAX_EVENTS {
                break;
            }
            if polled >= MAX_POLLS_PER_TURN {
                self.more = true;
                break;
            }
        }
        self.accept();
        Ok(())
    }

    /// The latest time of the next [`turn`](Self::turn), unless an event comes first.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let pending = self.acceptable && !self.listeners.is_empty();
        match self.paused_until {
            Some(at) if pending => Some(at),
            _ if pending || self.more || !self.later.is_empty() => Some(self.now),
            _ => None,
        }
    }

    fn accept(&mut self) {
        if self.paused_until.is_some_and(|at| self.now < at) {
            return;
        }
        self.paused_until = None;
        if !self.acceptable {
            return;
        }
        let count = self.listeners.len();
        let mut left = MAX_ACCEPTS_PER_TURN;
        // Each begins in its turn, so that a crowd at one does not exclude the others.
        let first = usize::try_from(self.turn).unwrap_or_default();
        for index in (0..count).map(|n| first.wrapping_add(n) % count) {
            while let Some(accepted) = self.listeners.get(index).map(TcpListener::accept) {
                match accepted {
                    Ok((stream, remote)) => self.admit(stream, remote),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if is_of_one_peer(error.kind()) => {}
                    Err(error) => {
                        if !self.spare_descriptors(&error) {
                            // The connection waits in the kernel's queue.
                            self.paused_until = Some(self.now + ACCEPT_PAUSE);
                            return;
                        }
                    }
                }
                left -= 1;
                if left == 0 {
                    return;
                }
            }
        }
        self.acceptable = false;
    }

    fn admit(&mut self, mut stream: TcpStream, remote: SocketAddr) {
        if self.open.len() >= self.most {
            self.evict();
        }
        let token = self.next_id;
        let both = Interest::READABLE | Interest::WRITABLE;
        let registered = self
            .poll
            .registry()
            .register(&mut stream, Token(token), both);
        let Ok(local) = registered.and_then(|()| stream.local_addr()) else {
            return;
        };
        self.next_id += 1;
        let id = id_of(token);
        let connection = KernelStream::new(stream, Opened::Accepted, remote, self.now);
        self.open.insert(id, connection);
        self.ready
            .push_back(TcpEvent::Accepted { id, local, remote });
    }

    /// Ends connections after an error of accept(2), for lack of descriptors, and lets there be fewer from
    /// now on, so that files can be opened; returns whether there were any to end.
    fn spare_descriptors(&mut self, error: &io::Error) -> bool {
        let fewer = self.open.len().saturating_sub(SPARE_DESCRIPTORS).max(1);
        if fewer >= self.open.len() {
            log::warn!("cannot accept a TCP connection ({error}): raise `ulimit -n`");
            return false;
        }
        log::warn!("at most {fewer} TCP connections from now on ({error}): raise `ulimit -n`");
        self.most = fewer;
        while self.open.len() > self.most {
            self.evict();
        }
        true
    }

    /// Resets the connection without progress for longest of the source with most connections.
    fn evict(&mut self) {
        let mut sizes: BTreeMap<Source, usize> = BTreeMap::new();
        for connection in self.open.values() {
            *sizes.entry(connection.source).or_default() += 1;
        }
        let size = |connection: &KernelStream| sizes.get(&connection.source).copied();
        let victim = self
            .open
            .iter()
            .max_by_key(|(_, one)| (size(one), core::cmp::Reverse(one.since)));
        if let Some(id) = victim.map(|(id, _)| *id) {
            self.end(id, CloseReason::Evicted);
        }
    }

    /// Ends a connection that its user has not ended, and reports it.
    fn end(&mut self, id: TcpId, reason: CloseReason) {
        self.abort(id);
        self.ready.push_back(TcpEvent::Closed(id, reason));
    }
}

fn bind_listener(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    if address.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
    }
    // Connections of an earlier process may still be closing.
    set_socket_reuseaddr(&socket, true)?;
    if shared {
        set_socket_reuseport(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// The id of the connection with a token.
const fn id_of(token: usize) -> TcpId {
    TcpId::of_another(token as u64)
}

/// Whether an error of accept(2) concerns the next connection only.
const fn is_of_one_peer(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
    )
}

impl TcpStreams for KernelStreams {
    fn poll_event(&mut self) -> Option<TcpEvent> {
        self.ready.pop_front()
    }

    fn receive(&mut self, id: TcpId, out: &mut [u8]) -> Result<usize, TcpError> {
        let connection = self.open.get_mut(&id).ok_or(TcpError::Unknown)?;
        if connection.finished {
            return Err(TcpError::Finished);
        }
        if connection.opened == Opened::Connecting {
            return Ok(0);
        }
        connection.begin(self.turn);
        if connection.opened != Opened::Accepted && connection.received >= MAX_RECEIVED_PER_TURN {
            self.later.push(id);
            return Ok(0);
        }
        loop {
            match connection.stream.read(out) {
                Ok(0) if out.is_empty() => return Ok(0),
                Ok(0) => {
                    connection.finished = true;
                    if connection.closed {
                        self.end(id, CloseReason::Finished);
                    }
                    return Err(TcpError::Finished);
                }
                Ok(count) => {
                    connection.received += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.end(id, CloseReason::Reset);
                    return Err(TcpError::Unknown);
                }
            }
        }
    }

    fn send_with<E>(
        &mut self,
        now: Instant,
        id: TcpId,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Option<Result<usize, E>>, TcpError> {
        let connection = self.open.get_mut(&id).ok_or(TcpError::Unknown)?;
        if connection.closed || connection.opened == Opened::Connecting {
            return Err(TcpError::NotOpen);
        }
        connection.begin(self.turn);
        if connection.sent >= MAX_SENT_PER_TURN || self.sent >= MAX_SENT_TOGETHER {
            self.later.push(id);
            return Ok(None);
        }
        let room = self.stage.get_mut(..most.min(STAGE_BYTES));
        let room = room.unwrap_or_default();
        let filled = match fill(room) {
            Ok(filled) => room.get(..filled).unwrap_or_default(),
            Err(error) => return Ok(Some(Err(error))),
        };
        loop {
            match connection.stream.write(filled) {
                Ok(count) => {
                    connection.since = now;
                    connection.sent += count;
                    self.sent += count;
                    return Ok(Some(Ok(count)));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.end(id, CloseReason::Reset);
                    return Err(TcpError::Unknown);
                }
            }
        }
    }

    fn expect_to_send(&mut self, _now: Instant, _id: TcpId, _bytes: u64) {}

    fn progress(&self, id: TcpId) -> Option<TcpProgress> {
        let connection = self.open.get(&id)?;
        Some(TcpProgress {
            // The kernel sends all bytes that it accepted, also after the descriptor is closed.
            queued: 0,
            since: connection.since,
        })
    }

    fn close(&mut self, id: TcpId) {
        if let Some(connection) = self.open.get_mut(&id) {
            connection.closed = true;
            // An error comes as an event.
            let _ = connection.stream.shutdown(Shutdown::Write);
            if connection.finished {
                self.end(id, CloseReason::Finished);
            }
        }
    }

    fn abort(&mut self, id: TcpId) {
        if let Some(connection) = self.open.remove(&id)
            && !connection.closed
        {
            // Closing it then sends a reset.
            let _ = set_socket_linger(&connection.stream, Some(Duration::ZERO));
        }
    }

    fn stop_listening(&mut self) {
        self.listeners.clear();
    }
}

impl AsRawFd for KernelStreams {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
