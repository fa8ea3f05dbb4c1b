//! The verdict on a response head: a pure function.
//!
//! In: the request, the bytes held by the output, the head. Out: a [`ResponseVerdict`]. Resuming is
//! strict: bytes that may be of another version are never appended.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, percent_encode};

use crate::apps::fetch::config::TransferConfig;
use crate::apps::fetch::output::Held;
use crate::apps::fetch::target::Target;
use crate::apps::fetch::{Ask, TransferFailure};
use crate::http::conditional::EntityTag;
use crate::http::digest::{REPR_DIGEST, SHA256_BYTES};
use crate::http::range::ContentRange;
use crate::http::response::ResponseHead;

/// How to continue after a response head.
#[derive(Debug)]
pub(super) enum ResponseVerdict {
    /// Accept its body, which starts at `offset`.
    Accept { offset: u64 },
    /// Follow a redirect.
    Redirect(Target),
    /// The bytes held seem complete: confirm with a request for the head.
    Confirm,
    /// This head confirms the bytes held.
    Confirmed,
    /// The bytes held are of another version: start over.
    Restart,
    /// Fail the transfer.
    Fail(TransferFailure),
}

/// Judges the head of the response to a request of purpose `ask`.
pub(super) fn judge(
    config: &TransferConfig,
    ask: Ask,
    held: &Held,
    target: &Target,
    head: &ResponseHead,
) -> ResponseVerdict {
    let status = head.status.0;
    let redirects = config.follow && matches!(status, 301 | 302 | 303 | 307 | 308);
    if redirects && let Some(location) = head.headers.get("location") {
        return match target.join(&location_text(location)) {
            Ok(to) => ResponseVerdict::Redirect(to),
            Err(error) => ResponseVerdict::Fail(TransferFailure::Location(error)),
        };
    }
    match ask {
        Ask::Rest if status != 416 && status >= 400 => {
            ResponseVerdict::Fail(TransferFailure::Status(status))
        }
        Ask::Rest => judge_rest(held, head),
        Ask::Confirm if status == 200 => judge_confirmation(held, head),
        Ask::Confirm => ResponseVerdict::Fail(TransferFailure::Status(status)),
        Ask::Whole if config.fail && status >= 400 => {
            ResponseVerdict::Fail(TransferFailure::Status(status))
        }
        Ask::Whole => ResponseVerdict::Accept { offset: 0 },
    }
}

/// Returns a `Location` as text; bytes that are not UTF-8, as of a server that writes Latin-1, are
/// percent-encoded.
fn location_text(location: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(location) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => percent_encode(location, NON_ASCII).into(),
    }
}

/// Controls stay, for the parser to refuse or drop.
const NON_ASCII: &AsciiSet = &AsciiSet::EMPTY;

fn judge_rest(held: &Held, head: &ResponseHead) -> ResponseVerdict {
    let changed = match (&held.etag, strong_etag(head)) {
        (Some(before), Some(now)) => *before != now,
        (None, _) | (_, None) => false,
    };
    let range = head
        .headers
        .get("content-range")
        .and_then(ContentRange::parse);
    match (head.status.0, range) {
        (206, _) if changed => ResponseVerdict::Restart,
        (
            206,
            Some(ContentRange {
                range: Some(range), ..
            }),
        ) if range.first == held.bytes => ResponseVerdict::Accept { offset: held.bytes },
        // RFC 9110 §13.1.5: the condition failed, so this is the new version, complete.
        (200, _) if changed => ResponseVerdict::Accept { offset: 0 },
        (
            416,
            Some(ContentRange {
                size: Some(size), ..
            }),
        ) if size == held.bytes => ResponseVerdict::Confirm,
        (
            416,
            Some(ContentRange {
                size: Some(size), ..
            }),
        ) if size < held.bytes => ResponseVerdict::Fail(TransferFailure::BadResume {
            have: held.bytes,
            size,
        }),
        (_, _) => ResponseVerdict::Fail(TransferFailure::RangeNotSupported),
    }
}

fn judge_confirmation(held: &Held, head: &ResponseHead) -> ResponseVerdict {
    let same_tag = held.etag.is_none() || held.etag == strong_etag(head);
    match head.content_length() {
        Ok(Some(size)) if size == held.bytes && same_tag => ResponseVerdict::Confirmed,
        Ok(_) | Err(_) => ResponseVerdict::Restart,
    }
}

/// Returns the entity tag of the head, verbatim, if it is a strong one.
pub(super) fn strong_etag(head: &ResponseHead) -> Option<String> {
    let text = head.headers.get("etag")?;
    let tag = EntityTag::parse(text)?;
    (!tag.weak).then(|| tag.to_string())
}

/// Returns the SHA-256 digest of the complete representation, if the head has one.
pub(super) fn offered_digest(head: &ResponseHead) -> Option<[u8; SHA256_BYTES]> {
    head.headers
        .all(REPR_DIGEST)
        .find_map(crate::http::digest::parse)
}

/// Formats the head as text, for `--head`.
pub(super) fn head_text(head: &ResponseHead) -> Vec<u8> {
    let version = head.version.as_str();
    let mut text = format!("{version} {} {}\r\n", head.status.0, head.status.reason()).into_bytes();
    for (name, value) in head.headers.iter() {
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_of_servers_that_write_latin_1() {
        let base = Target::parse("http://h/dir/file").unwrap();
        for (location, want) in [
            (&b"/caf\xe9"[..], "http://h/caf%E9"),
            ("/café".as_bytes(), "http://h/caf%C3%A9"),
            (b"/a%20b c", "http://h/a%20b%20c"),
        ] {
            let to = base.join(&location_text(location)).unwrap();
            assert_eq!(to.to_string(), want);
        }
    }
}
