//! Known files and pages: a bounded cache, and the loop's side of every look at the file system.
//!
//! In: paths below the root. Out: [`Object`]s, if the kernel has in memory that a path still names
//! the same file; otherwise the ticket of a job that looks it up. Reads return bytes of exactly one version.
//! The cache may be emptied at any time; nothing in it belongs to a client.

use core::num::NonZeroU32;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::apps::origin::continuation::Tag;
use crate::apps::origin::desk::{Desk, POLLED};
use crate::apps::origin::digest::Stamp;
use crate::apps::origin::dynamic::Blocks;
use crate::apps::origin::load::{Loaded, check_file, index_path};
use crate::apps::origin::object::Object;
use crate::apps::origin::tree::{Peeked, Refusal, Tree};
use crate::apps::origin::work::{Job, JobKey, Look, Outcome, Want, Workers};
use crate::time::UnixMillis;
use crate::transport::application::{RequestContext, Ticket};
use crate::wire::payload::Shared;

/// Most files and directory pages cached.
pub const MAX_OPEN_FILES: usize = 128;

/// Most versions cached of files that have grown, or do not come to rest.
pub const MAX_PASSING: usize = 16;

/// Most outcomes of looks that wait for their requests.
pub const MAX_LOOKED: usize = 256;

/// Reads after which the path is resolved again to detect a renamed file. Until then the old file is
/// served consistently.
pub const RECHECK_READS: u32 = 64;

/// Why there is no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The path cannot be served.
    Refused(Refusal),
    /// Not yet: see the ticket.
    Waits(Ticket),
}

/// How recently the path must have been resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// A new response: resolve the path, unless resolved in this very millisecond.
    Now,
    /// A response in progress: a resolution within [`RECHECK_READS`] reads suffices.
    Recent,
}

struct Slot {
    object: Arc<Object>,
    is_page: bool,
    /// Whether an equal stamp means equal content.
    settled: bool,
    /// Time of the last resolution for a new response.
    resolved: Option<UnixMillis>,
    reads: u32,
    used: u64,
}

/// The outcome of a look, for the requests that waited for it.
struct Looked {
    look: Look,
    /// The path of the slot.
    result: Result<Vec<u8>, Refusal>,
    /// The millisecond of the first request after it: those that waited come then.
    at: Option<UnixMillis>,
}

/// An object, and its path.
type Found = (Vec<u8>, Arc<Object>);

/// The knowledge about a path without work.
enum Known {
    Here(Vec<u8>, Arc<Object>),
    Refused(Refusal),
    Unknown,
}

/// The files below one root.
pub struct Files {
    tree: Arc<Tree>,
    slots: BTreeMap<Vec<u8>, Slot>,
    /// Versions of files that have others by now, the latest at the end.
    passing: VecDeque<(Vec<u8>, Arc<Object>)>,
    looked: VecDeque<Looked>,
    blocks: Blocks,
    desk: Desk,
    /// Counts look-ups; orders the slots by last use.
    clock: u64,
    /// The millisecond in which the root's path named the root.
    same_root: Option<UnixMillis>,
    /// Whether the process was out of descriptors.
    gave_way: bool,
    /// Whether that closed a file, so that the look may succeed now.
    freed: bool,
}

impl Files {
    /// Creates a cache without files.
    #[must_use]
    pub fn new(tree: Tree, workers: Box<dyn Workers>) -> Self {
        Self {
            tree: Arc::new(tree),
            slots: BTreeMap::new(),
            passing: VecDeque::new(),
            looked: VecDeque::new(),
            blocks: Blocks::default(),
            desk: Desk::new(workers),
            clock: 0,
            same_root: None,
            gave_way: false,
            freed: false,
        }
    }

    /// Returns the regular file at `path`.
    ///
    /// # Errors
    /// [`Miss`].
    pub fn file(
        &mut self,
        context: RequestContext,
        path: &[u8],
        freshness: Freshness,
    ) -> Result<Arc<Object>, Miss> {
        self.object(context, path, Want::File, freshness)
    }

    /// Returns the page that lists the directory at `path`.
    ///
    /// # Errors
    /// [`Miss`]; `NotFound` if it is a file.
    pub fn page(
        &mut self,
        context: RequestContext,
        path: &[u8],
        freshness: Freshness,
    ) -> Result<Arc<Object>, Miss> {
        self.object(context, path, Want::Page, freshness)
    }

    /// Returns the index of the directory at `path` with its own path, or its page.
    ///
    /// # Errors
    /// [`Miss`].
    pub fn directory(
        &mut self,
        context: RequestContext,
        path: &[u8],
    ) -> Result<(Vec<u8>, bool, Arc<Object>), Miss> {
        self.clock += 1;
        // A page that is fresh for new responses was resolved after its index was not found.
        let index = index_path(path);
        if let Some(object) = self.fresh(context.now, &index, Want::File, Freshness::Now) {
            return Ok((index, false, object));
        }
        if let Some(object) = self.fresh(context.now, path, Want::Page, Freshness::Now) {
            return Ok((path.to_vec(), true, object));
        }
        let (found, object) = self.look_up(context, path, Want::Directory, Freshness::Now)?;
        let is_page = self.slots.get(&found).is_some_and(|slot| slot.is_page);
        Ok((found, is_page, object))
    }

    /// Returns the version with `tag` of a file that is `now`: one in memory, or its first bytes if it has
    /// grown since.
    ///
    /// # Errors
    /// [`Miss`]; `NotFound` if its first `size` bytes are others now.
    pub fn passing(
        &mut self,
        context: RequestContext,
        path: &[u8],
        (tag, size): (&Tag, u64),
        now: &Object,
    ) -> Result<Arc<Object>, Miss> {
        let known = self.passed(path, tag, size);
        if let Some(object) = known.filter(|object| object.check().is_ok()) {
            return Ok(object);
        }
        if size >= now.size() {
            return Err(Miss::Refused(Refusal::NotFound));
        }
        let look = Look {
            path: path.to_vec(),
            want: Want::Prefix(size),
        };
        self.collect();
        let mut ticket = POLLED;
        for _ in 0..2 {
            if let Some(looked) = self.take_looked(&look) {
                looked.map_err(miss)?;
                return match self.passed(path, tag, size) {
                    Some(object) if object.check().is_ok() => Ok(object),
                    // It has grown again.
                    Some(_) => Err(Miss::Waits(self.order(context, &look))),
                    None => Err(Miss::Refused(Refusal::NotFound)),
                };
            }
            ticket = self.order(context, &look);
        }
        Err(Miss::Waits(ticket))
    }

    /// Returns the version with `tag` of a file that has others by now.
    fn passed(&self, path: &[u8], tag: &Tag, size: u64) -> Option<Arc<Object>> {
        let mut passing = self.passing.iter().rev();
        let found = passing.find(|(own, object)| {
            own == path && object.size() == size && object.tag().as_ref() == Some(tag)
        });
        found.map(|(_, object)| Arc::clone(object))
    }

    /// Orders a look.
    fn order(&mut self, context: RequestContext, look: &Look) -> Ticket {
        let job = Job::Look(Arc::clone(&self.tree), look.clone());
        let ticket = self.desk.order(context, job);
        self.collect();
        ticket
    }

    /// Returns the block of a periodic object, or the ticket of the job that generates it.
    ///
    /// # Errors
    /// The ticket.
    pub fn block(
        &mut self,
        context: RequestContext,
        seed: u64,
        period: NonZeroU32,
    ) -> Result<Shared, Ticket> {
        if let Some(block) = self.blocks.get(seed, period) {
            return Ok(block);
        }
        let ticket = self.desk.order(context, Job::Block(seed, period));
        self.collect();
        self.blocks.get(seed, period).ok_or(ticket)
    }

    /// Orders a window of a file.
    pub fn warm(&mut self, context: RequestContext, object: &Arc<Object>, window: u64) -> Ticket {
        let job = Job::Warm(Arc::clone(object), window);
        let ticket = self.desk.order(context, job);
        self.collect();
        ticket
    }

    /// Orders the digest of a file, unless it is known or cannot be computed.
    pub fn digest(&mut self, context: RequestContext, object: &Arc<Object>) -> Option<Ticket> {
        if object.digest().is_some() || object.is_unreadable() {
            return None;
        }
        let job = Job::Digest(Arc::clone(object));
        let ticket = self.desk.order(context, job);
        self.collect();
        (object.digest().is_none() && !object.is_unreadable()).then_some(ticket)
    }

    /// Evicts a path.
    pub fn forget(&mut self, path: &[u8]) {
        self.slots.remove(path);
    }

    /// The number of known files and pages, at most [`MAX_OPEN_FILES`].
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.slots.len()
    }

    /// The number of jobs under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.desk.pending()
    }

    /// Returns the next ticket whose job is done.
    pub fn poll_ready(&mut self) -> Option<Ticket> {
        self.collect();
        self.desk.poll_ready()
    }

    /// Whether the process was out of descriptors since the last call: the caller closes those that it
    /// holds.
    pub const fn take_gave_way(&mut self) -> bool {
        core::mem::replace(&mut self.gave_way, false)
    }

    /// Returns the file or page at `path`.
    fn object(
        &mut self,
        context: RequestContext,
        path: &[u8],
        want: Want,
        freshness: Freshness,
    ) -> Result<Arc<Object>, Miss> {
        self.clock += 1;
        if let Some(object) = self.fresh(context.now, path, want, freshness) {
            return Ok(object);
        }
        let (_, object) = self.look_up(context, path, want, freshness)?;
        Ok(object)
    }

    /// Resolves a path that is not fresh.
    fn look_up(
        &mut self,
        context: RequestContext,
        path: &[u8],
        want: Want,
        freshness: Freshness,
    ) -> Result<Found, Miss> {
        let look = Look {
            path: path.to_vec(),
            want,
        };
        self.collect();
        self.date_looks(context.now);
        if let Some(found) = self.answer(context.now, &look, freshness) {
            return found;
        }
        match self.known(context.now, &look) {
            Known::Here(path, object) => {
                self.resolve(context.now, &path, freshness);
                return Ok((path, object));
            }
            Known::Refused(refusal) => return Err(Miss::Refused(refusal)),
            Known::Unknown => {}
        }
        let ticket = self.order(context, &look);
        self.date_looks(context.now);
        self.answer(context.now, &look, freshness)
            .unwrap_or(Err(Miss::Waits(ticket)))
    }

    /// Returns the file or page at a path that was resolved recently enough.
    fn fresh(
        &mut self,
        now: UnixMillis,
        path: &[u8],
        want: Want,
        freshness: Freshness,
    ) -> Option<Arc<Object>> {
        let slot = self.slots.get_mut(path)?;
        let fresh = match freshness {
            Freshness::Now => slot.resolved == Some(now),
            Freshness::Recent => slot.reads < RECHECK_READS,
        };
        if slot.is_page != (want == Want::Page) || !fresh {
            return None;
        }
        slot.reads += 1;
        slot.used = self.clock;
        Some(Arc::clone(&slot.object))
    }

    /// Answers a look by the outcome of a job, if there is one: for new responses in the millisecond in
    /// which the first asks, for one in progress once.
    fn answer(
        &mut self,
        now: UnixMillis,
        look: &Look,
        freshness: Freshness,
    ) -> Option<Result<Found, Miss>> {
        let index = self
            .looked
            .iter()
            .rposition(|looked| looked.look == *look)?;
        let looked = self.looked.get(index)?;
        let gave_way =
            looked.result == Err(Refusal::NoDescriptors) && core::mem::take(&mut self.freed);
        if gave_way || looked.at != Some(now) {
            self.looked.remove(index);
            return None;
        }
        let result = match freshness {
            Freshness::Now => looked.result.clone(),
            Freshness::Recent => self.looked.remove(index)?.result,
        };
        match result {
            Err(refusal) => Some(Err(miss(refusal))),
            Ok(path) => {
                let object = Arc::clone(&self.slots.get(&path)?.object);
                self.resolve(now, &path, freshness);
                Some(Ok((path, object)))
            }
        }
    }

    /// Limits the outcomes that came since the last request to this millisecond.
    fn date_looks(&mut self, now: UnixMillis) {
        let fresh = self.looked.iter_mut().rev();
        for looked in fresh.take_while(|looked| looked.at.is_none()) {
            looked.at = Some(now);
        }
    }

    fn take_looked(&mut self, look: &Look) -> Option<Result<Vec<u8>, Refusal>> {
        let index = self.looked.iter().position(|looked| looked.look == *look)?;
        Some(self.looked.remove(index)?.result)
    }

    /// Takes note of a resolution.
    fn resolve(&mut self, now: UnixMillis, path: &[u8], freshness: Freshness) {
        if let Some(slot) = self.slots.get_mut(path) {
            slot.resolved = (freshness == Freshness::Now).then_some(now);
            slot.reads = 0;
            slot.used = self.clock;
        }
    }

    /// Looks into the memory of the kernel.
    fn known(&mut self, now: UnixMillis, look: &Look) -> Known {
        if self.same_root != Some(now) {
            if !self.tree.is_same_root() {
                return Known::Unknown;
            }
            self.same_root = Some(now);
        }
        match look.want {
            Want::File => self.known_file(&look.path),
            Want::Page => self.known_page(&look.path),
            Want::Directory => match self.known_file(&index_path(&look.path)) {
                Known::Refused(Refusal::NotFound | Refusal::IsDirectory) => {
                    self.known_page(&look.path)
                }
                known @ (Known::Here(..) | Known::Refused(_) | Known::Unknown) => known,
            },
            Want::Prefix(_) => Known::Unknown,
        }
    }

    fn known_file(&self, path: &[u8]) -> Known {
        match self.tree.peek(path) {
            Peeked::Here(metadata) => match check_file(&metadata) {
                Ok(stamp) => self.known_slot(path, false, &stamp),
                Err(refusal) => Known::Refused(refusal),
            },
            Peeked::Refused(refusal) => Known::Refused(refusal),
            Peeked::Unknown => Known::Unknown,
        }
    }

    fn known_page(&self, path: &[u8]) -> Known {
        match self.tree.peek(path) {
            Peeked::Here(metadata) if metadata.is_dir() => {
                self.known_slot(path, true, &Stamp::of(&metadata))
            }
            Peeked::Here(_) => Known::Refused(Refusal::NotFound),
            Peeked::Refused(refusal) => Known::Refused(refusal),
            Peeked::Unknown => Known::Unknown,
        }
    }

    fn known_slot(&self, path: &[u8], is_page: bool, stamp: &Stamp) -> Known {
        match self.slots.get(path) {
            Some(slot)
                if slot.settled && slot.is_page == is_page && slot.object.stamp() == stamp =>
            {
                Known::Here(path.to_vec(), Arc::clone(&slot.object))
            }
            Some(_) | None => Known::Unknown,
        }
    }

    /// Takes the outcomes of the jobs that are done.
    fn collect(&mut self) {
        while let Some((key, outcome, awaited)) = self.desk.finished() {
            match (key, outcome) {
                (JobKey::Look(look), Outcome::Looked(Ok(loaded))) if !awaited => {
                    self.insert(look.want, loaded);
                }
                (JobKey::Look(look), Outcome::Looked(result)) => self.take_look(look, result),
                (JobKey::Block(seed, period), Outcome::Block(block)) => {
                    self.blocks.insert(seed, period, block);
                }
                (_, _) => {}
            }
        }
    }

    fn take_look(&mut self, look: Look, result: Result<Loaded, Refusal>) {
        if matches!(result, Err(Refusal::NoDescriptors)) {
            self.give_way();
        }
        let result = match result {
            Ok(loaded) => {
                let path = loaded.path.clone();
                self.insert(look.want, loaded);
                Ok(path)
            }
            Err(refusal) => Err(refusal),
        };
        self.looked.retain(|looked| looked.look != look);
        if self.looked.len() >= MAX_LOOKED {
            self.looked.pop_front();
        }
        self.looked.push_back(Looked {
            look,
            result,
            at: None,
        });
    }

    /// Closes every file.
    fn give_way(&mut self) {
        let open = self
            .slots
            .values()
            .filter(|slot| slot.object.file().is_some());
        self.freed = open.count() > 0;
        self.slots.retain(|_, slot| slot.object.file().is_none());
        self.passing.retain(|(_, object)| object.file().is_none());
        self.gave_way = true;
    }

    fn insert(&mut self, want: Want, loaded: Loaded) {
        let Loaded {
            path,
            is_page,
            settled,
            object,
        } = loaded;
        if !settled && !is_page {
            self.passing
                .retain(|(own, other)| *own != path || other.digest() != object.digest());
            self.passing.push_back((path.clone(), Arc::clone(&object)));
            if self.passing.len() > MAX_PASSING
                && let Some((path, gone)) = self.passing.pop_front()
                && let Some(slot) = self.slots.get(&path)
                && Arc::ptr_eq(&slot.object, &gone)
            {
                self.slots.remove(&path);
            }
        }
        if matches!(want, Want::Prefix(_)) {
            return;
        }
        // An equal version keeps its place, and its digest, for the streams that have it.
        if let Some(slot) = self.slots.get(&path)
            && slot.settled
            && settled
            && slot.is_page == is_page
            && slot.object.stamp() == object.stamp()
        {
            return;
        }
        self.slots.insert(
            path,
            Slot {
                object,
                is_page,
                settled,
                resolved: None,
                reads: 0,
                used: self.clock,
            },
        );
        if self.slots.len() > MAX_OPEN_FILES {
            let oldest = self.slots.iter().min_by_key(|(_, slot)| slot.used);
            if let Some(path) = oldest.map(|(path, _)| path.clone()) {
                self.slots.remove(&path);
            }
        }
    }
}

/// The outcome of a look for a request that waited for it.
const fn miss(refusal: Refusal) -> Miss {
    match refusal {
        // The client asks again.
        Refusal::Unsettled | Refusal::NoDescriptors => Miss::Waits(POLLED),
        Refusal::NotFound | Refusal::Forbidden | Refusal::IsDirectory | Refusal::Failed => {
            Miss::Refused(refusal)
        }
    }
}

#[cfg(test)]
mod tests;
