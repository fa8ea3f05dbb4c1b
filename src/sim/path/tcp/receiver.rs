//! The model of a client: connects, requests the object and acknowledges.
//!
//! In: messages of the sender and time. Out: messages for it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::{ACK, DATA, DELAYED_ACK, EXTRA_HEADERS, GET, MSS, NAMED, SYN, SYN_ACK, word};
use crate::time::Instant;

/// The client: connects, requests, acknowledges.
#[derive(Default)]
pub(super) struct Receiver {
    pub(super) bytes: u64,
    /// `SYN` or `GET` until answered.
    asking: Option<u8>,
    /// Next in-order segment.
    pub(super) expected: u64,
    early: BTreeSet<u64>,
    /// The latest segments, newest first.
    newest: VecDeque<u64>,
    unacknowledged: u32,
    pub(super) out: VecDeque<Vec<u8>>,
    pub(super) timer: Option<Instant>,
}

impl Receiver {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }

    fn ask(&mut self, now: Instant, kind: u8) {
        self.asking = Some(kind);
        let mut message = vec![kind];
        message.resize(EXTRA_HEADERS + if kind == GET { 80 } else { 8 }, 0);
        self.out.push_back(message);
        self.timer = Some(now + Duration::from_secs(1));
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.timer.is_some_and(|at| at > now) {
            return;
        }
        match self.asking {
            Some(kind) => self.ask(now, kind),
            None if self.expected == 0 && self.early.is_empty() => self.ask(now, SYN),
            None => self.acknowledge(),
        }
    }

    pub(super) fn handle(&mut self, now: Instant, message: &[u8]) {
        match message.first() {
            Some(&SYN_ACK) if self.asking == Some(SYN) => self.ask(now, GET),
            Some(&DATA) => self.take(now, word(message, 1)),
            _ => {}
        }
    }

    fn take(&mut self, now: Instant, segment: u64) {
        self.asking = None;
        self.newest.push_front(segment);
        self.newest.truncate(NAMED);
        let in_order = segment == self.expected && self.early.is_empty();
        if segment >= self.expected {
            self.early.insert(segment);
        }
        while self.early.remove(&self.expected) {
            self.expected += 1;
        }
        self.unacknowledged += 1;
        let last = self.expected * MSS >= self.bytes;
        // Linux acknowledges at once while a connection is young.
        let young = self.expected < 20;
        if !in_order || self.unacknowledged >= 2 || last || young {
            self.acknowledge();
        } else {
            self.timer = Some(now + DELAYED_ACK);
        }
    }

    fn acknowledge(&mut self) {
        self.unacknowledged = 0;
        self.timer = None;
        let mut message = vec![ACK];
        message.extend(self.expected.to_be_bytes());
        for segment in &self.newest {
            message.extend(segment.to_be_bytes());
        }
        self.out.push_back(message);
    }
}
