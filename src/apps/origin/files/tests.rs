//! Every way a file can change under a reader, and the bounds of the cache.

use std::fs::{self, FileTimes};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::*;
use crate::apps::origin::digest::InlineDigester;

/// A new response in a millisecond of its own.
fn at_once() -> Freshness {
    static MILLIS: AtomicU64 = AtomicU64::new(0);
    Freshness::Now(UnixMillis::new(MILLIS.fetch_add(1, Ordering::Relaxed)))
}

struct Fixture {
    root: tempfile::TempDir,
    files: Files,
    age: u64,
}

impl Fixture {
    fn new(digester: impl Digester + 'static) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("keep"), b"").unwrap();
        let tree = Tree::open(root.path()).unwrap();
        Self {
            root,
            files: Files::new(tree, Box::new(digester)),
            age: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Changes a file so that the change is detectable even on a file system with a coarse clock.
    fn change(&mut self, name: &str, change: impl FnOnce(&File)) {
        let options = File::options().read(true).write(true).open(self.path(name));
        let file = options.unwrap();
        change(&file);
        self.age += 1;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.age);
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }
}

/// A change to a file, and its name.
type Change = (&'static str, fn(&File));

const CHANGES: [Change; 4] = [
    ("rewritten in place", |file| {
        file.write_all_at(b"CONTENT", 0).unwrap()
    }),
    ("truncated", |file| file.set_len(3).unwrap()),
    ("grown", |file| file.set_len(100_000).unwrap()),
    ("truncated and written again", |file| {
        file.set_len(0).unwrap();
        file.write_all_at(b"other", 0).unwrap();
    }),
];

/// The content of a file; small ones are cached in memory.
fn content(large: bool) -> Vec<u8> {
    let bytes = b"content".repeat(if large { 10_000 } else { 1 });
    assert_eq!(bytes.len() as u64 > MAX_SMALL_BYTES, large);
    bytes
}

/// Large: bytes read may be a mixture. Small: cached bytes are unchanged.
#[test]
fn a_change_under_an_open_object_is_stale_or_not_met() {
    for ((name, change), large) in CHANGES
        .into_iter()
        .flat_map(|row| [(row, false), (row, true)])
    {
        let mut fixture = Fixture::new(InlineDigester);
        fs::write(fixture.path("f"), content(large)).unwrap();
        let object = fixture.files.file(b"f", at_once()).unwrap();
        let mut out = [0; 4];
        assert_eq!(object.read_at(1, &mut out), Ok(4));
        assert_eq!(&out, b"onte");
        fixture.change("f", change);
        let again = object.read_at(1, &mut out);
        assert_eq!(again, if large { Err(Stale) } else { Ok(4) }, "{name}");
        assert!(large || &out == b"onte", "{name}");
        let after = fixture.files.file(b"f", at_once()).unwrap();
        assert_ne!(after.digest(), object.digest(), "{name}");
        assert!(after.read_at(0, &mut out).is_ok(), "{name}");
    }
}

#[test]
fn a_touch_changes_the_stamp_but_not_the_digest() {
    let mut fixture = Fixture::new(InlineDigester);
    fs::write(fixture.path("f"), content(true)).unwrap();
    let object = fixture.files.file(b"f", at_once()).unwrap();
    fixture.change("f", |_| {});
    assert_eq!(object.read_at(0, &mut [0; 4]), Err(Stale));
    let after = fixture.files.file(b"f", at_once()).unwrap();
    assert_eq!(after.digest(), object.digest());
}

#[test]
fn a_file_renamed_over_is_noticed_and_the_old_one_stays_whole() {
    let mut fixture = Fixture::new(InlineDigester);
    fs::write(fixture.path("f"), b"old").unwrap();
    let old = fixture.files.file(b"f", at_once()).unwrap();
    fs::write(fixture.path("g"), b"new").unwrap();
    fs::rename(fixture.path("g"), fixture.path("f")).unwrap();
    let mut seen_new = 0;
    for read in 0..=RECHECK_READS {
        let object = fixture.files.file(b"f", Freshness::Recent).unwrap();
        let mut out = [0; 3];
        // Unlinking updates ctime: the old file counts as changed immediately.
        let want: &[u8] = if object.digest() == old.digest() {
            b"old"
        } else {
            b"new"
        };
        if object.read_at(0, &mut out).is_ok() {
            assert_eq!(out, want, "{read}");
        }
        seen_new += u32::from(want == b"new");
    }
    assert_eq!(seen_new, 1, "noticed after {RECHECK_READS} reads");
    let fresh = fixture.files.file(b"f", at_once()).unwrap();
    assert_ne!(fresh.digest(), old.digest());
}

#[test]
fn new_requests_of_one_millisecond_share_a_look() {
    let mut fixture = Fixture::new(InlineDigester);
    fs::write(fixture.path("f"), b"old").unwrap();
    let mut look = |now| {
        let object = fixture
            .files
            .file(b"f", Freshness::Now(UnixMillis::new(now)));
        let (digest, path) = (*object.unwrap().digest(), fixture.root.path());
        fs::write(path.join("g"), now.to_string()).unwrap();
        fs::rename(path.join("g"), path.join("f")).unwrap();
        digest
    };
    let (first, same, next) = (look(1), look(1), look(2));
    assert_eq!(first, same);
    assert_ne!(same, next);
}

#[test]
fn a_new_request_sees_a_rename_at_once() {
    let mut fixture = Fixture::new(InlineDigester);
    fs::write(fixture.path("f"), b"old").unwrap();
    let old = fixture.files.file(b"f", at_once()).unwrap();
    fs::write(fixture.path("g"), b"new").unwrap();
    fs::rename(fixture.path("g"), fixture.path("f")).unwrap();
    assert_ne!(
        fixture.files.file(b"f", at_once()).unwrap().digest(),
        old.digest()
    );
    fs::remove_file(fixture.path("f")).unwrap();
    assert_eq!(
        fixture.files.file(b"f", at_once()).err(),
        Some(Refusal::NotFound)
    );
}

#[test]
fn the_cache_is_bounded_and_drops_what_was_used_longest_ago() {
    let mut fixture = Fixture::new(InlineDigester);
    for index in 0..=MAX_OPEN_FILES {
        fs::write(fixture.path(&index.to_string()), index.to_string()).unwrap();
    }
    for index in 0..MAX_OPEN_FILES {
        fixture
            .files
            .file(index.to_string().as_bytes(), at_once())
            .unwrap();
        assert_eq!(fixture.files.open_count(), index + 1);
    }
    let first = fixture.files.file(b"0", Freshness::Recent).unwrap();
    let last = MAX_OPEN_FILES.to_string();
    fixture.files.file(last.as_bytes(), at_once()).unwrap();
    assert_eq!(fixture.files.open_count(), MAX_OPEN_FILES);
    assert!(
        !fixture.files.slots.contains_key(&b"1"[..]),
        "used longest ago"
    );
    assert!(Arc::ptr_eq(
        &first,
        &fixture.files.file(b"0", Freshness::Recent).unwrap()
    ));
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let mut fixture = Fixture::new(InlineDigester);
    fs::create_dir(fixture.path("dir")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(fixture.path("socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        fixture.path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    for (name, want) in [
        ("dir", Refusal::IsDirectory),
        ("fifo", Refusal::Forbidden),
        ("socket", Refusal::Forbidden),
        ("none", Refusal::NotFound),
    ] {
        let got = fixture.files.file(name.as_bytes(), at_once()).err();
        assert_eq!(got, Some(want), "{name}");
    }
    assert_eq!(
        fixture.files.page(b"keep", at_once()).err(),
        Some(Refusal::NotFound)
    );
    drop(socket);
}

#[test]
fn a_page_follows_its_directory() {
    let mut fixture = Fixture::new(InlineDigester);
    let before = fixture.files.page(b"", at_once()).unwrap();
    assert!(Arc::ptr_eq(
        &before,
        &fixture.files.page(b"", at_once()).unwrap()
    ));
    fs::write(fixture.path("one more"), b"").unwrap();
    let after = fixture.files.page(b"", at_once()).unwrap();
    assert_ne!(before.digest(), after.digest());
    let mut out = vec![0; 4096];
    let length = after.read_at(0, &mut out).unwrap();
    assert_eq!(u64::try_from(length).unwrap(), after.size());
    assert!(String::from_utf8_lossy(&out).contains("one%20more"));
}

/// A digester with scripted answers.
#[derive(Clone)]
struct Scripted(Arc<Mutex<(bool, DigestProgress, u32)>>);

impl Digester for Scripted {
    fn settled(&self, _stamp: &Stamp) -> bool {
        self.0.lock().unwrap().0
    }

    fn digest(&mut self, _file: &Arc<File>, _stamp: &Stamp) -> DigestProgress {
        let mut script = self.0.lock().unwrap();
        script.2 += 1;
        script.1
    }
}

#[test]
fn a_file_just_written_waits_and_a_large_one_is_left_to_the_digester() {
    let script = Scripted(Arc::new(Mutex::new((false, DigestProgress::Pending, 0))));
    let mut fixture = Fixture::new(script.clone());
    for (name, size) in [
        ("limit", MAX_INLINE_DIGEST_BYTES),
        ("large", MAX_INLINE_DIGEST_BYTES + 1),
    ] {
        File::create(fixture.path(name))
            .unwrap()
            .set_len(size)
            .unwrap();
    }
    let mut look = |name: &str| fixture.files.file(name.as_bytes(), at_once());
    for name in ["limit", "large", "keep"] {
        assert_eq!(
            look(name).err(),
            Some(Refusal::NotReady),
            "{name} is not settled"
        );
    }
    script.0.lock().unwrap().0 = true;
    assert!(look("limit").is_ok());
    assert_eq!(
        script.0.lock().unwrap().2,
        0,
        "digested without the digester"
    );
    assert_eq!(look("large").err(), Some(Refusal::NotReady));
    script.0.lock().unwrap().1 = DigestProgress::Failed;
    assert_eq!(look("large").err(), Some(Refusal::Failed));
    script.0.lock().unwrap().1 = DigestProgress::Done([9; 32]);
    assert_eq!(look("large").unwrap().digest(), &[9; 32]);
    let asked = script.0.lock().unwrap().2;
    assert!(look("large").is_ok());
    assert_eq!(script.0.lock().unwrap().2, asked, "remembered");
}

#[test]
fn files_beyond_the_largest_stream_are_refused() {
    let mut fixture = Fixture::new(Scripted(Arc::new(Mutex::new((
        true,
        DigestProgress::Done([0; 32]),
        0,
    )))));
    let sparse = File::create(fixture.path("huge")).unwrap();
    // Not every file system supports files of this length.
    if sparse.set_len(MAX_FILE_BYTES + 1).is_ok() {
        assert_eq!(
            fixture.files.file(b"huge", at_once()).err(),
            Some(Refusal::Forbidden)
        );
    }
}
