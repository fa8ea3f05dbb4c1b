//! TUN devices: plain, with one system call per packet, or offloading, with one for many datagrams.
//!
//! In: name, MTU, kind and the addresses of the stack behind it; out: packets. [`Tun::open`]
//! creates the device, or attaches to a persistent one, configures it over rtnetlink and adds a host
//! route to each address, so that the kernel forwards to us; a thread puts the routes back when the
//! device has been down. Every failure is a [`TunError`] with a one-line remedy.
//! Never blocks once it is open. A device that it created disappears with it, and the routes with the device.
//! Sources: Documentation/networking/tuntap.rst of Linux; drivers/net/tun.c.

mod config;
mod error;
mod ioctl;
mod netlink;
mod offload;
mod plain;
mod routes;
mod set_up;
mod virtio;

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use rustix::io::Errno;

use crate::device::{Device, Received};
use crate::wire::flight::Flight;

pub use config::{TunBuilder, TunConfig, TunKind};
pub use error::TunError;
pub use routes::TunRoutes;

pub use crate::wire::ip::{MIN_MTU, MIN_MTU_V6};

use offload::Offload;
use plain::Plain;
use routes::Keeper;

/// Transmit queue length of the device, in packets. The kernel's default of 500 drops at larger
/// windows; 2000 full packets are 3 MB. An offloading device has the same, since paths and senders
/// without GSO deliver datagrams one by one there too. A coalesced packet takes one slot like any
/// other, so there the receiver's buffer is the bound, not the ring.
pub const TX_QUEUE_PACKETS: usize = 2000;

/// Longest interface name, in bytes (IFNAMSIZ less the terminator).
pub const MAX_NAME_BYTES: usize = 15;

/// Most addresses behind one device.
pub const MAX_ADDRESSES: usize = 8;

/// An open TUN device of either kind.
#[derive(Debug)]
pub struct Tun {
    /// `None` without addresses. Dropped before the device: its end is no change to log.
    keeper: Option<Keeper>,
    opened: Opened,
}

#[derive(Debug)]
enum Opened {
    Plain(Plain),
    Offload(Offload),
}

impl Tun {
    /// Creates the device or attaches to it, and configures it: MTU, ring, no address
    /// autoconfiguration, up, host routes.
    ///
    /// # Errors
    /// [`TunError`].
    pub fn open(config: &TunConfig) -> Result<Self, TunError> {
        set_up::check(config)?;
        set_up::check_addresses(config)?;
        let opened = attach(config)?;
        let index = set_up::set_up(config, TX_QUEUE_PACKETS)?;
        let keep = || Keeper::start(&config.name, index, &config.addresses);
        let keeper = (!config.addresses.is_empty()).then(keep).transpose();
        let keeper = keeper.map_err(|source| TunError::Os {
            name: config.name.clone(),
            source,
        })?;
        Ok(Self { keeper, opened })
    }

    /// The host routes to the addresses, to delete and add them while the device is open; `None` if
    /// it was opened without addresses.
    #[must_use]
    pub fn routes(&self) -> Option<TunRoutes> {
        self.keeper.as_ref().map(Keeper::routes)
    }

    /// Whether the kernel takes whole flights as one packet.
    #[must_use]
    pub const fn offloads(&self) -> bool {
        matches!(self.opened, Opened::Offload(_))
    }
}

fn attach(config: &TunConfig) -> Result<Opened, TunError> {
    let name = &config.name;
    let plain = |why| {
        let device = Plain::open(config)?;
        log::info!("{name}: plain device ({why})");
        Ok(Opened::Plain(device))
    };
    if config.kind == TunKind::Plain {
        return plain("as configured");
    }
    match Offload::open(config) {
        Ok(device) => {
            log::info!("{name}: offloading device (checksums, TSO and USO)");
            Ok(Opened::Offload(device))
        }
        Err(TunError::NoOffload { .. }) if config.kind == TunKind::Auto && !config.multi_queue => {
            plain("the kernel has no USO")
        }
        Err(error) => Err(error),
    }
}

impl Device for Tun {
    fn mtu(&self) -> usize {
        match &self.opened {
            Opened::Plain(device) => device.mtu(),
            Opened::Offload(device) => device.mtu(),
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        match &mut self.opened {
            Opened::Plain(device) => device.receive(buffer),
            Opened::Offload(device) => device.receive(buffer),
        }
    }

    fn send_packet(&mut self, packet: &[u8]) -> io::Result<()> {
        match &mut self.opened {
            Opened::Plain(device) => device.send_packet(packet),
            Opened::Offload(device) => device.send_packet(packet),
        }
    }

    fn send_flight(&mut self, flight: &Flight) -> io::Result<()> {
        match &mut self.opened {
            Opened::Plain(device) => device.send_flight(flight),
            Opened::Offload(device) => device.send_flight(flight),
        }
    }

    fn send_segments(&mut self, packet: &[u8], segment: usize) -> io::Result<()> {
        match &mut self.opened {
            Opened::Plain(device) => device.send_segments(packet, segment),
            Opened::Offload(device) => device.send_segments(packet, segment),
        }
    }

    fn send_drops(&self) -> u64 {
        match &self.opened {
            Opened::Plain(device) => device.send_drops(),
            Opened::Offload(device) => device.send_drops(),
        }
    }

    fn receive_drops(&self) -> u64 {
        match &self.opened {
            Opened::Plain(device) => device.receive_drops(),
            Opened::Offload(device) => device.receive_drops(),
        }
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        match &self.opened {
            Opened::Plain(device) => device.as_raw_fd(),
            Opened::Offload(device) => device.as_raw_fd(),
        }
    }
}

/// Whether a failed write lost only its packet, as any link may, rather than the device.
fn is_drop(error: Errno) -> bool {
    // Down, full, or a packet that the kernel rejects.
    matches!(
        error,
        Errno::IO | Errno::AGAIN | Errno::NOBUFS | Errno::INVAL
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_is_a_drop_unless_the_device_is_gone() {
        for (errno, lost) in [
            (Errno::IO, true),
            (Errno::AGAIN, true),
            (Errno::NOBUFS, true),
            (Errno::INVAL, true),
            (Errno::BADFD, false),
        ] {
            assert_eq!(is_drop(errno), lost, "{errno:?}");
        }
    }
}
