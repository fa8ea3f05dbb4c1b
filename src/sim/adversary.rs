//! A cheating client of the protocol, to check that its gains stay within the bound of the send
//! edge.
//!
//! In: packets and time, as for any machine; the cluster's keys, with which it reads its
//! continuations (it always guesses right) but never seals. Out: requests, most of them sound
//! enough to get far, the others with hidden or invented losses, forged proofs, invented round
//! trips and edges, the same epoch closed in several ways, timeouts and restarts at every chance,
//! overlapping intervals, continuations and proofs of two connections spliced, requests repeated to
//! every server, replayed much later, truncated, or with flipped bits. It has two addresses, and uses them by
//! turns. Then it leaves both, and sends on from elsewhere; see `departed`. It stops by itself.

mod departed;
mod moves;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use departed::{SENDS_FOR, SILENT_FOR};

use super::dice::Dice;
use super::object::Object;
use super::scenario::ClientPlan;
use super::world::{ClientProgress, Node, START};
use crate::host::{Machine, Transmit};
use crate::time::{Instant, Now, UnixMillis};
use crate::transport::continuation::{Continuation, MAX_AGE};
use crate::transport::curve::{MAX_FLIGHT, MAX_RTT_US};
use crate::transport::epoch::{Declaration, Epoch, TransitionKind};
use crate::transport::keys::KeyRing;
use crate::wire::flight::{Ecn, Flight, UdpPath};
use crate::wire::ip::parse_udp;
use crate::wire::segment::{Declared, Open, Request, Response, Span, ToClient, Wanted};

/// Time for which an adversary sends from an address where it receives.
const STAYS: Duration = Duration::from_secs(4);

/// Time for which an adversary is active.
pub const LASTS: Duration = STAYS.saturating_add(SILENT_FOR).saturating_add(SENDS_FOR);

/// Most datagrams it sends.
const MAX_SENT: u32 = 3000;

/// Past datagrams kept for replay.
const MAX_REMEMBERED: usize = 64;

/// Most connections.
const MAX_CONNECTIONS: usize = 3;

/// Most continuations kept per connection, the newest last.
const MAX_HELD: usize = 6;

/// A cheating client.
pub(super) struct Adversary {
    keys: KeyRing,
    path: UdpPath,
    /// The address that it does not use at present.
    other: SocketAddr,
    size: u16,
    dice: Dice,
    temper: Temper,
    connections: Vec<ObservedConnection>,
    remembered: Vec<Vec<u8>>,
    out: VecDeque<Flight>,
    sent: u32,
    next: Instant,
    /// When it leaves its address, and when it stops.
    leaves: Option<Instant>,
    left: bool,
    ends: Option<Instant>,
}

/// Probabilities of cheating, in percent except for declarations. A client that cheats rarely gets
/// far first.
#[derive(Clone, Copy)]
struct Temper {
    /// Declares false events; per mille.
    declares: u64,
    /// Claims the longest round trip, so that its windows appear to have had time to grow.
    stretches: u32,
    /// Claims false receipts.
    lies: u32,
    /// Continues after a loss without declaring it.
    hides: u32,
    /// Corrupts its datagrams.
    damages: u32,
    /// Goes on from its other address; per mille.
    moves: u64,
}

/// The adversary's view of a connection.
struct ObservedConnection {
    id: u64,
    held: VecDeque<Held>,
    /// Proofs by number, with the last number that each covers.
    proofs: BTreeMap<u64, (u64, u64)>,
    user: Vec<u8>,
}

/// A continuation, with its content and its use so far.
#[derive(Clone)]
struct Held {
    sealed: Vec<u8>,
    epoch: Epoch,
    proof_base: u64,
    edge: u64,
    event: Option<Declaration>,
}

/// The claims of a request; true or false.
struct Show {
    after: u64,
    upto: u64,
    reach: u64,
    proof: u64,
    holes: Vec<Span>,
    declaration: Option<Declaration>,
}

impl Adversary {
    pub(super) fn new(plan: &ClientPlan, keys: KeyRing) -> Self {
        let mut dice = Dice::new(plan.seed);
        Self {
            keys,
            path: UdpPath {
                src: plan.local,
                dst: plan.remote,
            },
            other: plan.second_address(),
            size: plan.mtu - 48,
            temper: Temper {
                declares: dice.magnitude(1, 100),
                stretches: percent(&mut dice, 100),
                lies: percent(&mut dice, 30),
                hides: percent(&mut dice, 100),
                damages: percent(&mut dice, 5),
                moves: dice.magnitude(1, 20),
            },
            dice,
            connections: Vec::new(),
            remembered: Vec::new(),
            out: VecDeque::new(),
            sent: 0,
            next: Instant::ZERO,
            leaves: None,
            left: false,
            ends: None,
        }
    }

    fn is_done(&self) -> bool {
        self.left && self.sent >= MAX_SENT || self.ends == Some(Instant::ZERO)
    }

    /// Sends a request, if one is due.
    fn act(&mut self, now: Now) {
        let leaves = *self.leaves.get_or_insert(now.instant + STAYS);
        let ends = *self.ends.get_or_insert(now.instant + LASTS);
        if now.instant >= leaves && !self.left {
            self.left = true;
            self.sent = 0;
            self.next = now.instant + SILENT_FOR;
        }
        if now.instant >= ends {
            self.ends = Some(Instant::ZERO);
        }
        if self.is_done() || now.instant < self.next {
            return;
        }
        if !self.left && self.sent >= MAX_SENT {
            self.next = leaves;
            return;
        }
        // Silence is to pay for nothing, and to open the gate of a restart.
        self.next = now.instant
            + match self.dice.between(1, 500) {
                1 => SILENCE,
                _ => self.dice.duration(MIN_PAUSE, MAX_PAUSE),
            };
        if self.dice.between(1, 1000) <= self.temper.moves {
            std::mem::swap(&mut self.path.src, &mut self.other);
        }
        let few = self.connections.len() < MAX_CONNECTIONS && self.dice.chance(2);
        let datagram = match self.connections.is_empty() || few {
            true => Some(self.open()),
            false if self.dice.chance(5) => self.replay(),
            false if self.left => self.request_from_afar(),
            false => self.request(),
        };
        if let Some(mut datagram) = datagram {
            if self.dice.chance(self.temper.damages) {
                self.damage(&mut datagram);
            }
            self.remember(&datagram);
            // The same to every server, since packets are sprayed.
            let copies = if self.dice.chance(25) { 4 } else { 1 };
            for _ in 0..copies {
                self.send(datagram.clone());
            }
        }
    }

    fn send(&mut self, datagram: Vec<u8>) {
        self.sent += 1;
        self.out
            .push_back(Flight::single(self.path, Ecn::Ect0, datagram));
    }

    fn open(&mut self) -> Vec<u8> {
        let request = Object {
            seed: self.dice.seed(),
            length: OBJECT_BYTES,
        }
        .request();
        let mut datagram = Vec::new();
        Open {
            echo: self.dice.seed(),
            size: self.size,
            stream: 1,
            token: None,
            wanted: Wanted::New(&request),
            offset: 0,
        }
        .emit(&mut datagram);
        datagram
    }

    fn replay(&mut self) -> Option<Vec<u8>> {
        let index = self.dice.index(self.remembered.len());
        self.remembered.get(index).cloned()
    }

    fn remember(&mut self, datagram: &[u8]) {
        if self.remembered.len() < MAX_REMEMBERED {
            self.remembered.push(datagram.to_vec());
        } else if self.dice.chance(10) {
            let index = self.dice.index(MAX_REMEMBERED);
            if let Some(slot) = self.remembered.get_mut(index) {
                *slot = datagram.to_vec();
            }
        }
    }

    fn damage(&mut self, datagram: &mut Vec<u8>) {
        let at = self.dice.index(datagram.len());
        match self.dice.chance(50) {
            true => datagram.truncate(at),
            false => {
                let bit = 1 << self.dice.index(8);
                if let Some(byte) = datagram.get_mut(at) {
                    *byte ^= bit;
                }
            }
        }
    }

    fn request(&mut self) -> Option<Vec<u8>> {
        let index = self.dice.index(self.connections.len());
        let connection = self.connections.get_mut(index)?;
        let mut show = connection.show(self.temper, &mut self.dice)?;
        if self.dice.chance(self.temper.lies) {
            show.lie(&mut self.dice);
        }
        let (mut id, mut sealed) = (connection.id, connection.sealed(&mut self.dice)?);
        let user = connection.user.clone();
        if self.dice.chance(3) {
            // The continuation of one connection, the id or the proof of another.
            let other = self.dice.index(self.connections.len());
            let other = self.connections.get(other)?;
            match self.dice.chance(50) {
                true => id = other.id,
                false => sealed = other.held.back()?.sealed.clone(),
            }
        }
        let start = self.dice.between(0, OBJECT_BYTES - 1);
        let ranges = vec![Span {
            start,
            end: OBJECT_BYTES,
        }];
        let probe = self.dice.chance(4).then_some(7);
        let declared = show.declaration.map(|declaration| Declared {
            kind: declaration.kind.code(),
            edge: declaration.p,
            rtt_us: declaration.rtt_us,
        });
        let request = Request {
            connection: id,
            size: self.size,
            stream: 1,
            wants_continuation: declared.is_some() || self.dice.chance(10),
            continuation: &sealed,
            after: show.after,
            upto: show.upto,
            reach: show.reach,
            proof: show.proof,
            holes: show.holes,
            declared,
            cookie: None,
            probe,
            ranges,
            wanted: Wanted::Of(&user),
        };
        let mut datagram = Vec::new();
        request.emit(&mut datagram);
        Some(datagram)
    }

    fn learn(&mut self, now: Now, response: &Response<'_>) {
        let id = response.header.connection;
        let known = self.connections.iter().position(|known| known.id == id);
        let index = match known {
            Some(index) => index,
            None if self.connections.len() < MAX_CONNECTIONS => {
                self.connections.push(ObservedConnection::new(id));
                self.connections.len() - 1
            }
            None => return,
        };
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        let number = u64::from(response.header.number);
        let last = number + u64::from(response.header.void);
        connection.proofs.insert(number, (last, response.header.x));
        if let Some(user) = response.user {
            connection.user = user.sealed.to_vec();
        }
        self.hold(now, index, response.continuation);
    }

    fn hold(&mut self, now: Now, index: usize, sealed: &[u8]) {
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        // The clock of the most advanced server; its own may be behind all of them.
        let ahead = UnixMillis::new(now.unix.as_millis().max(START.as_millis()) + 2000);
        let opened = Continuation::open(&self.keys, connection.id, ahead, 2 * MAX_AGE, sealed);
        let Ok((continuation, _)) = opened else {
            return;
        };
        let epoch = continuation.epoch;
        let held = &mut connection.held;
        if let Some(same) = held.iter_mut().find(|held| held.epoch == epoch) {
            same.sealed = sealed.to_vec();
            return;
        }
        if held.len() >= MAX_HELD {
            held.pop_front();
        }
        held.push_back(Held {
            sealed: sealed.to_vec(),
            epoch,
            proof_base: continuation.proof_base,
            edge: epoch.base,
            event: None,
        });
    }
}

impl ObservedConnection {
    const fn new(id: u64) -> Self {
        Self {
            id,
            held: VecDeque::new(),
            proofs: BTreeMap::new(),
            user: Vec::new(),
        }
    }

    /// The continuation of `show`, or another one.
    fn sealed(&self, dice: &mut Dice) -> Option<Vec<u8>> {
        let other = self.held.get(dice.index(self.held.len()));
        let newest = self.held.back();
        let held = if dice.chance(3) { other } else { newest };
        Some(held?.sealed.clone())
    }

    /// Builds claims about the newest epoch; sometimes an older one becomes the newest again.
    fn show(&mut self, temper: Temper, dice: &mut Dice) -> Option<Show> {
        if self.held.len() > 1 && dice.chance(5) {
            let index = dice.index(self.held.len());
            if let Some(older) = self.held.remove(index) {
                self.held.push_back(older);
            }
        }
        let received = self
            .proofs
            .last_key_value()
            .map_or(0, |(_, (last, _))| *last);
        let held = self.held.back_mut()?;
        let opening = held.epoch.base == 0;
        let fork = dice.between(1, 1000) <= temper.declares;
        if fork || (opening && held.event.is_none()) {
            held.event = Some(declaration(held, received, temper, dice));
        } else if !opening && dice.chance(5) {
            held.event = None;
        }
        let epoch = held.epoch;
        let transition = held.event.and_then(|event| epoch.transition(event).ok());
        let end = transition.map_or(received, |transition| received.min(transition.r));
        // An interval may overlap the one before.
        let after = match dice.chance(5) {
            true => dice.between(epoch.base, held.edge),
            false => held.edge,
        };
        let after = transition.map_or(after, |transition| after.max(transition.p));
        let contiguous = contiguous(&self.proofs, after, end.max(after));
        let budget = u32::try_from(dice.magnitude(1, u64::from(MAX_FLIGHT))).unwrap_or(1);
        let (upto, reach, proven) = match transition {
            None => {
                let upto = epoch.max_ack(after, contiguous, budget);
                (upto, end.max(upto), end.max(upto))
            }
            Some(transition) if transition.kind.has_zone() => {
                let upto = transition.max_ack(after, end, budget).max(after);
                (upto, end.max(upto), end.max(upto))
            }
            Some(transition) if transition.kind == TransitionKind::Restart => {
                (transition.r, transition.r, transition.r)
            }
            Some(transition) => (transition.r, transition.r, transition.p),
        };
        held.edge = held.edge.max(upto);
        if upto == after {
            if transition.is_none() && dice.chance(temper.hides) {
                // Continues after a loss that is never declared.
                let next = self.proofs.range(after + 1..).next();
                held.edge = next.map_or(after, |(number, _)| number - 1);
            }
            if dice.chance(90) {
                return None;
            }
        }
        let base = match held.event {
            Some(event) if event.kind.forgives() => epoch.base,
            Some(_) | None => held.proof_base,
        };
        let (proof, holes) = fold(&self.proofs, base, proven);
        Some(Show {
            after,
            upto,
            reach,
            proof,
            holes,
            declaration: held.event,
        })
    }
}

impl Show {
    fn lie(&mut self, dice: &mut Dice) {
        match dice.between(0, 6) {
            // Claims receipt of packets that never arrived.
            0 => self.holes.clear(),
            1 => {
                self.holes.pop();
            }
            2 => self.proof ^= dice.seed(),
            // Beyond everything that arrived.
            3 => {
                self.upto += dice.magnitude(1, 100);
                self.reach = self.reach.max(self.upto);
            }
            // Claims more pending numbers than there are.
            4 => self.holes.push(Span {
                start: self.reach + 1,
                end: self.reach + 1 + dice.magnitude(1, 1000),
            }),
            5 => {
                if let Some(event) = &mut self.declaration {
                    event.rtt_us = 1;
                }
            }
            _ => self.after = self.after.saturating_sub(dice.magnitude(1, 100)),
        }
    }
}

fn percent(dice: &mut Dice, most: u64) -> u32 {
    u32::try_from(dice.between(0, most)).unwrap_or(0)
}

/// Draws a declaration of any kind, at the edge or elsewhere, with any round trip.
fn declaration(held: &Held, received: u64, temper: Temper, dice: &mut Dice) -> Declaration {
    let base = held.epoch.base;
    let kind = match base == 0 && !dice.chance(10) {
        true => TransitionKind::Opened,
        false => {
            let index = dice.index(TransitionKind::ALL.len());
            TransitionKind::ALL
                .get(index)
                .copied()
                .unwrap_or(TransitionKind::Loss)
        }
    };
    let p = match (kind, dice.chance(70)) {
        (TransitionKind::Opened, _) => 0,
        (
            TransitionKind::Loss
            | TransitionKind::Ce
            | TransitionKind::Exit
            | TransitionKind::Timeout
            | TransitionKind::Restart
            | TransitionKind::Move,
            true,
        ) => held.edge,
        (
            TransitionKind::Loss
            | TransitionKind::Ce
            | TransitionKind::Exit
            | TransitionKind::Timeout
            | TransitionKind::Restart
            | TransitionKind::Move,
            false,
        ) => dice.between(base, received.max(base)),
    };
    let rtt_us = match dice.chance(temper.stretches) {
        true => u64::from(MAX_RTT_US),
        false => dice.magnitude(1, u64::from(MAX_RTT_US)),
    };
    Declaration::new(kind, p, rtt_us)
}

/// Returns the last number up to `end` that is received without a gap after `after`.
fn contiguous(proofs: &BTreeMap<u64, (u64, u64)>, after: u64, end: u64) -> u64 {
    let mut at = after;
    while let Some(&(last, _)) = proofs.get(&(at + 1)) {
        if last > end {
            break;
        }
        at = last;
    }
    at
}

/// Returns the proof of the numbers received in `(base, end]`, and the ranges not received.
fn fold(proofs: &BTreeMap<u64, (u64, u64)>, base: u64, end: u64) -> (u64, Vec<Span>) {
    let (mut proof, mut holes, mut at) = (0, Vec::new(), base + 1);
    for (&number, &(last, x)) in proofs.range(base + 1..) {
        if number > end {
            break;
        }
        if number < at || last > end {
            continue;
        }
        if number > at {
            holes.push(Span {
                start: at,
                end: number,
            });
        }
        proof ^= x;
        at = last + 1;
    }
    if at <= end {
        holes.push(Span {
            start: at,
            end: end + 1,
        });
    }
    (proof, holes)
}

impl Machine for Adversary {
    fn handle_packet(&mut self, now: Now, packet: &[u8], _segment: Option<usize>) {
        let Ok(Some(datagram)) = parse_udp(packet) else {
            return;
        };
        if self.left {
            return;
        }
        match ToClient::parse(datagram.payload) {
            Ok(ToClient::Response(response)) => self.learn(now, &response),
            Ok(ToClient::Probed(probed)) => {
                let mut known = self.connections.iter();
                if let Some(index) = known.position(|known| known.id == probed.connection) {
                    self.hold(now, index, probed.continuation);
                }
            }
            Ok(ToClient::Challenge(challenge)) => self.answer(&challenge),
            Ok(ToClient::Wait(_)) | Err(_) => {}
        }
    }

    fn handle_timeout(&mut self, _now: Now) {}

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        if self.out.is_empty() {
            self.act(now);
        }
        self.out.pop_front().map(Transmit::Flight)
    }

    fn poll_timeout(&mut self, _now: Now) -> Option<(Instant, &'static str)> {
        (!self.is_done()).then_some((self.next, "cheat"))
    }
}

impl Node for Adversary {
    fn progress(&self) -> Option<ClientProgress> {
        Some(ClientProgress {
            done: self.is_done(),
            ..ClientProgress::default()
        })
    }

    fn receives(&self) -> bool {
        !self.left
    }
}

/// Shortest and longest pause between two datagrams.
const MIN_PAUSE: Duration = Duration::from_micros(200);
const MAX_PAUSE: Duration = Duration::from_millis(4);

/// A pause after which a restart is granted.
const SILENCE: Duration = Duration::from_millis(1100);

/// Length of the objects it requests.
const OBJECT_BYTES: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_proof_leaves_out_what_is_missing() {
        let proofs = BTreeMap::from([(2, (2, 1)), (3, (5, 2)), (8, (8, 4)), (9, (12, 8))]);
        let span = |start, end| Span { start, end };
        assert_eq!(fold(&proofs, 1, 5), (3, vec![]));
        assert_eq!(
            fold(&proofs, 0, 9),
            (7, vec![span(1, 2), span(6, 8), span(9, 10)])
        );
        assert_eq!(fold(&proofs, 4, 4), (0, vec![]));
        assert_eq!(contiguous(&proofs, 1, 12), 5);
        assert_eq!(
            contiguous(&proofs, 1, 4),
            2,
            "void numbers come with their packet"
        );
        assert_eq!(contiguous(&proofs, 5, 12), 5);
    }
}
