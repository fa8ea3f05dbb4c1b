//! `headwater link` joins two TUN devices by an emulated link.
//!
//! In: arguments, commands of `headwater link-control`. Out: one line `ready` on standard output
//! when both devices are up, and at SIGINT or SIGTERM one line of JSON with all that has happened.

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
use crate::link::path::Path;
use crate::link::settings::{LinkSettings, NAMES, Setting, Wish};
use crate::runtime::relay::{HELP, Relay};
use crate::runtime::{OsClock, os_seed};

/// Arguments of `headwater link`.
#[derive(Debug, clap::Args)]
pub struct LinkArgs {
    /// TUN device at end a, to create or attach to
    #[arg(long, value_name = "NAME")]
    pub a: String,
    /// TUN device at end b
    #[arg(long, value_name = "NAME")]
    pub b: String,
    /// Largest IP packet in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1500,
          value_parser = clap::value_parser!(u16).range(i64::from(MIN_MTU)..))]
    pub mtu: u16,
    /// Propagation delay of each direction, one way: the round trip takes both
    #[arg(long, value_name = "TIME", value_parser = |text: &str| Setting::parse("delay", text))]
    pub delay: Option<Setting>,
    /// Longest random delay on top of it, uniform; the order of packets is kept
    #[arg(long, value_name = "TIME", value_parser = |text: &str| Setting::parse("jitter", text))]
    pub jitter: Option<Setting>,
    /// Whether jitter may change the order of packets: keep or free
    #[arg(long, value_name = "ORDER",
          value_parser = |text: &str| Setting::parse("jitter-order", text))]
    pub jitter_order: Option<Setting>,
    /// Rate of each direction, in bits of IP packets; without it there is no queue
    #[arg(long, value_name = "RATE", value_parser = |text: &str| Setting::parse("rate", text))]
    pub rate: Option<Setting>,
    /// Limit of the queue before the wire: 64k, 50ms or 1bdp, where a bdp is what the rate carries
    /// in the delays of both directions [default: 1bdp, but at least 64k]
    #[arg(long, value_name = "AMOUNT", value_parser = |text: &str| Setting::parse("queue", text))]
    pub queue: Option<Setting>,
    /// Queue from which on ECN-capable packets are marked: 32k, 5ms or 0.5bdp
    #[arg(long, value_name = "AMOUNT", value_parser = |text: &str| Setting::parse("mark", text))]
    pub mark: Option<Setting>,
    /// Management of the queue: droptail or codel, with target and interval if they are not 5ms
    /// and 100ms; codel marks ECN-capable packets and drops others
    #[arg(long, value_name = "NAME[/TARGET/INTERVAL]",
          value_parser = |text: &str| Setting::parse("aqm", text))]
    pub aqm: Option<Setting>,
    /// Independent loss
    #[arg(long, value_name = "PERCENT", value_parser = |text: &str| Setting::parse("loss", text))]
    pub loss: Option<Setting>,
    /// Loss in bursts (Gilbert-Elliott): chance a packet to enter and to leave the bad state, and
    /// of loss in it [default of the last: 100%]
    #[arg(long, value_name = "ENTER/LEAVE[/LOSS]",
          value_parser = |text: &str| Setting::parse("burst", text))]
    pub burst: Option<Setting>,
    /// Packets that arrive twice
    #[arg(long, value_name = "PERCENT",
          value_parser = |text: &str| Setting::parse("duplicate", text))]
    pub duplicate: Option<Setting>,
    /// Packets that are damaged, always so that a checksum shows it
    #[arg(long, value_name = "PERCENT", value_parser = |text: &str| Setting::parse("corrupt", text))]
    pub corrupt: Option<Setting>,
    /// Packets that are held back for up to a time and overtaken: 1%/5ms
    #[arg(long, value_name = "PERCENT/TIME",
          value_parser = |text: &str| Setting::parse("reorder", text))]
    pub reorder: Option<Setting>,
    /// Chance, each packet, that an earlier one arrives once more
    #[arg(long, value_name = "PERCENT", value_parser = |text: &str| Setting::parse("replay", text))]
    pub replay: Option<Setting>,
    /// When nothing passes: start after the beginning, and length; repeat it for more
    #[arg(long = "outage", value_name = "START+LENGTH",
          value_parser = |text: &str| Setting::parse("outage", text))]
    pub outages: Vec<Setting>,
    /// Settings of the direction from a to b alone, as delay=5ms,loss=1%; they outrank the others
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub ab: Option<LinkSettings>,
    /// Settings of the direction from b to a alone
    #[arg(long, value_name = "NAME=VALUE,...")]
    pub ba: Option<LinkSettings>,
    /// Seed of the random faults: same seed, same faults [default: drawn, shown in the report]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// UNIX socket to make, at which `headwater link-control` changes and shows the link
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// Show metrics at http://ADDR:PORT/metrics of the kernel's network
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Write what passes end a to this file, for tshark or tcpdump: packets as they enter there,
    /// and as they leave
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
}

/// What `link --help` says at its end.
pub(super) fn after_help() -> String {
    format!(
        "Units are those of tc(8). Times: us, ms, s. Rates: bit, kbit, mbit, gbit (thousands). \
         Sizes: b, k, m, g (1024). Chances: %. A bare number is refused.\n\n\
         The devices may be moved into other network namespaces once they are there: \
         `ip link set tunA netns NAME`, then set it up anew in NAME. Packets that come faster than \
         the link reads them are counted by the kernel: `ip -s link show tunA`, TX dropped. If it \
         may, the link runs at a real-time priority (`chrt`), so that delays hold on a busy \
         machine.\n\n{}\n\
         The report is also printed when SIGINT or SIGTERM ends the link.",
        control_help()
    )
}

/// What `link-control --help` says at its end.
pub(super) fn control_help() -> String {
    let mut text = String::from("Commands of `headwater link-control PATH COMMAND...`:\n");
    for line in HELP.lines() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {line}");
    }
    text.push_str("Settings, also of --ab and --ba:\n");
    for (name, form) in NAMES {
        let _ = writeln!(text, "  {name}={form}");
    }
    text
}

impl LinkArgs {
    /// Settings of both directions.
    fn common(&self) -> LinkSettings {
        [
            self.delay,
            self.jitter,
            self.jitter_order,
            self.rate,
            self.queue,
            self.mark,
            self.aqm,
            self.loss,
            self.burst,
            self.duplicate,
            self.corrupt,
            self.reorder,
            self.replay,
        ]
        .into_iter()
        .flatten()
        .chain(self.outages.iter().copied())
        .collect()
    }

    /// The path, whose clock starts with the program's.
    fn path(&self, seed: u64) -> Result<Path, Failed> {
        let common = self.common();
        let wish = |own: &Option<LinkSettings>| Wish::of([&common].into_iter().chain(own));
        Path::new(wish(&self.ab), wish(&self.ba), seed)
            .map_err(|error| Failed::new(Exit::Usage, error))
    }
}

/// Carries packets until a signal comes.
///
/// # Errors
/// What keeps it from doing so.
pub fn run(args: &LinkArgs) -> Result<Exit, Failed> {
    if args.a == args.b {
        let message = format!("--a and --b are both {}: name two devices", args.a);
        return Err(Failed::new(Exit::Usage, message));
    }
    let seed = match args.seed {
        Some(seed) => seed,
        None => os_seed().map_err(|error| {
            let message = format!("no random numbers ({error}): give a --seed");
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
        let config = TunConfig {
            name: name.clone(),
            mtu: args.mtu,
            addresses: Vec::new(),
            // Losses and queues act on single packets.
            kind: TunKind::Plain,
            multi_queue: false,
        };
        Tun::open(&config).map_err(|error| Failed::new(tun_exit(&error), error))
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
    if let Ok(report) = serde_json::to_string(&relay.report()) {
        let _ = writeln!(io::stdout(), "{report}");
    }
    ended.map_err(a_device_failed)?;
    Ok(Exit::Success)
}

/// Asks for a real-time priority, through the program `chrt` (util-linux). The link stands for
/// hardware, which does not wait for the programs at its ends: as one of them it would wake up
/// milliseconds late on a busy machine, and lose the processor to the reader of each packet it
/// delivers. It sleeps while there is nothing to do, and the kernel leaves other programs a
/// twentieth of the time in any case (sched(7), sched_rt_runtime_us).
fn go_first() {
    let own = process::id().to_string();
    let run = Command::new("chrt")
        .args(["--fifo", "--pid", "1", &own])
        .stdin(Stdio::null())
        .output();
    if !run.is_ok_and(|run| run.status.success()) {
        log::warn!("no real-time priority: delays are less exact while other programs run");
    }
}
