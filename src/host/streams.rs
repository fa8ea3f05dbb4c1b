//! TCP connections as HTTP over them needs them: of the stack, or of the kernel.
//!
//! In: commands of [`Web`](crate::host::web::Web) for accepted connections, and of a client for outgoing ones. Out:
//! bytes, and events of connections. The stack's are a machine's own. The kernel's belong to the driver of a server,
//! which passes them in once per turn; a client is given its own, since it reads whenever its output has room.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use crate::stack::Stack;
use crate::time::Instant;

pub use crate::stack::{CloseReason, TcpError, TcpEvent, TcpId, TcpProgress};

/// See the head of this file. The methods have the meaning of those of [`Stack`].
pub trait TcpStreams {
    /// Returns the next event of any connection.
    fn poll_event(&mut self) -> Option<TcpEvent>;

    /// Reads received bytes and returns how many; 0 if there are none yet.
    ///
    /// # Errors
    /// [`TcpError`].
    fn receive(&mut self, id: TcpId, out: &mut [u8]) -> Result<usize, TcpError>;

    /// Lets `fill` write up to `most` bytes to send, and returns how many of them are queued: the others
    /// must be written again. `None` without room; an event follows.
    ///
    /// # Errors
    /// [`TcpError`]; the inner result has the error of `fill`.
    fn send_with<E>(
        &mut self,
        now: Instant,
        id: TcpId,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Option<Result<usize, E>>, TcpError>;

    /// Announces that `bytes` will follow, zero if none will for now.
    fn expect_to_send(&mut self, now: Instant, id: TcpId, bytes: u64);

    /// How far the peer is with the bytes sent to it.
    fn progress(&self, id: TcpId) -> Option<TcpProgress>;

    /// Closes the sending direction after the queued bytes.
    fn close(&mut self, id: TcpId);

    /// Ends the connection without an event, with a reset unless it was closed before.
    fn abort(&mut self, id: TcpId);

    /// Refuses new connections.
    fn stop_listening(&mut self);
}

impl TcpStreams for Stack {
    fn poll_event(&mut self) -> Option<TcpEvent> {
        self.poll_event()
    }

    fn receive(&mut self, id: TcpId, out: &mut [u8]) -> Result<usize, TcpError> {
        self.receive(id, out)
    }

    fn send_with<E>(
        &mut self,
        now: Instant,
        id: TcpId,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Option<Result<usize, E>>, TcpError> {
        self.send_with(now, id, most, |room| {
            let filled = fill(room);
            (*filled.as_ref().unwrap_or(&0), filled)
        })
    }

    fn expect_to_send(&mut self, now: Instant, id: TcpId, bytes: u64) {
        self.expect_to_send(now, id, bytes);
    }

    fn progress(&self, id: TcpId) -> Option<TcpProgress> {
        self.progress(id)
    }

    fn close(&mut self, id: TcpId) {
        self.close(id);
    }

    fn abort(&mut self, id: TcpId) {
        self.abort(id);
    }

    fn stop_listening(&mut self) {
        self.stop_listening();
    }
}

/// Outgoing TCP connections. The methods have the meaning of those of [`Stack`]; none of them blocks.
pub trait OutgoingStreams {
    /// Begins a connection; an event follows.
    ///
    /// # Errors
    /// [`TcpError`], if it fails at once.
    fn connect(&mut self, now: Instant, remote: SocketAddr) -> Result<TcpId, TcpError>;

    /// Returns the next event of any connection.
    fn poll_event(&mut self) -> Option<TcpEvent>;

    /// Reads received bytes and returns how many; 0 if there are none yet.
    ///
    /// # Errors
    /// [`TcpError`].
    fn receive(&mut self, id: TcpId, out: &mut [u8]) -> Result<usize, TcpError>;

    /// Queues bytes to send, and returns how many; an event follows when there is room for more.
    ///
    /// # Errors
    /// [`TcpError`].
    fn send(&mut self, id: TcpId, bytes: &[u8]) -> Result<usize, TcpError>;

    /// Ends the connection without an event, with a reset.
    fn abort(&mut self, id: TcpId);

    /// Collects the events of a turn of the loop.
    fn collect(&mut self, _now: Instant) {}

    /// The latest time of the next [`collect`](Self::collect), unless the descriptor is readable before.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The descriptor that is readable when there are events to collect.
    fn descriptor(&self) -> Option<RawFd> {
        None
    }
}

impl OutgoingStreams for Stack {
    fn connect(&mut self, now: Instant, remote: SocketAddr) -> Result<TcpId, TcpError> {
        self.connect(now, remote)
    }

    fn poll_event(&mut self) -> Option<TcpEvent> {
        self.poll_event()
    }

    fn receive(&mut self, id: TcpId, out: &mut [u8]) -> Result<usize, TcpError> {
        self.receive(id, out)
    }

    fn send(&mut self, id: TcpId, bytes: &[u8]) -> Result<usize, TcpError> {
        self.send(id, bytes)
    }

    fn abort(&mut self, id: TcpId) {
        self.abort(id);
    }
}

/// The TCP connections of a client: of its stack, or of the kernel if it has been given those.
pub(super) struct ClientStreams {
    pub(super) stack: Stack,
    kernel: Option<Box<dyn OutgoingStreams>>,
}

impl ClientStreams {
    pub(super) const fn new(stack: Stack, kernel: Option<Box<dyn OutgoingStreams>>) -> Self {
        Self { stack, kernel }
    }

    /// The streams that carry connections.
    pub(super) fn streams(&mut self) -> &mut dyn OutgoingStreams {
        match &mut self.kernel {
            Some(kernel) => kernel.as_mut(),
            None => &mut self.stack,
        }
    }

    /// Those of the kernel.
    pub(super) fn kernel(&self) -> Option<&dyn OutgoingStreams> {
        self.kernel.as_deref()
    }
}
