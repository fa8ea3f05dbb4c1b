//! HTTP/1.1 messages as values: heads, fields, ranges, preconditions, dates, digests, and the
//! framing of a response that arrives as a byte stream.
//!
//! In: bytes. Out: values, or an error variant. No sockets, no clock, no knowledge of the carrier.
//! Input is untrusted: every size has a named limit and nothing panics.
//! Sources: RFC 9110 (semantics), RFC 9112 (HTTP/1.1), RFC 9530 (digest fields).

pub mod chunked;
pub mod conditional;
pub mod date;
pub mod digest;
mod framing;
pub mod headers;
pub mod range;
pub mod reader;
pub mod request;
pub mod response;
pub mod status;

/// Longest head of a request in bytes, the empty line included.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Most header fields in the head of a request, and in a head that this program writes.
pub const MAX_HEADERS: usize = 64;

/// The reason for rejecting a message head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The head does not end within the given bytes; more may follow.
    #[error("the message head is incomplete")]
    Incomplete,
    /// The head is longer than [`MAX_HEAD_BYTES`], or than
    /// [`MAX_RESPONSE_HEAD_BYTES`](response::MAX_RESPONSE_HEAD_BYTES).
    #[error("the message head is too long")]
    TooLarge,
    /// The head has more fields than [`MAX_HEADERS`], or than
    /// [`MAX_RESPONSE_HEADERS`](response::MAX_RESPONSE_HEADERS).
    #[error("the message head has too many fields")]
    TooManyHeaders,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("unsupported HTTP version")]
    Version,
    /// The sender broke the grammar.
    #[error("malformed message head")]
    Malformed,
}

impl HeadError {
    /// Classifies a head that does not end within `bytes`, of which at most `limit` count.
    const fn unfinished(bytes: &[u8], limit: usize) -> Self {
        if bytes.len() >= limit {
            Self::TooLarge
        } else {
            Self::Incomplete
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyHeaders,
            httparse::Error::Version => Self::Version,
            httparse::Error::HeaderName
            | httparse::Error::HeaderValue
            | httparse::Error::NewLine
            | httparse::Error::Status
            | httparse::Error::Token => Self::Malformed,
        }
    }
}

/// Minor version of HTTP/1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

impl Version {
    /// Converts the minor version digit that `httparse` returns.
    const fn from_minor(minor: u8) -> Self {
        if minor == 0 {
            Self::Http10
        } else {
            Self::Http11
        }
    }

    /// The version as written in a start line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}
