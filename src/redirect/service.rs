//! The service of a backend: how many of the packets that a redirector gives it are answered.
//!
//! In: the packets given before a heartbeat, and the counts in its reply. Out: a ratio of the answers
//! to those that the fleet gives on average. A backend that answers heartbeats and nothing else, or
//! whose packets are lost on the way, looks idle by its load; by this ratio it does not. Packets that
//! no backend answers, such as a flood of garbage, lower the average and no ratio.

/// Counts in a reply, from the start of the backend; they wrap around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Packets of the transport that this redirector gave, and that arrived.
    pub received: u32,
    /// Packets of the transport from anywhere.
    pub arrived: u32,
    /// Answers to these.
    pub answered: u32,
}

/// Answers expected in the period that the ratio covers: fewer follow faster, more are smoother.
const EXPECTED: f64 = 16.0;

/// Most packets that the ratio covers.
pub const MAX_GIVEN: f64 = 4096.0;

/// The recent service of one backend.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Service {
    /// Packets given before the newest query that was answered, and the counts in its reply.
    last: Option<(u64, Work)>,
    /// Packets given recently; older ones count less.
    given: f64,
    /// Answers to them.
    answered: f64,
}

impl Service {
    /// Takes the counts of a reply; `given`: packets given before its query. Replies that come out of
    /// order change nothing.
    pub(super) fn take(&mut self, given: u64, work: Work) {
        let (before, was) = self.last.unwrap_or((given, work));
        let Some(given_since) = given.checked_sub(before) else {
            return;
        };
        self.last = Some((given, work));
        let given_since = u32::try_from(given_since).unwrap_or(u32::MAX);
        // A backend that was restarted counts from 0: the difference is then no smaller than `given`.
        let received = work.received.wrapping_sub(was.received).min(given_since);
        let arrived = work.arrived.wrapping_sub(was.arrived).max(received);
        let answered = work.answered.wrapping_sub(was.answered).min(arrived);
        self.given += f64::from(given_since);
        self.answered += f64::from(received) * f64::from(answered) / f64::from(arrived.max(1));
    }

    /// Returns the answers per packet of a fleet; 0 if there are none.
    pub(super) fn mean<'a>(fleet: impl Iterator<Item = &'a Self>) -> f64 {
        let (given, answered) = fleet.fold((0.0, 0.0), |(given, answered), one| {
            (given + one.given, answered + one.answered)
        });
        if given > 0.0 { answered / given } else { 0.0 }
    }

    /// Reduces the weight of older packets to the period covered.
    pub(super) fn age(&mut self, mean: f64) {
        let most = (EXPECTED / mean).min(MAX_GIVEN);
        if self.given > most {
            self.answered *= most / self.given;
            self.given = most;
        }
    }

    /// Returns the ratio of the answers to those of an average backend, at most 1; close to 1 without
    /// evidence.
    pub(super) fn ratio(&self, mean: f64) -> f64 {
        ((self.answered + 1.0) / (self.given * mean + 1.0)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives packets of which `received` arrive and `answered` of all that arrive are answered.
    fn give(service: &mut Service, beats: u32, given: u32, received: u32, answered: u32) {
        let (mut total, mut work) = service.last.unwrap_or_default();
        service.take(total, work);
        for _ in 0..beats {
            total += u64::from(given);
            work.received = work.received.wrapping_add(received);
            work.arrived = work.arrived.wrapping_add(received);
            work.answered = work.answered.wrapping_add(answered);
            service.take(total, work);
            service.age(1.0);
        }
    }

    #[test]
    fn packets_that_are_lost_or_not_answered_show_and_recovery_too() {
        for (received, answered) in [(0, 0), (10, 0)] {
            let mut service = Service::default();
            assert!(service.ratio(1.0) > 0.99, "no evidence");
            give(&mut service, 20, 10, 10, 10);
            assert!(service.ratio(1.0) > 0.99);
            give(&mut service, 20, 10, received, answered);
            assert!(service.ratio(1.0) < 0.07, "{}", service.ratio(1.0));
            give(&mut service, 20, 10, 10, 10);
            assert!(service.ratio(1.0) > 0.95, "{}", service.ratio(1.0));
        }
    }

    #[test]
    fn a_flood_that_nobody_answers_blames_nobody() {
        let mut fleet = [Service::default(); 8];
        for _ in 0..100 {
            for service in &mut fleet {
                give(service, 1, 1000, 1000, 1);
            }
            let mean = Service::mean(fleet.iter());
            for service in &mut fleet {
                service.age(mean);
                assert!(service.given <= MAX_GIVEN);
                assert!(service.ratio(mean) > 0.9, "{}", service.ratio(mean));
            }
        }
    }

    #[test]
    fn a_restart_and_a_late_reply_are_no_loss() {
        let mut service = Service::default();
        give(&mut service, 10, 10, 10, 10);
        service.take(110, Work::default());
        assert!(service.ratio(1.0) > 0.9, "{}", service.ratio(1.0));
        let before = service.given;
        service.take(50, Work::default());
        assert!((service.given - before).abs() < f64::EPSILON);
    }
}
