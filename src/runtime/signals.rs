//! SIGINT and SIGTERM as an event of the loop.
//!
//! In: the signals; out: a readable descriptor and which signal it was. The handlers are taken
//! back when this is dropped. Source: the self-pipe of `signal_hook::low_level::pipe`.

use std::io::{self, Read};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mio::net::UnixStream;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{SigId, flag, low_level};

/// A signal that ends the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: somebody pressed Ctrl-C.
    Interrupt,
    /// SIGTERM: somebody asks the process to end.
    Terminate,
}

/// The handlers and what they caught.
#[derive(Debug)]
pub(super) struct Signals {
    stream: UnixStream,
    caught: Arc<AtomicUsize>,
    handlers: Vec<SigId>,
}

const INTERRUPT: usize = 1;
const TERMINATE: usize = 2;

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let caught = Arc::new(AtomicUsize::new(0));
        let mut signals = Self {
            stream: UnixStream::from_std(ours),
            caught,
            handlers: Vec::new(),
        };
        for (signal, value) in [(SIGINT, INTERRUPT), (SIGTERM, TERMINATE)] {
            // Actions run in the order of registration: the flag is set before the loop wakes.
            let flag = flag::register_usize(signal, Arc::clone(&signals.caught), value)?;
            signals.handlers.push(flag);
            let pipe = low_level::pipe::register(signal, theirs.try_clone()?)?;
            signals.handlers.push(pipe);
        }
        Ok(signals)
    }

    pub(super) const fn source(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// The last signal since this was asked before, if any.
    pub(super) fn take(&self) -> Option<Signal> {
        match self.caught.swap(0, Ordering::SeqCst) {
            INTERRUPT => Some(Signal::Interrupt),
            TERMINATE => Some(Signal::Terminate),
            _ => None,
        }
    }

    /// Empties the pipe.
    pub(super) fn drain(&mut self) {
        let mut bytes = [0; 64];
        while self.stream.read(&mut bytes).is_ok_and(|len| len > 0) {}
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            low_level::unregister(handler);
        }
    }
}
