//! Connecting for other programs: a blocking connector over the kernel's TCP, and an HTTP connection made of it.
//!
//! In: a host and a port. Out: a connected [`TcpStream`] of the standard library, from a race of attempts to all addresses
//! of the host; or every attempt with its failure. Blocks its caller, and nothing else: a connector may be shared by
//! threads. One deadline covers the look-up and the race.
//! Source: the algorithm of connie (2012), with the order and the pace of RFC 8305.

mod http;
mod names;
mod sockets;

use core::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::connect::{Pace, interleaved};
use crate::runtime::OsClock;
use crate::time::Instant;

pub use http::{HttpConnection, HttpError, HttpResponse};

use names::{MAX_PENDING_NAMES, Names, NamesError};
use sockets::Outcome;

/// Default time limit of a connect, as of curl's `--connect-timeout` in scripts; curl's own default is 300 s.
pub const DEFAULT_CONNECTOR_TIMEOUT: Duration = Duration::from_secs(60);

/// Default time for which the addresses of a name are kept.
pub const DEFAULT_NAME_TTL: Duration = Duration::from_secs(60);

/// Connects to services that have several addresses; see [`builder`](Self::builder).
///
/// ```no_run
/// use std::time::Duration;
///
/// let connector = headwater::Connector::builder().timeout(Duration::from_secs(5)).build();
/// let stream = connector.connect("www.example.com:80")?;
/// println!("connected to {}", stream.peer_addr()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connector {
    /// Own addresses, at most one of each family; any if there are none.
    sources: Vec<IpAddr>,
    timeout: Duration,
    pace: Pace,
    names: Names,
    clock: OsClock,
}

impl Default for Connector {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl Connector {
    /// Starts a connector with the defaults: from any own address, within [`DEFAULT_CONNECTOR_TIMEOUT`], 10 ms between two
    /// attempts, names kept for [`DEFAULT_NAME_TTL`].
    #[must_use = "a builder does nothing before `build`"]
    pub fn builder() -> ConnectorBuilder {
        ConnectorBuilder {
            sources: Vec::new(),
            timeout: DEFAULT_CONNECTOR_TIMEOUT,
            pace: Pace::default(),
            ttl: DEFAULT_NAME_TTL,
        }
    }

    /// Connects to `host:port`; the host is a name or an IP address, one of IPv6 in brackets. Returns a blocking stream.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(&self, service: &str) -> Result<TcpStream, ConnectError> {
        let parsed = service.rsplit_once(':').and_then(|(host, port)| {
            let port = port.parse().ok().filter(|port| *port > 0)?;
            let bare = !host.is_empty() && (host.starts_with('[') || !host.contains(':'));
            bare.then_some((host, port))
        });
        let (host, port) = parsed.ok_or_else(|| ConnectError::Service {
            service: service.to_owned(),
        })?;
        self.connect_to(host, port)
    }

    /// Connects to a port of a host; see [`connect`](Self::connect).
    ///
    /// # Errors
    /// [`ConnectError`], except [`ConnectError::Service`].
    pub fn connect_to(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let by = self.clock.instant() + self.timeout;
        let known = self.names.resolve(self.clock, by, host)?;
        let of_source =
            |address: &IpAddr| self.sources.is_empty() || self.source(*address).is_some();
        let known: Vec<IpAddr> = known.into_iter().filter(of_source).collect();
        if known.is_empty() {
            let host = host.to_owned();
            return Err(ConnectError::Family { host });
        }
        let addresses = interleaved(&known).into_iter();
        let addresses: Vec<SocketAddr> = addresses.map(|ip| SocketAddr::new(ip, port)).collect();
        self.race(by, &addresses)
    }

    fn race(&self, by: Instant, addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
        let source = |address: SocketAddr| self.source(address.ip());
        match sockets::race(self.clock, by, self.pace, addresses, source)? {
            Outcome::Connected(stream) => Ok(stream),
            Outcome::Failed(attempts) => Err(ConnectError::Failed(FailedAttempts(attempts))),
            Outcome::TimedOut(attempts) => Err(ConnectError::TimedOut(FailedAttempts(attempts))),
        }
    }

    /// The own address that is set for connections to `remote`.
    fn source(&self, remote: IpAddr) -> Option<IpAddr> {
        let mut sources = self.sources.iter().copied();
        sources.find(|source| source.is_ipv4() == remote.is_ipv4())
    }
}

/// Builds a [`Connector`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct ConnectorBuilder {
    sources: Vec<IpAddr>,
    timeout: Duration,
    pace: Pace,
    ttl: Duration,
}

impl ConnectorBuilder {
    /// Sets the own address of a family; call it twice for both. Addresses of a family without one are then left out.
    /// Default: the kernel chooses.
    pub fn source(mut self, source: IpAddr) -> Self {
        self.sources
            .retain(|other| other.is_ipv4() != source.is_ipv4());
        self.sources.push(source);
        self
    }

    /// Sets the time limit of a connect, the look-up of the name included. Default: [`DEFAULT_CONNECTOR_TIMEOUT`].
    pub const fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Sets the delay between two attempts. Default: [`Pace::Paced`], 10 ms.
    pub const fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Sets the time for which the addresses of a name are kept; zero keeps none. Default: [`DEFAULT_NAME_TTL`].
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Creates the connector. Opens no socket.
    #[must_use]
    pub fn build(self) -> Connector {
        Connector {
            sources: self.sources,
            timeout: self.timeout,
            pace: self.pace,
            names: Names::new(self.ttl),
            clock: OsClock::new(),
        }
    }
}

/// Why a connector did not connect.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Text that is not `host:port`. The caller is at fault.
    #[error("'{service}' is not a service: use host:port, with IPv6 addresses in brackets")]
    Service {
        /// The text.
        service: String,
    },
    /// The name has no address, or its look-up failed.
    #[error("could not resolve host {host}: check its spelling and /etc/resolv.conf")]
    Resolve {
        /// The host.
        host: String,
    },
    /// More look-ups than 16 are waiting for their answers.
    #[error("more than {MAX_PENDING_NAMES} look-ups are waiting: try {host} again later")]
    TooManyNames {
        /// The host.
        host: String,
    },
    /// No address of the host is of the family of a source address.
    #[error(
        "no address of {host} is of the family of a source address: set one of the other family"
    )]
    Family {
        /// The host.
        host: String,
    },
    /// All attempts failed.
    #[error("failed to connect{0}")]
    Failed(FailedAttempts),
    /// The time limit passed.
    #[error("connection timed out{0}")]
    TimedOut(FailedAttempts),
    /// The operating system has no descriptors or threads left.
    #[error("cannot connect: {0}")]
    Os(#[from] io::Error),
}

impl From<NamesError> for ConnectError {
    fn from(error: NamesError) -> Self {
        match error {
            NamesError::Unknown { host } => Self::Resolve { host },
            NamesError::TooMany { host } => Self::TooManyNames { host },
            NamesError::TimedOut => Self::TimedOut(FailedAttempts(Vec::new())),
            NamesError::Os(error) => Self::Os(error),
        }
    }
}

impl From<ConnectError> for io::Error {
    /// Keeps the kind of the first failure, as the standard library's connect does.
    fn from(error: ConnectError) -> Self {
        let kind = match &error {
            ConnectError::Service { .. } => io::ErrorKind::InvalidInput,
            ConnectError::Resolve { .. } | ConnectError::Family { .. } => io::ErrorKind::NotFound,
            ConnectError::TooManyNames { .. } => io::ErrorKind::WouldBlock,
            ConnectError::Failed(FailedAttempts(attempts)) => {
                let mut errors = attempts.iter().filter_map(|one| one.error.as_ref());
                errors
                    .next()
                    .map_or(io::ErrorKind::ConnectionRefused, Self::kind)
            }
            ConnectError::TimedOut(_) => io::ErrorKind::TimedOut,
            ConnectError::Os(error) => error.kind(),
        };
        Self::new(kind, error)
    }
}

/// The attempts of a connect that did not come about, in the order of the addresses.
#[derive(Debug, Default)]
pub struct FailedAttempts(pub Vec<FailedAttempt>);

/// An attempt to connect to an address.
#[derive(Debug)]
pub struct FailedAttempt {
    /// The address.
    pub address: SocketAddr,
    /// The time from its start to its failure, or to the end of the race.
    pub after: Duration,
    /// Its failure; `None` if no answer arrived.
    pub error: Option<io::Error>,
}

impl fmt::Display for FailedAttempts {
    /// Writes ` (ADDRESS: ERROR after TIME, ADDRESS: no answer)`; nothing without attempts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(attempts) = self;
        for (index, attempt) in attempts.iter().enumerate() {
            f.write_str(if index == 0 { " (" } else { ", " })?;
            match &attempt.error {
                Some(error) => write!(
                    f,
                    "{}: {error} after {:.1?}",
                    attempt.address, attempt.after
                )?,
                None => write!(f, "{}: no answer", attempt.address)?,
            }
        }
        f.write_str(if attempts.is_empty() { "" } else { ")" })
    }
}

#[cfg(test)]
mod tests;
