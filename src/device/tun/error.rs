//! Errors of TUN devices: one line each, with the remedy.
//!
//! Source: errno values of drivers/net/tun.c of Linux.

use std::io;
use std::net::IpAddr;

use rustix::io::Errno;

/// The reason why a TUN device is not available. The message is one line and gives the remedy.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// Not a valid interface name.
    #[error("'{name}' is not an interface name: use 1 to 15 of a-z, A-Z, 0-9, '.', '_' and '-'")]
    InvalidName {
        /// As given.
        name: String,
    },
    /// The MTU is too small for the addresses.
    #[error("MTU {mtu} is too small: use at least {least} for these addresses")]
    MtuTooSmall {
        /// As given.
        mtu: u16,
        /// The smallest valid MTU.
        least: u16,
    },
    /// More addresses than [`MAX_ADDRESSES`](crate::device::tun::MAX_ADDRESSES).
    #[error("{count} addresses are too many for one device: use at most 8")]
    TooManyAddresses {
        /// As given.
        count: usize,
    },
    /// The process may not administer the network.
    #[error(
        "not permitted to set up a TUN device: run with sudo, or give the program CAP_NET_ADMIN with setcap"
    )]
    NoPermission,
    /// The device node is missing.
    #[error(
        "/dev/net/tun is missing: run 'modprobe tun', or 'mkdir -p /dev/net && mknod /dev/net/tun c 10 200'"
    )]
    NoDeviceNode,
    /// The device node has no driver.
    #[error("/dev/net/tun has no driver: run 'modprobe tun'")]
    NoDriver,
    /// Another process is attached to the device.
    #[error("device '{name}' is in use by another process: stop it or choose another name")]
    Busy {
        /// The device.
        name: String,
    },
    /// The interface is not a TUN device, or differs in `multi_queue`.
    #[error(
        "interface '{name}' exists and is of another kind: choose another name (or use --multi-queue in all or none of its processes)"
    )]
    NotTun {
        /// The interface.
        name: String,
    },
    /// The kernel itself has the address.
    #[error(
        "address {address} belongs to this machine (interface '{device}'): give the stack one of its own"
    )]
    LocalAddress {
        /// The stack's address.
        address: IpAddr,
        /// The interface that has it.
        device: String,
    },
    /// A host route to the address leads elsewhere.
    #[error(
        "address {address} is already routed to '{device}': stop its user, or run 'ip route del {address}'"
    )]
    RoutedElsewhere {
        /// The stack's address.
        address: IpAddr,
        /// The route's destination.
        device: String,
    },
    /// Another program holds the device with packets of another form, and it has several queues.
    #[error(
        "device '{name}' is in use without virtio headers: stop its other program or choose another name"
    )]
    NoVirtioHeader {
        /// The device.
        name: String,
    },
    /// The kernel rejected a setting.
    #[error("setting up device '{name}' failed: {message}")]
    Refused {
        /// The device.
        name: String,
        /// The setting, and the kernel's error.
        message: String,
    },
    /// The kernel cannot offload, and `offload` was requested.
    #[error(
        "device '{name}' cannot offload, since the kernel has no USO: use Linux 6.2 or later, or a plain device"
    )]
    NoOffload {
        /// The device.
        name: String,
    },
    /// Any other error of the operating system.
    #[error("cannot open TUN device '{name}': {source}")]
    Os {
        /// The device.
        name: String,
        /// The error.
        source: io::Error,
    },
}

/// Converts an error of open(2) or TUNSETIFF; tun-tap does not distinguish them.
pub(super) fn open_error(name: &str, source: io::Error) -> TunError {
    let name = name.to_owned();
    match Errno::from_io_error(&source) {
        Some(Errno::PERM | Errno::ACCESS) => TunError::NoPermission,
        Some(Errno::NOENT) => TunError::NoDeviceNode,
        Some(Errno::NODEV | Errno::NXIO) => TunError::NoDriver,
        Some(Errno::BUSY) => TunError::Busy { name },
        Some(Errno::INVAL) => TunError::NotTun { name },
        _ => TunError::Os { name, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_kernel_say_what_to_do() {
        for (errno, want) in [
            (Errno::PERM, "sudo"),
            (Errno::ACCESS, "sudo"),
            (Errno::NOENT, "mknod"),
            (Errno::NODEV, "modprobe"),
            (Errno::BUSY, "another process"),
            (Errno::INVAL, "of another kind"),
            (Errno::NFILE, "cannot open"),
        ] {
            let error = open_error("t", errno.into()).to_string();
            assert!(error.contains(want), "{errno:?}: {error}");
        }
    }
}
