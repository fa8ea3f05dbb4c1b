//! Shared by commands with a device of their own: a TUN device with its addresses, a capture,
//! metrics.
//!
//! In: arguments as typed. Out: an open device, or a failure with the remedy.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::exit::{Exit, Failed};
use crate::device::Device;
use crate::device::pcap::Pcap;
use crate::device::tun::{MIN_MTU, Tun, TunConfig, TunError, TunKind, TunRoutes};
use crate::device::udp::UdpError;
use crate::host::Machine;
use crate::host::config::{DEFAULT_MTU, check_addresses};
use crate::runtime::capture::CaptureFile;
use crate::runtime::endpoint::Endpoint;
use crate::runtime::metrics::MetricsServer;
use crate::runtime::{OsClock, Runtime, default_busy_poll, os_seed};

/// Kind of TUN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceArg {
    /// Offloads (GSO, GRO) where the kernel supports them, else plain.
    Auto,
    /// One packet per system call.
    Plain,
    /// Many datagrams per system call (GSO, GRO), or an error.
    Offload,
}

impl DeviceArg {
    const fn kind(self) -> TunKind {
        match self {
            Self::Auto => TunKind::Auto,
            Self::Plain => TunKind::Plain,
            Self::Offload => TunKind::Offload,
        }
    }
}

/// Arguments for the command's own device.
#[derive(Debug, Clone, clap::Args)]
pub struct LocalArgs {
    /// TUN device; created if it does not exist
    #[arg(long, value_name = "NAME", required = true)]
    pub tun: Option<String>,
    /// Kind of TUN device
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    pub device: DeviceArg,
    /// Own address, IPv4 or IPv6; repeat it, or separate addresses by commas
    #[arg(
        long = "address",
        value_name = "ADDR",
        required = true,
        value_delimiter = ','
    )]
    pub addresses: Vec<IpAddr>,
    /// MTU: largest IP packet in bytes; at least 1280 with an IPv6 address
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MTU,
          value_parser = clap::value_parser!(u16).range(i64::from(MIN_MTU)..))]
    pub mtu: u16,
    /// Busy-poll the device for this many microseconds before sleeping, while packets arrive as
    /// close together; 0 disables busy-polling [default: 50 with two processors or more, else 0]
    #[arg(long, value_name = "MICROSECONDS", value_parser = clap::value_parser!(u16).range(..=1000))]
    pub busy_poll: Option<u16>,
    /// Capture all packets to this file, for tshark or tcpdump
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
}

/// An open device.
pub enum Opened {
    /// Without a capture.
    Plain(Tun),
    /// With a capture.
    Tapped(Pcap<Tun, CaptureFile>),
}

impl Opened {
    /// The host routes of the device.
    pub fn routes(&self) -> Option<TunRoutes> {
        match self {
            Self::Plain(tun) => tun.routes(),
            Self::Tapped(tapped) => tapped.device().routes(),
        }
    }
}

impl LocalArgs {
    /// The own address to use towards `remote`: the first of its family.
    pub fn own_for(&self, remote: IpAddr) -> Option<IpAddr> {
        let mut own = self.addresses.iter().copied();
        own.find(|own| own.is_ipv4() == remote.is_ipv4())
    }

    /// Checks the arguments as far as possible without the system.
    ///
    /// # Errors
    /// [`Exit::Usage`].
    pub fn check(&self) -> Result<(), Failed> {
        check_addresses(&self.addresses, self.mtu).map_err(|error| Failed::new(Exit::Usage, error))
    }

    /// The busy-poll time. With one processor it is 0: the peer may need that processor.
    pub fn busy_poll(&self) -> Duration {
        self.busy_poll.map_or_else(default_busy_poll, |micros| {
            Duration::from_micros(micros.into())
        })
    }

    /// Creates a loop over the open device, with the busy-poll time of the arguments.
    ///
    /// # Errors
    /// [`Exit::Device`].
    pub fn runtime<D: Device + AsRawFd>(
        &self,
        clock: OsClock,
        device: D,
    ) -> Result<Runtime<D>, Failed> {
        let mut runtime = Runtime::new(clock, device).map_err(device_failed)?;
        runtime.busy_poll(self.busy_poll());
        Ok(runtime)
    }

    /// Creates an endpoint on the open device, with the busy-poll time of the arguments.
    ///
    /// # Errors
    /// [`Exit::Device`].
    pub fn endpoint<D: Device + AsRawFd, M: Machine>(
        &self,
        clock: OsClock,
        device: D,
        machine: M,
    ) -> Result<Endpoint<D, M>, Failed> {
        let mut endpoint = Endpoint::new(clock, device, machine).map_err(device_failed)?;
        endpoint.runtime_mut().busy_poll(self.busy_poll());
        Ok(endpoint)
    }

    /// Opens the device and the capture.
    ///
    /// # Errors
    /// One of the codes from [`Exit::TunPermission`] to [`Exit::Device`], or [`Exit::WriteError`]
    /// for the capture.
    pub fn open(&self) -> Result<Opened, Failed> {
        self.open_queue(false)
    }

    /// Opens the device, as one queue of several if `multi_queue` is set, and the capture.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn open_queue(&self, multi_queue: bool) -> Result<Opened, Failed> {
        // The file first: a failed device leaves less behind.
        let file = capture_file(self.pcap.as_deref())?;
        let name = self.tun.as_deref().unwrap_or_default();
        let config = TunConfig::builder(name)
            .mtu(self.mtu)
            .addresses(self.addresses.clone())
            .kind(self.device.kind())
            .multi_queue(multi_queue)
            .build();
        let tun = config.and_then(|config| Tun::open(&config));
        let tun = tun.map_err(|error| Failed::new(tun_exit(&error), error))?;
        match file {
            None => Ok(Opened::Plain(tun)),
            Some(file) => match Pcap::new(tun, file) {
                Ok(pcap) => Ok(Opened::Tapped(pcap)),
                Err(error) => Err(unwritable(&error)),
            },
        }
    }
}

/// Wraps an error in opening sockets.
pub(super) fn no_sockets(error: UdpError) -> Failed {
    let exit = match error {
        UdpError::NoAddress | UdpError::TooManyAddresses { .. } => Exit::Usage,
        UdpError::Bind { .. } => Exit::AddressInUse,
        UdpError::Os(_) => Exit::Device,
    };
    Failed::new(exit, error)
}

/// Creates the capture file at `path`, if there is one. A FIFO may get its reader later.
pub(super) fn capture_file(path: Option<&Path>) -> Result<Option<CaptureFile>, Failed> {
    let create = |path: &Path| {
        CaptureFile::create(path).map_err(|error| {
            let name = path.display();
            let advice = format!("cannot create {name} ({error}): choose another file for --pcap");
            Failed::new(Exit::WriteError, advice)
        })
    };
    path.map(create).transpose()
}

pub(super) fn unwritable(error: &io::Error) -> Failed {
    let advice = format!("cannot write the capture ({error}): free some space");
    Failed::new(Exit::WriteError, advice)
}

/// Listens for metrics requests at `address`, if there is one.
pub(super) fn listen_for_metrics(
    address: Option<SocketAddr>,
) -> Result<Option<MetricsServer>, Failed> {
    let bind = |address| {
        MetricsServer::bind(address).map_err(|error| {
            let advice =
                format!("cannot bind {address} ({error}): choose another --metrics address");
            Failed::new(Exit::Metrics, advice)
        })
    };
    address.map(bind).transpose()
}

pub(super) const fn tun_exit(error: &TunError) -> Exit {
    match error {
        TunError::InvalidName { .. }
        | TunError::MtuTooSmall { .. }
        | TunError::TooManyAddresses { .. } => Exit::Usage,
        TunError::NoPermission => Exit::TunPermission,
        TunError::NoDeviceNode | TunError::NoDriver => Exit::TunMissing,
        TunError::Busy { .. } | TunError::NotTun { .. } | TunError::NoVirtioHeader { .. } => {
            Exit::TunBusy
        }
        TunError::LocalAddress { .. } | TunError::RoutedElsewhere { .. } => Exit::AddressInUse,
        TunError::Refused { .. } | TunError::NoOffload { .. } | TunError::Os { .. } => Exit::Device,
    }
}

/// Wraps an error of the device that ended the loop.
pub(super) fn device_failed(error: io::Error) -> Failed {
    let message = format!("the device failed ({error}): see dmesg");
    Failed::new(Exit::Device, message)
}

/// Wraps an error of one of several devices that ended the loop.
pub(super) fn a_device_failed(error: io::Error) -> Failed {
    let message = format!("a device failed ({error}): see dmesg");
    Failed::new(Exit::Device, message)
}

/// Draws a seed from the operating system.
pub(super) fn drawn_seed() -> Result<u64, Failed> {
    os_seed().map_err(|error| {
        let message = format!("cannot read random numbers ({error}): try again later");
        Failed::new(Exit::Device, message)
    })
}

/// Prints `ready`: the device receives packets from now on. A closed standard output is not an
/// error.
pub(super) fn say_ready() {
    let _ = writeln!(io::stdout(), "ready").and_then(|()| io::stdout().flush());
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        local: LocalArgs,
    }

    #[test]
    fn addresses_and_mtus() {
        let cases: [(&str, &str, bool); 13] = [
            ("v4", "--address 10.0.0.1", true),
            ("both", "--address 10.0.0.1 --address fd00::1", true),
            ("commas", "--address 10.0.0.1,fd00::1", true),
            ("none", "", false),
            ("name", "--address host", false),
            ("twice", "--address 10.0.0.1,10.0.0.1", false),
            ("unspecified", "--address ::", false),
            ("multicast", "--address 224.0.0.1", false),
            ("loopback", "--address 127.0.0.1", false),
            ("smallest", "--address 10.0.0.1 --mtu 576", true),
            ("too small", "--address 10.0.0.1 --mtu 575", false),
            ("too small for v6", "--address fd00::1 --mtu 1279", false),
            ("too large", "--address fd00::1 --mtu 65536", false),
        ];
        for (name, typed, good) in cases {
            let words = ["x", "--tun", "hw0"]
                .into_iter()
                .chain(typed.split_whitespace());
            let got = Typed::try_parse_from(words).map(|typed| typed.local.check());
            assert_eq!(matches!(got, Ok(Ok(()))), good, "{name}: {got:?}");
        }
    }
}
