//! Content digests of files, and the identity under which a digest stays true.
//!
//! A [`Stamp`] names one state of one file as the file system sees it. While the stamp stands, the
//! content does: every write moves ctime, which no program can set. Two cases escape a stamp: a
//! second write within one tick of the file system's clock, which [`Digester::settled`] rules out
//! (git calls such entries racy), and stores through a memory mapping before the kernel writes the
//! page back, which nothing can see.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use ring::digest::{Context, SHA256};

/// A SHA-256 digest.
pub type Sha256 = [u8; 32];

/// One state of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change of the content, nanoseconds since 1970.
    pub modified_ns: i64,
    /// Time of the last change of content or inode, nanoseconds since 1970.
    pub changed_ns: i64,
}

impl Stamp {
    /// The stamp in what `fstat` says.
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
}

/// How far the digest of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestProgress {
    /// Here it is.
    Done(Sha256),
    /// Being computed, or the queue is full: ask again.
    Pending,
    /// It cannot be computed.
    Failed,
}

/// Computes digests of files too large to be read while a request waits.
pub trait Digester: Send {
    /// Whether the last change of a file lies far enough back that any later change will show in
    /// its stamp. Only then may a digest be taken for the stamp's.
    fn settled(&self, stamp: &Stamp) -> bool;

    /// The digest of `file`, whose stamp is `stamp`. Never waits for more than a moment, unless
    /// it is an implementation for tests.
    fn digest(&mut self, file: &Arc<File>, stamp: &Stamp) -> DigestProgress;
}

/// Computes every digest at once and takes every stamp for settled: for tests and simulations, and
/// for trees that nobody writes to.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlineDigester;

impl Digester for InlineDigester {
    fn settled(&self, _stamp: &Stamp) -> bool {
        true
    }

    fn digest(&mut self, file: &Arc<File>, stamp: &Stamp) -> DigestProgress {
        match hash_file(file, stamp, &mut || true) {
            Ok(Some(digest)) => DigestProgress::Done(digest),
            Ok(None) => DigestProgress::Pending,
            Err(_) => DigestProgress::Failed,
        }
    }
}

/// Reads the whole file and digests it. `None` if the file is no longer in the state of `stamp`, or
/// `go_on`, asked once every [`BLOCK_BYTES`], says no.
///
/// # Errors
/// What the operating system says about reading.
pub fn hash_file(
    file: &File,
    stamp: &Stamp,
    go_on: &mut dyn FnMut() -> bool,
) -> io::Result<Option<Sha256>> {
    let mut context = Context::new(&SHA256);
    let mut block = vec![0; BLOCK_BYTES];
    let mut offset = 0u64;
    loop {
        let read = match file.read_at(&mut block, offset) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        context.update(block.get(..read).unwrap_or(&[]));
        offset += u64::try_from(read).unwrap_or(0);
        // A file that grows faster than it is read would never end.
        if offset > stamp.size || !go_on() {
            return Ok(None);
        }
    }
    let same = Stamp::of(&file.metadata()?) == *stamp && offset == stamp.size;
    Ok(same.then(|| finish(context)))
}

/// The digest of bytes in memory.
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
            "told to stop"
        );
    }
}
