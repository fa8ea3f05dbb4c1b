//! The client engine.

use std::net::SocketAddr;
use std::time::Duration;

use crate::time::{Instant, Now};
use crate::wire::flight::{Ecn, Flight, UdpPath};

/// What a client connection is set up with.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Own address and port.
    pub local: SocketAddr,
    /// The service.
    pub remote: SocketAddr,
    /// MTU of the own device in bytes (IP packet); responses are asked for at this size.
    pub mtu: u16,
    /// Reassembly buffer in bytes: what lies beyond it is not asked for.
    pub buffer: usize,
    /// Give up after this long without any progress.
    pub idle_timeout: Duration,
}

/// What a connection tells its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// A first answer has come.
    Connected,
    /// The response stream has begun; its length in bytes.
    Began {
        /// Bytes of the whole stream.
        length: u64,
    },
    /// There may be bytes to `read`.
    Readable,
    /// Every byte of the stream has been read.
    Finished,
    /// The object changed on the server: the stream cannot be completed. Ask anew.
    Changed,
    /// No progress for `idle_timeout`.
    TimedOut,
}

/// Counters of a connection; all monotonic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Datagrams received and sent, with the bytes of their UDP payloads.
    pub packets_in: u64,
    /// Datagrams sent.
    pub packets_out: u64,
    /// UDP payload bytes received.
    pub bytes_in: u64,
    /// UDP payload bytes sent.
    pub bytes_out: u64,
    /// Stream bytes received (each counted once).
    pub stream_bytes: u64,
    /// Connections opened (first OPEN of each; 1 unless the service forgot us).
    pub handshakes: u64,
    /// OPEN datagrams sent.
    pub opens: u64,
    /// Requests sent (OPEN not counted).
    pub requests: u64,
    /// Numbers declared lost.
    pub lost: u64,
    /// Requests sent again because their whole flight was missing.
    pub repeated: u64,
    /// Probes sent.
    pub probes: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Transitions declared, by kind (metric label, count).
    pub transitions: Vec<(&'static str, u64)>,
    /// Smallest round trip seen, if any.
    pub rtt_min: Option<Duration>,
    /// Smoothed round trip, if any.
    pub rtt_smoothed: Option<Duration>,
    /// Present congestion window in packets.
    pub window: u64,
    /// Data packets received by server id, ascending.
    pub by_server: Vec<(u16, u64)>,
    /// Datagrams dropped, by reason (label, count).
    pub drops: Vec<(&'static str, u64)>,
}

/// One connection of a client.
pub struct Client {
    config: ClientConfig,
}

impl Client {
    /// A connection that has not sent anything; `seed` feeds its random choices.
    #[must_use]
    pub fn new(config: ClientConfig, _seed: u64) -> Self {
        Self { config }
    }

    // --- commands ---

    /// Asks for a new response stream; the one before must be finished or is given up.
    pub fn request(&mut self, _now: Now, _request: &[u8]) {
        todo!()
    }

    /// Takes bytes of the stream in order; returns how many.
    pub fn read(&mut self, _now: Now, _out: &mut [u8]) -> usize {
        todo!()
    }

    // --- input ---

    /// Takes one datagram from the network.
    pub fn handle_datagram(&mut self, _now: Now, _path: UdpPath, _ecn: Ecn, _datagram: &[u8]) {
        todo!()
    }

    /// To be called when the deadline of `poll_timeout` has passed.
    pub fn handle_timeout(&mut self, _now: Now) {
        todo!()
    }

    // --- output ---

    /// The next datagram to send, if any.
    pub fn poll_transmit(&mut self, _now: Now) -> Option<Flight> {
        let _ = &self.config;
        todo!()
    }

    /// When to call `handle_timeout`, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        todo!()
    }

    /// The next event, if any.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        todo!()
    }

    /// What has happened since the start.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        todo!()
    }
}
