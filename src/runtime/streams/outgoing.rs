//! Outgoing TCP connections of the kernel.
//!
//! In: addresses to connect to, events of the sockets. Out: connections, and the failures of those that did not
//! come about. A socket that is refused leaves the epoll instance with its descriptor at once; one that is given up
//! is closed with a reset, so that it leaves no connection at its peer and no TIME-WAIT.
//! Sources: connect(2) on `EINPROGRESS`, tcp(7), socket(7) on `SO_ERROR`.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, RawFd};

use mio::net::TcpStream;
use mio::{Interest, Token};
use rustix::io::Errno;

use super::{KernelStream, KernelStreams, Opened, id_of};
use crate::device::binding::SocketBinding;
use crate::host::streams::{
    CloseReason, OutgoingStreams, TcpError, TcpEvent, TcpId, TcpStreams as _,
};
use crate::time::Instant;

/// The outcome of an attempt to connect.
pub(super) type Settled = Result<(), CloseReason>;

/// Returns the outcome of an attempt to connect after an event of its socket, if there is one.
pub(super) fn settle(connection: &mut KernelStream) -> Option<Settled> {
    if connection.opened != Opened::Connecting {
        return None;
    }
    match connected(&connection.stream)? {
        Ok(()) => {
            connection.opened = Opened::Connected;
            Some(Ok(()))
        }
        Err(error) => {
            log::debug!("a TCP connection failed: {error}");
            let timed_out = error.kind() == ErrorKind::TimedOut;
            Some(Err(match timed_out {
                true => CloseReason::TimedOut,
                false => CloseReason::Reset,
            }))
        }
    }
}

/// Returns whether a stream that was connecting is connected or has failed, after an event; `None` if neither.
pub(crate) fn connected(stream: &TcpStream) -> Option<io::Result<()>> {
    let error = match stream.take_error() {
        Ok(None) => stream.peer_addr().err(),
        Ok(Some(error)) | Err(error) => Some(error),
    };
    match error {
        None => Some(Ok(())),
        Some(error) if error.kind() == ErrorKind::NotConnected => None,
        Some(error) => Some(Err(error)),
    }
}

impl KernelStreams {
    /// Creates streams for outgoing connections only.
    ///
    /// # Errors
    /// If the operating system has no descriptors left.
    pub fn outgoing() -> io::Result<Self> {
        Self::outgoing_from(SocketBinding::default())
    }

    /// Creates streams for outgoing connections only, which use an interface or an own address.
    ///
    /// # Errors
    /// If the operating system has no descriptors left.
    pub fn outgoing_from(binding: SocketBinding) -> io::Result<Self> {
        let streams = Self::listen(&[], false).map_err(|(_, error)| error)?;
        Ok(Self { binding, ..streams })
    }

    /// Reports connections that were established or refused.
    pub(super) fn report_settled(&mut self) {
        for (id, settled) in std::mem::take(&mut self.settled) {
            match settled {
                Ok(()) => self.ready.push_back(TcpEvent::Connected(id)),
                Err(reason) => self.end(id, reason),
            }
        }
    }

    fn open(&mut self, remote: SocketAddr) -> io::Result<TcpId> {
        let mut stream = TcpStream::from_std(self.binding.tcp_to(remote)?);
        let both = Interest::READABLE | Interest::WRITABLE;
        let token = self.next_id;
        let registry = self.poll.registry();
        registry.register(&mut stream, Token(token), both)?;
        self.next_id += 1;
        let id = id_of(token);
        let connection = KernelStream::new(stream, Opened::Connecting, remote, self.now);
        self.open.insert(id, connection);
        Ok(id)
    }
}

impl OutgoingStreams for KernelStreams {
    fn connect(&mut self, _now: Instant, remote: SocketAddr) -> Result<TcpId, TcpError> {
        if self.open.len() >= self.most {
            return Err(TcpError::TooManyConnections);
        }
        self.open(remote)
            .map_err(|error| match Errno::from_io_error(&error) {
                Some(Errno::MFILE | Errno::NFILE) => {
                    log::warn!("cannot connect to {remote} ({error}): raise `ulimit -n`");
                    TcpError::TooManyConnections
                }
                _ => {
                    log::debug!("cannot connect to {remote}: {error}");
                    TcpError::NoAddress
                }
            })
    }

    fn poll_event(&mut self) -> Option<TcpEvent> {
        self.ready.pop_front()
    }

    fn receive(&mut self, id: TcpId, out: &mut [u8]) -> Result<usize, TcpError> {
        super::TcpStreams::receive(self, id, out)
    }

    fn send(&mut self, id: TcpId, bytes: &[u8]) -> Result<usize, TcpError> {
        let fill = |room: &mut [u8]| {
            let count = room.len().min(bytes.len());
            let (room, bytes) = (room.get_mut(..count), bytes.get(..count));
            if let (Some(room), Some(bytes)) = (room, bytes) {
                room.copy_from_slice(bytes);
            }
            Ok::<_, TcpError>(count)
        };
        let sent = self.send_with(self.now, id, bytes.len(), fill)?;
        sent.map_or(Ok(0), |sent| sent)
    }

    fn abort(&mut self, id: TcpId) {
        super::TcpStreams::abort(self, id);
    }

    fn collect(&mut self, now: Instant) {
        if self.open.is_empty() && self.listeners.is_empty() {
            return;
        }
        if let Err(error) = self.turn(now) {
            log::error!("cannot poll TCP connections: {error}");
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.open.is_empty() {
            true => None,
            false => Self::deadline(self),
        }
    }

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.as_raw_fd())
    }
}
