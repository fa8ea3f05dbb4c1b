//! The representation of objects: type, entity tag, digest and body.
//!
//! In: open objects. Out: [`Representation`]s, identical on every server with the same files.

use std::sync::Arc;

use super::Origin;
use crate::apps::origin::continuation::Tag;
use crate::apps::origin::dynamic::Dynamic;
use crate::apps::origin::object::{Object, prefix};
use crate::apps::origin::render::{Body, Representation};
use crate::apps::origin::watermark::{Marked, Scheme};
use crate::apps::origin::{digest, render};
use crate::http::conditional::EntityTag;
use crate::transport::application::{RequestContext, Ticket};

impl Origin {
    pub(super) fn dynamic_object(
        &mut self,
        context: RequestContext,
        dynamic: Dynamic,
    ) -> Result<Representation, Ticket> {
        let Dynamic { seed, size, period } = dynamic;
        let block = match period {
            Some(period) => Some(self.files.block(context, seed, period)?),
            None => None,
        };
        let period_tag = period.map_or_else(String::new, |period| format!("-{period:x}"));
        Ok(Representation {
            content_type: OCTET_STREAM,
            etag: EntityTag::strong(format!("{seed:x}-{size:x}{period_tag}")),
            digest: None,
            body: Body::Dynamic { dynamic, block },
        })
    }
}

/// Returns the version tag of an object; `None` if its digest is not known.
pub(super) fn tag_of(object: &Object, provisional: bool) -> Option<Tag> {
    match provisional {
        true => Some(object.provisional_tag()),
        false => object.tag(),
    }
}

/// Represents a file with this tag, which is one of its own.
pub(super) fn file_object(
    object: Arc<Object>,
    path: &[u8],
    tag: &Tag,
    provisional: bool,
) -> Representation {
    Representation {
        content_type: content_type(path),
        etag: render::etag(tag),
        digest: (!provisional).then(|| object.digest().copied()).flatten(),
        body: Body::Object(object),
    }
}

pub(super) fn page_object(object: Arc<Object>, tag: &Tag) -> Representation {
    Representation {
        content_type: "text/html; charset=utf-8",
        ..file_object(object, b"", tag, false)
    }
}

/// Represents a watermarked object whose unmarked content has this tag; `None` if it cannot hold the
/// mark.
pub(super) fn marked_object(
    object: Arc<Object>,
    path: &[u8],
    mark: &[u8],
    tag: &Tag,
) -> Option<Representation> {
    let content_type = content_type(path);
    let scheme = Scheme::detect(content_type, object.header(), object.size())?;
    let marked = Marked::new(scheme, object.size(), mark)?;
    Some(Representation {
        content_type,
        etag: marked_etag(tag, mark),
        digest: None,
        body: Body::Marked { object, marked },
    })
}

/// Returns the entity tag of a watermarked object.
pub(super) fn marked_etag(tag: &Tag, mark: &[u8]) -> EntityTag {
    render::etag(&prefix(&digest::hash(&[tag, mark])))
}

/// The media type for the name's extension, which is the same on every server.
pub(super) fn content_type(path: &[u8]) -> &'static str {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    str::from_utf8(name)
        .ok()
        .and_then(|name| mime_guess::from_path(name).first_raw())
        .unwrap_or(OCTET_STREAM)
}

pub(super) const OCTET_STREAM: &str = "application/octet-stream";
