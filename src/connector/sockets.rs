//! A race over sockets of the kernel.
//!
//! In: addresses, and the time by which one must be connected. Out: the stream of the winner. Sleeps until a socket has an
//! event or the next attempt is due. A socket that failed is closed at once, and so leaves epoll; a loser is closed with a
//! reset, so that its peer accepts nothing that stays and no TIME-WAIT is left. At most [`MAX_ATTEMPTS`] sockets are open.
//! Sources: connect(2) on `EINPROGRESS`, epoll(7), socket(7) on `SO_LINGER`.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt::set_socket_linger;

use super::FailedAttempt;
use crate::connect::{MAX_ATTEMPTS, Pace, Race, RaceStep};
use crate::device::binding::SocketBinding;
use crate::runtime::OsClock;
use crate::runtime::streams::connected;
use crate::time::Instant;

/// The end of a race.
pub(super) enum Outcome {
    Connected(TcpStream),
    Failed(Vec<FailedAttempt>),
    TimedOut(Vec<FailedAttempt>),
}

/// An attempt that was started.
struct Attempt {
    since: Instant,
    /// Its socket, unless it failed.
    socket: Result<Socket, (Duration, io::Error)>,
}

/// The socket of an attempt, which is reset when it is dropped.
struct Socket(Option<mio::net::TcpStream>);

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            let _ = set_socket_linger(stream, Some(Duration::ZERO));
        }
    }
}

/// Races for a connection to one of `addresses`, the best first, from the own address that `source` returns.
pub(super) fn race(
    clock: OsClock,
    by: Instant,
    pace: Pace,
    addresses: &[SocketAddr],
    source: impl Fn(SocketAddr) -> Option<IpAddr>,
) -> io::Result<Outcome> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(MAX_ATTEMPTS);
    let mut race = Race::new(pace, addresses.len());
    let mut attempts: Vec<Attempt> = Vec::new();
    loop {
        let now = clock.instant();
        while let Some(step) = race.poll(now) {
            match step {
                RaceStep::Start(index) => {
                    let Some(&address) = addresses.get(index) else {
                        continue;
                    };
                    let opened = open(&poll, Token(index), address, source(address));
                    if opened.is_err() {
                        race.handle_failure(now, index);
                    }
                    let socket = opened.map_err(|error| (Duration::ZERO, error));
                    attempts.push(Attempt { since: now, socket });
                }
                RaceStep::Won(index) => return win(&poll, attempts, index),
                RaceStep::Exhausted => {
                    return Ok(Outcome::Failed(failed(now, addresses, attempts)));
                }
            }
        }
        if now >= by {
            return Ok(Outcome::TimedOut(failed(now, addresses, attempts)));
        }
        let until = race.poll_timeout().map_or(by, |at| at.min(by));
        match poll.poll(&mut events, Some(until.saturating_since(now))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        let now = clock.instant();
        for event in &events {
            let index = event.token().0;
            let Some(attempt) = attempts.get_mut(index) else {
                continue;
            };
            match attempt.settle(now) {
                Some(true) => race.handle_answer(now, index),
                Some(false) => race.handle_failure(now, index),
                None => {}
            }
        }
    }
}

impl Attempt {
    /// Whether an event of its socket means that it is connected, or that it has failed, which closes it.
    fn settle(&mut self, now: Instant) -> Option<bool> {
        let Ok(Socket(Some(stream))) = &self.socket else {
            return None;
        };
        match connected(stream)? {
            Ok(()) => Some(true),
            Err(error) => {
                self.socket = Err((now.saturating_since(self.since), error));
                Some(false)
            }
        }
    }
}

/// Begins to connect.
fn open(
    poll: &Poll,
    token: Token,
    address: SocketAddr,
    source: Option<IpAddr>,
) -> io::Result<Socket> {
    let binding = SocketBinding::of_address(source);
    let mut stream = mio::net::TcpStream::from_std(binding.tcp_to(address)?);
    poll.registry()
        .register(&mut stream, token, Interest::WRITABLE)?;
    Ok(Socket(Some(stream)))
}

/// Returns the stream of the winner, and ends the others.
fn win(poll: &Poll, mut attempts: Vec<Attempt>, index: usize) -> io::Result<Outcome> {
    let winner = attempts.get_mut(index).map(|attempt| &mut attempt.socket);
    let Some(Ok(Socket(stream))) = winner else {
        return Err(io::Error::other("the winner of a race has no socket"));
    };
    let Some(mut stream) = stream.take() else {
        return Err(io::Error::other("the winner of a race has no socket"));
    };
    poll.registry().deregister(&mut stream)?;
    let stream = TcpStream::from(stream);
    stream.set_nonblocking(false)?;
    Ok(Outcome::Connected(stream))
}

fn failed(now: Instant, addresses: &[SocketAddr], attempts: Vec<Attempt>) -> Vec<FailedAttempt> {
    let attempts = addresses.iter().zip(attempts);
    let attempts = attempts.map(|(&address, attempt)| {
        let (after, error) = match attempt.socket {
            Ok(_) => (now.saturating_since(attempt.since), None),
            Err((after, error)) => (after, Some(error)),
        };
        FailedAttempt {
            address,
            after,
            error,
        }
    });
    attempts.collect()
}
