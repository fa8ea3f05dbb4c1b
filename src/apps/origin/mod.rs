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
mod locate;
mod objects;
mod produce;
mod render;
pub mod target;
pub mod tree;
pub mod watermark;

use std::path::Path;

use crate::apps::origin::continuation::{RequestOutcome, Resource, UserContinuation};
use crate::apps::origin::digest::Digester;
use crate::apps::origin::dynamic::Blocks;
use crate::apps::origin::files::Files;
use crate::apps::origin::hot::Hot;
use crate::apps::origin::locate::{Found, Refused, check, decide};
use crate::apps::origin::produce::Recent;
use crate::apps::origin::render::Stream;
use crate::apps::origin::tree::{RootError, Tree};
use crate::http::request::{Method, RequestHead};
use crate::http::status::Status;
use crate::time::UnixMillis;
use crate::transport::application::{Application, Begun, Unavailable};
use crate::wire::payload::Gathered;

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

#[cfg(test)]
mod tests;
