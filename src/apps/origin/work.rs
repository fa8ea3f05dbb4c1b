//! Work that may wait for a disk or take long, which the loop leaves to others.
//!
//! In: jobs, for clients with a proven address only. Out: their outcomes, and the tickets of requests
//! that wait for them. The queues are bounded, one for each kind of job, so that slow ones do not
//! displace others; a job that two requests need is done once.

use core::num::NonZeroU32;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::apps::origin::digest::{self, Stamp};
use crate::apps::origin::digest_store::DigestStore;
use crate::apps::origin::dynamic;
use crate::apps::origin::load::{self, Loaded};
use crate::apps::origin::object::Object;
use crate::apps::origin::tree::{Refusal, Tree};
use crate::transport::application::Ticket;
use crate::wire::payload::Shared;

/// Most jobs of a kind that are queued, being done, or done and not collected.
pub const MAX_JOBS: usize = 128;

/// Nothing wakes the requests with this ticket: their clients ask again.
pub const POLLED: Ticket = Ticket(0);

/// The kind of object that a path is to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Want {
    /// A regular file.
    File,
    /// The page of a directory.
    Page,
    /// A directory: its index, or else its page.
    Directory,
    /// The first bytes, of this number, of a file that has grown since.
    Prefix(u64),
}

/// A path below the root to look up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Look {
    /// The path.
    pub path: Vec<u8>,
    /// The kind of object that it is to name.
    pub want: Want,
}

/// A piece of work.
#[derive(Clone, Debug)]
pub enum Job {
    /// Walks a path, opens the file or lists the directory, and digests small files.
    Look(Arc<Tree>, Look),
    /// Reads a window of a file into the page cache.
    Warm(Arc<Object>, u64),
    /// Digests a file.
    Digest(Arc<Object>),
    /// Generates the block of a periodic object.
    Block(u64, NonZeroU32),
}

/// Identifies a job: requests that need equal ones wait for the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobKey {
    /// Of [`Job::Look`].
    Look(Look),
    /// Of [`Job::Warm`]: the address of the object, which the job holds.
    Warm(usize, u64),
    /// Of [`Job::Digest`].
    Digest(Stamp),
    /// Of [`Job::Block`].
    Block(u64, NonZeroU32),
}

/// The kinds of jobs: each has a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// Lists directories.
    List,
    /// Looks files up.
    Look,
    /// Reads windows and generates blocks.
    Read,
    /// Digests files: takes longest.
    Digest,
}

impl JobKind {
    /// Those that take little time, in turns.
    pub const SHORT: [Self; 3] = [Self::Look, Self::Read, Self::List];
}

/// The result of a job.
#[derive(Debug)]
pub enum Outcome {
    /// Of [`Job::Look`].
    Looked(Result<Loaded, Refusal>),
    /// Of [`Job::Warm`] and [`Job::Digest`]: the object has it.
    Done,
    /// Of [`Job::Digest`]: the file has changed, or cannot be read.
    Failed,
    /// Of [`Job::Block`].
    Block(Shared),
}

/// The surroundings of a job.
pub struct Surroundings<'a> {
    /// Returns the age of a file's last change in nanoseconds.
    pub age: &'a dyn Fn(&Stamp) -> u64,
    /// Called between the blocks of a long job, which stops early if it returns false.
    pub go_on: &'a mut dyn FnMut() -> bool,
    /// The digests known.
    pub digests: &'a Mutex<DigestStore>,
}

impl Surroundings<'_> {
    /// Whether a file's last change is old enough that any later change will alter its stamp.
    #[must_use]
    pub fn is_settled(&self, stamp: &Stamp) -> bool {
        (self.age)(stamp) >= stamp.settles_after()
    }

    /// Locks the digests; consistent even after a panic, since each change is a single step.
    pub fn digests(&self) -> MutexGuard<'_, DigestStore> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// Identifies the job.
    #[must_use]
    pub fn key(&self) -> JobKey {
        match self {
            Self::Look(_, look) => JobKey::Look(look.clone()),
            Self::Warm(object, window) => JobKey::Warm(Arc::as_ptr(object).addr(), *window),
            Self::Digest(object) => JobKey::Digest(*object.stamp()),
            Self::Block(seed, period) => JobKey::Block(*seed, *period),
        }
    }

    /// The queue of the job.
    #[must_use]
    pub const fn kind(&self) -> JobKind {
        match self {
            Self::Look(_, look) => match look.want {
                Want::File => JobKind::Look,
                Want::Page | Want::Directory => JobKind::List,
                Want::Prefix(_) => JobKind::Digest,
            },
            Self::Warm(..) | Self::Block(..) => JobKind::Read,
            Self::Digest(_) => JobKind::Digest,
        }
    }

    /// Does the work.
    pub fn run(self, with: &mut Surroundings<'_>) -> Outcome {
        match self {
            Self::Look(tree, look) => Outcome::Looked(load::look(&tree, &look, with)),
            Self::Warm(object, window) => {
                object.warm_up(window, with.go_on);
                Outcome::Done
            }
            Self::Digest(object) => digest_of(&object, with),
            Self::Block(seed, period) => Outcome::Block(dynamic::block(seed, period)),
        }
    }
}

fn digest_of(object: &Object, with: &mut Surroundings<'_>) -> Outcome {
    let Some(file) = object.file() else {
        return Outcome::Done;
    };
    let known = with.digests().get(object.stamp());
    let digest = match known {
        Some(digest) => digest,
        None => match digest::hash_file(file, object.stamp(), with.go_on) {
            Ok(Some(digest)) => digest,
            Ok(None) => return Outcome::Failed,
            Err(error) => {
                log::warn!("cannot digest a file: {error}");
                object.set_unreadable();
                return Outcome::Failed;
            }
        },
    };
    with.digests().insert(*object.stamp(), digest);
    object.set_digest(digest);
    Outcome::Done
}

/// Those who do the work.
pub trait Workers: Send {
    /// Starts a job; returns false if its queue is full. Never blocks, except in implementations for
    /// tests.
    fn start(&mut self, job: Job) -> bool;

    /// Returns the next outcome. Looks without an order are welcome: they make files known.
    fn finished(&mut self) -> Option<(JobKey, Outcome)>;

    /// Whether `start` does the work, and takes its time.
    fn is_immediate(&self) -> bool {
        false
    }
}

/// Does each job at once, and treats every stamp as settled: for tests, simulations, and programs whose
/// files are few, small and immutable.
#[derive(Debug, Default)]
pub struct InlineWorkers {
    done: VecDeque<(JobKey, Outcome)>,
    digests: Mutex<DigestStore>,
}

impl Workers for InlineWorkers {
    fn start(&mut self, job: Job) -> bool {
        let key = job.key();
        let outcome = job.run(&mut Surroundings {
            age: &|_| u64::MAX,
            go_on: &mut || true,
            digests: &self.digests,
        });
        self.done.push_back((key, outcome));
        true
    }

    fn finished(&mut self) -> Option<(JobKey, Outcome)> {
        self.done.pop_front()
    }

    fn is_immediate(&self) -> bool {
        true
    }
}

/// The jobs under way, and the tickets of the requests that wait for them.
pub struct Desk {
    workers: Box<dyn Workers>,
    pending: BTreeMap<JobKey, Ticket>,
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
            ready: VecDeque::new(),
            last: POLLED.0,
        }
    }

    /// Returns the ticket of a job, which is started unless it is under way; [`POLLED`] if its queue is
    /// full, or if it must not be started because the client is not `proven`.
    pub fn order(&mut self, proven: bool, job: Job) -> Ticket {
        let key = job.key();
        if let Some(&ticket) = self.pending.get(&key) {
            return ticket;
        }
        if !(proven || self.workers.is_immediate()) || !self.workers.start(job) {
            return POLLED;
        }
        self.last += 1;
        let ticket = Ticket(self.last);
        self.pending.insert(key, ticket);
        ticket
    }

    /// Returns the next outcome, whose requests are ready, and whether it was ordered.
    pub fn finished(&mut self) -> Option<(JobKey, Outcome, bool)> {
        let (key, outcome) = self.workers.finished()?;
        let ticket = self.pending.remove(&key);
        self.ready.extend(ticket);
        Some((key, outcome, ticket.is_some()))
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
    use super::*;

    /// Takes a number of jobs, and does none.
    struct Idle(usize);

    impl Workers for Idle {
        fn start(&mut self, _job: Job) -> bool {
            let free = self.0 > 0;
            self.0 = self.0.saturating_sub(1);
            free
        }

        fn finished(&mut self) -> Option<(JobKey, Outcome)> {
            None
        }
    }

    #[test]
    fn equal_jobs_are_done_once_and_only_for_proven_clients() {
        let mut desk = Desk::new(Box::new(Idle(2)));
        let block = |seed| Job::Block(seed, NonZeroU32::MIN);
        assert_eq!(desk.order(false, block(1)), POLLED);
        let first = desk.order(true, block(1));
        assert_ne!(first, POLLED);
        assert_eq!(desk.order(true, block(1)), first);
        assert_eq!(desk.order(false, block(1)), first, "under way anyway");
        assert_ne!(desk.order(true, block(2)), first);
        assert_eq!(desk.order(true, block(3)), POLLED, "the queue is full");
        assert_eq!((desk.pending(), desk.poll_ready()), (2, None));
    }

    #[test]
    fn a_done_job_makes_its_requests_ready_once() {
        let mut desk = Desk::new(Box::<InlineWorkers>::default());
        let ticket = desk.order(false, Job::Block(1, NonZeroU32::MIN));
        assert_eq!(desk.poll_ready(), None, "not collected");
        assert!(matches!(
            desk.finished(),
            Some((_, Outcome::Block(_), true))
        ));
        assert_eq!(desk.poll_ready(), Some(ticket));
        assert_eq!((desk.poll_ready(), desk.pending()), (None, 0));
    }
}
