//! `least-loaded` before backends that answer heartbeats and nothing else.

use super::*;

const BACKENDS: u16 = 8;

/// The service of a backend.
#[derive(Clone, Copy, PartialEq)]
enum Habit {
    Serves,
    /// They arrive, and it answers none.
    Idles,
    /// They are lost on the way.
    Loses,
}

/// Sends 4000 packets per second for `seconds` to backends of these habits, beside `garbage` per second
/// without an answer. Returns the shares of the packets of the last second.
fn shares(habits: &[Habit], garbage: u64, seconds: u64) -> Vec<f64> {
    let states = vec!["active"; habits.len()];
    let mut fleet = Fleet::new(&config(1, 1, "least-loaded", &states));
    let backend = |id: u16| {
        Backend::new(BackendConfig {
            id: BackendId(id),
            redirectors: vec![RedirectorId(1)],
            keys: keys(),
        })
    };
    fleet.backends = (1..=BACKENDS).map(|id| (backend(id), true)).collect();
    let mut counted = vec![0_u32; habits.len()];
    for millis in 0..seconds * 1000 {
        fleet.pass(1);
        let now = at(fleet.now).instant;
        for n in 0..4 + garbage / 1000 {
            let (packet, is_garbage) = (udp(&request(n)), n >= 4);
            fleet.redirect.handle_packet(at(fleet.now), &packet, None);
            let sent = fleet.redirect.outbox().pop().unwrap();
            let index = usize::from(sent[19]) - 1;
            if millis >= (seconds - 1) * 1000 {
                counted[index] += 1;
            }
            let habit = habits[index];
            if habit == Habit::Loses {
                continue;
            }
            let (backend, _) = &mut fleet.backends[index];
            backend.handle(now, &sent[28..], &mut Vec::new()).unwrap();
            backend.meter(now);
            backend.count_packet(habit == Habit::Serves && !is_garbage);
        }
    }
    let total: u32 = counted.iter().sum();
    counted
        .into_iter()
        .map(|count| f64::from(count) / f64::from(total))
        .collect()
}

#[test]
fn backends_that_serve_nothing_are_not_preferred() {
    for habit in [Habit::Idles, Habit::Loses] {
        for holes in [1, 2] {
            let mut habits = [Habit::Serves; BACKENDS as usize];
            habits[..holes].fill(habit);
            for garbage in [0, 20_000] {
                let shares = shares(&habits, garbage, 4);
                let lost: f64 = shares[..holes].iter().sum();
                assert!(lost < 0.012 * holes as f64, "{garbage}: {shares:?}");
                let served = &shares[holes..];
                let fair = 1.0 / served.len() as f64;
                let even = |share: &f64| (share / fair - 1.0).abs() < 0.1;
                assert!(served.iter().all(even), "{garbage}: {shares:?}");
            }
        }
    }
}

#[test]
fn a_backend_by_device_is_not_idle() {
    let text = text(1, 1, "least-loaded", &ACTIVE[..3])
        + "[[backend]]\nname = \"s4\"\nid = 4\ndevice = \"hwb4\"\n";
    let config = RedirectConfig::parse("r", &text).unwrap();
    let mut fleet = Fleet::new(&config);
    let mut forwarded = 0;
    for _ in 0..4000 {
        fleet.pass(1);
        let now = at(fleet.now);
        fleet.redirect.handle_packet(now, &udp(&request(1)), None);
        for (id, _) in fleet.drain() {
            let (backend, _) = &mut fleet.backends[usize::from(id) - 1];
            backend.meter(now.instant);
            backend.count_packet(true);
        }
        while fleet.redirect.outbox().pop_forward().is_some() {
            forwarded += 1;
        }
    }
    assert!((800..1200).contains(&forwarded), "{forwarded}");
}
