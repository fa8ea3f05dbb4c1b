//! Admission, eviction, and the bounds under any requests.

use std::path::PathBuf;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::apps::origin::files::{Files, Freshness};
use crate::apps::origin::tree::Tree;
use crate::apps::origin::work::InlineWorkers;
use crate::time::UnixMillis;
use crate::transport::application::RequestContext;

/// Files named after their sizes, in units of the smallest cached size.
struct Fixture {
    folder: tempfile::TempDir,
    files: Files,
    hot: Hot,
}

impl Fixture {
    /// Room for `most` units.
    fn new(most: u64, loader: impl Loader + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keep"), b"").unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        Self {
            folder,
            files: Files::new(tree, Box::<InlineWorkers>::default()),
            hot: Hot::new(most * MIN_HOT_BYTES, Box::new(loader)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make(&self, name: &str, bytes: u64) {
        let file = File::create(self.path(name)).unwrap();
        file.set_len(bytes).unwrap();
        file.write_all_at(name.as_bytes(), 0).unwrap();
    }

    fn object(&mut self, name: &str) -> Arc<Object> {
        let context = RequestContext {
            now: UnixMillis::new(0),
            proven: true,
            source: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        };
        self.files.forget(name.as_bytes());
        let found = self.files.file(context, name.as_bytes(), Freshness::Recent);
        found.unwrap()
    }

    fn ask(&mut self, name: &str) {
        let object = self.object(name);
        self.hot.ask(name.as_bytes(), &object);
    }

    fn is_hot(&mut self, name: &str) -> bool {
        let stamp = *self.object(name).stamp();
        let content = self.hot.content(name.as_bytes(), &stamp);
        content.is_some_and(|content| {
            assert!(content.bytes().starts_with(name.as_bytes()));
            assert_eq!(content.bytes().len() as u64, stamp.size);
            true
        })
    }
}

#[test]
fn a_file_is_kept_from_its_second_request_on_if_its_size_is_worth_it() {
    for (name, bytes, want) in [
        ("below", MIN_HOT_BYTES - 1, false),
        ("least", MIN_HOT_BYTES, true),
        ("most", 4 * MIN_HOT_BYTES, true),
        ("above", 4 * MIN_HOT_BYTES + 1, false),
    ] {
        let mut fixture = Fixture::new(4, InlineLoader::default());
        fixture.make(name, bytes);
        fixture.ask(name);
        assert!(!fixture.is_hot(name), "{name}: asked for once");
        fixture.ask(name);
        assert_eq!(fixture.is_hot(name), want, "{name}");
    }
}

#[test]
fn requests_that_may_be_forged_count_but_load_nothing() {
    let mut fixture = Fixture::new(4, InlineLoader::default());
    fixture.make("f", MIN_HOT_BYTES);
    let object = fixture.object("f");
    for _ in 0..ASKS_TO_LOAD {
        fixture.hot.count(b"f", &object);
        assert!(!fixture.is_hot("f"));
    }
    fixture.hot.load_due(b"f", &object);
    assert!(fixture.is_hot("f"));
}

#[test]
fn the_room_is_bounded_and_only_who_is_asked_for_more_often_gets_it() {
    let mut fixture = Fixture::new(3, InlineLoader::default());
    for name in ["a", "b", "c", "d"] {
        fixture.make(name, MIN_HOT_BYTES);
    }
    for name in ["a", "a", "a", "b", "b", "c", "c"] {
        fixture.ask(name);
    }
    assert_eq!(fixture.hot.bytes(), 3 * MIN_HOT_BYTES, "to the last byte");
    fixture.ask("d");
    fixture.ask("d");
    assert!(!fixture.is_hot("d"), "no better than any that is here");
    fixture.ask("d");
    let hot = ["a", "b", "c", "d"].map(|name| fixture.is_hot(name));
    assert_eq!(
        hot,
        [true, false, true, true],
        "b was asked for longest ago"
    );
    assert_eq!(fixture.hot.bytes(), 3 * MIN_HOT_BYTES);
    assert_eq!(fixture.hot.counters().evictions, 1);
}

#[test]
fn old_fame_passes() {
    let mut fixture = Fixture::new(1, InlineLoader::default());
    fixture.make("old", MIN_HOT_BYTES);
    fixture.make("new", MIN_HOT_BYTES);
    for _ in 0..1000 {
        fixture.ask("old");
    }
    let mut asked = 0;
    while !fixture.is_hot("new") {
        fixture.ask("new");
        fixture.ask("old");
        fixture.ask("new");
        asked += 2;
    }
    assert!(
        (100..1000).contains(&asked),
        "{asked}; 2000 were they never halved"
    );
}

#[test]
fn few_files_are_counted() {
    let mut fixture = Fixture::new(4, InlineLoader::default());
    fixture.make("hot", MIN_HOT_BYTES);
    for _ in 0..100 {
        fixture.ask("hot");
    }
    let object = fixture.object("hot");
    for index in 0..2 * MAX_COUNTED_FILES {
        fixture.hot.ask(index.to_string().as_bytes(), &object);
        assert!(fixture.hot.known.len() <= MAX_COUNTED_FILES);
    }
    assert!(fixture.is_hot("hot"), "those asked for once go first");
}

/// Holds jobs until a test completes them.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<(Vec<Job>, Vec<Loaded>)>>);

impl Slow {
    fn finish(&self) {
        let mut state = self.0.lock().unwrap();
        while let Some(job) = state.0.pop() {
            let loaded = job.run(&mut || true);
            state.1.push(loaded);
        }
    }
}

impl Loader for Slow {
    fn load(&mut self, job: Job) -> bool {
        self.0.lock().unwrap().0.push(job);
        true
    }

    fn loaded(&mut self) -> Option<Loaded> {
        self.0.lock().unwrap().1.pop()
    }
}

#[test]
fn few_files_are_read_at_a_time_and_their_room_is_taken_before() {
    let slow = Slow::default();
    let mut fixture = Fixture::new(100, slow.clone());
    let names: Vec<String> = (0..2 * MAX_LOADING).map(|n| format!("f{n}")).collect();
    for name in &names {
        fixture.make(name, MIN_HOT_BYTES);
        fixture.ask(name);
        fixture.ask(name);
    }
    assert_eq!(slow.0.lock().unwrap().0.len(), MAX_LOADING);
    let bytes = MAX_LOADING as u64 * MIN_HOT_BYTES;
    assert_eq!((fixture.hot.bytes(), fixture.hot.files()), (bytes, 0));
    slow.finish();
    assert!(fixture.is_hot(&names[0]));
    assert_eq!(fixture.hot.files(), MAX_LOADING);
    let last = names.last().unwrap();
    fixture.ask(last);
    slow.finish();
    assert!(fixture.is_hot(last));
}

#[test]
fn what_changes_while_it_is_read_is_not_kept_and_its_room_is_given_back() {
    let slow = Slow::default();
    let mut fixture = Fixture::new(4, slow.clone());
    for (name, bytes) in [("written", 0), ("grown", 1), ("shorter", 2)] {
        fixture.make(name, 2 * MIN_HOT_BYTES);
        fixture.ask(name);
        fixture.ask(name);
        let file = File::options()
            .write(true)
            .open(fixture.path(name))
            .unwrap();
        match bytes {
            0 => file.write_all_at(b"WRITTEN", 0).unwrap(),
            1 => file.set_len(3 * MIN_HOT_BYTES).unwrap(),
            _ => file.set_len(MIN_HOT_BYTES).unwrap(),
        }
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(9);
        let times = std::fs::FileTimes::new().set_modified(time);
        file.set_times(times).unwrap();
        assert!(fixture.hot.bytes() > 0);
        slow.finish();
        fixture.hot.collect();
        assert_eq!((fixture.hot.bytes(), fixture.hot.files()), (0, 0), "{name}");
    }
}

#[test]
fn another_file_of_the_same_name_takes_the_place_of_the_first() {
    let slow = Slow::default();
    let mut fixture = Fixture::new(4, slow.clone());
    fixture.make("first", MIN_HOT_BYTES);
    fixture.make("second", 2 * MIN_HOT_BYTES);
    let (first, second) = (fixture.object("first"), fixture.object("second"));
    let hot = &mut fixture.hot;
    hot.ask(b"link", &first);
    hot.ask(b"link", &first);
    hot.ask(b"link", &second);
    slow.finish();
    assert!(hot.content(b"link", first.stamp()).is_none(), "too late");
    assert!(hot.content(b"link", second.stamp()).is_none());
    assert_eq!(hot.bytes(), 0);
    hot.ask(b"link", &second);
    slow.finish();
    assert!(hot.content(b"link", second.stamp()).is_some());
    assert_eq!(hot.bytes(), 2 * MIN_HOT_BYTES);
    hot.ask(b"link", &first);
    slow.finish();
    assert!(hot.content(b"link", second.stamp()).is_none());
    assert!(hot.content(b"link", first.stamp()).is_some());
    assert_eq!(hot.bytes(), MIN_HOT_BYTES);
}

proptest! {
    #[test]
    fn the_room_is_never_exceeded_and_always_accounted_for(
        asks in prop::collection::vec((0..6_u64, any::<bool>(), any::<bool>()), 0..200),
    ) {
        let slow = Slow::default();
        let mut fixture = Fixture::new(7, slow.clone());
        for size in 1..=6 {
            fixture.make(&size.to_string(), size * MIN_HOT_BYTES);
        }
        let objects: Vec<_> = (1..=6).map(|size: u64| fixture.object(&size.to_string())).collect();
        for (index, finish, drop) in asks {
            let name = (index + 1).to_string();
            fixture.hot.ask(name.as_bytes(), &objects[usize::try_from(index).unwrap()]);
            if finish {
                slow.finish();
            }
            if drop {
                fixture.hot.drop_content(name.as_bytes());
            }
            let held: u64 = fixture.hot.known.values().map(|known| match known.state {
                EntryState::Counted => 0,
                EntryState::Loading | EntryState::Here(_) => known.stamp.size,
            }).sum();
            prop_assert_eq!(held, fixture.hot.bytes());
            prop_assert!(held <= 7 * MIN_HOT_BYTES);
        }
    }
}
