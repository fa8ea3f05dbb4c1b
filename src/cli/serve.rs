//! `headwater serve`: serves the files of a directory.
//!
//! In: arguments. Out: one line `ready` on standard output when it can answer, then nothing but
//! packets until SIGINT or SIGTERM, which end it in order.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::apps::origin::Origin;
use crate::apps::origin::tree::Tree;
use crate::cli::exit::{Exit, Failed};
use crate::cli::keygen;
use crate::cli::local::{DeviceArg, LocalArgs, Opened, listen_for_metrics};
use crate::device::Device;
use crate::host::metrics::Metric;
use crate::host::server::{ServerHost, ServerHostConfig};
use crate::runtime::digester::ThreadDigester;
use crate::runtime::metrics::MetricsServer;
use crate::runtime::{Hooks, OsClock, Runtime, os_seed};
use crate::time::Now;
use crate::transport::keys::KeyRing;

/// Arguments of `headwater serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    #[allow(missing_docs, reason = "the flattened group has its own")]
    pub local: LocalArgs,
    /// Directory to serve; it must hold something
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// Key ring file, made by `headwater keygen`; the same for all servers of a service
    #[arg(long, value_name = "FILE")]
    pub keys: PathBuf,
    /// Number of this server among those of the service, shown to clients
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub server_id: u16,
    /// Number of the site it stands in
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub site_id: u16,
    /// TCP port of plain HTTP
    #[arg(long, value_name = "PORT", default_value_t = 80,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// UDP port of the transport
    #[arg(long, value_name = "PORT", default_value_t = 7600,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub udp_port: u16,
    /// Share the device with other processes started so, of any ids and the same keys: the kernel
    /// spreads connections over them, and over those that are left when one ends
    #[arg(long)]
    pub multi_queue: bool,
    /// Show metrics at http://ADDR:PORT/metrics of the kernel's network
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Remember digests of large files in this file, so that a restart need not compute them again
    #[arg(long, value_name = "FILE")]
    pub digests: Option<PathBuf>,
}

/// Serves until a signal comes.
///
/// # Errors
/// What keeps it from serving.
pub fn run(args: &ServeArgs) -> Result<Exit, Failed> {
    args.local.check()?;
    if args.multi_queue && args.local.device == DeviceArg::Plain {
        let message = "a plain device has one queue: use --device offload with --multi-queue";
        return Err(Failed::new(Exit::Usage, message));
    }
    let keys = keygen::load(&args.keys)?;
    let origin = origin(args)?;
    let metrics = listen_for_metrics(args.metrics)?;
    let clock = OsClock::new();
    let machine = machine(args, clock.now(), keys, origin)?;
    let busy_poll = args.local.busy_poll();
    match args.local.open_queue(args.multi_queue)? {
        Opened::Plain(device) => drive(machine, clock, device, metrics, busy_poll),
        Opened::Tapped(device) => drive(machine, clock, device, metrics, busy_poll),
    }
}

fn origin(args: &ServeArgs) -> Result<Origin, Failed> {
    let refused = |error: &dyn core::fmt::Display| Failed::new(Exit::Root, format!("root {error}"));
    // Looked at before the digester walks it.
    Tree::open(&args.root).map_err(|error| refused(&error))?;
    let digester = ThreadDigester::start(&args.root, args.digests.clone());
    let digester = digester.map_err(|error| {
        let advice = format!("cannot keep digests ({error}): name another file for --digests");
        Failed::new(Exit::WriteError, advice)
    })?;
    Origin::new(&args.root, Box::new(digester)).map_err(|error| refused(&error))
}

fn machine(
    args: &ServeArgs,
    now: Now,
    keys: KeyRing,
    origin: Origin,
) -> Result<ServerHost<Origin>, Failed> {
    let seed = os_seed().map_err(|error| {
        Failed::new(
            Exit::Device,
            format!("no random numbers ({error}): try again later"),
        )
    })?;
    let config = ServerHostConfig {
        addresses: args.local.addresses.clone(),
        mtu: args.local.mtu,
        tcp_port: args.port,
        udp_port: args.udp_port,
        server_id: args.server_id,
        site_id: args.site_id,
        seed,
    };
    ServerHost::new(now, config, keys, origin).map_err(|error| Failed::new(Exit::Usage, error))
}

struct Serving;

impl Hooks<ServerHost<Origin>> for Serving {
    fn turn(&mut self, _now: Now, _machine: &mut ServerHost<Origin>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn metrics(&mut self, machine: &ServerHost<Origin>) -> Vec<Metric> {
        machine.metrics()
    }
}

fn drive<D: Device + AsRawFd>(
    mut machine: ServerHost<Origin>,
    clock: OsClock,
    device: D,
    metrics: Option<MetricsServer>,
    busy_poll: Duration,
) -> Result<Exit, Failed> {
    let system = |error: io::Error| {
        Failed::new(
            Exit::Device,
            format!("the device failed ({error}): look at dmesg"),
        )
    };
    let mut runtime = Runtime::new(clock, device).map_err(system)?;
    runtime.busy_poll(busy_poll);
    if let Some(server) = metrics {
        runtime.serve_metrics(server).map_err(system)?;
    }
    // The device is up and keeps what comes until the loop runs. Whoever closed standard output
    // does not want to know.
    let _ = writeln!(io::stdout(), "ready").and_then(|()| io::stdout().flush());
    runtime.run(&mut machine, &mut Serving).map_err(system)?;
    Ok(Exit::Success)
}
