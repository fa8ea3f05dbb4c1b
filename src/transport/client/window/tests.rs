//! The window against the server's own check: whatever arrives, in whatever order, and whatever
//! event is declared meanwhile, each request that follows is granted, and exactly the expected numbers.

use std::time::Duration;

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

use super::*;
use crate::time::UnixMillis;
use crate::transport::client::window::evidence::Evidence;
use crate::transport::continuation::Continuation;
use crate::transport::curve::MAX_FLIGHT;
use crate::transport::epoch::Declaration;
use crate::transport::grant::{Grant, RESTART_GATE, TIMEOUT_GATE, Times, grant};
use crate::transport::proof::ProofKey;
use crate::wire::segment::{Declared, Request, ToServer};

/// How the network and the client's luck are.
#[derive(Clone, Copy, Debug)]
struct Weather {
    /// Per mille of packets, and of requests, that are lost.
    loss: u32,
    lost_requests: u32,
    duplicates: u32,
    /// How many packets may overtake one.
    reordering: usize,
    /// Per mille of flights that end with a void packet.
    voids: u32,
    /// Per mille of steps that declare an event.
    events: u32,
    /// Steps before any of this happens, in which the window grows.
    calm: usize,
}

fn weather() -> impl Strategy<Value = Weather> {
    let rate = || prop_oneof![Just(0u32), 0u32..60, 0u32..700];
    let reordering = prop_oneof![Just(1usize), 1usize..8, 1usize..200];
    let calm = prop_oneof![Just(0usize), 0usize..600];
    (rate(), rate(), rate(), reordering, rate(), (rate(), calm)).prop_map(
        |(loss, lost_requests, duplicates, reordering, voids, (events, calm))| Weather {
            loss,
            lost_requests: lost_requests / 4,
            duplicates,
            reordering,
            voids,
            events: events / 8,
            calm,
        },
    )
}

/// A packet on its way.
#[derive(Clone)]
struct Packet {
    number: u64,
    void: u64,
    /// Given up before it came: only its number counts.
    era: u32,
    /// A continuation, the epoch that it speaks for, and whether it opens that.
    brings: Option<Brought>,
}

/// A continuation in an answer: its epoch, the edge of the request, its seal, whether it opens the epoch.
type Brought = (Epoch, u64, Vec<u8>, bool);

/// A request that was sent.
#[derive(Clone)]
struct Asked {
    interval: Interval,
    declared: Option<Declaration>,
    yields: Epoch,
    wants: bool,
}

/// The seal of continuation number `index`: unlike a real one it shows the index behind the issue time.
fn seal_of(index: u64, issued: UnixMillis) -> Vec<u8> {
    let time = issued.as_millis().to_be_bytes();
    [&[0; 2], &time[2..], &index.to_be_bytes()].concat()
}

struct Model {
    weather: Weather,
    random: ChaCha8Rng,
    us: u64,
    window: Window,
    /// The contents of the continuations; the sealed form is the place in this list.
    sealed: Vec<(Continuation, UnixMillis)>,
    network: Vec<Packet>,
    asked: Vec<Asked>,
    era: u32,
    /// Numbers were given up and are to be declared.
    due: bool,
    granted: u64,
}

impl Model {
    fn new(weather: Weather, opening: u32, seed: u64) -> Self {
        let first = Continuation {
            identity: ProofKey::new([3; 16]),
            epoch: Epoch::opening(opening),
            epoch_start: UnixMillis::new(0),
            curve_start: UnixMillis::new(990),
            proof_base: 0,
            proven: false,
            address: "192.0.2.1:4000".parse().unwrap(),
            datagram_max: 1472,
            server: 1,
            site: 0,
        };
        let mut model = Self {
            weather,
            random: ChaCha8Rng::seed_from_u64(seed),
            us: 1_000_000,
            window: Window::new(
                opening,
                &seal_of(0, UnixMillis::new(990)),
                Instant::from_micros(1_000_000),
            ),
            sealed: vec![(first, UnixMillis::new(990))],
            network: Vec::new(),
            asked: Vec::new(),
            era: 0,
            due: false,
            granted: 0,
        };
        model.release(1, opening, None);
        assert!(model.window.declare(TransitionKind::Opened, 40_000));
        model
    }

    const fn now(&self) -> Instant {
        Instant::from_micros(self.us)
    }

    const fn unix(&self) -> UnixMillis {
        UnixMillis::new(self.us / 1000)
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        if self.weather.calm > 0 {
            return false;
        }
        self.random.random_ratio(per_mille, 1000)
    }

    /// Puts a flight onto the network; its first packet brings a continuation.
    fn release(&mut self, first: u64, count: u32, brings: Option<Brought>) {
        if self.chance(self.weather.lost_requests) {
            return;
        }
        let voids = self.chance(self.weather.voids);
        let sent = if voids {
            self.random.random_range(1..=count)
        } else {
            count
        };
        for index in 0..u64::from(sent) {
            let last = index + 1 == u64::from(sent);
            let packet = Packet {
                number: first + index,
                void: if last { u64::from(count - sent) } else { 0 },
                era: self.era,
                brings: brings.clone().filter(|_| index == 0),
            };
            if self.chance(self.weather.duplicates) {
                self.network.push(packet.clone());
            }
            if !self.chance(self.weather.loss) {
                self.network.push(packet);
            }
        }
    }

    /// The continuation that evidence shows, and when it was issued.
    fn shown(&self, evidence: &Evidence) -> (Continuation, UnixMillis) {
        let index = u64::from_be_bytes(evidence.sealed[8..].try_into().unwrap());
        self.sealed[usize::try_from(index).unwrap()]
    }

    /// Has a request granted as a server would.
    fn grant(&self, (after, upto): (u64, u64), evidence: &Evidence, probe: bool) -> Grant {
        let (shown, issued) = self.shown(evidence);
        let request = Request {
            after,
            upto,
            reach: evidence.reach.max(upto),
            proof: evidence.proof,
            holes: evidence.holes.clone(),
            declared: evidence.declared.map(|d| Declared {
                kind: d.kind.code(),
                edge: d.p,
                rtt_us: d.rtt_us,
            }),
            probe: probe.then_some(1),
            ..Request::empty(1, 1472, 0)
        };
        let mut datagram = Vec::new();
        request.emit(&mut datagram);
        assert_eq!(
            ToServer::parse(&datagram),
            Ok(ToServer::Request(request.clone()))
        );
        let times = Times {
            now: self.unix(),
            issued,
            moved: false,
        };
        match grant(&shown, times, &request) {
            Ok(granted) => granted,
            Err(error) => panic!("{error}: {request:?} of {:?}", shown.epoch),
        }
    }

    /// The continuation that an answer brings.
    fn seal(&mut self, evidence: &Evidence, granted: &Grant) -> Vec<u8> {
        let (shown, _) = self.shown(evidence);
        let next = Continuation {
            proven: true,
            ..granted.follow(shown, self.unix())
        };
        self.sealed.push((next, self.unix()));
        seal_of(self.sealed.len() as u64 - 1, self.unix())
    }

    /// Sends the next request, if there is one.
    fn ask(&mut self) -> bool {
        if self.window.gives_up() && !self.due {
            return false;
        }
        let needed = self.random.random_range(1..=MAX_FLIGHT);
        let budget = (self.window.packets() / 8).clamp(2, MAX_FLIGHT).min(needed);
        let now = self.now();
        let Some(interval) = self.window.next_interval(now, budget) else {
            return false;
        };
        self.due = false;
        self.window
            .asked(interval.first + u64::from(interval.count) - 1);
        let (rtt, age) = (Duration::from_millis(40), Duration::from_secs(60));
        let refresh = self.window.refresh(now, rtt, age);
        let asked = Asked {
            interval,
            declared: self.window.event().map(|event| event.declaration),
            yields: self.window.releasing(),
            wants: self.window.wants_continuation() || refresh || self.chance(30),
        };
        assert!(self.answer(&asked), "there is evidence of now");
        self.asked.push(asked);
        true
    }

    /// `false` if there is no evidence for the request any more.
    fn answer(&mut self, asked: &Asked) -> bool {
        let Interval {
            after,
            upto,
            first,
            count,
        } = asked.interval;
        let Some(evidence) = self.window.evidence_for(asked.declared, &asked.yields) else {
            return false;
        };
        let granted = self.grant((after, upto), &evidence, false);
        assert_eq!((granted.first, granted.count), (first, count));
        self.granted += 1;
        let sealed = self.seal(&evidence, &granted);
        let brings = asked
            .wants
            .then_some((asked.yields, upto, sealed, asked.declared.is_some()));
        self.release(first, count, brings);
        true
    }

    /// Sends an earlier request again, of the present or of a moment whose evidence is kept.
    fn repeat(&mut self) {
        let from = self.asked.len().saturating_sub(20);
        let chosen = self.random.random_range(from..=self.asked.len());
        let Some(asked) = self.asked.get(chosen).cloned() else {
            return;
        };
        self.answer(&asked);
    }

    /// Sends a probe, whose answer comes at once if that is `certain`, or else perhaps.
    fn probe(&mut self, certain: bool) {
        let edge = self.window.edge();
        let declared = self.window.event().map(|event| event.declaration);
        let evidence = self.window.evidence();
        let granted = self.grant((edge, edge), &evidence, true);
        assert_eq!(granted.count, 0);
        let (epoch, sealed) = (self.window.releasing(), self.seal(&evidence, &granted));
        if certain || self.random.random() {
            let now = self.now();
            self.window
                .hold(epoch, edge, &sealed, declared.is_some(), now);
            self.due = false;
        }
    }

    fn deliver(&mut self) {
        let most = self.weather.reordering.min(self.network.len());
        if most == 0 {
            return;
        }
        let Packet {
            number,
            void,
            era,
            brings,
        } = self.network.remove(self.random.random_range(0..most));
        let key = self.sealed[0].0.identity;
        let now = self.now();
        self.window
            .receive(number, void, key.fold(number - 1, number + void));
        if let Some((epoch, upto, sealed, opens)) = brings.filter(|_| era == self.era) {
            self.window.hold(epoch, upto, &sealed, opens, now);
            self.due = false;
        }
    }

    fn declare(&mut self) {
        let rtt_us = [1, 40_000, 3_000_000][self.random.random_range(0..3)];
        let mut kind = TransitionKind::ALL[self.random.random_range(1..7)];
        let window = &self.window;
        if matches!(kind, TransitionKind::Restart | TransitionKind::Move) {
            kind = window.restart_kind();
        }
        let now = self.now();
        let due = match kind {
            TransitionKind::Opened => false,
            TransitionKind::Loss | TransitionKind::Ce => window.event().is_none(),
            TransitionKind::Exit => window.in_slow_start(),
            TransitionKind::Timeout => now.saturating_since(window.started()) >= TIMEOUT_GATE,
            TransitionKind::Restart | TransitionKind::Move => {
                now.saturating_since(window.held().since) >= RESTART_GATE
            }
        };
        if due {
            let declared = self.window.declare(kind, rtt_us);
            if kind == TransitionKind::Timeout || (!kind.has_zone() && declared) {
                self.era += 1;
                self.due = true;
            }
        }
    }

    fn step(&mut self) {
        self.weather.calm = self.weather.calm.saturating_sub(1);
        let quiet = self.random.random_ratio(1, 100);
        self.us += if quiet {
            1_200_000
        } else {
            self.random.random_range(0..3000)
        };
        if self.chance(self.weather.events) {
            self.declare();
        }
        match self.random.random_range(0..40) {
            0 => self.probe(false),
            1 => self.repeat(),
            2..10 => {
                self.ask();
            }
            _ => {
                for _ in 0..self.random.random_range(1..4) {
                    self.deliver();
                }
            }
        }
    }

    /// The network heals: a timeout must get the connection going again.
    fn recover(&mut self) {
        self.weather = Weather {
            loss: 0,
            lost_requests: 0,
            duplicates: 0,
            reordering: 1,
            voids: 0,
            events: 0,
            calm: 0,
        };
        self.network.clear();
        self.us += 1_200_000;
        self.era += 1;
        self.window.declare(TransitionKind::Timeout, 40_000);
        self.due = true;
        for round in 0..40 {
            let granted = self.granted;
            while self.ask() {}
            // A fresher continuation pays for more of the curve's time, and for the debt of epochs before.
            if self.granted == granted && self.window.is_ahead() {
                self.probe(true);
                while self.ask() {}
            }
            assert!(
                self.granted > granted,
                "stuck in round {round}: {:?}",
                self.window
            );
            while !self.network.is_empty() {
                self.deliver();
            }
            // No curve is ahead of such a round trip.
            self.us += 1_000_000;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_request_is_granted_what_was_expected(weather in weather(), opening in 1u32..=12, seed: u64) {
        let mut model = Model::new(weather, opening, seed);
        for _ in 0..1500 { model.step(); }
        model.recover();
    }
}

/// A window that has passed the zone of its opening; the continuation of the next epoch is `first`.
fn opened() -> Window {
    let now = Instant::from_micros(0);
    let mut window = Window::new(1, b"opening", now);
    assert!(window.declare(TransitionKind::Opened, 40_000));
    let next = window.releasing();
    window.hold(next, 1, b"first", true, now);
    assert!(window.receive(1, 0, 7));
    assert!(window.next_interval(now, 44).is_some());
    window.asked(11);
    assert_eq!(window.next_interval(now, 44), None);
    assert_eq!(
        (*window.epoch(), &window.held().sealed[..]),
        (next, &b"first"[..])
    );
    window
}

/// Such a window with everything acknowledged up to `edge`, two packets at a time.
fn acknowledged_up_to(edge: u64) -> (Window, Instant) {
    let (mut window, now) = (opened(), Instant::from_micros(0));
    while window.edge() < edge {
        assert!(window.receive(window.edge() + 1, 0, 1));
        let interval = window.next_interval(now, 2).unwrap();
        window.asked(interval.first + u64::from(interval.count) - 1);
    }
    (window, now)
}

#[test]
fn of_the_copies_that_open_an_epoch_the_first_counts() {
    let (mut window, later) = (opened(), Instant::from_micros(9));
    let epoch = *window.epoch();
    window.hold(epoch, 1, b"second", true, later);
    assert_eq!(window.held().sealed, b"first");
    window.hold(epoch, 1, b"fresher", false, later);
    assert_eq!(
        (&window.held().sealed[..], window.held().since),
        (&b"fresher"[..], later)
    );
    window.hold(Epoch::opening(1), 1, b"older", false, later);
    assert_eq!(window.held().sealed, b"fresher");
}

#[test]
fn what_would_be_a_hole_too_many_waits() {
    let (mut window, now) = acknowledged_up_to(60);
    let base = window.edge();
    let mut largest = base;
    let x = |n: u64| 1 << (n % 64);
    window.asked(base + 200);
    // Holes of three numbers, each followed by one that came.
    for hole in 0..MAX_PENDING_SPANS as u64 {
        largest = base + 4 + 4 * hole;
        assert!(window.receive(largest, 0, x(largest)));
        assert!(window.next_interval(now, 44).is_some(), "{hole}");
        assert_eq!(window.is_crowded(), hole >= 3, "{hole}");
    }
    assert_eq!(window.edge(), largest);
    let middle = base + 2;
    assert!(window.receive(middle, 0, x(middle)));
    assert!(!window.receive(middle, 0, x(middle)), "known");
    assert_eq!(window.holes().len(), MAX_PENDING_SPANS);
    assert_eq!(window.evidence().proof & x(middle), 0, "not folded yet");
    // Another hole closes, so there is room for the halves of the first.
    for n in base + 5..base + 8 {
        assert!(window.receive(n, 0, x(n)));
    }
    assert_eq!(window.holes().len(), MAX_PENDING_SPANS);
    assert_eq!(window.evidence().proof & x(middle), x(middle));
}

#[test]
fn so_many_numbers_wait_and_no_more() {
    let mut window = opened();
    let base = window.epoch().base;
    window.asked(base + 1000);
    window.waiting = (500..499 + MAX_WAITING as u64)
        .map(|n| {
            (
                Span {
                    start: n,
                    end: n + 1,
                },
                0,
            )
        })
        .collect();
    for hole in 0..MAX_PENDING_SPANS as u64 {
        window.holes.insert(Span {
            start: base + 1 + 6 * hole,
            end: base + 6 + 6 * hole,
        });
    }
    window.edge = base + 100;
    assert!(window.receive(base + 2, 0, 1), "at the bound");
    assert!(!window.receive(base + 4, 0, 1), "past it");
}

/// Numbers are given away where a request has no room for more holes, but not below the quarter
/// that must be proven.
#[test]
fn what_is_given_away_leaves_a_quarter() {
    let (mut window, now) = acknowledged_up_to(250);
    assert!(window.declare(TransitionKind::Loss, 40_000));
    let (p, r) = (window.edge(), window.event().unwrap().transition.r);
    for n in (p + 3..=window.highest()).step_by(3) {
        assert!(window.receive(n, 0, 1));
    }
    let zone = |window: &Window| window.holes().into_iter().filter(|hole| hole.start > p);
    let mut most = 0;
    while window.next_interval(now, 8).is_some() {
        most = most.max(zone(&window).count());
        let missing: u64 = zone(&window).map(|hole| hole.len()).sum();
        assert!(
            4 * missing <= 3 * (window.edge() - p),
            "{missing} up to {}",
            window.edge()
        );
    }
    assert_eq!(most, MAX_ZONE_SPANS);
    assert!(window.edge() < r, "the rest cannot be shown");
}

/// One packet may prove a stretch whose acknowledgement releases more than one flight.
#[test]
fn a_long_void_stretch_is_acknowledged_in_parts() {
    let (window, now) = acknowledged_up_to(60);
    for void in 0..u64::from(MAX_FLIGHT) {
        let mut window = window.clone();
        let (edge, mut next) = (window.edge(), window.highest() + 1);
        assert!(window.receive(edge + 1, void, 2));
        while let Some(interval) = window.next_interval(now, MAX_FLIGHT) {
            assert_eq!(interval.first, next);
            assert!((1..=MAX_FLIGHT).contains(&interval.count));
            next += u64::from(interval.count);
        }
        assert_eq!(window.edge(), edge + 1 + void);
        assert_eq!(next, window.epoch().edge(window.edge()) + 1, "void {void}");
    }
}

/// A window in slow start with everything acknowledged up to 60, and an event declared there.
fn with_event(kind: TransitionKind) -> (Window, Epoch, Instant) {
    let (mut window, now) = acknowledged_up_to(60);
    let epoch = *window.epoch();
    assert!(window.declare(kind, 40_000));
    (window, epoch, now)
}

/// The numbers that a pending request was to release are missing in one range at the beginning of a
/// zone: the proof reaches beyond it, as long as a quarter is there.
#[test]
fn a_zone_whose_first_stretch_is_missing_is_passed() {
    for (per_cent, passes) in [(0, true), (50, true), (74, true), (77, false)] {
        let (mut window, _, now) = with_event(TransitionKind::Loss);
        let transition = window.event().unwrap().transition;
        let (p, r) = (transition.p, transition.r);
        let missing = (r - p) * per_cent / 100;
        for n in p + missing + 1..=r {
            assert!(window.receive(n, 0, 1));
        }
        let (mut after, mut next) = (p, r + 1);
        while let Some(interval) = window.next_interval(now, 2) {
            assert_eq!((interval.after, interval.first), (after, next));
            (after, next) = (interval.upto, next + u64::from(interval.count));
            let reach = window.evidence().reach;
            assert!(reach >= interval.upto);
            assert!(4 * missing.min(reach - p) <= 3 * (reach - p), "{reach}");
        }
        let whole = (r, r + 1 + u64::from(transition.next.c));
        assert_eq!((after, next) == whole, passes, "{per_cent} %: {after}");
        assert_eq!(window.event().unwrap().is_passed(), passes);
    }
}

/// Evidence of the epoch before an event, and of its zone, is kept as it was.
#[test]
fn evidence_is_kept_across_an_event() {
    let (mut window, epoch, now) = with_event(TransitionKind::Loss);
    let declared = window.evidence().declared;
    let transition = window.event().unwrap().transition;
    assert!(declared.is_some());
    let before = window.evidence_for(None, &epoch).unwrap();
    assert_eq!((before.proof, before.reach), (window.proof, 60));
    for n in 61..=transition.r {
        assert!(window.receive(n, 0, 1 << 20 | n));
    }
    while window.next_interval(now, 44).is_some() {}
    let zone = window.evidence();
    assert_ne!(zone.proof, before.proof);
    window.hold(transition.next, 60, b"next", true, now);
    assert!(window.event().is_none());
    for (name, declared, releases, want) in [
        ("before", None, &epoch, Some((before.proof, 60))),
        (
            "zone",
            declared,
            &transition.next,
            Some((zone.proof, transition.r)),
        ),
        ("present", None, &transition.next, Some((0, transition.r))),
        ("never", declared, &epoch, None),
    ] {
        let found = window.evidence_for(declared, releases);
        let found = found.map(|kept| (kept.proof, kept.reach));
        assert_eq!(found, want, "{name}");
    }
    assert!(window.declare(TransitionKind::Timeout, 40_000));
    assert!(window.evidence_for(None, &epoch).is_none(), "given up");
}
