//! The stream bytes of a flight, produced by the application.
//!
//! In: the ranges of a request. Out: a user continuation, and bytes gathered for the flight.

use super::emit::Seals;
use super::{Server, ServerDrop};
use crate::time::Now;
use crate::transport::application::{Application, MAX_USER_BYTES, Unavailable};
use crate::transport::continuation::UserContinuation;
use crate::wire::segment::{Span, UserField, Wanted};

/// The stream bytes for a flight.
pub(super) struct Content {
    /// The user continuation that produces them; `None` if no bytes are requested.
    pub(super) user: Option<UserContinuation>,
    /// The sealed user continuation, if the client does not have it yet.
    pub(super) sealed: Option<Vec<u8>>,
    /// Whether this server has another version of the object.
    pub(super) changed: bool,
}

impl Content {
    /// The sealed parts of an answer with this continuation; `everywhere`: in each of its datagrams.
    pub(super) fn seals<'a>(&'a self, continuation: &'a [u8], everywhere: bool) -> Seals<'a> {
        Seals {
            continuation,
            everywhere,
            user: self.field(),
        }
    }

    /// The field for the client, if it does not have it yet.
    fn field(&self) -> Option<UserField<'_>> {
        let (sealed, user) = self.sealed.as_ref().zip(self.user.as_ref())?;
        Some(UserField {
            length: user.length,
            sealed,
        })
    }
}

impl Server {
    /// Resolves the stream of the requested bytes.
    pub(super) fn content(
        &self,
        now: Now,
        wanted: Wanted<'_>,
        app: &mut dyn Application,
    ) -> Result<Content, ServerDrop> {
        let (user, sealed) = match wanted {
            Wanted::Of([]) | Wanted::New([]) => (None, None),
            Wanted::Of(sealed) => (Some(UserContinuation::open(&self.keys, sealed)?), None),
            Wanted::New(request) => {
                let begun = app
                    .begin(now.unix, request)
                    .map_err(|_| ServerDrop::NotReady)?;
                debug_assert!(
                    begun.user.len() <= MAX_USER_BYTES,
                    "the application's contract"
                );
                let user = UserContinuation {
                    user: begun.user,
                    length: begun.length,
                };
                let sealed = user.seal(&self.keys);
                (Some(user), Some(sealed))
            }
        };
        Ok(Content {
            user,
            sealed,
            changed: false,
        })
    }

    /// Stages the bytes of the layout. On `Changed` the flight carries none.
    pub(super) fn stage(
        &mut self,
        content: &mut Content,
        app: &mut dyn Application,
    ) -> Result<(), ServerDrop> {
        self.gathered.clear();
        let Some(user) = &content.user else {
            return Ok(());
        };
        for run in self.layout.runs() {
            let wanted = usize::try_from(run.len()).unwrap_or(0);
            match app.stage(&user.user, run.start, wanted, &mut self.gathered) {
                Ok(have) if have == wanted => {}
                Err(Unavailable::NotReady) => return Err(ServerDrop::NotReady),
                // A stream shorter than its stated length is not the same stream.
                Ok(_) | Err(Unavailable::Changed) => {
                    content.changed = true;
                    break;
                }
            }
        }
        if content.changed {
            self.layout.fill(0, 0, 0, &[]);
            self.gathered.clear();
        }
        Ok(())
    }
}

/// Clips the ranges to the stream.
pub(super) fn clamp(content: &Content, ranges: &[Span]) -> Vec<Span> {
    let length = content.user.as_ref().map_or(0, |user| user.length);
    let inside = ranges.iter().map(|range| Span {
        start: range.start,
        end: range.end.min(length),
    });
    inside.filter(|range| !range.is_empty()).collect()
}

pub(super) fn user_field_bytes(sealed: &[u8]) -> usize {
    8 + sealed.len()
}
