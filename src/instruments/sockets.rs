//! Short connections over the kernel's TCP: each opens, requests one object, and closes when the
//! object is complete. The counterpart of `instruments::load::requests` over our own stack, with the
//! same rules.
//!
//! In: a plan and an HTTP server's address. Out: a [`RequestReport`]. Sockets are non-blocking, in
//! one thread.
//! Sources: tcp(7), socket(7) on `SO_LINGER`, epoll(7) on edge-triggered mode.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt::{set_socket_linger, set_tcp_nodelay};

use crate::instruments::load::course::{Answer, Course};
use crate::instruments::load::report::RequestReport;
use crate::instruments::load::schedule::{MAX_UNDER_WAY, Plan};
use crate::runtime::signals::{Signal, Signals};
use crate::runtime::timer::Timer;
use crate::runtime::{MAX_EVENTS, OsClock};
use crate::time::{Instant, Now};

/// Bytes read from a socket at a time.
const STAGE_BYTES: usize = 256 * 1024;

const TIMER: Token = Token(0);
const SIGNALS: Token = Token(1);
const FIRST_SOCKET: usize = 2;

/// How to close a connection whose object is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Reset: leaves no state at either end.
    Reset,
    /// Orderly: the client keeps it in TIME-WAIT.
    Finish,
}

/// The server, the request and the plan.
#[derive(Clone, Debug)]
pub struct SocketConfig {
    /// The HTTP server.
    pub remote: SocketAddr,
    /// The head of the request.
    pub head: Vec<u8>,
    /// How to close connections.
    pub close: Close,
    /// The times of requests.
    pub plan: Plan,
    /// Seed of the start times.
    pub seed: u64,
}

/// A request in progress.
struct Running {
    meant: Instant,
    stream: TcpStream,
    /// Bytes of the head sent so far.
    sent: usize,
    answer: Answer,
}

/// Requests over sockets of the kernel.
pub struct Sockets {
    config: SocketConfig,
    clock: OsClock,
    poll: Poll,
    timer: Timer,
    signals: Signals,
    course: Course,
    running: Vec<Option<Running>>,
    free: Vec<usize>,
    stage: Vec<u8>,
}

impl Sockets {
    /// Prepares requests that start with [`run`](Self::run); the plan's time counts from now. Catches
    /// SIGINT and SIGTERM from now on.
    ///
    /// # Errors
    /// If the operating system has no descriptors left.
    pub fn new(clock: OsClock, config: SocketConfig) -> io::Result<Self> {
        let (poll, timer, mut signals) = (Poll::new()?, Timer::new()?, Signals::new()?);
        let registry = poll.registry();
        registry.register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        registry.register(signals.source(), SIGNALS, Interest::READABLE)?;
        let now = clock.now().instant;
        Ok(Self {
            course: Course::new(now, config.plan, MAX_UNDER_WAY, config.seed),
            config,
            clock,
            poll,
            timer,
            signals,
            running: Vec::new(),
            free: Vec::new(),
            stage: vec![0; STAGE_BYTES],
        })
    }

    /// The measured interval.
    #[must_use]
    pub const fn window(&self) -> (Instant, Instant) {
        self.course.window()
    }

    /// Sends requests until the plan is complete or a signal arrives. Calls `turn` once per turn, and
    /// soon after the start and the end of the measured interval.
    ///
    /// # Errors
    /// The operating system's error in polling for events.
    pub fn run(mut self, mut turn: impl FnMut(Now)) -> io::Result<(RequestReport, Option<Signal>)> {
        let mut events = Events::with_capacity(MAX_EVENTS);
        loop {
            for event in &events {
                match event.token() {
                    TIMER => {}
                    SIGNALS => self.signals.drain(),
                    Token(token) => self.advance(token, event),
                }
            }
            let now = self.clock.now();
            turn(now);
            let signal = self.signals.take();
            if signal.is_some() || self.course.is_over(now.instant) {
                return Ok((self.course.finish(now.instant), signal));
            }
            self.begin(now.instant);
            self.wait(&mut events)?;
        }
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let now = self.clock.now().instant;
        let (from, until) = self.course.window();
        let edges = [from, until].into_iter().filter(|at| *at > now);
        let next = self.course.next_at(now).into_iter().chain(edges).min();
        let pause = next.map_or(Duration::ZERO, |at| at.saturating_since(now));
        let timeout = self.timer.arm(pause)?;
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Starts due requests; after a failure the others wait for the next turn.
    fn begin(&mut self, now: Instant) {
        while let Some(meant) = self.course.take(now) {
            let number = self.free.pop().unwrap_or(self.running.len());
            if number == self.running.len() {
                self.running.push(None);
            }
            let connected = self.connect(Token(FIRST_SOCKET + number));
            let answer = Answer::default();
            let (Ok(stream), Some(slot)) = (connected, self.running.get_mut(number)) else {
                self.free.push(number);
                self.course.end(now, meant, Err("not_connected"));
                return;
            };
            *slot = Some(Running {
                meant,
                stream,
                sent: 0,
                answer,
            });
        }
    }

    fn connect(&self, token: Token) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.config.remote)?;
        set_tcp_nodelay(&stream, true)?;
        if self.config.close == Close::Reset {
            set_socket_linger(&stream, Some(Duration::ZERO))?;
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, token, interest)?;
        Ok(stream)
    }

    fn advance(&mut self, token: usize, event: &Event) {
        let number = token.wrapping_sub(FIRST_SOCKET);
        let Some(slot) = self.running.get_mut(number) else {
            return;
        };
        let Some(running) = slot else { return };
        let head = &self.config.head;
        let Some(ended) = running.advance(head, &mut self.stage, event.is_writable()) else {
            return;
        };
        let ended = ended.map(|()| running.answer.seen());
        // A whole download may take place within this event.
        let now = self.clock.now().instant;
        self.course.end(now, running.meant, ended);
        *slot = None;
        self.free.push(number);
    }
}

impl Running {
    /// Writes and reads without blocking; returns the outcome if it has ended.
    fn advance(
        &mut self,
        head: &[u8],
        stage: &mut [u8],
        writable: bool,
    ) -> Option<Result<(), &'static str>> {
        let rest = head.get(self.sent..).unwrap_or_default();
        if !rest.is_empty() {
            if !writable {
                return None;
            }
            match self.stream.write(rest) {
                Ok(count) => self.sent += count,
                Err(error) if is_for_later(&error) => {}
                Err(_) => return Some(Err("not_connected")),
            }
            // Another event reports the response.
            return None;
        }
        loop {
            match self.stream.read(stage) {
                Ok(0) => return Some(self.answer.closed()),
                Ok(count) => match self.answer.take(stage.get(..count).unwrap_or_default()) {
                    Ok(true) => return Some(Ok(())),
                    Ok(false) => {}
                    Err(why) => return Some(Err(why)),
                },
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_for_later(&error) => return None,
                Err(_) => return Some(Err("reset")),
            }
        }
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::num::NonZeroU32;
    use std::thread;

    use super::*;
    use crate::instruments::load::schedule::Pace;

    /// Serves this many connections and closes each immediately; `None` resets by not reading.
    fn server(answer: &'static [u8], connections: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().take(connections) {
                let mut stream = stream.unwrap();
                let mut head = [0; 1024];
                let _ = stream.read(&mut head);
                let _ = stream.write_all(answer);
            }
        });
        address
    }

    fn run(remote: SocketAddr, close: Close, most: u64) -> RequestReport {
        let config = SocketConfig {
            remote,
            head: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            close,
            plan: Plan {
                pace: Pace::Closed(NonZeroU32::new(4).unwrap()),
                warm_up: Duration::ZERO,
                window: Duration::from_secs(20),
                most,
            },
            seed: 1,
        };
        let sockets = Sockets::new(OsClock::new(), config).unwrap();
        let mut turns = 0;
        let (report, signal) = sockets.run(|_| turns += 1).unwrap();
        assert!(turns > 0 && signal.is_none());
        report
    }

    #[test]
    fn objects_are_fetched_on_connections_of_their_own() {
        const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for close in [Close::Reset, Close::Finish] {
            let report = run(server(OK, 50), close, 50);
            assert_eq!((report.completed, report.body_bytes), (50, 250));
            assert_eq!(report.statuses, [(200, 50)].into());
            assert_eq!(report.latency.count, 50);
        }
    }

    #[test]
    fn failures_have_names() {
        let short = server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", 1);
        let other = server(b"220 ready\r\n\r\n", 1);
        let nobody = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        for (remote, want) in [
            (short, "closed_early"),
            (other, "not_http"),
            (nobody, "not_connected"),
        ] {
            let report = run(remote, Close::Reset, 1);
            assert_eq!(report.failed, [(want, 1)].into());
        }
    }
}
