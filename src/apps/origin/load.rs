//! Looks paths up, and loads their files and directories: the part of the file server that may wait for a disk.
//!
//! In: paths below the root. Out: [`Object`]s. Runs on the pool's threads. A file that does not come
//! to rest, and a directory, is read twice: if both readings are equal, the content was exactly that
//! at the moment between them, so versions never mix.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::apps::origin::digest::{self, BLOCK_BYTES, Stamp};
use crate::apps::origin::listing;
use crate::apps::origin::object::Object;
use crate::apps::origin::tree::{Refusal, Tree};
use crate::apps::origin::watermark::HEADER_BYTES;
use crate::apps::origin::work::{Look, Surroundings, Want};

/// Largest file cached in memory while it is known, in bytes. Larger ones can become hot.
pub const MAX_SMALL_BYTES: u64 = 64 * 1024 - 1;

/// Largest file whose first response waits for its digest, in bytes.
pub const MAX_AWAITED_DIGEST_BYTES: u64 = 1 << 20;

/// The same of a file that was changed within [`GROWING_NS`]: it may grow under its readers, which go on
/// only if its first bytes are known to be the same.
pub const MAX_AWAITED_GROWING_BYTES: u64 = 32 << 20;

/// Time after a change, in nanoseconds, for which the next one is expected.
pub const GROWING_NS: u64 = 10_000_000_000;

/// Largest file that is served while it does not come to rest, in bytes: from a copy in memory.
pub const MAX_SNAPSHOT_BYTES: u64 = 4 << 20;

/// Largest file served, in bytes: with its head shorter than the longest stream.
pub const MAX_FILE_BYTES: u64 = 1 << 47;

/// Most readings of a file or directory that does not come to rest.
pub const MAX_READINGS: usize = 8;

/// The result of a look.
#[derive(Debug)]
pub struct Loaded {
    /// The path of the object: that of the index, if the directory has one.
    pub path: Vec<u8>,
    /// Whether it is the page of a directory.
    pub is_page: bool,
    /// Whether an equal stamp will mean equal content.
    pub settled: bool,
    /// The object.
    pub object: Arc<Object>,
}

/// Looks a path up, and loads its file or directory.
///
/// # Errors
/// [`Refusal`].
pub fn look(tree: &Tree, look: &Look, with: &mut Surroundings<'_>) -> Result<Loaded, Refusal> {
    match look.want {
        Want::File => file(tree, &look.path, with),
        Want::Page => page(tree, &look.path, with),
        Want::Directory => match file(tree, &index_path(&look.path), with) {
            Err(Refusal::NotFound | Refusal::IsDirectory) => page(tree, &look.path, with),
            other => other,
        },
        Want::Prefix(size) => first_bytes(tree, &look.path, size, with),
    }
}

/// The path of a directory's index.
#[must_use]
pub fn index_path(directory: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        INDEX.to_vec()
    } else {
        [directory, b"/", INDEX].concat()
    }
}

/// Checks that an open path may be served as a file.
///
/// # Errors
/// [`Refusal`].
pub fn check_file(metadata: &Metadata) -> Result<Stamp, Refusal> {
    let found = metadata.file_type();
    if found.is_dir() {
        return Err(Refusal::IsDirectory);
    }
    // FIFOs, sockets and devices have no content to digest.
    if !found.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(Refusal::Forbidden);
    }
    Ok(Stamp::of(metadata))
}

fn file(tree: &Tree, path: &[u8], with: &mut Surroundings<'_>) -> Result<Loaded, Refusal> {
    let file = Arc::new(tree.open_beneath(path)?);
    let stamp = check_file(&file.metadata().map_err(|_| Refusal::Failed)?)?;
    let settled = match with.is_settled(&stamp) {
        true => at_rest(&file, stamp, with)?,
        false => None,
    };
    let (object, settled) = match settled {
        Some(object) => (object, true),
        None => (snapshot(&file, None)?, false),
    };
    Ok(Loaded {
        path: path.to_vec(),
        is_page: false,
        settled,
        object: Arc::new(object),
    })
}

/// Loads a file whose stamp stands for its content; `None` if it changes meanwhile.
fn at_rest(
    file: &Arc<File>,
    stamp: Stamp,
    with: &mut Surroundings<'_>,
) -> Result<Option<Object>, Refusal> {
    let small = stamp.size <= MAX_SMALL_BYTES;
    let wanted = if small {
        stamp.size
    } else {
        HEADER_BYTES as u64
    };
    let first = read_first(file, wanted)?;
    if !is_unchanged(file, &stamp)? || first.len() as u64 != wanted {
        return Ok(None);
    }
    if small {
        return Ok(Some(Object::held(first, stamp)));
    }
    let awaited = match (with.age)(&stamp) < GROWING_NS {
        true => MAX_AWAITED_GROWING_BYTES,
        false => MAX_AWAITED_DIGEST_BYTES,
    };
    let known = with.digests().get(&stamp);
    let digest = match known {
        None if stamp.size <= awaited => {
            let computed = digest::hash_file(file, &stamp, with.go_on);
            let Some(digest) = computed.map_err(|_| Refusal::Failed)? else {
                return Ok(None);
            };
            with.digests().insert(stamp, digest);
            Some(digest)
        }
        known => known,
    };
    let object = Object::file_of(Arc::clone(file), first, stamp, stamp.size);
    if let Some(digest) = digest {
        object.set_digest(digest);
    }
    Ok(Some(object))
}

fn is_unchanged(file: &File, stamp: &Stamp) -> Result<bool, Refusal> {
    let metadata = file.metadata().map_err(|_| Refusal::Failed)?;
    Ok(Stamp::of(&metadata) == *stamp)
}

/// Copies a file that does not come to rest, or its first `size` bytes, as it is at one moment.
fn snapshot(file: &File, size: Option<u64>) -> Result<Object, Refusal> {
    for _ in 0..MAX_READINGS {
        let stamp = check_file(&file.metadata().map_err(|_| Refusal::Failed)?)?;
        let size = size.unwrap_or(stamp.size);
        if size > MAX_SNAPSHOT_BYTES {
            return Err(Refusal::Unsettled);
        }
        let (first, second) = (read_first(file, size)?, read_first(file, size)?);
        if first == second && first.len() as u64 == size {
            return Ok(Object::held(first, stamp));
        }
    }
    Err(Refusal::Unsettled)
}

/// Loads the first `size` bytes of a file that has grown since.
fn first_bytes(
    tree: &Tree,
    path: &[u8],
    size: u64,
    with: &mut Surroundings<'_>,
) -> Result<Loaded, Refusal> {
    let file = tree.open_beneath(path)?;
    let stamp = check_file(&file.metadata().map_err(|_| Refusal::Failed)?)?;
    if stamp.size < size {
        return Err(Refusal::NotFound);
    }
    let object = if size <= MAX_SNAPSHOT_BYTES {
        snapshot(&file, Some(size))?
    } else {
        if !with.is_settled(&stamp) {
            return Err(Refusal::Unsettled);
        }
        let digest = digest::hash_prefix(&file, &stamp, size, with.go_on);
        let digest = digest.map_err(|_| Refusal::Failed)?;
        let digest = digest.ok_or(Refusal::Unsettled)?;
        let header = read_first(&file, HEADER_BYTES as u64)?;
        let object = Object::file_of(Arc::new(file), header, stamp, size);
        object.set_digest(digest);
        object
    };
    Ok(Loaded {
        path: path.to_vec(),
        is_page: false,
        settled: false,
        object: Arc::new(object),
    })
}

fn page(tree: &Tree, path: &[u8], with: &mut Surroundings<'_>) -> Result<Loaded, Refusal> {
    let directory = tree.open_beneath(path)?;
    let mut last = None;
    for _ in 0..MAX_READINGS {
        let metadata = directory.metadata().map_err(|_| Refusal::Failed)?;
        if !metadata.is_dir() {
            return Err(Refusal::NotFound);
        }
        let stamp = Stamp::of(&metadata);
        let page = listing::page(&directory, path)?;
        let settled = with.is_settled(&stamp) && is_unchanged(&directory, &stamp)?;
        if settled || last.as_ref() == Some(&page) {
            return Ok(Loaded {
                path: path.to_vec(),
                is_page: true,
                settled,
                object: Arc::new(Object::held(page, stamp)),
            });
        }
        last = Some(page);
    }
    Err(Refusal::Unsettled)
}

/// Reads the first bytes of a file, fewer at its end.
fn read_first(file: &File, size: u64) -> Result<Vec<u8>, Refusal> {
    let size = usize::try_from(size).map_err(|_| Refusal::Failed)?;
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let most = rest.len().min(BLOCK_BYTES);
        let block = rest.get_mut(..most).unwrap_or_default();
        match file.read_at(block, u64::try_from(filled).unwrap_or(u64::MAX)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Refusal::Failed),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

const INDEX: &[u8] = b"index.html";

#[cfg(test)]
mod tests;
