//! Tests of the stack: packets by hand, and two stacks back to back with a lossy wire between.

use std::collections::VecDeque;

use etherparse::PacketBuilder;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::wire::flight::Ecn;
use crate::wire::ip::{MAX_PACKET, emit_udp};

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

/// Takes what the stack has to send; every packet's checksums must hold.
fn transmitted(stack: &mut Stack, now: Instant) -> Vec<Vec<u8>> {
    let packets: Vec<_> = std::iter::from_fn(|| stack.poll_transmit(now)).collect();
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

/// A packet that is dropped for each reason but the two of full tables.
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

/// Two stacks with a wire of some delay between, and virtual time.
struct Wire {
    now: Instant,
    ends: [Stack; 2],
    flying: VecDeque<(Instant, usize, Vec<u8>)>,
    loss: f64,
    random: rand::rngs::ChaCha8Rng,
}

const DELAY: std::time::Duration = std::time::Duration::from_millis(5);

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Wire {
    fn new(loss: f64) -> Self {
        let random = rand::rngs::ChaCha8Rng::seed_from_u64(7);
        Self {
            now: Instant::ZERO,
            ends: [client(), server()],
            flying: VecDeque::new(),
            loss,
            random,
        }
    }

    fn connect(&mut self, address: &str) -> TcpId {
        self.ends[CLIENT]
            .connect(self.now, SocketAddr::new(address.parse().unwrap(), 80))
            .unwrap()
    }

    fn send_all(&mut self) {
        for end in [CLIENT, SERVER] {
            for packet in transmitted(&mut self.ends[end], self.now) {
                if !self.random.random_bool(self.loss) {
                    self.flying.push_back((self.now + DELAY, 1 - end, packet));
                }
            }
        }
    }

    /// Goes on to the next arrival or deadline; false if nothing will ever happen again.
    fn step(&mut self) -> bool {
        self.send_all();
        let now = self.now;
        let arrival = self.flying.front().map(|(at, ..)| *at);
        let timers = self
            .ends
            .iter_mut()
            .filter_map(|end| Some(end.poll_timeout(now)?.0))
            .min();
        let Some(next) = arrival.into_iter().chain(timers).min() else {
            return false;
        };
        self.now = next;
        while let Some((_, end, packet)) = self.flying.pop_front_if(|(at, ..)| *at <= next) {
            let _ = self.ends[end].handle_packet(next, &packet, None);
            self.send_all();
        }
        for end in &mut self.ends {
            if end.poll_timeout(next).is_some_and(|(at, _)| at <= next) {
                end.handle_timeout(next);
            }
        }
        true
    }

    fn events(&mut self, end: usize) -> Vec<TcpEvent> {
        std::iter::from_fn(|| self.ends[end].poll_event()).collect()
    }

    /// Steps until `end` has an event.
    fn next_event(&mut self, end: usize) -> TcpEvent {
        for _ in 0..10_000 {
            if let Some(event) = self.ends[end].poll_event() {
                return event;
            }
            if !self.step() {
                return self.ends[end]
                    .poll_event()
                    .expect("nothing happens any more");
            }
        }
        panic!("no event");
    }

    fn run_for(&mut self, duration: std::time::Duration) {
        let end = self.now + duration;
        while self.now < end && self.step() {}
        self.now = end.max(self.now);
    }
}

fn content(offset: usize, len: usize) -> Vec<u8> {
    (offset..offset + len)
        .map(|n| u8::try_from((n * 7 + n / 251) % 256).unwrap())
        .collect()
}

/// The server's half of a transfer: sends `total` bytes and closes.
#[derive(Default)]
struct Sender {
    peer: Option<TcpId>,
    sent: usize,
    closed: bool,
}

impl Sender {
    fn turn(&mut self, wire: &mut Wire, total: usize) {
        for event in wire.events(SERVER) {
            if let TcpEvent::Accepted { id, .. } = event {
                self.peer = Some(id);
            }
            if let TcpEvent::Closed(_, reason) = event {
                assert_eq!(reason, CloseReason::Finished);
                self.closed = true;
            }
        }
        while let Some(id) = self.peer.filter(|_| self.sent < total) {
            let bytes = content(self.sent, 65_536.min(total - self.sent));
            let taken = wire.ends[SERVER].send(id, &bytes).unwrap();
            self.sent += taken;
            if self.sent == total {
                wire.ends[SERVER].close(wire.now, id);
            }
            if taken == 0 {
                break;
            }
        }
    }
}

/// The client's half: reads to the end and closes.
#[derive(Default)]
struct Reader {
    got: usize,
    closed: bool,
}

impl Reader {
    fn turn(&mut self, wire: &mut Wire) {
        for event in wire.events(CLIENT) {
            if let TcpEvent::Readable(id) = event {
                self.drain(wire, id);
            }
            if let TcpEvent::Closed(_, reason) = event {
                assert_eq!(reason, CloseReason::Finished);
                self.closed = true;
            }
        }
    }

    fn drain(&mut self, wire: &mut Wire, id: TcpId) {
        let mut buffer = vec![0; 65_536];
        loop {
            match wire.ends[CLIENT].receive(id, &mut buffer) {
                Ok(0) => return,
                Ok(len) => {
                    assert!(
                        buffer[..len] == content(self.got, len),
                        "wrong bytes at {}",
                        self.got
                    );
                    self.got += len;
                }
                Err(error) => {
                    assert_eq!(error, TcpError::Finished);
                    return wire.ends[CLIENT].close(wire.now, id);
                }
            }
        }
    }
}

/// Moves `total` bytes from server to client and returns the time that took.
fn transfer(address: &str, loss: f64, total: usize) -> Instant {
    let mut wire = Wire::new(loss);
    wire.connect(address);
    let (mut sender, mut reader) = (Sender::default(), Reader::default());
    for _ in 0..2_000_000 {
        sender.turn(&mut wire, total);
        reader.turn(&mut wire);
        if sender.closed && reader.closed {
            assert_eq!(reader.got, total);
            return wire.now;
        }
        assert!(
            wire.step(),
            "nothing happens any more at {} of {total} bytes",
            reader.got
        );
    }
    panic!(
        "stuck at {} of {total} bytes, time {:?}",
        reader.got, wire.now
    );
}

#[test]
fn ten_megabytes_arrive_without_loss() {
    // Slow start on a round trip of 10 ms fills the window of 1 MiB within 12 rounds.
    let took = transfer(SERVER4, 0.0, 10_000_000);
    assert!(took < Instant::from_micros(500_000), "{took:?}");
}

#[test]
fn ten_megabytes_arrive_in_spite_of_loss() {
    transfer(SERVER4, 0.02, 10_000_000);
    transfer(SERVER6, 0.02, 2_000_000);
}

#[test]
fn a_burst_of_connections_is_served_up_to_the_bound() {
    let mut wire = Wire::new(0.0);
    for n in 0..MAX_TCP_CONNECTIONS {
        wire.connect(if n % 2 == 0 { SERVER4 } else { SERVER6 });
    }
    let full = wire.ends[CLIENT].connect(wire.now, "10.0.0.1:80".parse().unwrap());
    assert_eq!(full, Err(TcpError::TooManyConnections));
    wire.run_for(DELAY * 4);
    let accepted = wire.events(SERVER);
    assert_eq!(accepted.len(), MAX_TCP_CONNECTIONS);
    assert_eq!(wire.ends[SERVER].connections(), MAX_TCP_CONNECTIONS);
    assert_eq!(wire.events(CLIENT).len(), MAX_TCP_CONNECTIONS);

    let one_more = tcp4("10.0.0.77", SERVER4, (1234, 80), true);
    let got = wire.ends[SERVER].handle_packet(wire.now, &one_more, None);
    assert_eq!(got, Demuxed::Dropped(DropReason::ConnectionsFull));

    let TcpEvent::Accepted { id, .. } = accepted[5] else {
        panic!("{accepted:?}")
    };
    wire.ends[SERVER].abort(id);
    wire.run_for(DELAY * 4);
    let [
        TcpEvent::Readable(reset),
        TcpEvent::Closed(_, CloseReason::Reset),
    ] = wire.events(CLIENT)[..]
    else {
        panic!("the reset has not arrived");
    };
    let gone = wire.ends[CLIENT].receive(reset, &mut [0; 1]);
    assert_eq!(gone, Err(TcpError::Unknown));
    let got = wire.ends[SERVER].handle_packet(wire.now, &one_more, None);
    assert_eq!(got, Demuxed::Taken, "the slot is free again");
}

#[test]
fn half_open_connections_do_not_hold_their_slots() {
    let mut stack = server();
    let syn = |n: u16| tcp4(CLIENT4, SERVER4, (1000 + n, 80), true);
    let bound = u16::try_from(MAX_TCP_CONNECTIONS).unwrap();
    for n in 0..bound {
        let _ = stack.handle_packet(Instant::ZERO, &syn(n), None);
        let _ = stack.handle_packet(Instant::ZERO, &syn(n), None);
        transmitted(&mut stack, Instant::ZERO);
    }
    assert_eq!(
        stack.connections(),
        MAX_TCP_CONNECTIONS,
        "a repeated SYN takes no second slot"
    );
    let mut at = |seconds: u64, n: u16| {
        let now = Instant::from_micros(seconds * 1_000_000);
        let taken = stack.handle_packet(now, &syn(n), None) == Demuxed::Taken;
        transmitted(&mut stack, now);
        assert_eq!(
            stack.poll_event(),
            None,
            "half-open ones are never announced"
        );
        taken
    };
    assert!(!at(2, bound));
    assert!(at(3, bound));
    assert!(at(3, bound + 1));
}

#[test]
fn half_open_connections_time_out() {
    let mut wire = Wire::new(1.0);
    let syn = tcp4(CLIENT4, SERVER4, (1000, 80), true);
    let _ = wire.ends[SERVER].handle_packet(wire.now, &syn, None);
    assert_eq!(wire.ends[SERVER].connections(), 1);
    wire.run_for(std::time::Duration::from_secs(40));
    assert_eq!(wire.ends[SERVER].connections(), 0);
    assert_eq!(wire.events(SERVER), []);
}

#[test]
fn closed_connections_do_not_hold_their_slots() {
    let mut wire = Wire::new(0.0);
    for round in 0..3 * MAX_TCP_CONNECTIONS {
        let ours = wire.connect(SERVER4);
        let TcpEvent::Accepted { id, .. } = wire.next_event(SERVER) else {
            panic!("round {round}: not accepted")
        };
        wire.ends[SERVER].close(wire.now, id);
        assert_eq!(wire.next_event(CLIENT), TcpEvent::Connected(ours));
        assert_eq!(wire.next_event(CLIENT), TcpEvent::Readable(ours));
        let end = wire.ends[CLIENT].receive(ours, &mut [0; 1]);
        assert_eq!(end, Err(TcpError::Finished));
        wire.ends[CLIENT].close(wire.now, ours);
        let over = TcpEvent::Closed(ours, CloseReason::Finished);
        assert_eq!(wire.next_event(CLIENT), over, "round {round}");
        while wire.next_event(SERVER) != TcpEvent::Closed(id, CloseReason::Finished) {}
    }
    wire.run_for(std::time::Duration::from_secs(60));
    assert_eq!(wire.ends.each_ref().map(Stack::connections), [0, 0]);
    assert!(!wire.step(), "nothing is left to do");
}

#[test]
fn a_port_without_listener_refuses() {
    let mut wire = Wire::new(0.0);
    let id = wire.ends[CLIENT]
        .connect(wire.now, "10.0.0.1:81".parse().unwrap())
        .unwrap();
    assert_eq!(
        wire.next_event(CLIENT),
        TcpEvent::Closed(id, CloseReason::Reset)
    );
    assert_eq!(wire.ends[CLIENT].connections(), 0);
    assert_eq!(wire.ends[CLIENT].send(id, b"x"), Err(TcpError::Unknown));
}

#[test]
fn a_silent_peer_times_out() {
    let mut wire = Wire::new(1.0);
    let id = wire.connect(SERVER6);
    assert_eq!(
        wire.next_event(CLIENT),
        TcpEvent::Closed(id, CloseReason::TimedOut)
    );
    assert!(wire.now >= Instant::from_micros(30_000_000));
    assert_eq!(wire.ends[CLIENT].connections(), 0);
}

#[test]
fn an_idle_peer_is_kept_and_a_dead_one_is_not() {
    let mut wire = Wire::new(0.0);
    wire.connect(SERVER4);
    assert!(matches!(wire.next_event(SERVER), TcpEvent::Accepted { .. }));
    wire.run_for(std::time::Duration::from_secs(300));
    assert_eq!(wire.ends.each_ref().map(Stack::connections), [1, 1]);
    wire.loss = 1.0;
    let readable = wire.next_event(SERVER);
    assert!(matches!(readable, TcpEvent::Readable(_)), "{readable:?}");
    assert!(matches!(
        wire.next_event(SERVER),
        TcpEvent::Closed(_, CloseReason::TimedOut)
    ));
    assert_eq!(wire.ends[SERVER].connections(), 0);
}

#[test]
fn a_reset_half_open_connection_leaves_no_listener() {
    let mut stack = server();
    let syn = tcp4(CLIENT4, SERVER4, (1000, 80), true);
    let _ = stack.handle_packet(Instant::ZERO, &syn, None);
    transmitted(&mut stack, Instant::ZERO);
    let builder = PacketBuilder::ipv4(octets4(CLIENT4), octets4(SERVER4), 9);
    let reset = built(|out| {
        builder
            .tcp(1000, 80, 1001, 0)
            .rst()
            .write(out, &[])
            .unwrap()
    });
    assert_eq!(
        stack.handle_packet(Instant::ZERO, &reset, None),
        Demuxed::Taken
    );
    assert_eq!((stack.connections(), stack.poll_event()), (0, None));
}

#[test]
fn a_writer_is_told_of_room() {
    let mut wire = Wire::new(0.0);
    let ours = wire.connect(SERVER4);
    let TcpEvent::Accepted { id, .. } = wire.next_event(SERVER) else {
        panic!("not accepted")
    };
    assert_eq!(wire.ends[SERVER].send_room(id), SERVER_SEND_BYTES);
    let sent = wire.ends[SERVER]
        .send(id, &vec![1; SERVER_SEND_BYTES + 1])
        .unwrap();
    assert_eq!(
        (sent, wire.ends[SERVER].send_room(id)),
        (SERVER_SEND_BYTES, 0)
    );
    assert_eq!(wire.next_event(SERVER), TcpEvent::Writable(id));
    assert!(wire.ends[SERVER].send_room(id) >= SERVER_SEND_BYTES / 2);
    assert_eq!(wire.next_event(CLIENT), TcpEvent::Connected(ours));
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
