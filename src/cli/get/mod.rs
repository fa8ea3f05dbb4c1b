//! `headwater get`: fetches URLs into files or to standard output.
//!
//! In: arguments. Out: bodies, an exit code, and statistics on request. Assembles the loop, the
//! machine and the transfers, which live elsewhere. Standard output carries nothing but data.

pub mod args;
pub mod hasher;
mod history;
pub mod output;
mod progress;
mod records;
mod session;
pub mod stats;
pub mod tokens;

use std::io::{self, Write as _};
use std::os::fd::AsRawFd;
use std::path::Path;

use clap::ArgMatches;

use crate::cli::exit::{Exit, Failed};
use crate::cli::get::args::{GetArgs, GetConfig};
use crate::cli::get::records::RecordFileError;
use crate::cli::get::session::{Session, Summary};
use crate::cli::get::stats::{Counted, GetStats};
use crate::cli::local::{Opened, device_failed, drawn_seed, no_sockets};
use crate::cli::stderr::LogWriter;
use crate::device::Device;
use crate::device::udp::UdpSockets;
use crate::host::client::ClientHost;
use crate::host::config::{ClientHostConfig, Protocol};
use crate::host::names::Resolution;
use crate::host::report::ClientReport;
use crate::host::tokens::Tokens;
use crate::runtime::release_signals;
use crate::runtime::resolver::{ThreadResolver, read_hosts};
use crate::runtime::streams::KernelStreams;
use crate::runtime::{OsClock, Stopped};
use crate::time::Now;

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
    let ran = match open(&config) {
        Ok(GetDevice::Sockets(device)) => drive(&config, remembered, clock, device),
        Ok(GetDevice::Tun(Opened::Plain(device))) => drive(&config, remembered, clock, device),
        Ok(GetDevice::Tun(Opened::Tapped(device))) => drive(&config, remembered, clock, device),
        Err(failed) => Err(failed),
    };
    let (summary, report) = ran.unwrap_or_else(|failed| {
        show(&config, None, &failed);
        (Summary::of(failed), ClientReport::default())
    });
    let exit = summary.failed.map_or(Exit::Success, |failed| failed.exit);
    if let Some(path) = &config.stats {
        let stats = GetStats::new(Counted {
            protocol: config.protocol,
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

/// What carries the packets.
enum GetDevice {
    Tun(Opened),
    Sockets(UdpSockets),
}

fn open(config: &GetConfig) -> Result<GetDevice, Failed> {
    if config.local.tun.is_some() {
        return config.local.open().map(GetDevice::Tun);
    }
    let port = match config.protocol {
        Protocol::Trickles { local_port, .. } => local_port,
        Protocol::Tcp => None,
    };
    let sockets = UdpSockets::connect(port).map_err(no_sockets)?;
    Ok(GetDevice::Sockets(sockets))
}

fn drive<D: Device + AsRawFd>(
    config: &GetConfig,
    remembered: Option<(&Path, Tokens)>,
    clock: OsClock,
    device: D,
) -> Result<(Summary, ClientReport), Failed> {
    let now = clock.now();
    let (token_file, tokens) = remembered.unzip();
    let machine = machine(config, now, tokens.unwrap_or_default())?;
    let mut endpoint = config.local.endpoint(clock, device, machine)?;
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

fn machine(config: &GetConfig, now: Now, tokens: Tokens) -> Result<ClientHost, Failed> {
    let hosts = read_hosts();
    let seed = drawn_seed()?;
    let builder = match config.local.tun {
        Some(_) => ClientHostConfig::builder(config.local.addresses.clone(), seed),
        None => ClientHostConfig::over_sockets(seed),
    };
    let builder = match (&config.local.tun, config.protocol) {
        (None, Protocol::Tcp) => builder.streams(KernelStreams::outgoing().map_err(device_failed)?),
        _ => builder,
    };
    let config = builder
        .mtu(config.local.mtu)
        .protocol(config.protocol)
        .family(config.family)
        .pinned(config.pinned.clone())
        .pace(config.pace)
        .buffer(config.buffer)
        .connect_timeout(config.connect_timeout)
        .idle_timeout(config.idle_timeout)
        .max_time(config.max_time)
        .tokens(tokens)
        .resolve(move |host| match hosts.lookup(host) {
            unknown if unknown.is_empty() => Resolution::Pending,
            known => Resolution::Known(known),
        })
        .build()
        .map_err(|error| Failed::new(Exit::Usage, error))?;
    ClientHost::new(now, config).map_err(|error| Failed::new(Exit::Usage, error))
}
