//! One whole machine without I/O: packets in, packets out, time passed in.

pub(crate) mod carrier;
pub mod client;
pub mod metrics;
pub mod redirector;
pub mod report;
pub mod server;
pub mod tokens;
pub mod web;

use crate::time::{Instant, Now};
use crate::wire::flight::Flight;
use crate::wire::ip::{EmitError, UdpTemplate};

/// What a machine wants to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// One IP packet, whole.
    Packet(Vec<u8>),
    /// Datagrams of one UDP path, without headers.
    Flight(Flight),
}

impl Transmit {
    /// The IP packets that a plain device makes of it.
    ///
    /// # Errors
    /// [`EmitError`] if addresses or sizes are none of UDP over IP.
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

/// The contract that `runtime` and `sim` drive. After each `handle_*` or command, drain
/// `poll_transmit` until `None`, then ask `poll_timeout`.
pub trait Machine {
    /// Takes one IP packet. `segment`: if the device joined several UDP datagrams of one path into
    /// this packet, the payload length of each but the last.
    fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>);
    /// To be called when the deadline of `poll_timeout` has passed.
    fn handle_timeout(&mut self, now: Now);
    /// The next packet or flight to send.
    fn poll_transmit(&mut self, now: Now) -> Option<Transmit>;
    /// When to call `handle_timeout`, and why.
    fn poll_timeout(&mut self, now: Now) -> Option<(Instant, &'static str)>;
    /// Takes back the buffer of a [`Transmit::Packet`] that has been sent, to be used again.
    fn recycle(&mut self, _buffer: Vec<u8>) {}
}

#[cfg(test)]
mod tests;
