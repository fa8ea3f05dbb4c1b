//! Targets of `connect::resolve`: responses of DNS servers, whole look-ups, and the files of the system.
//!
//! In: any bytes. Laws: nothing panics; an answer has records of the type in question, in bounded number and for a
//! bounded time; a look-up ends, and keeps no answer to another question.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use headwater::internals::connect::resolve::{
    Answer, DnsName, Hosts, MAX_RECORDS, MAX_SEARCH_DOMAINS, MAX_SERVERS, MAX_TTL, Question,
    RecordType, Records, Reply, Resolved, Resolver, ResolverConfig, Sent, parse_servers,
    sort_addresses,
};
use headwater::internals::time::Instant;

use super::input::{Input, mutate};

const KINDS: [RecordType; 3] = [RecordType::A, RecordType::Aaaa, RecordType::Https];

/// The query that the corpus answers.
fn query(kind: RecordType) -> Sent {
    Sent {
        id: 0x1234,
        spelling: "fIles.Test".to_owned(),
        kind,
        edns: true,
    }
}

/// A response to a fixed query: the first byte has its type, and whether it came over TCP.
pub fn dns_response(data: &[u8]) {
    let [first, bytes @ ..] = data else { return };
    let kind = KINDS[usize::from(first % 3)];
    let Reply::Answer(Answer { records, ttl }) = query(kind).read(bytes, first & 0x80 != 0) else {
        return;
    };
    assert!(ttl <= MAX_TTL);
    match records {
        Records::Addresses(addresses) => {
            let fits = |address: &IpAddr| address.is_ipv4() == (kind == RecordType::A);
            assert!(kind != RecordType::Https && addresses.iter().all(fits));
            assert!((1..=MAX_RECORDS).contains(&addresses.len()));
            let mut sorted = addresses.clone();
            sort_addresses(&mut sorted, |address| {
                (first & 0x40 == 0).then_some(address)
            });
            assert_eq!(sorted.len(), addresses.len());
        }
        Records::Https(endpoints) => {
            assert!(kind == RecordType::Https && (1..=MAX_RECORDS).contains(&endpoints.len()));
        }
        Records::NoName | Records::NoData => {}
    }
}

/// A look-up whose servers do as the bytes say.
pub fn resolver(data: &[u8]) {
    let mut input = Input::new(data);
    let config = ResolverConfig {
        servers: (1..=input.below(4))
            .map(|n| SocketAddr::from(([192, 0, 2, n as u8], 53)))
            .collect(),
        rotate: input.below(2) == 1,
        ..ResolverConfig::default()
    };
    let mut resolver = Resolver::new(config, 7);
    let mut now = Instant::from_micros(1);
    resolver.start(now, "files.test", &KINDS[..2]);
    let (mut sent, mut ended) = (Vec::new(), false);
    for _ in 0..4000 {
        sent.extend(core::iter::from_fn(|| resolver.poll_transmit()));
        while let Some((host, resolved)) = resolver.poll_event() {
            assert!(host == "files.test" && !ended, "nothing after the end");
            ended = !matches!(resolved, Resolved::Partial(_));
        }
        let Some(deadline) = resolver.poll_timeout() else {
            break;
        };
        let count = sent.len();
        let chosen = (count > 0).then(|| &sent[input.below(count)]);
        match (input.below(3), chosen) {
            (2, Some(query)) => {
                let start = if query.is_stream { 2 } else { 0 };
                let mut bytes = query.bytes[start..].to_vec();
                // A response without records, changed.
                bytes[2] |= 0x80;
                mutate(&mut input, &mut bytes);
                if query.is_stream {
                    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
                    bytes.splice(..0, length.to_be_bytes());
                }
                resolver.handle_bytes(now, query.exchange, &bytes);
            }
            (1, Some(query)) => resolver.handle_failure(now, query.exchange),
            _ => {
                now = now.max(deadline) + Duration::from_micros(input.below(2) as u64);
                resolver.handle_timeout(now);
            }
        }
    }
    while let Some((_, resolved)) = resolver.poll_event() {
        ended |= !matches!(resolved, Resolved::Partial(_));
    }
    assert!(ended, "it ends");
    let question = Question {
        name: DnsName::parse("bank.test").expect("a name"),
        kind: RecordType::A,
    };
    assert_eq!(resolver.known(now, &question), None);
}

/// The text of `resolv.conf`, of a hosts file, and of a list of servers.
pub fn resolv_conf(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let config = ResolverConfig::parse(&text, |name| u32::try_from(name.len()).ok());
    assert!(config.servers.len() <= MAX_SERVERS && config.search.len() <= MAX_SEARCH_DOMAINS);
    assert!(config.attempts > 0 && config.timeout >= Duration::from_secs(1));
    let hosts = Hosts::parse(&text);
    for word in text.split_whitespace().take(20) {
        let _ = hosts.lookup(word);
        if let Ok(servers) = parse_servers(word) {
            assert!((1..=MAX_SERVERS).contains(&servers.len()));
        }
        if let Some(name) = DnsName::parse(word) {
            assert_eq!(DnsName::parse(name.as_str()), Some(name));
        }
    }
}
