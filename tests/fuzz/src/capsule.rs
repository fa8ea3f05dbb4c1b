//! Target of `redirect`: capsules and heartbeats, at a backend and at a redirector.
//!
//! In: any bytes, taken as they are, and once more as the fields of a genuine capsule. Laws: nothing
//! panics; a forged payload is ignored; an authentic one is accepted once; a reply is no larger than
//! its query; a redirector's output is bounded by its input.

use headwater::internals::redirect::backend::{Backend, BackendConfig, Taken};
use headwater::internals::redirect::capsule::{CapsuleHeader, CapsuleKind, MacKeys, peek};
use headwater::internals::redirect::config::RedirectConfig;
use headwater::internals::redirect::engine::{EngineSettings, Redirect};
use headwater::internals::redirect::prefixes::Table;
use headwater::internals::redirect::{BackendId, Generation, RedirectorId};
use headwater::internals::time::{Instant, Now, UnixMillis};
use headwater::internals::wire::flight::{Ecn, UdpPath};
use headwater::internals::wire::ip::{MAX_PACKET, emit_udp};

use super::input::Input;

const CONFIG: &str = r#"generation = 2
id = 1
address = ["10.0.0.10"]
services = ["10.0.0.100"]
key-file = "keys"
policy = "spread"
[[backend]]
name = "s1"
id = 1
address = "10.0.1.1"
[[backend]]
name = "s2"
id = 2
device = "hwb2"
"#;

fn keys() -> MacKeys {
    MacKeys::new((1, [7; 16]), &[(2, [8; 16])])
}

/// A payload between redirector and backend.
pub fn capsule(data: &[u8]) {
    let mut backend = Backend::new(BackendConfig {
        id: BackendId(1),
        redirectors: vec![RedirectorId(1), RedirectorId(2)],
        keys: keys(),
    });
    let mut reply = Vec::new();
    assert!(
        backend.handle(Instant::ZERO, data, &mut reply).is_none(),
        "nobody forges 128 bits"
    );
    let _ = peek(data);
    let (header, body) = genuine(data);
    let mut sealed = Vec::new();
    keys().seal(&header, body, &mut sealed);
    assert_eq!(keys().open(&sealed), Ok((header, body)));
    let first = backend.handle(Instant::ZERO, &sealed, &mut reply);
    match first {
        Some(Taken::Packet(packet)) => assert_eq!(packet, body),
        Some(Taken::Reply) => assert!(reply.len() <= sealed.len()),
        None => {}
    }
    let again = backend.handle(Instant::ZERO, &sealed, &mut Vec::new());
    assert!(again.is_none(), "taken twice");
    at_redirector(data, &sealed);
}

/// Fields of a header, mostly those that are expected, and the rest as the body.
fn genuine(data: &[u8]) -> (CapsuleHeader, &[u8]) {
    let (fields, body) = data.split_at(data.len().min(6));
    let mut input = Input::new(fields);
    let kind = match input.u8() % 3 {
        0 => CapsuleKind::Packet,
        1 => CapsuleKind::Query,
        _ => CapsuleKind::Reply,
    };
    let header = CapsuleHeader {
        kind,
        redirector: RedirectorId(u16::from(input.u8() % 4)),
        backend: BackendId(u16::from(input.u8() % 4)),
        generation: Generation(u32::from(input.u8() % 4)),
        sequence: u64::from(input.u8()) + 1,
    };
    (header, body)
}

fn at_redirector(data: &[u8], sealed: &[u8]) {
    let config = RedirectConfig::parse("fuzz", CONFIG).expect("a sound configuration");
    let now = Now {
        instant: Instant::from_micros(1_000_000),
        unix: UnixMillis::new(1_800_000_000_000),
    };
    let settings = EngineSettings {
        mtu: 1500,
        keys: keys(),
        table: Table::default(),
        seed: 1,
    };
    let mut redirect = Redirect::new(now, &config, settings);
    let mut packet = vec![0; MAX_PACKET];
    let ways = [
        (([10, 0, 1, 1], 7601), ([10, 0, 0, 10], 7601), sealed),
        (([192, 0, 2, 1], 4000), ([10, 0, 0, 100], 7600), data),
    ];
    redirect.handle_packet(now, data, None);
    for (src, dst, payload) in ways {
        let path = UdpPath {
            src: src.into(),
            dst: dst.into(),
        };
        if let Ok(length) = emit_udp(path, Ecn::NotEct, payload, 1, &mut packet) {
            redirect.handle_packet(now, &packet[..length], None);
            redirect.handle_packet(now, &packet[..length], Some(100));
        }
    }
    redirect.handle_timeout(now);
    assert_eq!(
        redirect.newest(),
        Generation(2),
        "nothing was asked, so nothing is an answer"
    );
    let mut sent = 0;
    while redirect.outbox().pop().is_some() {
        sent += 1;
    }
    while redirect.outbox().pop_forward().is_some() {
        sent += 1;
    }
    assert!(sent <= 4 + data.len() / 100 + 1, "{sent} packets");
}
