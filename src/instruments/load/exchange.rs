//! A connection of the load generator: its exchange with the server, and the state kept while idle.
//!
//! In: datagrams of the server. Out: datagrams to send, and a [`Kept`], the complete state of an idle
//! connection. Simpler than the client engine: no reassembly, no pacing, and every error restarts from
//! the OPEN.
//! Source: `manual::protocol`, connection establishment and restart.

use std::ops::Range;

use crate::time::{Instant, micros};
use crate::transport::application::MAX_STREAM_BYTES;
use crate::transport::epoch::{Declaration, Epoch, Transition, TransitionKind};
use crate::wire::segment::{
    Declared, MAX_CONTINUATION_BYTES, Open, Request, Response, ResponseKind, Span, Wanted,
};

/// Stream bytes requested with the proof of the address, and by a resumed connection.
const ASKED_BYTES: u64 = 512;

/// The byte range requested by a connection that continues.
const BEGINNING: Span = Span {
    start: 0,
    end: ASKED_BYTES,
};

/// Packet numbers requested on a connection in use: one datagram carries all bytes, the others are
/// unused.
const LIVE_BUDGET: u32 = 2;

/// Most packets of the answer to an OPEN: their numbers are marked in one word.
const MAX_ANSWER: u8 = 64;

/// Settings shared by the requests of all connections.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// The application request.
    pub(super) head: Vec<u8>,
    /// Largest UDP payload to receive, in bytes.
    pub(super) size: u16,
}

/// The state of an idle connection: enough to continue after any pause within the lifetime of the
/// continuation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    connection: u64,
    epoch: Epoch,
    /// Acknowledgement edge, end of the received numbers, and the proof.
    edge: u64,
    reach: u64,
    proof: u64,
    length: u8,
    sealed: [u8; MAX_CONTINUATION_BYTES],
}

impl Kept {
    /// Creates the state; `None` if the continuation is too long.
    fn new(asked: &Asked, reach: u64, proof: u64, continuation: &[u8]) -> Option<Self> {
        let mut sealed = [0; MAX_CONTINUATION_BYTES];
        sealed
            .get_mut(..continuation.len())?
            .copy_from_slice(continuation);
        Some(Self {
            connection: asked.connection,
            epoch: asked.epoch,
            edge: asked.edge,
            reach,
            proof,
            length: u8::try_from(continuation.len()).ok()?,
            sealed,
        })
    }

    fn sealed(&self) -> &[u8] {
        self.sealed
            .get(..usize::from(self.length))
            .unwrap_or_default()
    }

    /// Returns the request that resumes after a pause: gives up packets in flight, so it needs no
    /// proof, and requests the object again. Servers answer a repeated timeout, but no other repeat.
    pub(super) fn resume(&self, terms: &Terms, again: bool) -> Option<(Exchange, Vec<u8>)> {
        let kind = match again {
            true => TransitionKind::Timeout,
            false => TransitionKind::Move,
        };
        let declaration = Declaration::new(kind, self.epoch.base, 0);
        let transition = self.epoch.transition(declaration).ok()?;
        let asked = Asked::across(self.connection, transition);
        let shown = Shown::across(declaration, transition, self.sealed(), 0);
        let datagram = asked.emit(terms.size, &shown, BEGINNING, Wanted::New(&terms.head));
        Some((Exchange::Resuming(asked), datagram))
    }

    /// Returns the next request of a connection in use: acknowledges just enough for a grant, and
    /// requests the object again.
    pub(super) fn ask(&self, terms: &Terms) -> Option<(Exchange, Vec<u8>)> {
        let upto = self.epoch.max_ack(self.edge, self.reach, LIVE_BUDGET);
        let asked = Asked {
            connection: self.connection,
            epoch: self.epoch,
            released: self.epoch.released(self.edge, upto),
            edge: upto,
            proof: self.proof,
        };
        let shown = Shown {
            sealed: self.sealed(),
            after: self.edge,
            upto,
            reach: self.reach,
            proof: self.proof,
            declaration: None,
        };
        let datagram = asked.emit(terms.size, &shown, BEGINNING, Wanted::New(&terms.head));
        Some((Exchange::Resuming(asked), datagram)).filter(|_| upto > self.edge)
    }
}

/// An OPEN and the received part of its answer.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    echo: u64,
    sent: Instant,
    answer: Option<Answer>,
}

#[derive(Clone, Debug)]
struct Answer {
    connection: u64,
    count: u8,
    /// Bit `n - 1` for packet number `n`.
    missing: u64,
    proof: u64,
    size: u16,
    sealed: Vec<u8>,
    /// The user continuation and the length of its stream.
    user: Option<(Vec<u8>, u64)>,
    /// End of the bytes received.
    end: u64,
}

/// A request in progress.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    connection: u64,
    /// Epoch of the continuation in the answer.
    epoch: Epoch,
    /// Packet numbers that the answer may have.
    released: Range<u64>,
    /// Acknowledgement edge once it arrives.
    edge: u64,
    /// Proof over all earlier numbers of the epoch.
    proof: u64,
}

/// The proofs of a request.
struct Shown<'a> {
    sealed: &'a [u8],
    after: u64,
    upto: u64,
    reach: u64,
    proof: u64,
    declaration: Option<Declaration>,
}

impl<'a> Shown<'a> {
    /// A transition over a zone that has passed completely.
    const fn across(
        declaration: Declaration,
        transition: Transition,
        sealed: &'a [u8],
        proof: u64,
    ) -> Self {
        Self {
            sealed,
            after: transition.p,
            upto: transition.r,
            reach: transition.r,
            proof,
            declaration: Some(declaration),
        }
    }
}

/// The answer that a connection waits for.
#[derive(Clone, Debug)]
pub(super) enum Exchange {
    /// The complete answer to an OPEN.
    Opening(Opening),
    /// The answer to the request that proves the address.
    Proving(Asked),
    /// The answer to a request of a connection that continues.
    Resuming(Asked),
}

/// The effect of a datagram.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// None: not the awaited answer.
    Stray,
    /// A part of the answer.
    Wait,
    /// The next request.
    Ask(Vec<u8>),
    /// The connection is open or continues.
    Keep(Kept),
}

impl Exchange {
    /// Starts a connection; returns it and its OPEN.
    pub(super) fn open(now: Instant, echo: u64, terms: &Terms) -> (Self, Vec<u8>) {
        let opening = Opening {
            echo,
            sent: now,
            answer: None,
        };
        (
            Self::Opening(opening),
            open_datagram(echo, terms.size, Wanted::New(&terms.head)),
        )
    }

    /// Handles a response. Ignores numbers that cannot have been released.
    pub(super) fn handle(&mut self, now: Instant, response: &Response<'_>) -> Step {
        match self {
            Self::Opening(opening) => {
                if !opening.take(response) {
                    return Step::Stray;
                }
                let rtt = micros(now.saturating_since(opening.sent));
                match opening.prove(rtt) {
                    None => Step::Wait,
                    Some((asked, datagram)) => {
                        *self = Self::Proving(asked);
                        Step::Ask(datagram)
                    }
                }
            }
            Self::Proving(asked) | Self::Resuming(asked) => asked.take(response),
        }
    }
}

/// Builds an OPEN without a token.
pub(super) fn open_datagram(echo: u64, size: u16, wanted: Wanted<'_>) -> Vec<u8> {
    let mut datagram = Vec::new();
    Open {
        echo,
        size,
        stream: 0,
        token: None,
        wanted,
        offset: 0,
    }
    .emit(&mut datagram);
    datagram
}

impl Opening {
    /// Records one datagram of the answer; `false` if it is not a part of it.
    fn take(&mut self, response: &Response<'_>) -> bool {
        let header = response.header;
        let ResponseKind::Opened { echo, size, count } = header.kind else {
            return false;
        };
        let of_count = (1..=MAX_ANSWER).contains(&count) && header.void == 0;
        if echo != self.echo || !of_count || response.continuation.is_empty() {
            return false;
        }
        let answer = self.answer.get_or_insert_with(|| Answer {
            connection: header.connection,
            count,
            missing: u64::MAX >> (MAX_ANSWER - count),
            proof: 0,
            size,
            sealed: response.continuation.to_vec(),
            user: None,
            end: 0,
        });
        let bit = header
            .number
            .checked_sub(1)
            .and_then(|index| 1_u64.checked_shl(index))
            .unwrap_or(0);
        if answer.connection != header.connection || answer.missing & bit == 0 {
            return false;
        }
        answer.missing &= !bit;
        answer.proof ^= header.x;
        if let Some(user) = response.user {
            answer.user = Some((
                user.sealed.to_vec(),
                user.length.unwrap_or(MAX_STREAM_BYTES),
            ));
        }
        let ends = response
            .chunks()
            .map(|(offset, bytes)| offset.saturating_add(bytes.len() as u64));
        answer.end = ends.fold(answer.end, u64::max);
        true
    }

    /// Returns the request that proves the address, once the answer is complete; requests the next
    /// bytes of the stream, if any.
    fn prove(&self, rtt_us: u64) -> Option<(Asked, Vec<u8>)> {
        let answer = self.answer.as_ref().filter(|answer| answer.missing == 0)?;
        let declaration = Declaration::new(TransitionKind::Opened, 0, rtt_us);
        let transition = Epoch::opening(u32::from(answer.count)).transition(declaration);
        let transition = transition.ok()?;
        let asked = Asked::across(answer.connection, transition);
        let (user, length) = match &answer.user {
            Some((user, length)) => (user.as_slice(), *length),
            None => (&[][..], 0),
        };
        let range = Span {
            start: answer.end,
            end: length.min(answer.end.saturating_add(ASKED_BYTES)),
        };
        let shown = Shown::across(declaration, transition, &answer.sealed, answer.proof);
        let datagram = asked.emit(answer.size, &shown, range, Wanted::Of(user));
        Some((asked, datagram))
    }
}

impl Asked {
    /// Creates the request for a transition.
    fn across(connection: u64, transition: Transition) -> Self {
        Self {
            connection,
            epoch: transition.next,
            released: transition.released(transition.p, transition.r),
            edge: transition.next.base,
            proof: 0,
        }
    }

    /// Emits the request.
    fn emit(&self, size: u16, shown: &Shown<'_>, range: Span, wanted: Wanted<'_>) -> Vec<u8> {
        let mut datagram = Vec::new();
        Request {
            connection: self.connection,
            size,
            stream: 1,
            wants_continuation: true,
            continuation: shown.sealed,
            after: shown.after,
            upto: shown.upto,
            reach: shown.reach,
            proof: shown.proof,
            holes: Vec::new(),
            declared: shown.declaration.map(|declaration| Declared {
                kind: declaration.kind.code(),
                edge: declaration.p,
                rtt_us: declaration.rtt_us,
            }),
            cookie: None,
            probe: None,
            ranges: Some(range)
                .filter(|range| !range.is_empty())
                .into_iter()
                .collect(),
            wanted,
        }
        .emit(&mut datagram);
        datagram
    }

    /// Handles the first datagram of the answer, which carries the continuation of the next epoch; the
    /// others are not needed.
    fn take(&self, response: &Response<'_>) -> Step {
        let header = response.header;
        // Numbers stay far below 2³²: a connection sends few requests.
        let number = u64::from(header.number);
        let ours = header.connection == self.connection && header.kind == ResponseKind::Data;
        if !ours || !self.released.contains(&number) {
            return Step::Stray;
        }
        if response.continuation.is_empty() {
            return Step::Wait;
        }
        let reach = number + u64::from(header.void);
        match Kept::new(self, reach, self.proof ^ header.x, response.continuation) {
            Some(kept) => Step::Keep(kept),
            None => Step::Stray,
        }
    }
}

/// Parses the status code of the HTTP response in this datagram.
pub(super) fn status_of(response: &Response<'_>) -> Option<u16> {
    let (_, bytes) = response.chunks().find(|(offset, _)| *offset == 0)?;
    let rest = bytes.strip_prefix(b"HTTP/1.1 ")?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}
