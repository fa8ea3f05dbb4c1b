//! Every limit of a grant, at its bound and one past it, and that a grant depends on nothing else.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::transport::curve::{Curve, MAX_WINDOW};
use crate::transport::proof::ProofKey;
use crate::wire::segment::Declared;

const START: u64 = 1_800_000_000_000;
const BASE: u64 = 1000;
const RTT: u32 = 40_000;

fn continuation(epoch: Epoch) -> Continuation {
    Continuation {
        identity: ProofKey::new([5; 16]),
        epoch,
        epoch_start: UnixMillis::new(START),
        curve_start: UnixMillis::new(START),
        proof_base: epoch.base,
        proven: true,
        address: SocketAddr::from(([192, 0, 2, 1], 4000)),
        datagram_max: 1472,
        server: 1,
        site: 0,
    }
}

/// An epoch whose window is `w` near its base.
const fn flat(w: u32) -> Epoch {
    Epoch {
        base: BASE,
        c: w,
        curve: Curve::Cubic {
            w_max: w,
            rtt_us: 1,
        },
    }
}

const fn growing(c: u32) -> Epoch {
    let curve = Curve::SlowStart {
        threshold: MAX_WINDOW,
        rtt_us: RTT,
    };
    Epoch {
        base: BASE,
        c,
        curve,
    }
}

const fn span(start: u64, end: u64) -> Span {
    Span { start, end }
}

fn times(ms: u64) -> Times {
    Times {
        now: UnixMillis::new(START + ms),
        issued: UnixMillis::new(START),
        moved: false,
    }
}

/// Acknowledges `(after, upto]` with a proof that is correct for `holes`.
fn request(
    shown: &Continuation,
    after: u64,
    upto: u64,
    holes: &[Span],
    declared: Option<(TransitionKind, u64)>,
) -> Request<'static> {
    let end = match declared {
        Some((TransitionKind::Timeout | TransitionKind::Move, p)) => p,
        Some(_) | None => upto,
    };
    let base = match declared {
        Some((kind, _)) if kind.forgives() => shown.epoch.base,
        Some(_) | None => shown.proof_base,
    };
    let missing = holes
        .iter()
        .map(|hole| shown.identity.fold(hole.start - 1, hole.end - 1));
    Request {
        after,
        upto,
        reach: upto,
        proof: missing.fold(shown.identity.fold(base, end), |a, b| a ^ b),
        holes: holes.to_vec(),
        declared: declared.map(|(kind, edge)| Declared {
            kind: kind.code(),
            edge,
            rtt_us: RTT,
        }),
        ..Request::empty(1, 1472, 0)
    }
}

/// `count` spans of one number each, every other one, from `start` on.
fn every_other(start: u64, count: u64) -> Vec<Span> {
    (0..count)
        .map(|index| span(start + 2 * index, start + 2 * index + 1))
        .collect()
}

#[test]
fn pending_numbers_at_the_bound_and_past_it() {
    let k = BASE + 3000;
    let w = |epoch: &Epoch| u64::from(epoch.window(k));
    let (small, large) = (flat(20), flat(400));
    let half = w(&large) / 2;
    assert!(w(&small) < 88 && half > 44, "{} {half}", w(&small));
    let far = k - 2 * w(&large);
    let far = (far..k)
        .find(|&n| n + 2 * u64::from(large.window(n)) >= k)
        .unwrap();
    // Name, epoch, holes, whether they are allowed.
    for (name, epoch, holes, fine) in [
        (
            "44 of a small window",
            small,
            vec![span(k - 50, k - 6)],
            true,
        ),
        (
            "45 of a small window",
            small,
            vec![span(k - 50, k - 5)],
            false,
        ),
        (
            "half of a large window",
            large,
            vec![span(k - half - 5, k - 5)],
            true,
        ),
        (
            "more than half",
            large,
            vec![span(k - half - 6, k - 5)],
            false,
        ),
        ("8 spans", small, every_other(k - 30, 8), true),
        ("9 spans", small, every_other(k - 30, 9), false),
        (
            "within two windows",
            large,
            vec![span(far + 1, far + 2)],
            true,
        ),
        ("older", large, vec![span(far, far + 1)], false),
        ("beyond the proof", small, vec![span(k + 1, k + 2)], false),
    ] {
        let shown = continuation(epoch);
        let granted = grant(&shown, times(0), &request(&shown, k - 2, k, &holes, None));
        assert_eq!(granted.err(), (!fine).then_some(GrantError::Hole), "{name}");
    }
    // Outside of the epoch.
    let shown = continuation(growing(10));
    let before = request(&shown, BASE + 1, BASE + 2, &[span(BASE, BASE + 1)], None);
    assert_eq!(grant(&shown, times(0), &before), Err(GrantError::Hole));
}

#[test]
fn the_same_limits_hold_up_to_an_event() {
    let (shown, p) = (continuation(growing(60)), BASE + 60);
    for (name, holes, want) in [
        (
            "8 spans and the zone's",
            [every_other(p - 20, 8), every_other(p + 1, 4)].concat(),
            None,
        ),
        ("9 spans", every_other(p - 20, 9), Some(GrantError::Hole)),
        ("44 numbers", vec![span(p - 50, p - 6)], None),
        // Half of the window there is more than 44.
        ("60 numbers", vec![span(p - 59, p + 1)], None),
        (
            "across the edge",
            vec![span(p - 1, p + 3)],
            Some(GrantError::Hole),
        ),
    ] {
        let asked = request(&shown, p, p + 8, &holes, Some((TransitionKind::Loss, p)));
        assert_eq!(grant(&shown, times(0), &asked).err(), want, "{name}");
    }
}

#[test]
fn a_quarter_must_be_proven_since_the_event() {
    let (shown, p) = (continuation(growing(20)), BASE + 5);
    for kind in [
        TransitionKind::Loss,
        TransitionKind::Ce,
        TransitionKind::Exit,
    ] {
        for (missing, want) in [(6, None), (7, Some(GrantError::Quarter))] {
            let holes = [span(p + 1, p + 1 + missing)];
            let asked = request(&shown, p, p + 8, &holes, Some((kind, p)));
            assert_eq!(
                grant(&shown, times(0), &asked).err(),
                want,
                "{kind:?} {missing}"
            );
        }
    }
    // The opening's packets may all be missing: a client with the continuation has received it.
    let opening = Continuation {
        proven: false,
        ..continuation(Epoch::opening(3))
    };
    let asked = request(
        &opening,
        0,
        3,
        &[span(1, 4)],
        Some((TransitionKind::Opened, 0)),
    );
    assert_eq!(
        grant(&opening, times(0), &asked).map(|granted| granted.count),
        Ok(10)
    );
}

/// An honest client may give up without proof of pending numbers and its zone's share.
#[test]
fn giving_up_allows_what_the_events_before_it_did() {
    let (shown, p) = (continuation(flat(200)), BASE + 500);
    let w = shown.epoch.window(p);
    let most = max_pending(w) + 375;
    for kind in [TransitionKind::Timeout, TransitionKind::Move] {
        for (missing, want) in [(most, None), (most + 1, Some(GrantError::Quarter))] {
            let holes = [span(BASE + 1, BASE + 1 + missing)];
            let asked = request(&shown, p, p + u64::from(w), &holes, Some((kind, p)));
            let got = grant(&shown, times(2000), &asked).err();
            assert_eq!(got, want, "{kind:?} {missing}");
        }
        // Numbers older than the pending numbers before a zone cannot be in a zone that was given up.
        let epoch = flat(20);
        let shown = continuation(epoch);
        let far = BASE + 400;
        let fresh = (BASE..)
            .find(|&n| n + 2 * u64::from(epoch.window(n)) + u64::from(epoch.window(far)) > far)
            .unwrap();
        for (start, want) in [(fresh, None), (fresh - 1, Some(GrantError::Hole))] {
            let asked = request(
                &shown,
                far,
                epoch.edge(far),
                &[span(start, start + 1)],
                Some((kind, far)),
            );
            assert_eq!(
                grant(&shown, times(2000), &asked).err(),
                want,
                "{kind:?} {start}"
            );
        }
    }
    // Early in an epoch all of it may be missing, since it may be pending.
    let shown = continuation(growing(20));
    let holes = [span(BASE + 1, BASE + 8)];
    let asked = request(
        &shown,
        BASE + 8,
        BASE + 36,
        &holes,
        Some((TransitionKind::Timeout, BASE + 8)),
    );
    assert_eq!(
        grant(&shown, times(200), &asked).map(|granted| granted.count),
        Ok(2)
    );
}

#[test]
fn a_flight_is_the_most_that_is_released() {
    let shown = continuation(growing(50));
    for (acknowledged, want) in [(22, Ok(44)), (23, Err(GrantError::TooMuch))] {
        let asked = request(&shown, BASE + 3, BASE + 3 + acknowledged, &[], None);
        assert_eq!(
            grant(&shown, times(0), &asked).map(|granted| granted.count),
            want
        );
    }
}

#[test]
fn intervals_lie_within_their_epoch_or_zone() {
    let (shown, p) = (continuation(growing(20)), BASE + 5);
    let r = shown.epoch.edge(p);
    let loss = Some((TransitionKind::Loss, p));
    let timeout = Some((TransitionKind::Timeout, p));
    for (name, after, upto, declared, fine) in [
        ("from the base", BASE, BASE + 2, None, true),
        ("from before it", BASE - 1, BASE + 2, None, false),
        ("the zone's first", p, p + 2, loss, true),
        ("before the zone", p - 1, p + 2, loss, false),
        ("the zone's last", r - 1, r, loss, true),
        ("past the zone", r - 1, r + 1, loss, false),
        ("all that is given up", p, r, timeout, true),
        ("a part of it, from its start", p, r - 1, timeout, false),
        ("a part of it, to its end", p + 1, r, timeout, false),
    ] {
        let asked = request(&shown, after, upto, &[], declared);
        let error = grant(&shown, times(500), &asked).err();
        assert_eq!(error, (!fine).then_some(GrantError::Interval), "{name}");
    }
    let probing = Request {
        probe: Some(1),
        ..request(&shown, p, p, &[], timeout)
    };
    assert_eq!(
        grant(&shown, times(500), &probing).map(|granted| granted.count),
        Ok(0)
    );
    let overlapping = request(&shown, BASE, BASE + 4, &[span(BASE + 4, BASE + 5)], None);
    assert_eq!(
        grant(&shown, times(0), &overlapping),
        Err(GrantError::Interval)
    );
}

#[test]
fn gates_open_at_their_time() {
    let (shown, p) = (continuation(growing(20)), BASE + 5);
    let r = shown.epoch.edge(p);
    for (kind, gate) in [
        (TransitionKind::Timeout, 200),
        (TransitionKind::Restart, 1000),
        (TransitionKind::Move, 1000),
    ] {
        let asked = request(&shown, p, r, &[], Some((kind, p)));
        assert_eq!(
            grant(&shown, times(gate - 1), &asked),
            Err(GrantError::TooSoon),
            "{kind:?}"
        );
        assert!(grant(&shown, times(gate), &asked).is_ok(), "{kind:?}");
    }
    // A timeout counts from the epoch's start, a restart from the sealing.
    let late = |ms| Times {
        issued: UnixMillis::new(START + 5000),
        ..times(ms)
    };
    let timeout = request(&shown, p, r, &[], Some((TransitionKind::Timeout, p)));
    let restart = request(&shown, p, r, &[], Some((TransitionKind::Restart, p)));
    assert!(grant(&shown, late(5000), &timeout).is_ok());
    assert_eq!(
        grant(&shown, late(5999), &restart),
        Err(GrantError::TooSoon)
    );
    assert!(grant(&shown, late(6000), &restart).is_ok());
    // From a new address a restart counts like a timeout, however fresh the continuation is.
    for kind in [TransitionKind::Restart, TransitionKind::Move] {
        let moves = request(&shown, p, r, &[], Some((kind, p)));
        for (ms, want) in [(199, Some(GrantError::TooSoon)), (200, None)] {
            let moved = Times {
                moved: true,
                issued: UnixMillis::new(START + ms),
                ..times(ms)
            };
            assert_eq!(grant(&shown, moved, &moves).err(), want, "{kind:?}");
        }
    }
}

#[test]
fn ce_exit_and_restart_forgive_no_loss() {
    let (shown, p) = (continuation(growing(20)), BASE + 20);
    let r = shown.epoch.edge(p);
    let hole = [span(p - 3, p - 2)];
    for (kind, upto) in [
        (TransitionKind::Ce, p + 8),
        (TransitionKind::Exit, p + 8),
        (TransitionKind::Restart, r),
    ] {
        let declared = Some((kind, p));
        let whole = request(&shown, p, upto, &[], declared);
        assert!(grant(&shown, times(1000), &whole).is_ok(), "{kind:?}");
        let lossy = request(&shown, p, upto, &hole, declared);
        let refused = grant(&shown, times(1000), &lossy);
        assert_eq!(refused, Err(GrantError::Hole), "{kind:?}");
    }
    let late = request(
        &shown,
        p,
        r,
        &[span(r, r + 1)],
        Some((TransitionKind::Restart, p)),
    );
    assert_eq!(grant(&shown, times(1000), &late), Err(GrantError::Hole));
}

/// A loss in the zone of CE is to be declared in the next epoch.
#[test]
fn a_zone_that_forgave_no_loss_is_still_to_be_proven() {
    let (shown, p) = (continuation(growing(200)), BASE + 20);
    let lost = [span(p + 5, p + 6)];
    let ce = request(&shown, p, p + 8, &lost, Some((TransitionKind::Ce, p)));
    let granted = grant(&shown, times(0), &ce).unwrap();
    let next = granted.follow(shown, UnixMillis::new(START));
    let base = next.epoch.base;
    assert_eq!((next.proof_base, base), (p, shown.epoch.edge(p)));
    let hidden = request(&next, base, base + 2, &[], None);
    let without = Request {
        proof: next.identity.fold(base, base + 2),
        ..hidden.clone()
    };
    assert_eq!(grant(&next, times(0), &without), Err(GrantError::Proof));
    let shows = request(&next, base, base + 2, &lost, None);
    assert!(grant(&next, times(0), &shows).is_ok(), "pending");
    let old = (base..)
        .find(|&k| k >= p + 5 + 2 * u64::from(next.epoch.c))
        .unwrap();
    let shows = request(&next, old - 2, old, &lost, None);
    assert_eq!(
        grant(&next, times(0), &shows),
        Err(GrantError::Hole),
        "too old"
    );
    let loss = request(&next, old, old + 8, &[], Some((TransitionKind::Loss, old)));
    let granted = grant(&next, times(0), &loss).unwrap();
    let after = granted.follow(next, UnixMillis::new(START));
    assert_eq!(after.proof_base, after.epoch.base, "forgiven");
}

#[test]
fn time_on_a_curve_is_paid_for_once() {
    let ms = UnixMillis::new;
    let time = Duration::from_millis;
    // A fresher copy keeps the start, but saves no time up while the curve stands still.
    assert_eq!(
        follow_curve(ms(5000), false, time(1000), ms(5500)),
        ms(5000)
    );
    assert_eq!(
        follow_curve(ms(5000), false, time(1000), ms(9000)),
        ms(8000)
    );
    assert_eq!(
        follow_curve(ms(5000), false, time(0), ms(65_000)),
        ms(65_000)
    );
    // The debt delays the start of the next epoch.
    assert_eq!(follow_curve(ms(5000), true, time(1600), ms(6600)), ms(6600));
    assert_eq!(follow_curve(ms(5000), true, time(2700), ms(6600)), ms(7600));
    assert_eq!(follow_curve(ms(7600), true, time(500), ms(6600)), ms(8100));
    assert_eq!(
        follow_curve(ms(5000), true, time(0), ms(60_000)),
        ms(60_000)
    );
}

#[test]
fn a_curve_leads_the_time_paid_for_by_a_second_and_a_round_trip() {
    let curve = Curve::Cubic {
        w_max: 10,
        rtt_us: 1_000_000,
    };
    let shown = continuation(Epoch {
        base: BASE,
        c: 10,
        curve,
    });
    // The issue counts, not the present: silence pays for nothing.
    let issued = |ms| Times {
        issued: UnixMillis::new(START + ms),
        ..times(600_000)
    };
    for k in [BASE + 80, BASE + 100, BASE + 200] {
        let needs = ((shown.epoch.elapsed_us(k) - 2_000_000) * 16).div_ceil(17_000);
        let p = k + 3;
        for (name, asked) in [
            ("interval", request(&shown, k - 1, k, &[], None)),
            (
                "event",
                request(&shown, k, k + 2, &[], Some((TransitionKind::Loss, k))),
            ),
        ] {
            assert!(
                grant(&shown, issued(needs), &asked).is_ok(),
                "{name} at {k}"
            );
            let early = grant(&shown, issued(needs - 1), &asked);
            assert_eq!(early, Err(GrantError::AheadOfTime), "{name} at {k}");
        }
        // The edge at the event counts, not the passed part of the zone.
        let zone = request(&shown, p + 1, p + 4, &[], Some((TransitionKind::Loss, k)));
        assert!(grant(&shown, issued(needs), &zone).is_ok());
    }
    let indebted = Continuation {
        curve_start: UnixMillis::new(START + 1500),
        ..shown
    };
    let k = (BASE..)
        .find(|&k| shown.epoch.elapsed_us(k) > 500_000)
        .unwrap();
    let granted = |k| {
        grant(
            &indebted,
            issued(0),
            &request(&indebted, k - 1, k, &[], None),
        )
        .err()
    };
    assert_eq!(
        (granted(k - 1), granted(k)),
        (None, Some(GrantError::AheadOfTime))
    );
}

#[test]
fn an_unproven_address_opens_or_times_out() {
    let opening = Continuation {
        proven: false,
        ..continuation(Epoch::opening(3))
    };
    for (kind, fine) in [
        (None, false),
        (Some(TransitionKind::Opened), true),
        (Some(TransitionKind::Loss), false),
        (Some(TransitionKind::Ce), false),
        (Some(TransitionKind::Exit), false),
        (Some(TransitionKind::Timeout), true),
        (Some(TransitionKind::Restart), false),
        (Some(TransitionKind::Move), false),
    ] {
        let upto = kind.map_or(2, |kind| if kind.has_zone() { 2 } else { 3 });
        let asked = request(&opening, 0, upto, &[], kind.map(|kind| (kind, 0)));
        let error = grant(&opening, times(5000), &asked).err();
        assert_eq!(error, (!fine).then_some(GrantError::NotOpened), "{kind:?}");
    }
}

proptest! {
    /// Law 3: numbers released and the next epoch depend on epoch, interval and declaration only.
    #[test]
    fn a_grant_depends_on_epoch_and_event_only(
        c in 2u32..2000, slow: bool, advance in 0u64..500, more in 1u64..20, kind in 2u8..=4, event: bool,
        (key, address, ms, issued) in any::<([u8; 16], [u8; 4], u64, u64)>(),
    ) {
        let epoch = if slow { growing(c) } else { flat(c) };
        let kind = TransitionKind::from_code(kind).unwrap();
        let p = BASE + advance;
        let declared = (event && (slow || kind != TransitionKind::Exit)).then_some((kind, p));
        let upto = p + more.min(u64::from(c));
        let one = continuation(epoch);
        let other = Continuation {
            identity: ProofKey::new(key), address: SocketAddr::from((address, 9)),
            datagram_max: 300, server: 9, site: 9, ..one
        };
        let first = grant(&one, times(600_000), &request(&one, p, upto, &[], declared));
        let late = Times { issued: UnixMillis::new(START + issued % 1000), ..times(600_000 + ms % 100_000) };
        prop_assert_eq!(first, grant(&other, late, &request(&other, p, upto, &[], declared)));
        prop_assert!(first.is_ok(), "{:?}", first);
        // A proof of one connection is not valid for another.
        if key != [5; 16] {
            let foreign = grant(&other, late, &request(&one, p, upto, &[], declared));
            prop_assert_eq!(foreign, Err(GrantError::Proof));
        }
    }

    /// No request makes a server panic or release more than a flight.
    #[test]
    fn no_request_panics(
        numbers in any::<(u64, u64, u64)>(), near: bool, shift in 0u32..64,
        kind in 0u8..10, edge: u64, rtt_us: u32, holes in proptest::collection::vec((0u64..100, 1u64..100), 0..20),
        c: u32, first: u32, cubic: bool, base: u64, proven: bool, probe: bool,
    ) {
        // As large as the wire format allows.
        let base = base >> 2;
        let scale = |n: u64| if near { base + (n >> 54) } else { n >> 2 >> shift };
        let mut at = scale(numbers.1);
        let holes: Vec<Span> = holes.into_iter().map_while(|(gap, length)| {
            let start = at.checked_add(gap)?;
            at = start.checked_add(length)?;
            Some(span(start, at))
        }).collect();
        let curve = if cubic { Curve::Cubic { w_max: first, rtt_us } } else { Curve::SlowStart { threshold: first, rtt_us } };
        let shown = Continuation { proven, ..continuation(Epoch { base, c, curve }) };
        let after = scale(numbers.0);
        let upto = after.saturating_add(scale(numbers.1) >> 1);
        let asked = Request {
            reach: upto.saturating_add(scale(numbers.2)), proof: edge, holes,
            declared: (kind < 9).then_some(Declared { kind, edge: scale(edge), rtt_us }),
            probe: probe.then_some(1), after, upto, ..request(&shown, 0, 0, &[], None)
        };
        if let Ok(granted) = grant(&shown, times(0), &asked) { prop_assert!(granted.count <= MAX_FLIGHT); }
    }
}
