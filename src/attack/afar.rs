//! Attacks from afar: a client that received at an address once has left it, and sends on in its name, towards its
//! present holder.
//!
//! In: an MTU and the time since the attacker left. Out: the bytes of IP packets that the holder is sent for each
//! byte that comes in its name. The attacker is one that keeps everything it got, and cannot see the answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::path::{Endless, clocks, ring};
use super::{Effort, Finding};
use crate::time::{Instant, Now};
use crate::transport::epoch::{Declaration, Epoch, TransitionKind};
use crate::transport::server::{Server, ServerConfig};
use crate::wire::flight::UdpPath;
use crate::wire::segment::{Declared, Open, Request, Response, Span, ToClient, Token, Wanted};

const MTUS: [u16; 3] = [1500, 9000, 65_535];

/// IP and UDP headers.
const HEADERS: usize = 28;

/// Times since the attacker left.
const LEFT: [(&str, Duration); 2] = [
    ("10 s", Duration::from_secs(10)),
    ("14 min", Duration::from_secs(14 * 60)),
];

/// Connections, or tokens, of a flood.
const MANY: u16 = 100;

/// Time between two requests of a connection in a flood.
const PAUSE: Duration = Duration::from_millis(100);

/// One restart of one connection.
#[must_use]
pub fn restart(_: &Effort) -> Vec<Finding> {
    over_cases(|server, mtu, left| {
        let seat = Seat::take(server, 0, mtu);
        let restart = seat.give_up(TransitionKind::Move);
        drawn(server, left, seat.path, &restart)
    })
}

/// One timeout of one connection.
#[must_use]
pub fn timeout(_: &Effort) -> Vec<Finding> {
    over_cases(|server, mtu, left| {
        let seat = Seat::take(server, 0, mtu);
        let timeout = seat.give_up(TransitionKind::Timeout);
        drawn(server, left, seat.path, &timeout)
    })
}

/// Address tokens of many connections, shown at once.
#[must_use]
pub fn tokens(_: &Effort) -> Vec<Finding> {
    over_cases(|server, mtu, left| {
        let seats: Vec<Seat> = (0..MANY).map(|n| Seat::take(server, n, mtu)).collect();
        let shown = seats
            .iter()
            .map(|seat| drawn(server, left, seat.path, &seat.open()));
        shown.fold((0, 0), add)
    })
}

/// Timeouts of many connections, at the rate of their buckets, for some seconds.
#[must_use]
pub fn idle_connections(effort: &Effort) -> Vec<Finding> {
    let turns = effort.seconds.min(10) * 10;
    over_cases(|server, mtu, left| {
        let seats: Vec<Seat> = (0..MANY).map(|n| Seat::take(server, n, mtu)).collect();
        let mut sum = (0, 0);
        for turn in 0..turns {
            let at = left + PAUSE * turn;
            for seat in &seats {
                let timeout = seat.give_up(TransitionKind::Timeout);
                sum = add(sum, drawn(server, at, seat.path, &timeout));
            }
        }
        sum
    })
}

fn add(a: (usize, usize), b: (usize, usize)) -> (usize, usize) {
    (a.0 + b.0, a.1 + b.1)
}

/// Plays an attack, which returns the bytes that it sends and those that it draws, over all MTUs and times.
fn over_cases(play: impl Fn(&mut Server, u16, Duration) -> (usize, usize)) -> Vec<Finding> {
    let cases = MTUS
        .into_iter()
        .flat_map(|mtu| LEFT.map(|left| (mtu, left)));
    let finding = |(mtu, (name, left))| {
        let config = ServerConfig {
            server_id: 1,
            site_id: 1,
            mtu,
        };
        let (sent, answered) = play(&mut Server::new(config, ring()), mtu, left);
        Finding {
            case: format!("MTU {mtu}, {name} after"),
            gain: ratio(answered, sent),
            unit: "bytes a byte",
        }
    };
    cases.map(finding).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn ratio(answered: usize, sent: usize) -> f64 {
    answered as f64 / sent.max(1) as f64
}

/// Sends a datagram in the name of the address that was left; returns the bytes of its packet and of those that it
/// draws.
fn drawn(server: &mut Server, left: Duration, path: UdpPath, datagram: &[u8]) -> (usize, usize) {
    let now = clocks(Instant::ZERO + left);
    let answer = server.respond(now, path, datagram, &mut Endless);
    let datagrams = answer.iter().flat_map(|flight| flight.datagrams());
    let answered = datagrams.map(|datagram| datagram.len() + HEADERS).sum();
    (datagram.len() + HEADERS, answered)
}

/// A connection that the attacker opened while it received at the address.
struct Seat {
    path: UdpPath,
    size: u16,
    connection: u64,
    continuation: Vec<u8>,
    epoch: Epoch,
    user: Vec<u8>,
}

impl Seat {
    /// Opens a connection and proves the address, at the start of the clock.
    fn take(server: &mut Server, number: u16, mtu: u16) -> Self {
        let victim = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let service = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
        let mut seat = Self {
            path: UdpPath {
                src: SocketAddr::new(victim, 10_000 + number),
                dst: SocketAddr::new(service, 7600),
            },
            size: mtu - 28,
            connection: 0,
            continuation: Vec::new(),
            epoch: Epoch::opening(1),
            user: Vec::new(),
        };
        let now = clocks(Instant::ZERO);
        let (mut count, mut proof) = (0, 0);
        seat.ask(server, now, &seat.open(), |seat, response| {
            count += 1;
            proof ^= response.header.x;
            seat.connection = response.header.connection;
            if let Some(user) = response.user {
                seat.user = user.sealed.to_vec();
            }
        });
        seat.epoch = Epoch::opening(count);
        let declaration = Declaration::new(TransitionKind::Opened, 0, 10_000);
        let Ok(opened) = seat.epoch.transition(declaration) else {
            return seat;
        };
        let request = Request {
            proof,
            upto: opened.r,
            reach: opened.r,
            ..seat.declaring(declaration)
        };
        let mut datagram = Vec::new();
        request.emit(&mut datagram);
        seat.ask(server, now, &datagram, |_, _| {});
        seat.epoch = opened.next;
        seat
    }

    /// Sends a datagram while answers can be seen; keeps their continuation.
    fn ask(
        &mut self,
        server: &mut Server,
        now: Now,
        datagram: &[u8],
        mut learn: impl FnMut(&mut Self, &Response<'_>),
    ) {
        let answer = server.respond(now, self.path, datagram, &mut Endless);
        for part in answer.iter().flat_map(|flight| flight.datagrams()) {
            if let Ok(ToClient::Response(response)) = ToClient::parse(&part) {
                if !response.continuation.is_empty() {
                    self.continuation = response.continuation.to_vec();
                }
                learn(self, &response);
            }
        }
    }

    /// An OPEN that shows the newest continuation as a token, if there is one.
    fn open(&self) -> Vec<u8> {
        let mut datagram = Vec::new();
        Open {
            echo: 1,
            size: self.size,
            stream: 1,
            token: (!self.continuation.is_empty()).then_some(Token {
                connection: self.connection,
                sealed: &self.continuation,
            }),
            wanted: Wanted::New(b"object"),
            offset: 0,
        }
        .emit(&mut datagram);
        datagram
    }

    /// A timeout or restart at the base of the epoch, where nothing is to be proven.
    fn give_up(&self, kind: TransitionKind) -> Vec<u8> {
        let (base, c) = (self.epoch.base, u64::from(self.epoch.c));
        let mut datagram = Vec::new();
        Request {
            after: base,
            upto: base + c,
            reach: base + c,
            ..self.declaring(Declaration::new(kind, base, 10_000))
        }
        .emit(&mut datagram);
        datagram
    }

    fn declaring(&self, declaration: Declaration) -> Request<'_> {
        Request {
            wants_continuation: true,
            continuation: &self.continuation,
            declared: Some(Declared {
                kind: declaration.kind.code(),
                edge: declaration.p,
                rtt_us: declaration.rtt_us,
            }),
            ranges: vec![Span {
                start: 0,
                end: 1 << 40,
            }],
            wanted: Wanted::Of(&self.user),
            ..Request::empty(self.connection, self.size, 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Play = fn(&Effort) -> Vec<Finding>;

    #[test]
    fn an_address_that_was_left_is_sent_three_times_what_comes_in_its_name() {
        let effort = Effort {
            seed: 1,
            seconds: 3,
            runs: 1,
            rounds: 0,
        };
        let attacks: [(&str, Play); 4] = [
            ("restart", restart),
            ("timeout", timeout),
            ("tokens", tokens),
            ("idle connections", idle_connections),
        ];
        for (name, play) in attacks {
            let findings = play(&effort);
            assert_eq!(findings.len(), MTUS.len() * LEFT.len());
            for finding in findings {
                let late = finding.case.ends_with("14 min after");
                assert!(finding.gain > 0.5, "{name}: {finding:?}");
                assert!(!late || finding.gain <= 3.0, "{name}: {finding:?}");
            }
        }
    }
}
