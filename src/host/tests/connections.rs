//! Several connections of one client, on one local port.

use super::*;
use crate::host::connections::MAX_CONNECTIONS;

/// A client, and `count` servers beside the first.
fn world(protocol: Protocol, count: usize) -> World {
    let mut world = World::new(protocol, false);
    let others = 3..3 + u8::try_from(count).unwrap();
    let new = |last| server(&world.version, address(false, last), world.now, 0);
    world.others = others.map(new).collect();
    world
}

fn fetch(world: &mut World, host: &str, size: u64) {
    let memory = world.start(&format!("http://{host}/{size}"), false);
    assert_eq!(world.finish(), VERIFIED, "{host} {size}");
    assert!(memory.0.borrow().0 == body(0, size), "{host} {size}");
}

#[test]
fn a_service_left_for_another_needs_no_second_connection() {
    for protocol in [TRICKLES, Protocol::Tcp] {
        let mut world = world(protocol, 1);
        for (host, size) in [
            ("files", 100_000),
            ("other3", 70_000),
            ("files", 50_000),
            ("other3", 3),
        ] {
            fetch(&mut world, host, size);
        }
        let report = world.client.report();
        assert_eq!(report.connections, 2, "{protocol:?}");
        let handshakes = if protocol == TRICKLES { 2 } else { 0 };
        assert_eq!(report.transport.handshakes, handshakes);
    }
}

/// A transfer is dropped in its middle for one from the other service, again and again: packets of
/// either connection come late, while the other carries the transfer.
#[test]
fn late_packets_of_the_other_connection_harm_nothing() {
    let mut world = world(TRICKLES, 1);
    for (round, host) in ["files", "other3"].into_iter().cycle().take(20).enumerate() {
        world.start(&format!("http://{host}/3000000"), false);
        let mut steps = 0;
        while steps < 10 + 3 * round || world.wire.iter().all(|(_, to_server, _)| *to_server) {
            assert!(world.step(), "round {round}");
            world.drain();
            steps += 1;
        }
        if round % 4 == 3 {
            let other = if host == "files" { "other3" } else { "files" };
            fetch(&mut world, other, 200_000);
        }
    }
    let report = world.client.report();
    assert_eq!((report.connections, report.transport.handshakes), (2, 2));
    assert!(report.transport.drops.is_empty(), "{report:?}");
}

/// A connection that was left is not asked for more: once the packets under way have come, only the
/// other one speaks.
#[test]
fn a_connection_that_was_left_is_quiet() {
    let mut world = world(TRICKLES, 1);
    world.start("http://files/50000000", false);
    for _ in 0..200 {
        assert!(world.step());
    }
    fetch(&mut world, "other3", 1000);
    let end = world.now.instant + Duration::from_secs(5);
    while world.step_until(end) {}
    let before = world.client.report().transport;
    let end = end + Duration::from_secs(60);
    while world.step_until(end) {}
    let after = world.client.report().transport;
    assert_eq!(after.packets_out, before.packets_out);
    fetch(&mut world, "files", 1000);
    assert_eq!(world.client.report().connections, 2);
}

/// Bytes that a request must follow the OPEN for: it proves the address.
const PROVES: u64 = 10_000;

/// Beyond the bound the least recently used connection makes room, and leaves its token behind.
#[test]
fn the_least_recently_used_connection_makes_room() {
    let mut world = world(TRICKLES, MAX_CONNECTIONS);
    let connections = |world: &World| world.client.report().connections as usize;
    for last in 3..2 + MAX_CONNECTIONS {
        fetch(&mut world, &format!("other{last}"), PROVES);
    }
    fetch(&mut world, "files", PROVES);
    fetch(&mut world, "other3", 10);
    assert_eq!(connections(&world), MAX_CONNECTIONS, "at the bound");
    let newest = 2 + MAX_CONNECTIONS;
    fetch(&mut world, &format!("other{newest}"), PROVES);
    assert_eq!(connections(&world), MAX_CONNECTIONS + 1, "past it");
    for host in ["other3", "files", "other5"] {
        fetch(&mut world, host, 10);
    }
    assert_eq!(connections(&world), MAX_CONNECTIONS + 1, "these were kept");
    let tokens = world.client.tokens(world.now);
    assert_eq!(
        tokens.iter().count(),
        MAX_CONNECTIONS + 1,
        "of each service"
    );
    // More than an OPEN is answered with, unless a token proves the address.
    let begun = world.now.instant;
    fetch(&mut world, "other4", 10_000);
    assert_eq!(
        connections(&world),
        MAX_CONNECTIONS + 2,
        "this one made room"
    );
    let took = world.now.instant.saturating_since(begun);
    assert_eq!(took, 2 * ONE_WAY, "its token was shown");
}

#[test]
fn datagrams_of_no_connection_are_counted() {
    let mut world = world(TRICKLES, 1);
    fetch(&mut world, "files", 1000);
    world.start("http://files/3000000", false);
    let mut late = Vec::new();
    for step in 0.. {
        assert!(world.step());
        let to_client = world.wire.iter().filter(|(_, to_server, _)| !to_server);
        late = to_client.map(|(.., packet)| packet.clone()).collect();
        if step > 50 && !late.is_empty() {
            break;
        }
    }
    // Another client at the same address and port, which knows nothing of that connection.
    world.client = ClientHost::new(world.now, client_config(TRICKLES, false)).unwrap();
    world.wire.clear();
    fetch(&mut world, "other3", 1000);
    for packet in &late {
        world.client.handle_packet(world.now, packet, None);
    }
    let drops = world.client.report().transport.drops;
    assert_eq!(drops.get("unknown_connection"), Some(&(late.len() as u64)));
    fetch(&mut world, "other3", 1000);
}
