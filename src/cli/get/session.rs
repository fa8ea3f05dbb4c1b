//! The transfers of one run of `get`, between their queue, the loop and the user.
//!
//! In: turns of the loop and events of the machine. Out: commands to the machine, lines on standard
//! error, and the outcome of each URL.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::apps::fetch::output::OutputError;
use crate::apps::fetch::queue::TransferJob;
use crate::apps::fetch::target::TargetError;
use crate::apps::fetch::{DigestOutcome, Transfer, TransferEvent, TransferFailure};
use crate::cli::exit::{Exit, Failed};
use crate::cli::get::args::{GetConfig, Jobs};
use crate::cli::get::output::{Destination, prepare};
use crate::cli::get::progress::Bar;
use crate::cli::get::show;
use crate::cli::get::stats::UrlStats;
use crate::connect::Transport;
use crate::host::client::ClientHost;
use crate::runtime::Hooks;
use crate::runtime::resolver::ThreadResolver;
use crate::time::{Instant, Now};

/// The transfer in progress.
struct Current {
    job: TransferJob<Destination>,
    begun: Instant,
    status: Option<u16>,
    /// Body bytes received, and the transport that carried them; set at the end.
    bytes: u64,
    transport: Option<Transport>,
    bar: Bar,
}

impl Current {
    /// Takes note of how far the machine is with the transfer.
    fn observe(&mut self, machine: &ClientHost) {
        self.bytes = machine.progress().received;
        self.transport = machine.transport();
    }
}

/// The transfers of one run.
pub(super) struct Session<'a> {
    config: &'a GetConfig,
    resolver: ThreadResolver,
    queue: Jobs,
    current: Option<Current>,
    ended: Vec<UrlStats>,
    /// The start of the first transfer, and the end of the last one.
    begun: Option<Instant>,
    last_end: Instant,
}

/// The outcome of a run.
pub(super) struct Summary {
    pub(super) urls: Vec<UrlStats>,
    pub(super) elapsed: Duration,
    /// The first failure, if any.
    pub(super) failed: Option<Failed>,
}

impl Summary {
    /// Creates the outcome of a run that failed before it began.
    pub(super) const fn of(failed: Failed) -> Self {
        Self {
            urls: Vec::new(),
            elapsed: Duration::ZERO,
            failed: Some(failed),
        }
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(config: &'a GetConfig, resolver: ThreadResolver, now: Instant) -> Self {
        Self {
            config,
            resolver,
            queue: config.jobs.clone(),
            current: None,
            ended: Vec::new(),
            begun: None,
            last_end: now,
        }
    }

    /// Ends the run; `failed`: the reason if it ends early.
    pub(super) fn conclude(
        mut self,
        now: Instant,
        machine: &ClientHost,
        failed: Option<Failed>,
    ) -> Summary {
        if let Some(failed) = &failed {
            if let Some(mut current) = self.current.take() {
                current.observe(machine);
                self.record(now, &current, None, Some(failed));
            }
            show(self.config, None, failed);
        }
        let begun = self.begun.unwrap_or(self.last_end);
        Summary {
            urls: self.ended,
            elapsed: self.last_end.saturating_since(begun),
            // The failure of the whole run outranks that of one URL.
            failed: failed.or_else(|| self.queue.into_first_failure()),
        }
    }

    /// Begins the next transfer whose output can be opened; `false` if there is none.
    fn start_next(&mut self, now: Now, machine: &mut ClientHost) -> bool {
        while let Some(job) = self.queue.begin_next() {
            self.begun.get_or_insert(now.instant);
            let url = job.target.to_string();
            let output = prepare(&job.destination, &url, self.config.resume);
            let held = output.as_ref().map_or(0, |output| output.held().bytes);
            let bar = Bar::new(
                &bar_name(&job),
                &job.destination,
                self.config.progress,
                held,
            );
            let current = Current {
                job,
                begun: now.instant,
                status: None,
                bytes: 0,
                transport: None,
                bar,
            };
            match output {
                Ok(output) => {
                    log::info!("fetch {url}");
                    let (config, target) = (self.config.transfer.clone(), &current.job.target);
                    machine.start(now, Transfer::new(config, target.clone(), output));
                    self.current = Some(current);
                    return true;
                }
                Err(failed) => {
                    self.record(now.instant, &current, None, Some(&failed));
                    self.report(None, failed);
                }
            }
        }
        false
    }

    fn handle_event(&mut self, now: Instant, machine: &ClientHost, event: TransferEvent) {
        let Some(current) = &mut self.current else {
            return;
        };
        match event {
            TransferEvent::Head {
                status,
                offset,
                size,
            } => {
                log::info!("response status={status} offset={offset} size={size:?}");
                current.status = Some(status);
            }
            TransferEvent::Redirected { to } => log::info!("redirected to {to}"),
            TransferEvent::Restarted => log::warn!("the object has changed: starting over"),
            TransferEvent::Done { digest } => {
                log::info!("done digest={}", digest.label());
                self.end(now, machine, Some(digest), None);
            }
            TransferEvent::Failed(failure) => {
                let digest = matches!(failure, TransferFailure::DigestMismatch);
                let digest = digest.then_some(DigestOutcome::Mismatch);
                self.end(now, machine, digest, Some(&failure));
            }
        }
    }

    fn end(
        &mut self,
        now: Instant,
        machine: &ClientHost,
        digest: Option<DigestOutcome>,
        failure: Option<&TransferFailure>,
    ) {
        let Some(mut current) = self.current.take() else {
            return;
        };
        current.bar.clear();
        current.observe(machine);
        let failed = failure.map(|failure| Failed::new(exit_of(failure), failure));
        self.record(now, &current, digest, failed.as_ref());
        let Some(failed) = failed else {
            self.queue.end(Ok(()));
            return;
        };
        let quiet = matches!(failure, Some(TransferFailure::Output(OutputError::Io(error)))
            if error.kind() == io::ErrorKind::BrokenPipe);
        let url = current.job.target.to_string();
        let message = if quiet { String::new() } else { failed.message };
        self.report(
            Some(&url),
            Failed {
                exit: failed.exit,
                message,
            },
        );
    }

    fn record(
        &mut self,
        now: Instant,
        current: &Current,
        digest: Option<DigestOutcome>,
        failed: Option<&Failed>,
    ) {
        self.last_end = now;
        self.ended.push(UrlStats {
            url: current.job.target.to_string(),
            output: match &current.job.destination {
                Destination::Stdout => None,
                Destination::File(path) => Some(path.display().to_string()),
            },
            transport: current.transport.map(Transport::label),
            status: current.status,
            bytes: current.bytes,
            seconds: now.saturating_since(current.begun).as_secs_f64(),
            digest: digest.map(DigestOutcome::label),
            exit: failed.map_or(Exit::Success, |failed| failed.exit).code(),
            error: failed.map(|failed| failed.message.clone()),
        });
    }

    /// Prints a failure and ends its transfer.
    fn report(&mut self, url: Option<&str>, failed: Failed) {
        show(self.config, url, &failed);
        self.queue.end(Err(failed));
    }
}

impl Hooks<ClientHost> for Session<'_> {
    fn turn(&mut self, now: Now, machine: &mut ClientHost) -> ControlFlow<()> {
        machine.turn(now);
        loop {
            self.resolver.turn(now, machine);
            while let Some(event) = machine.poll_event() {
                self.handle_event(now.instant, machine, event);
            }
            if let Some(current) = &mut self.current {
                let servers = || machine.report().transport.by_server;
                current.bar.update(now.instant, machine.progress(), servers);
                return ControlFlow::Continue(());
            }
            if !self.start_next(now, machine) {
                return ControlFlow::Break(());
            }
        }
    }

    fn waits_for<'a>(&'a self, machine: &'a ClientHost) -> Option<BorrowedFd<'a>> {
        machine.waits_for()
    }

    fn deadline(&self) -> Option<Instant> {
        self.current
            .as_ref()
            .and_then(|current| current.bar.deadline())
    }
}

fn bar_name(job: &TransferJob<Destination>) -> String {
    match &job.destination {
        Destination::File(path) => path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        Destination::Stdout => job.target.file_name().unwrap_or("-").to_owned(),
    }
}

/// Returns curl's code for a failure, or ours where curl has none.
pub(in crate::cli) const fn exit_of(failure: &TransferFailure) -> Exit {
    match failure {
        TransferFailure::Location(TargetError::Scheme) => Exit::UnsupportedScheme,
        TransferFailure::Location(_) | TransferFailure::RequestTooLong { .. } => Exit::BadUrl,
        TransferFailure::TooManyRedirects => Exit::TooManyRedirects,
        TransferFailure::Request(_)
        | TransferFailure::Family { .. }
        | TransferFailure::Zone { .. } => Exit::Usage,
        TransferFailure::Status(_) => Exit::HttpError,
        TransferFailure::RangeNotSupported => Exit::RangeNotSupported,
        TransferFailure::BadResume { .. } => Exit::BadResume,
        TransferFailure::EmptyReply => Exit::EmptyReply,
        TransferFailure::Partial { .. } => Exit::Partial,
        TransferFailure::WeirdReply(_) => Exit::WeirdReply,
        TransferFailure::Changed => Exit::Changed,
        TransferFailure::DigestMismatch => Exit::DigestMismatch,
        TransferFailure::Output(_) => Exit::WriteError,
        TransferFailure::CannotConnect { .. } => Exit::CannotConnect,
        TransferFailure::ConnectTimedOut { .. }
        | TransferFailure::ResolveTimedOut { .. }
        | TransferFailure::TimedOut => Exit::Timeout,
        TransferFailure::Broken { .. } => Exit::ReceiveFailure,
        TransferFailure::CannotResolve { .. } => Exit::CannotResolve,
    }
}
