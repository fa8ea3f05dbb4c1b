//! Requests whose bytes are not there yet: the wait, the queue, and the answer.

use super::*;
use crate::transport::application::{Begun, StreamPart, Ticket};
use crate::wire::segment::Wait;

const WORK: Unavailable = Unavailable::NotReady(Ticket(1));

fn wait_of(flight: &Flight) -> Wait {
    assert_eq!(flight.count(), 1);
    let datagram = flight.datagrams().next().unwrap();
    let Ok(ToClient::Wait(wait)) = ToClient::parse(&datagram) else {
        panic!("not a wait")
    };
    wait
}

#[test]
fn a_request_that_is_not_ready_waits_and_is_answered_once() {
    let mut server = server(1);
    let peer = Peer::opened(&mut server, at(0), path());
    let base = peer.epoch.base;
    let datagram = to_bytes(&peer.acknowledging(base, base + 5));
    let mut slow = bytes().refusing(WORK);
    for ms in 1..4 {
        let sent = send(&mut server, at(ms), path(), &datagram, &mut slow).unwrap();
        let want = Wait {
            connection: peer.connection,
            server: 1,
            number: (base + 11) as u32,
            stream: 3,
            delay_ms: 1000,
        };
        assert_eq!(wait_of(&sent), want);
        assert!(
            sent.payload.len() < datagram.len(),
            "smaller than any request"
        );
        assert_eq!(server.parked(), 1, "one for a flight");
    }
    assert_eq!(server.counters().waits, 3);
    assert!(server.poll_parked(at(4), &mut bytes()).is_none(), "not yet");
    server.wake(Ticket(1));
    assert!(server.poll_parked(at(5), &mut slow).is_none(), "still not");
    assert_eq!(server.parked(), 1);
    server.wake(Ticket(1));
    let flight = server.poll_parked(at(6), &mut bytes()).unwrap();
    assert_eq!(packets(&flight).len(), 10, "as if asked now");
    assert_eq!(flight.path, path().reversed());
    assert!(server.poll_parked(at(6), &mut bytes()).is_none());
    assert_eq!(server.parked(), 0);
    let again = send(&mut server, at(7), path(), &datagram, &mut bytes());
    assert_eq!(again.err(), Some("replayed"), "by the client, meanwhile");
}

#[test]
fn a_parked_timeout_takes_one_token() {
    let mut server = server(1);
    let peer = Peer::opened(&mut server, at(0), path());
    let timeout = peer.transition(TransitionKind::Timeout, peer.epoch.base);
    let datagram = to_bytes(&peer.declaring(&timeout, timeout.p, timeout.r));
    let mut slow = bytes().refusing(WORK);
    send(&mut server, at(1000), path(), &datagram, &mut slow).unwrap();
    // More often than there are tokens.
    for _ in 0..10 {
        server.wake(Ticket(1));
        assert!(server.poll_parked(at(1000), &mut slow).is_none());
    }
    server.wake(Ticket(1));
    let flight = server.poll_parked(at(1000), &mut bytes()).unwrap();
    assert_eq!(packets(&flight).len(), 2);
}

#[test]
fn an_unproven_address_is_answered_without_bytes_and_never_parked() {
    let mut server = server(1);
    for (name, asked) in [("begin", "not ready"), ("read", "5000")] {
        let datagram = open_bytes(asked, 1472, None);
        let flight = send(
            &mut server,
            at(0),
            path(),
            &datagram,
            &mut bytes().refusing(WORK),
        );
        let answer = packets(&flight.unwrap());
        assert_eq!(answer.len(), 1, "{name}");
        assert!(answer[0].spans.is_empty() && !answer[0].changed, "{name}");
        assert!(!answer[0].continuation.is_empty(), "{name}");
        assert_eq!(answer[0].user.is_some(), name == "read", "{name}");
        assert_eq!(server.parked(), 0, "{name}");
    }
    let mut proof = Proof::default();
    server.respond(at(0), path(), &open_bytes("5", 1472, None), &mut proof);
    assert_eq!(proof.0, [false, false]);
    let mut proof = Proof::default();
    let peer = Peer::opened(&mut server, at(0), path());
    let base = peer.epoch.base;
    server.respond(
        at(1),
        path(),
        &to_bytes(&peer.acknowledging(base, base + 1)),
        &mut proof,
    );
    assert_eq!(proof.0, [true], "a request has proven its address");
    let mut proof = Proof::default();
    let token = Some((peer.connection, &*peer.continuation));
    server.respond(at(2), path(), &open_bytes("5", 1472, token), &mut proof);
    assert_eq!(proof.0, [true, true], "and so has a token");
}

/// Records whether its clients have proven their addresses.
#[derive(Default)]
struct Proof(Vec<bool>);

impl Application for Proof {
    fn begin(&mut self, context: RequestContext, _: &[u8]) -> Result<Begun, Unavailable> {
        self.0.push(context.proven);
        Ok(Begun {
            user: vec![7],
            length: Some(5),
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let StreamPart { context, .. } = part;
        self.0.push(context.proven);
        Ok(out.len())
    }
}

/// A stream: the length available so far, and the end if it is known.
struct Growing(u64, Option<u64>);

impl Application for Growing {
    fn begin(&mut self, _: RequestContext, _: &[u8]) -> Result<Begun, Unavailable> {
        Ok(Begun {
            user: vec![7; 60],
            length: None,
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let StreamPart {
            context,
            user,
            offset,
        } = part;
        let left = usize::try_from(self.0.saturating_sub(offset)).unwrap();
        let count = left.min(out.len());
        match count {
            0 => Err(WORK),
            _ => bytes().read(StreamPart::new(context, user, offset), &mut out[..count]),
        }
        .map(|_| count)
    }

    fn length(&mut self, _: RequestContext, _: &[u8]) -> Option<u64> {
        self.1
    }
}

/// A server, and a peer that has begun a stream of unknown length with 2000 bytes.
fn growing() -> (Server, Peer) {
    let mut server = server(1);
    let mut peer = Peer::opened(&mut server, at(0), path());
    let opened = open_bytes("any", 1472, None);
    let begun = server.respond(at(0), path(), &opened, &mut Growing(2000, None));
    let begun: Vec<_> = begun.unwrap().datagrams().map(|d| d.to_vec()).collect();
    let Ok(ToClient::Response(first)) = ToClient::parse(&begun[0]) else {
        panic!("no response")
    };
    let field = first.user.unwrap();
    assert_eq!((begun.len(), field.length), (2, None));
    peer.user = field.sealed.to_vec();
    (server, peer)
}

/// Requests ranges with the number after `after`.
fn asking(peer: &Peer, after: u64, count: u64, ranges: &[(u64, u64)]) -> Vec<u8> {
    let ranges = ranges.iter().map(|&(start, end)| Span { start, end });
    to_bytes(&Request {
        ranges: ranges.collect(),
        ..peer.acknowledging(after, after + count)
    })
}

#[test]
fn the_bytes_that_are_there_are_sent_and_the_rest_is_void() {
    let (mut server, peer) = growing();
    let base = peer.epoch.base;
    let datagram = asking(&peer, base, 5, &[(2000, 9000), (100, 200)]);
    let answer = server.respond(at(1), path(), &datagram, &mut Growing(3500, None));
    let answer = packets(&answer.unwrap());
    assert_eq!(total(&answer), 1600);
    let mut spans = answer.iter().flat_map(|packet| &packet.spans);
    assert!(spans.all(|span| span.end <= 3500));
    let last = answer.last().unwrap();
    assert_eq!(last.number + last.void, base + 20);
}

#[test]
fn the_end_comes_with_a_user_continuation_of_known_length() {
    let (mut server, mut peer) = growing();
    let base = peer.epoch.base;
    let datagram = asking(&peer, base, 5, &[(3500, 9000)]);
    let waits = server.respond(at(2), path(), &datagram, &mut Growing(3500, None));
    assert_eq!(wait_of(&waits.unwrap()).number, (base + 11) as u32);
    server.wake(Ticket(1));
    let end = server.poll_parked(at(3), &mut Growing(3500, Some(3500)));
    let end = packets(&end.unwrap());
    let (sealed, length) = end[0].user.clone().unwrap();
    assert_eq!((end.len(), length, end[0].spans.len()), (1, 3500, 0));

    peer.user = sealed;
    let datagram = asking(&peer, base + 5, 1, &[(3000, 9000)]);
    let rest = server.respond(at(4), path(), &datagram, &mut Growing(3500, Some(3500)));
    let rest = packets(&rest.unwrap());
    let span = Span {
        start: 3000,
        end: 3500,
    };
    assert_eq!(rest[0].spans, [span]);
    assert!(rest[0].user.is_none(), "the continuation shown has it");
}
