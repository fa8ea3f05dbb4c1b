//! The current backends: their configured state, their health, and the candidates among them.
//!
//! In: whole configurations, each applied between two packets; the results of heartbeats. Out: the
//! candidates. The state of a backend survives a new configuration as long as its id and address
//! stay. With no healthy active backend, packets go to the healthy draining ones, and with no
//! healthy backend at all to every one that is not administratively down (fail open): a wrong
//! verdict, or a broken path of the heartbeats alone, must not stop a working service.

use core::net::{IpAddr, SocketAddr};

use super::balancer::Candidate;
use super::capsule::{CapsuleHeader, CapsuleKind, Reply};
use super::config::{BackendEntry, BackendState, RedirectConfig};
use super::health::{Beat, Health};
use super::meter::Meter;
use super::service::Service;
use super::{BackendId, Generation};
use crate::time::{Instant, Now, micros};
use crate::wire::flight::{Ecn, UdpPath};
use crate::wire::ip::UdpTemplate;

/// The counters of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCounters {
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes of these packets, without encapsulation.
    pub bytes: u64,
    /// Changes between active, draining and down.
    pub changes: u64,
    /// Packets of the transport sent to it.
    pub given: u64,
}

/// One backend.
#[derive(Clone, Debug)]
pub struct Member {
    entry: BackendEntry,
    /// Template of the outer headers to its address.
    headers: Option<UdpTemplate>,
    health: Health,
    /// The rate of packets of the transport sent to it.
    rate: Meter,
    /// Those counted in the rate.
    rated: u64,
    service: Service,
    /// Sequence number of the last payload to it.
    sequence: u64,
    /// The last reported state, to detect changes.
    state: BackendState,
    /// The counters.
    pub counters: MemberCounters,
}

impl Member {
    fn new(now: Now, entry: BackendEntry, config: &RedirectConfig) -> Self {
        let state = entry.state;
        Self {
            headers: headers(&entry, config),
            entry,
            health: Health::new(now.instant),
            rate: Meter::default(),
            rated: 0,
            service: Service::default(),
            // A clock in microseconds exceeds the last number of a previous run, if that sent less
            // than a packet per microsecond.
            sequence: now.unix.as_millis().saturating_mul(1000).max(1),
            state,
            counters: MemberCounters::default(),
        }
    }

    /// The backend's entry in the configuration.
    #[must_use]
    pub const fn entry(&self) -> &BackendEntry {
        &self.entry
    }

    /// The outer headers to its address, if it has one.
    #[must_use]
    pub const fn headers(&self) -> Option<&UdpTemplate> {
        self.headers.as_ref()
    }

    /// Its health.
    #[must_use]
    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// The state that operator, backend and heartbeats amount to.
    #[must_use]
    pub const fn state(&self) -> BackendState {
        match self.entry.state {
            BackendState::Down => BackendState::Down,
            _ if !self.is_well() => BackendState::Down,
            BackendState::Draining => BackendState::Draining,
            BackendState::Active if self.health.reply().draining => BackendState::Draining,
            BackendState::Active => BackendState::Active,
        }
    }

    /// Whether it is healthy. A backend without an address is never queried, and presumed healthy.
    const fn is_well(&self) -> bool {
        self.headers.is_none() || self.health.is_well()
    }

    /// Returns the next sequence number.
    pub const fn next_sequence(&mut self) -> u64 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// Whether `sequence` was sent to it recently.
    #[must_use]
    pub const fn sent_lately(&self, sequence: u64) -> bool {
        sequence <= self.sequence && self.sequence - sequence < RECENT
    }

    const fn candidate(&self, member: usize) -> Candidate {
        Candidate {
            member,
            id: self.entry.id,
            weight: self.entry.weight,
            site: self.entry.site,
        }
    }
}

/// Most recent packets that an authentic ICMP error may quote: a second at a million packets per
/// second.
const RECENT: u64 = 1 << 20;

/// Queueing delay in microseconds that doubles a load; twice the delay triples it, and so on. A
/// load that rates put at a tenth then equals nine of these.
const DOUBLING_US: f64 = 1000.0;

/// All backends.
#[derive(Clone, Debug)]
pub struct Membership {
    generation: Generation,
    beat: Beat,
    members: Vec<Member>,
    /// No backend is healthy: packets go to unhealthy ones.
    failing_open: bool,
    /// Answers per packet, over all backends.
    service: f64,
}

impl Membership {
    /// Creates the backends of a first configuration.
    #[must_use]
    pub fn new(now: Now, config: &RedirectConfig) -> Self {
        let mut membership = Self {
            generation: config.generation,
            beat: config.beat,
            members: Vec::new(),
            failing_open: false,
            service: 0.0,
        };
        membership.replace(now, config);
        membership
    }

    /// Replaces the backends by those of a new configuration.
    pub fn replace(&mut self, now: Now, config: &RedirectConfig) {
        let mut before = core::mem::take(&mut self.members);
        self.members = config
            .backends
            .iter()
            .map(|entry| {
                let same = |member: &Member| {
                    member.entry.id == entry.id && member.entry.address == entry.address
                };
                match before.iter().position(same) {
                    Some(place) => Member {
                        entry: entry.clone(),
                        headers: headers(entry, config),
                        ..before.swap_remove(place)
                    },
                    None => Member::new(now, entry.clone(), config),
                }
            })
            .collect();
        self.generation = config.generation;
        self.beat = config.beat;
    }

    /// Overrides the state of the named backend until the next configuration; returns whether it
    /// exists.
    pub fn set_state(&mut self, name: &str, state: BackendState) -> bool {
        let found = self.members.iter_mut().find(|one| one.entry.name == name);
        found.map(|member| member.entry.state = state).is_some()
    }

    /// The generation of the running configuration.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The settings of the heartbeats.
    #[must_use]
    pub const fn beat(&self) -> &Beat {
        &self.beat
    }

    /// Returns every backend, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// The backend at an index.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut Member> {
        self.members.get_mut(place)
    }

    /// Brings the figures behind [`load`](Self::load) up to date, once per heartbeat.
    pub fn observe(&mut self, now: Instant) {
        self.service = Service::mean(self.members.iter().map(|member| &member.service));
        for member in &mut self.members {
            let given = member.counters.given;
            member.rate.count(now, given.saturating_sub(member.rated));
            member.rated = given;
            member.service.age(self.service);
        }
    }

    /// The load of a backend, in packets per second: the larger of the rate that it reports and of
    /// the rate of the packets given to it, for a backend that gets none of these reports nothing.
    /// It is scaled up by the queueing delay on its path, since a slow backend, or one behind a slow
    /// link, handles no more packets than the others; and scaled up as its answers lag behind the
    /// average.
    #[must_use]
    pub fn load(&mut self, now: Instant, id: BackendId) -> f64 {
        let mean = self.service;
        let found = self.members.iter_mut().find(|member| member.entry.id == id);
        found.map_or(0.0, |member| {
            let delay = u32::try_from(micros(member.health.delay(now))).unwrap_or(u32::MAX);
            let rate = member.health.reply().load.max(member.rate.rate(now));
            f64::from(rate) * (1.0 + f64::from(delay) / DOUBLING_US) / member.service.ratio(mean)
        })
    }

    /// Whether no backend is healthy, so that packets go to unhealthy ones.
    #[must_use]
    pub const fn fails_open(&self) -> bool {
        self.failing_open
    }

    /// Returns the current candidates.
    pub fn candidates(&mut self) -> Vec<Candidate> {
        let tiers: [fn(&Member) -> bool; 3] = [
            |member| member.state() == BackendState::Active,
            |member| member.state() == BackendState::Draining,
            |member| member.entry.state != BackendState::Down,
        ];
        let chosen = (0..).zip(tiers).find_map(|(tier, eligible)| {
            let eligible = self
                .members
                .iter()
                .enumerate()
                .filter(|(_, one)| eligible(one));
            let candidates: Vec<_> = eligible.map(|(place, one)| one.candidate(place)).collect();
            (!candidates.is_empty()).then_some((tier, candidates))
        });
        let (tier, candidates) = chosen.unwrap_or_default();
        self.failing_open = tier == 2;
        candidates
    }

    /// Whether any state changed since the last call; counts the changes.
    pub fn take_changes(&mut self) -> bool {
        let mut changed = false;
        for member in &mut self.members {
            let state = member.state();
            if state != member.state {
                let (name, was, is) = (&member.entry.name, member.state.label(), state.label());
                log::info!("backend {name}: {was} -> {is}");
                member.state = state;
                member.counters.changes += 1;
                changed = true;
            }
        }
        changed
    }

    /// The next deadline for [`due`](Self::due).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let asked = self
            .members
            .iter()
            .filter(|member| member.headers.is_some());
        asked
            .map(|member| member.health.poll_timeout(&self.beat))
            .min()
    }

    /// Evaluates the silence of the backend at an index; returns whether a query is due.
    pub fn due(&mut self, now: Instant, place: usize) -> bool {
        let beat = self.beat;
        self.members.get_mut(place).is_some_and(|member| {
            member.headers.is_some()
                && member.health.poll_timeout(&beat) <= now
                && member.health.handle_timeout(now, &beat)
        })
    }

    /// The number of backends.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none; never, since a configuration has backends.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Records a query to the backend at an index.
    pub fn asked(&mut self, now: Instant, place: usize, sequence: u64) {
        if let Some(member) = self.members.get_mut(place) {
            member.health.asked(now, sequence, member.counters.given);
        }
    }

    /// Handles an authenticated reply of a backend; returns whether it answers a query.
    pub fn answered(&mut self, now: Instant, id: BackendId, sequence: u64, reply: Reply) -> bool {
        let beat = self.beat;
        let found = self.members.iter_mut().find(|member| member.entry.id == id);
        found.is_some_and(|member| {
            let given = member.health.answered(now, &beat, sequence, reply);
            if let Some(given) = given {
                member.service.take(given, reply.work);
            }
            given.is_some()
        })
    }

    /// Handles an authentic ICMP error about a packet or query to a backend; returns whether that
    /// was sent lately.
    pub fn hint(&mut self, now: Instant, address: IpAddr, quoted: &CapsuleHeader) -> bool {
        let (beat, id) = (self.beat, quoted.backend);
        let found = self
            .members
            .iter_mut()
            .find(|member| member.entry.id == id && member.entry.address == Some(address));
        found.is_some_and(|member| match quoted.kind {
            CapsuleKind::Query => member.health.suspect(now, &beat, quoted.sequence),
            CapsuleKind::Packet if member.sent_lately(quoted.sequence) => {
                member.health.hasten(now, &beat);
                true
            }
            CapsuleKind::Packet | CapsuleKind::Reply => false,
        })
    }
}

/// Builds the outer headers from our address of its family to a backend's.
fn headers(entry: &BackendEntry, config: &RedirectConfig) -> Option<UdpTemplate> {
    let to = entry.address?;
    let own = config
        .addresses
        .iter()
        .find(|own| own.is_ipv4() == to.is_ipv4())?;
    let path = UdpPath {
        src: SocketAddr::new(*own, config.port),
        dst: SocketAddr::new(to, config.port),
    };
    // Not-ECT: marks on the outer header would be lost (RFC 6040 §4.1, compatibility mode).
    UdpTemplate::new(path, Ecn::NotEct).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_makes_a_load_larger() {
        let text = "generation = 1\nid = 1\naddress = [\"10.0.0.10\"]\nservices = [\"10.0.0.100\"]\n\
            key-file = \"k\"\n[[backend]]\nname = \"a\"\nid = 1\naddress = \"10.0.1.1\"\n";
        let config = RedirectConfig::parse("c", text).unwrap();
        let mut membership = Membership::new(Now::default(), &config);
        let at = |millis: u64| Instant::from_micros(millis * 1000);
        let reply = Reply {
            load: 1000,
            ..Reply::default()
        };
        let id = BackendId(1);
        for (sent, trip, want) in [(50, 2, 1000.0), (100, 11, 1000.0), (150, 11, 10_000.0)] {
            membership.asked(at(sent), 0, sent);
            assert!(membership.answered(at(sent + trip), id, sent, reply));
            let load = membership.load(at(sent + 50), id);
            assert!((load - want).abs() < 1e-6, "{sent}: {load}");
        }
        assert!(membership.load(at(200), BackendId(2)) < f64::EPSILON);
    }
}
