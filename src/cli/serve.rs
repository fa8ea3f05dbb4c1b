//! `headwater serve`: serves the files of a directory.
//!
//! In: arguments. Out: one line `ready` on standard output when the server can respond, then only
//! packets until SIGINT or SIGTERM, which shut it down in order. Behind redirectors, SIGUSR1 drains
//! the server and SIGUSR2 activates it again; packets that still arrive are served.

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use crate::apps::origin::Origin;
use crate::apps::origin::hot::{Hot, MAX_HOT_BYTES};
use crate::apps::origin::tree::Tree;
use crate::cli::announce::{AnnounceArgs, Announcer};
use crate::cli::exit::{Exit, Failed};
use crate::cli::keygen;
use crate::cli::local::{
    DeviceArg, LocalArgs, Opened, device_failed, drawn_seed, listen_for_metrics, no_sockets,
    say_ready,
};
use crate::cli::size;
use crate::device::Device;
use crate::device::udp::UdpSockets;
use crate::host::config::{DEFAULT_TCP_PORT, DEFAULT_UDP_PORT, ServerHostConfig};
use crate::host::metrics::Metric;
use crate::host::redirector::mac_keys;
use crate::host::server::{Redirected, ServerHost};
use crate::redirect::backend::{BackendConfig, MAX_REDIRECTORS};
use crate::redirect::config::DEFAULT_PORT;
use crate::redirect::{BackendId, RedirectorId};
use crate::runtime::loader::ThreadLoader;
use crate::runtime::metrics::MetricsServer;
use crate::runtime::release_signals;
use crate::runtime::streams::KernelStreams;
use crate::runtime::workers::{ThreadWorkers, Waking};
use crate::runtime::{Hooks, Notice, OsClock, Signal};
use crate::time::{Instant, Now};
use crate::transport::keys::KeyRing;

/// Help text of `--tun`.
const TUN_HELP: &str = "TUN device; created if it does not exist. It needs privileges: any user can \
    serve on --listen instead";

/// Arguments of `headwater serve`.
#[derive(Debug, clap::Args)]
#[command(
    mut_arg("tun", |arg| arg.required(false).requires("addresses").conflicts_with("listen")
        .help(TUN_HELP)),
    mut_arg("addresses", |arg| arg.required(false).requires("tun")),
    mut_arg("device", |arg| arg.requires("tun")),
    mut_arg("pcap", |arg| arg.requires("tun")),
    mut_arg("announce", |arg| arg.requires("tun")),
    mut_arg("redirected", |arg| arg.requires("tun"))
)]
pub struct ServeArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "the flattened group has its own")]
    pub local: LocalArgs,
    /// Listen on this UDP port of the kernel, in place of a TUN device: it needs no privileges.
    /// Repeat it for more, IPv4 and IPv6
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Serve plain HTTP on this TCP port of the kernel, for curl and others; repeat it for more
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen_tcp: Vec<SocketAddr>,
    /// Directory to serve; it must not be empty
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// Key ring file, created by `headwater keygen`; the same for all servers of a service [default:
    /// headwater/keys in $XDG_STATE_HOME or ~/.local/state, created if it does not exist]
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// Id of this server within the service; clients see it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub server_id: u16,
    /// Id of this server's site
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub site_id: u16,
    /// TCP port of plain HTTP
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_TCP_PORT, conflicts_with = "listen",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// UDP port of the transport
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_UDP_PORT, conflicts_with = "listen",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub udp_port: u16,
    /// Share the device, or the addresses of --listen, with other `serve` processes with this option and
    /// the same keys, of any ids: the kernel distributes connections among them, and among the rest when one ends
    #[arg(long, conflicts_with_all = ["announce", "redirected"])]
    pub multi_queue: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the flattened group has its own")]
    pub behind: BehindArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the flattened group has its own")]
    pub announce: AnnounceArgs,
    /// Serve metrics at http://ADDR:PORT/metrics, on a socket of the kernel
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Save digests of large files in this file, so that a restart need not compute them again
    #[arg(long, value_name = "FILE")]
    pub digests: Option<PathBuf>,
    /// Size of the memory cache for popular files; suffixes k, M and G are allowed, 0 disables the
    /// cache
    #[arg(long, value_name = "BYTES", default_value_t = MAX_HOT_BYTES, value_parser = parse_cache)]
    pub cache: u64,
}

/// Parses the value of `--cache`.
fn parse_cache(text: &str) -> Result<u64, &'static str> {
    size::parse(text).ok_or("not a size: use a number of bytes with k, M or G, as 64M, or 0")
}

/// Arguments of a server behind redirectors.
#[derive(Debug, clap::Args)]
pub struct BehindArgs {
    /// Accept packets from redirectors that share this key file, created by `headwater keygen`;
    /// SIGUSR1 drains this server, SIGUSR2 activates it again
    #[arg(long, value_name = "FILE", requires = "backend_addresses")]
    pub redirected: Option<PathBuf>,
    /// This server's own addresses, by which redirectors reach it; one per family
    #[arg(
        long = "backend-address",
        value_name = "ADDR",
        value_delimiter = ',',
        requires = "redirected"
    )]
    pub backend_addresses: Vec<IpAddr>,
    /// Ids of the redirectors to accept packets from
    #[arg(
        long,
        value_name = "N,...",
        default_value = "1",
        value_delimiter = ',',
        requires = "redirected"
    )]
    pub redirectors: Vec<u16>,
    /// UDP port for packets from redirectors
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub redirect_port: u16,
}

impl BehindArgs {
    /// The configuration of a server behind redirectors, if it is one.
    fn redirected(&self, server_id: u16) -> Result<Option<Redirected>, Failed> {
        let Some(path) = &self.redirected else {
            return Ok(None);
        };
        if self.redirectors.len() > MAX_REDIRECTORS {
            let message = format!("--redirectors: more than {MAX_REDIRECTORS} ids: leave some out");
            return Err(Failed::new(Exit::Usage, message));
        }
        let ids = self.redirectors.iter().copied();
        Ok(Some(Redirected {
            addresses: self.backend_addresses.clone(),
            port: self.redirect_port,
            backend: BackendConfig {
                id: BackendId(server_id),
                redirectors: ids.map(RedirectorId).collect(),
                keys: mac_keys(&keygen::load(path)?),
            },
        }))
    }
}

/// Serves until a signal ends it.
///
/// # Errors
/// The reason why the server cannot start or had to stop.
pub fn run(args: &ServeArgs) -> Result<Exit, Failed> {
    let mut local = args.local.clone();
    local.addresses.extend(&args.behind.backend_addresses);
    if args.listen.is_empty() {
        if local.tun.is_none() {
            let advice =
                "no address to serve on: use --listen ADDR:PORT, or --tun NAME with --address";
            return Err(Failed::new(Exit::Usage, advice));
        }
        local.check()?;
    }
    if args.multi_queue && args.local.device == DeviceArg::Plain {
        let message = "a plain device has only one queue: use --device offload with --multi-queue";
        return Err(Failed::new(Exit::Usage, message));
    }
    let keys = match &args.keys {
        Some(path) => keygen::load(path)?,
        None => keygen::load_own()?,
    };
    let redirected = args.behind.redirected(args.server_id)?;
    let (origin, waking) = origin(args)?;
    let metrics = listen_for_metrics(args.metrics)?;
    let streams = listen_for_tcp(args)?;
    let clock = OsClock::new();
    let mut machine = machine(args, &local, clock.now(), keys, origin)?;
    if let Some(redirected) = redirected {
        machine.listen_to_redirectors(redirected);
    }
    let hooks = |routes| -> Result<Serving, Failed> {
        Ok(Serving {
            waking,
            draining: false,
            ending: false,
            announcer: Announcer::new(&args.announce, routes, &args.local.addresses)?,
            streams,
            streams_at: None,
        })
    };
    if !args.listen.is_empty() {
        let device = UdpSockets::listen(&args.listen, args.multi_queue).map_err(no_sockets)?;
        for address in device.addresses() {
            log::info!("listening on UDP {address}");
        }
        return drive(&args.local, machine, hooks(None)?, clock, device, metrics);
    }
    let opened = local.open_queue(args.multi_queue)?;
    let hooks = hooks(opened.routes())?;
    match opened {
        Opened::Plain(device) => drive(&args.local, machine, hooks, clock, device, metrics),
        Opened::Tapped(device) => drive(&args.local, machine, hooks, clock, device, metrics),
    }
}

/// Listens on the TCP addresses, if there are any.
fn listen_for_tcp(args: &ServeArgs) -> Result<Option<KernelStreams>, Failed> {
    if args.listen_tcp.is_empty() {
        return Ok(None);
    }
    let streams = KernelStreams::listen(&args.listen_tcp, args.multi_queue);
    let streams = streams.map_err(|(address, error)| {
        let advice =
            format!("cannot bind TCP {address} ({error}): choose another --listen-tcp address");
        Failed::new(Exit::AddressInUse, advice)
    })?;
    for address in streams.addresses() {
        log::info!("listening on TCP {address}");
    }
    Ok(Some(streams))
}

fn origin(args: &ServeArgs) -> Result<(Origin, Waking), Failed> {
    let refused = |error: &dyn core::fmt::Display| Failed::new(Exit::Root, format!("root {error}"));
    // Checks the directory before a thread walks it.
    Tree::open(&args.root).map_err(|error| refused(&error))?;
    let workers = ThreadWorkers::start(&args.root, args.digests.clone());
    let workers = workers.map_err(|error| {
        let advice =
            format!("cannot open the digest file ({error}): choose another file for --digests");
        Failed::new(Exit::WriteError, advice)
    })?;
    let waking = workers.waking();
    let origin = Origin::new(&args.root, Box::new(workers)).map_err(|error| refused(&error))?;
    if args.cache == 0 {
        return Ok((origin, waking));
    }
    let loader = ThreadLoader::start();
    let loader = loader.map_err(|error| {
        let advice = format!("cannot start a thread ({error}): use --cache 0");
        Failed::new(Exit::Root, advice)
    })?;
    let origin = origin.with_hot(Hot::new(args.cache, Box::new(loader)));
    Ok((origin, waking))
}

fn machine(
    args: &ServeArgs,
    local: &LocalArgs,
    now: Now,
    keys: KeyRing,
    origin: Origin,
) -> Result<ServerHost<Origin>, Failed> {
    let seed = drawn_seed()?;
    let builder = match args.listen.is_empty() {
        true => ServerHostConfig::builder(local.addresses.clone(), seed),
        false => ServerHostConfig::over_sockets(seed),
    };
    let config = builder
        .mtu(local.mtu)
        .tcp_port(args.port)
        .udp_port(args.udp_port)
        .server_id(args.server_id)
        .site_id(args.site_id)
        .build()
        .map_err(|error| Failed::new(Exit::Usage, error))?;
    ServerHost::new(now, config, keys, origin).map_err(|error| Failed::new(Exit::Usage, error))
}

/// The state beside the machine: drain, announcements, the end.
struct Serving {
    /// Wakes the loop when work for it is done.
    waking: Waking,
    draining: bool,
    /// A signal has shut the machine down.
    ending: bool,
    announcer: Announcer,
    /// TCP connections of the kernel, and the time by which they want another turn.
    streams: Option<KernelStreams>,
    streams_at: Option<Instant>,
}

impl Serving {
    fn serve_streams(&mut self, now: Now, machine: &mut ServerHost<Origin>) {
        let Some(streams) = &mut self.streams else {
            return;
        };
        if let Err(error) = streams.turn(now.instant) {
            log::error!("cannot poll TCP connections: {error}");
        }
        machine.serve_streams(now, streams);
        let times = [machine.streams_timeout(), streams.deadline()];
        self.streams_at = times.into_iter().flatten().min();
    }
}

impl Hooks<ServerHost<Origin>> for Serving {
    fn turn(&mut self, now: Now, machine: &mut ServerHost<Origin>) -> ControlFlow<()> {
        self.announcer
            .update(now.instant, !self.draining && !self.ending);
        self.serve_streams(now, machine);
        if self.ending && machine.is_shut_down() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn signal(
        &mut self,
        now: Now,
        _signal: Signal,
        machine: &mut ServerHost<Origin>,
    ) -> ControlFlow<()> {
        if self.ending {
            return ControlFlow::Break(());
        }
        self.ending = true;
        machine.shut_down(now);
        if let Some(streams) = &mut self.streams {
            machine.shut_down_streams(now, streams);
        }
        if machine.is_shut_down() {
            return ControlFlow::Break(());
        }
        log::info!("ending TCP connections");
        ControlFlow::Continue(())
    }

    fn deadline(&self) -> Option<Instant> {
        let times = [self.announcer.deadline(), self.streams_at];
        times.into_iter().flatten().min()
    }

    fn notice(&mut self, _now: Now, notice: Notice, machine: &mut ServerHost<Origin>) {
        self.draining = notice == Notice::User1;
        machine.set_draining(self.draining);
        let word = if self.draining { "draining" } else { "active" };
        log::info!("{word} by a signal");
    }

    fn metrics(&mut self, machine: &ServerHost<Origin>) -> Vec<Metric> {
        let mut metrics = machine.metrics();
        metrics.extend(machine.hot_metrics());
        metrics
    }
}

fn drive<D: Device + AsRawFd>(
    local: &LocalArgs,
    machine: ServerHost<Origin>,
    mut hooks: Serving,
    clock: OsClock,
    device: D,
    metrics: Option<MetricsServer>,
) -> Result<Exit, Failed> {
    let mut endpoint = local.endpoint(clock, device, machine)?;
    let runtime = endpoint.runtime_mut();
    hooks.waking.set(runtime.waker().map_err(device_failed)?);
    if let Some(streams) = &hooks.streams {
        runtime.watch(streams).map_err(device_failed)?;
    }
    for notice in [Notice::User1, Notice::User2] {
        runtime.catch(notice).map_err(device_failed)?;
    }
    if let Some(server) = metrics {
        runtime.serve_metrics(server).map_err(device_failed)?;
    }
    // The device is up; its queue holds packets until the loop runs.
    say_ready();
    let ended = endpoint.run_with(&mut hooks);
    release_signals().map_err(device_failed)?;
    hooks.announcer.end();
    ended.map_err(device_failed)?;
    Ok(Exit::Success)
}
