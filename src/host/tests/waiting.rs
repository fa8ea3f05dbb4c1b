//! A client that waits for others: for the answer to a look-up, for the reader of a FIFO.

use std::cell::Cell;

use super::*;
use crate::host::names::{LookupAnswer, Resolution};

/// A client that knows no name at once.
fn world(protocol: Protocol, max_time: Option<Duration>) -> World {
    let mut world = World::new(protocol, false);
    let config = ClientHostConfig {
        max_time,
        resolve: Box::new(|_| Resolution::Pending),
        ..client_config(protocol, false)
    };
    world.client = ClientHost::new(world.now, config).unwrap();
    world
}

#[test]
fn a_name_is_looked_up_once_and_its_answer_kept() {
    for protocol in [TRICKLES, Protocol::Tcp] {
        let mut world = world(protocol, None);
        let memory = world.start("http://files/1000", false);
        assert_eq!(world.client.poll_lookup().as_deref(), Some("files"));
        assert_eq!(world.client.poll_lookup(), None, "asked for once");
        world.drain();
        assert!(world.wire.is_empty(), "nothing to send to");
        world.client.handle_lookup(
            world.now,
            "others",
            LookupAnswer::Complete(vec![address(false, 9)]),
        );
        world.drain();
        assert!(world.wire.is_empty(), "the answer to something else");
        world.client.handle_lookup(
            world.now,
            "files",
            LookupAnswer::Complete(vec![address(true, 2), address(false, 2)]),
        );
        assert_eq!(world.finish(), VERIFIED);
        assert_eq!(memory.0.borrow().0, body(0, 1000));
        world.start("http://files/2000", false);
        assert_eq!(world.client.poll_lookup(), None, "kept");
        assert_eq!(world.finish(), VERIFIED);
        assert_eq!(world.client.report().connections, 1);
    }
}

#[test]
fn a_race_begins_with_the_first_addresses_and_others_join_it() {
    let (dead, live) = (address(false, 77), address(false, 2));
    let begin = |first: Vec<IpAddr>| {
        let mut world = world(TRICKLES, None);
        world.server = server(&world.version, live, world.now, 0);
        world.start("http://files/1000", false);
        let answer = LookupAnswer::Partial(first);
        world.client.handle_lookup(world.now, "files", answer);
        world
    };
    // The rest of the answer comes a second later, with an address before the one that was tried.
    let mut late = begin(vec![dead]);
    let start = late.now.instant;
    while late.step_until(start + Duration::from_secs(1)) {}
    late.now.instant = start + Duration::from_secs(1);
    let rest = LookupAnswer::Complete(vec![live, dead]);
    late.client.handle_lookup(late.now, "files", rest);
    assert_eq!(late.finish(), VERIFIED);
    assert_eq!(late.client.report().connections, 2);
    late.start("http://files/1", false);
    assert_eq!(late.client.poll_lookup(), None, "the whole answer is kept");
    // All have failed, but more may come.
    let mut refused = begin(vec![dead]);
    refused.client.handle_unreachable(refused.now, dead);
    assert!(refused.client.poll_event().is_none());
    let rest = LookupAnswer::Complete(vec![dead]);
    refused.client.handle_lookup(refused.now, "files", rest);
    let end = refused.finish();
    assert!(end.starts_with("Failed(CannotConnect"), "{end}");
    // Nothing but addresses of the other family, so far.
    for (rest, want) in [(vec![live], VERIFIED), (vec![], "Failed(Family")] {
        let mut other = begin(vec![address(true, 2)]);
        assert!(other.client.poll_event().is_none());
        let rest = [vec![address(true, 2)], rest].concat();
        let rest = LookupAnswer::Complete(rest);
        other.client.handle_lookup(other.now, "files", rest);
        assert!(other.finish().starts_with(want));
    }
    // A connection that is there is used, and the rest is of no interest.
    let mut again = begin(vec![live]);
    assert_eq!(again.finish(), VERIFIED);
    again.start("http://files/1000", false);
    let first = LookupAnswer::Partial(vec![live]);
    again.client.handle_lookup(again.now, "files", first);
    let rest = LookupAnswer::Complete(vec![dead, live]);
    again.client.handle_lookup(again.now, "files", rest);
    assert_eq!(again.finish(), VERIFIED);
    assert_eq!(again.client.report().connections, 1);
}

#[test]
fn a_name_that_nobody_has_is_an_error() {
    let mut world = world(TRICKLES, None);
    world.start("http://nobody/1", false);
    world
        .client
        .handle_lookup(world.now, "nobody", LookupAnswer::Complete(vec![]));
    assert!(world.finish().starts_with("Failed(CannotResolve"));
    world.start("http://nobody/1", false);
    assert!(world.client.poll_lookup().is_some(), "no answer is kept");
}

#[test]
fn time_limits_include_the_look_up() {
    let begun = |world: &World| world.now.instant;
    let mut silent = world(TRICKLES, None);
    let start = begun(&silent);
    silent.start("http://files/1", false);
    assert!(silent.finish().starts_with("Failed(ResolveTimedOut"));
    assert_eq!(silent.now.instant, start + Duration::from_secs(5));
    silent.client.handle_lookup(
        silent.now,
        "files",
        LookupAnswer::Complete(vec![address(false, 2)]),
    );
    assert!(silent.client.poll_event().is_none(), "too late");
    silent.start("http://files/1", false);
    assert_eq!(silent.finish(), VERIFIED, "but not for the next one");

    let mut short = world(TRICKLES, Some(Duration::from_millis(50)));
    short.start("http://files/1", false);
    assert_eq!(short.finish(), "Failed(TimedOut)");

    // The answer comes after four seconds, of a host that does not: one is left.
    let mut late = world(TRICKLES, None);
    let start = begun(&late);
    late.start("http://files/1", false);
    late.now.instant = start + Duration::from_secs(4);
    late.client.handle_lookup(
        late.now,
        "files",
        LookupAnswer::Complete(vec![address(false, 77)]),
    );
    assert!(late.finish().starts_with("Failed(ConnectTimedOut"));
    assert_eq!(late.now.instant, start + Duration::from_secs(5));
}

/// A FIFO whose reader comes later.
struct Fifo {
    memory: Memory,
    read: Rc<Cell<bool>>,
    kept: Vec<u8>,
}

impl Output for Fifo {
    fn begin(&mut self, offset: u64, etag: Option<&str>) -> Result<(), OutputError> {
        self.memory.begin(offset, etag)
    }
    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        self.kept.extend_from_slice(bytes);
        self.flush()
    }
    fn kept(&self) -> usize {
        self.kept.len().max(usize::from(!self.read.get()))
    }
    fn flush(&mut self) -> Result<(), OutputError> {
        if self.read.get() {
            self.memory.write(&core::mem::take(&mut self.kept))?;
        }
        Ok(())
    }
    fn retry_interval(&self) -> Option<Duration> {
        (!self.read.get()).then_some(Duration::from_millis(50))
    }
    fn rewind(&mut self) -> Result<(), OutputError> {
        self.memory.rewind()
    }
    fn finish(&mut self) -> Result<(), OutputError> {
        self.memory.finish()
    }
}

#[test]
fn a_fifo_without_a_reader_holds_the_transfer_until_one_comes_or_time_is_up() {
    for (size, max_time) in [
        (0, None),
        (300_000, None),
        (300_000, Some(Duration::from_secs(3))),
    ] {
        let mut world = World::limited(TRICKLES, false, max_time);
        let (memory, read) = (Memory::default(), Rc::new(Cell::new(false)));
        let start = world.now.instant;
        let fifo = Fifo {
            memory: memory.clone(),
            read: Rc::clone(&read),
            kept: Vec::new(),
        };
        world.start_into(&format!("http://files/{size}"), false, Box::new(fifo));
        // The machine wakes itself: no descriptor becomes writable.
        while world.step_until(start + Duration::from_secs(2)) {
            let ended = matches!(world.client.poll_event(), Some(TransferEvent::Done { .. }));
            assert!(!ended && world.client.waits_for().is_none());
        }
        if max_time.is_some() {
            assert_eq!(world.finish(), "Failed(TimedOut)");
            assert_eq!(world.now.instant, start + Duration::from_secs(3));
        } else {
            read.set(true);
            assert_eq!(world.finish(), VERIFIED, "{size}");
            assert!(memory.0.borrow().0 == body(0, size));
        }
    }
}
