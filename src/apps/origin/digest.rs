//! Content digests of files, and the stamp for which a digest is valid.
//!
//! A [`Stamp`] identifies one state of one file as the file system reports it. An unchanged stamp
//! implies unchanged content: every write updates ctime, which no program can set. Two exceptions: a
//! second write within one tick of the file system's clock, which [`Stamp::settles_after`] rules out
//! (git calls such entries racy), and stores through a memory mapping before the kernel writes the
//! page back, which cannot be detected.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use ring::digest::{Context, SHA256};

/// Age below which a file may be modified again with an equal time stamp, in nanoseconds: the coarsest
/// kernel clock ticks every 10 ms.
pub const TICK_NS: u64 = 20_000_000;

/// The same on a file system that stores whole seconds, some of them even ones only.
pub const COARSE_NS: u64 = 2_000_000_000 + TICK_NS;

/// A SHA-256 digest.
pub type Sha256 = [u8; 32];

/// A state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// mtime: last modification of the content, nanoseconds since 1970.
    pub modified_ns: i64,
    /// ctime: last change of content or inode, nanoseconds since 1970.
    pub changed_ns: i64,
}

impl Stamp {
    /// Extracts the stamp from `fstat` metadata.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let nanos = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000) + rest;
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The age of the last change, in nanoseconds, from which on any later change will alter this stamp.
    /// A clock of whole seconds shows by its stamps.
    #[must_use]
    pub const fn settles_after(&self) -> u64 {
        const SECOND: i64 = 1_000_000_000;
        match self.modified_ns % SECOND == 0 && self.changed_ns % SECOND == 0 {
            true => COARSE_NS,
            false => TICK_NS,
        }
    }
}

/// Digests a whole file. `None` if the file no longer has this `stamp`, or if `go_on`, called once
/// every [`BLOCK_BYTES`], returns false.
///
/// # Errors
/// The operating system's error.
pub fn hash_file(
    file: &File,
    stamp: &Stamp,
    go_on: &mut dyn FnMut() -> bool,
) -> io::Result<Option<Sha256>> {
    hash_prefix(file, stamp, stamp.size, go_on)
}

/// Digests the first `size` bytes of a file; otherwise like [`hash_file`].
///
/// # Errors
/// The operating system's error.
pub fn hash_prefix(
    file: &File,
    stamp: &Stamp,
    size: u64,
    go_on: &mut dyn FnMut() -> bool,
) -> io::Result<Option<Sha256>> {
    let mut context = Context::new(&SHA256);
    let mut block = vec![0; BLOCK_BYTES];
    let mut offset = 0u64;
    while offset < size {
        let left = usize::try_from(size - offset).unwrap_or(usize::MAX);
        let most = block.len().min(left);
        let part = block.get_mut(..most).unwrap_or_default();
        let read = match file.read_at(part, offset) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        context.update(block.get(..read).unwrap_or(&[]));
        offset += u64::try_from(read).unwrap_or(0);
        if !go_on() {
            return Ok(None);
        }
    }
    let same = Stamp::of(&file.metadata()?) == *stamp && offset == size;
    Ok(same.then(|| finish(context)))
}

/// Digests bytes in memory.
#[must_use]
pub fn hash(parts: &[&[u8]]) -> Sha256 {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    finish(context)
}

fn finish(context: Context) -> Sha256 {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    out
}

/// Bytes read at a time.
pub const BLOCK_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_memory_give_the_same_digest() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1] {
            let path = folder.path().join("f");
            let content = vec![7; size];
            std::fs::write(&path, &content).unwrap();
            let file = File::open(&path).unwrap();
            let stamp = Stamp::of(&file.metadata().unwrap());
            let digest = hash_file(&file, &stamp, &mut || true).unwrap();
            assert_eq!(digest, Some(hash(&[&content])), "{size}");
        }
        // FIPS 180-4, the digest of "abc".
        assert_eq!(hash(&[b"a", b"bc"])[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn a_file_that_changes_meanwhile_has_no_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"content").unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let stamp = Stamp::of(&file.metadata().unwrap());
        let mut grow = || {
            file.write_all_at(b"more content", 0).unwrap();
            true
        };
        assert_eq!(hash_file(&file, &stamp, &mut grow).unwrap(), None);
        let stamp = Stamp::of(&file.metadata().unwrap());
        assert_eq!(
            hash_file(&file, &stamp, &mut || false).unwrap(),
            None,
            "stopped early"
        );
    }
}
