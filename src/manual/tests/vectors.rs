//! The vectors of the protocol page: keys and sealed bytes, evidence with holes, zones, timeouts, tokens,
//! challenges, windows and layouts.

use super::*;
use crate::transport::continuation::Continuation;
use crate::transport::layout::Layout;
use crate::transport::proof::ProofKey;
use crate::wire::segment::{Cookie, Token};

const SECRET: [u8; 32] = [0x5a; 32];

/// The connection of the vectors, which is that of the worked example.
struct Vector {
    server: Server,
    keys: KeyRing,
    connection: u64,
    key: ProofKey,
    /// Pages that the vectors should show, by title, where they do not.
    faults: Vec<String>,
}

fn at(ms: u64) -> Now {
    Now {
        unix: UnixMillis::new(START + ms),
        ..Now::default()
    }
}

fn from(port: u16) -> UdpPath {
    UdpPath {
        src: ([192, 0, 2, 7], port).into(),
        dst: ([192, 0, 2, 1], 7600).into(),
    }
}

fn new_server(keys: &KeyRing) -> Server {
    let config = ServerConfig {
        server_id: 7,
        site_id: 1,
        mtu: 1500,
    };
    Server::new(config, keys.clone())
}

impl Vector {
    fn new() -> Self {
        let keys = KeyRing::with_secret(SECRET);
        let mut server = new_server(&keys);
        let opened = server.respond(at(0), from(4000), &dump("OPEN"), &mut Counting);
        let opened = opened.unwrap().payload.to_vec();
        let first = response(&opened);
        let (connection, now) = (first.header.connection, at(0).unix);
        let age = continuation::MAX_AGE;
        let inside = Continuation::open(&keys, connection, now, age, first.continuation);
        let (inside, _) = inside.unwrap();
        Self {
            server,
            keys,
            connection,
            key: inside.identity,
            faults: Vec::new(),
        }
    }

    /// Notes a fault unless the page shows these bytes.
    fn shows(&mut self, title: &str, bytes: &[u8]) {
        let marker = format!("```text\n; {title}\n");
        if !PROTOCOL.contains(&marker) || dump(title) != bytes {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            self.faults.push(format!("{title}: {hex}"));
        }
    }

    /// The continuation of an epoch that began a second before it was issued, 2 seconds after the start.
    fn sealed(&self, epoch: Epoch) -> Vec<u8> {
        let continuation = Continuation {
            identity: self.key,
            epoch,
            epoch_start: UnixMillis::new(START + 1000),
            curve_start: UnixMillis::new(START + 1000),
            proof_base: epoch.base,
            proven: true,
            address: from(4000).src,
            datagram_max: 1472,
            server: 7,
            site: 1,
        };
        continuation.seal(&self.keys, self.connection, at(2000).unix)
    }

    /// The proof of `(base, reach]` without the holes.
    fn proof(&self, base: u64, reach: u64, holes: &[Span]) -> u64 {
        let whole = self.key.fold(base, reach);
        let folds = holes
            .iter()
            .map(|hole| self.key.fold(hole.start - 1, hole.end - 1));
        folds.fold(whole, |proof, hole| proof ^ hole)
    }

    /// Shows a request on the page; checks that it releases these numbers.
    fn releases(&mut self, title: &str, request: &Request<'_>, first: u64, count: usize) {
        let mut datagram = Vec::new();
        request.emit(&mut datagram);
        self.shows(title, &datagram);
        // Numbers of another vector were not sent.
        self.server = new_server(&self.keys);
        let answer = self
            .server
            .respond(at(2040), from(4000), &datagram, &mut Counting);
        let answer = answer.unwrap_or_else(|| panic!("{title}: {:?}", self.server.counters()));
        let numbers = answer.datagrams().flat_map(|datagram| {
            let header = response(&datagram).header;
            let number = u64::from(header.number);
            number..=number + u64::from(header.void)
        });
        let want = first..first + count as u64;
        assert!(numbers.eq(want), "{title}");
    }
}

#[test]
fn vectors_are_what_the_program_computes() {
    let mut vector = Vector::new();
    let identity = [&vector.connection.to_be_bytes()[..], vector.key.bytes()].concat();
    vector.shows("CONNECTION AND PROOF KEY", &identity);
    let folds = [vector.key.fold(0, 1), vector.key.fold(1, 11)];
    let folds: Vec<u8> = folds.iter().flat_map(|x| x.to_be_bytes()).collect();
    vector.shows("X OF 1, AND OF 2 TO 11", &folds);
    let epoch = Epoch {
        base: 100,
        c: 10,
        curve: Curve::SlowStart {
            threshold: MAX_WINDOW,
            rtt_us: 40_000,
        },
    };
    let sealed = vector.sealed(epoch);
    vector.shows("CONTINUATION", &sealed);
    let user = continuation::UserContinuation {
        user: b"50".to_vec(),
        length: Some(50),
    };
    let user = user.seal(&vector.keys);
    let plain = Request {
        connection: vector.connection,
        size: 1472,
        stream: 2,
        continuation: &sealed,
        ranges: vec![Span { start: 0, end: 50 }],
        wanted: Wanted::Of(&user),
        ..Request::empty(vector.connection, 1472, 2)
    };
    released(&mut vector, &plain);
    moved(&mut vector, &plain);
    let mut open = Vec::new();
    Open {
        echo: 0x0102_0304_0506_0708,
        size: 1472,
        stream: 1,
        token: Some(Token {
            connection: vector.connection,
            sealed: &sealed,
        }),
        wanted: Wanted::New(b"20"),
        offset: 0,
    }
    .emit(&mut open);
    vector.shows("OPEN, with a token", &open);
    let faults = vector.faults.join("\n");
    assert!(faults.is_empty(), "the page should show\n{faults}");
}

/// Requests of the epoch, with their evidence.
fn released(vector: &mut Vector, plain: &Request<'_>) {
    let span = |start, end| Span { start, end };
    let holes = vec![span(105, 108), span(126, 127)];
    let pending = Request {
        after: 121,
        upto: 125,
        reach: 130,
        proof: vector.proof(100, 130, &holes),
        holes,
        ..plain.clone()
    };
    vector.releases("REQUEST, pending numbers", &pending, 121 + 31 + 1, 8);
    let holes = vec![span(122, 123), span(125, 129)];
    let loss = Request {
        wants_continuation: true,
        after: 121,
        upto: 130,
        reach: 132,
        proof: vector.proof(100, 132, &holes),
        holes,
        declared: Some(Declared {
            kind: 2,
            edge: 121,
            rtt_us: 40_000,
        }),
        ..plain.clone()
    };
    vector.releases("REQUEST, in the zone of a loss", &loss, 153, 6);
    let timeout = Request {
        wants_continuation: true,
        after: 121,
        upto: 152,
        reach: 152,
        proof: vector.proof(100, 121, &[]),
        declared: Some(Declared {
            kind: 5,
            edge: 121,
            rtt_us: 40_000,
        }),
        ..plain.clone()
    };
    vector.releases("REQUEST, timeout", &timeout, 153, 2);
}

/// The answer to a challenge, from another port.
fn moved(vector: &mut Vector, plain: &Request<'_>) {
    let mut request = Request {
        wants_continuation: true,
        after: 121,
        upto: 123,
        reach: 123,
        proof: vector.proof(100, 123, &[]),
        ..plain.clone()
    };
    let mut datagram = Vec::new();
    request.emit(&mut datagram);
    let challenged = vector
        .server
        .respond(at(2080), from(4001), &datagram, &mut Counting);
    let challenge = challenged.unwrap().payload.to_vec();
    vector.shows("CHALLENGE, to another port", &challenge);
    let Ok(ToClient::Challenge(challenge)) = ToClient::parse(&challenge) else {
        panic!("no challenge");
    };
    request.cookie = Some(Cookie { ..challenge.cookie });
    datagram.clear();
    request.emit(&mut datagram);
    vector.shows("REQUEST, answers a challenge", &datagram);
    let answer = vector
        .server
        .respond(at(2120), from(4001), &datagram, &mut Counting);
    assert!(answer.is_some(), "{:?}", vector.server.counters());
}

#[test]
fn windows_are_those_of_the_program() {
    let rows = table("| count | k | W |");
    assert!(rows.len() > 5);
    for row in rows {
        let epoch = Epoch::opening(number(row[0]));
        assert_eq!(
            epoch.window(number(row[1])),
            number::<u32>(row[2]),
            "{row:?}"
        );
    }
    let rows = table("| c | T | r | n | W | t in µs |");
    assert!(rows.len() > 3);
    for row in rows {
        let curve = Curve::SlowStart {
            threshold: number(row[1]),
            rtt_us: number(row[2]),
        };
        let (c, n) = (number(row[0]), number(row[3]));
        let have = (curve.window(c, n), curve.elapsed_us(c, n));
        assert_eq!(have, (number(row[4]), number(row[5])), "{row:?}");
    }
}

/// Spans of a cell: `start+length`, separated by blanks.
fn spans_of(cell: &str) -> Vec<Span> {
    let span = |word: &str| {
        let (start, length) = word.split_once('+').unwrap();
        let start = number(start);
        Span {
            start,
            end: start + number::<u64>(length),
        }
    };
    cell.split_whitespace().map(span).collect()
}

#[test]
fn layouts_are_those_of_the_program() {
    let rows = table("| S | numbers | taken | ranges | datagrams |");
    assert!(rows.len() > 3);
    for row in rows {
        let mut layout = Layout::default();
        let ranges = spans_of(row[3]);
        layout.fill(number(row[0]), number(row[1]), number(row[2]), &ranges);
        let have: Vec<Vec<Span>> = layout.datagrams().map(<[Span]>::to_vec).collect();
        let want: Vec<Vec<Span>> = row[4].split(" / ").map(spans_of).collect();
        assert_eq!(have, want, "{row:?}");
    }
}
