//! Streams that follow each other on a connection: bytes of one never enter another.

use super::*;
use crate::transport::client::stream::label_of;

/// Names that share a label are so far apart.
const LABELS: u64 = 256;

/// The answer to a request of an object of 5000 bytes, and the name of its stream.
fn old_answer(network: &mut Network) -> (Vec<Vec<u8>>, u64) {
    network.fetch(10);
    network.kept = Some(Vec::new());
    assert_eq!(network.fetch(5000).0, ClientEvent::Finished);
    let answer = network.kept.take().unwrap();
    assert!(answer.len() > 3, "{}", answer.len());
    (answer, network.client.connection.stream.id)
}

#[test]
fn a_datagram_256_streams_late_does_not_enter_another_object() {
    let mut network = Network::new(LAN, 1);
    let (answer, name) = old_answer(&mut network);
    while network.client.connection.stream.id + 2 < name + LABELS {
        network.fetch(1);
    }
    network.request(7000);
    network.transmit();
    let id = network.client.connection.stream.id;
    assert_eq!((id, label_of(id)), (name + LABELS, label_of(name)));
    let before = network.client.stats().stream_bytes;
    for datagram in answer {
        network.deliver(None, datagram);
    }
    assert_eq!(network.client.stats().stream_bytes, before);
    assert!(!network.client.readable());
    assert_eq!(network.finish(7000).0, ClientEvent::Finished);
}

/// The same in the middle of a stream, whose next bytes the old ones could take the place of.
#[test]
fn a_datagram_256_streams_late_does_not_enter_a_stream_under_way() {
    let mut network = Network::new(LAN, 1);
    let (mut answer, name) = old_answer(&mut network);
    while network.client.connection.stream.id + 2 < name + LABELS {
        network.fetch(1);
    }
    network.request(5_000_000);
    network.transmit();
    // Its first datagram would end the stream, if the label were believed.
    let changed = answer.remove(0);
    network.deliver(None, [&[changed[0] | 0x10], &changed[1..]].concat());
    for datagram in answer {
        network.deliver(None, datagram);
    }
    assert_eq!(network.finish(5_000_000).0, ClientEvent::Finished);
}

#[test]
fn the_answer_to_an_open_does_not_enter_the_256th_stream_after() {
    for requests in [1, LABELS] {
        let mut network = Network::new(LAN, 1);
        network.request(5000);
        network.transmit();
        for _ in 0..requests {
            network.request(7000);
        }
        let id = network.client.connection.stream.id;
        assert_eq!(id, 1 + requests);
        assert_eq!(network.finish(7000).0, ClientEvent::Finished);
        assert_eq!(network.client.stats().handshakes, 1);
    }
}
