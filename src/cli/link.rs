//! `headwater link`: connects two TUN devices by an emulated link.
//!
//! In: arguments, commands of `headwater link-control`. Out: one line `ready` on standard output
//! when both devices are up, and one line of JSON, the report, at SIGINT or SIGTERM.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};

use crate::cli::control;
use crate::cli::exit::{Exit, Failed};
use crate::cli::local::{
    a_device_failed, capture_file, listen_for_metrics, say_ready, tun_exit, unwritable,
};
use crate::device::pcap::Recorder;
use crate::device::tun::{MIN_MTU, Tun, TunConfig, TunKind};
use crate::link::path::LinkPath;
use crate::link::settings::{LinkSettings, LinkSpec, NAMES, Setting};
use crate::runtime::relay::{HELP, Relay};
use crate::runtime::signals::release_signals;
use crate::runtime::{OsClock, os_seed};

/// Arguments of `headwater link`.
#[derive(Debug, clap::Args)]
pub struct LinkArgs {
    /// TUN device at end a; created if it does not exist
    #[arg(long, value_name = "NAME")]
    pub a: String,
    /// TUN device at end b; created if it does not exist
    #[arg(long, value_name = "NAME")]
    pub b: String,
    /// MTU: largest IP packet in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1500,
          value_parser = clap::value_parser!(u16).range(i64::from(MIN_MTU)..))]
    pub mtu: u16,
    /// One-way propagation delay of each direction; the round trip takes both
    #[arg(long, value_name = "TIME", value_parser = |text: &str| Setting::parse("delay", text))]
    pub delay: Option<Setting>,
    /// Maximum random delay added to --delay, uniform; packets stay in order
    #[arg(long, value_name = "TIME", value_parser = |text: &str| Setting::parse("jitter", text))]
    pub jitter: Option<Setting>,
    /// Whether jitter may reorder packets: keep or free
    #[arg(long, value_name = "ORDER",
          value_parser = |text: &str| Setting::parse("jitter-order", text))]
    pub jitter_order: Option<Setting>,
    /// Rate of each direction in bits of IP packets per second; without it there is no queue
    #[arg(long, value_name = "RATE", value_parser = |text: &str| Setting::parse("rate", text))]
    pub rate: Option<Setting>,
    /// Rate that varies by a trace in the format of mahimahi: a line of milliseconds for each 1500
    /// bytes that can leave; the trace repeats at its last line
    #[arg(long, value_name = "FILE", conflicts_with = "rate",
          value_parser = |text: &str| Setting::parse("rate-trace", text))]
    pub rate_trace: Option<Setting>,
    /// Limit of the queue in front of the rate: 64k, 50ms or 1bdp; a bdp is the rate times the delays
    /// of both directions, of a trace its mean rate [default: 1bdp, but at least 64k]
    #[arg(long, value_name = "AMOUNT", value_parser = |text: &str| Setting::parse("queue", text))]
    pub queue: Option<Setting>,
    /// Queue length above which ECN-capable packets are marked: 32k, 5ms or 0.5bdp
    #[arg(long, value_name = "AMOUNT", value_parser = |text: &str| Setting::parse("mark", text))]
    pub mark: Option<Setting>,
    /// Queue management: droptail or codel, the latter with target and interval if they are not 5ms
    /// and 100ms; codel marks ECN-capable packets and drops others
    #[arg(long, value_name = "NAME[/TARGET/INTERVAL]",
          value_parser = |text: &str| Setting::parse("aqm", text))]
    pub aqm: Option<Setting>,
    /// Aggregation: packets leave the rate in bursts, at the end of each interval, or earlier when
    /// this number waits [default of the latter: 4096]
    #[arg(long, value_name = "INTERVAL[/PACKETS]",
          value_parser = |text: &str| Setting::parse("aggregate", text))]
    pub aggregate: Option<Setting>,
    /// Random loss, independent for each packet
    #[arg(long, value_name = "PERCENT", value_parser = |text: &str| Setting::parse("loss", text))]
    pub loss: Option<Setting>,
    /// Bursty loss (Gilbert-Elliott): per-packet probability of entering and of leaving the bad
    /// state, and of loss in it [default of the last: 100%]
    #[arg(long, value_name = "ENTER/LEAVE[/LOSS]",
          value_parser = |text: &str| Setting::parse("burst", text))]
    pub burst: Option<Setting>,
    /// Probability of duplicating a packet
    #[arg(long, value_name = "PERCENT",
          value_parser = |text: &str| Setting::parse("duplicate", text))]
    pub duplicate: Option<Setting>,
    /// Probability of corrupting a packet, always so that a checksum detects it
    #[arg(long, value_name = "PERCENT", value_parser = |text: &str| Setting::parse("corrupt", text))]
    pub corrupt: Option<Setting>,
    /// Probability of holding a packet back, and for how long at most: 1%/5ms
    #[arg(long, value_name = "PERCENT/TIME",
          value_parser = |text: &str| Setting::parse("reorder", text))]
    pub reorder: Option<Setting>,
    /// Probability, per packet, of delivering an earlier packet again
    #[arg(long, value_name = "PERCENT", value_parser = |text: &str| Setting::parse("replay", text))]
    pub replay: Option<Setting>,
    /// Outage: start, counted from the start of the link, and length; repeat it for several outages
    #[arg(long = "outage", value_name = "START+LENGTH",
          value_parser = |text: &str| Setting::parse("outage", text))]
    pub outages: Vec<Setting>,
    /// Settings of the direction from a to b only, as delay=5ms,loss=1%; they override the others
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub ab: Option<LinkSettings>,
    /// Settings of the direction from b to a only
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub ba: Option<LinkSettings>,
    /// Seed of the random faults: same seed, same faults [default: random, printed in the report]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// UNIX socket to listen on for `headwater link-control`
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// Serve metrics at http://ADDR:PORT/metrics, on a socket of the kernel
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Write the packets that enter and leave at end a to this file, for tshark or tcpdump
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
}

/// Formats the end of `link --help`.
pub(super) fn after_help() -> String {
    format!(
        "Units are those of tc(8). Times: us, ms, s. Rates: bit, kbit, mbit, gbit (thousands). \
         Sizes: b, k, m, g (1024). Probabilities: %. A unit is required.\n\n\
         The devices may be moved to other network namespaces: `ip link set tunA netns NAME`, then \
         configure them again in NAME. The kernel counts packets that come faster than the link \
         reads them: `ip -s link show tunA`, TX dropped. With the privilege to do so the link runs \
         at real-time priority (`chrt`), so that delays hold on a busy machine.\n\n{}\n\
         SIGINT and SIGTERM end the link and print the report.",
        control_help()
    )
}

/// Formats the end of `link-control --help`.
pub(super) fn control_help() -> String {
    let mut text = String::from("Commands of `headwater link-control PATH COMMAND...`:\n");
    for line in HELP.lines() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {line}");
    }
    text.push_str("Settings, as in --ab and --ba:\n");
    for (name, form) in NAMES {
        let _ = writeln!(text, "  {name}={form}");
    }
    text
}

impl LinkArgs {
    /// Collects the settings of both directions.
    fn common(&self) -> LinkSettings {
        [
            &self.delay,
            &self.jitter,
            &self.jitter_order,
            &self.rate,
            &self.rate_trace,
            &self.queue,
            &self.mark,
            &self.aqm,
            &self.aggregate,
            &self.loss,
            &self.burst,
            &self.duplicate,
            &self.corrupt,
            &self.reorder,
            &self.replay,
        ]
        .into_iter()
        .flatten()
        .chain(&self.outages)
        .cloned()
        .collect()
    }

    /// Creates the path; its clock starts with the program's.
    fn path(&self, seed: u64) -> Result<LinkPath, Failed> {
        let common = self.common();
        let spec = |own: &Option<LinkSettings>| LinkSpec::of([&common].into_iter().chain(own));
        LinkPath::new(spec(&self.ab), spec(&self.ba), seed)
            .map_err(|error| Failed::new(Exit::Usage, error))
    }
}

/// Forwards packets until a signal ends the link.
///
/// # Errors
/// The reason why the link cannot start or had to stop.
pub fn run(args: &LinkArgs) -> Result<Exit, Failed> {
    if args.a == args.b {
        let message = format!("--a and --b are both {}: name two devices", args.a);
        return Err(Failed::new(Exit::Usage, message));
    }
    let seed = match args.seed {
        Some(seed) => seed,
        None => os_seed().map_err(|error| {
            let message = format!("cannot read random numbers ({error}): set a --seed");
            Failed::new(Exit::Device, message)
        })?,
    };
    let path = args.path(seed)?;
    let control = control::bind(args.control.as_deref())?;
    let metrics = listen_for_metrics(args.metrics)?;
    let recorder = match capture_file(args.pcap.as_deref())? {
        Some(file) => Some(Recorder::new(file).map_err(|error| unwritable(&error))?),
        None => None,
    };
    let open = |name: &String| {
        // Losses and queues apply to single packets.
        let config = TunConfig::builder(name).mtu(args.mtu).kind(TunKind::Plain);
        let tun = config.build().and_then(|config| Tun::open(&config));
        tun.map_err(|error| Failed::new(tun_exit(&error), error))
    };
    let (a, b) = (open(&args.a)?, open(&args.b)?);
    let mut relay = Relay::new(OsClock::new(), a, b, path).map_err(a_device_failed)?;
    if let Some(control) = control {
        relay.serve_control(control).map_err(a_device_failed)?;
    }
    if let Some(metrics) = metrics {
        relay.serve_metrics(metrics).map_err(a_device_failed)?;
    }
    if let Some(recorder) = recorder {
        relay.record(recorder);
    }
    go_first();
    say_ready();
    let ended = relay.run();
    // A reader of the report may stall.
    release_signals().map_err(a_device_failed)?;
    if let Ok(report) = serde_json::to_string(&relay.report()) {
        let _ = writeln!(io::stdout(), "{report}");
    }
    ended.map_err(a_device_failed)?;
    Ok(Exit::Success)
}

/// Requests real-time priority through `chrt` (util-linux). The link stands for hardware, which does
/// not compete with the programs at its ends: at normal priority it would wake up milliseconds late
/// on a busy machine, and yield the processor to the receiver of each packet it delivers. It sleeps
/// while idle, and the kernel reserves 5 % of the time for other programs (sched(7),
/// sched_rt_runtime_us).
fn go_first() {
    let own = process::id().to_string();
    let run = Command::new("chrt")
        .args(["--fifo", "--pid", "1", &own])
        .stdin(Stdio::null())
        .output();
    if !run.is_ok_and(|run| run.status.success()) {
        log::warn!("cannot set real-time priority: delays are less exact on a busy machine");
    }
}
