//! A model of TCP downloads: handshake, request, and a sender with SACK, RACK, proportional rate
//! reduction, HyStart and CUBIC or Reno growth, similar to Linux.
//!
//! In and out: packets of the sizes of TCP with timestamps, so that it may share a bottleneck with
//! ours. Idealised: one byte stream, no receive window, no processing time, and each
//! acknowledgement names the latest segments instead of SACK blocks.
//! Sources: RFC 9438 (CUBIC), 5681 (Reno), 6937 (PRR), 8985 (RACK), 6298 (timers), 6928 (initial
//! window); Linux's HyStart, which leaves slow start on the delay or on the length of a train.

mod growth;
mod receiver;
mod sender;

use std::time::Duration;

use self::receiver::Receiver;
use self::sender::Sender;
use super::Ends;
use crate::time::{Instant, Now};
use crate::transport::client::ClientStats;
use crate::wire::flight::{Ecn, Flight, UdpPath};
use crate::wire::ip::parse_udp;

/// Payload of a full segment in bytes: 1500 less 20 of IPv4, 20 of TCP and 12 of timestamps.
const MSS: u64 = 1448;
/// Padding of a model's packet, in bytes: TCP headers beyond those of UDP.
const EXTRA_HEADERS: usize = 24;
const INITIAL_WINDOW: f64 = 10.0;
const MIN_RTO: Duration = Duration::from_millis(200);
const MAX_RTO: Duration = Duration::from_secs(120);
const DELAYED_ACK: Duration = Duration::from_millis(40);
/// Segments that an acknowledgement names in addition to the cumulative one.
const NAMED: usize = 8;
/// Later segments that mark one as lost, while no reordering was seen.
const DUPLICATES: u64 = 3;
/// RFC 9438 §5.
const C: f64 = 0.4;
const CUBIC_BETA: f64 = 0.7;
const RENO_BETA: f64 = 0.5;

/// The growth of the window after slow start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// RFC 9438.
    Cubic,
    /// RFC 5681.
    Reno,
}

/// First bytes of messages.
const SYN: u8 = 1;
const SYN_ACK: u8 = 2;
const GET: u8 = 3;
const DATA: u8 = 4;
const ACK: u8 = 5;

pub(super) struct Tcp {
    path: UdpPath,
    client: Receiver,
    server: Sender,
}

impl Tcp {
    pub(super) fn new(path: UdpPath, bytes: u64, growth: Growth) -> Self {
        Self {
            path,
            client: Receiver::new(bytes),
            server: Sender::new(bytes, growth),
        }
    }
}

impl Ends for Tcp {
    fn at_client(&mut self, now: Now, packet: &[u8]) {
        if let Ok(Some(datagram)) = parse_udp(packet) {
            self.client.handle(now.instant, datagram.payload);
        }
    }

    fn at_server(&mut self, now: Now, packet: &[u8]) {
        if let Ok(Some(datagram)) = parse_udp(packet) {
            self.server.handle(now.instant, datagram.payload);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.client.handle_timeout(now.instant);
        self.server.handle_timeout(now.instant);
    }

    fn next_of_client(&mut self, _now: Now) -> Option<Flight> {
        let message = self.client.out.pop_front()?;
        Some(Flight::single(self.path, Ecn::NotEct, message))
    }

    fn next_of_server(&mut self, now: Now) -> Option<Flight> {
        let message = self.server.next(now.instant)?;
        Some(Flight::single(self.path.reversed(), Ecn::NotEct, message))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let timers = [self.client.timer, self.server.timer, self.server.rack_timer];
        timers.into_iter().flatten().min()
    }

    fn received(&self) -> u64 {
        (self.client.expected * MSS).min(self.client.bytes)
    }

    fn stats(&self) -> Option<ClientStats> {
        None
    }

    fn refused(&self) -> u64 {
        0
    }
}

fn word(message: &[u8], at: usize) -> u64 {
    let bytes = message.get(at..).and_then(|rest| rest.first_chunk::<8>());
    bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
