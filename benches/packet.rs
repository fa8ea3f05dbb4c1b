//! The cost per packet of 1500 bytes of the stack: emitting and parsing headers, demultiplexing.
//!
//! In: nothing; out: nanoseconds per packet. The budget for everything together is about 1.5 µs, the
//! price of one packet at a plain TUN.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark")]

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use headwater::internals::stack::{Stack, StackConfig};
use headwater::internals::time::Instant;
use headwater::internals::wire::flight::{Ecn, UdpPath};
use headwater::internals::wire::ip::{MAX_PACKET, UdpTemplate, emit_udp, parse_udp};

fn main() {
    divan::main();
}

const FAMILIES: [&str; 2] = ["v4", "v6"];

fn path(family: &str) -> UdpPath {
    let [src, dst] = match family {
        "v4" => ["10.0.0.2:9", "10.0.0.1:7600"],
        _ => ["[fd00::2]:9", "[fd00::1]:7600"],
    };
    UdpPath {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
    }
}

fn packet(family: &str) -> Vec<u8> {
    let mut out = vec![0; MAX_PACKET];
    let payload = vec![0x5a; if family == "v4" { 1472 } else { 1452 }];
    let len = emit_udp(path(family), Ecn::Ect0, &payload, 0, &mut out).unwrap();
    out.truncate(len);
    out
}

#[divan::bench(args = FAMILIES)]
fn emit(bencher: Bencher<'_, '_>, family: &str) {
    let template = UdpTemplate::new(path(family), Ecn::Ect0).unwrap();
    let payload = vec![0x5a; 1440];
    let mut out = vec![0; 1500];
    bencher
        .counter(BytesCount::new(1500_u64))
        .bench_local(|| template.emit(0, black_box(&payload), &mut out).unwrap());
}

#[divan::bench(args = FAMILIES)]
fn parse(bencher: Bencher<'_, '_>, family: &str) {
    let packet = packet(family);
    bencher
        .counter(BytesCount::new(1500_u64))
        .bench_local(|| parse_udp(black_box(&packet)).unwrap().unwrap().payload[0]);
}

#[divan::bench(args = FAMILIES)]
fn demux(bencher: Bencher<'_, '_>, family: &str) {
    let addresses = ["v4", "v6"].map(|family| path(family).dst.ip()).to_vec();
    let config = StackConfig {
        addresses,
        mtu: 1500,
        transport_ports: 7600..=7600,
        seed: 1,
    };
    let mut stack = Stack::new(Instant::ZERO, config).unwrap();
    let packet = packet(family);
    bencher.counter(BytesCount::new(1500_u64)).bench_local(|| {
        stack.handle_packet(Instant::ZERO, black_box(&packet), None)
            == headwater::internals::stack::Demuxed::Taken
    });
}
