//! Versions of files and pages, and their bytes.
//!
//! In: offsets. Out: bytes of exactly one version, or why there are none. Reads of the loop take only
//! bytes in memory (preadv2(2), RWF_NOWAIT); a thread of the pool reads the rest into the page cache
//! first. Each read of a file is checked afterwards: if the file still has the stamp of the version,
//! no write has occurred in between, in-place writes included. The bytes of small files and of
//! snapshots are held, and remain bytes of their version whatever happens to the file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::apps::origin::continuation::{TAG_BYTES, Tag};
use crate::apps::origin::digest::{self, BLOCK_BYTES, Sha256, Stamp};
use crate::apps::origin::watermark::HEADER_BYTES;
use crate::transport::application::copy_at;

/// Bytes that a thread reads at once into the page cache for streams that find none there.
pub const WINDOW_BYTES: u64 = 1 << 20;

/// Most windows of a file that are known to be in the page cache.
pub const MAX_WARM_WINDOWS: usize = 64;

/// Why bytes of a version cannot be read now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// The file no longer has the stamp of the version.
    #[error("the file has changed")]
    Stale,
    /// The operating system failed to read it.
    #[error("read error")]
    Failed,
    /// The bytes of this window are not in memory.
    #[error("not in memory")]
    Cold(u64),
    /// This server renders the head otherwise.
    #[error("rendered otherwise")]
    OtherHead,
}

/// A version of a file, or of a directory's page.
#[derive(Debug)]
pub struct Object {
    content: Content,
    stamp: Stamp,
    /// Length in bytes: of a file that grows, less than that of its stamp.
    size: u64,
    digest: OnceLock<Sha256>,
    /// Whether its bytes could not be read for the digest.
    unreadable: AtomicBool,
    warm: Mutex<Warm>,
}

#[derive(Debug)]
enum Content {
    /// The complete content of a small file or of a page, or a snapshot.
    Held(Vec<u8>),
    File {
        file: Arc<File>,
        /// Its first bytes.
        header: Vec<u8>,
    },
}

/// The windows that a thread has read into the page cache, the latest last. Empty for a file that was
/// there anyway.
#[derive(Debug, Default)]
struct Warm {
    windows: VecDeque<u64>,
    /// The window that the latest read will need next.
    ahead: Option<u64>,
}

impl Object {
    /// Creates a version whose content is in memory.
    #[must_use]
    pub fn held(bytes: Vec<u8>, stamp: Stamp) -> Self {
        let digest = OnceLock::from(digest::hash(&[&bytes]));
        Self {
            size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            content: Content::Held(bytes),
            stamp,
            digest,
            unreadable: AtomicBool::new(false),
            warm: Mutex::default(),
        }
    }

    /// Creates a version of an open file: its first `size` bytes, which begin with `header`.
    #[must_use]
    pub fn file_of(file: Arc<File>, header: Vec<u8>, stamp: Stamp, size: u64) -> Self {
        Self {
            content: Content::File { file, header },
            stamp,
            size,
            digest: OnceLock::new(),
            unreadable: AtomicBool::new(false),
            warm: Mutex::default(),
        }
    }

    /// Length in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The digest of the complete content, if computed.
    #[must_use]
    pub fn digest(&self) -> Option<&Sha256> {
        self.digest.get()
    }

    /// Sets the digest, once.
    pub fn set_digest(&self, digest: Sha256) {
        // A second digest of the same version is equal.
        let _ = self.digest.set(digest);
    }

    /// Whether its bytes could not be read for the digest.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Takes note that its bytes could not be read for the digest.
    pub fn set_unreadable(&self) {
        self.unreadable.store(true, Ordering::Relaxed);
    }

    /// The version tag by content, if the digest is known.
    #[must_use]
    pub fn tag(&self) -> Option<Tag> {
        self.digest().map(prefix)
    }

    /// The version tag by length and modification time, for as long as the digest is not known: equal
    /// for copies that preserve the time.
    #[must_use]
    pub fn provisional_tag(&self) -> Tag {
        let (size, modified) = (
            self.size.to_be_bytes(),
            self.stamp.modified_ns.to_be_bytes(),
        );
        prefix(&digest::hash(&[b"provisional", &size, &modified]))
    }

    /// The file's stamp for this content.
    #[must_use]
    pub const fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// The open file, unless its content is in memory.
    #[must_use]
    pub const fn file(&self) -> Option<&Arc<File>> {
        match &self.content {
            Content::File { file, .. } => Some(file),
            Content::Held(_) => None,
        }
    }

    /// The first bytes, at most [`HEADER_BYTES`].
    #[must_use]
    pub fn header(&self) -> &[u8] {
        match &self.content {
            Content::Held(bytes) => bytes.get(..HEADER_BYTES).unwrap_or(bytes),
            Content::File { header, .. } => header,
        }
    }

    /// Checks that the file still has the stamp of this version.
    ///
    /// # Errors
    /// [`Unread::Stale`] if it has not.
    pub fn check(&self) -> Result<(), Unread> {
        let Content::File { file, .. } = &self.content else {
            return Ok(());
        };
        let metadata = file.metadata().map_err(|_| Unread::Stale)?;
        match Stamp::of(&metadata) == self.stamp {
            true => Ok(()),
            false => Err(Unread::Stale),
        }
    }

    /// Fills `out` from `offset` on; returns the number of bytes, which is short only at the end. Never
    /// waits for a disk.
    ///
    /// # Errors
    /// [`Unread`]; discard `out` then.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, Unread> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let most = out.len().min(left);
        let out = out.get_mut(..most).unwrap_or_default();
        match &self.content {
            Content::Held(bytes) => Ok(copy_at(bytes, offset, out)),
            Content::File { file, .. } => {
                let filled = self.fill(file, offset, out)?;
                self.check()?;
                self.look_ahead(offset);
                Ok(filled)
            }
        }
    }

    fn fill(&self, file: &File, offset: u64, out: &mut [u8]) -> Result<usize, Unread> {
        let mut filled = 0;
        while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
            let read = preadv2(
                file,
                &mut [IoSliceMut::new(rest)],
                at,
                ReadWriteFlags::NOWAIT,
            );
            match read {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                Err(error @ (Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS)) => {
                    filled += self.read_warm(file, at, rest, error)?;
                }
                Err(_) => return Err(Unread::Failed),
            }
        }
        Ok(filled)
    }

    /// Reads bytes that a thread has just read into the page cache, at most those of one window, where
    /// the file system does not say whether they are in memory, or says no while a write is under way.
    fn read_warm(
        &self,
        file: &File,
        at: u64,
        out: &mut [u8],
        error: Errno,
    ) -> Result<usize, Unread> {
        let window = at / WINDOW_BYTES;
        {
            let mut warm = self.warm();
            let Some(index) = warm.windows.iter().position(|&own| own == window) else {
                return Err(Unread::Cold(window));
            };
            if error == Errno::AGAIN {
                // Once: the page cache may have lost it again.
                warm.windows.remove(index);
            }
        }
        let left = usize::try_from((window + 1) * WINDOW_BYTES - at).unwrap_or(usize::MAX);
        let most = out.len().min(left);
        match file.read_at(out.get_mut(..most).unwrap_or_default(), at) {
            Ok(0) => Err(Unread::Stale),
            Ok(read) => Ok(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(_) => Err(Unread::Failed),
        }
    }

    /// Reads a window into the page cache, and waits for the disk. Stops early if `go_on`, called once
    /// every [`BLOCK_BYTES`], returns false.
    pub fn warm_up(&self, window: u64, go_on: &mut dyn FnMut() -> bool) {
        let Some(file) = self.file() else { return };
        let mut block = vec![0; BLOCK_BYTES];
        let (mut at, end) = (window * WINDOW_BYTES, (window + 1) * WINDOW_BYTES);
        while at < end && go_on() {
            match file.read_at(&mut block, at) {
                Ok(0) | Err(_) => break,
                Ok(read) => at += u64::try_from(read).unwrap_or(u64::MAX),
            }
        }
        let mut warm = self.warm();
        warm.windows.retain(|&own| own != window);
        warm.windows.push_back(window);
        if warm.windows.len() > MAX_WARM_WINDOWS {
            warm.windows.pop_front();
        }
    }

    /// Returns the window to read next for a stream that found the disk slow, once.
    pub fn take_ahead(&self) -> Option<u64> {
        self.file()?;
        self.warm().ahead.take()
    }

    fn look_ahead(&self, offset: u64) {
        let mut warm = self.warm();
        let next = offset / WINDOW_BYTES + 1;
        if !warm.windows.is_empty()
            && !warm.windows.contains(&next)
            && next * WINDOW_BYTES < self.size
        {
            warm.ahead = Some(next);
        }
    }

    /// Locks the windows; consistent even after a panic, since each change is a single step.
    fn warm(&self) -> MutexGuard<'_, Warm> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the tag for a digest.
#[must_use]
pub fn prefix(digest: &Sha256) -> Tag {
    let mut tag = [0; TAG_BYTES];
    for (to, from) in tag.iter_mut().zip(digest) {
        *to = *from;
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(size: u64) -> (tempfile::TempDir, Object) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        File::create(&path).unwrap().set_len(size).unwrap();
        let file = Arc::new(File::open(path).unwrap());
        let stamp = Stamp::of(&file.metadata().unwrap());
        (folder, Object::file_of(file, Vec::new(), stamp, size))
    }

    #[test]
    fn windows_in_the_page_cache_are_bounded() {
        let (_folder, object) = object(WINDOW_BYTES * 100);
        for window in 0..=MAX_WARM_WINDOWS as u64 {
            object.warm_up(window, &mut || true);
            object.warm_up(window, &mut || true);
        }
        assert_eq!(object.warm().windows.len(), MAX_WARM_WINDOWS);
        assert_eq!(object.warm().windows.front(), Some(&1));
    }

    #[test]
    fn only_what_a_thread_has_read_is_read_where_the_disk_may_be_waited_for() {
        let (_folder, object) = object(WINDOW_BYTES * 2);
        let file = object.file().unwrap();
        let mut out = [7; 100];
        let at = WINDOW_BYTES - 40;
        let read = |out: &mut [u8], error: Errno| object.read_warm(file, at, out, error);
        assert_eq!(read(&mut out, Errno::OPNOTSUPP), Err(Unread::Cold(0)));
        object.warm_up(0, &mut || true);
        assert_eq!(read(&mut out, Errno::OPNOTSUPP), Ok(40), "up to its end");
        assert_eq!(read(&mut out, Errno::AGAIN), Ok(40));
        assert_eq!(read(&mut out, Errno::AGAIN), Err(Unread::Cold(0)), "once");
    }

    #[test]
    fn streams_that_met_a_slow_disk_read_ahead() {
        let (_folder, object) = object(WINDOW_BYTES * 3);
        object.look_ahead(0);
        assert_eq!(object.take_ahead(), None, "in memory anyway");
        object.warm_up(0, &mut || true);
        object.look_ahead(5);
        assert_eq!(object.take_ahead(), Some(1));
        assert_eq!(object.take_ahead(), None);
        object.warm_up(1, &mut || true);
        object.look_ahead(5);
        assert_eq!(object.take_ahead(), None, "there already");
        object.look_ahead(2 * WINDOW_BYTES);
        assert_eq!(object.take_ahead(), None, "the last");
    }

    #[test]
    fn provisional_tags_follow_length_and_time() {
        let stamp = Stamp {
            device: 1,
            inode: 2,
            size: 3,
            modified_ns: 4,
            changed_ns: 5,
        };
        let tag = |stamp, bytes: &[u8]| Object::held(bytes.to_vec(), stamp).provisional_tag();
        let copy = Stamp {
            device: 7,
            inode: 7,
            changed_ns: 7,
            ..stamp
        };
        assert_eq!(tag(stamp, b"abc"), tag(copy, b"xyz"));
        assert_ne!(tag(stamp, b"abc"), tag(stamp, b"ab"));
        let later = Stamp {
            modified_ns: 5,
            ..stamp
        };
        assert_ne!(tag(stamp, b"abc"), tag(later, b"abc"));
    }
}
