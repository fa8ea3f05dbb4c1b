//! Fetches one URL over a byte stream, whatever carries it.
//!
//! In: a [`Target`], what to ask ([`TransferConfig`]), and the bytes of response streams. Out:
//! request heads (`poll_request`), body bytes in order to an [`Output`], and [`TransferEvent`]s.
//! Redirects, resumption, restarts after a change and the digest are decided here; connections and
//! time are the host's. Never does I/O of its own, never lets bytes of two versions pass as one object.
//! Sources: RFC 9110 (§13.1.5 `If-Range`, §14 ranges, §15.4 redirects), RFC 9530 (`Repr-Digest`).

pub mod config;
mod failure;
pub mod output;
pub mod target;
mod verdict;
pub mod verify;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use crate::apps::fetch::config::TransferConfig;
use crate::apps::fetch::output::{Held, Output, OutputError};
use crate::apps::fetch::target::Target;
use crate::apps::fetch::verdict::{ResponseVerdict, judge};
use crate::apps::fetch::verify::{Hasher as _, Sha256, Verifier};
use crate::http::reader::{ReaderEvent, ResponseReader};
use crate::http::request::Method;
use crate::http::response::ResponseHead;

pub use failure::TransferFailure;

/// Most redirects that are followed (as many as a browser would; curl's default is 50).
pub const MAX_REDIRECTS: usize = 10;

/// How often an object may change before the transfer is given up.
pub const MAX_RESTARTS: usize = 5;

/// Bytes that an output may keep back before it is given no more.
pub const MAX_KEPT_BYTES: usize = 64 * 1024;

/// Longest body that is read only to keep a connection, in bytes.
pub const MAX_DRAIN_BYTES: u64 = 64 * 1024;

/// Whether the bytes were those the server promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestOutcome {
    /// The SHA-256 digest of the whole object is the one offered.
    Verified,
    /// The server offered none.
    Absent,
    /// One was offered, but only a part of the object was asked for or can be read back, or nobody
    /// wants to know.
    Unchecked,
    /// The digest differs.
    Mismatch,
}

impl DigestOutcome {
    /// One word for reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Absent => "absent",
            Self::Unchecked => "unchecked",
            Self::Mismatch => "mismatch",
        }
    }
}

/// What a transfer tells its user.
#[derive(Debug)]
pub enum TransferEvent {
    /// A response was accepted.
    Head {
        /// Its status code.
        status: u16,
        /// Offset of the first body byte that follows.
        offset: u64,
        /// Size of the whole body, what is held included, if it is known.
        size: Option<u64>,
    },
    /// A redirect is followed.
    Redirected {
        /// Where to.
        to: Target,
    },
    /// The download starts again at 0, since the object changed.
    Restarted,
    /// The body is whole and presented.
    Done {
        /// What is known of its digest.
        digest: DigestOutcome,
    },
    /// The transfer has ended without success.
    Failed(TransferFailure),
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferProgress {
    /// Body bytes the output holds, earlier attempts included.
    pub held: u64,
    /// Body bytes that came by this transfer; never shrinks.
    pub received: u64,
    /// Size of the whole body, if it is known.
    pub size: Option<u64>,
}

/// How a stream ended before its response was whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In order: there is no more. `reused`: the connection had carried a response before, and its
    /// peer may have closed it for being idle.
    Closed {
        /// Whether it may be worth another try (RFC 9112 §9.3.1).
        reused: bool,
    },
    /// Torn down; `reused` as above.
    Reset {
        /// Whether it may be worth another try.
        reused: bool,
    },
    /// The server has another version of the object.
    Changed,
    /// It never began.
    CannotConnect,
    /// A time limit has passed.
    TimedOut,
}

/// A request to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferRequest {
    /// Whom to ask.
    pub target: Target,
    /// The bytes to send.
    pub head: Vec<u8>,
    /// The response before was left unread: its connection is of no more use.
    pub abandon: bool,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// The object from its start, or the range the user named.
    Whole,
    /// What is missing behind what the output holds.
    Rest,
    /// The head only: what is held seems whole, and its digest is wanted.
    Confirm,
}

/// What becomes of the body that is being read.
enum Body {
    /// The head has not come.
    Unknown,
    /// It goes to the output.
    Wanted {
        verifier: Option<Verifier>,
        outcome: DigestOutcome,
    },
    /// It is read away; then comes the next request.
    Drained(Ask),
}

enum TransferPhase {
    Ready {
        ask: Ask,
        abandon: bool,
    },
    Reading {
        ask: Ask,
        reader: ResponseReader,
        body: Body,
        any: bool,
    },
    /// Every byte has come, but the output keeps some back.
    Writing {
        ask: Ask,
        outcome: DigestOutcome,
    },
    Ended,
}

/// One URL on its way into one output.
pub struct Transfer {
    config: TransferConfig,
    target: Target,
    output: Box<dyn Output>,
    held: Held,
    /// Digest of what was held when the transfer began; `None` if that cannot be read back.
    prefix: Option<Sha256>,
    phase: TransferPhase,
    begun: bool,
    redirects: usize,
    restarts: usize,
    progress: TransferProgress,
    events: VecDeque<TransferEvent>,
}

impl Transfer {
    /// A transfer that has asked for nothing yet. Reads what the output holds.
    #[must_use]
    pub fn new(config: TransferConfig, target: Target, mut output: Box<dyn Output>) -> Self {
        let held = output.held();
        let mut prefix = Sha256::new();
        let replayed = match (held.bytes, config.verify) {
            (0, _) => Ok(true),
            (_, true) => output.replay(&mut |bytes| prefix.update(bytes)),
            (_, false) => Ok(false),
        };
        let ask = if held.bytes == 0 {
            Ask::Whole
        } else {
            Ask::Rest
        };
        let mut transfer = Self {
            config,
            target,
            output,
            progress: TransferProgress {
                held: held.bytes,
                received: 0,
                size: None,
            },
            held,
            prefix: None,
            phase: TransferPhase::Ready {
                ask,
                abandon: false,
            },
            begun: false,
            redirects: 0,
            restarts: 0,
            events: VecDeque::new(),
        };
        match replayed {
            Ok(readable) => transfer.prefix = readable.then_some(prefix),
            Err(error) => transfer.fail(TransferFailure::Output(error)),
        }
        transfer
    }

    /// Where the transfer is now; differs from where it began after a redirect.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// How far it is.
    #[must_use]
    pub const fn progress(&self) -> TransferProgress {
        self.progress
    }

    /// Whether bytes of a response are wanted.
    #[must_use]
    pub const fn is_reading(&self) -> bool {
        matches!(self.phase, TransferPhase::Reading { .. })
    }

    /// Whether the output takes more bytes; if not, they should stay where they are until `flush` has
    /// made room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.output.kept() < MAX_KEPT_BYTES
    }

    /// What becomes writable when `flush` is worth a call; none if nothing is kept back.
    #[must_use]
    pub fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        let waits = self.output.kept() > 0 && !matches!(self.phase, TransferPhase::Ended);
        self.output.descriptor().filter(|_| waits)
    }

    /// Lets the output write what it keeps back.
    pub fn flush(&mut self) {
        if matches!(self.phase, TransferPhase::Ended) {
            return;
        }
        if let Err(error) = self.output.flush() {
            self.fail(TransferFailure::Output(error));
        }
        if let TransferPhase::Writing { ask, outcome } = self.phase
            && self.output.kept() == 0
        {
            self.conclude(ask, outcome);
        }
    }

    /// The next request to send, if it is time for one. After it, bytes of its response are taken.
    pub fn poll_request(&mut self) -> Option<TransferRequest> {
        let TransferPhase::Ready { ask, abandon } = self.phase else {
            return None;
        };
        let method = if ask == Ask::Confirm {
            Method::Head
        } else {
            self.config.method
        };
        let resume = (ask == Ask::Rest).then_some(&self.held);
        match self.config.emit(method, &self.target, resume) {
            Ok(head) => {
                let reader = ResponseReader::new(method);
                self.phase = TransferPhase::Reading {
                    ask,
                    reader,
                    body: Body::Unknown,
                    any: false,
                };
                Some(TransferRequest {
                    target: self.target.clone(),
                    head,
                    abandon,
                })
            }
            Err(failure) => {
                self.fail(failure);
                None
            }
        }
    }

    /// Takes bytes of the response stream, in order; returns how many belonged to the response.
    pub fn handle_bytes(&mut self, mut bytes: &[u8]) -> usize {
        let all = bytes.len();
        while let TransferPhase::Reading { reader, any, .. } = &mut self.phase {
            *any |= !bytes.is_empty();
            let (used, step) = match reader.read(bytes) {
                Ok(read) => read,
                Err(error) => {
                    self.fail(TransferFailure::WeirdReply(error));
                    break;
                }
            };
            bytes = bytes.get(used..).unwrap_or_default();
            match step {
                ReaderEvent::NeedMore => break,
                ReaderEvent::Head(head) => self.handle_head(&head),
                ReaderEvent::Body(body) => self.handle_body(body),
                ReaderEvent::Done => self.handle_whole(),
            }
        }
        all - bytes.len()
    }

    /// Takes the end of the stream. Without effect if the response was whole.
    pub fn handle_end(&mut self, end: End) {
        let TransferPhase::Reading {
            ask, reader, any, ..
        } = &mut self.phase
        else {
            return;
        };
        let (ask, any) = (*ask, *any);
        let have = self.progress.held;
        match end {
            End::Closed { reused: true } | End::Reset { reused: true } if !any => {
                self.phase = TransferPhase::Ready { ask, abandon: true };
            }
            End::Closed { .. } => match reader.end() {
                Ok(()) => self.handle_whole(),
                Err(_) if !any => self.fail(TransferFailure::EmptyReply),
                Err(_) => self.fail(TransferFailure::Partial {
                    have,
                    want: self.progress.size,
                }),
            },
            End::Reset { .. } => self.fail(TransferFailure::Broken { have }),
            End::Changed => self.restart(true),
            End::CannotConnect => self.fail(TransferFailure::CannotConnect),
            End::TimedOut => self.fail(TransferFailure::TimedOut),
        }
    }

    /// Gives the transfer up. Without effect if it has ended.
    pub fn fail(&mut self, failure: TransferFailure) {
        if !matches!(self.phase, TransferPhase::Ended) {
            // A reader that keeps up gets what came; one that does not shall not hold us up.
            let _ = self.output.flush();
            self.end(TransferEvent::Failed(failure));
        }
    }

    /// The next event, if any. The last one is `Done` or `Failed`.
    pub fn poll_event(&mut self) -> Option<TransferEvent> {
        self.events.pop_front()
    }

    fn end(&mut self, event: TransferEvent) {
        self.phase = TransferPhase::Ended;
        self.events.push_back(event);
    }

    fn handle_head(&mut self, head: &ResponseHead) {
        let TransferPhase::Reading { ask, .. } = self.phase else {
            return;
        };
        match judge(&self.config, ask, &self.held, &self.target, head) {
            ResponseVerdict::Accept { offset } => self.accept(head, offset),
            ResponseVerdict::Redirect(to) if self.redirects < MAX_REDIRECTS => {
                self.redirects += 1;
                if head.status.0 == 303 && self.config.method != Method::Head {
                    self.config.method = Method::Get;
                }
                self.target = to.clone();
                self.events.push_back(TransferEvent::Redirected { to });
                self.drain(ask);
            }
            ResponseVerdict::Redirect(_) => self.fail(TransferFailure::TooManyRedirects),
            ResponseVerdict::Confirm => self.drain(Ask::Confirm),
            ResponseVerdict::Confirmed => self.confirm(head),
            ResponseVerdict::Restart => self.restart(true),
            ResponseVerdict::Fail(failure) => self.fail(failure),
        }
    }

    /// Lets the body through to the output, from `offset` on.
    fn accept(&mut self, head: &ResponseHead, offset: u64) {
        let etag = verdict::strong_etag(head);
        if let Err(error) = self.place(offset, etag.as_deref()) {
            return self.fail(TransferFailure::Output(error));
        }
        let offered = verdict::offered_digest(head);
        let partial = head.status.0 == 206 && offset == 0;
        let bodiless = self.config.method == Method::Head;
        let start = if offset == 0 {
            Some(Sha256::new())
        } else {
            self.prefix.clone()
        };
        let (verifier, outcome) = match (offered, start) {
            (None, _) => (None, DigestOutcome::Absent),
            (Some(want), Some(start)) if self.config.verify && !partial && !bodiless => (
                Some(Verifier::new((self.config.hasher)(start), want)),
                DigestOutcome::Unchecked,
            ),
            (Some(_), _) => (None, DigestOutcome::Unchecked),
        };
        let TransferPhase::Reading { reader, body, .. } = &mut self.phase else {
            return;
        };
        *body = Body::Wanted { verifier, outcome };
        let size = reader.remaining().map(|rest| offset.saturating_add(rest));
        self.progress = TransferProgress {
            held: offset,
            size,
            ..self.progress
        };
        self.events.push_back(TransferEvent::Head {
            status: head.status.0,
            offset,
            size,
        });
        if bodiless {
            let text = verdict::head_text(head);
            self.write(&text);
        }
    }

    /// Makes the output ready for a body at `offset`. What it holds is given up if that is 0.
    fn place(&mut self, offset: u64, etag: Option<&str>) -> Result<(), OutputError> {
        if offset == 0 && (self.held.bytes > 0 || self.begun) {
            self.output.rewind()?;
            self.held = Held::default();
            self.prefix = Some(Sha256::new());
        }
        self.begun = true;
        self.output.begin(offset, etag)
    }

    fn handle_body(&mut self, bytes: &[u8]) {
        if let TransferPhase::Reading {
            body: Body::Wanted { verifier, .. },
            ..
        } = &mut self.phase
        {
            if let Some(verifier) = verifier {
                verifier.update(bytes);
            }
            self.write(bytes);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.progress.held = self.progress.held.saturating_add(count);
        self.progress.received = self.progress.received.saturating_add(count);
        if let Err(error) = self.output.write(bytes) {
            self.fail(TransferFailure::Output(error));
        }
    }

    /// The response is complete.
    fn handle_whole(&mut self) {
        match core::mem::replace(&mut self.phase, TransferPhase::Ended) {
            TransferPhase::Reading {
                body: Body::Drained(next),
                ..
            } => {
                self.phase = TransferPhase::Ready {
                    ask: next,
                    abandon: false,
                };
            }
            TransferPhase::Reading {
                ask,
                body: Body::Wanted { verifier, outcome },
                ..
            } => {
                let outcome = verifier.map_or(outcome, |verifier| verifier.finish());
                self.phase = TransferPhase::Writing { ask, outcome };
                self.flush();
            }
            TransferPhase::Reading {
                body: Body::Unknown,
                ..
            }
            | TransferPhase::Ready { .. }
            | TransferPhase::Writing { .. }
            | TransferPhase::Ended => {}
        }
    }

    /// The head that was asked for to confirm what is held has come.
    fn confirm(&mut self, head: &ResponseHead) {
        self.progress.size = Some(self.held.bytes);
        let outcome = match (verdict::offered_digest(head), self.prefix.clone()) {
            (None, _) => DigestOutcome::Absent,
            (Some(_), None) => DigestOutcome::Unchecked,
            (Some(want), Some(prefix)) => Verifier::new(prefix.go_on(), want).finish(),
        };
        self.conclude(Ask::Confirm, outcome);
    }

    /// Every byte is there; its digest decides.
    fn conclude(&mut self, ask: Ask, outcome: DigestOutcome) {
        match (outcome, ask) {
            // What was held is of another version, which no tag told: take it all anew.
            (DigestOutcome::Mismatch, Ask::Rest | Ask::Confirm) => self.restart(false),
            (DigestOutcome::Mismatch, Ask::Whole) => {
                // Nobody shall resume what is known to be wrong; a pipe cannot take it back.
                let _ = self.output.rewind();
                self.end(TransferEvent::Failed(TransferFailure::DigestMismatch));
            }
            (DigestOutcome::Verified | DigestOutcome::Absent | DigestOutcome::Unchecked, _) => {
                let event = match self.output.finish() {
                    Ok(()) => TransferEvent::Done { digest: outcome },
                    Err(error) => TransferEvent::Failed(TransferFailure::Output(error)),
                };
                self.end(event);
            }
        }
    }

    /// Starts at 0 again. `abandon`: the present response is left unread.
    fn restart(&mut self, abandon: bool) {
        self.restarts += 1;
        let rewound = if self.begun || self.held.bytes > 0 {
            self.output.rewind().is_ok()
        } else {
            true
        };
        if !rewound || self.restarts > MAX_RESTARTS {
            return self.end(TransferEvent::Failed(TransferFailure::Changed));
        }
        self.begun = false;
        self.held = Held::default();
        self.prefix = Some(Sha256::new());
        self.progress.held = 0;
        self.progress.size = None;
        self.phase = TransferPhase::Ready {
            ask: Ask::Whole,
            abandon,
        };
        self.events.push_back(TransferEvent::Restarted);
    }

    /// Reads the body away if it is short, else leaves its connection.
    fn drain(&mut self, next: Ask) {
        let TransferPhase::Reading { reader, body, .. } = &mut self.phase else {
            return;
        };
        if reader
            .remaining()
            .is_some_and(|rest| rest <= MAX_DRAIN_BYTES)
        {
            *body = Body::Drained(next);
        } else {
            self.phase = TransferPhase::Ready {
                ask: next,
                abandon: true,
            };
        }
    }
}

#[cfg(test)]
mod tests;
