//! UDP datagrams to IP packets and back, for the simulated network.
//!
//! Checksums are always computed and always verified: a packet that a link damaged is not a
//! datagram. Nothing here panics on any bytes.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    IpEcn, IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, NetSlice, SlicedPacket,
    TransportSlice, UdpHeader,
};

use crate::wire::flight::{Ecn, UdpPath};

/// A UDP datagram inside an IP packet whose checksums are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram<'a> {
    pub(super) path: UdpPath,
    pub(super) ecn: Ecn,
    pub(super) payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads a whole IP packet; `None` if it is anything but an intact, unfragmented UDP datagram.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let sliced = SlicedPacket::from_ip(packet).ok()?;
        let TransportSlice::Udp(udp) = sliced.transport? else {
            return None;
        };
        let header = udp.to_header();
        if header.checksum == 0 || usize::from(header.length) != udp.slice().len() {
            return None;
        }
        let (src, dst, ecn, want) = match sliced.net? {
            NetSlice::Ipv4(ip) => {
                let (slice, ip) = (ip.header(), ip.header().to_header());
                if ip.calc_header_checksum() != slice.header_checksum() {
                    return None;
                }
                let want = header.calc_checksum_ipv4(&ip, udp.payload()).ok()?;
                let (src, dst) = (slice.source_addr(), slice.destination_addr());
                (IpAddr::V4(src), IpAddr::V4(dst), ip.ecn.value(), want)
            }
            NetSlice::Ipv6(ip) => {
                let (slice, ip) = (ip.header(), ip.header().to_header());
                let want = header.calc_checksum_ipv6(&ip, udp.payload()).ok()?;
                let (src, dst) = (slice.source_addr(), slice.destination_addr());
                (IpAddr::V6(src), IpAddr::V6(dst), ip.traffic_class, want)
            }
            NetSlice::Arp(_) => return None,
        };
        (want == header.checksum).then(|| Self {
            path: UdpPath {
                src: SocketAddr::new(src, header.source_port),
                dst: SocketAddr::new(dst, header.destination_port),
            },
            ecn: Ecn::from_bits(ecn),
            payload: udp.payload(),
        })
    }

    /// The IP packet; `None` if the addresses are of two families or the payload is too long.
    pub(super) fn packet(&self) -> Option<Vec<u8>> {
        let (from, to) = (self.path.src.port(), self.path.dst.port());
        let length = UdpHeader::LEN + self.payload.len();
        let (ip, udp) = match (self.path.src.ip(), self.path.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let length = u16::try_from(length).ok()?;
                let (src, dst) = (src.octets(), dst.octets());
                let mut ip = Ipv4Header::new(length, HOP_LIMIT, IpNumber::UDP, src, dst).ok()?;
                ip.ecn = IpEcn::try_new(self.ecn.bits()).ok()?;
                ip.dont_fragment = true;
                ip.header_checksum = ip.calc_header_checksum();
                let udp = UdpHeader::with_ipv4_checksum(from, to, &ip, self.payload).ok()?;
                (IpHeaders::Ipv4(ip, Default::default()), udp)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let ip = Ipv6Header {
                    traffic_class: self.ecn.bits(),
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: u16::try_from(length).ok()?,
                    next_header: IpNumber::UDP,
                    hop_limit: HOP_LIMIT,
                    source: src.octets(),
                    destination: dst.octets(),
                };
                let udp = UdpHeader::with_ipv6_checksum(from, to, &ip, self.payload).ok()?;
                (IpHeaders::Ipv6(ip, Default::default()), udp)
            }
            (IpAddr::V4(_) | IpAddr::V6(_), _) => return None,
        };
        let mut out = Vec::with_capacity(ip.header_len() + length);
        ip.write(&mut out).ok()?;
        udp.write(&mut out).ok()?;
        out.extend_from_slice(self.payload);
        Some(out)
    }
}

/// Destination address of an IP packet of which nothing has been verified.
pub(super) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet
            .get(16..)?
            .first_chunk()
            .map(|to: &[u8; 4]| (*to).into()),
        6 => packet
            .get(24..)?
            .first_chunk()
            .map(|to: &[u8; 16]| (*to).into()),
        _ => None,
    }
}

const HOP_LIMIT: u8 = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(v6: bool) -> UdpPath {
        let ends = match v6 {
            false => ["10.1.0.9:4000", "10.0.0.1:80"],
            true => ["[fd01::9]:4000", "[fd00::1]:80"],
        };
        let [src, dst] = ends.map(|end| end.parse().unwrap());
        UdpPath { src, dst }
    }

    proptest! {
        #[test]
        fn what_was_emitted_parses(
            v6: bool,
            bits in 0u8..4,
            payload in prop::collection::vec(any::<u8>(), 0..1500),
        ) {
            let datagram =
                Datagram { path: path(v6), ecn: Ecn::from_bits(bits), payload: &payload };
            let packet = datagram.packet().unwrap();
            prop_assert_eq!(Datagram::parse(&packet), Some(datagram));
            prop_assert_eq!(destination(&packet), Some(path(v6).dst.ip()));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = (Datagram::parse(&bytes), destination(&bytes));
        }
    }

    #[test]
    fn a_damaged_payload_is_no_datagram() {
        for v6 in [false, true] {
            let datagram = Datagram {
                path: path(v6),
                ecn: Ecn::Ect0,
                payload: &[7; 100],
            };
            let mut packet = datagram.packet().unwrap();
            *packet.last_mut().unwrap() ^= 4;
            assert_eq!(Datagram::parse(&packet), None);
        }
    }

    #[test]
    fn two_families_make_no_path() {
        let path = UdpPath {
            src: path(false).src,
            dst: path(true).dst,
        };
        let datagram = Datagram {
            path,
            ecn: Ecn::NotEct,
            payload: &[],
        };
        assert_eq!(datagram.packet(), None);
    }
}
