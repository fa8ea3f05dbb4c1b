//! One whole machine without I/O: packets in, packets out, time passed in.

mod carrier;
pub mod client;
pub mod load;
pub mod metrics;
pub mod redirector;
pub mod report;
pub mod server;
pub mod tokens;
pub mod web;

use crate::time::{Instant, Now};
use crate::wire::flight::Flight;

/// What a machine wants to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// One IP packet, whole.
    Packet(Vec<u8>),
    /// Datagrams of one UDP path, without headers.
    Flight(Flight),
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
