//! Disables the time stamps of received datagrams.
//!
//! `quinn-udp` enables them, and its buffer for control messages has no room for the time stamp of a
//! coalesced packet beside its addresses, its segment size and its ECN field, of which the kernel then
//! leaves out the last. One of three modules with `unsafe`: setsockopt(2) is untyped.
#![expect(unsafe_code, reason = "setsockopt(2) has no safe form")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use libc::{SO_TIMESTAMPNS, SOL_SOCKET, c_int, setsockopt, socklen_t};

/// Disables time stamps.
pub(super) fn disable(socket: impl AsFd) -> io::Result<()> {
    let off: c_int = 0;
    let bytes = socklen_t::try_from(size_of_val(&off)).unwrap_or_default();
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads `bytes` bytes of `off`.
    let set = unsafe {
        setsockopt(
            socket.as_fd().as_raw_fd(),
            SOL_SOCKET,
            SO_TIMESTAMPNS,
            (&raw const off).cast(),
            bytes,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
