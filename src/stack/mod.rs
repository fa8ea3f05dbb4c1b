//! One IP endpoint without I/O: packets in, packets out, time passed in.
//!
//! In: IP packets. [`Stack::handle_packet`] demultiplexes each: a UDP datagram for the transport is
//! returned at once, still in the caller's buffer; ICMP echo and TCP go to smoltcp; everything else
//! is a counted [`DropReason`]. Out: the packets that smoltcp emits, by [`Stack::poll_transmit`],
//! and TCP connections behind [`TcpId`]s.
//! Never reads a clock or a socket, never reassembles fragments, never answers a packet for a
//! foreign address, never allocates on the transport's path.
//! Sources: RFC 1122 §3.2, RFC 4443 §4, RFC 9293.

mod drops;
mod queue;
mod tcp;

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use etherparse::{IpNumber, TcpSlice};
use smoltcp::iface::SocketSet;

use crate::time::Instant;
use crate::wire::flight::UdpPath;
use crate::wire::ip::{Checksum, IpView, UdpView};

pub use drops::{DropReason, StackCounters};
pub use queue::{MAX_COALESCED_BYTES, MAX_QUEUED_PACKETS, MAX_SPARE_PACKETS, StackPacket};
pub use tcp::{
    CLIENT_RECEIVE_BYTES, CLIENT_SEND_BYTES, CloseReason, FLOOR_SEND_BYTES, MAX_GROWN_BYTES,
    MAX_LISTEN_PORTS, MAX_TCP_CONNECTIONS, SERVER_RECEIVE_BYTES, SERVER_SEND_BYTES,
    SMALLEST_SEND_BYTES, SOURCE_SHARE, TcpError, TcpEvent, TcpId, TcpProgress,
};

use queue::{Carrier, Lane};
use tcp::Connections;

/// Most addresses of one endpoint; smoltcp is built for this number.
pub const MAX_ADDRESSES: usize = 8;

/// Most UDP ports that are open beside those of the transport.
pub const MAX_OPEN_PORTS: usize = 64;

/// The configuration of an endpoint.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// Local addresses, at most [`MAX_ADDRESSES`], all unicast.
    pub addresses: Vec<IpAddr>,
    /// Largest IP packet in bytes, in both directions.
    pub mtu: u16,
    /// UDP ports that belong to the transport.
    pub transport_ports: RangeInclusive<u16>,
    /// Seeds initial sequence numbers and local ports; equal seeds give equal packets.
    pub seed: u64,
}

/// The reason why an endpoint cannot be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StackError {
    /// An address is multicast, broadcast or unspecified.
    #[error("{address} is not a unicast address")]
    NotUnicast {
        /// The address.
        address: IpAddr,
    },
    /// More than [`MAX_ADDRESSES`].
    #[error("{count} addresses: at most {MAX_ADDRESSES}")]
    TooManyAddresses {
        /// The number of addresses.
        count: usize,
    },
    /// More than [`MAX_LISTEN_PORTS`], or port zero.
    #[error(
        "cannot listen on TCP port {port}: the port is zero, or too many ports are listened on"
    )]
    CannotListen {
        /// The port.
        port: u16,
    },
}

/// The outcome of demultiplexing a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demuxed<'p> {
    /// A datagram for the transport or an [open port](Stack::open_port), inside the given packet. If the device had coalesced several,
    /// the payload holds them all, concatenated.
    Transport(UdpView<'p>),
    /// Consumed by the stack; packets to transmit and TCP events may follow.
    Taken,
    /// Dropped and counted.
    Dropped(DropReason),
}

/// One IP endpoint.
pub struct Stack {
    addresses: Vec<IpAddr>,
    transport_ports: RangeInclusive<u16>,
    /// Further UDP ports.
    open_ports: Vec<u16>,
    carrier: Carrier,
    tcp: Connections,
    counters: StackCounters,
}

impl Stack {
    /// Creates an endpoint without listening ports.
    ///
    /// # Errors
    /// [`StackError::NotUnicast`], [`StackError::TooManyAddresses`].
    pub fn new(now: Instant, config: StackConfig) -> Result<Self, StackError> {
        let StackConfig {
            addresses,
            mtu,
            transport_ports,
            seed,
        } = config;
        let count = addresses.len();
        if count > MAX_ADDRESSES {
            return Err(StackError::TooManyAddresses { count });
        }
        if let Some(&address) = addresses.iter().find(|address| !is_unicast(**address)) {
            return Err(StackError::NotUnicast { address });
        }
        let carrier = Carrier::new(now, &addresses, mtu, seed);
        Ok(Self {
            addresses,
            transport_ports,
            open_ports: Vec::new(),
            carrier,
            tcp: Connections::new(seed),
            counters: StackCounters::default(),
        })
    }

    /// Demultiplexes one packet. `segment`: as in [`Received`](crate::device::Received).
    pub fn handle_packet<'p>(
        &mut self,
        now: Instant,
        packet: &'p [u8],
        segment: Option<usize>,
    ) -> Demuxed<'p> {
        self.counters.packets_in += 1;
        self.counters.bytes_in += u64::try_from(packet.len()).unwrap_or(0);
        match self.sort(now, packet, segment) {
            Ok(demuxed) => demuxed,
            Err(reason) => {
                self.counters.drops.count(reason);
                Demuxed::Dropped(reason)
            }
        }
    }

    /// Admits datagrams that came without IP headers, from a socket of the kernel, for the transport.
    pub fn admit(&mut self, datagrams: &UdpView<'_>) -> Result<(), DropReason> {
        self.counters.packets_in += 1;
        self.counters.bytes_in += u64::try_from(datagrams.payload.len()).unwrap_or(0);
        let UdpPath { src, dst } = datagrams.path;
        let checked = if !is_unicast(src.ip()) || src.port() == 0 {
            Err(DropReason::BadSource)
        } else if !is_unicast(dst.ip()) && !dst.ip().is_unspecified() {
            Err(DropReason::ForeignDestination)
        } else {
            Ok(())
        };
        checked.inspect_err(|reason| self.counters.drops.count(*reason))
    }

    fn sort<'p>(
        &mut self,
        now: Instant,
        packet: &'p [u8],
        segment: Option<usize>,
    ) -> Result<Demuxed<'p>, DropReason> {
        if segment.is_none() && packet.len() > usize::from(self.carrier.mtu()) {
            return Err(DropReason::Oversized);
        }
        let ip = IpView::parse(packet)?;
        if !self.addresses.contains(&ip.dst) {
            return Err(DropReason::ForeignDestination);
        }
        // RFC 1122 §3.2.1.3: invalid as a source; a local address comes back only in loops.
        if !is_unicast(ip.src) || self.addresses.contains(&ip.src) {
            return Err(DropReason::BadSource);
        }
        match (IpNumber(ip.protocol), ip.dst) {
            (IpNumber::UDP, _) => self.sort_udp(&ip, segment),
            (IpNumber::TCP, _) => self.sort_tcp(now, packet, &ip, segment),
            (IpNumber::ICMP, IpAddr::V4(_)) => self.sort_icmp(now, packet, &ip, ICMP_ECHO),
            (IpNumber::IPV6_ICMP, IpAddr::V6(_)) => self.sort_icmp(now, packet, &ip, ICMPV6_ECHO),
            _ => Err(DropReason::UnknownProtocol),
        }
    }

    fn sort_udp<'p>(
        &self,
        ip: &IpView<'p>,
        segment: Option<usize>,
    ) -> Result<Demuxed<'p>, DropReason> {
        let datagram = ip.udp(Checksum::of(segment))?;
        let UdpPath { src, dst } = datagram.path;
        if !self.takes(dst.port()) {
            return Err(DropReason::UnknownUdpPort);
        }
        if src.port() == 0 {
            return Err(DropReason::BadSource);
        }
        Ok(Demuxed::Transport(datagram))
    }

    fn takes(&self, port: u16) -> bool {
        self.transport_ports.contains(&port) || self.open_ports.contains(&port)
    }

    fn sort_tcp<'p>(
        &mut self,
        now: Instant,
        packet: &'p [u8],
        ip: &IpView<'p>,
        segment: Option<usize>,
    ) -> Result<Demuxed<'p>, DropReason> {
        let tcp = TcpSlice::from_slice(ip.payload).map_err(|_| DropReason::BadTcp)?;
        if Checksum::of(segment) == Checksum::Verify && !ip.checksum_holds() {
            return Err(DropReason::BadTcp);
        }
        self.tcp
            .handle_segment(now, &mut self.carrier, packet, ip, &tcp)?;
        Ok(Demuxed::Taken)
    }

    fn sort_icmp<'p>(
        &mut self,
        now: Instant,
        packet: &'p [u8],
        ip: &IpView<'p>,
        echo_request: u8,
    ) -> Result<Demuxed<'p>, DropReason> {
        if ip.payload.len() < ICMP_ECHO_HEADER || !ip.checksum_holds() {
            return Err(DropReason::BadIcmp);
        }
        if ip.payload.first() != Some(&echo_request) {
            return Err(DropReason::IcmpNotEcho);
        }
        let mut nobody = SocketSet::new(Vec::new());
        self.carrier
            .ingress(now, packet, Lane::Plain, &mut nobody)?;
        Ok(Demuxed::Taken)
    }

    /// Takes UDP datagrams to a further port from now on, for which the stack has no use of its own; returns
    /// `false` if the port is taken, or [`MAX_OPEN_PORTS`] are.
    pub fn open_port(&mut self, port: u16) -> bool {
        let is_free = !self.takes(port) && self.open_ports.len() < MAX_OPEN_PORTS;
        if is_free {
            self.open_ports.push(port);
        }
        is_free
    }

    /// Drops UDP datagrams to a port of [`open_port`](Self::open_port) from now on.
    pub fn close_port(&mut self, port: u16) {
        self.open_ports.retain(|open| *open != port);
    }

    /// Handles the deadline of [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tcp.handle_timeout(now);
    }

    /// Returns the next packet to send, if any.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<StackPacket> {
        if self.carrier.queue().is_empty() {
            self.tcp.transmit(now, &mut self.carrier);
        }
        let packet = self.carrier.queue().pop()?;
        self.counters.packets_out += 1;
        self.counters.bytes_out += u64::try_from(packet.bytes.len()).unwrap_or(0);
        Some(packet)
    }

    /// Takes back the buffer of a sent packet for reuse.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        self.carrier.queue().recycle(buffer);
    }

    /// The next deadline for [`handle_timeout`](Self::handle_timeout), with its reason.
    pub fn poll_timeout(&mut self, now: Instant) -> Option<(Instant, &'static str)> {
        if !self.carrier.queue().is_empty() {
            return Some((now, "packets queued"));
        }
        let at = self.tcp.poll_timeout(now)?;
        Some((at.max(now), "TCP timer"))
    }

    /// The counters since the start.
    #[must_use]
    pub const fn counters(&self) -> &StackCounters {
        &self.counters
    }

    /// Accepts TCP connections to `port` on every local address.
    ///
    /// # Errors
    /// [`StackError::CannotListen`].
    pub fn listen(&mut self, port: u16) -> Result<(), StackError> {
        self.tcp.listen(port)
    }

    /// Refuses new TCP connections on every port.
    pub fn stop_listening(&mut self) {
        self.tcp.stop_listening();
    }

    /// Opens a TCP connection to `remote` from the first local address of its family.
    /// [`TcpEvent::Connected`] or [`TcpEvent::Closed`] follows.
    ///
    /// # Errors
    /// [`TcpError::NoAddress`], [`TcpError::TooManyConnections`].
    pub fn connect(&mut self, now: Instant, remote: SocketAddr) -> Result<TcpId, TcpError> {
        let family = |own: &&IpAddr| own.is_ipv4() == remote.is_ipv4();
        let local = *self
            .addresses
            .iter()
            .find(family)
            .ok_or(TcpError::NoAddress)?;
        self.tcp.connect(now, &mut self.carrier, local, remote)
    }

    /// Queues bytes to send and returns how many; if fewer than given, [`TcpEvent::Writable`]
    /// follows once there is room.
    ///
    /// # Errors
    /// [`TcpError::NotOpen`], [`TcpError::Unknown`].
    pub fn send(&mut self, id: TcpId, bytes: &[u8]) -> Result<usize, TcpError> {
        self.tcp.send(id, bytes)
    }

    /// Lets `fill` write up to `most` bytes to send into the connection's buffer, without a copy; it
    /// returns how many it wrote and a result of its own. `None` without room, and
    /// [`TcpEvent::Writable`] follows.
    ///
    /// # Errors
    /// As of [`send`](Self::send).
    pub fn send_with<R>(
        &mut self,
        now: Instant,
        id: TcpId,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Result<Option<R>, TcpError> {
        self.tcp.send_with(now, id, most, fill)
    }

    /// Announces that `bytes` will follow on an accepted connection, which then gets a suitable
    /// buffer; zero if none will for now, and others may have the buffer.
    pub fn expect_to_send(&mut self, now: Instant, id: TcpId, bytes: u64) {
        self.tcp.expect_to_send(now, id, bytes);
    }

    /// How far the peer is with the bytes sent to it.
    #[must_use]
    pub fn progress(&self, id: TcpId) -> Option<TcpProgress> {
        self.tcp.progress(id)
    }

    /// The bytes that [`send`](Self::send) would queue now.
    #[must_use]
    pub fn send_room(&self, id: TcpId) -> usize {
        self.tcp.send_room(id)
    }

    /// Reads received bytes and returns how many; 0 if there are none yet, and
    /// [`TcpEvent::Readable`] follows.
    ///
    /// # Errors
    /// [`TcpError::Finished`] once all bytes before the peer's FIN are read, [`TcpError::NotOpen`],
    /// [`TcpError::Unknown`].
    pub fn receive(&mut self, id: TcpId, out: &mut [u8]) -> Result<usize, TcpError> {
        self.tcp.receive(id, out)
    }

    /// Closes the sending direction after the queued bytes. The peer may still send.
    pub fn close(&mut self, id: TcpId) {
        self.tcp.close(id);
    }

    /// Resets and removes the connection; no event follows.
    pub fn abort(&mut self, id: TcpId) {
        self.tcp.abort(id);
    }

    /// Returns the next event of any connection.
    pub fn poll_event(&mut self) -> Option<TcpEvent> {
        self.tcp.poll_event()
    }

    /// The number of TCP connections in the table, including closing ones.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.tcp.len()
    }

    /// The number of connections reset to make room for others.
    #[must_use]
    pub const fn evictions(&self) -> u64 {
        self.tcp.evictions()
    }
}

/// Type of an ICMP echo request (RFC 792).
const ICMP_ECHO: u8 = 8;

/// Type of an ICMPv6 echo request (RFC 4443 §4.1).
const ICMPV6_ECHO: u8 = 128;

/// Bytes of an echo header, in either version.
const ICMP_ECHO_HEADER: usize = 8;

fn is_unicast(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_multicast() || address.is_unspecified() || broadcast)
}

#[cfg(test)]
mod tests;
