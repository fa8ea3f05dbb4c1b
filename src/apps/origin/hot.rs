//! Hot content: files that are asked for again and again, whole in memory.
//!
//! In: which file each response is about. Out: the content of one version of it, to be sent from
//! where it lies, which saves the copy out of the page cache. A content is of the version that the
//! stamp names: it was read as a whole, and the stamp was the same afterwards. Nobody changes it in
//! memory, so no reader can meet a mixture; whether the file is still that version is for the
//! reader to check. What lies here depends on the files and on how often each was asked for, never on
//! who asked: as many clients as like share one content.
//!
//! Who stays is decided by frequency (the most asked for; the last asked for among equals), and counts
//! are halved from time to time so that old fame passes. A content gives way only to a file that was
//! asked for more often, so files that take turns do not drive each other out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use memmap2::{Advice, Mmap, MmapMut};

use crate::apps::origin::digest::{BLOCK_BYTES, Stamp};
use crate::apps::origin::files::{MAX_SMALL_BYTES, Object};
use crate::wire::payload::Shared;

/// Most bytes of content kept, if nothing else is asked for.
pub const MAX_HOT_BYTES: u64 = 512 << 20;

/// Most files of which is counted how often they are asked for.
pub const MAX_COUNTED_FILES: usize = 1024;

/// Most files that are being read at a time.
pub const MAX_LOADING: usize = 8;

/// Smallest file worth keeping here, in bytes: a flight. The bytes of smaller ones are with the open
/// file.
pub const MIN_HOT_BYTES: u64 = MAX_SMALL_BYTES + 1;

/// How often a file has been asked for when it is read into memory: whoever comes once leaves nothing
/// behind.
pub const ASKS_TO_LOAD: u32 = 2;

/// Responses after which all counts are halved.
pub const HALVING_PERIOD: u64 = 1024;

/// A file to be read as a whole.
#[derive(Clone, Debug)]
pub struct Job {
    /// What it is known by.
    pub path: Vec<u8>,
    /// The open file.
    pub file: Arc<File>,
    /// The version that is meant.
    pub stamp: Stamp,
}

/// What has become of a [`Job`].
#[derive(Debug)]
pub struct Loaded {
    path: Vec<u8>,
    stamp: Stamp,
    /// `None`: it is no longer that version, or cannot be read.
    content: Option<Shared>,
}

impl Job {
    /// Reads the file; `go_on`, asked once every [`BLOCK_BYTES`], may end it early.
    pub fn run(self, go_on: &mut dyn FnMut() -> bool) -> Loaded {
        let content = read_whole(&self.file, &self.stamp, go_on);
        if let Err(error) = &content {
            log::warn!("cannot keep a file in memory: {error}");
        }
        Loaded {
            path: self.path,
            stamp: self.stamp,
            content: content.ok().flatten(),
        }
    }
}

/// Memory that is mapped for a content alone: it goes back to the system with it.
struct Mapped(Mmap);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The content of a file; `None` if it is no longer in the state of `stamp`, or `go_on` says no.
fn read_whole(
    file: &File,
    stamp: &Stamp,
    go_on: &mut dyn FnMut() -> bool,
) -> io::Result<Option<Shared>> {
    let size = usize::try_from(stamp.size).map_err(io::Error::other)?;
    let mut memory = MmapMut::map_anon(size)?;
    // Large pages where the kernel has them: fewer faults now, fewer misses at every flight.
    if let Err(error) = memory.advise(Advice::HugePage) {
        log::debug!("no large pages for content: {error}");
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

/// Reads files while others are served.
pub trait Loader: Send {
    /// Takes a job, of at most [`MAX_LOADING`]; false if it cannot. Never waits, unless it is an
    /// implementation for tests.
    fn load(&mut self, job: Job) -> bool;

    /// What has become of the next job that is done.
    fn loaded(&mut self) -> Option<Loaded>;
}

/// Reads every file at once: for tests, and where nothing waits.
#[derive(Debug, Default)]
pub struct InlineLoader(Vec<Loaded>);

impl InlineLoader {
    /// Takes a job, with `go_on` asked in the course of it.
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

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HotCounters {
    /// Bytes staged for flights out of hot content.
    pub staged_bytes: u64,
    /// Contents read into memory.
    pub loads: u64,
    /// Contents that gave way to others.
    pub evictions: u64,
}

#[derive(Debug)]
enum EntryState {
    Counted,
    Loading,
    Here(Shared),
}

/// A file that was asked for.
#[derive(Debug)]
struct Known {
    stamp: Stamp,
    asks: u32,
    used: u64,
    state: EntryState,
}

impl Known {
    /// The lower, the less it is worth.
    const fn worth(&self) -> (u32, u64) {
        (self.asks, self.used)
    }
}

/// Hot content of a bounded size.
pub struct Hot {
    most: u64,
    /// Bytes of contents that are here or being read; at most `most`.
    bytes: u64,
    loading: usize,
    known: BTreeMap<Vec<u8>, Known>,
    loader: Box<dyn Loader>,
    /// Counts responses.
    clock: u64,
    counters: HotCounters,
}

impl Hot {
    /// Room for `most` bytes of content, which `loader` reads.
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

    /// None.
    #[must_use]
    pub fn none() -> Self {
        Self::new(0, Box::<InlineLoader>::default())
    }

    /// Bytes of contents that are here or being read.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of contents that are here.
    #[must_use]
    pub fn files(&self) -> usize {
        let here = |known: &&Known| matches!(known.state, EntryState::Here(_));
        self.known.values().filter(here).count()
    }

    /// What has happened since the start.
    #[must_use]
    pub const fn counters(&self) -> &HotCounters {
        &self.counters
    }

    /// Takes note that `bytes` were staged out of a content.
    pub const fn staged(&mut self, bytes: u64) {
        self.counters.staged_bytes += bytes;
    }

    /// Takes note that a response about `object`, the file at `path`, begins.
    pub fn ask(&mut self, path: &[u8], object: &Object) {
        self.collect();
        let Some(file) = object.file() else { return };
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
        });
        (known.stamp, known.used) = (stamp, used);
        known.asks = known.asks.saturating_add(1);
        let worth = known.asks;
        if matches!(known.state, EntryState::Counted)
            && worth >= ASKS_TO_LOAD
            && self.loading < MAX_LOADING
            && self.make_room(stamp.size, worth)
        {
            self.load(Job {
                path: path.to_vec(),
                file: Arc::clone(file),
                stamp,
            });
        }
        if self.known.len() > MAX_COUNTED_FILES {
            self.forget_least(path);
        }
    }

    /// The content of that version of the file at `path`, if it is here.
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

    /// Lets go of what is here of a file that has changed.
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

    /// Takes in what has been read.
    fn collect(&mut self) {
        while let Some(loaded) = self.loader.loaded() {
            self.loading -= 1;
            // What is being read is never forgotten.
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

    /// Makes room for `size` bytes of a file that was asked for `asks` times, if it is worth more
    /// than what must go for it.
    fn make_room(&mut self, size: u64, asks: u32) -> bool {
        let mut missing = (self.bytes + size).saturating_sub(self.most);
        let is_lesser =
            |known: &Known| matches!(known.state, EntryState::Here(_)) && known.asks < asks;
        let lesser = || self.known.iter().filter(|(_, known)| is_lesser(known));
        // Where all is worth more, every response about such a file comes this far: no copies yet.
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

    /// Forgets the file that is worth least, but for the one at `path` and those being read.
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
