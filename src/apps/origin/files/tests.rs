//! Every way a file can change under a reader, and the bounds of the cache.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::*;
use crate::apps::origin::load::{MAX_FILE_BYTES, MAX_SMALL_BYTES};
use crate::apps::origin::object::Unread;
use crate::apps::origin::work::InlineWorkers;

/// A request in a millisecond of its own.
fn at_once() -> RequestContext {
    static MILLIS: AtomicU64 = AtomicU64::new(0);
    at(MILLIS.fetch_add(1, Ordering::Relaxed))
}

const fn at(millis: u64) -> RequestContext {
    RequestContext {
        now: UnixMillis::new(millis),
        proven: true,
        source: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    }
}

struct Fixture {
    root: tempfile::TempDir,
    files: Files,
    age: u64,
}

impl Fixture {
    fn new(workers: impl Workers + 'static) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("keep"), b"").unwrap();
        let tree = Tree::open(root.path()).unwrap();
        Self {
            root,
            files: Files::new(tree, Box::new(workers)),
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
        let mut fixture = Fixture::new(InlineWorkers::default());
        fs::write(fixture.path("f"), content(large)).unwrap();
        let object = fixture.files.file(at_once(), b"f", Freshness::Now).unwrap();
        let mut out = [0; 4];
        assert_eq!(object.read_at(1, &mut out), Ok(4));
        assert_eq!(&out, b"onte");
        fixture.change("f", change);
        let again = object.read_at(1, &mut out);
        assert_eq!(
            again,
            if large { Err(Unread::Stale) } else { Ok(4) },
            "{name}"
        );
        assert!(large || &out == b"onte", "{name}");
        let after = fixture.files.file(at_once(), b"f", Freshness::Now).unwrap();
        assert_ne!(after.digest(), object.digest(), "{name}");
        assert!(after.read_at(0, &mut out).is_ok(), "{name}");
    }
}

#[test]
fn a_touch_changes_the_stamp_but_not_the_digest() {
    let mut fixture = Fixture::new(InlineWorkers::default());
    fs::write(fixture.path("f"), content(true)).unwrap();
    let object = fixture.files.file(at_once(), b"f", Freshness::Now).unwrap();
    fixture.change("f", |_| {});
    assert_eq!(object.read_at(0, &mut [0; 4]), Err(Unread::Stale));
    let after = fixture.files.file(at_once(), b"f", Freshness::Now).unwrap();
    assert_eq!(after.digest(), object.digest());
}

#[test]
fn a_file_renamed_over_is_noticed_and_the_old_one_stays_whole() {
    let mut fixture = Fixture::new(InlineWorkers::default());
    fs::write(fixture.path("f"), b"old").unwrap();
    let old = fixture.files.file(at_once(), b"f", Freshness::Now).unwrap();
    fs::write(fixture.path("g"), b"new").unwrap();
    fs::rename(fixture.path("g"), fixture.path("f")).unwrap();
    let mut seen_new = 0;
    for read in 0..=RECHECK_READS {
        let object = fixture
            .files
            .file(at_once(), b"f", Freshness::Recent)
            .unwrap();
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
    let fresh = fixture.files.file(at_once(), b"f", Freshness::Now).unwrap();
    assert_ne!(fresh.digest(), old.digest());
}

#[test]
fn new_requests_of_one_millisecond_share_a_look() {
    let mut fixture = Fixture::new(InlineWorkers::default());
    fs::write(fixture.path("f"), b"old").unwrap();
    let mut look = |now| {
        let object = fixture.files.file(at(now), b"f", Freshness::Now);
        let (digest, path) = (object.unwrap().digest().copied(), fixture.root.path());
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
    let mut fixture = Fixture::new(InlineWorkers::default());
    fs::write(fixture.path("f"), b"old").unwrap();
    let old = fixture.files.file(at_once(), b"f", Freshness::Now).unwrap();
    fs::write(fixture.path("g"), b"new").unwrap();
    fs::rename(fixture.path("g"), fixture.path("f")).unwrap();
    assert_ne!(
        fixture
            .files
            .file(at_once(), b"f", Freshness::Now)
            .unwrap()
            .digest(),
        old.digest()
    );
    fs::remove_file(fixture.path("f")).unwrap();
    assert_eq!(
        fixture.files.file(at_once(), b"f", Freshness::Now).err(),
        Some(Miss::Refused(Refusal::NotFound))
    );
}

#[test]
fn the_cache_is_bounded_and_drops_what_was_used_longest_ago() {
    let mut fixture = Fixture::new(InlineWorkers::default());
    for index in 0..=MAX_OPEN_FILES {
        fs::write(fixture.path(&index.to_string()), index.to_string()).unwrap();
    }
    for index in 0..MAX_OPEN_FILES {
        fixture
            .files
            .file(at_once(), index.to_string().as_bytes(), Freshness::Now)
            .unwrap();
        assert_eq!(fixture.files.open_count(), index + 1);
    }
    let first = fixture
        .files
        .file(at_once(), b"0", Freshness::Recent)
        .unwrap();
    let last = MAX_OPEN_FILES.to_string();
    fixture
        .files
        .file(at_once(), last.as_bytes(), Freshness::Now)
        .unwrap();
    assert_eq!(fixture.files.open_count(), MAX_OPEN_FILES);
    assert!(
        !fixture.files.slots.contains_key(&b"1"[..]),
        "used longest ago"
    );
    assert!(Arc::ptr_eq(
        &first,
        &fixture
            .files
            .file(at_once(), b"0", Freshness::Recent)
            .unwrap()
    ));
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let mut fixture = Fixture::new(InlineWorkers::default());
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
        let got = fixture
            .files
            .file(at_once(), name.as_bytes(), Freshness::Now)
            .err();
        assert_eq!(got, Some(Miss::Refused(want)), "{name}");
    }
    assert_eq!(
        fixture.files.page(at_once(), b"keep", Freshness::Now).err(),
        Some(Miss::Refused(Refusal::NotFound))
    );
    drop(socket);
}

#[test]
fn a_page_follows_its_directory() {
    let mut fixture = Fixture::new(InlineWorkers::default());
    let before = fixture.files.page(at_once(), b"", Freshness::Now).unwrap();
    assert!(Arc::ptr_eq(
        &before,
        &fixture.files.page(at_once(), b"", Freshness::Now).unwrap()
    ));
    fs::write(fixture.path("one more"), b"").unwrap();
    let after = fixture.files.page(at_once(), b"", Freshness::Now).unwrap();
    assert_ne!(before.digest(), after.digest());
    let mut out = vec![0; 4096];
    let length = after.read_at(0, &mut out).unwrap();
    assert_eq!(u64::try_from(length).unwrap(), after.size());
    assert!(String::from_utf8_lossy(&out).contains("one%20more"));
}

#[test]
fn files_beyond_the_largest_stream_are_refused() {
    let mut fixture = Fixture::new(InlineWorkers::default());
    let sparse = File::create(fixture.path("huge")).unwrap();
    // Not every file system supports files of this length.
    if sparse.set_len(MAX_FILE_BYTES + 1).is_ok() {
        assert_eq!(
            fixture.files.file(at_once(), b"huge", Freshness::Now).err(),
            Some(Miss::Refused(Refusal::Forbidden))
        );
    }
}

/// Holds jobs until a test has them done.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<(VecDeque<Job>, InlineWorkers)>>);

impl Held {
    fn count(&self) -> usize {
        self.0.lock().unwrap().0.len()
    }

    fn finish(&self) {
        let mut state = self.0.lock().unwrap();
        while let Some(job) = state.0.pop_front() {
            state.1.start(job);
        }
    }
}

impl Workers for Held {
    fn start(&mut self, job: Job) -> bool {
        self.0.lock().unwrap().0.push_back(job);
        true
    }

    fn finished(&mut self) -> Option<(JobKey, Outcome)> {
        self.0.lock().unwrap().1.finished()
    }
}

#[test]
fn only_proven_clients_start_work_and_all_of_them_wait_for_the_same() {
    let held = Held::default();
    let mut fixture = Fixture::new(held.clone());
    fs::write(fixture.path("f"), b"content").unwrap();
    let forged = RequestContext {
        proven: false,
        ..at(1)
    };
    let mut ask = |context| fixture.files.file(context, b"f", Freshness::Now).err();
    assert_eq!(ask(forged), Some(Miss::Waits(POLLED)));
    assert_eq!(held.count(), 0, "a forged request starts nothing");
    let Some(Miss::Waits(ticket)) = ask(at(1)) else {
        panic!("not known yet")
    };
    assert_ne!(ticket, POLLED);
    assert_eq!(ask(at(2)), Some(Miss::Waits(ticket)));
    assert_eq!(held.count(), 1);
    held.finish();
    assert_eq!(fixture.files.poll_ready(), Some(ticket));
    assert_eq!(fixture.files.poll_ready(), None);
    let mut ask = |context| fixture.files.file(context, b"f", Freshness::Now).err();
    assert_eq!(ask(forged), None, "known now");
    assert_eq!((ask(at(1000)), held.count()), (None, 0), "from memory");
}

#[test]
fn what_was_looked_up_serves_one_millisecond() {
    let held = Held::default();
    let mut fixture = Fixture::new(held.clone());
    let ask = |now, fixture: &mut Fixture| {
        fixture
            .files
            .file(at(now), b"absent/f", Freshness::Now)
            .err()
    };
    // Whether the kernel has it in memory that there is none is up to the file system.
    while ask(1, &mut fixture) != Some(Miss::Refused(Refusal::NotFound)) {
        assert_eq!(held.count(), 1);
        held.finish();
    }
    fs::create_dir(fixture.path("absent")).unwrap();
    fs::write(fixture.path("absent/f"), b"x").unwrap();
    while let Some(miss) = ask(2, &mut fixture) {
        assert!(matches!(miss, Miss::Waits(_)), "{miss:?}");
        held.finish();
    }
}

#[test]
fn a_file_that_has_grown_still_has_its_first_bytes() {
    for size in [100, 5_000_000] {
        let mut fixture = Fixture::new(InlineWorkers::default());
        fs::write(fixture.path("f"), vec![7; size]).unwrap();
        let before = fixture.files.file(at_once(), b"f", Freshness::Now).unwrap();
        fixture.files.digest(at_once(), &before);
        let tag = before.tag().unwrap();
        fixture.change("f", |file| file.write_all_at(b"more", size as u64).unwrap());
        let size = size as u64;
        let passing = |files: &mut Files| {
            let now = files.file(at_once(), b"f", Freshness::Now).unwrap();
            files.passing(at_once(), b"f", (&tag, size), &now)
        };
        let same = passing(&mut fixture.files).unwrap();
        assert_eq!((same.size(), same.tag()), (size, Some(tag)));
        let mut out = [0; 200];
        assert_eq!(
            same.read_at(size - 50, &mut out),
            Ok(50),
            "not what came after"
        );
        drop(same);
        fixture.change("f", |file| file.write_all_at(b"other", 10).unwrap());
        fixture.files.passing.clear();
        let other = passing(&mut fixture.files);
        assert_eq!(other.err(), Some(Miss::Refused(Refusal::NotFound)));
    }
}

#[test]
fn caches_of_outcomes_and_versions_are_bounded() {
    let mut fixture = Fixture::new(InlineWorkers::default());
    for index in 0..2 * MAX_LOOKED {
        let name = format!("none{index}");
        let missing = fixture
            .files
            .file(at_once(), name.as_bytes(), Freshness::Now);
        assert!(missing.is_err());
        assert!(fixture.files.looked.len() <= MAX_LOOKED);
    }
    for length in 1..=2 * MAX_PASSING {
        let object = Arc::new(Object::held(
            vec![1; length],
            Stamp::of(&fixture.root.path().metadata().unwrap()),
        ));
        let loaded = Loaded {
            path: b"f".to_vec(),
            is_page: false,
            settled: false,
            object,
        };
        fixture.files.insert(Want::File, loaded);
        assert!(fixture.files.passing.len() <= MAX_PASSING);
    }
    assert_eq!(fixture.files.passing.len(), MAX_PASSING);
}

#[test]
fn known_files_give_way_when_there_are_no_descriptors() {
    let mut fixture = Fixture::new(InlineWorkers::default());
    for (name, large) in [("small", false), ("large", true)] {
        fs::write(fixture.path(name), content(large)).unwrap();
        fixture
            .files
            .file(at_once(), name.as_bytes(), Freshness::Now)
            .unwrap();
    }
    let look = Look {
        path: b"more".to_vec(),
        want: Want::File,
    };
    fixture.files.take_look(look, Err(Refusal::NoDescriptors));
    assert!(
        fixture.files.slots.contains_key(&b"small"[..]),
        "needs none"
    );
    assert!(!fixture.files.slots.contains_key(&b"large"[..]));
    assert!(fixture.files.take_gave_way());
    assert!(!fixture.files.take_gave_way());
}
