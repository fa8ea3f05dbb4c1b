//! The tree of files below the root, and nothing above it.
//!
//! In: paths relative to the root. Out: open files and directories. The kernel resolves each path
//! beneath the root's descriptor (openat2(2), RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS), so no
//! `..`, absolute name or symbolic link leads out, whatever happens to the tree meanwhile.
//! Symbolic links that stay inside are followed; an absolute one is rewritten to its target below
//! the root, and then resolved likewise. If the root's own path names another directory now, that
//! one is the root. The loop resolves only paths that the kernel has in memory (RESOLVE_CACHED).

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2, readlinkat};
use rustix::io::Errno;

/// Most attempts of a walk that a rename interrupts.
const MAX_RESOLVE_ATTEMPTS: usize = 8;

/// Most symbolic links expanded for a path with an absolute one, as in the kernel.
const MAX_LINKS: usize = 40;

/// Longest path after an expansion, in bytes: the kernel's PATH_MAX.
const MAX_EXPANDED_BYTES: usize = 4096;

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
    /// It changes too quickly to be read as a whole.
    #[error("changes too quickly")]
    Unsettled,
    /// The process is out of descriptors, or the machine out of memory.
    #[error("out of descriptors")]
    NoDescriptors,
}

/// A root directory.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
    root: Mutex<Root>,
}

#[derive(Clone, Debug)]
struct Root {
    descriptor: Arc<OwnedFd>,
    /// Device and inode number.
    identity: (u64, u64),
}

impl Root {
    fn of(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            identity: (metadata.dev(), metadata.ino()),
            descriptor: Arc::new(file.into()),
        })
    }
}

/// The kernel's knowledge about a path, without a disk.
#[derive(Debug)]
pub enum Peeked {
    /// It names this.
    Here(Metadata),
    /// It cannot be served.
    Refused(Refusal),
    /// Not enough: a thread must look.
    Unknown,
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
        match File::open(root).and_then(Root::of) {
            Ok(root) => Ok(Self {
                path,
                root: Mutex::new(root),
            }),
            Err(error) => Err(unreadable(path, error)),
        }
    }

    /// Opens `path` relative to the root; an empty path is the root. May wait for a disk, but not for
    /// the other end of a FIFO.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn open_beneath(&self, path: &[u8]) -> Result<File, Refusal> {
        let root = self.follow().descriptor;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut path = path.to_vec();
        for _ in 0..MAX_LINKS {
            match resolve(&root, &path, flags) {
                Err(Errno::XDEV) => {}
                other => return other.map(File::from).map_err(refusal),
            }
            path = self.expand(&root, &path).ok_or(Refusal::Forbidden)?;
        }
        Err(Refusal::Forbidden)
    }

    /// Resolves `path` as far as the kernel has it in memory. Never waits.
    #[must_use]
    pub fn peek(&self, path: &[u8]) -> Peeked {
        let root = self.lock().descriptor.clone();
        let path = if path.is_empty() { b"." } else { path };
        let found = openat2(&root, path, LOOK_ONLY, Mode::empty(), BENEATH | CACHED);
        match found.map_err(refusal_if_certain) {
            Ok(descriptor) => match File::from(descriptor).metadata() {
                Ok(metadata) => Peeked::Here(metadata),
                Err(_) => Peeked::Unknown,
            },
            Err(Some(refusal)) => Peeked::Refused(refusal),
            Err(None) => Peeked::Unknown,
        }
    }

    /// Whether the root's path still names the root, as far as the kernel has it in memory, or names
    /// nothing. Never waits.
    #[must_use]
    pub fn is_same_root(&self) -> bool {
        let resolve = ResolveFlags::NO_MAGICLINKS | CACHED;
        match openat2(CWD, &self.path, LOOK_ONLY, Mode::empty(), resolve) {
            Ok(descriptor) => Root::of(File::from(descriptor))
                .is_ok_and(|root| root.identity == self.lock().identity),
            Err(Errno::NOENT) => true,
            Err(_) => false,
        }
    }

    /// Returns the root, which is another directory if the root's path names another one now.
    fn follow(&self) -> Root {
        if let Ok(metadata) = std::fs::metadata(&self.path)
            && metadata.is_dir()
            && (metadata.dev(), metadata.ino()) != self.lock().identity
            && let Ok(root) = File::open(&self.path).and_then(Root::of)
        {
            *self.lock() = root;
        }
        self.lock().clone()
    }

    /// Replaces the first symbolic link in `path` by its target; `None` if there is none, or if it is
    /// absolute and leads out of the root.
    fn expand(&self, root: &OwnedFd, path: &[u8]) -> Option<Vec<u8>> {
        let segments: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
        for (index, name) in segments.iter().enumerate() {
            let before = segments.get(..index)?.join(&b'/');
            let parent = resolve(root, &before, LOOK_ONLY).ok()?;
            let Ok(target) = readlinkat(&parent, *name, Vec::new()) else {
                continue;
            };
            let mut parts = match target.as_bytes().starts_with(b"/") {
                true => {
                    vec![self.inside(Path::new(std::ffi::OsStr::from_bytes(target.as_bytes())))?]
                }
                false => vec![before, target.into_bytes()],
            };
            parts.extend(segments.get(index + 1..)?.iter().map(|part| part.to_vec()));
            parts.retain(|part| !part.is_empty());
            let expanded = parts.join(&b'/');
            return (expanded.len() <= MAX_EXPANDED_BYTES).then_some(expanded);
        }
        None
    }

    /// Returns the part of an absolute path below the root's path.
    fn inside(&self, target: &Path) -> Option<Vec<u8>> {
        let names = [
            std::path::absolute(&self.path).ok(),
            std::fs::canonicalize(&self.path).ok(),
        ];
        let mut names = names.into_iter().flatten();
        let rest = names.find_map(|name| target.strip_prefix(name).ok().map(Path::to_path_buf))?;
        Some(rest.into_os_string().as_bytes().to_vec())
    }

    /// Locks the root; consistent even after a panic, since each change is a single step.
    fn lock(&self) -> MutexGuard<'_, Root> {
        self.root.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves a path beneath the root.
fn resolve(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    for _ in 0..MAX_RESOLVE_ATTEMPTS {
        match openat2(root, path, flags, Mode::empty(), BENEATH) {
            // openat2(2): a rename interrupted the walk; try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Returns the refusal that a look without a disk makes certain.
fn refusal_if_certain(error: Errno) -> Option<Refusal> {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL => Some(refusal(error)),
        Errno::ACCESS | Errno::PERM | Errno::LOOP => Some(Refusal::Forbidden),
        // XDEV: perhaps an absolute link that stays inside.
        _ => None,
    }
}

fn refusal(error: Errno) -> Refusal {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL => Refusal::NotFound,
        // XDEV: outside of the root; LOOP: a symlink loop; NXIO, NODEV: a socket or device.
        Errno::ACCESS | Errno::PERM | Errno::XDEV | Errno::LOOP | Errno::NXIO | Errno::NODEV => {
            Refusal::Forbidden
        }
        Errno::AGAIN => Refusal::Unsettled,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => Refusal::NoDescriptors,
        _ => Refusal::Failed,
    }
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

const CACHED: ResolveFlags = ResolveFlags::CACHED;

/// Flags to resolve a path without opening its file.
const LOOK_ONLY: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

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
        symlink(root.join("inside"), root.join("absolute-in")).unwrap();
        symlink(root.join("sub"), root.join("absolute-sub")).unwrap();
        symlink("absolute-sub/up", root.join("twice")).unwrap();
        symlink(root.join("../secret"), root.join("absolute-out")).unwrap();
        symlink("absolute-out", root.join("relative-out")).unwrap();
        symlink("../inside", root.join("sub/up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        let tree = Tree::open(&root).unwrap();
        for (path, want) in [
            ("inside", None),
            ("in", None),
            ("sub/up", None),
            ("sub/../inside", None),
            ("absolute-in", None),
            ("absolute-sub/up", None),
            ("twice", None),
            ("absolute-out", Some(Refusal::Forbidden)),
            ("relative-out", Some(Refusal::Forbidden)),
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

    #[test]
    fn the_root_is_followed_when_its_path_names_another_directory() {
        let folder = tempfile::tempdir().unwrap();
        for release in ["1", "2"] {
            std::fs::create_dir(folder.path().join(release)).unwrap();
            std::fs::write(folder.path().join(release).join("f"), release).unwrap();
        }
        let current = folder.path().join("current");
        symlink("1", &current).unwrap();
        let tree = Tree::open(&current).unwrap();
        let content = || {
            let mut text = String::new();
            io::Read::read_to_string(&mut tree.open_beneath(b"f").unwrap(), &mut text).unwrap();
            text
        };
        assert_eq!((content().as_str(), tree.is_same_root()), ("1", true));
        symlink("2", folder.path().join("next")).unwrap();
        std::fs::rename(folder.path().join("next"), &current).unwrap();
        assert!(!tree.is_same_root());
        assert_eq!((content().as_str(), tree.is_same_root()), ("2", true));
        std::fs::remove_file(&current).unwrap();
        assert_eq!(content(), "2", "until there is another");
        std::fs::create_dir(&current).unwrap();
        std::fs::write(current.join("f"), "3").unwrap();
        assert_eq!(content(), "3");
    }

    #[test]
    fn a_peek_agrees_with_a_look_or_leaves_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("inside"), b"i").unwrap();
        symlink("/etc/passwd", folder.path().join("out")).unwrap();
        symlink(folder.path().join("inside"), folder.path().join("in")).unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        tree.open_beneath(b"inside").unwrap();
        let peeked = tree.peek(b"inside");
        assert!(matches!(peeked, Peeked::Here(metadata) if metadata.len() == 1));
        for name in [&b"out"[..], b"in"] {
            assert!(matches!(tree.peek(name), Peeked::Unknown));
        }
        assert!(!matches!(tree.peek(b"none"), Peeked::Here(_)));
        assert!(!matches!(tree.peek(b".."), Peeked::Here(_)));
    }
}
