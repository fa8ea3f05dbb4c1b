//! A connection: all that bytes and their proof depend on, whatever path they take.
//!
//! In: requests and reads of the user, answers, the time. Out: datagrams and events, through the
//! [`Outbox`]. The addresses, the round trips and the pace are those of a [`Path`], which each call
//! names. A connection keeps its stream when the service forgets it: it opens anew, under another
//! id, and requests the rest.
//!
//! This file has the parts and the commands; `input`, `output` and `timers` have the rest.

use std::collections::VecDeque;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

use crate::time::Instant;
use crate::transport::application::MAX_REQUEST_BYTES;
use crate::transport::client::bucket::Bucket;
use crate::transport::client::flights::Flights;
use crate::transport::client::outbox::Outbox;
use crate::transport::client::path::Path;
use crate::transport::client::stream::{Stream, label_of};
use crate::transport::client::window::Window;
use crate::transport::client::{AddressToken, ClientConfig, ClientEvent};
use crate::transport::epoch::{Epoch, TransitionKind};
use crate::transport::layout::Layout;
use crate::wire::segment::{Addressee, Span};

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Connection {
    /// Feeds the echo of OPENs and the tags of probes.
    pub(super) random: ChaCha8Rng,
    /// Proof of the own address from an earlier connection.
    pub(super) token: Option<AddressToken>,
    pub(super) idle_timeout: Duration,
    /// `None` until a server has answered, and again once the continuation is too old.
    pub(super) established: Option<Established>,
    pub(super) opening: Option<Opening>,
    pub(super) stream: Stream,
    pub(super) flights: Flights,
    pub(super) probe: Option<Probe>,
    /// Flights to be requested again.
    pub(super) repeats: VecDeque<u64>,
    /// Kept and filled again to spare allocations.
    pub(super) layout: Layout,
    /// Connections opened anew since the last byte of the stream.
    pub(super) reopened: u32,
    /// Last answer, or request of an idle connection.
    pub(super) last_answer: Instant,
    pub(super) last_new_byte: Instant,
    /// When the first number not acknowledged came.
    pub(super) unacknowledged_since: Option<Instant>,
}

/// The identity that a server's answer gave to a connection, and its congestion state.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) id: u64,
    pub(super) window: Window,
    pub(super) bucket: Bucket,
    /// A number beyond the present event is lost: an event of the next epoch.
    pub(super) deferred_loss: Option<u64>,
    /// The next request declares that numbers were given up, for the first time or again.
    pub(super) declare_due: bool,
    /// Numbers up to here were released when a request was last repeated.
    pub(super) repeated_up_to: u64,
}

/// An OPEN under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) echo: u64,
    pub(super) sent: Instant,
    pub(super) attempts: u32,
    pub(super) due: bool,
    /// The streams that its OPENs named, from the first to the last.
    pub(super) streams: (u64, u64),
}

impl Opening {
    /// The stream that its OPENs gave this label; `None` if there is none, or if two may have it.
    pub(super) fn stream_of(&self, label: u8) -> Option<u64> {
        let (first, last) = self.streams;
        let back = label_of(last).wrapping_sub(label);
        let stream = last.checked_sub(u64::from(back))?;
        let unique = last - first <= u64::from(u8::MAX);
        (unique && stream >= first).then_some(stream)
    }
}

/// A probe under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) tag: u32,
    pub(super) sent: Instant,
    /// The edge that it showed.
    pub(super) edge: u64,
    /// The epoch that the continuation in its answer speaks for.
    pub(super) yields: Epoch,
    /// Its answer opens that epoch: it declared an event.
    pub(super) opens: bool,
}

impl Connection {
    /// A connection that has not sent anything; `seed` feeds its random choices.
    pub(super) fn new(config: ClientConfig, seed: u64) -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            token: config.token,
            idle_timeout: config.idle_timeout,
            established: None,
            opening: None,
            stream: Stream::new(config.buffer),
            flights: Flights::default(),
            probe: None,
            repeats: VecDeque::new(),
            layout: Layout::default(),
            reopened: 0,
            last_answer: Instant::ZERO,
            last_new_byte: Instant::ZERO,
            unacknowledged_since: None,
        }
    }

    // --- Commands ---

    /// Requests a new response stream; the one before is finished or given up. A request longer than
    /// [`MAX_REQUEST_BYTES`] is cut.
    pub(super) fn request(
        &mut self,
        now: Instant,
        path: &mut Path,
        out: &mut Outbox,
        request: &[u8],
    ) {
        let most = MAX_REQUEST_BYTES.min(request.len());
        self.stream.restart(request.get(..most).unwrap_or_default());
        self.flights.end_waits_but_of(now, self.stream.id);
        if self.flights.is_empty() {
            path.wait_from(now);
        }
        path.reset_backoff();
        self.reopened = 0;
        self.last_answer = now;
        self.last_new_byte = now;
        if self.established.is_none() && self.opening.is_none() {
            self.open(now);
        }
        self.fill(now, path, out);
    }

    /// Takes `count` of the bytes that are ready.
    pub(super) fn consume(
        &mut self,
        now: Instant,
        path: &mut Path,
        out: &mut Outbox,
        count: usize,
    ) {
        let idle = !self.is_busy();
        self.stream.reassembly.consume(count);
        if idle {
            // The buffer was full: there was nothing to wait for until now.
            path.wait_from(now);
            self.last_answer = now;
            self.last_new_byte = now;
        }
        self.check_finished(out);
        self.fill(now, path, out);
    }

    // --- Getters ---

    /// The window in force; `None` before the first answer.
    pub(super) fn window(&self) -> Option<&Window> {
        self.established.as_ref().map(|known| &known.window)
    }

    /// The newest continuation, to be remembered as an address token, and when it came; `None` before the
    /// address is proven, since no server accepts it then.
    pub(super) fn address_token(&self) -> Option<(AddressToken, Instant)> {
        let known = self.established.as_ref()?;
        let held = known.window.token()?;
        let token = AddressToken {
            connection: known.id,
            sealed: held.sealed.clone(),
        };
        Some((token, held.since))
    }

    /// Whether a datagram with this addressee is of this connection: the established one, or the one
    /// that an OPEN requested.
    pub(super) fn is_addressed(&self, addressee: Addressee) -> bool {
        let known = self.established.as_ref().map(|known| known.id);
        let echo = self.opening.map(|opening| opening.echo);
        known == Some(addressee.connection) || (echo.is_some() && echo == addressee.echo)
    }

    /// Whether answers are awaited or still to be requested.
    pub(super) fn is_busy(&self) -> bool {
        !self.stream.finished && (self.stream.wanted() > 0 || !self.flights.is_empty())
            || self.opening.is_some()
    }

    // --- Parts of more than one of these ---

    /// Reports the end of the stream if every byte has been read.
    pub(super) fn check_finished(&mut self, out: &mut Outbox) {
        if !self.stream.finished && self.stream.is_read() {
            self.stream.finished = true;
            out.event(ClientEvent::Finished);
        }
    }

    /// Declares an event at the present edge. `false` if the epoch cannot have it.
    pub(super) fn declare(&mut self, path: &Path, out: &mut Outbox, kind: TransitionKind) -> bool {
        let Some(known) = &mut self.established else {
            return false;
        };
        // What forgives no loss cannot be declared behind one.
        let gentle = matches!(kind, TransitionKind::Ce | TransitionKind::Exit);
        let kind = match gentle && known.window.has_holes() {
            true => TransitionKind::Loss,
            false => kind,
        };
        let declared = known.window.declare(kind, path.rtt_us());
        if declared {
            out.stats.declared(kind);
        }
        declared
    }

    /// Declares a restart, or a move if numbers are missing.
    pub(super) fn restart(&mut self, path: &Path, out: &mut Outbox) -> bool {
        let kind = self
            .established
            .as_ref()
            .map(|known| known.window.restart_kind());
        kind.is_some_and(|kind| self.declare(path, out, kind))
    }

    /// Wants the bytes of a given-up flight again.
    pub(super) fn lose_bytes(&mut self, stream: u64, bytes: &[Span]) {
        if stream != self.stream.id {
            return;
        }
        for span in bytes {
            self.stream.lose(*span);
        }
        if self.stream.user.is_none() {
            self.stream.beginning = false;
        }
    }

    /// Gives up all flights; their bytes are wanted again.
    pub(super) fn give_up_flights(&mut self, out: &mut Outbox) {
        let (lost, count) = self.flights.give_up_all();
        out.stats.lost += count;
        for (stream, span) in lost {
            self.lose_bytes(stream, &[span]);
        }
        self.repeats.clear();
        self.stream.beginning = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_one_stream_of_an_opening_at_most() {
        for (name, streams, label, want) in [
            ("the only one", (1, 1), 1, Some(1)),
            ("another label", (1, 1), 2, None),
            ("none is named 0 - 255", (1, 1), 0xff, None),
            ("asked for before", (1, 3), 2, Some(2)),
            ("the first", (250, 260), 250, Some(250)),
            ("beyond the last", (250, 260), 5, None),
            ("as many as there are labels", (1, 256), 1, Some(1)),
            ("one more", (1, 257), 1, None),
        ] {
            let opening = Opening {
                echo: 0,
                sent: Instant::ZERO,
                attempts: 1,
                due: false,
                streams,
            };
            assert_eq!(opening.stream_of(label), want, "{name}");
        }
    }
}
