//! Tests of the stack, with hand-made packets.

use etherparse::PacketBuilder;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::wire::flight::Ecn;
use crate::wire::ip::tcp::JoinedTcp;
use crate::wire::ip::{MAX_PACKET, emit_udp};

mod crowd;
mod tcp;

const SERVER4: &str = "10.0.0.1";
const CLIENT4: &str = "10.0.0.2";
const SERVER6: &str = "fd00::1";
const CLIENT6: &str = "fd00::2";

fn stack(addresses: &[&str], seed: u64) -> Stack {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let config = StackConfig {
        addresses,
        mtu: 1500,
        transport_ports: 7600..=7609,
        seed,
    };
    Stack::new(Instant::ZERO, config).unwrap()
}

fn server() -> Stack {
    let mut stack = stack(&[SERVER4, SERVER6, "10.0.0.9"], 1);
    stack.listen(80).unwrap();
    stack
}

fn client() -> Stack {
    stack(&[CLIENT4, CLIENT6], 2)
}

fn octets4(text: &str) -> [u8; 4] {
    text.parse::<std::net::Ipv4Addr>().unwrap().octets()
}

fn octets6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

fn built<F: FnOnce(&mut Vec<u8>)>(write: F) -> Vec<u8> {
    let mut packet = Vec::new();
    write(&mut packet);
    packet
}

fn echo4(payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(octets4(CLIENT4), octets4(SERVER4), 9);
    built(|out| {
        builder
            .icmpv4_echo_request(77, 3)
            .write(out, payload)
            .unwrap()
    })
}

fn echo6(payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ipv6(octets6(CLIENT6), octets6(SERVER6), 9);
    built(|out| {
        builder
            .icmpv6_echo_request(77, 3)
            .write(out, payload)
            .unwrap()
    })
}

fn tcp4(from: &str, to: &str, ports: (u16, u16), syn: bool) -> Vec<u8> {
    let builder = PacketBuilder::ipv4(octets4(from), octets4(to), 9);
    let builder = builder.tcp(ports.0, ports.1, 1000, 4096);
    built(|out| {
        if syn {
            builder.syn().write(out, &[])
        } else {
            builder.ack(1).write(out, &[])
        }
        .unwrap();
    })
}

fn udp(from: &str, to: &str) -> Vec<u8> {
    let path = UdpPath {
        src: from.parse().unwrap(),
        dst: to.parse().unwrap(),
    };
    let mut out = vec![0; MAX_PACKET];
    let len = emit_udp(path, Ecn::Ect0, b"datagram", 0, &mut out).unwrap();
    out.truncate(len);
    out
}

/// Returns the packets that a device without offloads would send.
fn single(packet: StackPacket) -> Vec<Vec<u8>> {
    let StackPacket { bytes, segment } = packet;
    match segment {
        None => vec![bytes],
        Some(segment) => {
            assert!(bytes.len() <= MAX_COALESCED_BYTES);
            JoinedTcp::parse(&bytes, segment)
                .unwrap()
                .packets()
                .unwrap()
        }
    }
}

/// Drains the stack's output; every checksum must be valid.
fn transmitted(stack: &mut Stack, now: Instant) -> Vec<Vec<u8>> {
    let packets: Vec<_> = std::iter::from_fn(|| stack.poll_transmit(now)).collect();
    let packets: Vec<_> = packets.into_iter().flat_map(single).collect();
    for packet in &packets {
        assert!(packet.len() <= 1500);
        assert!(IpView::parse(packet).unwrap().checksum_holds());
    }
    packets
}

#[test]
fn echo_is_answered() {
    for (name, request, reply_type) in [
        ("IPv4", echo4(b"are you there?"), 0),
        ("IPv6", echo6(b"are you there?"), 129),
    ] {
        let mut stack = server();
        assert_eq!(
            stack.handle_packet(Instant::ZERO, &request, None),
            Demuxed::Taken,
            "{name}"
        );
        let replies = transmitted(&mut stack, Instant::ZERO);
        assert_eq!(replies.len(), 1, "{name}");
        let (asked, got) = (
            IpView::parse(&request).unwrap(),
            IpView::parse(&replies[0]).unwrap(),
        );
        assert_eq!((got.src, got.dst), (asked.dst, asked.src), "{name}");
        assert_eq!(got.payload[0], reply_type, "{name}");
        assert_eq!(got.payload[4..], asked.payload[4..], "{name}");
        assert_eq!(stack.poll_timeout(Instant::ZERO), None, "{name}");
    }
}

#[test]
fn the_transport_gets_its_datagrams_where_they_lie() {
    let mut stack = server();
    for (from, to) in [
        ("10.0.0.2:5", "10.0.0.9:7600"),
        ("[fd00::2]:5", "[fd00::1]:7609"),
    ] {
        let packet = udp(from, to);
        let Demuxed::Transport(view) = stack.handle_packet(Instant::ZERO, &packet, None) else {
            panic!("{from} to {to}");
        };
        assert_eq!(
            view.path,
            UdpPath {
                src: from.parse().unwrap(),
                dst: to.parse().unwrap()
            }
        );
        assert_eq!(view.payload.as_ptr(), packet[packet.len() - 8..].as_ptr());
        assert_eq!(view.ecn, Ecn::Ect0);
    }
    assert_eq!(stack.counters().packets_in, 2);
    assert_eq!(stack.counters().drops.total(), 0);
}

/// A packet for each drop reason except the two of full tables.
fn undesirables() -> Vec<(DropReason, Vec<u8>)> {
    use DropReason as R;
    let change = |mut packet: Vec<u8>, at: usize, to: u8| {
        packet[at] = to;
        packet
    };
    let good = || udp("10.0.0.2:5", "10.0.0.1:7600");
    let good6 = || udp("[fd00::2]:5", "[fd00::1]:7600");
    let fragment = built(|out| {
        let builder = PacketBuilder::ip(etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header {
                more_fragments: true,
                source: octets4(CLIENT4),
                destination: octets4(SERVER4),
                ..Default::default()
            },
            etherparse::Ipv4Extensions::default(),
        ));
        builder.udp(5, 7600).write(out, &[1]).unwrap();
    });
    let protocol = built(|out| {
        let builder = PacketBuilder::ipv4(octets4(CLIENT4), octets4(SERVER4), 9);
        builder.write(out, IpNumber(132), &[0; 20]).unwrap();
    });
    let reply = built(|out| {
        let builder = PacketBuilder::ipv4(octets4(CLIENT4), octets4(SERVER4), 9);
        builder.icmpv4_echo_reply(1, 1).write(out, &[]).unwrap();
    });
    let mut unchecked = good6();
    unchecked[46..48].fill(0);
    let tcp = tcp4(CLIENT4, SERVER4, (9, 80), true);
    vec![
        (R::Truncated, good()[..30].to_vec()),
        (R::BadVersion, change(good(), 0, 0x75)),
        (R::BadLength, change(good6(), 45, 9)),
        (R::BadHeaderChecksum, change(good(), 8, 1)),
        (R::Fragment, fragment),
        (R::UnsupportedExtension, change(good6(), 6, 60)),
        (R::BadUdpChecksum, change(good(), 30, 0)),
        (R::NoUdpChecksum, unchecked),
        (R::BadTcp, change(tcp, 24, 99)),
        (R::BadIcmp, change(echo6(b"x"), 48, b'y')),
        (R::Oversized, echo4(&[0; 1473])),
        (R::ForeignDestination, udp("10.0.0.2:5", "10.0.0.3:7600")),
        (R::ForeignDestination, udp("[fd00::2]:5", "[ff02::1]:7600")),
        (R::BadSource, udp("224.0.0.1:5", "10.0.0.1:7600")),
        (R::BadSource, udp("10.0.0.9:5", "10.0.0.1:7600")),
        (R::BadSource, udp("10.0.0.2:0", "10.0.0.1:7600")),
        (R::BadSource, udp("255.255.255.255:5", "10.0.0.1:7600")),
        (R::UnknownUdpPort, udp("10.0.0.2:5", "10.0.0.1:7610")),
        (R::UnknownUdpPort, udp("[fd00::2]:5", "[fd00::1]:53")),
        (R::IcmpNotEcho, reply),
        (R::UnknownProtocol, protocol),
    ]
}

#[test]
fn every_undesirable_packet_is_a_counted_drop() {
    let mut stack = server();
    let mut reasons: Vec<_> = Vec::new();
    for (reason, packet) in undesirables() {
        let before = stack.counters().drops.of(reason);
        let got = stack.handle_packet(Instant::ZERO, &packet, None);
        assert_eq!(got, Demuxed::Dropped(reason));
        assert_eq!(stack.counters().drops.of(reason), before + 1);
        assert_eq!(
            stack.poll_transmit(Instant::ZERO),
            None,
            "{reason:?} was answered"
        );
        reasons.push(reason);
    }
    assert_eq!(
        stack.counters().drops.total(),
        u64::try_from(reasons.len()).unwrap()
    );
    let full = [DropReason::ConnectionsFull, DropReason::QueueFull];
    for reason in DropReason::ALL {
        assert!(
            reasons.contains(&reason) || full.contains(&reason),
            "{reason:?} untested"
        );
    }
}

#[test]
fn a_packet_of_the_mtu_passes() {
    let mut stack = server();
    let packet = echo4(&[0; 1472]);
    assert_eq!(packet.len(), 1500);
    assert_eq!(
        stack.handle_packet(Instant::ZERO, &packet, None),
        Demuxed::Taken
    );
    assert_eq!(transmitted(&mut stack, Instant::ZERO)[0].len(), 1500);
}

#[test]
fn the_device_answers_for_joined_segments() {
    let mut stack = server();
    // The sequence number, and with it the checksum, differs from the written one.
    let mut syn = tcp4(CLIENT4, SERVER4, (9, 80), true);
    syn[24] = 99;
    let alone = stack.handle_packet(Instant::ZERO, &syn, None);
    assert_eq!(alone, Demuxed::Dropped(DropReason::BadTcp));
    let joined = stack.handle_packet(Instant::ZERO, &syn, Some(1460));
    assert_eq!(joined, Demuxed::Taken);
    assert_eq!(transmitted(&mut stack, Instant::ZERO).len(), 1, "SYN, ACK");
}

#[test]
fn a_joined_packet_may_exceed_the_mtu() {
    let mut stack = server();
    let path = UdpPath {
        src: "10.0.0.2:5".parse().unwrap(),
        dst: "10.0.0.1:7600".parse().unwrap(),
    };
    let mut packet = vec![0; MAX_PACKET];
    let len = emit_udp(path, Ecn::NotEct, &[1; 4000], 0, &mut packet).unwrap();
    let got = stack.handle_packet(Instant::ZERO, &packet[..len], Some(1400));
    assert!(matches!(got, Demuxed::Transport(view) if view.payload.len() == 4000));
    let got = stack.handle_packet(Instant::ZERO, &packet[..len], None);
    assert_eq!(got, Demuxed::Dropped(DropReason::Oversized));
}

#[test]
fn answers_that_nobody_takes_away_are_bounded() {
    let mut stack = server();
    let request = echo4(b"x");
    for _ in 0..MAX_QUEUED_PACKETS {
        assert_eq!(
            stack.handle_packet(Instant::ZERO, &request, None),
            Demuxed::Taken
        );
    }
    let got = stack.handle_packet(Instant::ZERO, &request, None);
    assert_eq!(got, Demuxed::Dropped(DropReason::QueueFull));
    assert_eq!(
        transmitted(&mut stack, Instant::ZERO).len(),
        MAX_QUEUED_PACKETS
    );
    assert_eq!(
        stack.handle_packet(Instant::ZERO, &request, None),
        Demuxed::Taken
    );
}

#[test]
fn setups_that_cannot_be_are_refused() {
    let make = |addresses: Vec<IpAddr>| {
        let config = StackConfig {
            addresses,
            mtu: 1500,
            transport_ports: 1..=1,
            seed: 0,
        };
        Stack::new(Instant::ZERO, config).map(drop)
    };
    for text in ["224.0.0.1", "0.0.0.0", "255.255.255.255", "::", "ff02::1"] {
        let address = text.parse().unwrap();
        assert_eq!(
            make(vec![address]),
            Err(StackError::NotUnicast { address }),
            "{text}"
        );
    }
    let many = |count: u8| (1..=count).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    assert_eq!(make(many(8)), Ok(()));
    assert_eq!(
        make(many(9)),
        Err(StackError::TooManyAddresses { count: 9 })
    );
    let mut stack = server();
    assert_eq!(stack.listen(0), Err(StackError::CannotListen { port: 0 }));
    for port in [80, 81, 82, 83, 80] {
        assert_eq!(stack.listen(port), Ok(()));
    }
    assert_eq!(stack.listen(84), Err(StackError::CannotListen { port: 84 }));
}

#[test]
fn random_packets_never_panic() {
    let mut random = rand::rngs::ChaCha8Rng::seed_from_u64(3);
    let mut stack = server();
    let seeds: Vec<Vec<u8>> = undesirables()
        .into_iter()
        .map(|(_, packet)| packet)
        .collect();
    for round in 0..20_000_u64 {
        let mut packet = seeds[random.random_range(0..seeds.len())].clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..packet.len());
            packet[at] = random.random();
        }
        let now = Instant::from_micros(round * 1000);
        let _ = stack.handle_packet(now, &packet, None);
        while stack.poll_transmit(now).is_some() {}
        while stack.poll_event().is_some() {}
    }
}
