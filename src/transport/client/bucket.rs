//! The token bucket of a connection, as its servers keep it.
//!
//! In: each probe, timeout and restart that leaves. Out: when the next one may leave, so that no server
//! refuses it. Packets may come closer together than they left: the model has one token less than
//! a server's bucket, and allows for an interval of that. Several servers have a bucket each, which makes the
//! model stricter than it must be.

use std::time::Duration;

use crate::time::Instant;
use crate::transport::replay::{TOKEN_BURST, TOKEN_INTERVAL};

/// Tokens that may be used at once.
const BURST: u32 = TOKEN_BURST - 1;

/// Time in which the tokens accrue that a timeout need not wait for.
const TIMEOUT_ALLOWS: Duration = TOKEN_INTERVAL.saturating_mul(BURST - 1);

/// The same for a probe, which leaves a token for a timeout.
const PROBE_ALLOWS: Duration = TOKEN_INTERVAL.saturating_mul(BURST - 2);

/// See the head of this file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// When it is full again.
    full_at: Instant,
}

impl Bucket {
    /// When a timeout or restart may leave.
    pub(super) fn timeout_at(&self) -> Instant {
        self.full_at - TIMEOUT_ALLOWS
    }

    /// When a probe may leave.
    pub(super) fn probe_at(&self) -> Instant {
        self.full_at - PROBE_ALLOWS
    }

    /// Takes a token.
    pub(super) fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + TOKEN_INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::replay::TokenBuckets;
    use proptest::prelude::*;

    proptest! {
        /// A server takes all that the model permits, though packets come up to an interval closer together.
        #[test]
        fn what_the_model_permits_is_not_refused(
            steps in proptest::collection::vec((0u64..300_000, any::<bool>(), 0u64..100_000), 1..100),
        ) {
            let (mut model, mut server) = (Bucket::default(), TokenBuckets::new());
            let mut now = Instant::from_micros(1_000_000);
            let mut arrivals = Vec::new();
            for (pause, probes, delay) in steps {
                let ready = if probes { model.probe_at() } else { model.timeout_at() };
                now = Instant::from_micros(now.as_micros() + pause).max(ready);
                model.take(now);
                arrivals.push(now.as_micros() + delay);
            }
            arrivals.sort_unstable();
            for arrival in arrivals {
                prop_assert!(server.take(Instant::from_micros(arrival), 7));
            }
        }
    }

    #[test]
    fn a_probe_leaves_a_token_for_a_timeout() {
        let now = Instant::from_micros(1_000_000);
        let mut model = Bucket::default();
        for taken in 0..BURST {
            assert!(model.timeout_at() <= now, "{taken} taken");
            assert_eq!(model.probe_at() <= now, taken + 1 < BURST, "{taken} taken");
            model.take(now);
        }
        assert_eq!(model.timeout_at(), now + TOKEN_INTERVAL);
    }
}
