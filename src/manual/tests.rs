//! The pages are true: dumps equal the packets that the program sends, tables its results, and every
//! bound named in the sources is on the page of limits.

mod vectors;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::time::{Now, UnixMillis};
use crate::transport::application::{
    Application, Begun, MAX_REQUEST_BYTES, MAX_STREAM_BYTES, RequestContext, StreamPart, Ticket,
    Unavailable,
};
use crate::transport::curve::{Curve, MAX_WINDOW};
use crate::transport::epoch::{Declaration, Epoch, TransitionKind};
use crate::transport::keys::KeyRing;
use crate::transport::server::{Server, ServerConfig};
use crate::transport::{continuation, curve, epoch, grant, replay, server};
use crate::wire::flight::UdpPath;
use crate::wire::segment::{self, Declared, Open, Request, Response, Span, ToClient, Wanted};

const PROTOCOL: &str = include_str!("protocol.md");

const LIMITS: &str = include_str!("limits.md");

const START: u64 = 1_800_000_000_000;

/// The application of the worked example: the request is the length of the stream in decimal, and
/// byte `i` of every stream is `i mod 256`.
struct Counting;

impl Application for Counting {
    fn begin(&mut self, _: RequestContext, request: &[u8]) -> Result<Begun, Unavailable> {
        let length = std::str::from_utf8(request).unwrap().parse().unwrap();
        Ok(Begun {
            user: request.to_vec(),
            length: Some(length),
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let StreamPart { offset, .. } = part;
        for (index, to) in out.iter_mut().enumerate() {
            *to = (offset + index as u64).to_le_bytes()[0];
        }
        Ok(out.len())
    }
}

/// The bytes of the dump that begins with the line `; title`. Each line is bytes in hexadecimal,
/// `xx*n` for one that is repeated, then a comment after `;`.
fn dump(title: &str) -> Vec<u8> {
    let marker = format!("```text\n; {title}\n");
    let (_, after) = PROTOCOL
        .split_once(&marker)
        .unwrap_or_else(|| panic!("no dump `{title}`"));
    let (block, _) = after.split_once("```").unwrap();
    let words = block
        .lines()
        .flat_map(|line| line.split(';').next().unwrap().split_whitespace());
    let mut bytes = Vec::new();
    for word in words {
        let (byte, count) = word.split_once('*').unwrap_or((word, "1"));
        let byte = u8::from_str_radix(byte, 16).unwrap();
        bytes.resize(bytes.len() + count.parse::<usize>().unwrap(), byte);
    }
    bytes
}

fn assert_dump(title: &str, have: &[u8]) {
    let hex =
        |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x} ")).collect() };
    assert!(
        dump(title) == have,
        "the page should show `{title}` as\n{}",
        hex(have)
    );
}

/// The same, before its bytes are there.
struct NotYet;

impl Application for NotYet {
    fn begin(&mut self, _: RequestContext, _: &[u8]) -> Result<Begun, Unavailable> {
        Err(Unavailable::NotReady(Ticket(1)))
    }

    fn read(&mut self, _: StreamPart<'_>, _: &mut [u8]) -> Result<usize, Unavailable> {
        Err(Unavailable::NotReady(Ticket(1)))
    }
}

struct Example {
    server: Server,
}

impl Example {
    fn new() -> Self {
        let config = ServerConfig {
            server_id: 7,
            site_id: 1,
            mtu: 1500,
        };
        Self {
            server: Server::new(config, KeyRing::with_secret([0x5a; 32])),
        }
    }

    /// The one datagram that answers `datagram`, sent from `port` `at_ms` after the start.
    fn ask(&mut self, at_ms: u64, port: u16, datagram: &[u8]) -> Vec<u8> {
        self.ask_of(&mut Counting, at_ms, port, datagram)
    }

    fn ask_of(
        &mut self,
        app: &mut dyn Application,
        at_ms: u64,
        port: u16,
        datagram: &[u8],
    ) -> Vec<u8> {
        let now = Now {
            unix: UnixMillis::new(START + at_ms),
            ..Now::default()
        };
        let path = UdpPath {
            src: ([192, 0, 2, 7], port).into(),
            dst: ([192, 0, 2, 1], 7600).into(),
        };
        let answer = self.server.respond(now, path, datagram, app);
        let datagrams: Vec<Vec<u8>> = answer
            .iter()
            .flat_map(|flight| flight.datagrams().map(std::borrow::Cow::into_owned))
            .collect();
        assert_eq!(datagrams.len(), 1, "{:?}", self.server.counters());
        datagrams[0].clone()
    }
}

fn response(datagram: &[u8]) -> Response<'_> {
    match ToClient::parse(datagram).unwrap() {
        ToClient::Response(response) => response,
        other @ (ToClient::Challenge(_) | ToClient::Probed(_) | ToClient::Wait(_)) => {
            panic!("{other:?}")
        }
    }
}

#[test]
fn the_worked_example_is_what_the_program_sends() {
    let mut example = Example::new();
    let mut open = Vec::new();
    Open {
        echo: 0x0102_0304_0506_0708,
        size: 1472,
        stream: 1,
        token: None,
        wanted: Wanted::New(b"20"),
        offset: 0,
    }
    .emit(&mut open);
    assert_dump("OPEN", &open);
    let opened = example.ask(0, 4000, &open);
    assert_dump("OPENED", &opened);
    let first = response(&opened);

    let mut request = Request {
        connection: first.header.connection,
        size: 1472,
        stream: 2,
        wants_continuation: true,
        continuation: first.continuation,
        after: 0,
        upto: 1,
        reach: 1,
        proof: first.header.x,
        holes: Vec::new(),
        declared: Some(Declared {
            kind: 1,
            edge: 0,
            rtt_us: 40_000,
        }),
        cookie: None,
        probe: None,
        ranges: vec![Span {
            start: 0,
            end: MAX_STREAM_BYTES,
        }],
        wanted: Wanted::New(b"50"),
    };
    let mut begin = Vec::new();
    request.emit(&mut begin);
    assert_dump("REQUEST, begins a stream", &begin);
    let data = example.ask(40, 4000, &begin);
    assert_dump("DATA, begins a stream", &data);
    let second = response(&data);

    request.continuation = second.continuation;
    (request.after, request.upto, request.reach) = (1, 11, 11);
    request.proof = second.header.x;
    (request.wants_continuation, request.declared) = (false, None);
    request.ranges = vec![Span { start: 10, end: 20 }, Span { start: 30, end: 45 }];
    request.wanted = Wanted::Of(second.user.unwrap().sealed);
    let mut ranges = Vec::new();
    request.emit(&mut ranges);
    assert_dump("REQUEST, two ranges", &ranges);
    assert_dump("CHALLENGE", &example.ask(80, 4001, &ranges));
    let wait = example.ask_of(&mut NotYet, 80, 4000, &ranges);
    assert_dump("WAIT", &wait);
    assert_dump("DATA, two chunks", &example.ask(80, 4000, &ranges));

    request.after = 11;
    request.probe = Some(0xcafe_f00d);
    request.ranges.clear();
    request.wanted = Wanted::Of(&[]);
    let mut probe = Vec::new();
    request.emit(&mut probe);
    assert_dump("PROBE", &probe);
    assert_dump("PROBED", &example.ask(100, 4000, &probe));
}

#[test]
fn constants_are_those_of_the_program() {
    let plain = [
        ("VERSION", u64::from(segment::VERSION)),
        ("OPEN_BYTES", segment::OPEN_BYTES as u64),
        ("MIN_DATAGRAM_BYTES", segment::MIN_DATAGRAM_BYTES as u64),
        ("DATA_HEADER_BYTES", segment::DATA_HEADER_BYTES as u64),
        ("SINGLE_CHUNK_BYTES", segment::SINGLE_CHUNK_BYTES as u64),
        ("CHUNK_BYTES", segment::CHUNK_BYTES as u64),
        ("OPENED_BYTES", segment::OPENED_BYTES as u64),
        (
            "CONTINUATION_FIELD_BYTES",
            segment::CONTINUATION_FIELD_BYTES as u64,
        ),
        (
            "MAX_CONTINUATION_BYTES",
            segment::MAX_CONTINUATION_BYTES as u64,
        ),
        (
            "MAX_SEALED_USER_BYTES",
            continuation::MAX_SEALED_USER_BYTES as u64,
        ),
        ("MAX_REQUEST_BYTES", MAX_REQUEST_BYTES as u64),
        ("MAX_HOLES", segment::MAX_HOLES as u64),
        ("MAX_RANGES", segment::MAX_RANGES as u64),
        ("MAX_FLIGHT", u64::from(curve::MAX_FLIGHT)),
        ("MAX_WINDOW", u64::from(MAX_WINDOW)),
        ("INITIAL_WINDOW", u64::from(epoch::INITIAL_WINDOW)),
        ("KNOWN_WINDOW", u64::from(epoch::KNOWN_WINDOW)),
        ("MIN_WINDOW", u64::from(epoch::MIN_WINDOW)),
        (
            "MAX_UNPROVEN_PACKETS",
            u64::from(server::MAX_UNPROVEN_PACKETS),
        ),
        ("AMPLIFICATION", server::AMPLIFICATION as u64),
        ("MAX_PENDING_SPANS", grant::MAX_PENDING_SPANS as u64),
        ("MIN_PENDING", grant::MIN_PENDING),
        ("PENDING_WINDOWS", grant::PENDING_WINDOWS),
        ("MAX_RTT_US", u64::from(curve::MAX_RTT_US)),
        ("TOKEN_BURST", u64::from(replay::TOKEN_BURST)),
    ];
    let times = [
        ("TIMEOUT_GATE", grant::TIMEOUT_GATE),
        ("RESTART_GATE", grant::RESTART_GATE),
        ("CURVE_LEAD", grant::CURVE_LEAD),
        ("MAX_CLOCK_SKEW", continuation::MAX_CLOCK_SKEW),
        ("TOKEN_INTERVAL", replay::TOKEN_INTERVAL),
        ("MAX_CHALLENGE_AGE", server::MAX_CHALLENGE_AGE),
        ("MAX_AGE", continuation::MAX_AGE),
        ("RECENT", continuation::RECENT),
        ("CREDIT_BURST", replay::CREDIT_BURST),
        ("MAX_TOKEN_AGE", continuation::MAX_TOKEN_AGE),
        ("WAIT", server::WAIT),
        ("UNPARKED_WAIT", server::UNPARKED_WAIT),
    ];
    let rows = plain
        .iter()
        .map(|(name, value)| format!("| `{name}` | {value} |"));
    let times = times
        .iter()
        .map(|(name, time)| format!("| `{name}` | {} ms |", time.as_millis()));
    for row in rows.chain(times) {
        assert!(
            PROTOCOL.contains(&row),
            "the page should have the row\n{row}"
        );
    }
}

/// The rows of the table whose head is `head`, each as its cells.
fn table(head: &str) -> Vec<Vec<&'static str>> {
    let (_, after) = PROTOCOL
        .split_once(head)
        .unwrap_or_else(|| panic!("no table `{head}`"));
    let lines = after
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    lines
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

fn number<T: FromStr>(cell: &str) -> T
where
    T::Err: Debug,
{
    cell.parse()
        .unwrap_or_else(|error| panic!("`{cell}`: {error:?}"))
}

#[test]
fn the_curve_is_that_of_the_program() {
    let rows = table("| c | w_max | r | n | W | t in µs |");
    assert_eq!(rows.len(), 11);
    for row in rows {
        let curve = Curve::Cubic {
            w_max: number(row[1]),
            rtt_us: number(row[2]),
        };
        let (c, n) = (number(row[0]), number(row[3]));
        let have = (curve.window(c, n), curve.elapsed_us(c, n));
        assert_eq!(have, (number(row[4]), number(row[5])), "{row:?}");
    }
}

fn curve_of(cell: &str, rtt_us: u32) -> Curve {
    match cell.rsplit_once(' ') {
        Some(("CUBIC", w_max)) => Curve::Cubic {
            w_max: number(w_max),
            rtt_us,
        },
        Some(("slow start", threshold)) => Curve::SlowStart {
            threshold: number(threshold),
            rtt_us,
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn transitions_are_those_of_the_program() {
    let rows = table("| kind | B | c | curve | p | w | R | next c | next curve |");
    assert_eq!(rows.len(), 9);
    for row in rows {
        let old = Epoch {
            base: number(row[1]),
            c: number(row[2]),
            curve: curve_of(row[3], 30_000),
        };
        let named = |kind: &TransitionKind| kind.label() == row[0].to_lowercase();
        let kind = TransitionKind::ALL.into_iter().find(named).unwrap();
        let declared = Declaration {
            kind,
            p: number(row[4]),
            rtt_us: 40_000,
        };
        let transition = old.transition(declared).unwrap();
        assert_eq!(
            (transition.w, transition.r),
            (number(row[5]), number(row[6])),
            "{row:?}"
        );
        let next = Epoch {
            base: number(row[6]),
            c: number(row[7]),
            curve: curve_of(row[8], 40_000),
        };
        assert_eq!(transition.next, next, "{row:?}");
    }
}

#[test]
fn the_opening_window_is_that_of_the_program() {
    for c in 1..=20_u32 {
        for k in 0..100_u32 {
            let j = k.min(c);
            let want = (c + k).max(c + j * (2 * c).max(10) / c - j);
            assert_eq!(Epoch::opening(c).window(k.into()), want, "c {c}, k {k}");
        }
    }
}

/// Paths below `src/` of all Rust sources that are not tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// Module and name of every bound that a source defines, and its value.
fn bounds() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    let mut bounds = BTreeMap::new();
    for path in found {
        let below = path.strip_prefix(&root).unwrap().to_str().unwrap();
        let module = below
            .trim_end_matches(".rs")
            .trim_end_matches("/mod")
            .replace('/', "::");
        let text = fs::read_to_string(&path).unwrap();
        for definition in text.split("const MAX_").skip(1) {
            let (name, rest) = definition.split_once(':').unwrap();
            let value = rest.split_once('=').unwrap().1.split(';').next().unwrap();
            let value: Vec<&str> = value.split_whitespace().collect();
            bounds.insert(format!("{module}::MAX_{name}"), value.join(" "));
        }
    }
    bounds
}

#[test]
fn the_page_of_limits_tells_every_bound_and_its_value() {
    let bounds = bounds();
    assert!(bounds.len() > 30, "the sources were not found");
    for (name, value) in &bounds {
        let row = format!("| `{name}` | `{value}` |");
        assert!(
            LIMITS.contains(&row),
            "limits.md should have a row that begins with\n{row}"
        );
    }
    for row in LIMITS.lines().filter_map(|line| line.strip_prefix("| `")) {
        let name = row.split('`').next().unwrap();
        assert!(
            bounds.contains_key(name),
            "limits.md tells of {name}, which is not"
        );
    }
}

#[test]
fn every_reason_to_drop_stands_on_the_page() {
    let counters = include_str!("../transport/server/counters.rs");
    let labels = counters.lines().filter_map(|line| line.split_once("=> \""));
    let labels: Vec<&str> = labels
        .map(|(_, rest)| rest.split('"').next().unwrap())
        .collect();
    assert!(labels.len() > 20, "{labels:?}");
    for label in labels {
        assert!(
            PROTOCOL.contains(&format!("`{label}`")),
            "protocol.md should tell of `{label}`"
        );
    }
}
