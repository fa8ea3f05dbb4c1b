//! Target of `host`: a whole server machine that gets IP packets, sound ones and damaged ones.
//!
//! In: any bytes, read as a list of packets: raw ones, real ones that are altered, and the segments
//! of a TCP connection that is really opened. Laws: nothing panics; every packet is counted; each
//! packet elicits at most three times its bytes, unless a TCP handshake was completed; output is
//! well-formed and not longer than the MTU.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use headwater::internals::host::config::ServerHostConfig;
use headwater::internals::host::server::ServerHost;
use headwater::internals::host::{Machine, Transmit};
use headwater::internals::time::{Instant, Now, UnixMillis};
use headwater::internals::wire::flight::{Ecn, UdpPath};
use headwater::internals::wire::ip::{self, IpView, MAX_PACKET};

use super::input::{Input, mutate};
use super::packets::{payload_of, repair};
use super::session::{Bytes, START_UNIX, keys, transcript};

/// Most packets that one input sends.
const MAX_PACKETS: usize = 64;

const MTU: u16 = 1500;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PUSH: u8 = 8;
const ACK: u8 = 16;

/// A TCP peer as simple as can be: it acknowledges the last segment it saw.
struct Peer {
    address: SocketAddr,
    server: SocketAddr,
    next: u32,
    acknowledged: u32,
}

struct World {
    now: Now,
    host: ServerHost<Bytes>,
    peers: Vec<Peer>,
    packets: u64,
    /// A client has completed a TCP handshake, so more may be sent than came.
    connected: bool,
}

/// A server machine in a hostile network.
pub fn host(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    for _ in 0..MAX_PACKETS {
        if input.is_empty() {
            break;
        }
        let mut packet = world.packet(&mut input);
        match input.u8() % 8 {
            0 => mutate(&mut input, &mut packet),
            1 => {
                mutate(&mut input, &mut packet);
                repair(&mut packet);
            }
            2 => {
                for _ in 0..8 {
                    mutate(&mut input, &mut packet);
                }
                repair(&mut packet);
            }
            _ => {}
        }
        world.deliver(&packet);
        if input.u8() == 0 {
            world.wait(Duration::from_millis(u64::from(input.u8()) * 50));
        }
    }
    // Whatever was begun comes to an end: no connection outlives its timers.
    for _ in 0..200 {
        world.wait(Duration::from_secs(5));
    }
    assert_eq!(
        world.metric("headwater_tcp_connections"),
        0,
        "a connection for ever"
    );
}

impl World {
    fn new() -> Self {
        let now = Now {
            instant: Instant::from_micros(1_000_000),
            unix: UnixMillis::new(START_UNIX),
        };
        let addresses = [
            IpAddr::from([10, 0, 0, 2]),
            "fd00::2".parse().expect("an address"),
        ];
        let config = ServerHostConfig::builder(addresses, 1)
            .mtu(MTU)
            .site_id(2)
            .build()
            .expect("a sound configuration");
        let host = ServerHost::new(now, config, keys(), Bytes).expect("a sound configuration");
        let peer = |address: &str, server: &str| Peer {
            address: address.parse().expect("an address"),
            server: server.parse().expect("an address"),
            next: 1000,
            acknowledged: 0,
        };
        let peers = vec![
            peer("10.0.0.9:4000", "10.0.0.2:80"),
            peer("[fd00::9]:4000", "[fd00::2]:80"),
        ];
        Self {
            now,
            host,
            peers,
            packets: 0,
            connected: false,
        }
    }

    /// A packet to begin with.
    fn packet(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        match input.u8() % 6 {
            0 => {
                let count = input.below(1600);
                input.take(count).to_vec()
            }
            1 | 2 => {
                let sent = &transcript().to_server;
                let sent = &sent[input.below(sent.len())];
                self.now = Now {
                    unix: sent.now.unix,
                    ..self.now
                };
                udp(sent.path, &sent.datagram)
            }
            3 => echo(input),
            _ => {
                let count = input.below(2);
                let peer = &mut self.peers[count];
                let flags = [
                    SYN,
                    ACK,
                    ACK | PUSH,
                    ACK | FIN,
                    RST,
                    RST | ACK,
                    ACK | PUSH,
                    input.u8(),
                ];
                let flags = flags[input.below(flags.len())];
                let body: &[u8] = match input.u8() % 4 {
                    0 => b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
                    1 => b"9999",
                    2 => input.take(100),
                    _ => b"",
                };
                let body = if flags & PUSH == 0 { &[] } else { body };
                self.connected |= flags & ACK != 0;
                peer.segment(flags, input.u16(), body)
            }
        }
    }

    fn deliver(&mut self, packet: &[u8]) {
        let answered = self.answers();
        assert_eq!(answered, 0, "everything was taken away before");
        let before = self.accounted();
        self.host.handle_packet(self.now, packet, None);
        self.packets += 1;
        let taken = matches!(payload_of(packet), Some((_, TCP | ICMP | ICMPV6)));
        let counted = self.accounted() - before;
        assert!(
            counted == 1 || counted == 0 && taken,
            "counted {counted} times"
        );
        assert_eq!(
            self.metric("headwater_ip_packets_received_total"),
            self.packets
        );
        let answered = self.answers();
        let known = self.connected || real_sender(packet);
        assert!(
            known || answered <= 3 * packet.len(),
            "{answered} for {}",
            packet.len()
        );
    }

    /// Drains the machine's output; returns its bytes.
    fn answers(&mut self) -> usize {
        let mut total = 0;
        while let Some(transmit) = self.host.poll_transmit(self.now) {
            let packets = match transmit {
                Transmit::Packet(packet) => vec![packet],
                segments @ Transmit::Segments { .. } => segments.into_packets().expect("segments"),
                Transmit::Flight(flight) => flight
                    .datagrams()
                    .map(|datagram| udp(flight.path, &datagram))
                    .collect(),
            };
            for packet in packets {
                total += packet.len();
                assert!(packet.len() <= usize::from(MTU), "{} bytes", packet.len());
                let view = IpView::parse(&packet).expect("what is sent is sound");
                assert!(view.checksum_holds());
                self.peers.iter_mut().for_each(|peer| peer.observe(&packet));
            }
            assert!(total < 1 << 30, "it sends for ever");
        }
        total
    }

    /// Lets time go by, with all timers in it.
    fn wait(&mut self, time: Duration) {
        let end = self.now.instant + time;
        for _ in 0..10_000 {
            self.answers();
            let Some((at, _)) = self.host.poll_timeout(self.now) else {
                break;
            };
            if at > end {
                break;
            }
            self.now.instant = self.now.instant.max(at);
            self.host.handle_timeout(self.now);
        }
        self.now.instant = self.now.instant.max(end);
        self.answers();
    }

    /// Packets that were dropped, or answered by the transport.
    fn accounted(&self) -> u64 {
        let counters = self.host.server().counters();
        let drops: u64 = counters.drops().iter().map(|(_, count)| count).sum();
        let answered = counters.opens + counters.requests + counters.challenges;
        self.host.stack_counters().drops.total() + drops + answered
    }

    fn metric(&self, name: &str) -> u64 {
        let metrics = self.host.metrics();
        let metric = metrics
            .iter()
            .find(|metric| metric.name == name)
            .expect("the metric");
        metric.samples.iter().map(|sample| sample.value).sum()
    }
}

/// Whether the packet says it comes from an address that took part in the transcript.
fn real_sender(packet: &[u8]) -> bool {
    let real = |src| {
        transcript()
            .to_server
            .iter()
            .any(|sent| sent.path.src.ip() == src)
    };
    IpView::parse(packet).is_ok_and(|view| real(view.src))
}

fn udp(path: UdpPath, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; MAX_PACKET];
    let length = ip::emit_udp(path, Ecn::Ect0, payload, 1, &mut packet).expect("it fits");
    packet.truncate(length);
    packet
}

/// An echo request.
fn echo(input: &mut Input<'_>) -> Vec<u8> {
    let ipv6 = input.u8() & 1 == 1;
    let (src, dst) = match ipv6 {
        false => ("10.0.0.9:1", "10.0.0.2:1"),
        true => ("[fd00::9]:1", "[fd00::2]:1"),
    };
    let path = UdpPath {
        src: src.parse().expect("an address"),
        dst: dst.parse().expect("an address"),
    };
    let body = input.take(60).to_vec();
    let mut packet = udp(path, &body);
    let (payload, _) = payload_of(&packet).expect("a packet");
    packet[if ipv6 { 6 } else { 9 }] = if ipv6 { 58 } else { 1 };
    packet[payload] = if ipv6 { 128 } else { 8 };
    packet[payload + 1] = 0;
    repair(&mut packet);
    packet
}

impl Peer {
    fn segment(&mut self, flags: u8, window: u16, body: &[u8]) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend(self.next.to_be_bytes());
        segment.extend(self.acknowledged.to_be_bytes());
        segment.extend([5 << 4, flags]);
        segment.extend(window.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(body);
        let path = UdpPath {
            src: self.address,
            dst: self.server,
        };
        // Ports stand where UDP has them; the rest of the UDP header gives way.
        let mut packet = udp(path, &segment);
        let (payload, _) = payload_of(&packet).expect("a packet");
        packet.drain(payload + 4..payload + 8);
        packet[if self.address.is_ipv6() { 6 } else { 9 }] = TCP;
        repair(&mut packet);
        let counted = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.next = self.next.wrapping_add(body.len() as u32 + counted);
        packet
    }

    /// Records the next acknowledgement from a segment to this peer.
    fn observe(&mut self, packet: &[u8]) {
        let Ok(view) = IpView::parse(packet) else {
            return;
        };
        let Some(segment) = view.payload.first_chunk::<20>() else {
            return;
        };
        if view.protocol != TCP || view.dst != self.address.ip() {
            return;
        }
        let number = |at: usize| {
            u32::from_be_bytes([
                segment[at],
                segment[at + 1],
                segment[at + 2],
                segment[at + 3],
            ])
        };
        let flags = segment[13];
        let body = view.payload.len() - usize::from(segment[12] >> 4) * 4;
        let counted = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.acknowledged = number(4).wrapping_add(body as u32 + counted);
        if flags & SYN != 0 {
            self.next = number(8);
        }
    }
}
