//! The stream bytes of a flight, produced by the application.
//!
//! In: the ranges of a request. Out: a user continuation, and bytes gathered for the flight.

use super::emit::Seals;
use super::{Server, ServerDrop};
use crate::transport::application::{
    Application, MAX_STREAM_BYTES, MAX_USER_BYTES, RequestContext, StreamPart, Ticket, Unavailable,
};
use crate::transport::continuation::UserContinuation;
use crate::transport::layout::Layout;
use crate::wire::segment::{Span, UserField, Wanted};

/// The stream bytes for a flight.
#[derive(Default)]
pub(super) struct Content {
    /// The user continuation that produces them; `None` if no bytes are requested.
    pub(super) user: Option<UserContinuation>,
    /// The sealed user continuation, if the client does not have it yet.
    pub(super) sealed: Option<Vec<u8>>,
    /// Whether this server has another version of the object.
    pub(super) changed: bool,
}

/// Why there are no stream bytes for a flight.
pub(super) enum Unproduced {
    Dropped(ServerDrop),
    Waits(Ticket),
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
        context: RequestContext,
        wanted: Wanted<'_>,
        app: &mut dyn Application,
    ) -> Result<Content, Unproduced> {
        let (user, sealed) = match wanted {
            Wanted::Of([]) | Wanted::New([]) => (None, None),
            Wanted::Of(sealed) => {
                let opened = UserContinuation::open(&self.keys, sealed);
                let mut user = opened.map_err(|error| Unproduced::Dropped(error.into()))?;
                // The client learns of the end by a user continuation that has it.
                let ends = user.length.is_none();
                user.length = user.length.or_else(|| app.length(context, &user.user));
                let sealed = (ends && user.length.is_some()).then(|| user.seal(&self.keys));
                (Some(user), sealed)
            }
            Wanted::New(request) => {
                let begun = match app.begin(context, request) {
                    Ok(begun) => begun,
                    Err(Unavailable::NotReady(ticket)) => return Err(Unproduced::Waits(ticket)),
                    // Against the contract: there is no stream yet that could have changed.
                    Err(Unavailable::Changed) => {
                        return Err(Unproduced::Dropped(ServerDrop::NotBegun));
                    }
                };
                debug_assert!(
                    begun.user.len() <= MAX_USER_BYTES,
                    "the application's contract"
                );
                let length = begun.length.or_else(|| app.length(context, &begun.user));
                let user = UserContinuation {
                    user: begun.user,
                    length,
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

    /// Stages the bytes of the layout that are there; `fit` lays them out again if some are missing. On
    /// `Changed` the flight carries none. Returns the ticket to wait for if no byte is there.
    pub(super) fn stage(
        &mut self,
        context: RequestContext,
        content: &mut Content,
        app: &mut dyn Application,
        fit: impl FnOnce(&mut Layout, &[Span]),
    ) -> Result<(), Ticket> {
        self.gathered.clear();
        self.staged.clear();
        let Some(user) = &content.user else {
            return Ok(());
        };
        let (mut waits, mut short) = (None, false);
        for run in self.layout.runs() {
            let wanted = usize::try_from(run.len()).unwrap_or(0);
            let have = match app.stage(
                StreamPart::new(context, &user.user, run.start),
                wanted,
                &mut self.gathered,
            ) {
                Err(Unavailable::NotReady(ticket)) => {
                    waits.get_or_insert(ticket);
                    0
                }
                // A stream shorter than its stated length is not the same stream.
                Ok(0) | Err(Unavailable::Changed) => {
                    content.changed = true;
                    break;
                }
                Ok(have) => have,
            };
            short |= have < wanted;
            let end = run.start + u64::try_from(have).unwrap_or(0);
            self.staged.push(Span { end, ..run });
        }
        if content.changed {
            self.clear_stage();
        } else if short {
            self.staged.retain(|span| !span.is_empty());
            match waits {
                Some(ticket) if self.staged.is_empty() => return Err(ticket),
                _ => fit(&mut self.layout, &self.staged),
            }
        }
        Ok(())
    }

    /// Empties the flight in progress.
    pub(super) fn clear_stage(&mut self) {
        self.layout.fill(0, 0, 0, &[]);
        self.gathered.clear();
    }
}

/// Clips the ranges to the stream.
pub(super) fn clamp(content: &Content, ranges: &[Span]) -> Vec<Span> {
    let user = content.user.as_ref();
    let length = user.map_or(0, |user| user.length.unwrap_or(MAX_STREAM_BYTES));
    let inside = ranges.iter().map(|range| Span {
        start: range.start,
        end: range.end.min(length),
    });
    inside.filter(|range| !range.is_empty()).collect()
}

pub(super) fn user_field_bytes(sealed: &[u8]) -> usize {
    8 + sealed.len()
}
