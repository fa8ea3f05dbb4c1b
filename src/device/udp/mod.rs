//! A device over UDP sockets of the kernel, which needs no privileges.
//!
//! In and out: datagrams of the transport, without IP headers; many of one path in one system call
//! (GSO, GRO), with their ECN fields. The sockets of a server are bound to addresses, and answers leave
//! from the address that a request went to. Those of a client leave source address and port to the
//! kernel, which chooses them again when the network changes: their paths have the unspecified address
//! and port 0 as their own. A socket carries neither TCP nor ICMP: other packets are dropped and
//! counted. Never blocks: flights wait, in bounded number, until their socket is writable.
//! Sources: udp(7), ip(7), ipv6(7), socket(7) on `SO_REUSEPORT`, epoll(7) on nested descriptors.

mod error;
mod queue;
mod socket;
mod timestamps;
mod unreachable;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd};

use quinn_udp::RecvMeta;
use rustix::event::epoll;
use rustix::io::Errno;

use crate::device::binding::SocketBinding;
use crate::device::{Device, Received, ReceivedUdp};
use crate::wire::flight::{Ecn, Flight, UdpPath};

pub use error::UdpError;

use socket::{Socket, SocketOptions};
use unreachable::Unreachable;

/// Most sockets of one device.
pub const MAX_SOCKETS: usize = 16;

/// Most reads of one socket in a row while others may have datagrams.
const MAX_READS_IN_A_ROW: usize = 32;

/// A device over UDP sockets; see the head of this file.
#[derive(Debug)]
pub struct UdpSockets {
    /// Readable when any socket is ready.
    epoll: OwnedFd,
    sockets: Vec<Socket>,
    /// The kernel chooses source addresses.
    any_source: bool,
    /// The socket to read next, and how often it was read in a row.
    next: usize,
    reads: usize,
    /// The datagrams of the last write.
    packet: Vec<u8>,
    unreachable: Unreachable,
    /// Packets that sockets do not carry.
    drops: u64,
}

impl UdpSockets {
    /// Opens the sockets of a server, one for each address; port 0 leaves the port to the kernel.
    /// `shared`: other processes of this user may listen on the same addresses, and the kernel
    /// distributes clients among them.
    ///
    /// # Errors
    /// [`UdpError`].
    pub fn listen(addresses: &[SocketAddr], shared: bool) -> Result<Self, UdpError> {
        match addresses.len() {
            0 => return Err(UdpError::NoAddress),
            count if count > MAX_SOCKETS => return Err(UdpError::TooManyAddresses { count }),
            _ => {}
        }
        let options = SocketOptions {
            shared,
            reports_errors: false,
        };
        let bind = |&address| {
            let bound = Socket::bind(address, options, &SocketBinding::default());
            bound.map_err(|source| UdpError::Bind { address, source })
        };
        let sockets = addresses.iter().map(bind).collect::<Result<_, _>>()?;
        Self::with_sockets(sockets, false)
    }

    /// Opens the sockets of a client, one for each family that the kernel supports, both from `port`; it
    /// chooses a port for each if there is none.
    ///
    /// # Errors
    /// [`UdpError::Bind`] if the port is in use, [`UdpError::Os`].
    pub fn connect(port: Option<u16>) -> Result<Self, UdpError> {
        Self::connect_from(port, &SocketBinding::default())
    }

    /// Opens the sockets of a client, all of them bound to an interface or an own address; with an address there is
    /// only the socket of its family. Otherwise as [`connect`](Self::connect).
    ///
    /// # Errors
    /// [`UdpError::Bind`] if the port is in use, or the interface or the address does not exist, [`UdpError::Os`].
    pub fn connect_from(port: Option<u16>, binding: &SocketBinding) -> Result<Self, UdpError> {
        let options = SocketOptions {
            shared: false,
            reports_errors: true,
        };
        let mut sockets = Vec::new();
        let families: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        for family in families {
            let Some(address) = binding.own_address(family, port.unwrap_or(0)) else {
                continue;
            };
            match Socket::bind(address, options, binding) {
                Ok(socket) => sockets.push(socket),
                Err(source) if family == address.ip() && is_unsupported(&source) => {
                    log::debug!("no {family}: {source}")
                }
                Err(source) => return Err(UdpError::Bind { address, source }),
            }
        }
        if sockets.is_empty() {
            return Err(io::Error::from(Errno::AFNOSUPPORT).into());
        }
        Self::with_sockets(sockets, true)
    }

    fn with_sockets(sockets: Vec<Socket>, any_source: bool) -> Result<Self, UdpError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        for socket in &sockets {
            let events = epoll::EventFlags::IN;
            let data = epoll::EventData::new_u64(0);
            epoll::add(&epoll, socket.as_fd(), data, events).map_err(io::Error::from)?;
        }
        Ok(Self {
            epoll,
            sockets,
            any_source,
            next: 0,
            reads: 0,
            packet: Vec::with_capacity(socket::MAX_WRITE_BYTES),
            unreachable: Unreachable::default(),
            drops: 0,
        })
    }

    /// The addresses and ports of the sockets.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.iter().map(Socket::bound)
    }

    /// The socket that carries datagrams of a path.
    fn socket_for(&self, path: UdpPath) -> Option<usize> {
        let mut sockets = self.sockets.iter();
        sockets.position(|socket| match self.any_source {
            true => socket.bound().is_ipv4() == path.dst.is_ipv4(),
            false => socket.sends_from(path.src),
        })
    }

    /// Calls `write` with a socket, and watches for it to be writable while flights wait.
    fn write(
        &mut self,
        index: usize,
        write: impl FnOnce(&mut Socket, &mut Vec<u8>, &mut Unreachable),
    ) -> io::Result<()> {
        let Some(socket) = self.sockets.get_mut(index) else {
            return Ok(());
        };
        let was_full = socket.is_full();
        write(socket, &mut self.packet, &mut self.unreachable);
        if socket.is_full() != was_full {
            let events = match socket.is_full() {
                true => epoll::EventFlags::IN | epoll::EventFlags::OUT,
                false => epoll::EventFlags::IN,
            };
            let data = epoll::EventData::new_u64(0);
            epoll::modify(&self.epoll, socket.as_fd(), data, events)?;
        }
        Ok(())
    }

    /// Sends the flights that wait, as far as their sockets take them.
    fn flush(&mut self) -> io::Result<()> {
        for index in 0..self.sockets.len() {
            if self.sockets.get(index).is_some_and(Socket::is_full) {
                self.write(index, Socket::flush)?;
            }
        }
        Ok(())
    }

    fn received(&self, meta: &RecvMeta, bound: SocketAddr) -> Received {
        let dst = match (self.any_source, bound) {
            (true, SocketAddr::V4(_)) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            (true, SocketAddr::V6(_)) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
            (false, bound) => SocketAddr::new(meta.dst_ip.unwrap_or(bound.ip()), bound.port()),
        };
        let path = UdpPath {
            src: meta.addr,
            dst,
        };
        let ecn = Ecn::from_bits(meta.ecn.map_or(0, |ecn| ecn as u8));
        Received {
            len: meta.len,
            segment: (meta.stride < meta.len).then_some(meta.stride.max(1)),
            udp: Some(ReceivedUdp { path, ecn }),
        }
    }

    /// Turns to the next socket.
    fn turn(&mut self) {
        self.next = (self.next + 1) % self.sockets.len().max(1);
        self.reads = 0;
    }
}

/// Whether the kernel has no such family.
fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable
        || Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
}

impl Device for UdpSockets {
    fn mtu(&self) -> usize {
        usize::from(u16::MAX)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        self.flush()?;
        for _ in 0..self.sockets.len() {
            let Some(socket) = self.sockets.get_mut(self.next) else {
                break;
            };
            let bound = socket.bound();
            let Some(meta) = socket.receive(buffer, &mut self.unreachable)? else {
                self.turn();
                continue;
            };
            self.reads += 1;
            if self.reads >= MAX_READS_IN_A_ROW {
                self.turn();
            }
            return Ok(Some(self.received(&meta, bound)));
        }
        Ok(None)
    }

    fn send_packet(&mut self, _packet: &[u8]) -> io::Result<()> {
        self.drops += 1;
        Ok(())
    }

    fn send_segments(&mut self, packet: &[u8], _segment: usize) -> io::Result<()> {
        self.send_packet(packet)
    }

    fn send_flight(&mut self, flight: &Flight) -> io::Result<()> {
        let Some(index) = self.socket_for(flight.path) else {
            self.drops += flight.count() as u64;
            if self.any_source {
                self.unreachable.note(flight.path.dst.ip());
            }
            return Ok(());
        };
        self.write(index, |socket, packet, unreachable| {
            socket.send(flight, packet, unreachable);
        })
    }

    fn poll_unreachable(&mut self) -> Option<IpAddr> {
        self.unreachable.pop()
    }

    fn send_drops(&self) -> u64 {
        self.drops + self.sockets.iter().map(Socket::drops).sum::<u64>()
    }
}

impl AsRawFd for UdpSockets {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
