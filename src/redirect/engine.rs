//! The redirector's engine: packets in, packets out.
//!
//! In: IP packets for the services and for the redirector itself, time, configurations. Out: in an
//! [`Outbox`], packets for backends (encapsulated, or unchanged to a backend's own device) and
//! heartbeats. Work per packet: one parse, one keyed hash, one look at each candidate, one MAC.

use core::net::IpAddr;

use etherparse::IpNumber;

use super::balancer::Balancer;
use super::capsule::{
    BEAT_BYTES, CapsuleError, CapsuleHeader, CapsuleKind, HEADER_BYTES, MacKeys, Reply,
};
use super::config::{BackendState, MAX_GENERATION, RedirectConfig};
use super::counters::{RedirectCounters, RedirectDrop};
use super::flow::{Flow, Flows, unreachable};
use super::membership::Membership;
use super::outbox::Outbox;
use super::prefixes::Table;
use super::{Generation, RedirectorId};
use crate::time::{Instant, Now};
use crate::wire::ip::tcp::JoinedTcp;
use crate::wire::ip::{Checksum, IpView, MAX_PACKET, UdpTemplate, UdpView};

/// Settings from outside the configuration file.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Largest IP packet towards backends, in bytes.
    pub mtu: u16,
    /// Keys from the key file.
    pub keys: MacKeys,
    /// The table of sites; may be empty.
    pub table: Table,
    /// Seed of random choices.
    pub seed: u64,
}

/// The reason for rejecting a new configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwapError {
    /// It is not newer.
    #[error("generation {} is not above the running generation {}: {}", new.0, old.0, remedy(*.old))]
    NotNewer {
        /// The running one.
        old: Generation,
        /// The rejected one.
        new: Generation,
    },
    /// It belongs to another redirector.
    #[error("id {new} differs from the running id {old}: restart the redirector to change it")]
    OtherId {
        /// The running one.
        old: RedirectorId,
        /// The rejected one.
        new: RedirectorId,
    },
}

/// Returns the remedy for a number that is not above `old`.
const fn remedy(old: Generation) -> &'static str {
    if old.0 < MAX_GENERATION {
        "increment it"
    } else {
        "it is the largest. Restart the servers, then every redirector with the new file"
    }
}

/// A redirector.
#[derive(Debug)]
pub struct Redirect {
    id: RedirectorId,
    addresses: Vec<IpAddr>,
    services: Vec<IpAddr>,
    port: u16,
    mtu: usize,
    keys: MacKeys,
    flows: Flows,
    membership: Membership,
    balancer: Balancer,
    /// The newest configuration that any backend has reported.
    newest: Generation,
    counters: RedirectCounters,
    outbox: Outbox,
    /// A capsule without its outer headers.
    capsule: Vec<u8>,
    /// A packet segmented from a coalesced one.
    split: Vec<u8>,
    /// The last time at which loads moved weights.
    observed: Instant,
    /// IPv4 identification of emitted packets; without meaning.
    ident: u16,
}

impl Redirect {
    /// Creates a redirector, which redirects from the first packet on.
    #[must_use]
    pub fn new(now: Now, config: &RedirectConfig, settings: EngineSettings) -> Self {
        let mut redirect = Self {
            id: config.id,
            addresses: config.addresses.clone(),
            services: config.services.clone(),
            port: config.port,
            mtu: usize::from(settings.mtu),
            keys: settings.keys,
            flows: Flows::new(config.seed),
            membership: Membership::new(now, config),
            balancer: Balancer::new(config.policy, settings.table, settings.seed),
            newest: config.generation,
            counters: RedirectCounters::default(),
            outbox: Outbox::default(),
            capsule: Vec::new(),
            split: Vec::new(),
            observed: now.instant,
            ident: 0,
        };
        redirect.refresh();
        redirect
    }

    /// Replaces the running configuration, atomically between two packets.
    ///
    /// # Errors
    /// [`SwapError`]; the running configuration then stays.
    pub fn replace(
        &mut self,
        now: Now,
        config: &RedirectConfig,
        table: Table,
    ) -> Result<(), SwapError> {
        let (old, new) = (self.membership.generation(), config.generation);
        if new <= old {
            return Err(SwapError::NotNewer { old, new });
        }
        if config.id != self.id {
            let (old, new) = (self.id, config.id);
            return Err(SwapError::OtherId { old, new });
        }
        self.addresses.clone_from(&config.addresses);
        self.services.clone_from(&config.services);
        self.port = config.port;
        self.flows = Flows::new(config.seed);
        self.membership.replace(now, config);
        self.balancer.set_policy(config.policy, table);
        self.newest = self.newest.max(new);
        self.counters.swaps += 1;
        self.refresh();
        Ok(())
    }

    /// Replaces the table of sites, between two packets; like keys, it needs no new generation.
    pub fn set_table(&mut self, table: Table) {
        self.balancer.set_table(table);
        self.counters.tables += 1;
    }

    /// Overrides the state of the named backend until the next configuration; returns whether it
    /// exists.
    pub fn set_state(&mut self, name: &str, state: BackendState) -> bool {
        let known = self.membership.set_state(name, state);
        self.refresh();
        known
    }

    /// Replaces the keys.
    pub fn set_keys(&mut self, keys: MacKeys) {
        self.keys = keys;
    }

    /// The backends.
    #[must_use]
    pub const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The counters, except those per backend.
    #[must_use]
    pub const fn counters(&self) -> &RedirectCounters {
        &self.counters
    }

    /// The newest generation of any redirector that backends have reported; above this redirector's
    /// own if it missed an update.
    #[must_use]
    pub const fn newest(&self) -> Generation {
        self.newest
    }

    /// The packets to send, to be drained after every call.
    pub const fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Redirects one packet. `segment`: the payload length of each UDP datagram but the last, if
    /// the device coalesced several of one path.
    pub fn handle_packet(&mut self, now: Now, packet: &[u8], segment: Option<usize>) {
        self.counters.packets_in += 1;
        self.counters.bytes_in += packet.len() as u64;
        if let Err(drop) = self.sort(now, packet, segment) {
            self.drop(drop);
        }
    }

    fn drop(&mut self, drop: RedirectDrop) {
        log::trace!("packet dropped: {drop}");
        self.counters.drops.count(drop.label());
    }

    fn sort(
        &mut self,
        now: Now,
        packet: &[u8],
        segment: Option<usize>,
    ) -> Result<(), RedirectDrop> {
        let ip = IpView::parse(packet)?;
        if self.addresses.contains(&ip.dst) {
            return self.receive(now, &ip, segment);
        }
        if !self.services.contains(&ip.dst) {
            return Err(RedirectDrop::ForeignDestination);
        }
        match segment {
            None => {
                let flow = self.flows.of(&ip)?;
                self.forward(flow, ip.src, packet)
            }
            Some(size) if ip.protocol == IpNumber::TCP.0 => {
                self.forward_joined_tcp(&ip, packet, size)
            }
            Some(_) => self.forward_joined(ip.udp(Checksum::Trusted)?, segment),
        }
    }

    /// Segments a packet of coalesced TCP: one longer than the MTU fits neither a capsule nor
    /// another device.
    fn forward_joined_tcp(
        &mut self,
        ip: &IpView<'_>,
        packet: &[u8],
        size: usize,
    ) -> Result<(), RedirectDrop> {
        let flow = self.flows.of(ip)?;
        let joined = JoinedTcp::parse(packet, size).map_err(|_| RedirectDrop::BadTcp)?;
        let mut split = core::mem::take(&mut self.split);
        split.resize(MAX_PACKET, 0);
        for index in 0..joined.count() {
            let emitted = joined
                .emit(index, &mut split)
                .map_err(|_| RedirectDrop::TooLong);
            let sent = emitted.and_then(|length| {
                let segment = split.get(..length).unwrap_or_default();
                self.forward(flow, ip.src, segment)
            });
            self.segmented(sent);
        }
        self.split = split;
        Ok(())
    }

    /// Counts the outcome of one segmented packet.
    fn segmented(&mut self, sent: Result<(), RedirectDrop>) {
        self.counters.segmented += 1;
        if let Err(drop) = sent {
            self.drop(drop);
        }
    }

    /// Segments a packet of coalesced datagrams.
    fn forward_joined(
        &mut self,
        joined: UdpView<'_>,
        segment: Option<usize>,
    ) -> Result<(), RedirectDrop> {
        let Ok(template) = UdpTemplate::new(joined.path, joined.ecn) else {
            return Err(RedirectDrop::NotTransport);
        };
        let mut split = core::mem::take(&mut self.split);
        split.resize(MAX_PACKET, 0);
        for datagram in joined.datagrams(segment) {
            let sent = self.flows.of_datagram(datagram).and_then(|flow| {
                let emitted = template.emit(self.next_ident(), datagram, &mut split);
                let length = emitted.map_err(|_| RedirectDrop::TooLong)?;
                let packet = split.get(..length).unwrap_or_default();
                self.forward(flow, joined.path.src.ip(), packet)
            });
            self.segmented(sent);
        }
        self.split = split;
        Ok(())
    }

    const fn next_ident(&mut self) -> u16 {
        self.ident = self.ident.wrapping_add(1);
        self.ident
    }

    fn forward(&mut self, flow: Flow, source: IpAddr, packet: &[u8]) -> Result<(), RedirectDrop> {
        let place = self
            .balancer
            .choose(flow, source)
            .ok_or(RedirectDrop::NoBackend)?;
        let failing_open = self.membership.fails_open();
        let member = self
            .membership
            .get_mut(place)
            .ok_or(RedirectDrop::NoBackend)?;
        match (&member.entry().device, member.headers()) {
            (Some(_), _) if packet.len() > self.mtu => return Err(RedirectDrop::TooLong),
            (Some(_), _) => {
                let room = self.outbox.forward(member.entry().id, packet.len());
                room.ok_or(RedirectDrop::QueueFull)?.copy_from_slice(packet);
            }
            (None, Some(headers)) => {
                if headers.headers_len() + HEADER_BYTES + packet.len() > self.mtu {
                    return Err(RedirectDrop::TooLong);
                }
                let (headers, _) = self.seal(place, CapsuleKind::Packet, packet)?;
                self.send(&headers)?;
            }
            (None, None) => return Err(RedirectDrop::NoBackend),
        }
        if let Some(member) = self.membership.get_mut(place) {
            member.counters.packets += 1;
            member.counters.bytes += packet.len() as u64;
            member.counters.given += u64::from(!flow.sticky);
        }
        self.counters.failed_open += u64::from(failing_open);
        Ok(())
    }

    /// Handles packets for the redirector itself: heartbeats and ICMP errors.
    fn receive(
        &mut self,
        now: Now,
        ip: &IpView<'_>,
        segment: Option<usize>,
    ) -> Result<(), RedirectDrop> {
        if ip.protocol != IpNumber::UDP.0 {
            let quoted = unreachable(ip).ok_or(RedirectDrop::NotForUs)?;
            return self.hint(now.instant, quoted);
        }
        let view = ip.udp(Checksum::of(segment))?;
        if view.path.dst.port() != self.port {
            return Err(RedirectDrop::NotForUs);
        }
        for datagram in view.datagrams(segment) {
            if let Err(drop) = self.answered(now.instant, datagram) {
                self.drop(drop);
            }
        }
        self.refresh_if_changed();
        Ok(())
    }

    fn answered(&mut self, now: Instant, datagram: &[u8]) -> Result<(), RedirectDrop> {
        let (header, body) = self.keys.open(datagram)?;
        if header.kind != CapsuleKind::Reply {
            return Err(CapsuleError::UnknownKind.into());
        }
        if header.redirector != self.id {
            return Err(CapsuleError::Misdirected.into());
        }
        let reply = Reply::parse(body)?;
        if !self
            .membership
            .answered(now, header.backend, header.sequence, reply)
        {
            return Err(RedirectDrop::Unsolicited);
        }
        self.newest = self.newest.max(header.generation);
        Ok(())
    }

    /// Handles an ICMP error, which counts if it quotes a whole capsule sent lately: only hosts on the
    /// path to a backend know its MAC. A router that quotes less is not believed.
    fn hint(&mut self, now: Instant, (to, quoted): (IpAddr, &[u8])) -> Result<(), RedirectDrop> {
        let (header, _) = self.keys.open(quoted)?;
        if header.redirector != self.id || !self.membership.hint(now, to, &header) {
            return Err(RedirectDrop::Unsolicited);
        }
        self.counters.hints += 1;
        self.refresh_if_changed();
        Ok(())
    }

    /// Handles the deadline of [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Now) {
        for place in 0..self.membership.len() {
            if self.membership.due(now.instant, place)
                && let Err(drop) = self.query(now.instant, place)
            {
                self.drop(drop);
            }
        }
        let passed = now.instant.saturating_since(self.observed);
        if passed >= self.membership.beat().interval {
            self.observed = now.instant;
            let membership = &mut self.membership;
            membership.observe(now.instant);
            self.balancer
                .observe_loads(|id| membership.load(now.instant, id));
        }
        self.refresh_if_changed();
    }

    fn query(&mut self, now: Instant, place: usize) -> Result<(), RedirectDrop> {
        let (headers, sequence) = self.seal(place, CapsuleKind::Query, &[0; BEAT_BYTES])?;
        self.membership.asked(now, place, sequence);
        self.send(&headers)
    }

    /// Seals the next capsule for a backend with an address; returns its headers and its sequence number.
    fn seal(
        &mut self,
        place: usize,
        kind: CapsuleKind,
        body: &[u8],
    ) -> Result<(UdpTemplate, u64), RedirectDrop> {
        let generation = self.membership.generation();
        let member = self.membership.get_mut(place);
        let member = member.ok_or(RedirectDrop::NoBackend)?;
        let headers = *member.headers().ok_or(RedirectDrop::NoBackend)?;
        let header = CapsuleHeader {
            kind,
            redirector: self.id,
            backend: member.entry().id,
            generation,
            sequence: member.next_sequence(),
        };
        self.capsule.clear();
        self.keys.seal(&header, body, &mut self.capsule);
        Ok((headers, header.sequence))
    }

    /// Sends the sealed capsule.
    fn send(&mut self, to: &UdpTemplate) -> Result<(), RedirectDrop> {
        let ident = self.next_ident();
        let length = to.headers_len() + self.capsule.len();
        let room = self.outbox.packet(length).ok_or(RedirectDrop::QueueFull)?;
        // The buffer has the packet's size, and a capsule within the MTU fits its length fields.
        to.emit(ident, &self.capsule, room)
            .map_err(|_| RedirectDrop::TooLong)?;
        Ok(())
    }

    /// The next deadline for [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.membership.poll_timeout()
    }

    fn refresh_if_changed(&mut self) {
        if self.membership.take_changes() {
            self.refresh();
        }
    }

    fn refresh(&mut self) {
        self.membership.take_changes();
        let candidates = self.membership.candidates();
        self.balancer.set_candidates(candidates.into_iter());
    }
}

#[cfg(test)]
mod tests;
