//! A client races for a connection to a host with several addresses.

use super::*;
use crate::connect::MAX_ATTEMPTS;
use crate::host::names::{Family, Pinned, Resolution};

/// A client of the host `many`, whose first addresses are dead; the live server is the last.
fn world(protocol: Protocol, pace: Pace, dead: u8) -> World {
    let mut world = World::new(protocol, false);
    let config = ClientHostConfig {
        pace,
        resolve: Box::new(move |_| {
            let dead = (0..dead).map(|n| address(false, 100 + n));
            dead.chain([address(false, 2)]).collect()
        }),
        ..client_config(protocol, false)
    };
    world.client = ClientHost::new(world.now, config).unwrap();
    world
}

/// Returns the time until the first byte has arrived, in milliseconds, and ends the transfer.
fn first_byte(world: &mut World) -> u64 {
    let begun = world.now.instant;
    world.start("http://many/1000", false);
    while world.client.report().first_byte.is_none() {
        assert!(world.step());
    }
    let took = world.now.instant.saturating_since(begun);
    assert!(world.finish().starts_with("Done"));
    u64::try_from(took.as_millis()).unwrap()
}

fn counter(server: &ServerHost<Sizes>, name: &str) -> u64 {
    let metrics = server.metrics();
    let metric = metrics.iter().find(|metric| metric.name == name).unwrap();
    metric.samples.first().unwrap().value
}

#[test]
fn dead_addresses_delay_by_the_pace() {
    let round_trip = 2 * u64::try_from(ONE_WAY.as_millis()).unwrap();
    for protocol in [TRICKLES, Protocol::Tcp] {
        // A request over TCP leaves when the connection is there.
        let trips = if protocol == TRICKLES { 1 } else { 2 };
        for (pace, dead) in [
            (Pace::All, 10),
            (Pace::Paced, 0),
            (Pace::Paced, 3),
            (Pace::Paced, 10),
            (Pace::HappyEyeballs, 2),
            (Pace::Sequential, 1),
        ] {
            let mut world = world(protocol, pace, dead);
            // The application of the first answer is not ready; it is asked again.
            world.server = server(&world.version, address(false, 2), world.now, 0);
            let delay = u64::try_from(pace.delay().as_millis()).unwrap() * u64::from(dead);
            let took = first_byte(&mut world);
            let want = delay + trips * round_trip;
            assert!(
                (want..=want + 1).contains(&took),
                "{protocol:?} {pace:?}: {took} of {want}"
            );
        }
    }
}

#[test]
fn a_race_ends_with_one_connection_and_the_next_request_uses_it() {
    for protocol in [TRICKLES, Protocol::Tcp] {
        let mut world = world(protocol, Pace::All, 10);
        world.start("http://many/1000", false);
        assert!(world.finish().starts_with("Done"));
        assert_eq!(world.client.report().connections, 11);
        world.start("http://many/2000", false);
        assert!(world.finish().starts_with("Done"));
        assert_eq!(
            world.client.report().connections,
            11,
            "the first one goes on"
        );
    }
}

#[test]
fn losers_that_would_have_answered_leave_nothing_at_their_servers() {
    for pace in [Pace::All, Pace::Paced] {
        let mut world = World::new(TRICKLES, false);
        let addresses: Vec<IpAddr> = (2..=7).map(|last| address(false, last)).collect();
        world.others = (3..=7)
            .map(|last| server(&world.version, address(false, last), world.now, 0))
            .collect();
        let config = ClientHostConfig {
            pace,
            resolve: Box::new(move |_| Resolution::Known(addresses.clone())),
            ..client_config(TRICKLES, false)
        };
        world.client = ClientHost::new(world.now, config).unwrap();
        world.start("http://many/100000", false);
        assert_eq!(world.finish(), VERIFIED, "{pace:?}");
        for other in &world.others {
            let opens = counter(other, "headwater_opens_total");
            assert!(opens <= 1, "an OPEN each");
            assert!(counter(other, "headwater_response_packets_total") <= 3 * opens);
            assert_eq!(counter(other, "headwater_requests_total"), 0);
        }
        let strays = world.client.report().transport.drops;
        assert!(
            strays.keys().all(|reason| *reason == "unknown_connection"),
            "{strays:?}"
        );
    }
}

#[test]
fn every_attempt_is_in_the_error() {
    let mut silent = world(TRICKLES, Pace::HappyEyeballs, 3);
    silent.lose_every = 1;
    silent.start("http://many/1", false);
    let end = silent.finish();
    assert!(end.starts_with("Failed(ConnectTimedOut"), "{end}");
    for address in ["10.9.0.100", "10.9.0.101", "10.9.0.102", "10.9.0.2"] {
        assert!(
            end.contains(&format!("{address}:7600, failed_after: None")),
            "{end}"
        );
    }
    // The live server refuses a port where it does not listen; after all others are silent.
    let mut refused = world(Protocol::Tcp, Pace::All, 1);
    refused.start("http://many:81/1", false);
    let end = refused.finish();
    assert!(end.contains("10.9.0.100:81, failed_after: None"), "{end}");
    assert!(end.contains("10.9.0.2:81, failed_after: Some("), "{end}");
}

#[test]
fn an_unreachable_address_gives_way_at_once_and_one_that_answered_stays() {
    let mut world = world(TRICKLES, Pace::Sequential, 1);
    world.server = server(&world.version, address(false, 2), world.now, 0);
    world.start("http://many/100000", false);
    let (begun, dead, live) = (world.now.instant, address(false, 100), address(false, 2));
    world.client.handle_unreachable(world.now, dead);
    while world.client.report().first_byte.is_none() {
        assert!(world.step());
    }
    assert_eq!(world.now.instant.saturating_since(begun), 2 * ONE_WAY);
    world.client.handle_unreachable(world.now, live);
    assert_eq!(world.finish(), VERIFIED);
    let mut alone = self::world(TRICKLES, Pace::Sequential, 1);
    alone.start("http://many/1", false);
    alone.client.handle_unreachable(alone.now, dead);
    alone.client.handle_unreachable(alone.now, live);
    let end = alone.finish();
    assert!(
        end.starts_with("Failed(CannotConnect") && end.matches("Some(").count() == 2,
        "{end}"
    );
}

#[test]
fn the_number_of_attempts_is_bounded() {
    let mut world = world(TRICKLES, Pace::All, 100);
    world.start("http://many/1", false);
    assert!(world.finish().starts_with("Failed(ConnectTimedOut"));
    assert_eq!(world.client.report().connections, MAX_ATTEMPTS as u64);
}

#[test]
fn addresses_are_pinned_and_of_one_family() {
    let pinned = Pinned::parse("many:80:10.9.0.2").unwrap();
    for (family, pinned, want) in [
        (Some(Family::V4), vec![], "Done"),
        (Some(Family::V6), vec![], "Failed(Family"),
        (None, vec![pinned], "Done"),
    ] {
        let mut world = World::new(TRICKLES, false);
        let known = address(false, if pinned.is_empty() { 2 } else { 9 });
        let config = ClientHostConfig {
            family,
            pinned,
            resolve: Box::new(move |_| Resolution::Known(vec![known])),
            ..client_config(TRICKLES, false)
        };
        world.client = ClientHost::new(world.now, config).unwrap();
        world.start("http://many/10", false);
        let end = world.finish();
        assert!(end.starts_with(want), "{end}");
    }
}
