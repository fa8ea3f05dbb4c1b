//! Failures of a transfer, with messages that say what to do.
//!
//! Values only; `cli` maps the variants to exit codes.

use core::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::apps::fetch::MAX_REDIRECTS;
use crate::apps::fetch::output::OutputError;
use crate::apps::fetch::target::TargetError;
use crate::connect::resolve::ResolveError;
use crate::http::headers::FieldError;
use crate::http::reader::ReadError;

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferFailure {
    /// The `Location` of a redirect cannot be fetched.
    #[error("redirect to a URL that cannot be fetched: {0}")]
    Location(TargetError),
    /// More than [`MAX_REDIRECTS`].
    #[error("more than {MAX_REDIRECTS} redirects")]
    TooManyRedirects,
    /// The request is longer than the transport supports; `have` and `limit` in bytes.
    #[error("the request has {have} bytes, more than {limit}: shorten the URL or the headers")]
    RequestTooLong {
        /// Bytes of the request head.
        have: usize,
        /// Most bytes of a request.
        limit: usize,
    },
    /// The request is not valid HTTP.
    #[error("invalid request: {0}")]
    Request(#[from] FieldError),
    /// An error status, with `fail`.
    #[error("the server responded with status {0}")]
    Status(u16),
    /// The server ignored the range of a resumed download.
    #[error("the server does not support ranges: start over without -C")]
    RangeNotSupported,
    /// The output is longer than the object; both in bytes.
    #[error("the file holds {have} bytes but the object has {size}: remove it and start over")]
    BadResume {
        /// Bytes held.
        have: u64,
        /// Bytes of the object.
        size: u64,
    },
    /// The stream ended before any byte.
    #[error("empty reply from server")]
    EmptyReply,
    /// The stream ended early; bytes of the body, and the announced length if known.
    #[error("transfer closed after {have} bytes with bytes remaining to read: resume with -C -")]
    Partial {
        /// Bytes of the body so far.
        have: u64,
        /// Length announced.
        want: Option<u64>,
    },
    /// The response is not HTTP.
    #[error("weird server reply, not HTTP/1.1: {0}")]
    WeirdReply(ReadError),
    /// The object changed more than [`MAX_RESTARTS`](super::MAX_RESTARTS) times, or its output cannot be rewound.
    #[error("the object kept changing during the transfer: start over")]
    Changed,
    /// The digest differs.
    #[error("the body does not match the server's digest: start over")]
    DigestMismatch,
    /// The output failed.
    #[error(transparent)]
    Output(OutputError),
    /// Failed to connect.
    #[error(
        "failed to connect to the server{attempts}: check the address, the routes and that it runs"
    )]
    CannotConnect {
        /// The attempts.
        attempts: Attempts,
    },
    /// Failed to connect in time.
    #[error(
        "connection timed out{attempts}: check the address, the routes and that the server runs"
    )]
    ConnectTimedOut {
        /// The attempts.
        attempts: Attempts,
    },
    /// A time limit was reached.
    #[error("operation timed out: resume with -C -")]
    TimedOut,
    /// The connection was reset.
    #[error("connection reset after {have} bytes: resume with -C -")]
    Broken {
        /// Bytes of the body so far.
        have: u64,
    },
    /// The host of a URL could not be resolved.
    #[error("could not resolve host {host} ({reason}): check its spelling, or use an IP address")]
    CannotResolve {
        /// The host.
        host: String,
        /// The reason.
        reason: ResolveError,
    },
    /// No address of the host was known in time.
    #[error("resolving {host} timed out: check the DNS servers, or use an IP address")]
    ResolveTimedOut {
        /// The host.
        host: String,
    },
    /// The zone of an address is not an interface.
    #[error(
        "no interface {zone}: choose that of the link in the URL; over a TUN device addresses have no zone"
    )]
    Zone {
        /// The zone.
        zone: String,
    },
    /// No own address is of the family of the server's.
    #[error("no own address of the family of {host}: add one with --address")]
    Family {
        /// The host.
        host: String,
    },
}

/// The attempts to connect to the addresses of a service, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts(pub Vec<Attempt>);

/// An attempt to connect that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Address and port of the server.
    pub address: SocketAddr,
    /// The time from its start to its failure; `None` if nothing came.
    pub failed_after: Option<Duration>,
}

impl fmt::Display for Attempts {
    /// Writes ` (ADDRESS failed after TIME, ADDRESS: no answer)`; nothing without attempts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(attempts) = self;
        for (index, attempt) in attempts.iter().enumerate() {
            f.write_str(if index == 0 { " (" } else { ", " })?;
            match attempt.failed_after {
                Some(after) => write!(f, "{} failed after {after:.1?}", attempt.address)?,
                None => write!(f, "{}: no answer", attempt.address)?,
            }
        }
        match attempts.is_empty() {
            true => Ok(()),
            false => f.write_str(")"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_is_listed() {
        let attempt = |n, failed_after| Attempt {
            address: SocketAddr::from(([192, 0, 2, n], 80)),
            failed_after,
        };
        let attempts = vec![
            attempt(1, Some(Duration::from_micros(12_345))),
            attempt(2, None),
        ];
        let attempts = Attempts(attempts);
        let failure = TransferFailure::CannotConnect { attempts };
        assert_eq!(
            failure.to_string(),
            "failed to connect to the server (192.0.2.1:80 failed after 12.3ms, 192.0.2.2:80: no answer): \
             check the address, the routes and that it runs"
        );
        assert_eq!(Attempts::default().to_string(), "");
    }
}
