//! Millions of packets of bad will at a server machine, beside clients that download from it.
//!
//! In: `HEADWATER_MUTATIONS`, how many packets (200,000 if unset). All in one process on virtual
//! time: a real origin, real clients over IPv4 and IPv6, a generator of hostile packets. Asserts:
//! no panic; every packet is answered, given to TCP or ICMP, or counted as dropped; no packet
//! elicits more than three times its bytes; every download is whole, over one connection a client,
//! by the very requests that it takes in peace; memory does not grow. Prints the figures; see them with `--nocapture`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_macros,
    reason = "a test"
)]

use std::collections::BTreeMap;
use std::fs;

use generator::{Generator, Recipe, corpus};
use headwater::internals::stack::{MAX_TCP_CONNECTIONS, SERVER_RECEIVE_BYTES, SERVER_SEND_BYTES};
use world::{Outcome, SERVICES, World};

pub mod generator;
#[path = "../fuzz/src/packets.rs"]
pub mod packets;
pub mod world;

/// Hostile packets, if the environment does not say how many.
const DEFAULT_MUTATIONS: u64 = 200_000;

/// Growth of resident memory that is allowed, in KiB.
const MAX_GROWTH_KIB: u64 = 1024;

/// Memory of the buffers of plain TCP when each page of each slot has been used, in KiB. They are
/// bounded and allocated early, but a page is resident only once it is touched, and hostile segments
/// reach another one now and then for as long as they come.
const TCP_POOL_KIB: u64 =
    (MAX_TCP_CONNECTIONS * (SERVER_SEND_BYTES + SERVER_RECEIVE_BYTES) / 1024) as u64;

/// Hostile packets between two looks at the real clients.
const BURST: u64 = 100;

fn mutations() -> u64 {
    std::env::var("HEADWATER_MUTATIONS").map_or(DEFAULT_MUTATIONS, |text| {
        text.parse().expect("HEADWATER_MUTATIONS is a number")
    })
}

/// Resident memory of this process in KiB.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Runs the same downloads undisturbed; returns the outcome of each client.
fn peace(total: u64) -> Vec<[u64; 5]> {
    let mut generator = Generator::new(1, Vec::new(), Vec::new());
    let mut world = World::begun();
    for sent in 0..total {
        if sent % BURST == 0 {
            world.run(&mut generator);
        }
        world.pass();
    }
    world.finish(&mut generator);
    world.deeds()
}

#[test]
fn hostile_packets_change_nothing() {
    let total = mutations();
    let services = SERVICES.map(|text| text.parse().unwrap()).to_vec();
    let mut generator = Generator::new(1, services, corpus());
    let mut world = World::begun();
    let mut outcomes: BTreeMap<Recipe, BTreeMap<Outcome, u64>> = BTreeMap::new();
    let (mut resident, soft_state) = (0, world.soft_state_bytes());
    for sent in 0..total {
        if sent % BURST == 0 {
            world.run(&mut generator);
        }
        if sent == total / 4 {
            resident = resident_kib();
        }
        world.pass();
        let (recipe, packet) = generator.make();
        let outcome = world.attack(packet);
        *outcomes
            .entry(recipe)
            .or_default()
            .entry(outcome)
            .or_default() += 1;
    }
    let grown = resident_kib().saturating_sub(resident);
    assert_eq!(world.soft_state_bytes(), soft_state);
    world.finish(&mut generator);
    eprintln!(
        "{total} packets, {resident} KiB resident after a quarter of them, {grown} KiB more at the end"
    );
    for (recipe, outcomes) in &outcomes {
        eprintln!("{recipe:?}: {outcomes:?}");
    }
    eprintln!("{}", world.report());
    assert_eq!(
        world.deeds(),
        peace(total),
        "no client was made to do anything else"
    );
    let most = MAX_GROWTH_KIB + TCP_POOL_KIB;
    assert!(grown <= most, "memory grew by {grown} KiB");
    let answered = outcomes
        .values()
        .flat_map(|outcomes| outcomes.get(&Outcome::Answered))
        .sum();
    assert!(
        (1..total).contains(&answered),
        "some get through to be answered"
    );
}
