//! A race of attempts to connect to the addresses of one service.
//!
//! In: time, and the outcome of each attempt. Out: which attempt to start, the winner, or that all have failed.
//! Attempts start one after the other, at a pace, or at once after a failure; none is ended because the
//! next one starts, so that a long round trip cannot defeat them all. The first that is answered wins, unless one
//! before it in the order is answered after a round trip that is hardly longer. Source: RFC 8305 §5, with a shorter delay by default: on a
//! transport without state at servers an attempt too many costs them a datagram.

use std::time::Duration;

use crate::time::Instant;

/// Most attempts of a race.
pub const MAX_ATTEMPTS: usize = 16;

/// Most by which the round trip to a better address may exceed that of the first answer.
const MAX_LINGER: Duration = Duration::from_millis(5);

/// The same as a part of that round trip; the lesser counts.
const LINGER_PART: u32 = 16;

/// The delay between the starts of two attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// 2 s, the longest of RFC 8305 §8: one at a time on most paths.
    Sequential,
    /// 250 ms, the delay of Happy Eyeballs (RFC 8305 §8).
    HappyEyeballs,
    /// 10 ms, the shortest that RFC 8305 §8 allows.
    #[default]
    Paced,
    /// None: all start at once, which RFC 8305 §5 forbids.
    All,
}

impl Pace {
    /// The delay.
    #[must_use]
    pub const fn delay(self) -> Duration {
        match self {
            Self::Sequential => Duration::from_secs(2),
            Self::HappyEyeballs => Duration::from_millis(250),
            Self::Paced => Duration::from_millis(10),
            Self::All => Duration::ZERO,
        }
    }
}

/// The state of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptState {
    /// It has not started.
    Waiting,
    /// It started then, and was not answered yet.
    Running(Instant),
    /// It started then, and was answered after this time.
    Answered(Instant, Duration),
    /// It started then, and failed after this time.
    Failed(Instant, Duration),
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RaceStep {
    /// Start the attempt with this index.
    Start(usize),
    /// The attempt with this index has won; end all others.
    Won(usize),
    /// All attempts have failed.
    Exhausted,
}

/// A race; see the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Race {
    pace: Pace,
    attempts: Vec<AttemptState>,
    /// When the next attempt may start.
    next_at: Option<Instant>,
    /// Time that better attempts than the first that was answered have, from their own starts.
    patience: Option<Duration>,
    /// Whether further addresses may come.
    more: bool,
    ended: bool,
}

impl Race {
    /// Creates a race to `count` addresses, the best first; those beyond [`MAX_ATTEMPTS`] are left out.
    #[must_use]
    pub fn new(pace: Pace, count: usize) -> Self {
        Self {
            pace,
            attempts: vec![AttemptState::Waiting; count.min(MAX_ATTEMPTS)],
            next_at: None,
            patience: None,
            more: false,
            ended: false,
        }
    }

    /// Replaces the attempts that have not started by `count` others, because further addresses arrived: those
    /// that were started stay the first, in their order. Attempts beyond [`MAX_ATTEMPTS`] are left out.
    pub fn set_waiting(&mut self, count: usize) {
        let started = self.started();
        let all = started.saturating_add(count).min(MAX_ATTEMPTS);
        self.attempts.truncate(started);
        self.attempts.resize(all, AttemptState::Waiting);
    }

    /// Sets whether further addresses may come: the race then goes on when all attempts have failed. Default: no.
    pub const fn expect_more(&mut self, more: bool) {
        self.more = more;
    }

    /// The number of attempts that were started; they are the first.
    #[must_use]
    pub fn started(&self) -> usize {
        let waiting = self.position(|attempt| attempt == AttemptState::Waiting);
        waiting.unwrap_or(self.attempts.len())
    }

    /// The states of the attempts, in the order of the addresses.
    #[must_use]
    pub fn attempts(&self) -> &[AttemptState] {
        &self.attempts
    }

    /// Whether an attempt was answered: it wins in a moment, unless a better one does.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.best().is_some()
    }

    /// Puts the next attempt off until the last one that was started should have been answered, as far as `due`, the
    /// time within which that address answers, lies between the shortest and the recommended delay of
    /// RFC 8305 §8. Only for [`Pace::Paced`]; the others have fixed delays.
    pub fn expect_answer(&mut self, now: Instant, due: Duration) {
        if self.pace == Pace::Paced {
            let most = Pace::HappyEyeballs.delay();
            self.next_at = Some(now + due.clamp(self.pace.delay(), most));
        }
    }

    /// Takes note that an attempt was answered.
    pub fn handle_answer(&mut self, now: Instant, index: usize) {
        if let Some(attempt) = self.attempts.get_mut(index)
            && let AttemptState::Running(since) = *attempt
        {
            let round_trip = now.saturating_since(since);
            *attempt = AttemptState::Answered(since, round_trip);
            let patience = round_trip + (round_trip / LINGER_PART).min(MAX_LINGER);
            self.patience.get_or_insert(patience);
        }
    }

    /// Takes note that an attempt failed: the next one may start at once.
    pub fn handle_failure(&mut self, now: Instant, index: usize) {
        if let Some(attempt) = self.attempts.get_mut(index)
            && let AttemptState::Running(since) = *attempt
        {
            *attempt = AttemptState::Failed(since, now.saturating_since(since));
            self.next_at = None;
        }
    }

    /// Returns what to do next, if anything. To be called until it returns `None`; `Won` or `Exhausted` is
    /// the last.
    pub fn poll(&mut self, now: Instant) -> Option<RaceStep> {
        if self.ended {
            return None;
        }
        if let Some(best) = self.best() {
            self.ended = self.decided_at(best) <= now;
            return self.ended.then_some(RaceStep::Won(best));
        }
        match self.position(|attempt| attempt == AttemptState::Waiting) {
            Some(next) if self.next_at.is_none_or(|at| at <= now) => {
                if let Some(attempt) = self.attempts.get_mut(next) {
                    *attempt = AttemptState::Running(now);
                }
                self.next_at = Some(now + self.pace.delay());
                Some(RaceStep::Start(next))
            }
            Some(_) => None,
            None => {
                let running = self.position(|attempt| matches!(attempt, AttemptState::Running(_)));
                self.ended = running.is_none() && !self.more;
                self.ended.then_some(RaceStep::Exhausted)
            }
        }
    }

    /// When `poll` is to be called again, if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.position(|attempt| attempt == AttemptState::Waiting);
        match self.best() {
            _ if self.ended => None,
            Some(best) => Some(self.decided_at(best)),
            None => waiting.map(|_| self.next_at.unwrap_or(Instant::ZERO)),
        }
    }

    /// The attempts that may replace the winner, the likeliest to be answered first: those that were; those with time
    /// left for an answer; those that were not made; those that are silent. Failed ones are left out.
    #[must_use]
    pub fn spares(&self, now: Instant, winner: usize) -> Vec<usize> {
        let patience = self.patience.unwrap_or_default();
        let likeliness = |attempt: AttemptState| match attempt {
            AttemptState::Answered(..) => Some(0),
            AttemptState::Running(since) if since + patience > now => Some(1),
            AttemptState::Waiting => Some(2),
            AttemptState::Running(_) => Some(3),
            AttemptState::Failed(..) => None,
        };
        let attempts = self.attempts.iter().enumerate();
        let others = attempts.filter(|(index, _)| *index != winner);
        let ranked = others.filter_map(|(index, &attempt)| Some((likeliness(attempt)?, index)));
        let mut ranked: Vec<(u8, usize)> = ranked.collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, index)| index).collect()
    }

    /// The best attempt that was answered.
    fn best(&self) -> Option<usize> {
        self.position(|attempt| matches!(attempt, AttemptState::Answered(..)))
    }

    /// When the best attempt that was answered wins: when those before it have had their time.
    fn decided_at(&self, best: usize) -> Instant {
        let patience = self.patience.unwrap_or_default();
        let deadlines = self
            .attempts
            .iter()
            .take(best)
            .map(|attempt| match *attempt {
                AttemptState::Running(since) => since + patience,
                AttemptState::Waiting | AttemptState::Answered(..) | AttemptState::Failed(..) => {
                    Instant::ZERO
                }
            });
        deadlines.max().unwrap_or(Instant::ZERO)
    }

    fn position(&self, is: impl Fn(AttemptState) -> bool) -> Option<usize> {
        self.attempts.iter().position(|&attempt| is(attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    /// Plays a race in steps of a millisecond against addresses that answer (`Some(Ok)`), refuse (`Some(Err)`) or are
    /// dead (`None`), each after a time of its own. Returns the winner with its time, and the starts.
    type Behaviour = Option<Result<u64, u64>>;

    fn play(pace: Pace, addresses: &[Behaviour]) -> (Option<(usize, u64)>, Vec<u64>) {
        let mut race = Race::new(pace, addresses.len());
        let mut starts: Vec<u64> = Vec::new();
        for ms in 0..20_000 {
            for (index, (&start, behaviour)) in starts.clone().iter().zip(addresses).enumerate() {
                match behaviour {
                    Some(Ok(after)) if start + after == ms => race.handle_answer(at(ms), index),
                    Some(Err(after)) if start + after == ms => race.handle_failure(at(ms), index),
                    _ => {}
                }
            }
            while let Some(step) = race.poll(at(ms)) {
                match step {
                    RaceStep::Start(index) => {
                        assert_eq!(index, starts.len());
                        starts.push(ms);
                    }
                    RaceStep::Won(index) => return (Some((index, ms)), starts),
                    RaceStep::Exhausted => return (None, starts),
                }
            }
        }
        (None, starts)
    }

    #[test]
    fn dead_addresses_delay_by_the_pace() {
        for (pace, dead, want) in [
            (Pace::All, 10, 22),
            (Pace::Paced, 0, 20),
            (Pace::Paced, 3, 50),
            (Pace::Paced, 10, 120),
            (Pace::HappyEyeballs, 3, 770),
            (Pace::Sequential, 1, 2020),
        ] {
            let mut addresses = vec![None; dead];
            addresses.resize(11, Some(Ok(20)));
            let (winner, _) = play(pace, &addresses);
            assert_eq!(winner, Some((dead, want)), "{pace:?}, {dead} dead");
        }
    }

    #[test]
    fn a_refusal_starts_the_next_at_once_and_no_attempt_is_ended_early() {
        let mut addresses = vec![Some(Err(1)); 10];
        addresses.push(Some(Ok(500)));
        let (winner, starts) = play(Pace::HappyEyeballs, &addresses);
        assert_eq!(winner, Some((10, 510)));
        assert_eq!(starts, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let far = play(Pace::HappyEyeballs, &[Some(Ok(400)); 11]);
        assert_eq!(far.0, Some((0, 400)));
        let refused = play(Pace::Paced, &[Some(Err(5)); 3]);
        assert_eq!(refused, (None, vec![0, 5, 10]));
    }

    #[test]
    fn the_next_attempt_waits_for_an_answer_that_is_due() {
        for (pace, due, want) in [
            (Pace::Paced, 0, 10),
            (Pace::Paced, 42, 42),
            (Pace::Paced, 1000, 250),
            (Pace::All, 42, 0),
            (Pace::HappyEyeballs, 42, 250),
        ] {
            let mut race = Race::new(pace, 2);
            assert_eq!(race.poll(at(0)), Some(RaceStep::Start(0)));
            race.expect_answer(at(0), Duration::from_millis(due));
            assert_eq!(race.poll_timeout(), Some(at(want)), "{pace:?} {due}");
        }
    }

    #[test]
    fn a_better_answer_that_comes_a_moment_later_wins() {
        let answers = |first, second| play(Pace::All, &[Some(Ok(first)), Some(Ok(second))]).0;
        assert_eq!(answers(42, 40), Some((0, 42)), "a sixteenth later");
        assert_eq!(answers(47, 40), Some((1, 43)), "later than that");
        assert_eq!(answers(406, 400), Some((1, 405)), "5 ms at most");
        assert_eq!(answers(20, 40), Some((0, 20)), "the best does not wait");
        let paced = play(Pace::Paced, &[Some(Ok(32)), Some(Ok(20))]).0;
        assert_eq!(paced, Some((1, 30)), "the better one was started before");
    }

    #[test]
    fn addresses_that_come_late_join_and_those_started_stay() {
        let mut race = Race::new(Pace::Paced, 2);
        race.expect_more(true);
        assert_eq!(race.poll(at(0)), Some(RaceStep::Start(0)));
        race.set_waiting(3);
        assert_eq!(
            (race.started(), race.poll(at(9))),
            (1, None),
            "at their pace"
        );
        assert_eq!(race.poll_timeout(), Some(at(10)));
        for (ms, index) in [(10, 1), (20, 2), (30, 3)] {
            assert_eq!(race.poll(at(ms)), Some(RaceStep::Start(index)));
        }
        (0..4).for_each(|index| race.handle_failure(at(40), index));
        assert_eq!((race.poll(at(40)), race.poll_timeout()), (None, None));
        race.set_waiting(1);
        assert_eq!(race.poll(at(50)), Some(RaceStep::Start(4)), "at once");
        race.set_waiting(0);
        race.handle_failure(at(60), 4);
        assert_eq!(race.poll(at(60)), None, "more may come");
        race.expect_more(false);
        assert_eq!(race.poll(at(60)), Some(RaceStep::Exhausted));
        race.set_waiting(1);
        assert_eq!(race.poll(at(60)), None, "too late");
    }

    #[test]
    fn spares_are_ranked_by_what_is_known_of_them() {
        let mut race = Race::new(Pace::Paced, 6);
        let starts = |race: &mut Race, ms| while race.poll(at(ms)).is_some() {};
        for ms in [0, 10, 20, 30] {
            starts(&mut race, ms);
        }
        race.handle_failure(at(32), 1);
        race.handle_answer(at(34), 2);
        assert_eq!(race.poll(at(34)), Some(RaceStep::Won(2)));
        race.handle_answer(at(34), 3);
        assert_eq!(
            race.spares(at(34), 2),
            [3, 4, 5, 0],
            "0 is silent, 1 failed"
        );
        let mut race = Race::new(Pace::Paced, 3);
        starts(&mut race, 0);
        starts(&mut race, 10);
        race.handle_answer(at(20), 0);
        assert_eq!(race.spares(at(20), 0), [1, 2], "1 may still answer");
    }

    #[test]
    fn the_number_of_attempts_is_bounded() {
        let mut race = Race::new(Pace::All, MAX_ATTEMPTS + 1);
        let started = core::iter::from_fn(|| race.poll(at(0))).count();
        assert_eq!(started, MAX_ATTEMPTS);
        race.set_waiting(1);
        assert_eq!(race.poll(at(0)), None);
        assert_eq!(
            Race::new(Pace::All, 0).poll(at(0)),
            Some(RaceStep::Exhausted)
        );
    }

    proptest! {
        /// One winner that was answered, or exhaustion; starts in order, each once, at the pace unless one failed;
        /// no winner while a better one was answered; nothing after the end; a deadline while anything waits.
        #[test]
        fn laws(
            pace in prop::sample::select(vec![Pace::Sequential, Pace::HappyEyeballs, Pace::Paced, Pace::All]),
            count in 0usize..20,
            inputs in prop::collection::vec((0u64..400, 0usize..20, 0u8..6), 0..200),
        ) {
            let mut race = Race::new(pace, count);
            let mut more = count % 2 == 0;
            race.expect_more(more);
            let (mut ms, mut started, mut ended) = (0, Vec::new(), None);
            let mut failed = true;
            for (wait, index, input) in inputs {
                while let Some(step) = race.poll(at(ms)) {
                    prop_assert!(ended.is_none());
                    match step {
                        RaceStep::Start(next) => {
                            prop_assert_eq!(next, started.len());
                            let due = started.last().map_or(0, |last| last + pace.delay().as_millis());
                            prop_assert!(failed || u128::from(ms) >= due);
                            failed = false;
                            started.push(u128::from(ms));
                        }
                        RaceStep::Won(winner) => {
                            prop_assert!(matches!(race.attempts()[winner], AttemptState::Answered(..)));
                            let answered = |a: &AttemptState| matches!(a, AttemptState::Answered(..));
                            prop_assert!(!race.attempts()[..winner].iter().any(answered));
                            ended = Some(step);
                        }
                        RaceStep::Exhausted => {
                            let all = |a: &AttemptState| matches!(a, AttemptState::Failed(..));
                            prop_assert!(race.attempts().iter().all(all) && !more);
                            ended = Some(step);
                        }
                    }
                }
                let waits = race.attempts().contains(&AttemptState::Waiting) && ended.is_none();
                prop_assert!(!waits || race.poll_timeout().is_some());
                ms += wait;
                match input {
                    0 => race.handle_answer(at(ms), index),
                    1 => {
                        let running = matches!(race.attempts().get(index), Some(AttemptState::Running(_)));
                        race.handle_failure(at(ms), index);
                        failed |= running;
                    }
                    2 => {
                        race.set_waiting(index);
                        prop_assert_eq!(race.started(), started.len());
                    }
                    3 => {
                        more = false;
                        race.expect_more(more);
                    }
                    _ => {}
                }
            }
        }
    }
}
