//! The exchanges of a client with DNS servers: over its stack, or over sockets of the kernel.
//!
//! In: queries of the client's resolver. Out: the datagrams and bytes that servers send, and failures. Each query over
//! UDP leaves from a random port of its own, which only its server can answer (RFC 5452 §9.2).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;

use crate::connect::resolve::{DnsTransmit, ExchangeId};
use crate::stack::{Stack, TcpEvent, TcpId};
use crate::time::Instant;
use crate::wire::flight::{Ecn, UdpPath};
use crate::wire::ip::{UdpTemplate, UdpView};

/// Most exchanges at once; a further query fails.
pub const MAX_OPEN_EXCHANGES: usize = 32;

/// First of the ports that are drawn: the range is as large as possible (RFC 5452 §9.2).
const FIRST_QUERY_PORT: u16 = 1024;

/// Ports that are drawn until one is free.
const PORT_DRAWS: usize = 8;

/// Bytes read from a connection at a time.
const READ_BYTES: usize = 4096;

/// An event of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryEvent {
    /// A datagram, or bytes of a stream.
    Bytes(ExchangeId, Vec<u8>),
    /// Its server is unreachable, or its stream has ended.
    Failed(ExchangeId),
}

/// Sockets of the kernel for exchanges with DNS servers; none of the methods blocks.
pub trait QuerySockets {
    /// Opens a socket of its own for a query, and sends it; returns whether it could.
    fn send(&mut self, query: &DnsTransmit) -> bool;

    /// Returns the next event.
    fn poll_event(&mut self) -> Option<QueryEvent>;

    /// Closes the sockets of all exchanges but those that are `awaited`.
    fn close_others(&mut self, awaited: &dyn Fn(ExchangeId) -> bool);

    /// The descriptor that is readable when there are events.
    fn descriptor(&self) -> RawFd;
}

/// The exchanges of a stack.
#[derive(Default)]
pub(super) struct StackExchanges {
    open: Vec<StackExchange>,
    outbox: VecDeque<Vec<u8>>,
    events: VecDeque<QueryEvent>,
}

struct StackExchange {
    id: ExchangeId,
    carrier: Carrier,
}

enum Carrier {
    Datagrams(UdpPath),
    Stream { id: TcpId, unsent: Vec<u8> },
}

impl StackExchanges {
    /// Sends a query from the address `own`; returns whether it could.
    pub(super) fn send(
        &mut self,
        now: Instant,
        query: &DnsTransmit,
        own: IpAddr,
        stack: &mut Stack,
        random: &mut ChaCha8Rng,
    ) -> bool {
        if self.open.len() >= MAX_OPEN_EXCHANGES {
            return false;
        }
        let opened = match query.is_stream {
            true => {
                let stream = |id| Carrier::Stream {
                    id,
                    unsent: query.bytes.clone(),
                };
                stack.connect(now, query.server).ok().map(stream)
            }
            false => {
                let path = open_path(own, query.server, stack, random);
                path.inspect(|path| self.emit(*path, &query.bytes))
                    .map(Carrier::Datagrams)
            }
        };
        let id = query.exchange;
        self.open
            .extend(opened.map(|carrier| StackExchange { id, carrier }));
        self.open.last().is_some_and(|last| last.id == id)
    }

    fn emit(&mut self, path: UdpPath, bytes: &[u8]) {
        let template = UdpTemplate::new(path, Ecn::NotEct);
        let packet = template.and_then(|template| template.packet(bytes));
        self.outbox.extend(packet.ok());
    }

    /// Returns the next packet to send.
    pub(super) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop_front()
    }

    /// Returns the next event.
    pub(super) fn poll_event(&mut self) -> Option<QueryEvent> {
        self.events.pop_front()
    }

    /// Takes the datagrams of an exchange; returns whether they are of one.
    pub(super) fn handle_datagrams(&mut self, view: &UdpView<'_>, segment: Option<usize>) -> bool {
        let answers = |exchange: &&StackExchange| {
            let Carrier::Datagrams(path) = &exchange.carrier else {
                return false;
            };
            (path.src, path.dst) == (view.path.dst, view.path.src)
        };
        let Some(exchange) = self.open.iter().find(answers) else {
            return false;
        };
        let bytes = |datagram: &[u8]| QueryEvent::Bytes(exchange.id, datagram.to_vec());
        self.events.extend(view.datagrams(segment).map(bytes));
        true
    }

    /// Takes an event of a TCP connection; one of another connection changes nothing.
    pub(super) fn handle_tcp(&mut self, event: TcpEvent, stack: &mut Stack) {
        for exchange in &mut self.open {
            let Carrier::Stream { id, unsent } = &mut exchange.carrier else {
                continue;
            };
            match event {
                TcpEvent::Connected(of) | TcpEvent::Writable(of) if of == *id => {
                    let sent = stack.send(*id, unsent).unwrap_or(0);
                    unsent.drain(..sent.min(unsent.len()));
                }
                TcpEvent::Readable(of) if of == *id => {
                    let mut bytes = [0; READ_BYTES];
                    let end = loop {
                        match stack.receive(*id, &mut bytes) {
                            Ok(0) => break None,
                            Ok(count) => {
                                let bytes = bytes.get(..count).unwrap_or_default().to_vec();
                                self.events.push_back(QueryEvent::Bytes(exchange.id, bytes));
                            }
                            Err(_) => break Some(QueryEvent::Failed(exchange.id)),
                        }
                    };
                    self.events.extend(end);
                }
                TcpEvent::Closed(of, _) if of == *id => {
                    self.events.push_back(QueryEvent::Failed(exchange.id));
                }
                TcpEvent::Connected(_)
                | TcpEvent::Writable(_)
                | TcpEvent::Readable(_)
                | TcpEvent::Closed(..)
                | TcpEvent::Accepted { .. } => {}
            }
        }
    }

    /// Closes all exchanges but those that are `awaited`.
    pub(super) fn close_others(&mut self, awaited: impl Fn(ExchangeId) -> bool, stack: &mut Stack) {
        self.open.retain(|exchange| {
            let keep = awaited(exchange.id);
            if !keep {
                match &exchange.carrier {
                    Carrier::Datagrams(path) => stack.close_port(path.src.port()),
                    Carrier::Stream { id, .. } => stack.abort(*id),
                }
            }
            keep
        });
    }
}

/// Opens a random port that is free, and returns the path from it.
fn open_path(
    own: IpAddr,
    server: SocketAddr,
    stack: &mut Stack,
    random: &mut ChaCha8Rng,
) -> Option<UdpPath> {
    let mut draws = (0..PORT_DRAWS).map(|_| random.random_range(FIRST_QUERY_PORT..=u16::MAX));
    let port = draws.find(|port| stack.open_port(*port))?;
    Some(UdpPath {
        src: SocketAddr::new(own, port),
        dst: server,
    })
}
