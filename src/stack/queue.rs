//! The in-memory device under smoltcp: one packet in, a bounded queue of packets out.
//!
//! In: at most one borrowed packet per poll; out: owned packets in sending order. Incoming
//! checksums are verified before, so smoltcp verifies none; it computes those of all packets that
//! it sends.
//! Source: the traits of `smoltcp::phy`.

use std::collections::VecDeque;

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};

use crate::time::Instant;

/// Most queued packets: several times the connections, each of which adds at most one per pass,
/// plus the replies to one burst of received packets.
pub const MAX_QUEUED_PACKETS: usize = 512;

/// Packets emitted by smoltcp.
#[derive(Debug, Default)]
pub(super) struct Egress(VecDeque<Vec<u8>>);

impl Egress {
    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MAX_QUEUED_PACKETS
    }
}

/// The device for one poll of smoltcp.
pub(super) struct Phy<'a> {
    mtu: u16,
    egress: &'a mut Egress,
    packet: Option<&'a [u8]>,
}

impl<'a> Phy<'a> {
    pub(super) const fn new(mtu: u16, egress: &'a mut Egress) -> Self {
        Self {
            mtu,
            egress,
            packet: None,
        }
    }

    pub(super) const fn with_packet(mtu: u16, egress: &'a mut Egress, packet: &'a [u8]) -> Self {
        Self {
            mtu,
            egress,
            packet: Some(packet),
        }
    }
}

impl Device for Phy<'_> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Sending<'t>
    where
        Self: 't;

    fn receive(
        &mut self,
        _now: smoltcp::time::Instant,
    ) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let packet = self.packet.take()?;
        Some((Received(packet), Sending(self.egress)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Self::TxToken<'_>> {
        (!self.egress.is_full()).then_some(Sending(self.egress))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.mtu);
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities.checksum.icmpv4 = Checksum::Tx;
        capabilities.checksum.icmpv6 = Checksum::Tx;
        capabilities
    }
}

pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(super) struct Sending<'a>(&'a mut Egress);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.0.push_back(packet);
        result
    }
}

/// Converts an instant: smoltcp counts microseconds too, but signed.
pub(super) fn smoltcp_time(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}
