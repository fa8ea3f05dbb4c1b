//! The window of the model: CUBIC, HyStart, proportional rate reduction.
//!
//! In: acknowledgements and round trips. Out: windows in segments. Sources: RFC 9438, RFC 6937;
//! Linux's HyStart.

use std::time::Duration;

use super::{C, CUBIC_BETA};
use crate::time::Instant;

/// Proportional rate reduction (RFC 6937).
#[derive(Clone, Copy)]
pub(super) struct Recovery {
    pub(super) until: u64,
    pub(super) flight: f64,
    pub(super) delivered: f64,
    pub(super) out: f64,
}

#[derive(Default)]
pub(super) struct Cubic {
    pub(super) start: Option<Instant>,
    pub(super) w_max: f64,
    k: f64,
    reno: f64,
}

#[derive(Default)]
pub(super) struct HyStart {
    end: u64,
    began: Instant,
    last_ack: Instant,
    min: Option<Duration>,
    samples: u32,
}

impl Recovery {
    pub(super) fn window(&self, flying: f64, ssthresh: f64) -> f64 {
        let more = if flying > ssthresh {
            (self.delivered * ssthresh / self.flight.max(1.0)).ceil() - self.out
        } else {
            let limit = (self.delivered - self.out).max(0.0) + 1.0;
            limit.min(ssthresh - flying)
        };
        // The first retransmission leaves at once.
        let least = if self.out == 0.0 { 1.0 } else { 0.0 };
        flying + more.max(least)
    }
}

impl Cubic {
    /// Returns the growth of the window (RFC 9438 §4.2, §4.3).
    pub(super) fn step(&mut self, now: Instant, cwnd: f64, delivered: f64, rtt: Duration) -> f64 {
        let start = *self.start.get_or_insert_with(|| {
            self.w_max = self.w_max.max(cwnd);
            self.k = ((self.w_max - cwnd) / C).cbrt();
            self.reno = cwnd;
            now
        });
        let t = (now.saturating_since(start) + rtt).as_secs_f64();
        let target = C * (t - self.k).powi(3) + self.w_max;
        // Linux applies this slope beyond the plateau, too.
        let alpha = 3.0 * (1.0 - CUBIC_BETA) / (1.0 + CUBIC_BETA);
        self.reno += alpha * delivered / cwnd;
        let target = target.clamp(cwnd, 1.5 * cwnd);
        let step = (target - cwnd) * delivered / cwnd;
        step.max(self.reno - cwnd)
    }
}

impl HyStart {
    pub(super) fn ends(
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
