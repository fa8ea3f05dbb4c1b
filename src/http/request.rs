//! Request heads: bytes to [`RequestHead`] and back (RFC 9112 §3, §5).
//!
//! The target is kept as sent; the application resolves it. Bodies are not parsed:
//! [`RequestHead::has_body`] reports that one follows.

use crate::http::headers::{FieldError, Headers};
use crate::http::{HeadError, MAX_HEAD_BYTES, MAX_HEADERS, Version, framing};

/// Request methods (RFC 9110 §9, RFC 5789).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// CONNECT.
    Connect,
    /// OPTIONS.
    Options,
    /// TRACE.
    Trace,
    /// PATCH.
    Patch,
    /// A method unknown to this program.
    Unrecognised,
}

impl Method {
    /// Parses a method; names are case-sensitive (RFC 9110 §9.1).
    #[must_use]
    pub fn from_token(token: &str) -> Self {
        match token {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "CONNECT" => Self::Connect,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            "PATCH" => Self::Patch,
            _ => Self::Unrecognised,
        }
    }

    /// The method's name; `-` for an unrecognised one.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Unrecognised => "-",
        }
    }
}

/// The start line and fields of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The request target as sent: origin, absolute, authority or asterisk form.
    pub target: String,
    /// The sender's version.
    pub version: Version,
    /// The fields.
    pub headers: Headers,
}

impl RequestHead {
    /// Parses a head at the start of `bytes`; also returns its length in bytes, including the empty
    /// line.
    ///
    /// # Errors
    /// [`HeadError`]; `Incomplete` requests more bytes, the others are final.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), HeadError> {
        let window = bytes.get(..MAX_HEAD_BYTES).unwrap_or(bytes);
        let mut slots = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut slots);
        let httparse::Status::Complete(length) = parsed.parse(window)? else {
            return Err(HeadError::unfinished(bytes, MAX_HEAD_BYTES));
        };
        let (Some(method), Some(target), Some(minor)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(HeadError::Malformed);
        };
        let headers = Headers::collect(parsed.headers)?;
        let version = Version::from_minor(minor);
        framing::check(&headers, version)?;
        let head = Self {
            method: Method::from_token(method),
            target: target.to_owned(),
            version,
            headers,
        };
        Ok((head, length))
    }

    /// Returns the bytes of a GET or HEAD request for `target` (origin form) at `host`.
    ///
    /// # Errors
    /// [`FieldError`] if `host` or one of `fields` is not valid in a head, or `target` is not
    /// visible ASCII (reported as an invalid value).
    pub fn emit(
        method: Method,
        target: &str,
        host: &str,
        fields: &[(&str, &str)],
    ) -> Result<Vec<u8>, FieldError> {
        if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(FieldError::Value);
        }
        let mut headers = Headers::new();
        headers.push("Host", host.as_bytes())?;
        for (name, value) in fields {
            headers.push(name, value.as_bytes())?;
        }
        let mut out = format!("{} {target} HTTP/1.1\r\n", method.as_str()).into_bytes();
        headers.emit(&mut out);
        out.extend_from_slice(b"\r\n");
        Ok(out)
    }

    /// Whether the sender keeps the connection open (RFC 9112 §9.3).
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        if self.headers.has_token("connection", "close") {
            return false;
        }
        match self.version {
            Version::Http11 => true,
            Version::Http10 => self.headers.has_token("connection", "keep-alive"),
        }
    }

    /// Whether a body follows the head (RFC 9112 §6).
    #[must_use]
    pub fn has_body(&self) -> bool {
        self.headers.get("transfer-encoding").is_some()
            || self
                .headers
                .all("content-length")
                .any(|value| value != b"0")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads_are_read() {
        let bytes = b"GET /a?b HTTP/1.1\r\nHost: h\r\nRange:  bytes=0-1 \r\n\r\nrest";
        let (head, length) = RequestHead::parse(bytes).unwrap();
        assert_eq!(length, bytes.len() - 4);
        assert_eq!((head.method, head.target.as_str()), (Method::Get, "/a?b"));
        assert_eq!(head.headers.get("range"), Some(b"bytes=0-1".as_slice()));
        assert!(head.is_persistent());
        assert!(!head.has_body());
    }

    #[test]
    fn wrong_heads_are_refused() {
        let long = format!(
            "GET / HTTP/1.1\r\na: {}\r\n\r\n",
            "x".repeat(MAX_HEAD_BYTES)
        );
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_HEADERS + 1)
        );
        for (name, bytes, want) in [
            ("empty", "", HeadError::Incomplete),
            (
                "cut",
                "GET / HTTP/1.1\r\nHost: h\r\n",
                HeadError::Incomplete,
            ),
            ("version", "GET / HTTP/2.0\r\n\r\n", HeadError::Version),
            ("no target", "GET\r\n\r\n", HeadError::Malformed),
            (
                "space in name",
                "GET / HTTP/1.1\r\na b: c\r\n\r\n",
                HeadError::Malformed,
            ),
            (
                "nul",
                "GET / HTTP/1.1\r\na: \0\r\n\r\n",
                HeadError::Malformed,
            ),
            (
                "two lengths",
                "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                HeadError::Malformed,
            ),
            (
                "a wrong host",
                "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
                HeadError::Malformed,
            ),
            ("too large", &long, HeadError::TooLarge),
            ("too many", &many, HeadError::TooManyHeaders),
        ] {
            assert_eq!(RequestHead::parse(bytes.as_bytes()), Err(want), "{name}");
        }
    }

    #[test]
    fn heads_at_the_limits_are_read() {
        let frame = "GET / HTTP/1.1\r\na: \r\n\r\n".len();
        let value = "x".repeat(MAX_HEAD_BYTES - frame);
        let full = format!("GET / HTTP/1.1\r\na: {value}\r\n\r\n");
        assert_eq!(
            RequestHead::parse(full.as_bytes()).unwrap().1,
            MAX_HEAD_BYTES
        );
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS));
        let (head, _) = RequestHead::parse(many.as_bytes()).unwrap();
        assert_eq!(head.headers.len(), MAX_HEADERS);
    }

    #[test]
    fn persistence_and_bodies() {
        for (name, text, persistent, body) in [
            ("1.0", "GET / HTTP/1.0\r\n\r\n", false, false),
            (
                "1.0 kept",
                "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
                true,
                false,
            ),
            (
                "1.1 closed",
                "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
                false,
                false,
            ),
            (
                "length",
                "PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
                true,
                true,
            ),
            (
                "no length",
                "PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
                true,
                false,
            ),
            (
                "chunked",
                "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                true,
                true,
            ),
        ] {
            let (head, _) = RequestHead::parse(text.as_bytes()).unwrap();
            assert_eq!(
                (head.is_persistent(), head.has_body()),
                (persistent, body),
                "{name}"
            );
        }
    }

    #[test]
    fn requests_that_would_break_the_line_are_refused() {
        for target in ["", "/a b", "/\r\nX: y", "/é"] {
            assert!(
                RequestHead::emit(Method::Get, target, "h", &[]).is_err(),
                "{target:?}"
            );
        }
        assert!(RequestHead::emit(Method::Get, "/", "h", &[("X", "a\nb")]).is_err());
    }

    proptest! {
        #[test]
        fn emitted_heads_parse(target in "/[!-~]{0,40}", value in "[ -~]{0,40}") {
            let bytes =
                RequestHead::emit(Method::Head, &target, "host:80", &[("X-Y", &value)]).unwrap();
            let (head, length) = RequestHead::parse(&bytes).unwrap();
            prop_assert_eq!(length, bytes.len());
            prop_assert_eq!(head.target, target);
            prop_assert_eq!(head.headers.get_str("x-y").unwrap(), value.trim_ascii());
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = RequestHead::parse(&bytes);
        }
    }
}
