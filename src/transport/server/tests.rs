//! The server's answers, rule by rule; its drops and its laws have files of their own.

use super::*;
use crate::time::UnixMillis;
use crate::transport::application::{Begun, MAX_USER_BYTES, StreamPart, Unavailable};
use crate::transport::keys::Role;
use crate::wire::segment::{Challenge, Cookie, OPEN_BYTES, Wanted};
use crate::wire::segment::{MAX_CONTINUATION_BYTES, ToClient};
use model::{Peer, at, bytes, keys, open_bytes, packets, path, path_from, send, server, to_bytes};
use proptest::prelude::*;

mod bound;
mod drops;
mod laws;
mod model;
mod waits;

const MINUTE: u64 = 60_000;

fn total(packets: &[model::Packet]) -> u64 {
    packets
        .iter()
        .flat_map(|packet| &packet.spans)
        .map(Span::len)
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_open_is_answered_by_three_times_its_bytes_at_most(
        length in prop_oneof![0u64..200, 0u64..6000, Just(1 << 40)], size in prop_oneof![256u16..800, any::<u16>().prop_map(|size| size.max(256))],
        mtu in 576u16..=9000, v6: bool, user in 0usize..=MAX_USER_BYTES,
    ) {
        let mut server = Server::new(ServerConfig { server_id: 1, site_id: 0, mtu }, keys());
        let path = path_from(if v6 { "[2001:db8::1]:4000" } else { "192.0.2.1:4000" });
        let mut app = model::Bytes { user, refuses: None };
        let datagram = open_bytes(&length.to_string(), size, None);
        let sent = send(&mut server, at(0), path, &datagram, &mut app);
        // The first datagram has no room for its fixed part.
        let tight = usize::from(size.min(mtu - 48)) < 200 + user;
        prop_assert!(sent.is_ok() || tight, "{:?}", sent);
        if let Ok(flight) = sent {
            let answer = packets(&flight);
            prop_assert!((1..=3).contains(&answer.len()));
            let most = OPEN_BYTES.min(size.into()).min(usize::from(mtu) - 28);
            for packet in &answer {
                prop_assert!(packet.length <= most, "{} of {}", packet.length, most);
                prop_assert!(!packet.continuation.is_empty(), "one in every packet");
            }
            prop_assert!(answer[0].user.as_ref().is_some_and(|(_, stated)| *stated == length));
            if length < 100 { prop_assert_eq!(total(&answer), length); }
        }
    }

    #[test]
    fn datagrams_of_a_flight_are_of_one_size_but_the_last(
        size in 256u16..=1472, count in 1u64..=5, wants: bool,
        ranges in proptest::collection::vec((0u64..3000, 1u64..4000), 0..32),
    ) {
        let mut server = server(1);
        let peer = Peer::opened(&mut server, at(0), path());
        let mut start = 0;
        let ranges: Vec<Span> = ranges.into_iter().map(|(gap, length)| {
            start += gap + length;
            Span { start: start - length, end: start }
        }).collect();
        let base = peer.epoch.base;
        let request = Request {
            size, wants_continuation: wants, ranges: ranges.clone(),
            ..peer.acknowledging(base, base + count)
        };
        let flight = send(&mut server, at(1), path(), &to_bytes(&request), &mut bytes()).unwrap();
        let answer = packets(&flight);
        prop_assert_eq!(flight.segment, usize::from(size));
        let (last, full) = answer.split_last().unwrap();
        prop_assert!(full.iter().all(|packet| packet.length == usize::from(size)));
        prop_assert!(last.length <= usize::from(size));
        // The client lays out the same bytes with the same function.
        let mut layout = Layout::default();
        let field = if wants { CONTINUATION_FIELD_BYTES } else { 0 };
        let released = u32::try_from(2 * count).unwrap();
        layout.fill(size.into(), released, field, &ranges);
        let laid: Vec<Vec<Span>> = layout.datagrams().map(<[Span]>::to_vec).collect();
        let got: Vec<Vec<Span>> = answer.iter().map(|packet| packet.spans.clone())
            .filter(|spans| !spans.is_empty()).collect();
        prop_assert_eq!(got, laid);
        // Every granted number is carried or declared void.
        let accounted: u64 = answer.iter().map(|packet| 1 + packet.void).sum();
        prop_assert_eq!(accounted, u64::from(released));
        let key = peer.look_inside(&keys(), at(1)).identity;
        for packet in &answer {
            prop_assert_eq!(packet.x, key.fold(packet.number - 1, packet.number + packet.void));
        }
    }
}

#[test]
fn a_small_stream_is_whole_after_one_round_trip() {
    for address in ["192.0.2.1:4000", "[2001:db8::1]:4000"] {
        let datagram = open_bytes("3000", 1452, None);
        let flight = send(
            &mut server(1),
            at(0),
            path_from(address),
            &datagram,
            &mut bytes(),
        )
        .unwrap();
        let answer = packets(&flight);
        let spans: Vec<Span> = answer
            .iter()
            .flat_map(|packet| packet.spans.clone())
            .collect();
        assert_eq!(answer.len(), 3);
        assert_eq!((spans[0].start, spans[2].end), (0, 3000));
        assert!(
            spans.windows(2).all(|pair| pair[0].end == pair[1].start),
            "{spans:?}"
        );
    }
}

#[test]
fn a_recent_token_gives_an_initial_window_once() {
    let mut server = server(1);
    let peer = Peer::opened(&mut server, at(0), path());
    let token = Some((peer.connection, &peer.continuation[..]));
    let mut count = |ms, from, token| {
        let datagram = open_bytes("1000000", 1472, token);
        let flight = send(
            &mut server,
            at(ms),
            path_from(from),
            &datagram,
            &mut bytes(),
        );
        let flight = flight.unwrap();
        let count = packets(&flight).len();
        let size = if count == 3 { OPEN_BYTES } else { 1472 };
        assert_eq!(flight.segment, size);
        (count, packets(&flight).swap_remove(0))
    };
    // Name, time, source, packets of the answer.
    for (name, ms, from, want) in [
        ("another address", 20_000, "192.0.2.9:4000", 3),
        ("not yet issued", 0, "192.0.2.9:4000", 3),
        ("another port", 20_000, "192.0.2.1:4001", 12),
        ("again", 20_001, "192.0.2.1:4001", 3),
        ("again, later", 25_000, "192.0.2.1:4000", 3),
    ] {
        assert_eq!(count(ms, from, token).0, want, "{name}");
    }
    let forged = Some((peer.connection ^ 1, &peer.continuation[..]));
    let (have, opening) = count(20_000, "192.0.2.1:4000", forged);
    assert_eq!(have, 3, "a token of another connection");
    let unproven = Some((opening.connection, &opening.continuation[..]));
    let (have, _) = count(20_100, "192.0.2.1:4000", unproven);
    assert_eq!(have, 3, "a token of an address that proved nothing");
}

#[test]
fn an_old_token_proves_the_address_for_work_but_draws_no_more_than_none() {
    let peer = Peer::opened(&mut server(1), at(0), path());
    let token = Some((peer.connection, &peer.continuation[..]));
    let datagram = open_bytes("1000000", 1472, token);
    // Milliseconds, packets of the answer, and whether the application may begin to work.
    for (ms, want, works) in [
        (30_000, 12, true),
        (30_001, 3, true),
        (60 * MINUTE, 3, true),
        (60 * MINUTE + 1, 3, false),
    ] {
        let mut app = Contexts::default();
        let answer = server(2).respond(at(ms), path(), &datagram, &mut app);
        let count = answer.map_or(0, |flight| flight.count());
        assert_eq!((count, app.proven), (want, Some(works)), "{ms} ms");
    }
}

#[test]
fn a_token_that_came_with_a_first_answer_earns_as_much_again() {
    let mut server = server(1);
    let peer = Peer::opened(&mut server, at(0), path());
    let mut token = (peer.connection, peer.continuation);
    // Far more than the credit of an address.
    for ms in 1..1000 {
        let datagram = open_bytes("1000000", 1472, Some((token.0, &token.1)));
        let flight = send(&mut server, at(ms), path(), &datagram, &mut bytes()).unwrap();
        let answer = packets(&flight);
        assert_eq!(answer.len(), 12, "{ms}");
        token = (answer[0].connection, answer[0].continuation.clone());
    }
}

/// An application that notes whether the last address was proven.
#[derive(Default)]
struct Contexts {
    proven: Option<bool>,
}

impl Application for Contexts {
    fn begin(&mut self, context: RequestContext, _: &[u8]) -> Result<Begun, Unavailable> {
        self.proven = Some(context.proven);
        Ok(Begun {
            user: Vec::new(),
            length: Some(1 << 40),
        })
    }

    fn read(&mut self, _: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        Ok(out.len())
    }
}

#[test]
fn a_full_datagram_carries_what_the_plan_promises() {
    for (address, datagram, payload) in [
        ("192.0.2.1:4000", 1472, 1442),
        ("[2001:db8::1]:4000", 1452, 1422),
    ] {
        let mut server = server(1);
        let peer = Peer::opened(&mut server, at(0), path_from(address));
        let base = peer.epoch.base;
        let answer = peer
            .ask(&mut server, at(1), &peer.acknowledging(base, base + 5))
            .unwrap();
        assert_eq!(answer.len(), 10);
        for packet in answer {
            assert_eq!((packet.length, packet.spans[0].len()), (datagram, payload));
        }
    }
}

#[test]
fn a_request_is_answered_once_on_one_server() {
    let mut server = server(1);
    let peer = Peer::opened(&mut server, at(0), path());
    let base = peer.epoch.base;
    let request = peer.acknowledging(base, base + 4);
    assert_eq!(peer.ask(&mut server, at(1), &request).unwrap().len(), 8);
    assert_eq!(peer.ask(&mut server, at(2), &request), Err("replayed"));
    // An overlapping request releases only new numbers.
    let overlapping = peer.acknowledging(base + 2, base + 6);
    let numbers: Vec<u64> = peer
        .ask(&mut server, at(3), &overlapping)
        .unwrap()
        .iter()
        .map(|packet| packet.number)
        .collect();
    let fresh = peer.epoch.edge(base + 4) + 1..=peer.epoch.edge(base + 6);
    assert_eq!(numbers, fresh.collect::<Vec<_>>());
    // Another server has no record of them.
    assert_eq!(
        peer.ask(&mut model::server(2), at(4), &request)
            .unwrap()
            .len(),
        8
    );
}

/// A repeated restart or move draws nothing: a client without an answer declares a timeout.
#[test]
fn restarts_do_not_pass_the_filter() {
    for kind in [TransitionKind::Restart, TransitionKind::Move] {
        let mut server = server(1);
        let peer = Peer::opened(&mut server, at(0), path());
        let base = peer.epoch.base;
        let event = peer.transition(kind, base);
        let request = peer.declaring(&event, base, event.r);
        assert!(peer.ask(&mut server, at(2000), &request).is_ok());
        assert_eq!(
            peer.ask(&mut server, at(2300), &request),
            Err("replayed"),
            "{kind:?}"
        );
        let timeout = peer.transition(TransitionKind::Timeout, base);
        let request = peer.declaring(&timeout, base, timeout.r);
        assert!(peer.ask(&mut server, at(2600), &request).is_ok());
    }
}

#[test]
fn timeouts_and_probes_pass_the_filter_at_the_rate_of_the_bucket() {
    for kind in [Some(TransitionKind::Timeout), None] {
        let mut server = server(1);
        let peer = Peer::opened(&mut server, at(0), path());
        let base = peer.epoch.base;
        let request = match kind.map(|kind| peer.transition(kind, base)) {
            Some(event) => peer.declaring(&event, base, event.r),
            None => peer.probing(base),
        };
        let sealed = to_bytes(&request);
        let mut answered = |ms| send(&mut server, at(ms), path(), &sealed, &mut bytes());
        for _ in 0..crate::transport::replay::TOKEN_BURST {
            assert!(answered(2000).is_ok(), "{kind:?}");
        }
        assert_eq!(answered(2000).err(), Some("too_often"), "{kind:?}");
        assert_eq!(answered(2099).err(), Some("too_often"), "{kind:?}");
        assert!(answered(2100).is_ok(), "{kind:?}");
        assert_eq!(answered(2100).err(), Some("too_often"), "{kind:?}");
    }
}

#[test]
fn the_answer_to_a_probe_is_no_larger_and_has_no_data() {
    let mut server = server(1);
    let peer = Peer::opened(&mut server, at(0), path());
    let base = peer.epoch.base;
    let event = peer.transition(TransitionKind::Loss, base + 2);
    let plain = peer.probing(base + 1);
    let declaring = Request {
        probe: Some(77),
        ..peer.declaring(&event, base + 2, base + 2)
    };
    for (request, epoch) in [(plain, peer.epoch), (declaring, event.next)] {
        let request = Request {
            ranges: Vec::new(),
            wanted: Wanted::Of(&[]),
            ..request
        };
        let datagram = to_bytes(&request);
        let flight = send(&mut server, at(1), path(), &datagram, &mut bytes()).unwrap();
        assert!(flight.payload.len() <= datagram.len());
        let payload = flight.payload.to_vec();
        let Ok(ToClient::Probed(probed)) = ToClient::parse(&payload) else {
            panic!("not the answer to a probe");
        };
        assert_eq!((probed.probe, probed.connection), (77, peer.connection));
        let next = Peer {
            continuation: probed.continuation.to_vec(),
            ..peer.clone()
        };
        assert_eq!(next.look_inside(&keys(), at(1)).epoch, epoch);
    }
}

#[test]
fn numbers_without_bytes_are_declared_void() {
    let mut server = server(1);
    let peer = Peer::opened(&mut server, at(0), path());
    let (base, key) = (peer.epoch.base, peer.look_inside(&keys(), at(0)).identity);
    let first = peer.epoch.edge(base) + 1;
    // Bytes requested, and the packets expected: number and count of void ones after it.
    for (server_id, ranges, want) in [
        (2, vec![], vec![(first, 9)]),
        (3, vec![Span { start: 0, end: 100 }], vec![(first, 9)]),
        (
            4,
            vec![Span {
                start: 0,
                end: 1500,
            }],
            vec![(first, 0), (first + 1, 8)],
        ),
        // Both full: no room for a void count.
        (
            5,
            vec![Span {
                start: 0,
                end: 2884,
            }],
            vec![(first, 0), (first + 1, 0), (first + 2, 7)],
        ),
        // Beyond the stream.
        (
            6,
            vec![Span {
                start: (1 << 47) + 1,
                end: 1 << 48,
            }],
            vec![(first, 9)],
        ),
    ] {
        let request = Request {
            ranges,
            ..peer.acknowledging(base, base + 5)
        };
        let answer = peer
            .ask(&mut model::server(server_id), at(1), &request)
            .unwrap();
        let got: Vec<(u64, u64)> = answer.iter().map(|p| (p.number, p.void)).collect();
        assert_eq!(got, want, "{:?}", request.ranges);
        let proof = answer.iter().fold(0, |proof, packet| proof ^ packet.x);
        assert_eq!(proof, key.fold(first - 1, first + 9), "proves them all");
    }
}

/// A server with a connection, and the first request on it.
fn opened_and_asked() -> (Server, Vec<u8>) {
    let mut server = server(1);
    let peer = Peer::opened(&mut server, at(0), path());
    let base = peer.epoch.base;
    let datagram = to_bytes(&peer.acknowledging(base, base + 5));
    (server, datagram)
}

#[test]
fn another_version_of_the_object_gives_no_byte() {
    let (mut server, datagram) = opened_and_asked();
    let mut app = bytes().refusing(Unavailable::Changed);
    let flight = send(&mut server, at(1), path(), &datagram, &mut app).unwrap();
    let answer = packets(&flight);
    assert_eq!(answer.len(), 1);
    assert!(answer[0].changed && answer[0].spans.is_empty());
    assert_eq!(answer[0].void, 9);
}

#[test]
fn the_answer_is_a_function_of_the_arguments() {
    let peer = Peer::opened(&mut server(1), at(0), path());
    let base = peer.epoch.base;
    let event = peer.transition(TransitionKind::Loss, base + 3);
    let timeout = peer.transition(TransitionKind::Timeout, base);
    for (name, datagram) in [
        (
            "open",
            open_bytes("5000", 1472, Some((peer.connection, &peer.continuation))),
        ),
        ("request", to_bytes(&peer.acknowledging(base, base + 5))),
        (
            "event",
            to_bytes(&peer.declaring(&event, base + 3, base + 9)),
        ),
        (
            "timeout",
            to_bytes(&peer.declaring(&timeout, base, timeout.r)),
        ),
        ("probe", to_bytes(&peer.probing(base + 3))),
    ] {
        let answer = || send(&mut server(1), at(500), path(), &datagram, &mut bytes()).unwrap();
        assert_eq!(answer(), answer(), "{name}");
    }
    let moved = path_from("198.51.100.1:4000");
    let datagram = to_bytes(&peer.acknowledging(base, base + 5));
    let answer = || send(&mut server(1), at(500), moved, &datagram, &mut bytes()).unwrap();
    assert_eq!(answer(), answer(), "challenge");
}

/// Returns the challenge to a request from another address.
fn challenged(server: &mut Server, ms: u64, path: UdpPath, request: &Request<'_>) -> Challenge {
    let datagram = to_bytes(request);
    let flight = send(server, at(ms), path, &datagram, &mut bytes()).unwrap();
    assert!(
        flight.payload.len() <= datagram.len(),
        "no larger than the request"
    );
    match ToClient::parse(&flight.payload.to_vec()) {
        Ok(ToClient::Challenge(challenge)) => challenge,
        other => panic!("no challenge: {other:?}"),
    }
}

#[test]
fn another_port_is_taken_on_after_a_challenge() {
    let mut server = server(1);
    let peer = Peer::opened(&mut server, at(0), path());
    let (base, moved) = (peer.epoch.base, path_from("192.0.2.1:4999"));
    let request = Request {
        wants_continuation: true,
        ..peer.acknowledging(base, base + 2)
    };
    let challenge = challenged(&mut server, 1, moved, &request);
    assert!(!challenge.moved);
    let echoed = Request {
        cookie: Some(challenge.cookie),
        ..request.clone()
    };
    let answer = send(&mut server, at(2), moved, &to_bytes(&echoed), &mut bytes()).unwrap();
    let mut next = Peer {
        path: moved,
        ..peer.clone()
    };
    next.continuation
        .clone_from(&packets(&answer)[0].continuation);
    let inside = next.look_inside(&keys(), at(2));
    assert_eq!((inside.address, inside.epoch), (moved.src, peer.epoch));
    assert!(
        next.ask(&mut server, at(3), &next.acknowledging(base + 2, base + 4))
            .is_ok()
    );
    challenged(
        &mut server,
        3,
        path(),
        &next.acknowledging(base + 4, base + 5),
    );
}

#[test]
fn a_link_local_address_with_a_zone_needs_no_challenge() {
    let mut server = server(1);
    let peer = Peer::opened(&mut server, at(0), path_from("[fe80::1%7]:4000"));
    let base = peer.epoch.base;
    let request = peer.acknowledging(base, base + 2);
    assert!(!peer.ask(&mut server, at(1), &request).unwrap().is_empty());
}

#[test]
fn another_address_is_taken_on_with_a_restart_only() {
    let mut server = server(1);
    let peer = Peer::opened(&mut server, at(0), path());
    let (base, moved) = (peer.epoch.base, path_from("198.51.100.1:4000"));
    let plain = peer.acknowledging(base, base + 2);
    let challenge = challenged(&mut server, 1, moved, &plain);
    assert!(challenge.moved);
    let echo = |request: Request<'_>, server: &mut Server, ms| {
        let request = Request {
            cookie: Some(challenge.cookie),
            ..request
        };
        send(server, at(ms), moved, &to_bytes(&request), &mut bytes())
    };
    assert_eq!(
        echo(plain, &mut server, 2).err(),
        Some("moved_without_restart")
    );
    let timeout = peer.transition(TransitionKind::Timeout, base);
    let request = peer.declaring(&timeout, base, timeout.r);
    assert_eq!(
        echo(request, &mut server, 300).err(),
        Some("moved_without_restart")
    );
    // The gate of one second does not apply, since the address was just validated; that of a timeout does.
    let restart = peer.transition(TransitionKind::Restart, base);
    let request = peer.declaring(&restart, base, restart.r);
    assert_eq!(
        echo(request.clone(), &mut server, 199).err(),
        Some("too_soon")
    );
    let flight = echo(request, &mut server, 200).unwrap();
    let mut next = Peer {
        path: moved,
        ..peer.clone()
    };
    next.go_over(&restart, &packets(&flight));
    assert_eq!(next.look_inside(&keys(), at(200)).address, moved.src);
    let request = peer.declaring(&restart, base, restart.r);
    assert_eq!(
        peer.ask(&mut server, at(204), &request),
        Err("too_soon"),
        "from the old address"
    );
}

#[test]
fn a_challenge_serves_its_address_continuation_and_time_only() {
    let mut server = server(1);
    let peer = Peer::opened(&mut server, at(0), path());
    let (base, moved) = (peer.epoch.base, path_from("192.0.2.1:4999"));
    let request = peer.acknowledging(base, base + 2);
    let cookie = challenged(&mut server, 0, moved, &request).cookie;
    let later = MAX_CHALLENGE_AGE.as_millis() as u64;
    let other = Peer::opened(&mut server, at(0), moved);
    let garbled = Cookie {
        mac: [0; 16],
        ..cookie
    };
    let shifted = Cookie {
        time: cookie.time + 1,
        ..cookie
    };
    // Name, time, source, cookie, whether it is accepted.
    for (name, ms, from, cookie, fine) in [
        ("genuine", 0, "192.0.2.1:4999", cookie, true),
        ("at its greatest age", later, "192.0.2.1:4999", cookie, true),
        ("one past it", later + 1, "192.0.2.1:4999", cookie, false),
        ("another address", 0, "192.0.2.1:4998", cookie, false),
        ("garbled", 0, "192.0.2.1:4999", garbled, false),
        ("another time", 0, "192.0.2.1:4999", shifted, false),
    ] {
        let request = Request {
            cookie: Some(cookie),
            ..request.clone()
        };
        let (path, datagram) = (path_from(from), to_bytes(&request));
        let mut fresh = model::server(9);
        let flight = send(&mut fresh, at(ms), path, &datagram, &mut bytes()).unwrap();
        let answered = matches!(
            ToClient::parse(&flight.payload.to_vec()),
            Ok(ToClient::Response(_))
        );
        assert_eq!(answered, fine, "{name}");
    }
    // Of another connection of the same client.
    let elsewhere = path_from("192.0.2.1:5000");
    let base = other.epoch.base;
    let request = other.acknowledging(base, base + 2);
    let request = Request {
        cookie: Some(cookie),
        ..request
    };
    challenged(&mut server, 0, elsewhere, &request);
}

#[test]
fn keys_rotate_in_the_middle_of_a_connection() {
    let (old, new) = ([1; 32], [2; 32]);
    let ring = |entries: &[(u8, Role, [u8; 32])]| KeyRing::new(entries).unwrap();
    let mut server = server(1);
    let mut peer = Peer::opened(&mut server, at(0), path());
    let identity = peer.look_inside(&keys(), at(0)).identity;
    let base = peer.epoch.base;
    // Role of the old and the new generation; generation of the resulting continuation.
    let steps = [
        (vec![(1, Role::Active, old), (2, Role::Staged, new)], 1),
        (vec![(1, Role::Retiring, old), (2, Role::Active, new)], 2),
        (vec![(2, Role::Active, new)], 2),
    ];
    for (index, (entries, generation)) in (0..).zip(steps) {
        server.set_keys(ring(&entries));
        let request = Request {
            wants_continuation: true,
            ..peer.acknowledging(base + index, base + index + 1)
        };
        let answer = peer.ask(&mut server, at(1 + index), &request);
        if index == 2 {
            // The user continuation, of the first generation, is requested again.
            assert_eq!(answer, Err("continuation_generation"));
            let request = Request {
                wanted: Wanted::New(b"99999999"),
                ..request
            };
            let answer = peer.ask(&mut server, at(9), &request).unwrap();
            assert!(answer[0].user.is_some());
            continue;
        }
        let answer = answer.unwrap();
        assert_eq!(answer[0].continuation[1], generation);
        peer.continuation.clone_from(&answer[0].continuation);
        let inside = peer.look_inside(&ring(&entries), at(5));
        assert_eq!((inside.identity, inside.epoch), (identity, peer.epoch));
        assert_eq!(
            inside.epoch_start,
            at(0).unix,
            "refreshing does not restart the epoch"
        );
    }
    let request = peer.acknowledging(base, base + 1);
    assert_eq!(
        peer.ask(&mut model::server(2), at(5), &request),
        Err("continuation_generation"),
        "a server without the new generation"
    );
}

#[test]
fn clocks_may_differ_by_a_second() {
    let peer = Peer::opened(&mut server(1), at(10_000), path());
    let base = peer.epoch.base;
    let request = peer.acknowledging(base, base + 2);
    for (ms, fine) in [(9_000, true), (8_999, false), (11_000, true)] {
        let answer = peer.ask(&mut server(2), at(ms), &request);
        assert_eq!(
            answer.err(),
            (!fine).then_some("continuation_future"),
            "{ms}"
        );
    }
}

#[test]
fn a_continuation_fits_its_field() {
    let mut server = server(u16::MAX);
    let peer = Peer::opened(&mut server, at(0), path_from("[2001:db8::1]:65535"));
    let largest = Continuation {
        epoch: Epoch {
            base: crate::transport::epoch::MAX_NUMBER,
            c: 1 << 20,
            curve: crate::transport::curve::Curve::Cubic {
                w_max: 1 << 20,
                rtt_us: 1_000_000,
            },
        },
        epoch_start: UnixMillis::new(0),
        curve_start: UnixMillis::new(0),
        proof_base: crate::transport::epoch::MAX_NUMBER - (1 << 20),
        ..peer.look_inside(&keys(), at(0))
    };
    let sealed = largest.seal(&keys(), peer.connection, at(0).unix);
    assert!(sealed.len() <= MAX_CONTINUATION_BYTES, "{}", sealed.len());
}
