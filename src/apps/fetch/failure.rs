//! Why a transfer fails, in words that say what to do.
//!
//! Nothing here decides; `cli` maps the variants to exit codes.

use crate::apps::fetch::MAX_REDIRECTS;
use crate::apps::fetch::output::OutputError;
use crate::apps::fetch::target::TargetError;
use crate::http::headers::FieldError;
use crate::http::reader::ReadError;

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferFailure {
    /// A redirect leads nowhere we can go.
    #[error("redirected to a place that cannot be fetched: {0}")]
    Location(TargetError),
    /// More than [`MAX_REDIRECTS`].
    #[error("more than {MAX_REDIRECTS} redirects")]
    TooManyRedirects,
    /// The request is longer than the transport carries; `have` and `limit` in bytes.
    #[error("the request has {have} bytes, at most {limit} fit: shorten the URL or the headers")]
    RequestTooLong {
        /// Bytes of the request head.
        have: usize,
        /// Most bytes the transport carries.
        limit: usize,
    },
    /// The request cannot be written as HTTP.
    #[error("the request cannot be written: {0}")]
    Request(#[from] FieldError),
    /// An error status that is not to be taken for the object.
    #[error("the server answered {0}")]
    Status(u16),
    /// A resumed download was answered without the range asked for.
    #[error("the server did not send the range asked for: start again without -C")]
    RangeNotSupported,
    /// The output holds more than the object has; both in bytes.
    #[error("the file holds {have} bytes but the object has {size}: remove it and start again")]
    BadResume {
        /// Bytes held.
        have: u64,
        /// Bytes of the object.
        size: u64,
    },
    /// The stream ended before any byte.
    #[error("the server sent nothing")]
    EmptyReply,
    /// The stream ended early; bytes of the body, and how many were promised if that is known.
    #[error("the transfer ended early, after {have} bytes: resume it with -C -")]
    Partial {
        /// Bytes of the body so far.
        have: u64,
        /// Bytes promised.
        want: Option<u64>,
    },
    /// The answer is not HTTP.
    #[error("the answer is not HTTP/1.1: {0}")]
    WeirdReply(ReadError),
    /// The object changed more than [`MAX_RESTARTS`](super::MAX_RESTARTS) times, or its output cannot be rewound.
    #[error("the object changed while it was fetched: start again")]
    Changed,
    /// The digest differs.
    #[error("the bytes do not have the digest the server offered: start again")]
    DigestMismatch,
    /// The output failed.
    #[error(transparent)]
    Output(OutputError),
    /// No connection came about.
    #[error("no connection to the server: check the address, the routes and that it runs")]
    CannotConnect,
    /// No connection came about in time.
    #[error("no connection in time: check the address, the routes and that the server runs")]
    ConnectTimedOut,
    /// A time limit has passed.
    #[error("a time limit has passed: resume with -C -")]
    TimedOut,
    /// The connection was reset.
    #[error("the connection broke after {have} bytes: resume with -C -")]
    Broken {
        /// Bytes of the body so far.
        have: u64,
    },
    /// The host of a URL has no known address.
    #[error("{host} has no address in /etc/hosts (no resolver is asked): use an IP address")]
    CannotResolve {
        /// The host.
        host: String,
    },
    /// No own address of the family of the server's.
    #[error("no own address of the family of {host}: give one with --address")]
    Family {
        /// The host.
        host: String,
    },
}
