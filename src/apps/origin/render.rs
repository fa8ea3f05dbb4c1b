//! Renders a response to its bytes: head and body as one stream.
//!
//! In: a [`UserContinuation`] and its [`Representation`]. Out: the stream's length and any part of it.
//! The head depends on nothing else, so every server generates the same one. It is short, so that a
//! small object completes in one round trip. There is no `Last-Modified`: copies of a tree have
//! different times, and servers would disagree.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::apps::origin::continuation::{RequestOutcome, Resource, Tag, UserContinuation};
use crate::apps::origin::digest::Sha256;
use crate::apps::origin::dynamic::{self, Dynamic};
use crate::apps::origin::object::{Object, Unread};
use crate::apps::origin::target;
use crate::apps::origin::watermark::Marked;
use crate::http::conditional::EntityTag;
use crate::http::response::HeadWriter;
use crate::http::status::Status;
use crate::http::{date, digest, range};
use crate::transport::application::copy_at;
use crate::wire::payload::{Gathered, Shared};

/// The version of the rendering: of heads, and of the text of statuses. Changes with any change that
/// alters a byte of them, so that servers of two releases never mix them.
pub(super) const RENDERING: u8 = 1;

/// A version of a resource.
#[derive(Debug)]
pub(super) struct Representation {
    /// The source of its bytes.
    pub(super) body: Body,
    /// Media type.
    pub(super) content_type: &'static str,
    /// Its strong entity tag.
    pub(super) etag: EntityTag,
    /// Its SHA-256 digest, if known without reading.
    pub(super) digest: Option<Sha256>,
}

/// The source of a representation's bytes.
#[derive(Debug)]
pub(super) enum Body {
    Object(Arc<Object>),
    Marked {
        object: Arc<Object>,
        marked: Marked,
    },
    Dynamic {
        dynamic: Dynamic,
        /// The repeated block, if it has a period.
        block: Option<Shared>,
    },
}

impl Representation {
    /// Length in bytes.
    pub(super) fn size(&self) -> u64 {
        match &self.body {
            Body::Object(object) => object.size(),
            Body::Marked { marked, .. } => marked.size(),
            Body::Dynamic { dynamic, .. } => dynamic.size,
        }
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, Unread> {
        match &self.body {
            Body::Object(object) => object.read_at(offset, out),
            Body::Marked { object, marked } => {
                marked.read_at(offset, out, |offset, out| object.read_at(offset, out))
            }
            Body::Dynamic { dynamic, block } => {
                let left = dynamic.size.saturating_sub(offset);
                let length = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let out = out.get_mut(..length).unwrap_or_default();
                match block {
                    Some(block) => dynamic::repeat(block.bytes(), offset, out),
                    None => dynamic::fill(dynamic.seed, offset, out),
                }
                Ok(length)
            }
        }
    }
}

/// Returns the entity tag for a version tag.
pub(super) fn etag(tag: &Tag) -> EntityTag {
    EntityTag::strong(URL_SAFE_NO_PAD.encode(tag))
}

/// A response stream.
#[derive(Debug)]
pub(super) struct Stream {
    head: Vec<u8>,
    /// Length of the head with which the response began.
    head_length: u64,
    /// Whether that head is another than this server's.
    other_head: bool,
    body: StreamBody,
}

#[derive(Debug)]
enum StreamBody {
    Text(Vec<u8>),
    Part {
        representation: Representation,
        start: u64,
        length: u64,
    },
}

impl Stream {
    /// Creates the stream of a response without an object; `None` if `user` has one.
    pub(super) fn of_fixed(user: &UserContinuation) -> Option<Self> {
        let (status, location) = match &user.resource {
            Resource::Fixed(status) => (*status, None),
            Resource::Redirect { path } => (
                Status::MOVED_PERMANENTLY,
                Some(format!("/{}/", target::encode(path))),
            ),
            Resource::File { .. }
            | Resource::Listing { .. }
            | Resource::Dynamic { .. }
            | Resource::Watermark { .. } => return None,
        };
        Some(Self::of_status(user, status, |head| {
            let head = match &location {
                Some(location) => head.field("Location", location),
                None => head,
            };
            // RFC 9110 §15.5.6: a 405 lists the allowed methods.
            if status == Status::METHOD_NOT_ALLOWED {
                head.field("Allow", "GET, HEAD")
            } else {
                head
            }
        }))
    }

    /// Creates the stream of a response about an object; `None` if the part exceeds it.
    pub(super) fn of_object(user: &UserContinuation, about: Representation) -> Option<Self> {
        let size = about.size();
        let (status, start, length) = match user.outcome {
            RequestOutcome::Whole => (Status::OK, 0, size),
            RequestOutcome::Part(part) if part.first <= part.last && part.last < size => {
                (Status::PARTIAL_CONTENT, part.first, part.length())
            }
            RequestOutcome::Part(_) => return None,
            RequestOutcome::NotModified => {
                // RFC 9110 §15.4.5: a 304 repeats the validator, and has no body to describe.
                let head = head(user, Status::NOT_MODIFIED)
                    .field("ETag", &about.etag)
                    .finish();
                return Some(Self::new(head, StreamBody::Text(Vec::new())));
            }
            RequestOutcome::PreconditionFailed => {
                return Some(Self::of_status(user, Status::PRECONDITION_FAILED, |head| {
                    head
                }));
            }
            RequestOutcome::Unsatisfiable => {
                let unsatisfied = range::unsatisfied_range(size);
                return Some(Self::of_status(
                    user,
                    Status::RANGE_NOT_SATISFIABLE,
                    |head| head.field("Content-Range", &unsatisfied),
                ));
            }
        };
        let mut head = head(user, status)
            .field("Content-Type", about.content_type)
            .field("Content-Length", length)
            .field("ETag", &about.etag)
            .field("Accept-Ranges", "bytes");
        if let RequestOutcome::Part(part) = user.outcome {
            head = head.field("Content-Range", range::content_range(part, size));
        }
        if let Some(sha256) = &about.digest {
            head = head.field(digest::REPR_DIGEST, digest::ReprDigest(sha256));
        }
        let length = if user.head_only { 0 } else { length };
        let body = StreamBody::Part {
            representation: about,
            start,
            length,
        };
        Some(Self::new(head.finish(), body))
    }

    fn new(head: Vec<u8>, body: StreamBody) -> Self {
        Self {
            head_length: u64::try_from(head.len()).unwrap_or(0),
            head,
            other_head: false,
            body,
        }
    }

    /// Continues a response that began at a server which may render heads otherwise: then only the bytes
    /// of an object are the same.
    pub(super) fn after(mut self, user: &UserContinuation) -> Self {
        self.other_head = user.rendering != RENDERING || self.head_length != u64::from(user.head);
        self.head_length = u64::from(user.head);
        self
    }

    /// Length in bytes, head and body.
    pub(super) fn length(&self) -> u64 {
        let body = match &self.body {
            StreamBody::Text(text) => u64::try_from(text.len()).unwrap_or(0),
            StreamBody::Part { length, .. } => *length,
        };
        self.head_length + body
    }

    /// The object of the body, if any.
    pub(super) const fn source(&self) -> Option<&Arc<Object>> {
        match &self.body {
            StreamBody::Part { representation, .. } => match &representation.body {
                Body::Object(object) | Body::Marked { object, .. } => Some(object),
                Body::Dynamic { .. } => None,
            },
            StreamBody::Text(_) => None,
        }
    }

    /// The object whose unmodified bytes form the body, if any.
    pub(super) const fn object(&self) -> Option<&Arc<Object>> {
        match &self.body {
            StreamBody::Part {
                representation:
                    Representation {
                        body: Body::Object(object),
                        ..
                    },
                ..
            } => Some(object),
            StreamBody::Part { .. } | StreamBody::Text(_) => None,
        }
    }

    /// Stages at most `bytes` from `offset` on: shares them with `content`, the object's, or reads
    /// them. Returns the number of bytes, which is short only at the end, and whether they are shared.
    pub(super) fn stage(
        &self,
        offset: u64,
        bytes: usize,
        content: Option<&Shared>,
        out: &mut Gathered,
    ) -> Result<(usize, bool), Unread> {
        if let StreamBody::Part {
            representation,
            start,
            length,
        } = &self.body
            && let Some(offset) = offset.checked_sub(self.head_length)
        {
            let left = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
            let (at, bytes) = (start + offset, bytes.min(left));
            match (&representation.body, content) {
                (Body::Object(object), Some(content)) => {
                    object.check()?;
                    let at = usize::try_from(at).unwrap_or(usize::MAX);
                    return Ok((out.share(content, at, bytes), true));
                }
                (
                    Body::Dynamic {
                        block: Some(block), ..
                    },
                    _,
                ) => {
                    dynamic::share(block, at, bytes, out);
                    return Ok((bytes, false));
                }
                (Body::Object(_) | Body::Marked { .. } | Body::Dynamic { .. }, _) => {}
            }
        }
        let read = out.fill(bytes, |out| self.read_at(offset, out))?;
        Ok((read, false))
    }

    /// Fills `out` from `offset` on; returns the number of bytes, which is short only at the end.
    pub(super) fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, Unread> {
        let of_head = offset < self.head_length || matches!(self.body, StreamBody::Text(_));
        if self.other_head && of_head {
            return Err(Unread::OtherHead);
        }
        let from_head = match of_head {
            true => copy_at(&self.head, offset, out),
            false => 0,
        };
        let out = out.get_mut(from_head..).unwrap_or_default();
        let offset = offset.saturating_sub(self.head_length);
        let from_body = match &self.body {
            StreamBody::Text(text) => copy_at(text, offset, out),
            StreamBody::Part {
                representation,
                start,
                length,
            } => {
                let left = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
                let wanted = out.len().min(left);
                if wanted == 0 {
                    return Ok(from_head);
                }
                let out = out.get_mut(..wanted).unwrap_or_default();
                let read = representation.read_at(start + offset, out)?;
                if read < wanted {
                    return Err(Unread::Stale);
                }
                read
            }
        };
        Ok(from_head + from_body)
    }

    /// Creates the stream of a status with a line of text as its body.
    fn of_status(
        user: &UserContinuation,
        status: Status,
        fields: impl FnOnce(HeadWriter) -> HeadWriter,
    ) -> Self {
        let text = format!("{} {}\n", status.0, status.reason()).into_bytes();
        let head = fields(head(user, status))
            .field("Content-Type", "text/plain")
            .field("Content-Length", text.len())
            .finish();
        let body = if user.head_only { Vec::new() } else { text };
        Self::new(head, StreamBody::Text(body))
    }

    /// Length of the head in bytes.
    pub(super) const fn head_length(&self) -> u64 {
        self.head_length
    }
}

fn head(user: &UserContinuation, status: Status) -> HeadWriter {
    HeadWriter::new(status).field("Date", date::format(user.date))
}
