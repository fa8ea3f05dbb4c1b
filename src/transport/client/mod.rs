//! The client engine: all memory, timers and loss detection of a connection, without I/O.
//!
//! Four kinds of methods. *Commands*: `request`, `read`. *Input*: `handle_datagrams`,
//! `handle_timeout`. *Output*: `poll_transmit`, `poll_timeout`, `poll_event`. *Getters*: `stats` and
//! others. After each command or input, drain `poll_transmit` and `poll_event` until `None`, then ask
//! `poll_timeout`. Time never goes backwards between calls.
//!
//! This file routes between the parts and knows the connection's life; each part has a file.

mod flights;
mod hystart;
mod input;
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
mod window;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

use crate::time::{Instant, Now};
use crate::transport::client::flights::Flights;
use crate::transport::client::path::Path;
use crate::transport::client::stream::Stream;
use crate::transport::client::window::Window;
use crate::transport::epoch::{Epoch, TransitionKind};
use crate::transport::layout::Layout;
use crate::wire::flight::Flight;

pub use stats::{ClientStats, MAX_SERVERS};

/// Most datagrams that wait to be polled.
const MAX_OUTBOX: usize = 64;

/// Most events that wait to be polled; `Readable` is not queued twice.
const MAX_EVENTS: usize = 64;

/// Connections opened anew for one stream without a byte of it before it is given up as changed.
const MAX_REOPENED: u32 = 3;

/// A continuation remembered as an address token for a later connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressToken {
    /// The connection it was sealed for.
    pub connection: u64,
    /// The continuation.
    pub sealed: Vec<u8>,
}

/// What a client connection is set up with.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Own address and port.
    pub local: SocketAddr,
    /// The service.
    pub remote: SocketAddr,
    /// MTU of the own device in bytes (IP packet, 576 to 65,535); responses are asked for at this
    /// size.
    pub mtu: u16,
    /// Reassembly buffer in bytes: what lies beyond it is not asked for.
    pub buffer: usize,
    /// Give up after this long without any answer while one is awaited.
    pub idle_timeout: Duration,
    /// Proof of the own address from an earlier connection to the same service.
    pub token: Option<AddressToken>,
}

/// What a connection tells its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// A first answer has come.
    Connected,
    /// The response stream has begun.
    Began {
        /// Bytes of the whole stream.
        length: u64,
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

/// A connection that has an identity.
#[derive(Debug)]
struct Connection {
    id: u64,
    window: Window,
    /// A number beyond the present event is lost: an event of the next epoch.
    deferred_loss: Option<u64>,
    /// What was given up is to be declared (again).
    declare_due: bool,
    /// Numbers up to here were released when a request was last repeated.
    repeated_up_to: u64,
}

/// An OPEN under way.
#[derive(Clone, Copy, Debug)]
struct Opening {
    echo: u64,
    sent: Instant,
    attempts: u32,
    due: bool,
}

/// A probe under way.
#[derive(Clone, Copy, Debug)]
struct Probe {
    tag: u32,
    sent: Instant,
    /// The epoch that the continuation in its answer speaks for.
    yields: Epoch,
    /// Its answer opens that epoch: it declared an event.
    opens: bool,
}

/// One connection of a client, and one response stream at a time.
pub struct Client {
    config: ClientConfig,
    random: ChaCha8Rng,
    connection: Option<Connection>,
    opening: Option<Opening>,
    stream: Stream,
    flights: Flights,
    path: Path,
    probe: Option<Probe>,
    /// Flights to be asked for again.
    repeats: VecDeque<u64>,
    layout: Layout,
    outbox: VecDeque<Flight>,
    /// When nothing was left that could be put into the outbox; `None` if something may be.
    filled_at: Option<Instant>,
    events: VecDeque<ClientEvent>,
    stats: ClientStats,
    /// Connections opened anew since the last byte of the stream.
    reopened: u32,
    /// Last answer, or request of an idle connection.
    last_answer: Instant,
    last_new_byte: Instant,
    /// When the first number not acknowledged came.
    unacknowledged_since: Option<Instant>,
    /// When to look again for something to send (pacing, delayed acknowledgement, gates).
    send_timer: Option<(Instant, &'static str)>,
}

impl Client {
    /// A connection that has not sent anything; `seed` feeds its random choices.
    #[must_use]
    pub fn new(config: ClientConfig, seed: u64) -> Self {
        let stream = Stream::new(config.buffer);
        let path = Path::new(config.local, config.remote, config.mtu);
        Self {
            config,
            random: ChaCha8Rng::seed_from_u64(seed),
            connection: None,
            opening: None,
            stream,
            flights: Flights::default(),
            path,
            probe: None,
            repeats: VecDeque::new(),
            layout: Layout::default(),
            outbox: VecDeque::new(),
            filled_at: None,
            events: VecDeque::new(),
            stats: ClientStats::default(),
            reopened: 0,
            last_answer: Instant::ZERO,
            last_new_byte: Instant::ZERO,
            unacknowledged_since: None,
            send_timer: None,
        }
    }

    // --- Commands ---

    /// Asks for a new response stream; the one before is finished or given up. `request` is at most
    /// `MAX_REQUEST_BYTES` long; a longer one is cut, which the application will refuse.
    pub fn request(&mut self, now: Now, request: &[u8]) {
        let most = crate::transport::application::MAX_REQUEST_BYTES.min(request.len());
        self.stream.restart(request.get(..most).unwrap_or_default());
        if self.flights.is_empty() {
            self.path.wait_from(now.instant);
        }
        self.path.reset_backoff();
        self.reopened = 0;
        self.last_answer = now.instant;
        self.last_new_byte = now.instant;
        if self.connection.is_none() && self.opening.is_none() {
            self.open(now.instant);
        }
        self.fill_outbox(now.instant);
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

    /// The next bytes of the stream, as far as they lie together, to be looked at where they are and
    /// then [`consume`](Self::consume)d; empty if there are none.
    #[must_use]
    pub fn ready(&self) -> &[u8] {
        self.stream.reassembly.ready()
    }

    /// Takes that many of the bytes that are `ready`.
    pub fn consume(&mut self, now: Now, count: usize) {
        if count == 0 {
            return;
        }
        let idle = !self.busy();
        self.stream.reassembly.consume(count);
        if idle {
            // The buffer was full: there was nothing to wait for until now.
            self.path.wait_from(now.instant);
            self.last_answer = now.instant;
            self.last_new_byte = now.instant;
        }
        self.check_finished();
        self.fill_outbox(now.instant);
    }

    // --- Output ---

    /// The next datagram to send, if any.
    pub fn poll_transmit(&mut self, now: Now) -> Option<Flight> {
        if self.outbox.is_empty() && self.filled_at != Some(now.instant) {
            self.fill_outbox(now.instant);
        }
        self.outbox.pop_front()
    }

    /// The next event, if any.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    // --- Getters ---

    /// What has happened since the start.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        self.with_present(self.stats.clone())
    }

    /// The same, at the end.
    #[must_use]
    pub fn into_stats(mut self) -> ClientStats {
        let stats = core::mem::take(&mut self.stats);
        self.with_present(stats)
    }

    /// The counters with what is true at present.
    fn with_present(&self, counters: ClientStats) -> ClientStats {
        let connection = self.connection.as_ref();
        ClientStats {
            rtt_min: self.path.rtt().min(),
            rtt_smoothed: self.path.rtt().smoothed(),
            window: connection.map_or(0, |connection| connection.window.packets()),
            ..counters
        }
    }

    /// Whether a server has answered.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.stats.handshakes > 0
    }

    /// Whether the stream has bytes to read now.
    #[must_use]
    pub fn readable(&self) -> bool {
        self.stream.reassembly.readable()
    }

    /// The newest continuation, to be remembered as an address token, and when it came.
    #[must_use]
    pub fn address_token(&self) -> Option<(AddressToken, Instant)> {
        let connection = self.connection.as_ref()?;
        let held = connection.window.held();
        let token = AddressToken {
            connection: connection.id,
            sealed: held.sealed.clone(),
        };
        Some((token, held.since))
    }

    // --- Parts of more than one of these ---

    fn event(&mut self, event: ClientEvent) {
        let repeated = event == ClientEvent::Readable && self.events.contains(&event);
        if !repeated && self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }

    fn check_finished(&mut self) {
        if !self.stream.finished && self.stream.is_read() {
            self.stream.finished = true;
            self.event(ClientEvent::Finished);
        }
    }

    /// Whether answers are awaited or still to be asked for.
    fn busy(&self) -> bool {
        !self.stream.finished && (self.stream.wanted() > 0 || !self.flights.is_empty())
            || self.opening.is_some()
    }

    fn declare(&mut self, kind: TransitionKind) -> bool {
        let rtt_us = self.path.rtt_us();
        let Some(connection) = &mut self.connection else {
            return false;
        };
        let declared = connection.window.declare(kind, rtt_us);
        if declared {
            self.stats.declared(kind);
        }
        declared
    }

    /// Bytes of a given-up flight are wanted again.
    fn lose_bytes(&mut self, stream: u8, bytes: &[crate::wire::segment::Span]) {
        if stream != self.stream.id {
            return;
        }
        for span in bytes {
            self.stream.lose(*span);
        }
        if self.stream.user.is_none() {
            self.stream.beginning = false;
        }
    }
}
