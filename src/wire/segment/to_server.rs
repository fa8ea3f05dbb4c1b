//! Datagrams of clients: OPEN and request, as values and as bytes.
//!
//! In: datagrams towards a server. Out: [`Open`] and [`Request`], and back. Only the syntax is
//! checked here.

use super::{
    KIND_OPEN, KIND_REQUEST, MAX_HOLES, MAX_RANGES, OPEN_BYTES, REQUEST_ANSWERS_CHALLENGE,
    REQUEST_BEGINS, REQUEST_DECLARES, REQUEST_PROBES, REQUEST_WANTS_CONTINUATION, SegmentError,
    Span, VERSION, check_size, put_long, put_short, put_spans, take_long, take_short, take_spans,
};
use crate::wire::varint::{Reader, put_varint, u48_bytes};

/// A continuation in an OPEN that validates the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// The connection of its seal.
    pub connection: u64,
    /// The continuation.
    pub sealed: &'a [u8],
}

/// The first datagram of a connection; [`OPEN_BYTES`] long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open<'a> {
    /// Random, echoed in the reply, by which the client recognises its own.
    pub echo: u64,
    /// Largest datagram that the client accepts, in bytes of UDP payload.
    pub size: u16,
    /// The client's name for the response stream.
    pub stream: u8,
    /// An earlier continuation of the same service.
    pub token: Option<Token<'a>>,
    /// The first application request (may be empty), or the stream to resume.
    pub wanted: Wanted<'a>,
    /// First byte wanted of the stream; 0 for a new one.
    pub offset: u64,
}

impl<'a> Open<'a> {
    /// Appends the datagram, padded.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.reserve(OPEN_BYTES);
        out.push(KIND_OPEN);
        out.push(VERSION);
        out.extend(self.echo.to_be_bytes());
        out.extend(self.size.to_be_bytes());
        out.push(self.stream);
        match self.token {
            Some(token) => {
                put_short(out, token.sealed);
                out.extend(token.connection.to_be_bytes());
            }
            None => out.push(0),
        }
        out.extend(u48_bytes(self.offset));
        let (begins, wanted) = self.wanted.split();
        out.push(u8::from(begins));
        put_long(out, wanted);
        out.resize(out.len().max(start + OPEN_BYTES), 0);
    }

    fn parse(datagram: &'a [u8]) -> Result<Self, SegmentError> {
        if datagram.len() < OPEN_BYTES {
            return Err(SegmentError::Truncated);
        }
        let mut reader = Reader::new(datagram);
        if reader.take(2) != Some(&[KIND_OPEN, VERSION]) {
            return Err(SegmentError::UnknownVersion);
        }
        let open = Self::parse_body(&mut reader).ok_or(SegmentError::Truncated)?;
        check_size(open.size)?;
        Ok(open)
    }

    fn parse_body(reader: &mut Reader<'a>) -> Option<Self> {
        let echo = reader.u64()?;
        let size = reader.u16()?;
        let stream = reader.u8()?;
        let sealed = take_short(reader)?;
        let token = match sealed.is_empty() {
            true => None,
            false => Some(Token {
                sealed,
                connection: reader.u64()?,
            }),
        };
        let offset = reader.u48()?;
        let begins = reader.u8()? != 0;
        let wanted = Wanted::join(begins, take_long(reader)?);
        Some(Self {
            echo,
            size,
            stream,
            token,
            wanted,
            offset,
        })
    }
}

/// A transition declared by a client; see `transport::epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Code of its kind.
    pub kind: u8,
    /// The acknowledgement edge at the declaration.
    pub edge: u64,
    /// The round trip of the next epoch, in microseconds.
    pub rtt_us: u32,
}

/// The verifiable part of a challenge: its time and its MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Creation time, milliseconds since the Unix epoch.
    pub time: u64,
    /// MAC over the continuation, the address challenged and the time.
    pub mac: [u8; 16],
}

/// The application part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Byte ranges of an open stream: its sealed user continuation (may be empty if no bytes are
    /// wanted).
    Of(&'a [u8]),
    /// A new stream: the application request.
    New(&'a [u8]),
}

impl<'a> Wanted<'a> {
    const fn split(self) -> (bool, &'a [u8]) {
        match self {
            Self::Of(user) => (false, user),
            Self::New(request) => (true, request),
        }
    }

    const fn join(begins: bool, bytes: &'a [u8]) -> Self {
        if begins {
            Self::New(bytes)
        } else {
            Self::Of(bytes)
        }
    }
}

/// A request: shows a continuation and proof of receipt, and is granted packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The connection.
    pub connection: u64,
    /// Size of the datagrams to send, in bytes of UDP payload.
    pub size: u16,
    /// The client's name for the response stream.
    pub stream: u8,
    /// Whether the first datagram of the reply shall carry a continuation.
    pub wants_continuation: bool,
    /// The sealed continuation.
    pub continuation: &'a [u8],
    /// Acknowledges the numbers `after + 1 ..= upto`.
    pub after: u64,
    /// See `after`; not below it.
    pub upto: u64,
    /// The last number covered by the proof; not below `upto`.
    pub reach: u64,
    /// The folded proof over all numbers of the epoch up to `reach`, except the holes.
    pub proof: u64,
    /// Numbers that the proof omits: ascending, disjoint.
    pub holes: Vec<Span>,
    /// The declared transition.
    pub declared: Option<Declared>,
    /// The reply to a challenge.
    pub cookie: Option<Cookie>,
    /// A probe, echoed in the reply.
    pub probe: Option<u32>,
    /// The bytes wanted, in sending order.
    pub ranges: Vec<Span>,
    /// The stream of these bytes.
    pub wanted: Wanted<'a>,
}

impl<'a> Request<'a> {
    /// Creates a request that acknowledges, declares and requests nothing.
    #[must_use]
    pub const fn empty(connection: u64, size: u16, stream: u8) -> Self {
        Self {
            connection,
            size,
            stream,
            wants_continuation: false,
            continuation: &[],
            after: 0,
            upto: 0,
            reach: 0,
            proof: 0,
            holes: Vec::new(),
            declared: None,
            cookie: None,
            probe: None,
            ranges: Vec::new(),
            wanted: Wanted::Of(&[]),
        }
    }

    /// Appends the datagram.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let (begins, wanted) = self.wanted.split();
        out.push(KIND_REQUEST);
        out.push(
            flag(self.declared.is_some(), REQUEST_DECLARES)
                | flag(self.wants_continuation, REQUEST_WANTS_CONTINUATION)
                | flag(self.cookie.is_some(), REQUEST_ANSWERS_CHALLENGE)
                | flag(self.probe.is_some(), REQUEST_PROBES)
                | flag(begins, REQUEST_BEGINS),
        );
        out.extend(self.connection.to_be_bytes());
        out.extend(self.size.to_be_bytes());
        out.push(self.stream);
        put_short(out, self.continuation);
        put_varint(out, self.after);
        put_varint(out, self.upto.saturating_sub(self.after));
        put_varint(out, self.reach.saturating_sub(self.upto));
        out.extend(self.proof.to_be_bytes());
        put_spans(out, &self.holes);
        if let Some(declared) = self.declared {
            out.push(declared.kind);
            put_varint(out, declared.edge);
            put_varint(out, u64::from(declared.rtt_us));
        }
        if let Some(cookie) = self.cookie {
            out.extend(u48_bytes(cookie.time));
            out.extend(cookie.mac);
        }
        if let Some(probe) = self.probe {
            out.extend(probe.to_be_bytes());
        }
        put_spans(out, &self.ranges);
        put_long(out, wanted);
    }

    fn parse(datagram: &'a [u8]) -> Result<Self, SegmentError> {
        let mut reader = Reader::new(datagram);
        let request = Self::parse_body(&mut reader).ok_or(SegmentError::Truncated)?;
        check_size(request.size)?;
        let ascending = request.holes.is_sorted_by(|a, b| a.end <= b.start);
        let empty = |spans: &[Span]| spans.iter().any(Span::is_empty);
        let crowded = request.holes.len() > MAX_HOLES || request.ranges.len() > MAX_RANGES;
        if !ascending || empty(&request.holes) || empty(&request.ranges) || crowded {
            return Err(SegmentError::OutOfRange);
        }
        Ok(request)
    }

    fn parse_body(reader: &mut Reader<'a>) -> Option<Self> {
        reader.u8()?;
        let flags = reader.u8()?;
        let has = |bit: u8| flags & bit != 0;
        let connection = reader.u64()?;
        let size = reader.u16()?;
        let stream = reader.u8()?;
        let continuation = take_short(reader)?;
        let after = reader.varint()?;
        let upto = after.checked_add(reader.varint()?)?;
        let reach = upto.checked_add(reader.varint()?)?;
        let proof = reader.u64()?;
        let holes = take_spans(reader)?;
        let declared = match has(REQUEST_DECLARES) {
            true => Some(Declared {
                kind: reader.u8()?,
                edge: reader.varint()?,
                rtt_us: reader.varint_u32()?,
            }),
            false => None,
        };
        let cookie = match has(REQUEST_ANSWERS_CHALLENGE) {
            true => Some(Cookie {
                time: reader.u48()?,
                mac: reader.array()?,
            }),
            false => None,
        };
        let probe = match has(REQUEST_PROBES) {
            true => Some(reader.u32()?),
            false => None,
        };
        let ranges = take_spans(reader)?;
        let wanted = take_long(reader)?;
        Some(Self {
            connection,
            size,
            stream,
            wants_continuation: has(REQUEST_WANTS_CONTINUATION),
            continuation,
            after,
            upto,
            reach,
            proof,
            holes,
            declared,
            cookie,
            probe,
            ranges,
            wanted: if has(REQUEST_BEGINS) {
                Wanted::New(wanted)
            } else {
                Wanted::Of(wanted)
            },
        })
    }
}

/// A datagram from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToServer<'a> {
    /// A first datagram.
    Open(Open<'a>),
    /// A request.
    Request(Request<'a>),
}

impl<'a> ToServer<'a> {
    /// Parses a datagram from a client.
    ///
    /// # Errors
    /// [`SegmentError`]: drop it.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, SegmentError> {
        match datagram.first() {
            Some(&KIND_OPEN) => Open::parse(datagram).map(Self::Open),
            Some(&KIND_REQUEST) => Request::parse(datagram).map(Self::Request),
            Some(_) => Err(SegmentError::UnknownKind),
            None => Err(SegmentError::Truncated),
        }
    }

    /// Returns a key for load balancers without parsing the rest: the connection of a request, the
    /// echo of an OPEN. `None` if no client sends such a datagram.
    #[must_use]
    pub fn affinity(datagram: &[u8]) -> Option<u64> {
        let mut reader = Reader::new(datagram);
        match reader.array()? {
            [KIND_OPEN, VERSION] | [KIND_REQUEST, _] => reader.u64(),
            _ => None,
        }
    }
}
