//! The HTTP server: files below a root, directory pages, computed objects, marked objects.
//!
//! In: request heads, and later user continuations that say how each was decided. Out: response
//! streams, head and body, any range of which any server with the same files writes alike. Nothing
//! is kept per client: the caches of open files and of hot content belong to the tree. Bytes of two
//! versions of a file are never mixed. Sources: RFC 9110, RFC 9112; the contract is
//! [`crate::transport::application`]'s.
//!
//! Paths: `/.dynamic/SEED/SIZE[/PERIOD]` computes ([`dynamic`]), `/.watermark/MARK/PATH` marks
//! ([`watermark`]), everything else names a file. The validator is a strong `ETag` made from the
//! content. There is no `Last-Modified`, so `If-Modified-Since` and `If-Unmodified-Since` have no
//! effect (RFC 9110 §13.1.3, §13.1.4).

pub mod continuation;
pub mod digest;
pub mod digest_store;
pub mod dynamic;
pub mod files;
pub mod hot;
pub mod listing;
mod render;
pub mod target;
pub mod tree;
pub mod watermark;

use std::path::Path;
use std::sync::Arc;

use crate::apps::origin::continuation::{
    RequestOutcome, Resource, TAG_BYTES, Tag, UserContinuation,
};
use crate::apps::origin::digest::{Digester, Sha256};
use crate::apps::origin::dynamic::{Blocks, Dynamic};
use crate::apps::origin::files::{Files, Freshness, Object};
use crate::apps::origin::hot::Hot;
use crate::apps::origin::render::{Body, Representation, Stream};
use crate::apps::origin::target::Target;
use crate::apps::origin::tree::{Refusal, RootError, Tree};
use crate::apps::origin::watermark::{HEADER_BYTES, Marked, Scheme};
use crate::http::conditional::{self, ConditionVerdict, EntityTag, Validators};
use crate::http::range::{self, Selected};
use crate::http::request::{Method, RequestHead};
use crate::http::status::Status;
use crate::http::{HeadError, Version};
use crate::time::UnixMillis;
use crate::transport::application::{Application, Begun, MAX_USER_BYTES, Unavailable};
use crate::wire::payload::{Gathered, Shared};

/// How often a response that a writer disturbed is tried within one call.
pub const MAX_ATTEMPTS: usize = 3;

/// Streams that are remembered: more than mostly take turns at one server within a round trip.
pub const MAX_RECENT: usize = 8;

/// The HTTP server.
pub struct Origin {
    files: Files,
    hot: Hot,
    /// The response that was begun last, until it is read from: the first bytes of a response are
    /// mostly asked for with it, and its head need not be written twice.
    begun: Option<(Vec<u8>, Stream)>,
    /// What periodic objects repeat.
    blocks: Blocks,
    /// The streams of files and of computed objects that were read last, at most [`MAX_RECENT`], the
    /// very last at the end: most reads go on with one of them.
    recent: Vec<Recent>,
}

/// A stream, and what it was made from.
struct Recent {
    user: Vec<u8>,
    /// Of the file, if it is one.
    path: Option<Vec<u8>>,
    stream: Stream,
}

impl Origin {
    /// A server of the files below `root`; `digester` computes the digests of large ones.
    ///
    /// # Errors
    /// [`RootError`] if the root is missing, not a directory, empty or unreadable.
    pub fn new(root: &Path, digester: Box<dyn Digester>) -> Result<Self, RootError> {
        Ok(Self {
            files: Files::new(Tree::open(root)?, digester),
            hot: Hot::none(),
            blocks: Blocks::default(),
            recent: Vec::new(),
            begun: None,
        })
    }

    /// The same, with files that are asked for again sent from memory.
    #[must_use]
    pub fn with_hot(self, hot: Hot) -> Self {
        Self { hot, ..self }
    }

    /// Hot content.
    #[must_use]
    pub const fn hot(&self) -> &Hot {
        &self.hot
    }

    /// Number of files and directory pages kept open, at most [`files::MAX_OPEN_FILES`].
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.files.open_count()
    }

    /// What the request target names, as it is now.
    fn locate(&mut self, now: UnixMillis, target: &str) -> Result<Found, Refused> {
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

    fn locate_file(&mut self, now: UnixMillis, target: Target) -> Result<Found, Refused> {
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

    fn locate_marked(
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
                // A relative link in the index would lead elsewhere; there is nothing to mark.
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

    /// The very object that a user continuation stands for.
    fn represent(&mut self, resource: &Resource) -> Result<Representation, Failure> {
        let (path, tag) = match resource {
            Resource::Fixed(_) | Resource::Redirect { .. } => return Err(Failure::Changed),
            Resource::Dynamic(dynamic) if dynamic.is_sound() => {
                return Ok(self.dynamic_object(*dynamic));
            }
            Resource::Dynamic(_) => return Err(Failure::Changed),
            Resource::File { path, tag }
            | Resource::Listing { path, tag }
            | Resource::Watermark { path, tag, .. } => (path, tag),
        };
        let object = if matches!(resource, Resource::Listing { .. }) {
            self.files.page(path, Freshness::Recent)
        } else {
            self.files.file(path, Freshness::Recent)
        };
        let object = match object {
            Ok(object) => object,
            Err(Refusal::NotReady) => return Err(Failure::NotReady),
            Err(
                Refusal::NotFound | Refusal::Forbidden | Refusal::IsDirectory | Refusal::Failed,
            ) => return Err(Failure::Changed),
        };
        if tag_of(object.digest()) != *tag {
            return Err(Failure::Changed);
        }
        match resource {
            Resource::Listing { .. } => Ok(page_object(object)),
            Resource::Watermark { mark, .. } => {
                marked_object(object, path, mark)?.ok_or(Failure::Changed)
            }
            Resource::Fixed(_)
            | Resource::Redirect { .. }
            | Resource::Dynamic(_)
            | Resource::File { .. } => Ok(file_object(object, path)),
        }
    }

    /// Has `make` produce from the stream of `user`; with the stream comes the content of its object
    /// if it is hot.
    fn produce<T>(
        &mut self,
        user: &[u8],
        mut make: impl FnMut(&Stream, Option<&Shared>) -> Result<T, files::Stale>,
    ) -> Result<T, Unavailable> {
        if let Some((_, stream)) = self.begun.take().filter(|(begun, _)| begun == user)
            && let Ok(made) = make(&stream, None)
        {
            return Ok(made);
        }
        if let Some(made) = self.go_on(user, &mut make) {
            return Ok(made);
        }
        let encoded = user;
        let decoded = (user.len() <= MAX_USER_BYTES).then(|| UserContinuation::decode(user));
        let user = decoded.flatten().ok_or(Unavailable::Changed)?;
        for _ in 0..MAX_ATTEMPTS {
            match self.try_produce(encoded, &user, &mut make) {
                Ok(made) => return Ok(made),
                Err(Failure::Changed) => return Err(Unavailable::Changed),
                Err(Failure::NotReady) => return Err(Unavailable::NotReady),
                // The stamp moved: the content may still be the same, which a new look will tell.
                Err(Failure::Stale) => match &user.resource {
                    Resource::File { path, .. }
                    | Resource::Listing { path, .. }
                    | Resource::Watermark { path, .. } => {
                        self.files.forget(path);
                        self.hot.drop_content(path);
                    }
                    Resource::Fixed(_) | Resource::Redirect { .. } | Resource::Dynamic(_) => {}
                },
            }
        }
        Err(Unavailable::NotReady)
    }

    fn dynamic_object(&mut self, dynamic: Dynamic) -> Representation {
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

    /// Goes on in a stream that was read not long ago; `None` if it is another, or not just as it was,
    /// which is then forgotten.
    fn go_on<T>(
        &mut self,
        user: &[u8],
        make: &mut impl FnMut(&Stream, Option<&Shared>) -> Result<T, files::Stale>,
    ) -> Option<T> {
        let index = self.recent.iter().rposition(|recent| recent.user == user)?;
        self.recent.get_mut(index..)?.rotate_left(1);
        let recent = self.recent.pop()?;
        let content = match &recent.path {
            Some(path) => {
                let object = self.files.file(path, Freshness::Recent).ok()?;
                let own = recent.stream.object()?;
                Arc::ptr_eq(own, &object).then_some(())?;
                self.hot.content(path, own.stamp())
            }
            None => None,
        };
        let made = make(&recent.stream, content.as_ref()).ok()?;
        self.recent.push(recent);
        Some(made)
    }

    fn try_produce<T>(
        &mut self,
        encoded: &[u8],
        user: &UserContinuation,
        make: &mut impl FnMut(&Stream, Option<&Shared>) -> Result<T, files::Stale>,
    ) -> Result<T, Failure> {
        let stream = match Stream::of_fixed(user) {
            Some(stream) => stream,
            None => {
                let representation = self.represent(&user.resource)?;
                Stream::of_object(user, representation).ok_or(Failure::Changed)?
            }
        };
        let path = match &user.resource {
            Resource::File { path, .. } => Some(path),
            Resource::Dynamic(_) => None,
            Resource::Fixed(_)
            | Resource::Redirect { .. }
            | Resource::Listing { .. }
            | Resource::Watermark { .. } => return Ok(make(&stream, None)?),
        };
        let object = path.zip(stream.object());
        let content = object.and_then(|(path, object)| self.hot.content(path, object.stamp()));
        let made = make(&stream, content.as_ref())?;
        if self.recent.len() == MAX_RECENT {
            self.recent.remove(0);
        }
        self.recent.push(Recent {
            user: encoded.to_vec(),
            path: path.cloned(),
            stream,
        });
        Ok(made)
    }
}

impl Application for Origin {
    fn begin(&mut self, now: UnixMillis, request: &[u8]) -> Result<Begun, Unavailable> {
        let date = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        let parsed = RequestHead::parse(request);
        let head_only = parsed
            .as_ref()
            .is_ok_and(|(head, _)| head.method == Method::Head);
        let found = check(parsed).and_then(|head| Ok((self.locate(now, &head.target)?, head)));
        let mut user = UserContinuation {
            head_only,
            date,
            outcome: RequestOutcome::Whole,
            resource: Resource::Fixed(Status::INTERNAL_ERROR),
        };
        let stream = match found {
            Ok((
                Found::Object {
                    resource,
                    representation,
                },
                head,
            )) => {
                user.outcome = decide(&head, &representation);
                user.resource = resource;
                Stream::of_object(&user, representation)
            }
            Ok((Found::Fixed(resource), _)) => {
                user.resource = resource;
                Stream::of_fixed(&user)
            }
            Err(Refused::Status(status)) => {
                user.resource = Resource::Fixed(status);
                Stream::of_fixed(&user)
            }
            Err(Refused::NotReady) => None,
        };
        let stream = stream.ok_or(Unavailable::NotReady)?;
        if let (Resource::File { path, .. }, false) = (&user.resource, head_only)
            && let Some(object) = stream.object()
        {
            self.hot.ask(path, object);
        }
        let (user, length) = (user.encode(), stream.length());
        self.begun = Some((user.clone(), stream));
        Ok(Begun { user, length })
    }

    fn read(&mut self, user: &[u8], offset: u64, out: &mut [u8]) -> Result<usize, Unavailable> {
        self.produce(user, |stream, _| stream.read_at(offset, out))
    }

    fn stage(
        &mut self,
        user: &[u8],
        offset: u64,
        bytes: usize,
        body: &mut Gathered,
    ) -> Result<usize, Unavailable> {
        let (bytes, shared) = self.produce(user, |stream, content| {
            stream.stage(offset, bytes, content, body)
        })?;
        if shared {
            self.hot.staged(bytes as u64);
        }
        Ok(bytes)
    }
}

/// What a request target leads to.
enum Found {
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

/// Why a request leads to no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
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

/// Why a part of a stream cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Changed,
    NotReady,
    Stale,
}

impl From<files::Stale> for Failure {
    fn from(_: files::Stale) -> Self {
        Self::Stale
    }
}

/// Refuses what no resource can answer.
fn check(parsed: Result<(RequestHead, usize), HeadError>) -> Result<RequestHead, Refused> {
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

/// Conditions first, then the range (RFC 9110 §13.2.2).
fn decide(head: &RequestHead, about: &Representation) -> RequestOutcome {
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
    // RFC 9110 §14.2: Range means something for GET only.
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

fn file_object(object: Arc<Object>, path: &[u8]) -> Representation {
    Representation {
        content_type: content_type(path),
        etag: render::etag(&tag_of(object.digest())),
        digest: Some(*object.digest()),
        body: Body::Object(object),
    }
}

fn page_object(object: Arc<Object>) -> Representation {
    Representation {
        content_type: "text/html; charset=utf-8",
        ..file_object(object, b"")
    }
}

/// The object with the mark; `None` if it cannot carry it.
fn marked_object(
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

fn tag_of(digest: &Sha256) -> Tag {
    let mut tag = [0; TAG_BYTES];
    for (to, from) in tag.iter_mut().zip(digest) {
        *to = *from;
    }
    tag
}

/// By the name's extension, so that it is the same everywhere.
fn content_type(path: &[u8]) -> &'static str {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    str::from_utf8(name)
        .ok()
        .and_then(|name| mime_guess::from_path(name).first_raw())
        .unwrap_or(OCTET_STREAM)
}

/// What follows a first segment of that name; `None` if there is another.
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

const OCTET_STREAM: &str = "application/octet-stream";

#[cfg(test)]
mod tests;
