//! One UDP socket of the kernel, with segmentation offload, ECN and its queue of unsent flights.
//!
//! In: flights, of whose bytes as many as possible go with each system call. Out: datagrams of one
//! path, coalesced by the kernel (GRO), with their headers, and the addresses that errors came from.
//! Never blocks. An error of one destination affects no other: the kernel refuses a segment that is too
//! long for one route like one that no route takes, so offloads stay enabled after an error.
//! Sources: udp(7) on `UDP_SEGMENT` and `UDP_GRO`, ip(7) on `IP_RECVERR`, `udp_send_skb` of Linux.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, TransportErrorPayload, UdpSocketState};
use rustix::io::Errno;
use rustix::net::sockopt::{
    set_ipv6_v6only, set_socket_recv_buffer_size, set_socket_recv_buffer_size_force,
    set_socket_reuseport, set_socket_send_buffer_size, set_socket_send_buffer_size_force,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};
use socket2::SockRef;

use crate::device::binding::SocketBinding;
use crate::device::gather::Gatherer;
use crate::device::udp::queue::SendQueue;
use crate::device::udp::timestamps;
use crate::device::udp::unreachable::Unreachable;
use crate::wire::flight::Flight;

/// Most bytes of UDP payload in one write, in however many datagrams: the largest of IPv4.
pub(super) const MAX_WRITE_BYTES: usize = 65_507;

/// Most pending errors of the network that one call handles; the next call handles the rest.
pub(super) const MAX_PENDING_ERRORS: usize = 16;

/// Receive buffer to ask for, in bytes: half a window of a fast path. Without privileges the kernel
/// grants `net.core.rmem_max`.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Send buffer to ask for, in bytes; further flights wait in the process.
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// The options of a socket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SocketOptions {
    /// Other sockets may have the same address and port.
    pub(super) shared: bool,
    /// Errors that the network reports are received, too.
    pub(super) reports_errors: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    offloads: UdpSocketState,
    bound: SocketAddr,
    waiting: SendQueue,
    /// Datagrams dropped.
    drops: u64,
}

/// Why datagrams were not sent.
enum Unsent {
    /// The socket is full; it has taken this number of bytes.
    Full(usize),
    /// The kernel refuses them.
    Refused(io::Error),
}

impl Socket {
    pub(super) fn bind(
        address: SocketAddr,
        options: SocketOptions,
        binding: &SocketBinding,
    ) -> io::Result<Self> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(family, SocketType::DGRAM, flags, None)?;
        if address.is_ipv6() {
            set_ipv6_v6only(&fd, true)?;
        }
        if options.shared {
            set_socket_reuseport(&fd, true)?;
        }
        if set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER_BYTES).is_err() {
            set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER_BYTES)?;
        }
        if set_socket_send_buffer_size_force(&fd, SEND_BUFFER_BYTES).is_err() {
            set_socket_send_buffer_size(&fd, SEND_BUFFER_BYTES)?;
        }
        binding.bind_interface(SockRef::from(&fd))?;
        bind(&fd, &address)?;
        let bound = SocketAddr::try_from(getsockname(&fd)?)?;
        let offloads = offloads(&fd)?;
        if options.reports_errors {
            offloads.enable_transport_errors((&fd).into())?;
        }
        Ok(Self {
            fd,
            offloads,
            bound,
            waiting: SendQueue::default(),
            drops: 0,
        })
    }

    /// The address and port of the socket.
    pub(super) const fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// The number of datagrams that were not sent.
    pub(super) const fn drops(&self) -> u64 {
        self.drops
    }

    /// Whether flights wait until it is writable.
    pub(super) fn is_full(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether it sends from `source`.
    pub(super) fn sends_from(&self, source: SocketAddr) -> bool {
        let own = self.bound.ip();
        let any = own.is_unspecified() && own.is_ipv4() == source.is_ipv4();
        self.bound.port() == source.port() && (own == source.ip() || any)
    }

    /// Receives datagrams of one path; `None` if there are none now.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        unreachable: &mut Unreachable,
    ) -> io::Result<Option<RecvMeta>> {
        for _ in 0..MAX_PENDING_ERRORS {
            let mut meta = [RecvMeta::default()];
            let mut buffers = [IoSliceMut::new(buffer)];
            match self
                .offloads
                .recv((&self.fd).into(), &mut buffers, &mut meta)
            {
                Ok(count) => {
                    let [meta] = meta;
                    return Ok((count > 0).then_some(meta));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if is_own_fault(&error) => return Err(error),
                // An error that the network reported; datagrams may follow it.
                Err(error) => log::debug!("{}: {error}", self.bound),
            }
            self.collect_errors(unreachable);
        }
        Ok(None)
    }

    /// Sends a flight, or queues it behind those that wait.
    pub(super) fn send(
        &mut self,
        flight: &Flight,
        packet: &mut Vec<u8>,
        unreachable: &mut Unreachable,
    ) {
        let sent = match self.is_full() {
            true => Some(0),
            false => self.write(flight, 0, packet, unreachable),
        };
        if let Some(sent) = sent {
            self.hold(flight, sent);
        }
    }

    /// Queues a flight of which `sent` bytes are sent.
    pub(super) fn hold(&mut self, flight: &Flight, sent: usize) {
        if !self.waiting.push(flight, sent) {
            self.drop_rest(flight, sent);
        }
    }

    /// Sends the flights that wait, as far as the socket takes them.
    pub(super) fn flush(&mut self, packet: &mut Vec<u8>, unreachable: &mut Unreachable) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.flush(|flight, sent| self.write(flight, sent, packet, unreachable));
        self.waiting = waiting;
    }

    /// Writes a flight from byte `sent` on; returns the number of bytes sent if the socket is full.
    fn write(
        &mut self,
        flight: &Flight,
        mut sent: usize,
        packet: &mut Vec<u8>,
        unreachable: &mut Unreachable,
    ) -> Option<usize> {
        let segment = flight.segment.max(1);
        let together = self.offloads.max_gso_segments();
        let most = segment * (MAX_WRITE_BYTES / segment).clamp(1, together.max(1));
        let mut rest = Gatherer::new(&flight.payload);
        rest.skip(sent);
        while rest.count() > 0 {
            packet.clear();
            rest.append(rest.count().min(most), packet);
            match self.write_joined(flight, packet, unreachable) {
                Ok(()) => sent += packet.len(),
                Err(Unsent::Full(taken)) => return Some(sent + taken),
                Err(Unsent::Refused(error)) => {
                    // The other datagrams have the same size and destination.
                    unreachable.note_refusal(flight, &error);
                    self.drop_rest(flight, sent);
                    return None;
                }
            }
        }
        None
    }

    /// Writes consecutive datagrams of a flight at once, or one by one if the kernel refuses that.
    fn write_joined(
        &mut self,
        flight: &Flight,
        joined: &[u8],
        unreachable: &mut Unreachable,
    ) -> Result<(), Unsent> {
        let refused = match self.try_send(flight, joined, unreachable) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(Unsent::Full(0)),
            Err(error) => error,
        };
        if joined.len() <= flight.segment {
            return Err(Unsent::Refused(refused));
        }
        let mut sent = 0;
        for datagram in joined.chunks(flight.segment.max(1)) {
            match self.try_send(flight, datagram, unreachable) {
                Ok(()) => sent += datagram.len(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(Unsent::Full(sent));
                }
                Err(error) => return Err(Unsent::Refused(error)),
            }
        }
        Ok(())
    }

    fn try_send(
        &mut self,
        flight: &Flight,
        contents: &[u8],
        unreachable: &mut Unreachable,
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination: flight.path.dst,
            ecn: EcnCodepoint::from_bits(flight.ecn.bits()),
            contents,
            segment_size: Some(flight.segment),
            src_ip: self.source_of(flight),
        };
        let mut sent = self.offloads.try_send((&self.fd).into(), &transmit);
        if matches!(&sent, Err(error) if error.kind() != ErrorKind::WouldBlock)
            && self.collect_errors(unreachable) > 0
        {
            // It reported an error of an earlier datagram in place of sending.
            sent = self.offloads.try_send((&self.fd).into(), &transmit);
        }
        let errno = sent.as_ref().err().and_then(Errno::from_io_error);
        if let Some(Errno::INVAL | Errno::IO) = errno {
            // After these the state does without offloads and ECN for all destinations.
            self.offloads = offloads(&self.fd)?;
        }
        sent
    }

    /// The source address to ask for; `None` if the kernel chooses it.
    fn source_of(&self, flight: &Flight) -> Option<IpAddr> {
        let source = flight.path.src.ip();
        (self.bound.ip().is_unspecified() && !source.is_unspecified()).then_some(source)
    }

    /// Notes the addresses that pending errors came from; returns the number of errors.
    fn collect_errors(&self, unreachable: &mut Unreachable) -> usize {
        for count in 0..MAX_PENDING_ERRORS {
            match self.offloads.recv_transport_error((&self.fd).into()) {
                Ok(Some(error)) => {
                    if let (TransportErrorPayload::Unreachable, Some(from)) =
                        (error.payload, error.addr)
                    {
                        unreachable.note(from.ip());
                    }
                }
                Ok(None) | Err(_) => return count,
            }
        }
        MAX_PENDING_ERRORS
    }

    fn drop_rest(&mut self, flight: &Flight, sent: usize) {
        let rest = flight.payload.len().saturating_sub(sent);
        self.drops += rest.div_ceil(flight.segment.max(1)) as u64;
    }
}

/// Enables the offloads of a socket, and the control messages about received datagrams.
fn offloads(socket: &OwnedFd) -> io::Result<UdpSocketState> {
    let offloads = UdpSocketState::new(socket.into())?;
    timestamps::disable(socket)?;
    Ok(offloads)
}

/// Whether an error says that the descriptor or the call is wrong.
fn is_own_fault(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::BADF | Errno::NOTSOCK | Errno::FAULT | Errno::INVAL)
    )
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
