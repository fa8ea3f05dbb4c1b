//! A client races for a connection to a host with several addresses.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::connect::{MAX_ATTEMPTS, Outcome, Route};
use crate::host::client::racing::MAX_RACE_PACKETS;
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

/// A client of a host with a live address after a dead one, and before another live one.
fn with_a_spare(pace: Pace) -> World {
    let mut world = World::new(TRICKLES, false);
    let addresses = [100, 2, 3].map(|last| address(false, last));
    world.server = server(&world.version, address(false, 2), world.now, 0);
    let other = server(&world.version, address(false, 3), world.now, 0);
    world.others = vec![other];
    let config = ClientHostConfig {
        pace,
        resolve: Box::new(move |_| Resolution::Known(addresses.to_vec())),
        ..client_config(TRICKLES, false)
    };
    world.client = ClientHost::new(world.now, config).unwrap();
    world
}

#[test]
fn a_spare_address_carries_the_transfer_on_when_the_winner_dies() {
    // A least timeout of 200 ms after a round trip; mostly two copies of requests find the spare sooner.
    let most = Duration::from_millis(200) + 2 * ONE_WAY;
    let mut stalls = Vec::new();
    let mut dice = ChaCha8Rng::seed_from_u64(1);
    for n in 0..100 {
        let pace = if n % 2 == 0 { Pace::All } else { Pace::Paced };
        let mut world = with_a_spare(pace);
        let memory = world.start("http://many/3000000", false);
        let dies_after = dice.random_range(1..2_000_000);
        while world.client.progress().received < dies_after {
            assert!(world.step());
        }
        world.dead = Some(2);
        assert_eq!(world.finish(), VERIFIED, "dead after {dies_after}");
        assert_eq!(memory.0.borrow().0, body(0, 3_000_000));
        let report = world.client.report();
        assert_eq!(report.transport.switches, 1, "dead after {dies_after}");
        assert!(
            report.longest_stall <= most,
            "{:?} at {dies_after}",
            report.longest_stall
        );
        stalls.push(report.longest_stall);
        let opens = counter(&world.others[0], "headwater_opens_total");
        assert_eq!(
            opens,
            u64::from(pace == Pace::All),
            "no handshake but that of the race"
        );
        assert!(report.transport.requests > 0);
    }
    stalls.sort_unstable();
    assert!(stalls[50] <= Duration::from_millis(60), "{stalls:?}");
}

/// A client of a host with these live addresses, over our transport; those from 3 on are `others`.
fn live(world: &mut World, addresses: &'static [u8], config: ClientHostConfig) {
    let resolve = move |_: &str| {
        let addresses = addresses.iter().map(|last| address(false, *last));
        Resolution::Known(addresses.collect())
    };
    let config = ClientHostConfig {
        resolve: Box::new(resolve),
        ..config
    };
    world.client = ClientHost::new(world.now, config).unwrap();
}

#[test]
fn an_address_that_answered_is_tried_first_and_one_that_failed_last() {
    let mut world = with_a_spare(Pace::Paced);
    for (run, first) in [(0, 100), (1, 2)] {
        world.start("http://many/1000", false);
        assert_eq!(world.finish(), VERIFIED);
        let race = world.client.race();
        let order: Vec<IpAddr> = race.attempts.iter().map(|one| one.remote.ip()).collect();
        assert_eq!(order[0], address(false, first), "run {run}");
        assert_eq!(
            race.winner,
            order.iter().position(|one| *one == address(false, 2))
        );
        let started = race
            .attempts
            .iter()
            .filter(|one| one.started.is_some())
            .count();
        // 100 is silent, and 2 answers when the next attempt would be due.
        assert_eq!(started, if run == 0 { 2 } else { 1 }, "run {run}");
        if run == 0 {
            assert_eq!(race.attempts[0].outcome, Some(Outcome::Lost));
            assert_eq!(race.ended, Duration::from_millis(20));
        }
        // Seed 12 draws no order that ignores the history.
        let config = ClientHostConfig {
            history: world.client.history(world.now),
            seed: 12,
            ..client_config(TRICKLES, false)
        };
        live(&mut world, &[100, 2, 3], config);
    }
    // On another network nothing is known.
    let mut history = History::default();
    let route = |local: [u8; 4], last| {
        let remote = (address(false, last), 7600).into();
        Route::new(local.into(), remote, false)
    };
    for (local, want) in [([10, 8, 0, 1], 2), ([10, 9, 0, 1], 3)] {
        history.note(world.now.unix, route(local, 2), Outcome::Refused);
        let config = ClientHostConfig {
            history: history.clone(),
            seed: 12,
            ..client_config(TRICKLES, false)
        };
        live(&mut world, &[2, 3], config);
        world.start("http://many/1000", false);
        assert_eq!(world.finish(), VERIFIED);
        let first = world.client.race().attempts[0].remote.ip();
        assert_eq!(first, address(false, want));
    }
}

#[test]
fn one_order_in_twenty_ignores_the_history() {
    let mut world = with_a_spare(Pace::Paced);
    let mut history = History::default();
    let remote = (address(false, 2), 7600).into();
    let route = Route::new(address(false, 1), remote, false);
    history.note(world.now.unix, route, Outcome::Refused);
    let mut explored = 0;
    for seed in 0..1000 {
        let config = ClientHostConfig {
            history: history.clone(),
            seed,
            ..client_config(TRICKLES, false)
        };
        live(&mut world, &[2, 3], config);
        world.start("http://many/1000", false);
        assert_eq!(world.finish(), VERIFIED);
        let first = world.client.race().attempts[0].remote;
        explored += usize::from(first == remote);
    }
    assert!((30..=70).contains(&explored), "{explored} of 1000");
}

#[test]
fn the_outcomes_of_attempts_are_noted() {
    let mut world = world(TRICKLES, Pace::All, 2);
    world.lose_every = 1;
    world.start("http://many/1", false);
    world.finish();
    let counts = |world: &World| -> Vec<[u16; 4]> {
        let history = world.client.history(world.now);
        let mut counts: Vec<_> = history.iter().map(|known| known.counts).collect();
        counts.sort_unstable();
        counts
    };
    assert_eq!(counts(&world), [[0, 0, 1, 0]; 3], "timed out");
    let attempts = &world.client.race().attempts;
    let timed_out = attempts
        .iter()
        .filter(|one| one.outcome == Some(Outcome::TimedOut));
    assert_eq!(timed_out.count(), 3);
    let mut world = with_a_spare(Pace::All);
    world.start("http://many/3000000", false);
    while world.client.progress().received < 1_000_000 {
        assert!(world.step());
    }
    assert_eq!(counts(&world), [[0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]);
    // The winner falls silent.
    world.dead = Some(2);
    assert_eq!(world.finish(), VERIFIED);
    assert_eq!(counts(&world), [[0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 1, 0]]);
}

#[test]
fn the_finish_line_of_a_race_can_be_chosen() {
    for (finish, want) in [
        (Finish::Answer, 3),
        (Finish::FirstByte, 4),
        (Finish::Head, 2),
    ] {
        let mut world = World::new(TRICKLES, false);
        // One makes its application wait, one responds with an error, one is good.
        let busy = Rc::new(RefCell::new(BUSY));
        world.server = server(&world.version, address(false, 2), world.now, 0);
        let waits = server(&world.version, address(false, 3), world.now, 100);
        let fails = server(&busy, address(false, 4), world.now, 0);
        world.others = vec![waits, fails];
        let config = ClientHostConfig {
            finish,
            ..client_config(TRICKLES, false)
        };
        live(&mut world, &[3, 4, 2], config);
        world.start("http://many/1000", false);
        let winner = loop {
            let race = world.client.race();
            if let Some(winner) = race.winner {
                break race.attempts[winner].remote.ip();
            }
            assert!(world.step());
        };
        assert_eq!(winner, address(false, want), "{finish:?}");
    }
}

#[test]
fn a_race_sends_a_limited_number_of_packets() {
    let mut world = world(TRICKLES, Pace::All, 100);
    world.lose_every = 1;
    let config = ClientHostConfig {
        connect_timeout: Duration::from_secs(60),
        ..client_config(TRICKLES, false)
    };
    live(
        &mut world,
        &[
            2, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34,
        ],
        config,
    );
    world.start("http://many/1", false);
    assert!(world.finish().starts_with("Failed(ConnectTimedOut"));
    assert_eq!(world.sent, u64::from(MAX_RACE_PACKETS));
}

#[test]
fn a_late_request_is_answered_by_a_spare() {
    let mut world = with_a_spare(Pace::All);
    let mut took = Vec::new();
    for n in 0..400 {
        let begun = world.now.instant;
        world.start("http://many/1000", false);
        // The server in use is held up for 150 ms at one request in 40.
        world.dead = (n % 40 == 39).then_some(2);
        let until = begun + Duration::from_millis(150);
        while world.dead.is_some() && world.now.instant < until {
            if world.client.progress().received == 1000 || !world.step() {
                world.dead = None;
            }
        }
        world.dead = None;
        assert_eq!(world.finish(), VERIFIED, "request {n}");
        took.push(world.now.instant.saturating_since(begun));
    }
    let report = world.client.report();
    let worst = took.iter().max();
    assert!(worst <= Some(&Duration::from_millis(90)), "{worst:?}");
    assert_eq!(report.transport.timeouts, 0);
    assert!(
        (10..=22).contains(&report.transport.copies),
        "{:?}",
        report.transport.copies
    );
    assert_eq!(report.transport.switches, 0, "the server in use lives");
}

#[test]
fn a_silent_winner_that_comes_back_goes_on() {
    let mut world = with_a_spare(Pace::All);
    world.start("http://many/3000000", false);
    while world.client.progress().received < 1_000_000 {
        assert!(world.step());
    }
    // The spare has died, too: both addresses are asked until one answers.
    let back = world.now.instant + Duration::from_secs(3);
    world.dead = Some(2);
    world.others.clear();
    while world.now.instant < back {
        assert!(world.step());
    }
    world.dead = None;
    assert_eq!(world.finish(), VERIFIED);
    assert_eq!(world.client.report().transport.switches, 0);
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
