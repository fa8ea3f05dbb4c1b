//! Devices: what carries IP packets into and out of the process.

use std::io;

use crate::wire::flight::Flight;

/// What one read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes of the IP packet in the buffer.
    pub len: usize,
    /// If the device joined several UDP datagrams of one path: the payload length of each but the
    /// last.
    pub segment: Option<usize>,
}

/// A source and sink of IP packets and of whole flights.
pub trait Device {
    /// Largest IP packet the device carries, in bytes.
    fn mtu(&self) -> usize;

    /// Reads one packet (or one joined flight) into `buffer`; `None` if there is none now.
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
}
