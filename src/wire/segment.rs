//! The transport's packets, inside UDP. `manual::protocol` defines every byte.
//!
//! Client to server: [`Open`] and [`Request`]. Server to client: [`Response`], [`Challenge`],
//! [`Probed`] and [`Wait`].
//! Values borrow from the datagram. All numbers are in network order. Only the syntax is checked
//! here; `transport` judges the *meaning* of values.

mod to_client;
mod to_server;

pub use to_client::{
    Addressee, Challenge, Chunks, Probed, Response, ResponseHeader, ResponseKind, ToClient,
    UserField, Wait, put_chunk,
};
pub use to_server::{Cookie, Declared, Open, Request, ToServer, Token, Wanted};

use crate::wire::varint::{Reader, put_varint};

/// Version of the protocol, sent in every OPEN.
pub const VERSION: u8 = 1;

/// UDP payload of an OPEN, and the limit for each datagram of the reply to an unvalidated address,
/// in bytes: the minimum of an IPv6 path (RFC 8200 §5: 1280 − 40 − 8).
pub const OPEN_BYTES: usize = 1232;

/// Fixed part of a data response before its body, in bytes.
pub const DATA_HEADER_BYTES: usize = 24;

/// Overhead of a single chunk per datagram: the offset.
pub const SINGLE_CHUNK_BYTES: usize = 6;

/// Overhead of each of several chunks per datagram: offset and length.
pub const CHUNK_BYTES: usize = 8;

/// Additional bytes of a response to an OPEN: echo, size and count.
pub const OPENED_BYTES: usize = 11;

/// Most holes in a request's proof.
pub const MAX_HOLES: usize = 64;

/// Most byte ranges in one request.
pub const MAX_RANGES: usize = 32;

/// Longest sealed continuation, in bytes; its length takes one byte.
pub const MAX_CONTINUATION_BYTES: usize = 108;

/// Bytes of a continuation in a data response: one of length, then the continuation padded to its
/// maximum, so that client and server agree on the remaining room.
pub const CONTINUATION_FIELD_BYTES: usize = 1 + MAX_CONTINUATION_BYTES;

/// Smallest datagram size in a request, in bytes: an empty response with a continuation fits.
pub const MIN_DATAGRAM_BYTES: usize = 256;

const KIND_OPEN: u8 = 0x10;
const KIND_REQUEST: u8 = 0x20;
const KIND_MASK: u8 = 0xe0;
const KIND_WAIT: u8 = 0x40;
const KIND_DATA: u8 = 0x80;
const KIND_OPENED: u8 = 0xa0;
const KIND_CHALLENGE: u8 = 0xc0;
const KIND_PROBED: u8 = 0xe0;

const REQUEST_DECLARES: u8 = 0x01;
const REQUEST_WANTS_CONTINUATION: u8 = 0x02;
const REQUEST_ANSWERS_CHALLENGE: u8 = 0x04;
const REQUEST_PROBES: u8 = 0x08;
/// The application part is a new request rather than a user continuation.
const REQUEST_BEGINS: u8 = 0x10;

const RESPONSE_CONTINUATION: u8 = 0x01;
const RESPONSE_USER: u8 = 0x02;
const RESPONSE_VOID: u8 = 0x04;
const RESPONSE_MULTI: u8 = 0x08;
const RESPONSE_CHANGED: u8 = 0x10;

/// The reason for rejecting a datagram. The sender, or the network, is at fault: drop and count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Shorter than its fields.
    #[error("truncated")]
    Truncated,
    /// Its first byte is not a kind that this side receives.
    #[error("unknown kind")]
    UnknownKind,
    /// Of another version.
    #[error("unknown version")]
    UnknownVersion,
    /// A count or size is out of its range.
    #[error("a field is out of range")]
    OutOfRange,
}

/// A range of packet numbers or of bytes: `start` is included, `end` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First of the range.
    pub start: u64,
    /// One past its last.
    pub end: u64,
}

impl Span {
    /// The length of the range.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether the range is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

fn check_size(size: u16) -> Result<(), SegmentError> {
    match usize::from(size) < MIN_DATAGRAM_BYTES {
        true => Err(SegmentError::OutOfRange),
        false => Ok(()),
    }
}

/// Appends a length in one byte, then the bytes; longer ones are truncated, which breaks their
/// seal.
fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    out.push(length);
    out.extend(bytes.iter().take(usize::from(length)));
}

fn take_short<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = reader.u8()?;
    reader.take(usize::from(length))
}

/// Appends a length in two bytes, then the bytes.
fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend(bytes.iter().take(usize::from(length)));
}

fn take_long<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = reader.u16()?;
    reader.take(usize::from(length))
}

/// Appends the count in one byte, then start and length of each.
fn put_spans(out: &mut Vec<u8>, spans: &[Span]) {
    let count = u8::try_from(spans.len()).unwrap_or(u8::MAX);
    out.push(count);
    for span in spans.iter().take(usize::from(count)) {
        put_varint(out, span.start);
        put_varint(out, span.len());
    }
}

fn take_spans(reader: &mut Reader<'_>) -> Option<Vec<Span>> {
    let count = reader.u8()?;
    (0..count)
        .map(|_| {
            let start = reader.varint()?;
            Some(Span {
                start,
                end: start.checked_add(reader.varint()?)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
