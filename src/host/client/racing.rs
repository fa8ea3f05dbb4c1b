//! The race of a client for a connection to a service.
//!
//! In: the addresses of the service, and its connections. Out: further connections as they are started, then
//! the one that carries the transfer, and none of the others. A request of our transport rides in the first
//! packet of each attempt: it is idempotent (GET or HEAD), and an answer that is not read leaves nothing at a server.

use std::net::{IpAddr, SocketAddr};

use super::ClientHost;
use crate::apps::fetch::target::Target;
use crate::apps::fetch::{Attempt, Attempts, TransferFailure, TransferRequest};
use crate::connect::{AttemptState, Race, RaceStep, interleaved, interleaved_after};
use crate::host::config::Protocol;
use crate::time::{Instant, Now};

/// A race under way.
pub(super) struct Racing {
    race: Race,
    request: TransferRequest,
    ways: Vec<Way>,
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

    /// The attempts that were started.
    pub(super) fn attempts(&self) -> Attempts {
        let attempt = |(way, state): (&Way, &AttemptState)| {
            let failed_after = match *state {
                AttemptState::Waiting => return None,
                AttemptState::Running(_) | AttemptState::Answered => None,
                AttemptState::Failed(after) => Some(after),
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
        &self,
        target: &Target,
        known: &[IpAddr],
    ) -> Result<Vec<Way>, TransferFailure> {
        let host = target.host().to_owned();
        if known.is_empty() {
            return Err(TransferFailure::CannotResolve { host });
        }
        let known = interleaved(&self.of_family(known));
        let ways = known.into_iter();
        let ways: Vec<Way> = ways.filter_map(|ip| self.way(target, ip)).collect();
        match ways.is_empty() {
            true => Err(TransferFailure::Family { host }),
            false => Ok(ways),
        }
    }

    /// The way to one address of a service; `None` without an own address of its family.
    fn way(&self, target: &Target, address: IpAddr) -> Option<Way> {
        let port = match self.config.protocol {
            Protocol::Trickles { udp_port, .. } => udp_port,
            Protocol::Tcp => target.port(),
        };
        let remote = SocketAddr::new(address, port);
        let local = self.own_address(remote)?;
        Some(Way { local, remote })
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
            });
        }
        self.run_race(now);
    }

    /// Adds addresses that have become known to the race, behind those that were tried.
    pub(super) fn extend_race(&mut self, known: &[IpAddr]) {
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
        let rest = interleaved_after(&tried, &self.of_family(known));
        let rest = rest.into_iter();
        let rest = rest.filter_map(|ip| self.way(&racing.request.target, ip));
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
                    if !self.attempt(now, &racing, index) {
                        racing.race.handle_failure(now.instant, index);
                    }
                }
                RaceStep::Won(index) => {
                    self.win(now, racing, index);
                    return true;
                }
                RaceStep::Exhausted => {
                    let attempts = racing.attempts();
                    self.end_race(now, &racing, None);
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
        if let Some(racing) = running.and_then(|running| running.race.take()) {
            self.end_race(now, &racing, None);
        }
    }

    /// Ends all attempts but one.
    fn end_race(&mut self, now: Now, racing: &Racing, winner: Option<usize>) {
        for (index, (way, state)) in racing.ways.iter().zip(racing.race.attempts()).enumerate() {
            if *state != AttemptState::Waiting && Some(index) != winner {
                self.end_attempt(now, way.remote);
            }
        }
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

    fn attempt(&mut self, now: Now, racing: &Racing, index: usize) -> bool {
        let Some(way) = racing.ways.get(index) else {
            return false;
        };
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
            let is_connected = connection.as_ref().is_some_and(|one| one.is_connected());
            if is_connected {
                racing.race.handle_answer(now.instant, index);
            } else if connection.is_none_or(|one| one.poll_end().is_some()) {
                self.end_attempt(now, way.remote);
                racing.race.handle_failure(now.instant, index);
            }
        }
    }

    fn win(&mut self, now: Now, racing: Racing, winner: usize) {
        self.end_race(now, &racing, Some(winner));
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
