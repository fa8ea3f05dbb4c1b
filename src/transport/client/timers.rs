//! The engine's timers: which there are, when the next is due, and what happens then.

use crate::time::{Instant, Now};
use crate::transport::client::output::OPEN_AFTER_TIMEOUTS;
use crate::transport::client::{Client, ClientEvent};
use crate::transport::grant::TIMEOUT_GATE;

impl Client {
    /// When to call `handle_timeout`, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let busy = self.busy();
        let timers = [
            self.send_timer,
            self.flights.timer().map(|at| (at, "reordering")),
            self.probe_at().map(|at| (at, "probe")),
            busy.then(|| (self.timeout_at(), "retransmission")),
            busy.then(|| (self.last_answer + self.config.idle_timeout, "idle")),
        ];
        timers.into_iter().flatten().min()
    }

    /// To be called when the deadline of `poll_timeout` has passed; harmless at other times.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = now.instant;
        if self.busy() && now >= self.last_answer + self.config.idle_timeout {
            self.stream.finished = true;
            self.opening = None;
            self.give_up_flights();
            self.event(ClientEvent::TimedOut);
            self.filled_at = None;
            return;
        }
        if self.flights.timer().is_some_and(|at| at <= now) {
            self.detect_losses(now);
        }
        if self.probe_at().is_some_and(|at| at <= now) {
            self.send_probe(now);
        }
        if self.busy() && self.timeout_at() <= now {
            self.retransmission_timeout(now);
        }
        self.fill_outbox(now);
    }

    /// Silence for so long, with packets in flight, deserves one probe.
    fn probe_at(&self) -> Option<Instant> {
        let at = self.path.probe_at();
        let probed = self
            .probe
            .is_some_and(|probe| probe.sent >= self.path.waiting_since());
        let waits =
            self.connection.is_some() && !self.flights.is_empty() && self.path.backoff() == 0;
        (waits && !probed && at < self.timeout_at()).then_some(at)
    }

    fn timeout_at(&self) -> Instant {
        let timeout = self.path.timeout_at();
        match &self.connection {
            // All is known to be lost: there is nothing to wait for but what may be late, and the
            // server's gate.
            Some(connection) if self.path.backoff() == 0 && self.is_stuck() => {
                let gate = connection.window.started() + TIMEOUT_GATE;
                timeout.min(gate.max(self.path.probe_at() + self.flights.lateness()))
            }
            Some(_) | None => timeout,
        }
    }

    /// Whether bytes are wanted, none are on their way, and no interval can be acknowledged.
    fn is_stuck(&self) -> bool {
        let idle = self.flights.is_empty() && self.outbox.is_empty() && self.opening.is_none();
        idle && self.send_timer.is_none() && self.stream.wanted() > 0
    }

    fn retransmission_timeout(&mut self, now: Instant) {
        if self.connection.is_some() && !self.time_out(now) {
            self.path.wait_from(now);
            return;
        }
        self.stats.timeouts += 1;
        self.path.timed_out(now);
        match &mut self.opening {
            Some(opening) => opening.due = true,
            None if self.path.backoff() > OPEN_AFTER_TIMEOUTS => self.open(now),
            None => {}
        }
    }
}
