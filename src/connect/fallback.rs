//! A race of two transports for a connection to the same addresses: the preferred one, then the other.
//!
//! In: time, and the outcome of each attempt over either transport. Out: which attempt to start, the moment at which
//! the second transport joins and why, the winner, or that all have failed. The second transport joins 100 ms after the
//! first attempt if no byte at all has arrived, 200 ms after it in any case, and at once when all attempts over the first
//! one have failed. The first connection wins, whichever its transport. No attempt is ended because another one starts.
//! Does no I/O. Source: curl's race of HTTP/3 and HTTP/2 (`--http3`), which has the same two times.

use core::fmt;
use std::time::Duration;

use crate::connect::race::{AttemptState, Pace, Race, RaceStep};
use crate::time::Instant;

/// Time without a byte after which the second transport joins.
pub const SILENT: Duration = Duration::from_millis(100);

/// Time without a connection after which it joins in any case.
pub const SLOW: Duration = Duration::from_millis(200);

/// A transport protocol that carries requests and responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// Headwater's transport, over UDP.
    Trickles,
    /// TCP.
    Tcp,
}

impl Transport {
    /// The name, as in options and reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Trickles => "trickles",
            Self::Tcp => "tcp",
        }
    }
}

/// Why the second transport has joined a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FallbackReason {
    /// No byte came over the first one within [`SILENT`].
    Silent,
    /// Bytes came over the first one, but no connection within [`SLOW`].
    Slow,
    /// All attempts over the first one have failed.
    Failed,
}

impl fmt::Display for FallbackReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => write!(f, "no byte in {SILENT:?}"),
            Self::Slow => write!(f, "no connection in {SLOW:?}"),
            Self::Failed => f.write_str("every attempt failed"),
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportStep {
    /// Start the attempt over this transport to the address with this index.
    Start(Transport, usize),
    /// The second transport joins; its attempts follow.
    FallBack(FallbackReason),
    /// The attempt with this index has won; end all others.
    Won(Transport, usize),
    /// All attempts have failed.
    Exhausted,
}

/// The attempts over one transport.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lane {
    transport: Transport,
    race: Race,
    /// Whether any byte has arrived.
    received: bool,
    exhausted: bool,
}

impl Lane {
    fn new(transport: Transport, pace: Pace, count: usize) -> Self {
        Self {
            transport,
            race: Race::new(pace, count),
            received: false,
            exhausted: false,
        }
    }

    fn poll(&mut self, now: Instant) -> Option<TransportStep> {
        match self.race.poll(now)? {
            RaceStep::Start(index) => Some(TransportStep::Start(self.transport, index)),
            RaceStep::Won(index) => Some(TransportStep::Won(self.transport, index)),
            RaceStep::Exhausted => {
                self.exhausted = true;
                None
            }
        }
    }
}

/// A race over one or two transports; see the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportRace {
    first: Lane,
    second: Option<Lane>,
    /// When the first attempt started.
    begun: Option<Instant>,
    /// Why the second transport has joined, once it has.
    joined: Option<FallbackReason>,
    ended: bool,
}

impl TransportRace {
    /// Creates a race to `count` addresses, the best first, over the first of `transports`, and over the second if
    /// there is one.
    #[must_use]
    pub fn new(transports: (Transport, Option<Transport>), pace: Pace, count: usize) -> Self {
        let (first, second) = transports;
        Self {
            first: Lane::new(first, pace, count),
            second: second.map(|second| Lane::new(second, pace, count)),
            begun: None,
            joined: None,
            ended: false,
        }
    }

    /// Sets the number of addresses, because further ones arrived; see [`Race::set_waiting`].
    pub fn set_count(&mut self, count: usize) {
        for lane in self.lanes_mut() {
            let started = lane.race.started();
            lane.race.set_waiting(count.saturating_sub(started));
        }
    }

    /// Sets whether further addresses may come; see [`Race::expect_more`].
    pub fn expect_more(&mut self, more: bool) {
        self.lanes_mut()
            .for_each(|lane| lane.race.expect_more(more));
    }

    /// The number of addresses to which an attempt was started over either transport; they are the first.
    #[must_use]
    pub fn started(&self) -> usize {
        let started = self.lanes().map(|lane| lane.race.started());
        started.max().unwrap_or_default()
    }

    /// The transports that take part: the first one, and the second once it has joined.
    pub fn transports(&self) -> impl Iterator<Item = Transport> {
        let joined = self.second.iter().filter(|_| self.joined.is_some());
        core::iter::once(&self.first)
            .chain(joined)
            .map(|lane| lane.transport)
    }

    /// The states of the attempts over a transport, in the order of the addresses; none if it takes no part.
    #[must_use]
    pub fn attempts(&self, transport: Transport) -> &[AttemptState] {
        self.lane(transport)
            .map_or(&[], |lane| lane.race.attempts())
    }

    /// Whether an attempt over a transport has received any byte.
    #[must_use]
    pub fn has_received(&self, transport: Transport) -> bool {
        self.lane(transport).is_some_and(|lane| lane.received)
    }

    /// Takes note that an attempt has received a byte, although it may not be connected yet.
    pub fn handle_byte(&mut self, transport: Transport) {
        if let Some(lane) = self.lane_mut(transport) {
            lane.received = true;
        }
    }

    /// Puts the next attempt over a transport off; see [`Race::expect_answer`].
    pub fn expect_answer(&mut self, now: Instant, transport: Transport, due: Duration) {
        if let Some(lane) = self.lane_mut(transport) {
            lane.race.expect_answer(now, due);
        }
    }

    /// Takes note that an attempt was answered.
    pub fn handle_answer(&mut self, now: Instant, transport: Transport, index: usize) {
        self.handle_byte(transport);
        if let Some(lane) = self.lane_mut(transport) {
            lane.race.handle_answer(now, index);
        }
    }

    /// Takes note that an attempt failed.
    pub fn handle_failure(&mut self, now: Instant, transport: Transport, index: usize) {
        if let Some(lane) = self.lane_mut(transport) {
            lane.race.handle_failure(now, index);
        }
    }

    /// Returns what to do next, if anything. To be called until it returns `None`; `Won` or `Exhausted` is
    /// the last.
    pub fn poll(&mut self, now: Instant) -> Option<TransportStep> {
        if self.ended {
            return None;
        }
        let step = self.first.poll(now);
        if let Some(TransportStep::Start(..)) = step {
            self.begun.get_or_insert(now);
        }
        let step = step.or_else(|| self.poll_second(now));
        let exhausted = self.lanes().all(|lane| lane.exhausted);
        let step = step.or_else(|| exhausted.then_some(TransportStep::Exhausted));
        self.ended = matches!(
            step,
            Some(TransportStep::Won(..) | TransportStep::Exhausted)
        );
        step
    }

    fn poll_second(&mut self, now: Instant) -> Option<TransportStep> {
        if self.joined.is_none() && self.second.is_some() {
            self.joined = self.reason(now);
            return self.joined.map(TransportStep::FallBack);
        }
        self.second.as_mut()?.poll(now)
    }

    /// Why the second transport joins now, if it does.
    fn reason(&self, now: Instant) -> Option<FallbackReason> {
        let passed = |limit| self.begun.is_some_and(|begun| begun + limit <= now);
        if self.first.exhausted {
            Some(FallbackReason::Failed)
        } else if self.first.race.is_answered() {
            None
        } else if !self.first.received && passed(SILENT) {
            Some(FallbackReason::Silent)
        } else {
            passed(SLOW).then_some(FallbackReason::Slow)
        }
    }

    /// When `poll` is to be called again, if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let second = match (&self.second, self.joined) {
            (Some(second), Some(_)) => second.race.poll_timeout(),
            (Some(_), None) if !self.first.race.is_answered() => {
                let limit = if self.first.received { SLOW } else { SILENT };
                self.begun.map(|begun| begun + limit)
            }
            _ => None,
        };
        let first = self.first.race.poll_timeout();
        [first, second].into_iter().flatten().min()
    }

    /// The addresses that may replace the winner's over the same transport; see [`Race::spares`].
    #[must_use]
    pub fn spares(&self, now: Instant, transport: Transport, winner: usize) -> Vec<usize> {
        let lane = self.lane(transport);
        lane.map_or_else(Vec::new, |lane| lane.race.spares(now, winner))
    }

    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        core::iter::once(&self.first).chain(&self.second)
    }

    fn lanes_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        core::iter::once(&mut self.first).chain(&mut self.second)
    }

    fn lane(&self, transport: Transport) -> Option<&Lane> {
        self.lanes().find(|lane| lane.transport == transport)
    }

    fn lane_mut(&mut self, transport: Transport) -> Option<&mut Lane> {
        self.lanes_mut().find(|lane| lane.transport == transport)
    }
}

#[cfg(test)]
mod tests;
