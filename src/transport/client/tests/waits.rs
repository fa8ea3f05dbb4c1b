//! Applications that answer later: the client waits without taking the silence for loss.

use super::network::{LAN, Network, Weather};
use super::*;

/// Thinking time of the slow application, in µs.
const THINKS: u64 = 3_000_000;

const WAN: Weather = Weather {
    delay_us: 20_000,
    ..LAN
};

fn slow(path: Weather, seed: u64) -> Network {
    let mut network = Network::new(path, seed);
    network.app.begins_us = network.now_us + THINKS;
    network
}

#[test]
fn an_application_that_thinks_costs_no_timeout_and_no_window() {
    for servers in [1, 3] {
        let mut network = slow(Weather { servers, ..WAN }, 1);
        let (event, took) = network.fetch(10_000);
        assert_eq!(event, ClientEvent::Finished);
        // The first answer leaves at that moment: half a round trip later it is there.
        assert!(
            (THINKS + 20_000..THINKS + 25_000).contains(&took),
            "{took} µs"
        );
        let stats = network.client.stats();
        assert_eq!(
            (stats.lost, stats.timeouts, stats.handshakes, stats.probes),
            (0, 0, 1, 0),
            "{stats:?}"
        );
        assert!(stats.waits >= 1, "{stats:?}");
        assert!(!stats.transitions.contains_key("loss"), "{stats:?}");
        // Asked again each second: the request may have been lost at the server.
        assert_eq!(stats.asked_again, 2, "{stats:?}");
        assert!(stats.window >= 10, "{stats:?}");
    }
}

#[test]
fn a_stall_in_the_middle_leaves_the_window_as_it_was() {
    let mut network = Network::new(WAN, 1);
    network.request(5_000_000);
    // Much of it has come when the application stops for a while.
    let stalls = network.now_us + 200_000;
    network.stall = Some((stalls, stalls + THINKS));
    let (event, took) = network.finish(5_000_000);
    assert_eq!(event, ClientEvent::Finished);
    assert!(took > THINKS, "{took} µs");
    let stats = network.client.stats();
    assert_eq!((stats.lost, stats.timeouts), (0, 0), "{stats:?}");
    assert!(stats.waits > 0 && stats.asked_again > 0, "{stats:?}");
}

#[test]
fn lost_waits_and_lost_repeats_are_made_good() {
    for seed in 0..30 {
        let path = Weather {
            loss_percent: 5.0,
            request_loss_percent: 20.0,
            servers: 1 + seed as usize % 3,
            ..WAN
        };
        let mut network = slow(path, seed);
        let (event, took) = network.fetch(200_000);
        assert_eq!(event, ClientEvent::Finished, "seed {seed}");
        let stats = network.client.stats();
        assert!(took < 20_000_000, "seed {seed}: {took} µs, {stats:?}");
    }
}

#[test]
fn a_server_that_restarts_with_parked_requests_loses_nothing() {
    let mut network = slow(WAN, 1);
    network.request(100_000);
    network.restart_at = Some(network.now_us + THINKS / 2);
    let (event, took) = network.finish(100_000);
    assert_eq!(event, ClientEvent::Finished);
    // At the latest one wait after the bytes are there.
    assert!(took < THINKS + 1_300_000, "{took} µs");
    let stats = network.client.stats();
    assert_eq!((stats.timeouts, stats.handshakes), (0, 1), "{stats:?}");
}

#[test]
fn a_trickle_of_unknown_length_arrives_as_it_comes_and_ends() {
    for (loss_percent, servers) in [(0.0, 1), (0.0, 2), (3.0, 1), (3.0, 2)] {
        let path = Weather {
            loss_percent,
            servers,
            ..WAN
        };
        let mut network = slow(path, 7);
        network.app.grows = Some((700, 100_000));
        let (event, took) = network.fetch(9_999);
        assert_eq!(event, ClientEvent::Finished);
        let stats = network.client.stats();
        if loss_percent == 0.0 {
            // 15 steps of 100 ms; then half a round trip.
            assert!(took < THINKS + 1_500_000 + 65_000, "{took} µs, {stats:?}");
            assert_eq!((stats.lost, stats.timeouts), (0, 0), "{stats:?}");
        } else {
            assert!(took < 2 * THINKS + 2_000_000, "{took} µs, {stats:?}");
        }
    }
}

#[test]
fn a_fast_stream_of_unknown_length_uses_the_window() {
    let mut network = Network::new(WAN, 3);
    network.app.grows = Some((1 << 30, 1));
    network.app.begins_us = network.now_us - 1;
    let (event, took) = network.fetch(3_000_000);
    assert_eq!(event, ClientEvent::Finished);
    let mut other = Network::new(WAN, 3);
    let (_, known) = other.fetch(3_000_000);
    assert!(took <= known + 80_000, "{took} µs beside {known}");
}

#[test]
fn the_next_stream_does_not_wait_for_the_one_before() {
    let mut network = slow(WAN, 1);
    network.request(100_000);
    network.run_for(500_000);
    assert!(network.client.stats().waits > 0);
    network.app.begins_us = 0;
    network.client.stop();
    let (event, took) = network.fetch(2000);
    assert_eq!(event, ClientEvent::Finished);
    assert!(took < 150_000, "{took} µs");
    let stats = network.client.stats();
    assert_eq!((stats.lost, stats.timeouts), (0, 0), "{stats:?}");
}

#[test]
fn waits_that_nobody_asked_for_change_nothing() {
    use crate::wire::segment::Wait;
    let mut network = Network::new(WAN, 1);
    network.request(100_000);
    network.run_for(50_000);
    let known = network.client.connection.established.as_ref().unwrap();
    let (connection, highest) = (known.id, known.window.highest());
    for (name, connection, number) in [
        ("another connection", connection + 1, highest),
        ("a number beyond", connection, highest + 1000),
        ("number 0", connection, 0),
    ] {
        let mut datagram = Vec::new();
        Wait {
            connection,
            server: 1,
            number: number as u32,
            stream: 2,
            delay_ms: 60_000,
        }
        .emit(&mut datagram);
        network.deliver(None, datagram);
        assert_eq!(network.client.stats().waits, 0, "{name}");
    }
    assert_eq!(network.finish(100_000).0, ClientEvent::Finished);
}
