//! Epochs, the send edge, and the transitions from one epoch to the next.
//!
//! In: an [`Epoch`], the numbers that a client proves to have received, the [`Declaration`] of an
//! event. Out: the packet numbers to release, and the next epoch. All of it is a pure function of its
//! arguments, so that any number of servers, and the client, release the same numbers from
//! any permutation or repetition of requests. Values come from the network: nothing here panics,
//! whatever they are. Whether a client may declare an event at all (proofs, time) is decided in
//! `grant`: those gates never change a number.
//! Source: `manual::protocol`; windows after an event: RFC 9438 §4.6-4.8, RFC 8511 (CE), RFC 5681
//! §3.1 (timeout) and §4.1 (restart), RFC 6928 §2 (opened).

#[cfg(test)]
mod tests;

use core::ops::Range;

use crate::transport::curve::{Curve, MAX_RTT_US, MAX_WINDOW, MIN_RTT_US, greatest};

/// Largest packet number at which an epoch may begin. Far beyond any transfer; it bounds sums of
/// numbers and windows to 64 bits.
pub const MAX_NUMBER: u64 = 1 << 62;

/// Smallest window of a connection whose address has just been proven, and largest after a restart,
/// in packets (RFC 6928 §2).
pub const INITIAL_WINDOW: u32 = 10;

/// First window of a client with an address token, in packets: two more than in RFC 6928.
/// `manual::deviations` has the reason.
pub const KNOWN_WINDOW: u32 = 12;

/// Smallest window after a loss or a timeout, in packets.
pub const MIN_WINDOW: u32 = 2;

/// A range of packet numbers with one window curve. Its *send edge* is `G(k) = k + W(k)`: a client
/// that proves receipt of `(base, k]` may be sent all numbers up to `G(k)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The number before the first of the epoch; 0 only for the opening epoch.
    pub base: u64,
    /// Window at `base` in packets, 1 to [`MAX_WINDOW`]; otherwise the nearest value in range.
    pub c: u32,
    /// The growth of the window.
    pub curve: Curve,
}

impl Epoch {
    /// The opening epoch, after a first answer of `packets` packets (1 to [`MAX_WINDOW`]).
    #[must_use]
    pub const fn opening(packets: u32) -> Self {
        let curve = Curve::SlowStart {
            threshold: MAX_WINDOW,
            rtt_us: MAX_RTT_US,
        };
        Self {
            base: 0,
            c: packets,
            curve,
        }
    }

    /// `W(k)`, the window in packets at acknowledgement edge `k`: 1 to [`MAX_WINDOW`], `c` at
    /// `base` and before, never decreasing.
    #[must_use]
    pub fn window(&self, k: u64) -> u32 {
        let n = k.saturating_sub(self.base);
        let window = self.curve.window(self.c, n);
        if self.base > 0 {
            return window;
        }
        // The zone of `Opened` grows faster than slow start after a short first answer. The
        // opening epoch's own edge must keep up with it: a timeout or a loss that supersedes
        // `Opened` starts from this edge and would release numbers again.
        let c = self.c.clamp(1, MAX_WINDOW);
        let k = u64::from(c).min(k);
        let zone = (u64::from(c) + zone_share(k, opened(c), c)).saturating_sub(k);
        u32::try_from(zone).unwrap_or(MAX_WINDOW).max(window)
    }

    /// `G(k)`, the last number to release when `(base, k]` is acknowledged. Never decreases; saturates
    /// at `u64::MAX`.
    #[must_use]
    pub fn edge(&self, k: u64) -> u64 {
        let k = k.max(self.base);
        k.saturating_add(u64::from(self.window(k)))
    }

    /// The least time in microseconds from the epoch's start in which an honest client acknowledges
    /// `k`; 0 in slow start.
    #[must_use]
    pub fn elapsed_us(&self, k: u64) -> u64 {
        self.curve.elapsed_us(self.c, k.saturating_sub(self.base))
    }

    /// Whether slow start grows the window at `k`.
    #[must_use]
    pub fn in_slow_start(&self, k: u64) -> bool {
        self.curve
            .in_slow_start(self.c, k.saturating_sub(self.base))
    }

    /// The numbers released by acknowledging `(i, k]` inside this epoch: `G(i) + 1 ..= G(k)`.
    #[must_use]
    pub fn released(&self, i: u64, k: u64) -> Range<u64> {
        numbers(self.edge(i), self.edge(k))
    }

    /// The edge to acknowledge in one request: the largest `k ≤ available` with
    /// `G(k) − G(i) ≤ budget`, but at least one number beyond `i` if one is available, else `i`.
    #[must_use]
    pub fn max_ack(&self, i: u64, available: u64, budget: u32) -> u64 {
        let i = i.max(self.base);
        let from = self.edge(i);
        // Every acknowledged number releases at least one.
        let span = available.saturating_sub(i).min(u64::from(budget.max(1)));
        let within =
            |x: u64| self.edge(i.saturating_add(x)).saturating_sub(from) <= u64::from(budget);
        let acknowledged = greatest(span, span, |x| x <= 1 || within(x));
        i.saturating_add(acknowledged)
    }

    /// Closes this epoch at an event declared by the client.
    ///
    /// # Errors
    /// [`EpochError`] if no honest client declares this in this epoch.
    pub fn transition(&self, declared: Declaration) -> Result<Transition, EpochError> {
        let Declaration { kind, p, rtt_us } = declared;
        if p < self.base {
            return Err(EpochError::BeforeEpoch { p, base: self.base });
        }
        if kind == TransitionKind::Opened && p != 0 {
            return Err(EpochError::NotOpening { p });
        }
        if kind == TransitionKind::Exit && !self.in_slow_start(p) {
            return Err(EpochError::NotSlowStart { p });
        }
        if !(MIN_RTT_US..=MAX_RTT_US).contains(&rtt_us) {
            return Err(EpochError::RoundTrip { rtt_us });
        }
        let (w, r) = (self.window(p), self.edge(p));
        if r > MAX_NUMBER {
            return Err(EpochError::NumberTooLarge { r });
        }
        let (c, curve) = self.after(kind, w, rtt_us);
        Ok(Transition {
            kind,
            p,
            r,
            w,
            next: Self { base: r, c, curve },
        })
    }

    /// First window and curve of the epoch after an event at window `w`.
    fn after(&self, kind: TransitionKind, w: u32, rtt_us: u32) -> (u32, Curve) {
        let cubic = |w_max| Curve::Cubic { w_max, rtt_us };
        let slow_start = |threshold| Curve::SlowStart { threshold, rtt_us };
        let after_loss = MIN_WINDOW.max(portion(w, 14));
        // The client detects the rise a part of a round trip late, with a larger window.
        let after_exit = MIN_WINDOW.max(portion(w, 17));
        match kind {
            TransitionKind::Opened => (opened(w), slow_start(MAX_WINDOW)),
            TransitionKind::Loss => (after_loss, cubic(self.plateau(w))),
            TransitionKind::Ce => (MIN_WINDOW.max(portion(w, 17)), cubic(self.plateau(w))),
            TransitionKind::Exit => (after_exit, cubic(after_exit)),
            TransitionKind::Timeout => (MIN_WINDOW, slow_start(after_loss)),
            TransitionKind::Restart => (w.min(INITIAL_WINDOW), slow_start(w)),
            TransitionKind::Move => (after_loss.min(INITIAL_WINDOW), slow_start(after_loss)),
        }
    }

    /// The plateau of the CUBIC curve after a reduction at window `w`. A flow that did not reach its
    /// last plateau again releases bandwidth: fast convergence, RFC 9438 §4.7. So does one that has
    /// not grown at all, since slow start overshot.
    const fn plateau(&self, w: u32) -> u32 {
        match self.curve {
            Curve::Cubic { w_max, .. } if w < w_max || w <= self.c => portion(w, 17),
            Curve::Cubic { .. } | Curve::SlowStart { .. } => w,
        }
    }
}

/// The window after a first answer of `packets`: one step of slow start, but at least an initial
/// window, since the address is now proven.
fn opened(packets: u32) -> u32 {
    packets.saturating_mul(2).clamp(INITIAL_WINDOW, MAX_WINDOW)
}

/// The event that ends an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransitionKind {
    /// The first request from a proven address.
    Opened,
    /// Number `p + 1` is lost.
    Loss,
    /// Number `p + 1` arrived marked with congestion experienced.
    Ce,
    /// The client leaves slow start because of rising delay (RFC 9406).
    Exit,
    /// Nothing arrived for a retransmission timeout; `(p, R]` is given up.
    Timeout,
    /// The connection was idle, and all numbers up to `R` arrived.
    Restart,
    /// The address changed, or the connection was idle and numbers are missing; `(p, R]` is given up.
    Move,
}

impl TransitionKind {
    /// Every kind, in ascending order of the codes.
    pub const ALL: [Self; 7] = [
        Self::Opened,
        Self::Loss,
        Self::Ce,
        Self::Exit,
        Self::Timeout,
        Self::Restart,
        Self::Move,
    ];

    /// The code on the wire, 1 to 7; 0 means "no event".
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Opened => 1,
            Self::Loss => 2,
            Self::Ce => 3,
            Self::Exit => 4,
            Self::Timeout => 5,
            Self::Restart => 6,
            Self::Move => 7,
        }
    }

    /// Returns the kind with this code, if there is one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The name for metrics and statistics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Loss => "loss",
            Self::Ce => "ce",
            Self::Exit => "exit",
            Self::Timeout => "timeout",
            Self::Restart => "restart",
            Self::Move => "move",
        }
    }

    /// Whether losses up to `p` and in the zone are forgiven. CE, exit and restart forgive none: the numbers of
    /// their zones are still to be proven, or declared lost.
    #[must_use]
    pub const fn forgives(self) -> bool {
        match self {
            Self::Opened | Self::Loss | Self::Timeout | Self::Move => true,
            Self::Ce | Self::Exit | Self::Restart => false,
        }
    }

    /// Whether `(p, R]` is acknowledged number by number as it arrives, while the flight shrinks
    /// evenly; otherwise it is given up at once.
    #[must_use]
    pub const fn has_zone(self) -> bool {
        match self {
            Self::Opened | Self::Loss | Self::Ce | Self::Exit => true,
            Self::Timeout | Self::Restart | Self::Move => false,
        }
    }
}

/// An event as declared by the client, identical in every request of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Declaration {
    /// The event.
    pub kind: TransitionKind,
    /// The acknowledgement edge when the client detected it.
    pub p: u64,
    /// The client's smoothed RTT, in microseconds, [`MIN_RTT_US`] to [`MAX_RTT_US`].
    pub rtt_us: u32,
}

impl Declaration {
    /// Creates a declaration, with the RTT clamped to its range.
    #[must_use]
    pub fn new(kind: TransitionKind, p: u64, rtt_us: u64) -> Self {
        let rtt_us = u32::try_from(rtt_us)
            .unwrap_or(MAX_RTT_US)
            .clamp(MIN_RTT_US, MAX_RTT_US);
        Self { kind, p, rtt_us }
    }
}

/// Why a declaration is not a transition of an epoch. The client is always at fault; the request is
/// dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// The event is before the epoch.
    #[error("edge {p} is before the epoch's base {base}")]
    BeforeEpoch {
        /// Declared edge.
        p: u64,
        /// First edge of the epoch.
        base: u64,
    },
    /// Only the opening epoch can open, and only at its base 0.
    #[error("a connection opens at number 0, not at {p}")]
    NotOpening {
        /// Declared edge.
        p: u64,
    },
    /// The epoch is not in slow start.
    #[error("the window is not in slow start at {p}")]
    NotSlowStart {
        /// Declared edge.
        p: u64,
    },
    /// The RTT is out of range.
    #[error("an RTT of {rtt_us} us is out of range")]
    RoundTrip {
        /// Declared RTT.
        rtt_us: u32,
    },
    /// The next epoch would begin beyond [`MAX_NUMBER`].
    #[error("packet number {r} is too large")]
    NumberTooLarge {
        /// The base of the next epoch.
        r: u64,
    },
}

/// A closed epoch, and the zone between it and the next: the numbers `(p, R]` were in flight when the
/// client detected the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transition {
    /// The event that ended the epoch.
    pub kind: TransitionKind,
    /// The acknowledgement edge at the event.
    pub p: u64,
    /// `R`, the send edge at the event: `p + w`.
    pub r: u64,
    /// The window at the event, in packets.
    pub w: u32,
    /// The next epoch; its base is `R`.
    pub next: Epoch,
}

impl Transition {
    /// The number behind which the proofs of the next epoch begin: an event that forgives no loss leaves the
    /// numbers of its zone to be proven, or declared lost.
    #[must_use]
    pub const fn proof_base(&self) -> u64 {
        match self.kind.has_zone() && !self.kind.forgives() {
            true => self.p,
            false => self.r,
        }
    }

    /// The send edge at `k` in `[p, R]`; a value outside counts as the nearest one inside. `R` at
    /// `p`, `R + c` at `R`. In between it grows evenly in a zone, and not at all where `(p, R]` is
    /// given up: there only `R` itself can be acknowledged.
    #[must_use]
    pub fn edge(&self, k: u64) -> u64 {
        let passed = k.min(self.r).saturating_sub(self.p);
        if k < self.r && !self.kind.has_zone() {
            return self.r;
        }
        self.r
            .saturating_add(zone_share(passed, self.next.c, self.w))
    }

    /// The numbers released by acknowledging `(i, k]` between `p` and `R`: `G(i) + 1 ..= G(k)`.
    #[must_use]
    pub fn released(&self, i: u64, k: u64) -> Range<u64> {
        numbers(self.edge(i), self.edge(k))
    }

    /// The edge to acknowledge in one request: the largest `k ≤ min(available, R)` with
    /// `G(k) − G(i) ≤ budget`, but at least one number beyond `i` if one is available, else `i`.
    /// Always `R` where `(p, R]` is given up.
    #[must_use]
    pub fn max_ack(&self, i: u64, available: u64, budget: u32) -> u64 {
        let i = i.max(self.p).min(self.r);
        if !self.kind.has_zone() {
            return self.r;
        }
        let available = available.clamp(i, self.r);
        // The least share above the budget begins at ⌈share·w/c⌉.
        let share = self.edge(i) - self.r + u64::from(budget) + 1;
        let beyond = share
            .saturating_mul(u64::from(self.w))
            .div_ceil(u64::from(self.next.c.max(1)));
        self.p
            .saturating_add(beyond.saturating_sub(1))
            .max(i.saturating_add(1))
            .min(available)
    }
}

/// The number released, of `c` new numbers, once `passed` of the `w` numbers of a zone have passed:
/// rounded down, so that all shares add up to `c`.
fn zone_share(passed: u64, c: u32, w: u32) -> u64 {
    let w = u64::from(w.max(1));
    // Both factors are at most 2³² − 1.
    passed.min(w) * u64::from(c) / w
}

/// The numbers in `(from, to]`; empty if `to` is not above `from`.
fn numbers(from: u64, to: u64) -> Range<u64> {
    let first = from.saturating_add(1);
    first..to.saturating_add(1).max(first)
}

/// ⌊`w` · `twentieths` / 20⌋ for a window, so at most 2²⁰ · 20.
const fn portion(w: u32, twentieths: u32) -> u32 {
    w * twentieths / 20
}
