//! ICMP errors: genuine ones hasten heartbeats and suspend a dead backend; forged ones do nothing.

use super::*;

/// Builds an ICMP "unreachable" with that code from a router about `packet`.
fn unreachable_about(packet: &[u8], code: u8) -> Vec<u8> {
    let mut error = vec![3, code, 0, 0, 0, 0, 0, 0];
    error.extend(&packet[..packet.len().min(548)]);
    if error.len() % 2 == 1 {
        error.push(0);
    }
    let mut sum: u32 = error
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    error[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    ip(1, [10, 0, 0, 254], [10, 0, 0, 10], &error)
}

/// A packet for a backend that was sent now, and the backend.
fn given(fleet: &mut Fleet) -> (Vec<u8>, usize) {
    let packet = udp(&request(1));
    fleet.redirect.handle_packet(at(fleet.now), &packet, None);
    let sent = fleet.redirect.outbox().pop().unwrap();
    let backend = usize::from(sent[19]);
    (sent, backend)
}

fn handle(fleet: &mut Fleet, error: &[u8]) -> u64 {
    let before = fleet.redirect.counters().hints;
    fleet.redirect.handle_packet(at(fleet.now), error, None);
    fleet.redirect.counters().hints - before
}

#[test]
fn an_error_about_a_packet_hastens_a_query_and_moves_nothing() {
    let mut fleet = Fleet::new(&config(1, 1, "spread", &ACTIVE[..2]));
    fleet.pass(120);
    let (packet, backend) = given(&mut fleet);
    let queries = |fleet: &Fleet| fleet.backends[backend - 1].0.counters().queries;
    let before = queries(&fleet);
    assert_eq!(handle(&mut fleet, &unreachable_about(&packet, 1)), 1);
    assert_eq!(fleet.states(), [BackendState::Active; 2]);
    assert_eq!(fleet.shares(10)[1..3], [5, 5]);
    fleet.pass(2);
    assert_eq!(queries(&fleet), before + 1, "30 ms early");
    assert_eq!(fleet.states(), [BackendState::Active; 2]);
}

#[test]
fn an_error_about_a_query_suspends_until_the_next_answer() {
    let mut fleet = Fleet::new(&config(1, 1, "spread", &ACTIVE[..2]));
    fleet.pass(120);
    fleet.now = 151;
    fleet.redirect.handle_timeout(at(fleet.now));
    let query = fleet.redirect.outbox().pop().unwrap();
    let backend = usize::from(query[19]);
    let error = unreachable_about(&query, 1);
    let mut damaged = error.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let too_long = unreachable_about(&query, 4);
    let cut = unreachable_about(&query[..query.len() - 2], 1);
    for (error, label) in [
        (damaged, "not_for_us"),
        (too_long, "not_for_us"),
        (cut, "not_for_us"),
    ] {
        let before = fleet.drops(label);
        assert_eq!(handle(&mut fleet, &error), 0);
        assert_eq!(fleet.drops(label), before + 1);
    }
    assert_eq!(fleet.states(), [BackendState::Active; 2]);
    assert_eq!(handle(&mut fleet, &error), 1);
    assert_eq!(fleet.shares(10)[backend], 0);
    fleet.pass(14);
    assert_eq!(
        fleet.states(),
        [BackendState::Active; 2],
        "it has answered since"
    );
    assert_eq!(handle(&mut fleet, &error), 1, "but it is not answered");
    assert_eq!(fleet.states(), [BackendState::Active; 2], "refuted lately");
}

/// Quotes a capsule with a sequence number at each of the last `count`, under a MAC of its own.
#[test]
fn a_blind_sender_moves_no_traffic() {
    let mut fleet = Fleet::new(&config(1, 1, "spread", &ACTIVE));
    fleet.pass(500);
    let (genuine, backend) = given(&mut fleet);
    let queries = |fleet: &Fleet| fleet.backends[backend - 1].0.counters().queries;
    let before = queries(&fleet);
    let start = at(0).unix.as_millis() * 1000;
    for guess in 0..3000 {
        let mut forged = genuine.clone();
        let sequence: u64 = start + guess % 64;
        forged[28] = [0x11, 0x12][usize::from(guess % 2 == 0)];
        forged[38..46].copy_from_slice(&sequence.to_be_bytes());
        forged[46..62].copy_from_slice(&u128::from(guess).to_be_bytes());
        assert_eq!(handle(&mut fleet, &unreachable_about(&forged, 1)), 0);
        if guess % 3 == 0 {
            fleet.pass(1);
        }
    }
    assert_eq!(fleet.drops("heartbeat_forged"), 3000);
    assert_eq!(queries(&fleet) - before, 20, "one each 50 ms");
    assert_eq!(fleet.states(), [BackendState::Active; 4]);
    let shares = fleet.shares(1000);
    assert!(shares[1..].iter().all(|share| *share == 250), "{shares:?}");
}
