//! Short connections, over our transport and over TCP.

use super::*;
use crate::instruments::load::report::RequestReport;
use crate::instruments::load::requests::{
    Bearer, MAX_TCP_UNDER_WAY, MAX_TOKENS, RequestConfig, RequestHost,
};
use crate::instruments::load::schedule::{MAX_UNDER_WAY, Pace, Plan};

fn config(bearer: Bearer, pace: fn(NonZeroU32) -> Pace, count: u32) -> RequestConfig {
    let port = match bearer {
        Bearer::Transport { .. } => 7600,
        Bearer::Tcp => 80,
    };
    RequestConfig {
        target: target(port),
        bearer,
        buffer: 128 << 10,
        plan: Plan {
            pace: pace(NonZeroU32::new(count).unwrap()),
            warm_up: Duration::from_millis(500),
            window: Duration::from_secs(1),
            most: u64::MAX,
        },
    }
}

fn run(config: RequestConfig, object: usize, lose_every: u64) -> RequestReport {
    let mut world = World::of(RequestHost::new(START, config).unwrap(), object);
    world.lose_every = lose_every;
    while !world.load.is_done(world.now) {
        assert!(world.step(), "stuck");
    }
    assert!(world.load.poll_timeout(world.now).is_none());
    world.load.finish(world.now)
}

const KNOWN: Bearer = Bearer::Transport { tokens: true };
const UNKNOWN: Bearer = Bearer::Transport { tokens: false };

/// Requests over a path of ten milliseconds each way, one after the other: the number of round
/// trips each took.
#[test]
fn round_trips_of_an_object() {
    let cases = [
        ("small", UNKNOWN, 1000, 10_000),
        ("more than three packets", UNKNOWN, 10_000, 20_000),
        ("the same with a proof", KNOWN, 10_000, 10_000),
    ];
    for (name, bearer, object, want) in cases {
        let report = run(config(bearer, Pace::Closed, 1), object, 0);
        let latency = report.latency;
        assert_eq!((latency.p50_us, latency.max_us), (want, want), "{name}");
        assert_eq!(report.completed, 1_000_000 / want, "{name}");
        assert_eq!(report.began, report.completed, "{name}");
        let head = b"HTTP/1.1 200 OK\r\n\r\n".len();
        let bytes = report.completed * (object - head) as u64;
        assert_eq!(report.body_bytes, bytes, "{name}");
        assert_eq!((report.unfinished, report.failed.len()), (0, 0), "{name}");
    }
}

#[test]
fn many_at_a_time_and_losses() {
    for pace in [Pace::Closed, Pace::Poisson] {
        for bearer in [UNKNOWN, KNOWN] {
            let report = run(config(bearer, pace, 200), 10_000, 50);
            assert_eq!(report.statuses, [(200, report.began)].into(), "{bearer:?}");
            assert!(report.latency.max_us > 100_000, "none was lost");
            assert!(report.unfinished == 0 && report.failed.is_empty());
        }
    }
}

#[test]
fn a_dead_server_leaves_all_unfinished() {
    let config = config(UNKNOWN, Pace::Even, 100);
    let mut world = World::of(RequestHost::new(START, config).unwrap(), 100);
    world.dead_from = Some(Instant::ZERO);
    while !world.load.is_done(world.now) {
        assert!(world.step());
    }
    let report = world.load.finish(world.now);
    assert_eq!((report.completed, report.latency.count), (0, 0));
    assert_eq!(report.failed.values().sum::<u64>() + report.unfinished, 100);
}

#[test]
fn bounds() {
    for (bearer, most) in [(UNKNOWN, MAX_UNDER_WAY), (Bearer::Tcp, MAX_TCP_UNDER_WAY)] {
        for clients in [most, most + 1] {
            let config = config(bearer, Pace::Closed, clients);
            let mut load = RequestHost::new(START, config).unwrap();
            while load.poll_transmit(START).is_some() {}
            assert_eq!(load.under_way(), most);
        }
    }
    let mut config = config(KNOWN, Pace::Closed, 1 + MAX_TOKENS as u32);
    config.plan.window = Duration::from_millis(100);
    // More than three packets: the second request proves the address.
    let mut world = World::of(RequestHost::new(START, config).unwrap(), 10_000);
    while !world.load.is_done(world.now) {
        assert!(world.step());
    }
    assert_eq!(world.load.tokens_kept(), MAX_TOKENS);
}

#[test]
fn own_addresses_of_the_other_family_are_refused() {
    let mut settings = config(UNKNOWN, Pace::Closed, 1);
    settings.target.addresses = vec![address(true, 1)];
    let error = RequestHost::new(START, settings).err();
    assert_eq!(error, Some(LoadError::NoAddress));
}
