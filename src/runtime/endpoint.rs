//! A machine on a device with the loop between them: a complete server or client for a program.
//!
//! In: a device and a machine. Out: a server's loop until a signal ends it, or a client's bodies, one
//! after the other over one connection where possible. The command line runs on it, too.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::apps::fetch::config::TransferConfig;
use crate::apps::fetch::sinks::MemoryOutput;
use crate::apps::fetch::target::{Target, TargetError};
use crate::apps::fetch::{DigestOutcome, Transfer, TransferEvent, TransferFailure};
use crate::device::Device;
use crate::host::Machine;
use crate::host::client::ClientHost;
use crate::runtime::resolver::ThreadResolver;
use crate::runtime::{Hooks, OsClock, Runtime, Signal, Stopped, default_busy_poll};
use crate::time::Now;

/// Longest body that [`Endpoint::fetch`] returns, in bytes; a longer one needs an
/// [`Output`](crate::Output) of its own and [`Endpoint::transfer`].
pub const MAX_BODY_BYTES: usize = 64 << 20;

/// Why an endpoint did not fetch a body.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL cannot be fetched. The caller is at fault.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The transfer failed. The endpoint can fetch again.
    #[error(transparent)]
    Failed(#[from] TransferFailure),
    /// SIGINT or SIGTERM arrived first.
    #[error("interrupted by a signal")]
    Interrupted(Signal),
    /// The device or the operating system failed; the endpoint is unusable afterwards.
    #[error("the device failed: {0}")]
    Device(#[from] io::Error),
}

/// A machine, the device that carries its packets, and the loop between them.
///
/// `D` is any [`Device`] with a non-blocking descriptor, `M` a [`ServerHost`](crate::ServerHost), a
/// [`ClientHost`] or any other [`Machine`].
pub struct Endpoint<D, M> {
    runtime: Runtime<D>,
    machine: M,
}

/// Hooks of a program that does nothing beside its machine.
struct NoHooks;

impl<M> Hooks<M> for NoHooks {
    fn turn(&mut self, _now: Now, _machine: &mut M) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl<D: Device + AsRawFd, M: Machine> Endpoint<D, M> {
    /// Creates an endpoint. `clock` must be the one whose time `machine` was created with. Catches
    /// SIGINT and SIGTERM from now on; the loop busy-polls for [`default_busy_poll`].
    ///
    /// # Errors
    /// If the operating system has no descriptors left.
    pub fn new(clock: OsClock, device: D, machine: M) -> io::Result<Self> {
        let mut runtime = Runtime::new(clock, device)?;
        runtime.busy_poll(default_busy_poll());
        for descriptor in machine.descriptors() {
            runtime.watch(&descriptor)?;
        }
        Ok(Self { runtime, machine })
    }

    /// Runs until SIGINT or SIGTERM arrives.
    ///
    /// # Errors
    /// Those of the device and of `poll`; the endpoint is unusable afterwards.
    pub fn run(&mut self) -> io::Result<Stopped> {
        self.run_with(&mut NoHooks)
    }

    /// Runs until `hooks` or a signal ends the loop.
    ///
    /// # Errors
    /// Those of the device, of `poll` and of the hooks; the endpoint is unusable afterwards.
    pub fn run_with(&mut self, hooks: &mut impl Hooks<M>) -> io::Result<Stopped> {
        self.runtime.run(&mut self.machine, hooks)
    }

    /// The machine.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, for commands between two runs.
    pub const fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The loop, to set its busy-poll time or to add metrics, a control socket and further signals.
    pub const fn runtime_mut(&mut self) -> &mut Runtime<D> {
        &mut self.runtime
    }
}

impl<D: Device + AsRawFd> Endpoint<D, ClientHost> {
    /// Fetches a URL and returns the body, at most [`MAX_BODY_BYTES`] long; `http://` may be omitted.
    /// A status of 400 or above is an error.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn fetch(&mut self, url: &str) -> Result<Vec<u8>, FetchError> {
        let config = TransferConfig {
            fail: true,
            ..TransferConfig::default()
        };
        let body = MemoryOutput::with_limit(MAX_BODY_BYTES);
        let transfer = Transfer::new(config, Target::parse(url)?, Box::new(body.clone()));
        self.transfer(transfer)?;
        Ok(body.take())
    }

    /// Runs a transfer and returns the outcome of its digest.
    ///
    /// # Errors
    /// [`FetchError`], except [`FetchError::Target`].
    pub fn transfer(&mut self, transfer: Transfer) -> Result<DigestOutcome, FetchError> {
        let mut hooks = OneTransfer {
            resolver: ThreadResolver::new(self.runtime.waker()?),
            waiting: Some(transfer),
            ended: None,
        };
        let stopped = self.run_with(&mut hooks)?;
        match (hooks.ended, stopped) {
            (Some(ended), _) => Ok(ended?),
            (None, Stopped::BySignal(signal)) => Err(FetchError::Interrupted(signal)),
            (None, Stopped::ByHook) => unreachable!("the hook ends the loop with the transfer"),
        }
    }
}

/// Starts one transfer, and ends the loop with it.
struct OneTransfer {
    resolver: ThreadResolver,
    waiting: Option<Transfer>,
    ended: Option<Result<DigestOutcome, TransferFailure>>,
}

impl Hooks<ClientHost> for OneTransfer {
    fn turn(&mut self, now: Now, machine: &mut ClientHost) -> ControlFlow<()> {
        if let Some(transfer) = self.waiting.take() {
            machine.start(now, transfer);
        }
        machine.turn(now);
        self.resolver.turn(now, machine);
        while let Some(event) = machine.poll_event() {
            match event {
                TransferEvent::Done { digest } => self.ended = Some(Ok(digest)),
                TransferEvent::Failed(failure) => self.ended = Some(Err(failure)),
                TransferEvent::Head { .. }
                | TransferEvent::Redirected { .. }
                | TransferEvent::Restarted => {}
            }
        }
        match self.ended {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    }

    fn waits_for<'a>(&'a self, machine: &'a ClientHost) -> Option<BorrowedFd<'a>> {
        machine.waits_for()
    }
}
