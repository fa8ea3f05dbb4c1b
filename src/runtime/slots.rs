//! The connections of a listener of the loop, bounded in number.
//!
//! In: events of the poll, new connections. Out: which connections are to be served. Never waits for a
//! peer.

use std::io::{self, ErrorKind};
use std::ops::ControlFlow;

use mio::event::Source;
use mio::{Interest, Registry, Token};

/// At most `N` connections of one listener.
#[derive(Debug)]
pub(super) struct Slots<C, const N: usize> {
    /// Token of the listener; those of the connections follow it.
    listener: usize,
    slots: [Option<C>; N],
    /// Edge-triggered: whether the listener may have pending connections.
    acceptable: bool,
}

impl<C, const N: usize> Slots<C, N> {
    /// Creates empty slots for a listener with the token `listener`.
    pub(super) fn new(listener: usize) -> Self {
        Self {
            listener,
            slots: [const { None }; N],
            acceptable: true,
        }
    }

    /// Registers the listener.
    pub(super) fn register(
        &self,
        registry: &Registry,
        listener: &mut impl Source,
    ) -> io::Result<()> {
        registry.register(listener, Token(self.listener), Interest::READABLE)
    }

    /// Records an event of the loop; returns the connection that it concerns, if any.
    pub(super) fn note(&mut self, token: Token) -> Option<&mut C> {
        match token.0.checked_sub(self.listener)? {
            0 => {
                self.acceptable = true;
                None
            }
            n => self.slots.get_mut(n - 1)?.as_mut(),
        }
    }

    /// Accepts all pending connections. `choose` returns the slot of the next one, whose connection it
    /// replaces, or `None` to close the new one.
    pub(super) fn accept<S: Source>(
        &mut self,
        registry: &Registry,
        mut next: impl FnMut() -> io::Result<S>,
        choose: impl Fn(&[Option<C>; N]) -> Option<usize>,
        mut admit: impl FnMut(S) -> C,
    ) {
        while self.acceptable {
            match next() {
                Ok(mut stream) => {
                    let chosen = choose(&self.slots);
                    let Some((n, slot)) = chosen.and_then(|n| Some((n, self.slots.get_mut(n)?)))
                    else {
                        continue;
                    };
                    let token = Token(self.listener + 1 + n);
                    let both = Interest::READABLE | Interest::WRITABLE;
                    if registry.register(&mut stream, token, both).is_ok() {
                        *slot = Some(admit(stream));
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Out of descriptors, too: the next connection wakes the loop again.
                Err(_) => self.acceptable = false,
            }
        }
    }

    /// Whether the listener may have pending connections.
    pub(super) const fn is_acceptable(&self) -> bool {
        self.acceptable
    }

    /// The connections.
    pub(super) fn iter(&self) -> impl Iterator<Item = &C> {
        self.slots.iter().flatten()
    }

    /// Serves each connection; closes those for which `serve` returns `Break`.
    pub(super) fn serve(&mut self, mut serve: impl FnMut(&mut C) -> ControlFlow<()>) {
        for slot in &mut self.slots {
            if slot
                .as_mut()
                .is_some_and(|connection| serve(connection).is_break())
            {
                *slot = None;
            }
        }
    }
}
