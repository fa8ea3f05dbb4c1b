//! A plain TUN device: one system call per packet, no offloads.
//!
//! In and out: whole IP packets with complete checksums. A flight is assembled and written datagram
//! by datagram.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};

use rustix::io::Errno;
use tun_tap::{Iface, Mode};

use crate::device::tun::error::open_error;
use crate::device::tun::{TunConfig, TunError, ioctl, is_drop};
use crate::device::{Device, Received};
use crate::wire::flight::Flight;
use crate::wire::ip::{MAX_PACKET, UdpTemplate};

/// An open plain device.
#[derive(Debug)]
pub(super) struct Plain {
    iface: Iface,
    mtu: usize,
    scratch: Vec<u8>,
    drops: u64,
}

impl Plain {
    /// Creates the device, or attaches to it.
    pub(super) fn open(config: &TunConfig) -> Result<Self, TunError> {
        let name = &config.name;
        let failed = |source| TunError::Os {
            name: name.clone(),
            source,
        };
        let iface =
            Iface::without_packet_info(name, Mode::Tun).map_err(|error| open_error(name, error))?;
        iface.set_non_blocking().map_err(failed)?;
        // The mask belongs to the device and outlives its user: a persistent device would keep
        // delivering coalesced packets.
        ioctl::clear_offloads(&iface).map_err(|error| failed(error.into()))?;
        Ok(Self {
            iface,
            mtu: usize::from(config.mtu),
            scratch: vec![0; MAX_PACKET],
            drops: 0,
        })
    }
}

/// Writes one packet. A packet that the kernel rejects is a drop.
fn write(iface: &Iface, packet: &[u8], drops: &mut u64) -> io::Result<()> {
    match iface.send(packet) {
        Ok(_) => Ok(()),
        Err(error) if Errno::from_io_error(&error).is_some_and(is_drop) => {
            *drops += 1;
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl Device for Plain {
    fn mtu(&self) -> usize {
        self.mtu
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        loop {
            match self.iface.recv(buffer) {
                Ok(len) => return Ok(Some(Received::packet(len))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn send_packet(&mut self, packet: &[u8]) -> io::Result<()> {
        if packet.len() > self.mtu {
            self.drops += 1;
            return Ok(());
        }
        write(&self.iface, packet, &mut self.drops)
    }

    fn send_flight(&mut self, flight: &Flight) -> io::Result<()> {
        let Ok(template) = UdpTemplate::new(flight.path, flight.ecn) else {
            self.drops += 1;
            return Ok(());
        };
        let headers = template.headers_len();
        let segment = flight.segment.min(flight.payload.len());
        if headers + segment > self.mtu {
            self.drops += flight.count() as u64;
            return Ok(());
        }
        let mut reader = flight.payload.reader();
        while reader.left() > 0 {
            let room = self.scratch.get_mut(headers..headers + segment);
            let filled = reader.fill(room.unwrap_or_default());
            match template.enclose(filled, &mut self.scratch) {
                Ok(packet) if filled > 0 => write(&self.iface, packet, &mut self.drops)?,
                Ok(_) | Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn send_drops(&self) -> u64 {
        self.drops
    }
}

impl AsRawFd for Plain {
    fn as_raw_fd(&self) -> RawFd {
        self.iface.as_raw_fd()
    }
}
