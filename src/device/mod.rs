//! Devices: what carries IP packets into and out of the process.
//!
//! In and out: whole IP packets, and flights, which a device turns into packets (or hands to the
//! kernel in one piece). A device reads no clock: the driver tells it the time of each turn.
//! It never waits: `receive` says `None` when there is nothing, a send that would wait drops.

pub mod memory;
pub mod pcap;
pub mod tun;

use std::io;

use crate::time::Now;
use crate::wire::flight::Flight;

/// What one read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes of the IP packet in the buffer.
    pub len: usize,
    /// If the device joined several UDP datagrams of one path, or segments of one TCP connection:
    /// the payload length of each but the last. The device then answers for their checksums.
    pub segment: Option<usize>,
}

/// A source and sink of IP packets and of whole flights.
pub trait Device {
    /// Largest IP packet the device carries, in bytes.
    fn mtu(&self) -> usize;

    /// Reads one packet (or one joined flight) into `buffer`; `None` if there is none now. A
    /// packet longer than `buffer` is cut: give [`MAX_PACKET`](crate::wire::ip::MAX_PACKET) bytes.
    ///
    /// # Errors
    /// What the operating system says; the device is then of no more use.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>>;

    /// Sends one IP packet. A device that is full or down drops it, as a network may.
    ///
    /// # Errors
    /// What the operating system says; the device is then of no more use.
    fn send_packet(&mut self, packet: &[u8]) -> io::Result<()>;

    /// Sends every datagram of a flight, in order.
    ///
    /// # Errors
    /// As for `send_packet`.
    fn send_flight(&mut self, flight: &Flight) -> io::Result<()>;

    /// Packets that `send_packet` and `send_flight` dropped.
    fn send_drops(&self) -> u64;

    /// Packets that were read but made no sense, so that `receive` passed over them.
    fn receive_drops(&self) -> u64 {
        0
    }

    /// Tells the time; recorders stamp packets with it.
    fn set_now(&mut self, _now: Now) {}

    /// Tells that the driver is about to sleep: what is buffered should be written out.
    fn idle(&mut self) {}
}
