//! A UNIX control socket on which a running program accepts commands, one per line.
//!
//! In: connections and lines. Out: a reply to each line; its last line is `ok` or starts with
//! `error: `. Never waits for a client and executes at most one command of each per turn, so that no
//! client delays the loop. The number of clients is bounded; a new one replaces the one that has been
//! idle longest.
//! Source: unix(7).

use std::io::{self, ErrorKind, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;

use mio::net::{UnixListener, UnixStream};
use mio::{Registry, Token};

use super::slots::Slots;
use crate::files::BoundSocket;

/// Most clients at a time.
pub const MAX_CLIENTS: usize = 8;

/// Longest command, in bytes; a client that sends a longer one gets an error and is closed.
pub const MAX_LINE_BYTES: usize = 4096;

/// Unread reply bytes from which on a client's commands wait.
pub const MAX_UNREAD_BYTES: usize = 64 * 1024;

/// Token of the listener; those of the clients follow it.
const LISTENER: usize = 64;

/// Last line of the reply to a successful command.
pub const OK: &str = "ok";

/// Prefix of the last line of any other reply.
pub const ERROR: &str = "error: ";

/// The socket and its clients.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    /// Removes the name when dropped.
    _name: BoundSocket,
    clients: Slots<ControlClient, MAX_CLIENTS>,
    /// Steps of all clients, by which to find the one that has been idle longest.
    steps: u64,
}

#[derive(Debug)]
struct ControlClient {
    stream: UnixStream,
    received: Vec<u8>,
    answer: Vec<u8>,
    written: usize,
    /// Edge-triggered: readable or writable until a call would block.
    ready: bool,
    /// End of input.
    ended: bool,
    last_step: u64,
}

impl ControlServer {
    /// Binds the socket, accessible to its owner only. Replaces a stale one, on which no program
    /// listens.
    ///
    /// # Errors
    /// If another program listens on it, if the path is not a socket, if it belongs to another user,
    /// or if the directory is not writable.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let (name, listener) = BoundSocket::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: UnixListener::from_std(listener),
            _name: name,
            clients: Slots::new(LISTENER),
            steps: 0,
        })
    }

    /// Registers the listener at the loop.
    pub(super) fn registered(mut self, registry: &Registry) -> io::Result<Self> {
        self.clients.register(registry, &mut self.listener)?;
        Ok(self)
    }

    /// Records an event of the loop.
    pub(super) fn note(&mut self, token: Token) {
        if let Some(client) = self.clients.note(token) {
            client.ready = true;
        }
    }

    /// Whether there is more work without another event.
    pub(super) fn is_busy(&self) -> bool {
        let busy = |client: &ControlClient| client.ready && !client.is_stuck();
        self.clients.is_acceptable() || self.clients.iter().any(busy)
    }

    /// Serves all clients, at most one command of each. `execute` returns the reply to a command
    /// without its last line, or the error.
    pub(super) fn turn(
        &mut self,
        registry: &Registry,
        mut execute: impl FnMut(&str) -> Result<String, String>,
    ) {
        self.accept(registry);
        self.clients.serve(|client| {
            if !client.ready {
                return ControlFlow::Continue(());
            }
            self.steps += 1;
            client.last_step = self.steps;
            match client.advance(&mut execute) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
    }

    fn accept(&mut self, registry: &Registry) {
        // A free slot counts as the oldest.
        let oldest = |clients: &[Option<ControlClient>; MAX_CLIENTS]| {
            let age = |slot: &Option<ControlClient>| slot.as_ref().map(|client| client.last_step);
            (0..MAX_CLIENTS).min_by_key(|&n| clients.get(n).and_then(age))
        };
        let next = || self.listener.accept().map(|(stream, _)| stream);
        self.clients.accept(registry, next, oldest, |stream| {
            self.steps += 1;
            ControlClient {
                stream,
                received: Vec::new(),
                answer: Vec::new(),
                written: 0,
                ready: true,
                ended: false,
                last_step: self.steps,
            }
        });
    }
}

impl ControlClient {
    /// Whether the client does not read its replies.
    const fn is_stuck(&self) -> bool {
        self.answer.len() - self.written >= MAX_UNREAD_BYTES
    }

    /// Writes, reads and executes at most one command. An error closes the client.
    fn advance(
        &mut self,
        execute: &mut impl FnMut(&str) -> Result<String, String>,
    ) -> io::Result<()> {
        let writable = self.write()?;
        if !self.is_stuck() {
            let readable = self.read()?;
            let executed = self.execute(execute);
            self.ready = readable || executed;
        } else {
            self.ready = writable;
        }
        self.write()?;
        let done = self.ended && !self.ready && self.written == self.answer.len();
        if done {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Reads until a line is complete; false if it would block.
    fn read(&mut self) -> io::Result<bool> {
        let mut chunk = [0; MAX_LINE_BYTES];
        while !self.ended && !self.received.contains(&b'\n') {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    self.ended = true;
                    // The last line may lack its newline.
                    if !self.received.is_empty() {
                        self.received.push(b'\n');
                    }
                }
                Ok(len) => self
                    .received
                    .extend_from_slice(chunk.get(..len).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.received.len() > MAX_LINE_BYTES && !self.received.contains(&b'\n') {
                break;
            }
        }
        Ok(!self.ended)
    }

    /// Executes one command; true if there was one.
    fn execute(&mut self, execute: &mut impl FnMut(&str) -> Result<String, String>) -> bool {
        let end = self.received.iter().position(|byte| *byte == b'\n');
        let end = end.unwrap_or(self.received.len());
        if end > MAX_LINE_BYTES {
            self.received.clear();
            self.ended = true;
            let text = format!("{ERROR}command longer than {MAX_LINE_BYTES} bytes\n");
            self.answer.extend_from_slice(text.as_bytes());
            return false;
        }
        if end == self.received.len() {
            return false;
        }
        let line: Vec<u8> = self.received.drain(..=end).collect();
        let answer = match std::str::from_utf8(&line) {
            Ok(line) => execute(line.trim()),
            Err(_) => Err("command is not UTF-8".to_owned()),
        };
        let answer = match answer {
            Ok(text) if text.is_empty() => format!("{OK}\n"),
            Ok(text) => format!("{}\n{OK}\n", text.trim_end()),
            Err(why) => format!("{ERROR}{why}\n"),
        };
        self.answer.extend_from_slice(answer.as_bytes());
        true
    }

    /// Writes replies; false if the client must read first.
    fn write(&mut self) -> io::Result<bool> {
        while let Some(rest) = self
            .answer
            .get(self.written..)
            .filter(|rest| !rest.is_empty())
        {
            match self.stream.write(rest) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.answer.clear();
        self.written = 0;
        Ok(true)
    }
}
