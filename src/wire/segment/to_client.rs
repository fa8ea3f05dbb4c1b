//! Datagrams of servers: response, challenge, the reply to a probe, and the request to wait, as values
//! and as bytes.
//!
//! In: datagrams towards a client. Out: [`Response`], [`Challenge`], [`Probed`] and [`Wait`], and back.
//! Only the syntax is checked here.

use super::{
    Cookie, KIND_CHALLENGE, KIND_DATA, KIND_MASK, KIND_OPENED, KIND_PROBED, KIND_WAIT,
    MAX_CONTINUATION_BYTES, RESPONSE_CHANGED, RESPONSE_CONTINUATION, RESPONSE_MULTI, RESPONSE_USER,
    RESPONSE_VOID, SegmentError, check_size, put_long, put_short, take_long, take_short,
};
use crate::wire::varint::{Reader, u48_bytes};

/// The length on the wire of a stream whose length is not known yet.
const UNKNOWN_LENGTH: u64 = (1 << 48) - 1;

/// A user continuation as sent to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserField<'a> {
    /// Length of the stream, in bytes; `None`: not known yet.
    pub length: Option<u64>,
    /// The sealed user continuation.
    pub sealed: &'a [u8],
}

/// The kind of a response, with its own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseKind {
    /// The reply to a request.
    Data,
    /// The reply to an OPEN, with its echo.
    Opened {
        /// The echo of the OPEN.
        echo: u64,
        /// Largest datagram size for requests: the client's, if the server supports it.
        size: u16,
        /// Number of datagrams of the reply: the window of the opening epoch.
        count: u8,
    },
}

/// The fixed part of a numbered response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHeader {
    /// Data or Opened.
    pub kind: ResponseKind,
    /// The connection.
    pub connection: u64,
    /// The low 32 bits of the packet number.
    pub number: u32,
    /// `x` of the number, or of all numbers up to the last void one.
    pub x: u64,
    /// The server that replied.
    pub server: u16,
    /// The client's name for the stream.
    pub stream: u8,
    /// How many numbers after this one are void.
    pub void: u8,
    /// Whether the object has changed: this server cannot produce the stream of the user
    /// continuation.
    pub changed: bool,
    /// Whether the body holds several chunks, each with its length.
    pub multi: bool,
}

impl ResponseHeader {
    /// Appends the header and the optional fields; the body follows. In a data response the
    /// continuation is padded to [`CONTINUATION_FIELD_BYTES`](super::CONTINUATION_FIELD_BYTES).
    pub fn emit(&self, out: &mut Vec<u8>, continuation: &[u8], user: Option<UserField<'_>>) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let kind = match self.kind {
            ResponseKind::Data => KIND_DATA,
            ResponseKind::Opened { .. } => KIND_OPENED,
        };
        out.push(
            kind | flag(!continuation.is_empty(), RESPONSE_CONTINUATION)
                | flag(user.is_some(), RESPONSE_USER)
                | flag(self.void > 0, RESPONSE_VOID)
                | flag(self.multi, RESPONSE_MULTI)
                | flag(self.changed, RESPONSE_CHANGED),
        );
        out.extend(self.connection.to_be_bytes());
        out.extend(self.number.to_be_bytes());
        out.extend(self.x.to_be_bytes());
        out.extend(self.server.to_be_bytes());
        out.push(self.stream);
        if let ResponseKind::Opened { echo, size, count } = self.kind {
            out.extend(echo.to_be_bytes());
            out.extend(size.to_be_bytes());
            out.push(count);
        }
        if self.void > 0 {
            out.push(self.void);
        }
        if !continuation.is_empty() {
            put_short(out, continuation);
            if self.kind == ResponseKind::Data {
                let padding = MAX_CONTINUATION_BYTES.saturating_sub(continuation.len());
                out.resize(out.len() + padding, 0);
            }
        }
        if let Some(user) = user {
            out.extend(u48_bytes(user.length.unwrap_or(UNKNOWN_LENGTH)));
            put_long(out, user.sealed);
        }
    }
}

/// Appends the head of a chunk; its bytes follow. A single chunk has no length.
pub fn put_chunk(out: &mut Vec<u8>, offset: u64, length: Option<u16>) {
    out.extend(u48_bytes(offset));
    if let Some(length) = length {
        out.extend(length.to_be_bytes());
    }
}

/// A numbered response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The fixed part.
    pub header: ResponseHeader,
    /// A sealed continuation, or nothing.
    pub continuation: &'a [u8],
    /// The user continuation of an open stream.
    pub user: Option<UserField<'a>>,
    body: &'a [u8],
}

impl<'a> Response<'a> {
    /// Returns the chunks: offset in the stream and bytes.
    #[must_use]
    pub const fn chunks(&self) -> Chunks<'a> {
        Chunks {
            reader: Reader::new(self.body),
            multi: self.header.multi,
        }
    }

    fn parse(datagram: &'a [u8]) -> Result<Self, SegmentError> {
        let response =
            Self::parse_body(&mut Reader::new(datagram)).ok_or(SegmentError::Truncated)?;
        // Requests use this size: one that no server accepts would end the connection.
        if let ResponseKind::Opened { size, .. } = response.header.kind {
            check_size(size)?;
        }
        Ok(response)
    }

    fn parse_body(reader: &mut Reader<'a>) -> Option<Self> {
        let first = reader.u8()?;
        let has = |bit: u8| first & bit != 0;
        let (connection, number, x) = (reader.u64()?, reader.u32()?, reader.u64()?);
        let (server, stream) = (reader.u16()?, reader.u8()?);
        let kind = match first & KIND_MASK {
            KIND_OPENED => ResponseKind::Opened {
                echo: reader.u64()?,
                size: reader.u16()?,
                count: reader.u8()?,
            },
            _ => ResponseKind::Data,
        };
        let void = if has(RESPONSE_VOID) { reader.u8()? } else { 0 };
        let mut continuation: &[u8] = &[];
        if has(RESPONSE_CONTINUATION) {
            continuation = take_short(reader)?;
            if kind == ResponseKind::Data {
                reader.take(MAX_CONTINUATION_BYTES.checked_sub(continuation.len())?)?;
            }
        }
        let user = match has(RESPONSE_USER) {
            true => Some(UserField {
                length: Some(reader.u48()?).filter(|&length| length != UNKNOWN_LENGTH),
                sealed: take_long(reader)?,
            }),
            false => None,
        };
        let (multi, changed) = (has(RESPONSE_MULTI), has(RESPONSE_CHANGED));
        let header = ResponseHeader {
            kind,
            connection,
            number,
            x,
            server,
            stream,
            void,
            changed,
            multi,
        };
        Some(Self {
            header,
            continuation,
            user,
            body: reader.rest(),
        })
    }
}

/// Iterates over the chunks of a response; stops at the first truncated one.
#[derive(Clone, Debug)]
pub struct Chunks<'a> {
    reader: Reader<'a>,
    multi: bool,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.reader.u48()?;
        let length = match self.multi {
            true => usize::from(self.reader.u16()?),
            false => self.reader.rest().len(),
        };
        // A multi-chunk datagram is padded with zeros up to its size.
        if self.multi && length == 0 {
            return None;
        }
        Some((offset, self.reader.take(length)?))
    }
}

/// Sent to an address to which the continuation is not bound; to be echoed in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The connection.
    pub connection: u64,
    /// The server that challenges.
    pub server: u16,
    /// Whether the address differs in more than the port: the reply must then declare a restart.
    pub moved: bool,
    /// To be echoed.
    pub cookie: Cookie,
}

impl Challenge {
    /// Appends the datagram.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(KIND_CHALLENGE | u8::from(self.moved));
        out.extend(self.connection.to_be_bytes());
        out.extend(self.server.to_be_bytes());
        out.extend(u48_bytes(self.cookie.time));
        out.extend(self.cookie.mac);
    }

    fn parse(datagram: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(datagram);
        let moved = reader.u8()? & 1 != 0;
        let (connection, server) = (reader.u64()?, reader.u16()?);
        let cookie = Cookie {
            time: reader.u48()?,
            mac: reader.array()?,
        };
        Some(Self {
            connection,
            server,
            moved,
            cookie,
        })
    }
}

/// The reply to a probe: no number, no data, no larger than the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed<'a> {
    /// The connection.
    pub connection: u64,
    /// The server that replied.
    pub server: u16,
    /// The probe's own value.
    pub probe: u32,
    /// The resulting continuation.
    pub continuation: &'a [u8],
}

impl<'a> Probed<'a> {
    /// Appends the datagram.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(KIND_PROBED);
        out.extend(self.connection.to_be_bytes());
        out.extend(self.server.to_be_bytes());
        out.extend(self.probe.to_be_bytes());
        put_short(out, self.continuation);
    }

    fn parse(datagram: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(datagram);
        reader.u8()?;
        let (connection, server, probe) = (reader.u64()?, reader.u16()?, reader.u32()?);
        Some(Self {
            connection,
            server,
            probe,
            continuation: take_short(&mut reader)?,
        })
    }
}

/// The answer to a request whose bytes are not there yet: no number, no data, smaller than any request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The connection.
    pub connection: u64,
    /// The server that answered.
    pub server: u16,
    /// The low 32 bits of the first number that the request releases.
    pub number: u32,
    /// The client's name for the stream.
    pub stream: u8,
    /// When to ask again, in milliseconds.
    pub delay_ms: u16,
}

impl Wait {
    /// Appends the datagram.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(KIND_WAIT);
        out.extend(self.connection.to_be_bytes());
        out.extend(self.server.to_be_bytes());
        out.extend(self.number.to_be_bytes());
        out.push(self.stream);
        out.extend(self.delay_ms.to_be_bytes());
    }

    #[cold]
    fn parse(datagram: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(datagram);
        reader.u8()?;
        Some(Self {
            connection: reader.u64()?,
            server: reader.u16()?,
            number: reader.u32()?,
            stream: reader.u8()?,
            delay_ms: reader.u16()?,
        })
    }
}

/// A datagram from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToClient<'a> {
    /// A numbered response.
    Response(Response<'a>),
    /// A path challenge.
    Challenge(Challenge),
    /// The reply to a probe.
    Probed(Probed<'a>),
    /// The request to wait.
    Wait(Wait),
}

/// The connection that a datagram from a server is for, as its header names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addressee {
    /// The connection's id.
    pub connection: u64,
    /// The echo of the OPEN that the datagram answers, if it answers one.
    pub echo: Option<u64>,
}

impl<'a> ToClient<'a> {
    /// Reads only the addressee of a datagram from a server. `None` if it is too short, or of a kind
    /// that no client receives.
    #[must_use]
    pub fn addressee(datagram: &[u8]) -> Option<Addressee> {
        let mut reader = Reader::new(datagram);
        let kind = reader.u8()? & KIND_MASK;
        let connection = reader.u64()?;
        let echo = match kind {
            KIND_OPENED => {
                // Number, x, server and stream lie between.
                reader.take(4 + 8 + 2 + 1)?;
                Some(reader.u64()?)
            }
            KIND_DATA | KIND_CHALLENGE | KIND_PROBED | KIND_WAIT => None,
            _ => return None,
        };
        Some(Addressee { connection, echo })
    }

    /// Parses a datagram from a server.
    ///
    /// # Errors
    /// [`SegmentError`]: drop it.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, SegmentError> {
        match datagram.first().map(|first| first & KIND_MASK) {
            Some(KIND_DATA | KIND_OPENED) => Response::parse(datagram).map(Self::Response),
            Some(KIND_CHALLENGE) => Challenge::parse(datagram)
                .map(Self::Challenge)
                .ok_or(SegmentError::Truncated),
            Some(KIND_PROBED) => Probed::parse(datagram)
                .map(Self::Probed)
                .ok_or(SegmentError::Truncated),
            Some(KIND_WAIT) => Wait::parse(datagram)
                .map(Self::Wait)
                .ok_or(SegmentError::Truncated),
            Some(_) => Err(SegmentError::UnknownKind),
            None => Err(SegmentError::Truncated),
        }
    }
}
