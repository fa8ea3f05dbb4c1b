//! Parses the transport's datagrams for the checker, with the cluster's keys.
//!
//! In: datagrams as servers receive and clients are sent them. Out: the numbers that a request
//! proves, and those it is entitled to by the bound of the send edge: under an epoch `e` no number
//! above `G_e(k)`, where everything after the epoch's base up to `k` is proven, except pending
//! numbers and those of a declared event; a transition opens at most its window `c` beyond its `R`.
//! The rules are implemented here independently of the server's check: only `G` itself and the
//! values of a transition are shared, since they are the protocol.

use std::time::Duration;

use super::check::{Claim, Excess, Grant, Judge};
use super::world::START;
use crate::time::{Instant, UnixMillis, micros};
use crate::transport::continuation::{Continuation, MAX_AGE, MAX_CLOCK_SKEW};
use crate::transport::curve::Curve;
use crate::transport::epoch::{Declaration, Epoch, KNOWN_WINDOW, Transition, TransitionKind};
use crate::transport::keys::KeyRing;
use crate::wire::flight::UdpPath;
use crate::wire::segment::{Declared, Request, Span, ToClient, ToServer};

/// A judge that opens everything that any server of the cluster may open.
#[derive(Clone, Debug)]
pub struct TransportJudge {
    keys: KeyRing,
}

impl TransportJudge {
    /// Creates a judge; `keys` holds every generation that any server uses in the run.
    #[must_use]
    pub const fn new(keys: KeyRing) -> Self {
        Self { keys }
    }

    fn request(&self, now: Instant, request: &Request<'_>) -> Option<Claim> {
        let unix = START.as_millis() + micros(now.saturating_since(Instant::ZERO)) / 1000;
        // A server may be ahead of the world by the skew; the judge must know all that it accepts.
        let ahead = UnixMillis::new(unix + millis(MAX_CLOCK_SKEW));
        let opened = Continuation::open(
            &self.keys,
            request.connection,
            ahead,
            MAX_AGE + 2 * MAX_CLOCK_SKEW,
            request.continuation,
        );
        let (continuation, issued) = opened.ok()?;
        let shown = Shown {
            epoch: continuation.epoch,
            proof_base: continuation.proof_base,
            curve_ms: curve_ms(&continuation, issued),
        };
        Some(match request.declared {
            None => in_epoch(&shown, request),
            Some(declared) => declaring(&shown, declared, request),
        })
    }
}

impl Judge for TransportJudge {
    fn claim(&self, now: Instant, _path: UdpPath, payload: &[u8]) -> Option<Claim> {
        match ToServer::parse(payload).ok()? {
            // Nothing is proven yet; at most an initial window is sent, and never filtered, since
            // the same OPEN gets the same numbers again.
            ToServer::Open(_) => Some(Claim {
                connection: None,
                proven: Vec::new(),
                allowed: Span {
                    start: 1,
                    end: 1 + u64::from(KNOWN_WINDOW),
                },
                once: false,
                excess: None,
            }),
            ToServer::Request(request) => self.request(now, &request),
        }
    }

    fn grant(&self, payload: &[u8]) -> Option<Grant> {
        let ToClient::Response(response) = ToClient::parse(payload).ok()? else {
            return None;
        };
        // Numbers of a simulated run stay below 2^32.
        let number = u64::from(response.header.number);
        let end = number + 1 + u64::from(response.header.void);
        Some(Grant {
            connection: response.header.connection,
            numbers: Span { start: number, end },
            x: response.header.x,
        })
    }

    fn amplification(&self) -> Option<usize> {
        Some(3)
    }

    fn wait(&self, payload: &[u8]) -> Option<(u64, u64)> {
        match ToClient::parse(payload).ok()? {
            ToClient::Wait(wait) => Some((wait.connection, wait.number.into())),
            ToClient::Response(_) | ToClient::Challenge(_) | ToClient::Probed(_) => None,
        }
    }
}

/// The part of a continuation that bounds a request.
struct Shown {
    epoch: Epoch,
    proof_base: u64,
    /// The time on the curve that it pays for, in milliseconds.
    curve_ms: u64,
}

/// A second and a round trip, and 17/16 of real time from the start up to the issue; less the debt.
fn curve_ms(continuation: &Continuation, issued: UnixMillis) -> u64 {
    let (Curve::SlowStart { rtt_us, .. } | Curve::Cubic { rtt_us, .. }) = continuation.epoch.curve;
    let (start, issued) = (continuation.curve_start.as_millis(), issued.as_millis());
    let lead = 1000 + u64::from(rtt_us).div_ceil(1000);
    let paid = (17 * issued.saturating_sub(start)).div_ceil(16);
    (lead + paid).saturating_sub(start.saturating_sub(issued))
}

fn in_epoch(shown: &Shown, request: &Request<'_>) -> Claim {
    let epoch = &shown.epoch;
    let (after, upto, reach) = (request.after, request.upto, request.reach);
    let interval = Span {
        start: after + 1,
        end: upto + 1,
    };
    let inside = epoch.base <= after && after <= upto && upto <= reach;
    let unproven = request.holes.iter().any(|hole| overlap(hole, &interval));
    let excess = [
        (!inside || unproven).then_some(Excess::Interval),
        // A probe releases nothing.
        match request.probe {
            Some(_) => None,
            None => pending(epoch, shown.proof_base, &request.holes, reach),
        },
        ahead(shown, upto),
    ];
    Claim {
        connection: Some(request.connection),
        proven: proven(shown.proof_base, reach, &request.holes),
        allowed: Span {
            start: epoch.edge(after) + 1,
            end: epoch.edge(upto) + 1,
        },
        once: true,
        excess: excess.into_iter().flatten().next(),
    }
}

fn declaring(shown: &Shown, declared: Declared, request: &Request<'_>) -> Claim {
    let epoch = &shown.epoch;
    let Declared {
        kind,
        edge: p,
        rtt_us,
    } = declared;
    let transition = TransitionKind::from_code(kind)
        .and_then(|kind| epoch.transition(Declaration { kind, p, rtt_us }).ok());
    let Some(transition) = transition else {
        return Claim {
            connection: Some(request.connection),
            proven: Vec::new(),
            allowed: Span { start: 1, end: 1 },
            once: true,
            excess: Some(Excess::Declaration),
        };
    };
    let (after, upto) = (request.after, request.upto);
    let zone = transition.kind.has_zone();
    let (base, end) = proven_range(shown, &transition, request);
    let forgives_none = base_kept(transition.kind);
    let inside = p <= after && after <= upto && upto <= transition.r;
    let whole = after == p && upto == transition.r;
    let quarter = match transition.kind {
        TransitionKind::Loss | TransitionKind::Ce | TransitionKind::Exit => {
            quarter(p, end, &request.holes)
        }
        TransitionKind::Opened
        | TransitionKind::Timeout
        | TransitionKind::Restart
        | TransitionKind::Move => None,
    };
    let before: Vec<Span> = request
        .holes
        .iter()
        .filter(|hole| hole.start <= p.min(end))
        .copied()
        .collect();
    let excess = [
        (!inside || !(zone || whole || request.probe.is_some())).then_some(Excess::Interval),
        quarter,
        // An abandoned range may have had a zone's holes before it.
        if forgives_none {
            let restarts = transition.kind == TransitionKind::Restart;
            (!before.is_empty() || restarts && !request.holes.is_empty())
                .then_some(Excess::Forgiven)
        } else if zone {
            pending(epoch, base, &before, p.min(end))
        } else {
            quarter_of_epoch(epoch, p, request)
        },
        zone.then(|| ahead(shown, p.min(upto))).flatten(),
    ];
    Claim {
        connection: Some(request.connection),
        proven: proven(base, end, &request.holes),
        allowed: Span {
            start: zone_edge(&transition, after) + 1,
            end: zone_edge(&transition, upto) + 1,
        },
        once: transition.kind != TransitionKind::Timeout && request.probe.is_none(),
        excess: excess.into_iter().flatten().next(),
    }
}

/// Whether an event of this kind forgives no loss, so that its proof begins where that of the epoch does.
const fn base_kept(kind: TransitionKind) -> bool {
    matches!(
        kind,
        TransitionKind::Ce | TransitionKind::Exit | TransitionKind::Restart
    )
}

/// The range `(base, end]` that a request with a declaration must prove.
fn proven_range(shown: &Shown, transition: &Transition, request: &Request<'_>) -> (u64, u64) {
    let end = match transition.kind {
        TransitionKind::Timeout | TransitionKind::Move => transition.p,
        TransitionKind::Restart => transition.r,
        TransitionKind::Opened
        | TransitionKind::Loss
        | TransitionKind::Ce
        | TransitionKind::Exit => request.reach.min(transition.r),
    };
    match base_kept(transition.kind) {
        true => (shown.proof_base, end),
        false => (shown.epoch.base, end),
    }
}

/// Returns `R + ⌊(k − p)·c / (R − p)⌋` in a zone; everything at once where it is abandoned.
fn zone_edge(transition: &Transition, k: u64) -> u64 {
    let Transition { p, r, .. } = *transition;
    let c = u64::from(transition.next.c);
    let k = k.clamp(p, r);
    let share = match transition.kind.has_zone() {
        true => u128::from(k - p) * u128::from(c) / u128::from((r - p).max(1)),
        false => u128::from(u64::from(k == r) * c),
    };
    r + u64::try_from(share).unwrap_or(c).min(c)
}

/// Checks the pending numbers: a bounded count, in 8 ranges, none older than two windows.
fn pending(epoch: &Epoch, base: u64, holes: &[Span], k: u64) -> Option<Excess> {
    let outside = |hole: &Span| hole.start <= base || old(epoch, hole, k) || hole.end > k + 1;
    let count: u64 = holes.iter().map(Span::len).sum();
    let many = holes.len() > 8 || count > most_pending(epoch, k);
    (many || holes.iter().any(outside)).then_some(Excess::Pending)
}

/// Whether a hole lies two windows behind `k`, by the window at the hole.
fn old(epoch: &Epoch, hole: &Span, k: u64) -> bool {
    hole.start + 2 * u64::from(epoch.window(hole.start)) <= k
}

fn most_pending(epoch: &Epoch, k: u64) -> u64 {
    (u64::from(epoch.window(k)) / 2).max(44)
}

/// Checks that at least a quarter of `(p, end]` is proven.
fn quarter(p: u64, end: u64, holes: &[Span]) -> Option<Excess> {
    let all = end.saturating_sub(p);
    let missing: u64 = holes
        .iter()
        .filter(|hole| hole.start > p)
        .map(Span::len)
        .sum();
    (4 * all.saturating_sub(missing) < all).then_some(Excess::Quarter)
}

/// Checks an abandoned range, which may follow a zone that was itself abandoned: in addition to the
/// pending numbers, a quarter must be proven.
fn quarter_of_epoch(epoch: &Epoch, p: u64, request: &Request<'_>) -> Option<Excess> {
    let holes = &request.holes;
    let before = p.saturating_sub(epoch.window(p).into());
    let beyond =
        |hole: &Span| hole.end > p + 1 || hole.start <= epoch.base || old(epoch, hole, before);
    if holes.iter().any(beyond) {
        return Some(Excess::Pending);
    }
    let missing: u64 = holes.iter().map(Span::len).sum();
    let beside = missing.saturating_sub(most_pending(epoch, p));
    (4 * beside > 3 * (p - epoch.base)).then_some(Excess::Quarter)
}

/// Checks the curve against the time that the continuation pays for.
fn ahead(shown: &Shown, k: u64) -> Option<Excess> {
    let us = shown.epoch.elapsed_us(k);
    (us > 1000 * (shown.curve_ms + 1)).then_some(Excess::Ahead)
}

/// Returns `(base, upto]` without the holes, which ascend.
fn proven(base: u64, upto: u64, holes: &[Span]) -> Vec<Span> {
    let mut start = base + 1;
    let mut spans = Vec::new();
    for hole in holes.iter().chain(&[Span {
        start: upto + 1,
        end: upto + 2,
    }]) {
        let end = hole.start.min(upto + 1);
        if start < end {
            spans.push(Span { start, end });
        }
        start = start.max(hole.end);
    }
    spans
}

const fn overlap(a: &Span, b: &Span) -> bool {
    a.start < b.end && b.start < a.end
}

fn millis(duration: Duration) -> u64 {
    micros(duration) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    #[test]
    fn what_is_proven_leaves_the_holes_out() {
        for (name, holes, want) in [
            ("whole", vec![], vec![span(11, 21)]),
            (
                "middle",
                vec![span(13, 15)],
                vec![span(11, 13), span(15, 21)],
            ),
            ("ends", vec![span(11, 12), span(20, 21)], vec![span(12, 20)]),
            ("all", vec![span(11, 21)], vec![]),
            ("beyond", vec![span(18, 30)], vec![span(11, 18)]),
        ] {
            assert_eq!(proven(10, 20, &holes), want, "{name}");
        }
    }

    #[test]
    fn a_zone_opens_c_numbers_evenly() {
        let epoch = Epoch::opening(3);
        let declaration = Declaration::new(TransitionKind::Opened, 0, 1000);
        let transition = epoch.transition(declaration).unwrap();
        let (r, c) = (transition.r, u64::from(transition.next.c));
        assert_eq!(zone_edge(&transition, 0), r);
        assert_eq!(zone_edge(&transition, r), r + c);
        for k in 0..=r {
            assert_eq!(zone_edge(&transition, k), transition.edge(k), "at {k}");
        }
    }

    #[test]
    fn what_may_be_pending_has_edges() {
        let epoch = Epoch {
            base: 1000,
            ..Epoch::opening(10)
        };
        let k = 1100;
        let w = u64::from(epoch.window(k));
        assert!(w / 2 > 44);
        let most = w / 2;
        for (name, holes, want) in [
            ("none", vec![], None),
            ("most", vec![span(1032, 1032 + most)], None),
            (
                "one more",
                vec![span(1032, 1033 + most)],
                Some(Excess::Pending),
            ),
            ("base", vec![span(1000, 1001)], Some(Excess::Pending)),
            ("two windows", vec![span(1028, 1029)], None),
            ("older", vec![span(1026, 1027)], Some(Excess::Pending)),
            ("last", vec![span(1100, 1101)], None),
            (
                "past the last",
                vec![span(1100, 1102)],
                Some(Excess::Pending),
            ),
            (
                "stretches",
                (0..8).map(|n| span(1050 + 2 * n, 1051 + 2 * n)).collect(),
                None,
            ),
            (
                "too many stretches",
                (0..9).map(|n| span(1050 + 2 * n, 1051 + 2 * n)).collect(),
                Some(Excess::Pending),
            ),
        ] {
            assert_eq!(pending(&epoch, epoch.base, &holes, k), want, "{name}");
        }
    }

    #[test]
    fn a_quarter_is_enough_and_less_is_not() {
        assert_eq!(quarter(10, 18, &[span(11, 17)]), None);
        assert_eq!(quarter(10, 18, &[span(11, 18)]), Some(Excess::Quarter));
        assert_eq!(quarter(10, 10, &[]), None);
        assert_eq!(
            quarter(10, 18, &[span(2, 9)]),
            None,
            "older holes are others' affair"
        );
    }
}
