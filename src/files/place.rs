//! A name in a directory that is held open, and the operations on it that the policy allows.
//!
//! In: a path, resolved component by component, so that each symbolic link is examined before it is
//! followed. Out: files, opened relative to the directory and never through a link. Entries of procfs
//! (`/dev/stdout`) are opened by the kernel: their links name open files, not paths.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
#[cfg(any(feature = "cli", test))]
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};
#[cfg(any(feature = "cli", test))]
use rustix::fs::linkat;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, fchmod, fstat, fstatfs,
    ftruncate, openat, readlinkat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{geteuid, umask};

use super::{Refused, beside};

/// Most symbolic links in a path, as in Linux.
pub(crate) const MAX_LINKS: usize = 40;

/// Most attempts to find a name that does not exist, or to open one that others create and remove.
const MAX_ATTEMPTS: usize = 16;

/// Permission bits by which others may write.
const WRITABLE: u32 = 0o022;

/// Permission bits without set-user-id, set-group-id and sticky.
const PERMISSIONS: u32 = 0o777;

const ROOT: u32 = 0;

/// A name in a directory; see the head of this file.
#[derive(Debug)]
pub(crate) struct Place {
    dir: OwnedFd,
    name: OsString,
    path: PathBuf,
    /// Others may write to the directory.
    shared: bool,
    /// The directory is on procfs.
    magic: bool,
    /// This user.
    us: u32,
}

/// The file at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The kind of file.
    pub(crate) kind: FileType,
    /// Its owner.
    pub(crate) owner: u32,
    /// Its permissions, with set-user-id and the like.
    pub(crate) mode: u32,
    /// The number of its names.
    pub(crate) names: u64,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// Device and inode.
    pub(crate) identity: (u64, u64),
}

impl Seen {
    #[allow(
        clippy::useless_conversion,
        reason = "the type of the count differs between machines"
    )]
    fn new(stat: &Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            owner: stat.st_uid,
            mode: stat.st_mode & 0o7777,
            names: u64::from(stat.st_nlink),
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            identity: (stat.st_dev, stat.st_ino),
        }
    }

    /// Returns the state of an open file.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::new(&fstat(file)?))
    }

    /// Whether it is a regular file.
    pub(crate) fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }
}

impl Place {
    /// Resolves a path. Its last component need not exist.
    ///
    /// # Errors
    /// The operating system's error, or [`Refused::Link`].
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Self::of_user(path, geteuid().as_raw())
    }

    pub(super) fn of_user(path: &Path, us: u32) -> io::Result<Self> {
        let mut walk = Walk::new(path, us)?;
        loop {
            let name = walk.pending.pop().ok_or(ErrorKind::IsADirectory)?;
            let last = walk.pending.is_empty();
            let (shared, magic) = walk.examine()?;
            if last && (magic || !walk.follow(&name, shared)?) {
                if name == ".." {
                    return Err(ErrorKind::IsADirectory.into());
                }
                return Ok(Self {
                    path: walk.path.join(&name),
                    dir: walk.dir,
                    name,
                    shared,
                    magic,
                    us,
                });
            }
            if !last {
                walk.descend(name, shared, magic)?;
            }
        }
    }

    /// The path, without symbolic links.
    #[cfg(any(feature = "cli", test))]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the place of a file beside this one: its name and `suffix`, cut if necessary.
    pub(crate) fn beside(&self, suffix: &str) -> io::Result<Self> {
        self.named(beside(&self.name, suffix))
    }

    fn named(&self, name: OsString) -> io::Result<Self> {
        Ok(Self {
            dir: self.dir.try_clone()?,
            path: self.path.with_file_name(&name),
            name,
            shared: self.shared,
            magic: self.magic,
            us: self.us,
        })
    }

    /// Examines the file here, if there is one, without following a link.
    pub(crate) fn look(&self) -> io::Result<Option<Seen>> {
        let flags = match self.magic {
            true => AtFlags::empty(),
            false => AtFlags::SYMLINK_NOFOLLOW,
        };
        match statat(&self.dir, &self.name, flags) {
            Ok(stat) => Ok(Some(Seen::new(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a file may be read, written or replaced here.
    ///
    /// # Errors
    /// [`Refused`].
    pub(crate) fn trust(&self, seen: &Seen) -> Result<(), Refused> {
        let regular = seen.is_file();
        let known = seen.owner == self.us || (seen.owner == ROOT && !regular);
        if self.shared && !self.magic && !known {
            return Err(if seen.kind == FileType::Symlink {
                Refused::Link(seen.owner)
            } else {
                Refused::Owner(seen.owner)
            });
        }
        Ok(())
    }

    /// Whether a file is private: regular, ours, and not writable by others.
    #[cfg(any(feature = "cli", test))]
    fn check_private(&self, seen: &Seen) -> Result<(), Refused> {
        match seen {
            _ if !seen.is_file() => Err(Refused::Kind),
            Seen { owner, .. } if *owner != self.us => Err(Refused::Owner(*owner)),
            Seen { names, .. } if *names > 1 => Err(Refused::Names(*names)),
            Seen { mode, .. } if mode & WRITABLE != 0 => Err(Refused::Writable(*mode)),
            _ => Ok(()),
        }
    }

    /// Whether a file belongs to this user.
    pub(crate) const fn is_ours(&self, seen: &Seen) -> bool {
        seen.owner == self.us
    }

    fn open(&self, flags: OFlags, mode: u32) -> io::Result<File> {
        let link = match self.magic {
            true => OFlags::empty(),
            false => OFlags::NOFOLLOW,
        };
        let flags = flags | link | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mode = Mode::from_raw_mode(mode);
        match openat(&self.dir, &self.name, flags, mode) {
            Ok(file) => Ok(file.into()),
            // A link that was put here after `of` had examined the name.
            Err(Errno::LOOP) => Err(Refused::Kind.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a regular file for reading. One of root may be read in a shared directory, too.
    ///
    /// # Errors
    /// The operating system's error, or [`Refused`].
    pub(crate) fn open_to_read(&self) -> io::Result<File> {
        let file = self.open(OFlags::RDONLY, 0)?;
        let seen = Seen::of(&file)?;
        if !seen.is_file() {
            return Err(Refused::Kind.into());
        }
        if seen.owner != ROOT {
            self.trust(&seen)?;
        }
        Ok(file)
    }

    /// Opens a regular file that only this user or root may have written, for reading. To root, one of
    /// another user is good enough unless the directory is shared.
    ///
    /// # Errors
    /// The operating system's error, or [`Refused`].
    pub(crate) fn open_secret(&self) -> io::Result<File> {
        let file = self.open_to_read()?;
        let seen = Seen::of(&file)?;
        if seen.owner != self.us && seen.owner != ROOT && self.us != ROOT {
            return Err(Refused::Owner(seen.owner).into());
        }
        Ok(file)
    }

    /// Opens the file here, of whatever kind, neither to read nor to write it.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn hold(&self) -> io::Result<File> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.dir, &self.name, flags, Mode::empty())?.into())
    }

    /// Creates a file that does not exist yet.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn create_new(&self, mode: u32) -> io::Result<File> {
        self.open(OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, mode)
    }

    /// Opens a file to be written in place, and truncates it if it is regular; creates it if there is
    /// none. A FIFO without a reader fails with `ENXIO`, as a socket does.
    ///
    /// # Errors
    /// The operating system's error, or [`Refused`].
    pub(crate) fn open_in_place(&self) -> io::Result<File> {
        for _ in 0..MAX_ATTEMPTS {
            if let Some(seen) = self.look()? {
                // Before opening: a FIFO notices that.
                self.trust(&seen)?;
            }
            match self.open(OFlags::WRONLY, 0) {
                Ok(file) => return self.truncated(file),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            match self.open(OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, 0o666) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => return created,
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    fn truncated(&self, file: File) -> io::Result<File> {
        let seen = Seen::of(&file)?;
        self.trust(&seen)?;
        if seen.is_file() {
            if self.shared && seen.names > 1 {
                return Err(Refused::Names(seen.names).into());
            }
            ftruncate(&file, 0)?;
        }
        Ok(file)
    }

    /// Opens a private file for reading and writing; creates it, with mode 0600, if there is none.
    ///
    /// # Errors
    /// The operating system's error, or [`Refused`].
    #[cfg(any(feature = "cli", test))]
    pub(crate) fn open_private(&self) -> io::Result<File> {
        for _ in 0..MAX_ATTEMPTS {
            match self.open(OFlags::RDWR, 0) {
                Ok(file) => {
                    self.check_private(&Seen::of(&file)?)?;
                    return Ok(file);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // A file of another user, most likely: say so.
                Err(error) => {
                    return Err(match self.look()? {
                        Some(seen) => self
                            .check_private(&seen)
                            .map_or_else(Into::into, |()| error),
                        None => error,
                    });
                }
            }
            match self.create_new(0o600) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => return created,
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Creates a file beside this one under an unpredictable name.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn temporary(&self) -> io::Result<(Self, File)> {
        let random = SystemRandom::new();
        for _ in 0..MAX_ATTEMPTS {
            let mut bytes = [0; 8];
            let drawn = random.fill(&mut bytes);
            drawn.map_err(|_| io::Error::other("no randomness from the system"))?;
            let suffix = format!(".{:016x}.tmp", u64::from_ne_bytes(bytes));
            let new = self.beside(&suffix)?;
            match new.create_new(0o600) {
                Ok(file) => return Ok((new, file)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Gives `file`, which is to replace the one here, its permissions: those of a file of this user
    /// here, else those of a new file.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn dress(&self, file: &File) -> io::Result<()> {
        let ours = self
            .look()?
            .filter(|seen| seen.is_file() && seen.owner == self.us);
        let mode = ours.map_or_else(|| 0o666 & !file_mask(), |seen| seen.mode & PERMISSIONS);
        Ok(fchmod(file, Mode::from_raw_mode(mode))?)
    }

    /// Puts the file `new` into this place: by a rename, or by a copy onto a mount point or into a file
    /// with several names.
    ///
    /// # Errors
    /// The operating system's error, or [`Refused`]; after a failed copy, `new` is whole.
    pub(crate) fn put(&self, new: &Self) -> io::Result<()> {
        let seen = self.look()?;
        if let Some(seen) = &seen {
            self.trust(seen)?;
        }
        let regular = seen.filter(Seen::is_file);
        if regular.is_some_and(|seen| seen.names > 1 && !self.shared) {
            return self.copy_from(new);
        }
        match renameat(&new.dir, &new.name, &self.dir, &self.name) {
            Err(Errno::BUSY | Errno::XDEV) if regular.is_some() => self.copy_from(new),
            renamed => Ok(renamed?),
        }
    }

    fn copy_from(&self, new: &Self) -> io::Result<()> {
        let mut source = new.open(OFlags::RDONLY, 0)?;
        io::copy(&mut source, &mut self.open_in_place()?)?;
        new.remove()
    }

    /// Replaces the content as a whole. `secret`: with mode 0600.
    ///
    /// # Errors
    /// The operating system's error, or [`Refused`]; an existing file is then unchanged.
    pub(crate) fn write_whole(&self, content: &[u8], secret: bool) -> io::Result<()> {
        if let Some(seen) = self.look()? {
            if !seen.is_file() {
                return Err(Refused::Kind.into());
            }
            self.trust(&seen)?;
        }
        let (new, mut file) = self.temporary()?;
        let written = file
            .write_all(content)
            .and_then(|()| if secret { Ok(()) } else { self.dress(&file) })
            .and_then(|()| self.put(&new));
        if written.is_err() {
            // Most likely the disk is full: leave nothing on it.
            let _ = new.remove();
        }
        written
    }

    /// Creates a private file with this content, unless there is a file; returns whether it did. Other
    /// programs find the whole content or no file.
    ///
    /// # Errors
    /// The operating system's error.
    #[cfg(any(feature = "cli", test))]
    pub(crate) fn create_whole(&self, content: &[u8]) -> io::Result<bool> {
        let (new, mut file) = self.temporary()?;
        let linked = file
            .write_all(content)
            .and_then(|()| file.sync_all())
            .and_then(|()| {
                let flags = AtFlags::empty();
                Ok(linkat(&new.dir, &new.name, &self.dir, &self.name, flags)?)
            });
        new.remove()?;
        match linked {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the file.
    ///
    /// # Errors
    /// The operating system's error.
    pub(crate) fn remove(&self) -> io::Result<()> {
        Ok(unlinkat(&self.dir, &self.name, AtFlags::empty())?)
    }
}

/// The permission bits that new files do not get.
fn file_mask() -> u32 {
    // It can only be read by setting it; for this moment new files are private.
    let mask = umask(Mode::from_raw_mode(0o077));
    umask(mask);
    mask.as_raw_mode()
}

/// A path on the way to its last component.
struct Walk {
    dir: OwnedFd,
    path: PathBuf,
    /// Components to go, the next one last.
    pending: Vec<OsString>,
    links: usize,
    us: u32,
}

impl Walk {
    fn new(path: &Path, us: u32) -> io::Result<Self> {
        let mut walk = Self {
            dir: open_dir(CWD, ".".as_ref(), OFlags::empty())?,
            path: PathBuf::new(),
            pending: Vec::new(),
            links: 0,
            us,
        };
        walk.push(path)?;
        Ok(walk)
    }

    /// Prepends a path to the components to go.
    fn push(&mut self, path: &Path) -> io::Result<()> {
        for component in path.components().rev() {
            match component {
                Component::Normal(_) | Component::ParentDir => {
                    self.pending.push(component.as_os_str().to_owned());
                }
                Component::RootDir => {
                    self.dir = open_dir(CWD, "/".as_ref(), OFlags::empty())?;
                    self.path = PathBuf::from("/");
                }
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(())
    }

    /// Returns whether the directory is shared, and whether it is on procfs.
    fn examine(&self) -> io::Result<(bool, bool)> {
        let shared = fstat(&self.dir)?.st_mode & WRITABLE != 0;
        let magic = fstatfs(&self.dir)?.f_type == PROC_SUPER_MAGIC;
        Ok((shared, magic))
    }

    /// Replaces `name` by the target if it is a symbolic link; returns whether it is one.
    fn follow(&mut self, name: &OsStr, shared: bool) -> io::Result<bool> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let link = match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(link) => link,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let seen = Seen::new(&fstat(&link)?);
        if seen.kind != FileType::Symlink {
            return Ok(false);
        }
        if shared && seen.owner != self.us && seen.owner != ROOT {
            return Err(Refused::Link(seen.owner).into());
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = OsString::from_vec(readlinkat(&link, "", Vec::new())?.into_bytes());
        self.push(Path::new(&target))?;
        Ok(true)
    }

    fn descend(&mut self, name: OsString, shared: bool, magic: bool) -> io::Result<()> {
        let no_follow = match magic {
            true => OFlags::empty(),
            false => OFlags::NOFOLLOW,
        };
        match open_dir(self.dir.as_fd(), &name, no_follow) {
            Ok(dir) => {
                self.dir = dir;
                self.path.push(name);
                Ok(())
            }
            Err(error) if self.follow(&name, shared)? => {
                log::trace!("{} is a link ({error})", self.path.join(name).display());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn open_dir(at: impl std::os::fd::AsFd, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

/// Creates a directory that only this user may enter, and those above it, unless they exist.
///
/// # Errors
/// The operating system's error.
#[cfg(any(feature = "cli", test))]
pub(crate) fn make_private_directory(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path)
}

/// Reads at most `most` bytes of a file; `None` if it is longer.
///
/// # Errors
/// The operating system's error.
pub(crate) fn read_bounded(file: &File, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = file.take(most + 1).read_to_end(&mut bytes)?;
    Ok((u64::try_from(read).unwrap_or(u64::MAX) <= most).then_some(bytes))
}
