//! A connection of a client, which carries one response stream after the other: our transport, or a
//! TCP connection of the stack or of the kernel.
//!
//! In: request heads and time. Out: the bytes of the response streams, in order, and the end of each.
//! Knows nothing of HTTP; the transfer on top finds the end of a response by itself.

use std::net::SocketAddr;

use crate::apps::fetch::End;
use crate::host::streams::{CloseReason, OutgoingStreams, TcpError, TcpEvent, TcpId};
use crate::time::Now;
use crate::transport::client::{Client, ClientEvent};

/// A connection to one service.
pub(crate) enum ClientConnection {
    /// Our transport.
    Trickles(Box<Client>),
    /// TCP.
    Tcp(OwnTcp),
}

/// A TCP connection of our own.
pub(crate) struct OwnTcp {
    id: TcpId,
    connected: bool,
    /// Bytes of the request that the send buffer has not taken yet.
    outbox: Vec<u8>,
    /// Requests that went before the present one.
    served: u64,
    /// How the connection ended, once it has.
    ended: Option<CloseReason>,
    /// The peer will send no more.
    finished: bool,
}

impl ClientConnection {
    /// Begins a TCP connection.
    pub(crate) fn connect(
        now: Now,
        streams: &mut dyn OutgoingStreams,
        remote: SocketAddr,
    ) -> Result<Self, TcpError> {
        let id = streams.connect(now.instant, remote)?;
        Ok(Self::Tcp(OwnTcp {
            id,
            connected: false,
            outbox: Vec::new(),
            served: 0,
            ended: None,
            finished: false,
        }))
    }

    /// Requests the next response stream; unread bytes of the one before are given up.
    pub(crate) fn request(&mut self, now: Now, streams: &mut dyn OutgoingStreams, head: Vec<u8>) {
        match self {
            Self::Trickles(client) => {
                // Events of the stream before are of no use any more.
                while client.poll_event().is_some() {}
                client.request(now, &head);
            }
            Self::Tcp(tcp) => {
                tcp.outbox = head;
                tcp.flush(streams);
            }
        }
    }

    /// Whether the same connection can carry another request after a whole response: it is open, and nothing came
    /// after the response, which would be taken for the next one.
    pub(crate) fn is_reusable(&mut self, streams: &mut dyn OutgoingStreams) -> bool {
        match self {
            Self::Trickles(_) => true,
            Self::Tcp(tcp) => {
                let silent = streams.receive(tcp.id, &mut [0]) == Ok(0);
                silent && tcp.ended.is_none() && !tcp.finished
            }
        }
    }

    /// Takes note of bytes that follow a whole response: no request needs them.
    pub(crate) fn handle_excess(&mut self) {
        if let Self::Tcp(tcp) = self {
            tcp.finished = true;
        }
    }

    /// Whether it is a TCP connection.
    pub(crate) const fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Takes note that a response is whole.
    pub(crate) fn handle_whole(&mut self) {
        if let Self::Tcp(tcp) = self {
            tcp.served += 1;
        }
    }

    /// The next bytes of the present stream, in place or else in `stage`, at most as many as it
    /// holds; empty if there are none now. All of them are to be used, and then `consume`d.
    pub(crate) fn ready<'b>(
        &'b mut self,
        streams: &mut dyn OutgoingStreams,
        stage: &'b mut [u8],
    ) -> &'b [u8] {
        match self {
            Self::Trickles(client) => {
                let ready = client.ready();
                ready.get(..stage.len()).unwrap_or(ready)
            }
            Self::Tcp(tcp) => {
                let count = match streams.receive(tcp.id, stage) {
                    Ok(count) => count,
                    Err(error) => {
                        tcp.finished |= matches!(error, TcpError::Finished);
                        0
                    }
                };
                stage.get(..count).unwrap_or_default()
            }
        }
    }

    /// Drops `count` bytes that were `ready` and have been used.
    pub(crate) fn consume(&mut self, now: Now, count: usize) {
        if let Self::Trickles(client) = self {
            client.consume(now, count);
        }
    }

    /// The end of the present stream, if it has ended. To be called when `ready` returns nothing.
    pub(crate) fn poll_end(&mut self) -> Option<End> {
        match self {
            Self::Trickles(client) => loop {
                match client.poll_event()? {
                    ClientEvent::Finished => return Some(End::Closed { reused: false }),
                    ClientEvent::Changed => return Some(End::Changed),
                    ClientEvent::TimedOut if !client.is_connected() => {
                        return Some(End::CannotConnect);
                    }
                    ClientEvent::TimedOut => return Some(End::TimedOut),
                    ClientEvent::Connected | ClientEvent::Began { .. } | ClientEvent::Readable => {}
                }
            },
            Self::Tcp(tcp) => tcp.end(),
        }
    }

    /// Whether any byte of the peer has arrived, although it may not be connected yet.
    pub(crate) const fn has_received(&self) -> bool {
        match self {
            Self::Trickles(client) => client.has_received(),
            Self::Tcp(tcp) => tcp.connected,
        }
    }

    /// Whether the peer has answered at all.
    pub(crate) fn is_connected(&self) -> bool {
        match self {
            Self::Trickles(client) => client.is_connected(),
            Self::Tcp(tcp) => tcp.connected,
        }
    }

    /// Takes a TCP event; one of another connection changes nothing.
    pub(crate) fn handle_tcp(&mut self, streams: &mut dyn OutgoingStreams, event: TcpEvent) {
        let Self::Tcp(tcp) = self else { return };
        match event {
            TcpEvent::Connected(id) if id == tcp.id => {
                tcp.connected = true;
                tcp.flush(streams);
            }
            TcpEvent::Writable(id) if id == tcp.id => tcp.flush(streams),
            TcpEvent::Closed(id, reason) if id == tcp.id => tcp.ended = Some(reason),
            TcpEvent::Connected(_)
            | TcpEvent::Writable(_)
            | TcpEvent::Closed(..)
            | TcpEvent::Readable(_)
            | TcpEvent::Accepted { .. } => {}
        }
    }

    /// Ends the present stream, which has been read if it is `whole`; returns whether the connection
    /// can carry another.
    pub(crate) fn leave(&mut self, whole: bool) -> bool {
        match self {
            Self::Trickles(client) => {
                client.stop();
                client.is_connected()
            }
            Self::Tcp(_) => whole,
        }
    }

    /// The engine of our transport.
    pub(crate) const fn transport(&self) -> Option<&Client> {
        match self {
            Self::Trickles(client) => Some(client),
            Self::Tcp(_) => None,
        }
    }

    /// The engine of our transport, to be changed.
    pub(crate) const fn transport_mut(&mut self) -> Option<&mut Client> {
        match self {
            Self::Trickles(client) => Some(client),
            Self::Tcp(_) => None,
        }
    }

    /// Gives the connection up.
    pub(crate) fn abandon(&mut self, streams: &mut dyn OutgoingStreams) {
        if let Self::Tcp(tcp) = self {
            streams.abort(tcp.id);
        }
    }
}

impl OwnTcp {
    fn flush(&mut self, streams: &mut dyn OutgoingStreams) {
        if self.connected && !self.outbox.is_empty() {
            // The end of a connection comes as an event.
            let sent = streams.send(self.id, &self.outbox).unwrap_or(0);
            self.outbox.drain(..sent.min(self.outbox.len()));
        }
    }

    fn end(&mut self) -> Option<End> {
        let reused = self.served > 0;
        match self.ended {
            Some(_) if !self.connected => Some(End::CannotConnect),
            Some(CloseReason::Finished) => Some(End::Closed { reused }),
            Some(CloseReason::Reset | CloseReason::Evicted) => Some(End::Reset { reused }),
            Some(CloseReason::TimedOut) => Some(End::TimedOut),
            None => self.finished.then_some(End::Closed { reused }),
        }
    }
}
