//! A whole machine without I/O: packets in, packets out, time as an argument.

pub mod client;
pub mod config;
pub(crate) mod connection;
mod connections;
pub mod metrics;
pub mod redirector;
pub mod report;
pub mod server;
pub mod tokens;
pub mod web;

use crate::time::{Instant, Now};
use crate::wire::flight::Flight;
use crate::wire::ip::{EmitError, UdpTemplate};

/// A transmission of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// One complete IP packet.
    Packet(Vec<u8>),
    /// Datagrams of one UDP path, without headers.
    Flight(Flight),
}

impl Transmit {
    /// Converts it to IP packets for a plain device.
    ///
    /// # Errors
    /// [`EmitError`] if addresses or sizes do not fit UDP over IP.
    pub fn into_packets(self) -> Result<Vec<Vec<u8>>, EmitError> {
        match self {
            Self::Packet(packet) => Ok(vec![packet]),
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

/// The contract that `runtime` and `sim` drive. **After each `handle_*` or command, drain
/// `poll_transmit` until `None`, then call `poll_timeout`.**
pub trait Machine {
    /// Handles one IP packet. `segment`: if the device coalesced several UDP datagrams of one path
    /// into it (GRO), the payload length of each but the last.
    fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>);
    /// Handles the expiry of the deadline of `poll_timeout`.
    fn handle_timeout(&mut self, now: Now);
    /// Returns the next packet or flight to send.
    fn poll_transmit(&mut self, now: Now) -> Option<Transmit>;
    /// Returns the time of the next `handle_timeout`, and its reason.
    fn poll_timeout(&mut self, now: Now) -> Option<(Instant, &'static str)>;
    /// Takes back the buffer of a sent [`Transmit::Packet`] for reuse.
    fn recycle(&mut self, _buffer: Vec<u8>) {}
}

#[cfg(test)]
mod tests;
