//! Converts a request target to a path below the root, and back to a URL path.
//!
//! In: the target as sent (RFC 9112 §3.2, origin or absolute form; query and fragment are ignored).
//! Out: decoded path segments joined by `/`, without empty, `.` or `..` ones. Rejects a path that
//! climbs above the root or escapes a `/` or NUL, before the file system, which would also reject it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::http::status::Status;

/// Longest decoded path in bytes: the kernel's PATH_MAX without the name of an index. Long ones have
/// [`alias`](super::alias)es in user continuations.
pub const MAX_PATH_BYTES: usize = 4080;

/// A path below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Decoded segments joined by `/`; empty for the root.
    pub path: Vec<u8>,
    /// Whether it can only name a directory: it ended in `/`, `/.` or `/..`.
    pub directory: bool,
}

/// Parses a request target.
///
/// # Errors
/// The response status: 400 malformed, 403 above the root, 404 cannot name a file, 414 longer than
/// [`MAX_PATH_BYTES`].
pub fn parse(target: &str) -> Result<Target, Status> {
    let raw = origin_form(target).ok_or(Status::BAD_REQUEST)?;
    let raw = raw.split(['?', '#']).next().unwrap_or(raw);
    let mut path = Vec::with_capacity(raw.len());
    let mut directory = true;
    for raw_segment in raw.split('/').skip(1) {
        let before = path.len();
        if before > 0 {
            path.push(b'/');
        }
        let start = path.len();
        decode(raw_segment, &mut path).ok_or(Status::BAD_REQUEST)?;
        let segment = path.get(start..).unwrap_or_default();
        if segment.contains(&0) {
            return Err(Status::BAD_REQUEST);
        }
        directory = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => path.truncate(before),
            // RFC 3986 §5.2.4 would stay at the root; a sender of this tries to escape it.
            b".." if before == 0 => return Err(Status::FORBIDDEN),
            b".." => {
                path.truncate(before);
                let parent = path.iter().rposition(|&byte| byte == b'/');
                path.truncate(parent.unwrap_or(0));
            }
            name if name.contains(&b'/') => return Err(Status::NOT_FOUND),
            _ => {}
        }
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(Status::URI_TOO_LONG);
    }
    Ok(Target { path, directory })
}

/// Encodes a path for a URL, without a leading slash.
#[must_use]
pub fn encode(path: &[u8]) -> String {
    percent_encode(path, ESCAPED).to_string()
}

// All characters but unreserved ones (RFC 3986 §2.3) and the separator.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// Returns path and query of a target in origin or absolute form.
fn origin_form(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return Some(target);
    }
    // RFC 9112 §3.2.2: a server must accept the absolute form.
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    match rest.find(['/', '?', '#']) {
        Some(at) if rest.get(at..)?.starts_with('/') => rest.get(at..),
        Some(_) | None => Some("/"),
    }
}

/// Appends a segment, percent-decoded; `None` if an escape is malformed.
fn decode(segment: &str, out: &mut Vec<u8>) -> Option<()> {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn targets_are_resolved() {
        for (target, path, directory) in [
            ("/", "", true),
            ("/a", "a", false),
            ("/a/", "a", true),
            ("/a//b", "a/b", false),
            ("//a", "a", false),
            ("/./a/./b", "a/b", false),
            ("/a/..", "", true),
            ("/a/../b", "b", false),
            ("/a/.", "a", true),
            ("/a%20b", "a b", false),
            ("/%61", "a", false),
            ("/a/%2e%2E/b", "b", false),
            ("/a?x=/../..", "a", false),
            ("/a#x", "a", false),
            ("/...", "...", false),
            ("/a\\..\\b", "a\\..\\b", false),
            ("http://host:80/a/b?c", "a/b", false),
            ("HTTP://host", "", true),
            ("http://host?x/y", "", true),
        ] {
            let want = Target {
                path: path.into(),
                directory,
            };
            assert_eq!(parse(target), Ok(want), "{target}");
        }
    }

    #[test]
    fn wrong_targets_are_refused() {
        for (target, want) in [
            ("", Status::BAD_REQUEST),
            ("*", Status::BAD_REQUEST),
            ("a", Status::BAD_REQUEST),
            ("host:443", Status::BAD_REQUEST),
            ("ftp://host/a", Status::BAD_REQUEST),
            ("/%", Status::BAD_REQUEST),
            ("/%2", Status::BAD_REQUEST),
            ("/%zz", Status::BAD_REQUEST),
            ("/%+1", Status::BAD_REQUEST),
            ("/a%00b", Status::BAD_REQUEST),
            ("/..", Status::FORBIDDEN),
            ("/../etc/passwd", Status::FORBIDDEN),
            ("/a/../../b", Status::FORBIDDEN),
            ("/%2e%2e/b", Status::FORBIDDEN),
            ("/.%2e/b", Status::FORBIDDEN),
            ("/..%2f..%2fetc", Status::NOT_FOUND),
            ("/%2fetc/passwd", Status::NOT_FOUND),
        ] {
            assert_eq!(parse(target), Err(want), "{target}");
        }
    }

    #[test]
    fn the_length_is_bounded() {
        let target = |length: usize| format!("/{}", "x".repeat(length));
        assert_eq!(
            parse(&target(MAX_PATH_BYTES)).unwrap().path.len(),
            MAX_PATH_BYTES
        );
        assert_eq!(
            parse(&target(MAX_PATH_BYTES + 1)),
            Err(Status::URI_TOO_LONG)
        );
        let climbing = format!("{}/x", "/dir/..".repeat(MAX_PATH_BYTES));
        assert_eq!(parse(&climbing).unwrap().path, b"x");
    }

    proptest! {
        #[test]
        fn encode_and_parse_are_inverse(
            names in proptest::collection::vec("[^/\0]{1,20}", 1..5)
        ) {
            prop_assume!(names.iter().all(|name| name != "." && name != ".."));
            let path = names.join("/").into_bytes();
            prop_assume!(path.len() <= MAX_PATH_BYTES);
            let target = format!("/{}", encode(&path));
            prop_assert_eq!(parse(&target), Ok(Target { path, directory: false }));
        }

        #[test]
        fn what_is_accepted_stays_below_the_root(target in "/[a./%2fe]{0,40}") {
            if let Ok(target) = parse(&target) {
                let mut segments = target.path.split(|&byte| byte == b'/');
                prop_assert!(target.path.is_empty()
                    || segments.all(|segment| !matches!(segment, b"" | b"." | b"..")));
            }
        }
    }
}
