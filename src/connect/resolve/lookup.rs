//! The look-up of a host: which names to query, and when to go on with some of the answers.
//!
//! In: the answers to its questions, time. Out: the addresses that are known so far, all of them, or the reason why
//! there are none. IPv6 and IPv4 addresses are separate questions, asked at once. IPv4 addresses that arrive first
//! wait for [`RESOLUTION_DELAY`]; others that arrive later still count.
//! Sources: RFC 8305 §3; resolv.conf(5) for the list of domains to search.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::cache::Cache;
use super::config::ResolverConfig;
use super::message::{Answer, DnsName, Question, RecordType, Records};
use super::query::{Context, ExchangeId, Query, QueryFailure};
use crate::time::Instant;

/// The time for which IPv4 addresses wait for IPv6 addresses (RFC 8305 §8).
pub const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Why a host has no addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The DNS cannot have such a name.
    #[error("it is not a valid name")]
    InvalidName,
    /// No DNS has the name.
    #[error("no such name (NXDOMAIN)")]
    NoName,
    /// The name has no records of the types that were queried.
    #[error("the name has no {}", list(.0))]
    NoAddresses(Vec<RecordType>),
    /// A server has failed, and no other has answered.
    #[error("DNS server {0} answered with {1}")]
    ServerFailed(SocketAddr, &'static str),
    /// No server has answered in time.
    #[error("no answer from {}", servers(.0))]
    Silent(Vec<SocketAddr>),
    /// The resolver of the operating system has failed, with this error.
    #[error("{0}")]
    System(String),
}

fn list(kinds: &[RecordType]) -> String {
    let name = |kind: &RecordType| match kind {
        RecordType::A => "IPv4 address",
        RecordType::Aaaa => "IPv6 address",
        RecordType::Https => "HTTPS record",
    };
    match kinds {
        [one] => name(one).to_owned(),
        _ => "addresses".to_owned(),
    }
}

fn servers(servers: &[SocketAddr]) -> String {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    match servers.len() {
        0 => "any DNS server: none is configured".to_owned(),
        1 => format!("DNS server {}", servers.concat()),
        _ => format!("DNS servers {}", servers.join(", ")),
    }
}

/// The outcome of a look-up, so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// Some addresses; more may follow.
    Partial(Vec<IpAddr>),
    /// All addresses; at least one.
    Complete(Vec<IpAddr>),
    /// None.
    Failed(ResolveError),
}

/// A question of a look-up.
#[derive(Clone, Debug)]
enum Part {
    Pending(Query),
    Done(Result<Answer, QueryFailure>),
}

impl Part {
    fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::Done(Ok(Answer {
                records: Records::Addresses(addresses),
                ..
            })) => addresses,
            Self::Pending(_) | Self::Done(_) => &[],
        }
    }

    const fn is_pending(&self) -> bool {
        matches!(self, Self::Pending(_))
    }
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Lookup {
    /// The host as its user wrote it.
    pub(super) host: String,
    /// The types of records to query; they are in the order of preference.
    kinds: Vec<RecordType>,
    /// Names that were not queried yet.
    names: VecDeque<DnsName>,
    /// The questions about the present name.
    parts: Vec<Part>,
    /// The index of the server that each question begins with.
    first_server: usize,
    /// When addresses that are known are reported though others may follow.
    report_at: Option<Instant>,
    /// The number of addresses that were reported.
    reported: usize,
    /// The worst that happened to the names before.
    failure: Option<ResolveError>,
    outcome: Option<Resolved>,
}

/// The parts of a resolver that a look-up uses.
pub(super) struct Means<'r> {
    pub(super) context: Context<'r>,
    pub(super) cache: &'r mut Cache,
}

impl Lookup {
    /// Starts a look-up of `host` with records of `kinds`.
    pub(super) fn new(
        now: Instant,
        host: &str,
        kinds: &[RecordType],
        first_server: usize,
        means: &mut Means<'_>,
    ) -> Self {
        let mut lookup = Self {
            host: host.to_owned(),
            kinds: kinds.to_vec(),
            names: candidates(means.context.config, host),
            parts: Vec::new(),
            first_server,
            report_at: None,
            reported: 0,
            failure: None,
            outcome: None,
        };
        match lookup.names.pop_front() {
            Some(name) if !is_private(&name) => lookup.ask(now, &name, means),
            Some(_) => lookup.outcome = Some(Resolved::Failed(ResolveError::NoName)),
            None => lookup.outcome = Some(Resolved::Failed(ResolveError::InvalidName)),
        }
        lookup
    }

    /// Whether its outcome is final.
    pub(super) const fn is_done(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether the response to an exchange is awaited.
    pub(super) fn awaits(&self, id: ExchangeId) -> bool {
        let awaits = |part: &Part| matches!(part, Part::Pending(query) if query.awaits(id));
        self.parts.iter().any(awaits)
    }

    /// Takes the outcome so far, each time that it has changed.
    pub(super) const fn poll_outcome(&mut self) -> Option<Resolved> {
        self.outcome.take()
    }

    /// When `handle_timeout` is to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let queries = self.parts.iter().filter_map(|part| match part {
            Part::Pending(query) => query.poll_timeout(),
            Part::Done(_) => None,
        });
        queries.chain(self.report_at).min()
    }

    /// Handles the deadlines that have passed.
    pub(super) fn handle_timeout(&mut self, now: Instant, means: &mut Means<'_>) {
        self.for_each_query(|query| query.handle_timeout(now, &mut means.context));
        self.settle(now, means);
    }

    /// Handles a datagram, or bytes of a stream.
    pub(super) fn handle_bytes(
        &mut self,
        now: Instant,
        id: ExchangeId,
        bytes: &[u8],
        means: &mut Means<'_>,
    ) {
        self.for_each_query(|query| query.handle_bytes(now, id, bytes, &mut means.context));
        self.settle(now, means);
    }

    /// Handles the failure of an exchange.
    pub(super) fn handle_failure(&mut self, now: Instant, id: ExchangeId, means: &mut Means<'_>) {
        self.for_each_query(|query| query.fail(now, id, &mut means.context));
        self.settle(now, means);
    }

    fn for_each_query(&mut self, mut change: impl FnMut(&mut Query)) {
        for part in &mut self.parts {
            if let Part::Pending(query) = part {
                change(query);
            }
        }
    }

    /// Asks all questions about a name, unless their answers are kept.
    fn ask(&mut self, now: Instant, name: &DnsName, means: &mut Means<'_>) {
        self.report_at = None;
        let part = |kind: &RecordType| {
            let (name, kind) = (name.clone(), *kind);
            let question = Question { name, kind };
            match means.cache.get(now, &question) {
                Some(answer) => Part::Done(Ok(answer)),
                None => {
                    let first = self.first_server;
                    Part::Pending(Query::new(now, question, first, &mut means.context))
                }
            }
        };
        self.parts = self.kinds.iter().map(part).collect();
        self.settle(now, means);
    }

    /// Takes the answers of the questions, and reports or goes on to the next name.
    fn settle(&mut self, now: Instant, means: &mut Means<'_>) {
        for part in &mut self.parts {
            if let Part::Pending(query) = part
                && let Some(outcome) = query.poll_outcome()
            {
                if let Ok(answer) = &outcome {
                    means
                        .cache
                        .keep(now, query.question().clone(), answer.clone());
                }
                *part = Part::Done(outcome);
            }
        }
        let known: Vec<IpAddr> = self
            .parts
            .iter()
            .flat_map(Part::addresses)
            .copied()
            .collect();
        if self.parts.iter().any(Part::is_pending) {
            self.report_some(now, known);
        } else if known.is_empty() {
            self.go_on(now, means);
        } else {
            self.parts.clear();
            self.outcome = Some(Resolved::Complete(known));
        }
    }

    /// Reports the addresses that are known, once no better ones are to be waited for.
    fn report_some(&mut self, now: Instant, known: Vec<IpAddr>) {
        if known.len() <= self.reported {
            self.report_at = None;
            return;
        }
        let pending = self.parts.iter().position(Part::is_pending);
        let first = self
            .parts
            .iter()
            .position(|part| !part.addresses().is_empty());
        // Those that are preferred are there, or have had their time.
        let at = *self.report_at.get_or_insert(match first < pending {
            true => now,
            false => now + RESOLUTION_DELAY,
        });
        if at <= now {
            self.report_at = None;
            self.reported = known.len();
            self.outcome = Some(Resolved::Partial(known));
        }
    }

    /// Goes on to the next name of the list, or fails.
    fn go_on(&mut self, now: Instant, means: &mut Means<'_>) {
        let failure = self.failure_of_parts();
        let is_silent = matches!(failure, ResolveError::Silent(_));
        let before = self.failure.take();
        let worst = match before {
            Some(before) if severity(&before) >= severity(&failure) => before,
            Some(_) | None => failure,
        };
        self.parts.clear();
        match self.names.pop_front() {
            // Servers that are silent would be so for the other names, too.
            Some(name) if !is_silent => {
                self.failure = Some(worst);
                self.ask(now, &name, means);
            }
            Some(_) | None => self.outcome = Some(Resolved::Failed(worst)),
        }
    }

    fn failure_of_parts(&self) -> ResolveError {
        let failures = self.parts.iter().map(|part| match part {
            Part::Done(Err(QueryFailure::Silent(servers))) => ResolveError::Silent(servers.clone()),
            Part::Done(Err(QueryFailure::Failed(server, why))) => {
                ResolveError::ServerFailed(*server, why)
            }
            Part::Done(Ok(Answer {
                records: Records::NoName,
                ..
            })) => ResolveError::NoName,
            Part::Done(Ok(_)) | Part::Pending(_) => ResolveError::NoAddresses(self.kinds.clone()),
        });
        let worst = failures.max_by_key(severity);
        worst.unwrap_or(ResolveError::NoName)
    }
}

/// The failure of several that says most: one that may pass outranks one that is final.
const fn severity(failure: &ResolveError) -> u8 {
    match failure {
        ResolveError::InvalidName | ResolveError::NoName => 0,
        ResolveError::NoAddresses(_) => 1,
        ResolveError::ServerFailed(..) | ResolveError::System(_) => 2,
        ResolveError::Silent(_) => 3,
    }
}

/// Whether no server may see a name: RFC 6761 §6.4, RFC 7686 §2.
fn is_private(name: &DnsName) -> bool {
    let top = name.as_str().rsplit('.').next().unwrap_or_default();
    ["invalid", "onion"].contains(&top)
}

/// The names to query for a host, in their order; none if it is not a name. One with a final dot is complete.
fn candidates(config: &ResolverConfig, host: &str) -> VecDeque<DnsName> {
    let Some(name) = DnsName::parse(host) else {
        return VecDeque::new();
    };
    if host.ends_with('.') {
        return [name].into();
    }
    let searched = config.search.iter();
    let searched = searched.filter_map(|domain| DnsName::parse(&format!("{name}.{domain}")));
    let mut names: VecDeque<DnsName> = searched.collect();
    let dots = host.bytes().filter(|&byte| byte == b'.').count();
    if usize::try_from(config.ndots).is_ok_and(|ndots| dots >= ndots) {
        names.push_front(name);
    } else {
        names.push_back(name);
    }
    names
}
