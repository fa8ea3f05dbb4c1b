//! The engine against real servers over a small network on virtual time.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::transport::client::flights::{Loss, Record};
use crate::transport::client::window::Interval;
use crate::transport::epoch::{Epoch, TransitionKind};
use network::{LAN, Network, Weather};

mod network;
mod streams;
mod waits;

#[test]
fn a_small_object_takes_one_round_trip() {
    let mut network = Network::new(LAN, 1);
    let (event, took) = network.fetch(3000);
    assert_eq!(event, ClientEvent::Finished);
    assert!(took < 2 * 1000, "{took} µs");
    let stats = network.client.stats();
    assert_eq!((stats.opens, stats.requests, stats.packets_in), (1, 0, 3));
}

#[test]
fn a_large_object_arrives_whole_and_without_loss() {
    let mut network = Network::new(LAN, 1);
    assert_eq!(network.fetch(20_000_000).0, ClientEvent::Finished);
    let stats = network.client.stats();
    assert_eq!(
        (stats.lost, stats.timeouts, stats.handshakes),
        (0, 0, 1),
        "{stats:?} {:?}",
        network.servers[0].counters()
    );
    assert!(stats.bytes_out * 100 <= stats.bytes_in, "{stats:?}");
    assert!(
        network.servers[0].counters().drops().is_empty(),
        "{:?}",
        network.servers[0].counters()
    );
}

#[test]
fn losses_are_made_good() {
    for seed in 0..40 {
        let path = Weather {
            loss_percent: 2.0,
            delay_us: 10_000,
            servers: 1 + seed as usize % 3,
            jitter_us: 100 * (seed % 4),
            ..LAN
        };
        let mut network = Network::new(path, seed);
        let (event, took) = network.fetch(1_000_000);
        assert_eq!(event, ClientEvent::Finished, "seed {seed}");
        assert!(
            took < 60_000_000,
            "seed {seed}: {took} µs {:?} {:?}",
            network.client.stats(),
            network.servers[0].counters()
        );
        assert_eq!(network.client.stats().handshakes, 1);
    }
}

#[test]
fn a_client_asks_no_more_often_than_a_bucket_allows() {
    let mut probes = 0;
    for (delay_us, loss_percent) in [(100, 2.0), (2000, 2.0), (10_000, 5.0), (500, 20.0)] {
        for seed in 0..10 {
            let path = Weather {
                loss_percent,
                delay_us,
                ..LAN
            };
            let mut network = Network::new(path, seed);
            assert_eq!(network.fetch(2_000_000).0, ClientEvent::Finished);
            probes += network.client.stats().probes;
            let refusals = network.refusals();
            assert!(
                !refusals.contains("too_often"),
                "{delay_us} us, seed {seed}"
            );
        }
    }
    assert!(probes > 100, "{probes} probes");
}

#[test]
fn several_streams_follow_each_other() {
    let mut network = Network::new(LAN, 1);
    for length in [10, 100_000, 0, 1, 5_000_000, 3] {
        assert_eq!(network.fetch(length).0, ClientEvent::Finished, "{length}");
    }
    network.now_us += 5_000_000;
    assert_eq!(network.fetch(1_000_000).0, ClientEvent::Finished);
    let stats = network.client.stats();
    assert_eq!(stats.handshakes, 1);
    // The last event was still under way.
    assert_eq!(stats.transitions.get("move"), Some(&1), "{stats:?}");
}

/// After a pause without losses the threshold stays: nothing is given up.
#[test]
fn a_pause_without_losses_costs_no_window() {
    let mut network = Network::new(LAN, 1);
    assert_eq!(network.fetch(100_000).0, ClientEvent::Finished);
    assert_eq!(network.fetch(20).0, ClientEvent::Finished);
    network.now_us += 5_000_000;
    assert_eq!(network.fetch(100_000).0, ClientEvent::Finished);
    let stats = network.client.stats();
    assert_eq!(stats.transitions.get("restart"), Some(&1), "{stats:?}");
    assert_eq!(stats.transitions.get("move"), None, "{stats:?}");
}

#[test]
fn an_idle_connection_goes_on_with_another_server() {
    let path = Weather {
        delay_us: 20_000,
        ..LAN
    };
    // Seconds of nothing, round trips, most requests, and the OPENs in all: a continuation is recent for 30 seconds,
    // and shown for 14 minutes.
    for (idle, trips, requests, opens) in [
        (2, 1, 1, 1),
        (28, 1, 1, 1),
        (600, 2, 5, 1),
        (839, 2, 5, 1),
        (841, 2, 5, 2),
    ] {
        let mut network = Network::new(path, 1);
        network.fetch(500_000);
        network.now_us += idle * 1_000_000;
        network.restart_servers();
        let before = network.client.stats();
        let (event, took) = network.fetch(10_000);
        let after = network.client.stats();
        assert_eq!(event, ClientEvent::Finished, "{idle} s");
        assert_eq!(took / 40_000, trips, "{idle} s: {took} µs {after:?}");
        assert!(took % 40_000 < 2000, "{idle} s: {took} µs {after:?}");
        let sent = after.packets_out - before.packets_out;
        assert!(sent <= requests, "{idle} s: {after:?}");
        assert_eq!(after.opens, opens, "{idle} s: {after:?}");
        assert_eq!(after.timeouts + after.probes, 0, "{idle} s: {after:?}");
        assert!(
            network.refusals().is_empty(),
            "{idle} s: {:?}",
            network.refusals()
        );
    }
}

#[test]
fn a_bottleneck_is_filled() {
    // 100 Mb/s, 40 ms, a queue of one bandwidth-delay product.
    let path = Weather {
        delay_us: 20_000,
        service_us: 120,
        queue: 340,
        ..LAN
    };
    let mut network = Network::new(path, 3);
    let (_, took) = network.fetch(50_000_000);
    let rate = 50_000_000.0 * 8.0 / took as f64;
    let stats = network.client.stats();
    assert!(
        rate > 85.0,
        "{rate} Mb/s {stats:?} {:?}",
        network.servers[0].counters()
    );
}

#[test]
fn an_outage_is_survived() {
    let mut network = Network::new(
        Weather {
            delay_us: 5_000,
            service_us: 100,
            ..LAN
        },
        3,
    );
    network.outage = Some((1_300_000, 4_300_000));
    let (event, took) = network.fetch(20_000_000);
    assert_eq!(event, ClientEvent::Finished);
    assert_eq!(network.client.stats().handshakes, 1);
    assert!(took < 11_000_000, "{took} {:?}", network.client.stats());
}

/// A flight of `count` packets that is missing whole.
fn missing(count: u32) -> Loss {
    let flight = 1 << 20;
    Loss {
        flight,
        lowest: flight,
        highest: flight + u64::from(count) - 1,
        count,
        whole: true,
        stream: 0,
        bytes: Vec::new(),
        due: Instant::ZERO,
    }
}

#[test]
fn what_there_is_no_evidence_for_is_not_repeated() {
    let mut network = Network::new(LAN, 1);
    network.fetch(100_000);
    let Client {
        connection: client,
        path,
        outbox: out,
    } = &mut network.client;
    let now = Instant::from_micros(network.now_us);
    let window = &client.established.as_ref().unwrap().window;
    let present = window.releasing();
    assert!(window.event().is_none());
    let repeats = |client: &mut Connection, out: &mut Outbox, yields| {
        let interval = Interval {
            after: 0,
            upto: 8,
            first: missing(8).flight,
            count: 8,
        };
        let record = Record::new(interval, now, client.stream.id, yields);
        client.flights.push(record);
        client.repeat(now, out, &missing(8))
    };
    assert!(repeats(client, out, present));
    assert!(repeats(client, out, Epoch::opening(3)), "before the event");
    assert!(!repeats(client, out, Epoch::opening(2)), "unknown");
    assert!(client.declare(path, out, TransitionKind::Timeout));
    assert!(!repeats(client, out, present), "given up");
    assert!(!repeats(client, out, Epoch::opening(3)), "given up");
}

#[test]
fn several_servers_make_a_missing_flight_ambiguous() {
    let path = Weather {
        delay_us: 5_000,
        ..LAN
    };
    let mut network = Network::new(path, 1);
    network.fetch(1_000_000);
    let Client {
        connection: client,
        path,
        ..
    } = &mut network.client;
    let now = Instant::from_micros(network.now_us);
    let connection = client.established.as_mut().unwrap();
    connection.repeated_up_to = missing(1).flight - 1;
    assert!(!path.has_several_servers(now));
    // One server: any flight, with others or not, again or not.
    for count in [1, 3, 4] {
        assert!(client.may_be_request(now, path, &missing(count), true));
        assert!(client.may_be_request(now, path, &missing(count), false));
    }
    path.note_server(now, 1);
    assert!(!path.has_several_servers(now), "the same");
    path.note_server(now, 2);
    assert!(path.has_several_servers(now));
    assert!(client.may_be_request(now, path, &missing(4), true));
    assert!(
        !client.may_be_request(now, path, &missing(3), true),
        "too few"
    );
    assert!(
        !client.may_be_request(now, path, &missing(4), false),
        "not alone"
    );
    client.established.as_mut().unwrap().repeated_up_to += 1;
    assert!(
        !client.may_be_request(now, path, &missing(4), true),
        "again"
    );
    let later = now + path.rtt().expected() * 16 + Duration::from_micros(1);
    path.note_server(later, 2);
    assert!(!path.has_several_servers(later), "one again");
    assert!(path.has_several_servers(later - Duration::from_micros(2)));
}

/// 20 MB in a second and a half, one server, and a round trip of 20 ms.
const STEADY: Weather = Weather {
    delay_us: 10_000,
    service_us: 100,
    ..LAN
};

/// Where in the transfer something is lost.
const MIDDLE_US: u64 = 1_600_000;

/// A request that is lost before a loss is declared, in its zone or after that is sent again, as it
/// was meant, and answered: the window is reduced for the packet alone.
#[test]
fn a_request_lost_around_an_event_costs_no_reduction() {
    for after_us in (0..80_000).step_by(1000) {
        let mut network = Network::new(STEADY, 1);
        network.lose_packet_at = Some(MIDDLE_US);
        network.lose_request_at = Some(MIDDLE_US - 20_000 + after_us);
        let (event, took) = network.fetch(20_000_000);
        assert_eq!(event, ClientEvent::Finished);
        let stats = network.client.stats();
        let told = (stats.lost, stats.repeated, stats.timeouts);
        assert_eq!(told, (1, 1, 0), "{after_us} µs: {stats:?}");
        let losses = stats.transitions.get("loss");
        assert_eq!(losses, Some(&1), "{after_us} µs: {stats:?}");
        // The second copy was not needed.
        let refusals = network.refusals();
        assert!(refusals.iter().eq(["replayed"].iter()), "{refusals:?}");
        assert!(took < 2_000_000, "{after_us} µs: {took} µs");
    }
}

#[test]
fn an_answer_lost_whole_is_a_loss() {
    let mut network = Network::new(STEADY, 1);
    network.lose_answer_at = Some(MIDDLE_US);
    assert_eq!(network.fetch(20_000_000).0, ClientEvent::Finished);
    let stats = network.client.stats();
    assert_eq!((stats.repeated, stats.timeouts), (1, 0), "{stats:?}");
    assert!(stats.lost > 1, "{stats:?}");
    assert_eq!(stats.transitions.get("loss"), Some(&1), "{stats:?}");
}

/// With one server, requests that are lost now and then cost next to nothing.
#[test]
fn lost_requests_do_not_break_the_window() {
    for seed in 0..5 {
        let path = Weather {
            request_loss_percent: 1.0,
            ..STEADY
        };
        let mut network = Network::new(path, seed);
        let (_, took) = network.fetch(20_000_000);
        let stats = network.client.stats();
        assert!(stats.repeated > 3, "seed {seed}: {stats:?}");
        assert!(took < 2_000_000, "seed {seed}: {took} µs {stats:?}");
    }
}

fn path() -> impl Strategy<Value = Weather> {
    let percent = |most: f64| prop_oneof![Just(0.0), 0.0..most];
    let times = (
        100u64..100_000,
        prop_oneof![Just(0u64), 0u64..50_000],
        10u64..2000,
    );
    let rates = (percent(8.0), percent(10.0), percent(3.0), percent(3.0));
    (times, rates, 5usize..1000, 1usize..=3).prop_map(|(times, rates, queue, servers)| Weather {
        delay_us: times.0,
        jitter_us: times.1,
        service_us: times.2,
        loss_percent: rates.0,
        repeated_percent: rates.1,
        marked_percent: rates.2,
        forgetful_percent: rates.3,
        request_loss_percent: 0.0,
        queue,
        servers,
        hold_percent: 0.0,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The client sends no request that a server would refuse, except for reasons that only a filter can
    /// know; or a bucket, if the network repeats packets.
    #[test]
    fn servers_refuse_nothing_that_a_client_sends(
        path in path(), seed: u64, streams in proptest::collection::vec((0u64..600_000, 0u64..3_000_000), 1..4),
    ) {
        let mut network = Network::new(path, seed);
        for (length, pause_us) in streams {
            let (event, took) = network.fetch(length);
            prop_assert_eq!(event, ClientEvent::Finished, "{} after {} us", length, took);
            network.now_us += pause_us;
        }
        let mut refusals = network.refusals();
        refusals.remove("replayed");
        if path.repeated_percent > 0.0 {
            refusals.remove("too_often");
        }
        prop_assert!(refusals.is_empty(), "{:?} {:?}", refusals, network.client.stats());
    }
}

/// Servers that are held up now and then answer late, not never: a late answer is not a lost one.
#[test]
fn servers_held_up_do_not_break_the_window() {
    for seed in 0..5 {
        let path = Weather {
            delay_us: 50,
            servers: 2,
            hold_percent: 2.0,
            ..LAN
        };
        let mut network = Network::new(path, seed);
        let (_, took) = network.fetch(40_000_000);
        let stats = network.client.stats();
        let drops: Vec<_> = network
            .servers
            .iter()
            .map(|server| server.counters().drops().to_vec())
            .collect();
        assert!(
            took < 2_000_000,
            "seed {seed}: {took} µs {stats:?} {drops:?}"
        );
    }
}

/// The keys of a stream are gone from all servers: the stream ends as changed, not as a time-out.
#[test]
fn a_stream_whose_keys_are_gone_is_given_up() {
    let mut network = Network::new(
        Weather {
            service_us: 1000,
            ..LAN
        },
        1,
    );
    network.new_keys_at = Some(1_200_000);
    let (event, took) = network.fetch(20_000_000);
    assert_eq!(
        event,
        ClientEvent::Changed,
        "{took} µs {:?}",
        network.client.stats()
    );
    assert!(took < 40_000_000, "{took} µs");
    network.new_keys_at = None;
    assert_eq!(network.fetch(100_000).0, ClientEvent::Finished);
}

#[test]
fn between_neighbours_less_is_under_way_than_there_is_room_for() {
    for (delay_us, few) in [(100, true), (20_000, false)] {
        let mut network = Network::new(Weather { delay_us, ..LAN }, 1);
        assert_eq!(network.fetch(1_000_000).0, ClientEvent::Finished);
        let most = network.client.connection.stream.most_under_way;
        assert_eq!(most < u64::MAX, few, "{delay_us} µs: {most}");
    }
}

#[test]
fn a_small_buffer_costs_neither_requests_nor_stalls() {
    let mut network = Network::new(
        Weather {
            delay_us: 5_000,
            ..LAN
        },
        1,
    );
    let config = ClientConfig {
        buffer: 64 << 10,
        ..network::config()
    };
    network.client = Client::new(config, 1);
    for round in 0..40 {
        assert_eq!(network.fetch(2_000_000).0, ClientEvent::Finished);
        let stats = network.client.stats();
        assert_eq!(
            (stats.lost, stats.timeouts, stats.probes),
            (0, 0, 0),
            "object {round}: {stats:?}"
        );
        assert!(stats.requests * 4 < stats.packets_in, "{stats:?}");
    }
}
