//! A redirector at work takes no memory: an allocator that counts, under the machine that ships.
//!
//! In: nothing. Out: a failed test if a packet costs an allocation once buffers have grown.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]
#![expect(unsafe_code, reason = "an allocator has no safe form")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use headwater::internals::host::redirector::{Redirector, mac_keys};
use headwater::internals::host::{Machine, Transmit};
use headwater::internals::redirect::config::RedirectConfig;
use headwater::internals::redirect::engine::EngineSettings;
use headwater::internals::redirect::prefixes::Table;
use headwater::internals::time::Now;
use headwater::internals::transport::keys::KeyRing;
use headwater::internals::wire::flight::{Ecn, UdpPath};
use headwater::internals::wire::ip::UdpTemplate;

/// The system's allocator, and how often each thread has asked it for memory.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came; the counter takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often memory is asked for meanwhile.
fn asked(work: impl FnOnce()) -> u64 {
    let before = ASKED.get();
    work();
    ASKED.get() - before
}

fn redirector(policy: &str, delivery: &str) -> Redirector {
    let backend = |n: usize| {
        let place = match delivery {
            "device" => format!("device = \"to{n}\""),
            _ => format!("address = \"10.0.1.{n}\""),
        };
        format!("[[backend]]\nname = \"s{n}\"\nid = {n}\n{place}\n")
    };
    let backends: String = (1..=8).map(backend).collect();
    let text = format!(
        "generation = 1\nid = 1\naddress = [\"10.0.0.10\"]\nservices = [\"10.0.0.100\"]\n\
         key-file = \"keys\"\npolicy = \"{policy}\"\n{backends}"
    );
    let settings = EngineSettings {
        mtu: 1500,
        keys: mac_keys(&KeyRing::with_secret([1; 32])),
        table: Table::default(),
        seed: 1,
    };
    Redirector::new(
        Now::default(),
        &RedirectConfig::parse("test", &text).unwrap(),
        settings,
    )
}

/// A packet of a connection to the service, whose payload is that of `count` requests of `length`
/// bytes, joined.
fn packet(connection: u64, length: usize, count: usize) -> Vec<u8> {
    let mut payload = vec![0x20, 0];
    payload.extend_from_slice(&connection.to_be_bytes());
    payload.resize(length, 7);
    let path = UdpPath {
        src: ([192, 0, 2, 1], 4000).into(),
        dst: ([10, 0, 0, 100], 7600).into(),
    };
    let template = UdpTemplate::new(path, Ecn::Ect0).unwrap();
    template.packet(&payload.repeat(count)).unwrap()
}

/// Gives the packet to the machine and takes all that comes out; how many packets that were.
fn pass(machine: &mut Redirector, packet: &[u8], segment: Option<usize>) -> usize {
    let mut count = 0;
    machine.handle_packet(Now::default(), packet, segment);
    while let Some(transmit) = machine.poll_transmit(Now::default()) {
        let Transmit::Packet(packet) = transmit else {
            panic!("a redirector sends packets");
        };
        machine.recycle(packet);
        count += 1;
    }
    while let Some((_, packet)) = machine.poll_forward() {
        machine.recycle(packet);
        count += 1;
    }
    count
}

#[test]
fn a_packet_costs_a_redirector_no_memory() {
    for policy in ["rendezvous", "spread", "spread-random", "least-loaded"] {
        for delivery in ["address", "device"] {
            let mut machine = redirector(policy, delivery);
            let packets: Vec<_> = (0..1000)
                .map(|n| packet(n, if n % 2 == 0 { 100 } else { 1400 }, 1))
                .collect();
            let joined = packet(5, 300, 20);
            // Buffers grow to the largest size and number.
            let grown = |machine: &mut Redirector| {
                packets
                    .iter()
                    .map(|one| pass(machine, one, None))
                    .sum::<usize>()
                    + pass(machine, &joined, Some(300))
            };
            for _ in 0..20 {
                assert_eq!(grown(&mut machine), 1020, "{policy}, {delivery}");
            }
            let count = asked(|| assert_eq!(grown(&mut machine), 1020));
            assert_eq!(count, 0, "{policy}, {delivery}");
        }
    }
}

#[test]
fn what_is_dropped_costs_none_either() {
    let mut machine = redirector("rendezvous", "address");
    let mut foreign = packet(1, 100, 1);
    foreign[19] = 99;
    let odd: [&[u8]; 4] = [&[], &[0x45; 10], &[0x60; 60], &foreign];
    // The first of a kind gets a counter.
    let mut all = || {
        odd.iter()
            .map(|one| pass(&mut machine, one, None))
            .sum::<usize>()
    };
    assert_eq!(all(), 0);
    assert_eq!(asked(|| assert_eq!(all(), 0)), 0);
}

#[test]
fn the_count_counts() {
    assert_eq!(asked(|| drop(std::hint::black_box(Box::new(1)))), 1);
    let grow = || {
        let mut bytes = Vec::with_capacity(1);
        bytes.extend_from_slice(&[1_u8; 100]);
        std::hint::black_box(bytes);
    };
    assert_eq!(asked(grow), 2);
}
