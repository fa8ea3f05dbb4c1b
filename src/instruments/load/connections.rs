//! The connections of a load generator: start, retransmission, success and failure.
//!
//! In: time and datagrams. Out: datagrams, and counts in the report.

use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt as _;

use super::{FIRST_PORT, FIRST_TIMEOUT, LoadHost, MAX_ATTEMPTS, MAX_IN_FLIGHT, MAX_TIMEOUT, PORTS};
use crate::host::Transmit;
use crate::instruments::load::course::Whole;
use crate::instruments::load::exchange::{Exchange, Kept, Step, status_of};
use crate::instruments::load::hostile::MAX_CORPUS;
use crate::instruments::load::phases::LoadPhase;
use crate::time::Instant;
use crate::wire::flight::{Ecn, Flight, UdpPath};
use crate::wire::segment::ToClient;

/// A connection that waits for an answer.
pub(super) struct Busy {
    pub(super) exchange: Exchange,
    pub(super) attempts: u32,
    pub(super) retry_at: Instant,
    /// Scheduled start of a request on a held connection.
    pub(super) meant: Option<Instant>,
}

impl LoadHost {
    /// The local and the remote address and port of a connection.
    pub(super) fn path(&self, index: u32) -> Option<UdpPath> {
        let source = usize::try_from(index / PORTS).ok()?;
        let port = FIRST_PORT.checked_add(u16::try_from(index % PORTS).ok()?)?;
        Some(UdpPath {
            src: SocketAddr::new(*self.sources.get(source)?, port),
            dst: self.config.target.remote,
        })
    }

    /// The index of the connection with this local address and port.
    pub(super) fn index(&self, own: SocketAddr) -> Option<u32> {
        let source = self.sources.iter().position(|source| *source == own.ip())?;
        let port = own.port().checked_sub(FIRST_PORT)?;
        u32::try_from(source)
            .ok()?
            .checked_mul(PORTS)?
            .checked_add(u32::from(port))
    }

    pub(super) fn push(&mut self, index: u32, datagram: Vec<u8>) {
        let Some(path) = self.path(index) else {
            return;
        };
        if self.config.hostile > 0 && self.corpus.len() < MAX_CORPUS / 2 {
            self.corpus.push((path, datagram.clone()));
        }
        let flight = Flight::single(path, Ecn::NotEct, datagram);
        self.outbox.push_back(Transmit::Flight(flight));
    }

    /// Starts the next connection, or resumes the next one; `false` if none may start now.
    pub(super) fn start_next(&mut self, now: Instant) -> bool {
        if self.busy.len() >= MAX_IN_FLIGHT || self.start_at(now).is_none_or(|at| at > now) {
            return false;
        }
        let mut meant = None;
        let index = match &mut self.phase {
            LoadPhase::Live { open, course } => {
                let busy = |index: &u32| self.busy.contains_key(index);
                let chosen = self.random.random_range(0..open.len().max(1));
                // The next idle one: it exists, since not all may be busy.
                let mut all = open.iter().cycle().skip(chosen).take(open.len());
                let Some(&index) = all.find(|index| !busy(index)) else {
                    return false;
                };
                meant = course.take(now);
                index
            }
            LoadPhase::Opening { next } => {
                *next += 1;
                *next - 1
            }
            LoadPhase::Resuming { waiting, .. } => match waiting.pop() {
                Some(index) => index,
                None => return false,
            },
            LoadPhase::Hostile(_) | LoadPhase::Holding(_) | LoadPhase::Done => return false,
        };
        if let Some(rate) = self.config.rate {
            let gap = Duration::from_secs(1) / rate.get();
            // Missed starts are not caught up in a burst.
            self.next_start = self.next_start.max(now - gap) + gap;
        }
        self.attempt(now, index, 1, meant);
        true
    }

    /// The earliest start of the next connection, if any is left.
    pub(super) fn start_at(&self, now: Instant) -> Option<Instant> {
        match &self.phase {
            LoadPhase::Opening { next } => {
                (*next < self.config.connections).then_some(self.next_start)
            }
            LoadPhase::Resuming { waiting, from } => {
                (!waiting.is_empty()).then_some(self.next_start.max(*from))
            }
            LoadPhase::Live { course, .. } => course.next_at(now),
            LoadPhase::Hostile(_) | LoadPhase::Holding(_) | LoadPhase::Done => None,
        }
    }

    /// Sends the first datagram of connection `index` for the present phase.
    pub(super) fn attempt(
        &mut self,
        now: Instant,
        index: u32,
        attempts: u32,
        meant: Option<Instant>,
    ) {
        let kept = usize::try_from(index)
            .ok()
            .and_then(|index| self.kept.get(index).copied().flatten());
        let begun = match (&self.phase, kept) {
            (LoadPhase::Resuming { .. }, Some(kept)) => kept.resume(&self.terms, attempts > 1),
            // After a lost answer the connection is opened again.
            (LoadPhase::Live { .. }, Some(kept)) if attempts == 1 => kept.ask(&self.terms),
            _ => Some(Exchange::open(now, self.random.random(), &self.terms)),
        };
        let Some((exchange, datagram)) = begun else {
            self.give_up(now, meant);
            return;
        };
        match exchange {
            Exchange::Opening(_) => self.report.opens += 1,
            Exchange::Proving(_) | Exchange::Resuming(_) => self.report.requests += 1,
        }
        let retry_at = now + timeout(attempts);
        self.push(index, datagram);
        self.busy.insert(
            index,
            Busy {
                exchange,
                attempts,
                retry_at,
                meant,
            },
        );
    }

    /// Counts a failed connection. After many in a row the server counts as dead, and the others fail
    /// without an attempt.
    pub(super) fn give_up(&mut self, now: Instant, meant: Option<Instant>) {
        self.failures_in_a_row += 1;
        let dead = self.failures_in_a_row >= MAX_IN_FLIGHT;
        match &mut self.phase {
            LoadPhase::Resuming { waiting, .. } => {
                self.report.not_resumed += 1;
                if dead {
                    self.report.not_resumed += u32::try_from(waiting.len()).unwrap_or(u32::MAX);
                    waiting.clear();
                }
            }
            LoadPhase::Opening { next } => {
                self.report.failed += 1;
                if dead {
                    self.report.failed += self.config.connections - *next;
                    *next = self.config.connections;
                }
            }
            LoadPhase::Live { course, .. } => {
                if let Some(meant) = meant {
                    course.end(now, meant, Err("timed_out"));
                }
            }
            LoadPhase::Hostile(_) | LoadPhase::Holding(_) | LoadPhase::Done => {}
        }
    }

    /// Retransmits, or fails the connection.
    pub(super) fn retry(&mut self, now: Instant) {
        let late = self.busy.iter().filter(|(_, busy)| busy.retry_at <= now);
        let late = late.map(|(&index, busy)| (index, busy.attempts, busy.meant));
        for (index, attempts, meant) in late.collect::<Vec<_>>() {
            self.busy.remove(&index);
            if attempts >= MAX_ATTEMPTS {
                self.give_up(now, meant);
            } else {
                self.report.retries += 1;
                self.attempt(now, index, attempts + 1, meant);
            }
        }
    }

    pub(super) fn handle_datagram(&mut self, now: Instant, path: UdpPath, datagram: &[u8]) {
        self.report.packets_in += 1;
        self.report.bytes_in += datagram.len() as u64;
        if path.src != self.config.target.remote {
            self.report.strays += 1;
            return;
        }
        if let LoadPhase::Hostile(hostile) = &mut self.phase {
            hostile.handle(datagram);
            return;
        }
        let index = self.index(path.dst);
        let busy = index.and_then(|index| Some((index, self.busy.get_mut(&index)?)));
        let (Some((index, busy)), Ok(ToClient::Response(response))) =
            (busy, ToClient::parse(datagram))
        else {
            self.report.strays += 1;
            return;
        };
        let step = busy.exchange.handle(now, &response);
        let status = status_of(&response);
        if !matches!(step, Step::Stray)
            && let Some(status) = status
        {
            *self.report.statuses.entry(status).or_default() += 1;
        }
        match step {
            Step::Stray => self.report.strays += 1,
            Step::Wait => {}
            Step::Ask(datagram) => {
                busy.retry_at = now + timeout(busy.attempts);
                self.report.requests += 1;
                self.push(index, datagram);
            }
            Step::Keep(kept) => self.keep(now, index, kept, status.unwrap_or(0)),
        }
    }

    pub(super) fn keep(&mut self, now: Instant, index: u32, kept: Kept, status: u16) {
        let meant = self.busy.remove(&index).and_then(|busy| busy.meant);
        if let (LoadPhase::Live { course, .. }, Some(meant)) = (&mut self.phase, meant) {
            let whole = Whole {
                status,
                body_bytes: 0,
            };
            course.end(now, meant, Ok(whole));
        }
        let slot = usize::try_from(index).ok();
        let Some(slot) = slot.and_then(|slot| self.kept.get_mut(slot)) else {
            return;
        };
        match slot.replace(kept) {
            None => self.report.opened += 1,
            Some(_) if meant.is_some() => {}
            Some(_) => self.report.resumed += 1,
        }
        self.last_kept = now;
        self.failures_in_a_row = 0;
    }
}

/// The retransmission timeout of attempt `attempts` (from 1).
fn timeout(attempts: u32) -> Duration {
    (FIRST_TIMEOUT * (1 << (attempts - 1))).min(MAX_TIMEOUT)
}
