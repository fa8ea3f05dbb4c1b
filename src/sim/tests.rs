//! The simulator with a minimal protocol: without defects it passes every world; with any one
//! defect the checker detects it.

mod standin;

use std::collections::BTreeSet;

use standin::{Defect, StandIn};

use super::*;
use crate::sim::machines::TransportKit;
use crate::sim::world::Livelock;

/// Small worlds: the stand-in has no congestion control.
fn small(faults: bool) -> Options {
    Options {
        faults,
        adversaries: false,
        max_clients: 4,
        max_bytes: 200_000,
        ..Options::default()
    }
}

#[test]
fn a_sound_protocol_passes() {
    let mut covered = (0, 0, 0);
    for seed in 0..200 {
        let report = run_seed(&StandIn(Defect::None), seed, &small(true));
        let report = report.unwrap_or_else(|failure| panic!("{failure}"));
        covered.0 += report.bytes;
        covered.1 += u32::from(report.downlinks.dropped() > 0);
        covered.2 += u32::from(report.world.to_dead > 0);
    }
    assert!(
        covered.0 > 1_000_000 && covered.1 > 50 && covered.2 > 20,
        "{covered:?}"
    );
}

#[test]
fn a_seed_repeats_to_the_microsecond() {
    let mut fingerprints = BTreeSet::new();
    for seed in 0..20 {
        let run = || run_seed(&StandIn(Defect::None), seed, &small(true)).unwrap();
        let report = run();
        assert_eq!(report, run());
        fingerprints.insert(report.fingerprint);
    }
    assert!(fingerprints.len() > 15);
}

type Case = (Defect, fn(&Violation) -> bool);

#[test]
fn every_defect_is_found_and_named() {
    let cases: [Case; 15] = [
        (Defect::WrongByte, |v| {
            matches!(v, Violation::WrongBytes { .. })
        }),
        (Defect::SendsTwice, |v| matches!(v, Violation::Twice { .. })),
        (Defect::BeyondBound, |v| {
            matches!(v, Violation::OutOfBound { .. })
        }),
        (Defect::OtherConnection, |v| {
            matches!(v, Violation::Unsolicited { .. })
        }),
        (Defect::OtherProof, |v| {
            matches!(v, Violation::OtherProof { .. })
        }),
        (Defect::Excessive, |v| matches!(v, Violation::Excess { .. })),
        (Defect::Refuses, |v| matches!(v, Violation::Refused { .. })),
        (Defect::Leaks, |v| matches!(v, Violation::Memory { .. })),
        (Defect::LiesAboutReceipt, |v| {
            matches!(v, Violation::Unproven { .. })
        }),
        (Defect::NeverRetries, |v| {
            matches!(v, Violation::Unfinished { .. })
        }),
        (Defect::RetriesLate, |v| {
            matches!(v, Violation::Unfinished { .. } | Violation::Stalled { .. })
        }),
        (Defect::Reopens, |v| {
            matches!(v, Violation::Handshakes { .. })
        }),
        (Defect::GivesUp, |v| matches!(v, Violation::GaveUp { .. })),
        (Defect::Spins, |v| {
            matches!(v, Violation::Livelock(Livelock::Standstill { .. }))
        }),
        (Defect::Floods, |v| {
            matches!(v, Violation::Livelock(Livelock::Flood { .. }))
        }),
    ];
    for (defect, is_named) in cases {
        let failures: Vec<SimFailure> = (0..60)
            .filter_map(|seed| run_seed(&StandIn(defect), seed, &small(true)).err())
            .map(|failure| *failure)
            .collect();
        assert!(!failures.is_empty(), "{defect:?} goes unnoticed");
        for failure in &failures {
            assert!(
                is_named(&failure.violation),
                "{defect:?} is taken for {failure}"
            );
        }
        assert!(
            failures
                .iter()
                .any(|failure| failure.client_side.len() > 24),
            "{defect:?}"
        );
    }
}

#[test]
fn a_failure_says_seed_time_and_law() {
    let failure = run_seed(&StandIn(Defect::Leaks), 1, &small(false)).unwrap_err();
    let text = failure.to_string();
    assert!(
        text.starts_with("seed 1, at ") && text.contains("soft state"),
        "{text}"
    );
}

#[test]
fn clients_that_cheat_get_far_and_nothing_beyond_the_bound() {
    let options = Options {
        max_clients: 2,
        ..Options::default()
    };
    let mut answers = 0;
    for seed in 0..40 {
        let mut scenario = Scenario::draw(seed, &options);
        for plan in &mut scenario.clients {
            plan.cheats = true;
            plan.objects.clear();
        }
        let report = run(&TransportKit, &scenario, &options);
        let report = report.unwrap_or_else(|failure| panic!("{failure}"));
        // The servers' packets are those that did not come up the clients' links.
        answers += report.world.released.saturating_sub(report.uplinks.pushed);
    }
    assert!(answers > 20_000, "{answers} packets");
}

#[test]
fn datagrams_of_earlier_streams_give_no_object_bytes_of_another() {
    let (mut late, mut namesakes) = (0, 0);
    for seed in 0..200 {
        let scenario = Scenario::draw(seed, &Options::default());
        if !scenario.clients.iter().any(|plan| plan.late_streams) {
            continue;
        }
        let report = run(&TransportKit, &scenario, &Options::default());
        let report = report.unwrap_or_else(|failure| panic!("{failure}"));
        late += report.world.late;
        namesakes += report.world.namesakes;
    }
    assert!(late > 1000 && namesakes > 500, "{late}, {namesakes}");
}
