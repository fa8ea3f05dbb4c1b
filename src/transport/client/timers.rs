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
            busy.then(|| (self.timeout_at(path, out), "retransmission")),
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
        if self.probe_at(path, out).is_some_and(|at| at <= now) {
            self.send_probe(now, path, out);
        }
        if self.is_busy() && self.timeout_at(path, out) <= now {
            self.retransmission_timeout(now, path, out);
        }
        self.fill(now, path, out);
    }

    /// When silence with packets in flight deserves a probe; one for each silence.
    fn probe_at(&self, path: &Path, out: &Outbox) -> Option<Instant> {
        let at = path.probe_at();
        let probed = self
            .probe
            .is_some_and(|probe| probe.sent >= path.waiting_since());
        let waits = self.established.is_some() && !self.flights.is_empty() && path.backoff() == 0;
        (waits && !probed && at < self.timeout_at(path, out)).then_some(at)
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
