//! What a datagram from the network does to the engine.

use crate::time::{Instant, Now};
use crate::transport::client::flights::{Arrival, Loss, Record};
use crate::transport::client::window::{Interval, Window};
use crate::transport::client::{Client, ClientEvent, Connection, MAX_REOPENED};
use crate::transport::epoch::{Epoch, KNOWN_WINDOW, TransitionKind};
use crate::wire::flight::{Ecn, UdpPath};
use crate::wire::segment::{
    Challenge, DATA_HEADER_BYTES, OPEN_BYTES, OPENED_BYTES, Probed, Response, ResponseHeader,
    ResponseKind, Span, ToClient,
};

/// Packets of a flight whose loss as a whole is a lost request, whoever the servers are.
const MIN_TELLING_FLIGHT: u32 = 4;

impl Client {
    /// Takes one datagram from the network. What is not ours is dropped and counted.
    pub fn handle_datagram(&mut self, now: Now, path: UdpPath, ecn: Ecn, datagram: &[u8]) {
        self.handle_datagrams(now, path, ecn, core::iter::once(datagram));
    }

    /// Takes the datagrams of one packet from the network, which came together: what is lost and what
    /// may be sent is decided once, after the last of them.
    pub fn handle_datagrams<'d>(
        &mut self,
        now: Now,
        addresses: UdpPath,
        ecn: Ecn,
        datagrams: impl Iterator<Item = &'d [u8]>,
    ) {
        let foreign = !self.path.is_path_of(addresses);
        let mut answered = false;
        for datagram in datagrams {
            if foreign {
                self.stats.dropped("foreign_address");
                continue;
            }
            self.stats.packets_in += 1;
            self.stats.bytes_in += u64::try_from(datagram.len()).unwrap_or(0);
            match ToClient::parse(datagram) {
                Ok(ToClient::Response(response)) => {
                    answered |= self.handle_response(now.instant, ecn, &response, datagram.len());
                }
                Ok(ToClient::Probed(probed)) => {
                    answered |= self.handle_probed(now.instant, &probed);
                }
                Ok(ToClient::Challenge(challenge)) => {
                    self.handle_challenge(now.instant, &challenge);
                }
                Err(_) => self.stats.dropped("malformed"),
            }
        }
        if answered {
            self.detect_losses(now.instant);
        }
        if !foreign {
            self.fill_outbox(now.instant);
        }
    }

    /// Whether it is of this connection.
    fn handle_response(
        &mut self,
        now: Instant,
        ecn: Ecn,
        response: &Response<'_>,
        length: usize,
    ) -> bool {
        let header = response.header;
        if let ResponseKind::Opened { echo, size, count } = header.kind
            && self.opening.is_some_and(|opening| opening.echo == echo)
        {
            self.adopt(
                now,
                &header,
                size,
                u32::from(count).clamp(1, KNOWN_WINDOW),
                response.continuation,
            );
        }
        let Some(connection) = &mut self.connection else {
            self.stats.dropped("unknown_connection");
            return false;
        };
        if connection.id != header.connection {
            self.stats.dropped("unknown_connection");
            return false;
        }
        let (n, void) = (
            expand(header.number, connection.window.highest()),
            u64::from(header.void),
        );
        if n == 0 || n.saturating_add(void) > connection.window.highest() {
            self.stats.dropped("unrequested_number");
            return false;
        }
        let fresh = connection.window.receive(n, void, header.x);
        let arrival = self.flights.arrive(now, n, void, self.path.rtt());
        self.stats.answered_by(header.server);
        self.path.note_server(now, header.server);
        if fresh || arrival.is_some() {
            self.answered(now);
        } else {
            self.stats.dropped("duplicate_number");
        }
        if let Some(arrival) = &arrival {
            self.take_continuation(now, arrival.yields, arrival.opens, response.continuation);
            if arrival.rebinds && !response.continuation.is_empty() {
                self.path.validated();
            }
            self.sample(now, n, arrival, header.server);
        }
        self.take_bytes(now, response, n, arrival.as_ref(), length);
        if fresh && self.unacknowledged_since.is_none() {
            self.unacknowledged_since = Some(now);
        }
        if ecn == Ecn::Ce && fresh {
            self.congestion(n, TransitionKind::Ce);
        }
        true
    }

    /// Some answer has come: the service lives.
    pub(super) fn answered(&mut self, now: Instant) {
        self.path.answered(now);
        self.last_answer = now;
        if self.opening.is_some() && self.connection.is_some() {
            self.opening = None;
        }
    }

    /// Takes on the identity that answered an OPEN first.
    fn adopt(
        &mut self,
        now: Instant,
        header: &ResponseHeader,
        size: u16,
        count: u32,
        sealed: &[u8],
    ) {
        let Some(opening) = self.opening.take() else {
            return;
        };
        if sealed.is_empty() {
            self.stats.dropped("no_continuation");
            self.opening = Some(opening);
            return;
        }
        if opening.attempts == 1 {
            self.path.sample_open(now.saturating_since(opening.sent));
        }
        let (lost, _) = self.flights.give_up_all();
        for (stream, span) in lost {
            self.lose_bytes(stream, &[span]);
        }
        self.flights.forget_path();
        self.path.begin_connection(size);
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
        let mut record = Record::new(interval, opening.sent, header.stream, epoch);
        record.repeated = opening.attempts > 1;
        self.flights.push(record);
        let first = self.stats.handshakes == 0;
        self.reopened += u32::from(self.stream.user.is_some());
        self.stats.handshakes += 1;
        self.connection = Some(Connection {
            id: header.connection,
            window,
            deferred_loss: None,
            declare_due: false,
            repeated_up_to: 0,
        });
        self.declare(TransitionKind::Opened);
        if self.reopened > MAX_REOPENED {
            // The service lives, but none of it can produce this stream any more.
            self.stream.finished = true;
            self.event(ClientEvent::Changed);
        }
        if first {
            self.event(ClientEvent::Connected);
        }
    }

    fn take_continuation(&mut self, now: Instant, epoch: Epoch, opens: bool, sealed: &[u8]) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if sealed.is_empty() {
            return;
        }
        connection.window.hold(epoch, sealed, opens, now);
        connection.declare_due = false;
    }

    fn sample(&mut self, now: Instant, n: u64, arrival: &Arrival, server: u16) {
        let Some(connection) = &self.connection else {
            return;
        };
        self.path.arrived(now);
        if arrival.repeated || !arrival.first_of_flight {
            return;
        }
        let rtt = now.saturating_since(arrival.sent);
        // Sent and answered within one reading of the clock: no measurement.
        if rtt.is_zero() {
            return;
        }
        self.stats.round_trip(server, rtt);
        let waited = self.path.sample(now, server, rtt);
        self.stream.most_under_way = self.path.rtt().most_under_way();
        let window = &connection.window;
        if self.path.delays(now, n, waited, window) && window.in_slow_start() {
            self.declare(TransitionKind::Exit);
        }
    }

    fn take_bytes(
        &mut self,
        now: Instant,
        response: &Response<'_>,
        n: u64,
        arrival: Option<&Arrival>,
        length: usize,
    ) {
        let header = response.header;
        if header.stream != self.stream.id || self.stream.finished {
            return;
        }
        if header.changed {
            self.stream.finished = true;
            self.event(ClientEvent::Changed);
            return;
        }
        if let Some(user) = response.user
            && self.stream.user.is_none()
        {
            self.stream.begin(user.sealed, user.length);
            self.event(ClientEvent::Began {
                length: user.length,
            });
            self.lay_out_beginning(response, n, length);
        }
        let mut new = 0;
        for (offset, bytes) in response.chunks() {
            new += self.stream.store(offset, bytes);
        }
        if let Some(arrival) = arrival {
            // Whatever else the datagram carried, what it should have carried is here or wanted.
            for span in self.flights.expected() {
                if arrival.stream == self.stream.id {
                    self.stream.lose(*span);
                }
            }
        }
        if new > 0 {
            self.stats.stream_bytes += new;
            self.reopened = 0;
            let stall = now.saturating_since(self.last_new_byte);
            self.stats.longest_stall = self.stats.longest_stall.max(stall);
            self.last_new_byte = now;
        }
        if self.stream.reassembly.readable() {
            self.event(ClientEvent::Readable);
        }
        self.check_finished();
    }

    /// The first datagram of a new stream has come: tells what the others of its flight carry.
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
        // The first datagram is full, so it tells the size; each of an OPEN's answer carries a
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

    /// Whether it answers the probe under way.
    fn handle_probed(&mut self, now: Instant, probed: &Probed<'_>) -> bool {
        let ours = self
            .connection
            .as_ref()
            .is_some_and(|c| c.id == probed.connection);
        let Some(probe) = self.probe.filter(|probe| ours && probe.tag == probed.probe) else {
            self.stats.dropped("unknown_probe");
            return false;
        };
        self.probe = None;
        self.answered(now);
        self.flights.probed(now, probe.sent);
        self.take_continuation(now, probe.yields, probe.opens, probed.continuation);
        true
    }

    fn handle_challenge(&mut self, now: Instant, challenge: &Challenge) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        if connection.id != challenge.connection {
            self.stats.dropped("unknown_connection");
            return;
        }
        if !self.path.challenge(challenge.cookie) {
            return;
        }
        // What was asked for from the new address was not answered: ask again, with the cookie.
        self.path.wait_from(now);
        self.give_up_flights();
        if challenge.moved {
            self.path.forget();
            self.stream.most_under_way = self.path.rtt().most_under_way();
            self.flights.forget_path();
            self.declare(TransitionKind::Restart);
            if let Some(connection) = &mut self.connection {
                connection.declare_due = true;
            }
        }
    }

    /// Looks for numbers that are lost by now, and acts on them.
    pub(super) fn detect_losses(&mut self, now: Instant) {
        let apart = self.path.spread(now);
        let losses = self.flights.detect(now, self.path.rtt(), apart);
        let alone = losses.len() == 1;
        for loss in losses {
            if loss.whole && self.may_be_request(now, &loss, alone) && self.repeat(now, &loss) {
                continue;
            }
            self.stats.lost += u64::from(loss.count);
            self.flights.give_up(&loss);
            self.lose_bytes(loss.stream, &loss.bytes);
            self.congestion(loss.highest, TransitionKind::Loss);
        }
    }

    /// Whether a flight that is missing whole may be taken for a lost request. One server knows what
    /// it has sent: a repeat of what was lost on the way here stays unanswered, and the loss is seen
    /// then. Several servers do not know of each other, so that only the flight itself can tell.
    pub(super) fn may_be_request(&self, now: Instant, loss: &Loss, alone: bool) -> bool {
        let again = self
            .connection
            .as_ref()
            .is_some_and(|connection| loss.flight <= connection.repeated_up_to);
        !self.path.has_several_servers(now) || (alone && loss.count >= MIN_TELLING_FLIGHT && !again)
    }

    /// A flight that is missing whole is a lost request, most likely: it is sent again, once.
    pub(super) fn repeat(&mut self, now: Instant, loss: &Loss) -> bool {
        let Some(connection) = &mut self.connection else {
            return false;
        };
        let Some(record) = self.flights.get_mut(loss.flight) else {
            return false;
        };
        // Once there is no evidence left for it no server would grant it.
        let window = &connection.window;
        if !window.has_evidence_for(record.declared, &record.yields) {
            return false;
        }
        connection.repeated_up_to = connection.window.highest();
        self.flights.repeat(now, loss.flight);
        self.repeats.push_back(loss.flight);
        self.stats.repeated += 1;
        true
    }

    /// A number was lost or marked: an event, unless it belongs to one.
    fn congestion(&mut self, number: u64, kind: TransitionKind) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let window = &connection.window;
        // A loss in the zone of an exit or of a mark is an event of the next epoch, where the window
        // is what the zone leaves; on the old curve it would have grown meanwhile.
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
            connection.deferred_loss.get_or_insert(number);
            return;
        }
        self.declare(kind);
    }

    /// Gives up all flights; their bytes are wanted again.
    pub(super) fn give_up_flights(&mut self) {
        let (lost, count) = self.flights.give_up_all();
        self.stats.lost += count;
        for (stream, span) in lost {
            self.lose_bytes(stream, &[span]);
        }
        self.repeats.clear();
        self.stream.beginning = false;
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
