//! A whole machine without I/O: packets in, packets out, time as an argument.

pub mod client;
pub mod config;
pub(crate) mod connection;
mod connections;
pub mod metrics;
pub mod names;
pub mod queries;
pub mod redirector;
pub mod report;
pub mod server;
pub mod streams;
pub mod tokens;
pub mod web;

use std::net::IpAddr;
use std::os::fd::RawFd;

use crate::stack::StackPacket;
use crate::time::{Instant, Now};
use crate::wire::flight::Flight;
use crate::wire::ip::tcp::JoinedTcp;
use crate::wire::ip::{EmitError, UdpTemplate, UdpView};

/// A transmission of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// One complete IP packet.
    Packet(Vec<u8>),
    /// Several segments of one TCP connection, coalesced into one IP packet, whose field of the TCP
    /// checksum holds the sum over the pseudo-header.
    Segments {
        /// The packet.
        packet: Vec<u8>,
        /// Payload bytes of each segment but the last.
        segment: usize,
    },
    /// Datagrams of one UDP path, without headers.
    Flight(Flight),
}

impl From<StackPacket> for Transmit {
    fn from(StackPacket { bytes, segment }: StackPacket) -> Self {
        match segment {
            None => Self::Packet(bytes),
            Some(segment) => Self::Segments {
                packet: bytes,
                segment,
            },
        }
    }
}

impl Transmit {
    /// Converts it to IP packets for a plain device.
    ///
    /// # Errors
    /// [`EmitError`] if addresses or sizes do not fit UDP over IP.
    pub fn into_packets(self) -> Result<Vec<Vec<u8>>, EmitError> {
        match self {
            Self::Packet(packet) => Ok(vec![packet]),
            Self::Segments { packet, segment } => {
                let len = packet.len();
                let joined = JoinedTcp::parse(&packet, segment);
                joined.map_err(|_| EmitError::TooLong { len })?.packets()
            }
            Self::Flight(flight) => {
                let template = UdpTemplate::new(flight.path, flight.ecn)?;
                let datagrams = flight.datagrams();
                datagrams
                    .map(|datagram| template.packet(&datagram))
                    .collect()
            }
        }
    }
}

/// The contract between a machine and its driver, a [`Runtime`](crate::Runtime) or the simulator.
///
/// **After every call that changes a machine, drain [`poll_transmit`](Self::poll_transmit) until `None`,
/// then ask [`poll_timeout`](Self::poll_timeout); time never goes backwards.**
///
/// The example drives a server by hand; it answers an ICMP echo request to its address.
///
/// ```
/// use headwater::*;
///
/// # struct Empty;
/// # impl Application for Empty {
/// #     fn begin(&mut self, _: RequestContext, _: &[u8]) -> Result<Begun, Unavailable> {
/// #         Ok(Begun { user: Vec::new(), length: Some(0) })
/// #     }
/// #     fn read(&mut self, _: StreamPart<'_>, _: &mut [u8]) -> Result<usize, Unavailable> { Ok(0) }
/// # }
/// let now = Now::default();
/// let config = ServerHostConfig::builder(["10.0.0.2".parse()?], 1).build()?;
/// let keys = KeyRing::with_secret([1; SECRET_BYTES]);
/// let mut machine = ServerHost::new(now, config, keys, Empty)?;
///
/// // IPv4 from 10.0.0.1 to 10.0.0.2: an echo request without data.
/// let ping = [
///     0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0x66, 0xdf, 10, 0, 0, 1, 10, 0, 0, 2, // header
///     8, 0, 0xf7, 0xfe, 0, 1, 0, 0, // type 8, identifier 1
/// ];
/// machine.handle_packet(now, &ping, None);
/// let Some(Transmit::Packet(pong)) = machine.poll_transmit(now) else { panic!("no answer") };
/// assert_eq!((pong[15], pong[19], pong[20]), (2, 1, 0)); // from .2 to .1: an echo reply
/// assert_eq!(machine.poll_transmit(now), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Machine {
    /// Handles one IP packet. `segment`: if the device coalesced several UDP datagrams of one path
    /// into it (GRO), the payload length of each but the last.
    fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>);
    /// Handles UDP datagrams of one path that came without headers; `segment`: as of `handle_packet`. A
    /// machine of IP packets ignores them.
    fn handle_datagrams(&mut self, _now: Now, _view: &UdpView<'_>, _segment: Option<usize>) {}
    /// Handles the report that an address is unreachable, which anyone may have forged.
    fn handle_unreachable(&mut self, _now: Now, _address: IpAddr) {}
    /// Handles the expiry of the deadline of `poll_timeout`.
    fn handle_timeout(&mut self, now: Now);
    /// Returns the next packet or flight to send.
    fn poll_transmit(&mut self, now: Now) -> Option<Transmit>;
    /// Returns the time of the next `handle_timeout`, and its reason.
    fn poll_timeout(&mut self, now: Now) -> Option<(Instant, &'static str)>;
    /// The descriptors of sockets that the machine was given, if any: when one is readable, the driver ends
    /// its sleep and calls the hook's [`turn`](crate::Hooks::turn).
    fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }
    /// Takes back the buffer of a sent [`Transmit::Packet`] for reuse.
    fn recycle(&mut self, _buffer: Vec<u8>) {}
}

#[cfg(test)]
mod tests;
