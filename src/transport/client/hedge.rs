//! Copies of overdue requests for a spare address of the service.
//!
//! In: requests as they leave, the times in which they are answered, silence. Out: the request to copy, once its answer
//! is later than all but a twentieth of those before, at most one copy for twenty requests. Servers of the same keys answer the
//! copy as they would the request, with the same packet numbers, so that the first answer counts and the second is a duplicate.
//! Source: Dean and Barroso, The Tail at Scale, 2013 (hedged requests).

use std::time::Duration;

use crate::time::Instant;

/// Requests for each copy.
const REQUESTS_PER_COPY: u32 = 20;

/// Copies that can be saved up.
const MAX_COPIES: u32 = 2;

/// Copies in a row that the present address has not answered, after which it counts as silent.
const SILENT_AFTER: u32 = 2;

/// A step of the estimate towards a shorter time, as a part of the time; one towards a longer time is nineteen of them,
/// so that it rests where one answer in twenty takes longer.
const STEP_PART: u32 = 512;

/// Granularity of the clock: an answer that is less late than that is in time.
const GRANULARITY: Duration = Duration::from_millis(1);

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Hedge {
    /// The time within which 19 of 20 requests are answered; `None` before the first answer.
    in_time: Option<Duration>,
    /// The last request, and when it left; `None` if a copy of it has left.
    last: Option<(Instant, Vec<u8>)>,
    /// Credit for copies, in requests.
    credit: u32,
    /// Copies since the present address last answered.
    unanswered: u32,
    /// When the last copy left.
    copied_at: Instant,
}

impl Default for Hedge {
    fn default() -> Self {
        Self {
            in_time: None,
            last: None,
            credit: MAX_COPIES * REQUESTS_PER_COPY,
            unanswered: 0,
            copied_at: Instant::ZERO,
        }
    }
}

impl Hedge {
    /// Takes note of a request.
    pub(super) fn requested(&mut self, now: Instant, datagram: &[u8]) {
        let mut bytes = self.last.take().map(|(_, bytes)| bytes).unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(datagram);
        self.last = Some((now, bytes));
        self.credit = (self.credit + 1).min(MAX_COPIES * REQUESTS_PER_COPY);
    }

    /// Takes the time in which a request was answered.
    pub(super) fn sample(&mut self, round_trip: Duration) {
        let step = self.in_time.unwrap_or(round_trip) / STEP_PART;
        self.in_time = Some(match self.in_time {
            None => round_trip + round_trip / 2,
            Some(known) if round_trip > known => known + step * (REQUESTS_PER_COPY - 1),
            Some(known) => known.saturating_sub(step),
        });
    }

    /// Takes note of an answer of the present address.
    pub(super) const fn answered(&mut self) {
        self.unanswered = 0;
    }

    /// Whether the present address has left copies in a row unanswered.
    pub(super) const fn is_silent(&self) -> bool {
        self.unanswered >= SILENT_AFTER
    }

    /// The time since the last copy left, if an answer may be that of this copy.
    pub(super) fn since_copy(&self, now: Instant) -> Option<Duration> {
        let since = now.saturating_since(self.copied_at);
        (self.is_under_way() && !since.is_zero()).then_some(since)
    }

    /// Whether an answer may be that of a copy: its round trip is not known.
    pub(super) const fn is_under_way(&self) -> bool {
        self.unanswered > 0
    }

    /// When the last request should be copied, after a silence since `since`.
    pub(super) fn due(&self, since: Instant) -> Option<Instant> {
        let (sent, _) = self.last.as_ref()?;
        let in_time = self.in_time?;
        let affordable = self.credit >= REQUESTS_PER_COPY;
        affordable.then(|| since.max(*sent) + in_time + GRANULARITY)
    }

    /// Takes the copy of the last request.
    pub(super) fn copy(&mut self, now: Instant) -> Option<Vec<u8>> {
        let (_, datagram) = self.last.take()?;
        self.credit = self.credit.saturating_sub(REQUESTS_PER_COPY);
        self.unanswered += 1;
        self.copied_at = now;
        Some(datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt as _, SeedableRng as _};

    const fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn one_answer_in_twenty_is_late() {
        let mut dice = ChaCha8Rng::seed_from_u64(1);
        for tail_us in [0, 1_000, 20_000, 200_000_u64] {
            let (mut hedge, mut late) = (Hedge::default(), 0);
            for n in 0..40_000 {
                let jitter = dice.random_range(0.0..1.0_f64).ln() * -(tail_us as f64);
                let round_trip = Duration::from_micros(20_000 + jitter as u64);
                let is_late = hedge.in_time.is_some_and(|known| round_trip > known);
                late += u32::from(n >= 20_000 && is_late);
                hedge.sample(round_trip);
            }
            let share = f64::from(late) / 20_000.0;
            assert!((0.04..0.06).contains(&share), "{share} at {tail_us}");
        }
    }

    #[test]
    fn a_late_request_is_copied_once_and_copies_are_a_twentieth_of_requests() {
        let mut hedge = Hedge::default();
        hedge.requested(at(0), b"one");
        assert_eq!(hedge.due(at(0)), None, "no answer was ever measured");
        hedge.sample(ms(20));
        assert_eq!(hedge.due(at(0)), Some(at(31)));
        assert_eq!(hedge.due(at(5)), Some(at(36)), "silence since then");
        assert_eq!(hedge.copy(at(9)), Some(b"one".to_vec()));
        assert_eq!((hedge.due(at(0)), hedge.copy(at(9))), (None, None));
        let mut copies = 1;
        for n in 1..=400 {
            hedge.requested(at(n), b"next");
            if hedge.due(at(n)).is_some() {
                assert!(hedge.copy(at(n)).is_some());
                copies += 1;
            }
        }
        assert_eq!(copies, MAX_COPIES + 400 / REQUESTS_PER_COPY);
    }

    #[test]
    fn an_address_is_silent_after_two_copies_that_it_has_not_answered() {
        let mut hedge = Hedge::default();
        for (answers, silent) in [(true, false), (false, false), (false, true), (true, false)] {
            hedge.requested(at(0), b"one");
            hedge.copy(at(9));
            if answers {
                hedge.answered();
            }
            assert_eq!(hedge.is_silent(), silent);
        }
    }
}
