//! How much a request draws towards an address: in full while its holder has proven lately that it
//! receives there, three times the request otherwise.

use std::net::Ipv4Addr;

use super::model::{bytes, server, server_with};
use super::*;
use crate::transport::continuation::RECENT;
use crate::transport::replay::{CREDIT_BURST, CREDIT_PER_BYTE};

const RECENT_MS: u64 = RECENT.as_millis() as u64;

const MTUS: [u16; 3] = [1500, 9000, 65_535];

/// Bytes of IP packets that a datagram takes.
const fn on_the_wire(datagram: usize) -> usize {
    datagram + 28
}

/// Sends one datagram; returns the bytes of IP packets that it draws, 0 if it is dropped.
fn drawn(server: &mut Server, ms: u64, path: UdpPath, datagram: &[u8]) -> usize {
    let answer = send(server, at(ms), path, datagram, &mut bytes());
    answer.map_or(0, |flight| {
        flight.datagrams().map(|part| on_the_wire(part.len())).sum()
    })
}

/// A connection with an opening answer, and one whose address is proven; datagrams fill the MTU.
fn peers(server: &mut Server, mtu: u16, path: UdpPath) -> (Peer, Peer) {
    let opening = Peer::open_with(server, at(0), path, mtu - 28);
    let proven = opening.clone().proven(server, at(0));
    (opening, proven)
}

/// Every request that a client that received at an address once can send from elsewhere.
fn requests(opening: &Peer, peer: &Peer) -> Vec<(&'static str, Vec<u8>)> {
    let base = peer.epoch.base;
    let restart = peer.transition(TransitionKind::Restart, base);
    let timeout = peer.transition(TransitionKind::Timeout, base);
    let opened = opening.transition(TransitionKind::Opened, 0);
    let begins = Request {
        wanted: Wanted::New(b"140737488355328"),
        ..peer.declaring(&restart, base, restart.r)
    };
    vec![
        (
            "restart",
            to_bytes(&peer.declaring(&restart, base, restart.r)),
        ),
        ("restart that begins a stream", to_bytes(&begins)),
        (
            "timeout",
            to_bytes(&peer.declaring(&timeout, base, timeout.r)),
        ),
        (
            "withheld acknowledgement",
            to_bytes(&peer.acknowledging(base, base + 10)),
        ),
        (
            "first request",
            to_bytes(&opening.declaring(&opened, 0, opened.r)),
        ),
        (
            "token",
            open_bytes(
                "1000000",
                peer.size,
                Some((peer.connection, &peer.continuation)),
            ),
        ),
        (
            "token of a first answer",
            open_bytes(
                "1000000",
                peer.size,
                Some((opening.connection, &opening.continuation)),
            ),
        ),
    ]
}

#[test]
fn an_old_proof_draws_three_times_its_request_at_most() {
    for mtu in MTUS {
        for (index, whole_ms) in [(0, 1100), (1, RECENT_MS)] {
            let (opening, peer) = peers(&mut server_with(1, mtu), mtu, path());
            for (name, datagram) in requests(&opening, &peer) {
                let most = AMPLIFICATION * datagram.len();
                let recent = drawn(&mut server_with(2, mtu), whole_ms, path(), &datagram);
                let first_only = name == "token of a first answer";
                assert_eq!(
                    recent > most + 100,
                    !first_only,
                    "{name}, {mtu}, {index}: {recent} of {most}"
                );
                for ms in [RECENT_MS + 1, 14 * MINUTE] {
                    let old = drawn(&mut server_with(2, mtu), ms, path(), &datagram);
                    let most = if datagram.len() < OPEN_BYTES {
                        most
                    } else {
                        3 * on_the_wire(OPEN_BYTES)
                    };
                    assert!(old > 0, "{name}, {mtu}: it is answered");
                    assert!(old <= most, "{name}, {mtu}, {ms} ms: {old} of {most}");
                }
            }
        }
    }
}

#[test]
fn a_longer_request_earns_more() {
    let mut server = server(1);
    let (_, peer) = peers(&mut server, 1500, path());
    let base = peer.epoch.base;
    let restart = peer.transition(TransitionKind::Restart, base);
    let plain = to_bytes(&peer.declaring(&restart, base, restart.r));
    let old = RECENT_MS + 1;
    // Bytes of the request, and datagrams with bytes in its answer: a full one takes 1500.
    for (length, full) in [
        (plain.len(), 0),
        (600, 1),
        (1232, 2),
        (1472, 2),
        (5100, 10),
        (9000, 10),
    ] {
        let mut datagram = plain.clone();
        datagram.resize(length, 0);
        let flight = send(
            &mut model::server(2),
            at(old),
            path(),
            &datagram,
            &mut bytes(),
        )
        .unwrap();
        let answer = packets(&flight);
        let have = answer.iter().filter(|packet| packet.length == 1472).count();
        assert_eq!(have, full, "{length} bytes");
        let sum: usize = answer.iter().map(|packet| on_the_wire(packet.length)).sum();
        assert!(sum <= AMPLIFICATION * length, "{length} bytes draw {sum}");
        assert!(total(&answer) > 0 && !answer[0].continuation.is_empty());
        // All numbers are proven, and the continuation is of now: the next request is answered in full.
        let key = peer.look_inside(&keys(), at(0)).identity;
        let proof = answer.iter().fold(0, |proof, packet| proof ^ packet.x);
        assert_eq!(proof, key.fold(restart.r, restart.r + 10), "{length} bytes");
        let next = Peer {
            continuation: answer[0].continuation.clone(),
            epoch: restart.next,
            x: (restart.r + 1..=restart.r + 10)
                .map(|n| (n, key.fold(n - 1, n)))
                .collect(),
            ..peer.clone()
        };
        let more = next.acknowledging(restart.r, restart.r + 10);
        let later = next.ask(&mut server, at(old + 40), &more).unwrap();
        assert_eq!(later.len(), 10, "{length} bytes");
        server = model::server(1);
    }
}

#[test]
fn a_stream_whose_beginning_does_not_fit_is_left_out() {
    let mut first = server(1);
    let (_, peer) = peers(&mut first, 1500, path());
    let base = peer.epoch.base;
    let restart = peer.transition(TransitionKind::Restart, base);
    let begins = to_bytes(&Request {
        wanted: Wanted::New(b"1000"),
        ..peer.declaring(&restart, base, restart.r)
    });
    let mut app = model::Bytes {
        user: MAX_USER_BYTES,
        refuses: None,
    };
    let flight = send(&mut server(2), at(RECENT_MS + 1), path(), &begins, &mut app).unwrap();
    let answer = packets(&flight);
    assert_eq!((answer.len(), answer[0].void, total(&answer)), (1, 9, 0));
    assert!(answer[0].user.is_none() && !answer[0].continuation.is_empty());
    assert!(on_the_wire(answer[0].length) <= AMPLIFICATION * begins.len());
}

/// Bytes sent and drawn by timeouts from `count` connections, from one time to another.
fn flood(count: u32, from_ms: u64, to_ms: u64) -> (usize, usize) {
    let mut server = server(1);
    let of = |index: u32| {
        let port = 1000 + u16::try_from(index).unwrap();
        path_from(&format!("{}:{port}", Ipv4Addr::new(192, 0, 2, 1)))
    };
    let timeouts: Vec<(UdpPath, Vec<u8>)> = (0..count)
        .map(|index| {
            let (_, peer) = peers(&mut server, 1500, of(index));
            let timeout = peer.transition(TransitionKind::Timeout, peer.epoch.base);
            let request = peer.declaring(&timeout, peer.epoch.base, timeout.r);
            (peer.path, to_bytes(&request))
        })
        .collect();
    let (mut sent, mut answered) = (0, 0);
    for ms in (from_ms..to_ms).step_by(100) {
        for (path, datagram) in &timeouts {
            sent += datagram.len();
            answered += drawn(&mut server, ms, *path, datagram);
        }
    }
    (sent, answered)
}

#[test]
fn connections_of_one_address_share_its_credit() {
    let (sent, answered) = flood(100, 1000, 11_000);
    let credit = |time: Duration| (time.as_micros() / CREDIT_PER_BYTE.as_micros()) as usize;
    let most = AMPLIFICATION * sent + credit(CREDIT_BURST) + credit(Duration::from_secs(10));
    assert!(answered <= most, "{answered} of {most}");
    assert!(
        answered > credit(CREDIT_BURST),
        "the credit may be used: {answered}"
    );
    let (sent, answered) = flood(100, RECENT_MS + 1, RECENT_MS + 10_000);
    assert!(answered <= AMPLIFICATION * sent, "{answered} of {sent}");
}

#[test]
fn a_number_sent_before_takes_no_other_with_it() {
    let mut server = server(1);
    let (_, peer) = peers(&mut server, 1500, path());
    let (base, key) = (peer.epoch.base, peer.look_inside(&keys(), at(0)).identity);
    let few = |request: Request<'_>| {
        let ranges = vec![Span { start: 0, end: 10 }];
        to_bytes(&Request { ranges, ..request })
    };
    let mut ask = |after, upto| {
        let datagram = few(peer.acknowledging(after, upto));
        send(&mut server, at(1), path(), &datagram, &mut bytes()).map(|flight| packets(&flight))
    };
    let released = |after, upto| peer.epoch.released(after, upto);
    let answered = |answer: &[model::Packet]| -> Vec<u64> {
        answer
            .iter()
            .flat_map(|packet| packet.number..=packet.number + packet.void)
            .collect()
    };
    // A part in the middle, then all of it: the numbers before, and then those after.
    let part = ask(base + 2, base + 4).unwrap();
    assert_eq!(
        answered(&part),
        released(base + 2, base + 4).collect::<Vec<_>>()
    );
    for want in [released(base, base + 2), released(base + 4, base + 6)] {
        let rest = ask(base, base + 6).unwrap();
        assert_eq!(answered(&rest), want.collect::<Vec<_>>());
        for packet in &rest {
            assert_eq!(
                packet.x,
                key.fold(packet.number - 1, packet.number + packet.void)
            );
        }
    }
    // The number that would carry the bytes was sent: the others are void.
    let first = ask(base + 6, base + 7).unwrap();
    assert_eq!(
        answered(&first),
        released(base + 6, base + 7).collect::<Vec<_>>()
    );
    let others = ask(base + 6, base + 9).unwrap();
    assert_eq!(
        answered(&others),
        released(base + 7, base + 9).collect::<Vec<_>>()
    );
    assert_eq!(total(&others), 0);
    assert_eq!(ask(base, base + 9), Err("replayed"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever intervals are requested, in whatever order and with however few bytes: no number is sent twice, none
    /// is lost, and silence, which `send` finds counted once, means that all were sent.
    #[test]
    fn overlapping_intervals_release_each_number_once(
        asked in proptest::collection::vec((0u64..10, 1u64..10, 0u64..4000), 1..20), ms in prop_oneof![Just(1), Just(RECENT_MS + 1)],
    ) {
        let mut server = server(1);
        let (_, peer) = peers(&mut server, 1500, path());
        let base = peer.epoch.base;
        let mut seen = std::collections::BTreeSet::new();
        for (start, count, wanted) in asked {
            let (after, upto) = (base + start, base + (start + count).min(10));
            let ranges = if wanted == 0 { Vec::new() } else { vec![Span { start: 0, end: wanted }] };
            let datagram = to_bytes(&Request { ranges, ..peer.acknowledging(after, upto) });
            let fresh: Vec<u64> = peer.epoch.released(after, upto).filter(|n| !seen.contains(n)).collect();
            match send(&mut server, at(ms), path(), &datagram, &mut bytes()) {
                Ok(flight) => {
                    let mut sent = Vec::new();
                    for packet in packets(&flight) { sent.extend(packet.number..=packet.number + packet.void); }
                    prop_assert!(!sent.is_empty() && sent.iter().all(|n| fresh.contains(n)), "{:?} of {:?}", sent, fresh);
                    seen.extend(sent);
                }
                Err(reason) => prop_assert!(fresh.is_empty(), "{} of {:?}", reason, fresh),
            }
        }
    }
}
