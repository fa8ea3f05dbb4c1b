//! One question to the servers, until one of them answers.
//!
//! In: datagrams and bytes of streams from servers, failures of their sockets, time. Out: queries to transmit, each an
//! *exchange* with an identifier, a spelling and a port of its own, then the answer or the failure. The next server is
//! queried after a failure or a timeout; an earlier one may still answer. A response that does not fit a datagram, or
//! whose spelling is not that of the query, is fetched over TCP, where an attacker off the path cannot answer.
//! Sources: RFC 1035 §4.2, RFC 5452 (forged answers), RFC 6891 §6.2.2, RFC 7766 (TCP), resolv.conf(5).

use std::collections::VecDeque;
use std::net::SocketAddr;

use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;

use super::config::ResolverConfig;
use super::message::{Answer, Question, Reply, Sent};
use crate::time::Instant;

/// Most exchanges of one question at once; the oldest makes room.
pub const MAX_EXCHANGES: usize = 8;

/// Largest message over TCP with its length, in bytes.
const MAX_STREAM_BYTES: usize = 2 + 65_535;

/// Names an exchange with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(u64);

/// A query to transmit, from a local port that nothing else uses. Over TCP, `bytes` begin with their length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsTransmit {
    /// The exchange; a response to it is passed on under this name.
    pub exchange: ExchangeId,
    /// The server.
    pub server: SocketAddr,
    /// Whether it goes over TCP.
    pub is_stream: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum QueryFailure {
    /// No server has answered in time.
    Silent(Vec<SocketAddr>),
    /// A server has failed, and no other has answered.
    Failed(SocketAddr, &'static str),
}

/// The parts of a resolver that a query uses.
pub(super) struct Context<'r> {
    pub(super) config: &'r ResolverConfig,
    /// The largest response over UDP that is welcome, in bytes.
    pub(super) largest: u16,
    pub(super) random: &'r mut ChaCha8Rng,
    pub(super) outbox: &'r mut VecDeque<DnsTransmit>,
    pub(super) next_exchange: &'r mut u64,
}

/// A server, as far as one question is concerned.
#[derive(Clone, Debug)]
struct Server {
    address: SocketAddr,
    /// It knows EDNS, as far as is known.
    edns: bool,
    /// It has answered that it does not answer: it is not queried again.
    failed: Option<&'static str>,
}

#[derive(Clone, Debug)]
struct Exchange {
    id: ExchangeId,
    server: usize,
    sent: Sent,
    is_stream: bool,
    /// Bytes of a stream, so far.
    inbox: Vec<u8>,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Query {
    question: Question,
    servers: Vec<Server>,
    exchanges: VecDeque<Exchange>,
    /// The turn of the next server, through all rounds.
    turn: usize,
    /// When it begins.
    deadline: Instant,
    outcome: Option<Result<Answer, QueryFailure>>,
}

impl Query {
    /// Starts a query, whose first server is that with the index `first`.
    pub(super) fn new(
        now: Instant,
        question: Question,
        first: usize,
        context: &mut Context<'_>,
    ) -> Self {
        let servers = context.config.servers.iter();
        let mut servers: Vec<Server> = servers
            .map(|&address| Server {
                address,
                edns: true,
                failed: None,
            })
            .collect();
        if !servers.is_empty() {
            let first = first % servers.len();
            servers.rotate_left(first);
        }
        let mut query = Self {
            question,
            servers,
            exchanges: VecDeque::new(),
            turn: 0,
            deadline: now,
            outcome: None,
        };
        query.advance(now, context);
        query
    }

    /// The question.
    pub(super) const fn question(&self) -> &Question {
        &self.question
    }

    /// Whether the response to an exchange is awaited.
    pub(super) fn awaits(&self, id: ExchangeId) -> bool {
        self.outcome.is_none() && self.exchanges.iter().any(|exchange| exchange.id == id)
    }

    /// Takes the outcome, once there is one.
    pub(super) const fn poll_outcome(&mut self) -> Option<Result<Answer, QueryFailure>> {
        self.outcome.take()
    }

    /// When `handle_timeout` is to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.outcome.is_none().then_some(self.deadline)
    }

    /// Queries the next server if the present one has had its time.
    pub(super) fn handle_timeout(&mut self, now: Instant, context: &mut Context<'_>) {
        if self.outcome.is_none() && self.deadline <= now {
            self.advance(now, context);
        }
    }

    /// Handles a datagram, or bytes of a stream.
    pub(super) fn handle_bytes(
        &mut self,
        now: Instant,
        id: ExchangeId,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) {
        let mut exchanges = self.exchanges.iter_mut();
        let Some(exchange) = exchanges.find(|exchange| exchange.id == id) else {
            return;
        };
        let reply = if exchange.is_stream {
            let room = MAX_STREAM_BYTES.saturating_sub(exchange.inbox.len());
            exchange.inbox.extend(bytes.iter().take(room));
            let Some(message) = framed(&exchange.inbox) else {
                return;
            };
            match exchange.sent.read(message, true) {
                Reply::Foreign | Reply::Respelled | Reply::Truncated => {
                    Reply::Failed("a malformed response")
                }
                reply @ (Reply::NoEdns | Reply::Failed(_) | Reply::Answer(_)) => reply,
            }
        } else {
            exchange.sent.read(bytes, false)
        };
        let (server, is_stream) = (exchange.server, exchange.is_stream);
        match reply {
            Reply::Foreign => log::debug!(
                "a datagram is not the response to a query of {}",
                self.question.name
            ),
            Reply::Respelled | Reply::Truncated => self.repeat(now, id, server, true, context),
            Reply::NoEdns => {
                if let Some(server) = self.servers.get_mut(server) {
                    server.edns = false;
                }
                self.repeat(now, id, server, is_stream, context);
            }
            Reply::Failed(why) => {
                if let Some(server) = self.servers.get_mut(server) {
                    log::info!(
                        "DNS server {}: {why} ({} {})",
                        server.address,
                        self.question.name,
                        self.question.kind
                    );
                    server.failed = Some(why);
                }
                self.fail(now, id, context);
            }
            Reply::Answer(answer) => self.outcome = Some(Ok(answer)),
        }
    }

    /// Handles the failure of an exchange: its server is unreachable, or its stream has ended.
    pub(super) fn fail(&mut self, now: Instant, id: ExchangeId, context: &mut Context<'_>) {
        let latest = self
            .exchanges
            .back()
            .is_some_and(|exchange| exchange.id == id);
        self.exchanges.retain(|exchange| exchange.id != id);
        if latest && self.outcome.is_none() {
            self.advance(now, context);
        }
    }

    /// Repeats an exchange with its server: over TCP, or without EDNS.
    fn repeat(
        &mut self,
        now: Instant,
        id: ExchangeId,
        server: usize,
        is_stream: bool,
        context: &mut Context<'_>,
    ) {
        self.exchanges.retain(|exchange| exchange.id != id);
        self.send(now, server, is_stream, context);
    }

    /// Queries the next server, or ends when all have had their rounds.
    fn advance(&mut self, now: Instant, context: &mut Context<'_>) {
        let rounds = usize::try_from(context.config.attempts).unwrap_or(1);
        while self.turn < rounds * self.servers.len() {
            let server = self.turn % self.servers.len();
            self.turn += 1;
            if self
                .servers
                .get(server)
                .is_some_and(|server| server.failed.is_none())
            {
                return self.send(now, server, context.config.tcp_only, context);
            }
        }
        let failed = self
            .servers
            .iter()
            .find_map(|server| Some((server.address, server.failed?)));
        let silent = || self.servers.iter().map(|server| server.address).collect();
        let failure = failed.map_or_else(
            || QueryFailure::Silent(silent()),
            |(server, why)| QueryFailure::Failed(server, why),
        );
        self.outcome = Some(Err(failure));
    }

    fn send(&mut self, now: Instant, server: usize, is_stream: bool, context: &mut Context<'_>) {
        let Some(Server { address, edns, .. }) = self.servers.get(server) else {
            return;
        };
        let sent = Sent {
            id: context.random.random(),
            spelling: self.question.name.respelled(|| context.random.random()),
            kind: self.question.kind,
            edns: *edns,
        };
        let mut bytes = sent.to_bytes(context.largest);
        if is_stream {
            let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            bytes.splice(..0, length.to_be_bytes());
        }
        let id = ExchangeId(*context.next_exchange);
        *context.next_exchange += 1;
        context.outbox.push_back(DnsTransmit {
            exchange: id,
            server: *address,
            is_stream,
            bytes,
        });
        if self.exchanges.len() >= MAX_EXCHANGES {
            self.exchanges.pop_front();
        }
        self.exchanges.push_back(Exchange {
            id,
            server,
            sent,
            is_stream,
            inbox: Vec::new(),
        });
        self.deadline = now + context.config.timeout;
    }
}

/// The first message of a stream, once it is whole (RFC 1035 §4.2.2).
fn framed(stream: &[u8]) -> Option<&[u8]> {
    let (length, rest) = stream.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}
