//! Names: a stub resolver without I/O.
//!
//! In: hosts to look up, datagrams and bytes of streams from DNS servers, failures of their sockets, time. Out: queries
//! to transmit, and addresses as they become known. The driver has the sockets: one for each exchange, from a port that the
//! kernel or the driver draws. [`Hosts`] has the names of `/etc/hosts`, [`sort_addresses`] the order of the addresses.

mod cache;
mod config;
mod hosts;
mod lookup;
mod message;
mod query;
mod sort;

use std::collections::VecDeque;

use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

use crate::time::Instant;

pub use cache::MAX_KEPT_ANSWERS;
pub use config::{
    DNS_PORT, MAX_NDOTS, MAX_ROUNDS, MAX_SEARCH_DOMAINS, MAX_SERVER_TIMEOUT, MAX_SERVERS,
    ResolverConfig, ServersError, parse_servers,
};
pub use hosts::{Hosts, MAX_HOSTS_BYTES};
pub use lookup::{RESOLUTION_DELAY, ResolveError, Resolved};
pub use message::{
    Answer, DnsName, HttpsRecord, MAX_ALIASES, MAX_NEGATIVE_TTL, MAX_RECORDS, MAX_TTL,
    MAX_UDP_RESPONSE, Question, RecordType, Records, Reply, Sent,
};
pub use query::{DnsTransmit, ExchangeId, MAX_EXCHANGES};
pub use sort::sort_addresses;

use cache::Cache;
use lookup::{Lookup, Means};
use query::Context;

/// Most look-ups of a resolver at once; the oldest makes room.
pub const MAX_RUNNING_LOOKUPS: usize = 8;

/// A stub resolver; see the head of this file.
#[derive(Debug)]
pub struct Resolver {
    config: ResolverConfig,
    largest: u16,
    random: ChaCha8Rng,
    cache: Cache,
    lookups: VecDeque<Lookup>,
    outbox: VecDeque<DnsTransmit>,
    events: VecDeque<(String, Resolved)>,
    next_exchange: u64,
    /// The server that the next look-up begins with.
    rotation: usize,
}

impl Resolver {
    /// Creates a resolver. `seed` determines identifiers and spellings: on a real network it must be secret.
    #[must_use]
    pub fn new(config: ResolverConfig, seed: u64) -> Self {
        Self {
            config,
            largest: MAX_UDP_RESPONSE,
            random: ChaCha8Rng::seed_from_u64(seed),
            cache: Cache::default(),
            lookups: VecDeque::new(),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            next_exchange: 0,
            rotation: 0,
        }
    }

    /// Sets the largest response over UDP that is welcome, in bytes. Default, and the most: [`MAX_UDP_RESPONSE`].
    pub fn limit_responses(&mut self, largest: u16) {
        self.largest = largest.min(MAX_UDP_RESPONSE);
    }

    /// Starts the look-up of a host with records of `kinds`, the most wanted first. [`poll_event`](Self::poll_event)
    /// returns the addresses that it finds.
    pub fn start(&mut self, now: Instant, host: &str, kinds: &[RecordType]) {
        self.lookups.retain(|lookup| lookup.host != host);
        if self.lookups.len() >= MAX_RUNNING_LOOKUPS
            && let Some(oldest) = self.lookups.pop_front()
        {
            let failure = ResolveError::Silent(self.config.servers.clone());
            self.events
                .push_back((oldest.host, Resolved::Failed(failure)));
        }
        let first = self.rotation;
        if self.config.rotate {
            self.rotation = self.rotation.wrapping_add(1);
        }
        let lookup = Lookup::new(now, host, kinds, first, &mut self.means());
        self.lookups.push_back(lookup);
        self.collect();
    }

    /// Handles a datagram from the server of an exchange, or bytes of its stream.
    pub fn handle_bytes(&mut self, now: Instant, id: ExchangeId, bytes: &[u8]) {
        self.for_awaiting(id, |lookup, means| {
            lookup.handle_bytes(now, id, bytes, means)
        });
    }

    /// Handles the failure of an exchange: its server is unreachable, or its stream has ended.
    pub fn handle_failure(&mut self, now: Instant, id: ExchangeId) {
        self.for_awaiting(id, |lookup, means| lookup.handle_failure(now, id, means));
    }

    /// Handles the deadline of [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Instant) {
        self.for_lookups(|lookup, means| lookup.handle_timeout(now, means));
    }

    /// Returns the next query to transmit.
    pub fn poll_transmit(&mut self) -> Option<DnsTransmit> {
        self.outbox.pop_front()
    }

    /// Returns the next host of which more is known. After [`Resolved::Complete`] or [`Resolved::Failed`] nothing
    /// follows.
    pub fn poll_event(&mut self) -> Option<(String, Resolved)> {
        self.events.pop_front()
    }

    /// The answer to a question, with the time for which it still holds, if it is kept.
    #[must_use]
    pub fn known(&self, now: Instant, question: &Question) -> Option<Answer> {
        self.cache.get(now, question)
    }

    /// Whether it has neither look-ups nor anything to report.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lookups.is_empty() && self.events.is_empty() && self.outbox.is_empty()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.lookups.iter().filter_map(Lookup::poll_timeout).min()
    }

    /// Whether the response to an exchange is awaited; the driver closes the sockets of all others.
    #[must_use]
    pub fn awaits(&self, id: ExchangeId) -> bool {
        self.lookups.iter().any(|lookup| lookup.awaits(id))
    }

    fn means(&mut self) -> Means<'_> {
        Means {
            context: Context {
                config: &self.config,
                largest: self.largest,
                random: &mut self.random,
                outbox: &mut self.outbox,
                next_exchange: &mut self.next_exchange,
            },
            cache: &mut self.cache,
        }
    }

    fn for_awaiting(
        &mut self,
        id: ExchangeId,
        mut change: impl FnMut(&mut Lookup, &mut Means<'_>),
    ) {
        self.for_lookups(|lookup, means| {
            if lookup.awaits(id) {
                change(lookup, means);
            }
        });
    }

    fn for_lookups(&mut self, mut change: impl FnMut(&mut Lookup, &mut Means<'_>)) {
        let mut lookups = core::mem::take(&mut self.lookups);
        let mut means = self.means();
        for lookup in &mut lookups {
            change(lookup, &mut means);
        }
        self.lookups = lookups;
        self.collect();
    }

    /// Collects the outcomes of the look-ups, and drops those that are done.
    fn collect(&mut self) {
        for lookup in &mut self.lookups {
            if let Some(outcome) = lookup.poll_outcome() {
                self.events.push_back((lookup.host.clone(), outcome));
            }
        }
        self.lookups.retain(|lookup| !lookup.is_done());
    }
}

#[cfg(test)]
mod tests;
