//! Response heads: bytes to [`ResponseHead`], and [`HeadWriter`], which writes them compactly.
//!
//! `HeadWriter` is for fields made by this program. A line break in a value would split the
//! message, so CR, LF and NUL become spaces (RFC 9110 §5.5).

use core::fmt::Display;
use std::borrow::Cow;
use std::io::Write as _;

use crate::http::headers::Headers;
use crate::http::status::Status;
use crate::http::{HeadError, MAX_HEADERS, Version};

/// Longest head of a response that is read, in bytes, as by curl.
pub const MAX_RESPONSE_HEAD_BYTES: usize = 300 * 1024;

/// Most fields of a response that is read, as by curl.
pub const MAX_RESPONSE_HEADERS: usize = 5000;

/// The status line and fields of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status code.
    pub status: Status,
    /// The sender's version.
    pub version: Version,
    /// The fields.
    pub headers: Headers,
}

impl ResponseHead {
    /// Parses a head at the start of `bytes`; also returns its length in bytes, including the empty
    /// line.
    ///
    /// # Errors
    /// [`HeadError`]; `Incomplete` requests more bytes, the others are final.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), HeadError> {
        let mut few = [httparse::EMPTY_HEADER; MAX_HEADERS];
        match Self::parse_into(&mut few, bytes) {
            Err(HeadError::TooManyHeaders) => {
                let mut many = vec![httparse::EMPTY_HEADER; MAX_RESPONSE_HEADERS];
                Self::parse_into(&mut many, bytes)
            }
            parsed => parsed,
        }
    }

    fn parse_into<'a>(
        slots: &mut [httparse::Header<'a>],
        bytes: &'a [u8],
    ) -> Result<(Self, usize), HeadError> {
        let window = bytes.get(..MAX_RESPONSE_HEAD_BYTES).unwrap_or(bytes);
        let mut parsed = httparse::Response::new(slots);
        let mut config = httparse::ParserConfig::default();
        config.allow_obsolete_multiline_headers_in_responses(true);
        let complete = config.parse_response(&mut parsed, window)?;
        let httparse::Status::Complete(length) = complete else {
            return Err(HeadError::unfinished(bytes, MAX_RESPONSE_HEAD_BYTES));
        };
        let (Some(code), Some(minor)) = (parsed.code, parsed.version) else {
            return Err(HeadError::Malformed);
        };
        // RFC 9110 §15: a client reads a code above 599 as it is, like an error of the server.
        if code < 100 {
            return Err(HeadError::Malformed);
        }
        let mut headers = Headers::new();
        for field in parsed.headers.iter() {
            let value = unfolded(field.value);
            headers
                .push_within(MAX_RESPONSE_HEADERS, field.name, &value)
                .map_err(|_| HeadError::Malformed)?;
        }
        Ok((
            Self {
                status: Status(code),
                version: Version::from_minor(minor),
                headers,
            },
            length,
        ))
    }

    /// Returns `Content-Length` in bytes, if present (RFC 9112 §6.3 rule 5: a list of equal values
    /// counts as one).
    ///
    /// # Errors
    /// [`HeadError::Malformed`] if it is not a number, or if values differ.
    pub fn content_length(&self) -> Result<Option<u64>, HeadError> {
        let mut length = None;
        for element in self.headers.elements("content-length") {
            let value = parse_decimal(element).ok_or(HeadError::Malformed)?;
            if length.is_some_and(|before| before != value) {
                return Err(HeadError::Malformed);
            }
            length = Some(value);
        }
        if length.is_none() && self.headers.get("content-length").is_some() {
            return Err(HeadError::Malformed);
        }
        Ok(length)
    }
}

/// Replaces the line breaks of a value on several lines with spaces (RFC 9112 §5.2).
fn unfolded(value: &[u8]) -> Cow<'_, [u8]> {
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
    if !value.iter().any(is_break) {
        return Cow::Borrowed(value);
    }
    let unfold = |byte: &u8| if is_break(byte) { b' ' } else { *byte };
    Cow::Owned(value.iter().map(unfold).collect())
}

/// Parses digits only: no sign, no space, no overflow.
pub(super) fn parse_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Writes a response head field by field.
#[derive(Clone, Debug)]
pub struct HeadWriter {
    out: Vec<u8>,
}

impl HeadWriter {
    /// Creates a head that consists of a status line.
    #[must_use]
    pub fn new(status: Status) -> Self {
        let mut out = Vec::with_capacity(TYPICAL_HEAD_BYTES);
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {:03} {}\r\n", status.0, status.reason());
        Self { out }
    }

    /// Appends a field line.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Display) -> Self {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        let start = self.out.len();
        let _ = write!(self.out, "{value}");
        for byte in self.out.iter_mut().skip(start) {
            if matches!(byte, b'\r' | b'\n' | 0) {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Returns the whole head, including the empty line.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(b"\r\n");
        self.out
    }
}

/// Size of the most frequent heads, so that one allocation suffices.
pub(super) const TYPICAL_HEAD_BYTES: usize = 320;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> ResponseHead {
        ResponseHead::parse(text.as_bytes()).unwrap().0
    }

    #[test]
    fn content_length_rules() {
        for (name, fields, want) in [
            ("none", "", Ok(None)),
            ("one", "Content-Length: 12\r\n", Ok(Some(12))),
            ("equal list", "Content-Length: 7, 7\r\n", Ok(Some(7))),
            (
                "equal fields",
                "Content-Length: 7\r\ncontent-length: 7\r\n",
                Ok(Some(7)),
            ),
            (
                "different",
                "Content-Length: 7\r\nContent-Length: 8\r\n",
                Err(HeadError::Malformed),
            ),
            ("sign", "Content-Length: +7\r\n", Err(HeadError::Malformed)),
            ("empty", "Content-Length:\r\n", Err(HeadError::Malformed)),
            (
                "overflow",
                "Content-Length: 18446744073709551616\r\n",
                Err(HeadError::Malformed),
            ),
            (
                "greatest",
                "Content-Length: 18446744073709551615\r\n",
                Ok(Some(u64::MAX)),
            ),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert_eq!(head(&text).content_length(), want, "{name}");
        }
    }

    #[test]
    fn wrong_heads_are_refused() {
        for (name, text, want) in [
            ("cut", "HTTP/1.1 200", HeadError::Incomplete),
            ("not http", "SSH-2.0-x\r\n\r\n", HeadError::Version),
            ("code 099", "HTTP/1.1 099 X\r\n\r\n", HeadError::Malformed),
            ("code 1000", "HTTP/1.1 1000 X\r\n\r\n", HeadError::Malformed),
            ("code abc", "HTTP/1.1 abc X\r\n\r\n", HeadError::Malformed),
        ] {
            assert_eq!(ResponseHead::parse(text.as_bytes()), Err(want), "{name}");
        }
        let frame = "HTTP/1.1 200 OK\r\na: \r\n\r\n".len();
        for (extra, want) in [(0, None), (1, Some(HeadError::TooLarge))] {
            let value = "x".repeat(MAX_RESPONSE_HEAD_BYTES - frame + extra);
            let text = format!("HTTP/1.1 200 OK\r\na: {value}\r\n\r\n");
            assert_eq!(
                ResponseHead::parse(text.as_bytes()).err(),
                want,
                "{extra} past the limit"
            );
        }
    }

    #[test]
    fn heads_are_read_that_curl_reads() {
        let folded = "HTTP/1.1 999 Denied\r\nX: a;\r\n b;\r\n\tc\r\nContent-Length:\r\n 7\r\n\r\n";
        let folded = head(folded);
        assert_eq!(folded.status.0, 999);
        let value: Vec<_> = folded
            .headers
            .get_str("x")
            .unwrap()
            .split_whitespace()
            .collect();
        assert_eq!(value, ["a;", "b;", "c"]);
        assert_eq!(folded.content_length(), Ok(Some(7)));
        for count in [MAX_HEADERS + 1, MAX_RESPONSE_HEADERS] {
            let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(count));
            assert_eq!(head(&many).headers.len(), count);
        }
        let more = "a: b\r\n".repeat(MAX_RESPONSE_HEADERS + 1);
        let more = format!("HTTP/1.1 200 OK\r\n{more}\r\n");
        let refused = ResponseHead::parse(more.as_bytes());
        assert_eq!(refused, Err(HeadError::TooManyHeaders));
    }

    #[test]
    fn a_written_head_parses_and_cannot_be_split() {
        let bytes = HeadWriter::new(Status::NOT_FOUND)
            .field("X", "a\r\nY: b")
            .finish();
        let (head, length) = ResponseHead::parse(&bytes).unwrap();
        assert_eq!(length, bytes.len());
        assert_eq!(head.status, Status::NOT_FOUND);
        assert_eq!(head.headers.get_str("x"), Some("a  Y: b"));
        assert_eq!(head.headers.len(), 1);
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = ResponseHead::parse(&bytes);
        }
    }
}
