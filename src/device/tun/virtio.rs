//! The virtio network header before each packet of an offloading TUN device.
//!
//! In and out: its ten bytes, in native byte order, and their meaning for the packet behind. A
//! header that contradicts its packet is rejected: a local program with the right to write raw
//! packets can forge any.
//! Sources: include/uapi/linux/virtio_net.h and include/linux/virtio_net.h of Linux; Virtual I/O
//! Device (VIRTIO) 1.2, §5.1.6.

use etherparse::IpNumber;

use crate::wire::ip::{IpView, complete_checksum};

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 10;

/// The checksum field holds the sum over the pseudo-header only.
const NEEDS_CHECKSUM: u8 = 1;

const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
/// Set on TCP only: the first segment carries CWR. Does not affect segmentation.
const GSO_ECN: u8 = 0x80;

/// The header. Offsets count from the first byte of the IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct VirtioHeader {
    flags: u8,
    gso: u8,
    /// Bytes of all headers of the packet.
    headers: u16,
    /// Payload of each segment but the last, in bytes.
    segment: u16,
    checksum_start: u16,
    checksum_offset: u16,
}

/// The header does not fit its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidHeader;

impl VirtioHeader {
    /// Builds the header of a UDP packet whose IP header has `ip` bytes and whose checksum field
    /// holds the pseudo-header sum; `segment`: the payload of each datagram, if it holds several.
    pub(super) fn udp(ip: usize, segment: Option<usize>) -> Self {
        let small = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        Self {
            flags: NEEDS_CHECKSUM,
            gso: segment.map_or(GSO_NONE, |_| GSO_UDP),
            headers: small(ip + UDP_BYTES),
            segment: segment.map_or(0, small),
            checksum_start: small(ip),
            checksum_offset: UDP_CHECKSUM,
        }
    }

    /// Builds the header of a packet with several TCP segments of `segment` bytes each, whose checksum
    /// field holds the pseudo-header sum; `ip` and `tcp`: the bytes of its headers.
    pub(super) fn tcp(ip: usize, tcp: usize, v6: bool, segment: usize) -> Self {
        let small = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        Self {
            flags: NEEDS_CHECKSUM,
            gso: if v6 { GSO_TCP6 } else { GSO_TCP4 },
            headers: small(ip + tcp),
            segment: small(segment),
            checksum_start: small(ip),
            checksum_offset: TCP_CHECKSUM,
        }
    }

    /// Bytes of the longest packet that the kernel makes of a coalesced one.
    pub(super) fn datagram(self) -> usize {
        usize::from(self.headers) + usize::from(self.segment)
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let numbers = [
            self.headers,
            self.segment,
            self.checksum_start,
            self.checksum_offset,
        ];
        let all = [self.flags, self.gso]
            .into_iter()
            .chain(numbers.into_iter().flat_map(u16::to_ne_bytes));
        for (to, byte) in bytes.iter_mut().zip(all) {
            *to = byte;
        }
        bytes
    }

    pub(super) const fn from_bytes(bytes: [u8; HEADER_BYTES]) -> Self {
        let [flags, gso, h0, h1, s0, s1, c0, c1, o0, o1] = bytes;
        Self {
            flags,
            gso,
            headers: u16::from_ne_bytes([h0, h1]),
            segment: u16::from_ne_bytes([s0, s1]),
            checksum_start: u16::from_ne_bytes([c0, c1]),
            checksum_offset: u16::from_ne_bytes([o0, o1]),
        }
    }

    /// Completes the checksum of a single packet, and returns the segment size of a coalesced one.
    /// The kernel vouches for packets it coalesced: their checksums stay partial.
    pub(super) fn apply(self, packet: &mut [u8]) -> Result<Option<usize>, InvalidHeader> {
        let (version, protocol) = match self.gso & !GSO_ECN {
            GSO_NONE => return self.complete(packet).map(|()| None),
            GSO_UDP => (None, IpNumber::UDP),
            GSO_TCP4 => (Some(4), IpNumber::TCP),
            GSO_TCP6 => (Some(6), IpNumber::TCP),
            _ => return Err(InvalidHeader),
        };
        let ip = IpView::parse(packet).map_err(|_| InvalidHeader)?;
        let is_version = |version| {
            if ip.src.is_ipv4() {
                version == 4
            } else {
                version == 6
            }
        };
        let fits = ip.protocol == protocol.0 && version.is_none_or(is_version);
        match fits && self.segment > 0 {
            true => Ok(Some(usize::from(self.segment))),
            false => Err(InvalidHeader),
        }
    }

    /// Completes the checksum, over few bytes as a rule: long packets arrive coalesced.
    fn complete(self, packet: &mut [u8]) -> Result<(), InvalidHeader> {
        if self.flags & NEEDS_CHECKSUM == 0 {
            return Ok(());
        }
        let (start, offset) = (
            usize::from(self.checksum_start),
            usize::from(self.checksum_offset),
        );
        complete_checksum(packet, start, offset).ok_or(InvalidHeader)
    }
}

/// Bytes of a UDP header, and the offset of its checksum (RFC 768).
pub(super) const UDP_BYTES: usize = 8;
const UDP_CHECKSUM: u16 = 6;

/// The offset of the checksum in a TCP header (RFC 9293 §3.1).
const TCP_CHECKSUM: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::flight::{Ecn, sample_path};
    use crate::wire::ip::{UdpTemplate, parse_udp};

    fn template(v6: bool) -> UdpTemplate {
        UdpTemplate::new(sample_path(v6), Ecn::Ect0).unwrap()
    }

    fn little(header: VirtioHeader) -> [u8; HEADER_BYTES] {
        let mut bytes = header.to_bytes();
        if cfg!(target_endian = "big") {
            bytes[2..].chunks_mut(2).for_each(<[u8]>::reverse);
        }
        bytes
    }

    #[test]
    fn headers_are_the_bytes_the_kernel_knows() {
        let joined = VirtioHeader::udp(20, Some(1400));
        assert_eq!(little(joined), [1, 5, 28, 0, 0x78, 5, 20, 0, 6, 0]);
        let alone = VirtioHeader::udp(40, None);
        assert_eq!(little(alone), [1, 0, 48, 0, 0, 0, 40, 0, 6, 0]);
        let segments = VirtioHeader::tcp(20, 32, false, 1400);
        assert_eq!(little(segments), [1, 1, 52, 0, 0x78, 5, 20, 0, 16, 0]);
        let segments6 = VirtioHeader::tcp(40, 20, true, 1400);
        assert_eq!(little(segments6), [1, 4, 60, 0, 0x78, 5, 40, 0, 16, 0]);
        for header in [joined, alone, segments, segments6] {
            assert_eq!(VirtioHeader::from_bytes(header.to_bytes()), header);
        }
    }

    #[test]
    fn a_packet_alone_gets_its_checksum() {
        for v6 in [false, true] {
            for payload in [&b""[..], b"x", b"seven..", &[0xff; 600]] {
                let template = template(v6);
                let whole = template.packet(payload).unwrap();
                let mut packet = template.partial(payload.len()).unwrap().as_slice().to_vec();
                packet.extend(payload);
                assert!(parse_udp(&packet).is_err() || packet == whole);
                let ip = template.headers_len() - UDP_BYTES;
                assert_eq!(VirtioHeader::udp(ip, None).apply(&mut packet), Ok(None));
                assert_eq!(packet, whole);
                assert_eq!(
                    VirtioHeader::default().apply(&mut packet),
                    Ok(None),
                    "nothing to do"
                );
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let packet = template(false).packet(&[7; 100]).unwrap();
        let joined = VirtioHeader::udp(20, Some(40));
        let alone = VirtioHeader::udp(20, None);
        let gso = |gso| VirtioHeader { gso, ..joined };
        for (name, header, want) in [
            ("joined", joined, Ok(Some(40))),
            ("not even ECN", gso(GSO_UDP | GSO_ECN), Ok(Some(40))),
            ("TCP over UDP", gso(GSO_TCP4), Err(InvalidHeader)),
            ("of the other version", gso(GSO_TCP6), Err(InvalidHeader)),
            ("UDP fragmentation", gso(3), Err(InvalidHeader)),
            (
                "no segment",
                VirtioHeader {
                    segment: 0,
                    ..joined
                },
                Err(InvalidHeader),
            ),
            (
                "checksum beyond the end",
                VirtioHeader {
                    checksum_start: 127,
                    ..alone
                },
                Err(InvalidHeader),
            ),
            (
                "checksum far beyond",
                VirtioHeader {
                    checksum_start: 65535,
                    checksum_offset: 65535,
                    ..alone
                },
                Err(InvalidHeader),
            ),
        ] {
            assert_eq!(header.apply(&mut packet.clone()), want, "{name}");
        }
        assert_eq!(
            joined.apply(&mut [0x45; 9]),
            Err(InvalidHeader),
            "no packet"
        );
        let mut tcp = packet;
        // Protocol UDP to TCP: 11 less in the sum, so 11 more in the header checksum.
        tcp[9] = IpNumber::TCP.0;
        let sum = u16::from_be_bytes([tcp[10], tcp[11]]) + 11;
        tcp[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(joined.apply(&mut tcp), Err(InvalidHeader), "UDP over TCP");
        assert_eq!(gso(GSO_TCP4 | GSO_ECN).apply(&mut tcp), Ok(Some(40)));
    }
}
