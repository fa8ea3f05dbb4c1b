//! The laws of the protocol at the level of the server, on random walks and under attack: numbers
//! are released once, by any servers in any order; no client elicits more than the bound in
//! `manual::protocol`; and a server's memory does not depend on its clients.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::model::{Packet, RTT_US, server};
use super::*;
use crate::transport::continuation::RECENT;
use crate::transport::epoch::{Declaration, Transition};
use crate::wire::segment::Declared;

/// One segment of a walk and the event that ends it.
#[derive(Clone, Debug)]
struct Step {
    advance: u64,
    kind: TransitionKind,
    rtt_us: u32,
    /// Most numbers released by each interval, used in turn.
    splits: Vec<u32>,
    /// Whether the first interval of the segment is sent last.
    postponed: bool,
    /// Count of the zone's numbers after which another event supersedes this one, and its kind.
    superseded: Option<(u64, TransitionKind)>,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || (2..=6u8).prop_map(|code| TransitionKind::from_code(code).unwrap());
    let rtt = prop_oneof![Just(1), Just(RTT_US), Just(1_000_000)];
    let splits = proptest::collection::vec(1u32..=44, 1..6);
    let superseded = proptest::option::weighted(0.2, (0u64..60, kind()));
    (0u64..80, kind(), rtt, splits, any::<bool>(), superseded).prop_map(
        |(advance, kind, rtt_us, splits, postponed, superseded)| Step {
            advance,
            kind,
            rtt_us,
            splits,
            postponed,
            superseded,
        },
    )
}

/// An honest client without losses, and the packets it has received.
struct Walk {
    peer: Peer,
    servers: Vec<Server>,
    edge: u64,
    ms: u64,
    requests: Vec<Vec<u8>>,
    /// Proof values by number.
    released: BTreeMap<u64, u64>,
    /// Whether the numbers were written off, so that no request will ever release them.
    written_off: bool,
    next: Option<Vec<u8>>,
}

impl Walk {
    fn new() -> Self {
        let mut servers: Vec<Server> = (1..=3).map(server).collect();
        let peer = Peer::open(&mut servers[0], at(0), path());
        let released = peer.x.clone();
        Self {
            peer,
            servers,
            edge: 0,
            ms: 0,
            requests: Vec::new(),
            released,
            written_off: false,
            next: None,
        }
    }

    /// The last number before the first gap.
    fn whole(&self) -> u64 {
        let mut upto = self.peer.epoch.base;
        while self.peer.x.contains_key(&(upto + 1)) {
            upto += 1;
        }
        upto
    }

    /// The span up to `upto` that a superseded event wrote off, if any.
    fn written_off(&self, upto: u64) -> Vec<Span> {
        let numbers = self.peer.epoch.base + 1..=upto;
        let mut missing = numbers.filter(|n| !self.peer.x.contains_key(n));
        let Some(start) = missing.next() else {
            return Vec::new();
        };
        let end = missing.next_back().unwrap_or(start) + 1;
        vec![Span { start, end }]
    }

    /// Acknowledges `(after, upto]` and checks the answer.
    fn show(&mut self, event: Option<(&Transition, u32)>, after: u64, upto: u64) {
        let expected = match event {
            Some((event, _)) => event.released(after, upto),
            None => self.peer.epoch.released(after, upto),
        };
        if expected.is_empty() {
            return;
        }
        // Late enough for every gate; but a zone ends while its continuation is recent.
        let zone = event.is_some_and(|(event, _)| event.kind.has_zone());
        self.ms += if zone { 10 } else { 1100 };
        let mut request = match event {
            Some((event, _)) => self.peer.declaring(event, after, upto),
            None => self.peer.acknowledging(after, upto),
        };
        if let (Some(declared), Some((_, rtt_us))) = (&mut request.declared, event) {
            declared.rtt_us = rtt_us;
        }
        request.wants_continuation = true;
        if event.is_none() {
            request.reach = self.edge.max(upto);
            request.proof = self.peer.proof(request.reach, &[]);
        }
        if event.is_some_and(|(event, _)| event.kind.has_zone()) {
            request.holes = self.written_off(upto);
        }
        let datagram = to_bytes(&request);
        let chosen = self.requests.len() % self.servers.len();
        let server = &mut self.servers[chosen];
        let flight = send(server, at(self.ms), path(), &datagram, &mut bytes()).unwrap();
        let answer = packets(&flight);
        assert!(
            answer.iter().map(|packet| packet.number).eq(expected),
            "{after} to {upto}"
        );
        for Packet { number, x, .. } in &answer {
            assert!(
                self.released.insert(*number, *x).is_none(),
                "{number} is released twice"
            );
        }
        self.peer.learn(&answer);
        self.requests.push(datagram);
        match event {
            Some(_) if self.next.is_none() => self.next = Some(answer[0].continuation.clone()),
            Some(_) => {}
            None => self.peer.continuation.clone_from(&answer[0].continuation),
        }
    }

    fn take(&mut self, step: &Step) {
        let mut splits = step.splits.iter().copied().cycle();
        let first = self.peer.epoch.base == 0;
        // Before the address is proven only the opening is granted.
        let goal = if first { 0 } else { self.edge + step.advance };
        let mut postponed = None;
        while self.edge < goal.min(self.whole()) {
            let available = goal.min(self.whole());
            let upto = self
                .peer
                .epoch
                .max_ack(self.edge, available, splits.next().unwrap());
            let after = std::mem::replace(&mut self.edge, upto);
            if step.postponed && postponed.is_none() {
                postponed = Some((after, upto));
            } else {
                self.show(None, after, upto);
            }
        }
        if let Some((after, upto)) = postponed {
            self.show(None, after, upto);
        }
        let mut kind = if first {
            TransitionKind::Opened
        } else {
            step.kind
        };
        let p = self.edge;
        if kind == TransitionKind::Exit && !self.peer.epoch.in_slow_start(p) {
            kind = TransitionKind::Loss;
        }
        let event = self.event(kind, p, step.rtt_us);
        let upto = step
            .superseded
            .map_or(event.r, |(after, _)| event.r.min(p + after));
        self.pass(&event, step.rtt_us, upto, &mut splits);
        if upto < event.r && kind.has_zone() {
            let gentle = matches!(kind, TransitionKind::Exit | TransitionKind::Ce);
            let other = match step.superseded {
                Some((_, other)) if other.has_zone() && gentle => TransitionKind::Loss,
                Some((_, TransitionKind::Restart)) if !first => TransitionKind::Move,
                Some(_) | None => TransitionKind::Timeout,
            };
            self.next = None;
            self.written_off = true;
            let event = self.event(other, self.edge, step.rtt_us);
            self.pass(&event, step.rtt_us, event.r, &mut splits);
            self.close(&event);
        } else {
            self.close(&event);
        }
    }

    fn event(&self, kind: TransitionKind, p: u64, rtt_us: u32) -> Transition {
        self.peer
            .epoch
            .transition(Declaration { kind, p, rtt_us })
            .unwrap()
    }

    fn pass(
        &mut self,
        event: &Transition,
        rtt_us: u32,
        upto: u64,
        splits: &mut dyn Iterator<Item = u32>,
    ) {
        // The longest round trip of a walk: its windows cost the time that they claim.
        self.ms += 1000;
        if !event.kind.has_zone() {
            self.show(Some((event, rtt_us)), event.p, event.r);
            self.edge = event.r;
            return;
        }
        while self.edge < upto {
            let to = event.max_ack(self.edge, upto, splits.next().unwrap());
            let after = std::mem::replace(&mut self.edge, to);
            self.show(Some((event, rtt_us)), after, to);
        }
    }

    fn close(&mut self, event: &Transition) {
        self.peer.epoch = event.next;
        self.peer.proof_base = event.proof_base();
        self.peer.continuation = self.next.take().expect("the event was answered");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Laws 1 and 3: whatever intervals tile the numbers, each is released once, and none is skipped
    /// across an event.
    #[test]
    fn every_number_is_released_once(steps in proptest::collection::vec(step(), 1..12)) {
        let mut walk = Walk::new();
        for step in &steps { walk.take(step); }
        let key = walk.peer.look_inside(&keys(), at(walk.ms)).identity;
        for (number, x) in &walk.released { prop_assert_eq!(*x, key.fold(number - 1, *number)); }
        let last = *walk.released.keys().next_back().unwrap();
        if !walk.written_off { prop_assert_eq!(walk.released.len() as u64, last); }
        let expected = if walk.peer.epoch.base == 0 { 3 } else { walk.peer.epoch.edge(walk.edge) };
        prop_assert_eq!(last, expected);
    }

    /// Law 2: any order, repetition and distribution over servers releases the same numbers.
    #[test]
    fn order_repetition_and_spreading_change_nothing(
        steps in proptest::collection::vec(step(), 1..8), seed: u64,
    ) {
        let mut walk = Walk::new();
        let opening: BTreeSet<u64> = walk.released.keys().copied().collect();
        for step in &steps { walk.take(step); }
        let key = walk.peer.look_inside(&keys(), at(walk.ms)).identity;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut shuffled: Vec<&Vec<u8>> = walk.requests.iter()
            .flat_map(|request| core::iter::repeat_n(request, random.random_range(1..4))).collect();
        shuffled.shuffle(&mut random);
        let mut servers: Vec<Server> = (4..=6).map(server).collect();
        let mut released = BTreeSet::new();
        let mut ms = walk.ms;
        for request in shuffled {
            // A token accrues in this time.
            ms += 100;
            let server = &mut servers[random.random_range(0..3)];
            match send(server, at(ms), path(), request, &mut bytes()) {
                // Continuations that are not recent any more draw fewer bytes, but the same numbers.
                Ok(flight) => for Packet { number, void, x, .. } in packets(&flight) {
                    prop_assert_eq!(x, key.fold(number - 1, number + void));
                    released.extend(number..=number + void);
                },
                Err(reason) => prop_assert_eq!(reason, "replayed"),
            }
        }
        let expected = walk.released.keys().filter(|number| !opening.contains(number));
        prop_assert_eq!(released, expected.copied().collect());
    }
}

/// A continuation held by the adversary.
#[derive(Clone)]
struct Copy {
    proof_base: u64,
    epoch: Epoch,
    sealed: Vec<u8>,
}

/// A connection of the adversary, and the packets it has received.
struct Victim {
    peer: Peer,
    copies: Vec<Copy>,
    /// Times that each server sent each number in answer to a request that bypasses the filter.
    sent: BTreeMap<(usize, u64), u32>,
}

/// Sends random requests to three servers.
struct Adversary {
    random: ChaCha8Rng,
    servers: Vec<Server>,
    victims: Vec<Victim>,
    ms: u64,
    accepted: u32,
}

impl Adversary {
    fn new(seed: u64) -> Self {
        let mut servers: Vec<Server> = (1..=3).map(server).collect();
        let victims = [path(), path_from("192.0.2.1:4001")].map(|path| {
            let peer = Peer::open(&mut servers[0], at(0), path);
            let copy = Copy {
                epoch: peer.epoch,
                proof_base: 0,
                sealed: peer.continuation.clone(),
            };
            Victim {
                peer,
                copies: vec![copy],
                sent: BTreeMap::new(),
            }
        });
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self {
            random,
            servers,
            victims: victims.into(),
            ms: 0,
            accepted: 0,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn up_to(&mut self, most: u64) -> u64 {
        self.random.random_range(0..=most)
    }

    /// Returns a number near `to`.
    fn near(&mut self, to: u64, by: u64) -> u64 {
        (to + self.up_to(by)).saturating_sub(self.up_to(by))
    }

    fn declaration(&mut self, base: u64, edge: u64) -> Option<Declared> {
        if self.chance(50) {
            return None;
        }
        let kind = self.random.random_range(1..=8);
        let edge = if kind == 1 || self.chance(10) {
            base
        } else {
            self.near(edge, 6)
        };
        let rtt_us = [1, RTT_US, 1_000_000, 1_000_001, 0][self.random.random_range(0..5)];
        Some(Declared { kind, edge, rtt_us })
    }

    /// Returns numbers up to `reach` to declare missing: true and false ones.
    fn holes(&mut self, peer: &Peer, from: u64, reach: u64, interval: (u64, u64)) -> Vec<Span> {
        let withheld = match self.chance(40) {
            true => self.near(reach, 30)..self.near(reach, 30),
            false => 0..0,
        };
        let honest = !self.chance(3);
        let mut holes: Vec<Span> = Vec::new();
        for n in from + 1..=reach {
            let missing = !peer.x.contains_key(&n) && honest;
            let acknowledged = interval.0 < n && n <= interval.1;
            if !missing && (!withheld.contains(&n) || acknowledged) {
                continue;
            }
            match holes.last_mut() {
                Some(last) if last.end == n => last.end += 1,
                Some(_) | None => holes.push(Span {
                    start: n,
                    end: n + 1,
                }),
            }
        }
        holes
    }

    /// Sends one attempt to some or all servers.
    fn attempt(&mut self) {
        self.ms += if self.chance(30) {
            self.up_to(1500)
        } else {
            self.up_to(30)
        };
        let chosen = self.random.random_range(0..2);
        let back = self
            .random
            .random_range(0..2 + self.victims[chosen].copies.len() / 4);
        let copies = &self.victims[chosen].copies;
        let copy = copies[copies.len().saturating_sub(1 + back)].clone();
        let mut peer = self.victims[chosen].peer.clone();
        (peer.epoch, peer.continuation) = (copy.epoch, copy.sealed);
        peer.proof_base = copy.proof_base;
        let base = peer.epoch.base;
        let highest = peer.x.keys().next_back().copied().unwrap_or(0).max(base);
        let near = self.near(highest, 3).max(base);
        let upto = if self.chance(60) { highest } else { near };
        let by = self.up_to(20);
        let after = upto
            .saturating_sub(by)
            .max(if self.chance(98) { base } else { 0 });
        let mut request = peer.acknowledging(after, upto.max(after));
        request.declared = self.declaration(base, after);
        request.wants_continuation = true;
        let event = request
            .declared
            .and_then(|declared| transition(&peer.epoch, declared));
        let mut end = request.upto + if self.chance(20) { self.up_to(20) } else { 0 };
        request.reach = end;
        if let Some(event) = &event {
            end = end.min(event.r);
            if !event.kind.has_zone() && self.chance(95) {
                (request.after, request.upto, request.reach) = (event.p, event.r, event.r);
                end = match event.kind == TransitionKind::Restart {
                    true => event.r,
                    false => event.p,
                };
            }
        }
        let from = event.map_or(peer.proof_base, |event| peer.proof_base_at(event.kind));
        request.holes = self.holes(&peer, from, end, (request.after, request.upto));
        request.proof = peer.proof_from(from, end, &request.holes) ^ u64::from(self.chance(3));
        if self.chance(15) {
            request.probe = Some(1);
            if self.chance(90) {
                request.upto = request.after;
            }
        }
        let other = self.victims[1 - chosen].peer.clone();
        if self.chance(3) {
            request.continuation = &other.continuation;
        }
        if self.chance(3) {
            request.connection = other.connection;
        }
        if self.chance(3) {
            request.proof ^= other.x.values().fold(0, |proof, x| proof ^ x);
        }
        for index in 0..self.servers.len() {
            if self.chance(60) {
                self.elicit(chosen, index, &request);
            }
        }
    }

    /// Sends a request to a server and checks the answer against the bound.
    fn elicit(&mut self, chosen: usize, index: usize, request: &Request<'_>) {
        let (now, from) = (at(self.ms), self.victims[chosen].peer.path);
        let datagram = to_bytes(request);
        let sent = send(&mut self.servers[index], now, from, &datagram, &mut bytes());
        let Ok(flight) = sent else { return };
        if let Ok(ToClient::Challenge(_)) = ToClient::parse(&flight.payload.to_vec()) {
            assert!(flight.payload.len() <= datagram.len());
            return;
        }
        self.accepted += 1;
        let opened = Continuation::open(
            &keys(),
            request.connection,
            now.unix,
            MAX_AGE,
            request.continuation,
        );
        let (shown, issued) = opened.expect("nothing else opens");
        assert_eq!(shown.address, from.src);
        let victim = &mut self.victims[chosen];
        assert_eq!(
            request.connection, victim.peer.connection,
            "a foreign continuation"
        );
        let event = request
            .declared
            .map(|d| transition(&shown.epoch, d).expect("a transition"));
        let bound = hold_against_bound(&shown, event.as_ref(), request, &victim.peer.x);
        check_gates(&shown, event.as_ref(), request, now.unix, issued);
        let next = event.map_or(shown.epoch, |event| event.next);
        if request.probe.is_some() {
            assert!(flight.payload.len() <= datagram.len());
            return;
        }
        let answer = packets(&flight);
        assert!(answer.len() <= 44);
        let passes = event.is_some_and(|event| !event.kind.has_zone());
        let recent = now.unix.saturating_since(issued) <= RECENT;
        assert!(recent || flight.payload.len() <= AMPLIFICATION * datagram.len());
        for packet in answer {
            assert!(packet.void == 0 || !recent || passes);
            let last = packet.number + packet.void;
            assert!(last <= bound, "{last} is above {bound}");
            for number in (packet.number..=last).filter(|_| !passes) {
                let times = victim.sent.entry((index, number)).or_default();
                *times += 1;
                assert_eq!(*times, 1, "{number} is sent twice");
            }
            if !packet.continuation.is_empty() && self.random.random_ratio(1, 3) {
                let known = victim.copies.iter().any(|copy| copy.epoch == next);
                if !known || self.random.random_ratio(1, 4) {
                    victim.copies.push(Copy {
                        epoch: next,
                        proof_base: event.map_or(shown.proof_base, |event| event.proof_base()),
                        sealed: packet.continuation,
                    });
                }
            }
            // Loses some answers, so that there are numbers to withhold and to lie about.
            if packet.void == 0 && self.random.random_ratio(9, 10) {
                victim.peer.x.insert(packet.number, packet.x);
            }
        }
    }
}

fn transition(epoch: &Epoch, declared: Declared) -> Option<Transition> {
    let kind = TransitionKind::from_code(declared.kind)?;
    let declaration = Declaration {
        kind,
        p: declared.edge,
        rtt_us: declared.rtt_us,
    };
    epoch.transition(declaration).ok()
}

/// Computes the greatest number that may be released, independently, from the rules.
fn hold_against_bound(
    shown: &Continuation,
    event: Option<&Transition>,
    request: &Request<'_>,
    received: &BTreeMap<u64, u64>,
) -> u64 {
    let epoch = &shown.epoch;
    let base = match event {
        Some(event) if event.kind.forgives() => epoch.base,
        Some(_) | None => shown.proof_base,
    };
    let k = match event {
        Some(event) if event.kind == TransitionKind::Restart => event.r,
        Some(event) if event.kind.has_zone() => request.reach.min(event.r),
        Some(event) => event.p,
        None => request.reach,
    };
    let edge = event.map_or(k, |event| event.p.min(k));
    let window = u64::from(epoch.window(edge));
    let missing = |n: &u64| {
        request
            .holes
            .iter()
            .any(|hole| (hole.start..hole.end).contains(n))
    };
    for n in (base + 1..=k).filter(|n| !missing(n)) {
        assert!(received.contains_key(&n), "{n} was never received");
    }
    let pending: Vec<u64> = (base + 1..=edge).filter(missing).collect();
    let passed: Vec<u64> = (edge + 1..=k).filter(missing).collect();
    let allowed = (window / 2).max(44);
    if event.is_none() && request.probe.is_some() {
        // Releases nothing.
    } else if event.is_none_or(|event| event.kind.has_zone()) {
        assert!(pending.len() as u64 <= allowed, "{pending:?}");
        let old = |n: &u64| n + 2 * u64::from(epoch.window(*n)) <= edge;
        assert!(!pending.iter().any(old), "{pending:?}");
    } else {
        // The zone that was given up may have had its share.
        assert!(
            pending.len() as u64 <= allowed + (edge - epoch.base) * 3 / 4,
            "{pending:?}"
        );
    }
    match event {
        None => {
            assert!(shown.proven || request.probe.is_some());
            epoch.edge(k)
        }
        Some(event) => {
            if !event.kind.forgives() {
                assert!(pending.is_empty(), "a loss before {event:?}");
            }
            if matches!(
                event.kind,
                TransitionKind::Loss | TransitionKind::Ce | TransitionKind::Exit
            ) {
                assert!(
                    4 * passed.len() as u64 <= 3 * (k - edge),
                    "less than a quarter proven"
                );
            }
            event.r + u64::from(event.next.c)
        }
    }
}

/// Checks the gates of time.
fn check_gates(
    shown: &Continuation,
    event: Option<&Transition>,
    request: &Request<'_>,
    now: UnixMillis,
    issued: UnixMillis,
) {
    let real = now.saturating_since(shown.epoch_start);
    match event.map(|event| event.kind) {
        Some(TransitionKind::Timeout) => assert!(real >= Duration::from_millis(200)),
        Some(TransitionKind::Restart | TransitionKind::Move) => {
            assert!(now.saturating_since(issued) >= Duration::from_secs(1))
        }
        Some(
            TransitionKind::Opened
            | TransitionKind::Loss
            | TransitionKind::Ce
            | TransitionKind::Exit,
        )
        | None => {}
    }
    let edge = event.map_or(request.upto, |event| event.p.min(request.upto));
    let on_curve = Duration::from_micros(shown.epoch.elapsed_us(edge));
    let (start, issued) = (shown.curve_start.as_millis(), issued.as_millis());
    assert!(
        shown.epoch.base == 0
            || shown.curve_start >= shown.epoch_start
            || real > Duration::from_secs(16)
    );
    let paid = 1000
        + u64::from(shown.epoch.curve.rtt_us()) / 1000
        + 17 * issued.saturating_sub(start) / 16;
    let most = Duration::from_millis((paid + 2).saturating_sub(start.saturating_sub(issued)));
    let owes = event.is_some_and(|event| !event.kind.has_zone());
    assert!(owes || on_curve <= most, "{on_curve:?} after {real:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Law 4.
    #[test]
    fn an_adversary_elicits_nothing_beyond_the_bound(seed: u64) {
        let mut adversary = Adversary::new(seed);
        for _ in 0..300 { adversary.attempt(); }
        prop_assert!(adversary.accepted >= 20, "{}", adversary.accepted);
    }
}

/// Law 6: the memory of a server is fixed at its start or bounded by one flight.
#[test]
fn memory_does_not_depend_on_who_was_served() {
    let mut server = server(1);
    let memory = |server: &Server| {
        (
            server.soft_state_bytes(),
            server.gathered.capacity() + server.pool.capacity(),
            server.counters.drops().len(),
        )
    };
    let mut after_first = None;
    for client in 0..5000u16 {
        let from = path_from(&format!("192.0.2.1:{}", 1024 + client));
        let peer = Peer::opened(&mut server, at(client.into()), from);
        let base = peer.epoch.base;
        let request = peer.acknowledging(base, base + 5);
        assert!(peer.ask(&mut server, at(client.into()), &request).is_ok());
        assert_eq!(
            peer.ask(&mut server, at(client.into()), &request),
            Err("replayed")
        );
        // Two buffers take turns: by then each has held each kind of flight.
        if client < 4 {
            continue;
        }
        let now = memory(&server);
        assert_eq!(
            *after_first.get_or_insert(now),
            now,
            "after {client} clients"
        );
    }
    assert_eq!(server.counters().opens, 5000);
}
