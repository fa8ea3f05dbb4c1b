//! Files that are written without waiting for a reader: FIFOs are opened and written as far as their
//! reader allows.
//!
//! In: a path, bytes. Out: an open file, or none while a FIFO has no reader. Waits only where a
//! caller requests it, and in steps that a caller can end.
//! Source: fifo(7) on `O_NONBLOCK`.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::files::Place;

/// Interval between two attempts to open a FIFO without a reader: the system announces none.
pub const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Opens `path` for writing in place; `None` if it is a FIFO without a reader. Creates and truncates a
/// regular file. Writes to a FIFO or a terminal do not block.
///
/// # Errors
/// The operating system's error, or a reason of the policy of `files`.
pub fn open_now(path: &Path) -> io::Result<Option<File>> {
    let place = Place::of(path)?;
    match place.open_in_place() {
        Ok(file) => Ok(Some(file)),
        // A socket gives the same error, and always will.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) && is_fifo(&place) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Opens `path` as [`open_now`] does, and waits for the reader of a FIFO as long as `goes_on`; `None`
/// if it ended first.
///
/// # Errors
/// The operating system's error.
pub fn open_patiently(path: &Path, goes_on: &mut dyn FnMut() -> bool) -> io::Result<Option<File>> {
    loop {
        if let Some(file) = open_now(path)? {
            return Ok(Some(file));
        }
        if !goes_on() {
            return Ok(None);
        }
        wait(&mut [])?;
    }
}

/// Writes all of `bytes`, and waits for a slow reader as long as `goes_on`; `false` if it ended
/// first.
///
/// # Errors
/// The operating system's error.
pub fn write_patiently(
    mut file: &File,
    mut bytes: &[u8],
    goes_on: &mut dyn FnMut() -> bool,
) -> io::Result<bool> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if !goes_on() {
                    return Ok(false);
                }
                wait(&mut [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::OUT)])?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Sleeps until a file is ready, for [`RETRY_INTERVAL`] at most.
fn wait(files: &mut [PollFd<'_>]) -> io::Result<()> {
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(RETRY_INTERVAL.subsec_nanos()),
    };
    match poll(files, Some(&pause)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_fifo(place: &Place) -> bool {
    let seen = place.look().ok().flatten();
    seen.is_some_and(|seen| seen.kind == FileType::Fifo)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::OpenOptions;
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::path::PathBuf;

    use rustix::fs::{CWD, Mode, OFlags, mknodat};

    use super::*;

    /// Creates a FIFO in a directory that the caller keeps.
    pub(crate) fn fifo(folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("fifo");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    }

    /// Opens the reading end without waiting for a writer.
    pub(crate) fn reader(path: &Path) -> File {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags).open(path).unwrap()
    }

    #[test]
    fn a_fifo_opens_with_its_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(&folder);
        assert!(open_now(&path).unwrap().is_none());
        let mut tries = 0;
        let mut reader_comes = || {
            tries += 1;
            tries < 2
        };
        let none = open_patiently(&path, &mut reader_comes).unwrap();
        assert!(none.is_none() && tries == 2);
        let _reader = reader(&path);
        assert!(open_now(&path).unwrap().is_some());
    }

    #[test]
    fn a_stalled_reader_ends_a_write_when_its_caller_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(&folder);
        let mut reader = reader(&path);
        let file = open_now(&path).unwrap().unwrap();
        let long = vec![7; 1 << 20];
        assert!(!write_patiently(&file, &long, &mut || false).unwrap());
        let mut buffer = vec![0; 1 << 20];
        let mut drained = || reader.read(&mut buffer).is_ok();
        assert!(write_patiently(&file, &long, &mut drained).unwrap());
    }

    #[test]
    fn a_socket_never_gets_a_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(open_now(&path).is_err());
    }
}
