//! The grant of a request: checks its proof, its interval and its declaration against its
//! continuation. A pure function; `manual::protocol` states the bound that it enforces.
//!
//! A client can compute everything but the proof in advance, and does not send a request that would be
//! rejected.

use std::time::Duration;

use crate::time::UnixMillis;
use crate::transport::continuation::{Continuation, MAX_CLOCK_SKEW};
use crate::transport::curve::MAX_FLIGHT;
use crate::transport::epoch::{Declaration, Epoch, EpochError, Transition, TransitionKind};
use crate::wire::segment::{Request, Span};

/// Most pending spans, neither received nor lost.
pub const MAX_PENDING_SPANS: usize = 8;

/// Numbers that may be pending at any window; beyond, half the window.
pub const MIN_PENDING: u64 = MAX_FLIGHT as u64;

/// Time from the start of its epoch before a timeout may be declared (RFC 9002 §6.2 has a floor, too).
pub const TIMEOUT_GATE: Duration = Duration::from_millis(200);

/// Time from the sealing of the continuation before a restart may be declared.
pub const RESTART_GATE: Duration = Duration::from_secs(1);

/// Most by which a curve's time may be ahead of real time.
pub const CURVE_LEAD: Duration = Duration::from_secs(3);

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
    check_holes(epoch, transition.as_ref(), request)?;
    check_proof(continuation, transition.as_ref(), request)?;
    check_time(continuation, transition.as_ref(), times, request)?;
    let count = u32::try_from(released.len()).unwrap_or(u32::MAX);
    if count > MAX_FLIGHT {
        return Err(GrantError::TooMuch);
    }
    Ok(Grant {
        first: released.start,
        count,
        transition,
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

/// End of the range that a request must prove: numbers given up need no proof.
fn proof_end(transition: Option<&Transition>, request: &Request<'_>) -> u64 {
    match transition {
        Some(transition) if !transition.kind.has_zone() => transition.p,
        Some(transition) => request.reach.min(transition.r),
        None => request.reach,
    }
}

/// Most numbers that may be pending at window `w`.
#[must_use]
pub fn max_pending(w: u32) -> u64 {
    MIN_PENDING.max(u64::from(w / 2))
}

fn check_holes(
    epoch: &Epoch,
    transition: Option<&Transition>,
    request: &Request<'_>,
) -> Result<(), GrantError> {
    let end = proof_end(transition, request);
    let edge = transition.map_or(end, |transition| transition.p.min(end));
    let w = epoch.window(edge);
    let oldest = edge.saturating_sub(4 * u64::from(w));
    let given_up = transition.is_some_and(|transition| !transition.kind.has_zone());
    let (mut pending, mut spans, mut zone) = (0, 0, 0);
    for hole in &request.holes {
        if hole.start <= edge {
            spans += 1;
            pending += hole.len();
            // Holes do not cross the edge, and none is older than four windows.
            let old = hole.start <= oldest && !given_up || hole.start <= epoch.base;
            if hole.end > edge + 1 || old {
                return Err(GrantError::Hole);
            }
        } else {
            zone += hole.len();
            if hole.end > end.saturating_add(1) {
                return Err(GrantError::Hole);
            }
        }
    }
    let pending_too_much = spans > MAX_PENDING_SPANS || pending > max_pending(w);
    let passed = end - edge;
    match transition.map(|transition| transition.kind) {
        // Numbers given up may follow a zone that was given up in turn: besides pending
        // numbers, holes are allowed as in a zone.
        Some(TransitionKind::Timeout | TransitionKind::Restart) => {
            quarter_proven(pending.saturating_sub(max_pending(w)), edge - epoch.base)
        }
        _ if pending_too_much => Err(GrantError::Hole),
        Some(TransitionKind::Loss | TransitionKind::Ce | TransitionKind::Exit) => {
            quarter_proven(zone, passed)
        }
        Some(TransitionKind::Opened) | None => Ok(()),
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
    let whole = key.fold(continuation.epoch.base, end);
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
) -> Result<(), GrantError> {
    let since_start = times.now.saturating_since(continuation.epoch_start);
    let since_issue = times.now.saturating_since(times.issued);
    let too_soon = match transition.map(|transition| transition.kind) {
        Some(TransitionKind::Timeout) => since_start < TIMEOUT_GATE,
        Some(TransitionKind::Restart) => since_issue < RESTART_GATE && !times.moved,
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
    let lead = CURVE_LEAD + MAX_CLOCK_SKEW;
    match Duration::from_micros(continuation.epoch.elapsed_us(edge)) > since_start + lead {
        true => Err(GrantError::AheadOfTime),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
