//! A download over a path without faults, on virtual time, stopped where a full flight is requested
//! or answered.

use std::collections::VecDeque;
use std::time::Duration;

use headwater::internals::time::{Instant, Now, UnixMillis};
use headwater::internals::transport::application::{
    Application, Begun, RequestContext, StreamPart, Unavailable,
};
use headwater::internals::transport::client::{Client, ClientConfig};
use headwater::internals::transport::curve::MAX_FLIGHT;
use headwater::internals::transport::keys::KeyRing;
use headwater::internals::transport::server::{Server, ServerConfig};
use headwater::internals::wire::flight::{Ecn, Flight};

use super::{Case, NOW, path};

/// One way, in microseconds.
const DELAY_US: u64 = 5000;

/// Flights after which a window has outgrown the buffer by far.
const FLIGHTS_BEHIND: u32 = 2000;

/// A stream in memory; longer than any benchmark reads.
struct Memory(Vec<u8>);

impl Application for Memory {
    fn begin(&mut self, _: RequestContext, _: &[u8]) -> Result<Begun, Unavailable> {
        Ok(Begun {
            user: vec![7; 60],
            length: Some(1 << 40),
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let StreamPart { offset, .. } = part;
        let from = (offset % (1 << 20)) as usize;
        out.copy_from_slice(&self.0[from..from + out.len()]);
        Ok(out.len())
    }
}

fn server() -> Server {
    let config = ServerConfig {
        server_id: 1,
        site_id: 0,
        mtu: 1500,
    };
    Server::new(config, KeyRing::with_secret([3; 32]))
}

enum Travelling {
    Request(Vec<u8>),
    Answer(Flight),
}

/// Client, server and what travels between them.
struct Download {
    now_us: u64,
    client: Client,
    server: Server,
    application: Memory,
    wire: VecDeque<(u64, Travelling)>,
}

impl Download {
    fn new() -> Self {
        let config = ClientConfig::builder(path().src, path().dst)
            .buffer(4 << 20)
            .idle_timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        let mut download = Self {
            now_us: NOW.instant.as_micros(),
            client: Client::new(config, 1),
            server: server(),
            application: Memory((0..2 << 20).map(|at: u32| at as u8).collect()),
            wire: VecDeque::new(),
        };
        download.client.request(download.now(), b"memory");
        download.send();
        download
    }

    fn now(&self) -> Now {
        Now {
            instant: Instant::from_micros(self.now_us),
            unix: UnixMillis::new(NOW.unix.as_millis() + self.now_us / 1000),
        }
    }

    /// Sends the client's output.
    fn send(&mut self) {
        while let Some(flight) = self.client.poll_transmit(self.now()) {
            let request = Travelling::Request(flight.payload.to_vec());
            self.wire.push_back((self.now_us + DELAY_US, request));
        }
    }

    /// The next to arrive; time goes on to it, and timers before it run down.
    fn arrival(&mut self) -> Travelling {
        loop {
            let timer = self.client.poll_timeout().map(|(at, _)| at.as_micros());
            let arrival = self.wire.front().map(|(at, _)| *at);
            match (timer, arrival) {
                (timer, Some(at)) if timer.is_none_or(|timer| at <= timer) => {
                    self.now_us = self.now_us.max(at);
                    return self.wire.pop_front().unwrap().1;
                }
                (timer, _) => {
                    self.now_us = self.now_us.max(timer.unwrap());
                    self.client.handle_timeout(self.now());
                    self.send();
                }
            }
        }
    }

    /// Runs until a full flight is about to reach the client.
    fn next_full(&mut self) -> Flight {
        loop {
            match self.arrival() {
                Travelling::Request(request) => {
                    self.answer(&request);
                }
                Travelling::Answer(flight) if is_full(&flight) => return flight,
                Travelling::Answer(flight) => self.take(&flight),
            }
        }
    }

    /// Puts the answer to a request on the wire; whether it is a full flight.
    fn answer(&mut self, request: &[u8]) -> bool {
        let (now, application) = (self.now(), &mut self.application);
        let answer = self.server.respond(now, path(), request, application);
        let full = answer.as_ref().is_some_and(is_full);
        let at = self.now_us + DELAY_US;
        self.wire
            .extend(answer.map(|flight| (at, Travelling::Answer(flight))));
        full
    }

    /// The engine's step: a flight in, its bytes read, requests out.
    fn take(&mut self, flight: &Flight) {
        let now = self.now();
        let joined = flight.payload.to_vec();
        let datagrams = joined.chunks(flight.segment);
        self.client
            .handle_datagrams(now, path().reversed(), Ecn::Ect0, datagrams);
        while let together @ 1.. = self.client.ready().len() {
            self.client.consume(now, together);
        }
        self.send();
        while self.client.poll_event().is_some() {}
    }
}

fn is_full(flight: &Flight) -> bool {
    flight.datagrams().count() == MAX_FLIGHT as usize
}

/// The server's step: one request in, a flight of 44 datagrams out.
pub(super) struct Respond {
    download: Download,
    /// Another server with the same keys: it answers requests that the download's own server has answered.
    server: Server,
    request: Vec<u8>,
    answer: Option<Flight>,
}

impl Respond {
    pub(super) fn new() -> Self {
        let mut respond = Self {
            download: Download::new(),
            server: server(),
            request: Vec::new(),
            answer: None,
        };
        respond.prepare();
        respond
    }

    /// A request for a full flight.
    pub(super) fn request(&self) -> &[u8] {
        &self.request
    }
}

impl Case for Respond {
    fn prepare(&mut self) {
        self.answer = None;
        loop {
            match self.download.arrival() {
                Travelling::Answer(flight) => self.download.take(&flight),
                Travelling::Request(request) => {
                    if self.download.answer(&request) {
                        self.request = request;
                        return;
                    }
                }
            }
        }
    }

    fn call(&mut self) {
        let (now, application) = (self.download.now(), &mut self.download.application);
        self.answer = self.server.respond(now, path(), &self.request, application);
        assert!(self.answer.as_ref().is_some_and(is_full));
    }
}

/// The client's step: a flight of 44 datagrams in, requests out.
pub(super) struct Engine {
    download: Download,
    answer: Option<Flight>,
}

impl Engine {
    pub(super) fn new() -> Self {
        let mut engine = Self {
            download: Download::new(),
            answer: None,
        };
        engine.prepare();
        engine
    }

    /// After many flights of slow start: the window is far larger than the reader's buffer, so that
    /// most received packets cannot be acknowledged.
    pub(super) fn behind() -> Self {
        let mut engine = Self::new();
        for _ in 0..FLIGHTS_BEHIND {
            engine.prepare();
            engine.call();
        }
        engine
    }

    /// A full flight.
    pub(super) fn answer(&self) -> Flight {
        self.answer.clone().unwrap()
    }
}

impl Case for Engine {
    fn prepare(&mut self) {
        if self.answer.is_none() {
            self.answer = Some(self.download.next_full());
        }
    }

    fn call(&mut self) {
        let flight = self.answer.take().unwrap();
        self.download.take(&flight);
    }
}
