//! `headwater keygen`: creates a key ring file with one active generation. Also loads such files.
//!
//! In: a path. Out: a file of mode 0600, or a failure. Never overwrites a file, never prints a
//! secret, never reads a key file that other users may open or that belongs to one. Randomness comes straight from the
//! operating system: a secret must not depend on a seed that could be repeated.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::cli::exit::{Exit, Failed};
use crate::files::{Place, Refused, Seen, make_private_directory, read_bounded};
use crate::transport::keys::{KeyRing, SECRET_BYTES};

/// Longest accepted key file, in bytes; a full ring with comments is shorter.
pub const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;

/// Permission bits of group and others; a key file must have none of them.
const FOREIGN_BITS: u32 = 0o077;

/// Arguments of `headwater keygen`.
#[derive(Debug, clap::Args)]
pub struct KeygenArgs {
    /// Key ring file to create; it must not exist
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Creates a key ring file.
///
/// # Errors
/// [`Exit::KeyFile`] if the file exists or cannot be written.
pub fn run(args: &KeygenArgs) -> Result<Exit, Failed> {
    let path = args.out.display();
    let text = new_ring()?;
    let created =
        Place::of(&args.out).and_then(|place| place.create_new(0o600).map(|file| (place, file)));
    let (place, mut file) = created.map_err(|error| {
        let advice = if error.kind() == io::ErrorKind::AlreadyExists {
            format!("{path} exists and servers may depend on it: choose another name or remove it")
        } else {
            format!("cannot create {path} ({error}): choose a directory you may write to")
        };
        Failed::new(Exit::KeyFile, advice)
    })?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|error| {
        // A partial key ring is useless and would block the next attempt.
        let _ = place.remove();
        Failed::new(
            Exit::KeyFile,
            format!("cannot write {path} ({error}): free some space"),
        )
    })?;
    Ok(Exit::Success)
}

/// Returns the text of a key ring with a new secret.
fn new_ring() -> Result<String, Failed> {
    let mut secret = [0; SECRET_BYTES];
    SystemRandom::new().fill(&mut secret).map_err(|_| {
        Failed::new(
            Exit::KeyFile,
            "no randomness from the system: try again later",
        )
    })?;
    Ok(KeyRing::with_secret(secret).to_text())
}

/// Loads the key ring of this user on this machine, which is created if it does not exist.
///
/// # Errors
/// Those of [`load`], and [`Exit::KeyFile`] if it cannot be created.
pub fn load_own() -> Result<KeyRing, Failed> {
    let home = state_home(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"));
    let home = home.ok_or_else(|| {
        let advice =
            "no home directory for a key file: use --keys FILE, made by `headwater keygen`";
        Failed::new(Exit::KeyFile, advice)
    })?;
    load_or_create(&home.join("headwater").join("keys"))
}

/// The directory for files that a user's programs keep: of the XDG base directories.
pub(super) fn state_home(xdg: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    xdg.and_then(absolute)
        .or_else(|| Some(home.and_then(absolute)?.join(".local").join("state")))
}

fn load_or_create(path: &Path) -> Result<KeyRing, Failed> {
    let name = path.display();
    let created = create(path).map_err(|error| {
        let advice = format!(
            "cannot create key file {name} ({error}): use --keys FILE, made by `headwater keygen`"
        );
        Failed::new(Exit::KeyFile, advice)
    })?;
    if created {
        log::info!("created key file {name}; further servers of the service need a copy");
    } else {
        log::info!("key file {name}");
    }
    load(path)
}

/// Creates a key ring file, unless there is one; returns whether it did.
fn create(path: &Path) -> io::Result<bool> {
    if let Some(directory) = path.parent() {
        make_private_directory(directory)?;
    }
    let place = Place::of(path)?;
    if place.look()?.is_some() {
        return Ok(false);
    }
    let ring = new_ring().map_err(io::Error::other)?;
    place.create_whole(ring.as_bytes())
}

/// Loads a key ring file.
///
/// # Errors
/// [`Exit::KeyFile`], [`Exit::KeyFileMode`] or [`Exit::KeyFileContent`].
pub fn load(path: &Path) -> Result<KeyRing, Failed> {
    let name = path.display();
    let unreadable = |error: io::Error| {
        let refused = error.get_ref().and_then(|why| why.downcast_ref());
        let advice = match refused {
            Some(Refused::Owner(uid)) => format!(
                "key file {name} belongs to another user (uid {uid}): make your own with `headwater keygen`"
            ),
            Some(Refused::Kind) => {
                format!("{name} is not a regular file: use a file made by `headwater keygen`")
            }
            _ if error.kind() == io::ErrorKind::NotFound => {
                format!("key file {name} is missing: make one with `headwater keygen --out {name}`")
            }
            _ => format!("cannot read key file {name} ({error}): check its owner and permissions"),
        };
        Failed::new(Exit::KeyFile, advice)
    };
    let file = Place::of(path)
        .and_then(|place| place.open_secret())
        .map_err(unreadable)?;
    let mode = Seen::of(&file).map_err(unreadable)?.mode;
    if mode & FOREIGN_BITS != 0 {
        let advice = format!("key file {name} has mode {mode:04o}: run `chmod 600 {name}`");
        return Err(Failed::new(Exit::KeyFileMode, advice));
    }
    let malformed = |why: &dyn core::fmt::Display| {
        Failed::new(Exit::KeyFileContent, format!("key file {name}: {why}"))
    };
    let bytes = read_bounded(&file, MAX_KEY_FILE_BYTES).map_err(unreadable)?;
    let bytes = bytes
        .ok_or_else(|| malformed(&"too long for a key ring; make one with `headwater keygen`"))?;
    let text = core::str::from_utf8(&bytes)
        .map_err(|_| malformed(&"not text; make one with `headwater keygen`"))?;
    KeyRing::parse(text).map_err(|error| malformed(&error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn written(dir: &Path, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_made_ring_loads_and_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let args = KeygenArgs {
            out: dir.path().join("keys"),
        };
        assert_eq!(run(&args), Ok(Exit::Success));
        let mode = std::fs::metadata(&args.out).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o600);
        let first = load(&args.out).unwrap().to_text();
        assert_eq!(run(&args).unwrap_err().exit, Exit::KeyFile);
        assert_eq!(load(&args.out).unwrap().to_text(), first);
    }

    #[test]
    fn the_ring_of_a_user_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state").join("headwater").join("keys");
        let rings = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| load_or_create(&path).map(|ring| ring.to_text())))
                .collect();
            let made = makers.into_iter().map(|maker| maker.join().unwrap());
            made.collect::<Result<Vec<_>, _>>().unwrap()
        });
        assert!(rings.iter().all(|ring| *ring == rings[0]), "{rings:?}");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600);
        let directory = path.parent().unwrap();
        assert_eq!(mode(directory), 0o700);
        assert_eq!(mode(directory.parent().unwrap()), 0o700);
        assert_eq!(std::fs::read_dir(directory).unwrap().count(), 1);
        // It is examined like one that was named.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load_or_create(&path).unwrap_err().exit, Exit::KeyFileMode);
        let nowhere = written(dir.path(), "file", b"", 0o600).join("keys");
        assert_eq!(load_or_create(&nowhere).unwrap_err().exit, Exit::KeyFile);
    }

    #[test]
    fn state_lies_in_the_home_directory() {
        let cases = [
            (Some("/state"), Some("/home/a"), Some("/state")),
            (None, Some("/home/a"), Some("/home/a/.local/state")),
            (Some(""), Some("/home/a"), Some("/home/a/.local/state")),
            (Some("state"), Some("home"), None),
            (None, None, None),
        ];
        for (xdg, home, want) in cases {
            let got = state_home(xdg.map(OsString::from), home.map(OsString::from));
            assert_eq!(got, want.map(PathBuf::from), "{xdg:?} {home:?}");
        }
    }

    #[test]
    fn bad_key_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let good = KeyRing::with_secret([9; SECRET_BYTES])
            .to_text()
            .into_bytes();
        let long = vec![b'#'; usize::try_from(MAX_KEY_FILE_BYTES).unwrap() + 1];
        let limit = [good.as_slice(), &long[good.len() + 1..]].concat();
        type Case<'a> = (&'a str, &'a [u8], u32, Result<(), Exit>);
        let cases: [Case<'_>; 8] = [
            ("good", &good, 0o600, Ok(())),
            ("read-only", &good, 0o400, Ok(())),
            ("at the bound", &limit, 0o600, Ok(())),
            ("past the bound", &long, 0o600, Err(Exit::KeyFileContent)),
            ("group may read", &good, 0o640, Err(Exit::KeyFileMode)),
            ("world may read", &good, 0o604, Err(Exit::KeyFileMode)),
            ("truncated", &good[..50], 0o600, Err(Exit::KeyFileContent)),
            ("binary", &[0xff, 0xfe], 0o600, Err(Exit::KeyFileContent)),
        ];
        for (name, content, mode, want) in cases {
            let path = written(dir.path(), "keys", content, mode);
            let got = load(&path).map(|_| ()).map_err(|failed| failed.exit);
            assert_eq!(got, want, "{name}");
        }
        assert_eq!(
            load(&dir.path().join("none")).unwrap_err().exit,
            Exit::KeyFile
        );
        assert_eq!(
            load(dir.path()).unwrap_err().exit,
            Exit::KeyFile,
            "a directory"
        );
    }
}
