//! The model of a server: transmission, loss detection and retransmission.
//!
//! In: messages of the receiver and time. Out: segments. Sources: RFC 8985 (RACK), 6298 (timers).

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::growth::{Cubic, HyStart, Recovery};
use super::{
    ACK, CUBIC_BETA, DATA, DUPLICATES, EXTRA_HEADERS, GET, Growth, INITIAL_WINDOW, MAX_RTO,
    MIN_RTO, MSS, NAMED, RENO_BETA, SYN, SYN_ACK, to_usize, word,
};
use crate::time::Instant;

#[derive(Clone, Copy, PartialEq, Eq)]
enum SegmentState {
    Flying,
    Arrived,
    Lost,
}

#[derive(Clone, Copy)]
struct Segment {
    state: SegmentState,
    sent: Instant,
    again: bool,
}

/// The server.
pub(super) struct Sender {
    bytes: u64,
    growth: Growth,
    greet: bool,
    asked: bool,
    una: u64,
    segments: VecDeque<Segment>,
    /// Segments in sending order.
    order: VecDeque<(Instant, u64)>,
    lost: BTreeSet<u64>,
    flying: u64,
    cwnd: f64,
    ssthresh: f64,
    cubic: Cubic,
    /// In recovery until this segment is acknowledged.
    recovery: Option<Recovery>,
    rtt: Option<(Duration, Duration)>,
    min_rtt: Duration,
    hystart: HyStart,
    highest_arrived: Option<u64>,
    /// Send time and round trip of the latest-sent segment that arrived.
    rack: Option<(Instant, Duration)>,
    reordering: bool,
    backoff: u32,
    pub(super) timer: Option<Instant>,
    pub(super) rack_timer: Option<Instant>,
}

impl Sender {
    pub(super) fn new(bytes: u64, growth: Growth) -> Self {
        Self {
            bytes,
            growth,
            greet: false,
            asked: false,
            una: 0,
            segments: VecDeque::new(),
            order: VecDeque::new(),
            lost: BTreeSet::new(),
            flying: 0,
            cwnd: INITIAL_WINDOW,
            ssthresh: f64::INFINITY,
            cubic: Cubic::default(),
            recovery: None,
            rtt: None,
            // Until a sample comes; a first segment that is sent again gives none.
            min_rtt: MAX_RTO,
            hystart: HyStart::default(),
            highest_arrived: None,
            rack: None,
            reordering: false,
            backoff: 0,
            timer: None,
            rack_timer: None,
        }
    }

    pub(super) fn handle(&mut self, now: Instant, message: &[u8]) {
        match message.first() {
            Some(&SYN) => self.greet = true,
            Some(&GET) => self.asked = true,
            Some(&ACK) => self.acknowledged(now, message),
            _ => {}
        }
    }

    pub(super) fn next(&mut self, now: Instant) -> Option<Vec<u8>> {
        if core::mem::take(&mut self.greet) {
            let mut message = vec![SYN_ACK];
            message.resize(EXTRA_HEADERS + 8, 0);
            return Some(message);
        }
        let window = match &self.recovery {
            Some(recovery) => recovery.window(self.flying_f64(), self.ssthresh),
            None => self.cwnd,
        };
        if !self.asked || self.flying_f64() + 1.0 > window {
            return None;
        }
        let count = self.bytes.div_ceil(MSS);
        let fresh = self.una + self.segments.len() as u64;
        let number = match self.lost.pop_first() {
            Some(number) => number,
            None if fresh < count => fresh,
            None => return None,
        };
        let segment = Segment {
            state: SegmentState::Flying,
            sent: now,
            again: number < fresh,
        };
        match self.segments.get_mut(to_usize(number - self.una)) {
            Some(old) => *old = segment,
            None => self.segments.push_back(segment),
        }
        self.order.push_back((now, number));
        self.flying += 1;
        if let Some(recovery) = &mut self.recovery {
            recovery.out += 1.0;
        }
        if self.timer.is_none() {
            self.timer = Some(now + self.rto());
        }
        let length = MSS.min(self.bytes - number * MSS);
        let mut message = vec![DATA];
        message.extend(number.to_be_bytes());
        message.resize(EXTRA_HEADERS + to_usize(length), 0);
        Some(message)
    }

    fn flying_f64(&self) -> f64 {
        self.flying as f64
    }

    fn rto(&self) -> Duration {
        let base = self
            .rtt
            .map_or(Duration::from_secs(1), |(smoothed, variation)| {
                smoothed + (variation * 4).max(MIN_RTO)
            });
        (base * (1 << self.backoff.min(10))).min(MAX_RTO)
    }

    fn acknowledged(&mut self, now: Instant, message: &[u8]) {
        let upto = word(message, 1);
        let mut delivered = 0.0;
        let mut sample = None;
        let named = (0..NAMED).map(|index| 9 + index * 8);
        let named = named.take_while(|&at| at + 8 <= message.len());
        for number in named.map(|at| word(message, at)) {
            delivered += self.arrive(now, number, &mut sample);
        }
        while self.una < upto {
            delivered += self.arrive(now, self.una, &mut sample);
            self.segments.pop_front();
            self.una += 1;
        }
        if let Some(rtt) = sample {
            self.sample(rtt);
        }
        if delivered > 0.0 {
            self.backoff = 0;
            self.timer = (!self.segments.is_empty()).then(|| now + self.rto());
        }
        self.detect(now);
        self.grow(now, delivered, sample);
    }

    /// Handles the arrival of one segment; returns 1 if it is new.
    fn arrive(&mut self, now: Instant, number: u64, sample: &mut Option<Duration>) -> f64 {
        let index = number.checked_sub(self.una).map(to_usize);
        let Some(segment) = index.and_then(|index| self.segments.get_mut(index)) else {
            return 0.0;
        };
        match segment.state {
            SegmentState::Arrived => return 0.0,
            SegmentState::Flying => self.flying -= 1,
            SegmentState::Lost => {
                self.lost.remove(&number);
            }
        }
        segment.state = SegmentState::Arrived;
        let (sent, again) = (segment.sent, segment.again);
        let rtt = now.saturating_since(sent);
        if !again {
            *sample = Some(sample.map_or(rtt, |least: Duration| least.min(rtt)));
            self.reordering |= self.highest_arrived.is_some_and(|highest| number < highest);
        }
        self.highest_arrived = self.highest_arrived.max(Some(number));
        if self.rack.is_none_or(|(latest, _)| sent > latest) && (!again || rtt >= self.min_rtt) {
            self.rack = Some((sent, rtt));
        }
        1.0
    }

    fn sample(&mut self, rtt: Duration) {
        self.min_rtt = self.min_rtt.min(rtt);
        self.rtt = Some(match self.rtt {
            None => (rtt, rtt / 2),
            Some((smoothed, variation)) => (
                (smoothed * 7 + rtt) / 8,
                (variation * 3 + smoothed.abs_diff(rtt)) / 4,
            ),
        });
    }

    /// RFC 8985 §6.2.
    fn detect(&mut self, now: Instant) {
        self.rack_timer = None;
        let Some((latest, rtt)) = self.rack else {
            return;
        };
        let mut found = false;
        while let Some(&(sent, number)) = self.order.front() {
            let index = number.checked_sub(self.una).map(to_usize);
            let segment = index.and_then(|index| self.segments.get_mut(index));
            let current = segment.filter(|s| s.state == SegmentState::Flying && s.sent == sent);
            let Some(segment) = current else {
                self.order.pop_front();
                continue;
            };
            let behind = self.highest_arrived.unwrap_or(0).saturating_sub(number);
            if sent > latest || (sent == latest && behind < DUPLICATES) {
                break;
            }
            let wait = match !self.reordering && (behind >= DUPLICATES || segment.again) {
                true => Duration::ZERO,
                false => self.min_rtt / 4,
            };
            let deadline = sent + rtt + wait;
            if deadline > now {
                self.rack_timer = Some(deadline);
                break;
            }
            segment.state = SegmentState::Lost;
            self.flying -= 1;
            self.lost.insert(number);
            self.order.pop_front();
            found = true;
        }
        if found {
            self.reduce();
        }
    }

    fn reduce(&mut self) {
        if self.recovery.is_some() {
            return;
        }
        let until = self.una + self.segments.len() as u64;
        let flight = self.flying_f64() + self.lost.len() as f64;
        self.remember_maximum();
        self.ssthresh = (self.cwnd.floor() * self.beta()).floor().max(2.0);
        self.recovery = Some(Recovery {
            until,
            flight,
            delivered: 0.0,
            out: 0.0,
        });
    }

    const fn beta(&self) -> f64 {
        match self.growth {
            Growth::Cubic => CUBIC_BETA,
            Growth::Reno => RENO_BETA,
        }
    }

    /// Fast convergence (RFC 9438 §4.7).
    fn remember_maximum(&mut self) {
        self.cubic.start = None;
        self.cubic.w_max = match self.cwnd < self.cubic.w_max {
            true => self.cwnd * (1.0 + CUBIC_BETA) / 2.0,
            false => self.cwnd,
        };
    }

    fn grow(&mut self, now: Instant, delivered: f64, sample: Option<Duration>) {
        if let Some(recovery) = &mut self.recovery {
            recovery.delivered += delivered;
            if self.una >= recovery.until {
                self.recovery = None;
                self.cwnd = self.ssthresh;
            }
            return;
        }
        // An unused window does not grow.
        let full = self.flying_f64() + delivered + 1.0 >= self.cwnd.min(2.0 * self.flying_f64());
        if !full || delivered == 0.0 {
            return;
        }
        if self.cwnd < self.ssthresh {
            self.cwnd += delivered;
            let next = self.una + self.segments.len() as u64;
            if self.hystart.ends(now, self.una, next, sample, self.min_rtt) && self.cwnd >= 16.0 {
                self.ssthresh = self.cwnd;
            }
            return;
        }
        self.cwnd += match self.growth {
            Growth::Reno => delivered / self.cwnd,
            Growth::Cubic => self.cubic.step(now, self.cwnd, delivered, self.min_rtt),
        };
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.rack_timer.is_some_and(|at| at <= now) {
            self.detect(now);
        }
        if self.timer.is_none_or(|at| at > now) {
            return;
        }
        if self.backoff == 0 && self.recovery.is_none() {
            self.remember_maximum();
            self.ssthresh = (self.cwnd.floor() * self.beta()).floor().max(2.0);
        }
        self.backoff += 1;
        self.recovery = None;
        self.cwnd = 1.0;
        for (number, segment) in (self.una..).zip(&mut self.segments) {
            if segment.state == SegmentState::Flying {
                segment.state = SegmentState::Lost;
                self.lost.insert(number);
            }
        }
        self.flying = 0;
        self.order.clear();
        self.timer = Some(now + self.rto());
    }
}
