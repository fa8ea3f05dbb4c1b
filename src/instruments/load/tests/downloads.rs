//! Concurrent downloads.

use super::*;
use crate::instruments::load::downloads::{DownloadConfig, DownloadHost, MAX_DOWNLOADS};
use crate::instruments::load::report::DownloadReport;

fn config(connections: u32) -> DownloadConfig {
    DownloadConfig {
        target: target(7600),
        connections,
        warm: Duration::from_millis(500),
        window: Duration::from_secs(1),
    }
}

fn world(config: DownloadConfig, object: usize) -> World<DownloadHost> {
    World::of(DownloadHost::new(START, config).unwrap(), object)
}

fn run(mut world: World<DownloadHost>) -> DownloadReport {
    while !world.load.is_done() {
        assert!(world.step(), "stuck: {:?}", world.load.report());
    }
    assert!(world.load.poll_timeout(world.now).is_none());
    let elapsed = world.now.instant.saturating_since(START.instant);
    assert_eq!(elapsed, Duration::from_millis(1500));
    world.load.report()
}

#[test]
fn each_fetches_the_object_again_and_again() {
    let report = run(world(config(5), 40_000));
    let sum: u64 = report.window_bytes_each.iter().sum();
    assert_eq!((report.began, report.connections), (5, 5));
    assert_eq!(report.window_bytes, sum);
    // At least five per round trip of 10 ms; two round trips per object at most.
    assert!(report.finished > 5 * 50, "{report:?}");
    assert_eq!(report.statuses.keys().collect::<Vec<_>>(), [&200]);
    let begun: u64 = report.statuses.values().sum();
    assert!((report.finished..=report.finished + 5).contains(&begun));
    assert!((report.finished * 40_000..=begun * 40_000).contains(&report.bytes));
    assert!(report.window_bytes < report.bytes && report.window_bytes * 2 > report.bytes);
    assert_eq!((report.strays, report.changed, report.timed_out), (0, 0, 0));
    let each = &report.window_bytes_each;
    assert!(each.iter().all(|bytes| *bytes * 10 > sum), "{each:?}");
}

#[test]
fn samples_come_every_tick_and_end_with_the_time() {
    let report = run(world(config(2), 5000));
    assert_eq!(report.samples.len(), 15);
    assert!(report.samples.is_sorted());
    let (warm, last) = (report.samples[4], report.samples[14]);
    assert!(report.bytes >= last);
    // Bytes at the edge of a tick may count on either side.
    assert!(report.window_bytes.abs_diff(last - warm) <= 20_000);
}

#[test]
fn losses_are_made_good() {
    let mut world = world(config(4), 100_000);
    world.lose_every = 31;
    let report = run(world);
    assert_eq!(report.began, 4);
    assert!(report.lost > 10 && report.finished > 8, "{report:?}");
}

#[test]
fn a_dead_server_lets_nothing_begin() {
    let mut world = world(config(3), 100);
    world.dead_from = Some(Instant::ZERO);
    let report = run(world);
    assert_eq!((report.began, report.bytes), (0, 0));
    assert_eq!(report.window_bytes_each, [0, 0, 0]);
    assert!(report.opens >= 3);
}

#[test]
fn equal_seeds_make_equal_downloads() {
    let first = run(world(config(3), 3000));
    assert_eq!(first, run(world(config(3), 3000)));
}

#[test]
fn limits() {
    let cases = [
        ("as many as may be", MAX_DOWNLOADS, 100, true),
        ("one more", MAX_DOWNLOADS + 1, 100, false),
        ("longest request", 1, MAX_REQUEST_BYTES, true),
        ("one byte more", 1, MAX_REQUEST_BYTES + 1, false),
    ];
    for (name, connections, head, good) in cases {
        let mut settings = config(connections);
        settings.target.head = vec![b'x'; head];
        assert_eq!(DownloadHost::new(START, settings).is_ok(), good, "{name}");
    }
    let mut foreign = config(1);
    foreign.target.addresses = vec![address(true, 1)];
    assert!(DownloadHost::new(START, foreign).is_err());
}
