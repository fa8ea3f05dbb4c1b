//! The health of a backend: a verdict from heartbeats, quick to fall and slow to rise.
//!
//! In: time, heartbeats sent and answered, ICMP errors. Out: a verdict, and the time of the next
//! query. A backend is down after `misses` intervals of silence, regardless of its round trip, and
//! up again after `recovery` consecutive replies. An ICMP error is a hint, which the caller has
//! authenticated: about a packet, it brings the next query forward; about a query not yet answered,
//! it makes the backend suspect: it gets no packets until it answers a query sent since, or until
//! the heartbeats could have decided by themselves. After a reply has refuted a suspicion, there is
//! no other for [`TRUSTED_BEATS`] intervals: an observer on the path that forges errors costs a
//! backend one round trip of packets in that time. A reply's delay above the minimum reveals a
//! queue: before the backend, in it, or on the way back.

use core::time::Duration;

use super::capsule::Reply;
use crate::time::Instant;

/// Most outstanding queries of a backend; older ones are dropped.
pub const MAX_QUERIES: usize = 16;

/// Most queries in an interval: ICMP errors hasten them no further.
const HASTENED: u32 = 4;

/// Intervals without a suspicion after one that a reply has refuted.
pub const TRUSTED_BEATS: u32 = 64;

/// Replies after which the previous minimum round trip expires (once to twice this number): a
/// longer path is not a queue for ever.
const SHORTEST_OF: u32 = 256;

/// The rate of heartbeats, and the thresholds of the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Time between two queries.
    pub interval: Duration,
    /// Intervals of silence after which a backend is down.
    pub misses: u32,
    /// Consecutive replies after which it is up again.
    pub recovery: u32,
}

impl Beat {
    /// The longest silence of a healthy backend.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.interval.saturating_mul(self.misses)
    }
}

/// The effect of an ICMP error.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Instant,
    until: Instant,
}

/// An outstanding query.
#[derive(Clone, Copy, Debug)]
struct Query {
    sequence: u64,
    at: Instant,
    /// Packets given to the backend before it.
    given: u64,
}

/// The health of one backend.
#[derive(Clone, Debug)]
pub struct Health {
    up: bool,
    suspicion: Option<Suspicion>,
    /// The end of the time in which no error makes it suspect.
    trusted: Instant,
    due: Instant,
    /// Send time of the last query.
    queried: Option<Instant>,
    heard: Instant,
    /// Consecutive replies while it is down.
    good: u32,
    /// Outstanding queries; the oldest is replaced.
    sent: [Option<Query>; MAX_QUERIES],
    oldest: usize,
    reply: Reply,
    round_trip: Option<Duration>,
    /// The previous one.
    last_round_trip: Duration,
    shortest: Shortest,
    /// Send time of the newest query that was answered.
    answered: Instant,
}

/// The recent minimum of the round trip.
#[derive(Clone, Copy, Debug)]
struct Shortest {
    now: Duration,
    before: Duration,
    count: u32,
}

impl Default for Shortest {
    fn default() -> Self {
        Self {
            now: Duration::MAX,
            before: Duration::MAX,
            count: 0,
        }
    }
}

impl Shortest {
    fn take(&mut self, round_trip: Duration) {
        if self.count == SHORTEST_OF {
            *self = Self {
                before: self.now,
                ..Self::default()
            };
        }
        self.count += 1;
        self.now = self.now.min(round_trip);
    }

    fn get(&self) -> Duration {
        self.now.min(self.before)
    }
}

impl Health {
    /// Creates the state of a new backend, which is presumed healthy.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            up: true,
            suspicion: None,
            trusted: now,
            due: now,
            queried: None,
            heard: now,
            good: 0,
            sent: [None; MAX_QUERIES],
            oldest: 0,
            reply: Reply::default(),
            round_trip: None,
            last_round_trip: Duration::MAX,
            shortest: Shortest::default(),
            answered: now,
        }
    }

    /// Whether the backend is healthy.
    #[must_use]
    pub const fn is_well(&self) -> bool {
        self.up && self.suspicion.is_none()
    }

    /// The last reply.
    #[must_use]
    pub const fn reply(&self) -> Reply {
        self.reply
    }

    /// The round trip of the last reply.
    #[must_use]
    pub const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// The current delay of a reply above the minimum. A single late reply does not count; an
    /// outstanding one does once it exceeds the last.
    #[must_use]
    pub fn delay(&self, now: Instant) -> Duration {
        let Some(round_trip) = self.round_trip else {
            return Duration::ZERO;
        };
        let sent = self.sent.iter().flatten().map(|query| query.at);
        let awaited = sent.filter(|sent| *sent > self.answered).min();
        let awaited = awaited.map_or(Duration::ZERO, |sent| now.saturating_since(sent));
        let of_two = round_trip.min(self.last_round_trip);
        of_two.max(awaited).saturating_sub(self.shortest.get())
    }

    /// The next deadline for [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self, beat: &Beat) -> Instant {
        let silence = self.up.then(|| self.heard + beat.patience());
        let suspicion = self.suspicion.map(|suspicion| suspicion.until);
        [silence, suspicion]
            .into_iter()
            .flatten()
            .fold(self.due, Instant::min)
    }

    /// Evaluates the silence; returns whether a query is due, which the caller then sends.
    pub fn handle_timeout(&mut self, now: Instant, beat: &Beat) -> bool {
        let late = now.saturating_since(self.due);
        if late > beat.interval {
            // The query was late, so the silence is ours.
            self.heard = (self.heard + late).min(now);
        }
        if self
            .suspicion
            .is_some_and(|suspicion| suspicion.until <= now)
        {
            self.suspicion = None;
        }
        if self.up && now.saturating_since(self.heard) >= beat.patience() {
            self.up = false;
            self.good = 0;
        }
        let due = self.due <= now;
        if due {
            self.due = now + beat.interval;
        }
        due
    }

    /// Records a query; `given`: packets given to the backend before it.
    pub fn asked(&mut self, now: Instant, sequence: u64, given: u64) {
        if let Some(slot) = self.sent.get_mut(self.oldest) {
            *slot = Some(Query {
                sequence,
                at: now,
                given,
            });
        }
        self.queried = Some(now);
        self.oldest = (self.oldest + 1) % MAX_QUERIES;
    }

    /// Handles an authenticated reply; returns the packets given before its query, if it answers
    /// one.
    pub fn answered(
        &mut self,
        now: Instant,
        beat: &Beat,
        sequence: u64,
        reply: Reply,
    ) -> Option<u64> {
        let Query {
            at: sent, given, ..
        } = self.awaited(sequence)?.take()?;
        if self
            .suspicion
            .is_some_and(|suspicion| suspicion.since <= sent)
        {
            self.suspicion = None;
            self.trusted = now + beat.interval.saturating_mul(TRUSTED_BEATS);
        }
        if !self.up {
            let in_a_row = now.saturating_since(self.heard) < beat.patience();
            self.good = if in_a_row { self.good + 1 } else { 1 };
            self.up = self.good >= beat.recovery;
        }
        self.heard = now;
        self.reply = reply;
        let round_trip = now.saturating_since(sent);
        self.shortest.take(round_trip);
        self.last_round_trip = self.round_trip.replace(round_trip).unwrap_or(Duration::MAX);
        self.answered = self.answered.max(sent);
        Some(given)
    }

    fn awaited(&mut self, sequence: u64) -> Option<&mut Option<Query>> {
        let is_it =
            |slot: &&mut Option<Query>| slot.is_some_and(|query| query.sequence == sequence);
        self.sent.iter_mut().find(is_it)
    }

    /// Handles an authentic ICMP error about a packet: the backend is queried soon.
    pub fn hasten(&mut self, now: Instant, beat: &Beat) {
        let earliest = self
            .queried
            .map_or(now, |last| last + beat.interval / HASTENED);
        self.due = self.due.min(earliest.max(now));
    }

    /// Handles an authentic ICMP error about a query; returns whether that is outstanding. Its
    /// backend becomes suspect, and is queried soon.
    pub fn suspect(&mut self, now: Instant, beat: &Beat, sequence: u64) -> bool {
        if self.awaited(sequence).is_none() {
            return false;
        }
        if self.suspicion.is_none() && self.trusted <= now {
            self.suspicion = Some(Suspicion {
                since: now,
                until: now + beat.patience(),
            });
        }
        self.hasten(now, beat);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Beat = Beat {
        interval: Duration::from_millis(50),
        misses: 3,
        recovery: 5,
    };

    fn ms(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    /// Runs the heartbeat from `from` to `to` (ms); queries sent while `alive` are answered after
    /// `trip` ms. Returns the changes of the verdict.
    fn run(
        health: &mut Health,
        from: u64,
        to: u64,
        trip: u64,
        alive: impl Fn(u64) -> bool,
    ) -> Vec<(u64, bool)> {
        let (mut changes, mut answers) = (Vec::new(), Vec::new());
        for at in from..to {
            let before = health.is_well();
            answers.retain(|&(due, sequence)| {
                let now = due == at;
                let reply = Reply::default();
                let answers = |health: &mut Health| health.answered(ms(at), &BEAT, sequence, reply);
                assert!(!now || answers(health).is_some());
                !now
            });
            if health.poll_timeout(&BEAT) <= ms(at) && health.handle_timeout(ms(at), &BEAT) {
                health.asked(ms(at), at + 1, 0);
                if alive(at) {
                    answers.push((at + trip, at + 1));
                }
            }
            if health.is_well() != before {
                changes.push((at, health.is_well()));
            }
        }
        changes
    }

    #[test]
    fn silence_is_noticed_in_time_and_recovery_slowly() {
        for trip in [1, 20, 49, 120] {
            let mut health = Health::new(ms(0));
            let changes = run(&mut health, 0, 3000, trip, |at| !(1000..2000).contains(&at));
            let [(down, false), (up, true)] = changes[..] else {
                panic!("{trip}: {changes:?}");
            };
            assert!((1100..=1150 + trip).contains(&down), "{trip}: {down}");
            assert_eq!(up, 2000 + 4 * 50 + trip, "{trip}");
        }
    }

    #[test]
    fn two_misses_are_forgiven_and_a_broken_row_starts_anew() {
        let mut health = Health::new(ms(0));
        assert_eq!(run(&mut health, 0, 2000, 1, |at| at % 150 == 0), []);
        let mut health = Health::new(ms(0));
        // Four answers, then four misses, again and again.
        let changes = run(&mut health, 0, 4000, 1, |at| at >= 400 && at / 200 % 2 == 0);
        assert_eq!(changes, [(150, false)]);
    }

    /// Makes a backend suspect by an error about a query that is sent now.
    fn suspect(health: &mut Health, at: u64) {
        health.asked(ms(at), 1_000_000 + at, 0);
        assert!(health.suspect(ms(at), &BEAT, 1_000_000 + at));
    }

    #[test]
    fn an_error_suspends_until_the_next_answer_or_for_a_while() {
        let mut health = Health::new(ms(0));
        run(&mut health, 0, 1010, 1, |_| true);
        suspect(&mut health, 1010);
        assert!(!health.is_well());
        assert_eq!(run(&mut health, 1010, 1500, 20, |_| true), [(1043, true)]);
        // Without a reply the silence decides; otherwise the suspicion ends by itself.
        suspect(&mut health, 9010);
        assert!(!health.is_well());
        let mut health = Health::new(ms(0));
        suspect(&mut health, 0);
        assert_eq!(health.poll_timeout(&BEAT), ms(0));
        health.handle_timeout(ms(0), &BEAT);
        health.heard = ms(140);
        health.handle_timeout(ms(100), &BEAT);
        health.handle_timeout(ms(150), &BEAT);
        assert!(health.is_well());
    }

    #[test]
    fn a_refuted_error_makes_the_next_ones_worthless_for_a_while() {
        let mut health = Health::new(ms(0));
        let mut suspected = 0;
        for at in 0..10_000 {
            if health.poll_timeout(&BEAT) <= ms(at) && health.handle_timeout(ms(at), &BEAT) {
                health.asked(ms(at), at, 0);
                let was_well = health.is_well();
                health.suspect(ms(at), &BEAT, at);
                suspected += u32::from(was_well && !health.is_well());
            }
            // The reply to the query of 10 ms before, if there was one.
            if let Some(sent) = at.checked_sub(10) {
                health.answered(ms(at), &BEAT, sent, Reply::default());
            }
        }
        assert_eq!(suspected, 4, "one in 64 intervals");
    }

    #[test]
    fn errors_hasten_queries_to_four_in_an_interval() {
        let mut health = Health::new(ms(0));
        let mut queries = 0;
        for at in 0..10_000 {
            health.hasten(ms(at), &BEAT);
            if health.poll_timeout(&BEAT) <= ms(at) && health.handle_timeout(ms(at), &BEAT) {
                health.asked(ms(at), at, 0);
                health.answered(ms(at), &BEAT, at, Reply::default());
                queries += 1;
            }
        }
        assert!(health.is_well());
        assert!((700..=10_000 / 12).contains(&queries), "{queries}");
    }

    #[test]
    fn an_answer_to_a_query_before_the_error_clears_nothing() {
        let mut health = Health::new(ms(0));
        health.asked(ms(0), 1, 0);
        suspect(&mut health, 5);
        assert!(health.answered(ms(6), &BEAT, 1, Reply::default()).is_some());
        assert!(!health.is_well());
        assert!(!health.suspect(ms(7), &BEAT, 1), "it was answered");
    }

    #[test]
    fn our_own_pause_is_no_silence_of_theirs() {
        let mut health = Health::new(ms(0));
        run(&mut health, 0, 1000, 1, |_| true);
        health.handle_timeout(ms(5000), &BEAT);
        assert!(health.is_well());
        assert_eq!(run(&mut health, 5001, 6000, 1, |_| false), [(5101, false)]);
    }

    #[test]
    fn a_queue_shows_and_neither_a_distance_nor_one_late_answer() {
        let mut health = Health::new(ms(0));
        let mut ask = |at: u64, trip: Option<u64>| {
            health.asked(ms(at), at, 0);
            if let Some(trip) = trip {
                health.answered(ms(at + trip), &BEAT, at, Reply::default());
            }
            health.delay(ms(at + 49)).as_millis()
        };
        for (at, trip, want) in [
            (100, Some(20), 0),
            (150, Some(20), 0),
            (200, Some(35), 0),
            (250, Some(45), 15),
            (300, Some(20), 0),
            (350, None, 29),
            (400, None, 79),
            (450, Some(20), 0),
        ] {
            assert_eq!(ask(at, trip), want, "{at}");
        }
    }

    #[test]
    fn a_way_that_stays_longer_is_no_queue_for_ever() {
        let mut health = Health::new(ms(0));
        let mut late = 0;
        for n in 1..=1000 {
            let trip = if n < 100 { 5 } else { 15 };
            health.asked(ms(n * 50), n, 0);
            health.answered(ms(n * 50 + trip), &BEAT, n, Reply::default());
            late += u32::from(health.delay(ms(n * 50 + 49)) > Duration::ZERO);
        }
        assert!((SHORTEST_OF..=2 * SHORTEST_OF).contains(&late), "{late}");
    }

    #[test]
    fn answers_count_once_and_old_queries_are_forgotten() {
        let mut health = Health::new(ms(0));
        for sequence in 0..=MAX_QUERIES as u64 {
            health.asked(ms(1), sequence, 0);
        }
        let mut answered = |sequence| {
            let given = health.answered(ms(2), &BEAT, sequence, Reply::default());
            given.is_some()
        };
        assert!(!answered(0), "forgotten");
        assert!(answered(1));
        assert!(!answered(1), "twice");
        assert!(!answered(99), "never asked");
    }
}
