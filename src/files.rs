//! Files that replace others as a whole: the name of the new file, and how it takes its place.
//!
//! In: a path. Out: the path of a file beside it, and the replacement. A mount point, as of a single
//! file that a container is given, cannot be replaced: its content is.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use siphasher::sip::SipHasher13;

/// Longest name of a file, in bytes (`NAME_MAX` of Linux).
pub(crate) const MAX_FILE_NAME_BYTES: usize = 255;

/// Returns the path of a file beside `path`: its name and `suffix`. A name that would be too long is cut
/// and gets a hash of the whole, so that the same path always gives the same name and no other path
/// does.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let mut new = name.to_vec();
    if name.len() + suffix.len() > MAX_FILE_NAME_BYTES {
        let hash = format!("~{:016x}", SipHasher13::new().hash(name));
        new.truncate(MAX_FILE_NAME_BYTES.saturating_sub(suffix.len() + hash.len()));
        new.extend_from_slice(hash.as_bytes());
    }
    new.extend_from_slice(suffix.as_bytes());
    path.with_file_name(OsString::from_vec(new))
}

/// Puts `new` in the place of `path`: by a rename, or by a copy onto a mount point.
///
/// # Errors
/// The operating system's error; after a failed copy, `new` is whole.
pub(crate) fn put_in_place(new: &Path, path: &Path) -> io::Result<()> {
    match fs::rename(new, path) {
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::BUSY | Errno::XDEV)
            ) && path.is_file() =>
        {
            let mut place = File::options().write(true).truncate(true).open(path)?;
            io::copy(&mut File::open(new)?, &mut place)?;
            fs::remove_file(new)
        }
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_fit_and_differ() {
        let long = |last: char| format!("{}{last}", "n".repeat(MAX_FILE_NAME_BYTES - 1));
        assert_eq!(beside(Path::new("a/b"), ".part"), Path::new("a/b.part"));
        let fits = "n".repeat(MAX_FILE_NAME_BYTES - 5);
        let plain = beside(Path::new(&fits), ".part");
        assert_eq!(plain, Path::new(&format!("{fits}.part")));
        let [one, two] = ['1', '2'].map(|last| beside(Path::new(&long(last)), ".part"));
        assert_ne!(one, two);
        assert_eq!(one, beside(Path::new(&long('1')), ".part"));
        for path in [one, two] {
            let name = path.file_name().unwrap();
            assert_eq!(name.len(), MAX_FILE_NAME_BYTES);
            assert!(name.as_bytes().ends_with(b".part"));
        }
    }
}
