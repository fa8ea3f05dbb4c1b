//! Produces stream bytes from user continuations, with a cache of the last streams.
//!
//! In: user continuations. Out: the caller's result from their streams. A cached stream produces the
//! same bytes as a new one, or is evicted.

use std::sync::Arc;

use super::{MAX_ATTEMPTS, MAX_RECENT, Origin, POLLED};
use crate::apps::origin::continuation::{Resource, UserContinuation};
use crate::apps::origin::files;
use crate::apps::origin::files::Freshness;
use crate::apps::origin::objects::{file_object, marked_object, page_object, tag_of};
use crate::apps::origin::render::{Representation, Stream};
use crate::apps::origin::tree::Refusal;
use crate::transport::application::{MAX_USER_BYTES, Unavailable};
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

    /// Calls `make` with the stream of `user`, and with the content of its object if that is hot.
    pub(super) fn produce<T>(
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
                Err(Failure::NotReady) => return Err(Unavailable::NotReady(POLLED)),
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

/// Why a part of a stream cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Changed,
    NotReady,
    Stale,
}

impl From<files::Stale> for Failure {
    fn from(_: files::Stale) -> Self {
        Self::Stale
    }
}
