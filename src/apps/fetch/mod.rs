//! Fetches one URL over a byte stream of any transport.
//!
//! In: a [`Target`], options ([`TransferConfig`]), and the bytes of response streams. Out: request
//! heads (`poll_request`), body bytes in order to an [`Output`], and [`TransferEvent`]s. Handles
//! redirects, resumption, restarts after a change and the digest; connections and time are the host's.
//! Never does I/O of its own, never joins bytes of two versions into one object.
//! Sources: RFC 9110 (§13.1.5 `If-Range`, §14 ranges, §15.4 redirects), RFC 9530 (`Repr-Digest`).

pub mod config;
mod failure;
pub mod output;
pub mod queue;
pub mod sinks;
pub mod target;
mod verdict;
pub mod verify;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::apps::fetch::config::TransferConfig;
use crate::apps::fetch::output::{Held, Output, OutputError};
use crate::apps::fetch::target::Target;
use crate::apps::fetch::verdict::{ResponseVerdict, judge};
use crate::apps::fetch::verify::{Hasher as _, Sha256, Verifier};
use crate::http::reader::{ReaderEvent, ResponseReader};
use crate::http::request::Method;
use crate::http::response::ResponseHead;

pub use failure::{Attempt, Attempts, TransferFailure};

/// Most redirects to follow (as in browsers; curl's default is 50).
pub const MAX_REDIRECTS: usize = 10;

/// Most changes of an object before the transfer fails.
pub const MAX_RESTARTS: usize = 5;

/// Bytes buffered by an output from which on it receives no more.
pub const MAX_KEPT_BYTES: usize = 64 * 1024;

/// Longest body that is drained to keep its connection, in bytes.
pub const MAX_DRAIN_BYTES: u64 = 64 * 1024;

/// The outcome of verifying the body's digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestOutcome {
    /// The SHA-256 digest of the complete object equals the server's.
    Verified,
    /// The server sent no digest.
    Absent,
    /// The server sent one, but only a part of the object was requested or can be read back, or
    /// verification is off.
    Unchecked,
    /// The digest differs.
    Mismatch,
}

impl DigestOutcome {
    /// The name for reports.
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

/// An event of a transfer.
#[derive(Debug)]
pub enum TransferEvent {
    /// A response was accepted.
    Head {
        /// Its status code.
        status: u16,
        /// Offset of the body's first byte.
        offset: u64,
        /// Size of the complete body, including bytes held, if known.
        size: Option<u64>,
    },
    /// The transfer follows a redirect.
    Redirected {
        /// Its destination.
        to: Target,
    },
    /// The transfer starts over at 0, since the object changed.
    Restarted,
    /// The body is complete and presented.
    Done {
        /// The outcome of its digest.
        digest: DigestOutcome,
    },
    /// The transfer has failed.
    Failed(TransferFailure),
}

/// The progress of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferProgress {
    /// Body bytes held by the output, including earlier transfers.
    pub held: u64,
    /// Body bytes received by this transfer; never decreases.
    pub received: u64,
    /// Size of the complete body, if known.
    pub size: Option<u64>,
}

/// The end of a stream before its response was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Closed in order. `reused`: the connection had carried a response before, and its peer may
    /// have closed it as idle.
    Closed {
        /// Whether a retry is worthwhile (RFC 9112 §9.3.1).
        reused: bool,
    },
    /// Reset; `reused` as above.
    Reset {
        /// Whether a retry is worthwhile.
        reused: bool,
    },
    /// The server has another version of the object.
    Changed,
    /// The connection was never established.
    CannotConnect,
    /// A time limit was reached.
    TimedOut,
}

/// A request to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferRequest {
    /// The server and the resource.
    pub target: Target,
    /// The bytes to send.
    pub head: Vec<u8>,
    /// The previous response was not read completely: close its connection.
    pub abandon: bool,
}

/// The purpose of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// The object from its start, or the user's range.
    Whole,
    /// The rest of an object, after the bytes held.
    Rest,
    /// The head only: the bytes held seem complete, and need a digest.
    Confirm,
}

/// The destination of the body being read.
enum Body {
    /// The head has not arrived.
    Unknown,
    /// The output.
    Wanted {
        verifier: Option<Verifier>,
        outcome: DigestOutcome,
    },
    /// Discarded; then follows the next request.
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
    /// Every byte has arrived, but the output has buffered some.
    Writing {
        ask: Ask,
        outcome: DigestOutcome,
    },
    Ended,
}

/// A transfer of one URL into one output.
pub struct Transfer {
    config: TransferConfig,
    target: Target,
    output: Box<dyn Output>,
    held: Held,
    /// Digest of the bytes held at the start; `None` if they cannot be read back.
    prefix: Option<Sha256>,
    phase: TransferPhase,
    begun: bool,
    redirects: usize,
    restarts: usize,
    progress: TransferProgress,
    events: VecDeque<TransferEvent>,
}

impl Transfer {
    /// Creates a transfer without a request yet; examines the output.
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

    /// The present target; differs from the initial one after a redirect.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// The progress.
    #[must_use]
    pub const fn progress(&self) -> TransferProgress {
        self.progress
    }

    /// Whether it expects bytes of a response.
    #[must_use]
    pub const fn is_reading(&self) -> bool {
        matches!(self.phase, TransferPhase::Reading { .. })
    }

    /// Whether the output accepts more bytes; if not, the caller should leave them where they are
    /// until `flush` has made room.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.output.kept() < MAX_KEPT_BYTES
    }

    /// The descriptor whose writability makes `flush` worthwhile; none if nothing is buffered.
    #[must_use]
    pub fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        let waits = self.output.kept() > 0 && !matches!(self.phase, TransferPhase::Ended);
        self.output.descriptor().filter(|_| waits)
    }

    /// The interval after which `flush` is worthwhile in any case, if there is one.
    #[must_use]
    pub fn retry_interval(&self) -> Option<Duration> {
        let ended = matches!(self.phase, TransferPhase::Ended);
        self.output.retry_interval().filter(|_| !ended)
    }

    /// Lets the output write buffered bytes.
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

    /// Returns the next request to send, if it is time for one; then expects bytes of its response.
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

    /// Handles bytes of the response stream, in order; returns how many belong to the response.
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

    /// Handles the end of the stream. No effect if the response was complete.
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
            End::CannotConnect => self.fail(TransferFailure::CannotConnect {
                attempts: Attempts::default(),
            }),
            End::TimedOut => self.fail(TransferFailure::TimedOut),
        }
    }

    /// Fails the transfer. No effect if it has ended.
    pub fn fail(&mut self, failure: TransferFailure) {
        if !matches!(self.phase, TransferPhase::Ended) {
            // A reader that keeps up receives all bytes; a slow one must not delay us.
            let _ = self.output.flush();
            self.end(TransferEvent::Failed(failure));
        }
    }

    /// Returns the next event, if any. The last one is `Done` or `Failed`.
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

    /// Passes the body to the output, from `offset` on.
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

    /// Prepares the output for a body at `offset`; discards its bytes if that is 0.
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

    /// Handles a complete response.
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

    /// Handles the head that confirms the bytes held.
    fn confirm(&mut self, head: &ResponseHead) {
        self.progress.size = Some(self.held.bytes);
        let outcome = match (verdict::offered_digest(head), self.prefix.clone()) {
            (None, _) => DigestOutcome::Absent,
            (Some(_), None) => DigestOutcome::Unchecked,
            (Some(want), Some(prefix)) => Verifier::new(prefix.go_on(), want).finish(),
        };
        self.conclude(Ask::Confirm, outcome);
    }

    /// Ends a transfer whose bytes are complete, by the outcome of its digest.
    fn conclude(&mut self, ask: Ask, outcome: DigestOutcome) {
        match (outcome, ask) {
            // The bytes held are of another version, undetected for lack of a tag: fetch all of it.
            (DigestOutcome::Mismatch, Ask::Rest | Ask::Confirm) => self.restart(false),
            (DigestOutcome::Mismatch, Ask::Whole) => {
                // A file with wrong bytes must not be resumed; a pipe cannot be undone.
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

    /// Starts over at 0. `abandon`: the present response is not read completely.
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

    /// Drains a short body, else abandons its connection.
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
