//! Why sockets of a UDP device cannot be opened.

use std::io;
use std::net::SocketAddr;

use crate::device::udp::MAX_SOCKETS;

/// Why a UDP device cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// No address to listen on.
    #[error("no address to listen on: add one")]
    NoAddress,
    /// More sockets than one device has.
    #[error("{count} addresses to listen on: use at most {MAX_SOCKETS}")]
    TooManyAddresses {
        /// The number of addresses given.
        count: usize,
    },
    /// An address that is in use, foreign, or needs privileges.
    #[error("cannot bind UDP {address} ({source}): {}", remedy(source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        source: io::Error,
    },
    /// Another error of the operating system.
    #[error("cannot open a UDP socket ({0}): close other programs or raise `ulimit -n`")]
    Os(#[from] io::Error),
}

/// Returns what to do about an address that cannot be bound.
fn remedy(source: &io::Error) -> &'static str {
    let remedies = [
        (
            io::ErrorKind::AddrInUse,
            "end the program that uses it, or choose another port",
        ),
        (
            io::ErrorKind::AddrNotAvailable,
            "use an address of this machine",
        ),
        (
            io::ErrorKind::PermissionDenied,
            "use a port of 1024 or above",
        ),
    ];
    let known = remedies.iter().find(|(kind, _)| *kind == source.kind());
    known.map_or("choose another address", |(_, remedy)| remedy)
}
