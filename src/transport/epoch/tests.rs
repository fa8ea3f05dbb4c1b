//! Tests of epochs and transitions: tables of every kind and refusal, and the laws of the send
//! edge on random walks through epochs, zones and superseded events.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const RTT: u32 = 40_000;

const fn cubic(base: u64, c: u32, w_max: u32) -> Epoch {
    Epoch {
        base,
        c,
        curve: Curve::Cubic { w_max, rtt_us: RTT },
    }
}

const fn slow_start(base: u64, c: u32, threshold: u32) -> Epoch {
    Epoch {
        base,
        c,
        curve: Curve::SlowStart {
            threshold,
            rtt_us: RTT,
        },
    }
}

fn declare(epoch: Epoch, kind: TransitionKind, p: u64) -> Result<Transition, EpochError> {
    epoch.transition(Declaration {
        kind,
        p,
        rtt_us: RTT,
    })
}

const GROWING: Epoch = slow_start(100, 10, MAX_WINDOW);
const REDUCED: Epoch = cubic(100, 70, 100);
const SMALLEST: Epoch = cubic(100, 2, 2);

/// Name, epoch, kind, p, W(p), the next epoch.
#[rustfmt::skip]
const TRANSITIONS: [(&str, Epoch, TransitionKind, u64, u32, Epoch); 22] = [
    ("opened", Epoch::opening(3), TransitionKind::Opened, 0, 3, slow_start(3, 10, MAX_WINDOW)),
    ("opened with one", Epoch::opening(1), TransitionKind::Opened, 0, 1, slow_start(1, 10, MAX_WINDOW)),
    ("the initial window", Epoch::opening(5), TransitionKind::Opened, 0, 5, slow_start(5, 10, MAX_WINDOW)),
    ("opened with ten", Epoch::opening(10), TransitionKind::Opened, 0, 10, slow_start(10, 20, MAX_WINDOW)),
    ("known", Epoch::opening(KNOWN_WINDOW), TransitionKind::Opened, 0, 12, slow_start(12, 24, MAX_WINDOW)),
    ("opened at the largest", Epoch::opening(MAX_WINDOW), TransitionKind::Opened, 0, MAX_WINDOW,
        slow_start(MAX_WINDOW as u64, MAX_WINDOW, MAX_WINDOW)),
    ("loss in slow start", GROWING, TransitionKind::Loss, 121, 31, cubic(152, 21, 31)),
    ("loss below the plateau", REDUCED, TransitionKind::Loss, 100, 70, cubic(170, 49, 59)),
    ("loss at the plateau", cubic(100, 80, 90), TransitionKind::Loss, 1706, 90, cubic(1796, 63, 90)),
    ("loss before any growth", cubic(100, 90, 90), TransitionKind::Loss, 100, 90, cubic(190, 63, 76)),
    ("loss of the smallest", SMALLEST, TransitionKind::Loss, 100, 2, cubic(102, 2, 1)),
    ("mark in slow start", GROWING, TransitionKind::Ce, 121, 31, cubic(152, 26, 31)),
    ("mark below the plateau", REDUCED, TransitionKind::Ce, 100, 70, cubic(170, 59, 59)),
    ("mark at the smallest", SMALLEST, TransitionKind::Ce, 100, 2, cubic(102, 2, 1)),
    ("exit", GROWING, TransitionKind::Exit, 121, 31, cubic(152, 26, 26)),
    ("exit at the smallest", slow_start(100, 2, MAX_WINDOW), TransitionKind::Exit, 100, 2, cubic(102, 2, 2)),
    ("timeout", GROWING, TransitionKind::Timeout, 121, 31, slow_start(152, 2, 21)),
    ("timeout of the smallest", SMALLEST, TransitionKind::Timeout, 100, 2, slow_start(102, 2, 2)),
    ("restart", REDUCED, TransitionKind::Restart, 100, 70, slow_start(170, 10, 70)),
    ("restart of a small window", cubic(9, 4, 5), TransitionKind::Restart, 9, 4, slow_start(13, 4, 4)),
    ("move", REDUCED, TransitionKind::Move, 100, 70, slow_start(170, 10, 49)),
    ("move of a small window", cubic(9, 10, 12), TransitionKind::Move, 9, 10, slow_start(19, 7, 7)),
];

#[test]
fn every_kind_leads_to_the_epoch_of_the_table() {
    for (name, epoch, kind, p, w, next) in TRANSITIONS {
        let want = Transition {
            kind,
            p,
            r: p + u64::from(w),
            w,
            next,
        };
        assert_eq!(declare(epoch, kind, p), Ok(want), "{name}");
    }
}

const FAR: Epoch = slow_start(MAX_NUMBER - 20, 10, MAX_WINDOW);
const SHORT: Epoch = slow_start(9, 4, 8);

#[rustfmt::skip]
const REFUSED: [(&str, Epoch, TransitionKind, u64, EpochError); 6] = [
    ("before the base", SHORT, TransitionKind::Loss, 8, EpochError::BeforeEpoch { p: 8, base: 9 }),
    ("opened late", Epoch::opening(3), TransitionKind::Opened, 1, EpochError::NotOpening { p: 1 }),
    ("opened again", SHORT, TransitionKind::Opened, 9, EpochError::NotOpening { p: 9 }),
    ("exit from CUBIC", REDUCED, TransitionKind::Exit, 100, EpochError::NotSlowStart { p: 100 }),
    ("exit at the threshold", SHORT, TransitionKind::Exit, 13, EpochError::NotSlowStart { p: 13 }),
    ("beyond", FAR, TransitionKind::Loss, MAX_NUMBER - 14, EpochError::NumberTooLarge { r: MAX_NUMBER + 2 }),
];

#[test]
fn no_declaration_that_an_honest_client_would_not_make() {
    for (name, epoch, kind, p, want) in REFUSED {
        assert_eq!(declare(epoch, kind, p), Err(want), "{name}");
    }
    assert!(declare(SHORT, TransitionKind::Exit, 12).is_ok());
    assert_eq!(
        declare(FAR, TransitionKind::Loss, MAX_NUMBER - 15).map(|next| next.r),
        Ok(MAX_NUMBER)
    );
}

#[test]
fn round_trips_out_of_range_are_refused_or_clamped() {
    for (rtt_us, fine) in [
        (0, false),
        (1, true),
        (MAX_RTT_US, true),
        (MAX_RTT_US + 1, false),
    ] {
        let declared = Declaration {
            kind: TransitionKind::Loss,
            p: 9,
            rtt_us,
        };
        let want = if fine {
            None
        } else {
            Some(EpochError::RoundTrip { rtt_us })
        };
        assert_eq!(SHORT.transition(declared).err(), want);
        assert!(
            SHORT
                .transition(Declaration::new(TransitionKind::Loss, 9, rtt_us.into()))
                .is_ok()
        );
    }
    assert_eq!(
        Declaration::new(TransitionKind::Loss, 9, u64::MAX).rtt_us,
        MAX_RTT_US
    );
}

#[test]
fn codes_and_labels_are_distinct() {
    for (index, kind) in TransitionKind::ALL.into_iter().enumerate() {
        assert_eq!(TransitionKind::from_code(kind.code()), Some(kind));
        assert_eq!(usize::from(kind.code()), index + 1);
        assert_eq!(
            TransitionKind::ALL
                .iter()
                .filter(|other| other.label() == kind.label())
                .count(),
            1
        );
    }
    assert_eq!(TransitionKind::from_code(0), None);
    assert_eq!(TransitionKind::from_code(8), None);
}

#[test]
fn a_zone_shrinks_the_flight_evenly() {
    let zone = declare(slow_start(100, 10, MAX_WINDOW), TransitionKind::Loss, 100).unwrap();
    let edges: Vec<u64> = (100..=110).map(|k| zone.edge(k)).collect();
    assert_eq!(
        edges,
        [110, 110, 111, 112, 112, 113, 114, 114, 115, 116, 117]
    );
    assert_eq!((zone.edge(0), zone.edge(u64::MAX)), (110, 117));
    assert_eq!(zone.released(100, 104), 111..113);
    assert!(zone.released(100, 101).is_empty());
}

#[test]
fn what_is_given_up_is_acknowledged_at_once() {
    let given_up = declare(
        slow_start(100, 10, MAX_WINDOW),
        TransitionKind::Restart,
        100,
    )
    .unwrap();
    assert_eq!(
        (given_up.edge(100), given_up.edge(109), given_up.edge(110)),
        (110, 110, 120)
    );
    assert_eq!(given_up.max_ack(100, 100, 2), 110);
    assert_eq!(given_up.released(100, 110), 111..121);
}

#[test]
fn one_number_is_acknowledged_even_if_it_releases_more_than_the_budget() {
    let opened = declare(Epoch::opening(1), TransitionKind::Opened, 0).unwrap();
    assert_eq!(opened.max_ack(0, 1, 2), 1);
    assert_eq!(opened.max_ack(0, 0, 2), 0);
    let growing = slow_start(100, 10, MAX_WINDOW);
    assert_eq!(growing.max_ack(100, 110, 1), 101);
    assert_eq!(growing.max_ack(100, 110, 0), 101);
    assert_eq!(growing.max_ack(100, 110, 7), 103);
    assert_eq!(growing.max_ack(100, 100, 7), 100);
    assert_eq!(growing.max_ack(100, 99, 7), 100);
}

/// An event of a walk: the distance to it, the split of the interval before it, and the event.
#[derive(Clone, Debug)]
struct WalkEvent {
    advance: u64,
    kind: TransitionKind,
    rtt_us: u32,
    /// Sizes of the intervals, used in turn.
    splits: Vec<u64>,
    /// Events that supersede this one in its zone: numbers before each, and its kind.
    superseded: Vec<(u64, TransitionKind)>,
}

fn kind() -> impl Strategy<Value = TransitionKind> {
    (1..=6_u8).prop_map(|code| TransitionKind::from_code(code).unwrap())
}

fn event() -> impl Strategy<Value = WalkEvent> {
    let rtt = prop_oneof![Just(MIN_RTT_US), Just(RTT), Just(MAX_RTT_US)];
    (
        0..300_u64,
        kind(),
        rtt,
        vec(1..60_u64, 1..8),
        vec((0..60_u64, kind()), 0..3),
    )
        .prop_map(|(advance, kind, rtt_us, splits, superseded)| WalkEvent {
            advance,
            kind,
            rtt_us,
            splits,
            superseded,
        })
}

/// A connection from the view of all servers together: the numbers released, and how often.
struct Walk {
    epoch: Epoch,
    released: Vec<u32>,
    /// Numbers that a superseded event would have released and that are never sent.
    given_up: Vec<Range<u64>>,
}

impl Walk {
    fn new(opening: u32) -> Self {
        let mut walk = Self {
            epoch: Epoch::opening(opening),
            released: Vec::new(),
            given_up: Vec::new(),
        };
        walk.release(1..u64::from(opening) + 1);
        walk
    }

    fn release(&mut self, range: Range<u64>) {
        for number in range {
            let at = usize::try_from(number).unwrap();
            self.released.resize(self.released.len().max(at + 1), 0);
            self.released[at] += 1;
        }
    }

    /// Acknowledges `(from, to]` in intervals, last one first: the order must not matter.
    fn acknowledge(
        &mut self,
        (from, to): (u64, u64),
        splits: &[u64],
        released: impl Fn(u64, u64) -> Range<u64>,
    ) {
        let (mut i, mut intervals) = (from, Vec::new());
        for size in splits.iter().cycle() {
            let k = to.min(i + size);
            intervals.push((i, k));
            i = k;
            if i == to {
                break;
            }
        }
        for (i, k) in intervals.into_iter().rev() {
            self.release(released(i, k));
        }
    }

    /// The transition of `kind`, or of a loss where that kind is refused.
    fn declare(&self, kind: TransitionKind, p: u64, rtt_us: u32) -> Transition {
        let with = |kind| self.epoch.transition(Declaration { kind, p, rtt_us });
        with(kind).or_else(|_| with(TransitionKind::Loss)).unwrap()
    }

    fn step(&mut self, event: &WalkEvent) {
        let epoch = self.epoch;
        let advance = if event.kind == TransitionKind::Opened {
            0
        } else {
            event.advance
        };
        let p = epoch.base + advance;
        self.acknowledge((epoch.base, p), &event.splits, |i, k| epoch.released(i, k));
        let mut passage = self.declare(event.kind, p, event.rtt_us);
        for &(passed, kind) in &event.superseded {
            let now = passage;
            let p = now.p + passed;
            if !now.kind.has_zone() || p >= now.r || kind == TransitionKind::Opened {
                continue;
            }
            self.acknowledge((now.p, p), &event.splits, |i, k| now.released(i, k));
            passage = self.declare(kind, p, event.rtt_us);
            assert!(now.edge(p) <= passage.r, "{now:?} overtook {passage:?}");
            self.given_up.push(now.edge(p) + 1..passage.r + 1);
        }
        if passage.kind.has_zone() {
            let zone = (passage.p, passage.r);
            self.acknowledge(zone, &event.splits, |i, k| passage.released(i, k));
        } else {
            self.release(passage.released(passage.p, passage.r));
        }
        self.epoch = passage.next;
    }
}

fn epoch() -> impl Strategy<Value = Epoch> {
    let window = || prop_oneof![2..100_u32, 2..=MAX_WINDOW];
    (
        1..1_u64 << 50,
        window(),
        window(),
        1..=MAX_RTT_US,
        any::<bool>(),
    )
        .prop_map(|(base, c, w, rtt_us, slow)| {
            let curve = if slow {
                Curve::SlowStart {
                    threshold: w,
                    rtt_us,
                }
            } else {
                Curve::Cubic { w_max: w, rtt_us }
            };
            Epoch { base, c, curve }
        })
}

fn any_epoch() -> impl Strategy<Value = Epoch> {
    (any::<u64>(), any::<[u32; 3]>(), any::<bool>(), 0..64_u32).prop_map(
        |(base, [c, window, rtt_us], slow, shift)| {
            let curve = if slow {
                Curve::SlowStart {
                    threshold: window,
                    rtt_us,
                }
            } else {
                Curve::Cubic {
                    w_max: window,
                    rtt_us,
                }
            };
            Epoch {
                base: base >> shift,
                c,
                curve,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Law 1: through any sequence of transitions, each number up to the send edge is released
    /// exactly once, except those given up by superseded events, which are never released.
    #[test]
    fn every_number_is_released_once(
        opening in 1..=KNOWN_WINDOW, events in vec(event(), 1..10), last in 0..300_u64,
    ) {
        let mut walk = Walk::new(opening);
        for event in &events {
            walk.step(event);
        }
        let epoch = walk.epoch;
        let k = epoch.base + last;
        walk.acknowledge((epoch.base, k), &[7, 1, 44], |i, k| epoch.released(i, k));
        prop_assert_eq!(u64::try_from(walk.released.len()).unwrap(), epoch.edge(k) + 1);
        for (number, &times) in (0..).zip(&walk.released).skip(1) {
            let given_up = walk.given_up.iter().any(|range| range.contains(&number));
            prop_assert_eq!(times, u32::from(!given_up), "number {}", number);
        }
    }

    /// Law 3: the edge is continuous at both ends of a transition and never decreases between.
    #[test]
    fn the_edge_is_continuous_across_a_transition(
        epoch in epoch(), kind in kind(), advance in 0..100_000_u64, from in any::<u64>(),
    ) {
        let p = epoch.base + advance;
        if let Ok(passage) = declare(epoch, kind, p) {
            let Transition { r, w, next, .. } = passage;
            prop_assert_eq!((passage.kind, passage.p, r), (kind, p, epoch.edge(p)));
            prop_assert_eq!((passage.edge(p), r - p, w), (r, u64::from(w), epoch.window(p)));
            prop_assert_eq!(passage.edge(r), next.edge(r));
            prop_assert_eq!(next.edge(r), r + u64::from(next.c));
            prop_assert_eq!(next.window(next.base), next.c);
            let from = p + from % u64::from(w);
            let edges: Vec<u64> = (from..=r.min(from + 100)).map(|k| passage.edge(k)).collect();
            prop_assert!(edges.is_sorted() && passage.edge(r) >= edges[edges.len() - 1]);
            prop_assert!(!kind.has_zone() || edges.windows(2).all(|pair| pair[1] - pair[0] <= 1));
        }
    }

    /// Law 3: the declared RTT shapes the next curve and no number before it.
    #[test]
    fn the_round_trip_alters_no_number(
        epoch in epoch(), kind in kind(), advance in 0..100_000_u64, rtts in any::<[u64; 2]>(),
    ) {
        let p = epoch.base + advance;
        let [a, b] = rtts.map(|rtt| epoch.transition(Declaration::new(kind, p, rtt % 2_000_000)));
        prop_assert_eq!(a.is_ok(), b.is_ok());
        if let (Ok(a), Ok(b)) = (a, b) {
            prop_assert_eq!((a.r, a.w, a.next.base, a.next.c), (b.r, b.w, b.next.base, b.next.c));
            prop_assert_eq!(a.edge(p + 1), b.edge(p + 1));
        }
    }

    /// An event that supersedes another starts at or above every number released by the first.
    #[test]
    fn a_superseding_event_starts_above_what_was_released(
        epoch in epoch(), first in kind(), second in kind(), advance in 0..100_000_u64,
        passed in any::<u64>(),
    ) {
        let p = epoch.base + advance;
        if let Ok(first) = declare(epoch, first, p)
            && first.kind.has_zone()
        {
            let reached = p + passed % u64::from(first.w);
            if let Ok(second) = declare(epoch, second, reached) {
                prop_assert!(first.edge(reached) <= second.r);
            }
        }
    }

    #[test]
    fn max_ack_is_the_largest_within_the_budget(
        epoch in epoch(), kind in kind(), at in 0..50_000_u64, available in 0..100_u64,
        budget in 0..=44_u32,
    ) {
        let i = epoch.base + at;
        let want = |limit: u64, edge: &dyn Fn(u64) -> u64| {
            let within = |k: &u64| *k <= i + 1 || edge(*k) - edge(i) <= u64::from(budget);
            (i..=limit).take_while(within).last().unwrap()
        };
        let got = epoch.max_ack(i, i + available, budget);
        prop_assert_eq!(got, want(i + available, &|k| epoch.edge(k)));
        prop_assert!(got == i + available || got > i);
        if let Ok(zone) = declare(epoch, kind, epoch.base)
            && zone.kind.has_zone()
            && i <= zone.r
        {
            let limit = zone.r.min(i + available);
            prop_assert_eq!(zone.max_ack(i, i + available, budget), want(limit, &|k| zone.edge(k)));
        }
    }

    #[test]
    fn no_value_panics(
        epoch in any_epoch(), kind in kind(), numbers in any::<[u64; 3]>(), shift in 0..64_u32,
        rtt in any::<u32>(), budget in any::<u32>(),
    ) {
        let [i, k, p] = numbers.map(|number| number >> shift);
        let (low, high) = (i.min(k), i.max(k));
        prop_assert!(epoch.edge(low) <= epoch.edge(high));
        prop_assert!(epoch.elapsed_us(low) <= epoch.elapsed_us(high));
        prop_assert!(epoch.released(high, low).is_empty());
        prop_assert!(epoch.max_ack(i, k, budget) >= i);
        for rtt_us in [rtt, RTT] {
            if let Ok(passage) = epoch.transition(Declaration { kind, p, rtt_us }) {
                prop_assert!(passage.edge(low) <= passage.edge(high));
                prop_assert!(passage.edge(high) <= passage.next.edge(passage.r));
                prop_assert!((passage.p..=passage.r).contains(&passage.max_ack(i, k, budget)));
            }
        }
    }
}

/// The zone of `Opened` may grow by several numbers per arrival; an event that supersedes it must
/// start above them (for example a timeout after the first of three packets).
#[test]
fn an_event_in_the_opening_starts_above_what_was_released() {
    for first in 1..=16 {
        let epoch = Epoch::opening(first);
        let opened = declare(epoch, TransitionKind::Opened, 0).unwrap();
        assert_eq!(epoch.window(0), first);
        assert!(
            (0..99).all(|k| epoch.window(k) <= epoch.window(k + 1)),
            "{first}"
        );
        for k in 0..u64::from(first) {
            assert!(opened.edge(k) <= epoch.edge(k), "{first} {k}");
        }
    }
}
