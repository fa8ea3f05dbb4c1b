//! Open files with their digests: a bounded cache that detects every change.
//!
//! In: paths below the root. Out: [`Object`]s, whose reads return bytes of exactly one version or
//! [`Stale`]. Each read is checked afterwards: if the file still has the digested stamp, no write has
//! occurred in between, in-place writes included. The bytes of small files are cached, too, and remain
//! bytes of their version whatever happens to the file, which is checked when a response begins or
//! after many reads. The cache may be emptied at any time; nothing in it belongs to a client.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::apps::origin::digest::{self, DigestProgress, Digester, Sha256, Stamp};
use crate::apps::origin::digest_store::DigestStore;
use crate::apps::origin::listing;
use crate::apps::origin::tree::{Refusal, Tree};
use crate::time::UnixMillis;
use crate::transport::application::copy_at;

/// Most files and directory pages kept open.
pub const MAX_OPEN_FILES: usize = 64;

/// Largest file digested within its request, in bytes.
pub const MAX_INLINE_DIGEST_BYTES: u64 = 16 << 20;

/// Largest file cached in memory while open, in bytes: all of them together take as much as one
/// flight to each of [`MAX_OPEN_FILES`] clients. Larger ones can become hot.
pub const MAX_SMALL_BYTES: u64 = 64 * 1024 - 1;

/// Largest file served, in bytes: with its head shorter than the longest stream.
pub const MAX_FILE_BYTES: u64 = 1 << 47;

/// Reads after which the path is resolved again to detect a renamed file. Until then the old file is
/// served consistently.
pub const RECHECK_READS: u32 = 64;

/// The file no longer has the digested stamp, or cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file has changed")]
pub struct Stale;

/// A version of a file, or of a directory's page.
#[derive(Debug)]
pub struct Object {
    content: Content,
    stamp: Stamp,
    digest: Sha256,
}

#[derive(Debug)]
enum Content {
    File {
        file: Arc<File>,
        /// The complete content of a small file.
        bytes: Option<Vec<u8>>,
    },
    Page(Vec<u8>),
}

impl Object {
    /// Length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.content {
            Content::File { .. } => self.stamp.size,
            Content::Page(page) => u64::try_from(page.len()).unwrap_or(0),
        }
    }

    /// The digest of the complete content.
    #[must_use]
    pub const fn digest(&self) -> &Sha256 {
        &self.digest
    }

    /// The file's stamp for this content.
    #[must_use]
    pub const fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// The open file, unless it is a page.
    #[must_use]
    pub const fn file(&self) -> Option<&Arc<File>> {
        match &self.content {
            Content::File { file, .. } => Some(file),
            Content::Page(_) => None,
        }
    }

    /// Checks that the file still has the digested stamp.
    ///
    /// # Errors
    /// [`Stale`] if it is not.
    pub fn check(&self) -> Result<(), Stale> {
        let Content::File { file, .. } = &self.content else {
            return Ok(());
        };
        let metadata = file.metadata().map_err(|_| Stale)?;
        match Stamp::of(&metadata) == self.stamp {
            true => Ok(()),
            false => Err(Stale),
        }
    }

    /// Fills `out` from `offset` on; returns the number of bytes, which is short only at the end.
    ///
    /// # Errors
    /// [`Stale`] if the bytes may be of another version; discard `out` then.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, Stale> {
        match &self.content {
            Content::Page(bytes)
            | Content::File {
                bytes: Some(bytes), ..
            } => Ok(copy_at(bytes, offset, out)),
            Content::File { file, bytes: None } => {
                let filled = fill(file, offset, out).map_err(|_| Stale)?;
                self.check().map(|()| filled)
            }
        }
    }
}

/// Fills `out` from `offset` of the file; returns the number of bytes.
fn fill(file: &File, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// How recently the path must have been resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// A new response, at this time: resolve the path, unless resolved in this very millisecond.
    Now(UnixMillis),
    /// A response in progress: a resolution within [`RECHECK_READS`] reads suffices.
    Recent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileKind {
    File,
    Directory,
}

struct Slot {
    object: Arc<Object>,
    kind: FileKind,
    /// Time of the last resolution for a new response.
    resolved: Option<UnixMillis>,
    reads: u32,
    used: u64,
}

impl Slot {
    /// Whether the last resolution suffices.
    fn is_fresh(&self, freshness: Freshness) -> bool {
        match freshness {
            Freshness::Now(now) => self.resolved == Some(now),
            Freshness::Recent => self.reads < RECHECK_READS,
        }
    }
}

/// The files below one root.
pub struct Files {
    tree: Tree,
    slots: BTreeMap<Vec<u8>, Slot>,
    /// Counts look-ups; orders the slots by last use.
    clock: u64,
    digests: DigestStore,
    digester: Box<dyn Digester>,
}

impl Files {
    /// Creates a cache without open files.
    #[must_use]
    pub fn new(tree: Tree, digester: Box<dyn Digester>) -> Self {
        Self {
            tree,
            slots: BTreeMap::new(),
            clock: 0,
            digests: DigestStore::new(),
            digester,
        }
    }

    /// Returns the regular file at `path`.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn file(&mut self, path: &[u8], freshness: Freshness) -> Result<Arc<Object>, Refusal> {
        self.look_up(path, FileKind::File, freshness)
    }

    /// Returns the page that lists the directory at `path`.
    ///
    /// # Errors
    /// [`Refusal`]; `NotFound` if it is a file.
    pub fn page(&mut self, path: &[u8], freshness: Freshness) -> Result<Arc<Object>, Refusal> {
        self.look_up(path, FileKind::Directory, freshness)
    }

    /// Evicts a path.
    pub fn forget(&mut self, path: &[u8]) {
        self.slots.remove(path);
    }

    /// The number of open objects, at most [`MAX_OPEN_FILES`].
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.slots.len()
    }

    fn look_up(
        &mut self,
        path: &[u8],
        kind: FileKind,
        freshness: Freshness,
    ) -> Result<Arc<Object>, Refusal> {
        self.clock += 1;
        let known = self.slots.get_mut(path).filter(|slot| slot.kind == kind);
        if let Some(slot) = known
            && slot.is_fresh(freshness)
        {
            slot.reads += 1;
            slot.used = self.clock;
            return Ok(Arc::clone(&slot.object));
        }
        let (file, stamp) = self.open(path, kind)?;
        let resolved = match freshness {
            Freshness::Now(now) => Some(now),
            Freshness::Recent => None,
        };
        if let Some(slot) = self.slots.get_mut(path)
            && slot.kind == kind
            && slot.object.stamp == stamp
        {
            slot.resolved = resolved;
            slot.reads = 0;
            slot.used = self.clock;
            return Ok(Arc::clone(&slot.object));
        }
        let object = Arc::new(match kind {
            FileKind::File => self.load_file(file, stamp)?,
            FileKind::Directory => self.load_page(&file, stamp, path)?,
        });
        self.insert(
            path,
            Slot {
                object: Arc::clone(&object),
                kind,
                resolved,
                reads: 0,
                used: self.clock,
            },
        );
        Ok(object)
    }

    fn open(&self, path: &[u8], kind: FileKind) -> Result<(File, Stamp), Refusal> {
        let file = self.tree.open_beneath(path)?;
        let metadata = file.metadata().map_err(|_| Refusal::Failed)?;
        let found = metadata.file_type();
        match kind {
            FileKind::File if found.is_dir() => Err(Refusal::IsDirectory),
            FileKind::Directory if !found.is_dir() => Err(Refusal::NotFound),
            // FIFOs, sockets and devices have no content to digest.
            FileKind::File if !found.is_file() => Err(Refusal::Forbidden),
            FileKind::File if metadata.len() > MAX_FILE_BYTES => Err(Refusal::Forbidden),
            FileKind::File | FileKind::Directory => Ok((file, Stamp::of(&metadata))),
        }
    }

    fn load_file(&mut self, file: File, stamp: Stamp) -> Result<Object, Refusal> {
        let file = Arc::new(file);
        let digest = match self.digests.get(&stamp) {
            Some(digest) => digest,
            None => {
                let digest = self.compute(&file, &stamp)?;
                self.digests.insert(stamp, digest);
                digest
            }
        };
        let bytes = match stamp.size <= MAX_SMALL_BYTES {
            true => Some(whole(&file, &stamp)?),
            false => None,
        };
        Ok(Object {
            content: Content::File { file, bytes },
            stamp,
            digest,
        })
    }

    fn compute(&mut self, file: &Arc<File>, stamp: &Stamp) -> Result<Sha256, Refusal> {
        if !self.digester.settled(stamp) {
            return Err(Refusal::NotReady);
        }
        if stamp.size > MAX_INLINE_DIGEST_BYTES {
            return match self.digester.digest(file, stamp) {
                DigestProgress::Done(digest) => Ok(digest),
                DigestProgress::Pending => Err(Refusal::NotReady),
                DigestProgress::Failed => Err(Refusal::Failed),
            };
        }
        match digest::hash_file(file, stamp, &mut || true) {
            Ok(Some(digest)) => Ok(digest),
            Ok(None) => Err(Refusal::NotReady),
            Err(_) => Err(Refusal::Failed),
        }
    }

    fn load_page(&self, file: &File, stamp: Stamp, path: &[u8]) -> Result<Object, Refusal> {
        if !self.digester.settled(&stamp) {
            return Err(Refusal::NotReady);
        }
        let page = listing::page(file, path)?;
        let metadata = file.metadata().map_err(|_| Refusal::Failed)?;
        if Stamp::of(&metadata) != stamp {
            return Err(Refusal::NotReady);
        }
        let digest = digest::hash(&[&page]);
        Ok(Object {
            content: Content::Page(page),
            stamp,
            digest,
        })
    }

    fn insert(&mut self, path: &[u8], slot: Slot) {
        self.slots.insert(path.to_vec(), slot);
        if self.slots.len() > MAX_OPEN_FILES {
            let oldest = self.slots.iter().min_by_key(|(_, slot)| slot.used);
            if let Some(path) = oldest.map(|(path, _)| path.clone()) {
                self.slots.remove(&path);
            }
        }
    }
}

/// Reads a small file completely and checks that it still has `stamp`.
fn whole(file: &File, stamp: &Stamp) -> Result<Vec<u8>, Refusal> {
    let size = usize::try_from(stamp.size).map_err(|_| Refusal::Failed)?;
    let mut bytes = vec![0; size];
    let filled = fill(file, 0, &mut bytes).map_err(|_| Refusal::Failed)?;
    let metadata = file.metadata().map_err(|_| Refusal::Failed)?;
    match filled == size && Stamp::of(&metadata) == *stamp {
        true => Ok(bytes),
        false => Err(Refusal::NotReady),
    }
}

#[cfg(test)]
mod tests;
