//! A model of TCP downloads: handshake, request, and a sender with SACK, RACK, proportional rate
//! reduction, HyStart and CUBIC or Reno growth, about as Linux does it.
//!
//! In and out: packets of the sizes that TCP with timestamps would have, so that it may share a
//! bottleneck with ours. Idealised: one byte stream, no receive window, no processing time, and each
//! acknowledgement names the segments that came last instead of SACK blocks.
//! Sources: RFC 9438 (CUBIC), 5681 (Reno), 6937 (PRR), 8985 (RACK), 6298 (timers), 6928 (initial
//! window); Linux's HyStart, which leaves slow start on the delay or on the length of a train.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::Ends;
use crate::time::{Instant, Now};
use crate::transport::client::ClientStats;
use crate::wire::flight::{Ecn, Flight, UdpPath};
use crate::wire::ip::parse_udp;

/// Payload of a full segment in bytes: 1500 less 20 of IPv4, 20 of TCP and 12 of timestamps.
const MSS: u64 = 1448;
/// Headers of TCP beyond those of UDP, in bytes: what a model's packet is padded with.
const EXTRA_HEADERS: usize = 24;
const INITIAL_WINDOW: f64 = 10.0;
const MIN_RTO: Duration = Duration::from_millis(200);
const MAX_RTO: Duration = Duration::from_secs(120);
const DELAYED_ACK: Duration = Duration::from_millis(40);
/// Segments that an acknowledgement names beside the cumulative one.
const NAMED: usize = 8;
/// Segments that came later and make one lost at once while no reordering was seen.
const DUPLICATES: u64 = 3;
/// RFC 9438 §5.
const C: f64 = 0.4;
const CUBIC_BETA: f64 = 0.7;
const RENO_BETA: f64 = 0.5;

/// How the window grows after slow start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// RFC 9438.
    Cubic,
    /// RFC 5681.
    Reno,
}

/// Messages: their first byte.
const SYN: u8 = 1;
const SYN_ACK: u8 = 2;
const GET: u8 = 3;
const DATA: u8 = 4;
const ACK: u8 = 5;

pub(super) struct Tcp {
    path: UdpPath,
    client: Receiver,
    server: Sender,
}

impl Tcp {
    pub(super) fn new(path: UdpPath, bytes: u64, growth: Growth) -> Self {
        Self {
            path,
            client: Receiver {
                bytes,
                ..Receiver::default()
            },
            server: Sender::new(bytes, growth),
        }
    }
}

impl Ends for Tcp {
    fn at_client(&mut self, now: Now, packet: &[u8]) {
        if let Ok(Some(datagram)) = parse_udp(packet) {
            self.client.handle(now.instant, datagram.payload);
        }
    }

    fn at_server(&mut self, now: Now, packet: &[u8]) {
        if let Ok(Some(datagram)) = parse_udp(packet) {
            self.server.handle(now.instant, datagram.payload);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.client.handle_timeout(now.instant);
        self.server.handle_timeout(now.instant);
    }

    fn next_of_client(&mut self, _now: Now) -> Option<Flight> {
        let message = self.client.out.pop_front()?;
        Some(Flight::single(self.path, Ecn::NotEct, message))
    }

    fn next_of_server(&mut self, now: Now) -> Option<Flight> {
        let message = self.server.next(now.instant)?;
        Some(Flight::single(self.path.reversed(), Ecn::NotEct, message))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let timers = [self.client.timer, self.server.timer, self.server.rack_timer];
        timers.into_iter().flatten().min()
    }

    fn received(&self) -> u64 {
        (self.client.expected * MSS).min(self.client.bytes)
    }

    fn stats(&self) -> Option<ClientStats> {
        None
    }

    fn refused(&self) -> u64 {
        0
    }
}

/// The client: opens, asks, acknowledges.
#[derive(Default)]
struct Receiver {
    bytes: u64,
    /// `SYN` or `GET` while it is unanswered.
    asking: Option<u8>,
    /// Next segment in order.
    expected: u64,
    early: BTreeSet<u64>,
    /// Segments that came last, newest first.
    newest: VecDeque<u64>,
    unacknowledged: u32,
    out: VecDeque<Vec<u8>>,
    timer: Option<Instant>,
}

impl Receiver {
    fn ask(&mut self, now: Instant, kind: u8) {
        self.asking = Some(kind);
        let mut message = vec![kind];
        message.resize(EXTRA_HEADERS + if kind == GET { 80 } else { 8 }, 0);
        self.out.push_back(message);
        self.timer = Some(now + Duration::from_secs(1));
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.timer.is_some_and(|at| at > now) {
            return;
        }
        match self.asking {
            Some(kind) => self.ask(now, kind),
            None if self.expected == 0 && self.early.is_empty() => self.ask(now, SYN),
            None => self.acknowledge(),
        }
    }

    fn handle(&mut self, now: Instant, message: &[u8]) {
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
        // Linux acknowledges at once for as long as the connection is young.
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
struct Sender {
    bytes: u64,
    growth: Growth,
    greet: bool,
    asked: bool,
    una: u64,
    segments: VecDeque<Segment>,
    /// Segments in the order they were sent.
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
    /// When the latest-sent segment that arrived was sent, and its round trip.
    rack: Option<(Instant, Duration)>,
    reordering: bool,
    backoff: u32,
    timer: Option<Instant>,
    rack_timer: Option<Instant>,
}

/// Proportional rate reduction (RFC 6937).
#[derive(Clone, Copy)]
struct Recovery {
    until: u64,
    flight: f64,
    delivered: f64,
    out: f64,
}

#[derive(Default)]
struct Cubic {
    start: Option<Instant>,
    w_max: f64,
    k: f64,
    reno: f64,
}

#[derive(Default)]
struct HyStart {
    end: u64,
    began: Instant,
    last_ack: Instant,
    min: Option<Duration>,
    samples: u32,
}

impl Sender {
    fn new(bytes: u64, growth: Growth) -> Self {
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
            min_rtt: Duration::MAX,
            hystart: HyStart::default(),
            highest_arrived: None,
            rack: None,
            reordering: false,
            backoff: 0,
            timer: None,
            rack_timer: None,
        }
    }

    fn handle(&mut self, now: Instant, message: &[u8]) {
        match message.first() {
            Some(&SYN) => self.greet = true,
            Some(&GET) => self.asked = true,
            Some(&ACK) => self.acknowledged(now, message),
            _ => {}
        }
    }

    fn next(&mut self, now: Instant) -> Option<Vec<u8>> {
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

    /// One segment has arrived; returns 1 if that is news.
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
        // A window that is not used does not grow.
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

    fn handle_timeout(&mut self, now: Instant) {
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

impl Recovery {
    fn window(&self, flying: f64, ssthresh: f64) -> f64 {
        let more = if flying > ssthresh {
            (self.delivered * ssthresh / self.flight.max(1.0)).ceil() - self.out
        } else {
            let limit = (self.delivered - self.out).max(0.0) + 1.0;
            limit.min(ssthresh - flying)
        };
        // The first retransmission goes out at once.
        let least = if self.out == 0.0 { 1.0 } else { 0.0 };
        flying + more.max(least)
    }
}

impl Cubic {
    /// By how much the window grows (RFC 9438 §4.2, §4.3).
    fn step(&mut self, now: Instant, cwnd: f64, delivered: f64, rtt: Duration) -> f64 {
        let start = *self.start.get_or_insert_with(|| {
            self.w_max = self.w_max.max(cwnd);
            self.k = ((self.w_max - cwnd) / C).cbrt();
            self.reno = cwnd;
            now
        });
        let t = (now.saturating_since(start) + rtt).as_secs_f64();
        let target = C * (t - self.k).powi(3) + self.w_max;
        // Linux keeps this slope beyond the plateau, too.
        let alpha = 3.0 * (1.0 - CUBIC_BETA) / (1.0 + CUBIC_BETA);
        self.reno += alpha * delivered / cwnd;
        let target = target.clamp(cwnd, 1.5 * cwnd);
        let step = (target - cwnd) * delivered / cwnd;
        step.max(self.reno - cwnd)
    }
}

impl HyStart {
    fn ends(
        &mut self,
        now: Instant,
        una: u64,
        next: u64,
        sample: Option<Duration>,
        base: Duration,
    ) -> bool {
        if una >= self.end {
            *self = Self {
                end: next,
                began: now,
                last_ack: now,
                ..Self::default()
            };
        }
        let mut train = false;
        if now.saturating_since(self.last_ack) <= Duration::from_millis(2) {
            self.last_ack = now;
            train = now.saturating_since(self.began) > base / 2;
        }
        if let Some(rtt) = sample
            && self.samples < 8
        {
            self.samples += 1;
            self.min = Some(self.min.map_or(rtt, |min| min.min(rtt)));
        }
        let rise = (base / 8).clamp(Duration::from_millis(4), Duration::from_millis(16));
        let slow = self.samples >= 8 && self.min.is_some_and(|min| min > base + rise);
        train || slow
    }
}

fn word(message: &[u8], at: usize) -> u64 {
    let bytes = message.get(at..).and_then(|rest| rest.first_chunk::<8>());
    bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
