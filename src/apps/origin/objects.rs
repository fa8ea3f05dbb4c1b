//! The representation of objects: type, entity tag, digest and body.
//!
//! In: open objects. Out: [`Representation`]s, identical on every server with the same files.

use std::sync::Arc;

use super::Origin;
use crate::apps::origin::continuation::{TAG_BYTES, Tag};
use crate::apps::origin::digest::Sha256;
use crate::apps::origin::dynamic::Dynamic;
use crate::apps::origin::files::Object;
use crate::apps::origin::render::{Body, Representation};
use crate::apps::origin::watermark::{HEADER_BYTES, Marked, Scheme};
use crate::apps::origin::{digest, files, render};
use crate::http::conditional::EntityTag;

impl Origin {
    pub(super) fn dynamic_object(&mut self, dynamic: Dynamic) -> Representation {
        let Dynamic { seed, size, period } = dynamic;
        let period_tag = period.map_or_else(String::new, |period| format!("-{period:x}"));
        Representation {
            content_type: OCTET_STREAM,
            etag: EntityTag::strong(format!("{seed:x}-{size:x}{period_tag}")),
            digest: None,
            body: Body::Dynamic {
                dynamic,
                block: period.map(|period| self.blocks.get(seed, period)),
            },
        }
    }
}

pub(super) fn file_object(object: Arc<Object>, path: &[u8]) -> Representation {
    Representation {
        content_type: content_type(path),
        etag: render::etag(&tag_of(object.digest())),
        digest: Some(*object.digest()),
        body: Body::Object(object),
    }
}

pub(super) fn page_object(object: Arc<Object>) -> Representation {
    Representation {
        content_type: "text/html; charset=utf-8",
        ..file_object(object, b"")
    }
}

/// Represents a watermarked object; `None` if it cannot hold the mark.
pub(super) fn marked_object(
    object: Arc<Object>,
    path: &[u8],
    mark: &[u8],
) -> Result<Option<Representation>, files::Stale> {
    let mut header = [0; HEADER_BYTES];
    let length = object.read_at(0, &mut header)?;
    let content_type = content_type(path);
    let header = header.get(..length).unwrap_or(&[]);
    let scheme = Scheme::detect(content_type, header, object.size());
    let marked = scheme.and_then(|scheme| Marked::new(scheme, object.size(), mark));
    Ok(marked.map(|marked| Representation {
        content_type,
        etag: render::etag(&tag_of(&digest::hash(&[object.digest(), mark]))),
        digest: None,
        body: Body::Marked { object, marked },
    }))
}

pub(super) fn tag_of(digest: &Sha256) -> Tag {
    let mut tag = [0; TAG_BYTES];
    for (to, from) in tag.iter_mut().zip(digest) {
        *to = *from;
    }
    tag
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
