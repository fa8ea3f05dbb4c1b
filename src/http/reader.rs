//! Reads one final response from a byte stream, over any carrier (RFC 9112 §6.3).
//!
//! In: slices of the stream, cut anywhere. Out: the head, the body's bytes in order without a copy,
//! and the end. Skips interim (1xx) responses, at most [`MAX_INTERIM`]. A truncated body is an
//! error, never a shorter body.

use crate::http::HeadError;
use crate::http::chunked::{ChunkError, ChunkedDecoder, Step};
use crate::http::request::Method;
use crate::http::response::{MAX_RESPONSE_HEAD_BYTES, ResponseHead, TYPICAL_HEAD_BYTES};

/// Most interim responses before the final one.
pub const MAX_INTERIM: usize = 16;

/// The reason why a response is unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The head is invalid.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The chunked coding is invalid.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// More than [`MAX_INTERIM`] interim responses.
    #[error("more than {MAX_INTERIM} interim responses")]
    TooManyInterim,
    /// The stream ended inside the head or a body of known length.
    #[error("the response ended early")]
    Truncated,
}

/// The outcome of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReaderEvent<'a> {
    /// The input is consumed; feed more or call [`ResponseReader::end`].
    NeedMore,
    /// The final head.
    Head(ResponseHead),
    /// The next bytes of the body.
    Body(&'a [u8]),
    /// The response is complete. The remaining bytes belong to the next one.
    Done,
}

#[derive(Clone, Debug)]
enum ReaderState {
    Head { buffer: Vec<u8>, interim: usize },
    Counted { left: u64 },
    Chunked(ChunkedDecoder),
    UntilClose,
    Done,
}

/// Reads one response.
#[derive(Clone, Debug)]
pub struct ResponseReader {
    method: Method,
    state: ReaderState,
}

impl ResponseReader {
    /// Creates a reader of the response to a request of this method (HEAD has no body).
    #[must_use]
    pub const fn new(method: Method) -> Self {
        Self {
            method,
            state: ReaderState::Head {
                buffer: Vec::new(),
                interim: 0,
            },
        }
    }

    /// Consumes some of `input`; returns how many bytes, and the event they produce. Call again
    /// with the rest until `NeedMore` or `Done`.
    ///
    /// # Errors
    /// [`ReadError`]; the response is then unusable.
    pub fn read<'a>(&mut self, input: &'a [u8]) -> Result<(usize, ReaderEvent<'a>), ReadError> {
        match &mut self.state {
            ReaderState::Head { .. } => self.read_head(input),
            ReaderState::Counted { left: 0 } => {
                self.state = ReaderState::Done;
                Ok((0, ReaderEvent::Done))
            }
            ReaderState::Done => Ok((0, ReaderEvent::Done)),
            ReaderState::Counted { .. } | ReaderState::Chunked(_) | ReaderState::UntilClose
                if input.is_empty() =>
            {
                Ok((0, ReaderEvent::NeedMore))
            }
            ReaderState::Counted { left } => {
                let take = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                *left -= u64::try_from(take).unwrap_or(*left);
                Ok((take, ReaderEvent::Body(input.get(..take).unwrap_or(input))))
            }
            ReaderState::UntilClose => Ok((input.len(), ReaderEvent::Body(input))),
            ReaderState::Chunked(decoder) => {
                let (used, step) = decoder.step(input)?;
                Ok((
                    used,
                    match step {
                        Step::NeedMore => ReaderEvent::NeedMore,
                        Step::Data(data) => ReaderEvent::Body(data),
                        Step::Done => {
                            self.state = ReaderState::Done;
                            ReaderEvent::Done
                        }
                    },
                ))
            }
        }
    }

    /// Handles the end of the stream.
    ///
    /// # Errors
    /// [`ReadError::Truncated`] if the response is not complete.
    pub fn end(&mut self) -> Result<(), ReadError> {
        let complete = match self.state {
            ReaderState::UntilClose | ReaderState::Done | ReaderState::Counted { left: 0 } => true,
            ReaderState::Head { .. } | ReaderState::Counted { .. } | ReaderState::Chunked(_) => {
                false
            }
        };
        self.state = ReaderState::Done;
        if complete {
            Ok(())
        } else {
            Err(ReadError::Truncated)
        }
    }

    /// The number of body bytes outstanding, if the head announces a length.
    #[must_use]
    pub const fn remaining(&self) -> Option<u64> {
        match self.state {
            ReaderState::Counted { left } => Some(left),
            ReaderState::Done => Some(0),
            ReaderState::Head { .. } | ReaderState::Chunked(_) | ReaderState::UntilClose => None,
        }
    }

    fn read_head<'a>(&mut self, input: &'a [u8]) -> Result<(usize, ReaderEvent<'a>), ReadError> {
        let ReaderState::Head { buffer, interim } = &mut self.state else {
            return Ok((0, ReaderEvent::NeedMore));
        };
        let mut used = 0;
        for line in input.split_inclusive(|&byte| byte == b'\n') {
            if buffer.len() + line.len() > MAX_RESPONSE_HEAD_BYTES {
                return Err(HeadError::TooLarge.into());
            }
            if buffer.is_empty() {
                buffer.reserve(TYPICAL_HEAD_BYTES);
            }
            buffer.extend_from_slice(line);
            used += line.len();
            // RFC 9112 §2.2: a bare LF may end a line.
            if !(buffer.ends_with(b"\n\r\n") || buffer.ends_with(b"\n\n")) {
                continue;
            }
            // The head's end was found, so an incomplete head is malformed.
            let head = match ResponseHead::parse(buffer) {
                Err(HeadError::Incomplete) => return Err(HeadError::Malformed.into()),
                parsed => parsed?.0,
            };
            buffer.clear();
            if head.status.is_interim() && head.status.0 != 101 {
                *interim += 1;
                if *interim > MAX_INTERIM {
                    return Err(ReadError::TooManyInterim);
                }
                continue;
            }
            self.state = framing(self.method, &head)?;
            return Ok((used, ReaderEvent::Head(head)));
        }
        Ok((used, ReaderEvent::NeedMore))
    }
}

/// Returns how the body of a response is delimited (RFC 9112 §6.3).
fn framing(method: Method, head: &ResponseHead) -> Result<ReaderState, HeadError> {
    if method == Method::Head || head.status.is_bodiless() {
        return Ok(ReaderState::Counted { left: 0 });
    }
    if head.headers.get("transfer-encoding").is_some() {
        // Rule 3: transfer coding outranks a length.
        let last = head.headers.elements("transfer-encoding").last();
        let chunked = last.is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
        return Ok(if chunked {
            ReaderState::Chunked(ChunkedDecoder::new())
        } else {
            ReaderState::UntilClose
        });
    }
    Ok(match head.content_length()? {
        Some(left) => ReaderState::Counted { left },
        None => ReaderState::UntilClose,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::response::MAX_RESPONSE_HEADERS;
    use crate::http::status::Status;

    /// Status, body, whether the reader found the end in the stream itself, bytes consumed.
    type Outcome = Result<(Option<Status>, Vec<u8>, bool, usize), ReadError>;

    fn read_all(method: Method, stream: &[u8], piece: usize) -> Outcome {
        let mut reader = ResponseReader::new(method);
        let (mut status, mut body, mut used) = (None, Vec::new(), 0);
        for mut slice in stream.chunks(piece.max(1)) {
            loop {
                let (n, progress) = reader.read(slice)?;
                slice = &slice[n..];
                used += n;
                match progress {
                    ReaderEvent::NeedMore => break,
                    ReaderEvent::Head(head) => status = Some(head.status),
                    ReaderEvent::Body(bytes) => body.extend_from_slice(bytes),
                    ReaderEvent::Done => return Ok((status, body, true, used)),
                }
            }
        }
        reader.end()?;
        Ok((status, body, false, used))
    }

    /// Name, method, stream, expected body, whether the stream itself delimits the body. If it
    /// does, `NEXT` follows.
    type Row = (&'static str, Method, &'static str, &'static str, bool);

    const FRAMED: [Row; 9] = [
        (
            "length",
            Method::Get,
            "200 OK\r\nContent-Length: 3\r\n\r\nabcNEXT",
            "abc",
            true,
        ),
        (
            "zero",
            Method::Get,
            "200 OK\r\nContent-Length: 0\r\n\r\nNEXT",
            "",
            true,
        ),
        ("close", Method::Get, "200 OK\r\n\r\nabc", "abc", false),
        (
            "head",
            Method::Head,
            "200 OK\r\nContent-Length: 3\r\n\r\nNEXT",
            "",
            true,
        ),
        (
            "304",
            Method::Get,
            "304 x\r\nContent-Length: 3\r\n\r\nNEXT",
            "",
            true,
        ),
        ("204", Method::Get, "204 x\r\n\r\nNEXT", "", true),
        (
            "chunked outranks length",
            Method::Get,
            "200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\nNEXT",
            "a",
            true,
        ),
        (
            "other coding",
            Method::Get,
            "200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
            "abc",
            false,
        ),
        (
            "bare lf",
            Method::Get,
            "200 OK\nContent-Length: 1\n\naNEXT",
            "a",
            true,
        ),
    ];

    #[test]
    fn bodies_are_framed() {
        for (name, method, stream, body, done) in FRAMED {
            for interim in ["", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"] {
                let stream = format!("{interim}HTTP/1.1 {stream}");
                for piece in [1, 2, 7, stream.len()] {
                    let (status, got, ended, used) =
                        read_all(method, stream.as_bytes(), piece).unwrap();
                    assert!(status.is_some(), "{name} by {piece}");
                    assert_eq!(got, body.as_bytes(), "{name} by {piece}");
                    assert_eq!(ended, done, "{name} by {piece}");
                    let left = if done { "NEXT".len() } else { 0 };
                    assert_eq!(
                        stream.len() - used,
                        left,
                        "{name} by {piece}: rest is untouched"
                    );
                }
            }
        }
    }

    #[test]
    fn broken_responses_are_errors() {
        let ok = "HTTP/1.1 200 OK\r\n";
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_INTERIM + 1);
        let large = format!("{ok}a: {}\r\n\r\n", "x".repeat(MAX_RESPONSE_HEAD_BYTES));
        let many = format!("{ok}{}\r\n", "a: b\r\n".repeat(MAX_RESPONSE_HEADERS + 1));
        for (name, stream, want) in [
            ("nothing", String::new(), ReadError::Truncated),
            ("cut head", ok.to_owned(), ReadError::Truncated),
            (
                "cut body",
                format!("{ok}Content-Length: 3\r\n\r\nab"),
                ReadError::Truncated,
            ),
            (
                "cut chunks",
                format!("{ok}Transfer-Encoding: chunked\r\n\r\n3\r\nab"),
                ReadError::Truncated,
            ),
            (
                "bad length",
                format!("{ok}Content-Length: x\r\n\r\n"),
                HeadError::Malformed.into(),
            ),
            (
                "bad chunk",
                format!("{ok}Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
                ChunkError::Size.into(),
            ),
            ("interim", interim, ReadError::TooManyInterim),
            ("large", large, HeadError::TooLarge.into()),
            ("many", many, HeadError::TooManyHeaders.into()),
        ] {
            assert_eq!(
                read_all(Method::Get, stream.as_bytes(), 5),
                Err(want),
                "{name}"
            );
        }
    }

    #[test]
    fn limits_are_reached_without_an_error() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_INTERIM);
        let stream = format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert!(read_all(Method::Get, stream.as_bytes(), 9).unwrap().2);
        let frame = "HTTP/1.1 204 x\r\na: \r\n\r\n".len();
        let stream = format!(
            "HTTP/1.1 204 x\r\na: {}\r\n\r\n",
            "x".repeat(MAX_RESPONSE_HEAD_BYTES - frame)
        );
        assert!(read_all(Method::Get, stream.as_bytes(), 999).unwrap().2);
    }

    #[test]
    fn the_remaining_length_is_told() {
        let mut reader = ResponseReader::new(Method::Get);
        assert_eq!(reader.remaining(), None);
        let stream = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab";
        let (used, _) = reader.read(stream).unwrap();
        assert_eq!(reader.remaining(), Some(5));
        reader.read(&stream[used..]).unwrap();
        assert_eq!(reader.remaining(), Some(3));
    }

    proptest! {
        #[test]
        fn no_input_panics(
            start in prop::sample::select(vec!["", "HTTP/1.1 200 OK\r\n\r\n",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            piece in 1usize..50,
        ) {
            let stream = [start.as_bytes(), &bytes].concat();
            let _ = read_all(Method::Get, &stream, piece);
        }
    }
}
