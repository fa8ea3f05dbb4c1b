//! The client engine: all memory, timers and loss detection of a connection, without I/O.
//!
//! Four kinds of methods. *Commands*: `request`, `read`, `stop`. *Input*: `handle_datagrams`,
//! `handle_timeout`. *Output*: `poll_transmit`, `poll_timeout`, `poll_event`. *Getters*: `stats` and
//! others. After each command or input, drain `poll_transmit` and `poll_event` until `None`, then ask
//! `poll_timeout`. Time never goes backwards between calls.
//!
//! A [`Client`] owns a connection, the path that it takes, and an outbox. It routes commands, packets
//! and timers to them and decides nothing itself: `connection` has the identity, the window with its
//! evidence and the stream, `path` the addresses and all that was measured between them.

mod bucket;
mod config;
mod connection;
mod flights;
mod hedge;
mod hystart;
mod input;
mod outbox;
mod output;
mod pacer;
mod path;
mod reassembly;
mod rtt;
mod servers;
mod spans;
mod stats;
mod stream;
#[cfg(test)]
mod tests;
mod timers;
mod uplink;
mod window;

use std::net::SocketAddr;

use crate::time::{Instant, Now};
use crate::transport::client::connection::Connection;
use crate::transport::client::outbox::Outbox;
use crate::transport::client::path::Path;
use crate::transport::client::window::Window;
use crate::wire::flight::{Ecn, Flight, UdpPath};
use crate::wire::segment::Addressee;

pub use config::{
    ClientBuilder, ClientConfig, ClientConfigError, DEFAULT_BUFFER_BYTES, DEFAULT_IDLE_TIMEOUT,
    NO_BUFFER, NO_TIME, PORT_ZERO,
};
pub use stats::{ClientStats, MAX_SERVERS};

/// A continuation remembered as an address token for a later connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressToken {
    /// The connection it was sealed for.
    pub connection: u64,
    /// The continuation.
    pub sealed: Vec<u8>,
}

/// An event that a connection reports to its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// A first answer has arrived.
    Connected,
    /// The response stream has begun.
    Began {
        /// Bytes of the whole stream; `None`: not known yet.
        length: Option<u64>,
    },
    /// There are bytes to `read`.
    Readable,
    /// Every byte of the stream has been read.
    Finished,
    /// The object changed on the server: the stream cannot be completed. Ask anew.
    Changed,
    /// No answer for `idle_timeout`. The request is given up.
    TimedOut,
}

/// One connection of a client, and one response stream at a time.
pub struct Client {
    connection: Connection,
    path: Path,
    outbox: Outbox,
}

impl Client {
    /// A connection that has not sent anything; `seed` feeds its random choices.
    #[must_use]
    pub fn new(config: ClientConfig, seed: u64) -> Self {
        Self {
            path: Path::new(config.local, config.remote, config.mtu),
            connection: Connection::new(config, seed),
            outbox: Outbox::default(),
        }
    }

    // --- Commands ---

    /// Requests a new response stream; the one before is finished or given up. `request` is at most
    /// `MAX_REQUEST_BYTES` long; a longer one is cut, and the application will refuse it.
    pub fn request(&mut self, now: Now, request: &[u8]) {
        let (path, out) = (&mut self.path, &mut self.outbox);
        self.connection.request(now.instant, path, out, request);
    }

    /// Takes bytes of the stream in order; returns how many.
    pub fn read(&mut self, now: Now, out: &mut [u8]) -> usize {
        let mut count = 0;
        // Twice at most: up to the end of the buffer, and from its start.
        loop {
            let (room, ready) = (out.get_mut(count..).unwrap_or_default(), self.ready());
            let together = room.len().min(ready.len());
            let (Some(to), Some(from)) = (room.get_mut(..together), ready.get(..together)) else {
                return count;
            };
            if together == 0 {
                return count;
            }
            to.copy_from_slice(from);
            self.consume(now, together);
            count += together;
        }
    }

    /// The next bytes of the stream, as far as they are contiguous in memory, to be used in place and
    /// then [`consume`](Self::consume)d; empty if there are none.
    #[must_use]
    pub fn ready(&self) -> &[u8] {
        self.connection.stream.reassembly.ready()
    }

    /// Takes `count` of the bytes that are `ready`.
    pub fn consume(&mut self, now: Now, count: usize) {
        if count > 0 {
            let (path, out) = (&mut self.path, &mut self.outbox);
            self.connection.consume(now.instant, path, out, count);
        }
    }

    /// Sets other addresses of the same family at which servers of the same keys may answer, the best first; at most
    /// fifteen are used. A spare gets copies of overdue requests, one for twenty requests at most, and all while the present
    /// address is silent; the first to answer then carries the connection on, without a handshake.
    pub fn set_spares(&mut self, spares: impl IntoIterator<Item = SocketAddr>) {
        self.path.set_spares(spares);
    }

    /// Sends the OPEN of a connection without any answer again, before its timeout; the timeout runs from now on. No effect
    /// on another connection.
    pub fn open_again(&mut self, now: Now) {
        let (path, out) = (&mut self.path, &mut self.outbox);
        self.connection.open_again(now.instant, path, out);
    }

    /// Adds such addresses behind those that are known.
    pub fn add_spares(&mut self, spares: impl IntoIterator<Item = SocketAddr>) {
        self.path.add_spares(spares);
    }

    /// Gives up the present stream: no more of it is requested.
    pub fn stop(&mut self) {
        self.connection.stream.finished = true;
    }

    // --- Input ---

    /// Takes one datagram from the network. One that is not of this connection is dropped and counted.
    pub fn handle_datagram(&mut self, now: Now, from: UdpPath, ecn: Ecn, datagram: &[u8]) {
        self.handle_datagrams(now, from, ecn, core::iter::once(datagram));
    }

    /// Takes the datagrams of one packet from the network, which came together: losses and requests
    /// are decided once, after the last of them.
    pub fn handle_datagrams<'d>(
        &mut self,
        now: Now,
        from: UdpPath,
        ecn: Ecn,
        datagrams: impl Iterator<Item = &'d [u8]>,
    ) {
        let now = now.instant;
        let (path, out) = (&mut self.path, &mut self.outbox);
        if !path.is_path_of(from) {
            datagrams.for_each(|_| out.stats.dropped("foreign_address"));
            return;
        }
        let (is_silent, since_copy) = (path.is_silent(), path.since_copy(now));
        let mut answered = false;
        for datagram in datagrams {
            answered |= self
                .connection
                .handle_datagram(now, path, out, ecn, datagram);
        }
        if answered && is_silent && path.switch(from.src, since_copy) {
            out.stats.switches += 1;
        }
        if answered {
            path.answered_from(from.src);
        }
        if answered {
            self.connection.detect_losses(now, path, out);
        }
        self.connection.fill(now, path, out);
    }

    /// To be called when the deadline of `poll_timeout` has passed; harmless at other times.
    pub fn handle_timeout(&mut self, now: Now) {
        let (path, out) = (&mut self.path, &mut self.outbox);
        self.connection.handle_timeout(now.instant, path, out);
    }

    // --- Output ---

    /// The next datagram to send, if any.
    pub fn poll_transmit(&mut self, now: Now) -> Option<Flight> {
        let out = &mut self.outbox;
        if out.is_empty() && out.filled_at != Some(now.instant) {
            self.connection.fill(now.instant, &mut self.path, out);
        }
        out.poll_transmit()
    }

    /// When to call `handle_timeout`, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.connection.next_timeout(&self.path, &self.outbox)
    }

    /// The next event, if any.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.outbox.poll_event()
    }

    // --- Getters ---

    /// Whether any datagram of it has arrived, valid or not.
    #[must_use]
    pub const fn has_received(&self) -> bool {
        self.outbox.stats.packets_in > 0
    }

    /// The counters since the start, and the present round trips and window.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        self.with_present(self.outbox.stats.clone())
    }

    /// The same, at the end.
    #[must_use]
    pub fn into_stats(mut self) -> ClientStats {
        let counters = core::mem::take(&mut self.outbox.stats);
        self.with_present(counters)
    }

    /// The counters with the present round trips and window.
    fn with_present(&self, counters: ClientStats) -> ClientStats {
        ClientStats {
            rtt_min: self.path.rtt().min(),
            rtt_smoothed: self.path.rtt().smoothed(),
            window: self.connection.window().map_or(0, Window::packets),
            ..counters
        }
    }

    /// Whether a server has answered.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.outbox.stats.handshakes > 0
    }

    /// Whether a datagram with this addressee is of this connection.
    #[must_use]
    pub fn is_addressed(&self, addressee: Addressee) -> bool {
        self.connection.is_addressed(addressee)
    }

    /// Whether the stream has bytes to read now.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.connection.stream.reassembly.readable()
    }

    /// The newest continuation, to be remembered as an address token, and when it came.
    #[must_use]
    pub fn address_token(&self) -> Option<(AddressToken, Instant)> {
        self.connection.address_token()
    }
}
