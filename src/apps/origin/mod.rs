//! The HTTP server: files below a root, directory pages, generated objects, watermarked objects.
//!
//! In: request heads, and later the user continuations of their responses. Out: response streams, head
//! and body; any server with the same files produces the same bytes for any range. Keeps no
//! per-client state: the caches of open files and of hot content belong to the tree. Never mixes
//! bytes of two versions of a file, and never waits: [`work`] is done by others. Sources: RFC 9110, RFC 9112; implements the contract of
//! [`crate::transport::application`].
//!
//! Paths: `/.dynamic/SEED/SIZE[/PERIOD]` generates ([`dynamic`]), `/.watermark/MARK/PATH` marks
//! ([`watermark`]), everything else names a file. The validator is a strong `ETag` of the content.
//! There is no `Last-Modified`, so `If-Modified-Since` and `If-Unmodified-Since` have no effect
//! (RFC 9110 §13.1.3, §13.1.4).

pub mod alias;
pub mod continuation;
pub mod desk;
pub mod digest;
pub mod digest_store;
pub mod dynamic;
pub mod files;
pub mod hot;
pub mod listing;
pub mod load;
mod locate;
pub mod object;
mod objects;
mod produce;
mod render;
pub mod target;
pub mod tree;
pub mod watermark;
pub mod work;

use std::path::Path;

use crate::apps::origin::alias::{Aliases, is_long};
use crate::apps::origin::continuation::{RequestOutcome, Resource, UserContinuation};
use crate::apps::origin::desk::POLLED;
use crate::apps::origin::files::Files;
use crate::apps::origin::hot::Hot;
use crate::apps::origin::locate::{Found, Refused, check, decide};
use crate::apps::origin::produce::Recent;
use crate::apps::origin::render::{RENDERING, Stream};
use crate::apps::origin::tree::{RootError, Tree};
use crate::apps::origin::work::Workers;
use crate::http::request::{Method, RequestHead};
use crate::http::status::Status;
use crate::transport::application::{
    Application, Begun, RequestContext, StreamPart, Ticket, Unavailable,
};
use crate::wire::payload::Gathered;

/// Most attempts within one call to produce a response while its file changes.
pub const MAX_ATTEMPTS: usize = 3;

/// Most cached streams: more than usually take turns at one server within a round trip.
pub const MAX_RECENT: usize = 8;

/// The HTTP server.
pub struct Origin {
    files: Files,
    hot: Hot,
    aliases: Aliases,
    /// The last response begun, until its first read: most clients request its first bytes together
    /// with it, and its head need not be generated twice.
    begun: Option<(Vec<u8>, Stream)>,
    /// The last streams read, of files and generated objects, at most [`MAX_RECENT`], the latest at
    /// the end: most reads continue one of them.
    recent: Vec<Recent>,
}

impl Origin {
    /// Creates a server of the files below `root`; `workers` do all work that may wait for a disk or take long.
    ///
    /// # Errors
    /// [`RootError`] if the root is missing, not a directory, empty or unreadable.
    pub fn new(root: &Path, workers: Box<dyn Workers>) -> Result<Self, RootError> {
        Ok(Self {
            files: Files::new(Tree::open(root)?, workers),
            hot: Hot::none(),
            aliases: Aliases::default(),
            recent: Vec::new(),
            begun: None,
        })
    }

    /// Adds a memory cache for popular files.
    #[must_use]
    pub fn with_hot(self, hot: Hot) -> Self {
        Self { hot, ..self }
    }

    /// The memory cache.
    #[must_use]
    pub const fn hot(&self) -> &Hot {
        &self.hot
    }

    /// The number of open files and directory pages, at most [`files::MAX_OPEN_FILES`].
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.files.open_count()
    }

    /// The number of jobs under way.
    #[must_use]
    pub fn pending_jobs(&self) -> usize {
        self.files.pending()
    }

    /// Closes the files of cached streams if the process is out of descriptors.
    fn give_way(&mut self) {
        if self.files.take_gave_way() {
            self.recent.clear();
            self.begun = None;
        }
    }
}

impl Application for Origin {
    fn begin(&mut self, context: RequestContext, request: &[u8]) -> Result<Begun, Unavailable> {
        self.give_way();
        let date = u32::try_from(context.now.as_secs()).unwrap_or(u32::MAX);
        let parsed = RequestHead::parse(request);
        let head_only = parsed
            .as_ref()
            .is_ok_and(|(head, _)| head.method == Method::Head);
        let found = check(parsed).and_then(|head| Ok((self.locate(context, &head)?, head)));
        let mut user = UserContinuation {
            head_only,
            provisional: false,
            rendering: RENDERING,
            head: 0,
            date,
            outcome: RequestOutcome::Whole,
            resource: Resource::Fixed(Status::INTERNAL_ERROR),
        };
        let stream = match found {
            Ok((
                Found::Object {
                    resource,
                    provisional,
                    representation,
                },
                head,
            )) => {
                user.provisional = provisional;
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
            Err(Refused::Waits(ticket)) => return Err(Unavailable::NotReady(ticket)),
        };
        // Not of a decided part, which is within its object.
        let stream = stream.ok_or(Unavailable::NotReady(POLLED))?;
        user.head = u16::try_from(stream.head_length()).unwrap_or(u16::MAX);
        if let (Resource::File { path, .. }, false) = (&user.resource, head_only)
            && let Some(object) = stream.object()
        {
            match context.proven {
                true => self.hot.ask(path, object),
                false => self.hot.count(path, object),
            }
        }
        if is_long(&mut user.resource) {
            if !context.proven {
                return Err(Unavailable::NotReady(POLLED));
            }
            self.aliases.shorten(&mut user.resource);
        }
        let (user, length) = (user.encode(), stream.length());
        self.begun = Some((user.clone(), stream));
        Ok(Begun {
            user,
            length: Some(length),
        })
    }

    fn read(&mut self, part: StreamPart<'_>, out: &mut [u8]) -> Result<usize, Unavailable> {
        self.produce(part, |stream, _| stream.read_at(part.offset, out))
    }

    fn stage(
        &mut self,
        part: StreamPart<'_>,
        bytes: usize,
        body: &mut Gathered,
    ) -> Result<usize, Unavailable> {
        let (bytes, shared) = self.produce(part, |stream, content| {
            stream.stage(part.offset, bytes, content, body)
        })?;
        if shared {
            self.hot.staged(bytes as u64);
        }
        Ok(bytes)
    }

    fn poll_ready(&mut self) -> Option<Ticket> {
        let ticket = self.files.poll_ready();
        self.give_way();
        ticket
    }
}

#[cfg(test)]
mod tests;
