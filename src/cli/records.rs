//! Files of records that clients keep between runs.
//!
//! In: a path. Out: the records; and back. One record per line, below a line with their name. A
//! file is replaced as a whole, under a lock, with mode 0600, so that several runs may share it. Never
//! writes to a file of another kind or user. An unusable file never fails a transfer: the client logs
//! the error and goes on without.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::files::{Place, Seen, read_bounded};
use crate::time::UnixMillis;

/// Records of one kind.
pub(super) trait Records: Default {
    /// Their name, in the first line of a file and in messages.
    const NAME: &'static str;

    /// Longest accepted file, in bytes.
    const FILE_LIMIT: u64;

    /// Adds the record of a line; ignores a malformed one: a copy may have been truncated.
    fn parse_line(&mut self, line: &str);

    /// Appends the lines of all records.
    fn emit(&self, text: &mut String);

    /// Adds the records of another run, the newest of each kind.
    fn merge(&mut self, other: &Self);

    /// Removes records that no longer count.
    fn expire(&mut self, now: UnixMillis);

    /// Whether there are none.
    fn is_empty(&self) -> bool;
}

/// Why a file of records is unusable.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordFileError {
    /// The operating system's error.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not a regular file, or a file of another format.
    #[error("not a file of {0}; left unchanged")]
    Foreign(&'static str),
}

/// Loads the records of earlier runs; none if there is no file.
///
/// # Errors
/// [`RecordFileError`].
pub(super) fn load<R: Records>(path: &Path) -> Result<R, RecordFileError> {
    let place = match Place::of(path) {
        Ok(place) => place,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(R::default()),
        Err(error) => return Err(error.into()),
    };
    match place.look()? {
        Some(seen) if !seen.is_file() => Err(RecordFileError::Foreign(R::NAME)),
        Some(_) => read(&place.open_secret()?),
        None => Ok(R::default()),
    }
}

/// Merges records into the file, which another run may have changed meanwhile, and removes those that no longer
/// count. Does nothing if there is nothing to add.
///
/// # Errors
/// [`RecordFileError`]; the file is then unchanged.
pub(super) fn save<R: Records>(
    path: &Path,
    records: &R,
    now: UnixMillis,
) -> Result<(), RecordFileError> {
    if records.is_empty() {
        return Ok(());
    }
    let place = Place::of(path)?;
    if place.look()?.is_some_and(|seen| !seen.is_file()) {
        return Err(RecordFileError::Foreign(R::NAME));
    }
    let file = lock(&place)?;
    let mut all: R = read(&file)?;
    all.merge(records);
    all.expire(now);
    let mut text = head::<R>();
    all.emit(&mut text);
    Ok(place.write_whole(text.as_bytes(), true)?)
}

/// Opens and locks the file, and creates it if necessary. Writers replace the file while they hold
/// the lock on the old one, so a lock obtained after waiting may be on a deleted file: try again.
fn lock(place: &Place) -> io::Result<File> {
    loop {
        let file = place.open_private()?;
        flock(&file, FlockOperation::LockExclusive)?;
        let locked = Seen::of(&file)?.identity;
        if place.look()?.is_some_and(|seen| seen.identity == locked) {
            return Ok(file);
        }
    }
}

fn read<R: Records>(file: &File) -> Result<R, RecordFileError> {
    let bytes = read_bounded(file, R::FILE_LIMIT)?;
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.as_deref()
        .and_then(parse)
        .ok_or(RecordFileError::Foreign(R::NAME))
}

/// Parses records; `None` if the text is of another kind. An empty file has none.
pub(super) fn parse<R: Records>(text: &str) -> Option<R> {
    let mut lines = text.lines();
    if lines
        .next()
        .is_some_and(|line| line != head::<R>().trim_end())
    {
        return None;
    }
    let mut records = R::default();
    lines.for_each(|line| records.parse_line(line));
    Some(records)
}

/// The first line.
fn head<R: Records>() -> String {
    format!("# headwater {}\n", R::NAME)
}
