//! `headwater get`: fetches URLs into files or to standard output.
//!
//! In: arguments. Out: bodies, an exit code, and statistics on request. Assembles the loop, the
//! machine and the transfers, which live elsewhere. Standard output carries nothing but data.

pub mod args;
pub mod hasher;
pub mod output;
mod progress;
mod session;
pub mod stats;
pub mod tokens;

use std::io::{self, Write as _};
use std::os::fd::AsRawFd;
use std::path::Path;

use clap::ArgMatches;

use crate::cli::connect::{ClientDevice, Memory};
use crate::cli::exit::{Exit, Failed};
use crate::cli::get::args::{GetArgs, GetConfig};
pub(super) use crate::cli::get::session::exit_of;
use crate::cli::get::session::{Session, Summary};
use crate::cli::get::stats::{Counted, GetStats};
use crate::cli::local::{Opened, device_failed};
use crate::cli::records::{self, RecordFileError};
use crate::cli::stderr::LogWriter;
use crate::device::Device;
use crate::host::report::ClientReport;
use crate::host::tokens::Tokens;
use crate::runtime::release_signals;
use crate::runtime::resolver::ThreadResolver;
use crate::runtime::{OsClock, Stopped};

/// The end of `get --help`.
pub const AFTER_HELP: &str = "\
Files: get writes the body to FILE.part beside FILE and renames it when it is complete and matches \
the server's digest, if there is one. After a failure FILE.part remains and FILE is unchanged. \
`-C -` resumes FILE.part, or a copy of FILE if there is none; if the object has changed, the \
transfer starts over. Devices and pipes are written as bytes arrive.

Tokens: a server's responses include an address token, a proof of the own address that is valid for \
an hour. With --tokens FILE the next run sends the newest token, and the first response has ten \
packets instead of three. FILE is created if it does not exist; several runs may share it.

URLs are fetched one after the other, over one connection where possible; the exit code is that of \
the first failure.";

/// Fetches the URLs of the command line.
///
/// # Errors
/// The first failure; statistics are written all the same, once the arguments are valid.
pub fn run(args: GetArgs, matches: &ArgMatches) -> Result<Exit, Failed> {
    let config = GetConfig::resolve(args, matches)?;
    let clock = OsClock::new();
    let remembered = recall(&config);
    let ran = match config.connect.open() {
        Ok(ClientDevice::Sockets(device)) => drive(&config, remembered, clock, device),
        Ok(ClientDevice::Tun(Opened::Plain(device))) => drive(&config, remembered, clock, device),
        Ok(ClientDevice::Tun(Opened::Tapped(device))) => drive(&config, remembered, clock, device),
        Err(failed) => Err(failed),
    };
    let (summary, report) = ran.unwrap_or_else(|failed| {
        show(&config, None, &failed);
        (Summary::of(failed), ClientReport::default())
    });
    let exit = summary.failed.map_or(Exit::Success, |failed| failed.exit);
    if let Some(path) = &config.stats {
        let stats = GetStats::new(Counted {
            protocol: config.connect.protocol,
            exit: exit.code(),
            urls: summary.urls,
            elapsed: summary.elapsed,
            report: &report,
        });
        stats.write(path, config.max_time).map_err(|error| {
            let name = path.display();
            if error.kind() == io::ErrorKind::TimedOut {
                let message = format!("{name} has no reader for the statistics: start it first");
                return Failed::new(Exit::Timeout, message);
            }
            let advice = format!("cannot write {name} ({error}): choose another file for --stats");
            Failed::new(Exit::WriteError, advice)
        })?;
    }
    Ok(exit)
}

fn drive<D: Device + AsRawFd>(
    config: &GetConfig,
    remembered: Option<(&Path, Tokens)>,
    clock: OsClock,
    device: D,
) -> Result<(Summary, ClientReport), Failed> {
    let now = clock.now();
    let (token_file, tokens) = remembered.unzip();
    let memory = Memory {
        tokens: tokens.unwrap_or_default(),
        history: config.connect.load_history(),
        max_time: config.max_time,
    };
    let machine = config.connect.machine(now, memory)?;
    let mut endpoint = config.connect.local.endpoint(clock, device, machine)?;
    let waker = endpoint.runtime_mut().waker().map_err(device_failed)?;
    let mut session = Session::new(config, ThreadResolver::new(waker), now.instant);
    let stopped = endpoint.run_with(&mut session);
    // The rest may wait for other programs: for the lock of the tokens, a reader of the statistics.
    release_signals().map_err(device_failed)?;
    let machine = endpoint.machine();
    let now = clock.now();
    if let Some(path) = token_file
        && let Err(error) = records::save(path, &machine.tokens(now), now.unix)
    {
        complain(path, &error);
    }
    config.connect.save_history(&machine.history(now), now.unix);
    let failed = match stopped {
        Ok(Stopped::ByHook) => None,
        Ok(Stopped::BySignal(signal)) => Some(Failed::new(signal.into(), "")),
        Err(error) => Some(device_failed(error)),
    };
    Ok((
        session.conclude(now.instant, machine, failed),
        machine.report(),
    ))
}

/// Prints a failure on standard error, unless it is silenced or has no message.
fn show(config: &GetConfig, url: Option<&str>, failed: &Failed) {
    if config.show_errors && !failed.message.is_empty() {
        let message = &failed.message;
        let line = match url {
            Some(url) => format!("headwater: {url}: {message}\n"),
            None => format!("headwater: {message}\n"),
        };
        // A closed standard error leaves no place to report to.
        let _ = LogWriter::stderr().write_all(line.as_bytes());
    }
}

/// Loads the address tokens of earlier runs; `None` without `--tokens` or if the file is unusable.
fn recall(config: &GetConfig) -> Option<(&Path, Tokens)> {
    let path = config.tokens.as_deref()?;
    match records::load(path) {
        Ok(tokens) => Some((path, tokens)),
        Err(error) => {
            complain(path, &error);
            None
        }
    }
}

/// Warns about an unusable token file: no failure, since no transfer needs a token.
fn complain(path: &Path, error: &RecordFileError) {
    log::warn!(
        "{}: {error}: choose another file for --tokens",
        path.display()
    );
}
