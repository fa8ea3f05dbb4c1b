//! A thousand worlds of the transport, each drawn from a seed, none breaking a law.
//!
//! A failure names its seed and leaves captures of the last packets in the target folder.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use headwater::internals::link::{Chance, LinkConfig};
use headwater::internals::sim::fleet;
use headwater::internals::sim::machines::TransportKit;
use headwater::internals::sim::object::Object;
use headwater::internals::sim::scenario::{ClientPlan, Reader, Scenario, ServerPlan};
use headwater::internals::sim::world::{Clock, Spray};
use headwater::internals::sim::{Options, SimFailure, run, run_seed};
use headwater::internals::time::Instant;

/// Worlds of one run of the tests.
const WORLDS: u64 = 1000;

/// Further worlds, in each of which something rare broke a law once.
const RARE: [u64; 12] = [
    5_002_223,
    1_796_066_285,
    1_796_075_873,
    1_796_087_353,
    1_796_090_958,
    1_796_095_156,
    1_796_102_815,
    1_796_118_052,
    1_797_056_530,
    1_797_062_706,
    1_797_064_974,
    1_796_066_567_230_770_699,
];

/// Threads that share the worlds.
const THREADS: usize = 2;

fn worlds(first: u64) -> Vec<SimFailure> {
    (first..WORLDS)
        .chain(RARE)
        .step_by(THREADS)
        .filter_map(|seed| run_seed(&TransportKit, seed, &Options::default()).err())
        .map(|failure| *failure)
        .collect()
}

fn leave_captures(failure: &SimFailure) -> io::Result<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let client = folder.join(format!("seed-{}-clients.pcap", failure.seed));
    let server = folder.join(format!("seed-{}-servers.pcap", failure.seed));
    fs::write(&client, &failure.client_side)?;
    fs::write(&server, &failure.server_side)?;
    let (client, server) = (client.display(), server.display());
    Ok(format!("{failure}\n  {client}\n  {server}"))
}

#[test]
fn a_thousand_worlds_break_no_law() {
    let threads: Vec<_> = (0..THREADS)
        .zip(0..)
        .map(|(_, first)| std::thread::spawn(move || worlds(first)))
        .collect();
    let failures: Vec<SimFailure> = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect();
    let texts: io::Result<Vec<String>> = failures.iter().map(leave_captures).collect();
    let texts = texts.unwrap();
    assert!(
        texts.is_empty(),
        "{} worlds:\n{}",
        texts.len(),
        texts.join("\n")
    );
}

#[test]
fn a_thousand_fleets_behind_redirectors_break_no_law() {
    let fleets = |first: u64| -> Vec<_> {
        let seeds = (first..WORLDS).step_by(THREADS);
        seeds.map(fleet::run_seed).collect()
    };
    let threads: Vec<_> = (0..THREADS)
        .zip(0..)
        .map(|(_, first)| std::thread::spawn(move || fleets(first)))
        .collect();
    let runs = threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap());
    let (mut reopened, mut failures) = (0, Vec::new());
    for run in runs {
        match run {
            Ok(report) => reopened += report.reopened,
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(
        reopened * 100 <= WORLDS,
        "{reopened} connections opened anew"
    );
}

/// 2 % of the packets lost each way, 1 % damaged and 1 % doubled, for as long as the world lasts.
fn bad_link() -> LinkConfig {
    LinkConfig {
        delay: Duration::from_millis(10),
        rate: Some(20_000_000),
        queue_bytes: 64 * 1024,
        loss: Chance::from_percent(2),
        duplicate: Chance::from_percent(1),
        corrupt: Chance::from_percent(1),
        ..LinkConfig::default()
    }
}

fn client(index: u16) -> ClientPlan {
    let [high, low] = index.to_be_bytes();
    ClientPlan {
        cheats: false,
        late_streams: false,
        local: ([10, 1, high, low], 4000).into(),
        remote: ([10, 0, 0, 1], 7600).into(),
        mtu: 1500,
        buffer: 1 << 20,
        objects: vec![Object {
            seed: u64::from(index),
            length: 300_000,
        }],
        starts: Instant::from_micros(0),
        pause: Duration::ZERO,
        reader: Reader::Greedy,
        seed: u64::from(index),
        clock: Clock::default(),
        up: bad_link(),
        down: bad_link(),
    }
}

#[test]
fn sixty_four_clients_on_bad_links_all_finish() {
    let server = |id| ServerPlan {
        id,
        clock: Clock::default(),
    };
    let scenario = Scenario {
        seed: 64,
        service: ([10, 0, 0, 1], 7600).into(),
        spray: Spray::Random,
        servers: vec![server(1), server(2)],
        clients: (1..=64).map(client).collect(),
        script: Vec::new(),
        // The links never heal; from here on the laws detect a stuck client.
        heals_at: Instant::from_micros(30_000_000),
        secret: 1,
        thinks: Duration::ZERO,
    };
    let report = match run(&TransportKit, &scenario, &Options::default()) {
        Ok(report) => report,
        Err(failure) => panic!("{}", leave_captures(&failure).unwrap()),
    };
    assert_eq!(
        (report.clients, report.bytes),
        (64, 64 * 300_000),
        "{report}"
    );
    assert_eq!(report.handshakes, 64, "{report}");
}
