//! The jobs under way, by fair shares of the clients that need them.
//!
//! In: jobs with the addresses of their clients. Out: jobs for the workers, few at a time, and the
//! tickets of the requests that wait for them. Of the jobs of a kind that wait, the next one is that of
//! the source with the fewest of the last starts, and a full queue makes room at the expense of the
//! source with most of them: a client that needs many files delays others by one job each.

use std::collections::{BTreeMap, VecDeque};

use crate::apps::origin::work::{Job, JobKey, JobKind, MAX_JOBS, Outcome, Workers};
use crate::transport::application::{RequestContext, Ticket};
use crate::wire::address::Source;

/// Nothing wakes the requests with this ticket: their clients ask again.
pub const POLLED: Ticket = Ticket(0);

/// Most short jobs of a kind that the workers hold: enough for their threads until the loop's next
/// turn.
pub const MAX_STARTED: usize = 8;

/// The same for digests, which take long.
pub const MAX_STARTED_DIGESTS: usize = 2;

/// Starts by which sources are compared.
pub const MAX_RECENT_STARTS: usize = 16;

/// A job that is wanted.
#[derive(Clone, Copy, Debug)]
struct Pending {
    ticket: Ticket,
    /// The workers have it.
    started: bool,
}

/// The jobs of a kind that wait for the workers.
#[derive(Debug, Default)]
struct FairQueue {
    waiting: VecDeque<(Source, Job)>,
    /// Jobs that the workers hold.
    started: usize,
    /// Sources of the last starts, the latest at the end.
    recent: VecDeque<Source>,
}

impl FairQueue {
    fn count(&self, source: Source) -> usize {
        self.waiting
            .iter()
            .filter(|(own, _)| *own == source)
            .count()
    }

    /// Removes the newest job of the source with most of them, unless `source` has about as many.
    fn make_room(&mut self, source: Source) -> Option<Job> {
        let own = self.count(source);
        if 2 * own >= self.waiting.len() {
            return None;
        }
        let mut jobs: BTreeMap<Source, (usize, usize)> = BTreeMap::new();
        for (place, (other, _)) in self.waiting.iter().enumerate() {
            let (count, newest) = jobs.entry(*other).or_default();
            *count += 1;
            *newest = place;
        }
        let (most, newest) = jobs.into_values().max()?;
        let (_, job) = (most > own + 1).then(|| self.waiting.remove(newest))??;
        Some(job)
    }

    /// Returns the place of the next job: of the source with the fewest of the last starts.
    fn next(&self) -> Option<usize> {
        let starts = |source| self.recent.iter().filter(|own| **own == source).count();
        let all = self.waiting.iter().enumerate();
        all.min_by_key(|(place, (source, _))| (starts(*source), *place))
            .map(|(place, _)| place)
    }

    /// Takes note that the workers have taken the job at `place`.
    fn start(&mut self, place: usize) {
        let Some((source, _)) = self.waiting.remove(place) else {
            return;
        };
        self.started += 1;
        if self.recent.len() >= MAX_RECENT_STARTS {
            self.recent.pop_front();
        }
        self.recent.push_back(source);
    }

    fn place_of(&self, key: &JobKey) -> Option<usize> {
        self.waiting.iter().position(|(_, job)| job.key() == *key)
    }

    /// Counts a job that waits as that of `source`, if that has fewer.
    fn share(&mut self, key: &JobKey, source: Source) {
        let Some(place) = self.place_of(key) else {
            return;
        };
        let Some((owner, _)) = self.waiting.get(place) else {
            return;
        };
        if self.count(*owner) > self.count(source) + 1
            && let Some((owner, _)) = self.waiting.get_mut(place)
        {
            *owner = source;
        }
    }
}

/// The jobs under way, and the tickets of the requests that wait for them.
pub struct Desk {
    workers: Box<dyn Workers>,
    pending: BTreeMap<JobKey, Pending>,
    queues: [FairQueue; JobKind::ALL.len()],
    ready: VecDeque<Ticket>,
    last: u64,
}

impl Desk {
    /// Creates a desk without jobs.
    #[must_use]
    pub fn new(workers: Box<dyn Workers>) -> Self {
        Self {
            workers,
            pending: BTreeMap::new(),
            queues: Default::default(),
            ready: VecDeque::new(),
            last: POLLED.0,
        }
    }

    /// Returns the ticket of a job, which waits for the workers unless it is under way; [`POLLED`] if
    /// its queue is full of jobs of clients with fewer, or if it must not be started because the client
    /// has not proven its address.
    pub fn order(&mut self, context: RequestContext, job: Job) -> Ticket {
        let (key, kind) = (job.key(), job.kind());
        let source = Source::of(context.source);
        let known = self.pending.get(&key).copied();
        let Some(queue) = self.queues.get_mut(kind.index()) else {
            return POLLED;
        };
        if let Some(pending) = known {
            if context.proven && !pending.started {
                queue.share(&key, source);
            }
            return pending.ticket;
        }
        if !(context.proven || self.workers.is_immediate()) {
            return POLLED;
        }
        if queue.waiting.len() >= MAX_JOBS {
            let Some(evicted) = queue.make_room(source) else {
                return POLLED;
            };
            // Its requests ask again, and find the queue full.
            let evicted = self.pending.remove(&evicted.key());
            self.ready.extend(evicted.map(|evicted| evicted.ticket));
        }
        queue.waiting.push_back((source, job));
        self.last += 1;
        let ticket = Ticket(self.last);
        let started = false;
        self.pending.insert(key, Pending { ticket, started });
        self.hand_over(kind);
        ticket
    }

    /// Gives the workers as many jobs of a kind as they may hold.
    fn hand_over(&mut self, kind: JobKind) {
        let most = match kind {
            JobKind::Digest => MAX_STARTED_DIGESTS,
            JobKind::List | JobKind::Look | JobKind::Read => MAX_STARTED,
        };
        let Some(queue) = self.queues.get_mut(kind.index()) else {
            return;
        };
        while queue.started < most
            && let Some(place) = queue.next()
            && let Some((_, job)) = queue.waiting.get(place)
        {
            let key = job.key();
            if !self.workers.start(job.clone()) {
                // Full of work in advance: the next outcome makes room.
                return;
            }
            queue.start(place);
            if let Some(pending) = self.pending.get_mut(&key) {
                pending.started = true;
            }
        }
    }

    /// Returns the next outcome, whose requests are ready, and whether it was ordered.
    pub fn finished(&mut self) -> Option<(JobKey, Outcome, bool)> {
        let (key, outcome) = self.workers.finished()?;
        let kind = key.kind();
        let pending = self.pending.remove(&key);
        self.ready.extend(pending.map(|pending| pending.ticket));
        if let (Some(pending), Some(queue)) = (pending, self.queues.get_mut(kind.index())) {
            if pending.started {
                queue.started = queue.started.saturating_sub(1);
            } else if let Some(place) = queue.place_of(&key) {
                // Done in advance.
                queue.waiting.remove(place);
            }
        }
        self.hand_over(kind);
        Some((key, outcome, pending.is_some()))
    }

    /// Returns the next ticket whose job is done.
    pub fn poll_ready(&mut self) -> Option<Ticket> {
        self.ready.pop_front()
    }

    /// The number of jobs under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU32;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::apps::origin::work::InlineWorkers;
    use crate::time::UnixMillis;

    const fn client(last: u8) -> RequestContext {
        RequestContext {
            now: UnixMillis::new(0),
            proven: true,
            source: IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)),
        }
    }

    const FORGED: RequestContext = RequestContext {
        proven: false,
        ..client(9)
    };

    /// Holds jobs until a test has them done, in order; `most` at a time.
    #[derive(Clone)]
    struct Held(Arc<Mutex<HeldJobs>>);

    struct HeldJobs {
        jobs: VecDeque<Job>,
        done: InlineWorkers,
        most: usize,
    }

    impl Held {
        fn new(most: usize) -> Self {
            Self(Arc::new(Mutex::new(HeldJobs {
                jobs: VecDeque::new(),
                done: InlineWorkers::default(),
                most,
            })))
        }

        fn count(&self) -> usize {
            self.0.lock().unwrap().jobs.len()
        }

        /// Does the next job; returns its seed.
        fn work(&self) -> Option<u64> {
            let mut held = self.0.lock().unwrap();
            let job = held.jobs.pop_front()?;
            let Job::Block(seed, _) = job else {
                panic!("another kind")
            };
            held.done.start(job);
            Some(seed)
        }
    }

    impl Workers for Held {
        fn start(&mut self, job: Job) -> bool {
            let mut held = self.0.lock().unwrap();
            let free = held.jobs.len() < held.most;
            if free {
                held.jobs.push_back(job);
            }
            free
        }

        fn finished(&mut self) -> Option<(JobKey, Outcome)> {
            self.0.lock().unwrap().done.finished()
        }
    }

    const fn block(seed: u64) -> Job {
        Job::Block(seed, NonZeroU32::MIN)
    }

    #[test]
    fn equal_jobs_are_done_once_and_only_for_proven_clients() {
        let held = Held::new(100);
        let mut desk = Desk::new(Box::new(held.clone()));
        assert_eq!(desk.order(FORGED, block(1)), POLLED);
        let first = desk.order(client(1), block(1));
        assert_ne!(first, POLLED);
        assert_eq!(desk.order(client(1), block(1)), first);
        assert_eq!(desk.order(FORGED, block(1)), first, "under way anyway");
        assert_ne!(desk.order(client(1), block(2)), first);
        assert_eq!(
            (desk.pending(), desk.poll_ready(), held.count()),
            (2, None, 2)
        );
    }

    #[test]
    fn a_done_job_makes_its_requests_ready_once() {
        let mut desk = Desk::new(Box::<InlineWorkers>::default());
        let ticket = desk.order(FORGED, block(1));
        assert_eq!(desk.poll_ready(), None, "not collected");
        assert!(matches!(
            desk.finished(),
            Some((_, Outcome::Block(_), true))
        ));
        assert_eq!(desk.poll_ready(), Some(ticket));
        assert_eq!((desk.poll_ready(), desk.pending()), (None, 0));
    }

    #[test]
    fn a_flood_delays_another_client_by_few_jobs() {
        let held = Held::new(100);
        let mut desk = Desk::new(Box::new(held.clone()));
        // More than fit: the rest is asked again.
        let flood: Vec<_> = (0..1000)
            .map(|seed| desk.order(client(1), block(seed)))
            .collect();
        let taken = flood.iter().filter(|ticket| **ticket != POLLED).count();
        assert_eq!(taken, MAX_STARTED + MAX_JOBS);
        assert_eq!(held.count(), MAX_STARTED);
        for honest in 2..=4 {
            for n in 0..3 {
                let seed = u64::from(honest) * 10_000 + n;
                assert_ne!(desk.order(client(honest), block(seed)), POLLED);
            }
        }
        assert!(desk.pending() <= MAX_STARTED + MAX_JOBS);
        // The requests of the jobs that gave way ask again.
        let evicted: Vec<_> = core::iter::from_fn(|| desk.poll_ready()).collect();
        assert_eq!(evicted.len(), 9);
        assert!(evicted.iter().all(|ticket| flood.contains(ticket)));
        let mut done = Vec::new();
        for _ in 0..MAX_STARTED + 16 {
            done.extend(held.work());
            assert!(desk.finished().is_some());
        }
        let honest = done.iter().rposition(|seed| *seed >= 10_000).unwrap();
        let served = done.iter().filter(|seed| **seed >= 10_000).count();
        assert_eq!(served, 9, "{done:?}");
        assert!(honest < MAX_STARTED + 12, "{done:?}");
    }

    #[test]
    fn a_job_that_a_flood_has_ordered_before_counts_for_whoever_has_fewer() {
        let held = Held::new(100);
        let mut desk = Desk::new(Box::new(held.clone()));
        for seed in 0..100 {
            desk.order(client(1), block(seed));
        }
        let ticket = desk.order(client(2), block(99));
        let mut done = Vec::new();
        for _ in 0..=MAX_STARTED {
            done.extend(held.work());
            desk.finished();
        }
        assert!(done.contains(&99), "{done:?}");
        assert!(core::iter::from_fn(|| desk.poll_ready()).any(|ready| ready == ticket));
    }

    #[test]
    fn a_fair_queue_refuses_who_has_most_and_equals() {
        let held = Held::new(0);
        let mut desk = Desk::new(Box::new(held.clone()));
        for seed in 0..MAX_JOBS as u64 {
            let of = if seed % 2 == 0 { 1 } else { 2 };
            assert_ne!(desk.order(client(of), block(seed)), POLLED);
        }
        assert_eq!(desk.order(client(1), block(9999)), POLLED);
        assert_ne!(desk.order(client(3), block(9999)), POLLED);
        assert_eq!(desk.pending(), MAX_JOBS);
        // Workers that were full get jobs with the next outcome.
        held.0.lock().unwrap().most = 1;
        held.0.lock().unwrap().done.start(block(1));
        desk.finished().unwrap();
        assert_eq!((held.count(), desk.pending()), (1, MAX_JOBS - 1));
    }
}
