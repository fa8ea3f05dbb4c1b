//! A slow application: [`Objects`] whose bytes take time on each server, some of unknown length.
//!
//! In: requests and time. Out: bytes, or tickets, and the time at which the next one is done. Each object
//! is read in blocks, and some blocks, and the beginnings of some objects, take up to a given time. All
//! that is done is forgotten with the server. The same requests at the same times give the same answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::dice::Dice;
use super::object::{Object, Objects};
use crate::time::{Instant, micros};
use crate::transport::application::{
    Application, Begun, RequestContext, StreamPart, Ticket, Unavailable,
};

/// Bytes that become ready together.
pub const BLOCK_BYTES: u64 = 40_000;

/// Most blocks in memory.
const MAX_DONE: usize = 1024;

/// Most blocks in the making.
const MAX_JOBS: usize = 256;

/// One block in `SLOW_ONE_IN` takes time.
const SLOW_ONE_IN: u64 = 3;

/// See the head of this file.
#[derive(Debug)]
pub struct SlowObjects {
    /// Longest time for a block; zero: everything is in memory.
    most: Duration,
    now: Instant,
    jobs: BTreeMap<Ticket, Instant>,
    done: BTreeSet<Ticket>,
    ready: VecDeque<Ticket>,
}

impl SlowObjects {
    /// Creates an application whose blocks take `most` at the longest.
    #[must_use]
    pub const fn new(most: Duration) -> Self {
        Self {
            most,
            now: Instant::ZERO,
            jobs: BTreeMap::new(),
            done: BTreeSet::new(),
            ready: VecDeque::new(),
        }
    }

    /// Finishes the work that is due.
    pub fn advance(&mut self, now: Instant) {
        self.now = now;
        let due = self.jobs.iter().filter(|(_, at)| **at <= now);
        for ticket in due.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
            self.jobs.remove(&ticket);
            if self.done.len() == MAX_DONE {
                self.done.pop_first();
            }
            self.done.insert(ticket);
            self.ready.push_back(ticket);
        }
    }

    /// When work will be done next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.jobs.values().min().copied()
    }

    /// Checks that a block is in memory, or starts work for it. Block 0 is the beginning of the stream.
    fn have(&mut self, context: RequestContext, object: Object, block: u64) -> Result<(), Ticket> {
        let mut dice = Dice::new(object.seed ^ (block + 1).wrapping_mul(0x9e37_79b9));
        let ticket = Ticket(dice.seed());
        let instant = self.most.is_zero() || dice.between(1, SLOW_ONE_IN) > 1;
        if instant || self.done.contains(&ticket) {
            return Ok(());
        }
        let takes = dice.between(1, micros(self.most));
        if context.proven && self.jobs.len() < MAX_JOBS {
            let at = self.now + Duration::from_micros(takes);
            self.jobs.entry(ticket).or_insert(at);
        }
        Err(ticket)
    }
}

/// Whether the length of an object's stream is known only at its end.
const fn grows(object: Object) -> bool {
    object.seed % 4 == 1
}

/// The block after which the length of a stream is known.
const fn last_block(object: Object) -> u64 {
    1 + object.length.saturating_sub(1) / BLOCK_BYTES
}

impl Application for SlowObjects {
    fn begin(&mut self, context: RequestContext, request: &[u8]) -> Result<Begun, Unavailable> {
        let begun = Objects.begin(context, request)?;
        let Some(object) = Object::parse(request).filter(|_| !self.most.is_zero()) else {
            return Ok(begun);
        };
        self.have(context, object, 0)
            .map_err(Unavailable::NotReady)?;
        let length = begun.length.filter(|_| !grows(object));
        Ok(Begun { length, ..begun })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        let StreamPart {
            context,
            user,
            offset,
        } = part;
        let object = Object::parse(user).ok_or(Unavailable::Changed)?;
        let wanted = u64::try_from(out.len()).unwrap_or(u64::MAX);
        let mut end = object.length.min(offset.saturating_add(wanted)).max(offset);
        if grows(object) && offset >= object.length {
            // It is not known yet that this is the end.
            self.have(context, object, last_block(object))
                .map_err(Unavailable::NotReady)?;
        }
        let mut at = offset;
        while at < end {
            let block = 1 + at / BLOCK_BYTES;
            match self.have(context, object, block) {
                Ok(()) => at = block * BLOCK_BYTES,
                Err(_) if grows(object) && at > offset => end = at,
                Err(ticket) => return Err(Unavailable::NotReady(ticket)),
            }
        }
        let count = usize::try_from(end - offset).unwrap_or(out.len());
        let (out, _) = out.split_at_mut(count.min(out.len()));
        Objects.read(StreamPart::new(context, user, offset), out)
    }

    fn length(&mut self, context: RequestContext, user: &[u8]) -> Option<u64> {
        let object = Object::parse(user)?;
        let known = self.have(context, object, last_block(object)).is_ok();
        known.then_some(object.length)
    }

    fn poll_ready(&mut self) -> Option<Ticket> {
        self.ready.pop_front()
    }
}
