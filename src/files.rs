//! Every file that the program writes, under one policy.
//!
//! In: a path. Out: a [`Place`], which is a name in a directory that is held open, and its
//! operations. `tests/architecture.rs` fails on a file that is opened for writing anywhere else.
//!
//! A directory is *shared* if its group or others may write to it: any of its entries may be planted. In
//! a shared directory,
//! - a symbolic link is followed only if it belongs to this user or to root, wherever in a path it is;
//! - a file of another user is neither read nor written nor replaced, nor are its mode and its owner
//!   handed on;
//! - a file with several names is not written in place.
//!
//! In every directory,
//! - a new file is created under a name that did not exist, and belongs to this user;
//! - a file is replaced as a whole, by a rename: the bytes are in place completely or not at all. Only
//!   a mount point, a file with several names, a FIFO and a device are written in place;
//! - a file replaced keeps its permissions if it belongs to this user, less set-user-id and the like;
//! - a private file (a lock, an incomplete file, a socket) belongs to this user, and no other
//!   user may write to it.
//!
//! Another user's directory that only its owner may write to is as trustworthy as that owner, whom the
//! caller trusts by naming it. Sources: fs.protected_symlinks, fs.protected_regular, fs.protected_fifos
//! and fs.protected_hardlinks of Linux (proc_sys_fs(5)), without their restriction to sticky
//! directories.

mod place;
mod socket;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use siphasher::sip::SipHasher13;

#[cfg(any(feature = "cli", test))]
pub(crate) use self::place::make_private_directory;
pub(crate) use self::place::{Place, Seen, read_bounded};
pub(crate) use self::socket::BoundSocket;

/// Longest name of a file, in bytes (`NAME_MAX` of Linux).
pub(crate) const MAX_FILE_NAME_BYTES: usize = 255;

/// Why the policy refuses a name. The caller adds a remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// A symbolic link of another user in a shared directory.
    #[error("a symbolic link of another user (uid {0}), in a directory that others may write to")]
    Link(u32),
    /// Another user's file.
    #[error("it belongs to another user (uid {0})")]
    Owner(u32),
    /// A file that others may write to.
    #[error("others may write to it (mode {0:04o})")]
    #[cfg_attr(
        not(feature = "cli"),
        allow(dead_code, reason = "only the command line opens private files")
    )]
    Writable(u32),
    /// A file with several names.
    #[error("it has {0} names (hard links)")]
    Names(u64),
    /// Not a regular file.
    #[error("not a regular file")]
    Kind,
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, refused)
    }
}

/// Returns `name` with `suffix`. A name that would be too long is cut and gets a hash of the whole, so
/// that the same name always gives the same one and no other name does.
fn beside(name: &OsStr, suffix: &str) -> OsString {
    let name = name.as_bytes();
    let mut new = name.to_vec();
    if name.len() + suffix.len() > MAX_FILE_NAME_BYTES {
        let hash = format!("~{:016x}", SipHasher13::new().hash(name));
        new.truncate(MAX_FILE_NAME_BYTES.saturating_sub(suffix.len() + hash.len()));
        new.extend_from_slice(hash.as_bytes());
    }
    new.extend_from_slice(suffix.as_bytes());
    OsString::from_vec(new)
}

#[cfg(test)]
mod tests;
