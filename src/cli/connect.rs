//! Arguments of the commands that connect to a service, and the machine that they make.
//!
//! In: the command line. Out: a validated [`ConnectConfig`], and by it a device and a client machine.

mod history;
pub mod names;
pub mod run;

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::apps::fetch::target::{Target, TargetError};
use crate::cli::connect::names::NameArgs;
use crate::cli::exit::{Exit, Failed};
use crate::cli::keygen::state_home;
use crate::cli::local::{LocalArgs, Opened, device_failed, drawn_seed, no_sockets};
use crate::cli::records::{self, RecordFileError};
use crate::cli::size;
use crate::connect::{History, Pace};
use crate::device::udp::UdpSockets;
use crate::files::make_private_directory;
use crate::host::client::ClientHost;
use crate::host::config::{ClientHostConfig, DEFAULT_UDP_PORT, Finish, Protocol};
use crate::host::names::Family;
use crate::host::tokens::Tokens;
use crate::runtime::resolver::interface_index;
use crate::runtime::streams::KernelStreams;
use crate::time::{Now, UnixMillis};

/// Smallest receive buffer, in bytes: several flights of full-sized packets.
pub const MIN_BUFFER_BYTES: u64 = 64 * 1024;

/// Largest receive buffer, in bytes.
pub const MAX_BUFFER_BYTES: u64 = 1 << 30;

/// Longest time limit, in seconds.
pub const MAX_SECONDS: f64 = 1e9;

/// The transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TransportArg {
    /// Headwater's transport, and TCP where that brings no byte in 100 ms or no connection in 200 ms; the first to connect
    /// is used
    Auto,
    /// Headwater's transport, whose servers keep no per-connection state
    Trickles,
    /// TCP: of the kernel, or of our own stack with --tun
    Tcp,
}

/// Help text of `--tun`.
const TUN_HELP: &str = "TUN device; created if it does not exist [default: no device, but UDP \
    sockets of the kernel, which need no privileges]";

/// The delay between attempts to connect to the addresses of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PaceArg {
    /// 2 s: one at a time on most paths
    Seq,
    /// 250 ms, as Happy Eyeballs (RFC 8305)
    He,
    /// 10 ms
    Paced,
    /// None: all at once
    All,
}

impl From<PaceArg> for Pace {
    fn from(arg: PaceArg) -> Self {
        match arg {
            PaceArg::Seq => Self::Sequential,
            PaceArg::He => Self::HappyEyeballs,
            PaceArg::Paced => Self::Paced,
            PaceArg::All => Self::All,
        }
    }
}

/// The event that ends a race for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FinishArg {
    /// Any answer of a server
    Answer,
    /// The first byte of the response
    Byte,
    /// The head of a response with a status below 500
    Head,
}

impl From<FinishArg> for Finish {
    fn from(arg: FinishArg) -> Self {
        match arg {
            FinishArg::Answer => Self::Answer,
            FinishArg::Byte => Self::FirstByte,
            FinishArg::Head => Self::Head,
        }
    }
}

/// Arguments of the commands that connect to a service, as typed.
#[derive(Debug, Clone, clap::Args)]
#[command(
    mut_arg("tun", |arg| arg.required(false).requires("addresses").help(TUN_HELP)),
    mut_arg("addresses", |arg| arg.required(false).requires("tun")),
    mut_arg("device", |arg| arg.requires("tun")),
    mut_arg("pcap", |arg| arg.requires("tun"))
)]
pub struct ConnectArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "the flattened group has its own")]
    pub local: LocalArgs,
    /// Transport protocol
    #[arg(long, value_enum, default_value_t = TransportArg::Auto, overrides_with = "transport")]
    pub transport: TransportArg,
    /// UDP port of the service (the port in a URL is the TCP port)
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_UDP_PORT,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub udp_port: u16,
    /// Local UDP port [default: random]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port_source: Option<u16>,
    /// Connect to IPv4 addresses only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub ipv4: bool,
    /// Connect to IPv6 addresses only
    #[arg(short = '6', long)]
    pub ipv6: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the flattened group has its own")]
    pub names: NameArgs,
    /// Delay between attempts to connect to several addresses of a host; the first to answer is used
    #[arg(long, value_enum, value_name = "DELAY", default_value_t = PaceArg::Paced)]
    pub race: PaceArg,
    /// Event that ends a race to several addresses; over TCP it is always the open connection
    #[arg(long, value_enum, value_name = "EVENT", default_value_t = FinishArg::Answer)]
    pub race_finish: FinishArg,
    /// Keep in FILE how soon each address answered, or that it failed; later runs try the fastest first
    /// [default: headwater/history in $XDG_STATE_HOME or ~/.local/state; none with --tun]
    #[arg(long, value_name = "FILE", conflicts_with = "no_history")]
    pub history: Option<PathBuf>,
    /// Neither read nor write such a file
    #[arg(long)]
    pub no_history: bool,
    /// Receive buffer in bytes, 64k to 1G; suffixes k, M and G are allowed
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = parse_bytes)]
    pub buffer: u64,
    /// Fail if there is no connection after this many seconds
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub connect_timeout: Duration,
    /// Fail if nothing arrives for this many seconds
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = parse_seconds)]
    pub idle_timeout: Duration,
}

/// How to connect to a service.
#[derive(Debug, Clone)]
pub struct ConnectConfig {
    /// The command's own device; sockets if it has no name.
    pub local: LocalArgs,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The family of the addresses to connect to; any if `None`.
    pub family: Option<Family>,
    /// How names are resolved.
    pub names: NameArgs,
    /// The delay between attempts to connect.
    pub pace: Pace,
    /// Receive buffer in bytes.
    pub buffer: usize,
    /// The event that ends a race.
    pub finish: Finish,
    /// The file for the outcomes of attempts to connect.
    pub history: Option<PathBuf>,
    /// Longest time until a connection is established.
    pub connect_timeout: Duration,
    /// Longest time in which nothing arrives.
    pub idle_timeout: Duration,
}

impl ConnectConfig {
    /// Validates the arguments.
    ///
    /// # Errors
    /// [`Exit::Usage`].
    pub fn resolve(args: ConnectArgs) -> Result<Self, Failed> {
        if args.local.tun.is_some() {
            args.local.check()?;
        }
        args.names.check(args.local.tun.is_some())?;
        let history = match (args.no_history, args.history) {
            (true, _) => None,
            (false, Some(path)) => Some(path),
            // Runs in a testbed should not depend on those before.
            (false, None) if args.local.tun.is_some() => None,
            (false, None) => own_history(),
        };
        let (udp_port, local_port) = (args.udp_port, args.port_source);
        Ok(Self {
            local: args.local,
            protocol: match args.transport {
                TransportArg::Auto => Protocol::Auto {
                    udp_port,
                    local_port,
                },
                TransportArg::Trickles => Protocol::Trickles {
                    udp_port,
                    local_port,
                },
                TransportArg::Tcp => Protocol::Tcp,
            },
            family: match (args.ipv4, args.ipv6) {
                (true, _) => Some(Family::V4),
                (_, true) => Some(Family::V6),
                (false, false) => None,
            },
            names: args.names,
            pace: args.race.into(),
            finish: args.race_finish.into(),
            history,
            buffer: usize::try_from(args.buffer).unwrap_or(usize::MAX),
            connect_timeout: args.connect_timeout,
            idle_timeout: args.idle_timeout,
        })
    }

    /// Opens the device that carries the packets.
    ///
    /// # Errors
    /// The reason why it cannot be opened.
    pub fn open(&self) -> Result<ClientDevice, Failed> {
        if self.local.tun.is_some() {
            return self.local.open().map(ClientDevice::Tun);
        }
        let port = self.protocol.udp_ports().and_then(|(_, local)| local);
        let sockets = UdpSockets::connect_from(port, &self.names.binding()).map_err(no_sockets)?;
        Ok(ClientDevice::Sockets(sockets))
    }

    /// Creates a client machine.
    ///
    /// # Errors
    /// [`Exit::Usage`], or the reason why the kernel refuses TCP connections.
    pub fn machine(&self, now: Now, memory: Memory) -> Result<ClientHost, Failed> {
        let seed = drawn_seed()?;
        let binding = self.names.binding();
        let builder = match self.local.tun {
            Some(_) => ClientHostConfig::builder(self.local.addresses.clone(), seed),
            None => {
                let binding = binding.clone();
                let builder = ClientHostConfig::over_sockets(seed);
                let builder = builder.source(move |remote| binding.source(remote));
                builder.interface_index(interface_index)
            }
        };
        let builder = match self.local.tun.is_none() && self.protocol.has_tcp() {
            true => {
                let streams = KernelStreams::outgoing_from(binding);
                builder.streams(streams.map_err(device_failed)?)
            }
            false => builder,
        };
        let builder = self.names.apply(builder, self.local.tun.is_some())?;
        let config = builder
            .mtu(self.local.mtu)
            .protocol(self.protocol)
            .family(self.family)
            .pace(self.pace)
            .finish(self.finish)
            .buffer(self.buffer)
            .connect_timeout(self.connect_timeout)
            .idle_timeout(self.idle_timeout)
            .max_time(memory.max_time)
            .tokens(memory.tokens)
            .history(memory.history)
            .build()
            .map_err(|error| Failed::new(Exit::Usage, error))?;
        ClientHost::new(now, config).map_err(|error| Failed::new(Exit::Usage, error))
    }

    /// Loads the outcomes of attempts in earlier runs; none if their file is unusable, which is logged.
    #[must_use]
    pub fn load_history(&self) -> History {
        let loaded = self
            .history
            .as_deref()
            .map(|path| (path, records::load(path)));
        match loaded {
            Some((_, Ok(history))) => history,
            Some((path, Err(error))) => {
                complain(path, &error);
                History::default()
            }
            None => History::default(),
        }
    }

    /// Saves the outcomes of attempts; a failure is logged.
    pub fn save_history(&self, history: &History, now: UnixMillis) {
        if let Some(path) = &self.history
            && let Err(error) = records::save(path, history, now)
        {
            complain(path, &error);
        }
    }
}

/// Parses the URL or the host of a service; `example` is a text to use in its place.
///
/// # Errors
/// [`Exit::UnsupportedScheme`], [`Exit::BadUrl`].
pub fn parse_target(text: &str, example: &str) -> Result<Target, Failed> {
    Target::parse(text).map_err(|error| {
        let exit = match error {
            TargetError::Scheme => Exit::UnsupportedScheme,
            TargetError::Malformed
            | TargetError::Zone
            | TargetError::Credentials
            | TargetError::TooLong => Exit::BadUrl,
        };
        Failed::new(exit, format!("{text}: {error}; use {example}"))
    })
}

/// The part of a client's configuration that earlier runs left behind, and the limit of this one.
#[derive(Debug, Default)]
pub struct Memory {
    /// Address tokens of earlier connections.
    pub tokens: Tokens,
    /// Outcomes of earlier attempts to connect.
    pub history: History,
    /// Longest time for a transfer.
    pub max_time: Option<Duration>,
}

/// The device of a client.
pub enum ClientDevice {
    /// A TUN device.
    Tun(Opened),
    /// UDP sockets of the kernel.
    Sockets(UdpSockets),
}

/// The file of this user, whose directory is created if it does not exist; `None` if it cannot be.
fn own_history() -> Option<PathBuf> {
    let home = state_home(env::var_os("XDG_STATE_HOME"), env::var_os("HOME"))?;
    let directory = home.join("headwater");
    match make_private_directory(&directory) {
        Ok(()) => Some(directory.join("history")),
        Err(error) => {
            log::info!(
                "{}: {error}: no history of connections",
                directory.display()
            );
            None
        }
    }
}

/// Warns about an unusable file: no failure, since no transfer needs it.
fn complain(path: &Path, error: &RecordFileError) {
    log::warn!(
        "{}: {error}: choose another file for --history",
        path.display()
    );
}

/// Why a value on the command line is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a time limit.
    #[error("not a time: use a number of seconds above 0")]
    Seconds,
    /// Not a size of the receive buffer.
    #[error("not a size from 64k to 1G")]
    Size,
}

/// Parses a time limit in seconds.
///
/// # Errors
/// [`ValueError::Seconds`].
pub fn parse_seconds(text: &str) -> Result<Duration, ValueError> {
    let seconds: f64 = text.parse().map_err(|_| ValueError::Seconds)?;
    if seconds > 0.0 && seconds <= MAX_SECONDS {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(ValueError::Seconds)
    }
}

fn parse_bytes(text: &str) -> Result<u64, ValueError> {
    let bytes = size::parse(text).ok_or(ValueError::Size)?;
    let allowed = MIN_BUFFER_BYTES..=MAX_BUFFER_BYTES;
    if allowed.contains(&bytes) {
        Ok(bytes)
    } else {
        Err(ValueError::Size)
    }
}
