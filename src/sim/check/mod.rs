//! An observer that knows everything and checks the transport's laws at every step.
//!
//! In: every datagram between machines and links, as a [`Judge`] that has the cluster's keys reads
//! it, and how far each client has come. Out: the first [`Violation`]. It takes no part: nothing in
//! the world depends on it. Laws: bytes are the object's; a server releases only numbers inside the
//! bound of its send edge, in answer to a claim whose every number was really delivered; each number
//! once a server between two boots (timeouts and restarts excepted), with the same proof whoever
//! sends it; stalls and transfers end in time; servers' memory stays as it was; one handshake does,
//! unless the service was silent.

mod numbers;
mod patience;

use std::collections::BTreeMap;
use std::time::Duration;

use numbers::Numbers;
pub use patience::Path;

use super::world::{ClientProgress, Livelock, Node, NodeId, Observer};
use crate::link::LinkConfigError;
use crate::time::Instant;
use crate::wire::flight::UdpPath;
use crate::wire::segment::Span;

/// What a request entitles to, as one who has the keys reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The connection; `None` if the answer is to name it.
    pub connection: Option<u64>,
    /// Every number that the request's proof says was received.
    pub proven: Vec<Span>,
    /// The numbers its interval releases: none for a probe.
    pub allowed: Span,
    /// Whether the replay filter stands between it and its numbers.
    pub once: bool,
    /// What no honest client shows: such a request must not be granted anything.
    pub excess: Option<Excess>,
}

/// How a request exceeds what the bound of the send edge excepts from proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// The interval lies outside the epoch or zone, or holds what is not proven.
    #[error("an interval outside its epoch, or not proven")]
    Interval,
    /// Too many numbers or stretches are pending, or some for too long.
    #[error("more pending than allowed")]
    Pending,
    /// Less than a quarter of what is acknowledged since the event is proven.
    #[error("less than a quarter proven since the event")]
    Quarter,
    /// The curve is further ahead of real time than clocks may differ and the gate allows.
    #[error("a window ahead of its time")]
    Ahead,
    /// The declaration is no transition of the epoch.
    #[error("an impossible declaration")]
    Declaration,
}

/// What a datagram from a server gives away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The connection.
    pub connection: u64,
    /// The packet number, and those after it that are void.
    pub numbers: Span,
    /// The proof that it carries.
    pub x: u64,
}

/// Reads the protocol's datagrams; has the keys of the cluster.
pub trait Judge {
    /// What a datagram to a server claims, or `None` if it is not one that may be answered with
    /// numbers.
    fn claim(&self, now: Instant, path: UdpPath, payload: &[u8]) -> Option<Claim>;

    /// What a datagram to a client grants, or `None` if it has no number.
    fn grant(&self, payload: &[u8]) -> Option<Grant>;
}

/// The law that was broken, by whom, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The client's stream differs from the object.
    #[error("client {}: wrong byte at {offset}", client.0)]
    WrongBytes {
        /// Who received it.
        client: NodeId,
        /// Where in its object.
        offset: u64,
    },
    /// A server released a number outside what the request entitles to.
    #[error("server {}: number {number} of connection {connection:#x} is outside {allowed:?}", server.0)]
    OutOfBound {
        /// Who released it.
        server: NodeId,
        /// Whose number.
        connection: u64,
        /// Which.
        number: u64,
        /// What the request entitles to.
        allowed: Span,
    },
    /// A server accepted a proof of a number that never arrived.
    #[error("server {}: accepted a proof of number {number} of connection {connection:#x}, which never arrived", server.0)]
    Unproven {
        /// Who accepted it.
        server: NodeId,
        /// Whose number.
        connection: u64,
        /// Which.
        number: u64,
    },
    /// A server granted what no honest client asks for.
    #[error("server {}: granted number {number} of connection {connection:#x} to {excess}", server.0)]
    Excess {
        /// Who granted it.
        server: NodeId,
        /// Whose number.
        connection: u64,
        /// Which.
        number: u64,
        /// What should have been refused.
        excess: Excess,
    },
    /// A server released a number twice between two boots.
    #[error("server {}: released number {number} of connection {connection:#x} twice", server.0)]
    Twice {
        /// Who released it.
        server: NodeId,
        /// Whose number.
        connection: u64,
        /// Which.
        number: u64,
    },
    /// Two packets of one number carry different proofs.
    #[error("server {}: another proof for number {number} of connection {connection:#x}", server.0)]
    OtherProof {
        /// Who released the later one.
        server: NodeId,
        /// Whose number.
        connection: u64,
        /// Which.
        number: u64,
    },
    /// A server released a number without having been asked by a valid request.
    #[error("server {}: released number {number} of connection {connection:#x} unasked", server.0)]
    Unasked {
        /// Who released it.
        server: NodeId,
        /// Whose number.
        connection: u64,
        /// Which.
        number: u64,
    },
    /// A client received nothing for longer than the path excuses.
    #[error("client {}: stood still for {stalled:?}, {allowed:?} would be excused", client.0)]
    Stalled {
        /// Who.
        client: NodeId,
        /// How long.
        stalled: Duration,
        /// How long it might have been.
        allowed: Duration,
    },
    /// A client gave up.
    #[error("client {}: gave up after {received} of {wanted} bytes", client.0)]
    GaveUp {
        /// Who.
        client: NodeId,
        /// Bytes it had.
        received: u64,
        /// Bytes it wanted.
        wanted: u64,
    },
    /// A client was not done in time after all faults had stopped.
    #[error("client {}: not done in time after the faults: {received} of {wanted} bytes", client.0)]
    Unfinished {
        /// Who.
        client: NodeId,
        /// Bytes it had.
        received: u64,
        /// Bytes it wanted.
        wanted: u64,
    },
    /// A server holds more, or less, memory for its clients than when it booted.
    #[error("server {}: {is} bytes of soft state, {was} at boot", server.0)]
    Memory {
        /// Who.
        server: NodeId,
        /// Bytes at boot.
        was: usize,
        /// Bytes now.
        is: usize,
    },
    /// A server refused a request, although every client is honest.
    #[error("server {}: refused an honest request: {reason}", server.0)]
    Refused {
        /// Who.
        server: NodeId,
        /// Its reason.
        reason: &'static str,
    },
    /// A client opened more connections than the silences of the service explain.
    #[error("client {}: {handshakes} handshakes with {silences} silences", client.0)]
    Handshakes {
        /// Who.
        client: NodeId,
        /// How many.
        handshakes: u64,
        /// Stretches of [`LEAST_SILENCE`] without a new packet.
        silences: u64,
    },
    /// The world could not be built: a link is out of its bounds.
    #[error(transparent)]
    Unbuildable(#[from] LinkConfigError),
    /// The world stands still.
    #[error(transparent)]
    Livelock(#[from] Livelock),
}

/// Without a new packet for this long a client may think the service has forgotten it: three
/// retransmission timeouts of the least length.
pub const LEAST_SILENCE: Duration = Duration::from_millis(600);

/// What the checker must know of a client beforehand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The client.
    pub client: NodeId,
    /// Bytes that it is to fetch.
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
    violation: Option<(Instant, Violation)>,
    longest_stall: Duration,
}

struct Client {
    path: Path,
    seen: ClientProgress,
    waiting_since: Option<Instant>,
    last_new: Instant,
    silences: u64,
    /// When it must be done; set once all faults have stopped.
    due: Option<Instant>,
}

#[derive(Default)]
struct Server {
    claim: Option<Claim>,
    sent: BTreeMap<u64, Numbers>,
    memory: Option<usize>,
}

#[derive(Default)]
struct CheckedConnection {
    arrived: Numbers,
    proofs: BTreeMap<(u64, u64), u64>,
}

impl<J: Judge> Checker<J> {
    /// A checker of a world whose faults all stop at `healed`; `honest` if no client cheats.
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
            violation: None,
            longest_stall: Duration::ZERO,
        }
    }

    /// The first violation and its time, if there was one.
    #[must_use]
    pub const fn violation(&self) -> Option<(Instant, Violation)> {
        self.violation
    }

    /// The longest time any client waited for its next bytes.
    #[must_use]
    pub const fn longest_stall(&self) -> Duration {
        self.longest_stall
    }

    /// How far every client has come.
    pub fn progress(&self) -> impl Iterator<Item = (NodeId, ClientProgress)> {
        self.clients.iter().map(|(id, client)| (*id, client.seen))
    }

    /// Whether every client is done.
    #[must_use]
    pub fn all_done(&self) -> bool {
        self.clients.values().all(|client| client.seen.done)
    }

    /// Notes a livelock, or that nothing will ever happen again although someone is not done.
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

    /// Checks what only the passing of time breaks; to be called when time has gone on.
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
            let path = &client.path;
            let due = client
                .due
                .get_or_insert_with(|| path.finishes(healed, since, left));
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
        let claim = state.claim.as_ref();
        let of_this = |claim: &&Claim| claim.connection.is_none_or(|id| id == connection);
        let Some(claim) = claim.filter(of_this) else {
            return Err(Violation::Unasked {
                server,
                connection,
                number,
            });
        };
        check_claim(server, claim, known, grant)?;
        let sent = state.sent.entry(connection).or_default();
        // Void numbers behind `number` may be granted again: they carry nothing.
        let fresh = sent.insert(Span {
            start: number,
            end: number + 1,
        });
        if claim.once && !fresh {
            return Err(Violation::Twice {
                server,
                connection,
                number,
            });
        }
        let first = *known.proofs.entry((number, numbers.end)).or_insert(x);
        if first != x {
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
            let excused = client.path.stall_ends(since);
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
            client.waiting_since = is.waiting.then_some(now);
        } else if client.waiting_since.is_none() {
            client.waiting_since = Some(now);
        }
        Ok(())
    }
}

/// Whether a claim was one to be granted, and to these numbers.
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
            let claim = self.judge.claim(now, path, payload);
            self.servers.entry(node).or_default().claim = claim;
            return;
        };
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

    fn released(&mut self, now: Instant, node: NodeId, _path: UdpPath, payload: &[u8]) {
        if self.clients.contains_key(&node) {
            return;
        }
        if let Some(grant) = self.judge.grant(payload)
            && let Err(violation) = self.check_grant(node, grant)
        {
            self.accuse(now, violation);
        }
    }

    fn turned(&mut self, now: Instant, node: NodeId, machine: &dyn Node) {
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
