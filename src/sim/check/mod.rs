//! An omniscient observer that checks the transport's laws at every step.
//!
//! In: every datagram between machines and links, as parsed by a [`Judge`] with the cluster's keys,
//! and the progress of each client. Out: the first [`Violation`]. It is passive: nothing in the
//! world depends on it. Laws: bytes are the object's; a server sends only numbers inside the bound
//! of its send edge, in reply to a claim whose every number was really delivered; a server sends
//! each number once between two boots (timeouts and restarts excepted), and all servers send it
//! with the same proof; no address whose holder receives nothing is sent more than three times the
//! bytes that come in its name; stalls and transfers end in time; servers' memory stays constant; one
//! handshake suffices, unless the service was silent.

mod lost;
mod numbers;
mod patience;
mod towards;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use lost::Lost;
use numbers::Numbers;
pub use patience::Path;

use towards::Towards;

use super::world::{ClientProgress, Livelock, Node, NodeId, Observer};
use crate::link::LinkConfigError;
use crate::time::Instant;
use crate::wire::flight::UdpPath;
use crate::wire::segment::Span;

/// The entitlement of a request, according to the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The connection; `None` if the reply names it.
    pub connection: Option<u64>,
    /// Every number whose receipt the request proves.
    pub proven: Vec<Span>,
    /// The numbers of its interval: none for a probe.
    pub allowed: Span,
    /// Whether the replay filter applies to its numbers.
    pub once: bool,
    /// The claim that no honest client makes: such a request must be granted nothing.
    pub excess: Option<Excess>,
}

/// The way in which a request exceeds the unproven part that the bound of the send edge allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// The interval lies outside the epoch or zone, or contains unproven numbers.
    #[error("an interval outside its epoch, or not proven")]
    Interval,
    /// Too many numbers or ranges are pending, or some for too long.
    #[error("more pending than allowed")]
    Pending,
    /// Less than a quarter of the numbers acknowledged since the event is proven.
    #[error("less than a quarter proven since the event")]
    Quarter,
    /// A loss is passed over by an event that forgives none.
    #[error("a loss forgiven by CE, exit or restart")]
    Forgiven,
    /// The curve is further ahead than the time that the continuation pays for.
    #[error("a window ahead of its time")]
    Ahead,
    /// The declaration is not a transition of the epoch.
    #[error("an impossible declaration")]
    Declaration,
}

/// The content of a server's datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The connection.
    pub connection: u64,
    /// The packet number, and those after it that are void.
    pub numbers: Span,
    /// The proof that it carries.
    pub x: u64,
}

/// Parses the protocol's datagrams, with the cluster's keys.
pub trait Judge {
    /// Returns the claim of a datagram to a server; `None` if it must not be answered with numbers.
    fn claim(&self, now: Instant, path: UdpPath, payload: &[u8]) -> Option<Claim>;

    /// Returns the grant of a datagram to a client; `None` if it has no number.
    fn grant(&self, payload: &[u8]) -> Option<Grant>;

    /// Most bytes for each byte that comes from an address whose holder has received nothing lately;
    /// `None`: the protocol has no such bound.
    fn amplification(&self) -> Option<usize> {
        None
    }

    /// Returns the connection of a datagram that asks a client to wait, and the first number that it is to
    /// wait for.
    fn wait(&self, _payload: &[u8]) -> Option<(u64, u64)> {
        None
    }
}

/// The violated law, with its culprit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The client's stream differs from the object.
    #[error("client {}: wrong byte at {offset}", client.0)]
    WrongBytes {
        /// The receiver.
        client: NodeId,
        /// Offset in its object.
        offset: u64,
    },
    /// A server sent a number outside the request's entitlement.
    #[error("server {}: number {number} of connection {connection:#x} is outside {allowed:?}", server.0)]
    OutOfBound {
        /// The sender.
        server: NodeId,
        /// The connection.
        connection: u64,
        /// The number.
        number: u64,
        /// The request's entitlement.
        allowed: Span,
    },
    /// A server accepted a proof of a number that never arrived.
    #[error("server {}: accepted a proof of number {number} of connection {connection:#x}, which never arrived", server.0)]
    Unproven {
        /// The server that accepted it.
        server: NodeId,
        /// The connection.
        connection: u64,
        /// The number.
        number: u64,
    },
    /// A server granted a claim that no honest client makes.
    #[error("server {}: granted number {number} of connection {connection:#x} to {excess}", server.0)]
    Excess {
        /// The server that granted it.
        server: NodeId,
        /// The connection.
        connection: u64,
        /// The number.
        number: u64,
        /// The claim to reject.
        excess: Excess,
    },
    /// A server sent a number twice between two boots.
    #[error("server {}: released number {number} of connection {connection:#x} twice", server.0)]
    Twice {
        /// The sender.
        server: NodeId,
        /// The connection.
        connection: u64,
        /// The number.
        number: u64,
    },
    /// Two packets of one number carry different proofs.
    #[error("server {}: another proof for number {number} of connection {connection:#x}", server.0)]
    OtherProof {
        /// The sender of the later one.
        server: NodeId,
        /// The connection.
        connection: u64,
        /// The number.
        number: u64,
    },
    /// A server sent a number without a valid request.
    #[error("server {}: released number {number} of connection {connection:#x} unsolicited", server.0)]
    Unsolicited {
        /// The sender.
        server: NodeId,
        /// The connection.
        connection: u64,
        /// The number.
        number: u64,
    },
    /// A client received nothing for longer than its path justifies.
    #[error("client {}: stalled for {stalled:?}, at most {allowed:?} allowed", client.0)]
    Stalled {
        /// The client.
        client: NodeId,
        /// Length of the stall.
        stalled: Duration,
        /// The longest stall allowed.
        allowed: Duration,
    },
    /// A client gave up.
    #[error("client {}: gave up after {received} of {wanted} bytes", client.0)]
    GaveUp {
        /// The client.
        client: NodeId,
        /// Bytes received.
        received: u64,
        /// Bytes of its objects.
        wanted: u64,
    },
    /// A client did not finish in time after the end of all faults.
    #[error("client {}: not finished in time after the faults: {received} of {wanted} bytes", client.0)]
    Unfinished {
        /// The client.
        client: NodeId,
        /// Bytes received.
        received: u64,
        /// Bytes of its objects.
        wanted: u64,
    },
    /// A server's memory for clients differs from that at boot.
    #[error("server {}: {is} bytes of soft state, {was} at boot", server.0)]
    Memory {
        /// The server.
        server: NodeId,
        /// Bytes at boot.
        was: usize,
        /// Bytes now.
        is: usize,
    },
    /// Servers sent an address more than it may draw whose holder has received nothing lately.
    #[error("{to}: sent {sent} bytes for {came} that came, and its holder receives nothing")]
    Amplified {
        /// The address.
        to: SocketAddr,
        /// Bytes that came in its name.
        came: usize,
        /// Bytes sent to it.
        sent: usize,
    },
    /// A server rejected a request although every client is honest.
    #[error("server {}: refused an honest request: {reason}", server.0)]
    Refused {
        /// The server.
        server: NodeId,
        /// Its reason.
        reason: &'static str,
    },
    /// A client opened more connections than the silences of the service justify.
    #[error("client {}: {handshakes} handshakes with {silences} silences", client.0)]
    Handshakes {
        /// The client.
        client: NodeId,
        /// The number of connections.
        handshakes: u64,
        /// Intervals of [`LEAST_SILENCE`] without a new packet.
        silences: u64,
    },
    /// The world is not valid: a link exceeds its bounds.
    #[error(transparent)]
    Unbuildable(#[from] LinkConfigError),
    /// Time does not advance.
    #[error(transparent)]
    Livelock(#[from] Livelock),
}

/// Silence after which a client may presume that the service has lost it: three retransmission
/// timeouts of minimum length.
pub const LEAST_SILENCE: Duration = Duration::from_millis(600);

/// The checker's knowledge of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The client.
    pub client: NodeId,
    /// Bytes of its objects.
    pub wanted: u64,
    /// Its path and plan.
    pub path: Path,
}

/// The checker.
pub struct Checker<J> {
    judge: J,
    healed: Instant,
    honest: bool,
    clients: BTreeMap<NodeId, Client>,
    servers: BTreeMap<NodeId, Server>,
    connections: BTreeMap<u64, CheckedConnection>,
    towards: Towards,
    violation: Option<(Instant, Violation)>,
    longest_stall: Duration,
}

struct Client {
    path: Path,
    seen: ClientProgress,
    waiting_since: Option<Instant>,
    last_new: Instant,
    silences: u64,
    lost: Lost,
    /// Whether it takes the packets that reach its address.
    receives: bool,
    /// The deadline of all clients; set at the end of all faults.
    due: Option<Instant>,
}

#[derive(Default)]
struct Server {
    claim: Option<Claim>,
    /// The claims of requests that wait, by connection and first number.
    parked: BTreeMap<(u64, u64), Claim>,
    sent: BTreeMap<u64, Numbers>,
    memory: Option<usize>,
}

#[derive(Default)]
struct CheckedConnection {
    arrived: Numbers,
    proofs: BTreeMap<(u64, u64), u64>,
}

impl<J: Judge> Checker<J> {
    /// Creates a checker of a world whose faults all stop at `healed`; `honest` if no client
    /// cheats.
    #[must_use]
    pub fn new(judge: J, healed: Instant, honest: bool, clients: Vec<Watched>) -> Self {
        let client = |watched: Watched| {
            let client = Client {
                path: watched.path,
                seen: ClientProgress {
                    wanted: watched.wanted,
                    ..ClientProgress::default()
                },
                waiting_since: None,
                last_new: Instant::ZERO,
                silences: 0,
                lost: Lost::default(),
                receives: true,
                due: None,
            };
            (watched.client, client)
        };
        Self {
            judge,
            healed,
            honest,
            clients: clients.into_iter().map(client).collect(),
            servers: BTreeMap::new(),
            connections: BTreeMap::new(),
            towards: Towards::default(),
            violation: None,
            longest_stall: Duration::ZERO,
        }
    }

    /// The first violation and its time, if any.
    #[must_use]
    pub const fn violation(&self) -> Option<(Instant, Violation)> {
        self.violation
    }

    /// The longest wait of any client for its next bytes.
    #[must_use]
    pub const fn longest_stall(&self) -> Duration {
        self.longest_stall
    }

    /// Returns the progress of every client.
    pub fn progress(&self) -> impl Iterator<Item = (NodeId, ClientProgress)> {
        self.clients.iter().map(|(id, client)| (*id, client.seen))
    }

    /// Whether every client has finished.
    #[must_use]
    pub fn all_done(&self) -> bool {
        self.clients.values().all(|client| client.seen.done)
    }

    /// Records a livelock, or the end of all events before every client has finished.
    pub fn ended(&mut self, now: Instant, livelock: Option<Livelock>) {
        if let Some(livelock) = livelock {
            self.accuse(now, livelock.into());
        }
        let late = self.clients.iter().find(|(_, client)| !client.seen.done);
        if let Some((&client, state)) = late {
            let ClientProgress {
                received, wanted, ..
            } = state.seen;
            self.accuse(
                now,
                Violation::Unfinished {
                    client,
                    received,
                    wanted,
                },
            );
        }
    }

    /// Checks deadlines; to be called when time has advanced.
    pub fn passed(&mut self, now: Instant) {
        if now < self.healed {
            return;
        }
        let healed = self.healed;
        let late = self.clients.iter_mut().find_map(|(id, client)| {
            let ClientProgress {
                received,
                wanted,
                done,
                ..
            } = client.seen;
            let left = wanted.saturating_sub(received);
            let since = client
                .waiting_since
                .map_or(healed, |since| since.min(healed));
            let (path, lost) = (&client.path, client.lost.count());
            let due = client
                .due
                .get_or_insert_with(|| path.finishes(healed, since, left, lost));
            let client = *id;
            (!done && now > *due).then_some(Violation::Unfinished {
                client,
                received,
                wanted,
            })
        });
        if let Some(violation) = late {
            self.accuse(now, violation);
        }
    }

    fn accuse(&mut self, now: Instant, violation: Violation) {
        self.violation.get_or_insert((now, violation));
    }

    fn check_grant(&mut self, server: NodeId, grant: Grant) -> Result<(), Violation> {
        let Grant {
            connection,
            numbers,
            x,
        } = grant;
        let number = numbers.start;
        let state = self.servers.entry(server).or_default();
        let known = self.connections.entry(connection).or_default();
        let sent = state.sent.entry(connection).or_default();
        // Void numbers after `number` may be granted again: they carry nothing.
        let fresh = sent.insert(Span {
            start: number,
            end: number + 1,
        });
        let of_this = |claim: &&Claim| claim.connection.is_none_or(|id| id == connection);
        let covers =
            |claim: &&Claim| claim.allowed.start <= number && numbers.end <= claim.allowed.end;
        // The answer to a request that has waited comes later, perhaps after that to another one for the
        // same numbers: one of the claims must entitle to it.
        let parked = state.parked.range((connection, 0)..=(connection, number));
        let parked = parked.map(|(_, claim)| claim).filter(covers);
        let claims = state
            .claim
            .as_ref()
            .filter(of_this)
            .into_iter()
            .chain(parked);
        let mut checks = claims.map(|claim| {
            check_claim(server, claim, known, grant)?;
            match claim.once && !fresh {
                true => Err(Violation::Twice {
                    server,
                    connection,
                    number,
                }),
                false => Ok(()),
            }
        });
        let unsolicited = Err(Violation::Unsolicited {
            server,
            connection,
            number,
        });
        let first = checks.next().unwrap_or(unsolicited);
        if first.is_err() && !checks.any(|check| check.is_ok()) {
            return first;
        }
        let proof = *known.proofs.entry((number, numbers.end)).or_insert(x);
        if proof != x {
            return Err(Violation::OtherProof {
                server,
                connection,
                number,
            });
        }
        Ok(())
    }

    fn check_progress(
        &mut self,
        now: Instant,
        id: NodeId,
        is: ClientProgress,
    ) -> Result<(), Violation> {
        let Some(client) = self.clients.get_mut(&id) else {
            return Ok(());
        };
        let was = std::mem::replace(&mut client.seen, is);
        if let Some(offset) = is.wrong {
            return Err(Violation::WrongBytes { client: id, offset });
        }
        if is.gave_up {
            let ClientProgress {
                received, wanted, ..
            } = is;
            return Err(Violation::GaveUp {
                client: id,
                received,
                wanted,
            });
        }
        let silent = now.saturating_since(client.last_new) >= LEAST_SILENCE;
        let silences = client.silences + u64::from(silent);
        if is.handshakes > 1 + silences {
            let handshakes = is.handshakes;
            return Err(Violation::Handshakes {
                client: id,
                handshakes,
                silences,
            });
        }
        let moved = is.received > was.received || !is.waiting;
        if let Some(since) = client.waiting_since
            && moved
        {
            let stalled = now.saturating_since(since);
            self.longest_stall = self.longest_stall.max(stalled);
            let excused = client.path.stall_ends(since, client.lost.count());
            if now > excused {
                let allowed = excused.saturating_since(since);
                return Err(Violation::Stalled {
                    client: id,
                    stalled,
                    allowed,
                });
            }
        }
        if moved {
            client.lost.progressed();
            client.waiting_since = is.waiting.then_some(now);
        } else if client.waiting_since.is_none() {
            client.waiting_since = Some(now);
        }
        Ok(())
    }
}

/// Checks whether a claim may be granted, and to these numbers.
fn check_claim(
    server: NodeId,
    claim: &Claim,
    known: &CheckedConnection,
    grant: Grant,
) -> Result<(), Violation> {
    let Grant {
        connection,
        numbers,
        ..
    } = grant;
    let number = numbers.start;
    if let Some(excess) = claim.excess {
        return Err(Violation::Excess {
            server,
            connection,
            number,
            excess,
        });
    }
    let allowed = claim.allowed;
    if number < allowed.start || numbers.end > allowed.end {
        let number = if number < allowed.start {
            number
        } else {
            numbers.end - 1
        };
        return Err(Violation::OutOfBound {
            server,
            connection,
            number,
            allowed,
        });
    }
    let missing = |span: &Span| known.arrived.first_missing(*span);
    match claim.proven.iter().find_map(missing) {
        Some(number) => Err(Violation::Unproven {
            server,
            connection,
            number,
        }),
        None => Ok(()),
    }
}

impl<J: Judge> Observer for Checker<J> {
    fn delivered(&mut self, now: Instant, node: NodeId, path: UdpPath, payload: &[u8]) {
        let Some(client) = self.clients.get_mut(&node) else {
            self.towards.came(path.src, payload.len());
            for client in self.clients.values_mut() {
                client.lost.came(path.src);
            }
            let claim = self.judge.claim(now, path, payload);
            self.servers.entry(node).or_default().claim = claim;
            return;
        };
        if !client.receives {
            return;
        }
        client.lost.received();
        self.towards.received(now, path.dst);
        if let Some(grant) = self.judge.grant(payload) {
            let connection = self.connections.entry(grant.connection).or_default();
            if connection.arrived.insert(grant.numbers) {
                if now.saturating_since(client.last_new) >= LEAST_SILENCE {
                    client.silences += 1;
                }
                client.last_new = now;
            }
        }
    }

    fn released(&mut self, now: Instant, node: NodeId, path: UdpPath, payload: &[u8]) {
        if let Some(client) = self.clients.get_mut(&node) {
            client.lost.sent(now, path.src);
            return;
        }
        for client in self.clients.values_mut() {
            client.lost.answered(path.dst);
        }
        let (came, sent) = self.towards.sent(now, path.dst, payload.len());
        let most = self.judge.amplification();
        if most.is_some_and(|most| sent > most * came) {
            let to = path.dst;
            self.accuse(now, Violation::Amplified { to, came, sent });
        }
        if let Some(flight) = self.judge.wait(payload) {
            let server = self.servers.entry(node).or_default();
            server
                .parked
                .extend(server.claim.clone().map(|claim| (flight, claim)));
        }
        if let Some(grant) = self.judge.grant(payload)
            && let Err(violation) = self.check_grant(node, grant)
        {
            self.accuse(now, violation);
        }
    }

    fn turned(&mut self, now: Instant, node: NodeId, machine: &dyn Node) {
        if let Some(client) = self.clients.get_mut(&node) {
            client.receives = machine.receives();
        }
        if let Some(progress) = machine.progress()
            && let Err(violation) = self.check_progress(now, node, progress)
        {
            self.accuse(now, violation);
        }
        if self.honest
            && let Some(reason) = machine.refused()
        {
            let server = node;
            self.accuse(now, Violation::Refused { server, reason });
        }
        let Some(is) = machine.soft_state_bytes() else {
            return;
        };
        let server = self.servers.entry(node).or_default();
        let was = *server.memory.get_or_insert(is);
        if was != is {
            self.accuse(
                now,
                Violation::Memory {
                    server: node,
                    was,
                    is,
                },
            );
        }
    }

    fn forgot(&mut self, _now: Instant, node: NodeId) {
        self.servers.remove(&node);
    }
}
