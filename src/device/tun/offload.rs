//! An offloading TUN device: many datagrams of one path in one system call.
//!
//! Sending: a flight goes to the kernel as one packet with a virtio header, which states the
//! segment size (GSO) and the checksums to compute; it stays coalesced as far as the path allows,
//! through veth pairs and routers up to the reader of another such device. Its bytes are coalesced
//! and prefetched here: the kernel copies one long buffer faster than 90 short ones, by more than
//! the copy here costs.
//! So do segments of one TCP connection that leave in a row; the stack has coalesced them already.
//! Receiving: coalesced datagrams of UDP arrive with [`Received::segment`] set, and so do segments
//! of TCP, which smoltcp takes for long ones; none is segmented here.
//! Offloads belong to the device, not to its user: they are disabled at the end.
//! Sources: Documentation/networking/tuntap.rst and segmentation-offloads.rst of Linux;
//! `__udp_gso_segment` in net/ipv4/udp_offload.c.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use etherparse::TcpHeaderSlice;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, readv, write, writev};

use crate::device::gather::Gatherer;
use crate::device::tun::error::open_error;
use crate::device::tun::virtio::{HEADER_BYTES, UDP_BYTES, VirtioHeader};
use crate::device::tun::{TunConfig, TunError, ioctl, is_drop};
use crate::device::{Device, Received};
use crate::wire::flight::Flight;
use crate::wire::ip::{IpView, UdpTemplate};

/// Most datagrams in one write (`UDP_MAX_SEGMENTS` of Linux); the kernel rejects more.
pub(super) const MAX_SEGMENTS: usize = 128;

/// Longest coalesced IP packet, in bytes: with the Ethernet header of 14 bytes, which veth pairs
/// prepend, it must stay within the 65,535 that devices take, or the kernel segments it early.
pub(super) const MAX_JOINED_BYTES: usize = 65_521;

/// An open offloading device.
#[derive(Debug)]
pub(super) struct Offload {
    tun: OwnedFd,
    mtu: usize,
    /// Other processes are attached, with queues of their own.
    shared: bool,
    /// The last packet written.
    packet: Vec<u8>,
    send_drops: u64,
    receive_drops: u64,
}

impl Offload {
    /// Creates the device, or attaches to it. Fails with [`TunError::NoOffload`] if the kernel is
    /// too old: USO is since Linux 6.2, the rest far older.
    pub(super) fn open(config: &TunConfig) -> Result<Self, TunError> {
        let name = &config.name;
        let failed = |error: Errno| open_error(name, error.into());
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let tun = open("/dev/net/tun", flags, Mode::empty()).map_err(failed)?;
        ioctl::attach(tun.as_fd(), name, config.multi_queue).map_err(failed)?;
        if !ioctl::has_virtio_header(tun.as_fd()).map_err(failed)? {
            return Err(TunError::NoVirtioHeader { name: name.clone() });
        }
        let bytes = i32::try_from(HEADER_BYTES).unwrap_or(i32::MAX);
        ioctl::set_header_bytes(tun.as_fd(), bytes).map_err(failed)?;
        ioctl::set_offloads(tun.as_fd()).map_err(|error| match error {
            Errno::INVAL => TunError::NoOffload { name: name.clone() },
            error => failed(error),
        })?;
        Ok(Self {
            tun,
            mtu: usize::from(config.mtu),
            shared: config.multi_queue,
            packet: Vec::with_capacity(HEADER_BYTES + MAX_JOINED_BYTES),
            send_drops: 0,
            receive_drops: 0,
        })
    }
}

/// Writes one packet behind its header; false if the kernel drops it.
fn sent(tun: &OwnedFd, packet: &[u8]) -> io::Result<bool> {
    match write(tun, packet) {
        Ok(_) => Ok(true),
        Err(error) if is_drop(error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes a header and a packet of the caller's; false if the kernel drops them.
fn sent_behind(tun: &OwnedFd, header: VirtioHeader, packet: &[u8]) -> io::Result<bool> {
    let header = header.to_bytes();
    match writev(tun, &[IoSlice::new(&header), IoSlice::new(packet)]) {
        Ok(_) => Ok(true),
        Err(error) if is_drop(error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Builds the virtio header of a packet with several TCP segments; `None` for any other.
fn segments_header(packet: &[u8], segment: usize) -> Option<VirtioHeader> {
    let view = IpView::parse(packet).ok()?;
    let tcp = TcpHeaderSlice::from_slice(view.payload).ok()?.slice().len();
    let ip = packet.len() - view.payload.len();
    Some(VirtioHeader::tcp(ip, tcp, view.src.is_ipv6(), segment))
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
            match VirtioHeader::from_bytes(head).apply(packet) {
                Ok(segment) => {
                    return Ok(Some(Received {
                        segment,
                        ..Received::packet(len)
                    }));
                }
                Err(_) => self.receive_drops += 1,
            }
        }
    }

    fn send_packet(&mut self, packet: &[u8]) -> io::Result<()> {
        if packet.len() > self.mtu {
            self.send_drops += 1;
            return Ok(());
        }
        if !sent_behind(&self.tun, VirtioHeader::default(), packet)? {
            self.send_drops += 1;
        }
        Ok(())
    }

    fn send_segments(&mut self, packet: &[u8], segment: usize) -> io::Result<()> {
        let header = segments_header(packet, segment);
        let fits = packet.len() <= MAX_JOINED_BYTES;
        match header.filter(|header| fits && header.datagram() <= self.mtu) {
            Some(header) if sent_behind(&self.tun, header, packet)? => {}
            _ => self.send_drops += 1,
        }
        Ok(())
    }

    fn send_flight(&mut self, flight: &Flight) -> io::Result<()> {
        let mut lost = 0;
        let unsent = joined(flight, self.mtu, &mut self.packet, |packet, datagrams| {
            if !sent(&self.tun, packet)? {
                lost += datagrams;
            }
            Ok(())
        })?;
        self.send_drops += (unsent + lost) as u64;
        Ok(())
    }

    fn send_drops(&self) -> u64 {
        self.send_drops
    }

    fn receive_drops(&self) -> u64 {
        self.receive_drops
    }
}

/// Passes a flight to `write` in as few packets as possible, each in `packet` behind its virtio
/// header, with its number of datagrams; returns the number of datagrams that did not fit. A single
/// one is an ordinary packet with a partial checksum.
fn joined(
    flight: &Flight,
    mtu: usize,
    packet: &mut Vec<u8>,
    mut write: impl FnMut(&[u8], usize) -> io::Result<()>,
) -> io::Result<usize> {
    let segment = flight.segment.max(1);
    let Ok(template) = UdpTemplate::new(flight.path, flight.ecn) else {
        return Ok(flight.count());
    };
    let headers = template.headers_len();
    if headers + segment.min(flight.payload.len()) > mtu {
        return Ok(flight.count());
    }
    let together = MAX_JOINED_BYTES.saturating_sub(headers) / segment;
    let most = segment * together.clamp(1, MAX_SEGMENTS);
    let mut bytes_left = Gatherer::new(&flight.payload);
    while bytes_left.count() > 0 {
        let bytes = bytes_left.count().min(most);
        let datagrams = bytes.div_ceil(segment);
        let Ok(udp) = template.partial(bytes) else {
            return Ok(bytes_left.count().div_ceil(segment));
        };
        let size = (datagrams > 1).then_some(segment);
        packet.clear();
        packet.extend(VirtioHeader::udp(headers - UDP_BYTES, size).to_bytes());
        packet.extend_from_slice(udp.as_slice());
        bytes_left.append(bytes, packet);
        write(packet, datagrams)?;
    }
    Ok(0)
}

impl AsRawFd for Offload {
    fn as_raw_fd(&self) -> RawFd {
        self.tun.as_raw_fd()
    }
}

impl Drop for Offload {
    fn drop(&mut self) {
        // A persistent device would keep its offloads for the next user; a shared one needs them for
        // the remaining users.
        if !self.shared {
            let _ = ioctl::clear_offloads(&self.tun);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::flight::{Ecn, sample_path};
    use crate::wire::ip::{Checksum, IpView, parse_udp};
    use crate::wire::payload::{Gathered, Pool};

    fn flight(v6: bool, segment: usize, payload: &[u8], ranges: usize) -> Flight {
        let path = sample_path(v6);
        let mut gathered = Gathered::default();
        gathered.room(payload.len()).copy_from_slice(payload);
        let each = payload.len().div_ceil(ranges.max(1)).max(1);
        for at in (0..payload.len()).step_by(each) {
            // One byte of each part as a head, the rest of the body.
            gathered.heads().push(payload[at]);
            gathered.refer(at + 1, each.min(payload.len() - at) - 1);
        }
        let payload = Pool::default().lend(&mut gathered);
        Flight {
            path,
            ecn: Ecn::Ect0,
            segment,
            payload,
        }
    }

    /// Returns the datagrams that a reader receives of a flight, by packet, and the number not
    /// sent.
    fn received(flight: &Flight, mtu: usize) -> (Vec<Vec<Vec<u8>>>, usize) {
        let mut packets = Vec::new();
        let unsent = joined(flight, mtu, &mut Vec::new(), |written, datagrams| {
            let (head, packet) = written.split_first_chunk().unwrap();
            let mut packet = packet.to_vec();
            let segment = VirtioHeader::from_bytes(*head).apply(&mut packet).unwrap();
            assert!(packet.len() <= MAX_JOINED_BYTES);
            let ip = IpView::parse(&packet).unwrap();
            let udp = match segment {
                None => parse_udp(&packet).unwrap().unwrap(),
                Some(_) => ip.udp(Checksum::Trusted).unwrap(),
            };
            assert_eq!((udp.path, udp.ecn), (flight.path, flight.ecn));
            let of_packet: Vec<Vec<u8>> = udp.datagrams(segment).map(<[u8]>::to_vec).collect();
            assert_eq!(of_packet.len(), datagrams);
            assert!(datagrams <= MAX_SEGMENTS);
            packets.push(of_packet);
            Ok(())
        });
        (packets, unsent.unwrap())
    }

    proptest! {
        #[test]
        fn a_flight_arrives_as_its_datagrams(
            v6: bool, segment in 1..1452_usize, len in 1..80_000_usize, ranges in 1..100_usize, seed: u8,
        ) {
            let payload: Vec<u8> = (0..len).map(|at| (at % 251) as u8 ^ seed).collect();
            let flight = flight(v6, segment, &payload, ranges);
            let (packets, unsent) = received(&flight, 1500);
            prop_assert_eq!(unsent, 0);
            let got: Vec<Vec<u8>> = packets.into_iter().flatten().collect();
            let want: Vec<Vec<u8>> = payload.chunks(segment).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn flights_are_split_at_the_bounds() {
        let sizes = |segment, len| {
            let (packets, unsent) = received(&flight(false, segment, &vec![1; len], 1), 1500);
            (packets.iter().map(Vec::len).collect::<Vec<_>>(), unsent)
        };
        assert_eq!(sizes(10, 10 * MAX_SEGMENTS), (vec![MAX_SEGMENTS], 0));
        assert_eq!(sizes(10, 10 * MAX_SEGMENTS + 1), (vec![MAX_SEGMENTS, 1], 0));
        assert_eq!(
            sizes(1472, 1472 * 44),
            (vec![44], 0),
            "the largest flight of a server"
        );
        assert_eq!(
            sizes(1472, 1472 * 45),
            (vec![44, 1], 0),
            "45 would be 66,268 bytes"
        );
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let unsent = |segment, len| received(&flight(false, segment, &vec![1; len], 1), 1500).1;
        assert_eq!(unsent(1473, 5000), 4, "longer than the MTU");
        assert_eq!(unsent(1473, 1472), 0, "the only datagram is not");
        assert_eq!(unsent(1472, 1472), 0);
    }
}
