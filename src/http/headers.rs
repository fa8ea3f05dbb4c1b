//! Header fields in the order of the message, with case-insensitive lookup (RFC 9110 §5).
//!
//! `push` rejects a name that is not a token, a value that would break the line and any field above
//! [`MAX_HEADERS`], so every emitted list parses.

use crate::http::response::TYPICAL_HEAD_BYTES;
use crate::http::{HeadError, MAX_HEADERS};

/// The reason for rejecting a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The name is empty or not a token (RFC 9110 §5.6.2).
    #[error("invalid header name")]
    Name,
    /// The value contains a CR, LF or NUL (RFC 9110 §5.5).
    #[error("invalid header value")]
    Value,
    /// The list is full.
    #[error("more than {MAX_HEADERS} header fields")]
    TooMany,
}

/// Fields to reserve space for.
const TYPICAL_HEADERS: usize = 8;

/// A list of at most [`MAX_HEADERS`] fields, or of a received response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Names and values, concatenated.
    text: Vec<u8>,
    /// The offsets in `text` where each name and each value ends.
    ends: Vec<(usize, usize)>,
}

impl Headers {
    /// Returns an empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            text: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Collects the fields of a parsed head.
    ///
    /// # Errors
    /// [`HeadError::Malformed`] if a field is not valid in a head.
    pub(super) fn collect(parsed: &[httparse::Header<'_>]) -> Result<Self, HeadError> {
        let mut headers = Self::new();
        for field in parsed {
            headers
                .push(field.name, field.value)
                .map_err(|_| HeadError::Malformed)?;
        }
        Ok(headers)
    }

    /// Appends a field.
    ///
    /// # Errors
    /// [`FieldError`]; the list is then unchanged.
    pub fn push(&mut self, name: &str, value: &[u8]) -> Result<(), FieldError> {
        self.push_within(MAX_HEADERS, name, value)
    }

    /// Appends a field to a list of at most `limit`.
    pub(super) fn push_within(
        &mut self,
        limit: usize,
        name: &str,
        value: &[u8],
    ) -> Result<(), FieldError> {
        if self.len() >= limit {
            return Err(FieldError::TooMany);
        }
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(FieldError::Name);
        }
        if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(FieldError::Value);
        }
        if self.is_empty() {
            self.text.reserve(TYPICAL_HEAD_BYTES);
            self.ends.reserve(TYPICAL_HEADERS);
        }
        self.text.extend_from_slice(name.as_bytes());
        let name_end = self.text.len();
        self.text.extend_from_slice(value.trim_ascii());
        self.ends.push((name_end, self.text.len()));
        Ok(())
    }

    /// The first field of that name, without surrounding white space.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Like [`Self::get`], but `None` also if the value is not UTF-8.
    #[must_use]
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| str::from_utf8(value).ok())
    }

    /// Returns every field of that name, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields()
            .filter(move |(have, _)| have.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Returns the comma-separated elements of every field of that name, trimmed, without empty
    /// ones (RFC 9110 §5.6.1). Not for fields whose elements may contain quoted commas.
    pub fn elements<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// Whether a comma-separated field contains this token, in any case.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.elements(name)
            .any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Returns name and value of every field, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        // A token is ASCII.
        self.fields()
            .map(|(name, value)| (str::from_utf8(name).unwrap_or_default(), value))
    }

    fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(name_end, end)| {
            let name = self.text.get(start..name_end).unwrap_or_default();
            start = end;
            (name, self.text.get(name_end..end).unwrap_or_default())
        })
    }

    /// The number of fields.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the list is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Appends the field lines to a message head.
    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        for (name, value) in self.iter() {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Whether the byte may occur in a token (RFC 9110 §5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_ignores_case_and_splits_lists() {
        let mut headers = Headers::new();
        headers.push("Connection", b"keep-alive, Close ,").unwrap();
        headers.push("connection", b"upgrade").unwrap();
        assert_eq!(
            headers.get("CONNECTION"),
            Some(b"keep-alive, Close ,".as_slice())
        );
        assert!(headers.has_token("connection", "close"));
        assert!(!headers.has_token("connection", "keep"));
        assert_eq!(headers.elements("connection").count(), 3);
        assert_eq!(headers.get("host"), None);
    }

    #[test]
    fn fields_that_would_break_the_head_are_refused() {
        let mut headers = Headers::new();
        for (name, value, want) in [
            ("", "x", FieldError::Name),
            ("a b", "x", FieldError::Name),
            ("a:", "x", FieldError::Name),
            ("a", "x\r\ny: z", FieldError::Value),
            ("a", "x\0", FieldError::Value),
        ] {
            assert_eq!(
                headers.push(name, value.as_bytes()),
                Err(want),
                "{name:?} {value:?}"
            );
        }
        assert!(headers.is_empty());
    }

    #[test]
    fn the_list_is_bounded() {
        let mut headers = Headers::new();
        for _ in 0..MAX_HEADERS {
            headers.push("a", b"b").unwrap();
        }
        assert_eq!(headers.push("a", b"b"), Err(FieldError::TooMany));
        assert_eq!(headers.len(), MAX_HEADERS);
    }
}
