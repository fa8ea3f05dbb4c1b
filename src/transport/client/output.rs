//! The datagrams that a connection sends: OPENs, requests, repeats and probes.

use std::time::Duration;

use rand::RngExt as _;

use crate::time::{Instant, micros};
use crate::transport::client::connection::{Connection, Opening, Probe};
use crate::transport::client::flights::Record;
use crate::transport::client::outbox::Outbox;
use crate::transport::client::path::Path;
use crate::transport::client::stream::label_of;
use crate::transport::client::window::{Event, Interval};
use crate::transport::continuation::{MAX_CLOCK_SKEW, RECENT};
use crate::transport::curve::MAX_FLIGHT;
use crate::transport::epoch::TransitionKind;
use crate::transport::grant::{RESTART_GATE, TIMEOUT_GATE};
use crate::transport::layout;
use crate::wire::segment::{
    CONTINUATION_FIELD_BYTES, Declared, OPEN_BYTES, Open, Request, Span, Token, Wanted,
};

/// A continuation older than this is refreshed, long before it is not recent any more.
const REFRESH_AGE: Duration = Duration::from_secs(10);

/// A continuation older than this is used only as an address token.
const STALE_AGE: Duration = Duration::from_secs(14 * 60);

/// Most packets requested with the request that begins a stream: its length is not known yet, and
/// numbers that it does not need come back as one void packet that must be acknowledged whole.
const MAX_BEGINNING: u32 = 16;

/// Longest delay of an acknowledgement that could release a larger flight.
const MAX_DELAY: Duration = Duration::from_millis(10);

/// Part of a round trip that an acknowledgement is delayed at most.
const DELAY_PART: u32 = 8;

/// Greatest window in packets whose acknowledgements are not delayed: there each is a good part of
/// the rate.
const MAX_UNDELAYED: u32 = 16;

/// Unanswered timeouts after which an OPEN goes along with each further one.
pub(super) const OPEN_AFTER_TIMEOUTS: u32 = 3;

/// Time that a flight takes at the present rate: longer ones are bursts that short queues drop.
const FLIGHT_TIME: Duration = Duration::from_micros(500);

/// Packets to ask for at once: those that come in [`FLIGHT_TIME`], at most an eighth of the window.
fn flight_size(window: u32, path: &Path) -> u32 {
    let rtt = micros(path.rtt().expected()).max(1);
    let share = u64::from(window) * micros(FLIGHT_TIME) / rtt;
    let share = u32::try_from(share).unwrap_or(u32::MAX);
    path.enlarge(share.max(2))
        .min(window / 8)
        .clamp(2, MAX_FLIGHT)
}

impl Connection {
    /// Starts a new connection, beside the one that does not answer if there is one.
    pub(super) fn open(&mut self, now: Instant) {
        let echo = self.random.random();
        self.opening = Some(Opening {
            echo,
            sent: now,
            attempts: 0,
            due: true,
            streams: (self.stream.id, self.stream.id),
        });
    }

    /// Puts the datagrams that may leave now into the outbox.
    pub(super) fn fill(&mut self, now: Instant, path: &mut Path, out: &mut Outbox) {
        out.send_timer = None;
        self.stream.waits = self.flights.waits(self.stream.id);
        while let Some(flight) = self.repeats.pop_front() {
            self.send_repeat(now, path, out, flight);
        }
        while !out.is_full() && self.send_request(now, path, out) {}
        if self.needs_probe(now, path, out) {
            match self.probe_token_at() {
                at if at > now => out.send_timer = Some((at, "token")),
                _ => self.send_probe(now, path, out),
            }
        }
        // After the request: if both are answered, the connection goes on.
        if self.opening.is_some_and(|opening| opening.due) {
            self.send_open(now, path, out);
        }
        out.filled_at = (!out.is_full()).then_some(now);
    }

    /// Sends the OPEN under way, for the first time or again.
    fn send_open(&mut self, now: Instant, path: &mut Path, out: &mut Outbox) {
        let own = self.address_token().map(|(token, _)| token);
        let token = own.or_else(|| self.token.clone());
        let size = path.datagram_max();
        let Some(opening) = &mut self.opening else {
            return;
        };
        opening.due = false;
        opening.sent = now;
        opening.attempts += 1;
        opening.streams.1 = self.stream.id;
        // A service that has lost the keys of the stream is silent to its user continuation: every
        // second OPEN asks only whether the service lives. With spares, each gets both kinds.
        let (wanted, offset) = match &self.stream.user {
            Some(_) if (opening.attempts - 1) / path.turns() % 2 == 1 => (Wanted::New(&[]), 0),
            Some(user) => (Wanted::Of(user), self.stream.reassembly.read_offset()),
            None => (Wanted::New(&self.stream.request), 0),
        };
        let token = token.as_ref().map(|token| Token {
            connection: token.connection,
            sealed: &token.sealed,
        });
        let stream = label_of(self.stream.id);
        let mut datagram = Vec::new();
        Open {
            echo: opening.echo,
            size,
            stream,
            token,
            wanted,
            offset,
        }
        .emit(&mut datagram);
        self.stream.beginning = self.stream.user.is_none();
        out.stats.opens += 1;
        out.send(now, path, datagram);
    }

    /// Sends one request for data if one may be sent; returns whether it did.
    fn send_request(&mut self, now: Instant, path: &mut Path, out: &mut Outbox) -> bool {
        self.restart_if_idle(now, path, out);
        self.declare_deferred(path, out);
        let wanted = self.stream.wanted();
        let Some(known) = &mut self.established else {
            return false;
        };
        if wanted == 0 {
            return false;
        }
        let gives_up = known.window.gives_up();
        if gives_up && !known.declare_due {
            return false;
        }
        let gate = known.window.started() + TIMEOUT_GATE;
        if gives_up && gate > now {
            out.send_timer = Some((gate, "restart gate"));
            return false;
        }
        if gives_up && known.bucket.timeout_at() > now {
            out.send_timer = Some((known.bucket.timeout_at(), "token"));
            return false;
        }
        let ready = path.ready_at();
        if !gives_up && ready > now {
            out.send_timer = Some((ready, "pacing"));
            return false;
        }
        let window = known.window.packets();
        let begins = self.stream.user.is_none();
        let needed = match begins {
            true => MAX_BEGINNING,
            false => {
                let room = layout::room(usize::from(path.datagram_size())).max(1);
                let needed = wanted.div_ceil(u64::try_from(room).unwrap_or(1));
                u32::try_from(needed).unwrap_or(u32::MAX)
            }
        };
        let disordered = known.window.is_crowded() || path.servers_are_apart(now);
        let flight = match disordered {
            true => (window / 8).clamp(2, MAX_FLIGHT),
            false => flight_size(window, path),
        };
        let budget = flight.min(needed);
        if !gives_up && !self.may_send(now, path, out, budget, window) {
            return false;
        }
        let Some(known) = &mut self.established else {
            return false;
        };
        let Some(interval) = known.window.next_interval(now, budget) else {
            return false;
        };
        known.declare_due = false;
        self.request_interval(now, path, out, interval, window);
        true
    }

    /// Whether a request may leave now, or waits so that its flight becomes larger.
    fn may_send(
        &self,
        now: Instant,
        path: &Path,
        out: &mut Outbox,
        budget: u32,
        window: u32,
    ) -> bool {
        let Some(known) = &self.established else {
            return false;
        };
        let releasable = known.window.releasable();
        let delay = (path.rtt().expected() / DELAY_PART).min(MAX_DELAY);
        let until = self.unacknowledged_since.unwrap_or(now) + delay;
        let wait = window > MAX_UNDELAYED
            && releasable < u64::from(budget)
            && until > now
            && !self.flights.is_empty();
        if wait {
            out.send_timer = Some((until, "delayed acknowledgement"));
        }
        !wait
    }

    /// Sends the request that acknowledges `interval`, at a window of `window` packets.
    fn request_interval(
        &mut self,
        now: Instant,
        path: &mut Path,
        out: &mut Outbox,
        interval: Interval,
        window: u32,
    ) {
        let Some(known) = &mut self.established else {
            return;
        };
        // An interval that filled late releases numbers between others; an event that is declared again,
        // the same numbers.
        let gives_up = |event: &Event| !event.transition.kind.has_zone();
        let asked_before =
            known.window.event().is_some_and(gives_up) && interval.first <= known.window.highest();
        known
            .window
            .asked(interval.first + u64::from(interval.count) - 1);
        let age = match path.wants_issue_times() {
            true => Duration::ZERO,
            false => REFRESH_AGE,
        };
        let wants = known.window.wants_continuation()
            || path.cookie().is_some()
            || known.window.refresh(now, path.rtt().expected(), age);
        let mut record = Record::new(interval, now, self.stream.id, known.window.releasing());
        record.asked_before = asked_before;
        record.declared = known.window.event().map(|event| event.declaration);
        record.wants_continuation = wants;
        record.rebinds = path.cookie().is_some();
        let slow_start = known.window.in_slow_start() || known.window.is_opening();
        let size = usize::from(path.datagram_size());
        if self.stream.user.is_none() {
            record.stream = self.stream.begin_again();
        } else {
            let field = if wants { CONTINUATION_FIELD_BYTES } else { 0 };
            record.ranges = self
                .stream
                .take(size, interval.count, field, &mut self.layout);
            record.layout.clone_from(&self.layout);
        }
        if self.flights.is_empty() {
            path.wait_from(now);
        }
        path.pace(now, interval.count, window, slow_start);
        self.unacknowledged_since = (known.window.releasable() > 0).then_some(now);
        out.stats.requests += 1;
        self.emit(now, path, out, &record, None);
        self.flights.push(record);
    }

    /// Sends the request of a flight again.
    fn send_repeat(&mut self, now: Instant, path: &mut Path, out: &mut Outbox, flight: u64) {
        let Some(record) = self.flights.get_mut(flight).map(|record| record.clone()) else {
            return;
        };
        let known = self.established.as_ref();
        if record.takes_token() && known.is_none_or(|known| known.bucket.timeout_at() > now) {
            return;
        }
        // A single server answers once. If the repeat were lost as well, that would look like a loss of
        // answers: it leaves twice.
        let once = !record.retried() || path.has_several_servers(now) || record.takes_token();
        let copies = if once { 1 } else { 2 };
        for _ in 0..copies {
            out.stats.requests += 1;
            self.emit(now, path, out, &record, None);
        }
    }

    /// Writes the request of a record, with the evidence that fits it at present.
    fn emit(
        &mut self,
        now: Instant,
        path: &mut Path,
        out: &mut Outbox,
        record: &Record,
        probe: Option<u32>,
    ) {
        let Some(known) = &mut self.established else {
            return;
        };
        let evidence = known.window.evidence_for(record.declared, &record.yields);
        let Some(evidence) = evidence else {
            return;
        };
        if probe.is_some() || record.takes_token() {
            known.bucket.take(now);
        }
        // No reader wants the bytes of an earlier stream that is repeated: only its numbers count.
        let bare = probe.is_some() || record.stream != self.stream.id;
        let wanted = match &self.stream.user {
            _ if bare => Wanted::Of(&[]),
            Some(user) => Wanted::Of(user),
            None => Wanted::New(&self.stream.request),
        };
        let everything = [Span {
            start: 0,
            end: crate::transport::application::MAX_STREAM_BYTES,
        }];
        let ranges = match &self.stream.user {
            _ if bare => Vec::new(),
            Some(_) => record.ranges.clone(),
            None => everything.to_vec(),
        };
        let mut datagram = Vec::with_capacity(512);
        Request {
            connection: known.id,
            size: path.datagram_size(),
            stream: label_of(record.stream),
            wants_continuation: record.wants_continuation,
            continuation: &evidence.sealed,
            after: record.interval.after,
            upto: record.interval.upto,
            reach: evidence.reach.max(record.interval.upto),
            proof: evidence.proof,
            holes: evidence.holes,
            declared: record.declared.map(|declaration| Declared {
                kind: declaration.kind.code(),
                edge: declaration.p,
                rtt_us: declaration.rtt_us,
            }),
            cookie: path.cookie(),
            probe,
            ranges,
            wanted,
        }
        .emit(&mut datagram);
        // By a continuation that is not recent a longer request draws more.
        let age = now.saturating_since(known.window.held().since);
        let at_server = |age: Duration| age + path.rtt().expected() + MAX_CLOCK_SKEW;
        if age > REFRESH_AGE && !bare && at_server(age) > RECENT {
            let length = OPEN_BYTES.min(path.datagram_max().into());
            datagram.resize(datagram.len().max(length), 0);
        }
        if probe.is_none() && !record.takes_token() {
            path.requested(now, &datagram);
        }
        out.send(now, path, datagram);
    }

    /// When a server has a token for a probe.
    pub(super) fn probe_token_at(&self) -> Instant {
        let known = self.established.as_ref();
        known.map_or(Instant::ZERO, |known| known.bucket.probe_at())
    }

    /// Whether a probe should be sent now: nothing else can bring the continuation of the next
    /// epoch, or a fresher one that pays for more time on the curve.
    fn needs_probe(&self, now: Instant, path: &Path, out: &mut Outbox) -> bool {
        let Some(known) = &self.established else {
            return false;
        };
        let window = &known.window;
        let stuck = window
            .event()
            .is_some_and(|event| event.transition.kind.has_zone() && event.is_passed());
        let idle = self.flights.is_empty() && self.stream.wanted() > 0;
        let ahead = idle && window.is_ahead();
        let last = self.probe.map(|probe| probe.sent + path.rtt().pto());
        if let Some(next) = last.filter(|&next| ahead && next > now) {
            out.send_timer = Some((next, "curve time"));
        }
        idle && (stuck || ahead) && last.is_none_or(|next| next <= now)
    }

    /// Requests a sign of life, and the continuation that results from the present event.
    pub(super) fn send_probe(&mut self, now: Instant, path: &mut Path, out: &mut Outbox) {
        let Some(known) = &self.established else {
            return;
        };
        let window = &known.window;
        let edge = window.edge();
        let interval = Interval {
            after: edge,
            upto: edge,
            first: 0,
            count: 0,
        };
        let mut record = Record::new(interval, now, self.stream.id, window.releasing());
        record.declared = window.event().map(|event| event.declaration);
        let tag = self.random.random();
        self.probe = Some(Probe {
            tag,
            sent: now,
            edge,
            yields: record.yields,
            opens: record.declared.is_some(),
        });
        out.stats.probes += 1;
        self.emit(now, path, out, &record, Some(tag));
    }

    /// Declares a restart after a pause, when the window says nothing of the path any more (RFC 5681
    /// §4.1), or opens anew if the continuation is too old.
    fn restart_if_idle(&mut self, now: Instant, path: &mut Path, out: &mut Outbox) {
        let Some(known) = &self.established else {
            return;
        };
        let age = now.saturating_since(known.window.held().since);
        let quiet = self.flights.is_empty() && self.stream.wanted() > 0 && path.backoff() == 0;
        if !quiet || !path.is_idle(now) || self.opening.is_some() {
            return;
        }
        if age > STALE_AGE {
            self.open(now);
            self.send_open(now, path, out);
            self.established = None;
            return;
        }
        path.sent(now);
        path.reset_pace(now);
        if age >= RESTART_GATE
            && self.restart(path, out)
            && let Some(known) = &mut self.established
        {
            known.declare_due = true;
        }
    }

    /// Declares the loss that waited for the end of the event before it.
    fn declare_deferred(&mut self, path: &Path, out: &mut Outbox) {
        let Some(known) = &mut self.established else {
            return;
        };
        if known.window.event().is_some() {
            return;
        }
        let number = known.deferred_loss.take();
        if number.is_some_and(|number| number > known.window.epoch().base) {
            self.declare(path, out, TransitionKind::Loss);
        }
    }

    /// Gives up all flights and starts over from two packets. Returns `false` if the gate is closed.
    pub(super) fn time_out(&mut self, now: Instant, path: &mut Path, out: &mut Outbox) -> bool {
        let Some(known) = &self.established else {
            return true;
        };
        let open_at = known.window.started() + TIMEOUT_GATE;
        if open_at > now {
            out.send_timer = Some((open_at, "timeout gate"));
            return false;
        }
        self.give_up_flights(out);
        self.declare(path, out, TransitionKind::Timeout);
        if let Some(known) = &mut self.established {
            known.declare_due = true;
        }
        path.reset_pace(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixMillis;

    #[test]
    fn a_flight_is_half_a_millisecond_long_and_an_eighth_of_the_window_at_most() {
        for (name, window, rtt_us, want) in [
            ("half a millisecond", 1000, 40_000, 12),
            ("at 1 Gb/s", 3333, 40_000, 41),
            ("one offloaded write", 10_000, 40_000, MAX_FLIGHT),
            ("an eighth", 80, 1000, 10),
            ("two at the least", 2, 100_000, 2),
            ("a slow path", 100, 100_000, 2),
        ] {
            assert_eq!(flight_size(window, &path(rtt_us)), want, "{name}");
        }
    }

    #[test]
    fn flights_grow_while_requests_wait() {
        let mut path = path(40_000);
        let size = |path: &Path| [flight_size(100, path), flight_size(400, path)];
        assert_eq!(size(&path), [2, 5]);
        for waited_ms in [0, 50, 50, 50, 50] {
            let issued = UnixMillis::new(1_800_000_000_000 + waited_ms);
            path.issued(1, Instant::ZERO, issued, Duration::from_millis(waited_ms));
        }
        assert_eq!(size(&path), [12, 40]);
    }

    /// A path whose only round trip took so long.
    fn path(rtt_us: u64) -> Path {
        let any = "192.0.2.1:7600".parse().unwrap();
        let mut path = Path::new(any, any, 1500);
        path.sample_open(Duration::from_micros(rtt_us));
        path
    }
}
