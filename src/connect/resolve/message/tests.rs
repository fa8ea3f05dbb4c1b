//! Responses of servers, honest and not, and their meanings.

use proptest::prelude::*;
use simple_dns::rdata::{A, AAAA, CNAME, HTTPS, SOA};

use super::*;

/// A response under construction.
pub(in super::super) struct Response(Packet<'static>);

fn name(text: &str) -> Name<'static> {
    Name::new(text).unwrap().into_owned()
}

fn record(owner: &str, ttl: u32, rdata: RData<'static>) -> ResourceRecord<'static> {
    ResourceRecord::new(name(owner), CLASS::IN, ttl, rdata)
}

impl Response {
    /// An answer to the query with these bytes, without records yet.
    pub(in super::super) fn to(query: &[u8]) -> Self {
        let query = Packet::parse(query).unwrap();
        let mut reply = Packet::new_reply(query.id());
        reply.set_flags(PacketFlag::RECURSION_AVAILABLE | PacketFlag::RECURSION_DESIRED);
        reply.questions = query
            .questions
            .into_iter()
            .map(WireQuestion::into_owned)
            .collect();
        Self(reply)
    }

    pub(in super::super) fn code(mut self, code: RCODE) -> Self {
        *self.0.rcode_mut() = code;
        self
    }

    pub(in super::super) fn address(mut self, owner: &str, ttl: u32, address: &str) -> Self {
        let rdata = match address.parse().unwrap() {
            IpAddr::V4(v4) => RData::A(A { address: v4.into() }),
            IpAddr::V6(v6) => RData::AAAA(AAAA { address: v6.into() }),
        };
        self.0.answers.push(record(owner, ttl, rdata));
        self
    }

    pub(in super::super) fn alias(mut self, owner: &str, ttl: u32, target: &str) -> Self {
        let rdata = RData::CNAME(CNAME(name(target)));
        self.0.answers.push(record(owner, ttl, rdata));
        self
    }

    pub(in super::super) fn soa(mut self, zone: &str, ttl: u32, minimum: u32) -> Self {
        let rdata = RData::SOA(SOA {
            mname: name("ns.test"),
            rname: name("root.test"),
            serial: 1,
            refresh: 1,
            retry: 1,
            expire: 1,
            minimum,
        });
        self.0.name_servers.push(record(zone, ttl, rdata));
        self
    }

    pub(in super::super) fn truncated(mut self) -> Self {
        self.0.set_flags(PacketFlag::TRUNCATION);
        self
    }

    fn extra(mut self, owner: &str, address: &str) -> Self {
        let Self(answer) = Self(Packet::new_reply(0)).address(owner, 60, address);
        self.0.additional_records.extend(answer.answers);
        self
    }

    pub(in super::super) fn bytes(self) -> Vec<u8> {
        self.0.build_bytes_vec_compressed().unwrap()
    }
}

fn sent(kind: RecordType) -> Sent {
    Sent {
        id: 0x1234,
        spelling: "fIles.Test".to_owned(),
        kind,
        edns: true,
    }
}

fn to(query: &Sent) -> Response {
    Response::to(&query.to_bytes(MAX_UDP_RESPONSE))
}

fn addresses(texts: &[&str], seconds: u64) -> Reply {
    let addresses = texts.iter().map(|text| text.parse().unwrap()).collect();
    answer(Records::Addresses(addresses), seconds)
}

fn answer(records: Records, seconds: u64) -> Reply {
    let ttl = Duration::from_secs(seconds);
    Reply::Answer(Answer { records, ttl })
}

#[test]
fn names_have_the_form_of_the_dns() {
    let longest = [["a"; 63].concat().as_str(); 3].join(".") + "." + &"b".repeat(61);
    for (text, want) in [
        ("Files.Test.", Some("files.test")),
        ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
        ("_x-1", Some("_x-1")),
        (longest.as_str(), Some(longest.as_str())),
        ("", None),
        (".", None),
        ("a..b", None),
        ("a b", None),
        ("a\\.b", None),
        ("b\u{fc}cher", None),
        (&(longest.clone() + "b"), None),
        (&"a".repeat(64), None),
    ] {
        let got = DnsName::parse(text);
        assert_eq!(got.as_ref().map(DnsName::as_str), want, "{text}");
    }
}

#[test]
fn a_query_has_one_question_and_announces_edns() {
    let query = sent(RecordType::Aaaa);
    let bytes = query.to_bytes(1232);
    let want = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\x01\x05fIles\x04Test\0\0\x1c\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0";
    assert_eq!(bytes, want);
    let plain = Sent {
        edns: false,
        ..query
    };
    assert_eq!(plain.to_bytes(1232).len(), want.len() - 11);
}

#[test]
fn records_of_the_name_and_its_aliases_answer() {
    use RecordType::{A, Aaaa};
    let v4 = sent(A);
    let cases = [
        (
            "address",
            to(&v4).address("files.test", 60, "192.0.2.1"),
            addresses(&["192.0.2.1"], 60),
        ),
        (
            "twice, shortest time",
            to(&v4)
                .address("files.test", 60, "192.0.2.1")
                .address("FILES.test", 30, "192.0.2.1")
                .address("files.test", 90, "192.0.2.2"),
            addresses(&["192.0.2.1", "192.0.2.2"], 30),
        ),
        (
            "aliases in any order",
            to(&v4)
                .address("c.test", 60, "192.0.2.3")
                .alias("b.test", 50, "c.test")
                .alias("files.test", 70, "b.test"),
            addresses(&["192.0.2.3"], 50),
        ),
        (
            "others lie",
            to(&v4)
                .address("bank.test", 60, "192.0.2.66")
                .alias("bank.test", 60, "files.test")
                .address("files.test", 60, "192.0.2.1")
                .extra("files.test", "192.0.2.67")
                .extra("bank.test", "192.0.2.68"),
            addresses(&["192.0.2.1"], 60),
        ),
        (
            "another type",
            to(&v4).address("files.test", 60, "2001:db8::1"),
            answer(Records::NoData, 0),
        ),
        (
            "only additional",
            to(&v4).extra("files.test", "192.0.2.66"),
            answer(Records::NoData, 0),
        ),
        (
            "highest bit of a TTL",
            to(&v4).address("files.test", 1 << 31, "192.0.2.1"),
            addresses(&["192.0.2.1"], 0),
        ),
        (
            "a long time",
            to(&v4).address("files.test", 1 << 30, "192.0.2.1"),
            addresses(&["192.0.2.1"], 86_400),
        ),
    ];
    for (case, response, want) in cases {
        assert_eq!(v4.read(&response.bytes(), false), want, "{case}");
    }
    let v6 = sent(Aaaa);
    let response = to(&v6).address("files.test", 60, "2001:db8::1").bytes();
    assert_eq!(v6.read(&response, false), addresses(&["2001:db8::1"], 60));
}

#[test]
fn other_answers_say_why_there_are_no_records() {
    let v4 = sent(RecordType::A);
    let cases = [
        (
            "no name",
            to(&v4).code(RCODE::NameError).soa("test", 300, 60),
            answer(Records::NoName, 60),
        ),
        (
            "no data",
            to(&v4).soa("files.test", 30, 60),
            answer(Records::NoData, 30),
        ),
        (
            "long negative",
            to(&v4).soa("test", 1 << 20, 1 << 20),
            answer(Records::NoData, 10_800),
        ),
        (
            "a foreign zone",
            to(&v4).code(RCODE::NameError).soa("example", 300, 60),
            answer(Records::NoName, 0),
        ),
        (
            "an alias without records",
            to(&v4)
                .alias("files.test", 20, "b.test")
                .soa("test", 300, 60),
            answer(Records::NoData, 20),
        ),
        (
            "loop",
            to(&v4)
                .alias("files.test", 60, "b.test")
                .alias("b.test", 60, "Files.test"),
            Reply::Failed("a loop of aliases, or too long a chain"),
        ),
        (
            "alias of itself",
            to(&v4).alias("files.test", 60, "files.test"),
            Reply::Failed("a loop of aliases, or too long a chain"),
        ),
        (
            "servfail",
            to(&v4).code(RCODE::ServerFailure),
            Reply::Failed("SERVFAIL"),
        ),
        (
            "refused",
            to(&v4).code(RCODE::Refused),
            Reply::Failed("REFUSED"),
        ),
        ("formerr", to(&v4).code(RCODE::FormatError), Reply::NoEdns),
        ("truncated", to(&v4).truncated(), Reply::Truncated),
    ];
    for (case, response, want) in cases {
        assert_eq!(v4.read(&response.bytes(), false), want, "{case}");
    }
    let plain = Sent { edns: false, ..v4 };
    let response = to(&plain).code(RCODE::FormatError).bytes();
    assert_eq!(plain.read(&response, false), Reply::Failed("FORMERR"));
}

#[test]
fn chains_and_records_are_bounded() {
    let query = sent(RecordType::A);
    let chain = |length: usize| {
        let owner = |n: usize| match n {
            0 => "files.test".to_owned(),
            n => format!("a{n}.test"),
        };
        let links = (0..length).fold(to(&query), |response, n| {
            response.alias(&owner(n), 60, &owner(n + 1))
        });
        links.address(&owner(length), 60, "192.0.2.1").bytes()
    };
    assert_eq!(
        query.read(&chain(MAX_ALIASES), true),
        addresses(&["192.0.2.1"], 60)
    );
    assert!(matches!(
        query.read(&chain(MAX_ALIASES + 1), true),
        Reply::Failed(_)
    ));
    let many = (0..200).fold(to(&query), |response, n| {
        response.address("files.test", 60, &format!("192.0.2.{n}"))
    });
    let Reply::Answer(Answer {
        records: Records::Addresses(many),
        ..
    }) = query.read(&many.bytes(), true)
    else {
        panic!("no addresses");
    };
    assert_eq!(many.len(), MAX_RECORDS);
}

#[test]
fn https_records_are_read() {
    let query = sent(RecordType::Https);
    let mut one = SVCB::new(1, name("svc.test"));
    one.set_port(8443);
    one.set_alpn(&["h2".try_into().unwrap()]);
    one.set_ipv4hint(&[0xc000_0201]);
    one.set_ipv6hint(&[1]);
    let mut response = to(&query);
    let records = [SVCB::new(2, name(".")), one]
        .map(|svcb| record("files.test", 60, RData::HTTPS(HTTPS(svcb))));
    response.0.answers.extend(records);
    let endpoint = |priority, target: &str| HttpsRecord {
        priority,
        target: target.to_owned(),
        port: None,
        alpn: Vec::new(),
        hints: Vec::new(),
    };
    let first = HttpsRecord {
        port: Some(8443),
        alpn: vec!["h2".to_owned()],
        hints: vec!["192.0.2.1".parse().unwrap(), "::1".parse().unwrap()],
        ..endpoint(1, "svc.test.")
    };
    let want = Records::Https(vec![first, endpoint(2, ".")]);
    assert_eq!(query.read(&response.bytes(), false), answer(want, 60));
}

#[test]
fn a_response_to_anything_else_is_foreign() {
    let query = sent(RecordType::A);
    let good = || to(&query).address("files.test", 60, "192.0.2.1").bytes();
    let damaged = |place: usize, value: u8| {
        let mut bytes = good();
        bytes[place] = value;
        bytes
    };
    for (case, bytes) in [
        ("empty", Vec::new()),
        ("header only", good()[..12].to_vec()),
        ("identifier", damaged(1, 0x35)),
        ("a query", damaged(2, 0x01)),
        ("opcode", damaged(2, 0x81 | 2 << 3)),
        ("no question", damaged(5, 0)),
        ("two questions", damaged(5, 2)),
        ("more records than bytes", damaged(6, 255)),
        ("another name", damaged(13, b'x')),
        ("another type", damaged(25, 28)),
        ("another class", damaged(27, 3)),
        ("end in a record", good()[..good().len() - 1].to_vec()),
    ] {
        assert_eq!(query.read(&bytes, false), Reply::Foreign, "{case}");
    }
    let respelled = damaged(13, b'F');
    assert_eq!(query.read(&respelled, false), Reply::Respelled);
    assert_eq!(
        query.read(&respelled, true),
        addresses(&["192.0.2.1"], 60),
        "over TCP"
    );
    // Servers that understand nothing may return the header only.
    let refused = [0x12, 0x34, 0x81, 0x85, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(query.read(&refused, false), Reply::Failed("REFUSED"));
    let referral = {
        let mut response = to(&query);
        response.0.remove_flags(PacketFlag::RECURSION_AVAILABLE);
        response.bytes()
    };
    assert_eq!(query.read(&referral, false), Reply::Failed("no recursion"));
}

proptest! {
    /// Any bytes are read without a panic, and those that answer have addresses of the right family.
    #[test]
    fn any_bytes_are_read(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        damage in prop::collection::vec((12usize..200, any::<u8>()), 0..6),
        is_stream: bool,
    ) {
        let query = sent(RecordType::A);
        let _ = query.read(&bytes, is_stream);
        let mut response = to(&query).alias("files.test", 60, "b.test").address("b.test", 9, "192.0.2.1").soa("test", 1, 1).bytes();
        for (place, value) in damage {
            if let Some(byte) = response.get_mut(place) {
                *byte = value;
            }
        }
        if let Reply::Answer(Answer { records: Records::Addresses(found), .. }) = query.read(&response, is_stream) {
            prop_assert!(found.iter().all(IpAddr::is_ipv4) && found.len() <= MAX_RECORDS);
        }
    }

    #[test]
    fn a_respelled_name_is_the_same(text in "[a-z0-9-]{1,20}(\\.[a-z]{1,9}){0,3}", seed: u64) {
        let name = DnsName::parse(&text).unwrap();
        let mut bits = seed;
        let spelled = name.respelled(|| { bits = bits.rotate_left(1); bits & 1 == 1 });
        prop_assert_eq!(DnsName::parse(&spelled), Some(name));
    }
}
