//! One client, one server and the datagrams between them, without I/O, and the transcript of a
//! session in which everything happens once: losses, probes, timeouts, new addresses, idle times.
//!
//! Deterministic: same calls, same datagrams. Streams are of bytes that depend on their offset
//! only, so that any byte can be checked wherever it turns up.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use headwater::internals::time::{Instant, Now, UnixMillis};
use headwater::internals::transport::application::{
    Application, Begun, MAX_USER_BYTES, RequestContext, StreamPart, Unavailable,
};
use headwater::internals::transport::client::{AddressToken, Client, ClientConfig, ClientEvent};
use headwater::internals::transport::keys::KeyRing;
use headwater::internals::transport::server::{Server, ServerConfig};
use headwater::internals::wire::flight::{Ecn, UdpPath};

/// Wall-clock time at which every session starts, in milliseconds.
pub const START_UNIX: u64 = 1_800_000_000_000;

/// Most turns until a session must have ended: far more than any needs.
const MAX_TURNS: u32 = 100_000;

/// The byte of every stream at `offset`.
pub const fn byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Length of the stream named by `request`: the decimal digits that it begins with.
pub fn length_of(request: &[u8]) -> u64 {
    let digits = request
        .iter()
        .take(9)
        .take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

/// Serves streams of [`byte`]s; the user continuation is the request.
pub struct Bytes;

impl Application for Bytes {
    fn begin(&mut self, _: RequestContext, request: &[u8]) -> Result<Begun, Unavailable> {
        let user = request[..request.len().min(MAX_USER_BYTES)].to_vec();
        Ok(Begun {
            user,
            length: Some(length_of(request)),
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let StreamPart { user, offset, .. } = part;
        let left = length_of(user).saturating_sub(offset);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        for (at, to) in (offset..).zip(&mut out[..count]) {
            *to = byte(at);
        }
        Ok(count)
    }
}

/// The key ring of every server here.
pub fn keys() -> KeyRing {
    KeyRing::with_secret([3; 32])
}

/// A server without memory.
pub fn new_server() -> Server {
    Server::new(
        ServerConfig {
            server_id: 1,
            site_id: 2,
            mtu: 1500,
        },
        keys(),
    )
}

/// A client and a server.
pub struct Session {
    /// Virtual time in µs.
    pub now_us: u64,
    /// The client.
    pub client: Client,
    /// The server.
    pub server: Server,
    /// The client's address as it knows it.
    pub local: SocketAddr,
    /// The server's.
    pub remote: SocketAddr,
    /// The client's address as the server sees it.
    pub outside: SocketAddr,
    /// Datagrams on their way to the server.
    pub to_server: VecDeque<Vec<u8>>,
    /// Datagrams on their way to the client.
    pub to_client: VecDeque<Vec<u8>>,
    /// Stream bytes read since the last request.
    pub received: u64,
    /// Whether every one of them was right.
    pub intact: bool,
    /// The last event that ends a stream.
    pub ended: Option<ClientEvent>,
}

impl Session {
    /// A session that has not begun.
    pub fn new(ipv6: bool, token: Option<AddressToken>) -> Self {
        let address = |text: &str| text.parse().expect("an address");
        let (local, remote) = match ipv6 {
            false => (address("10.0.0.1:50000"), address("10.0.0.2:7600")),
            true => (address("[fd00::1]:50000"), address("[fd00::2]:7600")),
        };
        let config = ClientConfig::builder(local, remote)
            .buffer(1 << 20)
            .idle_timeout(Duration::from_secs(60))
            .token(token)
            .build()
            .expect("a sound configuration");
        Self {
            now_us: 1_000_000,
            client: Client::new(config, 7),
            server: new_server(),
            local,
            remote,
            outside: local,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            received: 0,
            intact: true,
            ended: None,
        }
    }

    /// Both clocks.
    pub const fn now(&self) -> Now {
        Now {
            instant: Instant::from_micros(self.now_us),
            unix: UnixMillis::new(START_UNIX + self.now_us / 1000),
        }
    }

    /// The way from client to server, as the server sees it.
    pub const fn path(&self) -> UdpPath {
        UdpPath {
            src: self.outside,
            dst: self.remote,
        }
    }

    /// The client requests a stream.
    pub fn request(&mut self, request: &[u8]) {
        self.received = 0;
        self.ended = None;
        self.client.request(self.now(), request);
        self.drain();
    }

    /// Takes from the client all that it has: datagrams, bytes, events.
    pub fn drain(&mut self) {
        let now = self.now();
        let mut buffer = [0; 16 * 1024];
        let mut rounds = 0;
        loop {
            let before = self.to_server.len();
            while let Some(flight) = self.client.poll_transmit(now) {
                self.to_server
                    .extend(flight.datagrams().map(std::borrow::Cow::into_owned));
                rounds += 1;
                assert!(rounds < 10_000, "the client sends for ever");
            }
            let count = self.client.read(now, &mut buffer);
            for &got in &buffer[..count] {
                self.intact &= got == byte(self.received);
                self.received += 1;
            }
            while let Some(event) = self.client.poll_event() {
                match event {
                    ClientEvent::Finished | ClientEvent::Changed | ClientEvent::TimedOut => {
                        self.ended = Some(event);
                    }
                    ClientEvent::Connected | ClientEvent::Began { .. } | ClientEvent::Readable => {}
                }
            }
            if count == 0 && self.to_server.len() == before {
                return;
            }
        }
    }

    /// Gives a datagram to the server and its answer to the network.
    pub fn serve(&mut self, datagram: &[u8]) {
        let (now, path) = (self.now(), self.path());
        if let Some(flight) = self.server.respond(now, path, datagram, &mut Bytes) {
            self.to_client
                .extend(flight.datagrams().map(std::borrow::Cow::into_owned));
        }
    }

    /// Passes a datagram to the client and takes its output.
    pub fn answer(&mut self, ecn: Ecn, datagram: &[u8]) {
        let path = UdpPath {
            src: self.remote,
            dst: self.local,
        };
        self.client.handle_datagram(self.now(), path, ecn, datagram);
        self.drain();
    }

    /// Goes on to the client's next timer; `false` if there is none.
    pub fn wait(&mut self) -> bool {
        let Some((at, _)) = self.client.poll_timeout() else {
            return false;
        };
        self.now_us = self.now_us.max(at.as_micros());
        self.client.handle_timeout(self.now());
        self.drain();
        true
    }

    /// Lets the stream come to its end over a network without losses.
    ///
    /// # Panics
    /// If it never ends.
    pub fn finish(&mut self) {
        let mut idle = 0;
        for _ in 0..MAX_TURNS {
            if self.ended.is_some() {
                return;
            }
            if let Some(datagram) = self.to_client.pop_front() {
                self.now_us += 10;
                self.answer(Ecn::Ect0, &datagram);
            } else if let Some(datagram) = self.to_server.pop_front() {
                self.now_us += 1000;
                self.serve(&datagram);
            } else {
                let before = self.now_us;
                assert!(self.wait(), "a stream that has not ended waits for nothing");
                idle = if self.now_us == before { idle + 1 } else { 0 };
                assert!(
                    idle < 1000,
                    "a timer that does not move: {:?}",
                    self.client.poll_timeout()
                );
            }
        }
        panic!("the stream never ends: {:?}", self.client.stats());
    }
}

/// A datagram of the transcript, as its receiver saw it.
pub struct Sent {
    /// When it came.
    pub now: Now,
    /// Whence and where to.
    pub path: UdpPath,
    /// The UDP payload.
    pub datagram: Vec<u8>,
}

/// The datagrams of consecutive sessions, in order.
#[derive(Default)]
pub struct Transcript {
    /// To the server.
    pub to_server: Vec<Sent>,
    /// To the client.
    pub to_client: Vec<Sent>,
}

/// The transcript; made once.
pub fn transcript() -> &'static Transcript {
    static TRANSCRIPT: OnceLock<Transcript> = OnceLock::new();
    TRANSCRIPT.get_or_init(|| {
        let mut transcript = Transcript::default();
        for ipv6 in [false, true] {
            let mut session = Session::new(ipv6, None);
            for (turn, request) in ["3000", "150000 with losses", "40000 later"]
                .iter()
                .enumerate()
            {
                session.now_us += 20_000_000 * turn as u64;
                session.request(request.as_bytes());
                record(&mut session, &mut transcript, turn == 1);
                // A new port behind the same address, then a new address.
                session.outside.set_port(session.outside.port() + 1);
            }
            let other = if ipv6 { "fd00::77" } else { "10.0.7.7" };
            session.outside.set_ip(other.parse().expect("an address"));
            session.now_us += 2_000_000;
            session.request(b"20000 from elsewhere");
            record(&mut session, &mut transcript, false);
            let now_us = session.now_us;
            let token = session.client.address_token().map(|(token, _)| token);
            let mut later = Session::new(ipv6, token);
            (later.now_us, later.outside) = (now_us, session.outside);
            later.request(b"30000 with a token");
            record(&mut later, &mut transcript, false);
        }
        transcript
    })
}

/// Lets the stream end, and records; with losses both ways if `lossy`.
fn record(session: &mut Session, transcript: &mut Transcript, lossy: bool) {
    for turn in 1..MAX_TURNS {
        if session.ended.is_some() {
            return;
        }
        let lost = lossy && turn % 19 == 0;
        let (now, path) = (session.now(), session.path());
        if let Some(datagram) = session.to_client.pop_front() {
            session.now_us += 50;
            if !lost {
                session.answer(Ecn::Ect0, &datagram);
            }
            let path = path.reversed();
            transcript.to_client.push(Sent {
                now,
                path,
                datagram,
            });
        } else if let Some(datagram) = session.to_server.pop_front() {
            session.now_us += 1000;
            let now = session.now();
            if !lost {
                session.serve(&datagram);
            }
            transcript.to_server.push(Sent {
                now,
                path,
                datagram,
            });
        } else {
            assert!(
                session.wait(),
                "a stream that has not ended waits for nothing"
            );
        }
    }
    panic!(
        "the stream never ends: {:?} {:?}",
        session.client.stats(),
        session.server.counters()
    );
}
