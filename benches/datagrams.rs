//! The cost of one packet for the loop of a server: from the packet's arrival until the server has no
//! more to send. First the packets of downloads of the kinds that cost the most, each beside threads that
//! hash and read; then hostile packets, by recipe. Prints the median, the 99th percentile and the maximum.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::panic,
    reason = "a benchmark stops at the first surprise"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "a benchmark measures time, and prints it"
)]
#![allow(
    dead_code,
    reason = "the tests use more of the generator than this benchmark"
)]

mod costs;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use costs::{Costs, write};
use generator::{Generator, corpus};
use headwater::internals::apps::origin::Origin;
use headwater::internals::time::UnixMillis;
use headwater::{
    ClientHost, ClientHostConfig, KeyRing, Machine, MemoryOutput, Now, SECRET_BYTES, ServerHost,
    ServerHostConfig, Target, ThreadWorkers, Transfer, TransferConfig, TransferEvent,
};

#[path = "../tests/hostile/generator.rs"]
pub mod generator;
#[path = "../tests/fuzz/src/packets.rs"]
pub mod packets;

const SERVICE: &str = "10.0.0.2";
const CLIENT: &str = "10.0.0.1";
const PORT: u16 = 7600;

/// Files of each kind.
const FILES: usize = 40;

/// Names in each folder.
const NAMES: usize = 4096;

/// Hostile packets.
const HOSTILE: usize = 300_000;

/// The time between two turns of the network and the server.
const TURN: Duration = Duration::from_micros(500);

struct Bench {
    start: Instant,
    server: ServerHost<Origin>,
    generator: Generator,
    costs: Costs,
}

impl Bench {
    /// The time of the machines is that of the threads.
    fn now(&self) -> Now {
        let mut now = Now::default();
        now.instant += self.start.elapsed();
        now.unix = UnixMillis::new(1_800_000_000_000 + now.instant.as_micros() / 1000);
        now
    }

    /// Hands a packet to the server; returns its answers and records the time of both.
    fn serve(&mut self, packet: &[u8]) -> (Duration, Vec<Vec<u8>>) {
        let now = self.now();
        let mut transmits = Vec::new();
        let start = Instant::now();
        self.server.handle_packet(now, packet, None);
        while let Some(transmit) = self.server.poll_transmit(now) {
            transmits.push(transmit);
        }
        let cost = start.elapsed();
        let packets = transmits
            .into_iter()
            .flat_map(|transmit| transmit.into_packets().unwrap());
        (cost, packets.collect())
    }

    /// Timers and threads.
    fn wake(&mut self) -> Vec<Vec<u8>> {
        let now = self.now();
        if self
            .server
            .poll_timeout(now)
            .is_some_and(|(at, _)| at <= now.instant)
        {
            self.server.handle_timeout(now);
        }
        let mut packets = Vec::new();
        while let Some(transmit) = self.server.poll_transmit(now) {
            packets.extend(transmit.into_packets().unwrap());
        }
        packets
    }

    /// Downloads one path, at most `most` bytes of it.
    fn download(&mut self, path: &str, most: usize) {
        let config = ClientHostConfig::builder([CLIENT.parse().unwrap()], 2)
            .build()
            .unwrap();
        let mut client = ClientHost::new(self.now(), config).unwrap();
        let target = Target::parse(&format!("http://{SERVICE}:{PORT}{path}")).unwrap();
        let body = MemoryOutput::with_limit(most);
        client.start(
            self.now(),
            Transfer::new(TransferConfig::default(), target, Box::new(body)),
        );
        loop {
            let now = self.now();
            if client
                .poll_timeout(now)
                .is_some_and(|(at, _)| at <= now.instant)
            {
                client.handle_timeout(now);
            }
            let mut answers = self.wake();
            while let Some(transmit) = client.poll_transmit(now) {
                for packet in transmit.into_packets().unwrap() {
                    self.generator.learn(&packet);
                    let (cost, packets) = self.serve(&packet);
                    self.costs.push(cost);
                    answers.extend(packets);
                }
            }
            for packet in answers {
                client.handle_packet(self.now(), &packet, None);
            }
            match client.poll_event() {
                Some(TransferEvent::Done { .. } | TransferEvent::Failed(_)) => return,
                Some(_) => {}
                None => std::thread::sleep(TURN),
            }
        }
    }

    fn hostile(&mut self) {
        let mut costs: BTreeMap<String, Costs> = BTreeMap::new();
        for _ in 0..HOSTILE {
            let (recipe, packet) = self.generator.make();
            let (name, packet) = (format!("hostile: {recipe:?}"), packet.to_vec());
            let (cost, _) = self.serve(&packet);
            costs.entry(name).or_default().push(cost);
        }
        for (name, mut costs) in costs {
            costs.report(&name, "packets");
        }
    }
}

fn make(root: &Path) {
    let large = vec![7; 10 << 20];
    for index in 0..FILES {
        write(root, &format!("large{index}"), &large[..(10 << 20) - index]);
        write(root, &format!("small{index}"), &large[..65_000]);
        let folder = root.join(format!("folder{index}"));
        fs::create_dir(&folder).unwrap();
        for name in 0..NAMES {
            File::create(folder.join(format!("name{name}"))).unwrap();
        }
        write(root, &format!("text{index}.txt"), &large[..2 << 20]);
    }
}

fn main() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let root = folder.path();
    make(root);
    let workers = ThreadWorkers::start(root, None).unwrap();
    let origin = Origin::new(root, Box::new(workers)).unwrap();
    let config = ServerHostConfig::builder([SERVICE.parse().unwrap()], 1)
        .build()
        .unwrap();
    let keys = KeyRing::with_secret([7; SECRET_BYTES]);
    let service = format!("{SERVICE}:{PORT}").parse().unwrap();
    let mut bench = Bench {
        start: Instant::now(),
        server: ServerHost::new(Now::default(), config, keys, origin).unwrap(),
        generator: Generator::new(1, vec![service], corpus()),
        costs: Costs::default(),
    };
    for (name, path) in [
        ("files of 10 MiB, never seen", "/large"),
        ("the same, known", "/large"),
        ("files of 65 kB", "/small"),
        ("listings of 4,096 names", "/folder"),
        ("marked texts", "/.watermark/m/text"),
        ("generated bytes, new periods", "/.dynamic/"),
    ] {
        for index in 0..FILES {
            let rest = match path {
                "/folder" => "/",
                "/.watermark/m/text" => ".txt",
                "/.dynamic/" => "/3000000/262143",
                _ => "",
            };
            bench.download(&format!("{path}{index}{rest}"), 16 << 20);
        }
        bench.costs.report(name, "packets");
    }
    bench.hostile();
}
