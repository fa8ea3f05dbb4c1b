//! A lossy path with a fixed round trip and no limit of rate, between one downloader and servers of one
//! cluster as they ship.
//!
//! In: a [`Plan`] and a [`Downloader`]. Out: the [`Tally`] of the packets that arrived. Requests are
//! not lost; of the answers each datagram is lost at random. Equal plans give equal tallies.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

use crate::time::{Instant, Now, UnixMillis, micros};
use crate::transport::application::{
    Application, Begun, MAX_STREAM_BYTES, RequestContext, StreamPart, Unavailable,
};
use crate::transport::keys::{KeyRing, SECRET_BYTES};
use crate::transport::server::{Server, ServerConfig};
use crate::wire::flight::{Flight, UdpPath};

/// Most servers of a path.
pub const MAX_SERVERS: usize = 8;

/// MTU of the path in bytes: small, so that long runs are fast.
pub const MTU: u16 = 576;

/// A path and the length of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Packets lost of a million.
    pub loss_ppm: u32,
    /// Virtual time from which on none is lost.
    pub heals: Duration,
    /// The round trip.
    pub rtt: Duration,
    /// Servers of the cluster, at most [`MAX_SERVERS`].
    pub servers: usize,
    /// Virtual time at the start that is not counted.
    pub skips: Duration,
    /// Virtual time that is counted.
    pub lasts: Duration,
    /// The seed of the losses and of the downloader.
    pub seed: u64,
}

/// A datagram or flight of a downloader, and its servers.
pub struct Sent {
    /// The datagrams.
    pub flight: Flight,
    /// Copies of each datagram, which go to the servers by turns, from the first on.
    pub copies: usize,
}

/// A client on the path.
pub trait Downloader {
    /// Takes the datagrams of a flight that arrived.
    fn receive(&mut self, now: Now, flight: &Flight, arrived: &[bool]);
    /// Acts on a deadline that has passed.
    fn handle_timeout(&mut self, now: Now);
    /// Returns the next output.
    fn poll_transmit(&mut self, now: Now) -> Option<Sent>;
    /// Returns the next deadline.
    fn poll_timeout(&self) -> Option<Instant>;
}

/// The packets that arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams of servers that arrived, by round trip since the start.
    pub rounds: Vec<u64>,
    skipped: usize,
}

impl Tally {
    /// The mean of the packets a round trip, without the time at the start that is not counted.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn mean(&self) -> f64 {
        let counted = self.rounds.get(self.skipped..).unwrap_or_default();
        counted.iter().sum::<u64>() as f64 / counted.len().max(1) as f64
    }
}

/// The key ring of every path: downloaders that cheat read their continuations with it.
#[must_use]
pub fn ring() -> KeyRing {
    KeyRing::with_secret([7; SECRET_BYTES])
}

/// Both clocks at `at`.
#[must_use]
pub const fn clocks(at: Instant) -> Now {
    Now {
        instant: at,
        unix: UnixMillis::new(1_800_000_000_000 + at.as_micros() / 1000),
    }
}

/// Runs a downloader over a path.
pub fn run(plan: &Plan, downloader: &mut dyn Downloader) -> Tally {
    let mut run = Run::new(plan);
    let ends = Instant::ZERO + plan.skips + plan.lasts;
    run.drain(Instant::ZERO, downloader);
    while let Some(at) = run.next(downloader) {
        if at >= ends {
            break;
        }
        run.step(at, downloader);
        run.drain(at, downloader);
    }
    run.tally
}

struct Run {
    half: Duration,
    rtt_us: u64,
    loss: f64,
    heals: Instant,
    dice: Xoshiro256PlusPlus,
    servers: Vec<Server>,
    up: VecDeque<(Instant, usize, UdpPath, Vec<u8>)>,
    down: VecDeque<(Instant, Flight)>,
    tally: Tally,
}

impl Run {
    fn new(plan: &Plan) -> Self {
        let rtt_us = micros(plan.rtt).max(2);
        let rounds = |time: Duration| usize::try_from(micros(time) / rtt_us).unwrap_or(0);
        let server = |id: usize| {
            let config = ServerConfig {
                server_id: u16::try_from(id).unwrap_or(0) + 1,
                site_id: 1,
                mtu: MTU,
            };
            Server::new(config, ring())
        };
        Self {
            half: Duration::from_micros(rtt_us / 2),
            rtt_us,
            heals: Instant::ZERO + plan.heals,
            loss: f64::from(plan.loss_ppm) / 1e6,
            dice: Xoshiro256PlusPlus::seed_from_u64(plan.seed),
            servers: (0..plan.servers.clamp(1, MAX_SERVERS))
                .map(server)
                .collect(),
            up: VecDeque::new(),
            down: VecDeque::new(),
            tally: Tally {
                rounds: vec![0; rounds(plan.skips + plan.lasts)],
                skipped: rounds(plan.skips),
            },
        }
    }

    fn next(&self, downloader: &dyn Downloader) -> Option<Instant> {
        let up = self.up.front().map(|&(at, ..)| at);
        let down = self.down.front().map(|&(at, _)| at);
        [up, down, downloader.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn step(&mut self, at: Instant, downloader: &mut dyn Downloader) {
        let now = clocks(at);
        while self.up.front().is_some_and(|&(due, ..)| due <= at) {
            let Some((_, server, path, datagram)) = self.up.pop_front() else {
                return;
            };
            let answer = self
                .servers
                .get_mut(server)
                .and_then(|server| server.respond(now, path, &datagram, &mut Endless));
            self.down
                .extend(answer.map(|flight| (at + self.half, flight)));
        }
        while self.down.front().is_some_and(|&(due, _)| due <= at) {
            let Some((_, flight)) = self.down.pop_front() else {
                return;
            };
            let loss = if at < self.heals { self.loss } else { 0.0 };
            let arrived: Vec<bool> = (0..flight.count())
                .map(|_| !self.dice.random_bool(loss))
                .collect();
            let round = usize::try_from(at.as_micros() / self.rtt_us).unwrap_or(usize::MAX);
            if let Some(count) = self.tally.rounds.get_mut(round) {
                *count += arrived
                    .iter()
                    .map(|&arrived| u64::from(arrived))
                    .sum::<u64>();
            }
            downloader.receive(now, &flight, &arrived);
        }
        if downloader.poll_timeout().is_some_and(|due| due <= at) {
            downloader.handle_timeout(now);
        }
    }

    fn drain(&mut self, at: Instant, downloader: &mut dyn Downloader) {
        while let Some(sent) = downloader.poll_transmit(clocks(at)) {
            for datagram in sent.flight.datagrams() {
                for copy in 0..sent.copies.clamp(1, MAX_SERVERS) {
                    let server = copy % self.servers.len().max(1);
                    let due = at + self.half;
                    self.up
                        .push_back((due, server, sent.flight.path, datagram.to_vec()));
                }
            }
        }
    }
}

/// One object that never ends, in memory.
pub(super) struct Endless;

impl Application for Endless {
    fn begin(&mut self, _context: RequestContext, _request: &[u8]) -> Result<Begun, Unavailable> {
        Ok(Begun {
            user: Vec::new(),
            length: Some(MAX_STREAM_BYTES - 1),
        })
    }

    fn read(&mut self, _part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        out.fill(0);
        Ok(out.len())
    }
}
