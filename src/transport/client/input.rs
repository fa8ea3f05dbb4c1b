//! Input of a connection: handles a datagram from the network.

use std::time::Duration;

use crate::time::Instant;
use crate::transport::client::ClientEvent;
use crate::transport::client::bucket::Bucket;
use crate::transport::client::connection::{Connection, Established};
use crate::transport::client::flights::{Arrival, Loss, Record};
use crate::transport::client::outbox::Outbox;
use crate::transport::client::path::Path;
use crate::transport::client::stream::UNNAMED;
use crate::transport::client::window::{Interval, Window};
use crate::transport::continuation::issue_time;
use crate::transport::epoch::{Epoch, KNOWN_WINDOW, TransitionKind};
use crate::wire::flight::Ecn;
use crate::wire::segment::{
    Challenge, DATA_HEADER_BYTES, OPEN_BYTES, OPENED_BYTES, Probed, Response, ResponseKind, Span,
    ToClient, UserField, Wait,
};

/// Connections opened anew for one stream without a byte of it before it is given up as changed.
const MAX_REOPENED: u32 = 3;

/// Shortest time after which a request that waits is sent again, whatever the server says.
const MIN_WAIT: Duration = Duration::from_millis(50);

/// Longest time after which it is.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Packets of a flight whose loss as a whole is a lost request, whichever the servers are.
const MIN_TELLING_FLIGHT: u32 = 4;

impl Connection {
    /// Takes a datagram that came on `path`; returns whether it answered a request.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        path: &mut Path,
        out: &mut Outbox,
        ecn: Ecn,
        datagram: &[u8],
    ) -> bool {
        out.stats.packets_in += 1;
        out.stats.bytes_in += u64::try_from(datagram.len()).unwrap_or(0);
        match ToClient::parse(datagram) {
            Ok(ToClient::Response(response)) => {
                self.handle_response(now, path, out, ecn, &response, datagram.len())
            }
            Ok(ToClient::Probed(probed)) => self.handle_probed(now, path, out, &probed),
            Ok(ToClient::Challenge(challenge)) => {
                self.handle_challenge(now, path, out, &challenge);
                false
            }
            Ok(ToClient::Wait(wait)) => self.handle_wait(now, path, out, &wait),
            Err(_) => {
                out.stats.dropped("malformed");
                false
            }
        }
    }

    /// Takes a numbered response; returns whether it is of this connection.
    fn handle_response(
        &mut self,
        now: Instant,
        path: &mut Path,
        out: &mut Outbox,
        ecn: Ecn,
        response: &Response<'_>,
        length: usize,
    ) -> bool {
        self.adopt(now, path, out, response);
        let header = response.header;
        let is_own = |known: &&mut Established| known.id == header.connection;
        let Some(known) = self.established.as_mut().filter(is_own) else {
            out.stats.dropped("unknown_connection");
            return false;
        };
        let (n, void) = (
            expand(header.number, known.window.highest()),
            u64::from(header.void),
        );
        if n == 0 || n.saturating_add(void) > known.window.highest() {
            out.stats.dropped("unrequested_number");
            return false;
        }
        let fresh = known.window.receive(n, void, header.x);
        let label = header.stream;
        let (arrival, stream) = self.flights.arrive(now, n, void, label, path.rtt());
        out.stats.answered_by(header.server);
        path.note_server(now, header.server);
        if fresh || arrival.is_some() {
            self.answered(now, path);
        } else {
            out.stats.dropped("duplicate_number");
        }
        if let Some(arrival) = &arrival {
            if arrival.answers {
                let (epoch, upto) = (arrival.yields, arrival.upto);
                self.take_continuation(now, epoch, upto, arrival.opens, response.continuation);
                if arrival.rebinds && !response.continuation.is_empty() {
                    path.validated();
                }
            }
            self.sample(now, path, out, n, arrival, response);
        }
        if stream == Some(self.stream.id) {
            self.take_bytes(now, out, response, n, length);
        } else if let (None, Some(arrival)) = (stream, arrival) {
            // The answer to another request under the same number, requested again after a timeout.
            let expected = self.flights.expected().to_vec();
            self.lose_bytes(arrival.stream, &expected);
        }
        if fresh && self.unacknowledged_since.is_none() {
            self.unacknowledged_since = Some(now);
        }
        if ecn == Ecn::Ce && fresh {
            self.congestion(path, out, n, TransitionKind::Ce);
        }
        true
    }

    /// Takes note of an answer: the service lives.
    pub(super) fn answered(&mut self, now: Instant, path: &mut Path) {
        path.answered(now);
        self.lives(now);
    }

    /// Takes note that the service knows the connection.
    fn lives(&mut self, now: Instant) {
        self.last_answer = now;
        if self.opening.is_some() && self.established.is_some() {
            self.opening = None;
        }
    }

    /// Takes on the identity of a response if it is the first that answers the OPEN under way.
    fn adopt(&mut self, now: Instant, path: &mut Path, out: &mut Outbox, response: &Response<'_>) {
        let (header, sealed) = (response.header, response.continuation);
        let ResponseKind::Opened { echo, size, count } = header.kind else {
            return;
        };
        let Some(opening) = self.opening.filter(|opening| opening.echo == echo) else {
            return;
        };
        if sealed.is_empty() {
            out.stats.dropped("no_continuation");
            return;
        }
        self.opening = None;
        let count = u32::from(count).clamp(1, KNOWN_WINDOW);
        if opening.attempts == 1 {
            path.sample_open(now.saturating_since(opening.sent));
        }
        let (lost, _) = self.flights.give_up_all();
        for (stream, span) in lost {
            self.lose_bytes(stream, &[span]);
        }
        self.flights.forget_numbers();
        path.begin_connection(size);
        self.repeats.clear();
        self.probe = None;
        let window = Window::new(count, sealed, now);
        let epoch = *window.epoch();
        let interval = Interval {
            after: 0,
            upto: 0,
            first: 1,
            count,
        };
        let stream = opening.stream_of(header.stream).unwrap_or(UNNAMED);
        let mut record = Record::new(interval, opening.sent, stream, epoch);
        record.repeated = opening.attempts > 1;
        self.flights.push(record);
        let first = out.stats.handshakes == 0;
        self.reopened += u32::from(self.stream.user.is_some());
        out.stats.handshakes += 1;
        self.established = Some(Established {
            id: header.connection,
            window,
            bucket: Bucket::default(),
            deferred_loss: None,
            declare_due: false,
            repeated_up_to: 0,
        });
        self.declare(path, out, TransitionKind::Opened);
        if self.reopened > MAX_REOPENED {
            // The service lives, but no server of it can produce this stream any more.
            self.stream.finished = true;
            out.event(ClientEvent::Changed);
        }
        if first {
            out.event(ClientEvent::Connected);
        }
    }

    /// Takes a continuation that speaks for `epoch`, from the answer to a request that acknowledged up to `upto`;
    /// `opens`: it came with the event that opens the epoch.
    fn take_continuation(
        &mut self,
        now: Instant,
        epoch: Epoch,
        upto: u64,
        opens: bool,
        sealed: &[u8],
    ) {
        let Some(known) = &mut self.established else {
            return;
        };
        if sealed.is_empty() {
            return;
        }
        known.window.hold(epoch, upto, sealed, opens, now);
        known.declare_due = false;
    }

    /// Measures the round trip of an arrival, and ends slow start if the delay rises.
    fn sample(
        &mut self,
        now: Instant,
        path: &mut Path,
        out: &mut Outbox,
        n: u64,
        arrival: &Arrival,
        response: &Response<'_>,
    ) {
        let server = response.header.server;
        let Some(known) = &self.established else {
            return;
        };
        path.arrived(now);
        if arrival.repeated || !arrival.first_of_flight || path.has_copy_under_way() {
            return;
        }
        let rtt = now.saturating_since(arrival.sent);
        // Sent and answered within one reading of the clock: not a measurement.
        if rtt.is_zero() {
            return;
        }
        out.stats.round_trip(server, rtt);
        let waited = path.sample(now, server, rtt);
        if let Some(issued) = issue_time(response.continuation) {
            path.issued(server, arrival.sent, issued, waited);
        }
        self.stream.most_under_way = path.rtt().most_under_way();
        let window = &known.window;
        if path.delays(now, n, waited, window) && window.in_slow_start() {
            self.declare(path, out, TransitionKind::Exit);
        }
    }

    /// Takes a response of the present stream, number `n` of `length` bytes: its beginning, its bytes or
    /// its end.
    fn take_bytes(
        &mut self,
        now: Instant,
        out: &mut Outbox,
        response: &Response<'_>,
        n: u64,
        length: usize,
    ) {
        if self.stream.finished {
            return;
        }
        if response.header.changed {
            self.stream.finished = true;
            out.event(ClientEvent::Changed);
            return;
        }
        if let Some(user) = response.user {
            self.take_user(out, response, user, n, length);
        } else if self.stream.user.is_none() && response.chunks().next().is_none() {
            // The answer to an OPEN has no stream if its bytes were not there yet: a request begins it.
            self.stream.beginning = false;
        }
        let mut new = 0;
        for (offset, bytes) in response.chunks() {
            new += self.stream.store(offset, bytes);
        }
        // Bytes that the datagram should have carried and did not are wanted again.
        for span in self.flights.expected() {
            self.stream.lose(*span);
        }
        if new > 0 {
            out.stats.stream_bytes += new;
            self.reopened = 0;
            let stall = now.saturating_since(self.last_new_byte);
            out.stats.longest_stall = out.stats.longest_stall.max(stall);
            self.last_new_byte = now;
        }
        if self.stream.reassembly.readable() {
            out.event(ClientEvent::Readable);
        }
        self.check_finished(out);
    }

    /// Takes the user continuation in a response: of a stream that begins with it, or that ends sooner
    /// or later after all. Cold, so that the registers of each datagram are not spilled for it.
    #[cold]
    fn take_user(
        &mut self,
        out: &mut Outbox,
        response: &Response<'_>,
        user: UserField<'_>,
        n: u64,
        length: usize,
    ) {
        if self.stream.user.is_none() {
            self.stream.begin(user.sealed, user.length);
            out.event(ClientEvent::Began {
                length: user.length,
            });
            self.lay_out_beginning(response, n, length);
        } else if let Some(length) = user.length
            && !self.stream.end_at(user.sealed, length)
        {
            self.stream.finished = true;
            out.event(ClientEvent::Changed);
        }
    }

    /// Takes the request to wait for a flight: the service lives, and nothing is lost. Returns whether the
    /// flight is awaited.
    #[cold]
    fn handle_wait(
        &mut self,
        now: Instant,
        path: &mut Path,
        out: &mut Outbox,
        wait: &Wait,
    ) -> bool {
        let known = self.established.as_ref();
        let Some(known) = known.filter(|known| known.id == wait.connection) else {
            out.stats.dropped("unknown_connection");
            return false;
        };
        let first = expand(wait.number, known.window.highest());
        let delay = Duration::from_millis(u64::from(wait.delay_ms)).clamp(MIN_WAIT, MAX_WAIT);
        if !self.flights.wait(first, wait.stream, now + delay) {
            out.stats.dropped("unrequested_wait");
            return false;
        }
        out.stats.waits += 1;
        path.note_server(now, wait.server);
        self.answered(now, path);
        true
    }

    /// Lays out the flight that begins a stream by its first datagram, number `n` of `length` bytes.
    fn lay_out_beginning(&mut self, response: &Response<'_>, n: u64, length: usize) {
        let Some(record) = self.flights.get_mut(n) else {
            // The flight was this datagram only.
            let end = response
                .chunks()
                .map(|(offset, bytes)| offset + len(bytes))
                .max();
            self.stream.asked_up_to(end.unwrap_or(0));
            return;
        };
        let Some(end) = response
            .chunks()
            .map(|(offset, bytes)| offset + len(bytes))
            .max()
        else {
            return;
        };
        // The first datagram is full, so it shows the size; each of an OPEN's answer carries a
        // continuation.
        let taken = match response.header.kind {
            ResponseKind::Opened { .. } => OPENED_BYTES + 1 + response.continuation.len(),
            ResponseKind::Data => 0,
        };
        let rest = [Span {
            start: end,
            end: self.stream.length(),
        }];
        let count = record.interval.count.saturating_sub(1);
        self.layout
            .fill(length.max(DATA_HEADER_BYTES) - taken, count, 0, &rest);
        record.layout.clone_from(&self.layout);
        record.layout.stand_behind_another();
        let asked = record.layout.chunks().last().map_or(end, |last| last.end);
        let gone: Vec<Span> = record.bytes(!record.still_open()).collect();
        self.stream.asked_up_to(asked);
        for span in gone {
            self.stream.lose(span);
        }
        debug_assert!(
            length <= OPEN_BYTES.max(usize::from(u16::MAX)),
            "a datagram"
        );
    }

    /// Takes the answer to a probe; returns whether it is the one under way.
    fn handle_probed(
        &mut self,
        now: Instant,
        path: &mut Path,
        out: &mut Outbox,
        probed: &Probed<'_>,
    ) -> bool {
        let ours = self
            .established
            .as_ref()
            .is_some_and(|c| c.id == probed.connection);
        let Some(probe) = self.probe.filter(|probe| ours && probe.tag == probed.probe) else {
            out.stats.dropped("unknown_probe");
            return false;
        };
        self.probe = None;
        path.probed(now);
        self.lives(now);
        self.flights.probed(now, probe.sent);
        let sealed = probed.continuation;
        self.take_continuation(now, probe.yields, probe.edge, probe.opens, sealed);
        true
    }

    fn handle_challenge(
        &mut self,
        now: Instant,
        path: &mut Path,
        out: &mut Outbox,
        challenge: &Challenge,
    ) {
        let Some(known) = &mut self.established else {
            return;
        };
        if known.id != challenge.connection {
            out.stats.dropped("unknown_connection");
            return;
        }
        if !path.challenge(challenge.cookie) {
            return;
        }
        // The requests from the new address were not answered: ask again, with the cookie.
        path.wait_from(now);
        self.give_up_flights(out);
        if challenge.moved {
            path.forget();
            self.stream.most_under_way = path.rtt().most_under_way();
            self.flights.forget_path();
            self.restart(path, out);
            if let Some(known) = &mut self.established {
                known.declare_due = true;
            }
        }
    }

    /// Gives up the numbers that are lost by now, or repeats their request.
    pub(super) fn detect_losses(&mut self, now: Instant, path: &mut Path, out: &mut Outbox) {
        let apart = path.spread(now);
        let losses = self.flights.detect(now, path.rtt(), apart);
        let alone = losses.len() == 1;
        for loss in losses {
            if loss.whole
                && self.may_be_request(now, path, &loss, alone)
                && self.repeat(now, out, &loss)
            {
                continue;
            }
            out.stats.lost += u64::from(loss.count);
            self.flights.give_up(&loss);
            self.lose_bytes(loss.stream, &loss.bytes);
            self.congestion(path, out, loss.highest, TransitionKind::Loss);
        }
    }

    /// Whether a flight that is missing whole may be taken for a lost request. A single server does not
    /// answer a repeat of a flight that it has sent, and the loss is seen then. Several servers do not
    /// know of each other's answers, so that only the flight itself is evidence.
    pub(super) fn may_be_request(
        &self,
        now: Instant,
        path: &Path,
        loss: &Loss,
        alone: bool,
    ) -> bool {
        let again = self
            .established
            .as_ref()
            .is_some_and(|known| loss.flight <= known.repeated_up_to);
        !path.has_several_servers(now) || (alone && loss.count >= MIN_TELLING_FLIGHT && !again)
    }

    /// Sends the request of a flight again, once: a flight that is missing whole is a lost request,
    /// most likely. Returns whether it may be sent again.
    pub(super) fn repeat(&mut self, now: Instant, out: &mut Outbox, loss: &Loss) -> bool {
        let Some(known) = &mut self.established else {
            return false;
        };
        let Some(record) = self.flights.get_mut(loss.flight) else {
            return false;
        };
        // Without the evidence that it was sent with no server would grant it.
        let window = &known.window;
        if !window.has_evidence_for(record.declared, &record.yields) {
            return false;
        }
        known.repeated_up_to = known.window.highest();
        self.flights.repeat(now, loss.flight);
        self.repeats.push_back(loss.flight);
        out.stats.repeated += 1;
        true
    }

    /// Declares an event for a number that was lost or marked, unless the number belongs to one.
    fn congestion(&mut self, path: &Path, out: &mut Outbox, number: u64, kind: TransitionKind) {
        let Some(known) = &mut self.established else {
            return;
        };
        let window = &known.window;
        // A loss in the zone of an exit or of a mark is an event of the next epoch, whose window is the
        // one that the zone leaves; on the old curve it would have grown meanwhile.
        let gentle = window.event().filter(|event| {
            kind == TransitionKind::Loss
                && matches!(
                    event.transition.kind,
                    TransitionKind::Exit | TransitionKind::Ce
                )
        });
        let number = gentle.map_or(number, |event| number.max(event.transition.r + 1));
        if window.belongs_to_event(number) {
            return;
        }
        if window.event().is_some() {
            known.deferred_loss.get_or_insert(number);
            return;
        }
        self.declare(path, out, kind);
    }
}

/// The number nearest to `highest` with these low bits.
fn expand(low: u32, highest: u64) -> u64 {
    const SPACE: u64 = 1 << 32;
    let guess = (highest & !(SPACE - 1)) | u64::from(low);
    if guess > highest.saturating_add(SPACE / 2) {
        guess.saturating_sub(SPACE)
    } else if guess.saturating_add(SPACE / 2) < highest {
        guess + SPACE
    } else {
        guess
    }
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
