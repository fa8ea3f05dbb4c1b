//! A client and its servers over a small network on virtual time: packets are delayed, queued,
//! lost, repeated and marked, servers forget, and every byte that is read is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use crate::time::{Instant, Now, UnixMillis};
use crate::transport::application::{
    Application, Begun, RequestContext, StreamPart, Ticket, Unavailable,
};
use crate::transport::client::{Client, ClientConfig, ClientEvent};
use crate::transport::keys::KeyRing;
use crate::transport::server::{Server, ServerConfig};
use crate::wire::flight::{Ecn, Flight};

const START_UNIX: u64 = 1_800_000_000_000;

fn byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// The ticket that every request waits for.
const WORK: Ticket = Ticket(1);

/// Streams of deterministic bytes; the request is the length in decimal. They begin at once, unless a
/// time is set, and are whole then, unless they grow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bytes {
    /// The present time in µs.
    now_us: u64,
    /// When streams begin.
    pub(super) begins_us: u64,
    /// From the one time to the other, in µs, they cannot be read.
    stall: Option<(u64, u64)>,
    /// Bytes and µs: they grow from then on by these bytes each time these µs pass, and their length
    /// is not known before the end.
    pub(super) grows: Option<(u64, u64)>,
}

impl Bytes {
    /// The bytes of a stream of this length that are there now.
    fn there(&self, length: u64) -> u64 {
        let Some((bytes, every_us)) = self.grows else {
            return length;
        };
        let steps = self.now_us.saturating_sub(self.begins_us) / every_us;
        length.min(steps.saturating_mul(bytes))
    }

    /// When the application has more after `now_us`.
    fn next_us(&self, now_us: u64) -> Option<u64> {
        if now_us < self.begins_us {
            return Some(self.begins_us);
        }
        if let Some((_, until)) = self.stall
            && now_us < until
        {
            return Some(until);
        }
        let (_, every_us) = self.grows?;
        Some(self.begins_us + ((now_us - self.begins_us) / every_us + 1) * every_us)
    }
}

impl Application for Bytes {
    fn begin(&mut self, _: RequestContext, request: &[u8]) -> Result<Begun, Unavailable> {
        if self.now_us < self.begins_us {
            return Err(Unavailable::NotReady(WORK));
        }
        let length: u64 = std::str::from_utf8(request).unwrap().parse().unwrap();
        let known = self.grows.is_none();
        Ok(Begun {
            user: length.to_be_bytes().repeat(8),
            length: known.then_some(length),
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let StreamPart { user, offset, .. } = part;
        assert_eq!(user.len(), 64);
        let length = u64::from_be_bytes(user[..8].try_into().unwrap());
        let stalled = self
            .stall
            .is_some_and(|(from, to)| (from..to).contains(&self.now_us));
        if self.now_us < self.begins_us || stalled {
            return Err(Unavailable::NotReady(WORK));
        }
        let left = self.there(length).saturating_sub(offset);
        let count = usize::try_from(left).map_or(out.len(), |left| left.min(out.len()));
        if count == 0 && (offset < length || self.there(length) < length) {
            return Err(Unavailable::NotReady(WORK));
        }
        for (index, to) in out[..count].iter_mut().enumerate() {
            *to = byte(offset + index as u64);
        }
        Ok(count)
    }

    fn length(&mut self, _: RequestContext, user: &[u8]) -> Option<u64> {
        let length = u64::from_be_bytes(user[..8].try_into().unwrap());
        (self.there(length) == length).then_some(length)
    }
}

/// Faults of the network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub(super) delay_us: u64,
    pub(super) jitter_us: u64,
    pub(super) loss_percent: f64,
    /// Of the datagrams to a server, besides.
    pub(super) request_loss_percent: f64,
    /// µs per datagram towards the client, and the most that may queue.
    pub(super) service_us: u64,
    pub(super) queue: usize,
    pub(super) servers: usize,
    /// Of all datagrams, those that come twice; of those to the client, those that are marked.
    pub(super) repeated_percent: f64,
    pub(super) marked_percent: f64,
    /// How often a server has lost its soft state when it is asked.
    pub(super) forgetful_percent: f64,
    /// Chance that a server is held up for 1 to 5 ms when a request reaches it.
    pub(super) hold_percent: f64,
}

pub(super) const LAN: Weather = Weather {
    delay_us: 500,
    jitter_us: 0,
    loss_percent: 0.0,
    request_loss_percent: 0.0,
    service_us: 10,
    queue: 100_000,
    servers: 1,
    repeated_percent: 0.0,
    marked_percent: 0.0,
    forgetful_percent: 0.0,
    hold_percent: 0.0,
};

pub(super) struct Network {
    path: Weather,
    random: ChaCha8Rng,
    pub(super) now_us: u64,
    /// Arrival time and a tie breaker → server (`None`: to the client), datagram.
    queue: BTreeMap<(u64, u64), (Option<usize>, Vec<u8>)>,
    held_until: Vec<u64>,
    sent: u64,
    free_at: u64,
    pub(super) servers: Vec<Server>,
    pub(super) app: Bytes,
    pub(super) client: Client,
    received: u64,
    /// Reasons for which a server that has lost its state since dropped a datagram.
    refusals: BTreeSet<&'static str>,
    pub(super) outage: Option<(u64, u64)>,
    /// From the one time to the other the application cannot read.
    pub(super) stall: Option<(u64, u64)>,
    /// When all servers restart.
    pub(super) restart_at: Option<u64>,
    /// When all servers get other keys.
    pub(super) new_keys_at: Option<u64>,
    /// When the next datagram to a server, the next one to the client, and the next whole answer is
    /// lost.
    pub(super) lose_request_at: Option<u64>,
    pub(super) lose_packet_at: Option<u64>,
    pub(super) lose_answer_at: Option<u64>,
    /// Datagrams that reached the client, if they are kept.
    pub(super) kept: Option<Vec<Vec<u8>>>,
    /// Since an acknowledgement was last delayed to its end, nothing has happened.
    put_off: bool,
}

/// Whether it is time for something that happens once.
fn falls_due(at: &mut Option<u64>, now_us: u64) -> bool {
    at.take_if(|at| *at <= now_us).is_some()
}

fn new_server(id: u16) -> Server {
    let config = ServerConfig {
        server_id: id,
        site_id: 0,
        mtu: 1500,
    };
    Server::new(config, KeyRing::with_secret([1; 32]))
}

/// The client's settings.
pub(super) fn config() -> ClientConfig {
    ClientConfig {
        local: "10.0.0.1:5000".parse().unwrap(),
        remote: "10.0.0.2:7600".parse().unwrap(),
        mtu: 1500,
        buffer: 4 << 20,
        idle_timeout: Duration::from_secs(60),
        token: None,
    }
}

impl Network {
    pub(super) fn new(path: Weather, seed: u64) -> Self {
        Self {
            path,
            random: ChaCha8Rng::seed_from_u64(seed),
            now_us: 1_000_000,
            queue: BTreeMap::new(),
            held_until: vec![0; path.servers],
            sent: 0,
            free_at: 0,
            servers: (1..=path.servers as u16).map(new_server).collect(),
            app: Bytes::default(),
            client: Client::new(config(), seed),
            received: 0,
            refusals: BTreeSet::new(),
            outage: None,
            stall: None,
            restart_at: None,
            new_keys_at: None,
            lose_request_at: None,
            lose_packet_at: None,
            lose_answer_at: None,
            kept: None,
            put_off: false,
        }
    }

    pub(super) fn now(&self) -> Now {
        Now {
            instant: Instant::from_micros(self.now_us),
            unix: UnixMillis::new(START_UNIX + self.now_us / 1000),
        }
    }

    /// All servers die and come back: with their keys, and without anything else.
    pub(super) fn restart_servers(&mut self) {
        self.servers = (1..=self.path.servers as u16).map(new_server).collect();
    }

    /// Why servers dropped datagrams, if any did.
    pub(super) fn refusals(&self) -> BTreeSet<&'static str> {
        let drops = self
            .servers
            .iter()
            .flat_map(|server| server.counters().drops());
        drops
            .map(|(reason, _)| *reason)
            .chain(self.refusals.iter().copied())
            .collect()
    }

    fn send(&mut self, to_client: bool, datagram: Vec<u8>) {
        let at = match to_client {
            true => &mut self.lose_packet_at,
            false => &mut self.lose_request_at,
        };
        if falls_due(at, self.now_us) {
            return;
        }
        let out = self
            .outage
            .is_some_and(|(from, to)| (from..to).contains(&self.now_us));
        if out || self.random.random_bool(self.path.loss_percent / 100.0) {
            return;
        }
        let request_loss = self.path.request_loss_percent / 100.0;
        if !to_client && request_loss > 0.0 && self.random.random_bool(request_loss) {
            return;
        }
        let mut at = self.now_us;
        if to_client {
            let waiting = self.free_at.saturating_sub(self.now_us) / self.path.service_us.max(1);
            if waiting as usize > self.path.queue {
                return;
            }
            self.free_at = self.free_at.max(at) + self.path.service_us;
            at = self.free_at;
        }
        at += self.path.delay_us + self.random.random_range(0..=self.path.jitter_us);
        if self.random.random_bool(self.path.repeated_percent / 100.0) {
            let later = at + self.random.random_range(0..=self.path.delay_us);
            self.sent += 1;
            let to = self.destination(to_client);
            self.queue
                .insert((later, self.sent), (to, datagram.clone()));
        }
        self.sent += 1;
        let to = self.destination(to_client);
        self.queue.insert((at, self.sent), (to, datagram));
    }

    fn destination(&mut self, to_client: bool) -> Option<usize> {
        let server = self.random.random_range(0..self.servers.len());
        (!to_client).then_some(server)
    }

    pub(super) fn deliver(&mut self, server: Option<usize>, datagram: Vec<u8>) {
        let now = self.now();
        let to_server = self.client.path.addresses();
        let Some(chosen) = server else {
            let marked = self.random.random_bool(self.path.marked_percent / 100.0);
            let ecn = if marked { Ecn::Ce } else { Ecn::Ect0 };
            self.client
                .handle_datagram(now, to_server.reversed(), ecn, &datagram);
            if let Some(kept) = &mut self.kept {
                kept.push(datagram);
            }
            return;
        };
        if self.random.random_bool(self.path.hold_percent / 100.0) {
            self.held_until[chosen] = self.now_us + self.random.random_range(1000..5000);
        }
        if self.held_until[chosen] > self.now_us {
            self.sent += 1;
            self.queue
                .insert((self.held_until[chosen], self.sent), (server, datagram));
            return;
        }
        if self.random.random_bool(self.path.forgetful_percent / 100.0) {
            self.refusals = self.refusals();
            self.servers[chosen] = new_server(chosen as u16 + 1);
        }
        if falls_due(&mut self.restart_at, self.now_us) {
            self.restart_servers();
        }
        if self.new_keys_at.is_some_and(|at| at <= self.now_us) {
            self.servers[chosen].set_keys(KeyRing::with_secret([2; 32]));
        }
        (self.app.now_us, self.app.stall) = (self.now_us, self.stall);
        let answer = self.servers[chosen].respond(now, to_server, &datagram, &mut self.app);
        if let Some(flight) = answer {
            self.answer(&flight);
        }
    }

    fn answer(&mut self, flight: &Flight) {
        if falls_due(&mut self.lose_answer_at, self.now_us) {
            return;
        }
        for datagram in flight.datagrams() {
            self.send(true, datagram.to_vec());
        }
    }

    /// The application has more: the servers answer the requests that wait.
    fn wake(&mut self) {
        let now = self.now();
        (self.app.now_us, self.app.stall) = (self.now_us, self.stall);
        for index in 0..self.servers.len() {
            self.servers[index].wake(WORK);
            while let Some(flight) = self.servers[index].poll_parked(now, &mut self.app) {
                self.answer(&flight);
            }
        }
    }

    /// Requests a stream and runs until it is finished or has failed; the virtual time that took, in µs.
    pub(super) fn fetch(&mut self, length: u64) -> (ClientEvent, u64) {
        self.request(length);
        self.finish(length)
    }

    pub(super) fn request(&mut self, length: u64) {
        self.received = 0;
        self.client
            .request(self.now(), length.to_string().as_bytes());
    }

    /// Sends the datagrams that the client has ready.
    pub(super) fn transmit(&mut self) {
        while let Some(flight) = self.client.poll_transmit(self.now()) {
            self.put_off = false;
            self.send(false, flight.payload.to_vec());
        }
    }

    /// Runs for `us` µs.
    pub(super) fn run_for(&mut self, us: u64) {
        let end = self.now_us + us;
        while self.now_us < end {
            self.transmit();
            self.step();
        }
    }

    /// Goes on to the next thing that happens.
    fn step(&mut self) {
        let timer = self
            .client
            .poll_timeout()
            .map(|(at, why)| (at.as_micros(), why));
        let packet = self.queue.keys().next().map(|(at, _)| *at);
        let parked = self.servers.iter().any(|server| server.parked() > 0);
        let ready = self.app.next_us(self.now_us).filter(|_| parked);
        let earliest = [packet, timer.map(|(at, _)| at)]
            .into_iter()
            .flatten()
            .min();
        if let Some(ready) = ready
            && earliest.is_none_or(|earliest| ready < earliest)
        {
            self.now_us = ready;
            self.put_off = false;
            self.wake();
        } else if packet.is_some_and(|packet| timer.is_none_or(|(timer, _)| packet <= timer)) {
            let ((at, _), (server, datagram)) = self.queue.pop_first().unwrap();
            self.now_us = self.now_us.max(at);
            self.put_off = false;
            self.deliver(server, datagram);
        } else {
            let (at, why) = timer.expect("a timer while the stream is not finished");
            assert!(at < self.now_us + 100_000_000, "a timer far ahead: {why}");
            // With nothing to acknowledge that timer has nothing to do.
            let window = self.client.connection.window();
            let left = window.is_some_and(|window| window.releasable() > 0);
            let delayed = why == "delayed acknowledgement" && left;
            assert!(
                !(delayed && self.put_off),
                "delayed again, and nothing came"
            );
            self.put_off |= delayed;
            self.now_us = self.now_us.max(at);
            self.client.handle_timeout(self.now());
        }
    }

    /// Runs until the requested stream is finished or has failed.
    pub(super) fn finish(&mut self, length: u64) -> (ClientEvent, u64) {
        let start = self.now_us;
        loop {
            let now = self.now();
            self.transmit();
            let mut buffer = [0; 65536];
            loop {
                let count = self.client.read(now, &mut buffer);
                for got in &buffer[..count] {
                    assert_eq!(*got, byte(self.received), "byte {}", self.received);
                    self.received += 1;
                }
                if count == 0 {
                    break;
                }
            }
            self.transmit();
            while let Some(event) = self.client.poll_event() {
                match event {
                    ClientEvent::Finished => {
                        assert_eq!(self.received, length);
                        return (event, self.now_us - start);
                    }
                    ClientEvent::TimedOut | ClientEvent::Changed => {
                        return (event, self.now_us - start);
                    }
                    ClientEvent::Connected | ClientEvent::Began { .. } | ClientEvent::Readable => {}
                }
            }
            self.step();
            assert!(
                self.now_us < start + 3_600_000_000,
                "never ends: {:?}",
                self.client.stats()
            );
        }
    }
}
