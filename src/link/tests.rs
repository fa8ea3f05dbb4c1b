//! The link against hand-computed times, counted faults, and receivers that verify checksums.

use etherparse::{Ipv4HeaderSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;

fn at(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

fn link(config: LinkConfig) -> Link {
    Link::new(config, 7).unwrap()
}

/// Builds a UDP packet that carries `tag` in its first 8 bytes of payload.
fn packet(v6: bool, tag: u64, payload: usize, traffic_class: u8) -> Vec<u8> {
    let mut body = vec![0xa5; payload.max(8)];
    body[..8].copy_from_slice(&tag.to_be_bytes());
    let mut out = Vec::new();
    if v6 {
        let mut ip = etherparse::Ipv6Header {
            hop_limit: 64,
            ..Default::default()
        };
        ip.traffic_class = traffic_class;
        (ip.source, ip.destination) = ([1; 16], [2; 16]);
        let builder = PacketBuilder::ip(etherparse::IpHeaders::Ipv6(ip, Default::default()));
        builder.udp(1000, 80).write(&mut out, &body).unwrap();
    } else {
        let mut ip = etherparse::Ipv4Header {
            time_to_live: 64,
            ..Default::default()
        };
        ip.ecn = etherparse::IpEcn::try_new(traffic_class & 3).unwrap();
        (ip.source, ip.destination) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let builder = PacketBuilder::ip(etherparse::IpHeaders::Ipv4(ip, Default::default()));
        builder.udp(1000, 80).write(&mut out, &body).unwrap();
    }
    out
}

/// Returns the payload, if both checksums and all lengths are right.
fn verified(packet: &[u8]) -> Option<Vec<u8>> {
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let Some(TransportSlice::Udp(udp)) = sliced.transport else {
        return None;
    };
    let header = udp.to_header();
    if header.checksum == 0 {
        return None;
    }
    let want = if packet[0] >> 4 == 4 {
        let slice = Ipv4HeaderSlice::from_slice(packet).ok()?;
        if slice.to_header().calc_header_checksum() != slice.header_checksum() {
            return None;
        }
        header
            .calc_checksum_ipv4(&slice.to_header(), udp.payload())
            .ok()?
    } else {
        let ip = etherparse::Ipv6Header::from_slice(packet).ok()?.0;
        header.calc_checksum_ipv6(&ip, udp.payload()).ok()?
    };
    (want == header.checksum).then(|| udp.payload().to_vec())
}

fn tag(packet: &[u8]) -> u64 {
    let at = if packet[0] >> 4 == 4 { 28 } else { 48 };
    u64::from_be_bytes(packet[at..at + 8].try_into().unwrap())
}

/// Returns all arrivals with their times, jumping from deadline to deadline. Where packets may
/// overtake queued ones, or their number completes a burst, a deadline may be too early.
fn drain(link: &mut Link) -> Vec<(u64, Vec<u8>)> {
    let mut out = Vec::new();
    while let Some(next) = link.poll_timeout() {
        if next > Instant::ZERO {
            let early = next - Duration::from_micros(1);
            assert_eq!(link.pop(early), None, "nothing comes early");
        }
        if let Some(packet) = link.pop(next) {
            out.push((next.as_micros(), packet));
        } else {
            let config = link.config();
            let overtakes = config.jitter_reorders || config.reorder > Chance::NEVER;
            assert!(overtakes || config.aggregate.is_some());
        }
    }
    out
}

#[test]
fn an_ideal_wire_delivers_at_once_and_in_order() {
    let mut link = link(LinkConfig::default());
    for n in 0..10 {
        link.push(at(5), vec![n; 20]);
    }
    let got = drain(&mut link);
    assert_eq!(got.len(), 10);
    assert!(
        got.iter()
            .zip(0..)
            .all(|((time, bytes), n)| *time == 5 && bytes[0] == n)
    );
}

#[test]
fn serialization_times_carry_their_remainders() {
    // 100 bytes at 3 Mb/s take 266⅔ µs: three of them exactly 800.
    let config = LinkConfig {
        delay: Duration::from_micros(1000),
        rate: Some(3_000_000),
        queue_bytes: 10_000,
        ..LinkConfig::default()
    };
    let mut link = link(config);
    for _ in 0..6 {
        link.push(at(0), vec![0; 100]);
    }
    let times: Vec<u64> = drain(&mut link).into_iter().map(|(time, _)| time).collect();
    assert_eq!(times, [1266, 1533, 1800, 2066, 2333, 2600]);
    link.push(at(10_000), vec![0; 100]);
    assert_eq!(
        link.poll_timeout(),
        Some(at(11_266)),
        "an idle wire starts afresh"
    );
}

#[test]
fn the_queue_drops_its_tail_at_the_byte() {
    let config = LinkConfig {
        rate: Some(8_000_000),
        queue_bytes: 300,
        ..LinkConfig::default()
    };
    let mut link = link(config);
    for _ in 0..4 {
        link.push(at(0), vec![0; 100]);
    }
    assert_eq!(link.counters().queue, 1, "300 bytes fit, 400 do not");
    link.push(at(99), vec![0; 1]);
    assert_eq!(link.counters().queue, 2);
    link.push(at(100), vec![0; 100]);
    assert_eq!(
        link.counters().queue,
        2,
        "the first packet has left at 100 µs"
    );
    assert_eq!(drain(&mut link).len(), 4);
    link.push(at(1000), vec![0; 1000]);
    assert_eq!(drain(&mut link).len(), 1, "an empty queue takes any packet");
}

#[test]
fn a_standing_queue_marks_ect_and_repairs_the_checksum() {
    for (name, v6, class, want) in [
        ("v4 ECT(0)", false, 2, true),
        ("v4 ECT(1)", false, 1, true),
        ("v4 not ECT", false, 0, false),
        ("v6 ECT(0)", true, 2, true),
        ("v6 ECT(1)", true, 1, true),
        ("v6 not ECT", true, 0, false),
    ] {
        let config = LinkConfig {
            rate: Some(1_000_000),
            queue_bytes: 100_000,
            mark_bytes: Some(1000),
            ..LinkConfig::default()
        };
        let mut link = link(config);
        for n in 0..3 {
            link.push(at(0), packet(v6, n, 600, class));
        }
        let got = drain(&mut link);
        let ce: Vec<bool> = got
            .iter()
            .map(|(_, p)| {
                if v6 {
                    p[1] >> 4 & 3 == 3
                } else {
                    p[1] & 3 == 3
                }
            })
            .collect();
        assert_eq!(ce, [false, false, want], "{name}");
        assert!(got.iter().all(|(_, p)| verified(p).is_some()), "{name}");
        assert_eq!(link.counters().marked, u64::from(want), "{name}");
    }
}

/// A wire of one packet per millisecond, offered twice that for two seconds.
fn overloaded(codel: Option<Codel>, class: u8) -> (Link, Vec<(u64, Vec<u8>)>) {
    let mut link = link(LinkConfig {
        delay: Duration::from_millis(1),
        rate: Some(8_000_000),
        queue_bytes: 200_000,
        codel,
        ..LinkConfig::default()
    });
    let mut got = Vec::new();
    for n in 0..4000 {
        link.push(
            at(n * 500),
            packet(n % 2 == 0, n, if n % 2 == 0 { 952 } else { 972 }, class),
        );
        got.extend(link.pop(at(n * 500)).map(|packet| (n * 500, packet)));
    }
    (link, got)
}

#[test]
fn codel_drops_from_the_head_what_cannot_bear_a_mark() {
    let (link, got) = overloaded(Some(Codel::default()), 0);
    let counters = link.counters();
    assert!(counters.codel > 50 && counters.queue > 0, "{counters:?}");
    assert_eq!((counters.marked, counters.overflow), (0, 0));
    let held = link.occupancy();
    let held = u64::try_from(held.queued_packets + held.in_flight_packets).unwrap();
    assert_eq!(counters.pushed, counters.popped + counters.dropped() + held);
    // Packet n leaves at n ms after n/2 ms: the tenth is the first to wait for the target, and an
    // interval later there is the first drop.
    let mut pairs = got.windows(2);
    let gap = pairs.find(|pair| tag(&pair[1].1) != tag(&pair[0].1) + 1);
    assert_eq!(tag(&gap.unwrap()[0].1), 109);
    let sent = counters.popped + u64::try_from(link.occupancy().in_flight_packets).unwrap();
    assert_eq!(
        link.sojourn().summary().count,
        sent,
        "a dropped packet is not sent"
    );
}

#[test]
fn codel_marks_what_can_bear_it_and_passes_what_is_marked() {
    let (drops, _) = overloaded(Some(Codel::default()), 0);
    for (class, marks) in [(1, true), (2, true), (3, false)] {
        let (link, got) = overloaded(Some(Codel::default()), class);
        let counters = link.counters();
        assert_eq!(counters.codel, 0, "class {class}");
        assert_eq!(counters.marked > 50, marks, "{counters:?}");
        assert!(got.iter().all(|(_, packet)| verified(packet).is_some()));
        let ce = got
            .iter()
            .filter(|(_, packet)| damage::is_ce(packet))
            .count();
        let want = if marks {
            counters.marked
        } else {
            counters.popped
        };
        assert!(want.abs_diff(u64::try_from(ce).unwrap()) <= 1);
    }
    let (tail, _) = overloaded(None, 0);
    assert!(drops.counters().queue < tail.counters().queue);
    assert_eq!(tail.counters().codel, 0);
}

#[test]
fn checksum_update_matches_a_full_sum() {
    for class in 0..=255u8 {
        let mut bytes = packet(false, u64::from(class), 64, 2);
        bytes[1] = class;
        let mut header = Ipv4HeaderSlice::from_slice(&bytes).unwrap().to_header();
        header.header_checksum = header.calc_header_checksum();
        bytes[10..12].copy_from_slice(&header.header_checksum.to_be_bytes());
        let ect = matches!(class & 3, 1 | 2);
        assert_eq!(damage::mark_ce(&mut bytes), ect);
        assert!(verified(&bytes).is_some(), "class {class}");
    }
}

#[test]
fn jitter_keeps_or_breaks_the_order_as_asked() {
    for (reorders, jitter) in [(false, 5000), (true, 5000), (true, 0)] {
        let mut link = link(LinkConfig {
            delay: Duration::from_millis(10),
            jitter: Duration::from_micros(jitter),
            jitter_reorders: reorders,
            ..LinkConfig::default()
        });
        for n in 0..200 {
            link.push(at(n * 10), packet(false, n, 8, 0));
        }
        let got = drain(&mut link);
        let order: Vec<u64> = got.iter().map(|(_, p)| tag(p)).collect();
        assert_eq!(order.is_sorted(), !(reorders && jitter > 0));
        let in_time = |(time, p): &(u64, Vec<u8>)| {
            let late = time - tag(p) * 10;
            (10_000..=10_000 + jitter).contains(&late) || !reorders
        };
        assert!(got.iter().all(in_time));
    }
}

/// Each fault strikes in about a tenth of the packets: within 5 standard deviations, or, for bursts,
/// whose packets are correlated, within 3 of 10 packets.
#[test]
fn faults_strike_as_often_as_configured() {
    const COUNT: u32 = 20_000;
    let ten = Chance::from_percent(10);
    // The chain is bad 2/12 of the time.
    let burst = BurstLoss {
        enter: Chance::from_percent(2),
        leave: ten,
        loss: Chance::from_percent(60),
    };
    type Case = (
        &'static str,
        fn(&mut LinkConfig, Chance, BurstLoss),
        fn(LinkCounters) -> u64,
    );
    let cases: [Case; 6] = [
        ("loss", |c, ten, _| c.loss = ten, |c| c.lost),
        ("burst", |c, _, burst| c.burst = Some(burst), |c| c.burst),
        ("duplicate", |c, ten, _| c.duplicate = ten, |c| c.duplicated),
        ("corrupt", |c, ten, _| c.corrupt = ten, |c| c.corrupted),
        ("reorder", |c, ten, _| c.reorder = ten, |c| c.reordered),
        ("replay", |c, ten, _| c.replay = ten, |c| c.replayed),
    ];
    for (name, change, count) in cases {
        let mut config = LinkConfig::default();
        change(&mut config, ten, burst);
        let mut link = link(config);
        for n in 0..u64::from(COUNT) {
            link.push(at(n), packet(false, n, 8, 0));
        }
        let counters = link.counters();
        let struck = count(counters);
        let margin = if name == "burst" { 600 } else { 5 * 42 };
        assert!(struck.abs_diff(2000) < margin, "{name}: {struck}");
        let arrived = u64::try_from(drain(&mut link).len()).unwrap();
        let copies = counters.duplicated + counters.replayed;
        let want = u64::from(COUNT) + copies - counters.dropped();
        assert_eq!(arrived, want, "{name}");
    }
}

#[test]
fn losses_of_a_burst_stand_together() {
    let mut link = link(LinkConfig {
        burst: Some(BurstLoss {
            enter: Chance::from_percent(1),
            leave: Chance::from_percent(20),
            loss: Chance::from_percent(100),
        }),
        ..LinkConfig::default()
    });
    for n in 0..10_000 {
        link.push(at(n), packet(false, n, 8, 0));
    }
    let lost = link.counters().burst;
    let arrived: Vec<u64> = drain(&mut link).iter().map(|(_, p)| tag(p)).collect();
    let bursts = arrived
        .windows(2)
        .filter(|pair| pair[1] != pair[0] + 1)
        .count();
    let mean = lost / u64::try_from(bursts).unwrap();
    assert!(
        (4..=6).contains(&mean),
        "bursts of {mean} packets in the mean, expected 5"
    );
}

#[test]
fn nothing_enters_in_an_outage_and_what_had_entered_arrives() {
    let mut link = link(LinkConfig {
        delay: Duration::from_micros(500),
        outages: vec![
            Outage {
                from: at(100),
                until: at(200),
            },
            Outage {
                from: at(150),
                until: at(300),
            },
        ],
        ..LinkConfig::default()
    });
    for time in [99, 100, 199, 200, 299, 300] {
        link.push(at(time), packet(false, time, 8, 0));
    }
    let got: Vec<u64> = drain(&mut link).iter().map(|(_, p)| tag(p)).collect();
    assert_eq!(got, [99, 300]);
    assert_eq!(link.counters().outage, 4);
}

#[test]
fn a_replay_is_an_old_packet_whole() {
    let mut link = link(LinkConfig {
        replay: Chance::from_percent(50),
        ..LinkConfig::default()
    });
    let mut oldest = 0;
    for n in 0..5000 {
        link.push(at(n), packet(n % 2 == 0, n, 8, 0));
        while let Some(got) = link.pop(at(n)) {
            assert!(verified(&got).is_some());
            oldest = oldest.max(n - tag(&got));
        }
    }
    assert!(link.counters().replayed > 2000);
    assert!(oldest > 1000, "replays reach {oldest} packets back");
    assert_eq!(link.remembered.len(), MAX_REMEMBERED);
}

#[test]
fn a_link_holds_no_more_than_its_bound() {
    let mut link = link(LinkConfig {
        duplicate: Chance::from_percent(100),
        delay: Duration::from_secs(1),
        ..LinkConfig::default()
    });
    for n in 0..MAX_PACKETS {
        link.push(at(u64::try_from(n).unwrap()), vec![0; 1]);
    }
    assert_eq!(link.in_flight.len(), MAX_PACKETS);
    let half = u64::try_from(MAX_PACKETS / 2).unwrap();
    assert_eq!(
        (link.counters().overflow, link.counters().duplicated),
        (half, half)
    );
}

#[test]
fn a_change_holds_for_packets_to_come() {
    let mut link = link(LinkConfig {
        loss: Chance::from_percent(100),
        ..LinkConfig::default()
    });
    link.push(at(0), vec![0; 20]);
    let bad = LinkConfig {
        rate: Some(0),
        ..LinkConfig::default()
    };
    assert_eq!(
        link.reconfigure(bad),
        Err(LinkConfigError::Rate { have: 0 })
    );
    link.push(at(1), vec![0; 20]);
    let healed = link.config().healed();
    link.reconfigure(healed).unwrap();
    link.push(at(2), vec![0; 20]);
    assert_eq!(drain(&mut link).len(), 1);
    assert_eq!(link.counters().lost, 2);
}

proptest! {
    /// The checksums detect every corruption; fields that they do not cover are never touched.
    #[test]
    fn damage_is_always_seen(seed: u64, v6: bool, body in 8usize..1400) {
        let good = packet(v6, seed, body, 2);
        let mut link = Link::new(
            LinkConfig { corrupt: Chance::from_percent(100), ..LinkConfig::default() },
            seed,
        ).unwrap();
        link.push(at(0), good.clone());
        let bad = link.pop(at(0)).unwrap();
        prop_assert_eq!(bad.len(), good.len());
        prop_assert_ne!(&bad, &good);
        let changed: Vec<usize> =
            (0..bad.len() * 8).filter(|bit| (bad[bit / 8] ^ good[bit / 8]) >> (7 - bit % 8) & 1 == 1).collect();
        prop_assert!(changed.last().unwrap() - changed[0] < 15);
        prop_assert!(verified(&good).is_some() && verified(&bad).is_none());
    }

    /// Any bytes and any faults: no panic, no invented packets, same packets from the same seed.
    #[test]
    fn same_seed_same_packets(
        seed: u64,
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..40),
        rate in prop::option::of(1u64..1_000_000),
    ) {
        let third = Chance::from_percent(30);
        let config = LinkConfig {
            delay: Duration::from_millis(3),
            jitter: Duration::from_millis(2),
            jitter_reorders: seed % 2 == 0,
            rate,
            trace: None,
            queue_bytes: 500,
            mark_bytes: Some(50),
            codel: (seed % 3 == 0).then_some(Codel {
                target: Duration::from_micros(50),
                interval: Duration::from_micros(100),
            }),
            aggregate: (seed % 5 == 0).then_some(Aggregation {
                interval: Duration::from_micros(500),
                packets: 3,
            }),
            loss: third,
            burst: Some(BurstLoss { enter: third, leave: third, loss: third }),
            duplicate: third,
            corrupt: third,
            reorder: third,
            reorder_delay: Duration::from_millis(4),
            replay: third,
            outages: vec![Outage { from: at(300), until: at(400) }],
        };
        let run = || {
            let mut link = Link::new(config.clone(), seed).unwrap();
            for (packet, time) in packets.iter().zip((0..).step_by(37)) {
                link.push(at(time), packet.clone());
            }
            let got = drain(&mut link);
            (got, link.counters())
        };
        let (got, counters) = run();
        prop_assert!(got.iter().map(|(time, _)| time).is_sorted());
        prop_assert_eq!(u64::try_from(got.len()).unwrap(), counters.popped);
        prop_assert_eq!((got, counters), run());
    }
}
