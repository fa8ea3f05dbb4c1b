//! Every packet round-trips; no bytes make a parser panic.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn spans(max: usize) -> impl Strategy<Value = Vec<Span>> {
    vec((1u64..1 << 30, 1u64..1 << 20), 0..=max).prop_map(|steps| {
        let mut at = 0;
        let step = |(gap, length): (u64, u64)| {
            let start = at + gap + 1;
            at = start + length;
            Span { start, end: at }
        };
        steps.into_iter().map(step).collect()
    })
}

/// The length on the wire that stands for an unknown one.
const UNKNOWN: u64 = (1 << 48) - 1;

proptest! {
    #[test]
    fn open_round_trips(
        echo: u64, size in 256u16.., stream: u8, connection: u64,
        token in vec(any::<u8>(), 0..=MAX_CONTINUATION_BYTES), request in vec(any::<u8>(), 0..1000),
        begins: bool, offset in 0u64..1 << 48,
    ) {
        let token = (!token.is_empty()).then_some(Token { connection, sealed: &token });
        let wanted = if begins { Wanted::New(&request) } else { Wanted::Of(&request) };
        let open = Open { echo, size, stream, token, wanted, offset };
        let mut out = Vec::new();
        open.emit(&mut out);
        prop_assert_eq!(out.len(), OPEN_BYTES);
        prop_assert_eq!(ToServer::parse(&out), Ok(ToServer::Open(open)));
    }

    #[test]
    fn request_round_trips(
        ids: (u64, u64), size in 256u16.., stream: u8, flags: [bool; 5],
        interval in (0u64..1 << 40, 0u64..1 << 20), numbers: (u8, u32, [u8; 16]),
        bytes in (vec(any::<u8>(), 0..MAX_CONTINUATION_BYTES), vec(any::<u8>(), 0..1000)),
        spans in (spans(MAX_HOLES), spans(MAX_RANGES)),
    ) {
        let [declares, wants_continuation, answers, probes, begins] = flags;
        let request = Request {
            connection: ids.0, size, stream, wants_continuation, continuation: &bytes.0,
            after: interval.0, upto: interval.0 + interval.1, reach: interval.0 + 2 * interval.1, proof: ids.1, holes: spans.0,
            declared: declares.then_some(Declared { kind: numbers.0, edge: interval.0, rtt_us: numbers.1 }),
            cookie: answers.then_some(Cookie { time: interval.0, mac: numbers.2 }),
            probe: probes.then_some(numbers.1), ranges: spans.1,
            wanted: if begins { Wanted::New(&bytes.1) } else { Wanted::Of(&bytes.1) },
        };
        let mut out = Vec::new();
        request.emit(&mut out);
        prop_assert_eq!(ToServer::parse(&out), Ok(ToServer::Request(request)));
        for cut in 0..out.len() {
            prop_assert!(ToServer::parse(&out[..cut]).is_err(), "cut at {}", cut);
        }
    }

    #[test]
    fn response_round_trips(
        ids: (u64, u32, u64, u16), stream: u8, void: u8, flags: [bool; 3], echo: Option<u64>,
        continuation in vec(any::<u8>(), 0..=MAX_CONTINUATION_BYTES), user in vec(any::<u8>(), 0..400),
        offset in 0u64..1 << 48, data in vec(any::<u8>(), 1..500),
    ) {
        let [multi, changed, with_user] = flags;
        let header = ResponseHeader {
            kind: echo.map_or(ResponseKind::Data, |echo| ResponseKind::Opened { echo, size: ids.3.max(256), count: stream }),
            connection: ids.0, number: ids.1, x: ids.2, server: ids.3, stream, void, changed, multi,
        };
        let user = with_user.then_some(UserField { length: (offset != UNKNOWN).then_some(offset), sealed: &user });
        let mut out = Vec::new();
        header.emit(&mut out, &continuation, user);
        put_chunk(&mut out, offset, multi.then(|| u16::try_from(data.len()).unwrap()));
        out.extend(&data);
        let Ok(ToClient::Response(got)) = ToClient::parse(&out) else { panic!("not a response") };
        prop_assert_eq!((got.header, got.continuation, got.user), (header, &continuation[..], user));
        prop_assert_eq!(got.chunks().collect::<Vec<_>>(), vec![(offset, &data[..])]);
    }

    #[test]
    fn small_ones_round_trip(ids: (u64, u16, u32), moved: bool, time in 0u64..1 << 48, mac: [u8; 16],
        continuation in vec(any::<u8>(), 0..=MAX_CONTINUATION_BYTES)) {
        let (connection, server, probe) = ids;
        let challenge = Challenge { connection, server, moved, cookie: Cookie { time, mac } };
        let mut out = Vec::new();
        challenge.emit(&mut out);
        prop_assert_eq!(ToClient::parse(&out), Ok(ToClient::Challenge(challenge)));
        let probed = Probed { connection, server, probe, continuation: &continuation };
        out.clear();
        probed.emit(&mut out);
        prop_assert_eq!(ToClient::parse(&out), Ok(ToClient::Probed(probed)));
        let wait = Wait { connection, server, number: probe, stream: mac[0], delay_ms: server };
        out.clear();
        wait.emit(&mut out);
        prop_assert_eq!(ToClient::parse(&out), Ok(ToClient::Wait(wait)));
    }

    #[test]
    fn no_bytes_panic(mut bytes in vec(any::<u8>(), 0..1500), first in 0usize..8) {
        const FIRST: [u8; 8] = [0x10, 0x20, 0x80, 0x8f, 0xa3, 0xc0, 0xe0, 0x40];
        if let Some(byte) = bytes.first_mut() { *byte = FIRST[first]; }
        let _ = ToServer::parse(&bytes);
        if let Ok(ToClient::Response(response)) = ToClient::parse(&bytes) {
            let total: usize = response.chunks().map(|(_, data)| data.len()).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}

#[test]
fn header_lengths_are_as_stated() {
    let header = ResponseHeader {
        kind: ResponseKind::Data,
        connection: 0,
        number: 0,
        x: 0,
        server: 0,
        stream: 0,
        void: 0,
        changed: false,
        multi: false,
    };
    let length = |header: ResponseHeader, continuation: &[u8]| {
        let mut out = Vec::new();
        header.emit(&mut out, continuation, None);
        out.len()
    };
    assert_eq!(length(header, &[]), DATA_HEADER_BYTES);
    assert_eq!(
        length(header, &[1; 70]),
        DATA_HEADER_BYTES + CONTINUATION_FIELD_BYTES
    );
    let opened = ResponseHeader {
        kind: ResponseKind::Opened {
            echo: 0,
            size: 1,
            count: 1,
        },
        ..header
    };
    assert_eq!(
        length(opened, &[1; 70]),
        DATA_HEADER_BYTES + OPENED_BYTES + 71
    );
    // The payload of a full packet of 1500 bytes.
    let payload = |ip_udp: usize| 1500 - ip_udp - DATA_HEADER_BYTES - SINGLE_CHUNK_BYTES;
    assert_eq!((payload(28), payload(48)), (1442, 1422));
}

#[test]
fn counts_are_bounded() {
    let span = |n: usize| {
        let n = n as u64;
        Span {
            start: 3 * n,
            end: 3 * n + 1,
        }
    };
    let request = |holes: usize, ranges: usize| {
        let request = Request {
            upto: 1000,
            reach: 1000,
            holes: (0..holes).map(span).collect(),
            ranges: (0..ranges).map(span).collect(),
            ..Request::empty(0, 1472, 0)
        };
        let mut out = Vec::new();
        request.emit(&mut out);
        ToServer::parse(&out).is_ok()
    };
    assert!(request(MAX_HOLES, MAX_RANGES));
    assert!(!request(MAX_HOLES + 1, 0));
    assert!(!request(0, MAX_RANGES + 1));
}

/// The client uses this size in its requests, so servers must accept it.
#[test]
fn an_answer_to_an_open_names_a_size_that_can_be_asked_for() {
    for (size, want) in [(MIN_DATAGRAM_BYTES - 1, false), (MIN_DATAGRAM_BYTES, true)] {
        let header = ResponseHeader {
            kind: ResponseKind::Opened {
                echo: 1,
                size: u16::try_from(size).unwrap(),
                count: 1,
            },
            connection: 2,
            number: 1,
            x: 3,
            server: 4,
            stream: 5,
            void: 0,
            changed: false,
            multi: false,
        };
        let mut out = Vec::new();
        header.emit(&mut out, &[], None);
        assert_eq!(ToClient::parse(&out).is_ok(), want, "{size}");
    }
}

#[test]
fn a_datagram_names_its_connection_in_its_header() {
    let header = |kind| ResponseHeader {
        kind,
        connection: 7,
        number: 1,
        x: 2,
        server: 3,
        stream: 4,
        void: 0,
        changed: false,
        multi: false,
    };
    let opened = ResponseKind::Opened {
        echo: 99,
        size: 1200,
        count: 1,
    };
    let emit = |kind| {
        let mut out = Vec::new();
        header(kind).emit(&mut out, &[1; 40], None);
        out
    };
    let mut challenge = Vec::new();
    Challenge {
        connection: 7,
        server: 3,
        moved: false,
        cookie: Cookie {
            time: 5,
            mac: [6; 16],
        },
    }
    .emit(&mut challenge);
    let known = |echo| {
        Some(Addressee {
            connection: 7,
            echo,
        })
    };
    for (name, datagram, want) in [
        ("data", emit(ResponseKind::Data), known(None)),
        ("opened", emit(opened), known(Some(99))),
        ("challenge", challenge, known(None)),
        ("cut", emit(opened)[..31].to_vec(), None),
        ("cut", emit(ResponseKind::Data)[..8].to_vec(), None),
        ("a request", vec![KIND_REQUEST; 40], None),
        ("nothing", vec![], None),
    ] {
        assert_eq!(ToClient::addressee(&datagram), want, "{name}");
    }
}
