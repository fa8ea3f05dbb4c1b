//! A redirector with backends on a perfect network: distribution, drops and failures.

use core::time::Duration;

mod errors;
mod service;

use super::*;
use crate::redirect::backend::{Backend, BackendConfig, Taken};
use crate::redirect::config::BackendState;
use crate::redirect::membership::Member;
use crate::redirect::{BackendId, RedirectorId};
use crate::time::UnixMillis;
use crate::wire::flight::{Ecn, UdpPath};
use crate::wire::ip::emit_udp;
use crate::wire::segment::{Open, Request, Wanted};

const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 7], 4000);
const SERVICE: ([u8; 4], u16) = ([10, 0, 0, 100], 7600);

fn text(id: u16, generation: u32, policy: &str, states: &[&str]) -> String {
    let mut text = format!(
        "generation = {generation}\nid = {id}\naddress = [\"10.0.0.{}\"]\nservices = [\"10.0.0.100\"]\n\
         key-file = \"k\"\npolicy = \"{policy}\"\n",
        id + 9,
    );
    for (index, state) in (1..).zip(states) {
        text += &format!(
            "[[backend]]\nname = \"s{index}\"\nid = {index}\naddress = \"10.0.1.{index}\"\nstate = \"{state}\"\n"
        );
    }
    text
}

fn config(id: u16, generation: u32, policy: &str, states: &[&str]) -> RedirectConfig {
    RedirectConfig::parse("r", &text(id, generation, policy, states)).unwrap()
}

fn keys() -> MacKeys {
    MacKeys::new((1, [5; 16]), &[])
}

fn settings() -> EngineSettings {
    EngineSettings {
        mtu: 1500,
        keys: keys(),
        table: Table::default(),
        seed: 3,
    }
}

fn at(millis: u64) -> Now {
    Now {
        instant: Instant::from_micros(millis * 1000),
        unix: UnixMillis::new(1_800_000_000_000 + millis),
    }
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let path = UdpPath {
        src: CLIENT.into(),
        dst: SERVICE.into(),
    };
    let mut packet = vec![0; 2000];
    let length = emit_udp(path, Ecn::Ect0, payload, 9, &mut packet).unwrap();
    packet.truncate(length);
    packet
}

fn request(connection: u64) -> Vec<u8> {
    let mut out = Vec::new();
    Request {
        continuation: &[1; 60],
        upto: 1,
        reach: 1,
        proof: 2,
        ..Request::empty(connection, 1400, 1)
    }
    .emit(&mut out);
    out
}

/// A redirector with its backends, any of which may be dead.
struct Fleet {
    redirect: Redirect,
    backends: Vec<(Backend, bool)>,
    now: u64,
}

impl Fleet {
    fn new(config: &RedirectConfig) -> Self {
        let backend = |id: u16| {
            Backend::new(BackendConfig {
                id: BackendId(id),
                redirectors: vec![RedirectorId(1), RedirectorId(2)],
                keys: keys(),
            })
        };
        Self {
            redirect: Redirect::new(at(0), config, settings()),
            backends: (1..=4).map(|id| (backend(id), true)).collect(),
            now: 0,
        }
    }

    /// Delivers queued packets to the backends and their replies back; returns the inner packets
    /// with their destinations.
    fn drain(&mut self) -> Vec<(u16, Vec<u8>)> {
        let (now, mut inner) = (at(self.now), Vec::new());
        while let Some(packet) = self.redirect.outbox().pop() {
            let outer = IpView::parse(&packet).unwrap();
            let view = outer.udp(Checksum::Verify).unwrap();
            let IpAddr::V4(to) = outer.dst else {
                panic!("IPv6")
            };
            let id = u16::from(to.octets()[3]);
            let (backend, alive) = &mut self.backends[usize::from(id) - 1];
            if !*alive {
                continue;
            }
            let mut reply = Vec::new();
            match backend
                .handle(now.instant, view.payload, &mut reply)
                .unwrap()
            {
                Taken::Packet(packet) => inner.push((id, packet.to_vec())),
                Taken::Reply => {
                    let mut back = vec![0; 200];
                    let path = view.path.reversed();
                    let length = emit_udp(path, Ecn::NotEct, &reply, 0, &mut back).unwrap();
                    self.redirect.handle_packet(now, &back[..length], None);
                }
            }
            self.redirect.outbox().recycle(packet);
        }
        inner
    }

    fn pass(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += 1;
            let now = at(self.now);
            if self
                .redirect
                .poll_timeout()
                .is_some_and(|due| due <= now.instant)
            {
                self.redirect.handle_timeout(now);
            }
            self.drain();
        }
    }

    fn send(&mut self, packet: &[u8]) -> Option<u16> {
        self.redirect.handle_packet(at(self.now), packet, None);
        let inner = self.drain();
        assert!(inner.iter().all(|(_, got)| got == packet), "unchanged");
        inner.first().map(|(id, _)| *id)
    }

    /// Counts how many of `count` connections reach each backend.
    fn shares(&mut self, count: u64) -> [u32; 5] {
        let mut shares = [0; 5];
        for connection in 0..count {
            if let Some(id) = self.send(&udp(&request(connection))) {
                shares[usize::from(id)] += 1;
            }
        }
        shares
    }

    fn drops(&self, label: &str) -> u64 {
        self.redirect.counters().drops.of(label)
    }

    fn states(&self) -> Vec<BackendState> {
        self.redirect
            .membership()
            .iter()
            .map(Member::state)
            .collect()
    }
}

const ACTIVE: [&str; 4] = ["active"; 4];

#[test]
fn packets_arrive_unchanged_and_every_connection_at_one_backend() {
    let mut fleet = Fleet::new(&config(1, 1, "rendezvous", &ACTIVE));
    for connection in 0..200 {
        let packet = udp(&request(connection));
        let first = fleet.send(&packet);
        assert!(first.is_some());
        assert_eq!(fleet.send(&packet), first);
    }
    let sent: Vec<_> = fleet
        .redirect
        .membership()
        .iter()
        .map(|m| m.counters.packets)
        .collect();
    assert_eq!(sent.iter().sum::<u64>(), 400);
    assert!(sent.iter().all(|count| *count > 40), "{sent:?}");
}

#[test]
fn two_redirectors_make_the_same_choices() {
    let mut reversed = config(2, 1, "rendezvous", &ACTIVE);
    reversed.backends.reverse();
    let mut fleets = [
        Fleet::new(&config(1, 1, "rendezvous", &ACTIVE)),
        Fleet::new(&reversed),
        Fleet::new(&config(1, 1, "spread", &ACTIVE)),
    ];
    let mut open = Vec::new();
    Open {
        echo: 5,
        size: 1400,
        stream: 1,
        token: None,
        wanted: Wanted::New(b"x"),
        offset: 0,
    }
    .emit(&mut open);
    let transport = (0..300)
        .map(|n| (udp(&request(n)), 2))
        .chain([(udp(&open), 2)]);
    let tcp = (0..300).flat_map(|port| [0x02, 0x10, 0x04, 0x11].map(|flags| (tcp(port, flags), 3)));
    for (packet, alike) in transport.chain(tcp).chain([(echo(), 3)]) {
        let [first, second, third] = fleets.each_mut().map(|fleet| fleet.send(&packet));
        assert!(first.is_some() && first == second);
        assert!(alike < 3 || third == first, "sticky under every policy");
    }
}

/// Builds a TCP segment; its checksum is irrelevant here.
fn tcp(port: u16, flags: u8) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&port.to_be_bytes());
    segment[13] = flags;
    ip(6, CLIENT.0, SERVICE.0, &segment)
}

fn echo() -> Vec<u8> {
    ip(1, CLIENT.0, SERVICE.0, &[8, 0, 0, 0, 0, 0, 0, 0])
}

fn ip(protocol: u8, src: [u8; 4], dst: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut header = etherparse::Ipv4Header::new(length, 64, IpNumber(protocol), src, dst).unwrap();
    header.header_checksum = header.calc_header_checksum();
    [header.to_bytes().as_slice(), payload].concat()
}

#[test]
fn what_goes_nowhere_is_counted_by_reason() {
    let long = udp(&[&request(1)[..], &[0; 1360]].concat());
    let mut other = udp(&request(1));
    other[19] = 1;
    let cases = [
        (vec![], "truncated"),
        (udp(b"hello"), "not_transport"),
        (ip(6, CLIENT.0, SERVICE.0, &[0; 19]), "bad_tcp"),
        (ip(1, CLIENT.0, SERVICE.0, &[3, 1, 0, 0]), "icmp_not_echo"),
        (ip(47, CLIENT.0, SERVICE.0, &[0; 30]), "unknown_protocol"),
        (other, "bad_header_checksum"),
        (
            ip(17, CLIENT.0, [10, 0, 0, 1], &[0; 30]),
            "foreign_destination",
        ),
        (ip(6, CLIENT.0, [10, 0, 0, 10], &[0; 30]), "not_for_us"),
        (long, "too_long"),
    ];
    let mut fleet = Fleet::new(&config(1, 1, "rendezvous", &ACTIVE));
    for (packet, label) in cases {
        assert_eq!(fleet.send(&packet), None, "{label}");
        assert_eq!(fleet.drops(label), 1, "{label}");
    }
    let mut fleet = Fleet::new(&config(1, 1, "rendezvous", &["down"; 2]));
    assert_eq!(fleet.send(&udp(&request(1))), None);
    assert_eq!(fleet.drops("no_backend"), 1);
    for _ in 0..=crate::redirect::outbox::MAX_WAITING {
        fleet.redirect.handle_timeout(at(0));
    }
}

#[test]
fn the_longest_packet_fits_the_mtu() {
    let mut fleet = Fleet::new(&config(1, 1, "rendezvous", &ACTIVE));
    let fill = 1500 - 28 - HEADER_BYTES - 28;
    let mut payload = request(1);
    payload.resize(fill, 0);
    assert!(fleet.send(&udp(&payload)).is_some());
    payload.push(0);
    assert!(fleet.send(&udp(&payload)).is_none());
}

#[test]
fn a_dead_backend_is_left_alone_within_150_ms_and_others_keep_theirs() {
    let mut fleet = Fleet::new(&config(1, 1, "rendezvous", &ACTIVE));
    fleet.pass(500);
    let before: Vec<_> = (0..400).map(|n| fleet.send(&udp(&request(n)))).collect();
    fleet.backends[1].1 = false;
    fleet.pass(151);
    assert_eq!(fleet.states()[1], BackendState::Down);
    for (n, before) in (0..).zip(&before) {
        let after = fleet.send(&udp(&request(n)));
        assert!(after.is_some() && after != Some(2));
        assert!(after == *before || *before == Some(2));
    }
    fleet.backends[1].1 = true;
    fleet.pass(300);
    assert_eq!(fleet.states()[1], BackendState::Active);
    let again: Vec<_> = (0..400).map(|n| fleet.send(&udp(&request(n)))).collect();
    assert_eq!(again, before);
}

#[test]
fn a_draining_backend_gets_nothing_and_all_down_means_all() {
    let mut fleet = Fleet::new(&config(1, 1, "spread", &ACTIVE));
    fleet.pass(100);
    // The operator drains one, another drains itself.
    fleet.backends[2].0.set_draining(true);
    let next = config(1, 2, "spread", &["draining", "active", "active", "down"]);
    fleet
        .redirect
        .replace(at(fleet.now), &next, Table::default())
        .unwrap();
    assert_eq!(fleet.shares(100)[1], 0, "from the next packet on");
    fleet.pass(100);
    assert_eq!(fleet.shares(100), [0, 0, 100, 0, 0]);
    fleet.backends[1].1 = false;
    fleet.pass(200);
    assert_eq!(
        fleet.shares(100),
        [0, 50, 0, 50, 0],
        "draining, since nobody is left"
    );
    for backend in &mut fleet.backends {
        backend.1 = false;
    }
    fleet.pass(200);
    assert_eq!(fleet.states(), [BackendState::Down; 4]);
    for backend in &mut fleet.backends {
        backend.1 = true;
    }
    assert_eq!(
        fleet.shares(99),
        [0, 33, 33, 33, 0],
        "all but the one taken down"
    );
    assert_eq!(fleet.redirect.counters().failed_open, 99);
}

#[test]
fn a_configuration_is_swapped_whole_or_not_at_all() {
    let mut fleet = Fleet::new(&config(1, 5, "spread", &ACTIVE[..2]));
    fleet.pass(100);
    let mut swap = |config: RedirectConfig| {
        let now = at(fleet.now);
        fleet
            .redirect
            .replace(now, &config, Table::default())
            .map_err(|error| error.to_string())
    };
    for generation in [4, 5] {
        let error = swap(config(1, generation, "spread", &ACTIVE)).unwrap_err();
        assert!(
            error.contains("not above the running generation 5"),
            "{error}"
        );
    }
    assert!(
        swap(config(2, 6, "spread", &ACTIVE))
            .unwrap_err()
            .contains("restart the redirector")
    );
    swap(config(1, 6, "spread", &ACTIVE)).unwrap();
    swap(config(1, MAX_GENERATION, "spread", &ACTIVE)).unwrap();
    let error = swap(config(1, 1, "spread", &ACTIVE)).unwrap_err();
    assert!(error.contains("the largest. Restart"), "{error}");
    assert_eq!(fleet.shares(100)[1..], [25; 4]);
    assert_eq!(fleet.redirect.counters().swaps, 2);
}

#[test]
fn a_forgotten_redirector_learns_of_newer_configurations() {
    let mut fleet = Fleet::new(&config(1, 5, "spread", &ACTIVE));
    let other = Redirect::new(at(0), &config(2, 9, "spread", &ACTIVE), settings());
    let own = core::mem::replace(&mut fleet.redirect, other);
    fleet.pass(60);
    fleet.redirect = own;
    fleet.pass(60);
    assert_eq!(fleet.redirect.newest(), Generation(9));
    assert!(
        fleet.shares(100)[1..].iter().all(|share| *share == 25),
        "it still works"
    );
    assert!(
        fleet
            .backends
            .iter()
            .all(|(backend, _)| backend.counters().stale > 0)
    );
}

#[test]
fn strangers_heartbeats_change_nothing() {
    let mut fleet = Fleet::new(&config(1, 1, "rendezvous", &ACTIVE));
    fleet.pass(100);
    let reply = |kind, redirector, key| {
        let header = CapsuleHeader {
            kind,
            redirector: RedirectorId(redirector),
            backend: BackendId(1),
            generation: Generation(99),
            sequence: 7,
        };
        let mut out = Vec::new();
        MacKeys::new((1, [key; 16]), &[]).seal(&header, &[0; BEAT_BYTES], &mut out);
        let path = UdpPath {
            src: ([10, 0, 1, 1], 7601).into(),
            dst: ([10, 0, 0, 10], 7601).into(),
        };
        let mut packet = vec![0; 200];
        let length = emit_udp(path, Ecn::NotEct, &out, 0, &mut packet).unwrap();
        packet.truncate(length);
        packet
    };
    for (packet, label) in [
        (reply(CapsuleKind::Reply, 1, 6), "heartbeat_forged"),
        (reply(CapsuleKind::Reply, 2, 5), "heartbeat_misdirected"),
        (reply(CapsuleKind::Query, 1, 5), "heartbeat_unknown_kind"),
        (reply(CapsuleKind::Reply, 1, 5), "unsolicited"),
    ] {
        fleet.redirect.handle_packet(at(fleet.now), &packet, None);
        assert_eq!(fleet.drops(label), 1, "{label}");
    }
    assert_eq!(fleet.redirect.newest(), Generation(1));
}

#[test]
fn a_device_takes_packets_as_they_are_and_joined_ones_are_segmented() {
    let text = text(1, 1, "spread", &[]) + "[[backend]]\nname = \"a\"\nid = 1\ndevice = \"hwb1\"\n";
    let config = RedirectConfig::parse("r", &text).unwrap();
    let mut redirect = Redirect::new(at(0), &config, settings());
    assert_eq!(redirect.poll_timeout(), None, "it cannot be asked");
    let packets = [1, 2, 3].map(|n| udp(&request(n)));
    redirect.handle_packet(at(0), &packets[0], None);
    let backend = BackendId(1);
    assert_eq!(
        redirect.outbox().pop_forward(),
        Some((backend, packets[0].clone()))
    );
    let size = request(1).len();
    let joined = udp(&[1, 2, 3].map(request).concat());
    redirect.handle_packet(at(0), &joined, Some(size));
    for packet in &packets {
        let (_, have) = redirect.outbox().pop_forward().unwrap();
        let [have, want] = [&have, packet].map(|p| IpView::parse(p).unwrap().udp(Checksum::Verify));
        assert_eq!(have, want);
    }
}

#[test]
fn joined_tcp_is_segmented_and_stays_together() {
    let mut fleet = Fleet::new(&config(1, 1, "spread", &ACTIVE));
    let mut segment = vec![0; 20];
    segment[12] = 0x50;
    let header = segment.clone();
    segment.extend([7; 3000]);
    let joined = ip(6, CLIENT.0, SERVICE.0, &segment);
    let now = at(fleet.now);
    fleet.redirect.handle_packet(now, &joined, Some(1300));
    let inner = fleet.drain();
    let payload = |packet: &[u8]| IpView::parse(packet).unwrap().payload.len() - header.len();
    let lengths: Vec<_> = inner.iter().map(|(_, packet)| payload(packet)).collect();
    assert_eq!(lengths, [1300, 1300, 400]);
    assert!(inner.iter().all(|(id, _)| *id == inner[0].0), "one server");
    assert_eq!(fleet.redirect.counters().segmented, 3);
    // Segments of a full MTU leave no room for a capsule.
    fleet.redirect.handle_packet(now, &joined, Some(1400));
    assert_eq!((fleet.drain().len(), fleet.drops("too_long")), (1, 2));
    segment[12] = 0xf0;
    segment.truncate(40);
    let short = ip(6, CLIENT.0, SERVICE.0, &segment);
    fleet.redirect.handle_packet(now, &short, Some(10));
    assert_eq!(fleet.drops("bad_tcp"), 1);
}

#[test]
fn another_table_of_sites_is_put_in_force() {
    let sites = ["east".to_owned(), "west".to_owned()];
    let backend = |id, site| {
        format!(
            "[[backend]]\nname = \"s{id}\"\nid = {id}\naddress = \"10.0.1.{id}\"\nsite = \"{site}\"\n"
        )
    };
    let text = text(1, 1, "nearest", &[]) + "[nearest]\ntable = \"t\"\n";
    let text = text + &backend(1, "east") + &backend(2, "west");
    let mut fleet = Fleet::new(&RedirectConfig::parse("r", &text).unwrap());
    for (site, id) in [("east", 1), ("west", 2)] {
        let table = Table::parse("t", &format!("192.0.2.0/24 {site}\n"), &sites).unwrap();
        fleet.redirect.set_table(table);
        assert_eq!(fleet.shares(20)[id], 20, "{site}");
    }
    assert_eq!(fleet.redirect.counters().tables, 2);
    assert_eq!(fleet.redirect.counters().swaps, 0);
}

#[test]
fn nothing_is_allocated_once_buffers_have_grown() {
    let mut fleet = Fleet::new(&config(1, 1, "rendezvous", &ACTIVE));
    let packet = udp(&request(1));
    fleet.send(&packet);
    let capacity = |fleet: &mut Fleet| {
        fleet.redirect.handle_packet(at(0), &packet, None);
        let buffer = fleet.redirect.outbox().pop().unwrap();
        let place = buffer.as_ptr();
        fleet.redirect.outbox().recycle(buffer);
        (place, fleet.redirect.capsule.as_ptr())
    };
    let first = capacity(&mut fleet);
    assert!((0..100).all(|_| capacity(&mut fleet) == first));
}

#[test]
fn the_patience_is_that_of_the_file() {
    let config = config(1, 1, "spread", &ACTIVE);
    assert_eq!(config.beat.patience(), Duration::from_millis(150));
}
