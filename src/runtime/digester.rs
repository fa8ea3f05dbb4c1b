//! A thread that digests large files, so that the loop never waits for a disk.
//!
//! In: open files with their stamps, through a bounded queue. Out: digests; the origin polls for
//! them. At start the thread digests the large files below the root in advance; requested files take
//! precedence. It must be a thread: reading a gigabyte takes longer than any packet may wait, and it
//! returns nothing but digests, each a function of a file's content. With a store file the digests
//! survive a restart. Reads the wall clock only to detect files modified just now.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use std::{io, thread};

use rustix::fs::{Mode, OFlags, open};

use crate::apps::origin::digest::{self, DigestProgress, Digester, Sha256, Stamp};
use crate::apps::origin::digest_store::DigestStore;
use crate::apps::origin::files::MAX_INLINE_DIGEST_BYTES;

/// Most files queued for the thread; a file that finds the queue full is requested again later.
pub const MAX_WAITING: usize = 64;

/// Most directory entries examined in advance.
pub const MAX_AHEAD_ENTRIES: usize = 65_536;

/// Most files digested in advance.
pub const MAX_AHEAD_FILES: usize = 1024;

/// Age below which a file may be modified again with an equal time stamp: the coarsest kernel
/// clock ticks every 10 ms.
pub const RACY: Duration = Duration::from_millis(20);

/// The thread, its queue and its results.
#[derive(Debug)]
pub struct ThreadDigester {
    /// `None` only while dropping.
    jobs: Option<SyncSender<Job>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl ThreadDigester {
    /// Starts the thread, which first digests the large files below `root`. `store`: file that
    /// persists the digests, if any.
    ///
    /// # Errors
    /// The operating system's error for the store file or the thread.
    pub fn start(root: &Path, store: Option<PathBuf>) -> io::Result<Self> {
        let known = match &store {
            Some(path) => DigestStore::load(path)?,
            None => DigestStore::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(DigesterState {
                known,
                waiting: BTreeSet::new(),
            }),
            stopped: AtomicBool::new(false),
        });
        let (jobs, queue) = sync_channel(MAX_WAITING);
        let worker = Worker {
            shared: Arc::clone(&shared),
            queue,
            store,
        };
        let root = root.to_path_buf();
        let thread = thread::Builder::new()
            .name("digester".to_owned())
            .spawn(move || worker.run(&root))?;
        Ok(Self {
            jobs: Some(jobs),
            shared,
            thread: Some(thread),
        })
    }
}

impl Digester for ThreadDigester {
    fn settled(&self, stamp: &Stamp) -> bool {
        is_settled(stamp)
    }

    fn digest(&mut self, file: &Arc<File>, stamp: &Stamp) -> DigestProgress {
        let mut state = self.shared.lock();
        if let Some(digest) = state.known.get(stamp) {
            return DigestProgress::Done(digest);
        }
        if state.waiting.contains(stamp) {
            return DigestProgress::Pending;
        }
        let job = Job {
            file: Arc::clone(file),
            stamp: *stamp,
        };
        match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => {
                state.waiting.insert(*stamp);
                DigestProgress::Pending
            }
            Some(Err(TrySendError::Full(_))) => DigestProgress::Pending,
            Some(Err(TrySendError::Disconnected(_))) | None => DigestProgress::Failed,
        }
    }
}

impl Drop for ThreadDigester {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the digester thread panicked");
        }
    }
}

#[derive(Debug)]
struct Job {
    file: Arc<File>,
    stamp: Stamp,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<DigesterState>,
    stopped: AtomicBool,
}

#[derive(Debug)]
struct DigesterState {
    known: DigestStore,
    /// Stamps of the queued jobs and the current one: at most `MAX_WAITING` and one.
    waiting: BTreeSet<Stamp>,
}

impl Shared {
    /// Locks the state; it is consistent even after a panic, since each change is a single step.
    fn lock(&self) -> MutexGuard<'_, DigesterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_running(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }
}

struct Worker {
    shared: Arc<Shared>,
    queue: Receiver<Job>,
    store: Option<PathBuf>,
}

impl Worker {
    fn run(&self, root: &Path) {
        self.digest_ahead(root);
        while let Ok(job) = self.queue.recv() {
            self.work(&job);
        }
    }

    /// Digests a requested file.
    fn work(&self, job: &Job) {
        let digest = digest::hash_file(&job.file, &job.stamp, &mut || self.shared.is_running());
        match digest {
            Ok(Some(digest)) => self.keep(job.stamp, digest),
            // The file has changed or the thread must stop; the origin requests it again if necessary.
            Ok(None) => {}
            Err(error) => log::warn!("cannot digest a file: {error}"),
        }
        self.shared.lock().waiting.remove(&job.stamp);
    }

    /// Digests the large files below `root` whose digest is unknown. Does not follow symlinks.
    fn digest_ahead(&self, root: &Path) {
        let mut folders = vec![root.to_path_buf()];
        let (mut entries, mut files) = (0, 0);
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
                } else if metadata.is_file() && metadata.len() > MAX_INLINE_DIGEST_BYTES {
                    files += 1;
                    self.digest_one_ahead(&entry.path());
                }
                if !self.shared.is_running() {
                    return;
                }
            }
        }
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
        if self.shared.lock().known.get(&stamp).is_some() || !is_settled(&stamp) {
            return;
        }
        let mut go_on = || {
            // Requested files first: a client waits for these.
            while let Ok(job) = self.queue.try_recv() {
                if job.stamp == stamp {
                    continue;
                }
                self.work(&job);
            }
            self.shared.is_running()
        };
        if let Ok(Some(digest)) = digest::hash_file(&file, &stamp, &mut go_on) {
            self.keep(stamp, digest);
        }
        self.shared.lock().waiting.remove(&stamp);
    }

    fn keep(&self, stamp: Stamp, digest: Sha256) {
        let mut state = self.shared.lock();
        state.known.insert(stamp, digest);
        let Some(path) = &self.store else { return };
        // Written from a copy, outside the lock, so that the loop does not wait for the disk.
        let known = state.known.clone();
        drop(state);
        if let Err(error) = known.save(path) {
            log::warn!("cannot write the digest store {}: {error}", path.display());
        }
    }
}

/// Whether the last modification is far enough from now, in either direction: after the clock was
/// set back, time stamps in the future cannot repeat.
fn is_settled(stamp: &Stamp) -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "the file system stamps by this very clock"
    )]
    let now = SystemTime::now();
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, nanos);
    now.abs_diff(stamp.changed_ns) >= nanos(RACY).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::apps::origin::Origin;
    use crate::time::UnixMillis;
    use crate::transport::application::{Application, Begun, RequestContext, Unavailable};

    const CONTEXT: RequestContext = RequestContext {
        now: UnixMillis::new(0),
        proven: true,
    };

    const SIZE: u64 = MAX_INLINE_DIGEST_BYTES + 1;

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

    #[test]
    fn a_large_file_is_served_once_its_digest_is_there() {
        let root = root();
        let digester = ThreadDigester::start(root.path(), None).unwrap();
        let mut origin = Origin::new(root.path(), Box::new(digester)).unwrap();
        let begun = begin(&mut origin);
        let mut out = [0; 7];
        let offset = begun.length.unwrap() - SIZE + 1000;
        assert_eq!(origin.read(CONTEXT, &begun.user, offset, &mut out), Ok(7));
        assert_eq!(&out, b"content");
    }

    #[test]
    fn digests_outlive_a_restart() {
        let root = root();
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("digests");
        let stamp = stamp_of(&root.path().join("large"));
        let digester = ThreadDigester::start(root.path(), Some(store.clone())).unwrap();
        // Without a request: digested in advance.
        wait_for(|| DigestStore::load(&store).unwrap().get(&stamp));
        drop(digester);
        let mut again = ThreadDigester::start(root.path(), Some(store.clone())).unwrap();
        let file = Arc::new(File::open(root.path().join("large")).unwrap());
        assert!(
            matches!(again.digest(&file, &stamp), DigestProgress::Done(_)),
            "at the first question"
        );
        assert!(ThreadDigester::start(root.path(), Some(folder.path().to_owned())).is_err());
    }

    #[test]
    fn the_queue_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("endless");
        // Sparse and large enough to occupy the thread for the whole test.
        File::create(&path).unwrap().set_len(1 << 42).unwrap();
        let mut digester = ThreadDigester::start(root.path(), None).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        let stamp = stamp_of(&path);
        for inode in 0..10 * u64::try_from(MAX_WAITING).unwrap() {
            assert_eq!(
                digester.digest(&file, &Stamp { inode, ..stamp }),
                DigestProgress::Pending
            );
        }
        let waiting = digester.shared.lock().waiting.len();
        assert!(
            (MAX_WAITING..=MAX_WAITING + 1).contains(&waiting),
            "{waiting}"
        );
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
}
