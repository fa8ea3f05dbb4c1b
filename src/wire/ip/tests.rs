//! Tests of the IP and UDP headers: laws by proptest, rejections by table.

use proptest::prelude::*;

use super::*;

fn path_v4() -> UdpPath {
    UdpPath {
        src: "10.1.2.3:40000".parse().unwrap(),
        dst: "192.0.2.77:7600".parse().unwrap(),
    }
}

fn path_v6() -> UdpPath {
    UdpPath {
        src: "[2001:db8::1]:40000".parse().unwrap(),
        dst: "[2001:db8:ffff::9]:7600".parse().unwrap(),
    }
}

fn packet(path: UdpPath, ecn: Ecn, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; payload.len() + UDP6_HEADERS];
    let len = emit_udp(path, ecn, payload, 0x1234, &mut out).unwrap();
    out.truncate(len);
    out
}

fn any_path() -> impl Strategy<Value = UdpPath> {
    let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(a, b)| (a.into(), b.into()));
    let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(a, b)| (a.into(), b.into()));
    let pair = prop_oneof![v4, v6];
    (pair, any::<u16>(), any::<u16>()).prop_map(
        |((src, dst), from, to): ((IpAddr, IpAddr), _, _)| UdpPath {
            src: SocketAddr::new(src, from),
            dst: SocketAddr::new(dst, to),
        },
    )
}

/// RFC 1071 as in its §4.1: 16-bit big-endian words, an odd byte padded with zero.
fn reference_checksum(bytes: &[u8]) -> u16 {
    let mut total = 0_u32;
    for pair in bytes.chunks(2) {
        total += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
        total = (total & 0xffff) + (total >> 16);
    }
    !u16::try_from(total).unwrap()
}

proptest! {
    #[test]
    fn parse_undoes_emit(
        path in any_path(),
        ecn in 0_u8..4,
        payload in proptest::collection::vec(any::<u8>(), 0..1600),
    ) {
        let ecn = Ecn::from_bits(ecn);
        let packet = packet(path, ecn, &payload);
        let view = parse_udp(&packet).unwrap().unwrap();
        prop_assert_eq!(view, UdpView { path, ecn, payload: &payload });
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_udp(&bytes);
    }

    #[test]
    fn any_bytes_behind_a_sound_start_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 40..200),
        version in prop_oneof![Just(0x45_u8), Just(0x46), Just(0x4f), Just(0x60)],
    ) {
        bytes[0] = version;
        let _ = parse_udp(&bytes);
    }

    #[test]
    fn truncation_is_noticed(cut in 1_usize..140, v6 in any::<bool>()) {
        let packet = packet(if v6 { path_v6() } else { path_v4() }, Ecn::NotEct, &[7; 120]);
        let cut = cut.min(packet.len());
        prop_assert_eq!(parse_udp(&packet[..packet.len() - cut]), Err(Malformed::Truncated));
    }

    #[test]
    fn sum_is_that_of_the_rfc(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let ours = u16::from_be_bytes((!fold(sum(&bytes))).to_ne_bytes());
        prop_assert_eq!(ours, reference_checksum(&bytes));
    }

    #[test]
    fn agrees_with_etherparse(
        path in any_path(),
        payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let packet = packet(path, Ecn::Ect0, &payload);
        let sliced = etherparse::SlicedPacket::from_ip(&packet).unwrap();
        let Some(etherparse::TransportSlice::Udp(udp)) = sliced.transport else {
            return Err(TestCaseError::fail("not UDP"));
        };
        let header = udp.to_header();
        let want = match sliced.net.unwrap() {
            etherparse::NetSlice::Ipv4(ip) => {
                let ip = ip.header().to_header();
                prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                prop_assert!(ip.dont_fragment);
                header.calc_checksum_ipv4_raw(ip.source, ip.destination, &payload)
            }
            etherparse::NetSlice::Ipv6(ip) => {
                let ip = ip.header().to_header();
                header.calc_checksum_ipv6_raw(ip.source, ip.destination, &payload)
            }
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        prop_assert_eq!(header.checksum, want.unwrap());
    }
}

/// Every single bit flip is rejected or changes the protocol, except in the IPv6 fields that no
/// checksum covers: traffic class, flow label and hop limit (bytes 0 low half to 3, and 7).
#[test]
fn single_bit_flips_are_noticed() {
    for (name, path, uncovered) in [
        ("IPv4", path_v4(), &[][..]),
        ("IPv6", path_v6(), &[0, 1, 2, 3, 7][..]),
    ] {
        let sound = packet(path, Ecn::Ect0, b"payload of an odd length!");
        for bit in 0..sound.len() * 8 {
            let mut flipped = sound.clone();
            flipped[bit / 8] ^= 0x80 >> (bit % 8);
            let version_bit = bit < 4;
            let passes = matches!(parse_udp(&flipped), Ok(Some(_)));
            let may_pass = uncovered.contains(&(bit / 8)) && !version_bit;
            assert_eq!(passes, may_pass, "{name} bit {bit}");
        }
    }
}

/// With one bit set in a checksum field, flipping it makes the field zero, which means "none".
#[test]
fn a_flip_cannot_switch_the_checksum_off() {
    for path in [path_v4(), path_v6()] {
        let at = if path.src.is_ipv4() { 26 } else { 46 };
        let lone_bit = (0..=u16::MAX).find_map(|value| {
            let packet = packet(path, Ecn::NotEct, &value.to_be_bytes());
            (packet[at] == 0 && packet[at + 1] == 1).then_some(packet)
        });
        let mut packet = lone_bit.unwrap();
        assert!(parse_udp(&packet).is_ok());
        packet[at + 1] = 0;
        assert_eq!(parse_udp(&packet), Err(Malformed::NoUdpChecksum));
    }
}

#[test]
fn a_checksum_that_comes_out_zero_is_sent_as_ones() {
    let found = (0..=u16::MAX)
        .map(|value| packet(path_v4(), Ecn::NotEct, &value.to_be_bytes()))
        .find(|packet| packet[26..28] == [0xff, 0xff]);
    assert!(parse_udp(&found.unwrap()).unwrap().is_some());
}

fn rewritten(path: UdpPath, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut packet = packet(path, Ecn::NotEct, b"abcdefgh");
    change(&mut packet);
    if path.src.is_ipv4() && packet.len() >= 20 {
        packet[10..12].fill(0);
        let header = 4 * usize::from(packet[0] & 15).clamp(5, packet.len() / 4);
        let sum = reference_checksum(&packet[..header]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

fn assert_refused(rows: &[(&str, Vec<u8>, Malformed)]) {
    for (name, packet, want) in rows {
        assert_eq!(parse_udp(packet), Err(*want), "{name}");
    }
}

#[test]
fn ip_refusals_have_their_reason() {
    use Malformed as M;
    let v4 = |change: fn(&mut Vec<u8>)| rewritten(path_v4(), change);
    let v6 = |change: fn(&mut Vec<u8>)| rewritten(path_v6(), change);
    let mut header = packet(path_v4(), Ecn::NotEct, b"x");
    header[8] -= 1;
    assert_refused(&[
        ("empty", vec![], M::Truncated),
        ("version 5", v4(|p| p[0] = 0x55), M::BadVersion),
        ("header length 4 words", v4(|p| p[0] = 0x44), M::BadLength),
        ("total length below header", v4(|p| p[3] = 19), M::BadLength),
        (
            "total length beyond packet",
            v4(|p| p[3] = 200),
            M::Truncated,
        ),
        ("time to live changed", header, M::BadHeaderChecksum),
        ("more fragments", v4(|p| p[6] = 0x20), M::Fragment),
        ("fragment offset", v4(|p| p[7] = 1), M::Fragment),
        ("IPv6 fragment header", v6(|p| p[6] = 44), M::Fragment),
        ("IPv6 hop-by-hop", v6(|p| p[6] = 0), M::UnsupportedExtension),
    ]);
}

#[test]
fn udp_refusals_have_their_reason() {
    use Malformed as M;
    let v4 = |change: fn(&mut Vec<u8>)| rewritten(path_v4(), change);
    let v6 = |change: fn(&mut Vec<u8>)| rewritten(path_v6(), change);
    assert_refused(&[
        ("no room for the header", v4(|p| p[3] = 27), M::Truncated),
        ("length short", v4(|p| p[25] = 15), M::BadLength),
        ("length long", v6(|p| p[45] = 17), M::BadLength),
        (
            "no checksum, IPv6",
            v6(|p| p[46..48].fill(0)),
            M::NoUdpChecksum,
        ),
        (
            "no checksum, IPv4",
            v4(|p| p[26..28].fill(0)),
            M::NoUdpChecksum,
        ),
        ("payload", v4(|p| p[30] ^= 1), M::BadUdpChecksum),
    ]);
}

#[test]
fn other_protocols_and_padding_are_no_error() {
    let tcp = rewritten(path_v4(), |p| p[9] = 6);
    assert_eq!(parse_udp(&tcp), Ok(None));
    let mut padded = packet(path_v4(), Ecn::Ce, b"abc");
    padded.extend([0; 9]);
    let view = parse_udp(&padded).unwrap().unwrap();
    assert_eq!((view.payload, view.ecn), (&b"abc"[..], Ecn::Ce));
}

#[test]
fn options_are_skipped() {
    let mut bytes = packet(path_v4(), Ecn::NotEct, b"abc");
    bytes.splice(20..20, [1, 1, 1, 1]);
    bytes[0] = 0x46;
    bytes[3] += 4;
    bytes[10..12].fill(0);
    let sum = reference_checksum(&bytes[..24]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(parse_udp(&bytes).unwrap().unwrap().payload, b"abc");
}

#[test]
fn a_joined_packet_is_trusted() {
    let mut bytes = packet(path_v6(), Ecn::NotEct, b"abc");
    bytes[46..48].fill(0);
    let ip = IpView::parse(&bytes).unwrap();
    assert_eq!(ip.udp(Checksum::Verify), Err(Malformed::NoUdpChecksum));
    assert_eq!(ip.udp(Checksum::Trusted).unwrap().payload, b"abc");
}

#[test]
fn emit_errors_at_the_bounds() {
    let mut out = vec![0; MAX_PACKET];
    let emit =
        |path, len: usize, out: &mut [u8]| emit_udp(path, Ecn::NotEct, &vec![0; len], 0, out);
    assert_eq!(emit(path_v4(), 65_507, &mut out), Ok(65_535));
    assert_eq!(
        emit(path_v4(), 65_508, &mut out),
        Err(EmitError::TooLong { len: 65_508 })
    );
    assert_eq!(emit(path_v6(), 65_527, &mut out), Ok(MAX_PACKET));
    assert_eq!(
        emit(path_v6(), 65_528, &mut out),
        Err(EmitError::TooLong { len: 65_528 })
    );
    assert_eq!(emit(path_v4(), 10, &mut [0; 38]), Ok(38));
    assert_eq!(
        emit(path_v4(), 10, &mut [0; 37]),
        Err(EmitError::NoRoom { need: 38, have: 37 })
    );
    let mixed = UdpPath {
        src: path_v4().src,
        dst: path_v6().dst,
    };
    assert_eq!(emit(mixed, 1, &mut out), Err(EmitError::MixedFamilies));
}

#[test]
fn a_payload_holds_at_least_one_datagram() {
    let path = UdpPath {
        src: "10.0.0.1:1".parse().unwrap(),
        dst: "10.0.0.2:2".parse().unwrap(),
    };
    let cases: [(&str, &[u8], Option<usize>, &[usize]); 4] = [
        ("empty", &[], None, &[0]),
        ("alone", &[0; 5], None, &[5]),
        ("joined", &[0; 5], Some(2), &[2, 2, 1]),
        ("joined of nothing", &[0; 2], Some(0), &[1, 1]),
    ];
    for (name, payload, segment, want) in cases {
        let view = UdpView {
            path,
            ecn: Ecn::NotEct,
            payload,
        };
        let lengths: Vec<_> = view.datagrams(segment).map(<[u8]>::len).collect();
        assert_eq!(lengths, want, "{name}");
    }
}
