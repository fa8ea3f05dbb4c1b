//! Replays the corpora of the fuzz targets on stable Rust, and goes a little beyond them.
//!
//! In: `tests/fuzz/corpus/TARGET/*`. Every file goes through every target, then through its own in
//! mutated forms, from a fixed seed. The ignored test writes the seeds of the corpora anew, from
//! packets of a real session. Never writes anything else.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::ChaCha8Rng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use headwater::internals::wire::flight::{Ecn, UdpPath};
use headwater::internals::wire::ip::{MAX_PACKET, emit_udp};
use headwater::internals::wire::segment::{ToServer, Wanted};

use targets::TARGETS;
use targets::input::{Input, mutate};
use targets::session::{START_UNIX, keys, transcript};

#[path = "fuzz/src/lib.rs"]
pub mod targets;

/// Mutated inputs of each parser.
const FAST_MUTATIONS: usize = 300_000;

/// Mutated inputs of each target that sets up a server.
const SLOW_MUTATIONS: usize = 15_000;

/// Most bytes of a committed corpus file.
const MAX_SEED_BYTES: usize = 4096;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target)
}

/// The files of one corpus, by name.
fn files(target: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(corpus(target)).expect("a corpus for every target");
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            (
                entry.file_name().to_string_lossy().into_owned(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

#[test]
fn every_corpus_passes_every_target() {
    for (own, _) in TARGETS {
        let files = files(own);
        assert!(!files.is_empty(), "the corpus of {own} is empty");
        for (name, bytes) in files {
            assert!(bytes.len() <= MAX_SEED_BYTES, "{own}/{name} is too long");
            for (_, target) in TARGETS {
                target(&bytes);
            }
        }
    }
}

/// Bytes of one corpus file, changed a few times, now and then spliced with another.
fn mutated(random: &mut ChaCha8Rng, files: &[Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut ChaCha8Rng| &files[random.random_range(0..files.len())];
    let mut bytes = pick(random).clone();
    if random.random_ratio(1, 4) {
        let other = pick(random);
        let at = random.random_range(0..=bytes.len());
        bytes.truncate(at);
        bytes.extend(&other[random.random_range(0..=other.len())..]);
    }
    let mut decisions = vec![0; 64];
    random.fill_bytes(&mut decisions);
    let mut input = Input::new(&decisions);
    for _ in 0..random.random_range(0..5) {
        mutate(&mut input, &mut bytes);
    }
    if random.random_ratio(1, 4) {
        let mut tail = vec![0; random.random_range(0..200)];
        random.fill_bytes(&mut tail);
        bytes.extend(tail);
    }
    bytes
}

/// Feeds a target `count` mutated inputs; on a failure says which, to be made a corpus file.
fn explore(target: &str, count: usize) {
    let (name, run) = TARGETS
        .into_iter()
        .find(|(name, _)| *name == target)
        .expect("a target");
    let files: Vec<_> = files(name).into_values().collect();
    let mut random = ChaCha8Rng::seed_from_u64(0x6675_7a7a);
    for index in 0..count {
        let bytes = mutated(&mut random, &files);
        if std::panic::catch_unwind(|| run(&bytes)).is_err() {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            panic!("{name} fails on input {index}: {hex}");
        }
    }
}

#[test]
fn parsers_stand_mutated_inputs() {
    for target in [
        "continuation",
        "dns_response",
        "http_request",
        "http_response",
        "ip",
        "keyring",
        "resolv_conf",
        "to_client",
        "to_server",
    ] {
        explore(target, FAST_MUTATIONS);
    }
}

#[test]
fn look_ups_stand_mutated_inputs() {
    explore("resolver", SLOW_MUTATIONS);
}

#[test]
fn capsules_stand_mutated_inputs() {
    explore("capsule", SLOW_MUTATIONS);
}

#[test]
fn the_server_stands_mutated_inputs() {
    explore("server", SLOW_MUTATIONS);
}

#[test]
fn the_client_stands_mutated_inputs() {
    explore("client", SLOW_MUTATIONS);
}

#[test]
fn the_machine_stands_mutated_inputs() {
    explore("host", SLOW_MUTATIONS);
}

/// Every so many-th element, so that the seeds are few and of every kind.
fn sample<T>(all: &[T], most: usize) -> impl Iterator<Item = &T> {
    all.iter().step_by((all.len() / most).max(1)).take(most)
}

fn udp_packet(path: UdpPath, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; MAX_PACKET];
    let length = emit_udp(path, Ecn::Ect0, payload, 1, &mut packet).unwrap();
    packet.truncate(length);
    packet
}

/// Sealed continuations of the transcript, each behind the bytes that `continuation` reads first.
fn continuations() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for sent in sample(&transcript().to_server, 40) {
        let Ok(ToServer::Request(request)) = ToServer::parse(&sent.datagram) else {
            continue;
        };
        let mut seed = vec![0];
        seed.extend(request.connection.to_be_bytes());
        let now = sent.now.unix.as_millis() - START_UNIX;
        seed.extend(u32::try_from(now).unwrap().to_be_bytes());
        seed.extend(request.continuation);
        seeds.push(seed);
        if let Wanted::Of(user) = request.wanted {
            seeds.push([&[1], user].concat());
        }
    }
    seeds.extend([vec![2], vec![3]]);
    seeds.extend((2..4).map(|kind| {
        (0..200)
            .map(|at| if at == 0 { kind } else { 0xfe })
            .collect()
    }));
    seeds
}

const REQUESTS: [&str; 8] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD /a%20b/../c?q#f HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET http://a/b HTTP/1.0\r\nRange: bytes=0-1\r\nIf-Range: \"tag\"\r\n\r\n",
    "GET /.dynamic/7/1000 HTTP/1.1\r\nHost: a\r\nRange: bytes=-5\r\n\r\n",
    "GET /x HTTP/1.1\r\nIf-None-Match: \"a\", W/\"tag\"\r\nIf-Match: *\r\n\r\n",
    "GET /x HTTP/1.1\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
    "POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "GET /..%2f..%2fetc/passwd HTTP/1.1\r\nRepr-Digest: sha-256=:AAAA:\r\n\r\n",
];

const RESPONSES: [&str; 8] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.0 200 OK\r\n\r\nuntil the end",
    "HTTP/1.1 304 Not Modified\r\nETag: \"tag\"\r\n\r\n",
    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/5\r\nContent-Length: 2\r\n\r\nhe",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\nffffffffffffffff\n",
];

const SYSTEM_FILES: [&str; 3] = [
    "nameserver 192.0.2.53\nnameserver fe80::1%eth0\nsearch a.test b.test\noptions ndots:2 timeout:1 attempts:3 rotate",
    "127.0.0.1 localhost\n2001:db8::7 files Files.example # both\n",
    "192.0.2.1,192.0.2.2:5353,[2001:db8::1]:54",
];

/// Responses to the query of the target, each behind the byte that `dns_response` reads first.
fn dns_responses() -> Vec<Vec<u8>> {
    use simple_dns::rdata::{A, AAAA, CNAME, HTTPS, RData, SOA, SVCB};
    use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, ResourceRecord, TYPE};
    let name = |text: &'static str| Name::new(text).unwrap();
    let record = |owner, data| ResourceRecord::new(name(owner), CLASS::IN, 60, data);
    let mut endpoint = SVCB::new(1, name("svc.test"));
    endpoint.set_port(8443);
    endpoint.set_ipv4hint(&[0xc000_0201]);
    let soa = SOA {
        mname: name("ns.test"),
        rname: name("root.test"),
        serial: 1,
        refresh: 1,
        retry: 1,
        expire: 1,
        minimum: 60,
    };
    let alias = || record("files.test", RData::CNAME(CNAME(name("b.test"))));
    let v4 = || {
        record(
            "b.test",
            RData::A(A {
                address: 0xc000_0201,
            }),
        )
    };
    let kinds: [(u8, TYPE, Vec<ResourceRecord<'_>>); 5] = [
        (0, TYPE::A, vec![alias(), v4()]),
        (0x80, TYPE::A, vec![v4(), alias()]),
        (
            1,
            TYPE::AAAA,
            vec![record("files.test", RData::AAAA(AAAA { address: 1 }))],
        ),
        (
            2,
            TYPE::HTTPS,
            vec![record("files.test", RData::HTTPS(HTTPS(endpoint)))],
        ),
        (0, TYPE::A, vec![]),
    ];
    let seed = |(first, kind, answers): (u8, TYPE, Vec<ResourceRecord<'_>>)| {
        let mut packet = Packet::new_reply(0x1234);
        packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
        let question = simple_dns::Question::new(
            name("fIles.Test"),
            QTYPE::TYPE(kind),
            QCLASS::CLASS(CLASS::IN),
            false,
        );
        packet.questions.push(question);
        packet.answers = answers;
        packet
            .name_servers
            .push(record("test", RData::SOA(soa.clone())));
        [&[first], &packet.build_bytes_vec_compressed().unwrap()[..]].concat()
    };
    kinds.into_iter().map(seed).collect()
}

/// Programs for the targets that read decisions: a few that do as little as possible, one of every
/// length of pseudorandom bytes.
fn programs() -> Vec<Vec<u8>> {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let fill = |length: usize, random: &mut ChaCha8Rng| {
        let mut bytes = vec![0; length];
        random.fill_bytes(&mut bytes);
        bytes
    };
    let mut programs: Vec<_> = (1..=20).map(|step| fill(step * 30, &mut random)).collect();
    programs.extend((0..6).map(|byte| vec![byte; 120]));
    programs
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let transcript = transcript();
    let text = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target {
        "capsule" => sample(&transcript.to_server, 12)
            .zip((0_u8..).step_by(7))
            .map(|(sent, kind)| [&[kind, 1, 1, 2, kind, 0], &sent.datagram[..]].concat())
            .collect(),
        "to_server" => sample(&transcript.to_server, 30)
            .map(|sent| sent.datagram.clone())
            .collect(),
        "to_client" => sample(&transcript.to_client, 30)
            .map(|sent| sent.datagram.clone())
            .collect(),
        "ip" => sample(&transcript.to_server, 15)
            .chain(sample(&transcript.to_client, 5))
            .map(|sent| udp_packet(sent.path, &sent.datagram))
            .collect(),
        "continuation" => continuations(),
        "keyring" => vec![
            keys().to_text().into_bytes(),
            keys()
                .staged([1; 32])
                .unwrap()
                .rotated([2; 32])
                .unwrap()
                .to_text()
                .into_bytes(),
            b"headwater-keys 1\n# none\nend\n".to_vec(),
        ],
        "dns_response" => dns_responses(),
        "resolv_conf" => text(&SYSTEM_FILES),
        "http_request" => text(&REQUESTS),
        "http_response" => RESPONSES
            .iter()
            .zip((0..).step_by(31))
            .map(|(text, cut)| [&[cut], text.as_bytes()].concat())
            .collect(),
        _ => programs(),
    }
}

#[test]
#[ignore = "writes files: the seeds of the corpora, from packets of the present protocol"]
fn write_seeds() {
    for (target, _) in TARGETS {
        fs::create_dir_all(corpus(target)).unwrap();
        for (index, seed) in seeds(target).into_iter().enumerate() {
            fs::write(corpus(target).join(format!("seed-{index:02}")), seed).unwrap();
        }
    }
}
