//! Every reason for a drop: a datagram that is dropped for it, and for no other.

use std::collections::BTreeSet;

use ring::aead::{Aad, Nonce};

use super::model::{Bytes, RTT_US, bytes, server};
use super::*;
use crate::time::UnixMillis;
use crate::transport::curve::Curve;
use crate::transport::epoch::MAX_NUMBER;
use crate::wire::segment::{Declared, MIN_DATAGRAM_BYTES};

/// A request to drop, with its time and source.
struct Case {
    reason: &'static str,
    ms: u64,
    path: UdpPath,
    datagram: Vec<u8>,
    app: Bytes,
}

fn case(reason: &'static str, ms: u64, datagram: Vec<u8>) -> Case {
    Case {
        reason,
        ms,
        path: path(),
        datagram,
        app: bytes(),
    }
}

/// Seals a modified continuation, as only a server can.
fn sealed(peer: &Peer, change: impl FnOnce(&mut Continuation)) -> Peer {
    let mut inside = peer.look_inside(&keys(), at(0));
    change(&mut inside);
    let continuation = inside.seal(&keys(), peer.connection, at(0).unix);
    Peer {
        continuation,
        epoch: inside.epoch,
        ..peer.clone()
    }
}

/// Seals a genuine but empty continuation.
fn empty_inside(peer: &Peer) -> Vec<u8> {
    let mut out = peer.continuation[..8].to_vec();
    let mut associated = peer.connection.to_be_bytes().to_vec();
    associated.extend(&out);
    let mut message = [0xff; 30];
    let ring = keys();
    let tag = ring
        .active()
        .connection(peer.connection)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key([3; 12]),
            Aad::from(associated),
            &mut message,
        )
        .unwrap();
    out.extend([3; 12]);
    out.extend(message);
    out.extend(tag.as_ref());
    out
}

fn malformed(peer: &Peer) -> Vec<Case> {
    let base = peer.epoch.base;
    let request = peer.acknowledging(base, base + 2);
    let whole = to_bytes(&request);
    let mut other_version = open_bytes("10", 1472, None);
    other_version[1] = 9;
    let tiny = MIN_DATAGRAM_BYTES as u16 - 1;
    let overlapping = vec![Span { start: 20, end: 22 }, Span { start: 21, end: 23 }];
    vec![
        case("truncated", 1, whole[..whole.len() - 1].to_vec()),
        case("truncated", 1, Vec::new()),
        case(
            "truncated",
            1,
            open_bytes("10", 1472, None)[..OPEN_BYTES - 1].to_vec(),
        ),
        case("unknown_kind", 1, vec![0x30; 200]),
        case("unknown_version", 1, other_version),
        case("out_of_range", 1, open_bytes("10", tiny, None)),
        case(
            "out_of_range",
            1,
            to_bytes(&Request {
                size: tiny,
                ..request.clone()
            }),
        ),
        case(
            "out_of_range",
            1,
            to_bytes(&Request {
                holes: overlapping,
                ..request.clone()
            }),
        ),
        case(
            "oversized",
            1,
            to_bytes(&Request {
                size: 1473,
                ..request.clone()
            }),
        ),
        case(
            "undersized",
            1,
            to_bytes(&Request {
                size: 256,
                wanted: Wanted::New(b"10"),
                ..request.clone()
            }),
        )
        .with(Bytes {
            user: MAX_USER_BYTES,
            ..bytes()
        }),
        case("undersized", 1, open_bytes("10", 256, None)).with(Bytes {
            user: MAX_USER_BYTES,
            ..bytes()
        }),
        case("not_begun", 1, open_bytes("refuse", 1472, None)),
        case(
            "not_begun",
            1,
            to_bytes(&Request {
                wanted: Wanted::New(b"refuse"),
                ..request
            }),
        ),
    ]
}

impl Case {
    fn with(self, app: Bytes) -> Self {
        Self { app, ..self }
    }
}

fn unopenable(peer: &Peer) -> Vec<Case> {
    let base = peer.epoch.base;
    let request = peer.acknowledging(base, base + 2);
    let age = u64::try_from(MAX_AGE.as_millis()).unwrap();
    let with = |index: usize, value: u8| {
        let mut continuation = peer.continuation.clone();
        continuation[index] = value;
        to_bytes(&Request {
            continuation: &continuation,
            ..request.clone()
        })
    };
    let last = peer.continuation.len() - 1;
    let foreign = Request {
        connection: peer.connection ^ 1,
        ..request.clone()
    };
    let short = Request {
        continuation: &peer.continuation[..36],
        ..request.clone()
    };
    let user = Request {
        continuation: &peer.user,
        ..request.clone()
    };
    let empty_inside = empty_inside(peer);
    let empty = Request {
        continuation: &empty_inside,
        ..request.clone()
    };
    vec![
        case("continuation_length", 1, to_bytes(&short)),
        case("continuation_version", 1, to_bytes(&user)),
        case("continuation_version", 1, with(0, 0x13)),
        case("continuation_generation", 1, with(1, 2)),
        case("continuation_expired", age + 1, to_bytes(&request)),
        case(
            "continuation_forged",
            1,
            with(last, peer.continuation[last] ^ 1),
        ),
        case("continuation_forged", 1, with(7, peer.continuation[7] ^ 1)),
        case("continuation_forged", 1, to_bytes(&foreign)),
        case("continuation_malformed", 1, to_bytes(&empty)),
    ]
}

/// Builds a request with a declaration at the base of its epoch.
fn declared(peer: &Peer, kind: u8, edge: u64, rtt_us: u32, after: u64, upto: u64) -> Vec<u8> {
    to_bytes(&Request {
        declared: Some(Declared { kind, edge, rtt_us }),
        proof: 0,
        ..peer.acknowledging(after, upto)
    })
}

fn untimely(peer: &Peer, opening: &Peer) -> Vec<Case> {
    let base = peer.epoch.base;
    let [opened, loss, _, exit, timeout, _, moves] = TransitionKind::ALL.map(TransitionKind::code);
    let cubic = sealed(peer, |inside| {
        inside.epoch.curve = Curve::Cubic {
            w_max: 10,
            rtt_us: RTT_US,
        };
    });
    let far = sealed(peer, |inside| inside.epoch.base = MAX_NUMBER - 5);
    // With a window of 2 and an RTT of a second this takes longer than the lead.
    let slow = sealed(peer, |inside| {
        inside.epoch.c = 2;
        inside.epoch.curve = Curve::Cubic {
            w_max: 2,
            rtt_us: 1_000_000,
        };
    });
    let r = peer.transition(TransitionKind::Timeout, base).r;
    let far_base = far.epoch.base;
    vec![
        case(
            "transition_before_epoch",
            1,
            declared(peer, loss, base - 1, RTT_US, base, base),
        ),
        case(
            "transition_not_opening",
            1,
            declared(peer, opened, base, RTT_US, base, base),
        ),
        case(
            "transition_not_slow_start",
            1,
            declared(&cubic, exit, base, RTT_US, base, base),
        ),
        case(
            "transition_round_trip",
            1,
            declared(peer, loss, base, 0, base, base),
        ),
        case(
            "transition_number",
            1,
            declared(&far, loss, far_base, RTT_US, far_base, far_base),
        ),
        case(
            "transition_unknown",
            1,
            declared(peer, 8, base, RTT_US, base, base),
        ),
        case("not_opened", 1, to_bytes(&opening.acknowledging(0, 2))),
        case(
            "too_soon",
            199,
            declared(peer, timeout, base, RTT_US, base, r),
        ),
        case(
            "too_soon",
            999,
            declared(peer, moves, base, RTT_US, base, r),
        ),
        case(
            "ahead_of_time",
            1,
            to_bytes(&slow.acknowledging(base, base + 36)),
        ),
    ]
}

fn unearned(peer: &Peer) -> Vec<Case> {
    let base = peer.epoch.base;
    let request = peer.acknowledging(base, base + 2);
    let one = |start| {
        vec![Span {
            start,
            end: start + 1,
        }]
    };
    let hole_beyond = Request {
        holes: one(base + 9),
        ..request.clone()
    };
    let hole_within = Request {
        holes: one(base + 1),
        ..request.clone()
    };
    let probing = Request {
        probe: Some(1),
        ..request.clone()
    };
    let loss = peer.transition(TransitionKind::Loss, base);
    let zone = Request {
        holes: vec![Span {
            start: base + 1,
            end: base + 4,
        }],
        ..peer.declaring(&loss, base, base + 3)
    };
    let past_zone = peer.declaring(&loss, base, loss.r + 1);
    vec![
        case(
            "interval",
            1,
            to_bytes(&peer.acknowledging(base - 1, base + 2)),
        ),
        case("interval", 1, to_bytes(&hole_within)),
        case("interval", 1, to_bytes(&past_zone)),
        case("interval", 1, to_bytes(&probing)),
        case(
            "too_much",
            1,
            to_bytes(&peer.acknowledging(base, base + 23)),
        ),
        case("hole", 1, to_bytes(&hole_beyond)),
        case("quarter", 1, to_bytes(&zone)),
        case(
            "proof",
            1,
            to_bytes(&Request {
                proof: request.proof ^ 1,
                ..request.clone()
            }),
        ),
        // Neither received nor declared missing.
        case(
            "proof",
            1,
            to_bytes(&peer.acknowledging(base + 10, base + 11)),
        ),
        case(
            "nothing_released",
            1,
            to_bytes(&peer.acknowledging(base + 2, base + 2)),
        ),
    ]
}

#[test]
fn every_reason_for_silence_is_reached_and_counted() {
    let mut first = server(1);
    let opening = Peer::open(&mut first, at(0), path());
    let mut peer = Peer::opened(&mut first, at(0), path());
    // More numbers arrived, so that only the claims about them are wrong.
    let (base, key) = (peer.epoch.base, peer.look_inside(&keys(), at(0)).identity);
    let mut rich = peer.clone();
    rich.x
        .extend((base + 1..=base + 40).map(|n| (n, key.fold(n - 1, n))));
    let mut cases = malformed(&peer);
    cases.extend(unopenable(&peer));
    cases.extend(untimely(&rich, &opening));
    cases.extend(
        unearned(&peer)
            .into_iter()
            .filter(|case| case.reason != "too_much"),
    );
    cases.extend(
        unearned(&rich)
            .into_iter()
            .filter(|case| case.reason == "too_much"),
    );
    peer.path = path_from("198.51.100.1:4000");
    let mut seen = BTreeSet::new();
    for (
        index,
        Case {
            reason,
            ms,
            path,
            datagram,
            mut app,
        },
    ) in cases.into_iter().enumerate()
    {
        let mut server = server(2);
        let answer = send(&mut server, at(ms), path, &datagram, &mut app);
        assert_eq!(answer.err(), Some(reason), "case {index}");
        assert_eq!(server.counters().drops(), [(reason, 1)]);
        seen.insert(reason);
    }
    // Tested elsewhere: see `tests`.
    seen.extend([
        "continuation_future",
        "moved_without_restart",
        "too_often",
        "replayed",
    ]);
    let source = include_str!("../counters.rs");
    let labels = source
        .lines()
        .filter_map(|line| line.split("=> \"").nth(1)?.split('"').next());
    assert_eq!(seen, labels.collect(), "a reason without a test");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn noise_is_never_answered(noise in proptest::collection::vec(any::<u8>(), 0..1500), kind in 0usize..3) {
        let mut datagram = noise;
        if let Some(first) = datagram.first_mut() { *first = [*first, 0x10, 0x20][kind]; }
        // A datagram as long as an OPEN may be a valid one.
        let opens = datagram.first() == Some(&0x10) && datagram.len() >= OPEN_BYTES;
        if !opens {
            thread_local!(static SERVER: core::cell::RefCell<Server> = core::cell::RefCell::new(server(1)));
            let answer = SERVER.with_borrow_mut(|server| send(server, at(0), path(), &datagram, &mut bytes()));
            prop_assert!(answer.is_err());
        }
    }

    /// However the network corrupts a request, it releases no numbers that the request did not.
    #[test]
    fn a_garbled_request_releases_nothing_else(flips in proptest::collection::vec((0usize..400, 1u8..=255), 1..4)) {
        thread_local!(static STATE: core::cell::RefCell<(Server, Peer)> = core::cell::RefCell::new({
            let mut server = server(1);
            let peer = Peer::opened(&mut server, at(0), path());
            (server, peer)
        }));
        STATE.with_borrow_mut(|(server, peer)| {
            let base = peer.epoch.base;
            let mut datagram = to_bytes(&peer.acknowledging(base, base + 3));
            for (index, flip) in flips {
                let length = datagram.len();
                datagram[index % length] ^= flip;
            }
            if let Ok(flight) = send(server, at(0), path(), &datagram, &mut bytes())
                && let Ok(ToClient::Response(_)) = ToClient::parse(&flight.datagrams().next().unwrap())
            {
                let most = peer.epoch.edge(base + 10);
                for packet in packets(&flight) {
                    prop_assert!(packet.number + packet.void <= most, "{:?}", packet);
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn the_wall_clock_may_stand_at_its_start() {
    let now = Now {
        unix: UnixMillis::new(0),
        ..at(0)
    };
    let datagram = open_bytes("3000", 1472, None);
    assert!(send(&mut server(1), now, path(), &datagram, &mut bytes()).is_ok());
}
