//! An offloading TUN device: many datagrams of one path in one system call.
//!
//! Sending: a flight goes to the kernel as one packet with a virtio header, which says where to cut
//! and which checksums to compute; it travels joined as far as the path allows, through veth pairs
//! and routers up to the reader of another such device. Receiving: joined packets of UDP come as
//! [`Received::segment`] tells, those of TCP as well, which smoltcp takes for long segments; so none
//! is ever cut here.
//! The offloads belong to the device, not to who is attached: they are taken back at the end.
//! Sources: Documentation/networking/tuntap.rst and segmentation-offloads.rst of Linux;
//! `__udp_gso_segment` in net/ipv4/udp_offload.c.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, readv, writev};

use crate::device::tun::error::open_error;
use crate::device::tun::virtio::{HEADER_BYTES, Header, UDP_BYTES};
use crate::device::tun::{TunConfig, TunError, ioctl, is_drop};
use crate::device::{Device, Received};
use crate::wire::flight::Flight;
use crate::wire::ip::UdpTemplate;
use crate::wire::payload::PayloadReader;

/// Most datagrams in one write (`UDP_MAX_SEGMENTS` of Linux); with more the kernel refuses it.
pub(super) const MAX_SEGMENTS: usize = 128;

/// Longest joined IP packet, in bytes: with its 14 bytes of an Ethernet header, which veth pairs put
/// before it, it must stay within the 65,535 that devices take, or the kernel cuts it early.
pub(super) const MAX_JOINED_BYTES: usize = 65_521;

/// Most parts of one write. A flight of 44 datagrams with a range of the object in each, and 32 more
/// where ranges end within a datagram, has twice that; the headers before it are two.
pub(super) const MAX_PARTS: usize = 256;

/// An open offloading device.
#[derive(Debug)]
pub(super) struct Offload {
    tun: OwnedFd,
    mtu: usize,
    send_drops: u64,
    receive_drops: u64,
}

impl Offload {
    /// Creates the device, or attaches to it. Fails with [`TunError::NoOffload`] where the kernel
    /// is too old: USO came with Linux 6.2, the rest long before.
    pub(super) fn open(config: &TunConfig) -> Result<Self, TunError> {
        let name = &config.name;
        let failed = |error: Errno| open_error(name, error.into());
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let tun = open("/dev/net/tun", flags, Mode::empty()).map_err(failed)?;
        ioctl::attach(tun.as_fd(), name).map_err(failed)?;
        let bytes = i32::try_from(HEADER_BYTES).unwrap_or(i32::MAX);
        ioctl::set_header_bytes(tun.as_fd(), bytes).map_err(failed)?;
        ioctl::set_offloads(tun.as_fd()).map_err(|error| match error {
            Errno::INVAL => TunError::NoOffload { name: name.clone() },
            error => failed(error),
        })?;
        Ok(Self {
            tun,
            mtu: usize::from(config.mtu),
            send_drops: 0,
            receive_drops: 0,
        })
    }

    /// Writes one packet, in parts. What the kernel will not take counts as `packets` dropped.
    fn write(&mut self, parts: &[IoSlice<'_>], packets: usize) -> io::Result<()> {
        match writev(&self.tun, parts) {
            Ok(_) => Ok(()),
            Err(error) if is_drop(error) => {
                self.send_drops += packets as u64;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Device for Offload {
    fn mtu(&self) -> usize {
        self.mtu
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut head = [0; HEADER_BYTES];
        loop {
            let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(buffer)];
            let read = match readv(&self.tun, &mut parts) {
                Ok(read) => read,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let len = read.saturating_sub(HEADER_BYTES);
            let packet = buffer.get_mut(..len).unwrap_or_default();
            match Header::from_bytes(head).apply(packet) {
                Ok(segment) => return Ok(Some(Received { len, segment })),
                Err(_) => self.receive_drops += 1,
            }
        }
    }

    fn send_packet(&mut self, packet: &[u8]) -> io::Result<()> {
        if packet.len() > self.mtu {
            self.send_drops += 1;
            return Ok(());
        }
        let head = Header::default().to_bytes();
        self.write(&[IoSlice::new(&head), IoSlice::new(packet)], 1)
    }

    fn send_flight(&mut self, flight: &Flight) -> io::Result<()> {
        let Ok(template) = UdpTemplate::new(flight.path, flight.ecn) else {
            self.send_drops += 1;
            return Ok(());
        };
        let headers = template.headers_len();
        let segment = flight.segment.max(1);
        if headers + segment.min(flight.payload.len()) > self.mtu {
            self.send_drops += flight.count() as u64;
            return Ok(());
        }
        let together = (MAX_JOINED_BYTES - headers) / segment;
        let most = segment * together.clamp(1, MAX_SEGMENTS);
        let mut reader = flight.payload.reader();
        while reader.left() > 0 {
            let bytes = reader.left().min(most);
            let datagrams = bytes.div_ceil(segment);
            let joined = (datagrams > 1).then_some(segment);
            let virtio = Header::udp(headers - UDP_BYTES, joined).to_bytes();
            let Ok(udp) = template.partial(bytes) else {
                self.send_drops += datagrams as u64;
                return Ok(());
            };
            let mut parts = [IoSlice::new(&[]); MAX_PARTS];
            let used = gather(&mut parts, [&virtio, udp.as_slice()], &mut reader, bytes);
            match used.and_then(|used| parts.get(..used)) {
                Some(parts) => self.write(parts, datagrams)?,
                None => {
                    self.send_drops += (datagrams + reader.left().div_ceil(segment)) as u64;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn send_drops(&self) -> u64 {
        self.send_drops
    }

    fn receive_drops(&self) -> u64 {
        self.receive_drops
    }
}

/// Points `parts` at two headers and the next `bytes` of a payload; how many parts it took, or
/// `None` if there are too few.
fn gather<'a, 'p: 'a>(
    parts: &mut [IoSlice<'a>],
    headers: [&'a [u8]; 2],
    payload: &mut PayloadReader<'p>,
    bytes: usize,
) -> Option<usize> {
    let mut left = bytes;
    let body = core::iter::from_fn(|| {
        let slice = payload.next(left)?;
        left -= slice.len();
        Some(slice)
    });
    let slices = headers.into_iter().chain(body);
    let mut used = 0;
    for (part, slice) in parts.iter_mut().zip(slices) {
        *part = IoSlice::new(slice);
        used += 1;
    }
    (left == 0).then_some(used)
}

impl AsRawFd for Offload {
    fn as_raw_fd(&self) -> RawFd {
        self.tun.as_raw_fd()
    }
}

impl Drop for Offload {
    fn drop(&mut self) {
        // Of use to who attaches to a persistent device next; the kernel forgets the others.
        let _ = ioctl::clear_offloads(&self.tun);
    }
}
