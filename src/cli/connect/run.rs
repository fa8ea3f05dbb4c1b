//! One connection to a service, or one fetch, as a measurement.
//!
//! In: a configuration and a URL. Out: the course of the race, times and counters. Opens a device of its own each time,
//! so that nothing is left over from the run before.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::apps::fetch::config::TransferConfig;
use crate::apps::fetch::sinks::WriteOutput;
use crate::apps::fetch::target::Target;
use crate::apps::fetch::{Transfer, TransferEvent, TransferFailure};
use crate::cli::connect::{ClientDevice, ConnectConfig, Memory};
use crate::cli::exit::Failed;
use crate::cli::local::{Opened, device_failed};
use crate::device::Device;
use crate::host::client::ClientHost;
use crate::host::report::{ClientReport, RaceReport};
use crate::http::request::Method;
use crate::runtime::resolver::ThreadResolver;
use crate::runtime::{Hooks, OsClock, Stopped};
use crate::time::{Instant, Now};

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// A connection is established.
    Connected,
    /// The body has arrived.
    Fetched,
}

impl Until {
    /// The transfer that leads there; its body is dropped.
    #[must_use]
    pub fn transfer(self, target: &Target) -> Transfer {
        let config = TransferConfig {
            method: match self {
                Self::Connected => Method::Head,
                Self::Fetched => Method::Get,
            },
            ..TransferConfig::default()
        };
        let output = Box::new(WriteOutput::new(io::sink()));
        Transfer::new(config, target.clone(), output)
    }
}

/// The course of a run.
#[derive(Debug)]
pub struct Run {
    /// The race for the connection.
    pub race: RaceReport,
    /// Counters of all attempts.
    pub report: ClientReport,
    /// The time from the start, before the device is opened, to the end.
    pub took: Duration,
    /// Bytes of the body.
    pub bytes: u64,
    /// The failure, if it failed.
    pub failure: Option<TransferFailure>,
}

/// Connects to the service of a URL, or fetches it, and drops the body.
///
/// # Errors
/// If the device cannot be opened or fails, or a signal ends the run. A failure to connect is a part of the result.
pub fn run(
    config: &ConnectConfig,
    target: &Target,
    until: Until,
    memory: Memory,
) -> Result<Run, Failed> {
    let clock = OsClock::new();
    let begun = clock.now();
    let hooks = OneRun::new(target, until, begun.instant);
    match config.open()? {
        ClientDevice::Sockets(device) => drive(config, clock, device, memory, hooks),
        ClientDevice::Tun(Opened::Plain(device)) => drive(config, clock, device, memory, hooks),
        ClientDevice::Tun(Opened::Tapped(device)) => drive(config, clock, device, memory, hooks),
    }
}

fn drive<D: Device + AsRawFd>(
    config: &ConnectConfig,
    clock: OsClock,
    device: D,
    memory: Memory,
    mut hooks: OneRun,
) -> Result<Run, Failed> {
    let machine = config.machine(clock.now(), memory)?;
    let mut endpoint = config.local.endpoint(clock, device, machine)?;
    let waker = endpoint.runtime_mut().waker().map_err(device_failed)?;
    hooks.resolver = Some(ThreadResolver::new(waker));
    let stopped = endpoint.run_with(&mut hooks).map_err(device_failed)?;
    if let Stopped::BySignal(signal) = stopped {
        return Err(Failed::new(signal.into(), ""));
    }
    let machine = endpoint.machine();
    config.save_history(&machine.history(clock.now()), clock.now().unix);
    Ok(Run {
        race: machine.race().clone(),
        report: machine.report(),
        took: hooks.ended.saturating_since(hooks.begun),
        bytes: machine.progress().received,
        failure: hooks.failure,
    })
}

struct OneRun {
    resolver: Option<ThreadResolver>,
    waiting: Option<Transfer>,
    until: Until,
    begun: Instant,
    ended: Instant,
    failure: Option<TransferFailure>,
}

impl OneRun {
    fn new(target: &Target, until: Until, begun: Instant) -> Self {
        Self {
            resolver: None,
            waiting: Some(until.transfer(target)),
            until,
            begun,
            ended: begun,
            failure: None,
        }
    }

    /// Whether the run has ended.
    fn has_ended(&mut self, machine: &mut ClientHost) -> bool {
        let mut ended = self.until == Until::Connected && machine.race().winner.is_some();
        while let Some(event) = machine.poll_event() {
            match event {
                TransferEvent::Done { .. } => ended = true,
                TransferEvent::Failed(failure) => {
                    self.failure = Some(failure);
                    ended = true;
                }
                TransferEvent::Head { .. }
                | TransferEvent::Redirected { .. }
                | TransferEvent::Restarted => {}
            }
        }
        ended
    }
}

impl Hooks<ClientHost> for OneRun {
    fn turn(&mut self, now: Now, machine: &mut ClientHost) -> ControlFlow<()> {
        if let Some(transfer) = self.waiting.take() {
            machine.start(now, transfer);
        }
        machine.turn(now);
        if let Some(resolver) = &mut self.resolver {
            resolver.turn(now, machine);
        }
        if self.has_ended(machine) {
            self.ended = now.instant;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}
