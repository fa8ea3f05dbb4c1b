//! Shares, placement and round robin of the policies; and why loads move weights.

use proptest::prelude::*;

use super::*;

const SOURCE: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1));

fn candidate(id: u16, weight: u32) -> Candidate {
    Candidate {
        member: usize::from(id),
        id: BackendId(id),
        weight,
        site: None,
    }
}

fn balancer(policy: Policy, candidates: &[(u16, u32)]) -> Balancer {
    let mut balancer = Balancer::new(policy, Table::default(), 7);
    balancer.set_candidates(candidates.iter().map(|&(id, weight)| candidate(id, weight)));
    balancer
}

fn flow(hash: u64) -> Flow {
    Flow {
        hash,
        sticky: false,
    }
}

/// Counts how many of `count` packets, each of another flow, each candidate gets.
fn shares(balancer: &mut Balancer, count: u64) -> Vec<u64> {
    let mut shares = vec![0; 300];
    for n in 0..count {
        let member = balancer.choose(flow(mix(n)), SOURCE).unwrap();
        shares[member] += 1;
    }
    shares
}

#[test]
fn the_logarithm_is_one() {
    for n in 0..100_000_u64 {
        let hash = mix(n);
        let uniform = ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
        let (have, want) = (minus_ln(hash), -uniform.ln());
        assert!(
            (have - want).abs() <= 1e-12 * want.max(1e-3),
            "{have} {want}"
        );
    }
    assert!(minus_ln(0).is_finite() && minus_ln(u64::MAX) > 0.0);
}

#[test]
fn shares_are_as_weights_to_two_percent() {
    let weights = [(1, 100), (2, 50), (3, 200), (4, 100), (9, 75), (200, 25)];
    let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
    for policy in [Policy::Rendezvous, Policy::Spread, Policy::SpreadRandom] {
        let count = 1_000_000;
        let shares = shares(&mut balancer(policy, &weights), count);
        for (id, weight) in weights {
            let want = count as f64 * f64::from(weight) / f64::from(total);
            let have = shares[usize::from(id)] as f64;
            assert!(
                (have / want - 1.0).abs() < 0.02,
                "{policy:?} {id}: {have} {want}"
            );
        }
    }
}

#[test]
fn turns_are_smooth() {
    let mut balancer = balancer(Policy::Spread, &[(1, 5), (2, 1), (3, 1)]);
    let turns: Vec<_> = (0..7)
        .map(|n| balancer.choose(flow(n), SOURCE).unwrap())
        .collect();
    assert_eq!(turns, [1, 1, 2, 1, 3, 1, 1]);
    // Removing one in the middle keeps the others' turns.
    balancer.set_candidates([candidate(2, 1), candidate(3, 1)].into_iter());
    assert_eq!(shares(&mut balancer, 10)[2..4], [5, 5]);
}

#[test]
fn only_one_policy_follows_loads() {
    for (policy, even) in [(Policy::Spread, true), (Policy::LeastLoaded, false)] {
        let mut balancer = balancer(policy, &[(1, 100), (2, 100)]);
        balancer.observe_loads(|id| f64::from(id.0) * 1000.0);
        let shares = shares(&mut balancer, 1000);
        assert_eq!(shares[1] == shares[2], even, "{policy:?}");
    }
}

#[test]
fn sticky_flows_stay_whatever_the_policy() {
    for policy in [Policy::Spread, Policy::SpreadRandom, Policy::LeastLoaded] {
        let (mut one, mut other) = (
            balancer(policy, &[(1, 1), (2, 1), (3, 1)]),
            balancer(Policy::Rendezvous, &[(3, 1), (2, 1), (1, 1)]),
        );
        for hash in 0..100 {
            let tcp = Flow { hash, sticky: true };
            let first = one.choose(tcp, SOURCE);
            assert_eq!(one.choose(tcp, SOURCE), first);
            assert_eq!(other.choose(tcp, SOURCE), first);
        }
    }
}

#[test]
fn the_nearest_site_is_used_while_it_can_be() {
    let sites = ["east".to_owned(), "west".to_owned()];
    let table = Table::parse("t", "192.0.2.0/24 west\n", &sites).unwrap();
    let mut balancer = Balancer::new(Policy::Nearest, table, 0);
    let at = |id, site| Candidate {
        site: Some(Site(site)),
        ..candidate(id, 1)
    };
    balancer.set_candidates([at(1, 0), at(2, 1), at(3, 1)].into_iter());
    let near = shares(&mut balancer, 1000);
    assert_eq!(near[1], 0);
    assert!(near[2] > 400 && near[3] > 400);
    let far = "203.0.113.1".parse().unwrap();
    let anywhere: Vec<_> = (0..100)
        .map(|n| balancer.choose(flow(mix(n)), far))
        .collect();
    assert!(
        (1..=3).all(|id| anywhere.contains(&Some(id))),
        "not in the table"
    );
    balancer.set_candidates([at(1, 0)].into_iter());
    assert_eq!(
        balancer.choose(flow(1), SOURCE),
        Some(1),
        "no candidate there"
    );
    balancer.set_candidates(core::iter::empty());
    assert_eq!(balancer.choose(flow(1), SOURCE), None);
}

/// Runs rounds of a heartbeat's length: 2000 packets are placed by the loads of three rounds
/// before. Two of eight backends have other work. Returns the highest load over the mean one,
/// averaged over the rounds after the first hundred.
fn imbalance(mut place: impl FnMut(&[u32], &mut [u32])) -> f64 {
    const ELSEWHERE: [u32; 8] = [100, 150, 0, 0, 0, 0, 0, 0];
    let mut past = [[0; 8]; 3];
    let mut sum = 0.0;
    for round in 0..400 {
        let mut loads = ELSEWHERE;
        place(&past[0], &mut loads);
        past = [past[1], past[2], loads];
        if round >= 100 {
            let highest = loads.into_iter().max().unwrap();
            sum += f64::from(highest) / (f64::from(loads.iter().sum::<u32>()) / 8.0);
        }
    }
    sum / 300.0
}

#[test]
fn weights_that_follow_the_load_beat_two_choices() {
    let mut random = 1;
    let mut draw = move || {
        random = mix(random + 1);
        (random % 8) as usize
    };
    let two_choices = imbalance(|reported, loads| {
        for _ in 0..2000 {
            let (a, b) = (draw(), draw());
            loads[if reported[a] <= reported[b] { a } else { b }] += 1;
        }
    });
    let all: Vec<_> = (0..8).map(|id| (id, 100)).collect();
    let mut balancer = balancer(Policy::LeastLoaded, &all);
    let weights = imbalance(|reported, loads| {
        balancer.observe_loads(|id| f64::from(reported[usize::from(id.0)]));
        for n in 0..2000 {
            loads[balancer.choose(flow(n), SOURCE).unwrap()] += 1;
        }
    });
    assert!(two_choices > 1.5, "two choices: {two_choices}");
    assert!(
        weights < 1.05,
        "weights: {weights}, two choices: {two_choices}"
    );
}

#[test]
fn loads_move_weights_only_so_far() {
    let mut balancer = balancer(Policy::LeastLoaded, &[(1, 100), (2, 100)]);
    for _ in 0..100 {
        balancer.observe_loads(|id| f64::from(u8::from(id.0 == 2)) * 1e6);
    }
    let moved = shares(&mut balancer, 17_000);
    let ratio = moved[1] as f64 / moved[2] as f64;
    assert!((ratio / MAX_FACTOR - 1.0).abs() < 0.01, "{ratio}");
    // Nothing is known of an idle fleet.
    balancer.observe_loads(|_| 0.0);
    assert_eq!(shares(&mut balancer, 17_000), moved);
}

proptest! {
    #[test]
    fn rendezvous_moves_only_what_it_must(
        weights in prop::collection::btree_map(any::<u16>(), 1..1000_u32, 2..12),
        gone: prop::sample::Index, hashes in prop::collection::vec(any::<u64>(), 200),
    ) {
        let all: Vec<_> = weights.into_iter().collect();
        let mut less = all.clone();
        let (gone, _) = less.remove(gone.index(all.len()));
        let mut before = balancer(Policy::Rendezvous, &all);
        less.reverse();
        let mut after = balancer(Policy::Rendezvous, &less);
        for hash in hashes {
            let (was, is) = (before.choose(flow(hash), SOURCE), after.choose(flow(hash), SOURCE));
            prop_assert!(was == is || was == Some(usize::from(gone)));
        }
    }

    #[test]
    fn a_heavier_backend_only_gains(
        weights in prop::collection::vec(1..1000_u32, 2..12), more in 1..1000_u32,
        hashes in prop::collection::vec(any::<u64>(), 200),
    ) {
        let all: Vec<_> = (0..).zip(weights).collect();
        let mut heavier = all.clone();
        heavier[0].1 += more;
        let mut before = balancer(Policy::Rendezvous, &all);
        let mut after = balancer(Policy::Rendezvous, &heavier);
        for hash in hashes {
            let (was, is) = (before.choose(flow(hash), SOURCE), after.choose(flow(hash), SOURCE));
            prop_assert!(was == is || is == Some(0));
        }
    }
}
