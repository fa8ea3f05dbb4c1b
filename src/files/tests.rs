//! The policy on a real file system: planted entries of another user, links, races, long names.
//!
//! Run as root, they give planted entries to another user; run by another user, they examine own
//! entries as a third one.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::*;

const STRANGER: u32 = 65_534;

/// A directory with entries of another user.
struct Yard {
    folder: tempfile::TempDir,
    /// The user whose program runs.
    us: u32,
}

impl Yard {
    fn new(mode: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        let own = geteuid().as_raw();
        let us = if own == 0 { 0 } else { own + 1 };
        Self { folder, us }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives an entry to another user.
    fn give(&self, path: &Path) {
        if self.us == 0 {
            lchown(path, Some(STRANGER), Some(STRANGER)).unwrap();
        }
    }

    fn plant(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, "planted").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        self.give(&path);
        path
    }

    fn place(&self, path: &Path) -> io::Result<Place> {
        Place::of_user(path, self.us)
    }
}

fn refusal(error: &io::Error) -> Option<Refused> {
    error.get_ref()?.downcast_ref::<Refused>().copied()
}

fn is_owner(error: &io::Error) -> bool {
    matches!(refusal(error), Some(Refused::Owner(_)))
}

#[test]
fn names_beside_fit_and_differ() {
    let long =
        |last: char| OsString::from(format!("{}{last}", "n".repeat(MAX_FILE_NAME_BYTES - 1)));
    assert_eq!(beside("b".as_ref(), ".part"), "b.part");
    let fits = "n".repeat(MAX_FILE_NAME_BYTES - 5);
    assert_eq!(
        beside(fits.as_ref(), ".part"),
        format!("{fits}.part").as_str()
    );
    let [one, two] = ['1', '2'].map(|last| beside(&long(last), ".part"));
    assert_ne!(one, two);
    assert_eq!(one, beside(&long('1'), ".part"));
    for name in [one, two] {
        assert_eq!(name.len(), MAX_FILE_NAME_BYTES);
        assert!(name.as_bytes().ends_with(b".part"));
    }
}

#[test]
fn planted_links_are_followed_nowhere_in_a_shared_directory() {
    for mode in [0o777, 0o1777, 0o775, 0o755] {
        let yard = Yard::new(mode);
        let target = yard.path("target");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("file"), "precious").unwrap();
        let links = [
            (yard.path("dir"), PathBuf::from("target")),
            (yard.path("file"), target.join("file")),
            (yard.path("dangling"), target.join("new")),
        ];
        for (link, to) in &links {
            symlink(to, link).unwrap();
            yard.give(link);
        }
        for path in ["dir/file", "dir/new", "file", "dangling"] {
            let place = yard.place(&yard.path(path));
            if mode == 0o755 {
                assert!(
                    place.is_ok(),
                    "only its owner can have put them there: {path}"
                );
                continue;
            }
            let refused = refusal(&place.unwrap_err());
            assert!(matches!(refused, Some(Refused::Link(_))), "{mode:o} {path}");
        }
        assert_eq!(fs::read(target.join("file")).unwrap(), b"precious");
    }
}

#[test]
fn own_links_are_followed_by_every_way() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
    let real = folder.path().join("a/b");
    fs::create_dir_all(&real).unwrap();
    symlink("a", folder.path().join("rel")).unwrap();
    symlink(&real, folder.path().join("abs")).unwrap();
    symlink("../a/b/new", folder.path().join("a/up")).unwrap();
    symlink("loop", folder.path().join("loop")).unwrap();
    let canonical = folder.path().canonicalize().unwrap();
    for path in ["rel/b/new", "abs/new", "a/up", "a/./b/../b/new", "rel/up"] {
        let place = Place::of(&folder.path().join(path)).unwrap();
        assert_eq!(place.look().unwrap(), None);
        place.write_whole(path.as_bytes(), false).unwrap();
        assert_eq!(fs::read(real.join("new")).unwrap(), path.as_bytes());
        assert!(
            place.path().starts_with(&canonical),
            "{}",
            place.path().display()
        );
        place.remove().unwrap();
    }
    for path in ["loop", "loop/x", "none/x"] {
        assert!(Place::of(&folder.path().join(path)).is_err(), "{path}");
    }
    for path in ["/", ".", "..", "../..", ""] {
        let error = Place::of(Path::new(path)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory, "{path}");
    }
    // The standard output of a test is anything: it must not be resolved by name.
    assert!(Place::of(Path::new("/dev/stdout")).is_ok());
}

#[test]
fn forty_links_are_followed_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let link = |n: usize| folder.path().join(format!("l{n}"));
    symlink("end", link(0)).unwrap();
    for n in 1..=place::MAX_LINKS {
        symlink(format!("l{}", n - 1), link(n)).unwrap();
    }
    assert!(Place::of(&link(place::MAX_LINKS - 1)).is_ok());
    assert!(Place::of(&link(place::MAX_LINKS)).is_err());
}

#[test]
fn a_file_of_another_user_is_neither_read_nor_written_nor_replaced() {
    for mode in [0o777, 0o1777, 0o775] {
        let yard = Yard::new(mode);
        let path = yard.plant("file", 0o666);
        let place = yard.place(&path).unwrap();
        assert!(is_owner(&place.open_in_place().unwrap_err()));
        assert!(is_owner(&place.open_private().unwrap_err()));
        assert!(is_owner(&place.open_to_read().unwrap_err()));
        assert!(is_owner(&place.open_secret().unwrap_err()));
        assert!(is_owner(&place.write_whole(b"x", false).unwrap_err()));
        let (new, _) = place.temporary().unwrap();
        assert!(is_owner(&place.put(&new).unwrap_err()));
        assert_eq!(fs::read(&path).unwrap(), b"planted");
    }
}

#[test]
fn the_mode_of_another_users_file_is_not_handed_on() {
    let yard = Yard::new(0o755);
    let path = yard.plant("file", 0o666);
    let place = yard.place(&path).unwrap();
    place.write_whole(b"ours", false).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.mode() & 0o022, 0, "that of a new file");
    assert_eq!(metadata.uid(), geteuid().as_raw());
}

#[test]
fn a_secret_of_another_user_is_read_by_root_alone_and_not_where_others_plant() {
    for (mode, readable) in [(0o755, true), (0o1777, false)] {
        let yard = Yard::new(mode);
        let path = yard.plant("keys", 0o600);
        let secret = yard.place(&path).unwrap().open_secret();
        // Another user than root would need more rights to open it at all.
        assert_eq!(secret.is_ok(), readable && yard.us == 0, "{mode:o}");
    }
}

#[test]
fn fifos_of_others_get_nothing() {
    let yard = Yard::new(0o1777);
    let path = yard.path("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    yard.give(&path);
    assert!(is_owner(
        &yard.place(&path).unwrap().open_in_place().unwrap_err()
    ));
}

#[test]
fn a_file_with_several_names_is_written_in_place_unless_others_plant() {
    for (mode, shared) in [(0o755, false), (0o1777, true)] {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        let [path, other] = ["file", "other"].map(|name| folder.path().join(name));
        fs::write(&path, "before").unwrap();
        fs::hard_link(&path, &other).unwrap();
        let place = Place::of(&path).unwrap();
        assert_eq!(
            place.open_private().err().and_then(|e| refusal(&e)),
            Some(Refused::Names(2))
        );
        let refused = place
            .open_in_place()
            .err()
            .and_then(|error| refusal(&error));
        assert_eq!(refused, shared.then_some(Refused::Names(2)), "{mode:o}");
        place.write_whole(b"after", false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after");
        assert_eq!(fs::read(&other).unwrap() == b"after", !shared, "{mode:o}");
    }
}

#[test]
fn private_files_are_made_private_and_reused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let place = Place::of(&path).unwrap();
    let created = Seen::of(&place.open_private().unwrap()).unwrap();
    assert_eq!((created.mode, created.names, created.bytes), (0o600, 1, 0));
    assert_eq!(Seen::of(&place.open_private().unwrap()).unwrap(), created);
    for (mode, refused) in [(0o644, None), (0o602, Some(Refused::Writable(0o602)))] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let have = place.open_private().err().and_then(|error| refusal(&error));
        assert_eq!(have, refused);
    }
    fs::remove_file(&path).unwrap();
    symlink("elsewhere", &path).unwrap();
    assert!(
        place.open_private().is_err(),
        "put there after the name was examined"
    );
    assert!(place.open_in_place().is_err());
    assert!(place.create_new(0o600).is_err());
    assert!(!folder.path().join("elsewhere").exists());
}

#[test]
fn temporaries_differ_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    for length in [1, 237, 238, MAX_FILE_NAME_BYTES] {
        let path = folder.path().join("n".repeat(length));
        let place = Place::of(&path).unwrap();
        let [one, two] = [(); 2].map(|()| place.temporary().unwrap().0);
        assert_ne!(one.path(), two.path());
        for place in [one, two] {
            assert_eq!(place.look().unwrap().unwrap().mode, 0o600);
            place.remove().unwrap();
        }
        place.write_whole(b"x", true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        place.remove().unwrap();
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let place = Place::of(&folder.path().join("n".repeat(MAX_FILE_NAME_BYTES + 1)));
    assert!(place.and_then(|place| place.create_new(0o600)).is_err());
}

#[test]
fn a_stale_socket_is_replaced_if_it_is_ours_and_its_mode_is_private_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (name, listener) = BoundSocket::bind(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(BoundSocket::bind(&path).is_err(), "it listens");
    drop(listener);
    // Another owner would be refused; root alone can make one here.
    if geteuid().is_root() {
        chown(&path, Some(STRANGER), None).unwrap();
        let error = BoundSocket::bind(&path).unwrap_err();
        assert!(is_owner(&error), "{error}");
        chown(&path, Some(0), None).unwrap();
    }
    let (again, _listener) = BoundSocket::bind(&path).unwrap();
    drop(name);
    assert!(path.exists(), "the name is another socket's");
    drop(again);
    assert!(!path.exists());
    fs::write(&path, "a file").unwrap();
    assert!(BoundSocket::bind(&path).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"a file");
    fs::remove_file(&path).unwrap();
    File::create(folder.path().join("target")).unwrap();
    symlink("target", &path).unwrap();
    assert!(BoundSocket::bind(&path).is_err());
}

#[test]
fn messages_name_the_reason() {
    for (refused, want) in [
        (Refused::Link(7), "link of another user (uid 7)"),
        (Refused::Owner(7), "another user (uid 7)"),
        (Refused::Writable(0o666), "(mode 0666)"),
        (Refused::Names(2), "2 names"),
        (Refused::Kind, "not a regular file"),
    ] {
        let error = io::Error::from(refused);
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains(want), "{error}");
    }
}
