//! What a response head means for a transfer: a pure function.
//!
//! In: what was asked, what the output holds, the head. Out: a [`ResponseVerdict`]. The rules for
//! resumed transfers are strict: what is not known to continue the held bytes is never appended to them.

use crate::apps::fetch::config::TransferConfig;
use crate::apps::fetch::output::Held;
use crate::apps::fetch::target::Target;
use crate::apps::fetch::{Ask, TransferFailure};
use crate::http::conditional::EntityTag;
use crate::http::digest::{REPR_DIGEST, SHA256_BYTES};
use crate::http::range::ContentRange;
use crate::http::response::ResponseHead;

/// What to do with a response.
#[derive(Debug)]
pub(super) enum ResponseVerdict {
    /// Its body is wanted and stands at `offset`.
    Accept { offset: u64 },
    /// Ask there instead.
    Redirect(Target),
    /// What is held seems whole: ask for the head, to be sure.
    Confirm,
    /// This is the head that was asked for to be sure.
    Confirmed,
    /// What is held is of another version.
    Restart,
    /// Give up.
    Fail(TransferFailure),
}

/// Judges the head of a response to a request made for `ask`.
pub(super) fn judge(
    config: &TransferConfig,
    ask: Ask,
    held: &Held,
    target: &Target,
    head: &ResponseHead,
) -> ResponseVerdict {
    let status = head.status.0;
    let redirects = config.follow && matches!(status, 301 | 302 | 303 | 307 | 308);
    if redirects && let Some(location) = head.headers.get_str("location") {
        return match target.join(location) {
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
        // RFC 9110 §13.1.5: the condition failed, so this is the new version, whole.
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

/// The entity tag as it stands in the head, if it is a strong one.
pub(super) fn strong_etag(head: &ResponseHead) -> Option<String> {
    let text = head.headers.get("etag")?;
    let tag = EntityTag::parse(text)?;
    (!tag.weak).then(|| tag.to_string())
}

/// The SHA-256 digest of the whole representation, if one is offered.
pub(super) fn offered_digest(head: &ResponseHead) -> Option<[u8; SHA256_BYTES]> {
    head.headers
        .all(REPR_DIGEST)
        .find_map(crate::http::digest::parse)
}

/// The head as text, for a user who asked for nothing else.
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
