//! The grant of a request: checks its proof, its interval and its declaration against its
//! continuation. A pure function; `manual::protocol` states the bound that it enforces.
//!
//! A client can compute everything but the proof in advance, and does not send a request that would be
//! rejected.

use std::time::Duration;

use crate::time::{UnixMillis, micros};
use crate::transport::continuation::Continuation;
use crate::transport::curve::MAX_FLIGHT;
use crate::transport::epoch::{Declaration, Epoch, EpochError, Transition, TransitionKind};
use crate::wire::segment::{Request, Span};

/// Most pending spans, neither received nor lost.
pub const MAX_PENDING_SPANS: usize = 8;

/// Numbers that may be pending at any window; beyond, half the window.
pub const MIN_PENDING: u64 = MAX_FLIGHT as u64;

/// Windows behind the edge in which numbers may be pending: a lost request is noticed and answered again
/// within less.
pub const PENDING_WINDOWS: u64 = 2;

/// Time from the start of its epoch before a timeout may be declared (RFC 9002 §6.2 has a floor, too),
/// and before a restart from another address.
pub const TIMEOUT_GATE: Duration = Duration::from_millis(200);

/// Time from the sealing of the continuation before a restart may be declared.
pub const RESTART_GATE: Duration = Duration::from_secs(1);

/// Most by which a curve's time may be ahead of the real time that pays for it, beside a round trip.
pub const CURVE_LEAD: Duration = Duration::from_secs(1);

/// Sixteenths of curve time for each sixteenth of real time: the round trip shrinks a little behind the one that the
/// curve is reckoned with, since a reduced window leaves shorter queues.
const PAID_SIXTEENTHS: u32 = 17;

/// Why a request is rejected: a fault of the client, or corruption in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// The declaration is not a transition of the epoch.
    #[error(transparent)]
    Transition(#[from] EpochError),
    /// The kind of the declaration is unknown.
    #[error("unknown kind of transition")]
    UnknownKind,
    /// The address is not proven, and the request does not open the connection.
    #[error("the connection is not open")]
    NotOpened,
    /// The interval is outside of the epoch or zone.
    #[error("the interval is outside of its epoch or zone")]
    Interval,
    /// The interval releases more than one flight.
    #[error("the interval releases more than one flight")]
    TooMuch,
    /// A hole is not one of those allowed.
    #[error("a hole is not allowed")]
    Hole,
    /// Less than a quarter of the numbers acknowledged since the event is proven.
    #[error("less than a quarter proven since the event")]
    Quarter,
    /// The proof does not verify.
    #[error("the proof does not verify")]
    Proof,
    /// A timeout or restart was declared too soon.
    #[error("declared too soon")]
    TooSoon,
    /// The curve is ahead of real time.
    #[error("the window is ahead of real time")]
    AheadOfTime,
}

/// The packet numbers that a request releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// First number released; unused if there is none.
    pub first: u64,
    /// Count of numbers released, at most [`MAX_FLIGHT`].
    pub count: u32,
    /// The declared transition.
    pub transition: Option<Transition>,
    /// The curve's time at the edge.
    pub curve_time: Duration,
}

impl Grant {
    /// The continuation that follows from the one shown, sealed at `now`: its epoch, its times and the base of
    /// its proofs.
    #[must_use]
    pub fn follow(&self, shown: Continuation, now: UnixMillis) -> Continuation {
        let opens = self.transition.is_some();
        let curve_start = follow_curve(shown.curve_start, opens, self.curve_time, now);
        match self.transition {
            None => Continuation {
                curve_start,
                ..shown
            },
            Some(transition) => Continuation {
                epoch: transition.next,
                epoch_start: now,
                curve_start,
                proof_base: transition.proof_base(),
                ..shown
            },
        }
    }
}

/// The start of the curve's time in a continuation that is sealed at `now`, after one with `shown`, when the curve
/// stands at `time`. An epoch that `opens` inherits debt; a fresher copy saves no time up.
#[must_use]
pub fn follow_curve(shown: UnixMillis, opens: bool, time: Duration, now: UnixMillis) -> UnixMillis {
    match opens {
        true => {
            let owed = time + shown.saturating_since(now);
            let debt = owed.saturating_sub(paid(shown, now));
            UnixMillis::new(now.as_millis() + micros(debt).div_ceil(1000))
        }
        false => shown.max(now - time),
    }
}

/// The curve time that real time has paid for since `start`.
fn paid(start: UnixMillis, now: UnixMillis) -> Duration {
    now.saturating_since(start) / 16 * PAID_SIXTEENTHS
}

/// The greatest time on the curve of an epoch that a continuation of this issue time is good for.
#[must_use]
pub fn curve_credit(epoch: &Epoch, curve_start: UnixMillis, issued: UnixMillis) -> Duration {
    let lead = CURVE_LEAD + Duration::from_micros(epoch.curve.rtt_us().into());
    (lead + paid(curve_start, issued)).saturating_sub(curve_start.saturating_since(issued))
}

/// Times by the clock of the server that checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The current time.
    pub now: UnixMillis,
    /// The issue time of the continuation.
    pub issued: UnixMillis,
    /// Whether the address has just been validated as a new one.
    pub moved: bool,
}

/// Checks a request against its continuation.
///
/// # Errors
/// [`GrantError`]: drop the request.
pub fn grant(
    continuation: &Continuation,
    times: Times,
    request: &Request<'_>,
) -> Result<Grant, GrantError> {
    let epoch = &continuation.epoch;
    let transition = match request.declared {
        Some(declared) => {
            let kind = TransitionKind::from_code(declared.kind).ok_or(GrantError::UnknownKind)?;
            let declaration = Declaration {
                kind,
                p: declared.edge,
                rtt_us: declared.rtt_us,
            };
            Some(epoch.transition(declaration)?)
        }
        None => None,
    };
    let opens = transition
        .is_some_and(|t| matches!(t.kind, TransitionKind::Opened | TransitionKind::Timeout));
    if !continuation.proven && !opens && request.probe.is_none() {
        return Err(GrantError::NotOpened);
    }
    let released = match &transition {
        None => interval_in_epoch(epoch, request)?,
        Some(transition) => interval_in_zone(transition, request)?,
    };
    check_holes(continuation, transition.as_ref(), request)?;
    check_proof(continuation, transition.as_ref(), request)?;
    let curve_time = check_time(continuation, transition.as_ref(), times, request)?;
    let count = u32::try_from(released.len()).unwrap_or(u32::MAX);
    if count > MAX_FLIGHT {
        return Err(GrantError::TooMuch);
    }
    Ok(Grant {
        first: released.start,
        count,
        transition,
        curve_time,
    })
}

fn interval_in_epoch(epoch: &Epoch, request: &Request<'_>) -> Result<Span, GrantError> {
    let (after, upto) = (request.after, request.upto);
    let acknowledged = Span {
        start: after.saturating_add(1),
        end: upto.saturating_add(1),
    };
    let overlaps = |hole: &Span| hole.start < acknowledged.end && acknowledged.start < hole.end;
    if after < epoch.base || upto < after || request.holes.iter().any(overlaps) {
        return Err(GrantError::Interval);
    }
    let released = epoch.released(after, upto);
    Ok(Span {
        start: released.start,
        end: released.end,
    })
}

fn interval_in_zone(transition: &Transition, request: &Request<'_>) -> Result<Span, GrantError> {
    let (after, upto) = (request.after, request.upto);
    let inside = transition.p <= after && after <= upto && upto <= transition.r;
    let whole = after == transition.p && upto == transition.r;
    if !inside || !(transition.kind.has_zone() || whole || request.probe.is_some()) {
        return Err(GrantError::Interval);
    }
    let released = transition.released(after, upto);
    Ok(Span {
        start: released.start,
        end: released.end,
    })
}

/// The number behind which a request must prove. A loss and whatever gives numbers up forgive the losses of
/// a zone before; all else does not.
const fn proof_begin(continuation: &Continuation, transition: Option<&Transition>) -> u64 {
    match transition {
        Some(transition) if transition.kind.forgives() => continuation.epoch.base,
        Some(_) | None => continuation.proof_base,
    }
}

/// End of the range that a request must prove: numbers given up need no proof.
fn proof_end(transition: Option<&Transition>, request: &Request<'_>) -> u64 {
    match transition {
        Some(transition) if transition.kind == TransitionKind::Restart => transition.r,
        Some(transition) if !transition.kind.has_zone() => transition.p,
        Some(transition) => request.reach.min(transition.r),
        None => request.reach,
    }
}

/// Whether a hole is too old to be pending at `edge`: by the window that was then.
#[must_use]
pub fn is_old(epoch: &Epoch, hole: Span, edge: u64) -> bool {
    edge >= hole
        .start
        .saturating_add(PENDING_WINDOWS * u64::from(epoch.window(hole.start)))
}

/// Most numbers that may be pending at window `w`.
#[must_use]
pub fn max_pending(w: u32) -> u64 {
    MIN_PENDING.max(u64::from(w / 2))
}

fn check_holes(
    continuation: &Continuation,
    transition: Option<&Transition>,
    request: &Request<'_>,
) -> Result<(), GrantError> {
    let base = proof_begin(continuation, transition);
    let end = proof_end(transition, request);
    let edge = transition.map_or(end, |transition| transition.p.min(end));
    let w = continuation.epoch.window(edge);
    let kind = transition.map(|transition| transition.kind);
    // A zone that was given up in turn may lie before the edge.
    let zone_before = match kind {
        Some(TransitionKind::Timeout | TransitionKind::Move) => u64::from(w),
        Some(_) | None => 0,
    };
    let oldest = request.holes.first().filter(|hole| hole.start <= edge);
    // A probe without a declaration releases nothing, whatever is pending.
    let probes = request.probe.is_some() && kind.is_none();
    let old = |hole: &Span| {
        hole.start <= base
            || !probes && is_old(&continuation.epoch, *hole, edge.saturating_sub(zone_before))
    };
    if oldest.is_some_and(old) {
        return Err(GrantError::Hole);
    }
    let (mut pending, mut spans, mut zone) = (0, 0, 0);
    for hole in &request.holes {
        if hole.start <= edge {
            spans += 1;
            pending += hole.len();
            // Holes do not cross the edge.
            if hole.end > edge + 1 {
                return Err(GrantError::Hole);
            }
        } else {
            zone += hole.len();
            if hole.end > end.saturating_add(1) {
                return Err(GrantError::Hole);
            }
        }
    }
    let too_many = spans > MAX_PENDING_SPANS || pending > max_pending(w);
    let allowed = |allowed: bool| {
        if allowed {
            Ok(())
        } else {
            Err(GrantError::Hole)
        }
    };
    match kind {
        None | Some(TransitionKind::Opened) => allowed(probes || !too_many),
        // No loss is forgiven: holes are for a loss to declare, now or in the next epoch.
        Some(TransitionKind::Restart) => allowed(request.holes.is_empty()),
        Some(TransitionKind::Ce | TransitionKind::Exit) => {
            allowed(spans == 0)?;
            quarter_proven(zone, end - edge)
        }
        Some(TransitionKind::Loss) => {
            allowed(!too_many)?;
            quarter_proven(zone, end - edge)
        }
        // Numbers given up may follow a zone that was given up in turn: besides pending
        // numbers, holes are allowed as in a zone.
        Some(TransitionKind::Timeout | TransitionKind::Move) => {
            quarter_proven(pending.saturating_sub(max_pending(w)), edge - base)
        }
    }
}

fn quarter_proven(missing: u64, of: u64) -> Result<(), GrantError> {
    match missing.saturating_mul(4) > of.saturating_mul(3) {
        true => Err(GrantError::Quarter),
        false => Ok(()),
    }
}

fn check_proof(
    continuation: &Continuation,
    transition: Option<&Transition>,
    request: &Request<'_>,
) -> Result<(), GrantError> {
    let key = &continuation.identity;
    let end = proof_end(transition, request);
    let whole = key.fold(proof_begin(continuation, transition), end);
    let holes = request
        .holes
        .iter()
        .map(|hole| key.fold(hole.start - 1, hole.end - 1));
    match holes.fold(whole, |proof, hole| proof ^ hole) == request.proof {
        true => Ok(()),
        false => Err(GrantError::Proof),
    }
}

fn check_time(
    continuation: &Continuation,
    transition: Option<&Transition>,
    times: Times,
    request: &Request<'_>,
) -> Result<Duration, GrantError> {
    let since_start = times.now.saturating_since(continuation.epoch_start);
    let since_issue = times.now.saturating_since(times.issued);
    let too_soon = match transition.map(|transition| transition.kind) {
        Some(TransitionKind::Timeout) => since_start < TIMEOUT_GATE,
        Some(TransitionKind::Restart | TransitionKind::Move) => match times.moved {
            true => since_start < TIMEOUT_GATE,
            false => since_issue < RESTART_GATE,
        },
        Some(
            TransitionKind::Opened
            | TransitionKind::Loss
            | TransitionKind::Ce
            | TransitionKind::Exit,
        )
        | None => false,
    };
    if too_soon {
        return Err(GrantError::TooSoon);
    }
    let edge = transition.map_or(request.upto, |transition| transition.p.min(request.upto));
    let time = Duration::from_micros(continuation.epoch.elapsed_us(edge));
    let credit = curve_credit(&continuation.epoch, continuation.curve_start, times.issued);
    // Numbers given up may lie in a zone, which is passed without regard to the curve. Their time is owed.
    let owes = transition.is_some_and(|transition| {
        matches!(
            transition.kind,
            TransitionKind::Timeout | TransitionKind::Move
        )
    });
    match time > credit && !owes {
        true => Err(GrantError::AheadOfTime),
        false => Ok(time),
    }
}

#[cfg(test)]
mod tests;
