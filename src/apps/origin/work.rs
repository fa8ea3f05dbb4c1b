//! Work that may wait for a disk or take long, which the loop leaves to others.
//!
//! In: jobs, for clients with a proven address only. Out: their outcomes. The queues are bounded, one
//! for each kind of job, so that slow ones do not displace others.

use core::num::NonZeroU32;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::apps::origin::digest::{self, Stamp};
use crate::apps::origin::digest_store::DigestStore;
use crate::apps::origin::dynamic;
use crate::apps::origin::load::{self, Loaded};
use crate::apps::origin::object::Object;
use crate::apps::origin::tree::{Refusal, Tree};
use crate::wire::payload::Shared;

/// Most jobs of a kind that are queued, being done, or done and not collected.
pub const MAX_JOBS: usize = 128;

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
    /// All kinds, in the order of their queues.
    pub const ALL: [Self; 4] = [Self::Look, Self::Read, Self::List, Self::Digest];

    /// Those that take little time, in turns.
    pub const SHORT: [Self; 3] = [Self::Look, Self::Read, Self::List];

    /// The place of its queue.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Look => 0,
            Self::Read => 1,
            Self::List => 2,
            Self::Digest => 3,
        }
    }
}

impl JobKey {
    /// The queue of the job.
    #[must_use]
    pub const fn kind(&self) -> JobKind {
        match self {
            Self::Look(look) => look.kind(),
            Self::Warm(..) | Self::Block(..) => JobKind::Read,
            Self::Digest(_) => JobKind::Digest,
        }
    }
}

impl Look {
    const fn kind(&self) -> JobKind {
        match self.want {
            Want::File => JobKind::Look,
            Want::Page | Want::Directory => JobKind::List,
            Want::Prefix(_) => JobKind::Digest,
        }
    }
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
            Self::Look(_, look) => look.kind(),
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
