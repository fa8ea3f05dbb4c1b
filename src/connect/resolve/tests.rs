//! A resolver and servers that misbehave, with a virtual clock.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;
use simple_dns::{Packet, QTYPE, RCODE, TYPE};

use super::message::tests::Response;
use super::*;

const BOTH: [RecordType; 2] = [RecordType::Aaaa, RecordType::A];

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

/// The reaction of a server to a query; see [`World`].
enum Act {
    Silent,
    /// The exchange fails: a port without a server, or a stream that ends.
    Unreachable,
    /// Bytes after a time.
    Send(u64, Vec<u8>),
}

/// Returns an answer with an address, after a time.
fn answer(after: u64, query: &[u8], address: &str) -> Act {
    Act::Send(
        after,
        Response::to(query)
            .address(&asked(query).0, 60, address)
            .bytes(),
    )
}

fn code(query: &[u8], code: RCODE) -> Act {
    Act::Send(
        5,
        Response::to(query).code(code).soa("test", 60, 60).bytes(),
    )
}

/// The name of a query in lower case, and whether it is about IPv6.
fn asked(query: &[u8]) -> (String, bool) {
    let packet = Packet::parse(query).unwrap();
    let question = &packet.questions[0];
    let name = question.qname.to_string().to_ascii_lowercase();
    (name, question.qtype == QTYPE::TYPE(TYPE::AAAA))
}

struct World<'a> {
    now: Instant,
    begun: Instant,
    resolver: Resolver,
    /// The reaction of the server to a query; the query is without its length.
    act: Box<dyn FnMut(&DnsTransmit, &[u8]) -> Act + 'a>,
    wire: Vec<(Instant, ExchangeId, Option<Vec<u8>>)>,
    sent: Vec<DnsTransmit>,
}

fn config(servers: u8) -> ResolverConfig {
    ResolverConfig {
        servers: (1..=servers)
            .map(|n| SocketAddr::from(([192, 0, 2, n], 53)))
            .collect(),
        ..ResolverConfig::default()
    }
}

impl<'a> World<'a> {
    fn new(config: ResolverConfig, act: impl FnMut(&DnsTransmit, &[u8]) -> Act + 'a) -> Self {
        let now = Instant::from_micros(1_000_000);
        Self {
            now,
            begun: now,
            resolver: Resolver::new(config, 7),
            act: Box::new(act),
            wire: Vec::new(),
            sent: Vec::new(),
        }
    }

    fn start(&mut self, host: &str) {
        self.begun = self.now;
        self.resolver.start(self.now, host, &BOTH);
    }

    fn drain(&mut self) {
        while let Some(transmit) = self.resolver.poll_transmit() {
            let query = &transmit.bytes[if transmit.is_stream { 2 } else { 0 }..];
            match (self.act)(&transmit, query) {
                Act::Silent => {}
                Act::Unreachable => self.wire.push((self.now, transmit.exchange, None)),
                Act::Send(after, bytes) => {
                    let mut bytes = bytes;
                    if transmit.is_stream {
                        let length = u16::try_from(bytes.len()).unwrap();
                        bytes.splice(..0, length.to_be_bytes());
                    }
                    self.wire
                        .push((self.now + ms(after), transmit.exchange, Some(bytes)));
                }
            }
            self.sent.push(transmit);
        }
    }

    /// Runs until more is known; returns it with the time since the start in milliseconds.
    fn next(&mut self) -> (Resolved, u128) {
        for _ in 0..10_000 {
            if let Some((_, resolved)) = self.resolver.poll_event() {
                return (resolved, self.now.saturating_since(self.begun).as_millis());
            }
            self.drain();
            let arrival = self.wire.iter().map(|(at, ..)| *at).min();
            let next = [arrival, self.resolver.poll_timeout()]
                .into_iter()
                .flatten()
                .min();
            self.now = self.now.max(next.expect("nothing more will happen"));
            let arrived = self
                .wire
                .extract_if(.., |(at, ..)| *at <= self.now)
                .collect::<Vec<_>>();
            for (_, exchange, bytes) in arrived {
                match bytes {
                    // A stream may arrive in pieces.
                    Some(bytes)
                        if self
                            .sent
                            .iter()
                            .any(|sent| sent.exchange == exchange && sent.is_stream) =>
                    {
                        for piece in bytes.chunks(7) {
                            self.resolver.handle_bytes(self.now, exchange, piece);
                        }
                    }
                    Some(bytes) => self.resolver.handle_bytes(self.now, exchange, &bytes),
                    None => self.resolver.handle_failure(self.now, exchange),
                }
            }
            if self
                .resolver
                .poll_timeout()
                .is_some_and(|at| at <= self.now)
            {
                self.resolver.handle_timeout(self.now);
            }
        }
        panic!("no end");
    }

    /// Runs to the final outcome.
    fn finish(&mut self) -> (Resolved, u128) {
        loop {
            match self.next() {
                (Resolved::Partial(_), _) => {}
                last => return last,
            }
        }
    }
}

/// Answers both questions after `v6` and `v4` milliseconds.
fn both(query: &[u8], v6: u64, v4: u64) -> Act {
    match asked(query).1 {
        true => answer(v6, query, "2001:db8::1"),
        false => answer(v4, query, "192.0.2.80"),
    }
}

#[test]
fn late_answers_are_reported_as_rfc_8305_says() {
    let (v6, v4) = ("2001:db8::1", "192.0.2.80");
    let all = Resolved::Complete(ips(&[v6, v4]));
    for (name, (v6_after, v4_after), want) in [
        (
            "at once",
            (20, 20),
            vec![(Resolved::Partial(ips(&[v6])), 20), (all.clone(), 20)],
        ),
        ("AAAA a little late", (60, 20), vec![(all.clone(), 60)]),
        (
            "AAAA late",
            (71, 20),
            vec![(Resolved::Partial(ips(&[v4])), 70), (all.clone(), 71)],
        ),
        (
            "AAAA 2 s late",
            (2000, 0),
            vec![(Resolved::Partial(ips(&[v4])), 50), (all.clone(), 2000)],
        ),
        (
            "A late",
            (20, 500),
            vec![(Resolved::Partial(ips(&[v6])), 20), (all, 500)],
        ),
    ] {
        let mut world = World::new(config(1), |_, query| both(query, v6_after, v4_after));
        world.start("files.test");
        for want in want {
            assert_eq!(world.next(), want, "{name}");
        }
        assert_eq!(world.resolver.poll_timeout(), None, "{name}");
        world.start("files.test");
        assert_eq!(
            world.finish(),
            (Resolved::Complete(ips(&[v6, v4])), 0),
            "kept"
        );
        assert_eq!(world.sent.len(), 2, "{name}");
    }
}

#[test]
fn one_type_may_fail() {
    for bad in [RCODE::ServerFailure, RCODE::NameError, RCODE::NoError] {
        let mut world = World::new(config(1), |_, query| match asked(query).1 {
            true => code(query, bad),
            false => answer(20, query, "192.0.2.80"),
        });
        world.start("files.test");
        assert_eq!(
            world.finish(),
            (Resolved::Complete(ips(&["192.0.2.80"])), 20),
            "{bad:?}"
        );
    }
}

#[test]
fn failures_name_what_happened() {
    let server: SocketAddr = "192.0.2.1:53".parse().unwrap();
    let silent = ResolveError::Silent(vec![server]);
    type Server = fn(&DnsTransmit, &[u8]) -> Act;
    let cases: [(&str, Server, ResolveError, u128); 8] = [
        (
            "no name",
            |_, query| code(query, RCODE::NameError),
            ResolveError::NoName,
            5,
        ),
        (
            "no data",
            |_, query| code(query, RCODE::NoError),
            ResolveError::NoAddresses(BOTH.to_vec()),
            5,
        ),
        (
            "servfail",
            |_, query| code(query, RCODE::ServerFailure),
            ResolveError::ServerFailed(server, "SERVFAIL"),
            5,
        ),
        ("silence", |_, _| Act::Silent, silent.clone(), 10_000),
        ("unreachable", |_, _| Act::Unreachable, silent.clone(), 0),
        (
            "wrong identifier",
            |_, query| {
                let mut query = query.to_vec();
                query[0] ^= 1;
                answer(5, &query, "192.0.2.66")
            },
            silent.clone(),
            10_000,
        ),
        (
            "truncated, and no TCP",
            |transmit, query| match transmit.is_stream {
                true => Act::Unreachable,
                false => Act::Send(5, Response::to(query).truncated().bytes()),
            },
            silent,
            10,
        ),
        (
            "loop of aliases",
            |_, query| {
                let name = asked(query).0;
                Act::Send(
                    5,
                    Response::to(query)
                        .alias(&name, 60, "b.test")
                        .alias("b.test", 60, &name)
                        .bytes(),
                )
            },
            ResolveError::ServerFailed(server, "a loop of aliases, or too long a chain"),
            5,
        ),
    ];
    for (name, act, want, after) in cases {
        let mut world = World::new(config(1), act);
        world.start("files.test");
        assert_eq!(world.finish(), (Resolved::Failed(want), after), "{name}");
    }
}

#[test]
fn some_names_are_never_queried() {
    for (host, want) in [
        ("a..b", ResolveError::InvalidName),
        ("x.onion", ResolveError::NoName),
    ] {
        let mut world = World::new(config(1), |_, _| Act::Silent);
        world.start(host);
        assert_eq!(world.finish(), (Resolved::Failed(want), 0), "{host}");
        assert_eq!(world.sent, []);
    }
    let mut alone = World::new(config(0), |_, _| Act::Silent);
    alone.start("files.test");
    let (Resolved::Failed(none), 0) = alone.finish() else {
        panic!("an outcome");
    };
    assert_eq!(
        none.to_string(),
        "no answer from any DNS server: none is configured"
    );
}

#[test]
fn long_and_respelled_responses_are_fetched_over_tcp() {
    let long = |query: &[u8]| {
        let name = asked(query).0;
        let start = Response::to(query);
        let family = |n: u32| match asked(query).1 {
            true => format!("2001:db8::{n}"),
            false => format!("10.0.0.{n}"),
        };
        (0..200)
            .fold(start, |response, n| response.address(&name, 60, &family(n)))
            .bytes()
    };
    let mut truncating = World::new(config(1), |transmit, query| match transmit.is_stream {
        true => Act::Send(5, long(query)),
        false => Act::Send(5, Response::to(query).truncated().bytes()),
    });
    truncating.start("files.test");
    let (Resolved::Complete(found), 10) = truncating.finish() else {
        panic!("addresses");
    };
    assert_eq!(found.len(), 2 * MAX_RECORDS);
    assert_eq!(
        truncating.sent.iter().filter(|sent| sent.is_stream).count(),
        2
    );
    let mut lowering = World::new(config(1), |_, query| {
        let lower = query.to_ascii_lowercase();
        both(&[&query[..12], &lower[12..]].concat(), 5, 5)
    });
    lowering.start("files.test");
    assert!(matches!(lowering.finish(), (Resolved::Complete(_), 10)));
}

#[test]
fn a_server_without_edns_is_queried_without() {
    let mut world = World::new(config(1), |_, query| {
        match Packet::parse(query).unwrap().opt() {
            Some(_) => code(query, RCODE::FormatError),
            None => both(query, 5, 5),
        }
    });
    world.start("files.test");
    assert!(matches!(world.finish(), (Resolved::Complete(_), 10)));
}

#[test]
fn the_next_server_answers_for_one_that_does_not() {
    let by = |server: u8, bad: fn(&[u8]) -> Act| {
        move |transmit: &DnsTransmit, query: &[u8]| match transmit.server.ip()
            == ip(&format!("192.0.2.{server}"))
        {
            true => both(query, 20, 20),
            false => bad(query),
        }
    };
    for (name, bad, after) in [
        ("silent", (|_| Act::Silent) as fn(&[u8]) -> Act, 5_020),
        ("unreachable", |_| Act::Unreachable, 20),
        ("refuses", |query| code(query, RCODE::Refused), 25),
    ] {
        let mut world = World::new(config(2), by(2, bad));
        world.start("files.test");
        let (found, took) = world.finish();
        assert_eq!(
            (took, matches!(found, Resolved::Complete(_))),
            (after, true),
            "{name}"
        );
    }
    // The answer of a slow server counts after the next one was queried.
    let mut slow = World::new(config(2), |transmit, query| {
        match transmit.server.ip() == ip("192.0.2.1") {
            true => both(query, 6_000, 6_000),
            false => Act::Silent,
        }
    });
    slow.start("files.test");
    assert!(matches!(slow.finish(), (Resolved::Complete(_), 6_000)));
}

#[test]
fn rotation_and_rounds_are_as_configured() {
    let servers = |rotate, attempts| {
        let config = ResolverConfig {
            rotate,
            attempts,
            ..config(3)
        };
        let mut world = World::new(config, |_, _| Act::Unreachable);
        let mut last = Vec::new();
        for host in ["a.test", "b.test"] {
            world.start(host);
            world.finish();
            let queries = world.sent.drain(..).filter(|sent| asked(&sent.bytes).1);
            last = queries
                .map(|sent| sent.server.ip().to_string().pop().unwrap())
                .collect::<Vec<char>>();
        }
        last.into_iter().collect::<String>()
    };
    assert_eq!(servers(false, 2), "123123");
    assert_eq!(servers(true, 1), "231");
}

#[test]
fn names_with_few_dots_are_searched_for() {
    let search: Vec<DnsName> = ["a.test", "b.test"]
        .map(|name| DnsName::parse(name).unwrap())
        .into();
    let names = |host: &str, known: &str| {
        let config = ResolverConfig {
            search: search.clone(),
            ndots: 1,
            ..config(1)
        };
        let mut world = World::new(config, |_, query| match asked(query).0 == known {
            true => both(query, 5, 5),
            false => code(query, RCODE::NameError),
        });
        world.start(host);
        let found = matches!(world.finish().0, Resolved::Complete(_));
        let mut names: Vec<String> = world.sent.iter().map(|sent| asked(&sent.bytes).0).collect();
        names.dedup();
        (found, names.join(" "))
    };
    assert_eq!(
        names("h", "h.b.test"),
        (true, "h.a.test h.b.test".to_owned())
    );
    assert_eq!(names("h", "h"), (true, "h.a.test h.b.test h".to_owned()));
    assert_eq!(names("h.", "h.b.test"), (false, "h".to_owned()));
    assert_eq!(
        names("h.x", "h.x.a.test"),
        (true, "h.x h.x.a.test".to_owned())
    );
    assert_eq!(names("h", ""), (false, "h.a.test h.b.test h".to_owned()));
}

#[test]
fn identifiers_and_spellings_are_random_and_exchanges_of_their_own() {
    let mut world = World::new(config(1), |_, query| code(query, RCODE::NameError));
    for n in 0..50 {
        world.start(&format!("a-rather-long-name-{n}.example.test"));
        world.finish();
    }
    let ids: std::collections::BTreeSet<[u8; 2]> = world
        .sent
        .iter()
        .map(|sent| [sent.bytes[0], sent.bytes[1]])
        .collect();
    assert!(ids.len() > 95, "{} of 100", ids.len());
    let exchanges: std::collections::BTreeSet<ExchangeId> =
        world.sent.iter().map(|sent| sent.exchange).collect();
    assert_eq!(exchanges.len(), 100);
    let upper = world.sent.iter().map(|sent| {
        sent.bytes
            .iter()
            .filter(|byte| byte.is_ascii_uppercase())
            .count()
    });
    let upper: usize = upper.sum();
    assert!((1000..2000).contains(&upper), "about half of 3000: {upper}");
}

#[test]
fn nothing_is_kept_that_was_not_the_question() {
    let mut world = World::new(config(1), |_, query| {
        let name = asked(query).0;
        let response = Response::to(query).address("bank.test", 600, "192.0.2.66");
        let response =
            response
                .alias(&name, 60, "alias.test")
                .address("alias.test", 60, "192.0.2.80");
        Act::Send(5, response.bytes())
    });
    world.start("files.test");
    world.finish();
    let known = |name: &str| {
        let name = DnsName::parse(name).unwrap();
        let kinds = BOTH.into_iter();
        kinds
            .filter(|&kind| {
                world
                    .resolver
                    .known(
                        world.now,
                        &Question {
                            name: name.clone(),
                            kind,
                        },
                    )
                    .is_some()
            })
            .count()
    };
    assert_eq!(
        (known("files.test"), known("alias.test"), known("bank.test")),
        (1, 0, 0)
    );
}

#[test]
fn the_numbers_of_look_ups_and_exchanges_are_bounded() {
    let many = ResolverConfig {
        attempts: MAX_ROUNDS,
        ..config(8)
    };
    let mut world = World::new(many, |_, _| Act::Silent);
    for n in 0..=MAX_RUNNING_LOOKUPS {
        world.start(&format!("h{n}.test"));
    }
    assert!(matches!(
        world.next(),
        (Resolved::Failed(ResolveError::Silent(_)), 0)
    ));
    assert_eq!(world.resolver.lookups.len(), MAX_RUNNING_LOOKUPS);
    world.finish();
    let of_one = world
        .sent
        .iter()
        .filter(|sent| asked(&sent.bytes) == ("h1.test".to_owned(), true));
    assert!(of_one.clone().count() > MAX_EXCHANGES);
    let mut other = World::new(config(1), |_, _| Act::Silent);
    other.start("h.test");
    other.start("h.test");
    assert_eq!(other.resolver.lookups.len(), 1, "the same host again");
}

proptest! {
    /// Whatever servers send, each look-up has one final outcome, in the time of its rounds.
    #[test]
    fn every_look_up_ends(
        servers in 0u8..4,
        acts in prop::collection::vec((0u8..9, 0u64..9_000), 1..24),
    ) {
        let mut turn = 0;
        let mut world = World::new(config(servers), |_, query| {
            let (act, after) = acts[turn % acts.len()];
            turn += 1;
            match act {
                0 => Act::Silent,
                1 => Act::Unreachable,
                2 => Act::Send(after, Response::to(query).truncated().bytes()),
                3 => code(query, RCODE::ServerFailure),
                4 => code(query, RCODE::NameError),
                5 => code(query, RCODE::FormatError),
                6 => Act::Send(after, query.to_ascii_lowercase()),
                7 => Act::Send(after, vec![0; 9]),
                _ => both(query, after, after),
            }
        });
        world.start("files.test");
        let (outcome, after) = world.finish();
        let is_final = !matches!(outcome, Resolved::Partial(_));
        // Two rounds, in each of which a server may be queried again over TCP and without EDNS.
        prop_assert!(is_final && after <= u128::from(servers) * 2 * 3 * 5_000);
        prop_assert!(world.resolver.poll_event().is_none());
        prop_assert!(world.resolver.lookups.is_empty() && world.resolver.poll_timeout().is_none());
    }
}
