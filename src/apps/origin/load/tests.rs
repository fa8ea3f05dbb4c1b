//! Files and directories that change while they are read.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::apps::origin::digest_store::DigestStore;

struct Fixture {
    root: tempfile::TempDir,
    tree: Tree,
    digests: Mutex<DigestStore>,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("keep"), b"").unwrap();
        Self {
            tree: Tree::open(root.path()).unwrap(),
            digests: Mutex::default(),
            root,
        }
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.root.path().join(name), content).unwrap();
    }

    fn look(&self, name: &str, want: Want, settled: bool) -> Result<Loaded, Refusal> {
        let path = name.as_bytes().to_vec();
        let age = if settled { u64::MAX } else { 0 };
        self.look_at(&Look { path, want }, age)
    }

    fn look_at(&self, at: &Look, age: u64) -> Result<Loaded, Refusal> {
        look(
            &self.tree,
            at,
            &mut Surroundings {
                age: &|_| age,
                go_on: &mut || true,
                digests: &self.digests,
            },
        )
    }
}

#[test]
fn small_digests_come_with_the_file_and_large_ones_later() {
    let fixture = Fixture::new();
    for (size, held, digested) in [
        (0, true, true),
        (MAX_SMALL_BYTES, true, true),
        (MAX_SMALL_BYTES + 1, false, true),
        (MAX_AWAITED_DIGEST_BYTES, false, true),
        (MAX_AWAITED_DIGEST_BYTES + 1, false, false),
    ] {
        fixture.write("f", &vec![7; usize::try_from(size).unwrap()]);
        let loaded = fixture.look("f", Want::File, true).unwrap();
        let object = &loaded.object;
        assert!(loaded.settled);
        assert_eq!(object.size(), size);
        assert_eq!(object.file().is_none(), held, "{size}");
        assert_eq!(object.digest().is_some(), digested, "{size}");
        let header = size.min(HEADER_BYTES as u64);
        assert_eq!(object.header().len() as u64, header, "{size}");
    }
}

#[test]
fn the_digest_of_a_file_that_may_grow_comes_with_it() {
    let fixture = Fixture::new();
    let at = Look {
        path: b"f".to_vec(),
        want: Want::File,
    };
    for (size, young, old) in [
        (MAX_AWAITED_DIGEST_BYTES + 1, true, false),
        (MAX_AWAITED_GROWING_BYTES + 1, false, false),
    ] {
        let file = File::create(fixture.root.path().join("f")).unwrap();
        file.set_len(size).unwrap();
        for (age, want) in [(GROWING_NS - 1, young), (GROWING_NS, old)] {
            *fixture.digests.lock().unwrap() = DigestStore::new();
            let loaded = fixture.look_at(&at, age).unwrap();
            assert_eq!(loaded.object.digest().is_some(), want, "{size} {age}");
        }
    }
}

#[test]
fn a_known_digest_is_not_computed_again() {
    let fixture = Fixture::new();
    fixture.write("f", &vec![7; 2 << 20]);
    let loaded = fixture.look("f", Want::File, true).unwrap();
    let stamp = *loaded.object.stamp();
    fixture.digests.lock().unwrap().insert(stamp, [9; 32]);
    let again = fixture.look("f", Want::File, true).unwrap();
    assert_eq!(again.object.digest(), Some(&[9; 32]));
}

#[test]
fn a_file_that_does_not_come_to_rest_is_copied() {
    let fixture = Fixture::new();
    fixture.write("f", b"as it was");
    let loaded = fixture.look("f", Want::File, false).unwrap();
    assert!(!loaded.settled);
    fixture.write("f", b"as it is!");
    let mut out = [0; 9];
    assert_eq!(loaded.object.read_at(0, &mut out), Ok(9));
    assert_eq!(&out, b"as it was");
    for (size, copied) in [(MAX_SNAPSHOT_BYTES, true), (MAX_SNAPSHOT_BYTES + 1, false)] {
        fixture.write("f", &vec![7; usize::try_from(size).unwrap()]);
        let result = fixture.look("f", Want::File, false);
        assert_eq!(result.is_ok(), copied, "{size}");
        assert!(copied || matches!(result, Err(Refusal::Unsettled)));
    }
}

/// A writer alternates between two contents by single writes: a copy never mixes them.
#[test]
fn copies_under_rewrites_never_mix() {
    let fixture = Fixture::new();
    let contents = [vec![b'a'; 300_000], vec![b'b'; 300_000]];
    fixture.write("f", &contents[0]);
    let path = fixture.root.path().join("f");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(path).unwrap();
            for content in contents.iter().cycle() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                file.write_all_at(content, 0).unwrap();
                std::thread::yield_now();
            }
        });
        for _ in 0..200 {
            if let Ok(loaded) = fixture.look("f", Want::File, false) {
                let mut out = vec![0; 300_000];
                loaded.object.read_at(0, &mut out).unwrap();
                // A write may be half done at any moment: then its part comes first.
                let first = out[0];
                let changes = out.windows(2).filter(|pair| pair[0] != pair[1]).count();
                assert!(changes <= 1, "{first}: {changes}");
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_directory_has_its_index_or_its_page() {
    let fixture = Fixture::new();
    let page = fixture.look("", Want::Directory, true).unwrap();
    assert!(page.is_page && page.path.is_empty());
    let unsettled = fixture.look("", Want::Directory, false).unwrap();
    assert!(!unsettled.settled, "two equal readings");
    assert_eq!(unsettled.object.digest(), page.object.digest());
    fixture.write("index.html", b"index");
    let index = fixture.look("", Want::Directory, true).unwrap();
    assert_eq!((index.is_page, index.path), (false, b"index.html".to_vec()));
    let refused = fixture.look("keep", Want::Directory, true);
    assert_eq!(refused.err(), Some(Refusal::NotFound));
}
