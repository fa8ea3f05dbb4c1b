//! One request and the flight that it releases.
//!
//! In: the numbers and bytes requested, when, and over which time its datagrams leave. Out: which of them have not
//! come, the bytes that they carry, and when each left if all is well.

use std::time::Duration;

use crate::time::Instant;
use crate::transport::client::window::Interval;
use crate::transport::epoch::{Declaration, Epoch};
use crate::transport::layout::Layout;
use crate::transport::low_bits;
use crate::wire::flight::departure;
use crate::wire::segment::Span;

/// One request and the flight that it releases.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) interval: Interval,
    /// When it was sent (last).
    pub(super) sent: Instant,
    /// Time over which the server should send the flight.
    pub(super) spread: Duration,
    /// Its place among all that was sent: one instant may have seen several leave.
    pub(super) order: u64,
    /// Sent again or asked to wait, so that its round trip is ambiguous.
    pub(super) repeated: bool,
    /// Sent again because it seemed lost.
    pub(super) retried: bool,
    /// A server has asked to wait: when to ask again. Until then its numbers are not late.
    pub(super) waits_until: Option<Instant>,
    /// Some of its numbers were requested before, by a record that was given up: ambiguous, too.
    pub(super) asked_before: bool,
    /// The client's name of the stream that the bytes belong to.
    pub(super) stream: u64,
    /// The bytes requested; empty for the beginning of a stream.
    pub(super) ranges: Vec<Span>,
    /// The event declared.
    pub(super) declared: Option<Declaration>,
    /// The epoch that a continuation in its answer speaks for.
    pub(super) yields: Epoch,
    /// The first datagram carries a continuation.
    pub(super) wants_continuation: bool,
    /// It answers a challenge, so the continuation is bound to the present address.
    pub(super) rebinds: bool,
    /// The chunks of each datagram, as far as they are known.
    pub(super) layout: Layout,
    /// Bit `i` stands for number `interval.first + i`.
    pub(super) open: u64,
}

impl Record {
    pub(super) fn new(interval: Interval, sent: Instant, stream: u64, yields: Epoch) -> Self {
        Self {
            interval,
            sent,
            spread: Duration::ZERO,
            order: 0,
            repeated: false,
            retried: false,
            waits_until: None,
            asked_before: false,
            stream,
            ranges: Vec::new(),
            declared: None,
            yields,
            wants_continuation: false,
            rebinds: false,
            layout: Layout::default(),
            open: low_bits(u64::from(interval.count)),
        }
    }

    /// Which numbers have neither come nor been given up.
    pub(super) const fn still_open(&self) -> u64 {
        self.open
    }

    /// Whether it was sent again because it seemed lost, not because a server asked to wait.
    pub(super) const fn retried(&self) -> bool {
        self.retried
    }

    /// Whether its event gives numbers up, so that its request takes a token of the servers.
    pub(super) fn takes_token(&self) -> bool {
        self.declared
            .is_some_and(|declaration| !declaration.kind.has_zone())
    }

    /// Whether nothing of it has arrived.
    pub(super) fn untouched(&self) -> bool {
        self.open == low_bits(u64::from(self.interval.count))
    }

    /// The bytes of the datagrams in `which` that are known.
    pub(super) fn bytes(&self, which: u64) -> impl Iterator<Item = Span> {
        let numbered = (0..u64::BITS).zip(self.layout.datagrams());
        let chosen = numbered.filter(move |(index, _)| which >> index & 1 != 0);
        chosen.flat_map(|(_, chunks)| chunks.iter().copied())
    }

    /// When number `index` of the flight leaves the server, by the time of the request.
    pub(super) fn left(&self, index: u64) -> Instant {
        if self.spread.is_zero() {
            return self.sent;
        }
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.sent + departure(index, self.interval.count, self.spread)
    }

    /// The numbers that left before number `index` of a flight that left at `left` with the request of
    /// that order: RFC 8985 §6.2 compares times of transmission. A flight of which nothing arrived counts as a
    /// whole, since its request may be lost.
    pub(super) fn before(&self, left: Instant, order: u64, index: u64) -> u64 {
        // Most flights: their requests left later.
        if self.sent > left {
            return 0;
        }
        let count = u64::from(self.interval.count);
        let earlier = |index: u64| (self.left(index), self.order) < (left, order);
        low_bits(match self.order == order {
            true => index,
            false if self.spread.is_zero() || self.untouched() => {
                count * u64::from(earlier(count.saturating_sub(1)))
            }
            false => (0..count).take_while(|index| earlier(*index)).count() as u64,
        })
    }
}
