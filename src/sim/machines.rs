//! The transport's machines for simulated worlds: servers of [`SlowObjects`], and clients that fetch and
//! verify them.
//!
//! In: packets and time, as for any machine. Out: packets, and for clients their progress. A server
//! is `transport::server` with its keys at some stage of a rotation; a client is
//! `transport::client` with a plan. Neither knows that it is observed.

use std::collections::VecDeque;
use std::time::Duration;

use super::Kit;
use super::adversary::Adversary;
use super::dice::Dice;
use super::judge::TransportJudge;
use super::object::Object;
use super::scenario::{ClientPlan, LAST_STAGE, Reader, Scenario, ServerPlan};
use super::slow::SlowObjects;
use super::world::{Boot, ClientProgress, Node};
use crate::host::{Machine, Transmit};
use crate::time::{Instant, Now};
use crate::transport::application::Application as _;
use crate::transport::client::{Client, ClientConfig, ClientEvent};
use crate::transport::keys::{KeyRing, Role, SECRET_BYTES};
use crate::transport::server::{Server, ServerConfig};
use crate::wire::flight::Flight;
use crate::wire::ip::parse_udp;

/// Creates servers and clients of the transport.
#[derive(Clone, Copy, Debug, Default)]
pub struct TransportKit;

impl Kit for TransportKit {
    type Judge = TransportJudge;

    fn judge(&self, scenario: &Scenario) -> TransportJudge {
        TransportJudge::new(ring(scenario.secret, LAST_STAGE))
    }

    fn server(&self, scenario: &Scenario, plan: ServerPlan, boot: Boot) -> Box<dyn Node> {
        let config = ServerConfig {
            server_id: plan.id,
            site_id: 1,
            mtu: SERVER_MTU,
        };
        Box::new(ServerNode {
            server: Server::new(config, ring(scenario.secret, boot.stage)),
            app: SlowObjects::new(scenario.thinks),
            out: VecDeque::new(),
        })
    }

    fn client(&self, scenario: &Scenario, plan: &ClientPlan, _boot: Boot) -> Box<dyn Node> {
        match plan.cheats {
            true => Box::new(Adversary::new(plan, ring(scenario.secret, LAST_STAGE))),
            false => Box::new(ClientNode::new(plan)),
        }
    }

    fn longest_backoff(&self) -> Duration {
        LONGEST_BACKOFF
    }
}

/// Builds the key ring of a cluster at a stage of its rotation; see [`LAST_STAGE`].
pub(super) fn ring(secret: u64, stage: u8) -> KeyRing {
    let mut dice = Dice::new(secret);
    let [first, second] = [(); 2].map(|()| {
        let mut bytes = [0; SECRET_BYTES];
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&dice.seed().to_be_bytes());
        }
        bytes
    });
    let entries = match stage {
        0 => vec![(1, Role::Active, first)],
        1 => vec![(1, Role::Active, first), (2, Role::Staged, second)],
        _ => vec![(2, Role::Active, second), (1, Role::Retiring, first)],
    };
    match KeyRing::new(&entries) {
        Ok(ring) => ring,
        Err(_) => unreachable!("one generation is active and all differ"),
    }
}

/// MTU of a server's device, in bytes.
const SERVER_MTU: u16 = 1500;

/// Longest back-off of the retransmission timer of `transport::client`.
const LONGEST_BACKOFF: Duration = Duration::from_secs(3);

struct ServerNode {
    server: Server,
    app: SlowObjects,
    out: VecDeque<Flight>,
}

impl Machine for ServerNode {
    fn handle_packet(&mut self, now: Now, packet: &[u8], _segment: Option<usize>) {
        let Ok(Some(datagram)) = parse_udp(packet) else {
            return;
        };
        let (path, payload) = (datagram.path, datagram.payload);
        self.app.advance(now.instant);
        let answer = self.server.respond(now, path, payload, &mut self.app);
        self.out.extend(answer);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.app.advance(now.instant);
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        if let Some(flight) = self.out.pop_front() {
            return Some(Transmit::Flight(flight));
        }
        while let Some(ticket) = self.app.poll_ready() {
            self.server.wake(ticket);
        }
        let parked = self.server.poll_parked(now, &mut self.app);
        parked.map(Transmit::Flight)
    }

    fn poll_timeout(&mut self, _now: Now) -> Option<(Instant, &'static str)> {
        self.app.poll_timeout().map(|at| (at, "application"))
    }
}

impl Node for ServerNode {
    fn soft_state_bytes(&self) -> Option<usize> {
        Some(self.server.soft_state_bytes())
    }

    fn refused(&self) -> Option<&'static str> {
        let drops = self.server.counters().drops();
        let mut reasons = drops.iter().map(|(reason, _)| *reason);
        reasons.find(|reason| !EXCUSED.contains(reason))
    }
}

/// Legitimate rejections of honest clients: networks duplicate packets, and servers' clocks differ.
const EXCUSED: [&str; 4] = ["replayed", "too_often", "too_soon", "ahead_of_time"];

/// The phase of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientPhase {
    /// Pauses until then, and requests its next object.
    Resting(Instant),
    /// Fetches an object; the number of bytes read so far.
    Fetching(Object, u64),
    /// Has finished.
    Done,
}

struct ClientNode {
    client: Client,
    plan: ClientPlan,
    /// Objects not yet requested.
    left: VecDeque<Object>,
    phase: ClientPhase,
    read_at: Instant,
    progress: ClientProgress,
}

impl ClientNode {
    fn new(plan: &ClientPlan) -> Self {
        let config = ClientConfig {
            local: plan.local,
            remote: plan.remote,
            mtu: plan.mtu,
            buffer: plan.buffer,
            idle_timeout: IDLE_TIMEOUT,
            token: None,
        };
        Self {
            client: Client::new(config, plan.seed),
            plan: plan.clone(),
            left: plan.objects.clone().into(),
            phase: ClientPhase::Resting(Instant::ZERO),
            read_at: Instant::ZERO,
            progress: ClientProgress {
                wanted: plan.wanted(),
                ..ClientProgress::default()
            },
        }
    }

    /// Performs the due steps of the plan.
    fn advance(&mut self, now: Now) {
        if let ClientPhase::Resting(until) = self.phase
            && until <= now.instant
        {
            match self.left.pop_front() {
                Some(object) => {
                    self.phase = ClientPhase::Fetching(object, 0);
                    self.read_at = now.instant;
                    self.client.request(now, &object.request());
                }
                None => self.phase = ClientPhase::Done,
            }
        }
        if let ClientPhase::Fetching(object, position) = self.phase
            && self.read_at <= now.instant
        {
            let position = self.read(now, object, position);
            self.phase = ClientPhase::Fetching(object, position);
        }
        while let Some(event) = self.client.poll_event() {
            self.handle_event(now, event);
        }
    }

    fn read(&mut self, now: Now, object: Object, mut position: u64) -> u64 {
        let (most, pause) = match self.plan.reader {
            Reader::Greedy => (usize::MAX, Duration::ZERO),
            Reader::Slow { bytes, every } => (bytes, every),
        };
        let mut left = most;
        let mut buffer = [0; 16_384];
        loop {
            let (room, _) = buffer.split_at_mut(left.min(16_384));
            let count = self.client.read(now, room);
            let (bytes, _) = room.split_at(count.min(room.len()));
            let wrong = object.first_difference(position, bytes);
            self.progress.wrong = self.progress.wrong.or(wrong);
            let read = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            position += read;
            self.progress.received += read;
            left -= bytes.len();
            if count == 0 || left == 0 {
                break;
            }
        }
        if most != left && pause > Duration::ZERO {
            self.read_at = now.instant + pause;
        }
        position
    }

    fn handle_event(&mut self, now: Now, event: ClientEvent) {
        match (event, self.phase) {
            (ClientEvent::Began { length }, ClientPhase::Fetching(object, _)) => {
                let other = length.is_some_and(|length| length != object.length);
                let wrong = other.then_some(object.length);
                self.progress.wrong = self.progress.wrong.or(wrong);
            }
            (ClientEvent::Finished, ClientPhase::Fetching(object, position)) => {
                let wrong = (position != object.length).then_some(position);
                self.progress.wrong = self.progress.wrong.or(wrong);
                self.phase = match self.left.is_empty() {
                    true => ClientPhase::Done,
                    false => ClientPhase::Resting(now.instant + self.plan.pause),
                };
            }
            (ClientEvent::Changed | ClientEvent::TimedOut, _) => self.progress.gave_up = true,
            (
                ClientEvent::Connected
                | ClientEvent::Readable
                | ClientEvent::Began { .. }
                | ClientEvent::Finished,
                _,
            ) => {}
        }
    }
}

impl Machine for ClientNode {
    fn handle_packet(&mut self, now: Now, packet: &[u8], _segment: Option<usize>) {
        let Ok(Some(datagram)) = parse_udp(packet) else {
            return;
        };
        self.client
            .handle_datagram(now, datagram.path, datagram.ecn, datagram.payload);
        self.advance(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        if self
            .client
            .poll_timeout()
            .is_some_and(|(at, _)| at <= now.instant)
        {
            self.client.handle_timeout(now);
        }
        self.advance(now);
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        // The first turn comes without a packet or a timeout.
        if self.phase == ClientPhase::Resting(Instant::ZERO) {
            self.advance(now);
        }
        self.client.poll_transmit(now).map(Transmit::Flight)
    }

    fn poll_timeout(&mut self, _now: Now) -> Option<(Instant, &'static str)> {
        let own = match self.phase {
            ClientPhase::Resting(until) => Some((until, "rest")),
            ClientPhase::Fetching(..) if self.client.readable() => Some((self.read_at, "read")),
            ClientPhase::Fetching(..) | ClientPhase::Done => None,
        };
        self.client.poll_timeout().into_iter().chain(own).min()
    }
}

impl Node for ClientNode {
    fn progress(&self) -> Option<ClientProgress> {
        let fetching = matches!(self.phase, ClientPhase::Fetching(..));
        Some(ClientProgress {
            done: self.phase == ClientPhase::Done,
            waiting: fetching && !self.client.readable(),
            handshakes: self.client.stats().handshakes,
            ..self.progress
        })
    }
}

/// Longer than any world: a client never gives up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1_000_000);
