//! Fields of a request on which recipients must agree: its length and its host (RFC 9112 §3.2, §6.3).
//!
//! In: the fields of a parsed head. Out: whether every recipient reads the same length and the same
//! host. A proxy in front that chose another of two lengths would take bytes of one request for the
//! next (request smuggling), so an ambiguous head is malformed, even where RFC 9112 allows repair.

use std::net::Ipv6Addr;

use crate::http::headers::Headers;
use crate::http::{HeadError, Version};

/// Checks the fields of a request that delimit or route it.
///
/// # Errors
/// [`HeadError::Malformed`]: an invalid or ambiguous length, or an invalid or second Host.
pub(super) fn check(headers: &Headers, version: Version) -> Result<(), HeadError> {
    let coded = headers.get("transfer-encoding").is_some();
    let sized = headers.get("content-length").is_some();
    let framed = if coded {
        // RFC 9112 §6.1: HTTP/1.0 has no transfer codings, and a length beside one is an attack.
        !sized && version == Version::Http11 && ends_in_chunked(headers)
    } else {
        !sized || has_one_length(headers)
    };
    let mut hosts = headers.all("host");
    let hosted = hosts.next().is_none_or(is_host) && hosts.next().is_none();
    if framed && hosted {
        Ok(())
    } else {
        Err(HeadError::Malformed)
    }
}

/// Whether the last transfer coding is chunked and no other is; without it a request has no end.
fn ends_in_chunked(headers: &Headers) -> bool {
    let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let count = headers
        .elements("transfer-encoding")
        .filter(|coding| chunked(coding))
        .count();
    count == 1
        && headers
            .elements("transfer-encoding")
            .last()
            .is_some_and(chunked)
}

/// Whether every Content-Length is one and the same number. RFC 9112 §6.3 permits a list of
/// identical numbers.
fn has_one_length(headers: &Headers) -> bool {
    let mut lengths = headers
        .all("content-length")
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(|value| length(value.trim_ascii()));
    let Some(Some(first)) = lengths.next() else {
        return false;
    };
    lengths.all(|other| other == Some(first))
}

/// Parses `1*DIGIT`: no sign, no white space, and not more than 64 bits.
fn length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

/// Whether a value is `[ host [ ":" port ] ]`. A target without an authority has an empty one.
fn is_host(value: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(value) else {
        return false;
    };
    if text.is_empty() {
        return true;
    }
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else {
            return false;
        };
        let port = rest.strip_prefix(':');
        return address.parse::<Ipv6Addr>().is_ok()
            && (rest.is_empty() || port.is_some_and(is_port));
    }
    match text.split_once(':') {
        Some((name, port)) => is_name(name) && is_port(port),
        None => is_name(text),
    }
}

/// Whether a text is a port, which may be empty (RFC 3986 §3.2.3).
fn is_port(text: &str) -> bool {
    text.is_empty()
        || (text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok())
}

/// Whether a text is a name or an IPv4 address (RFC 3986 §3.2.2), and not empty.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let valid = match byte {
            b'%' => {
                let mut hex = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
                hex() && hex()
            }
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
            | b',' | b';' | b'=' => true,
            byte => byte.is_ascii_alphanumeric(),
        };
        if !valid {
            return false;
        }
    }
    !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(version: Version, fields: &[(&str, &str)]) -> bool {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(name, value.as_bytes()).unwrap();
        }
        check(&headers, version).is_ok()
    }

    #[test]
    fn a_length_is_one_number() {
        let length = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|v| ("Content-Length", *v)).collect();
            checked(Version::Http11, &fields)
        };
        for values in [
            &["0"][..],
            &["42"],
            &["007"],
            &["5, 5"],
            &["5", "5"],
            &["5,5", "5"],
        ] {
            assert!(length(values), "{values:?}");
        }
        for values in [
            &["1", "2"][..],
            &["1, 2"],
            &["1,"],
            &[""],
            &["abc"],
            &["-1"],
            &["+1"],
            &["0x1"],
            &["1 2"],
            &["1.0"],
            &["18446744073709551616"],
        ] {
            assert!(!length(values), "{values:?}");
        }
    }

    #[test]
    fn a_coding_is_chunked_and_stands_alone() {
        let coded = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|v| ("Transfer-Encoding", *v)).collect();
            checked(Version::Http11, &fields)
        };
        for values in [&["chunked"][..], &["gzip, Chunked"], &["gzip", "chunked"]] {
            assert!(coded(values), "{values:?}");
        }
        for values in [
            &["gzip"][..],
            &["chunked, gzip"],
            &["chunked", "chunked"],
            &["xchunked"],
            &[""],
        ] {
            assert!(!coded(values), "{values:?}");
        }
        let chunked = ("Transfer-Encoding", "chunked");
        assert!(!checked(Version::Http10, &[chunked]), "before HTTP/1.1");
        let both = [chunked, ("Content-Length", "5")];
        assert!(!checked(Version::Http11, &both), "beside a length");
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port() {
        let host = |value| checked(Version::Http11, &[("Host", value)]);
        for value in [
            "",
            "h",
            "h:80",
            "h:",
            "a.b-c_d~e",
            "10.0.0.1:8080",
            "[::1]",
            "[fd00::2]:80",
            "%41b",
        ] {
            assert!(host(value), "{value:?}");
        }
        for value in [
            "a b", "a/b", "a@b", "h:x", "h:65536", "h:-1", "h:80:80", ":80", "[::1", "::1",
            "[::1]x", "[x]", "%4", "%zz", "h#f", "h?q", "é", "a,b c", "<h>",
        ] {
            assert!(!host(value), "{value:?}");
        }
        let twice = [("Host", "h"), ("Host", "h")];
        assert!(!checked(Version::Http11, &twice));
        assert!(checked(Version::Http11, &[]), "the application decides");
    }
}
