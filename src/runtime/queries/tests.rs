//! Exchanges over the loopback interface.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use super::*;
use crate::connect::resolve::{RecordType, Resolved, Resolver, ResolverConfig};
use crate::time::Instant;

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Returns queries of a resolver to `server`.
fn queries(server: SocketAddr, tcp_only: bool) -> (Resolver, Vec<DnsTransmit>) {
    let config = ResolverConfig {
        servers: vec![server],
        tcp_only,
        ..ResolverConfig::default()
    };
    let mut resolver = Resolver::new(config, 7);
    resolver.start(Instant::ZERO, "files.test", &[RecordType::A]);
    let queries = std::iter::from_fn(|| resolver.poll_transmit()).collect();
    (resolver, queries)
}

/// Waits for an event, 10 s at most.
fn next(queries: &mut KernelQueries) -> QueryEvent {
    for _ in 0..10_000 {
        if let Some(event) = queries.poll_event() {
            return event;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("no event");
}

#[test]
fn datagrams_of_the_server_arrive_and_no_others() {
    let server = UdpSocket::bind(local()).unwrap();
    let (resolver, sent) = queries(server.local_addr().unwrap(), false);
    let mut exchanges = KernelQueries::new(SocketBinding::default()).unwrap();
    assert!(exchanges.send(&sent[0]));
    let mut buffer = [0; 512];
    let (count, client) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(buffer[..count], sent[0].bytes);
    let other = UdpSocket::bind(local()).unwrap();
    other.send_to(b"forged", client).unwrap();
    server.send_to(b"answer", client).unwrap();
    let want = QueryEvent::Bytes(sent[0].exchange, b"answer".to_vec());
    assert_eq!(next(&mut exchanges), want);
    exchanges.close_others(&|id| resolver.awaits(id));
    assert_eq!(exchanges.open.len(), 1);
    exchanges.close_others(&|_| false);
    assert!(exchanges.open.is_empty());
}

#[test]
fn a_port_without_a_server_is_a_failure() {
    let closed = UdpSocket::bind(local()).unwrap().local_addr().unwrap();
    for tcp_only in [false, true] {
        let (mut resolver, sent) = queries(closed, tcp_only);
        let mut exchanges = KernelQueries::new(SocketBinding::default()).unwrap();
        if exchanges.send(&sent[0]) {
            assert_eq!(next(&mut exchanges), QueryEvent::Failed(sent[0].exchange));
        }
        resolver.handle_failure(Instant::ZERO, sent[0].exchange);
        let again = resolver.poll_transmit().unwrap();
        assert_ne!(again.exchange, sent[0].exchange);
    }
}

#[test]
fn streams_carry_their_bytes_and_end() {
    let listener = TcpListener::bind(local()).unwrap();
    let (_, sent) = queries(listener.local_addr().unwrap(), true);
    let mut exchanges = KernelQueries::new(SocketBinding::default()).unwrap();
    assert!(exchanges.send(&sent[0]));
    let want = sent[0].bytes.clone();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut query = vec![0; want.len()];
        stream.read_exact(&mut query).unwrap();
        assert_eq!(query, want);
        stream.write_all(b"answer").unwrap();
    });
    let mut got = Vec::new();
    loop {
        match next(&mut exchanges) {
            QueryEvent::Bytes(_, bytes) => got.extend(bytes),
            QueryEvent::Failed(id) => break assert_eq!(id, sent[0].exchange),
        }
    }
    assert_eq!(got, b"answer");
    assert!(exchanges.open.is_empty());
    server.join().unwrap();
}

#[test]
fn the_number_of_sockets_is_bounded() {
    let server = UdpSocket::bind(local()).unwrap();
    let (_, sent) = queries(server.local_addr().unwrap(), false);
    let mut exchanges = KernelQueries::new(SocketBinding::default()).unwrap();
    for _ in 0..MAX_OPEN_EXCHANGES {
        assert!(exchanges.send(&sent[0]));
    }
    assert!(!exchanges.send(&sent[0]));
    let far = "[2001:db8::1]:53".parse().unwrap();
    let (mut resolver, sent) = queries(far, false);
    let mut exchanges = KernelQueries::new(SocketBinding::parse("127.0.0.1").unwrap()).unwrap();
    assert!(!exchanges.send(&sent[0]), "another family");
    resolver.handle_failure(Instant::ZERO, sent[0].exchange);
    let again = resolver.poll_transmit().unwrap();
    resolver.handle_failure(Instant::ZERO, again.exchange);
    assert!(matches!(
        resolver.poll_event(),
        Some((_, Resolved::Failed(_)))
    ));
}

#[test]
fn a_server_that_floods_is_read_a_part_at_a_time() {
    let server = UdpSocket::bind(local()).unwrap();
    let (_, sent) = queries(server.local_addr().unwrap(), false);
    let mut exchanges = KernelQueries::new(SocketBinding::default()).unwrap();
    assert!(exchanges.send(&sent[0]));
    let (_, client) = server.recv_from(&mut [0; 512]).unwrap();
    for _ in 0..=MAX_READS_IN_A_ROW {
        server.send_to(b"flood", client).unwrap();
    }
    next(&mut exchanges);
    assert_eq!(exchanges.ready.len(), MAX_READS_IN_A_ROW - 1);
    for _ in 0..MAX_READS_IN_A_ROW {
        next(&mut exchanges);
    }
    assert_eq!(exchanges.poll_event(), None);
}
