//! The transport's packets, as they stand inside UDP. `manual::protocol` draws every byte.
//!
//! Client to server: [`Open`] and [`Request`]. Server to client: [`Response`] and [`Challenge`].
//! Values borrow from the datagram. All numbers are in network order. What a value *means* is
//! judged in `transport`; here only its shape is checked.

use crate::wire::varint::{Reader, put_varint, u48_bytes};

/// Version of the protocol, shown in every OPEN.
pub const VERSION: u8 = 1;

/// UDP payload of an OPEN, and the most of each datagram of its answer to an address not proven
/// yet, in bytes: what an IPv6 path carries at the least (RFC 8200 §5: 1280 − 40 − 8).
pub const OPEN_BYTES: usize = 1232;

/// Fixed part of a data response up to its body, in bytes.
pub const DATA_HEADER_BYTES: usize = 24;

/// What a chunk alone in its datagram costs: the offset.
pub const SINGLE_CHUNK_BYTES: usize = 6;

/// What each of several chunks in a datagram costs: offset and length.
pub const CHUNK_BYTES: usize = 8;

/// What echo, size and count add to a response to an OPEN, in bytes.
pub const OPENED_BYTES: usize = 11;

/// Most holes a request's proof may have.
pub const MAX_HOLES: usize = 64;

/// Most byte ranges one request may ask for.
pub const MAX_RANGES: usize = 32;

/// Longest sealed continuation, in bytes; its length stands in one byte.
pub const MAX_CONTINUATION_BYTES: usize = 108;

/// Bytes that a continuation takes in a data response: one of length, then the continuation padded
/// to its longest, so that client and server agree on the room that is left.
pub const CONTINUATION_FIELD_BYTES: usize = 1 + MAX_CONTINUATION_BYTES;

/// Smallest datagram a request may name, in bytes: an empty response with a continuation fits.
pub const MIN_DATAGRAM_BYTES: usize = 256;

const KIND_OPEN: u8 = 0x10;
const KIND_REQUEST: u8 = 0x20;
const KIND_MASK: u8 = 0xe0;
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

/// Why a datagram is not one of ours. The sender, or the network, is at fault: drop and count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// It ends too soon.
    #[error("truncated")]
    Truncated,
    /// Its first byte names no kind that this side receives.
    #[error("unknown kind")]
    UnknownKind,
    /// It speaks another version.
    #[error("unknown version")]
    UnknownVersion,
    /// A count or size is out of its range.
    #[error("a field is out of range")]
    OutOfRange,
}

/// A stretch of packet numbers or of bytes: `start` is included, `end` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First of the stretch.
    pub start: u64,
    /// One past its last.
    pub end: u64,
}

impl Span {
    /// How many the stretch holds.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// A continuation shown in an OPEN to prove the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// The connection it was sealed for.
    pub connection: u64,
    /// The continuation.
    pub sealed: &'a [u8],
}

/// The first datagram of a connection; [`OPEN_BYTES`] long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open<'a> {
    /// Random, echoed in the answer: the client knows its own by it.
    pub echo: u64,
    /// Largest datagram the client wants, in bytes of UDP payload.
    pub size: u16,
    /// The client's name for the response stream.
    pub stream: u8,
    /// An earlier continuation of the same service.
    pub token: Option<Token<'a>>,
    /// The first application request (may be empty), or the stream to go on with.
    pub wanted: Wanted<'a>,
    /// First byte of the stream wanted; 0 for a new one.
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

/// A transition as a client declares it; see `transport::epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Code of its kind.
    pub kind: u8,
    /// The acknowledgement edge at the declaration.
    pub edge: u64,
    /// The round trip of the next epoch, in microseconds.
    pub rtt_us: u32,
}

/// What makes a challenge verifiable: its time and its MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// When it was made, milliseconds since the Unix epoch.
    pub time: u64,
    /// MAC over the continuation, the address challenged and the time.
    pub mac: [u8; 16],
}

/// The application part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// Byte ranges of a stream that has begun: its sealed user continuation (may be empty if no
    /// bytes are wanted).
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
    /// Size of the datagrams to be sent, in bytes of UDP payload.
    pub size: u16,
    /// The client's name for the response stream.
    pub stream: u8,
    /// The first datagram of the answer shall carry a continuation.
    pub wants_continuation: bool,
    /// The sealed continuation.
    pub continuation: &'a [u8],
    /// Acknowledged: the numbers `after + 1 ..= upto`.
    pub after: u64,
    /// See `after`; not below it.
    pub upto: u64,
    /// The last number that the proof covers; not below `upto`.
    pub reach: u64,
    /// The folded proof over all numbers of the epoch up to `reach`, but the holes.
    pub proof: u64,
    /// Numbers that the proof leaves out: ascending, disjoint.
    pub holes: Vec<Span>,
    /// The transition declared.
    pub declared: Option<Declared>,
    /// The answer to a challenge.
    pub cookie: Option<Cookie>,
    /// A probe: echoed in its answer.
    pub probe: Option<u32>,
    /// The bytes wanted, in the order in which they are to be laid out.
    pub ranges: Vec<Span>,
    /// What they are bytes of.
    pub wanted: Wanted<'a>,
}

impl<'a> Request<'a> {
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

/// What a server receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToServer<'a> {
    /// A first datagram.
    Open(Open<'a>),
    /// A request.
    Request(Request<'a>),
}

impl<'a> ToServer<'a> {
    /// Reads a datagram from a client.
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

    /// What a balancer may go by without reading the rest: the connection of a request, the echo of
    /// an OPEN. `None` if no client of ours sends such a datagram.
    #[must_use]
    pub fn affinity(datagram: &[u8]) -> Option<u64> {
        let mut reader = Reader::new(datagram);
        match reader.array()? {
            [KIND_OPEN, VERSION] | [KIND_REQUEST, _] => reader.u64(),
            _ => None,
        }
    }
}

/// A user continuation as it is given to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserField<'a> {
    /// Length of the stream, in bytes.
    pub length: u64,
    /// The sealed user continuation.
    pub sealed: &'a [u8],
}

/// What kind of response it is, with what only that kind has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseKind {
    /// An answer to a request.
    Data,
    /// An answer to an OPEN, with its echo.
    Opened {
        /// The echo of the OPEN.
        echo: u64,
        /// Largest datagram the client may name in requests: what it wanted, if the server can.
        size: u16,
        /// How many datagrams the answer has: the window of the opening epoch.
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
    /// Who answered.
    pub server: u16,
    /// The client's name for the stream.
    pub stream: u8,
    /// How many numbers after this one are void.
    pub void: u8,
    /// The object changed: the stream of the user continuation cannot be produced here.
    pub changed: bool,
    /// Several chunks stand in the body, each with its length.
    pub multi: bool,
}

impl ResponseHeader {
    /// Appends the header and the optional fields; the body follows. In a data response the
    /// continuation is padded to [`CONTINUATION_FIELD_BYTES`].
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
            out.extend(u48_bytes(user.length));
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
    /// The user continuation of a stream that has begun.
    pub user: Option<UserField<'a>>,
    body: &'a [u8],
}

impl<'a> Response<'a> {
    /// The chunks: offset in the stream and bytes.
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
        // Requests name this size: one that no server accepts would end the connection.
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
                length: reader.u48()?,
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

/// Iterates over the chunks of a response; stops at the first that is cut short.
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

/// Sent to an address that the continuation is not bound to; to be echoed in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The connection.
    pub connection: u64,
    /// Who challenges.
    pub server: u16,
    /// The address differs in more than the port: the answer must declare a restart.
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

/// The answer to a probe: no number, no data, no larger than the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed<'a> {
    /// The connection.
    pub connection: u64,
    /// Who answered.
    pub server: u16,
    /// The probe's own value.
    pub probe: u32,
    /// The continuation that results.
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

/// What a client receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToClient<'a> {
    /// A numbered response.
    Response(Response<'a>),
    /// A path challenge.
    Challenge(Challenge),
    /// The answer to a probe.
    Probed(Probed<'a>),
}

impl<'a> ToClient<'a> {
    /// Reads a datagram from a server.
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
            Some(_) => Err(SegmentError::UnknownKind),
            None => Err(SegmentError::Truncated),
        }
    }
}

fn check_size(size: u16) -> Result<(), SegmentError> {
    match usize::from(size) < MIN_DATAGRAM_BYTES {
        true => Err(SegmentError::OutOfRange),
        false => Ok(()),
    }
}

/// A length in one byte, then the bytes; longer ones are cut, which their seal notices.
fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    out.push(length);
    out.extend(bytes.iter().take(usize::from(length)));
}

fn take_short<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = reader.u8()?;
    reader.take(usize::from(length))
}

/// A length in two bytes, then the bytes.
fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend(length.to_be_bytes());
    out.extend(bytes.iter().take(usize::from(length)));
}

fn take_long<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = reader.u16()?;
    reader.take(usize::from(length))
}

/// Their number in one byte, then start and length of each.
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
