//! A client whose transport falls back to TCP.

use super::*;
use crate::connect::{History, Transport};

const AUTO: Protocol = Protocol::Auto {
    udp_port: 7600,
    local_port: None,
};

/// The protocol numbers of IP.
const UDP: u8 = 17;
const TCP: u8 = 6;

const ROUND_TRIP: Duration = Duration::from_millis(10);

/// A world whose client has the own address `10.9.NETWORK.1` and this history.
fn world(network: u8, history: History) -> World {
    let mut world = World::new(AUTO, false);
    world.server = server(&world.version, address(false, 2), world.now, 0);
    let config = ClientHostConfig {
        addresses: vec![[10, 9, network, 1].into()],
        history,
        ..client_config(AUTO, false)
    };
    world.client = ClientHost::new(world.now, config).unwrap();
    world
}

/// Fetches an object, and returns the time to its first byte.
fn fetch(world: &mut World) -> Duration {
    let begun = world.now.instant;
    world.start("http://files/100000", false);
    let mut first_byte = None;
    while first_byte.is_none() {
        assert!(world.step());
        let received = world.client.progress().received > 0;
        first_byte = received.then(|| world.now.instant.saturating_since(begun));
    }
    assert_eq!(world.finish(), VERIFIED);
    first_byte.unwrap()
}

#[test]
fn where_our_transport_is_answered_tcp_is_not_tried() {
    let mut world = world(0, History::default());
    assert_eq!(fetch(&mut world), ROUND_TRIP);
    assert_eq!(world.client.transport(), Some(Transport::Trickles));
    assert_eq!(world.client.report().tcp_connections, 0);
}

#[test]
fn tcp_carries_the_transfer_where_udp_is_filtered_and_goes_first_the_next_time() {
    let mut world = world(0, History::default());
    world.filter = Some(UDP);
    assert_eq!(
        fetch(&mut world),
        Duration::from_millis(100) + 2 * ROUND_TRIP
    );
    assert_eq!(world.client.transport(), Some(Transport::Tcp));
    // The connection carries the next transfer, too.
    assert_eq!(fetch(&mut world), ROUND_TRIP);
    assert_eq!(world.client.report().connections, 2);
    let history = world.client.history(world.now);
    let mut again = self::world(0, history.clone());
    again.filter = Some(UDP);
    assert_eq!(fetch(&mut again), 2 * ROUND_TRIP, "no time is lost");
    assert_eq!(again.client.report().tcp_connections, 1);
    assert_eq!(again.client.report().connections, 1);
    // On another network nothing is known.
    let mut elsewhere = self::world(8, history.clone());
    fetch(&mut elsewhere);
    assert_eq!(elsewhere.client.transport(), Some(Transport::Trickles));
    // After five minutes UDP is tried again; when it works, it is as before.
    let mut later = self::world(0, history);
    later.now.instant += Duration::from_secs(301);
    later.now.unix = UnixMillis::new(START_MS + 302_000);
    assert_eq!(fetch(&mut later), ROUND_TRIP);
    let history = later.client.history(later.now);
    let mut last = self::world(0, history);
    fetch(&mut last);
    assert_eq!(last.client.transport(), Some(Transport::Trickles));
}

#[test]
fn where_tcp_goes_first_and_is_filtered_our_transport_follows() {
    let mut world = world(0, History::default());
    world.filter = Some(UDP);
    fetch(&mut world);
    let mut again = self::world(0, world.client.history(world.now));
    again.filter = Some(TCP);
    assert_eq!(fetch(&mut again), Duration::from_millis(100) + ROUND_TRIP);
    assert_eq!(again.client.transport(), Some(Transport::Trickles));
}

#[test]
fn a_rejected_port_gives_way_to_tcp_at_once() {
    let mut world = world(0, History::default());
    world.filter = Some(UDP);
    world.start("http://files/1000", false);
    let begun = world.now.instant;
    world
        .client
        .handle_unreachable(world.now, address(false, 2));
    assert_eq!(world.finish(), VERIFIED);
    let took = world.now.instant.saturating_since(begun);
    assert!(took < Duration::from_millis(100), "{took:?}");
    assert_eq!(world.client.transport(), Some(Transport::Tcp));
}

#[test]
fn one_lost_packet_does_not_decide_the_race() {
    let mut world = world(0, History::default());
    world.dead = Some(2);
    world.start("http://files/1000", false);
    let back = world.now.instant + Duration::from_millis(50);
    while world.step_until(back) {}
    world.dead = None;
    assert_eq!(world.finish(), VERIFIED);
    assert_eq!(world.client.transport(), Some(Transport::Trickles));
    let report = world.client.report();
    assert_eq!((report.connections, report.transport.opens), (2, 2));
}

#[test]
fn nothing_falls_back_in_mid_download() {
    let mut world = world(0, History::default());
    world.start("http://files/3000000", false);
    while world.client.progress().received < 1_000_000 {
        assert!(world.step());
    }
    world.dead = Some(2);
    let back = world.now.instant + Duration::from_secs(5);
    while world.now.instant < back {
        assert!(world.step());
    }
    world.dead = None;
    assert_eq!(world.finish(), VERIFIED);
    assert_eq!(world.client.report().connections, 1);
    assert_eq!(world.client.transport(), Some(Transport::Trickles));
}

#[test]
fn a_server_that_is_down_is_neither_blamed_on_udp_nor_forgotten_in_the_error() {
    let mut world = world(0, History::default());
    world.lose_every = 1;
    world.start("http://files/1", false);
    let end = world.finish();
    assert!(end.starts_with("Failed(ConnectTimedOut"), "{end}");
    for port in [7600, 80] {
        assert!(
            end.contains(&format!("10.9.0.2:{port}, failed_after: None")),
            "{end}"
        );
    }
    assert_eq!(world.client.transport(), None);
    let mut again = self::world(0, world.client.history(world.now));
    fetch(&mut again);
    assert_eq!(again.client.transport(), Some(Transport::Trickles));
}

#[test]
fn a_lost_first_packet_does_not_fail_the_transfer() {
    for lose_every in [3, 5, 7] {
        let mut world = world(0, History::default());
        world.lose_every = lose_every;
        world.start("http://files/10000", false);
        assert_eq!(world.finish(), VERIFIED, "every {lose_every}th");
    }
}
