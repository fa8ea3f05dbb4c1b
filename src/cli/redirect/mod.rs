//! `headwater redirect`: redirects each packet for a service address to one of the servers behind it.
//!
//! In: arguments, a configuration file that may change while it runs, commands of `headwater
//! redirect-control`. Out: one line `ready` on standard output when it forwards, then only packets
//! until SIGINT or SIGTERM. After an error in a changed file the running configuration stays.

mod lanes;
mod source;

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::announce::{AnnounceArgs, Announcer};
use crate::cli::control;
use crate::cli::exit::{Exit, Failed};
use crate::cli::local::{
    DeviceArg, LocalArgs, Opened, a_device_failed, drawn_seed, listen_for_metrics, say_ready,
};
use crate::device::Device;
use crate::device::tun::MIN_MTU;
use crate::host::metrics::Metric;
use crate::host::redirector::Redirector;
use crate::redirect::config::{BackendState, RedirectConfig};
use crate::redirect::engine::EngineSettings;
use crate::redirect::membership::Member;
use crate::runtime::control::ControlServer;
use crate::runtime::metrics::MetricsServer;
use crate::runtime::release_signals;
use crate::runtime::{Hooks, Notice, OsClock, Runtime};
use crate::time::{Instant, Now, micros};

use lanes::Lanes;
use source::Source;

/// Interval of the checks for changed files.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Commands of the control socket.
const HELP: &str = "show           configuration, backends and counters as JSON\n\
    drain NAME     stop sending to a backend, unless no other is available\n\
    activate NAME  send packets to it again\n\
    reload         reload the configuration now\n\
    help           print this list";

/// Arguments of `headwater redirect`.
#[derive(Debug, clap::Args)]
pub struct RedirectArgs {
    /// TUN device; created if it does not exist
    #[arg(long, value_name = "NAME")]
    pub tun: String,
    /// Configuration in TOML; reloaded when it changes, and on SIGHUP
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Kind of TUN device; packets from clients are small, so offloads gain little
    #[arg(long, value_enum, default_value_t = DeviceArg::Plain)]
    pub device: DeviceArg,
    /// MTU: largest IP packet in bytes; at least 1280 with an IPv6 address
    #[arg(long, value_name = "BYTES", default_value_t = 1500,
          value_parser = clap::value_parser!(u16).range(i64::from(MIN_MTU)..))]
    pub mtu: u16,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the flattened group has its own")]
    pub announce: AnnounceArgs,
    /// Capture all packets to this file, for tshark or tcpdump
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// UNIX socket to listen on for `headwater redirect-control`
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// Serve metrics at http://ADDR:PORT/metrics, on a socket of the kernel
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
}

/// Formats the end of `redirect --help`.
pub(super) fn after_help() -> String {
    format!(
        "A changed configuration must have a higher `generation`. It replaces states set with `drain` \
         and `activate`. Addresses and services cannot change without a restart.\n\n{}",
        control_help()
    )
}

/// Formats the end of `redirect-control --help`.
pub(super) fn control_help() -> String {
    let lines: Vec<_> = HELP.lines().map(|line| format!("  {line}")).collect();
    let heading = "Commands of `headwater redirect-control PATH COMMAND...`:";
    format!("{heading}\n{}", lines.join("\n"))
}

/// Redirects packets until a signal ends it.
///
/// # Errors
/// The reason why the redirector cannot start or had to stop.
pub fn run(args: &RedirectArgs) -> Result<Exit, Failed> {
    let source = Source::new(&args.config);
    let loaded = source.load()?;
    let local = LocalArgs {
        tun: Some(args.tun.clone()),
        device: args.device,
        addresses: loaded.own_addresses(),
        mtu: args.mtu,
        busy_poll: None,
        pcap: args.pcap.clone(),
    };
    local.check()?;
    let control = control::bind(args.control.as_deref())?;
    let metrics = listen_for_metrics(args.metrics)?;
    let clock = OsClock::new();
    let lanes = Lanes::open(&loaded.config, args.mtu)?;
    let settings = EngineSettings {
        mtu: args.mtu,
        keys: loaded.keys.clone(),
        table: loaded.table.clone(),
        seed: drawn_seed()?,
    };
    let machine = Redirector::new(clock.now(), &loaded.config, settings);
    let opened = local.open()?;
    let hooks = Redirecting {
        announcer: Announcer::new(&args.announce, opened.routes(), &loaded.config.services)?,
        source: source.into_running(loaded),
        lanes,
        mtu: args.mtu,
        look: clock.instant(),
        refused: 0,
    };
    let drive = Drive {
        machine,
        hooks,
        clock,
        control,
        metrics,
    };
    match opened {
        Opened::Plain(device) => drive.run(device),
        Opened::Tapped(device) => drive.run(device),
    }
}

/// The state of the loop, except the device.
struct Drive {
    machine: Redirector,
    hooks: Redirecting,
    clock: OsClock,
    control: Option<ControlServer>,
    metrics: Option<MetricsServer>,
}

impl Drive {
    fn run<D: Device + AsRawFd>(mut self, device: D) -> Result<Exit, Failed> {
        let mut runtime = Runtime::new(self.clock, device).map_err(a_device_failed)?;
        runtime.catch(Notice::Hangup).map_err(a_device_failed)?;
        if let Some(server) = self.control {
            runtime.serve_control(server).map_err(a_device_failed)?;
        }
        if let Some(server) = self.metrics {
            runtime.serve_metrics(server).map_err(a_device_failed)?;
        }
        say_ready();
        let ended = runtime.run(&mut self.machine, &mut self.hooks);
        release_signals().map_err(a_device_failed)?;
        self.hooks.announcer.end();
        ended.map_err(a_device_failed)?;
        Ok(Exit::Success)
    }
}

/// The state beside the machine: files, announcements, devices of backends.
struct Redirecting {
    announcer: Announcer,
    source: source::Running,
    lanes: Lanes,
    mtu: u16,
    /// The time of the next check for changed files.
    look: Instant,
    /// Configurations rejected since the start.
    refused: u64,
}

impl Redirecting {
    /// Applies the files' present content; on an error the running configuration stays.
    fn reload(&mut self, now: Now, machine: &mut Redirector) -> Result<(), String> {
        let reloaded = self.try_reload(now, machine);
        match &reloaded {
            Ok(()) => log::info!(
                "running configuration: generation {}",
                self.source.generation()
            ),
            Err(why) => {
                self.refused += 1;
                let generation = self.source.generation();
                log::error!("{why}; generation {generation} stays active");
            }
        }
        reloaded
    }

    fn try_reload(&mut self, now: Now, machine: &mut Redirector) -> Result<(), String> {
        let loaded = self.source.reload().map_err(|failed| failed.message)?;
        if !self.source.is_same_text(&loaded) {
            if loaded.own_addresses() != self.source.own_addresses() {
                return Err("`address` or `services` changed: restart to apply".to_owned());
            }
            let lanes = self.lanes.reopen(&loaded.config, self.mtu);
            let lanes = lanes.map_err(|failed| failed.message)?;
            let swapped = machine.replace(now, &loaded.config, loaded.table.clone());
            swapped.map_err(|error| error.to_string())?;
            self.lanes.replace(lanes, &loaded.config);
        } else if !self.source.is_same_table(&loaded) {
            machine.set_table(loaded.table.clone());
            log::info!("table of sites reloaded");
        }
        machine.set_keys(loaded.keys.clone());
        self.source.put(loaded);
        Ok(())
    }

    fn show(&self, machine: &Redirector) -> Value {
        let config = self.source.config();
        let metric = |metric: &Metric| {
            let samples = metric.samples.iter().map(|sample| {
                let labels: Vec<_> = sample.labels.iter().map(|(_, v)| v.as_str()).collect();
                (labels.join(" "), Value::from(sample.value))
            });
            let all: serde_json::Map<_, _> = samples.collect();
            let only = all.get("").cloned();
            (metric.name.to_owned(), only.unwrap_or(Value::Object(all)))
        };
        let of_backends = "headwater_redirect_backend_";
        let metrics = machine.metrics();
        let counters = metrics
            .iter()
            .filter(|one| !one.name.starts_with(of_backends));
        json!({
            "generation": config.generation.0,
            "id": config.id.0,
            "policy": config.policy,
            "services": config.services,
            "backends": machine.members().map(|member| shown(member, config)).collect::<Vec<_>>(),
            "counters": counters.map(metric).collect::<serde_json::Map<_, _>>(),
            "rejected_configurations": self.refused,
        })
    }
}

/// Formats one backend for `show`.
fn shown(member: &Member, config: &RedirectConfig) -> Value {
    let entry = member.entry();
    let site = entry
        .site
        .and_then(|site| config.sites.get(usize::from(site.0)));
    json!({
        "name": entry.name,
        "id": entry.id.0,
        "address": entry.address,
        "device": entry.device,
        "weight": entry.weight,
        "site": site,
        "wanted": entry.state.label(),
        "state": member.state().label(),
        "load": member.health().reply().load,
        "round_trip_us": member.health().round_trip().map(micros),
        "packets": member.counters.packets,
        "bytes": member.counters.bytes,
        "changes": member.counters.changes,
    })
}

impl Hooks<Redirector> for Redirecting {
    fn turn(&mut self, now: Now, machine: &mut Redirector) -> ControlFlow<()> {
        if now.instant >= self.look {
            self.look = now.instant + LOOK_INTERVAL;
            if self.source.has_changed() {
                // `reload` has logged the error.
                let _ = self.reload(now, machine);
            }
        }
        self.announcer.update(now.instant, machine.is_able());
        ControlFlow::Continue(())
    }

    fn deadline(&self) -> Option<Instant> {
        let settled = self.announcer.deadline();
        Some(settled.map_or(self.look, |at| at.min(self.look)))
    }

    fn notice(&mut self, now: Now, _notice: Notice, machine: &mut Redirector) {
        // The same as after a change of the file.
        let _ = self.reload(now, machine);
    }

    fn forward(&mut self, machine: &mut Redirector) -> io::Result<()> {
        while let Some((backend, packet)) = machine.poll_forward() {
            self.lanes.send(backend, &packet)?;
            crate::host::Machine::recycle(machine, packet);
        }
        Ok(())
    }

    fn command(
        &mut self,
        now: Now,
        line: &str,
        machine: &mut Redirector,
    ) -> Result<String, String> {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let mut want = |name: &str, state| match machine.set_state(name, state) {
            true => Ok(String::new()),
            false => Err(format!("no backend is named '{name}': see `show`")),
        };
        match words[..] {
            ["drain", name] => want(name, BackendState::Draining),
            ["activate", name] => want(name, BackendState::Active),
            ["show"] => Ok(self.show(machine).to_string()),
            ["reload"] => self.reload(now, machine).map(|()| String::new()),
            ["help"] => Ok(HELP.to_owned()),
            _ => Err(format!("unknown command '{line}': see `help`")),
        }
    }

    fn metrics(&mut self, machine: &Redirector) -> Vec<Metric> {
        let mut metrics = machine.metrics();
        metrics.push(Metric::counter(
            "headwater_redirect_rejected_configurations_total",
            "Configurations rejected because of an error.",
            self.refused,
        ));
        metrics
    }
}

#[cfg(test)]
mod tests;
