//! The exchanges of a client with DNS servers, over sockets of the kernel.
//!
//! In: queries of the client's resolver. Out: the datagrams and bytes that servers send, and failures. Each query has a
//! socket of its own, connected to its server: the kernel draws the port, drops datagrams of other hosts, and reports an
//! unreachable server. None of it blocks. Sources: udp(7), tcp(7), epoll(7) on nested descriptors.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::Duration;

use mio::net::{TcpStream, UdpSocket};
use mio::{Events, Interest, Poll, Token};

use crate::connect::resolve::{DnsTransmit, ExchangeId};
use crate::device::binding::SocketBinding;
use crate::host::queries::{MAX_OPEN_EXCHANGES, QueryEvent, QuerySockets};

/// Largest datagram that is read, in bytes.
const READ_BYTES: usize = 65_535;

/// Most reads of one socket in a row; the rest is read later.
const MAX_READS_IN_A_ROW: usize = 16;

/// See the head of this file.
#[derive(Debug)]
pub struct KernelQueries {
    poll: Poll,
    events: Events,
    binding: SocketBinding,
    open: Vec<Exchange>,
    ready: VecDeque<QueryEvent>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Exchange {
    id: ExchangeId,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, unsent: Vec<u8> },
}

impl KernelQueries {
    /// Creates exchanges whose sockets use an interface or an own address.
    ///
    /// # Errors
    /// If the operating system has no descriptors left.
    pub fn new(binding: SocketBinding) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(MAX_OPEN_EXCHANGES),
            binding,
            open: Vec::new(),
            ready: VecDeque::new(),
            buffer: vec![0; READ_BYTES],
        })
    }

    fn open(&self, query: &DnsTransmit) -> io::Result<Socket> {
        let registry = self.poll.registry();
        let both = Interest::READABLE | Interest::WRITABLE;
        if query.is_stream {
            let mut stream = TcpStream::from_std(self.binding.tcp_to(query.server)?);
            registry.register(&mut stream, Token(0), both)?;
            let unsent = query.bytes.clone();
            return Ok(Socket::Tcp { stream, unsent });
        }
        let mut socket = UdpSocket::from_std(self.binding.udp_to(query.server)?.into());
        registry.register(&mut socket, Token(0), Interest::READABLE)?;
        socket.send(&query.bytes)?;
        Ok(Socket::Udp(socket))
    }

    /// Reads and writes all sockets, as far as they allow.
    fn collect(&mut self) {
        // The events only wake the loop: there are few sockets, and each is tried.
        if let Err(error) = self.poll.poll(&mut self.events, Some(Duration::ZERO))
            && error.kind() != ErrorKind::Interrupted
        {
            log::error!("cannot poll the sockets of DNS queries: {error}");
        }
        let ready = &mut self.ready;
        self.open.retain_mut(|Exchange { id, socket }| {
            let ended = socket.exchange(&mut self.buffer, |bytes| {
                ready.push_back(QueryEvent::Bytes(*id, bytes.to_vec()));
            });
            if let Err(error) = ended {
                log::debug!("an exchange with a DNS server failed: {error}");
                ready.push_back(QueryEvent::Failed(*id));
                return false;
            }
            true
        });
    }
}

impl Socket {
    /// Sends and receives until it would block, or has received for long.
    fn exchange(&mut self, buffer: &mut [u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut step = || match self {
            Self::Udp(socket) => socket.recv(buffer).map(|count| {
                take(buffer.get(..count).unwrap_or_default());
            }),
            Self::Tcp { stream, unsent } => {
                if !unsent.is_empty() {
                    let count = stream.write(unsent)?;
                    unsent.drain(..count.min(unsent.len()));
                }
                match stream.read(buffer)? {
                    0 => Err(ErrorKind::UnexpectedEof.into()),
                    count => {
                        take(buffer.get(..count).unwrap_or_default());
                        Ok(())
                    }
                }
            }
        };
        for _ in 0..MAX_READS_IN_A_ROW {
            // A connection that is not established yet cannot be written to.
            let waits = [ErrorKind::WouldBlock, ErrorKind::NotConnected];
            match step() {
                Ok(()) => {}
                Err(error) if waits.contains(&error.kind()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl QuerySockets for KernelQueries {
    fn send(&mut self, query: &DnsTransmit) -> bool {
        if self.open.len() >= MAX_OPEN_EXCHANGES {
            return false;
        }
        match self.open(query) {
            Ok(socket) => {
                let id = query.exchange;
                self.open.push(Exchange { id, socket });
                true
            }
            Err(error) => {
                log::info!("cannot query DNS server {}: {error}", query.server);
                false
            }
        }
    }

    fn poll_event(&mut self) -> Option<QueryEvent> {
        if self.ready.is_empty() && !self.open.is_empty() {
            self.collect();
        }
        self.ready.pop_front()
    }

    fn close_others(&mut self, awaited: &dyn Fn(ExchangeId) -> bool) {
        self.open.retain(|exchange| awaited(exchange.id));
    }

    fn descriptor(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;
