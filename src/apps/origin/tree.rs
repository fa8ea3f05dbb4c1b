//! The tree of files below the root, and nothing above it.
//!
//! In: paths relative to the root. Out: open files and directories. The kernel resolves each path
//! beneath the root's descriptor (openat2(2), RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS), so no
//! `..`, absolute name or symbolic link leads out, whatever happens to the tree meanwhile.
//! Symbolic links that stay inside are followed.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// Why a directory cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The root does not exist.
    #[error("{} does not exist: create it, or choose another directory", path.display())]
    Missing {
        /// The root as given.
        path: PathBuf,
    },
    /// The root is a file.
    #[error("{} is not a directory: choose the directory that holds the files", path.display())]
    NotADirectory {
        /// The root as given.
        path: PathBuf,
    },
    /// The root has no entries.
    #[error("{} is empty: put the files to serve into it, or choose another directory", path.display())]
    Empty {
        /// The root as given.
        path: PathBuf,
    },
    /// The root cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The root as given.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

/// Why a path cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No file of that name.
    #[error("not found")]
    NotFound,
    /// Not readable, not a regular file, or outside of the root.
    #[error("forbidden")]
    Forbidden,
    /// A directory instead of a file.
    #[error("is a directory")]
    IsDirectory,
    /// The operating system failed to read it.
    #[error("read error")]
    Failed,
    /// The digest is pending, the file was just written, or the machine is out of descriptors.
    #[error("not ready")]
    NotReady,
}

/// An open root directory.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

impl Tree {
    /// Opens a root.
    ///
    /// # Errors
    /// [`RootError`] if it is missing, not a directory, empty or unreadable.
    pub fn open(root: &Path) -> Result<Self, RootError> {
        let path = root.to_path_buf();
        let unreadable = |path: PathBuf, source: io::Error| RootError::Unreadable { path, source };
        let metadata = match std::fs::metadata(root) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(RootError::Missing { path });
            }
            Err(error) => return Err(unreadable(path, error)),
        };
        if !metadata.is_dir() {
            return Err(RootError::NotADirectory { path });
        }
        match std::fs::read_dir(root).map(|mut entries| entries.next()) {
            Ok(None) => return Err(RootError::Empty { path }),
            Ok(Some(Err(error))) | Err(error) => return Err(unreadable(path, error)),
            Ok(Some(Ok(_))) => {}
        }
        match File::open(root) {
            Ok(file) => Ok(Self { root: file.into() }),
            Err(error) => Err(unreadable(path, error)),
        }
    }

    /// Opens `path` relative to the root; an empty path is the root. Never blocks, not even for the
    /// other end of a FIFO.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn open_beneath(&self, path: &[u8]) -> Result<File, Refusal> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..MAX_RESOLVE_ATTEMPTS {
            match openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Ok(descriptor) => return Ok(File::from(descriptor)),
                // openat2(2): a rename interrupted the walk; try again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(refusal(error)),
            }
        }
        Err(Refusal::NotReady)
    }
}

fn refusal(error: Errno) -> Refusal {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL => Refusal::NotFound,
        // XDEV: outside of the root; LOOP: a symlink loop; NXIO, NODEV: a socket or device.
        Errno::ACCESS | Errno::PERM | Errno::XDEV | Errno::LOOP | Errno::NXIO | Errno::NODEV => {
            Refusal::Forbidden
        }
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => Refusal::NotReady,
        _ => Refusal::Failed,
    }
}

/// Most attempts of a walk that a rename interrupts.
const MAX_RESOLVE_ATTEMPTS: usize = 8;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn unfit_roots_say_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        let empty = folder.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        for (path, want) in [
            (folder.path().join("none"), "does not exist: create it"),
            (file, "is not a directory: choose the directory"),
            (empty, "is empty: put the files"),
        ] {
            let message = Tree::open(&path).unwrap_err().to_string();
            assert!(message.contains(want), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
        assert!(Tree::open(folder.path()).is_ok());
    }

    #[test]
    fn nothing_outside_the_root_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(folder.path().join("secret"), b"s").unwrap();
        std::fs::write(root.join("inside"), b"i").unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("/etc", root.join("absolute")).unwrap();
        symlink("inside", root.join("in")).unwrap();
        symlink("../inside", root.join("sub/up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        let tree = Tree::open(&root).unwrap();
        for (path, want) in [
            ("inside", None),
            ("in", None),
            ("sub/up", None),
            ("sub/../inside", None),
            ("", None),
            ("..", Some(Refusal::Forbidden)),
            ("../secret", Some(Refusal::Forbidden)),
            ("sub/../../secret", Some(Refusal::Forbidden)),
            ("/etc/passwd", Some(Refusal::Forbidden)),
            ("out", Some(Refusal::Forbidden)),
            ("absolute/passwd", Some(Refusal::Forbidden)),
            ("magic/etc/passwd", Some(Refusal::Forbidden)),
            ("loop", Some(Refusal::Forbidden)),
            ("none", Some(Refusal::NotFound)),
            ("inside/x", Some(Refusal::NotFound)),
            ("in\0side", Some(Refusal::NotFound)),
        ] {
            assert_eq!(tree.open_beneath(path.as_bytes()).err(), want, "{path:?}");
        }
    }
}
