//! A listening socket with a name in the file system, for its owner alone.
//!
//! In: a path. Out: a listener. Takes over the name of a socket only if that belongs to this user and
//! no program listens on it; removes its own name at the end.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{FileType, Mode};
use rustix::process::umask;

use super::Refused;
use super::place::{Place, Seen};

/// The name of a listening socket; removed when dropped.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    place: Place,
    /// The socket file, held so that no other one gets its inode.
    file: File,
}

impl BoundSocket {
    /// Binds a socket that only this user may connect to. Replaces a stale one, on which no program
    /// listens.
    ///
    /// # Errors
    /// If another program listens on it, if the path is not a socket, if it belongs to another user, or
    /// if the directory is not writable.
    pub(crate) fn bind(path: &Path) -> io::Result<(Self, UnixListener)> {
        let place = Place::of(path)?;
        if let Some(seen) = place.look()?
            && seen.kind == FileType::Socket
            && is_stale(path)
        {
            if !place.is_ours(&seen) {
                return Err(Refused::Owner(seen.owner).into());
            }
            place.remove()?;
        }
        // The mode from the start: a later change by name could reach another file.
        let mask = umask(Mode::from_raw_mode(0o177));
        let bound = UnixListener::bind(path);
        umask(mask);
        let listener = bound?;
        let file = place.hold()?;
        Ok((Self { place, file }, listener))
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        // The name may belong to another socket by now.
        let there = self.place.look().ok().flatten();
        let ours = Seen::of(&self.file).ok();
        if there.is_some_and(|there| ours.is_some_and(|ours| ours.identity == there.identity)) {
            let _ = self.place.remove();
        }
    }
}

/// Whether no program listens on a socket.
fn is_stale(path: &Path) -> bool {
    let refused = |error: &io::Error| error.kind() == ErrorKind::ConnectionRefused;
    UnixStream::connect(path).is_err_and(|error| refused(&error))
}
