//! The cost per packet of a redirector: choice and encapsulation; sealing alone, and decapsulation.
//!
//! In: nothing; out: nanoseconds per request of 300 bytes, by policy and number of backends.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use divan::{Bencher, black_box};
use headwater::internals::redirect::backend::{Backend, BackendConfig};
use headwater::internals::redirect::capsule::{CapsuleHeader, CapsuleKind, MacKeys};
use headwater::internals::redirect::config::RedirectConfig;
use headwater::internals::redirect::engine::{EngineSettings, Redirect};
use headwater::internals::redirect::prefixes::Table;
use headwater::internals::redirect::{BackendId, Generation, RedirectorId};
use headwater::internals::time::{Instant, Now};
use headwater::internals::wire::flight::{Ecn, UdpPath};
use headwater::internals::wire::ip::UdpTemplate;

fn main() {
    divan::main();
}

fn keys() -> MacKeys {
    MacKeys::new((1, [1; 16]), &[])
}

fn config(policy: &str, backends: usize) -> RedirectConfig {
    let backend =
        |n: usize| format!("[[backend]]\nname = \"s{n}\"\nid = {n}\naddress = \"10.0.1.{n}\"\n");
    let head = "generation = 1\nid = 1\naddress = [\"10.0.0.10\"]\n\
                services = [\"10.0.0.100\"]\nkey-file = \"keys\"\n";
    let backends: String = (1..=backends).map(backend).collect();
    let text = format!("{head}policy = \"{policy}\"\n{backends}");
    RedirectConfig::parse("bench", &text).unwrap()
}

fn request() -> Vec<u8> {
    let path = UdpPath {
        src: ([192, 0, 2, 1], 4000).into(),
        dst: ([10, 0, 0, 100], 7600).into(),
    };
    let mut payload = vec![0x20, 0];
    payload.resize(272, 7);
    let template = UdpTemplate::new(path, Ecn::Ect0).unwrap();
    template.packet(&payload).unwrap()
}

#[divan::bench(args = [("rendezvous", 4), ("rendezvous", 32), ("spread", 4), ("spread", 32)])]
fn redirect(bencher: Bencher<'_, '_>, (policy, backends): (&str, usize)) {
    let settings = EngineSettings {
        mtu: 1500,
        keys: keys(),
        table: Table::default(),
        seed: 1,
    };
    let mut redirect = Redirect::new(Now::default(), &config(policy, backends), settings);
    let packet = request();
    bencher.bench_local(|| {
        redirect.handle_packet(Now::default(), black_box(&packet), None);
        let sent = redirect.outbox().pop().unwrap();
        redirect.outbox().recycle(black_box(sent));
    });
}

#[divan::bench]
fn seal_and_unwrap(bencher: Bencher<'_, '_>) {
    let mut backend = Backend::new(BackendConfig {
        id: BackendId(1),
        redirectors: vec![RedirectorId(1)],
        keys: keys(),
    });
    let packet = request();
    let (mut sealed, mut reply) = (Vec::new(), Vec::new());
    let mut header = CapsuleHeader {
        kind: CapsuleKind::Packet,
        redirector: RedirectorId(1),
        backend: BackendId(1),
        generation: Generation(1),
        sequence: 0,
    };
    bencher.bench_local(|| {
        header.sequence += 1;
        sealed.clear();
        keys().seal(&header, &packet, &mut sealed);
        backend.handle(Instant::ZERO, black_box(&sealed), &mut reply);
    });
}
