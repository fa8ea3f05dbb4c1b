//! A bounded store of digests by [`Stamp`], and its text form in a file that survives a restart.
//!
//! In: stamps and digests. Out: digests. The operator names the file. It has one line per digest,
//! `device inode size mtime_ns ctime_ns hex`. A malformed line is skipped, never an error; a lost
//! digest is computed again. Saving replaces the file atomically, mode 0600.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::apps::origin::digest::{Sha256, Stamp};
use crate::files::{Place, Seen, read_bounded};

/// Most digests stored; the oldest is evicted first.
pub const MAX_DIGESTS: usize = 4096;

/// Longest accepted store file, in bytes: more than `MAX_DIGESTS` lines.
pub const MAX_STORE_BYTES: u64 = 1 << 20;

/// Digests by stamp.
#[derive(Clone, Debug, Default)]
pub struct DigestStore {
    digests: BTreeMap<Stamp, Sha256>,
    order: VecDeque<Stamp>,
}

impl DigestStore {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the digest for `stamp`, if stored.
    #[must_use]
    pub fn get(&self, stamp: &Stamp) -> Option<Sha256> {
        self.digests.get(stamp).copied()
    }

    /// Stores a digest; evicts the oldest if the store is full.
    pub fn insert(&mut self, stamp: Stamp, digest: Sha256) {
        if self.digests.insert(stamp, digest).is_some() {
            return;
        }
        self.order.push_back(stamp);
        if self.order.len() > MAX_DIGESTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.digests.remove(&oldest);
        }
    }

    /// The number of digests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Whether the store is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// Loads a store file. A file that other users may write to, or a longer one than
    /// [`MAX_STORE_BYTES`], counts as empty; malformed lines are skipped.
    ///
    /// # Errors
    /// The operating system's error, or that another user owns the file; a file that does not exist is
    /// an empty store.
    pub fn load(path: &Path) -> io::Result<Self> {
        let file = match Place::of(path).and_then(|place| place.open_secret()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new()),
            Err(error) => return Err(error),
        };
        if Seen::of(&file)?.mode & 0o022 != 0 {
            return Ok(Self::new());
        }
        let bytes = read_bounded(&file, MAX_STORE_BYTES)?;
        Ok(Self::parse(&bytes.unwrap_or_default()))
    }

    /// Saves the store to a file, atomically but onto a mount point.
    ///
    /// # Errors
    /// The operating system's error; an existing file is then unchanged.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        Place::of(path)?.write_whole(self.emit().as_bytes(), true)
    }

    fn parse(bytes: &[u8]) -> Self {
        let mut store = Self::new();
        for line in bytes.split(|&byte| byte == b'\n') {
            if let Some((stamp, digest)) = str::from_utf8(line).ok().and_then(parse_line) {
                store.insert(stamp, digest);
            }
        }
        store
    }

    fn emit(&self) -> String {
        let mut out = String::new();
        for (stamp, digest) in self
            .order
            .iter()
            .filter_map(|stamp| self.digests.get_key_value(stamp))
        {
            let Stamp {
                device,
                inode,
                size,
                modified_ns,
                changed_ns,
            } = stamp;
            // Writing to a string cannot fail.
            let _ = write!(out, "{device} {inode} {size} {modified_ns} {changed_ns} ");
            for byte in digest {
                let _ = write!(out, "{byte:02x}");
            }
            out.push('\n');
        }
        out
    }
}

fn parse_line(line: &str) -> Option<(Stamp, Sha256)> {
    let mut words = line.split(' ');
    let stamp = Stamp {
        device: words.next()?.parse().ok()?,
        inode: words.next()?.parse().ok()?,
        size: words.next()?.parse().ok()?,
        modified_ns: words.next()?.parse().ok()?,
        changed_ns: words.next()?.parse().ok()?,
    };
    let hex = words.next()?;
    if hex.len() != 64 || words.next().is_some() {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some((stamp, digest))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn stamp(inode: u64) -> Stamp {
        Stamp {
            device: 1,
            inode,
            size: 2,
            modified_ns: -3,
            changed_ns: i64::MAX,
        }
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let mut store = DigestStore::new();
        for inode in 0..=u64::try_from(MAX_DIGESTS).unwrap() {
            assert_eq!(store.get(&stamp(0)).is_some(), inode != 0, "{inode}");
            store.insert(stamp(inode), [1; 32]);
            store.insert(stamp(inode), [2; 32]);
        }
        assert_eq!(store.len(), MAX_DIGESTS);
        assert_eq!(store.get(&stamp(0)), None);
        assert_eq!(store.get(&stamp(1)), Some([2; 32]));
        assert!(u64::try_from(store.emit().len()).unwrap() <= MAX_STORE_BYTES);
    }

    #[test]
    fn a_store_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digests");
        assert!(DigestStore::load(&path).unwrap().is_empty(), "no file yet");
        let mut store = DigestStore::new();
        store.insert(stamp(1), [0xab; 32]);
        for _ in 0..2 {
            store.save(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing left over"
        );
        assert_eq!(
            DigestStore::load(&path).unwrap().get(&stamp(1)),
            Some([0xab; 32])
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
        assert!(
            DigestStore::load(&path).unwrap().is_empty(),
            "others could have written it"
        );
    }

    #[test]
    fn only_a_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(DigestStore::new().save(&path).is_err());
        assert!(!fs::metadata(&path).unwrap().is_file());
    }

    #[test]
    fn broken_lines_are_skipped() {
        let hex = "0".repeat(64);
        let good = format!("1 7 2 -3 {} {hex}", i64::MAX);
        for (name, line) in [
            ("empty", String::new()),
            ("cut", good[..good.len() - 1].to_owned()),
            ("word too many", format!("{good} x")),
            ("not hex", good.replace("00", "zz")),
            ("sign in hex", good.replace("00", "+0")),
            ("negative", good.replacen('1', "-1", 1)),
            ("not utf-8", "\u{fffd}".to_owned()),
        ] {
            let store = DigestStore::parse(format!("{line}\n{good}\n").as_bytes());
            assert_eq!(store.len(), 1, "{name}");
            assert_eq!(store.get(&stamp(7)), Some([0; 32]), "{name}");
        }
    }
}
