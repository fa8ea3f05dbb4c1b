//! smoltcp's interfaces over an in-memory device: one packet in, a bounded queue of packets out.
//!
//! In: at most one borrowed packet per poll; out: owned packets in sending order. Incoming
//! checksums are verified before, so smoltcp verifies none. Accepted connections have an interface
//! of their own, which coalesces the segments that leave in a row into one packet.
//! smoltcp keeps no connection: each poll names the sockets that it may look at, so a packet costs
//! the same whatever the number of connections.
//! Source: the traits of `smoltcp::phy`.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::num::NonZeroUsize;

use smoltcp::iface::{Config, Context, Interface, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::wire::{HardwareAddress, IpCidr};

use super::DropReason;
use crate::time::Instant;
use crate::wire::ip::tcp::seal;

/// Most queued packets: replies to one burst of received packets. A connection adds further ones
/// only when the queue is empty.
pub const MAX_QUEUED_PACKETS: usize = 512;

/// Longest coalesced IP packet, in bytes: a device that prepends an Ethernet header must still stay
/// within 65,535.
pub const MAX_COALESCED_BYTES: usize = 65_521;

/// Most empty packet buffers for reuse; further ones are freed.
pub const MAX_SPARE_PACKETS: usize = 8;

/// Bytes at the start of a reused buffer that are cleared: more than all headers have. The payload
/// behind them is always overwritten.
const CLEARED_BYTES: usize = 128;

/// A packet of the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackPacket {
    /// The IP packet.
    pub bytes: Vec<u8>,
    /// If the packet holds several segments of a TCP connection: the payload of each but the last.
    /// The field of the TCP checksum then holds the sum over the pseudo-header.
    pub segment: Option<usize>,
}

/// Packets emitted by smoltcp.
#[derive(Debug, Default)]
pub(super) struct Egress {
    packets: VecDeque<StackPacket>,
    spare: Vec<Vec<u8>>,
}

impl Egress {
    pub(super) fn pop(&mut self) -> Option<StackPacket> {
        self.packets.pop_front()
    }

    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        let segment = None;
        self.packets.push_back(StackPacket { bytes, segment });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.packets.len() >= MAX_QUEUED_PACKETS
    }

    pub(super) fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < MAX_SPARE_PACKETS {
            self.spare.push(buffer);
        }
    }

    /// Returns a buffer of `len` bytes, of which at least the first [`CLEARED_BYTES`] are zero.
    fn buffer(&mut self, len: usize) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.resize(len, 0);
        let cleared = CLEARED_BYTES.min(len);
        buffer.get_mut(..cleared).unwrap_or_default().fill(0);
        buffer
    }
}

/// The interfaces of a stack and their queue.
pub(super) struct Carrier {
    /// For ICMP, for packets without a connection and for outgoing connections.
    plain: Interface,
    /// For accepted connections.
    coalescing: Interface,
    mtu: u16,
    egress: Egress,
}

/// The kind of a connection, for the interface that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// smoltcp opened it.
    Plain,
    /// Accepted, with segments of at most `mss` bytes of payload.
    Coalescing {
        /// Bytes.
        mss: usize,
    },
}

impl Carrier {
    pub(super) fn new(now: Instant, addresses: &[IpAddr], mtu: u16, seed: u64) -> Self {
        let mut egress = Egress::default();
        let mut plain = Phy::new(Lane::Plain, mtu, &mut egress);
        let plain = interface(now, addresses, seed, &mut plain);
        let lane = Lane::Coalescing { mss: 0 };
        let mut coalescing = Phy::new(lane, mtu, &mut egress);
        let coalescing = interface(now, addresses, seed, &mut coalescing);
        Self {
            plain,
            coalescing,
            mtu,
            egress,
        }
    }

    pub(super) const fn mtu(&self) -> u16 {
        self.mtu
    }

    pub(super) const fn queue(&mut self) -> &mut Egress {
        &mut self.egress
    }

    /// The context to open connections in.
    pub(super) fn context(&mut self) -> &mut Context {
        self.plain.context()
    }

    /// Passes a packet to smoltcp, which looks at `sockets` only.
    pub(super) fn ingress(
        &mut self,
        now: Instant,
        packet: &[u8],
        lane: Lane,
        sockets: &mut SocketSet<'static>,
    ) -> Result<(), DropReason> {
        if self.egress.is_full() {
            return Err(DropReason::QueueFull);
        }
        let mut phy = Phy::new(lane, self.mtu, &mut self.egress);
        phy.packet = Some(packet);
        let interface = match lane {
            Lane::Plain => &mut self.plain,
            Lane::Coalescing { .. } => &mut self.coalescing,
        };
        interface.poll_ingress_single(smoltcp_time(now), &mut phy, sockets);
        Ok(())
    }

    /// Lets `sockets` send at most one packet each; true if a packet was queued.
    pub(super) fn egress(
        &mut self,
        now: Instant,
        lane: Lane,
        sockets: &mut SocketSet<'static>,
    ) -> bool {
        let before = self.egress.packets.len();
        let mut phy = Phy::new(lane, self.mtu, &mut self.egress);
        let interface = match lane {
            Lane::Plain => &mut self.plain,
            Lane::Coalescing { .. } => &mut self.coalescing,
        };
        interface.poll_egress(smoltcp_time(now), &mut phy, sockets);
        self.egress.packets.len() > before
    }

    /// The next time at which `sockets` may have something to send.
    pub(super) fn poll_at(
        &mut self,
        now: Instant,
        lane: Lane,
        sockets: &SocketSet<'static>,
    ) -> Option<Instant> {
        let interface = match lane {
            Lane::Plain => &mut self.plain,
            Lane::Coalescing { .. } => &mut self.coalescing,
        };
        let at = interface.poll_at(smoltcp_time(now), sockets)?;
        let micros = u64::try_from(at.total_micros()).unwrap_or(0);
        Some(Instant::from_micros(micros))
    }
}

/// Creates an interface with host addresses, of which there are at most
/// [`MAX_ADDRESSES`](super::MAX_ADDRESSES).
pub(super) fn interface(
    now: Instant,
    addresses: &[IpAddr],
    seed: u64,
    phy: &mut Phy<'_>,
) -> Interface {
    let mut settings = Config::new(HardwareAddress::Ip);
    settings.random_seed = seed;
    let mut interface = Interface::new(settings, phy, smoltcp_time(now));
    interface.update_ip_addrs(|list| {
        for &address in addresses {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let _ = list.push(IpCidr::new(address.into(), bits));
        }
    });
    interface
}

/// The device for one poll of smoltcp.
pub(super) struct Phy<'a> {
    lane: Lane,
    mtu: u16,
    egress: &'a mut Egress,
    pub(super) packet: Option<&'a [u8]>,
}

impl<'a> Phy<'a> {
    pub(super) const fn new(lane: Lane, mtu: u16, egress: &'a mut Egress) -> Self {
        Self {
            lane,
            mtu,
            egress,
            packet: None,
        }
    }

    const fn sending(&mut self) -> Sending<'_> {
        Sending {
            lane: self.lane,
            egress: self.egress,
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
        Some((Received(packet), self.sending()))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Self::TxToken<'_>> {
        (!self.egress.is_full()).then(|| self.sending())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.icmpv4 = Checksum::Tx;
        capabilities.checksum.icmpv6 = Checksum::Tx;
        match self.lane {
            Lane::Plain => {
                capabilities.max_transmission_unit = usize::from(self.mtu);
                capabilities.checksum.tcp = Checksum::Tx;
            }
            // smoltcp refuses an IPv6 packet above the MTU even if the device segments it. So the
            // MTU is that of coalesced packets, and the handshake limits the segments.
            Lane::Coalescing { .. } => {
                capabilities.max_transmission_unit = MAX_COALESCED_BYTES;
                capabilities.checksum.tcp = Checksum::None;
                capabilities.segmentation.tcpv4 = NonZeroUsize::new(MAX_COALESCED_BYTES);
                capabilities.segmentation.tcpv6 = NonZeroUsize::new(MAX_COALESCED_BYTES);
            }
        }
        capabilities
    }
}

pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(super) struct Sending<'a> {
    lane: Lane,
    egress: &'a mut Egress,
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = self.egress.buffer(len);
        let result = f(&mut bytes);
        let segment = match self.lane {
            Lane::Plain => None,
            Lane::Coalescing { mss } => seal(&mut bytes, mss),
        };
        self.egress
            .packets
            .push_back(StackPacket { bytes, segment });
        result
    }
}

/// Converts an instant: smoltcp counts microseconds too, but signed.
pub(super) fn smoltcp_time(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}
