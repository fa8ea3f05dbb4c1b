//! Locates the resource of a request: a file, a directory page, a generated or a watermarked object,
//! or a status.
//!
//! In: request heads. Out: resources with their representations, and the outcome of conditions and
//! ranges. Sources: RFC 9110, RFC 9112.

use std::sync::Arc;

use super::Origin;
use crate::apps::origin::continuation::{RequestOutcome, Resource, Tag};
use crate::apps::origin::desk::POLLED;
use crate::apps::origin::files::{Freshness, Miss};
use crate::apps::origin::load::index_path;
use crate::apps::origin::object::Object;
use crate::apps::origin::objects::{file_object, marked_etag, marked_object, page_object, tag_of};
use crate::apps::origin::render::{Representation, etag};
use crate::apps::origin::target::Target;
use crate::apps::origin::tree::Refusal;
use crate::apps::origin::{dynamic, target};
use crate::http::conditional::{self, ConditionVerdict, EntityTag, Validators};
use crate::http::range::{self, Selected};
use crate::http::request::{Method, RequestHead};
use crate::http::status::Status;
use crate::http::{HeadError, Version};
use crate::transport::application::{RequestContext, Ticket};

impl Origin {
    /// Locates the present resource of a request.
    pub(super) fn locate(
        &mut self,
        context: RequestContext,
        head: &RequestHead,
    ) -> Result<Found, Refused> {
        let target = target::parse(&head.target).map_err(Refused::Status)?;
        if let Some(parameters) = below(&target.path, b".dynamic") {
            let parameters = (!target.directory).then_some(parameters);
            let dynamic = parameters
                .and_then(dynamic::parse)
                .ok_or(Refused::Status(Status::NOT_FOUND))?;
            let representation = self.dynamic_object(context, dynamic);
            return Ok(Found::Object {
                resource: Resource::Dynamic(dynamic),
                provisional: false,
                representation: representation.map_err(Refused::Waits)?,
            });
        }
        if let Some(parameters) = below(&target.path, b".watermark") {
            let (mark, path) =
                split_segment(parameters).ok_or(Refused::Status(Status::NOT_FOUND))?;
            let target = Target {
                path: path.to_vec(),
                directory: target.directory,
            };
            return self.locate_marked(context, head, mark, &target);
        }
        self.locate_file(context, head, target)
    }

    fn locate_file(
        &mut self,
        context: RequestContext,
        head: &RequestHead,
        target: Target,
    ) -> Result<Found, Refused> {
        let path = target.path;
        if target.directory {
            let (found, is_page, object) = self.files.directory(context, &path)?;
            return match is_page {
                true => Found::page(path, object),
                false => self.found_file(context, head, found, object),
            };
        }
        match self.files.file(context, &path, Freshness::Now) {
            Ok(object) => self.found_file(context, head, path, object),
            Err(Miss::Refused(Refusal::IsDirectory)) => {
                Ok(Found::Fixed(Resource::Redirect { path }))
            }
            Err(miss) => Err(miss.into()),
        }
    }

    fn found_file(
        &mut self,
        context: RequestContext,
        head: &RequestHead,
        path: Vec<u8>,
        object: Arc<Object>,
    ) -> Result<Found, Refused> {
        let provisional = self.provisional(context, head, &object, etag)?;
        let tag = tag_of(&object, provisional).ok_or(Refused::Waits(POLLED))?;
        let size = object.size();
        let representation = file_object(object, &path, &tag, provisional);
        Ok(Found::Object {
            resource: Resource::File { path, tag, size },
            provisional,
            representation,
        })
    }

    fn locate_marked(
        &mut self,
        context: RequestContext,
        head: &RequestHead,
        mark: &[u8],
        target: &Target,
    ) -> Result<Found, Refused> {
        let path = if target.directory {
            index_path(&target.path)
        } else {
            target.path.clone()
        };
        let object = match self.files.file(context, &path, Freshness::Now) {
            // Not the index, whose relative links would break: there is nothing to mark.
            Err(Miss::Refused(Refusal::IsDirectory)) => {
                return Err(Refused::Status(Status::NOT_FOUND));
            }
            other => other?,
        };
        let provisional = self.provisional(context, head, &object, |tag| marked_etag(tag, mark))?;
        let tag = tag_of(&object, provisional).ok_or(Refused::Waits(POLLED))?;
        let representation =
            marked_object(object, &path, mark, &tag).ok_or(Refused::Status(Status::NOT_FOUND))?;
        Ok(Found::Object {
            resource: Resource::Watermark {
                mark: mark.to_vec(),
                path,
                tag,
            },
            provisional,
            representation,
        })
    }

    /// Whether the response has the provisional tag: if the request names it, or if the digest is not
    /// known yet. A request that names another tag waits for the digest, which it may be.
    fn provisional(
        &mut self,
        context: RequestContext,
        head: &RequestHead,
        object: &Arc<Object>,
        etag: impl Fn(&Tag) -> EntityTag,
    ) -> Result<bool, Refused> {
        let mut names = CONDITIONS
            .iter()
            .flat_map(|name| head.headers.all(name))
            .peekable();
        let conditional = names.peek().is_some();
        if conditional {
            let provisional = etag(&object.provisional_tag()).to_string();
            if names.any(|value| contains(value, provisional.as_bytes())) {
                return Ok(true);
            }
        }
        match self.files.digest(context, object) {
            None => Ok(object.digest().is_none()),
            Some(ticket) if conditional => Err(Refused::Waits(ticket)),
            Some(_) => Ok(true),
        }
    }
}

/// The fields of a request that may name an entity tag (RFC 9110 §13.1).
const CONDITIONS: [&str; 3] = ["if-match", "if-none-match", "if-range"];

fn contains(value: &[u8], part: &[u8]) -> bool {
    value.windows(part.len()).any(|window| window == part)
}

/// The resource of a request.
pub(super) enum Found {
    Object {
        resource: Resource,
        provisional: bool,
        representation: Representation,
    },
    Fixed(Resource),
}

impl Found {
    fn page(path: Vec<u8>, object: Arc<Object>) -> Result<Self, Refused> {
        let tag = tag_of(&object, false).ok_or(Refused::Waits(POLLED))?;
        Ok(Self::Object {
            resource: Resource::Listing { path, tag },
            provisional: false,
            representation: page_object(object, &tag),
        })
    }
}

/// Why a request has no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Status(Status),
    Waits(Ticket),
}

impl From<Miss> for Refused {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Waits(ticket) => Self::Waits(ticket),
            Miss::Refused(refusal) => match refusal {
                Refusal::NotFound | Refusal::IsDirectory => Self::Status(Status::NOT_FOUND),
                Refusal::Forbidden => Self::Status(Status::FORBIDDEN),
                Refusal::Failed => Self::Status(Status::INTERNAL_ERROR),
                Refusal::Unsettled | Refusal::NoDescriptors => Self::Waits(POLLED),
            },
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
