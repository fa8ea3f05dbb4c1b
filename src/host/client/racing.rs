//! The race of a client for a connection to a service.
//!
//! In: the addresses of the service, and its connections. Out: further connections as they are started, then
//! the one that carries the transfer, and none of the others. A request of our transport rides in the first
//! packet of each attempt: it is idempotent (GET or HEAD), and an answer that is not read leaves nothing at a server.
//! A request over TCP leaves when its connection has won.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use rand::RngExt as _;

use super::ClientHost;
use super::finish::{Verdict, judge};
use crate::apps::fetch::target::Target;
use crate::apps::fetch::{Attempt, Attempts, TransferFailure, TransferRequest};
use crate::connect::resolve::ResolveError;
use crate::connect::{
    AttemptState, EXPLORE_ONE_IN, FallbackReason, MAX_ATTEMPTS, Outcome, Rank, Route, SILENT,
    Transport, TransportRace, TransportStep, interleaved_after,
};
use crate::host::config::Protocol;
use crate::host::connection::ClientConnection;
use crate::host::connections::Service;
use crate::host::report::AttemptReport;
use crate::time::{Instant, Now};

/// Most packets that a client sends in a race; after that it only waits for answers.
pub(crate) const MAX_RACE_PACKETS: u32 = 64;

/// A race under way.
pub(super) struct Racing {
    race: TransportRace,
    request: TransferRequest,
    ways: Vec<Way>,
    ports: Ports,
    /// Packets sent.
    packets: u32,
}

/// How a race ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RaceEnd {
    Won(Transport, usize),
    Exhausted,
    TimedOut,
    /// Its transfer was dropped.
    Dropped,
}

/// The addresses of one attempt, or of one over each transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Own address; unspecified if the kernel chooses it.
    local: IpAddr,
    /// The own address that packets have: the kernel's choice is requested once for a way.
    source: IpAddr,
    remote: IpAddr,
}

impl Way {
    /// The route to a service at its other end.
    fn route(self, service: Service) -> Route {
        let is_tcp = service.transport == Transport::Tcp;
        Route::new(self.source, service.address, is_tcp)
    }
}

/// The ports of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    /// That of our transport; none if it is not used.
    udp: Option<u16>,
    tcp: u16,
    /// The interface of its link; 0 if its address has no zone.
    zone: u32,
}

impl Ports {
    /// The service at an address over a transport.
    pub(super) fn service(self, transport: Transport, remote: IpAddr) -> Service {
        let port = match transport {
            Transport::Trickles => self.udp.unwrap_or_default(),
            Transport::Tcp => self.tcp,
        };
        let address = match remote {
            IpAddr::V6(remote) => SocketAddrV6::new(remote, port, 0, self.zone).into(),
            IpAddr::V4(_) => SocketAddr::new(remote, port),
        };
        Service { transport, address }
    }
}

impl Racing {
    /// When the race is to be polled.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.race.poll_timeout()
    }

    /// The service of an attempt.
    fn service(&self, transport: Transport, index: usize) -> Option<Service> {
        let way = self.ways.get(index)?;
        Some(self.ports.service(transport, way.remote))
    }

    /// The attempts of the race with their services and states, those over the first transport before the others.
    fn states(&self) -> impl Iterator<Item = (Service, Way, usize, AttemptState)> {
        self.race.transports().flat_map(move |transport| {
            let states = self.race.attempts(transport).iter().enumerate();
            let ways = self.ways.iter().copied().zip(states);
            ways.map(move |(way, (index, state))| {
                let service = self.ports.service(transport, way.remote);
                (service, way, index, *state)
            })
        })
    }

    /// The addresses that may replace the winner's, the likeliest to answer first.
    fn spares(&self, now: Now, transport: Transport, winner: usize) -> Vec<SocketAddr> {
        let spares = self.race.spares(now.instant, transport, winner).into_iter();
        let spares = spares.filter_map(|index| self.service(transport, index));
        spares.map(|service| service.address).collect()
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
        let attempt = |(service, _, _, state): (Service, Way, usize, AttemptState)| {
            let failed_after = match state {
                AttemptState::Waiting => return None,
                AttemptState::Running(_) | AttemptState::Answered(..) => None,
                AttemptState::Failed(_, after) => Some(after),
            };
            let address = service.address;
            Some(Attempt {
                address,
                failed_after,
            })
        };
        Attempts(self.states().filter_map(attempt).collect())
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
        if let Some(zone) = target.zone()
            && self.zone_index(target).is_none()
        {
            let zone = zone.to_owned();
            return Err(TransferFailure::Zone { zone });
        }
        let ways = self.ordered(now, target, &[], known);
        match ways.is_empty() {
            true => Err(TransferFailure::Family { host }),
            false => Ok(ways),
        }
    }

    /// The ports of the service of a URL.
    pub(super) fn ports(&self, target: &Target) -> Ports {
        let named = self.config.destination(target).port;
        let udp = self.config.protocol.udp_ports();
        Ports {
            udp: udp.map(|(udp, _)| named.unwrap_or(udp)),
            tcp: named.unwrap_or(target.port()),
            zone: self.zone_index(target).unwrap_or(0),
        }
    }

    /// The index of the interface that the zone of an address names.
    fn zone_index(&self, target: &Target) -> Option<u32> {
        let zone = target.zone()?;
        (self.config.interface_index)(zone).filter(|_| self.config.sockets)
    }

    /// The way to one address of a service; `None` without an own address of its family.
    pub(super) fn way(&self, remote: IpAddr) -> Option<Way> {
        let local = self.own_address(remote)?;
        Some(Way {
            local,
            source: self.source(remote).unwrap_or(local),
            remote,
        })
    }

    /// The services at the other ends of ways, over each transport that may carry a request.
    pub(super) fn services(&self, target: &Target, ways: &[Way]) -> Vec<Service> {
        let ports = self.ports(target);
        let (first, second) = self.config.protocol.transports();
        let transports = core::iter::once(first).chain(second);
        let of = |transport| {
            ways.iter()
                .map(move |way| ports.service(transport, way.remote))
        };
        transports.flat_map(of).collect()
    }

    /// The addresses of the services at the other ends of ways, without those that failed lately.
    pub(super) fn spares_among(
        &self,
        now: Now,
        ways: &[Way],
        service: impl Fn(IpAddr) -> Service,
    ) -> Vec<SocketAddr> {
        let services = ways.iter().map(|way| (way, service(way.remote)));
        let usable = services.filter(|(way, service)| {
            let rank = self.config.history.rank(now.unix, &way.route(*service));
            !matches!(rank, Rank::Failing(_))
        });
        usable.map(|(_, service)| service.address).collect()
    }

    /// The transports of a race, the first one first: where our transport to every address of the service seems to be
    /// filtered, and TCP does not, TCP goes first.
    fn transports(
        &self,
        now: Now,
        target: &Target,
        ways: &[Way],
    ) -> (Transport, Option<Transport>) {
        let (first, second) = self.config.protocol.transports();
        let ports = self.ports(target);
        let is_filtered = |transport| {
            ways.iter().all(|way| {
                let route = way.route(ports.service(transport, way.remote));
                self.config.history.is_filtered(now.unix, &route)
            })
        };
        match second {
            Some(second) if is_filtered(first) && !is_filtered(second) => (second, Some(first)),
            second => (first, second),
        }
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
        let ways: Vec<Way> = ways.filter_map(|ip| self.way(ip)).collect();
        let (first, _) = self.transports(now, target, &ways);
        let ports = self.ports(target);
        let ranked = ways.into_iter().map(|way| {
            let route = way.route(ports.service(first, way.remote));
            let rank = self.config.history.rank(now.unix, &route);
            (if explores { Rank::Unknown } else { rank }, way)
        });
        let mut ways: Vec<(Rank, Way)> = ranked.collect();
        ways.sort_by_key(|(rank, _)| *rank);
        let is_failing = |(rank, _): &(Rank, Way)| matches!(rank, Rank::Failing(_));
        let mut order = tried.to_vec();
        for part in ways.chunk_by(|one, next| is_failing(one) == is_failing(next)) {
            let part: Vec<IpAddr> = part.iter().map(|(_, way)| way.remote).collect();
            order.extend(interleaved_after(&order, &part));
        }
        let order = order.into_iter().take(MAX_ATTEMPTS).skip(tried.len());
        let way_to = |ip| {
            ways.iter()
                .map(|(_, way)| *way)
                .find(|way| way.remote == ip)
        };
        order.filter_map(way_to).collect()
    }

    fn of_family(&self, known: &[IpAddr]) -> Vec<IpAddr> {
        let family = self.config.family;
        let fits = |address: &IpAddr| family.is_none_or(|family| family.has(*address));
        known.iter().copied().filter(fits).collect()
    }

    /// Starts a race to the addresses of a service, the best first.
    pub(super) fn start_race(&mut self, now: Now, request: TransferRequest, ways: Vec<Way>) {
        self.current = None;
        let transports = self.transports(now, &request.target, &ways);
        if let ((Transport::Tcp, Some(_)), Protocol::Auto { .. }) =
            (transports, self.config.protocol)
        {
            log::info!("TCP first: UDP to {} lately failed", request.target.host());
        }
        let ports = self.ports(&request.target);
        if let Some(running) = &mut self.running {
            running.connect_by = Some(now.instant + self.config.connect_timeout);
            let mut race = TransportRace::new(transports, self.config.pace, ways.len());
            race.expect_more(running.lookup.is_some());
            running.race = Some(Racing {
                race,
                request,
                ways,
                ports,
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
        let tried: Vec<IpAddr> = racing.ways.iter().map(|way| way.remote).collect();
        let rest = self.ordered(now, &racing.request.target, &tried, known);
        racing.ways.extend(rest);
        racing.race.set_count(racing.ways.len());
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
                TransportStep::Start(transport, index) => {
                    if !self.attempt(now, &mut racing, transport, index) {
                        racing.race.handle_failure(now.instant, transport, index);
                    }
                }
                TransportStep::FallBack(reason) => {
                    racing.log_fallback(reason);
                    self.open_again(now, &racing);
                }
                TransportStep::Won(transport, index) => {
                    self.win(now, racing, transport, index);
                    return true;
                }
                TransportStep::Exhausted => {
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
        for (service, way, index, state) in racing.states() {
            if let Some(outcome) = racing.outcome(now, service.transport, state, end) {
                let route = way.route(service);
                self.config.history.note(now.unix, route, outcome);
            }
            if state != AttemptState::Waiting && end != RaceEnd::Won(service.transport, index) {
                self.end_attempt(now, service);
            }
        }
    }

    /// Records the course of a race that ends.
    fn report_race(&mut self, now: Now, racing: &Racing, end: RaceEnd) {
        let begun = self
            .running
            .as_ref()
            .map_or(now.instant, |running| running.begun);
        let attempt = |(service, _, _, state): (Service, Way, usize, AttemptState)| {
            let (started, took) = match state {
                AttemptState::Waiting => (None, None),
                AttemptState::Running(at) => (Some(at), Some(now.instant.saturating_since(at))),
                AttemptState::Answered(at, took) | AttemptState::Failed(at, took) => {
                    (Some(at), Some(took))
                }
            };
            let started = started.map(|at| at.saturating_since(begun));
            AttemptReport {
                remote: service.address,
                tcp: service.transport == Transport::Tcp,
                started,
                ended: started.and_then(|at| Some(at + took?)),
                outcome: racing.outcome(now, service.transport, state, end),
            }
        };
        self.race.attempts = racing.states().map(attempt).collect();
        self.race.ended = now.instant.saturating_since(begun);
        (self.race.winner, self.race.spares) = match end {
            RaceEnd::Won(transport, index) => {
                let mut states = racing.states();
                let is_winner = |(service, _, place, _): (Service, Way, usize, AttemptState)| {
                    (service.transport, place) == (transport, index)
                };
                let spares = racing.spares(now, transport, index);
                (states.position(is_winner), spares)
            }
            RaceEnd::Exhausted | RaceEnd::TimedOut | RaceEnd::Dropped => (None, Vec::new()),
        };
    }

    /// The route to a service; `None` without an own address of its family.
    pub(super) fn route_to(&self, service: Service) -> Option<Route> {
        Some(self.way(service.address.ip())?.route(service))
    }

    /// An attempt over our transport was refused by its host, as far as a report from the network is to be believed.
    pub(super) fn refuse(&mut self, now: Now, address: IpAddr) {
        let Some(racing) = self
            .running
            .as_mut()
            .and_then(|running| running.race.as_mut())
        else {
            return;
        };
        let refused = racing.ways.iter().enumerate();
        let refused = refused.filter(|(_, way)| way.remote == address);
        let refused: Vec<usize> = refused.map(|(index, _)| index).collect();
        let mut services = Vec::new();
        for index in refused {
            services.extend(racing.service(Transport::Trickles, index));
            racing
                .race
                .handle_failure(now.instant, Transport::Trickles, index);
        }
        for service in services {
            self.end_attempt(now, service);
        }
    }

    fn attempt(
        &mut self,
        now: Now,
        racing: &mut Racing,
        transport: Transport,
        index: usize,
    ) -> bool {
        let (way, service) = (racing.ways.get(index), racing.service(transport, index));
        let (Some(&way), Some(service)) = (way, service) else {
            return false;
        };
        if let Some(due) = self.config.history.due(now.unix, &way.route(service)) {
            racing.race.expect_answer(now.instant, transport, due);
        }
        self.end_attempt(now, service);
        let Ok(mut connection) = self.connect(now, way.local, service) else {
            return false;
        };
        if connection.transport().is_some() {
            connection.request(now, self.tcp.streams(), racing.request.head.clone());
        }
        if let Some((service, oldest)) = self.connections.keep(service, connection) {
            self.give_up(now, service, oldest);
        }
        true
    }

    /// Sends the OPEN of each attempt that is silent again, because another transport joins: one lost packet must not
    /// decide the race.
    fn open_again(&mut self, now: Now, racing: &Racing) {
        for (service, ..) in racing.states() {
            let connection = self.connections.get(service);
            if let Some(client) = connection.and_then(ClientConnection::transport_mut) {
                client.open_again(now);
            }
        }
    }

    fn end_attempt(&mut self, now: Now, service: Service) {
        if let Some(connection) = self.connections.take(service) {
            self.give_up(now, service, connection);
        }
    }

    /// Reports answers and failures of the attempts that run.
    fn watch(&mut self, now: Now, racing: &mut Racing) {
        let running = |state| matches!(state, AttemptState::Running(_));
        let states = racing.states().filter(|(.., state)| running(*state));
        let running: Vec<(Service, usize)> = states
            .map(|(service, _, index, _)| (service, index))
            .collect();
        for (service, index) in running {
            let transport = service.transport;
            let connection = self.connections.get(service);
            if connection.as_ref().is_some_and(|one| one.has_received()) {
                racing.race.handle_byte(transport);
            }
            match connection.map(|connection| judge(connection, self.config.finish)) {
                Some(Verdict::Waits) => {}
                Some(Verdict::Finished) => racing.race.handle_answer(now.instant, transport, index),
                Some(Verdict::Failed) | None => {
                    self.end_attempt(now, service);
                    racing.race.handle_failure(now.instant, transport, index);
                }
            }
        }
    }

    fn win(&mut self, now: Now, racing: Racing, transport: Transport, winner: usize) {
        self.end_race(now, &racing, RaceEnd::Won(transport, winner));
        let Some(service) = racing.service(transport, winner) else {
            return;
        };
        log::info!(
            "connected to {} over {}",
            service.address,
            transport.label()
        );
        self.current = Some(service);
        if let Some(running) = &mut self.running {
            (running.connect_by, running.lookup) = (None, None);
            running.transport = Some(transport);
        }
        let Some(connection) = self.connections.get(service) else {
            return;
        };
        match connection.transport_mut() {
            Some(client) => client.set_spares(self.race.spares.iter().copied()),
            None => {
                connection.request(now, self.tcp.streams(), racing.request.head);
                self.await_bytes(now, true);
            }
        }
    }
}

impl Racing {
    /// The outcome of an attempt at the end of the race; `None` if it says nothing of the address.
    fn outcome(
        &self,
        now: Now,
        transport: Transport,
        state: AttemptState,
        end: RaceEnd,
    ) -> Option<Outcome> {
        match (state, end) {
            (AttemptState::Answered(_, after), _) => Some(Outcome::Answered(after)),
            (AttemptState::Failed(..), _) => Some(Outcome::Refused),
            // Silent for as long as it takes TCP to join: the network may well filter UDP.
            (AttemptState::Running(since), RaceEnd::Won(Transport::Tcp, _))
                if transport == Transport::Trickles
                    && !self.race.has_received(transport)
                    && now.instant.saturating_since(since) >= SILENT =>
            {
                Some(Outcome::TimedOut)
            }
            (AttemptState::Running(_), RaceEnd::Won(..)) => Some(Outcome::Lost),
            (AttemptState::Running(_), RaceEnd::TimedOut) => Some(Outcome::TimedOut),
            (AttemptState::Running(_), RaceEnd::Exhausted | RaceEnd::Dropped)
            | (AttemptState::Waiting, _) => None,
        }
    }

    /// Logs that the second transport joins.
    fn log_fallback(&self, reason: FallbackReason) {
        let mut labels = self.race.transports().map(Transport::label);
        let (first, second) = (labels.next().unwrap_or("-"), labels.next().unwrap_or("-"));
        let host = self.request.target.host();
        log::info!("{first} to {host}: {reason}; trying {second}, too");
    }
}
