//! Tests of the shared bottleneck: bytes are conserved, runs are repeatable, and the model of TCP
//! behaves like TCP.

use super::*;
use crate::link::Chance;

fn link(rate_mbit: u64, delay_ms: u64, queue_bytes: usize) -> LinkConfig {
    LinkConfig {
        delay: Duration::from_millis(delay_ms),
        rate: Some(rate_mbit * 1_000_000),
        queue_bytes,
        ..LinkConfig::default()
    }
}

fn plan(carrier: Carrier, bytes: u64) -> FlowPlan {
    FlowPlan {
        carrier,
        starts: Duration::ZERO,
        access: Duration::ZERO,
        bytes,
    }
}

fn path(flows: Vec<FlowPlan>, lasts: u64) -> Bottleneck {
    Bottleneck {
        down: link(20, 10, 50_000),
        up: link(20, 10, 50_000),
        flows,
        lasts: Duration::from_secs(lasts),
        seed: 1,
    }
}

const CARRIERS: [Carrier; 4] = [
    Carrier::Ours,
    Carrier::OursRemembered,
    Carrier::Tcp(Growth::Cubic),
    Carrier::Tcp(Growth::Reno),
];

#[test]
fn every_carrier_completes_over_a_lossy_path_and_repeats_itself() {
    for carrier in CARRIERS {
        let mut path = path(vec![plan(carrier, 2_000_000)], 60);
        path.down.loss = Chance::from_percent(1);
        path.up.loss = Chance::from_percent(1);
        let first = run(&path).unwrap();
        let [flow] = &first.flows[..] else { panic!() };
        assert_eq!(flow.received, 2_000_000, "{carrier:?}");
        assert!(flow.completed.is_some(), "{carrier:?}");
        assert_eq!(run(&path).unwrap(), first, "{carrier:?}");
    }
}

#[test]
fn a_lossless_path_is_filled() {
    for carrier in CARRIERS {
        let outcome = run(&path(vec![plan(carrier, 1 << 40)], 20)).unwrap();
        let mbit = outcome.flows[0].received * 8 / 20 / 1_000_000;
        // 1442 or 1448 of 1500 bytes are payload.
        assert!((18..20).contains(&mbit), "{carrier:?}: {mbit} of 20 Mbit/s");
    }
}

#[test]
fn flows_share_a_bottleneck_and_each_gets_its_own_bytes() {
    let flows = CARRIERS.map(|carrier| plan(carrier, 3_000_000)).to_vec();
    let outcome = run(&path(flows, 60)).unwrap();
    for flow in &outcome.flows {
        assert_eq!(flow.received, 3_000_000);
        let total = flow.by_second.last().copied();
        assert_eq!(total, Some(3_000_000), "by second it is no other");
        assert!(flow.by_second.is_sorted());
    }
}

#[test]
fn a_short_object_takes_as_many_round_trips_as_it_should() {
    // Round trip 20 ms: handshake and request for TCP, one for ours, a whole window with a token.
    for (carrier, bytes, least, most) in [
        (Carrier::Tcp(Growth::Cubic), 1000, 40, 45),
        (Carrier::Ours, 1000, 20, 23),
        (Carrier::Ours, 10_000, 40, 47),
        (Carrier::OursRemembered, 10_000, 20, 27),
    ] {
        let outcome = run(&path(vec![plan(carrier, bytes)], 5)).unwrap();
        let took = outcome.flows[0].completed.unwrap().as_millis();
        assert!(
            (least..most).contains(&took),
            "{carrier:?}, {bytes} bytes: {took} ms"
        );
    }
}

#[test]
fn what_does_not_come_in_time_is_cut_off() {
    let mut path = path(vec![plan(Carrier::Ours, 1 << 40)], 1);
    path.down.loss = Chance::from_percent(100);
    let outcome = run(&path).unwrap();
    assert_eq!(outcome.ended, Duration::from_secs(1));
    assert_eq!(outcome.flows[0].completed, None);
    assert_eq!(outcome.flows[0].received, 0);
}

#[test]
fn flows_beyond_the_bound_are_left_out() {
    let flows = vec![plan(Carrier::Tcp(Growth::Reno), 1000); MAX_FLOWS + 1];
    assert_eq!(run(&path(flows, 5)).unwrap().flows.len(), MAX_FLOWS);
}

#[test]
fn a_crowd_whose_first_segments_are_lost_goes_on() {
    let mut path = path(vec![plan(Carrier::Tcp(Growth::Cubic), 1 << 40); 5], 5);
    path.down.queue_bytes = 6_250;
    path.flows[0].carrier = Carrier::Ours;
    let outcome = run(&path).unwrap();
    assert!(outcome.flows.iter().all(|flow| flow.received > 0));
}

/// Goodput in Mbit/s of 20 s over the path with the uplink, and the bytes upstream for a hundred downstream.
fn uneven(uplink: LinkConfig) -> (u64, u64) {
    let path = Bottleneck {
        down: link(50, 20, 250_000),
        up: uplink,
        ..path(vec![plan(Carrier::Ours, 1 << 40)], 20)
    };
    let outcome = run(&path).unwrap();
    let upstream = outcome.up.pushed_bytes * 100 / outcome.down.pushed_bytes;
    (outcome.flows[0].received * 8 / 20_000_000, upstream)
}

#[test]
fn a_slow_uplink_gets_few_requests() {
    let kbit = |rate: u64| LinkConfig {
        rate: Some(rate * 1000),
        ..link(0, 20, 30_000)
    };
    // Flights of half a millisecond need a fifteenth of the rate of the data.
    for (rate, least, most) in [(200, 20, 2), (1000, 30, 3), (5000, 46, 8)] {
        let (mbit, upstream) = uneven(kbit(rate));
        assert!(mbit >= least, "{rate} kbit/s: {mbit} Mbit/s");
        assert!(upstream < most, "{rate} kbit/s: {upstream} % upstream");
    }
}

#[test]
fn jitter_of_requests_does_not_end_slow_start() {
    for jitter_reorders in [false, true] {
        let jittery = LinkConfig {
            jitter: Duration::from_millis(10),
            jitter_reorders,
            ..link(50, 20, 250_000)
        };
        let (mbit, _) = uneven(jittery);
        assert!(mbit >= 43, "out of order: {jitter_reorders}: {mbit} Mbit/s");
    }
}
