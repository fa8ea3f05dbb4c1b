//! Draws fleets: the redirectors, their configurations by stage, and the script of events.
//!
//! In: a seed. Out: a [`Fleet`]. Equal seeds draw equal fleets.

use std::net::IpAddr;
use std::time::Duration;

use super::{BEAT, Fleet, MAX_CHANGES, own_address};
use crate::redirect::balancer::Policy;
use crate::redirect::config::{BackendEntry, BackendState, DEFAULT_PORT, RedirectConfig};
use crate::redirect::{BackendId, Generation, RedirectorId};
use crate::sim::Options;
use crate::sim::dice::Dice;
use crate::sim::scenario::{Scenario, ServerPlan, draw_script};
use crate::sim::world::{Action, Clock, NodeId};
use crate::time::Instant;

impl Fleet {
    /// Draws a fleet.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let options = Options {
            adversaries: false,
            max_clients: 4,
            max_bytes: 2_000_000,
            ..Options::default()
        };
        let mut world = Scenario::draw(seed, &options);
        let dice = &mut Dice::new(seed ^ 0x666c_6565_7400_0000);
        if world.servers.len() < 2 {
            world.servers.push(ServerPlan {
                id: 2,
                clock: Clock::default(),
            });
        }
        let v6 = world.service.is_ipv6();
        let count = world.servers.len();
        let servers: Vec<IpAddr> = (1..).take(count).map(|n| own_address(v6, 1, n)).collect();
        let redirectors = draw_configs(dice, &world, &servers);
        world.script = draw_script(dice, count, world.heals_at);
        draw_troubles(dice, &mut world, &redirectors);
        Self {
            world,
            servers,
            redirectors,
        }
    }
}

/// Draws the configurations of one or two redirectors by stage: identical, except that one may miss
/// the last changes.
fn draw_configs(dice: &mut Dice, world: &Scenario, servers: &[IpAddr]) -> Vec<Vec<RedirectConfig>> {
    let policies = [
        Policy::Rendezvous,
        Policy::Spread,
        Policy::SpreadRandom,
        Policy::LeastLoaded,
    ];
    let policy = policies.get(dice.index(policies.len())).copied();
    let changes = dice.between(0, u64::from(MAX_CHANGES));
    let stages: Vec<Vec<BackendEntry>> = (0..=changes)
        .map(|_| draw_backends(dice, world, servers))
        .collect();
    let seed = dice.seed();
    let count = dice.between(1, 2);
    let stale = dice.chance(30);
    let redirector = |id: u16, dice: &mut Dice| {
        let known = match id > 1 && stale {
            true => 1 + dice.index(stages.len()),
            false => stages.len(),
        };
        let config = |(generation, backends): (u32, &Vec<BackendEntry>)| RedirectConfig {
            generation: Generation(generation),
            id: RedirectorId(id),
            addresses: vec![own_address(world.service.is_ipv6(), 2, id)],
            services: vec![world.service.ip()],
            key_file: "keys".into(),
            port: DEFAULT_PORT,
            policy: policy.unwrap_or_default(),
            seed,
            beat: BEAT,
            sites: Vec::new(),
            nearest: None,
            backends: backends.clone(),
        };
        (1..).zip(stages.iter().take(known)).map(config).collect()
    };
    (1..=2)
        .take(usize::try_from(count).unwrap_or(1))
        .map(|id| redirector(id, dice))
        .collect()
}

/// Draws some of the servers, at least one of them active.
fn draw_backends(dice: &mut Dice, world: &Scenario, servers: &[IpAddr]) -> Vec<BackendEntry> {
    let sure = dice.index(servers.len());
    let mut backends = Vec::new();
    for (index, (plan, address)) in world.servers.iter().zip(servers).enumerate() {
        let state = match dice.between(0, 9) {
            _ if index == sure => BackendState::Active,
            0 => BackendState::Draining,
            1 => BackendState::Down,
            2 => continue,
            _ => BackendState::Active,
        };
        backends.push(BackendEntry {
            name: format!("s{}", plan.id),
            id: BackendId(plan.id),
            address: Some(*address),
            device: None,
            weight: u32::try_from(dice.between(1, 200)).unwrap_or(1),
            site: None,
            state,
        });
    }
    backends
}

/// Adds events to the script for redirectors and their paths to the servers.
fn draw_troubles(dice: &mut Dice, world: &mut Scenario, redirectors: &[Vec<RedirectConfig>]) {
    let (heals_at, servers) = (world.heals_at, world.servers.len());
    let instant = |dice: &mut Dice| {
        let latest = dice.magnitude(1, heals_at.as_micros());
        Instant::from_micros(dice.between(0, latest))
    };
    let mut troubles = Vec::new();
    let changes = redirectors.iter().map(Vec::len).max().unwrap_or(0);
    let mut times: Vec<Instant> = (1..changes).map(|_| instant(dice)).collect();
    times.sort_unstable();
    for (index, configs) in redirectors.iter().enumerate() {
        let node = NodeId(servers + index);
        for (stage, at) in (1..).zip(&times).take(configs.len().saturating_sub(1)) {
            // No two configuration files change at the same instant.
            let late = dice.duration(Duration::from_micros(1), Duration::from_millis(500));
            troubles.push(((*at + late).min(heals_at), Action::Stage(node, stage)));
        }
        if dice.chance(30) {
            let (at, down) = (
                instant(dice),
                dice.duration(Duration::from_millis(1), Duration::from_secs(2)),
            );
            troubles.push((at, Action::Kill(node)));
            troubles.push(((at + down).min(heals_at), Action::Start(node)));
        }
        troubles.push((heals_at, Action::Start(node)));
        for _ in 0..dice.between(0, 2) {
            let other = NodeId(dice.index(servers));
            let (at, cut) = (
                instant(dice),
                dice.duration(Duration::from_millis(50), Duration::from_secs(5)),
            );
            troubles.push((at, Action::Sever(node, other)));
            troubles.push(((at + cut).min(heals_at), Action::Join(node, other)));
        }
    }
    world.script.extend(troubles);
    world.script.sort_by_key(|(at, _)| *at);
}
