//! The look-ups of a client: by its own resolver, or by its driver.
//!
//! In: the host of a request, answers of servers or of the driver. Out: queries to servers, and the addresses of the
//! host in the order of RFC 6724: the first of them start the race for a connection, others join it.

use std::net::{IpAddr, SocketAddr};

use super::ClientHost;
use super::racing::Way;
use crate::apps::fetch::{TransferFailure, TransferRequest};
use crate::connect::resolve::{RecordType, Resolved, Resolver, sort_addresses};
use crate::host::config::ClientHostConfig;
use crate::host::connections::Service;
use crate::host::names::{Family, LookupAnswer, Resolution};
use crate::host::queries::{QueryEvent, QuerySockets, StackExchanges};
use crate::host::report::LookupReport;
use crate::time::{Instant, Now};
use crate::wire::ip::max_datagram;

/// Most events of exchanges with DNS servers in one turn.
pub(in crate::host) const MAX_QUERY_EVENTS: usize = 64;

/// A look-up of the host of a request.
pub(super) struct Lookup {
    host: String,
    /// The request until an address is known; a race has it then.
    request: Option<TransferRequest>,
    /// Whether the driver has taken the name, or the own resolver has.
    asked: bool,
}

impl Lookup {
    /// The failure of a transfer whose time to connect has passed, if its host has no address yet.
    pub(super) fn timed_out(&self) -> Option<TransferFailure> {
        let host = self.host.clone();
        let timed_out = TransferFailure::ResolveTimedOut { host };
        self.request.as_ref().map(|_| timed_out)
    }
}

/// A resolver and its exchanges with servers.
pub(super) struct Dns {
    resolver: Resolver,
    pub(super) exchanges: Exchanges,
}

/// The carrier of the exchanges.
pub(super) enum Exchanges {
    Stack(StackExchanges),
    Kernel(Box<dyn QuerySockets>),
}

impl Dns {
    /// Creates the resolver of a client, if it has one.
    pub(super) fn new(config: &mut ClientHostConfig, seed: u64) -> Option<Self> {
        let mut resolver = Resolver::new(config.dns.take()?, seed);
        let exchanges = match config.query_sockets.take() {
            Some(sockets) => Exchanges::Kernel(sockets),
            None => {
                let v6 = config.addresses.iter().find(|own| own.is_ipv6());
                let longest = v6.or(config.addresses.first()).copied();
                resolver.limit_responses(longest.map_or(0, |own| max_datagram(config.mtu, own)));
                Exchanges::Stack(StackExchanges::default())
            }
        };
        Some(Self {
            resolver,
            exchanges,
        })
    }

    /// When `handle_timeout` is to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.resolver.poll_timeout()
    }

    /// Handles the deadlines that have passed.
    pub(super) fn handle_timeout(&mut self, now: Now) {
        self.resolver.handle_timeout(now.instant);
    }

    fn poll_event(&mut self) -> Option<QueryEvent> {
        match &mut self.exchanges {
            Exchanges::Stack(stack) => stack.poll_event(),
            Exchanges::Kernel(sockets) => sockets.poll_event(),
        }
    }
}

impl ClientHost {
    // --- Commands ---

    /// Handles an answer to a look-up of `host`. No effect if the transfer no longer waits for it.
    pub fn handle_lookup(&mut self, now: Now, host: &str, answer: LookupAnswer) {
        if let LookupAnswer::Complete(addresses) = &answer {
            self.names.keep(now.instant, host, addresses);
        }
        self.take_answer(now, host, answer);
        self.pump(now);
    }

    /// The next name to be looked up, each once; answer with [`handle_lookup`](Self::handle_lookup).
    pub fn poll_lookup(&mut self) -> Option<String> {
        let lookup = self.running.as_mut()?.lookup.as_mut()?;
        let asked = core::mem::replace(&mut lookup.asked, true);
        (!asked).then(|| lookup.host.clone())
    }

    // --- Parts ---

    /// Resolves the host of a request, and sends it as soon as an address is known.
    pub(super) fn send(
        &mut self,
        now: Now,
        request: TransferRequest,
    ) -> Result<(), TransferFailure> {
        self.race.lookups.clear();
        let destination = self.config.destination(&request.target);
        let mut pinned = self.config.pinned.iter();
        let pinned = pinned.find(|pinned| pinned.is_for(destination.host, destination.url_port));
        let resolution = match pinned {
            Some(pinned) => Resolution::Known(pinned.addresses.clone()),
            None => {
                let resolve = &self.config.resolve;
                self.names.resolve(now.instant, resolve, destination.host)
            }
        };
        match resolution {
            Resolution::Known(addresses) => {
                let ways = self.ways(now, &request.target, &addresses)?;
                self.send_to(now, request, ways);
                Ok(())
            }
            Resolution::Pending => {
                let host = destination.host.to_owned();
                self.look_up(now, host, request)
            }
        }
    }

    fn look_up(
        &mut self,
        now: Now,
        host: String,
        request: TransferRequest,
    ) -> Result<(), TransferFailure> {
        // The connection of the response before carries nothing of this one.
        self.leave(now, !request.abandon);
        self.current = None;
        let kinds = self.record_types();
        if kinds.is_empty() {
            return Err(TransferFailure::Family { host });
        }
        let asked = match &mut self.dns {
            Some(dns) => {
                dns.resolver.start(now.instant, &host, &kinds);
                true
            }
            None => false,
        };
        if let Some(running) = &mut self.running {
            running.connect_by = Some(now.instant + self.config.connect_timeout);
            running.lookup = Some(Lookup {
                host,
                request: Some(request),
                asked,
            });
        }
        Ok(())
    }

    /// The types of records that have addresses to connect to.
    fn record_types(&self) -> Vec<RecordType> {
        let usable = |family: Family| {
            let wanted = self.config.family.is_none_or(|only| only == family);
            let mut own = self.config.addresses.iter();
            wanted && (self.config.sockets || own.any(|own| family.has(*own)))
        };
        let types = [(Family::V6, RecordType::Aaaa), (Family::V4, RecordType::A)];
        let types = types.into_iter().filter(|(family, _)| usable(*family));
        types.map(|(_, kind)| kind).collect()
    }

    /// Passes queries and answers between the resolver and the servers; returns whether it has found anything.
    pub(super) fn run_dns(&mut self, now: Now) -> bool {
        let busy = |dns: &mut Dns| !dns.resolver.is_idle();
        let Some(mut dns) = self.dns.take_if(busy) else {
            return false;
        };
        // A server that floods its socket must not hold the loop up: the rest waits for the next turn.
        for _ in 0..MAX_QUERY_EVENTS {
            let Some(event) = dns.poll_event() else { break };
            match event {
                QueryEvent::Bytes(id, bytes) => {
                    dns.resolver.handle_bytes(now.instant, id, &bytes);
                }
                QueryEvent::Failed(id) => dns.resolver.handle_failure(now.instant, id),
            }
        }
        self.exchange(now, &mut dns);
        let mut any = false;
        while let Some((host, resolved)) = dns.resolver.poll_event() {
            any = true;
            let answer = self.answer(&host, resolved);
            self.take_answer(now, &host, answer);
        }
        self.dns = Some(dns);
        any
    }

    /// Sends the queries of the resolver, and closes the exchanges that it no longer waits for.
    fn exchange(&mut self, now: Now, dns: &mut Dns) {
        while let Some(query) = dns.resolver.poll_transmit() {
            let own = self.own_address(query.server.ip());
            let (stack, random) = (&mut self.tcp.stack, &mut self.random);
            let is_sent = match (&mut dns.exchanges, own) {
                (Exchanges::Kernel(sockets), _) => sockets.send(&query),
                (Exchanges::Stack(exchanges), Some(own)) => {
                    exchanges.send(now.instant, &query, own, stack, random)
                }
                (Exchanges::Stack(_), None) => false,
            };
            if !is_sent {
                dns.resolver.handle_failure(now.instant, query.exchange);
            }
        }
        let awaited = |id| dns.resolver.awaits(id);
        match &mut dns.exchanges {
            Exchanges::Stack(exchanges) => exchanges.close_others(awaited, &mut self.tcp.stack),
            Exchanges::Kernel(sockets) => sockets.close_others(&awaited),
        }
    }

    /// Sorts the addresses that the resolver has found.
    fn answer(&self, host: &str, resolved: Resolved) -> LookupAnswer {
        let sorted = |mut addresses: Vec<IpAddr>| {
            sort_addresses(&mut addresses, |address| self.source(address));
            log::info!("{host} has {addresses:?}");
            addresses
        };
        match resolved {
            Resolved::Partial(addresses) => LookupAnswer::Partial(sorted(addresses)),
            Resolved::Complete(addresses) => LookupAnswer::Complete(sorted(addresses)),
            Resolved::Failed(error) => LookupAnswer::Failed(error),
        }
    }

    /// The own address that packets to another have.
    pub(super) fn source(&self, address: IpAddr) -> Option<IpAddr> {
        match self.config.sockets {
            true => (self.config.source)(address),
            false => self.own_address(address),
        }
    }

    fn take_answer(&mut self, now: Now, host: &str, answer: LookupAnswer) {
        let Some(running) = &mut self.running else {
            return;
        };
        let Some(mut lookup) = running.lookup.take_if(|lookup| lookup.host == host) else {
            return self.add_spares(now, &answer);
        };
        let complete = !matches!(answer, LookupAnswer::Partial(_));
        let count = match &answer {
            LookupAnswer::Partial(known) | LookupAnswer::Complete(known) => known.len(),
            LookupAnswer::Failed(_) => 0,
        };
        self.race.lookups.push(LookupReport {
            at: now.instant.saturating_since(running.begun),
            addresses: count,
            complete,
        });
        let request = lookup.request.take();
        let addresses = match answer {
            LookupAnswer::Partial(addresses) => {
                running.lookup = Some(lookup);
                addresses
            }
            LookupAnswer::Complete(addresses) => addresses,
            LookupAnswer::Failed(reason) => match request {
                Some(_) => {
                    let host = host.to_owned();
                    running.connect_by = None;
                    return running
                        .transfer
                        .fail(TransferFailure::CannotResolve { host, reason });
                }
                // A race began with other answers.
                None => Vec::new(),
            },
        };
        match request {
            Some(request) => self.handle_first_answer(now, request, &addresses),
            None => self.extend_race(now, &addresses),
        }
    }

    /// Adds addresses that have become known after the race to those that may replace the winner's.
    fn add_spares(&mut self, now: Now, answer: &LookupAnswer) {
        let (LookupAnswer::Partial(known) | LookupAnswer::Complete(known)) = answer else {
            return;
        };
        let Some(current) = self.current else { return };
        let ways = known.iter().filter_map(|ip| self.way(*ip));
        let ways: Vec<Way> = ways.collect();
        let service = |ip| Service {
            address: SocketAddr::new(ip, current.address.port()),
            ..current
        };
        let spares = self.spares_among(now, &ways, service);
        if known.contains(&current.address.ip())
            && let Some(connection) = self.connections.get(current)
            && let Some(client) = connection.transport_mut()
        {
            client.add_spares(spares);
        }
    }

    /// Sends a request to the addresses that are known of its host, unless it waits for others.
    fn handle_first_answer(&mut self, now: Now, request: TransferRequest, known: &[IpAddr]) {
        let Some(running) = &mut self.running else {
            return;
        };
        let limit = running.connect_by;
        match self.ways(now, &request.target, known) {
            Ok(ways) => {
                self.send_to(now, request, ways);
                if let Some(running) = &mut self.running {
                    // The limit counts from the start of the look-up.
                    running.connect_by = running.connect_by.and(limit);
                }
            }
            Err(failure) => {
                if let Some(running) = &mut self.running {
                    match &mut running.lookup {
                        Some(lookup) => lookup.request = Some(request),
                        None => {
                            running.connect_by = None;
                            running.transfer.fail(failure);
                        }
                    }
                }
            }
        }
    }
}
