//! Produces stream bytes from user continuations, with a cache of the last streams.
//!
//! In: user continuations. Out: the caller's result from their streams. A cached stream produces the
//! same bytes as a new one, or is evicted.

use std::sync::Arc;

use super::{MAX_ATTEMPTS, MAX_RECENT, Origin};
use crate::apps::origin::continuation::{Resource, Tag, UserContinuation};
use crate::apps::origin::desk::POLLED;
use crate::apps::origin::files::{Freshness, Miss};
use crate::apps::origin::object::{Object, Unread};
use crate::apps::origin::objects::{file_object, marked_object, page_object, tag_of};
use crate::apps::origin::render::{Representation, Stream};
use crate::apps::origin::tree::Refusal;
use crate::transport::application::{
    MAX_USER_BYTES, RequestContext, StreamPart, Ticket, Unavailable,
};
use crate::wire::payload::Shared;

/// A cached stream, and its user continuation.
pub(super) struct Recent {
    pub(super) user: Vec<u8>,
    /// The path of its file, if it is one.
    path: Option<Vec<u8>>,
    stream: Stream,
}

impl Origin {
    /// Represents exactly the object of a user continuation.
    fn represent(
        &mut self,
        context: RequestContext,
        user: &UserContinuation,
    ) -> Result<Representation, Failure> {
        let (path, tag) = match &user.resource {
            Resource::Fixed(_) | Resource::Redirect { .. } => return Err(Failure::Changed),
            Resource::Dynamic(dynamic) if dynamic.is_sound() => {
                let representation = self.dynamic_object(context, *dynamic);
                return representation.map_err(Failure::Waits);
            }
            Resource::Dynamic(_) => return Err(Failure::Changed),
            Resource::File { path, tag, .. }
            | Resource::Listing { path, tag }
            | Resource::Watermark { path, tag, .. } => (path, tag),
        };
        let object = if matches!(user.resource, Resource::Listing { .. }) {
            self.files.page(context, path, Freshness::Recent)
        } else {
            self.files.file(context, path, Freshness::Recent)
        };
        let object = self.exactly(context, user, tag, object?)?;
        match &user.resource {
            Resource::Listing { .. } => Ok(page_object(object, tag)),
            Resource::Watermark { mark, .. } => {
                marked_object(object, path, mark, tag).ok_or(Failure::Changed)
            }
            Resource::Fixed(_)
            | Resource::Redirect { .. }
            | Resource::Dynamic(_)
            | Resource::File { .. } => Ok(file_object(object, path, tag, user.provisional)),
        }
    }

    /// Returns the version with this tag: `object`, or an earlier one of a file that has grown.
    fn exactly(
        &mut self,
        context: RequestContext,
        user: &UserContinuation,
        tag: &Tag,
        object: Arc<Object>,
    ) -> Result<Arc<Object>, Failure> {
        let grown = match &user.resource {
            Resource::File { path, size, .. } => Some((path, *size)),
            Resource::Fixed(_)
            | Resource::Redirect { .. }
            | Resource::Listing { .. }
            | Resource::Dynamic(_)
            | Resource::Watermark { .. } => None,
        };
        if grown.is_none_or(|(_, size)| size == object.size()) {
            match tag_of(&object, user.provisional) {
                Some(own) if own == *tag => return Ok(object),
                Some(_) => {}
                None => {
                    let ticket = self.files.digest(context, &object);
                    return match (ticket, object.tag()) {
                        (None, Some(own)) if own == *tag => Ok(object),
                        (None, _) => Err(Failure::Changed),
                        (Some(ticket), _) => Err(Failure::Waits(ticket)),
                    };
                }
            }
        }
        match grown.filter(|_| !user.provisional) {
            Some((path, size)) => {
                let found = self.files.passing(context, path, (tag, size), &object);
                Ok(found?)
            }
            None => Err(Failure::Changed),
        }
    }

    /// Calls `make` with the stream of `user`, and with the content of its object if that is hot.
    pub(super) fn produce<T>(
        &mut self,
        StreamPart { context, user, .. }: StreamPart<'_>,
        mut make: impl FnMut(&Stream, Option<&Shared>) -> Result<T, Unread>,
    ) -> Result<T, Unavailable> {
        if let Some((_, stream)) = self.begun.take().filter(|(begun, _)| begun == user)
            && let Ok(made) = make(&stream, None)
        {
            return Ok(made);
        }
        if let Some(made) = self.go_on(context, user, &mut make) {
            return made;
        }
        let encoded = user;
        let decoded = (user.len() <= MAX_USER_BYTES).then(|| UserContinuation::decode(user));
        let mut user = decoded.flatten().ok_or(Unavailable::Changed)?;
        if !self.aliases.expand(&mut user.resource) {
            return Err(Unavailable::Changed);
        }
        for _ in 0..MAX_ATTEMPTS {
            match self.try_produce(context, encoded, &user, &mut make) {
                Ok(made) => return Ok(made),
                Err(Failure::Changed) => return Err(Unavailable::Changed),
                Err(Failure::Waits(ticket)) => return Err(Unavailable::NotReady(ticket)),
                // The stamp has changed: the content may still be the same, so resolve it again.
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
        Err(Unavailable::NotReady(POLLED))
    }

    /// Continues a cached stream; evicts and ignores one that differs or has changed.
    fn go_on<T>(
        &mut self,
        context: RequestContext,
        user: &[u8],
        make: &mut impl FnMut(&Stream, Option<&Shared>) -> Result<T, Unread>,
    ) -> Option<Result<T, Unavailable>> {
        let index = self.recent.iter().rposition(|recent| recent.user == user)?;
        self.recent.get_mut(index..)?.rotate_left(1);
        let recent = self.recent.pop()?;
        let content = match &recent.path {
            Some(path) => {
                let object = self.files.file(context, path, Freshness::Recent).ok()?;
                let own = recent.stream.object()?;
                Arc::ptr_eq(own, &object).then_some(())?;
                self.hot_content(context, path, &object)
            }
            None => None,
        };
        let made = match make(&recent.stream, content.as_ref()) {
            Ok(made) => Ok(made),
            Err(Unread::Cold(window)) => {
                let ticket = self.files.warm(context, recent.stream.source()?, window);
                Err(Unavailable::NotReady(ticket))
            }
            Err(Unread::Stale | Unread::Failed | Unread::OtherHead) => return None,
        };
        self.read_ahead(context, &recent.stream);
        self.recent.push(recent);
        Some(made)
    }

    fn try_produce<T>(
        &mut self,
        context: RequestContext,
        encoded: &[u8],
        user: &UserContinuation,
        make: &mut impl FnMut(&Stream, Option<&Shared>) -> Result<T, Unread>,
    ) -> Result<T, Failure> {
        let stream = match Stream::of_fixed(user) {
            Some(stream) => stream,
            None => {
                let representation = self.represent(context, user)?;
                Stream::of_object(user, representation).ok_or(Failure::Changed)?
            }
        };
        let stream = stream.after(user);
        let path = match &user.resource {
            Resource::File { path, .. } => Some(path),
            Resource::Fixed(_)
            | Resource::Redirect { .. }
            | Resource::Listing { .. }
            | Resource::Dynamic(_)
            | Resource::Watermark { .. } => None,
        };
        let object = path.zip(stream.object().cloned());
        let content = object.and_then(|(path, object)| self.hot_content(context, path, &object));
        let made = match make(&stream, content.as_ref()) {
            Ok(made) => made,
            Err(Unread::Stale) => return Err(Failure::Stale),
            Err(Unread::Failed | Unread::OtherHead) => return Err(Failure::Changed),
            Err(Unread::Cold(window)) => {
                let source = stream.source().ok_or(Failure::Stale)?;
                return Err(Failure::Waits(self.files.warm(context, source, window)));
            }
        };
        if let Some(object) = stream.source().filter(|_| context.proven) {
            // For later responses.
            self.files.digest(context, object);
        }
        self.read_ahead(context, &stream);
        if !matches!(user.resource, Resource::File { .. } | Resource::Dynamic(_)) {
            return Ok(made);
        }
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

    /// Returns the content of a file if it is hot, and loads it if it is to be.
    fn hot_content(
        &mut self,
        context: RequestContext,
        path: &[u8],
        object: &Arc<Object>,
    ) -> Option<Shared> {
        let content = self.hot.content(path, object.stamp());
        if content.is_none() && context.proven {
            self.hot.load_due(path, object);
        }
        // Of a file that has grown, a stream may have fewer bytes.
        content.filter(|_| object.size() == object.stamp().size)
    }

    /// Orders the bytes that a stream needs next from a slow disk.
    fn read_ahead(&mut self, context: RequestContext, stream: &Stream) {
        if let Some(object) = stream.source()
            && let Some(window) = object.take_ahead()
        {
            self.files.warm(context, object, window);
        }
    }
}

/// Why a part of a stream cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Changed,
    Waits(Ticket),
    Stale,
}

impl From<Miss> for Failure {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Waits(ticket) => Self::Waits(ticket),
            Miss::Refused(Refusal::Unsettled | Refusal::NoDescriptors) => Self::Waits(POLLED),
            Miss::Refused(
                Refusal::NotFound | Refusal::Forbidden | Refusal::IsDirectory | Refusal::Failed,
            ) => Self::Changed,
        }
    }
}
