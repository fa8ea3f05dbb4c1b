//! The connection's timers: their list, the next deadline, and its handling.

use crate::time::Instant;
use crate::transport::client::ClientEvent;
use crate::transport::client::connection::Connection;
use crate::transport::client::outbox::Outbox;
use crate::transport::client::output::OPEN_AFTER_TIMEOUTS;
use crate::transport::client::path::Path;
use crate::transport::grant::TIMEOUT_GATE;

impl Connection {
    /// The next deadline, and its reason.
    pub(super) fn next_timeout(
        &self,
        path: &Path,
        out: &Outbox,
    ) -> Option<(Instant, &'static str)> {
        let busy = self.is_busy();
        let timers = [
            out.send_timer,
            self.flights.timer().map(|at| (at, "reordering")),
            self.probe_at(path, out).map(|at| (at, "probe")),
            self.copy_at(path).map(|at| (at, "copy")),
            (busy && !self.is_asked_to_wait())
                .then(|| (self.timeout_at(path, out), "retransmission")),
            self.flights.ask_at().map(|at| (at, "wait")),
            busy.then(|| (self.last_answer + self.idle_timeout, "idle")),
        ];
        timers.into_iter().flatten().min()
    }

    /// Handles the deadlines that have passed.
    pub(super) fn handle_timeout(&mut self, now: Instant, path: &mut Path, out: &mut Outbox) {
        if self.is_busy() && now >= self.last_answer + self.idle_timeout {
            self.stream.finished = true;
            self.opening = None;
            self.give_up_flights(out);
            out.event(ClientEvent::TimedOut);
            out.filled_at = None;
            return;
        }
        if self.flights.timer().is_some_and(|at| at <= now) {
            self.detect_losses(now, path, out);
        }
        self.ask_again(now, path, out);
        if self.copy_at(path).is_some_and(|at| at <= now)
            && let Some((spare, datagram)) = path.copy(now)
        {
            out.send_copy(spare, datagram);
        }
        if self.probe_at(path, out).is_some_and(|at| at <= now) {
            self.send_probe(now, path, out);
        }
        let waits = self.is_asked_to_wait();
        if self.is_busy() && !waits && self.timeout_at(path, out) <= now {
            self.retransmission_timeout(now, path, out);
        }
        self.fill(now, path, out);
    }

    /// When silence with packets in flight deserves a probe; one for each silence.
    fn probe_at(&self, path: &Path, out: &Outbox) -> Option<Instant> {
        let at = path.probe_at().max(self.probe_token_at());
        let probed = self
            .probe
            .is_some_and(|probe| probe.sent >= path.waiting_since());
        let awaited = !self.flights.is_empty() && !self.flights.all_wait();
        let waits = self.established.is_some() && awaited && path.backoff() == 0;
        (waits && !probed && at < self.timeout_at(path, out)).then_some(at)
    }

    /// When a spare deserves a copy of the last request, because its answer is late.
    fn copy_at(&self, path: &Path) -> Option<Instant> {
        let awaited = !self.flights.is_empty() && !self.flights.all_wait();
        (self.established.is_some() && awaited).then(|| path.copy_at())?
    }

    /// Whether silence means nothing: all that is awaited waits by request of a server.
    fn is_asked_to_wait(&self) -> bool {
        self.flights.all_wait() && self.opening.is_none()
    }

    /// Asks again for the flights whose time to wait has passed: their requests may have been lost at
    /// the server.
    fn ask_again(&mut self, now: Instant, path: &mut Path, out: &mut Outbox) {
        let silent = self.is_asked_to_wait();
        let due = self.flights.take_due(now);
        if due.is_empty() {
            return;
        }
        if silent {
            // Silence counts from now on only.
            path.wait_from(now);
        }
        out.stats.asked_again += due.len() as u64;
        self.repeats.extend(due);
    }

    fn timeout_at(&self, path: &Path, out: &Outbox) -> Instant {
        let timeout = path.timeout_at();
        match &self.established {
            // All flights are known to be lost: only late packets and the server's gate are worth
            // waiting for.
            Some(known) if path.backoff() == 0 && self.is_stuck(out) => {
                let gate = known.window.started() + TIMEOUT_GATE;
                timeout.min(gate.max(path.probe_at() + self.flights.lateness()))
            }
            Some(_) | None => timeout,
        }
    }

    /// Whether bytes are wanted, none are on their way, and no interval can be acknowledged.
    fn is_stuck(&self, out: &Outbox) -> bool {
        let idle = self.flights.is_empty() && out.is_empty() && self.opening.is_none();
        idle && out.send_timer.is_none() && self.stream.wanted() > 0
    }

    /// Sends an OPEN that was not answered again.
    pub(super) fn open_again(&mut self, now: Instant, path: &mut Path, out: &mut Outbox) {
        if self.established.is_none()
            && let Some(opening) = &mut self.opening
        {
            opening.due = true;
            path.wait_from(now);
            self.fill(now, path, out);
        }
    }

    fn retransmission_timeout(&mut self, now: Instant, path: &mut Path, out: &mut Outbox) {
        if self.established.is_some() && !self.time_out(now, path, out) {
            path.wait_from(now);
            return;
        }
        out.stats.timeouts += 1;
        path.timed_out(now);
        match &mut self.opening {
            Some(opening) => opening.due = true,
            None if path.backoff() > OPEN_AFTER_TIMEOUTS => self.open(now),
            None => {}
        }
    }
}
