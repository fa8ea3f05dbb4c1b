//! A thousand worlds of the transport, each drawn from a seed, none breaking a law.
//!
//! A failure names its seed and leaves captures of the last packets in the target folder.

use std::path::Path;
use std::{fs, io};

use headwater::sim::machines::TransportKit;
use headwater::sim::{Failure, Options, run_seed};

/// Worlds of one run of the tests.
const WORLDS: u64 = 1000;

/// Worlds are shared out among so many threads.
const THREADS: usize = 2;

fn worlds(first: u64) -> Vec<Failure> {
    (first..WORLDS)
        .step_by(THREADS)
        .filter_map(|seed| run_seed(&TransportKit, seed, &Options::default()).err())
        .map(|failure| *failure)
        .collect()
}

fn leave_captures(failure: &Failure) -> io::Result<String> {
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
    let failures: Vec<Failure> = threads
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
