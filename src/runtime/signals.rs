//! Signals as events of the loop: those that end it, and notices.
//!
//! In: signals. Out: a readable descriptor, and the signal that arrived. Always catches SIGINT and
//! SIGTERM, others on request. After it is dropped they have no effect, until [`release_signals`].
//! Source: the self-pipe of `signal_hook::low_level::pipe`.

use std::io::{self, Read};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mio::net::UnixStream;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{SigId, flag, low_level};

/// A signal that ends the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: a request to terminate.
    Terminate,
}

/// A signal that requests an action without ending the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// SIGHUP: reload the configuration.
    Hangup,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
}

impl Notice {
    const fn number(self) -> i32 {
        match self {
            Self::Hangup => SIGHUP,
            Self::User1 => SIGUSR1,
            Self::User2 => SIGUSR2,
        }
    }
}

/// The handlers, and the signals caught.
#[derive(Debug)]
pub(crate) struct Signals {
    stream: UnixStream,
    /// The other end, for the handlers.
    waker: StdStream,
    caught: Arc<AtomicUsize>,
    notices: Vec<(Notice, Arc<AtomicBool>)>,
    handlers: Vec<SigId>,
}

const INTERRUPT: usize = 1;
const TERMINATE: usize = 2;

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        let caught = Arc::new(AtomicUsize::new(0));
        let mut signals = Self {
            stream: UnixStream::from_std(ours),
            waker: theirs,
            caught,
            notices: Vec::new(),
            handlers: Vec::new(),
        };
        for (signal, value) in [(SIGINT, INTERRUPT), (SIGTERM, TERMINATE)] {
            // Actions run in the order of registration: the flag is set before the loop wakes.
            let flag = flag::register_usize(signal, Arc::clone(&signals.caught), value)?;
            signals.handlers.push(flag);
            signals.wake_at(signal)?;
        }
        Ok(signals)
    }

    /// Catches the signal of a notice from now on.
    pub(crate) fn catch(&mut self, notice: Notice) -> io::Result<()> {
        let caught = Arc::new(AtomicBool::new(false));
        let flag = flag::register(notice.number(), Arc::clone(&caught))?;
        self.handlers.push(flag);
        self.notices.push((notice, caught));
        self.wake_at(notice.number())
    }

    fn wake_at(&mut self, signal: i32) -> io::Result<()> {
        let pipe = low_level::pipe::register(signal, self.waker.try_clone()?)?;
        self.handlers.push(pipe);
        Ok(())
    }

    pub(crate) const fn source(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Takes the last signal caught, if any.
    pub(crate) fn take(&self) -> Option<Signal> {
        match self.caught.swap(0, Ordering::SeqCst) {
            INTERRUPT => Some(Signal::Interrupt),
            TERMINATE => Some(Signal::Terminate),
            _ => None,
        }
    }

    /// Takes the next notice caught, if any.
    pub(crate) fn take_notice(&self) -> Option<Notice> {
        let found = self
            .notices
            .iter()
            .find(|(_, caught)| caught.swap(false, Ordering::SeqCst));
        found.map(|(notice, _)| *notice)
    }

    /// Empties the pipe.
    pub(crate) fn drain(&mut self) {
        let mut bytes = [0; 64];
        while self.stream.read(&mut bytes).is_ok_and(|len| len > 0) {}
    }
}

/// Restores the default action of SIGINT and SIGTERM, which ends the process: for a program whose
/// loop has ended and that still waits for others. Without it both stay without effect.
///
/// # Errors
/// The operating system's error.
pub fn release_signals() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, Arc::new(AtomicBool::new(true)))?;
    }
    Ok(())
}

impl Drop for Signals {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            low_level::unregister(handler);
        }
    }
}
