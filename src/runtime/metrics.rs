//! A small HTTP server for metrics: `GET /metrics`.
//!
//! In: connections to a TCP listener of the operating system (not of our stack). Out: the Prometheus
//! text exposition format 0.0.4, one request per connection. Never waits for a peer: all I/O is
//! non-blocking, connections are bounded in number, size and time. With all places taken, a newcomer
//! takes that of the oldest connection of the source that has most of them: sockets that neither
//! send nor read keep no scraper out.
//! Sources: RFC 9112; "Exposition formats" of the Prometheus documentation.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Registry, Token};

use super::slots::Slots;
use crate::host::metrics::{Metric, MetricKind, MetricSample};
use crate::time::Instant;

/// Most connections at a time; a further one replaces the oldest of the source with most of them.
pub const MAX_CONNECTIONS: usize = 16;

/// Longest request head, in bytes.
pub const MAX_REQUEST_BYTES: usize = 4096;

/// Longest time for a request and its response.
pub const MAX_DURATION: Duration = Duration::from_secs(5);

/// Media type of the response.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Token of the listener; those of the connections follow it.
const LISTENER: usize = 16;

/// The metrics server.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
    connections: Slots<MetricsConnection, MAX_CONNECTIONS>,
    accepted: u64,
}

#[derive(Debug)]
struct MetricsConnection {
    stream: TcpStream,
    /// Its peer's address, if the peer is still there.
    source: Option<IpAddr>,
    /// Connections accepted before.
    number: u64,
    until: Instant,
    ready: bool,
    exchange: Exchange,
}

#[derive(Debug)]
enum Exchange {
    Reading { head: Vec<u8> },
    Writing { answer: Vec<u8>, written: usize },
}

/// How to continue a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExchangeStatus {
    Waiting,
    Over,
}

impl MetricsServer {
    /// Binds to `address`.
    ///
    /// # Errors
    /// If the address is in use or not local.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        Ok(Self {
            listener,
            connections: Slots::new(LISTENER),
            accepted: 0,
        })
    }

    /// The local address, with the real port even if it was bound to port 0.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Registers the listener at the loop.
    pub(super) fn registered(mut self, registry: &Registry) -> io::Result<Self> {
        self.connections.register(registry, &mut self.listener)?;
        Ok(self)
    }

    /// Records an event of the loop.
    pub(super) fn note(&mut self, token: Token) {
        if let Some(connection) = self.connections.note(token) {
            connection.ready = true;
        }
    }

    /// The earliest deadline of a connection.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.connections
            .iter()
            .map(|connection| connection.until)
            .min()
    }

    /// Serves all connections without blocking. `metrics` is called once per request.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        registry: &Registry,
        mut metrics: impl FnMut() -> Vec<Metric>,
    ) {
        self.accept(now, registry);
        self.connections.serve(|connection| {
            let mut progress = ExchangeStatus::Waiting;
            if std::mem::take(&mut connection.ready) {
                progress = connection
                    .advance(&mut metrics)
                    .unwrap_or(ExchangeStatus::Over);
            }
            match progress == ExchangeStatus::Over || now >= connection.until {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
    }

    fn accept(&mut self, now: Instant, registry: &Registry) {
        let next = || self.listener.accept().map(|(stream, _)| stream);
        let admit = |stream: TcpStream| {
            self.accepted += 1;
            MetricsConnection {
                source: stream.peer_addr().ok().map(|peer| peer.ip().to_canonical()),
                number: self.accepted,
                stream,
                until: now + MAX_DURATION,
                ready: true,
                exchange: Exchange::Reading { head: Vec::new() },
            }
        };
        self.connections.accept(registry, next, choose, admit);
    }
}

/// Chooses the slot of the next connection: a free one, or else that of the oldest connection of the
/// source with most of them.
fn choose(slots: &[Option<MetricsConnection>; MAX_CONNECTIONS]) -> Option<usize> {
    let free = slots.iter().position(Option::is_none);
    let of = |source| {
        let open = slots.iter().flatten();
        open.filter(|other| other.source == source).count()
    };
    let crowded = || {
        let taken = slots.iter().enumerate();
        let taken = taken.filter_map(|(n, slot)| Some((n, slot.as_ref()?)));
        let most = taken.max_by_key(|(_, one)| (of(one.source), core::cmp::Reverse(one.number)));
        most.map(|(n, _)| n)
    };
    free.or_else(crowded)
}

impl MetricsConnection {
    fn advance(&mut self, metrics: &mut impl FnMut() -> Vec<Metric>) -> io::Result<ExchangeStatus> {
        loop {
            let step = match &mut self.exchange {
                Exchange::Reading { head } => read_head(&mut self.stream, head)?,
                Exchange::Writing { answer, written } => {
                    return write_answer(&mut self.stream, answer, written);
                }
            };
            match step {
                Head::Incomplete => return Ok(ExchangeStatus::Waiting),
                Head::Gone => return Ok(ExchangeStatus::Over),
                Head::Complete(status) => {
                    let answer = answer(status, metrics);
                    self.exchange = Exchange::Writing { answer, written: 0 };
                }
            }
        }
    }
}

/// The state of a request head.
enum Head {
    Incomplete,
    Gone,
    Complete(Status),
}

/// The response status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok { with_body: bool },
    BadRequest,
    NotFound,
    MethodNotAllowed,
    TooLarge,
}

fn read_head(stream: &mut TcpStream, head: &mut Vec<u8>) -> io::Result<Head> {
    let mut chunk = [0; 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(Head::Gone),
            Ok(len) => head.extend_from_slice(chunk.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Head::Incomplete),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if let Some(status) = judge(head) {
            return Ok(Head::Complete(status));
        }
    }
}

/// Chooses the status for a request head, once it is complete.
fn judge(head: &[u8]) -> Option<Status> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    if head.len() > MAX_REQUEST_BYTES {
        return Some(Status::TooLarge);
    }
    match request.parse(head) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(_) => return Some(Status::BadRequest),
    }
    let path = request.path.unwrap_or_default().split('?').next();
    Some(match (request.method, path) {
        (_, path) if path != Some("/metrics") => Status::NotFound,
        (Some("GET"), _) => Status::Ok { with_body: true },
        (Some("HEAD"), _) => Status::Ok { with_body: false },
        _ => Status::MethodNotAllowed,
    })
}

fn answer(status: Status, metrics: &mut impl FnMut() -> Vec<Metric>) -> Vec<u8> {
    let (line, body) = match status {
        Status::Ok { .. } => ("200 OK", render(&metrics())),
        Status::BadRequest => ("400 Bad Request", String::new()),
        Status::NotFound => ("404 Not Found", "see /metrics\n".to_owned()),
        Status::MethodNotAllowed => ("405 Method Not Allowed\r\nAllow: GET, HEAD", String::new()),
        Status::TooLarge => ("431 Request Header Fields Too Large", String::new()),
    };
    let length = body.len();
    let mut answer = format!(
        "HTTP/1.1 {line}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    if status != (Status::Ok { with_body: false }) {
        answer.push_str(&body);
    }
    answer.into_bytes()
}

fn write_answer(
    stream: &mut TcpStream,
    answer: &[u8],
    written: &mut usize,
) -> io::Result<ExchangeStatus> {
    while let Some(rest) = answer.get(*written..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(len) => *written += len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Ok(ExchangeStatus::Waiting);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ExchangeStatus::Over)
}

/// Formats all metrics, each with its help and type.
fn render(metrics: &[Metric]) -> String {
    let mut text = String::new();
    for Metric {
        name,
        help,
        kind,
        samples,
    } in metrics
    {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", escape(help));
        for MetricSample { labels, value } in samples {
            text.push_str(name);
            for (n, (label, of)) in labels.iter().enumerate() {
                let open = if n == 0 { '{' } else { ',' };
                let of = escape(of).replace('"', "\\\"");
                let _ = write!(text, "{open}{label}=\"{of}\"");
            }
            let close = if labels.is_empty() { "" } else { "}" };
            let _ = writeln!(text, "{close} {value}");
        }
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_that_of_the_format() {
        let drops = [
            ("bad\"\\\nlabel".to_owned(), 1),
            ("fragment".to_owned(), u64::MAX),
        ];
        let labels = vec![("version", "1".to_owned()), ("site", "2".to_owned())];
        let metrics = [
            Metric::counter("packets_total", "Packets in.\nAll of them.", 12),
            Metric::by_label("drops_total", "Drops.", "reason", drops),
            Metric {
                samples: vec![MetricSample { labels, value: 1 }],
                ..Metric::gauge("build", "Build.", 0)
            },
        ];
        let want = "# HELP packets_total Packets in.\\nAll of them.\n\
            # TYPE packets_total counter\n\
            packets_total 12\n\
            # HELP drops_total Drops.\n\
            # TYPE drops_total counter\n\
            drops_total{reason=\"bad\\\"\\\\\\nlabel\"} 1\n\
            drops_total{reason=\"fragment\"} 18446744073709551615\n\
            # HELP build Build.\n\
            # TYPE build gauge\n\
            build{version=\"1\",site=\"2\"} 1\n";
        assert_eq!(render(&metrics), want);
    }

    #[test]
    fn requests_are_judged() {
        let long = [b'a'; MAX_REQUEST_BYTES + 1];
        let ok = |with_body| Some(Status::Ok { with_body });
        for (name, head, want) in [
            (
                "get",
                &b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"[..],
                ok(true),
            ),
            ("head", b"HEAD /metrics HTTP/1.0\r\n\r\n", ok(false)),
            ("query", b"GET /metrics?a=b HTTP/1.1\r\n\r\n", ok(true)),
            (
                "elsewhere",
                b"GET / HTTP/1.1\r\n\r\n",
                Some(Status::NotFound),
            ),
            (
                "post",
                b"POST /metrics HTTP/1.1\r\n\r\n",
                Some(Status::MethodNotAllowed),
            ),
            ("partial", b"GET /metrics HTTP/1.1\r\nHo", None),
            ("nonsense", b"\x16\x03\x01\x00", Some(Status::BadRequest)),
            ("at the bound", &long[..MAX_REQUEST_BYTES], None),
            ("beyond the bound", &long[..], Some(Status::TooLarge)),
        ] {
            assert_eq!(judge(head), want, "{name}");
        }
    }

    /// Connects from an address of the loopback network.
    fn connect(from: [u8; 4], to: SocketAddr) -> std::net::TcpStream {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::from((from, 0))).unwrap();
        connect(&socket, &to).unwrap();
        socket.into()
    }

    /// Scrapes from 127.0.0.1 after `idle` sockets from each of `sources` have connected; `asking`: they
    /// ask, and do not read.
    fn scrapes_beside(idle: usize, sources: &[[u8; 4]], asking: bool) -> bool {
        let server = MetricsServer::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = server.local_addr().unwrap();
        let poll = mio::Poll::new().unwrap();
        let mut server = server.registered(poll.registry()).unwrap();
        let name = "x".repeat(1 << 23);
        let large = || vec![Metric::by_label("a_total", "A.", "of", [(name.clone(), 1)])];
        let mut turn = |large_answer: bool| {
            server.note(Token(LISTENER));
            for n in 0..MAX_CONNECTIONS {
                server.note(Token(LISTENER + 1 + n));
            }
            let metrics = || if large_answer { large() } else { Vec::new() };
            server.turn(Instant::ZERO, poll.registry(), metrics);
        };
        let mut scraper = connect([127, 0, 0, 1], to);
        let mut sockets = Vec::new();
        for n in 0..idle {
            for source in sources {
                let mut stream = connect(*source, to);
                if asking {
                    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
                }
                sockets.push(stream);
            }
            if n % 4 == 3 {
                turn(true);
            }
        }
        turn(true);
        if sources.contains(&[127, 0, 0, 1]) {
            // The first one has given way: scrapers try again.
            scraper = connect([127, 0, 0, 1], to);
            turn(false);
        }
        scraper.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        turn(false);
        let mut answer = [0; 15];
        scraper
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        scraper.read_exact(&mut answer).is_ok() && answer == *b"HTTP/1.1 200 OK"
    }

    #[test]
    fn silent_and_stalled_sockets_keep_no_scraper_out() {
        for asking in [false, true] {
            for idle in [MAX_CONNECTIONS - 1, MAX_CONNECTIONS, 3 * MAX_CONNECTIONS] {
                assert!(scrapes_beside(idle, &[[127, 0, 0, 2]], asking), "{idle}");
                assert!(scrapes_beside(idle, &[[127, 0, 0, 1]], asking), "{idle}");
            }
            let two = [[127, 0, 0, 2], [127, 0, 0, 3]];
            assert!(scrapes_beside(MAX_CONNECTIONS, &two, asking));
        }
    }
}
