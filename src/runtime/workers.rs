//! The threads that do the work of the file server, so that the loop never waits for a disk.
//!
//! In: jobs, through one bounded queue for each kind. Out: their outcomes; a waker interrupts the
//! loop's sleep. One thread does short jobs only, of the kinds in turns; the other one digests files,
//! too, and does short jobs between two blocks. At start it looks a number of small files up, which are
//! then known to the first requests, and digests the large ones, both below the root and in advance;
//! requested files take precedence. A file that changes too quickly is looked at again a
//! little later. With a store file the digests survive a restart. Reads the clocks only to detect
//! files modified just now, and to look at them later.
#![expect(
    clippy::disallowed_methods,
    reason = "the file system stamps by the wall clock; no machine sees this time"
)]
#![expect(
    clippy::disallowed_types,
    reason = "the file system stamps by the wall clock; no machine sees this time"
)]

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use std::{io, thread};

use rustix::fs::{Mode, OFlags, open};

use crate::apps::origin::digest::{self, Sha256, Stamp};
use crate::apps::origin::digest_store::DigestStore;
use crate::apps::origin::load::{MAX_AWAITED_DIGEST_BYTES, MAX_SMALL_BYTES};
use crate::apps::origin::tree::{Refusal, Tree};
use crate::apps::origin::work::{
    Job, JobKey, JobKind, Look, MAX_JOBS, Outcome, Surroundings, Want, Workers,
};
use crate::runtime::LoopWaker;

/// Most directory entries examined in advance.
pub const MAX_AHEAD_ENTRIES: usize = 65_536;

/// Most files digested in advance.
pub const MAX_AHEAD_FILES: usize = 1024;

/// Most small files looked up in advance.
pub const MAX_AHEAD_LOOKS: usize = 64;

/// The pause before the second look at a file that changes too quickly; each further one is twice as
/// long.
pub const FIRST_PAUSE: Duration = Duration::from_millis(25);

/// Most looks at a file that changes too quickly: a file system that stamps by whole seconds needs
/// those of three seconds.
pub const MAX_LOOKS: u32 = 8;

/// The increment of the niceness of the threads (`nice(2)`, which Linux applies to one thread): where cores are
/// short, the loop preempts them as soon as it has a packet. At 10, two busy programs keep them from
/// digesting a file of 20 MB between two appends of a tenth of a second.
const NICENESS: i32 = 3;

/// The threads, their queues and their results.
pub struct ThreadWorkers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// Sets the waker of the loop that takes the outcomes.
#[derive(Clone)]
pub struct Waking(Arc<Shared>);

impl Waking {
    /// Sets the waker, once.
    pub fn set(&self, waker: LoopWaker) {
        if self.0.waker.set(waker).is_err() {
            log::error!("the workers have a loop already");
        }
    }
}

impl ThreadWorkers {
    /// Starts the threads, one of which first digests the large files below `root`. `store`: file that
    /// persists the digests, if any.
    ///
    /// # Errors
    /// The operating system's error for the store file or a thread.
    pub fn start(root: &Path, store: Option<PathBuf>) -> io::Result<Self> {
        let known = match &store {
            Some(path) => DigestStore::load(path)?,
            None => DigestStore::new(),
        };
        let shared = Arc::new(Shared {
            queues: Mutex::default(),
            changed: Condvar::new(),
            finished: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            digests: Mutex::new(known),
            store,
            waker: OnceLock::new(),
        });
        let mut workers = Self {
            shared,
            threads: Vec::new(),
        };
        workers.spawn("looks", |shared| shared.work(Shared::next_short))?;
        let root = root.to_path_buf();
        workers.spawn("digests", move |shared| {
            shared.digest_ahead(&root);
            shared.work(Shared::next_of_any_kind);
        })?;
        Ok(workers)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce(&Shared) + Send + 'static) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let builder = thread::Builder::new().name(name.to_owned());
        let run = move || {
            if let Err(error) = rustix::process::nice(NICENESS) {
                log::debug!("the workers compete with the loop: {error}");
            }
            work(&shared);
        };
        self.threads.push(builder.spawn(run)?);
        Ok(())
    }

    /// Returns a handle to set the waker of the loop. Without one, the outcomes are taken at the loop's
    /// next turn.
    #[must_use]
    pub fn waking(&self) -> Waking {
        Waking(Arc::clone(&self.shared))
    }
}

impl Workers for ThreadWorkers {
    fn start(&mut self, job: Job) -> bool {
        let mut queues = self.shared.lock();
        let Some(queue) = queues.of(job.kind()) else {
            return false;
        };
        if queue.outstanding >= MAX_JOBS {
            return false;
        }
        queue.outstanding += 1;
        queue.waiting.push_back(Task { job, looks: 0 });
        drop(queues);
        self.shared.changed.notify_all();
        true
    }

    fn finished(&mut self) -> Option<(JobKey, Outcome)> {
        if self.shared.finished.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut queues = self.shared.lock();
        let (kind, key, outcome) = queues.finished.pop_front()?;
        if let Some(queue) = queues.of(kind) {
            queue.outstanding -= 1;
        }
        let left = queues.finished.len();
        self.shared.finished.store(left, Ordering::Release);
        Some((key, outcome))
    }
}

impl Drop for ThreadWorkers {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // A thread that is about to sleep holds the lock.
        drop(self.shared.lock());
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a worker thread panicked");
            }
        }
    }
}

/// A job in a queue.
struct Task {
    job: Job,
    /// Looks so far at a file that changes too quickly.
    looks: u32,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Task>,
    /// Jobs waiting, being done, or done and not taken: at most `MAX_JOBS`.
    outstanding: usize,
}

#[derive(Default)]
struct Queues {
    by_kind: [Queue; JobKind::ALL.len()],
    /// Short kinds take turns.
    turn: usize,
    /// Jobs to do later; they count as outstanding.
    later: Vec<(Instant, Task)>,
    finished: VecDeque<(JobKind, JobKey, Outcome)>,
}

impl Queues {
    fn of(&mut self, kind: JobKind) -> Option<&mut Queue> {
        self.by_kind.get_mut(kind.index())
    }

    fn pop_short(&mut self, now: Instant) -> Option<Task> {
        if let Some(due) = self.later.iter().position(|(at, _)| *at <= now) {
            return Some(self.later.swap_remove(due).1);
        }
        for _ in JobKind::SHORT {
            self.turn = (self.turn + 1) % JobKind::SHORT.len();
            let kind = JobKind::SHORT.get(self.turn).copied()?;
            if let Some(task) = self.of(kind)?.waiting.pop_front() {
                return Some(task);
            }
        }
        None
    }

    fn pop_any(&mut self, now: Instant) -> Option<Task> {
        self.pop_short(now)
            .or_else(|| self.of(JobKind::Digest)?.waiting.pop_front())
    }
}

struct Shared {
    queues: Mutex<Queues>,
    changed: Condvar,
    /// The number of outcomes not taken.
    finished: AtomicUsize,
    stopped: AtomicBool,
    digests: Mutex<DigestStore>,
    store: Option<PathBuf>,
    waker: OnceLock<LoopWaker>,
}

impl Shared {
    /// Locks the queues; consistent even after a panic, since each change is a single step.
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_running(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    fn next_short(queues: &mut Queues) -> Option<Task> {
        queues.pop_short(Instant::now())
    }

    fn next_of_any_kind(queues: &mut Queues) -> Option<Task> {
        queues.pop_any(Instant::now())
    }

    /// Does jobs until the end.
    fn work(&self, next: fn(&mut Queues) -> Option<Task>) {
        let mut queues = self.lock();
        while self.is_running() {
            let Some(task) = next(&mut queues) else {
                let now = Instant::now();
                let due = queues.later.iter().map(|(at, _)| *at).min();
                let pause = due.map_or(Duration::MAX, |at| at.saturating_duration_since(now));
                let waited = self.changed.wait_timeout(queues, pause.min(LONGEST_SLEEP));
                queues = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            };
            drop(queues);
            self.run(task);
            queues = self.lock();
        }
    }

    /// Does a job; between the blocks of one that takes long, the short ones that wait.
    fn run(&self, task: Task) {
        let kind = task.job.kind();
        let long = kind == JobKind::Digest;
        let mut go_on = || {
            while long && self.is_running() {
                let next = self.lock().pop_short(Instant::now());
                let Some(next) = next else { break };
                self.run_short(next);
            }
            self.is_running()
        };
        self.run_with(task, &mut go_on);
        if long {
            self.save();
        }
    }

    fn run_short(&self, task: Task) {
        self.run_with(task, &mut || self.is_running());
    }

    fn run_with(&self, task: Task, go_on: &mut dyn FnMut() -> bool) {
        let (key, kind) = (task.job.key(), task.job.kind());
        let again = task.job.clone();
        let outcome = task.job.run(&mut Surroundings {
            age: &age_ns,
            go_on,
            digests: &self.digests,
        });
        let looks = task.looks + 1;
        let mut queues = self.lock();
        if matches!(outcome, Outcome::Looked(Err(Refusal::Unsettled))) && looks < MAX_LOOKS {
            let pause = FIRST_PAUSE * 2_u32.pow(looks - 1);
            let task = Task { job: again, looks };
            queues.later.push((Instant::now() + pause, task));
            drop(queues);
            self.changed.notify_all();
            return;
        }
        let first = queues.finished.is_empty();
        queues.finished.push_back((kind, key, outcome));
        let count = queues.finished.len();
        self.finished.store(count, Ordering::Release);
        drop(queues);
        if let Some(waker) = self.waker.get().filter(|_| first) {
            waker.wake();
        }
    }

    /// Digests the large files below `root` whose digest is unknown. Does not follow symlinks.
    fn digest_ahead(&self, root: &Path) {
        let mut folders = vec![root.to_path_buf()];
        let tree = Tree::open(root).ok().map(Arc::new);
        let (mut entries, mut files, mut looks) = (0, 0, 0);
        while let Some(folder) = folders.pop() {
            // Unreadable entries are digested on request.
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                entries += 1;
                if entries > MAX_AHEAD_ENTRIES || files >= MAX_AHEAD_FILES {
                    return;
                }
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else if metadata.is_file() && metadata.len() > MAX_AWAITED_DIGEST_BYTES {
                    files += 1;
                    self.digest_one_ahead(&entry.path());
                } else if metadata.is_file()
                    && metadata.len() <= MAX_SMALL_BYTES
                    && looks < MAX_AHEAD_LOOKS
                    && let Some(tree) = &tree
                    && let Ok(path) = entry.path().strip_prefix(root)
                {
                    looks += 1;
                    self.look_ahead(tree, path, &Stamp::of(&metadata));
                }
                if !self.do_waiting() {
                    return;
                }
            }
        }
    }

    /// Looks a small file up, a little later if it was written just now.
    fn look_ahead(&self, tree: &Arc<Tree>, path: &Path, stamp: &Stamp) {
        let look = Look {
            path: path.as_os_str().as_bytes().to_vec(),
            want: Want::File,
        };
        let job = Job::Look(Arc::clone(tree), look);
        let kind = job.kind();
        let task = Task {
            job,
            looks: MAX_LOOKS,
        };
        let mut queues = self.lock();
        let Some(queue) = queues.of(kind).filter(|queue| queue.outstanding < MAX_JOBS) else {
            return;
        };
        queue.outstanding += 1;
        if is_settled(stamp) {
            drop(queues);
            self.run_short(task);
        } else {
            queues.later.push((Instant::now() + FIRST_PAUSE, task));
            drop(queues);
            self.changed.notify_all();
        }
    }

    /// Does the jobs that wait; returns whether to go on.
    fn do_waiting(&self) -> bool {
        while self.is_running() {
            let next = self.lock().pop_any(Instant::now());
            let Some(task) = next else { return true };
            self.run(task);
        }
        false
    }

    fn digest_one_ahead(&self, path: &Path) {
        // Does not block, even if a FIFO has replaced the file since.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let Ok(file) = open(path, flags, Mode::empty()).map(File::from) else {
            return;
        };
        let Ok(stamp) = file.metadata().map(|metadata| Stamp::of(&metadata)) else {
            return;
        };
        if self.digests().get(&stamp).is_some() || !is_settled(&stamp) {
            return;
        }
        if let Ok(Some(digest)) = digest::hash_file(&file, &stamp, &mut || self.do_waiting()) {
            self.keep(stamp, digest);
        }
    }

    fn keep(&self, stamp: Stamp, digest: Sha256) {
        self.digests().insert(stamp, digest);
        self.save();
    }

    fn digests(&self) -> MutexGuard<'_, DigestStore> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self) {
        let Some(path) = &self.store else { return };
        // Written from a copy, outside the lock, so that no look waits for the disk.
        let known = self.digests().clone();
        if let Err(error) = known.save(path) {
            log::warn!("cannot write the digest store {}: {error}", path.display());
        }
    }
}

/// The longest sleep of a thread without a job.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// Returns the distance of the last change from now, in either direction: after the clock was set back,
/// time stamps in the future cannot repeat.
fn age_ns(stamp: &Stamp) -> u64 {
    let now = SystemTime::now();
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, nanos);
    now.abs_diff(stamp.changed_ns)
}

fn is_settled(stamp: &Stamp) -> bool {
    age_ns(stamp) >= stamp.settles_after()
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU32;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::apps::origin::Origin;
    use crate::apps::origin::object::Object;
    use crate::time::UnixMillis;
    use crate::transport::application::{
        Application, Begun, RequestContext, StreamPart, Unavailable,
    };

    const CONTEXT: RequestContext = RequestContext {
        now: UnixMillis::new(0),
        proven: true,
        source: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    };

    const SIZE: u64 = 5 << 20;

    /// Creates a root with one large, settled file.
    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("large");
        let file = File::create(&path).unwrap();
        file.set_len(SIZE).unwrap();
        file.write_all_at(b"content", 1000).unwrap();
        wait_for(|| is_settled(&stamp_of(&path)).then_some(()));
        root
    }

    fn stamp_of(path: &Path) -> Stamp {
        Stamp::of(&fs::metadata(path).unwrap())
    }

    /// Polls like a client; the bound only keeps a broken build from hanging.
    fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> T {
        for _ in 0..20_000 {
            if let Some(answer) = ask() {
                return answer;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        panic!("no answer");
    }

    fn begin(origin: &mut Origin) -> Begun {
        let request = b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n";
        wait_for(|| match origin.begin(CONTEXT, request) {
            Ok(begun) => Some(begun),
            Err(error) => {
                assert!(matches!(error, Unavailable::NotReady(_)));
                None
            }
        })
    }

    /// Asks for the outcome of a job.
    fn outcome(workers: &mut ThreadWorkers) -> (JobKey, Outcome) {
        wait_for(|| workers.finished())
    }

    #[test]
    fn a_large_file_is_served_before_its_digest_is_there() {
        let root = root();
        let workers = ThreadWorkers::start(root.path(), None).unwrap();
        let mut origin = Origin::new(root.path(), Box::new(workers)).unwrap();
        let begun = begin(&mut origin);
        let mut out = [0; 7];
        let offset = begun.length.unwrap() - SIZE + 1000;
        let read = wait_for(|| {
            match origin.read(StreamPart::new(CONTEXT, &begun.user, offset), &mut out) {
                Err(Unavailable::NotReady(_)) => None,
                other => Some(other),
            }
        });
        assert_eq!(read, Ok(7));
        assert_eq!(&out, b"content");
    }

    #[test]
    fn small_files_are_known_before_the_first_request() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("folder")).unwrap();
        for name in ["index.html", "folder/file"] {
            fs::write(root.path().join(name), name).unwrap();
        }
        // One of them was written just now.
        fs::write(root.path().join("index.html"), "again").unwrap();
        let workers = ThreadWorkers::start(root.path(), None).unwrap();
        let mut origin = Origin::new(root.path(), Box::new(workers)).unwrap();
        let forged = RequestContext {
            proven: false,
            ..CONTEXT
        };
        for path in ["/folder/file", "/"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
            wait_for(|| origin.begin(forged, request.as_bytes()).ok());
        }
        assert_eq!(origin.pending_jobs(), 0);
    }

    #[test]
    fn digests_outlive_a_restart() {
        let root = root();
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("digests");
        let stamp = stamp_of(&root.path().join("large"));
        let workers = ThreadWorkers::start(root.path(), Some(store.clone())).unwrap();
        // Without a request: digested in advance.
        wait_for(|| DigestStore::load(&store).unwrap().get(&stamp));
        drop(workers);
        let again = ThreadWorkers::start(root.path(), Some(store.clone())).unwrap();
        let known = again.shared.digests().get(&stamp);
        assert!(known.is_some(), "at the first question");
        assert!(ThreadWorkers::start(root.path(), Some(folder.path().to_owned())).is_err());
    }

    #[test]
    fn the_queues_are_bounded_and_a_full_one_does_not_stop_the_others() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("endless");
        // Sparse and large enough to occupy a thread for the whole test.
        File::create(&path).unwrap().set_len(1 << 42).unwrap();
        let mut workers = ThreadWorkers::start(root.path(), None).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        let stamp = stamp_of(&path);
        let digest = || {
            let object = Object::file_of(Arc::clone(&file), Vec::new(), stamp, stamp.size);
            Job::Digest(Arc::new(object))
        };
        for _ in 0..MAX_JOBS {
            assert!(workers.start(digest()));
        }
        assert!(!workers.start(digest()), "its queue is full");
        for seed in 0..2 * MAX_JOBS as u64 {
            assert!(workers.start(Job::Block(seed, NonZeroU32::MIN)), "{seed}");
            assert!(matches!(outcome(&mut workers).1, Outcome::Block(_)));
        }
    }

    #[test]
    fn outcomes_that_nobody_takes_are_bounded() {
        let root = root();
        let mut workers = ThreadWorkers::start(root.path(), None).unwrap();
        let block = |seed| Job::Block(seed, NonZeroU32::MIN);
        for seed in 0..MAX_JOBS as u64 {
            assert!(workers.start(block(seed)));
        }
        assert!(!workers.start(block(u64::MAX)));
        outcome(&mut workers);
        assert!(workers.start(block(u64::MAX)));
    }

    #[test]
    fn kinds_of_short_jobs_take_turns() {
        let mut queues = Queues::default();
        let tree = Arc::new(Tree::open(root().path()).unwrap());
        for want in [Want::Page, Want::Page, Want::Page, Want::File] {
            let look = Look {
                path: Vec::new(),
                want,
            };
            let job = Job::Look(Arc::clone(&tree), look);
            let kind = job.kind();
            let task = Task { job, looks: 0 };
            queues.of(kind).unwrap().waiting.push_back(task);
        }
        let kinds: Vec<JobKind> = core::iter::from_fn(|| queues.pop_short(Instant::now()))
            .map(|task| task.job.kind())
            .collect();
        let first = kinds.iter().position(|kind| *kind == JobKind::Look);
        assert!(first < Some(2), "{kinds:?}");
        assert_eq!(kinds.len(), 4);
    }

    #[test]
    fn a_file_just_written_is_not_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, b"x").unwrap();
        let stamp = stamp_of(&path);
        let future = Stamp {
            changed_ns: i64::MAX,
            ..stamp
        };
        assert!(is_settled(&future), "a later write has another time");
        wait_for(|| is_settled(&stamp).then_some(()));
    }

    #[test]
    fn stamps_of_whole_seconds_settle_later() {
        let stamp = stamp_of(root().path());
        let second = 1_000_000_000;
        let coarse = Stamp {
            modified_ns: 7 * second,
            changed_ns: 8 * second,
            ..stamp
        };
        assert!(coarse.settles_after() > 2_000_000_000);
        let fine = Stamp {
            changed_ns: 8 * second + 1,
            ..coarse
        };
        assert!(fine.settles_after() < 100_000_000);
    }
}
