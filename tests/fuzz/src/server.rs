//! Target of `transport::server`: real datagrams of a live connection, altered field by field.
//!
//! In: any bytes, read as a list of edits. Laws: every datagram is answered once or counted as
//! dropped; an answer goes back where the request came from, is no longer than allowed, and every
//! byte in it is the right one; an unvalidated client gets at most three times its own bytes.

use std::net::SocketAddr;

use headwater::internals::time::{Instant, Now, UnixMillis};
use headwater::internals::transport::curve::MAX_FLIGHT;
use headwater::internals::transport::server::{MAX_UNPROVEN_PACKETS, Server};
use headwater::internals::wire::flight::{Flight, UdpPath};
use headwater::internals::wire::segment::{
    Cookie, Declared, OPEN_BYTES, Open, Request, Span, ToClient, ToServer, Token, Wanted,
};

use super::input::{Input, mutate};
use super::session::{Bytes, Sent, byte, new_server, transcript};

/// Most datagrams that one input sends.
const MAX_DATAGRAMS: usize = 16;

/// A server that gets altered datagrams of real connections.
pub fn server(data: &[u8]) {
    let mut input = Input::new(data);
    let mut server = new_server();
    for _ in 0..MAX_DATAGRAMS {
        if input.is_empty() {
            return;
        }
        let sent = pick(&mut input);
        let (mut now, mut path) = (sent.now, sent.path);
        let mut datagram = altered(&mut input, &sent.datagram);
        for _ in 0..input.u8() % 4 {
            match input.u8() % 4 {
                0 => mutate(&mut input, &mut datagram),
                1 => now = later(now, i64::from(input.u32() as i32)),
                2 => path.src.set_port(input.u16()),
                _ => path.src.set_ip(other_ip(path.src, input.u8())),
            }
        }
        respond(&mut server, now, path, &datagram);
    }
}

fn pick(input: &mut Input<'_>) -> &'static Sent {
    let sent = &transcript().to_server;
    &sent[input.below(sent.len())]
}

fn later(now: Now, millis: i64) -> Now {
    let instant = now
        .instant
        .as_micros()
        .saturating_add_signed(millis.saturating_mul(1000));
    let unix = now.unix.as_millis().saturating_add_signed(millis);
    Now {
        instant: Instant::from_micros(instant),
        unix: UnixMillis::new(unix),
    }
}

fn other_ip(address: SocketAddr, last: u8) -> std::net::IpAddr {
    match address {
        SocketAddr::V4(_) => [10, 9, 9, last].into(),
        SocketAddr::V6(_) => [0xfd00, 9, 9, 0, 0, 0, 0, u16::from(last)].into(),
    }
}

/// The datagram with some fields put to other values.
fn altered<'a>(input: &mut Input<'a>, datagram: &'a [u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match ToServer::parse(datagram).expect("a real datagram") {
        ToServer::Open(mut open) => {
            for _ in 0..input.u8() % 6 {
                alter_open(input, &mut open);
            }
            open.emit(&mut out);
        }
        ToServer::Request(mut request) => {
            for _ in 0..input.u8() % 6 {
                alter_request(input, &mut request);
            }
            request.emit(&mut out);
        }
    }
    out
}

fn alter_open<'a>(input: &mut Input<'a>, open: &mut Open<'a>) {
    match input.u8() % 6 {
        0 => open.size = size(input),
        1 => open.stream = input.u8(),
        2 => open.echo ^= input.number(),
        3 => open.offset = input.near(open.offset) % (1 << 48),
        4 => open.wanted = wanted(input, open.wanted),
        _ => {
            open.token = real_request(input).map(|real| Token {
                connection: real.connection,
                sealed: real.continuation,
            });
        }
    }
}

/// Any size, half of the time one of the smallest that are allowed.
fn size(input: &mut Input<'_>) -> u16 {
    match input.u8() & 1 {
        0 => input.u16(),
        _ => 250 + 2 * u16::from(input.u8()),
    }
}

/// A request of the transcript.
fn real_request(input: &mut Input<'_>) -> Option<Request<'static>> {
    match ToServer::parse(&pick(input).datagram) {
        Ok(ToServer::Request(request)) => Some(request),
        Ok(ToServer::Open(_)) | Err(_) => None,
    }
}

fn wanted<'a>(input: &mut Input<'a>, present: Wanted<'a>) -> Wanted<'a> {
    match input.u8() % 4 {
        0 => {
            let count = input.below(1100);
            Wanted::New(input.take(count))
        }
        1 => {
            let count = input.below(600);
            Wanted::Of(input.take(count))
        }
        2 => real_request(input).map_or(present, |real| real.wanted),
        // A long name of a stream: its user continuation is as long as one may be.
        _ => Wanted::New(&LONG_REQUEST[..input.below(LONG_REQUEST.len() + 1)]),
    }
}

/// Requests a stream of 999,999,999 bytes, in as many words as fit.
static LONG_REQUEST: [u8; 1000] = [b'9'; 1000];

fn alter_request<'a>(input: &mut Input<'a>, request: &mut Request<'a>) {
    match input.u8() % 14 {
        0 => request.connection ^= input.number(),
        1 => request.size = size(input),
        2 => request.stream = input.u8(),
        3 => request.wants_continuation ^= true,
        4 => request.after = input.near(request.after),
        5 => request.upto = input.near(request.upto),
        6 => request.reach = input.near(request.reach),
        7 => request.proof ^= input.number(),
        8 => alter_spans(input, &mut request.holes),
        9 => alter_spans(input, &mut request.ranges),
        10 => {
            let declared = request.declared.unwrap_or(Declared {
                kind: 0,
                edge: request.upto,
                rtt_us: 1000,
            });
            request.declared = match input.u8() % 4 {
                0 => None,
                1 => Some(Declared {
                    kind: input.u8() % 8,
                    ..declared
                }),
                2 => Some(Declared {
                    edge: input.near(declared.edge),
                    ..declared
                }),
                _ => Some(Declared {
                    rtt_us: input.u32(),
                    ..declared
                }),
            };
        }
        11 => request.wanted = wanted(input, request.wanted),
        12 => match input.u8() % 3 {
            0 => request.probe = Some(input.u32()),
            1 => request.probe = None,
            _ => {
                let time = request
                    .cookie
                    .map_or(input.number() % (1 << 48), |cookie| cookie.time);
                request.cookie = Some(Cookie {
                    time,
                    mac: [input.u8(); 16],
                });
            }
        },
        _ => {
            if let Some(real) = real_request(input) {
                request.continuation = real.continuation;
                if input.u8() & 1 == 0 {
                    request.connection = real.connection;
                }
            }
        }
    }
}

fn alter_spans(input: &mut Input<'_>, spans: &mut Vec<Span>) {
    let at = input.below(spans.len() + 1);
    match (input.u8() % 4, spans.get_mut(at)) {
        (0, Some(span)) => span.start = input.near(span.start),
        (1, Some(span)) => span.end = input.near(span.end),
        (2, Some(_)) => drop(spans.remove(at)),
        _ => {
            let start = input.number();
            spans.insert(
                at,
                Span {
                    start,
                    end: start.saturating_add(input.number()),
                },
            );
        }
    }
}

/// Passes one datagram to the server and checks its output against the laws.
fn respond(server: &mut Server, now: Now, path: UdpPath, datagram: &[u8]) {
    let before = seen(server);
    let soft_state = server.soft_state_bytes();
    let answer = server.respond(now, path, datagram, &mut Bytes);
    let after = seen(server);
    assert_eq!(
        after.0 + after.1,
        before.0 + before.1 + 1,
        "answered once or dropped once"
    );
    assert_eq!(server.soft_state_bytes(), soft_state);
    assert_eq!(
        u64::from(answer.is_some()),
        after.0 - before.0,
        "one flight an answer"
    );
    if let Some(flight) = &answer {
        check_flight(path, datagram, flight);
    }
}

/// Whether nobody at this address took part in the transcript: a token proves an IP address, a
/// request has to come from the very port too.
fn is_stranger(src: SocketAddr, to: &ToServer<'_>) -> bool {
    let mut known = transcript().to_server.iter().map(|sent| sent.path.src);
    match to {
        ToServer::Open(_) => !known.any(|known| known.ip() == src.ip()),
        ToServer::Request(_) => !known.any(|known| known == src),
    }
}

/// Datagrams answered, and dropped.
fn seen(server: &Server) -> (u64, u64) {
    let counters = server.counters();
    let answered = counters.opens + counters.requests + counters.challenges;
    (
        answered,
        counters.drops().iter().map(|(_, count)| count).sum(),
    )
}

fn check_flight(path: UdpPath, datagram: &[u8], flight: &Flight) {
    assert_eq!(flight.path, path.reversed());
    let count = flight.count();
    assert!(
        (1..=MAX_FLIGHT as usize).contains(&count),
        "{count} datagrams"
    );
    let longest = flight
        .datagrams()
        .map(|datagram| datagram.len())
        .max()
        .unwrap_or(0);
    let total = flight.payload.len();
    let received = ToServer::parse(datagram).expect("what is answered can be read");
    let stranger = is_stranger(path.src, &received);
    let size = match &received {
        ToServer::Open(open) => open.size,
        ToServer::Request(request) => request.size,
    };
    assert!(longest <= usize::from(size), "{longest} of {size}");
    match received {
        ToServer::Open(open) => {
            if open.token.is_none() || stranger {
                assert!(count <= MAX_UNPROVEN_PACKETS as usize && longest <= OPEN_BYTES);
                assert!(
                    total <= 3 * datagram.len(),
                    "{total} for {}",
                    datagram.len()
                );
            }
        }
        ToServer::Request(request) => {
            if request.probe.is_some() || stranger {
                assert!(
                    count == 1 && total <= datagram.len(),
                    "{total} for {}",
                    datagram.len()
                );
            }
        }
    }
    for datagram in flight.datagrams() {
        check_datagram(&datagram, stranger);
    }
}

fn check_datagram(datagram: &[u8], stranger: bool) {
    let value = ToClient::parse(datagram).expect("an answer can be read");
    let ToClient::Response(response) = value else {
        return;
    };
    let opened = matches!(
        response.header.kind,
        headwater::internals::wire::segment::ResponseKind::Opened { .. }
    );
    assert!(
        opened || !stranger,
        "no data to an address that nobody has shown to receive at"
    );
    for (offset, bytes) in response.chunks() {
        for (at, &got) in (offset..).zip(bytes) {
            assert_eq!(got, byte(at), "byte {at}");
        }
    }
}
