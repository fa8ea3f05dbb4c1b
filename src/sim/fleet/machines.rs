//! The machines of a fleet as nodes of a world: servers that redirectors send to, and redirectors.
//!
//! In and out: packets and time, as the machines that ship take them.

use std::net::IpAddr;

use super::{MTU, shared_keys};
use crate::host::config::ServerHostConfig;
use crate::host::redirector::Redirector;
use crate::host::server::{Redirected, ServerHost};
use crate::host::{Machine, Transmit};
use crate::redirect::backend::BackendConfig;
use crate::redirect::config::{DEFAULT_PORT, RedirectConfig};
use crate::redirect::engine::EngineSettings;
use crate::redirect::prefixes::Table;
use crate::redirect::{BackendId, RedirectorId};
use crate::sim::machines::ring;
use crate::sim::object::Objects;
use crate::sim::scenario::{Scenario, ServerPlan};
use crate::sim::world::{Boot, Node};
use crate::time::{Instant, Now};

/// Creates a server behind redirectors: the machine that ships, with computed objects.
pub(super) fn server(
    scenario: &Scenario,
    plan: ServerPlan,
    address: IpAddr,
    boot: Boot,
) -> Box<dyn Node> {
    let config = ServerHostConfig {
        addresses: vec![scenario.service.ip(), address],
        mtu: MTU,
        tcp_port: 80,
        udp_port: scenario.service.port(),
        server_id: plan.id,
        site_id: 1,
        seed: 1,
        sockets: false,
    };
    let keys = ring(scenario.secret, boot.stage);
    let host = ServerHost::new(Now::default(), config, keys, Objects);
    let Ok(mut host) = host else {
        unreachable!("two unicast addresses and a port are in order");
    };
    host.listen_to_redirectors(Redirected {
        addresses: vec![address],
        port: DEFAULT_PORT,
        backend: BackendConfig {
            id: BackendId(plan.id),
            redirectors: vec![RedirectorId(1), RedirectorId(2)],
            keys: shared_keys(),
        },
    });
    Box::new(ServerNode(host))
}

struct ServerNode(ServerHost<Objects>);

impl Machine for ServerNode {
    fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>) {
        self.0.handle_packet(now, packet, segment);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.0.handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        self.0.poll_transmit(now)
    }

    fn poll_timeout(&mut self, now: Now) -> Option<(Instant, &'static str)> {
        self.0.poll_timeout(now)
    }
}

impl Node for ServerNode {
    fn soft_state_bytes(&self) -> Option<usize> {
        Some(self.0.server().soft_state_bytes())
    }
}

/// A redirector that boots with the clock of its first turn.
pub(super) struct RedirectorNode {
    configs: Vec<RedirectConfig>,
    stage: u8,
    seed: u64,
    machine: Option<Redirector>,
}

impl RedirectorNode {
    pub(super) const fn new(configs: Vec<RedirectConfig>, seed: u64, boot: Boot) -> Self {
        Self {
            configs,
            stage: boot.stage,
            seed,
            machine: None,
        }
    }

    fn machine(&mut self, now: Now) -> Option<&mut Redirector> {
        if self.machine.is_none() {
            let config = self.configs.get(usize::from(self.stage))?;
            let settings = EngineSettings {
                mtu: MTU,
                keys: shared_keys(),
                table: Table::default(),
                seed: self.seed,
            };
            self.machine = Some(Redirector::new(now, config, settings));
        }
        self.machine.as_mut()
    }
}

impl Machine for RedirectorNode {
    fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>) {
        if let Some(machine) = self.machine(now) {
            machine.handle_packet(now, packet, segment);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        if let Some(machine) = self.machine(now) {
            machine.handle_timeout(now);
        }
    }

    fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        self.machine(now)?.poll_transmit(now)
    }

    fn poll_timeout(&mut self, now: Now) -> Option<(Instant, &'static str)> {
        self.machine(now)?.poll_timeout(now)
    }
}

impl Node for RedirectorNode {
    fn adopt(&mut self, now: Now, stage: u8) -> bool {
        self.stage = stage;
        let config = self.configs.get(usize::from(stage)).cloned();
        if let (Some(machine), Some(config)) = (self.machine(now), config) {
            // Rejected if the machine has just booted with it.
            let _ = machine.replace(now, &config, Table::default());
        }
        true
    }
}
