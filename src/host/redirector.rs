//! The machine of a redirector: a [`Redirect`] behind the contract of every machine.
//!
//! In: IP packets for the services and the redirector's own addresses, time, configurations. Out:
//! encapsulated packets and heartbeats through the same device, and unchanged packets for backends
//! with a device of their own, by [`Redirector::poll_forward`].

use crate::host::metrics::{Metric, MetricSample};
use crate::host::{Machine, Transmit};
use crate::redirect::BackendId;
use crate::redirect::capsule::MacKeys;
use crate::redirect::config::{BackendState, RedirectConfig};
use crate::redirect::engine::{EngineSettings, Redirect, SwapError};
use crate::redirect::membership::Member;
use crate::redirect::prefixes::Table;
use crate::time::{Instant, Now, micros};
use crate::transport::keys::KeyRing;

/// Label under which the keys between redirectors and backends are derived.
const LABEL: &str = "headwater 1 redirect";

/// Derives the keys of redirectors and backends from a key ring that only they share: a redirector
/// must not hold the keys that seal continuations.
#[must_use]
pub fn mac_keys(ring: &KeyRing) -> MacKeys {
    let derived = ring.derived(LABEL);
    match derived.split_first() {
        Some((active, others)) => MacKeys::new(*active, others),
        None => unreachable!("a ring has one active generation"),
    }
}

/// The machine of a redirector.
#[derive(Debug)]
pub struct Redirector {
    redirect: Redirect,
}

impl Redirector {
    /// Creates a redirector that forwards from the first packet on.
    #[must_use]
    pub fn new(now: Now, config: &RedirectConfig, settings: EngineSettings) -> Self {
        Self {
            redirect: Redirect::new(now, config, settings),
        }
    }

    /// Replaces the running configuration, between two packets.
    ///
    /// # Errors
    /// [`SwapError`]; the running configuration then stays.
    pub fn replace(
        &mut self,
        now: Now,
        config: &RedirectConfig,
        table: Table,
    ) -> Result<(), SwapError> {
        self.redirect.replace(now, config, table)
    }

    /// Replaces the table of sites, between two packets.
    pub fn set_table(&mut self, table: Table) {
        self.redirect.set_table(table);
    }

    /// Sets the state of the named backend until the next configuration; false if the name is
    /// unknown.
    pub fn set_state(&mut self, name: &str, state: BackendState) -> bool {
        self.redirect.set_state(name, state)
    }

    /// Whether any backend is active and healthy.
    #[must_use]
    pub fn is_able(&self) -> bool {
        self.members()
            .any(|member| member.state() == BackendState::Active)
    }

    /// Replaces the keys.
    pub fn set_keys(&mut self, keys: MacKeys) {
        self.redirect.set_keys(keys);
    }

    /// The backends and their present states.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.redirect.membership().iter()
    }

    /// Returns the next packet for a backend's own device; drain it like `poll_transmit`. Its buffer
    /// goes back through `recycle`.
    pub fn poll_forward(&mut self) -> Option<(BackendId, Vec<u8>)> {
        self.redirect.outbox().pop_forward()
    }

    /// Collects the metrics.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let counters = self.redirect.counters();
        let generation = self.redirect.membership().generation();
        let mut metrics = vec![
            Metric::counter(
                "headwater_redirect_packets_received_total",
                "IP packets received.",
                counters.packets_in,
            ),
            Metric::counter(
                "headwater_redirect_bytes_received_total",
                "Bytes of IP packets received.",
                counters.bytes_in,
            ),
            Metric::by_label(
                "headwater_redirect_drops_total",
                "IP packets dropped, by reason.",
                "reason",
                counters
                    .drops
                    .iter()
                    .map(|(reason, count)| (reason.to_owned(), count)),
            ),
            Metric::counter(
                "headwater_redirect_no_healthy_backend_total",
                "Packets sent without a healthy backend (fail open).",
                counters.failed_open,
            ),
            Metric::counter(
                "headwater_redirect_icmp_hints_total",
                "Authentic ICMP errors, which hasten heartbeats.",
                counters.hints,
            ),
            Metric::counter(
                "headwater_redirect_applied_configurations_total",
                "Configurations applied after the first.",
                counters.swaps,
            ),
            Metric::counter(
                "headwater_redirect_applied_tables_total",
                "Tables of sites applied without a new configuration.",
                counters.tables,
            ),
            Metric::counter(
                "headwater_redirect_segmented_packets_total",
                "Packets segmented again after the device coalesced them (GRO).",
                counters.segmented,
            ),
            Metric::gauge(
                "headwater_redirect_generation",
                "Generation of the running configuration.",
                u64::from(generation.0),
            ),
            Metric::gauge(
                "headwater_redirect_newest_generation",
                "Newest generation of any redirector, as reported by backends.",
                u64::from(self.redirect.newest().0),
            ),
        ];
        metrics.extend(self.backend_metrics());
        metrics
    }

    fn backend_metrics(&self) -> [Metric; 6] {
        let by_backend = |name, help, value: fn(&Member) -> u64| {
            let values = self
                .members()
                .map(|one| (one.entry().name.clone(), value(one)));
            Metric::by_label(name, help, "backend", values)
        };
        [
            by_backend(
                "headwater_redirect_backend_packets_total",
                "Packets sent to a backend.",
                |member| member.counters.packets,
            ),
            by_backend(
                "headwater_redirect_backend_bytes_total",
                "Bytes of packets sent to a backend, without encapsulation.",
                |member| member.counters.bytes,
            ),
            by_backend(
                "headwater_redirect_backend_state_changes_total",
                "Transitions of a backend between active, draining and down.",
                |member| member.counters.changes,
            ),
            by_backend(
                "headwater_redirect_backend_load",
                "Load reported by a backend, in packets per second.",
                |member| u64::from(member.health().reply().load),
            )
            .falling(),
            by_backend(
                "headwater_redirect_backend_round_trip_microseconds",
                "RTT of a backend's last heartbeat.",
                |member| member.health().round_trip().map_or(0, micros),
            )
            .falling(),
            self.state_metric(),
        ]
    }

    fn state_metric(&self) -> Metric {
        let states = [
            BackendState::Active,
            BackendState::Draining,
            BackendState::Down,
        ];
        let samples = self.members().flat_map(|member| {
            states.map(|state| MetricSample {
                labels: vec![
                    ("backend", member.entry().name.clone()),
                    ("state", state.label().to_owned()),
                ],
                value: u64::from(member.state() == state),
            })
        });
        Metric {
            samples: samples.collect(),
            ..Metric::gauge(
                "headwater_redirect_backend_state",
                "1 for the present state of a backend.",
                0,
            )
        }
    }
}

impl Machine for Redirector {
    fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>) {
        self.redirect.handle_packet(now, packet, segment);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.redirect.handle_timeout(now);
    }

    fn poll_transmit(&mut self, _now: Now) -> Option<Transmit> {
        self.redirect.outbox().pop().map(Transmit::Packet)
    }

    fn poll_timeout(&mut self, _now: Now) -> Option<(Instant, &'static str)> {
        let at = self.redirect.poll_timeout()?;
        Some((at, "heartbeat"))
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        self.redirect.outbox().recycle(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::keys::Role;

    const CONFIG: &str = "generation = 4\nid = 1\naddress = [\"10.0.0.10\"]\n\
        services = [\"10.0.0.100\"]\nkey-file = \"k\"\n\
        [[backend]]\nname = \"near\"\nid = 1\naddress = \"10.0.1.1\"\n\
        [[backend]]\nname = \"far\"\nid = 2\ndevice = \"hw2\"\nstate = \"draining\"\n";

    fn redirector() -> Redirector {
        let settings = EngineSettings {
            mtu: 1500,
            keys: mac_keys(&KeyRing::with_secret([1; 32])),
            table: Table::default(),
            seed: 1,
        };
        let config = RedirectConfig::parse("c", CONFIG).unwrap();
        Redirector::new(Now::default(), &config, settings)
    }

    #[test]
    fn metrics_tell_of_backends_and_never_of_clients() {
        let mut machine = redirector();
        machine.handle_packet(Now::default(), &[0x60], None);
        let metrics = machine.metrics();
        let samples = |name: &str| -> Vec<(String, u64)> {
            let metric = metrics.iter().find(|metric| metric.name == name).unwrap();
            let words = |sample: &MetricSample| {
                let words: Vec<_> = sample.labels.iter().map(|(_, v)| v.clone()).collect();
                (words.join(" "), sample.value)
            };
            metric.samples.iter().map(words).collect()
        };
        assert_eq!(
            samples("headwater_redirect_drops_total"),
            [("truncated".to_owned(), 1)]
        );
        assert_eq!(samples("headwater_redirect_generation")[0].1, 4);
        let one: Vec<_> = samples("headwater_redirect_backend_state")
            .into_iter()
            .filter_map(|(label, value)| (value == 1).then_some(label))
            .collect();
        assert_eq!(one, ["near active", "far draining"]);
    }

    #[test]
    fn heartbeats_leave_by_the_machine_and_buffers_come_back() {
        let mut machine = redirector();
        let (at, why) = machine.poll_timeout(Now::default()).unwrap();
        assert_eq!((at, why), (Instant::ZERO, "heartbeat"));
        machine.handle_timeout(Now::default());
        let Some(Transmit::Packet(packet)) = machine.poll_transmit(Now::default()) else {
            panic!("no heartbeat");
        };
        machine.recycle(packet);
        assert_eq!(machine.poll_transmit(Now::default()), None);
        assert_eq!(machine.poll_forward(), None, "a device is not asked");
    }

    #[test]
    fn keys_of_every_generation_are_derived() {
        let old = KeyRing::with_secret([1; 32]);
        let entries = [(2, Role::Active, [2; 32]), (1, Role::Retiring, [1; 32])];
        let new = KeyRing::new(&entries).unwrap();
        let mut sealed = Vec::new();
        let header = crate::redirect::capsule::CapsuleHeader {
            kind: crate::redirect::capsule::CapsuleKind::Query,
            redirector: crate::redirect::RedirectorId(1),
            backend: BackendId(1),
            generation: crate::redirect::Generation(1),
            sequence: 1,
        };
        mac_keys(&old).seal(&header, &[], &mut sealed);
        assert_eq!(mac_keys(&new).open(&sealed).unwrap().0, header);
    }
}
