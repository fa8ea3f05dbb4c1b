//! Locates the resource of a request: a file, a directory page, a generated or a watermarked object,
//! or a status.
//!
//! In: request heads. Out: resources with their representations, and the outcome of conditions and
//! ranges. Sources: RFC 9110, RFC 9112.

use std::sync::Arc;

use super::{MAX_ATTEMPTS, Origin};
use crate::apps::origin::continuation::{RequestOutcome, Resource};
use crate::apps::origin::files::{Freshness, Object};
use crate::apps::origin::objects::{file_object, marked_object, page_object, tag_of};
use crate::apps::origin::render::Representation;
use crate::apps::origin::target::Target;
use crate::apps::origin::tree::Refusal;
use crate::apps::origin::{dynamic, files, target};
use crate::http::conditional::{self, ConditionVerdict, Validators};
use crate::http::range::{self, Selected};
use crate::http::request::{Method, RequestHead};
use crate::http::status::Status;
use crate::http::{HeadError, Version};
use crate::time::UnixMillis;

impl Origin {
    /// Locates the present resource of a request target.
    pub(super) fn locate(&mut self, now: UnixMillis, target: &str) -> Result<Found, Refused> {
        let target = target::parse(target).map_err(Refused::Status)?;
        if let Some(parameters) = below(&target.path, b".dynamic") {
            let parameters = (!target.directory).then_some(parameters);
            let dynamic = parameters
                .and_then(dynamic::parse)
                .ok_or(Refused::Status(Status::NOT_FOUND))?;
            return Ok(Found::object(
                Resource::Dynamic(dynamic),
                self.dynamic_object(dynamic),
            ));
        }
        if let Some(parameters) = below(&target.path, b".watermark") {
            let (mark, path) =
                split_segment(parameters).ok_or(Refused::Status(Status::NOT_FOUND))?;
            let target = Target {
                path: path.to_vec(),
                directory: target.directory,
            };
            return self.locate_marked(now, mark, &target);
        }
        self.locate_file(now, target)
    }

    pub(super) fn locate_file(
        &mut self,
        now: UnixMillis,
        target: Target,
    ) -> Result<Found, Refused> {
        let path = target.path;
        if !target.directory {
            return match self.files.file(&path, Freshness::Now(now)) {
                Ok(object) => Ok(Found::file(path, &object)),
                Err(Refusal::IsDirectory) => Ok(Found::Fixed(Resource::Redirect { path })),
                Err(refusal) => Err(refusal.into()),
            };
        }
        let index = index_path(&path);
        match self.files.file(&index, Freshness::Now(now)) {
            Ok(object) => Ok(Found::file(index, &object)),
            Err(Refusal::NotFound | Refusal::IsDirectory) => {
                let object = self.files.page(&path, Freshness::Now(now))?;
                let tag = tag_of(object.digest());
                Ok(Found::object(
                    Resource::Listing { path, tag },
                    page_object(object),
                ))
            }
            Err(refusal @ (Refusal::Forbidden | Refusal::Failed | Refusal::NotReady)) => {
                Err(refusal.into())
            }
        }
    }

    pub(super) fn locate_marked(
        &mut self,
        now: UnixMillis,
        mark: &[u8],
        target: &Target,
    ) -> Result<Found, Refused> {
        let path = if target.directory {
            index_path(&target.path)
        } else {
            target.path.clone()
        };
        for _ in 0..MAX_ATTEMPTS {
            let object = match self.files.file(&path, Freshness::Now(now)) {
                // Not the index, whose relative links would break: there is nothing to mark.
                Err(Refusal::IsDirectory) => return Err(Refused::Status(Status::NOT_FOUND)),
                other => other?,
            };
            let tag = tag_of(object.digest());
            match marked_object(object, &path, mark) {
                Ok(Some(representation)) => {
                    let resource = Resource::Watermark {
                        mark: mark.to_vec(),
                        path,
                        tag,
                    };
                    return Ok(Found::object(resource, representation));
                }
                Ok(None) => return Err(Refused::Status(Status::NOT_FOUND)),
                Err(files::Stale) => self.files.forget(&path),
            }
        }
        Err(Refused::NotReady)
    }
}

/// The resource of a request target.
pub(super) enum Found {
    Object {
        resource: Resource,
        representation: Representation,
    },
    Fixed(Resource),
}

impl Found {
    const fn object(resource: Resource, representation: Representation) -> Self {
        Self::Object {
            resource,
            representation,
        }
    }

    fn file(path: Vec<u8>, object: &Arc<Object>) -> Self {
        let representation = file_object(Arc::clone(object), &path);
        Self::Object {
            resource: Resource::File {
                path,
                tag: tag_of(object.digest()),
            },
            representation,
        }
    }
}

/// Why a request has no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Status(Status),
    NotReady,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound | Refusal::IsDirectory => Self::Status(Status::NOT_FOUND),
            Refusal::Forbidden => Self::Status(Status::FORBIDDEN),
            Refusal::Failed => Self::Status(Status::INTERNAL_ERROR),
            Refusal::NotReady => Self::NotReady,
        }
    }
}

/// Rejects requests that no resource can answer.
pub(super) fn check(
    parsed: Result<(RequestHead, usize), HeadError>,
) -> Result<RequestHead, Refused> {
    let (head, _) = parsed.map_err(|error| {
        Refused::Status(match error {
            HeadError::TooLarge | HeadError::TooManyHeaders => Status::HEADERS_TOO_LARGE,
            HeadError::Version => Status::VERSION_NOT_SUPPORTED,
            HeadError::Incomplete | HeadError::Malformed => Status::BAD_REQUEST,
        })
    })?;
    // RFC 9112 §3.2: exactly one Host in HTTP/1.1, never two.
    let hosts = head.headers.all("host").count();
    if hosts > 1 || (hosts == 0 && head.version == Version::Http11) {
        return Err(Refused::Status(Status::BAD_REQUEST));
    }
    match head.method {
        Method::Get | Method::Head => Ok(head),
        Method::Unrecognised => Err(Refused::Status(Status::NOT_IMPLEMENTED)),
        Method::Post
        | Method::Put
        | Method::Delete
        | Method::Connect
        | Method::Options
        | Method::Trace
        | Method::Patch => Err(Refused::Status(Status::METHOD_NOT_ALLOWED)),
    }
}

/// Decides the conditions, then the range (RFC 9110 §13.2.2).
pub(super) fn decide(head: &RequestHead, about: &Representation) -> RequestOutcome {
    let etag = Some(about.etag.clone());
    let validators = Validators {
        etag,
        last_modified: None,
    };
    match conditional::evaluate(&head.headers, &validators) {
        ConditionVerdict::NotModified => return RequestOutcome::NotModified,
        ConditionVerdict::Failed => return RequestOutcome::PreconditionFailed,
        ConditionVerdict::Proceed => {}
    }
    // RFC 9110 §14.2: Range applies to GET only.
    let mut ranges = head.headers.all("range");
    let (Method::Get, Some(value), None) = (head.method, ranges.next(), ranges.next()) else {
        return RequestOutcome::Whole;
    };
    if !conditional::range_applies(&head.headers, &validators) {
        return RequestOutcome::Whole;
    }
    match range::select(value, about.size()) {
        Selected::Whole => RequestOutcome::Whole,
        Selected::Part(part) => RequestOutcome::Part(part),
        Selected::Unsatisfiable => RequestOutcome::Unsatisfiable,
    }
}

/// Returns the rest of a path after its first segment `name`; `None` if it starts otherwise.
fn below<'a>(path: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(name)?.strip_prefix(b"/")
}

fn split_segment(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().position(|&byte| byte == b'/')?;
    Some((path.get(..at)?, path.get(at + 1..)?))
}

fn index_path(directory: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        INDEX.to_vec()
    } else {
        [directory, b"/", INDEX].concat()
    }
}

const INDEX: &[u8] = b"index.html";
