//! A downloader that cheats for a larger window. Its moves are parameters.
//!
//! In: packets and time; the cluster's keys, with which it reads its continuations and asks the server's own
//! check whether a request would be granted: it always guesses right, but it seals nothing and proves only
//! numbers that came. Out: requests that are granted, at least if no other was granted meanwhile.

mod course;
mod evidence;

use std::collections::VecDeque;
use std::time::Duration;

use super::honest::addresses;
use super::path::{Downloader, Sent, ring};
use crate::time::{Instant, Now, UnixMillis};
use crate::transport::continuation::Continuation;
use crate::transport::epoch::{Declaration, Transition, TransitionKind};
use crate::transport::grant::{GrantError, Times, grant};
use crate::transport::keys::KeyRing;
use crate::wire::flight::{Ecn, Flight, UdpPath};
use crate::wire::segment::{
    Cookie, Declared, Open, Request, Response, ResponseKind, Span, ToClient, Wanted,
};

use evidence::Received;

/// The moves that distinguish a cheat from an honest client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moves {
    /// Eighths of a window for which a loss stays undeclared.
    pub hides: u8,
    /// Most spans that stay undeclared at a time.
    pub spans: u8,
    /// The events that it declares for losses, the dearest to it first.
    pub declares: [TransitionKind; 3],
    /// The round trip that it claims, in percent of the true one.
    pub claims: u32,
    /// Passes a zone as soon as the server accepts it.
    pub hasty: bool,
    /// Declares an event at the first loss, not at the edge.
    pub early: bool,
    /// Round trips between restarts from another address; 0: none.
    pub moves: u16,
    /// Round trips of activity before each pause, if there are pauses.
    pub speaks: u16,
    /// Round trips of each pause; 0: none.
    pub rests: u16,
    /// Repeats an early event of this kind each 100 ms.
    pub repeats: Option<TransitionKind>,
    /// The number of servers that get each request.
    pub copies: u8,
}

impl Moves {
    /// The moves of an honest client.
    pub const HONEST: Self = Self {
        hides: 0,
        spans: 8,
        declares: [
            TransitionKind::Loss,
            TransitionKind::Timeout,
            TransitionKind::Timeout,
        ],
        claims: 100,
        hasty: false,
        early: false,
        moves: 0,
        speaks: 0,
        rests: 0,
        repeats: None,
        copies: 1,
    };
}

/// A continuation and its content.
#[derive(Clone)]
struct Held {
    sealed: Vec<u8>,
    content: Continuation,
    issued: UnixMillis,
}

/// An event under way.
#[derive(Clone, Copy)]
struct Event {
    declaration: Declaration,
    transition: Transition,
    acknowledged: u64,
}

/// A cheating downloader.
pub struct Cheat {
    keys: KeyRing,
    moves: Moves,
    rtt: Duration,
    path: UdpPath,
    id: Option<u64>,
    user: Vec<u8>,
    received: Received,
    held: Option<Held>,
    next: Option<Held>,
    edge: u64,
    event: Option<Event>,
    cookie: Option<Cookie>,
    /// The request that was challenged or given up for lost is due again.
    due: bool,
    retry: Option<Instant>,
    /// When something useful last came.
    heard: Instant,
    stalls: u32,
    moved: Instant,
    /// When the present pause or the present activity ends.
    turns_at: Instant,
    rests: bool,
    repeat: Option<(Instant, Vec<u8>)>,
    out: VecDeque<Sent>,
    /// Requests sent, by far the larger part of its cost.
    pub requests: u64,
}

/// An interval and its claims.
struct Show {
    after: u64,
    upto: u64,
    reach: u64,
    event: Option<Declaration>,
}

impl Cheat {
    /// Creates the downloader; it opens its connection at once.
    #[must_use]
    pub fn new(now: Now, moves: Moves, rtt: Duration) -> Self {
        let mut cheat = Self {
            keys: ring(),
            moves,
            rtt,
            path: addresses(1),
            id: None,
            user: Vec::new(),
            received: Received::default(),
            held: None,
            next: None,
            edge: 0,
            event: None,
            cookie: None,
            due: false,
            retry: None,
            heard: now.instant,
            stalls: 0,
            moved: now.instant,
            turns_at: now.instant + rtt * u32::from(moves.speaks),
            rests: false,
            repeat: None,
            out: VecDeque::new(),
            requests: 0,
        };
        cheat.open(now);
        cheat
    }

    /// The window of the epoch at the edge, in packets.
    #[must_use]
    pub fn window(&self) -> u32 {
        self.held
            .as_ref()
            .map_or(0, |held| held.content.epoch.window(self.edge))
    }

    fn open(&mut self, now: Now) {
        self.id = None;
        self.held = None;
        self.next = None;
        self.event = None;
        self.received = Received::default();
        self.edge = 0;
        let mut datagram = Vec::new();
        Open {
            echo: now.instant.as_micros() + 1,
            size: SIZE,
            stream: 1,
            token: None,
            wanted: Wanted::New(b"endless"),
            offset: 0,
        }
        .emit(&mut datagram);
        self.send(datagram);
    }

    fn send(&mut self, datagram: Vec<u8>) {
        self.requests += 1;
        self.out.push_back(Sent {
            flight: Flight::single(self.path, Ecn::NotEct, datagram),
            copies: self.moves.copies.into(),
        });
    }

    fn take(&mut self, response: &Response<'_>) {
        let id = response.header.connection;
        if self.id.is_none() && matches!(response.header.kind, ResponseKind::Opened { .. }) {
            self.id = Some(id);
        }
        if self.id != Some(id) {
            return;
        }
        let number = u64::from(response.header.number);
        self.received
            .note(number, number + u64::from(response.header.void));
        if let Some(user) = response.user {
            self.user = user.sealed.to_vec();
        }
        self.hold(id, response.continuation);
    }

    fn hold(&mut self, id: u64, sealed: &[u8]) {
        let ahead = UnixMillis::new(u64::MAX / 4);
        let opened = Continuation::open(&self.keys, id, ahead, Duration::MAX, sealed);
        let Ok((content, issued)) = opened else {
            return;
        };
        let sealed = sealed.to_vec();
        let fresh = Held {
            sealed,
            content,
            issued,
        };
        match &mut self.held {
            None => self.held = Some(fresh),
            Some(held) if held.content.epoch == content.epoch => *held = fresh,
            Some(_) => {
                let next = |event: &Event| event.transition.next == content.epoch;
                if self.event.as_ref().is_some_and(next) {
                    self.next.get_or_insert(fresh);
                }
            }
        }
    }

    /// Builds a request, if the server would grant it on its arrival.
    fn build(&self, now: Now, show: &Show) -> Result<Vec<u8>, GrantError> {
        let (Some(held), Some(id)) = (&self.held, self.id) else {
            return Err(GrantError::NotOpened);
        };
        let content = &held.content;
        let p = show.event.map_or(u64::MAX, |event| event.p);
        let zone = show.event.is_none_or(|event| event.kind.has_zone());
        let restart = show
            .event
            .is_some_and(|event| event.kind == TransitionKind::Restart);
        let end = if zone || restart { show.reach } else { p };
        let forgives = show.event.is_some_and(|event| event.kind.forgives());
        let from = if forgives {
            content.epoch.base
        } else {
            content.proof_base
        };
        let holes = self.received.missing(from, p, end);
        let bare = content.address != self.path.src;
        let whole = content.identity.fold(from, end);
        let proof = holes.iter().fold(whole, |proof, hole| {
            proof ^ content.identity.fold(hole.start - 1, hole.end - 1)
        });
        let request = Request {
            continuation: &held.sealed,
            after: show.after,
            upto: show.upto,
            reach: show.reach,
            proof,
            holes,
            wants_continuation: self.wants_continuation(now, held, show),
            declared: show.event.map(|event| Declared {
                kind: event.kind.code(),
                edge: event.p,
                rtt_us: event.rtt_us,
            }),
            cookie: self.cookie.filter(|_| bare),
            ranges: vec![Span {
                start: 0,
                end: 1 << 40,
            }],
            wanted: Wanted::Of(&self.user),
            ..Request::empty(id, SIZE, 1)
        };
        let times = Times {
            now: UnixMillis::new(
                now.unix.as_millis() + u64::try_from(self.rtt.as_millis() / 2).unwrap_or(0),
            ),
            issued: held.issued,
            moved: content.address.ip() != self.path.src.ip(),
        };
        grant(content, times, &request)?;
        let mut datagram = Vec::new();
        request.emit(&mut datagram);
        Ok(datagram)
    }

    fn wants_continuation(&self, now: Now, held: &Held, show: &Show) -> bool {
        let old = now.unix.saturating_since(held.issued) > REFRESH_AGE;
        match show.event {
            Some(_) => self.next.is_none(),
            None => old,
        }
    }

    fn declaration(&self, kind: TransitionKind, p: u64) -> Declaration {
        let true_us = u64::try_from(self.rtt.as_micros()).unwrap_or(u64::MAX);
        Declaration::new(kind, p, true_us * u64::from(self.moves.claims) / 100)
    }

    fn stall_at(&self) -> Instant {
        self.heard + (self.rtt * 3).max(Duration::from_millis(250)) * (1 + self.stalls.min(4))
    }

    /// Begins or ends a pause. None begins at an event or behind a loss, which would end the epoch.
    fn turn(&mut self, now: Now) {
        let base = self.held.as_ref().map_or(0, |held| held.content.epoch.base);
        let lost = !self.received.missing(base, u64::MAX, 0).is_empty();
        if !self.rests && (self.event.is_some() || lost) {
            self.turns_at = now.instant + self.rtt;
            return;
        }
        self.rests = !self.rests;
        let rounds = match self.rests {
            true => self.moves.rests,
            false => self.moves.speaks,
        };
        self.turns_at = now.instant + self.rtt * u32::from(rounds.max(1));
        self.heard = now.instant;
    }
}

impl Downloader for Cheat {
    fn receive(&mut self, now: Now, flight: &Flight, arrived: &[bool]) {
        for (datagram, _) in flight.datagrams().zip(arrived).filter(|(_, here)| **here) {
            match ToClient::parse(&datagram) {
                Ok(ToClient::Response(response)) => self.take(&response),
                Ok(ToClient::Challenge(challenge)) => {
                    self.cookie = Some(challenge.cookie);
                    self.due = true;
                }
                Ok(ToClient::Probed(_) | ToClient::Wait(_)) | Err(_) => {}
            }
            self.heard = now.instant;
            self.stalls = 0;
        }
        self.act(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.retry = None;
        if self
            .repeat
            .as_ref()
            .is_some_and(|(at, _)| *at <= now.instant)
        {
            self.send_repeat(now);
        }
        if self.moves.rests > 0 && now.instant >= self.turns_at {
            self.turn(now);
        }
        if now.instant >= self.stall_at() && !self.rests {
            self.stalled(now);
        }
        self.act(now);
    }

    fn poll_transmit(&mut self, _now: Now) -> Option<Sent> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let turns = (self.moves.rests > 0).then_some(self.turns_at);
        if self.rests {
            return turns;
        }
        let repeat = self.repeat.as_ref().map(|(at, _)| *at);
        [Some(self.stall_at()), self.retry, turns, repeat]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Age at which a cheat has its continuation renewed.
const REFRESH_AGE: Duration = Duration::from_millis(250);

/// Datagrams that it requests: small, so that long runs are fast.
const SIZE: u16 = 512;
