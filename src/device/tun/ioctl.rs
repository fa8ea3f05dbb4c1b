//! The ioctls that tun-tap lacks: the virtio header, and the offloads of a device.
//!
//! One of three modules with `unsafe`: ioctl(2) is untyped.
//! Each call passes a plain integer or a structure that outlives the call and has the size that the
//! kernel reads and writes.
//! Source: include/uapi/linux/if_tun.h and if.h of Linux.
#![expect(unsafe_code, reason = "ioctl(2) has no safe form")]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Result;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl, opcode};

use crate::device::tun::MAX_NAME_BYTES;

const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const TUNGETIFF: Opcode = opcode::read::<u32>(b'T', 210);
const TUNSETOFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<i32>(b'T', 216);

const IFF_TUN: u16 = 0x0001;
const IFF_MULTI_QUEUE: u16 = 0x0100;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_USO4: u32 = 0x20;
const TUN_F_USO6: u32 = 0x40;

/// All offloads accepted from the kernel, which takes the two of USO together or not at all.
const OFFLOADS: u32 = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6;

/// `struct ifreq` as TUNSETIFF uses it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; MAX_NAME_BYTES + 1],
    flags: u16,
    rest: [u8; 22],
}

/// Attaches a descriptor of `/dev/net/tun` to a TUN interface without packet information and with a
/// virtio header before each packet; creates the interface if it does not exist. `one_of_many`: as
/// one of several queues, to which other descriptors and processes attach.
pub(super) fn attach(tun: BorrowedFd<'_>, name: &str, one_of_many: bool) -> Result<()> {
    let queue = if one_of_many { IFF_MULTI_QUEUE } else { 0 };
    let mut request = InterfaceRequest {
        name: [0; MAX_NAME_BYTES + 1],
        flags: IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | queue,
        rest: [0; 22],
    };
    for (to, byte) in request
        .name
        .iter_mut()
        .zip(name.bytes())
        .take(MAX_NAME_BYTES)
    {
        *to = byte;
    }
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which `request` is.
    unsafe { ioctl(tun, Updater::<TUNSETIFF, _>::new(&mut request)) }
}

/// Whether packets of the device have a virtio header and no packet information: a device of several
/// queues keeps the form of the first one, whatever a later one requests.
pub(super) fn has_virtio_header(tun: BorrowedFd<'_>) -> Result<bool> {
    let mut request = InterfaceRequest {
        name: [0; MAX_NAME_BYTES + 1],
        flags: 0,
        rest: [0; 22],
    };
    // SAFETY: TUNGETIFF writes one `struct ifreq`, which `request` is.
    unsafe { ioctl(tun, Updater::<TUNGETIFF, _>::new(&mut request)) }?;
    let form = IFF_NO_PI | IFF_VNET_HDR;
    Ok(request.flags & form == form)
}

/// Sets the length of the virtio header, which an earlier process may have changed.
pub(super) fn set_header_bytes(tun: BorrowedFd<'_>, bytes: i32) -> Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    unsafe { ioctl(tun, Setter::<TUNSETVNETHDRSZ, i32>::new(bytes)) }
}

/// Enables coalesced packets and partial checksums.
pub(super) fn set_offloads(tun: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: TUNSETOFFLOAD takes an integer in place of a pointer.
    unsafe {
        ioctl(
            tun,
            IntegerSetter::<TUNSETOFFLOAD>::new_usize(OFFLOADS as usize),
        )
    }
}

/// Disables offloads: packets arrive as on a wire.
pub(super) fn clear_offloads(tun: &impl AsRawFd) -> Result<()> {
    // SAFETY: the descriptor is open as long as `tun` lives; TUNSETOFFLOAD takes an integer in
    // place of a pointer.
    unsafe {
        let tun = BorrowedFd::borrow_raw(tun.as_raw_fd());
        ioctl(tun, IntegerSetter::<TUNSETOFFLOAD>::new_usize(0))
    }
}
