//! Devices: carriers of IP packets into and out of the process.
//!
//! In and out: whole IP packets, and flights, which a device turns into packets (or passes to the
//! kernel as one). A device over sockets carries UDP only: its datagrams come without headers. A device reads no clock: the driver sets the time of each turn. It never blocks:
//! `receive` returns `None` if there is nothing, and a send that would block drops.

pub mod binding;
mod gather;
pub mod memory;
pub mod pcap;
mod prefetch;
pub mod tun;
pub mod udp;

use std::io;
use std::net::IpAddr;

use crate::time::Now;
use crate::wire::flight::{Ecn, Flight, UdpPath};
use crate::wire::ip::UdpView;
use crate::wire::ip::tcp::JoinedTcp;

/// The outcome of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes in the buffer: of an IP packet, or of UDP payload if `udp` is set.
    pub len: usize,
    /// Payload length of each segment but the last, if the device coalesced several UDP datagrams
    /// of one path or segments of one TCP connection. The device then vouches for their checksums.
    pub segment: Option<usize>,
    /// The headers of the datagrams, if the kernel has removed them.
    pub udp: Option<ReceivedUdp>,
}

impl Received {
    /// Creates the outcome of a read of one IP packet of `len` bytes.
    #[must_use]
    pub const fn packet(len: usize) -> Self {
        Self {
            len,
            segment: None,
            udp: None,
        }
    }
}

/// The headers of UDP datagrams that came without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedUdp {
    /// Source and destination.
    pub path: UdpPath,
    /// The ECN field of the IP header.
    pub ecn: Ecn,
}

impl ReceivedUdp {
    /// Returns the datagrams, whose payload is given.
    #[must_use]
    pub const fn view(self, payload: &[u8]) -> UdpView<'_> {
        UdpView {
            path: self.path,
            ecn: self.ecn,
            payload,
        }
    }
}

/// A source and sink of IP packets and of whole flights.
pub trait Device {
    /// The largest IP packet of the device, in bytes.
    fn mtu(&self) -> usize;

    /// Reads one packet (or one coalesced flight) into `buffer`; `None` if there is none now. A
    /// packet longer than `buffer` is truncated: pass [`MAX_PACKET`](crate::wire::ip::MAX_PACKET)
    /// bytes.
    ///
    /// # Errors
    /// The operating system's; the device is then unusable.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>>;

    /// Sends one IP packet. A full or downed device drops it, as a network may.
    ///
    /// # Errors
    /// The operating system's; the device is then unusable.
    fn send_packet(&mut self, packet: &[u8]) -> io::Result<()>;

    /// Sends every datagram of a flight, in order.
    ///
    /// # Errors
    /// As of `send_packet`.
    fn send_flight(&mut self, flight: &Flight) -> io::Result<()>;

    /// Sends the TCP segments that `packet` holds, in order: each has `segment` bytes of payload, the
    /// last perhaps fewer. The field of the TCP checksum holds the sum over the pseudo-header.
    ///
    /// # Errors
    /// As of `send_packet`.
    fn send_segments(&mut self, packet: &[u8], segment: usize) -> io::Result<()> {
        let packets = JoinedTcp::parse(packet, segment).ok();
        let Some(packets) = packets.and_then(|joined| joined.packets().ok()) else {
            // It is longer than the MTU, so the device counts it as dropped.
            return self.send_packet(packet);
        };
        packets
            .iter()
            .try_for_each(|packet| self.send_packet(packet))
    }

    /// Returns the next address that the network reported as unreachable: a hint that anyone may have
    /// forged.
    fn poll_unreachable(&mut self) -> Option<IpAddr> {
        None
    }

    /// The number of packets that the sending functions dropped.
    fn send_drops(&self) -> u64;

    /// The number of invalid packets that `receive` skipped.
    fn receive_drops(&self) -> u64 {
        0
    }

    /// The number of packets that a capture lost because its writer would have blocked; `None`
    /// without a capture.
    fn capture_losses(&self) -> Option<u64> {
        None
    }

    /// Sets the time, with which recorders stamp packets.
    fn set_now(&mut self, _now: Now) {}

    /// Announces that the driver is about to sleep: buffered output should be flushed.
    fn idle(&mut self) {}
}
