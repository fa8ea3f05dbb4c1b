//! The race of a client for a connection to a service.
//!
//! In: the addresses of the service, and its connections. Out: further connections as they are started, then
//! the one that carries the transfer, and none of the others. A request of our transport rides in the first
//! packet of each attempt: it is idempotent (GET or HEAD), and an answer that is not read leaves nothing at a server.

use std::net::{IpAddr, SocketAddr};

use rand::RngExt as _;

use super::ClientHost;
use crate::apps::fetch::target::Target;
use crate::apps::fetch::{Attempt, Attempts, TransferFailure, TransferRequest};
use crate::connect::resolve::ResolveError;
use crate::connect::{
    AttemptState, EXPLORE_ONE_IN, MAX_ATTEMPTS, Outcome, Race, RaceStep, Rank, Route,
    interleaved_after,
};
use crate::host::config::{Finish, Protocol};
use crate::host::connection::ClientConnection;
use crate::host::report::AttemptReport;
use crate::http::HeadError;
use crate::http::response::ResponseHead;
use crate::time::{Instant, Now};

/// Most packets that a client sends in a race; after that it only waits for answers.
pub(in crate::host) const MAX_RACE_PACKETS: u32 = 64;

/// A race under way.
pub(super) struct Racing {
    race: Race,
    request: TransferRequest,
    ways: Vec<Way>,
    /// Packets sent.
    packets: u32,
}

/// How a race ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RaceEnd {
    Won(usize),
    Exhausted,
    TimedOut,
    /// Its transfer was dropped.
    Dropped,
}

/// The addresses of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) local: IpAddr,
    pub(super) remote: SocketAddr,
}

impl Racing {
    /// When the race is to be polled.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.race.poll_timeout()
    }

    /// The addresses that may replace the winner's, the likeliest to answer first.
    fn spares(&self, now: Now, winner: usize) -> Vec<SocketAddr> {
        let spares = self.race.spares(now.instant, winner).into_iter();
        let ways = spares.filter_map(|index| self.ways.get(index));
        ways.map(|way| way.remote).collect()
    }

    /// Takes note of a packet that was sent.
    pub(super) const fn sent(&mut self) {
        self.packets = self.packets.saturating_add(1);
    }

    /// Whether no more packets may be sent.
    pub(super) const fn is_spent(&self) -> bool {
        self.packets >= MAX_RACE_PACKETS
    }

    /// The attempts that were started.
    pub(super) fn attempts(&self) -> Attempts {
        let attempt = |(way, state): (&Way, &AttemptState)| {
            let failed_after = match *state {
                AttemptState::Waiting => return None,
                AttemptState::Running(_) | AttemptState::Answered(..) => None,
                AttemptState::Failed(_, after) => Some(after),
            };
            let address = way.remote;
            Some(Attempt {
                address,
                failed_after,
            })
        };
        let states = self.race.attempts();
        Attempts(self.ways.iter().zip(states).filter_map(attempt).collect())
    }
}

impl ClientHost {
    /// The ways to a service, in the order in which they are tried.
    pub(super) fn ways(
        &mut self,
        now: Now,
        target: &Target,
        known: &[IpAddr],
    ) -> Result<Vec<Way>, TransferFailure> {
        let host = target.host().to_owned();
        if known.is_empty() {
            let reason = ResolveError::NoAddresses(Vec::new());
            return Err(TransferFailure::CannotResolve { host, reason });
        }
        let ways = self.ordered(now, target, &[], known);
        match ways.is_empty() {
            true => Err(TransferFailure::Family { host }),
            false => Ok(ways),
        }
    }

    /// The way to one address of a service; `None` without an own address of its family.
    fn way(&self, target: &Target, address: IpAddr) -> Option<Way> {
        let port = self.config.port_for(target);
        let remote = SocketAddr::new(address, port);
        let local = self.own_address(remote)?;
        Some(Way { local, remote })
    }

    /// The ways to addresses of a service that are to be tried after `tried`: those that failed lately come last.
    fn ordered(
        &mut self,
        now: Now,
        target: &Target,
        tried: &[IpAddr],
        known: &[IpAddr],
    ) -> Vec<Way> {
        let explores =
            !self.config.history.is_empty() && self.random.random_ratio(1, EXPLORE_ONE_IN);
        let ways = self.of_family(known).into_iter();
        let mut ways: Vec<(Rank, Way)> = ways
            .filter_map(|ip| {
                let way = self.way(target, ip)?;
                let rank = self.config.history.rank(now.unix, &self.route(way));
                Some((if explores { Rank::Unknown } else { rank }, way))
            })
            .collect();
        ways.sort_by_key(|(rank, _)| *rank);
        let is_failing = |(rank, _): &(Rank, Way)| matches!(rank, Rank::Failing(_));
        let mut order = tried.to_vec();
        for part in ways.chunk_by(|one, next| is_failing(one) == is_failing(next)) {
            let part: Vec<IpAddr> = part.iter().map(|(_, way)| way.remote.ip()).collect();
            order.extend(interleaved_after(&order, &part));
        }
        let order = order.into_iter().take(MAX_ATTEMPTS).skip(tried.len());
        order.filter_map(|ip| self.way(target, ip)).collect()
    }

    /// The route of a way, by the own address that it has or that the kernel would choose.
    fn route(&self, way: Way) -> Route {
        let chosen = || (self.config.source)(way.remote.ip());
        let local = match way.local.is_unspecified() {
            true => chosen().unwrap_or(way.local),
            false => way.local,
        };
        Route::new(local, way.remote, self.config.protocol == Protocol::Tcp)
    }

    fn of_family(&self, known: &[IpAddr]) -> Vec<IpAddr> {
        let family = self.config.family;
        let fits = |address: &IpAddr| family.is_none_or(|family| family.has(*address));
        known.iter().copied().filter(fits).collect()
    }

    /// Starts a race to the addresses of a service, the best first.
    pub(super) fn start_race(&mut self, now: Now, request: TransferRequest, ways: Vec<Way>) {
        self.current = None;
        if let Some(running) = &mut self.running {
            running.connect_by = Some(now.instant + self.config.connect_timeout);
            let mut race = Race::new(self.config.pace, ways.len());
            race.expect_more(running.lookup.is_some());
            running.race = Some(Racing {
                race,
                request,
                ways,
                packets: 0,
            });
        }
        self.run_race(now);
    }

    /// Adds addresses that have become known to the race, behind those that were tried.
    pub(super) fn extend_race(&mut self, now: Now, known: &[IpAddr]) {
        let Some(running) = &mut self.running else {
            return;
        };
        let more = running.lookup.is_some();
        let Some(mut racing) = running.race.take() else {
            return;
        };
        let started = racing.race.started();
        racing.ways.truncate(started);
        let tried: Vec<IpAddr> = racing.ways.iter().map(|way| way.remote.ip()).collect();
        let rest = self.ordered(now, &racing.request.target, &tried, known);
        racing.ways.extend(rest);
        racing.race.set_waiting(racing.ways.len() - started);
        racing.race.expect_more(more);
        if let Some(running) = &mut self.running {
            running.race = Some(racing);
        }
    }

    /// Reports the outcomes of the attempts to the race, and takes its next steps. Returns whether it has ended.
    pub(super) fn run_race(&mut self, now: Now) -> bool {
        let Some(mut racing) = self
            .running
            .as_mut()
            .and_then(|running| running.race.take())
        else {
            return false;
        };
        self.watch(now, &mut racing);
        while let Some(step) = racing.race.poll(now.instant) {
            match step {
                RaceStep::Start(index) => {
                    if !self.attempt(now, &mut racing, index) {
                        racing.race.handle_failure(now.instant, index);
                    }
                }
                RaceStep::Won(index) => {
                    self.win(now, racing, index);
                    return true;
                }
                RaceStep::Exhausted => {
                    let attempts = racing.attempts();
                    self.end_race(now, &racing, RaceEnd::Exhausted);
                    if let Some(running) = &mut self.running {
                        running.connect_by = None;
                        running
                            .transfer
                            .fail(TransferFailure::CannotConnect { attempts });
                    }
                    return true;
                }
            }
        }
        if let Some(running) = &mut self.running {
            running.race = Some(racing);
        }
        false
    }

    /// Ends the race under way, if there is one, with all its attempts.
    pub(super) fn drop_race(&mut self, now: Now) {
        let running = self.running.as_mut();
        let passed = |limit: Option<Instant>| limit.is_some_and(|at| at <= now.instant);
        let Some(racing) = running.and_then(|running| running.race.take()) else {
            return;
        };
        let limit = self.running.as_ref().and_then(|running| running.connect_by);
        let end = match passed(limit) {
            true => RaceEnd::TimedOut,
            false => RaceEnd::Dropped,
        };
        self.end_race(now, &racing, end);
    }

    /// Ends all attempts but the one that has won, and notes the outcome of each.
    fn end_race(&mut self, now: Now, racing: &Racing, end: RaceEnd) {
        self.report_race(now, racing, end);
        for (index, (way, state)) in racing.ways.iter().zip(racing.race.attempts()).enumerate() {
            if let Some(outcome) = outcome(*state, end) {
                let route = self.route(*way);
                self.config.history.note(now.unix, route, outcome);
            }
            if *state != AttemptState::Waiting && end != RaceEnd::Won(index) {
                self.end_attempt(now, way.remote);
            }
        }
    }

    /// Records the course of a race that ends.
    fn report_race(&mut self, now: Now, racing: &Racing, end: RaceEnd) {
        let begun = self
            .running
            .as_ref()
            .map_or(now.instant, |running| running.begun);
        let tcp = self.config.protocol == Protocol::Tcp;
        let attempt = |(way, state): (&Way, &AttemptState)| {
            let (started, took) = match *state {
                AttemptState::Waiting => (None, None),
                AttemptState::Running(at) => (Some(at), Some(now.instant.saturating_since(at))),
                AttemptState::Answered(at, took) | AttemptState::Failed(at, took) => {
                    (Some(at), Some(took))
                }
            };
            let started = started.map(|at| at.saturating_since(begun));
            AttemptReport {
                remote: way.remote,
                tcp,
                started,
                ended: started.and_then(|at| Some(at + took?)),
                outcome: outcome(*state, end),
            }
        };
        let attempts = racing.ways.iter().zip(racing.race.attempts());
        self.race.attempts = attempts.map(attempt).collect();
        self.race.ended = now.instant.saturating_since(begun);
        (self.race.winner, self.race.spares) = match end {
            RaceEnd::Won(index) => (Some(index), racing.spares(now, index)),
            RaceEnd::Exhausted | RaceEnd::TimedOut | RaceEnd::Dropped => (None, Vec::new()),
        };
    }

    /// The route to a service; `None` without an own address of its family.
    pub(super) fn route_to(&self, remote: SocketAddr) -> Option<Route> {
        let local = self.own_address(remote)?;
        Some(self.route(Way { local, remote }))
    }

    /// An attempt was refused by its host, as far as a report from the network is to be believed.
    pub(super) fn refuse(&mut self, now: Now, address: IpAddr) {
        let Some(racing) = self
            .running
            .as_mut()
            .and_then(|running| running.race.as_mut())
        else {
            return;
        };
        let refused = racing.ways.iter().enumerate();
        let refused = refused.filter(|(_, way)| way.remote.ip() == address);
        let refused: Vec<(usize, SocketAddr)> =
            refused.map(|(index, way)| (index, way.remote)).collect();
        for &(index, _) in &refused {
            racing.race.handle_failure(now.instant, index);
        }
        for (_, remote) in refused {
            self.end_attempt(now, remote);
        }
    }

    fn attempt(&mut self, now: Now, racing: &mut Racing, index: usize) -> bool {
        let Some(&way) = racing.ways.get(index) else {
            return false;
        };
        if let Some(due) = self.config.history.due(now.unix, &self.route(way)) {
            racing.race.expect_answer(now.instant, due);
        }
        self.end_attempt(now, way.remote);
        let Ok(mut connection) = self.connect(now, way.local, way.remote) else {
            return false;
        };
        if connection.transport().is_some() {
            connection.request(now, self.tcp.streams(), racing.request.head.clone());
        }
        if let Some((service, oldest)) = self.connections.keep(way.remote, connection) {
            self.give_up(now, service, oldest);
        }
        true
    }

    fn end_attempt(&mut self, now: Now, remote: SocketAddr) {
        if let Some(connection) = self.connections.take(remote) {
            self.give_up(now, remote, connection);
        }
    }

    /// Reports answers and failures of the attempts that run.
    fn watch(&mut self, now: Now, racing: &mut Racing) {
        for (index, way) in racing.ways.iter().enumerate() {
            let state = racing.race.attempts().get(index);
            if !matches!(state, Some(AttemptState::Running(_))) {
                continue;
            }
            let connection = self.connections.get(way.remote);
            match connection.map(|connection| judge(connection, self.config.finish)) {
                Some(Verdict::Waits) => {}
                Some(Verdict::Finished) => racing.race.handle_answer(now.instant, index),
                Some(Verdict::Failed) | None => {
                    self.end_attempt(now, way.remote);
                    racing.race.handle_failure(now.instant, index);
                }
            }
        }
    }

    fn win(&mut self, now: Now, racing: Racing, winner: usize) {
        self.end_race(now, &racing, RaceEnd::Won(winner));
        let Some(way) = racing.ways.get(winner) else {
            return;
        };
        log::info!("connected to {}", way.remote);
        self.current = Some(way.remote);
        if let Some(running) = &mut self.running {
            (running.connect_by, running.lookup) = (None, None);
        }
        let spares = racing.spares(now, winner);
        let Some(connection) = self.connections.get(way.remote) else {
            return;
        };
        match connection.transport_mut() {
            Some(client) => client.set_spares(spares),
            None => {
                connection.request(now, self.tcp.streams(), racing.request.head);
                self.await_bytes(now, true);
            }
        }
    }
}

/// The outcome of an attempt at the end of its race; `None` if it says nothing of the address.
const fn outcome(state: AttemptState, end: RaceEnd) -> Option<Outcome> {
    match (state, end) {
        (AttemptState::Answered(_, after), _) => Some(Outcome::Answered(after)),
        (AttemptState::Failed(..), _) => Some(Outcome::Refused),
        (AttemptState::Running(_), RaceEnd::Won(_)) => Some(Outcome::Lost),
        (AttemptState::Running(_), RaceEnd::TimedOut) => Some(Outcome::TimedOut),
        (AttemptState::Running(_), RaceEnd::Exhausted | RaceEnd::Dropped)
        | (AttemptState::Waiting, _) => None,
    }
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Waits,
    Finished,
    Failed,
}

/// Judges whether an attempt has reached the finish line.
fn judge(connection: &mut ClientConnection, finish: Finish) -> Verdict {
    let waits = |connection: &mut ClientConnection| match connection.poll_end() {
        Some(_) => Verdict::Failed,
        None => Verdict::Waits,
    };
    if !connection.is_connected() {
        return waits(connection);
    }
    // A request over TCP leaves only when its connection has won.
    let Some(client) = connection.transport() else {
        return Verdict::Finished;
    };
    let bytes = client.ready();
    match finish {
        Finish::Answer => Verdict::Finished,
        Finish::FirstByte | Finish::Head if bytes.is_empty() => waits(connection),
        Finish::FirstByte => Verdict::Finished,
        Finish::Head => match ResponseHead::parse(bytes) {
            Ok((head, _)) if head.status.0 < 500 => Verdict::Finished,
            Err(HeadError::Incomplete) => waits(connection),
            Ok(_) | Err(_) => Verdict::Failed,
        },
    }
}
