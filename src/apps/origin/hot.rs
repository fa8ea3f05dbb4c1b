//! Hot content: popular files, complete in memory.
//!
//! In: the file of each response. Out: the content of one version of it, sent from memory without a
//! copy from the page cache. A content matches its stamp: it was read as a whole, and the stamp was
//! unchanged afterwards. It is immutable in memory, so no reader can see a mixture; the reader must
//! check whether the file still is that version. The cache depends on the files and on their request
//! counts, never on clients: any number of clients share one content.
//!
//! Eviction is by frequency (least frequently, then least recently requested), with counts halved
//! periodically so that they age. Only a more popular file evicts a content, so files requested in
//! turns do not evict each other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use memmap2::{Advice, Mmap, MmapMut};

use crate::apps::origin::digest::{BLOCK_BYTES, Stamp};
use crate::apps::origin::load::MAX_SMALL_BYTES;
use crate::apps::origin::object::Object;
use crate::wire::payload::Shared;

/// Default size of the cache in bytes.
pub const MAX_HOT_BYTES: u64 = 512 << 20;

/// Most files with a request count.
pub const MAX_COUNTED_FILES: usize = 1024;

/// Most files being read at a time.
pub const MAX_LOADING: usize = 8;

/// Smallest file in the cache, in bytes: a flight. Smaller ones are cached with their open file.
pub const MIN_HOT_BYTES: u64 = MAX_SMALL_BYTES + 1;

/// Requests after which a file is read into memory: a single request leaves nothing behind.
pub const ASKS_TO_LOAD: u32 = 2;

/// Responses after which all counts are halved.
pub const HALVING_PERIOD: u64 = 1024;

/// A file to read into memory.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its key in the cache.
    pub path: Vec<u8>,
    /// The open file.
    pub file: Arc<File>,
    /// The expected version.
    pub stamp: Stamp,
}

/// The result of a [`Job`].
#[derive(Debug)]
pub struct Loaded {
    path: Vec<u8>,
    stamp: Stamp,
    /// `None`: the file is of another version, or cannot be read.
    content: Option<Shared>,
}

impl Job {
    /// Reads the file; stops early if `go_on`, called once every [`BLOCK_BYTES`], returns false.
    pub fn run(self, go_on: &mut dyn FnMut() -> bool) -> Loaded {
        let content = read_whole(&self.file, &self.stamp, go_on);
        if let Err(error) = &content {
            log::warn!("cannot load a file into the memory cache: {error}");
        }
        Loaded {
            path: self.path,
            stamp: self.stamp,
            content: content.ok().flatten(),
        }
    }
}

/// Memory mapped for a single content, returned to the system with it.
struct Mapped(Mmap);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Reads a file; `None` if it no longer has `stamp`, or if `go_on` returns false.
fn read_whole(
    file: &File,
    stamp: &Stamp,
    go_on: &mut dyn FnMut() -> bool,
) -> io::Result<Option<Shared>> {
    let size = usize::try_from(stamp.size).map_err(io::Error::other)?;
    let mut memory = MmapMut::map_anon(size)?;
    // Huge pages where available: fewer page faults now, fewer TLB misses in each flight.
    if let Err(error) = memory.advise(Advice::HugePage) {
        log::debug!("no huge pages for content: {error}");
    }
    let mut filled = 0;
    while let Some(rest) = memory.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let most = rest.len().min(BLOCK_BYTES);
        let block = rest.get_mut(..most).unwrap_or_default();
        match file.read_at(block, u64::try_from(filled).unwrap_or(u64::MAX)) {
            Ok(0) => return Ok(None),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if !go_on() {
            return Ok(None);
        }
    }
    if Stamp::of(&file.metadata()?) != *stamp {
        return Ok(None);
    }
    Ok(Some(Shared::new(Mapped(memory.make_read_only()?))))
}

/// Reads files in the background.
pub trait Loader: Send {
    /// Starts a job, of at most [`MAX_LOADING`]; returns false if it cannot. Never blocks, except in
    /// implementations for tests.
    fn load(&mut self, job: Job) -> bool;

    /// Returns the result of the next completed job.
    fn loaded(&mut self) -> Option<Loaded>;
}

/// Reads every file immediately: for tests, and callers that may block.
#[derive(Debug, Default)]
pub struct InlineLoader(Vec<Loaded>);

impl InlineLoader {
    /// Runs a job with the given `go_on`.
    pub fn run(&mut self, job: Job, go_on: &mut dyn FnMut() -> bool) -> bool {
        self.0.push(job.run(go_on));
        true
    }
}

impl Loader for InlineLoader {
    fn load(&mut self, job: Job) -> bool {
        self.run(job, &mut || true)
    }

    fn loaded(&mut self) -> Option<Loaded> {
        self.0.pop()
    }
}

/// Counters of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HotCounters {
    /// Bytes staged for flights from hot content.
    pub staged_bytes: u64,
    /// Files read into memory.
    pub loads: u64,
    /// Contents evicted.
    pub evictions: u64,
}

#[derive(Debug)]
enum EntryState {
    Counted,
    Loading,
    Here(Shared),
}

/// A file with a request count.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    asks: u32,
    used: u64,
    state: EntryState,
    /// Whether the next proven client of the file loads it.
    due: bool,
}

impl Known {
    /// The rank for eviction: the lowest goes first.
    const fn worth(&self) -> (u32, u64) {
        (self.asks, self.used)
    }
}

/// A cache of hot content of bounded size.
pub struct Hot {
    most: u64,
    /// Bytes of contents in memory or being read; at most `most`.
    bytes: u64,
    loading: usize,
    known: BTreeMap<Vec<u8>, Known>,
    loader: Box<dyn Loader>,
    /// Counts responses.
    clock: u64,
    counters: HotCounters,
}

impl Hot {
    /// Creates a cache of `most` bytes; `loader` reads files into it.
    #[must_use]
    pub fn new(most: u64, loader: Box<dyn Loader>) -> Self {
        Self {
            most,
            bytes: 0,
            loading: 0,
            known: BTreeMap::new(),
            loader,
            clock: 0,
            counters: HotCounters::default(),
        }
    }

    /// A disabled cache; it holds nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::new(0, Box::<InlineLoader>::default())
    }

    /// Bytes of contents in memory or being read.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of contents in memory.
    #[must_use]
    pub fn files(&self) -> usize {
        let here = |known: &&Known| matches!(known.state, EntryState::Here(_));
        self.known.values().filter(here).count()
    }

    /// The counters since the start.
    #[must_use]
    pub const fn counters(&self) -> &HotCounters {
        &self.counters
    }

    /// Counts `bytes` staged from a content.
    pub const fn staged(&mut self, bytes: u64) {
        self.counters.staged_bytes += bytes;
    }

    /// Counts the start of a response about `object`, the file at `path`, and may load it.
    pub fn ask(&mut self, path: &[u8], object: &Object) {
        self.count(path, object);
        self.load_due(path, object);
    }

    /// Loads the file at `path` if it has been requested often enough. For proven clients only.
    pub fn load_due(&mut self, path: &[u8], object: &Object) {
        let Some(file) = object.file() else { return };
        let stamp = *object.stamp();
        let known = self.known.get_mut(path).filter(|known| known.due);
        let Some(known) = known.filter(|known| known.stamp == stamp) else {
            return;
        };
        known.due = false;
        let worth = known.asks;
        if matches!(known.state, EntryState::Counted)
            && self.loading < MAX_LOADING
            && self.make_room(stamp.size, worth)
        {
            self.load(Job {
                path: path.to_vec(),
                file: Arc::clone(file),
                stamp,
            });
        }
    }

    /// Counts the start of a response about `object`, the file at `path`.
    pub fn count(&mut self, path: &[u8], object: &Object) {
        self.collect();
        if object.file().is_none() || object.size() != object.stamp().size {
            return;
        }
        let stamp = *object.stamp();
        if !(MIN_HOT_BYTES..=self.most).contains(&stamp.size) {
            return;
        }
        self.clock += 1;
        if self.clock.is_multiple_of(HALVING_PERIOD) {
            self.known.values_mut().for_each(|known| known.asks /= 2);
        }
        let used = self.clock;
        if self
            .known
            .get(path)
            .is_some_and(|known| known.stamp != stamp)
        {
            self.drop_content(path);
        }
        let known = self.known.entry(path.to_vec()).or_insert(Known {
            stamp,
            asks: 0,
            used,
            state: EntryState::Counted,
            due: false,
        });
        (known.stamp, known.used) = (stamp, used);
        known.asks = known.asks.saturating_add(1);
        known.due = matches!(known.state, EntryState::Counted) && known.asks >= ASKS_TO_LOAD;
        if self.known.len() > MAX_COUNTED_FILES {
            self.forget_least(path);
        }
    }

    /// Returns the content of this version of the file at `path`, if in memory.
    pub fn content(&mut self, path: &[u8], stamp: &Stamp) -> Option<Shared> {
        if self.loading > 0 {
            self.collect();
        }
        match self.known.get(path) {
            Some(Known {
                stamp: own,
                state: EntryState::Here(content),
                ..
            }) if own == stamp => Some(content.clone()),
            Some(_) | None => None,
        }
    }

    /// Evicts the content of a changed file.
    pub fn drop_content(&mut self, path: &[u8]) {
        if let Some(known) = self.known.get_mut(path)
            && matches!(known.state, EntryState::Here(_))
        {
            known.state = EntryState::Counted;
            self.bytes -= known.stamp.size;
        }
    }

    fn load(&mut self, job: Job) {
        let (path, size) = (job.path.clone(), job.stamp.size);
        if self.loader.load(job)
            && let Some(known) = self.known.get_mut(&path)
        {
            known.state = EntryState::Loading;
            self.bytes += size;
            self.loading += 1;
        }
        self.collect();
    }

    /// Collects the results of completed jobs.
    fn collect(&mut self) {
        while let Some(loaded) = self.loader.loaded() {
            self.loading -= 1;
            // The entry of a job in progress is never removed.
            let known = self.known.get_mut(&loaded.path);
            match (known, loaded.content) {
                (Some(known), Some(content)) if known.stamp == loaded.stamp => {
                    known.state = EntryState::Here(content);
                    self.counters.loads += 1;
                }
                (known, _) => {
                    self.bytes -= loaded.stamp.size;
                    if let Some(known) = known {
                        known.state = EntryState::Counted;
                    }
                }
            }
        }
    }

    /// Makes room for `size` bytes of a file with `asks` requests, if it outranks the contents to
    /// evict.
    fn make_room(&mut self, size: u64, asks: u32) -> bool {
        let mut missing = (self.bytes + size).saturating_sub(self.most);
        let is_lesser =
            |known: &Known| matches!(known.state, EntryState::Here(_)) && known.asks < asks;
        let lesser = || self.known.iter().filter(|(_, known)| is_lesser(known));
        // Under pressure from popular files every response gets here: no allocation yet.
        let yielding: u64 = lesser().map(|(_, known)| known.stamp.size).sum();
        if yielding < missing {
            return false;
        }
        let named =
            |(path, known): (&Vec<u8>, &Known)| (known.worth(), known.stamp.size, path.clone());
        let mut lesser: Vec<_> = lesser().map(named).collect();
        lesser.sort_unstable();
        for (_, size, path) in lesser {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(size);
            self.drop_content(&path);
            self.counters.evictions += 1;
        }
        true
    }

    /// Removes the lowest-ranked file, except the one at `path` and those being read.
    fn forget_least(&mut self, path: &[u8]) {
        let others = self.known.iter().filter(|(other, known)| {
            other.as_slice() != path && !matches!(known.state, EntryState::Loading)
        });
        let least = others.min_by_key(|(_, known)| known.worth());
        if let Some(least) = least.map(|(path, _)| path.clone()) {
            self.drop_content(&least);
            self.known.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests;
