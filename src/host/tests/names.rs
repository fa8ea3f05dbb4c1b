//! A client whose own resolver queries a DNS server over its stack.

use std::net::SocketAddrV6;
use std::os::fd::RawFd;

use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, PacketFlag, QTYPE, ResourceRecord, TYPE};

use super::*;
use crate::connect::resolve::{DnsTransmit, ExchangeId, ResolverConfig};
use crate::host::client::lookups::MAX_QUERY_EVENTS;
use crate::host::config::literal;
use crate::host::names::{ConnectTo, Resolution};
use crate::host::queries::{QueryEvent, QuerySockets};
use crate::stack::{Demuxed, Stack, StackConfig, TcpEvent};

/// The last byte of the address of the DNS server.
pub(super) const DNS: u8 = 53;

/// The reaction of a DNS server to a query, and whether that came over TCP: an answer after a time, if any.
type React = Box<dyn FnMut(&Packet<'_>, bool) -> Option<(Duration, Vec<u8>)>>;

/// A DNS server on a stack of its own.
pub(super) struct DnsServer {
    stack: Stack,
    react: React,
    later: Vec<(Instant, Vec<u8>)>,
    /// The source ports of the queries over UDP.
    ports: Vec<u16>,
}

impl DnsServer {
    fn new(
        now: Now,
        react: impl FnMut(&Packet<'_>, bool) -> Option<(Duration, Vec<u8>)> + 'static,
    ) -> Self {
        let settings = StackConfig {
            addresses: vec![address(false, DNS)],
            mtu: 1500,
            transport_ports: 53..=53,
            seed: 3,
        };
        let mut stack = Stack::new(now.instant, settings).unwrap();
        stack.listen(53).unwrap();
        Self {
            stack,
            react: Box::new(react),
            later: Vec::new(),
            ports: Vec::new(),
        }
    }

    pub(super) fn handle_packet(&mut self, now: Now, packet: &[u8]) {
        match self.stack.handle_packet(now.instant, packet, None) {
            Demuxed::Transport(view) => {
                self.ports.push(view.path.src.port());
                let query = Packet::parse(view.payload).unwrap();
                if let Some((after, response)) = (self.react)(&query, false) {
                    let path = UdpPath {
                        src: view.path.dst,
                        dst: view.path.src,
                    };
                    let mut packet = vec![0; 1500];
                    let length = emit_udp(path, Ecn::NotEct, &response, 0, &mut packet).unwrap();
                    packet.truncate(length);
                    self.later.push((now.instant + after, packet));
                }
            }
            Demuxed::Taken => self.handle_streams(),
            Demuxed::Dropped(reason) => panic!("{reason:?}"),
        }
    }

    fn handle_streams(&mut self) {
        while let Some(event) = self.stack.poll_event() {
            let mut query = [0; 512];
            // The client resets the connection once it has the response.
            if let TcpEvent::Readable(id) = event
                && let Ok(length @ 1..) = self.stack.receive(id, &mut query)
            {
                let query = Packet::parse(&query[2..length]).unwrap();
                if let Some((_, response)) = (self.react)(&query, true) {
                    let length = u16::try_from(response.len()).unwrap().to_be_bytes();
                    self.stack
                        .send(id, &[&length, &response[..]].concat())
                        .unwrap();
                }
            }
        }
    }

    pub(super) fn poll_transmit(&mut self, now: Now) -> Option<Vec<u8>> {
        let due = self.later.iter().position(|(at, _)| *at <= now.instant);
        let later = due.map(|due| self.later.remove(due).1);
        later.or_else(|| Some(self.stack.poll_transmit(now.instant)?.bytes))
    }

    pub(super) fn poll_timeout(&mut self, now: Now) -> Option<Instant> {
        let later = self.later.iter().map(|(at, _)| *at).min();
        let stack = self.stack.poll_timeout(now.instant).map(|(at, _)| at);
        later.into_iter().chain(stack).min()
    }
}

/// A response with the IPv4 addresses `10.9.0.LAST`.
fn answer(query: &Packet<'_>, last: &[u8]) -> Vec<u8> {
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    reply.questions = query.questions.clone();
    let name = query.questions[0].qname.clone();
    let is_v4 = query.questions[0].qtype == QTYPE::TYPE(TYPE::A);
    for last in last.iter().filter(|_| is_v4) {
        let data = RData::A(A {
            address: u32::from_be_bytes([10, 9, 0, *last]),
        });
        let record = ResourceRecord::new(name.clone(), CLASS::IN, 60, data);
        reply.answers.push(record);
    }
    reply.build_bytes_vec_compressed().unwrap()
}

/// The configuration of a client that looks names up at the DNS server.
fn config(protocol: Protocol) -> ClientHostConfig {
    ClientHostConfig {
        resolve: Box::new(|_| Resolution::Pending),
        dns: Some(ResolverConfig {
            servers: vec![(address(false, DNS), 53).into()],
            timeout: Duration::from_secs(1),
            ..ResolverConfig::default()
        }),
        ..client_config(protocol, false)
    }
}

/// A world whose client looks names up at its DNS server.
fn world(
    protocol: Protocol,
    react: impl FnMut(&Packet<'_>, bool) -> Option<(Duration, Vec<u8>)> + 'static,
) -> World {
    let mut world = World::new(protocol, false);
    world.server = server(&world.version, address(false, 2), world.now, 0);
    world.client = ClientHost::new(world.now, config(protocol)).unwrap();
    world.dns = Some(DnsServer::new(world.now, react));
    world
}

#[test]
fn a_name_is_queried_over_the_stack_and_its_answer_kept() {
    for protocol in [TRICKLES, Protocol::Tcp] {
        let mut world = world(protocol, |query, _| {
            Some((Duration::ZERO, answer(query, &[2])))
        });
        let begun = world.now.instant;
        let memory = world.start("http://files.test/1000", false);
        assert_eq!(world.client.poll_lookup(), None, "nothing for the driver");
        while world.client.report().first_byte.is_none() {
            assert!(world.step());
        }
        let trips = if protocol == TRICKLES { 2 } else { 3 };
        let took = world.now.instant.saturating_since(begun);
        assert_eq!(took, 2 * trips * ONE_WAY, "one round trip for the name");
        assert_eq!(world.finish(), VERIFIED);
        assert_eq!(memory.0.borrow().0, body(0, 1000));
        world.start("http://files.test/2000", false);
        assert_eq!(world.finish(), VERIFIED);
        let dns = world.dns.as_ref().unwrap();
        assert_eq!(dns.ports.len(), 1, "no IPv6 address of its own, and kept");
        assert_ne!(dns.ports[0], 53);
    }
}

#[test]
fn a_long_response_is_fetched_over_tcp_of_the_stack() {
    let mut world = world(TRICKLES, |query, is_stream| {
        let mut response = answer(query, &[2]);
        response[2] |= if is_stream { 0 } else { 2 };
        Some((Duration::ZERO, response))
    });
    world.start("http://files.test/1000", false);
    assert_eq!(world.finish(), VERIFIED);
}

#[test]
fn failures_of_names_are_failures_of_the_transfer() {
    let mut silent = world(TRICKLES, |_, _| None);
    let begun = silent.now.instant;
    silent.start("http://files.test/1", false);
    let end = silent.finish();
    assert!(
        end.contains("CannotResolve") && end.contains("Silent"),
        "{end}"
    );
    let took = silent.now.instant.saturating_since(begun);
    assert_eq!(took, Duration::from_secs(2));
    let ports = &silent.dns.as_ref().unwrap().ports;
    assert!(ports.len() == 2 && ports[0] != ports[1], "{ports:?}");
    let mut slow = world(TRICKLES, |query, _| {
        Some((Duration::from_secs(9), answer(query, &[2])))
    });
    let limited = ClientHostConfig {
        connect_timeout: Duration::from_millis(500),
        ..config(TRICKLES)
    };
    slow.client = ClientHost::new(slow.now, limited).unwrap();
    slow.start("http://files.test/1", false);
    let end = slow.finish();
    assert!(end.starts_with("Failed(ResolveTimedOut"), "{end}");
    let mut unknown = world(TRICKLES, |query, _| {
        let mut response = answer(query, &[]);
        response[3] |= 3;
        Some((Duration::ZERO, response))
    });
    unknown.start("http://files.test/1", false);
    let end = unknown.finish();
    assert!(
        end.contains("CannotResolve") && end.contains("NoName"),
        "{end}"
    );
}

#[test]
fn connections_go_elsewhere_on_demand() {
    let mut world = World::new(Protocol::Tcp, false);
    let config = ClientHostConfig {
        connect_to: vec![ConnectTo::parse("nowhere:81:files:80").unwrap()],
        ..client_config(Protocol::Tcp, false)
    };
    world.client = ClientHost::new(world.now, config).unwrap();
    world.start("http://nowhere:81/1000", false);
    assert_eq!(world.finish(), VERIFIED);
    world.start("http://nowhere:82/1000", false);
    assert!(world.finish().starts_with("Failed(CannotResolve"));
}

#[test]
fn a_zone_is_the_interface_of_a_link_local_address() {
    let client = |sockets, url: &str| {
        let mut world = World::new(TRICKLES, true);
        let config = ClientHostConfig {
            sockets,
            interface_index: Box::new(|name| (name == "eth0").then_some(7)),
            resolve: Box::new(|host| literal(host).into_iter().collect()),
            ..client_config(TRICKLES, true)
        };
        world.client = ClientHost::new(world.now, config).unwrap();
        world.start(url, false);
        world
    };
    let mut known = client(true, "http://[fe80::2%25eth0]/1");
    let Some(Transmit::Flight(flight)) = known.client.poll_transmit(known.now) else {
        panic!("an OPEN");
    };
    let remote = SocketAddrV6::new("fe80::2".parse().unwrap(), 7600, 0, 7);
    assert_eq!(flight.path.dst, remote.into());
    for (sockets, url) in [
        (true, "http://[fe80::2%25eth1]/1"),
        (false, "http://[fe80::2%25eth0]/1"),
    ] {
        let end = client(sockets, url).finish();
        assert!(end.starts_with("Failed(Zone"), "{end}");
    }
}

/// A DNS server that never stops sending.
struct Flood {
    exchange: Option<ExchangeId>,
    events: Rc<RefCell<usize>>,
}

impl QuerySockets for Flood {
    fn send(&mut self, query: &DnsTransmit) -> bool {
        self.exchange = Some(query.exchange);
        true
    }
    fn poll_event(&mut self) -> Option<QueryEvent> {
        *self.events.borrow_mut() += 1;
        Some(QueryEvent::Bytes(self.exchange?, b"flood".to_vec()))
    }
    fn close_others(&mut self, _awaited: &dyn Fn(ExchangeId) -> bool) {}
    fn descriptor(&self) -> RawFd {
        -1
    }
}

#[test]
fn a_server_that_floods_does_not_hold_the_loop_up() {
    let mut world = World::new(TRICKLES, false);
    let events = Rc::new(RefCell::new(0));
    let flood = Flood {
        exchange: None,
        events: Rc::clone(&events),
    };
    let config = ClientHostConfig {
        dns: Some(ResolverConfig {
            servers: vec![(address(false, DNS), 53).into()],
            ..ResolverConfig::default()
        }),
        query_sockets: Some(Box::new(flood)),
        resolve: Box::new(|_| Resolution::Pending),
        ..client_config(TRICKLES, false)
    };
    world.client = ClientHost::new(world.now, config).unwrap();
    world.start("http://files.test/1", false);
    let before = *events.borrow();
    world.client.turn(world.now);
    assert_eq!(*events.borrow() - before, MAX_QUERY_EVENTS);
}
